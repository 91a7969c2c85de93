"""Make, change and delete routers, their interfaces and routes."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import UNSET

from crossway.control import gateway, ha, identity, outside, qos
from crossway.control import port as ports
from crossway.control.address import number
from crossway.control.agent import nobody_schedules
from crossway.control.caller import Caller, owned, project_of, seen
from crossway.control.cloud import Cloud
from crossway.control.collection import Action, Checked, Collection, find
from crossway.control.conntrack_helper import CONNTRACK_HELPERS
from crossway.control.decision import Decision
from crossway.errors import Conflict, Invalid, NotFound, OverQuota, Unavailable
from crossway.model.agent import ZONE
from crossway.model.check import brief, list_of, network_of, uuid
from crossway.model.conntrack_helper import ConntrackHelper
from crossway.model.flavor import ROUTER_SERVICE, Flavor
from crossway.model.floatingip import FloatingIp
from crossway.model.ndp_proxy import NdpProxy
from crossway.model.port import ACTIVE, ROUTER_INTERFACE, FixedIp, Port, Wish
from crossway.model.port_forwarding import PortForwarding
from crossway.model.quota import UNLIMITED
from crossway.model.rbac import ACCESS_AS_SHARED
from crossway.model.resource import Given, changed, new_id, now
from crossway.model.router import GATEWAY_PARTS, NEXT_HOPS_MAX, ROUTER, ROUTES_MAX, Gateway, GatewayWish, Router
from crossway.model.subnet import Route, Subnet, route
from crossway.model.who import ADMIN

NUMBER_MAX = (1 << 32) - 1


def create(decision: Decision, caller: Caller, given: Given) -> Router:
    project = project_of(caller, given)
    time, id = now(), new_id()
    _check_flavor(decision, id, given["flavor_id"])
    for zone in given["availability_zone_hints"]:
        if zone != ZONE:
            raise NotFound("availability_zone", zone)
    wish: GatewayWish | None = given["gateway"]
    proxy = given["enable_ndp_proxy"] is True
    if proxy and wish is None:
        raise _no_proxy(id, "The request body not contain external gateway information")
    port = gateway.attach(decision, caller, id, project, wish) if wish else None
    router = Router(
        **{
            **{k: v for k, v in given.items() if v is not UNSET},
            "project_id": project,
            "gateway": gateway.told(wish, port) if wish and port else None,
            "distributed": bool(given["distributed"]),
            "ha": bool(given["ha"]),
            "enable_ndp_proxy": proxy,
        },
        id=id,
        number=decision.number("router", NUMBER_MAX),
        gateway_port=port.id if port else None,
        created_at=time,
        updated_at=time,
    )
    if proxy:
        _check_proxy(decision, router)
    qos.refer(decision, caller, id, None, router.qos_policy_id)
    decision.create(decision.cloud.routers, router)
    ha.follow(decision, None, router)
    return router


def update(decision: Decision, caller: Caller, id: str, given: Given) -> Router:
    old = find(decision, Router, id)
    new: dict[str, Any] = {name: value for name, value in given.items() if name not in ("distributed", "ha")}
    for name in ("distributed", "ha"):
        if given.get(name) is not None and given[name] != getattr(old, name):
            _check_down(name, old.admin_state_up, given.get("admin_state_up", old.admin_state_up))
            new[name] = given[name]
    if "gateway" in given:
        new |= gateway.change(decision, caller, old, given["gateway"])
    router = changed(old, new)
    if router.gateway is None:
        if given.get("enable_ndp_proxy"):
            raise _no_proxy(id, "The router has no external gateway")
        router = msgspec.structs.replace(router, enable_ndp_proxy=False)
    elif given.get("enable_ndp_proxy", router.enable_ndp_proxy):
        _check_proxy(decision, router)
    elif given.get("enable_ndp_proxy") is None:
        router = msgspec.structs.replace(router, enable_ndp_proxy=old.enable_ndp_proxy)
    if "routes" in given or ("gateway" in given and router.routes):
        _check_routes(decision, router)
    qos.refer(decision, caller, id, old.qos_policy_id, router.qos_policy_id)
    decision.put(decision.cloud.routers, router)
    ha.follow(decision, old, router)
    return router


def delete(decision: Decision, caller: Caller, id: str) -> None:
    router = find(decision, Router, id)
    if interfaces := _interfaces(decision, id):
        raise Conflict(
            f"Router {id} has ports still attached: {', '.join(p.id for p in interfaces[:10])}", type="RouterInUse"
        )
    gateway.remove_all(decision, router)
    outside.drop_helpers(decision, id)
    qos.drop(decision, id, router.qos_policy_id)
    if router.flavor_id:
        decision.release(f"flavored/{router.flavor_id}/{id}")
    decision.delete(decision.cloud.routers, id)
    decision.release(f"claim/router/{router.number}")
    ha.follow(decision, router, None)


def add_extraroutes(decision: Decision, caller: Caller, id: str, body: Any) -> Router:
    """Add routes to those that there are; what is there already stays as it is."""
    router = find(decision, Router, id)
    return _reroute(decision, router, dict.fromkeys((*router.routes, *_routes(body))))


def remove_extraroutes(decision: Decision, caller: Caller, id: str, body: Any) -> Router:
    """Take routes from those that there are; what is not there need not go."""
    router, gone = find(decision, Router, id), set(_routes(body))
    return _reroute(decision, router, (one for one in router.routes if one not in gone))


def add_interface(decision: Decision, caller: Caller, id: str, body: Any) -> dict[str, Any]:
    """Join a network by one of its subnets, or by a port that is there."""
    cloud = decision.cloud
    router = find(decision, Router, id)
    subnet_id, port_id = _named(body)
    if subnet_id and port_id:
        raise _bad("Cannot specify both subnet-id and port-id")
    if port_id:
        port, subnets = _take_port(decision, caller, router, port_id)
    else:
        subnet: Subnet = seen(cloud, caller, "subnet", str(subnet_id), decision.rely(cloud.subnets, str(subnet_id)))
        subnets = [subnet]
        _check_joinable(decision, caller, subnet)
        port = _join(decision, router, subnet)
    # Changing the router makes those who add interfaces at the same time decide one after the other.
    decision.put(cloud.routers, changed(router, {}))
    return _told(router, port, subnets[-1:], subnets)


def remove_interface(decision: Decision, caller: Caller, id: str, body: Any) -> dict[str, Any]:
    cloud = decision.cloud
    router = find(decision, Router, id)
    subnet_id, port_id = _named(body)
    interfaces = _interfaces(decision, id)
    if port_id:
        port = next((p for p in interfaces if p.id == port_id), None)
        if port is None:
            raise _not_found(f"Router {id} does not have an interface with id {port_id}", "RouterInterfaceNotFound")
        if subnet_id and all(f.subnet_id != subnet_id for f in port.fixed_ips):
            raise Invalid(
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
        _check_unused(decision, router, subnet)
    decision.read(cloud.ports, port.id)
    if len(gone) == len(port.fixed_ips):
        ports.remove(decision, port)
    else:
        for fixed in gone:
            decision.release(f"address/{fixed.subnet_id}/{fixed.ip_address}")
        decision.put(cloud.ports, changed(port, {"fixed_ips": tuple(f for f in port.fixed_ips if f not in gone)}))
    decision.put(cloud.routers, changed(router, {}))
    return _told(router, port, subnets[:1], subnets)


def _join(decision: Decision, router: Router, subnet: Subnet) -> Port:
    """Give the router the gateway's address of a subnet, on a port of its own or on one it has there."""
    cloud = decision.cloud
    if subnet.gateway_ip is None:
        raise _bad("Subnet for router interface must have a gateway IP")
    _check_overlap(decision, router, [subnet])
    if subnet.ip_version == 6:
        for port in _interfaces(decision, router.id):
            if port.network_id == subnet.network_id and any(":" in f.ip_address for f in port.fixed_ips):
                ports.check_within(subnet, subnet.gateway_ip)
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
    if port.device_id or port.host:
        raise Conflict(
            f"Unable to complete operation on port {id} for network {port.network_id}. Port already has an attached "
            f"device {port.device_id or port.host}.",
            type="PortInUse",
        )
    if not port.fixed_ips:
        raise _bad("Router port must have at least one fixed IP")
    subnets = [s for f in port.fixed_ips if (s := decision.rely(cloud.subnets, f.subnet_id))]
    if any(subnet.ip_version == 6 for subnet in subnets):
        for other in _interfaces(decision, router.id):
            if other.network_id == port.network_id and any(":" in f.ip_address for f in other.fixed_ips):
                raise _bad(
                    f"Router already contains IPv6 port {other.id} belonging to network id {port.network_id}. Only one "
                    "IPv6 port from the same network subnet can be connected to a router"
                )
    _check_overlap(decision, router, subnets)
    if sum(s.ip_version == 4 for s in subnets) > 1:
        raise _bad("Cannot have multiple IPv4 subnets on router port")
    for fixed, subnet in zip(port.fixed_ips, subnets, strict=True):
        _check_mode(subnet)
        if caller.admin or caller.project == subnet.project_id:
            continue
        if not any(number(p.start) <= number(fixed.ip_address) <= number(p.end) for p in subnet.allocation_pools):
            raise _bad(
                f"Cannot add interface to router because specified port {id} has an IP address out of the allocation "
                f"pool of subnet {subnet.id}, which is not owned by the project making the request"
            )
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


def _check_joinable(decision: Decision, caller: Caller, subnet: Subnet) -> None:
    """Let a project join what is its own, or shared with it by name; all may see what is shared with all."""
    _check_mode(subnet)
    if caller.admin or subnet.project_id == caller.project:
        return
    policies = decision.cloud.rbac.by("object_id", subnet.network_id)
    if not any(p.action == ACCESS_AS_SHARED and p.target == caller.project for p in policies):
        raise _bad(
            f"Cannot add interface to router because subnet {subnet.id} is not owned by project making the request"
        )


def _check_mode(subnet: Subnet) -> None:
    if subnet.ip_version == 6 and subnet.ipv6_ra_mode is None and subnet.ipv6_address_mode is not None:
        raise _bad(
            f"IPv6 subnet {subnet.id} configured to receive RAs from an external router cannot be added to a router"
        )


def _check_overlap(decision: Decision, router: Router, subnets: Iterable[Subnet]) -> None:
    """Refuse what overlaps with prefixes that the router joins already, those behind its gateways included."""
    cloud = decision.cloud
    known = [f.subnet_id for port in _interfaces(decision, router.id) for f in port.fixed_ips]
    known += [s.id for network in router.gateway_networks for s in decision.by(cloud.subnets, "network_id", network)]
    for id in known:
        other = decision.get(cloud.subnets, id)
        for subnet in subnets:
            if other is not None:
                gateway.check_apart(other, subnet)


def _check_unused(decision: Decision, router: Router, subnet: Subnet) -> None:
    """Raise Conflict if something needs the router's interface on a subnet."""
    cloud = decision.cloud
    outside.settle_router(decision, router.id)
    named = f"Router interface for subnet {subnet.id} on router {router.id} cannot be deleted, as it is required by"
    for fip in decision.by(cloud.of(FloatingIp), "router_id", router.id):
        forwardings = decision.by(cloud.of(PortForwarding), "floatingip_id", fip.id)
        needs = [
            (fip.port_id, fip.fixed_ip_address),
            *((f.internal_port_id, f.internal_ip_address) for f in forwardings),
        ]
        if any(_has(decision, port, ip, subnet) for port, ip in needs):
            raise Conflict(f"{named} one or more floating IPs.", type="RouterInterfaceInUseByFloatingIP")
    if any(_inside(subnet, one.nexthop) for one in router.routes):
        raise Conflict(f"{named} one or more routes.", type="RouterInterfaceInUseByRoute")
    for proxy in decision.by(cloud.of(NdpProxy), "router_id", router.id):
        if _has(decision, proxy.port_id, proxy.ip_address, subnet):
            raise Conflict(
                f"Unable to remove subnet {subnet.id} from router {router.id}, There are one or more ndp proxies still "
                "in use on the subnet.",
                type="RouterInterfaceInUseByNDPProxy",
            )


def _has(decision: Decision, port: str | None, ip: str | None, subnet: Subnet) -> bool:
    found = decision.get(decision.cloud.ports, port) if port else None
    return found is not None and FixedIp(subnet.id, ip or "") in found.fixed_ips


def _check_down(name: str, was: bool, will: bool) -> None:
    """Let a router be made another only while it is down: distributed beforehand, highly available by then."""
    if name == "distributed" and (was or will):
        raise _bad(
            "Cannot change the 'distributed' attribute of active routers. Please set router admin_state_up to False "
            "prior to upgrade"
        )
    if name == "ha" and will:
        raise _bad(
            "Cannot change HA attribute of active routers. Please set router admin_state_up to False prior to upgrade"
        )


def _check_flavor(decision: Decision, router: str, id: str | None) -> None:
    if id is None:
        return
    flavor = decision.rely(decision.cloud.of(Flavor), id)
    if flavor is None:
        raise NotFound("flavor", id)
    if flavor.service_type != ROUTER_SERVICE:
        raise Invalid(f"Invalid service type: {flavor.service_type}.", type="InvalidServiceType")
    if not flavor.enabled:
        raise Unavailable("Flavor is not enabled.", type="FlavorDisabled")
    decision.claim(f"flavored/{id}/{router}")


def _check_proxy(decision: Decision, router: Router) -> None:
    """Let a router answer for IPv6 addresses if its gateway has one, of a network with an address scope."""
    first: Gateway | None = router.gateway
    if first is None:
        raise _no_proxy(router.id, "The router has no external gateway")
    if outside.address_scope(decision.cloud, first.network_id, 6) is None:
        raise _no_proxy(
            router.id,
            f"The external network {first.network_id} don't support IPv6 ndp proxy, the network has no IPv6 subnets or "
            "has no IPv6 address scope",
        )
    if all(":" not in fixed.ip_address for fixed in first.external_fixed_ips):
        raise _no_proxy(router.id, "The external gateway port has no IPv6 address")


def _no_proxy(router: str, reason: str) -> Conflict:
    return Conflict(f"Can not enable ndp proxy on router {router}, {reason}.", type="RouterGatewayNotValid")


def _routes(body: Any) -> tuple[Route, ...]:
    """Check the routes that an action is asked for."""
    if isinstance(body, Checked):
        seen_already: tuple[Route, ...] = body.value
        return seen_already
    named = body.get("router") if isinstance(body, dict) else None
    if not isinstance(named, dict) or "routes" not in named:
        raise _bad(f"the body should be {{'router': {{'routes': […]}}}}, not {brief(body)}")
    try:
        routes: tuple[Route, ...] = list_of(route, ROUTES_MAX, unique=False)(named["routes"])
    except ValueError as error:
        raise Invalid(f"Invalid input for routes. Reason: {error}.") from None
    return routes


def _reroute(decision: Decision, router: Router, routes: Iterable[Route]) -> Router:
    router = changed(router, {"routes": tuple(routes)})
    _check_routes(decision, router)
    decision.put(decision.cloud.routers, router)
    return router


def _check_routes(decision: Decision, router: Router) -> None:
    """Check that each next hop is a neighbour of the router, and not the router itself."""
    cloud = decision.cloud
    most = cloud.usage.limit("router_route", router.project_id)
    if UNLIMITED < most < len(router.routes):
        raise OverQuota(f"Quota exceeded for resources: ['router_route']: a router has at most {most} routes.")
    fixed = [f for port in decision.by(cloud.ports, "device_id", router.id) for f in port.fixed_ips]
    own = {f.ip_address for f in fixed}
    prefixes = [network_of(s.cidr) for f in fixed if (s := decision.get(cloud.subnets, f.subnet_id)) is not None]
    if len(router.routes) > ROUTES_MAX:
        raise Invalid(f"Router {router.id} would have {len(router.routes)} routes; should be at most {ROUTES_MAX}.")
    hops: Counter[str] = Counter()
    for one in router.routes:
        hops[one.destination] += 1
        hop = ipaddress.ip_address(one.nexthop)
        if (":" in one.destination) != (hop.version == 6):
            reason = "destination and nexthop are of different families"
        elif not any(hop in prefix for prefix in prefixes):
            reason = "the nexthop is not connected with router"
        elif one.nexthop in own:
            reason = "the nexthop is used by router"
        elif hops[one.destination] > NEXT_HOPS_MAX:
            reason = f"a destination has at most {NEXT_HOPS_MAX} next hops"
        else:
            continue
        raise Invalid(f"Invalid format for routes: {one.destination} via {one.nexthop}, {reason}", type="InvalidRoutes")


def _inside(subnet: Subnet, ip: str) -> bool:
    prefix, address = network_of(subnet.cidr), ipaddress.ip_address(ip)
    return prefix.version == address.version and address in prefix


def _interfaces(decision: Decision, router: str) -> list[Port]:
    return [p for p in decision.by(decision.cloud.ports, "device_id", router) if p.device_owner == ROUTER_INTERFACE]


def _named(body: Any) -> tuple[str | None, str | None]:
    """Return the subnet and the port that an interface is named by."""
    if not isinstance(body, dict) or not body.keys() & {"subnet_id", "port_id"}:
        raise _bad("Either subnet_id or port_id must be specified")
    for value in (body[name] for name in ("subnet_id", "port_id") if name in body):
        try:
            uuid(value)
        except ValueError as error:
            raise _bad(str(error)) from None
    return body.get("subnet_id"), body.get("port_id")


def _told(router: Router, port: Port, named: list[Subnet], subnets: list[Subnet]) -> dict[str, Any]:
    return {
        "id": router.id,
        "tenant_id": port.project_id,
        "project_id": port.project_id,
        "port_id": port.id,
        "network_id": port.network_id,
        "subnet_id": named[0].id if named else None,
        "subnet_ids": [subnet.id for subnet in subnets],
    }


def _not_found(message: str, type: str) -> NotFound:
    fault = NotFound("router_interface", "")
    fault.args, fault.type = (message,), type
    return fault


def _bad(message: str) -> Invalid:
    return Invalid(f"Bad router request: {message}.", type="BadRequest")


def _helpers(cloud: Cloud, router: Router) -> list[dict[str, Any]]:
    found = cloud.of(ConntrackHelper).by("router_id", router.id)
    return [{"protocol": one.protocol, "port": one.port, "helper": one.helper} for one in found]


ROUTERS = Collection(
    kind=ROUTER,
    create=create,
    update=update,
    delete=delete,
    actions={
        "add_router_interface": Action(add_interface),
        "remove_router_interface": Action(remove_interface),
        "add_extraroutes": Action(add_extraroutes, check=_routes),
        "remove_extraroutes": Action(remove_extraroutes, check=_routes),
        "add_external_gateways": Action(gateway.add, check=gateway.wishes_of, parts=GATEWAY_PARTS),
        "update_external_gateways": Action(gateway.update, check=gateway.wishes_of, parts=GATEWAY_PARTS),
        "remove_external_gateways": Action(gateway.remove, check=gateway.wishes_of),
        "l3-agents": Action(nobody_schedules("agents"), who=ADMIN, method="GET"),
    },
    children=(CONNTRACK_HELPERS,),
    derived={
        # Every host does the part of each router that its ports need, in the zone that all are in.
        "availability_zones": lambda cloud, router: [ZONE],
        "conntrack_helpers": _helpers,
        "external_gateways": gateway.every,
    },
    stale={"conntrack_helper": lambda helper: (helper.router_id,)},
    aliases={
        "dvr": "Distributed Virtual Router",
        "enable-default-route-bfd": "Enable Default Route BFD",
        "enable-default-route-ecmp": "Enable Default Route ECMP",
        "ext-gw-mode": "Neutron L3 Configurable external gateway mode",
        "external-gateway-multihoming": "Neutron L3 External Gateway Multihoming",
        "extraroute": "Neutron Extra Route",
        "extraroute-atomic": "Atomically add/remove extra routes",
        "l3-ext-ndp-proxy": "Router support to enable NDP proxy",
        "l3-flavors": "Router Flavor Extension",
        "l3-ha": "HA Router extension",
        "l3-port-ip-change-not-allowed": "Prevent L3 router ports IP address change extension",
        "qos-gateway-ip": "Router gateway IP QoS",
        "router": "Neutron L3 Router",
        "router-admin-state-down-before-update": "Enforce Router's Admin State Down Before Update Extension",
        "router_availability_zone": "Router Availability Zone",
    },
)
