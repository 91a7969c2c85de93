"""How many addresses of a network there are, and how many are taken."""

from __future__ import annotations

from typing import Annotated, Any

from crossway.model.resource import Kind, Resource, told
from crossway.model.who import SERVICE


class Availability(Resource, frozen=True, kw_only=True):
    """Computed: *id* is the network's."""

    network_id: Annotated[str, told()]
    network_name: Annotated[str, told()]
    total_ips: Annotated[int, told(filter=False, sort=False)]
    used_ips: Annotated[int, told(filter=False, sort=False)]
    subnet_ip_availability: Annotated[tuple[dict[str, Any], ...], told(filter=False, sort=False)]
    ip_availability_details: Annotated[dict[str, Any], told(filter=False, sort=False)]


NETWORK_IP_AVAILABILITY = Kind(
    Availability,
    "network_ip_availability",
    "network_ip_availabilities",
    get=SERVICE,
    without=("id", "name", "description", "created_at", "updated_at", "revision_number", "tags"),
)
