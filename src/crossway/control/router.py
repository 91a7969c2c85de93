"""Make, change and delete routers, their interfaces, routes and gateway."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Any

from msgspec import UNSET

from crossway.control import identity
from crossway.control import port as ports
from crossway.control.caller import Caller, owned, project_of, seen
from crossway.control.collection import Action, Collection
from crossway.control.decision import Decision
from crossway.errors import Conflict, Invalid, NotFound
from crossway.model.network import Network
from crossway.model.port import ACTIVE, ROUTER_GATEWAY, ROUTER_INTERFACE, FixedIp, Port, Wish
from crossway.model.resource import Given, changed, new_id, now
from crossway.model.router import ROUTER, Gateway, GatewayWish, Router
from crossway.model.subnet import Route, Subnet

NUMBER_MAX = (1 << 32) - 1


def create(decision: Decision, caller: Caller, given: Given) -> Router:
    project = project_of(caller, given)
    time, id = now(), new_id()
    gateway, port = _gateway(decision, caller, id, given["gateway"])
    router = Router(
        **{**{k: v for k, v in given.items() if v is not UNSET}, "project_id": project, "gateway": gateway},
        id=id,
        number=decision.number("router", NUMBER_MAX),
        gateway_port=port,
        created_at=time,
        updated_at=time,
    )
    decision.create(decision.cloud.routers, router)
    return router


def update(decision: Decision, caller: Caller, id: str, given: Given) -> Router:
    cloud = decision.cloud
    old: Router = seen(cloud, caller, "router", id, decision.read(cloud.routers, id))
    new: dict[str, Any] = dict(given)
    if "gateway" in given:
        wish: GatewayWish | None = given["gateway"]
        same = (
            wish is not None
            and old.gateway is not None
            and wish.network_id == old.gateway.network_id
            and not wish.external_fixed_ips
        )
        if same and wish and old.gateway:
            new["gateway"] = Gateway(wish.network_id, wish.enable_snat, old.gateway.external_fixed_ips)
        else:
            if old.gateway_port and (port := decision.read(cloud.ports, old.gateway_port)):
                ports.remove(decision, port)
            new["gateway"], new["gateway_port"] = _gateway(decision, caller, id, wish)
    if "routes" in given:
        _check_routes(decision, id, given["routes"], new.get("gateway", old.gateway))
    router = changed(old, new)
    decision.put(cloud.routers, router)
    return router


def delete(decision: Decision, caller: Caller, id: str) -> None:
    cloud = decision.cloud
    router: Router = seen(cloud, caller, "router", id, decision.read(cloud.routers, id))
    if interfaces := _interfaces(decision, id):
        raise Conflict(f"Router {id} still has ports ({', '.join(p.id for p in interfaces[:10])}).", type="RouterInUse")
    if router.gateway_port and (port := cloud.ports.get(router.gateway_port)):
        ports.remove(decision, port)
    decision.delete(cloud.routers, id)
    decision.release(f"claim/router/{router.number}")


def add_interface(decision: Decision, caller: Caller, id: str, body: Any) -> dict[str, Any]:
    """Join a network by one of its subnets, or by a port that is there."""
    cloud = decision.cloud
    router: Router = seen(cloud, caller, "router", id, decision.read(cloud.routers, id))
    subnet_id, port_id = _named(body)
    if bool(subnet_id) == bool(port_id):
        raise Invalid("Either subnet_id or port_id must be specified, and not both", type="BadRequest")
    if port_id:
        port, subnets = _take_port(decision, caller, router, port_id)
    else:
        subnet: Subnet = seen(cloud, caller, "subnet", str(subnet_id), decision.rely(cloud.subnets, str(subnet_id)))
        subnets = [subnet]
        port = _join(decision, router, subnet)
    # Changing the router makes those who add interfaces at the same time decide one after the other.
    decision.put(cloud.routers, changed(router, {}))
    return _told(router, port, subnets)


def remove_interface(decision: Decision, caller: Caller, id: str, body: Any) -> dict[str, Any]:
    cloud = decision.cloud
    router: Router = seen(cloud, caller, "router", id, decision.read(cloud.routers, id))
    subnet_id, port_id = _named(body)
    if not subnet_id and not port_id:
        raise Invalid("Either subnet_id or port_id must be specified", type="BadRequest")
    interfaces = _interfaces(decision, id)
    if port_id:
        port = next((p for p in interfaces if p.id == port_id), None)
        if port is None:
            raise _not_found(f"Router {id} does not have an interface with id {port_id}", "RouterInterfaceNotFound")
        if subnet_id and all(f.subnet_id != subnet_id for f in port.fixed_ips):
            raise Conflict(
                f"Subnet on port {port_id} does not match the requested subnet {subnet_id}",
                type="SubnetMismatchForPort",
            )
        gone = port.fixed_ips
    else:
        port = next((p for p in interfaces for f in p.fixed_ips if f.subnet_id == subnet_id), None)
        if port is None:
            raise _not_found(f"Router {id} has no interface on subnet {subnet_id}", "RouterInterfaceNotFoundForSubnet")
        gone = tuple(f for f in port.fixed_ips if f.subnet_id == subnet_id)
    subnets = [s for f in gone if (s := cloud.subnets.get(f.subnet_id))]
    for subnet in subnets:
        for route in router.routes:
            if _inside(subnet, route.nexthop):
                raise Conflict(
                    f"Router interface for subnet {subnet.id} on router {id} cannot be deleted, as it is required by "
                    f"the route to {route.destination} via {route.nexthop}.",
                    type="RouterInterfaceInUseByRoute",
                )
    decision.read(cloud.ports, port.id)
    if len(gone) == len(port.fixed_ips):
        ports.remove(decision, port)
    else:
        for fixed in gone:
            decision.release(f"address/{fixed.subnet_id}/{fixed.ip_address}")
        decision.put(cloud.ports, changed(port, {"fixed_ips": tuple(f for f in port.fixed_ips if f not in gone)}))
    decision.put(cloud.routers, changed(router, {}))
    return _told(router, port, subnets)


def _join(decision: Decision, router: Router, subnet: Subnet) -> Port:
    """Give the router the gateway's address of a subnet, on a port of its own or on one it has there."""
    cloud = decision.cloud
    if subnet.gateway_ip is None:
        raise Invalid("Subnet for router interface must have a gateway IP", type="BadRequest")
    _check_overlap(decision, router, [subnet])
    if subnet.ip_version == 6:
        for port in _interfaces(decision, router.id):
            if port.network_id == subnet.network_id and any(":" in f.ip_address for f in port.fixed_ips):
                space = cloud.addresses.spaces.get(subnet.id)
                key = f"address/{subnet.id}/{subnet.gateway_ip}"
                if (space and subnet.gateway_ip in space.taken) or not decision.claim(key, port.id):
                    raise Conflict(
                        f"IP address {subnet.gateway_ip} already allocated in subnet {subnet.id}",
                        type="IpAddressAlreadyAllocated",
                    )
                new = changed(port, {"fixed_ips": (*port.fixed_ips, FixedIp(subnet.id, subnet.gateway_ip))})
                decision.put(cloud.ports, new)
                return new
    network = decision.rely(cloud.networks, subnet.network_id)
    if network is None:
        raise NotFound("network", subnet.network_id)
    return ports.insert(
        decision,
        network,
        {
            "project_id": router.project_id,
            "fixed_ips": (Wish(subnet.id, subnet.gateway_ip),),
            "device_id": router.id,
            "device_owner": ROUTER_INTERFACE,
            "security_groups": (),
            "port_security_enabled": False,
            "status": ACTIVE,
        },
    )


def _take_port(decision: Decision, caller: Caller, router: Router, id: str) -> tuple[Port, list[Subnet]]:
    """Make a port that is there the router's."""
    cloud = decision.cloud
    port: Port = owned(cloud, caller, "port", id, decision.read(cloud.ports, id))
    if port.device_id or port.device_owner or port.host:
        raise Conflict(
            f"Unable to complete operation on port {id} for network {port.network_id}. Port already has an attached "
            f"device {port.device_id or port.host}.",
            type="PortInUse",
        )
    if not port.fixed_ips:
        raise Invalid(f"Router port {id} must have at least one fixed IP", type="BadRequest")
    subnets = [s for f in port.fixed_ips if (s := decision.rely(cloud.subnets, f.subnet_id))]
    if sum(s.ip_version == 4 for s in subnets) > 1:
        raise Invalid("Cannot have multiple IPv4 subnets on router port", type="BadRequest")
    _check_overlap(decision, router, subnets)
    identity.bear(decision, id, port.identity, 0)
    own = {
        "device_id": router.id,
        "device_owner": ROUTER_INTERFACE,
        "security_groups": (),
        "port_security_enabled": False,
        "allowed_address_pairs": (),
        "identity": 0,
        "status": ACTIVE,
    }
    new = changed(port, own)
    decision.put(cloud.ports, new)
    return new, subnets


def _check_overlap(decision: Decision, router: Router, subnets: Iterable[Subnet]) -> None:
    cloud = decision.cloud
    for port in _interfaces(decision, router.id):
        for fixed in port.fixed_ips:
            other = cloud.subnets.get(fixed.subnet_id)
            for subnet in subnets:
                if other is None or other.ip_version != subnet.ip_version:
                    continue
                if other.id == subnet.id:
                    raise Invalid(f"Router already has a port on subnet {subnet.id}", type="BadRequest")
                if ipaddress.ip_network(other.cidr).overlaps(ipaddress.ip_network(subnet.cidr)):
                    raise Invalid(
                        f"Cidr {subnet.cidr} of subnet {subnet.id} overlaps with cidr {other.cidr} of {other.id}",
                        type="BadRequest",
                    )


def _gateway(
    decision: Decision, caller: Caller, router: str, wish: GatewayWish | None
) -> tuple[Gateway | None, str | None]:
    """Make a router's port on an external network; return what it is and the port's id."""
    if wish is None:
        return None, None
    cloud = decision.cloud
    network: Network = seen(cloud, caller, "network", wish.network_id, decision.rely(cloud.networks, wish.network_id))
    if not network.external:
        raise Invalid(f"Network {network.id} is not an external network", type="BadRequest")
    port = ports.insert(
        decision,
        network,
        {
            # Nobody's own, as an external network's addresses are the operator's.
            "project_id": "",
            "fixed_ips": wish.external_fixed_ips or UNSET,
            "device_id": router,
            "device_owner": ROUTER_GATEWAY,
            "security_groups": (),
            "port_security_enabled": False,
        },
    )
    return Gateway(network.id, wish.enable_snat, port.fixed_ips), port.id


def _check_routes(decision: Decision, router: str, routes: Iterable[Route], gateway: Gateway | None) -> None:
    """Check that each next hop is a neighbour of the router, and not the router itself."""
    cloud = decision.cloud
    fixed = [f for port in _interfaces(decision, router) for f in port.fixed_ips]
    fixed += gateway.external_fixed_ips if gateway else ()
    own = {f.ip_address for f in fixed}
    subnets = [s for f in fixed if (s := cloud.subnets.get(f.subnet_id))]
    for route in routes:
        if ipaddress.ip_network(route.destination).version != ipaddress.ip_address(route.nexthop).version:
            reason = "destination and nexthop are of different families"
        elif not any(_inside(subnet, route.nexthop) for subnet in subnets):
            reason = "the nexthop is not connected with router"
        elif route.nexthop in own:
            reason = "the nexthop is used by router"
        else:
            continue
        raise Invalid(
            f"Invalid format for routes: {route.destination} via {route.nexthop}, {reason}", type="InvalidRoutes"
        )


def _inside(subnet: Subnet, ip: str) -> bool:
    prefix, address = ipaddress.ip_network(subnet.cidr), ipaddress.ip_address(ip)
    return prefix.version == address.version and address in prefix


def _interfaces(decision: Decision, router: str) -> list[Port]:
    return [p for p in decision.cloud.ports.by("device_id", router) if p.device_owner == ROUTER_INTERFACE]


def _named(body: Any) -> tuple[str | None, str | None]:
    if not isinstance(body, dict) or body.keys() - {"subnet_id", "port_id"}:
        raise Invalid(f"'{body}' should name subnet_id or port_id", type="BadRequest")
    for key, value in body.items():
        if value is not None and not isinstance(value, str):
            raise Invalid(f"Invalid input for {key}. Reason: '{value}' is not a valid UUID.")
    return body.get("subnet_id"), body.get("port_id")


def _told(router: Router, port: Port, subnets: list[Subnet]) -> dict[str, Any]:
    return {
        "id": router.id,
        "tenant_id": router.project_id,
        "project_id": router.project_id,
        "port_id": port.id,
        "network_id": port.network_id,
        "subnet_id": subnets[-1].id if subnets else None,
        "subnet_ids": [subnet.id for subnet in subnets],
    }


def _not_found(message: str, type: str) -> NotFound:
    fault = NotFound("router_interface", "")
    fault.args, fault.type = (message,), type
    return fault


ROUTERS = Collection(
    kind=ROUTER,
    create=create,
    update=update,
    delete=delete,
    actions={
        "add_router_interface": Action(add_interface),
        "remove_router_interface": Action(remove_interface),
    },
    aliases={"extraroute": "Neutron Extra Route", "router": "Neutron L3 Router"},
)
