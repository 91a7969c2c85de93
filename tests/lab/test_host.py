"""A host has interfaces of its own on tenants' networks."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from crossway.lab import Lab
from lab.stories import dual, links, open_group, pings, wait_for


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab.up(hosts=2) as lab:
        yield lab


def say(lab: Lab, *words: str, status: int = 0) -> str:
    """Run a command about the first host; return what it says."""
    command = [sys.executable, "-m", "crossway", "host", *words, "--lab", lab.state.name, "--host", "h1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status, done.stderr
    return done.stdout + done.stderr


def test_a_host_is_attached_and_detached(lab: Lab) -> None:
    near, far = dual(lab, "near"), dual(lab, "far", prefix=1)
    router = lab.client.create("router", name="r")
    for subnet in lab.client.list("subnets"):
        lab.client.add_interface(router["id"], subnet=subnet["id"])
    group = open_group(lab)
    peers = [lab.workload(lab.hosts[at], net, groups=[group]) for at, net in ((0, near), (1, near), (1, far))]
    host = lab.hosts[0]
    before = links(host), host.exec("ip", "route").stdout, host.exec("ip", "-6", "route", "show", "default").stdout
    say(lab, "attach", "near", "--group", "open", "--ip", "10.0.0.77", "--ip", "fd00::77", "--route", "10.1.0.0/16")
    say(lab, "attach", "near", "--group", "open", "--ip", "10.0.0.77", "--ip", "fd00::77", "--route", "10.1.0.0/16")
    assert "with 10.0.0.77 fd00::77, not 10.0.0.78" in say(lab, "attach", "near", "--ip", "10.0.0.78", status=1)
    assert "with other groups" in say(lab, "attach", "near", "--group", "default", status=1)
    port = lab.client.list("ports", device_owner="host:attached")
    assert [p["binding:host_id"] for p in port] == ["h1"]
    address = "fd00::77"
    for peer in peers:
        assert pings(host, peer.ip4), peer
        assert pings(peer, "10.0.0.77"), peer
    for peer in peers[:2]:
        assert pings(host, peer.ip6), peer
        assert pings(peer, address), peer
    # Its groups are its own, its addresses too, and the host's way elsewhere is what it was.
    lab.client.update("port", port[0]["id"], security_groups=[])
    lab.client.wait("port", port[0]["id"])
    assert not pings(peers[1], "10.0.0.77")
    assert not pings(host, peers[1].ip4)
    lab.client.update("port", port[0]["id"], security_groups=[group["id"]])
    lab.client.wait("port", port[0]["id"])
    assert pings(peers[1], "10.0.0.77")
    assert not pings(host, peers[1].ip4, "-I", host.underlay)
    assert "default" not in host.exec("ip", "route").stdout
    assert host.exec("ip", "-6", "route", "show", "default").stdout == before[2]
    host.agent.restart()
    assert pings(peers[2], "10.0.0.77")
    lab.joined()
    say(lab, "detach", "near")
    assert wait_for(lambda: links(host) == before[0])
    assert host.exec("ip", "route").stdout == before[1]
    assert lab.client.list("ports", device_owner="host:attached") == []
    assert "interface of h1 on network near" in say(lab, "detach", "near", status=1)


def test_a_hosts_own_ways_stay_its_own(lab: Lab) -> None:
    host = lab.hosts[0]
    host.exec("ip", "route", "add", "192.0.2.0/24", "via", lab.hosts[1].underlay)
    host.exec("ip", "route", "add", "default", "via", lab.hosts[1].underlay)
    before = host.exec("ip", "route").stdout
    for number, (cidr, reason) in enumerate(
        {
            "198.18.0.0/24": "198.18.0.11 is an address of the host",
            "198.16.0.0/13": "the host reaches 198.18.0.0/16 by another link",
            "192.0.2.0/24": "the host reaches 192.0.2.0/24 by another link",
        }.items()
    ):
        network = lab.client.create("network", name=f"clash{number}")
        lab.client.create("subnet", network_id=network["id"], ip_version=4, cidr=cidr, gateway_ip=None)
        assert f"{cidr}: {reason}" in say(lab, "attach", network["name"], status=1)
        assert wait_for(lambda: host.exec("ip", "route").stdout == before), host.exec("ip", "route").stdout
    mine = lab.client.create("network", name="mine")
    hops = [{"destination": d, "nexthop": "10.7.0.9"} for d in (f"{lab.hosts[1].underlay}/32", "0.0.0.0/1")]
    subnet = lab.client.create("subnet", network_id=mine["id"], ip_version=4, cidr="10.7.0.0/24", host_routes=hops)
    assert "192.0.2.0/24: the host has such a route" in say(lab, "attach", "mine", "--route", "192.0.2.0/24", status=1)
    say(lab, "attach", "mine", "--default-route")
    # The network's owner does not say where a host goes, neither then nor later.
    also = lab.client.create("subnet", network_id=mine["id"], ip_version=4, cidr="9.9.9.0/24")
    (port,) = lab.client.list("ports", device_owner="host:attached")
    lab.client.update("port", port["id"], fixed_ips=[*port["fixed_ips"], {"subnet_id": also["id"]}])
    lab.client.update("subnet", subnet["id"], host_routes=[{"destination": "9.9.8.0/24", "nexthop": "10.7.0.9"}])
    lab.client.wait("port", port["id"])
    added = set(host.exec("ip", "route").stdout.splitlines()) - set(before.splitlines())
    assert sorted(line.split()[0] for line in added) == ["0.0.0.0/1", "10.7.0.0/24", "128.0.0.0/1"], added
    say(lab, "detach", "mine")
    # What had no other way has its own again.
    assert wait_for(lambda: host.exec("ip", "route").stdout == before), host.exec("ip", "route").stdout
    assert lab.client.list("ports", device_owner="host:attached") == []
    host.exec("ip", "route", "delete", "default")
    host.exec("ip", "route", "delete", "192.0.2.0/24")


def test_a_gateway_outside_of_the_prefix_is_reached_on_the_link(lab: Lab) -> None:
    """But not where the host goes by its own links: whose network it is does not say where that is."""
    host, group = lab.hosts[0], next(g for g in lab.client.list("security_groups") if g["name"] == "open")
    away = lab.client.create("network", name="away")
    subnet = lab.client.create(
        "subnet", network_id=away["id"], ip_version=4, cidr="10.8.0.0/24", gateway_ip="172.31.1.1"
    )
    peer = lab.workload(lab.hosts[1], away, groups=[group])
    assert "172.31.1.1 dev eth0 proto static scope link" in peer.exec("ip", "route").stdout
    say(lab, "attach", "away", "--group", "open", "--route", "192.0.2.0/24")
    route = host.exec("ip", "route", "show", "to", "192.0.2.0/24").stdout
    assert "via 172.31.1.1" in route
    assert "scope link" in host.exec("ip", "route", "show", "to", "172.31.1.1").stdout
    assert pings(host, peer.ip4)
    # What stands in for a router has the address; it leads nowhere, and says so.
    assert "Unreachable" in host.exec("ping", "-c1", "-W2", "192.0.2.9", check=False).stdout
    say(lab, "detach", "away")
    peer.delete()
    before = host.exec("ip", "route").stdout
    for gateway, reason in (("198.18.0.200", "part of 198.18.0.0/16"), (host.underlay, "is an address of the host")):
        lab.client.update("subnet", subnet["id"], gateway_ip=gateway)
        assert reason in say(lab, "attach", "away", "--route", "192.0.2.0/24", status=1)
        assert wait_for(lambda: host.exec("ip", "route").stdout == before), host.exec("ip", "route").stdout


def test_a_name_that_is_taken_leaves_nothing(lab: Lab) -> None:
    dual(lab, "other", prefix=2)
    assert "under0" in say(lab, "attach", "other", "--ifname", "under0", status=1)
    assert "10.0.0.300" in say(lab, "attach", "other", "--route", "10.0.0.300", status=2)
    assert lab.client.list("ports", device_owner="host:attached") == []
