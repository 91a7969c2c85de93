"""libvirt's domains: a tap for each port that a domain's metadata names, while the domain is there.

The hook (`libvirt.c`) hands on what libvirtd says and the domain's description
as they are; all else is here. Which ports were plugged for a domain is kept by
their bodies, so that its end needs nothing of its description but its UUID.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol
from xml.etree import ElementTree

import msgspec

from crossway.client import Object, Objects, path_of
from crossway.errors import Conflict, Fault, Invalid, NotFound, Unavailable
from crossway.model.port import GUEST
from crossway.plugins import attach

OWNER = GUEST
NAMESPACE = "urn:crossway:domain:1"  # as in libvirt.c
MOVE_SECONDS = 2.0  # for which a domain's end waits for its port to be where it may have gone


class Host(attach.Host, Protocol):
    """What is needed of the agent that serves the hook."""

    async def take(self, wish: Mapping[str, Any]) -> Object:
        """Give a port its body, and have it be on this host, or come to it if it is about to."""

    def held(self, machine: str) -> list[str]:
        """Return the ports that were plugged for a machine."""


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """An interface of a domain."""

    kind: str
    mac: str
    device: str
    managed: bool
    queues: int

    @property
    def called(self) -> str:
        return f"interface {self.device or self.mac}"


class Named(msgspec.Struct, frozen=True, kw_only=True):
    """A port that a domain's metadata names, and perhaps for which interface."""

    id: str | None = None
    name: str | None = None
    project: str | None = None
    mac: str | None = None
    dev: str | None = None

    @property
    def called(self) -> str:
        return str(self.id or self.name)


class Domain(msgspec.Struct, frozen=True, kw_only=True):
    """What a domain's description says that is of interest here."""

    name: str
    id: str
    ports: tuple[Named, ...]
    cards: tuple[Card, ...]


def read(xml: str) -> Domain:
    """Return what a domain's description says; raises `Invalid`."""
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError as fault:
        raise Invalid(f"the description is no XML: {fault}") from None
    id = root.findtext("uuid", "").strip()
    try:
        uuid.UUID(id)
    except ValueError:
        raise Invalid(f"the description has no UUID, but {id!r}") from None
    ports = [_named(one) for one in root.iterfind(f"metadata/{{{NAMESPACE}}}ports/*")]
    cards = [_card(one) for one in root.iterfind("devices/interface")]
    return Domain(name=root.findtext("name", ""), id=id, ports=tuple(ports), cards=tuple(cards))


def _named(element: ElementTree.Element) -> Named:
    if element.tag != f"{{{NAMESPACE}}}port":
        raise Invalid(f"the metadata has {element.tag.rpartition('}')[2]!r} where only port may be")
    unknown = set(element.attrib) - {"id", "name", "project", "mac", "dev"}
    if unknown:
        raise Invalid(f"a port in the metadata has {', '.join(sorted(unknown))}, which is not known")
    named = Named(**element.attrib)
    if (named.id is None) == (named.name is None):
        raise Invalid("a port in the metadata has either id or name")
    return msgspec.structs.replace(named, mac=named.mac.lower()) if named.mac else named


def _card(element: ElementTree.Element) -> Card:
    def said(path: str, name: str) -> str:
        found = element.find(path)
        return (found.get(name) or "") if found is not None else ""

    queues = said("driver", "queues")
    return Card(
        kind=element.get("type") or "",
        mac=said("mac", "address").lower(),
        device=said("target", "dev"),
        managed=said("target", "managed") != "no",
        queues=int(queues) if queues.isdecimal() else 1,
    )


def card_of(domain: Domain, named: Named, port: Object) -> Card:
    """Return the interface of a domain that is a port; raise `Invalid` with what is wrong with it."""
    cards, mac = domain.cards, str(port["mac_address"]).lower()
    if named.dev is not None:
        cards = tuple(card for card in cards if card.device == named.dev)
    if named.mac is not None:
        cards = tuple(card for card in cards if card.mac == named.mac)
    if named.dev is None and named.mac is None:
        cards = tuple(card for card in cards if card.mac == mac)
    if len(cards) != 1:
        wanted = " and ".join(
            f"{what} {value}"
            for what, value in (("target dev", named.dev), ("MAC", named.mac or (None if named.dev else mac)))
            if value
        )
        there = ", ".join(f"{c.device or 'no target dev'} with MAC {c.mac}" for c in domain.cards) or "none"
        how_many = "no interface" if not cards else f"{len(cards)} interfaces"
        raise Invalid(f"port {named.called} is for an interface with {wanted}; there is {how_many} such, but {there}")
    card = cards[0]
    if card.mac != mac:
        raise Invalid(
            f"{card.called} has MAC {card.mac}, but its port {named.called} has {mac}: write <mac address='{mac}'/>"
        )
    if card.kind != "ethernet":
        raise Invalid(f"{card.called} of port {named.called} is of type {card.kind!r}: it should be 'ethernet'")
    if not card.device or card.managed:
        raise Invalid(f"{card.called} of port {named.called} should have <target dev='NAME' managed='no'/>")
    return card


class Libvirt:
    """Answers to the hook on one host."""

    def __init__(self, host: Host) -> None:
        self.host = host

    async def answer(self, raw: bytes) -> None:
        """Answer one call of the hook: domain, operation, sub-operation, extra, each ended by a zero byte; the XML."""
        head, mark, text = raw.partition(b"\0\0")
        words = head.decode(errors="replace").split("\0")
        if not mark or len(words) != 4:
            raise Invalid("the call is no domain, operation, sub-operation and extra, and a description")
        operation = OPERATIONS.get(words[1])
        if operation is None:
            raise Invalid(f"operation {words[1]!r} of the hook is not known")
        await operation(self, read(text.decode(errors="replace")))

    async def prepare(self, domain: Domain) -> None:
        """Plug a tap for each port, all or none."""
        try:
            await self.plug(domain)
        except BaseException:
            with suppress(Fault):
                await asyncio.shield(self.release(domain))
            raise

    async def plug(self, domain: Domain) -> None:
        """Plug a tap for each port; what is plugged already stays."""
        for port, card in await self.pairs(domain):
            owner, device = port.get("device_owner") or "", port.get("device_id") or ""
            if device not in ("", domain.id) or (owner and not owner.startswith("compute:")):
                raise Conflict(f"port {port['id']} is of {owner or 'device'} {device}".rstrip())
            wish = {"port": port["id"], "body": "tap", "device": card.device, "queues": card.queues}
            await self.host.take({**wish, "holder": domain.id})
            if port.get("device_id") != domain.id:
                await self.change(port["id"], device_id=domain.id, device_owner=OWNER)

    async def check(self, domain: Domain) -> None:
        """Find that the ports are there and fit."""
        await self.pairs(domain)

    async def expect(self, domain: Domain) -> None:
        """Have the ports of a domain that migrates wait for it here."""
        for port, _ in await self.pairs(domain):
            if port.get("binding:host_id") in (self.host.host, "", None):
                continue
            bindings = f"{path_of('port', port['id'])}/bindings"
            there: Objects = (await self.host.ask("GET", bindings))["bindings"]
            if all(binding["host"] != self.host.host for binding in there):
                await self.host.ask("POST", bindings, {"binding": {"host": self.host.host}})

    async def release(self, domain: Domain) -> None:
        """Take away what was plugged for a domain that has ended here; what has moved goes on where it is."""
        faults = []
        for id in self.host.held(domain.id):
            try:
                await self.leave(id)
            except Fault as fault:
                faults.append(fault)
        if faults:
            raise faults[0]

    async def leave(self, id: str) -> None:
        """Take a port's tap away and say so; a server that does not answer is no reason to keep it."""
        try:
            port = await self.moved(id)
        except Unavailable:
            await self.host.unplug(id)
            raise
        await self.host.unplug(id)
        if port is None:
            return
        with suppress(NotFound):
            if port.get("binding:host_id") == self.host.host:
                of = {"device_id": "", "device_owner": ""} if port.get("device_owner") == OWNER else {}
                await self.change(id, **{"binding:host_id": "", **of})
            else:
                await self.host.ask("DELETE", f"{path_of('port', id)}/bindings/{self.host.host}")

    async def moved(self, id: str) -> Object | None:
        """Return a port, once it has moved if another host waits for it: its guest has just gone on there, it may be.

        None: it is not there any more. What its connections were is told while its body is here.
        """
        end = asyncio.get_running_loop().time() + MOVE_SECONDS
        while True:
            try:
                port: Object = (await self.host.ask("GET", path_of("port", id)))["port"]
                bindings: Objects = (await self.host.ask("GET", f"{path_of('port', id)}/bindings"))["bindings"]
            except NotFound:
                return None
            if port.get("binding:host_id") != self.host.host or len(bindings) < 2:
                return port
            if asyncio.get_running_loop().time() > end:
                return port
            await asyncio.sleep(0.05)

    async def pairs(self, domain: Domain) -> list[tuple[Object, Card]]:
        """Return each port that a domain names, with its interface; raise what is wrong before anything is done."""
        found = await asyncio.gather(*(self.port(named) for named in domain.ports))
        pairs: list[tuple[Object, Card]] = []
        for named, port in zip(domain.ports, found, strict=True):
            card = card_of(domain, named, port)
            if any(port["id"] == other["id"] or card == taken for other, taken in pairs):
                raise Invalid(f"port {named.called} and {card.called} are not for each other alone")
            pairs.append((port, card))
        return pairs

    async def port(self, named: Named) -> Object:
        """Return the port that is meant."""
        ports = await attach.found(self.host, "port", id=named.id, name=named.name)
        return attach.chosen(ports, "port", named.called, named.project)

    async def change(self, id: str, **attrs: Any) -> None:
        """Change a port."""
        await self.host.ask("PUT", path_of("port", id), {"port": attrs})


OPERATIONS: dict[str, Callable[[Libvirt, Domain], Awaitable[None]]] = {
    "prepare": Libvirt.prepare,
    "attach": Libvirt.plug,
    "reconnect": Libvirt.plug,
    "restore": Libvirt.check,
    "migrate": Libvirt.expect,
    "release": Libvirt.release,
}
