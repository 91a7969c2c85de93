"""A network: one broadcast domain."""

from __future__ import annotations

from typing import Annotated

from crossway.model.check import boolean, integer, one_of, or_none, text
from crossway.model.resource import Kind, Resource, attribute, told

FLAT, VLAN, VXLAN = "flat", "vlan", "vxlan"
VNI_MAX = (1 << 24) - 1
VLAN_MAX = 4094


class Network(
    Resource,
    frozen=True,
    kw_only=True,
    gc=False,
    rename={
        "external": "router:external",
        "type": "provider:network_type",
        "physnet": "provider:physical_network",
        "segment": "provider:segmentation_id",
    },
):
    """*number* is its VNI, whatever its type."""

    number: int
    admin_state_up: Annotated[bool, attribute(boolean, default=True)] = True
    status: Annotated[str, told()] = "ACTIVE"
    shared: Annotated[bool, attribute(boolean, default=False, admin="write")] = False
    external: Annotated[bool, attribute(boolean, default=False, admin="write")] = False
    is_default: Annotated[bool, attribute(boolean, default=False, admin="write")] = False
    mtu: Annotated[int, attribute(integer(0, 65535), default=0)] = 0
    port_security_enabled: Annotated[bool, attribute(boolean, default=True)] = True
    type: Annotated[str, attribute(one_of(FLAT, VLAN, VXLAN), put=False, admin="all")] = VXLAN
    physnet: Annotated[str | None, attribute(or_none(text(64)), put=False, admin="all")] = None
    segment: Annotated[int | None, attribute(or_none(integer(1, VNI_MAX)), put=False, admin="all")] = None


NETWORK = Kind(Network, "network", "networks")
