"""Router advertisements (RFC 4861, DNS: RFC 8106): the network's router speaks to each port on the port's own host.

A router with an IPv6 address on the network is named as default router, as radvd names it; one that has none is
not, and the stand-in says what prefixes there are. What was advertised and is no more is withdrawn.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from ipaddress import IPv6Address

from crossway.agent.guest.facts import SLAAC, STATEFUL, STATELESS, Guest, Prefix, link_local
from crossway.agent.guest.frame import ICMPV6, Frame

SOLICITATION, ADVERTISEMENT = 133, 134
SOURCE, PREFIX, MTU, DNS = 1, 3, 5, 25  # options
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
    prefixes = _advertised(guest)
    if not prefixes:
        return None
    flags = 0
    if any(p.ra_mode == STATEFUL for p in prefixes):
        flags |= MANAGED | OTHER
    if any(p.ra_mode == STATELESS for p in prefixes):
        flags |= OTHER
    body = _head(flags, ROUTER_SECONDS if guest.router6 is not None else 0, guest.speaker6)
    body += struct.pack("!BBHI", MTU, 1, 0, guest.mtu)
    body += b"".join(_prefix(prefix, FOREVER) for prefix in prefixes)
    body += _servers(dict.fromkeys(ip.packed for p in prefixes for ip in p.dns), FOREVER)
    # To its MAC in any case: the advertisement is this port's alone.
    return Frame(guest.mac, guest.speaker6, link_local(guest.speaker6), to or ALL_NODES, ICMPV6, 0, 0, body)


def withdrawal(old: Guest, new: Guest | None) -> Frame | None:
    """Return what takes back what a guest was told when it was *old*, as far as it is not told that as *new*."""
    told = _advertised(old)
    kept = _advertised(new) if new is not None else []
    if not told:
        return None
    speaker = old.speaker6
    stays = bool(kept) and new is not None and new.speaker6 == speaker
    gone = [p for p in told if p.network not in {k.network for k in kept}]
    servers = dict.fromkeys(ip.packed for p in told for ip in p.dns)
    for ip in (ip.packed for p in kept for ip in p.dns):
        servers.pop(ip, None)
    if stays and not gone and not servers:
        return None
    body = _head(0, ROUTER_SECONDS if stays and old.router6 is not None else 0, speaker)
    body += b"".join(_prefix(prefix, 0) for prefix in gone) + _servers(servers, 0)
    return Frame(old.mac, speaker, link_local(speaker), ALL_NODES, ICMPV6, 0, 0, body)


def farewell(to: bytes, router: bytes) -> Frame:
    """Return what tells a guest that a MAC is no router any more, whatever it was told before."""
    return Frame(to, router, link_local(router), ALL_NODES, ICMPV6, 0, 0, _head(0, 0, router))


def _advertised(guest: Guest) -> list[Prefix]:
    return [p for p in guest.prefixes if p.ra_mode is not None]


def _head(flags: int, lifetime: int, speaker: bytes) -> bytes:
    head = struct.pack("!BBHBBHII", ADVERTISEMENT, 0, 0, HOPS, flags, lifetime, 0, 0)
    return head + struct.pack("!BB6s", SOURCE, 1, speaker)


def _prefix(prefix: Prefix, seconds: int) -> bytes:
    own = ON_LINK | (AUTONOMOUS if prefix.ra_mode in (SLAAC, STATELESS) else 0)
    head = struct.pack("!BBBBIII", PREFIX, 4, prefix.network.prefixlen, own, seconds, seconds, 0)
    return head + prefix.network.network_address.packed


def _servers(servers: Iterable[bytes], seconds: int) -> bytes:
    packed = b"".join(servers)
    return struct.pack("!BBHI", DNS, 1 + len(packed) // 8, 0, seconds) + packed if packed else b""
