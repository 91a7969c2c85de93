"""Containers that containerd starts, `ctr run --cni`: its own configuration directory, its own order of calls."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import crossway.plugins
from crossway.lab import Lab, process
from crossway.lab.lab import Host
from lab.stories import dual, links, open_group, wait_for


class Containerd:
    """A containerd of a host, with a tree that containers run in; the paths that `ctr` insists on are its own."""

    def __init__(self, host: Host, root: Path) -> None:
        self.host, self.root = host, root
        self.tree = root / "tree"
        for name in ("proc", "dev", "sys", "bin"):
            (self.tree / name).mkdir(parents=True)
        for name in ("plugins", "configurations"):
            (root / name).mkdir()
        shutil.copy2(Path(crossway.plugins.__file__).with_name("crossway-cni"), root / "plugins")
        shutil.copy2(str(shutil.which("busybox")), self.tree / "bin" / "busybox")
        (root / "config.toml").write_text(
            f'version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\nroot = "{root}/data"\n'
            f'state = "{root}/state"\n[grpc]\naddress = "{root}/sock"\n'
        )
        # What runc and the shims keep at a place that cannot be set is private as well.
        (root / "run").mkdir()
        self.mount = f"mkdir -p /run/containerd && mount --bind {root}/run /run/containerd"
        script = f"{self.mount} && exec containerd -c {root}/config.toml"
        command = host.command("unshare", "--mount", "--propagation", "private", "sh", "-c", script)
        self.process = process.start(command, log=root / "log")
        assert wait_for((root / "sock").exists, 20), process.last_words(root / "log")

    def configure(self, **more: Any) -> None:
        plugin = {"type": "crossway-cni", "agent": self.host.socket, **more}
        conf = {"cniVersion": "1.0.0", "name": "pods", "plugins": [plugin]}
        (self.root / "configurations" / "10-crossway.conflist").write_text(json.dumps(conf))

    def run(self, id: str, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command of busybox in a container of its own, to its end."""
        script = (
            f"{self.mount} && mount -t tmpfs none /opt && mount -t tmpfs none /etc && "
            "mkdir -p /opt/cni/bin /etc/cni/net.d && "
            f"mount --bind {self.root}/plugins /opt/cni/bin && mount --bind {self.root}/configurations /etc/cni/net.d "
            f'&& ctr -a {self.root}/sock run --rm --rootfs --cni {self.tree} "$@" && exit; '
            # It leaves what it could give no network: a task that was made, and not started.
            f'ctr -a {self.root}/sock task delete --force "$1" >/dev/null 2>&1; exit 1'
        )
        words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "ctr", id, "/bin/busybox"]
        return subprocess.run(
            self.host.command(*words, *command), capture_output=True, text=True, check=False, timeout=60
        )

    def tasks(self) -> list[str]:
        """Return the containers that are there, running or not."""
        return [path.name for path in (self.root / "run" / "runc" / "default").iterdir()]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab.up(hosts=2) as lab:
        yield lab


@pytest.fixture(scope="module")
def containerd(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containerd]:
    # Its sockets have short names only in a short place.
    made = Containerd(lab.hosts[0], tmp_path_factory.mktemp("ctr"))
    yield made
    process.stop([made.process], seconds=10.0)


def test_a_container_of_ctr_reaches_another_host_and_leaves_nothing(lab: Lab, containerd: Containerd) -> None:
    group, network = open_group(lab), dual(lab, "pods", 1)
    peer = lab.workload(lab.hosts[1], network, groups=[group])
    containerd.configure(network="pods", groups=["open"])
    for ip in (peer.ip4, peer.ip6):
        done = containerd.run("one", "ping", "-c1", "-W2", ip)
        assert done.returncode == 0, done.stdout + done.stderr
    with ThreadPoolExecutor(4) as threads:
        many = list(threads.map(lambda n: containerd.run(f"n{n}", "ping", "-c1", "-W5", peer.ip4), range(8)))
    assert [done.returncode for done in many] == [0] * 8, many
    assert lab.client.list("port", device_owner="container:cni") == []
    assert not {name for name in links(lab.hosts[0]) if re.fullmatch("c[wv][0-9a-f]{11}", name)}


def test_a_container_that_gets_no_network_does_not_run(lab: Lab, containerd: Containerd) -> None:
    containerd.configure(network="nowhere")
    done = containerd.run("none", "echo", "ran")
    assert done.returncode != 0
    assert "nowhere" in done.stderr
    assert "ran" not in done.stdout
    assert lab.client.list("port", device_owner="container:cni") == []
    assert containerd.tasks() == []
