"""A host, as it registers; and an identity, the number of a set of groups."""

from __future__ import annotations

import ipaddress
from typing import Any

import msgspec

from crossway.errors import Invalid
from crossway.model.check import brief, ip, mac


class Host(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """*underlay* is the address that other hosts send to; *physnets* name its devices.

    *registered*, *description*, *admin_state_up* and *granted* are not the host's own words:
    when it first registered, what operators say of it, and the physical networks with
    which an admin has registered it.
    """

    id: str
    underlay: str
    physnets: dict[str, str] = {}
    version: str = ""
    registered: str = ""
    description: str = ""
    admin_state_up: bool = True
    granted: tuple[str, ...] = ()


class Identity(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The number of a distinct set of security groups; *groups* are sorted.

    *project* is the one whose port had it first.
    """

    id: str
    groups: tuple[str, ...]
    project: str = ""


class Handover(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the host *by* says of the connections of a port, for those where the port may go on."""

    id: str  # PORT.HOST
    by: str
    flows: str

    @property
    def port(self) -> str:
        return self.id.partition(".")[0]


LEARNED_MAX = 64  # addresses beside its fixed ones that a port may have been seen to have


class Learned(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A port has been seen to have an address of its network that is nobody's fixed one, at a MAC."""

    id: str  # NETWORK/IP
    port: str
    mac: str

    @property
    def network(self) -> str:
        return self.id.partition("/")[0]

    @property
    def ip(self) -> str:
        return self.id.partition("/")[2]


def learned_id(network: str, ip: str) -> str:
    """Return what an address of a network is called that a port has been seen to have."""
    return f"{network}/{ip}"


def sighting(body: Any) -> tuple[str, str, str | None]:
    """Check what a host says of an address: the port, the address, and its MAC; None: the port has it no more."""
    port, address, at = (body.get(name) for name in ("port", "ip", "mac")) if isinstance(body, dict) else (None,) * 3
    if not isinstance(port, str):
        raise Invalid("The body should be {'port': ID, 'ip': ADDRESS, 'mac': MAC or null}")
    try:
        return port, ip(address), None if at is None else mac(at)
    except ValueError as error:
        raise Invalid(f"Invalid input for an address that was seen. Reason: {error}.") from None


IDENTITY_MAX = 65535
# Provider networks that one host reaches.
PHYSNETS_MAX = 256
# Characters of a physical network's name, a device's, and a version.
WORD_MAX = 255


def underlay(value: Any) -> str:
    """Return the one spelling of an address that a host can have; raise ValueError for what is none."""
    address = ipaddress.ip_address(ip(value))
    if address.version == 6 and address.ipv4_mapped:
        address = address.ipv4_mapped
    if address.is_multicast or address.is_unspecified or str(address) == "255.255.255.255":
        raise ValueError(f"'{value}' is not the address of a host")
    return str(address)


def host(name: str, body: Any) -> Host:
    """Check what a host says of itself."""
    if not name or len(name) > 255 or not name.isprintable() or "/" in name:
        raise Invalid(f"host name '{name}' should be 1 to 255 printable characters without a slash")
    if not isinstance(body, dict):
        raise Invalid(f"{brief(body)} is not a dictionary")
    try:
        address = underlay(body.get("underlay"))
    except ValueError as error:
        raise Invalid(f"Invalid input for underlay. Reason: {error}.") from None
    physnets = body.get("physnets") or {}
    if not isinstance(physnets, dict) or not all(isinstance(x, str) for pair in physnets.items() for x in pair):
        raise Invalid(f"Invalid input for physnets. Reason: {brief(physnets)} should map names to devices.")
    if len(physnets) > PHYSNETS_MAX:
        raise Invalid(f"Host {brief(name)} has {len(physnets)} physnets; should be at most {PHYSNETS_MAX}")
    if long := next((word for pair in physnets.items() for word in pair if len(word) > WORD_MAX), None):
        raise Invalid(
            f"Invalid input for physnets. Reason: {brief(long)} has {len(long)} characters; "
            f"should be at most {WORD_MAX}."
        )
    version = body.get("version", "")
    if not isinstance(version, str) or len(version) > WORD_MAX:
        raise Invalid(f"Invalid input for version. Reason: {brief(version)} should be at most {WORD_MAX} characters.")
    return Host(id=name, underlay=address, physnets=physnets, version=version)
