"""Rows that projects share: each is assured as many as any other, and what nobody needs goes to whoever wants it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossway.plan.room import Room

SIZE = 100
wishes = st.lists(
    st.tuples(st.integers(0, 11), st.sampled_from([0, 1, 5, 20, 60, 101])), min_size=1, max_size=40
)  # holder, rows; a holder is of project holder % 3


@given(wishes)
def test_nobody_goes_without_while_its_project_is_within_its_share(wishes: list[Any]) -> None:
    room: Room[int] = Room(SIZE)
    wanted: dict[int, int] = {}
    without: set[int] = set()
    for holder, rows in wishes:
        without ^= room.want(holder, f"p{holder % 3}", rows)
        wanted[holder] = rows
        assert without == room.refused.keys(), "who is told of is who has changed"
        has = {h: n for h, n in wanted.items() if n and h not in without}
        assert room.total == sum(has.values()) <= SIZE
        projects = {h % 3 for h, n in wanted.items() if n}
        share = SIZE // max(1, len(projects))
        for h in without:
            used = sum(n for other, n in has.items() if other % 3 == h % 3)
            assert used == room.used(f"p{h % 3}")
            assert used + wanted[h] > share
            assert room.total + wanted[h] > SIZE, "what is free is for whoever wants it"
    for holder in range(12):
        room.want(holder, "", 0)
    assert (room.total, room.refused) == (0, {})


def test_one_that_borrows_gives_back_what_came_last() -> None:
    room: Room[str] = Room(SIZE)
    assert not room.want("first", "greedy", 45)
    assert not room.want("second", "greedy", 45)
    assert room.want("third", "greedy", 45) == {"third"}
    assert room.want("small", "other", 40) == {"second"}
    assert not room.want("more", "other", 10)
    assert room.want("small", "other", 0) == {"third"}, "who went without first"
    assert room.refused.keys() == {"second"}


class Counted(Room[int]):
    """A room that counts how many of those who go without were looked at."""

    looked = 0

    def _admit(self, besides: int) -> bool:
        self.looked += len(self.refused)
        return super()._admit(besides)


@pytest.mark.parametrize("projects", [1, 3, 2000])
def test_those_who_go_without_are_not_looked_at_in_vain(projects: int) -> None:
    room = Counted(SIZE)
    for holder in range(2000):
        room.want(holder, f"p{holder % projects}", 5)
    assert len(room.refused) == 1980
    assert room.looked <= 20 * 2000, "as some projects come, others give back"
    room.looked = 0
    for holder in list(room.refused):  # again, as those are tried who are told to go without
        room.want(holder, f"p{holder % projects}", 5)
    assert room.looked == 0
