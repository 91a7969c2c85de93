"""Where guests' questions are answered: read off the data plane, looked up in the view, sent to the port alone.

A question comes with the port that it was asked at, as the data plane knows it;
nothing in the question itself is believed. An answer goes out of the port's own
link, tagged if the port is a VLAN of it, and reaches nobody else.

Questions wait in a queue that serves projects in turn, and the ports of a
project in turn, a few milliseconds at a time: whoever asks without end takes
neither others' answers nor the agent's loop.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import time
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeVar

from crossway.agent.guest import advert, dhcp, dhcpv6, dns
from crossway.agent.guest.facts import Guest, Lease, Prefix
from crossway.agent.guest.fair_queue import FairQueue
from crossway.agent.guest.frame import IPV4, IPV6, UDP, Frame, build, parse
from crossway.agent.guest.names import Names
from crossway.agent.guest.neighbours import Neighbours, asked
from crossway.model.rows import DropRecord, PortKey
from crossway.plan import view
from crossway.plan.address import mac
from crossway.plan.interface_config import DEFAULT, routes_of
from crossway.plan.plan import Plan
from crossway.plan.service import SERVICE_IP, SERVICE_IP6

log = logging.getLogger(__name__)

Ip = TypeVar("Ip", IPv4Address, IPv6Address)

DOT1Q = 0x8100
MAPPED = bytes(10) + b"\xff\xff"  # before an IPv4 address, as tables have it
# Guests forget no router before 9000 s; they are told again long before that.
AGAIN_SECONDS = 600.0
QUEUE_MAX, QUEUE_OF_PORT_MAX = 4096, 64  # questions that wait, in all and of one port
SERVE_SECONDS = 0.005  # how long questions are answered before the loop does something else


class Desk:
    """Answers the guests of one host; *name_of* tells a link's name by its index.

    *furnished* says whether a port's link is an engine's to set up. One gives a
    link its routes by itself, and fails where a router's word came before.
    """

    def __init__(
        self, plan: Plan, name_of: Callable[[int], str | None], furnished: Callable[[str], bool] = lambda _: False
    ) -> None:
        self._plan, self._name_of, self._furnished = plan, name_of, furnished
        self._out: socket.socket | None = None
        self._ports: dict[PortKey, str] = {}
        self._due = 0.0
        # Port -> when it was told of routers, what, and what was known of it then.
        self._told: dict[str, tuple[float, bytes, Guest]] = {}
        self._names = Names(plan, self._answer, refused=self._count)
        self._queue: FairQueue[tuple[PortKey, bytes]] = FairQueue(QUEUE_MAX, QUEUE_OF_PORT_MAX)
        self._serving = False
        self._dropped: dict[str, DropRecord] = {}  # port -> what was beyond its share
        self.neighbours = Neighbours(plan, self._send)

    def close(self) -> None:
        self._names.close()
        if self._out is not None:
            self._out.close()

    def put(self, key: PortKey, raw: bytes) -> None:
        """Have a question answered in its port's turn; beyond the port's share it is dropped and counted."""
        port = self._port_at(key)
        if port is None:
            return
        given_way = self._queue.put(port.project or port.network, port.id, (key, raw))
        if given_way is not None:
            at, lost = given_way
            if (whose := self._port_at(at)) is not None and (asked := parse(lost)) is not None:
                self._count(whose, asked)
        if self._queue and not self._serving:
            self._serving = True
            asyncio.get_running_loop().call_soon(self._serve)

    def _serve(self) -> None:
        end = time.monotonic() + SERVE_SECONDS
        try:
            while self._queue and time.monotonic() < end:
                self.ask(*self._queue.get())
        finally:
            self._serving = bool(self._queue)
            if self._serving:
                asyncio.get_running_loop().call_soon(self._serve)

    def _count(self, port: view.Port, asked: Frame) -> None:
        """Count a question that was beyond its port's share."""
        network, last = self._plan.network(port.network), self._dropped.get(port.id)
        src, dst = (ip if len(ip) == 16 else MAPPED + ip for ip in (asked.src, asked.dst))
        self._dropped[port.id] = DropRecord(
            last.packets + 1 if last is not None else 1,
            time.clock_gettime_ns(time.CLOCK_MONOTONIC),
            src,
            dst,
            network.number if network is not None else 0,
            port.identity,
            0,
            asked.src_port,
            asked.dst_port,
            IPV6 if len(asked.src) == 16 else IPV4,
            asked.proto,
        )

    def dropped(self) -> dict[PortKey, DropRecord]:
        """Return what was beyond the shares of ports, by port, as the data plane counts what it drops."""
        bodies = self._plan.local_bodies()
        self._dropped = {id: record for id, record in self._dropped.items() if id in bodies}
        return {bodies[id].key: record for id, record in self._dropped.items()}

    def ask(self, key: PortKey, raw: bytes) -> None:
        """Answer a question that was asked at a port, if there is an answer."""
        question, port = parse(raw), self._port_at(key)
        if question is None or port is None:
            return
        if question.proto == UDP and question.dst_port == dns.PORT:
            self._names.ask(port, question)
            return
        verb = _verb(question)
        if verb is advert.answer and self._furnished(port.id):
            return
        guest = guest_of(self._plan, port)
        if verb is not None and guest is not None and (told := verb(question, guest)) is not None:
            self._send(key, build(told))

    def _answer(self, port: str, told: Frame) -> None:
        """Send an answer to where a port is now, if it is still here."""
        body = self._plan.local_bodies().get(port)
        if body is not None:
            self._send(body.key, build(told))

    def probe(self, port: str, address: bytes) -> None:
        """Ask a port whether it has an address; only who has it answers, to the agent."""
        known, body = self._plan.port(port), self._plan.local_bodies().get(port)
        if known is not None and body is not None:
            self._send(body.key, asked(address))

    def advertise(self, news: bool = True) -> None:
        """Tell of routers to ports that were not told of late or, with *news*, were told something else."""
        now = time.monotonic()
        if not news and now < self._due:
            return
        self._due = now + AGAIN_SECONDS
        bodies = self._plan.local_bodies()
        for id in self._told.keys() - bodies.keys():
            del self._told[id]
        for id, body in bodies.items():
            port = self._plan.port(id)
            heard = (
                port is not None
                and self._plan.is_here(port)
                and any(":" in a.ip for a in port.addresses)
                and not self._furnished(id)
            )
            guest = guest_of(self._plan, port) if heard and port is not None else None
            told = advert.advertisement(guest) if guest is not None else None
            raw = build(told) if told is not None else b""
            when, what, was = self._told.get(id, (0.0, b"", None))
            if guest is not None and raw and (raw != what or now - when >= AGAIN_SECONDS):
                when = now
                self._told[id] = now, raw, guest
                self._send(body.key, raw)
            # The new router first: no moment without any.
            if was is not None and raw != what and (over := advert.withdrawal(was, guest)) is not None:
                self._send(body.key, build(over))
            if raw:
                self._due = min(self._due, when + AGAIN_SECONDS)
            else:
                self._told.pop(id, None)

    def _port_at(self, key: PortKey) -> view.Port | None:
        id = self._ports.get(key)
        bodies = self._plan.local_bodies()
        if id is None or id not in bodies or bodies[id].key != key:
            self._ports = {body.key: port for port, body in bodies.items()}
            id = self._ports.get(key)
        return self._plan.port(id) if id is not None else None

    def _send(self, key: PortKey, raw: bytes) -> None:
        name = self._name_of(key.ifindex)
        if name is None:
            return
        if key.vlan:
            raw = raw[:12] + struct.pack("!HH", DOT1Q, key.vlan) + raw[12:]
        try:
            if self._out is None:
                self._out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
                self._out.setblocking(False)
            self._out.sendto(raw, (name, 0))
        except OSError as fault:
            # The link is down or gone, or its queue is full: guests ask again.
            log.debug("an answer to %s was not sent: %s", name, fault)


def _verb(asked: Frame) -> Callable[[Frame, Guest], Frame | None] | None:
    if asked.proto != UDP:
        return advert.answer
    return {dhcp.SERVER: dhcp.answer, dhcpv6.SERVER: dhcpv6.answer}.get(asked.dst_port)


def guest_of(plan: Plan, port: view.Port) -> Guest | None:
    """Return what may be told to a port; None if its network is not known."""
    network = plan.network(port.network)
    if network is None or not port.up or not network.up:
        return None
    leases, prefixes = [], []
    for address in port.addresses:
        subnet, ip = plan.subnet(address.subnet), ip_address(address.ip)
        if subnet is None or not subnet.dhcp:
            continue
        prefix = ip_network(subnet.cidr)
        if isinstance(ip, IPv4Address) and isinstance(prefix, IPv4Network):
            leases.append(_lease(ip, prefix, subnet))
        elif isinstance(ip, IPv6Address) and isinstance(prefix, IPv6Network) and (subnet.ra or subnet.mode):
            told = tuple(d for d in map(ip_address, subnet.dns or [SERVICE_IP6]) if isinstance(d, IPv6Address))
            prefixes.append(Prefix(ip, prefix, _but_none(told), subnet.ra, subnet.mode))
    routers = [plan.router_at(port.network, version) for version in (4, 6)]
    router, router6 = (mac(found) if found is not None else None for found in routers)
    return Guest(mac(port.mac), network.mtu, tuple(leases), tuple(prefixes), router, router6)


def _lease(ip: IPv4Address, prefix: IPv4Network, subnet: view.Subnet) -> Lease:
    gateway = IPv4Address(subnet.gateway) if subnet.gateway is not None else None
    told = tuple(d for d in map(ip_address, subnet.dns or [SERVICE_IP]) if isinstance(d, IPv4Address))
    routes = []
    for to, hop in routes_of([(str(ip), subnet)]).given:
        if subnet.gateway is None or to != DEFAULT[4]:  # by the gateway: `dhcp` tells of that
            routes.append((IPv4Network(to), IPv4Address(hop or 0)))  # 0.0.0.0: on the link
    if gateway is None and not subnet.dns:
        routes.append((IPv4Network(SERVICE_IP), IPv4Address(0)))  # on the link
    return Lease(ip, prefix, gateway, _but_none(told), tuple(routes))


def _but_none(servers: tuple[Ip, ...]) -> tuple[Ip, ...]:
    """Return servers of names; the unspecified address says that there is to be none."""
    return tuple(ip for ip in servers if not ip.is_unspecified)
