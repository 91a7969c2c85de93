"""Run the battery. The exit code is 0 only if every cell is as it should be."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from dataclasses import asdict
from pathlib import Path

import msgspec
from rich.console import Console

from crossway.errors import Fault
from crossway.lab import battery
from crossway.lab.battery import page
from crossway.lab.battery.registry import BLOWS, CASES, Blow, Case
from crossway.lab.battery.run import OK, SKIPPED, Cell, chosen, play
from crossway.lab.battery.scene import Scene
from crossway.lab.lab import Lab, sweep
from crossway.lab.process import interruptible

SLOW = 15.0  # seconds that a cell takes if something waits in vain
TOP = Path(__file__).parents[4]


def machine() -> str:
    """Say what this is run on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    system = platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    kernel = ".".join(platform.release().split(".")[:2])
    return f"{os.cpu_count()} cores, {memory} GB, {system}, kernel {kernel}, guests without hardware help"


def line(cell: Cell) -> str:
    where = "across hosts" if cell.across else "on one host"
    return f"{cell.area}: {cell.case}: {cell.source} → {cell.target} {where}, {cell.seconds:.1f} s: {cell.why}"


def tell(cells: list[Cell], console: Console) -> bool:
    """Print the table and what is wrong; return whether nothing is."""
    console.print(page.table(cells))
    wrong = [cell for cell in cells if cell.result not in (OK, SKIPPED)]
    for cell in wrong:
        console.print(line(cell), style="red", markup=False)
    for case, why in dict.fromkeys((cell.case, cell.why) for cell in cells if cell.result == SKIPPED):
        console.print(f"{case}: skipped: {why}", style="yellow", markup=False)
    console.print(page.counted(cells), style="red" if wrong else "green")
    return not wrong


def main() -> None:
    """Run the battery."""
    parser = argparse.ArgumentParser(prog="make battery", description=battery.__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("pattern", nargs="?", default="", help="only cases with this in `area: name` (a regex)")
    parser.add_argument("--result", type=Path, default=TOP / "build" / "battery.json", help="where the result goes")
    parser.add_argument("--page", type=Path, help="write the page of the docs as well")
    parser.add_argument("--again", action="store_true", help="keep what the last result says of other cases")
    parser.add_argument("--list", action="store_true", help="only say which cases there are")
    args = parser.parse_args()
    interruptible()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    cases, blows = chosen(args.pattern)
    if args.list:
        everything: list[Case | Blow] = [*cases, *blows]
        print("\n".join(f"{one.area}: {one.name}" for one in everything))
        return
    if os.geteuid() != 0:
        console.print("the battery makes network namespaces: run it as root")
        sys.exit(1)
    try:
        sys.exit(0 if run(cases, blows, args, console) else 1)
    except KeyboardInterrupt:
        console.print("interrupted: everything is taken down")
        sys.exit(130)
    except Fault as fault:
        console.print(f"the battery failed: {fault}", style="bold red", markup=False)
        sys.exit(1)


def run(cases: list[Case], blows: list[Blow], args: argparse.Namespace, console: Console) -> bool:
    sweep()
    began = time.monotonic()
    with console.status("two hosts, two engines, nine bodies") as status, Lab.up(hosts=2) as lab:
        scene = Scene(lab, TOP / "build" / "guest")
        try:
            scene.settle()
            console.print(f"two hosts, three containers, three guests, three servers: {time.monotonic() - began:.0f} s")
            count = 0

            def note(cell: Cell) -> None:
                nonlocal count
                count += 1
                if cell.result not in (OK, SKIPPED) or cell.seconds > SLOW:
                    console.print(line(cell), style="red" if cell.result != OK else "dim", markup=False)
                status.update(f"{count} of {18 * len([*cases, *blows])}: {cell.area}: {cell.case}")

            cells = play(scene, cases, blows, note)
        finally:
            scene.close()
    took = time.monotonic() - began
    minutes = f"{took // 60:.0f} min {took % 60:.0f} s" if took >= 60 else f"{took:.0f} s"
    told = {"minutes": minutes, "machine": machine()}
    if args.again and args.result.exists():
        before = msgspec.json.decode(args.result.read_bytes())
        now = {(cell.area, cell.case) for cell in cells}
        cells += [cell for cell in (Cell(**one) for one in before["cells"]) if (cell.area, cell.case) not in now]
        parts = ", ".join(dict.fromkeys(area for area, _ in now))
        told["minutes"] = f"{before['minutes']}, and {minutes} for what was run again after a change ({parts})"
    everything: list[Case | Blow] = [*CASES, *BLOWS]
    order = {(one.area, one.name): at for at, one in enumerate(everything)}
    cells.sort(key=lambda cell: (order[cell.area, cell.case], cell.source, cell.target, cell.across))
    args.result.parent.mkdir(exist_ok=True)
    args.result.write_bytes(msgspec.json.encode({**told, "cells": [asdict(cell) for cell in cells]}))
    if args.page:
        args.page.write_text(page.markdown(cells, told))
    good = tell(cells, console)
    console.print(f"all of it took {minutes}")
    return good


if __name__ == "__main__":
    main()
