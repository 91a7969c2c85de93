"""What a user would take instead of Crossway, each set up as its own users have it.

    bare veth       two namespaces joined by a veth pair: no network at all
    kernel VXLAN    the workload behind a veth pair, routed into a VXLAN device
    VXLAN, no veth  the workload's address on the host's VXLAN device itself: nobody's
                    network of workloads, but what is left of one without its workloads
    Docker          a bridge, iptables and NAT, as Docker sets them up: container to
                    container on one host; to a published port across hosts
    bridge          a bridge (across hosts joined by VXLAN) and security groups in
                    iptables, as Neutron's iptables firewall writes them

The underlay across hosts is always one veth pair with an MTU of 1500.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from bench.spaces import PORT, PORTS, Spaces, cable, change, restore
from crossway.lab.place import Place

SUBNET = "10.77.0"
CLIENT, SERVER = f"{SUBNET}.2", f"{SUBNET}.3"
UNDERLAY = ("192.0.2.1", "192.0.2.2")
MACS = ("02:00:00:77:00:02", "02:00:00:77:00:03")


@dataclass(frozen=True)
class Path:
    """What is measured: from where to which address.

    *change* makes one change of its policy, and returns the CPU seconds of processes that it
    started; *workers* are processes that work for it meanwhile, by what they are.
    """

    setup: str
    where: str  # "same" or "cross"
    client: Place
    server: Place
    ip: str
    rules: int | None = None
    change: Callable[[int], float] | None = None
    workers: Mapping[str, Sequence[int]] = field(default_factory=dict, hash=False)


def bare(spaces: Spaces) -> Path:
    """(a) A veth pair."""
    client, server = spaces.add("bare-c"), spaces.add("bare-s")
    cable(client, "eth0", server, "eth0")
    client.script([f"address add {CLIENT}/24 dev eth0"])
    server.script([f"address add {SERVER}/24 dev eth0"])
    return Path("bare veth", "same", client, server, SERVER)


def underlay(spaces: Spaces, name: str) -> tuple[Place, Place]:
    one, two = spaces.add(f"{name}1"), spaces.add(f"{name}2")
    cable(one, "under0", two, "under0")
    one.script([f"address add {UNDERLAY[0]}/24 dev under0"])
    two.script([f"address add {UNDERLAY[1]}/24 dev under0"])
    return one, two


def _vxlan(host: Place, own: str, other: str, address: str) -> None:
    """Make the VXLAN device of one of two hosts, with an address."""
    vxlan = f"link add vx0 type vxlan id 77 local {own} remote {other} dstport 4789 nolearning noudpcsum"
    host.script([vxlan, f"address add {address} dev vx0", "link set vx0 up"])


def kernel_vxlan(spaces: Spaces) -> Path:
    """(b) A workload behind a bare veth pair on each host, routed into the kernel's VXLAN device: no bridge, no rules.

    Routed, since that was leaner than a bridge of the two: 23.9 and 24.3 µs a TCP round trip on one core.
    """
    one, two = underlay(spaces, "vxlan")
    client, server = spaces.add("vxlan-c"), spaces.add("vxlan-s")
    ends = ((one, 1, 2, *UNDERLAY, client), (two, 2, 1, UNDERLAY[1], UNDERLAY[0], server))
    for host, n, other, own, remote, place in ends:
        cable(host, "veth0", place, "eth0", 1450)
        host.script([f"address add 10.77.{n}.1/24 dev veth0"], ["net/ipv4/ip_forward=1"])
        place.script([f"address add 10.77.{n}.2/24 dev eth0", f"route add default via 10.77.{n}.1"])
        _vxlan(host, own, remote, f"10.99.0.{n}/24")
        host.script([f"route add 10.77.{other}.0/24 via 10.99.0.{other} dev vx0"])
    return Path("kernel VXLAN", "cross", client, server, "10.77.2.2")


def bare_vxlan(spaces: Spaces) -> Path:
    """The least there is across hosts: the ends are in the hosts' own namespaces and speak into the VXLAN device."""
    one, two = underlay(spaces, "floor")
    for host, own, other, ip in ((one, *UNDERLAY, CLIENT), (two, UNDERLAY[1], UNDERLAY[0], SERVER)):
        _vxlan(host, own, other, f"{ip}/24")
    return Path("VXLAN, no veth", "cross", one, two, SERVER)


# ---- (c) Docker

# What dockerd 20.10 writes with its iptables on, and one bridge.
_DOCKER = """
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s {subnet}.0/24 ! -o docker0 -j MASQUERADE
-A DOCKER -i docker0 -j RETURN
{published_nat}
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i docker0 -o docker0 -j ACCEPT
{published}
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -j RETURN
COMMIT
"""


def docker_host(host: Place, subnet: str, containers: dict[str, Place], published: str | None = None) -> None:
    host.script(
        ["link add docker0 type bridge", f"address add {subnet}.1/24 dev docker0", "link set docker0 up"],
        ["net/ipv4/ip_forward=1", "net/bridge/bridge-nf-call-iptables=1"],
    )
    for number, (ip, container) in enumerate(containers.items()):
        cable(host, f"veth{number}", container, "eth0")
        host.script([f"link set veth{number} master docker0"])
        container.script([f"address add {ip}/24 dev eth0", f"route add default via {subnet}.1"])
    nat, filter = [], []
    if published:
        for proto in ("tcp", "udp"):
            for port in range(PORT, PORT + PORTS):
                to = f"-p {proto} -m {proto} --dport {port}"
                nat.append(f"-A DOCKER ! -i docker0 {to} -j DNAT --to-destination {published}:{port}")
                filter.append(f"-A DOCKER -d {published}/32 ! -i docker0 -o docker0 {to} -j ACCEPT")
    told = _DOCKER.format(subnet=subnet, published_nat="\n".join(nat), published="\n".join(filter))
    restore(host, [line for line in told.splitlines() if line])


def docker(spaces: Spaces) -> Path:
    """(c) Two containers of one Docker host, on its bridge."""
    host, client, server = spaces.add("docker"), spaces.add("docker-c"), spaces.add("docker-s")
    docker_host(host, SUBNET, {CLIENT: client, SERVER: server})
    return Path("Docker", "same", client, server, SERVER)


def docker_published(spaces: Spaces) -> Path:
    """(c) A container asks for a port that another host has published: masqueraded there, translated here."""
    one, two = underlay(spaces, "dockers")
    client, server = spaces.add("dockers-c"), spaces.add("dockers-s")
    docker_host(one, "10.78.1", {"10.78.1.2": client})
    docker_host(two, "10.78.2", {"10.78.2.2": server}, published="10.78.2.2")
    return Path("Docker", "cross", client, server, UNDERLAY[1])


# ---- (d) Bridge, VXLAN and security groups in iptables

CHANGED = "172.31.255.255"


def rule_prefix(number: int) -> tuple[str, int]:
    """Return prefix and TCP port of the n-th rule that matches nothing that is measured."""
    return f"172.{16 + (number >> 16)}.{number >> 8 & 255}.{number & 255}/32", 20000 + number % 10000


def _port_chains(tap: str, ip: str, mac: str, rules: int) -> list[str]:
    """Return the chains that Neutron's iptables firewall has for one port."""
    i, o, s = f"i-{tap}", f"o-{tap}", f"s-{tap}"
    unmatched = [
        f"-A {i} -s {prefix} -p tcp -m tcp --dport {port} -j RETURN"
        for prefix, port in (rule_prefix(n) for n in range(rules - 1))
    ]
    # The rule that matches stands in the middle, as one does on average.
    unmatched.insert(rules // 2, f"-A {i} -s {SUBNET}.0/24 -j RETURN")
    return [
        f"-A sg-chain -m physdev --physdev-out {tap} --physdev-is-bridged -j {i}",
        f"-A sg-chain -m physdev --physdev-in {tap} --physdev-is-bridged -j {o}",
        f"-A {i} -m state --state RELATED,ESTABLISHED -j RETURN",
        f"-A {i} -p udp -m udp --sport 67 --dport 68 -j RETURN",
        *unmatched,
        f"-A {i} -m state --state INVALID -j DROP",
        f"-A {i} -j sg-fallback",
        f"-A {s} -s {ip}/32 -m mac --mac-source {mac} -j RETURN",
        f"-A {s} -j DROP",
        f"-A {o} -s 0.0.0.0/32 -d 255.255.255.255/32 -p udp -m udp --sport 68 --dport 67 -j RETURN",
        f"-A {o} -j {s}",
        f"-A {o} -p udp -m udp --sport 68 --dport 67 -j RETURN",
        f"-A {o} -p udp -m udp --sport 67 --dport 68 -j DROP",
        f"-A {o} -m state --state RELATED,ESTABLISHED -j RETURN",
        f"-A {o} -j RETURN",
        f"-A {o} -m state --state INVALID -j DROP",
        f"-A {o} -j sg-fallback",
    ]


def _bridge_host(host: Place, ports: list[tuple[Place, str, str]], rules: int, other: tuple[str, str] | None) -> None:
    """Make a host with a bridge, its ports (place, address, MAC), and to another host VXLAN."""
    host.script(
        ["link add br0 type bridge mcast_snooping 0", "link set br0 up"], ["net/bridge/bridge-nf-call-iptables=1"]
    )
    mtu = 1450 if other else 1500
    chains = []
    for number, (place, ip, mac) in enumerate(ports):
        tap = f"tap{number}"
        cable(host, tap, place, "eth0", mtu)
        host.script([f"link set {tap} master br0"])
        place.script([f"link set eth0 address {mac}", f"address add {ip}/24 dev eth0"])
        chains.append(_port_chains(tap, ip, mac, rules))
    if other:
        own, remote = other
        host.script(
            [
                f"link add vx0 type vxlan id 77 local {own} remote {remote} dstport 4789 noudpcsum",
                "link set vx0 master br0",
                "link set vx0 up",
            ]
        )
    names = [name for number in range(len(ports)) for name in (f"i-tap{number}", f"o-tap{number}", f"s-tap{number}")]
    restore(
        host,
        [
            "*raw",
            ":PREROUTING ACCEPT [0:0]",
            *(f"-A PREROUTING -m physdev --physdev-in tap{n} -j CT --zone 1" for n in range(len(ports))),
            *(["-A PREROUTING -i br0 -j CT --zone 1", "-A PREROUTING -i vx0 -j CT --zone 1"] if other else []),
            "COMMIT",
            "*filter",
            *(f":{name} ACCEPT [0:0]" for name in ("INPUT", "FORWARD", "OUTPUT")),
            *(f":{name} - [0:0]" for name in ("bridge-FORWARD", "sg-chain", "sg-fallback", *names)),
            "-A FORWARD -j bridge-FORWARD",
            *(
                f"-A bridge-FORWARD -m physdev --physdev-{way} tap{n} --physdev-is-bridged -j sg-chain"
                for n in range(len(ports))
                for way in ("out", "in")
            ),
            *(line for chain in chains for line in chain if line.startswith("-A sg-chain")),
            "-A sg-chain -j ACCEPT",
            *(line for chain in chains for line in chain if not line.startswith("-A sg-chain")),
            "-A sg-fallback -j DROP",
            "COMMIT",
        ],
    )


def _changes(host: Place) -> Callable[[int], float]:
    """Return what adds a rule to the measured port's chain and takes it away again, in turn."""

    def make(number: int) -> float:
        act = f"-D {_I}" if number % 2 else f"-I {_I} 3"
        return change(host, ["*filter", f"{act} -s {CHANGED}/32 -p tcp -m tcp --dport 9 -j RETURN", "COMMIT"])

    return make


_I = "i-tap0"


def bridge(spaces: Spaces, rules: int) -> Path:
    """(d) Two ports on one host's bridge."""
    name = f"bridge{rules}"
    host, client, server = spaces.add(name), spaces.add(f"{name}-c"), spaces.add(f"{name}-s")
    _bridge_host(host, [(server, SERVER, MACS[1]), (client, CLIENT, MACS[0])], rules, None)
    return Path("bridge", "same", client, server, SERVER, rules, _changes(host))


def bridge_vxlan(spaces: Spaces, rules: int) -> Path:
    """(d) A port on each of two hosts whose bridges VXLAN joins."""
    name = f"bridges{rules}"
    one, two = underlay(spaces, name)
    client, server = spaces.add(f"{name}-c"), spaces.add(f"{name}-s")
    _bridge_host(one, [(client, CLIENT, MACS[0])], rules, UNDERLAY)
    _bridge_host(two, [(server, SERVER, MACS[1])], rules, (UNDERLAY[1], UNDERLAY[0]))
    return Path("bridge", "cross", client, server, SERVER, rules, _changes(two))
