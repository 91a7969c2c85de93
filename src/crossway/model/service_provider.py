"""A service provider: what does a service that flavors may name."""

from __future__ import annotations

from typing import Annotated

from crossway.model.resource import Kind, Resource, told
from crossway.model.who import ANYONE


class ServiceProvider(Resource, frozen=True, kw_only=True, gc=False):
    """Computed: each is known by its name."""

    service_type: Annotated[str, told()]
    default: Annotated[bool, told()]


SERVICE_PROVIDER = Kind(
    ServiceProvider,
    "service_provider",
    "service_providers",
    get=ANYONE,
    without=("id", "project_id", "description", "created_at", "updated_at", "revision_number", "tags"),
)
