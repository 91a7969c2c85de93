"""The objects of a host's view, and the documents that bring them.

The shapes are those of docs/protocols.md. Fields that this version does not
know are passed over, so that a newer server can speak to an older agent.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

U8 = Annotated[int, msgspec.Meta(ge=0, le=0xFF)]
U12 = Annotated[int, msgspec.Meta(ge=0, le=0xFFF)]
U16 = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]
U32 = Annotated[int, msgspec.Meta(ge=0, le=0xFFFFFFFF)]


class Object(msgspec.Struct, frozen=True, kw_only=True):
    """What all objects of a view have."""

    id: str


class Host(Object, frozen=True, kw_only=True):
    underlay: str


class Network(Object, frozen=True, kw_only=True):
    number: U32
    mtu: U32
    type: Literal["vxlan", "flat", "vlan"] = "vxlan"
    physnet: str | None = None
    segment: U12 | None = None
    up: bool = True
    domain: str = ""  # in which its ports' names are, besides standing alone


class Hop(msgspec.Struct, frozen=True):
    """A route: where to, and by which neighbour."""

    destination: str
    nexthop: str


class Subnet(Object, frozen=True, kw_only=True):
    network: str
    cidr: str
    gateway: str | None = None
    dns: tuple[str, ...] = ()
    routes: tuple[Hop, ...] = ()
    dhcp: bool = False
    ra: str | None = None  # how router advertisements say that addresses are had
    mode: str | None = None  # how they are had: slaac, dhcpv6-stateless, dhcpv6-stateful


class Address(msgspec.Struct, frozen=True):
    """A fixed address of a port, and the subnet that it is from."""

    ip: str
    subnet: str


class Pair(msgspec.Struct, frozen=True):
    """One more prefix and MAC that a port may send from."""

    ip: str
    mac: str | None = None


class Link(msgspec.Struct, frozen=True):
    """Where a bare-metal server is plugged in: a VLAN of a provider network's device."""

    physnet: str
    vlan: U12


class Port(Object, frozen=True, kw_only=True):
    network: str
    mac: str
    addresses: tuple[Address, ...] = ()
    identity: U32 = 0
    groups: tuple[str, ...] = ()
    pairs: tuple[Pair, ...] = ()
    secured: bool = True
    up: bool = True
    host: str | None = None
    waiting: tuple[str, ...] = ()  # hosts that it may move to any moment, or has just left
    device: str | None = None
    link: Link | None = None
    owner: str = ""
    project: str = ""
    names: tuple[str, ...] = ()
    workload: str = ""  # whose port it is, where one workload has several

    @property
    def carriers(self) -> tuple[str | None, ...]:
        """Return the hosts that must know it as their own: where it is, may go, or was."""
        return (self.host, *self.waiting)


class Prefixed(msgspec.Struct, frozen=True):
    """An address of a router and the length of its subnet's prefix."""

    ip: str
    prefix: U8


class Interface(msgspec.Struct, frozen=True):
    """A router's foot in a network."""

    port: str
    network: str
    mac: str
    addresses: tuple[Prefixed, ...] = ()


class Router(Object, frozen=True, kw_only=True):
    number: U32
    up: bool = True
    interfaces: tuple[Interface, ...] = ()
    routes: tuple[Hop, ...] = ()


class Rule(Object, frozen=True, kw_only=True):
    """One permission of a security group; `group`, `prefix` or `addresses` say whom it is about."""

    number: U32
    way: Literal["in", "out"]
    family: Literal[4, 6]
    proto: U8 | None = None
    min: U16 | None = None
    max: U16 | None = None
    group: str | None = None
    prefix: str | None = None
    addresses: str | None = None  # an address group, of those that the group tells
    group_id: str | None = None


class Group(Object, frozen=True, kw_only=True):
    stateful: bool = True
    rules: tuple[Rule, ...] = ()
    named: tuple[Rule, ...] = ()  # those about an address group
    addresses: dict[str, tuple[str, ...]] = {}  # address group -> its prefixes


class Identity(Object, frozen=True, kw_only=True):
    """A distinct set of security groups; its id is its number."""

    groups: tuple[str, ...] = ()


class Handover(Object, frozen=True, kw_only=True):
    """The connections of a port, told by the host *by*: see `agent.handover`."""

    port: str
    by: str
    flows: str


class Learned(Object, frozen=True, kw_only=True):
    """An address of a network that is nobody's fixed one, and the port that has been seen to have it, at a MAC."""

    network: str
    ip: str
    port: str
    mac: str


KINDS: dict[str, type[Object]] = {
    "host": Host,
    "network": Network,
    "subnet": Subnet,
    "port": Port,
    "router": Router,
    "group": Group,
    "rule": Rule,
    "identity": Identity,
    "handover": Handover,
    "learned": Learned,
}


def decode(kind: str, document: Any) -> Object:
    """Return an object of a kind from its JSON value; raises ValueError when it is not one."""
    try:
        return msgspec.convert(document, KINDS[kind])
    except msgspec.ValidationError as fault:
        raise ValueError(str(fault)) from fault
