"""Where each collection stands below /v2.0, and the JSON of its resources."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote

import msgspec
from msgspec import UNSET

from crossway.api.answer import encode
from crossway.control.caller import Caller, shared
from crossway.control.cloud import Cloud, Step, Table
from crossway.control.collection import Action, Collection
from crossway.control.collections import COLLECTIONS, every
from crossway.control.policy import hidden
from crossway.model.check import UUID
from crossway.model.resource import Resource

# Encoded objects that are kept of one collection for one kind of eyes; beyond, it begins anew.
KEPT = 50_000
NOTHING: frozenset[str] = frozenset()


def path_of(collection: Collection) -> str:
    """Return where a collection stands: below /v2.0, or below one of its parents."""
    return collection.path or collection.kind.plural


# Hyphens and underscores are one: clients use both.
TOP = {path_of(c).replace("-", "_"): c for c in COLLECTIONS}
# Clients put tags below the plural alone, wherever the collection stands.
TAGGED = {c.kind.plural: c for c in COLLECTIONS if "tags" in c.kind.attributes}
STALE: dict[str, list[tuple[str, Any]]] = {}
STALE_BY: dict[str, list[tuple[str, str]]] = {}
STALE_IN: dict[str, list[tuple[str, Any]]] = {}
for _collection in every():
    for _table, _of in _collection.stale.items():
        STALE.setdefault(_table, []).append((_collection.kind.table, _of))
    for _table, _index in _collection.stale_by.items():
        STALE_BY.setdefault(_table, []).append((_collection.kind.table, _index))
    for _table, _find in _collection.stale_in.items():
        STALE_IN.setdefault(_table, []).append((_collection.kind.table, _find))


class Place(msgspec.Struct, frozen=True):
    """What a path names: a collection, maybe below a *parent*, one *id* of it, and what is to be done there."""

    collection: Collection
    parent: str = ""
    id: str = ""
    action: Action | None = None
    name: str = ""
    # None: not about tags; "": all of them.
    tag: str | None = None


def place(path: str) -> Place | None:
    """Find what a path below /v2.0/ names, as it was sent; None if it names nothing."""
    # A tag may end as it likes.
    path = path if "/tags/" in path else path.removesuffix(".json")
    segments = decoded(path)
    if segments is None:
        return None
    for length in (1, 2):
        collection = TOP.get("/".join(segments[:length]).replace("-", "_"))
        if collection is not None and len(segments) >= length:
            return _within(collection, "", segments[length:])
    if segments[2:3] == ["tags"] and (tagged := TAGGED.get(segments[0].replace("-", "_"))) is not None:
        return _within(tagged, "", segments[1:])
    return None


def decoded(path: str) -> list[str] | None:
    """Return the steps of a path as they were sent, each as what it stands for; None if that is no text."""
    try:
        return [unquote(step, errors="strict") for step in path.split("/") if step]
    except UnicodeDecodeError:
        return None


def _within(collection: Collection, parent: str, rest: list[str]) -> Place | None:
    if not rest:
        return Place(collection, parent)
    id, rest = rest[0].lower() if UUID.fullmatch(rest[0]) else rest[0], rest[1:]
    if collection.within:
        id = f"{parent}.{id}"
    if not rest:
        return Place(collection, parent, id)
    name = rest[0]
    if name == "tags" and "tags" in collection.kind.attributes:
        return Place(collection, parent, id, tag="/".join(rest[1:]))
    action = collection.actions.get(name)
    if action is not None and len(rest) == 1:
        return Place(collection, parent, id, action=action, name=name)
    for child in collection.children:
        if path_of(child).replace("-", "_") == name.replace("-", "_"):
            return _within(child, id, rest[1:])
    return None


class Shapes:
    """JSON of each object as eyes of a kind see it, kept until it changes."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        # By table; then by what is hidden and whether it is shared with who looks.
        self._kept: dict[str, dict[tuple[frozenset[str], bool], dict[str, bytes]]] = {
            c.kind.table: {} for c in every() if c.rows is None and c.below is None
        }
        cloud.listeners.append(self._change)

    def table(self, collection: Collection) -> Table[Any]:
        return self.cloud.tables[collection.kind.table]

    def encode(self, collection: Collection, resource: Resource, caller: Caller) -> bytes:
        if collection.rows is not None or collection.below is not None:
            return encode(self.shape(collection, resource, caller))
        unseen = hidden(self.cloud, caller, resource)
        told_shared = collection.kind.tells_shared and shared(self.cloud, caller.project, resource)
        kept = self._kept[collection.kind.table].setdefault((unseen, told_shared), {})
        encoded = kept.get(resource.id)
        if encoded is None:
            if len(kept) >= KEPT:
                kept.clear()
            encoded = encode(self._shape(collection, resource, unseen, told_shared))
            if self.table(collection).rows.get(resource.id) is resource:
                kept[resource.id] = encoded
        return encoded

    def encode_all(self, collection: Collection, some: Iterable[Resource], caller: Caller) -> list[bytes]:
        kept = self._kept.get(collection.kind.table)
        if kept is None or not caller.admin or collection.kind.tells_shared:
            return [self.encode(collection, one, caller) for one in some]
        # An admin sees all of each.
        known = kept.setdefault((NOTHING, False), {}).get
        return [known(one.id) or self.encode(collection, one, caller) for one in some]

    def shape(self, collection: Collection, resource: Resource, caller: Caller) -> dict[str, Any]:
        told_shared = collection.kind.tells_shared and shared(self.cloud, caller.project, resource)
        return self._shape(collection, resource, hidden(self.cloud, caller, resource), told_shared)

    def _shape(
        self, collection: Collection, resource: Resource, unseen: frozenset[str], told_shared: bool
    ) -> dict[str, Any]:
        shape = collection.kind.show(resource)
        for name, derive in collection.derived.items():
            value = derive(self.cloud, resource)
            if value is UNSET:
                shape.pop(name, None)
            else:
                shape[name] = value
        if collection.kind.tells_shared:
            shape["shared"] = told_shared
        for wire in unseen:
            shape.pop(wire, None)
        return shape

    def fields(
        self, collection: Collection, resource: Resource, caller: Caller, fields: Iterable[str]
    ) -> Mapping[str, Any]:
        """Return only these attributes; those that there are not are left out."""
        shape: dict[str, Any] = {}
        unseen = hidden(self.cloud, caller, resource)
        for name in fields:
            declared = collection.kind.names.get(name)
            if name == "shared" and collection.kind.tells_shared:
                shape[name] = shared(self.cloud, caller.project, resource)
            elif name in collection.derived and name not in unseen:
                if (value := collection.derived[name](self.cloud, resource)) is not UNSET:
                    shape[name] = value
            elif declared and declared.shown and declared.wire not in unseen:
                shape[name] = getattr(resource, declared.field)
        return shape

    def _change(self, revision: int, steps: list[Step]) -> None:
        for table, id, old, new in steps:
            self._forget(table, id)
            for other, of in STALE.get(table, ()):
                for row in (old, new):
                    if row is not None:
                        for stale in of(row):
                            self._forget(other, stale)
            for other, find in STALE_IN.get(table, ()):
                for row in (old, new):
                    if row is not None:
                        for stale in find(self.cloud, row):
                            self._forget(other, stale)
            for other, index in STALE_BY.get(table, ()):
                for stale in self.cloud.tables[other].ids(index, id):
                    self._forget(other, stale)

    def _forget(self, table: str, id: str) -> None:
        for kept in self._kept.get(table, {}).values():
            kept.pop(id, None)
