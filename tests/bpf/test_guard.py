"""What a secured port may say, and under which reason the rest is dropped."""

from __future__ import annotations

import pytest

from bpf.packets import (
    ARP,
    BROADCAST,
    GRE,
    ICMP,
    ICMPV6,
    IPV4,
    IPV6,
    MF,
    TCP,
    UDP,
    VLAN,
    arp,
    eth,
    icmp,
    ip,
    ipv6_fragment,
    mac,
    na,
    ns,
    option,
    raw,
    tcp,
    udp,
)  # fmt: skip
from bpf.world import BARE, CLEAR, FAR, RED, STOLEN, TAGGED, A, B, D, World, any_rule, frame, frame_to, gateway
from crossway.kernel.bpf import REDIRECT, SHOT
from crossway.model import rows as r

OTHER_MAC = mac("02:00:00:00:00:99")
ALL_NODES = mac("33:33:00:00:00:01")
ALL_SERVERS = mac("33:33:00:01:00:02")


def from_a(packet: bytes, proto: int = IPV4, *, src: bytes = A.mac, dst: bytes = B.mac) -> bytes:
    return eth(dst, src, proto, packet)


def six(next: int, body: bytes, src: str = A.ip6, dst: str = B.ip6, **options: int) -> bytes:
    return from_a(ip(src, dst, next, body, **options), IPV6)


def extension(next: int, body: bytes, words: int = 0) -> bytes:
    return bytes((next, words)) + bytes(6 + 8 * words) + body


PASSES = {
    "own IPv4": frame(A, B, UDP, udp(1, 2)),
    "own IPv6": frame(A, B, UDP, udp(1, 2), 6),
    "own link-local address": six(UDP, udp(1, 2), A.link_local, B.link_local),
    "IPv4 options": frame(A, B, UDP, udp(1, 2), options=b"\x94\4\0\0"),
    "another protocol": frame(A, B, GRE, b"anything"),
    "hop-by-hop options": six(0, extension(UDP, udp(1, 2))),
    "destination options, twice": six(60, extension(60, extension(UDP, udp(1, 2)))),
    "long destination options": six(60, extension(TCP, tcp(1, 2), 12)),
    "routing header of type 4": six(43, bytes((UDP, 0, 4, 0)) + bytes(4) + udp(1, 2)),
    "authentication header": six(51, bytes((UDP, 1)) + bytes(10) + udp(1, 2)),
    "no next header": six(59, b""),
    "DHCP client to a server it knows": frame(A, B, UDP, udp(68, 67)),
    "DHCP server to a relay": frame(A, B, UDP, udp(67, 67)),
    "DHCPv6 server to a relay": six(UDP, udp(547, 547)),
    "another protocol to a client's number": frame(A, B, TCP, tcp(1067, 68)),
    "DHCPv6's number over IPv4": frame(A, B, UDP, udp(1547, 546)),
    "DHCP's number over IPv6": six(UDP, udp(1067, 68)),
}


@pytest.mark.parametrize("sent", PASSES.values(), ids=PASSES)
def test_own_packets_pass(w: World, sent: bytes) -> None:
    done = w.send(sent)
    assert (done.verdict, done.to, done.drop) == (REDIRECT, B.device, None)
    assert done.packet == sent


DROPS = {
    # Sources.
    "source MAC": (from_a(ip(A.ip4, B.ip4, UDP, udp(1, 2)), src=OTHER_MAC), "SPOOFED_MAC"),
    "source MAC of a group": (from_a(ip(A.ip4, B.ip4, UDP, udp(1, 2)), src=b"\3" + A.mac[1:]), "SPOOFED_MAC"),
    "source MAC of IPv6": (from_a(ip(A.ip6, B.ip6, UDP, udp(1, 2)), IPV6, src=OTHER_MAC), "SPOOFED_MAC"),
    "source MAC of nothing known": (from_a(b"data" * 20, 0x88B5, src=OTHER_MAC), "SPOOFED_MAC"),
    "IPv4 of a neighbour": (from_a(ip(B.ip4, B.ip4, UDP, udp(1, 2))), "SPOOFED_IPV4"),
    "IPv4 of nobody": (from_a(ip("10.9.9.9", B.ip4, TCP, tcp(1, 2))), "SPOOFED_IPV4"),
    "IPv4 broadcast": (from_a(ip("255.255.255.255", B.ip4, UDP, udp(1, 2))), "SPOOFED_IPV4"),
    "IPv4 unspecified": (from_a(ip("0.0.0.0", B.ip4, UDP, udp(1, 2))), "SPOOFED_IPV4"),
    "IPv4 unspecified, TCP": (from_a(ip("0.0.0.0", B.ip4, TCP, tcp(68, 67))), "SPOOFED_IPV4"),
    "IPv4 of a neighbour, fragment": (from_a(ip(B.ip4, B.ip4, UDP, b"x" * 16, fragment=2)), "SPOOFED_IPV4"),
    "IPv6 of a neighbour": (six(UDP, udp(1, 2), B.ip6), "SPOOFED_IPV6"),
    "IPv6 unspecified": (six(UDP, udp(1, 2), "::"), "SPOOFED_IPV6"),
    "IPv6 unspecified echo": (six(ICMPV6, icmp(128), "::"), "SPOOFED_IPV6"),
    "IPv6 multicast": (six(UDP, udp(1, 2), "ff02::1"), "SPOOFED_IPV6"),
    "IPv6 of a neighbour behind options": (six(0, extension(TCP, tcp(1, 2)), B.ip6), "SPOOFED_IPV6"),
    "unspecified listener report, other MAC": (
        eth(ALL_NODES, OTHER_MAC, IPV6, ip("::", "ff02::16", ICMPV6, icmp(143))), "SPOOFED_MAC"),
    "IPv4 address in IPv6": (from_a(
        ip("::1", B.ip6, UDP, udp(1, 2)).replace(raw("::1"), raw("::ffff:" + A.ip4), 1), IPV6), "MALFORMED"),
    "to an IPv4 address in IPv6": (six(UDP, udp(1, 2), dst="::ffff:" + B.ip4), "MALFORMED"),
    # VLAN tags.
    "tag": (eth(B.mac, A.mac, IPV4, ip(A.ip4, B.ip4, UDP, udp(1, 2)), vlan=5), "SPOOFED_VLAN"),
    "priority tag": (eth(B.mac, A.mac, IPV4, ip(A.ip4, B.ip4, UDP, udp(1, 2)), vlan=0), "SPOOFED_VLAN"),
    "provider's tag": (eth(B.mac, A.mac, 0x88A8, b"\0\5\x08\0" + ip(A.ip4, B.ip4, UDP, udp(1, 2))), "SPOOFED_VLAN"),
    "two tags": (eth(B.mac, A.mac, VLAN, b"\0\6\x08\0" + ip(A.ip4, B.ip4, UDP, udp(1, 2)), vlan=5), "SPOOFED_VLAN"),
    # ARP.
    "ARP for a neighbour": (arp(1, A.mac, B.ip4, FAR.ip4), "SPOOFED_ARP"),
    "ARP answer for a neighbour": (arp(2, A.mac, B.ip4, FAR.ip4, FAR.mac, FAR.mac), "SPOOFED_ARP"),
    "ARP with another MAC inside": (arp(1, OTHER_MAC, A.ip4, B.ip4, src=A.mac), "SPOOFED_ARP"),
    "ARP with another MAC": (arp(1, OTHER_MAC, A.ip4, B.ip4), "SPOOFED_MAC"),
    "ARP probe with another MAC": (arp(1, OTHER_MAC, "0.0.0.0", B.ip4), "SPOOFED_MAC"),
    "ARP answer for nobody": (arp(2, A.mac, "0.0.0.0", B.ip4, B.mac, B.mac), "SPOOFED_ARP"),
    "gratuitous ARP for a neighbour": (arp(1, A.mac, B.ip4, B.ip4), "SPOOFED_ARP"),
    "gratuitous ARP for the gateway": (arp(2, A.mac, gateway(RED).ip4, gateway(RED).ip4), "SPOOFED_ARP"),
    "ARP of another protocol": (eth(BROADCAST, A.mac, ARP, b"\0\1\x86\xdd\6\x10\0\1" + bytes(20)), "MALFORMED"),
    "short ARP": (eth(BROADCAST, A.mac, ARP, b"\0\1\x08\0\6\4\0\1" + bytes(19)), "SHORT"),
    # Neighbour discovery.
    "NS with another source MAC": (ns(A.mac, A.ip6, B.ip6, slla=OTHER_MAC), "SPOOFED_ND"),
    "NS of a neighbour": (ns(A.mac, B.ip6, FAR.ip6), "SPOOFED_IPV6"),
    "NS with another MAC": (ns(OTHER_MAC, A.ip6, B.ip6), "SPOOFED_MAC"),
    "DAD with another MAC": (ns(OTHER_MAC, "::", B.ip6), "SPOOFED_MAC"),
    "DAD that names a MAC": (ns(A.mac, "::", A.ip6, slla=A.mac), "SPOOFED_ND"),
    "NA for a neighbour": (na(A.mac, A.ip6, B.ip6), "SPOOFED_ND"),
    "NA for the gateway": (na(A.mac, A.link_local, gateway(RED).ip6, flags=0xA0), "SPOOFED_ND"),
    "NA with another target MAC": (na(A.mac, A.ip6, A.ip6, tlla=OTHER_MAC), "SPOOFED_ND"),
    "NA with two target MACs": (
        six(ICMPV6, icmp(136, 0, bytes(4), raw(A.ip6) + option(2, A.mac) + option(2, OTHER_MAC)), ttl=255),
        "SPOOFED_ND"),
    "NA from afar": (na(A.mac, A.ip6, A.ip6, hops=254), "MALFORMED"),
    "NS with an option of no length": (
        six(ICMPV6, icmp(135, 0, bytes(4), raw(B.ip6) + bytes((1, 0)) + A.mac), ttl=255), "MALFORMED"),
    "NS with endless options": (
        six(ICMPV6, icmp(135, 0, bytes(4), raw(B.ip6) + (bytes((14, 1)) + bytes(6)) * 9), ttl=255), "MALFORMED"),
    "NS without a target": (six(ICMPV6, icmp(135), ttl=255), "SHORT"),
    "NA in fragments": (six(44, ipv6_fragment(ICMPV6, 0, True, 1, icmp(136, 0, bytes(4), raw(A.ip6))), ttl=255),
                        "MALFORMED"),
    "router advertisement": (six(ICMPV6, icmp(134), A.link_local, "ff02::1", ttl=255), "ROGUE_RA"),
    "router advertisement behind options": (
        six(60, extension(ICMPV6, icmp(134)), A.link_local, "ff02::1", ttl=255), "ROGUE_RA"),
    "router advertisement in fragments": (
        six(44, ipv6_fragment(ICMPV6, 0, True, 1, icmp(134, data=bytes(8))), A.link_local, "ff02::1"), "ROGUE_RA"),
    "redirect": (six(ICMPV6, icmp(137, data=bytes(32)), A.link_local, ttl=255), "ROGUE_RA"),
    # DHCP.
    "DHCP offer": (from_a(ip(A.ip4, "255.255.255.255", UDP, udp(67, 68)), dst=BROADCAST), "ROGUE_DHCP"),
    "DHCP answer to one": (frame(A, B, UDP, udp(67, 68)), "ROGUE_DHCP"),
    "DHCPv6 advertisement": (six(UDP, udp(547, 546), A.link_local, B.link_local), "ROGUE_DHCP"),
    "DHCP offer from another port": (
        from_a(ip(A.ip4, "255.255.255.255", UDP, udp(1067, 68)), dst=BROADCAST), "ROGUE_DHCP"),
    "DHCP answer from another port": (frame(A, B, UDP, udp(1067, 68)), "ROGUE_DHCP"),
    "DHCP answer from the client's port": (frame(A, B, UDP, udp(68, 68)), "ROGUE_DHCP"),
    "DHCP answer behind options": (frame(A, B, UDP, udp(1067, 68), options=b"\x94\4\0\0"), "ROGUE_DHCP"),
    "DHCP answer in fragments": (frame(A, B, UDP, udp(1067, 68, bytes(40)), fragment=MF), "ROGUE_DHCP"),
    "DHCP answer through a router": (frame(A, D, UDP, udp(1067, 68), to=gateway(RED)), "ROGUE_DHCP"),
    "DHCPv6 answer from another port": (six(UDP, udp(1547, 546), A.link_local, B.link_local), "ROGUE_DHCP"),
    "DHCPv6 answer from a routable address": (six(UDP, udp(1547, 546)), "ROGUE_DHCP"),
    "DHCPv6 answer behind options": (six(60, extension(UDP, udp(1547, 546)), A.link_local, B.link_local), "ROGUE_DHCP"),
    "DHCPv6 answer in fragments": (
        six(44, ipv6_fragment(UDP, 0, True, 1, udp(1547, 546, bytes(40)))), "ROGUE_DHCP"),
    "DHCPv6 answer in one fragment behind options": (
        six(0, extension(44, ipv6_fragment(60, 0, False, 1, extension(UDP, udp(1547, 546))))), "ROGUE_DHCP"),
    "IPv4 redirect": (frame(A, B, ICMP, icmp(5, 1, raw(A.ip4), ip(B.ip4, FAR.ip4, UDP, udp(1, 2)))), "ROGUE_RA"),
    "IPv4 router advertisement": (
        from_a(ip(A.ip4, "224.0.0.1", ICMP, icmp(9, 0, b"\1\2\0\x1e", bytes(8))), dst=BROADCAST), "ROGUE_RA"),
    "DHCP discover from another MAC": (
        from_a(ip("0.0.0.0", "255.255.255.255", UDP, udp(68, 67)), dst=BROADCAST, src=OTHER_MAC), "SPOOFED_MAC"),
    # What contradicts itself.
    "neither IP nor ARP": (from_a(b"data" * 20, 0x88B5), "NOT_IP"),
    "LLC": (from_a(b"data" * 20, 100), "NOT_IP"),
    "RARP": (from_a(bytes(28), 0x8035), "NOT_IP"),
    "IPv4 of another version": (from_a(b"\x55" + ip(A.ip4, B.ip4, UDP, udp(1, 2))[1:]), "MALFORMED"),
    "IPv6 of another version": (from_a(b"\x50" + ip(A.ip6, B.ip6, UDP, udp(1, 2))[1:], IPV6), "MALFORMED"),
    "IPv4 header too small": (from_a(b"\x44" + ip(A.ip4, B.ip4, UDP, udp(1, 2))[1:]), "MALFORMED"),
    "IPv4 header beyond its length": (from_a(b"\x4f" + ip(A.ip4, B.ip4, UDP, udp(1, 2))[1:]), "MALFORMED"),
    "IPv4 length beyond the frame": (from_a(ip(A.ip4, B.ip4, UDP, udp(1, 2), length=1000)), "SHORT"),
    "IPv4 length without a header": (from_a(ip(A.ip4, B.ip4, UDP, udp(1, 2), length=19)), "MALFORMED"),
    "IPv6 length beyond the frame": (six(UDP, udp(1, 2), length=1000), "SHORT"),
    "UDP without a header": (frame(A, B, UDP, b"\0\1\0\2"), "SHORT"),
    "UDP beyond the packet": (from_a(ip(A.ip4, B.ip4, UDP, b"", length=20) + udp(1, 2)), "SHORT"),
    "UDP shorter than its header": (frame(A, B, UDP, b"\0\1\0\2\0\7\0\0"), "MALFORMED"),
    "TCP without a header": (frame(A, B, TCP, tcp(1, 2)[:16]), "SHORT"),
    "TCP header too small": (frame(A, B, TCP, tcp(1, 2)[:12] + b"\x40" + tcp(1, 2)[13:]), "MALFORMED"),
    "TCP header beyond the packet": (frame(A, B, TCP, tcp(1, 2)[:12] + b"\xf0" + tcp(1, 2)[13:]), "SHORT"),
    "ICMP without a header": (frame(A, B, 1, b"\x08\0\0\0"), "SHORT"),
    "tiny first fragment": (frame(A, B, TCP, tcp(1, 2)[:8], fragment=MF), "SHORT"),
    "TCP fragment over the flags": (frame(A, B, TCP, b"x" * 16, fragment=1), "MALFORMED"),
    "TCP fragment over the flags, more to come": (frame(A, B, TCP, b"x" * 16, fragment=MF | 1), "MALFORMED"),
    "TCP fragment over the checksum": (frame(A, B, TCP, b"x" * 16, fragment=2), "MALFORMED"),
    "TCP fragment over the flags, IPv6": (six(44, ipv6_fragment(TCP, 8, False, 1, b"x" * 16)), "MALFORMED"),
    "TCP fragment over the checksum, IPv6": (six(44, ipv6_fragment(TCP, 16, True, 1, b"x" * 16)), "MALFORMED"),
    "tiny first fragment of IPv6": (six(44, ipv6_fragment(TCP, 0, True, 1, tcp(1, 2)[:16])), "SHORT"),
    "first fragment without its headers": (six(44, ipv6_fragment(60, 0, True, 1, extension(TCP, b"")[:8])), "SHORT"),
    "first fragment with half of its headers": (
        six(44, ipv6_fragment(60, 0, True, 1, extension(TCP, b"", 2)[:16])), "SHORT"),
    "fragment before another, of no whole words": (frame(A, B, UDP, udp(1, 2, b"odd"), fragment=MF), "MALFORMED"),
    "fragment before another, of no whole words, IPv6": (
        six(44, ipv6_fragment(UDP, 0, True, 1, udp(1, 2, b"odd"))), "MALFORMED"),
    "fragment beyond the largest packet": (frame(A, B, UDP, b"x" * 16, fragment=0x1FFF), "MALFORMED"),
    "fragment beyond the largest packet, IPv6": (
        six(44, ipv6_fragment(UDP, 0xFFF8, False, 1, b"x" * 16)), "MALFORMED"),
    "fragment of nothing": (frame(A, B, UDP, b"", fragment=9), "MALFORMED"),
    "routing header of type 0": (six(43, bytes((UDP, 0, 0, 1)) + bytes(4) + udp(1, 2)), "MALFORMED"),
    "hop-by-hop options not at the start": (six(60, extension(0, extension(UDP, udp(1, 2)))), "MALFORMED"),
    "too many extension headers": (six(60, extension(60, extension(60, extension(60, extension(60, extension(
        60, extension(60, extension(60, extension(60, extension(UDP, udp(1, 2))))))))))), "MALFORMED"),
    "extension header beyond the packet": (six(60, bytes((UDP, 200)) + bytes(6) + udp(1, 2)), "SHORT"),
    "two fragment headers": (
        six(44, ipv6_fragment(44, 0, True, 1, ipv6_fragment(UDP, 0, True, 2, udp(1, 2)))), "MALFORMED"),
}  # fmt: skip


@pytest.mark.parametrize(("sent", "why"), DROPS.values(), ids=DROPS)
def test_the_rest_is_dropped_by_its_reason(w: World, sent: bytes, why: str) -> None:
    done = w.send(sent)
    assert done.verdict == SHOT
    assert done.drops == {(A.device, why): 1}


@pytest.fixture
def pair(w: World) -> World:
    """Give A two allowed pairs: a prefix with its own MAC, one address with another MAC."""
    w.put(
        "sources",
        {
            r.SourceKey(128 + 96 + 16, A.key, A.mac, r.pack_ip("10.77.0.0")): 1,
            r.SourceKey(256, A.key, OTHER_MAC, r.pack_ip("10.0.0.77")): 1,
            r.SourceKey(128 + 32, A.key, A.mac, r.pack_ip("2001:db8::")): 1,
        },
    )
    return w


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (from_a(ip("10.77.3.4", B.ip4, UDP, udp(1, 2))), None),
        (from_a(ip("10.78.3.4", B.ip4, UDP, udp(1, 2))), "SPOOFED_IPV4"),
        (from_a(ip("10.0.0.77", B.ip4, UDP, udp(1, 2)), src=OTHER_MAC), None),
        (from_a(ip("10.0.0.77", B.ip4, UDP, udp(1, 2))), "SPOOFED_IPV4"),
        (from_a(ip(A.ip4, B.ip4, UDP, udp(1, 2)), src=OTHER_MAC), "SPOOFED_MAC"),
        (from_a(ip("2001:db8::1", B.ip6, UDP, udp(1, 2)), IPV6), None),
        (from_a(ip("2001:db9::1", B.ip6, UDP, udp(1, 2)), IPV6), "SPOOFED_IPV6"),
        (arp(2, OTHER_MAC, "10.0.0.77", B.ip4, B.mac, B.mac), None),
        (arp(1, OTHER_MAC, "10.0.0.77", B.ip4), None),
        (arp(1, OTHER_MAC, "0.0.0.0", "10.0.0.77"), "NO_NEIGHBOUR"),
        (na(A.mac, A.ip6, "2001:db8::9"), None),
    ],
    ids=["in the prefix", "beside it", "the pair", "its IP alone", "its MAC alone", "IPv6", "beside it, IPv6",
         "ARP answer", "ARP", "ARP probe", "NA"],
)  # fmt: skip
def test_allowed_pairs_widen_the_guard(pair: World, sent: bytes, why: str | None) -> None:
    assert pair.send(sent).drop == why


def test_a_secured_port_sends_its_first_address_only_from_its_own_mac(w: World) -> None:
    for src in (A, B):
        assert w.send(frame(src, FAR, UDP, udp(1, 2)), A).passed is (src is A)


@pytest.mark.parametrize(
    "sent",
    [
        eth(BARE.mac, OTHER_MAC, IPV4, ip("1.2.3.4", BARE.ip4, UDP, udp(67, 68))),
        eth(ALL_NODES, OTHER_MAC, IPV6, ip("fe80::1", "ff02::1", ICMPV6, icmp(134), ttl=255)),
        eth(BROADCAST, OTHER_MAC, 0x88B5, b"data" * 20),
        eth(BROADCAST, OTHER_MAC, 0x8035, bytes(28)),
        eth(BROADCAST, OTHER_MAC, IPV4, b"\x55" * 40),
        arp(1, OTHER_MAC, "1.2.3.4", "4.3.2.1"),
    ],
    ids=["DHCP", "RA", "not IP", "RARP", "garbage", "ARP"],
)
def test_a_port_without_security_says_what_it_likes(w: World, sent: bytes) -> None:
    w.put("macs", {r.MacKey(CLEAR, BARE.mac): FAR.place})
    done = w.send(sent, BARE)
    assert done.verdict != SHOT
    assert not {why for device, why in done.drops if device == BARE.device}


def test_tagged_frames_of_a_vlan_body_lose_their_tag(w: World) -> None:
    packet = ip(TAGGED.ip4, B.ip4, UDP, udp(1, 2))
    done = w.send(eth(B.mac, TAGGED.mac, IPV4, packet, vlan=5), TAGGED)
    assert (done.to, done.packet) == (B.device, eth(B.mac, TAGGED.mac, IPV4, packet))


@pytest.mark.parametrize("vlan", [None, 6], ids=["untagged", "another tag"])
def test_a_trunk_takes_only_the_tags_of_its_ports(w: World, vlan: int | None) -> None:
    done = w.send(eth(B.mac, TAGGED.mac, IPV4, ip(TAGGED.ip4, B.ip4, UDP, udp(1, 2)), vlan=vlan), TAGGED)
    assert done.drops == {(None, "NO_PORT"): 1}


def test_a_second_tag_behind_a_vlan_bodys_own_is_spoofed(w: World) -> None:
    packet = eth(B.mac, TAGGED.mac, VLAN, b"\0\6\x08\0" + ip(TAGGED.ip4, B.ip4, UDP, udp(1, 2)), vlan=5)
    assert w.send(packet, TAGGED).drops == {("trunk", "SPOOFED_VLAN"): 1}


def test_a_vlan_body_is_guarded_as_any_other(w: World) -> None:
    sent = eth(B.mac, TAGGED.mac, IPV4, ip(A.ip4, B.ip4, UDP, udp(1, 2)), vlan=5)
    assert w.send(sent, TAGGED).drops == {("trunk", "SPOOFED_IPV4"): 1}


def test_a_drop_tells_what_the_packet_was(w: World) -> None:
    w.send(frame_to(A, B.mac, B.ip4, UDP, udp(67, 68)))
    row = w.bpf.table("drops").read()[r.DropKey(A.key, next(n for n, s in w.reasons.items() if "ROGUE_DHCP" in s))]
    assert (r.unpack_ip(row.src), r.unpack_ip(row.dst), row.src_port, row.dst_port) == (A.ip4, B.ip4, 67, 68)
    assert (row.network, row.identity, row.eth_proto, row.proto, row.packets) == (RED, A.identity, IPV4, UDP, 1)


@pytest.mark.parametrize("v", [4, 6])
def test_what_follows_a_refused_first_fragment_is_refused(w: World, v: int) -> None:
    body = udp(1067, 68, bytes(40)) if v == 4 else udp(1547, 546, bytes(40))
    if v == 4:
        first, later = (frame(A, B, UDP, part, id=7, fragment=f) for part, f in ((body[:24], MF), (body[24:], 3)))
    else:
        first, later = (six(44, ipv6_fragment(UDP, at, more, 7, part))
                        for part, at, more in ((body[:24], 0, True), (body[24:], 24, False)))  # fmt: skip
    assert w.send(first).drop == "ROGUE_DHCP"
    done = w.send(later)  # waits for one that is not refused
    assert (done.verdict, done.to) == (STOLEN, None)


def fragment(v: int, at: int, more: bool, body: bytes, next: int = UDP) -> bytes:
    if v == 4:
        return frame(A, B, next, body, id=7, fragment=at // 8 | (MF if more else 0))
    return six(44, ipv6_fragment(next, at, more, 7, body))


@pytest.mark.parametrize("v", [4, 6])
def test_a_later_fragment_must_not_lie_over_the_first(w: World, v: int) -> None:
    w.policy(A.identity, any_rule(A.identity, r.Way.OUT, v, proto=UDP, port=2))
    assert w.send(fragment(v, 0, True, udp(1, 2, bytes(24)))).passed
    for at in (8, 16, 24):
        assert w.send(fragment(v, at, True, bytes(32))).drop == "MALFORMED", at
    assert w.send(fragment(v, 32, False, bytes(32))).passed


def test_a_later_fragment_must_not_lie_over_headers_behind_options(w: World) -> None:
    """Receivers go by the first fragment's kind alone: those that follow may say another one."""
    w.policy(A.identity, any_rule(A.identity, r.Way.OUT, 6, proto=UDP, port=2))
    assert w.send(fragment(6, 0, True, extension(UDP, udp(1, 2, bytes(8)), 5), next=60)).passed
    assert w.send(fragment(6, 48, False, udp(1, 3, bytes(8)))).drop == "MALFORMED"
    packet = ip(FAR.ip6, A.ip6, 44, ipv6_fragment(TCP, 8, True, 1, b"x" * 32))
    assert w.receive(eth(A.mac, FAR.mac, IPV6, packet)).drop == "MALFORMED"
