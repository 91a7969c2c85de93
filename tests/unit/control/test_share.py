"""RBAC policies: what is shared with whom, and what of that may end."""

from __future__ import annotations

from typing import Any

import pytest

from clouds import ADMIN, ALICE, BOB, World
from crossway.control.address_group import ADDRESS_GROUPS
from crossway.control.address_scope import ADDRESS_SCOPES
from crossway.control.caller import sees, shared
from crossway.control.rbac import RBAC_POLICIES
from crossway.control.subnetpool import SUBNETPOOLS
from crossway.errors import Conflict, Fault, Forbidden, Invalid, NotFound
from crossway.model.rbac import ACCESS_AS_EXTERNAL, ACCESS_AS_SHARED


def allow(world: World, what: Any, target: str, caller: Any = ADMIN, action: str = ACCESS_AS_SHARED) -> Any:
    body = {"object_type": what.kind.rbac, "object_id": what.id, "action": action, "target_tenant": target}
    return world.make(RBAC_POLICIES, caller, **body)


def made(world: World, kind: str) -> Any:
    match kind:
        case "network":
            return world.network(ALICE)
        case "security_group":
            return world.group(ALICE)
        case "subnetpool":
            return world.make(SUBNETPOOLS, ALICE, name="p", prefixes=["10.0.0.0/8"])
        case "address_scope":
            return world.make(ADDRESS_SCOPES, ALICE, ip_version=4)
    return world.make(ADDRESS_GROUPS, ALICE, addresses=["10.0.0.0/8"])


KINDS = ["network", "security_group", "subnetpool", "address_scope", "address_group"]


@pytest.mark.parametrize("kind", KINDS)
def test_its_owner_shares_it_with_another_project(world: World, kind: str) -> None:
    what = made(world, kind)
    assert not sees(world.cloud, BOB, what)
    policy = allow(world, what, "bob", ALICE)
    now = world.again(what)
    assert sees(world.cloud, BOB, now)
    assert shared(world.cloud, "bob", now)
    assert not shared(world.cloud, "alice", now)
    with pytest.raises(Conflict, match="already exists"):
        allow(world, what, "bob", ALICE)
    world.delete(policy, ALICE)
    assert not sees(world.cloud, BOB, world.again(what))


@pytest.mark.parametrize("kind", KINDS)
def test_what_goes_takes_its_policies_along(world: World, kind: str) -> None:
    what = made(world, kind)
    allow(world, what, "bob", ALICE)
    world.delete(what, ALICE)
    assert not [key for key in world.stored() if key.startswith(("rbac/", "held/"))]


def test_only_admins_share_with_everyone_and_only_owners_at_all(world: World) -> None:
    net = world.network(ALICE)
    with pytest.raises(Forbidden):
        allow(world, net, "*", ALICE)
    with pytest.raises(Invalid):
        allow(world, net, "bob", BOB)
    allow(world, net, "bob")
    with pytest.raises(Invalid):
        allow(world, net, "carol", BOB)
    with pytest.raises(Invalid):
        allow(world, world.group(ALICE), "bob", ALICE, ACCESS_AS_EXTERNAL)


def test_shared_and_external_are_words_for_policies(world: World) -> None:
    net = world.network(shared=True, router__external=True)
    policies = {p.action: p for p in world.cloud.rbac.by("object_id", net.id)}
    assert policies.keys() == {ACCESS_AS_SHARED, ACCESS_AS_EXTERNAL}
    for policy in policies.values():
        world.delete(policy)
    net = world.again(net)
    assert (net.shared, net.external) == (False, False)
    for action in (ACCESS_AS_SHARED, ACCESS_AS_EXTERNAL):
        allow(world, net, "*", action=action)
    net = world.again(net)
    assert (net.shared, net.external) == (True, True)
    world.change(net, shared=False, router__external=False)
    assert not world.cloud.rbac.by("object_id", net.id)


def test_a_network_external_to_one_project_is_not_there_for_others(world: World) -> None:
    net = world.network()
    allow(world, net, "alice", action=ACCESS_AS_EXTERNAL)
    net = world.again(net)
    assert net.external
    assert sees(world.cloud, ALICE, net)
    assert not sees(world.cloud, BOB, net)


def used(world: World, kind: str, what: Any) -> None:
    match kind:
        case "network":
            world.port(what, BOB)
        case "security_group":
            world.port(world.network(BOB), BOB, security_groups=[what.id])
        case "subnetpool":
            body = {"network_id": world.network(BOB).id, "ip_version": 4, "subnetpool_id": what.id, "prefixlen": 26}
            from crossway.control.subnet import SUBNETS

            world.make(SUBNETS, BOB, **body)
        case "address_group":
            world.rule(world.group(BOB), BOB, remote_address_group_id=what.id)


@pytest.mark.parametrize("kind", ["network", "security_group", "subnetpool", "address_group"])
@pytest.mark.parametrize("target", ["bob", "*"])
def test_a_policy_stays_while_another_project_rests_on_it(world: World, kind: str, target: str) -> None:
    what = made(world, kind)
    policy = allow(world, what, target)
    used(world, kind, what)
    for verb in (lambda: world.delete(policy), lambda: world.change(policy, target_tenant="carol")):
        with pytest.raises(Fault) as raised:
            verb()
        assert (raised.value.status, raised.value.type) == (409, "RbacPolicyInUse")
    if target == "*":
        # As if it ended, and another were made.
        with pytest.raises(Conflict):
            world.change(policy, target_tenant="bob")
    other = allow(world, what, "*" if target == "bob" else "bob")
    world.delete(policy)
    with pytest.raises(Conflict):
        world.delete(other)


def test_a_policy_that_goes_while_it_begins_to_be_used_is_not_used(world: World) -> None:
    net = world.network(ALICE)
    policy = allow(world, net, "bob")
    from crossway.control import port, rbac
    from crossway.control.decision import Decision
    from crossway.model.port import PORT
    from crossway.store import Stale

    for first, second in ((0, 1), (1, 0)):
        decisions = Decision(world.cloud), Decision(world.cloud)
        port.create(decisions[0], BOB, PORT.given({"network_id": net.id}))
        rbac.delete(decisions[1], ADMIN, policy.id)
        commit = world.cloud.store.commit
        if first == 0:
            world.runner.run(commit(decisions[first].transaction))
            with pytest.raises(Stale):
                world.runner.run(commit(decisions[second].transaction))
            world.settle()
            for one in world.cloud.ports.by("network_id", net.id):
                world.delete(one)
        else:
            world.runner.run(commit(decisions[first].transaction))
            with pytest.raises(Stale):
                world.runner.run(commit(decisions[second].transaction))
        for decision in decisions:
            decision.close()


def test_pools_are_put_in_scopes_that_are_shared_and_shared_with_who_has_the_scope(world: World) -> None:
    scope = world.make(ADDRESS_SCOPES, ADMIN, name="s", ip_version=4)
    allow(world, scope, "alice")
    body = {"name": "p", "prefixes": ["10.0.0.0/16"], "default_prefixlen": 24, "address_scope_id": scope.id}
    pool = world.make(SUBNETPOOLS, ALICE, **body)
    with pytest.raises(NotFound):
        world.make(SUBNETPOOLS, BOB, **{**body, "prefixes": ["10.1.0.0/16"]})
    with pytest.raises(Invalid, match="doesn't have access"):
        allow(world, pool, "bob", ALICE)
    allow(world, scope, "bob")
    allow(world, pool, "bob", ALICE)


def test_the_default_external_network_stays_everyones(world: World) -> None:
    net = world.network(router__external=True, is_default=True)
    (policy,) = world.cloud.rbac.by("object_id", net.id)
    for verb in (lambda: world.delete(policy), lambda: world.change(policy, target_tenant="bob")):
        with pytest.raises(Conflict, match="shared to everyone"):
            verb()
    world.change(net, is_default=False)
    world.delete(policy)
    assert not world.again(net).external
