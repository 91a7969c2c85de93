"""The three bodies, each with two network cards and a probe inside: what differs between them stands here alone."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from crossway.client import Object, path_of
from crossway.errors import Conflict, Unavailable
from crossway.lab.battery.probe import PROGRAM, Channel, Probe
from crossway.lab.docker import IMAGE, Engine
from crossway.lab.guest import CHANNEL, Machine, tap
from crossway.lab.lab import Host, Lab
from crossway.lab.server import Server

RACK = "rack"
KINDS = ("container", "guest", "server")
_vlans = itertools.count(100)
_doors = itertools.count(4000)  # where guests that move come in


class Card:
    """A network card of a body: a port of a network."""

    def __init__(self, body: Body, network: str, port: Object) -> None:
        self.body, self.network = body, network
        self.port, self.network_id = str(port["id"]), str(port["network_id"])
        self.mac = str(port["mac_address"])
        addresses = [str(ip["ip_address"]) for ip in port["fixed_ips"]]
        self.ip4 = next(ip for ip in addresses if ":" not in ip)
        self.ip6 = next(ip for ip in addresses if ":" in ip)
        self._device = ""

    def ip(self, family: int) -> str:
        return self.ip4 if family == 4 else self.ip6

    @property
    def device(self) -> str:
        """The name that it has in the body."""
        if not self._device:
            self._device = self.body.device(self.mac)
        return self._device

    @property
    def host(self) -> Host:
        return self.body.host

    @property
    def probe(self) -> Probe:
        return self.body.probe

    @property
    def link_local(self) -> str:
        """The address that IPv6 gives it of its own."""
        told = self.probe.run(f"ip -6 address show dev {self.device} scope link")
        return next(word.split("/")[0] for word in told.split() if word.startswith("fe80"))

    def renumber(self, ip: str) -> None:
        """Have the body take another IPv4 address for it, which its port has got."""
        self.body.renumber(self, ip)
        self.ip4 = ip

    def drops(self) -> dict[str, Object]:
        """Return what was stopped from and to it on its host, by reason."""
        return {str(drop["reason"]): drop for drop in self.host.agent_client.drops(self.port)}

    def __repr__(self) -> str:
        return f"<{self.body.name} on {self.network}>"


class Body:
    """A workload's body."""

    kind = ""

    def __init__(self, lab: Lab, name: str, host: Host) -> None:
        self.lab, self.name, self.host = lab, name, host
        self.cards: dict[str, Card] = {}
        self.probe: Probe

    def device(self, mac: str) -> str:
        """Return the name of the network card with this MAC."""
        for line in self.probe.run("ip -o link").splitlines():
            if mac in line:
                return line.split(": ")[1].partition("@")[0]
        raise Unavailable(f"{self.name} has no network card {mac}")

    def settled(self) -> None:
        """Wait until it has its addresses and its ports are reachable."""

    def detach(self, network: str) -> None:
        """Take a card's body away; what it was comes back by `attach`."""
        raise NotImplementedError

    def attach(self, network: str) -> None:
        raise NotImplementedError

    def renumber(self, card: Card, ip: str) -> None:
        raise NotImplementedError

    def move(self, host: Host) -> None:
        """Take it to another host, as this kind of body is moved."""
        raise NotImplementedError

    def active(self, *networks: str) -> None:
        for network in networks or self.cards:
            self.lab.client.wait("port", self.cards[network].port, seconds=30)

    def close(self) -> None:
        """Let go of the probe; the body stays."""
        if hasattr(self, "probe"):
            self.probe.close()

    def has_addresses(self, seconds: float = 60.0) -> None:
        """Wait until all its cards have their addresses."""
        end = time.monotonic() + seconds
        while True:
            told = self.probe.run("ip address")
            words = [line.split()[1].split("/")[0] for line in told.splitlines()
                     if line.strip().startswith("inet") and "tentative" not in line]  # fmt: skip
            wanted = [ip for card in self.cards.values() for ip in (card.ip4, card.ip6)]
            # It also has one that IPv6 gives it, which must be nobody else's.
            wanted += ["all of its own"] * ("tentative" in told)
            if missing := [ip for ip in wanted if ip not in words]:
                if time.monotonic() > end:
                    raise Unavailable(f"{self.name} has {', '.join(words)} and not {', '.join(missing)}")
                time.sleep(0.1)
            else:
                return


class Container(Body):
    """A container of a host's Docker engine."""

    kind = "container"

    def __init__(self, lab: Lab, name: str, host: Host, engines: Mapping[str, Engine], wishes: Sequence[Wish]) -> None:
        super().__init__(lab, name, host)
        self._engines, self._wishes = engines, list(wishes)
        self._begin()

    @property
    def _engine(self) -> Engine:
        return self._engines[self.host.name]

    def _begin(self) -> None:
        first, *others = self._wishes
        self._engine.docker(
            *("create", "--name", self.name, "--mac-address", first.mac, "--cap-add", "NET_ADMIN"),
            *("--network", f"name={first.network},driver-opt=ips={first.ip4}"),
            *("-v", f"{PROGRAM}:/probe:ro", IMAGE, "sleep", "1000000"),
        )
        for wish in others:
            self._connect(wish)
        self._engine.docker("start", self.name)
        self._find()
        self.probe = Probe(self.name, Channel.of(self._engine.command("exec", "-i", self.name, "/probe")))

    def _connect(self, wish: Wish) -> None:
        options = ("--driver-opt", f"ips={wish.ip4}", "--driver-opt", f"mac={wish.mac}")
        self._engine.docker("network", "connect", *options, wish.network, self.name)

    def _find(self) -> None:
        """Find the ports that the engine has made."""
        for wish in self._wishes:
            (port,) = self.lab.client.list("port", network_id=wish.network_id, fixed_ips=f"ip_address={wish.ip4}")
            self.cards[wish.network] = Card(self, wish.network, port)

    def detach(self, network: str) -> None:
        self._engine.docker("network", "disconnect", network, self.name)

    def attach(self, network: str) -> None:
        self._connect(next(wish for wish in self._wishes if wish.network == network))
        self._find()
        self.settled()

    def renumber(self, card: Card, ip: str) -> None:
        # An engine tells a container of its addresses once.
        self.probe.run(f"ip -4 address flush dev {card.device}; ip address add {ip}/24 dev {card.device}")

    def settled(self) -> None:
        self.has_addresses()
        self.active()

    def move(self, host: Host) -> None:
        """Start it elsewhere, with the same addresses, MACs and groups."""
        groups = {name: self.lab.client.show("port", card.port)["security_groups"] for name, card in self.cards.items()}
        self.probe.close()
        self._engine.docker("rm", "-f", self.name)
        self.host = host
        self._begin()
        for name, ids in groups.items():
            self.lab.client.update("port", self.cards[name].port, security_groups=ids)
        self.settled()


class Guest(Body):
    """A QEMU guest with Debian's kernel."""

    kind = "guest"

    def __init__(self, lab: Lab, name: str, host: Host, image: Path, wishes: Sequence[Wish]) -> None:
        super().__init__(lab, name, host)
        self._image = image
        for wish in wishes:
            self.cards[wish.network] = Card(self, wish.network, wish.make(lab))
        self.machine = self._machine(host)

    def _machine(self, host: Host, incoming: str | None = None) -> Machine:
        taps = [(card.mac, self._tap(host, card)) for card in self.cards.values()]
        (mac, device), *more = taps
        return Machine(host, self._image, self.lab.state.run, mac, device, incoming, more=more)

    def _tap(self, host: Host, card: Card) -> str:
        device = tap(host, f"{self.name}-{card.network}")
        # QEMU may stand still for seconds where others want the processors as well.
        host.exec("ip", "link", "set", device, "txqueuelen", "10000")
        host.agent_client.plug(card.port, tap=device)
        return device

    def settled(self) -> None:
        self.machine.booted()
        devices = [f"eth{n}" for n in range(1, len(self.cards))]
        for device in devices:
            self.machine.run(f"ip link set {device} up; udhcpc -q -n -t 20 -T 1 -i {device} -s /dhcp", seconds=60)
        self.machine.run(f"/probe --lasting <>{CHANNEL} >&0 2>/tmp/probe.log &")
        self._speak()
        self.has_addresses()
        self.active()

    def detach(self, network: str) -> None:
        self.host.agent_client.unplug(self.cards[network].port)

    def attach(self, network: str) -> None:
        self.host.agent_client.plug(self.cards[network].port, tap=f"{self.name}-{network}")
        self.active(network)

    def move(self, host: Host) -> None:
        """Move it live, as a compute service does."""
        client, left = self.lab.client, self.machine
        bindings = [f"{path_of('port', card.port)}/bindings" for card in self.cards.values()]
        for path in bindings:
            client.ask("POST", path, {"binding": {"host": host.name}})
        where = f"{host.underlay}:{next(_doors)}"
        there = self._machine(host, where)
        self.probe.close()
        left.migrate(where)
        for path in bindings:
            # If what the guest sends from there has not said so already.
            with contextlib.suppress(Conflict):
                client.ask("PUT", f"{path}/{host.name}/activate")
        self.machine, gone, self.host = there, self.host, host
        left.stop()
        self._speak()
        self.active()
        for path, network in zip(bindings, self.cards, strict=True):
            client.ask("DELETE", f"{path}/{gone.name}")
            gone.exec("ip", "link", "delete", f"{self.name}-{network}", check=False)

    def renumber(self, card: Card, ip: str) -> None:
        self.probe.run(f"udhcpc -q -n -t 20 -T 1 -i {card.device} -s /dhcp")

    def _speak(self) -> None:
        line = self.machine.channel()
        line.setblocking(True)
        self.probe = Probe(self.name, Channel(line.fileno(), line.fileno(), line.close))

    def close(self) -> None:
        super().close()
        if hasattr(self, "machine"):
            self.machine.stop()


class Metal(Body):
    """A bare-metal server behind a switch that both hosts are trunked to; one of them serves it."""

    kind = "server"

    def __init__(self, lab: Lab, name: str, host: Host, wishes: Sequence[Wish]) -> None:
        super().__init__(lab, name, host)
        self.server: Server | None = None
        for number, wish in enumerate(wishes):
            vlan = next(_vlans)
            profile = {"physical_network": RACK, "vlan": vlan}
            port = wish.make(
                lab,
                **{"binding:vnic_type": "baremetal", "binding:profile": profile, "binding:host_id": host.name},
            )
            self.cards[wish.network] = card = Card(self, wish.network, port)
            if self.server is None:
                self.server = Server(lab, name, card.mac, vlan, lab.hosts)
            else:
                self.server.add_card(f"eth{number}", card.mac, vlan)
        assert self.server is not None
        self.probe = Probe(name, Channel.of(self.server.command(str(PROGRAM))))

    def settled(self) -> None:
        assert self.server is not None
        for number, card in enumerate(self.cards.values()):
            self.server.boot(card.ip4, card.ip6, device=f"eth{number}")
        self.has_addresses()
        self.active()

    def detach(self, network: str) -> None:
        self.lab.client.update("port", self.cards[network].port, **{"binding:host_id": ""})

    def attach(self, network: str) -> None:
        self.lab.client.update("port", self.cards[network].port, **{"binding:host_id": self.host.name})
        self.active(network)

    def move(self, host: Host) -> None:
        """Have another edge host serve it."""
        client, gone = self.lab.client, self.host
        for card in self.cards.values():
            path = f"{path_of('port', card.port)}/bindings"
            client.ask("POST", path, {"binding": {"host": host.name}})
            client.ask("PUT", f"{path}/{host.name}/activate")
        self.host = host
        self.active()
        for card in self.cards.values():
            client.ask("DELETE", f"{path_of('port', card.port)}/bindings/{gone.name}")

    def renumber(self, card: Card, ip: str) -> None:
        assert self.server is not None
        self.server.boot(ip, device=card.device)


class Wish:
    """What a card's port should be."""

    def __init__(self, network: str, network_id: str, mac: str, ip4: str, groups: Sequence[str]) -> None:
        self.network, self.network_id, self.mac, self.ip4, self.groups = network, network_id, mac, ip4, groups

    def make(self, lab: Lab, **attrs: Any) -> Object:
        return lab.client.create(
            "port",
            network_id=self.network_id,
            mac_address=self.mac,
            fixed_ips=[{"ip_address": self.ip4}],
            security_groups=list(self.groups),
            **attrs,
        )


def with_probe(image: Path, run: Path) -> Path:
    """Return a place like *image* whose guests have the probe as well."""
    made = run / "guest"
    made.mkdir(exist_ok=True)
    archive = subprocess.run(
        ["cpio", "-o", "-H", "newc", "--quiet", "-D", str(PROGRAM.parent)],
        input=f"{PROGRAM.name}\n".encode(), capture_output=True, check=True,
    ).stdout  # fmt: skip
    (made / "vmlinuz").symlink_to((image / "vmlinuz").resolve())
    # The kernel unpacks one archive after the other.
    (made / "initrd").write_bytes((image / "initrd").read_bytes() + gzip.compress(archive, 1))
    return made
