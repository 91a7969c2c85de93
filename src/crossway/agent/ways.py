"""The ways in, as this host's agent serves them: what plugins ask of a host, answered by the agent."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from crossway import settings
from crossway.agent.body import Plug, Record
from crossway.agent.engine import Engine
from crossway.agent.guest import names
from crossway.agent.published import Published, Wished
from crossway.client import Object, Objects
from crossway.errors import Fault, Invalid
from crossway.kernel import netlink as nl
from crossway.kernel.links import (
    IFA_ADDRESS,
    IFA_LOCAL,
    IFF_UP,
    IFLA_ADDRESS,
    IFLA_IFNAME,
    RTA_DST,
    RTA_GATEWAY,
    RTA_OIF,
    Inside,
    netns_of,
)
from crossway.kernel.netlink import Netlink, attr, attrs
from crossway.plan.service import SERVICE_IP
from crossway.plugins.cni import Cni
from crossway.plugins.docker import IDLE_SECONDS, Docker
from crossway.plugins.libvirt import Libvirt

if TYPE_CHECKING:
    from pathlib import Path

    from crossway.agent.api import Answer
    from crossway.agent.server import Servers

log = logging.getLogger(__name__)

SWEEP_SECONDS = 2.0


class Bodies(Protocol):
    """What is needed of the agent."""

    host: str
    connected: bool
    run: Path
    data: Path
    servers: Servers
    published: Published

    async def publish(self, port: str, wishes: Sequence[Wished], by: str, project: str = "") -> None: ...
    async def plug(self, plug: Plug, *, bound: bool = False) -> Any: ...
    async def unplug(self, port: str) -> None: ...
    async def detach(self, port: str) -> None: ...
    def record(self, port: str) -> Record | None: ...
    def held(self, machine: str) -> list[str]: ...
    def state(self, port: str) -> str | None: ...
    def lost(self) -> list[str]: ...
    def untaken(self, seconds: float) -> list[str]: ...


class Ways:
    """The agent as plugins see it."""

    def __init__(self, agent: Bodies) -> None:
        self._agent = agent
        self._cni = Cni(self)
        self._libvirt = Libvirt(self)
        self._docker: dict[Path, Docker] = {}
        self._engines: list[Engine] = []

    @property
    def host(self) -> str:
        return self._agent.host

    @property
    def connected(self) -> bool:
        return self._agent.connected

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Ask the server."""
        return await self._agent.servers.ask(method, path, body)

    async def plug(self, wish: Mapping[str, Any]) -> Object:
        """Give a port that is bound to this host its body."""
        answer: Object = await self._agent.plug(msgspec.convert(wish, Plug), bound=True)
        return answer

    async def take(self, wish: Mapping[str, Any]) -> Object:
        """Give a port its body, and have it be on this host, or come to it if it is about to."""
        answer: Object = await self._agent.plug(msgspec.convert(wish, Plug))
        return answer

    def held(self, machine: str) -> list[str]:
        """Return the ports that were plugged for a machine."""
        return self._agent.held(machine)

    async def unplug(self, port: str) -> None:
        """Take a port's body away; the port stays bound."""
        await self._agent.unplug(port)

    async def detach(self, port: str) -> None:
        """Take a port's body away, then delete the port."""
        await self._agent.detach(port)

    async def publish(self, port: str, wishes: Iterable[Mapping[str, Any]], by: str, project: str = "") -> None:
        """Publish ports at addresses of this host instead of what was published there: all of them, or none."""
        await self._agent.publish(port, msgspec.convert(list(wishes), list[Wished]), by, project)

    def published(self, port: str) -> Objects:
        """Return what a port has published at addresses of this host."""
        return self._agent.published.of(port)

    def body(self, port: str) -> Object | None:
        """Return what stands for a port here, as its namespace has it now."""
        record = self._agent.record(port)
        if record is None:
            return None
        far = Far()
        if record.netns is not None:
            try:
                far = seen(record.netns, record.ifname or "")
            except (Fault, OSError):
                return None
        state = self._agent.state(port)
        return {
            "netns": record.netns,
            "ifname": record.ifname,
            "mac": far.mac,
            "addresses": far.addresses,
            "lacking": _lacking(record.inside, far) if record.inside is not None else [],
            "set_up": far.up,
            "up": state == "up",
            "judged": state is not None,
            "limits": msgspec.to_builtins(record.limits),
        }

    async def answer_cni(self, body: bytes, _: Mapping[str, str]) -> Any:
        """Answer one call of the CNI executable."""
        return await self._cni.answer(body)

    async def answer_libvirt(self, body: bytes, _: Mapping[str, str]) -> Any:
        """Answer one call of libvirt's hook."""
        return await self._libvirt.answer(body)

    def steps(self) -> list[Callable[[], Awaitable[None]]]:
        """Return what the agent is to do again and again."""
        return [self.sweep, *(step for engine in self._engines for step in (engine.listen, engine.look))]

    async def close(self) -> None:
        """Ask engines nothing any more, and end what was begun for them."""
        for docker in self._docker.values():
            await docker.close()
        for engine in self._engines:
            engine.close()

    async def sweep(self) -> None:
        """Take away ports whose container has gone without the engine's saying so.

        An engine that was killed forgets the endpoints of containers that it
        finds alive; their link goes with their namespace. One that was killed before
        it had taken a link, or that gives a link back as it begins anew, leaves it here.
        """
        await asyncio.sleep(SWEEP_SECONDS)
        if not self.connected:
            return
        try:
            now = time.monotonic()
            for port in (*self._agent.lost(), *self._agent.untaken(IDLE_SECONDS)):
                log.info("removing port %s: its container has gone", port)
                await self._agent.detach(port)
            for docker in self._docker.values():
                await docker.sweep(now)
        except Fault as fault:
            log.warning("cannot take away what containers have left: %s", fault)

    def docker_sockets(self) -> dict[Path, dict[tuple[str, str], Answer]]:
        """Return the sockets for Docker's engines, and what is answered on each.

        One is for engines that may have every project's networks; with
        CROSSWAY_DOCKER_PROJECTS each project has one more for its own engines.
        """
        run, where, networks = self._agent.run, engine_sockets(), self._agent.data / "docker"
        _bring(run / "docker", networks)
        self._docker = engines = {run / "docker.sock": Docker(self, networks)}
        for project in settings.DOCKER_PROJECTS.value().replace(",", " ").split():
            if "/" in project or project.startswith("."):
                raise Invalid(f"{project!r} in {settings.DOCKER_PROJECTS.variable} cannot be part of a socket's name")
            engines[run / f"docker-{project}.sock"] = Docker(self, networks / project, project)
        if names.is_asked_outside():
            log.info(
                "resolv.conf names no server but at a loopback address, which engines ask from outside containers: "
                "for names of other hosts' containers, start yours with --dns %s", SERVICE_IP
            )  # fmt: skip
        for docker in engines.values():
            if path := where.get(docker.project):
                self._engines.append(Engine(path, docker))
                docker.engine = self._engines[-1]
        return {
            path: {("POST", f"/{method}"): docker.route(method) for method in docker.methods}
            for path, docker in engines.items()
        }


def _bring(old: Path, new: Path) -> None:
    """Have what an earlier build kept where the next boot would lose it."""
    if new == old or not old.is_dir():
        return
    try:
        shutil.copytree(old, new, dirs_exist_ok=True)
        shutil.rmtree(old)
    except OSError as fault:
        log.error("networks of Docker's engines stay in %s: %s", old, fault)


def engine_sockets() -> dict[str | None, str]:
    """Return where the API of each engine is: of a project's, or of the one that is of none."""
    found: dict[str | None, str] = {}
    for word in settings.DOCKER_ENGINE.value().replace(",", " ").split():
        project, equals, path = word.rpartition("=")
        if not path.startswith("/") or (equals and not project):
            raise Invalid(f"{word!r} in {settings.DOCKER_ENGINE.variable} is neither /PATH nor PROJECT=/PATH")
        found[project or None] = path
    return found


class Far(msgspec.Struct, frozen=True):
    """A link as it is inside a namespace; without a MAC if it is not there."""

    mac: str = ""
    up: bool = False
    addresses: list[str] = []
    routes: frozenset[tuple[str, str]] = frozenset()  # destination and next hop, if it has one, of each by this link


def seen(netns: str, ifname: str) -> Far:
    """Return how a link is inside a namespace now."""
    fd = netns_of(netns)
    try:
        with nl.inside(fd):
            far = Netlink()
    finally:
        os.close(fd)
    with far:
        link = far.get(nl.RTM_GETLINK, struct.pack("=BxHiII", 0, 0, 0, 0, 0) + attr(IFLA_IFNAME, ifname))
        if link is None:
            return Far()
        index, flags = struct.unpack_from("=iI", link.body, 4)
        addresses = []
        for message in far.dump(nl.RTM_GETADDR, struct.pack("=BBBBI", 0, 0, 0, 0, index)):
            _, length, _, _, of = struct.unpack_from("=BBBBI", message.body)
            told = attrs(message.body[8:])
            raw = told.get(IFA_LOCAL) or told.get(IFA_ADDRESS)
            if of == index and raw:
                addresses.append(f"{_text(raw)}/{length}")
        mac = attrs(link.body[16:]).get(IFLA_ADDRESS, b"").hex(":")
        return Far(mac, bool(flags & IFF_UP), addresses, frozenset(_routes(far, index)))


def _routes(far: Netlink, index: int) -> Iterator[tuple[str, str]]:
    """Yield destination and next hop, "" if there is none, of the routes by a link."""
    for family, zero in ((socket.AF_INET, bytes(4)), (socket.AF_INET6, bytes(16))):
        for message in far.dump(nl.RTM_GETROUTE, struct.pack("=BBBBBBBBI", family, 0, 0, 0, 0, 0, 0, 0, 0)):
            told = attrs(message.body[12:])
            if message.body[0] == family and told.get(RTA_OIF) == struct.pack("=I", index):
                hop = _text(told[RTA_GATEWAY]) if RTA_GATEWAY in told else ""
                yield f"{_text(told.get(RTA_DST, zero))}/{message.body[1]}", hop


def _lacking(given: Inside, far: Far) -> list[tuple[str, str]]:
    """Return the routes that a link was given and has not."""
    return [
        (to, hop)
        for to, hop in given.routes
        if (str(ip_network(to, strict=False)), str(ip_address(hop)) if hop else "") not in far.routes
    ]


def _text(raw: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, raw)
