"""Router advertisements (RFC 4861, DNS: RFC 8106): the network's router speaks to each port on the port's own host."""

from __future__ import annotations

import struct
from ipaddress import IPv6Address

from crossway.agent.guest.facts import SLAAC, STATEFUL, STATELESS, Guest, link_local
from crossway.agent.guest.frame import ICMPV6, Frame

SOLICITATION, ADVERTISEMENT = 133, 134
SOURCE, PREFIX, MTU, DNS = 1, 3, 5, 25
MANAGED, OTHER = 0x80, 0x40
ON_LINK, AUTONOMOUS = 0x80, 0x40
# The longest that there is: guests keep their route while no agent runs.
ROUTER_SECONDS = 9000
FOREVER = 0xFFFFFFFF
ALL_NODES = IPv6Address("ff02::1").packed
ALL_NODES_MAC = bytes.fromhex("333300000001")
HOPS = 64


def answer(asked: Frame, guest: Guest) -> Frame | None:
    """Answer a solicitation; None where there is nothing to tell or what is asked is none."""
    if asked.body[:2] != bytes((SOLICITATION, 0)):
        return None
    return advertisement(guest, None if asked.src == bytes(16) else asked.src)


def advertisement(guest: Guest, to: bytes | None = None) -> Frame | None:
    """Return what a guest is told of routers and prefixes: to one address of it, or to all that it has."""
    prefixes = [p for p in guest.prefixes if p.ra_mode is not None]
    if not prefixes:
        return None
    flags = 0
    if any(p.ra_mode == STATEFUL for p in prefixes):
        flags |= MANAGED | OTHER
    if any(p.ra_mode == STATELESS for p in prefixes):
        flags |= OTHER
    lifetime = ROUTER_SECONDS if guest.router is not None else 0
    body = struct.pack("!BBHBBHII", ADVERTISEMENT, 0, 0, HOPS, flags, lifetime, 0, 0)
    body += struct.pack("!BB6s", SOURCE, 1, guest.speaker)
    body += struct.pack("!BBHI", MTU, 1, 0, guest.mtu)
    for prefix in prefixes:
        own = ON_LINK | (AUTONOMOUS if prefix.ra_mode in (SLAAC, STATELESS) else 0)
        body += struct.pack("!BBBBIII", PREFIX, 4, prefix.network.prefixlen, own, FOREVER, FOREVER, 0)
        body += prefix.network.network_address.packed
    if servers := dict.fromkeys(ip.packed for p in prefixes for ip in p.dns):
        body += struct.pack("!BBHI", DNS, 1 + 2 * len(servers), 0, FOREVER) + b"".join(servers)
    # To its MAC in any case: the advertisement is this port's alone.
    return Frame(guest.mac, guest.speaker, link_local(guest.speaker), to or ALL_NODES, ICMPV6, 0, 0, body)
