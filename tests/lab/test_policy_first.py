"""No packet before policy: ports come and go while a neighbour sends to their addresses all the time."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import pytest

from crossway.client import AgentClient, Client
from crossway.lab import Lab, Workload
from crossway.lab.place import Place
from crossway.lab.traffic import open_in
from lab.stories import dual, links, open_group, wait_for

PORTS = int(os.environ.get("POLICY_FIRST_PORTS", "1000"))
SLOTS = 24
WORKERS = 4
UDP = 7000
NUMBER = struct.Struct("!Qd")
SETTLE = 0.02  # s that a packet is on its way
LATE = 5.0  # s that it may be, at worst


@dataclass
class Slot:
    """A namespace and an address that ports take in turn."""

    number: int
    place: Place
    sock: socket.socket
    sent: list[float] = field(default_factory=list)  # when the neighbour sent each number
    got: set[int] = field(default_factory=set)
    ip = property(lambda self: f"10.0.0.{100 + self.number}")
    mac = property(lambda self: f"fa:16:3e:aa:00:{self.number:02x}")

    def drain(self) -> set[int]:
        with contextlib.suppress(BlockingIOError):
            while True:
                self.got.add(NUMBER.unpack(self.sock.recv(64))[0])
        return self.got


class Life(NamedTuple):
    """How one port fared: what was wrong with it, and how many packets it was due."""

    fault: str
    due: int = 0


class Neighbour(threading.Thread):
    """Send to every slot's address, over and over."""

    def __init__(self, workload: Workload, slots: list[Slot]) -> None:
        super().__init__(daemon=True)
        self.slots = slots
        self.ended = threading.Event()
        # Neighbours are known by heart: what is measured is policy, not ARP's patience.
        for slot in slots:
            workload.exec("ip", "neigh", "replace", slot.ip, "lladdr", slot.mac, "dev", "eth0", "nud", "permanent")
        self.sock = open_in(workload.path, socket.AF_INET, socket.SOCK_DGRAM)

    def run(self) -> None:
        while not self.ended.is_set():
            for slot in self.slots:
                number = len(slot.sent)
                now = time.monotonic()
                slot.sent.append(now)
                with contextlib.suppress(ConnectionRefusedError):
                    self.sock.sendto(NUMBER.pack(number, now), (slot.ip, UDP))
            time.sleep(0.004)

    def end(self) -> None:
        self.ended.set()
        self.join()
        self.sock.close()


@contextlib.contextmanager
def slots_of(lab: Lab) -> Iterator[list[Slot]]:
    slots = []
    try:
        for n in range(SLOTS):
            place = lab.namespace(f"slot{n}")
            sock = open_in(place.path, socket.AF_INET, socket.SOCK_DGRAM)
            sock.bind(("0.0.0.0", UDP))
            sock.setblocking(False)
            slots.append(Slot(n, place, sock))
        yield slots
    finally:
        for slot in slots:
            slot.sock.close()


def live(
    client: Client, agents: list[AgentClient], network: str, groups: list[str], slot: Slot, dice: random.Random
) -> Life:
    """Let one port live in a slot and see what it gets."""
    admitted = dice.random() < 0.5
    port = client.create(
        "port",
        network_id=network,
        mac_address=slot.mac,
        fixed_ips=[{"ip_address": slot.ip}],
        security_groups=[groups[0] if admitted else groups[1]],
    )
    slot.drain()
    before = set(slot.got)
    start = len(slot.sent)
    dice.choice(agents).plug(port["id"], netns=str(slot.place.path))
    client.wait("port", port["id"], seconds=20)
    active = time.monotonic()
    time.sleep(dice.uniform(0.02, 0.1))
    end = time.monotonic() - SETTLE
    due = {n for n in range(start, len(slot.sent)) if active < slot.sent[n] < end}
    if admitted:
        # On a busy machine a packet may be long on its way; one that was refused does not come at all.
        wait_for(lambda: due <= slot.drain(), LATE)
    slot.drain()
    client.delete("port", port["id"])
    gone = wait_for(lambda: "eth0" not in links(slot.place), 10)
    slot.drain()
    got = slot.got - before
    if not gone:
        return Life("kept its link")
    if not admitted:
        return Life(f"got {len(got)} forbidden packets" if got else "")
    missing = due - got
    return Life(f"missed {len(missing)} of {len(due)} packets once ACTIVE" if missing else "", len(due))


@pytest.mark.timeout(900)
def test_no_packet_before_policy_and_none_refused_once_active() -> None:
    seed = int(os.environ.get("POLICY_FIRST_SEED", "1"))
    with Lab.up(hosts=3) as lab, slots_of(lab) as slots:
        network = dual(lab, "net")
        # Hosts that have never met look for each other by ARP first, which takes a second where a request is lost.
        for one in lab.hosts:
            for other in lab.hosts:
                one.exec("ping", "-c1", "-W5", other.underlay)
        groups = [open_group(lab, "open")["id"], lab.client.create("security_group", name="shut")["id"]]
        neighbour = Neighbour(lab.workload(lab.hosts[0], network, groups=groups[:1]), slots)
        neighbour.start()
        lives: list[Life] = []
        free = list(slots)
        lock = threading.Lock()
        left = iter(range(PORTS))

        def work(number: int) -> None:
            dice = random.Random(seed * 1000 + number)
            agents = [AgentClient(host.socket) for host in lab.hosts]
            with Client(lab.url) as client:
                while True:
                    with lock:
                        if next(left, None) is None:
                            break
                        slot = free.pop(dice.randrange(len(free)))
                    life = live(client, agents, network["id"], groups, slot, dice)
                    with lock:
                        free.append(slot)
                        lives.append(life)
            for agent in agents:
                agent.close()

        try:
            with ThreadPoolExecutor(WORKERS) as pool:
                list(pool.map(work, range(WORKERS)))
        finally:
            neighbour.end()
        assert [life.fault for life in lives if life.fault] == []
        assert len(lives) == PORTS
        assert sum(life.due for life in lives) > PORTS, "too few packets were due for this to show anything"
