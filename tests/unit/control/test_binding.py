"""Bindings of a port to hosts where it is not yet."""

from __future__ import annotations

from typing import Any

import pytest

from clouds import ALICE, Caller, Listener, World
from crossway.control import binding
from crossway.control.binding import BINDINGS, below
from crossway.control.caller import implied
from crossway.errors import Fault
from crossway.model.port import Port

NOVA = Caller("service", roles=implied(["service"]))


def refused(by: Any, *args: Any, type: str, status: int, **options: Any) -> None:
    with pytest.raises(Fault) as caught:
        by(*args, **options)
    assert (caught.value.type, caught.value.status) == (type, status), str(caught.value)


def activate(world: World, port: Port, host: str) -> Any:
    return world.do(lambda d: BINDINGS.actions["activate"].verb(d, NOVA, f"{port.id}.{host}", {}))


def told(world: World, port: Port) -> dict[str, str]:
    return {binding.host: binding.status for binding in below(world.cloud, port.id)}


@pytest.fixture
def port(world: World) -> Port:
    world.host("h1")
    world.host("h2", "192.0.2.2")
    return world.port(world.network(ALICE), binding__host_id="h1", device_owner="compute:nova", project_id="alice")


def test_a_port_moves_when_its_other_binding_is_activated(world: World, port: Port) -> None:
    here, there = Listener(world, "h1"), Listener(world, "h2")
    made = world.make(BINDINGS, NOVA, parent=port.id, host="h2", profile={"device": "tap9"})
    assert (made.status, made.vif_type, made.project_id) == ("INACTIVE", "tap", "alice")
    assert told(world, port) == {"h1": "ACTIVE", "h2": "INACTIVE"}
    # Where it may go all is known that it will need.
    assert there.objects["port", port.id]["waiting"] == ["h2"]
    assert activate(world, port, "h2")["status"] == "ACTIVE"
    moved = world.again(port)
    assert (moved.host, moved.profile, moved.status) == ("h2", {"device": "tap9"}, "DOWN")
    assert told(world, port) == {"h2": "ACTIVE", "h1": "INACTIVE"}
    assert there.objects["port", port.id]["host"] == "h2"
    # And where it was, until that binding goes: what still comes there goes on to it.
    assert here.objects["port", port.id]["waiting"] == ["h1"]
    activate(world, port, "h1")
    assert told(world, port) == {"h1": "ACTIVE", "h2": "INACTIVE"}


def test_bindings_change_and_go(world: World, port: Port) -> None:
    made = world.make(BINDINGS, NOVA, parent=port.id, host="h2")
    assert world.change(made, NOVA, vnic_type="direct").vnic_type == "direct"
    active = below(world.cloud, port.id)[0]
    world.change(active, NOVA, profile={"a": 1})
    assert world.again(port).profile == {"a": 1}
    world.delete(made, NOVA)
    assert told(world, port) == {"h1": "ACTIVE"}
    world.delete(active, NOVA)
    assert world.again(port).host == ""


def test_they_go_with_the_port_and_where_it_goes_otherwise(world: World, port: Port) -> None:
    world.make(BINDINGS, NOVA, parent=port.id, host="h2")
    world.change(port, NOVA, binding__host_id="h2")
    assert told(world, port) == {"h2": "ACTIVE"}
    world.make(BINDINGS, NOVA, parent=port.id, host="h1")
    world.delete(port)
    assert not [key for key in world.stored() if key.startswith("port_binding/")]


def test_what_is_refused(world: World, port: Port) -> None:
    world.make(BINDINGS, NOVA, parent=port.id, host="h2")
    for host in ("h1", "h2"):
        refused(world.make, BINDINGS, NOVA, parent=port.id, host=host, type="PortBindingAlreadyExists", status=409)
    refused(activate, world, port, "h1", type="PortBindingAlreadyActive", status=409)
    refused(activate, world, port, "h3", type="PortBindingNotFound", status=404)
    refused(world.make, BINDINGS, NOVA, parent=port.id, host="", type="Invalid", status=400)
    network = world.network(ALICE)
    served = world.port(network, Caller("admin", roles=implied(["admin"])), device_owner="network:dhcp")
    refused(world.make, BINDINGS, NOVA, parent=served.id, host="h2", type="BadRequest", status=400)
    assert below(world.cloud, served.id) == []


def hand_over(world: World, host: str, id: str, flows: str) -> None:
    world.do(lambda d: binding.hand_over(d, host, id, flows))


def test_connections_are_told_where_the_port_may_go(world: World, port: Port) -> None:
    here, there = Listener(world, "h1"), Listener(world, "h2")
    hand_over(world, "h1", port.id, "none waits")
    assert not world.cloud.handovers.rows
    world.make(BINDINGS, NOVA, parent=port.id, host="h2")
    hand_over(world, "h1", port.id, "AAAA")
    told = f"{port.id}.h1"
    assert there.objects["handover", told] == {"id": told, "port": port.id, "by": "h1", "flows": "AAAA"}
    assert here.ids("handover") == set()
    # One that comes back hears of it, too.
    assert Listener(world, "h2").ids("handover") == {told}
    activate(world, port, "h2")
    hand_over(world, "h1", port.id, "BBBB")
    assert there.objects["handover", told]["flows"] == "BBBB"
    world.delete(next(b for b in below(world.cloud, port.id) if b.host == "h1"), NOVA)
    assert here.ids("port") == set()
    assert there.ids("handover") == set()
    assert not world.cloud.handovers.rows


def test_a_word_of_before_does_not_stand_for_what_is_so_now(world: World, port: Port) -> None:
    world.make(BINDINGS, NOVA, parent=port.id, host="h2")
    here, there = Listener(world, "h1"), Listener(world, "h2")
    activate(world, port, "h2")
    hand_over(world, "h2", port.id, "NEW")
    hand_over(world, "h1", port.id, "LATE")  # what it had when the port left it
    assert here.objects["handover", f"{port.id}.h2"]["flows"] == "NEW"
    assert there.objects["handover", f"{port.id}.h1"]["flows"] == "LATE"
    # On its way back the port takes along what the host knows that it leaves.
    activate(world, port, "h1")
    assert here.ids("handover") == {f"{port.id}.h2"}
    assert there.ids("handover") == set()


def test_a_host_where_a_port_may_go_hears_what_was_told_before(world: World, port: Port) -> None:
    world.host("h3", "192.0.2.3")
    world.make(BINDINGS, NOVA, parent=port.id, host="h2")
    late = Listener(world, "h3")
    hand_over(world, "h1", port.id, "AAAA")
    assert late.ids("handover") == set()
    world.make(BINDINGS, NOVA, parent=port.id, host="h3")
    assert late.ids("handover") == {f"{port.id}.h1"}
    world.delete(next(b for b in below(world.cloud, port.id) if b.host == "h3"), NOVA)
    assert late.ids("handover") == set()


def test_what_was_told_of_connections_goes_with_the_last_binding_that_waits(world: World, port: Port) -> None:
    world.make(BINDINGS, NOVA, parent=port.id, host="h2")
    hand_over(world, "h1", port.id, "AAAA")
    world.change(port, binding__host_id="h2")
    assert (world.again(port).host, world.again(port).waiting) == ("h2", ())
    assert not world.cloud.handovers.rows


def test_who_has_nothing_to_do_with_a_port_tells_nothing_of_it(world: World, port: Port) -> None:
    world.host("h3", "192.0.2.3")
    for host, id in (("h3", port.id), ("h1", "00000000-0000-0000-0000-000000000000")):
        with pytest.raises(Fault):
            hand_over(world, host, id, "")


def test_a_host_knows_what_a_port_needs_before_it_comes(world: World, port: Port) -> None:
    there = Listener(world, "h2")
    world.make(BINDINGS, NOVA, parent=port.id, host="h2")
    found = world.again(port)
    assert there.ids("network") == {found.network_id}
    assert there.ids("group") == set(found.security_groups)
    assert there.ids("identity") == {str(found.identity)}
    assert there.ids("host") == {"h1", "h2"}
    world.delete(port)
    assert not any(there.ids(kind) for kind in ("port", "network", "group", "identity"))
    refused(world.make, BINDINGS, ALICE, parent=port.id, host="h3", type="PolicyNotAuthorized", status=403)
