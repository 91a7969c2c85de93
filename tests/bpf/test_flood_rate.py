"""How much one port may have copied to all of its network: nobody fills the queues of others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from bpf.packets import BROADCAST, IPV4, IPV6, UDP, arp, eth, ip, mac, na, ns, udp
from bpf.test_firewall import IN
from bpf.test_hold import parts
from bpf.test_switch import OUTSIDE, tagged
from bpf.world import (
    BARE,
    CAUTIOUS,
    CLEAR,
    FAR,
    GREY,
    PUBLIC,
    RED,
    STOLEN,
    THERE,
    A,
    B,
    D,
    Ears,
    Sent,
    Who,
    World,
    any_rule,
    frame,
    gateway,
    world,
)  # fmt: skip
from crossway.agent.plane import flood_copies
from crossway.errors import Invalid
from crossway.kernel.bpf import UNSPEC
from crossway.model import rows as r

COPIES = 1000  # a second
SHOUT = ip(A.ip4, "255.255.255.255", UDP, udp(1, 2))
# B, TAP, TAGGED and one other host; a member that gets none costs an eighth.
EACH = 4 + 5 / 8
MANY = 5000
BATCH = 50


@pytest.fixture(scope="module")
def slow() -> Iterator[World]:
    with world(flood_copies=COPIES) as made:
        yield made


class Key(NamedTuple):
    number: int
    part: int
    senders: int


class Account(NamedTuple):
    paid_until: int
    seen: int
    mac: bytes


@pytest.fixture
def s(slow: World) -> World:
    slow.reset()
    accounts = slow.bpf._table("flooded", Key, Account)
    accounts.delete(list(accounts.read()))
    return slow


def passed(send: Callable[[int], Sent], most: int = MANY, by: str | None = "da", batch: int = BATCH) -> int:
    """Return how many went before one did not, and why it did not.

    *send* sends a batch at once: a slow machine, too, is faster than the rate.
    """
    for sent in range(0, most, batch):
        done = send(batch)
        if done.drops:
            assert done.drops.keys() == {(by, "FLOOD_RATE")}
            return sent + batch - done.drops[by, "FLOOD_RATE"]
    return most


def shout(
    w: World, who: Who = A, packet: bytes = SHOUT, to: bytes = BROADCAST, kind: int = IPV4, *, repeat: int = 1
) -> Sent:
    return w.send(eth(to, who.mac, kind, packet), who, repeat=repeat)


KINDS: dict[str, tuple[bytes, int, bytes]] = {
    "broadcast": (BROADCAST, IPV4, SHOUT),
    "multicast": (bytes.fromhex("01005e000012"), IPV4, ip(A.ip4, "224.0.0.18", 112, bytes(20))),
    "multicast of IPv6": (bytes.fromhex("3333000000fb"), IPV6, ip(A.ip6, "ff02::fb", UDP, udp(5353, 5353))),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_port_has_so_many_copies_made(s: World, kind: str) -> None:
    to, proto, packet = KINDS[kind]
    start = time.monotonic()
    went = passed(lambda n: shout(s, A, packet, to, proto, repeat=n))
    seconds = time.monotonic() - start + 2  # the burst
    assert 0.8 * 2 * COPIES <= went * EACH <= 1.1 * COPIES * seconds + EACH
    time.sleep(0.1)
    assert 5 <= passed(lambda n: shout(s, A, packet, to, proto, repeat=n)) <= 100


def test_others_do_not_pay(s: World) -> None:
    assert passed(lambda n: shout(s, repeat=n)) < MANY
    assert shout(s, B, ip(B.ip4, "255.255.255.255", UDP, udp(1, 2))).verdict == STOLEN
    assert s.send(frame(A, B, UDP, udp(1, 2))).passed  # nor does what is for one
    assert s.send(arp(1, A.mac, A.ip4, B.ip4)).passed  # or is answered here
    assert s.send(frame(A, D, UDP, udp(1, 2), to=gateway(RED))).passed


def test_what_is_for_nobody_known_is_copied_as_often(s: World) -> None:
    sent = eth(bytes((2, 7, 7, 7, 7, 7)), BARE.mac, IPV4, ip(BARE.ip4, "10.0.4.99", UDP, udp(1, 2)))
    s.network(CLEAR, [BARE.place, *[FAR.place] * 9])
    assert 150 <= passed(lambda n: s.send(sent, BARE, repeat=n), by="du") <= 400
    assert passed(lambda n: s.send(arp(1, BARE.mac, BARE.ip4, "10.0.4.98"), BARE, repeat=n), by="du") <= 50


def test_of_a_large_network_a_few_packets_always_pass(s: World) -> None:
    s.network(RED, [FAR.place] * 100)  # with their copies nine a second, were there no least
    went = passed(lambda n: shout(s, repeat=n), batch=5)
    assert 45 <= went <= 80  # two seconds' worth of 25
    time.sleep(0.5)
    assert 5 <= passed(lambda n: shout(s, repeat=n), batch=5) <= 25


def test_from_another_host_a_network_has_so_many(s: World) -> None:
    def hear(network: int, repeat: int = 1) -> Sent:
        sent = eth(BROADCAST, FAR.mac, IPV4, ip(FAR.ip4, "255.255.255.255", UDP, udp(1, 2)))
        return s.receive(sent, network, repeat=repeat)

    assert 300 <= passed(lambda n: hear(RED, n), by=None) < MANY
    assert hear(CLEAR).verdict == STOLEN
    assert shout(s).verdict == STOLEN


def test_from_outside_ports_have_so_many_and_the_host_has_all(s: World) -> None:
    s.network(GREY, [PUBLIC.place] * 20)
    sent = tagged(eth(BROADCAST, OUTSIDE.mac, 0x0806, bytes(28)))

    def hear(repeat: int) -> Sent:
        done = s.run("from_uplink", sent, "uplink", repeat=repeat)
        assert done.verdict == UNSPEC  # the host's stack has it in any case
        return done

    assert 80 <= passed(hear, by=None) < MANY
    assert shout(s, PUBLIC, ip(PUBLIC.ip4, "255.255.255.255", UDP, udp(1, 2))).verdict == STOLEN


ANOTHER = Who(GREY, 97, 0, None)  # outside, too
BESIDE = Who(GREY, 11, 6, "du")  # one more port of the provider network
PARTS = 64  # of the rate, each assured to one sender


def from_outside(w: World, sent: bytes, repeat: int = 1) -> Sent:
    return w.run("from_uplink", tagged(sent), "uplink", repeat=repeat)


def cry(w: World, src: bytes = OUTSIDE.mac, repeat: int = 1) -> Sent:
    """Have one outside say something to all."""
    return from_outside(w, eth(BROADCAST, src, IPV4, ip(OUTSIDE.ip4, "255.255.255.255", UDP, udp(1, 2))), repeat)


def call(w: World, host: str = THERE, repeat: int = 1) -> Sent:
    """Have a port of another host say something to all."""
    sent = eth(BROADCAST, FAR.mac, IPV4, ip(FAR.ip4, "255.255.255.255", UDP, udp(1, 2)))
    return w.receive(sent, RED, host=host, repeat=repeat)


def exhaust(w: World, send: Callable[[int], Sent]) -> None:
    """Send more than a sender has for itself, so that it uses what all have, and leave nothing of either."""
    passed(send, 2 * BATCH, by=None)
    use_up(w)


def use_up(w: World, *, parts: bool = True) -> None:
    """Charge the senders that there were so much that they must wait for long."""
    accounts = w.bpf._table("flooded", Key, Account)
    rows = {key: row for key, row in accounts.read().items() if parts or not key.part}
    assert any(not key.part for key in rows)
    accounts.put({key: row._replace(paid_until=row.paid_until + 3600 * 10**9) for key, row in rows.items()})


def asks(who: Who, target: str, src: str | None = None) -> bytes:
    """Return what asks who has an address."""
    if ":" in target:
        return ns(who.mac, who.ip6 if src is None else src, target)
    return arp(1, who.mac, who.ip4 if src is None else src, target)


@pytest.mark.parametrize("v", [4, 6])
@pytest.mark.parametrize("free", [False, True], ids=["who has it", "whether it is free"])
@pytest.mark.parametrize("outside", [False, True], ids=["other host", "outside"])
def test_who_asks_for_the_address_of_a_port_asks_that_port_alone(s: World, outside: bool, free: bool, v: int) -> None:
    """However much all of the network is told from there, and however often it asks."""
    nobody = ("0.0.0.0" if v == 4 else "::") if free else None
    s.add(BESIDE)
    s.network(GREY, [PUBLIC.place, BESIDE.place, r.Place(r.PlaceKind.UPLINK)])
    exhaust(s, (lambda n: cry(s, repeat=n)) if outside else (lambda n: call(s, repeat=n)))
    devices = ("dg", "du") if outside else ("da", "db", "dt", "trunk")
    whom = PUBLIC if outside else B
    sent = asks(OUTSIDE if outside else FAR, whom.ip(v), nobody)
    for _ in range(5):
        with Ears(*devices) as ears:
            done = from_outside(s, sent) if outside else s.receive(sent)
            assert (done.verdict, done.drops) == (UNSPEC if outside else STOLEN, {})
            ears.must_hear({whom.device: [sent]})


@pytest.mark.parametrize("v", [4, 6])
@pytest.mark.parametrize("outside", [False, True], ids=["other host", "outside"])
def test_announcements_and_questions_for_others_are_for_all(s: World, outside: bool, v: int) -> None:
    s.add(BESIDE)
    s.network(GREY, [PUBLIC.place, BESIDE.place, r.Place(r.PlaceKind.UPLINK)])
    who, whom = (OUTSIDE, PUBLIC) if outside else (FAR, B)
    devices = ("dg", "du") if outside else ("da", "db", "dt")
    kinds = [
        asks(who, ANOTHER.ip(v) if outside else Who(RED, 99, 0, None).ip(v)),
        na(who.mac, whom.ip6, whom.ip6) if v == 6 else arp(1, who.mac, whom.ip4, whom.ip4),
    ]
    for sent in kinds:
        with Ears(*devices) as ears:
            done = from_outside(s, sent) if outside else s.receive(sent)
            assert done.drops == {}
            ears.must_hear({device: [sent] for device in devices})


@pytest.mark.parametrize("v", [4, 6])
def test_who_asks_for_what_a_port_was_seen_to_have_asks_all_while_it_may(s: World, v: int) -> None:
    """It may have gone to another port; but who was seen last is asked in any case."""
    vip = "10.0.4.77" if v == 4 else "fd04::77"
    there = Who(CLEAR, 20, 3, None)
    place = BARE.place._replace(flags=BARE.place.flags | r.PortFlag.LEARNED)
    s.put("endpoints", {r.EndpointKey(CLEAR, r.pack_ip(vip)): r.Endpoint(place, BARE.mac)})
    sent = asks(there, vip)
    with Ears("du", "dc") as ears:
        assert s.receive(sent, CLEAR).verdict == STOLEN
        ears.must_hear({"du": [sent], "dc": [sent]})
    shout_there = eth(BROADCAST, there.mac, IPV4, ip(there.ip4, "255.255.255.255", UDP, udp(1, 2)))
    exhaust(s, lambda n: s.receive(shout_there, CLEAR, repeat=n))
    with Ears("du", "dc") as ears:
        assert s.receive(sent, CLEAR).drops == {}
        ears.must_hear({"du": [sent]})


@pytest.mark.parametrize("v", [4, 6])
@pytest.mark.parametrize("outside", [False, True], ids=["other host", "outside"])
def test_who_asks_for_a_ports_own_address_asks_all_that_may_have_it_too_while_it_may(
    s: World, outside: bool, v: int
) -> None:
    """On a network with address pairs or unsecured ports; but the port itself is asked in any case."""
    s.add(BESIDE)
    s.network(GREY, [PUBLIC.place, BESIDE.place, r.Place(r.PlaceKind.UPLINK)])
    networks = s.bpf.table("networks")
    networks.put({GREY: networks.read()[GREY]._replace(flags=r.NetworkFlag.FLOOD_UNKNOWN | r.NetworkFlag.PROVIDER)})
    whom, beside, who = (PUBLIC, BESIDE, OUTSIDE) if outside else (CAUTIOUS, BARE, Who(CLEAR, 20, 3, None))
    assert whom.device is not None
    assert beside.device is not None
    sent = asks(who, whom.ip(v))

    def ask(packet: bytes = sent, repeat: int = 1) -> Sent:
        return from_outside(s, packet, repeat) if outside else s.receive(packet, CLEAR, repeat=repeat)

    with Ears(whom.device, beside.device) as ears:
        assert ask().drops == {}
        ears.must_hear({whom.device: [sent], beside.device: [sent]})
    exhaust(s, lambda n: ask(asks(who, Who(who.network, 98, 0, None).ip(v)), n))
    with Ears(whom.device, beside.device) as ears:
        assert ask().drops == {}
        ears.must_hear({whom.device: [sent]})


@pytest.mark.parametrize("v", [4, 6])
def test_what_is_for_a_mac_that_a_port_was_seen_to_have_reaches_it_at_any_rate(s: World, v: int) -> None:
    """A router's packets for one of two holders of a virtual MAC, which no row tells."""
    vip, vmac = "10.0.4.77" if v == 4 else "fd04::77", mac("00:00:5e:00:01:4d")
    place = CAUTIOUS.place._replace(flags=CAUTIOUS.place.flags | r.PortFlag.LEARNED)
    s.put("endpoints", {r.EndpointKey(CLEAR, r.pack_ip(vip)): r.Endpoint(place, vmac)})
    s.put("sources", {r.SourceKey(256, CAUTIOUS.key, vmac, r.pack_ip(vip)): 1})
    src = D.ip(v)
    sent = eth(vmac, gateway(CLEAR).mac, IPV4 if v == 4 else IPV6, ip(src, vip, UDP, udp(1, 2)))
    other = sent[:5] + b"\x4e" + sent[6:]
    s.network(CLEAR, [*[BARE.place] * 8, CAUTIOUS.place])
    exhaust(s, lambda n: s.receive(other, CLEAR, repeat=n))
    with Ears("du", "dc") as ears:
        assert s.receive(sent, CLEAR).verdict == STOLEN
        ears.must_hear({"dc": [sent]})


@pytest.mark.parametrize("v", [4, 6])
@pytest.mark.parametrize("used_up", [None, 0, 1], ids=["account left", "used up", "used up behind the first one"])
def test_fragments_for_a_mac_that_a_port_was_seen_to_have_reach_it(s: World, used_up: int | None, v: int) -> None:
    place, vip = CAUTIOUS.place._replace(flags=CAUTIOUS.place.flags | r.PortFlag.LEARNED), CAUTIOUS.ip(v)
    vmac, there = mac("00:00:5e:00:01:4d"), Who(CLEAR, 20, 3, None)
    s.put("endpoints", {r.EndpointKey(CLEAR, r.pack_ip(vip)): r.Endpoint(place, vmac)})
    s.put("sources", {r.SourceKey(256, CAUTIOUS.key, vmac, r.pack_ip(vip)): 1})
    s.policy(CAUTIOUS.identity, any_rule(CAUTIOUS.identity, IN, v, proto=UDP, port=2))
    s.network(CLEAR, [*[BARE.place] * 8, CAUTIOUS.place])
    other = eth(bytes((2, 7, 7, 7, 7, 7)), there.mac, IPV4, ip(there.ip4, "10.0.4.99", UDP, udp(1, 2)))
    whole = [vmac + one[6:] for one in parts(v, there, CAUTIOUS)]
    with Ears("dc") as ears:
        for n, sent in enumerate(whole):
            if n == used_up:
                exhaust(s, lambda n: s.receive(other, CLEAR, repeat=n))
            done = s.receive(sent, CLEAR)
            assert (done.verdict, done.drops) == (STOLEN, {})
        heard = ears.hear(lambda heard: len([one for one in heard.get("dc", []) if one[:6] == vmac]) == len(whole))
    assert [one for one in heard["dc"] if one[:6] == vmac] == whole


def test_one_host_uses_up_no_others_part(s: World) -> None:
    others = [f"192.0.2.{n}" for n in range(3, 23)]
    s.put("hosts", {r.pack_ip(host): r.Host(1) for host in others})
    exhaust(s, lambda n: call(s, repeat=n))
    # One of 64 has the same part by its hash.
    assert sum(call(s, host).verdict == STOLEN for host in others) >= len(others) - 2
    assert call(s).drops == {(None, "FLOOD_RATE"): 1}


def test_one_outside_uses_up_no_others_part(s: World) -> None:
    exhaust(s, lambda n: cry(s, repeat=n))
    assert cry(s, ANOTHER.mac).drops == {}
    assert cry(s).drops == {(None, "FLOOD_RATE"): 1}
    assert call(s).drops == {}, "other hosts have their own"


def test_made_up_macs_take_no_part_that_somebody_has(s: World) -> None:
    s.network(GREY, [PUBLIC.place] * 20)
    assert cry(s, ANOTHER.mac).drops == {}
    start = time.monotonic()
    went = sum(not cry(s, bytes((2, 66)) + n.to_bytes(4, "big")).drops for n in range(MANY))
    seconds = time.monotonic() - start + 2  # the burst
    each = 20 * 9 / 8  # copies of one, by which the rate that all share is used up; a part has 5 packets
    assert went <= seconds * (COPIES / each + 5 * PARTS) + PARTS, "all of them together"
    use_up(s, parts=False)
    assert cry(s, bytes((2, 66, 1, 1, 1, 1))).drops
    for _ in range(5):
        assert cry(s, ANOTHER.mac).drops == {}


def test_by_default_what_networks_are_made_of_passes(w: World) -> None:
    """A hundred neighbours that all speak VRRP, mDNS and ARP at once, and a limit of none."""
    w.network(RED, [FAR.place] * 100)
    assert passed(lambda n: shout(w, repeat=n), 200) == 200
    with world(flood_copies=0) as free:
        assert passed(lambda n: shout(free, repeat=n), 20_000) == 20_000


@pytest.mark.parametrize("said", ["-1", "many", "1e3", "100000001", "²"])
def test_a_rate_that_is_none_is_refused(said: str) -> None:
    with pytest.raises(Invalid, match="CROSSWAY_FLOOD_RATE"):
        flood_copies(said)
    assert (flood_copies("0"), flood_copies("20000")) == (0, 20_000)
