"""Stock clients of OpenStack: the SDK and the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openstack
import pytest
from openstack import exceptions
from openstack.network.v2._proxy import Proxy

from servers import Server

# The SDK warns of what it will drop itself.
pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")

AUTH = {
    "none": {"auth_type": "none"},
    "none, endpoint with the version": {"auth_type": "none"},
    "admin_token": {"auth_type": "admin_token", "token": "any"},
    "http_basic": {"auth_type": "http_basic", "username": "u", "password": "p"},
}


@pytest.fixture(scope="module", params=list(AUTH))
def sdk(request: pytest.FixtureRequest, shared: Server) -> Iterator[Proxy]:
    auth: dict[str, Any] = dict(AUTH[request.param])
    version = "/v2.0" if "version" in request.param else ""
    options = {name: auth.pop(name) for name in list(auth) if name == "auth_type"}
    with openstack.connect(
        auth={"endpoint": shared.url + version, **auth},
        load_yaml_config=False,
        load_envvars=False,
        network_endpoint_override=f"{shared.url}/v2.0" if request.param == "http_basic" else None,
        **options,
    ) as cloud:
        yield cloud.network


def test_the_sdk_makes_a_network_and_all_that_goes_with_it(sdk: Proxy) -> None:
    network = sdk.create_network(name="sdk", mtu=1400)
    subnet = sdk.create_subnet(network_id=network.id, ip_version=4, cidr="10.0.0.0/24", name="s")
    six = sdk.create_subnet(network_id=network.id, ip_version=6, cidr="fd00::/64")
    group = sdk.create_security_group(name="g", description="d")
    rule = sdk.create_security_group_rule(
        security_group_id=group.id, direction="ingress", protocol="tcp", port_range_min=22, port_range_max=22
    )
    port = sdk.create_port(network_id=network.id, security_group_ids=[group.id], name="p")
    router = sdk.create_router(name="r")
    sdk.add_interface_to_router(router, subnet_id=subnet.id)
    assert network.mtu == 1400
    assert [ip["ip_address"] for ip in port.fixed_ips] == ["10.0.0.2", "fd00::2"]
    assert sdk.find_network("sdk", ignore_missing=False).id == network.id
    assert {s.id for s in sdk.subnets(network_id=network.id)} == {subnet.id, six.id}
    assert [p.id for p in sdk.ports(network_id=network.id, device_id=router.id)]
    assert rule.id in {r["id"] for r in sdk.get_security_group(group.id).security_group_rules}
    assert sdk.update_port(port, name="renamed", is_admin_state_up=False).is_admin_state_up is False
    assert sdk.update_subnet(subnet, dns_nameservers=["192.0.2.53"]).dns_nameservers == ["192.0.2.53"]
    sdk.set_tags(network, ["a"])
    assert sdk.get_network(network.id).tags == ["a"]
    route = {"destination": "192.0.2.0/24", "nexthop": "10.0.0.9"}
    assert sdk.update_router(router, routes=[route]).routes == [route]
    assert sdk.find_extension("router").alias == "router"
    with pytest.raises(exceptions.ConflictException, match="still in use"):
        sdk.delete_network(network)
    sdk.update_router(router, routes=[])
    sdk.remove_interface_from_router(router, subnet_id=subnet.id)
    for delete, what in (
        (sdk.delete_router, router),
        (sdk.delete_port, port),
        (sdk.delete_security_group, group),
        (sdk.delete_subnet, six),
        (sdk.delete_network, network),
    ):
        delete(what, ignore_missing=False)
    with pytest.raises(exceptions.NotFoundException):
        sdk.get_network(network.id)


def test_the_sdk_walks_pages(sdk: Proxy) -> None:
    network = sdk.create_network(name="pages")
    sdk.create_ports([{"network_id": network.id, "name": f"p{i}"} for i in range(25)])
    found = list(sdk.ports(network_id=network.id, limit=10, paginated=True))
    assert len({p.id for p in found}) == len(found) == 25
    for port in found:
        sdk.delete_port(port)
    sdk.delete_network(network)


@pytest.fixture(scope="module")
def cli(shared: Server, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Run the openstack command; one interpreter for several commands, as starting it takes long."""
    home = tmp_path_factory.mktemp("home")
    options = ["--os-auth-type", "none", "--os-endpoint", shared.url]

    def run(*commands: str, ok: bool = True) -> list[Any]:
        script = (
            "import io, shlex, sys, json\n"
            "from contextlib import redirect_stdout, redirect_stderr\n"
            "from openstackclient.shell import main\n"
            "for line in sys.argv[2:]:\n"
            "    out, err = io.StringIO(), io.StringIO()\n"
            "    with redirect_stdout(out), redirect_stderr(err):\n"
            "        code = main(shlex.split(sys.argv[1]) + shlex.split(line))\n"
            "    print(json.dumps([code, out.getvalue(), err.getvalue()]))\n"
        )
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", script, " ".join(options), *commands],
            capture_output=True,
            text=True,
            timeout=60,
            env={"HOME": str(home), "PATH": os.environ["PATH"]},
            check=True,
        )
        results = [json.loads(line) for line in done.stdout.splitlines()]
        for command, (code, _, err) in zip(commands, results, strict=True):
            assert (code == 0) == ok, f"{command}: {code} {err}"
        return [json.loads(out) if out.startswith(("{", "[")) else err or out for _, out, err in results]

    return run


def test_the_openstack_command(cli: Any, tmp_path: Path) -> None:
    (
        _,
        subnet,
        _,
        port,
        _,
        _,
        router,
        *_,
        rules,
        networks,
        shown,
        _,
    ) = cli(
        "network create -f json cli-net",
        "subnet create -f json --network cli-net --subnet-range 10.0.0.0/24 --dns-nameserver 192.0.2.53 cli-subnet",
        "security group create -f json cli-group",
        "port create -f json --network cli-net --fixed-ip subnet=cli-subnet,ip-address=10.0.0.77"
        " --security-group cli-group --binding-profile device=tap0 --host h1 cli-port",
        "router create -f json cli-router",
        "router add subnet cli-router cli-subnet",
        "router show -f json cli-router",
        "router set --route destination=192.0.2.0/24,gateway=10.0.0.9 cli-router",
        "router unset --route destination=192.0.2.0/24,gateway=10.0.0.9 cli-router",
        "security group rule create -f json --protocol tcp --dst-port 80:90 --remote-ip 10.0.0.0/8 cli-group",
        "port set --name renamed --disable --allowed-address ip-address=10.0.0.99 cli-port",
        "network set --name renamed --share cli-net",
        "subnet set --no-dhcp cli-subnet",
        "security group rule list -f json cli-group",
        "network list -f json --name renamed",
        "port show -f json renamed",
        "extension list -f json --network",
    )
    assert subnet["gateway_ip"] == "10.0.0.1"
    assert port["fixed_ips"][0]["ip_address"] == "10.0.0.77"
    assert port["binding_host_id"] == "h1"
    assert router["interfaces_info"][0]["ip_address"] == "10.0.0.1"
    assert [r["Port Range"] for r in rules if r["IP Protocol"] == "tcp"] == ["80:90"]
    assert [n["Name"] for n in networks] == ["renamed"]
    assert shown["admin_state_up"] is False
    assert shown["allowed_address_pairs"][0]["ip_address"] == "10.0.0.99"


def test_the_openstack_command_says_why(cli: Any) -> None:
    first, second = cli(
        "network delete renamed",
        "security group rule create --protocol tcp --dst-port 22 --remote-ip fd00::/8 --ethertype IPv4 cli-group",
        ok=False,
    )
    assert "still in use on the network" in first
    assert "Conflicting value ethertype IPv4" in second


def test_the_openstack_command_takes_all_away(cli: Any) -> None:
    cli(
        "router remove subnet cli-router cli-subnet",
        "router delete cli-router",
        "port delete renamed",
        "subnet delete cli-subnet",
        "network delete renamed",
        "security group delete cli-group",
    )
