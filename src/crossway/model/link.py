"""Where a bare-metal server is plugged in: a VLAN of a physical network, as its port's binding says.

`binding:profile` says it itself (`physical_network`, `vlan`), or its
`local_link_information`, the list that Ironic writes, does: each link itself,
or in its `switch_info`, a dictionary or `physical_network=rack1,vlan=105`. Ironic
may know only the switch and its port: then the operator's table says it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from crossway.model.check import brief
from crossway.model.network import VLAN_MAX

BAREMETAL = "baremetal"
LINKS = "local_link_information"
PHYSNET_MAX = 255


class Link(msgspec.Struct, frozen=True, gc=False):
    """A VLAN of a physical network that hosts have a device for."""

    physnet: str
    vlan: int


def link_of(vnic_type: str, profile: Mapping[str, Any]) -> Link | None:
    """Return where a binding says that its server is plugged in, None if it does not; raises ValueError."""
    if vnic_type != BAREMETAL:
        return None
    links = profile.get(LINKS) or []
    if not isinstance(links, list) or not all(isinstance(link, dict) for link in links):
        raise ValueError(f"{LINKS} {brief(links)} is not a list of dictionaries")
    infos = [_info(link.get("switch_info")) for link in links]
    said = [profile, *links, *infos]
    physnet = _agreed("physical_network", [one.get("physical_network") for one in said])
    vlan = _agreed("vlan", [_number(one.get("vlan")) for one in said])
    if physnet is None and vlan is None:
        return None
    if physnet is None:
        raise ValueError(f"vlan {brief(vlan)} is of no physical_network: name both")
    if vlan is None and links:
        return None  # as Ironic tells it where nobody has told it more
    if vlan is None:
        raise ValueError(f"physical_network {brief(physnet)} needs the vlan of the server's switch port")
    if not isinstance(physnet, str) or not 0 < len(physnet) <= PHYSNET_MAX or not physnet.isprintable():
        raise ValueError(f"physical_network {brief(physnet)} is not the name of a physical network")
    if not isinstance(vlan, int) or isinstance(vlan, bool) or not 1 <= vlan <= VLAN_MAX:
        raise ValueError(f"vlan {brief(vlan)} is not a number from 1 to {VLAN_MAX}")
    return Link(physnet, vlan)


def plugged(vnic_type: str, profile: Mapping[str, Any], table: Mapping[tuple[str, str], Link]) -> Mapping[str, Any]:
    """Return a profile with what the operator's table says of its switch's port, if the profile does not say it."""
    if vnic_type != BAREMETAL or not table or link_of(vnic_type, profile) is not None:
        return profile
    links = profile.get(LINKS) or []
    found = [table[key] for link in links for key in _ends(link) if key in table]
    if not found:
        return profile
    said = {"physical_network": found[0].physnet, "vlan": found[0].vlan}
    if any(one != found[0] for one in found) or profile.get("physical_network", found[0].physnet) != found[0].physnet:
        raise ValueError(f"{LINKS} '{links}' is of several VLANs, or of another physical_network: a port has one")
    return {**profile, **said}


def switch_ports(text: str) -> dict[tuple[str, str], Link]:
    """Read an operator's table: SWITCH PORT PHYSNET VLAN, a line each; raises ValueError."""
    table: dict[tuple[str, str], Link] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) != 4 or not words[3].isdecimal() or not 1 <= int(words[3]) <= VLAN_MAX:
            raise ValueError(f"line {number}: '{line.strip()}' should be SWITCH PORT PHYSNET VLAN")
        key = words[0].lower(), words[1]
        if key in table:
            raise ValueError(f"line {number}: port {words[1]} of switch {words[0]} is there twice")
        table[key] = Link(words[2], int(words[3]))
    return table


def _ends(link: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what a switch's port may be called in an operator's table."""
    switches = [link.get(name) for name in ("switch_id", "switch_info")]
    port = link.get("port_id")
    return [(switch.lower(), port) for switch in switches if isinstance(switch, str) and isinstance(port, str)]


def _info(value: Any) -> Mapping[str, Any]:
    """Return what a link's switch_info says: an object, or words with commas between them; others are a name."""
    if isinstance(value, dict):
        return value
    pairs = [word.strip().partition("=") for word in value.split(",")] if isinstance(value, str) else []
    return {name: said for name, equals, said in pairs if equals and name in ("physical_network", "vlan")}


def _agreed(name: str, said: list[Any]) -> Any:
    """Return what all that say something say, None if none does."""
    values = [value for value in said if value is not None]
    if any(value != values[0] for value in values):
        raise ValueError(f"{name} is {' here and '.join(repr(value) for value in values)} there: a port has one")
    return values[0] if values else None


def _number(value: Any) -> Any:
    """Return a number that is written as text as such."""
    return int(value) if isinstance(value, str) and value.isascii() and value.isdecimal() else value
