"""Our declarations against Neutron's: every resource, attribute, flag, default and kind of validation.

The facts are `neutron.json`, of a booted Neutron 29 with most of its plugins. What is not as
there stands in `differences.py` with its reason, and nothing else does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import UNSET

from crossway.api.extensions import EXTENSIONS
from crossway.api.query import TAGS
from crossway.control.collection import Collection
from crossway.control.collections import COLLECTIONS
from crossway.model.resource import REQUIRED, Attribute
from unit.model.differences import ANNOUNCED_BESIDES, DIFFERENT, NOT_ANNOUNCED, NOT_ANNOUNCED_THERE, NOT_SERVED
from unit.model.probes import probes

FACTS = json.loads((Path(__file__).parent / "neutron.json").read_text())
# Older clients say tenant where newer ones say project; both are served wherever one is.
TWINS = {"tenant_id": "project_id", "project_id": "tenant_id"}
FLAGS = ("post", "put", "visible", "filter", "sort", "required")
Differences = dict[tuple[str, str, str], Any]


def ours(collections: tuple[Collection, ...] = COLLECTIONS, below: str = "") -> Iterator[tuple[str, Collection]]:
    for collection in collections:
        name = f"{below}{collection.kind.plural}"
        yield name, collection
        yield from ours(collection.children, f"{name}/")


SERVED = dict(ours())
# Those that are a question to one resource, and no collection here: /v2.0/flavors/ID/next_providers.
ASKED = {f"{name}/{word}" for name, c in SERVED.items() for word, action in c.actions.items() if action.method == "GET"}


def behaves(collection: Collection, name: str) -> dict[str, bool] | None:
    """Return what can be done with an attribute; None if there is no such."""
    kind = collection.kind
    declared: Attribute | None = kind.names.get(name)
    shown = name in collection.derived or (name == "shared" and kind.tells_shared)
    filtered = name in collection.filters or (name in (*TAGS, "shared") and (shown or "tags" in kind.attributes))
    if declared is None:
        if not shown and not filtered:
            return None
        return {**dict.fromkeys(FLAGS, False), "visible": shown, "filter": filtered}
    return {
        "post": declared.post and collection.create is not None,
        "put": declared.put and collection.update is not None,
        "visible": declared.shown or shown,
        "filter": declared.filter or filtered,
        "sort": declared.sort,
        "required": declared.post and collection.create is not None and declared.default is REQUIRED,
    }


def empty(value: Any) -> bool:
    return value is UNSET or value in (None, False, "", (), {})


def compared(resource: str, collection: Collection) -> Differences:
    """Return all that is not as Neutron has it, as RESOURCE, ATTRIBUTE, WHAT: how it is here."""
    found: Differences = {}
    facts = FACTS["resources"][resource]
    for name, fact in facts.items():
        here = behaves(collection, name)
        if name in collection.kind.forgets:
            continue  # POST takes it and nobody keeps it, there as here.
        if here is None:
            if any(fact.get(flag) for flag in FLAGS):
                found[resource, name, "there"] = False
            continue
        for flag in FLAGS:
            there = bool(fact.get(flag))
            if flag == "required" and name in TWINS:
                continue  # It is the caller's own where nothing is said.
            if flag in ("filter", "sort") and here[flag]:
                continue  # More than Neutron has, everywhere.
            if here[flag] != there:
                found[resource, name, flag] = here[flag]
        declared = collection.kind.names.get(name)
        if declared is None or not (here["post"] or here["put"]):
            continue
        if here["post"] and not here["required"] and not fact.get("required"):
            default = declared.default
            # What is not said is nothing: an empty value is as good.
            same = empty(default) if fact.get("default") in (None, []) else default in (fact["default"], UNSET)
            if not same:
                found[resource, name, "default"] = default
        good, bad = probes(fact)
        if collection.kind.names[name].check([]) == () if takes(declared, []) else False:
            # null stands for nothing wherever an empty list does.
            bad = [value for value in bad if value is not None]
        for value, taken in [*((value, True) for value in good), *((value, False) for value in bad)]:
            if takes(declared, value) != taken:
                found.setdefault((resource, name, "refuses" if taken else "takes"), []).append(value)
    known = {*facts, *(TWINS[name] for name in facts if name in TWINS)}
    for name in {*collection.kind.names, *collection.derived} - known:
        found[resource, name, "there"] = True
    return found


def takes(declared: Attribute, value: Any) -> bool:
    try:
        declared.check(value)
    except ValueError:
        return False
    return True


def test_every_resource_is_served_or_it_is_said_why_not() -> None:
    assert FACTS["resources"].keys() - SERVED.keys() - ASKED == {n for n, (there, _) in NOT_SERVED.items() if there}
    assert SERVED.keys() - FACTS["resources"].keys() == {n for n, (there, _) in NOT_SERVED.items() if not there}


@pytest.mark.parametrize("resource", sorted(FACTS["resources"].keys() & SERVED.keys()))
def test_a_resource_is_as_neutron_has_it_or_it_is_said_why_not(resource: str) -> None:
    said = {key: value for key, (value, _) in DIFFERENT.items() if key[0] == resource}
    assert compared(resource, SERVED[resource]) == said


def test_every_alias_is_announced_or_it_is_said_why_not() -> None:
    assert FACTS["reported"].keys() - EXTENSIONS.keys() == NOT_ANNOUNCED.keys()
    assert EXTENSIONS.keys() - FACTS["reported"].keys() == ANNOUNCED_BESIDES.keys()
    assert FACTS["known"].keys() - EXTENSIONS.keys() == NOT_ANNOUNCED_THERE.keys()
