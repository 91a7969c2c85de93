"""What stands behind a virtio header: frames of a virtual machine, at its side of a tap, and of a raw socket."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from socket import AF_PACKET, SOCK_RAW, socket

from bpf.world import RED, SOL_PACKET, Who, World
from crossway.model import rows as r

TUNSETIFF, TUNSETOFFLOAD = 0x400454CA, 0x400454D0
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x2, 0x1000, 0x4000
TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6 = 1, 2, 4
NEEDS_CSUM, GSO_TCPV4 = 1, 1
PACKET_VNET_HDR = 15  # linux/if_packet.h
GUEST = Who(RED, 15, 1, "tap0", body=r.Body.TAP)


@contextmanager
def guest(w: World) -> Iterator[int]:
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


def write(tap: int, frame: bytes, linear: int = 0, gso: int = 0, owed: tuple[int, int] | None = None) -> None:
    """Write a frame of which the kernel puts the first *linear* bytes in one piece.

    A TCP segment is to be cut into pieces of *gso* bytes. A checksum is *owed* to
    what begins at the first offset, at the second behind it.
    """
    os.write(tap, virtio(linear, gso, owed) + frame)


def virtio(linear: int = 0, gso: int = 0, owed: tuple[int, int] | None = None) -> bytes:
    """Return the header in front of a frame."""
    if gso:
        owed = owed or (34, 16)
    start, checksum = owed or (0, 0)
    return struct.pack("<BBHHHH", NEEDS_CSUM if owed else 0, GSO_TCPV4 if gso else 0, linear, gso, start, checksum)


@contextmanager
def raw_socket(device: str) -> Iterator[int]:
    """Be a process behind a device that may send raw frames, with a virtio header before each."""
    with socket(AF_PACKET, SOCK_RAW, 0) as s:
        s.bind((f"{device}-in", 3))
        s.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        yield s.fileno()


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
