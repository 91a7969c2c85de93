"""The network that a project's `ha` routers have, as clients of Neutron look it up."""

from __future__ import annotations

import pytest

from clouds import ADMIN, ALICE, World
from crossway.control import router
from crossway.control.decision import Decision
from crossway.model.network import Network
from crossway.model.router import ROUTER
from crossway.store import Stale

NAME = "HA network tenant alice"


def found(world: World, project: str = "alice") -> list[Network]:
    return world.cloud.networks.by("name", f"HA network tenant {project}")


def test_it_comes_with_the_first_such_router_and_goes_with_the_last(world: World) -> None:
    before = world.stored()
    world.delete(world.router(ALICE))
    assert not found(world)
    first, second = (world.router(project_id="alice", ha=True) for _ in range(2))
    (network,) = found(world)
    assert (network.project_id, network.shared, network.type) == ("", False, "vxlan")
    world.router(project_id="bob", ha=True)
    world.delete(first, ALICE)
    assert found(world) == [network]
    world.change(second, admin_state_up=False)
    world.change(second, ha=False)
    assert not found(world)
    world.change(second, ha=True)
    assert len(found(world)) == 1
    world.delete(second, ALICE)
    assert len(found(world, "bob")) == 1
    world.delete(next(iter(world.cloud.routers.rows.values())))
    assert {key for key in world.stored() if not key.startswith("counter/")} == set(before)


def test_two_routers_that_come_first_at_once_have_one(world: World) -> None:
    making = Decision(world.cloud)
    router.create(making, ADMIN, {**ROUTER.given({"ha": True}), "project_id": "alice"})
    world.router(project_id="alice", ha=True)
    with pytest.raises(Stale):
        world.runner.run(world.cloud.store.commit(making.transaction))
    making.close()
    assert len(found(world)) == 1


def test_one_that_is_used_or_a_projects_own_stays(world: World) -> None:
    own = world.network(ALICE, name=NAME)
    made = world.router(project_id="alice", ha=True)
    (network,) = [one for one in found(world) if one.id != own.id]
    port = world.port(network)
    world.delete(made)
    assert {one.id for one in found(world)} == {own.id, network.id}
    world.delete(port)
    world.delete(network)
    assert found(world) == [own]


def test_one_that_an_operator_has_deleted_is_not_missed(world: World) -> None:
    made = world.router(project_id="alice", ha=True)
    world.delete(found(world)[0])
    other = world.router(project_id="alice", ha=True)
    world.delete(made)
    assert len(found(world)) == 1
    world.delete(other)
    assert not found(world)
