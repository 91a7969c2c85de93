"""What the README says to type beside a machine's own Docker engine, run as it stands there."""

from __future__ import annotations

import re
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from crossway.lab import down, state, wire
from crossway.lab.docker import Engine
from crossway.lab.lab import Host

TOP = Path(__file__).parents[2]
SECONDS = 60.0  # from the first command until a container is answered


@pytest.fixture
def machine() -> Iterator[tuple[Host, Engine]]:
    """A machine with a Docker engine as Debian installs it, and nothing of Crossway."""
    made = state.plan(f"t{secrets.token_hex(4)}", 1, 1, 1500, 4, 20000, None)
    state.claim(made)
    try:
        wire.make(made)
        host = Host(made, made.hosts[0])
        engine = Engine(host, bridge=True)
        engine.start()
        # Its /run/crossway is its own.
        subprocess.run(engine.inside("mount", "--bind", str(host.run), "/run/crossway"), check=True)
        yield host, engine
    finally:
        down(made.name)


def test_the_first_network_beside_an_engine(machine: tuple[Host, Engine]) -> None:
    host, engine = machine
    links, networks = host.exec("ip", "-br", "link").stdout, engine.docker("network", "ls", "--no-trunc")
    page = (TOP / "README.md").read_text()
    first, last = re.findall(r"<!-- run beside an engine -->\n```\n(.*?)```", page, re.DOTALL)
    began = time.monotonic()
    said = run(engine, first)
    assert time.monotonic() - began < SECONDS
    assert " 0% packet loss" in said
    assert "container:docker" in run(engine, "crossway port list --json")
    ended = run(engine, last)
    assert "stay plugged" not in ended
    assert host.exec("ip", "-br", "link").stdout == links
    assert engine.docker("network", "ls", "--no-trunc") == networks
    assert not [p for p in (engine.root / "run" / "plugins").iterdir()]


def test_up_and_down_in_the_background_are_each_done_once(machine: tuple[Host, Engine]) -> None:
    _, engine = machine
    run(engine, "crossway up --detach")
    assert "runs here already" in run(engine, "! crossway up --detach")
    other = "crossway up --run /run/crossway/other --listen 127.0.0.1:9697 --docker-plugins"
    assert "leads to /run/crossway/docker.sock already" in run(engine, f"! {other} /run/docker/plugins")
    run(engine, "crossway status; crossway down")
    assert "could not be found" in run(engine, "! crossway down")


def run(engine: Engine, script: str) -> str:
    done = subprocess.run(
        engine.inside("bash", "-e", "-o", "pipefail"), input=script, text=True, check=False, timeout=120,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={
            "PATH": f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(engine.root),
            "DOCKER_HOST": f"unix://{engine.socket}",
            "CROSSWAY_DATA": str(engine.root / "crossway"),
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout
