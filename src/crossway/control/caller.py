"""Who asks, and what of others' things they may see."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET

from crossway.control.cloud import Cloud
from crossway.errors import Forbidden, Invalid, NotFound
from crossway.model.network import Network
from crossway.model.resource import Given, Resource
from crossway.model.subnet import Subnet

ADMIN = "admin"


class Caller(msgspec.Struct, frozen=True):
    project: str = ADMIN
    user: str = ""
    admin: bool = True


def sees(cloud: Cloud, caller: Caller, resource: Resource) -> bool:
    """Say whether the caller may know of the resource."""
    if caller.admin or resource.project_id == caller.project:
        return True
    if isinstance(resource, Network):
        return resource.shared or resource.external
    if isinstance(resource, Subnet):
        network = cloud.networks.get(resource.network_id)
        return network is not None and (network.shared or network.project_id == caller.project)
    return False


def seen(cloud: Cloud, caller: Caller, kind: str, id: str, resource: Resource | None) -> Any:
    """Return the resource, or raise NotFound where it is not, or not for the caller's eyes."""
    if resource is None or not sees(cloud, caller, resource):
        raise NotFound(kind, id)
    return resource


def owned(cloud: Cloud, caller: Caller, kind: str, id: str, resource: Resource | None) -> Any:
    """Return the resource for changing; a shared one of another project is Forbidden."""
    found = seen(cloud, caller, kind, id, resource)
    if not caller.admin and found.project_id != caller.project:
        raise Forbidden(f"{kind} {id} belongs to another project", type="PolicyNotAuthorized")
    return found


def project_of(caller: Caller, given: Given) -> str:
    """Return the project that something new belongs to."""
    project = given["project_id"]
    if project is UNSET or project == "":
        return caller.project
    assert isinstance(project, str)
    if project != caller.project and not caller.admin:
        raise Invalid(
            "Specifying 'project_id' or 'tenant_id' other than the authenticated project in request "
            "requires admin privileges"
        )
    return project
