"""Where a bare-metal server is plugged in: a VLAN of a physical network, as its port's binding says.

`binding:profile` says it itself (`physical_network`, `vlan`), or its
`local_link_information`, the list that Ironic writes, does: each link itself,
or in its `switch_info` where that is a dictionary.
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
    infos = [info for link in links if isinstance(info := link.get("switch_info"), dict)]
    said = [profile, *links, *infos]
    physnet = _agreed("physical_network", [one.get("physical_network") for one in said])
    vlan = _agreed("vlan", [_number(one.get("vlan")) for one in said])
    if physnet is None and vlan is None:
        return None
    if physnet is None:
        raise ValueError(f"vlan {brief(vlan)} is of no physical_network: name both")
    if vlan is None:
        raise ValueError(f"physical_network {brief(physnet)} needs the vlan of the server's switch port")
    if not isinstance(physnet, str) or not 0 < len(physnet) <= PHYSNET_MAX or not physnet.isprintable():
        raise ValueError(f"physical_network {brief(physnet)} is not the name of a physical network")
    if not isinstance(vlan, int) or isinstance(vlan, bool) or not 1 <= vlan <= VLAN_MAX:
        raise ValueError(f"vlan {brief(vlan)} is not a number from 1 to {VLAN_MAX}")
    return Link(physnet, vlan)


def _agreed(name: str, said: list[Any]) -> Any:
    """Return what all that say something say, None if none does."""
    values = [value for value in said if value is not None]
    if any(value != values[0] for value in values):
        raise ValueError(f"{name} is {' here and '.join(repr(value) for value in values)} there: a port has one")
    return values[0] if values else None


def _number(value: Any) -> Any:
    """Return a number that is written as text as such."""
    return int(value) if isinstance(value, str) and value.isascii() and value.isdecimal() else value
