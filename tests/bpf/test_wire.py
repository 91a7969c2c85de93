"""The data plane on real links: two hosts, an underlay between them, workloads in namespaces of their own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from socket import if_nametoindex

import pytest

from crossway.kernel.bpf import Object
from crossway.kernel.links import Links
from crossway.kernel.netlink import inside, open_netns
from crossway.lab.place import Place
from crossway.model import rows as r

NET, OTHER, ROUTER = 101, 102, 7
ANYONE = 1  # an identity whose rules allow everything
PREFIX = {NET: ("10.1.0", "fd01"), OTHER: ("10.2.0", "fd02")}


@dataclass
class Workload:
    place: Place
    network: int
    number: int
    host: int
    device: int = 0

    @property
    def mac(self) -> bytes:
        return bytes((2, 0, 0, 0, self.network, self.number))

    @property
    def ips(self) -> tuple[str, str]:
        v4, v6 = PREFIX[self.network]
        return f"{v4}.{self.number}", f"{v6}::{self.number}"

    @property
    def link_local(self) -> str:
        return f"fe80::ff:fe00:{self.network:02x}{self.number:02x}"


@dataclass
class Host:
    place: Place
    underlay: str
    bpf: Object | None = None
    direct: bool = False
    workloads: list[Workload] = field(default_factory=list)


def gateway(network: int) -> tuple[str, str, bytes]:
    v4, v6 = PREFIX[network]
    return f"{v4}.254", f"{v6}::254", bytes((2, 0, 0, 1, network, 254))


def fill(host: Host, everyone: list[Workload], hosts: list[Host], mtu: int) -> None:
    """Write the rows of one host: what an agent does."""
    bpf = host.bpf
    assert bpf is not None
    for h in hosts:
        if h is not host:
            bpf.table("hosts").put({r.pack_ip(h.underlay): r.Host(1)})
    bpf.table("generations").put({ANYONE: 1})
    for way in r.Way:
        for family in r.Family:
            anyone = r.pack_bits(1 << r.PortSetNumber.ANYONE)
            bpf.table("port_sets").put({r.PortSetKey(56, ANYONE, way, family, 0, 0): r.PortSet(anyone, anyone)})
    members: dict[int, list[r.Place]] = {NET: [], OTHER: []}
    for w in everyone:
        here = hosts[w.host] is host
        ips = [r.pack_ip(ip) for ip in (*w.ips, w.link_local)]
        if here:
            key = r.PortKey(w.device)
            place = r.Place(r.PlaceKind.LOCAL, r.Body.VETH, r.PortFlag.SECURED, ANYONE, port=key)
            port = r.Port(w.network, ANYONE, w.mac, r.Body.VETH, r.PortFlag.SECURED, mtu, (ips[0], ips[1]))
            bpf.table("ports").put({key: port})
            bpf.table("sources").put({r.SourceKey(256, key, w.mac, ip): 1 for ip in ips})
            members[w.network].append(place)
        else:
            place = r.Place(r.PlaceKind.REMOTE, identity=ANYONE, underlay=r.pack_ip(hosts[w.host].underlay))
            if place not in members[w.network]:
                members[w.network].append(place)
        bpf.table("macs").put({r.MacKey(w.network, w.mac): place})
        bpf.table("endpoints").put({r.EndpointKey(w.network, ip): r.Endpoint(place, w.mac) for ip in ips})
    place = r.Place(r.PlaceKind.ROUTER, router=ROUTER)
    for network in (NET, OTHER):
        bpf.table("networks").put({network: r.Network(mtu, len(members[network]))})
        bpf.table("members").put({r.MemberKey(network, i): m for i, m in enumerate(members[network])})
        v4, v6, mac = gateway(network)
        feet = (r.pack_ip(v4), r.pack_ip(v6))
        bpf.table("interfaces").put({r.InterfaceKey(network, ROUTER): r.Interface(mac, feet)})
        bpf.table("macs").put({r.MacKey(network, mac): place})
        bpf.table("endpoints").put({r.EndpointKey(network, ip): r.Endpoint(place, mac) for ip in feet})
        bpf.table("routes").put(
            {r.RouteKey(160, ROUTER, ip): r.Route(r.RouteKind.SELF, network) for ip in feet}
            | {
                r.RouteKey(32 + 120, ROUTER, feet[0][:15] + b"\0"): r.Route(r.RouteKind.CONNECTED, network),
                r.RouteKey(32 + 64, ROUTER, feet[1][:8] + bytes(8)): r.Route(r.RouteKind.CONNECTED, network),
            }
        )


@pytest.fixture(scope="module", params=["IPv4 underlay", "IPv6 underlay", "direct", "direct to VXLAN device"])
def hosts(request: pytest.FixtureRequest) -> Iterator[list[Host]]:
    tag = f"cwb{os.getpid()}{uuid.uuid4().hex[:4]}"
    v6 = request.param == "IPv6 underlay"
    direct = {"direct": (1, 1), "direct to VXLAN device": (1, 0)}.get(request.param, (0, 0))
    underlay = ["fd77::1", "fd77::2"] if v6 else ["192.0.2.1", "192.0.2.2"]
    root = Place("test", "")
    with ExitStack() as undo:

        def make(name: str) -> Place:
            subprocess.run(["ip", "netns", "add", f"{tag}{name}"], check=True)
            undo.callback(subprocess.run, ["ip", "netns", "del", f"{tag}{name}"], check=False)
            return Place(name, f"{tag}{name}")

        del root
        hosts = [Host(make(f"h{i}"), underlay[i]) for i in range(2)]
        hosts[0].place.script([f"link add u0 mtu 1600 type veth peer name u0 mtu 1600 netns {hosts[1].place.netns}"])
        everyone = []
        for i, h in enumerate(hosts):
            prefix = 64 if v6 else 24
            h.place.script(
                [
                    f"addr add {h.underlay}/{prefix} dev u0" + (" nodad" if v6 else ""),
                    "link set u0 up",
                    "link set lo up",
                ]
            )
            for network, number in ((NET, 1), (NET, 2), (OTHER, 1)):
                number += 10 * i
                w = Workload(make(f"w{i}{network}{number}"), network, number, i)
                mac = w.mac.hex(":")
                h.place.script(
                    [
                        f"link add p{network}x{number} mtu 1450 type veth"
                        f" peer name eth0 address {mac} mtu 1450 netns {w.place.netns}",
                        f"link set p{network}x{number} up",
                    ]
                )
                w.place.script(
                    [
                        "link set lo up",
                        f"addr add {w.ips[0]}/24 dev eth0",
                        f"addr add {w.ips[1]}/64 dev eth0 nodad",
                        "link set eth0 up",
                        f"route add default via {gateway(network)[0]}",
                        f"route add ::/0 via {gateway(network)[1]}",
                    ],
                )
                links = json.loads(h.place.exec("ip", "-j", "link", "show", f"p{network}x{number}").stdout)
                w.device = links[0]["ifindex"]
                h.workloads.append(w)
                everyone.append(w)
        for h, short in zip(hosts, direct, strict=True):
            netns = open_netns(h.place.netns)
            undo.callback(os.close, netns)
            with inside(netns):
                with closing(Links()) as links:
                    overlay = links.overlay(4789)
                    links.set(overlay.ifindex, up=True)
                own = int.from_bytes(r.pack_ip(h.underlay), "little")
                port = int.from_bytes((4789).to_bytes(2, "big"), "little")
                config = {"overlay": overlay.ifindex, "underlay": own, "vxlan_port": port, "direct": short}
                h.bpf, h.direct = Object(config=config), bool(short)
                undo.callback(h.bpf.close)
                fill(h, everyone, hosts, 1450)
                h.bpf.attach("from_overlay", overlay.ifindex)
                if short:
                    h.place.script([], [f"net/ipv4/conf/{overlay.name}/forwarding=1"])
                    h.bpf.attach("from_uplink", if_nametoindex("u0"))
                for w in h.workloads:
                    h.bpf.attach("from_workload", w.device)
        yield hosts


@contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """End a process with its test."""
    with process:
        try:
            yield process
        finally:
            process.kill()


def drops(host: Host) -> dict[int, int]:
    assert host.bpf is not None
    found: dict[int, int] = {}
    for key, row in host.bpf.table("drops").read().items():
        found[key.why] = found.get(key.why, 0) + row.packets
    return found


PAIRS = {
    "same host": (0, 0, 1),
    "across hosts": (0, 3, 3),
    "routed, same host": (0, 2, 2),
    "routed, across hosts": (0, 5, 5),
}


def pair(hosts: list[Host], way: str) -> tuple[Workload, Workload]:
    everyone = hosts[0].workloads + hosts[1].workloads
    return everyone[PAIRS[way][0]], everyone[PAIRS[way][2]]


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("way", PAIRS)
def test_ping(hosts: list[Host], way: str, family: int) -> None:
    a, b = pair(hosts, way)
    ip = b.ips[family == 6]
    said = a.place.exec("ping", f"-{family}", "-c3", "-i0.05", "-W1", ip, check=False).stdout
    assert " 0% packet loss" in said, (said, [drops(h) for h in hosts])
    assert f"ttl={63 if 'routed' in way else 64}" in said


def overlay_packets(host: Host) -> tuple[int, int]:
    """Return how many packets the VXLAN device has taken in and sent."""
    stats = json.loads(host.place.exec("ip", "-j", "-s", "link", "show", "cw-overlay").stdout)[0]["stats64"]
    return stats["rx"]["packets"], stats["tx"]["packets"]


@pytest.mark.parametrize("family", [4, 6])
def test_which_way_packets_go(hosts: list[Host], family: int) -> None:
    a, b = pair(hosts, "across hosts")
    before = [overlay_packets(h) for h in hosts]
    a.place.exec("ping", f"-{family}", "-c20", "-i0.01", "-W1", b.ips[family == 6])
    for h, (taken, sent) in zip(hosts, before, strict=True):
        now = overlay_packets(h)
        # Once a second one goes the long way. On kernels before 6.3 IPv6 within IPv4 comes by it.
        if family == 4 or not h.direct:
            assert (now[0] - taken >= 20) == (not h.direct)
        assert (now[1] - sent >= 20) == (not h.direct)


SINK = """
import socket
s = socket.create_server(("::", 5999), family=socket.AF_INET6, dualstack_ipv6=True)
print("ready", flush=True)
with s, s.accept()[0] as c:
    print(sum(iter(lambda: len(c.recv(1 << 20)), 0)), flush=True)
"""
SOURCE = """
import socket, sys
with socket.create_connection((sys.argv[1], 5999), timeout=15) as s:
    s.sendall(bytes(int(sys.argv[2])))
"""


def transfer(source: Workload, sink: Place, ip: str, size: int) -> int:
    """Send that many bytes over TCP; return how many came."""
    with ended(sink.popen("python3", "-c", SINK)) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        source.place.exec("python3", "-c", SOURCE, ip, str(size), seconds=20)
        return int(server.stdout.readline())


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("way", PAIRS)
def test_tcp(hosts: list[Host], way: str, family: int) -> None:
    a, b = pair(hosts, way)
    assert transfer(a, b.place, b.ips[family == 6], 50_000_000) == 50_000_000, [drops(h) for h in hosts]


@pytest.mark.parametrize("size", [2000, 8000])
@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("way", PAIRS)
def test_fragments(hosts: list[Host], way: str, family: int, size: int) -> None:
    a, b = pair(hosts, way)
    said = a.place.exec("ping", f"-{family}", "-s", str(size), "-c2", "-i0.05", "-W1", b.ips[family == 6], check=False)
    assert " 0% packet loss" in said.stdout, (said.stdout, [drops(h) for h in hosts])


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("size", [56, 4000])
def test_the_router_answers_ping(hosts: list[Host], family: int, size: int) -> None:
    w = hosts[0].workloads[0]
    for network in (NET, OTHER):
        ip = gateway(network)[family == 6]
        said = w.place.exec("ping", f"-{family}", "-s", str(size), "-c2", "-i0.05", "-W1", ip, check=False).stdout
        assert " 0% packet loss" in said, (said, drops(hosts[0]))


@pytest.mark.parametrize("family", [4, 6])
def test_traceroute_shows_the_router(hosts: list[Host], family: int) -> None:
    a, b = pair(hosts, "routed, across hosts")
    said = a.place.exec("traceroute", f"-{family}", "-n", "-w1", "-m4", b.ips[family == 6]).stdout
    hops = [line.split()[1] for line in said.splitlines()[1:]]
    assert hops == [gateway(NET)[family == 6], b.ips[family == 6]], said


@pytest.mark.parametrize("family", [4, 6])
def test_an_address_that_nobody_has_is_unreachable(hosts: list[Host], family: int) -> None:
    w = hosts[0].workloads[0]
    absent = PREFIX[OTHER][0] + ".99" if family == 4 else PREFIX[OTHER][1] + "::99"
    said = w.place.exec("ping", f"-{family}", "-c1", "-W1", absent, check=False).stdout
    assert re.search(r"Destination Host Unreachable|Address unreachable", said), said


@pytest.mark.parametrize("family", [4, 6])
def test_broadcast_reaches_all_of_the_network_and_no_other(hosts: list[Host], family: int) -> None:
    w = hosts[0].workloads[0]
    group = "255.255.255.255" if family == 4 else "ff02::1234"
    listener = (
        "import select,socket,struct,sys\n"
        f"s=socket.socket(socket.AF_INET{'6' if family == 6 else ''},socket.SOCK_DGRAM)\n"
        "s.bind(('',7777))\n"
        + (
            f"s.setsockopt(socket.IPPROTO_IPV6,socket.IPV6_JOIN_GROUP,socket.inet_pton(socket.AF_INET6,'{group}')"
            "+struct.pack('@I',socket.if_nametoindex('eth0')))\n"
            if family == 6
            else ""
        )
        + "print('ready',flush=True)\nready=select.select([s,sys.stdin],[],[],20)[0]\n"
        "print(s.recv(99).decode() if s in ready else 'nothing',flush=True)\n"
    )
    everyone = [x for h in hosts for x in h.workloads if x is not w]
    speak = (
        f"import socket\ns=socket.socket(socket.AF_INET{'6' if family == 6 else ''},socket.SOCK_DGRAM)\n"
        "s.setsockopt(socket.SOL_SOCKET,socket.SO_BROADCAST,1)\n"
        + (
            "s.setsockopt(socket.IPPROTO_IPV6,socket.IPV6_MULTICAST_IF,socket.if_nametoindex('eth0'))\n"
            if family == 6
            else ""
        )
        + f"s.sendto(b'hello',('{group}',7777))\ns.close()\n"
    )
    with ExitStack() as stack:
        options = {"stdin": subprocess.PIPE}
        waiting = {
            x.place.name: stack.enter_context(ended(x.place.popen("python3", "-c", listener, **options)))
            for x in everyone
        }
        assert [next(iter(p.stdout or ())) for p in waiting.values()] == ["ready\n"] * len(waiting)
        w.place.exec("python3", "-c", speak)
        # Those who are to hear it say so, however long it takes: then the others have heard all that they ever will.
        ours = [x.place.name for x in everyone if x.network == NET]
        heard = {name: next(iter(waiting[name].stdout or ())).strip() for name in ours}
        heard |= {name: p.communicate(timeout=30)[0].strip() for name, p in waiting.items() if name not in heard}
    assert heard == {x.place.name: "hello" if x.network == NET else "nothing" for x in everyone}


@pytest.fixture
def narrow(hosts: list[Host]) -> Iterator[int]:
    """Let the other network be narrower than its links tell."""
    mtu = 1300
    before = [h.bpf.table("networks").get(OTHER) for h in hosts if h.bpf]
    for h, row in zip(hosts, before, strict=True):
        assert h.bpf is not None
        h.bpf.table("networks").put({OTHER: row._replace(mtu=mtu)})
    yield mtu
    for h, row in zip(hosts, before, strict=True):
        assert h.bpf is not None
        h.bpf.table("networks").put({OTHER: row})
        for w in h.workloads:
            w.place.exec("ip", "link", "set", "eth0", "mtu", "1450")
            w.place.exec("ip", "route", "flush", "cache")
            w.place.exec("ip", "-6", "route", "flush", "cache")


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("way", ["routed, same host", "routed, across hosts"])
def test_tcp_learns_the_narrowest_network(hosts: list[Host], narrow: int, way: str, family: int) -> None:
    a, b = pair(hosts, way)
    ip = b.ips[family == 6]
    assert transfer(a, b.place, ip, 5_000_000) == 5_000_000, [drops(h) for h in hosts]
    assert f"mtu {narrow}" in a.place.exec("ip", "route", "get", ip).stdout


@pytest.mark.parametrize("family", [4, 6])
def test_a_ping_that_must_not_be_fragmented_is_told_the_mtu(hosts: list[Host], narrow: int, family: int) -> None:
    a, b = pair(hosts, "routed, across hosts")
    said = a.place.exec(
        "ping", f"-{family}", "-M", "do", "-s", "1350", "-c2", "-i0.1", "-W1", b.ips[family == 6], check=False
    )
    assert re.search(
        rf"mtu ?= ?{narrow}|Packet too big: mtu={narrow}|too long, mtu.*{narrow}", said.stdout + said.stderr
    )


@pytest.mark.parametrize("way", ["routed, same host", "routed, across hosts"])
def test_a_ping_that_may_be_fragmented_passes(hosts: list[Host], narrow: int, way: str) -> None:
    a, b = pair(hosts, way)
    b.place.exec("ip", "link", "set", "eth0", "mtu", str(narrow))  # its answer comes in fragments
    said = a.place.exec("ping", "-4", "-M", "dont", "-s", "1350", "-c2", "-i0.1", "-W1", b.ips[0], check=False).stdout
    assert " 0% packet loss" in said, said


HEAR = """
import hashlib, select, socket, sys
seen = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
seen.bind((sys.argv[2], 0x0800))
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
s.bind((sys.argv[1], 5998))
print("ready", flush=True)
came = s.recv(65535) if select.select([s], [], [], 10)[0] else b""
largest = 0
while select.select([seen], [], [], 0.05)[0]:  # it is told after the datagram
    data, (_, _, kind, *_) = seen.recvfrom(65535)
    largest = max(largest, len(data) * (kind != 4))
print(hashlib.sha256(came).hexdigest(), largest, flush=True)
"""
SAY = """
import hashlib, random, socket, sys
data = random.Random(sys.argv[2]).randbytes(int(sys.argv[2]))
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.setsockopt(socket.IPPROTO_IP, 10, 0)  # IP_MTU_DISCOVER, IP_PMTUDISC_DONT
    s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    s.sendto(data, (sys.argv[1], 5998))
print(hashlib.sha256(data).hexdigest())
"""


def datagram(a: Workload, b: Workload, ip: str, size: int, device: str = "eth0") -> int:
    """Have a datagram that may be fragmented arrive; return the size of the largest IP packet that came."""
    with ended(b.place.popen("python3", "-c", HEAR, ip, device)) as ear:
        assert ear.stdout is not None
        assert ear.stdout.readline() == "ready\n"
        said = a.place.exec("python3", "-c", SAY, ip, str(size)).stdout.strip()
        heard, largest = ear.stdout.readline().split()
        assert heard == said
        return int(largest)


@pytest.mark.parametrize("size", [1273, 1400, 8000, 60000])
@pytest.mark.parametrize("way", ["routed, same host", "routed, across hosts"])
def test_a_datagram_comes_in_pieces_that_fit(hosts: list[Host], narrow: int, way: str, size: int) -> None:
    a, b = pair(hosts, way)
    b.place.exec("ip", "link", "set", "eth0", "mtu", str(narrow))
    before = [drops(h) for h in hosts]
    assert narrow - 8 < datagram(a, b, b.ips[0], size) <= narrow
    assert [drops(h) for h in hosts] == before


@pytest.mark.parametrize("options", ["udpcsum", "noudpcsum"])
@pytest.mark.parametrize("way", ["routed, same host", "routed, across hosts"])
def test_a_tunnel_of_a_containers_own_goes_on_whole(hosts: list[Host], narrow: int, way: str, options: str) -> None:
    a, b = pair(hosts, way)
    with ExitStack() as undo:
        for w, other, number in ((a, b, 1), (b, a, 2)):
            w.place.script([
                f"link add vx type vxlan id 9 local {w.ips[0]} remote {other.ips[0]} dstport 4790 {options}",
                f"addr add 172.16.0.{number}/24 dev vx",
                "link set vx mtu 1400 up",
            ])  # fmt: skip
            undo.callback(w.place.exec, "ip", "link", "del", "vx")
        # Its checksum is still to be made when the router sees it, where the router does not look for it.
        assert datagram(a, b, "172.16.0.2", 1372, "eth0") == 1450
