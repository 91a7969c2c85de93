"""How many rows of policy a project's ports take on a host: a bound, from rules, address groups and sets of groups.

A port of a host has the policy of its set of security groups there. The set's
rows are at most the sum of its groups': a row for each prefix and each set of
groups that rules name as remote, and those of each distinct protocol and range
of ports. `plan` makes no more of them; see decision 17.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from crossway.errors import Conflict, OverQuota
from crossway.model.address_group import AddressGroup
from crossway.model.port_range import port_prefixes
from crossway.model.quota import UNLIMITED
from crossway.model.rule import IPV6, WITH_PORTS, Rule

if TYPE_CHECKING:
    from crossway.control.cloud import Table
    from crossway.control.decision import Decision
    from crossway.control.usage import Usage
    from crossway.model.host import Identity
    from crossway.model.port import Port

QUOTA = "policy_row"
# Half of what can be numbered on a host, so that all can be replaced at once.
PORT_SETS_MAX = 255
# How many times its quota a project may come to have by what others do to groups that it shares with them: no use of
# a group keeps its owner from changing it.
BY_OTHERS = 2
EVERYWHERE = ("0.0.0.0/0", "::/0")

Where = tuple[str, str]  # direction and ethertype
Ports = tuple[int | None, int | None, int | None]


@lru_cache(65536)
def rows_of(ports: Ports) -> int:
    """Return how many rows a protocol and range of ports make."""
    proto, low, high = ports
    if proto not in WITH_PORTS or low is None or high is None:
        return 1
    return sum(1 for _ in port_prefixes(low, high))


class Cost:
    """What the rules of a group make, as counts of what is distinct."""

    def __init__(self) -> None:
        self.rows = 0  # of prefixes and ports
        self.prefixes: Counter[tuple[Where, str]] = Counter()
        self.ports: Counter[tuple[Where, Ports]] = Counter()
        self.numbered: Counter[tuple[Where, Ports]] = Counter()  # about remotes
        self.remotes: Counter[tuple[Where, str]] = Counter()  # groups
        self.named: Counter[tuple[Where, str]] = Counter()  # address groups

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cost) and vars(self) == vars(other)

    def count(self, rule: Rule, by: int) -> None:
        """Count one rule more or less."""
        where, ports = (rule.direction, rule.ethertype), _ports(rule)
        if _count(self.ports, (where, ports), by):
            self.rows += by * rows_of(ports)
        if rule.remote_group_id:
            _count(self.remotes, (where, rule.remote_group_id), by)
        elif rule.remote_address_group_id:
            _count(self.named, (where, rule.remote_address_group_id), by)
        elif rule.normalized_cidr and rule.normalized_cidr not in EVERYWHERE:
            if _count(self.prefixes, (where, rule.normalized_cidr), by):
                self.rows += by
        else:
            return
        _count(self.numbered, (where, ports), by)


class PolicyRows:
    """What projects' ports take, kept current by the steps of the copy."""

    def __init__(self, tables: Mapping[str, Table[Any]], usage: Usage) -> None:
        self._tables, self._usage = tables, usage
        self._costs: dict[str, Cost] = {}
        self._of_project: dict[str, Counter[int]] = {}  # project -> identity -> its ports
        self._projects: dict[int, Counter[str]] = {}  # identity -> project -> its ports
        self._reserved: Counter[str] = Counter()  # for what is under way

    def step(self, kind: str, old: Any, new: Any) -> None:
        """Take in a change of the copy."""
        if kind == "rule":
            for rule, by in ((old, -1), (new, 1)):
                if rule is not None:
                    # A group's goes with its last rule: the group itself may go before its rules.
                    cost = self._costs.setdefault(rule.security_group_id, Cost())
                    cost.count(rule, by)
                    if not cost.ports:
                        del self._costs[rule.security_group_id]
        elif kind == "port":
            for port, by in ((old, -1), (new, 1)):
                if port is not None and port.identity:
                    self._bear(port, by)

    def _bear(self, port: Port, by: int) -> None:
        of_project = self._of_project.setdefault(port.project_id, Counter())
        projects = self._projects.setdefault(port.identity, Counter())
        _count(of_project, port.identity, by)
        _count(projects, port.project_id, by)
        if not of_project:
            del self._of_project[port.project_id]
        if not projects:
            del self._projects[port.identity]

    def used(self, project: str) -> int:
        """Return how many rows the ports of a project take."""
        known: dict[str, int] = {}
        return sum(self._of_set(self._groups(identity), known) for identity in self._of_project.get(project, ()))

    def charge(self, decision: Decision) -> Counter[str]:
        """Reserve what a decision makes more, by project, until it is there; raise OverQuota where that is too much."""
        grown: Counter[str] = Counter()
        self._check_port_sets(decision)
        more: Counter[str] = Counter()
        asking: set[str] = set()
        for (group, asks), by in self._grown(decision).items():
            grown[group] += by
            for identity in self._tables["identity"].by("group", group):
                for project in self._projects.get(int(identity.id), ()):
                    more[project] += by
                    if project == asks and by > 0:
                        asking.add(project)
        known: dict[str, int] = {}
        for project, identity in self._borne(decision):
            groups = self._groups(identity, decision)
            more[project] += self._of_set(groups, known) + sum(grown[group] for group in groups)
            asking.add(project)
        more = +more
        for project, by in more.items():
            limit = self._usage.limit(QUOTA, project) if project else UNLIMITED
            most = limit if project in asking else BY_OTHERS * limit
            if limit != UNLIMITED and self.used(project) + self._reserved[project] + by > most:
                raise OverQuota(
                    f"Quota exceeded for resources: ['{QUOTA}']. It would be {by} rows of policy more for the ports of "
                    "a project that has these security groups: more than it may have."
                )
        self._reserved += more
        return more

    def release(self, reserved: Counter[str]) -> None:
        """Give back what was reserved: it is there now, or never will be."""
        self._reserved -= reserved

    def reserved(self, project: str) -> int:
        """Return how many rows are being made for a project."""
        return self._reserved[project]

    def faults(self) -> Iterator[str]:
        """Yield where what is kept is not what rules and ports make, while nothing is under way."""
        if self._reserved:
            yield f"rows of policy are reserved by nobody: {dict(self._reserved)}"
        anew = PolicyRows(self._tables, self._usage)
        for kind in ("rule", "port"):
            for one in self._tables[kind].rows.values():
                anew.step(kind, None, one)
        kept: tuple[tuple[str, Mapping[Any, object], Mapping[Any, object]], ...] = (
            ("group", self._costs, anew._costs),
            ("project", self._of_project, anew._of_project),
            ("identity", self._projects, anew._projects),
        )
        for what, have, want in kept:
            for id in have.keys() | want.keys():
                if have.get(id) != want.get(id):
                    yield f"the rows of policy that are counted of {what} {id} are not those that it makes"

    def _of_set(self, groups: Iterable[str], known: dict[str, int]) -> int:
        total = 0
        for group in groups:
            if group not in known:
                known[group] = self._of_group(group)
            total += known[group]
        return total

    def _of_group(self, group: str) -> int:
        cost = self._cost(group)
        identities = self._tables["identity"]
        return (
            cost.rows
            + sum(len(identities.ids("group", remote)) for _, remote in cost.remotes)
            + sum(self._addresses(named, where) for where, named in cost.named)
        )

    def _cost(self, group: str) -> Cost:
        return self._costs.get(group) or Cost()

    def _addresses(self, id: str, where: Where) -> int:
        named = self._tables[AddressGroup.kind.table].rows.get(id)
        return 0 if named is None else _of_family(named, where[1])

    def _groups(self, identity: int, decision: Decision | None = None) -> tuple[str, ...]:
        table = self._tables["identity"]
        found: Identity | None = (
            table.rows.get(str(identity)) if decision is None else decision.get(table, str(identity))
        )
        return () if found is None else found.groups

    def _borne(self, decision: Decision) -> set[tuple[str, int]]:
        """Return the sets of groups that a project's ports come to have by a decision, and none of them has now."""
        return {
            (port.project_id, port.identity)
            for port in decision.made_in(self._tables["port"])
            if port.identity and port.identity not in self._of_project.get(port.project_id, ())
        }

    def _grown(self, decision: Decision) -> Counter[tuple[str, str]]:
        """Return how many rows more each group makes for a set that has it, and at the wish of which project."""
        grown: Counter[tuple[str, str]] = Counter()
        for group, rules in self._new_rules(decision).items():
            cost, seen = self._cost(group), Cost()
            for rule in rules:
                seen.count(rule, 1)
            by = sum(1 for prefix in seen.prefixes if prefix not in cost.prefixes)
            by += sum(rows_of(ports[1]) for ports in seen.ports if ports not in cost.ports)
            identities = self._tables["identity"]
            # With those that come at the same time, which know nothing of these rules.
            by += sum(
                len(decision.by(identities, "group", remote[1]))
                for remote in seen.remotes
                if remote not in cost.remotes
            )
            by += sum(self._addresses(one[1], one[0]) for one in seen.named if one not in cost.named)
            grown[group, rules[0].project_id] += by
        named = self._tables[AddressGroup.kind.table]
        for new in decision.made_in(named):
            old = named.rows.get(new.id)
            naming = {
                (rule.security_group_id, rule.direction, rule.ethertype)
                for rule in self._tables["rule"].by("remote_address_group_id", new.id)
            }
            for group, _, family in naming:
                by = _of_family(new, family) - (_of_family(old, family) if old else 0)
                grown[group, new.project_id] += by
        for identity in decision.made_in(self._tables["identity"]):
            aimed = {
                (rule.security_group_id, rule.direction, rule.ethertype)
                for group in identity.groups
                for rule in self._tables["rule"].by("remote_group_id", group)
            }
            grown.update((group, identity.project) for group, _, _ in aimed)
        return grown

    def _new_rules(self, decision: Decision) -> dict[str, list[Rule]]:
        table = self._tables["rule"]
        found: dict[str, list[Rule]] = {}
        for rule in decision.made_in(table):
            if rule.id not in table.rows:
                found.setdefault(rule.security_group_id, []).append(rule)
        return found

    def _check_port_sets(self, decision: Decision) -> None:
        """Raise Conflict where a set of groups would speak of more protocols and ports than a host can tell apart."""
        more: dict[str, set[tuple[Where, Ports]]] = {}
        sets = {identity.groups for identity in decision.made_in(self._tables["identity"])}
        for group, rules in self._new_rules(decision).items():
            seen = Cost()
            for rule in rules:
                seen.count(rule, 1)
            fresh = seen.numbered.keys() - self._cost(group).numbered.keys()
            if fresh:
                more[group] = set(fresh)
                sets |= {identity.groups for identity in self._tables["identity"].by("group", group)}
                sets.add((group,))
        for groups in sets:
            parts = [*(self._cost(group).numbered for group in groups), *(more.get(group, ()) for group in groups)]
            if sum(map(len, parts)) <= PORT_SETS_MAX:
                continue
            counts = Counter(where for where, _ in {one for part in parts for one in part})
            for (direction, family), number in counts.items():
                if number > PORT_SETS_MAX:
                    raise Conflict(
                        f"The rules of security groups {', '.join(sorted(groups))} about remotes, {direction} "
                        f"{family}, would have {number} different protocols and ranges of ports; a port may have "
                        f"{PORT_SETS_MAX}. What is open to all remotes does not count.",
                        type="SecurityGroupPortSetsExceeded",
                    )


def _count(counts: Counter[Any], key: Any, by: int) -> bool:
    """Add to a count; return whether the key came or went."""
    old = counts[key]
    counts[key] = old + by
    if not counts[key]:
        del counts[key]
    return not old or not old + by


def _ports(rule: Rule) -> Ports:
    return (rule.proto, rule.port_range_min, rule.port_range_max)


def _of_family(named: AddressGroup, family: str) -> int:
    wide = sum(1 for prefix in named.addresses if ":" in prefix)
    return wide if family == IPV6 else len(named.addresses) - wide
