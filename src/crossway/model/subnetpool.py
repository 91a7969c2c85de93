"""A subnet pool: prefixes of which subnets are cut."""

from __future__ import annotations

from typing import Annotated

import msgspec

from crossway.model.check import boolean, brief, cidr, integer, list_of, name, or_none, says, schema_of, uuid
from crossway.model.resource import Kind, Resource, attribute, told
from crossway.model.who import ADMIN, READER, SHARED

# Prefixes of one pool: each is compared with those of the other pools of its scope.
PREFIXES_MAX = 128
PREFIXES = list_of(cidr, PREFIXES_MAX)
LENGTH = integer(0, 128)
# How long a prefix may be that is cut without a word of it: at least, at most.
BOUNDS = {4: (8, 32), 6: (64, 128)}
QUOTA_MAX = (1 << 63) - 1


@says({**schema_of(name(255)), "minLength": 1})
def named(value: object) -> str:
    said: str = name(255)(value)
    if not said:
        raise ValueError(f"{brief(value)} is blank")
    return said


class SubnetPool(Resource, frozen=True, kw_only=True, gc=False):
    name: Annotated[str, attribute(named, default=msgspec.NODEFAULT)]
    prefixes: Annotated[tuple[str, ...], attribute(PREFIXES, default=msgspec.NODEFAULT, filter=False, sort=False)]
    ip_version: Annotated[int, told()]
    min_prefixlen: Annotated[int, attribute(LENGTH)]
    max_prefixlen: Annotated[int, attribute(LENGTH)]
    default_prefixlen: Annotated[int, attribute(LENGTH)]
    # How many addresses of IPv4, or /64 of IPv6, each project may have of it.
    default_quota: Annotated[int | None, attribute(or_none(integer(0, QUOTA_MAX)), default=None)] = None
    is_default: Annotated[bool, attribute(boolean, default=False, set_by=ADMIN)] = False
    address_scope_id: Annotated[str | None, attribute(or_none(uuid), default=None)] = None
    # A word of the request: whether it is shared stands among the RBAC policies.
    shared: Annotated[bool, attribute(boolean, put=False, default=False, create=ADMIN, shown=False)] = False


SUBNETPOOL = Kind(
    SubnetPool,
    "subnetpool",
    "subnetpools",
    get=READER | SHARED,
    indexes={
        "project_id": None,
        "name": None,
        "address_scope_id": None,
        "default": lambda pool: (pool.ip_version,) if pool.is_default else (),
    },
    rbac="subnetpool",
)
