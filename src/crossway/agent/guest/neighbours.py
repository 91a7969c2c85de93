"""Guests remember for half a minute and longer which MAC an address has: those that it left are told of the new one.

A container that is started again may be another port with the same address, as
may be a pod that gets the address of one that has just gone. Nobody else tells
their neighbours: ARP and solicitations are answered on each guest's own host.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, ip_address

from crossway.agent.guest.frame import ICMPV6, Frame, build
from crossway.model.rows import PortKey
from crossway.plan import view
from crossway.plan.address import mac
from crossway.plan.plan import Plan

MEMORY_SECONDS = 90.0  # how long a guest may believe what it was told last, more or less
MEMORY_MAX = 16384
ALL_NODES = bytes.fromhex("ff02") + bytes(13) + b"\1"
ADVERTISEMENT, OVERRIDE, TARGET = 136, 1 << 29, 2  # RFC 4861


class Neighbours:
    """Which addresses have left which MAC of late; *send* sends a frame to a port."""

    def __init__(self, plan: Plan, send: Callable[[PortKey, bytes], None]) -> None:
        self._plan, self._send = plan, send
        self._left: dict[tuple[str, str], tuple[str, float]] = {}

    def changed(self, before: Iterable[view.Port | None], after: Sequence[view.Port | None]) -> None:
        """Take in how ports were and are; tell those here whose neighbour's address has another MAC now."""
        now = time.monotonic()
        there = {where: port.mac for port in after if port is not None for where in _places(port)}
        for was in (port for port in before if port is not None):
            for where in _places(was):
                if there.get(where) != was.mac:
                    self._left[where] = (was.mac, now)
        for where, new in there.items():
            old, when = self._left.pop(where, (new, now))
            if old != new and now - when < MEMORY_SECONDS:
                self._tell(*where, new)
        if len(self._left) > MEMORY_MAX:
            recent = {where: told for where, told in self._left.items() if now - told[1] < MEMORY_SECONDS}
            self._left = dict(list(recent.items())[-MEMORY_MAX // 2 :])

    def _tell(self, network: str, ip: str, new: str) -> None:
        for id, body in self._plan.local_bodies().items():
            port = self._plan.port(id)
            if port is not None and port.network == network and port.mac != new and self._plan.is_here(port):
                with suppress(ValueError):  # what cannot be is told of by the plan
                    self._send(body.key, said(mac(port.mac), ip, mac(new)))


def _places(port: view.Port) -> list[tuple[str, str]]:
    """Return where an address of a port is one: its network and itself."""
    return [(port.network, address.ip) for address in port.addresses]


def said(to: bytes, ip: str, new: bytes) -> bytes:
    """Return what tells a guest that an address has a MAC, if it has anything to do with it: no more is believed."""
    address = ip_address(ip)
    if isinstance(address, IPv4Address):
        own = new + address.packed
        return to + new + struct.pack("!HHHBBH", 0x806, 1, 0x800, 6, 4, 2) + own + own
    body = struct.pack("!BBHI", ADVERTISEMENT, 0, 0, OVERRIDE) + address.packed + struct.pack("!BB", TARGET, 1) + new
    return build(Frame(to, new, address.packed, ALL_NODES, ICMPV6, 0, 0, body))
