"""Hold the VNI, VLAN or wire of a segment, so that nobody else has it."""

from __future__ import annotations

from collections.abc import Iterator

from crossway.control.cloud import Cloud
from crossway.control.decision import Decision
from crossway.errors import Conflict, Invalid
from crossway.model.network import FLAT, VLAN, VLAN_MAX, VNI_MAX, VXLAN
from crossway.model.segment import SegmentRange


def key(type: str, physnet: str | None, number: int | None) -> str:
    """Return the key that whoever has the segment holds."""
    if type == VXLAN:
        return f"claim/network/{number}"
    return f"claim/flat/{physnet}" if type == FLAT else f"claim/vlan/{physnet}/{number}"


def hold(decision: Decision, type: str, physnet: str | None, number: int | None, project: str) -> int | None:
    """Hold a segment, of a number that is free if none is wanted; return its number, None for a flat one.

    Where operators have set ranges for the type, one that is not wanted by number
    comes from these, the project's own first.
    """
    if type == FLAT:
        if number is not None:
            raise _invalid(f"segmentation_id '{number}' does not go with a flat network")
        taken = f"Unable to create the flat network. Physical network {physnet} is in use."
        _take(decision, key(FLAT, physnet, None), taken, "FlatNetworkInUse")
        return None
    if number is None:
        return _free(decision, type, physnet, project)
    if type == VLAN:
        if number > VLAN_MAX:
            raise _invalid(f"segmentation_id '{number}' should be from 1 to {VLAN_MAX}")
        taken = f"Unable to create the network. The VLAN {number} on physical network {physnet} is in use."
        _take(decision, key(VLAN, physnet, number), taken, "VlanIdInUse")
    else:
        _take(decision, key(VXLAN, None, number), f"The VNI {number} is already in use", "TunnelIdInUse")
    return number


def release(decision: Decision, type: str, physnet: str | None, number: int | None) -> None:
    """Give a segment back; its number rests while hosts that are away may still use it for what had it."""
    held = key(type, physnet, number)
    if type == FLAT:
        decision.release(held)
    else:
        decision.rest(held)


def _free(decision: Decision, type: str, physnet: str | None, project: str) -> int:
    allowed = numbers(decision.cloud, type, physnet, project)
    if allowed is None:
        return decision.number("network", VNI_MAX) if type == VXLAN else decision.number(f"vlan/{physnet}", VLAN_MAX)
    for number in allowed:
        held = key(type, physnet, number)
        free = held.removeprefix("claim/") not in decision.cloud.claims and held not in decision.cloud.pending
        if free and decision.claim(held):
            return number
    raise Conflict(
        "Unable to create the network. No tenant network is available for allocation.", type="NoNetworkAvailable"
    )


def numbers(cloud: Cloud, type: str, physnet: str | None, project: str) -> Iterator[int] | None:
    """Return the numbers that a project's networks may get, its own ranges' first; None: any."""
    ranges = [
        r
        for r in cloud.of(SegmentRange).by("network_type", type)
        if r.physical_network == physnet and (r.shared or r.project_id == project)
    ]
    if not ranges:
        return None
    ranges.sort(key=lambda r: (r.shared, r.minimum))
    return (number for r in ranges for number in range(r.minimum, r.maximum + 1))


def _take(decision: Decision, held: str, taken: str, type: str) -> None:
    if decision.wake(held):
        return
    if (since := decision.cloud.resting.get(held.removeprefix("claim/"))) and held not in decision.transaction.puts:
        away = [host for host in decision.cloud.behind(since[0]) if not decision.cloud.alive(host)]
        taken += f": hosts that are away may still use it for what had it before: {', '.join(sorted(away)[:10])}"
        raise Conflict(taken, type=type)
    if held.removeprefix("claim/") in decision.cloud.claims or not decision.claim(held):
        raise Conflict(taken, type=type)


def _invalid(message: str) -> Invalid:
    return Invalid(f"Invalid input for operation: {message}.", type="InvalidInput")
