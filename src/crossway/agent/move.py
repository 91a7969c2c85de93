"""Ports that move: carried before they come, and their connections told when they go.

    old host ── connections, each second ──> server ──> new host
                                              "take" ──> carried from now on
    guest ── RARP ──> new host ── "it is here" ──> all hosts, at once (UDP, as edges do)
                               ── taken, activate ──> server

Docs: docs/protocols.md.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from crossway.agent import handover
from crossway.agent.ears import Ears
from crossway.errors import Conflict, Fault, Invalid, NotFound
from crossway.model import rows as r
from crossway.plan import view

if TYPE_CHECKING:
    from crossway.agent.body import Record
    from crossway.agent.server import Servers
    from crossway.kernel.links import Link
    from crossway.plan.plan import Plan

log = logging.getLogger(__name__)

TAKEN_SECONDS = 2.0  # for which a port is carried that is said to be about to come
BRING_SECONDS = 0.05  # after which the server hears that a guest is here: the guest needs the processor first
HANDOVER_SECONDS = 1.0  # between two looks at the connections of ports that may move


class Carrier(Protocol):
    """What is needed of the agent."""

    host: str
    connected: bool
    plan: Plan
    servers: Servers

    def settle(self) -> None: ...
    def link(self, name: str) -> Link | None: ...
    def record(self, port: str) -> Record | None: ...
    def hand_in(self, port: str, flows: bytes) -> None: ...
    def claim(self, port: str) -> None: ...
    async def flows(self, ports: Mapping[str, r.PortKey]) -> dict[str, dict[r.FlowKey, r.Flow]]: ...


class Moves:
    """The ports that may leave this host, have just left it, or may come to it."""

    def __init__(self, agent: Carrier) -> None:
        self._agent = agent
        # Those that may go any moment, and what was told of their connections last.
        self._leaving: dict[str, frozenset[r.FlowKey] | None] = {}
        self._gone: dict[str, r.PortKey] = {}  # those that have just gone, by what stood for them here
        self._coming: set[str] = set()  # what other hosts have told
        self._handing = asyncio.Event()
        self._said = asyncio.Event()  # what those that have just gone had here
        self._said.set()
        # Ports that are carried before they have come, or can't be, and whether it is their guest who is here already.
        self._carried: asyncio.Queue[tuple[str, bool, bool]] = asyncio.Queue()
        self._ears = Ears(self._announced)

    def close(self) -> None:
        self._ears.close()

    # Going.

    def note(self, id: str, port: view.Port | None, *, here: bool) -> None:
        """Take note of a port that may leave this host, and of one that has just left; *here*: it had its body here.

        It may have left while no agent was here, from connections that nobody was told of.
        """
        own = self._agent.host
        if port is not None and port.link is not None:
            self._leaving.pop(id, None)  # edges tell each other
        elif port is not None and port.host == own and port.waiting:
            if id not in self._leaving:
                self._leaving[id] = None
                self._handing.set()
        elif id in self._leaving or here:
            self._leaving.pop(id, None)
            body = self._agent.plan.local_bodies().get(id)
            if port is not None and own in port.waiting and body is not None:
                self._gone[id] = body.key
                self._said.clear()
                self._handing.set()

    async def hand_over(self) -> None:
        """Tell where a port may go, or has gone, which connections it has here."""
        with suppress(TimeoutError):
            async with asyncio.timeout(HANDOVER_SECONDS):
                await self._handing.wait()
        self._handing.clear()
        bodies, gone = self._agent.plan.local_bodies(), dict(self._gone)
        wanted = {id: bodies[id].key for id in self._leaving if id in bodies} | gone
        if not wanted or not self._agent.connected:
            return
        found = await self._agent.flows(wanted)
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        for id, flows in found.items():
            if id not in gone and self._leaving.get(id, None) == flows.keys():
                continue
            try:
                await self._agent.servers.hand_over(id, handover.packed(flows, now))
            except (NotFound, Conflict, Invalid) as fault:
                log.warning("connections of port %s: %s", id, fault)
            except Fault as fault:
                log.warning("connections of port %s: %s", id, fault)
                continue  # again a little later
            if id in gone:  # and not since then, with what it has begun meanwhile
                self._gone.pop(id, None)
            if id in self._leaving:
                self._leaving[id] = frozenset(flows)
        if not self._gone:
            self._said.set()

    async def said(self) -> None:
        """Return once it is told, if it can be, which connections ports had that have just gone.

        Once all hosts have heard where the port is, its binding to this one may go, and with it the right to speak.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(HANDOVER_SECONDS):
                await self._said.wait()

    # Coming.

    def take(self, id: str) -> None:
        """Carry a port that is about to move here, so that it is there before those who send to it know."""
        self._carried.put_nowait((id, self._carry(id), False))

    def bring(self, id: str) -> None:
        """Have the server say that a port is here that is carried already."""
        entry = (id, True, True)
        asyncio.get_running_loop().call_later(BRING_SECONDS, self._carried.put_nowait, entry)

    def _carry(self, id: str) -> bool:
        """Carry a port that is about to move here, if it has its body, for a while at most; say whether."""
        port = self._agent.plan.port(id)
        if port is None or self._agent.host not in port.waiting or id not in self._agent.plan.local_bodies():
            return False
        self._place(id, taken=True)
        # One that has not come after all is let go of.
        asyncio.get_running_loop().call_later(TAKEN_SECONDS, lambda: self._place(id, taken=False))
        return True

    def _place(self, id: str, *, taken: bool) -> None:
        self._agent.plan.taken(id, taken)
        self._agent.settle()

    async def fetch(self) -> None:
        """Tell the server of a port that is carried, or can't be; one whose guest is here is to be here."""
        id, carried, heard = await self._carried.get()
        try:
            await self._agent.servers.taken(id, carried=carried)
            if heard:
                await self._agent.servers.activate(id)
                log.info("port %s has been fetched", id)
        except Fault as fault:
            log.warning("port %s is carried, but: %s", id, fault)

    def listen(self, id: str) -> None:
        """Listen for the guest of a port that may come to a body that it has here."""
        own, port, record = self._agent.host, self._agent.plan.port(id), self._agent.record(id)
        # Where it is may be another host's word: it comes back here without the server.
        waits = port is not None and self._agent.plan.whereabouts(port) != own and own in port.carriers
        if not waits or record is None or record.vlan or self._agent.link(record.device) is None:
            self._ears.stop(id)
            return
        try:
            self._ears.listen(id, record.device)
        except OSError as fault:
            log.warning("port %s will not be heard on %s: %s", id, record.device, fault)

    def _announced(self, id: str, mac: str) -> None:
        """Take note that a guest has said that it is here."""
        port = self._agent.plan.port(id)
        if port is not None and port.mac == mac:
            self._ears.stop(id)
            log.info("the guest of port %s is here", id)
            # By way of the server its hosts would hear of it some ten milliseconds later.
            if self._agent.host in port.carriers and id in self._agent.plan.local_bodies():
                self._agent.claim(id)
            else:
                self.bring(id)

    def told(self, handovers: Iterable[str]) -> None:
        """Take note of what other hosts have told of connections."""
        self._coming.update(handovers)

    def hand_in(self) -> None:
        """Put what other hosts have told of connections of ports that are here now where the programs look."""
        plan = self._agent.plan
        for id in list(self._coming):
            told = plan.handover(id)
            port = plan.port(told.port) if told is not None else None
            if told is None or port is None:
                self._coming.discard(id)
            elif plan.is_here(port) and port.id in plan.local_bodies():
                self._coming.discard(id)
                try:
                    self._agent.hand_in(port.id, handover.unpacked(told.flows))
                except ValueError as fault:
                    log.error("port %s: %s", port.id, fault)
