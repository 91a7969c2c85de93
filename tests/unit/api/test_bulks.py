"""What many things at once cost is counted by what they say, and those of one project wait for each other."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from clouds import World
from crossway import portions
from crossway.api.body import SHORT
from crossway.api.hosts import Hosts
from crossway.api.networking import ALONE, LARGE, Networking, Turns
from crossway.api.server import application
from crossway.store.memory import MemoryStore


@pytest.fixture
def world() -> Iterator[World]:
    with asyncio.Runner() as runner:
        made = World(runner, MemoryStore())
        yield made
        made.stop()


def turns_of(world: World, path: str, body: Any) -> tuple[int, int]:
    """Ask; return the status, and how often others had the loop meanwhile."""
    networking = Networking(world.cloud)
    app = application(networking, Hosts(world.cloud, world.views, world.status))

    async def run() -> tuple[int, int]:
        turns = 0
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
            task = asyncio.ensure_future(client.post(path, content=json.dumps(body)))
            while not task.done():
                await asyncio.sleep(0)
                turns += 1
        return (await task).status_code, turns

    try:
        return world.runner.run(run())
    finally:
        networking.close()


@pytest.mark.parametrize("pairs", [0, 32, 256])
def test_a_bulk_lets_others_have_the_loop_by_what_it_says(
    world: World, monkeypatch: pytest.MonkeyPatch, pairs: int
) -> None:
    """Few ports with long lists are as much as many with none: a turn after each that takes as long as a portion."""
    of = world.network()
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += portions.PORTION_SECONDS
        return now

    monkeypatch.setattr("crossway.portions.time.perf_counter", clock)
    one = {"network_id": of.id, "allowed_address_pairs": [{"ip_address": f"10.0.0.{n}"} for n in range(pairs)]}
    many = [one] * (ALONE - 1)
    size = len(json.dumps({"ports": many}))
    status, turns = turns_of(world, "/v2.0/ports", {"ports": many})
    assert status == 201
    # Looked at once before, and once for deciding.
    assert (turns >= 2 * len(many)) == (size > SHORT)


def test_one_projects_work_waits_for_itself_and_lets_others_in() -> None:
    async def main() -> None:
        turns, going, order = Turns(LARGE), {"red": 0, "blue": 0}, []

        async def work(who: str) -> None:
            async with turns.of(who):
                going[who] += 1
                assert going[who] == 1
                order.append(who)
                await asyncio.sleep(0.01)
                going[who] -= 1

        red = [asyncio.create_task(work("red")) for _ in range(2 * LARGE)]
        await asyncio.sleep(0.001)
        red[3].cancel()
        await asyncio.gather(*red, *(work("blue") for _ in range(2)), return_exceptions=True)
        assert order[:4] == ["red", "blue", "red", "blue"]
        assert order.count("red") == 2 * LARGE - 1
        assert turns._each == {}

        several = Turns(2)
        most = count = 0

        async def counted(who: int) -> None:
            nonlocal most, count
            async with several.of(who):
                count += 1
                most = max(most, count)
                await asyncio.sleep(0.001)
                count -= 1

        await asyncio.gather(*(counted(who) for who in range(10)))
        assert most == 2

    asyncio.run(main())
