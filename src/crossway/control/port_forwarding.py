"""Make, change and delete port forwardings of floating IPs."""

from __future__ import annotations

from typing import Any

import msgspec

from crossway.control import outside
from crossway.control.caller import Caller, seen
from crossway.control.collection import Collection, change, find, touch
from crossway.control.decision import Decision
from crossway.errors import Conflict, Invalid, NotFound
from crossway.model.floatingip import FloatingIp
from crossway.model.port import Port
from crossway.model.port_forwarding import PORT_FORWARDING, PortForwarding
from crossway.model.resource import Given, new_id, now

WAYS = ("internal", "external")


def create(decision: Decision, caller: Caller, given: Given) -> PortForwarding:
    cloud = decision.cloud
    fip = _fip(decision, given["floatingip_id"])
    port = _port(decision, caller, given["internal_port_id"])
    time = now()
    forwarding = PortForwarding(
        **{**given, **_ranges(given), "internal_ip_address": _address(port, given["internal_ip_address"])},
        id=new_id(),
        project_id=fip.project_id,
        created_at=time,
        updated_at=time,
    )
    _check(decision, forwarding)
    _check_unbound(decision, forwarding)
    if fip.port_id:
        raise Conflict(
            f"Cannot associate floating IP {fip.floating_ip_address} ({fip.id}) with port {port.id} using fixed IP "
            f"{forwarding.internal_ip_address}, as that fixed IP already has a floating IP on external network "
            f"{fip.floating_network_id}.",
            type="FloatingIPPortAlreadyAssociated",
        )
    router = _router(decision, fip, port, forwarding)
    outside.bear(decision, forwarding.id, (None, port.id), (None, None))
    outside.bear(decision, fip.id, (None, None), (fip.router_id, router))
    # Changing the floating IP makes those who forward its ports at the same time decide one after the other.
    change(decision, fip, {"router_id": router})
    decision.create(cloud.of(PortForwarding), forwarding)
    touch(decision, Port, port.id)
    return forwarding


def update(decision: Decision, caller: Caller, id: str, given: Given) -> PortForwarding:
    old = find(decision, PortForwarding, id)
    fip = _fip(decision, old.floatingip_id)
    given = {**given, **_ranges(given, old)}
    port = _port(decision, caller, given.get("internal_port_id", old.internal_port_id))
    moved = port.id != old.internal_port_id
    if moved and "internal_ip_address" not in given:
        given["internal_ip_address"] = _address(port, None)
    new = msgspec.structs.replace(old, **given)
    if all(fixed.ip_address != new.internal_ip_address for fixed in port.fixed_ips):
        told = [fixed.ip_address for fixed in port.fixed_ips]
        raise _bad(
            f"The internal IP does not correspond to an address on the internal port, which has fixed_ips {told}"
        )
    if moved:
        _check_unbound(decision, new)
        outside.bear(decision, id, (old.internal_port_id, port.id), (None, None))
    _router(decision, fip, port, new)
    _check(decision, new)
    change(decision, fip, {})
    touch(decision, Port, port.id)
    return change(decision, old, given)


def delete(decision: Decision, caller: Caller, id: str) -> None:
    forwarding = find(decision, PortForwarding, id)
    outside.drop_forwarding(decision, forwarding)
    touch(decision, Port, forwarding.internal_port_id)


def _fip(decision: Decision, id: str) -> FloatingIp:
    fip = decision.read(decision.cloud.of(FloatingIp), id)
    if fip is None:
        raise NotFound("floatingip", id)
    return fip


def _port(decision: Decision, caller: Caller, id: str) -> Port:
    port: Port = seen(decision.cloud, caller, "port", id, decision.read(decision.cloud.ports, id))
    return port


def _address(port: Port, wanted: str | None) -> str:
    """Return the IPv4 address of a port that ports are forwarded to: the wanted one, or its first."""
    ipv4 = [fixed.ip_address for fixed in port.fixed_ips if ":" not in fixed.ip_address]
    if not ipv4:
        raise _bad(f"Requested internal port {port.id} must allocate an IPv4 address at least.")
    if wanted and wanted not in ipv4:
        raise _bad(
            f"Requested internal IP address {wanted} is not suitable for internal port {port.id}, as its "
            f"fixed_ips are {ipv4}"
        )
    return wanted or ipv4[0]


def _ranges(given: Given, old: PortForwarding | None = None) -> dict[str, Any]:
    """Return both ways of telling ports, whichever was given."""
    told: dict[str, Any] = {}
    for way in WAYS:
        port, ports = given.get(f"{way}_port"), given.get(f"{way}_port_range")
        if port and ports and ports != f"{port}:{port}":
            raise _bad(f"{way}_port {port} and {way}_port_range {ports} do not say the same")
        if port:
            ports = f"{port}:{port}"
        if not ports and old is None:
            raise _bad(f"{way}_port or {way}_port_range must be specified")
        ports = ports or getattr(old, f"{way}_port_range")
        first, last = _ends(ports)
        told[f"{way}_port_range"], told[f"{way}_port"] = ports, first if first == last else None
    return told


def _ends(ports: str) -> tuple[int, int]:
    first, _, last = ports.partition(":")
    return int(first), int(last)


def _check(decision: Decision, new: PortForwarding) -> None:
    """Raise Invalid where ports do not go together, or are forwarded already."""
    internal, external = (_ends(getattr(new, f"{way}_port_range")) for way in WAYS)
    if internal[0] != internal[1] and internal[1] - internal[0] != external[1] - external[0]:
        raise _bad(
            "Invalid ranges of internal and/or external ports. The relation between internal and external ports must "
            "be N-N or 1-N"
        )
    table = decision.cloud.of(PortForwarding)
    outside.settle_port(decision, new.internal_port_id)
    others = decision.by(table, "internal_port_id", new.internal_port_id)
    inside = [one for one in others if one.internal_ip_address == new.internal_ip_address]
    for way, known in (("internal", inside), ("external", decision.by(table, "floatingip_id", new.floatingip_id))):
        first, last = _ends(getattr(new, f"{way}_port_range"))
        for other in known:
            its_first, its_last = _ends(getattr(other, f"{way}_port_range"))
            if other.id != new.id and other.protocol == new.protocol and first <= its_last and its_first <= last:
                raise _bad(
                    f"There is a port collision with the {way}_port_range. The following ranges collide: "
                    f"{getattr(other, f'{way}_port_range')} and {getattr(new, f'{way}_port_range')}"
                )


def _check_unbound(decision: Decision, new: PortForwarding) -> None:
    fip = next(iter(decision.by(decision.cloud.of(FloatingIp), "port_id", new.internal_port_id)), None)
    if fip:
        raise Conflict(
            f"Cannot create port forwarding to floating IP {fip.floating_ip_address} ({fip.id}) with port "
            f"{new.internal_port_id} using fixed IP {new.internal_ip_address}, as that port already has a binding "
            "floating IP.",
            type="PortHasBindingFloatingIP",
        )


def _router(decision: Decision, fip: FloatingIp, port: Port, new: PortForwarding) -> str:
    """Return the router that joins a port to the floating IP's network, or raise Invalid."""
    cloud = decision.cloud
    subnet_id = next(f.subnet_id for f in port.fixed_ips if f.ip_address == new.internal_ip_address)
    subnet = decision.rely(cloud.subnets, subnet_id)
    router = subnet and outside.router_between(decision, subnet, fip.floating_network_id)
    if not router:
        raise _bad(
            f"External network {fip.floating_network_id} is not reachable from subnet {subnet_id}. Cannot set Port "
            f"forwarding for port {port.id} with Floating IP {fip.id}"
        )
    if fip.router_id and fip.router_id != router.id:
        raise _bad(
            f"The Floating IP {fip.id} had been set on router {fip.router_id}, the internal port {port.id} can not "
            "reach it"
        )
    return router.id


def _bad(message: str) -> Invalid:
    return Invalid(f"Bad port_forwarding request: {message}.", type="BadRequest")


PORT_FORWARDINGS = Collection(
    kind=PORT_FORWARDING,
    create=create,
    update=update,
    delete=delete,
    aliases={
        "floating-ip-port-forwarding": "Floating IP Port Forwarding",
        "floating-ip-port-forwarding-description": "Floating IP Port Forwarding new attribute description",
        "floating-ip-port-forwarding-detail": "Floating IP port forwarding detail",
        "floating-ip-port-forwarding-port-ranges": "Floating IP Port Forwarding support port ranges",
    },
)
