"""A network: one broadcast domain."""

from __future__ import annotations

from typing import Annotated, Any

from crossway.model.check import (
    boolean,
    domain,
    integer,
    list_of,
    mapping,
    one_of,
    or_none,
    says,
    schema_of,
    text,
    uuid,
)
from crossway.model.resource import HINTS_MAX, Kind, Resource, attribute, told
from crossway.model.who import ADMIN, HOST, HOST_OF_PROJECT, MEMBER, READER, SERVICE, SHARED

FLAT, VLAN, VXLAN = "flat", "vlan", "vxlan"
VNI_MAX = (1 << 24) - 1
# How a network is described that an engine had made.
MADE = "made by Docker"
TYPE, PHYSNET, SEGMENT = "provider:network_type", "provider:physical_network", "provider:segmentation_id"
VLAN_MAX = 4094
# What a network must carry whole by IP version: RFC 791, RFC 8200.
# Segments of one network.
SEGMENTS_MAX = 64
MTU_MIN = {4: 68, 6: 1280}


ONE = mapping({TYPE: one_of(FLAT, VLAN, VXLAN)}, {PHYSNET: or_none(text(64)), SEGMENT: or_none(integer(1, VNI_MAX))})


@says(schema_of(ONE))
def segment(value: object) -> dict[str, Any]:
    """Check one of several segments."""
    given = ONE(value)
    return {"type": given[TYPE], "physnet": given.get(PHYSNET), "segment": given.get(SEGMENT)}


class Network(
    Resource,
    frozen=True,
    kw_only=True,
    gc=False,
    rename={
        "external": "router:external",
        "type": TYPE,
        "physnet": PHYSNET,
        "segment": SEGMENT,
    },
):
    """*number* is its VNI, whatever its type. *segments* is a word of POST, told where there are several."""

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
        tuple[str, ...], attribute(list_of(text(255), HINTS_MAX), put=False, default=(), filter=False)
    ] = ()
    ha: Annotated[bool, attribute(boolean, put=False, default=False, shown=False, filter=False, sort=False)] = False
    type: Annotated[str, attribute(one_of(FLAT, VLAN, VXLAN), set_by=ADMIN, see=ADMIN)] = VXLAN
    physnet: Annotated[str | None, attribute(or_none(text(64)), set_by=ADMIN, see=ADMIN)] = None
    segment: Annotated[int | None, attribute(or_none(integer(1, VNI_MAX)), set_by=ADMIN, see=ADMIN)] = None
    segments: Annotated[
        tuple[dict[str, Any], ...],
        attribute(
            list_of(segment, SEGMENTS_MAX, unique=False), default=(), set_by=ADMIN, see=ADMIN, filter=False, sort=False
        ),
    ] = ()


NETWORK = Kind(
    Network,
    "network",
    "networks",
    create=MEMBER | HOST_OF_PROJECT,
    get=READER | SHARED | SERVICE | HOST | HOST_OF_PROJECT,
    delete=MEMBER | HOST_OF_PROJECT,
    indexes={
        "project_id": None,
        "name": None,
        "qos_policy_id": None,
        "open": lambda network: (True,) if network.shared or network.external else (),
    },
    rbac="network",
)
