"""The rules that new security groups begin with, and whether these are stateful."""

from __future__ import annotations

from typing import Any

import pytest

from clouds import ADMIN, ALICE, BOB, World
from crossway.control import default_rule
from crossway.control.caller import Caller, implied
from crossway.control.default_rule import DEFAULT_RULES
from crossway.control.statefulness import STATEFULNESSES
from crossway.errors import Conflict, Forbidden, Invalid, NotFound
from crossway.model.default_rule import PARENT, DefaultRule
from crossway.model.group import Group
from crossway.model.rule import Rule
from crossway.model.statefulness import Statefulness

MANAGER = Caller("alice", roles=implied(["manager"]))
SSH: dict[str, Any] = {"direction": "ingress", "protocol": "tcp", "port_range_min": 22, "port_range_max": 22}


def template(world: World, caller: Caller = ADMIN, **body: Any) -> DefaultRule:
    made: DefaultRule = world.make(DEFAULT_RULES, caller, **body)
    return made


def rules(world: World, of: Group | str) -> list[Rule]:
    return world.cloud.rules.by("security_group_id", of if isinstance(of, str) else of.id)


def default_group(world: World, project: str) -> str:
    world.group(project_id=project, name="any")
    return world.cloud.defaults[project]


def told(found: list[Rule]) -> set[tuple[str, str, str | None, str | None]]:
    return {(r.direction, r.ethertype, r.remote_group_id, r.protocol) for r in found}


def test_the_first_four_are_neutrons(world: World) -> None:
    world.do(default_rule.write)
    found = world.cloud.of(DefaultRule).rows.values()
    assert {
        (r.direction, r.ethertype, r.remote_group_id, r.used_in_default_sg, r.used_in_non_default_sg) for r in found
    } == {
        ("egress", "IPv4", None, True, True),
        ("egress", "IPv6", None, True, True),
        ("ingress", "IPv4", PARENT, True, False),
        ("ingress", "IPv6", PARENT, True, False),
    }
    assert {r.description for r in found} == {
        f"Legacy default SG rule for {way} traffic" for way in ("egress", "ingress")
    }


@pytest.mark.parametrize("written", [False, True])
def test_groups_begin_with_them_written_down_or_not(world: World, written: bool) -> None:
    if written:
        world.do(default_rule.write)
    guard = world.group(project_id="alice", name="g")
    default = world.cloud.defaults["alice"]
    out = {("egress", "IPv4", None, None), ("egress", "IPv6", None, None)}
    assert told(rules(world, guard)) == out
    assert told(rules(world, default)) == out | {("ingress", e, default, None) for e in ("IPv4", "IPv6")}
    assert all(rule.belongs_to_default_sg for rule in rules(world, default))


def test_an_admin_changes_what_groups_begin_with(world: World) -> None:
    template(world, **SSH)
    everyone = template(world, direction="ingress", protocol="icmp", used_in_default_sg=True)
    default = default_group(world, "alice")
    guard = world.group(project_id="alice", name="g")
    assert ("ingress", "IPv4", None, "tcp") in told(rules(world, guard))
    assert ("ingress", "IPv4", None, "tcp") not in told(rules(world, default))
    assert ("ingress", "IPv4", None, "icmp") in told(rules(world, guard)) & told(rules(world, default))
    world.delete(everyone)
    for one in world.cloud.of(DefaultRule).by("remote_group_id", PARENT):
        world.delete(one)
    assert {way for way, *_ in told(rules(world, default_group(world, "bob")))} == {"egress"}


def test_a_template_names_a_group_that_is_there(world: World) -> None:
    friends = world.group(name="friends")
    template(world, **SSH, remote_group_id=friends.id)
    guard = world.group(name="g")
    assert ("ingress", "IPv4", friends.id, "tcp") in told(rules(world, guard))
    world.delete(friends)
    assert len(rules(world, world.group(name="h"))) == 2
    with pytest.raises(NotFound):
        template(world, direction="ingress", remote_group_id=friends.id)


@pytest.mark.parametrize(
    "uses", [{"used_in_default_sg": True}, {"used_in_non_default_sg": False, "used_in_default_sg": True}, {}], ids=str
)
def test_no_group_begins_with_a_rule_twice(world: World, uses: dict[str, Any]) -> None:
    template(world, **SSH, used_in_default_sg=True)
    with pytest.raises(Conflict) as refused:
        template(world, **SSH, **uses)
    assert refused.value.type == "DefaultSecurityGroupRuleExists"


def test_the_same_rule_for_either_kind_of_group(world: World) -> None:
    template(world, **SSH)
    template(world, **SSH, used_in_default_sg=True, used_in_non_default_sg=False)


@pytest.mark.parametrize(
    "body",
    [
        {"direction": "ingress", "port_range_min": 1, "port_range_max": 2},
        {"direction": "ingress", "remote_ip_prefix": "fd00::/8"},
        {"direction": "ingress", "remote_group_id": "parent"},
        {"ethertype": "IPv4"},
    ],
    ids=str,
)
def test_templates_are_checked_like_rules(world: World, body: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        template(world, **body)


def test_templates_are_the_admins(world: World) -> None:
    with pytest.raises(Forbidden):
        template(world, MANAGER, **SSH)


def stateful(world: World, caller: Caller = ADMIN, **body: Any) -> Statefulness:
    made: Statefulness = world.make(STATEFULNESSES, caller, **body)
    return made


def test_a_group_is_as_stateful_as_its_project_says_or_all_do(world: World) -> None:
    all_of_them = stateful(world, stateful=False)
    mine = stateful(world, MANAGER, project_id="alice", stateful=True)
    assert world.group(ALICE, name="g").stateful
    assert not world.group(BOB, name="g").stateful
    assert world.group(BOB, name="h", stateful=True).stateful
    world.change(mine, MANAGER, stateful=False)
    assert not world.group(ALICE, name="h").stateful
    world.delete(mine, MANAGER)
    world.delete(all_of_them)
    assert world.group(ALICE, name="i").stateful


def test_each_says_so_once(world: World) -> None:
    each: tuple[dict[str, Any], ...] = ({}, {"project_id": "alice"})
    for whose in each:
        stateful(world, **whose)
        with pytest.raises(Conflict) as refused:
            stateful(world, **whose)
        assert refused.value.type == "SecurityGroupDefaultStatefulnessAlreadyExists"


def test_only_an_admin_speaks_for_all(world: World) -> None:
    for caller in (MANAGER, ALICE):
        with pytest.raises(Forbidden):
            stateful(world, caller)
    assert not world.cloud.of(Statefulness).rows
