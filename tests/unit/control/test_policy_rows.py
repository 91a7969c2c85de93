"""How many rows of policy a project's ports take: a bound that holds, and that no project goes beyond."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clouds import ADMIN, ALICE, BOB, Listener, World
from crossway.control import address_group, policy_rows
from crossway.control.address_group import ADDRESS_GROUPS
from crossway.control.cloud import Cloud
from crossway.control.decision import decide
from crossway.control.quota import details
from crossway.control.rbac import RBAC_POLICIES
from crossway.control.rule import RULES
from crossway.errors import Conflict, Fault, Invalid, OverQuota
from crossway.model import rows as r
from crossway.model.group import Group
from crossway.model.network import Network
from crossway.model.quota import of_project
from crossway.plan.plan import Document, Plan
from crossway.plan.port import Body
from crossway.plan.rows import POLICY
from crossway.plan.view import decode
from crossway.store.memory import MemoryStore

NARROW = {"protocol": "tcp", "port_range_min": 1, "port_range_max": 65534}  # 30 rows


@pytest.fixture
def limited() -> Iterator[World]:
    """A world whose projects may have 100 rows of policy."""
    with asyncio.Runner() as runner:
        made = World(runner, MemoryStore(), {"policy_row": 100})
        yield made
        made.stop()


def used(world: World, project: str = "alice") -> int:
    told: dict[str, dict[str, int]] = world.do(lambda d: details(d, ADMIN, project, None))["quota"]
    assert told["policy_row"]["reserved"] == 0
    return told["policy_row"]["used"]


def net_of(world: World) -> Network:
    net = world.network(ADMIN, shared=True)
    world.subnet(net, "10.0.0.0/24", ADMIN)
    return net


def bare(world: World, caller: Any = ALICE) -> Group:
    """Return a group without rules."""
    group = world.group(caller)
    for rule in world.cloud.rules.by("security_group_id", group.id):
        world.delete(rule, caller)
    return group


def named(world: World, count: int, first: int = 0) -> Any:
    return world.make(ADDRESS_GROUPS, ALICE, addresses=[f"10.1.{n >> 8}.{n & 255}/32" for n in range(first, count)])


def add(world: World, of: Any, *addresses: str) -> None:
    world.do(lambda d: address_group.add_addresses(d, ALICE, of.id, {"addresses": [*addresses]}))


def test_a_rule_counts_for_each_set_of_groups_in_use(limited: World) -> None:
    net, group, other = net_of(limited), bare(limited), bare(limited)
    limited.rule(group, ALICE, **NARROW)
    assert used(limited) == 0
    limited.port(net, ALICE, security_groups=[group.id])
    assert used(limited) == 30
    limited.port(net, ALICE, security_groups=[group.id])
    assert used(limited) == 30
    port = limited.port(net, ALICE, security_groups=[group.id, other.id])
    assert used(limited) == 60
    rule = limited.rule(other, ALICE, remote_ip_prefix="10.0.0.0/8")
    assert used(limited) == 62
    limited.delete(rule, ALICE)
    limited.delete(port, ALICE)
    assert used(limited) == 30


def test_prefixes_and_ports_add(limited: World) -> None:
    net, group, addresses = net_of(limited), bare(limited), named(limited, 60)
    limited.port(net, ALICE, security_groups=[group.id])
    limited.rule(group, ALICE, remote_address_group_id=addresses.id, **NARROW)
    assert used(limited) == 90
    limited.rule(group, ALICE, remote_address_group_id=addresses.id, protocol="udp")
    assert used(limited) == 91


def test_a_rule_too_many_is_refused(limited: World) -> None:
    net, group, addresses = net_of(limited), bare(limited), named(limited, 71)
    limited.port(net, ALICE, security_groups=[group.id])
    with pytest.raises(OverQuota, match=r"\['policy_row'\]\. It would be 101 rows"):
        limited.rule(group, ALICE, remote_address_group_id=addresses.id, **NARROW)
    assert used(limited) == 0
    assert not limited.cloud.rules.by("security_group_id", group.id)
    limited.rule(group, ALICE, remote_address_group_id=addresses.id, protocol="udp")
    assert used(limited) == 72


def test_addresses_too_many_are_refused(limited: World) -> None:
    net, group, addresses = net_of(limited), bare(limited), named(limited, 98)
    limited.port(net, ALICE, security_groups=[group.id])
    limited.rule(group, ALICE, remote_address_group_id=addresses.id, protocol="udp")
    add(limited, addresses, "10.9.0.1/32")
    add(limited, addresses, "fd00::/64")  # of the other family: no rule is about it
    assert used(limited) == 100
    with pytest.raises(OverQuota, match="policy_row"):
        add(limited, addresses, "10.9.0.2/32")
    with pytest.raises(OverQuota, match="policy_row"):
        limited.rule(group, ALICE, direction="egress")
    limited.do(lambda d: address_group.remove_addresses(d, ALICE, addresses.id, {"addresses": ["10.9.0.1/32"]}))
    add(limited, addresses, "10.9.0.2/32")


def test_a_port_whose_groups_are_too_much_is_refused_made_or_changed(limited: World) -> None:
    net, group = net_of(limited), bare(limited)
    many = [bare(limited) for _ in range(3)]
    for one in (group, *many):
        limited.rule(one, ALICE, **NARROW)
    port = limited.port(net, ALICE, security_groups=[group.id])
    limited.change(port, ALICE, security_groups=[group.id, many[0].id])
    with pytest.raises(OverQuota, match="policy_row"):
        limited.port(net, ALICE, security_groups=[group.id, *(one.id for one in many)])
    with pytest.raises(OverQuota, match="policy_row"):
        limited.change(port, ALICE, security_groups=[one.id for one in many])
    assert used(limited) == 60
    # What a project has already costs it nothing, and what others have is not its own.
    limited.port(net, ALICE, security_groups=[group.id, many[0].id])
    shared = bare(limited, BOB)
    limited.rule(shared, BOB, **NARROW)
    limited.port(net, BOB, security_groups=[shared.id])
    assert (used(limited), used(limited, "bob")) == (60, 30)


def test_a_bulk_is_refused_as_a_whole(limited: World) -> None:
    net, group = net_of(limited), bare(limited)
    limited.port(net, ALICE, security_groups=[group.id])
    bodies = [
        {"security_group_id": group.id, "direction": "ingress", "remote_ip_prefix": f"10.1.{n}.0/24"}
        for n in range(100)
    ]
    create = RULES.create
    assert create is not None

    def verb(decision: Any) -> None:
        for body in bodies:
            create(decision, ALICE, RULES.kind.given(body))

    with pytest.raises(OverQuota, match="101 rows"):
        limited.do(verb)
    assert used(limited) == 0
    bodies.pop()
    limited.do(verb)
    assert used(limited) == 100


def test_a_shared_group_counts_for_whose_ports_have_it(limited: World) -> None:
    net, group, addresses = net_of(limited), bare(limited), named(limited, 60)
    limited.make(
        RBAC_POLICIES, ALICE,
        object_type="security_group", object_id=group.id, target_tenant="bob", action="access_as_shared",
    )  # fmt: skip
    limited.rule(group, ALICE, remote_address_group_id=addresses.id, **NARROW)
    limited.port(net, BOB, security_groups=[group.id])
    assert (used(limited), used(limited, "bob")) == (0, 90)
    own = bare(limited, BOB)
    limited.rule(own, BOB, protocol="icmp")
    with pytest.raises(OverQuota):
        limited.port(net, BOB, security_groups=[group.id, own.id])
    limited.do(lambda d: address_group.remove_addresses(d, ALICE, addresses.id, {"addresses": ["10.1.0.1/32"]}))
    assert used(limited, "bob") == 89


def share(world: World, what: str, of: Any) -> None:
    world.make(
        RBAC_POLICIES, ALICE, object_type=what, object_id=of.id, target_tenant="bob", action="access_as_shared"
    )  # fmt: skip


def test_who_has_used_up_its_own_keeps_no_other_from_changing_what_it_has_shared(limited: World) -> None:
    net, group, addresses = net_of(limited), bare(limited), named(limited, 40)
    share(limited, "security_group", group)
    share(limited, "address_group", addresses)
    theirs = bare(limited, BOB)
    limited.rule(theirs, BOB, remote_address_group_id=addresses.id, protocol="udp")
    limited.rule(theirs, BOB, remote_group_id=group.id, **NARROW)
    limited.port(net, BOB, security_groups=[theirs.id])
    for n in range(100 - used(limited, "bob")):
        limited.rule(theirs, BOB, remote_ip_prefix=f"10.9.{n}.0/24", protocol="udp")
    assert used(limited, "bob") == 100
    with pytest.raises(OverQuota):
        limited.rule(theirs, BOB, remote_ip_prefix="10.10.0.0/16", protocol="udp")
    # An address, a set of groups that it names as remote, and a rule of a group that its ports have.
    add(limited, addresses, "10.9.0.1/32")
    limited.port(net, ALICE, security_groups=[group.id])
    limited.port(net, BOB, security_groups=[theirs.id])
    assert used(limited, "bob") == 102
    with pytest.raises(OverQuota):
        limited.rule(theirs, BOB, protocol="icmp")
    add(limited, addresses, *(f"10.8.{n}.0/24" for n in range(90)))
    # Twice what it may have is an end.
    with pytest.raises(OverQuota):
        add(limited, addresses, *(f"10.7.{n}.0/24" for n in range(9)))
    assert used(limited, "bob") == 192


def test_a_first_port_and_its_default_group_are_counted_as_they_will_be(limited: World) -> None:
    net = net_of(limited)
    limited.change(of_project("alice"), policy_row=5)
    with pytest.raises(OverQuota, match="be 6 rows"):
        limited.port(net, ALICE)
    limited.change(of_project("alice"), policy_row=6)
    limited.port(net, ALICE)
    assert used(limited) == 6


def test_nothing_is_left_of_a_group_that_is_deleted_with_its_rules(limited: World) -> None:
    net, group, other = net_of(limited), bare(limited), bare(limited)
    limited.rule(group, ALICE, **NARROW)
    limited.rule(other, ALICE, remote_group_id=group.id, protocol="tcp")
    limited.port(net, ALICE, security_groups=[other.id])
    limited.delete(group, ALICE)
    assert list(limited.cloud.policy_rows.faults()) == []
    assert group.id not in limited.cloud.policy_rows._costs
    assert used(limited) == 0


def test_an_account_that_is_not_what_its_rules_and_ports_make_is_found(limited: World) -> None:
    net, group = net_of(limited), bare(limited)
    rule = limited.rule(group, ALICE, **NARROW)
    port = limited.port(net, ALICE, security_groups=[group.id])
    rows = limited.cloud.policy_rows
    for kind, one in (("rule", rule), ("port", port)):
        rows.step(kind, one, None)
        assert list(rows.faults())
        rows.step(kind, None, one)
        assert not list(rows.faults())


def test_a_set_of_groups_that_comes_counts_for_those_whose_rules_name_it(limited: World) -> None:
    net, group = net_of(limited), bare(limited)
    limited.rule(group, ALICE, remote_group_id=group.id, protocol="tcp")
    limited.port(net, ALICE, security_groups=[group.id])
    assert used(limited) == 2
    other = bare(limited)
    limited.port(net, ALICE, security_groups=[group.id, other.id])
    assert used(limited) == 6, "each of two sets speaks of both"


def test_many_at_once_do_not_go_beyond_it(limited: World) -> None:
    net, group = net_of(limited), bare(limited)
    limited.port(net, ALICE, security_groups=[group.id])
    create = RULES.create
    assert create is not None

    async def all_at_once() -> list[Any]:
        def one(n: int) -> Any:
            body = {"security_group_id": group.id, "direction": "ingress", "remote_ip_prefix": f"10.{n}.0.0/16"}
            given = RULES.kind.given(body)
            return decide(limited.cloud, lambda d: create(d, ALICE, given))

        return await asyncio.gather(*(one(n) for n in range(120)), return_exceptions=True)

    answers = limited.runner.run(all_at_once())
    assert sum(isinstance(one, OverQuota) for one in answers) > 0
    assert used(limited) <= 100
    limited.change(of_project("alice"), policy_row=200)
    limited.rule(group, ALICE, remote_ip_prefix="10.201.0.0/16")


def test_no_limit_is_no_limit_and_an_address_group_has_an_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address_group, "ADDRESSES_MAX", 310)
    net, group, addresses = net_of(world), bare(world), named(world, 300)
    world.port(net, ALICE, security_groups=[group.id])
    world.rule(group, ALICE, remote_address_group_id=addresses.id, **NARROW)
    assert used(world) == 330
    with pytest.raises(Invalid, match="would have 311 addresses; should be at most 310"):
        add(world, addresses, *(f"10.9.{n}.0/24" for n in range(11)))


def test_more_ports_with_remotes_than_a_host_can_tell_apart_are_refused(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy_rows, "PORT_SETS_MAX", 5)
    net, group, other = net_of(world), bare(world), bare(world)
    for n in range(1, 4):
        world.rule(group, ALICE, protocol="tcp", port_range_min=n, port_range_max=n, remote_ip_prefix="10.0.0.0/8")
        world.rule(other, ALICE, protocol="udp", port_range_min=n, port_range_max=n, remote_ip_prefix="10.0.0.0/8")
    for n in range(1, 20):
        world.rule(group, ALICE, protocol="tcp", port_range_min=n, port_range_max=n)
        world.rule(group, ALICE, protocol="tcp", port_range_min=1, port_range_max=1, remote_ip_prefix=f"10.{n}.0.0/16")
    with pytest.raises(Conflict, match=r"ingress IPv4, would have 6 different protocols.*may have 5"):
        world.port(net, ALICE, security_groups=[group.id, other.id])
    port = world.port(net, ALICE, security_groups=[group.id])
    with pytest.raises(Fault, match="would have 6"):
        world.change(port, ALICE, security_groups=[group.id, other.id])
    for n in (8, 9):
        world.rule(group, ALICE, protocol="tcp", port_range_min=n, port_range_max=n, remote_group_id=other.id)
    with pytest.raises(Conflict, match="would have 6"):
        world.rule(group, ALICE, protocol="tcp", port_range_min=10, port_range_max=10, remote_group_id=other.id)
    world.rule(group, ALICE, ethertype="IPv6", protocol="tcp", port_range_min=10, port_range_max=10,
               remote_group_id=other.id)  # fmt: skip


prefix = st.sampled_from(["10.0.0.0/8", "10.0.0.0/24", "10.0.0.5/32", "0.0.0.0/0", "fd00::/64", "::/0", "fd00::5/128"])


@st.composite
def rules(draw: st.DrawFn) -> dict[str, Any]:
    family = draw(st.sampled_from(["IPv4", "IPv6"]))
    body: dict[str, Any] = {"direction": draw(st.sampled_from(["ingress", "egress"])), "ethertype": family}
    proto = draw(st.sampled_from([None, "tcp", "tcp", "udp", "icmp", "47"]))
    if proto:
        body["protocol"] = proto
    if proto in ("tcp", "udp"):
        low = draw(st.integers(1, 65535))
        body |= {"port_range_min": low, "port_range_max": draw(st.integers(low, 65535))}
    elif proto == "icmp":
        body |= {"port_range_min": draw(st.integers(0, 255))}
    remote = draw(st.sampled_from(["any", "prefix", "group", "named"]))
    if remote == "prefix":
        body["remote_ip_prefix"] = draw(prefix.filter(lambda p: (":" in p) == (family == "IPv6")))
    elif remote != "any":
        body[remote] = draw(st.integers(0, 2))
    return body


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), rules()), max_size=12),
    st.lists(st.lists(prefix, unique=True), min_size=3, max_size=3),
    st.lists(st.lists(st.integers(0, 2), unique=True, min_size=1), min_size=1, max_size=4),
)
def test_a_host_makes_no_more_rows_than_are_counted(
    wanted: list[tuple[int, dict[str, Any]]], lists: list[list[str]], sets: list[list[int]]
) -> None:
    with asyncio.Runner() as runner:
        world = World(runner, MemoryStore())
        world.host("h1")
        net = net_of(world)
        groups = [bare(world) for _ in range(3)]
        addresses = [world.make(ADDRESS_GROUPS, ALICE, addresses=of) for of in lists]
        ports = [world.port(net, ALICE, security_groups=[groups[n].id for n in of]) for of in sets]
        for at, body in wanted:
            if "group" in body:
                body["remote_group_id"] = groups[body.pop("group")].id
            if "named" in body:
                body["remote_address_group_id"] = addresses[body.pop("named")].id
            try:
                world.rule(groups[at], ALICE, **body)
            except Conflict:
                continue  # the same one twice
        for port in ports:
            world.change(port, ADMIN, binding__host_id="h1")
        listener = Listener(world, "h1")
        plan = Plan("h1")
        plan.take([Document(kind, id, decode(kind, told)) for (kind, id), told in listener.objects.items()], whole=True)
        plan.bodies({port.id: Body(r.PortKey(n + 5), r.Body.VETH) for n, port in enumerate(ports)})
        plan.settle()
        assert not plan.faults
        made = sum(len(plan.rows[table]) for table in POLICY)
        assert made <= used(world)
        world.stop()


STEPS = st.tuples(
    st.sampled_from(["group", "group-", "rule", "rule", "rule-", "add", "remove", "port", "port", "groups", "port-"]),
    st.integers(0, 7),
    st.lists(st.integers(0, 7), max_size=2),
    rules(),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(STEPS, max_size=25))
def test_accounts_are_what_rules_and_ports_make_and_within_the_quota(
    steps: list[tuple[str, int, list[int], dict[str, Any]]],
) -> None:
    with asyncio.Runner() as runner:
        world = World(runner, MemoryStore(), {"policy_row": 60})
        net = net_of(world)
        addresses = [world.make(ADDRESS_GROUPS, ALICE, addresses=["10.0.0.0/8"]) for _ in range(2)]
        cloud = world.cloud

        def pick(table: str, n: int) -> Any:
            rows = sorted(cloud.tables[table].rows.values(), key=lambda row: row.id)
            return rows[n % len(rows)] if rows else None

        def step(verb: str, n: int, more: list[int], body: dict[str, Any]) -> None:
            group, rule, port = (pick(table, n) for table in ("group", "rule", "port"))
            groups = [pick("group", m).id for m in more if cloud.groups.rows]
            if verb == "group":
                world.group(ALICE)
            elif verb == "group-" and group:
                world.delete(group)
            elif verb == "rule" and group:
                body = dict(body)
                if "group" in body:
                    body["remote_group_id"] = pick("group", body.pop("group")).id
                if "named" in body:
                    body["remote_address_group_id"] = addresses[body.pop("named") % 2].id
                world.rule(group, ALICE, **body)
            elif verb == "rule-" and rule:
                world.delete(rule)
            elif verb == "add":
                add(world, addresses[n % 2], *(f"10.{m}.0.0/16" for m in more))
            elif verb == "remove":
                gone = {"addresses": [f"10.{m}.0.0/16" for m in more]}
                world.do(lambda d: address_group.remove_addresses(d, ALICE, addresses[n % 2].id, gone))
            elif verb == "port":
                world.port(net, ALICE, **({"security_groups": groups} if more else {}))
            elif verb == "groups" and port:
                world.change(port, ALICE, security_groups=groups)
            elif verb == "port-" and port:
                world.delete(port)

        for one in steps:
            with suppress(Fault):
                step(*one)
            assert list(cloud.policy_rows.faults()) == []
            assert used(world) <= 60
        world.stop()


def test_a_server_that_begins_counts_what_is_there(limited: World) -> None:
    net, group = net_of(limited), bare(limited)
    limited.rule(group, ALICE, **NARROW)
    limited.port(net, ALICE, security_groups=[group.id])
    before = used(limited)
    again = Cloud(limited.cloud.store)
    limited.runner.run(again.start())
    assert again.policy_rows.used("alice") == before == 30
    limited.runner.run(again.stop())
