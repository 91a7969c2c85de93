"""`crossway up` on a machine of its own: all features without configuration, and nothing left afterwards."""

from __future__ import annotations

import json
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from crossway.lab import down, state, wire
from crossway.lab.place import Place
from crossway.lab.process import Process, start
from lab.stories import pings, wait_for

LISTEN = "127.0.0.1:9696"


class Machine(Place):
    """A namespace that stands for a laptop: an address on the provider network, and a route through it."""

    def __init__(self, made: state.State) -> None:
        super().__init__("h1", made.hosts[0].netns)
        self.state, self.run = made, made.run / "h1"
        self.exec("ip", "address", "add", "203.0.113.11/24", "dev", "up0")
        self.exec("ip", "route", "add", "default", "via", "203.0.113.1")

    def up(self) -> Process:
        command = [
            "up",
            "--data",
            str(self.run / "data"),
            "--run",
            str(self.run),
            "--listen",
            LISTEN,
            "--host",
            "laptop",
            "--docker-plugins",
            "",
        ]
        return start(self.command(sys.executable, "-m", "crossway", *command), log=self.run / "log")

    def crossway(self, *words: str) -> Any:
        """Run a command that answers in JSON, as a user of the machine."""
        said = self.exec(sys.executable, "-m", "crossway", *words, "--json", seconds=60).stdout
        return json.loads(said) if said else None

    def ready(self) -> bool:
        hosts = self.exec(sys.executable, "-m", "crossway", "host", "list", "--json", check=False).stdout
        return bool(hosts) and [h["name"] for h in json.loads(hosts) if h["alive"]] == ["laptop"]

    def traces(self) -> dict[str, str]:
        """Return what `crossway up` changes on a machine."""
        mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        return {
            "links": self.exec("ip", "-br", "link").stdout,
            "rules": self.exec("nft", "list", "ruleset").stdout,
            "forwarding": self.exec("cat", "/proc/sys/net/ipv4/ip_forward").stdout,
            "mounts": " ".join(m for m in mounts if m.startswith(str(self.run))),
        }


@pytest.fixture
def machine() -> Iterator[Machine]:
    made = state.plan(f"t{secrets.token_hex(4)}", 1, 1, 1500, 4, 20000, None)
    state.claim(made)
    try:
        wire.make(made)
        yield Machine(made)
    finally:
        down(made.name)


def test_a_port_on_public_reaches_beyond_the_provider_and_nothing_is_left(machine: Machine) -> None:
    before = machine.traces()
    running = machine.up()
    try:
        assert wait_for(machine.ready, 20)
        (public,) = machine.crossway("network", "list")
        assert (public["name"], public["router:external"]) == ("public", True)
        place = Place("w1", wire.add_namespace(machine.state, "w1"))
        machine.crossway("port", "create", "one", "--network", "public")
        plugged = machine.crossway("port", "plug", "one", "--netns", str(place.path), "--run", str(machine.run))
        assert plugged["status"] == "ACTIVE"
        assert pings(place, "172.24.4.1")
        # That one knows no route to 172.24.4.0/24: it answers the machine's own address.
        assert pings(place, "198.51.100.1")
        # What the server and the agent have made is for nobody else: their sockets are among it.
        made = [path for path in (*machine.run.rglob("*"), *(machine.run / "data").rglob("*")) if not path.is_symlink()]
        kept = [path for path in made if not path.is_relative_to(machine.run / "bpf") and path.name != "log"]
        assert {path.name for path in kept} >= {"cloud.db", "clouds.yaml", "server.sock", "agent.sock", "bodies"}
        open_to_others = {str(path): oct(mode) for path in kept if (mode := path.stat().st_mode & 0o077)}
        assert not open_to_others
        machine.exec(sys.executable, "-m", "crossway", "port", "unplug", "one", "--run", str(machine.run))
    finally:
        running.signal(signal.SIGINT)
        assert running.ended(10), (machine.run / "log").read_text()
    assert machine.traces() == before, (machine.run / "log").read_text()


def test_a_second_one_is_refused_and_harms_nothing(machine: Machine) -> None:
    running = machine.up()
    assert wait_for(machine.ready, 20)
    before = machine.traces()
    second = machine.up()
    assert second.ended(10)
    assert "runs here already" in (machine.run / "log").read_text()
    assert machine.traces() == before
    assert machine.ready()
    running.signal(signal.SIGTERM)
    assert running.ended(10)


def test_one_that_was_killed_is_taken_up_again(machine: Machine) -> None:
    before = machine.traces()
    running = machine.up()
    assert wait_for(machine.ready, 20)
    place = Place("w1", wire.add_namespace(machine.state, "w1"))
    machine.crossway("port", "create", "one", "--network", "public")
    machine.crossway("port", "plug", "one", "--netns", str(place.path), "--run", str(machine.run))
    running.signal(signal.SIGKILL)
    assert running.ended(5)
    assert pings(place, "198.51.100.1")
    running = machine.up()
    assert wait_for(machine.ready, 20)
    assert wait_for(lambda: pings(place, "198.51.100.1"))
    assert [n["name"] for n in machine.crossway("network", "list")] == ["public"]
    running.signal(signal.SIGTERM)
    assert running.ended(10)
    # A port was plugged: it stays until it is taken away.
    machine.exec(sys.executable, "-m", "crossway", "purge", "--run", str(machine.run))
    assert machine.traces() == before


@pytest.mark.parametrize("external", ["172.24.4.1", "172.24.4.0/24", "10.0.0.1/31", "fd00::1/64"])
def test_an_external_address_that_leads_nowhere_is_refused(machine: Machine, external: str) -> None:
    done = subprocess.run(
        machine.command(sys.executable, "-m", "crossway", "up", "--external", external),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert external in done.stderr
