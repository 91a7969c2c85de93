"""A port is bound to a living host that can carry it, or its binding has failed; and Ironic's to what is no host."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from clouds import Caller, Listener, World
from crossway.control import host
from crossway.control.binding import BINDINGS
from crossway.control.caller import implied
from crossway.control.status import ALIVE_SECONDS
from crossway.errors import Conflict, Invalid
from crossway.model.link import Link, switch_ports
from crossway.model.port import VNIC_TYPES, Port

NOVA = Caller("service", roles=implied(["service"]))
NODE = "5f3c8a52-6a0b-4b0e-9d0f-0a4bb21c6a11"
RACK = {"physical_network": "rack", "vlan": 105}
CARRIED = {"normal": "tap", "baremetal": "other"}


def seen(world: World, port: Port) -> tuple[str, str, bool]:
    port = world.again(port)
    return port.vif_type, port.at, port.present


@pytest.mark.parametrize("vnic_type", VNIC_TYPES)
def test_hosts_carry_some_kinds_of_ports_and_no_others(world: World, vnic_type: str) -> None:
    world.host("h1")
    net = world.network()
    made = world.port(net, binding__host_id="h1", binding__vnic_type=vnic_type)
    late = world.change(world.port(net, binding__vnic_type=vnic_type), binding__host_id="h1")
    want = CARRIED.get(vnic_type, "binding_failed")
    for port in (made, late):
        assert (port.vif_type, port.host, bool(port.vif_details)) == (want, "h1", vnic_type in CARRIED)
        assert port.status == "DOWN"
    if vnic_type not in CARRIED:
        with pytest.raises(Conflict, match="could not be created") as refused:
            world.make(BINDINGS, NOVA, parent=world.port(net).id, host="h1", vnic_type=vnic_type)
        assert refused.value.type == "PortBindingError"


def test_a_binding_fails_where_no_host_lives_and_is_made_when_one_comes(world: World) -> None:
    net, away = world.network(), "h1"
    port = world.port(net, binding__host_id=away)
    watcher = (world.host("h2"), Listener(world, "h2"))[1]
    world.port(net, binding__host_id="h2")
    assert seen(world, port) == ("binding_failed", away, False)
    assert port.id not in watcher.ids("port"), "nobody is told of it"
    world.host(away)
    world.settle()
    assert seen(world, port) == ("tap", away, True)
    assert port.id in watcher.ids("port")
    # A host that dies keeps what it has; what is bound to it from then on has failed until it is back.
    world.now += ALIVE_SECONDS + 1
    world.status.tick()
    late = world.port(net, binding__host_id=away)
    same = world.change(port, binding__host_id=away, name="same")
    assert (seen(world, same)[0], seen(world, late)[0]) == ("tap", "binding_failed")
    with pytest.raises(Conflict, match="no living host"):
        world.make(BINDINGS, NOVA, parent=world.port(net).id, host=away)
    world.status.report(away, world.cloud.revision, {})
    world.settle()
    assert seen(world, late)[0] == "tap"


def test_a_port_whose_binding_failed_is_never_active(world: World) -> None:
    world.host("h1")
    port = world.port(world.network(), binding__host_id="h1", binding__vnic_type="direct")
    world.status.report("h1", world.cloud.revision, {port.id: True})
    world.settle()
    assert world.again(port).status == "DOWN"
    fits = world.change(port, binding__vnic_type="normal")
    assert fits.vif_type == "tap"
    world.status.report("h1", world.cloud.revision, {port.id: True})
    world.settle()
    assert world.again(port).status == "ACTIVE"


def test_a_failed_binding_is_tried_again_with_every_change_of_the_port(world: World) -> None:
    world.host("h1")
    world.now += ALIVE_SECONDS + 1
    world.status.tick()
    port = world.port(world.network(), binding__host_id="h1")
    world.status.seen["h1"] = world.now  # not told: the change alone
    assert world.change(port, name="again").vif_type == "tap"


def test_a_provider_network_is_carried_where_it_is(world: World) -> None:
    world.host("h1", "", "dc")
    world.host("h2")
    said = {"provider__network_type": "vlan", "provider__physical_network": "dc", "provider__segmentation_id": 7}
    net = world.network(**said)
    found = {name: world.port(net, binding__host_id=name) for name in ("h1", "h2")}
    assert [port.vif_type for port in found.values()] == ["tap", "binding_failed"]
    # A host that gets a device for it has its ports.
    world.host("h2", "", "dc")
    world.settle()
    assert seen(world, found["h2"])[0] == "tap"


def server(world: World, profile: dict[str, Any], at: str = NODE) -> Port:
    """Make a port as Ironic does: in two steps, bound to its node."""
    made = world.port(world.network(), binding__vnic_type="baremetal", device_id=NODE)
    attrs = {"binding__host_id": at, "device_owner": "baremetal:none", "binding__profile": profile}
    changed: Port = world.change(made, **attrs)
    return changed


def link(switch: str, port: str, info: str) -> dict[str, Any]:
    return {"local_link_information": [{"switch_id": switch, "port_id": port, "switch_info": info}]}


@pytest.mark.parametrize(
    "profile",
    [
        link("0A:00:00:00:00:01", "Eth1/5", "tor1"),
        link("x", "Eth1/6", "tor1"),
        link("x", "p", "physical_network=rack,vlan=105"),
        {**link("x", "p", "vlan=105"), "physical_network": "rack"},
        RACK,
    ],
    ids=["by switch_id", "by switch_info", "in switch_info", "with physical_network", "itself"],
)
def test_a_node_of_ironics_is_served_by_an_edge_of_its_rack(world: World, profile: dict[str, Any]) -> None:
    table = switch_ports("0a:00:00:00:00:01 Eth1/5 rack 105 # the first\n\ntor1 Eth1/6 rack 105\n")
    world.cloud.switch_ports = lambda: table
    edge = (world.host("h1", "", "rack"), Listener(world, "h1"))[1]
    world.host("h2", "", "other")
    port = server(world, profile)
    assert (port.host, port.at, port.vif_type) == (NODE, "h1", "other")
    told = edge.objects["port", port.id]
    assert (told["host"], told["link"]) == ("h1", {"physnet": "rack", "vlan": 105})
    world.status.report("h1", world.cloud.revision, {port.id: True})
    world.settle()
    assert world.again(port).status == "ACTIVE"
    with pytest.raises(Exception, match="in use"):
        world.do(lambda d: host.forget(d, "h1"))
    world.change(port, binding__host_id="", binding__profile={})
    assert (world.again(port).at, ("port", port.id) in edge.objects) == ("", False)


def test_without_a_word_on_its_vlan_or_an_edge_a_nodes_binding_fails(world: World) -> None:
    links = [{"switch_id": "0a:00:00:00:00:01", "port_id": "Eth1/5", "switch_info": "tor1"}]
    world.host("h1", "", "other")
    for profile in ({"local_link_information": links}, {"local_link_information": links, "physical_network": "rack"}):
        assert server(world, profile).vif_type == "binding_failed"
    port = server(world, RACK)
    assert port.vif_type == "binding_failed"
    # Until an edge comes.
    world.host("h2", "", "rack")
    world.settle()
    assert seen(world, port) == ("other", "h2", True)


def test_a_node_whose_edge_dies_stays_where_it_is_and_moves_to_its_standby(world: World) -> None:
    for name in ("h1", "h2"):
        world.host(name, "", "rack")
    port = server(world, RACK)
    first = port.at
    second = {"h1": "h2", "h2": "h1"}[first]
    world.make(BINDINGS, NOVA, parent=port.id, host=second)
    assert world.again(port).carriers == (first, second)
    world.do(lambda d: BINDINGS.actions["activate"].verb(d, NOVA, f"{port.id}.{second}", {}))
    moved = world.again(port)
    assert (moved.host, moved.at, moved.waiting, moved.vif_type) == (NODE, second, (first,), "other")
    # What Ironic says again changes nothing of that.
    assert world.change(moved, binding__host_id=NODE, binding__profile=RACK).at == second
    world.change(moved, binding__profile={**RACK, "vlan": 106})
    assert (world.again(port).at, world.again(port).link) == (second, Link("rack", 106))


def test_a_table_that_cannot_be_is_refused() -> None:
    for text, why in (
        ("a b c", "line 1"),
        ("a b c 5\na b c x", "line 2"),
        ("a b c 4095", "SWITCH PORT PHYSNET VLAN"),
        ("a b c 5\nA b d 6", "there twice"),
    ):
        with pytest.raises(ValueError, match=why):
            switch_ports(text)


def test_links_into_two_vlans_are_no_port(world: World) -> None:
    table = switch_ports("s 1 rack 105\ns 2 rack 106\n")
    world.cloud.switch_ports = lambda: table
    world.host("h1", "", "rack")
    links = [{"switch_id": "s", "port_id": n} for n in ("1", "2")]
    with pytest.raises(Invalid, match="several VLANs"):
        server(world, {"local_link_information": links})
    with pytest.raises(Invalid, match="another physical_network"):
        server(world, {"local_link_information": links[:1], "physical_network": "dc"})


def test_what_an_older_version_bound_as_a_guest_is_bound_anew(world: World) -> None:
    world.host("edge", "", "rack")
    served = server(world, RACK)
    lost = server(world, {"physical_network": "nowhere", "vlan": 5})
    plain = world.port(world.network(), binding__host_id="edge")
    for port in (served, lost):
        older = msgspec.structs.replace(world.again(port), vif_type="tap", edge="")
        world.do(lambda d, older=older: d.put(world.cloud.ports, older))
    later = World(world.runner, world.cloud.store)
    try:
        later.settle()
        assert seen(later, served) == ("other", "edge", True)
        assert seen(later, lost)[0] == "binding_failed"
        assert seen(later, plain)[0] == "tap"
    finally:
        later.stop()
