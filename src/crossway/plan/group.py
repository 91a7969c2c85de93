"""Security groups as rows: `port_sets`, `policies` and `prefixes`.

A rule becomes rows for each identity of this host's own ports whose groups
include the rule's. What changes is noted, by identity and rule; `settle` brings
the rows of those identities up to date, as far as it is allowed to go at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple, TypeVar

from crossway.model import rows as r
from crossway.model.port_range import port_prefixes
from crossway.plan import view
from crossway.plan.address import MAPPED_BITS, cidr
from crossway.plan.ledger import Ledger
from crossway.plan.room import UNLIMITED, Room
from crossway.plan.rows import ADDRESS_AT, POLICY, PORTS_AT, Rows
from crossway.plan.space import ADDRESS_BITS, PortSet, Prefix, Space, known

WITH_PROTO = 8  # bits of a match: none is any protocol, more have bits of the port
ICMP, ICMPV6 = 1, 58
WITH_PORTS = frozenset({6, 17, 33, 132, 136})  # TCP, UDP, DCCP, SCTP, UDP-Lite
STEP = 256  # rows between two looks at whether it is enough for now

Where = tuple[int, int]  # way and family


class Rule(NamedTuple):
    """A rule as rows need it."""

    id: str
    group: str
    way: int
    family: int
    remote: str | None  # the group that others must have
    prefixes: frozenset[Prefix] | None  # in which others must be
    ports: PortSet

    @property
    def kind(self) -> tuple[object, ...]:
        """Return what rules have in common that differ in the prefixes of their remote, if at all."""
        return self.way, self.family, self.ports, self.remote, self.prefixes is None


class Named:
    """The prefixes of the address groups that a group's rules name, by family: each made once, however many name it."""

    def __init__(self, addresses: Mapping[str, Iterable[str]]) -> None:
        self._addresses = addresses
        self._made: dict[tuple[str, int], frozenset[Prefix]] = {}

    def of(self, id: str, family: int) -> frozenset[Prefix]:
        if (id, family) not in self._made:
            self._made[id, family] = _prefixes(self._addresses.get(id, ()), family)
        return self._made[id, family]


def rule_of(rule: view.Rule, group: str, stateful: bool, named: Named) -> Rule:
    """Return a rule as rows need it."""
    family = r.Family.IPV4 if rule.family == 4 else r.Family.IPV6
    prefixes: frozenset[Prefix] | None = None
    if rule.addresses is not None:
        prefixes = named.of(rule.addresses, rule.family)
    elif rule.prefix is not None:
        one = cidr(rule.prefix)
        # All of a family is any remote.
        if one.bits != (MAPPED_BITS if family == r.Family.IPV4 else 0):
            prefixes = _prefixes((rule.prefix,), rule.family)
    return Rule(
        id=rule.id,
        group=group,
        way=int(r.Way.IN if rule.way == "in" else r.Way.OUT),
        family=int(family),
        remote=rule.group,
        prefixes=prefixes,
        ports=PortSet(tuple(matches_of(rule)), not stateful),
    )


def _prefixes(texts: Iterable[str], family: int) -> frozenset[Prefix]:
    """Return those of a family: no packet can match the others."""
    return frozenset(prefix for of, prefix in map(_prefix, texts) if of == family)


@lru_cache(1 << 18)
def _prefix(text: str) -> tuple[int, Prefix]:
    """Return the family of a prefix, and the prefix."""
    made = cidr(text)
    return 4 if made.mapped else 6, Prefix(int.from_bytes(made.ip, "big"), made.bits)


def matches_of(rule: view.Rule) -> Iterator[Prefix]:
    """Yield the fewest prefixes of a protocol and port that hold what a rule says of them, and nothing else."""
    proto = rule.proto
    if proto is None:
        yield Prefix(0, 0)
        return
    if rule.family == 6 and proto == ICMP:
        proto = ICMPV6
    if proto in (ICMP, ICMPV6):
        if rule.min is None:
            yield _match(proto)
            return
        if max(rule.min, rule.max or 0) > 0xFF:
            raise ValueError(f"ICMP type {rule.min} and code {rule.max}: neither may be above 255")
        if rule.max is None:
            yield _match(proto, rule.min << 8, 8)
        else:
            yield _match(proto, rule.min << 8 | rule.max, 16)
        return
    low = rule.min if rule.min is not None else rule.max
    high = rule.max if rule.max is not None else low
    if low is None or high is None or proto not in WITH_PORTS:
        yield _match(proto)
        return
    for port, bits in port_prefixes(low, high):
        yield _match(proto, port, bits)


def _match(proto: int, port: int = 0, bits: int = 0) -> Prefix:
    return Prefix(proto << 16 | port, WITH_PROTO + bits)


class _Done(NamedTuple):
    """A rule as an identity's rows have it, and the identities of the remote group that they have."""

    rule: Rule
    remotes: set[int]


class _Identity:
    """An identity of this host's own ports: what its rows have, and what is to be looked at."""

    def __init__(self) -> None:
        self.spaces: dict[Where, Space] = {}
        self.done: dict[str, _Done] = {}
        # Rule -> the identities of its remote group to be looked at; None: all of it.
        self.marked: dict[str, set[int] | None] = {}
        self.starved: set[str] = set()  # rules for which no number is free
        self.work: Iterator[None] | None = None
        self.since = 0  # the revision of which all is in the tables
        self.until = 0  # that of which all will be, with what is under way
        self.written = False  # the tables have its policy, as it is or as it was before what is under way
        self.local = False  # ports here had it when the work began, and since
        self.project = ""  # of the first port here that has it
        self.touched: dict[str, set[r.Key]] = {}


class Policy:
    """The policy of all identities that ports of this host have."""

    def __init__(self, ledger: Ledger) -> None:
        self.faults: dict[str, str] = {}  # rule -> why an identity's rows lack it
        self.room: Room[int] = Room(UNLIMITED)  # rows of policy, by identity
        self._rows = ledger.rows
        self._rules: dict[str, dict[str, Rule]] = {}  # group -> rule id -> rule
        self._rule: dict[str, Rule] = {}
        self._stateful: dict[str, bool] = {}  # group -> whether it is; the groups that are known
        self._aimed: dict[str, set[str]] = {}  # remote group -> rules
        self._groups: dict[int, frozenset[str]] = {}  # identity -> its groups
        self._with: dict[str, set[int]] = {}  # group -> identities that have it
        self._local: dict[int, int] = {}  # identity -> how many ports here have it
        self._adopted: dict[int, dict[Where, tuple[int, dict[PortSet, int]]]] = {}
        self._identities: dict[int, _Identity] = {}
        self._queue: dict[int, None] = {}  # identities to be settled, in turn
        self._settled: dict[int, None] = {}  # those whose rows wait for being written
        self._writing: set[int] = set()
        self.revision = 0  # of the view that was taken in; whoever takes it in sets it afterwards

    @property
    def pending(self) -> bool:
        """Whether the tables lack anything."""
        return bool(self._queue or self._settled or self._writing)

    @property
    def applied(self) -> int:
        """The last revision of which the tables have all."""
        pending = {*self._queue, *self._settled, *self._writing}
        return min((self._identities[i].since for i in pending), default=self.revision)

    # What comes from the view.

    def group(self, id: str, group: view.Group | None) -> dict[str, str]:
        """Take in a group with all its rules, or that it is gone; return what is wrong with which rule."""
        faults: dict[str, str] = {}
        new: dict[str, Rule] = {}
        if group is not None:
            self._stateful[id] = group.stateful
            named = Named(group.addresses)
            for rule in (*group.rules, *group.named):
                try:
                    new[rule.id] = rule_of(rule, id, group.stateful, named)
                except ValueError as fault:
                    faults[rule.id] = str(fault)
        else:
            self._stateful.pop(id, None)
        for old in list(self._rules.get(id, {}).values()):
            if old.id not in new:
                self._change(old, None)
        for rule_id, made in new.items():
            self._change(self._rule.get(rule_id), made)
        return faults

    def rule(self, id: str, rule: view.Rule | None) -> None:
        """Take in one rule of a group that is known, or that the rule is gone.

        Raises ValueError for a rule that cannot be; it is gone then.
        """
        new = None
        try:
            if rule is not None and rule.group_id in self._stateful:
                new = rule_of(rule, rule.group_id, self._stateful[rule.group_id], Named({}))
        finally:
            self._change(self._rule.get(id), new)

    def identity(self, number: int, groups: Iterable[str] | None) -> None:
        """Take in which groups an identity stands for, or that it is gone."""
        old, new = self._groups.get(number, frozenset()), frozenset(groups or ())
        if number not in self._groups and (one := self._identities.get(number)) is not None:
            # Ports have had it before it was known what it stands for.
            one.written = one.local = False
            self._enqueue(number)
        if groups is None:
            self._groups.pop(number, None)
        else:
            self._groups[number] = new
        for group in old - new:
            _discard(self._with, group, number)
        for group in new - old:
            self._with.setdefault(group, set()).add(number)
        for group in old ^ new:
            if number in self._identities:
                for id in self._rules.get(group, ()):
                    self._mark(number, id, None)
            for id in self._aimed.get(group, ()):
                for user in self._users(self._rule[id].group):
                    self._mark(user, id, {number})

    def join(self, identity: int, project: str = "") -> None:
        """Count one more port of this host with an identity; the first brings its policy, at its project's cost."""
        self._local[identity] = self._local.get(identity, 0) + 1
        if self._local[identity] == 1:
            one = self._identities.setdefault(identity, _Identity())
            one.project = project
            for id in (*self._rules_in(self._groups.get(identity, ())), *one.done):
                self._mark(identity, id, None)
            # What has no policy at all goes first: a port waits for it.
            self._enqueue(identity)
            del self._queue[identity]
            self._queue = {identity: None, **self._queue}

    def leave(self, identity: int) -> None:
        """Count one port of this host less; the last takes the policy away."""
        if self._local[identity] > 1:
            self._local[identity] -= 1
            return
        del self._local[identity]
        self.room.withdraw(identity)
        one = self._identities[identity]
        one.written = one.local = False
        for id in {**one.done, **one.marked}:
            self._mark(identity, id, None)
        self._enqueue(identity)

    def knows(self, identity: int) -> bool:
        """Return whether it is known which groups an identity stands for."""
        return identity in self._groups

    def groups(self) -> Mapping[int, frozenset[str]]:
        """Return the groups that each known identity stands for."""
        return self._groups

    def locals(self) -> set[int]:
        """Return the identities that ports of this host have."""
        return set(self._local)

    # Which identities a rule concerns.

    def _rules_in(self, groups: Iterable[str]) -> list[str]:
        return [id for group in groups for id in self._rules.get(group, ())]

    def _change(self, old: Rule | None, new: Rule | None) -> None:
        """Take in how a rule is now."""
        if old == new:
            return
        if old is not None:
            del self._rule[old.id]
            del self._rules[old.group][old.id]
            if not self._rules[old.group]:
                del self._rules[old.group]
            if old.remote is not None:
                _discard(self._aimed, old.remote, old.id)
            for identity in self._users(old.group):
                self._try_again(identity)
                self._mark(identity, old.id, None)
        if new is not None:
            self._rule[new.id] = new
            self._rules.setdefault(new.group, {})[new.id] = new
            if new.remote is not None:
                self._aimed.setdefault(new.remote, set()).add(new.id)
            for identity in self._users(new.group):
                self._try_again(identity)
                self._mark(identity, new.id, None)

    def _try_again(self, identity: int) -> None:
        """Have an identity that goes without policy made anew: it may need less now."""
        if self.room.withdraw(identity):
            self._redo_all(identity)

    def _users(self, group: str) -> list[int]:
        """Return the identities of this host's ports that have a group."""
        having = self._with.get(group, set())
        if len(having) < len(self._identities):
            return [i for i in having if i in self._identities]
        return [i for i in self._identities if i in having]

    def _mark(self, identity: int, rule: str, remotes: set[int] | None) -> None:
        """Note that a rule is to be looked at for an identity: all of it, or what it says of some remotes."""
        marked = self._identities[identity].marked
        if rule not in marked:
            marked[rule] = remotes and set(remotes)
        elif remotes is None or marked[rule] is None:
            marked[rule] = None
        else:
            marked[rule] |= remotes  # type: ignore[operator]
        self._enqueue(identity)

    def _enqueue(self, identity: int) -> None:
        """Have the rows of an identity brought up to date."""
        one = self._identities[identity]
        if identity not in self._queue:
            self._queue[identity] = None
            if identity not in self._settled and identity not in self._writing:
                one.since = self.revision

    # Rows.

    def adopt(self, have: Rows) -> None:
        """Begin with the numbers that the kernel's rows have."""
        used: dict[tuple[int, Where], int] = {}
        ports: dict[tuple[int, Where], list[tuple[Prefix, int, int]]] = {}
        for table in POLICY:
            for key, row in have.get(table, {}).items():
                at = (key.identity, (key.way, key.family))
                numbers = r.unpack_bits(row[0])
                used[at] = used.get(at, 0) | numbers
                if table == "port_sets":
                    match = Prefix(key.proto << 16 | key.port, key.prefixlen - PORTS_AT)
                    ports.setdefault(at, []).append((match, numbers, r.unpack_bits(row.stateful)))
        for (identity, where), numbers in used.items():
            meant = known(ports.get((identity, where), ()))
            self._adopted.setdefault(identity, {})[where] = (numbers, meant)

    def settle(self, steps: int | None = None) -> bool:
        """Bring rows up to date, each identity in turn, some *steps* of about 256 rows; return whether that is all.

        With *steps*, those wait whose rows are being written.
        """
        while (identity := self._next(besides=steps is not None)) is not None:
            one = self._identities[identity]
            del self._queue[identity]
            if one.work is None:
                one.until, one.local = self.revision, identity in self._local
                one.work = self._work(identity, one)
            for _ in one.work:
                if steps is not None:
                    steps -= 1
                    if steps <= 0:
                        self._queue[identity] = None
                        return False
            one.work = None
            self._make_room(identity, one)
            self._settled[identity] = None
            if one.marked:
                self._queue[identity] = None
        return True

    def _make_room(self, identity: int, one: _Identity) -> None:
        """Take note of how many rows an identity has; where that is too much, some identity goes without."""
        wanted = sum(space.rows() for space in one.spaces.values())
        if identity in self.room.refused and not wanted:
            return
        for other in self.room.want(identity, one.project, wanted):
            if other in self._identities:
                self._redo_all(other)

    def _redo_all(self, identity: int) -> None:
        """Have all that an identity's groups say looked at again."""
        one = self._identities[identity]
        for id in (*self._rules_in(self._groups.get(identity, ())), *one.done):
            self._mark(identity, id, None)
        self._enqueue(identity)

    def refused(self, identity: int) -> str | None:
        """Return why an identity goes without policy: nothing passes."""
        if identity not in self.room.refused:
            return None
        project, wanted = self.room.refused[identity]
        return (
            f"its security groups need {wanted} rows of policy; {self.room.size - self.room.total} of "
            f"{self.room.size} are free on this host, and project {project} has {self.room.used(project)}, "
            f"where {self.room.share} are assured"
        )

    def _next(self, *, besides: bool) -> int | None:
        """Return whose rows are to be brought up to date next, *besides* those that are being written."""
        return next(
            (i for i in self._queue if not besides or (i not in self._writing and i not in self._settled)), None
        )

    def finished(self) -> tuple[int, dict[str, set[r.Key]]] | None:
        """Return an identity whose rows are as they should be, and which of them were touched.

        They are to be written; nothing of the identity is touched until `written`.
        """
        if not self._settled:
            return None
        identity = next(iter(self._settled))
        del self._settled[identity]
        self._writing.add(identity)
        one = self._identities[identity]
        touched, one.touched = one.touched, {}
        return identity, touched

    def written(self, identity: int | None = None) -> None:
        """Take in that the tables hold an identity's rows as they were when it was last finished; without, of all."""
        if identity is None:
            for each in list(self._writing):
                self.written(each)
            return
        self._writing.discard(identity)
        self._adopted.pop(identity, None)
        one = self._identities.get(identity)
        if one is None:
            return
        one.written = one.local and identity not in self.room.refused
        one.since = one.until
        for where, space in list(one.spaces.items()):
            freed = space.numbers.written()
            if freed and one.starved:
                starved, one.starved = one.starved, set()
                for rule in starved:
                    self._mark(identity, rule, None)
            if not space.rows() and not one.marked:
                del one.spaces[where]
        if identity not in self._local and not one.spaces and not one.done and identity not in self._queue:
            del self._identities[identity]

    def ready(self, identity: int) -> bool:
        """Return whether the tables hold an identity's policy, as it is or as it was before a change under way."""
        one = self._identities.get(identity)
        return one is not None and one.written and identity not in self.room.refused

    def _work(self, identity: int, one: _Identity) -> Iterator[None]:
        """Bring the rows of an identity up to date; yield after every few hundred.

        What is marked meanwhile is for the next time, so that there is an end.
        """
        marked, one.marked = one.marked, {}
        for id, remotes in marked.items():
            yield from self._redo(identity, one, id, remotes)
        for where, space in one.spaces.items():
            yield from self._write(identity, one, where, space)

    def _redo(self, identity: int, one: _Identity, id: str, remotes: set[int] | None) -> Iterator[None]:
        """Have an identity's rows say what a rule says now."""
        done, rule = one.done.get(id), self._rule.get(id)
        one.starved.discard(id)
        self.faults.pop(id, None)
        if rule is not None and (
            identity not in self._local
            or identity in self.room.refused
            or rule.group not in self._groups.get(identity, ())
            or (rule.prefixes is not None and not rule.prefixes)
        ):
            rule = None
        if done is None or rule is None or done.rule.kind != rule.kind:
            if rule is not None and not self._begin(identity, one, rule):
                rule = None
            if rule is not None:
                one.done[id] = _Done(rule._replace(prefixes=frozenset() if rule.prefixes is not None else None), set())
            else:
                one.done.pop(id, None)
            if done is not None:
                yield from self._spread(one, done, None, set(done.remotes))
                self._end(one, done.rule)
            done = one.done.get(id)
        if rule is None or done is None:
            return
        others = self._with.get(rule.remote, set()) if rule.remote is not None else set()
        yield from self._spread(one, done, rule, remotes if remotes is not None else others | done.remotes)
        one.done[id] = _Done(rule, done.remotes)

    def _begin(self, identity: int, one: _Identity, rule: Rule) -> bool:
        """Have a rule's port set in the rows; return whether there was a number for it."""
        where = (rule.way, rule.family)
        space = one.spaces.get(where)
        if space is None:
            space = one.spaces[where] = Space()
            space.numbers.adopt(*self._adopted.get(identity, {}).get(where, (0, {})))
        if rule.remote is None and rule.prefixes is None:
            space.allow(rule.ports)
        elif space.hold(rule.ports) is None:
            one.starved.add(rule.id)
            self.faults[rule.id] = f"the groups of identity {identity} have more than {r.PORT_SETS - 2} port sets"
            return False
        return True

    def _end(self, one: _Identity, rule: Rule) -> None:
        space = one.spaces[rule.way, rule.family]
        if rule.remote is None and rule.prefixes is None:
            space.disallow(rule.ports)
        else:
            space.let_go(rule.ports)

    def _spread(self, one: _Identity, done: _Done, rule: Rule | None, remotes: Iterable[int]) -> Iterator[None]:
        """Bring the remotes that may use a rule's port set from what is *done* to what the rule says: none without."""
        old = done.rule
        space = one.spaces[old.way, old.family]
        number = space.numbers.get(old.ports)
        if number is None:
            return
        steps = 0
        had = old.prefixes or frozenset()
        has = (rule.prefixes if rule is not None else None) or frozenset()
        for prefix in has - had:
            space.prefixes.give(prefix, number)
            if not (steps := steps + 1) % STEP:
                yield
        for prefix in had - has:
            space.prefixes.take(prefix, number)
            if not (steps := steps + 1) % STEP:
                yield
        for remote in list(remotes):
            there = rule is not None and rule.remote is not None and remote in self._with.get(rule.remote, ())
            if there and remote not in done.remotes:
                done.remotes.add(remote)
                space.give(remote, number)
            elif not there and remote in done.remotes:
                done.remotes.discard(remote)
                space.take(remote, number)
            if not (steps := steps + 1) % STEP:
                yield

    def _write(self, identity: int, one: _Identity, where: Where, space: Space) -> Iterator[None]:
        """Make the rows of an identity anew that may have changed."""
        steps = 0
        for match in _emptied(space.ports.dirty):
            vector = space.ports.vector(match)
            key = r.PortSetKey(PORTS_AT + match.bits, identity, *where, match.start >> 16, match.start & 0xFFFF)
            row = r.PortSet(r.pack_bits(vector), r.pack_bits(vector & space.numbers.stateful))
            self._put(one, "port_sets", key, row if vector else None)
            if not (steps := steps + 1) % STEP:
                yield
        for remote in _emptied(space.dirty):
            vector = space.remotes.get(remote, 0)
            by = r.PolicyKey(identity, remote, *where)
            self._put(one, "policies", by, r.Policy(r.pack_bits(vector)) if vector else None)
            if not (steps := steps + 1) % STEP:
                yield
        for prefix in _emptied(space.prefixes.dirty):
            vector = space.prefixes.vector(prefix)
            to = r.PrefixKey(
                ADDRESS_AT + prefix.bits, identity, *where, prefix.start.to_bytes(ADDRESS_BITS // 8, "big")
            )
            self._put(one, "prefixes", to, r.Prefix(r.pack_bits(vector)) if vector else None)
            if not (steps := steps + 1) % STEP:
                yield

    def _put(self, one: _Identity, table: str, key: r.Key, row: r.Value | None) -> None:
        rows = self._rows[table]
        if rows.get(key) == row:
            return
        if row is None:
            del rows[key]
        else:
            rows[key] = row
        one.touched.setdefault(table, set()).add(key)


K = TypeVar("K")


def _emptied(marked: dict[K, None]) -> list[K]:
    taken = list(marked)
    marked.clear()
    return taken


def _discard(index: dict[str, set[K]], outer: str, inner: K) -> None:
    found = index[outer]
    found.discard(inner)
    if not found:
        del index[outer]
