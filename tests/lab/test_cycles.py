"""Ports come and go a thousand times, also while agents and servers are killed: nothing stays behind."""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from crossway.agent.shares import of_network
from crossway.client import AgentClient, Client
from crossway.errors import Fault, NotFound
from crossway.kernel.bpf import Object
from crossway.lab import Lab
from crossway.lab.place import Place
from crossway.model.rows import TABLES
from lab.stories import dual, links, open_group, wait_for

CYCLES = int(os.environ.get("CYCLES", "1000"))
WORKERS = 4
# What a host keeps of its own, whatever ports it has.
STANDING = {"generations"}


def rows(lab: Lab) -> dict[str, dict[str, int]]:
    """Return how many rows each table of each host has, read from the kernel itself."""
    found = {}
    for host in lab.hosts:
        with Object(pins=host.run / "bpf") as plane:
            assert plane.pins is not None
            assert (plane.pins / "ports").exists()
            counts = {name: len(plane.table(name).read_raw()) for name in TABLES if name not in STANDING}
            # What no port had to do with is counted for the host: a row a reason, however many ports come.
            counts["drops"] = sum(key.port.ifindex != 0 for key in plane.table("drops").read())
            # The slots for fragments to published ports are there before any of them.
            counts["shares"] = len(plane.table("shares").read().keys() - {of_network(0)})
        found[host.name] = {name: count for name, count in counts.items() if count}
    return found


def host_links(lab: Lab) -> dict[str, set[str]]:
    return {host.name: links(host) for host in lab.hosts}


def insist(what: Any, *words: Any, seconds: float = 30.0, **named: Any) -> Any:
    """Ask again until a part that is away is back; what is gone already is fine."""
    end = time.monotonic() + seconds
    while True:
        try:
            return what(*words, **named)
        except NotFound:
            return None
        except Fault:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def cycle(lab: Lab, network: str, group: str, count: int, places: list[Place], peer: str) -> None:
    """Let *count* ports come and go, each sending a little, on hosts taken by chance."""
    left = iter(range(count))
    lock = threading.Lock()

    def work(number: int) -> None:
        dice = random.Random(number)
        place = places[number]
        agents = [AgentClient(host.socket) for host in lab.hosts]
        with Client(lab.url) as client:
            while True:
                with lock:
                    if next(left, None) is None:
                        break
                agent = dice.choice(agents)
                port = insist(client.create, "port", network_id=network, security_groups=[group])
                insist(agent.plug, port["id"], netns=str(place.path))
                if dice.random() < 0.3:
                    place.exec("ping", "-c1", "-W0.05", "-i0.01", peer, check=False)
                if dice.random() < 0.5:
                    insist(agent.unplug, port["id"])
                insist(client.delete, "port", port["id"])
                assert wait_for(lambda: "eth0" not in links(place), 30), f"eth0 of port {port['id']} stayed"
        for agent in agents:
            agent.close()

    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(work, range(WORKERS)))


def leftovers(lab: Lab, before: tuple[Any, Any]) -> str:
    """Return what is there that was not there before; expired connections are swept within seconds."""
    wait_for(lambda: (rows(lab), host_links(lab)) == before, 30, 0.5)
    now = (rows(lab), host_links(lab))
    return "" if now == before else f"before {before}, now {now}"


def test_nothing_remains_of_a_thousand_ports() -> None:
    with Lab.up(hosts=2) as lab:
        network = dual(lab, "net")
        group = open_group(lab)
        places = [lab.namespace(f"slot{n}") for n in range(WORKERS)]
        # Nothing at all is there before the first port and after the last one.
        before = (rows(lab), host_links(lab))
        assert before[0] == {host.name: {} for host in lab.hosts}
        cycle(lab, network["id"], group["id"], CYCLES, places, "10.0.0.2")
        assert leftovers(lab, before) == ""
        assert lab.client.list("ports", network_id=network["id"]) == []
        for subnet in lab.client.list("subnets", network_id=network["id"]):
            lab.client.delete("subnet", subnet["id"])  # in use, if an address were


@pytest.mark.timeout(900)
def test_nothing_remains_when_agents_and_server_are_killed_in_between() -> None:
    with Lab.up(hosts=2) as lab:
        network = dual(lab, "net")
        group = open_group(lab)
        places = [lab.namespace(f"slot{n}") for n in range(WORKERS)]
        before = (rows(lab), host_links(lab))
        ended = threading.Event()
        kills = 0

        def havoc() -> None:
            nonlocal kills
            dice = random.Random(5)
            while not ended.wait(dice.uniform(0.3, 1.5)):
                part = dice.choice([lab.server, *(host.agent for host in lab.hosts)])
                part.kill()
                ended.wait(dice.uniform(0, 0.5))
                part.start()
                kills += 1

        killer = threading.Thread(target=havoc)
        killer.start()
        try:
            cycle(lab, network["id"], group["id"], CYCLES, places, "10.0.0.2")
        finally:
            ended.set()
            killer.join()
        assert kills >= 5
        for port in lab.client.list("ports", network_id=network["id"]):
            # A create whose answer was lost with the server has made a port that nobody knows of.
            with contextlib.suppress(NotFound):
                lab.client.delete("port", port["id"])
        assert leftovers(lab, before) == ""
        for subnet in lab.client.list("subnets", network_id=network["id"]):
            lab.client.delete("subnet", subnet["id"])
