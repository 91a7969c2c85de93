"""Make, change and delete floating IPs, and let them stand for ports."""

from __future__ import annotations

import ipaddress
from typing import Any

import msgspec
from msgspec import UNSET

from crossway.control import outside, qos, share
from crossway.control import port as ports
from crossway.control.caller import Caller, project_of, seen
from crossway.control.cloud import Cloud
from crossway.control.collection import Collection, find
from crossway.control.decision import Decision
from crossway.control.port_forwarding import PORT_FORWARDINGS
from crossway.errors import Conflict, Invalid, NotFound
from crossway.model.floatingip import DOWN, FLOATING_IP, FLOATINGIP, NOT_APPLICABLE, FloatingIp
from crossway.model.network import Network
from crossway.model.port import FixedIp, Port, Wish
from crossway.model.port_forwarding import PortForwarding
from crossway.model.rbac import ACCESS_AS_EXTERNAL
from crossway.model.resource import Given, changed, new_id, now
from crossway.model.router import Router
from crossway.model.subnet import Subnet

DHCP = "network:dhcp"
PLACE = ("port_id", "fixed_ip_address", "router_id")


class Stand(msgspec.Struct, frozen=True):
    """What a floating IP stands for, and the router that carries it."""

    port_id: str | None = None
    fixed_ip_address: str | None = None
    router_id: str | None = None


def create(decision: Decision, caller: Caller, given: Given) -> FloatingIp:
    cloud = decision.cloud
    network: Network = seen(
        cloud,
        caller,
        "network",
        given["floating_network_id"],
        decision.rely(cloud.networks, given["floating_network_id"]),
    )
    if not caller.admin:
        share.hold(decision, caller.project, network, ACCESS_AS_EXTERNAL)
    if not network.external:
        raise _bad(f"Network {network.id} is not a valid external network")
    if all(subnet.ip_version != 4 for subnet in decision.by(cloud.subnets, "network_id", network.id)):
        raise _bad(f"Network {network.id} does not contain any IPv4 subnet")
    project, id, time = project_of(caller, given), new_id(), now()
    subnet_id, address = given["subnet_id"], given["floating_ip_address"]
    ports.check_seen(decision, caller, network.id, (Wish(subnet_id),))
    port = ports.insert(
        decision,
        network,
        {
            # Nobody's own, as an external network's addresses are the operator's.
            "project_id": "",
            "fixed_ips": (Wish(subnet_id, address),) if subnet_id or address else UNSET,
            "device_id": id,
            "device_owner": FLOATING_IP,
            "security_groups": (),
            "port_security_enabled": False,
            "status": NOT_APPLICABLE,
        },
    )
    ipv4 = [fixed.ip_address for fixed in port.fixed_ips if ":" not in fixed.ip_address]
    if not ipv4:
        raise Invalid(
            f"Unable to find any IP address on external network {network.id}.", type="ExternalIpAddressExhausted"
        )
    fip = FloatingIp(
        **{
            **given,
            "project_id": project,
            "floating_ip_address": ipv4[0],
            "subnet_id": None,
            **dict.fromkeys(PLACE),
        },
        id=id,
        port=port.id,
        status=DOWN,
        created_at=time,
        updated_at=time,
    )
    qos.refer(decision, caller, id, None, fip.qos_policy_id)
    stand = _stand(decision, caller, fip, {name: given[name] for name in PLACE if given[name] is not None})
    outside.bear(decision, id, (None, stand.port_id), (None, stand.router_id))
    fip = msgspec.structs.replace(fip, **msgspec.structs.asdict(stand))
    decision.create(cloud.of(FloatingIp), fip)
    return fip


def update(decision: Decision, caller: Caller, id: str, given: Given) -> FloatingIp:
    cloud = decision.cloud
    old = find(decision, FloatingIp, id)
    if given.get("port_id") and decision.by(cloud.of(PortForwarding), "floatingip_id", id):
        raise _carries(id)
    if "qos_policy_id" in given:
        qos.refer(decision, caller, id, old.qos_policy_id, given["qos_policy_id"])
    stand = _stand(decision, caller, old, given)
    outside.bear(decision, id, (old.port_id, stand.port_id), (old.router_id, stand.router_id))
    new = changed(old, {**given, **msgspec.structs.asdict(stand)})
    decision.put(cloud.of(FloatingIp), new)
    return new


def delete(decision: Decision, caller: Caller, id: str) -> None:
    """Delete a floating IP that carries no port forwarding, and its port."""
    fip = find(decision, FloatingIp, id)
    if decision.by(decision.cloud.of(PortForwarding), "floatingip_id", id):
        raise _carries(id)
    remove(decision, fip)


def remove(decision: Decision, fip: FloatingIp) -> None:
    cloud = decision.cloud
    outside.bear(decision, fip.id, (fip.port_id, None), (fip.router_id, None))
    if fip.qos_policy_id:
        decision.release(f"uses/{fip.qos_policy_id}/{fip.id}")
    if port := decision.read(cloud.ports, fip.port):
        ports.remove(decision, port)
    decision.delete(cloud.of(FloatingIp), fip.id)


def drop_idle(decision: Decision, network: str) -> bool:
    """Delete the floating IPs of a network that stand for nothing; say whether there were any."""
    table = decision.cloud.of(FloatingIp)
    idle = [fip for fip in table.by("floating_network_id", network) if not fip.port_id and not fip.router_id]
    for fip in idle:
        decision.read(table, fip.id)
        remove(decision, fip)
    return bool(idle)


def _stand(decision: Decision, caller: Caller, fip: FloatingIp, given: Given) -> Stand:
    """Find what a floating IP is to stand for; an empty request takes away what it stands for."""
    port_id: str | None = given.get("port_id")
    if given.get("fixed_ip_address") and not port_id:
        raise _bad("fixed_ip_address cannot be specified without a port_id")
    if given and "port_id" not in given:
        port_id = fip.port_id
        if port_id and not given.keys() & {*PLACE}:
            return Stand(fip.port_id, fip.fixed_ip_address, fip.router_id)
    if not port_id:
        if given.get("router_id"):
            raise _bad("router_id cannot be specified without a port_id")
        # What carries port forwardings has a router without standing for a port.
        return Stand() if fip.port_id else Stand(router_id=fip.router_id)
    port: Port = seen(decision.cloud, caller, "port", port_id, decision.read(decision.cloud.ports, port_id))
    # Who names the port and none of its addresses means its only one.
    kept = None if "port_id" in given else fip.fixed_ip_address
    fixed = _fixed(caller, fip, port, given.get("fixed_ip_address") or kept)
    _check_free(decision, fip, port, fixed)
    wanted = given.get("router_id")
    if "router_id" not in given and (port.id, fixed.ip_address) == (fip.port_id, fip.fixed_ip_address):
        wanted = fip.router_id
    return Stand(port.id, fixed.ip_address, _router(decision, caller, fip, port, fixed, wanted))


def _fixed(caller: Caller, fip: FloatingIp, port: Port, wanted: str | None) -> FixedIp:
    """Return the address of a port that a floating IP is to stand for."""
    if port.project_id != fip.project_id and not caller.admin:
        raise _bad(
            f"Cannot process floating IP association with Port {port.id}, since that port is owned by a "
            "different project"
        )
    if port.device_owner == DHCP:
        raise _bad(f"Port {port.id} is unable to be assigned a floating IP")
    if wanted:
        if ipaddress.ip_address(wanted).version != 4:
            raise _bad(f"Cannot process floating IP association with {wanted}, since that is not an IPv4 address")
        found = next((fixed for fixed in port.fixed_ips if fixed.ip_address == wanted), None)
        if found is None:
            raise _bad(f"Port {port.id} does not have fixed ip {wanted}")
        return found
    ipv4 = [fixed for fixed in port.fixed_ips if ":" not in fixed.ip_address]
    if not ipv4:
        raise _bad(f"Cannot add floating IP to port {port.id} that has no fixed IPv4 addresses")
    if len(ipv4) > 1:
        raise _bad(
            f"Port {port.id} has multiple fixed IPv4 addresses.  Must provide a specific IPv4 address when assigning "
            "a floating IP"
        )
    return ipv4[0]


def _check_free(decision: Decision, fip: FloatingIp, port: Port, fixed: FixedIp) -> None:
    """Raise Conflict if another floating IP of the same network stands for the address already."""
    outside.settle_port(decision, port.id)
    for other in decision.by(decision.cloud.of(FloatingIp), "port_id", port.id):
        if (
            other.id != fip.id
            and other.fixed_ip_address == fixed.ip_address
            and other.floating_network_id == fip.floating_network_id
        ):
            raise Conflict(
                f"Cannot associate floating IP {fip.floating_ip_address} ({fip.id}) with port {port.id} using fixed "
                f"IP {fixed.ip_address}, as that fixed IP already has a floating IP on external network "
                f"{fip.floating_network_id}.",
                type="FloatingIPPortAlreadyAssociated",
            )


def _router(decision: Decision, caller: Caller, fip: FloatingIp, port: Port, fixed: FixedIp, wanted: str | None) -> str:
    """Return the router that carries a floating IP: the wanted one, maybe behind others, or the one in between."""
    cloud = decision.cloud
    subnet: Subnet | None = decision.rely(cloud.subnets, fixed.subnet_id)
    router: Router | None = None
    if wanted:
        router = seen(cloud, caller, "router", wanted, decision.read(cloud.routers, wanted))
        if fip.floating_network_id not in router.gateway_networks:
            raise Conflict(
                f"Router {wanted} has no gateway to external network {fip.floating_network_id}.",
                type="RouterGatewayNotOnFloatingNetwork",
            )
        if subnet and not outside.joins(decision, subnet, wanted):
            router = None
    elif subnet:
        router = outside.router_between(decision, subnet, fip.floating_network_id)
    if not router:
        fault = NotFound("floatingip", fip.id)
        fault.args = (
            f"External network {fip.floating_network_id} is not reachable from subnet {fixed.subnet_id}.  Therefore, "
            f"cannot associate Port {port.id} with a Floating IP.",
        )
        fault.type = "ExternalGatewayForFloatingIPNotFound"
        raise fault
    if router.distributed and decision.by(cloud.of(PortForwarding), "internal_port_id", port.id):
        raise Invalid(
            f"Cannot associate floating IP to port {port.id} because it already has a Port Forwarding binding.",
            type="PortHasPortForwarding",
        )
    return router.id


def _bad(message: str) -> Invalid:
    return Invalid(f"Bad floatingip request: {message}.", type="BadRequest")


def _carries(id: str) -> Conflict:
    return Conflict(f"Floating IP {id} in use by Port Forwarding resources.", type="FipInUseByPortForwarding")


def _port_details(cloud: Cloud, fip: FloatingIp) -> dict[str, Any] | None:
    port = cloud.ports.get(fip.port_id) if fip.port_id else None
    if port is None:
        return None
    return {
        "name": port.name,
        "network_id": port.network_id,
        "mac_address": port.mac_address,
        "admin_state_up": port.admin_state_up,
        "status": port.status,
        "device_id": port.device_id,
        "device_owner": port.device_owner,
    }


def _forwardings(cloud: Cloud, fip: FloatingIp) -> list[dict[str, Any]]:
    """Return a floating IP's port forwardings in short; what is a range is told as one."""
    told = []
    for forwarding in cloud.of(PortForwarding).by("floatingip_id", fip.id):
        one: dict[str, Any] = {
            "id": forwarding.id,
            "protocol": forwarding.protocol,
            "internal_port_id": forwarding.internal_port_id,
            "internal_ip_address": forwarding.internal_ip_address,
        }
        for way in ("internal", "external"):
            if port := getattr(forwarding, f"{way}_port"):
                one[f"{way}_port"] = port
            else:
                one[f"{way}_port_range"] = getattr(forwarding, f"{way}_port_range")
        told.append(one)
    return told


FLOATINGIPS = Collection(
    kind=FLOATINGIP,
    create=create,
    update=update,
    delete=delete,
    children=(PORT_FORWARDINGS,),
    bare=True,
    derived={"port_details": _port_details, "port_forwardings": _forwardings},
    stale={"port_forwarding": lambda forwarding: (forwarding.floatingip_id,)},
    stale_by={"port": "port_id"},
    aliases={
        "expose-port-forwarding-in-fip": "Expose Floating IP port forwardings",
        "fip-port-details": "Floating IP Port Details Extension",
        "floating-ip-router-writable": "Floating IP Router (writable)",
        "qos-fip": "Floating IP QoS",
    },
)
