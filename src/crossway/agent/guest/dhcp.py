"""DHCP for IPv4 (RFC 2131, 2132, 3442): a guest is told what its port has, and nothing else.

There is nothing to remember: a lease is the port's fixed address, so any agent
that carries the port gives the same answer, also after a restart or a move.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network

from crossway.agent.guest.facts import Guest, Lease
from crossway.agent.guest.frame import BROADCAST, UDP, Frame

SERVER, CLIENT = 67, 68
DISCOVER, OFFER, REQUEST, DECLINE, ACK, NAK, RELEASE, INFORM = range(1, 9)
MASK, ROUTER, DNS, MTU, REQUESTED, LEASE, TYPE, SERVER_ID = 1, 3, 6, 26, 50, 51, 53, 54
MESSAGE, RENEW, REBIND, CLIENT_ID, RAPID, ROUTES = 56, 58, 59, 61, 80, 121
LEASE_SECONDS = 86_400
HEAD = struct.Struct("!BBBBIHH4s4s4s4s16s64x128x4s")
COOKIE = bytes((99, 130, 83, 99))
SMALLEST = 300  # bytes that old relays and clients want a message to have
BROADCAST_FLAG = 0x8000
NONE = bytes(4)


def options(raw: bytes) -> dict[int, bytes]:
    """Return options by their codes, those that come twice joined (RFC 3396); what is cut short is left out."""
    found: dict[int, bytes] = {}
    at = 0
    while at < len(raw) and raw[at] != 255:
        if raw[at] == 0:
            at += 1
            continue
        if at + 1 >= len(raw) or at + 2 + raw[at + 1] > len(raw):
            break
        code, size = raw[at], raw[at + 1]
        found[code] = found.get(code, b"") + raw[at + 2 : at + 2 + size]
        at += 2 + size
    return found


def answer(asked: Frame, guest: Guest) -> Frame | None:
    """Return what a guest is told; None where silence is right."""
    if len(asked.body) < HEAD.size or not guest.leases:
        return None
    op, kind, size, _, xid, _, flags, ciaddr, _, _, giaddr, chaddr, cookie = HEAD.unpack_from(asked.body)
    if (op, kind, size, cookie) != (1, 1, 6, COOKIE) or giaddr != NONE or chaddr[:6] != guest.mac:
        return None
    told = options(asked.body[HEAD.size :])
    what = told.get(TYPE, b"")
    if len(what) != 1:
        return None
    # One by which a client knows its own is given back (RFC 6842).
    named = {code: value for code, value in told.items() if code == CLIENT_ID}
    wanted = ciaddr if ciaddr != NONE else told.get(REQUESTED, b"")
    lease = next((one for one in guest.leases if one.ip.packed == wanted), None)
    match what[0]:
        case x if x == DISCOVER:
            lease = lease or guest.leases[0]
            kind = ACK if RAPID in told else OFFER
            more = {RAPID: b""} if RAPID in told else {}
        case x if x == REQUEST:
            if (server := told.get(SERVER_ID)) is not None and all(server != one.server.packed for one in guest.leases):
                return None  # it took another server's offer
            if lease is None:
                return _nak(asked, guest, xid, named)
            kind, more = ACK, {}
        case x if x == INFORM:
            lease = lease or guest.leases[0]
            body = _body(xid, flags, ciaddr, NONE, guest, {TYPE: bytes([ACK]), **named, **_facts(lease, guest)})
            return _to(asked, guest, lease, ciaddr, body, flags)
        case _:
            return None
    seconds = {LEASE: LEASE_SECONDS, RENEW: LEASE_SECONDS // 2, REBIND: LEASE_SECONDS * 7 // 8}
    chosen = {
        TYPE: bytes([kind]),
        SERVER_ID: lease.server.packed,
        **{code: struct.pack("!I", value) for code, value in seconds.items()},
        **more,
        **named,
        **_facts(lease, guest),
    }
    body = _body(xid, flags, ciaddr if kind == ACK else NONE, lease.ip.packed, guest, chosen)
    return _to(asked, guest, lease, lease.ip.packed, body, flags)


def _facts(lease: Lease, guest: Guest) -> dict[int, bytes]:
    found = {MASK: lease.network.netmask.packed, MTU: struct.pack("!H", guest.mtu)}
    if lease.gateway is not None:
        found[ROUTER] = lease.gateway.packed
    if lease.dns:
        found[DNS] = b"".join(ip.packed for ip in lease.dns)
    if lease.routes:
        # Who reads these reads no other default route (RFC 3442).
        default = ((IPv4Network("0.0.0.0/0"), lease.gateway),) if lease.gateway is not None else ()
        found[ROUTES] = _routes((*lease.routes, *default))
    return found


def _routes(routes: Iterable[tuple[IPv4Network, IPv4Address]]) -> bytes:
    packed = b""
    for network, via in routes:
        packed += bytes([network.prefixlen]) + network.network_address.packed[: (network.prefixlen + 7) // 8]
        packed += via.packed
    return packed


def _body(xid: int, flags: int, ciaddr: bytes, yiaddr: bytes, guest: Guest, chosen: dict[int, bytes]) -> bytes:
    head = HEAD.pack(2, 1, 6, 0, xid, 0, flags, ciaddr, yiaddr, NONE, NONE, guest.mac + bytes(10), COOKIE)
    packed = b""
    for code, value in chosen.items():
        parts = [value[at : at + 255] for at in range(0, len(value), 255)] or [b""]
        packed += b"".join(bytes([code, len(part)]) + part for part in parts)
    return (head + packed + b"\xff").ljust(SMALLEST, b"\0")


def _to(asked: Frame, guest: Guest, lease: Lease, ip: bytes, body: bytes, flags: int) -> Frame:
    everyone = bool(flags & BROADCAST_FLAG) or ip == NONE
    return Frame(
        BROADCAST if everyone else guest.mac,
        guest.speaker,
        lease.server.packed,
        BROADCAST[:4] if everyone else ip,
        UDP,
        SERVER,
        CLIENT,
        body,
    )


def _nak(asked: Frame, guest: Guest, xid: int, named: dict[int, bytes]) -> Frame:
    lease = guest.leases[0]
    said = {TYPE: bytes([NAK]), SERVER_ID: lease.server.packed, MESSAGE: b"the port has no such address", **named}
    return _to(asked, guest, lease, NONE, _body(xid, BROADCAST_FLAG, NONE, NONE, guest, said), BROADCAST_FLAG)
