"""Who may do what, as the declarations say it."""

from __future__ import annotations

from typing import Any

import pytest

from clouds import ALICE, BOB, COLLECTIONS, World
from crossway.control.caller import Caller, implied, may, sees
from crossway.errors import Forbidden, NotFound

READER = Caller("alice", roles=implied(["reader"]))
SERVICE = Caller("cloud", roles=implied(["service"]))


@pytest.mark.parametrize(
    "body", [{"shared": True}, {"router__external": True}, {"provider__network_type": "vxlan"}], ids=str
)
def test_what_only_admins_may_set(world: World, body: dict[str, Any]) -> None:
    world.network(**body)
    with pytest.raises(Forbidden):
        world.network(ALICE, **body)


@pytest.mark.parametrize("body", [{"binding__host_id": "h1"}, {"binding__profile": {"device": "tap0"}}], ids=str)
def test_what_services_may_set(world: World, body: dict[str, Any]) -> None:
    network = world.network(ALICE)
    world.port(network, SERVICE, project_id="alice", **body)
    with pytest.raises(Forbidden):
        world.port(network, ALICE, **body)


def test_saying_the_default_of_what_only_admins_may_set_is_harmless(world: World) -> None:
    world.network(ALICE, shared=False)


def test_what_does_not_change_needs_no_right(world: World) -> None:
    """Every attribute that has a rule of its own, said by its owner as it is."""
    outside = world.network(router__external=True)
    world.subnet(outside, "198.51.100.0/24")
    network = world.network(ALICE)
    subnet = world.subnet(network, "10.0.0.0/24", ALICE)
    pairs = [{"ip_address": "10.0.0.99"}]
    port = world.port(network, ALICE, allowed_address_pairs=pairs)
    router = world.router(ALICE, external_gateway_info={"network_id": outside.id})
    pool = world.make(COLLECTIONS["subnetpool"], ALICE, name="p", prefixes=["10.9.0.0/16"])
    said = set()
    for one in (network, subnet, port, router, pool):
        shown = one.kind.show(world.again(one))
        for wire, declared in one.kind.attributes.items():
            guarded = declared.put and declared.shown and (declared.update is not None or declared.parts)
            seen = declared.see is None or may(world.cloud, ALICE, declared.see, one) or not shown.get(wire)
            if guarded and wire in shown and seen and (one.kind.name, wire) != ("port", "trusted"):  # it takes no null
                world.change(one, ALICE, **{wire: shown[wire]})
                said.add(f"{one.kind.name}:{wire}")
    assert said > {"network:shared", "subnet:segment_id", "port:fixed_ips", "router:external_gateway_info", "router:ha"}
    with pytest.raises(Forbidden):
        world.change(router, ALICE, external_gateway_info={"network_id": outside.id, "enable_snat": False})


def test_a_refusal_does_not_tell_what_one_may_not_see(world: World) -> None:
    network = world.network(ALICE)
    for number in (network.segment, network.segment + 1):
        with pytest.raises(Forbidden):
            world.change(network, ALICE, provider__segmentation_id=number)


def test_readers_only_read(world: World) -> None:
    network = world.network(ALICE)
    assert sees(world.cloud, READER, network)
    for verb in (
        lambda: world.network(READER),
        lambda: world.change(network, READER, name="x"),
        lambda: world.delete(network, READER),
    ):
        with pytest.raises(Forbidden):
            verb()


def test_what_one_does_not_see_is_not_there(world: World) -> None:
    network = world.network(ALICE)
    for verb in (lambda: world.change(network, BOB, name="x"), lambda: world.delete(network, BOB)):
        with pytest.raises(NotFound):
            verb()


def test_a_networks_owner_is_master_of_its_ports(world: World) -> None:
    network = world.network(ALICE)
    port = world.port(network, project_id="bob")
    assert sees(world.cloud, ALICE, port)
    assert sees(world.cloud, BOB, port)
    world.delete(port, ALICE)
