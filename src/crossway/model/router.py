"""A router: it joins networks."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from crossway.model.check import boolean, list_of, mapping, or_none, says, schema_of, text, uuid
from crossway.model.port import FixedIp, Wish, wishes
from crossway.model.resource import HINTS_MAX, Kind, Resource, attribute, told
from crossway.model.subnet import Route, route
from crossway.model.who import ADMIN

# So many next hops may one destination have; packets of a pair of addresses go by one of them.
NEXT_HOPS_MAX = 16
# Who may say what of a gateway, by any way of saying it.
GATEWAY_PARTS = {"enable_snat": ADMIN, "external_fixed_ips": ADMIN}


class Gateway(msgspec.Struct, frozen=True, gc=False):
    """A router's foot in an external network."""

    network_id: str
    enable_snat: bool
    external_fixed_ips: tuple[FixedIp, ...]
    qos_policy_id: str | None = None


class More(msgspec.Struct, frozen=True, gc=False):
    """Another foot in an external network, and the port that it is."""

    port: str
    network_id: str
    external_fixed_ips: tuple[FixedIp, ...]


class GatewayWish(msgspec.Struct, frozen=True, gc=False):
    """A gateway that was asked for; *qos_policy_id* is UNSET where nothing was said of it."""

    network_id: str
    enable_snat: bool = True
    external_fixed_ips: tuple[Wish, ...] = ()
    qos_policy_id: str | msgspec.UnsetType | None = msgspec.UNSET


# What a router may have at most, whatever the quota says: each route is looked at with each of its subnets.
ROUTES_MAX, GATEWAYS_MAX = 1024, 64


OPTIONAL = {"enable_snat": boolean, "external_fixed_ips": wishes, "qos_policy_id": or_none(uuid)}


GATEWAY = mapping({"network_id": uuid}, OPTIONAL)


@says({"anyOf": [schema_of(GATEWAY), {"type": "object", "maxProperties": 0}, {"type": "null"}]})
def gateway(value: Any) -> GatewayWish | None:
    """Check a gateway; none and an empty object alike take it away."""
    if value is None or value == {}:
        return None
    return GatewayWish(**GATEWAY(value))


flag = attribute(or_none(boolean), default=False, set_by=ADMIN, see=ADMIN, filter_check=boolean)


class Router(Resource, frozen=True, kw_only=True, gc=False, rename={"gateway": "external_gateway_info"}):
    """*number* keys its routes on hosts; *gateway_port* is its port on the external network.

    *more* are its gateways after the first.
    """

    number: int
    gateway_port: str | None = None
    more: tuple[More, ...] = ()
    admin_state_up: Annotated[bool, attribute(boolean, default=True)] = True
    status: Annotated[str, told()] = "ACTIVE"
    gateway: Annotated[
        Gateway | None,
        attribute(
            gateway,
            default=None,
            filter=False,
            sort=False,
            parts=GATEWAY_PARTS,
        ),
    ] = None
    routes: Annotated[
        tuple[Route, ...], attribute(list_of(route, ROUTES_MAX), post=False, filter=False, sort=False)
    ] = ()
    distributed: Annotated[bool, flag] = False
    ha: Annotated[bool, flag] = False
    flavor_id: Annotated[str | None, attribute(or_none(uuid), put=False, default=None)] = None
    enable_ndp_proxy: Annotated[bool, attribute(or_none(boolean), filter_check=boolean)] = False
    enable_default_route_ecmp: Annotated[bool, attribute(boolean, default=False, set_by=ADMIN)] = False
    enable_default_route_bfd: Annotated[bool, attribute(boolean, default=False, set_by=ADMIN)] = False
    availability_zone_hints: Annotated[
        tuple[str, ...], attribute(list_of(text(255), HINTS_MAX), put=False, default=(), filter=False, sort=False)
    ] = ()

    @property
    def qos_policy_id(self) -> str | None:
        return self.gateway.qos_policy_id if self.gateway else None

    @property
    def gateway_networks(self) -> tuple[str, ...]:
        """Return the external networks that it has a gateway to."""
        first = (self.gateway.network_id,) if self.gateway else ()
        return (*first, *(more.network_id for more in self.more))

    @property
    def gateway_ports(self) -> tuple[str, ...]:
        first = (self.gateway_port,) if self.gateway_port else ()
        return (*first, *(more.port for more in self.more))


ROUTER = Kind(
    Router,
    "router",
    "routers",
    indexes={
        "project_id": None,
        "name": None,
        "flavor_id": None,
        "qos_policy_id": lambda router: (router.qos_policy_id,) if router.qos_policy_id else (),
    },
)
