"""Which port has an address that is nobody's fixed one, as the port's host has seen: all who route to it need to know.

One object an address, so that whoever is seen last has it: what fails over is put over what was.
"""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from crossway.control.decision import Decision
from crossway.errors import Conflict, Invalid, NotFound
from crossway.model.host import LEARNED_MAX, Learned, learned_id
from crossway.model.port import Port


def learn(decision: Decision, host: str, id: str, ip: str, mac: str) -> None:
    """Note that a port of a host has an address, whoever had it before."""
    cloud = decision.cloud
    port = _port(decision, host, id)
    if not may_have(port, ip, mac):
        raise Conflict(f"port {id} may not have the address {ip} with the MAC {mac}")
    subnets = decision.by(cloud.subnets, "network_id", port.network_id)
    if not any(ip_address(ip) in ip_network(subnet.cidr) for subnet in subnets):
        raise Conflict(f"address {ip} is in no subnet of network {port.network_id}")
    new = Learned(id=learned_id(port.network_id, ip), port=id, mac=mac)
    old = decision.read(cloud.learned, new.id)
    if old == new:
        return
    if old is None or old.port != id:
        # Several that come at once would each count without the others.
        decision.quiet(f"learned/{port.network_id}/")
        if len(decision.by(cloud.learned, "port", id)) >= LEARNED_MAX:
            raise Conflict(f"port {id} has {LEARNED_MAX} addresses beside its fixed ones, and may have no more")
    if old is None:
        decision.create(cloud.learned, new)
    else:
        decision.put(cloud.learned, new)


def forget(decision: Decision, host: str, id: str, ip: str) -> None:
    """Note that a port of a host has an address no more, if it is still said to have it."""
    port = _port(decision, host, id)
    found = decision.read(decision.cloud.learned, learned_id(port.network_id, ip))
    if found is not None and found.port == id:
        decision.delete(decision.cloud.learned, found.id)


def keep(decision: Decision, old: Port, port: Port) -> None:
    """Forget what a port may have no more, as it is now."""
    if _rights(old) != _rights(port):
        _hold_back(decision, old)
    for found in decision.by(decision.cloud.learned, "port", port.id):
        if not may_have(port, found.ip, found.mac):
            decision.delete(decision.cloud.learned, found.id)


def drop(decision: Decision, port: str) -> None:
    """Forget what a port had that is being deleted."""
    if (old := decision.get(decision.cloud.ports, port)) is not None:
        _hold_back(decision, old)
    for found in decision.by(decision.cloud.learned, "port", port):
        decision.delete(decision.cloud.learned, found.id)


def _hold_back(decision: Decision, port: Port) -> None:
    """Have nothing be learned of a port meanwhile, if it may have any addresses but its own."""
    if port.allowed_address_pairs or not port.port_security_enabled:
        decision.quiet(f"learned/{port.network_id}/")


def _rights(port: Port) -> tuple[object, ...]:
    return port.port_security_enabled, port.allowed_address_pairs, port.mac_address


def may_have(port: Port, ip: str, mac: str) -> bool:
    """Return whether a port may have an address with a MAC beside its fixed ones."""
    if not port.port_security_enabled:
        return True
    address = ip_address(ip)
    return any(
        address in ip_network(pair.ip_address, strict=False) and (pair.mac_address or port.mac_address) == mac
        for pair in port.allowed_address_pairs
    )


def _port(decision: Decision, host: str, id: str) -> Port:
    # As it is now: its pairs, host or network may change at the same moment.
    port = decision.read(decision.cloud.ports, id)
    if port is None:
        raise NotFound("port", id)
    if port.at != host:
        raise Conflict(f"port {id} is on host {port.at or 'none'}, not on {host}")
    if not port.present:
        raise Invalid(f"port {id} is no workload's")
    return port
