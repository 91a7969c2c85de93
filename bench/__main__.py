"""Measure, print, and write `bench/results/NAME.json`."""

from __future__ import annotations

import argparse
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from bench import page, peers, ready
from bench.judge import COMPETING, ELSEWHERE, FILLING, GROUPS, HERE, UNITS, Changes, Row, Series, Spread, outcomes, rows
from bench.ours import Crossway
from bench.peers import Path
from bench.record import keep, machine
from bench.spaces import Spaces, used, wait_for

CHANGES_PER_SECOND = 100
CHANGED_RULES = 1000  # rules of the groups that are changed while we measure
ELSEWHERE_RULES = 10  # rules of the other groups of the same hosts that are


@dataclass(frozen=True)
class Job:
    """One thing to measure once a repeat, and the path whose policy is changed meanwhile, if any."""

    path: Path
    case: str
    changed: Path | None = None

    @property
    def changes(self) -> str | None:
        return None if self.changed is None else HERE if self.changed == self.path else ELSEWHERE


@dataclass
class Changer:
    """Changes the policy of a path, so many times a second, while a measurement runs."""

    path: Path
    made: int = 0
    seconds: float = 0.0
    cpu: dict[str, float] = field(default_factory=dict)  # who worked for the changes -> CPU seconds
    _end: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self) -> Iterator[None]:
        self._end.clear()
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            yield
        finally:
            self._end.set()
            thread.join()

    def _run(self) -> None:
        assert self.path.change
        start, own, number, others = time.monotonic(), time.thread_time(), 0, 0.0
        before = {who: sum(map(used, pids)) for who, pids in self.path.workers.items()}
        while not self._end.is_set():
            others += self.path.change(number)
            number += 1
            self._end.wait(max(0.0, start + number / CHANGES_PER_SECOND - time.monotonic()))
        self.made += number
        self.seconds += time.monotonic() - start
        for who, pids in self.path.workers.items():
            self._count(who, sum(map(used, pids)) - before[who])
        self._count("who asks", time.thread_time() - own + others)

    def _count(self, who: str, seconds: float) -> None:
        self.cpu[who] = self.cpu.get(who, 0.0) + seconds

    @property
    def found(self) -> Changes:
        """What came of it: how many changes a second, and which part of a core who took."""
        return Changes(self.made / self.seconds, {who: seconds / self.seconds for who, seconds in self.cpu.items()})


def measure(paths: Sequence[Path], spaces: Spaces, options: argparse.Namespace, show: Progress) -> list[Series]:
    """Measure all paths in every case, once a repeat, each repeat in another order."""
    jobs = [Job(path, case) for path in paths for case in options.cases]
    if options.changes:
        for path in paths:
            if path.change and path.rules == CHANGED_RULES:
                jobs += [Job(path, case, path) for case in options.cases]
                jobs += [
                    Job(path, case, other)
                    for other in paths
                    for case in options.cases
                    if case in COMPETING and path.workers and is_elsewhere(path, other)
                ]
    changers = {job: Changer(job.changed) for job in jobs if job.changed}
    samples: dict[Job, list[float]] = {job: [] for job in jobs}
    order = random.Random(options.seed)
    task = show.add_task("measuring", total=len(jobs) * options.repeats)
    for _ in range(options.repeats):
        for job in order.sample(jobs, len(jobs)):
            with ExitStack() as stack:
                if job.changed:
                    stack.enter_context(changers[job].running())
                    time.sleep(0.1)
                samples[job].append(
                    spaces.measure(
                        job.path.client,
                        job.case,
                        job.path.ip,
                        options.seconds,
                        calm=job.case in FILLING and not job.changed,
                    )
                )
            show.advance(task)
    return [
        Series(
            j.path.setup,
            j.path.where,
            j.case,
            j.path.rules,
            j.changes,
            tuple(taken),
            changers[j].found if j.changed else None,
        )
        for j, taken in samples.items()
    ]


def is_elsewhere(path: Path, other: Path) -> bool:
    """Return whether a change of *other*'s policy is as much work as one of *path*'s, but for other ports."""
    return (other.setup, other.where) == (path.setup, path.where) and other.rules == ELSEWHERE_RULES


def number(value: float) -> str:
    """Write a number with three digits that mean something."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def spread(s: Spread) -> str:
    return f"{number(s.median)} [dim]{number(s.low)}–{number(s.high)}[/]"


def table(found: Sequence[Row], console: Console) -> None:
    """Print a table a case."""
    for case in dict.fromkeys(row.case for row in found):
        of_case = [row for row in found if row.case == case]
        title = f"{case}, {of_case[0].unit}"
        made = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
        for name in ("Crossway", "", "beside", "", "ratio", "target", ""):
            made.add_column(name, justify="left" if name in ("Crossway", "beside") else "right", no_wrap=True)
        before = ""
        for row in of_case:
            if row.title != before:
                made.add_section()
            ratio = f"{row.ratio.median:.2f} [dim]{row.ratio.low:.2f}–{row.ratio.high:.2f}[/]"
            met = {True: "[green]met[/]", False: "[red]missed[/]", None: ""}[row.met]
            ours = (row.title.removeprefix("Crossway · "), spread(row.ours)) if row.title != before else ("", "")
            made.add_row(*ours, row.peer, spread(row.theirs), ratio, row.target or "", met)
            before = row.title
        console.print(made)


def summary(found: Sequence[Row], console: Console) -> None:
    """Print what came of each target, and who took the cores while changes were made."""
    made = Table(title="Targets", title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for name in ("case", "beside", "target", "met", "ratios"):
        made.add_column(name, justify="right" if name in ("target", "met", "ratios") else "left", no_wrap=True)
    for one in outcomes(found):
        of = len(one.ratios)
        colour = "green" if one.met == of else "yellow" if one.met else "red"
        made.add_row(one.case, one.beside, one.target, f"[{colour}]{one.met} of {of}[/]", one.told)
    console.print(made)
    told: dict[tuple[str, str], Changes] = {}
    for row in found:
        for title, changes in zip((row.title, row.peer), row.changes, strict=True):
            if changes:
                told[row.case, title] = changes
    for (case, title), changes in told.items():
        console.print(f"{case}, {title}: {changes.told}", highlight=False)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--only", action="append", choices=[*GROUPS, *UNITS, "ready"], help="measure only this (repeatable)"
    )
    parser.add_argument("--repeats", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=0.2, help="of one measurement")
    parser.add_argument("--rules", default="10,1000,10000", help="sizes of the groups")
    parser.add_argument("--no-changes", dest="changes", action="store_false", help="leave out measuring under changes")
    parser.add_argument("--peers", choices=["all", "bare"], default="all", help="bare: bare veth and kernel VXLAN only")
    parser.add_argument("--seed", type=int, default=1, help="of the order of measurements")
    parser.add_argument("--samples", type=int, default=100, help="new ports, for `ready`")
    parser.add_argument("--ports", default="100,1000", help="ports on the network, for `ready`")
    parser.add_argument("--name", help="of the file in bench/results; `latest` is what docs/performance.md tells")
    options = parser.parse_args(arguments)
    only = options.only or [*GROUPS, "ready"]
    options.cases = [case for group, cases in GROUPS.items() for case in cases if group in only or case in only]
    options.ready = "ready" in only
    options.name = options.name or ("latest" if arguments is None and len(sys.argv) == 1 else "trial")
    options.rules = [int(n) for n in options.rules.split(",")]
    options.ports = [int(n) for n in options.ports.split(",")]
    return options


def side_by_side(options: argparse.Namespace, console: Console) -> tuple[list[Row], str]:
    """Set everything up, measure, take everything down; return the rows, and how much others disturbed."""
    with ExitStack() as stack:
        spaces = stack.enter_context(Spaces())
        crossway = stack.enter_context(Crossway())
        paths = [peers.bare(spaces), peers.kernel_vxlan(spaces), peers.bare_vxlan(spaces)]
        if options.peers == "all":
            paths += [peers.docker(spaces), peers.docker_published(spaces)]
        for rules in options.rules:
            if options.peers == "all":
                paths += [peers.bridge(spaces, rules), peers.bridge_vxlan(spaces, rules)]
            paths += crossway.paths(rules)
        for path in paths:
            spaces.serve(path.server)
            wait_for(spaces, path.client, path.ip)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        show = stack.enter_context(Progress(*columns, console=console))
        taken = measure(paths, spaces, options, show)
        disturbed = f"{spaces.disturbed} of {spaces.measured} measurements that fill a core were disturbed by others"
        console.print(disturbed, highlight=False)
        return rows(taken), disturbed


def main() -> int:
    options = parse()
    # A table in a log needs no less room than one on a screen.
    console = Console(width=None if sys.stdout.isatty() else 150)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    about = machine()
    console.print(f"{about['cpu']}, {about['cores']} cores, Linux {about['kernel']}, commit {about['commit']}")
    console.print(
        f"{options.repeats} repeats of {options.seconds:g} s in random order; medians with quartiles; "
        "ratio: ours / theirs, repeat by repeat"
    )
    found, about["disturbed"] = side_by_side(options, console) if options.cases else ([], "")
    table(found, console)
    if found:
        summary(found, console)
    fresh = [ready.measure(ports, options.samples, console) for ports in options.ports] if options.ready else []
    told = {
        "machine": about,
        "repeats": options.repeats,
        "seconds": options.seconds,
        "rows": [asdict(row) for row in found],
        "ready": [asdict(one) for one in fresh],
    }
    file = keep(options.name, told, console)
    if options.name == "latest":
        page.write(file)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
