"""Measure, print, and write `bench/results/NAME.json`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path as File

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from bench import peers, ready
from bench.judge import FILLING, GROUPS, UNITS, Row, Series, Spread, rows
from bench.ours import Crossway
from bench.peers import Path
from bench.spaces import Spaces, wait_for

RESULTS = File(__file__).parent / "results"
CHANGES_PER_SECOND = 100
CHANGED_RULES = 1000  # rules of the groups that are changed while we measure


@dataclass(frozen=True)
class Job:
    """One thing to measure once a repeat."""

    path: Path
    case: str
    changes: bool


@dataclass
class Changer:
    """Changes the policy of a path, so many times a second, while a measurement runs."""

    path: Path
    made: int = 0
    seconds: float = 0.0
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
        start, number = time.monotonic(), 0
        while not self._end.is_set():
            self.path.change(number)
            number += 1
            self._end.wait(max(0.0, start + number / CHANGES_PER_SECOND - time.monotonic()))
        self.made += number
        self.seconds += time.monotonic() - start

    @property
    def rate(self) -> float:
        return self.made / self.seconds if self.seconds else 0.0


def measure(paths: Sequence[Path], spaces: Spaces, options: argparse.Namespace, show: Progress) -> list[Series]:
    """Measure all paths in every case, once a repeat, each repeat in another order."""
    jobs = [Job(path, case, False) for path in paths for case in options.cases]
    if options.changes:
        jobs += [
            Job(path, case, True)
            for path in paths
            for case in options.cases
            if path.change and path.rules == CHANGED_RULES
        ]
    changers = {id(path): Changer(path) for path in paths}
    samples: dict[Job, list[float]] = {job: [] for job in jobs}
    order = random.Random(options.seed)
    task = show.add_task("measuring", total=len(jobs) * options.repeats)
    for _ in range(options.repeats):
        for job in order.sample(jobs, len(jobs)):
            with ExitStack() as stack:
                if job.changes:
                    stack.enter_context(changers[id(job.path)].running())
                    time.sleep(0.1)
                samples[job].append(
                    spaces.measure(
                        job.path.client,
                        job.case,
                        job.path.ip,
                        options.seconds,
                        calm=job.case in FILLING and not job.changes,
                    )
                )
            show.advance(task)
    for changer in changers.values():
        if changer.made:
            rules = f"{changer.path.rules:,} rules"
            show.console.print(
                f"{changer.path.setup}, {changer.path.where}, {rules}: {changer.rate:.0f} changes a second"
            )
    return [
        Series(j.path.setup, j.path.where, j.case, j.path.rules, j.changes, tuple(taken))
        for j, taken in samples.items()
    ]


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
    """Print what came of each target: how often it was met, and the ratios from best to worst."""
    made = Table(title="Targets", title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for name in ("case", "beside", "target", "met", "ratios"):
        made.add_column(name, justify="right" if name in ("target", "met", "ratios") else "left", no_wrap=True)
    kinds: dict[tuple[str, str, str], list[Row]] = {}
    for row in found:
        if row.target:
            peer = row.peer.split(" · ")[0]
            if peer == "Crossway":
                peer = "without changes" if "changes" in row.title else "10 rules, with 10,000"
            kinds.setdefault(
                (row.case.replace(", one core", "").replace(", two cores", ""), peer, row.target), []
            ).append(row)
    for (case, peer, target), of_kind in kinds.items():
        ratios = sorted(row.ratio.median for row in of_kind)
        met = sum(bool(row.met) for row in of_kind)
        colour = "green" if met == len(of_kind) else "yellow" if met else "red"
        told = f"{ratios[0]:.2f}–{ratios[-1]:.2f}" if len(ratios) > 1 else f"{ratios[0]:.2f}"
        made.add_row(case, peer, target, f"[{colour}]{met} of {len(of_kind)}[/]", told)
    console.print(made)


def machine() -> dict[str, str]:
    """Return what was measured on what."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    model = next((s for s in File("/proc/cpuinfo").read_text().splitlines() if s.startswith("model name")), ":")
    return {
        "commit": commit.stdout.strip(),
        "kernel": platform.release(),
        "cpu": model.split(":", 1)[1].strip(),
        "cores": str(len(set(os.sched_getaffinity(0)))),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--only", action="append", choices=[*GROUPS, *UNITS, "ready"], help="measure only this (repeatable)"
    )
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=0.2, help="of one measurement")
    parser.add_argument("--rules", default="10,1000,10000", help="sizes of the groups")
    parser.add_argument("--no-changes", dest="changes", action="store_false", help="leave out measuring under changes")
    parser.add_argument("--peers", choices=["all", "bare"], default="all", help="bare: bare veth and kernel VXLAN only")
    parser.add_argument("--seed", type=int, default=1, help="of the order of measurements")
    parser.add_argument("--samples", type=int, default=100, help="new ports, for `ready`")
    parser.add_argument("--ports", default="100,1000", help="ports on the network, for `ready`")
    parser.add_argument("--name", default="latest", help="of the file in bench/results")
    options = parser.parse_args(arguments)
    only = options.only or [*GROUPS, "ready"]
    options.cases = [case for group, cases in GROUPS.items() for case in cases if group in only or case in only]
    options.ready = "ready" in only
    options.rules = [int(n) for n in options.rules.split(",")]
    options.ports = [int(n) for n in options.ports.split(",")]
    return options


def side_by_side(options: argparse.Namespace, console: Console) -> list[Row]:
    """Set everything up, measure, take everything down."""
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
        if spaces.disturbed:
            console.print(
                f"[yellow]{spaces.disturbed} of {spaces.measured} measurements that fill a core were disturbed[/]"
            )
        return rows(taken)


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
    found = side_by_side(options, console) if options.cases else []
    table(found, console)
    if found:
        summary(found, console)
    fresh = [ready.measure(ports, options.samples, console) for ports in options.ports] if options.ready else []
    missed = [row for row in found if row.met is False]
    judged = [row for row in found if row.met is not None]
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{options.name}.json"
    told = {
        "machine": about,
        "repeats": options.repeats,
        "seconds": options.seconds,
        "rows": [asdict(row) for row in found],
        "ready": [asdict(one) for one in fresh],
    }
    file.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n")
    console.print(f"{len(judged) - len(missed)} of {len(judged)} targets met; written to {file}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
