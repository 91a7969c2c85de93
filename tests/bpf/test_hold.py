"""Fragments that come before the first of their datagram wait for it, within their port's share, and follow it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from socket import AF_PACKET, SOCK_RAW, if_nametoindex, socket

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bpf.packets import IPV4, IPV6, MF, UDP, eth, ip, ipv6_fragment, udp
from bpf.test_firewall import IN, OUT, SECOND, ago
from bpf.world import (
    AWAY,
    BARE,
    CAUTIOUS,
    CLEAR,
    FAR,
    GREY,
    PUBLIC,
    RED,
    SLOTS,
    STOLEN,
    TAGGED,
    TAP,
    A,
    B,
    D,
    Ears,
    Sent,
    Who,
    World,
    any_rule,
    gateway,
    rule,
    world,
)  # fmt: skip
from crossway.kernel.bpf import detach
from crossway.model import rows as r

PART = 32  # bytes of each fragment but the last
BOTH = pytest.mark.parametrize("v", [4, 6])


def parts(
    v: int, src: Who, dst: Who, id: int = 7, count: int = 3, to: Who | None = None, port: int = 2, ttl: int = 64,
    size: int = PART,
) -> list[bytes]:  # fmt: skip
    """Return the fragments of a datagram."""
    body = udp(1, port, bytes((id + i) & 0xFF for i in range(size * (count - 1) + 8 - 8 + 16)))
    frames = []
    for at in range(0, size * count, size):
        part, more = body[at : at + size], at + size < len(body)
        assert part
        if v == 4:
            packet = ip(src.ip4, dst.ip4, UDP, part, id=id, fragment=at // 8 | (MF if more else 0), ttl=ttl)
        else:
            packet = ip(src.ip6, dst.ip6, 44, ipv6_fragment(UDP, at, more, id, part), ttl=ttl)
        frames.append(eth((to or dst).mac, src.mac, IPV4 if v == 4 else IPV6, packet))
    return frames


ORDERS = list(itertools.permutations(range(3)))


# ---- From a port of this host: they go in once more behind the first one.


@contextmanager
def hooked(w: World, device: str, program: str = "from_workload") -> Iterator[socket]:
    """Have a device's hook run for what really comes in by it; a socket at its other end."""
    w.bpf.attach(program, if_nametoindex(device))
    try:
        with socket(AF_PACKET, SOCK_RAW) as s:
            s.bind((f"{device}-in", 0))
            yield s
    finally:
        detach(if_nametoindex(device), {"from_workload": 1, "from_uplink": 9697}[program], 0xC7)


@BOTH
@pytest.mark.parametrize("order", ORDERS)
def test_a_datagram_leaves_whole_in_any_order(w: World, v: int, order: tuple[int, ...]) -> None:
    w.policy(A.identity, any_rule(A.identity, OUT, v, proto=UDP, port=2))
    sent = parts(v, A, FAR)
    with hooked(w, "da") as s, Ears("vxlan") as ears:
        for i in order:
            s.send(sent[i])
        heard = ears.hear(lambda heard: len(heard.get("vxlan", [])) == 3)["vxlan"]
    assert sorted(heard) == sorted(sent)
    assert heard[0] == sent[0], "the first one comes first"


@BOTH
@pytest.mark.parametrize("to", [AWAY, D], ids=["another host", "a port here"])
def test_what_is_routed_waits_too(w: World, v: int, to: Who) -> None:
    if to is D:
        w.add(D._replace(body=r.Body.TAP))  # a veth would deliver to another namespace alone
    sent = parts(v, A, to, to=gateway(RED))
    device = to.device or "vxlan"
    with hooked(w, "da") as s, Ears(device) as ears:
        for frame in reversed(sent):
            s.send(frame)
        heard = ears.hear(lambda heard: len(heard.get(device, [])) == 3)[device]
    assert len(heard) == 3
    assert {frame[54 if v == 6 else 34 :] for frame in heard} == {frame[54 if v == 6 else 34 :] for frame in sent}
    assert {frame[21 if v == 6 else 22] for frame in heard} == {63}


def test_a_tagged_frame_keeps_its_tag_while_it_waits(w: World) -> None:
    sent = parts(4, TAGGED, FAR)
    with hooked(w, "trunk", "from_uplink") as s, Ears("vxlan") as ears:
        for frame in reversed(sent):
            s.send(frame[:12] + b"\x81\x00\x00\x05" + frame[12:])
        ears.hear(lambda heard: len(heard.get("vxlan", [])) == 3)
    assert w.bpf.table("early_fragments").read() == {}


@BOTH
def test_what_waits_is_judged_as_the_first(w: World, v: int) -> None:
    w.policy(A.identity, any_rule(A.identity, OUT, v, proto=UDP, port=2))
    with hooked(w, "da") as s, Ears("vxlan") as ears:
        for frame in reversed(parts(v, A, FAR, port=3)):
            s.send(frame)
        assert ears.hear(lambda _: counted(w, A, "POLICY_OUT") == 3) == {}
    assert counted(w, A, "POLICY_OUT") == 3


def counted(w: World, who: Who, why: str) -> int:
    number = next(n for n, name in w.reasons.items() if name == f"DROP_{why}")
    row = w.bpf.table("drops").get(r.DropKey(who.key, number))
    return row.packets if row else 0


def test_what_an_unsecured_port_sends_elsewhere_waits_for_nothing(w: World) -> None:
    there = Who(CLEAR, 20, 0, None)
    w.add(there)
    assert w.send(parts(4, BARE, there)[1], BARE).to == "vxlan"


def test_what_an_unsecured_port_sends_to_a_secured_one_here_waits(w: World) -> None:
    done = w.send(parts(4, BARE, CAUTIOUS)[1], BARE)
    assert (done.verdict, done.drops) == (STOLEN, {})
    (held,) = w.bpf.table("early_fragments").read().values()
    assert held.port == BARE.key


# ---- From elsewhere: they go to the port behind the first one.


@BOTH
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("to", [A, TAP, TAGGED], ids=["veth", "tap", "VLAN"])
def test_a_datagram_arrives_whole_in_any_order(w: World, v: int, order: tuple[int, ...], to: Who) -> None:
    assert to.device is not None
    sent = parts(v, FAR, to)
    through = {}
    with Ears(to.device) as ears:
        for i in order:
            done = w.receive(sent[i])
            assert done.drops == {}
            if done.to:  # a test run does not send what is redirected
                through[i] = done.packet
        waited = order[: order.index(0)]
        rest = [sent[0], *(sent[i] for i in waited)] if waited else []
        tag = b"\x81\x00\x00\x05" if to is TAGGED else b""
        ears.must_hear({to.device: [f[:12] + tag + f[12:] for f in rest]} if rest else {})
    assert sorted(through) == sorted(i for i in range(3) if i not in (waited and [0, *waited]))
    assert w.bpf.table("early_fragments").read() == {}


def test_it_arrives_from_the_provider_network(w: World) -> None:
    peer = Who(PUBLIC.network, 50, 0, None)
    sent = parts(4, peer, PUBLIC)
    with Ears("dg") as ears:
        for frame in reversed(sent):
            w.run("from_uplink", frame[:12] + b"\x81\x00\x00\x07" + frame[12:], "uplink")
        ears.must_hear({"dg": [sent[0], sent[2], sent[1]]})


@BOTH
def test_what_waited_goes_nowhere_if_the_first_may_not(w: World, v: int) -> None:
    w.policy(A.identity, any_rule(A.identity, IN, v, proto=UDP, port=2))
    with Ears("da") as ears:
        for frame in reversed(parts(v, FAR, A, port=3)):
            done = w.receive(frame)
        assert done.drop == "POLICY_IN"
        ears.must_hear({}, 0.1)
    expire(w, 3)
    assert counted(w, A, "FRAGMENT") == 2


@BOTH
def test_what_waited_must_not_lie_over_the_first(w: World, v: int) -> None:
    first = parts(v, FAR, A, size=64)[0]
    over, fits = parts(v, FAR, A, count=4)[1:3]
    with Ears("da") as ears:
        w.receive(over)
        w.receive(fits)
        done = w.receive(first)
        assert done.drops == {("da", "MALFORMED"): 1}
        ears.must_hear({"da": [first, fits]})


def test_a_limited_port_pays_for_what_waited(w: World) -> None:
    limited = A.place._replace(flags=A.flags | r.PortFlag.LIMITED)
    w.put("macs", {r.MacKey(RED, A.mac): limited})
    w.put("rates", {r.RateKey(A.key, r.Way.IN): r.Rate(1000, 1)})
    sent = parts(4, FAR, A)
    with Ears("da") as ears:
        w.receive(sent[1])
        done = w.receive(sent[0])
        ears.must_hear({"da": [sent[0]]})
    assert done.drops == {("da", "RATE"): 1}


def test_another_datagram_of_the_same_number_is_another(w: World) -> None:
    other = FAR._replace(number=21)
    w.add(other)
    with Ears("da") as ears:
        w.receive(parts(4, other, A)[1])
        first = w.receive(parts(4, FAR, A)[0])
        assert first.to == "da"
        ears.must_hear({}, 0.1)


# ---- Another sender says that its fragments are of the same datagram.

OTHER = "192.0.2.3"  # one more host


def stranger(w: World, frame: bytes, how: str) -> Sent:
    """Take a frame from another host, of another sender than `w.receive` does by default."""
    if how == "another identity":
        return w.receive(frame, identity=5)
    w.put("hosts", {r.pack_ip(OTHER): r.Host(1)})
    return w.receive(frame, host=OTHER)


STRANGERS = pytest.mark.parametrize("how", ["another identity", "another host"])


@BOTH
@STRANGERS
def test_nothing_follows_the_first_of_another_sender(w: World, v: int, how: str) -> None:
    sent = parts(v, FAR, A)
    with Ears("da") as ears:
        assert stranger(w, sent[1], how).verdict == STOLEN
        w.receive(sent[2])
        w.receive(sent[0])
        ears.must_hear({"da": [sent[0], sent[2]]})
        assert stranger(w, sent[1], how).to is None, "nor does it pass behind it"
    expire(w, 2)
    assert counted(w, A, "FRAGMENT") == 2


def by_uplink(w: World, frame: bytes) -> Sent:
    return w.run("from_uplink", frame[:12] + b"\x81\x00\x00\x07" + frame[12:], "uplink")


@BOTH
@pytest.mark.parametrize("first_by", ["overlay", "uplink"])
def test_nothing_follows_a_first_that_came_another_way(w: World, v: int, first_by: str) -> None:
    peer = Who(PUBLIC.network, 50, 0, None)
    sent = parts(v, peer, PUBLIC)
    ways = [lambda frame: w.receive(frame, GREY, identity=0), lambda frame: by_uplink(w, frame)]
    by, other = ways if first_by == "overlay" else reversed(ways)
    with Ears("dg") as ears:
        assert other(sent[1]).verdict == STOLEN
        by(sent[2])
        by(sent[0])
        ears.must_hear({"dg": [sent[0], sent[2]]})
        assert other(sent[1]).to is None


@BOTH
def test_what_a_stranger_says_to_be_a_ports_own_does_not_follow_its_first(w: World, v: int) -> None:
    sent = parts(v, A, FAR)
    assert w.send(sent[0]).to == "vxlan"
    spoofed = A.mac + FAR.mac + sent[1][12:]
    assert w.receive(spoofed).to is None
    assert w.send(sent[1]).to == "vxlan"


@BOTH
@STRANGERS
def test_a_refused_first_of_another_sender_changes_nothing(w: World, v: int, how: str) -> None:
    w.policy(A.identity, rule(A.identity, IN, 3, v, proto=UDP, port=2))
    refused = parts(v, FAR, A, port=3)[0]
    sent = parts(v, FAR, A)
    with Ears("da") as ears:
        w.receive(sent[2])
        assert stranger(w, refused, how).drop == "POLICY_IN"
        w.receive(sent[0])
        ears.must_hear({"da": [sent[0], sent[2]]})
        assert stranger(w, refused, how).drop == "POLICY_IN"
        assert w.receive(sent[1]).to == "da"


@BOTH
def test_a_refused_first_takes_nothing_that_waits_and_replaces_none_that_was_let_in(w: World, v: int) -> None:
    w.policy(A.identity, any_rule(A.identity, IN, v, proto=UDP, port=2))
    refused = parts(v, FAR, A, port=3)[0]
    sent = parts(v, FAR, A)
    with Ears("da") as ears:
        w.receive(sent[2])
        assert w.receive(refused).drop == "POLICY_IN"
        w.receive(sent[0])
        ears.must_hear({"da": [sent[0], sent[2]]})
        assert w.receive(refused).drop == "POLICY_IN"
        assert w.receive(sent[1]).to == "da"


@BOTH
def test_what_is_not_let_in_takes_no_slot_of_what_is(w: World, v: int) -> None:
    w.policy(A.identity, rule(A.identity, IN, 3, v, proto=UDP, port=2))

    def flood(first: int) -> None:
        for i in range(first, first + 5 * SLOTS[r.ShareOf.FRAGMENTS]):
            w.receive(parts(v, FAR, A, id=i)[i % 2], identity=5)

    flood(0)
    sent = [parts(v, FAR, A, id=100 + i) for i in range(SLOTS[r.ShareOf.FRAGMENTS] // 4)]
    for first, _, _ in sent:
        assert w.receive(first).to == "da"
    flood(5000)
    for _, later, last in sent:
        assert w.receive(later).to == w.receive(last).to == "da"


@BOTH
def test_to_groups_who_is_unknown_takes_no_slot_of_who_is_known(w: World, v: int) -> None:
    class Group(Who):
        mac = bytes.fromhex("01005e010109" if v == 4 else "333300000009")
        ip4, ip6 = "239.1.1.9", "ff0e::9"

    def sent(id: int) -> list[bytes]:
        return parts(v, FAR, Group(RED, 0, 0, None), id=id)

    w.put("shares", {r.ShareKey(r.PortKey(RED, 0xFFFF), r.ShareOf.FRAGMENTS): r.Share(16)})
    known = [sent(i) for i in range(4)]
    for first, _, _ in known:
        assert w.receive(first).drops == {}
    for i in range(100):
        w.receive(sent(1000 + i)[0], identity=0)
    for first, _, _ in known:
        w.receive(first)
    for i in range(100):
        w.receive(sent(2000 + i)[0], identity=0)
    for _, later, last in known:
        assert w.receive(later).drops == w.receive(last).drops == {}
    rows = w.bpf.table("fragments").read()
    assert len([key for key in rows if key.port == r.PortKey(RED, 0xFFFF)]) <= 16


# ---- Shares.


def early(w: World, who: Who = A) -> list[r.EarlyFragment]:
    return [row for row in w.bpf.table("early_fragments").read().values() if row.port == who.key]


def test_one_port_takes_no_place_from_another(w: World) -> None:
    sent = parts(4, A, FAR)
    w.send(sent[1])
    for i in range(5 * SLOTS[r.ShareOf.FRAGMENTS]):
        w.send(parts(4, B, FAR, id=1000 + i)[i % 2], B)  # firsts, and such as wait
    assert len(early(w)) == 1
    assert len(early(w, B)) <= SLOTS[r.ShareOf.EARLY]
    rows = w.bpf.table("fragments").read()
    assert len([key for key in rows if key.port == B.key]) == SLOTS[r.ShareOf.FRAGMENTS]
    young(w)
    with hooked(w, "da") as s, Ears("vxlan") as ears:
        s.send(sent[0])
        ears.must_hear({"vxlan": [sent[0], sent[1]]})


def young(w: World) -> None:
    """Let what waits have come just now, however slow the machine is."""
    now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    rows = w.bpf.table("early_fragments").read()
    w.put("early_fragments", {key: row._replace(seen=now) for key, row in rows.items()})


def test_the_known_firsts_of_a_port_stand_whatever_others_send(w: World) -> None:
    first, later, _ = parts(4, A, FAR)
    w.send(first)
    for i in range(5 * SLOTS[r.ShareOf.FRAGMENTS]):
        w.send(parts(4, B, FAR, id=i)[0], B)
    assert w.send(later).to == "vxlan"


def test_a_senders_next_datagrams_have_slots_of_their_own(w: World) -> None:
    for v in (4, 6):
        for i in range(SLOTS[r.ShareOf.FRAGMENTS]):
            w.send(parts(v, A, FAR, id=40_000 + i)[0])
        for i in range(SLOTS[r.ShareOf.FRAGMENTS]):
            assert w.send(parts(v, A, FAR, id=40_000 + i)[1]).to == "vxlan", i


def test_what_its_own_next_ones_replace_is_counted(w: World) -> None:
    slots = SLOTS[r.ShareOf.EARLY]
    for i in range(slots):
        assert w.send(parts(4, A, FAR, id=i)[1]).drops == {}
    done = w.send(parts(4, A, FAR, id=slots)[1])
    assert (done.verdict, done.drops) == (STOLEN, {("da", "FRAGMENT"): 1})
    assert len(early(w)) == slots


def test_a_port_without_a_share_keeps_none(w: World) -> None:
    w.delete("shares", r.ShareKey(A.key, r.ShareOf.EARLY))
    assert w.send(parts(4, A, FAR)[1]).drop == "FRAGMENT"


def test_what_is_larger_than_a_slot_does_not_wait(w: World) -> None:
    w.mtu(RED, 9000)
    assert w.send(parts(4, A, FAR, size=2008)[1]).verdict == STOLEN
    assert w.send(parts(4, A, FAR, size=2016)[1]).drop == "FRAGMENT"


# ---- Time.


def expire(w: World, seconds: float = 0) -> None:
    """Let all that waits have waited longer, and have the expired deleted, as the agent does."""
    for name in ("early_fragments", "fragments"):
        rows = w.bpf.table(name).read()
        w.put(name, {key: row._replace(seen=ago(row.seen, seconds)) for key, row in rows.items()})
    w.bpf.run("expire", bytes(64))


def test_what_waits_in_vain_is_counted_and_goes(w: World) -> None:
    w.send(parts(4, A, FAR)[1])
    expire(w, 0.5)
    assert len(early(w)) == 1
    expire(w, 1)
    assert early(w) == []
    assert w.bpf.table("fragments").read() == {}
    assert counted(w, A, "FRAGMENT") == 1
    row = next(iter(w.bpf.table("drops").read().values()))
    assert (r.unpack_ip(row.src), r.unpack_ip(row.dst), row.proto, row.network) == (A.ip4, FAR.ip4, UDP, RED)


def test_what_has_waited_too_long_is_not_sent_on(w: World) -> None:
    sent = parts(4, FAR, A)
    w.receive(sent[1])
    rows = w.bpf.table("early_fragments").read()
    w.put("early_fragments", {key: row._replace(seen=ago(row.seen, 3)) for key, row in rows.items()})
    with Ears("da") as ears:
        w.receive(sent[0])
        ears.must_hear({"da": [sent[0]]})
    w.bpf.run("expire", bytes(64))
    assert early(w) == []
    assert counted(w, A, "FRAGMENT") == 1


@BOTH
def test_a_first_leaves_alone_what_has_replaced_its_own(w: World, v: int) -> None:
    slots = SLOTS[r.ShareOf.EARLY]
    sent = [parts(v, FAR, A, id=i) for i in range(slots + 1)]
    for one in sent:
        w.receive(one[1])
    assert len(early(w)) == slots
    with Ears("da") as ears:
        w.receive(sent[0][0])  # what waited for it has given way to the last one
        ears.must_hear({"da": [sent[0][0]]})
        assert len(early(w)) == slots
        young(w)
        w.receive(sent[slots][0])
        ears.must_hear({"da": [sent[slots][0], sent[slots][1]]})


def test_which_datagrams_share_a_slot_is_not_to_be_foreseen() -> None:
    found = []
    for seed in (1, 2):
        with world(hash_seed=seed) as w:
            places = {}
            for number in range(20, 40):
                sender = FAR._replace(number=number)
                w.receive(parts(4, sender, A)[0])
                rows = w.bpf.table("fragments").read()
                places[number] = next(k.slot for k, row in rows.items() if row.of.src == r.pack_ip(sender.ip4))
            found.append({(a, b) for a in places for b in places if a < b and (places[a] ^ places[b]) & 31 < 4})
    assert found[0] != found[1]


def test_another_processors_clock_may_be_a_little_ahead(w: World) -> None:
    first, later, last = parts(4, FAR, A)
    w.receive(last)
    for name in ("early_fragments", "fragments"):
        rows = w.bpf.table(name).read()
        w.put(name, {key: row._replace(seen=row.seen + SECOND) for key, row in rows.items()})
    with Ears("da") as ears:
        w.receive(first)
        ears.must_hear({"da": [first, last]})
    rows = w.bpf.table("fragments").read()
    w.put("fragments", {key: row._replace(seen=row.seen + SECOND) for key, row in rows.items()})
    assert w.receive(later).to == "da"


def test_the_known_firsts_expire_later(w: World) -> None:
    first, later, _ = parts(4, A, FAR)
    w.send(first)
    expire(w, 20)
    assert w.send(later).to == "vxlan"
    expire(w, 31)
    assert w.bpf.table("fragments").read() == {}


# ---- Any order of the fragments of some datagrams, with some twice.

some = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=30)


@given(order=some, v=st.sampled_from([4, 6]))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_in_any_order_each_goes_on_once_the_first_is_there(made: World, order: list[tuple[int, int]], v: int) -> None:
    w = made
    w.reset()
    sent = [parts(v, FAR, TAP, id=100 + i, count=4) for i in range(4)]
    want: list[bytes] = []
    waiting: dict[int, list[bytes]] = {i: [] for i in range(4)}
    known: set[int] = set()
    through = []
    with Ears("dt") as ears:
        for datagram, i in order:
            frame = sent[datagram][i]
            if i == 0 and waiting[datagram]:
                want += [frame, *waiting[datagram]]
                waiting[datagram] = []
            elif i == 0 or datagram in known:
                want.append(frame)
            elif sum(map(len, waiting.values())) < SLOTS[r.ShareOf.EARLY]:
                waiting[datagram].append(frame)
            else:
                return  # the oldest is replaced: another test
            if i == 0:
                known.add(datagram)
            done = w.receive(frame)
            assert done.drops == {}
            if done.to:
                through.append(done.packet)
        heard = ears.hear(lambda heard: len(heard.get("dt", [])) + len(through) == len(want))
    assert sorted(heard.get("dt", []) + through) == sorted(want)
