"""Guests remember for half a minute and longer which MAC an address has: they are told whenever it has another one.

Of whatever has an address: a port that replaces another, a router that joins or
leaves, what stands in for one. Nobody else tells them, as ARP and solicitations
are answered on each guest's own host, from the rows of `endpoints`: so it is
where these rows change that hosts tell their own ports.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import NamedTuple

from crossway.agent.guest import advert
from crossway.agent.guest.frame import BROADCAST, ICMPV6, Frame, build
from crossway.model.rows import MAPPED, Endpoint, EndpointKey, PlaceKind, PortKey
from crossway.plan.address import link_local, mac
from crossway.plan.plan import Plan
from crossway.plan.service import NO_ROUTER, SERVICE_MAC

MEMORY_SECONDS = 90.0  # how long a guest may believe what it was told last, more or less
MEMORY_MAX = 16384
ALL_NODES = bytes.fromhex("ff02") + bytes(13) + b"\1"
LINK_LOCAL = b"\xfe\x80" + bytes(6)
SOLICITED_NODE = bytes.fromhex("ff02") + bytes(9) + b"\1\xff"
SOLICITATION, ADVERTISEMENT, ROUTER, OVERRIDE, SOURCE, TARGET = 135, 136, 1 << 31, 1 << 29, 1, 2  # RFC 4861


class News(NamedTuple):
    """An address that has another MAC now."""

    ip: bytes
    mac: bytes
    router: bool  # has it


class Neighbours:
    """Which addresses have left which MAC of late; *send* sends a frame to a port."""

    def __init__(self, plan: Plan, send: Callable[[PortKey, bytes], None]) -> None:
        self._plan, self._send = plan, send
        self._left: dict[EndpointKey, tuple[bytes, float]] = {}
        # What is to be told, by the number of the network.
        self._news: dict[int, list[News]] = {}
        self._gone: dict[int, list[bytes]] = {}  # MACs of routers

    def note(
        self,
        have: Mapping[EndpointKey, Endpoint],
        put: Mapping[EndpointKey, Endpoint],
        deleted: Iterable[EndpointKey],
    ) -> None:
        """Take in which rows of `endpoints` are about to change; `tell` when they have."""
        now = time.monotonic()
        for key, new in put.items():
            was, router = have.get(key), new.place.kind == PlaceKind.ROUTER
            if was is not None:
                self._note_router(key, was, new)
                old = was.mac
            else:
                old, when = self._left.pop(key, (new.mac, now))
                old = old if now - when < MEMORY_SECONDS else new.mac
            if old != new.mac:
                self._news.setdefault(key.network, []).append(News(key.ip, new.mac, router))
        for key in deleted:
            if (was := have.get(key)) is not None:
                self._left[key] = was.mac, now
                self._note_router(key, was, None)
        if len(self._left) > MEMORY_MAX:
            recent = {where: told for where, told in self._left.items() if now - told[1] < MEMORY_SECONDS}
            self._left = dict(list(recent.items())[-MEMORY_MAX // 2 :])

    def tell(self) -> None:
        """Tell ports of this host what was noted, each of its own network."""
        news, self._news = self._news, {}
        gone, self._gone = self._gone, {}
        if not news and not gone:
            return
        for id, body in self._plan.local_bodies().items():
            port = self._plan.port(id)
            network = self._plan.network(port.network) if port is not None else None
            if port is None or network is None or not self._plan.is_here(port):
                continue
            with suppress(ValueError):  # what cannot be is told of by the plan
                own = mac(port.mac)
                for one in news.get(network.number, ()):
                    if one.mac != own:
                        self._send(body.key, said(own, one.ip, one.mac, router=one.router))
                for router in gone.get(network.number, ()):
                    self._send(body.key, build(advert.farewell(own, router)))

    def _note_router(self, key: EndpointKey, was: Endpoint, new: Endpoint | None) -> None:
        """Note when a router's link-local address is no router's any more: it may have been advertised."""
        if was.place.kind != PlaceKind.ROUTER or was.place.router == NO_ROUTER or not key.ip.startswith(LINK_LOCAL):
            return
        if new is None or new.place.kind != PlaceKind.ROUTER or new.mac != was.mac:
            self._gone.setdefault(key.network, []).append(was.mac)


def said(to: bytes, ip: bytes, new: bytes, *, router: bool = False) -> bytes:
    """Return what tells a guest that an address has a MAC, if it has anything to do with it: no more is believed.

    Of an address that was a router's and is not advertised as one a guest drops its routes by it.
    """
    if ip.startswith(MAPPED):
        own = new + ip[12:]
        return to + new + struct.pack("!HHHBBH", 0x806, 1, 0x800, 6, 4, 2) + own + own
    flags = OVERRIDE | (ROUTER if router else 0)
    body = struct.pack("!BBHI", ADVERTISEMENT, 0, 0, flags) + ip + struct.pack("!BB", TARGET, 1) + new
    return build(Frame(to, new, ip, ALL_NODES, ICMPV6, 0, 0, body))


def asked(ip: bytes) -> bytes:
    """Return what asks who has an address, and leaves nothing behind that a router must not be taken for.

    An ARP probe (RFC 5227), or a solicitation by the stand-in for a router.
    """
    if ip.startswith(MAPPED):
        body = struct.pack("!HHHBBH", 0x806, 1, 0x800, 6, 4, 1) + SERVICE_MAC + bytes(10) + ip[12:]
        return BROADCAST + SERVICE_MAC + body
    group = SOLICITED_NODE + ip[13:]
    body = struct.pack("!BBHI", SOLICITATION, 0, 0, 0) + ip + struct.pack("!BB", SOURCE, 1) + SERVICE_MAC
    return build(Frame(b"\x33\x33" + group[12:], SERVICE_MAC, link_local(SERVICE_MAC), group, ICMPV6, 0, 0, body))
