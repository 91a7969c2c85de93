"""Published ports: Crossway beside what Docker's own `-p` sets up, without its proxy in user space.

    python -m bench.published [--repeats N] [--seconds S]

A client on a cable calls a port that a host has published: of a port of
Crossway, of a container on Docker's bridge (translated by iptables as dockerd
writes it), or of a process in the host's own namespace, which is the floor.
In turns; writes bench/results/published.json and the section of docs/performance.md.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from statistics import median, quantiles

from rich.console import Console

from bench.judge import FILLING, SMALLER_IS_BETTER, TITLES, UNITS
from bench.page import PAGE, number, put, table
from bench.peers import UNDERLAY, docker_host, underlay
from bench.record import keep, machine
from bench.spaces import PORT, PORTS, Spaces, cable, wait_for
from crossway.lab import Lab
from crossway.lab.place import Place

BEGIN, END = "<!-- from here on written by bench.published -->", "<!-- up to here, by bench.published -->"
CASES = ("tcp_rr", "udp_rr", "stream", "packets", "connect")
OURS = "Crossway"


def host_itself(spaces: Spaces) -> tuple[Place, Place, str]:
    """The server in the host's own namespace: no container at all."""
    client, host = underlay(spaces, "own")
    return client, host, UNDERLAY[1]


def docker(spaces: Spaces) -> tuple[Place, Place, str]:
    """A container on a bridge behind what dockerd writes for `-p`."""
    client, host = underlay(spaces, "bridged")
    server = spaces.add("bridged-s")
    docker_host(host, "10.78.2", {"10.78.2.2": server}, published="10.78.2.2")
    return client, server, UNDERLAY[1]


def crossway(spaces: Spaces, lab: Lab) -> tuple[Place, Place, str]:
    """A port of Crossway in the default group, which lets nobody in, published by its host."""
    host = lab.hosts[0]
    client = spaces.add("ours-c")
    cable(client, "under0", host, "direct0")
    client.script([f"address add {UNDERLAY[0]}/24 dev under0"])
    host.script([f"address add {UNDERLAY[1]}/24 dev direct0"])
    network = lab.client.create("network", name="published")
    lab.client.create("subnet", network_id=network["id"], cidr="10.79.0.0/24", ip_version=4)
    server = lab.workload(host, network)
    numbers = range(PORT, PORT + PORTS)
    host.agent_client.publish(
        server.id, *({"proto": proto, "port": n, "at": n} for proto in ("tcp", "udp") for n in numbers)
    )
    return client, server, UNDERLAY[1]


def measure(repeats: int, seconds: float, seed: int) -> dict[tuple[str, str], list[float]]:
    """Return the samples of each setup and case."""
    samples: dict[tuple[str, str], list[float]] = {}
    with Lab.up(hosts=1, uplinks=0) as lab, Spaces() as spaces:
        paths = {
            OURS: crossway(spaces, lab),
            "Docker -p": docker(spaces),
            "the host itself": host_itself(spaces),
        }
        for client, server, ip in paths.values():
            spaces.serve(server)
            wait_for(spaces, client, ip)
        order = random.Random(seed)
        jobs = [(setup, case) for setup in paths for case in CASES]
        for _ in range(repeats):
            for setup, case in order.sample(jobs, len(jobs)):
                client, _server, ip = paths[setup]
                taken = spaces.measure(client, case, ip, seconds, calm=case in FILLING)
                samples.setdefault((setup, case), []).append(taken)
    return samples


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(prog="python -m bench.published", description=__doc__)
    parser.add_argument("--repeats", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=0.3, help="of one measurement")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    samples = measure(options.repeats, options.seconds, options.seed)
    console, about = Console(width=150), machine()
    found, lines = [], []
    for case in CASES:
        ours = samples[OURS, case]
        for peer in ("Docker -p", "the host itself"):
            theirs = samples[peer, case]
            ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
            low, _, high = quantiles(ratios, n=4)
            target = peer == "Docker -p"
            met = (median(ratios) <= 1 if case in SMALLER_IS_BETTER else median(ratios) >= 1) if target else None
            one = {"case": case, "unit": UNITS[case], "peer": peer, "ours": median(ours), "theirs": median(theirs),
                   "ratio": median(ratios), "quartiles": [low, high], "met": met}  # fmt: skip
            found.append(one)
            lines.append(
                (
                    TITLES[case],
                    f"{number(median(ours))} {UNITS[case]}",
                    peer,
                    f"{number(median(theirs))} {UNITS[case]}",
                    f"{median(ratios):.2f} ({low:.2f}–{high:.2f})",
                )
            )
            console.print(*lines[-1], sep="  ", highlight=False)
    keep(
        "published", {"machine": about, "repeats": options.repeats, "seconds": options.seconds, "rows": found}, console
    )
    head = (
        f"Commit {about['commit']}, {about['date'][:10]}: {options.repeats} repeats of {options.seconds:g} s on "
        f"{about['cores']} cores, Linux {about['kernel']}; medians, and the quartiles of the ratios ours / theirs.\n\n"
    )
    put(PAGE, BEGIN, END, head + "\n".join(table(("case", "ours", "beside", "theirs", "ratio"), lines)))


if __name__ == "__main__":
    main()
