"""What a virtual machine writes to its tap: headers that do not lie in one piece, segments still to be made."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator

import pytest

from bpf.packets import ACK, IPV4, TCP, UDP, Packet, arp, eth, ip, ipv6_fragment, tcp, udp
from bpf.world import FAR, RED, TAP, A, D, Ears, Who, World, frame, gateway
from crossway.model import rows as r

TUNSETIFF, TUNSETOFFLOAD = 0x400454CA, 0x400454D0
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x2, 0x1000, 0x4000
TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6 = 1, 2, 4
NEEDS_CSUM, GSO_TCPV4 = 1, 1
GUEST = Who(RED, 15, 1, "tap0", body=r.Body.TAP)


@pytest.fixture
def tap(w: World) -> Iterator[int]:
    """Be the virtual machine behind GUEST's tap: a file of frames, each behind a virtio header."""
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    try:
        request = struct.pack("16sH22x", b"tap0", IFF_TAP | IFF_NO_PI | IFF_VNET_HDR)
        fcntl.ioctl(fd, TUNSETIFF, request)
        fcntl.ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6)
        with open("/proc/sys/net/ipv6/conf/tap0/disable_ipv6", "w") as setting:
            setting.write("1")
        link("tap0", "mtu", "1450", "up")
        w.add(GUEST)
        w.bpf.attach("from_workload", GUEST.key.ifindex)
        yield fd
    finally:
        os.close(fd)


def write(tap: int, frame: bytes, linear: int = 0, gso: int = 0) -> None:
    """Write a frame of which the kernel puts the first *linear* bytes in one piece."""
    start = 34 if gso else 0
    flags, kind, checksum = (NEEDS_CSUM, GSO_TCPV4, 16) if gso else (0, 0, 0)
    header = struct.pack("<BBHHHH", flags, kind, linear, gso, start, checksum)
    os.write(tap, header + frame)


def read(tap: int) -> list[bytes]:
    found = []
    try:
        while True:
            came = os.read(tap, 65536)
            assert came[0] & NEEDS_CSUM == 0, "a checksum is still to be made"
            found.append(came[10:])
    except BlockingIOError:
        return found


def link(*settings: str) -> None:
    subprocess.run(["ip", "link", "set", *settings], check=True)


def large(w: World) -> None:
    """Let large packets go from the guest to TAP."""
    w.mtu(RED, 9000)
    for device in ("dt", "dt-in"):
        link(device, "mtu", "9000")


BIG = b"x" * 5000  # beyond a page: the kernel puts the rest in pieces


@pytest.mark.parametrize("linear", [14, 20, 34, 54])
@pytest.mark.parametrize("v", [4, 6])
def test_headers_in_pieces_are_read(w: World, tap: int, v: int, linear: int) -> None:
    large(w)
    w.policy(GUEST.identity, only(UDP, 4), only(UDP, 6))
    with Ears("dt") as ears:
        write(tap, frame(GUEST, TAP, UDP, udp(1, 2, BIG), v), linear)
        write(tap, frame(GUEST, TAP, TCP, tcp(1, 2, ACK, BIG), v), linear)
        write(tap, frame(A, TAP, UDP, udp(1, 2, BIG), v), linear)
        ears.must_hear({"dt": [frame(GUEST, TAP, UDP, udp(1, 2, BIG), v)]})
    counted = {w.reasons[k.why]: row for k, row in w.bpf.table("drops").read().items()}
    assert set(counted) == {"DROP_POLICY_OUT", "DROP_SPOOFED_MAC"}
    assert (counted["DROP_POLICY_OUT"].proto, counted["DROP_POLICY_OUT"].dst_port) == (TCP, 2)


def only(proto: int, v: int) -> dict[r.PolicyKey, r.Policy]:
    kind = r.Family.IPV4 if v == 4 else r.Family.IPV6
    return {r.PolicyKey(96, GUEST.identity, 0, r.Remote.ANY, r.Way.OUT, kind, proto, 0): r.Policy(1, 0)}


def test_extension_headers_in_pieces_are_walked(w: World, tap: int) -> None:
    large(w)
    sent = frame(GUEST, TAP, 44, ipv6_fragment(UDP, 0, True, 1, udp(1, 2, BIG)), 6)
    with Ears("dt") as ears:
        write(tap, sent, 14)
        ears.must_hear({"dt": [sent]})
    assert [(k.proto, k.local_port, k.remote_port) for k in w.flows() if k.port == GUEST.key] == [(UDP, 1, 2)]


@pytest.mark.parametrize("mtu", [1450, 1300])
def test_a_large_segment_is_told_the_mtu_behind_the_router(w: World, tap: int, mtu: int) -> None:
    w.mtu(D.network, mtu)
    sent = frame(GUEST, D, TCP, tcp(1, 2, ACK, BIG), to=gateway(RED))
    write(tap, sent, linear=54, gso=1400)
    answers = read(tap)
    if mtu == 1450:
        assert answers == []
        return
    (answer,) = answers
    told = Packet(answer)  # its checksums hold, though the segment's own was still to be made
    assert (told.icmp, told.payload[4:8]) == ((3, 4), (1300).to_bytes(4, "big"))
    assert (told.dst, told.src) == (GUEST.ip4, gateway(RED).ip4)
    assert told.payload[8:28] == sent[14:34]


def test_a_guest_that_asks_gets_the_answer(w: World, tap: int) -> None:
    write(tap, arp(1, GUEST.mac, GUEST.ip4, FAR.ip4))
    assert read(tap) == [arp(2, FAR.mac, FAR.ip4, GUEST.ip4, GUEST.mac, GUEST.mac)]
    write(tap, eth(gateway(RED).mac, GUEST.mac, IPV4, ip(GUEST.ip4, "198.51.100.1", UDP, udp(1, 2))))
    (answer,) = read(tap)
    assert Packet(answer).icmp == (3, 0)
