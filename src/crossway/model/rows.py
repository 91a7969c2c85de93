"""Rows of the kernel's tables: what `plan` makes and `kernel` packs.

Field names are those of `bpf/include/types.h` without its padding; the kernel
layer compares them with the BTF of the object that it loads and refuses a
difference, so the two cannot drift apart. IP addresses are 16 bytes in network
order, IPv4 as ::ffff:a.b.c.d; MAC addresses 6 bytes; ports plain integers.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, NamedTuple

NO_IP = bytes(16)
MAPPED = bytes(10) + b"\xff\xff"


def pack_ip(text: str | IPv4Address | IPv6Address) -> bytes:
    """Return an address as 16 bytes, IPv4 mapped into ::ffff:0:0/96 (RFC 4291 2.5.5.2)."""
    ip = ip_address(text) if isinstance(text, str) else text
    return MAPPED + ip.packed if ip.version == 4 else ip.packed


def unpack_ip(raw: bytes) -> str:
    """Return the text of 16 bytes made by `pack_ip`."""
    return str(IPv4Address(raw[12:]) if raw[:12] == MAPPED else IPv6Address(raw))


def pack_mac(text: str) -> bytes:
    """Return aa:bb:cc:dd:ee:ff as 6 bytes."""
    return bytes.fromhex(text.replace(":", ""))


class Body(IntEnum):
    VETH = 1
    TAP = 2
    VLAN = 3


class PortFlag(IntFlag):
    SECURED = 1
    DHCP = 2
    ADVERTISED = 4
    PUBLISHED = 8
    NAMES = 16
    LIMITED = 32
    LEARNED = 64
    MOVED = 128


class PlaceKind(IntEnum):
    LOCAL = 1
    REMOTE = 2
    ROUTER = 3
    UPLINK = 4


class NetworkFlag(IntFlag):
    FLOOD_UNKNOWN = 1
    PROVIDER = 2


class RouteKind(IntEnum):
    CONNECTED = 1
    VIA = 2
    SELF = 3
    BLACKHOLE = 4


class Way(IntEnum):
    IN = 0
    OUT = 1


class Family(IntEnum):
    IPV4 = 0
    IPV6 = 1


class PortSetNumber(IntEnum):
    ANYONE = 0
    ANYONE_STATELESS = 1


PORT_SETS = 512  # that can be numbered


@lru_cache(4096)
def pack_bits(bits: int) -> bytes:
    """Return a set of numbers of port sets, bit n standing for n, as tables hold it."""
    return bits.to_bytes(PORT_SETS // 8, "little")


def unpack_bits(raw: bytes) -> int:
    """Return what was packed by `pack_bits`."""
    return int.from_bytes(raw, "little")


class FlowFlag(IntFlag):
    OUT = 1
    REPLIED = 2
    FIN_LOCAL = 4
    FIN_REMOTE = 8
    RST = 16
    REVOKED = 32
    PUBLISHED = 64
    SEQUENCED = 128


class ShareOf(IntEnum):
    FLOWS = 1
    TRANSLATIONS = 2
    FRAGMENTS = 3
    EARLY = 4


class PortKey(NamedTuple):
    ifindex: int
    vlan: int = 0


class Port(NamedTuple):
    network: int
    identity: int
    mac: bytes
    body: int
    flags: int
    mtu: int
    ip: tuple[bytes, bytes]


class Asked(NamedTuple):
    """A frame that a port sent and the agent is to answer: the first *length* bytes of *frame*."""

    port: PortKey
    length: int
    frame: bytes


class SightingKind(IntEnum):
    HELD = 1
    SOUGHT = 2
    ANSWERED = 3
    WISHED = 4


class Sighting(NamedTuple):
    """An address that a port says it has or wishes to have, or that a router looks for."""

    port: PortKey
    network: int
    ip: bytes
    mac: bytes
    kind: int


class SourceKey(NamedTuple):
    prefixlen: int
    port: PortKey
    mac: bytes
    ip: bytes


class Place(NamedTuple):
    kind: int
    body: int = 0
    flags: int = 0
    identity: int = 0
    router: int = 0
    port: PortKey = PortKey(0)
    underlay: bytes = NO_IP


class Network(NamedTuple):
    mtu: int
    members: int
    flags: int = 0
    uplink: int = 0
    uplink_vlan: int = 0


class MemberKey(NamedTuple):
    network: int
    slot: int


class MacKey(NamedTuple):
    network: int
    mac: bytes


class EndpointKey(NamedTuple):
    network: int
    ip: bytes


class Endpoint(NamedTuple):
    place: Place
    mac: bytes


class RouteKey(NamedTuple):
    prefixlen: int
    router: int
    dst: bytes


class Route(NamedTuple):
    kind: int
    network: int = 0
    via: bytes = NO_IP
    others: int = 0


class NextHopKey(NamedTuple):
    prefixlen: int
    router: int
    number: int
    dst: bytes


class InterfaceKey(NamedTuple):
    network: int
    router: int


class Interface(NamedTuple):
    mac: bytes
    ip: tuple[bytes, bytes]


class Host(NamedTuple):
    known: int


class UplinkKey(NamedTuple):
    ifindex: int
    vlan: int = 0


class PublishedKey(NamedTuple):
    ip: bytes
    port: int
    proto: int


class Published(NamedTuple):
    place: Place
    ip: bytes
    gateway: bytes
    port: int
    mac: bytes


class GatewayKey(NamedTuple):
    port: PortKey
    ip: bytes


class PortSetKey(NamedTuple):
    prefixlen: int
    identity: int
    way: int
    family: int
    proto: int
    port: int


class PortSet(NamedTuple):
    """Bit n of each stands for the port set of number n; packed by `pack_bits`."""

    all: bytes
    stateful: bytes


class PolicyKey(NamedTuple):
    identity: int
    remote: int
    way: int
    family: int


class Policy(NamedTuple):
    allowed: bytes


class PrefixKey(NamedTuple):
    prefixlen: int
    identity: int
    way: int
    family: int
    ip: bytes


class Prefix(NamedTuple):
    allowed: bytes


class RateKey(NamedTuple):
    port: PortKey
    way: int


class Rate(NamedTuple):
    bits: int
    burst: int


class FlowKey(NamedTuple):
    port: PortKey
    local: bytes
    remote: bytes
    local_port: int
    remote_port: int
    proto: int


class Flow(NamedTuple):
    seen: int
    generation: int
    identity: int
    remote_identity: int
    flags: int


class Translation(NamedTuple):
    seen: int
    client: bytes
    host: bytes
    ifindex: int
    host_port: int


class ShareKey(NamedTuple):
    port: PortKey
    of: int


class Share(NamedTuple):
    until: int


class FragmentKey(NamedTuple):
    network: int
    id: int
    src: bytes
    dst: bytes
    host: bytes
    identity: int
    origin: int
    proto: int


class SlotKey(NamedTuple):
    port: PortKey
    slot: int


class Fragment(NamedTuple):
    of: FragmentKey
    src_port: int
    dst_port: int
    rule_port: int
    end: int
    seen: int
    early: int


class EarlyFragment(NamedTuple):
    port: PortKey
    charge: int
    seen: int
    of: FragmentKey
    at: int
    length: int
    bytes: bytes


class DropKey(NamedTuple):
    port: PortKey
    why: int


class DropRecord(NamedTuple):
    packets: int
    seen: int
    src: bytes
    dst: bytes
    network: int
    identity: int
    remote_identity: int
    src_port: int
    dst_port: int
    eth_proto: int
    proto: int


Key = Any  # a NamedTuple of this module, or an int for a table keyed by a number
Value = Any
Rows = dict[tuple[str, Key], Value]

# Table -> classes of its key and its value; `int` is a bare __u32.
TABLES: dict[str, tuple[type, type]] = {
    "ports": (PortKey, Port),
    "sources": (SourceKey, int),
    "networks": (int, Network),
    "members": (MemberKey, Place),
    "macs": (MacKey, Place),
    "endpoints": (EndpointKey, Endpoint),
    "routes": (RouteKey, Route),
    "next_hops": (NextHopKey, Route),
    "interfaces": (InterfaceKey, Interface),
    "hosts": (bytes, Host),
    "uplinks": (UplinkKey, int),
    "published": (PublishedKey, Published),
    "gateways": (GatewayKey, int),
    "rates": (RateKey, Rate),
    "port_sets": (PortSetKey, PortSet),
    "policies": (PolicyKey, Policy),
    "prefixes": (PrefixKey, Prefix),
    "generations": (int, int),
    "flows_assured": (FlowKey, Flow),
    "flows": (FlowKey, Flow),
    "translations_assured": (FlowKey, Translation),
    "translations": (FlowKey, Translation),
    "shares": (ShareKey, Share),
    "charges": (ShareKey, int),
    "fragments": (SlotKey, Fragment),
    "early_fragments": (SlotKey, EarlyFragment),
    "drops": (DropKey, DropRecord),
}
