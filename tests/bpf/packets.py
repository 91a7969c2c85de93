"""Frames as bytes, with right checksums, and the other way round: what a frame says.

Knows Ethernet, ARP, IP, UDP, TCP, ICMP; nothing of the data plane.
"""

from __future__ import annotations

import struct
from ipaddress import ip_address

BROADCAST = b"\xff" * 6
ARP, IPV4, IPV6, VLAN = 0x0806, 0x0800, 0x86DD, 0x8100
ICMP, TCP, UDP, GRE, ICMPV6, SCTP = 1, 6, 17, 47, 58, 132
FIN, SYN, RST, ACK = 1, 2, 4, 16
DF, MF = 0x4000, 0x2000


def raw(ip: str) -> bytes:
    """Return an address as it stands in a header."""
    return ip_address(ip).packed


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071); 0 over data that holds its own."""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def eth(dst: bytes, src: bytes, proto: int, body: bytes, vlan: int | None = None) -> bytes:
    tag = b"" if vlan is None else struct.pack("!HH", VLAN, vlan)
    return dst + src + tag + struct.pack("!H", proto) + body


def arp(
    operation: int,
    sender_mac: bytes,
    sender_ip: str,
    target_ip: str,
    target_mac: bytes = bytes(6),
    dst: bytes = BROADCAST,
    src: bytes | None = None,
) -> bytes:
    """Return an ARP frame: 1 asks, 2 answers."""
    body = struct.pack("!HHBBH", 1, IPV4, 6, 4, operation) + sender_mac + raw(sender_ip) + target_mac + raw(target_ip)
    return eth(dst, src or sender_mac, ARP, body)


def ip(
    src: str,
    dst: str,
    proto: int,
    body: bytes,
    *,
    ttl: int = 64,
    id: int = 0,
    fragment: int = DF,
    options: bytes = b"",
    length: int | None = None,
) -> bytes:
    """Return an IP packet of the family of its addresses, the transport's checksum put in."""
    if ":" in src:
        body = with_checksum(src, dst, proto, body)
        head = struct.pack("!IHBB", 6 << 28, len(body) if length is None else length, proto, ttl)
        return head + raw(src) + raw(dst) + body
    if not fragment & 0x1FFF and not fragment & MF:
        body = with_checksum(src, dst, proto, body)
    size = 20 + len(options)
    total = size + len(body) if length is None else length
    head = struct.pack("!BBHHHBBH", 0x40 | size // 4, 0, total, id, fragment, ttl, proto, 0) + raw(src) + raw(dst)
    head += options
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + body


CHECKSUM_AT = {TCP: 16, UDP: 6, ICMP: 2, ICMPV6: 2}


def with_checksum(src: str, dst: str, proto: int, body: bytes) -> bytes:
    """Return a transport header and data with the checksum filled in."""
    at = CHECKSUM_AT.get(proto)
    if at is None or len(body) < at + 2:
        return body
    body = body[:at] + b"\0\0" + body[at + 2 :]
    pseudo = b"" if proto == ICMP else raw(src) + raw(dst) + struct.pack("!II", len(body), proto)
    return body[:at] + struct.pack("!H", checksum(pseudo + body)) + body[at + 2 :]


def udp(src: int, dst: int, data: bytes = b"data") -> bytes:
    return struct.pack("!HHHH", src, dst, 8 + len(data), 0) + data


def tcp(src: int, dst: int, flags: int = SYN, data: bytes = b"") -> bytes:
    return struct.pack("!HHIIBBHHH", src, dst, 1, 0, 5 << 4, flags, 1024, 0, 0) + data


def icmp(type: int, code: int = 0, rest: bytes = b"\0\1\0\1", data: bytes = b"") -> bytes:
    """Return an ICMP or ICMPv6 message; *rest* is the second word: an echo's identifier and sequence."""
    return struct.pack("!BBH", type, code, 0) + rest + data


def echo(family: int, id: int = 1, reply: bool = False, data: bytes = b"") -> bytes:
    type = (0 if reply else 8) if family == 4 else (129 if reply else 128)
    return icmp(type, 0, struct.pack("!HH", id, 1), data)


def family(address: str) -> int:
    return 6 if ":" in address else 4


def ipv6_fragment(next: int, offset: int, more: bool, id: int, body: bytes) -> bytes:
    return struct.pack("!BBHI", next, 0, offset | more, id) + body


def solicited_node(target: str) -> tuple[str, bytes]:
    """Return the group and the MAC that a solicitation for an address goes to (RFC 4291 2.7.1)."""
    low = raw(target)[13:]
    group = raw("ff02::1:ff00:0")[:13] + low
    return str(ip_address(group)), b"\x33\x33\xff" + low


def option(type: int, address: bytes) -> bytes:
    return bytes((type, 1)) + address


def ns(
    src_mac: bytes,
    src: str,
    target: str,
    *,
    dst: str | None = None,
    to: bytes | None = None,
    slla: bytes | None = None,
    hops: int = 255,
) -> bytes:
    """Return a neighbour solicitation."""
    group, group_mac = solicited_node(target)
    options = option(1, slla if slla is not None else src_mac) if src != "::" or slla is not None else b""
    body = icmp(135, 0, bytes(4), raw(target) + options)
    return eth(to or group_mac, src_mac, IPV6, ip(src, dst or group, ICMPV6, body, ttl=hops))


def na(
    src_mac: bytes,
    src: str,
    target: str,
    *,
    flags: int = 0x20,
    tlla: bytes | None = None,
    dst: str = "ff02::1",
    to: bytes = mac("33:33:00:00:00:01"),
    hops: int = 255,
) -> bytes:
    """Return a neighbour advertisement."""
    body = icmp(136, 0, bytes((flags, 0, 0, 0)), raw(target) + option(2, tlla if tlla is not None else src_mac))
    return eth(to, src_mac, IPV6, ip(src, dst, ICMPV6, body, ttl=hops))


ROUTER_ALERT = bytes((5, 2, 0, 0))
PADDING = bytes((1, 0))


def mld(src: str, dst: str, type: int, rest: bytes, *, hops: int = 1, options: bytes = ROUTER_ALERT + PADDING) -> bytes:
    """Return a listener query (130), report (131, 143) or done (132) in IP; *rest* is behind its first 4 bytes."""
    message = with_checksum(src, dst, ICMPV6, icmp(type, 0, rest[:4], rest[4:]))
    return ip(src, dst, 0, bytes((ICMPV6, (len(options) - 6) // 8)) + options + message, ttl=hops)


def listens(*groups: str, sources: int = 0) -> bytes:
    """Return what a report of MLDv2 says: to what groups a host listens, and to how many sources in each."""
    said = [struct.pack("!BBH", 4, 0, sources) + raw(g) + raw("2001:db8::1") * sources for g in groups]
    return struct.pack("!HH", 0, len(groups)) + b"".join(said)


class Packet:
    """What an IP frame says; its checksums must hold."""

    def __init__(self, frame: bytes) -> None:
        self.dst_mac, self.src_mac = frame[:6], frame[6:12]
        self.eth_proto = struct.unpack_from("!H", frame, 12)[0]
        body = frame[14:]
        if self.eth_proto == IPV4:
            size = (body[0] & 15) * 4
            total = struct.unpack_from("!H", body, 2)[0]
            assert len(body) >= total
            assert checksum(body[:size]) == 0, "IPv4 header checksum"
            self.ttl, self.proto = body[8], body[9]
            self.src, self.dst = str(ip_address(body[12:16])), str(ip_address(body[16:20]))
            fragment = struct.unpack_from("!H", body, 6)[0]
            self.payload = body[size:total]
        else:
            assert self.eth_proto == IPV6
            total = 40 + struct.unpack_from("!H", body, 4)[0]
            assert len(body) >= total
            self.ttl, self.proto = body[7], body[6]
            self.src, self.dst = str(ip_address(body[8:24])), str(ip_address(body[24:40]))
            fragment = 0
            self.payload = body[40:total]
        self.length = total
        if not fragment & (MF | 0x1FFF) and self.proto in CHECKSUM_AT:
            pseudo = b""
            if self.proto != ICMP:
                pseudo = raw(self.src) + raw(self.dst) + struct.pack("!II", len(self.payload), self.proto)
            assert checksum(pseudo + self.payload) == 0, f"checksum of protocol {self.proto}"

    @property
    def icmp(self) -> tuple[int, int]:
        return self.payload[0], self.payload[1]
