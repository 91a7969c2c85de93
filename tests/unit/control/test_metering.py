"""Metering labels and their rules."""

from __future__ import annotations

from typing import Any

import pytest

from clouds import ADMIN, ALICE, BOB, World
from crossway.control.caller import Caller, implied, sees
from crossway.control.decision import Decision
from crossway.control.metering import METERING_LABEL_RULES, METERING_LABELS, create_rule, delete_label
from crossway.errors import Conflict, Forbidden, Invalid, NotFound
from crossway.model.metering import MeteringLabel, MeteringLabelRule
from crossway.store import Stale

OTHER = Caller("bob", roles=implied(["manager"]))
MANAGER = Caller("alice", roles=implied(["manager"]))


def label(world: World, caller: Caller = ADMIN, **body: Any) -> MeteringLabel:
    made: MeteringLabel = world.make(METERING_LABELS, caller, **body)
    return made


def rule(world: World, of: MeteringLabel, caller: Caller = ADMIN, **body: Any) -> MeteringLabelRule:
    body = {"metering_label_id": of.id, "direction": "ingress", **body}
    made: MeteringLabelRule = world.make(METERING_LABEL_RULES, caller, **body)
    return made


def test_a_prefix_is_told_without_host_bits(world: World) -> None:
    made = label(world)
    assert rule(world, made, remote_ip_prefix="10.0.0.5/24").remote_ip_prefix == "10.0.0.5/24"
    assert rule(world, made, source_ip_prefix="fd00::1").source_ip_prefix == "fd00::1/128"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "at least one"),
        ({"remote_ip_prefix": "10.0.0.0/8", "source_ip_prefix": "10.0.0.0/8"}, "in conjunction"),
        ({"remote_ip_prefix": "10.0.0.0/33"}, "remote_ip_prefix"),
        ({"remote_ip_prefix": "10.0.0.0/8", "direction": "both"}, "direction"),
    ],
)
def test_rules_that_can_never_be(world: World, body: dict[str, Any], said: str) -> None:
    with pytest.raises(Invalid, match=said):
        rule(world, label(world), **body)


@pytest.mark.parametrize(
    ("body", "fits"),
    [
        ({"remote_ip_prefix": "10.1.0.0/16"}, False),
        ({"remote_ip_prefix": "0.0.0.0/0"}, False),
        ({"remote_ip_prefix": "11.0.0.0/8"}, True),
        ({"remote_ip_prefix": "10.1.0.0/16", "direction": "egress"}, True),
        ({"remote_ip_prefix": "10.1.0.0/16", "excluded": True}, True),
        ({"remote_ip_prefix": "fd00::/8"}, True),
        ({"source_ip_prefix": "10.1.0.0/16"}, True),
    ],
)
def test_rules_of_a_label_do_not_overlap(world: World, body: dict[str, Any], fits: bool) -> None:
    made = label(world)
    rule(world, made, remote_ip_prefix="10.0.0.0/8")
    rule(world, label(world), **body)
    if fits:
        rule(world, made, **body)
        return
    with pytest.raises(Conflict) as refused:
        rule(world, made, **body)
    assert refused.value.type == "MeteringLabelRuleOverlaps"


def test_two_rules_that_overlap_are_not_made_at_the_same_time(world: World) -> None:
    made = label(world)
    given = METERING_LABEL_RULES.kind.given(
        {"metering_label_id": made.id, "direction": "ingress", "remote_ip_prefix": "10.0.0.0/8"}
    )
    late = Decision(world.cloud)
    create_rule(late, ADMIN, dict(given))
    rule(world, made, remote_ip_prefix="10.0.0.0/16")
    with pytest.raises(Stale):
        world.runner.run(world.cloud.store.commit(late.transaction))
    late.close()


def test_a_label_goes_with_its_rules(world: World) -> None:
    made = label(world)
    rule(world, made, remote_ip_prefix="10.0.0.0/8")
    late = Decision(world.cloud)
    delete_label(late, ADMIN, made.id)
    other = rule(world, made, remote_ip_prefix="11.0.0.0/8")
    with pytest.raises(Stale):
        world.runner.run(world.cloud.store.commit(late.transaction))
    late.close()
    world.delete(made)
    assert not [key for key in world.stored() if key.startswith("metering")]
    assert not world.cloud.of(MeteringLabelRule).get(other.id)


def test_managers_make_them_and_members_see_them(world: World) -> None:
    made = label(world, MANAGER)
    found = rule(world, made, MANAGER, remote_ip_prefix="10.0.0.0/8")
    assert sees(world.cloud, ALICE, found)
    assert not sees(world.cloud, BOB, found)
    with pytest.raises(Forbidden):
        label(world, ALICE)
    for caller, error in ((ALICE, Forbidden), (BOB, Forbidden), (OTHER, NotFound)):
        with pytest.raises(error):
            rule(world, made, caller, remote_ip_prefix="11.0.0.0/8")
