"""A small world for packet tests: one host's tables filled by hand, its links in a namespace of their own.

Networks RED (10.0.0.0/24, fd00::/64), BLUE (10.0.1.0/24, fd00:0:0:1::/64) and
GREY, a provider network. Router 1 joins RED and BLUE; it has .1 in both.
Whoever is called `a` on a network has the address .10 and so on; see PORTS.
"""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from socket import AF_PACKET, SOCK_RAW, SOL_SOCKET, htons, if_nametoindex, socket
from typing import Any, NamedTuple

from bpf.packets import IPV4, IPV6, UDP, checksum, eth, family, ip, raw
from crossway.kernel.bpf import REDIRECT, SHOT, UNSPEC, Object, lib
from crossway.kernel.btf import STRUCT
from crossway.kernel.netlink import inside, open_netns
from crossway.model import rows as r

STOLEN = 4  # TC_ACT_STOLEN: consumed, without a drop
# linux/if_packet.h
SOL_PACKET, PACKET_AUXDATA, TP_STATUS_CSUMNOTREADY, TP_STATUS_VLAN_VALID = 263, 8, 0x8, 0x10
SO_RCVBUFFORCE = 33  # asm-generic/socket.h
RED, BLUE, GREY, CLEAR = 10, 20, 30, 40
ROUTER = 1
MTU = 1450
SHARE = 1000  # rows of each table that a port here has for itself
SLOTS = {r.ShareOf.FRAGMENTS: 64, r.ShareOf.EARLY: 16}
SIZES = {
    "ports": 64, "sources": 256, "networks": 1024, "members": 2048, "macs": 1024, "endpoints": 1024, "routes": 1024,
    "interfaces": 1024, "hosts": 64, "uplinks": 64, "port_sets": 4096, "policies": 4096, "prefixes": 1024,
    "flows": 4096, "flows_assured": 4096, "fragments": 1024, "early_fragments": 256, "drops": 1024, "published": 64,
    "gateways": 64, "translations": 1024, "translations_assured": 1024, "shares": 128, "charges": 128, "rates": 64,
    "next_hops": 256,
}  # fmt: skip
PREFIX = {RED: ("10.0.0.", "fd00::"), BLUE: ("10.0.1.", "fd00:0:0:1::"), GREY: ("192.168.7.", "fd07::"),
          CLEAR: ("10.0.4.", "fd04::")}  # fmt: skip
HERE, THERE, STRANGER = "192.0.2.1", "192.0.2.2", "192.0.2.66"


class Who(NamedTuple):
    """A port: where it is, and as whom it speaks."""

    network: int
    number: int
    identity: int
    device: str | None  # None: on another host
    vlan: int = 0
    body: r.Body = r.Body.VETH
    secured: bool = True

    @property
    def mac(self) -> bytes:
        return bytes((2, 0, 0, 0, self.network, self.number))

    @property
    def ip4(self) -> str:
        return f"{PREFIX[self.network][0]}{self.number}"

    @property
    def ip6(self) -> str:
        return f"{PREFIX[self.network][1]}{self.number}"

    @property
    def link_local(self) -> str:
        return f"fe80::{self.network}:{self.number}"

    def ip(self, family: int) -> str:
        return self.ip4 if family == 4 else self.ip6

    @property
    def key(self) -> r.PortKey:
        return r.PortKey(if_nametoindex(self.device or "lo"), self.vlan)

    @property
    def place(self) -> r.Place:
        if self.device is None:
            return r.Place(r.PlaceKind.REMOTE, identity=self.identity, underlay=r.pack_ip(THERE))
        return r.Place(r.PlaceKind.LOCAL, self.body, self.flags, self.identity, port=self.key)

    @property
    def flags(self) -> r.PortFlag:
        return r.PortFlag.SECURED if self.secured else r.PortFlag(0)


A = Who(RED, 10, 1, "da")
B = Who(RED, 11, 2, "db")
TAP = Who(RED, 12, 2, "dt", body=r.Body.TAP)
TAGGED = Who(RED, 13, 2, "trunk", vlan=5, body=r.Body.VLAN)
FAR = Who(RED, 20, 3, None)
D = Who(BLUE, 10, 4, "dd")
AWAY = Who(BLUE, 20, 5, None)
PUBLIC = Who(GREY, 10, 6, "dg")
BARE = Who(CLEAR, 10, 0, "du", secured=False)  # port security off
CAUTIOUS = Who(CLEAR, 11, 2, "dc")
PORTS = [A, B, TAP, TAGGED, FAR, D, AWAY, PUBLIC, BARE, CAUTIOUS]
DEVICES = [*sorted({p.device for p in PORTS if p.device}), "vxlan", "uplink"]


def gateway(network: int, router: int = ROUTER) -> Who:
    """Return a router's foot in a network, as if it were a port."""
    return Who(network, router, 0, None)


class Sent(NamedTuple):
    """What became of a packet."""

    verdict: int
    packet: bytes
    to: str | None  # device of the redirect
    drops: dict[tuple[str | None, str], int]  # device, reason -> packets
    flight: dict[str, Any]  # struct packet as the stages left it

    @property
    def drop(self) -> str | None:
        """The one reason that was counted."""
        assert len(self.drops) <= 1, self.drops
        return next((why for _, why in self.drops), None)

    @property
    def passed(self) -> bool:
        return self.verdict in (UNSPEC, REDIRECT) and not self.drops


class Rule(NamedTuple):
    """What a rule says, and of whom: anyone, an identity, or addresses that have a row with a number."""

    identity: int
    way: int
    family: int
    remote: int | None
    number: int | None
    proto: int | None
    port: int | None
    bits: int
    stateless: bool

    @property
    def match(self) -> tuple[int, int]:
        """The protocol and port as 24 bits, and how many of them count."""
        bits = 0 if self.proto is None else 8 if self.port is None else 8 + self.bits
        return (self.proto or 0) << 16 | (self.port or 0), bits

    def holds(self, match: tuple[int, int]) -> bool:
        value, bits = self.match
        return bits <= match[1] and not (value ^ match[0]) >> 24 - bits


def any_rule(identity: int, way: r.Way, family: int = 4, **more: int) -> Rule:
    """Return a rule for any remote; *proto* and *port* narrow it."""
    return rule(identity, way, family=family, **more)


def rule(
    identity: int, way: r.Way, remote: int | None = None, family: int = 4, proto: int | None = None,
    port: int | None = None, bits: int = 16, stateless: int = 0, number: int | None = None,
) -> Rule:  # fmt: skip
    """Return a rule about an identity (*remote*), or about the addresses that `prefix_rule` gives its *number*."""
    kind = r.Family.IPV4 if family == 4 else r.Family.IPV6
    return Rule(identity, way, kind, remote, number, proto, port, bits, bool(stateless))


def prefix_rule(identity: int, way: r.Way, ip: bytes, bits: int, number: int) -> dict[r.PrefixKey, r.Prefix]:
    family = r.Family.IPV4 if ip.startswith(r.MAPPED) else r.Family.IPV6
    return {r.PrefixKey(64 + bits, identity, way, family, ip): r.Prefix(r.pack_bits(1 << number))}


def rows_of(rules: Sequence[Rule]) -> dict[str, dict[Any, Any]]:
    """Return the rows of the rules of one identity: a port set for each, those for anyone apart."""
    rows: dict[str, dict[Any, Any]] = {"port_sets": {}, "policies": {}}
    numbers = [
        one.number if one.number is not None else int(one.stateless) if one.remote is None else 100 + n
        for n, one in enumerate(rules)
    ]
    for one, number in zip(rules, numbers, strict=True):
        sets = [
            (n, other.stateless)
            for n, other in zip(numbers, rules, strict=True)
            if (other.way, other.family) == (one.way, one.family) and other.holds(one.match)
        ]
        value, bits = one.match
        key = r.PortSetKey(56 + bits, one.identity, one.way, one.family, value >> 16, value & 0xFFFF)
        stateful = sum({1 << n for n, stateless in sets if not stateless})
        rows["port_sets"][key] = r.PortSet(r.pack_bits(sum({1 << n for n, _ in sets})), r.pack_bits(stateful))
        if one.remote is not None:
            to = r.PolicyKey(one.identity, one.remote, one.way, one.family)
            old = r.unpack_bits(rows["policies"][to].allowed) if to in rows["policies"] else 0
            rows["policies"][to] = r.Policy(r.pack_bits(old | 1 << number))
    return rows


@dataclass
class World:
    bpf: Object
    reasons: dict[int, str]

    def put(self, table: str, rows: Mapping[Any, Any]) -> None:
        self.bpf.table(table).put(rows)

    def delete(self, table: str, *keys: Any) -> None:
        self.bpf.table(table).delete(keys)

    def reset(self) -> None:
        """Empty all tables and fill in the world that the module's docstring tells."""
        for name in SIZES:
            table = self.bpf.table(name)
            for key, _ in table.read_raw():
                table.delete_raw(key)
        self.put("hosts", {r.pack_ip(THERE): r.Host(1)})
        members: dict[int, list[r.Place]] = {n: [] for n in PREFIX}
        for p in PORTS:
            self.add(p)
            place = p.place if p.device else p.place._replace(identity=0)
            members[p.network].append(place)
        members[GREY].append(r.Place(r.PlaceKind.UPLINK))
        for network, places in members.items():
            self.network(network, places)
        self.put("uplinks", {r.UplinkKey(if_nametoindex("uplink"), 7): GREY})
        self.router(ROUTER, {RED: gateway(RED), BLUE: gateway(BLUE)})
        for identity in range(1, 7):
            self.put("generations", {identity: 1})
            self.put_policy([any_rule(identity, way, kind) for way in r.Way for kind in (4, 6)])

    def network(self, network: int, places: list[r.Place], mtu: int = MTU) -> None:
        row = r.Network(mtu, len(places))
        if network == GREY:
            row = row._replace(flags=r.NetworkFlag.PROVIDER, uplink=if_nametoindex("uplink"), uplink_vlan=7)
        if network == CLEAR:
            row = row._replace(flags=r.NetworkFlag.FLOOD_UNKNOWN)
        self.put("networks", {network: row})
        self.put("members", {r.MemberKey(network, i): m for i, m in enumerate(places)})

    def mtu(self, network: int, mtu: int) -> None:
        """Change the MTU of a network, and so of its ports."""
        networks, ports = self.bpf.table("networks"), self.bpf.table("ports")
        networks.put({network: networks.get(network)._replace(mtu=mtu)})
        ports.put({k: p._replace(mtu=mtu) for k, p in ports.read().items() if p.network == network})

    def add(self, p: Who) -> None:
        ips = [r.pack_ip(a) for a in (p.ip4, p.ip6, p.link_local)]
        if p.device:
            self.put("ports", {p.key: r.Port(p.network, p.identity, p.mac, p.body, p.flags, MTU, (ips[0], ips[1]))})
            self.put("sources", {r.SourceKey(256, p.key, p.mac, a): 1 for a in ips})
            for of in r.ShareOf:
                self.share(p, of, SLOTS.get(of, SHARE))
        self.put("macs", {r.MacKey(p.network, p.mac): p.place})
        self.put("endpoints", {r.EndpointKey(p.network, a): r.Endpoint(p.place, p.mac) for a in ips})

    def share(self, p: Who, of: r.ShareOf, rows: int) -> None:
        """Let a port have so many more rows of a table for itself, whatever others do."""
        key = r.ShareKey(p.key, of)
        charged = self.bpf.table("charges").get(key) or 0
        self.put("charges", {key: charged})
        self.put("shares", {key: r.Share(rows if of in SLOTS else charged + rows)})

    def router(self, number: int, feet: Mapping[int, Who]) -> None:
        place = r.Place(r.PlaceKind.ROUTER, router=number)
        for network, foot in feet.items():
            v4, v6 = r.pack_ip(foot.ip4), r.pack_ip(foot.ip6)
            self.put("interfaces", {r.InterfaceKey(network, number): r.Interface(foot.mac, (v4, v6))})
            self.put("macs", {r.MacKey(network, foot.mac): place})
            for address in (v4, v6, r.pack_ip(foot.link_local)):
                self.put("endpoints", {r.EndpointKey(network, address): r.Endpoint(place, foot.mac)})
            connected = r.Route(r.RouteKind.CONNECTED, network)
            self.put("routes", {r.RouteKey(32 + 120, number, v4[:15] + b"\0"): connected})
            self.put("routes", {r.RouteKey(32 + 64, number, v6[:8] + bytes(8)): connected})
            for address in (v4, v6):
                self.put("routes", {r.RouteKey(160, number, address): r.Route(r.RouteKind.SELF, network)})

    def policy(self, identity: int, *rules: Rule) -> None:
        """Put rules in place of all that an identity has, and say so."""
        for name in ("port_sets", "policies"):
            table = self.bpf.table(name)
            table.delete([k for k in table.read() if k.identity == identity])
        self.put_policy(rules)
        self.changed(identity)

    def put_policy(self, rules: Sequence[Rule]) -> None:
        for table, rows in rows_of(rules).items():
            if rows:
                self.put(table, rows)

    def changed(self, identity: int) -> None:
        table = self.bpf.table("generations")
        table.put({identity: table.get(identity) + 1})

    def send(self, frame: bytes, who: Who = A, **context: int) -> Sent:
        """Send a frame from a port of this host."""
        assert who.device is not None
        return self.run("from_workload", frame, device=who.device, **context)

    def receive(self, frame: bytes, network: int = RED, identity: int = 3, host: str = THERE, **context: int) -> Sent:
        """Take a frame from another host."""
        underlay = int.from_bytes(r.pack_ip(host)[12:], "little")
        return self.run("from_overlay", frame, device="vxlan", cb=(network, identity, underlay), **context)

    def run(
        self, program: str, frame: bytes, device: str, cb: tuple[int, ...] = (), repeat: int = 1, **context: int
    ) -> Sent:
        """Run a program on a frame; on the same one *repeat* times, of which the last one's verdict is told."""
        drops = self.bpf.table("drops")
        for key in drops.read():
            drops.delete([key])
        done = self.bpf.run(program, frame, repeat=repeat, cb=cb, ifindex=if_nametoindex(device), **context)
        names = {if_nametoindex(d): d for d in DEVICES}
        counted = {
            (names.get(k.port.ifindex), self.reasons[k.why].removeprefix("DROP_")): v.packets
            for k, v in drops.read().items()
        }
        flight = self.in_flight()
        to = names.get(flight["out"]) if done.verdict == REDIRECT else None
        assert (done.verdict == SHOT) <= bool(counted), "a silent drop"
        return Sent(done.verdict, done.packet, to, counted, flight)

    def in_flight(self) -> dict[str, Any]:
        """Return the packet's record on the processor that the test is bound to."""
        btf = self.bpf.btf
        id = btf.find("packet", STRUCT)
        size = btf.size(id) + -btf.size(id) % 8
        out = (b"\0" * size) * lib.libbpf_num_possible_cpus()
        fd = lib.bpf_map__fd(self.bpf._map("current"))
        assert lib.bpf_map_lookup_elem(fd, bytes(4), out) == 0
        cpu = next(iter(os.sched_getaffinity(0)))
        mine = out[cpu * size : (cpu + 1) * size]
        members = {name: mine[at : at + btf.size(t)] for name, t, at in btf.members(id)}
        return {n: int.from_bytes(v, "little") if len(v) <= 4 else v for n, v in members.items()}

    def flows(self) -> dict[r.FlowKey, r.Flow]:
        """Return all flows, within shares or borrowed."""
        return self.bpf.table("flows").read() | self.bpf.table("flows_assured").read()

    def put_flows(self, rows: Mapping[r.FlowKey, r.Flow]) -> None:
        """Write flows that there are where they are."""
        for name in ("flows", "flows_assured"):
            self.put(name, {k: rows[k] for k in self.bpf.table(name).read() if k in rows})

    def forget(self) -> None:
        """Delete all flows."""
        for name in ("flows", "flows_assured"):
            self.delete(name, *self.bpf.table(name).read())


def frame(src: Who, dst: Who, proto: int, body: bytes, v: int = 4, *, to: Who | None = None, **options: Any) -> bytes:
    """Return an IP packet from one port to another; *to* is who takes it on its way, if not *dst*."""
    packet = ip(src.ip(v), dst.ip(v), proto, body, **options)
    return eth((to or dst).mac, src.mac, IPV4 if v == 4 else IPV6, packet)


def frame_to(src: Who, to: bytes, dst: str, proto: int, body: bytes, **options: Any) -> bytes:
    """Return an IP packet to any MAC and any address."""
    v = family(dst)
    return eth(to, src.mac, IPV4 if v == 4 else IPV6, ip(src.ip(v), dst, proto, body, **options))


@contextmanager
def namespace() -> Iterator[None]:
    """Be in a network namespace with a veth for each device; its other end is called DEVICE-in."""
    name = f"cwp{os.getpid()}{uuid.uuid4().hex[:6]}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        lines = [f"link add {d} type veth peer name {d}-in\nlink set {d} up\nlink set {d}-in up" for d in DEVICES]
        quiet = "for f in /proc/sys/net/ipv6/conf/*/disable_ipv6; do echo 1 >$f; done; exec ip -batch -"
        subprocess.run(
            ["nsenter", f"--net=/run/netns/{name}", "sh", "-c", quiet],
            input="\n".join(lines) + "\n", text=True, check=True,
        )  # fmt: skip
        netns = open_netns(name)
        try:
            with inside(netns):
                yield
        finally:
            os.close(netns)
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


@contextmanager
def on_one_cpu() -> Iterator[None]:
    """Stay on one processor, so that its packet's record can be read."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def be16(port: int) -> int:
    return int.from_bytes(port.to_bytes(2, "big"), "little")


@contextmanager
def world(kind: type[Object] = Object, sizes: Mapping[str, int] | None = None, **more: int) -> Iterator[World]:
    """Be in a fresh world; *sizes* makes tables smaller than they are here, *more* is configured."""
    with namespace(), on_one_cpu():
        config = {
            "overlay": if_nametoindex("vxlan"), "tunnel_from_cb": 1, "vxlan_port": be16(VXLAN_PORT),
            "peer_port": be16(PEER_PORT), **more,
        }  # fmt: skip
        with kind(config=config, sizes=SIZES | dict(sizes or {})) as bpf:
            reasons = {number: name for name, number in bpf.btf.enum("drop").items()}
            made = World(bpf, reasons)
            made.reset()
            yield made


NEIGHBOUR = bytes((2, 9, 9, 9, 9, 9))  # in the underlay: the other host
VXLAN_PORT, PEER_PORT = 4789, 9697
SIOCGIFHWADDR = 0x8927  # linux/sockios.h


@contextmanager
def direct_world() -> Iterator[World]:
    """Be in a world that makes and takes off VXLAN itself, with the device `uplink` in the underlay."""
    with world(direct=1, underlay=int.from_bytes(r.pack_ip(HERE), "little")) as made:
        Path("/proc/sys/net/ipv4/conf/vxlan/forwarding").write_text("1")
        lines = [f"address add {HERE}/24 dev uplink", f"neigh add {THERE} lladdr {NEIGHBOUR.hex(':')} dev uplink"]
        subprocess.run(["ip", "-batch", "-"], input="\n".join(lines) + "\n", text=True, check=True)
        yield made


def own_mac(device: str = "uplink") -> bytes:
    """Return the MAC of a device."""
    with socket() as s:
        return fcntl.ioctl(s, SIOCGIFHWADDR, struct.pack("256s", device.encode()))[18:24]


def wrapped(
    inner: bytes, src: str = THERE, dst: str = HERE, port: int = VXLAN_PORT, flags: int = 0x88, identity: int = 3,
    network: int = RED, sum: int = 0, fragment: int = 0, version: int = 0x45, short: int = 0, kind: int = UDP,
    more: int = 0, last: int = 0, id: bytes = b"id", port_from: bytes = b"\x9c\x40", device: str = "uplink",
) -> bytes:  # fmt: skip
    """Return a frame in VXLAN as it comes from another host."""
    vxlan = struct.pack("!BBHI", flags, more, identity, network << 8 | last) + inner
    packet = port_from + struct.pack("!HHH", port, 8 + len(vxlan) - short, sum) + vxlan
    head = struct.pack("!BBH2sHBBH", version, 0, 20 + len(packet), id, fragment, 64, kind, 0) + raw(src) + raw(dst)
    head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    return eth(own_mac(device), NEIGHBOUR, IPV4, head + packet)


class Ears:
    """What comes out at the far ends of devices, each frame with its tag."""

    def __init__(self, *devices: str) -> None:
        self.owed = 0  # frames whose checksum is still to be made
        self.sockets = {d: socket(AF_PACKET, SOCK_RAW, htons(3)) for d in devices}
        for d, s in self.sockets.items():
            s.bind((f"{d}-in", 3))
            s.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
            s.setsockopt(SOL_SOCKET, SO_RCVBUFFORCE, 1 << 22)
            s.setblocking(False)

    def must_hear(self, wanted: Mapping[str | None, list[bytes]], seconds: float = 5) -> None:
        """Hold what comes against what should, by device; wait for the missing, and a little for more."""
        assert self.hear(lambda heard: heard == wanted, seconds) == wanted

    def hear(
        self, enough: Callable[[dict[str | None, list[bytes]]], bool], seconds: float = 5
    ) -> dict[str | None, list[bytes]]:
        """Return what comes, by device, until it is enough, and a little longer."""
        heard: dict[str | None, list[bytes]] = {}
        end = time.monotonic() + seconds
        while not enough(heard) and time.monotonic() < end:
            self._listen(heard)
            time.sleep(0.001)
        time.sleep(0.005)
        self._listen(heard)
        return heard

    def _listen(self, heard: dict[str | None, list[bytes]]) -> None:
        for d, s in self.sockets.items():
            with suppress(BlockingIOError):
                while True:
                    frame, extra, _, _ = s.recvmsg(65536, 256)
                    status, _, _, _, _, tag, proto = struct.unpack("=IIIHHHH", extra[0][2])
                    self.owed += status & TP_STATUS_CSUMNOTREADY != 0
                    if status & TP_STATUS_VLAN_VALID:
                        frame = frame[:12] + struct.pack("!HH", proto, tag) + frame[12:]
                    heard.setdefault(d, []).append(frame)

    def __enter__(self) -> Ears:
        return self

    def __exit__(self, *_: object) -> None:
        for s in self.sockets.values():
            s.close()
