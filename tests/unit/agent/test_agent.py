"""One host's agent over a kernel and a server that are not there."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from crossway.agent import agent as module
from crossway.agent.agent import Agent
from crossway.agent.body import Record, Records
from crossway.errors import Conflict, NotFound, Unavailable
from crossway.kernel.links import ALIAS, Inside, Link, link_name
from crossway.model import rows as r
from crossway.plan.rows import POLICY
from crossway.plan.service import SERVICE_MAC
from unit.agent.test_tables import Kernel, One

A, B = "aaaaaaaa-0000-4000-8000-000000000001", "bbbbbbbb-0000-4000-8000-000000000002"


class Machine:
    """The links and tables of a host; they outlive the agents that use them."""

    def __init__(self) -> None:
        self.kernel = Kernel()
        self.links: dict[str, Link] = {}
        self.hooks: dict[int, str] = {}
        self.inside: dict[str, Any] = {}
        self._next = 10

    def add(self, name: str, kind: str, alias: str = "", mtu: int = 1500) -> Link:
        self._next += 1
        self.links[name] = Link(self._next, name, False, mtu, "", kind, alias)
        return self.links[name]


class FakeObject(Kernel):
    """What the agent asks of a loaded data plane."""

    build_id = "build"

    def __init__(self, machine: Machine) -> None:
        self.done, self.refused, self.rows = machine.kernel.done, machine.kernel.refused, machine.kernel.rows
        self.btf = self

    def enum(self, _: str) -> dict[str, int]:
        return {"DROP_POLICY_IN": 1}


class FakePlane:
    machine: Machine

    def __init__(self, *_: object) -> None:
        self.object = FakeObject(self.machine)
        self.overlay = Link(1, "cw-overlay", True, 65000, "", "vxlan", "")

    def hook(self, program: str, ifindex: int) -> None:
        self.machine.hooks[ifindex] = program

    def program(self, ifindex: int) -> str | None:
        return self.machine.hooks.get(ifindex)

    def unhook(self, ifindex: int) -> None:
        self.machine.hooks.pop(ifindex, None)

    def gone(self, ifindex: int) -> None:
        self.machine.hooks.pop(ifindex, None)

    def start(self) -> None: ...
    def filled(self) -> None: ...
    def toward(self, hosts: Iterable[bytes]) -> None: ...
    def face(self, links: Mapping[int, str] | None) -> None: ...
    def came(self, link: Link) -> None: ...
    def close(self) -> None: ...
    def questions(self, take: Any) -> Silence:
        return Silence()


class Silence:
    """A ring that nothing is put into."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0)

    def fileno(self) -> int:
        return self._fd

    def read(self) -> None: ...
    def close(self) -> None:
        os.close(self._fd)


class FakeLinks:
    machine: Machine

    def all(self) -> list[Link]:
        return list(self.machine.links.values())

    def find(self, name: str) -> Link | None:
        return self.machine.links.get(name)

    def veth(self, port: str, netns: int, inside: Any) -> Link:
        name = link_name(port)
        return self.machine.links.get(name) or self.machine.add(name, "veth", ALIAS + port)

    def set(self, ifindex: int, **what: Any) -> None:
        for name, link in self.machine.links.items():
            if link.ifindex == ifindex:
                self.machine.links[name] = link._replace(**{k: v for k, v in what.items() if v is not None})

    def remove(self, *names: str) -> None:
        for name in names:
            self.machine.links.pop(name, None)

    def addresses(self) -> dict[int, list[str]]:
        return {}

    def free(self, port: str, netns: int, ifname: str) -> None: ...
    def close(self) -> None: ...


class FakeServers:
    """A server in the same process: what it was told, and whether it answers."""

    server = "fake"

    def __init__(self) -> None:
        self.bound: list[tuple[str, str | None]] = []
        self.ports: dict[str, str | None] = {}
        self.silent = False
        self.on_bind: Callable[[str, str | None], None] = lambda id, host: None

    async def port(self, id: str) -> dict[str, Any]:
        if id not in self.ports:
            raise NotFound("port", id)
        return {"id": id, "binding:host_id": self.ports[id]}

    async def bindings(self, id: str) -> list[dict[str, Any]]:
        return [{"host": self.ports[id]}]

    async def hosts(self) -> list[dict[str, Any]]:
        return [{"name": "h2", "alive": True}, {"name": "h3", "alive": False}]

    async def bind(self, id: str, *, host: str | None) -> None:
        if self.silent:
            raise Unavailable("no answer")
        self.bound.append((id, host))
        self.ports[id] = host
        self.on_bind(id, host)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    machine = Machine()
    monkeypatch.setattr(FakePlane, "machine", machine, raising=False)
    monkeypatch.setattr(FakeLinks, "machine", machine, raising=False)
    monkeypatch.setattr(module, "Plane", FakePlane)
    monkeypatch.setattr(module, "netns_of", lambda name: os.open("/dev/null", os.O_RDONLY))

    def furnish(_: int, inside: Inside, *, is_first: bool = False) -> Inside:
        machine.inside[inside.ifname] = inside
        return inside

    monkeypatch.setattr(module, "refurnish", lambda netns, old, new, **how: furnish(netns, new, **how))
    monkeypatch.setattr(module, "furnish", furnish)
    monkeypatch.setattr("crossway.agent.remover.Links", FakeLinks)
    return machine


class World:
    """An agent whose server is the test."""

    def __init__(self, machine: Machine, run: Path) -> None:
        self.machine, self.run = machine, run
        self.revision = 0
        self.objects: dict[tuple[str, str], Any] = {}
        self.servers = FakeServers()
        self.begin()

    def begin(self) -> None:
        """Let a new agent begin where the last one was killed."""
        self.agent = Agent(["unix:/nowhere"], "h1", "192.0.2.1", {}, self.run, 4789)
        self.agent.servers = self.servers  # type: ignore[assignment]
        self.agent.links = FakeLinks()  # type: ignore[assignment]
        self.agent._remover = module.Remover()
        self.agent._begin()

    def tell(self, *documents: tuple[str, str, Any], whole: bool = False) -> None:
        for kind, id, found in documents:
            if found is None:
                self.objects.pop((kind, id), None)
            else:
                self.objects[kind, id] = found
        self.revision += 1
        told = [(kind, id, o) for (kind, id), o in self.objects.items()] if whole else documents
        batch = [{"kind": kind, "id": id, "object": o} for kind, id, o in told]
        self.agent._bookmark(self.revision, batch, whole=whole)

    @property
    def rows(self) -> dict[str, Any]:
        return self.machine.kernel.rows

    def plug(self, id: str = A, **more: Any) -> Any:
        body = {"port": id, "body": "veth", "netns": "red", **more}
        return self.agent._answer_plug(json.dumps(body).encode(), {})

    def unplug(self, id: str = A) -> Any:
        return self.agent._answer_unplug(msgspec.json.encode({"port": id}), {})

    def up(self, id: str = A) -> str | None:
        return self.agent._states.get(id)


def a_port(id: str = A, host: str | None = None, **more: Any) -> tuple[str, str, Any]:
    mac = f"fa:16:3e:00:00:{id[0]}{id[0]}"
    addresses = [{"ip": f"10.0.0.{int(id[-1])}", "subnet": "s"}]
    port = {"id": id, "network": "n", "mac": mac, "addresses": addresses, "identity": 0, "host": host, **more}
    return "port", id, port


NETWORK = ("network", "n", {"id": "n", "number": 10, "mtu": 1400})
SUBNET = ("subnet", "s", {"id": "s", "network": "n", "cidr": "10.0.0.0/24", "gateway": "10.0.0.254"})


def story(machine: Machine, run: Path) -> Callable[[Callable[[World], Awaitable[None]]], None]:
    """Return what lets a story happen in a world that knows a network and two ports."""

    def tell(what: Callable[[World], Awaitable[None]]) -> None:
        async def whole() -> None:
            world = World(machine, run)
            world.servers.ports = {A: None, B: "h2"}
            world.servers.on_bind = lambda id, host: world.tell(a_port(id, host))
            world.tell(NETWORK, SUBNET, a_port(A), a_port(B), whole=True)
            await what(world)
            await world.agent._remover.close()

        asyncio.run(whole())

    return tell


@pytest.fixture
def tell(machine: Machine, tmp_path: Path) -> Callable[[Callable[[World], Awaitable[None]]], None]:
    return story(machine, tmp_path)


Tell = Callable[[Callable[[World], Awaitable[None]]], None]


def test_a_plugged_port_has_rows_link_and_file_and_an_unplugged_one_none(tell: Tell, tmp_path: Path) -> None:
    async def what(world: World) -> None:
        answer = await world.plug()
        assert answer == {
            "port": A,
            "ifname": "eth0",
            "mac": "fa:16:3e:00:00:aa",
            "addresses": ["10.0.0.1/24"],
            "gateways": ["10.0.0.254"],
            "mtu": 1400,
            "routes": [("0.0.0.0/0", "10.0.0.254")],
            "led_by_others": [],
            "dns": [],
            "resolvers": list(world.agent.plan.asked_at),
            "device": "cwaaaaaaaa000",
            "device_mac": "",
        }
        assert world.servers.bound == [(A, "h1")]
        link = world.machine.links[link_name(A)]
        assert link.up
        assert world.machine.hooks[link.ifindex] == "from_workload"
        assert world.rows["ports"].keys() == {r.PortKey(link.ifindex)}
        assert world.up() == "up"
        assert await world.plug() == answer, "repeated, it answers the same"
        assert await world.unplug() == {"port": A} == await world.unplug()
        assert not world.rows["ports"]
        assert not world.machine.links
        assert not list((tmp_path / "bodies").iterdir())
        assert world.servers.bound[-1] == (A, None)

    tell(what)


def test_a_port_of_another_living_host_is_refused_and_one_of_a_dead_host_is_not(tell: Tell) -> None:
    async def what(world: World) -> None:
        world.tell(a_port(B, "h2"))
        with pytest.raises(Conflict, match="on host h2"):
            await world.plug(B)
        await world.agent._remover.gone(link_name(B))
        assert not world.machine.links
        world.tell(a_port(B, "h3"))
        assert (await world.plug(B))["port"] == B

    tell(what)


def test_a_plug_that_the_server_does_not_hear_is_undone(tell: Tell, tmp_path: Path) -> None:
    async def what(world: World) -> None:
        world.servers.silent = True
        with pytest.raises(Unavailable):
            await world.plug()
        await world.agent._remover.gone(link_name(A))
        assert not world.machine.links
        assert not list((tmp_path / "bodies").iterdir())

    tell(what)


@pytest.mark.parametrize("gone", [None, "h2"], ids=["deleted", "bound elsewhere"])
def test_a_port_that_is_no_longer_this_hosts_loses_its_body(tell: Tell, tmp_path: Path, gone: str | None) -> None:
    async def what(world: World) -> None:
        await world.plug()
        world.tell(a_port(A, gone) if gone else ("port", A, None))
        assert not world.rows["ports"], "rows go at once"
        await world.agent._remover.gone(link_name(A))
        assert not world.machine.links
        assert not list((tmp_path / "bodies").iterdir())
        assert world.up() is None

    tell(what)


@pytest.mark.parametrize("end", ["the port comes", "it does not", "it goes elsewhere", "it is deleted"])
@pytest.mark.parametrize("restarts", [0, 1, 2])
def test_a_body_that_waits_for_its_port_stays_over_restarts(
    tell: Tell, tmp_path: Path, end: str, restarts: int
) -> None:
    async def what(world: World) -> None:
        world.tell(a_port(A, "h2", waiting=["h1"]))
        await world.plug()
        for _ in range(restarts):
            world.begin()
            world.tell(whole=True)
            await world.agent._remover.gone(link_name(A))
            assert link_name(A) in world.machine.links
        if end == "the port comes":
            world.tell(a_port(A, "h1", waiting=["h2"]))
            assert world.up() == "up"
            world.begin()
            world.tell(a_port(A, "h2", waiting=["h1"]), whole=True)  # it has been here, and is so no more
        elif end == "it does not":
            world.tell(a_port(A, "h2"))
        elif end == "it goes elsewhere":
            world.tell(a_port(A, "h3", waiting=["h2"]))
        else:
            world.tell(("port", A, None))
        await world.agent._remover.gone(link_name(A))
        assert not world.machine.links
        assert not list((tmp_path / "bodies").iterdir())

    tell(what)


@pytest.mark.parametrize("restarted", [False, True])
def test_where_a_port_was_its_connections_are_told_before_the_move_is_said_to_be_known(
    tell: Tell, restarted: bool
) -> None:
    async def what(world: World) -> None:
        said = []

        async def hand_over(port: str, _: bytes) -> None:
            await asyncio.sleep(0.05)
            said.append(port)

        async def report(applied: int, _: Mapping[str, str]) -> None:
            said.append(f"revision {applied}")

        async def flows(ports: Mapping[str, r.PortKey]) -> dict[str, dict[r.FlowKey, r.Flow]]:
            return {port: {} for port in ports}

        await world.plug()
        world.tell(a_port(A, "h1", waiting=["h2"]))
        if restarted:
            world.begin()
        world.servers.hand_over, world.servers.report = hand_over, report  # type: ignore[attr-defined]
        world.agent.flows = flows  # type: ignore[method-assign]
        world.tell(a_port(A, "h2", waiting=["h1"]), whole=restarted)
        await asyncio.gather(world.agent._tell(), world.agent._moves.hand_over())
        assert said == [A, f"revision {world.revision}"]
        await asyncio.gather(world.agent._moves.hand_over(), world.agent._remover.gone(link_name(A)))
        assert len(said) == 2, "once"

    tell(what)


def test_a_restart_writes_nothing_that_is_there(tell: Tell) -> None:
    async def what(world: World) -> None:
        await world.plug()
        before = {table: dict(rows) for table, rows in world.rows.items()}
        world.machine.kernel.done.clear()
        world.begin()
        assert not world.machine.kernel.done, "nothing before the view is whole"
        world.tell(whole=True)
        assert {table for _, table, _ in world.machine.kernel.done} <= {"generations"}
        before["generations"] = world.rows["generations"]
        assert world.rows == before
        assert world.up() == "up"

    tell(what)


def test_what_changed_while_the_agent_was_away_is_made_up_for(tell: Tell, tmp_path: Path) -> None:
    async def what(world: World) -> None:
        await world.plug()
        world.machine.add("cwffffffffff", "veth", ALIAS + "never heard of")
        Records(tmp_path / "bodies").write(Record(port=B, body="tap", device="tap9"))
        world.begin()
        world.objects.pop(("port", A))
        world.tell(whole=True)
        kept = ("networks", "generations", "shares", "charges")  # the sweep takes shares away with the last row
        assert not any(rows for table, rows in world.rows.items() if table not in kept)
        for name in (link_name(A), "cwffffffffff"):
            await world.agent._remover.gone(name)
        assert not world.machine.links
        assert not list((tmp_path / "bodies").iterdir())

    tell(what)


def test_one_bad_object_is_down_and_the_others_go_on(tell: Tell) -> None:
    async def what(world: World) -> None:
        await world.plug()
        world.tell(a_port(B, "h2", mac="nonsense"), ("host", "h2", {"id": "h2"}))
        assert world.up() == "up"
        world.tell(a_port(A, "h1", mac="nonsense"))
        assert world.up() == "down"
        assert not world.rows["ports"]
        world.tell(("subnet", "s", {**SUBNET[2], "cidr": "nonsense"}))
        world.tell(a_port(A, "h1"))
        assert world.up() == "up", "its rows need no subnet"
        world.tell(SUBNET, a_port(A, "h1", addresses=[{"ip": "10.0.0.9", "subnet": "s"}]))
        assert world.machine.inside["eth0"].addresses == ("10.0.0.9/24",)

    tell(what)


def test_a_change_that_failed_half_way_is_made_up_for_by_the_next(tell: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    async def what(world: World) -> None:
        await world.plug()
        tables = world.agent.tables
        with monkeypatch.context() as patch:
            patch.setattr(tables, "apply", lambda change: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                world.tell(a_port(A, "h1", mac="fa:16:3e:00:00:77"))
        assert not world.agent._synced
        world.tell(("network", "n", {**NETWORK[2], "mtu": 1300}))
        assert {key.mac for key in world.rows["macs"]} == {bytes.fromhex("fa163e000077"), SERVICE_MAC}
        assert world.agent._synced

    tell(what)


def test_a_link_that_a_binding_names_comes_and_goes(tell: Tell) -> None:
    async def what(world: World) -> None:
        world.tell(a_port(A, "h1", device="tap7"))
        assert world.up() == "down"
        link = world.machine.add("tap7", "tun")
        world.agent._link_came(link)
        world.agent._names_changed({"tap7"})
        assert world.up() == "up"
        assert next(iter(world.rows["ports"].values())).body == r.Body.TAP
        assert world.machine.links["tap7"][2:4] == (True, 1400), "it is set up, with the network's MTU"
        world.agent._link_gone(link.ifindex)
        world.agent._names_changed({"tap7"})
        assert world.up() == "down"
        assert not world.rows["ports"]
        again = world.machine.add("tap7", "veth")
        world.agent._link_came(again)
        world.agent._names_changed({"tap7"})
        assert next(iter(world.rows["ports"].values())).body == r.Body.VETH
        world.tell(("port", A, None))
        assert "tap7" in world.machine.links, "what others made stays"
        assert not world.machine.hooks

    tell(what)


def test_one_device_is_the_body_of_one_port_a_tag(tell: Tell) -> None:
    async def what(world: World) -> None:
        world.agent._link_came(world.machine.add("eth1", ""))
        await world.plug(A, body="vlan", device="eth1", vlan=5, netns=None)
        world.tell(a_port(B))
        world.servers.ports[B] = None
        with pytest.raises(Conflict, match=f"eth1 is the body of port {A}"):
            await world.plug(B, body="vlan", device="eth1", vlan=5, netns=None)
        await world.plug(B, body="vlan", device="eth1", vlan=6, netns=None)
        assert len(world.rows["ports"]) == 2
        await world.unplug(A)
        assert world.machine.hooks, "the other port still needs it"
        await world.unplug(B)
        assert not world.machine.hooks

    tell(what)


def test_only_one_agent_has_a_directory(machine: Machine, tmp_path: Path) -> None:
    first, second = (Agent(["unix:/nowhere"], "h1", "192.0.2.1", {}, tmp_path, 4789) for _ in range(2))
    with first._alone(), pytest.raises(Conflict, match="another agent runs"), second._alone():
        pass
    with second._alone():
        pass


def rules_of(*prefixes: str, identity: int, group: str) -> list[tuple[str, str, Any]]:
    """Return an identity whose group lets these addresses in."""
    rule = {"id": f"{group}-rule", "number": 1, "way": "in", "family": 4, "proto": 6, "min": 1, "max": 65534}
    told = {"id": group, "rules": [], "named": [{**rule, "addresses": "g"}], "addresses": {"g": prefixes}}
    return [("group", group, told), ("identity", str(identity), {"id": str(identity), "groups": [group]})]


def test_a_large_change_of_policy_holds_up_no_other_port(tell: Tell) -> None:
    async def what(world: World) -> None:
        agent = world.agent
        many = [f"10.{n >> 8}.{n & 255}.0/24" for n in range(50_000)]
        world.servers.ports = {A: None, B: None}
        world.servers.on_bind = lambda id, host: world.tell(a_port(id, host, identity={A: 1, B: 2}[id]))
        world.tell(*rules_of(*many[:10], identity=1, group="a"), *rules_of(*many[:5], identity=2, group="b"))
        await world.plug(A)
        assert world.up(A) == "up"
        before = agent.applied
        assert before == world.revision
        world.tell(*rules_of(*many, identity=1, group="a"))
        assert len(world.rows["prefixes"]) < 10_000, "no more than a portion is done at once"
        assert agent.applied == before
        assert world.up(A) == "up", "its old policy holds meanwhile"
        await world.plug(B)
        assert world.up(B) == "up"
        assert len([key for key in world.rows["prefixes"] if key.identity == 2]) == 5
        assert len(world.rows["prefixes"]) < 20_000
        await caught_up(world)
        assert len([key for key in world.rows["prefixes"] if key.identity == 1]) == 50_000
        assert agent.applied == world.revision
        world.tell(("group", "a", None))
        await caught_up(world)
        assert not [key for table in POLICY for key in world.rows[table] if key.identity == 1]

    tell(what)


async def caught_up(world: World) -> None:
    """Let the agent go on until no policy is behind; it is called as often as that takes, and no more."""
    while world.agent.plan.policy.pending:
        before = len(world.machine.kernel.done)
        await world.agent._catch_up()
        assert len(world.machine.kernel.done) - before <= 5_000


def test_a_port_waits_for_its_policy_however_large_it_is(tell: Tell) -> None:
    async def what(world: World) -> None:
        many = [f"10.{n >> 8}.{n & 255}.0/24" for n in range(20_000)]
        world.servers.on_bind = lambda id, host: world.tell(a_port(id, host, identity=1))
        world.tell(*rules_of(*many, identity=1, group="a"))
        plugging = asyncio.ensure_future(world.plug(A))
        seen = set()
        for _ in range(1000):
            await asyncio.sleep(0)
            if world.agent.plan.policy.pending:
                await world.agent._catch_up()
            if world.rows["ports"]:
                assert len(world.rows["prefixes"]) == 20_000, "no port before its policy"
            seen.add((len(world.rows["prefixes"]) > 0, bool(world.rows["ports"]), world.up(A)))
            if plugging.done():
                break
        await plugging
        assert (True, False, "down") in seen, "there was a time between"
        assert world.up(A) == "up"
        # The groups of a port that is up change: it has its old policy until the new one is there.
        world.tell(*rules_of(*many[:100], identity=2, group="b"))
        world.tell(*rules_of(*many, identity=3, group="c"), a_port(A, "h1", identity=3))
        (row,) = world.rows["ports"].values()
        assert row.identity == 1
        assert world.up(A) == "down"
        assert [key for key in world.rows["prefixes"] if key.identity == 1]
        await caught_up(world)
        await caught_up(world)
        (row,) = world.rows["ports"].values()
        assert row.identity == 3
        assert world.up(A) == "up"
        assert {key.identity for key in world.rows["prefixes"]} == {3}

    tell(what)


def test_an_agent_that_failed_within_a_large_change_makes_all_of_it_good(tell: Tell) -> None:
    async def what(world: World) -> None:
        many = [f"10.{n >> 8}.{n & 255}.0/24" for n in range(20_000)]
        world.servers.on_bind = lambda id, host: world.tell(a_port(id, host, identity=1))
        world.tell(*rules_of(*many[:10], identity=1, group="a"))
        await world.plug(A)
        world.tell(*rules_of(*many, identity=1, group="a"))
        while len(world.rows["prefixes"]) == 10:
            await world.agent._catch_up()
        assert len(world.rows["prefixes"]) < 20_000
        world.agent._synced = False
        world.tell(*rules_of(*many[5:], identity=1, group="a"))
        assert len(world.rows["prefixes"]) == 19_995
        assert not world.agent.plan.policy.pending
        world.begin()
        world.tell(whole=True)
        assert len(world.rows["prefixes"]) == 19_995
        assert world.agent.applied == world.revision

    tell(what)


def test_a_full_table_is_the_fault_of_who_has_more_than_its_share(
    tell: Tell, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(One, "size", 320)  # a sixteenth stays free

    async def what(world: World) -> None:
        many = [f"10.{n}.0.0/16" for n in range(250)]
        projects, identities = {A: "greedy", B: "modest"}, {A: 1, B: 2}
        world.servers.ports = {A: None, B: None}
        world.servers.on_bind = lambda id, host: world.tell(
            a_port(id, host, identity=identities[id], project=projects[id])
        )
        world.tell(*rules_of(*many[:240], identity=1, group="a"), *rules_of(*many[:100], identity=2, group="b"))
        await world.plug(A)
        await world.plug(B)
        await caught_up(world)
        assert (world.up(A), world.up(B)) == ("down", "up")
        assert {key.identity for table in POLICY for key in world.rows[table]} == {2}
        status = {port["id"]: port["fault"] for port in (await world.agent._answer_status(b"", {}))["ports"]}
        assert status[B] is None
        assert "project greedy has 0, where 150 are assured" in status[A]
        assert f"port {A} has no rows: its security groups need 270 rows of policy" in caplog.text
        world.tell(*rules_of(*many[:50], identity=1, group="a"))
        await caught_up(world)
        assert (world.up(A), world.up(B)) == ("up", "up")

    tell(what)
