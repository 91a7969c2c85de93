"""The collections of the Networking API: which verbs make, change and delete each, and how each is shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from crossway.control import group, network, port, router, rule, subnet
from crossway.control.caller import Caller
from crossway.control.cloud import Cloud, Step, Table
from crossway.control.decision import Decision
from crossway.model.group import GROUP
from crossway.model.network import NETWORK
from crossway.model.port import PORT
from crossway.model.resource import Given, Kind, Resource
from crossway.model.router import ROUTER
from crossway.model.rule import RULE
from crossway.model.subnet import SUBNET

ENCODER = msgspec.json.Encoder()
# Encoded objects that are kept of one collection; beyond, it begins anew.
KEPT = 50_000

Create = Callable[[Decision, Caller, Given], Resource]
Update = Callable[[Decision, Caller, str, Given], Resource]
Delete = Callable[[Decision, Caller, str], None]


class Collection(msgspec.Struct, frozen=True):
    """One collection: its kind, its table in the cloud, its verbs."""

    kind: Kind[Any]
    table: str
    create: Create
    update: Update
    delete: Delete
    # What is shown beside an object's own attributes, read from the cloud.
    derived: dict[str, Callable[[Cloud, Any], Any]] = {}
    # A name that holds the attribute's values in `Table.indexes`, for filters.
    indexes: tuple[str, ...] = ("project_id",)


def _subnets(cloud: Cloud, network: Any) -> list[str]:
    return list(cloud.subnets.ids("network_id", network.id))


def _rules(cloud: Cloud, group: Any) -> list[dict[str, Any]]:
    return [RULE.show(rule) for rule in cloud.rules.by("security_group_id", group.id)]


COLLECTIONS = {
    collection.kind.plural: collection
    for collection in (
        Collection(
            NETWORK,
            "network",
            network.create,
            network.update,
            network.delete,
            {"subnets": _subnets, "l2_adjacency": lambda cloud, network: True},
            ("project_id", "name"),
        ),
        Collection(SUBNET, "subnet", subnet.create, subnet.update, subnet.delete, {}, ("project_id", "network_id")),
        Collection(
            PORT,
            "port",
            port.create,
            port.update,
            port.delete,
            {},
            ("project_id", "network_id", "device_id", "host", "mac_address", "security_groups"),
        ),
        Collection(ROUTER, "router", router.create, router.update, router.delete),
        Collection(
            GROUP,
            "group",
            group.create,
            group.update,
            group.delete,
            {"security_group_rules": _rules},
            ("project_id", "name"),
        ),
        Collection(
            RULE,
            "rule",
            rule.create,
            rule.update,
            rule.delete,
            {},
            ("project_id", "security_group_id", "remote_group_id"),
        ),
    )
}
BY_TABLE = {collection.table: collection for collection in COLLECTIONS.values()}


class Shapes:
    """JSON of each object, kept until it changes."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self._kept: dict[tuple[str, bool], dict[str, bytes]] = {
            (table, admin): {} for table in BY_TABLE for admin in (True, False)
        }
        cloud.listeners.append(self._change)

    def table(self, collection: Collection) -> Table[Any]:
        return self.cloud.tables[collection.table]

    def encode(self, collection: Collection, resource: Resource, admin: bool) -> bytes:
        kept = self._kept[collection.table, admin]
        encoded = kept.get(resource.id)
        if encoded is None:
            if len(kept) >= KEPT:
                kept.clear()
            encoded = ENCODER.encode(self.shape(collection, resource, admin))
            if self.table(collection).rows.get(resource.id) is resource:
                kept[resource.id] = encoded
        return encoded

    def shape(self, collection: Collection, resource: Resource, admin: bool) -> dict[str, Any]:
        shape = collection.kind.show(resource)
        for name, derive in collection.derived.items():
            shape[name] = derive(self.cloud, resource)
        if not admin:
            for wire in collection.kind.unseen:
                del shape[wire]
        return shape

    def fields(self, collection: Collection, resource: Resource, admin: bool, fields: list[str]) -> dict[str, Any]:
        """Return only these attributes; those that there are not are left out."""
        shape: dict[str, Any] = {}
        for name in fields:
            declared = collection.kind.names.get(name)
            if declared:
                if admin or declared.admin != "all":
                    shape[name] = getattr(resource, declared.field)
            elif name in collection.derived:
                shape[name] = collection.derived[name](self.cloud, resource)
        return shape

    def _change(self, revision: int, steps: list[Step]) -> None:
        for kind, id, old, new in steps:
            self._forget(kind, id)
            if kind == "subnet":
                self._forget("network", (new or old).network_id)
            elif kind == "rule":
                self._forget("group", (new or old).security_group_id)

    def _forget(self, table: str, id: str) -> None:
        if table in BY_TABLE:
            self._kept[table, True].pop(id, None)
            self._kept[table, False].pop(id, None)
