"""Where bare-metal servers are plugged in: what is refused, and that a VLAN has one port."""

from __future__ import annotations

from typing import Any

import pytest

from clouds import ADMIN, ALICE, Caller, Listener, World
from crossway.control.binding import BINDINGS
from crossway.control.caller import implied
from crossway.control.network import NETWORKS
from crossway.errors import Conflict, Invalid
from crossway.model.port import Port

NOVA = Caller("service", roles=implied(["service"]))
RACK = {"physical_network": "rack", "vlan": 105}


def server(world: World, profile: dict[str, Any], **attrs: Any) -> Port:
    network = world.network(ALICE)
    given: dict[str, Any] = {"binding__vnic_type": "baremetal", "binding__profile": profile, **attrs}
    return world.port(network, **given)


@pytest.mark.parametrize(
    "profile",
    [
        RACK,
        {"local_link_information": [{"switch_id": "00:01", "port_id": "eth7", **RACK}]},
        {"local_link_information": [{"switch_info": {"physical_network": "rack", "vlan": "105"}}]},
        {"vlan": 105, "local_link_information": [{"port_id": "a", "physical_network": "rack"}, {"port_id": "b"}]},
        {**RACK, "local_link_information": [{"switch_info": {"physical_network": "rack", "vlan": "105"}}]},
    ],
    ids=["itself", "a link", "its switch", "in part", "as text as well"],
)
def test_hosts_are_told_where_a_server_is_plugged_in(world: World, profile: dict[str, Any]) -> None:
    world.host("h1", "", "rack")
    told = Listener(world, "h1")
    port = server(world, profile, binding__host_id="h1")
    assert told.objects["port", port.id]["link"] == {"physnet": "rack", "vlan": 105}


@pytest.mark.parametrize("profile", [{}, {"local_link_information": [{"port_id": "eth7"}]}], ids=["nothing", "no VLAN"])
def test_without_a_vlan_there_is_no_place(world: World, profile: dict[str, Any]) -> None:
    assert server(world, profile).link is None


@pytest.mark.parametrize(
    ("profile", "why"),
    [
        ({"physical_network": "rack"}, "needs the vlan"),
        ({"vlan": 5}, "name both"),
        ({**RACK, "vlan": 4095}, "vlan '4095' is not a number from 1 to 4094"),
        ({**RACK, "vlan": 0}, "vlan '0'"),
        ({**RACK, "vlan": "x"}, "vlan 'x'"),
        ({**RACK, "vlan": True}, "vlan 'True'"),
        ({**RACK, "physical_network": 7}, "physical_network '7'"),
        ({**RACK, "physical_network": ""}, "physical_network ''"),
        ({"local_link_information": "eth7"}, "'eth7' is not a list"),
        ({"local_link_information": ["eth7"]}, "is not a list of dictionaries"),
        ({**RACK, "local_link_information": [{"vlan": 6}]}, "vlan is 105 here and 6 there"),
    ],
)
def test_what_cannot_be_is_refused_by_name(world: World, profile: dict[str, Any], why: str) -> None:
    with pytest.raises(Invalid, match=why):
        server(world, profile)
    port = server(world, {})
    with pytest.raises(Invalid, match=why):
        world.change(port, ADMIN, binding__profile=profile)


def test_a_vlan_has_one_port_or_one_network(world: World) -> None:
    port = server(world, RACK)
    with pytest.raises(Conflict, match="VLAN 105 of physical network rack"):
        server(world, RACK)
    other = server(world, {**RACK, "vlan": 106})
    with pytest.raises(Conflict, match="VLAN 105"):
        world.change(other, ADMIN, binding__profile=RACK)
    provider = {"provider__network_type": "vlan", "provider__physical_network": "rack"}
    with pytest.raises(Conflict, match="VLAN 105"):
        world.make(NETWORKS, ADMIN, name="n", **provider, provider__segmentation_id=105)
    world.make(NETWORKS, ADMIN, name="n", **provider, provider__segmentation_id=107)
    with pytest.raises(Conflict, match="VLAN 107"):
        server(world, {**RACK, "vlan": 107})
    # It is free again when the server is plugged in elsewhere, or its port goes.
    world.change(port, ADMIN, binding__profile={**RACK, "vlan": 108})
    world.change(other, ADMIN, binding__profile=RACK)
    world.delete(other, ADMIN)
    server(world, RACK)


def test_a_standby_serves_the_same_place(world: World) -> None:
    for host in ("h1", "h2"):
        world.host(host, "", "rack")
    port = server(world, RACK, binding__host_id="h1")
    with pytest.raises(Invalid, match="plugged in at VLAN 105 of rack"):
        world.make(BINDINGS, NOVA, parent=port.id, host="h2", profile={**RACK, "vlan": 9})
    assert world.make(BINDINGS, NOVA, parent=port.id, host="h2").profile == RACK
    world.do(lambda d: BINDINGS.actions["activate"].verb(d, NOVA, f"{port.id}.h2", {}))
    moved = world.again(port)
    assert (moved.host, moved.link, moved.waiting) == ("h2", port.link, ("h1",))


def test_a_standby_serves_wherever_the_server_is_now(world: World) -> None:
    told = {
        host: (world.host(host, ip, "rack"), Listener(world, host))[1]
        for host, ip in (("h1", "192.0.2.1"), ("h2", "192.0.2.2"))
    }
    port = server(world, RACK, binding__host_id="h1")
    standby = world.make(BINDINGS, NOVA, parent=port.id, host="h2")

    def links() -> list[Any]:
        return [one.objects["port", port.id]["link"] for one in told.values()]

    world.change(port, ADMIN, binding__profile={**RACK, "vlan": 106})
    assert links() == [{"physnet": "rack", "vlan": 106}] * 2
    # Nor does the standby's binding say otherwise, then or later.
    world.change(standby, NOVA, profile={}, vnic_type="normal")
    with pytest.raises(Invalid, match="plugged in at VLAN 106"):
        world.change(standby, NOVA, profile=RACK)
    server(world, RACK)  # the VLAN that it had is free
    world.do(lambda d: BINDINGS.actions["activate"].verb(d, NOVA, f"{port.id}.h2", {}))
    assert links() == [{"physnet": "rack", "vlan": 106}] * 2
    # One that is no bare-metal server's any more is served by nobody.
    world.change(port, ADMIN, binding__vnic_type="normal")
    assert links() == [None] * 2
