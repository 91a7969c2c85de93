"""The commands of the guides to Docker, CNI, virtual machines and bare metal, run as they stand there, in order."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from crossway.lab import Lab, process
from crossway.lab.docker import Engine, engine
from crossway.lab.server import TRUNK, Server, trunk
from lab.libvirtd import Libvirtd
from lab.test_containerd import Containerd

TOP = Path(__file__).parents[2]


def commands(page: str) -> str:
    """Return all that a page says to type: its blocks that are of no language."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", (TOP / "docs" / "guides" / page).read_text(), re.MULTILINE | re.DOTALL)
    return "".join(block for language, block in blocks if not language)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab.up(hosts=1) as lab:
        yield lab


@pytest.fixture(scope="module")
def docker(lab: Lab) -> Iterator[Engine]:
    with engine(lab.hosts[0]) as made:
        made.docker("tag", "lab", "busybox")
        yield made


def run(lab: Lab, engine: Engine, script: str, *begin: str, **environment: str) -> str:
    """Run what a reader would type on a host: its agent is where the page says, and nothing of this machine changes."""
    places = ("/etc/docker", "/etc/cni", "/opt")
    script = "\n".join([
        "mkdir -p /run/crossway /etc/docker /etc/cni",
        f"mount --bind {lab.hosts[0].run} /run/crossway",
        *(f"mount -t tmpfs none {place}" for place in places),
        'crossway() { command crossway "$@" --server ' + lab.url + "; }",
        *begin,
        "set -x",
        script,
    ])  # fmt: skip
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "bash", "-e", "-o", "pipefail"],
        input=script, text=True, capture_output=True, check=False, cwd=TOP, timeout=240,
        env={
            "PATH": f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(engine.root),
            "DOCKER_HOST": f"unix://{engine.socket}",
            **environment,
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_guide_to_docker(lab: Lab, docker: Engine) -> None:
    said = run(lab, docker, commands("docker.md"))
    assert said.count("1 packets received") == 5
    assert lab.client.list("port", device_owner="container:docker") == []


def test_the_guide_to_cni(lab: Lab, docker: Engine, tmp_path_factory: pytest.TempPathFactory) -> None:
    saved = docker.root / "busybox.tar"
    docker.docker("save", "-o", str(saved), "busybox")
    # The machine's own containerd numbers processes as the machine does; an engine of the lab does not.
    own = Containerd(lab.hosts[0], tmp_path_factory.mktemp("ctr"))
    try:
        said = run(
            lab, docker, f"ctr image import {saved} >/dev/null\n{commands('cni.md')}", own.mount,
            CONTAINERD_ADDRESS=f"{own.root}/sock", CONTAINERD_SNAPSHOTTER="native",
        )  # fmt: skip
    finally:
        process.stop([own.process], seconds=10.0)
    assert re.search(r"inet 10\.0\.0\.\d+/24 .* eth0", said)
    assert lab.client.list("port", device_owner="container:cni") == []


def test_the_guide_to_bare_metal() -> None:
    with Lab.up(hosts=2) as lab:
        for host in lab.hosts:
            trunk(lab, host)
            host.physnets["rack1"] = TRUNK
            host.agent.restart()
        lab.joined()
        server = Server(lab, "db", "52:54:00:00:01:05", 105, lab.hosts)
        first, last = commands("bare-metal.md").split("crossway group create probes")
        on_host(lab, first)
        lab.client.wait("port", lab.client.list("port", name="db")[0]["id"])
        server.boot("10.0.0.5")
        assert " 0% packet loss" in on_host(lab, f"crossway group create probes{last}")
        assert lab.client.list("port", device_owner="host:attached") == []


def test_the_guide_to_virtual_machines(tmp_path: Path) -> None:
    for script in ("guest", "libvirt"):
        subprocess.run([TOP / "scripts" / script], check=True)
    (tmp_path / "scripts").symlink_to(TOP / "scripts")
    (tmp_path / "build").symlink_to(TOP / "build")
    with Lab.up(hosts=1) as lab:
        daemon = Libvirtd(lab.hosts[0], tmp_path / "libvirt")
        try:
            daemon.ready()
            said = on_host(lab, commands("virtual-machines.md"), daemon.mounts, where=tmp_path)
        finally:
            daemon.stop()
        assert said.count(" 2 received") == 2
        assert len(re.findall(r"\b(?:web|second)\b.* h1 .* ACTIVE", said)) == 2
        assert lab.hosts[0].agent_client.status()["ports"] == []
        assert {port["device_owner"] for port in lab.client.list("port")} == {""}


def on_host(lab: Lab, script: str, *begin: str, where: Path = TOP) -> str:
    """Run what a reader would type on the first host, whose agent is where the page says."""
    host = lab.hosts[0]
    script = "\n".join(["mkdir -p /run/crossway", f"mount --bind {host.run} /run/crossway", *begin, "set -x", script])
    done = subprocess.run(
        host.command("unshare", "--mount", "--propagation", "private", "bash", "-e", "-o", "pipefail"),
        input=script, text=True, capture_output=True, check=False, cwd=where, timeout=240,
        env={
            "PATH": f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/nonexistent",
            "CROSSWAY_SERVER": lab.state.underlay_url,
            "OS_AUTH_TYPE": "none",
            "OS_ENDPOINT": lab.state.underlay_url,
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
