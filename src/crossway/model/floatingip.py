"""A floating IP: an address of an external network that stands for a port's own."""

from __future__ import annotations

from typing import Annotated

import msgspec

from crossway.model.check import domain, ip, or_none, uuid
from crossway.model.resource import Kind, Resource, attribute, told
from crossway.model.who import MANAGER

FLOATING_IP = "network:floatingip"
# What a port says whose state nobody tells.
NOT_APPLICABLE = "N/A"
DOWN = "DOWN"


class FloatingIp(Resource, frozen=True, kw_only=True, gc=False):
    """*port* is its own on the external network; *port_id* the one that it stands for."""

    port: str
    floating_network_id: Annotated[str, attribute(uuid, put=False, default=msgspec.NODEFAULT)]
    floating_ip_address: Annotated[str, attribute(or_none(ip), put=False, default=None, create=MANAGER)]
    subnet_id: Annotated[
        str | None, attribute(or_none(uuid), put=False, default=None, shown=False, filter=False, sort=False)
    ] = None
    port_id: Annotated[str | None, attribute(or_none(uuid), default=None)] = None
    fixed_ip_address: Annotated[str | None, attribute(or_none(ip), default=None)] = None
    router_id: Annotated[str | None, attribute(or_none(uuid), default=None)] = None
    qos_policy_id: Annotated[str | None, attribute(or_none(uuid), default=None)] = None
    dns_name: Annotated[str, attribute(domain, put=False, default="")] = ""
    dns_domain: Annotated[str, attribute(domain, put=False, default="")] = ""
    status: Annotated[str, told()] = DOWN


FLOATINGIP = Kind(
    FloatingIp,
    "floatingip",
    "floatingips",
    without=("name",),
    indexes=(
        "project_id",
        "floating_network_id",
        "floating_ip_address",
        "port_id",
        "router_id",
        "qos_policy_id",
    ),
)
