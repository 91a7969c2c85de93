"""The server's copy of the store: every object, and the indexes that answer questions quickly.

Only the watch changes it, one transaction after the other; whoever reads
between two awaits sees one revision.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar
from weakref import WeakValueDictionary

import msgspec

from crossway.control.address import Addresses
from crossway.control.usage import NAMES, Usage
from crossway.model.group import Group
from crossway.model.host import Handover, Host, Identity, Learned
from crossway.model.kinds import KINDS
from crossway.model.link import Link
from crossway.model.network import Network
from crossway.model.port import Port
from crossway.model.rbac import RbacPolicy
from crossway.model.resource import Index, Resource
from crossway.model.router import Router
from crossway.model.rule import Rule
from crossway.model.subnet import Subnet
from crossway.portions import Portions
from crossway.store import Change, Compacted, Entry, Event, Store

T = TypeVar("T", bound=msgspec.Struct)
R = TypeVar("R", bound=Resource)
IDENTITIES_MAX = 4096
# What begins the value of a claim of a number that rests.
RESTING = b"resting "
# So many ids are put in their places one by one; more are sorted and put among the others at once.
MOVED = 500
# Events of a transaction that are taken in at once.
EVENTS = 500


class Bucket:
    """A set of ids that can also be walked in order; the order costs only who asks for it."""

    __slots__ = ("_moved", "_sorted", "ids")

    def __init__(self, *ids: str) -> None:
        self.ids: dict[str, None] = dict.fromkeys(ids)
        self._sorted: list[str] | None = None
        # What came or went since the ids were put in order.
        self._moved: list[str] = []

    def add(self, id: str) -> None:
        if id not in self.ids:
            self.ids[id] = None
            self._move(id)

    def remove(self, id: str) -> None:
        if id in self.ids:
            del self.ids[id]
            self._move(id)

    def in_order(self) -> list[str]:
        if self._sorted is None:
            self._sorted = sorted(self.ids)
        elif len(self._moved) > MOVED:
            # What was in order and what came, each in order, are put together in one pass.
            came = dict.fromkeys(id for id in self._moved if id in self.ids)
            stays = [id for id in self._sorted if id in self.ids and id not in came]
            self._sorted = sorted(stays + sorted(came))
            self._moved = []
        for id in self._moved:
            at = bisect_left(self._sorted, id)
            there = at < len(self._sorted) and self._sorted[at] == id
            if there and id not in self.ids:
                del self._sorted[at]
            elif not there and id in self.ids:
                self._sorted.insert(at, id)
        self._moved = []
        return self._sorted

    def _move(self, id: str) -> None:
        if self._sorted is not None:
            self._moved.append(id)
            if len(self._moved) > len(self.ids):
                self._sorted, self._moved = None, []

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)


EMPTY = Bucket()


class Table(Generic[T]):
    """The objects of one kind by id, with indexes by what they refer to."""

    def __init__(self, name: str, model: type[T], indexes: Mapping[str, Index]) -> None:
        self.name, self.model = name, model
        self.rows: dict[str, T] = {}
        self.modified: dict[str, int] = {}
        self.all = Bucket()
        # Under a value that one object alone has stands its id: most MACs and devices are such.
        self.indexes: dict[str, dict[Any, Bucket | str]] = {index: {} for index in indexes}
        self._of = dict(indexes)
        self._decoder = msgspec.json.Decoder(model)

    def put(self, id: str, value: bytes, revision: int) -> tuple[T | None, T]:
        """Take an object in; return what stood there and what stands there now."""
        old, new = self.rows.get(id), self._decoder.decode(value)
        self.rows[id] = new
        self.modified[id] = revision
        if old is None:
            self.all.add(id)
        for name, of in self._of.items():
            before = () if old is None else tuple(of(old))
            after = tuple(of(new))
            if before != after:
                self._index(name, id, before, after)
        return old, new

    def delete(self, id: str) -> T | None:
        old = self.rows.pop(id, None)
        if old is not None:
            del self.modified[id]
            self.all.remove(id)
            for name, of in self._of.items():
                self._index(name, id, tuple(of(old)), ())
        return old

    def get(self, id: str) -> T | None:
        return self.rows.get(id)

    def by(self, index: str, value: Any) -> list[T]:
        """Return the objects that *index* finds under *value*."""
        found = self.indexes[index].get(value, EMPTY)
        return [self.rows[found]] if isinstance(found, str) else [self.rows[id] for id in found]

    def values(self, index: str, row: T) -> tuple[Any, ...]:
        """Return the values under which *index* finds a row."""
        return tuple(self._of[index](row))

    def has(self, index: str) -> bool:
        """Say whether there is an index."""
        return index in self.indexes

    def ids(self, index: str, value: Any) -> Bucket:
        found = self.indexes[index].get(value, EMPTY)
        return Bucket(found) if isinstance(found, str) else found

    def __len__(self) -> int:
        return len(self.rows)

    def _index(self, name: str, id: str, before: tuple[Any, ...], after: tuple[Any, ...]) -> None:
        buckets = self.indexes[name]
        for value in before:
            if value not in after:
                bucket = buckets[value]
                if not isinstance(bucket, str):
                    bucket.remove(id)
                if isinstance(bucket, str) or not bucket:
                    del buckets[value]
        for value in after:
            found = buckets.setdefault(value, id)
            if isinstance(found, str):
                if found != id:
                    buckets[value] = Bucket(found, id)
            else:
                found.add(id)


# An object before and after; None where it was not or is no more.
Step = tuple[str, str, Any, Any]


class Cloud:
    """All tables at one revision, and who wants to hear of changes. *limits* are the quotas by default."""

    def __init__(self, store: Store, limits: Mapping[str, int] | None = None) -> None:
        self.store = store
        self.revision = 0
        self.tables: dict[str, Table[Any]] = {kind.table: Table(kind.table, kind.model, kind.indexes) for kind in KINDS}
        self.networks = self.of(Network)
        self.subnets = self.of(Subnet)
        self.ports = self.of(Port)
        self.routers = self.of(Router)
        self.groups = self.of(Group)
        self.rules = self.of(Rule)
        self.rbac = self.of(RbacPolicy)
        self.hosts = Table("host", Host, {"underlay": lambda host: (host.underlay,)})
        sets: dict[str, Index] = {
            "groups": lambda i: (i.groups,),
            "group": lambda i: i.groups,
            "project": lambda i: (i.project,),
        }
        self.identities = Table("identity", Identity, sets)
        self.handovers = Table("handover", Handover, {"port": lambda told: (told.port,)})
        seen: dict[str, Index] = {"port": lambda seen: (seen.port,), "network": lambda seen: (seen.network,)}
        self.learned = Table("learned", Learned, seen)
        self.tables |= {table.name: table for table in (self.hosts, self.identities, self.handovers, self.learned)}
        self.usage = Usage(self.tables, limits or {})
        # How many identities one project may have, with those that rest.
        self.identities_max = IDENTITIES_MAX
        # By project, how many are being made by decisions under way.
        self.identities_made: Counter[str] = Counter()
        # Ids of what a transaction makes that is taken in at present, in portions.
        self.coming: set[str] | None = None
        self.policy_rows = self.usage.policy_rows
        self.addresses = Addresses()
        self.defaults: dict[str, str] = {}
        self.counters: dict[str, int] = {}
        # Small claims that are nothing but themselves: numbers of networks and routers, segments.
        self.claims: dict[str, str] = {}
        # Those of numbers that nobody has any more but hosts may still hold rows of: since which revision, and whose
        # they were; by project, how many. A number is given to nobody else until every host has applied that.
        self.resting: dict[str, tuple[int, str]] = {}
        self.resting_of: Counter[str] = Counter()
        # Keys that transactions under way are about to create; who allocates steps aside.
        self.pending: set[str] = set()
        # Whether a host has reported of late, and when it last did: whoever takes reports says so.
        self.alive: Callable[[str], bool] = lambda host: False
        self.heard_at: Mapping[str, str] = {}
        # Registered hosts that have not applied a revision.
        self.behind: Callable[[int], list[str]] = lambda revision: list(self.hosts.rows)
        # The hosts for which operators keep an underlay address.
        self.kept_for: Callable[[str], frozenset[str]] = lambda address: frozenset()
        # Where switches' ports lead, as the operator's table has it.
        self.switch_ports: Callable[[], Mapping[tuple[str, str], Link]] = dict
        # Has a host begin to carry a port that is about to move there: whoever speaks to hosts says so.
        self.take: Callable[[str, str], Awaitable[None]] = _nobody
        # Whose turn it is to decide, by what those who wait are in each other's way about.
        self.turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self.listeners: list[Callable[[int, list[Step]], None]] = []
        self._moved = asyncio.Event()
        self._watch: asyncio.Task[None] | None = None

    def of(self, model: type[R]) -> Table[R]:
        """Return the table of a resource's class."""
        return self.tables[model.kind.table]

    async def start(self) -> None:
        """Read everything, then follow the store."""
        await self._load()
        self._watch = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        if self._watch:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)

    async def reached(self, revision: int) -> None:
        """Wait until the copy stands at *revision* or later."""
        while self.revision < revision:
            await self._moved.wait()

    async def apply(self, change: Change) -> None:
        """Take one transaction in and tell the listeners; a large one in portions.

        What a large one makes is in nobody's lists until all of it is there, and the revision is the
        older one until then: who decides meanwhile relies on too little rather than on too much.
        """
        events, portions = change.events, Portions()
        for first in range(0, len(events), EVENTS):
            some = events[first : first + EVENTS]
            if first:
                if portions.due:
                    await portions.turn()
            elif len(events) > EVENTS:
                self.coming = set()
            steps = [step for event in some for step in self._step(event, change.revision)]
            if first + EVENTS >= len(events):
                self.revision, self.coming = change.revision, None
            elif self.coming is not None:
                self.coming.update(id for _, id, old, _ in steps if old is None)
            for listener in self.listeners:
                listener(change.revision, steps)
        self.revision = change.revision

    async def _load(self) -> None:
        revision, entries = await self.store.read("")
        for entry in sorted(entries, key=_network_first):
            for _ in self._step(Event(entry.key, entry.value), entry.modified):
                pass
        for table in self.tables.values():
            # Now, and not for the first who asks for a page.
            table.all.in_order()
        self.revision = revision

    async def _follow(self) -> None:
        try:
            async for changes in self.store.watch(self.revision):
                portions = Portions()
                for change in changes:
                    await self.apply(change)
                    if portions.due:
                        self._tell_moved()
                        await portions.turn()
                self._tell_moved()
        except Compacted as error:
            raise RuntimeError(f"the copy fell behind the store's history: {error}") from error

    def _tell_moved(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    def _step(self, event: Event, revision: int) -> Iterator[Step]:
        kind, _, id = event.key.partition("/")
        table = self.tables.get(kind)
        if table is None:
            self._note(kind, id, event, revision)
            return
        if event.value is None:
            old, new = table.delete(id), None
        else:
            old, new = table.put(id, event.value, revision)
            if old is None and kind in NAMES:
                self.usage.settle(kind, new.project_id, id)
        if old is None and new is None:
            return
        self.policy_rows.step(kind, old, new)
        if table is self.ports:
            self.addresses.moved(old, new)
        elif table is self.subnets:
            self.addresses.changed(old, new, self.ports.by("subnet_id", id))
        yield kind, id, old, new

    def _note(self, kind: str, id: str, event: Event, revision: int) -> None:
        if kind == "default":
            if event.value is None:
                self.defaults.pop(id, None)
            else:
                self.defaults[id] = event.value.decode()
        elif kind == "counter" and event.value is not None:
            self.counters[id] = int(event.value)
        elif kind == "claim":
            self._note_rest(id, event, revision)
            if event.value is None:
                self.claims.pop(id, None)
            else:
                self.claims[id] = event.value.decode()

    def _note_rest(self, id: str, event: Event, revision: int) -> None:
        if (before := self.resting.pop(id, None)) is not None:
            self.resting_of[before[1]] -= 1
            if not self.resting_of[before[1]]:
                del self.resting_of[before[1]]
        if event.value is not None and event.value.startswith(RESTING):
            project = event.value.removeprefix(RESTING).decode()
            self.resting[id] = revision, project
            self.resting_of[project] += 1


async def _nobody(host: str, port: str) -> None:
    """Have no host do anything."""


def _network_first(entry: Entry) -> int:
    """Order what is loaded so that a thing comes after what it refers to."""
    kind = entry.key.partition("/")[0]
    return {"network": 0, "subnet": 1, "group": 2, "identity": 3, "router": 4}.get(kind, 5)
