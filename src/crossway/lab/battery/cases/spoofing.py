"""Lies: stopped at the port of who tells them, under the lie's own name; without port security, told all the same."""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import ExitStack

from crossway.client import Object
from crossway.lab.battery import frames
from crossway.lab.battery.frames import NOBODY_MAC
from crossway.lab.battery.pair import IMPATIENCE, PATIENCE, Pair, must
from crossway.lab.battery.registry import case
from crossway.lab.battery.tries import token

OTHER = {4: "10.64.1.250", 6: "fd64:1::fa"}
ALL_MAC = "ff:ff:ff:ff:ff:ff"
Lie = Callable[[Pair, bytes], bytes]


def lie(name: str, reason: str, *, both: bool = False) -> Callable[[Lie], Lie]:
    """Register a lie: a frame with a mark in it by which it is known again.

    *both*: where it is let out, a secured port would not let it in either.
    """

    def register(make: Lie) -> Lie:
        def told(pair: Pair) -> None:
            with (
                pair.source.probe.socket("packet", pair.source.device, "0x88b6") as raw,
                pair.target.probe.socket("packet", pair.target.device, "0x0003") as ear,
            ):

                def heard(seconds: float) -> bool:
                    mark = token()
                    raw.send(make(pair, mark))
                    return ear.find(lambda data: mark in data, seconds) is not None

                free: Object = {"port_security_enabled": False, "security_groups": []}
                with ExitStack() as stack:
                    for card in (pair.source, pair.target) if both else (pair.source,):
                        stack.enter_context(pair.changed(card, **free))
                    must(heard(PATIENCE), "without port security it does not arrive")
                with pair.drop(reason, pair.source):
                    must(not heard(IMPATIENCE), "it arrives")

        case("spoofing", name)(told)
        return make

    return register


@lie("another's MAC", "SPOOFED_MAC")
def other_mac(pair: Pair, mark: bytes) -> bytes:
    return frames.udp(NOBODY_MAC, pair.target.mac, pair.source.ip4, pair.target.ip4, mark)


@lie("another's IPv4 address", "SPOOFED_IPV4")
def other_ipv4(pair: Pair, mark: bytes) -> bytes:
    return frames.udp(pair.source.mac, pair.target.mac, OTHER[4], pair.target.ip4, mark)


@lie("another's IPv6 address", "SPOOFED_IPV6")
def other_ipv6(pair: Pair, mark: bytes) -> bytes:
    return frames.udp(pair.source.mac, pair.target.mac, OTHER[6], pair.target.ip6, mark)


@lie("ARP: another's address is here", "SPOOFED_ARP")
def arp_ip(pair: Pair, mark: bytes) -> bytes:
    source, target = pair.source, pair.target
    return frames.arp(source.mac, target.mac, frames.ANSWER, source.mac, OTHER[4], target.ip4) + mark


@lie("ARP: my address is at another's MAC", "SPOOFED_ARP")
def arp_mac(pair: Pair, mark: bytes) -> bytes:
    source, target = pair.source, pair.target
    return frames.arp(source.mac, target.mac, frames.ANSWER, NOBODY_MAC, OTHER[4], target.ip4) + mark


@lie("neighbour discovery: another's address is here", "SPOOFED_ND")
def nd_ip(pair: Pair, mark: bytes) -> bytes:
    source, target = pair.source, pair.target
    # The mark is in an option that nobody knows.
    body = frames.advertisement(OTHER[6], source.mac) + b"\xfd\x02" + mark + bytes(6)
    return frames.icmp6(source.mac, target.mac, source.ip6, target.ip6, body)


@lie("neighbour discovery: my address is at another's MAC", "SPOOFED_ND")
def nd_mac(pair: Pair, mark: bytes) -> bytes:
    source, target = pair.source, pair.target
    body = frames.advertisement(source.ip6, NOBODY_MAC) + b"\xfd\x02" + mark + bytes(6)
    return frames.icmp6(source.mac, target.mac, source.ip6, target.ip6, body)


@lie("a rogue DHCP server", "ROGUE_DHCP")
def rogue_dhcp(pair: Pair, mark: bytes) -> bytes:
    body = mark + bytes(240)
    return frames.udp(pair.source.mac, ALL_MAC, pair.source.ip4, "255.255.255.255", body, (67, 68))


@lie("a rogue DHCPv6 server", "ROGUE_DHCP")
def rogue_dhcpv6(pair: Pair, mark: bytes) -> bytes:
    source, target = pair.source, pair.target
    return frames.udp(source.mac, target.mac, source.ip6, target.ip6, mark + bytes(20), (547, 546))


@lie("a rogue router's advertisement", "ROGUE_RA")
def rogue_ra(pair: Pair, mark: bytes) -> bytes:
    # Of a router that lives for no time: it does no harm where it is let through.
    body = struct.pack("!BBHBBHII", frames.ADVERTISEMENT, 0, 0, 64, 0, 0, 0, 0) + b"\xfd\x02" + mark + bytes(6)
    return frames.icmp6(pair.source.mac, frames.ALL_NODES_MAC, pair.source.link_local, frames.ALL_NODES, body)


@lie("a rogue redirect", "ROGUE_RA")
def rogue_redirect(pair: Pair, mark: bytes) -> bytes:
    source, target = pair.source, pair.target
    there = frames.packed("fd64:99::1")
    body = struct.pack("!BBHI", frames.REDIRECT, 0, 0, 0) + there + there + b"\xfd\x02" + mark + bytes(6)
    return frames.icmp6(source.mac, target.mac, source.link_local, target.ip6, body)


@lie("neither IP nor ARP", "NOT_IP", both=True)
def not_ip(pair: Pair, mark: bytes) -> bytes:
    return frames.ethernet(pair.source.mac, pair.target.mac, frames.LOCAL_EXPERIMENTAL, mark + bytes(40))


@case("spoofing", "a VLAN tag")
def vlan(pair: Pair) -> None:
    source, target = pair.source, pair.target
    with (
        source.probe.socket("packet", source.device, "0x88b6") as raw,
        target.probe.socket("packet", target.device, "0x0003") as ear,
    ):
        mark = token()
        frame = frames.udp(source.mac, target.mac, source.ip4, target.ip4, mark)
        raw.send(frame)
        must(ear.find(lambda data: mark in data, PATIENCE), "without a tag it does not arrive")
        mark = token()
        frame = frames.udp(source.mac, target.mac, source.ip4, target.ip4, mark)
        with pair.drop("SPOOFED_VLAN", source):
            raw.send(frames.tagged(frame, 5))
            must(ear.find(lambda data: mark in data, IMPATIENCE) is None, "it arrives")
