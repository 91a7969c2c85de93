"""An RBAC policy: another project, or every one (*), may use an object."""

from __future__ import annotations

from typing import Annotated

import msgspec

from crossway.model.check import one_of, text, uuid
from crossway.model.resource import Kind, Resource, attribute
from crossway.model.who import ADMIN, READER

ACCESS_AS_SHARED, ACCESS_AS_EXTERNAL = "access_as_shared", "access_as_external"
EVERYONE = "*"
OBJECT_TYPES = ("address_group", "address_scope", "network", "qos_policy", "security_group", "subnetpool")


def of_everyone(target: object) -> bool:
    return target == EVERYONE


class RbacPolicy(Resource, frozen=True, kw_only=True, gc=False, rename={"target": "target_tenant"}):
    object_type: Annotated[str, attribute(one_of(*OBJECT_TYPES), put=False, default=msgspec.NODEFAULT)]
    object_id: Annotated[str, attribute(uuid, put=False, default=msgspec.NODEFAULT)]
    action: Annotated[
        str, attribute(one_of(ACCESS_AS_SHARED, ACCESS_AS_EXTERNAL), put=False, default=msgspec.NODEFAULT)
    ]
    target: Annotated[str, attribute(text(255), default=msgspec.NODEFAULT, set_by=ADMIN, guards=of_everyone)]


RBAC_POLICY = Kind(
    RbacPolicy,
    "rbac_policy",
    "rbac_policies",
    table="rbac",
    get=READER,
    without=("name", "description", "created_at", "updated_at", "revision_number", "tags"),
    indexes={
        "project_id": None,
        "object_id": None,
        "target": None,
        "object_type": None,
    },
)
