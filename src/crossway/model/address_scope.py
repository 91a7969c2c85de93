"""An address scope: subnet pools whose prefixes do not overlap."""

from __future__ import annotations

from typing import Annotated

import msgspec

from crossway.model.check import boolean, ip_version
from crossway.model.resource import Kind, Resource, attribute
from crossway.model.who import ADMIN, READER, SHARED


class AddressScope(Resource, frozen=True, kw_only=True, gc=False):
    ip_version: Annotated[int, attribute(ip_version, put=False, default=msgspec.NODEFAULT)]
    # A word of the request: whether it is shared stands among the RBAC policies.
    shared: Annotated[bool, attribute(boolean, default=False, set_by=ADMIN, shown=False)] = False


ADDRESS_SCOPE = Kind(
    AddressScope,
    "address_scope",
    "address_scopes",
    get=READER | SHARED,
    without=("description", "created_at", "updated_at", "revision_number", "tags"),
    rbac="address_scope",
)
