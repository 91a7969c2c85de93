"""A hundred tenants with the same prefix on three hosts: each reaches its own and nobody else's."""

from __future__ import annotations

import ipaddress
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest

from bpf.packets import checksum
from crossway.client import Client
from crossway.lab import Lab, Workload
from crossway.lab.traffic import inside, open_in

TENANTS = 100
PORT = 7000


class Ends(NamedTuple):
    """The sockets of one workload."""

    tenant: int
    workload: Workload
    udp4: socket.socket
    udp6: socket.socket
    raw: socket.socket

    def unique(self) -> str:
        return f"{self.tenant}.{self.workload.host.name}"


def make_tenant(lab: Lab, number: int) -> list[Workload]:
    """Make one tenant's network and its workload on each host; the last one's address is in no other tenant."""
    tenant = Client(lab.url, project=f"tenant{number}", roles="member")
    network = tenant.create("network", name="net")
    subnets = [
        tenant.create("subnet", network_id=network["id"], ip_version=version, cidr=cidr)["id"]
        for version, cidr in ((4, "10.0.0.0/24"), (6, "fd00::/64"))
    ]
    group = tenant.create("security_group", name="open")
    for ethertype in ("IPv4", "IPv6"):
        tenant.create("security_group_rule", security_group_id=group["id"], direction="ingress", ethertype=ethertype)
    made = []
    for n, host in enumerate(lab.hosts):
        last = 11 + n if n < 2 else 100 + number
        ips = [
            {"subnet_id": s, "ip_address": f"{net}{last}"}
            for s, net in zip(subnets, ("10.0.0.", "fd00::"), strict=True)
        ]
        port = tenant.create("port", network_id=network["id"], fixed_ips=ips, security_groups=[group["id"]])
        made.append(lab.workload(host, network, name=f"t{number}{host.name}", port=port, wait=False))
    tenant.close()
    return made


def udp(workload: Workload, family: int) -> socket.socket:
    sock = open_in(workload.path, family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", PORT))
    sock.setblocking(False)
    return sock


def raw(workload: Workload) -> socket.socket:
    sock = open_in(workload.path, socket.AF_PACKET, socket.SOCK_RAW)
    with inside(workload.path):
        sock.bind(("eth0", 0))
    return sock


def datagram(src: Workload, dst: Workload, family: int, text: bytes) -> bytes:
    """Return a whole frame from one workload straight to another's MAC and address."""
    a, b = (ipaddress.ip_address(w.ip4 if family == 4 else w.ip6).packed for w in (src, dst))
    length = 8 + len(text)
    if family == 4:
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 1, 0, 64, 17, 0) + a + b
        head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    else:
        head = struct.pack("!IHBB", 6 << 28, length, 17, 64) + a + b
    kind = b"\x08\x00" if family == 4 else b"\x86\xdd"
    macs = bytes.fromhex((dst.mac + src.mac).replace(":", ""))
    body = struct.pack("!HHHH", PORT, PORT, length, 0) + text
    if family == 6:
        pseudo = a + b + struct.pack("!II", length, 17) + body
        body = body[:6] + struct.pack("!H", checksum(pseudo) or 0xFFFF) + body[8:]
    return macs + kind + head + body


def drain(ends: list[Ends]) -> dict[str, set[str]]:
    """Return who got what."""
    got: dict[str, set[str]] = {}
    for one in ends:
        heard = got.setdefault(one.unique(), set())
        for sock in (one.udp4, one.udp6):
            while True:
                try:
                    heard.add(sock.recv(1500).decode())
                except BlockingIOError:
                    break
    return got


@pytest.mark.timeout(600)
def test_each_of_a_hundred_tenants_reaches_its_own_and_none_another() -> None:
    with Lab.up(hosts=3) as lab:
        with ThreadPoolExecutor(4) as pool:
            made = list(pool.map(lambda n: make_tenant(lab, n), range(TENANTS)))
        for workloads in made:
            for workload in workloads:
                workload.active(60)
        ends = [
            Ends(n, w, udp(w, socket.AF_INET), udp(w, socket.AF_INET6), raw(w)) for n, ws in enumerate(made) for w in ws
        ]
        try:
            check_own(ends)
            check_others(ends)
        finally:
            for one in ends:
                for sock in (one.udp4, one.udp6, one.raw):
                    sock.close()


def check_own(ends: list[Ends]) -> None:
    """Every workload sends to each of its tenant's, over both families."""
    wanted: dict[str, set[str]] = {one.unique(): set() for one in ends}
    for one in ends:
        for other in ends[one.tenant * 3 : one.tenant * 3 + 3]:
            if other is one:
                continue
            for sock, ip in ((one.udp4, other.workload.ip4), (one.udp6, other.workload.ip6)):
                text = f"{one.unique()} to {other.unique()} {ip}"
                sock.sendto(text.encode(), (ip, PORT))
                wanted[other.unique()].add(text)
    time.sleep(2)
    got = drain(ends)
    assert {k: v - got[k] for k, v in wanted.items() if v - got[k]} == {}, "did not reach its own"
    assert {k: v - wanted[k] for k, v in got.items() if v - wanted[k]} == {}, "reached another's"


def check_others(ends: list[Ends]) -> None:
    """Every workload sends frames to the MAC and address of one workload of every other tenant."""
    sent = 0
    targets = [one for one in ends if one.workload.host.name == "h3"]
    for one in ends:
        for other in targets:
            if other.tenant != one.tenant:
                for family in (4, 6):
                    one.raw.send(datagram(one.workload, other.workload, family, b"astray"))
                    sent += 1
    time.sleep(1)
    assert sent == len(ends) * (TENANTS - 1) * 2
    assert {k: v for k, v in drain(ends).items() if v} == {}, "reached another tenant's"
    # The frames are good ones: sent within the tenant they arrive.
    src, dst = ends[0], ends[2]
    for family in (4, 6):
        src.raw.send(datagram(src.workload, dst.workload, family, b"home %d" % family))
    time.sleep(0.5)
    assert drain([dst]) == {dst.unique(): {"home 4", "home 6"}}
