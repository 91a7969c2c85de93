"""Frames that a body's own kernel would not send."""

from __future__ import annotations

import struct
from ipaddress import ip_address

from crossway.agent.guest.frame import ICMPV6, UDP, Frame, build, checksum

ALL = b"\xff" * 6
ALL_NODES = "ff02::1"
ALL_NODES_MAC = "33:33:00:00:00:01"
NOBODY_MAC = "fa:16:3e:99:99:99"
ARP, VLAN, LOCAL_EXPERIMENTAL = 0x0806, 0x8100, 0x88B5
ASK, ANSWER = 1, 2  # of ARP
REDIRECT, ADVERTISEMENT, NEIGHBOUR_ASKED, NEIGHBOUR = 137, 134, 135, 136


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def packed(ip: str) -> bytes:
    return ip_address(ip).packed


def ethernet(src: str, dst: str, kind: int, body: bytes) -> bytes:
    return mac(dst) + mac(src) + struct.pack("!H", kind) + body


def udp(src_mac: str, dst_mac: str, src: str, dst: str, body: bytes, ports: tuple[int, int] = (4000, 4001)) -> bytes:
    return build(Frame(mac(dst_mac), mac(src_mac), packed(src), packed(dst), UDP, *ports, body))


def icmp6(src_mac: str, dst_mac: str, src: str, dst: str, body: bytes) -> bytes:
    """Return a message of ICMPv6, whose checksum is filled in."""
    return build(Frame(mac(dst_mac), mac(src_mac), packed(src), packed(dst), ICMPV6, 0, 0, body))


def arp(src_mac: str, dst_mac: str, kind: int, sender_mac: str, sender: str, target: str) -> bytes:
    ends = mac(sender_mac) + packed(sender) + bytes(6) + packed(target)
    return ethernet(src_mac, dst_mac, ARP, struct.pack("!HHBBH", 1, 0x800, 6, 4, kind) + ends)


def advertisement(target: str, target_mac: str) -> bytes:
    """Return the body of a neighbour's advertisement, unasked for."""
    return struct.pack("!BBHI", NEIGHBOUR, 0, 0, 0x20000000) + packed(target) + b"\x02\x01" + mac(target_mac)


def fragment(
    src_mac: str, dst_mac: str, src: str, dst: str, body: bytes, offset: int, number: int, *, more: bool = False
) -> bytes:
    """Return a fragment of a datagram of UDP, *offset* bytes from its beginning; by default the last one."""
    if ":" in src:
        head = struct.pack("!IHBB", 6 << 28, 8 + len(body), 44, 64) + packed(src) + packed(dst)
        return ethernet(src_mac, dst_mac, 0x86DD, head + struct.pack("!BBHI", UDP, 0, offset | more, number) + body)
    ends = packed(src) + packed(dst)
    where = offset // 8 | more << 13
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), number & 0xFFFF, where, 64, UDP, 0) + ends
    head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    return ethernet(src_mac, dst_mac, 0x800, head + body)


def fragments(src_mac: str, dst_mac: str, src: str, dst: str, body: bytes, port: int, number: int) -> list[bytes]:
    """Return a datagram of UDP to a port in fragments of at most 1,000 bytes, the first one first."""
    whole = udp(src_mac, dst_mac, src, dst, body, (port, port))[14 + (40 if ":" in src else 20) :]
    return [
        fragment(src_mac, dst_mac, src, dst, whole[at : at + 1000], at, number, more=at + 1000 < len(whole))
        for at in range(0, len(whole), 1000)
    ]


def tagged(frame: bytes, vlan: int) -> bytes:
    return frame[:12] + struct.pack("!HH", VLAN, vlan) + frame[12:]
