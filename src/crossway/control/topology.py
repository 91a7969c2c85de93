"""Give a project the network that it asks for: subnets of the default pools behind a router to the outside."""

from __future__ import annotations

from typing import Any

from crossway.control import network, router, subnet
from crossway.control.caller import MEMBER, READER, Caller
from crossway.control.collection import Collection
from crossway.control.decision import Decision
from crossway.errors import Conflict, Forbidden, Invalid
from crossway.model.network import NETWORK, Network
from crossway.model.resource import now
from crossway.model.router import ROUTER, Router
from crossway.model.subnet import SUBNET
from crossway.model.topology import TOPOLOGY, Topology

DRY_RUN = "dry-run"
# What clients say who mean the project that they ask for.
MINE = ("", "None", "null")
KNOWN = {"id", "tenant_id", "project_id"}


def project_named(caller: Caller, id: str) -> str:
    return caller.project if id in MINE else id


def show(decision: Decision, caller: Caller, project: str, fields: list[str]) -> dict[str, Any]:
    """Return a project's topology, made if it has none; or only say whether it could be made."""
    cloud = decision.cloud
    _require(caller, project, READER, "get_auto_allocated_topology")
    if DRY_RUN in fields:
        _outside(decision)
        _pools(decision)
        return {"id": "dry-run=pass", "tenant_id": project, "project_id": project}
    if unknown := set(fields) - KNOWN:
        raise Invalid(
            f"Bad auto_allocate request: Unrecognized field: {', '.join(sorted(unknown))}.", type="BadRequest"
        )
    known = decision.get(cloud.of(Topology), project)
    topology = known or _make(decision, caller, project)
    told = {"id": topology.network_id, "tenant_id": project, "project_id": project}
    return {name: told[name] for name in fields} if fields else told


def delete(decision: Decision, caller: Caller, project: str) -> None:
    """Delete a project's topology, if it has one: interfaces, router, network."""
    cloud = decision.cloud
    _require(caller, project, MEMBER, "delete_auto_allocated_topology")
    topology = decision.read(cloud.of(Topology), project)
    if topology is None:
        return
    decision.delete(cloud.of(Topology), project)
    if decision.get(cloud.routers, topology.router_id):
        for port in cloud.ports.by("device_id", topology.router_id):
            if port.network_id == topology.network_id:
                router.remove_interface(decision, caller, topology.router_id, {"port_id": port.id})
        router.delete(decision, caller, topology.router_id)
    if decision.get(cloud.networks, topology.network_id):
        network.delete(decision, caller, topology.network_id)


def _require(caller: Caller, project: str, role: str, rule: str) -> None:
    if not caller.admin and (project != caller.project or role not in caller.roles):
        raise Forbidden(
            f"({rule}) is disallowed by policy: it is for a {role} of {project}", type="PolicyNotAuthorized"
        )


def _make(decision: Decision, caller: Caller, project: str) -> Topology:
    """Make all of it in one decision: there is never a part."""
    external, pools = _outside(decision), _pools(decision)
    own = {"project_id": project}
    net: Network = network.create(decision, caller, NETWORK.given({"name": "auto_allocated_network", **own}))
    gateway = {"external_gateway_info": {"network_id": external.id}}
    made: Router = router.create(decision, caller, ROUTER.given({"name": "auto_allocated_router", **gateway, **own}))
    for pool in pools:
        asked = {
            "name": f"auto_allocated_subnet_v{pool.ip_version}",
            "network_id": net.id,
            "ip_version": pool.ip_version,
            "subnetpool_id": pool.id,
        }
        one = subnet.create(decision, caller, SUBNET.given({**asked, **own}))
        router.add_interface(decision, caller, made.id, {"subnet_id": one.id})
    time = now()
    topology = Topology(
        id=project, project_id=project, network_id=net.id, router_id=made.id, created_at=time, updated_at=time
    )
    decision.create(decision.cloud.of(Topology), topology)
    return topology


def _outside(decision: Decision) -> Network:
    """Return the external network that is the default."""
    networks = decision.cloud.networks
    found = next((n for id in networks.ids("open", True) if (n := networks.rows[id]).external and n.is_default), None)
    if found is None:
        raise Conflict("Deployment error: No default router:external network.", type="AutoAllocationFailure")
    return found


def _pools(decision: Decision) -> list[Any]:
    """Return the default subnet pools, of either family."""
    table = decision.cloud.tables.get("subnetpool")
    found = [pool for pool in table.rows.values() if pool.is_default] if table else []
    if not found:
        raise Conflict("Deployment error: No default subnetpools defined.", type="AutoAllocationFailure")
    return sorted(found, key=lambda pool: int(pool.ip_version))


TOPOLOGIES = Collection(
    kind=TOPOLOGY,
    path="auto-allocated-topology",
    delete=delete,
    show=show,
    named=project_named,
    aliases={"auto-allocated-topology": "Auto Allocated Topology Services"},
)
