"""Bare-metal servers behind edge hosts: served by the API alone, and by another edge when one dies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import pytest

from crossway.client import path_of
from crossway.lab import Lab, Workload
from crossway.lab.impair import Impairment
from crossway.lab.lab import Host
from crossway.lab.server import TRUNK, Server, trunk
from lab.stories import Traffic, dual, open_group, pings, wait_for

RUNS = int(os.environ.get("EDGE_RUNS", "2"))
RATE = 1000  # datagrams a second: one that is lost is a millisecond
GAP_MS = 300
VLAN = 105
RACK = {"physical_network": "rack", "vlan": VLAN}


class Scene(NamedTuple):
    lab: Lab
    network: dict[str, Any]
    group: dict[str, Any]
    peer: Workload  # on a host that is no edge


def edge(lab: Lab, host: Host) -> None:
    """Make a host an edge: its device toward the servers' switch is that of the physical network."""
    trunk(lab, host)
    host.physnets["rack"] = TRUNK
    host.agent.restart()


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with Lab.up(hosts=3) as lab:
        for host in lab.hosts[:2]:
            edge(lab, host)
        lab.joined()
        network, group = dual(lab, "rack"), open_group(lab)
        yield Scene(lab, network, group, lab.workload(lab.hosts[2], network, groups=[group]))


def bare(scene: Scene, vlan: int, host: str, **attrs: Any) -> dict[str, Any]:
    """Make a port of a server behind an edge."""
    profile = {"local_link_information": [{"switch_id": "00:11:22", "port_id": "7", **RACK, "vlan": vlan}]}
    return scene.lab.client.create(
        "port", network_id=scene.network["id"], **{"security_groups": [scene.group["id"]], **attrs},
        **{"binding:vnic_type": "baremetal", "binding:profile": profile, "binding:host_id": host},
    )  # fmt: skip


def test_a_server_is_on_the_network_by_its_ports_binding_alone(scene: Scene) -> None:
    lab, peer = scene.lab, scene.peer
    port = bare(scene, 6, "h1")
    server = Server(lab, "one", port["mac_address"], 6, lab.hosts[:1])
    try:
        lab.client.wait("port", port["id"])
        ip4 = next(a["ip_address"] for a in port["fixed_ips"] if "." in a["ip_address"])
        server.boot(ip4)
        assert pings(server, peer.ip4)
        assert pings(peer, ip4)
        lab.client.update("port", port["id"], **{"binding:profile": {**RACK, "vlan": 7}})
        assert wait_for(lambda: not pings(peer, ip4))
        lab.client.update("port", port["id"], **{"binding:profile": {**RACK, "vlan": 6}})
        lab.client.wait("port", port["id"])
        assert pings(server, peer.ip4)
    finally:
        lab.client.delete("port", port["id"])
    assert wait_for(lambda: not pings(server, peer.ip4))


def test_a_host_without_the_physical_network_does_not_serve_it(scene: Scene) -> None:
    port = bare(scene, 8, "h3")
    assert scene.lab.client.show("port", port["id"])["status"] == "DOWN"
    scene.lab.client.delete("port", port["id"])


class Rack(NamedTuple):
    """A server, its port, and those who speak with it."""

    scene: Scene
    server: Server
    port: dict[str, Any]
    ip4: str
    ip6: str
    inner: Workload  # to which the server connects

    def at(self) -> str:
        return str(self.scene.lab.client.show("port", self.port["id"])["binding:host_id"])

    def wait_for(self, host: str, seconds: float = 20.0) -> None:
        """Wait until the port is ACTIVE on a host."""
        ask, id = self.scene.lab.client, self.port["id"]
        assert wait_for(lambda: self.at() == host, seconds=seconds), self.at()
        ask.wait("port", id, seconds=40)


@pytest.fixture(scope="module")
def rack(scene: Scene) -> Iterator[Rack]:
    lab = scene.lab
    picky = lab.client.create("security_group", name="picky")
    for version, one in (("IPv4", f"{scene.peer.ip4}/32"), ("IPv6", f"{scene.peer.ip6}/128")):
        rule = {"security_group_id": picky["id"], "direction": "ingress", "ethertype": version}
        lab.client.create("security_group_rule", **rule, remote_ip_prefix=one)
    port = bare(scene, VLAN, "h1", security_groups=[picky["id"]])
    server = Server(lab, "two", port["mac_address"], VLAN, lab.hosts[:2])
    lab.client.wait("port", port["id"])
    ip4, ip6 = sorted((a["ip_address"] for a in port["fixed_ips"]), key=lambda ip: ":" in ip)
    server.boot(ip4)
    server.exec("ip", "address", "add", f"{ip6}/64", "dev", "eth0", "nodad")
    inner = lab.workload(lab.hosts[2], scene.network, groups=[scene.group])
    yield Rack(scene, server, port, ip4, ip6, inner)
    lab.client.delete("port", port["id"])


def bindings(rack: Rack) -> str:
    return f"{path_of('port', rack.port['id'])}/bindings"


def edges(rack: Rack) -> tuple[str, str]:
    """Return the edge that serves, and the other one."""
    return (at := rack.at()), {"h1": "h2", "h2": "h1"}[at]


def stand_by(rack: Rack) -> None:
    """Let the other edge stand by, if it does not."""
    ask, (_, other) = rack.scene.lab.client, edges(rack)
    if other not in {b["host"] for b in ask.ask("GET", bindings(rack))["bindings"]}:
        ask.ask("POST", bindings(rack), {"binding": {"host": other}})


class Bill(NamedTuple):
    into: dict[str, Any]
    out: dict[str, Any]
    inward: dict[str, Any]
    outward: dict[str, Any]
    sent: tuple[int, int]


def traffic(rack: Rack, breaks: Callable[[], None], v: int = 4) -> Bill:
    """Count what becomes of connections and of numbered datagrams, both ways, of which some only an old one admits."""
    peer, inner, server = rack.scene.peer, rack.inner, rack.server
    own, there = (rack.ip4, inner.ip4) if v == 4 else (rack.ip6, inner.ip6)
    with ExitStack() as ends:

        def end(place: Any, role: str, ip: str, port: int, **options: Any) -> Traffic:
            one = Traffic(place, role, ip, port, **options)
            ends.callback(one.kill)
            return one

        # The server asks for the datagrams: as what it began they come in, as something new they would not.
        into = end(server, "receive", own, 7000, knock=f"{there}/7001")
        out = end(inner, "receive", there, 7002)
        time.sleep(0.2)
        senders = (
            end(inner, "send", own, 7000, rate=RATE, source=7001),
            end(server, "send", there, 7002, rate=RATE),
        )
        end(server, "echo", own, 7100)
        end(inner, "echo", there, 7200)
        inward = end(peer, "connect", own, 7100, count=25)
        outward = end(server, "connect", there, 7200, count=25)
        time.sleep(1.0)
        breaks()
        told = inward.end(), outward.end()
        sent = senders[0].end()["sent"], senders[1].end()["sent"]
        time.sleep(0.3)
        return Bill(into.end(), out.end(), *told, sent)


def gap(bill: Bill) -> float:
    """Return the longest silence of either way, in ms: what was lost in a row, or the time without any."""
    ways = zip((bill.into, bill.out), bill.sent, strict=True)
    return max(max([way["gap_ms"], *way["runs"], sent - 1 - way["highest"]]) for way, sent in ways)


def judge(bill: Bill) -> float:
    """Return the gap; all connections have gone on."""
    for way in (bill.inward, bill.outward):
        assert way["failures"] == 0, way
        assert way["alive"] == 25, way
    assert bill.into["twice"] == bill.out["twice"] == 0
    return gap(bill)


# What is cut, and what becomes of the agent there: it may see that it is alone, die with its host, or stand still.
WAYS = [("", ""), ("", "kill"), (":under0", "freeze"), ("", "freeze")]


def test_when_an_edge_is_cut_off_the_other_goes_on(rack: Rack) -> None:
    lab = rack.scene.lab
    stand_by(rack)
    gaps = []
    for run in range(RUNS):
        old, new = edges(rack)
        (what, agent), v = WAYS[run % len(WAYS)], (4, 6)[run // len(WAYS) % 2]
        time.sleep(1.0)

        def breaks(old: str = old, what: str = what, agent: str = agent) -> None:
            if agent:
                getattr(lab.host(old).agent, agent)()
            lab.cut(f"{old}{what}")
            time.sleep(1.5)
            # It comes back, and stands by; its programs begin where they were, before its agent has heard anything.
            lab.heal(f"{old}{what}")
            if agent:
                time.sleep(0.5)
                {"kill": lab.host(old).agent.start, "freeze": lab.host(old).agent.thaw}[agent]()
            time.sleep(3.0)

        gaps.append(judge(traffic(rack, breaks, v)))
        assert rack.at() == new
        rack.wait_for(new)
        rows = lab.host(old).agent_client.status
        assert wait_for(lambda rows=rows: rows()["connected"]), old
        assert (serving(lab.host(old)), serving(lab.host(new))) == (0, 1)
        assert pings(rack.server, rack.inner.ip4)
        assert pings(rack.server, rack.inner.ip6)
    print(json.dumps(sorted(gaps)))
    # The 99th percentile of so few is the longest.
    assert max(gaps) <= GAP_MS, gaps


@pytest.mark.parametrize("link", ["under0", TRUNK], ids=["from other hosts", "from the server"])
def test_an_edge_that_has_lost_one_side_lets_the_other_edge_serve(rack: Rack, link: str) -> None:
    lab = rack.scene.lab
    stand_by(rack)
    old, new = edges(rack)
    time.sleep(1.0)

    def breaks() -> None:
        lab.cut(f"{old}:{link}")
        time.sleep(1.5)

    assert judge(traffic(rack, breaks)) <= GAP_MS
    assert serving(lab.host(old)) == 0
    lab.heal(f"{old}:{link}")
    rack.wait_for(new)
    assert (serving(lab.host(old)), serving(lab.host(new))) == (0, 1)


def test_an_edge_that_stood_still_comes_back_to_another_in_its_place(rack: Rack) -> None:
    """Its programs go on while its agent is frozen: for a while both serve, and no packet may go in circles."""
    lab, ask = rack.scene.lab, rack.scene.lab.client
    stand_by(rack)
    old, new = edges(rack)
    # Both are members of the network besides: what one floods, the other hears.
    others = [lab.workload(lab.host(name), rack.scene.network, groups=[rack.scene.group]) for name in (old, new)]
    picky = rack.port["security_groups"]
    ask.update("port", rack.port["id"], security_groups=[rack.scene.group["id"]])
    rack.wait_for(old)
    time.sleep(1.0)
    frozen, moved = lab.host(old).agent, list[int]()

    def breaks() -> None:
        frozen.freeze()
        lab.cut(f"{old}:under0")
        time.sleep(1.5)
        lab.heal(f"{old}:under0")  # the host answers again, its agent does not
        before = frames(lab, f"{new}-{TRUNK}")
        rack.server.exec("ping", "-b", "-c", "5", "-i", "0.2", "-W", "1", "10.0.0.255", check=False)
        time.sleep(2.0)
        moved.extend(now - then for now, then in zip(frames(lab, f"{new}-{TRUNK}"), before, strict=True))

    try:
        judge(traffic(rack, breaks))
        # Both ways' datagrams and what connections say; in circles there were half a million of them.
        assert max(moved) < 20_000, moved
    finally:
        frozen.thaw()
        for other in others:
            other.delete()
        ask.update("port", rack.port["id"], security_groups=picky)
    rack.wait_for(new)
    assert (serving(lab.host(old)), serving(lab.host(new))) == (0, 1)


def test_edges_that_do_not_hear_each_other_leave_a_port_where_others_hear_it(rack: Rack) -> None:
    lab = rack.scene.lab
    stand_by(rack)
    old, new = edges(rack)
    time.sleep(1.0)
    pair = [lab.host(name) for name in (old, new)]
    torn = [(one, f"{other.underlay}/32") for one, other in (pair, pair[::-1])]

    def breaks() -> None:
        for one, other in torn:
            one.exec("ip", "route", "add", "blackhole", other)
        time.sleep(2.0)
        for one, other in torn:
            one.exec("ip", "route", "delete", "blackhole", other)
        time.sleep(1.0)

    bill = traffic(rack, breaks)
    judge(bill)
    assert max([0, *bill.into["runs"], *bill.out["runs"]]) <= 20, bill
    assert rack.at() == old
    assert (serving(lab.host(old)), serving(lab.host(new))) == (1, 0)


def test_a_bad_underlay_does_not_have_a_port_go_to_and_fro(rack: Rack) -> None:
    lab = rack.scene.lab
    stand_by(rack)
    bad = f"{rack.at()}:under0"
    lab.impair(bad, Impairment(loss=0.1))  # for which the link is cut for a moment
    time.sleep(3.0)
    old, new = edges(rack)
    logs = [lab.host(name).agent.log for name in (old, new)]
    before = [log.stat().st_size for log in logs]
    time.sleep(8.0)
    said = [log.read_text()[size:] for log, size in zip(logs, before, strict=True)]
    lab.clear(bad)
    assert [words.count("taking port") for words in said] == [0, 0], said
    assert rack.at() == old
    time.sleep(1.0)
    rack.wait_for(rack.at())


def frames(lab: Lab, link: str) -> list[int]:
    """Return how many frames came and went by a link of the switch."""
    told = json.loads(lab.switch.exec("ip", "-j", "-s", "link", "show", link).stdout)[0]["stats64"]
    return [told["rx"]["packets"], told["tx"]["packets"]]


def test_edges_do_without_the_server(rack: Rack) -> None:
    lab = rack.scene.lab
    stand_by(rack)
    old, new = edges(rack)
    time.sleep(1.0)
    lab.server.kill()

    def breaks() -> None:
        lab.cut(old)
        time.sleep(1.5)

    try:
        assert judge(traffic(rack, breaks)) <= GAP_MS
        # The old one is back, and neither takes the port back nor serves it beside the new one.
        lab.heal(old)
        time.sleep(1.5)
        assert (serving(lab.host(old)), serving(lab.host(new))) == (0, 1)
        assert pings(rack.server, rack.inner.ip4)
        # Nor is the server needed for the way back, though its last word is that the port was never away.
        lab.cut(new)
        assert wait_for(lambda: serving(lab.host(old)) == 1, seconds=5)
        assert wait_for(lambda: pings(rack.server, rack.inner.ip4), seconds=3)
        lab.heal(new)
        assert wait_for(lambda: serving(lab.host(new)) == 0, seconds=5)
    finally:
        lab.server.start()
    rack.wait_for(old)


def test_edges_change_over_by_plan(rack: Rack) -> None:
    lab = rack.scene.lab
    stand_by(rack)
    _, new = edges(rack)
    time.sleep(1.0)

    def breaks() -> None:
        command = [sys.executable, "-m", "crossway", "port", "move", rack.port["id"], new, "--no-wait"]
        subprocess.run([*command, "--lab", lab.state.name], check=True, capture_output=True, timeout=30)
        time.sleep(1.0)

    bill = traffic(rack, breaks)
    judge(bill)
    assert max([0, *bill.into["runs"], *bill.out["runs"]]) <= 20, bill
    rack.wait_for(new)


def test_an_agent_that_dies_alone_loses_nothing(rack: Rack) -> None:
    lab = rack.scene.lab
    stand_by(rack)
    at = rack.at()
    time.sleep(1.0)

    def breaks() -> None:
        lab.host(at).agent.kill()
        time.sleep(1.5)
        lab.host(at).agent.start()
        time.sleep(1.0)

    bill = traffic(rack, breaks)
    judge(bill)
    assert bill.into["missing"] == bill.out["missing"] == 0, bill
    assert rack.at() == at


def test_without_a_standby_nobody_goes_on(rack: Rack) -> None:
    lab = rack.scene.lab
    at = rack.at()
    for binding in lab.client.ask("GET", bindings(rack))["bindings"]:
        if binding["host"] != at:
            lab.client.ask("DELETE", f"{bindings(rack)}/{binding['host']}")

    def breaks() -> None:
        lab.cut(at)
        time.sleep(1.0)
        lab.heal(at)
        time.sleep(1.0)

    assert gap(traffic(rack, breaks)) > 2 * GAP_MS


def serving(host: Host) -> int:
    """Return how many ports of servers a host serves: rows that its programs look up."""
    return int(host.agent_client.status()["tables"]["ports"]["rows"])
