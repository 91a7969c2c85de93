"""Ethernet frames with UDP or ICMPv6 in them: taken apart, and put together with right checksums."""

from __future__ import annotations

import struct
from typing import NamedTuple

IPV4, IPV6 = 0x0800, 0x86DD
UDP, ICMPV6 = 17, 58
BROADCAST = b"\xff" * 6
HOP_BY_HOP, ROUTING, DESTINATION = 0, 43, 60


class Frame(NamedTuple):
    """A frame without a VLAN tag. Ports are 0 for ICMPv6; *body* is what follows the UDP header."""

    dst_mac: bytes
    src_mac: bytes
    src: bytes  # 4 or 16 bytes
    dst: bytes
    proto: int
    src_port: int
    dst_port: int
    body: bytes


def checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def parse(raw: bytes) -> Frame | None:
    """Take a frame apart; None if it is cut short or holds neither UDP nor ICMPv6."""
    try:
        dst_mac, src_mac, kind = struct.unpack_from("!6s6sH", raw)
        if kind == IPV4:
            first, length, proto = struct.unpack_from("!B x H 5x B", raw, 14)
            head = (first & 15) * 4
            src, dst = struct.unpack_from("!4s4s", raw, 26)
            if first >> 4 != 4 or head < 20 or proto != UDP:
                return None
            rest = raw[14 + head : 14 + length]
        elif kind == IPV6:
            first, length, proto = struct.unpack_from("!B 3x H B", raw, 14)
            src, dst = struct.unpack_from("!16s16s", raw, 22)
            if first >> 4 != 6:
                return None
            rest = raw[54 : 54 + length]
            while proto in (HOP_BY_HOP, ROUTING, DESTINATION):
                proto, size = rest[0], 8 * (rest[1] + 1)
                rest = rest[size:]
        else:
            return None
        if proto == UDP:
            src_port, dst_port, length = struct.unpack_from("!HHH", rest)
            return Frame(dst_mac, src_mac, src, dst, proto, src_port, dst_port, rest[8:length])
        if proto == ICMPV6 and len(rest) >= 8:
            return Frame(dst_mac, src_mac, src, dst, proto, 0, 0, rest)
    except (struct.error, IndexError):
        pass
    return None


def build(frame: Frame) -> bytes:
    """Put a frame together; the checksum of an ICMPv6 body is filled in."""
    body = frame.body
    if frame.proto == UDP:
        body = struct.pack("!HHHH", frame.src_port, frame.dst_port, 8 + len(body), 0) + body
    if len(frame.src) == 4:
        ends = frame.src + frame.dst
        pseudo = ends + struct.pack("!BBH", 0, frame.proto, len(body))
        head = struct.pack("!BBHHHBBH", 0x45, 0xC0, 20 + len(body), 0, 0x4000, 64, frame.proto, 0) + ends
        head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
        kind = IPV4
    else:
        ends = frame.src + frame.dst
        pseudo = ends + struct.pack("!II", len(body), frame.proto)
        # Neighbour discovery asks for a hop limit of 255 (RFC 4861 6.1.2).
        hops = 255 if frame.proto == ICMPV6 else 64
        head = struct.pack("!IHBB", 6 << 28, len(body), frame.proto, hops) + ends
        kind = IPV6
    at = 6 if frame.proto == UDP else 2
    total = checksum(pseudo + body) or 0xFFFF
    body = body[:at] + struct.pack("!H", total) + body[at + 2 :]
    return frame.dst_mac + frame.src_mac + struct.pack("!H", kind) + head + body
