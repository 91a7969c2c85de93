"""Two tenants' engines on one host: each has its own networks, and hears nothing of the other's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest

from crossway.errors import Unavailable
from crossway.lab import Lab
from crossway.lab.docker import Engine, engine
from lab.stories import Object, open_group, wait_for
from lab.test_docker import address, attached, create, left, pings

TENANTS = ("red", "green")


@pytest.fixture(scope="module")
def tenants() -> Iterator[tuple[Lab, dict[str, Engine], dict[str, Object]]]:
    with Lab.up(hosts=1) as lab, ExitStack() as stack:
        host = lab.hosts[0]
        host.agent.restart(CROSSWAY_DOCKER_PROJECTS=",".join(TENANTS))
        networks = {}
        for project in TENANTS:
            networks[project] = lab.client.create("network", name="app", project_id=project)
            lab.client.create(
                "subnet", network_id=networks[project]["id"], project_id=project, ip_version=4, cidr="10.9.0.0/24"
            )
            open_group(lab, project_id=project)
        engines = {project: stack.enter_context(engine(host, project=project)) for project in TENANTS}
        yield lab, engines, networks


def test_the_same_name_and_the_same_addresses_are_two_networks(
    tenants: tuple[Lab, dict[str, Engine], dict[str, Object]],
) -> None:
    lab, engines, networks = tenants
    for project, each in engines.items():
        create(
            each,
            "app",
            "--ipam-driver",
            "crossway",
            "--ipam-opt",
            "network=app",
            "-o",
            "network=app",
            "-o",
            "groups=open",
            "--subnet",
            "10.9.0.0/24",
        )
        each.run("app", "web", "--ip", "10.9.0.5")
        each.run("app", f"only-{project}")
        assert {p["network_id"] for p in attached(lab) if p["project_id"] == project} == {networks[project]["id"]}
    for project, each in engines.items():
        other = next(tenant for tenant in TENANTS if tenant != project)
        assert address(each, "web", "app") == "10.9.0.5"
        assert pings(each, f"only-{project}", "10.9.0.5")
        assert pings(each, "web", f"only-{project}")  # by name
        assert f"only-{other}" not in each.docker("ps", "--format", "{{.Names}}").split()
        # An engine asks others for names that it does not know, and waits long for their answer.
        named = ("busybox", "timeout", "3", "ping", "-c1", f"only-{other}")
        assert "1 packets received" not in each.docker("exec", "web", *named, check=False)
    # The address that only the other has, and the one that both have: each is its own.
    engines["green"].docker("rm", "-f", "web")
    assert not pings(engines["green"], "only-green", "10.9.0.5")
    assert pings(engines["red"], "only-red", "10.9.0.5")
    for each in engines.values():
        each.clear()
        each.docker("network", "rm", "app")
    assert attached(lab) == []
    assert left(lab) == set()


def test_no_network_of_another_can_be_named(tenants: tuple[Lab, dict[str, Engine], dict[str, Object]]) -> None:
    lab, engines, networks = tenants
    red = networks["red"]["id"]
    subnet = lab.client.list("subnet", network_id=red)[0]
    secret = lab.client.create("network", name="secret", project_id="red")
    for options in (
        ("--ipam-driver", "null", "-o", f"network={red}"),
        ("--ipam-driver", "null", "-o", "network=secret"),
        ("--ipam-driver", "null", "-o", "network=app", "-o", "project=red"),
        ("--ipam-driver", "crossway", "--ipam-opt", f"network={red}", "-o", f"network={red}"),
        ("--ipam-driver", "crossway", "--ipam-opt", "network=app", "--ipam-opt", "project=red", "-o", "network=app"),
    ):
        with pytest.raises(Unavailable, match=r"could not be found|of project green"):
            create(engines["green"], "theirs", *options)
    # Nor by what an engine says in the protocol.
    generic = "com.docker.network.generic"
    host = lab.hosts[0]
    for method, body in (
        ("IpamDriver.RequestPool", {"Options": {"network": red}}),
        ("IpamDriver.RequestPool", {"Options": {"network": "app", "project": "red"}}),
        ("IpamDriver.RequestAddress", {"PoolID": subnet["id"]}),
        ("NetworkDriver.CreateNetwork", {"NetworkID": "x", "Options": {generic: {"network": red}}}),
    ):
        with httpx.Client(transport=httpx.HTTPTransport(uds=f"{host.run}/docker-green.sock")) as green:
            told = green.post(f"http://engine/{method}", json=body).json()
        assert re.search("could not be found|of project green", told["Err"]), (method, told)
    assert lab.client.list("port", network_id=red) == []
    lab.client.delete("network", secret["id"])


def test_a_container_reaches_neither_the_sockets_nor_the_api(
    tenants: tuple[Lab, dict[str, Engine], dict[str, Object]],
) -> None:
    lab, engines, _ = tenants
    host, red = lab.hosts[0], engines["red"]
    create(red, "app", "--ipam-driver", "null", "-o", "network=app", "-o", "groups=open")
    red.run("app", "web")
    assert red.docker("exec", "web", "sh", "-c", f"ls {host.run} /run/crossway 2>/dev/null || true") == ""
    assert "agent.sock" not in red.docker("exec", "web", "cat", "/proc/net/unix")
    port = lab.url.rpartition(":")[2]
    assert not pings(red, "web", host.underlay)
    for ip in (host.underlay, "127.0.0.1", "10.9.0.1"):
        said = red.docker("exec", "web", "sh", "-c", f"nc -w 1 {ip} {port} </dev/null && echo open", check=False)
        assert "open" not in said.split()
    red.clear()
    red.docker("network", "rm", "app")


def test_a_tenant_is_refused_what_another_has_published_and_not_told_of_it(
    tenants: tuple[Lab, dict[str, Engine], dict[str, Object]],
) -> None:
    lab, engines, _ = tenants
    for each in engines.values():
        create(each, "pub", "--ipam-driver", "null", "-o", "network=app", "-o", "groups=open")
    engines["red"].run("pub", "secret", "-p", "8080:80")
    for at in ("8080", "9090"):
        held = lab.hosts[0].popen("busybox", "nc", "-l", "-p", "9090")
        try:
            assert wait_for(lambda: ":9090" in lab.hosts[0].exec("ss", "-ltn").stdout, 5)
            with pytest.raises(Unavailable, match=rf"port {at}/tcp of this host is [a-z ]+,? by others") as told:
                engines["green"].run("pub", "other", "-p", f"{at}:80")
            assert "secret" not in str(told.value)
        finally:
            held.kill()
            held.communicate()
        engines["green"].docker("rm", "-f", "other")
    with pytest.raises(Unavailable, match=r"8080/tcp of this host is published already, by .*port"):
        engines["red"].run("pub", "other", "-p", "8080:80")
    for each in engines.values():
        each.clear()
        each.docker("network", "rm", "pub")
