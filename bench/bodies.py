"""Try every attribute of every resource with the largest body that is taken, and say how long others wait meanwhile.

The server is a process of its own whose event loop is watched from within: a stall is how much later than asked
a timer of one millisecond fires; of it counts what the process itself has worked, as others of the machine may have
had the processor meanwhile. Prints the worst cases and writes `bench/results/bodies.json`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import select
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from http.client import HTTPConnection
from typing import Any

import uvloop
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from bench.record import keep, machine
from crossway.api.body import BULK_MAX, BULK_VALUES_MAX, VALUES_MAX
from crossway.api.resources import path_of
from crossway.api.server import serve
from crossway.control.collection import Collection
from crossway.control.collections import COLLECTIONS
from crossway.model.check import schema_of
from crossway.model.port import PORT
from crossway.model.resource import REQUIRED

STALL_MS = 50
TICK_SECONDS = 0.001
HEAD_BYTES = 60 << 10
Sent = tuple[str, str, str, bytes]  # what it is called, method, path, body


@dataclass(frozen=True)
class Row:
    """One request: its bytes, its answer, and the longest that the loop was kept from others by it.

    *late_ms* is how late the loop was in all, also where the machine did something else.
    """

    case: str
    bytes: int
    status: int
    answer_ms: float
    stall_ms: float
    late_ms: float
    met: bool


def watch() -> None:
    """Serve, and answer each line of stdin with the longest stall since the last."""

    async def main() -> None:
        longest = worked = 0.0

        async def tick() -> None:
            nonlocal longest, worked
            while True:
                began, used = time.perf_counter(), time.process_time()
                await asyncio.sleep(TICK_SECONDS)
                late = time.perf_counter() - began - TICK_SECONDS
                longest, worked = max(longest, late), max(worked, min(late, time.process_time() - used))

        def told() -> None:
            nonlocal longest, worked
            if not os.read(0, 1):
                server.stop()
                return
            print(json.dumps([worked * 1000, longest * 1000]), flush=True)
            longest = worked = 0.0

        with tempfile.TemporaryDirectory(prefix="crossway-bench-") as folder:
            async with serve(["127.0.0.1:0"], f"sqlite:{folder}/db") as server:
                print(server.addresses[0], flush=True)
                asyncio.get_running_loop().add_reader(0, told)
                ticking = asyncio.create_task(tick())
                await server.wait()
                ticking.cancel()

    sys.setswitchinterval(0.0005)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


class Watched:
    """A server in a process of its own, whose stalls are known."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "bench.bodies", "--watch"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        host, _, port = self._line().rpartition(":")
        self.connection = HTTPConnection(host, int(port), timeout=300)

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
        try:
            self.connection.request(method, path, body or None, {"Content-Type": "application/json", **headers})
            answer = self.connection.getresponse()
            return answer.status, answer.read()
        except OSError:
            self.connection.close()
            return 0, b""

    def make(self, kind: str, plural: str, **body: Any) -> dict[str, Any]:
        status, told = self.ask("POST", f"/v2.0/{plural}", json.dumps({kind: body}).encode())
        if status != 201:
            raise RuntimeError(f"{kind}: {status} {told[:300]!r}")
        made: dict[str, Any] = json.loads(told)[kind]
        return made

    def stall(self) -> tuple[float, float]:
        """Return the longest stall in ms since this was asked before, and how late the loop was at most."""
        assert self.process.stdin is not None
        self.process.stdin.write(b".")
        self.process.stdin.flush()
        worked, late = json.loads(self._line())
        return float(worked), float(late)

    def close(self) -> None:
        self.connection.close()
        with suppress(subprocess.TimeoutExpired):
            self.process.communicate(timeout=20)
        self.process.kill()
        self.process.wait()

    def _line(self) -> str:
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], 60)[0]:
            raise RuntimeError("the server does not answer")
        return self.process.stdout.readline().decode().strip()


def largest(schema: dict[str, Any], number: int = 0) -> Any:
    """Return the largest value that a schema takes; those of other numbers differ from it."""
    if "anyOf" in schema:
        return max((largest(one, number) for one in schema["anyOf"]), key=lambda value: len(json.dumps(value)))
    if "enum" in schema:
        return schema["enum"][0]
    if "const" in schema:
        return schema["const"]
    kind = schema.get("type")
    if kind == "array":
        return [largest(schema["items"], n) for n in range(schema["maxItems"])]
    if kind == "object" and "properties" in schema:
        return {name: largest(inner, number) for name, inner in schema["properties"].items()}
    if kind == "integer":
        return min(schema.get("maximum", 9), schema.get("minimum", 0) + number)
    if kind == "boolean":
        return True
    if kind == "string":
        if schema.get("format") == "uuid":
            return str(uuid.UUID(int=number + (1 << 100)))
        if schema.get("format") == "ipv4":
            return f"10.{number >> 8 & 255}.{number & 255}.1"
        if schema.get("format") == "ipv6" or "fd00::1" in schema.get("examples", ()):
            return f"fd00:ffff:ffff:ffff:ffff:ffff:{number:x}:ffff"
        if "examples" in schema:
            return f"10.{number >> 8 & 255}.{number & 255}.0/24"
        if "pattern" in schema and "A-Fa-f" in schema["pattern"]:
            return f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}"
        if schema.get("format") == "hostname":
            return f"{'a' * 60}.{'b' * 60}.c{number}"
        if "pattern" in schema:
            return f"compute:{number}"
        return f"{number}-".ljust(schema.get("maxLength", 255), "x")
    if kind == "null":
        return None
    # Anything: as many values as a body may have.
    return {"a": [{}] * (VALUES_MAX - 100)}


class Cases:
    """The requests, against objects that are made for them."""

    def __init__(self, server: Watched) -> None:
        self.server = server
        network = server.make("network", "networks", name="n")
        self.network: str = network["id"]
        body = {"network_id": self.network, "ip_version": 4, "cidr": "10.0.0.0/8"}
        self.subnet: str = server.make("subnet", "subnets", **body)["id"]
        # Of its own, so that what is tried of the others does not matter to many ports.
        self.wide: str = server.make("network", "networks", name="wide")["id"]
        server.make("subnet", "subnets", network_id=self.wide, ip_version=4, cidr="10.0.0.0/8")
        self.port: str = server.make("port", "ports", network_id=self.network)["id"]
        self.group: str = server.make("security_group", "security-groups", name="g")["id"]
        self.router: str = server.make("router", "routers", name="r")["id"]
        self.addresses: str = server.make("address_group", "address-groups", name="a")["id"]
        self.pool: str = server.make("subnetpool", "subnetpools", name="p", prefixes=["172.16.0.0/12"])["id"]
        self.trunk: str = server.make("trunk", "trunks", port_id=self.port)["id"]
        server.ask("PUT", "/v1/hosts/h", json.dumps({"underlay": "192.0.2.1", "physnets": {}}).encode())
        self.known = {
            "network": self.network,
            "subnet": self.subnet,
            "port": self.port,
            "security_group": self.group,
            "router": self.router,
            "address_group": self.addresses,
            "subnetpool": self.pool,
            "trunk": self.trunk,
        }
        self.fixed = {
            "network_id": self.network,
            "port_id": self.port,
            "security_group_id": self.group,
            "router_id": self.router,
            "subnet_id": self.subnet,
            "ip_version": 4,
            "cidr": "10.1.0.0/16",
            "prefixes": ["172.16.0.0/12"],
        }

    def every(self) -> Iterator[Sent]:
        yield from self.attributes(COLLECTIONS, "/v2.0")
        yield from self.lists()
        yield from self.hosts()
        yield from self.queries()
        yield from self.bulks()

    def attributes(self, collections: tuple[Collection, ...], base: str) -> Iterator[Sent]:
        """Yield each attribute of each resource with the most that it takes, in POST and in PUT."""
        for collection in collections:
            kind, path = collection.kind, f"{base}/{path_of(collection)}"
            for wire, declared in kind.attributes.items():
                value = largest(schema_of(declared.check))
                required = {
                    name: self.fixed.get(name, largest(schema_of(other.check)))
                    for name, other in kind.attributes.items()
                    if other.post and other.default is REQUIRED and name != wire
                }
                if collection.create and declared.post:
                    said = json.dumps({kind.name: {**required, wire: value}}).encode()
                    yield f"POST {kind.name}.{wire}", "POST", path, said
                if collection.update and declared.put:
                    id = self.known.get(kind.name, str(uuid.UUID(int=1)))
                    said = json.dumps({kind.name: {wire: value}}).encode()
                    yield f"PUT {kind.name}.{wire}", "PUT", f"{path}/{id}", said
            id = self.known.get(kind.name, str(uuid.UUID(int=1)))
            yield from self.attributes(collection.children, f"{path}/{id}")

    def lists(self) -> Iterator[Sent]:
        """Yield tags, and the actions that take lists, at their most and one beyond."""
        tags = [f"{n}-".ljust(255, "x") for n in range(51)]
        cidrs = [f"10.{n >> 8 & 255}.{n & 255}.0/24" for n in range(8193)]
        routes = [{"destination": cidr, "nexthop": "10.0.0.9"} for cidr in cidrs]
        subs = [{"port_id": largest({"type": "string", "format": "uuid"}, n)} for n in range(513)]
        for method, path, name, outer, items, most in (
            ("PUT", f"networks/{self.network}/tags", "tags", "", tags, 50),
            ("PUT", f"address-groups/{self.addresses}/add_addresses", "addresses", "", cidrs, 8192),
            ("PUT", f"address-groups/{self.addresses}/remove_addresses", "addresses", "", cidrs, 8192),
            ("PUT", f"subnetpools/{self.pool}/add_prefixes", "prefixes", "", cidrs, 128),
            ("PUT", f"subnetpools/{self.pool}/remove_prefixes", "prefixes", "", cidrs, 128),
            ("PUT", f"routers/{self.router}/add_extraroutes", "routes", "router", routes, 1024),
            ("PUT", f"routers/{self.router}/remove_extraroutes", "routes", "router", routes, 1024),
            ("PUT", f"trunks/{self.trunk}/add_subports", "sub_ports", "", subs, 512),
            ("PUT", f"trunks/{self.trunk}/remove_subports", "sub_ports", "", subs, 512),
        ):
            action = path.rpartition("/")[2]
            for count in (most, most + 1):
                body = {name: items[:count]}
                said = json.dumps({outer: body} if outer else body).encode()
                yield f"{method} {action} of {count}", method, f"/v2.0/{path}", said
        interface = json.dumps({"subnet_id": self.subnet, "port_id": "x" * 500_000}).encode()
        yield "PUT add_router_interface", "PUT", f"/v2.0/routers/{self.router}/add_router_interface", interface

    def hosts(self) -> Iterator[Sent]:
        """Yield what a host says at most."""
        ports = {largest({"type": "string", "format": "uuid"}, n): "up" for n in range(40_000)}
        report = json.dumps({"applied": 1, "ports": ports, "all": True}).encode()
        yield "POST status of 40,000 ports", "POST", "/v1/hosts/h/status", report
        flows = json.dumps({"port": self.port, "flows": "A" * (1 << 20)}).encode()
        yield "POST handover of 1 MiB", "POST", "/v1/hosts/h/handover", flows
        nets = json.dumps({"underlay": "192.0.2.1", "physnets": {f"p{n}": f"d{n}" for n in range(40_000)}}).encode()
        yield "PUT host with 40,000 physnets", "PUT", "/v1/hosts/h", nets

    def bulks(self) -> Iterator[Sent]:
        """Yield many of each kind at once, and bodies of as many values as are taken, and more."""
        ids = iter(range(BULK_MAX + 1))

        def subnet() -> dict[str, Any]:
            return {"network_id": self.network, "ip_version": 6, "cidr": f"fd00:{next(ids):x}::/64"}

        for kind, plural, one in (
            ("network", "networks", lambda: {"name": "x" * 200}),
            ("port", "ports", lambda: {"network_id": self.wide, "name": "x" * 200, "tags": ["a", "b"]}),
            ("security_group", "security-groups", lambda: {"name": "x"}),
            ("address_group", "address-groups", lambda: {"name": "x", "addresses": ["10.0.0.0/8"]}),
            ("router", "routers", lambda: {"name": "x"}),
            ("subnet", "subnets", subnet),
        ):
            many = [one() for _ in range(BULK_MAX if kind in ("network", "port") else BULK_MAX // 10)]
            said = json.dumps({plural.replace("-", "_"): many}).encode()
            yield f"POST {len(many):,} of {kind}", "POST", f"/v2.0/{plural}", said
        pairs = largest(schema_of(PORT.attributes["allowed_address_pairs"].check))
        for count in (2, 49):
            many = [{"network_id": self.network, "allowed_address_pairs": pairs} for _ in range(count)]
            said = json.dumps({"ports": many}).encode()
            yield f"POST {count} of port with {len(pairs)} pairs", "POST", "/v2.0/ports", said
        for item in (b"{}", b"1", b'{"a":{}}'):
            for count in (BULK_VALUES_MAX - 10, BULK_VALUES_MAX * 20):
                said = b'{"ports":[' + b",".join([item] * (count // (item.count(b"{") + 1))) + b"]}"
                yield f"POST {count:,} values {item.decode()}", "POST", "/v2.0/ports", said
        yield "PUT of 512 KiB of []", "PUT", f"/v2.0/ports/{self.port}", b"[" * (512 << 10)
        yield "POST of 16 MiB of text", "POST", "/v2.0/networks", b'{"networks":["' + b"x" * ((16 << 20) - 30) + b'"]}'

    def queries(self) -> Iterator[Sent]:
        """Yield filters as long as a URL may be."""
        for name, value in (
            ("id", str(uuid.UUID(int=7))),
            ("name", "x" * 30),
            ("fixed_ips", "ip_address_substr%3D10.9"),
            ("fixed_ips", "ip_address%3D10.9.9.9"),
            ("security_groups", str(uuid.UUID(int=7))),
            ("tags", "a,b,c,d"),
            ("fields", "id"),
            ("sort_key", "name"),
            ("mac_address", "02:00:00:00:00:01"),
            ("admin_state_up", "True"),
        ):
            query = "&".join([f"{name}={value}"] * (HEAD_BYTES // (len(name) + len(value) + 2)))
            yield f"GET ports?{name}=… of {len(query):,} bytes", "GET", f"/v2.0/ports?{query}", b""
        for query in ("", "sort_key=name", "sort_key=name&limit=100", "name=nobody", "fields=id&fields=fixed_ips"):
            yield f"GET all ports?{query}", "GET", f"/v2.0/ports?{query}", b""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.bodies", description=__doc__)
    parser.add_argument("--watch", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    options = parser.parse_args()
    if options.watch:
        watch()
        return 0
    console = Console(width=None if sys.stdout.isatty() else 150)
    about = {**machine(), "load": f"{os.getloadavg()[0]:.1f}"}
    found: list[Row] = []
    server = Watched()
    try:
        cases = Cases(server)

        def tried(sent: Sent) -> None:
            case, method, path, body = sent
            server.stall()
            began = time.perf_counter()
            status, _ = server.ask(method, path, body)
            taken = (time.perf_counter() - began) * 1000
            # What comes after the answer is of the request too.
            time.sleep(0.02)
            stall, late = server.stall()
            size = len(body) or len(path)
            found.append(Row(case, size, status, round(taken, 1), round(stall, 1), round(late, 1), stall <= STALL_MS))

        for sent in cases.every():
            if options.only in sent[0]:
                tried(sent)
        # Again with all the ports that the bulks have made.
        for case, method, path, body in cases.queries():
            if options.only in case:
                tried((f"{case}, {BULK_MAX:,} there", method, path, body))
    finally:
        server.close()
    show(found, console)
    told = {"machine": about, "stall_ms": STALL_MS, "rows": [asdict(row) for row in found]}
    keep("bodies" if not options.only else "bodies-trial", told, console)
    return 0


def show(found: list[Row], console: Console, most: int = 40) -> None:
    """Print those that keep others waiting longest."""
    made = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("case", "bytes", "status", "answer", "stall", "late", ""):
        made.add_column(name, justify="left" if name == "case" else "right", no_wrap=True)
    for row in sorted(found, key=lambda row: -row.stall_ms)[:most]:
        met = "[green]met[/]" if row.met else "[red]missed[/]"
        made.add_row(
            row.case,
            f"{row.bytes:,}",
            str(row.status),
            f"{row.answer_ms:,.0f} ms",
            f"{row.stall_ms:,.1f} ms",
            f"{row.late_ms:,.1f} ms",
            met,
        )
    console.print(made)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
