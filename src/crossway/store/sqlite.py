"""The store in one SQLite file, for one server.

Transactions that wait are written as one SQLite transaction: their statements
run on the event loop (they touch pages in memory, some microseconds each), the
commit, which waits for the disk, runs in a thread. Statements in that thread
were tried in thought and dropped: each would fight the loop for the
interpreter's lock. What is answered is on the disk (WAL, synchronous=FULL).
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Collection, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from itertools import islice
from pathlib import Path

from crossway.errors import Unavailable
from crossway.portions import Portions
from crossway.store.history import History
from crossway.store.interface import Change, Entry, Stale, Transaction, after_prefix

# Values stand in the order in which they came, and only short keys are spread over the index: a commit
# of fifty ports writes a third of the pages that it would if values were spread by their keys.
ENTRIES = """
CREATE TABLE IF NOT EXISTS entries (
    number INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, value BLOB NOT NULL, modified INTEGER NOT NULL
);
"""
SCHEMA = f"""
{ENTRIES}
CREATE TABLE IF NOT EXISTS head (one INTEGER PRIMARY KEY CHECK (one = 1), revision INTEGER NOT NULL, schema INTEGER);
INSERT OR IGNORE INTO head VALUES (1, 0, 1);
"""
# Files of the first version had values beside their keys.
RENEW = f"""
BEGIN;
ALTER TABLE entries RENAME TO older;
{ENTRIES}
INSERT INTO entries (key, value, modified) SELECT key, value, modified FROM older ORDER BY key;
DROP TABLE older;
COMMIT;
"""
# Pages of the log that are moved to their places at once: fewer would move the same pages again and again.
CHECKPOINT = 4000
# Transactions in one SQLite transaction: more would keep the first ones waiting.
GROUP = 256
# Rows that are looked at or written without a pause, and of a transaction that is written alone, with pauses.
ROWS, LARGE = 200, 2000

Waiting = tuple[Transaction, "asyncio.Future[int]"]


class SqliteStore:
    def __init__(self, path: str | Path) -> None:
        with ExitStack() as undo:
            try:
                Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                _make_private(Path(path))
                self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=1)
                undo.callback(self._db.close)
                revision = self._open()
            except (sqlite3.Error, OSError) as error:
                hint = " (another server uses it)" if "locked" in str(error) else ""
                raise Unavailable(f"store sqlite:{path}: {error}{hint}") from error
            undo.pop_all()
        self.history = History(revision)
        self._waiting: list[Waiting] = []
        self._writing = False
        self._long: asyncio.Task[None] | None = None
        self._closed: asyncio.Future[None] | None = None
        self._disk = ThreadPoolExecutor(1, "store")

    def _open(self) -> int:
        """Make the file one of ours, for this server alone; return its revision."""
        for pragma in (
            "locking_mode = EXCLUSIVE",
            "journal_mode = WAL",
            "synchronous = FULL",
            "cache_size = -65536",
            f"wal_autocheckpoint = {CHECKPOINT}",
        ):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.executescript(SCHEMA)
        (told,) = self._db.execute("SELECT sql FROM sqlite_master WHERE name = 'entries'").fetchone()
        if "WITHOUT ROWID" in told:
            self._db.executescript(RENEW)
        # Takes the lock now, so that a second server on this file fails at its start.
        self._db.execute("UPDATE head SET schema = 1")
        revision: int
        (revision,) = self._db.execute("SELECT revision FROM head").fetchone()
        return revision

    async def commit(self, transaction: Transaction) -> int:
        if self._closed:
            raise Unavailable("the store is closing")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[int] = loop.create_future()
        self._waiting.append((transaction, answer))
        if not self._writing:
            self._writing = True
            loop.call_soon(self._write)
        return await answer

    async def read(self, prefix: str) -> tuple[int, list[Entry]]:
        rows = (
            self._db.execute(
                "SELECT key, value, modified FROM entries WHERE key >= ? AND key < ? ORDER BY key",
                (prefix, after_prefix(prefix)),
            )
            if prefix
            else self._db.execute("SELECT key, value, modified FROM entries ORDER BY key")
        )
        return self.history.revision, [Entry(*row) for row in rows]

    def watch(self, after: int) -> AsyncIterator[list[Change]]:
        return self.history.watch(after)

    async def close(self) -> None:
        if not self._closed:
            self._closed = asyncio.get_running_loop().create_future()
            if not self._writing:
                self._closed.set_result(None)
        await self._closed
        self._disk.shutdown()
        self._db.close()

    def _write(self) -> None:
        """Write those that wait, and leave the commit to the thread; a large one alone, in portions."""
        count, rows = 0, 0
        for transaction, _ in self._waiting[:GROUP]:
            rows += _rows(transaction)
            if count and rows > LARGE:
                break
            count += 1
        group, self._waiting = self._waiting[:count], self._waiting[count:]
        if rows > LARGE and count == 1:
            self._long = asyncio.get_running_loop().create_task(self._write_long(group))
            return
        writing = self._write_group(group)
        for _ in writing:
            pass

    async def _write_long(self, group: list[Waiting]) -> None:
        portions = Portions()
        for _ in self._write_group(group):
            if portions.due:
                await portions.turn()

    def _write_group(self, group: list[Waiting]) -> Iterator[None]:
        """Write a group, with a pause for others between some rows and the next."""
        revision = self.history.revision
        changes: list[Change] = []
        answers: list[int | Stale] = []
        try:
            self._db.execute("BEGIN IMMEDIATE")
            for transaction, _ in group:
                done = yield from self._apply(transaction, revision + 1)
                if not done:
                    stale = yield from self._stale(transaction)
                    answers.append(Stale(stale, revision))
                    continue
                revision += 1
                changes.append(Change(revision, transaction.events()))
                answers.append(revision)
            self._db.execute("UPDATE head SET revision = ?", (revision,))
        except sqlite3.Error as error:
            self._fail(group, error)
            return
        done_with = asyncio.get_running_loop().run_in_executor(self._disk, self._db.execute, "COMMIT")
        done_with.add_done_callback(lambda future: self._written(group, changes, answers, future.exception()))

    def _written(
        self, group: list[Waiting], changes: list[Change], answers: list[int | Stale], error: BaseException | None
    ) -> None:
        """Tell the watches, then those who wait: also a refused one finds the copy up to date."""
        if error:
            self._fail(group, error)
            return
        if changes:
            self.history.append(changes)
        for (_, future), answer in zip(group, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, Stale):
                future.set_exception(answer)
            else:
                future.set_result(answer)
        self._next()

    def _fail(self, group: list[Waiting], error: BaseException) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")
        for _, future in group:
            if not future.done():
                future.set_exception(Unavailable(f"the store cannot write: {error}"))
        self._next()

    def _next(self) -> None:
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._write)
            return
        self._writing = False
        if self._closed:
            self._closed.set_result(None)

    def _apply(self, transaction: Transaction, revision: int) -> Generator[None, None, bool]:
        """Do it; False if something that it relies on is not so, and then nothing has happened."""
        # Keys that must be absent and are put are tried at once: looking first would cost as much again.
        fresh = [key for key, known in transaction.same.items() if known == 0 and key in transaction.puts]
        if (yield from self._stale(transaction, but=fresh)):
            return False
        fresh.sort()
        for first in range(0, len(fresh), ROWS):
            some = fresh[first : first + ROWS]
            done = self._db.executemany(
                "INSERT INTO entries (key, value, modified) VALUES (?, ?, ?) ON CONFLICT (key) DO NOTHING",
                [(key, transaction.puts[key], revision) for key in some],
            )
            if done.rowcount < len(some):
                for begin in range(0, first + len(some), ROWS):
                    undo = [(key, revision) for key in fresh[begin : begin + ROWS]]
                    self._db.executemany("DELETE FROM entries WHERE key = ? AND modified = ?", undo)
                    yield
                return False
            yield
        for keys in _some(transaction.deletes):
            self._db.executemany("DELETE FROM entries WHERE key = ?", [(key,) for key in keys])
            yield
        if len(fresh) < len(transaction.puts):
            known = set(fresh)
            for keys in _some(key for key in transaction.puts if key not in known):
                self._db.executemany(
                    "INSERT INTO entries (key, value, modified) VALUES (?, ?, ?) "
                    "ON CONFLICT (key) DO UPDATE SET value = excluded.value, modified = excluded.modified",
                    [(key, transaction.puts[key], revision) for key in keys],
                )
                yield
        return True

    def _stale(self, transaction: Transaction, but: Collection[str] = ()) -> Generator[None, None, list[str]]:
        """Return what is not as a transaction relies on it, *but* for some keys that must be absent."""
        tried = frozenset(but)
        stale: list[str] = []
        for keys in _some(key for key in transaction.same if key not in tried):
            stale += [key for key in keys if self._modified(key) != transaction.same[key]]
            yield
        for keys in _some(transaction.exists):
            stale += [key for key in keys if not self._modified(key)]
            yield
        for prefixes in _some(transaction.quiet):
            stale += [
                prefix
                for prefix in prefixes
                if self._db.execute(
                    "SELECT 1 FROM entries WHERE key >= ? AND key < ? AND modified > ? LIMIT 1",
                    (prefix, after_prefix(prefix), transaction.quiet[prefix]),
                ).fetchone()
            ]
            yield
        return stale

    def _modified(self, key: str) -> int:
        row = self._db.execute("SELECT modified FROM entries WHERE key = ?", (key,)).fetchone()
        return row[0] if row else 0


def _make_private(path: Path) -> None:
    """Have the file there, and what SQLite keeps beside it, for nobody but its owner."""
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    # Older versions made them readable for all; what SQLite makes anew takes after the file.
    for one in (path, *(path.with_name(path.name + suffix) for suffix in ("-wal", "-shm", "-journal"))):
        with suppress(FileNotFoundError):
            mode = one.stat().st_mode
            if mode & 0o077:
                one.chmod(mode & 0o700)


def _rows(transaction: Transaction) -> int:
    """Return how many rows a transaction looks at or writes."""
    return (
        len(transaction.same)
        + len(transaction.exists)
        + len(transaction.quiet)
        + len(transaction.puts)
        + len(transaction.deletes)
    )


def _some(keys: Iterable[str]) -> Iterator[list[str]]:
    """Return keys, some at a time."""
    left = iter(keys)
    while some := list(islice(left, ROWS)):
        yield some
