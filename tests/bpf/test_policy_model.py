"""Security groups, held against a plain model that was written without looking at the data plane.

Two hosts, two networks joined by a router. A world is random groups, rules and
ports; a flow is a packet between two ports. The model reads the rules one by
one, as the Networking API words them. The data plane gets its rows from `plan`
and judges the packet as `from_workload` of one host and, if it leaves that
host, `from_overlay` of the other.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, note, seed, settings
from hypothesis import strategies as st

from bpf.packets import checksum
from crossway.kernel.bpf import REDIRECT, Object
from crossway.lab.traffic import inside
from crossway.model import rows as r
from crossway.plan import view
from crossway.plan.plan import Document, Plan
from crossway.plan.port import Body

FLOWS = int(os.environ.get("POLICY_FLOWS", "12000"))
FLOWS_A_WORLD = 100
HOSTS = ("a", "b")
UNDERLAY = {"a": "192.0.2.1", "b": "192.0.2.2"}
TCP, UDP, ICMP, ICMPV6, GRE, SCTP = 6, 17, 1, 58, 47, 132
PORTS = 6


# ---- The model: what the Networking API says of security groups, and no more.


@dataclass(frozen=True)
class Rule:
    direction: str  # ingress, egress
    family: int
    proto: int | None
    low: int | None
    high: int | None
    remote_group: int | None
    prefix: str | None


@dataclass(frozen=True)
class Group:
    stateful: bool
    rules: tuple[Rule, ...]


@dataclass(frozen=True)
class Port:
    number: int
    groups: frozenset[int]
    host: str
    network: int

    def ip(self, family: int) -> str:
        last = 10 + self.number
        return f"10.{self.network}.0.{last}" if family == 4 else f"fd00:{self.network}::{last:x}"


@dataclass(frozen=True)
class Packet:
    """What a packet says of itself; `low` and `high` are source and destination port, or ICMP type and code."""

    family: int
    proto: int
    low: int
    high: int


def matches(rule: Rule, direction: str, packet: Packet, remote: Port) -> bool:
    if rule.direction != direction or rule.family != packet.family:
        return False
    if rule.proto is not None:
        if rule.proto != packet.proto:
            return False
        if rule.low is not None:
            if packet.proto in (ICMP, ICMPV6):
                if rule.low != packet.low or (rule.high is not None and rule.high != packet.high):
                    return False
            elif packet.proto in (TCP, UDP) and not rule.low <= packet.high <= rule.high:
                return False
    if rule.remote_group is not None:
        return rule.remote_group in remote.groups
    if rule.prefix is not None:
        return ipaddress.ip_address(remote.ip(packet.family)) in ipaddress.ip_network(rule.prefix)
    return True


def admits(groups: list[Group], port: Port, direction: str, packet: Packet, remote: Port) -> str:
    """Return "no", "stateless" or "stateful"."""
    found = {
        groups[g].stateful for g in port.groups for rule in groups[g].rules if matches(rule, direction, packet, remote)
    }
    return "stateful" if True in found else "stateless" if found else "no"


# ---- Worlds.

ports_of_rules = st.sampled_from([(80, 80), (80, 90), (1, 65535), (22, 22), (1000, 2000), (81, 81), (443, 8080)])
icmp_of_rules = st.sampled_from([(None, None), (8, None), (8, 0), (128, None), (128, 0), (13, None)])
prefixes = {
    4: ["10.0.0.0/8", "10.1.0.0/24", "10.2.0.0/24", "10.1.0.10/32", "10.1.0.12/31", "10.2.0.14/31", "192.168.0.0/16"],
    6: ["fd00::/16", "fd00:1::/64", "fd00:2::/64", "fd00:1::a/128", "fd00:1::c/127", "fd00:2::e/127", "2001:db8::/32"],
}


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    family = draw(st.sampled_from([4, 6]))
    proto = draw(st.sampled_from([None, TCP, TCP, UDP, UDP, ICMP if family == 4 else ICMPV6, GRE, SCTP]))
    low = high = None
    if proto in (TCP, UDP):
        low, high = draw(st.one_of(st.just((None, None)), ports_of_rules))
    elif proto in (ICMP, ICMPV6):
        low, high = draw(icmp_of_rules)
    remote = draw(st.sampled_from(["any", "group", "group", "prefix", "prefix"]))
    return Rule(
        draw(st.sampled_from(["ingress", "egress"])),
        family,
        proto,
        low,
        high,
        draw(st.integers(0, 3)) if remote == "group" else None,
        draw(st.sampled_from(prefixes[family])) if remote == "prefix" else None,
    )


EGRESS = tuple(Rule("egress", family, None, None, None, None, None) for family in (4, 6))
groups_of_world = st.lists(
    st.builds(
        lambda stateful, open_out, own: Group(stateful, tuple(dict.fromkeys((*(EGRESS if open_out else ()), *own)))),
        st.sampled_from([True, True, False]),
        st.sampled_from([True, True, False]),
        st.lists(rules(), max_size=7),
    ),
    min_size=4,
    max_size=4,
)
ports_of_world = st.tuples(
    *(
        st.builds(
            Port,
            st.just(n),
            st.frozensets(st.integers(0, 3), min_size=0 if n == 0 else 1, max_size=3),
            st.sampled_from(HOSTS),
            st.sampled_from([1, 2]),
        )
        for n in range(PORTS)
    )
)
flows_of_world = st.lists(
    st.tuples(
        st.integers(0, PORTS - 1),
        st.integers(1, PORTS - 1),
        st.sampled_from([4, 6]),
        st.sampled_from([TCP, TCP, UDP, UDP, ICMP, GRE, SCTP]),
        st.sampled_from([80, 81, 85, 90, 91, 22, 443, 1000, 1500, 2000, 2001, 8080, 65535]),
        st.sampled_from([(8, 0), (13, 0), (8, 1)]),
    ),
    min_size=FLOWS_A_WORLD,
    max_size=FLOWS_A_WORLD,
)


# ---- Packets, by hand.


def mac(number: int) -> bytes:
    return bytes.fromhex(f"fa163e0000{number:02x}")


def router_mac(network: int) -> bytes:
    return bytes.fromhex(f"fa163eff00{network:02x}")


def text(raw: bytes) -> str:
    return raw.hex(":")


def payload(packet: Packet, sport: int, reply: bool) -> bytes:
    """Return the part of a packet after its IP header, checksums left at zero where nobody looks."""
    if packet.proto == TCP:
        ends = (packet.high, sport) if reply else (sport, packet.high)
        return struct.pack("!HHIIBBHHH", *ends, 1, 1, 5 << 4, 0x12 if reply else 0x02, 1024, 0, 0)
    if packet.proto == UDP:
        ends = (packet.high, sport) if reply else (sport, packet.high)
        return struct.pack("!HHHH", *ends, 16, 0) + bytes(8)
    if packet.proto in (ICMP, ICMPV6):
        kind = packet.low
        if reply:
            kind = {8: 0, 13: 14, 128: 129}[packet.low]
        return struct.pack("!BBHHH", kind, packet.high, 0, sport, 1) + bytes(8)
    return bytes(16)


def frame(packet: Packet, src: Port, dst: Port, sport: int, reply: bool = False) -> bytes:
    body = payload(packet, sport, reply)
    to = mac(dst.number) if src.network == dst.network else router_mac(src.network)
    a, b = (ipaddress.ip_address(p.ip(packet.family)).packed for p in (src, dst))
    if packet.family == 4:
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 1, 0, 64, packet.proto, 0) + a + b
        head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
        return to + mac(src.number) + b"\x08\x00" + head + body
    return (
        to + mac(src.number) + b"\x86\xdd" + struct.pack("!IHBB", 6 << 28, len(body), packet.proto, 64) + a + b + body
    )


# ---- The data plane under test.


class Plane:
    """Two hosts' tables and programs, in one namespace of our own with a device for each port."""

    def __init__(self, netns: Path, devices: list[int]) -> None:
        self.netns, self.devices = netns, devices
        config = {"overlay": devices[-1], "tunnel_from_cb": 1}
        self.hosts = {name: Object(config=config, sizes={"flows": 512, "drops": 512}) for name in HOSTS}
        self.have: dict[str, Any] = {name: {} for name in HOSTS}

    def fill(self, groups: list[Group], ports: tuple[Port, ...]) -> None:
        documents, identities = world(groups, ports)
        self.identity = {p.number: identities[p.groups] for p in ports}
        for name in HOSTS:
            plan = Plan(name)
            plan.take(documents, whole=True)
            plan.bodies(
                {
                    uid("port", p.number): Body(r.PortKey(self.devices[p.number]), r.Body.TAP)
                    for p in ports
                    if p.host == name
                }
            )
            plan.settle()
            assert not plan.faults
            for table, rows in plan.rows.items():
                old = self.have[name].get(table, {})
                self.hosts[name].table(table).delete(old.keys() - rows.keys())
                if rows:
                    self.hosts[name].table(table).put(rows)
            self.have[name] = {table: dict(rows) for table, rows in plan.rows.items()}
        self.forget()

    def forget(self) -> None:
        for host in self.hosts.values():
            for table in ("flows", "flows_assured", "drops"):
                for key, _ in host.table(table).read_raw():
                    host.table(table).delete_raw(key)

    def passes(self, raw: bytes, src: Port, dst: Port) -> bool:
        with inside(self.netns):
            sent = self.hosts[src.host].run("from_workload", raw, ifindex=self.devices[src.number])
            if sent.verdict != REDIRECT or src.host == dst.host:
                return sent.verdict == REDIRECT
            underlay = int.from_bytes(ipaddress.ip_address(UNDERLAY[src.host]).packed, "little")
            cb = (100 + dst.network, self.identity[src.number], underlay)
            got = self.hosts[dst.host].run("from_overlay", sent.packet, cb=cb, ifindex=self.devices[-1])
            return got.verdict == REDIRECT

    def reasons(self) -> str:
        return str(
            {
                name: {r_.why: v.packets for r_, v in host.table("drops").read().items()}
                for name, host in self.hosts.items()
            }
        )


def uid(kind: str, number: int) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{kind} {number}"))


def world(groups: list[Group], ports: tuple[Port, ...]) -> tuple[list[Document], dict[frozenset[int], int]]:
    """Return the view of these groups and ports, and the identity of each set of groups."""
    sets = sorted({p.groups for p in ports if p.groups}, key=sorted)
    identities = {groups_: number for number, groups_ in enumerate(sets, 1)} | {frozenset(): 0}
    found: list[Document] = []

    def add(kind: str, one: view.Object) -> None:
        found.append(Document(kind, one.id, one))

    for name in HOSTS:
        add("host", view.Host(id=name, underlay=UNDERLAY[name]))
    for n in (1, 2):
        add("network", view.Network(id=uid("network", n), number=100 + n, mtu=1450))
    feet = tuple(
        view.Interface(
            port=uid("foot", n),
            network=uid("network", n),
            mac=text(router_mac(n)),
            addresses=(view.Prefixed(f"10.{n}.0.1", 24), view.Prefixed(f"fd00:{n}::1", 64)),
        )
        for n in (1, 2)
    )
    add("router", view.Router(id=uid("router", 1), number=7, interfaces=feet))
    for n, group in enumerate(groups):
        made = tuple(
            view.Rule(
                id=uid(f"rule of {n}", i),
                number=n * 100 + i + 1,
                way="in" if rule.direction == "ingress" else "out",
                family=4 if rule.family == 4 else 6,
                proto=rule.proto,
                min=rule.low,
                max=rule.high,
                group=uid("group", rule.remote_group) if rule.remote_group is not None else None,
                prefix=rule.prefix,
            )
            for i, rule in enumerate(group.rules)
        )
        add("group", view.Group(id=uid("group", n), stateful=group.stateful, rules=made))
    for members, number in identities.items():
        if number:
            add("identity", view.Identity(id=str(number), groups=tuple(uid("group", g) for g in sorted(members))))
    for p in ports:
        add(
            "port",
            view.Port(
                id=uid("port", p.number),
                network=uid("network", p.network),
                mac=text(mac(p.number)),
                addresses=tuple(view.Address(p.ip(f), uid(f"subnet {f}", p.network)) for f in (4, 6)),
                identity=identities[p.groups],
                groups=tuple(uid("group", g) for g in sorted(p.groups)),
                host=p.host,
            ),
        )
    return found, identities


@pytest.fixture(scope="module")
def plane() -> Iterator[Plane]:
    name = f"cw-policy-{os.getpid()}"
    ip = ("ip", "-n", name)
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        for n in range(PORTS + 1):
            subprocess.run([*ip, "tuntap", "add", f"t{n}", "mode", "tap"], check=True)
            subprocess.run([*ip, "link", "set", f"t{n}", "up"], check=True)
        netns = Path("/run/netns") / name
        with inside(netns):
            devices = [socket.if_nametoindex(f"t{n}") for n in range(PORTS + 1)]
        yield Plane(netns, devices)
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


judged = {"flows": 0, "passed": 0}


@pytest.mark.timeout(900)
@seed(20261123)
@settings(
    max_examples=FLOWS // FLOWS_A_WORLD,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)
@given(groups=groups_of_world, ports=ports_of_world, flows=flows_of_world)
def test_data_plane_judges_as_the_model(plane: Plane, groups: list[Group], ports: tuple[Port, ...], flows: Any) -> None:
    plane.fill(groups, ports)
    for i, (at, step, family, proto, dport, icmp) in enumerate(flows):
        src, dst = ports[at], ports[(at + step) % PORTS]
        if proto == ICMP:
            kind = {4: {8: 8, 13: 13}, 6: {8: 128, 13: 128}}[family][icmp[0]]
            packet = Packet(family, ICMP if family == 4 else ICMPV6, kind, icmp[1])
        else:
            packet = Packet(family, proto, 20000 + i, dport)
        if proto in (GRE, SCTP):
            plane.forget()  # these are tracked without ports: flows would meet
        out = admits(groups, src, "egress", packet, dst)
        into = admits(groups, dst, "ingress", packet, src)
        expected = "no" not in (out, into)
        got = plane.passes(frame(packet, src, dst, 20000 + i), src, dst)
        note(f"{src} -> {dst}: {packet}: out {out}, in {into}, data plane {got}")
        if got != expected:
            note(plane.reasons())
        assert got == expected
        judged["flows"] += 1
        judged["passed"] += got
        if expected and packet.proto not in (ICMP, ICMPV6):
            swapped = Packet(family, proto, packet.high, packet.low)
            back_out = into == "stateful" or admits(groups, dst, "egress", swapped, src) != "no"
            back_in = out == "stateful" or admits(groups, src, "ingress", swapped, dst) != "no"
            back = plane.passes(frame(packet, dst, src, 20000 + i, reply=True), dst, src)
            note(f"its answer: out {back_out}, in {back_in}, data plane {back}")
            assert back == (back_out and back_in)


def test_enough_flows_were_judged_of_both_kinds() -> None:
    assert judged["flows"] >= min(FLOWS, 10_000)
    assert judged["passed"] >= judged["flows"] // 20
    assert judged["flows"] - judged["passed"] >= judged["flows"] // 20
