"""A project's quota: how many of each resource it may have."""

from __future__ import annotations

from typing import Annotated

from crossway.model.check import boolean, integer
from crossway.model.resource import Attribute, Kind, Resource, attribute
from crossway.model.who import ADMIN, READER

UNLIMITED = -1
MOST = (1 << 31) - 1
# What a quota limits; how many a project may have by default stands in the settings.
LIMITED = (
    "network",
    "subnet",
    "subnetpool",
    "port",
    "router",
    "floatingip",
    "security_group",
    "security_group_rule",
    "rbac_policy",
    "address_group",
    "address_scope",
    "trunk",
    # Of each router, and not of them all.
    "router_route",
    # That its ports take of what tenants of a host share.
    "policy_row",
)


def limit() -> Attribute:
    """Declare a limit: a number, or -1 for none."""
    return attribute(integer(UNLIMITED, MOST), filter=False, sort=False)


def word() -> Attribute:
    """Declare a switch of the request alone."""
    return attribute(boolean, filter=False, sort=False, shown=False)


class Quota(Resource, frozen=True, kw_only=True, gc=False):
    """*id* is the project; what is None is as the default says."""

    network: Annotated[int | None, limit()] = None
    subnet: Annotated[int | None, limit()] = None
    subnetpool: Annotated[int | None, limit()] = None
    port: Annotated[int | None, limit()] = None
    router: Annotated[int | None, limit()] = None
    floatingip: Annotated[int | None, limit()] = None
    security_group: Annotated[int | None, limit()] = None
    security_group_rule: Annotated[int | None, limit()] = None
    rbac_policy: Annotated[int | None, limit()] = None
    address_group: Annotated[int | None, limit()] = None
    address_scope: Annotated[int | None, limit()] = None
    trunk: Annotated[int | None, limit()] = None
    router_route: Annotated[int | None, limit()] = None
    policy_row: Annotated[int | None, limit()] = None
    # Set limits below what is used already.
    force: Annotated[bool, word()] = False
    # What older clients say for what is always done now.
    check_limit: Annotated[bool, word()] = False


QUOTA = Kind(
    Quota,
    "quota",
    "quotas",
    create=ADMIN,
    get=READER,
    update=ADMIN,
    delete=ADMIN,
    without=("id", "name", "description", "created_at", "updated_at", "revision_number", "tags"),
)


def of_project(project: str) -> Quota:
    """Return the quota of a project for which nothing was set."""
    return Quota(id=project, project_id=project)
