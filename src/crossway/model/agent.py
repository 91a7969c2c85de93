"""An agent, as the Networking API tells of each host that has one."""

from __future__ import annotations

from typing import Annotated, Any

from crossway.model.check import boolean, or_none, text
from crossway.model.resource import Kind, Resource, attribute, told
from crossway.model.who import ADMIN, ANYONE

AGENT_TYPE, BINARY = "Crossway agent", "crossway-agent"
# All hosts are of one zone, called as clients call the one that is always there.
ZONE = "nova"


class Agent(Resource, frozen=True, kw_only=True, gc=False):
    """Computed of a host; what PUT sets is kept with the host. Times are UTC: 2026-11-24 03:40:00."""

    description: Annotated[str, attribute(or_none(text(255)), post=False)] = ""
    created_at: Annotated[str, told(filter=False)] = ""
    agent_type: Annotated[str, told()] = AGENT_TYPE
    binary: Annotated[str, told()] = BINARY
    topic: Annotated[str, told()] = "N/A"
    host: Annotated[str, told()]
    admin_state_up: Annotated[bool, attribute(boolean, post=False)] = True
    alive: Annotated[bool, told(filter_check=boolean)]
    availability_zone: Annotated[str, told(sort=False)] = ZONE
    configurations: Annotated[dict[str, Any], told(filter=False, sort=False)]
    started_at: Annotated[str, told(filter=False)]
    heartbeat_timestamp: Annotated[str, told(filter=False)]
    resources_synced: Annotated[bool | None, told(filter=False, sort=False)] = None


AGENT = Kind(
    Agent,
    "agent",
    "agents",
    create=ADMIN,
    get=ADMIN,
    update=ADMIN,
    delete=ADMIN,
    without=("project_id", "name", "updated_at", "revision_number", "tags"),
)


class AvailabilityZone(Resource, frozen=True, kw_only=True, gc=False):
    """Computed: a zone, and what can be made in it."""

    resource: Annotated[str, told(sort=False)]
    state: Annotated[str, told(sort=False)] = "available"


AVAILABILITY_ZONE = Kind(
    AvailabilityZone,
    "availability_zone",
    "availability_zones",
    get=ANYONE,
    without=("id", "project_id", "description", "created_at", "updated_at", "revision_number", "tags"),
)
