"""A conntrack helper: a router watches a protocol that opens connections of its own."""

from __future__ import annotations

from typing import Annotated

import msgspec

from crossway.model.check import integer, text
from crossway.model.port_forwarding import PORT_MAX, protocol
from crossway.model.resource import Kind, Resource, attribute
from crossway.model.who import PARENT_MEMBER, PARENT_READER

# The helpers that there are, and the protocols that each knows.
HELPERS = {
    "amanda": ("tcp",),
    "ftp": ("tcp",),
    "h323": ("udp", "tcp"),
    "irc": ("tcp",),
    "netbios-ns": ("udp",),
    "pptp": ("tcp",),
    "sane": ("tcp",),
    "sip": ("udp", "tcp"),
    "snmp": ("udp",),
    "tftp": ("udp",),
}


class ConntrackHelper(Resource, frozen=True, kw_only=True, gc=False):
    router_id: str
    protocol: Annotated[str, attribute(protocol, default=msgspec.NODEFAULT)]
    port: Annotated[int, attribute(integer(1, PORT_MAX), default=msgspec.NODEFAULT)]
    helper: Annotated[str, attribute(text(64), default=msgspec.NODEFAULT)]


CONNTRACK_HELPER = Kind(
    ConntrackHelper,
    "conntrack_helper",
    "conntrack_helpers",
    create=PARENT_MEMBER,
    get=PARENT_READER,
    update=PARENT_MEMBER,
    delete=PARENT_MEMBER,
    without=("project_id", "name", "description", "created_at", "updated_at", "revision_number", "tags"),
    forgets=("project_id", "tenant_id"),
    parent=("router_id", "router"),
    indexes=("router_id",),
)
