"""Ranges of numbers that networks get: where there are some of a type, no network gets another number by itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from crossway.control.caller import Caller, project_of
from crossway.control.cloud import Cloud
from crossway.control.collection import Collection, change, find
from crossway.control.decision import Decision
from crossway.errors import Conflict, Invalid
from crossway.model.network import VLAN, VLAN_MAX, Network
from crossway.model.resource import Given, new_id, now
from crossway.model.segment import SEGMENT_RANGE, Segment, SegmentRange

# Free numbers that are named one by one.
NAMED_MAX = 4096


def create(decision: Decision, caller: Caller, given: Given) -> SegmentRange:
    shared = given["shared"]
    project = "" if shared else project_of(caller, given)
    if not shared and not project:
        raise Invalid("Invalid input for operation: project_id required for a range that is not shared.")
    time = now()
    # No physical network may be said as an empty one.
    given = {**given, "physical_network": given["physical_network"] or None}
    made = SegmentRange(**{**given, "project_id": project}, id=new_id(), created_at=time, updated_at=time)
    _check(decision.cloud, made)
    decision.create(decision.cloud.of(SegmentRange), made)
    # Two that overlap must not be made at once.
    decision.quiet("segment_range/")
    return made


def update(decision: Decision, caller: Caller, id: str, given: Given) -> SegmentRange:
    old = find(decision, SegmentRange, id)
    new = change(decision, old, given)
    _check(decision.cloud, new)
    decision.quiet("segment_range/")
    if lost := [n for n in used(decision.cloud, old) if not new.minimum <= n <= new.maximum]:
        raise Conflict(
            f"Network segment range {id} is in use: number {lost[0]} would be outside of it.",
            type="NetworkSegmentRangeReferencedByProject",
        )
    return new


def delete(decision: Decision, caller: Caller, id: str) -> None:
    old = find(decision, SegmentRange, id)
    if taken := used(decision.cloud, old):
        raise Conflict(
            f"Network segment range {id} is in use: a network has number {min(taken)}.",
            type="NetworkSegmentRangeReferencedByProject",
        )
    decision.delete(decision.cloud.of(SegmentRange), id)


def used(cloud: Cloud, found: SegmentRange) -> dict[int, str]:
    """Return the numbers of a range that networks have, each with the network's project."""
    taken: dict[int, str] = {}
    for network in cloud.networks.rows.values():
        if (network.type, network.physnet) == (found.network_type, found.physical_network) and network.segment:
            taken[network.segment] = network.project_id
    for segment in cloud.of(Segment).rows.values():
        if (segment.network_type, segment.physical_network) == (found.network_type, found.physical_network):
            owner: Network | None = cloud.networks.get(segment.network_id)
            taken[segment.segmentation_id or 0] = owner.project_id if owner else ""
    return {n: project for n, project in sorted(taken.items()) if found.minimum <= n <= found.maximum}


def _check(cloud: Cloud, made: SegmentRange) -> None:
    if made.minimum > made.maximum:
        raise Invalid(f"Invalid network segment range: minimum {made.minimum} is above maximum {made.maximum}.")
    if made.network_type == VLAN:
        if not made.physical_network:
            raise Invalid("Invalid network segment range: physical_network required for VLANs.")
        if made.maximum > VLAN_MAX:
            raise Invalid(f"Invalid network segment range: maximum {made.maximum} should be at most {VLAN_MAX}.")
    elif made.physical_network:
        raise Invalid("Invalid network segment range: physical_network does not go with VXLAN.")
    for other in cloud.of(SegmentRange).by("network_type", made.network_type):
        if (
            other.id != made.id
            and other.physical_network == made.physical_network
            and other.minimum <= made.maximum
            and made.minimum <= other.maximum
        ):
            raise Conflict(
                f"Network segment range {made.minimum}-{made.maximum} overlaps with {other.id} "
                f"({other.minimum}-{other.maximum}).",
                type="NetworkSegmentRangeOverlaps",
            )


def _used(cloud: Cloud, found: SegmentRange) -> dict[str, str]:
    return {str(number): project for number, project in used(cloud, found).items()}


def _available(cloud: Cloud, found: SegmentRange) -> list[Any]:
    taken = used(cloud, found)
    free = (n for n in range(found.minimum, found.maximum + 1) if n not in taken)
    return [n for n, _ in zip(free, range(NAMED_MAX), strict=False)]


def _all(cloud: Cloud, network: Any) -> Iterator[str]:
    return (r.id for r in cloud.of(SegmentRange).by("network_type", getattr(network, "type", "")))


SEGMENT_RANGES = Collection(
    kind=SEGMENT_RANGE,
    create=create,
    update=update,
    delete=delete,
    derived={"used": _used, "available": _available},
    stale_in={"network": _all},
    aliases={"network-segment-range": "Neutron Network Segment Range"},
)
