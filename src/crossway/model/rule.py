"""A rule of a security group: what may come in or go out."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from crossway.model.check import Unlike, as_prefix, brief, cidr, ip_or_cidr, one_of, or_none, says, schema_of, text
from crossway.model.resource import Kind, Resource, attribute, told
from crossway.model.who import MEMBER, PARENT_MEMBER, PARENT_READER, READER

INGRESS, EGRESS = "ingress", "egress"
IPV4, IPV6 = "IPv4", "IPv6"
ICMP, TCP, UDP, DCCP, ICMPV6, SCTP, UDPLITE = 1, 6, 17, 33, 58, 132, 136
WITH_PORTS = (TCP, UDP, DCCP, SCTP, UDPLITE)
# The names that the API takes for a protocol, and their numbers (IANA).
PROTOCOLS = {
    "ah": 51,
    "dccp": DCCP,
    "egp": 8,
    "esp": 50,
    "gre": 47,
    "hopopt": 0,
    "icmp": ICMP,
    "icmpv6": ICMPV6,
    "igmp": 2,
    "ip": 0,
    "ipip": 4,
    "ipv6-encap": 41,
    "ipv6-frag": 44,
    "ipv6-icmp": ICMPV6,
    "ipv6-nonxt": 59,
    "ipv6-opts": 60,
    "ipv6-route": 43,
    "ospf": 89,
    "pgm": 113,
    "rsvp": 46,
    "sctp": SCTP,
    "tcp": TCP,
    "udp": UDP,
    "udplite": UDPLITE,
    "vrrp": 112,
}
# Those by number that are of IPv6 alone; 0 is hop-by-hop options there, and any protocol elsewhere.
INVALID_PORT = "SecurityGroupInvalidPortValue"
IPV6_ONLY = frozenset(
    PROTOCOLS[name] for name in ("ipv6-encap", "ipv6-frag", "ipv6-icmp", "ipv6-nonxt", "ipv6-opts", "ipv6-route")
)


@says({"anyOf": [{"enum": ["any", *PROTOCOLS]}, {"type": "integer", "minimum": 0, "maximum": 255}, {"type": "null"}]})
def protocol(value: Any) -> str | None:
    """Return a protocol's name, or its number as a string."""
    if value is None or value == "any":
        return None
    named = str(value).lower()
    if named in PROTOCOLS or (named.isascii() and named.isdecimal() and int(named) <= 255):
        return named
    raise Unlike(
        f"{brief(value)} is not a protocol: should be a number from 0 to 255 or one of {sorted(PROTOCOLS)}",
        "SecurityGroupRuleInvalidProtocol",
    )


def of_family(protocol: str | None, ethertype: str) -> str | None:
    """Return a protocol as a rule keeps it: what clients call ICMP is, in a rule of IPv6, that of IPv6."""
    if ethertype == IPV6:
        return {"icmp": "ipv6-icmp", "icmpv6": "ipv6-icmp", str(ICMP): str(ICMPV6)}.get(protocol or "", protocol)
    return protocol


@says({"enum": [IPV4, IPV6]})
def ethertype(value: Any) -> str:
    for known in (IPV4, IPV6):
        if isinstance(value, str) and value.lower() == known.lower():
            return known
    raise Unlike(f"{brief(value)} is not in ['{IPV4}', '{IPV6}']", "SecurityGroupRuleInvalidEtherType")


@says({"anyOf": [{"type": "integer", "minimum": 0, "maximum": 65535}, {"type": "null"}]})
def port_value(value: Any) -> int | None:
    """Check a port number or an ICMP type or code; which it is depends on the protocol."""
    if value is None:
        return None
    try:
        number = int(value)
    except (TypeError, ValueError):
        raise Unlike(f"{brief(value)} is not an integer", INVALID_PORT) from None
    if isinstance(value, bool) or not 0 <= number <= 65535:
        raise Unlike(f"Invalid value for port {value}: should be from 0 to 65535", INVALID_PORT)
    return number


@says(schema_of(ip_or_cidr))
def prefix(value: Any) -> str:
    """Return a prefix as it was meant, with the host that it may name; an address alone is its own prefix."""
    try:
        return str(as_prefix(value))
    except ValueError as error:
        raise Unlike(str(error), "InvalidCIDR") from None


@says(schema_of(or_none(prefix)))
def remote(value: Any) -> str | None:
    """Return a prefix, or None where nothing is said; clients say that by an empty one too."""
    return None if value is None or value == "" else prefix(value)


class Rule(Resource, frozen=True, kw_only=True, gc=False):
    # Any words: what names no group is not found.
    security_group_id: Annotated[str, attribute(text(36), put=False, default=msgspec.NODEFAULT)]
    direction: Annotated[str, attribute(one_of(INGRESS, EGRESS), put=False, default=msgspec.NODEFAULT)]
    ethertype: Annotated[str, attribute(ethertype, put=False, default=IPV4)] = IPV4
    protocol: Annotated[str | None, attribute(protocol, put=False, default=None)] = None
    port_range_min: Annotated[int | None, attribute(port_value, put=False, default=None, filter_check=port_value)] = (
        None
    )
    port_range_max: Annotated[int | None, attribute(port_value, put=False, default=None, filter_check=port_value)] = (
        None
    )
    remote_ip_prefix: Annotated[str | None, attribute(remote, put=False, default=None)] = None
    remote_group_id: Annotated[str | None, attribute(or_none(text(255)), put=False, default=None)] = None
    remote_address_group_id: Annotated[str | None, attribute(or_none(text(255)), put=False, default=None)] = None
    normalized_cidr: Annotated[str | None, told()] = None
    belongs_to_default_sg: Annotated[bool, told()] = False

    @property
    def proto(self) -> int | None:
        """Return the number of its protocol; ICMP is the one of its family."""
        if self.protocol is None:
            return None
        number = PROTOCOLS.get(self.protocol)
        number = int(self.protocol) if number is None else number
        return ICMPV6 if number == ICMP and self.ethertype == IPV6 else number

    @property
    def meaning(self) -> tuple[object, ...]:
        """Return what makes two rules the same; any address is the same as no prefix."""
        prefix = None if self.normalized_cidr in ("0.0.0.0/0", "::/0") else self.normalized_cidr
        meaning = (
            self.security_group_id,
            self.direction,
            self.ethertype,
            self.proto,
            self.port_range_min,
            self.port_range_max,
            prefix,
            self.remote_group_id,
        )
        return (*meaning, self.remote_address_group_id) if self.remote_address_group_id else meaning

    @property
    def number(self) -> int:
        """Return what names it in kernel tables, the same on every host."""
        return int(self.id[:8], 16)


RULE = Kind(
    Rule,
    "security_group_rule",
    "security_group_rules",
    table="rule",
    create=MEMBER | PARENT_MEMBER,
    get=READER | PARENT_READER,
    update=MEMBER | PARENT_MEMBER,
    delete=MEMBER | PARENT_MEMBER,
    without=("name", "tags"),
    parent=("security_group_id", "group"),
    indexes={
        "project_id": None,
        "security_group_id": None,
        "remote_group_id": None,
        "remote_address_group_id": None,
        "meaning": lambda rule: (rule.meaning,),
    },
)


def normal(value: str | None) -> str | None:
    """Return the prefix that an address or prefix stands for."""
    return None if value is None else cidr(value if "/" in value else f"{value}/{128 if ':' in value else 32}")
