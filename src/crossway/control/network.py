"""Make, change and delete networks."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET

from crossway.control.caller import Caller, project_of, seen
from crossway.control.collection import Collection
from crossway.control.decision import Decision
from crossway.control.floatingip import drop_idle
from crossway.errors import Conflict, Invalid
from crossway.model.floatingip import FLOATING_IP
from crossway.model.network import FLAT, NETWORK, VLAN, VLAN_MAX, VNI_MAX, VXLAN, Network
from crossway.model.port import ROUTER_GATEWAY
from crossway.model.resource import Given, changed, new_id, now
from crossway.model.subnet import Subnet
from crossway.settings import UNDERLAY_MTU

# Outer Ethernet, IP, UDP and VXLAN headers.
OVERHEAD_IPV4, OVERHEAD_IPV6 = 50, 70
MTU_MIN = 68


def create(decision: Decision, caller: Caller, given: Given) -> Network:
    project = project_of(caller, given)
    provider = _provider(decision, given)
    mtu = _mtu(decision, provider["type"], given["mtu"])
    time = now()
    network = Network(
        **{**given, **provider, "mtu": mtu, "project_id": project},
        id=new_id(),
        created_at=time,
        updated_at=time,
    )
    decision.create(decision.cloud.networks, network)
    return network


def update(decision: Decision, caller: Caller, id: str, given: Given) -> Network:
    cloud = decision.cloud
    old: Network = seen(cloud, caller, "network", id, decision.read(cloud.networks, id))
    if "mtu" in given:
        given = {**given, "mtu": _mtu(decision, old.type, given["mtu"])}
    if old.shared and given.get("shared") is False:
        foreign = [p for p in cloud.ports.by("network_id", id) if p.project_id not in (old.project_id, "")]
        if foreign:
            raise Conflict(
                f"Unable to reconfigure sharing settings for network {id}. Multiple projects are using it.",
                type="InvalidSharedSetting",
            )
        decision.quiet(f"mac/{id}/")
    if old.external and given.get("external") is False:
        if any(p.device_owner in (ROUTER_GATEWAY, FLOATING_IP) for p in cloud.ports.by("network_id", id)):
            raise Conflict(
                f"External network {id} cannot be made non-external, since it has existing gateway ports or "
                "floating IPs.",
                type="ExternalNetworkInUse",
            )
        decision.quiet(f"mac/{id}/")
    new = changed(old, given)
    decision.put(cloud.networks, new)
    return new


def delete(decision: Decision, caller: Caller, id: str) -> None:
    """Delete a network without ports, its subnets, and its floating IPs that stand for nothing."""
    cloud = decision.cloud
    network: Network = seen(cloud, caller, "network", id, decision.read(cloud.networks, id))
    drop_idle(decision, id)
    ports = decision.by(cloud.ports, "network_id", id)
    if ports:
        raise Conflict(
            f"Unable to complete operation on network {id}. There are one or more ports still in use on the network, "
            f"id for these ports is {','.join(p.id for p in ports[:10])}.",
            type="NetworkInUse",
        )
    decision.quiet(f"mac/{id}/")
    decision.quiet(f"prefix/{id}/")
    for subnet in cloud.subnets.by("network_id", id):
        decision.delete(cloud.subnets, subnet.id)
        decision.release(f"prefix/{id}/{subnet.id}")
    decision.delete(cloud.networks, id)
    decision.release(f"claim/network/{network.number}")
    if network.type != VXLAN:
        decision.release(_segment_key(network.type, network.physnet, network.segment))


def _provider(decision: Decision, given: Given) -> dict[str, Any]:
    """Return type, physical network, segment and number, claimed."""
    type, physnet, segment = (
        None if given[field] is UNSET else given[field] for field in ("type", "physnet", "segment")
    )
    if type is None:
        if physnet or segment:
            raise Invalid("Invalid input for operation: provider:network_type required.", type="InvalidInput")
        type = VXLAN
    if type == VXLAN:
        if physnet:
            raise Invalid(
                f"Invalid input for operation: provider:physical_network '{physnet}' does not go with a vxlan network.",
                type="InvalidInput",
            )
        if segment is None:
            number = decision.number("network", VNI_MAX)
        else:
            number = segment
            _take(decision, f"claim/network/{number}", f"The VNI {number} is already in use", "TunnelIdInUse")
        return {"type": type, "physnet": None, "segment": number, "number": number}
    if not physnet:
        raise Invalid(
            f"Invalid input for operation: physical_network required for {type} provider network.", type="InvalidInput"
        )
    if type == FLAT:
        if segment is not None:
            raise Invalid(
                f"Invalid input for operation: segmentation_id '{segment}' does not go with a flat network.",
                type="InvalidInput",
            )
        _take(
            decision,
            _segment_key(FLAT, physnet, None),
            f"Unable to create the flat network. Physical network {physnet} is in use.",
            "FlatNetworkInUse",
        )
    elif segment is None:
        segment = decision.number(f"vlan/{physnet}", VLAN_MAX)
    elif segment > VLAN_MAX:
        raise Invalid(
            f"Invalid input for operation: segmentation_id '{segment}' should be from 1 to {VLAN_MAX}.",
            type="InvalidInput",
        )
    else:
        _take(
            decision,
            _segment_key(VLAN, physnet, segment),
            f"Unable to create the network. The VLAN {segment} on physical network {physnet} is in use.",
            "VlanIdInUse",
        )
    return {"type": type, "physnet": physnet, "segment": segment, "number": decision.number("network", VNI_MAX)}


def _segment_key(type: str, physnet: str | None, segment: int | None) -> str:
    return f"claim/flat/{physnet}" if type == FLAT else f"claim/vlan/{physnet}/{segment}"


def _take(decision: Decision, key: str, taken: str, type: str) -> None:
    if key.removeprefix("claim/") in decision.cloud.claims or not decision.claim(key):
        raise Conflict(taken, type=type)


def _mtu(decision: Decision, type: str, wanted: int) -> int:
    """Return what fits the underlay, or what is wanted if that fits."""
    most = int(UNDERLAY_MTU.value())
    if type == VXLAN:
        ipv6 = any(":" in host.underlay for host in decision.cloud.hosts.rows.values())
        most -= OVERHEAD_IPV6 if ipv6 else OVERHEAD_IPV4
    if wanted == 0:
        return most
    if not MTU_MIN <= wanted <= most:
        raise Invalid(
            f"Invalid input for mtu. Reason: '{wanted}' should be from {MTU_MIN} to {most} on this underlay.",
            type="InvalidInput",
        )
    return wanted


def _stale_network(subnet: Subnet) -> tuple[str]:
    return (subnet.network_id,)


NETWORKS = Collection(
    kind=NETWORK,
    create=create,
    update=update,
    delete=delete,
    derived={
        "subnets": lambda cloud, network: list(cloud.subnets.ids("network_id", network.id)),
        "l2_adjacency": lambda cloud, network: True,
    },
    stale={"subnet": _stale_network},
    aliases={
        "external-net": "Neutron external network",
        "l2_adjacency": "L2 Adjacency",
        "net-mtu": "Network MTU",
        "net-mtu-writable": "Network MTU (writable)",
        "provider": "Provider Network",
    },
)
