"""Learn which ports have addresses that are nobody's fixed ones, for the routers of all hosts.

    port ── ARP, ND ──> its host's programs ── what is news ──> agent ──> server ──> all hosts
      ▲                                                           │
      └── ARP probe, solicitation: each port that may have one ───┘
                                   ▲
    another host's router looks ───┴── UDP to the hosts of such ports

Docs: docs/decisions/0021-learned-addresses.md.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from contextlib import suppress
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Protocol

from crossway.errors import Conflict, Fault, Invalid, NotFound
from crossway.model import rows as r
from crossway.model.host import LEARNED_MAX
from crossway.plan import view
from crossway.plan.address import ip
from crossway.plan.learned import may_have
from crossway.plan.service import NO_ROUTER

if TYPE_CHECKING:
    from crossway.agent.server import Servers
    from crossway.plan.plan import Plan

log = logging.getLogger(__name__)

WISH_SECONDS = 1.5  # after which who asked whether an address was free has it (RFC 4862: after 1 s)
SEEK_SECONDS = 0.5  # between two times that an address is looked for
SOUGHT_MAX = 4096  # addresses of which that is remembered
HOSTS_MAX, PORTS_MAX = 256, 256  # that are asked for one
VERIFY_SECONDS, MISSED = 20.0, 3  # between two probes of what was learned; how many may be left unanswered
SHARE, SHARE_SECONDS = 5, 5.0  # what the server is told of one port, in so much time
SEEKS, NETWORK_SHARE = 20, 20  # addresses of one network that are looked for, and told of, in a second
# Datagrams and probes a second by which addresses are looked for: of one project's ports, or for one other host; and
# of this host's ports, or for all other hosts.
SEEK_RATE, SEEK_RATE_OF_ALL = 500, 2000
# What each project has of its own, whatever others use; and how much of one host's part goes to one project's ports.
SEEK_RATE_ASSURED, SEEK_RATE_OF_PROJECT = 20, SEEK_RATE // 10
PAUSE_SECONDS = 0.5


class Carrier(Protocol):
    """What is needed of the agent."""

    host: str
    plan: Plan
    servers: Servers

    def probe(self, port: str, address: bytes) -> None: ...
    def seek(self, hosts: list[str], network: str, address: str) -> None: ...


class Turns:
    """How often something was done for each of many of late: *most* times in *seconds*."""

    def __init__(self, most: int, seconds: float) -> None:
        self._most, self._seconds = most, seconds
        self._times: dict[str, deque[float]] = {}

    def due(self, of: str) -> float:
        """Return when it may be done again."""
        times = self._times.get(of)
        return times[0] + self._seconds if times is not None and len(times) == self._most else 0.0

    def take(self, of: str) -> None:
        """Take note that it is done."""
        self._times.setdefault(of, deque(maxlen=self._most)).append(time.monotonic())

    def forget(self) -> None:
        """Forget those for whom it was done long ago."""
        since = time.monotonic() - self._seconds
        self._times = {of: times for of, times in self._times.items() if times[-1] > since}


class Budget:
    """What each of many may still cause: so much a second, and as much at once after a second of silence.

    What costs more than is left may be done as long as something is left, and delays what comes next.
    """

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._paid_until: dict[str, float] = {}

    def left(self, of: str) -> bool:
        """Return whether something is left."""
        return self._paid_until.get(of, 0.0) <= time.monotonic()

    def charge(self, of: str, cost: int) -> None:
        """Take note of what was caused."""
        self._paid_until[of] = max(self._paid_until.get(of, 0.0), time.monotonic() - 1.0) + cost / self._rate

    def forget(self) -> None:
        """Forget those who have all of it again."""
        now = time.monotonic()
        self._paid_until = {of: until for of, until in self._paid_until.items() if until > now - 1.0}


class Seekers:
    """Who has addresses looked for: each of many, and all of them together.

    Each project has a little of its own, which no others can use up; of the rest of one that asks it has a part.
    """

    def __init__(self, rate_of_project: int = SEEK_RATE) -> None:
        self._assured, self._parts = Budget(SEEK_RATE_ASSURED), Budget(rate_of_project)
        self._each, self._all = Budget(SEEK_RATE), Budget(SEEK_RATE_OF_ALL)

    def left(self, of: str, project: str) -> bool:
        """Return whether one of them may have another address looked for that is of a project."""
        return all(budget.left(key) for budget, key in self._payers(of, project))

    def charge(self, of: str, project: str, cost: int) -> None:
        """Take note of what that has cost."""
        for budget, key in self._payers(of, project):
            budget.charge(key, cost)

    def forget(self) -> None:
        """Forget those who have been quiet."""
        for budget in (self._assured, self._parts, self._each):
            budget.forget()

    def _payers(self, of: str, project: str) -> list[tuple[Budget, str]]:
        if self._assured.left(project):
            return [(self._assured, project)]
        return [(self._parts, f"{of} {project}"), (self._each, of), (self._all, "")]


class Learner:
    """What this host's ports have been seen to have, and what others look for."""

    def __init__(self, agent: Carrier) -> None:
        self._agent = agent
        # Port -> address -> its MAC; None: the port has it no more. For the server to be told.
        self._news: dict[str, dict[str, str | None]] = {}
        self._wake = asyncio.Event()
        self._told = Turns(SHARE, SHARE_SECONDS)  # of ports
        self._told_of = Turns(NETWORK_SHARE, 1.0)  # of their networks
        self._seeks = Turns(SEEKS, 1.0)  # of networks
        self._projects, self._hosts = Seekers(), Seekers(SEEK_RATE_OF_PROJECT)
        self._asked = Budget(SEEK_RATE_OF_ALL)  # by other hosts, whether or not anything is probed
        self._sought: dict[tuple[str, bytes], float] = {}
        self._missed: dict[tuple[str, str], int] = {}  # probes of what was learned that are unanswered
        self._ports: dict[r.PortKey, str] = {}

    # What programs bring up.

    def take(self, sighting: r.Sighting) -> None:
        """Take in what a packet of a port has brought up."""
        network = self._agent.plan.network_at(sighting.network)
        if network is None:
            return
        if sighting.kind == r.SightingKind.SOUGHT:
            asking = self._port_at(sighting.port)
            gateways = self._agent.plan.gateways(network.id)
            for address in [sighting.ip] if any(sighting.ip) else gateways:
                self.seek(network, address, asking.project if asking is not None else "")
            return
        port = self._port_at(sighting.port)
        if port is None or port.network != network.id:
            return
        if sighting.kind == r.SightingKind.WISHED:
            asyncio.get_running_loop().call_later(WISH_SECONDS, self._probe, port.id, sighting.ip)
        else:
            self._held(port, network, sighting)

    def _held(self, port: view.Port, network: view.Network, sighting: r.Sighting) -> None:
        """Have the server know that a port of this host has an address, if it may and the server does not."""
        address, at = sighting.ip, sighting.mac
        text, own = r.unpack_ip(address), at.hex(":")
        known = self._agent.plan.learned(network.id, text)
        # One that has several MACs may answer a probe with any.
        any_mac = sighting.kind == r.SightingKind.ANSWERED
        if known is not None and known.port == port.id and (any_mac or known.mac == own):
            self._missed[port.id, text] = 0
            self._news.get(port.id, {}).pop(text, None)
        elif (
            may_have(port, network, address, at)
            and self._is_free(network, address)
            and self._on_link(network.id, text)
            and (
                (known is not None and known.port == port.id) or len(self._agent.plan.learned_by(port.id)) < LEARNED_MAX
            )
        ):
            self._tell(port.id, text, own)

    def _tell(self, port: str, address: str, at: str | None) -> None:
        waiting = self._news.setdefault(port, {})
        if address in waiting or len(waiting) < LEARNED_MAX:
            waiting[address] = at
            self._wake.set()

    def _is_free(self, network: view.Network, address: bytes) -> bool:
        """Return whether an address is no port's fixed one and no router's."""
        row = self._agent.plan.rows["endpoints"].get(r.EndpointKey(network.number, address))
        if row is None or row.place.flags & r.PortFlag.LEARNED:
            return True
        return bool(row.place.kind == r.PlaceKind.ROUTER and row.place.router == NO_ROUTER)

    def _on_link(self, network: str, address: str) -> bool:
        return any(
            ip_address(address) in ip_network(s.cidr, strict=False) for s in self._agent.plan.subnets_of(network)
        )

    # Looking for addresses.

    def seek(self, network: view.Network, address: bytes, project: str) -> None:
        """Have all hosts with ports that may have an address probe those for it, as a port of a project wants."""
        if not self._projects.left(project, project) or not self._is_due(network.id, address):
            return
        hosts = self._agent.plan.hosts_of_candidates(network, address)[:HOSTS_MAX]
        ports = self._candidates(network, address)
        self._probe_all(ports, address)
        self._projects.charge(project, project, 1 + len(hosts) + len(ports))
        if hosts:
            self._agent.seek(hosts, network.id, r.unpack_ip(address))

    def sought(self, host: str, network: str, address: str) -> None:
        """Probe this host's ports for an address that another host looks for: those of each project for itself."""
        found, projects = self._agent.plan.network(network), dict[str, list[str]]()
        try:
            raw = ip(address)
        except ValueError:
            return
        if found is None or not self._asked.left(host) or not self._is_due(network, raw):
            return
        self._asked.charge(host, 1)
        for id in self._candidates(found, raw):
            if (port := self._agent.plan.port(id)) is not None:
                projects.setdefault(port.project, []).append(id)
        for project, ports in projects.items():
            if self._hosts.left(host, project):
                self._hosts.charge(host, project, 1 + len(ports))
                self._probe_all(ports, raw)

    def _is_due(self, network: str, address: bytes) -> bool:
        now = time.monotonic()
        if now - self._sought.get((network, address), 0.0) < SEEK_SECONDS or self._seeks.due(network) > now:
            return False
        if len(self._sought) >= SOUGHT_MAX:
            self._sought = {what: at for what, at in self._sought.items() if now - at < SEEK_SECONDS}
        if len(self._sought) < SOUGHT_MAX:
            self._sought[network, address] = now
        self._seeks.take(network)
        return True

    def _candidates(self, network: view.Network, address: bytes) -> list[str]:
        """Return the ports of this host that may have an address, as many as are probed for one."""
        return self._agent.plan.candidates_here(network, address)[:PORTS_MAX]

    def _probe_all(self, ports: list[str], address: bytes) -> None:
        for port in ports:
            self._agent.probe(port, address)

    def _probe(self, port: str, address: bytes) -> None:
        known = self._agent.plan.port(port)
        if known is not None and self._agent.plan.is_here(known):
            self._agent.probe(port, address)

    def _port_at(self, key: r.PortKey) -> view.Port | None:
        id, bodies = self._ports.get(key), self._agent.plan.local_bodies()
        if id is None or id not in bodies or bodies[id].key != key:
            self._ports = {body.key: port for port, body in bodies.items()}
            id = self._ports.get(key)
        return self._agent.plan.port(id) if id is not None else None

    # What the server is told.

    async def tell(self) -> None:
        """Tell the server of one address, of a port that has not used up its share; wait until there is one."""
        now = time.monotonic()
        self._news = {port: waiting for port, waiting in self._news.items() if waiting}
        due = {port: max(self._told.due(port), self._told_of.due(self._network(port))) for port in self._news}
        port = min(due, key=lambda port: due[port], default=None)
        if port is None or due[port] > now:
            self._wake.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(due[port] - now if port is not None else None):
                    await self._wake.wait()
            return
        address = next(iter(self._news[port]))
        at = self._news[port].pop(address)
        self._told.take(port)
        self._told_of.take(self._network(port))
        try:
            await self._agent.servers.learn(port, address, at)
        except (Conflict, Invalid, NotFound) as fault:
            log.info("address %s of port %s is not learned: %s", address, port, fault)
        except Fault as fault:
            log.debug("address %s of port %s is to be learned: %s", address, port, fault)
            self._news.setdefault(port, {}).setdefault(address, at)
            await asyncio.sleep(PAUSE_SECONDS)

    def _network(self, port: str) -> str:
        known = self._agent.plan.port(port)
        return known.network if known is not None else ""

    async def verify(self) -> None:
        """Probe what this host's ports have been seen to have, and forget what they do not answer for.

        Probe them for next hops that nobody has, too.
        """
        await asyncio.sleep(VERIFY_SECONDS)
        plan, missed = self._agent.plan, {}
        for port in plan.local_bodies():
            for one in plan.learned_by(port):
                key = port, one.ip
                known = plan.port(port)
                if known is None or not plan.is_here(known):
                    continue
                missed[key] = self._missed.get(key, 0) + 1
                if missed[key] > MISSED:
                    self._tell(port, one.ip, None)
                else:
                    self._agent.probe(port, ip(one.ip))
        self._missed = missed
        # Of several next hops those that are known are used, and nobody looks for the others.
        for hop in plan.next_hops_of_nobody():
            if (network := plan.network_at(hop.network)) is not None:
                self._probe_all(self._candidates(network, hop.ip), hop.ip)
        for bounded in (self._told, self._told_of, self._seeks, self._projects, self._hosts, self._asked):
            bounded.forget()
