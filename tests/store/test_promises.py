"""What every store promises, run on each."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest

from crossway.errors import Invalid, Unavailable
from crossway.store import Change, Compacted, Event, Stale, Store, Transaction, open_store
from crossway.store.memory import MemoryStore
from crossway.store.sqlite import SqliteStore

Story = Callable[[Store], Awaitable[None]]


@pytest.fixture(params=["memory", "sqlite"])
def tell(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Story], None]:
    """Run a story on a fresh store of each kind."""

    def run(story: Story) -> None:
        async def whole() -> None:
            store = open_store("memory:" if request.param == "memory" else f"sqlite:{tmp_path / 'db'}")
            try:
                await story(store)
            finally:
                await store.close()

        asyncio.run(whole())

    return run


def put(**puts: bytes) -> Transaction:
    return Transaction(puts=dict(puts))


async def state(store: Store) -> dict[str, bytes]:
    return {entry.key: entry.value for entry in (await store.read(""))[1]}


async def take(watch: AsyncIterator[list[Change]], count: int) -> list[Change]:
    changes: list[Change] = []
    async for some in watch:
        changes += some
        if len(changes) >= count:
            break
    return changes


def test_revisions_count_transactions(tell: Callable[[Story], None]) -> None:
    async def story(store: Store) -> None:
        assert (await store.read(""))[0] == 0
        assert [await store.commit(put(a=b"1")), await store.commit(put(b=b"2"))] == [1, 2]
        assert (await store.read(""))[0] == 2

    tell(story)


def test_read_is_by_prefix_in_order_with_the_revision_of_each_key(tell: Callable[[Story], None]) -> None:
    async def story(store: Store) -> None:
        await store.commit(Transaction(puts={"a/2": b"x", "a/1": b"y", "b/1": b"z"}))
        await store.commit(Transaction(puts={"a/1": b"w"}))
        revision, entries = await store.read("a/")
        assert revision == 2
        assert [(e.key, e.value, e.modified) for e in entries] == [("a/1", b"w", 2), ("a/2", b"x", 1)]

    tell(story)


@pytest.mark.parametrize(
    ("relies", "holds"),
    [
        ({"same": {"there": 1}}, True),
        ({"same": {"there": 2}}, False),
        ({"same": {"there": 0}}, False),
        ({"same": {"absent": 0}}, True),
        ({"same": {"absent": 1}}, False),
        ({"exists": {"there"}}, True),
        ({"exists": {"absent"}}, False),
        ({"quiet": {"the": 0}}, False),
        ({"quiet": {"the": 1}}, True),
        ({"quiet": {"there/": 0}}, True),
        ({"same": {"there": 1, "absent": 1}}, False),
    ],
)
def test_transaction_happens_wholly_or_not_at_all(
    tell: Callable[[Story], None], relies: dict[str, dict[str, int]], holds: bool
) -> None:
    async def story(store: Store) -> None:
        await store.commit(put(there=b"old"))
        transaction = Transaction(**relies, puts={"new": b"1", "there": b"new"})  # type: ignore[arg-type]
        if holds:
            assert await store.commit(transaction) == 2
            assert await state(store) == {"there": b"new", "new": b"1"}
        else:
            with pytest.raises(Stale):
                await store.commit(transaction)
            assert await state(store) == {"there": b"old"}
            assert (await store.read(""))[0] == 1

    tell(story)


def test_stale_names_the_keys(tell: Callable[[Story], None]) -> None:
    async def story(store: Store) -> None:
        await store.commit(put(a=b"1"))
        with pytest.raises(Stale) as caught:
            await store.commit(Transaction(same={"a": 0, "b": 0}, exists={"c"}))
        assert (caught.value.keys, caught.value.revision) == (["a", "c"], 1)

    tell(story)


def test_a_deleted_key_is_absent(tell: Callable[[Story], None]) -> None:
    async def story(store: Store) -> None:
        await store.commit(put(a=b"1", b=b"2"))
        await store.commit(Transaction(deletes={"a"}))
        assert await state(store) == {"b": b"2"}
        await store.commit(Transaction(same={"a": 0}, puts={"a": b"again"}))
        assert await state(store) == {"a": b"again", "b": b"2"}

    tell(story)


def test_of_many_at_once_that_create_a_key_one_wins(tell: Callable[[Story], None]) -> None:
    async def story(store: Store) -> None:
        answers = await asyncio.gather(
            *(store.commit(Transaction(same={"a": 0}, puts={"a": b"%d" % i})) for i in range(50)),
            return_exceptions=True,
        )
        won = [i for i, answer in enumerate(answers) if isinstance(answer, int)]
        assert len(won) == 1
        assert await state(store) == {"a": b"%d" % won[0]}

    tell(story)


def test_concurrent_increments_lose_none(tell: Callable[[Story], None]) -> None:
    async def story(store: Store) -> None:
        await store.commit(put(n=b"0"))

        async def increment() -> None:
            while True:
                _, [entry] = await store.read("n")
                try:
                    await store.commit(
                        Transaction(same={"n": entry.modified}, puts={"n": b"%d" % (int(entry.value) + 1)})
                    )
                    return
                except Stale:
                    await asyncio.sleep(0)

        await asyncio.gather(*(increment() for _ in range(30)))
        assert await state(store) == {"n": b"30"}

    tell(story)


def test_watch_tells_all_changes_in_order_from_a_revision(tell: Callable[[Story], None]) -> None:
    async def story(store: Store) -> None:
        for i in range(3):
            await store.commit(Transaction(puts={"a": b"%d" % i}, deletes={"b"}))
        watch = store.watch(1)
        later = asyncio.create_task(take(watch, 4))
        await asyncio.sleep(0)
        await asyncio.gather(*(store.commit(put(c=b"%d" % i)) for i in range(2)))
        changes = await later
        assert [change.revision for change in changes] == [2, 3, 4, 5]
        assert changes[0].events == (Event("b", None), Event("a", b"1"))
        assert changes[3].events == (Event("c", b"1"),)

    tell(story)


def test_a_watch_has_heard_of_a_commit_before_it_is_answered(tell: Callable[[Story], None]) -> None:
    async def story(store: Store) -> None:
        heard: list[int] = []

        async def listen() -> None:
            async for changes in store.watch(0):
                heard.extend(change.revision for change in changes)

        task = asyncio.create_task(listen())
        await asyncio.sleep(0)
        revision = await store.commit(put(a=b"1"))
        await asyncio.sleep(0)
        assert heard == [revision]
        task.cancel()

    tell(story)


@pytest.mark.parametrize("after", [0, 2, 9])
def test_watch_from_a_forgotten_or_future_revision_is_compacted(tell: Callable[[Story], None], after: int) -> None:
    async def story(store: Store) -> None:
        for i in range(5):
            await store.commit(put(a=b"%d" % i))
        assert isinstance(store, MemoryStore | SqliteStore)
        store.history.compact(3)
        with pytest.raises(Compacted):
            await take(store.watch(after), 1)
        assert [c.revision for c in await take(store.watch(3), 2)] == [4, 5]

    tell(story)


def test_history_is_bounded(tell: Callable[[Story], None]) -> None:
    async def story(store: Store) -> None:
        assert isinstance(store, MemoryStore | SqliteStore)
        store.history._limit = 10
        for i in range(25):
            await store.commit(put(a=b"%d" % i))
        with pytest.raises(Compacted):
            await take(store.watch(14), 1)
        assert (await take(store.watch(24), 1))[0].revision == 25

    tell(story)


def test_sqlite_has_all_after_a_restart(tmp_path: Path) -> None:
    async def first() -> None:
        store = SqliteStore(tmp_path / "db")
        await store.commit(put(a=b"1", b=b"2"))
        await store.commit(Transaction(deletes={"a"}))
        await store.close()

    async def second() -> None:
        store = SqliteStore(tmp_path / "db")
        revision, entries = await store.read("")
        assert (revision, [(e.key, e.modified) for e in entries]) == (2, [("b", 1)])
        with pytest.raises(Compacted):
            await take(store.watch(1), 1)
        assert await store.commit(put(c=b"3")) == 3
        await store.close()

    asyncio.run(first())
    asyncio.run(second())


def test_a_second_server_on_the_same_file_is_refused(tmp_path: Path) -> None:
    first = SqliteStore(tmp_path / "db")
    with pytest.raises(Unavailable, match="another server uses it"):
        SqliteStore(tmp_path / "db")
    asyncio.run(first.close())


def test_when_the_disk_is_full_nothing_is_answered_and_nothing_is_half_done(tmp_path: Path) -> None:
    async def story() -> None:
        store = SqliteStore(tmp_path / "db")
        await store.commit(put(a=b"1"))
        store._db.execute("PRAGMA max_page_count = 8")
        big = Transaction(puts={f"big/{i}": b"x" * 4000 for i in range(20)})
        answers = await asyncio.gather(store.commit(big), store.commit(put(b=b"2")), return_exceptions=True)
        assert all(isinstance(answer, Unavailable) for answer in answers)
        assert await state(store) == {"a": b"1"}
        store._db.execute("PRAGMA max_page_count = 100000")
        assert await store.commit(big) == 2
        assert [c.revision for c in await take(store.watch(1), 1)] == [2]
        await store.close()

    asyncio.run(story())


WRITER = """
import asyncio, sys
from crossway.store.sqlite import SqliteStore
from crossway.store import Transaction
async def client(store, name):
    for i in range(10_000):
        puts = {f"{name}/{i}": b"x" * 500, f"pair/{name}/{i}": b""}
        await store.commit(Transaction(same={f"{name}/{i}": 0}, puts=puts))
        print(f"{name}/{i}", flush=True)
async def main():
    store = SqliteStore(sys.argv[1])
    await asyncio.gather(*(client(store, n) for n in "abcdefgh"))
asyncio.run(main())
"""


def test_what_sqlite_answered_survives_kill_9(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "db")], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    answered = [process.stdout.readline().strip() for _ in range(400)]
    os.kill(process.pid, signal.SIGKILL)
    answered += process.stdout.read().split("\n")[:-1]
    process.stdout.close()
    process.wait()

    async def look() -> tuple[int, set[str]]:
        store = SqliteStore(tmp_path / "db")
        revision, entries = await store.read("")
        await store.close()
        return revision, {entry.key for entry in entries}

    revision, keys = asyncio.run(look())
    assert {*answered, *(f"pair/{key}" for key in answered)} <= keys
    assert revision == len(keys) / 2, "each transaction is there wholly, and counted once"


@pytest.mark.parametrize("address", ["etcd:127.0.0.1:2379", "sqlite:", "postgres:x"])
def test_an_unknown_store_is_refused_with_what_would_be_right(address: str) -> None:
    with pytest.raises(Invalid, match="sqlite:PATH"):
        open_store(address)


def test_a_file_of_the_first_version_serves_on(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "db")) as older:
        older.executescript("""
            CREATE TABLE entries (key TEXT PRIMARY KEY, value BLOB NOT NULL, modified INTEGER NOT NULL) WITHOUT ROWID;
            CREATE TABLE head (one INTEGER PRIMARY KEY CHECK (one = 1), revision INTEGER NOT NULL, schema INTEGER);
            INSERT INTO head VALUES (1, 7, 1);
            INSERT INTO entries VALUES ('b', 'two', 7), ('a', 'one', 3);
        """)

    async def story() -> None:
        for revision in (8, 9):
            store = open_store(f"sqlite:{tmp_path / 'db'}")
            assert [(e.key, e.modified) for e in (await store.read(""))[1]][:1] == [("a", 3)]
            with pytest.raises(Stale):
                await store.commit(Transaction(same={"a": 0}, puts={"a": b"new"}))
            assert await store.commit(Transaction(same={"a": 3}, puts={"b": b"more"})) == revision
            await store.close()

    asyncio.run(story())
