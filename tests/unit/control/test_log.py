"""Logs of security groups and ports."""

from __future__ import annotations

from typing import Any

import pytest

from clouds import ADMIN, ALICE, BOB, World
from crossway.api import query
from crossway.control import group, port
from crossway.control.caller import Caller, implied
from crossway.control.decision import Decision
from crossway.control.log import LOGS, create
from crossway.errors import Fault, Forbidden
from crossway.model.log import Log
from crossway.store import Stale

MANAGER = Caller("alice", roles=implied(["manager"]))
NOBODY = "00000000-0000-4000-8000-000000000000"


def log(world: World, caller: Caller = ADMIN, **body: Any) -> Log:
    made: Log = world.make(LOGS, caller, **{"resource_type": "security_group", **body})
    return made


def test_a_log_is_of_a_group_a_port_or_both(world: World) -> None:
    on, guard, other = world.network(), world.group(name="g"), world.group(name="other")
    plug = world.port(on, security_groups=[guard.id])
    assert log(world, resource_id=guard.id, target_id=plug.id, event="DROP").event == "DROP"
    assert log(world).enabled
    refusals: tuple[tuple[dict[str, Any], str, int], ...] = (
        ({"resource_type": "firewall"}, "InvalidLogResourceType", 400),
        ({"resource_id": NOBODY}, "ResourceNotFound", 404),
        ({"target_id": NOBODY}, "TargetResourceNotFound", 404),
        ({"resource_id": other.id, "target_id": plug.id}, "InvalidResourceConstraint", 400),
    )
    for body, type, status in refusals:
        with pytest.raises(Fault) as refused:
            log(world, **body)
        assert (refused.value.type, refused.value.status) == (type, status)


def test_a_log_goes_with_its_group_or_its_port(world: World) -> None:
    on, guard = world.network(), world.group(name="g")
    plug = world.port(on, security_groups=[])
    log(world, resource_id=guard.id)
    log(world, target_id=plug.id)
    world.delete(guard)
    world.delete(plug)
    assert not [key for key in world.stored() if key.startswith(("log", "outside/"))]


def test_no_log_is_made_of_what_goes_at_the_same_time(world: World) -> None:
    on, guard = world.network(), world.group(name="g")
    plug = world.port(on, security_groups=[])
    both: tuple[tuple[Any, Any, dict[str, Any]], ...] = (
        (group.delete, guard, {"resource_id": guard.id}),
        (port.delete, plug, {"target_id": plug.id}),
    )
    for remove, what, body in both:
        late, later = Decision(world.cloud), Decision(world.cloud)
        remove(late, ADMIN, what.id)
        create(later, ADMIN, LOGS.kind.given({"resource_type": "security_group", **body}))
        log(world, **body)
        with pytest.raises(Stale):
            world.runner.run(world.cloud.store.commit(late.transaction))
        late.close()
        world.delete(what)
        with pytest.raises(Stale):
            world.runner.run(world.cloud.store.commit(later.transaction))
        later.close()


def test_logs_are_the_managers_business(world: World) -> None:
    made = log(world, MANAGER, name="mine")
    log(world, project_id="bob")
    assert world.change(made, MANAGER, enabled=False).enabled is False
    with pytest.raises(Forbidden):
        log(world, ALICE)

    def found(caller: Caller) -> list[Any]:
        return query.run(world.cloud, LOGS, caller, query.read(LOGS, [], caller))

    assert [one.id for one in found(MANAGER)] == [made.id]
    assert found(ALICE) == found(BOB) == []
    assert len(found(ADMIN)) == 2
