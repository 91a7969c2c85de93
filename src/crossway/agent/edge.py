"""Edges: hosts that stand in for each other before bare-metal servers.

    active ── connections ──> standby          each 0.2 s what is new of them
       ▲                        │
       └── ICMP echo, each 25 ms┘  four unanswered: the standby takes the port, and says so
                                   to the switch (RARP) and to all hosts (UDP), past the server

That a host's kernel answers is what counts: an agent that dies stops no packet.
A host that others hear, as they say when they are asked, is not dead. One to
which nobody answers is cut off itself; it takes nothing, and lets go of what it
has. Docs: docs/decisions/0010-edges.md.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Protocol

import msgspec

from crossway.agent import handover
from crossway.agent.guest.frame import checksum
from crossway.model import rows as r
from crossway.plan import view
from crossway.plan.address import mac

if TYPE_CHECKING:
    from crossway.agent.server import Servers
    from crossway.kernel.links import Link
    from crossway.plan.plan import Plan

log = logging.getLogger(__name__)

PORT = 9697  # UDP, on the underlay's addresses
IP_PKTINFO = 8  # linux/in.h
BEAT_SECONDS, QUIET_SECONDS = 0.025, 0.5
MISSED = 4  # echoes in a row that a host does not answer when it is taken for dead
DOUBTED = 2  # when others are asked whether they hear it
LATELY_SECONDS = 10.0  # for which a host that has answered is one to be missed
SEEN_SECONDS = 0.15  # for which another's word that it hears a host counts
CALM_SECONDS, RESTLESS = 5.0, 6  # a port that has just gone over goes again after twice as many, and so on
ANNOUNCE_SECONDS, PATIENT_SECONDS, LATER_SECONDS = 1.0, 60.0, 10.0
WITNESSES = 3  # hosts beside the edges that are asked as well, to know who is cut off
STREAM_SECONDS, WHOLE_SECONDS, FORGET_SECONDS = 0.2, 10.0, 35.0
TOLD_SECONDS = 0.5  # between two times that a host says what it has taken
BACK = 10  # times that it says so of a port of which the server does not know that it was elsewhere
ROWS = 24  # connections in a datagram
MACS = 4096  # that a switch is told of at most
MILLISECOND = 1_000_000
BROADCAST, DOT1Q, RARP = b"\xff" * 6, 0x8100, 0x8035


class Said(msgspec.Struct, omit_defaults=True):
    """What one host says to another of a port: *at* whom it is, or one of the others."""

    port: str
    at: str = ""  # host that has taken it
    turn: int = 0  # when: the latest word counts
    ask: bool = False  # who has it?
    yours: bool = False  # not I
    take: bool = False  # I cannot reach its server any more
    seek: str = ""  # do you hear this host?
    seen: str = ""  # I do
    flows: bytes = b""  # connections, each as in `handover`
    network: str = ""  # of no port:
    probe: str = ""  # which of your ports there has this address?


class Carrier(Protocol):
    """What is needed of the agent."""

    host: str
    underlay: str
    connected: bool
    plan: Plan
    servers: Servers

    def settle(self) -> None: ...
    def listen(self, port: str) -> None: ...
    def link(self, name: str) -> Link | None: ...
    def toward(self, address: str) -> Link | None: ...
    def leading(self, address: str) -> set[int]: ...
    def device_of(self, port: str) -> str | None: ...
    def bring(self, port: str) -> None: ...
    def hand_in(self, port: str, flows: bytes) -> None: ...
    def sought(self, host: str, network: str, address: str) -> None: ...
    async def flows(self, ports: Mapping[str, r.PortKey]) -> dict[str, dict[r.FlowKey, r.Flow]]: ...


def arrival(extra: Iterable[tuple[int, int, bytes]]) -> int:
    """Return the link by which a datagram came, of what the kernel says beside it; 0 if it does not."""
    for level, kind, data in extra:
        if (level, kind) == (socket.IPPROTO_IP, IP_PKTINFO):
            return int(struct.unpack_from("=i", data)[0])
        if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
            return int(struct.unpack_from("=I", data, 16)[0])
    return 0


class Pulse:
    """Asks hosts for echoes (RFC 792, RFC 4443), and counts what they leave unanswered."""

    def __init__(self, own: str) -> None:
        self._v6 = ":" in own
        family, proto = (socket.AF_INET6, socket.IPPROTO_ICMPV6) if self._v6 else (socket.AF_INET, socket.IPPROTO_ICMP)
        self._socket = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, proto)
        self._socket.bind((own, 0))
        self._identifier = os.getpid() & 0xFFFF
        self._number = 0
        self._missed: dict[str, int] = {}
        self._heard: dict[str, float] = {}  # when each answered last

    def fileno(self) -> int:
        return self._socket.fileno()

    def hear(self) -> set[str]:
        """Take in all answers that have come; return whose."""
        heard: set[str] = set()
        while True:
            try:
                packet, (source, *_) = self._socket.recvfrom(256)
            except OSError:
                return heard
            icmp = packet if self._v6 else packet[(packet[0] & 15) * 4 :]
            answer = icmp[:1] == bytes([129 if self._v6 else 0])
            if answer and icmp[4:6] == self._identifier.to_bytes(2, "big") and source in self._missed:
                self._missed[source] = 0
                self._heard[source] = time.monotonic()
                heard.add(source)

    def ask(self, hosts: Iterable[str]) -> None:
        """Ask each host once more."""
        self._missed = {host: self._missed.get(host, 0) + 1 for host in hosts}
        self._number = (self._number + 1) & 0xFFFF
        head = struct.pack("!BBHHH", 128 if self._v6 else 8, 0, 0, self._identifier, self._number)
        if not self._v6:
            head = head[:2] + struct.pack("!H", checksum(head)) + head[4:]
        for host in self._missed:
            try:
                self._socket.sendto(head, (host, 0))
            except OSError:
                continue  # not reached: not answered

    def silent(self, host: str, missed: int = MISSED) -> bool:
        """Return whether a host has left too many unanswered."""
        return self._missed.get(host, 0) >= missed

    def alone(self, was: bool) -> bool | None:
        """Return whether nobody answers any more, which says that this host is cut off; None: it can't be known.

        Who has not answered for long says nothing. *was*: so it was when last
        asked, and is until somebody answers.
        """
        silent = all(self.silent(host) for host in self._missed)
        if was and self._missed:
            return silent
        now = time.monotonic()
        lately = [host for host in self._missed if now - self._heard.get(host, -LATELY_SECONDS) < LATELY_SECONDS]
        if not silent:
            return False if any(not self.silent(host) for host in lately) else None
        return True if len(lately) > 1 else None

    def begin_anew(self) -> None:
        """Forget what was left unanswered."""
        self._missed = dict.fromkeys(self._missed, 0)

    def close(self) -> None:
        self._socket.close()


class Edges:
    """The bare-metal servers' ports of this host, and where other hosts say that theirs are."""

    def __init__(self, agent: Carrier) -> None:
        self._agent = agent
        self._ports: set[str] = set()  # of servers that this host may serve
        self._here: set[str] = set()
        self._left: set[str] = set()  # of which the next host is to hear once more
        self._turns: dict[str, tuple[int, str]] = {}
        self._telling: dict[str, tuple[float, int]] = {}  # port -> when it is told of again, how often it was
        self._back: set[str] = set()  # those of which the server's last word is that they are here already
        # Connections of ports that others serve: what names one -> its row, and when it was told.
        self._known: dict[str, dict[bytes, tuple[bytes, float]]] = {}
        self._told: dict[str, dict[r.FlowKey, tuple[int, int]]] = {}
        self._whole = 0.0
        self._socket: socket.socket | None = None
        self._pulse: Pulse | None = None
        self._out: socket.socket | None = None
        self._asked: dict[str, float] = {}  # when another edge was asked of a port
        self._mute = False  # whether it was told that no echoes can be asked for
        self._was_alone = False
        self._begun = False  # whether anything was applied yet
        self._were: dict[str, str | None] = {}  # where ports were when last looked at
        self._moved: dict[str, list[float]] = {}  # when they went over of late
        self._seen: dict[str, float] = {}  # when another said that it hears a host
        # Ports here of which a silent host may still think, with what it has in its kernel, that they are
        # there: since when, and when the switch is told again.
        self._unsettled: dict[tuple[str, str], tuple[float, float]] = {}
        self._scout: Pulse | None = None  # asks hosts for others
        self._seekers: dict[str, dict[str, tuple[str, float]]] = {}  # address -> who asks, for which port, until when

    # Life.

    def open(self) -> None:
        """Hear what other hosts say."""
        family = socket.AF_INET6 if ":" in self._agent.underlay else socket.AF_INET
        door = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            if family == socket.AF_INET:
                door.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
            else:
                door.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            door.bind((self._agent.underlay, PORT))
        except OSError as fault:
            door.close()
            log.warning("other hosts cannot say what they take: UDP %s port %d: %s", self._agent.underlay, PORT, fault)
            return
        self._socket = door
        asyncio.get_running_loop().add_reader(door.fileno(), self._hear)

    def close(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
        if self._scout is not None:
            asyncio.get_running_loop().remove_reader(self._scout.fileno())
        for one in (self._pulse, self._scout, self._out):
            if one is not None:
                one.close()

    def note(self, id: str, port: view.Port | None) -> None:
        """Take in what the view tells of a port."""
        if port is not None and port.link is not None and self._agent.host in port.carriers:
            self._ports.add(id)
        else:
            self._ports.discard(id)
            for kept in (self._known, self._told, self._asked, self._were, self._moved):
                kept.pop(id, None)
            for id, host in [who for who in self._unsettled if who[0] == id]:
                del self._unsettled[id, host]
        if port is None or (self._agent.plan.whereabouts(port) == port.host and id not in self._back):
            # The server has spoken: what others say next counts, however their clocks go.
            self._turns.pop(id, None)

    def before(self) -> None:
        """Put the connections of ports that are here from now on where the programs look."""
        for id in [id for id in self._known if self._serves(id)]:
            rows = self._known.pop(id)
            now = time.monotonic()
            self._agent.hand_in(id, b"".join(_aged(row, now - told) for row, told in rows.values()))

    def after(self) -> None:
        """Tell the switch of those that have come."""
        here = {id for id in self._ports if self._serves(id)}
        for id in here - self._here:
            self._told.pop(id, None)
            self._announce(id)
        self._left |= (self._here - here) & self._ports
        # An agent that has just begun had ports here that it knows nothing of: its host's programs served them.
        for id in (self._here if self._begun else self._ports) - here:
            self._leave(id)
        self._here, self._begun = here, True

    def _leave(self, id: str) -> None:
        """Tell the host that has a port that this one has let go of it."""
        port, hosts = self._agent.plan.port(id), self._hosts()
        at = self._agent.plan.whereabouts(port) if port is not None else None
        if at in hosts:
            self._say(hosts[at], Said(id, yours=True))

    # Who serves.

    def _serves(self, id: str) -> bool:
        port = self._agent.plan.port(id)
        return port is not None and self._agent.plan.is_here(port) and id in self._agent.plan.local_bodies()

    def _hosts(self) -> dict[str, str]:
        """Return the underlay addresses of all other hosts."""
        found = self._agent.plan.objects["host"]
        return {id: h.underlay for id, h in found.items() if isinstance(h, view.Host) and id != self._agent.host}

    async def beat(self) -> None:
        """Look once who answers, and take or let go of what follows from it."""
        shared = {
            id: port
            for id in self._ports
            if (port := self._agent.plan.port(id)) is not None and len({h for h in port.carriers if h}) > 1
        }
        if not shared:
            if self._pulse is not None:
                self._pulse.close()
                self._pulse = None
            self._repeat()
            await asyncio.sleep(QUIET_SECONDS)
            return
        if self._pulse is None and not self._begin():
            await asyncio.sleep(QUIET_SECONDS)
            return
        hosts = self._hosts()
        edges = {hosts[h] for port in shared.values() for h in port.carriers if h in hosts}
        witnesses = sorted(set(hosts.values()) - edges)[:WITNESSES]
        assert self._pulse is not None
        self._pulse.hear()
        was, alone = self._was_alone, self._alone(edges)
        if was and not alone:
            # That others have not answered yet is no sign of their death: this host has just come back.
            self._pulse.begin_anew()
        self._was_alone = alone
        for id, port in shared.items():
            self._judge(id, port, hosts, alone, witnesses)
        self._pulse.ask([*edges, *witnesses])
        self._settle()
        self._repeat()
        await asyncio.sleep(BEAT_SECONDS)

    def _begin(self) -> bool:
        """Make ready to ask for echoes; return whether that can be done."""
        try:
            self._pulse = Pulse(self._agent.underlay)
        except OSError as fault:
            if not self._mute:
                log.warning("no standby: hosts cannot be asked for echoes from %s: %s", self._agent.underlay, fault)
            self._mute = True
            return False
        self._mute = False
        return True

    def _alone(self, edges: set[str]) -> bool:
        """Return whether it is this host that is cut off."""
        assert self._pulse is not None
        if (word := self._pulse.alone(self._was_alone)) is not None:
            return word
        # With nobody else to ask, the wire tells.
        link = next((link for address in sorted(edges) if (link := self._agent.toward(address)) is not None), None)
        return link is None or not self._carried(link.name)

    def _carried(self, device: str | None) -> bool:
        link = self._agent.link(device) if device is not None else None
        return link is not None and link.up and link.carrier

    def _judge(
        self, id: str, port: view.Port, hosts: Mapping[str, str], alone: bool, witnesses: Iterable[str] = ()
    ) -> None:
        assert self._pulse is not None
        at, own = self._agent.plan.whereabouts(port), self._agent.host
        missed = MISSED << self._restless(id, at)
        wired = self._carried(self._agent.device_of(id))
        others = [h for h in port.carriers if h and h != own and h in hosts]
        if at == own:
            answering = [h for h in others if not self._pulse.silent(hosts[h])]
            for other in others:
                if other not in answering:
                    self._unsettled.setdefault((id, other), (time.monotonic(), 0.0))
            if alone and others:
                log.warning("cut off: letting go of port %s", id)
                self._place(id, others[0])
            elif not wired and answering and self._due(id):
                log.warning("the server of port %s is out of reach: asking %s to take it", id, answering[0])
                self._say(hosts[answering[0]], Said(id, take=True))
        elif alone or not wired or at is None or at not in hosts:
            return
        elif self._pulse.silent(hosts[at], missed) and time.monotonic() - self._seen.get(at, 0.0) > SEEN_SECONDS:
            log.warning("host %s is silent: taking port %s", at, id)
            self.take(id)
        elif self._pulse.silent(hosts[at], DOUBTED):
            for address in witnesses:
                self._say(address, Said(id, seek=at))
        elif port.host == own and self._due(id):
            # The server says that it is here: whoever has it, or has not, says so.
            self._say(hosts[at], Said(id, ask=True))

    def _restless(self, id: str, at: str | None) -> int:
        """Return how often a port has gone over of late."""
        now = time.monotonic()
        times = self._moved.setdefault(id, [])
        if self._were.setdefault(id, at) != at:
            self._were[id] = at
            times.append(now)
        times[:] = [then for then in times if now - then < CALM_SECONDS]
        return min(len(times), RESTLESS)

    def _settle(self) -> None:
        """Tell the switch once more where ports are that a host may have let go of, or not."""
        now = time.monotonic()
        for (id, host), (since, due) in list(self._unsettled.items()):
            port = self._agent.plan.port(id)
            if port is None or host not in port.carriers or id not in self._here:
                del self._unsettled[id, host]
            elif now >= due:
                later = ANNOUNCE_SECONDS if now - since < PATIENT_SECONDS else LATER_SECONDS
                self._unsettled[id, host] = since, now + later
                self._announce(id)
                if address := self._hosts().get(host):
                    self._say(address, Said(id, ask=True))

    def _due(self, id: str) -> bool:
        """Return whether it is time to ask another edge of a port again."""
        now = time.monotonic()
        if due := now - self._asked.get(id, 0.0) > TOLD_SECONDS:
            self._asked[id] = now
        return due

    def take(self, id: str) -> None:
        """Serve a port from now on, of a server or not, and have everybody know."""
        turn = max(self._turns.get(id, (0, ""))[0] + 1, time.time_ns() // MILLISECOND)
        self._turns[id] = turn, self._agent.host
        port = self._agent.plan.port(id)
        if port is not None and port.host == self._agent.host:
            self._back.add(id)
        else:
            self._back.discard(id)
        self._place(id, self._agent.host)
        self._telling[id] = 0.0, 0
        self._repeat()

    def _place(self, id: str, host: str) -> None:
        self._agent.plan.placed(id, host)
        self._agent.settle()
        self._agent.listen(id)

    def _repeat(self) -> None:
        """Say once more what was taken, until the server says so itself, and ask it to."""
        now = time.monotonic()
        for id, (due, times) in list(self._telling.items()):
            port = self._agent.plan.port(id)
            known = port is not None and port.host == self._agent.host and (id not in self._back or times >= BACK)
            if port is None or known or self._agent.plan.whereabouts(port) != self._agent.host:
                del self._telling[id]
                self._back.discard(id)
                continue
            if now < due:
                continue
            self._telling[id] = now + (TOLD_SECONDS if times > 2 else BEAT_SECONDS), times + 1
            turn, at = self._turns[id]
            for address in self._hosts().values():
                self._say(address, Said(id, at=at, turn=turn))
            if self._agent.connected and times % 4 == 0 and port.host != self._agent.host:
                self._agent.bring(id)

    # What hosts say.

    def _say(self, address: str, said: Said) -> None:
        self._send([address], msgspec.msgpack.encode(said))

    def _send(self, addresses: Iterable[str], raw: bytes) -> None:
        if self._socket is None:
            return
        for address in addresses:
            try:
                self._socket.sendto(raw, (address, PORT))
            except OSError as fault:
                log.debug("%s was not told: %s", address, fault)

    def _hear(self) -> None:
        assert self._socket is not None
        for _ in range(64):
            try:
                raw, extra, _, (source, port, *_) = self._socket.recvmsg(2048, 128)
            except OSError:
                return
            name = next((name for name, address in self._hosts().items() if address == source), None)
            # Nobody whose packets the overlay would take, no agent, or somebody who only says that he is that host.
            if name is None or port != PORT or arrival(extra) not in self._agent.leading(source):
                continue
            try:
                self._heard(name, source, msgspec.msgpack.decode(raw, type=Said))
            except (msgspec.DecodeError, struct.error) as fault:
                log.warning("%s said what nobody understands: %s", name, fault)

    def _heard(self, name: str, source: str, said: Said) -> None:
        if said.probe:
            self._agent.sought(name, said.network, said.probe)
            return
        port = self._agent.plan.port(said.port)
        if port is None or (port.link is None and not said.at):
            return
        if said.seen:
            # Anybody may have been asked.
            self._seen[said.seen] = time.monotonic()
            return
        if name not in port.carriers:
            return
        if said.seek:
            self._seek(said.port, said.seek, source)
            return
        own, ours = self._agent.host, self._agent.host in port.carriers
        at = self._agent.plan.whereabouts(port)
        if said.at:
            if said.at == name and (said.turn, said.at) > self._turns.get(said.port, (0, "")):
                self._turns[said.port] = said.turn, said.at
                if at != name:
                    log.info("port %s is on host %s", said.port, name)
                    self._place(said.port, name)
        elif said.flows and ours:
            self._learn(said.port, said.flows)
        elif said.ask:
            turn = self._turns.get(said.port, (0, ""))[0]
            self._say(source, Said(said.port, at=own, turn=turn) if at == own else Said(said.port, yours=True))
        elif said.yours and at == own:
            self._unsettled.pop((said.port, name), None)
            self._announce(said.port)
        elif said.yours and port.host == own and at == name:
            log.info("port %s is still this host's", said.port)
            self._place(said.port, own)
        elif said.take and ours and at != own and self._carried(self._agent.device_of(said.port)):
            log.info("port %s: taken for %s", said.port, name)
            self.take(said.port)

    def seek(self, hosts: Iterable[str], network: str, address: str) -> None:
        """Have hosts ask those of their ports for an address that may have it."""
        known = self._hosts()
        said = msgspec.msgpack.encode(Said("", network=network, probe=address))
        self._send((known[host] for host in hosts if host in known), said)

    def _seek(self, id: str, host: str, asker: str) -> None:
        """Ask a host for an echo, for another that does not hear it."""
        address = self._hosts().get(host)
        if address is None:
            return
        try:
            if self._scout is None:
                self._scout = Pulse(self._agent.underlay)
                asyncio.get_running_loop().add_reader(self._scout.fileno(), self._found)
        except OSError as fault:
            log.debug("host %s is not sought: %s", host, fault)
            return
        now = time.monotonic()
        self._seekers.setdefault(address, {})[asker] = id, now + SEEN_SECONDS
        self._scout.ask([address])

    def _found(self) -> None:
        """Tell those who sought a host that it has answered."""
        assert self._scout is not None
        names, now = {address: name for name, address in self._hosts().items()}, time.monotonic()
        for address in self._scout.hear():
            for asker, (id, until) in self._seekers.pop(address, {}).items():
                if address in names and now < until:
                    self._say(asker, Said(id, seen=names[address]))

    # Connections.

    async def stream(self) -> None:
        """Tell standbys once what is new of the connections of ports here."""
        began = time.monotonic()
        await self._stream()
        # Reading a large table takes its time: a tenth of one CPU's at most.
        await asyncio.sleep(max(STREAM_SECONDS, 10 * (time.monotonic() - began)))

    async def _stream(self) -> None:
        left, self._left = self._left, set()
        bodies, hosts, wanted = self._agent.plan.local_bodies(), self._hosts(), {}
        for id in (self._here | left) & self._ports & bodies.keys():
            port = self._agent.plan.port(id)
            if port is not None and any(h in hosts for h in port.carriers if h):
                wanted[id] = bodies[id].key
        if not wanted:
            return
        now = time.monotonic()
        if whole := now - self._whole > WHOLE_SECONDS:
            self._whole = now
        clock = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        for id, flows in (await self._agent.flows(wanted)).items():
            port, told = self._agent.plan.port(id), self._told.get(id, {})
            # Where a stream is by now is no news.
            marks = {key: (flow.flags & 0xFFFF, flow.seen // (1000 * MILLISECOND)) for key, flow in flows.items()}
            news = flows if whole else {key: flow for key, flow in flows.items() if told.get(key) != marks[key]}
            self._told[id] = marks
            rows = handover.rows(news, clock)
            for start in range(0, len(rows), ROWS):
                said = Said(id, flows=b"".join(rows[start : start + ROWS]))
                for host in port.carriers if port is not None else ():
                    if host in hosts:
                        self._say(hosts[host], said)

    def _learn(self, id: str, raw: bytes) -> None:
        if self._serves(id):
            self._agent.hand_in(id, raw)
            return
        known, now = self._known.setdefault(id, {}), time.monotonic()
        for row in handover.split(raw):
            known[row[: handover.NAME]] = row, now
        if len(known) > handover.MOST:
            oldest = sorted(known, key=lambda name: known[name][1])[: len(known) - handover.MOST]
            for name in oldest:
                del known[name]
        # The whole is told again and again: what is not in it has gone.
        for name in [name for name, (_, told) in known.items() if now - told > FORGET_SECONDS]:
            del known[name]

    # The switch.

    def _announce(self, id: str) -> None:
        """Have the server's switch learn that all whom the server speaks with are behind this host now.

        By RARP from each of their MACs, as hypervisors do for a guest that has
        moved: what the server knows of its neighbours is still so.
        """
        port, device = self._agent.plan.port(id), self._agent.device_of(id)
        if port is None or port.link is None or device is None:
            return
        tag = struct.pack("!HHH", DOT1Q, port.link.vlan, RARP)
        if self._out is None:
            self._out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
            self._out.setblocking(False)
        for other in self._agent.plan.macs(port.network)[:MACS]:
            own = mac(other)
            if other == port.mac:
                continue
            body = bytes.fromhex("0001080006040003") + (own + bytes(4)) * 2
            try:
                self._out.sendto(BROADCAST + own + tag + body + bytes(14), (device, 0))
            except OSError as fault:
                log.debug("the switch at %s was not told of %s: %s", device, other, fault)


def _aged(row: bytes, seconds: float) -> bytes:
    """Return a connection that was silent for longer since it was told."""
    *head, silent = handover.ROW.unpack(row)
    return handover.ROW.pack(*head, min(silent + int(1000 * seconds), handover.LONGEST))
