"""Hosts as the Networking API tells of them: as agents, all in one zone."""

from __future__ import annotations

import pytest

from clouds import ADMIN, ALICE, World
from crossway.control import agent
from crossway.control.agent import AGENTS, AVAILABILITY_ZONES
from crossway.control.caller import sees
from crossway.errors import Conflict, InUse, NotFound
from crossway.model.agent import Agent
from crossway.model.host import Host


def agents(world: World) -> dict[str, Agent]:
    assert AGENTS.rows
    return {found.host: found for found in AGENTS.rows(world.cloud, ADMIN)}


def test_each_host_is_an_agent_that_lives_while_it_reports(world: World) -> None:
    world.host("h1")
    world.status.report("h1", 0, {})
    assert agents(world)["h1"].alive
    world.now += 60
    world.status.tick()
    assert not agents(world)["h1"].alive


def test_what_operators_say_of_a_host_stays_when_it_registers_again(world: World) -> None:
    world.host("h1")
    id = agents(world)["h1"].id
    world.do(lambda d: agent.update(d, ADMIN, id, {"description": "rack 7", "admin_state_up": False}))
    world.host("h1", "192.0.2.9")
    found = agents(world)["h1"]
    assert (found.id, found.description, found.admin_state_up) == (id, "rack 7", False)
    assert found.configurations["underlay"] == "192.0.2.9"


def test_only_a_host_that_is_silent_and_empty_is_deleted(world: World) -> None:
    world.host("h1")
    id = agents(world)["h1"].id
    world.status.report("h1", 0, {})
    with pytest.raises(Conflict):
        world.do(lambda d: agent.delete(d, ADMIN, id))
    world.now += 60
    world.status.tick()
    port = world.port(world.network(), binding__host_id="h1")
    with pytest.raises(InUse):
        world.do(lambda d: agent.delete(d, ADMIN, id))
    world.delete(port)
    world.do(lambda d: agent.delete(d, ADMIN, id))
    assert agents(world) == {}
    with pytest.raises(NotFound):
        world.do(lambda d: agent.delete(d, ADMIN, id))


def test_agents_are_for_admins_and_zones_for_all(world: World) -> None:
    world.host("h1")
    assert AVAILABILITY_ZONES.rows
    assert not sees(world.cloud, ALICE, agents(world)["h1"])
    zones = list(AVAILABILITY_ZONES.rows(world.cloud, ALICE))
    assert {(zone.name, zone.resource) for zone in zones} == {("nova", "network"), ("nova", "router")}
    assert all(sees(world.cloud, ALICE, zone) for zone in zones)


def test_a_host_that_was_stored_by_an_older_version_is_read(world: World) -> None:
    assert Host(id="h", underlay="192.0.2.1").registered == ""
