"""A pool of floating IPs: a subnet of an external network, as those see it who may take addresses."""

from __future__ import annotations

from typing import Annotated

from crossway.model.resource import Kind, Resource, told
from crossway.model.who import READER


class FloatingIpPool(Resource, frozen=True, kw_only=True, gc=False):
    """Computed: *id* is the subnet's."""

    cidr: Annotated[str, told()]
    network_id: Annotated[str, told()]
    subnet_id: Annotated[str, told()]
    subnet_name: Annotated[str, told()]


FLOATINGIP_POOL = Kind(
    FloatingIpPool,
    "floatingip_pool",
    "floatingip_pools",
    get=READER,
    without=("id", "name", "description", "created_at", "updated_at", "revision_number", "tags"),
)
