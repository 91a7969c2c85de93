"""Connections of a port on their way from host to host."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossway.agent.handover import LONGEST, MILLISECOND, MOST, packed, read, unpacked
from crossway.model import rows as r

HERE, THERE = r.PortKey(7, 0), r.PortKey(12, 5)
NOW = 10**15
addresses = st.one_of(st.binary(min_size=16, max_size=16), st.ip_addresses().map(r.pack_ip))
keys = st.builds(
    r.FlowKey,
    st.just(HERE),
    addresses,
    addresses,
    st.integers(0, 0xFFFF),
    st.integers(0, 0xFFFF),
    st.integers(0, 255),
)
flows = st.builds(
    r.Flow,
    st.integers(0, 10**6).map(lambda ms: NOW - ms * MILLISECOND),
    st.integers(0, 2**32 - 1),
    st.integers(0, 0xFFFF),
    st.integers(0, 0xFFFF),
    st.integers(0, 63),
)


@given(st.dictionaries(keys, flows))
def test_what_is_told_is_what_comes(told: dict[r.FlowKey, r.Flow]) -> None:
    came = read(unpacked(packed(told, NOW)), THERE, identity=9, generation=4, now=NOW)
    assert came == {key._replace(port=THERE): r.Flow(flow.seen, 4, 9, 0, flow.flags) for key, flow in told.items()}


def test_clocks_of_hosts_differ() -> None:
    key = r.FlowKey(HERE, r.pack_ip("10.0.0.1"), r.pack_ip("10.0.0.2"), 1, 2, 6)
    told = packed({key: r.Flow(NOW - 5000 * MILLISECOND, 1, 1, 1, 2)}, NOW)
    other = 9000 * MILLISECOND
    assert [flow.seen for flow in read(unpacked(told), THERE, 1, 1, other).values()] == [4000 * MILLISECOND]
    # Silent since before the other host began.
    assert [flow.seen for flow in read(unpacked(told), THERE, 1, 1, MILLISECOND).values()] == [1]


def test_a_clock_that_ran_ahead_or_stood_for_months_is_told() -> None:
    key = r.FlowKey(HERE, r.pack_ip("::1"), r.pack_ip("::2"), 1, 2, 6)
    assert read(unpacked(packed({key: r.Flow(NOW + 5, 1, 1, 1, 2)}, NOW)), THERE, 1, 1, NOW)
    ancient = read(unpacked(packed({key: r.Flow(0, 1, 1, 1, 2)}, 10**19)), THERE, 1, 1, 10**19)
    assert [flow.seen for flow in ancient.values()] == [10**19 - LONGEST * MILLISECOND]


def test_of_very_many_the_latest_are_told() -> None:
    local = r.pack_ip("10.0.0.1")
    many = {
        r.FlowKey(HERE, local, r.pack_ip(f"10.1.{n >> 8}.{n & 255}"), 1, 2, 6): r.Flow(n * MILLISECOND, 1, 1, 1, 2)
        for n in range(1, MOST + 11)
    }
    came = read(unpacked(packed(many, NOW)), THERE, 1, 1, NOW)
    assert min(flow.seen for flow in came.values()) == 11 * MILLISECOND
    assert len(came) == MOST


@pytest.mark.parametrize("text", ["?", "AAAA", "AAA"])
def test_what_is_no_connections_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="connections"):
        read(unpacked(text), THERE, 1, 1, NOW)
