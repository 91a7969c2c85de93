"""Make, change and delete NDP proxies."""

from __future__ import annotations

from crossway.control import outside
from crossway.control.caller import Caller, project_of, seen
from crossway.control.collection import Collection, change, find
from crossway.control.decision import Decision
from crossway.errors import Conflict, Invalid
from crossway.model.ndp_proxy import NDP_PROXY, NdpProxy
from crossway.model.port import ROUTER_INTERFACE, Port
from crossway.model.resource import Given, new_id, now
from crossway.model.router import Router


def create(decision: Decision, caller: Caller, given: Given) -> NdpProxy:
    cloud = decision.cloud
    port: Port = seen(cloud, caller, "port", given["port_id"], decision.read(cloud.ports, given["port_id"]))
    router: Router = seen(cloud, caller, "router", given["router_id"], decision.read(cloud.routers, given["router_id"]))
    joined = [
        interface
        for interface in decision.by(cloud.ports, "device_id", router.id)
        if interface.device_owner == ROUTER_INTERFACE and interface.network_id == port.network_id
    ]
    if not joined:
        raise _unreachable(port, router)
    if not router.enable_ndp_proxy or router.gateway is None:
        raise Conflict(
            f"The enable_ndp_proxy parameter of router {router.id} must be set as True while create ndp proxy entry "
            "on it.",
            type="RouterNDPProxyNotEnable",
        )
    ip = _address(port, router, joined, given["ip_address"])
    scopes = [outside.address_scope(cloud, network, 6) for network in (router.gateway.network_id, port.network_id)]
    if scopes[0] != scopes[1]:
        raise Conflict(
            f"The IPv6 address scope {scopes[0]} of external network conflict with internal network's IPv6 address "
            f"scope {scopes[1]}.",
            type="AddressScopeConflict",
        )
    id, time = new_id(), now()
    key = f"proxied/{port.id}/{ip}"
    if any(other.ip_address == ip for other in cloud.of(NdpProxy).by("port_id", port.id)) or not decision.claim(
        key, id
    ):
        raise Conflict(
            f"There is an NDP proxy for {ip} of port {port.id} on router {router.id} already.", type="NDPProxyExists"
        )
    outside.bear(decision, id, (None, port.id), (None, router.id))
    proxy = NdpProxy(
        **{**given, "project_id": project_of(caller, given), "ip_address": ip}, id=id, created_at=time, updated_at=time
    )
    decision.create(cloud.of(NdpProxy), proxy)
    return proxy


def update(decision: Decision, caller: Caller, id: str, given: Given) -> NdpProxy:
    return change(decision, find(decision, NdpProxy, id), given)


def delete(decision: Decision, caller: Caller, id: str) -> None:
    outside.drop_proxy(decision, find(decision, NdpProxy, id))


def _address(port: Port, router: Router, joined: list[Port], wanted: str | None) -> str:
    """Return the IPv6 address of a port that its router can reach: the wanted one, or its first."""
    ipv6 = [fixed for fixed in port.fixed_ips if ":" in fixed.ip_address]
    if not ipv6:
        raise Invalid(
            f"Bad ndp_proxy request: Requested port {port.id} must allocate one IPv6 address at least.",
            type="BadRequest",
        )
    reached = {fixed.subnet_id for interface in joined for fixed in interface.fixed_ips if ":" in fixed.ip_address}
    if not wanted:
        found = next((fixed for fixed in ipv6 if fixed.subnet_id in reached), None)
        if found is None:
            raise _unreachable(port, router)
        return found.ip_address
    subnet = next((fixed.subnet_id for fixed in ipv6 if fixed.ip_address == wanted), None)
    if subnet not in reached:
        reason = f"This address not belong to the port {port.id}"
        if subnet is not None:
            reason = f"This address cannot reach the router {router.id}"
        raise Invalid(f"The address {wanted} is invalid, reason: {reason}.", type="InvalidAddress")
    return wanted


def _unreachable(port: Port, router: Router) -> Conflict:
    return Conflict(
        f"The port {port.id} cannot reach the router {router.id} by IPv6 subnet.", type="PortUnreachableRouter"
    )


NDP_PROXIES = Collection(
    kind=NDP_PROXY, create=create, update=update, delete=delete, aliases={"l3-ndp-proxy": "L3 NDP Proxy"}
)
