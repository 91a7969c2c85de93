"""A workload that lies is stopped at its own port, under the name of its lie."""

from __future__ import annotations

import ipaddress
import socket
import struct
import time
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from bpf.packets import checksum
from crossway.lab import Lab, Workload
from crossway.lab.traffic import inside, open_in
from lab.stories import dual, open_group

OTHER_MAC = bytes.fromhex("fa163e999999")
ALL = b"\xff" * 6


class Scene(NamedTuple):
    liar: Workload
    victim: Workload
    raw: socket.socket
    ear: socket.socket


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with Lab.up(hosts=2) as lab:
        network = dual(lab, "net", 1)
        group = open_group(lab)
        liar, victim = (lab.workload(host, network, groups=[group]) for host in lab.hosts)
        raw = open_in(liar.path, socket.AF_PACKET, socket.SOCK_RAW)
        with inside(liar.path):
            raw.bind(("eth0", 0))
        ear = open_in(victim.path, socket.AF_PACKET, socket.SOCK_RAW)
        ear.setblocking(False)
        with inside(victim.path):
            ear.bind(("eth0", 3))
        yield Scene(liar, victim, raw, ear)
        raw.close()
        ear.close()


def ipv4(src: str, dst: str, proto: int, body: bytes) -> bytes:
    ends = ipaddress.ip_address(src).packed + ipaddress.ip_address(dst).packed
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 1, 0, 64, proto, 0) + ends
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + body


def ipv6(src: str, dst: str, proto: int, body: bytes, hops: int = 255) -> bytes:
    ends = ipaddress.ip_address(src).packed + ipaddress.ip_address(dst).packed
    if proto == 58:
        body = body[:2] + struct.pack("!H", checksum(ends + struct.pack("!II", len(body), 58) + body)) + body[4:]
    return struct.pack("!IHBB", 6 << 28, len(body), proto, hops) + ends + body


def udp(src: int, dst: int, body: bytes = b"lie") -> bytes:
    return struct.pack("!HHHH", src, dst, 8 + len(body), 0) + body


def arp(kind: int, mac: bytes, ip: str, target: str) -> bytes:
    ends = mac + ipaddress.ip_address(ip).packed + bytes(6) + ipaddress.ip_address(target).packed
    return struct.pack("!HHBBH", 1, 0x800, 6, 4, kind) + ends


LIES = {
    "MAC": "SPOOFED_MAC",
    "IPv4": "SPOOFED_IPV4",
    "IPv6": "SPOOFED_IPV6",
    "ARP": "SPOOFED_ARP",
    "ARP MAC": "SPOOFED_ARP",
    "ND": "SPOOFED_ND",
    "ND MAC": "SPOOFED_ND",
    "VLAN": "SPOOFED_VLAN",
    "DHCP": "ROGUE_DHCP",
    "DHCPv6": "ROGUE_DHCP",
    "RA": "ROGUE_RA",
    "redirect": "ROGUE_RA",
}


def lie(kind: str, scene: Scene) -> bytes:
    """Return a frame that tells one lie."""
    liar, victim = scene.liar, scene.victim
    own, to = (bytes.fromhex(w.mac.replace(":", "")) for w in (liar, victim))
    link_local = next(
        line.split()[1].split("/")[0]
        for line in liar.exec("ip", "-6", "addr", "show", "dev", "eth0", "scope", "link").stdout.splitlines()
        if "inet6" in line
    )
    v4, v6 = b"\x08\x00", b"\x86\xdd"
    far6 = ipaddress.ip_address(victim.ip6).packed
    return {
        "MAC": to + OTHER_MAC + v4 + ipv4(liar.ip4, victim.ip4, 17, udp(1, 2)),
        "IPv4": to + own + v4 + ipv4("10.1.0.200", victim.ip4, 17, udp(1, 2)),
        "IPv6": to + own + v6 + ipv6("fd00:1::200", victim.ip6, 17, udp(1, 2)),
        "ARP": ALL + own + b"\x08\x06" + arp(1, own, "10.1.0.200", victim.ip4),
        "ARP MAC": to + own + b"\x08\x06" + arp(2, OTHER_MAC, liar.ip4, victim.ip4),
        "ND": to + own + v6 + ipv6(liar.ip6, victim.ip6, 58, struct.pack("!BBHI", 136, 0, 0, 0x20000000) + far6),
        "ND MAC": to
        + own
        + v6
        + ipv6(
            liar.ip6,
            victim.ip6,
            58,
            struct.pack("!BBHI", 136, 0, 0, 0x20000000)
            + ipaddress.ip_address(liar.ip6).packed
            + b"\x02\x01"
            + OTHER_MAC,
        ),
        "VLAN": to + own + b"\x81\x00\x00\x05" + v4 + ipv4(liar.ip4, victim.ip4, 17, udp(1, 2)),
        "DHCP": ALL + own + v4 + ipv4(liar.ip4, "255.255.255.255", 17, udp(67, 68, bytes(240))),
        "DHCPv6": to + own + v6 + ipv6(link_local, victim.ip6, 17, udp(547, 546, bytes(20))),
        "RA": bytes.fromhex("333300000001")
        + own
        + v6
        + ipv6(link_local, "ff02::1", 58, struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0)),
        "redirect": to + own + v6 + ipv6(link_local, victim.ip6, 58, struct.pack("!BBHI", 137, 0, 0, 0) + far6 + far6),
        "none": to + own + v4 + ipv4(liar.ip4, victim.ip4, 17, udp(1, 2)),
    }[kind]


def hear(scene: Scene) -> list[bytes]:
    """Return what the victim got that the liar may have sent."""
    got = []
    try:
        while True:
            frame, (_, _, kind, *_) = scene.ear.recvfrom(2048)
            if kind != socket.PACKET_OUTGOING:
                got.append(frame)
    except BlockingIOError:
        return [frame for frame in got if b"lie" in frame or frame[6:12] == OTHER_MAC or frame[12:14] == b"\x08\x06"]


@pytest.mark.parametrize(("kind", "reason"), LIES.items(), ids=LIES)
def test_a_lie_is_dropped_under_its_own_reason(scene: Scene, kind: str, reason: str) -> None:
    before = {d["reason"]: d["packets"] for d in scene.liar.drops()}
    frame = lie(kind, scene)
    time.sleep(0.05)
    hear(scene)
    for _ in range(3):
        scene.raw.send(frame)
    time.sleep(0.2)
    after = {d["reason"]: d["packets"] for d in scene.liar.drops()}
    assert {r: after[r] - before.get(r, 0) for r in after if after[r] != before.get(r, 0)} == {reason: 3}
    assert hear(scene) == []


def test_the_truth_passes(scene: Scene) -> None:
    hear(scene)
    scene.raw.send(lie("none", scene))
    time.sleep(0.2)
    assert sum(b"lie" in frame for frame in hear(scene)) == 1
