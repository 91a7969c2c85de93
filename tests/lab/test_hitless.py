"""Parts die, are replaced or are away while traffic runs: nothing is lost."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from crossway.kernel.bpf import object_path
from crossway.lab import Lab, Workload
from lab.stories import connections, dual, open_group, stream, wait_for

AWAY = float(os.environ.get("HITLESS_AWAY", "60"))  # s that the server is stopped
TOP = Path(__file__).parents[2]


class Scene(NamedTuple):
    lab: Lab
    near: Workload
    far: Workload


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with Lab.up(hosts=2) as lab:
        network = dual(lab, "net")
        group = open_group(lab)
        near, far = (lab.workload(host, network, groups=[group]) for host in lab.hosts)
        yield Scene(lab, near, far)


def unhurt(udp: dict[str, Any], tcp: dict[str, Any], seconds: float) -> None:
    """Hold the bill of both kinds of traffic against none lost."""
    assert udp["sent"] >= seconds * 10_000 * 0.9, udp
    assert udp["lost"] == 0, udp
    assert udp["twice"] == 0, udp
    assert tcp["failures"] == 0, tcp
    assert tcp["alive"] == 100, tcp
    assert tcp["fresh"] >= seconds * 2, tcp


def connected(lab: Lab, host: int) -> bool:
    return bool(lab.hosts[host].agent_client.status()["connected"])


def test_agents_killed_and_restarted(scene: Scene) -> None:
    lab = scene.lab
    with connections(scene.near, scene.far, scene.far.ip6) as tcp, stream(scene.near, scene.far, scene.far.ip4) as udp:
        for host in lab.hosts:
            host.agent.kill()
            time.sleep(0.5)
            host.agent.start()
            time.sleep(1)
    unhurt(udp, tcp, 3)


def newer_build(tmp: Path) -> Path:
    """Compile the data plane once more, different in what no packet sees."""
    source, path = tmp / "newer.bpf.c", tmp / "newer.bpf.o"
    source.write_text('#include "crossway.bpf.c"\nconst volatile __u32 newer = 2;\n')
    said = subprocess.run(
        ["make", "-s", "--no-print-directory", "cflags"], cwd=TOP, capture_output=True, text=True, check=True
    )
    subprocess.run(["clang", *said.stdout.split(), "-c", str(source), "-o", str(path)], cwd=TOP, check=True)
    assert path.read_bytes() != object_path().read_bytes()
    return path


def test_all_programs_replaced_by_a_newer_build(scene: Scene, tmp_path: Path) -> None:
    lab = scene.lab
    newer = newer_build(tmp_path)
    before = [host.agent_client.status()["programs"]["build"] for host in lab.hosts]
    with connections(scene.near, scene.far, scene.far.ip4) as tcp, stream(scene.near, scene.far, scene.far.ip6) as udp:
        for host in lab.hosts:
            host.agent.restart(CROSSWAY_OBJECT=str(newer))
            time.sleep(1)
    unhurt(udp, tcp, 2)
    after = [host.agent_client.status()["programs"]["build"] for host in lab.hosts]
    assert all(a != b for a, b in zip(after, before, strict=True))


def test_server_killed_and_restarted(scene: Scene) -> None:
    lab = scene.lab
    with connections(scene.near, scene.far, scene.far.ip4) as tcp, stream(scene.near, scene.far, scene.far.ip4) as udp:
        lab.server.kill()
        time.sleep(1)
        lab.server.start()
        assert wait_for(lambda: connected(lab, 0) and connected(lab, 1))
        time.sleep(1)
    unhurt(udp, tcp, 2)


@pytest.mark.timeout(600)
def test_server_and_then_agents_away(scene: Scene) -> None:
    """New connections succeed without a server, and without agents as well."""
    lab = scene.lab
    with connections(scene.near, scene.far, scene.far.ip4) as tcp, stream(scene.near, scene.far, scene.far.ip6) as udp:
        lab.server.kill()
        time.sleep(AWAY / 2)
        for host in lab.hosts:
            host.agent.kill()
        time.sleep(AWAY / 2)
        lab.server.start()
        for host in lab.hosts:
            host.agent.start()
        assert wait_for(lambda: connected(lab, 0) and connected(lab, 1))
        time.sleep(1)
    unhurt(udp, tcp, AWAY)
    # And what comes back is in charge again.
    third = lab.workload(lab.hosts[0], scene.near.port["network_id"], groups=scene.near.port["security_groups"])
    third.exec("ping", "-c1", "-W2", scene.far.ip4)


def test_the_bill_can_show_a_loss(scene: Scene) -> None:
    """The control run: a link that is cut for a moment costs packets, and the bill says so."""
    with stream(scene.near, scene.far, scene.far.ip4) as udp:
        scene.lab.cut("h1")
        time.sleep(0.3)
        scene.lab.heal("h1")
        time.sleep(0.5)
    assert udp["lost"] > 0
