"""Make, change and delete subnets."""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Callable, Iterable

from msgspec import UNSET

from crossway.control import outside
from crossway.control.address import by_mac, default_pools, number
from crossway.control.caller import Caller, project_of, seen, shared
from crossway.control.cloud import Cloud
from crossway.control.collection import Collection, touch
from crossway.control.decision import Decision
from crossway.control.segment import own_id
from crossway.control.subnetpool import cut, default_pool, enter_pool, leave_pool, scope_of
from crossway.errors import Conflict, Invalid, NotFound
from crossway.model.check import boolean, network_of
from crossway.model.network import MTU_MIN, Network
from crossway.model.port import ROUTER_GATEWAY, ROUTER_INTERFACE, FixedIp, Port
from crossway.model.resource import Given, changed, new_id, now
from crossway.model.segment import Segment
from crossway.model.subnet import DELEGATED, SLAAC, STATELESS, SUBNET, Pool, Route, Subnet
from crossway.model.subnetpool import SubnetPool

Prefix = ipaddress.IPv4Network | ipaddress.IPv6Network
# Owners of ports that serve a network, and whose addresses go with its subnets.
OF_NETWORK = ("network:dhcp", "network:distributed", "network:floatingip_agent_gateway")


def create(decision: Decision, caller: Caller, given: Given) -> Subnet:
    cloud = decision.cloud
    network: Network = seen(
        cloud, caller, "network", given["network_id"], decision.rely(cloud.networks, given["network_id"])
    )
    project = project_of(caller, given)
    given = _allocated(decision, caller, network, project, given)
    prefix = network_of(given["cidr"])
    if prefix.version != given["ip_version"]:
        raise _invalid(f"cidr '{prefix}' does not match the ip_version '{given['ip_version']}'")
    if prefix.prefixlen == 0 or prefix.is_multicast or prefix.is_loopback:
        raise _invalid(f"cidr '{prefix}' should be a unicast prefix longer than /0")
    if given["enable_dhcp"] and prefix.num_addresses <= 2:
        longest = prefix.max_prefixlen - 2
        raise _invalid(f"cidr '{prefix}' is too small for DHCP; should be /{longest} or shorter, or enable_dhcp false")
    if given["enable_dhcp"] and int(prefix.network_address) == 0:
        raise _invalid(f"cidr '{prefix}' is no prefix that DHCP can hand out; its first address means none")
    _check_modes(prefix, given)
    for other in _subnets(decision, network.id):
        other_prefix = network_of(other.cidr)
        if other_prefix.version == prefix.version and other_prefix.overlaps(prefix):
            raise _invalid(
                f"Requested subnet with cidr: {prefix} for network: {network.id} overlaps with another subnet "
                f"({other.id}, {other.cidr})"
            )
    gateway = given["gateway_ip"]
    if gateway is UNSET:
        # A prefix of one or two addresses has none to spare for a gateway.
        gateway = str(prefix.network_address + 1) if prefix.num_addresses > 2 else None
    _check_gateway(prefix, gateway)
    if given["allocation_pools"] is UNSET or not given["allocation_pools"]:
        pools = default_pools(str(prefix), gateway)
    else:
        pools = given["allocation_pools"]
        _check_pools(prefix, pools)
        _check_gateway_outside(gateway, pools)
    _check_routes(prefix, given["host_routes"])
    _check_servers(prefix, given["dns_nameservers"])
    _check_segment(decision, network.id, given["segment_id"])
    check_mtu(network.id, network.mtu, prefix.version)
    time = now()
    subnet = Subnet(
        **{**given, "project_id": project, "gateway_ip": gateway, "allocation_pools": pools},
        id=new_id(),
        created_at=time,
        updated_at=time,
    )
    decision.create(cloud.subnets, subnet)
    # Subnets of one network are made one after the other, or two could overlap.
    decision.quiet(f"prefix/{network.id}/")
    decision.claim(f"prefix/{network.id}/{subnet.id}")
    enter_pool(decision, subnet)
    if subnet.by_mac:
        _add_to_ports(decision, subnet)
    touch(decision, Network, network.id)
    return subnet


def update(decision: Decision, caller: Caller, id: str, given: Given) -> Subnet:
    cloud = decision.cloud
    old: Subnet = seen(cloud, caller, "subnet", id, decision.read(cloud.subnets, id))
    prefix = network_of(old.cidr)
    gateway = given.get("gateway_ip", old.gateway_ip)
    pools = given.get("allocation_pools", old.allocation_pools)
    if "gateway_ip" in given and gateway != old.gateway_ip:
        _check_gateway(prefix, gateway)
        for port in cloud.ports.by("subnet_id", id):
            if port.device_owner == ROUTER_INTERFACE and FixedIp(id, old.gateway_ip or "") in port.fixed_ips:
                raise Conflict(
                    f"Current gateway ip {old.gateway_ip} already in use by port {port.id}. Unable to update.",
                    type="GatewayIpInUse",
                )
        _check_gateway_outside(gateway, pools)
    if "allocation_pools" in given:
        _check_pools(prefix, pools)
        _check_gateway_outside(gateway, pools)
    if "host_routes" in given:
        _check_routes(prefix, given["host_routes"])
    if "dns_nameservers" in given:
        _check_servers(prefix, given["dns_nameservers"])
    if given.get("segment_id", old.segment_id) != old.segment_id:
        if old.segment_id is not None:
            raise Conflict(
                f"Subnet {id} is of segment {old.segment_id}: it cannot be of another.",
                type="SegmentIdsNotUpdatable",
            )
        _check_segment(decision, old.network_id, given["segment_id"])
        decision.transaction.puts[f"prefix/{old.network_id}/{id}"] = b""
    new = changed(old, given)
    decision.put(cloud.subnets, new)
    touch(decision, Network, new.network_id)
    return new


def delete(decision: Decision, caller: Caller, id: str) -> None:
    """Delete a subnet that no port has an address of, but those that follow from the MAC or serve the network."""
    cloud = decision.cloud
    subnet: Subnet = seen(cloud, caller, "subnet", id, decision.read(cloud.subnets, id))
    ports = cloud.ports.by("subnet_id", id)
    if subnet.by_mac:
        users = [port for port in ports if port.device_owner in (ROUTER_INTERFACE, ROUTER_GATEWAY)]
    else:
        users = [port for port in ports if port.device_owner not in OF_NETWORK]
    if users:
        raise Conflict(
            f"Unable to complete operation on subnet {id}: One or more ports have an IP allocation from this subnet "
            f"({','.join(p.id for p in users[:10])}).",
            type="SubnetInUse",
        )
    for port in ports:
        for fixed in port.fixed_ips:
            if fixed.subnet_id == id:
                decision.release(f"address/{id}/{fixed.ip_address}")
        left = tuple(fixed for fixed in port.fixed_ips if fixed.subnet_id != id)
        outside.readdress(decision, port, left)
        decision.put(cloud.ports, changed(port, {"fixed_ips": left}))
    if ports:
        decision.quiet(f"address/{id}/")
    else:
        decision.empty(f"address/{id}/")
    decision.delete(cloud.subnets, id)
    decision.release(f"prefix/{subnet.network_id}/{id}")
    leave_pool(decision, subnet)
    touch(decision, Network, subnet.network_id)


def check_mtu(network: str, mtu: int, version: int) -> None:
    """Raise Conflict where a network's packets are smaller than those of a subnet may have to be."""
    if mtu < MTU_MIN[version]:
        raise Conflict(
            f"The MTU of network {network} is {mtu}: with an IPv{version} subnet it should be {MTU_MIN[version]} or "
            "more.",
            type="NetworkMTUSubnetConflict",
        )


def _allocated(decision: Decision, caller: Caller, network: Network, project: str, given: Given) -> Given:
    """Return what was given with its prefix: the one that it names, or one cut of a pool."""
    cloud, version = decision.cloud, given["ip_version"]
    given = dict(given)
    length, use_default = given.pop("prefixlen", UNSET), given.pop("use_default_subnetpool")
    wanted = None if given["cidr"] is UNSET else given["cidr"]
    id = None if given["subnetpool_id"] is UNSET else given["subnetpool_id"]
    if wanted is not None and length is not UNSET:
        raise _bad("cidr and prefixlen must not be supplied together")
    if use_default:
        if id is not None:
            raise _bad("subnetpool_id and use_default_subnetpool cannot both be specified")
        default = default_pool(cloud, version)
        if default is None:
            raise _bad(f"No default subnetpool found for IPv{version}")
        id = default.id
    if id == DELEGATED:
        raise _bad("subnetpool_id 'prefix_delegation': prefixes are not delegated here; name a subnet pool")
    given["subnetpool_id"] = id
    if id is None:
        if wanted is None:
            raise _bad("a subnetpool must be specified in the absence of a cidr")
        if length is not UNSET:
            raise _bad("prefixlen is for subnets of a subnet pool")
        _check_affinity(decision, network, version, None)
        return {**given, "cidr": wanted}
    pool: SubnetPool = seen(cloud, caller, "subnetpool", id, decision.rely(cloud.of(SubnetPool), id))
    if pool.ip_version != version:
        raise _bad(f"Cannot allocate IPv{version} subnet from IPv{pool.ip_version} subnet pool")
    if wanted is None:
        if given["allocation_pools"] is not UNSET and given["allocation_pools"]:
            raise _bad("allocation_pools allowed only for specific subnet requests")
        if given["gateway_ip"] is not UNSET and given["gateway_ip"] is not None:
            raise _bad("gateway_ip allowed only for specific subnet requests")
    _check_affinity(decision, network, version, pool)
    cidr = cut(decision, pool, project, wanted, None if length is UNSET else length)
    return {**given, "cidr": cidr}


def _check_affinity(decision: Decision, network: Network, version: int, pool: SubnetPool | None) -> None:
    """Have all subnets of a network and a family of one scope; or of one pool, or of none, where no scope is."""
    others = [s for s in decision.by(decision.cloud.subnets, "network_id", network.id) if s.ip_version == version]
    scope = scope_of(decision.cloud, network.id, version)
    if scope is not None:
        if pool is None or pool.address_scope_id != scope:
            raise Invalid(
                "Subnets hosted on the same network must be allocated from the same address scope.",
                type="NetworkAddressScopeAffinityError",
            )
        return
    if any(other.subnetpool_id != (pool and pool.id) for other in others):
        raise Invalid(
            "Subnets hosted on the same network must be allocated from the same subnet pool.",
            type="NetworkSubnetPoolAffinityError",
        )


def _check_segment(decision: Decision, network: str, segment: str | None) -> None:
    """Have the subnets of a network with segments each of one of them."""
    if segment is None:
        return
    if segment == own_id(network):
        return
    found = decision.rely(decision.cloud.of(Segment), segment)
    if found is None:
        raise NotFound("segment", segment)
    if found.network_id != network:
        raise _bad(f"Segment {segment} is not of network {network}")


def _add_to_ports(decision: Decision, subnet: Subnet) -> None:
    """Give every workload's port of the network its address of a new stateless subnet."""
    cloud = decision.cloud
    decision.quiet(f"mac/{subnet.network_id}/")
    for id in list(cloud.ports.ids("network_id", subnet.network_id)):
        port: Port | None = decision.get(cloud.ports, id)
        if port is None or port.device_owner.startswith("network:"):
            continue
        ip = by_mac(subnet.cidr, port.mac_address)
        decision.claim(f"address/{subnet.id}/{ip}", id)
        decision.put(cloud.ports, changed(port, {"fixed_ips": (*port.fixed_ips, FixedIp(subnet.id, ip))}))


def _subnets(decision: Decision, network: str) -> list[Subnet]:
    """Return the subnets of a network, those that this decision makes included."""
    return decision.by(decision.cloud.subnets, "network_id", network)


def _check_modes(prefix: Prefix, given: Given) -> None:
    ra, address = given["ipv6_ra_mode"], given["ipv6_address_mode"]
    if not ra and not address:
        return
    if prefix.version == 4:
        raise _invalid("ipv6_ra_mode and ipv6_address_mode are not valid when ip_version is 4")
    if not given["enable_dhcp"]:
        raise _invalid("ipv6_ra_mode or ipv6_address_mode cannot be set when enable_dhcp is set to False")
    if ra and address and ra != address:
        raise _invalid(
            f"ipv6_ra_mode set to '{ra}' with ipv6_address_mode set to '{address}' is not valid; should be alike"
        )
    if (ra in (SLAAC, STATELESS) or address in (SLAAC, STATELESS)) and prefix.prefixlen != 64:
        raise _invalid(f"cidr '{prefix}' should be a /64 for the IPv6 address mode '{address or ra}'")


def _check_gateway(prefix: Prefix, gateway: str | None) -> None:
    if gateway is None:
        return
    address = ipaddress.ip_address(gateway)
    if address.version != prefix.version:
        raise _invalid(f"gateway_ip '{gateway}' does not match the ip_version '{prefix.version}'")
    edges = (
        prefix.version == 4 and prefix.prefixlen < 31 and address in (prefix.network_address, prefix.broadcast_address)
    )
    if edges:
        raise _invalid(f"gateway_ip '{gateway}' is not valid on subnet {prefix}: no host can have it")


def _check_pools(prefix: Prefix, pools: Iterable[Pool]) -> None:
    ranges = []
    for pool in pools:
        start, end = ipaddress.ip_address(pool.start), ipaddress.ip_address(pool.end)
        if start.version != prefix.version or end.version != prefix.version:
            raise Invalid(
                f"The allocation pool {pool.start}-{pool.end} does not match the ip_version of {prefix}.",
                type="InvalidAllocationPool",
            )
        if int(start) > int(end):
            raise Invalid(
                f"The allocation pool {pool.start}-{pool.end} is not valid: it ends before it starts.",
                type="InvalidAllocationPool",
            )
        usable = default_pools(str(prefix), None)[0]
        if int(start) < number(usable.start) or int(end) > number(usable.end):
            raise Invalid(
                f"The allocation pool {pool.start}-{pool.end} spans beyond the subnet cidr {prefix}.",
                type="OutOfBoundsAllocationPool",
            )
        ranges.append((int(start), int(end), pool))
    ranges.sort(key=lambda r: r[0])
    for (_, last, one), (first, _, other) in itertools.pairwise(ranges):
        if first <= last:
            raise Conflict(
                f"Found overlapping allocation pools: {one.start}-{one.end} {other.start}-{other.end} for {prefix}.",
                type="OverlappingAllocationPools",
            )


def _check_gateway_outside(gateway: str | None, pools: Iterable[Pool]) -> None:
    if gateway is None:
        return
    for pool in pools:
        if number(pool.start) <= number(gateway) <= number(pool.end):
            raise Conflict(
                f"Gateway ip {gateway} conflicts with allocation pool {pool.start}-{pool.end}.",
                type="GatewayConflictWithAllocationPools",
            )


def _check_routes(prefix: Prefix, routes: Iterable[Route]) -> None:
    for route in routes:
        if not network_of(route.destination).version == ipaddress.ip_address(route.nexthop).version == prefix.version:
            raise _invalid(
                f"host route {route.destination} via {route.nexthop} does not match the ip_version of {prefix}"
            )


def _check_servers(prefix: Prefix, servers: Iterable[str]) -> None:
    for server in servers:
        if ipaddress.ip_address(server).version != prefix.version:
            raise _invalid(f"dns_nameserver '{server}' does not match the ip_version of {prefix}")


def _bad(reason: str) -> Invalid:
    return Invalid(f"Bad subnets request: {reason}.", type="BadRequest")


def _invalid(reason: str) -> Invalid:
    return Invalid(f"Invalid input for operation: {reason}.", type="InvalidInput")


def _external(cloud: Cloud, subnet: Subnet) -> bool:
    network = cloud.networks.get(subnet.network_id)
    return network is not None and network.external


def _by_external(cloud: Cloud, caller: Caller, values: list[str]) -> Callable[[Subnet], bool]:
    wanted = {boolean(value) for value in values}
    return lambda subnet: _external(cloud, subnet) in wanted


def _by_shared(cloud: Cloud, caller: Caller, values: list[str]) -> Callable[[Subnet], bool]:
    """Keep subnets of networks that are shared with the caller, or that are not; no subnet tells it itself."""
    wanted = {boolean(value) for value in values}

    def test(subnet: Subnet) -> bool:
        network = cloud.networks.get(subnet.network_id)
        return (network is not None and shared(cloud, caller.project, network)) in wanted

    return test


SUBNETS = Collection(
    kind=SUBNET,
    create=create,
    update=update,
    delete=delete,
    derived={"router:external": _external},
    stale_in={"network": lambda cloud, network: cloud.subnets.ids("network_id", network.id)},
    filters={"router:external": _by_external, "shared": _by_shared},
    aliases={
        "subnet-dns-publish-fixed-ip": "Subnet DNS publish fixed IP",
        "subnet-external-network": "Subnet belongs to an external network",
        "subnet-service-types": "Subnet service types",
        "subnet-segmentid-writable": "Subnet SegmentID (writable)",
    },
)
