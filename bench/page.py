"""Write what a run found into docs/performance.md, between two marks: python -m bench.page"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from bench.judge import ELSEWHERE, HERE, Row, outcomes

LATEST = Path(__file__).parent / "results" / "latest.json"
PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
BEGIN, END = "<!-- from here on written by bench.page -->", "<!-- up to here -->"


def rows_of(told: dict[str, Any]) -> list[Row]:
    """Return the rows of a file in bench/results."""
    return msgspec.convert(told["rows"], list[Row])


def table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table and an empty one."""
    yield f"| {' | '.join(heads)} |"
    yield "| --- " * len(heads) + "|"
    for line in lines:
        yield f"| {' | '.join(line)} |"
    yield ""


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def words(told: dict[str, Any]) -> str:
    """Return what stands between the marks."""
    found, about = rows_of(told), told["machine"]
    judged = [row for row in found if row.met is not None]
    met = sum(bool(row.met) for row in judged)
    out = [
        f"Commit {about['commit']}, {about['date'][:10]}: {told['repeats']} repeats of {told['seconds']:g} s on "
        f"{about['cores']} cores ({about['cpu']}), Linux {about['kernel']}.",
        *([f"{about['disturbed']}."] if about.get("disturbed") else []),
        f"{met} of the {len(judged)} comparisons that have a target met it.",
        "A range is from the least to the greatest median ratio (ours / theirs) over the sizes of groups and, for "
        "round trips, one core and two; *misses by* is the worst of it.",
        "",
        *table(
            ("case", "beside", "target", "met", "ratio", "misses by"),
            [(o.case, o.beside, o.target, f"{o.met} of {len(o.ratios)}", o.told, o.beyond) for o in outcomes(found)],
        ),
    ]
    missed = [row for row in judged if not row.met]
    if missed:
        out += ["Each comparison that missed, with medians:", ""]
        out += table(
            ("case", "ours", "", "beside", "", "ratio", "target"),
            [
                (
                    row.case,
                    row.title.removeprefix("Crossway · "),
                    f"{number(row.ours.median)} {row.unit}",
                    row.peer,
                    f"{number(row.theirs.median)} {row.unit}",
                    f"{row.ratio.median:.3f}",
                    row.target or "",
                )
                for row in missed
            ],
        )
    floor = [row for row in found if row.peer == "VXLAN, no veth" and row.title == "Crossway · 1,000 rules"]
    if floor:
        out += [
            "Across hosts beside the VXLAN device itself, without any workload's veth (no target; 1,000 rules):",
            "",
        ]
        out += table(
            ("case", "ours", "VXLAN, no veth", "ratio"),
            [
                (r.case, f"{number(r.ours.median)} {r.unit}", number(r.theirs.median), f"{r.ratio.median:.2f}")
                for r in floor
            ],
        )
    out += _changes(found)
    if told["ready"]:
        out += ["From POST of a port to the first packet that passes (targets: median ≤ 20 ms, p99 ≤ 100 ms):", ""]
        out += table(
            ("ports on the network", "first packet: median", "p99", "first answer: median", "p99"),
            [
                (
                    f"{r['ports']:,}",
                    *(f"{r[k]:.1f} ms" for k in ("out_median", "out_p99", "answer_median", "answer_p99")),
                )
                for r in told["ready"]
            ],
        )
    return "\n".join(out)


def _changes(found: Sequence[Row]) -> Iterator[str]:
    """Yield what 100 changes a second cost, and who took the cores."""
    idle, bridge = {}, {}
    for row in found:
        for kind in (HERE, ELSEWHERE):
            if not row.title.endswith(f" · {kind}"):
                continue
            if row.peer.startswith("Crossway") and "changes" not in row.peer:
                idle[row.case, kind] = row
            if row.peer.startswith("bridge"):
                bridge[row.case] = row
    lines = []
    for (case, kind), row in idle.items():
        changes = row.changes[0]
        if kind != HERE or changes is None:
            continue
        other = idle.get((case, ELSEWHERE))
        theirs = bridge[case].changes[1] if case in bridge else None
        lines.append(
            (
                case,
                f"{row.ratio.median:.2f}",
                f"{other.ratio.median:.2f}" if other else "",
                f"{changes.rate:.0f}",
                *(f"{changes.cores.get(who, 0.0):.2f}" for who in ("server", "agents", "who asks")),
                f"{theirs.rate:.0f}; {sum(theirs.cores.values()):.2f}" if theirs else "",
            )
        )
    if lines:
        yield (
            "Under 100 changes a second of a group of 1,000 rules: ours beside ours without changes; beside that, with "
            "the same changes made to another group of the same hosts; and which part of a core was taken meanwhile:"
        )
        yield ""
        heads = ("case", "ratio", "ratio, changes elsewhere", "changes/s", "server", "2 agents", "who asks")
        yield from table((*heads, "bridge: changes/s; cores"), lines)


def put(page: Path, begin: str, end: str, text: str) -> None:
    """Put a text between two marks of a page, in place of what stood there."""
    head, rest = page.read_text().split(begin)
    _, tail = rest.split(end)
    page.write_text(f"{head}{begin}\n\n{text}\n{end}{tail}")


def write(results: Path = LATEST) -> None:
    """Put what *results* tell into the page."""
    put(PAGE, BEGIN, END, words(json.loads(results.read_text())))


if __name__ == "__main__":
    write(*map(Path, sys.argv[1:]))
