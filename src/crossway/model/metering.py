"""Metering labels and their rules: whose traffic is counted, and what of it."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from crossway.model.check import as_prefix, boolean, ip_or_cidr, name, one_of, or_none, says, schema_of, text, uuid
from crossway.model.resource import Attribute, Kind, Resource, attribute
from crossway.model.rule import EGRESS, INGRESS
from crossway.model.who import MANAGER, PARENT_MANAGER, PARENT_READER, READER


@says(schema_of(or_none(ip_or_cidr)))
def _prefix(value: Any) -> str | None:
    return None if value in (None, "") else as_prefix(value)


def prefix() -> Attribute:
    return attribute(_prefix, put=False, default=None)


class MeteringLabel(Resource, frozen=True, kw_only=True, gc=False):
    name: Annotated[str, attribute(name(255), put=False, default="")] = ""
    description: Annotated[str, attribute(text(1024), put=False, default="")] = ""
    shared: Annotated[bool, attribute(boolean, put=False, default=False)] = False


class MeteringLabelRule(Resource, frozen=True, kw_only=True, gc=False):
    metering_label_id: Annotated[str, attribute(uuid, put=False, default=msgspec.NODEFAULT)]
    direction: Annotated[str, attribute(one_of(INGRESS, EGRESS), put=False, default=msgspec.NODEFAULT)]
    excluded: Annotated[bool, attribute(boolean, put=False, default=False)] = False
    remote_ip_prefix: Annotated[str | None, prefix()] = None
    source_ip_prefix: Annotated[str | None, prefix()] = None
    destination_ip_prefix: Annotated[str | None, prefix()] = None


STANDARD = ("created_at", "updated_at", "revision_number", "tags")

METERING_LABEL = Kind(
    MeteringLabel,
    "metering_label",
    "metering_labels",
    create=MANAGER,
    get=READER,
    delete=MANAGER,
    without=STANDARD,
)

METERING_LABEL_RULE = Kind(
    MeteringLabelRule,
    "metering_label_rule",
    "metering_label_rules",
    create=PARENT_MANAGER,
    get=READER | PARENT_READER,
    delete=MANAGER | PARENT_MANAGER,
    without=("name", "description", *STANDARD),
    parent=("metering_label_id", "metering_label"),
    indexes=("project_id", "metering_label_id"),
)
