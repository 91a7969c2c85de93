"""Each host is told what is its business, all of it and nothing else, at a cost that follows the change."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clouds import ADMIN, Listener, World
from crossway.control import port as port_verbs
from crossway.control.binding import BINDINGS
from crossway.control.cloud import Cloud
from crossway.control.decision import decide
from crossway.control.view import shape
from crossway.model.port import PORT, ROUTER_INTERFACE, Port
from crossway.model.router import Router
from crossway.store.memory import MemoryStore


def business(cloud: Cloud, host: str) -> dict[tuple[str, str], Any]:
    """Return what a host must know, found the slow and plain way."""
    feet = [p for p in cloud.ports.rows.values() if p.device_owner == ROUTER_INTERFACE]
    present = [p for p in cloud.ports.rows.values() if p.present]
    own = [p for p in present if p.host == host]
    networks = {p.network_id for p in own}
    routers: set[str] = set()
    while True:
        routers = {p.device_id for p in feet if p.network_id in networks}
        wider = networks | {p.network_id for p in feet if p.device_id in routers}
        if wider == networks:
            break
        networks = wider
    peers = [p for p in present if p.network_id in networks]
    topics = {
        *(("host", h) for h in {p.host for p in peers} | {host} if h in cloud.hosts.rows),
        *(("network", n) for n in networks),
        *(("subnet", s.id) for s in cloud.subnets.rows.values() if s.network_id in networks),
        *(("port", p.id) for p in peers),
        *(("router", r) for r in routers),
        *(("identity", str(p.identity)) for p in peers if p.identity),
        *(("group", g) for p in own if p.port_security_enabled for g in p.security_groups),
    }
    return {topic: msgspec.json.decode(msgspec.json.encode(shape(cloud, topic))) for topic in topics}


HOSTS = ["h1", "h2", "h3"]


class Story:
    """A world that things happen to, one number after the other."""

    def __init__(self, world: World, draw: Any) -> None:
        self.world, self.draw = world, draw
        for number, host in enumerate(HOSTS):
            world.host(host, f"192.0.2.{number + 1}")
        self.networks = [world.network() for _ in range(4)]
        self.subnets = [world.subnet(n, f"10.{i}.0.0/24") for i, n in enumerate(self.networks)]
        self.routers = [world.router() for _ in range(3)]
        self.groups = [world.group(name=f"g{i}") for i in range(3)]

    def pick(self, some: Any) -> Any:
        return self.draw(st.sampled_from(list(some)))

    def ports(self) -> list[Port]:
        return [p for p in self.world.cloud.ports.rows.values() if p.device_owner != ROUTER_INTERFACE]

    def happen(self) -> None:
        what = self.pick(
            [
                "create",
                "create",
                "bind",
                "bind",
                "delete",
                "link",
                "unlink",
                "regroup",
                "rule",
                "bulk",
                "up",
                "dhcp",
                "renumber",
            ]
        )
        world, cloud = self.world, self.world.cloud
        host = self.pick(["", *HOSTS, *HOSTS, "unregistered"])
        if what == "create":
            groups = self.draw(st.lists(st.sampled_from([g.id for g in self.groups]), unique=True, max_size=2))
            world.port(self.pick(self.networks), binding__host_id=host, security_groups=groups)
        elif what == "bulk":
            bodies = [{"network_id": self.pick(self.networks).id, "binding:host_id": host} for _ in range(3)]
            world.do(lambda d: [port_verbs.create(d, ADMIN, PORT.given(body)) for body in bodies])
        elif what in ("link", "unlink"):
            router, subnet = self.pick(self.routers), self.pick(self.subnets)
            linked = any(
                p.device_id == router.id and p.network_id == subnet.network_id
                for p in cloud.ports.by("device_id", router.id)
            )
            if linked:
                world.part(router, subnet_id=subnet.id)
            elif f"address/{subnet.id}/{subnet.gateway_ip}" not in set(world.stored()):
                world.join(router, subnet_id=subnet.id)
            else:
                foot = world.port(next(n for n in self.networks if n.id == subnet.network_id))
                world.join(router, port_id=foot.id)
        elif what == "rule":
            group = self.pick(self.groups)
            if rules := [r for r in cloud.rules.by("security_group_id", group.id) if r.direction == "ingress"]:
                world.delete(rules[0])
            else:
                world.rule(group)
        elif what == "up":
            network = self.pick(self.networks)
            world.change(network, admin_state_up=not world.again(network).admin_state_up)
        elif what == "renumber":
            network = self.pick(self.networks)
            number = self.draw(st.integers(5000, 5009))
            free = all(other.number != number for other in cloud.networks.rows.values())
            if free and not any(port.host for port in cloud.ports.by("network_id", network.id)):
                world.change(network, provider__segmentation_id=number)
        elif what == "dhcp":
            subnet = self.pick(self.subnets)
            world.change(subnet, enable_dhcp=not world.again(subnet).enable_dhcp)
        elif ports := self.ports():
            port = self.pick(ports)
            if what == "bind":
                world.change(port, binding__host_id=host)
            elif what == "regroup":
                world.change(port, security_groups=[self.pick(self.groups).id])
            else:
                world.delete(port)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.data())
def test_whatever_happens_each_host_knows_its_business_and_nothing_else(data: st.DataObject) -> None:
    with asyncio.Runner() as runner:
        world = World(runner, MemoryStore())
        story = Story(world, data.draw)
        constant = [Listener(world, host) for host in HOSTS]
        absent = Listener(world, "h1").close()
        for _ in range(data.draw(st.integers(1, 25))):
            story.happen()
            for listener in constant:
                assert listener.objects == business(world.cloud, listener.host)
        back = absent.back()
        assert back.objects == business(world.cloud, "h1"), "by resuming"
        assert back.resets == 1
        assert Listener(world, "h1").objects == back.objects, "by a reset"
        world.stop()


@pytest.fixture
def two(world: World) -> tuple[World, Listener, Listener]:
    """Two hosts, each with a port on a network of its own."""
    for number in (1, 2):
        world.host(f"h{number}", f"192.0.2.{number}")
        network = world.network(name=f"n{number}")
        world.subnet(network, f"10.{number}.0.0/24")
        world.port(network, name=f"p{number}", binding__host_id=f"h{number}")
    return world, Listener(world, "h1"), Listener(world, "h2")


def named(world: World, table: str, name: str) -> Any:
    return next(one for one in world.cloud.tables[table].rows.values() if one.name == name)


def test_a_host_knows_nothing_of_a_network_it_cannot_reach(two: tuple[World, Listener, Listener]) -> None:
    world, one, two_ = two
    assert one.ids("network") == {named(world, "network", "n1").id}
    assert one.ids("host") == {"h1"}
    assert two_.ids("port") == {named(world, "port", "p2").id}


def joined(world: World) -> Router:
    router = world.router()
    for subnet in list(world.cloud.subnets.rows.values()):
        world.join(router, subnet_id=subnet.id)
    return router


def test_a_router_shows_hosts_each_other_and_hides_them_when_it_goes(two: tuple[World, Listener, Listener]) -> None:
    world, one, other = two
    alone = dict(one.objects)
    router = joined(world)
    assert one.ids("network") == {n.id for n in world.cloud.networks.rows.values()}
    assert one.ids("host") == other.ids("host") == {"h1", "h2"}
    assert one.objects["router", router.id]["number"] == router.number
    assert len(one.objects["router", router.id]["interfaces"]) == 2
    second = named(world, "network", "n2")
    world.part(router, subnet_id=world.cloud.subnets.by("network_id", second.id)[0].id)
    assert one.ids("host") == {"h1"}
    assert len(one.objects["router", router.id]["interfaces"]) == 1
    assert other.ids("router") == set()
    world.part(router, subnet_id=world.cloud.subnets.by("network_id", named(world, "network", "n1").id)[0].id)
    assert one.objects == alone


def test_an_unbound_port_is_nobodys_business(two: tuple[World, Listener, Listener]) -> None:
    world, one, _ = two
    one.news()
    world.port(named(world, "network", "n1"), name="idle")
    assert one.news() == []


def test_a_gateway_does_not_join_what_is_behind_it(two: tuple[World, Listener, Listener]) -> None:
    world, one, _ = two
    outside = world.network(router__external=True)
    world.subnet(outside, "203.0.113.0/24")
    for number in (1, 2):
        router = world.router(external_gateway_info={"network_id": outside.id})
        subnet = world.cloud.subnets.by("network_id", named(world, "network", f"n{number}").id)[0]
        world.join(router, subnet_id=subnet.id)
    assert one.ids("host") == {"h1"}
    assert outside.id not in one.ids("network")


def test_groups_are_told_only_to_hosts_whose_own_ports_have_them(two: tuple[World, Listener, Listener]) -> None:
    world, one, other = two
    joined(world)
    group = world.group(name="web")
    world.change(named(world, "port", "p1"), security_groups=[group.id])
    assert group.id in one.ids("group")
    assert group.id not in other.ids("group")
    assert [groups for (kind, _), o in other.objects.items() if kind == "identity" for groups in o["groups"]].count(
        group.id
    ) == 1
    other.news()
    world.rule(group, protocol="tcp", port_range_min=80, port_range_max=80)
    assert [r["min"] for r in one.objects["group", group.id]["rules"] if r["way"] == "in"] == [80]
    assert other.news() == []


def test_the_change_of_a_rule_is_told_without_the_rest_of_its_group(two: tuple[World, Listener, Listener]) -> None:
    world, one, _ = two
    group = world.group(name="web")
    for number in range(100):
        world.rule(group, protocol="tcp", port_range_min=80, port_range_max=81 + number)
    world.change(named(world, "port", "p1"), security_groups=[group.id])
    assert len(one.objects["group", group.id]["rules"]) == 102
    one.news()
    rule = world.rule(group, protocol="udp")
    assert one.news() == [("rule", rule.id, True)]
    world.change(rule, description="x")
    assert one.news() == []
    world.delete(world.again(rule))
    assert one.news() == [("rule", rule.id, False)]
    assert len(one.objects["group", group.id]["rules"]) == 102


def test_what_does_not_matter_to_hosts_is_not_told(two: tuple[World, Listener, Listener]) -> None:
    world, one, _ = two
    one.news()
    world.change(named(world, "port", "p1"), name="renamed", description="x")
    world.change(named(world, "network", "n2"), admin_state_up=False)
    world.change(world.cloud.subnets.by("network_id", named(world, "network", "n1").id)[0], name="s")
    world.change(named(world, "network", "n1"), description="x")
    assert one.news() == []


def test_a_networks_domain_is_told(two: tuple[World, Listener, Listener]) -> None:
    world, one, _ = two
    network = named(world, "network", "n1")
    world.change(network, dns_domain="other.example.")
    assert one.objects["network", network.id]["domain"] == "other.example."


def test_documents_of_one_transaction_are_followed_by_one_bookmark(two: tuple[World, Listener, Listener]) -> None:
    world, one, _ = two
    one.told.clear()
    body = {"network_id": named(world, "network", "n1").id, "binding:host_id": "h2"}
    world.do(lambda d: [port_verbs.create(d, ADMIN, PORT.given(body)) for _ in range(3)])
    assert [("bookmark" in told) for told in one.told] == [False] * (len(one.told) - 1) + [True]
    assert one.told[-1] == {"bookmark": world.cloud.revision}


@pytest.fixture
def crowd(world: World) -> World:
    """200 hosts, 10 networks; each host has a port on its network and all are told."""
    networks = [world.network(name=f"n{i}") for i in range(10)]
    for i, network in enumerate(networks):
        world.subnet(network, f"10.{i}.0.0/16")
    for i in range(200):
        world.host(f"h{i}", f"192.0.2.{i + 1}")
        world.port(networks[i % 10], binding__host_id=f"h{i}", name=f"p{i}")
    return world


def test_a_change_is_encoded_once_and_sent_to_those_it_concerns(crowd: World) -> None:
    listeners = [Listener(crowd, f"h{i}") for i in range(200)]
    for listener in listeners:
        listener.news()
    before = crowd.views.encoded
    crowd.change(named(crowd, "port", "p0"), binding__profile={"device": "tap0"})
    assert crowd.views.encoded - before == 1
    assert [i for i, listener in enumerate(listeners) if listener.news()] == list(range(0, 200, 10))


def test_a_new_port_with_known_groups_tells_peers_one_document(crowd: World) -> None:
    listener = Listener(crowd, "h0")
    listener.news()
    before = crowd.views.encoded
    port = crowd.port(named(crowd, "network", "n0"), binding__host_id="h10")
    assert listener.news() == [("port", port.id, True)]
    assert crowd.views.encoded - before == 1


def test_a_host_that_joins_costs_the_others_one_document_more(crowd: World) -> None:
    listener = Listener(crowd, "h0")
    listener.news()
    before = crowd.views.encoded
    port = crowd.port(named(crowd, "network", "n0"), binding__host_id="h1")
    assert sorted(listener.news()) == [("host", "h1", True), ("port", port.id, True)]
    everything = len(Listener(crowd, "h1").objects)
    assert crowd.views.encoded - before <= everything


def test_resets_of_many_hosts_encode_each_object_once(crowd: World) -> None:
    for i in range(200):
        Listener(crowd, f"h{i}")
    # Hosts, networks, subnets, ports, one identity, one group.
    assert crowd.views.encoded == 200 + 10 + 10 + 200 + 1 + 1


def test_what_changes_while_a_host_hears_everything_is_heard_after_it(crowd: World, monkeypatch: Any) -> None:
    """Others have their turn between two lines of a reset; the host ends up knowing what there is."""
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 1
        return now

    monkeypatch.setattr("crossway.portions.time.perf_counter", clock)
    network = named(crowd, "network", "n0")
    gone = next(port for port in crowd.cloud.ports.by("network_id", network.id) if port.host != "h0")

    async def changes() -> None:
        await decide(crowd.cloud, lambda d: port_verbs.delete(d, ADMIN, gone.id))
        body = {"network_id": network.id, "binding:host_id": "h10"}
        await decide(crowd.cloud, lambda d: port_verbs.create(d, ADMIN, PORT.given(body)))

    changing = crowd.runner.get_loop().create_task(changes())
    listener = Listener(crowd, "h0")
    assert changing.done()
    assert not listener.told, "the changes are made while it still waits for its first line"
    while listener.bookmark < crowd.cloud.revision:
        crowd.settle()
    assert listener.objects == business(crowd.cloud, "h0")
    assert ("port", gone.id) not in listener.objects


def test_one_who_is_away_for_too_long_starts_over(two: tuple[World, Listener, Listener]) -> None:
    world, one, _ = two
    one.close()
    world.views._floor = world.cloud.revision + 1
    world.port(named(world, "network", "n1"), binding__host_id="h2")
    back = one.back()
    assert back.resets == 2
    assert back.objects == business(world.cloud, "h1")


def test_one_who_does_not_read_starts_over(two: tuple[World, Listener, Listener], monkeypatch: Any) -> None:
    world, one, _ = two
    monkeypatch.setattr("crossway.control.view.BACKLOG_MAX", 100)
    world.port(named(world, "network", "n1"), binding__host_id="h2")
    world.settle()
    assert one.resets == 2
    assert one.objects == business(world.cloud, "h1")


def test_a_revision_of_the_future_starts_over(two: tuple[World, Listener, Listener]) -> None:
    world, _, _ = two
    assert Listener(world, "h1", after=world.cloud.revision + 1).resets == 1
    assert Listener(world, "h1", after=world.cloud.revision).resets == 0


def test_a_quiet_stream_gets_bookmarks(two: tuple[World, Listener, Listener], monkeypatch: Any) -> None:
    world, one, _ = two
    one.told.clear()
    world.views.tick()
    world.settle()
    assert one.told == []
    monkeypatch.setattr("crossway.control.view.BOOKMARK_SECONDS", 0.0)
    world.views.tick()
    world.settle()
    assert one.told == [{"bookmark": world.cloud.revision}]


def test_a_host_is_waited_for_until_it_says_whether_it_has_taken_a_port(two: tuple[World, Listener, Listener]) -> None:
    world, one, _ = two
    for carried in (True, False):
        one.told.clear()
        taking = world.runner.get_loop().create_task(world.views.take("h1", "p"))
        world.settle()
        assert one.told == [{"take": "p"}]
        assert not taking.done()
        world.views.taken("h1", "p", carried=carried)
        world.settle()
        assert taking.done()


def test_a_port_that_a_host_has_taken_already_is_not_waited_for(two: tuple[World, Listener, Listener]) -> None:
    world, one, _ = two
    port, other = world.port(world.network(), binding__host_id="h2"), named(world, "port", "p1")
    world.make(BINDINGS, parent=port.id, host="h1")
    one.told.clear()
    world.views.taken("h1", port.id)
    world.views.taken("h1", other.id, carried=False)  # said too late
    # What does not wait for it, or is no port, is not remembered.
    for id in (named(world, "port", "p2").id, *(f"q{n}" for n in range(100))):
        world.views.taken("h1", id)
    assert world.views._carried.keys() == {("h1", port.id)}
    world.runner.run(world.views.take("h1", port.id))
    assert one.told == []
    waiting = world.runner.get_loop().create_task(world.views.take("h1", other.id))
    world.settle()
    assert not waiting.done()
    waiting.cancel()
