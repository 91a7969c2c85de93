"""Count the addresses of networks, and those that are taken."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from crossway.control.address import number
from crossway.control.caller import Caller, sees
from crossway.control.cloud import Cloud
from crossway.control.collection import Collection
from crossway.errors import Invalid
from crossway.model.check import integer
from crossway.model.network import Network
from crossway.model.network_ip_availability import NETWORK_IP_AVAILABILITY, Availability
from crossway.model.subnet import Subnet


def rows(cloud: Cloud, caller: Caller) -> Iterator[Availability]:
    """Return all networks that the caller may see, counted one by one as they are asked for."""
    return (_count(cloud, n, lambda subnet: True) for n in cloud.networks.rows.values() if sees(cloud, caller, n))


def _count(cloud: Cloud, network: Network, wanted: Callable[[Subnet], bool]) -> Availability:
    counted = [_subnet(cloud, subnet) for subnet in cloud.subnets.by("network_id", network.id) if wanted(subnet)]
    details: dict[str, int] = dict.fromkeys(
        ("total_ips_in_subnet", "total_ips_in_allocation_pool", "used_ips_in_subnet", "used_ips_in_allocation_pool"), 0
    )
    for one in counted:
        for name, count in one["ip_availability_details"].items():
            details[name] += count
    return Availability(
        id=network.id,
        project_id=network.project_id,
        network_id=network.id,
        network_name=network.name,
        total_ips=sum(one["total_ips"] for one in counted),
        used_ips=sum(one["used_ips"] for one in counted),
        subnet_ip_availability=tuple(counted),
        ip_availability_details=details,
    )


def _subnet(cloud: Cloud, subnet: Subnet) -> dict[str, Any]:
    space = cloud.addresses.spaces.get(subnet.id)
    taken = space.taken if space else {}
    pools = [(number(pool.start), number(pool.end)) for pool in subnet.allocation_pools]
    pooled = sum(last - first + 1 for first, last in pools)
    size = 1 << ((32 if subnet.ip_version == 4 else 128) - int(subnet.cidr.rpartition("/")[2]))
    return {
        "subnet_id": subnet.id,
        "subnet_name": subnet.name,
        "cidr": subnet.cidr,
        "ip_version": subnet.ip_version,
        "total_ips": pooled or size,
        "used_ips": len(taken),
        "ip_availability_details": {
            # An IPv4 prefix has an address for the network and one for all.
            "total_ips_in_subnet": size - 2 if subnet.ip_version == 4 else size,
            "total_ips_in_allocation_pool": pooled,
            "used_ips_in_subnet": len(taken),
            "used_ips_in_allocation_pool": space.pooled if space else 0,
        },
    }


def _by_version(cloud: Cloud, caller: Caller, values: list[str]) -> Callable[[Availability], bool]:
    """Keep networks that have subnets of an IP version."""
    try:
        versions = {integer(4, 6)(value) for value in values}
    except ValueError as error:
        raise Invalid(f"Invalid input for ip_version. Reason: {error}.") from None
    return lambda row: any(subnet["ip_version"] in versions for subnet in row.subnet_ip_availability)


NETWORK_IP_AVAILABILITIES = Collection(
    kind=NETWORK_IP_AVAILABILITY,
    path="network-ip-availabilities",
    rows=rows,
    filters={"ip_version": _by_version},
    aliases={
        "network-ip-availability": "Network IP Availability",
        "network-ip-availability-details": "Network IP Availability Details Extension",
    },
)
