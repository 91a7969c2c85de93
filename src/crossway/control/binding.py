"""Bind a port to hosts beside the one where it is, and move it there.

A port that is about to move has a binding for each host where it may go: what
the compute service there needs to know is settled before the workload moves,
and activating the binding moves the port in one step.
"""

from __future__ import annotations

from typing import Any

import msgspec

from crossway.control import learned, link, vif
from crossway.control.caller import Caller
from crossway.control.cloud import Cloud
from crossway.control.collection import Action, Collection, change
from crossway.control.decision import Decision
from crossway.errors import Conflict, Invalid, NotFound
from crossway.model.binding import ACTIVE, BINDING, INACTIVE, Binding
from crossway.model.host import Handover
from crossway.model.port import ATTACHED, DOWN, Port, bound_as
from crossway.model.resource import Given, changed
from crossway.model.who import HOST, SERVICE

# Ports of the network's own have one.
OWNED = "network:"


def create(decision: Decision, caller: Caller, given: Given) -> Binding:
    port = _port(decision, given["port_id"])
    host = given["host"]
    if port.device_owner == ATTACHED:
        raise Conflict(f"Port {port.id} is an interface of host {port.device_id} itself: it does not move.")
    if not host or "/" in host or not host.isprintable():
        raise Invalid(f"Invalid input for host. Reason: '{host}' should be the name of a host.")
    if host == port.at or decision.get(decision.cloud.of(Binding), _id(port, host)):
        raise Conflict(f"Binding for port {port.id} on host {host} already exists.", type="PortBindingAlreadyExists")
    given = _standing_by(port, given)
    network = decision.cloud.networks.rows[port.network_id]
    if not vif.can(decision.cloud, network, host, given["vnic_type"], given["profile"]):
        raise Conflict(
            f"Binding for port {port.id} on host {host} could not be created: no living host of that name can carry "
            f"{given['vnic_type']} ports of its network.",
            type="PortBindingError",
        )
    given = {**given, "project_id": port.project_id, **_vif(host, given["vnic_type"])}
    binding = Binding(**given, id=_id(port, host), status=INACTIVE)
    decision.create(decision.cloud.of(Binding), binding)
    # The port may not go meanwhile, nor be bound there by another.
    decision.put(decision.cloud.ports, msgspec.structs.replace(port, waiting=(*port.waiting, host)))
    return binding


def update(decision: Decision, caller: Caller, id: str, given: Given) -> Binding:
    port, host = _named(decision, id)
    if host == port.at:
        new = changed(port, given)
        network = decision.cloud.networks.rows[port.network_id]
        bound = vif.bind(decision.cloud, network, port.host, new.vnic_type, new.profile, port.edge)
        new = msgspec.structs.replace(new, **bound)
        link.hold(decision, port.id, port.link, new.vnic_type, new.profile)
        decision.put(decision.cloud.ports, new)
        return _active(new)
    return change(decision, _waiting(decision, port, host), _standing_by(port, given))


def _standing_by(port: Port, given: Given) -> Given:
    """Return what is given of a binding that waits; one of a standby edge says of the server what the port does."""
    if port.link is None:
        return given
    # It is plugged in where it is, whoever serves it.
    profile = given.get("profile") or {}
    if profile and link.checked(port.vnic_type, profile) not in (None, port.link):
        raise Invalid(
            f"Invalid input for profile. Reason: port {port.id} is plugged in at VLAN {port.link.vlan} of "
            f"{port.link.physnet}, for whatever host."
        )
    return {**given, "vnic_type": port.vnic_type, "profile": {**port.profile, **profile}}


def delete(decision: Decision, caller: Caller, id: str) -> None:
    port, host = _named(decision, id)
    if host == port.at:
        decision.put(decision.cloud.ports, changed(port, {**bound_as(""), "status": DOWN}))
    else:
        waiting = _end(decision, port, _waiting(decision, port, host))
        decision.put(decision.cloud.ports, msgspec.structs.replace(port, waiting=waiting))


def activate(decision: Decision, caller: Caller, id: str, body: Any) -> dict[str, Any]:
    """Move a port to the host of a binding that waits; the one that it had waits from now on."""
    cloud = decision.cloud
    port, host = _named(decision, id)
    if host == port.at:
        raise Conflict(f"Binding for port {port.id} on host {host} is already active.", type="PortBindingAlreadyActive")
    wanted = _waiting(decision, port, host)
    decision.delete(cloud.of(Binding), wanted.id)
    if port.at:
        left = Binding(
            id=_id(port, port.at),
            project_id=port.project_id,
            port_id=port.id,
            host=port.at,
            vif_type="unbound",
            vnic_type=port.vnic_type,
            profile=port.profile,
        )
        decision.create(cloud.of(Binding), left)
    own = {"vnic_type": wanted.vnic_type, "profile": wanted.profile}
    # What Ironic calls the server stays what the port is bound to, whichever host is before it.
    bound = bound_as(port.host if port.edge else host, wanted.vnic_type, host if port.edge else "")
    moved = changed(port, {**bound, **own, "status": DOWN})
    link.hold(decision, port.id, port.link, moved.vnic_type, moved.profile)
    # What others know is of a time when it was there.
    _forget(decision, port.id, but=port.at)
    waiting = tuple(other for other in port.carriers if other not in ("", host))
    decision.put(cloud.ports, msgspec.structs.replace(moved, waiting=waiting))
    return BINDING.show(_active(moved))


async def take(cloud: Cloud, id: str) -> None:
    """Have the host of a binding that waits carry the port already, before those who send to it hear of the move."""
    port, _, host = id.partition(".")
    if cloud.of(Binding).get(id):
        await cloud.take(host, port)


def follow(decision: Decision, port: Port, host: str) -> tuple[str, ...]:
    """Have a port be where it is said to be: a binding that waits there does no more. Return who still waits."""
    there = decision.get(decision.cloud.of(Binding), _id(port, host)) if host != port.at else None
    return _end(decision, port, there) if there else port.waiting


def hand_over(decision: Decision, host: str, id: str, flows: str) -> None:
    """Tell those where a port may go on, or already does, of its connections."""
    cloud = decision.cloud
    # As it is now: when nobody waits any more, what was told of its connections goes, and nothing comes after.
    port = decision.read(cloud.ports, id)
    if port is None:
        raise NotFound("port", id)
    if host not in port.carriers:
        raise Conflict(f"port {id} is on host {port.at or 'none'}, not on {host}")
    if port.waiting:
        told = Handover(id=f"{id}.{host}", by=host, flows=flows)
        if decision.read(cloud.handovers, told.id):
            decision.put(cloud.handovers, told)
        else:
            decision.create(cloud.handovers, told)


def drop(decision: Decision, port: str) -> None:
    """Drop all bindings of a port that is being deleted."""
    for binding in decision.by(decision.cloud.of(Binding), "port_id", port):
        decision.delete(decision.cloud.of(Binding), binding.id)
    _forget(decision, port)
    learned.drop(decision, port)


def below(cloud: Cloud, port: str) -> list[Binding]:
    """Return a port's bindings, the active one first."""
    found = cloud.ports.get(port)
    return [_active(found), *cloud.of(Binding).by("port_id", port)] if found and _movable(found) else []


def _end(decision: Decision, port: Port, binding: Binding) -> tuple[str, ...]:
    """Drop a binding that waits; return the hosts where others do."""
    decision.delete(decision.cloud.of(Binding), binding.id)
    left = tuple(host for host in port.waiting if host != binding.host)
    if not left:
        _forget(decision, port.id)
    return left


def _forget(decision: Decision, port: str, but: str | None = None) -> None:
    """What hosts, *but* one, have told of a port's connections is nobody's business any more."""
    for told in decision.by(decision.cloud.handovers, "port", port):
        if told.by != but:
            decision.delete(decision.cloud.handovers, told.id)


def _active(port: Port) -> Binding:
    return Binding(
        id=_id(port, port.at),
        project_id=port.project_id,
        port_id=port.id,
        host=port.at,
        vif_type=port.vif_type,
        vif_details=port.vif_details,
        vnic_type=port.vnic_type,
        profile=port.profile,
        status=ACTIVE,
    )


def _vif(host: str, vnic_type: str) -> dict[str, Any]:
    bound = bound_as(host, vnic_type)
    return {"vif_type": bound["vif_type"], "vif_details": bound["vif_details"]}


def _movable(port: Port) -> bool:
    return not port.device_owner.startswith(OWNED)


def _port(decision: Decision, id: str) -> Port:
    port = decision.read(decision.cloud.ports, id)
    if port is None:
        raise NotFound("port", id)
    if not _movable(port):
        raise Invalid(
            f"Bad port request: Invalid port {id}. Operation not valid on ports of the network's own.",
            type="BadRequest",
        )
    return port


def _named(decision: Decision, id: str) -> tuple[Port, str]:
    port, _, host = id.partition(".")
    return _port(decision, port), host


def _waiting(decision: Decision, port: Port, host: str) -> Binding:
    found = decision.read(decision.cloud.of(Binding), _id(port, host))
    if found is None:
        raise NotFound("binding", _id(port, host))
    return found


def _id(port: Port, host: str) -> str:
    return f"{port.id}.{host}"


BINDINGS = Collection(
    kind=BINDING,
    create=create,
    update=update,
    delete=delete,
    within=True,
    below=below,
    actions={"activate": Action(activate, who=SERVICE | HOST, before=take)},
    aliases={"binding-extended": "Port Bindings Extended"},
)
