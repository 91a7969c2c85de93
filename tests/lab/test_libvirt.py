"""Domains of libvirt: they boot, move, and end, and their ports with them."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from crossway.lab import Lab, Workload
from lab.libvirtd import Libvirtd
from lab.stories import dual, links, open_group, wait_for

TOP = Path(__file__).parents[2]
NAMESPACE = "urn:crossway:domain:1"


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


def nothing_left(scene: Scene, id: str, *devices: str) -> None:
    for host in scene.lab.hosts[:2]:
        assert not links(host) & set(devices)
        assert id not in {p["id"] for p in host.agent_client.status()["ports"]}
        assert not list((host.run / "bodies").glob(f"{id}*"))


def test_a_domain_boots_moves_and_ends(scene: Scene) -> None:
    lab, (one, two) = scene.lab, scene.daemons
    web = port(scene, "web")
    began = time.monotonic()
    id = one.define("web", metadata("name='web'"), interface(web["mac_address"], "tap-web"))
    one.virsh("start", "web")
    print(f"started in {time.monotonic() - began:.2f} s")
    guest = one.guest("web")
    assert wait_for(lambda: "bound" in guest.run("ls /tmp"), 30)
    guest.run(f"ping -c1 -W2 {scene.peer.ip4}")
    seen = lab.client.show("port", web["id"])
    assert (seen["device_owner"], seen["device_id"], seen["binding:host_id"]) == ("compute:libvirt", id, "h1")
    assert (seen["binding:vif_type"], seen["binding:vnic_type"]) == ("tap", "normal")
    # Where it is goes with it.
    guest.run("nc -ll -p 7100 -e cat >/dev/null 2>&1 &")
    guest.close()
    began = time.monotonic()
    one.virsh(
        "migrate", "--live", "--unsafe", "--persistent", "--undefinesource", "web", two.uri,
        "--migrateuri", f"tcp://{lab.hosts[1].underlay}",
    )  # fmt: skip
    print(f"migrated in {time.monotonic() - began:.2f} s")
    assert lab.client.wait("port", web["id"])["binding:host_id"] == "h2"
    assert "tap-web" not in links(lab.hosts[0])
    assert [b["host"] for b in lab.client.ask("GET", f"/v2.0/ports/{web['id']}/bindings")["bindings"]] == ["h2"]
    guest = two.shell(two.root / "lib" / "web.line")
    guest.run(f"ping -c1 -W2 {scene.peer.ip4}")
    assert scene.peer.exec("ping", "-c1", "-W2", ip4(web)).returncode == 0
    guest.close()
    two.virsh("destroy", "web")
    nothing_left(scene, web["id"], "tap-web")
    seen = lab.client.show("port", web["id"])
    assert (seen["device_owner"], seen["device_id"], seen["binding:host_id"]) == ("", "", "")
