"""A log: which packets that meet a security group should be written down."""

from __future__ import annotations

from typing import Annotated

import msgspec

from crossway.model.check import boolean, one_of, or_none, text, uuid
from crossway.model.resource import Kind, Resource, attribute, told
from crossway.model.who import MANAGER

SECURITY_GROUP = "security_group"
LOGGABLE = (SECURITY_GROUP,)


class Log(Resource, frozen=True, kw_only=True, gc=False):
    resource_type: Annotated[str, attribute(text(255), put=False, default=msgspec.NODEFAULT)]
    # A group, a port, both, or all of the project's.
    resource_id: Annotated[str | None, attribute(or_none(uuid), put=False, default=None)] = None
    target_id: Annotated[str | None, attribute(or_none(uuid), put=False, default=None)] = None
    event: Annotated[str, attribute(one_of("ACCEPT", "DROP", "ALL"), put=False, default="ALL")] = "ALL"
    enabled: Annotated[bool, attribute(boolean, default=True)] = True


LOG = Kind(
    Log,
    "log",
    "logs",
    create=MANAGER,
    get=MANAGER,
    update=MANAGER,
    delete=MANAGER,
    without=("tags",),
    indexes=("project_id", "resource_id", "target_id"),
)


class LoggableResource(Resource, frozen=True, kw_only=True, gc=False):
    """*id* is the type."""

    type: Annotated[str, told()]


LOGGABLE_RESOURCE = Kind(
    LoggableResource,
    "loggable_resource",
    "loggable_resources",
    get=MANAGER,
    without=("id", "project_id", "name", "description", "created_at", "updated_at", "revision_number", "tags"),
)
