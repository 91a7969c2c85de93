"""What guests ask the agent: it reaches the agent as it was sent, with its port, and nobody else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bpf.packets import BROADCAST, ICMPV6, IPV4, IPV6, UDP, arp, eth, icmp, ip, udp
from bpf.world import (
    BARE,
    CLEAR,
    GREY,
    PUBLIC,
    RED,
    TAGGED,
    A,
    B,
    D,
    Who,
    World,
    any_rule,
    frame_to,
    gateway,
    world,
)
from crossway.kernel.ring import Ring
from crossway.model import rows as r
from crossway.plan.service import NO_ROUTER, SERVICE_IP, SERVICE_MAC

ALL_SERVERS, ALL_ROUTERS = bytes.fromhex("333300010002"), bytes.fromhex("333300000002")
STOLEN = 4  # TC_ACT_STOLEN
BOTH = r.PortFlag.DHCP | r.PortFlag.ADVERTISED
RESOLVER, RESOLVER6 = "192.0.2.53", "2001:db8::53"


class Ears:
    """A world whose ports are served, and what its agent would hear."""

    def __init__(self, made: World) -> None:
        self.world = made
        self.heard: list[r.Asked] = []
        fd, layout = made.bpf.ring("questions", "asked", r.Asked)
        self.ring = Ring(fd, lambda raw: self.heard.append(layout.unpack(raw.ljust(layout.size, b"\0")[: layout.size])))

    def serve(self, flags: int) -> None:
        ports = self.world.bpf.table("ports")
        ports.put({key: row._replace(flags=row.flags & 1 | flags) for key, row in ports.read().items()})

    def take(self) -> list[tuple[r.PortKey, bytes]]:
        for _ in range(4):  # it reads so many at a time
            self.ring.read()
        heard, self.heard = self.heard, []
        return [(one.port, one.frame[: one.length]) for one in heard]


@pytest.fixture
def ears() -> Iterator[Ears]:
    with world() as made:
        found = Ears(made)
        found.serve(BOTH)
        yield found
        found.ring.close()


def discover(who: Who, src: str = "0.0.0.0", dst: str = "255.255.255.255", **tag: int) -> bytes:
    return eth(BROADCAST, who.mac, IPV4, ip(src, dst, UDP, udp(68, 67, b"x" * 300)), **tag)


QUESTIONS = {
    "DHCP": discover(A),
    "DHCP with an address": discover(A, A.ip4),
    "DHCP to the gateway": discover(A, A.ip4, "10.0.0.1"),
    "DHCPv6": eth(ALL_SERVERS, A.mac, IPV6, ip(A.link_local, "ff02::1:2", UDP, udp(546, 547))),
    "RS": eth(ALL_ROUTERS, A.mac, IPV6, ip(A.link_local, "ff02::2", ICMPV6, icmp(133), ttl=255)),
    "RS without an address": eth(ALL_ROUTERS, A.mac, IPV6, ip("::", "ff02::2", ICMPV6, icmp(133), ttl=255)),
}


@pytest.mark.parametrize("sent", QUESTIONS.values(), ids=QUESTIONS.keys())
def test_a_question_reaches_the_agent_and_nobody_else(ears: Ears, sent: bytes) -> None:
    done = ears.world.send(sent)
    assert (done.verdict, done.drops) == (STOLEN, {})
    assert ears.take() == [(A.key, sent)]


@pytest.mark.parametrize("sent", QUESTIONS.values(), ids=QUESTIONS.keys())
def test_what_is_not_served_goes_on_its_way(ears: Ears, sent: bytes) -> None:
    ears.serve(0)
    ears.world.send(sent)
    assert ears.take() == []


@pytest.mark.parametrize(
    ("flags", "heard"),
    [(r.PortFlag.DHCP, {"DHCP", "DHCP with an address", "DHCP to the gateway"}),
     (r.PortFlag.ADVERTISED, {"DHCPv6", "RS", "RS without an address"})],
    ids=["IPv4", "IPv6"],
)  # fmt: skip
def test_each_family_is_served_by_itself(ears: Ears, flags: int, heard: set[str]) -> None:
    ears.serve(flags)
    for sent in QUESTIONS.values():
        ears.world.send(sent)
    assert {frame for _, frame in ears.take()} == {QUESTIONS[name] for name in heard}


@pytest.mark.parametrize(
    "sent",
    [
        eth(BROADCAST, bytes.fromhex("020000000099"), IPV4, ip("0.0.0.0", "255.255.255.255", UDP, udp(68, 67))),
        eth(BROADCAST, A.mac, IPV4, ip("10.0.0.77", "255.255.255.255", UDP, udp(68, 67))),
        eth(ALL_ROUTERS, A.mac, IPV6, ip("fe80::77", "ff02::2", ICMPV6, icmp(133), ttl=255)),
    ],
    ids=["MAC", "IPv4", "IPv6"],
)
def test_who_lies_is_not_heard(ears: Ears, sent: bytes) -> None:
    assert ears.world.send(sent).drop is not None
    assert ears.take() == []


def test_a_vlan_bodys_question_comes_without_its_tag(ears: Ears) -> None:
    ears.world.send(discover(TAGGED, vlan=5), TAGGED)
    assert ears.take() == [(TAGGED.key, discover(TAGGED))]


def test_a_port_without_security_is_served_too(ears: Ears) -> None:
    ears.world.send(discover(BARE), BARE)
    assert [port for port, _ in ears.take()] == [BARE.key]
    assert BARE.network == CLEAR


def test_what_is_longer_than_a_frame_is_not_heard(ears: Ears) -> None:
    sent = eth(BROADCAST, A.mac, IPV4, ip("0.0.0.0", "255.255.255.255", UDP, udp(68, 67, b"x" * 1600)))
    assert ears.world.send(sent).drop == "NO_SERVICE"
    assert ears.take() == []


def test_who_asks_without_end_is_heard_now_and_then(ears: Ears) -> None:
    """What is too much is dropped and counted; what is heard is whole."""
    assert not ears.world.send(discover(A), repeat=20).drops
    dropped = ears.world.send(discover(A), repeat=100).drops
    assert dropped.keys() == {("da", "NO_SERVICE")}
    heard = [frame for _, frame in ears.take()]
    assert len(heard) == 120 - sum(dropped.values())
    assert set(heard) == {discover(A)}
    ears.world.send(discover(BARE), BARE)
    assert len(ears.take()) == 1


def test_an_agent_that_does_not_read_loses_questions_and_no_more(ears: Ears) -> None:
    """The ring fills; what comes then is dropped and counted, and what is in it is whole."""
    ports = ears.world.bpf.table("ports")
    row, told = ports.get(A.key), []
    long = eth(BROADCAST, A.mac, IPV4, ip("0.0.0.0", "255.255.255.255", UDP, udp(68, 67, b"x" * 1400)))
    for vlan in range(100, 900):
        ports.put({r.PortKey(A.key.ifindex, vlan): row})
        told.append(ears.world.send(eth(long[:6], long[6:12], IPV4, long[14:], vlan=vlan)).drop)
        ports.delete([r.PortKey(A.key.ifindex, vlan)])
    assert told[-1] == "NO_SERVICE"
    assert [frame for _, frame in ears.take()] == [long] * told.count(None)
    assert ears.world.send(discover(A)).drop is None


# Names: what is asked of a router or of what stands in for one.


@pytest.fixture
def names(ears: Ears) -> Ears:
    """Whom ports ask: as `plan.service` makes it."""
    place = r.Place(r.PlaceKind.ROUTER, router=NO_ROUTER)
    for server in (RESOLVER, RESOLVER6, str(SERVICE_IP)):
        for network in (RED, GREY):
            ears.world.put("endpoints", {r.EndpointKey(network, r.pack_ip(server)): r.Endpoint(place, SERVICE_MAC)})
    ears.world.put("macs", {r.MacKey(RED, SERVICE_MAC): place})
    ears.world.put("interfaces", {r.InterfaceKey(RED, NO_ROUTER): r.Interface(SERVICE_MAC, (r.pack_ip(RESOLVER),) * 2)})
    ears.serve(r.PortFlag.NAMES)
    return ears


def query(who: Who = A, to: bytes = SERVICE_MAC, dst: str = RESOLVER, port: int = 53) -> bytes:
    return frame_to(who, to, dst, UDP, udp(40000, port, b"x" * 20))


NAMED = {
    "its router": query(to=gateway(RED).mac, dst=gateway(RED).ip4),
    "its router, IPv6": query(to=gateway(RED).mac, dst=gateway(RED).ip6),
    "a resolver behind its router": query(to=gateway(RED).mac),
    "a resolver": query(),
    "a resolver, IPv6": query(dst=RESOLVER6),
    "the link-local one": query(dst=str(SERVICE_IP)),
}
OTHERS = {
    "a port of its network": query(to=B.mac, dst=B.ip4),
    "one elsewhere": query(to=gateway(RED).mac, dst="198.51.100.53"),
    "another service": query(port=54),
}


@pytest.mark.parametrize("sent", NAMED.values(), ids=NAMED.keys())
def test_who_asks_a_router_for_a_name_asks_the_agent(names: Ears, sent: bytes) -> None:
    assert names.world.send(sent).verdict == STOLEN
    assert names.take() == [(A.key, sent)]


@pytest.mark.parametrize("sent", OTHERS.values(), ids=OTHERS.keys())
def test_who_asks_another_for_a_name_asks_that_one(names: Ears, sent: bytes) -> None:
    names.world.send(sent)
    assert names.take() == []


@pytest.mark.parametrize("v", [4, 6])
def test_a_server_behind_ones_router_is_that_of_whoever_has_it(names: Ears, v: int) -> None:
    """Though the host's own name server has the same address."""
    place = r.Place(r.PlaceKind.ROUTER, router=NO_ROUTER)
    names.world.put("endpoints", {r.EndpointKey(RED, r.pack_ip(D.ip(v))): r.Endpoint(place, SERVICE_MAC)})
    done = names.world.send(query(to=gateway(RED).mac, dst=D.ip(v)))
    assert (done.to, names.take()) == (D.device, [])
    # Where no router joins the two it is the host's.
    assert names.world.send(query(dst=D.ip(v))).verdict == STOLEN


def test_a_port_that_may_not_ask_for_names_does_not(names: Ears) -> None:
    names.world.policy(A.identity)
    assert names.world.send(query()).drop == "POLICY_OUT"
    names.world.policy(A.identity, any_rule(A.identity, r.Way.OUT, proto=17, port=53))
    assert names.world.send(query()).verdict == STOLEN
    assert len(names.take()) == 1


def test_who_asks_for_names_without_end_keeps_its_addresses(names: Ears) -> None:
    """Names are counted by themselves: DHCP is heard all the same."""
    names.serve(BOTH | r.PortFlag.NAMES)
    assert not names.world.send(query(), repeat=100).drops
    dropped = names.world.send(query(), repeat=400).drops
    assert dropped.keys() == {("da", "NO_SERVICE")}
    assert len(names.take()) == 500 - sum(dropped.values())
    assert names.world.send(discover(A)).verdict == STOLEN


@pytest.mark.parametrize("v", [4, 6])
def test_beyond_what_stands_in_for_a_router_is_no_way(names: Ears, v: int) -> None:
    """Who tries is told at once, as by a router."""
    sent = frame_to(A, SERVICE_MAC, "198.51.100.1" if v == 4 else "2001:db8:1::1", UDP, udp(1, 80))
    done = names.world.send(sent)
    assert (done.to, set(done.drops.values()), [why for _, why in done.drops]) == ("da", {1}, ["NO_ROUTE"])
    assert done.packet[12:14] == (b"\x08\x00" if v == 4 else b"\x86\xdd")


def test_a_provider_network_tells_its_own_neighbours_of_a_resolver_there(names: Ears) -> None:
    """It may have one of its own at that address: those outside answer."""
    assert names.world.send(arp(1, PUBLIC.mac, PUBLIC.ip4, RESOLVER), PUBLIC).to == "uplink"
    told = names.world.send(arp(1, A.mac, A.ip4, RESOLVER))
    assert (told.to, told.packet) == ("da", arp(2, SERVICE_MAC, RESOLVER, A.ip4, A.mac, A.mac))


RING, LONG = 1 << 20, 1400


def long_query(who: Who = A, **tag: int) -> bytes:
    sent = frame_to(who, SERVICE_MAC, RESOLVER, UDP, udp(40000, 53, b"x" * LONG))
    return eth(sent[:6], sent[6:12], IPV4, sent[14:], **tag) if tag else sent


def test_a_port_fills_its_share_of_the_ring_and_no_more(names: Ears) -> None:
    names.serve(BOTH | r.PortFlag.NAMES)
    told = [names.world.send(long_query()).drop for _ in range(100)]
    size = len(long_query()) + 12 + 8  # with what the agent is told of it
    most = next(n for n in range(1000) if (n + 1) * size > (RING - n * size) / 8)
    assert told == [None] * most + ["PUNT_SHARE"] * (100 - most)
    assert names.world.send(query(B), B).drop is None
    # As soon as the agent has read them it may ask again.
    assert [port for port, _ in names.take()] == [A.key] * most + [B.key]
    assert names.world.send(discover(A)).drop is None


def test_the_share_of_a_port_follows_what_is_read(names: Ears) -> None:
    """It is never taken for more than it has, however long it goes on."""
    for _ in range(4):
        assert [names.world.send(long_query()).drop for _ in range(20)] == [None] * 20
        assert len(names.take()) == 20


def test_however_many_ask_without_end_there_is_room_for_another(names: Ears) -> None:
    ports = names.world.bpf.table("ports")
    row = ports.get(A.key)
    vlans = range(100, 117)
    ports.put({r.PortKey(A.key.ifindex, vlan): row for vlan in vlans})
    for _ in range(60):
        for vlan in vlans:
            names.world.send(long_query(vlan=vlan))
    for _ in range(5):
        assert names.world.send(query(B), B).drop is None
    heard = [port for port, _ in names.take()]
    assert heard[-5:] == [B.key] * 5
    each = [heard.count(r.PortKey(A.key.ifindex, vlan)) for vlan in vlans]
    assert max(each) - min(each) <= 1, each
    ports.delete([r.PortKey(A.key.ifindex, vlan) for vlan in vlans])
