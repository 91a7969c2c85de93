"""Names of ports, whatever stands for them: known on their own network and in its domain, at the address DHCP tells."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from crossway.lab import Lab, Workload
from crossway.lab.place import Place
from lab.stories import open_group, wait_for

SERVICE, SERVICE6 = "169.254.169.254", "fe80::a9fe:a9fe"


def resolved(place: Place, name: str, server: str = SERVICE, kind: str = "a") -> set[str]:
    """Return what a server says of a name."""
    words = ("busybox", "timeout", "2", "busybox", "nslookup", f"-type={kind}", name, server)
    said = place.exec(*words, check=False).stdout
    return {line.partition(": ")[2] for line in said.partition("Name:")[2].splitlines() if line.startswith("Address:")}


@pytest.fixture(scope="module")
def scene() -> Iterator[dict[str, Workload]]:
    with Lab.up(hosts=2) as lab:
        group = open_group(lab)
        found = {}
        for n, network in enumerate(("blue", "red")):
            made = lab.client.create("network", name=network, dns_domain=f"{network}.example.")
            lab.client.create("subnet", network_id=made["id"], ip_version=4, cidr=f"10.{n}.0.0/24")
            mode = {"ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac"}
            lab.client.create("subnet", network_id=made["id"], ip_version=6, cidr=f"fd00:{n}::/64", **mode)
            for at, host in enumerate(lab.hosts):
                name = f"{network}{at}"
                found[name] = lab.workload(host, made, groups=[group], name=name, dns_name=f"www{at}")
        yield found


def test_a_port_has_its_name_in_its_network_and_its_domain(scene: dict[str, Workload]) -> None:
    for network in ("blue", "red"):
        for here, there in ((0, 1), (1, 0)):
            asks, peer = scene[f"{network}{here}"], scene[f"{network}{there}"]
            for name in (f"www{there}", f"WWW{there}.{network}.example", f"www{there}.{network}.example."):
                assert resolved(asks, name) == {peer.ip4}, name
            assert len(resolved(asks, f"www{there}", kind="aaaa")) == 1
            other = "red" if network == "blue" else "blue"
            assert resolved(asks, f"www{there}.{other}.example") == set()


def test_who_is_asked_over_ipv6_and_at_the_gateway_answers_as_well(scene: dict[str, Workload]) -> None:
    asks, peer = scene["blue0"], scene["blue1"]
    for server in ("10.0.0.1", f"{SERVICE6}%eth0"):
        assert wait_for(lambda server=server: resolved(asks, "www1", server) == {peer.ip4}, 5), server


def test_a_server_of_names_on_the_network_is_left_alone(scene: dict[str, Workload]) -> None:
    """Who asks a port at UDP port 53 asks that port."""
    asks, peer = scene["blue0"], scene["blue1"]
    program = "import socket\ns = socket.socket(type=socket.SOCK_DGRAM)\ns.bind(('', 53))\n"
    program += "print('ready', flush=True)\nprint(s.recv(512), flush=True)"
    listener = peer.popen(sys.executable, "-c", program)
    try:
        assert listener.stdout is not None
        assert listener.stdout.readline() == "ready\n"
        assert resolved(asks, "www1", peer.ip4) == set()
        assert "www1" in listener.stdout.readline()
    finally:
        listener.kill()
        listener.communicate(timeout=5)


def test_a_name_is_what_the_port_is_called_now(scene: dict[str, Workload]) -> None:
    asks, peer = scene["blue0"], scene["blue1"]
    peer.lab.client.update("port", peer.id, dns_name="other")
    assert wait_for(lambda: resolved(asks, "other") == {peer.ip4}, 5)
    assert resolved(asks, "www1") == set()
    peer.lab.client.update("port", peer.id, dns_name="www1")
    assert wait_for(lambda: resolved(asks, "www1") == {peer.ip4}, 5)


def test_who_may_not_ask_is_not_answered(scene: dict[str, Workload]) -> None:
    lab, asks, peer = scene["blue0"].lab, scene["blue0"], scene["blue1"]
    group = lab.client.create("security_group", name="silent")
    for rule in group["security_group_rules"]:
        lab.client.delete("security_group_rule", rule["id"])
    before = asks.port["security_groups"]
    lab.client.update("port", asks.id, security_groups=[group["id"]])
    assert wait_for(lambda: resolved(asks, "www1") == set(), 5)
    lab.client.update("port", asks.id, security_groups=before)
    assert wait_for(lambda: resolved(asks, "www1") == {peer.ip4}, 5)
