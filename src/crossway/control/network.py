"""Make, change and delete networks."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET

from crossway.control import qos
from crossway.control.caller import Caller, project_of, seen
from crossway.control.collection import Collection
from crossway.control.decision import Decision
from crossway.control.floatingip import drop_idle
from crossway.control.rbac import check_end
from crossway.control.share import forget, share, unshare
from crossway.control.subnetpool import leave_pool, scope_of
from crossway.control.segment import drop
from crossway.control.segmentation import hold, key
from crossway.errors import Conflict, Invalid
from crossway.model.floatingip import FLOATING_IP
from crossway.model.network import NETWORK, VNI_MAX, VXLAN, Network
from crossway.model.port import ROUTER_GATEWAY
from crossway.model.rbac import ACCESS_AS_EXTERNAL, ACCESS_AS_SHARED, EVERYONE
from crossway.model.resource import Given, changed, new_id, now
from crossway.model.segment import Segment
from crossway.model.subnet import Subnet
from crossway.settings import UNDERLAY_MTU

# Outer Ethernet, IP, UDP and VXLAN headers.
OVERHEAD_IPV4, OVERHEAD_IPV6 = 50, 70
MTU_MIN = 68


def create(decision: Decision, caller: Caller, given: Given) -> Network:
    project = project_of(caller, given)
    provider = _provider(decision, given, project)
    mtu = _mtu(decision, provider["type"], given["mtu"])
    if given["qos_policy_id"] is None:
        given["qos_policy_id"] = qos.default_of(decision.cloud, project)
    id, time = new_id(), now()
    qos.refer(decision, caller, id, None, given["qos_policy_id"])
    network = Network(
        **{**given, **provider, "mtu": mtu, "project_id": project},
        id=id,
        created_at=time,
        updated_at=time,
    )
    decision.create(decision.cloud.networks, network)
    if network.shared:
        share(decision, network)
    if network.external:
        share(decision, network, ACCESS_AS_EXTERNAL)
    return network


def update(decision: Decision, caller: Caller, id: str, given: Given) -> Network:
    cloud = decision.cloud
    old: Network = seen(cloud, caller, "network", id, decision.read(cloud.networks, id))
    if "mtu" in given:
        given = {**given, "mtu": _mtu(decision, old.type, given["mtu"])}
    if old.shared and given.get("shared") is False:
        try:
            check_end(decision, old, ACCESS_AS_SHARED, EVERYONE)
        except Conflict:
            raise Conflict(
                f"Unable to reconfigure sharing settings for network {id}. Multiple projects are using it.",
                type="InvalidSharedSetting",
            ) from None
        unshare(decision, old)
    if old.external and given.get("external") is False:
        if any(p.device_owner in (ROUTER_GATEWAY, FLOATING_IP) for p in cloud.ports.by("network_id", id)):
            raise Conflict(
                f"External network {id} cannot be made non-external, since it has existing gateway ports or "
                "floating IPs.",
                type="ExternalNetworkInUse",
            )
        decision.quiet(f"mac/{id}/")
    if "qos_policy_id" in given:
        qos.refer(decision, caller, id, old.qos_policy_id, given["qos_policy_id"])
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
        leave_pool(decision, subnet)
    qos.refer(decision, caller, id, network.qos_policy_id, None)
    forget(decision, id)
    decision.delete(cloud.networks, id)
    decision.release(f"claim/network/{network.number}")
    if network.type != VXLAN:
        decision.release(key(network.type, network.physnet, network.segment))
    for segment in cloud.of(Segment).by("network_id", id):
        drop(decision, segment)
    decision.quiet(f"uses/{id}/")


def _provider(decision: Decision, given: Given, project: str) -> dict[str, Any]:
    """Return type, physical network, segment and number, claimed."""
    type, physnet, segment = (
        None if given[field] is UNSET else given[field] for field in ("type", "physnet", "segment")
    )
    if type is None:
        if physnet or segment:
            raise Invalid("Invalid input for operation: provider:network_type required.", type="InvalidInput")
        type = VXLAN
    if type == VXLAN and physnet:
        raise Invalid(
            f"Invalid input for operation: provider:physical_network '{physnet}' does not go with a vxlan network.",
            type="InvalidInput",
        )
    if type != VXLAN and not physnet:
        raise Invalid(
            f"Invalid input for operation: physical_network required for {type} provider network.", type="InvalidInput"
        )
    segment = hold(decision, type, physnet, segment, project)
    # A VXLAN network's VNI is its number; others are known to hosts by a number of their own.
    number = segment if type == VXLAN else decision.number("network", VNI_MAX)
    return {"type": type, "physnet": physnet, "segment": segment, "number": number}


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
        "ipv4_address_scope": lambda cloud, network: scope_of(cloud, network.id, 4),
        "ipv6_address_scope": lambda cloud, network: scope_of(cloud, network.id, 6),
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
