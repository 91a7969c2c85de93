"""The latest changes of a store and who watches them; what memory and SQLite share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from crossway.store.interface import Change, Compacted


class History:
    """Keep the latest changes, at most *limit* of them and about *size* bytes."""

    def __init__(self, revision: int, limit: int = 100_000, size: int = 64 << 20) -> None:
        self.revision = revision
        self._changes: list[Change] = []
        self._sizes: list[int] = []
        self._limit, self._size = limit, size
        self._held = 0
        self._woken: set[asyncio.Event] = set()

    def append(self, changes: list[Change]) -> None:
        self._changes += changes
        sizes = list(map(_size, changes))
        self._sizes += sizes
        self._held += sum(sizes)
        self.revision = changes[-1].revision
        if len(self._changes) > self._limit or self._held > self._size:
            # Half at once, so that trimming costs nothing on the average.
            self.compact(self._changes[len(self._changes) // 2].revision)
        for event in self._woken:
            event.set()

    def compact(self, revision: int) -> None:
        """Forget all changes up to *revision*."""
        count = max(0, revision - self._floor())
        self._held -= sum(self._sizes[:count])
        del self._changes[:count], self._sizes[:count]

    async def watch(self, after: int) -> AsyncIterator[list[Change]]:
        event = asyncio.Event()
        self._woken.add(event)
        try:
            while True:
                event.clear()
                floor = self._floor()
                if after < floor or after > self.revision:
                    raise Compacted(f"revision {after} is not within {floor} and {self.revision}")
                changes = self._changes[after - floor :]
                if changes:
                    after = changes[-1].revision
                    yield changes
                else:
                    await event.wait()
        finally:
            self._woken.discard(event)

    def _floor(self) -> int:
        """Return the last revision that is forgotten."""
        return self.revision - len(self._changes)


def _size(change: Change) -> int:
    return sum(len(event.key) + len(event.value or b"") + 200 for event in change.events)
