"""An auto-allocated topology: the network, subnets and router that a project gets by asking."""

from __future__ import annotations

from typing import Annotated

from crossway.model.resource import Kind, Resource, told


class Topology(Resource, frozen=True, kw_only=True, gc=False):
    """*id* is the project's; what callers know as its id is the network's."""

    network_id: Annotated[str, told()]
    router_id: str


TOPOLOGY = Kind(
    Topology,
    "auto_allocated_topology",
    "auto_allocated_topologies",
    table="topology",
    without=("name", "description", "created_at", "updated_at", "revision_number", "tags"),
    indexes=("project_id", "network_id", "router_id"),
)
