"""Give routers gateways to external networks, change them and take them away."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from msgspec import UNSET

from crossway.control import outside, qos, share
from crossway.control import port as ports
from crossway.control.caller import Caller, seen
from crossway.control.cloud import Cloud
from crossway.control.collection import Checked, find
from crossway.control.decision import Decision
from crossway.errors import Conflict, Invalid
from crossway.model.check import brief, list_of, network_of
from crossway.model.floatingip import FloatingIp
from crossway.model.ndp_proxy import NdpProxy
from crossway.model.network import Network
from crossway.model.port import ROUTER_GATEWAY, ROUTER_INTERFACE, Port, Wish
from crossway.model.rbac import ACCESS_AS_EXTERNAL
from crossway.model.resource import changed
from crossway.model.router import GATEWAYS_MAX, Gateway, GatewayWish, More, Router, gateway
from crossway.model.subnet import Subnet


def attach(decision: Decision, caller: Caller, router: str, project: str, wish: GatewayWish) -> Port:
    """Make a router's port on an external network."""
    network = _check(decision, caller, wish)
    _check_overlap(decision, router, network)
    return ports.insert(
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


def told(wish: GatewayWish, port: Port, old: Gateway | None = None) -> Gateway:
    """Return a gateway as it is on its port; of what nothing was said, the policy stays."""
    policy = wish.qos_policy_id
    if policy is UNSET:
        policy = old.qos_policy_id if old and old.network_id == wish.network_id else None
    assert not isinstance(policy, msgspec.UnsetType)
    return Gateway(port.network_id, wish.enable_snat, port.fixed_ips, policy)


def change(decision: Decision, caller: Caller, router: Router, wish: GatewayWish | None) -> dict[str, Any]:
    """Return what becomes of a router that is asked to have this first gateway, or none."""
    cloud = decision.cloud
    port = decision.read(cloud.ports, router.gateway_port) if router.gateway_port else None
    if wish and router.gateway and port and wish.network_id == router.gateway.network_id:
        _check(decision, caller, wish)
        if wish.external_fixed_ips and not _same(port, wish.external_fixed_ips):
            port = ports.move(decision, port, wish.external_fixed_ips)
        return {"gateway": told(wish, port, router.gateway)}
    if router.gateway and port:
        _check_idle(decision, router, router.gateway.network_id, router.gateway_networks[1:])
        ports.remove(decision, port)
    if wish:
        port = attach(decision, caller, router.id, router.project_id, wish)
        return {"gateway": told(wish, port), "gateway_port": port.id}
    if router.more:
        first, *rest = router.more
        snat = router.gateway.enable_snat if router.gateway else True
        new = Gateway(first.network_id, snat, first.external_fixed_ips)
        return {"gateway": new, "gateway_port": first.port, "more": tuple(rest)}
    return {"gateway": None, "gateway_port": None}


def remove_all(decision: Decision, router: Router) -> None:
    """Take all gateways from a router that goes."""
    for network in router.gateway_networks:
        _check_idle(decision, router, network, ())
    for id in router.gateway_ports:
        if port := decision.read(decision.cloud.ports, id):
            ports.remove(decision, port)


def add(decision: Decision, caller: Caller, id: str, body: Any) -> Router:
    """Add gateways after those that a router has."""
    router = find(decision, Router, id)
    wishes = wishes_of(body)
    for wish in wishes:
        if router.gateway is None:
            router = _changed(decision, caller, router, change(decision, caller, router, wish))
        else:
            router = _changed(decision, caller, router, {"more": (*router.more, _more(decision, caller, router, wish))})
    return router


def remove(decision: Decision, caller: Caller, id: str, body: Any) -> Router:
    """Take away the gateways that are named by network, or by addresses where that does not tell."""
    router = find(decision, Router, id)
    wishes = wishes_of(body)
    if wishes and router.gateway is None:
        raise _unmatched(f"Unable to remove extra gateways from a router {id}: it has none", "UnableToRemoveGateways")
    for wish in wishes:
        port = _match(decision, router, wish, router.gateway_ports)
        if port is None:
            raise _unmatched(
                f"Unable to match a requested gateway port to existing gateway ports for router {id}: none is on "
                f"network {wish.network_id} with such addresses",
                "UnableToMatchGateways",
            )
        router = _without(decision, caller, router, port)
    return router


def update(decision: Decision, caller: Caller, id: str, body: Any) -> Router:
    """Make a router's gateways those that are named: keep what matches, move, take away and add the rest."""
    router = find(decision, Router, id)
    wishes = wishes_of(body)
    left = list(router.gateway_ports)
    kept: list[tuple[GatewayWish, str | None]] = []
    for wish in wishes:
        found = _match(decision, router, wish, left)
        if found:
            left.remove(found)
        kept.append((wish, found))
    for network in {_network(decision, port) for port in left}:
        _check_idle(decision, router, network, [wish.network_id for wish in wishes])
    for port_id in left:
        if port := decision.read(decision.cloud.ports, port_id):
            ports.remove(decision, port)
    feet: list[tuple[GatewayWish, Port]] = []
    for wish, found in kept:
        port = decision.read(decision.cloud.ports, found) if found else None
        if port is None:
            port = attach(decision, caller, id, router.project_id, wish)
        elif wish.external_fixed_ips and not _same(port, wish.external_fixed_ips):
            _check(decision, caller, wish)
            port = ports.move(decision, port, wish.external_fixed_ips)
        feet.append((wish, port))
    if not feet:
        return _changed(decision, caller, router, {"gateway": None, "gateway_port": None, "more": ()})
    (first, port), *rest = feet
    return _changed(
        decision,
        caller,
        router,
        {
            "gateway": told(first, port, router.gateway),
            "gateway_port": port.id,
            "more": tuple(More(port.id, port.network_id, port.fixed_ips) for _, port in rest),
        },
    )


def every(cloud: Cloud, router: Router) -> list[dict[str, Any]]:
    """Return all gateways of a router, as its attribute *external_gateways* tells them."""
    first = router.gateway
    if first is None:
        return []
    feet = ((first.network_id, first.external_fixed_ips), *((m.network_id, m.external_fixed_ips) for m in router.more))
    return [
        {
            "network_id": network,
            "enable_snat": first.enable_snat,
            "external_fixed_ips": [
                {"subnet_id": fixed.subnet_id, "ip_address": fixed.ip_address} for fixed in fixed_ips
            ],
        }
        for network, fixed_ips in feet
    ]


def _changed(decision: Decision, caller: Caller, old: Router, new: dict[str, Any]) -> Router:
    router = changed(old, new)
    qos.refer(decision, caller, old.id, old.qos_policy_id, router.qos_policy_id)
    decision.put(decision.cloud.routers, router)
    return router


def wishes_of(body: Any) -> tuple[GatewayWish, ...]:
    """Check the gateways that an action is asked for."""
    if isinstance(body, Checked):
        seen_already: tuple[GatewayWish, ...] = body.value
        return seen_already
    named = body.get("router") if isinstance(body, dict) else None
    if not isinstance(named, dict):
        raise _bad(f"the body should be {{'router': {{'external_gateways': […]}}}}, not {brief(body)}")
    try:
        # The openstack command says {} where it means none.
        wishes: tuple[GatewayWish, ...] = list_of(_wanted, GATEWAYS_MAX, unique=False)(
            named.get("external_gateways") or ()
        )
    except ValueError as error:
        raise Invalid(f"Invalid input for external_gateways. Reason: {error}.") from None
    return wishes


def _wanted(value: Any) -> GatewayWish:
    wish = gateway(value)
    if wish is None:
        raise ValueError(f"'{value}' names no network_id")
    return wish


def _more(decision: Decision, caller: Caller, router: Router, wish: GatewayWish) -> More:
    port = attach(decision, caller, router.id, router.project_id, wish)
    return More(port.id, port.network_id, port.fixed_ips)


def _without(decision: Decision, caller: Caller, router: Router, port: str) -> Router:
    if port == router.gateway_port:
        return _changed(decision, caller, router, change(decision, caller, router, None))
    gone = next(more for more in router.more if more.port == port)
    left = [network for id, network in zip(router.gateway_ports, router.gateway_networks, strict=True) if id != port]
    _check_idle(decision, router, gone.network_id, left)
    if found := decision.read(decision.cloud.ports, port):
        ports.remove(decision, found)
    return _changed(decision, caller, router, {"more": tuple(more for more in router.more if more.port != port)})


def _match(decision: Decision, router: Router, wish: GatewayWish, candidates: Sequence[str]) -> str | None:
    """Return the gateway's port that is meant; one network alone must not leave it open which."""
    wanted = {wish.ip_address for wish in wish.external_fixed_ips}
    found = [
        port
        for id in candidates
        if (port := decision.get(decision.cloud.ports, id)) and port.network_id == wish.network_id
    ]
    if wanted:
        found = [port for port in found if any(fixed.ip_address in wanted for fixed in port.fixed_ips)]
    elif len(found) > 1:
        raise _unmatched(
            f"Unable to match a requested gateway port to existing gateway ports for router {router.id}: several are "
            f"on network {wish.network_id}, external_fixed_ips should say which",
            "UnableToMatchGateways",
        )
    return found[0].id if found else None


def _network(decision: Decision, port: str) -> str:
    found = decision.get(decision.cloud.ports, port)
    return found.network_id if found else ""


def _same(port: Port, wishes: Iterable[Wish]) -> bool:
    """Say whether a port has the addresses that are wished for, and no others."""
    left = list(port.fixed_ips)
    for wish in wishes:
        found = next(
            (
                fixed
                for fixed in left
                if wish.ip_address in (None, fixed.ip_address) and wish.subnet_id in (None, fixed.subnet_id)
            ),
            None,
        )
        if found is None:
            return False
        left.remove(found)
    return not left


def _check(decision: Decision, caller: Caller, wish: GatewayWish) -> Network:
    """Return the network of a gateway that can be."""
    cloud = decision.cloud
    network: Network = seen(cloud, caller, "network", wish.network_id, decision.rely(cloud.networks, wish.network_id))
    if not caller.admin:
        share.hold(decision, caller.project, network, ACCESS_AS_EXTERNAL)
    if not network.external:
        raise _bad(f"Network {network.id} is not an external network")
    own = {subnet.gateway_ip for subnet in decision.by(cloud.subnets, "network_id", network.id)}
    for fixed in wish.external_fixed_ips:
        if fixed.ip_address and fixed.ip_address in own:
            raise _bad(f"External IP {fixed.ip_address} is the same as the gateway IP")
    return network


def _check_overlap(decision: Decision, router: str, network: Network) -> None:
    """Refuse an external network whose prefixes overlap with what the router joins otherwise."""
    cloud = decision.cloud
    new = decision.by(cloud.subnets, "network_id", network.id)
    for port in decision.by(cloud.ports, "device_id", router):
        if port.device_owner == ROUTER_INTERFACE:
            joined = [cloud.subnets.get(fixed.subnet_id) for fixed in port.fixed_ips]
        elif port.network_id != network.id:
            joined = list(cloud.subnets.by("network_id", port.network_id))
        else:
            continue
        for subnet in joined:
            for other in new:
                if subnet:
                    check_apart(subnet, other)


def check_apart(one: Subnet, other: Subnet) -> None:
    if one.id == other.id:
        raise _bad(f"Router already has a port on subnet {one.id}")
    mine, its = network_of(one.cidr), network_of(other.cidr)
    if mine.version == its.version and mine.overlaps(its):
        raise _bad(f"Cidr {other.cidr} of subnet {other.id} overlaps with cidr {one.cidr} of subnet {one.id}")


def _check_idle(decision: Decision, router: Router, network: str, left: Iterable[str]) -> None:
    """Raise Conflict if the router needs its gateway to a network, of which none would be *left*."""
    cloud = decision.cloud
    outside.settle_router(decision, router.id)
    if network in left:
        return
    if any(fip.floating_network_id == network for fip in decision.by(cloud.of(FloatingIp), "router_id", router.id)):
        raise Conflict(
            f"Gateway cannot be updated for router {router.id}, since a gateway to external network {network} is "
            "required by one or more floating IPs.",
            type="RouterExternalGatewayInUseByFloatingIp",
        )
    if not list(left) and decision.by(cloud.of(NdpProxy), "router_id", router.id):
        raise Conflict(
            f"Unable to unset external gateway of router {router.id}, There are one or more ndp proxies still in use "
            "on the router.",
            type="RouterGatewayInUseByNDPProxy",
        )


def _bad(message: str) -> Invalid:
    return Invalid(f"Bad router request: {message}.", type="BadRequest")


def _unmatched(message: str, type: str) -> Invalid:
    return Invalid(message, type=type)
