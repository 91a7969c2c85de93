"""An address group: prefixes that rules of security groups name as one."""

from __future__ import annotations

from typing import Annotated

from crossway.model.check import list_of, prefix_as_said, text
from crossway.model.resource import Kind, Resource, attribute
from crossway.model.who import READER, SHARED

# Addresses of one group: each is a row on the hosts of ports whose rules name it.
ADDRESSES_MAX = 10_000
ADDRESSES = list_of(prefix_as_said, ADDRESSES_MAX)


class AddressGroup(Resource, frozen=True, kw_only=True, gc=False):
    description: Annotated[str, attribute(text(1024), default="")] = ""
    addresses: Annotated[tuple[str, ...], attribute(ADDRESSES, put=False, default=(), filter=False, sort=False)] = ()


ADDRESS_GROUP = Kind(
    AddressGroup,
    "address_group",
    "address_groups",
    get=READER | SHARED,
    without=("tags",),
    rbac="address_group",
    tells_shared=False,
    absent=True,
)
