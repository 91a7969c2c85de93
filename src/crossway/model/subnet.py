"""A subnet: a prefix of a network and which of its addresses are handed out."""

from __future__ import annotations

from typing import Annotated

import msgspec

from crossway.model.check import boolean, cidr, integer, ip, list_of, mapping, one_of, or_none, text, uuid
from crossway.model.resource import Kind, Resource, attribute
from crossway.model.who import MEMBER, PARENT_MEMBER, PARENT_READER, READER, SHARED

SLAAC, STATEFUL, STATELESS = "slaac", "dhcpv6-stateful", "dhcpv6-stateless"
MODES = one_of(SLAAC, STATEFUL, STATELESS, None)


class Pool(msgspec.Struct, frozen=True, gc=False):
    """Addresses that may be handed out, both ends included."""

    start: str
    end: str


class Route(msgspec.Struct, frozen=True, gc=False):
    destination: str
    nexthop: str


def pool(value: object) -> Pool:
    return Pool(**mapping({"start": ip, "end": ip})(value))


def route(value: object) -> Route:
    return Route(**mapping({"destination": cidr, "nexthop": ip})(value))


class Subnet(Resource, frozen=True, kw_only=True, gc=False):
    network_id: Annotated[str, attribute(uuid, put=False, default=msgspec.NODEFAULT)]
    ip_version: Annotated[int, attribute(integer(4, 6), put=False, default=msgspec.NODEFAULT)]
    cidr: Annotated[str, attribute(cidr, put=False, default=msgspec.NODEFAULT)]
    gateway_ip: Annotated[str | None, attribute(or_none(ip))]
    allocation_pools: Annotated[tuple[Pool, ...], attribute(list_of(pool), filter=False, sort=False)]
    dns_nameservers: Annotated[tuple[str, ...], attribute(list_of(ip), default=(), filter=False, sort=False)] = ()
    host_routes: Annotated[tuple[Route, ...], attribute(list_of(route), default=(), filter=False, sort=False)] = ()
    enable_dhcp: Annotated[bool, attribute(boolean, default=True)] = True
    ipv6_ra_mode: Annotated[str | None, attribute(MODES, put=False, default=None)] = None
    ipv6_address_mode: Annotated[str | None, attribute(MODES, put=False, default=None)] = None
    subnetpool_id: Annotated[str | None, attribute(one_of(None), put=False, default=None)] = None
    segment_id: Annotated[str | None, attribute(one_of(None), default=None)] = None
    service_types: Annotated[tuple[str, ...], attribute(list_of(text(255)), default=(), filter=False, sort=False)] = ()

    @property
    def by_mac(self) -> bool:
        """Say whether addresses follow from the MAC (EUI-64) and every port has one."""
        return self.ipv6_address_mode in (SLAAC, STATELESS)


SUBNET = Kind(
    Subnet,
    "subnet",
    "subnets",
    create=PARENT_MEMBER,
    get=READER | PARENT_READER | SHARED,
    update=MEMBER | PARENT_MEMBER,
    delete=MEMBER | PARENT_MEMBER,
    parent=("network_id", "network"),
    indexes=("project_id", "network_id"),
)
