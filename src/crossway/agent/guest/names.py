"""Names: answered from the view for the asking port's own networks, asked of the host's resolvers for all else.

A name of another network is nobody's here, whoever has it: a port is told what
its networks have, and of all else only what the host itself would be told.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import socket
import struct
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

from crossway import settings
from crossway.agent.guest import dns
from crossway.agent.guest.fair_queue import FairQueue
from crossway.agent.guest.frame import UDP, Frame
from crossway.errors import Invalid
from crossway.plan import view
from crossway.plan.plan import Plan

log = logging.getLogger(__name__)

RESOLV_CONF = Path("/etc/resolv.conf")
# Of systemd-resolved: where it keeps the servers that it asks itself, for those who cannot ask it.
BEHIND_STUB, STUB = Path("/run/systemd/resolve/resolv.conf"), "127.0.0.53"
# Whom containers are told to ask by engines that find no server which they could ask.
LAST_RESORT = ("8.8.8.8", "8.8.4.4", "2001:4860:4860::8888", "2001:4860:4860::8844")
SERVERS_MAX = 3  # as with libc
NONE = "none"
PATIENCE_SECONDS = 1.5  # with each server
WAITING_MAX, WAITING_OF_PORT_MAX = 512, 32  # questions asked of others, in all and of one port


def said(path: Path) -> list[str]:
    """Return the servers that a resolv.conf names; none if it cannot be read."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    words = [line.split() for line in lines]
    return [parts[1] for parts in words if len(parts) > 1 and parts[0] == "nameserver" and is_ip(parts[1])]


def is_ip(text: str) -> bool:
    """Return whether a text is an address without a zone."""
    try:
        return ip_address(text) is not None and "%" not in text
    except ValueError:
        return False


def own() -> list[str]:
    """Return the servers that the agent asks for names: those of resolv.conf, or those that it is set to ask."""
    wanted = settings.RESOLVERS.said()
    if wanted is None:
        return said(RESOLV_CONF)[:SERVERS_MAX]
    if wanted == NONE:
        return []
    named = wanted.replace(",", " ").split()
    for text in named:
        if not is_ip(text):
            raise Invalid(f"{settings.RESOLVERS.variable}: {text!r} is no address of a server")
    return named


def asked_at() -> list[str]:
    """Return the addresses at which workloads ask for names: as engines hand resolv.conf on, and those set."""
    servers = said(RESOLV_CONF)[:SERVERS_MAX]
    if servers == [STUB]:
        servers = said(BEHIND_STUB)[:SERVERS_MAX] or servers
    handed = [ip for ip in servers if not ip_address(ip).is_loopback] or list(LAST_RESORT)
    chosen = [ip for ip in own() if not ip_address(ip).is_loopback]
    return list(dict.fromkeys([*handed, *chosen]))


def is_asked_outside() -> bool:
    """Return whether engines find no name server in this host's resolv.conf but those to be asked from the host."""
    servers = said(RESOLV_CONF)
    return servers != [STUB] and all(ip_address(ip).is_loopback for ip in servers)


class Names:
    """Answers what the ports of one host ask for.

    *send* takes an answer to a port; *refused* hears of questions that were
    refused, as too many of their port, or its project, wait for resolvers.
    """

    def __init__(
        self,
        plan: Plan,
        send: Callable[[str, Frame], None],
        resolvers: Callable[[], Sequence[str]] = own,
        refused: Callable[[view.Port, Frame], None] = lambda port, frame: None,
    ) -> None:
        self._plan, self._send, self._resolvers, self._refused = plan, send, resolvers, refused
        self._waiting: FairQueue[asyncio.Task[None]] = FairQueue(WAITING_MAX, WAITING_OF_PORT_MAX)
        self._tasks: dict[asyncio.Task[None], tuple[view.Port, Frame, dns.Question]] = {}

    def close(self) -> None:
        """Ask nobody any more."""
        for task in self._tasks:
            task.cancel()

    def ask(self, port: view.Port, frame: Frame) -> None:
        """Answer a question of a port, at once or when others have answered."""
        asked = dns.parse(frame.body)
        if asked is None:
            return
        if asked.flags & dns.OPCODE:
            self._answer(port, frame, dns.answer(asked, (), dns.NOT_DONE))
        elif asked.kind in (dns.IN, dns.ANY) and (told := lookup(self._plan, port, asked)) is not None:
            self._answer(port, frame, told)
        else:
            task = asyncio.get_running_loop().create_task(self._ask_others(port, frame, asked))
            self._tasks[task] = (port, frame, asked)
            task.add_done_callback(self._done)
            given_way = self._waiting.put(port.project or port.network, port.id, task)
            if given_way is not None:
                self._give_up(given_way)

    def _give_up(self, task: asyncio.Task[None]) -> None:
        """Answer that a name cannot be had now, as more of its port's wait than its share."""
        port, frame, asked = self._tasks[task]
        task.cancel()
        self._refused(port, frame)
        self._answer(port, frame, dns.answer(asked, (), dns.FAILED))

    def _done(self, task: asyncio.Task[None]) -> None:
        port, *_ = self._tasks.pop(task)
        self._waiting.remove(port.project or port.network, port.id, task)
        if not task.cancelled() and (fault := task.exception()) is not None:
            log.error("a name could not be asked for: %s", fault)

    async def _ask_others(self, port: view.Port, frame: Frame, asked: dns.Question) -> None:
        servers = self._resolvers()
        for server in servers:
            told = await ask(server, frame.body, asked)
            if told is not None:
                network = self._plan.network(port.network)
                room = (network.mtu if network is not None else dns.LARGE) - 48
                return self._answer(port, frame, dns.cut(told, room))
        code = dns.FAILED if servers else dns.REFUSED
        return self._answer(port, frame, dns.answer(asked, (), code))

    def _answer(self, port: view.Port, frame: Frame, body: bytes) -> None:
        # From whom it was asked, whoever that is: else nobody would take it.
        back = Frame(frame.src_mac, frame.dst_mac, frame.dst, frame.src, UDP, frame.dst_port, frame.src_port, body)
        self._send(port.id, back)


def lookup(plan: Plan, port: view.Port, asked: dns.Question) -> bytes | None:
    """Return the answer to what is asked of a port's networks; None if it is not for them to say."""
    kin = [one for one in _ports(plan, plan.names.kin(port)) if plan.is_here(one) or one is port]
    if asked.type == dns.PTR and (ip := dns.address_of(asked.name)) is not None:
        found = _ports(plan, {id for by in kin for id in plan.names.at(by, ip)})
        return dns.answer(asked, _pointers(one.names[0] for one in found)) if found else None
    found = _ports(plan, {id for by in kin for id in _named(plan, by, asked.name)})
    if not found:
        return None
    ips = list(dict.fromkeys(address.ip for one in found for address in one.addresses if one.up))
    random.shuffle(ips)  # who takes the first takes another one each time
    version = {dns.A: 4, dns.AAAA: 6}.get(asked.type, 0)
    return dns.answer(asked, [ip.packed for ip in map(ip_address, ips) if ip.version == version])


def _named(plan: Plan, by: view.Port, name: str) -> set[str]:
    """Return the ports that a port may know by a name, alone or in the domain of its network."""
    found, network = plan.names.named(by, name), plan.network(by.network)
    domain = network.domain.rstrip(".") if network is not None else ""
    if not found and domain and name.endswith(f".{domain}"):
        found = plan.names.named(by, name.removesuffix(f".{domain}"))
    return found


def _ports(plan: Plan, ids: Iterable[str]) -> list[view.Port]:
    return [port for id in sorted(ids) if (port := plan.port(id)) is not None]


def _pointers(names: Iterable[str]) -> list[bytes]:
    found = []
    for name in dict.fromkeys(names):
        with suppress(ValueError):
            found.append(dns.pointer(name))
    return found


async def ask(server: str, body: bytes, asked: dns.Question) -> bytes | None:
    """Ask a server, from a port and under a number that nobody can guess; return what it answers, or None."""
    loop = asyncio.get_running_loop()
    number = secrets.randbits(16)
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as out:
        out.setblocking(False)
        try:
            out.connect((server, dns.PORT))
            out.send(struct.pack("!H", number) + body[2:])
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not dns.is_answer(told := await loop.sock_recv(out, 65535), asked, number):
                    pass
        except (OSError, TimeoutError):
            return None
    return struct.pack("!H", asked.id) + told[2:]
