"""A binding of a port to a host: the active one, which is the port's own, or one that waits to be activated."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from crossway.model.check import one_of, text
from crossway.model.port import VNIC_TYPES, binding_profile
from crossway.model.resource import REQUIRED, Kind, Resource, attribute, told
from crossway.model.who import HOST, HOST_OF_PORT, HOST_OF_PROJECT, SERVICE

ACTIVE, INACTIVE = "ACTIVE", "INACTIVE"
NOTHING: Any = msgspec.field(default_factory=dict)


class Binding(Resource, frozen=True, kw_only=True, gc=False):
    """*id* is PORT.HOST; only those that wait are kept."""

    port_id: str
    host: Annotated[str, attribute(text(255), put=False, default=REQUIRED)]
    vif_type: Annotated[str, told()]
    vif_details: Annotated[dict[str, Any], told(filter=False, sort=False)] = NOTHING
    vnic_type: Annotated[str, attribute(one_of(*VNIC_TYPES), default="normal")] = "normal"
    profile: Annotated[dict[str, Any], attribute(binding_profile, default={}, filter=False, sort=False)] = NOTHING
    status: Annotated[str, told()] = INACTIVE


BINDING = Kind(
    Binding,
    "binding",
    "bindings",
    table="port_binding",
    create=SERVICE | HOST_OF_PROJECT,
    get=SERVICE | HOST_OF_PORT | HOST_OF_PROJECT,
    update=SERVICE,
    delete=SERVICE | HOST,
    without=("id", "name", "description", "created_at", "updated_at", "revision_number", "tags"),
    parent=("port_id", "port"),
    indexes=("port_id",),
)
