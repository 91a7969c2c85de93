"""A security group: a set of rules that ports share."""

from __future__ import annotations

from typing import Annotated

from crossway.model.check import boolean, text
from crossway.model.resource import Kind, Resource, attribute, told
from crossway.model.who import HOST_OF_PROJECT, READER, SHARED

DEFAULT = "default"


class Group(Resource, frozen=True, kw_only=True, gc=False):
    # Of all names this one may be any text.
    name: Annotated[str, attribute(text(255), default="")] = ""
    stateful: Annotated[bool, attribute(boolean)] = True
    shared: Annotated[bool, told()] = False


GROUP = Kind(
    Group,
    "security_group",
    "security_groups",
    table="group",
    get=READER | SHARED | HOST_OF_PROJECT,
    indexes=("project_id", "name"),
    rbac="security_group",
)
