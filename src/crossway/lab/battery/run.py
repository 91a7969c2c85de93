"""Run all cases over all pairs: those that share no body at once, then what befalls all of them together."""

from __future__ import annotations

import re
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from crossway.errors import Fault
from crossway.lab.battery import cases as _cases  # registers them
from crossway.lab.battery.pair import Pair
from crossway.lab.battery.registry import BLOWS, CASES, Blow, Case, Skip, Way, Wrong
from crossway.lab.battery.scene import Scene

OK, WRONG, SKIPPED = "ok", "wrong", "skipped"
NAMES = {"c": "container", "g": "guest", "s": "server"}
EVERY_MS = 50  # between two pings of a pair that is watched
SECONDS = 1.0  # that all pairs speak before and after a blow
DOOR = 7100
__all__ = ["OK", "SKIPPED", "WRONG", "Cell", "chosen", "play"]
assert _cases


@dataclass(frozen=True)
class Cell:
    """What came of a case for a pair."""

    area: str
    case: str
    source: str
    target: str
    across: bool
    result: str
    why: str
    seconds: float


def chosen(pattern: str) -> tuple[list[Case], list[Blow]]:
    """Return the cases whose area and name, as `area: name`, have the pattern in them."""
    wanted = re.compile(pattern, re.IGNORECASE)

    def fits(one: Case | Blow) -> bool:
        return wanted.search(f"{one.area}: {one.name}") is not None

    return list(filter(fits, CASES)), list(filter(fits, BLOWS))


def rounds(scene: Scene) -> Iterator[list[tuple[str, str]]]:
    """Give all pairs, those together that share no body."""
    letters = [kind[0] for kind in scene.kinds]
    targets = [letter + number for number in "23" for letter in letters]
    for turn in range(len(targets)):
        yield [(letter + "1", targets[(at + turn) % len(targets)]) for at, letter in enumerate(letters)]


def play(scene: Scene, cases: Sequence[Case], blows: Sequence[Blow], note: Callable[[Cell], None]) -> list[Cell]:
    """Run cases and blows; *note* is told each cell as it is done."""
    done: list[Cell] = []
    lock = threading.Lock()

    def add(cell: Cell) -> None:
        with lock:
            done.append(cell)
            note(cell)

    for way in Way:
        if any(case.way is way for case in cases):
            scene.go(way)
        # One area at a time: a port without port security, say, has its network flood what others' cases have stopped.
        for area in dict.fromkeys(case.area for case in cases):
            wanted = [case for case in cases if case.way is way and case.area == area]
            for together in rounds(scene) if wanted else ():
                with ThreadPoolExecutor(len(together)) as pool:
                    turns = [pool.submit(_pair, scene, source, target, wanted, add) for source, target in together]
                    for turn in turns:
                        turn.result()
    for blow in blows:
        for cell in _blow(scene, blow):
            add(cell)
    return done


def _pair(scene: Scene, source: str, target: str, cases: Sequence[Case], add: Callable[[Cell], None]) -> None:
    for case in cases:
        began = time.monotonic()
        result, why = OK, ""
        try:
            case.run(Pair(scene, source, target, case.way))
        except Skip as reason:
            result, why = SKIPPED, str(reason)
        except (Wrong, Fault) as fault:
            result, why = WRONG, str(fault)
        except Exception as fault:
            result, why = WRONG, "".join(traceback.format_exception(fault))
        add(_cell(case, source, target, result, why, time.monotonic() - began))


def _cell(case: Case | Blow, source: str, target: str, result: str, why: str, seconds: float) -> Cell:
    return Cell(
        case.area, case.name, NAMES[source[0]], NAMES[target[0]], target.endswith("3"), result, why, round(seconds, 3)
    )


def _blow(scene: Scene, blow: Blow) -> Iterator[Cell]:
    """Have all pairs speak, over a connection each and by pings, while something befalls them."""
    pairs = [pair for together in rounds(scene) for pair in together]
    served = [scene.bodies[name].probe for name in sorted({target for _, target in pairs})]
    servers = [(probe, probe.must("serve", DOOR)["job"]) for probe in served]
    watched = []
    began = time.monotonic()
    fault = ""
    try:
        for source, target in pairs:
            probe, ip = scene.bodies[source].probe, scene.bodies[target].cards["lan"]
            jobs = [
                probe.must("watch", "ping", ip.ip4, EVERY_MS)["job"],
                probe.must("watch", "tcp", ip.ip6, DOOR, EVERY_MS)["job"],
            ]
            watched.append((source, target, probe, jobs))
        time.sleep(SECONDS)
        try:
            blow.run(scene)
        except Exception as raised:
            fault = f"{blow.name} failed: {raised}"
        time.sleep(SECONDS)
    finally:
        told = [(source, target, [probe.ask("end", job) for job in jobs]) for source, target, probe, jobs in watched]
        for probe, job in servers:
            probe.ask("end", job)
    seconds = (time.monotonic() - began) / len(pairs)
    for source, target, (pings, talk) in told:
        why = fault
        if pings.get("got", 0) != pings.get("sent", -1) or not pings.get("got"):
            why = why or f"{pings.get('got')} of {pings.get('sent')} pings were answered"
        if talk.get("why") or not talk.get("exchanges"):
            why = why or f"the connection ended: {talk}"
        yield _cell(blow, source, target, WRONG if why else OK, why, seconds)
