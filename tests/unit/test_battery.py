"""The battery: every pair meets once, and a cell that is wrong is told as such."""

from __future__ import annotations

import io
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

from rich.console import Console

from crossway.lab.battery import page
from crossway.lab.battery.__main__ import tell
from crossway.lab.battery.bodies import KINDS
from crossway.lab.battery.run import SKIPPED, WRONG, Cell, chosen, rounds

GOOD = Cell("L2", "ping, IPv4", "container", "guest", True, "ok", "", 0.1)
OTHER = replace(GOOD, across=False)


def told(*cells: Cell) -> tuple[bool, str]:
    console = Console(file=io.StringIO(), width=140)
    good = tell(list(cells), console)
    return good, cast(io.StringIO, console.file).getvalue()


def test_each_pair_meets_once_on_one_host_and_once_across_and_none_shares_a_body_with_another_at_once() -> None:
    turns = list(rounds(cast(Any, SimpleNamespace(kinds=KINDS))))
    assert all(len({name for pair in turn for name in pair}) == 6 for turn in turns)
    pairs = [(source[0], target[0], target[1]) for turn in turns for source, target in turn]
    assert len(set(pairs)) == len(pairs) == 18


def test_all_is_well_if_every_cell_is() -> None:
    good, said = told(GOOD, OTHER)
    assert good
    assert "✓✓" in said
    assert "1 cases, 2 cells: 2 as they should be, 0 not, 0 skipped" in said


def test_one_wrong_cell_makes_the_run_fail_and_is_told_with_its_reason() -> None:
    good, said = told(OTHER, replace(GOOD, result=WRONG, why="it arrives"))
    assert not good
    assert "✓✗" in said
    assert "container → guest across hosts" in said
    assert "it arrives" in said


def test_a_skipped_cell_is_told_with_its_reason_on_the_page() -> None:
    said = page.markdown(
        [OTHER, replace(GOOD, result=SKIPPED, why="it has no lid")], {"minutes": "3 s", "machine": "x"}
    )
    assert "| ping, IPv4 | ✓– |" in said
    assert "- ping, IPv4: it has no lid." in said


def test_cases_are_chosen_by_area_and_name() -> None:
    cases, blows = chosen("^under traffic: .*-9")
    assert not cases
    assert len(blows) == 2
