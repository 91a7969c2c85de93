"""Who serves a bare-metal server's port: what edges make of silence, and of each other's word."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from crossway.agent import edge
from crossway.agent.edge import Edges, Said
from crossway.kernel.links import Link
from crossway.model import rows as r
from crossway.plan import view
from crossway.plan.plan import Document, Plan
from crossway.plan.port import Body

HOSTS = {"h1": "192.0.2.1", "h2": "192.0.2.2", "h3": "192.0.2.3"}
PORT = view.Port(
    id="p", network="n", mac="fa:16:3e:00:00:01", host="h1", waiting=("h2",), link=view.Link("rack", 5)
)  # fmt: skip


class Pulse:
    """Hosts that answer, or do not."""

    def __init__(self) -> None:
        self.dead: set[str] = set()
        self.missed = edge.MISSED  # by those

    def silent(self, host: str, missed: int = edge.MISSED) -> bool:
        return host in self.dead and self.missed >= missed

    def alone(self, was: bool) -> bool:
        return self.dead >= set(HOSTS.values())


class Agent:
    """A host as edges see it."""

    def __init__(self, host: str) -> None:
        self.host, self.underlay, self.connected = host, HOSTS[host], True
        self.servers: Any = None
        self.plan = Plan(host)
        self.brought: list[str] = []
        self.wired = True
        self.plan.take([
            *(Document("host", id, view.Host(id=id, underlay=ip)) for id, ip in HOSTS.items()),
            Document("network", "n", view.Network(id="n", number=7, mtu=1450)),
            Document("port", "p", PORT),
        ])  # fmt: skip
        if host != "h3":
            self.plan.bodies({"p": Body(r.PortKey(4, 5), r.Body.VLAN)})
        self.plan.settle()

    def settle(self) -> None:
        self.plan.settle()

    def listen(self, port: str) -> None: ...

    def link(self, name: str) -> Link | None:
        return Link(4, name, True, 1500, "", "", "", self.wired or name == "under0")

    def toward(self, address: str) -> Link | None:
        return self.link("under0")

    def leading(self, address: str) -> set[int]:
        return {1}

    def device_of(self, port: str) -> str | None:
        return "eth1"

    def bring(self, port: str) -> None:
        self.brought.append(port)

    def hand_in(self, port: str, flows: bytes) -> None:
        raise AssertionError

    async def flows(self, ports: Mapping[str, r.PortKey]) -> dict[str, dict[r.FlowKey, r.Flow]]:
        raise AssertionError

    def at(self) -> str | None:
        return self.plan.whereabouts(PORT)

    def goes_to(self) -> r.Place:
        return self.plan.rows["macs"][r.MacKey(7, bytes.fromhex("fa163e000001"))]  # type: ignore[return-value]


class One:
    """One host's edges; what they say is kept."""

    def __init__(self, host: str) -> None:
        self.agent = Agent(host)
        self.edges = Edges(self.agent)
        self.said: list[tuple[str, Said]] = []
        self.pulse = Pulse()
        self.edges._pulse = self.pulse  # type: ignore[assignment]
        self.edges._say = lambda address, said: self.said.append((address, said))  # type: ignore[method-assign]
        self.announced: list[str] = []
        self.edges._announce = self.announced.append  # type: ignore[method-assign]
        self.edges.note("p", PORT)

    def look(self) -> None:
        hosts = self.edges._hosts()
        alone = self.edges._alone({HOSTS["h1"], HOSTS["h2"]} - {self.agent.underlay})
        self.edges._judge("p", PORT, hosts, alone, [HOSTS["h3"]])

    def hear(self, name: str, **what: Any) -> None:
        self.edges._heard(name, HOSTS[name], Said("p", **what))


@pytest.fixture
def active() -> One:
    return One("h1")


@pytest.fixture
def standby() -> One:
    return One("h2")


def test_a_standby_takes_the_port_of_a_silent_host_and_says_so_to_all(standby: One) -> None:
    standby.look()
    assert (standby.agent.at(), standby.said) == ("h1", [])
    standby.pulse.dead = {HOSTS["h1"]}
    standby.look()
    assert standby.agent.at() == "h2"
    assert standby.agent.goes_to().kind == r.PlaceKind.LOCAL
    assert {address for address, said in standby.said if said.at == "h2"} == {HOSTS["h1"], HOSTS["h3"]}
    assert standby.agent.brought == ["p"]


def test_many_hosts_are_asked_for_an_address_in_the_same_words(active: One) -> None:
    sent: list[tuple[list[str], Said]] = []
    active.edges._send = lambda to, raw: sent.append((list(to), msgspec.msgpack.decode(raw, type=Said)))  # type: ignore[method-assign]
    active.edges.seek(["h2", "h3", "nobody"], "n", "10.0.0.9")
    assert sent == [([HOSTS["h2"], HOSTS["h3"]], Said("", network="n", probe="10.0.0.9"))]


def test_a_port_that_comes_back_is_told_of_though_no_server_knows_that_it_was_away(active: One) -> None:
    active.hear("h2", at="h2", turn=1)
    assert active.agent.at() == "h2"
    active.edges.take("p")
    assert active.agent.at() == "h1"
    assert {address for address, said in active.said if said.at == "h1"} == {HOSTS["h2"], HOSTS["h3"]}
    # Nothing tells that it was heard: it is said again, and not for ever.
    active.edges.note("p", PORT)
    for _ in range(2 * edge.BACK):
        active.edges._telling = {id: (0.0, times) for id, (_, times) in active.edges._telling.items()}
        active.edges._repeat()
    assert len([said for _, said in active.said if said.at == "h1"]) == 2 * edge.BACK
    assert active.agent.brought == []


def test_who_is_cut_off_takes_nothing_and_lets_go(active: One, standby: One) -> None:
    for one in (active, standby):
        one.pulse.dead = set(HOSTS.values())
        one.look()
    assert standby.agent.at() == "h1"
    assert active.agent.at() == "h2"
    assert active.agent.goes_to().kind == r.PlaceKind.REMOTE
    # Back, and nobody has taken it.
    active.pulse.dead = set()
    active.look()
    assert active.said == [(HOSTS["h2"], Said("p", ask=True))]
    standby.hear("h1", ask=True)
    assert standby.said == [(HOSTS["h1"], Said("p", yours=True))]
    active.hear("h2", yours=True)
    assert active.agent.at() == "h1"


def test_a_standby_that_does_not_reach_the_server_takes_nothing(standby: One) -> None:
    standby.pulse.dead = {HOSTS["h1"]}
    standby.agent.wired = False
    standby.look()
    standby.hear("h1", take=True)
    assert standby.agent.at() == "h1"


def test_who_does_not_reach_the_server_asks_a_standby(active: One, standby: One) -> None:
    active.agent.wired = False
    active.look()
    active.look()  # not again at once
    assert active.said == [(HOSTS["h2"], Said("p", take=True))]
    standby.hear("h1", take=True)
    assert standby.agent.at() == "h2"


def test_the_latest_word_counts_and_only_that_of_edges() -> None:
    peer = One("h3")
    peer.hear("h3", at="h3", turn=9)
    assert peer.agent.at() == "h1"
    peer.hear("h2", at="h2", turn=5)
    assert (peer.agent.at(), peer.agent.goes_to().underlay[-4:]) == ("h2", bytes([192, 0, 2, 2]))
    peer.hear("h1", at="h1", turn=4)
    assert peer.agent.at() == "h2"
    # The server's next word on its host counts more; the same word again does not.
    other = msgspec.structs.replace(PORT, mac="fa:16:3e:00:00:01", identity=3)
    peer.agent.plan.take([Document("port", "p", other)])
    assert peer.agent.at() == "h2"
    for host, waiting in (("h2", "h1"), ("h1", "h2")):
        peer.agent.plan.take([Document("port", "p", msgspec.structs.replace(other, host=host, waiting=(waiting,)))])
        assert peer.agent.plan.whereabouts(peer.agent.plan.port("p") or PORT) == host


def test_a_host_that_another_hears_is_not_dead(standby: One, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(edge.time, "monotonic", lambda: now)
    standby.pulse.dead, standby.pulse.missed = {HOSTS["h1"]}, edge.DOUBTED
    standby.look()
    assert standby.said == [(HOSTS["h3"], Said("p", seek="h1"))]
    standby.hear("h3", seen="h1", at="h3", turn=99)  # whoever says more than that is not heard
    standby.pulse.missed = edge.MISSED
    standby.look()
    assert standby.agent.at() == "h1"
    now += edge.SEEN_SECONDS + 0.01
    standby.look()
    assert standby.agent.at() == "h2"


def test_a_port_that_has_just_gone_over_goes_again_after_a_longer_silence(standby: One) -> None:
    standby.look()
    standby.hear("h1", at="h1", turn=1)
    for turn in range(2, 5):
        standby.pulse.dead, standby.pulse.missed = {HOSTS["h1"]}, edge.MISSED << 2 * (turn - 2)
        standby.look()
        assert standby.agent.at() == "h2", turn
        standby.pulse.dead = set()
        standby.look()
        standby.hear("h1", at="h1", turn=10**15 * turn)
        standby.look()
        assert standby.agent.at() == "h1"
        standby.pulse.dead, standby.pulse.missed = {HOSTS["h1"]}, (edge.MISSED << 2 * (turn - 1)) - 1
        standby.look()
        assert standby.agent.at() == "h1", turn


def test_who_lets_go_says_so_and_who_serves_tells_the_switch_again(active: One, standby: One) -> None:
    active.edges.after()
    assert active.said == []
    standby.edges.after()
    assert standby.said == [(HOSTS["h1"], Said("p", yours=True))]  # whatever its programs did before
    active.announced.clear()
    active.hear("h2", yours=True)
    assert active.announced == ["p"]
    # One that was silent may have come back, and think as before, until it says otherwise.
    active.pulse.dead = {HOSTS["h2"]}
    active.look()
    active.edges._settle()
    active.edges._settle()  # not again at once
    assert active.announced == ["p", "p"]
    assert active.said[-1] == (HOSTS["h2"], Said("p", ask=True))
    active.hear("h2", yours=True)
    assert active.edges._unsettled == {}


def test_a_clock_that_runs_ahead_does_not_make_its_host_the_last_to_be_believed() -> None:
    peer = One("h3")
    peer.hear("h2", at="h2", turn=10**15)
    moved = msgspec.structs.replace(PORT, host="h2", waiting=("h1",))
    peer.agent.plan.take([Document("port", "p", moved)])  # and so the server says
    peer.edges.note("p", moved)
    peer.hear("h1", at="h1", turn=7)
    assert peer.agent.plan.whereabouts(moved) == "h1"


def test_of_a_port_that_is_no_servers_only_where_it_is_is_heard() -> None:
    peer, guest = One("h3"), msgspec.structs.replace(PORT, link=None)
    peer.agent.plan.take([Document("port", "p", guest)])
    peer.hear("h2", ask=True)
    peer.hear("h2", take=True)
    assert (peer.said, peer.agent.at()) == ([], "h1")
    peer.hear("h2", at="h2", turn=5)
    assert peer.agent.plan.whereabouts(guest) == "h2"


def test_echoes_are_counted() -> None:
    pulse = edge.Pulse("127.0.0.1")
    try:
        for _ in range(edge.MISSED):
            pulse.ask(["127.0.0.1", "192.0.2.99"])
        assert pulse.hear() == {"127.0.0.1"}
        assert not pulse.silent("127.0.0.1")
        assert pulse.silent("192.0.2.99")
        assert pulse.alone(False) is False
        pulse.begin_anew()
        assert not pulse.silent("192.0.2.99")
    finally:
        pulse.close()


def test_who_was_silent_before_does_not_tell_who_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(edge.time, "monotonic", lambda: now)
    pulse = edge.Pulse("127.0.0.1")
    try:

        def hosts(**answered: float) -> None:
            """Let hosts have answered so many seconds ago."""
            pulse._missed = {name: 0 if ago < 0.1 else edge.MISSED for name, ago in answered.items()}
            pulse._heard = {name: now - ago for name, ago in answered.items()}

        hosts(h2=1, h3=1)
        assert pulse.alone(False) is True
        hosts(h2=0, h3=1)
        assert pulse.alone(False) is False
        hosts(h2=1, h3=60)  # h3 has been down for a minute, and now h2 has died
        assert pulse.alone(False) is None
        hosts(h2=60, h3=60)  # cut off for a minute
        assert pulse.alone(True) is True
        hosts(h2=60, h3=0)
        assert pulse.alone(True) is False
    finally:
        pulse.close()


@pytest.mark.parametrize(
    ("source", "other_port", "link", "is_heard"),
    [
        ("127.0.0.2", False, 1, True),
        ("127.0.0.3", False, 1, False),
        ("127.0.0.2", True, 1, False),
        ("127.0.0.2", False, 99, False),
    ],
    ids=["a host", "a stranger", "another program of the host", "by a link that does not lead there"],
)
def test_only_an_agent_is_heard_by_the_links_that_lead_to_it(
    monkeypatch: pytest.MonkeyPatch, source: str, other_port: bool, link: int, is_heard: bool
) -> None:
    monkeypatch.setattr(edge, "PORT", free_port())
    one = One("h2")
    one.agent.underlay = "127.0.0.1"
    monkeypatch.setattr(one.edges, "_hosts", lambda: {"h1": "127.0.0.2"})
    monkeypatch.setattr(one.agent, "leading", lambda address: {link} if address == "127.0.0.2" else {1})
    heard: list[tuple[str, str]] = []
    monkeypatch.setattr(one.edges, "_heard", lambda name, source, said: heard.append((name, said.port)))

    async def hear() -> None:
        one.edges.open()
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
                out.bind((source, free_port() if other_port else edge.PORT))
                out.sendto(msgspec.msgpack.encode(Said("p", ask=True)), ("127.0.0.1", edge.PORT))
            for _ in range(20 if not is_heard else 500):
                await asyncio.sleep(0.01)
                if heard:
                    break
        finally:
            one.edges._pulse = None
            one.edges.close()

    asyncio.run(hear())
    assert heard == ([("h1", "p")] if is_heard else [])


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])
