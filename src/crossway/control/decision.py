"""A decision: what was read of the cloud, and what is to be done on the strength of it.

A verb is a plain function of a decision. It may be run again: if something that
it relied on has changed by the time the store would commit, nothing has
happened, and the verb decides anew on the newer state.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, TypeVar

import msgspec

from crossway.control.address import Space
from crossway.control.cloud import RESTING, Cloud, Table
from crossway.control.usage import NAMES
from crossway.errors import Conflict
from crossway.store import Stale, Transaction

T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)
ENCODER = msgspec.json.Encoder()
TRIES = 200
# Of a decision in portions, each of which may take seconds.
LONG_TRIES = 8
NUMBERS_TRIED = 1 << 20
# So many objects are looked through faster than indexed.
FEW = 16
NOTHING: Mapping[str, Any] = {}


class Decision:
    """What one verb reads and wants done."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.transaction = Transaction()
        # Objects that this decision makes or changes, by table and id: bulk verbs see what they did.
        self._made: dict[str, dict[str, Any]] = {}
        # How these are found where there are many; by table and index, then by value.
        self._indexes: dict[str, dict[str, dict[Any, dict[str, None]]]] = {}
        self._lent: list[tuple[Space, str]] = []
        self._claimed: dict[str, None] = {}
        # What counts as used of a quota: table, project, id.
        self._counted: list[tuple[str, str, str]] = []
        self._rows: Counter[str] = Counter()  # of policy, by project, that are reserved
        # Identities that it makes, by project.
        self.identities: Counter[str] = Counter()

    def get(self, table: Table[S], id: str) -> S | None:
        """Look at an object without relying on it."""
        if self.makes(table, id):
            found: S = self._made[table.name][id]
            return found
        return None if f"{table.name}/{id}" in self.transaction.deletes else table.rows.get(id)

    def rely(self, table: Table[S], id: str) -> S | None:
        """Look at an object and rely on its being there when this is done."""
        found = self.get(table, id)
        if found is not None and not self.makes(table, id):
            self.transaction.exists.add(f"{table.name}/{id}")
        return found

    def read(self, table: Table[S], id: str) -> S | None:
        """Look at an object and rely on its not having changed when this is done."""
        found = self.get(table, id)
        if found is not None and not self.makes(table, id):
            self._same(table, id)
        return found

    def _same(self, table: Table[Any], id: str) -> None:
        # The first that was seen counts: in portions, what comes later may be of a later revision.
        self.transaction.same.setdefault(f"{table.name}/{id}", table.modified[id])

    def by(self, table: Table[S], index: str, value: Any) -> list[S]:
        """Return the objects that *index* finds under *value*, as this decision leaves them."""
        found = table.by(index, value)
        if self._made or self.transaction.deletes:
            found = [row for row in found if not self._changes(table, row.id)]  # type: ignore[attr-defined]
        return found + self._made_by(table, index, value)

    def _made_by(self, table: Table[S], index: str, value: Any) -> list[S]:
        made = self._made.get(table.name, NOTHING)
        if len(made) <= FEW:
            return [one for one in made.values() if value in table.values(index, one)]
        indexes = self._indexes.setdefault(table.name, {})
        if index not in indexes:
            indexes[index] = {}
            for id, one in made.items():
                for its in table.values(index, one):
                    indexes[index].setdefault(its, {})[id] = None
        return [made[id] for id in indexes[index].get(value, ())]

    def made_in(self, table: Table[S]) -> Collection[S]:
        """Return the objects of a table that this decision makes or changes."""
        return self._made.get(table.name, NOTHING).values()

    def makes(self, table: Table[S], id: str) -> bool:
        """Say whether this decision makes or changes an object."""
        return id in self._made.get(table.name, NOTHING)

    def _changes(self, table: Table[S], id: str) -> bool:
        return self.makes(table, id) or f"{table.name}/{id}" in self.transaction.deletes

    def create(self, table: Table[S], new: S, limited: bool = True) -> None:
        """Make an object; raise OverQuota if its project has as many as it may, unless it is not *limited*."""
        id: str = new.id  # type: ignore[attr-defined]
        key = f"{table.name}/{id}"
        if table.name in NAMES:
            project: str = new.project_id  # type: ignore[attr-defined]
            self.cloud.usage.take(table.name, project, id, limited)
            self._counted.append((table.name, project, id))
        self._make(table, id, new)
        self.transaction.same[key] = 0
        self.transaction.puts[key] = ENCODER.encode(new)

    def put(self, table: Table[S], new: S) -> None:
        """Change an object that was read."""
        id = new.id  # type: ignore[attr-defined]
        key = f"{table.name}/{id}"
        if not self.makes(table, id):
            self._same(table, id)
        self._make(table, id, new)
        self.transaction.puts[key] = ENCODER.encode(new)

    def _make(self, table: Table[S], id: str, new: S) -> None:
        made = self._made.setdefault(table.name, {})
        self._move(table, id, made.get(id), new)
        made[id] = new

    def _move(self, table: Table[S], id: str, old: S | None, new: S | None) -> None:
        """Have the indexes of what this decision makes find an object anew."""
        for name, found in self._indexes.get(table.name, NOTHING).items():
            for value in () if old is None else table.values(name, old):
                found.get(value, {}).pop(id, None)
            for value in () if new is None else table.values(name, new):
                found.setdefault(value, {})[id] = None

    def delete(self, table: Table[S], id: str) -> None:
        key = f"{table.name}/{id}"
        made = self._made.get(table.name, {}).pop(id, None)
        self._move(table, id, made, None)
        if made is not None and table.name in NAMES:
            self.cloud.usage.settle(table.name, made.project_id, id)
        self.transaction.puts.pop(key, None)
        if id in table.modified:
            self._same(table, id)
            self.transaction.deletes.add(key)

    def claim(self, key: str, value: str = "") -> bool:
        """Take a key that nobody has; False if this decision has it already."""
        if key in self.transaction.puts:
            return False
        if key in self.transaction.deletes:
            # Released and taken again within one decision: it stays, with another value.
            self.transaction.deletes.discard(key)
            self.transaction.puts[key] = value.encode()
            return True
        self.transaction.same[key] = 0
        self.transaction.puts[key] = value.encode()
        self.cloud.pending.add(key)
        self._claimed[key] = None
        return True

    def release(self, key: str) -> None:
        """Give back a key that is taken; one that this decision took itself was never."""
        self.transaction.puts.pop(key, None)
        if key not in self._claimed:
            self.transaction.deletes.add(key)

    def rest(self, key: str, project: str = "") -> None:
        """Give back the claim of a number of which hosts may still hold rows: it is taken until none does."""
        if key in self._claimed or not self.cloud.hosts.rows:
            self.release(key)
        else:
            self.transaction.puts[key] = RESTING + project.encode()

    def wake(self, key: str) -> bool:
        """Take a number that rests, if who may hold rows of it lives and so hears first that they are of the past."""
        since, _ = self.cloud.resting.get(key.removeprefix("claim/"), (0, ""))
        if not since or any(not self.cloud.alive(host) for host in self.cloud.behind(since)):
            return False
        self.transaction.same[key] = since
        self.transaction.puts[key] = b""
        return True

    def quiet(self, prefix: str) -> None:
        """Rely on no key that begins so being put since the copy's revision."""
        self.transaction.quiet.setdefault(prefix, self.cloud.revision)

    def empty(self, prefix: str) -> None:
        """Rely on there being no key that begins so."""
        self.transaction.quiet[prefix] = 0

    def lend(self, space: Space) -> str | None:
        """Take the next free address of a subnet, until this is done or given up."""
        ip = space.next()
        if ip is not None:
            self._lent.append((space, ip))
        return ip

    def number(self, counter: str, most: int) -> int:
        """Claim the next free number of a kind, in turn, so that a freed one rests the longest."""
        last = int(self.transaction.puts.get(f"counter/{counter}", b"%d" % self.cloud.counters.get(counter, 0)))
        for step in range(1, min(most, NUMBERS_TRIED) + 1):
            candidate = (last + step - 1) % most + 1
            key = f"claim/{counter}/{candidate}"
            if key[6:] not in self.cloud.claims and key not in self.cloud.pending and self.claim(key):
                # Put without a comparison: which of two goes last does not matter.
                self.transaction.puts[f"counter/{counter}"] = b"%d" % candidate
                return candidate
        raise Conflict(f"all numbers of kind {counter} are taken, or rest until all hosts know that they are free")

    def close(self) -> None:
        for space, ip in self._lent:
            space.give_back(ip)
        self.cloud.pending.difference_update(self._claimed)
        for table, project, id in self._counted:
            self.cloud.usage.settle(table, project, id)
        self.cloud.policy_rows.release(self._rows)
        self.cloud.identities_made -= self.identities

    def charge(self) -> None:
        """Count the rows of policy that this decision makes; raise OverQuota if a project may not have so many."""
        self._rows = self.cloud.policy_rows.charge(self)


async def decide_in_portions(cloud: Cloud, verb: Callable[[Decision], Awaitable[T]]) -> T:
    """Do as `decide` with a verb that lets others have the loop in between, and so meets more of their changes."""
    for _ in range(LONG_TRIES):
        decision = Decision(cloud)
        try:
            result = await verb(decision)
            await _commit(decision)
            return result
        except Stale as stale:
            await cloud.reached(stale.revision)
        finally:
            decision.close()
    raise Conflict("too many others change the same things; try again")


async def decide(cloud: Cloud, verb: Callable[[Decision], T]) -> T:
    """Run a verb until what it decided on is still so, and answer when the copy has it."""
    try:
        return await _try(cloud, verb)
    except Stale as stale:
        about = min(stale.keys, default="")
        await cloud.reached(stale.revision)
    # Those who are in each other's way decide one after the other from now on, and keep nobody else waiting.
    async with cloud.turns.setdefault(about, asyncio.Lock()):
        for _ in range(TRIES):
            try:
                return await _try(cloud, verb)
            except Stale as stale:
                await cloud.reached(stale.revision)
    raise Conflict("too many others change the same things; try again")


async def _try(cloud: Cloud, verb: Callable[[Decision], T]) -> T:
    decision = Decision(cloud)
    try:
        result = verb(decision)
        await _commit(decision)
        return result
    finally:
        decision.close()


async def _commit(decision: Decision) -> None:
    decision.charge()
    if decision.transaction.puts or decision.transaction.deletes:
        await decision.cloud.reached(await decision.cloud.store.commit(decision.transaction))
