"""What each host is told, as lines of JSON: encoded once, sent to those whose business it is.

A stream begins with everything (reset) or goes on after a revision; then it
gets each transaction's lines with a bookmark, the moment the copy has it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import msgspec

from crossway.control.cloud import Cloud, Step
from crossway.control.interest import Audience, Interest, Topic
from crossway.model.address_group import AddressGroup
from crossway.model.group import Group
from crossway.model.host import Handover, Host, Identity, Learned
from crossway.model.network import MTU_MIN, VLAN, Network
from crossway.model.port import ROUTER_INTERFACE, Port
from crossway.model.router import Router
from crossway.model.rule import INGRESS, IPV6, Rule
from crossway.model.subnet import Subnet
from crossway.portions import Portions

LOG = logging.getLogger(__name__)
BOOKMARK_SECONDS = 5.0
TAKE_SECONDS = 0.5
CARRIED_SECONDS = 1.0  # less than those for which hosts carry what has not come
# Streams that one host has at once: that of its agent, and one that the agent has given up and the server has not.
STREAMS_MAX = 2
# A host that leaves so much unread starts over with a reset.
BACKLOG_MAX = 32 << 20
LOG_CHANGES, LOG_BYTES = 100_000, 64 << 20
CHUNK = 1 << 18
RESET = b'{"reset":true}\n'
ENCODER = msgspec.json.Encoder()
Shape = dict[str, Any]


class Stream:
    """What waits to be sent to one connection of a host."""

    def __init__(self, host: str, own: bool = False) -> None:
        self.host, self.own = host, own
        self.ended = False
        self.waiting: list[bytes] = []
        self.size = 0
        self.lost = False
        self.sent_at = time.monotonic()
        self.woken = asyncio.Event()

    def push(self, lines: bytes) -> None:
        self.size += len(lines)
        if self.size > BACKLOG_MAX:
            self.waiting.clear()
            self.size, self.lost = 0, True
        if not self.lost:
            self.waiting.append(lines)
        self.woken.set()

    def take(self) -> bytes:
        lines = b"".join(self.waiting)
        self.waiting.clear()
        self.size = 0
        self.woken.clear()
        self.sent_at = time.monotonic()
        return lines

    def end(self) -> None:
        """Send nothing more."""
        self.ended = True
        self.take()
        self.woken.set()


class Views:
    """The views of all hosts."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.streams: dict[str, dict[Stream, None]] = {}  # the oldest first
        # How many objects were encoded and how many lines handed to streams: cost follows the change.
        self.encoded = 0
        self.delivered = 0
        self._lines: dict[Topic, bytes] = {}
        self._told: list[tuple[Audience, bytes]] = []
        # What was told at each revision, for those who come back; and the last revision it does not hold.
        self._log: deque[tuple[int, list[tuple[Audience, bytes]]]] = deque()
        self._log_bytes = 0
        self._floor = cloud.revision
        self._closed = False
        # What hosts were asked to take and have not said that they did.
        self._taken: dict[tuple[str, str], asyncio.Event] = {}
        self._carried: dict[tuple[str, str], float] = {}
        self.interest = Interest(cloud, self._tell)
        cloud.listeners.append(self._change)
        cloud.take = self.take

    async def lines(self, host: str, after: int, *, own: bool = False) -> AsyncIterator[bytes]:
        """Yield what *host* must know after a revision, without end; of a host's *own* streams the oldest ends."""
        stream = Stream(host, own)
        streams = self.streams.setdefault(host, {})
        streams[stream] = None
        if own and len(owned := [one for one in streams if one.own]) > STREAMS_MAX:
            LOG.warning("host %s has %d streams of its view, the most of one host: its oldest ends", host, STREAMS_MAX)
            owned[0].end()
            del streams[owned[0]]
        try:
            for chunk in await self._resume(host, after):
                yield chunk
            while not (self._closed or stream.ended):
                if stream.lost:
                    stream.take()
                    stream.lost = False
                    for chunk in await self._reset(host):
                        yield chunk
                await stream.woken.wait()
                lines = stream.take()
                # In parts, so that no more waits to be sent than a host reads.
                for at in range(0, len(lines), CHUNK):
                    yield lines[at : at + CHUNK]
        finally:
            streams.pop(stream, None)
            if not streams and self.streams.get(host) is streams:
                del self.streams[host]

    async def take(self, host: str, port: str) -> None:
        """Have a host carry a port that is about to move there; return when it does, or after a moment.

        Nothing is lost but a few packets of the moment when the host hears of
        the move later than others.
        """
        if self._carried.pop((host, port), 0.0) > time.monotonic() - CARRIED_SECONDS:
            return
        streams = self.streams.get(host)
        if not streams:
            return
        waiting = self._taken.setdefault((host, port), asyncio.Event())
        for stream in streams:
            stream.push(ENCODER.encode({"take": port}) + b"\n")
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(TAKE_SECONDS):
                    await waiting.wait()
        finally:
            self._taken.pop((host, port), None)

    def taken(self, host: str, port: str, *, carried: bool = True) -> None:
        """Hear whether a host carries a port that it was asked to take, or whose guest it has heard."""
        if waiting := self._taken.get((host, port)):
            waiting.set()
        elif carried and (found := self.cloud.ports.get(port)) is not None and host in found.carriers:
            # What may not go there is nobody's to remember.
            now = time.monotonic()
            # Some did not go on to ask for the port.
            self._carried = {who: at for who, at in self._carried.items() if at > now - CARRIED_SECONDS}
            self._carried[host, port] = now

    def tick(self) -> None:
        """Send a bookmark to each stream that has been quiet for a while."""
        quiet = time.monotonic() - BOOKMARK_SECONDS
        bookmark = self._bookmark()
        for streams in self.streams.values():
            for stream in streams:
                if stream.sent_at <= quiet and not stream.waiting:
                    stream.push(bookmark)

    def close(self) -> None:
        """End all streams."""
        self._closed = True
        for streams in self.streams.values():
            for stream in streams:
                stream.woken.set()

    def _change(self, revision: int, steps: list[Step]) -> None:
        for step in steps:
            for topic in _topics(self.cloud, step):
                self._lines.pop(topic, None)
        self.interest.change(steps)
        if not self._told:
            return
        told, self._told = _joined(self._told), []
        self._log.append((revision, told))
        self._log_bytes += sum(len(lines) for _, lines in told)
        while len(self._log) > LOG_CHANGES or self._log_bytes > LOG_BYTES:
            self._floor, forgotten = self._log.popleft()
            self._log_bytes -= sum(len(lines) for _, lines in forgotten)
        touched: dict[Stream, None] = {}
        for audience, lines in told:
            for host in audience if len(audience) < len(self.streams) else self.streams.keys() & audience:
                for stream in self.streams.get(host, ()):
                    stream.push(lines)
                    touched[stream] = None
                    self.delivered += 1
        bookmark = self._bookmark()
        for stream in touched:
            stream.push(bookmark)

    def _tell(self, audience: Audience, topic: Topic, there: bool) -> None:
        if audience:
            self._told.append((audience, self._line(topic) if there else _gone(topic)))

    def _line(self, topic: Topic) -> bytes:
        line = self._lines.get(topic)
        if line is None:
            told = shape(self.cloud, topic)
            if told is None:
                return _gone(topic)
            line = ENCODER.encode({"kind": topic[0], "id": topic[1], "object": told}) + b"\n"
            self.encoded += 1
            self._lines[topic] = line
        return line

    async def _resume(self, host: str, after: int) -> list[bytes]:
        if not 0 < after <= self.cloud.revision or after < self._floor:
            return await self._reset(host)
        lines = [
            lines for revision, told in self._log if revision > after for audience, lines in told if host in audience
        ]
        return [*_chunks(lines), self._bookmark()]

    async def _reset(self, host: str) -> list[bytes]:
        """Return all that a host must know. What changes meanwhile is pushed, and comes after the older bookmark."""
        lines, bookmark, portions = [RESET], self._bookmark(), Portions()
        for topic in self.interest.topics(host):
            lines.append(self._line(topic))
            if portions.due:
                await portions.turn()
        return [*_chunks([*lines, bookmark])]

    def _bookmark(self) -> bytes:
        return b'{"bookmark":%d}\n' % self.cloud.revision


def _topics(cloud: Cloud, step: Step) -> list[Topic]:
    """Return the topics whose lines a step makes old."""
    kind, id, old, new = step
    if kind == AddressGroup.kind.table:
        return [("group", rule.security_group_id) for rule in cloud.rules.by("remote_address_group_id", id)]
    if kind == "rule":
        return [("rule", id), ("group", (new or old).security_group_id)]
    if kind == "port":
        return [
            ("port", id),
            *(("router", p.device_id) for p in (old, new) if p and p.device_owner == ROUTER_INTERFACE),
        ]
    return [(kind, id)]


def _joined(told: list[tuple[Audience, bytes]]) -> list[tuple[Audience, bytes]]:
    """Put lines together that follow each other and have the same audience."""
    groups: list[tuple[Audience, list[bytes]]] = []
    for audience, line in told:
        if groups and groups[-1][0] == audience:
            groups[-1][1].append(line)
        else:
            groups.append((audience, [line]))
    return [(audience, b"".join(lines)) for audience, lines in groups]


def _chunks(lines: list[bytes]) -> list[bytes]:
    chunks: list[list[bytes]] = [[]]
    size = 0
    for line in lines:
        chunks[-1].append(line)
        size += len(line)
        if size > CHUNK:
            chunks.append([])
            size = 0
    return [b"".join(chunk) for chunk in chunks if chunk]


def _gone(topic: Topic) -> bytes:
    return ENCODER.encode({"kind": topic[0], "id": topic[1], "object": None}) + b"\n"


def _host(host: Host, cloud: Cloud) -> Shape:
    return {"id": host.id, "underlay": host.underlay}


def _network(network: Network, cloud: Cloud) -> Shape:
    return {
        "id": network.id,
        "number": network.number,
        # Links carry no less; there is no subnet where the network is to.
        "mtu": max(network.mtu, MTU_MIN[4]),
        "type": network.type,
        "physnet": network.physnet,
        "segment": network.segment if network.type == VLAN else None,
        "up": network.admin_state_up,
        "domain": network.dns_domain,
    }


def _subnet(subnet: Subnet, cloud: Cloud) -> Shape:
    return {
        "id": subnet.id,
        "network": subnet.network_id,
        "cidr": subnet.cidr,
        "gateway": subnet.gateway_ip,
        "dns": subnet.dns_nameservers,
        "routes": subnet.host_routes,
        "dhcp": subnet.enable_dhcp,
        "ra": subnet.ipv6_ra_mode,
        "mode": subnet.ipv6_address_mode,
    }


def _port(port: Port, cloud: Cloud) -> Shape:
    return {
        "id": port.id,
        "network": port.network_id,
        "mac": port.mac_address,
        "addresses": [{"ip": fixed.ip_address, "subnet": fixed.subnet_id} for fixed in port.fixed_ips],
        "identity": port.identity,
        "groups": port.security_groups,
        "pairs": [{"ip": _prefix(pair.ip_address), "mac": pair.mac_address} for pair in port.allowed_address_pairs],
        "secured": port.port_security_enabled,
        "up": port.admin_state_up,
        "host": port.at,
        "waiting": port.waiting,
        "device": port.device,
        "link": port.link,
        "owner": port.device_owner,
        "project": port.project_id,
        "names": port.names,
        "workload": port.workload,
    }


def _router(router: Router, cloud: Cloud) -> Shape:
    return {
        "id": router.id,
        "number": router.number,
        "up": router.admin_state_up,
        "interfaces": [
            _interface(port, cloud)
            for port in cloud.ports.by("device_id", router.id)
            if port.device_owner == ROUTER_INTERFACE and port.admin_state_up
        ],
        "routes": router.routes,
    }


def _interface(port: Port, cloud: Cloud) -> Shape:
    subnets = [(fixed, cloud.subnets.get(fixed.subnet_id)) for fixed in port.fixed_ips]
    return {
        "port": port.id,
        "network": port.network_id,
        "mac": port.mac_address,
        "addresses": [{"ip": fixed.ip_address, "prefix": _length(subnet)} for fixed, subnet in subnets if subnet],
    }


def _group(group: Group, cloud: Cloud) -> Shape:
    """Return what a host is told of a group: the prefixes of an address group once, however many rules name it.

    Such rules stand apart, where an agent that knows nothing of address groups sees none: it would take them to
    be about anyone.
    """
    rules = list(cloud.rules.by("security_group_id", group.id))
    named = [rule for rule in rules if rule.remote_address_group_id is not None]
    groups = dict.fromkeys(rule.remote_address_group_id for rule in named)
    found = {id: cloud.of(AddressGroup).get(id) for id in groups if id is not None}
    return {
        "id": group.id,
        "stateful": group.stateful,
        "rules": [_rule_of_group(rule) for rule in rules if rule.remote_address_group_id is None],
        "named": [{**_rule_of_group(rule), "addresses": rule.remote_address_group_id} for rule in named],
        "addresses": {id: one.addresses for id, one in found.items() if one is not None},
    }


def _rule(rule: Rule, cloud: Cloud) -> Shape:
    return {**_rule_of_group(rule), "group_id": rule.security_group_id}


def _rule_of_group(rule: Rule) -> Shape:
    return {
        "id": rule.id,
        "number": rule.number,
        "way": "in" if rule.direction == INGRESS else "out",
        "family": 6 if rule.ethertype == IPV6 else 4,
        "proto": rule.proto,
        "min": rule.port_range_min,
        "max": rule.port_range_max,
        "group": rule.remote_group_id,
        "prefix": rule.normalized_cidr,
    }


def _identity(identity: Identity, cloud: Cloud) -> Shape:
    return {"id": identity.id, "groups": identity.groups}


def _handover(handover: Handover, cloud: Cloud) -> Shape:
    return {"id": handover.id, "port": handover.port, "by": handover.by, "flows": handover.flows}


def _learned(learned: Learned, cloud: Cloud) -> Shape:
    return {
        "id": learned.id,
        "network": learned.network,
        "ip": learned.ip,
        "port": learned.port,
        "mac": learned.mac,
    }


def _prefix(ip: str) -> str:
    return ip if "/" in ip else f"{ip}/{128 if ':' in ip else 32}"


def _length(subnet: Subnet) -> int:
    return int(subnet.cidr.rpartition("/")[2])


SHAPES: dict[str, Callable[[Any, Cloud], Shape]] = {
    "host": _host,
    "network": _network,
    "subnet": _subnet,
    "port": _port,
    "router": _router,
    "group": _group,
    "rule": _rule,
    "identity": _identity,
    "handover": _handover,
    "learned": _learned,
}


def shape(cloud: Cloud, topic: Topic) -> Shape | None:
    """Return what hosts are told of an object; None if there is none, or none that concerns them."""
    kind, id = topic
    found = cloud.tables[kind].rows.get(id)
    return None if found is None or (kind == "port" and not found.present) else SHAPES[kind](found, cloud)
