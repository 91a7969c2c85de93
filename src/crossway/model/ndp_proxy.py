"""An NDP proxy: a router answers for a port's IPv6 address on its external network."""

from __future__ import annotations

from typing import Annotated

import msgspec

from crossway.model.check import ip, or_none, uuid
from crossway.model.resource import Kind, Resource, attribute


class NdpProxy(Resource, frozen=True, kw_only=True, gc=False):
    router_id: Annotated[str, attribute(uuid, put=False, default=msgspec.NODEFAULT)]
    port_id: Annotated[str, attribute(uuid, put=False, default=msgspec.NODEFAULT)]
    ip_address: Annotated[str, attribute(or_none(ip), put=False, default=None)]


NDP_PROXY = Kind(
    NdpProxy,
    "ndp_proxy",
    "ndp_proxies",
    without=("tags",),
    indexes=("project_id", "router_id", "port_id"),
)
