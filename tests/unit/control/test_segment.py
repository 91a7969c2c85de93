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
    assert [s.name for s in segments(world, network)] == ["first", None]


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


@pytest.mark.parametrize("wire", [{}, {"physical_network": ""}, {"physical_network": None}])
def test_a_range_of_vnis_may_say_that_it_is_of_no_wire(world: World, wire: dict[str, Any]) -> None:
    body = {"network_type": "vxlan", "minimum": 900, "maximum": 901, **wire}
    found = world.make(SEGMENT_RANGES, shared=False, project_id="alice", **body)
    assert found.physical_network is None
    assert [world.network(project_id="alice").segment for _ in range(2)] == [900, 901]
    with pytest.raises(Conflict):
        world.change(found, minimum=901)
    with pytest.raises(Conflict):
        world.delete(found)


def test_a_networks_number_may_become_another_while_no_host_carries_it(world: World) -> None:
    world.host("h1")
    network, other = vlan(world, provider__segmentation_id=7), world.network()
    (own,) = segments(world, network)
    world.do(lambda d: verbs.update(d, ADMIN, own.id, {"name": "first"}))
    same = {"provider__network_type": "vlan", "provider__physical_network": "dc"}
    world.change(network, **same, provider__segmentation_id=8)
    assert world.again(network).segment == 8
    assert [(s.segmentation_id, s.name) for s in segments(world, network)] == [(8, "first")]
    assert vlan(world, provider__segmentation_id=7).segment == 7
    with pytest.raises(Conflict, match="VLAN 7"):
        world.change(network, provider__segmentation_id=7)
    world.change(other, provider__segmentation_id=4711)
    assert (world.again(other).segment, world.again(other).number) == (4711, 4711)
    port = world.port(other, binding__host_id="h1")
    with pytest.raises(Invalid, match="hosts carry ports"):
        world.change(other, provider__segmentation_id=4712)
    world.change(other, provider__segmentation_id=4711, name="same")
    world.delete(port)
    world.delete(world.again(other))
    world.delete(world.again(network))
    # Nobody has them; they rest until h1 has applied that.
    world.status.report("h1", world.cloud.revision, {})
    world.status.tick()
    world.settle()
    assert [
        key for key in world.stored() if key.startswith(("claim/network/4711", "claim/vlan/dc/8", "segment/"))
    ] == []


@pytest.mark.parametrize(
    "body",
    [
        {"provider:network_type": "vlan"},
        {"provider:physical_network": "dc"},
        {"segments": [{"provider:network_type": "vxlan", "provider:segmentation_id": 5}]},
    ],
)
def test_what_a_network_is_made_of_stays(world: World, body: dict[str, Any]) -> None:
    network = world.network(project_id="alice", provider__network_type="vxlan", provider__segmentation_id=4)
    with pytest.raises(Invalid, match="provider attributes"):
        world.change(network, **body)
    told = {"provider:network_type": "vxlan", "provider:segmentation_id": 4}
    assert world.change(network, segments=[told], **{**told, "provider:physical_network": None}).segment == 4
    with pytest.raises(Forbidden):
        world.change(network, ALICE, provider__segmentation_id=6)


def test_of_several_segments_none_gets_another_number(world: World) -> None:
    network = world.network()
    world.make(SEGMENTS, network_id=network.id, network_type="vlan", physical_network="dc", segmentation_id=7)
    with pytest.raises(Invalid, match="several segments"):
        world.change(network, provider__segmentation_id=6)


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
