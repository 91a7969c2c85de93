"""A router: it joins networks."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from crossway.model.check import boolean, list_of, mapping, uuid
from crossway.model.port import FixedIp, Wish, wish
from crossway.model.resource import Kind, Resource, attribute, told
from crossway.model.subnet import Route, route


class Gateway(msgspec.Struct, frozen=True, gc=False):
    """A router's foot in an external network."""

    network_id: str
    enable_snat: bool
    external_fixed_ips: tuple[FixedIp, ...]


class GatewayWish(msgspec.Struct, frozen=True, gc=False):
    """A gateway that was asked for."""

    network_id: str
    enable_snat: bool = True
    external_fixed_ips: tuple[Wish, ...] = ()


def gateway(value: Any) -> GatewayWish | None:
    """Check a gateway; none and an empty object alike take it away."""
    if value is None or value == {}:
        return None
    optional = {"enable_snat": boolean, "external_fixed_ips": list_of(wish)}
    return GatewayWish(**mapping({"network_id": uuid}, optional)(value))


class Router(Resource, frozen=True, kw_only=True, gc=False, rename={"gateway": "external_gateway_info"}):
    """*number* keys its routes on hosts; *gateway_port* is its port on the external network."""

    number: int
    gateway_port: str | None = None
    admin_state_up: Annotated[bool, attribute(boolean, default=True)] = True
    status: Annotated[str, told()] = "ACTIVE"
    gateway: Annotated[Gateway | None, attribute(gateway, default=None, filter=False, sort=False)] = None
    routes: Annotated[tuple[Route, ...], attribute(list_of(route), post=False, filter=False, sort=False)] = ()


ROUTER = Kind(Router, "router", "routers")
