"""Whether a caller may do what it asks: the rules of the declarations, applied; and the table of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec
from msgspec import UNSET

from crossway.control import confine
from crossway.control.caller import Caller, may, project_of, seen, somewhere
from crossway.control.cloud import Cloud
from crossway.control.collection import Action, Collection
from crossway.control.collections import COLLECTIONS
from crossway.control.decision import Decision
from crossway.errors import Forbidden, NotFound
from crossway.model.kinds import BY_TABLE
from crossway.model.resource import REQUIRED, Attribute, Given, Kind, Resource
from crossway.model.who import HOSTS, Who

NOTHING: frozenset[str] = frozenset()


def create(decision: Decision, caller: Caller, collection: Collection, body: Mapping[str, Any], given: Given) -> None:
    """Let the caller make what was *given*, said as *body*; or raise Forbidden, or NotFound for its parent."""
    if caller.admin:
        return
    cloud, kind = decision.cloud, collection.kind
    target = _Target(kind, project_of(caller, given) if "project_id" in given else "", given)
    if not somewhere(caller, kind.create):
        # Wherever it were to be made: that says nothing of its parent.
        raise refused(f"create_{kind.name}", kind.create)
    if kind.parent:
        field, table = kind.parent
        parent = decision.get(cloud.tables[table], str(given.get(field)))
        seen(cloud, caller, BY_TABLE[table].name, str(given.get(field)), parent)
    _require(cloud, caller, kind.create, target, f"create_{kind.name}")
    _attributes(cloud, caller, kind, body, given, target, update=False)
    if caller.host:
        confine.create(decision, caller, kind, target, given, body)


def update(
    decision: Decision, caller: Caller, collection: Collection, id: str, body: Mapping[str, Any], given: Given
) -> None:
    """Let the caller change a resource as *body* says, checked as *given*.

    Raise Forbidden, or NotFound if it may not see it.
    """
    if caller.admin:
        return
    cloud, kind = decision.cloud, collection.kind
    resource = _resource(decision, caller, collection, id)
    _require(cloud, caller, kind.update, resource, f"update_{kind.name}")
    _attributes(cloud, caller, kind, body, given, resource, update=True)
    if caller.host:
        confine.update(decision, caller, kind, resource, given, body)


def delete(decision: Decision, caller: Caller, collection: Collection, id: str) -> None:
    if caller.admin:
        return
    kind = collection.kind
    resource = _resource(decision, caller, collection, id)
    _require(decision.cloud, caller, kind.delete, resource, f"delete_{kind.name}")
    if caller.host:
        confine.delete(decision, caller, kind, resource)


def act(
    decision: Decision, caller: Caller, collection: Collection, id: str, name: str, action: Action, body: Any = None
) -> None:
    """Let the caller do one of a collection's own actions on a resource, as *body* says."""
    if caller.admin:
        return
    resource, rule = _resource(decision, caller, collection, id), rule_of(collection.kind, name, action)
    _require(decision.cloud, caller, action.who, resource, rule)
    for part in dict.fromkeys(_words(body)) if action.parts else ():
        if part in action.parts:
            _require(decision.cloud, caller, action.parts[part], resource, f"{rule}:{part}")


def _words(body: Any) -> Iterator[str]:
    """Return the names of all that stands in a body."""
    if isinstance(body, dict):
        for name, value in body.items():
            yield name
            yield from _words(value)
    elif isinstance(body, list):
        for item in body:
            yield from _words(item)


def hidden(cloud: Cloud, caller: Caller, resource: Resource) -> frozenset[str]:
    """Return the attributes of a resource that the caller may not see."""
    if caller.admin or not resource.kind.guarded:
        return frozenset()
    unseen = NOTHING
    for who, wires in resource.kind.seen_by.items():
        if not may(cloud, caller, who, resource):
            unseen |= wires
    return unseen


def table(collections: Iterable[Collection] = COLLECTIONS, below: str = "") -> Iterator[tuple[str, Who]]:
    """Return every operation and attribute that a rule is for, and who may: as `crossway policy` prints it."""
    for collection in collections:
        kind = collection.kind
        name = f"{below}_{kind.name}" if below else kind.name
        for verb, possible in (
            ("create", collection.create),
            ("get", True),
            ("update", collection.update),
            ("delete", collection.delete),
        ):
            if not possible:
                continue
            yield f"{verb}_{name}", getattr(kind, verb)
            for declared in kind.attributes.values():
                yield from _rules_of(kind, declared, verb, f"{verb}_{name}")
        if "tags" in kind.attributes:
            # Hosts change a port, and say no more of it than they need.
            yield f"update_{name}:tags", Who(kind.update - HOSTS)
        for action_name, action in collection.actions.items():
            rule = rule_of(kind, action_name, action)
            yield rule, action.who
            for part, who in action.parts.items():
                yield f"{rule}:{part}", who
        yield from table(collection.children, name)


def rule_of(kind: Kind[Any], name: str, action: Action) -> str:
    """Return what the rule for one of a collection's own actions is called."""
    if action.method == "GET":
        return f"get_{kind.name}:{name.removeprefix('get_')}"
    return name if kind.name in name else f"{name}:{kind.name}"


def _rules_of(kind: Kind[Any], declared: Attribute, verb: str, rule: str) -> Iterator[tuple[str, Who]]:
    who = {"create": declared.create, "update": declared.update, "get": declared.see}.get(verb)
    possible = {"create": declared.post, "update": declared.put, "get": True}.get(verb)
    if who is not None and possible:
        yield f"{rule}:{declared.wire}", who
    if verb != "get" and possible:
        for part, whose in declared.parts.items():
            yield f"{rule}:{declared.wire}:{part}", whose


class _Target:
    """What something new would be, as far as rules ask."""

    def __init__(self, kind: Kind[Any], project_id: str, given: Given) -> None:
        self.kind, self.project_id, self.id = kind, project_id, ""
        if kind.parent:
            setattr(self, kind.parent[0], given.get(kind.parent[0]))


def _resource(decision: Decision, caller: Caller, collection: Collection, id: str) -> Resource:
    kind = collection.kind
    found: Resource | None = decision.get(decision.cloud.tables[kind.table], id)
    if collection.below is not None:
        found = next((row for row in collection.below(decision.cloud, id.partition(".")[0]) if row.id == id), None)
    if found is None and collection.absent is not None:
        found = collection.absent(id)
    if found is None:
        raise NotFound(kind.name, id)
    resource: Resource = seen(decision.cloud, caller, kind.name, id, found)
    if kind.absent and resource.project_id != caller.project and not may(decision.cloud, caller, kind.update, resource):
        raise NotFound(kind.name, id)
    return resource


def _attributes(
    cloud: Cloud,
    caller: Caller,
    kind: Kind[Any],
    body: Mapping[str, Any],
    given: Given,
    target: Any,
    update: bool,
) -> None:
    """Ask for the right to each attribute that is said; to say what it is anyway, or by default, needs none."""
    verb = "update" if update else "create"
    for wire, value in body.items():
        if wire in kind.forgets and not update:
            continue
        declared = kind.names[wire]
        who = declared.update if update else declared.create
        if declared.guards is not None and not declared.guards(value):
            continue
        if who is None and not declared.parts:
            continue
        is_now = getattr(target, declared.field, UNSET) if update else declared.default
        # What is a word of the request stands elsewhere; and nobody is told by a refusal what is not for them to see.
        seen_by = not update or declared.see is None or may(cloud, caller, declared.see, target)
        if (declared.shown or not update) and _same(value, given.get(declared.field, UNSET), is_now, seen_by):
            continue
        if who is not None:
            _require(cloud, caller, who, target, f"{verb}_{kind.name}:{declared.wire}")
        if declared.parts:
            items = value if isinstance(value, list | tuple) else [value]
            for part in dict.fromkeys(key for item in items if isinstance(item, dict) for key in item):
                if part in declared.parts:
                    _require(cloud, caller, declared.parts[part], target, f"{verb}_{kind.name}:{declared.wire}:{part}")


def _same(said: Any, checked: Any, is_now: Any, seen_by: bool) -> bool:
    """Say whether an attribute that is *said*, and *checked*, is what it is now; nothing is nothing."""
    if is_now is UNSET or is_now is REQUIRED or checked is UNSET:
        return False
    if not checked and not is_now:
        return True
    return seen_by and bool(checked == is_now or said == msgspec.to_builtins(is_now))


def _require(cloud: Cloud, caller: Caller, who: Who, target: Any, rule: str) -> None:
    if not may(cloud, caller, who, target):
        raise refused(rule, who)


def refused(rule: str, who: Who) -> Forbidden:
    """Return the fault of one who may not do what a rule is for."""
    return Forbidden(f"({rule}) is disallowed by policy: it is for {who}", type="PolicyNotAuthorized")
