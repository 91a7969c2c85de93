"""Tell of hosts as the Networking API tells of agents: one each, as each does everything."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from crossway.control import host as hosts
from crossway.control.caller import Caller
from crossway.control.cloud import Cloud
from crossway.control.collection import Action, Collection
from crossway.control.decision import Decision
from crossway.errors import Conflict, NotFound
from crossway.model.agent import AGENT, AVAILABILITY_ZONE, ZONE, Agent, AvailabilityZone
from crossway.model.host import Host
from crossway.model.resource import Given
from crossway.model.who import ADMIN

SPACE = uuid.UUID("6f2f9b0e-5f0c-4c5e-9d6b-3a1f6f0c7a11")


def agent_id(host: str) -> str:
    """Return the id of a host's agent: the same as long as the host is called so."""
    return str(uuid.uuid5(SPACE, host))


def rows(cloud: Cloud, caller: Caller) -> Iterator[Agent]:
    return (_told(cloud, host) for host in cloud.hosts.rows.values())


def update(decision: Decision, caller: Caller, id: str, given: Given) -> Agent:
    """Note what an operator says of a host. A host that is switched off here goes on working: nothing is scheduled."""
    host = _host(decision, id)
    new = msgspec.structs.replace(
        host,
        description=given.get("description", host.description) or "",
        admin_state_up=given.get("admin_state_up", host.admin_state_up),
    )
    decision.put(decision.cloud.hosts, new)
    return _told(decision.cloud, new)


def delete(decision: Decision, caller: Caller, id: str) -> None:
    """Forget a host that does not report any more and has no ports."""
    host = _host(decision, id)
    if decision.cloud.alive(host.id):
        raise Conflict(f"Agent {id} of host {host.id} is alive: stop it first.", type="AgentInUse")
    hosts.forget(decision, host.id)


def _host(decision: Decision, id: str) -> Host:
    for name in decision.cloud.hosts.rows:
        if agent_id(name) == id:
            host = decision.read(decision.cloud.hosts, name)
            if host is not None:
                return host
    raise NotFound("agent", id)


def _told(cloud: Cloud, host: Host) -> Agent:
    began = _time(host.registered)
    return Agent(
        id=agent_id(host.id),
        project_id="",
        host=host.id,
        description=host.description,
        admin_state_up=host.admin_state_up,
        alive=cloud.alive(host.id),
        configurations={
            "underlay": host.underlay,
            "physnets": host.physnets,
            "version": host.version,
            "ports": len(cloud.ports.ids("host", host.id)),
        },
        created_at=began,
        started_at=began,
        heartbeat_timestamp=_time(cloud.heard_at.get(host.id, "")) or began,
    )


def _time(iso: str) -> str:
    return iso.replace("T", " ").removesuffix("Z")


def nobody_schedules(what: str) -> Callable[[Decision, Caller, str, Any], dict[str, Any]]:
    """Return the verb that lists what agents were given: nothing, as hosts serve what they have."""
    return lambda decision, caller, id, body: {what: []}


AGENTS = Collection(
    kind=AGENT,
    rows=rows,
    update=update,
    delete=delete,
    actions={
        "dhcp-networks": Action(nobody_schedules("networks"), who=ADMIN, method="GET"),
        "l3-routers": Action(nobody_schedules("routers"), who=ADMIN, method="GET"),
    },
    aliases={"agent": "agent", "agent_sort_key": "Agents Sort Key", "availability_zone": "Availability Zone"},
)


def zones(cloud: Cloud, caller: Caller) -> list[AvailabilityZone]:
    return [AvailabilityZone(id=kind, project_id="", name=ZONE, resource=kind) for kind in ("network", "router")]


AVAILABILITY_ZONES = Collection(kind=AVAILABILITY_ZONE, rows=zones)
