"""Starting a pod or a container: Crossway beside Debian's `bridge` plugin and beside Docker's own networks.

    python -m bench.attach [--repeats N] [--burst N] [--runs N]

Both in one run, in turns. A namespace is made, ADD is timed from the start of
the executable until a ping of a pod that is there already is answered; then
many at once, in threads, each of which must be answered, and nothing may stay.
Then `docker run` on networks of one engine. Writes bench/results/attach.json
and the section of docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import crossway.plugins
from bench.page import PAGE, put, table
from crossway.lab import Lab, wire
from crossway.lab.docker import engine
from crossway.lab.place import Place

RESULTS = Path(__file__).parent / "results" / "attach.json"
BEGIN, END = "<!-- from here on written by bench.attach -->", "<!-- up to here, by bench.attach -->"
TARGET_MS = 60.0
DOCKER_MS = 30.0  # more than on Docker's own network, at most
THREADS = 8


@dataclass(frozen=True)
class Plugin:
    """A CNI plugin and its configuration, run on a host; *peer* answers its pods' pings."""

    name: str
    command: Path
    conf: dict[str, Any]
    host: Place
    peer: str

    def call(self, command: str, pod: Place) -> Any:
        said = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": pod.name,
            "CNI_NETNS": str(pod.path),
            "CNI_IFNAME": "eth0",
            "CNI_PATH": "/usr/lib/cni",
            "PATH": os.environ["PATH"],
        }
        done = subprocess.run(
            self.host.command(str(self.command)),
            input=json.dumps(self.conf), env=said, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{self.name} {command}: {done.stdout}{done.stderr}")
        return json.loads(done.stdout) if done.stdout else None

    def add(self, pod: Place) -> tuple[float, float]:
        """Return the milliseconds of ADD alone, and of ADD until a ping is answered."""
        start = time.perf_counter()
        self.call("ADD", pod)
        added = time.perf_counter()
        pod.exec("ping", "-c1", "-W2", self.peer)
        return 1e3 * (added - start), 1e3 * (time.perf_counter() - start)


def spread(samples: Sequence[float]) -> dict[str, float]:
    """Return median and the middle half."""
    low, median, high = statistics.quantiles(samples, n=4)
    return {"median": round(median, 2), "low": round(low, 2), "high": round(high, 2)}


def row(case: str, unit: str, ours: Sequence[float], theirs: Sequence[float], peer: str, target: str) -> dict[str, Any]:
    """Return one row; *target* says what is judged: "less", "more", "added" or nothing."""
    mine, other = spread(ours), spread(theirs)
    ratio = mine["median"] / other["median"]
    met, told = {
        "less": (ratio <= 1 and mine["median"] <= TARGET_MS, f"<= {TARGET_MS:g} ms and <= 1.00 of the peer"),
        "more": (ratio >= 1, ">= 1.00 of the peer"),
        "added": (mine["median"] - other["median"] <= DOCKER_MS, f"<= {DOCKER_MS:g} ms more than the peer"),
        "": (None, ""),
    }[target]
    return {
        "case": case, "unit": unit, "ours": mine, "peer": peer, "theirs": other,
        "ratio": round(ratio, 3), "target": told, "met": met,
    }  # fmt: skip


def burst(plugin: Plugin, pods: Sequence[Place]) -> float:
    """Return pods a second when all are asked for at once."""
    start = time.perf_counter()
    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(lambda pod: plugin.call("ADD", pod), pods))
    rate = len(pods) / (time.perf_counter() - start)
    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(lambda pod: pod.exec("ping", "-c1", "-W2", plugin.peer), pods))
        list(threads.map(lambda pod: plugin.call("DEL", pod), pods))
    return rate


def measure(lab: Lab, plugins: Sequence[Plugin], repeats: int, many: int, bursts: int) -> list[dict[str, Any]]:
    """Measure both in turns, in random order."""
    alone: dict[str, list[float]] = {p.name: [] for p in plugins}
    sent: dict[str, list[float]] = {p.name: [] for p in plugins}
    for number in range(repeats):
        for plugin in random.sample(plugins, len(plugins)):
            pod = lab.namespace(f"p{number}{plugin.name[0]}")
            added, could = plugin.add(pod)
            alone[plugin.name].append(added)
            sent[plugin.name].append(could)
            plugin.call("DEL", pod)
            wire.remove_namespace(pod.netns)
    ours, theirs = (p.name for p in plugins)
    peer = "bridge + host-local"
    found = [
        row("CNI ADD", "ms", alone[ours], alone[theirs], peer, ""),
        row("CNI ADD to an answered ping", "ms", sent[ours], sent[theirs], peer, "less"),
    ]
    if many:
        rates: dict[str, list[float]] = {p.name: [] for p in plugins}
        pods = [lab.namespace(f"b{n}") for n in range(many)]
        for _ in range(bursts):
            for plugin in random.sample(plugins, len(plugins)):
                # Bridges remember pods that are gone: with a third burst all namespaces' neighbours, 1,024, are taken.
                lab.hosts[0].exec("ip", "neighbour", "flush", "all")
                rates[plugin.name].append(burst(plugin, pods))
        found.append(row(f"{many} pods at once", "pods/s", rates[ours], rates[theirs], peer, "more"))
        if left := lab.client.list("port", device_owner="container:cni"):
            raise RuntimeError(f"{len(left)} ports are left")
    return found


def runs(lab: Lab, repeats: int) -> list[dict[str, Any]]:
    """Measure `docker run` on ours, on a network of Docker's bridge driver, and on Docker's default one."""
    taken: dict[str, list[float]] = {"crossway": [], "own": [], "bridge": []}
    with engine(lab.hosts[0], bridge=True) as docker:
        docker.docker("network", "create", "-d", "bridge", "own")
        docker.docker(
            "network", "create", "-d", "crossway", "--ipam-driver", "null", "-o", "network=pods", "crossway"
        )  # fmt: skip
        for number in range(repeats):
            for network in random.sample(list(taken), len(taken)):
                start = time.perf_counter()
                docker.run(network, f"{network}{number}")
                taken[network].append(1e3 * (time.perf_counter() - start))
                docker.docker("rm", "-f", f"{network}{number}")
    return [
        row("docker run", "ms", taken["crossway"], taken["own"], "a network of Docker's bridge driver", "added"),
        row("docker run", "ms", taken["crossway"], taken["bridge"], "Docker's default network", ""),
    ]


def write(found: Sequence[dict[str, Any]]) -> None:
    """Keep the results, and put them into the page."""
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    lines = [
        (
            one["case"],
            *(f"{one[who]['median']:.1f} ({one[who]['low']:.1f}–{one[who]['high']:.1f})" for who in ("ours", "theirs")),
            one["unit"],
            one["peer"],
            f"{one['ratio']:.2f}",
            one["target"].replace("<=", "≤").replace(">=", "≥"),
            {True: "yes", False: "no", None: ""}[one["met"]],
        )
        for one in found
    ]
    heads = ("case", "ours", "theirs", "", "beside", "ratio", "target", "met")
    put(PAGE, BEGIN, END, "\n".join(table(heads, lines)))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(prog="python -m bench.attach", description=__doc__)
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--burst", type=int, default=200, help="pods at once; 0: none")
    parser.add_argument("--bursts", type=int, default=2, help="more would fill the table of neighbours")
    parser.add_argument("--runs", type=int, default=15, help="containers started by Docker on each network; 0: none")
    options = parser.parse_args(arguments)
    with Lab.up(hosts=1) as lab, tempfile.TemporaryDirectory(prefix="crossway-bench-") as kept:
        host = lab.hosts[0]
        network = lab.client.create("network", name="pods")
        lab.client.create("subnet", network_id=network["id"], ip_version=4, cidr="10.1.0.0/16")
        group = lab.client.create("security_group", name="open")
        lab.client.create("security_group_rule", security_group_id=group["id"], direction="ingress", ethertype="IPv4")
        peer = lab.workload(host, network, groups=[group])
        common = {"cniVersion": "1.0.0", "name": "pods"}
        ranges = [[{"subnet": "10.2.0.0/16"}]]
        plugins = [
            Plugin(
                "crossway",
                Path(crossway.plugins.__file__).with_name("crossway-cni"),
                {**common, "type": "crossway-cni", "network": "pods", "groups": "open", "agent": host.socket},
                host,
                peer.ip4,
            ),
            Plugin(
                "bridge",
                Path("/usr/lib/cni/bridge"),
                {
                    **common, "type": "bridge", "bridge": "br0", "isGateway": True,
                    "ipam": {"type": "host-local", "ranges": ranges, "dataDir": kept, "routes": [{"dst": "0.0.0.0/0"}]},
                },
                host,
                "10.2.0.1",
            ),
        ]  # fmt: skip
        found = measure(lab, plugins, options.repeats, options.burst, options.bursts)
        if options.runs:
            found += runs(lab, options.runs)
    for one in found:
        met = {True: "met", False: "missed", None: ""}[one["met"]]
        print(f"{one['case']:28}{one['ours']['median']:9}{one['theirs']['median']:9} {one['unit']:7}"
              f" ratio {one['ratio']:.2f} {met:7} beside {one['peer']}")  # fmt: skip
    write(found)


if __name__ == "__main__":
    main()
