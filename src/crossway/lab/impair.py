"""Lose, delay and reorder what crosses a link of the lab.

The kernels that Crossway is tried on need not have netem, so a process is
spliced into the link, on the switch's side:

    host ═ h1-under0 ─ [bridge] ─ tap   process   tap ─ [under] ─ the others

A tap has no offloads, so the kernel cuts large packets and fills in checksums
before the process sees them. Both directions are treated alike and apart: a
round trip is delayed twice.
"""

from __future__ import annotations

import random
import re
import sys
from dataclasses import dataclass

from crossway.errors import Conflict, Invalid
from crossway.lab import process, wire
from crossway.lab.place import Place
from crossway.lab.process import Process, Ready
from crossway.lab.state import State

# How much longer than the others a packet is held that is to be overtaken.
HOLD_SECONDS = 0.010


@dataclass(frozen=True)
class Impairment:
    """What happens to packets: shares are 0 … 1, times are seconds."""

    loss: float = 0.0
    delay: float = 0.0
    jitter: float = 0.0
    reorder: float = 0.0

    def __post_init__(self) -> None:
        for name in ("loss", "reorder"):
            if not 0 <= getattr(self, name) <= 1:
                raise Invalid(f"{name} is a share between 0% and 100%")
        if self.delay < 0 or self.jitter < 0:
            raise Invalid("delay and jitter cannot be negative")


@dataclass
class Direction:
    """Decide the fate of the packets of one direction, in turn."""

    what: Impairment
    draw: random.Random
    last: float = 0.0
    lost: int = 0
    held: int = 0
    passed: int = 0

    def departure(self, now: float) -> float | None:
        """Return when the packet that came now goes on; None: never.

        Jitter alone does not reorder: a packet waits for those before it. One
        that is chosen for reordering is held back, and those after it pass.
        """
        what = self.what
        if what.loss and self.draw.random() < what.loss:
            self.lost += 1
            return None
        self.passed += 1
        at = now + what.delay
        if what.jitter:
            at = max(now, at + self.draw.uniform(-what.jitter, what.jitter))
        if what.reorder and self.draw.random() < what.reorder:
            self.held += 1
            return at + HOLD_SECONDS + what.jitter
        self.last = max(self.last, at)
        return self.last


def share(text: str) -> float:
    """Read a share: `1%`, `0.5%`."""
    if not (found := re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", text.strip())):
        raise Invalid(f"{text!r} is no share: write it as 1% or 0.5%")
    return float(found[1]) / 100


def duration(text: str) -> float:
    """Read a time: `20ms`, `1.5s`, `300us`."""
    if not (found := re.fullmatch(r"(\d+(?:\.\d+)?)\s*(us|ms|s)", text.strip())):
        raise Invalid(f"{text!r} is no time: write it as 20ms, 300us or 1.5s")
    return float(found[1]) * {"us": 1e-6, "ms": 1e-3, "s": 1.0}[found[2]]


def impair(state: State, what: str, how: Impairment, seed: int | None = None) -> Process:
    """Splice the process into a link (`h1`: its underlay link), in place of an earlier one."""
    end, bridge = _link(state, what)
    clear(state, what)
    log = state.run / f"impair-{end}.log"
    ready = Ready(f"impairment of {what}", log)
    command = [sys.executable, "-m", "crossway.lab.shuttle", end, bridge, "--mtu", str(state.mtu)]
    command += ["--loss", str(how.loss), "--delay", str(how.delay), "--jitter", str(how.jitter)]
    command += ["--reorder", str(how.reorder), "--ready-fd", str(ready.fd)]
    command += ["--seed", str(seed)] if seed is not None else []
    began = process.start(Place("switch", state.switch).command(*command), log=log, keep=[ready.fd])
    began.write(state.process(f"impair-{end}"))
    ready.given()
    ready.wait(20.0)
    return began


def clear(state: State, what: str) -> None:
    """Make a link plain again; nothing happens if it is."""
    end, bridge = _link(state, what)
    record = state.process(f"impair-{end}")
    if running := Process.read(record):
        process.stop([running])
        record.unlink()
    switch = Place("switch", state.switch)
    if switch.exec("ip", "link", "show", names(end)[0], check=False).returncode == 0:
        # It was killed before it could put the link back.
        switch.script(plain(end, bridge))


def impaired(state: State) -> list[str]:
    """Return the links that are impaired now, as `h1:under0`."""
    found = []
    for record in (state.run / "processes").glob("impair-*"):
        running = Process.read(record)
        if running and running.alive:
            found.append(record.name.removeprefix("impair-").replace("-", ":"))
    return sorted(found)


def _link(state: State, what: str) -> tuple[str, str]:
    """Return the switch's end of a link and the bridge that it belongs to."""
    ends = wire.ends(state, what if ":" in what or what == "outside" else f"{what}:under0")
    if len(ends) != 1:
        raise Conflict(f"{what} has several links: name one, as in {what}:under0")
    return ends[0], "under" if ends[0].endswith("under0") else "provider"


def names(end: str) -> tuple[str, str, str]:
    """Return the names of the small bridge, and of the taps toward the place and toward the others."""
    stem = end.replace("-", ".")[: end.index("-") + 3]
    return f"{stem}-br", f"{stem}-in", f"{stem}-out"


def plain(end: str, bridge: str) -> list[str]:
    """Return the `ip` commands that put a link's end back where it belongs."""
    return [f"link set {end} master {bridge}", f"link delete {names(end)[0]}"]
