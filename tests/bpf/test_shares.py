"""What each port has for itself of the tables that all fill, and what holds when it has used that up."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bpf.packets import ACK, FIN, RST, SYN, TCP, UDP, icmp, tcp, udp
from bpf.test_firewall import IN, OUT, ago, back, only_in, only_out, out
from bpf.test_published import AT, FROM, LISTENS, answer, come, publish
from bpf.world import FAR, A, B, Who, World, any_rule, frame, world
from crossway.agent import shares as agent_shares
from crossway.agent.shares import Shares
from crossway.agent.tables import Tables
from crossway.model import rows as r

FLOWS = r.ShareOf.FLOWS
BORROWED = 128  # rows of the table of borrowed flows in the small world
ASSURED = 64
EACH = 16  # what each of two ports has of 64 rows, an eighth of which stays free


@pytest.fixture(scope="module")
def small_world() -> Iterator[World]:
    with world(sizes={"flows": BORROWED, "flows_assured": ASSURED, "translations": 64}) as w:
        yield w


@pytest.fixture
def small(small_world: World) -> World:
    small_world.reset()
    for who in (A, B):
        small_world.share(who, FLOWS, EACH)
    return small_world


def flood(w: World, who: Who, count: int = 5 * BORROWED) -> None:
    """Begin many flows from one port, of three packets each: the kernel takes them for flows in use."""
    for i in range(count):
        sent = frame(who, FAR, UDP, udp(i, 9))
        assert all(w.bpf.run("from_workload", sent, ifindex=who.key.ifindex).verdict == 7 for _ in range(3))


def assured(w: World) -> dict[r.FlowKey, r.Flow]:
    return w.bpf.table("flows_assured").read()


def borrowed(w: World) -> dict[r.FlowKey, r.Flow]:
    return w.bpf.table("flows").read()


# ---- A port below its share.


def test_a_flood_from_one_port_costs_another_no_connection(small: World) -> None:
    only_out(small)
    assert out(small, TCP, tcp(1, 80)) is None
    assert back(small, TCP, tcp(80, 1, SYN | ACK)) is None
    flood(small, B)
    assert back(small, TCP, tcp(80, 1, ACK)) is None
    assert Counter(key.port for key in assured(small)) == {A.key: 1, B.key: EACH}


def test_a_flood_brings_back_nothing_that_was_revoked(small: World) -> None:
    only_in(small)
    assert back(small, UDP, udp(1, 53)) is None
    small.policy(A.identity, any_rule(A.identity, OUT))
    assert out(small, UDP, udp(53, 1)) == "POLICY_IN"
    flood(small, B)
    assert out(small, UDP, udp(53, 1)) == "POLICY_IN"
    assert back(small, UDP, udp(1, 53)) == "POLICY_IN"


def test_ones_own_flood_leaves_the_flows_that_were_there_first(small: World) -> None:
    only_out(small)
    out(small, UDP, udp(7, 53))
    flood(small, A)
    assert back(small, UDP, udp(53, 7)) is None


def test_what_is_beyond_a_share_is_borrowed_and_passes(small: World) -> None:
    only_out(small)
    for i in range(EACH + 3):
        assert out(small, UDP, udp(i, 53)) is None
    assert len(assured(small)) == EACH
    assert len(borrowed(small)) == 3
    assert [back(small, UDP, udp(53, i)) for i in range(EACH + 3)] == [None] * (EACH + 3)


def test_a_port_without_a_share_borrows(small: World) -> None:
    small.delete("shares", r.ShareKey(A.key, FLOWS))
    only_out(small)
    out(small, UDP, udp(7, 53))
    assert back(small, UDP, udp(53, 7)) is None
    assert assured(small) == {}


def test_a_table_that_is_full_all_the_same_lends(small: World) -> None:
    small.share(B, FLOWS, 1000)
    flood(small, B, ASSURED + 5)
    assert len(assured(small)) == ASSURED
    assert len(borrowed(small)) == 5


# ---- Borrowed flows.


def lent(w: World, *bodies: tuple[int, bytes]) -> None:
    """Have A begin flows while its share is used up."""
    w.share(A, FLOWS, 0)
    for proto, body in bodies:
        assert out(w, proto, body) is None
    assert assured(w) == {}
    assert len(borrowed(w)) == len(bodies)


def later(w: World, seconds: float = 1) -> None:
    w.put_flows({k: row._replace(seen=ago(row.seen, seconds)) for k, row in w.flows().items()})


@pytest.mark.parametrize("way", ["out", "in"])
def test_a_borrowed_flow_comes_into_the_share_when_there_is_room(small: World, way: str) -> None:
    only_out(small)
    lent(small, (UDP, udp(1, 2)), (UDP, udp(3, 4)))
    (row,) = [row for key, row in small.flows().items() if key.local_port == 1]
    small.share(A, FLOWS, 1)
    assert back(small, UDP, udp(2, 1)) is None
    assert assured(small) == {}, "no more often than the time is noted"
    later(small)
    assert (out(small, UDP, udp(1, 2)) if way == "out" else back(small, UDP, udp(2, 1))) is None
    ((key, kept),) = assured(small).items()
    assert key.local_port == 1
    assert kept.flags == row.flags | r.FlowFlag.REPLIED
    later(small)
    assert back(small, UDP, udp(4, 3)) is None
    assert [key.local_port for key in borrowed(small)] == [3]


def test_a_borrowed_flow_is_revoked_and_stays_so_where_it_is(small: World) -> None:
    only_out(small)
    lent(small, (UDP, udp(1, 2)))
    small.policy(A.identity)
    assert out(small, UDP, udp(1, 2)) == "POLICY_OUT"
    small.share(A, FLOWS, 1)
    later(small)
    assert out(small, UDP, udp(1, 2)) == "POLICY_OUT"
    ((_, row),) = assured(small).items()
    assert row.flags & r.FlowFlag.REVOKED
    assert borrowed(small) == {}


def test_a_borrowed_flow_that_begins_anew_within_the_share_is_there_once(small: World) -> None:
    only_out(small)
    lent(small, (TCP, tcp(1, 2)))
    back(small, TCP, tcp(2, 1, RST))
    small.share(A, FLOWS, 5)
    assert out(small, TCP, tcp(1, 2)) is None
    assert len(assured(small)) == 1
    assert borrowed(small) == {}


def test_a_flow_within_the_share_that_begins_anew_costs_nothing(small: World) -> None:
    only_out(small)
    small.share(A, FLOWS, 1)
    for _ in range(3):
        assert out(small, TCP, tcp(1, 2)) is None
        back(small, TCP, tcp(2, 1, RST))
    assert len(assured(small)) == 1
    assert borrowed(small) == {}


def test_a_flow_whose_rule_becomes_stateless_is_no_more_where_it_was_borrowed(small: World) -> None:
    only_out(small)
    lent(small, (UDP, udp(1, 2)))
    small.policy(A.identity, any_rule(A.identity, OUT, stateless=1))
    assert out(small, UDP, udp(1, 2)) is None
    assert small.flows() == {}


# ---- TCP begins with a SYN.

NO_SYN = {"ACK": ACK, "SYN ACK": SYN | ACK, "FIN": FIN | ACK, "RST": RST, "nothing": 0}


@pytest.mark.parametrize("flags", NO_SYN.values(), ids=NO_SYN)
@pytest.mark.parametrize("v", [4, 6])
def test_tcp_without_a_syn_passes_by_the_rules_of_its_way_and_opens_none_for_answers(
    w: World, v: int, flags: int
) -> None:
    only_out(w)
    assert out(w, TCP, tcp(80, 1, flags, b"again"), v) is None
    assert back(w, TCP, tcp(1, 80, ACK), v) == "POLICY_IN"
    only_in(w)
    assert back(w, TCP, tcp(1, 80, flags), v) is None
    assert out(w, TCP, tcp(80, 1, ACK), v) == "POLICY_OUT"
    assert w.flows() == {}


def test_a_revoked_connection_stays_revoked_when_its_row_is_lost(w: World) -> None:
    only_in(w)
    assert back(w, TCP, tcp(1, 80)) is None
    assert out(w, TCP, tcp(80, 1, SYN | ACK)) is None
    w.policy(A.identity, any_rule(A.identity, OUT))
    assert back(w, TCP, tcp(1, 80, ACK)) == "POLICY_IN"
    w.forget()  # evicted, or the host has begun anew
    assert out(w, TCP, tcp(80, 1, ACK, b"again")) is None
    assert back(w, TCP, tcp(1, 80, ACK)) == "POLICY_IN"
    assert w.flows() == {}


def test_both_may_begin_at_once(w: World) -> None:
    w.policy(A.identity, any_rule(A.identity, IN), any_rule(A.identity, OUT))
    assert out(w, TCP, tcp(1, 2)) is None
    assert back(w, TCP, tcp(2, 1)) is None
    w.policy(A.identity, any_rule(A.identity, OUT))
    assert back(w, TCP, tcp(2, 1, SYN | ACK)) is None
    assert out(w, TCP, tcp(1, 2, SYN | ACK)) is None


def test_a_syn_with_data_begins_a_flow(w: World) -> None:
    only_out(w)
    assert out(w, TCP, tcp(1, 2, SYN, b"fast open")) is None
    assert back(w, TCP, tcp(2, 1, SYN | ACK)) is None


def test_an_error_about_tcp_without_a_flow_is_related_to_nothing(w: World) -> None:
    only_out(w)
    assert out(w, TCP, tcp(1, 2, ACK)) is None
    quoted = frame(A, FAR, TCP, tcp(1, 2, ACK))[14:]
    assert back(w, 1, icmp(3, 1, bytes(4), quoted)) == "POLICY_IN"


# ---- Clients of published ports.


def test_a_flood_of_clients_costs_another_published_port_no_client(small: World) -> None:
    publish(small)
    publish(small, who=B, at=AT + 1)
    small.share(B, r.ShareOf.TRANSLATIONS, 4)
    assert come(small, 4, TCP, tcp(FROM, AT)).passed
    for i in range(300):
        assert come(small, 4, UDP, udp(1024 + i, AT + 1)).passed
    assert answer(small, 4, TCP, tcp(LISTENS, FROM, SYN | ACK)).passed
    kept = Counter(key.port for key in small.bpf.table("translations_assured").read())
    assert kept == {A.key: 1, B.key: 4}


def test_a_borrowed_client_comes_into_the_share(small: World) -> None:
    publish(small)
    small.share(A, r.ShareOf.TRANSLATIONS, 0)
    assert come(small, 4, TCP, tcp(FROM, AT)).passed
    assert answer(small, 4, TCP, tcp(LISTENS, FROM, SYN | ACK)).passed
    small.share(A, r.ShareOf.TRANSLATIONS, 1)
    assert come(small, 4, TCP, tcp(FROM, AT, ACK)).passed
    assert small.bpf.table("translations_assured").read() == {}, "no more often than the time is noted"
    rows = small.bpf.table("translations").read()
    small.put("translations", {key: row._replace(seen=ago(row.seen, 2)) for key, row in rows.items()})
    assert come(small, 4, TCP, tcp(FROM, AT, ACK)).passed
    assert small.bpf.table("translations").read() == {}
    assert len(small.bpf.table("translations_assured").read()) == 1
    assert answer(small, 4, TCP, tcp(LISTENS, FROM, ACK)).passed


# ---- Counting, by the agent, while packets come.


class Counted:
    """The agent's counting over the real tables, in steps that others come between."""

    def __init__(self, w: World) -> None:
        self.w = w
        self.tables = Tables(w.bpf)
        self.shares: Shares = self.tables.shares
        self.shares.read()
        self.ports = {A.key, B.key}
        self.charged: dict[r.ShareKey, int] | None = None
        self.counted: Counter[r.PortKey] | None = None

    def charge(self) -> None:
        self.charged, self.counted = self.shares.charged(), None

    def count(self) -> None:
        if self.charged is not None:
            self.counted = Counter(key.port for key in assured(self.w))

    def settle(self) -> None:
        if self.counted is not None and self.charged is not None:
            self.shares.settle(FLOWS, self.charged, self.counted, self.ports, len(self.ports))
        self.charged = self.counted = None

    def all(self) -> None:
        self.charge()
        time.sleep(agent_shares.SETTLE_SECONDS)
        self.count()
        self.settle()


def delete(w: World, some: int) -> None:
    table = w.bpf.table("flows_assured")
    table.delete(list(table.read())[:some])


def hand_in(c: Counted, port: r.PortKey, some: int, first: int) -> None:
    rows = {
        r.FlowKey(port, r.pack_ip(A.ip4), r.pack_ip(FAR.ip4), 20_000 + first + i, 9, UDP): r.Flow(10**15, 0, 1, 0, 0)
        for i in range(some)
    }
    c.tables.hand_in(rows)


steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["send A", "send B", "delete", "hand in"]), st.integers(1, 2 * EACH)),
        st.tuples(st.sampled_from(["charge", "count", "settle"]), st.just(0)),
    ),
    min_size=5,
    max_size=40,
)


@given(steps=steps)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_port_has_more_than_its_share_and_all_of_it_comes_back(small_world: World, steps: list[Any]) -> None:
    w = small_world
    w.reset()
    for who in (A, B):
        w.share(who, FLOWS, EACH)
    c, at = Counted(w), 0
    for what, some in steps:
        if what.startswith("send"):
            who = A if what.endswith("A") else B
            for _ in range(some):
                at += 1
                w.bpf.run("from_workload", frame(who, FAR, UDP, udp(at, 9)), ifindex=who.key.ifindex)
        elif what == "delete":
            delete(w, some)
        elif what == "hand in":
            hand_in(c, A.key, some, at)
            at += some
        else:
            getattr(c, what)()
        assert all(rows <= EACH for rows in Counter(key.port for key in assured(w)).values())
    c.all()
    left = Counter(key.port for key in assured(w))
    for who in (A, B):
        key = r.ShareKey(who.key, FLOWS)
        room = w.bpf.table("shares").get(key).until - w.bpf.table("charges").get(key)
        assert room == EACH - left[who.key], "as many may come as are missing"


def test_counts_do_not_drift_under_a_flood_from_all_processors() -> None:
    with world(sizes={"flows": 4096, "flows_assured": 512}) as w:
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
        each = agent_shares.size(512, 2)
        for who in (A, B):
            w.share(who, FLOWS, each)
        c, stop, most = Counted(w), threading.Event(), Counter[r.PortKey]()

        def send(who: Who, first: int) -> None:
            at = first
            while not stop.is_set():
                at += 2
                w.bpf.run("from_workload", frame(who, FAR, UDP, udp(at % 60_000, 9)), ifindex=who.key.ifindex)

        threads = [threading.Thread(target=send, args=(who, i)) for i, who in enumerate((A, A, B))]
        for thread in threads:
            thread.start()
        for turn in range(12):
            c.all()
            counted = Counter(key.port for key in assured(w))
            most |= counted
            delete(w, 90 if turn % 2 else 10)
        stop.set()
        for thread in threads:
            thread.join()
        assert max(most.values()) <= each
        assert max(most.values()) > each // 2, "nothing was tried"
        w.forget()
        c.all()
        for key, share in w.bpf.table("shares").read().items():
            if key.of == FLOWS and key.port in c.ports:
                assert share.until - w.bpf.table("charges").get(key) == each


def test_the_rows_of_a_port_that_moves_count_and_the_revoked_come_first(small: World) -> None:
    c = Counted(small)
    new = {
        r.FlowKey(A.key, r.pack_ip(A.ip4), r.pack_ip(FAR.ip4), i, 9, UDP): r.Flow(
            1000 + i, 0, 1, 0, r.FlowFlag.REVOKED if i == 0 else 0
        )
        for i in range(EACH + 4)
    }
    c.tables.hand_in(new)
    ports = {key.local_port for key in assured(small)}
    assert ports == {0, *range(5, EACH + 4)}
    assert {key.local_port for key in borrowed(small)} == {1, 2, 3, 4}
    c.tables.hand_in({key: row._replace(seen=5000) for key, row in new.items()})
    assert {key.local_port for key in assured(small)} == ports
    assert {row.seen for row in small.flows().values()} == {5000}
    flood(small, A, 10)
    assert len(assured(small)) == EACH
