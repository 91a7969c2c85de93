"""From the request for a port to its first packet.

A link stands ready on a host and something in it asks another host's workload
every half millisecond; then a port is posted that names the link. Taken is the
time from before the request until the first question arrives there, and until
its first answer is back.
"""

from __future__ import annotations

import select
import socket
import statistics
import threading
import time
from contextlib import closing
from dataclasses import dataclass

from rich.console import Console
from rich.progress import track

from crossway.client import Object
from crossway.lab.lab import Host, Lab, Workload
from crossway.lab.place import Place
from crossway.lab.traffic import open_in

CIDR = "10.79.0.0/20"
ECHO = 5300
EVERY = 0.0005
BATCH = 100
PATIENCE = 10.0
MEDIAN_TARGET, P99_TARGET = 20.0, 100.0  # milliseconds


@dataclass(frozen=True)
class Ready:
    """Milliseconds to the first packet out and to the first answer, at so many ports on the network."""

    ports: int
    samples: int
    out_median: float
    out_p99: float
    answer_median: float
    answer_p99: float
    met: bool


def _mac(number: int) -> str:
    return f"02:00:4f:00:{number >> 8:02x}:{number & 255:02x}"


def _ip(number: int) -> str:
    return f"10.79.{number >> 8}.{number & 255}"


def _p99(samples: list[float]) -> float:
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]


def _link(host: Host, place: Place, name: str, inner: str, number: int) -> None:
    """Make a veth pair from a host to a place, with the inner end's MAC; both up."""
    place.script([f"link add {inner} address {_mac(number)} mtu 1450 type veth peer name {name} netns {host.netns}"])
    place.script([f"link set {inner} up"])
    host.script([f"link set {name} up"])


def _crowd(lab: Lab, network: Object, group: Object, ports: int) -> None:
    """Fill the network with bound ports, each with a body, half on each host."""
    place = lab.namespace("crowd")
    for start in range(0, ports, BATCH):
        numbers = range(start + 16, min(start + BATCH, ports) + 16)
        for host in lab.hosts:
            mine = [n for n in numbers if lab.hosts[n % 2] is host]
            place.script(
                [f"link add c{n} address {_mac(n)} type veth peer name p{n} netns {host.netns}" for n in mine]
                + [f"link set c{n} up" for n in mine],
                ["net/ipv6/conf/default/disable_ipv6=1"],
            )
            host.script([f"link set p{n} up" for n in mine])
        lab.client.create_many(
            "port",
            [
                {
                    "network_id": network["id"],
                    "mac_address": _mac(n),
                    "fixed_ips": [{"ip_address": _ip(n)}],
                    "security_groups": [group["id"]],
                    "binding:host_id": lab.hosts[n % 2].name,
                    "binding:profile": {"device": f"p{n}"},
                }
                for n in numbers
            ],
        )
    last = lab.client.list("port", network_id=network["id"], mac_address=_mac(ports + 15))
    lab.client.wait("port", last[0]["id"], seconds=120)


def _first(lab: Lab, network: Object, group: Object, place: Place, to: Workload, number: int) -> tuple[float, float]:
    """Post one port whose link is there; return ms to its first packet at *to*, and to the first answer."""
    host, name, inner, ip = lab.hosts[0], f"n{number}", f"i{number}", _ip(number)
    _link(host, place, name, inner, number)
    # Neighbours are known on both sides: the kernel repeats a lost question
    # only after a second, which is not what is measured.
    place.script(
        [
            f"address add {ip}/20 dev {inner}",
            f"neigh replace {to.ip4} lladdr {to.mac} dev {inner} nud permanent",
        ]
    )
    to.script([f"neigh replace {ip} lladdr {_mac(number)} dev eth0 nud permanent"])
    wanted = {
        "network_id": network["id"],
        "mac_address": _mac(number),
        "fixed_ips": [{"ip_address": ip}],
        "security_groups": [group["id"]],
        "binding:host_id": host.name,
        "binding:profile": {"device": name},
    }
    made: list[Object] = []
    with (
        closing(open_in(place.path, socket.AF_INET, socket.SOCK_DGRAM)) as here,
        closing(open_in(to.path, socket.AF_INET, socket.SOCK_DGRAM)) as there,
    ):
        here.connect((to.ip4, ECHO))
        here.setblocking(False)
        there.bind((to.ip4, ECHO))
        there.setblocking(False)
        for _ in range(20):  # none may pass yet
            here.send(b"?")
            time.sleep(EVERY)
        if select.select([there], [], [], 0)[0]:
            raise RuntimeError(f"a packet of {ip} passed before its port was there")
        post = threading.Thread(target=lambda: made.append(lab.client.create("port", **wanted)))
        start = time.monotonic()
        post.start()
        out = 0.0
        while time.monotonic() < start + PATIENCE:
            here.send(b"?")
            ready = select.select([here, there], [], [], EVERY)[0]
            if there in ready:
                out = out or time.monotonic() - start
                there.sendto(*there.recvfrom(64))
            if here in ready:
                break
        else:
            raise RuntimeError(f"no answer to {ip} in {PATIENCE:g} s after its port was posted")
        answer = time.monotonic() - start
        post.join()
    lab.client.delete("port", made[0]["id"])
    to.script([f"neigh delete {ip} dev eth0"])
    place.script([f"link delete {inner}"])
    return out * 1000, answer * 1000


def measure(ports: int, samples: int, console: Console) -> Ready:
    """Fill a network of two hosts with ports, then measure new ones, one after another."""
    with Lab.up(hosts=2, uplinks=0) as lab:
        network = lab.client.create("network", name="bench")
        lab.client.create("subnet", network_id=network["id"], cidr=CIDR, ip_version=4, gateway_ip="10.79.15.254")
        group = lab.client.create("security_group", name="bench")
        lab.client.create(
            "security_group_rule",
            security_group_id=group["id"],
            direction="ingress",
            ethertype="IPv4",
            remote_group_id=group["id"],
        )
        _crowd(lab, network, group, ports)
        to = lab.workload(lab.hosts[1], network, groups=[group], fixed_ips=[{"ip_address": "10.79.0.2"}])
        place = lab.namespace("fresh")
        place.script([], ["net/ipv6/conf/default/disable_ipv6=1"])
        taken = [
            _first(lab, network, group, place, to, ports + 32 + n)
            for n in track(range(samples), f"new ports beside {ports:,}", console=console, transient=True)
        ]
    out, answer = ([sample[i] for sample in taken] for i in (0, 1))
    found = Ready(
        ports,
        samples,
        statistics.median(out),
        _p99(out),
        statistics.median(answer),
        _p99(answer),
        statistics.median(out) <= MEDIAN_TARGET and _p99(out) <= P99_TARGET,
    )
    console.print(
        f"POST to first packet, {ports:,} ports on the network: median {found.out_median:.1f} ms, "
        f"p99 {found.out_p99:.1f} ms; to the first answer {found.answer_median:.1f} ms, p99 {found.answer_p99:.1f} ms; "
        f"targets {MEDIAN_TARGET:g} and {P99_TARGET:g} ms "
        f"{'[green]met[/]' if found.met else '[red]missed[/]'}"
    )
    return found
