"""What ports have published at addresses of this host: as on Docker's own networks, `-p`.

What is published is kept in RUN/published, so that a restarted agent knows it;
what the tables hold of it is the plan's. A number that is published is held by
a socket of the agent's, so that nobody else on the host gets it, neither to
listen nor to call from.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
import socket
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

from crossway.errors import Conflict, Fault, Invalid, NotFound
from crossway.kernel.links import ETHERNET, LOOPBACK, OVERLAY, Link, Links, port_of
from crossway.plan.published import EVERY, Door, Publication

if TYPE_CHECKING:
    from crossway.agent.plane import Plane
    from crossway.plan.plan import Plan

log = logging.getLogger(__name__)

PROTOCOLS = {"tcp": 6, "udp": 17}
NAMES = {number: name for name, number in PROTOCOLS.items()}
TRIES = 20  # to find a number that is free for both families
# What the host's own answers need to come back by its loopback: their source is the host's own, or 127.0.0.1.
LOOPBACK_SETTINGS = ("accept_local", "route_localnet")
SETTINGS = Path("/proc/sys/net/ipv4/conf/lo")


class Wished(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be published: one number of the host's from *at* to *until*; 0: any that is free."""

    proto: str
    port: int
    address: str = ""
    at: int = 0
    until: int = 0


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What a port has published: what `RUN/published/PORT.json` holds."""

    port: str
    by: str
    publications: tuple[Publication, ...]
    project: str = ""  # whose engine asked for it; "": one that may know of all


class Agent(Protocol):
    """What is needed of the agent."""

    run: Path
    plan: Plan
    plane: Plane
    links: Links


class Published:
    """What is published on this host."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._directory = agent.run / "published"
        self._kept: dict[str, Kept] = {}
        self._held: dict[str, list[socket.socket]] = {}

    def begin(self, ports: Iterable[str]) -> None:
        """Go on with what an agent before this one has published for ports that have their body still."""
        there = set(ports)
        for path in sorted(self._directory.glob("*.json")):
            try:
                kept = msgspec.json.decode(path.read_bytes(), type=Kept)
            except msgspec.DecodeError as fault:
                log.error("%s is nothing published: %s", path, fault)
                continue
            if kept.port not in there:
                path.unlink(missing_ok=True)
                continue
            self._kept[kept.port], self._held[kept.port] = kept, self._hold_again(kept)
            self._agent.plan.publish(kept.port, kept.publications)
        self.look()

    def _hold_again(self, kept: Kept) -> list[socket.socket]:
        held = []
        for publication in kept.publications:
            for family in _families(publication.address):
                try:
                    held.append(_held(publication, family))
                except OSError as fault:
                    log.warning("%s is published by %s, but cannot be held: %s", _told(publication), kept.by, fault)
        return held

    def of(self, port: str) -> list[dict[str, object]]:
        """Return what a port has published."""
        kept = self._kept.get(port)
        return [
            {"proto": NAMES[p.proto], "address": p.address, "at": p.at, "port": p.port}
            for p in (kept.publications if kept else ())
        ]

    def publish(self, port: str, wishes: Sequence[Wished], by: str, project: str = "") -> None:
        """Publish these for a port instead of what it has published; all of them, or none.

        The caller has the tables brought up to date. *project*: the one that asks, which is told of no other's.
        """
        if not wishes:
            self.withdraw(port)
            return
        known = self._agent.plan.port(port)
        if known is None:
            raise NotFound("port", port)
        doors = self._agent.plan.doors(known)
        for wished in wishes:
            _check(wished, doors)
        before = self._kept.get(port)
        self.withdraw(port)
        held: list[socket.socket] = []
        taken: list[Publication] = []
        try:
            for wished in wishes:
                taken.append(self._take(wished, doors, taken, held, project))
        except BaseException:
            for one in held:
                one.close()
            if before is not None:
                self._put(before, self._hold_again(before))
            raise
        self._put(Kept(port=port, by=by, publications=tuple(taken), project=project), held)

    def _put(self, kept: Kept, held: list[socket.socket]) -> None:
        self._write(kept)
        self._kept[kept.port], self._held[kept.port] = kept, held
        self._agent.plan.publish(kept.port, kept.publications)
        self.look()

    def withdraw(self, port: str) -> None:
        """Publish nothing of a port any more; the caller has the tables brought up to date."""
        if self._kept.pop(port, None) is None:
            return
        self._agent.plan.publish(port, ())
        for held in self._held.pop(port, ()):
            held.close()
        self._path(port).unlink(missing_ok=True)
        self.look()

    def close(self) -> None:
        """Let go; what is published stays so."""
        for held in self._held.values():
            for one in held:
                one.close()

    def look(self) -> None:
        """Find out which addresses this host has, and by which links they are reached."""
        if not self._kept:
            self._agent.plane.face(None)
            self._agent.plan.own(frozenset())
            self._set_loopback(wanted=False)
            return
        own: set[str] = set()
        links: dict[int, str] = {}
        by_index = {link.ifindex: link for link in self._agent.links.all()}
        for ifindex, addresses in self._agent.links.addresses().items():
            link = by_index.get(ifindex)
            if link is not None and _is_own(link):
                own.update(addresses)
                if link.type in (ETHERNET, LOOPBACK):
                    links[ifindex] = link.name
        self._agent.plane.face(links)
        self._agent.plan.own(own)
        self._set_loopback(wanted=True)

    @property
    def any(self) -> bool:
        """Whether anything is published."""
        return bool(self._kept)

    # Which number.

    def _take(
        self,
        wished: Wished,
        doors: Mapping[int, Door],
        taken: Sequence[Publication],
        held: list[socket.socket],
        project: str,
    ) -> Publication:
        """Hold a number of the host's that is free for all families in which something is published there."""
        families = [family for family in _families(wished.address) if family in doors]
        tried = range(wished.at, (wished.until or wished.at) + 1) if wished.at else [0] * TRIES
        fault: Exception | None = None
        for at in tried:
            mine: list[socket.socket] = []
            publication = Publication(PROTOCOLS[wished.proto], wished.address, at, wished.port)
            try:
                for family in families:
                    self._check_free(publication, taken, project)
                    mine.append(_held(publication, family))
                    publication = publication._replace(at=mine[0].getsockname()[1])
            except (OSError, Conflict) as refused:
                for one in mine:
                    one.close()
                fault = _why(refused, publication, secret=bool(project))
                continue
            held += mine
            return publication
        if len(tried) > 1 and wished.at:
            raise Conflict(f"no port from {wished.at} to {wished.until} is free: {fault}")
        raise fault or Conflict("no port is free")

    def _check_free(self, publication: Publication, taken: Sequence[Publication], project: str) -> None:
        others = [
            (self._by(kept) if project in ("", kept.project) else "others", p)
            for kept in self._kept.values()
            for p in kept.publications
        ]
        for by, other in [*others, *(("the same container", p) for p in taken)]:
            if (other.proto, other.at) == (publication.proto, publication.at) and _meet(publication, other):
                raise Conflict(f"port {_told(publication)} of this host is published already, by {by}")

    def _by(self, kept: Kept) -> str:
        """Return who has published something: a container by its name, which is known soon after it has begun."""
        port = self._agent.plan.port(kept.port)
        return f"{port.names[0]} (port {kept.port})" if port is not None and port.names else kept.by

    # What is kept.

    def _write(self, kept: Kept) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = self._path(kept.port).with_suffix(".part")
        part.write_bytes(msgspec.json.encode(kept))
        part.replace(self._path(kept.port))

    def _path(self, port: str) -> Path:
        return self._directory / f"{port}.json"

    def _set_loopback(self, *, wanted: bool) -> None:
        """Have the loopback take the host's own answers, while something is published; as it was before afterwards."""
        before = self._directory / "loopback"
        if wanted == before.exists():
            return
        try:
            if wanted:
                self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                before.write_text(" ".join((SETTINGS / name).read_text().strip() for name in LOOPBACK_SETTINGS))
                for name in LOOPBACK_SETTINGS:
                    (SETTINGS / name).write_text("1")
            else:
                _set_back(before)
        except (OSError, ValueError) as fault:
            log.warning("the host itself may not reach what is published on it: %s", fault)


def purge(run: Path) -> None:
    """Forget what was published, and set the loopback as it was."""
    directory = run / "published"
    if (directory / "loopback").exists():
        _set_back(directory / "loopback")
    shutil.rmtree(directory, ignore_errors=True)


def _set_back(before: Path) -> None:
    for name, value in zip(LOOPBACK_SETTINGS, before.read_text().split(), strict=True):
        (SETTINGS / name).write_text(value)
    before.unlink()


def _is_own(link: Link) -> bool:
    """Return whether addresses of a link are the host's for all, and not a port's of a tenant."""
    return port_of(link) is None and link.name != OVERLAY


def _check(wished: Wished, doors: Mapping[int, Door]) -> None:
    if wished.proto not in PROTOCOLS:
        raise Invalid(f"ports of {wished.proto} cannot be published: only tcp and udp can")
    try:
        address = ip_address(wished.address or "::")
    except ValueError:
        raise Invalid(f"{wished.address!r} is no address of a host") from None
    if address.is_multicast or (address.version == 6 and address.is_link_local):
        kind = "multicast" if address.is_multicast else "link-local"
        raise Invalid(f"nothing can be published at the {kind} address {address}")
    if not 0 < wished.port < 65536:
        raise Invalid(f"{wished.port} is no port of a container")
    if not 0 <= wished.at < 65536 or not 0 <= wished.until < 65536 or 0 < wished.until < wished.at:
        raise Invalid(f"{wished.at}-{wished.until} are no ports of a host")
    if not any(family in doors for family in _families(wished.address)):
        families = " or ".join(f"IPv{family}" for family in _families(wished.address))
        raise Invalid(
            f"port {wished.port} cannot be published: the container has no address of {families} "
            "of a subnet with a gateway, by which it would answer"
        )


def _family(address: str) -> int:
    return 6 if ":" in address else 4


def _families(address: str) -> list[int]:
    return [_family(address)] if address else [4, 6]


def _meet(one: Publication, other: Publication) -> bool:
    """Return whether two addresses at which something is published have one in common."""
    if "" in (one.address, other.address) or one.address == other.address:
        return True
    if _family(one.address) != _family(other.address):
        return False
    return one.address in EVERY or other.address in EVERY


def _told(publication: Publication) -> str:
    where = f"[{publication.address}]:" if ":" in publication.address else f"{publication.address}:"
    return f"{where if publication.address else ''}{publication.at}/{NAMES[publication.proto]}"


def _held(publication: Publication, family: int) -> socket.socket:
    """Return a socket that holds a number of the host's; it never gets a packet."""
    kind = socket.SOCK_STREAM if publication.proto == PROTOCOLS["tcp"] else socket.SOCK_DGRAM
    held = socket.socket(socket.AF_INET6 if family == 6 else socket.AF_INET, kind | socket.SOCK_CLOEXEC)
    try:
        if family == 6:
            held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        where = (publication.address or EVERY[family == 6], publication.at)
        try:
            held.bind(where)
        except OSError as fault:
            if fault.errno != errno.EADDRINUSE or kind != socket.SOCK_STREAM:
                raise
            # Connections that have come to their end are nobody's any more; who listens is found all the same.
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.bind(where)
    except BaseException:
        held.close()
        raise
    return held


def _why(refused: Exception, publication: Publication, *, secret: bool) -> Fault:
    """Return what whoever asks is told; with *secret*, not who has it instead."""
    if isinstance(refused, Fault):
        return refused
    if isinstance(refused, OSError) and refused.errno == errno.EADDRINUSE:
        return Conflict(
            f"port {_told(publication)} of this host is in use by {'others' if secret else _holder(publication)}"
        )
    if isinstance(refused, OSError) and refused.errno == errno.EADDRNOTAVAIL:
        return Invalid(f"{publication.address} is no address of this host")
    return Conflict(f"port {_told(publication)} of this host cannot be had: {refused}")


def _holder(publication: Publication) -> str:
    """Return who of this host has a port, for telling."""
    inodes = set()
    for table in (NAMES[publication.proto], f"{NAMES[publication.proto]}6"):
        try:
            lines = Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            words = line.split()
            if int(words[1].rpartition(":")[2], 16) == publication.at:
                inodes.add(words[9])
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for process in Path("/proc").iterdir():
        if not re.fullmatch(r"\d+", process.name) or int(process.name) == os.getpid():
            continue
        try:
            if any(os.readlink(fd) in wanted for fd in (process / "fd").iterdir()):
                return f"process {process.name} ({(process / 'comm').read_text().strip()})"
        except OSError:
            continue
    return "another process"
