"""Long work lets others have the loop between its steps, and is still all or nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from clouds import ADMIN, World
from crossway import portions
from crossway.api import query
from crossway.control import cloud as clouds
from crossway.control import network, port, subnet
from crossway.control.decision import Decision, decide, decide_in_portions
from crossway.control.port import PORTS
from crossway.errors import Conflict, NotFound
from crossway.model.network import NETWORK, Network
from crossway.model.port import PORT
from crossway.model.subnet import SUBNET
from crossway.store import Stale, Store, Transaction
from crossway.store import sqlite as sqlite_store
from crossway.store.memory import MemoryStore
from crossway.store.sqlite import SqliteStore

MANY = 120


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "db")


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every step take as long as a portion may, by the clock that portions look at."""
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += portions.PORTION_SECONDS
        return now

    monkeypatch.setattr("crossway.portions.time.perf_counter", clock)
    monkeypatch.setattr(clouds, "EVENTS", 10)
    monkeypatch.setattr(sqlite_store, "ROWS", 10)
    monkeypatch.setattr(sqlite_store, "LARGE", 50)


def made(world: World) -> Network:
    of: Network = world.do(lambda d: network.create(d, ADMIN, NETWORK.given({})))
    body = {"network_id": of.id, "ip_version": 4, "cidr": "10.0.0.0/16"}
    world.do(lambda d: subnet.create(d, ADMIN, SUBNET.given(body)))
    return of


async def ports(decision: Decision, turn: portions.Portions, *networks: str) -> list[Any]:
    found = []
    for id in networks:
        found.append(port.create(decision, ADMIN, PORT.given({"network_id": id})))
        if turn.due:
            await turn.turn()
    return found


def turns_of(world: World, work: Any) -> tuple[int, list[int], Any]:
    """Do work; return how often others had the loop, how many ports they found listed then, and what came of it."""

    async def run() -> tuple[int, list[int], Any]:
        turns, seen = 0, set()
        task = asyncio.ensure_future(work)
        while not task.done():
            await asyncio.sleep(0)
            turns += 1
            seen.add(len(query.run(world.cloud, PORTS, ADMIN, query.Query())))
        return turns, sorted(seen), (await asyncio.gather(task, return_exceptions=True))[0]

    return world.runner.run(run())


@pytest.mark.usefixtures("slow")
def test_others_have_the_loop_between_the_steps_and_find_all_or_nothing(world: World) -> None:
    of, turn = made(world), portions.Portions()
    turns, seen, found = turns_of(world, decide_in_portions(world.cloud, lambda d: ports(d, turn, *[of.id] * MANY)))
    assert len(found) == MANY
    # Each port is a step, and its rows are others, where the store and the copy take them in.
    assert turns >= MANY + MANY // 10
    assert seen == [0, MANY]
    assert len({fixed.ip_address for one in found for fixed in one.fixed_ips}) == MANY
    assert world.cloud.coming is None


@pytest.mark.usefixtures("slow")
def test_the_last_of_many_that_cannot_be_undoes_them_all(world: World) -> None:
    of, turn = made(world), portions.Portions()
    wanted = [*[of.id] * MANY, "00000000-0000-4000-8000-000000000000"]
    _, seen, error = turns_of(world, decide_in_portions(world.cloud, lambda d: ports(d, turn, *wanted)))
    assert isinstance(error, NotFound)
    assert seen == [0]
    assert not world.cloud.pending
    # What it had taken is free again.
    again = world.do(lambda d: port.create(d, ADMIN, PORT.given({"network_id": of.id})))
    assert again.fixed_ips


@pytest.mark.usefixtures("slow")
def test_what_goes_meanwhile_is_noticed(world: World) -> None:
    of, turn = made(world), portions.Portions()

    async def race() -> Any:
        task = asyncio.ensure_future(decide_in_portions(world.cloud, lambda d: ports(d, turn, *[of.id] * MANY)))
        for _ in range(MANY // 2):
            await asyncio.sleep(0)
        await decide(world.cloud, lambda d: network.delete(d, ADMIN, of.id))
        return (await asyncio.gather(task, return_exceptions=True))[0]

    assert isinstance(world.runner.run(race()), NotFound)
    world.settle()
    assert not len(world.cloud.ports)


@pytest.mark.usefixtures("slow")
def test_what_was_read_first_is_what_counts(world: World) -> None:
    """A change between two steps that read the same thing makes the decision anew, though the second saw it."""
    of, seen = made(world), []

    async def verb(decision: Decision) -> None:
        first = decision.read(world.cloud.networks, of.id)
        if not seen:
            change = NETWORK.given({"name": "other"}, update=True)
            await decide(world.cloud, lambda d: network.update(d, ADMIN, of.id, change))
        second = decision.read(world.cloud.networks, of.id)
        assert first is not None
        assert second is not None
        seen.append((first.name, second.name))
        decision.put(world.cloud.networks, second)

    world.runner.run(decide_in_portions(world.cloud, verb))
    assert seen == [("", "other"), ("other", "other")]


def test_one_that_is_never_done_undisturbed_is_a_conflict(world: World) -> None:
    of, number = made(world), 0

    async def verb(decision: Decision) -> None:
        nonlocal number
        number += 1
        decision.read(world.cloud.networks, of.id)
        change = NETWORK.given({"name": f"n{number}"}, update=True)
        await decide(world.cloud, lambda d: network.update(d, ADMIN, of.id, change))
        decision.claim("claim/x/y")

    with pytest.raises(Conflict, match="too many others"):
        world.runner.run(decide_in_portions(world.cloud, verb))
    assert number == 8


@pytest.mark.usefixtures("slow")
def test_a_large_transaction_that_is_stale_leaves_nothing(store: Store) -> None:
    async def story() -> None:
        try:
            await store.commit(Transaction(puts={"k/77": b"theirs"}))
            keys = [f"k/{number}" for number in range(100)]
            large = Transaction(same=dict.fromkeys(keys, 0), puts=dict.fromkeys(keys, b"mine"))
            with pytest.raises(Stale, match="k/77"):
                await store.commit(large)
            assert {e.key: e.value for e in (await store.read("k/"))[1]} == {"k/77": b"theirs"}
            del large.same["k/77"], large.puts["k/77"]
            large.deletes.add("k/77")
            revision = await store.commit(large)
            found = (await store.read("k/"))[1]
            assert len(found) == 99
            assert {e.modified for e in found} == {revision}
        finally:
            await store.close()

    asyncio.run(story())


def test_finding_what_a_decision_makes_looks_at_no_other(world: World) -> None:
    """Of many that one decision makes, those under one value are found by an index, kept as they change and go."""
    decision, table = Decision(world.cloud), world.cloud.ports
    one, other = made(world), made(world)
    looked = 0
    of = table._of["network_id"]

    def counted(row: Any) -> Any:
        nonlocal looked
        looked += 1
        return of(row)

    table._of["network_id"] = counted
    for number in range(MANY):
        port.create(decision, ADMIN, PORT.given({"network_id": (one if number % 2 else other).id}))
        decision.by(table, "network_id", one.id)
    found = decision.by(table, "network_id", one.id)
    assert len(found) == MANY // 2
    assert looked < 10 * MANY
    decision.delete(table, found[0].id)
    assert len(decision.by(table, "network_id", one.id)) == MANY // 2 - 1
    decision.close()
