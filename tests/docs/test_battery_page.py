"""The battery's page is of a run of all its cases, in which all ended as they should."""

from __future__ import annotations

from pathlib import Path

from crossway.lab.battery.registry import BLOWS, CASES
from crossway.lab.battery.run import chosen

PAGE = (Path(__file__).parents[2] / "docs" / "battery.md").read_text()
SIGNS = "✓✓"


def test_every_case_stands_on_the_page_for_all_nine_pairs_and_ended_well() -> None:
    told = [line.split(" | ") for line in PAGE.splitlines() if line.startswith("| ") and line[-4] in "✓✗–"]
    assert [row[0].removeprefix("| ") for row in told] == [
        one.name for area in dict.fromkeys(o.area for o in (*CASES, *BLOWS)) for one in (*CASES, *BLOWS)
        if one.area == area
    ]  # fmt: skip
    assert {sign.strip(" |") for row in told for sign in row[1:]} == {SIGNS}
    assert {len(row) for row in told} == {10}


def test_names_are_one_of_a_kind_in_their_area() -> None:
    cases, blows = chosen("")
    names = [(one.area, one.name) for one in (*cases, *blows)]
    assert len(set(names)) == len(names) >= 40
