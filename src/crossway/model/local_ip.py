"""A local IP: one address behind which each host finds a port of its own."""

from __future__ import annotations

from typing import Annotated

import msgspec

from crossway.model.check import ip, one_of, or_none, uuid
from crossway.model.resource import Kind, Resource, attribute, told
from crossway.model.who import PARENT_MEMBER, PARENT_READER

LOCAL_IP_OWNER = "network:local_ip"
TRANSLATE, PASSTHROUGH = "translate", "passthrough"


class LocalIp(Resource, frozen=True, kw_only=True, gc=False):
    local_port_id: Annotated[str, attribute(uuid, put=False)]
    network_id: Annotated[str, attribute(uuid, put=False)]
    local_ip_address: Annotated[str, attribute(or_none(ip), put=False)]
    ip_mode: Annotated[str, attribute(one_of(TRANSLATE, PASSTHROUGH), put=False, default=TRANSLATE)] = TRANSLATE


LOCAL_IP = Kind(
    LocalIp,
    "local_ip",
    "local_ips",
    without=("tags",),
    indexes=("project_id", "network_id", "local_port_id"),
)


class PortAssociation(Resource, frozen=True, kw_only=True, gc=False):
    """*id* is LOCAL_IP.PORT."""

    local_ip_id: Annotated[str, told()]
    local_ip_address: Annotated[str, told()]
    fixed_port_id: Annotated[str, attribute(uuid, put=False, default=msgspec.NODEFAULT)]
    fixed_ip: Annotated[str, attribute(or_none(ip), put=False, default=None)]


PORT_ASSOCIATION = Kind(
    PortAssociation,
    "port_association",
    "port_associations",
    create=PARENT_MEMBER,
    get=PARENT_READER,
    delete=PARENT_MEMBER,
    without=("id", "project_id", "name", "description", "created_at", "updated_at", "revision_number", "tags"),
    forgets=("project_id", "tenant_id"),
    parent=("local_ip_id", "local_ip"),
    indexes=("local_ip_id", "fixed_port_id"),
)
