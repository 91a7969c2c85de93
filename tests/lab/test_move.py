"""A port moves to another host while traffic runs, under a group that admits next to nothing new."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import pytest

from crossway.client import path_of
from crossway.lab import Lab, Workload
from crossway.lab.lab import Host
from crossway.lab.place import Place
from crossway.lab.traffic import open_in
from lab.stories import Traffic, guarded, pings, wait_for

MOVES = int(os.environ.get("MOVES", "10"))
RATE = 1000  # datagrams a second: one that is lost is a millisecond


class Scene(NamedTuple):
    lab: Lab
    port: dict[str, Any]
    body: Place  # the workload that is there on two hosts, as a guest is for a moment of its migration
    client: Workload  # the only one whose new connections the port admits
    server: Workload  # to which the port itself connects


def leg(lab: Lab, body: Place, host: Host, bridge: str) -> str:
    """Lead a wire from a workload to a host; return what the host calls it."""
    name = f"leg-{host.name}"
    host.exec("ip", "link", "add", name, "type", "veth", "peer", name, "netns", body.netns)
    body.exec("ip", "link", "set", name, "master", bridge, "up")
    return name


@pytest.fixture
def scene() -> Iterator[Scene]:
    with Lab.up(hosts=3) as lab:
        near, port, ip4, client = guarded(lab, "mover")
        server = lab.workload(client.host, client.port["network_id"], groups=client.port["security_groups"])
        body = lab.namespace("body")
        mtu = str(near["mtu"])
        body.script(
            [
                f"link add br0 address {port['mac_address']} mtu {mtu} type bridge",
                "link set lo up",
                "link set br0 up",
                f"address add {ip4}/24 dev br0",
                "route add default via 10.0.0.1",
            ]
        )
        legs = {host.name: leg(lab, body, host, "br0") for host in lab.hosts[:2]}
        lab.hosts[0].agent_client.plug(port["id"], tap=legs["h1"])
        lab.client.wait("port", port["id"])
        yield Scene(lab, {**port, "ip4": ip4, "legs": legs}, body, client, server)


def move(scene: Scene, to: Host, *, handed: bool = True) -> None:
    """Move the port; not *handed*: its connections are not told of."""
    ask, port = scene.lab.client, scene.port["id"]
    bindings = f"{path_of('port', port)}/bindings"
    at = ask.show("port", port)["binding:host_id"]
    if handed:
        ask.ask("POST", bindings, {"binding": {"host": to.name}})
        assert wait_for(lambda: at in ask.handed_over(port))
    else:
        ask.update("port", port, **{"binding:host_id": to.name})
    to.agent_client.plug(port, tap=scene.port["legs"][to.name])
    if handed:
        ask.ask("PUT", f"{bindings}/{to.name}/activate")
    ask.wait("port", port)
    if handed:
        ask.ask("DELETE", f"{bindings}/{at}")


class Bill(NamedTuple):
    datagrams: dict[str, Any]
    sent: int
    inward: dict[str, Any]
    outward: dict[str, Any]


def traffic(scene: Scene, moves: Any) -> Bill:
    """Count what becomes of both ways' connections and of datagrams that only one of them admits."""
    ip4 = scene.port["ip4"]
    with ExitStack() as ends:

        def end(place: Place, role: str, ip: str, port: int, **options: Any) -> Traffic:
            one = Traffic(place, role, ip, port, **options)
            ends.callback(one.kill)
            return one

        # The port asks for the datagrams: as what it began they come in, as something new they would not.
        into = end(scene.body, "receive", ip4, 7000, knock=f"{scene.server.ip4}/7001")
        time.sleep(0.2)
        out = end(scene.server, "send", ip4, 7000, rate=RATE, source=7001)
        end(scene.body, "echo", ip4, 7100)
        end(scene.server, "echo", scene.server.ip4, 7200)
        inward = end(scene.client, "connect", ip4, 7100, count=50)
        outward = end(scene.body, "connect", scene.server.ip4, 7200, count=50)
        time.sleep(0.5)
        moves()
        time.sleep(0.5)
        told = inward.end(), outward.end()
        sent = out.end()["sent"]
        time.sleep(0.3)
        return Bill(into.end(), sent, *told)


def test_connections_move_with_their_port(scene: Scene) -> None:
    def moves() -> None:
        for turn in range(MOVES):
            move(scene, scene.lab.hosts[1 - turn % 2])

    bill = traffic(scene, moves)
    print(json.dumps(bill._asdict()))
    for way in (bill.inward, bill.outward):
        assert way["failures"] == 0, way
        assert way["alive"] == 50, way
    runs = bill.datagrams["runs"]
    # The 99th percentile over all moves, most of which lose nothing.
    worst = ([*runs, *[0] * MOVES])[MOVES // 100]
    assert worst <= 5, bill.datagrams
    assert bill.datagrams["twice"] == 0, bill.datagrams


def test_without_being_told_the_new_host_does_not_know_connections(scene: Scene) -> None:
    bill = traffic(scene, lambda: move(scene, scene.lab.hosts[1], handed=False))
    assert bill.sent - bill.datagrams["received"] > RATE // 4, bill.datagrams


def announce(scene: Scene, host: str, mac: str = "") -> None:
    """Send what QEMU sends (net/announce.c): RARP, who am I, from and for the guest's MAC."""
    own = bytes.fromhex((mac or scene.port["mac_address"]).replace(":", ""))
    body = bytes.fromhex("0001080006040003") + (own + bytes(4)) * 2
    with open_in(scene.body.path, socket.AF_PACKET, socket.SOCK_RAW) as out:
        out.bind((scene.port["legs"][host], 0))
        out.send(b"\xff" * 6 + own + bytes.fromhex("8035") + body + bytes(18))


def test_a_guest_goes_and_comes_back_while_no_server_lives(scene: Scene) -> None:
    lab, ask, port = scene.lab, scene.lab.client, scene.port["id"]
    ask.ask("POST", f"{path_of('port', port)}/bindings", {"binding": {"host": "h2"}})
    lab.hosts[1].agent_client.plug(port, tap=scene.port["legs"]["h2"])
    lab.server.kill()
    for turn in range(4):
        there, gone = (("h2", "h1"), ("h1", "h2"))[turn % 2]
        scene.body.exec("ip", "link", "set", scene.port["legs"][gone], "down")
        scene.body.exec("ip", "link", "set", scene.port["legs"][there], "up")
        announce(scene, there)
        assert wait_for(lambda: pings(scene.client, scene.port["ip4"]), seconds=3), (turn, there)
    lab.server.start()
    lab.joined()
    time.sleep(1)
    assert ask.show("port", port)["binding:host_id"] == "h1"
    assert pings(scene.client, scene.port["ip4"])


def test_a_guest_that_says_that_it_is_here_brings_its_port(scene: Scene) -> None:
    ask, port = scene.lab.client, scene.port["id"]
    ask.ask("POST", f"{path_of('port', port)}/bindings", {"binding": {"host": "h2"}})
    scene.lab.hosts[1].agent_client.plug(port, tap=scene.port["legs"]["h2"])

    def at() -> str:
        return str(ask.show("port", port)["binding:host_id"])

    announce(scene, "h2", "02:00:00:00:00:77")  # somebody else
    assert not wait_for(lambda: at() == "h2", seconds=0.5)
    announce(scene, "h2")
    assert wait_for(lambda: at() == "h2", seconds=2), scene.lab.hosts[1].agent.log.read_text()[-3000:]


def test_what_cannot_be_moved_stays_and_says_why(scene: Scene) -> None:
    lab, port = scene.lab, scene.port["id"]
    lab.hosts[1].agent.kill()

    def fails(*words: str) -> str:
        command = [sys.executable, "-m", "crossway", *words, "--lab", lab.state.name]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 1, done.stdout
        return done.stderr

    subprocess.run(
        [sys.executable, "-m", "crossway", "host", "attach", "near", "--lab", lab.state.name, "--host", "h1"],
        capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    assert "is an interface of host h1 itself" in fails("port", "move", "h1", "h3")
    assert "host h9 could not be found" in fails("port", "move", "mover", "h9")
    assert wait_for(lambda: not next(h["alive"] for h in lab.client.hosts() if h["name"] == "h2"), seconds=20)
    assert "host h2 has not been heard of lately, so that the port stays on h1" in fails("port", "move", "mover", "h2")
    assert [b["host"] for b in lab.client.ask("GET", f"{path_of('port', port)}/bindings")["bindings"]] == ["h1"]


def test_by_command_nothing_is_left_where_the_port_was(scene: Scene) -> None:
    lab, port = scene.lab, scene.port["id"]

    def say(*words: str) -> None:
        command = [sys.executable, "-m", "crossway", "port", *words, "--lab", lab.state.name]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr

    say("move", "mover", "h2", "--prepare")
    say("plug", "mover", "--tap", scene.port["legs"]["h2"], "--host", "h2")
    say("move", "mover", "h2")
    found = lab.client.show("port", port)
    assert (found["binding:host_id"], found["status"]) == ("h2", "ACTIVE")
    status = lab.hosts[0].agent_client.status()
    assert [p["id"] for p in status["ports"]] == []
    assert wait_for(lambda: lab.hosts[0].agent_client.status()["tables"]["macs"]["rows"] == 0)
    assert lab.client.handed_over(port) == ()
    lab.client.delete("port", port)
    assert wait_for(lambda: lab.hosts[1].agent_client.status()["tables"]["ports"]["rows"] == 0)
