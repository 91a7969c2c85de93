"""Who asks, and what of others' things they may see.

A host asks as itself: with the role `host`, its name, and the projects for whose
workloads it may make ports.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import UNSET

from crossway.control.cloud import Bucket, Cloud
from crossway.errors import Forbidden, Invalid, NotFound
from crossway.model.binding import Binding
from crossway.model.kinds import BY_TABLE
from crossway.model.network import Network
from crossway.model.port import Port
from crossway.model.rbac import ACCESS_AS_EXTERNAL, ACCESS_AS_SHARED, EVERYONE
from crossway.model.resource import Given, Resource
from crossway.model.subnet import Subnet
from crossway.model.who import Grant, Who

ADMIN = "admin"
MANAGER, MEMBER, READER, SERVICE = "manager", "member", "reader", "service"
INTEGRATOR = "data_plane_integrator"
HOST = "host"
# What begins the owner of ports that agents make for containers.
CONTAINER = "container:"
# What each role holds beside itself.
IMPLIED = {ADMIN: (MANAGER, MEMBER, READER), MANAGER: (MEMBER, READER), MEMBER: (READER,)}


def implied(roles: Iterable[str]) -> frozenset[str]:
    """Return roles with those that they hold."""
    named = {role.strip().lower() for role in roles} - {""}
    return frozenset(named | {held for role in named for held in IMPLIED.get(role, ())})


class Caller(msgspec.Struct, frozen=True):
    """*roles* are complete: see `implied`. *host* is the host that asks; *serves* are its projects, "*" any.

    *physnets* and *addresses* are what the operator's entry of the host says that it may register: those physical
    networks, "*" being any, and one of those underlay addresses, any if there is none. Without an entry, *physnets* is
    None: it may have those with which an admin has registered it.
    """

    project: str = ADMIN
    user: str = ""
    roles: frozenset[str] = implied([ADMIN])
    host: str = ""
    serves: frozenset[str] = frozenset()
    physnets: frozenset[str] | None = None
    addresses: frozenset[str] = frozenset()

    @property
    def admin(self) -> bool:
        return ADMIN in self.roles


def host_caller(host: str, projects: Iterable[str], roles: Iterable[str] = (), user: str = "") -> Caller:
    """Return a host that asks for the workloads of its projects; without any, for what is bound to it by others."""
    serves = frozenset(projects) - {""}
    project = next(iter(serves)) if len(serves) == 1 else ""
    if EVERYONE in serves:
        project = ADMIN
    return Caller(project, user or host, implied([*roles, HOST]), host, serves)


def may(cloud: Cloud, caller: Caller, who: Who, resource: Resource) -> bool:
    """Say whether the caller has one of the grants on a resource."""
    return caller.admin or any(_has(cloud, caller, grant, resource) for grant in who)


def anywhere(caller: Caller, who: Who) -> bool:
    """Say whether the caller's roles alone are enough, whatever the resource."""
    return caller.admin or (Grant.SERVICE in who and SERVICE in caller.roles)


# The role that each grant is for.
_ROLE = {
    Grant.SERVICE: SERVICE,
    Grant.HOST: HOST,
    Grant.HOST_OF_PORT: HOST,
    Grant.HOST_OF_PROJECT: HOST,
    Grant.MANAGER: MANAGER,
    Grant.MEMBER: MEMBER,
    Grant.READER: READER,
    Grant.PARENT_MANAGER: MANAGER,
    Grant.PARENT_MEMBER: MEMBER,
    Grant.PARENT_READER: READER,
    Grant.PARENT_SHARED: MEMBER,
    Grant.INTEGRATOR: INTEGRATOR,
    Grant.SHARED: READER,
    Grant.ANYONE: READER,
}


def somewhere(caller: Caller, who: Who) -> bool:
    """Say whether the caller's roles are enough for some resource, if not for every one."""
    return caller.admin or any(_ROLE[grant] in caller.roles for grant in who)


def _has(cloud: Cloud, caller: Caller, grant: Grant, resource: Resource) -> bool:
    roles = caller.roles
    match grant:
        case Grant.SERVICE:
            return SERVICE in roles
        case Grant.INTEGRATOR:
            return INTEGRATOR in roles
        case Grant.HOST:
            return bool(caller.host) and _is_on(cloud, caller.host, resource)
        case Grant.HOST_OF_PORT:
            parent = _parent(cloud, resource) if caller.host else None
            return parent is not None and _is_on(cloud, caller.host, parent)
        case Grant.HOST_OF_PROJECT:
            return bool(caller.serves) and _serves(cloud, caller, resource)
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


def carries(host: str, port: Port) -> bool:
    """Say whether a port is a host's own: it is there, may go there, or is an address that its engine holds."""
    return host in port.carriers or holds(host, port)


def holds(host: str, port: Port) -> bool:
    """Say whether a port is an address that an engine on a host holds until it has a container for it."""
    reserved = port.device_id in (f"reserved {host}", f"kept {host}")
    return reserved and not port.at and port.device_owner.startswith(CONTAINER)


def _is_on(cloud: Cloud, host: str, resource: Any) -> bool:
    """Say whether a port or a binding is of a host, or a network or subnet has such a port."""
    match resource.kind.table:
        case "port":
            # What is not there yet is nowhere.
            return isinstance(resource, Port) and carries(host, resource)
        case "port_binding":
            return isinstance(resource, Binding) and resource.host == host
        case "network":
            return resource.id in _networks(cloud, host)
        case "subnet":
            return resource.network_id in _networks(cloud, host)
    return False


def _networks(cloud: Cloud, host: str) -> set[str]:
    return {port.network_id for index in ("host", "waiting") for port in cloud.ports.by(index, host)}


def _serves(cloud: Cloud, caller: Caller, resource: Any) -> bool:
    """Say whether a host is one for the project of a resource, or for one with which it is shared."""
    if resource.kind.table == Binding.kind.table:
        resource = _parent(cloud, resource)
    if resource is None or EVERYONE in caller.serves or resource.project_id in caller.serves:
        return resource is not None
    is_shared = resource.kind.table in ("network", "subnet", "group")
    return is_shared and any(reaches(cloud, project, resource) for project in caller.serves)


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
    if caller.host and EVERYONE in caller.serves:
        return None
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
        elif grant is Grant.HOST_OF_PROJECT and caller.serves:
            if not rows.has("project_id"):
                return None
            found += [rows.ids("project_id", project) for project in caller.serves]
            if kind.rbac:
                targets = tuple(p for one in (EVERYONE, *caller.serves) for p in cloud.rbac.by("target", one))
                found.append([p.object_id for p in targets if p.object_type == kind.rbac])
        elif grant is Grant.HOST and caller.host:
            found += _on(cloud, caller.host, table)
    return found


def _on(cloud: Cloud, host: str, table: str) -> list[Bucket | list[str]]:
    """Return sets of the ids of a table that a host sees because it has ports."""
    if table == "network":
        return [sorted(_networks(cloud, host))]
    ports = cloud.ports
    held = [ports.ids("device_id", f"{how} {host}") for how in ("reserved", "kept")]
    return [ports.ids("host", host), ports.ids("waiting", host), *held] if table == "port" else []


def project_of(caller: Caller, given: Given) -> str:
    """Return the project that something new belongs to."""
    project = given["project_id"]
    if project is UNSET or project == "":
        return caller.project
    if project is None:
        # What is every project's is none's in particular.
        return ""
    assert isinstance(project, str)
    others = caller.admin or SERVICE in caller.roles or not caller.serves.isdisjoint((project, EVERYONE))
    if project != caller.project and not others:
        raise Invalid(
            "Specifying 'project_id' or 'tenant_id' other than the authenticated project in request "
            "requires admin privileges"
        )
    return project
