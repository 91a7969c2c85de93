"""Bindings of a port to hosts where it is not yet."""

from __future__ import annotations

from typing import Any

import pytest

from clouds import ALICE, Caller, Listener, World
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
    assert there.ids("port") == set()
    assert activate(world, port, "h2")["status"] == "ACTIVE"
    moved = world.again(port)
    assert (moved.host, moved.profile, moved.status) == ("h2", {"device": "tap9"}, "DOWN")
    assert told(world, port) == {"h2": "ACTIVE", "h1": "INACTIVE"}
    assert there.objects["port", port.id]["host"] == "h2"
    assert here.ids("port") == set()
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
    plain = world.port(world.network(ALICE), ALICE)
    refused(world.make, BINDINGS, NOVA, parent=plain.id, host="h2", type="BadRequest", status=400)
    assert below(world.cloud, plain.id) == []
    refused(world.make, BINDINGS, ALICE, parent=port.id, host="h3", type="PolicyNotAuthorized", status=403)
