"""Large packets, fragments, groups and both kinds of underlay, on real wires."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator

import pytest

from bpf.packets import checksum
from crossway.lab import Lab, Workload
from crossway.lab.traffic import open_in
from lab.stories import dual, open_group, pings, wait_for


class Scene:
    """Two workloads of one network on two hosts, a third on another network behind a router."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        client = lab.client
        self.group = open_group(lab)
        self.network = dual(lab, "net", 1)
        self.other = dual(lab, "other", 2)
        router = client.create("router", name="r")
        for network in (self.network, self.other):
            for subnet in client.list("subnets", network_id=network["id"]):
                client.add_interface(router["id"], subnet=subnet["id"])
        self.a = self.workload(0, self.network)
        self.b = self.workload(1, self.network)
        self.c = self.workload(1, self.other)

    def workload(self, host: int, network: dict[str, object]) -> Workload:
        return self.lab.workload(self.lab.hosts[host], network, groups=[self.group])


@pytest.fixture(scope="module", params=[4, 6], ids=["IPv4 underlay", "IPv6 underlay"])
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    with Lab.up(hosts=2, underlay=request.param) as lab:
        yield Scene(lab)


@pytest.mark.parametrize("size", [56, 1300, 3000, 8000])
def test_ping_of_any_size_crosses_hosts(scene: Scene, size: int) -> None:
    for dst in (scene.b, scene.c):
        for ip in (dst.ip4, dst.ip6):
            assert pings(scene.a, ip, "-s", str(size)), f"{size} bytes to {ip}"


def test_a_full_packet_fits_whole(scene: Scene) -> None:
    mtu = scene.lab.client.show("network", scene.network["id"])["mtu"]
    assert pings(scene.a, scene.b.ip4, "-M", "do", "-s", str(mtu - 28))
    assert pings(scene.a, scene.b.ip6, "-M", "do", "-s", str(mtu - 48))


@pytest.mark.parametrize("family", [4, 6])
def test_bulk_data_arrives_whole(scene: Scene, family: int) -> None:
    """Ten megabytes over TCP, between hosts and through a router, byte for byte."""
    data = bytes(range(256)) * 40960
    for dst in (scene.b, scene.c):
        ip = dst.ip4 if family == 4 else dst.ip6
        kind = socket.AF_INET if family == 4 else socket.AF_INET6
        with (
            open_in(dst.path, kind, socket.SOCK_STREAM) as listener,
            open_in(scene.a.path, kind, socket.SOCK_STREAM) as near,
        ):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((ip, 7300))
            listener.listen()
            listener.settimeout(10)
            near.settimeout(10)
            near.connect((ip, 7300))
            far, _ = listener.accept()
            with far:
                far.settimeout(10)
                assert _carry(near, far, data) == data


def _carry(near: socket.socket, far: socket.socket, data: bytes) -> bytes:
    near.setblocking(False)
    far.setblocking(False)
    got = bytearray()
    at = 0
    end = time.monotonic() + 20
    while len(got) < len(data) and time.monotonic() < end:
        try:
            if at < len(data):
                at += near.send(data[at : at + 65536])
        except BlockingIOError:
            pass
        try:
            got += far.recv(1 << 20)
        except BlockingIOError:
            time.sleep(0.001)
    return bytes(got)


def test_a_smaller_network_behind_a_router_is_told_to_the_sender() -> None:
    """A packet that the last network cannot carry comes back as too big, and TCP and ping adapt."""
    with Lab.up(hosts=2) as lab:
        client = lab.client
        wide = dual(lab, "wide", 1)
        narrow = dual(lab, "narrow", 2, mtu=1300)
        router = client.create("router", name="r")
        for network in (wide, narrow):
            for subnet in client.list("subnets", network_id=network["id"]):
                client.add_interface(router["id"], subnet=subnet["id"])
        group = open_group(lab)
        a = lab.workload(lab.hosts[0], wide, groups=[group])
        b = lab.workload(lab.hosts[1], narrow, groups=[group])
        said = a.exec("ping", "-4", "-c2", "-W2", "-M", "do", "-s", "1372", b.ip4, check=False).stdout
        assert "mtu = 1300" in said or "mtu=1300" in said, said
        said = a.exec("ping", "-6", "-c2", "-W2", "-M", "do", "-s", "1352", b.ip6, check=False).stdout
        assert "1300" in said, said
        assert wait_for(lambda: pings(a, b.ip4, "-s", "1400"), 5)
        assert wait_for(lambda: pings(a, b.ip6, "-s", "1400"), 5)


def test_broadcast_and_multicast_reach_every_member_once(scene: Scene) -> None:
    more = [scene.workload(0, scene.network), scene.workload(1, scene.network)]
    members = [scene.b, *more]
    try:
        for to in ("10.1.0.255", "239.1.2.3", "ff02::77"):
            family = socket.AF_INET6 if ":" in to else socket.AF_INET
            listeners = [_listener(w, family, to) for w in members]
            stranger = _listener(scene.c, family, to)
            with open_in(scene.a.path, family, socket.SOCK_DGRAM) as sender:
                sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
                _send_to_group(scene.a, sender, family, to)
            time.sleep(0.5)
            try:
                assert [_count(s) for s in listeners] == [1] * len(listeners), to
                assert _count(stranger) == 0, to
            finally:
                for sock in (*listeners, stranger):
                    sock.close()
    finally:
        for workload in more:
            workload.delete()


def _index(workload: Workload) -> int:
    said = workload.exec("ip", "-o", "link", "show", "eth0").stdout
    return int(said.split(":")[0])


def _listener(workload: Workload, family: int, to: str) -> socket.socket:
    sock = open_in(workload.path, family, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.bind(("", 7400))
    index = _index(workload)
    if family == socket.AF_INET6:
        group = socket.inet_pton(family, to) + struct.pack("@I", index)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group)
    elif to.startswith("239."):
        group = socket.inet_aton(to) + struct.pack("=4si", b"", index)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
    return sock


def _send_to_group(workload: Workload, sender: socket.socket, family: int, to: str) -> None:
    index = _index(workload)
    if family == socket.AF_INET6:
        sender.sendto(b"all", (to, 7400, 0, index))
        return
    if to.startswith("239."):
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, struct.pack("=4s4si", b"", b"", index))
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
    sender.sendto(b"all", (to, 7400))


def _count(sock: socket.socket) -> int:
    count = 0
    try:
        while sock.recv(64):
            count += 1
    except BlockingIOError:
        pass
    return count


def test_overlay_packets_from_a_stranger_are_refused() -> None:
    """Somebody on the underlay who is no host sends well-made VXLAN packets: not one arrives."""
    with Lab.up(hosts=1) as lab:
        network = dual(lab, "net", 1)
        a = lab.workload(lab.hosts[0], network, groups=[open_group(lab)])
        number = lab.client.show("network", network["id"])["provider:segmentation_id"]
        sock = open_in(a.path, socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("", 7500))
        sock.setblocking(False)
        inner = bytes.fromhex(a.mac.replace(":", "")) + bytes.fromhex("fa163e000001") + b"\x08\x00"
        head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 33, 1, 0, 64, 17, 0, b"\x0a\x01\x00\x63", socket.inet_aton(a.ip4))
        head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
        inner += head + struct.pack("!HHHH", 9, 7500, 13, 0) + b"hello"
        with open_in(lab.control.path, socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for _ in range(5):
                stranger.sendto(struct.pack("!II", 0x08000000, number << 8) + inner, (lab.hosts[0].underlay, 4789))
        time.sleep(0.5)
        assert _count(sock) == 0
        sock.close()
        drops = lab.hosts[0].agent_client.drops()
        assert sum(d["packets"] for d in drops if d["reason"] == "UNKNOWN_HOST") == 5, drops
