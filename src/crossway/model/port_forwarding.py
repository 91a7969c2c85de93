"""A port forwarding: a port of a floating IP, or several, that stand for ports of an address inside."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from crossway.model.check import brief, integer, ip, or_none, says, text, uuid
from crossway.model.resource import Kind, Resource, attribute
from crossway.model.who import PARENT_MEMBER, PARENT_READER

PORT_MAX = 65535
PROTOCOLS = ("dccp", "icmp", "ipv6-icmp", "sctp", "tcp", "udp")


@says({"enum": list(PROTOCOLS)})
def protocol(value: Any) -> str:
    """Return a protocol's name in lower case."""
    named = value.lower() if isinstance(value, str) else value
    if named not in PROTOCOLS:
        raise ValueError(f"{brief(value)} is not in {list(PROTOCOLS)}")
    return str(named)


@says(
    {
        "anyOf": [
            {"type": "string", "pattern": "^[0-9]{1,5}(:[0-9]{1,5})?$"},
            {"type": "integer", "minimum": 1, "maximum": PORT_MAX},
        ]
    }
)
def port_range(value: Any) -> str:
    """Return ports FIRST:LAST, both ends included; a lone port is a range of one."""
    parts = str(value).split(":")
    if isinstance(value, bool) or len(parts) > 2:
        raise ValueError(f"{brief(value)} is not a range of ports; should be FIRST:LAST")
    check = integer(1, PORT_MAX)
    first, last = check(parts[0]), check(parts[-1])
    if first > last:
        raise ValueError(f"the first port of {brief(value)} is greater than the last")
    return f"{first}:{last}"


port = attribute(or_none(integer(1, PORT_MAX)), default=None, filter_check=integer(1, PORT_MAX))


class PortForwarding(Resource, frozen=True, kw_only=True, gc=False):
    """Ranges are whole always; a single port is told also as such."""

    floatingip_id: str
    protocol: Annotated[str, attribute(protocol, default=msgspec.NODEFAULT)]
    internal_port_id: Annotated[str, attribute(uuid, default=msgspec.NODEFAULT)]
    internal_ip_address: Annotated[str, attribute(ip, default=None)]
    internal_port: Annotated[int | None, port] = None
    internal_port_range: Annotated[str, attribute(or_none(port_range), default=None)] = ""
    external_port: Annotated[int | None, port] = None
    external_port_range: Annotated[str, attribute(or_none(port_range), default=None)] = ""
    description: Annotated[str, attribute(text(1024), default="", sort=False)] = ""


PORT_FORWARDING = Kind(
    PortForwarding,
    "port_forwarding",
    "port_forwardings",
    create=PARENT_MEMBER,
    get=PARENT_READER,
    update=PARENT_MEMBER,
    delete=PARENT_MEMBER,
    without=("project_id", "name", "created_at", "updated_at", "revision_number", "tags"),
    forgets=("project_id", "tenant_id"),
    parent=("floatingip_id", "floatingip"),
    indexes=("floatingip_id", "internal_port_id"),
)
