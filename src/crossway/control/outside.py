"""How a port is known outside its network: floating IPs, forwardings, proxies, local IPs.

What refers to a port holds the key `outside/PORT/ID`, what a router carries
`routed/ROUTER/ID`, so that neither is taken away while another is being given
something to carry.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from crossway.control.caller import Caller
from crossway.control.cloud import Cloud
from crossway.control.decision import Decision
from crossway.errors import Conflict, Invalid
from crossway.model.conntrack_helper import ConntrackHelper
from crossway.model.floatingip import FloatingIp
from crossway.model.local_ip import LocalIp, PortAssociation
from crossway.model.ndp_proxy import NdpProxy
from crossway.model.port import ROUTER_INTERFACE, FixedIp, Port
from crossway.model.port_forwarding import PortForwarding
from crossway.model.resource import changed
from crossway.model.router import Router
from crossway.model.subnet import Subnet


def bear(
    decision: Decision, id: str, ports: tuple[str | None, str | None], routers: tuple[str | None, str | None]
) -> None:
    """Let what has *id* refer to another port and router than before; each is (old, new)."""
    for kind, (old, new) in (("outside", ports), ("routed", routers)):
        if old != new:
            if old:
                decision.release(f"{kind}/{old}/{id}")
            if new:
                decision.claim(f"{kind}/{new}/{id}")


def keys(id: str, port: str | None, router: str | None) -> Iterator[str]:
    """Yield the keys that what has *id* holds for the port and the router that it refers to."""
    if port:
        yield f"outside/{port}/{id}"
    if router:
        yield f"routed/{router}/{id}"


def settle_port(decision: Decision, port: str) -> None:
    """Rely on nothing beginning to refer to a port."""
    decision.quiet(f"outside/{port}/")


def settle_router(decision: Decision, router: str) -> None:
    """Rely on a router being given nothing to carry."""
    decision.quiet(f"routed/{router}/")


def leave(decision: Decision, port: Port) -> None:
    """Undo what refers to a port that goes."""
    cloud = decision.cloud
    settle_port(decision, port.id)
    for fip in decision.by(cloud.of(FloatingIp), "port_id", port.id):
        bear(decision, fip.id, (port.id, None), (fip.router_id, None))
        decision.put(cloud.of(FloatingIp), changed(fip, {"port_id": None, "fixed_ip_address": None, "router_id": None}))
    for forwarding in decision.by(cloud.of(PortForwarding), "internal_port_id", port.id):
        drop_forwarding(decision, forwarding)
    for proxy in decision.by(cloud.of(NdpProxy), "port_id", port.id):
        drop_proxy(decision, proxy)
    for association in decision.by(cloud.of(PortAssociation), "fixed_port_id", port.id):
        drop_association(decision, association)


def check_leave(decision: Decision, caller: Caller, port: Port) -> None:
    """Raise Conflict where a port may not be deleted by this caller for what refers to it."""
    cloud = decision.cloud
    fips = cloud.of(FloatingIp).by("port_id", port.id)
    if not caller.admin and any(fip.project_id != caller.project for fip in fips):
        raise Conflict(
            f"Unable to complete the operation on port {port.id} because the port still has an associated floating IP.",
            type="FipAssociated",
        )


def check_local_ips(decision: Decision, port: Port) -> None:
    """Raise Conflict if local IPs are an address of a port; `leave` relies on there being no new ones."""
    if decision.by(decision.cloud.of(LocalIp), "local_port_id", port.id):
        raise Conflict(
            f"Port {port.id} cannot be deleted directly via the port API: still referenced by Local IPs.",
            type="ServicePortInUse",
        )


def readdress(decision: Decision, port: Port, fixed_ips: Iterable[FixedIp]) -> None:
    """Follow a port whose addresses change: what stands for one that goes keeps it, or goes with it."""
    cloud = decision.cloud
    left = {fixed.ip_address for fixed in fixed_ips}
    if left >= {fixed.ip_address for fixed in port.fixed_ips}:
        return
    settle_port(decision, port.id)
    for fip in cloud.of(FloatingIp).by("port_id", port.id):
        if fip.fixed_ip_address not in left:
            raise Invalid(
                f"Cannot update the fixed_ips of the port {port.id}, because its original fixed_ip has been "
                "associated to a floating ip",
                type="BadRequest",
            )
    for forwarding in cloud.of(PortForwarding).by("internal_port_id", port.id):
        if forwarding.internal_ip_address not in left:
            drop_forwarding(decision, forwarding)
    for proxy in cloud.of(NdpProxy).by("port_id", port.id):
        if proxy.ip_address not in left:
            drop_proxy(decision, proxy)
    for association in cloud.of(PortAssociation).by("fixed_port_id", port.id):
        if association.fixed_ip not in left:
            drop_association(decision, association)


def drop_forwarding(decision: Decision, forwarding: PortForwarding) -> None:
    """Delete a port forwarding; the last of a floating IP takes it off its router."""
    cloud = decision.cloud
    bear(decision, forwarding.id, (forwarding.internal_port_id, None), (None, None))
    decision.delete(cloud.of(PortForwarding), forwarding.id)
    fip = decision.read(cloud.of(FloatingIp), forwarding.floatingip_id)
    if fip is None:
        return
    last = not decision.by(cloud.of(PortForwarding), "floatingip_id", fip.id)
    if last:
        bear(decision, fip.id, (None, None), (fip.router_id, None))
    decision.put(cloud.of(FloatingIp), changed(fip, {"router_id": None} if last else {}))


def drop_proxy(decision: Decision, proxy: NdpProxy) -> None:
    bear(decision, proxy.id, (proxy.port_id, None), (proxy.router_id, None))
    decision.release(f"proxied/{proxy.port_id}/{proxy.ip_address}")
    decision.delete(decision.cloud.of(NdpProxy), proxy.id)


def drop_association(decision: Decision, association: PortAssociation) -> None:
    decision.release(f"answers/{association.local_ip_id}/{association.fixed_port_id}")
    bear(decision, association.id, (association.fixed_port_id, None), (None, None))
    decision.delete(decision.cloud.of(PortAssociation), association.id)


def drop_helpers(decision: Decision, router: str) -> None:
    """Delete the conntrack helpers of a router that goes."""
    table = decision.cloud.of(ConntrackHelper)
    settle_router(decision, router)
    for helper in decision.by(table, "router_id", router):
        bear(decision, helper.id, (None, None), (router, None))
        decision.delete(table, helper.id)


def router_between(decision: Decision, subnet: Subnet, network: str) -> Router | None:
    """Return a router that joins a subnet to an external network: the subnet's gateway rather than another."""
    cloud = decision.cloud
    first: Router | None = None
    for interface in decision.by(cloud.ports, "joined_subnet_id", subnet.id):
        router = decision.get(cloud.routers, interface.device_id)
        if router is None or network not in router.gateway_networks:
            continue
        if FixedIp(subnet.id, subnet.gateway_ip or "") in interface.fixed_ips:
            return decision.read(cloud.routers, router.id)
        first = first or router
    return first and decision.read(cloud.routers, first.id)


def joins(decision: Decision, subnet: Subnet, router: str) -> bool:
    """Say whether a router joins a subnet, itself or through other routers."""
    cloud = decision.cloud
    networks, seen = [subnet.network_id], {subnet.network_id}
    while networks:
        for reached in decision.by(cloud.subnets, "network_id", networks.pop()):
            for interface in decision.by(cloud.ports, "joined_subnet_id", reached.id):
                if interface.device_id == router:
                    return True
                further = decision.by(cloud.ports, "device_id", interface.device_id)
                new = {port.network_id for port in further if port.device_owner == ROUTER_INTERFACE} - seen
                networks += new
                seen |= new
    return False


def address_scope(cloud: Cloud, network: str, version: int) -> str | None:
    """Return the address scope of a network's subnets of one family."""
    pools = cloud.tables.get("subnetpool")
    for subnet in cloud.subnets.by("network_id", network):
        pool = (
            pools.get(subnet.subnetpool_id) if pools and subnet.ip_version == version and subnet.subnetpool_id else None
        )
        if pool is not None:
            found: str | None = pool.address_scope_id
            return found
    return None
