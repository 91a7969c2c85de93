"""The store in memory: the reference that tests hold the others against."""

from __future__ import annotations

from collections.abc import AsyncIterator

from crossway.store.history import History
from crossway.store.interface import Change, Entry, Stale, Transaction


class MemoryStore:
    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self.history = History(0)

    async def commit(self, transaction: Transaction) -> int:
        stale = self._stale(transaction)
        if stale:
            raise Stale(stale, self.history.revision)
        revision = self.history.revision + 1
        for key in transaction.deletes:
            self._entries.pop(key, None)
        for key, value in transaction.puts.items():
            self._entries[key] = Entry(key, value, revision)
        self.history.append([Change(revision, transaction.events())])
        return revision

    async def read(self, prefix: str) -> tuple[int, list[Entry]]:
        return self.history.revision, [self._entries[k] for k in sorted(self._entries) if k.startswith(prefix)]

    def watch(self, after: int) -> AsyncIterator[list[Change]]:
        return self.history.watch(after)

    async def close(self) -> None:
        self._entries.clear()

    def _stale(self, transaction: Transaction) -> list[str]:
        def modified(key: str) -> int:
            entry = self._entries.get(key)
            return entry.modified if entry else 0

        return [
            *(key for key, revision in transaction.same.items() if modified(key) != revision),
            *(key for key in transaction.exists if key not in self._entries),
            *(
                prefix
                for prefix, revision in transaction.quiet.items()
                if any(e.modified > revision for k, e in self._entries.items() if k.startswith(prefix))
            ),
        ]
