"""What a host's own credential may do with ports: what its agent and its engines need, and nothing else.

The policy table says whose ports; here is what of them, and to which values. A
host makes and deletes ports of containers alone, on itself, for the projects
that it is for, and networks that its engines have made. Of a tenant's other ports that are on it, it says no more than
that a machine of its has them, or that they are on it no longer. A port comes to
it that is bound nowhere or to a host that is dead, if it is for its project;
from a living host, by a binding that waits here. On networks that are not its projects' it has the addresses and
MACs that it is given, and nowhere a gateway's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import Any

import msgspec
from msgspec import UNSET

from crossway.control.caller import CONTAINER, HOST, Caller, carries, holds, may, reaches
from crossway.control.cloud import Cloud
from crossway.control.decision import Decision
from crossway.errors import Conflict, Forbidden, NotFound
from crossway.model.binding import BINDING
from crossway.model.network import MADE, NETWORK, Network
from crossway.model.port import GUEST, PORT, Port
from crossway.model.rbac import EVERYONE
from crossway.model.resource import Given, Kind
from crossway.model.subnet import SUBNET
from crossway.model.who import HOSTS, Who

MACHINE = "compute:"
# What it may say of a port that it makes, of one that it made, and of a tenant's.
_OF_CONTAINER = frozenset(
    {
        "name",
        "device_id",
        "device_owner",
        "binding:host_id",
        "binding:profile",
        "security_groups",
        "fixed_ips",
        "mac_address",
    }
)
_MAKES = _OF_CONTAINER | {"network_id", "project_id", "tenant_id"}
_OF_SUBNET = frozenset({"network_id", "project_id", "tenant_id", "cidr", "ip_version", "allocation_pools"})
_OF_TENANT = frozenset({"device_id", "device_owner", "binding:host_id"})


def create(decision: Decision, caller: Caller, kind: Kind[Any], target: Any, given: Given, body: Any) -> None:
    """Let a host make what it needs; raise Forbidden for all else."""
    if kind is PORT:
        network = decision.get(decision.cloud.networks, str(given.get("network_id")))
        _check_choice(decision, caller, network, None, given)
    if _as_other(decision.cloud, caller, kind.create, target):
        _check_host(caller, body.get("binding:host_id") if kind is PORT else caller.host)
    elif kind is PORT:
        _check_host(caller, body.get("binding:host_id"))
        _check_words(caller, "create_port", body, _MAKES)
        if not _is_container(body.get("device_owner")):
            raise _refused(caller, "create_port", "makes ports of containers alone (device_owner container:…)")
        if network is None or not _has(decision.cloud, target.project_id, network):
            raise NotFound("network", str(given.get("network_id")))
        _check_gateways(decision, caller, network.id, None, given)
    elif kind is NETWORK:
        _check_words(caller, "create_network", body, {"name", "description", "project_id", "tenant_id"})
        if body.get("description") != MADE or not target.project_id:
            raise _refused(caller, "create_network", "makes networks for its engines alone, in a project that is named")
    elif kind is SUBNET:
        _check_words(caller, "create_subnet", body, _OF_SUBNET)
        network = decision.get(decision.cloud.networks, str(given.get("network_id")))
        if not _is_made(caller, network):
            raise _refused(caller, "create_subnet", "makes subnets of networks that an engine made alone")
    elif kind is BINDING:
        _check_host(caller, body.get("host"), "create_port_binding")
        _check_words(caller, "create_port_binding", body, {"host"})
        port = decision.get(decision.cloud.ports, str(given.get("port_id")))
        if port is None or port.device_owner != GUEST or port.link is not None:
            raise _refused(caller, "create_port_binding", f"lets ports of {GUEST} alone come to it")


def update(
    decision: Decision, caller: Caller, kind: Kind[Any], old: Any, given: Given, body: Mapping[str, Any]
) -> None:
    """Let a host change what it needs of a port; raise Forbidden, or Conflict for what is another living host's."""
    if kind is PORT:
        _check_choice(decision, caller, decision.get(decision.cloud.networks, old.network_id), old, given)
    if _as_other(decision.cloud, caller, kind.update, old):
        if "binding:host_id" in body:
            _check_binding(decision.cloud, caller, old, body["binding:host_id"])
        return
    port: Port = old
    if "binding:host_id" in body:
        _check_binding(decision.cloud, caller, port, body["binding:host_id"])
    own = port.at == caller.host or holds(caller.host, port)
    container = own and _is_container(port.device_owner)
    words = _OF_CONTAINER if container else _OF_TENANT if own else {"binding:host_id"}
    _check_words(caller, "update_port", body, words)
    _check_gateways(decision, caller, port.network_id, port, given)
    if "device_owner" in body:
        wanted = body["device_owner"]
        fits = _is_container(wanted) if container else _is_machine(port.device_owner) and _is_machine(wanted)
        if not fits:
            raise _refused(caller, "update_port:device_owner", f"does not turn '{port.device_owner}' into '{wanted}'")
    if "device_id" in body and not container and not _is_machine(port.device_owner):
        raise _refused(caller, "update_port:device_id", f"does not change whose a port of '{port.device_owner}' is")


def delete(decision: Decision, caller: Caller, kind: Kind[Any], old: Any) -> None:
    """Let a host delete the ports of containers that are on it, its own bindings, and what its engines made."""
    if kind in (NETWORK, SUBNET) and not _as_other(decision.cloud, caller, kind.delete, old):
        network = old if kind is NETWORK else decision.get(decision.cloud.networks, old.network_id)
        if not _is_made(caller, network):
            raise _refused(caller, f"delete_{kind.name}", "deletes networks that an engine made alone")
        return
    if kind is not PORT or _as_other(decision.cloud, caller, kind.delete, old):
        return
    if not (_is_container(old.device_owner) and (old.at == caller.host or holds(caller.host, old))):
        raise _refused(caller, "delete_port", "deletes ports of containers that are on it alone")


def _check_binding(cloud: Cloud, caller: Caller, port: Port, wanted: Any) -> None:
    """Raise Forbidden or Conflict unless a host may say that a port is here, or is here no longer."""
    _check_host(caller, wanted, "update_port:binding:host_id")
    if port.at == caller.host or (not port.at and (carries(caller.host, port) or wanted)):
        return
    if not wanted or cloud.alive(port.at):
        raise Conflict(f"Port {port.id} is on another host than {caller.host}: it comes by a binding that waits there.")


def _check_host(caller: Caller, wanted: Any, rule: str = "create_port:binding:host_id") -> None:
    if wanted not in (None, "", caller.host):
        raise _refused(caller, rule, f"says nothing of host {wanted}")


def _check_choice(decision: Decision, caller: Caller, network: Network | None, port: Port | None, given: Given) -> None:
    """Raise Forbidden if a host chooses an address or a MAC on a network of a project that it is not for.

    What the port has it may say again. An engine has each family's address held by a port of its own, and makes them
    those of one: then they are of the pools, as what is given out is.
    """
    if network is None or not caller.serves.isdisjoint((network.project_id, EVERYONE)):
        return
    rule, where = "create_port" if port is None else "update_port", f"on network {network.id} of another project"
    mac = given.get("mac_address", UNSET)
    if mac not in (UNSET, None) and (port is None or mac != port.mac_address):
        raise _refused(caller, f"{rule}:mac_address", f"chooses no MAC {where}")
    pooled = port is not None and holds(caller.host, port)
    for ip in _chosen(port, given):
        if not (pooled and _is_pooled(decision, network.id, ip)):
            raise _refused(caller, f"{rule}:fixed_ips:ip_address", f"chooses no address {where}, but subnets")


def _check_gateways(decision: Decision, caller: Caller, network: str, port: Port | None, given: Given) -> None:
    """Raise Forbidden if a host would have a subnet's gateway address: that is a router's."""
    wanted = {ip_address(ip) for ip in _chosen(port, given)}
    for subnet in decision.by(decision.cloud.subnets, "network_id", network) if wanted else ():
        if subnet.gateway_ip and ip_address(subnet.gateway_ip) in wanted:
            rule = "create_port" if port is None else "update_port"
            raise _refused(
                caller,
                f"{rule}:fixed_ips:ip_address",
                f"does not take {subnet.gateway_ip}, the gateway of subnet {subnet.id}",
            )


def _chosen(port: Port | None, given: Given) -> list[str]:
    """Return the addresses that are asked for by themselves and that a port does not have already."""
    wishes = given.get("fixed_ips", UNSET)
    had = {fixed.ip_address for fixed in port.fixed_ips} if port else set()
    asked = () if wishes in (UNSET, None) else wishes
    return [wish.ip_address for wish in asked if wish.ip_address and wish.ip_address not in had]


def _is_pooled(decision: Decision, network: str, ip: str) -> bool:
    address = ip_address(ip)
    return any(
        address.version == subnet.ip_version
        and int(ip_address(pool.start)) <= int(address) <= int(ip_address(pool.end))
        for subnet in decision.by(decision.cloud.subnets, "network_id", network)
        for pool in subnet.allocation_pools
    )


def _check_words(caller: Caller, rule: str, body: Mapping[str, Any], words: Iterable[str]) -> None:
    if strange := [word for word in body if word not in words]:
        raise _refused(caller, f"{rule}:{strange[0]}", f"does not set {strange[0]}")


def _as_other(cloud: Cloud, caller: Caller, who: Who, target: Any) -> bool:
    """Say whether the caller may do a thing by its other roles, as a member of its project perhaps."""
    plain = msgspec.structs.replace(caller, host="", serves=frozenset(), roles=caller.roles - {HOST})
    return may(cloud, plain, Who(who - HOSTS), target)


def _has(cloud: Cloud, project: str, network: Network) -> bool:
    return project == network.project_id or reaches(cloud, project, network)


def _is_made(caller: Caller, network: Network | None) -> bool:
    """Say whether an engine made a network, in a project that the host is for and not only shared with one."""
    own = network is not None and not caller.serves.isdisjoint((network.project_id, EVERYONE))
    return own and network is not None and network.description == MADE


def _is_container(owner: Any) -> bool:
    return isinstance(owner, str) and owner.startswith(CONTAINER)


def _is_machine(owner: Any) -> bool:
    return owner == "" or (isinstance(owner, str) and owner.startswith(MACHINE))


def _refused(caller: Caller, rule: str, why: str) -> Forbidden:
    return Forbidden(f"({rule}) is disallowed by policy: host {caller.host} {why}", type="PolicyNotAuthorized")
