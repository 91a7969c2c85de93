"""Segments of networks, and the ranges from which networks get their numbers."""

from __future__ import annotations

from typing import Any

import pytest

from clouds import ADMIN, ALICE, BOB, World
from crossway.control import segment as verbs
from crossway.control.segment import SEGMENTS
from crossway.control.segment_range import SEGMENT_RANGES, used
from crossway.errors import Conflict, Fault, Forbidden, Invalid
from crossway.model.network import Network
from crossway.model.segment import Segment, SegmentRange


def segments(world: World, network: Network) -> list[Segment]:
    assert SEGMENTS.rows
    return [s for s in SEGMENTS.rows(world.cloud, ADMIN) if s.network_id == network.id]


def vlans(world: World, first: int, last: int, **body: Any) -> SegmentRange:
    body = {"network_type": "vlan", "physical_network": "dc", "minimum": first, "maximum": last, **body}
    made: SegmentRange = world.make(SEGMENT_RANGES, **body)
    return made


def vlan(world: World, **body: Any) -> Network:
    return world.network(provider__network_type="vlan", provider__physical_network="dc", **body)


def test_a_network_is_a_segment_and_may_have_more(world: World) -> None:
    network = world.network()
    (own,) = segments(world, network)
    assert (own.network_type, own.segmentation_id) == ("vxlan", network.segment)
    made = world.make(SEGMENTS, network_id=network.id, network_type="vlan", physical_network="dc", segmentation_id=7)
    assert [s.id for s in segments(world, network)] == [own.id, made.id]
    world.do(lambda d: verbs.update(d, ADMIN, own.id, {"name": "first"}))
    assert [s.name for s in segments(world, network)] == ["first", ""]


def test_a_segments_number_is_its_own_until_it_goes(world: World) -> None:
    network = world.network()
    body = {"network_id": network.id, "network_type": "vlan", "physical_network": "dc", "segmentation_id": 7}
    made = world.make(SEGMENTS, **body)
    with pytest.raises(Conflict):
        vlan(world, provider__segmentation_id=7)
    world.do(lambda d: verbs.delete(d, ADMIN, made.id))
    world.delete(vlan(world, provider__segmentation_id=7))
    world.make(SEGMENTS, **body)
    world.delete(network)
    assert [key for key in world.stored() if key.startswith(("segment/", "uses/", "claim/vlan"))] == []


def test_a_networks_own_segment_goes_with_it_alone(world: World) -> None:
    network = world.network()
    (own,) = segments(world, network)
    world.do(lambda d: verbs.update(d, ADMIN, own.id, {"name": "first"}))
    with pytest.raises(Conflict):
        world.do(lambda d: verbs.delete(d, ADMIN, own.id))
    world.delete(network)
    assert [key for key in world.stored() if key.startswith("segment/")] == []


@pytest.mark.parametrize(
    "body",
    [
        {"network_type": "vlan", "segmentation_id": 7},
        {"network_type": "vlan", "physical_network": "dc", "segmentation_id": 5000},
        {"network_type": "flat", "physical_network": "dc", "segmentation_id": 5},
        {"network_type": "vxlan", "physical_network": "dc", "segmentation_id": 5},
    ],
    ids=str,
)
def test_segments_that_can_never_be(world: World, body: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        world.make(SEGMENTS, network_id=world.network().id, **body)


def test_networks_get_numbers_of_ranges_where_there_are_some(world: World) -> None:
    found = vlans(world, 100, 102)
    assert [vlan(world).segment for _ in range(3)] == [100, 101, 102]
    assert list(used(world.cloud, found)) == [100, 101, 102]
    with pytest.raises(Conflict, match="No tenant network is available"):
        vlan(world)
    assert vlan(world, provider__segmentation_id=7).segment == 7


def test_a_projects_own_range_is_for_it_alone_and_comes_first(world: World) -> None:
    vlans(world, 100, 199)
    vlans(world, 200, 201, shared=False, project_id="alice")
    assert [vlan(world, project_id="alice").segment for _ in range(3)] == [200, 201, 100]
    assert vlan(world, project_id="bob").segment == 101


def test_a_range_in_use_stays(world: World) -> None:
    found = vlans(world, 100, 110)
    network = vlan(world)
    for change in (lambda: world.delete(found), lambda: world.change(found, minimum=105)):
        with pytest.raises(Conflict):
            change()
    assert world.change(found, maximum=105).maximum == 105
    world.delete(network)
    world.delete(found)


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ({"minimum": 105, "maximum": 120}, Conflict),
        ({"minimum": 120, "maximum": 110}, Invalid),
        ({"minimum": 4000, "maximum": 5000}, Invalid),
        ({"minimum": 1, "maximum": 2, "physical_network": None}, Invalid),
        ({"minimum": 1, "maximum": 2, "network_type": "vxlan"}, Invalid),
    ],
    ids=["overlap", "upside down", "no VLANs", "no wire", "VXLAN on a wire"],
)
def test_ranges_that_cannot_be(world: World, body: dict[str, Any], fault: type[Fault]) -> None:
    vlans(world, 100, 110)
    with pytest.raises(fault):
        world.make(SEGMENT_RANGES, **{"network_type": "vlan", "physical_network": "dc", **body})


def test_segments_are_for_admins(world: World) -> None:
    network = world.network(ALICE)
    with pytest.raises(Forbidden):
        world.make(SEGMENTS, ALICE, network_id=network.id, network_type="vxlan")
    with pytest.raises(Forbidden):
        world.make(SEGMENT_RANGES, BOB, network_type="vxlan", minimum=1, maximum=2)
