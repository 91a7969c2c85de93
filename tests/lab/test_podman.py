"""Containers of podman, which gives them networks by CNI up to its version 4."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import crossway.plugins
from crossway.lab import Lab, docker
from crossway.lab.lab import Host
from lab.stories import links, pings, pod_hosts, wait_for

TOP = Path(__file__).parents[2]
PLUGINS = Path(crossway.plugins.__file__).parent
WANTED = os.environ.get("PODMAN", "0") != "0"

pytestmark = pytest.mark.skipif(not WANTED, reason="PODMAN=1: it and 11 MB of packages are not set up by themselves")


class Podman:
    """A podman of a host, with places of its own."""

    def __init__(self, host: Host, root: Path) -> None:
        self.host, self.root = host, root
        plugin = {"type": "crossway-cni", "agent": host.socket, "network": "pods", "groups": ["open"],
                  "capabilities": {"portMappings": True, "ips": True, "mac": True}}  # fmt: skip
        conf = {"cniVersion": "1.0.0", "name": "pods", "plugins": [plugin]}
        (root / "networks").mkdir()
        (root / "networks" / "pods.conflist").write_text(json.dumps(conf))
        (root / "containers.conf").write_text(
            f'[containers]\ndefault_ulimits = []\n[network]\nnetwork_backend = "cni"\ncni_plugin_dirs = ["{PLUGINS}"]\n'
            f'network_config_dir = "{root}/networks"\n[engine]\ncgroup_manager = "cgroupfs"\nruntime = "runc"\n'
            'events_logger = "file"\n'
        )
        (root / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        (root / "image.tar").write_bytes(docker.image())

    def __call__(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.host.command(
                "podman", "--root", f"{self.root}/root", "--runroot", f"{self.root}/run", "--tmpdir",
                f"{self.root}/tmp", "--storage-driver", "vfs", *words,
            ),
            capture_output=True, text=True, check=False, timeout=60,
            env={**os.environ, "CONTAINERS_CONF": f"{self.root}/containers.conf"},
        )  # fmt: skip
        assert done.returncode == 0 or not check, f"podman {' '.join(words)}: {done.stdout}{done.stderr}"
        return done


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with pod_hosts() as lab:
        yield lab


@pytest.fixture(scope="module")
def podman(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    subprocess.run([TOP / "scripts" / "podman"], check=True)
    kept = Path("/var/lib/cni")  # where libcni keeps results, whatever it is told
    there = kept.exists()
    made = Podman(lab.hosts[0], tmp_path_factory.mktemp("podman"))
    try:
        made("import", str(made.root / "image.tar"), "localhost/busybox")
        yield made
    finally:
        made("rm", "--force", "--all", "--time", "0")
        if not there:
            shutil.rmtree(kept, ignore_errors=True)


def nothing_left(lab: Lab) -> None:
    assert wait_for(lambda: lab.client.list("port", device_owner="container:cni") == [])
    assert not {name for name in links(lab.hosts[0]) if re.fullmatch("c[wv][0-9a-f]{11}", name)}


def test_a_container_of_podman_reaches_another_host_and_leaves_nothing(lab: Lab, podman: Podman) -> None:
    network, group = lab.client.find("network", "pods"), lab.client.find("security_group", "open")
    peer = lab.workload(lab.hosts[1], network, groups=[group])
    run = ("run", "--rm", "--network", "pods")
    for ip in (peer.ip4, peer.ip6):
        assert "1 packets received" in podman(*run, "localhost/busybox", "ping", "-c1", "-W2", ip).stdout
    assert "10.1.0.77/24" in podman(*run, "--ip", "10.1.0.77", "localhost/busybox", "ip", "address").stdout
    nothing_left(lab)


def test_a_container_of_podman_is_stopped_and_started_again(lab: Lab, podman: Podman) -> None:
    network, group = lab.client.find("network", "pods"), lab.client.find("security_group", "open")
    peer = lab.workload(lab.hosts[1], network, groups=[group])
    podman("run", "-d", "--name", "web", "--network", "pods", "--ip", "10.1.0.99", "localhost/busybox", "sleep", "600")
    assert wait_for(lambda: pings(peer, "10.1.0.99"))
    podman("stop", "--time", "0", "web")
    nothing_left(lab)
    podman("start", "web")
    assert wait_for(lambda: pings(peer, "10.1.0.99"))
    podman("rm", "--force", "--time", "0", "web")
    nothing_left(lab)


def test_podman_holds_what_it_publishes_itself(lab: Lab, podman: Podman) -> None:
    """A number cannot be held by two: so `-p` of podman cannot be served, and nothing of it stays."""
    done = podman("run", "--rm", "--network", "pods", "-p", "8080:80", "localhost/busybox", "true", check=False)
    assert "address already in use" in done.stderr
    podman("rm", "--force", "--all", "--time", "0")  # it leaves the container, and its network, to whoever looks
    nothing_left(lab)
