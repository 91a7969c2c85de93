"""Tell what came of a run: a row a case, a column a pair; in a cell, on one host and across hosts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path

from rich.table import Table
from rich.text import Text

from crossway.lab.battery.bodies import KINDS
from crossway.lab.battery.run import OK, SKIPPED, Cell

_HEAD = Path(__file__).with_name("page.md")
SIGNS = {OK: "✓", SKIPPED: "–"}
STYLES = {OK: "green", SKIPPED: "yellow"}


def columns(cells: Iterable[Cell]) -> list[tuple[str, str]]:
    seen = {(cell.source, cell.target) for cell in cells}
    return [pair for pair in product(KINDS, KINDS) if pair in seen]


def rows(cells: Iterable[Cell]) -> list[tuple[str, str]]:
    """Return areas and cases in the order in which they were first met."""
    return list(dict.fromkeys((cell.area, cell.case) for cell in cells))


def sign(cell: Cell | None) -> str:
    return " " if cell is None else SIGNS.get(cell.result, "✗")


def by_place(cells: Iterable[Cell]) -> dict[tuple[str, str, str, str, bool], Cell]:
    return {(cell.area, cell.case, cell.source, cell.target, cell.across): cell for cell in cells}


def table(cells: Sequence[Cell]) -> Table:
    """Return the table for a terminal."""
    known = by_place(cells)
    made = Table(title="the battery: from → to, on one host and across hosts", title_justify="left", title_style="bold")
    made.add_column("area")
    made.add_column("case")
    for source, target in columns(cells):
        made.add_column(f"{source[0]}→{target[0]}", justify="center")
    last = ""
    for area, case in rows(cells):
        if last and last != area:
            made.add_section()
        line = [Text(area if area != last else ""), Text(case)]
        last = area
        for source, target in columns(cells):
            both = [known.get((area, case, source, target, across)) for across in (False, True)]
            line.append(Text("").join(
                Text(sign(cell), style=STYLES.get(cell.result, "bold red") if cell else "") for cell in both
            ))  # fmt: skip
        made.add_row(*line)
    return made


def counted(cells: Sequence[Cell]) -> str:
    """Return the run in one sentence."""
    good, skipped = (sum(cell.result == result for cell in cells) for result in (OK, SKIPPED))
    wrong = len(cells) - good - skipped
    return f"{len(rows(cells))} cases, {len(cells)} cells: {good} as they should be, {wrong} not, {skipped} skipped"


def markdown(cells: Sequence[Cell], told: Mapping[str, str]) -> str:
    """Return the page for the docs."""
    known = by_place(cells)
    pairs = columns(cells)
    lines = [
        _HEAD.read_text()
        .replace("COUNTED", counted(cells))
        .replace("TOOK", told["minutes"])
        .replace("MACHINE", told["machine"])
    ]
    for area in dict.fromkeys(area for area, _ in rows(cells)):
        lines += [f"## {area}", ""]
        lines.append("| case | " + " | ".join(f"{source[0]}→{target[0]}" for source, target in pairs) + " |")
        lines.append("| --- " * (len(pairs) + 1) + "|")
        for _, case in (row for row in rows(cells) if row[0] == area):
            told_cells = [
                "".join(sign(known.get((area, case, *pair, across))) for across in (False, True)) for pair in pairs
            ]
            lines.append(f"| {case} | " + " | ".join(told_cells) + " |")
        lines.append("")
    reasons = dict.fromkeys((cell.case, cell.why) for cell in cells if cell.result == SKIPPED)
    if reasons:
        lines += ["## What is skipped, and why", ""]
        lines += [f"- {case}: {why}." for case, why in reasons]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"
