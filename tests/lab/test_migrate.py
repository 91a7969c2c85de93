"""A guest moves live from host to host, and its port and its connections with it."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from crossway.client import path_of
from crossway.errors import Conflict
from crossway.lab import Lab, Workload
from crossway.lab.guest import Machine, tap
from lab.stories import Traffic, guarded, wait_for

MIGRATIONS = int(os.environ.get("MIGRATIONS", "2"))  # each way of telling
CONNECTIONS = int(os.environ.get("CONNECTIONS", "20"))
AT_ONCE = 20
TOP = Path(__file__).parents[2]
IMAGE = TOP / "build" / "guest"


class Scene(NamedTuple):
    lab: Lab
    port: dict[str, Any]
    ip: str
    client: Workload


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    subprocess.run([TOP / "scripts" / "guest"], check=True)
    with Lab.up(hosts=3) as lab:
        _, port, ip, client = guarded(lab, "guest")
        yield Scene(lab, port, ip, client)


def migrate(
    scene: Scene, guest: Machine, to: int, turn: int, machines: ExitStack, *, told: bool
) -> tuple[Machine, float, float]:
    """Bring the guest to another host as a compute service does.

    Return it there, QEMU's downtime in ms, and for how long the guest stood still by QEMU's events.
    """
    lab, id = scene.lab, scene.port["id"]
    host, at = lab.hosts[to], guest.host
    bindings = f"{path_of('port', id)}/bindings"
    lab.client.ask("POST", bindings, {"binding": {"host": host.name}})
    name = tap(host, f"tap{turn}-{told:d}")
    host.agent_client.plug(id, tap=name)
    where = f"{host.underlay}:{4000 + 2 * turn + told}"
    there = machines.enter_context(Machine(host, IMAGE, lab.state.run, guest.mac, name, incoming=where))

    def activate() -> None:
        with suppress(Conflict):  # QEMU told of it so late that the guest has said itself where it is
            lab.client.ask("PUT", f"{bindings}/{host.name}/activate")

    downtime = guest.migrate(where, activate if told else None)
    # If nobody has said so, the guest says that it is there.
    assert wait_for(lambda: lab.client.show("port", id)["binding:host_id"] == host.name, seconds=5)
    lab.client.wait("port", id)
    assert wait_for(lambda: there.happened("RESUME"), 30)
    # QEMU does not always tell that the guest has stopped: its downtime is the least that it was.
    stopped = guest.happened("STOP")
    stood = (there.happened("RESUME") - stopped) * 1000 if stopped else downtime
    guest.stop()
    at.exec("ip", "link", "delete", guest.tap)
    lab.client.ask("DELETE", f"{bindings}/{at.name}")
    return there, downtime, stood


@pytest.mark.parametrize("told", [True, False], ids=["activated when it stops", "fetched when it speaks"])
def test_connections_and_answers_survive_live_migrations(scene: Scene, told: bool) -> None:
    lab, host = scene.lab, scene.lab.hosts[0]
    name = tap(host, f"tap0-{told:d}")
    host.agent_client.plug(scene.port["id"], tap=name)
    with ExitStack() as machines:
        guest = machines.enter_context(Machine(host, IMAGE, lab.state.run, scene.port["mac_address"], name)).booted()
        guest.run("nc -ll -p 7100 -e cat >/dev/null 2>&1 &")
        with ExitStack() as ends:
            # One after the other: the guest's nc lets no more than some wait at once.
            tcp = []
            for at in range(0, CONNECTIONS, AT_ONCE):
                count = min(AT_ONCE, CONNECTIONS - at)
                tcp.append(Traffic(scene.client, "connect", scene.ip, 7100, count=count, every=CONNECTIONS / 100))
                ends.callback(tcp[-1].kill)
                wait_for(lambda all=at + count: int(guest.run("ps | grep -c ' [c]at'", check=False)) >= all, 20, 0.2)
            bills = []
            for turn in range(1, MIGRATIONS + 1):
                echo = Traffic(scene.client, "echoes", scene.ip, 0, rate=1000)
                ends.callback(echo.kill)
                time.sleep(0.5)
                guest, downtime, stood = migrate(scene, guest, turn % 2, turn, machines, told=told)
                time.sleep(0.5)
                bills.append({**echo.end(), "downtime_ms": downtime, "stood_ms": stood})
            kept = [one.end() for one in tcp]
        guest.run("true")
        guest.stop()
        guest.host.agent_client.unplug(scene.port["id"])
    print(json.dumps({"tcp": kept, "migrations": bills}))
    assert sum(one["failures"] for one in kept) == 0, kept
    assert sum(one["alive"] for one in kept) == CONNECTIONS, kept
    # How much more than the standing still is told, not asserted: both share the cores with the guest's emulation.
    for than in ("stood", "downtime"):
        print(f"above {than}:", sorted(round(bill["gap_ms"] - bill[f"{than}_ms"]) for bill in bills), "ms")
    assert all(bill["gap_ms"] - bill["stood_ms"] < 1000 for bill in bills), bills
