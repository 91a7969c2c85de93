"""From network to network, and what a router tells a sender whose packet goes no further."""

from __future__ import annotations

import time
from typing import NamedTuple

import pytest

from bpf.packets import (
    GRE,
    ICMP,
    ICMPV6,
    IPV4,
    IPV6,
    MF,
    SYN,
    TCP,
    UDP,
    Packet,
    echo,
    eth,
    family,
    icmp,
    ip,
    ipv6_fragment,
    ns,
    tcp,
    udp,
)  # fmt: skip
from bpf.world import AWAY, BLUE, FAR, MTU, RED, ROUTER, A, B, D, Sent, Who, World, frame, frame_to, gateway
from crossway.kernel.bpf import REDIRECT, SHOT
from crossway.model import rows as r
from crossway.plan.address import link_local

GATEWAY = gateway(RED)
UNREACHABLE, EXCEEDED, BROKEN = 3, 11, 12
NOWHERE = {4: "198.51.100.1", 6: "2001:db8::1"}


def routed(src: Who, dst: Who, proto: int, body: bytes, v: int = 4, **options: int) -> bytes:
    return frame(src, dst, proto, body, v, to=gateway(src.network), **options)


@pytest.mark.parametrize("v", [4, 6])
@pytest.mark.parametrize("to", [D, AWAY, B], ids=["here", "another host", "back into the same network"])
@pytest.mark.parametrize("ttl", [64, 2])
def test_one_router(w: World, to: Who, v: int, ttl: int) -> None:
    done = w.send(routed(A, to, UDP, udp(1, 2), v, ttl=ttl))
    assert (done.verdict, done.to, done.drop) == (REDIRECT, to.device or "vxlan", None)
    assert done.flight["network"] == to.network
    packet = Packet(done.packet)
    assert (packet.src_mac, packet.dst_mac, packet.ttl) == (gateway(to.network).mac, to.mac, ttl - 1)
    expected = frame(A, to, UDP, udp(1, 2), v, ttl=ttl - 1)
    assert done.packet[14:] == expected[14:]


@pytest.mark.parametrize("checksum", [0x0000, 0x0001, 0x00FE, 0x00FF, 0x0100, 0xFEFE, 0xFEFF, 0xFF00, 0xFFFE])
def test_the_header_checksum_holds_whatever_it_was(w: World, checksum: int) -> None:
    base = int.from_bytes(routed(A, D, UDP, udp(1, 2), id=0)[24:26], "big")
    id = (base - checksum) % 0xFFFF  # a half-word more is as much less in the sum
    sent = routed(A, D, UDP, udp(1, 2), id=id)
    assert int.from_bytes(sent[24:26], "big") % 0xFFFF == checksum % 0xFFFF
    Packet(w.send(sent).packet)


class Chain(NamedTuple):
    """Routers 101, 102 … between RED and the network of `end`, each with a transit network behind it."""

    feet: list[Who]  # by which the packet enters each router
    end: Who


def chain(w: World, length: int) -> Chain:
    """Join RED to BLUE by that many routers; every router knows the way on and back."""
    networks = [RED, *range(201, 201 + length - 1), BLUE]
    for n in networks[1:-1]:
        w.put("networks", {n: r.Network(MTU, 0)})
    feet = []
    for i in range(length):
        number, left, right = 101 + i, networks[i], networks[i + 1]
        left_foot, right_foot = transit(left, 100), transit(right, 101 if right != BLUE else 102)
        w.router(number, {left: left_foot, right: right_foot})
        feet.append(left_foot)
        if i + 1 < length:
            on = transit(right, 100)
            for dst, bits in ((AWAY.ip4, 96 + 24), (AWAY.ip6, 64)):
                network = r.pack_ip(dst)[: bits // 8] + bytes(16 - bits // 8)
                via = r.pack_ip(on.ip4 if "." in dst else on.ip6)
                w.put("routes", {r.RouteKey(32 + bits, number, network): r.Route(r.RouteKind.VIA, right, via)})
        if i:
            back = transit(left, 101)
            for src, bits in ((A.ip4, 96 + 24), (A.ip6, 64)):
                lead(
                    w,
                    number,
                    src,
                    bits,
                    r.Route(r.RouteKind.VIA, left, r.pack_ip(back.ip4 if "." in src else back.ip6)),
                )
    return Chain(feet, AWAY)


def lead(w: World, router: int, ip: str, bits: int, to: r.Route) -> None:
    """Give a router a route to the prefix of that many bits, of 128, that an address is in."""
    raw = int.from_bytes(r.pack_ip(ip), "big") >> 128 - bits << 128 - bits
    w.put("routes", {r.RouteKey(32 + bits, router, raw.to_bytes(16, "big")): to})


class Foot(Who):
    """A router's foot in a network between routers."""

    @property
    def ip4(self) -> str:
        return f"10.{self.network}.0.{self.number}" if self.network > 200 else super().ip4

    @property
    def ip6(self) -> str:
        return f"fd{self.network % 100:02x}:2::{self.number}" if self.network > 200 else super().ip6


def transit(network: int, number: int) -> Foot:
    return Foot(network, number, 0, None)


@pytest.mark.parametrize("v", [4, 6])
@pytest.mark.parametrize("routers", range(1, 9))
def test_several_routers(w: World, routers: int, v: int) -> None:
    feet, end = chain(w, routers)
    done = w.send(frame(A, end, UDP, udp(1, 2), v, to=feet[0]))
    assert (done.verdict, done.to, done.drop) == (REDIRECT, "vxlan", None)
    packet = Packet(done.packet)
    last = transit(BLUE, 102)
    assert (packet.ttl, packet.dst_mac, packet.src_mac) == (64 - routers, end.mac, last.mac)
    assert done.flight["network"] == BLUE


@pytest.mark.parametrize("v", [4, 6])
def test_each_router_shows_itself_to_traceroute(w: World, v: int) -> None:
    feet, end = chain(w, 8)
    for ttl in range(1, 9):
        sent = frame(A, end, UDP, udp(1, 33434), v, to=feet[0], ttl=ttl)
        done = w.send(sent)
        assert done.drops == {(A.device, "TTL"): 1}
        told = error(done, sent, v)
        assert (told.src, told.icmp) == (feet[ttl - 1].ip(v), (EXCEEDED, 0) if v == 4 else (3, 0))
    assert w.send(frame(A, end, UDP, udp(1, 33434), v, to=feet[0], ttl=9)).passed


@pytest.mark.parametrize("v", [4, 6])
def test_a_ninth_router_is_too_many(w: World, v: int) -> None:
    feet, end = chain(w, 9)
    sent = frame(A, end, UDP, udp(1, 2), v, to=feet[0])
    done = w.send(sent)
    assert done.drop == "TOO_MANY_ROUTERS"
    assert error(done, sent, v).icmp == ((EXCEEDED, 0) if v == 4 else (3, 0))


def loop(w: World) -> Who:
    """Let routers 101 and 102 send 203.0.113.0/24 and 2001:db8::/32 to each other; return the way in."""
    one, two = transit(RED, 100), transit(RED, 101)
    for number, foot, to in ((101, one, two), (102, two, one)):
        w.router(number, {RED: foot})
        for prefix, bits, via in (("203.0.113.0", 120, to.ip4), ("2001:db8::", 32, to.ip6)):
            lead(w, number, prefix, bits, r.Route(r.RouteKind.VIA, RED, r.pack_ip(via)))
    return one


@pytest.mark.parametrize("v", [4, 6])
@pytest.mark.parametrize("ttl", [1, 2, 3, 8, 9, 64, 255])
def test_a_routing_loop_ends(w: World, v: int, ttl: int) -> None:
    into = loop(w)
    sent = frame_to(A, into.mac, "203.0.113.9" if v == 4 else "2001:db8::9", UDP, udp(1, 2), ttl=ttl)
    done = w.send(sent)
    assert done.drop == ("TTL" if ttl <= 8 else "TOO_MANY_ROUTERS")
    assert error(done, sent, v).icmp == ((EXCEEDED, 0) if v == 4 else (3, 0))


def test_a_packet_that_comes_round_to_its_first_router_goes_no_further(w: World) -> None:
    one, two, into = transit(201, 1), transit(201, 2), transit(RED, 100)
    w.put("networks", {201: r.Network(MTU, 0)})
    w.router(101, {RED: into, 201: one})
    w.router(102, {201: two})
    lead(w, 101, "203.0.113.0", 120, r.Route(r.RouteKind.VIA, 201, r.pack_ip(two.ip4)))
    lead(w, 102, "203.0.113.0", 120, r.Route(r.RouteKind.VIA, 201, r.pack_ip(one.ip4)))
    lead(w, 102, A.ip4, 120, r.Route(r.RouteKind.VIA, 201, r.pack_ip(one.ip4)))
    sent = frame_to(A, into.mac, "203.0.113.9", UDP, udp(1, 2))
    done = w.send(sent)
    assert done.drop == "REVERSE_PATH"
    told = error(done, sent, 4)
    assert (told.src, told.icmp) == (one.ip4, (UNREACHABLE, 13))


# ---- Where a packet may have come from.


def unguarded(w: World) -> None:
    """Take port security off A, so that it may say that it is anybody."""
    w.add(A._replace(secured=False))


def says(src: str, dst: Who = D, to: Who = GATEWAY) -> bytes:
    v = family(src)
    return eth(to.mac, A.mac, IPV4 if v == 4 else IPV6, ip(src, dst.ip(v), UDP, udp(1, 2)))


FORGED = {
    "of the network that it goes to": [AWAY.ip4, AWAY.ip6],
    "of nobody's network": ["198.51.100.1", "2001:db8::1"],
    "of the router there": [gateway(BLUE).ip4, gateway(BLUE).ip6],
    "of the router here": [GATEWAY.ip4, GATEWAY.ip6],
    "of a loopback": ["127.0.0.1", "::1"],
    "of a group": ["224.0.0.5", "ff05::5"],
    "of nothing": ["0.0.0.0", "::"],
}


@pytest.mark.parametrize("what", FORGED)
@pytest.mark.parametrize("v", [0, 1], ids=["IPv4", "IPv6"])
def test_a_router_takes_no_source_that_is_not_behind_the_network_it_came_from(w: World, what: str, v: int) -> None:
    unguarded(w)
    lead(w, ROUTER, "0.0.0.0", 96, r.Route(r.RouteKind.VIA, BLUE, r.pack_ip(AWAY.ip4)))
    lead(w, ROUTER, "2000::", 3, r.Route(r.RouteKind.VIA, BLUE, r.pack_ip(AWAY.ip6)))
    sent = says(FORGED[what][v])
    done = w.send(sent)
    assert done.drop == "REVERSE_PATH"
    if what in ("of a group", "of nothing"):
        assert done.verdict == SHOT
    else:  # whoever sent it is told, not whose address that is
        assert error(done, sent, 6 if v else 4).icmp == ((1, 5) if v else (UNREACHABLE, 13))


@pytest.mark.parametrize("src", [B.ip4, B.ip6, "10.0.0.200", "fd00::200"])
def test_a_router_takes_any_source_of_the_network_that_it_came_from(w: World, src: str) -> None:
    unguarded(w)
    assert w.send(says(src)).passed


@pytest.mark.parametrize("v", [4, 6])
def test_a_router_takes_what_it_would_send_back_by_a_next_hop_there(w: World, v: int) -> None:
    """A port that routes: all behind it comes by it, and by no other network."""
    unguarded(w)
    lead(w, ROUTER, NOWHERE[v], 120, r.Route(r.RouteKind.VIA, RED, r.pack_ip(A.ip(v))))
    assert w.send(says(NOWHERE[v])).passed
    lead(w, ROUTER, NOWHERE[v], 120, r.Route(r.RouteKind.VIA, BLUE, r.pack_ip(D.ip(v))))
    assert w.send(says(NOWHERE[v])).drop == "REVERSE_PATH"
    lead(w, ROUTER, NOWHERE[v], 120, r.Route(r.RouteKind.BLACKHOLE))
    assert w.send(says(NOWHERE[v])).drop == "REVERSE_PATH"


@pytest.mark.parametrize("v", [4, 6])
def test_a_router_takes_what_comes_by_any_of_several_next_hops(w: World, v: int) -> None:
    unguarded(w)
    source = ways(w, v, AWAY, D, A)[0]
    assert w.send(says(source)).passed
    source = ways(w, v, AWAY, D)[0]
    assert w.send(says(source)).drop == "REVERSE_PATH"


@pytest.mark.parametrize("v", [4, 6])
def test_a_router_takes_an_address_pair_that_it_knows_the_way_back_to(w: World, v: int) -> None:
    w.put(
        "sources", {r.SourceKey(128 + (96 if v == 4 else 0), A.key, A.mac, r.pack_ip("0.0.0.0" if v == 4 else "::")): 1}
    )
    assert w.send(says(B.ip(v))).passed
    assert w.send(says(NOWHERE[v])).drop == "REVERSE_PATH"
    assert w.send(says(AWAY.ip(v))).drop == "REVERSE_PATH"
    lead(w, ROUTER, NOWHERE[v], 120, r.Route(r.RouteKind.VIA, RED, r.pack_ip(A.ip(v))))
    assert w.send(says(NOWHERE[v])).passed


@pytest.mark.parametrize("v", [4, 6])
def test_a_port_may_send_as_itself_where_its_router_has_no_subnet_of_its_own(w: World, v: int) -> None:
    w.delete("routes", *[k for k, row in w.bpf.table("routes").read().items() if row.network == RED])
    assert w.send(says(A.ip(v))).passed


@pytest.mark.parametrize("v", [4, 6])
@pytest.mark.parametrize("bad", range(1, 4))
def test_each_router_on_the_way_looks(w: World, bad: int, v: int) -> None:
    feet, end = chain(w, 4)
    assert w.send(frame(A, end, UDP, udp(1, 2), v, to=feet[0])).passed
    gone = [k for k, row in w.bpf.table("routes").read().items() if (k.router, row.kind) == (101 + bad, r.RouteKind.VIA)
            and row.network == feet[bad].network]  # fmt: skip
    w.delete("routes", *gone)
    assert w.send(frame(A, end, UDP, udp(1, 2), v, to=feet[0])).drop == "REVERSE_PATH"


@pytest.mark.parametrize("v", [4, 6])
def test_fragments_are_held_to_the_way_back_as_well(w: World, v: int) -> None:
    unguarded(w)
    first = udp(1, 2, bytes(24))
    packet = (
        ip(NOWHERE[4], D.ip4, UDP, first, id=1, fragment=MF)
        if v == 4
        else ip(NOWHERE[6], D.ip6, 44, ipv6_fragment(UDP, 0, True, 1, first))
    )
    assert w.send(eth(GATEWAY.mac, A.mac, IPV4 if v == 4 else IPV6, packet)).drop == "REVERSE_PATH"


# ---- What a router tells the sender.


def error(done: Sent, sent: bytes, v: int, quoted: int = 256) -> Packet:
    """Return the ICMP error that went back to who sent a frame: all of it must be right."""
    assert (done.verdict, done.to) == (REDIRECT, A.device)
    told = Packet(done.packet)  # checks its checksums
    assert (told.dst_mac, told.src_mac) == (sent[6:12], sent[:6])
    assert (told.proto, told.ttl) == (ICMP if v == 4 else ICMPV6, 64)
    assert told.dst == Packet(sent).src
    assert len(done.packet) == 14 + told.length
    assert told.payload[8:] == sent[14 : 14 + quoted]
    return told


@pytest.mark.parametrize("v", [4, 6])
@pytest.mark.parametrize("size", [0, 1, 2, 3, 100, 1000])
@pytest.mark.parametrize("proto", [UDP, TCP, GRE])
def test_time_exceeded(w: World, v: int, size: int, proto: int) -> None:
    body = {UDP: udp(1, 2, b"x" * size), TCP: tcp(1, 2, SYN, b"x" * size), GRE: b"x" * size}[proto]
    sent = routed(A, D, proto, body, v, ttl=1)
    told = error(w.send(sent), sent, v)
    assert (told.icmp, told.payload[4:8]) == ((EXCEEDED, 0) if v == 4 else (3, 0), bytes(4))
    assert told.src == GATEWAY.ip(v)


def test_ip_options_are_quoted(w: World) -> None:
    sent = frame(A, D, UDP, udp(1, 2), to=GATEWAY, options=b"\x94\4\0\0", ttl=1)
    error(w.send(sent), sent, 4)


@pytest.mark.parametrize("v", [4, 6])
def test_no_route(w: World, v: int) -> None:
    sent = frame_to(A, GATEWAY.mac, NOWHERE[v], UDP, udp(1, 2))
    done = w.send(sent)
    assert done.drop == "NO_ROUTE"
    assert error(done, sent, v).icmp == ((UNREACHABLE, 0) if v == 4 else (1, 0))


@pytest.mark.parametrize("v", [4, 6])
def test_a_router_without_an_address_of_the_family_reports_all_the_same(w: World, v: int) -> None:
    """It says so as its link-local address, or as the dummy of RFC 7600."""
    key = r.InterfaceKey(RED, ROUTER)
    foot = w.bpf.table("interfaces").get(key)
    ips = tuple(bytes(16) if (4 if ip.startswith(r.MAPPED) else 6) == v else ip for ip in foot.ip)
    w.put("interfaces", {key: foot._replace(ip=ips)})
    sent = frame_to(A, GATEWAY.mac, NOWHERE[v], UDP, udp(1, 2))
    done = w.send(sent)
    assert done.drop == "NO_ROUTE"
    told = error(done, sent, v)
    assert told.icmp == ((UNREACHABLE, 0) if v == 4 else (1, 0))
    assert told.src == ("192.0.0.8" if v == 4 else r.unpack_ip(link_local(GATEWAY.mac)))


@pytest.mark.parametrize("v", [4, 6])
def test_a_black_hole_is_no_route(w: World, v: int) -> None:
    key = r.RouteKey(160, ROUTER, r.pack_ip(NOWHERE[v]))
    w.put("routes", {key: r.Route(r.RouteKind.BLACKHOLE)})
    assert w.send(frame_to(A, GATEWAY.mac, NOWHERE[v], UDP, udp(1, 2))).drop == "NO_ROUTE"


@pytest.mark.parametrize("v", [4, 6])
def test_the_longest_prefix_wins(w: World, v: int) -> None:
    bits = 96 if v == 4 else 0
    w.put("routes", {r.RouteKey(32 + bits, ROUTER, r.pack_ip("0.0.0.0") if v == 4 else bytes(16)):
                     r.Route(r.RouteKind.VIA, BLUE, r.pack_ip(AWAY.ip(v)))})  # fmt: skip
    assert Packet(w.send(frame_to(A, GATEWAY.mac, NOWHERE[v], UDP, udp(1, 2))).packet).dst_mac == AWAY.mac
    narrow = r.RouteKey(160, ROUTER, r.pack_ip(NOWHERE[v]))
    w.put("routes", {narrow: r.Route(r.RouteKind.VIA, BLUE, r.pack_ip(D.ip(v)))})
    assert Packet(w.send(frame_to(A, GATEWAY.mac, NOWHERE[v], UDP, udp(1, 2))).packet).dst_mac == D.mac


def ways(w: World, v: int, *hops: Who) -> list[str]:
    """Give the router several next hops for what is nowhere; return destinations that are there."""
    bits, prefix = (96 + 24, "203.0.113.0") if v == 4 else (64, "2001:db8::")
    rows = [r.Route(r.RouteKind.VIA, hop.network, r.pack_ip(hop.ip(v)), len(hops) - 1) for hop in hops]
    w.put("next_hops", {r.NextHopKey(64 + bits, ROUTER, n, r.pack_ip(prefix)): row for n, row in enumerate(rows) if n})
    w.put("routes", {r.RouteKey(32 + bits, ROUTER, r.pack_ip(prefix)): rows[0]})
    return [prefix.removesuffix("0").removesuffix("::") + (f"{n}" if v == 4 else f"::{n:x}") for n in range(1, 65)]


def by_mac(w: World, sent: bytes) -> bytes:
    done = w.send(sent)
    assert done.drop is None
    return Packet(done.packet).dst_mac


@pytest.mark.parametrize("v", [4, 6])
def test_several_next_hops_are_used_and_each_pair_of_addresses_keeps_one(w: World, v: int) -> None:
    there = ways(w, v, AWAY, D, FAR)
    by = {to: by_mac(w, frame_to(A, GATEWAY.mac, to, UDP, udp(1, 2))) for to in there}
    counts = {who.mac: list(by.values()).count(who.mac) for who in (AWAY, D, FAR)}
    assert all(count > len(there) / 8 for count in counts.values()), counts
    assert all(by_mac(w, frame_to(A, GATEWAY.mac, to, UDP, udp(port, 9))) == by[to] for to in there for port in (3, 4))


@pytest.mark.parametrize("v", [4, 6])
@pytest.mark.parametrize("alive", [0, 1, 8, 15])
def test_a_next_hop_that_is_nobody_is_not_used(w: World, v: int, alive: int) -> None:
    hops = [Who(BLUE, 100 + n, 0, None) for n in range(16)]
    hops[alive] = AWAY
    there = ways(w, v, *hops)
    assert {by_mac(w, frame_to(A, GATEWAY.mac, to, UDP, udp(1, 2))) for to in there} == {AWAY.mac}
    hops[alive] = Who(BLUE, 99, 0, None)
    ways(w, v, *hops)
    assert w.send(frame_to(A, GATEWAY.mac, there[0], UDP, udp(1, 2))).drop == "NO_NEIGHBOUR"


@pytest.mark.parametrize("v", [4, 6])
def test_no_neighbour(w: World, v: int) -> None:
    absent = Who(BLUE, 99, 0, None)
    sent = routed(A, absent, UDP, udp(1, 2), v)
    done = w.send(sent)
    assert done.drop == "NO_NEIGHBOUR"
    assert error(done, sent, v).icmp == ((UNREACHABLE, 1) if v == 4 else (1, 3))


@pytest.mark.parametrize("v", [4, 6])
def test_larger_than_the_next_network_allows(w: World, v: int) -> None:
    w.put("networks", {BLUE: r.Network(1300, 0)})
    head = (20 if v == 4 else 40) + 8
    assert w.send(routed(A, D, UDP, udp(1, 2, bytes(1300 - head)), v)).passed
    sent = routed(A, D, UDP, udp(1, 2, bytes(1300 - head + 1)), v)
    done = w.send(sent)
    assert done.drop == "TOO_BIG"
    told = error(done, sent, v)
    assert (told.icmp, told.payload[4:8]) == ((UNREACHABLE, 4) if v == 4 else (2, 0), (1300).to_bytes(4, "big"))


@pytest.mark.parametrize("v", [4, 6])
def test_a_large_segment_is_told_the_size_that_fits(w: World, v: int) -> None:
    w.put("networks", {BLUE: r.Network(1300, 0)})
    head = (20 if v == 4 else 40) + 20
    sent = routed(A, D, TCP, tcp(1, 2, data=bytes(2600)), v)
    assert w.send(sent, gso_size=1300 - head, gso_segs=3).passed
    done = w.send(sent, gso_size=1300 - head + 1, gso_segs=3)
    assert done.drop == "TOO_BIG"
    assert error(done, sent, v).payload[4:8] == (1300).to_bytes(4, "big")


def test_the_smallest_network_on_the_way_counts(w: World) -> None:
    feet, end = chain(w, 3)
    w.put("networks", {202: r.Network(1280, 0)})
    sent = frame(A, end, UDP, udp(1, 2, bytes(1300)), to=feet[0])
    told = error(w.send(sent), sent, 4)
    assert (told.src, told.payload[4:8]) == (feet[1].ip4, (1280).to_bytes(4, "big"))


@pytest.mark.parametrize("v", [4, 6])
@pytest.mark.parametrize("network", [RED, BLUE])
def test_a_router_answers_echo_on_every_address(w: World, v: int, network: int) -> None:
    request = echo(v, 77, data=b"odd")
    to = gateway(network)
    done = w.send(frame(A, to, ICMP if v == 4 else ICMPV6, request, v, to=GATEWAY, ttl=1))
    assert (done.verdict, done.to, done.drop) == (REDIRECT, A.device, None)
    expected = ip(to.ip(v), A.ip(v), ICMP if v == 4 else ICMPV6, echo(v, 77, True, b"odd"), ttl=64)
    assert done.packet == eth(A.mac, GATEWAY.mac, IPV4 if v == 4 else IPV6, expected)


def test_a_router_answers_echo_on_its_link_local_address(w: World) -> None:
    sent = eth(GATEWAY.mac, A.mac, IPV6, ip(A.link_local, GATEWAY.link_local, ICMPV6, echo(6, 5)))
    expected = ip(GATEWAY.link_local, A.link_local, ICMPV6, echo(6, 5, True))
    assert w.send(sent).packet == eth(A.mac, GATEWAY.mac, IPV6, expected)


@pytest.mark.parametrize("v", [4, 6])
def test_a_router_answers_echo_in_fragments(w: World, v: int) -> None:
    proto = ICMP if v == 4 else ICMPV6
    head = 20 if v == 4 else 40
    request = ip(A.ip(v), GATEWAY.ip(v), proto, echo(v, 9, data=bytes(1600)))[head:]
    reply = ip(GATEWAY.ip(v), A.ip(v), proto, echo(v, 9, True, bytes(1600)))[head:]

    def part(src: Who, dst: Who, body: bytes, more: bool) -> bytes:
        cut, offset = (body[:1000], 0) if more else (body[1000:], 1000)
        if v == 4:
            packet = ip(src.ip4, dst.ip4, proto, cut, id=3, fragment=offset // 8 | (MF if more else 0))
        else:
            packet = ip(src.ip6, dst.ip6, 44, ipv6_fragment(proto, offset, more, 3, cut))
        return eth(dst.mac, src.mac, IPV4 if v == 4 else IPV6, packet)

    for more in (True, False):
        done = w.send(part(A, GATEWAY, request, more))
        assert done.packet == part(GATEWAY, A, reply, more)


@pytest.mark.parametrize("v", [4, 6])
def test_a_router_has_no_udp_ports(w: World, v: int) -> None:
    sent = frame(A, GATEWAY, UDP, udp(1, 2), v)
    done = w.send(sent)
    assert done.drop == "ROUTER_SERVICE"
    told = error(done, sent, v)
    assert (told.src, told.icmp) == (GATEWAY.ip(v), (UNREACHABLE, 3) if v == 4 else (1, 4))


@pytest.mark.parametrize("v", [4, 6])
@pytest.mark.parametrize("sent", ["TCP", "echo reply", "another protocol"])
def test_a_router_serves_nothing_else(w: World, v: int, sent: str) -> None:
    proto, body = {
        "TCP": (TCP, tcp(1, 22)),
        "echo reply": (ICMP if v == 4 else ICMPV6, echo(v, reply=True)),
        "another protocol": (GRE, b"data"),
    }[sent]
    done = w.send(frame(A, GATEWAY, proto, body, v))
    assert (done.verdict, done.drop) == (SHOT, "ROUTER_SERVICE")


@pytest.mark.parametrize("v", [4, 6])
def test_what_a_port_may_not_send_does_not_reach_the_router(w: World, v: int) -> None:
    w.policy(A.identity)
    done = w.send(frame(A, GATEWAY, ICMP if v == 4 else ICMPV6, echo(v), v))
    assert (done.verdict, done.drop) == (SHOT, "POLICY_OUT")


@pytest.mark.parametrize("to", [D, AWAY])
def test_policy_holds_behind_routers(w: World, to: Who) -> None:
    w.policy(A.identity)
    assert w.send(routed(A, to, UDP, udp(1, 2))).drops == {(A.device, "POLICY_OUT"): 1}
    w.reset()
    w.policy(D.identity)
    assert w.send(routed(A, D, UDP, udp(1, 2))).drops == {(D.device, "POLICY_IN"): 1}


def quote(v: int) -> bytes:
    return ip(D.ip(v), A.ip(v), UDP, udp(1, 2))


SILENT = {
    "ICMP error": (4, ICMP, icmp(3, 1, bytes(4), quote(4)), {}),
    "ICMPv6 error": (6, ICMPV6, icmp(1, 0, bytes(4), quote(6)), {}),
    "later fragment": (4, UDP, b"x" * 64, {"fragment": 5}),
    "later fragment, IPv6": (6, 44, ipv6_fragment(UDP, 64, False, 1, b"x" * 64), {}),
}


@pytest.mark.parametrize(("v", "proto", "body", "options"), SILENT.values(), ids=SILENT)
def test_what_must_not_be_answered_is_not(w: World, v: int, proto: int, body: bytes, options: dict[str, int]) -> None:
    # Later fragments are judged when their first one is known.
    w.send(routed(A, D, UDP, udp(1, 2, bytes(24)), 4, fragment=MF))
    w.send(routed(A, D, 44, ipv6_fragment(UDP, 0, True, 1, udp(1, 2, bytes(24))), 6))
    done = w.send(routed(A, D, proto, body, v, ttl=1, **options))
    assert (done.verdict, done.drop) == (SHOT, "TTL")


def test_a_port_causes_only_so_many_errors(w: World) -> None:
    sent = routed(B, D, UDP, udp(1, 2), ttl=1)
    start = time.monotonic()
    verdicts = [w.bpf.run("from_workload", sent, ifindex=B.key.ifindex).verdict for _ in range(3000)]
    answered, seconds = verdicts.count(REDIRECT), time.monotonic() - start
    assert verdicts[:256] == [REDIRECT] * 256
    assert answered <= min(3000, 260 + 1000 * seconds)
    assert w.send(routed(A, D, UDP, udp(1, 2), ttl=1)).verdict == REDIRECT  # another port's budget is its own


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (eth(GATEWAY.mac, A.mac, IPV6, ip(A.link_local, D.ip6, UDP, udp(1, 2))), "NO_ROUTE"),
        (frame_to(A, GATEWAY.mac, "fe80::9", UDP, udp(1, 2)), "NO_ROUTE"),
        (frame_to(A, GATEWAY.mac, "224.0.0.5", UDP, udp(1, 2)), "NO_ROUTE"),
        (frame_to(A, GATEWAY.mac, "ff0e::5", UDP, udp(1, 2)), "NO_ROUTE"),
    ],
    ids=["from link-local", "to link-local", "to a group", "to a group, IPv6"],
)
def test_what_no_router_forwards(w: World, sent: bytes, why: str) -> None:
    assert w.send(sent).drop == why


def test_a_link_local_source_is_told_that_it_is_beyond_scope(w: World) -> None:
    sent = eth(GATEWAY.mac, A.mac, IPV6, ip(A.link_local, D.ip6, UDP, udp(1, 2)))
    assert error(w.send(sent), sent, 6).icmp == (1, 2)


@pytest.mark.parametrize("gone", ["networks", "interfaces"])
def test_rows_that_are_not_there_yet_stop_a_packet(w: World, gone: str) -> None:
    w.delete(gone, BLUE if gone == "networks" else r.InterfaceKey(BLUE, ROUTER))
    assert w.send(routed(A, D, UDP, udp(1, 2))).drop == ("NO_NETWORK" if gone == "networks" else "ERROR")


def test_a_solicitation_to_the_routers_mac_is_answered_not_routed(w: World) -> None:
    assert w.send(ns(A.mac, A.ip6, GATEWAY.ip6, dst=GATEWAY.ip6, to=GATEWAY.mac)).packet[54] == 136
