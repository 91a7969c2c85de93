"""What the plan promises: the same objects give the same rows, however they came."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_address, ip_network
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from crossway.model import rows as r
from crossway.model.port_range import port_prefixes
from crossway.plan import view
from crossway.plan.address import Cidr, cidr, ip, without_mapped
from crossway.plan.plan import Document, Plan
from crossway.plan.port import Body
from crossway.plan.rows import POLICY, Rows, changes, empty
from unit.plan import worlds

H1, H2 = ip("192.0.2.1"), ip("192.0.2.2")


def canonical(rows: Rows) -> dict[str, Any]:
    """Return rows without what may depend on history: the order of flood lists, the numbers of port sets."""
    lists: dict[int, dict[int, r.Place]] = {}
    for key, place in rows["members"].items():
        lists.setdefault(key.network, {})[key.slot] = place
    for members in lists.values():
        assert sorted(members) == list(range(len(members))), "a flood list has no holes"
    return {
        **{table: dict(of) for table, of in rows.items() if table not in ("members", *POLICY)},
        "members": {network: sorted(members.values()) for network, members in lists.items()},
        "policy": worlds.allowed(rows),
    }


steps = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.lists(worlds.documents, min_size=3, max_size=12)),
        st.tuples(st.just("body"), worlds.bodies),
        st.tuples(st.just("uplinks"), worlds.uplinks),
        st.tuples(st.just("whole"), st.none()),
    ),
    min_size=5,
    max_size=25,
)


class Story:
    """A plan, what was said to it, and tables that get what it touches, as an agent's do."""

    def __init__(self) -> None:
        self.plan = Plan("h1")
        self.rules: dict[str, dict[str, view.Rule]] = {}  # group -> the rules that it has by now
        self.bodies: dict[str, Body | None] = {}
        self.uplinks: dict[str, int] = {}
        self.have = empty()
        self.tell("take", worlds.BASE)
        for body in worlds.BASE_BODIES.items():
            self.tell("body", body)

    def tell(self, what: str, value: Any) -> None:
        if what == "take":
            self._note(value)
            self.plan.take(value)
        elif what == "body":
            self.bodies[value[0]] = value[1]
            self.plan.bodies(dict([value]))
        elif what == "uplinks":
            self.uplinks = value
            self.plan.uplinks(value)
        else:
            self.plan.take(self.everything(), whole=True)
        self.settle()

    def settle(self) -> None:
        self.write(self.plan.settle())
        self.plan.written()

    def write(self, touched: dict[str, set[Any]]) -> None:
        change = changes(self.have, self.plan.rows, touched)
        for table, rows in change.put.items():
            self.have[table].update(rows)
        for table, keys in change.delete.items():
            for key in keys:
                del self.have[table][key]

    def _note(self, documents: list[Document]) -> None:
        """Keep which rules each group has: groups first, then single rules, as the protocol has it."""
        last = {(d.kind, d.id): d for d in documents}
        for document in [d for d in last.values() if d.kind == "group"]:
            if document.object is None:
                self.rules.pop(document.id, None)
            else:
                self.rules[document.id] = {rule.id: rule for rule in document.object.rules}
                self.rules[document.id] |= {rule.id: rule for rule in document.object.named}
        for document in [d for d in last.values() if d.kind == "rule"]:
            for of in self.rules.values():
                of.pop(document.id, None)
            if document.object is not None and document.object.group_id in self.rules:
                self.rules[document.object.group_id][document.id] = document.object

    def everything(self) -> list[Document]:
        """Return all objects as a server sends them after a reset."""
        found = []
        for kind, of in self.plan.objects.items():
            for id, known in of.items():
                if isinstance(known, view.Group):
                    rules = self.rules.get(id, {}).values()
                    known = structs.replace(
                        known,
                        rules=tuple(rule for rule in rules if rule.addresses is None),
                        named=tuple(rule for rule in rules if rule.addresses is not None),
                    )
                found.append(Document(kind, id, known))
        return found

    def again(self, have: Rows, *, backwards: bool = False) -> Plan:
        """Return a new plan that is told everything at once, over tables that hold *have*."""
        plan = Plan("h1")
        plan.adopt(have)
        everything = self.everything()
        plan.take(everything[::-1] if backwards else everything, whole=True)
        plan.bodies(self.bodies)
        plan.uplinks(self.uplinks)
        plan.settle()
        plan.forget_adopted()
        plan.settle()
        return plan


@settings(max_examples=200, deadline=None)
@given(steps)
def test_changes_one_by_one_give_the_rows_of_everything_at_once(steps: list[Any]) -> None:
    story = Story()
    for step in steps:
        story.tell(*step)
    plan = story.plan
    assert not plan.faults
    assert story.have == plan.rows
    assert canonical(plan.rows) == canonical(story.again(empty()).rows)
    plan.take([], whole=True)
    plan.settle()
    assert all(not of for of in plan.rows.values()), "what is gone leaves nothing"


class Portions(Story):
    """The same, with policy written some rows at a time, and others' changes in between."""

    enough = 0

    def settle(self) -> None:
        self.write(self.plan.arrange())
        self.enforce(self.enough)

    def enforce(self, steps: int) -> None:
        """Take so many steps of policy: of the identities that are finished, one is written in each."""
        for _ in range(steps):
            if (finished := self.plan.enforce()) is not None:
                identity, touched = finished
                self.write(touched)
                self.plan.enforced(identity)
                self.write(self.plan.arrange())
            for row in self.have["ports"].values():
                ready = self.plan.policy.ready(row.identity)
                assert ready or not row.identity or not row.flags & r.PortFlag.SECURED, "no port before its policy"


@settings(max_examples=100, deadline=None)
@given(steps, st.integers(0, 3))
def test_portions_give_the_same_rows_and_no_port_before_its_policy(steps: list[Any], enough: int) -> None:
    story = Portions()
    story.enough = enough
    for step in steps:
        story.tell(*step)
    while story.plan.policy.pending:
        story.enforce(1)
    assert story.have == story.plan.rows
    assert canonical(story.plan.rows) == canonical(story.again(empty()).rows)
    story.plan.take([], whole=True)
    story.settle()
    while story.plan.policy.pending:
        story.enforce(1)
    assert all(not of for of in story.have.values()), "what is gone leaves nothing"


@settings(max_examples=100, deadline=None)
@given(steps)
def test_a_restart_changes_no_row(steps: list[Any]) -> None:
    story = Story()
    for step in steps:
        story.tell(*step)
    assert story.again(story.have, backwards=True).rows == story.have


@settings(max_examples=80, deadline=None)
@given(
    st.tuples(*(worlds.groups(id, least=6) for id in worlds.GROUPS)),
    st.lists(
        st.tuples(
            st.sampled_from([0, 1]),
            st.sampled_from(
                [
                    "10.0.0.5",
                    "10.0.0.5",
                    "10.0.0.6",
                    "10.0.0.200",
                    "10.7.7.7",
                    "8.8.8.8",
                    "fd00::5",
                    "fd00::6",
                    "fd99::1",
                    "::1",
                ]
            ),
            st.integers(0, 3),
            st.sampled_from([6, 6, 6, 17, 1, 58, 47]),
            st.sampled_from([0, 22, 80, 81, 85, 1001, 8 << 8, 3 << 8 | 1, 128 << 8]),
        ),
        min_size=20,
        max_size=60,
    ),
)
def test_rows_say_what_the_rules_say(found: tuple[view.Group, ...], flows: list[Any]) -> None:
    sets = {1: ("a", "b"), 2: ("b",), 3: ("c", "a")}
    groups = {g.id: g for g in found}
    plan = Plan("h1")
    plan.take(
        [Document("group", g.id, g) for g in groups.values()]
        + [Document("identity", str(i), view.Identity(id=str(i), groups=of)) for i, of in sets.items()]
        + [
            Document("network", "n1", view.Network(id="n1", number=10, mtu=1400)),
            Document("port", "p0", view.Port(id="p0", network="n1", mac="fa:16:3e:00:00:01", identity=1, host="h1")),
        ]
    )
    plan.bodies({"p0": Body(r.PortKey(100), r.Body.VETH)})
    plan.settle()
    for way, remote, remote_identity, proto, port in flows:
        address = ip_address(remote)
        matching = [
            (rule, group.stateful)
            for group in groups.values()
            if group.id in sets[1]
            for rule in (*group.rules, *group.named)
            if (rule.way == "out") == bool(way)
            and rule.family == address.version
            and (rule.group is None or (remote_identity and rule.group in sets[remote_identity]))
            and (rule.prefix is None or address in ip_network(rule.prefix))
            and (
                rule.addresses is None
                or any(address in ip_network(prefix) for prefix in group.addresses.get(rule.addresses, ()))
            )
            and _says(rule, proto, port)
        ]
        family = 0 if address.version == 4 else 1
        got = worlds.judge(plan.rows, 1, way, family, remote_identity, ip(remote), proto, port)
        assert got == (any(stateful for _, stateful in matching) if matching else None)


def _says(rule: view.Rule, proto: int, port: int) -> bool:
    """Read one rule as the API tells it."""
    if rule.proto is None:
        return True
    wanted = 58 if rule.family == 6 and rule.proto == 1 else rule.proto
    if proto != wanted:
        return False
    if wanted in (1, 58):
        return (rule.min is None or port >> 8 == rule.min) and (rule.max is None or port & 0xFF == rule.max)
    return (
        rule.min is None
        or wanted not in (6, 17)
        or rule.min <= port <= (rule.max if rule.max is not None else rule.min)
    )


@given(st.integers(0, 65535), st.integers(0, 65535))
def test_port_ranges_become_the_prefixes_that_hold_them(one: int, other: int) -> None:
    low, high = min(one, other), max(one, other)
    held = []
    for port, bits in port_prefixes(low, high):
        assert port & (1 << 16 - bits) - 1 == 0
        held.append((port, port + (1 << 16 - bits) - 1))
    assert held[0][0] == low
    assert held[-1][1] == high
    assert all(before[1] + 1 == after[0] for before, after in pairwise(held))
    assert len(held) <= 30


def test_a_wide_ipv6_prefix_is_split_around_ipv4() -> None:
    parts = without_mapped(cidr("::/0"))
    assert len(parts) == 96
    assert not any(p.holds(ip("10.0.0.1")) for p in parts)
    for text in ("::1", "2001:db8::1", "fe80::1", "::fffe:0:0", "ffff::"):
        assert sum(p.holds(ip(text)) for p in parts) == 1
    assert without_mapped(cidr("10.0.0.0/8")) == [Cidr(ip("10.0.0.0"), 104)]


def world(*more: Document, host: str = "h1") -> Plan:
    plan = Plan(host)
    plan.take(
        [
            Document("host", "h1", view.Host(id="h1", underlay="192.0.2.1")),
            Document("host", "h2", view.Host(id="h2", underlay="192.0.2.2")),
            Document("network", "n", view.Network(id="n", number=10, mtu=1400)),
            *more,
        ]
    )
    plan.settle()
    return plan


def a_port(n: int, host: str | None = "h1", **more: Any) -> Document:
    return Document(
        "port",
        f"p{n}",
        view.Port(
            id=f"p{n}",
            network="n",
            mac=f"fa:16:3e:00:{n >> 8:02x}:{n & 255:02x}",
            addresses=(view.Address(f"10.0.{n >> 8}.{n & 255}", "s"),),
            host=host,
            **more,
        ),
    )


def test_a_port_without_body_or_host_has_no_rows() -> None:
    plan = world(a_port(1), a_port(2, None), a_port(3, "h9"))
    assert {table: len(of) for table, of in plan.rows.items() if of} == {"networks": 1, "hosts": 1}


def test_a_peer_is_reached_at_its_hosts_underlay_address() -> None:
    plan = world(a_port(2, "h2", identity=7))
    place = r.Place(r.PlaceKind.REMOTE, identity=7, underlay=H2)
    assert plan.rows["endpoints"][r.EndpointKey(10, ip("10.0.0.2"))] == r.Endpoint(place, bytes.fromhex("fa163e000002"))
    assert r.EndpointKey(10, ip("fe80::f816:3eff:fe00:2")) in plan.rows["endpoints"]
    assert plan.rows["members"] == {r.MemberKey(10, 0): r.Place(r.PlaceKind.REMOTE, underlay=H2)}
    assert plan.rows["hosts"] == {H2: r.Host(1)}


def test_a_port_that_may_come_has_its_policy_here_and_what_comes_for_it_goes_on() -> None:
    rule = view.Rule(id="x", number=1, way="in", family=4, group_id="a")
    plan = world(
        a_port(1, host="h2", waiting=("h1",), identity=7, groups=("a",)),
        Document("identity", "7", view.Identity(id="7", groups=("a",))),
        Document("group", "a", view.Group(id="a", rules=(rule,))),
    )
    plan.bodies({"p1": Body(r.PortKey(5, 0), r.Body.TAP)})
    plan.settle()
    places = list(plan.rows["macs"].values())
    assert [(p.kind, p.flags, p.underlay) for p in places] == [(r.PlaceKind.REMOTE, r.PortFlag.MOVED, H2)]
    assert not plan.rows["ports"]
    assert {key.identity for key in plan.rows["port_sets"]} == {7}
    plan.taken("p1", True)
    plan.settle()
    assert {p.kind for p in plan.rows["macs"].values()} == {r.PlaceKind.LOCAL, r.PlaceKind.ROUTER}
    assert [key.ifindex for key in plan.rows["ports"]] == [5]
    plan.taken("p1", False)
    plan.settle()
    assert list(plan.rows["macs"].values()) == places
    assert not plan.rows["ports"]
    plan.take([a_port(1, host="h2", identity=7, groups=("a",))])
    plan.settle()
    assert [p.flags for p in plan.rows["macs"].values()] == [0]
    assert not plan.rows["port_sets"]


def test_a_port_that_is_not_waited_for_cannot_be_taken() -> None:
    plan = world(a_port(1, host="h2"))
    plan.bodies({"p1": Body(r.PortKey(5, 0), r.Body.TAP)})
    plan.taken("p1", True)
    plan.settle()
    assert not plan.rows["ports"]


def test_a_host_with_many_ports_is_flooded_to_once() -> None:
    plan = world(*(a_port(n, "h2") for n in range(1, 50)))
    assert plan.rows["networks"][10].members == 1
    plan.take([Document("port", f"p{n}", None) for n in range(1, 49)])
    plan.settle()
    assert plan.rows["networks"][10].members == 1
    plan.take([Document("port", "p49", None)])
    plan.settle()
    assert plan.rows["networks"][10].members == 0


@pytest.mark.parametrize(
    "more", [{"secured": False}, {"pairs": (view.Pair("10.9.0.0/16"),)}], ids=["unsecured", "pairs"]
)
def test_addresses_that_no_row_tells_are_flooded(more: dict[str, Any]) -> None:
    plan = world(a_port(1, "h2"), a_port(2, "h2", **more))
    assert plan.rows["networks"][10].flags == r.NetworkFlag.FLOOD_UNKNOWN
    plan.take([Document("port", "p2", None)])
    plan.settle()
    assert plan.rows["networks"][10].flags == 0


def test_one_more_port_among_a_thousand_touches_its_own_rows_only() -> None:
    plan = world(*(a_port(n) for n in range(1, 1001)))
    plan.bodies({f"p{n}": Body(r.PortKey(n), r.Body.VETH) for n in range(1, 1001)})
    plan.settle()
    plan.take([a_port(2000)])
    plan.bodies({"p2000": Body(r.PortKey(2000), r.Body.VETH)})
    touched = plan.settle()
    assert {table: len(keys) for table, keys in touched.items()} == {
        "ports": 1, "sources": 2, "macs": 1, "endpoints": 2, "members": 1, "networks": 1,
    }  # fmt: skip
    plan.take([Document("port", "p5", None)])
    assert sum(map(len, plan.settle().values())) <= 10


def test_one_rule_of_ten_thousand_touches_its_own_rows_only() -> None:
    rules = tuple(
        view.Rule(
            id=f"x{n}", number=n, way="in", family=4, proto=6, min=n % 500, max=n % 500,
            prefix=f"10.{n >> 8}.{n & 255}.0/24",
        )
        for n in range(10000)
    )  # fmt: skip
    plan = world(
        Document("group", "a", view.Group(id="a", rules=rules)),
        Document("identity", "1", view.Identity(id="1", groups=("a",))),
        a_port(1, identity=1),
    )
    plan.bodies({"p1": Body(r.PortKey(5), r.Body.VETH)})
    plan.settle()
    assert len(plan.rows["prefixes"]) == 10000
    assert len(plan.rows["port_sets"]) == 500
    new = view.Rule(id="x1", number=1, way="in", family=4, proto=17, min=53, max=53, group_id="a")
    plan.take([Document("rule", "x1", new)])
    assert {table: len(keys) for table, keys in plan.settle().items()} == {"port_sets": 1, "prefixes": 1}


def named(n: int, low: int, high: int) -> view.Rule:
    """Return a rule about the address group `g`."""
    return view.Rule(id=f"x{n}", number=n, way="in", family=4, proto=6, min=low, max=high, addresses="g")


def test_prefixes_and_ranges_of_ports_add_and_do_not_multiply() -> None:
    rules = tuple(named(n, 1 + n, 65534 - n) for n in range(12))
    addresses = tuple(f"10.{n >> 8}.{n & 255}.1/32" for n in range(8200))
    plan = world(
        Document("group", "a", view.Group(id="a", named=rules, addresses={"g": addresses})),
        Document("identity", "1", view.Identity(id="1", groups=("a",))),
        a_port(1, identity=1),
    )
    plan.bodies({"p1": Body(r.PortKey(5), r.Body.VETH)})
    plan.settle()
    assert len(plan.rows["prefixes"]) == 8200
    assert len(plan.rows["port_sets"]) <= 12 * 30
    group = view.Group(id="a", named=rules, addresses={"g": (*addresses[1:], "10.200.0.1/32")})
    plan.take([Document("group", "a", group)])
    assert {table: len(keys) for table, keys in plan.settle().items()} == {"prefixes": 2}
    wider = view.Group(id="a", named=(*rules, named(12, 22, 22)), addresses={"g": addresses[:10]})
    plan.take([Document("group", "a", wider)])
    plan.settle()
    assert len(plan.rows["prefixes"]) == 10
    assert worlds.judge(plan.rows, 1, 0, 0, 0, ip("10.0.9.1"), 6, 22)
    assert worlds.judge(plan.rows, 1, 0, 0, 0, ip("10.0.10.1"), 6, 22) is None


def test_a_number_is_not_used_again_before_the_tables_are_written() -> None:
    def rule(n: int, remote: str) -> view.Rule:
        return view.Rule(id=f"x{n}", number=n, way="in", family=4, proto=6, min=n, max=n, prefix=remote)

    plan = world(
        Document("group", "a", view.Group(id="a", rules=(rule(1, "10.0.0.1"),))),
        Document("identity", "1", view.Identity(id="1", groups=("a",))),
        a_port(1, identity=1),
    )
    plan.bodies({"p1": Body(r.PortKey(5), r.Body.VETH)})
    plan.settle()
    before = {table: dict(plan.rows[table]) for table in POLICY}
    plan.take([Document("group", "a", view.Group(id="a", rules=(rule(2, "10.0.0.2"),)))])
    plan.settle()
    # Whichever of the rows are written by now: neither has what is the other's.
    mixed = {table: {**before[table], **plan.rows[table]} for table in POLICY}
    for remote, port, allowed in ((1, 1, True), (2, 2, True), (1, 2, None), (2, 1, None)):
        assert worlds.judge(mixed, 1, 0, 0, 0, ip(f"10.0.0.{remote}"), 6, port) is allowed
    plan.written()
    plan.take([Document("group", "a", view.Group(id="a", rules=(rule(3, "10.0.0.3"), rule(2, "10.0.0.2"))))])
    plan.settle()
    assert {max(worlds.numbers(row.all)) for row in plan.rows["port_sets"].values()} == {2, 3}


def test_more_port_sets_than_can_be_numbered_leave_a_rule_out_and_say_so() -> None:
    rules = [
        view.Rule(id=f"x{n}", number=n, way="in", family=4, proto=6, min=n, max=n, prefix="10.0.0.0/8")
        for n in range(r.PORT_SETS)
    ]
    anyone = view.Rule(id="all", number=1, way="in", family=4, proto=17)
    plan = world(
        Document("group", "a", view.Group(id="a", rules=(*rules, anyone))),
        Document("identity", "1", view.Identity(id="1", groups=("a",))),
        a_port(1, identity=1),
    )
    plan.bodies({"p1": Body(r.PortKey(5), r.Body.VETH)})
    plan.settle()
    assert {id for kind, id in plan.faults if kind == "rule"} == {"x510", "x511"}
    assert "more than 510 port sets" in plan.faults["rule", "x510"]
    assert worlds.judge(plan.rows, 1, 0, 0, 0, ip("10.0.0.1"), 6, 510) is None
    assert worlds.judge(plan.rows, 1, 0, 0, 0, ip("8.8.8.8"), 17, 1)
    plan.written()
    plan.take([Document("group", "a", view.Group(id="a", rules=tuple(rules[2:])))])
    plan.settle()
    plan.written()
    plan.settle()
    assert not plan.faults
    assert worlds.judge(plan.rows, 1, 0, 0, 0, ip("10.0.0.1"), 6, 511)


def test_a_group_sent_again_undoes_what_single_rules_changed() -> None:
    rule = view.Rule(id="x1", number=1, way="in", family=4, proto=6)
    group = Document("group", "a", view.Group(id="a", rules=(rule,)))
    plan = world(group, Document("identity", "1", view.Identity(id="1", groups=("a",))), a_port(1, identity=1))
    plan.bodies({"p1": Body(r.PortKey(5), r.Body.VETH)})
    plan.settle()
    before = dict(plan.rows["port_sets"])
    plan.take([Document("rule", "x1", None)])
    plan.settle()
    assert not plan.rows["port_sets"]
    plan.take([group])
    plan.settle()
    assert plan.rows["port_sets"] == before


def test_a_default_route_of_ipv6_does_not_catch_ipv4() -> None:
    router = view.Router(
        id="r",
        number=3,
        interfaces=(view.Interface("rp", "n", "fa:16:3e:01:00:00", (view.Prefixed("fd00::1", 64),)),),
        routes=(view.Hop("::/0", "fd00::2"),),
    )
    plan = world(Document("router", "r", router))
    routes = plan.rows["routes"]
    assert routes[r.RouteKey(32, 3, bytes(16))] == r.Route(r.RouteKind.VIA, 10, ip("fd00::2"))
    assert routes[r.RouteKey(32 + 96, 3, ip("0.0.0.0"))].kind == r.RouteKind.BLACKHOLE


@pytest.mark.parametrize(("to", "by"), [("203.0.113.0/24", "10.0.0.{}"), ("2001:db8::/32", "fd00::{}")])
def test_all_next_hops_of_a_destination_are_used(to: str, by: str) -> None:
    feet = (view.Prefixed("10.0.0.1", 24), view.Prefixed("fd00::1", 64))
    # The second and the last cannot be: the router itself, and what is on none of its subnets.
    hops = (
        by.format(2),
        by.format(1),
        by.format(3),
        by.format(2),
        by.format(4),
        "192.0.2.9" if "." in to else "fd09::9",
    )
    interfaces = (view.Interface("rp", "n", "fa:16:3e:01:00:00", feet),)
    router = view.Router(id="r", number=3, interfaces=interfaces, routes=tuple(view.Hop(to, hop) for hop in hops))
    plan = world(Document("router", "r", router))
    prefix = cidr(to)
    key = r.RouteKey(32 + prefix.bits, 3, prefix.ip)
    vias = [r.Route(r.RouteKind.VIA, 10, ip(by.format(n))) for n in (2, 3, 4)]
    assert plan.rows["routes"][key] == vias[0]._replace(others=2)
    assert plan.rows["next_hops"] == {
        r.NextHopKey(64 + prefix.bits, 3, n, prefix.ip): via for n, via in enumerate(vias[1:], 1)
    }
    plan.take(
        [Document("router", "r", view.Router(id="r", number=3, interfaces=interfaces, routes=router.routes[2:3]))]
    )
    plan.settle()
    assert plan.rows["routes"][key] == vias[1]
    assert not plan.rows["next_hops"]


def test_a_connected_subnet_has_no_next_hops() -> None:
    router = view.Router(
        id="r",
        number=3,
        interfaces=(view.Interface("rp", "n", "fa:16:3e:01:00:00", (view.Prefixed("10.0.0.1", 24),)),),
        routes=(view.Hop("10.0.0.0/24", "10.0.0.2"), view.Hop("10.0.0.0/24", "10.0.0.3")),
    )
    plan = world(Document("router", "r", router))
    assert plan.rows["routes"][r.RouteKey(32 + 96 + 24, 3, ip("10.0.0.0"))].kind == r.RouteKind.CONNECTED
    assert not plan.rows["next_hops"]


def test_a_wrong_object_loses_its_rows_and_no_others() -> None:
    wrong = a_port(3)
    wrong = wrong._replace(object=view.Port(id="p3", network="n", mac="no mac", host="h2"))
    plan = world(a_port(2, "h2"), wrong, a_port(4, "h2"))
    assert plan.faults.keys() == {("port", "p3")}
    assert len(plan.rows["macs"]) == 2
    plan.take([a_port(3, "h2")])
    plan.settle()
    assert not plan.faults
    assert len(plan.rows["macs"]) == 3


def test_a_port_whose_groups_are_not_known_is_not_carried() -> None:
    plan = world(a_port(1, identity=5))
    plan.bodies({"p1": Body(r.PortKey(5), r.Body.VETH)})
    plan.settle()
    assert not plan.carries("p1")
    plan.take([Document("identity", "5", view.Identity(id="5", groups=("a",)))])
    plan.settle()
    assert not plan.carries("p1"), "its policy is not in the tables yet"
    plan.written()
    assert plan.carries("p1")


def test_a_provider_network_floods_to_its_uplink() -> None:
    plan = world(
        Document("network", "v", view.Network(id="v", number=20, mtu=1500, type="vlan", physnet="one", segment=7))
    )
    plan.uplinks({"one": 3})
    plan.settle()
    assert plan.rows["networks"][20] == r.Network(1500, 1, r.NetworkFlag.PROVIDER, 3, 7)
    assert plan.rows["uplinks"] == {r.UplinkKey(3, 7): 20}
    assert plan.rows["members"] == {r.MemberKey(20, 0): r.Place(r.PlaceKind.UPLINK)}
    plan.uplinks({})
    plan.settle()
    assert plan.rows["networks"][20] == r.Network(1500, 0)
    assert not plan.rows["uplinks"]
    assert not plan.rows["members"]


def sizes(rows: int) -> dict[str, int]:
    """Return tables that have room for so many rows."""
    return dict.fromkeys(r.TABLES, -(-rows * 16 // 15))


def tenant(n: int, project: str, identity: int, rules: int, **more: Any) -> list[Document]:
    """Return a port of a project, and its identity with so many rows of policy."""
    made = tuple(
        view.Rule(id=f"{identity}-{i}", number=i, way="in", family=4, proto=6, min=1, max=1, prefix=f"10.{i}.0.0/16")
        for i in range(rules - 1)
    )
    return [
        Document("group", f"g{identity}", view.Group(id=f"g{identity}", rules=made)),
        Document("identity", str(identity), view.Identity(id=str(identity), groups=(f"g{identity}",))),
        a_port(n, identity=identity, project=project, **more),
    ]


def held(plan: Plan) -> dict[int, int]:
    """Return how many rows of policy each identity has."""
    return dict(Counter(key.identity for table in POLICY for key in plan.rows[table]))


def test_a_project_beyond_its_share_gives_back_what_another_wants() -> None:
    plan = world()
    plan.sizes(sizes(100))
    plan.bodies({f"p{n}": Body(r.PortKey(n), r.Body.VETH) for n in range(1, 9)})

    def told(*documents: Document) -> None:
        plan.take(documents)
        plan.settle()
        plan.written()

    told(*tenant(1, "greedy", 1, 45))
    told(*tenant(2, "greedy", 2, 45))
    assert held(plan) == {1: 45, 2: 45}
    told(*tenant(3, "greedy", 3, 45))
    assert held(plan) == {1: 45, 2: 45}
    why = plan.faults["port", "p3"]
    assert why == (
        "its security groups need 45 rows of policy; 10 of 100 are free on this host, and project greedy has 90, "
        "where 100 are assured"
    )
    assert not plan.carries("p3")
    told(*tenant(4, "modest", 4, 50))
    assert held(plan) == {1: 45, 4: 50}
    assert plan.carries("p4")
    assert {id for kind, id in plan.faults if kind == "port"} == {"p2", "p3"}
    assert "project greedy has 45, where 50 are assured" in plan.faults["port", "p2"]
    # It needs less now, and then the other has gone.
    told(*tenant(3, "greedy", 3, 5))
    assert held(plan) == {1: 45, 3: 5, 4: 50}
    assert plan.carries("p3")
    told(Document("port", "p4", None))
    assert held(plan) == {1: 45, 3: 5, 2: 45}
    assert plan.carries("p2")
    assert not plan.faults


def test_a_port_whose_addresses_fill_a_table_goes_without_and_says_so() -> None:
    plan = world()
    plan.sizes(sizes(100))
    plan.bodies({f"p{n}": Body(r.PortKey(n), r.Body.VETH) for n in range(1, 9)})

    def pairs(count: int) -> tuple[view.Pair, ...]:
        return tuple(view.Pair(f"10.9.{n}.0/24") for n in range(count))

    for n, count in ((1, 60), (2, 30)):
        plan.take([a_port(n, project="greedy", pairs=pairs(count))])
        plan.settle()
    assert not plan.faults
    plan.take([a_port(3, project="modest", pairs=pairs(30))])
    plan.settle()
    assert [id for kind, id in plan.faults if kind == "port"] == ["p2"]
    assert "rows of the table sources" in plan.faults["port", "p2"]
    assert "project greedy has 62, where 50 are assured" in plan.faults["port", "p2"]
    assert {key.ifindex for key in plan.rows["ports"]} == {1, 3}
    assert len(plan.rows["sources"]) == 62 + 32
    plan.take([Document("port", "p1", None)])
    plan.settle()
    assert not plan.faults
    assert {key.ifindex for key in plan.rows["ports"]} == {2, 3}
