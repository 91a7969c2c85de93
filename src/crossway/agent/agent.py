"""One host's agent: the view comes in, rows go into the kernel, status goes out.

    server ── view ──> plan ── rows touched ──> changes ──> tables
       ▲                 ▲
       └── status ──┐    └── bodies: plug, unplug, links that come and go
                    └──────────────┘

A restart is the ordinary walk: what the tables hold is read back, the first
bookmark says what they should hold, and only the difference is written.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import os
import struct
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import aclosing, contextmanager, suppress
from importlib.metadata import version
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from crossway.agent import attached, drops, handover, sweep
from crossway.agent.api import Api
from crossway.agent.body import OWN, Plug, Record, Records, adopted, body_of, record_of
from crossway.agent.edge import Edges
from crossway.agent.guest import names
from crossway.agent.guest.desk import Desk
from crossway.agent.learned import Learner
from crossway.agent.move import Moves
from crossway.agent.plane import UPLINK, WORKLOAD, Plane
from crossway.agent.published import Published, Wished
from crossway.agent.remover import Remover
from crossway.agent.server import Servers
from crossway.agent.shares import HALVES, SETTLE_SECONDS, beyond
from crossway.agent.tables import Tables
from crossway.agent.ways import Ways
from crossway.client import path_of
from crossway.errors import Conflict, Fault, Invalid, NotFound, Unavailable
from crossway.kernel import netlink as nl
from crossway.kernel.bpf import Table
from crossway.kernel.links import ETHERNET, Inside, Link, Links, decode, furnish, netns_of, port_of, refurnish
from crossway.kernel.netlink import Netlink
from crossway.kernel.ring import Ring
from crossway.model import rows as r
from crossway.model.rows import TABLES
from crossway.plan import interface_config, view
from crossway.plan.interface_config import DEFAULT
from crossway.plan.plan import Document, Plan
from crossway.plan.port import Body
from crossway.plan.rows import POLICY, changes

log = logging.getLogger(__name__)

ALIVE_SECONDS = 5.0  # between signs of life
PAUSE_SECONDS = (0.1, 2.0)  # before coming again to a server that went: at first, at most
SWEEP_SECONDS = 5.0
MTU6_MIN = 1280  # RFC 8200
ADVERTISE_SECONDS = 1.0
ADVERTISE_PAUSE_SECONDS = 0.1  # between looks at what has changed
PLUG_SECONDS = 30.0
ENFORCE_STEPS = 12  # of at most 256 rows each, that policy goes on by at once
REPORT_SECONDS = 0.02  # between reports at least: changes in a burst are reported together


class Agent:
    """What one host's agent knows and does; `main` runs until it is cancelled."""

    def __init__(
        self,
        servers: list[str],
        host: str,
        underlay: str,
        physnets: Mapping[str, str],
        run: Path,
        vxlan_port: int,
        data: Path | None = None,
    ) -> None:
        """*data*: the directory of what outlives the host's next boot; *run* if not said."""
        self.host, self.underlay, self.physnets, self.run = host, underlay, dict(physnets), run
        self.data = data or run
        self._vxlan_port = vxlan_port
        self.servers = Servers(servers, host)
        self.plan = Plan(host)
        self.connected = False
        self.applied = 0
        self._complete = False  # whether the plan has seen a whole view; before, nothing is written
        self._synced = False  # whether the tables differ from the plan in nothing but what it says is touched
        self._read = False  # whether the tables have just been read
        self._enforcing: dict[int, Iterator[None]] = {}  # identity -> what is still to be written of its policy
        self._behind = asyncio.Event()  # some policy is not in the tables yet
        self._pause = PAUSE_SECONDS[0]
        # Bodies: what was plugged, and what bindings name.
        self._records_kept = Records(run / "bodies")
        self._records: dict[str, Record] = {}
        self._named: dict[str, Record] = {}  # port -> the link that its binding names
        self._seen: set[str] = set()  # plugged ports of which the view has told: here, or about to come
        self._devices: dict[str, set[str]] = {}  # name of a link -> ports whose body it is
        self._doomed: dict[str, Record] = {}  # bodies to be removed once their rows are out
        self._locks: dict[str, asyncio.Lock] = {}
        # Links of this host.
        self._links: dict[int, Link] = {}
        self._by_name: dict[str, Link] = {}
        # What the server is told.
        self._judge: set[str] = set()  # ports whose state may have changed
        self._states: dict[str, str] = {}
        self._reported: dict[str, str] = {}
        self._report = asyncio.Event()
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}
        self._counts: dict[str, int] = {}
        self._old_planes: list[Plane] = []
        self._desk = Desk(
            self.plan,
            lambda ifindex: link.name if (link := self._links.get(ifindex)) else None,
            lambda port: (record := self._records.get(port)) is not None and record.body == "pair",
        )
        self._rings: list[Ring] = []
        self._news = asyncio.Event()  # set: guests may have to be told something else of their routers
        self._told_faults: set[tuple[str, str]] = set()
        self._left_out: dict[str, tuple[str, ...]] = {}  # port -> what was told of routes that its subnets cannot have
        self._moves = Moves(self)
        self._edges = Edges(self)
        self._learner = Learner(self)
        self.published = Published(self)

    # Life.

    async def main(self, ready_fd: int | None = None) -> None:
        """Run until cancelled; links, programs and tables go on without it."""
        self.run.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._alone():
            await self._live(ready_fd)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the directory: two agents on one set of tables would undo each other's work."""
        with open(self.run / "lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Conflict(f"another agent runs in {self.run}") from None
            yield

    async def _live(self, ready_fd: int | None) -> None:
        self.links = Links()
        self._remover = Remover()
        self._events = Netlink(nl.RTMGRP_LINK | nl.RTMGRP_IPV4_IFADDR | nl.RTMGRP_IPV6_IFADDR)
        loop = asyncio.get_running_loop()
        ways = Ways(self)
        api = Api(
            {
                ("POST", "/v1/plug"): self._answer_plug,
                ("POST", "/v1/unplug"): self._answer_unplug,
                ("POST", "/v1/publish"): self._answer_publish,
                ("GET", "/v1/status"): self._answer_status,
                ("GET", "/v1/drops"): self._answer_drops,
                ("POST", "/v1/cni"): ways.answer_cni,
                ("POST", "/v1/libvirt"): ways.answer_libvirt,
            }
        )
        engines = {path: Api(routes) for path, routes in ways.docker_sockets().items()}
        try:
            self._begin()
            self._listen()
            self._edges.open()
            loop.add_reader(self._events.fileno(), self._links_changed)
            await api.start(self.run / "agent.sock")
            for path, docker in engines.items():
                await docker.start(path)
            if ready_fd is not None:
                os.write(ready_fd, b"\n")
                os.close(ready_fd)
            async with asyncio.TaskGroup() as tasks:
                own = (self._follow, self._catch_up, self._tell, self._sweep, self._advertise)
                moves, edges = self._moves, self._edges
                learning = (self._learner.tell, self._learner.verify)
                for step in (*own, *ways.steps(), moves.hand_over, moves.fetch, edges.beat, edges.stream, *learning):
                    tasks.create_task(self._forever(step))
        finally:
            loop.remove_reader(self._events.fileno())
            await api.stop()
            for docker in engines.values():
                await docker.stop()
            await ways.close()
            await self._remover.close()
            for path in (self.run / "agent.sock", *engines):
                path.unlink(missing_ok=True)
            self.servers.close()
            self._moves.close()
            self._edges.close()
            self.published.close()
            self._events.close()
            self._hang_up()
            self._desk.close()
            self.links.close()
            for plane in [*self._old_planes, *([self.plane] if hasattr(self, "plane") else [])]:
                plane.close()

    def _begin(self) -> None:
        """Take over what an agent before this one left: programs are renewed, rows stay."""
        self.plane = Plane(self.run, self.links, self.underlay, self._vxlan_port)
        self.tables = Tables(self.plane.object)
        self.tables.read()
        self._read = True
        self.plan.adopt(self.tables.have)
        self.plan.sizes({name: self.plane.object.table(name).size for name in TABLES})
        self._reasons = {
            number: name.removeprefix("DROP_") for name, number in self.plane.object.btf.enum("drop").items()
        }
        for link in self.links.all():
            self._links[link.ifindex] = self._by_name[link.name] = link
        self._records = self._records_kept.read()
        self._seen = set(self._records)
        for record in self._records.values():
            self._devices.setdefault(record.device, set()).add(record.port)
        self.plane.start()
        self._take_uplinks()
        self.published.begin(self._records)
        self.plan.resolvers(names.asked_at())
        self.plan.bodies({port: self._body(record) for port, record in self._records.items()})

    # The view.

    async def _forever(self, step: Callable[[], Awaitable[None]]) -> None:
        """Take one step after the other; one that fails for whatever reason is told and taken again."""
        while True:
            try:
                await step()
            except Exception:
                # The way out is the ordinary walk: everything again, compared with what the tables hold.
                log.exception("the agent goes on from the beginning")
                self.applied, self._synced = 0, False
                self.plan.policy.revision = 0
                await asyncio.sleep(self._pause)

    async def _follow(self) -> None:
        """Follow the view until the server goes; then wait a little, longer each time."""
        try:
            await self.servers.register(self.underlay, self.physnets, version("crossway"))
            async with aclosing(self.servers.view(self.applied)) as documents:
                batch: list[Mapping[str, Any]] = []
                whole = False
                async for told in documents:
                    if "bookmark" in told:
                        self._bookmark(int(told["bookmark"]), batch, whole=whole)
                        batch, whole, self._pause = [], False, PAUSE_SECONDS[0]
                    elif "take" in told:
                        self._moves.take(str(told["take"]))
                    elif told.get("reset"):
                        batch, whole = [], True
                    else:
                        batch.append(told)
        except Fault as fault:
            log.warning("view: %s", fault)
        finally:
            self.connected = False
        await asyncio.sleep(self._pause)
        self._pause = min(self._pause * 2, PAUSE_SECONDS[1])

    def _bookmark(self, revision: int, batch: list[Mapping[str, Any]], *, whole: bool) -> None:
        """Apply what came since the last bookmark as one change."""
        if not self.connected:
            self.connected = True
            log.info("connected to %s", self.servers.server)
            self._reported.clear()
            self._report.set()
        if batch or whole:
            began = time.perf_counter()
            documents = self._decoded(batch)
            before = list(self.plan.objects["port"]) if whole else []
            ports = [d.id for d in documents if d.kind == "port"]
            self.plan.take(documents, whole=whole)
            self.plan.policy.revision = revision
            self._consider(dict.fromkeys([*before, *ports]))
            self._moves.told(d.id for d in documents if d.kind == "handover" and d.object is not None)
            if whole:
                self._consider(list(self._records))
                if not self._complete:
                    self.plan.settle()
                    self.plan.forget_adopted()
                    self._complete = True
            if any(d.kind in ("network", "subnet", "port", "router") for d in documents):
                self._news.set()
            if any(d.kind in ("identity", "host", "network") for d in documents):
                self._judge.update(self._states)
            self._apply()
            self._refurnish(documents)
            log.debug("revision %d: %d documents in %.1f ms", revision, len(batch), 1e3 * (time.perf_counter() - began))
            self._report.set()
        self.plan.policy.revision = revision
        self._note_applied()

    def _note_applied(self) -> None:
        """Note of which revision the tables have all."""
        applied = min(self.plan.policy.applied, self.plan.policy.revision)
        if applied != self.applied:
            self.applied = applied
            self._report.set()

    def _decoded(self, batch: list[Mapping[str, Any]]) -> list[Document]:
        documents = []
        for told in batch:
            kind, id, raw = str(told.get("kind")), str(told.get("id")), told.get("object")
            if kind not in view.KINDS:
                continue  # of a newer server
            try:
                documents.append(Document(kind, id, None if raw is None else view.decode(kind, raw)))
            except ValueError as fault:
                log.error("%s %s cannot be: %s", kind, id, fault)
                documents.append(Document(kind, id, None))
        return documents

    def _consider(self, ports: Iterable[str]) -> None:
        """Look at the bodies of ports that the view has told something of."""
        changed: dict[str, Body | None] = {}
        for id in ports:
            port = self.plan.port(id)
            record = self._records.get(id)
            self._moves.note(id, port, here=id in self._seen and record is not None and not record.awaits)
            self._edges.note(id, port)
            if record is not None:
                if not self._stays(record, port):
                    log.info("port %s is no longer of this host", id)
                    self._forget(id)
                    self._doomed[id] = record
                    changed[id] = None
            else:
                wanted, named = self._wanted(port), self._named.get(id)
                if named is not None and (wanted is None or not _same_place(named, wanted)):
                    self._unname(named)
                    self._doomed[id] = named
                    changed[id] = None
                if wanted is not None:
                    if named is None or not _same_place(named, wanted):
                        self._name(wanted)
                    changed[id] = self._body(self._named[id])
            self._moves.listen(id)
            self._judge.add(id)
            self._reported.pop(id, None)
        self.plan.bodies(changed)

    def _stays(self, record: Record, port: view.Port | None) -> bool:
        """Return whether a plugged port keeps its body, by what the view tells of it; take note of that."""
        here = port is not None and port.host == self.host
        waits = port is not None and self.host in port.waiting
        # A guest that has left may come back, and its QEMU still holds the tap.
        if not here and not (waits and (record.awaits or record.port not in self._seen or record.body == "tap")):
            return record.port not in self._seen
        self._seen.add(record.port)
        if record.awaits is here:
            self._write(msgspec.structs.replace(record, awaits=not here))
        return True

    def _apply(self) -> None:
        """Bring the tables up to date with the plan, and say what came of it."""
        if not self._complete:
            return
        while waited := self._apply_once():
            self._judge |= waited
        # Of a port it says why it is down, or that nothing holds it back any more.
        self._judge.update(id for kind, id in self.plan.faults.keys() ^ self._told_faults if kind == "port")
        for kind, id in self.plan.faults.keys() - self._told_faults:
            log.error("%s %s has no rows: %s", kind, id, self.plan.faults[kind, id])
        self._told_faults = set(self.plan.faults)
        doomed, self._doomed = self._doomed, {}
        for record in doomed.values():
            self._remove(record)
        self._edges.after()
        self._conclude()

    def _apply_once(self) -> set[str]:
        """Write what has changed, of policy as much as may be at once; return the ports that can follow it now."""
        synced, self._synced = self._synced, False
        if synced:
            touched = self.plan.arrange()
            for table, keys in self.tables.failed.items():
                touched.setdefault(table, set()).update(keys)
        else:
            # Everything is compared; what was under way is part of it.
            self._enforcing.clear()
            touched = self.plan.settle()
            if not self._read:
                self.tables.read()
        self._read = False
        failed = bool(self.tables.failed)
        change = changes(self.tables.have, self.plan.rows, touched if synced else None)
        self._moves.hand_in()
        self._edges.before()
        neighbours = self._desk.neighbours
        neighbours.note(
            self.tables.have["endpoints"], change.put.get("endpoints", {}), change.delete.get("endpoints", ())
        )
        self.tables.apply(change)
        neighbours.tell()
        self.plane.toward(change.put.get("hosts", ()) if synced else self.tables.have["hosts"])
        if not synced:
            self.plan.written()
            # Whoever wrote last may have died between policy and the call to judge anew.
            self.tables.judge_anew(self.plan.policy.locals())
            self.plane.filled()
            self._remove_strays()
        self._synced = True
        if failed or self.tables.failed:
            self._judge.update(self._states)
        return self._enforce()

    def _enforce(self) -> set[str]:
        """Bring policy up to date for a few milliseconds; return the ports that have waited for what is done."""
        waited: set[str] = set()
        for _ in range(ENFORCE_STEPS):
            if not self._synced or not self.plan.policy.pending:
                break
            if (finished := self.plan.enforce()) is not None:
                identity, touched = finished
                change = changes(self.tables.have, self.plan.rows, touched)
                self._enforcing[identity] = self.tables.enforce(identity, change)
            if self._enforcing:
                # Each in turn, so that a large one holds up no other.
                identity = next(iter(self._enforcing))
                steps = self._enforcing.pop(identity)
                if next(steps, self) is self:
                    waited |= self.plan.enforced(identity)
                else:
                    self._enforcing[identity] = steps
        self._note_applied()
        if self.plan.policy.pending:
            self._behind.set()
        return waited

    async def _catch_up(self) -> None:
        """Go on with policy that is more work than may be done at once; others have their turn in between."""
        await self._behind.wait()
        self._behind.clear()
        if self._synced:
            failed = {table: len(keys) for table, keys in self.tables.failed.items()}
            waited = self._enforce()
            self._judge |= waited
            if failed != {table: len(keys) for table, keys in self.tables.failed.items()}:
                self._judge.update(self._states)
            if waited or self._told_faults != set(self.plan.faults):
                self._apply()
            else:
                self._conclude()
        await asyncio.sleep(0)

    def _conclude(self) -> None:
        """Find out which ports are up, tell the server what changed, wake who waits."""
        for id in self._judge:
            port = self.plan.port(id)
            if port is None or port.host != self.host:
                self._states.pop(id, None)
                self._reported.pop(id, None)
            else:
                self._states[id] = "up" if self._is_up(id) else "down"
        for id in self._judge & self._waiting.keys():
            for future in self._waiting.pop(id):
                if not future.done():
                    future.set_result(None)
        if any(self._reported.get(id) != state for id, state in self._states.items() if id in self._judge):
            self._report.set()
        self._judge.clear()

    def _is_up(self, id: str) -> bool:
        record = self._records.get(id) or self._named.get(id)
        port = self.plan.port(id)
        if record is None or port is None or not self.plan.carries(id) or not self.plan.is_here(port):
            return False
        body = self._body(record)
        if body is None:
            return False
        failed = self.tables.failed
        if not failed:
            return True
        return not (
            body.key in failed.get("ports", ())
            or any(key.port == body.key for key in failed.get("sources", ()))
            or any(key.identity == port.identity for table in POLICY for key in failed.get(table, ()))
        )

    # Status.

    async def _tell(self) -> None:
        """Report after a change, or as a sign of life."""
        with suppress(TimeoutError):
            async with asyncio.timeout(ALIVE_SECONDS):
                await self._report.wait()
        self._report.clear()
        if not self.connected:
            return
        applied = self.applied
        await self._moves.said()
        ports = {id: state for id, state in self._states.items() if self._reported.get(id) != state}
        try:
            await self.servers.report(applied, ports)
        except Fault as fault:
            log.warning("status: %s", fault)
            await asyncio.sleep(PAUSE_SECONDS[0])
            self._report.set()
        else:
            self._reported.update(ports)
            await asyncio.sleep(REPORT_SECONDS)

    # Links.

    def _links_changed(self) -> None:
        """Take in which links came and went."""
        try:
            events = self._events.events()
        except OSError as fault:
            if fault.errno != errno.ENOBUFS:
                raise
            # Some were lost: look at all.
            there = {link.ifindex: link for link in self.links.all()}
            addresses = True
            names = {link.name for link in self._links.values()} | {link.name for link in there.values()}
            for gone in self._links.keys() - there.keys():
                self._link_gone(gone)
            for link in there.values():
                self._link_came(link)
        else:
            names, addresses = set(), False
            for event in events:
                addresses = addresses or event.type in (nl.RTM_NEWADDR, nl.RTM_DELADDR)
                if event.type not in (nl.RTM_NEWLINK, nl.RTM_DELLINK) or event.body[0]:
                    continue  # of another family: bridge ports
                link = decode(event.body)
                old = self._links.get(link.ifindex)
                if event.type == nl.RTM_NEWLINK:
                    if old is not None and old.name == link.name:
                        self._links[link.ifindex] = self._by_name[link.name] = link
                        continue
                    self._link_came(link)
                else:
                    self._link_gone(link.ifindex)
                names.add(link.name)
                if old is not None:
                    names.add(old.name)
        self._names_changed(names)
        if addresses and self.published.any:
            self.published.look()
            self._apply()

    def _link_came(self, link: Link) -> None:
        old = self._links.get(link.ifindex)
        if old is not None and old.name != link.name:
            self._by_name.pop(old.name, None)
        self._links[link.ifindex] = self._by_name[link.name] = link
        self.plane.came(link)

    def _link_gone(self, ifindex: int) -> None:
        link = self._links.pop(ifindex, None)
        if link is not None and self._by_name.get(link.name) == link:
            del self._by_name[link.name]
            self._remover.announced(link.name)
        self.plane.gone(ifindex)
        if ifindex == self.plane.overlay.ifindex:
            self._renew()

    def _renew(self) -> None:
        """Make the overlay's device anew that somebody took away, and load programs that know it."""
        log.error("the overlay's device is gone: making another one")
        # The old one stays open: a sweep may be reading its tables in another thread.
        self._old_planes.append(self.plane)
        self.plane = Plane(self.run, self.links, self.underlay, self._vxlan_port)
        self.tables.renew(self.plane.object)
        self.plane.start()
        self._listen()
        self._take_uplinks()
        for record in [*self._records.values(), *self._named.values()]:
            self._body(record)
        self.published.look()
        self.plane.toward(self.tables.have["hosts"])
        if self._synced:
            self.plane.filled()

    def _names_changed(self, names: set[str]) -> None:
        ports = {port for name in names for port in self._devices.get(name, ())}
        if names & set(self.physnets.values()):
            self._take_uplinks()
        elif not ports:
            return
        changed = {}
        for port in ports:
            record = self._records.get(port) or self._named.get(port)
            if record is not None:
                if port in self._named and not record.vlan and (link := self._by_name.get(record.device)):
                    record = self._named[port] = adopted(port, link)
                changed[port] = self._body(record)
        self.plan.bodies(changed)
        self._judge |= ports
        self._apply()

    def _body(self, record: Record) -> Body | None:
        """Return a body as the plan needs it, its hook in place; None if its link is not there."""
        link = self._by_name.get(record.device)
        if link is None:
            return None
        uplink = self.plane.program(link.ifindex) == UPLINK
        # What was plugged was looked at then.
        if record.port in self._named and (reason := self._unfit(record, link)):
            log.error("port %s: %s", record.port, reason)
            return None
        try:
            # What comes with a port's tag by a provider network's device is the port's.
            if not uplink:
                self.plane.hook(WORKLOAD, link.ifindex)
        except OSError as fault:
            log.error("cannot hook %s: %s", record.device, fault)
            return None
        if not record.made:
            self._fit(record, link)
        return body_of(record, link)

    def _unfit(self, record: Record, link: Link) -> str | None:
        """Return why a link that others made cannot be a body: what else comes by it would be dropped."""
        program, name = self.plane.program(link.ifindex), link.name
        if link.type != ETHERNET:
            return f"{name} is no Ethernet link"
        if link.ifindex == self.plane.overlay.ifindex:
            return f"{name} is the overlay's device"
        if program == UPLINK:  # which lets pass what has no port's tag
            return None if record.vlan else f"{name} is the device of a provider network"
        instead = "; an agent that has it by --physnet takes VLANs of it" if record.vlan else ""
        if link.master:
            return f"{name} is a member of {self._name_of(link.master)}{instead}"
        if program != WORKLOAD and (own := self.links.addresses().get(link.ifindex)):
            return f"{name} is this host's own, with address {own[0]}{instead}"
        return None

    def _name_of(self, ifindex: int) -> str:
        return link.name if (link := self._links.get(ifindex)) else "another link"

    def _fit(self, record: Record, link: Link) -> None:
        """Have a link that others made up, and of the size that the port's network has."""
        mtu = self._mtu(record)
        if record.vlan or mtu == link.mtu:
            mtu = None
        if mtu is not None or not link.up:
            try:
                self.links.set(link.ifindex, mtu=mtu, up=None if link.up else True)
            except OSError as fault:
                log.error("cannot set up %s: %s", record.device, fault)

    def _mtu(self, record: Record) -> int | None:
        """Return the MTU of a port's network, which the host's end of its link has; None if it is not known."""
        port = self.plan.port(record.port)
        network = self.plan.network(port.network) if port is not None else None
        return network.mtu if network is not None else None

    def _take_uplinks(self) -> None:
        """Find the devices of provider networks."""
        uplinks = {}
        for physnet, device in self.physnets.items():
            link = self._by_name.get(device)
            if link is None:
                log.warning("provider network %s: there is no device %s", physnet, device)
                continue
            try:
                self.plane.hook(UPLINK, link.ifindex)
            except OSError as fault:
                log.error("cannot hook %s: %s", device, fault)
                continue
            uplinks[physnet] = link.ifindex
        self.plan.uplinks(uplinks)

    def _wanted(self, port: view.Port | None) -> Record | None:
        """Return the body that a port's binding names on this host: of a bare-metal server, or a device."""
        if port is None or self.host not in port.carriers:
            return None
        if port.link is not None:
            device = self.physnets.get(port.link.physnet)
            return Record(port=port.id, body="vlan", device=device, vlan=port.link.vlan) if device else None
        if port.host != self.host or port.device is None:
            return None
        link = self._by_name.get(port.device)
        return adopted(port.id, link) if link else Record(port=port.id, body="tap", device=port.device)

    def _name(self, record: Record) -> None:
        self._named[record.port] = record
        self._devices.setdefault(record.device, set()).add(record.port)

    def _unname(self, record: Record) -> None:
        del self._named[record.port]
        self._undevice(record)

    def _undevice(self, record: Record) -> None:
        ports = self._devices.get(record.device, set())
        ports.discard(record.port)
        if not ports:
            self._devices.pop(record.device, None)

    def _forget(self, port: str) -> None:
        record = self._records.pop(port, None)
        self._left_out.pop(port, None)
        self.published.withdraw(port)
        self._seen.discard(port)
        if record is not None:
            self._undevice(record)

    def _remove(self, record: Record) -> None:
        """Remove what was made for a body; its rows are out."""
        if record.goes:
            self._remover.remove(record.device, lambda: self._records_kept.remove(record.port))
            return
        link = self._by_name.get(record.device)
        hooked = link is not None and self.plane.program(link.ifindex) == WORKLOAD
        if record.device not in self._devices and link is not None and hooked:
            try:
                self.plane.unhook(link.ifindex)
            except OSError as fault:
                log.error("cannot unhook %s of port %s: %s", record.device, record.port, fault)
        self._records_kept.remove(record.port)

    def _remove_strays(self) -> None:
        """Remove links of ports that nothing tells of any more."""
        for link in list(self._links.values()):
            port = port_of(link)
            if port is not None and port not in self._records:
                log.info("removing %s of port %s: it was left over", link.name, port)
                self._remover.remove(link.name, lambda: None)

    # The agent's own API.

    async def _answer_plug(self, body: bytes, _: Mapping[str, str]) -> Any:
        return await self.plug(msgspec.json.decode(body, type=Plug))

    async def plug(self, plug: Plug, *, bound: bool = False) -> Any:
        """Give a port its body; *bound*: the server has just said that the port is on this host."""
        record = record_of(plug)
        async with self._locks.setdefault(plug.port, asyncio.Lock()):
            return await self._plug(record, bound)

    async def unplug(self, port: str) -> None:
        """Take a port's body away; the port stays bound to this host."""
        async with self._locks.setdefault(port, asyncio.Lock()):
            record = self._records.get(port)
            if record is not None:
                self._withdraw(port)
                await self._remover.gone(record.device)

    async def detach(self, port: str) -> None:
        """Take a port's body away, then the port itself; that one is gone already is no fault."""
        await self.unplug(port)
        with suppress(NotFound):
            await self.servers.ask("DELETE", path_of("port", port))
        self._locks.pop(port, None)

    async def publish(self, port: str, wishes: Sequence[Wished], by: str, project: str = "") -> None:
        """Publish these of a port at addresses of this host instead of what it has published there."""
        async with self._locks.setdefault(port, asyncio.Lock()):
            if port not in self._records and wishes:
                raise Conflict(f"port {port} has no body on {self.host}: it is to be plugged first")
            try:
                self.published.publish(port, wishes, by, project)
            finally:
                self.settle()

    def record(self, port: str) -> Record | None:
        """Return the body that was plugged for a port."""
        return self._records.get(port)

    def held(self, machine: str) -> list[str]:
        """Return the ports that were plugged for a machine."""
        return [id for id, record in self._records.items() if record.holder == machine]

    def lost(self) -> list[str]:
        """Return ports whose link an engine had taken, and which has gone."""
        return [id for id, r in self._records.items() if r.body == "pair" and r.device not in self._by_name]

    def untaken(self, seconds: float) -> list[str]:
        """Return ports whose link was made so long ago for an engine to take, and has both ends here, now or again."""
        there = [id for id, r in self._records.items() if r.body == "pair" and r.ifname in self._by_name]
        return [id for id in there if self._records_kept.age(id) > seconds]

    def state(self, port: str) -> str | None:
        """Return whether a port of this host is up or down."""
        return self._states.get(port)

    async def _answer_unplug(self, body: bytes, _: Mapping[str, str]) -> Any:
        port = msgspec.json.decode(body, type=_Unplug).port
        async with self._locks.setdefault(port, asyncio.Lock()):
            return await self._unplug(port)

    async def _plug(self, record: Record, bound: bool) -> Any:
        id = record.port
        netns = netns_of(record.netns or "/proc/self/ns/net") if record.made else None
        binding = None
        try:
            if record.body == "veth" and netns is not None and os.path.samestat(os.fstat(netns), os.stat(OWN)):
                raise Invalid(f"{record.netns} is this host's own network namespace, not a workload's")
            await self._remover.gone(record.device)
            record = self._check(record)
            before = self._records.get(id)
            if before is not None and record.holder and not before.holder and before.device != record.device:
                # Whoever plugged it did not say for whom: no machine takes it away.
                raise Conflict(f"port {id} is plugged in already, by {before.device}: it is to be unplugged first")
            known = self.plan.port(id)
            if not bound and (known is None or self.host not in known.carriers):
                binding = asyncio.ensure_future(self._bind(id, known))
            if before is not None:
                record = msgspec.structs.replace(record, holder=record.holder or before.holder, awaits=before.awaits)
            if before is not None and not before.same(record):
                if netns is not None:
                    self.links.free(id, netns, record.ifname or "")
                self._replace(before)
            await self._remover.gone(record.device)
            self._make(record, netns)
            if binding is not None:
                await binding
            await self._wait_for(id)
            if record.body == "host" and (fault := await self._diverted(record)):
                self._withdraw(id)
                await self._unbind(id)
                raise Conflict(f"port {id} would lead this host elsewhere than it goes now: {fault}")
            return self._finish(record, netns)
        except BaseException:
            if binding is not None:
                binding.cancel()
                await asyncio.gather(binding, return_exceptions=True)
            if id not in self._seen and id in self._records:
                self._withdraw(id)
            raise
        finally:
            if netns is not None:
                os.close(netns)

    async def _bind(self, id: str, known: view.Port | None) -> None:
        """Have the server say that a port is on this host; raise `Conflict` when another living host has it."""
        host = known.host if known is not None else None
        if known is None:
            host = (await self.servers.port(id)).get("binding:host_id") or None
        if host not in (None, self.host):
            if any(b["host"] == self.host for b in await self.servers.bindings(id)):
                return  # it is about to move here: the view will tell
            alive = {h["name"]: h["alive"] for h in await self.servers.hosts()}
            if alive.get(host):
                raise Conflict(f"port {id} is on host {host}; `crossway port move {id} {self.host}` moves it here")
        await self.servers.bind(id, host=self.host)

    def _make(self, record: Record, netns: int | None) -> None:
        """Make or find the link of a body, with its hook, and take it into the plan."""
        if (named := self._named.get(record.port)) is not None:
            self._unname(named)
        self._write(record)
        self._stays(record, self.plan.port(record.port))
        self._devices.setdefault(record.device, set()).add(record.port)
        if netns is not None:
            # MAC and MTU as the view says, or in a moment will say: see `_finish`.
            inside = self._inside(record) or Inside(record.ifname or "eth0", "", 0, (), ())
            self._link_came(self.links.veth(record.port, netns, inside))
        elif record.own:
            self._link_came(self.links.tap(record.port, record.device, record.queues))
        self.plan.bodies({record.port: self._body(record)})
        self._moves.listen(record.port)
        self._news.set()
        self._judge.add(record.port)
        self._apply()

    def _check(self, record: Record) -> Record:
        """Find that a link can be the body; return the record, which knows whether the link is the agent's own."""
        if record.made:
            return record
        link = self.links.find(record.device)
        if record.body == "tap" and (link is None or port_of(link) == record.port):
            record = msgspec.structs.replace(record, own=True)
        if link is None:
            if record.own:
                return record
            raise NotFound("link", record.device)
        if (of := port_of(link)) is not None and not record.own:
            raise Conflict(f"{record.device} is the body of port {of}")
        if record.holder and link.kind != "tun":
            raise Conflict(f"{record.device} is there already, and is no tap")
        if record.queues > 1 and not record.own:
            raise Conflict(f"{record.device} is there already, and its queues are as they are")
        if reason := self._unfit(record, link):
            raise Conflict(reason)
        for port in self._devices.get(record.device, ()):
            other = self._records.get(port) or self._named.get(port)
            # Untagged and tagged ports may share a device: a trunk with its native network.
            if other is not None and port != record.port and other.vlan == record.vlan:
                raise Conflict(f"{record.device} is the body of port {port}")
        try:
            if not record.vlan or self.plane.program(link.ifindex) != UPLINK:
                self.plane.hook(WORKLOAD, link.ifindex)
        except OSError as fault:
            what = "has a filter where ours is to be, of priority 1" if fault.errno == errno.EINVAL else str(fault)
            raise Conflict(f"{record.device} {what}") from fault
        return record

    def _replace(self, record: Record) -> None:
        """Remove an older body of a port that gets another one."""
        self._forget(record.port)
        self._doomed[record.port] = record
        self.plan.bodies({record.port: None})
        self._apply()

    def _withdraw(self, id: str) -> None:
        """Undo a plug that came to nothing."""
        record = self._records[id]
        self._replace(record)
        if id in self._doomed:  # nothing is applied before the first view
            del self._doomed[id]
            self._remove(record)

    async def _wait_for(self, id: str) -> None:
        """Return once a port has its rows, or can have none for a reason that is no fault."""
        try:
            async with asyncio.timeout(PLUG_SECONDS):
                while not self._has_rows(id):
                    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                    self._waiting.setdefault(id, []).append(future)
                    await future
        except TimeoutError:
            reason = self.plan.faults.get(("port", id)) or "the server has not told of it in time"
            raise Unavailable(f"port {id} has no rows: {reason}") from None

    def _has_rows(self, id: str) -> bool:
        if not self._synced:
            return False
        if fault := self.plan.faults.get(("port", id)):
            raise Invalid(f"port {id} cannot be: {fault}")
        port = self.plan.port(id)
        if port is None or self.host not in port.carriers:
            return False
        network = self.plan.network(port.network)
        if network is None:
            return False
        return self.plan.carries(id) or not port.up or not network.up

    def _inside(self, record: Record) -> Inside | None:
        """Return how a port's link looks inside a namespace, as far as the view tells."""
        port = self.plan.port(record.port)
        network = self.plan.network(port.network) if port is not None else None
        if port is None or network is None:
            return None
        if reason := self.plan.faults.get(("port", record.port)):
            raise Invalid(f"port {record.port} cannot be: {reason}")
        known = [(a.ip, subnet) for a in port.addresses if (subnet := self.plan.subnet(a.subnet)) is not None]
        if record.body == "pair":  # an engine gives a link one address of each family
            known = list({ip_address(ip).version: (ip, subnet) for ip, subnet in reversed(known)}.values())[::-1]
        is_host = record.body == "host"
        everywhere = attached.EVERYWHERE if is_host else interface_config.EVERYWHERE
        try:
            addresses = [f"{ip}/{ip_network(subnet.cidr, strict=False).prefixlen}" for ip, subnet in known]
            # Where the host itself goes is not for a network's owner to say.
            routes = interface_config.routes_of(
                known,
                everywhere=everywhere if record.default else {},
                by_gateway=record.routes,
                host_routes=not is_host,
            )
        except ValueError as fault:
            raise Invalid(f"port {record.port} cannot be: {fault}") from fault
        if routes.left_out != self._left_out.get(record.port, ()):
            self._left_out[record.port] = routes.left_out
            for sentence in routes.left_out:
                log.warning("port %s: %s", record.port, sentence)
        least = MTU6_MIN if any(ip_address(ip).version == 6 for ip, _ in known) else 0  # or IPv6 would be off
        mtu = min(max(record.mtu, least) if record.mtu else network.mtu, network.mtu)
        return Inside(record.ifname or "", port.mac, mtu, tuple(addresses), routes.given)

    async def _diverted(self, record: Record) -> str | None:
        """Return what of this host's own an interface of it would lead elsewhere."""
        inside = self._inside(record)
        far = self.links.find(record.ifname or "")
        if inside is None or far is None:
            return None
        own = {index: ips for index, ips in self.links.addresses().items() if index != far.ifindex}
        ways = [way for way in self.links.ways() if way.link != far.ifindex]
        hosts = self.plan.objects["host"].values()
        needed = {host.underlay: f"host {host.id}" for host in hosts if isinstance(host, view.Host)}
        needed |= dict.fromkeys(await self.servers.addresses(), "a server")
        return attached.diverted(inside, own, ways, needed)

    def _finish(self, record: Record, netns: int | None) -> Any:
        """Set up a link as the view says, and return what the caller is told."""
        inside = wanted = self._inside(record)
        link, mtu = self._by_name.get(record.device), self._mtu(record)
        if inside is None or wanted is None or link is None or record.port not in self._records:
            raise NotFound("link", record.device)
        if record.body != "vlan" and mtu not in (link.mtu, None):
            self.links.set(link.ifindex, mtu=mtu)
        if record.body == "pair":
            far = self.links.find(record.ifname or "")  # gone once somebody has taken it
            if far is not None and far.mtu != inside.mtu:
                self.links.set(far.ifindex, mtu=inside.mtu)
        elif netns is not None:
            inside = furnish(netns, inside, is_first=record.is_first)
            self._keep(record.port, inside, wanted)
        self.links.set(link.ifindex, up=True)
        port = self.plan.port(record.port)
        subnets = [s for a in (port.addresses if port else ()) if (s := self.plan.subnet(a.subnet)) is not None]
        everywhere = {*DEFAULT.values(), *(half for halves in attached.EVERYWHERE.values() for half in halves)}
        gateways = list(dict.fromkeys(hop for to, hop in inside.routes if to in everywhere and hop))
        return {
            "port": record.port,
            "ifname": record.ifname or record.device,
            "mac": inside.mac,
            "addresses": list(inside.addresses),
            "gateways": gateways,
            "mtu": inside.mtu,
            "routes": list(inside.routes),
            "led_by_others": [route for route in wanted.routes if route not in inside.routes],
            "resolvers": list(self.plan.asked_at),
            "dns": list(dict.fromkeys(ip for subnet in subnets for ip in subnet.dns)),
            "device": link.name,
            "device_mac": link.mac,
        }

    def _keep(self, port: str, inside: Inside, wanted: Inside) -> None:
        """Note how a link was set up inside its namespace, and how it was to be."""
        self._write(msgspec.structs.replace(self._records[port], inside=inside, wanted=wanted))

    def _write(self, record: Record) -> None:
        self._records[record.port] = record
        self._records_kept.write(record)

    def _refurnish(self, documents: Iterable[Document]) -> None:
        """Set up links inside namespaces anew whose port, subnet or network has changed."""
        kinds = {d.kind for d in documents}
        if kinds & {"subnet", "network"}:
            ports: Iterable[str] = list(self._records)
        else:
            ports = {d.id for d in documents if d.kind == "port"} & self._records.keys()
        for id in ports:
            record = self._records[id]
            try:
                inside = self._inside(record)
            except Invalid as fault:
                log.error("%s", fault)
                continue
            if record.inside is None or record.netns is None or inside is None:
                continue  # not set up yet: its plug will do that
            if record.body == "host":
                inside = attached.kept(inside, record.inside)
            if inside == (record.wanted or record.inside):
                continue
            given = inside
            try:
                netns = netns_of(record.netns)
                try:
                    given = refurnish(netns, record.inside, inside, is_first=record.is_first)
                finally:
                    os.close(netns)
                link = self._by_name.get(record.device)
                if link is not None and (mtu := self._mtu(record)) not in (link.mtu, None):
                    self.links.set(link.ifindex, mtu=mtu)
            except (Fault, OSError, ValueError) as fault:
                log.warning("cannot set up port %s inside %s as it is now: %s", id, record.netns, fault)
            self._keep(record.port, given, inside)

    async def _unplug(self, id: str) -> Any:
        record = self._records.get(id)
        if record is not None:
            self._withdraw(id)
        await asyncio.gather(self._unbind(id), self._remover.gone(record.device if record else ""))
        return {"port": id}

    async def _unbind(self, id: str) -> None:
        """Have the server say that a port is on no host, if it says that it is on this one."""
        known = self.plan.port(id)
        try:
            host = known.host if known is not None else (await self.servers.port(id)).get("binding:host_id")
            if host == self.host:
                await self.servers.bind(id, host=None)
        except NotFound:
            pass

    async def _answer_publish(self, body: bytes, _: Mapping[str, str]) -> Any:
        asked = msgspec.json.decode(body, type=_Publish)
        await self.publish(asked.port, asked.published, asked.by or f"port {asked.port}")
        return {"port": asked.port, "published": self.published.of(asked.port)}

    async def _answer_status(self, _: bytes, __: Mapping[str, str]) -> Any:
        ports = []
        for record in [*self._records.values(), *self._named.values()]:
            port = self.plan.port(record.port)
            link = self._by_name.get(record.device)
            ports.append(
                {
                    "id": record.port,
                    "device": record.device,
                    "ifindex": link.ifindex if link else None,
                    "vlan": record.vlan,
                    "network": port.network if port else None,
                    "up": self._states.get(record.port) == "up",
                    "fault": self.plan.faults.get(("port", record.port)),
                    "published": self.published.of(record.port),
                }
            )
        tables = {}
        for name in TABLES:
            rows = len(self.tables.have[name]) if name in self.tables.have else self._counts.get(name)
            tables[name] = {"rows": rows, "max": self.plane.object.table(name).size}
        return {
            "host": self.host,
            "server": self.servers.server,
            "connected": self.connected,
            "applied": self.applied,
            "ports": sorted(ports, key=lambda p: str(p["id"])),
            "programs": {"build": self.plane.object.build_id},
            "tables": tables,
        }

    async def _answer_drops(self, _: bytes, query: Mapping[str, str]) -> Any:
        rows = self.plane.object.table("drops").read()
        share = next((number for number, name in self._reasons.items() if name == "PUNT_SHARE"), 0)
        for at, record in self._desk.dropped().items():
            key = r.DropKey(at, share)
            before = rows[key].packets if key in rows else 0
            rows[key] = record._replace(packets=record.packets + before)
        ports = {body.key: id for id, body in self.plan.local_bodies().items()}
        wanted = query.get("port")
        if wanted is not None:
            rows = {key: record for key, record in rows.items() if ports.get(key.port) == wanted}
        return drops.told(
            rows,
            self._reasons,
            {key: port for key, id in ports.items() if (port := self.plan.port(id)) is not None},
            self.plan.network_ids(),
            self.plan.policy.groups(),
            time.clock_gettime_ns(time.CLOCK_MONOTONIC),
        )

    # Guests.

    def _listen(self) -> None:
        """Hear what guests ask, and which addresses they have, as the present programs put it down."""
        self._hang_up()
        self._rings = [self.plane.questions(self._desk.put), self.plane.sightings(self._learner.take)]
        for ring in self._rings:
            asyncio.get_running_loop().add_reader(ring.fileno(), ring.read)

    def _hang_up(self) -> None:
        rings, self._rings = self._rings, []
        for ring in rings:
            asyncio.get_running_loop().remove_reader(ring.fileno())
            ring.close()

    async def _advertise(self) -> None:
        """Advertise routers to guests: what has changed soon, the rest now and then."""
        with suppress(TimeoutError):
            async with asyncio.timeout(ADVERTISE_SECONDS):
                await self._news.wait()
        began = time.monotonic()
        if self._synced:
            # Who began under another resolv.conf still asks whom that named.
            if fresh := set(names.asked_at()) - set(self.plan.asked_at):
                self.plan.resolvers([*self.plan.asked_at, *sorted(fresh)])
                self._apply()
            news = self._news.is_set()
            self._news.clear()
            self._desk.advertise(news)
        # Changes in a burst are advertised together: looking at all ports takes a tenth of one CPU's time at most.
        await asyncio.sleep(max(ADVERTISE_PAUSE_SECONDS, 10 * (time.monotonic() - began)))

    # What edges and ports that move need of this host.

    def settle(self) -> None:
        """Bring the tables up to date with what was said of where ports are."""
        self._judge |= self._named.keys()
        self._apply()

    def listen(self, port: str) -> None:
        """Listen for the guest of a port, or no more, as where it is has changed."""
        self._moves.listen(port)

    def link(self, name: str) -> Link | None:
        """Return a link of this host."""
        return self._by_name.get(name)

    def toward(self, address: str) -> Link | None:
        """Return the link by which an address is reached."""
        return self.links.toward(address)

    def leading(self, address: str) -> set[int]:
        """Return the links by which an address is reached."""
        return self.links.leading(address)

    def device_of(self, port: str) -> str | None:
        """Return the device by which a bare-metal server is reached."""
        record = self._named.get(port)
        return record.device if record is not None else None

    def claim(self, port: str) -> None:
        """Have all hosts know at once that a port is here, and the server."""
        self._edges.take(port)

    def bring(self, port: str) -> None:
        """Have the server say that a port is here that was taken."""
        self._moves.bring(port)

    def probe(self, port: str, address: bytes) -> None:
        """Ask a port of this host whether it has an address."""
        self._desk.probe(port, address)

    def seek(self, hosts: list[str], network: str, address: str) -> None:
        """Have other hosts ask their ports for an address."""
        self._edges.seek(hosts, network, address)

    def sought(self, host: str, network: str, address: str) -> None:
        """Ask those ports of this host for an address that another looks for."""
        self._learner.sought(host, network, address)

    def hand_in(self, port: str, flows: bytes) -> None:
        """Put connections of a port where the programs look."""
        known, body = self.plan.port(port), self.plan.local_bodies().get(port)
        if known is None or body is None:
            return
        now, older = time.clock_gettime_ns(time.CLOCK_MONOTONIC), self.tables.older(known.identity)
        try:
            self.tables.hand_in(handover.read(flows, body.key, known.identity, older, now))
        except ValueError as fault:
            log.error("port %s: %s", port, fault)

    async def flows(self, ports: Mapping[str, r.PortKey]) -> dict[str, dict[r.FlowKey, r.Flow]]:
        """Return the connections of some ports."""
        found = await asyncio.to_thread(_flows_of, self._flows(), set(ports.values()))
        return {id: found[key] for id, key in ports.items()}

    # Flows.

    def _flows(self) -> Halves:
        return Halves(*map(self.plane.object.table, HALVES[r.ShareOf.FLOWS]))

    async def _sweep(self) -> None:
        """Now and then delete what has expired and what gone ports have left."""
        await asyncio.sleep(SWEEP_SECONDS)
        if self._complete and not self._synced:
            self._apply()
        if self._synced:
            plane = self.plane.object
            await self._sweep_once(sweep.Idle.of(plane.configured()), sweep.Shape.of(plane.btf))

    async def _sweep_once(self, idle: sweep.Idle, shape: sweep.Shape) -> None:
        shares, table = self.tables.shares, self.plane.object.table
        flows, translations = self._flows(), Halves(*map(table, HALVES[r.ShareOf.TRANSLATIONS]))
        dropped = table("drops")
        charged = shares.charged()
        await asyncio.sleep(SETTLE_SECONDS)
        raw = await asyncio.to_thread(flows.read_raw)
        # After reading: a port that came in between must not lose its flows.
        live = {
            (key.ifindex, key.vlan): bool(row.flags & r.PortFlag.SECURED)
            for key, row in self.tables.have["ports"].items()
        }
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        # A port that stands by keeps its flows, should it be served here again.
        kept = live.keys() | {(body.key.ifindex, body.key.vlan) for body in self.plan.local_bodies().values()}
        swept = await asyncio.to_thread(sweep.over, raw, shape, idle, kept, now)
        for half, gone in zip(flows, swept.gone, strict=True):
            for start in range(0, len(gone), 1024):
                await asyncio.to_thread(_delete, half, gone[start : start + 1024])
        await asyncio.to_thread(self.plane.object.run, "expire", bytes(64))  # fragments
        clients = await asyncio.to_thread(_clients, translations, flows, swept.left, live, idle, now)
        for half, over in zip(translations, clients.gone, strict=True):
            half.delete(over)
        ports = self.tables.have["ports"]
        here = ports.keys() | {body.key for body in self.plan.local_bodies().values()}
        shares.resize(here, self.tables.have["networks"].keys())
        shares.settle(r.ShareOf.FLOWS, charged, swept.counted, here, len(here))
        published = sum(bool(port.flags & r.PortFlag.PUBLISHED) for port in ports.values())
        shares.settle(r.ShareOf.TRANSLATIONS, charged, clients.counted, here, published)
        await asyncio.to_thread(_demote, flows, raw.assured, swept, shape, shares.sizes[r.ShareOf.FLOWS])
        counted = dropped.read()
        strange = [key for key in counted if key.port.ifindex and (key.port.ifindex, key.port.vlan) not in live]
        # A packet that was on its way when its port went may still be counted: look again next time.
        dropped.delete(strange)
        self._counts = {
            "flows_assured": len(raw.assured) - len(swept.gone.assured),
            "flows": len(raw.borrowed) - len(swept.gone.borrowed),
            "translations_assured": clients.left.assured,
            "translations": clients.left.borrowed,
            "drops": len(counted) - len(strange),
        }


def _same_place(one: Record, other: Record) -> bool:
    """Return whether two bodies are the same device and tag."""
    return (one.device, one.vlan) == (other.device, other.vlan)


class _Unplug(msgspec.Struct):
    port: str


class _Publish(msgspec.Struct):
    port: str
    published: tuple[Wished, ...]
    by: str = ""


class Halves(NamedTuple):
    """A table of rows that are within their ports' shares, and the one of those that are borrowed."""

    assured: Table
    borrowed: Table

    def read_raw(self) -> sweep.Halved[sweep.Raw]:
        """Return all rows as packed bytes."""
        return sweep.Halved(self.assured.read_raw(), self.borrowed.read_raw())


def _flows_of(flows: Halves, ports: set[r.PortKey]) -> dict[r.PortKey, dict[r.FlowKey, r.Flow]]:
    """Return the connections of some ports."""
    found: dict[r.PortKey, dict[r.FlowKey, r.Flow]] = {port: {} for port in ports}
    heads = {struct.pack("=IH", port.ifindex, port.vlan) for port in ports}
    for table in (flows.borrowed, flows.assured):  # what was borrowed a moment ago may be in both
        for raw_key, raw in table.read_raw():
            if raw_key[:6] in heads:
                key = table.key.unpack(raw_key)
                found[key.port][key] = table.value.unpack(raw)
    return found


class _Clients(NamedTuple):
    gone: sweep.Halved[list[r.FlowKey]]
    left: sweep.Halved[int]
    counted: Mapping[r.PortKey, int]  # those within shares


def _clients(
    translations: Halves,
    flows: Halves,
    left: Set[bytes],
    live: Mapping[tuple[int, int], bool],
    idle: sweep.Idle,
    now: int,
) -> _Clients:
    """Find the clients of published ports that are over; *left*: the flows that there are."""
    found = [half.read() for half in translations]
    pack = flows.assured.key.pack
    gone = sweep.Halved(*(sweep.clients_gone(half, pack, left, live, idle, now) for half in found))
    # As with flows: what is in both has come into its port's share.
    gone.borrowed.extend((found[0].keys() & found[1].keys()) - set(gone.borrowed))
    lengths = sweep.Halved(*(len(half) - len(over) for half, over in zip(found, gone, strict=True)))
    return _Clients(gone, lengths, Counter(key.port for key in found[0].keys() - set(gone.assured)))


def _demote(flows: Halves, rows: sweep.Raw, swept: sweep.Swept, shape: sweep.Shape, each: int) -> None:
    """Make those flows borrowed that are more than their ports' shares, as when these have shrunk."""
    gone = set(swept.gone.assured)
    for key in beyond(swept.counted, each, (shape.told(*row) for row in rows if row[0] not in gone)):
        if (row := flows.assured.get_raw(key)) is not None:
            flows.borrowed.put_raw(key, row)
            flows.assured.delete_raw(key)


def _delete(table: Table, keys: list[bytes]) -> None:
    for key in keys:
        table.delete_raw(key)
