"""Security groups as rows: `policies` and `prefixes`.

A rule becomes rows for each identity of this host's own ports whose groups
include the rule's. Rows are counted by rule, so that a change of one rule
touches its own rows only, however many others there are.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple
from zlib import crc32

from crossway.model import rows as r
from crossway.plan import view
from crossway.plan.address import MAPPED_BITS, Cidr, cidr
from crossway.plan.ledger import Ledger

TO_PROTO, WITH_PROTO, WITH_PORT = 88, 96, 112  # bits of policy_key
PREFIX_BITS = 64  # bits of prefix_key up to the address
ICMP, ICMPV6 = 1, 58
WITH_PORTS = frozenset({6, 17, 33, 132, 136})  # TCP, UDP, DCCP, SCTP, UDP-Lite


class Match(NamedTuple):
    """What part of the traffic a row of policy is about: the end of its key."""

    bits: int
    proto: int = 0
    port: int = 0


class Space(NamedTuple):
    """Rows that the data plane looks up together: the beginning of their keys."""

    identity: int
    number: int
    remote: int
    way: int
    family: int


class Rule(NamedTuple):
    """A rule as rows need it."""

    id: str
    number: int
    group: str
    stateless: bool
    way: int
    family: int
    remote: str | None
    prefix: Cidr | None
    matches: tuple[Match, ...]


def rule_of(rule: view.Rule, group: str, stateful: bool) -> Rule:
    """Return a rule as rows need it."""
    family = r.Family.IPV4 if rule.family == 4 else r.Family.IPV6
    prefix = cidr(rule.prefix) if rule.prefix is not None else None
    if prefix is not None and prefix.bits == (MAPPED_BITS if family == r.Family.IPV4 else 0):
        prefix = None  # all of a family is any remote
    return Rule(
        id=rule.id,
        number=rule.number,
        group=group,
        stateless=not stateful,
        way=int(r.Way.IN if rule.way == "in" else r.Way.OUT),
        family=int(family),
        remote=rule.group,
        prefix=prefix,
        matches=tuple(matches_of(rule)) if _may_match(rule, prefix) else (),
    )


def _may_match(rule: view.Rule, prefix: Cidr | None) -> bool:
    """Return whether any packet can match: none does if family and prefix disagree."""
    return prefix is None or prefix.mapped == (rule.family == 4)


def matches_of(rule: view.Rule) -> Iterator[Match]:
    """Yield the parts of policy keys that stand for a rule's protocol and ports."""
    proto = rule.proto
    if proto is None:
        yield Match(TO_PROTO)
        return
    if rule.family == 6 and proto == ICMP:
        proto = ICMPV6
    if proto in (ICMP, ICMPV6):
        if rule.min is None:
            yield Match(WITH_PROTO, proto)
            return
        if max(rule.min, rule.max or 0) > 0xFF:
            raise ValueError(f"ICMP type {rule.min} and code {rule.max}: neither may be above 255")
        if rule.max is None:
            yield Match(WITH_PROTO + 8, proto, rule.min << 8)
        else:
            yield Match(WITH_PORT, proto, rule.min << 8 | rule.max)
        return
    low = rule.min if rule.min is not None else rule.max
    high = rule.max if rule.max is not None else low
    if low is None or high is None or proto not in WITH_PORTS:
        yield Match(WITH_PROTO, proto)
        return
    for port, bits in port_prefixes(low, high):
        yield Match(WITH_PROTO + bits, proto, port)


def port_prefixes(low: int, high: int) -> Iterator[tuple[int, int]]:
    """Yield the fewest prefixes (first port, bits of 16) that hold low … high and nothing else."""
    if not 0 <= low <= high <= 0xFFFF:
        raise ValueError(f"{low} to {high} is no range of ports")
    while low <= high:
        size = low & -low or 0x10000
        while size > high - low + 1:
            size >>= 1
        yield low, 17 - size.bit_length()
        low += size


def key_of(space: Space, match: Match) -> r.PolicyKey:
    """Return the key of a row of policy."""
    identity, number, remote, way, family = space
    return r.PolicyKey(match.bits, identity, number, remote, way, family, match.proto, match.port)


def space_of(key: r.PolicyKey) -> Space:
    """Return which rows are looked up together with this one."""
    return Space(key.identity, key.number, key.remote, key.way, key.family)


def wider(key: r.PolicyKey) -> Iterator[r.PolicyKey]:
    """Yield the keys of all rows that hold what this row holds, and more."""
    for bits in range(key.prefixlen - 1, WITH_PROTO, -1):
        mask = 0xFFFF >> (bits - WITH_PROTO) ^ 0xFFFF
        yield key._replace(prefixlen=bits, port=key.port & mask)
    if key.prefixlen > WITH_PROTO:
        yield key._replace(prefixlen=WITH_PROTO, port=0)
    if key.prefixlen > TO_PROTO:
        yield key._replace(prefixlen=TO_PROTO, proto=0, port=0)


class Classes:
    """The prefixes that the rules of one identity, way and family name.

    The kernel finds the longest prefix that holds an address, so each prefix
    is a class of its own that has its own rules and those of all wider ones.
    """

    def __init__(self) -> None:
        self.own: dict[Cidr, dict[str, Rule]] = {}
        self._sorted: list[Cidr] = []
        self._lengths: dict[int, int] = {}

    def add(self, prefix: Cidr) -> None:
        """Know one more prefix."""
        self.own[prefix] = {}
        insort(self._sorted, prefix)
        self._lengths[prefix.bits] = self._lengths.get(prefix.bits, 0) + 1

    def remove(self, prefix: Cidr) -> None:
        """Know a prefix no more."""
        del self.own[prefix]
        del self._sorted[bisect_left(self._sorted, prefix)]
        self._lengths[prefix.bits] -= 1
        if not self._lengths[prefix.bits]:
            del self._lengths[prefix.bits]

    def around(self, prefix: Cidr) -> Iterator[Cidr]:
        """Yield the known prefixes that hold this one, but for itself."""
        number = int.from_bytes(prefix.ip, "big")
        for bits in self._lengths:
            if bits < prefix.bits:
                rest = 128 - bits
                outer = Cidr((number >> rest << rest).to_bytes(16, "big"), bits)
                if outer in self.own:
                    yield outer

    def within(self, prefix: Cidr) -> list[Cidr]:
        """Return the known prefixes that this one holds, itself as well."""
        last = int.from_bytes(prefix.ip, "big") | (1 << 128 - prefix.bits) - 1
        start = bisect_left(self._sorted, prefix)
        end = bisect_left(self._sorted, Cidr(last.to_bytes(16, "big"), 129))
        return self._sorted[start:end]


class Numbers:
    """Numbers of prefix classes, unique for one identity and way.

    A prefix has the same number after a restart: a hash of it, the next free
    one where two collide, and whatever the kernel's rows say that it has.
    """

    def __init__(self) -> None:
        self._of: dict[tuple[int, int], dict[Cidr, int]] = {}
        self._used: dict[tuple[int, int], dict[int, Cidr]] = {}
        self._adopted: dict[tuple[int, int], dict[Cidr, int]] = {}

    def adopt(self, have: dict[r.PrefixKey, r.Prefix]) -> None:
        """Keep the numbers that the kernel's rows have, until `settle`."""
        for key, row in have.items():
            where, prefix = (key.identity, key.way), Cidr(key.ip, key.prefixlen - PREFIX_BITS)
            if row.number not in self._used.setdefault(where, {}):
                self._used[where][row.number] = prefix
                self._adopted.setdefault(where, {})[prefix] = row.number

    def settle(self) -> None:
        """Free the numbers that were adopted and are of no prefix that is known."""
        for where, adopted in self._adopted.items():
            for prefix, number in adopted.items():
                if prefix not in self._of.get(where, {}):
                    self._unuse(where, number)
        self._adopted.clear()

    def take(self, identity: int, way: int, prefix: Cidr) -> int:
        """Return the number that a prefix has from now on."""
        where = (identity, way)
        used = self._used.setdefault(where, {})
        number = self._adopted.get(where, {}).get(prefix)
        if number is None:
            number = crc32(prefix.ip + bytes([prefix.bits])) or 1
            while number in used:
                number = number % 0xFFFFFFFF + 1
        used[number] = prefix
        self._of.setdefault(where, {})[prefix] = number
        return number

    def number(self, identity: int, way: int, prefix: Cidr) -> int:
        """Return the number of a prefix that has one."""
        return self._of[identity, way][prefix]

    def free(self, identity: int, way: int, prefix: Cidr) -> int:
        """Take a prefix's number away and return what it was."""
        where = (identity, way)
        number = self._of[where].pop(prefix)
        if not self._of[where]:
            del self._of[where]
        if self._adopted.get(where, {}).get(prefix) != number:
            self._unuse(where, number)
        return number

    def _unuse(self, where: tuple[int, int], number: int) -> None:
        del self._used[where][number]
        if not self._used[where]:
            del self._used[where]


class Policy:
    """The policy of all identities that ports of this host have."""

    def __init__(self, ledger: Ledger) -> None:
        self.numbers = Numbers()
        self._ledger = ledger
        self._rules: dict[str, dict[str, Rule]] = {}  # group -> rule id -> rule
        self._rule: dict[str, Rule] = {}
        self._stateful: dict[str, bool] = {}  # group -> whether it is; the groups that are known
        self._aimed: dict[str, dict[str, Rule]] = {}  # remote group -> rule id -> rule
        self._groups: dict[int, frozenset[str]] = {}  # identity -> its groups
        self._with: dict[str, set[int]] = {}  # group -> identities that have it
        self._local: dict[int, int] = {}  # identity -> how many ports here have it
        self._rows: dict[r.PolicyKey, dict[str, Rule]] = {}  # row -> rules that ask for it
        self._stateless: dict[Space, set[r.PolicyKey]] = {}  # rows that only stateless rules ask for
        self._classes: dict[tuple[int, int, int], Classes] = {}  # identity, way, family

    # What comes from the view.

    def group(self, id: str, group: view.Group | None) -> dict[str, str]:
        """Take in a group with all its rules, or that it is gone; return what is wrong with which rule."""
        faults: dict[str, str] = {}
        new: dict[str, Rule] = {}
        if group is not None:
            self._stateful[id] = group.stateful
            for rule in group.rules:
                try:
                    new[rule.id] = rule_of(rule, id, group.stateful)
                except ValueError as fault:
                    faults[rule.id] = str(fault)
        else:
            self._stateful.pop(id, None)
        for old in list(self._rules.get(id, {}).values()):
            if new.get(old.id) != old:
                self._remove_rule(old)
        known = self._rules.get(id, {})
        for added in [rule for rule in new.values() if rule.id not in known]:
            self._add_rule(added)
        return faults

    def rule(self, id: str, rule: view.Rule | None) -> None:
        """Take in one rule of a group that is known, or that the rule is gone.

        Raises ValueError for a rule that cannot be; it is gone then.
        """
        old = self._rule.get(id)
        try:
            new = None
            if rule is not None and rule.group_id in self._stateful:
                new = rule_of(rule, rule.group_id, self._stateful[rule.group_id])
        finally:
            if old is not None and new != old:
                self._remove_rule(old)
        if new is not None and new != old:
            self._add_rule(new)

    def identity(self, number: int, groups: Iterable[str] | None) -> None:
        """Take in which groups an identity stands for, or that it is gone."""
        old, new = self._groups.get(number, frozenset()), frozenset(groups or ())
        gone, come = old - new, new - old
        # What this identity's own rules say ends while its groups are as they
        # were, and begins when they are as they will be; what others' rules
        # say of it, in between.
        if number in self._local:
            for rule in self._rules_in(gone):
                self._stop(number, rule)
        for group in gone:
            self._with[group].discard(number)
            if not self._with[group]:
                del self._with[group]
        for group in gone:
            self._aim(group, number, add=False)
        for group in come:
            self._aim(group, number, add=True)
        for group in come:
            self._with.setdefault(group, set()).add(number)
        if groups is None:
            self._groups.pop(number, None)
        else:
            self._groups[number] = new
        if number in self._local:
            for rule in self._rules_in(come):
                self._start(number, rule)

    def join(self, identity: int) -> None:
        """Count one more port of this host with an identity; the first brings its policy."""
        self._local[identity] = self._local.get(identity, 0) + 1
        if self._local[identity] == 1:
            for rule in self._rules_in(self._groups.get(identity, ())):
                self._start(identity, rule)

    def leave(self, identity: int) -> None:
        """Count one port of this host less; the last takes the policy away."""
        if self._local[identity] > 1:
            self._local[identity] -= 1
            return
        for rule in self._rules_in(self._groups.get(identity, ())):
            self._stop(identity, rule)
        del self._local[identity]

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

    def _rules_in(self, groups: Iterable[str]) -> list[Rule]:
        return [rule for group in groups for rule in self._rules.get(group, {}).values()]

    def _add_rule(self, rule: Rule) -> None:
        self._rule[rule.id] = rule
        self._rules.setdefault(rule.group, {})[rule.id] = rule
        if rule.remote is not None:
            self._aimed.setdefault(rule.remote, {})[rule.id] = rule
        for identity in self._users(rule.group):
            self._start(identity, rule)

    def _remove_rule(self, rule: Rule) -> None:
        for identity in self._users(rule.group):
            self._stop(identity, rule)
        del self._rule[rule.id]
        _discard(self._rules, rule.group, rule.id)
        if rule.remote is not None:
            _discard(self._aimed, rule.remote, rule.id)

    def _users(self, group: str) -> list[int]:
        """Return the identities of this host's ports that have a group."""
        having = self._with.get(group, set())
        if len(having) < len(self._local):
            return [i for i in having if i in self._local]
        return [i for i in self._local if i in having]

    def _aim(self, group: str, remote: int, *, add: bool) -> None:
        """Make or take away what rules that name a remote group say of one identity."""
        for rule in self._aimed.get(group, {}).values():
            for identity in self._users(rule.group):
                self._rows_of(self._space(identity, rule, r.Remote.IDENTITY, remote), rule, add=add)

    def _start(self, identity: int, rule: Rule) -> None:
        if rule.remote is not None:
            for remote in self._with.get(rule.remote, ()):
                self._rows_of(self._space(identity, rule, r.Remote.IDENTITY, remote), rule, add=True)
        elif rule.prefix is not None:
            self._start_prefix(identity, rule, rule.prefix)
        else:
            self._rows_of(self._space(identity, rule, r.Remote.ANY, 0), rule, add=True)

    def _stop(self, identity: int, rule: Rule) -> None:
        if rule.remote is not None:
            for remote in self._with.get(rule.remote, ()):
                self._rows_of(self._space(identity, rule, r.Remote.IDENTITY, remote), rule, add=False)
        elif rule.prefix is not None:
            self._stop_prefix(identity, rule, rule.prefix)
        else:
            self._rows_of(self._space(identity, rule, r.Remote.ANY, 0), rule, add=False)

    @staticmethod
    def _space(identity: int, rule: Rule, remote: r.Remote, number: int) -> Space:
        return Space(identity, number, int(remote), rule.way, rule.family)

    # Prefixes.

    def _start_prefix(self, identity: int, rule: Rule, prefix: Cidr) -> None:
        if not rule.matches:
            return
        classes = self._classes.setdefault((identity, rule.way, rule.family), Classes())
        if prefix not in classes.own:
            number = self.numbers.take(identity, rule.way, prefix)
            space = self._space(identity, rule, r.Remote.PREFIX, number)
            for outer in classes.around(prefix):
                for wide in classes.own[outer].values():
                    self._rows_of(space, wide, add=True)
            classes.add(prefix)
            self._ledger.put("prefixes", self._prefix_key(identity, rule.way, prefix), r.Prefix(number))
        classes.own[prefix][rule.id] = rule
        self._spread(identity, rule, prefix, classes, add=True)

    def _stop_prefix(self, identity: int, rule: Rule, prefix: Cidr) -> None:
        if not rule.matches:
            return
        classes = self._classes[identity, rule.way, rule.family]
        self._spread(identity, rule, prefix, classes, add=False)
        del classes.own[prefix][rule.id]
        if classes.own[prefix]:
            return
        classes.remove(prefix)
        self._ledger.drop("prefixes", self._prefix_key(identity, rule.way, prefix))
        space = self._space(identity, rule, r.Remote.PREFIX, self.numbers.free(identity, rule.way, prefix))
        for outer in classes.around(prefix):
            for wide in classes.own[outer].values():
                self._rows_of(space, wide, add=False)
        if not classes.own:
            del self._classes[identity, rule.way, rule.family]

    def _spread(self, identity: int, rule: Rule, prefix: Cidr, classes: Classes, *, add: bool) -> None:
        for inner in classes.within(prefix):
            number = self.numbers.number(identity, rule.way, inner)
            self._rows_of(self._space(identity, rule, r.Remote.PREFIX, number), rule, add=add)

    @staticmethod
    def _prefix_key(identity: int, way: int, prefix: Cidr) -> r.PrefixKey:
        return r.PrefixKey(PREFIX_BITS + prefix.bits, identity, way, prefix.ip)

    # Rows, counted by rule.

    def _rows_of(self, space: Space, rule: Rule, *, add: bool) -> None:
        for match in rule.matches:
            key = key_of(space, match)
            rules = self._rows.get(key)
            before = _stateful(rules)
            if add:
                if rules is None:
                    rules = self._rows[key] = {}
                rules[rule.id] = rule
            elif rules is not None:
                rules.pop(rule.id, None)
                if not rules:
                    del self._rows[key]
            self._write(space, key)
            if _stateful(rules) != before:
                self._recheck(space, key)

    def _write(self, space: Space, key: r.PolicyKey) -> None:
        rules = self._rows.get(key)
        stateless = self._stateless.get(space)
        if not rules:
            if stateless is not None:
                stateless.discard(key)
                if not stateless:
                    del self._stateless[space]
            self._ledger.drop("policies", key)
            return
        alone = not _stateful(rules)
        if alone:
            self._stateless.setdefault(space, set()).add(key)
            alone = not any(_stateful(self._rows.get(outer)) for outer in wider(key))
        elif stateless is not None:
            stateless.discard(key)
            if not stateless:
                del self._stateless[space]
        self._ledger.put("policies", key, r.Policy(min(rule.number for rule in rules.values()), int(alone)))

    def _recheck(self, space: Space, key: r.PolicyKey) -> None:
        """Write again the stateless rows within a row that became stateful, or is so no more.

        The kernel sees the longest match only: it must say what the wider ones say.
        """
        for inner in list(self._stateless.get(space, ())):
            if inner.prefixlen > key.prefixlen and key in wider(inner):
                self._write(space, inner)


def _stateful(rules: dict[str, Rule] | None) -> bool:
    return rules is not None and any(not rule.stateless for rule in rules.values())


def _discard(index: dict[str, dict[str, Rule]], outer: str, inner: str) -> None:
    found = index[outer]
    del found[inner]
    if not found:
        del index[outer]
