"""Domains of libvirt: they boot, move, and end, and their ports with them."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from crossway.cli.libvirt import install_hook
from crossway.lab import Lab, Workload
from lab.libvirtd import Libvirtd
from lab.stories import Traffic, dual, links, open_group, wait_for

TOP = Path(__file__).parents[2]
NAMESPACE = "urn:crossway:domain:1"
STORIES = os.environ.get("LIBVIRT", "few")  # all: also those that take longer than `make test` may
all_stories = pytest.mark.skipif(STORIES != "all", reason="LIBVIRT=all")


class Scene(NamedTuple):
    lab: Lab
    daemons: list[Libvirtd]
    network: dict[str, Any]
    group: dict[str, Any]
    peer: Workload


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    subprocess.run([TOP / "scripts" / "guest"], check=True)
    subprocess.run([TOP / "scripts" / "libvirt"], check=True)
    with Lab.up(hosts=3) as lab:
        network, group = dual(lab, "machines"), open_group(lab)
        peer = lab.workload(lab.hosts[2], network, groups=[group])
        daemons: list[Libvirtd] = []
        try:
            for host in lab.hosts[:2]:
                daemons.append(Libvirtd(host, tmp_path_factory.mktemp(host.name)))
            for daemon in daemons:
                daemon.ready()
            yield Scene(lab, daemons, network, group, peer)
        finally:
            for daemon in daemons:
                daemon.stop()


def port(scene: Scene, name: str, **attrs: Any) -> dict[str, Any]:
    made: dict[str, Any] = scene.lab.client.create(
        "port", name=name, network_id=scene.network["id"], security_groups=[scene.group["id"]], **attrs
    )
    return made


def interface(mac: str, dev: str, more: str = "", kind: str = "ethernet", managed: str = "no") -> str:
    return (
        f"<interface type='{kind}'><mac address='{mac}'/><target dev='{dev}' managed='{managed}'/>"
        f"<model type='virtio'/>{more}</interface>"
    )


def metadata(*ports: str) -> str:
    return f"<cw:ports xmlns:cw='{NAMESPACE}'>{''.join(f'<cw:port {one}/>' for one in ports)}</cw:ports>"


def ip4(port: dict[str, Any]) -> str:
    return next(str(a["ip_address"]) for a in port["fixed_ips"] if "." in a["ip_address"])


def at(lab: Lab, host: int) -> tuple[str, str]:
    """Return where a migration goes: a host by its underlay address."""
    return "--migrateuri", f"tcp://{lab.hosts[host].underlay}"


def bindings(lab: Lab, port: dict[str, Any]) -> list[str]:
    return [b["host"] for b in lab.client.ask("GET", f"/v2.0/ports/{port['id']}/bindings")["bindings"] if b["host"]]


def nothing_left(scene: Scene, *ports: dict[str, Any]) -> None:
    """Find that ports are nobody's, and that no host has anything of them."""
    for host in scene.lab.hosts[:2]:
        assert not [name for name in links(host) if name.startswith("tap-")]
        assert host.agent_client.status()["ports"] == []
        assert not list((host.run / "bodies").glob("*.json"))
    for port in ports:
        seen = scene.lab.client.show("port", port["id"])
        assert (seen["device_owner"], seen["device_id"], seen["binding:host_id"]) == ("", "", "")
        assert bindings(scene.lab, port) == []


def test_a_domain_boots_moves_and_ends(scene: Scene) -> None:
    lab, (one, two) = scene.lab, scene.daemons
    web = port(scene, "web")
    id = one.define("web", metadata("name='web'"), interface(web["mac_address"], "tap-web"))
    one.virsh("start", "web")
    guest = one.guest("web")
    assert wait_for(lambda: "bound" in guest.run("ls /tmp"), 30)
    guest.run(f"ping -c1 -W2 {scene.peer.ip4}")
    seen = lab.client.show("port", web["id"])
    assert (seen["device_owner"], seen["device_id"], seen["binding:host_id"]) == ("compute:libvirt", id, "h1")
    assert (seen["binding:vif_type"], seen["binding:vnic_type"]) == ("tap", "normal")
    guest.run("nc -ll -p 7100 -e cat >/dev/null 2>&1 &")
    guest.close()
    tcp = Traffic(scene.peer, "connect", ip4(web), 7100, count=5, every=0.1)
    try:
        time.sleep(0.5)
        one.virsh("migrate", "--live", "--unsafe", "--persistent", "--undefinesource", "web", two.uri, *at(lab, 1))
        assert lab.client.wait("port", web["id"])["binding:host_id"] == "h2"
        time.sleep(0.5)
        kept = tcp.end()
    finally:
        tcp.kill()
    assert (kept["failures"], kept["alive"]) == (0, 5), kept
    assert "tap-web" not in links(lab.hosts[0])
    assert bindings(lab, web) == ["h2"]
    guest = two.shell("web")
    guest.run(f"ping -c1 -W2 {scene.peer.ip4}")
    guest.close()
    two.virsh("destroy", "web")
    nothing_left(scene, web)


def test_what_cannot_be_is_refused_and_leaves_nothing(scene: Scene) -> None:
    one, good, other = scene.daemons[0], port(scene, "good"), port(scene, "other")
    mac, strange = good["mac_address"], "52:54:00:00:00:01"
    for wanted, card, why in (
        ("name='nobody'", interface(mac, "tap-good"), "port nobody could not be found"),
        ("name='good' id='x'", interface(mac, "tap-good"), "has either id or name"),
        ("name='good' nic='x'", interface(mac, "tap-good"), "has nic, which is not known"),
        ("name='good' dev='tap-good'", interface(strange, "tap-good"), f"{strange}, but its port good has {mac}"),
        ("name='good'", interface(strange, "tap-good"), f"an interface with MAC {mac}; there is no interface such"),
        (f"name='good' mac='{mac}'", "", "there is no interface such, but tap-other with MAC "),
        ("name='good'", interface(mac, "tap-good", managed="yes"), "should have <target dev='NAME' managed='no'/>"),
        ("name='good'", interface(mac, "tap-good", "<source bridge='br9'/>", "bridge", "yes"), "should be 'ethernet'"),
        ("name='good'", interface(mac, "under0"), "under0 is there already, and is no tap"),
    ):  # fmt: skip
        one.define("bad", metadata(f"id='{other['id']}'", wanted), interface(other["mac_address"], "tap-other"), card)
        done = one.virsh("start", "--paused", "bad", check=False)
        assert done.returncode == 1, wanted
        assert "crossway: domain bad: " in done.stderr
        assert why in done.stderr, (why, done.stderr)
        nothing_left(scene, good, other)
        one.virsh("undefine", "bad")


def test_a_port_is_of_one_domain(scene: Scene) -> None:
    one, two = scene.daemons
    mine = port(scene, "mine")
    card = interface(mine["mac_address"], "tap-mine")
    for daemon, name in ((one, "first"), (one, "second"), (two, "third")):
        daemon.define(name, metadata("name='mine'"), card)
    one.virsh("start", "--paused", "first")
    for daemon, name in ((one, "second"), (two, "third")):
        done = daemon.virsh("start", "--paused", name, check=False)
        assert f"port {mine['id']} is of compute:libvirt " in done.stderr
    assert "tap-mine" in links(scene.lab.hosts[0])
    scene.lab.client.wait("port", mine["id"])
    one.virsh("destroy", "first")
    nothing_left(scene, mine)
    two.virsh("start", "--paused", "third")
    two.virsh("destroy", "third")
    nothing_left(scene, mine)


@all_stories
def test_a_domain_is_saved_and_restored_with_queues(scene: Scene) -> None:
    one = scene.daemons[0]
    kept = port(scene, "kept")
    one.define("kept", metadata("name='kept'"), interface(kept["mac_address"], "tap-kept", "<driver queues='3'/>"))
    one.virsh("start", "--paused", "kept")
    told = json.loads(scene.lab.hosts[0].exec("ip", "-j", "-d", "link", "show", "tap-kept").stdout)[0]
    queues = told["linkinfo"]["info_data"]
    assert (queues["multi_queue"], queues["vnet_hdr"]) == (True, True)
    assert queues["numqueues"] + queues["numdisabled"] == 3  # a guest that runs takes them into use
    assert told["mtu"] == scene.network["mtu"]
    one.virsh("managedsave", "kept")
    nothing_left(scene, kept)
    one.virsh("start", "--paused", "kept")
    scene.lab.client.wait("port", kept["id"])
    one.virsh("destroy", "kept")
    nothing_left(scene, kept)


@all_stories
def test_a_migration_that_fails_leaves_the_domain_and_nothing_where_it_was_to_go(scene: Scene) -> None:
    one, two = scene.daemons
    stays = port(scene, "stays")
    one.define("stays", metadata("name='stays'"), interface(stays["mac_address"], "tap-stays"))
    one.virsh("start", "stays")
    # Nobody listens there.
    done = one.virsh("migrate", "--live", "--unsafe", "stays", two.uri, *at(scene.lab, 2), check=False)
    assert done.returncode == 1
    assert "refused" in done.stderr
    assert bindings(scene.lab, stays) == ["h1"]
    assert "tap-stays" not in links(scene.lab.hosts[1])
    assert one.virsh("domstate", "stays").stdout.strip() == "running"
    scene.lab.client.wait("port", stays["id"])
    one.virsh("destroy", "stays")
    nothing_left(scene, stays)


def test_domains_outlive_libvirtd_and_agent(scene: Scene) -> None:
    one, host = scene.daemons[0], scene.lab.hosts[0]
    runs, free = port(scene, "runs"), port(scene, "free")
    one.define("runs", metadata("name='runs'"), interface(runs["mac_address"], "tap-runs"))
    one.define("free", metadata("name='free'"), interface(free["mac_address"], "tap-free"))
    one.define("plain", "")
    one.virsh("start", "--paused", "runs")
    one.kill()
    host.agent.kill()
    # A domain that it finds running must not be ended because the agent does not answer.
    one.start()
    one.ready()
    assert one.virsh("domstate", "runs").stdout.strip() == "paused"
    done = one.virsh("start", "--paused", "free", check=False)
    assert "crossway: domain free: the agent does not answer at /run/crossway/agent.sock: " in done.stderr
    one.virsh("start", "--paused", "plain")
    one.virsh("destroy", "plain")
    # Unless who installed the hook would have it so: for taps that are there anyway.
    install_hook(one.root / "hook", optional=True)
    one.hooks()
    done = one.virsh("start", "--paused", "free", check=False)
    assert "crossway" not in done.stderr
    install_hook(one.root / "hook")
    one.hooks()
    assert "specified dev doesn't exist" in done.stderr
    host.agent.start()
    one.kill()
    one.start()
    one.ready()
    assert one.virsh("domstate", "runs").stdout.strip() == "paused"
    scene.lab.client.wait("port", runs["id"])
    one.virsh("destroy", "runs")
    nothing_left(scene, runs, free)


@all_stories
def test_a_domain_ends_though_no_server_answers(scene: Scene) -> None:
    one, lab = scene.daemons[0], scene.lab
    ends = port(scene, "ends")
    one.define("ends", metadata("name='ends'"), interface(ends["mac_address"], "tap-ends"))
    one.virsh("start", "--paused", "ends")
    lab.server.kill()
    one.virsh("destroy", "ends")
    assert "tap-ends" not in links(lab.hosts[0])
    lab.server.start()
    lab.joined()
    # That it is on this host is still said, and the next start is as any.
    one.virsh("start", "--paused", "ends")
    lab.client.wait("port", ends["id"])
    one.virsh("destroy", "ends")
    nothing_left(scene, ends)
