"""Address groups, the rules that name them, and what hosts are told of those."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Any

import pytest

from clouds import ALICE, BOB, Listener, World
from crossway.control import address_group
from crossway.control.address_group import ADDRESS_GROUPS
from crossway.control.rbac import RBAC_POLICIES
from crossway.errors import Fault, NotFound
from crossway.plan.group import Named, rule_of
from crossway.plan.view import Group, decode


def act(world: World, verb: Any, group: Any, *addresses: str) -> Any:
    return world.do(lambda d: verb(d, ALICE, group.id, {"addresses": [*addresses]}))["address_group"]["addresses"]


def test_addresses_come_and_go_once(world: World) -> None:
    made = world.make(ADDRESS_GROUPS, ALICE, addresses=["10.0.0.1/24"])
    assert made.addresses == ("10.0.0.1/24",), "as it was said"
    assert act(world, address_group.add_addresses, made, "fd00::/64") == ("10.0.0.1/24", "fd00::/64")
    for verb, address, status in (
        (address_group.add_addresses, "fd00::/64", 400),
        (address_group.add_addresses, "10.0.0", 400),
        (address_group.remove_addresses, "10.0.0.1", 404),
        (address_group.remove_addresses, "10.9.0.0/24", 404),
    ):
        with pytest.raises(Fault) as raised:
            act(world, verb, made, address)
        assert raised.value.status == status
    assert act(world, address_group.remove_addresses, made, "10.0.0.1/24") == ("fd00::/64",)
    assert act(world, address_group.add_addresses, made, "10.0.0.1", "fd01::1")[1:] == ("10.0.0.1/32", "fd01::1/128")


def test_who_merely_sees_a_group_is_not_told_that_it_could_be_changed(world: World) -> None:
    made = world.make(ADDRESS_GROUPS, ALICE)
    world.make(
        RBAC_POLICIES, object_type="address_group", object_id=made.id, action="access_as_shared", target_tenant="bob"
    )
    for verb in (lambda: world.change(made, BOB, name="x"), lambda: world.delete(made, BOB)):
        with pytest.raises(NotFound):
            verb()


def test_a_rule_names_one_thing_and_holds_it(world: World) -> None:
    made, group = world.make(ADDRESS_GROUPS, ALICE), world.group(ALICE)
    rule = world.rule(group, ALICE, remote_address_group_id=made.id)
    with pytest.raises(Fault, match="already exists"):
        world.rule(group, ALICE, remote_address_group_id=made.id)
    with pytest.raises(Fault, match="Only one"):
        world.rule(group, ALICE, remote_address_group_id=made.id, remote_ip_prefix="10.0.0.0/8")
    with pytest.raises(Fault) as raised:
        world.delete(made, ALICE)
    assert (raised.value.type, raised.value.status) == ("AddressGroupInUse", 409)
    world.delete(rule, ALICE)
    world.delete(made, ALICE)


def test_hosts_are_told_the_prefixes_once_and_a_rule_about_them_is_never_one_for_all(world: World) -> None:
    world.host("h1")
    net = world.network(ALICE)
    world.subnet(net, "10.0.0.0/24", ALICE)
    group = world.group(ALICE)
    named = world.make(ADDRESS_GROUPS, ALICE)
    world.port(net, project_id="alice", security_groups=[group.id], binding__host_id="h1")
    listener = Listener(world, "h1")

    def told() -> list[set[str]]:
        world.settle()
        raw = listener.objects["group", group.id]
        # Who does not know of address groups takes a rule without a remote for one about anyone.
        assert not [rule for rule in raw["rules"] if rule["way"] == "in"]
        # What an agent makes of it.
        known = decode("group", raw)
        assert isinstance(known, Group)
        rules = [rule_of(rule, group.id, True, Named(known.addresses)) for rule in known.named]
        assert all(rule.prefixes is not None and rule.ports.matches for rule in rules)
        return [{str(IPv4Network((p.start & 0xFFFFFFFF, p.bits - 96))) for p in rule.prefixes or ()} for rule in rules]

    rule = world.rule(group, ALICE, remote_address_group_id=named.id)
    assert told() == [set()]
    act(world, address_group.add_addresses, named, "192.0.2.0/24", "198.51.100.7/32", "fd00::/64")
    assert told() == [{"192.0.2.0/24", "198.51.100.7/32"}]
    more = world.rule(group, ALICE, remote_address_group_id=named.id, protocol="tcp")
    assert told() == [{"192.0.2.0/24", "198.51.100.7/32"}] * 2
    assert len(listener.objects["group", group.id]["addresses"]) == 1
    act(world, address_group.remove_addresses, named, "192.0.2.0/24")
    assert told() == [{"198.51.100.7/32"}] * 2
    world.delete(more, ALICE)
    world.delete(rule, ALICE)
    assert told() == []
    listener.close()
