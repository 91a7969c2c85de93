"""QoS policies and their rules."""

from __future__ import annotations

from typing import Any

import pytest

from clouds import ADMIN, ALICE, BOB, COLLECTIONS, World
from crossway.control.caller import Caller, implied, sees, shared
from crossway.control.decision import Decision
from crossway.control.floatingip import FLOATINGIPS
from crossway.control.qos import POLICIES, default_of, delete, rules
from crossway.errors import Conflict, Forbidden, Invalid, NotFound
from crossway.model.qos import Policy, QosRule
from crossway.store import Stale

OTHER = Caller("bob", roles=implied(["manager"]))
MANAGER = Caller("alice", roles=implied(["manager"]))
LIMIT, DSCP, MINIMUM, MINIMUM_PACKETS, PACKETS = (
    "bandwidth_limit_rule",
    "dscp_marking_rule",
    "minimum_bandwidth_rule",
    "minimum_packet_rate_rule",
    "packet_rate_limit_rule",
)


def policy(world: World, caller: Caller = ADMIN, **body: Any) -> Policy:
    made: Policy = world.make(POLICIES, caller, **body)
    return made


def rule(world: World, of: Policy, kind: str, caller: Caller = ADMIN, **body: Any) -> QosRule:
    made: QosRule = world.make(COLLECTIONS[kind], caller, parent=of.id, **body)
    return made


def told(world: World, of: Policy) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = POLICIES.derived["rules"](world.cloud, of)
    return found


def test_a_policy_tells_its_rules_with_their_types(world: World) -> None:
    made = policy(world)
    limit = rule(world, made, LIMIT, max_kbps="1000")
    mark = rule(world, made, DSCP, dscp_mark=26)
    assert told(world, made) == [
        {
            "id": limit.id,
            "max_kbps": 1000,
            "max_burst_kbps": 0,
            "direction": "egress",
            "type": "bandwidth_limit",
            "qos_policy_id": made.id,
        },
        {"id": mark.id, "dscp_mark": 26, "type": "dscp_marking", "qos_policy_id": made.id},
    ]


def test_a_policys_revision_counts_changes_of_its_rules(world: World) -> None:
    made = policy(world)
    limit = rule(world, made, LIMIT, max_kbps=1)
    world.change(limit, max_kbps=2)
    world.delete(limit)
    assert world.again(made).revision_number == 4


@pytest.mark.parametrize(
    ("kind", "body", "said"),
    [
        (LIMIT, {}, "max_kbps"),
        (LIMIT, {"max_kbps": -1}, "not in the range"),
        (LIMIT, {"max_kbps": 1, "direction": "any"}, "direction"),
        (DSCP, {"dscp_mark": 7}, "'7' is not in"),
        (DSCP, {"dscp_mark": "x"}, "not an integer"),
        (MINIMUM, {"min_kbps": 1 << 31}, "not in the range"),
        (MINIMUM_PACKETS, {"min_kpps": 1, "direction": "both"}, "direction"),
    ],
)
def test_rules_that_can_never_be(world: World, kind: str, body: dict[str, Any], said: str) -> None:
    with pytest.raises(Invalid, match=said):
        rule(world, policy(world), kind, **body)


@pytest.mark.parametrize(
    ("first", "second", "error"),
    [
        ((LIMIT, {"max_kbps": 9}), (LIMIT, {"max_kbps": 8}), "QoSRulesConflict"),
        ((LIMIT, {"max_kbps": 9}), (LIMIT, {"max_kbps": 8, "direction": "ingress"}), ""),
        ((DSCP, {"dscp_mark": 8}), (DSCP, {"dscp_mark": 10}), "QoSRulesConflict"),
        ((LIMIT, {"max_kbps": 9}), (MINIMUM, {"min_kbps": 10}), "QoSRuleParameterConflict"),
        ((LIMIT, {"max_kbps": 9}), (MINIMUM, {"min_kbps": 9}), ""),
        ((LIMIT, {"max_kbps": 9}), (MINIMUM, {"min_kbps": 10, "direction": "ingress"}), ""),
        ((MINIMUM, {"min_kbps": 9}), (LIMIT, {"max_kbps": 8}), "QoSRuleParameterConflict"),
        (
            (MINIMUM_PACKETS, {"min_kpps": 1, "direction": "any"}),
            (MINIMUM_PACKETS, {"min_kpps": 1}),
            "QoSRuleParameterConflict",
        ),
        (
            (MINIMUM_PACKETS, {"min_kpps": 1, "direction": "ingress"}),
            (MINIMUM_PACKETS, {"min_kpps": 1}),
            "",
        ),
        ((PACKETS, {"max_kpps": 1}), (PACKETS, {"max_kpps": 2}), "QoSRulesConflict"),
    ],
)
def test_which_rules_go_together(
    world: World, first: tuple[str, dict[str, Any]], second: tuple[str, dict[str, Any]], error: str
) -> None:
    made = policy(world)
    rule(world, made, first[0], **first[1])
    if not error:
        rule(world, made, second[0], **second[1])
        return
    with pytest.raises(Conflict) as refused:
        rule(world, made, second[0], **second[1])
    assert refused.value.type == error


def test_a_rule_may_not_become_what_it_could_not_be_made(world: World) -> None:
    made = policy(world)
    rule(world, made, LIMIT, max_kbps=9)
    other = rule(world, made, LIMIT, max_kbps=9, direction="ingress")
    with pytest.raises(Conflict):
        world.change(other, direction="egress")
    world.change(other, max_kbps=7)


def test_a_policy_goes_with_its_rules(world: World) -> None:
    made = policy(world, shared=True, is_default=True)
    rule(world, made, LIMIT, max_kbps=9)
    rule(world, made, DSCP, dscp_mark=0)
    rule(world, made, PACKETS, max_kpps=3)
    world.delete(made)
    assert not rules(world.cloud, made.id)
    assert not [key for key in world.stored() if key.startswith(("rbac/", "qos", "bandwidth", "packet", "dscp"))]


def test_a_policy_that_comes_to_be_used_is_not_deleted_at_the_same_time(world: World) -> None:
    made, user = policy(world), world.network()
    deleting = Decision(world.cloud)
    delete(deleting, ADMIN, made.id)
    world.change(user, qos_policy_id=made.id)
    with pytest.raises(Stale):
        world.runner.run(world.cloud.store.commit(deleting.transaction))
    deleting.close()
    world.change(user, qos_policy_id=None)
    world.delete(made)


def test_one_may_only_use_a_policy_that_one_sees(world: World) -> None:
    made = policy(world)
    with pytest.raises(NotFound) as refused:
        world.network(ALICE, qos_policy_id=made.id)
    assert refused.value.type == "QosPolicyNotFound"
    world.change(made, shared=True)
    assert world.network(ALICE, qos_policy_id=made.id).qos_policy_id == made.id


def test_one_may_not_stop_using_a_policy_that_one_does_not_see(world: World) -> None:
    made, user = policy(world), world.network(ALICE)
    world.change(user, qos_policy_id=made.id)
    with pytest.raises(Forbidden) as refused:
        world.change(user, ALICE, qos_policy_id=None)
    assert refused.value.type == "PolicyRemoveAuthorizationError"


def test_what_uses_a_policy_that_one_does_not_see_may_go(world: World) -> None:
    made = policy(world)
    for one in (world.network(ALICE), world.port(world.network(ALICE), ALICE)):
        world.change(one, qos_policy_id=made.id)
        world.delete(one, ALICE)
    assert not [key for key in world.stored() if key.startswith("uses/")]
    world.delete(made)


def test_a_policy_stays_shared_while_it_is_used(world: World) -> None:
    made = policy(world, shared=True)
    outside = world.network(router__external=True)
    world.subnet(outside, "198.51.100.0/24")
    used = world.make(FLOATINGIPS, ALICE, floating_network_id=outside.id, qos_policy_id=made.id)
    with pytest.raises(Conflict) as refused:
        world.change(made, shared=False)
    assert refused.value.type == "RbacPolicyInUse"
    with pytest.raises(Conflict) as refused:
        world.delete(made)
    assert refused.value.type == "QosPolicyInUse"
    world.delete(used, ALICE)
    world.change(made, shared=False)
    world.delete(made)


def test_sharing_a_policy_is_an_rbac_policy(world: World) -> None:
    made = policy(world, shared=True)
    (entry,) = world.cloud.rbac.by("object_id", made.id)
    assert (entry.object_type, entry.target, entry.project_id) == ("qos_policy", "*", made.project_id)
    assert sees(world.cloud, BOB, made)
    world.change(made, shared=True, name="still")
    assert len(world.cloud.rbac.by("object_id", made.id)) == 1
    world.change(made, shared=False)
    assert not shared(world.cloud, "bob", made)
    assert not sees(world.cloud, BOB, made)


def test_a_project_has_one_default_policy(world: World) -> None:
    first = policy(world, project_id="alice", is_default=True)
    other = policy(world, project_id="alice")
    policy(world, project_id="bob", is_default=True)
    assert default_of(world.cloud, "alice") == first.id
    for verb in (
        lambda: policy(world, project_id="alice", is_default=True),
        lambda: world.change(other, is_default=True),
    ):
        with pytest.raises(Conflict) as refused:
            verb()
        assert refused.value.type == "QoSPolicyDefaultAlreadyExists"
    world.change(first, is_default=False)
    assert default_of(world.cloud, "alice") is None
    world.change(other, is_default=True)
    world.change(other, is_default=True, name="x")
    assert default_of(world.cloud, "alice") == other.id


def test_managers_make_policies_and_members_do_not(world: World) -> None:
    made = policy(world, MANAGER)
    rule(world, made, LIMIT, MANAGER, max_kbps=1)
    with pytest.raises(Forbidden):
        policy(world, ALICE)
    for caller, error in ((ALICE, Forbidden), (BOB, Forbidden), (OTHER, NotFound)):
        with pytest.raises(error):
            rule(world, made, DSCP, caller, dscp_mark=0)
