"""A port moves between two hosts while one of those that see to it dies: packets may be lost, connections not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from crossway.client import path_of
from crossway.lab import Lab, Workload
from crossway.lab.lab import Host, Part
from crossway.lab.place import Place
from lab.stories import Traffic, guarded, links, wait_for

COUNT = 20
STEPS = ("prepared", "plugged", "moved")


class Scene(NamedTuple):
    lab: Lab
    port: dict[str, Any]
    body: Place  # the workload, which has a leg on each of two hosts, as a guest has for a moment of its migration
    ip4: str
    client: Workload  # the only one whose new connections the port admits
    server: Workload  # to which the port itself connects


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with Lab.up(hosts=3) as lab:
        near, port, ip4, client = guarded(lab, "mover")
        server = lab.workload(client.host, client.port["network_id"], groups=client.port["security_groups"])
        body = lab.namespace("body")
        body.script(
            [
                f"link add br0 address {port['mac_address']} mtu {near['mtu']} type bridge",
                "link set lo up",
                "link set br0 up",
                f"address add {ip4}/24 dev br0",
                "route add default via 10.0.0.1",
            ]
        )
        for host in lab.hosts[:2]:
            host.exec("ip", "link", "add", "leg", "type", "veth", "peer", f"{host.name}-tap", "netns", body.netns)
            body.exec("ip", "link", "set", f"{host.name}-tap", "master", "br0", "up")
        yield Scene(lab, port, body, ip4, client, server)


def plug(scene: Scene, host: Host, kind: str) -> None:
    """Give the port a body on a host: a leg of the workload's own, or a link that the agent makes."""
    if kind == "tap":
        host.agent_client.plug(scene.port["id"], tap="leg")
        return
    name = f"{host.name}-veth"
    host.agent_client.plug(scene.port["id"], netns=str(scene.body.path), ifname=name)
    # All addresses are the bridge's, and the way out too.
    way = "route replace default via 10.0.0.1 dev br0"
    scene.body.script([f"address flush dev {name}", f"link set {name} master br0", way])


def bodies(scene: Scene, host: Host) -> list[str]:
    return [p["device"] for p in host.agent_client.status()["ports"] if p["id"] == scene.port["id"]]


def move(scene: Scene, kind: str, came: Callable[[str], None]) -> None:
    """Move the port to the second host; *came* is told of each step."""
    ask, port, (old, new) = scene.lab.client, scene.port["id"], scene.lab.hosts[:2]
    bindings = f"{path_of('port', port)}/bindings"
    ask.ask("POST", bindings, {"binding": {"host": new.name}})
    came("prepared")
    plug(scene, new, kind)
    assert wait_for(lambda: old.name in ask.handed_over(port))
    came("plugged")
    ask.ask("PUT", f"{bindings}/{new.name}/activate")
    came("moved")
    ask.wait("port", port)
    ask.ask("DELETE", f"{bindings}/{old.name}")


@pytest.fixture
def flowing(scene: Scene) -> Iterator[tuple[Traffic, Traffic]]:
    """Have connections that the port admits, and some that it has made itself."""
    ends = []

    def end(*words: Any, **options: Any) -> Traffic:
        ends.append(Traffic(*words, **options))
        return ends[-1]

    try:
        end(scene.body, "echo", scene.ip4, 7100)
        end(scene.server, "echo", scene.server.ip4, 7200)
        yield (
            end(scene.client, "connect", scene.ip4, 7100, count=COUNT),
            end(scene.body, "connect", scene.server.ip4, 7200, count=COUNT),
        )
    finally:
        for one in ends:
            one.kill()


@pytest.fixture(params=["tap", "veth"])
def kind(scene: Scene, request: pytest.FixtureRequest) -> Iterator[str]:
    """Have the port on the first host; afterwards, nowhere and nothing of it left."""
    lab, port = scene.lab, scene.port["id"]
    lab.client.update("port", port, **{"binding:host_id": "h1"})
    plug(scene, lab.hosts[0], request.param)
    lab.client.wait("port", port)
    scene.body.exec("ip", "link", "set", "br0", "type", "bridge", "fdb_flush")  # where the last story ended
    yield str(request.param)
    for host in lab.hosts[:2]:
        host.agent.start() if not host.agent.alive else None
        if bodies(scene, host):
            host.agent_client.unplug(port)
    for host in lab.hosts[:2]:
        assert wait_for(lambda host=host: host.agent_client.status()["tables"]["ports"]["rows"] == 0)
        assert not list((host.run / "bodies").iterdir())


def answered(ends: tuple[Traffic, Traffic]) -> None:
    for end in ends:
        bill = end.end()
        assert (bill["failures"], bill["alive"]) == (0, COUNT), bill


def part(scene: Scene, who: str) -> Part:
    """Return who dies: the server, or an agent."""
    return {"server": scene.lab.server, "old": scene.lab.hosts[0].agent, "new": scene.lab.hosts[1].agent}[who]


def at_new(scene: Scene) -> None:
    """Find that the port is on the second host, and nothing of it on the first one."""
    lab, port, (old, new) = scene.lab, scene.port["id"], scene.lab.hosts[:2]
    found = lab.client.wait("port", port)
    assert found["binding:host_id"] == new.name
    assert wait_for(lambda: not bodies(scene, old)), bodies(scene, old)
    assert bodies(scene, new)
    assert wait_for(lambda: old.agent_client.status()["tables"]["ports"]["rows"] == 0)
    assert new.agent_client.status()["tables"]["ports"]["rows"] == 1
    assert "h1-veth" not in links(scene.body)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("who", ["old", "new", "server"])
def test_who_dies_at_a_step_and_comes_again(
    scene: Scene, kind: str, flowing: tuple[Traffic, Traffic], who: str, step: str
) -> None:
    def came(now: str) -> None:
        if now == step:
            part(scene, who).kill()
            part(scene, who).start()
            assert wait_for(lambda: all(h.agent_client.status()["connected"] for h in scene.lab.hosts))

    move(scene, kind, came)
    at_new(scene)
    answered(flowing)


@pytest.mark.parametrize("who", ["old", "new"])
def test_who_is_dead_while_the_port_moves(scene: Scene, kind: str, flowing: tuple[Traffic, Traffic], who: str) -> None:
    def came(now: str) -> None:
        if now == "plugged":
            part(scene, who).kill()
        elif now == "moved":
            time.sleep(0.5)
            part(scene, who).start()

    move(scene, kind, came)
    at_new(scene)
    answered(flowing)


def test_connections_made_while_no_agent_was_there_to_tell_of_them_move_too(scene: Scene, kind: str) -> None:
    old, ends = scene.lab.hosts[0].agent, list[Traffic]()

    def end(*words: Any, **options: Any) -> None:
        ends.append(Traffic(*words, **options))

    def came(now: str) -> None:
        if now == "plugged":
            old.kill()
            # The port asks for the datagrams: as what it began they come in, as something new they would not.
            end(scene.body, "receive", scene.ip4, 7000, knock=f"{scene.server.ip4}/7001")
            time.sleep(0.2)
            end(scene.server, "send", scene.ip4, 7000, rate=100, source=7001)
            time.sleep(0.5)
        elif now == "moved":
            time.sleep(0.5)
            old.start()

    try:
        move(scene, kind, came)
        at_new(scene)
        time.sleep(0.5)
        sent = ends[1].end()["sent"]
        time.sleep(0.3)
        bill = ends[0].end()
        assert sent - bill["highest"] <= 3, bill
    finally:
        for one in ends:
            one.kill()


@pytest.mark.parametrize("who", ["new", "server"])
def test_a_move_that_is_given_up_leaves_nothing(scene: Scene, kind: str, who: str) -> None:
    """The host where the port was to go loses its body, as it was plugged for nothing."""
    ask, port, new = scene.lab.client, scene.port["id"], scene.lab.hosts[1]
    bindings = f"{path_of('port', port)}/bindings"
    ask.ask("POST", bindings, {"binding": {"host": new.name}})
    plug(scene, new, kind)
    part(scene, who).kill()
    part(scene, who).start()
    assert wait_for(lambda: new.agent_client.status()["connected"])
    assert bodies(scene, new)
    ask.ask("DELETE", f"{bindings}/{new.name}")
    assert wait_for(lambda: not bodies(scene, new))
    assert wait_for(lambda: "h2-veth" not in links(scene.body))
    assert bodies(scene, scene.lab.hosts[0])
    assert ask.wait("port", port)["binding:host_id"] == "h1"
