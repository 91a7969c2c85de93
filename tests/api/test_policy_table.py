"""Who may do what: every operation × every role × own, other's and shared, against what Neutron's policies say.

The cases follow from the declarations; what should come of them stands in
policy_expectations.py. An operation of which nothing stands there fails.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec
import pytest

from api.policy_expectations import EXPECTED
from api.policy_stock import (
    ACTIONS,
    CHANGE,
    FRIEND,
    GUEST,
    LODGERS,
    MAKE,
    NAMED,
    NAMES,
    NOBODYS,
    OTHER,
    OWNER,
    PARENT_SHARED,
    ROLES,
    SAY,
    SHARED,
    THERE,
    WRONG,
    Made,
    Stock,
    make,
    owned,
    share,
    share_parent,
    wire,
)
from crossway.control.policy import table

RANK = {"reader": 1, "member": 2, "manager": 3}


def allowed(rule: str, role: str, facts: frozenset[str]) -> bool:
    """Say whether it is expected that a role may, and may all that the rule is a part of."""
    words = rule.split(":")
    rules = [":".join(words[:n]) for n in range(1, len(words) + 1)]
    return all(_one(EXPECTED[one], role, facts) for one in rules if one in EXPECTED)


def _one(reasons: frozenset[str], role: str, facts: frozenset[str]) -> bool:
    if role == "admin":
        return True
    rank = RANK["member"] if role == "integrator" else RANK.get(role, 0)
    for reason in reasons:
        whose, _, least = reason.partition(" ")
        if reason == role == "service" or reason == role == "integrator":
            return True
        if reason == "any" and rank:
            return True
        if reason == "shared" and "shared" in facts and rank:
            return True
        if reason == "parent shared" and "parent shared" in facts and rank >= RANK["member"]:
            return True
        if whose in facts and rank >= RANK.get(least, 9):
            return True
    return False


# The rules of each collection, without those of its children.
RULES = {
    name: [
        rule
        for rule, _ in table(
            [msgspec.structs.replace(collection, children=())],
            name.removesuffix(collection.kind.name).removesuffix("_"),
        )
    ]
    for name, collection in NAMES.items()
}


def test_every_operation_is_expected_and_every_expectation_is_of_one() -> None:
    assert {rule for rule, _ in table()} == EXPECTED.keys()


def test_every_collection_is_tried() -> None:
    assert NAMES.keys() == MAKE.keys() | THERE.keys()
    said = {rule.partition("_")[2] for name in NAMES for rule in _attribute_rules(name)}
    assert said == SAY.keys()
    actions = {rule for name in NAMES for rule in _action_rules(name)}
    assert {rule for rule in actions if not rule.startswith("get_")} == ACTIONS.keys()


def _attribute_rules(name: str) -> list[str]:
    return [
        rule
        for rule in RULES[name]
        if rule.startswith((f"create_{name}:", f"update_{name}:")) and not rule.endswith(":tags")
    ]


def _action_rules(name: str) -> list[str]:
    plain = {f"{verb}_{name}" for verb in ("create", "get", "update", "delete")}
    attributes = NAMES[name].kind.attributes
    return [
        rule
        for rule in RULES[name]
        if rule.split(":")[0] not in plain
        or (rule.startswith("get_") and rule.partition(":")[2] not in (*attributes, ""))
    ]


class Relation(NamedTuple):
    """How a caller's project stands to an object: the words of EXPECTED that are true of it."""

    label: str
    project: str
    facts: frozenset[str]
    make: Callable[[], Made]


def relations(stock: Stock, name: str) -> Iterator[Relation]:
    own = frozenset({"own", "parent"})
    if name in NOBODYS:
        yield Relation("anyone", OTHER, frozenset(), lambda: make(stock, name, OWNER))
        return
    yield Relation("own", OWNER, own, lambda: make(stock, name, OWNER))
    if name in THERE and not make(stock, name, OWNER).id:
        return
    yield Relation("other's", OTHER, frozenset(), lambda: make(stock, name, OWNER))
    if name in LODGERS:
        yield Relation("below one's own", OWNER, frozenset({"parent"}), lambda: make(stock, name, GUEST, OWNER))
        yield Relation("below another's", GUEST, frozenset({"own"}), lambda: make(stock, name, GUEST, OWNER))
    if name in SHARED:

        def shared(target: str, action: str = "access_as_shared") -> Made:
            made = make(stock, name, OWNER)
            share(stock, SHARED[name][1], made.id, target, action)
            return made

        facts = frozenset({"shared"})
        yield Relation("shared with one's project", FRIEND, facts, lambda: shared(FRIEND))
        yield Relation("shared with others", OTHER, frozenset(), lambda: shared(FRIEND))
        yield Relation("shared with all", OTHER, facts, lambda: shared("*"))
        if name == "network":
            yield Relation("external to one's project", FRIEND, facts, lambda: shared(FRIEND, "access_as_external"))
            yield Relation("external to all", OTHER, facts, lambda: shared("*", "access_as_external"))
    if name in PARENT_SHARED:

        def below(action: str = "access_as_shared") -> Made:
            path, body = MAKE[name](stock, OWNER)
            share_parent(stock, name, path, body, action)
            id = stock.new(path, wire(name), body, OWNER if owned(name) else "")
            return Made(f"{path}/{id}", id, OWNER)

        facts = frozenset({"parent shared", "shared"}) if name == "subnet" else frozenset({"parent shared"})
        yield Relation("below what is shared", FRIEND, facts, below)
        if name == "subnet":
            external = "access_as_external"
            yield Relation("below what is external", FRIEND, frozenset({"shared"}), lambda: below(external))


class Tally:
    """What was found otherwise than expected."""

    def __init__(self, stock: Stock) -> None:
        self.stock, self.asked = stock, 0
        self.wrong: list[str] = []

    def ask(self, who: tuple[str, str, str], want: set[int], method: str, path: str, body: Any = None) -> str:
        label, project, role = who
        status, text = self.stock.ask(project, role, method, path, body)
        self.asked += 1
        if status not in want:
            self.wrong.append(f"{role}, {label}: {method} {path} {body}: {status}, not {sorted(want)}: {text[:200]}")
        return text

    def end(self) -> None:
        assert self.asked
        assert not self.wrong, f"{len(self.wrong)} of {self.asked}:\n" + "\n".join(self.wrong)

    def check(self, fine: bool, says: str) -> None:
        if not fine:
            self.wrong.append(says)


@pytest.mark.parametrize("name", NAMES)
def test_who_may_see_and_change(stock: Stock, name: str) -> None:
    tally = Tally(stock)
    for relation in relations(stock, name):
        made: Made | None = None
        for role in ROLES:
            made = _try(tally, name, relation, role, made or relation.make(), relation.make)
    tally.end()


def _try(tally: Tally, name: str, relation: Relation, role: str, at: Made, fresh: Callable[[], Made]) -> Made | None:
    """Have one role do all that there is to do; return the object if it is still there."""
    kind = NAMES[name].kind
    who = (relation.label, relation.project, role)

    def may(rule: str) -> bool:
        return allowed(rule, role, relation.facts)

    sees = may(f"get_{name}")
    hidden = {403, 404} if name in NAMED else {404}

    own = "own" in relation.facts

    def want(rule: str, done: int) -> set[int]:
        return {done} if may(rule) and sees else {403} if sees and (own or not kind.absent) else hidden

    listed, one = at.path.rpartition("/")[0] if at.id else at.path, at.path
    if name not in NAMED:
        query = f"?id={at.id}" if "id" in kind.attributes else ""
        text = tally.ask(who, {200} if sees or "/" not in listed else {200, 404}, "GET", listed + query)
        if at.id:
            tally.check((at.id in text) == sees, f"{who}: {at.id} in the list {listed}{query}: {text[:200]}")
        else:
            tally.check((kind.name in text and "[]" not in text) == sees, f"{who}: {listed}: {text[:200]}")
    if not at.id:
        return at
    text = tally.ask(who, {200} if sees else hidden, "GET", one)
    if sees and text.startswith("{"):
        shown = msgspec.json.decode(text).get(kind.name, {})
        for rule in RULES[name]:
            if rule.startswith(f"get_{name}:") and rule.partition(":")[2] in kind.attributes:
                attribute = rule.partition(":")[2]
                # Those are told only where there are several.
                if attribute != "segments":
                    tally.check((attribute in shown) == may(rule), f"{who}: {attribute} in {text[:300]}")
                _ask_by(tally, who, may(rule), listed, one, name, attribute)
    for rule in RULES[name]:
        if rule == f"update_{name}":
            body = CHANGE.get(name) or {"description": f"by {role}"}
            tally.ask(who, want(rule, 200), "PUT", one, {kind.name: body})
        elif rule == f"update_{name}:tags":
            plural = f"{kind.plural}/{at.id}"
            tally.ask(who, want(rule, 200), "PUT", f"{plural}/tags", {"tags": ["a"]})
            tally.ask(who, want(rule, 201), "PUT", f"{plural}/tags/b")
            tally.ask(who, {200} if sees else hidden, "GET", f"{plural}/tags")
            tally.ask(who, want(rule, 204), "DELETE", f"{plural}/tags")
        elif rule in _action_rules(name):
            at = _act(tally, who, rule, want(rule, 200), at, fresh)
            one = at.path
        elif rule in _attribute_rules(name) and rule.startswith("update_"):
            _say(tally, who, rule, want(rule, 200), one, "PUT", {}, name)
    if f"delete_{name}" not in RULES[name]:
        return at
    if name in ("agent",) and role == "admin":
        return at
    rule = f"delete_{name}"
    gone = want(rule, 204) == {204}
    if gone and name in ("router", "subnetpool"):
        # The one at hand has interfaces or subnets by now.
        at = fresh()
    tally.ask(who, want(rule, 204), "DELETE", at.path)
    return None if gone else at


def _ask_by(tally: Tally, who: tuple[str, str, str], may: bool, listed: str, one: str, name: str, wire: str) -> None:
    """Ask for an attribute alone, by it and in its order: what may not be seen is not told so either."""
    declared = NAMES[name].kind.attributes[wire]
    text = tally.ask(who, {200}, "GET", f"{one}?fields={wire}")
    tally.check(may or wire not in text, f"{who}: {wire} in {text[:200]}")
    if declared.filter:
        found = tally.stock.admin("GET", f"/v2.0/{one}")[NAMES[name].kind.name]
        value = found.get(wire)
        sought = value if value is not None else 1 if declared.filter_check else "x"
        text = tally.ask(who, {200}, "GET", f"{listed}?{wire}={sought}")
        # Of what is one's own one may ask by more than one sees.
        there = found["id"] in text
        tally.check(there or value is None or not may, f"{who}: {wire} {value} does not find it: {text[:200]}")
        tally.check(may or who[1] == found["project_id"] or not there, f"{who}: {wire} finds {text[:200]}")
    if declared.sort:
        tally.ask(who, {200} if may else {400}, "GET", f"{listed}?sort_key={wire}")


def _act(
    tally: Tally, who: tuple[str, str, str], rule: str, want: set[int], at: Made, fresh: Callable[[], Made]
) -> Made:
    if rule.startswith("get_"):
        action = rule.partition(":")[2]
        name = f"get_{action}" if action == "subports" else action
        tally.ask(who, want, "GET", f"{at.path}/{name}")
        return at
    if want == {200} and (rule == "activate:binding" or "gateways" in rule):
        at = fresh()
    action = rule.split(":")[0]
    tally.ask(who, want, "PUT", f"{at.path}/{action}", ACTIONS[rule](tally.stock, at))
    return at


def _say(
    tally: Tally,
    who: tuple[str, str, str],
    rule: str,
    want: set[int],
    path: str,
    method: str,
    body: Mapping[str, Any],
    name: str,
) -> str:
    about = rule.partition("_")[2]
    asked = {wire(name): {**body, **SAY[about](tally.stock)}}
    if about in WRONG and want <= {200, 201}:
        text = tally.ask(who, {200, 201, 400, 404, 409}, method, path, asked)
        tally.check("PolicyNotAuthorized" not in text, f"{who}: {rule}: {text[:200]}")
        return text
    return tally.ask(who, want, method, path, asked)


@pytest.mark.parametrize("name", [name for name, collection in NAMES.items() if collection.create])
def test_who_may_make(stock: Stock, name: str) -> None:
    tally, kind = Tally(stock), NAMES[name].kind
    rules = [f"create_{name}", *(rule for rule in _attribute_rules(name) if rule.startswith("create_"))]
    own, alone = frozenset({"own", "parent"}), frozenset({"own"})
    bears = kind.parent is not None
    cases: list[tuple[str, str, frozenset[str], bool]] = [("own", OWNER, own, False)]
    if bears:
        cases.append(("below another's", OTHER, alone, False))
    if name in PARENT_SHARED:
        cases.append(("below what is shared", FRIEND, alone | {"parent shared"}, True))
    for (label, project, facts, shared), role, rule in itertools.product(cases, ROLES, rules):
        path, body = MAKE[name](stock, OWNER)
        if shared:
            share_parent(stock, name, path, body)
        who = (label, project, role)
        fine = allowed(rule, role, facts)
        if name == "port" and label == "below another's" and role == "service":
            # It sees every network.
            body = {**body, "project_id": OWNER}
        want = {201} if fine else {403}
        if rule != f"create_{name}":
            if allowed(f"create_{name}", role, facts):
                _say(tally, who, rule, want, path, "POST", body, name)
            continue
        hides = not fine and label == "below another's"
        tally.ask(who, {403, 404} if hides else want, "POST", path, {wire(name): body})
    if name == "network_segment_range":
        # Networks are numbered from ranges of their project's: leave none.
        for one in stock.admin("GET", "/v2.0/network_segment_ranges")["network_segment_ranges"]:
            if not one["default"]:
                stock.admin("DELETE", f"/v2.0/network_segment_ranges/{one['id']}")
    if owned(name) and not bears and name != "network_segment_range":
        for role in ROLES:
            path, body = MAKE[name](stock, OWNER)
            want = {201} if role == "admin" else {400, 403, 404}
            body["project_id"] = OWNER
            tally.ask(("for another", OTHER, role), want, "POST", path, {wire(name): body})
    tally.end()
