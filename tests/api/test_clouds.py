"""The clouds.yaml that `crossway up` writes, read by those for whom it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import openstack
import pytest
from openstack.connection import Connection

from crossway.cli.clouds import endpoint, text, write
from servers import Server

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")


def test_the_sdk_and_the_openstack_command_find_the_server_by_it(shared: Server, tmp_path: Path) -> None:
    path = tmp_path / "clouds.yaml"
    write(path, text(endpoint(shared.url.removeprefix("http://"), tls=False), ["none"]))
    config = openstack.config.OpenStackConfig(config_files=[str(path)], load_envvars=False)
    with Connection(config=config.get_one("crossway")) as cloud:
        made = cloud.network.create_network(name="by-clouds-yaml")
    command = [sys.executable, "-W", "ignore", "-m", "openstackclient.shell"]
    done = subprocess.run(
        [*command, "--os-cloud", "crossway", "network", "show", "-f", "value", "-c", "id", "by-clouds-yaml"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "OS_CLIENT_CONFIG_FILE": str(path)},
    )
    assert done.stdout.split() == [made.id]
    with Connection(config=config.get_one("crossway")) as cloud:
        cloud.network.delete_network(made.id)


@pytest.mark.parametrize(
    ("auth", "type", "section"),
    [
        (["none"], "none", {"endpoint": "https://h:1"}),
        (["basic:/f"], "http_basic", {"endpoint": "https://h:1"}),
        (["basic", "keystone:http://k:5000/v3"], "password", {"auth_url": "http://k:5000/v3"}),
    ],
)
def test_who_asks_is_said_as_the_server_tells(
    auth: list[str], type: str, section: dict[str, str], tmp_path: Path
) -> None:
    write(tmp_path / "c.yaml", text("https://h:1", auth, "/ca.pem"))
    config = openstack.config.OpenStackConfig(config_files=[str(tmp_path / "c.yaml")], load_envvars=False)
    cloud = config.cloud_config["clouds"]["crossway"]
    assert (cloud["auth_type"], cloud["auth"], cloud["cacert"]) == (type, section, "/ca.pem")


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("127.0.0.1:9696", "http://127.0.0.1:9696"),
        ("0.0.0.0:9696", "http://127.0.0.1:9696"),
        ("[::]:1", "http://[::1]:1"),
        ("[fd00::1]:1", "http://[fd00::1]:1"),
    ],
)
def test_an_address_that_stands_for_all_is_this_machines_own(address: str, url: str) -> None:
    assert endpoint(address, tls=False) == url
