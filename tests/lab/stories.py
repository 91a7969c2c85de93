"""What stories share: networks to make, and numbered traffic with its bill."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from crossway.lab import Lab, Workload
from crossway.lab.place import Place

Object = dict[str, Any]


def dual(lab: Lab, name: str, prefix: int = 0, **attrs: Any) -> Object:
    """Make a network with 10.PREFIX.0.0/24 and fd00:PREFIX::/64."""
    network = lab.client.create("network", name=name, **attrs)
    for version, cidr in ((4, f"10.{prefix}.0.0/24"), (6, f"fd00:{prefix:x}::/64")):
        lab.client.create("subnet", network_id=network["id"], ip_version=version, cidr=cidr, name=f"{name}-{version}")
    return network


def open_group(lab: Lab, name: str = "open", **attrs: Any) -> Object:
    """Make a group that admits everything."""
    group = lab.client.create("security_group", name=name, **attrs)
    for ethertype in ("IPv4", "IPv6"):
        lab.client.create(
            "security_group_rule", security_group_id=group["id"], direction="ingress", ethertype=ethertype
        )
    return group


def guarded(lab: Lab, name: str) -> tuple[Object, Object, str, Workload]:
    """Make a port that admits new connections from one client alone, which is behind a router on the last host.

    Return its network, the port, its IPv4 address and the client.
    """
    near, far = dual(lab, "near"), dual(lab, "far", prefix=1)
    router = lab.client.create("router", name="r")
    for subnet in lab.client.list("subnets"):
        lab.client.add_interface(router["id"], subnet=subnet["id"])
    client = lab.workload(lab.hosts[-1], far, groups=[open_group(lab)])
    picky = lab.client.create("security_group", name="picky")
    rule = {"security_group_id": picky["id"], "direction": "ingress", "ethertype": "IPv4"}
    lab.client.create("security_group_rule", **rule, remote_ip_prefix=f"{client.ip4}/32")
    port = lab.client.create("port", name=name, network_id=near["id"], security_groups=[picky["id"]])
    return near, port, next(a["ip_address"] for a in port["fixed_ips"] if "." in a["ip_address"]), client


def wait_for(what: Callable[[], Any], seconds: float = 10.0, every: float = 0.02) -> Any:
    """Return the first true answer of *what*, or its last one when the time is over."""
    end = time.monotonic() + seconds
    while not (answer := what()) and time.monotonic() < end:
        time.sleep(every)
    return answer


def pings(place: Place, ip: str, *options: str) -> bool:
    """Return whether a ping is answered."""
    return place.exec("ping", "-c1", "-W2", *options, ip, check=False).returncode == 0


class Traffic:
    """One end of some numbered traffic, in a workload; see crossway.lab.traffic."""

    def __init__(self, place: Place, role: str, ip: str, port: int, **options: Any) -> None:
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        self.process = place.popen(
            sys.executable, "-m", "crossway.lab.traffic", role, ip, str(port), *words, stderr=None
        )
        self.result: dict[str, Any] = {}
        if role != "send":
            assert self.process.stdout is not None
            assert self.process.stdout.readline().strip() == "ready"

    def end(self) -> dict[str, Any]:
        """End it and return its bill."""
        if not self.result:
            self.process.send_signal(signal.SIGTERM)
            said, _ = self.process.communicate(timeout=30)
            self.result = json.loads(said.strip().splitlines()[-1])
        return self.result

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


@contextlib.contextmanager
def stream(src: Workload, dst: Workload, ip: str, port: int = 7000, rate: int = 10_000) -> Iterator[dict[str, Any]]:
    """Send numbered datagrams while the block runs; the dict that is given holds the bill afterwards."""
    bill: dict[str, Any] = {}
    into = Traffic(dst, "receive", ip, port)
    try:
        out = Traffic(src, "send", ip, port, rate=rate)
        try:
            time.sleep(0.5)
            yield bill
            bill.update(out.end())
        finally:
            out.kill()
        time.sleep(0.5)
        bill.update(into.end())
        bill["lost"] = bill["sent"] - bill["received"]
    finally:
        into.kill()


@contextlib.contextmanager
def connections(
    src: Workload, dst: Workload, ip: str, port: int = 7100, count: int = 100, fresh: float = 0.1
) -> Iterator[dict[str, Any]]:
    """Keep TCP connections busy while the block runs, and open new ones; the dict holds the bill afterwards."""
    bill: dict[str, Any] = {}
    server = Traffic(dst, "echo", ip, port)
    try:
        client = Traffic(src, "connect", ip, port, count=count, fresh=fresh)
        try:
            yield bill
            bill.update(client.end())
        finally:
            client.kill()
    finally:
        server.kill()


def links(place: Place) -> set[str]:
    """Return the names of a namespace's links."""
    said = json.loads(subprocess.run(place.command("ip", "-j", "link"), capture_output=True, check=True).stdout)
    return {link["ifname"] for link in said}


@contextlib.contextmanager
def pod_hosts() -> Iterator[Lab]:
    """Have two hosts, and a network `pods` whose ports all may reach."""
    with Lab.up(hosts=2) as lab:
        open_group(lab)
        dual(lab, "pods", 1)
        yield lab
