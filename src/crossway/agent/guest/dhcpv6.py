"""DHCPv6 (RFC 8415): addresses of subnets in stateful mode, and DNS servers for all.

As with IPv4 nothing is remembered: what a guest may have is what its port has.
"""

from __future__ import annotations

import struct

from crossway.agent.guest.facts import STATEFUL, Guest, Prefix, link_local
from crossway.agent.guest.frame import UDP, Frame
from crossway.plan.service import SERVICE_MAC

CLIENT, SERVER = 546, 547
SOLICIT, ADVERTISE, REQUEST, CONFIRM, RENEW, REBIND, REPLY, RELEASE, DECLINE = range(1, 10)
INFORMATION = 11
CLIENT_ID, SERVER_ID, IA_NA, IA_TA, IA_ADDRESS, STATUS, RAPID, DNS, IA_PD = 1, 2, 3, 4, 5, 13, 14, 23, 25
SUCCESS, NO_ADDRESSES, NO_BINDING, NOT_ON_LINK, NO_PREFIX = 0, 2, 3, 4, 6
# The same on every host: who moves finds its server again (DUID-LL, RFC 8415 11.4).
DUID = struct.pack("!HH", 3, 1) + SERVICE_MAC
SECONDS = 86_400
IAS_MAX = 8


def options(raw: bytes) -> list[tuple[int, bytes]]:
    """Return options in their order; what is cut short is left out."""
    found, at = [], 0
    while at + 4 <= len(raw):
        code, size = struct.unpack_from("!HH", raw, at)
        if at + 4 + size > len(raw):
            break
        found.append((code, raw[at + 4 : at + 4 + size]))
        at += 4 + size
    return found


def answer(asked: Frame, guest: Guest) -> Frame | None:
    """Return what a guest is told; None where silence is right."""
    serving = [p for p in guest.prefixes if p.address_mode is not None]
    if len(asked.body) < 4 or not serving:
        return None
    kind, xid = asked.body[0], asked.body[1:4]
    listed = options(asked.body[4:])
    first = {code: value for code, value in reversed(listed)}
    named = first.get(SERVER_ID)
    must_name = kind in (REQUEST, RENEW, RELEASE, DECLINE)
    if (must_name and named != DUID) or (named is not None and named != DUID):
        return None
    if CLIENT_ID not in first and kind != INFORMATION:
        return None
    associations = [(code, value) for code, value in listed if code in (IA_NA, IA_TA, IA_PD)][:IAS_MAX]
    match kind:
        case x if x in (SOLICIT, REQUEST, RENEW, REBIND):
            reply = ADVERTISE if kind == SOLICIT and RAPID not in first else REPLY
            inside = b"".join(_association(code, value, serving, kind) for code, value in associations)
            if kind == SOLICIT and RAPID in first:
                inside += _option(RAPID, b"")
        case x if x == CONFIRM:
            asked_for = [ip for _, value in associations for ip in _addresses(value)]
            if not asked_for:
                return None
            ours = {p.ip.packed for p in serving if p.ip is not None}
            reply, inside = REPLY, _status(SUCCESS if ours.issuperset(asked_for) else NOT_ON_LINK)
        case x if x in (RELEASE, DECLINE):
            reply, inside = REPLY, _status(SUCCESS)
        case x if x == INFORMATION:
            reply, inside = REPLY, b""
        case _:
            return None
    body = bytes([reply]) + xid + _option(SERVER_ID, DUID)
    if CLIENT_ID in first:
        body += _option(CLIENT_ID, first[CLIENT_ID])
    # One that is link-local is told by the router, since of here a guest would not know on which link.
    if servers := [ip.packed for p in serving for ip in p.dns if not ip.is_link_local]:
        body += _option(DNS, b"".join(dict.fromkeys(servers)))
    speaker = link_local(guest.speaker6)
    return Frame(guest.mac, guest.speaker6, speaker, asked.src, UDP, SERVER, CLIENT, body + inside)


def _association(code: int, value: bytes, serving: list[Prefix], kind: int) -> bytes:
    if code == IA_PD:
        return _option(IA_PD, value[:12].ljust(12, b"\0") + _status(NO_PREFIX)) if len(value) >= 12 else b""
    if len(value) < (12 if code == IA_NA else 4):
        return b""
    if code == IA_TA:
        return _option(IA_TA, value[:4] + _status(NO_ADDRESSES))
    ours = [p.ip.packed for p in serving if p.address_mode == STATEFUL and p.ip is not None]
    inside = b"".join(_option(IA_ADDRESS, ip + struct.pack("!II", SECONDS, SECONDS)) for ip in ours)
    if kind in (RENEW, REBIND):
        # What the guest has but the port has no more is over at once.
        for ip in _addresses(value):
            if ip not in ours:
                inside += _option(IA_ADDRESS, ip + bytes(8))
    if not inside:
        inside = _status(NO_BINDING if kind in (RENEW, REBIND) else NO_ADDRESSES)
    times = struct.pack("!II", SECONDS // 2, SECONDS * 4 // 5) if ours else bytes(8)
    return _option(IA_NA, value[:4] + times + inside)


def _addresses(association: bytes) -> list[bytes]:
    return [value[:16] for code, value in options(association[12:]) if code == IA_ADDRESS and len(value) >= 24]


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("!HH", code, len(value)) + value


def _status(code: int) -> bytes:
    return _option(STATUS, struct.pack("!H", code))
