"""Hold the VLAN that a bare-metal server is plugged into, so that nobody else has it: neither port nor network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from crossway.control.decision import Decision
from crossway.control.segmentation import key
from crossway.errors import Conflict, Invalid
from crossway.model.binding import Binding
from crossway.model.link import Link, link_of
from crossway.model.network import VLAN


def hold(decision: Decision, port: str, old: Link | None, vnic_type: str, profile: Mapping[str, Any]) -> None:
    """Hold the link that a port's binding says from now on in place of the one that it had."""
    new = checked(vnic_type, profile)
    if new == old:
        return
    if old is not None:
        release(decision, old)
        # A standby serves the same place, wherever that is now.
        bindings = decision.cloud.of(Binding)
        for standby in decision.by(bindings, "port_id", port):
            decision.put(bindings, msgspec.structs.replace(standby, vnic_type=vnic_type, profile=dict(profile)))
    if new is not None:
        held = key_of(new)
        taken = held.removeprefix("claim/") in decision.cloud.claims and held not in decision.transaction.deletes
        if taken or not decision.claim(held, port):
            raise Conflict(
                f"VLAN {new.vlan} of physical network {new.physnet} is in use, by another port or a network.",
                type="VlanIdInUse",
            )


def checked(vnic_type: str, profile: Mapping[str, Any]) -> Link | None:
    """Return the link that a binding says; raise Invalid if it says none that can be."""
    try:
        return link_of(vnic_type, profile)
    except ValueError as fault:
        raise Invalid(f"Invalid input for binding:profile. Reason: {fault}.", type="InvalidInput") from None


def release(decision: Decision, link: Link | None) -> None:
    """Give back the VLAN of a port that goes."""
    if link is not None:
        decision.release(key_of(link))


def key_of(link: Link) -> str:
    """Return the key that a port with this link holds."""
    return key(VLAN, link.physnet, link.vlan)
