"""Trunks and the ports within them."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import UNSET

from clouds import ADMIN, ALICE, BOB, World
from crossway.control import trunk as trunks
from crossway.control.trunk import TRUNKS
from crossway.errors import Fault
from crossway.model.network import Network
from crossway.model.trunk import Trunk

ABSENT = "0d2f8a3e-90cc-4b0b-9e1e-0123456789ab"


def refused(by: Any, *args: Any, type: str, status: int, **options: Any) -> None:
    with pytest.raises(Fault) as caught:
        by(*args, **options)
    assert (caught.value.type, caught.value.status) == (type, status), str(caught.value)


def act(world: World, name: str, of: Trunk, *subs: dict[str, Any], caller: Any = ALICE) -> Any:
    return world.do(lambda d: TRUNKS.actions[name].verb(d, caller, of.id, {"sub_ports": list(subs)}))


def vlan(port: Any, number: Any) -> dict[str, Any]:
    return {"port_id": port.id, "segmentation_type": "vlan", "segmentation_id": number}


@pytest.fixture
def net(world: World) -> Network:
    return world.network(ALICE)


def test_ports_join_and_leave(world: World, net: Network) -> None:
    parent, one, two = (world.port(net, ALICE) for _ in range(3))
    made = world.make(TRUNKS, ALICE, port_id=parent.id, sub_ports=[vlan(one, "5")])
    assert (made.status, made.project_id, made.sub_ports[0].segmentation_id) == ("DOWN", "alice", 5)
    joined = act(world, "add_subports", made, vlan(two, 6))
    assert [sub["port_id"] for sub in joined["sub_ports"]] == [one.id, two.id]
    told = trunks.details(world.cloud, world.again(parent))
    assert told["trunk_id"] == made.id
    assert told["sub_ports"][1] == {**vlan(two, 6), "mac_address": two.mac_address}
    assert trunks.details(world.cloud, two) is UNSET
    assert [sub["port_id"] for sub in act(world, "remove_subports", made, {"port_id": one.id})["sub_ports"]] == [two.id]
    assert act(world, "get_subports", made)["sub_ports"][0]["port_id"] == two.id
    for port, type in ((parent, "PortInUseAsTrunkParent"), (two, "PortInUseAsSubPort")):
        refused(world.delete, port, ALICE, type=type, status=409)
    world.delete(made, ALICE)
    for port in (parent, one, two):
        world.delete(port, ALICE)
    assert not [key for key in world.stored() if key.startswith("trunk")]


def test_what_cannot_join(world: World, net: Network) -> None:
    small = world.network(ALICE, mtu=1000)
    parent, one, other = (world.port(net, ALICE) for _ in range(3))
    busy, narrow = world.port(net, ALICE, device_id="vm"), world.port(small, ALICE)
    made = world.make(TRUNKS, ALICE, port_id=parent.id, sub_ports=[vlan(one, 5)])
    shown = world.make(TRUNKS, ALICE, port_id=narrow.id)
    theirs = world.port(world.network(BOB), BOB)
    for into, sub, type, status in (
        (made, vlan(parent, 7), "ParentPortInUse", 409),
        (made, vlan(one, 7), "TrunkPortInUse", 409),
        (made, vlan(narrow, 7), "ParentPortInUse", 409),
        (made, vlan(busy, 7), "PortInUse", 409),
        (made, vlan(other, 5), "DuplicateSubPort", 409),
        (shown, vlan(other, 7), "SubPortMtuGreaterThanTrunkPortMtu", 409),
        (made, vlan(theirs, 7), "PortNotFound", 404),
        (made, {**vlan(other, 7), "port_id": ABSENT}, "PortNotFound", 404),
        (made, vlan(other, 0), "InvalidInput", 400),
        (made, vlan(other, 4095), "InvalidInput", 400),
        (made, vlan(other, "x"), "InvalidInput", 400),
        (made, {**vlan(other, 7), "segmentation_type": "gre"}, "InvalidInput", 400),
        (made, {"port_id": other.id}, "InvalidInput", 400),
        (made, {"port_id": ABSENT}, "InvalidInput", 400),
        (made, {"port_id": other.id, "segmentation_type": "inherit"}, "InvalidInput", 400),
        (made, {}, "InvalidInput", 400),
    ):
        refused(act, world, "add_subports", into, sub, type=type, status=status)
    refused(act, world, "add_subports", made, vlan(other, 7), vlan(other, 8), type="InvalidInput", status=400)
    refused(act, world, "remove_subports", made, {"port_id": other.id}, type="SubPortNotFound", status=404)
    assert len(world.again(made).sub_ports) == 1


def test_a_tag_is_inherited_from_a_vlan_network(world: World, net: Network) -> None:
    tagged = world.network(provider__network_type="vlan", provider__physical_network="dc", provider__segmentation_id=77)
    parent, within = world.port(net), world.port(tagged)
    sub = {"port_id": within.id, "segmentation_type": "inherit"}
    world.change(tagged, mtu=1000)
    made = world.make(TRUNKS, ADMIN, port_id=parent.id, sub_ports=[sub])
    assert (made.sub_ports[0].segmentation_type, made.sub_ports[0].segmentation_id) == ("vlan", 77)


def test_one_that_is_disabled_stays_as_it_is(world: World, net: Network) -> None:
    parent, one = world.port(net, ALICE), world.port(net, ALICE)
    made = world.make(TRUNKS, ALICE, port_id=parent.id, admin_state_up=False)
    refused(act, world, "add_subports", made, vlan(one, 5), type="TrunkDisabled", status=409)
    refused(world.delete, made, ALICE, type="TrunkDisabled", status=409)
    assert world.change(made, ALICE, admin_state_up=True, name="t").name == "t"
    world.delete(made, ALICE)


def test_a_bound_port_is_nobodys_new_parent(world: World, net: Network) -> None:
    world.host("h1")
    bound = world.port(net, binding__host_id="h1")
    refused(world.make, TRUNKS, ADMIN, port_id=bound.id, type="ParentPortInUse", status=409)
    parent = world.port(net)
    made = world.make(TRUNKS, ADMIN, port_id=parent.id)
    refused(world.make, TRUNKS, ADMIN, port_id=parent.id, type="ParentPortInUse", status=409)
    world.change(parent, binding__host_id="h1")
    refused(world.delete, made, type="TrunkInUse", status=409)
