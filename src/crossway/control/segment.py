"""Tell, make and delete segments of networks.

A network's own segment is what its provider attributes say; it comes and goes
with the network, and here it may get a name. Further segments hold their VLAN or
VNI; no host carries them.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator

from crossway.control.caller import Caller
from crossway.control.cloud import Cloud
from crossway.control.collection import Collection, change, find
from crossway.control.decision import Decision
from crossway.control.segmentation import hold, release
from crossway.errors import Conflict, Invalid, NotFound
from crossway.model.network import VXLAN, Network
from crossway.model.resource import Given, new_id, now
from crossway.model.segment import SEGMENT, Segment

SPACE = uuid.UUID("0b0d9a52-1c1e-4f4e-8a53-8a3f0e9c7b21")


def own_id(network: str) -> str:
    """Return the id of a network's own segment."""
    return str(uuid.uuid5(SPACE, network))


def rows(cloud: Cloud, caller: Caller) -> Iterator[Segment]:
    kept = cloud.of(Segment)
    for network in cloud.networks.rows.values():
        yield kept.get(own_id(network.id)) or _own(network)
    for segment in kept.rows.values():
        if segment.id != own_id(segment.network_id):
            yield segment


def create(decision: Decision, caller: Caller, given: Given) -> Segment:
    cloud = decision.cloud
    type, physnet, number = given["network_type"], given["physical_network"], given["segmentation_id"]
    network = decision.rely(cloud.networks, given["network_id"])
    if network is None:
        raise NotFound("network", given["network_id"])
    if type == VXLAN and physnet:
        raise _invalid(f"physical_network '{physnet}' does not go with a vxlan segment")
    if type != VXLAN and not physnet:
        raise _invalid(f"physical_network required for {type} segment")
    number = hold(decision, type, physnet, number, network.project_id)
    time = now()
    segment = Segment(
        **{**given, "segmentation_id": number}, id=new_id(), project_id="", created_at=time, updated_at=time
    )
    decision.create(cloud.of(Segment), segment)
    # A network goes only with all that refers to it.
    decision.claim(f"uses/{network.id}/{segment.id}")
    return segment


def update(decision: Decision, caller: Caller, id: str, given: Given) -> Segment:
    cloud = decision.cloud
    if cloud.of(Segment).get(id) is None:
        network = _network_of(cloud, id)
        if network is None:
            raise NotFound("segment", id)
        decision.rely(cloud.networks, network.id)
        own = _own(network)
        decision.create(cloud.of(Segment), own)
        return change(decision, own, given)
    return change(decision, find(decision, Segment, id), given)


def delete(decision: Decision, caller: Caller, id: str) -> None:
    cloud = decision.cloud
    if _network_of(cloud, id) is not None:
        raise Conflict(f"Segment {id} is its network's own: it goes with the network.", type="SegmentInUse")
    segment = find(decision, Segment, id)
    for subnet in cloud.subnets.by("network_id", segment.network_id):
        if subnet.segment_id == id:
            raise Conflict(f"Segment '{id}' cannot be deleted: it has subnet {subnet.id}.", type="SegmentInUse")
    drop(decision, segment)


def drop(decision: Decision, segment: Segment) -> None:
    """Delete a segment and give its number back."""
    decision.delete(decision.cloud.of(Segment), segment.id)
    if segment.id != own_id(segment.network_id):
        decision.release(f"uses/{segment.network_id}/{segment.id}")
        release(decision, segment.network_type, segment.physical_network, segment.segmentation_id)


def renumber(decision: Decision, network: Network, number: int | None) -> None:
    """Give what is kept of a network's own segment the number that the network gets."""
    kept = decision.read(decision.cloud.of(Segment), own_id(network.id))
    if kept is not None:
        change(decision, kept, {"segmentation_id": number})


def of_network(cloud: Cloud, network: Network) -> list[Segment]:
    """Return a network's segments, its own first."""
    kept = cloud.of(Segment)
    own = kept.get(own_id(network.id)) or _own(network)
    return [own, *(s for s in kept.by("network_id", network.id) if s.id != own.id)]


def _own(network: Network) -> Segment:
    return Segment(
        id=own_id(network.id),
        project_id="",
        network_id=network.id,
        network_type=network.type,
        physical_network=network.physnet,
        segmentation_id=network.segment,
        created_at=network.created_at,
        updated_at=network.created_at,
    )


def _network_of(cloud: Cloud, id: str) -> Network | None:
    """Return the network whose own segment has this id."""
    kept = cloud.of(Segment).get(id)
    if kept is not None:
        return cloud.networks.get(kept.network_id) if own_id(kept.network_id) == id else None
    return next((n for n in cloud.networks.rows.values() if own_id(n.id) == id), None)


def _invalid(message: str) -> Invalid:
    return Invalid(f"Invalid input for operation: {message}.", type="InvalidInput")


SEGMENTS = Collection(
    kind=SEGMENT,
    rows=rows,
    create=create,
    update=update,
    delete=delete,
    aliases={
        "segment": "Segment",
        "standard-attr-segment": "Standard Attribute Segment Extension",
    },
)
