"""Turn samples into medians, ratios and verdicts. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

UNITS = {
    "tcp_rr": "µs",
    "udp_rr": "µs",
    "tcp_rr_two": "µs",
    "udp_rr_two": "µs",
    "stream": "Gbit/s",
    "packets": "packets/s",
    "connect": "connections/s",
}
TITLES = {
    "tcp_rr": "TCP round trip, one core",
    "udp_rr": "UDP round trip, one core",
    "tcp_rr_two": "TCP round trip, two cores",
    "udp_rr_two": "UDP round trip, two cores",
    "stream": "TCP throughput",
    "packets": "UDP packets of 64 bytes",
    "connect": "new TCP connections",
}
GROUPS = {
    "latency": ("tcp_rr", "udp_rr", "tcp_rr_two", "udp_rr_two"),
    "throughput": ("stream",),
    "packets": ("packets",),
    "connections": ("connect",),
}
# What fills its cores, and so cannot come before other programs (see load.c).
FILLING = {"stream", "packets"}
# What shares the cores with who makes the changes: round trips and connections
# have a higher priority, but the latter need the kernel's own threads, too.
COMPETING = {"stream", "packets", "connect"}
HERE, ELSEWHERE = "100 changes/s", "100 changes/s elsewhere"
SMALLER_IS_BETTER = {case for case, unit in UNITS.items() if unit == "µs"}


@dataclass(frozen=True)
class Spread:
    """The median of samples, and the quartiles around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> Spread:
        if len(samples) < 2:
            return cls(*(samples[0],) * 3)
        low, median, high = statistics.quantiles(samples, n=4, method="inclusive")
        return cls(median, low, high)


@dataclass(frozen=True)
class Changes:
    """How many changes a second were made, and which part of a core who took for them."""

    rate: float
    cores: dict[str, float]

    @property
    def told(self) -> str:
        taken = ", ".join(f"{who} {part:.2f}" for who, part in self.cores.items())
        return f"{self.rate:.0f} changes a second; cores: {taken}"


@dataclass(frozen=True)
class Series:
    """The samples of one case on one set-up, a sample a repeat."""

    setup: str
    where: str
    case: str
    rules: int | None
    changes: str | None
    samples: tuple[float, ...]
    found: Changes | None = None

    @property
    def title(self) -> str:
        rules = f" · {self.rules:,} rules" if self.rules else ""
        return f"{self.setup}{rules}{f' · {self.changes}' if self.changes else ''}"


@dataclass(frozen=True)
class Row:
    """Ours against a peer's. *ratio* is ours / theirs, taken repeat by repeat; *changes* were ours and theirs."""

    case: str
    where: str
    title: str
    unit: str
    ours: Spread
    peer: str
    theirs: Spread
    ratio: Spread
    target: str | None
    met: bool | None
    changes: tuple[Changes | None, Changes | None] = (None, None)


def compare(ours: Series, theirs: Series, limit: float | None, at_most: bool) -> Row:
    """Return one row; *limit* is what the ratio must not pass (None: it is only told)."""
    ratio = Spread.of([a / b for a, b in zip(ours.samples, theirs.samples, strict=True)])
    met = None if limit is None else ratio.median <= limit if at_most else ratio.median >= limit
    return Row(
        case=f"{TITLES[ours.case]}, {'one host' if ours.where == 'same' else 'across hosts'}",
        where=ours.where,
        title=ours.title,
        unit=UNITS[ours.case],
        ours=Spread.of(ours.samples),
        peer=theirs.title,
        theirs=Spread.of(theirs.samples),
        ratio=ratio,
        target=None if limit is None else f"{'≤' if at_most else '≥'} {limit:.2f}",
        met=met,
        changes=(ours.found, theirs.found),
    )


def _limit(case: str, where: str, peer: str, rules: int | None) -> float | None:
    """Return the target for the ratio to a peer, if there is one."""
    group = next(group for group, cases in GROUPS.items() if case in cases)
    return {
        ("latency", "same", "bare veth"): 1.10,
        ("latency", "same", "Docker"): 1.00,
        ("latency", "cross", "kernel VXLAN"): 1.00,
        ("latency", "cross", "bridge"): 0.85,
        ("throughput", "same", "bare veth"): 0.95,
        ("throughput", "cross", "kernel VXLAN"): 1.00,
        ("connections", where, "bridge"): 1.50 if rules == 1000 else None,
    }.get((group, where, peer))


def rows(all_series: Iterable[Series]) -> list[Row]:
    """Hold every series of ours against each peer's, and against ours with more rules or with changes."""
    every = list(all_series)
    ours = [s for s in every if s.setup == "Crossway"]
    made = []
    for own in ours:
        small = own.case in SMALLER_IS_BETTER
        for peer in every:
            alike = peer.case == own.case and (peer.where == own.where or peer.setup == "bare veth")
            if peer.setup == "Crossway" or not alike or peer.changes != own.changes:
                continue
            if peer.rules in (None, own.rules):
                where = "" if peer.where != own.where else own.where
                made.append(compare(own, peer, _limit(own.case, where, peer.setup, own.rules), small))
        for other in ours:
            if (other.case, other.where) != (own.case, own.where):
                continue
            if own.changes and not other.changes and own.rules == other.rules:
                limit = None if own.changes == ELSEWHERE else 1.02 if small else 0.98
                made.append(compare(own, other, limit, small))
            if (own.changes, other.changes, own.rules) == (HERE, ELSEWHERE, other.rules):
                made.append(compare(own, other, None, small))
            if (own.rules, other.rules, own.changes, other.changes) == (10000, 10, None, None):
                made.append(compare(own, other, 1.05 if small else 0.95, small))
    return made


@dataclass(frozen=True)
class Outcome:
    """What came of one target: how often it was met, and the ratios from least to most."""

    case: str
    beside: str
    target: str
    met: int
    ratios: tuple[float, ...]

    @property
    def told(self) -> str:
        low, high = f"{self.ratios[0]:.2f}", f"{self.ratios[-1]:.2f}"
        return low if low == high else f"{low}–{high}"

    @property
    def beyond(self) -> str:
        """By how much the worst ratio misses the target; nothing if none does."""
        if self.met == len(self.ratios):
            return ""
        at_most, limit = self.target.startswith("≤"), float(self.target.split()[1])
        worst = self.ratios[-1] if at_most else self.ratios[0]
        return f"{abs(worst / limit - 1):.1%}"


def beside(row: Row) -> str:
    """Return what a row of ours is held against, without what differs between rows of one target."""
    setup = row.peer.split(" · ")[0]
    if setup != "Crossway":
        return setup
    return "ours without changes" if "changes" in row.title else "ours with 10 rules"


def outcomes(found: Iterable[Row]) -> list[Outcome]:
    """Sum up the rows that have a target."""
    kinds: dict[tuple[str, str, str], list[Row]] = {}
    for row in found:
        if row.target:
            case = row.case.replace(", one core", "").replace(", two cores", "")
            kinds.setdefault((case, beside(row), row.target), []).append(row)
    return [
        Outcome(*kind, sum(bool(row.met) for row in rows), tuple(sorted(row.ratio.median for row in rows)))
        for kind, rows in kinds.items()
    ]
