"""Make, change and delete networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import UNSET

from crossway.control import qos, segment
from crossway.control.agent import nobody_schedules
from crossway.control.caller import Caller, project_of, seen
from crossway.control.cloud import Cloud
from crossway.control.collection import Action, Collection
from crossway.control.decision import Decision
from crossway.control.floatingip import drop_idle
from crossway.control.port import remove
from crossway.control.rbac import DEFAULT_NETWORK, check_end
from crossway.control.segment import drop, of_network
from crossway.control.segmentation import hold, release
from crossway.control.share import forget, share, unshare
from crossway.control.subnet import OF_NETWORK, check_mtu
from crossway.control.subnetpool import leave_pool, scope_of
from crossway.errors import Conflict, Invalid, NotFound
from crossway.model.agent import ZONE
from crossway.model.floatingip import FLOATING_IP
from crossway.model.network import NETWORK, PHYSNET, TYPE, VNI_MAX, VXLAN, Network
from crossway.model.network import SEGMENT as SEGMENT_ID
from crossway.model.port import ROUTER_GATEWAY
from crossway.model.rbac import ACCESS_AS_EXTERNAL, ACCESS_AS_SHARED, EVERYONE
from crossway.model.resource import Given, changed, new_id, now
from crossway.model.segment import SEGMENT, Segment
from crossway.model.subnet import Subnet
from crossway.model.who import ADMIN
from crossway.settings import UNDERLAY_MTU

# Outer Ethernet, IP, UDP and VXLAN headers.
OVERHEAD_IPV4, OVERHEAD_IPV6 = 50, 70
# Held by the external network that is the default.
DEFAULT = DEFAULT_NETWORK
# Begins the claims of networks that were made for highly available routers: each is of a project.
HELD = "ha/"


def create(decision: Decision, caller: Caller, given: Given) -> Network:
    project = project_of(caller, given)
    first, *further = _segments(given)
    provider = _provider(decision, first, project)
    _check_zones(given["availability_zone_hints"])
    mtu = _mtu(decision, provider["type"], given["mtu"])
    if given["qos_policy_id"] is None:
        given["qos_policy_id"] = qos.default_of(decision.cloud, project)
    id, time = new_id(), now()
    qos.refer(decision, caller, id, None, given["qos_policy_id"])
    network = Network(
        **{**given, **provider, "segments": (), "mtu": mtu, "project_id": project},
        id=id,
        created_at=time,
        updated_at=time,
    )
    decision.create(decision.cloud.networks, network)
    for one in further:
        _further(decision, caller, network, one)
    if network.external and network.is_default:
        _make_default(decision, network)
    if network.shared:
        share(decision, network)
    if network.external:
        share(decision, network, ACCESS_AS_EXTERNAL)
    return network


def update(decision: Decision, caller: Caller, id: str, given: Given) -> Network:
    cloud = decision.cloud
    old: Network = seen(cloud, caller, "network", id, decision.read(cloud.networks, id))
    given = _renumbered(decision, old, given)
    if "mtu" in given:
        given = {**given, "mtu": _mtu(decision, old.type, given["mtu"])}
        # A subnet that comes meanwhile changes the network as well.
        for one in decision.by(cloud.subnets, "network_id", id):
            check_mtu(id, given["mtu"], one.ip_version)
    if old.shared and given.get("shared") is False:
        try:
            check_end(decision, caller, old, ACCESS_AS_SHARED, EVERYONE)
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
        unshare(decision, old, ACCESS_AS_EXTERNAL, everyone=False)
    if "qos_policy_id" in given:
        qos.refer(decision, caller, id, old.qos_policy_id, given["qos_policy_id"])
    new = changed(old, given)
    was, becomes = (network.external and network.is_default for network in (old, new))
    if becomes and not was:
        _make_default(decision, new)
    elif was and not becomes:
        decision.release(DEFAULT)
    decision.put(cloud.networks, new)
    if new.shared and not old.shared:
        share(decision, new)
    if new.external and not old.external:
        share(decision, new, ACCESS_AS_EXTERNAL)
    return new


def delete(decision: Decision, caller: Caller, id: str) -> None:
    """Delete a network without ports, its subnets, and its floating IPs that stand for nothing."""
    cloud = decision.cloud
    network: Network = seen(cloud, caller, "network", id, decision.read(cloud.networks, id))
    drop_idle(decision, id)
    for port in decision.by(cloud.ports, "network_id", id):
        if port.device_owner in OF_NETWORK:
            remove(decision, port)
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
    qos.drop(decision, id, network.qos_policy_id)
    forget(decision, id)
    decision.delete(cloud.networks, id)
    if network.external and network.is_default:
        decision.release(DEFAULT)
    decision.rest(f"claim/network/{network.number}")
    if network.type != VXLAN:
        release(decision, network.type, network.physnet, network.segment)
    for one in cloud.of(Segment).by("network_id", id):
        drop(decision, one)
    _drop_ha(decision, id)
    decision.quiet(f"uses/{id}/")


def _drop_ha(decision: Decision, id: str) -> None:
    """Give back what a project's `ha` routers hold of the network that was made for them."""
    project = decision.cloud.claims.get(f"{HELD}{id}")
    if project is not None:
        decision.release(f"claim/{HELD}{id}")
        for router in decision.by(decision.cloud.routers, "project_id", project):
            if router.ha:
                decision.release(f"uses/{id}/{router.id}")


def _segments(given: Given) -> list[Given]:
    """Return what was asked for of each segment, the network's own first."""
    provider = {field: None if given[field] is UNSET else given[field] for field in ("type", "physnet", "segment")}
    if not given["segments"]:
        return [provider]
    if any(value is not None for value in provider.values()):
        raise Invalid("Segments and provider values cannot both be set.", type="SegmentsSetInConjunctionWithProviders")
    named = [one for one in given["segments"] if one["segment"] is not None]
    if any(named.count(one) > 1 for one in named):
        raise Invalid("Duplicate segment entry in request.", type="SegmentsContainDuplicateEntry")
    return list(given["segments"])


def _further(decision: Decision, caller: Caller, network: Network, one: Given) -> None:
    asked = {
        "network_id": network.id,
        "network_type": one["type"],
        "physical_network": one["physnet"],
        "segmentation_id": one["segment"],
    }
    segment.create(decision, caller, SEGMENT.given(asked))


def _make_default(decision: Decision, network: Network) -> None:
    """Let new topologies go outside by this network: by one alone."""
    networks = decision.cloud.networks
    known = next((n for n in networks.by("open", True) if n.external and n.is_default and n.id != network.id), None)
    if known is not None or not decision.claim(DEFAULT, network.id):
        raise Conflict(
            f"A default external network already exists: {known.id if known else network.id}.",
            type="DefaultExternalNetworkExists",
        )


def _check_zones(hints: tuple[str, ...]) -> None:
    for zone in hints:
        if zone != ZONE:
            raise NotFound("availability_zone", zone)


def _provider(decision: Decision, given: Given, project: str) -> dict[str, Any]:
    """Return type, physical network, segment and number, claimed."""
    type, physnet, segment = (given[field] for field in ("type", "physnet", "segment"))
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


def _renumbered(decision: Decision, old: Network, given: Given) -> Given:
    """Return what was given with what becomes of the network's segment: its VLAN or VNI may be another."""
    given = dict(given)
    asked = {name: given.pop(name) for name in ("type", "physnet", "segment") if name in given}
    asked = {name: value for name, value in asked.items() if value is not None and value != getattr(old, name)}
    segments = of_network(decision.cloud, old)
    told = [{"type": s.network_type, "physnet": s.physical_network, "segment": s.segmentation_id} for s in segments]
    if list(given.pop("segments", ())) not in ([], told):
        raise _fixed(f"its segments are {told}, and come and go at /v2.0/segments")
    if wrong := asked.keys() & {"type", "physnet"}:
        raise _fixed(f"its {' and '.join(sorted(wrong))} cannot become another")
    if not asked:
        return given
    if len(segments) > 1:
        raise _fixed("it has several segments")
    if any(port.host for port in decision.cloud.ports.by("network_id", old.id)):
        raise _fixed("hosts carry ports of it")
    number = hold(decision, old.type, old.physnet, asked["segment"], old.project_id)
    release(decision, old.type, old.physnet, old.segment)
    segment.renumber(decision, old, number)
    return {**given, "segment": number, **({"number": number} if old.type == VXLAN else {})}


def _fixed(why: str) -> Invalid:
    return Invalid(f"Invalid input for operation: provider attributes of a network: {why}.", type="InvalidInput")


def _mtu(decision: Decision, type: str, wanted: int) -> int:
    """Return what fits the underlay, or what is wanted if that fits."""
    most = int(UNDERLAY_MTU.value())
    if type == VXLAN:
        ipv6 = any(":" in host.underlay for host in decision.cloud.hosts.rows.values())
        most -= OVERHEAD_IPV6 if ipv6 else OVERHEAD_IPV4
    if wanted == 0:
        return most
    if wanted > most:
        raise Invalid(
            f"Invalid input for mtu. Reason: '{wanted}' should be at most {most} on this underlay.",
            type="InvalidInput",
        )
    return wanted


def _stale_network(of: Subnet | Segment) -> tuple[str]:
    return (of.network_id,)


def _several(cloud: Cloud, network: Network) -> Any:
    """Return the segments of a network that has several; one alone is what its provider attributes say."""
    if not cloud.of(Segment).ids("network_id", network.id):
        return UNSET
    found = of_network(cloud, network)
    if len(found) == 1:
        return UNSET
    return [{TYPE: one.network_type, PHYSNET: one.physical_network, SEGMENT_ID: one.segmentation_id} for one in found]


def _alone(field: str) -> Callable[[Cloud, Network], Any]:
    """Return what derives a provider attribute: it is told of a network with one segment."""
    return lambda cloud, network: getattr(network, field) if _several(cloud, network) is UNSET else UNSET


NETWORKS = Collection(
    kind=NETWORK,
    create=create,
    update=update,
    delete=delete,
    derived={
        "subnets": lambda cloud, network: list(cloud.subnets.ids("network_id", network.id)),
        "l2_adjacency": lambda cloud, network: (
            not any(subnet.segment_id for subnet in cloud.subnets.by("network_id", network.id))
        ),
        "availability_zones": lambda cloud, network: [ZONE] if cloud.subnets.ids("network_id", network.id) else [],
        "segments": _several,
        TYPE: _alone("type"),
        PHYSNET: _alone("physnet"),
        SEGMENT_ID: _alone("segment"),
        "ipv4_address_scope": lambda cloud, network: scope_of(cloud, network.id, 4),
        "ipv6_address_scope": lambda cloud, network: scope_of(cloud, network.id, 6),
    },
    stale={"subnet": _stale_network, "segment": _stale_network},
    actions={"dhcp-agents": Action(nobody_schedules("agents"), who=ADMIN, method="GET")},
    aliases={
        "external-net": "Neutron external network",
        "availability_zone_filter": "Availability Zone Filter Extension",
        "l2_adjacency": "L2 Adjacency",
        "multi-provider": "Multi Provider Network",
        "net-mtu": "Network MTU",
        "net-mtu-writable": "Network MTU (writable)",
        "network_availability_zone": "Network Availability Zone",
        "network_ha": "Network HA creation flag",
        "provider": "Provider Network",
    },
)
