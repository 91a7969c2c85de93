"""Who may do what, as the declarations say it."""

from __future__ import annotations

from typing import Any

import pytest

from clouds import ALICE, BOB, World
from crossway.control.caller import Caller, implied, sees
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
