"""Which hosts live, what they have applied, and which ports are therefore ACTIVE.

What hosts report stays in memory: a restarted server asks for all of it again.
Only a port's status is written back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from crossway.control import identity
from crossway.control.cloud import Cloud, Step
from crossway.control.decision import Decision, decide
from crossway.control.interest import Interest
from crossway.control.port import places
from crossway.control.vif import bind
from crossway.errors import Fault, NotFound
from crossway.model.link import BAREMETAL
from crossway.model.port import ACTIVE, DOWN, TAP, Port
from crossway.model.resource import changed, now

LOG = logging.getLogger(__name__)
ALIVE_SECONDS = 15.0
# A host that has not applied what was so long ago, and has not for as long, is away: others wait for it no longer.
STILL_SECONDS = 180.0
MARK_SECONDS = 1.0
AGAIN_SECONDS = 1.0
TOGETHER = 500


class Status:
    def __init__(self, cloud: Cloud, interest: Interest, clock: Callable[[], float] = time.monotonic) -> None:
        self.cloud, self.interest, self.clock = cloud, interest, clock
        # Hosts that have come since ports that no host could carry were last looked at.
        self._come: set[str] = set()
        # Living hosts by when they last reported, oldest first. At first all are held to live, or a
        # port could be ACTIVE before they had a chance to say what they have not applied.
        self.seen: dict[str, float] = dict.fromkeys(cloud.hosts.rows, clock())
        self.seen_at: dict[str, str] = {}
        self.applied: dict[str, int] = {}
        # Ports that each host has reported up; a host is a key once it has reported.
        self.up: dict[str, set[str]] = {}
        # The revision that hosts must have applied, of each bound port that is not ACTIVE.
        self.since = {
            id: cloud.ports.modified[id]
            for id, port in cloud.ports.rows.items()
            if port.present and port.status != ACTIVE
        }
        # At which revision the cloud stood, by when; and since when hosts are so far behind.
        self._marks: deque[tuple[float, int]] = deque()
        self._late: dict[str, float] = {}
        self._spoke: dict[str, float] = {}
        self._waiting: dict[str, set[str]] = {}
        self._blocks: dict[str, dict[str, int]] = {}
        self._wanted: dict[str, str] = {}
        # Identities that no port has, by the revision since which hosts may have heard of it.
        self._unused = {id: cloud.revision for id in cloud.identities.rows if not cloud.ports.ids("identity", int(id))}
        # Bare-metal servers' ports that an older version has bound as if they were a guest's.
        self._unfit = [id for id, port in cloud.ports.rows.items() if _is_unfit(port)]
        self._woken = asyncio.Event()
        self._woken.set()
        cloud.alive, cloud.heard_at, cloud.behind = self.alive, self.seen_at, self.behind
        cloud.listeners.append(self._change)

    def report(self, host: str, applied: int, ports: Mapping[str, bool], whole: bool = False) -> bool:
        """Take a host's report; return whether it should name all its ports in the next one.

        *whole*: what is not named is down.
        """
        if host not in self.cloud.hosts.rows:
            raise NotFound("host", host)
        # A revision of the future is one of another past: the store was put back to an older state.
        applied = applied if applied <= self.cloud.revision else 0
        if applied >= self._long_ago():
            self._late.pop(host, None)
        elif host not in self._late:
            self._late[host] = self.clock()
        revived = self.heard(host)
        unknown = host not in self.up
        up = self.up.setdefault(host, set())
        self.applied[host] = applied
        for id in [id for id, since in self._blocks.get(host, {}).items() if since <= applied]:
            self._unblock(host, id)
        if revived:
            for id in up & self.since.keys():
                self._judge(id)
        for id in [id for id, there in ports.items() if there]:
            # What is no port, or none of its own, is not kept.
            if (port := self.cloud.ports.get(id)) is not None and host in port.carriers:
                up.add(id)
                self._judge(id)
        down = [id for id, there in ports.items() if not there]
        if whole:
            down += [id for id in up if id not in ports]
            down += [id for id in self.cloud.ports.ids("host", host) if id not in ports]
        for id in down:
            up.discard(id)
            port = self.cloud.ports.get(id)
            if port and port.at == host and port.present:
                self._forget(id)
                if port.status == ACTIVE:
                    self._want(id, DOWN)
        return unknown and not whole

    def heard(self, host: str) -> bool:
        """Note that a host has spoken; return whether it lives and did not before. One that stands still does not."""
        self.seen_at[host] = now()
        clock = self.clock()
        if clock - self._spoke.get(host, clock) > STILL_SECONDS:
            # It was away for as long as it may stand still: it begins anew.
            self._late.pop(host, None)
        self._spoke[host] = clock
        if self._stands_still(host):
            return False
        revived = self.seen.pop(host, None) is None
        self.seen[host] = self.clock()
        if revived:
            self._came(host)
        return revived

    def _came(self, host: str) -> None:
        """Have ports be bound that a host which is there now can carry."""
        if self.cloud.ports.ids("failed", True):
            self._come.add(host)
            self._woken.set()

    def behind(self, revision: int) -> list[str]:
        """Return the registered hosts that have not applied a revision, as far as is known."""
        return [host for host in self.cloud.hosts.rows if self.applied.get(host, 0) < revision]

    def alive(self, host: str) -> bool:
        return host in self.seen

    def tick(self) -> None:
        """Note which hosts have not reported for too long, or stand still."""
        if not self._marks or self.clock() - self._marks[-1][0] >= MARK_SECONDS:
            self._marks.append((self.clock(), self.cloud.revision))
            self._long_ago()
        if self._unused or self.cloud.resting:
            self._woken.set()
        late = self.clock() - ALIVE_SECONDS
        while self.seen:
            host, seen = next(iter(self.seen.items()))
            if seen > late:
                break
            self._leave(host)
        for host in [host for host in self._late if host in self.seen and self._stands_still(host)]:
            LOG.warning(
                "host %s is away: it reports, but has applied nothing after revision %d for %d s",
                host,
                self.applied.get(host, 0),
                2 * STILL_SECONDS,
            )
            self._leave(host)

    def _leave(self, host: str) -> None:
        """Wait no longer for a host."""
        del self.seen[host]
        for id in list(self._blocks.get(host, ())):
            if self.cloud.ports.rows[id].at == host:
                # Others are not waited for; the port's own host must say so itself when it is back.
                self._forget(id)
            else:
                self._unblock(host, id)

    def _stands_still(self, host: str) -> bool:
        return self._late.get(host, self.clock()) < self.clock() - STILL_SECONDS

    def _long_ago(self) -> int:
        """Return the revision that a host should have applied by now, whatever kept it."""
        then = self.clock() - STILL_SECONDS
        while len(self._marks) > 1 and self._marks[1][0] <= then:
            self._marks.popleft()
        return self._marks[0][1] if self._marks and self._marks[0][0] <= then else 0

    async def run(self) -> None:
        """Write statuses back as they come about, and free identities that no port has."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            unfit, self._unfit = self._unfit, []
            await self._bind_some(unfit)
            while self._come:
                await self._bind_again(self._come.pop())
            while self._wanted:
                some = dict(self._wanted.popitem() for _ in range(min(len(self._wanted), TOGETHER)))
                await self._persist(partial(self._write, some=some))
            if self._unused or self.cloud.resting:
                # What all have applied: each host may hold rows of what is given up later.
                floor = min((self.applied.get(host, 0) for host in self.cloud.hosts.rows), default=self.cloud.revision)
                for id in [id for id, since in self._unused.items() if since <= floor]:
                    self._unused.pop(id, None)
                    await self._persist(partial(self._free, id=id))
                rested = [key for key, (since, _) in self.cloud.resting.items() if since <= floor]
                for n in range(0, len(rested), TOGETHER):
                    await self._persist(partial(self._release, keys=rested[n : n + TOGETHER]))

    async def _bind_again(self, host: str) -> None:
        """Bind ports that failed: those that are to be on a host that has come, and those of its edge."""
        ports = self.cloud.ports
        await self._bind_some(
            [id for id in ports.ids("failed", True) if (p := ports.get(id)) and (p.host == host or p.link)]
        )

    async def _bind_some(self, ids: Sequence[str]) -> None:
        for n in range(0, len(ids), TOGETHER):
            await self._persist(partial(self._bind, ids=ids[n : n + TOGETHER]))

    def _bind(self, decision: Decision, ids: Iterable[str]) -> None:
        for id in ids:
            port = decision.get(self.cloud.ports, id)
            network = self.cloud.networks.get(port.network_id) if port is not None else None
            if port is None or network is None or not (port.failed or _is_unfit(port)):
                continue
            bound = bind(self.cloud, network, port.host, port.vnic_type, port.profile, port.edge)
            if (new := changed(port, bound)) is not port:
                decision.put(self.cloud.ports, new)

    async def _persist(self, verb: Callable[[Decision], None]) -> None:
        """Have it written, however long the store needs to get well again."""
        while True:
            try:
                return await decide(self.cloud, verb)
            except Fault as fault:
                LOG.warning("status is not written yet: %s", fault)
                await asyncio.sleep(AGAIN_SECONDS)

    def _change(self, revision: int, steps: list[Step]) -> None:
        for kind, id, old, new in steps:
            if kind == "host":
                if new is None:
                    for gone in (self.seen, self.seen_at, self.applied, self.up, self._late):
                        gone.pop(id, None)
                elif old is None:
                    self.seen[id] = self.clock()
                    self._came(id)
                elif old.physnets != new.physnets:
                    self._came(id)
            elif kind == "port":
                self._port(revision, old, new)
                if old and old.identity and (new is None or new.identity != old.identity):
                    self._note_unused(old, revision)

    def _port(self, revision: int, old: Port | None, new: Port | None) -> None:
        if old and (new is None or new.at != old.at):
            self.since.pop(old.id, None)
            self._forget(old.id)
            if old.at in self.up:
                self.up[old.at].discard(old.id)
        if old:
            for host in self.up.keys() & set(old.carriers) - set(new.carriers if new else ()):
                self.up[host].discard(old.id)
        if new is None or not new.present:
            return
        if new.status == ACTIVE:
            self.since.pop(new.id, None)
            self._forget(new.id)
        elif old is None or places(old) != places(new):
            self.since[new.id] = revision
            self._judge(new.id)
        elif new.id not in self.since:
            # Its body went; what hosts know of it they have applied, or it would not have been ACTIVE.
            self.since[new.id] = 0
            self._judge(new.id)

    def _judge(self, id: str) -> None:
        """Find whom a port that its host has reported up still waits for."""
        port = self.cloud.ports.get(id)
        self._forget(id)
        if port is None or not port.present or port.status == ACTIVE:
            return
        if port.at not in self.seen or id not in self.up.get(port.at, ()):
            return
        since = self.since[id]
        behind = {
            host
            for host in self.interest.audience(port.network_id)
            if host in self.seen and self.applied.get(host, 0) < since
        }
        if not behind:
            self._want(id, ACTIVE)
            return
        self._waiting[id] = behind
        for host in behind:
            self._blocks.setdefault(host, {})[id] = since

    def _unblock(self, host: str, id: str) -> None:
        del self._blocks[host][id]
        if not self._blocks[host]:
            del self._blocks[host]
        self._waiting[id].discard(host)
        if not self._waiting[id]:
            del self._waiting[id]
            self._want(id, ACTIVE)

    def _forget(self, id: str) -> None:
        self._wanted.pop(id, None)
        for host in self._waiting.pop(id, ()):
            del self._blocks[host][id]
            if not self._blocks[host]:
                del self._blocks[host]

    def _want(self, id: str, status: str) -> None:
        self._wanted[id] = status
        self._woken.set()

    def _note_unused(self, old: Port, revision: int) -> None:
        self._unused.update(dict.fromkeys(identity.unused(self.cloud, [old]), revision))
        if self._unused and not self.cloud.hosts.rows:
            self._woken.set()

    def _write(self, decision: Decision, some: Mapping[str, str]) -> None:
        for id, status in some.items():
            port = decision.get(self.cloud.ports, id)
            if port is None or port.status == status:
                continue
            # Decided anew each time: the port may have moved, or been reported down, since.
            up = port.present and id in self.up.get(port.at, ())
            if up == (status == ACTIVE) and id not in self._waiting:
                decision.put(self.cloud.ports, changed(port, {"status": status}))

    def _free(self, decision: Decision, id: str) -> None:
        unused = decision.read(self.cloud.identities, id)
        if unused and not self.cloud.ports.ids("identity", int(id)):
            identity.free(decision, unused, rests=False)

    def _release(self, decision: Decision, keys: Iterable[str]) -> None:
        for key in keys:
            if key in self.cloud.resting:
                decision.transaction.same[f"claim/{key}"] = self.cloud.resting[key][0]
                decision.release(f"claim/{key}")


def _is_unfit(port: Port) -> bool:
    return port.vnic_type == BAREMETAL and port.vif_type == TAP


def hosts(cloud: Cloud, status: Status) -> list[dict[str, Any]]:
    """Return what is known of each host."""
    return [
        {
            "name": host.id,
            "underlay": host.underlay,
            "physnets": host.physnets,
            "version": host.version,
            "alive": status.alive(host.id),
            "applied": status.applied.get(host.id),
            "seen_at": status.seen_at.get(host.id),
        }
        for host in cloud.hosts.rows.values()
    ]
