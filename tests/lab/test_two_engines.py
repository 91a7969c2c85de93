"""Two tenants' engines on the same two hosts: none reaches, names or sees what is the other's, nor the hosts' own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, NamedTuple

import httpx
import pytest

from crossway.lab import Lab
from crossway.lab.docker import Engine, engine
from lab.stories import dual, open_group, pings
from lab.test_docker import address, attached, create

TENANTS = ("red", "green")
CIDRS = (("10.9.0.0/24", 4), ("fd00:9::/64", 6))
Engines = dict[tuple[str, int], Engine]


class Scene(NamedTuple):
    """Both tenants have a network `app` with the same addresses, a router, and `web` and `only-TENANT` on each host."""

    lab: Lab
    engines: Engines
    networks: dict[str, str]

    def ips(self, tenant: str, host: int, name: str) -> list[str]:
        each = self.engines[tenant, host]
        return [address(each, name, "app", key) for key in ("IPAddress", "GlobalIPv6Address")]

    def says(self, tenant: str, host: int, command: str, container: str = "web") -> tuple[bool, str]:
        """Run a command in a container; return whether it went well, and what it said."""
        said = self.engines[tenant, host].docker(
            "exec", container, "sh", "-c", f"{command} && echo went-well", check=False
        )
        return "went-well" in said, said


def answered(scene: Scene, tenant: str, host: int, ips: list[str]) -> list[str]:
    """Return those of some addresses that answer a container's ping."""
    with ThreadPoolExecutor(4) as pool:
        went = pool.map(lambda ip: scene.says(tenant, host, f"ping -c1 -W1 {ip} >/dev/null")[0], ips)
        return [ip for ip, well in zip(ips, went, strict=True) if well]


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setenv("CROSSWAY_DOCKER_PROJECTS", ",".join(TENANTS))
        lab = stack.enter_context(Lab.up(hosts=2))
        networks = {}
        for tenant in TENANTS:
            networks[tenant] = lab.client.create("network", name="app", project_id=tenant)["id"]
            router = lab.client.create("router", name="app", project_id=tenant)
            for cidr, version in CIDRS:
                subnet = lab.client.create(
                    "subnet", network_id=networks[tenant], project_id=tenant, ip_version=version, cidr=cidr
                )
                lab.client.add_interface(router["id"], subnet=subnet["id"])
            open_group(lab, project_id=tenant)

        wanted = [(tenant, host) for tenant in TENANTS for host in range(2)]
        engines = {one: stack.enter_context(engine(lab.hosts[one[1]], project=one[0])) for one in wanted}
        for (tenant, host), each in engines.items():
            create(each, "app", "--ipam-driver", "null", "-o", "network=app", "-o", "groups=open")
            # `web` is at the same address for both, the other one at its tenant's own.
            for name, last in (("web", 5 + host), (f"only-{tenant}", 20 + 10 * TENANTS.index(tenant) + host)):
                ips = f"10.9.0.{last},fd00:9::{last}"
                network = f'name=app,"driver-opt=ips={ips}",alias={name}-{host}'
                each.docker(
                    *("run", "-d", "--network", network, "--name", name, "lab"),
                    *("sh", "-c", f"mkdir /srv; echo {tenant} >/srv/name; httpd -p '[::]:80' -h /srv; sleep 600"),
                )
        yield Scene(lab, engines, networks)


def test_each_has_its_own_at_the_same_addresses(scene: Scene) -> None:
    for tenant in TENANTS:
        for there, here in ((1, 0), (0, 1)):
            ips = [*scene.ips(tenant, there, "web"), *scene.ips(tenant, there, f"only-{tenant}")]
            assert answered(scene, tenant, here, ips) == ips
            _, said = scene.says(tenant, here, f"wget -qO- http://10.9.0.{5 + there}/name")
            assert said.split() == [tenant, "went-well"]
    assert scene.ips("red", 0, "web")[0] == scene.ips("green", 0, "web")[0] == "10.9.0.5"
    found = {p["project_id"]: p["network_id"] for p in attached(scene.lab)}
    assert found == scene.networks


def test_what_only_the_other_has_cannot_be_reached(scene: Scene) -> None:
    for tenant, other in (TENANTS, TENANTS[::-1]):
        ours = {ip for host in range(2) for name in ("web", f"only-{tenant}") for ip in scene.ips(tenant, host, name)}
        theirs = [
            ip for host in range(2) for name in ("web", f"only-{other}") for ip in scene.ips(other, host, name)
            if ip not in ours
        ]  # fmt: skip
        assert theirs
        for host in range(2):
            assert answered(scene, tenant, host, theirs) == []


def test_nor_named_nor_seen(scene: Scene) -> None:
    for tenant, other in (TENANTS, TENANTS[::-1]):
        for host in range(2):
            mine = scene.engines[tenant, host]
            ids = {e.docker("network", "inspect", "--format", "{{.Id}}", "app")
                   for (of, _), e in scene.engines.items() if of == other}  # fmt: skip
            listed = mine.docker("network", "ls", "--no-trunc", "--format", "{{.ID}} {{.Name}}")
            assert not any(id in listed for id in ids)
            containers = mine.docker("ps", "-a", "--format", "{{.Names}}").split()
            assert sorted(containers) == sorted(["web", f"only-{tenant}"])
            for id in (*ids, scene.networks[other]):
                for words in (
                    ("network", "inspect", id),
                    ("network", "connect", id, "web"),
                    ("network", "rm", id),
                    ("run", "--rm", "--network", id, "lab", "true"),
                ):
                    said = mine.docker(*words, check=False)
                    assert "o such network" in said or f"network {id} not found" in said, words
            for options in ((f"network={scene.networks[other]}",), ("network=app", "-o", f"project={other}")):
                theirs = ("--ipam-driver", "null", "-o", *options, "theirs")
                said = mine.docker("network", "create", "-d", "crossway", *theirs, check=False)
                assert "could not be found" in said or f"of project {tenant}" in said
            assert scene.says(tenant, host, f"timeout 3 ping -c1 only-{tenant}")[0]
            # What is on the other host is found by name as well, and what is the other's on neither.
            for at in range(2):
                _, said = scene.says(tenant, host, f"timeout 3 wget -qO- http://web-{at}/name")
                assert said.split() == [tenant, "went-well"]
                for name in (f"only-{other}", f"only-{other}-{at}", *scene.ips(other, at, f"only-{other}")):
                    _, said = scene.says(tenant, host, f"timeout 3 nslookup {name}")
                    assert not re.search(r"^Name:|name = ", said, re.MULTILINE), said
    assert scene.lab.client.list("ports", device_owner="container:docker", project_id="red")


def test_what_an_engine_says_of_anothers_endpoints_comes_to_nothing(scene: Scene) -> None:
    lab, host = scene.lab, scene.lab.hosts[0]
    theirs = json.loads(scene.engines["green", 0].docker("inspect", "web"))[0]["NetworkSettings"]["Networks"]["app"]
    network, endpoint = theirs["NetworkID"], theirs["EndpointID"]
    subnet = lab.client.list("subnet", network_id=scene.networks["green"], ip_version=4)[0]["id"]
    before = lab.client.list("port", network_id=scene.networks["green"])
    asked: list[tuple[str, dict[str, Any], bool]] = [
        ("NetworkDriver.CreateEndpoint", {"NetworkID": network, "EndpointID": "e" * 64, "Interface": {}}, True),
        ("NetworkDriver.Join", {"NetworkID": network, "EndpointID": endpoint, "SandboxKey": "x"}, True),
        ("NetworkDriver.EndpointOperInfo", {"NetworkID": network, "EndpointID": endpoint}, True),
        ("NetworkDriver.Leave", {"NetworkID": network, "EndpointID": endpoint}, False),
        ("NetworkDriver.DeleteEndpoint", {"NetworkID": network, "EndpointID": endpoint}, False),
        ("NetworkDriver.DeleteNetwork", {"NetworkID": network}, False),
        ("IpamDriver.RequestAddress", {"PoolID": subnet}, True),
        ("IpamDriver.ReleaseAddress", {"PoolID": subnet, "Address": theirs["IPAddress"]}, False),
    ]
    with httpx.Client(transport=httpx.HTTPTransport(uds=f"{host.run}/docker-red.sock")) as red:
        for method, body, refused in asked:
            told = red.post(f"http://engine/{method}", json=body).json()
            assert bool(told.get("Err")) is refused, (method, told)
            assert theirs["IPAddress"] not in json.dumps(told)
        for path in ("/v1/plug", "/v1/unplug", "/v1/cni"):
            assert red.post(f"http://engine{path}", json={"port": before[0]["id"]}).status_code == 404
        for path in ("/v1/status", "/v1/drops"):
            assert red.get(f"http://engine{path}").status_code == 404
    assert lab.client.list("port", network_id=scene.networks["green"]) == before
    assert scene.engines["green", 0].docker("exec", "web", "cat", "/srv/name") == "green"
    assert answered(scene, "green", 1, scene.ips("green", 0, "web")) == scene.ips("green", 0, "web")


def test_a_container_reaches_no_socket_and_no_api(scene: Scene) -> None:
    lab, red = scene.lab, scene.engines["red", 0]
    port = lab.url.rpartition(":")[2]
    assert not scene.says("red", 0, f"test -e {lab.hosts[0].run} || test -e /run/crossway || test -e /run/docker")[0]
    assert "sock" not in red.docker("exec", "web", "cat", "/proc/net/unix")
    # Whatever a host has for an address, on the underlay and on the links to its containers.
    told = json.loads(lab.hosts[0].exec("ip", "-j", "address").stdout)
    own = [(a["local"], link["ifname"]) for link in told for a in link["addr_info"]]
    assert (lab.hosts[0].underlay, "under0") in own
    assert [ip for ip, link in own if link.startswith(("cw", "cv"))] == [], "links to containers have no address"
    ips = sorted({ip for ip, link in own if link != "lo" and not ip.startswith("fe80")})
    ips += [lab.hosts[1].underlay, "198.18.0.1", "169.254.169.254", "10.9.0.1", "fd00:9::1"]
    gateways = {"10.9.0.1", "fd00:9::1"}  # answer pings, and serve nothing
    assert set(answered(scene, "red", 0, ips)) <= gateways
    with ThreadPoolExecutor(4) as pool:
        tries = [(ip, number) for ip in (*ips, "127.0.0.1", "::1") for number in (port, "9696", "80", "2375", "22")]
        opened = pool.map(lambda one: scene.says("red", 0, f"nc -w 1 {one[0]} {one[1]} </dev/null")[0], tries)
        assert [one for one, went in zip(tries, opened, strict=True) if went] == [("127.0.0.1", "80"), ("::1", "80")]
    # Not by asking all who hear it either: only its own network's answer.
    neighbours = red.docker("exec", "web", "sh", "-c", "ping -c2 -w2 ff02::1%eth0; ip -6 neigh", check=False)
    hosts = {link["address"] for link in told if link["ifname"] != "lo"}
    assert not [mac for mac in hosts if mac in neighbours]


def test_a_default_network_of_nobody_is_not_reached_from_a_tenants(scene: Scene) -> None:
    # The operator's own workload, on the same host and with the same addresses.
    network = dual(scene.lab, "operators", 9)
    mine = scene.lab.workload(scene.lab.hosts[0], network, groups=[open_group(scene.lab)])
    peer = scene.lab.workload(scene.lab.hosts[1], network, groups=mine.port["security_groups"])
    assert pings(mine, peer.ip4)
    ours = {ip for host in range(2) for name in ("web", "only-red") for ip in scene.ips("red", host, name)}
    strange = [ip for workload in (mine, peer) for ip in workload.addresses if ip not in ours]
    assert answered(scene, "red", 0, strange) == []
