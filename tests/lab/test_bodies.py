"""A port is a port: as a tap, as a VLAN of a link, as a veth, on one network."""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import os
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any

import pytest

from bpf.packets import checksum
from crossway.lab import Lab
from crossway.lab.traffic import inside, open_in
from lab.stories import dual, open_group, pings, wait_for

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 2, 0x1000
TAG = 5


class Guest:
    """A machine with one interface and a very small IP stack: it asks and answers ARP and ping.

    Frames go through *read* and *write*; with a tag, every frame has one.
    """

    def __init__(self, port: dict[str, Any], write: Any, read: Any, tag: int | None) -> None:
        self.mac = bytes.fromhex(port["mac_address"].replace(":", ""))
        self.ip = next(i["ip_address"] for i in port["fixed_ips"] if ":" not in i["ip_address"])
        self._write, self._read, self._tag = write, read, tag

    def send(self, to: bytes, kind: int, body: bytes) -> None:
        tag = b"" if self._tag is None else struct.pack("!HH", 0x8100, self._tag)
        self._write(to + self.mac + tag + struct.pack("!H", kind) + body)

    def hear(self, kind: int, seconds: float = 2.0) -> bytes | None:
        """Return the body of the next frame of an EtherType, or None; a ping is answered meanwhile."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                frame = self._read()
            except BlockingIOError:
                time.sleep(0.002)
                continue
            if self._tag is not None:
                if frame[12:16] != struct.pack("!HH", 0x8100, self._tag):
                    continue
                frame = frame[:12] + frame[16:]
            if frame[:6] != self.mac or struct.unpack("!H", frame[12:14])[0] != kind:
                continue
            return bytes(frame[14:])
        return None

    def arp(self, ip: str) -> bytes | None:
        """Return the MAC of an address, asked by ARP."""
        own, target = (ipaddress.ip_address(i).packed for i in (self.ip, ip))
        self.send(b"\xff" * 6, 0x806, struct.pack("!HHBBH", 1, 0x800, 6, 4, 1) + self.mac + own + bytes(6) + target)
        answer = self.hear(0x806)
        return answer[8:14] if answer is not None and answer[14:18] == target else None

    def ping(self, ip: str, mac: bytes) -> bool:
        own, target = (ipaddress.ip_address(i).packed for i in (self.ip, ip))
        echo = struct.pack("!BBHHH", 8, 0, 0, 77, 1) + b"12345678"
        echo = echo[:2] + struct.pack("!H", checksum(echo)) + echo[4:]
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(echo), 1, 0, 64, 1, 0) + own + target
        head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
        self.send(mac, 0x800, head + echo)
        answer = self.hear(0x800)
        return answer is not None and answer[12:16] == target and answer[20] == 0 and answer[-8:] == b"12345678"


@contextlib.contextmanager
def tap_guest(lab: Lab, host: int, port: dict[str, Any]) -> Iterator[Guest]:
    """Make a tap on a host, plug the port as it, and be the machine behind it."""
    place = lab.hosts[host]
    with inside(place.path):
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", b"guest0", IFF_TAP | IFF_NO_PI))
    try:
        place.agent_client.plug(port["id"], tap="guest0")
        lab.client.wait("port", port["id"])
        yield Guest(port, lambda frame: os.write(fd, frame), lambda: os.read(fd, 2048), None)
    finally:
        os.close(fd)


@contextlib.contextmanager
def vlan_guest(lab: Lab, host: int, port: dict[str, Any]) -> Iterator[Guest]:
    """Be a server behind a trunk of a host, on one VLAN of it; it has no agent."""
    place, server = lab.hosts[host], lab.namespace("server")
    place.exec("ip", "link", "add", "trunk0", "type", "veth", "peer", "name", "nic0", "netns", server.netns)
    place.exec("ip", "link", "set", "trunk0", "up")
    server.exec("ip", "link", "set", "nic0", "up")
    sock = open_in(server.path, socket.AF_PACKET, socket.SOCK_RAW)
    sock.setsockopt(263, 8, 1)  # SOL_PACKET, PACKET_AUXDATA: the kernel takes tags out of received frames
    sock.setblocking(False)
    with inside(server.path):
        sock.bind(("nic0", 3))

    def read() -> bytes:
        frame, notes, _, (_, _, kind, *_) = sock.recvmsg(2048, 256)
        if kind == socket.PACKET_OUTGOING:  # type: ignore[attr-defined]
            raise BlockingIOError
        for level, what, data in notes:
            if (level, what) == (263, 8):
                status, *_, tci, tpid = struct.unpack("=IIIHHHH", data)
                if status & 0x10:
                    frame = frame[:12] + struct.pack("!HH", tpid or 0x8100, tci) + frame[12:]
        return frame

    try:
        place.agent_client.plug(port["id"], vlan=("trunk0", TAG))
        lab.client.wait("port", port["id"])
        yield Guest(port, sock.send, read, TAG)
    finally:
        sock.close()


GUESTS = {"tap": tap_guest, "VLAN": vlan_guest}


@pytest.mark.parametrize("kind", GUESTS)
def test_a_body_reaches_a_container_on_each_host_and_through_a_router(kind: str) -> None:
    with Lab.up(hosts=2) as lab:
        client = lab.client
        near, far = dual(lab, "near", 1), dual(lab, "far", 2)
        router = client.create("router", name="r")
        for network in (near, far):
            for subnet in client.list("subnets", network_id=network["id"]):
                client.add_interface(router["id"], subnet=subnet["id"])
        group = open_group(lab)
        containers = [lab.workload(host, near, groups=[group]) for host in lab.hosts]
        beyond = lab.workload(lab.hosts[1], far, groups=[group])
        port = client.create("port", network_id=near["id"], security_groups=[group["id"]])
        with GUESTS[kind](lab, 0, port) as guest:
            for container in containers:
                mac = guest.arp(container.ip4)
                assert mac == bytes.fromhex(container.mac.replace(":", ""))
                assert guest.ping(container.ip4, mac)
            gateway = guest.arp("10.1.0.1")
            assert gateway is not None
            assert guest.ping("10.1.0.1", gateway)
            assert guest.ping(beyond.ip4, gateway)
            assert guest.arp("10.1.0.250") is None
        if kind == "tap":
            # Its tap is gone: the port is down, and nobody reaches it any more.
            assert wait_for(lambda: client.show("port", port["id"])["status"] == "DOWN", 10)
        assert not pings(containers[1], guest.ip)


def test_a_tag_of_another_vlan_belongs_to_no_port() -> None:
    with Lab.up(hosts=1) as lab:
        network = dual(lab, "net", 1)
        group = open_group(lab)
        a = lab.workload(lab.hosts[0], network, groups=[group])
        port = lab.client.create("port", network_id=network["id"], security_groups=[group["id"]])
        with vlan_guest(lab, 0, port) as guest:
            assert guest.arp(a.ip4) is not None
            guest._tag = TAG + 1
            assert guest.arp(a.ip4) is None
            drops = lab.hosts[0].agent_client.drops()
            assert sum(d["packets"] for d in drops if d["reason"] == "NO_PORT") >= 1
