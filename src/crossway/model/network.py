"""A network: one broadcast domain."""

from __future__ import annotations

from typing import Annotated

from crossway.model.check import boolean, domain, integer, list_of, one_of, or_none, text, uuid
from crossway.model.resource import Kind, Resource, attribute, told
from crossway.model.who import ADMIN, READER, SERVICE, SHARED

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
    shared: Annotated[bool, attribute(boolean, default=False, set_by=ADMIN)] = False
    external: Annotated[bool, attribute(boolean, default=False, set_by=ADMIN)] = False
    is_default: Annotated[bool, attribute(boolean, default=False, set_by=ADMIN)] = False
    mtu: Annotated[int, attribute(integer(0, 65535), default=0)] = 0
    port_security_enabled: Annotated[bool, attribute(boolean, default=True)] = True
    dns_domain: Annotated[str, attribute(domain, default="")] = ""
    qos_policy_id: Annotated[str | None, attribute(or_none(uuid), default=None)] = None
    availability_zone_hints: Annotated[
        tuple[str, ...], attribute(list_of(text(255)), put=False, default=(), filter=False)
    ] = ()
    ha: Annotated[bool, attribute(boolean, put=False, default=False, shown=False, filter=False, sort=False)] = False
    type: Annotated[str, attribute(one_of(FLAT, VLAN, VXLAN), put=False, set_by=ADMIN, see=ADMIN)] = VXLAN
    physnet: Annotated[str | None, attribute(or_none(text(64)), put=False, set_by=ADMIN, see=ADMIN)] = None
    segment: Annotated[int | None, attribute(or_none(integer(1, VNI_MAX)), put=False, set_by=ADMIN, see=ADMIN)] = None


NETWORK = Kind(
    Network,
    "network",
    "networks",
    get=READER | SHARED | SERVICE,
    indexes={
        "project_id": None,
        "name": None,
        "qos_policy_id": None,
        "open": lambda network: (True,) if network.shared or network.external else (),
    },
    rbac="network",
)
