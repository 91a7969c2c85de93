"""Tell the pools that floating IPs are taken from."""

from __future__ import annotations

from collections.abc import Iterator

from crossway.control.caller import Caller, sees
from crossway.control.cloud import Cloud
from crossway.control.collection import Collection
from crossway.model.floatingip_pool import FLOATINGIP_POOL, FloatingIpPool


def rows(cloud: Cloud, caller: Caller) -> Iterator[FloatingIpPool]:
    """Return the IPv4 subnets of the external networks that the caller sees, as its own."""
    for id in cloud.networks.ids("open", True):
        network = cloud.networks.rows[id]
        if not network.external or not sees(cloud, caller, network):
            continue
        for subnet in cloud.subnets.by("network_id", id):
            if subnet.ip_version == 4:
                yield FloatingIpPool(
                    id=subnet.id,
                    project_id=caller.project,
                    cidr=subnet.cidr,
                    network_id=id,
                    subnet_id=subnet.id,
                    subnet_name=subnet.name,
                )


FLOATINGIP_POOLS = Collection(
    kind=FLOATINGIP_POOL, rows=rows, aliases={"floatingip-pools": "Floating IP Pools Extension"}
)
