"""Try everything that the policy admits and everything that it does not, and see what came of it."""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from crossway.client import Object
from crossway.errors import Unavailable
from crossway.lab.demo.bodies import LARGE, NUMBERS, Body, Cloud, Guest
from crossway.lab.demo.policy import PING, SERVICES, Attempt, Member, admitted
from crossway.lab.lab import Lab

# Seconds to wait for an answer: long where one must come, on however busy a
# machine, short where a drop tells that none will.
PATIENCE = 10
IMPATIENCE = 1
TRIES = 3
TICK = 0.02  # the clock that tells when a packet was dropped is behind by up to one of the kernel's


@dataclass
class Scene:
    """The lab with what runs in it."""

    lab: Lab
    clouds: dict[str, Cloud] = field(default_factory=dict)
    bodies: dict[Member, Body] = field(default_factory=dict)
    stopped: threading.Event = field(default_factory=threading.Event)

    def body(self, full: str) -> Body:
        return next(body for member, body in self.bodies.items() if member.full == full)


def together(scene: Scene, work: Callable[[Any], object], items: Iterable[Any], threads: int) -> None:
    """Do *work* on all items, several at once; the first fault stops it.

    The main thread only sleeps meanwhile: were it to wait for a future, Ctrl-C
    could reach it while it holds the lock that the future's thread needs.
    """
    wanted = list(items)
    ended: list[Any] = []
    faults: list[BaseException] = []

    def one(item: Any) -> None:
        try:
            if not scene.stopped.is_set():
                work(item)
        except BaseException as fault:  # the main thread raises it
            faults.append(fault)
        ended.append(item)

    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in wanted:
                pool.submit(one, item)
            while len(ended) < len(wanted) and not faults:
                time.sleep(0.02)
        except BaseException:
            scene.stopped.set()
            raise
        if faults:
            scene.stopped.set()
    if faults:
        raise faults[0]


def try_all(scene: Scene, all_attempts: list[Attempt], note: Callable[[], None]) -> None:
    """Try everything: different targets at once, the same one in turn, so that its last drop is the attempt's."""
    by_target: dict[str, list[Attempt]] = {}
    for one in all_attempts:
        by_target.setdefault(one.target.full if one.target else f"{one.source.full}?", []).append(one)

    def in_turn(turn: list[Attempt]) -> None:
        with ThreadPoolExecutor(1) as asking:
            for one in turn:
                if not scene.stopped.is_set():
                    attempt(scene, asking, one)
                    note()

    together(scene, in_turn, by_target.values(), len(by_target))


def attempt(scene: Scene, asking: ThreadPoolExecutor, one: Attempt) -> None:
    """Try one thing from inside the source's body, and note what came of it.

    Where nothing is to come of it, the hosts are asked meanwhile what they
    dropped: they tell the last packet for each reason, and another may follow.
    """
    for _ in range(TRIES):
        _try(scene, asking, one)
        if one.reached or one.refusal or one.expected:
            return


def _try(scene: Scene, asking: ThreadPoolExecutor, one: Attempt) -> None:
    patience = PATIENCE if one.expected else IMPATIENCE
    if one.service is PING:
        command = f"busybox ping -c1 -W{patience} {one.ip}"
    else:
        at = f"[{one.ip}]" if ":" in one.ip else one.ip
        command = f"busybox timeout {patience} busybox wget -q -O- http://{at}:{one.service.port}/name"
    began = time.monotonic()
    body = scene.bodies[one.source]
    trying: Future[tuple[int, str]] = asking.submit(body.run, command, PATIENCE + 60.0)
    while not trying.done():
        if not one.expected and one.refusal is None:
            one.refusal = refusal(scene, one, time.monotonic() - began)
        time.sleep(0.05)
    code, said = trying.result()
    if code and not one.expected and one.refusal is None:
        # It may have ended between two looks.
        one.refusal = refusal(scene, one, time.monotonic() - began)
    if code not in (0, 1, 143):
        raise Unavailable(f"{command} in {one.source.full} ended with {code}: {said.strip()}")
    one.reached = code == 0
    if one.service is not PING:
        one.answered_by = said.strip() if one.reached else ""
    elif found := re.search(r"time=([\d.]+) ms", said):
        one.seconds = float(found[1]) / 1000


def refusal(scene: Scene, one: Attempt, since: float) -> Object | None:
    """Return the drop that the attempt met in these last seconds, as the hosts of its target and source tell it."""
    for member in (one.target, one.source):
        if member is None:
            continue
        for drop in scene.bodies[member].drops():
            last = drop.get("last") or {}
            # Where nobody has the address, it is the question for it that is dropped; that has no port.
            if (
                last.get("dst") == one.ip
                and last.get("src") in one.source.ips
                and last.get("dst_port") in (one.service.port, None)
                and last.get("seen_seconds_ago", since) <= since + TICK
            ):
                return drop
    return None


@dataclass(frozen=True)
class Speed:
    """How fast one workload reaches another."""

    source: Member
    target: Member
    way: str
    milliseconds: float
    gigabits: float


def measure(scene: Scene, source: Body, target: Body) -> Speed:
    ip = target.member.ips[0]
    _, said = source.run(f"busybox ping -q -c20 -i0.02 {ip}", 30)
    found = re.search(r"= [\d.]+/([\d.]+)/", said)
    port = next(s.port for s in SERVICES if s.port and admitted(source.member, target.member, s))
    began = time.monotonic()
    code, said = source.run(f"busybox wget -q -O/dev/null http://{ip}:{port}/large", 60)
    took = time.monotonic() - began
    if code:
        raise Unavailable(f"{source.member.full} could not download from {target.member.full}: {said}")
    where = "same host" if source.host is target.host else "across hosts"
    how = "switched" if source.member.tier == target.member.tier else "routed"
    return Speed(
        source.member, target.member, f"{how}, {where}", float(found[1]) if found else 0.0, LARGE * 8 / took / 1e9
    )


@dataclass(frozen=True)
class Moved:
    """What a reader of numbered lines saw of the move of who sent them."""

    read: int
    in_order: bool
    downtime_ms: float
    gap_ms: float

    @property
    def right(self) -> bool:
        return self.in_order and self.read == NUMBERS


def move(scene: Scene, guest: Guest, to: int, reader: Member) -> Moved:
    """Move a guest live to another host while a container reads numbered lines from it, over one connection."""
    engine = scene.clouds[reader.tenant].engines[reader.host]
    url = f"http://{guest.member.ips[0]}/cgi-bin/count"
    lines: list[tuple[float, str]] = []
    with subprocess.Popen(
        engine.command("exec", reader.name, "busybox", "wget", "-q", "-O-", url), stdout=subprocess.PIPE, text=True
    ) as reading:
        assert reading.stdout is not None

        def read(said: Iterable[str]) -> None:
            lines.extend((time.monotonic(), line.strip()) for line in said)

        thread = threading.Thread(target=read, args=(reading.stdout,))
        thread.start()
        try:
            time.sleep(0.5)
            downtime = guest.move(scene.lab.hosts[to])
            thread.join(60)
        finally:
            reading.kill()
            thread.join()
    said = [line for _, line in lines]
    gaps = [(after - before) * 1000 for (before, _), (after, _) in pairwise(lines)]
    return Moved(len(said), said == [str(n) for n in range(1, len(said) + 1)], downtime, max(gaps, default=0.0))


@dataclass(frozen=True)
class Bill:
    """What came of a numbered stream."""

    sent: int
    received: int


def hitless(scene: Scene, source: Body, target: Body) -> Bill:
    """Kill the server and all agents and start them again while one container pings another, 100 times a second."""
    pinging: Future[tuple[int, str]]
    with ThreadPoolExecutor(1) as pool:
        pinging = pool.submit(source.run, f"busybox ping -q -c300 -i0.01 {target.member.ips[0]}", 60)
        time.sleep(0.5)
        parts = [scene.lab.server, *(host.agent for host in scene.lab.hosts)]
        for part in parts:
            part.kill()
        waits = [part.begin() for part in parts]
        for ready in waits:
            ready.wait(30)
        _, said = pinging.result()
    scene.lab.joined()
    found = re.search(r"(\d+) packets transmitted, (\d+) packets received", said)
    if found is None:
        raise Unavailable(f"{source.member.full} could not ping: {said}")
    return Bill(int(found[1]), int(found[2]))
