"""Flavors and service profiles: names by which an operator offers ways to have a service done."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from crossway.model.check import boolean, list_of, one_of, or_none, says, schema_of, text, uuid
from crossway.model.resource import Kind, Resource, attribute
from crossway.model.who import ADMIN, ANYONE

ROUTER_SERVICE = "L3_ROUTER_NAT"
SERVICE_TYPES = (ROUTER_SERVICE, "FLAVORS", "QOS", "METERING", "DUMMY")
DRIVER = "crossway"
PROFILES_MAX = 64  # of one flavor


@says(schema_of(or_none(text(1024))))
def words(value: Any) -> str:
    """Return a text; none is the empty one."""
    return str(text(1024)("" if value is None else value))


@says(schema_of(or_none(boolean)))
def flag(value: Any) -> bool:
    return True if value is None else boolean(value)


class Flavor(Resource, frozen=True, kw_only=True, gc=False):
    description: Annotated[str, attribute(words, default="")] = ""
    service_type: Annotated[str, attribute(one_of(*SERVICE_TYPES), put=False, default=msgspec.NODEFAULT)]
    enabled: Annotated[bool, attribute(flag, default=True, filter_check=boolean)] = True
    service_profiles: Annotated[
        tuple[str, ...], attribute(list_of(uuid, PROFILES_MAX), default=(), shown=False, filter=False, sort=False)
    ] = ()


FLAVOR = Kind(
    Flavor,
    "flavor",
    "flavors",
    create=ADMIN,
    get=ANYONE,
    update=ADMIN,
    delete=ADMIN,
    without=("project_id", "created_at", "updated_at", "revision_number", "tags"),
    indexes=("service_type",),
)


class ServiceProfile(Resource, frozen=True, kw_only=True, gc=False):
    description: Annotated[str, attribute(words, default="")] = ""
    driver: Annotated[str, attribute(text(1024), default="")] = ""
    enabled: Annotated[bool, attribute(flag, default=True, filter_check=boolean)] = True
    metainfo: Annotated[str, attribute(or_none(words), default="")] = ""


SERVICE_PROFILE = Kind(
    ServiceProfile,
    "service_profile",
    "service_profiles",
    create=ADMIN,
    get=ADMIN,
    update=ADMIN,
    delete=ADMIN,
    without=("project_id", "name", "created_at", "updated_at", "revision_number", "tags"),
    indexes=(),
)


class FlavorProfile(Resource, frozen=True, kw_only=True, gc=False, rename={"id": "key", "service_profile_id": "id"}):
    """A service profile of a flavor; its own id is FLAVOR.PROFILE, the callers know the profile's."""

    id: str
    flavor_id: str
    service_profile_id: Annotated[str, attribute(uuid, put=False, default=msgspec.NODEFAULT)]


FLAVOR_PROFILE = Kind(
    FlavorProfile,
    "service_profile",
    "service_profiles",
    table="flavor_profile",
    create=ADMIN,
    get=ADMIN,
    delete=ADMIN,
    without=("id", "project_id", "name", "description", "created_at", "updated_at", "revision_number", "tags"),
    parent=("flavor_id", "flavor"),
    indexes=("flavor_id", "service_profile_id"),
)
