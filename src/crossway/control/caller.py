"""Who asks, and what of others' things they may see."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import UNSET

from crossway.control.cloud import Bucket, Cloud
from crossway.errors import Forbidden, Invalid, NotFound
from crossway.model.kinds import BY_TABLE
from crossway.model.network import Network
from crossway.model.rbac import ACCESS_AS_EXTERNAL, ACCESS_AS_SHARED, EVERYONE
from crossway.model.resource import Given, Resource
from crossway.model.subnet import Subnet
from crossway.model.who import Grant, Who

ADMIN = "admin"
MANAGER, MEMBER, READER, SERVICE = "manager", "member", "reader", "service"
INTEGRATOR = "data_plane_integrator"
# What each role holds beside itself.
IMPLIED = {ADMIN: (MANAGER, MEMBER, READER), MANAGER: (MEMBER, READER), MEMBER: (READER,)}


def implied(roles: Iterable[str]) -> frozenset[str]:
    """Return roles with those that they hold."""
    named = {role.strip().lower() for role in roles} - {""}
    return frozenset(named | {held for role in named for held in IMPLIED.get(role, ())})


class Caller(msgspec.Struct, frozen=True):
    """*roles* are complete: see `implied`."""

    project: str = ADMIN
    user: str = ""
    roles: frozenset[str] = implied([ADMIN])

    @property
    def admin(self) -> bool:
        return ADMIN in self.roles


def may(cloud: Cloud, caller: Caller, who: Who, resource: Resource) -> bool:
    """Say whether the caller has one of the grants on a resource."""
    return caller.admin or any(_has(cloud, caller, grant, resource) for grant in who)


def anywhere(caller: Caller, who: Who) -> bool:
    """Say whether the caller's roles alone are enough, whatever the resource."""
    return caller.admin or (Grant.SERVICE in who and SERVICE in caller.roles)


# The role that each grant is for.
_ROLE = {
    Grant.SERVICE: SERVICE,
    Grant.MANAGER: MANAGER,
    Grant.MEMBER: MEMBER,
    Grant.READER: READER,
    Grant.PARENT_MANAGER: MANAGER,
    Grant.PARENT_MEMBER: MEMBER,
    Grant.PARENT_READER: READER,
    Grant.SHARED: READER,
    Grant.ANYONE: READER,
}


def somewhere(caller: Caller, who: Who) -> bool:
    """Say whether the caller's roles are enough for some resource, if not for every one."""
    return caller.admin or any(_ROLE.get(grant, READER) in caller.roles for grant in who)


def _has(cloud: Cloud, caller: Caller, grant: Grant, resource: Resource) -> bool:
    roles = caller.roles
    match grant:
        case Grant.SERVICE:
            return SERVICE in roles
        case Grant.INTEGRATOR:
            return INTEGRATOR in roles
        case Grant.MEMBER:
            return MEMBER in roles and resource.project_id == caller.project
        case Grant.READER:
            return READER in roles and resource.project_id == caller.project
        case Grant.MANAGER:
            return MANAGER in roles and resource.project_id == caller.project
        case Grant.PARENT_MEMBER:
            return MEMBER in roles and _parent_project(cloud, resource) == caller.project
        case Grant.PARENT_READER:
            return READER in roles and _parent_project(cloud, resource) == caller.project
        case Grant.PARENT_MANAGER:
            return MANAGER in roles and _parent_project(cloud, resource) == caller.project
        case Grant.PARENT_SHARED:
            parent = _parent(cloud, resource)
            return MEMBER in roles and parent is not None and shared(cloud, caller.project, parent)
        case Grant.SHARED:
            return READER in roles and reaches(cloud, caller.project, resource)
        case Grant.ANYONE:
            return READER in roles


def _parent(cloud: Cloud, resource: Resource) -> Any:
    if resource.kind.parent is None:
        return None
    field, table = resource.kind.parent
    return cloud.tables[table].get(getattr(resource, field))


def _parent_project(cloud: Cloud, resource: Resource) -> str | None:
    parent = _parent(cloud, resource)
    return None if parent is None else parent.project_id


def shared(cloud: Cloud, project: str, resource: Any) -> bool:
    """Say whether a resource is shared with a project, as its attribute *shared* tells that project."""
    return (isinstance(resource, Network) and resource.shared) or any(
        policy.action == ACCESS_AS_SHARED and policy.target in (EVERYONE, project)
        for policy in cloud.rbac.by("object_id", resource.id)
    )


def reaches(cloud: Cloud, project: str, resource: Any) -> bool:
    """Say whether a project may see a resource because it is shared with it in one way or another."""
    if isinstance(resource, Subnet):
        network = cloud.networks.get(resource.network_id)
        return network is not None and reaches(cloud, project, network)
    policies = cloud.rbac.by("object_id", resource.id)
    if isinstance(resource, Network):
        if resource.shared:
            return True
        if resource.external and all(policy.action != ACCESS_AS_EXTERNAL for policy in policies):
            # It was made external before policies said to whom.
            return True
    return any(policy.target in (EVERYONE, project) for policy in policies)


def sees(cloud: Cloud, caller: Caller, resource: Resource) -> bool:
    """Say whether the caller may know of the resource."""
    return may(cloud, caller, resource.kind.get, resource)


def seen(cloud: Cloud, caller: Caller, kind: str, id: str, resource: Resource | None) -> Any:
    """Return the resource, or raise NotFound where it is not, or not for the caller's eyes."""
    if resource is None or not sees(cloud, caller, resource):
        raise NotFound(kind, id)
    return resource


def owned(cloud: Cloud, caller: Caller, kind: str, id: str, resource: Resource | None) -> Any:
    """Return the resource for changing; one that the caller may only see is Forbidden."""
    found = seen(cloud, caller, kind, id, resource)
    if not may(cloud, caller, found.kind.update, found):
        raise Forbidden(f"{kind} {id} belongs to another project", type="PolicyNotAuthorized")
    return found


def named(cloud: Cloud, caller: Caller, kind: str, resource: Resource | None) -> str:
    """Return what to call an object that stands in a caller's way: one that it may not see is not named."""
    if resource is None or not sees(cloud, caller, resource):
        return f"a {kind} of another project"
    return f"{kind} {resource.id}"


def visible(cloud: Cloud, caller: Caller, table: str) -> list[Bucket | list[str]] | None:
    """Return sets of ids that hold all of a table that the caller may see; None: it may be any."""
    kind = BY_TABLE[table]
    if anywhere(caller, kind.get) or Grant.ANYONE in kind.get:
        return None
    rows = cloud.tables[table]
    found: list[Bucket | list[str]] = []
    for grant in kind.get:
        if grant in (Grant.READER, Grant.MEMBER, Grant.MANAGER):
            found.append(rows.ids("project_id", caller.project))
        elif grant is Grant.PARENT_READER and kind.parent:
            field, parents = kind.parent
            found += [rows.ids(field, id) for id in cloud.tables[parents].ids("project_id", caller.project)]
        elif grant is Grant.SHARED:
            if table == "subnet":
                return None
            if table == "network":
                found.append(rows.ids("open", True))
            targets = (*cloud.rbac.by("target", EVERYONE), *cloud.rbac.by("target", caller.project))
            found.append([p.object_id for p in targets if p.object_type == kind.rbac])
    return found


def project_of(caller: Caller, given: Given) -> str:
    """Return the project that something new belongs to."""
    project = given["project_id"]
    if project is UNSET or project == "":
        return caller.project
    if project is None:
        # What is every project's is none's in particular.
        return ""
    assert isinstance(project, str)
    if project != caller.project and not (caller.admin or SERVICE in caller.roles):
        raise Invalid(
            "Specifying 'project_id' or 'tenant_id' other than the authenticated project in request "
            "requires admin privileges"
        )
    return project
