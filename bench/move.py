"""A guest moves live between hosts: over Crossway beside plain bridges joined by VXLAN.

    python -m bench.move [--repeats N]

Two guests of the same image; they move in turns, in one run, so that both have the
same machine. Each is asked for echoes 1,000 times a second from a third host. The
gap is the longest time without an answer; what of it is above QEMU's own downtime,
and above the time between its STOP and RESUME, tells what network and guest need to
find their feet. With the return path, which libvirt always takes, the downtime ends
when the guest runs on the other side. Writes bench/results/move.json and the section
of docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from bench.page import PAGE, put, table
from crossway.client import path_of
from crossway.errors import Conflict
from crossway.lab import Lab
from crossway.lab.guest import Machine, tap
from crossway.lab.lab import Host
from crossway.lab.place import Place

RESULTS = Path(__file__).parent / "results" / "move.json"
BEGIN, END = "<!-- from here on written by bench.move -->", "<!-- up to here, by bench.move -->"
TOP = Path(__file__).parents[1]
IMAGE = TOP / "build" / "guest"
VXLAN_PORT = 4790  # not Crossway's
TARGET_MS = 20.0  # above QEMU's downtime, at most, in each migration


class Way:
    """A guest on a network, its client, and how it moves."""

    name = ""

    def __init__(self, lab: Lab, mac: str, ip: str, client: Place) -> None:
        self.lab, self.mac, self.ip, self.client = lab, mac, ip, client
        self._turn = 0
        self._machines = ExitStack()
        self.guest = self._machine(lab.hosts[0])

    def _machine(self, host: Host, incoming: str | None = None) -> Machine:
        self._turn += 1
        name = tap(host, f"{self.name[:6]}{self._turn}")
        self.body(host, name)
        return self._machines.enter_context(Machine(host, IMAGE, self.lab.state.run, self.mac, name, incoming))

    def body(self, host: Host, device: str) -> None:
        """Put a tap on the network."""

    def before(self, host: Host) -> None:
        """Say where the guest is about to go."""

    def stopped(self, host: Host) -> None:
        """Say that it stands still."""

    def after(self, host: Host, old: Host) -> None:
        """Wait until it is there."""

    def boot(self) -> None:
        self.guest.awake()
        self.guest.run(f"ip link set eth0 up; ip address add {self.ip}/24 dev eth0", check=False)

    def move(self) -> dict[str, Any]:
        """Move the guest to the other host; return what was measured, in ms."""
        old, host = self.guest.host, self.lab.hosts[1 - self.lab.hosts.index(self.guest.host)]
        self.before(host)
        where = f"{host.underlay}:{4000 + self._turn + 100 * (len(self.name) % 7)}"
        there = self._machine(host, where)
        time.sleep(0.5)
        asks = self.client.popen(
            sys.executable, "-m", "crossway.lab.traffic", "echoes", self.ip, "0", "--rate", "1000", stderr=None
        )
        try:
            time.sleep(1.0)
            downtime = self.guest.migrate(where, lambda: self.stopped(host))
            self.after(host, old)
            time.sleep(2.0)  # on a busy machine it is late
        finally:
            asks.send_signal(signal.SIGTERM)
            said, _ = asks.communicate(timeout=30)
        bill = json.loads(said.strip().splitlines()[-1])
        resumed, stopped = there.happened("RESUME"), self.guest.happened("STOP")
        stood = (resumed - stopped) * 1000 if stopped else downtime
        self.guest.stop()
        old.exec("ip", "link", "delete", self.guest.tap)
        self.guest = there
        return {
            "gap": bill["gap_ms"], "downtime": downtime, "stood": stood,
            "lost": bill["asked"] - bill["answered"],
        }  # fmt: skip

    def close(self) -> None:
        self._machines.close()


class Bridge(Way):
    """Bridges of three hosts, joined by the kernel's VXLAN, which learns."""

    name = "bridge"

    def __init__(self, lab: Lab) -> None:
        for host in lab.hosts:
            peers = [other.underlay for other in lab.hosts if other is not host]
            host.script([
                "link add plain type bridge mcast_snooping 0 stp_state 0",
                f"link add plainvx type vxlan id 99 dstport {VXLAN_PORT} local {host.underlay}",
                "link set plainvx mtu 1450 master plain up",
                "link set plain up",
            ])  # fmt: skip
            for peer in peers:
                host.exec("bridge", "fdb", "append", "00:00:00:00:00:00", "dev", "plainvx", "dst", peer)
        client = lab.namespace("plain")
        lab.hosts[2].script([
            f"link add plainc mtu 1450 type veth peer name eth0 mtu 1450 netns {client.netns}",
            "link set plainc master plain up",
        ])  # fmt: skip
        client.script(["link set eth0 up", "address add 10.9.0.1/24 dev eth0"])
        super().__init__(lab, "52:54:00:00:09:05", "10.9.0.5", client)

    def body(self, host: Host, device: str) -> None:
        host.script([f"link set {device} mtu 1450 master plain up"])


class Ours(Way):
    """A port of Crossway."""

    activates = False

    def __init__(self, lab: Lab, network: dict[str, Any], group: dict[str, Any]) -> None:
        client = lab.workload(lab.hosts[2], network, groups=[group])
        port = lab.client.create("port", network_id=network["id"], security_groups=[group["id"]])
        self._port = port["id"]
        self._bindings = f"{path_of('port', self._port)}/bindings"
        super().__init__(lab, port["mac_address"], port["fixed_ips"][0]["ip_address"], client)

    def body(self, host: Host, device: str) -> None:
        host.agent_client.plug(self._port, tap=device)

    def before(self, host: Host) -> None:
        self.lab.client.ask("POST", self._bindings, {"binding": {"host": host.name}})

    def after(self, host: Host, old: Host) -> None:
        time.sleep(0.5)  # to ask all the time would keep the guest from its processor
        end = time.monotonic() + 10.0
        while self.lab.client.show("port", self._port)["binding:host_id"] != host.name:
            if time.monotonic() > end:
                raise RuntimeError(f"the port did not come to {host.name}")
            time.sleep(0.01)
        self.lab.client.wait("port", self._port)
        self.lab.client.ask("DELETE", f"{self._bindings}/{old.name}")


class Fetched(Ours):
    """Nobody says that the guest moves; it is fetched by its RARP."""

    name = "fetched"


class Activated(Ours):
    """Its binding is activated when QEMU says that it has stopped."""

    name = "activated"

    def stopped(self, host: Host) -> None:
        with suppress(Conflict):  # QEMU told of it so late that the guest has said itself where it is
            self.lab.client.ask("PUT", f"{self._bindings}/{host.name}/activate")


def spread(samples: Sequence[float]) -> dict[str, float]:
    """Return median, the middle half, and the most."""
    low, median, high = statistics.quantiles(samples, n=4)
    told = {"median": median, "low": low, "high": high, "most": max(samples)}
    return {name: round(value, 1) for name, value in told.items()}


def measure(lab: Lab, repeats: int) -> dict[str, list[dict[str, Any]]]:
    """Move each guest so often, in turns."""
    network = lab.client.create("network", name="guests")
    lab.client.create("subnet", network_id=network["id"], ip_version=4, cidr="10.1.0.0/24")
    group = lab.client.create("security_group", name="open")
    lab.client.create("security_group_rule", security_group_id=group["id"], direction="ingress", ethertype="IPv4")
    ways: list[Way] = [Bridge(lab), Fetched(lab, network, group), Activated(lab, network, group)]
    try:
        for way in ways:
            way.boot()
        found: dict[str, list[dict[str, Any]]] = {way.name: [] for way in ways}
        for _ in range(repeats):
            for way in random.sample(ways, len(ways)):
                told = way.move()
                print(f"{way.name:10}" + "".join(f"{key} {value:7.1f}  " for key, value in told.items()), flush=True)
                found[way.name].append(told)
        return found
    finally:
        for way in ways:
            way.close()


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(prog="python -m bench.move", description=__doc__)
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args(arguments)
    subprocess.run([TOP / "scripts" / "guest"], check=True)
    with Lab.up(hosts=3) as lab:
        found = measure(lab, options.repeats)
    write(found)


WAYS = {
    "bridge": "plain bridges, VXLAN",
    "fetched": "Crossway, by the guest's RARP",
    "activated": "Crossway, activated when it stops",
}
CASES: dict[str, tuple[str, Callable[[dict[str, Any]], float]]] = {
    "gap": ("ms", lambda run: run["gap"]),
    "above QEMU's downtime": ("ms", lambda run: run["gap"] - run["downtime"]),
    "above standing still": ("ms", lambda run: run["gap"] - run["stood"]),
    "echoes lost": ("echoes", lambda run: run["lost"]),
}


def rows(found: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return each case of each of our ways beside plain bridges."""
    told = []
    for case, (unit, value) in CASES.items():
        judged = case == "above QEMU's downtime"
        theirs = spread([value(run) for run in found["bridge"]])
        for way in ("fetched", "activated"):
            ours = spread([value(run) for run in found[way]])
            told.append({
                "case": f"{case}, {WAYS[way]}", "unit": unit, "ours": ours, "peer": WAYS["bridge"], "theirs": theirs,
                "ratio": round(ours["median"] / theirs["median"], 2) if theirs["median"] else None,
                "target": f"<= {TARGET_MS:g} ms in each migration" if judged else "",
                "met": ours["most"] <= TARGET_MS if judged else None,
            })  # fmt: skip
    return told


def write(found: dict[str, list[dict[str, Any]]]) -> None:
    """Keep the results, and put them into the page."""
    RESULTS.write_text(json.dumps(rows(found), indent=1) + "\n")
    lines = []
    for name, runs in found.items():
        spreads = [spread([value(run) for run in runs]) for _, value in CASES.values()]
        lines.append([WAYS[name], str(len(runs)), *(
            f"{one['median']:.0f} ({one['low']:.0f}–{one['high']:.0f}; {one['most']:.0f})" for one in spreads
        )])  # fmt: skip
        print(*lines[-1], sep="  ")
    heads = ("network", "migrations", *(f"{case}, ms" if unit == "ms" else case for case, (unit, _) in CASES.items()))
    put(PAGE, BEGIN, END, "\n".join(table(heads, lines)))


if __name__ == "__main__":
    main()
