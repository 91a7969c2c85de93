"""How large a share is, and what goes when it shrinks."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossway.agent.shares import GROUPS, MOST, Shares, beyond, size
from crossway.model import rows as r
from unit.agent.test_tables import Kernel, One

ROWS = 262_144
ports = st.integers(0, 65_536)


@pytest.mark.parametrize(("count", "rows"), [(0, 4096), (1, 4096), (56, 4096), (57, 2048), (1000, 128), (65_536, 2)])
def test_a_share_is_a_power_of_two_of_what_there_is_for_each(count: int, rows: int) -> None:
    assert size(ROWS, count) == rows


def test_a_share_shrinks_at_once_and_grows_late() -> None:
    assert size(ROWS, 57, 4096) == 2048
    assert size(ROWS, 56, 2048) == 2048
    assert size(ROWS, 46, 2048) == 2048
    assert size(ROWS, 45, 2048) == 4096


@given(st.lists(ports, min_size=1))
def test_all_shares_together_leave_an_eighth_of_the_table(counts: list[int]) -> None:
    each = None
    for count in counts:
        each = size(ROWS, count, each)
        assert 0 < each <= MOST
        assert each * count <= ROWS - ROWS // 8


ONE, TWO = r.PortKey(1), r.PortKey(2)


def test_beyond_a_share_the_silent_go_first_and_the_revoked_last() -> None:
    rows = [(ONE, False, 5, b"5"), (ONE, True, 1, b"revoked"), (ONE, False, 3, b"3"), (TWO, False, 1, b"of two")]
    counted = Counter(port for port, *_ in rows)
    assert beyond(counted, 3, rows) == []
    assert beyond(counted, 2, rows) == [b"3"]
    assert beyond(counted, 1, rows) == [b"3", b"5"]


@pytest.fixture
def shares() -> Shares:
    made = Shares(Kernel())  # type: ignore[arg-type]
    made.open({ONE, TWO}, 2)
    return made


FLOWS = r.ShareOf.FLOWS


def until(shares: Shares, port: r.PortKey) -> int:
    found = shares._plane.table("shares").get(r.ShareKey(port, FLOWS))
    assert isinstance(found, r.Share)
    return found.until


def test_who_comes_has_a_share_at_once_and_keeps_it_when_it_comes_again(shares: Shares) -> None:
    assert until(shares, ONE) == MOST
    shares.take(FLOWS, ONE, 96)
    shares.open({ONE}, 2)
    assert until(shares, ONE) == MOST - 96


def test_no_more_is_taken_than_there_is(shares: Shares) -> None:
    assert shares.take(FLOWS, ONE, 5000) == MOST
    assert shares.take(FLOWS, ONE, 1) == 0
    assert shares.take(FLOWS, r.PortKey(9), 1) == 0
    assert shares.take(FLOWS, TWO, 1) == 1


def test_what_went_is_given_back_and_what_came_during_the_count_is_not(shares: Shares) -> None:
    shares.take(FLOWS, ONE, 100)
    charged = shares.charged()
    shares.take(FLOWS, ONE, 7)
    shares.settle(FLOWS, charged, {ONE: 60}, {ONE, TWO}, 2)
    assert until(shares, ONE) == MOST - 60 - 7
    assert until(shares, TWO) == MOST


def test_a_share_goes_with_its_port_once_its_rows_have_gone(shares: Shares) -> None:
    shares.settle(FLOWS, shares.charged(), {ONE: 1}, {TWO}, 1)
    assert until(shares, ONE) == MOST - 1
    shares.settle(FLOWS, shares.charged(), {}, {TWO}, 1)
    assert shares.take(FLOWS, ONE, 1) == 0
    keys = shares._plane.table("shares").read().keys()
    assert {key.port for key in keys if key.of == FLOWS} == {TWO}


def slots(shares: Shares, of: r.ShareOf) -> dict[r.PortKey, int]:
    return {key.port: row.until for key, row in shares._plane.table("shares").read().items() if key.of == of}


def test_each_port_has_slots_for_fragments_and_fewer_among_many(shares: Shares) -> None:
    assert slots(shares, r.ShareOf.FRAGMENTS) == {ONE: 256, TWO: 256}
    assert slots(shares, r.ShareOf.EARLY) == {ONE: 64, TWO: 64}
    many = {r.PortKey(n) for n in range(1, 2001)}
    shares.open(many, 2000)
    shares.resize(many)
    assert set(slots(shares, r.ShareOf.FRAGMENTS).values()) == {64}
    assert set(slots(shares, r.ShareOf.EARLY).values()) == {64}
    shares.resize({TWO})
    assert slots(shares, r.ShareOf.EARLY) == {TWO: 64}


def of_networks(shares: Shares) -> dict[int, int]:
    return {port.ifindex: until for port, until in slots(shares, r.ShareOf.FRAGMENTS).items() if port.vlan == GROUPS}


def test_networks_have_a_sixteenth_of_the_table_of_fragments_whatever_their_number(shares: Shares) -> None:
    shares.open_networks({10, 20}, 2)
    assert of_networks(shares) == {0: 256, 10: 256, 20: 256}
    many = set(range(1, 1001))
    shares.open_networks(many, 1000)
    shares.resize({ONE}, many)
    assert of_networks(shares).keys() == {0, *many}
    assert sum(of_networks(shares).values()) <= One.size // 16
    assert slots(shares, r.ShareOf.FRAGMENTS)[ONE] == 256
    again = Shares(shares._plane)
    again.read()
    again.resize({ONE}, {10})
    assert of_networks(again) == {0: 256, 10: 256}


def test_an_agent_that_starts_goes_on_with_the_shares_that_there_are(shares: Shares) -> None:
    shares.take(FLOWS, ONE, 96)
    again = Shares(shares._plane)
    again.read()
    again.open({ONE, TWO}, 2)
    assert until(again, ONE) == MOST - 96
    again.settle(FLOWS, again.charged(), {ONE: 96}, {ONE, TWO}, 2)
    assert until(again, ONE) == MOST - 96
