"""A subnet: a prefix of a network and which of its addresses are handed out."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

from crossway.model.check import (
    boolean,
    cidr,
    integer,
    ip,
    ip_version,
    list_of,
    mapping,
    network_cidr,
    one_of,
    or_none,
    says,
    schema_of,
    text,
    uuid,
)
from crossway.model.resource import Kind, Resource, attribute
from crossway.model.who import (
    ADMIN,
    HOST,
    HOST_OF_PROJECT,
    MEMBER,
    PARENT_MEMBER,
    PARENT_READER,
    READER,
    SERVICE,
    SHARED,
)

SLAAC, STATEFUL, STATELESS = "slaac", "dhcpv6-stateful", "dhcpv6-stateless"
MODES = one_of(SLAAC, STATEFUL, STATELESS, None)
# A device owner for which a subnet may be kept: network:dhcp, compute:nova, or what else an installation calls its own.
OWNER = re.compile(r"[^\s:]+:\S*")
# What stands for a pool where prefixes would be delegated.
DELEGATED = "prefix_delegation"
# What a subnet may have at most: name servers and routes as many as Neutron takes, which fit into an answer of DHCP.
DNS_MAX, ROUTES_MAX = 5, 20
POOLS_MAX, SERVICES_MAX = 256, 64


class Pool(msgspec.Struct, frozen=True, gc=False):
    """Addresses that may be handed out, both ends included."""

    start: str
    end: str


class Route(msgspec.Struct, frozen=True, gc=False):
    destination: str
    nexthop: str


POOL, ROUTE = mapping({"start": ip, "end": ip}), mapping({"destination": network_cidr, "nexthop": ip})


@says(schema_of(POOL))
def pool(value: object) -> Pool:
    return Pool(**POOL(value))


@says(schema_of(ROUTE))
def route(value: object) -> Route:
    return Route(**ROUTE(value))


@says(schema_of(text(255)) | {"pattern": f"^{OWNER.pattern}$"})
def service(value: object) -> str:
    """Return a device owner that a subnet's addresses may be kept for."""
    owner: str = text(255)(value)
    if not OWNER.fullmatch(owner):
        raise ValueError(f"'{owner}' is not a valid service type; should be a device owner: KIND:NAME, or KIND: alone")
    return owner


@says({"anyOf": [schema_of(uuid), {"const": DELEGATED}, {"type": "null"}]})
def pool_named(value: object) -> str | None:
    if value is None or value == DELEGATED:
        return value
    return uuid(value)


class Subnet(Resource, frozen=True, kw_only=True, gc=False):
    network_id: Annotated[str, attribute(uuid, put=False, default=msgspec.NODEFAULT)]
    ip_version: Annotated[int, attribute(ip_version, put=False, default=msgspec.NODEFAULT)]
    cidr: Annotated[str, attribute(or_none(cidr), put=False)]
    gateway_ip: Annotated[str | None, attribute(or_none(ip))]
    allocation_pools: Annotated[
        tuple[Pool, ...], attribute(list_of(pool, POOLS_MAX, unique=False), filter=False, sort=False)
    ]
    dns_nameservers: Annotated[
        tuple[str, ...],
        attribute(list_of(ip, DNS_MAX, type="DNSNameServersExhausted"), default=(), filter=False, sort=False),
    ] = ()
    host_routes: Annotated[
        tuple[Route, ...],
        attribute(list_of(route, ROUTES_MAX, type="HostRoutesExhausted"), default=(), filter=False, sort=False),
    ] = ()
    enable_dhcp: Annotated[bool, attribute(boolean, default=True)] = True
    ipv6_ra_mode: Annotated[str | None, attribute(MODES, put=False, default=None)] = None
    ipv6_address_mode: Annotated[str | None, attribute(MODES, put=False, default=None)] = None
    subnetpool_id: Annotated[str | None, attribute(pool_named, put=False)] = None
    segment_id: Annotated[str | None, attribute(or_none(uuid), default=None, set_by=ADMIN, see=ADMIN)] = None
    service_types: Annotated[
        tuple[str, ...], attribute(list_of(service, SERVICES_MAX), default=(), filter=False, sort=False)
    ] = ()
    dns_publish_fixed_ip: Annotated[bool, attribute(boolean, default=False, filter=False, sort=False)] = False
    # Words of the request: how long a prefix is to be cut of a pool, and of which.
    prefixlen: Annotated[int, attribute(integer(0, 128), put=False, filter=False, sort=False, shown=False)] = 0
    use_default_subnetpool: Annotated[
        bool, attribute(boolean, put=False, default=False, filter=False, sort=False, shown=False)
    ] = False

    @property
    def by_mac(self) -> bool:
        """Say whether addresses follow from the MAC (EUI-64) and every port has one."""
        return self.ipv6_address_mode in (SLAAC, STATELESS)


SUBNET = Kind(
    Subnet,
    "subnet",
    "subnets",
    create=PARENT_MEMBER | HOST_OF_PROJECT,
    get=READER | PARENT_READER | SHARED | SERVICE | HOST | HOST_OF_PROJECT,
    update=MEMBER | PARENT_MEMBER,
    delete=MEMBER | PARENT_MEMBER | HOST_OF_PROJECT,
    parent=("network_id", "network"),
    indexes=("project_id", "network_id", "subnetpool_id"),
)
