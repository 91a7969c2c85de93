"""Make, change and delete local IPs, and let ports answer to them."""

from __future__ import annotations

from msgspec import UNSET

from crossway.control import outside
from crossway.control import port as ports
from crossway.control.caller import Caller, project_of, seen
from crossway.control.cloud import Cloud
from crossway.control.collection import Collection, change, find
from crossway.control.decision import Decision
from crossway.errors import Conflict, Invalid, NotFound
from crossway.model.floatingip import NOT_APPLICABLE
from crossway.model.local_ip import LOCAL_IP, LOCAL_IP_OWNER, PORT_ASSOCIATION, LocalIp, PortAssociation
from crossway.model.network import Network
from crossway.model.port import Port, Wish
from crossway.model.resource import Given, new_id, now


def create(decision: Decision, caller: Caller, given: Given) -> LocalIp:
    """Make a local IP of an address of a port, or of a network on a port of its own."""
    cloud = decision.cloud
    project, id, time = project_of(caller, given), new_id(), now()
    wanted = None if given["local_ip_address"] is UNSET else given["local_ip_address"]
    if given["local_port_id"] is not UNSET:
        port: Port = seen(
            cloud, caller, "port", given["local_port_id"], decision.read(cloud.ports, given["local_port_id"])
        )
    elif given["network_id"] is not UNSET:
        port = _make_port(decision, caller, project, id, given["network_id"], wanted)
    else:
        raise Invalid(
            "Either Port ID or Network ID must be specified for Local IP create.", type="LocalIPPortOrNetworkRequired"
        )
    local = LocalIp(
        **{
            **given,
            "project_id": project,
            "local_port_id": port.id,
            "network_id": port.network_id,
            "local_ip_address": _address(port, wanted),
        },
        id=id,
        created_at=time,
        updated_at=time,
    )
    outside.bear(decision, id, (None, port.id), (None, None))
    decision.create(cloud.of(LocalIp), local)
    return local


def update(decision: Decision, caller: Caller, id: str, given: Given) -> LocalIp:
    return change(decision, find(decision, LocalIp, id), given)


def delete(decision: Decision, caller: Caller, id: str) -> None:
    cloud = decision.cloud
    local = find(decision, LocalIp, id)
    decision.quiet(f"answers/{id}/")
    if decision.by(cloud.of(PortAssociation), "local_ip_id", id):
        raise Conflict(f"Local IP {id} is still associated with one or more ports.", type="LocalIPInUse")
    outside.bear(decision, id, (local.local_port_id, None), (None, None))
    decision.delete(cloud.of(LocalIp), id)
    port = decision.read(cloud.ports, local.local_port_id)
    if port and port.device_owner == LOCAL_IP_OWNER:
        ports.remove(decision, port)


def associate(decision: Decision, caller: Caller, given: Given) -> PortAssociation:
    """Let a port answer to a local IP."""
    cloud = decision.cloud
    local = decision.rely(cloud.of(LocalIp), given["local_ip_id"])
    if local is None:
        raise NotFound("local_ip", given["local_ip_id"])
    port: Port = seen(cloud, caller, "port", given["fixed_port_id"], decision.read(cloud.ports, given["fixed_port_id"]))
    id, time = f"{local.id}.{port.id}", now()
    if decision.get(cloud.of(PortAssociation), id):
        raise Conflict(
            f"Local IP {local.id} association to port {port.id} already exists.", type="LocalIPAssociationExists"
        )
    association = PortAssociation(
        local_ip_id=local.id,
        local_ip_address=local.local_ip_address,
        fixed_port_id=port.id,
        fixed_ip=_address(port, given["fixed_ip"]),
        id=id,
        project_id=local.project_id,
        created_at=time,
        updated_at=time,
    )
    decision.claim(f"answers/{local.id}/{port.id}")
    outside.bear(decision, id, (None, port.id), (None, None))
    decision.create(cloud.of(PortAssociation), association)
    return association


def part(decision: Decision, caller: Caller, id: str) -> None:
    outside.drop_association(decision, find(decision, PortAssociation, id))


def _make_port(decision: Decision, caller: Caller, project: str, local: str, network_id: str, ip: str | None) -> Port:
    cloud = decision.cloud
    network: Network = seen(cloud, caller, "network", network_id, decision.rely(cloud.networks, network_id))
    ipv4 = [s for s in decision.by(cloud.subnets, "network_id", network_id) if s.ip_version == 4]
    if not ipv4:
        raise Invalid(
            f"Bad local_ip request: Network {network_id} does not contain any IPv4 subnet.", type="BadRequest"
        )
    return ports.insert(
        decision,
        network,
        {
            "project_id": project,
            "fixed_ips": (Wish(ip_address=ip) if ip else Wish(subnet_id=ipv4[0].id),),
            "device_id": local,
            "device_owner": LOCAL_IP_OWNER,
            "security_groups": (),
            "port_security_enabled": False,
            "status": NOT_APPLICABLE,
        },
    )


def _address(port: Port, wanted: str | None) -> str:
    """Return the wanted address of a port, or its only one."""
    have = [fixed.ip_address for fixed in port.fixed_ips]
    if not have:
        raise Invalid(f"Specified Port {port.id} has no fixed IPs configured.", type="LocalIPNoIP")
    if wanted and wanted not in have:
        raise Invalid(
            f"Specified Port {port.id} does not have requested IP address: {wanted}.", type="LocalIPRequestedIPNotFound"
        )
    if not wanted and len(have) > 1:
        raise Invalid(
            f"Specified Port {port.id} has several IPs, should specify exact IP address to use for Local IP.",
            type="LocalIPNoRequestedIP",
        )
    return wanted or have[0]


def _host(cloud: Cloud, association: PortAssociation) -> str:
    port = cloud.ports.get(association.fixed_port_id)
    return port.host if port else ""


PORT_ASSOCIATIONS = Collection(
    kind=PORT_ASSOCIATION,
    create=associate,
    delete=part,
    within=True,
    derived={"host": _host},
    stale_by={"port": "fixed_port_id"},
    filters={"host": lambda cloud, caller, hosts: lambda one: _host(cloud, one) in hosts},
)
LOCAL_IPS = Collection(
    kind=LOCAL_IP,
    create=create,
    update=update,
    delete=delete,
    children=(PORT_ASSOCIATIONS,),
    aliases={"local_ip": "Local IP"},
)
