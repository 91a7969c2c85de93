"""The lab of the battery: two hosts, nine bodies, and the networks that join them.

    left ── r1 ── right               each body has a card on `lan` and one on `left` (who sends)
    left ── r1 ─ t1 ─ r2 ─ t2 ─ r3 ── right            or `right` (who is to hear)

    c1 g1 s1   on h1, send
    c2 g2 s2   on h1, hear: pairs on one host
    c3 g3 s3   on h2, hear: pairs across hosts

The networks have no fewer bytes than VXLAN leaves, but `right`, which is narrower.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from crossway.client import Object
from crossway.lab import docker
from crossway.lab.battery.bodies import KINDS, RACK, Body, Card, Container, Guest, Metal, Wish, with_probe
from crossway.lab.battery.registry import Way
from crossway.lab.docker import Engine
from crossway.lab.lab import Host, Lab
from crossway.lab.server import trunk

NETWORKS = {"lan": 1, "left": 2, "right": 3, "t1": 4, "t2": 5}
NARROW = 1300  # MTU of `right`
DNS = {4: "192.0.2.53", 6: "2001:db8::53"}
# The router of `right` keeps its MACs when another router takes its place.
GATE_MAC = {4: "52:54:00:01:03:04", 6: "52:54:00:01:03:06"}


def cidr(network: str, family: int) -> str:
    number = NETWORKS[network]
    return f"10.64.{number}.0/24" if family == 4 else f"fd64:{number}::/64"


def gate(network: str, family: int, last: int = 1) -> str:
    """Return a router's address on a network."""
    number = NETWORKS[network]
    return f"10.64.{number}.{last}" if family == 4 else f"fd64:{number}::{last:x}"


class Scene:
    """All that a case may need."""

    def __init__(self, lab: Lab, image: Path, kinds: tuple[str, ...] = KINDS) -> None:
        self.lab, self.kinds = lab, kinds
        self._image = image
        self.bodies: dict[str, Body] = {}
        self.engines: dict[str, Engine] = {}
        self.way = Way.SWITCHED
        self.networks: dict[str, str] = {}
        self.subnets: dict[tuple[str, int], str] = {}
        self.routers: dict[str, str] = {}
        self.open = self._open_group()
        for name in NETWORKS:
            self._network(name)

    def _open_group(self) -> str:
        """Make a group that admits everything."""
        group = self.lab.client.create("security_group", name="open")["id"]
        for family in (4, 6):
            self.lab.client.create(
                "security_group_rule", security_group_id=group, direction="ingress", ethertype=f"IPv{family}"
            )
        return str(group)

    def _network(self, name: str) -> None:
        made = self.lab.client.create("network", name=name, **({"mtu": NARROW} if name == "right" else {}))
        self.networks[name] = made["id"]
        for family in (4, 6):
            mode = "slaac" if name == "lan" else "dhcpv6-stateless"
            modes = {"ipv6_ra_mode": mode, "ipv6_address_mode": mode} if family == 6 else {}
            # Of a body's two networks only one has a router.
            router = {"gateway_ip": None} if name == "lan" else {}
            subnet = self.lab.client.create(
                "subnet", name=f"{name}{family}", network_id=made["id"], cidr=cidr(name, family), ip_version=family,
                dns_nameservers=[DNS[family]], **modes, **router,
            )  # fmt: skip
            self.subnets[name, family] = subnet["id"]

    def settle(self) -> None:
        """Give all their bodies, all at once, and wait until each has its addresses."""
        self._routed()
        self._edges()
        image = with_probe(self._image, self.lab.state.run)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(self._engine, self.lab.hosts))
        places = [(kind, number) for kind in ("guest", "container", "server") if kind in self.kinds
                  for number in (1, 2, 3)]  # fmt: skip
        for kind, number in places:
            if kind == "guest":
                self._body(kind, number, image)
        for kind, number in places:
            if kind != "guest":
                self._body(kind, number, image)
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda body: body.settled(), self.bodies.values()))

    def _body(self, kind: str, number: int, image: Path) -> None:
        name = f"{kind[0]}{number}"
        host = self.lab.hosts[number // 3]
        wishes = [self._wish(kind, number, network) for network in ("lan", "left" if number == 1 else "right")]
        made: Body
        if kind == "container":
            made = Container(self.lab, name, host, self.engines, wishes)
        elif kind == "guest":
            made = Guest(self.lab, name, host, image, wishes)
        else:
            made = Metal(self.lab, name, host, wishes)
        self.bodies[name] = made

    def _wish(self, kind: str, number: int, network: str) -> Wish:
        last = 10 * (1 + KINDS.index(kind)) + number
        mac = f"52:54:00:00:{NETWORKS[network]:02x}:{last:02x}"
        return Wish(network, self.networks[network], mac, f"10.64.{NETWORKS[network]}.{last}", [self.open])

    def _edges(self) -> None:
        """Trunk both hosts to the servers' switch."""
        for host in self.lab.hosts:
            host.physnets[RACK] = trunk(self.lab, host)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda host: host.agent.restart(), self.lab.hosts))
        self.lab.joined()

    def _engine(self, host: Host) -> None:
        engine = self.engines[host.name] = docker.give(Engine(host))
        for network in ("lan", "left", "right"):
            engine.docker("network", "create", "-d", "crossway", "--ipam-driver", "null",
                          "-o", f"network={network}", "-o", "groups=open", network)  # fmt: skip

    # Routers.

    def _routed(self) -> None:
        """Join left and right by one router."""
        self.routers["r1"] = self.lab.client.create("router", name="r1")["id"]
        for family in (4, 6):
            self.lab.client.add_interface(self.routers["r1"], subnet=self.subnets["left", family])
        self._gates("r1")

    def _gates(self, router: str) -> None:
        """Make a router the one of `right`."""
        for family in (4, 6):
            self._foot(router, "right", family, 1, mac_address=GATE_MAC[family])

    def _foot(self, router: str, network: str, family: int, last: int, **attrs: str) -> Object:
        where = {"subnet_id": self.subnets[network, family], "ip_address": gate(network, family, last)}
        # Whose address it chooses itself, as no other port may on a network of this kind.
        attrs["device_owner"] = "network:gate"
        port = self.lab.client.create("port", network_id=self.networks[network], fixed_ips=[where], **attrs)
        return self.lab.client.add_interface(self.routers[router], port=port["id"])

    def go(self, way: Way) -> None:
        """Change what is between left and right."""
        if way is Way.FAR and self.way is not Way.FAR:
            self._farther()
        elif way is Way.ROUTED and self.way is Way.FAR:
            raise ValueError("routers are not taken away again")
        self.way = way

    def _farther(self) -> None:
        """Put two more routers between."""
        client = self.lab.client
        for family in (4, 6):
            client.remove_interface(self.routers["r1"], subnet=self.subnets["right", family])
        for name in ("r2", "r3"):
            self.routers[name] = client.create("router", name=name)["id"]
        for router, network, last in (("r1", "t1", 1), ("r2", "t1", 2), ("r2", "t2", 1), ("r3", "t2", 2)):
            for family in (4, 6):
                self._foot(router, network, family, last)
        self._gates("r3")
        ways = {"r1": [("right", "t1", 2)], "r2": [("right", "t2", 2), ("left", "t1", 1)], "r3": [("left", "t2", 1)]}
        for router, hops in ways.items():
            client.update("router", self.routers[router], routes=[
                {"destination": cidr(to, family), "nexthop": gate(over, family, last)}
                for to, over, last in hops for family in (4, 6)
            ])  # fmt: skip

    # Who is there.

    def card(self, name: str, way: Way) -> Card:
        body = self.bodies[name]
        if way is Way.SWITCHED:
            return body.cards["lan"]
        return body.cards["left" if name.endswith("1") else "right"]

    def close(self) -> None:
        for body in self.bodies.values():
            body.close()
