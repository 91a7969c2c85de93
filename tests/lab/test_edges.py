"""Bare-metal servers behind edge hosts: served by the API alone, and by another edge when one dies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from crossway.lab import Lab, Workload
from crossway.lab.lab import Host
from crossway.lab.server import TRUNK, Server, trunk
from lab.stories import dual, open_group, pings

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
        "port", network_id=scene.network["id"], security_groups=[scene.group["id"]],
        **{"binding:vnic_type": "baremetal", "binding:profile": profile, "binding:host_id": host}, **attrs,
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
        assert not pings(peer, ip4)
        lab.client.update("port", port["id"], **{"binding:profile": {**RACK, "vlan": 6}})
        lab.client.wait("port", port["id"])
        assert pings(server, peer.ip4)
    finally:
        lab.client.delete("port", port["id"])
    assert not pings(server, peer.ip4)


def test_a_host_without_the_physical_network_does_not_serve_it(scene: Scene) -> None:
    port = bare(scene, 8, "h3")
    assert scene.lab.client.show("port", port["id"])["status"] == "DOWN"
    scene.lab.client.delete("port", port["id"])
