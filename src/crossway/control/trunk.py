"""Make trunks, and have ports join and leave them.

A port is in one trunk at most, as its parent or as one of those within:
whoever takes it holds the key `trunked/PORT`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from msgspec import UNSET

from crossway.control.caller import Caller, owned, project_of
from crossway.control.cloud import Cloud
from crossway.control.collection import Action, Checked, Collection, change, find
from crossway.control.decision import Decision
from crossway.errors import Conflict, Fault, Invalid, NotFound
from crossway.model.network import VLAN_MAX, Network
from crossway.model.port import Port
from crossway.model.resource import Given, new_id, now
from crossway.model.trunk import INHERIT, TRUNK, VLAN, SubPort, Trunk, sub_ports
from crossway.model.who import MEMBER, READER

DOWN = "DOWN"


def create(decision: Decision, caller: Caller, given: Given) -> Trunk:
    project = project_of(caller, given)
    id, time = new_id(), now()
    parent = _port(decision, caller, given["port_id"])
    _take(decision, parent.id, id)
    if parent.host:
        raise _busy(parent.id)
    trunk = Trunk(
        **{
            **given,
            "project_id": project,
            "sub_ports": _joining(decision, caller, id, parent, given["sub_ports"], ()),
        },
        id=id,
        created_at=time,
        updated_at=time,
    )
    decision.create(decision.cloud.of(Trunk), trunk)
    return trunk


def update(decision: Decision, caller: Caller, id: str, given: Given) -> Trunk:
    return change(decision, find(decision, Trunk, id), given)


def delete(decision: Decision, caller: Caller, id: str) -> None:
    trunk = find(decision, Trunk, id)
    _check_enabled(trunk)
    parent = decision.get(decision.cloud.ports, trunk.port_id)
    if parent is not None and parent.host:
        raise Conflict(f"Trunk {id} is currently in use.", type="TrunkInUse")
    for port in (trunk.port_id, *(sub.port_id for sub in trunk.sub_ports)):
        decision.release(f"trunked/{port}")
    decision.delete(decision.cloud.of(Trunk), id)


def add(decision: Decision, caller: Caller, id: str, body: Any) -> dict[str, Any]:
    """Have ports join: `PUT /v2.0/trunks/ID/add_subports`."""
    trunk = find(decision, Trunk, id)
    wanted = _asked(body)
    parent = decision.rely(decision.cloud.ports, trunk.port_id)
    if parent is None:
        raise NotFound("port", trunk.port_id)
    joining = _joining(decision, caller, id, parent, wanted, trunk.sub_ports)
    _check_enabled(trunk)
    return TRUNK.show(change(decision, trunk, {"sub_ports": (*trunk.sub_ports, *joining), "status": DOWN}))


def remove(decision: Decision, caller: Caller, id: str, body: Any) -> dict[str, Any]:
    """Have ports leave: `PUT /v2.0/trunks/ID/remove_subports`."""
    trunk = find(decision, Trunk, id)
    _check_enabled(trunk)
    left = {sub.port_id: sub for sub in trunk.sub_ports}
    for asked in _asked(body):
        if left.pop(asked["port_id"], None) is None:
            raise NotFound("sub_port", asked["port_id"])
        decision.release(f"trunked/{asked['port_id']}")
    return TRUNK.show(change(decision, trunk, {"sub_ports": tuple(left.values()), "status": DOWN}))


def listed(decision: Decision, caller: Caller, id: str, body: Any) -> dict[str, Any]:
    return {"sub_ports": TRUNK.show(find(decision, Trunk, id))["sub_ports"]}


def check_free(decision: Decision, port: Port) -> None:
    """Raise Conflict if a port is in a trunk, and rely on its not joining one."""
    cloud = decision.cloud
    for id in cloud.of(Trunk).ids("port_id", port.id):
        raise Conflict(f"Port {port.id} is currently a parent port for trunk {id}.", type="PortInUseAsTrunkParent")
    for id in cloud.of(Trunk).ids("sub_port", port.id):
        raise Conflict(f"Port {port.id} is currently a subport for trunk {id}.", type="PortInUseAsSubPort")
    decision.empty(f"trunked/{port.id}")


def details(cloud: Cloud, port: Port) -> Any:
    """Return what a port says of the trunk that it carries; UNSET if it carries none."""
    for trunk in cloud.of(Trunk).by("port_id", port.id):
        ports = [(sub, cloud.ports.get(sub.port_id)) for sub in trunk.sub_ports]
        subs = [
            {
                "segmentation_id": sub.segmentation_id,
                "segmentation_type": sub.segmentation_type,
                "port_id": sub.port_id,
                **({"mac_address": one.mac_address} if one else {}),
            }
            for sub, one in ports
        ]
        return {"trunk_id": trunk.id, "sub_ports": subs}
    return UNSET


def parents(cloud: Cloud, trunk: Trunk) -> tuple[str]:
    return (trunk.port_id,)


def parents_of_port(cloud: Cloud, port: Port) -> Iterator[str]:
    return (trunk.port_id for trunk in cloud.of(Trunk).by("sub_port", port.id))


def _asked(body: Any) -> tuple[dict[str, Any], ...]:
    if isinstance(body, Checked):
        seen_already: tuple[dict[str, Any], ...] = body.value
        return seen_already
    if not isinstance(body, dict) or "sub_ports" not in body:
        raise Invalid("The body should be {'sub_ports': […]}", type="InvalidInput")
    try:
        return sub_ports(body["sub_ports"])
    except ValueError as error:
        raise _invalid(str(error)) from None


def _joining(
    decision: Decision,
    caller: Caller,
    id: str,
    parent: Port,
    wanted: Iterable[dict[str, Any]],
    there: Iterable[SubPort],
) -> tuple[SubPort, ...]:
    """Check and take ports that are to join a trunk."""
    cloud, taken = decision.cloud, {(sub.segmentation_type, sub.segmentation_id) for sub in there}
    within: Network | None = decision.get(cloud.networks, parent.network_id)
    joining = []
    wanted = list(wanted)
    for asked in wanted:
        # What can never be right is said before what is not there.
        if asked.get("segmentation_type") != INHERIT:
            _tag(asked, None)
    for asked in wanted:
        if asked["port_id"] == parent.id:
            raise _busy(parent.id)
        port = _port(decision, caller, asked["port_id"])
        network = decision.get(cloud.networks, port.network_id)
        if network and within and network.mtu > within.mtu:
            raise Conflict(
                f"MTU {network.mtu} of subport {port.id} cannot be greater than MTU {within.mtu} of trunk {id}.",
                type="SubPortMtuGreaterThanTrunkPortMtu",
            )
        sub = SubPort(*_tag(asked, network), port.id)
        _take(decision, port.id, id)
        if port.device_id:
            raise Conflict(
                f"Unable to complete operation on port {port.id} for network {port.network_id}. Port already has an "
                f"attached device {port.device_id}.",
                type="PortInUse",
            )
        tag = (sub.segmentation_type, sub.segmentation_id)
        if tag in taken:
            raise Conflict(
                f"segmentation_type {tag[0]} and segmentation_id {tag[1]} already in use on trunk {id}.",
                type="DuplicateSubPort",
            )
        taken.add(tag)
        joining.append(sub)
    return tuple(joining)


def _tag(asked: dict[str, Any], network: Network | None) -> tuple[int, str]:
    """Return number and kind of the tag that was asked for; one that is inherited is the network's own."""
    kind, number = asked.get("segmentation_type"), asked.get("segmentation_id")
    if kind == INHERIT and network is not None:
        kind, number = network.type, network.segment
    if kind is None or number is None:
        raise _invalid(
            f"Invalid subport details '{asked}': missing segmentation information. Must specify both segmentation_id "
            "and segmentation_type"
        )
    try:
        number = int(number)
    except ValueError:
        raise _invalid(f"Invalid subport details: segmentation_id '{number}' is not an integer") from None
    if kind != VLAN:
        raise _invalid(f"Unknown segmentation_type '{kind}'")
    if not 1 <= number <= VLAN_MAX:
        raise _invalid(f"Segmentation ID '{number}' is not in range")
    return number, kind


def _port(decision: Decision, caller: Caller, id: str) -> Port:
    cloud = decision.cloud
    port: Port = owned(cloud, caller, "port", id, decision.read(cloud.ports, id))
    return port


def _take(decision: Decision, port: str, trunk: str) -> None:
    trunks = decision.cloud.of(Trunk)
    if decision.by(trunks, "sub_port", port):
        raise Conflict(f"Port {port} is in use by another trunk.", type="TrunkPortInUse")
    if decision.by(trunks, "port_id", port) or not decision.claim(f"trunked/{port}", trunk):
        raise _busy(port)


def _check_enabled(trunk: Trunk) -> None:
    if not trunk.admin_state_up:
        raise Conflict(f"Trunk {trunk.id} is currently disabled.", type="TrunkDisabled")


def _busy(port: str) -> Fault:
    return Conflict(
        f"Port {port} is currently in use and is not eligible for use as a parent port.", type="ParentPortInUse"
    )


def _invalid(reason: str) -> Invalid:
    return Invalid(f"Invalid input for operation: {reason}.", type="InvalidInput")


TRUNKS = Collection(
    kind=TRUNK,
    create=create,
    update=update,
    delete=delete,
    actions={
        "add_subports": Action(add, check=_asked, who=MEMBER),
        "remove_subports": Action(remove, check=_asked, who=MEMBER),
        "get_subports": Action(listed, who=READER, method="GET"),
    },
    aliases={"trunk": "Trunk Extension", "trunk-details": "Trunk port details"},
)
