"""Noisy neighbours: what a victim keeps while another tenant on its host floods.

    python -m bench.neighbours [--repeats N] [--seconds S] [--cases flows,names,…]

Flooder and victim share a core; the flooder is held to half a core by a CPU
cgroup. Each flood is run twice in each repeat, in turn: from a workload of
another tenant on the victim's host, and, for comparison, by the same program
into a bare veth pair beside Crossway (for floods of the API: against a server
that refuses everything), so that what remains is what Crossway lets one tenant
do to another. Writes bench/results/neighbours.json and the section of
docs/performance.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import secrets
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console

from bench.judge import Row, Spread
from bench.page import PAGE, number, put, table
from bench.record import keep, machine
from bench.spaces import BUILD, Spaces, cable
from crossway import settings
from crossway.client import Client, Object, path_of
from crossway.errors import Fault
from crossway.lab.lab import Host, Lab, Workload
from crossway.lab.place import Place

BEGIN, END = "<!-- from here on written by bench.neighbours -->", "<!-- up to here, by bench.neighbours -->"
TOOL = Path(__file__).parent / "tools" / "neighbour.c"
CGROUPS = Path("/sys/fs/cgroup")
PORT = 5400
CONNECTIONS = 64  # of the victim; sixteen of them are busy, the others idle
HALF, PERIOD = 50_000, 100_000  # microseconds of a core that the flooder may use
PACKETS = ("flows", "connections", "broadcasts", "fragments", "punts", "names")
REQUESTS = ("pairs", "empties", "heads", "policy")
TITLES = {
    "flows": "300,000 flows of three packets",
    "connections": "300,000 TCP connections begun",
    "broadcasts": "broadcasts",
    "fragments": "first fragments, and others without a first one",
    "punts": "DHCP requests",
    "names": "questions for names",
    "pairs": "ports with as many address pairs as a body holds",
    "empties": "30 MiB of empty objects",
    "heads": "half request heads",
    "policy": "an address group of 8,200 in 12 rules of ports 1–65534",
}
STAND_IN_MAC, STAND_IN_IP = "02:c0:55:00:00:01", "169.254.169.254"  # who answers names where there is no router
BARE = "10.88.0"
RATE_TARGET, P99_TARGET, ACTIVE_TARGET = 0.95, 1.5, 1.0
OURS, PEER = "Crossway", "a bare veth"
PEER_SERVER = "a server that refuses all"
SILENT_MAX = int(settings.STRANGERS.default)


def build_tool() -> Path:
    """Compile the flooder and the victim, unless that has been done; return the program."""
    tool = BUILD / "neighbour"
    BUILD.mkdir(parents=True, exist_ok=True)
    if not tool.exists() or tool.stat().st_mtime < TOOL.stat().st_mtime:
        fresh = tool.with_suffix(f".{os.getpid()}")
        flags = ("-O2", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE")
        subprocess.run(["clang", *flags, "-o", str(fresh), str(TOOL)], check=True)
        fresh.rename(tool)
    return tool


@contextmanager
def half_a_core() -> Iterator[Callable[[int], None]]:
    """Make a CPU cgroup (version 1 or 2) of half a core; yield what moves a process into it."""
    name = f"cwbench-{secrets.token_hex(3)}"
    old = (CGROUPS / "cpu" / "cpu.cfs_quota_us").exists()
    group = (CGROUPS / "cpu" if old else CGROUPS) / name
    if not old:
        control = CGROUPS / "cgroup.subtree_control"
        if "cpu" not in control.read_text().split():
            control.write_text("+cpu")
    group.mkdir()
    try:
        if old:
            (group / "cpu.cfs_period_us").write_text(str(PERIOD))
            (group / "cpu.cfs_quota_us").write_text(str(HALF))
        else:
            (group / "cpu.max").write_text(f"{HALF} {PERIOD}")
        yield lambda pid: _move(group, pid)
    finally:
        end = time.monotonic() + 5
        while group.exists():
            try:
                group.rmdir()
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)


def _move(group: Path, pid: int) -> None:
    (group / "cgroup.procs").write_text(str(pid))


@dataclass
class Window:
    """What the victim had while one flood ran."""

    rate: float  # requests a second
    p99: float  # microseconds
    lost: int  # connections
    active: list[float] = field(default_factory=list)  # seconds until a new port was ACTIVE
    flood: str = ""  # what the flooder says it has done


@dataclass
class Flooder:
    """A program that floods once it reads a line."""

    command: list[str]

    def start(self, hold: Callable[[int], None]) -> subprocess.Popen[str]:
        process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        hold(process.pid)
        return process


def begin(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    process.stdin.write("go\n")
    process.stdin.flush()


def ended(process: subprocess.Popen[str], seconds: float) -> str:
    """Return what a program said; one that does not end is ended."""
    try:
        said, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        said, _ = process.communicate()
    return said.strip()


# ---- The victim


class Packets:
    """A victim whose requests go over TCP, from a workload or place to another."""

    def __init__(self, tool: Path, client: Place, ip: str) -> None:
        self.tool, self.client, self.ip = tool, client, ip

    def under(self, flooder: subprocess.Popen[str], seconds: float, meanwhile: Callable[[], list[float]]) -> Window:
        asked = self.client.popen(
            str(self.tool), "ask", self.ip, str(PORT), str(seconds), str(CONNECTIONS), stdin=subprocess.PIPE
        )
        said = asked.stdout.readline() if asked.stdout else ""
        if said != "open\n":
            raise RuntimeError(f"the victim in {self.client.name} has no connections: {said}{ended(asked, 1)}")
        begin(flooder)
        time.sleep(0.3)
        begin(asked)
        active = meanwhile()
        rate, p99, lost = ended(asked, seconds + 130).split()
        return Window(float(rate), float(p99), int(lost), active)


class Requests:
    """A victim that shows its port by the API, one request after another over one connection."""

    def __init__(self, url: str, path: str) -> None:
        self.at, self.path = urlsplit(url), path

    def under(self, flooder: subprocess.Popen[str], seconds: float, meanwhile: Callable[[], list[float]]) -> Window:
        found: list[Window] = []
        thread = threading.Thread(target=lambda: found.append(self._ask(seconds)))
        begin(flooder)
        time.sleep(0.3)
        thread.start()
        active = meanwhile()
        thread.join()
        found[0].active = active
        return found[0]

    def _ask(self, seconds: float) -> Window:
        took, lost = [], 0
        server = HTTPConnection(self.at.hostname or "", self.at.port, timeout=30)
        start = last = time.monotonic()
        while last - start < seconds:
            try:
                server.request("GET", self.path)
                server.getresponse().read()
            except (OSError, HTTPException):
                lost += 1
                server.close()
            took.append(time.monotonic() - last)
            last += took[-1]
        server.close()
        took.sort()
        return Window(len(took) / (last - start), 1e6 * took[int(len(took) * 0.99)], lost)


# ---- The flooders of the API; each is a program of its own, so that it can be held to half a core.


def flood_api(kind: str, url: str, network: str, host: str, seconds: float) -> None:
    """Send one kind of request again and again, once a line has come; print how many were answered, by status."""
    at = urlsplit(url)
    sys.stdin.readline()
    end = time.monotonic() + seconds
    seen: dict[str, int] = {}
    if kind == "heads":
        _half_heads(at.hostname or "", at.port or 0, end)
        return
    bodies = list(_bodies(kind, network, host))
    while time.monotonic() < end:
        for method, path, body in bodies:
            if time.monotonic() >= end:
                break
            status = _send(at.hostname or "", at.port or 0, method, path, body)
            seen[status] = seen.get(status, 0) + 1
    print(json.dumps(seen))


def _bodies(kind: str, network: str, host: str) -> Iterator[tuple[str, str, bytes]]:
    if kind == "pairs":
        pairs = [{"ip_address": f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}"} for n in range(300_000)]
        port = {"port": {"network_id": network, "allowed_address_pairs": pairs}}
        yield "POST", path_of("port"), json.dumps(port).encode()
    elif kind == "empties":
        yield "POST", path_of("port"), b'{"ports": [' + b"{}," * (10 << 20) + b"{}]}"
    else:
        raise ValueError(kind)


def _send(host: str, port: int, method: str, path: str, body: bytes) -> str:
    server = HTTPConnection(host, port, timeout=30)
    try:
        server.request(method, path, body, {"Content-Type": "application/json"})
        answer = server.getresponse()
        answer.read()
        return str(answer.status)
    except (OSError, HTTPException) as fault:
        return type(fault).__name__
    finally:
        server.close()


def _half_heads(host: str, port: int, end: float) -> None:
    held: list[socket.socket] = []
    refused = 0
    while time.monotonic() < end:
        try:
            one = socket.create_connection((host, port), timeout=1)
            one.sendall(b"GET /v2.0/ports HTTP/1.1\r\nHost: ")
            held.append(one)
        except OSError:
            refused += 1
            time.sleep(0.01)
        if len(held) >= 1100:
            time.sleep(0.05)
            held = [one for one in held if not _is_closed(one)]
    print(json.dumps({"held": len(held), "refused": refused}))


def _is_closed(one: socket.socket) -> bool:
    try:
        return one.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def flood_policy(url: str, network: str, host: str, seconds: float) -> None:
    """Make the address group, the rules and a port on the host that has them; take them away; again."""
    sys.stdin.readline()
    end, rounds, refused = time.monotonic() + seconds, 0, ""
    client = Client(url)
    while time.monotonic() < end:
        made: list[tuple[str, str]] = []
        try:
            addresses = [f"10.200.{n >> 8}.{n & 255}/32" for n in range(8200)]
            block = client.create("address_group", name="flood", addresses=addresses)
            made.append(("address_group", block["id"]))
            group = client.create("security_group", name="flood")
            made.append(("security_group", group["id"]))
            port = client.create("port", network_id=network, security_groups=[group["id"]], **{"binding:host_id": host})
            made.append(("port", port["id"]))
            for n in range(12):
                client.create(
                    "security_group_rule",
                    security_group_id=group["id"], direction="ingress", ethertype="IPv4", protocol="tcp",
                    port_range_min=1 + n, port_range_max=65534 - n, remote_address_group_id=block["id"],
                )  # fmt: skip
            time.sleep(0.5)
            rounds += 1
        except Fault as fault:
            refused = str(fault)
            time.sleep(0.05)
        for kind, id in reversed(made):
            try:
                client.delete(kind, id)
            except Fault as fault:
                refused = refused or str(fault)
    print(json.dumps({"rounds": rounds, "refused": refused[:300]}))


def refuse_all(port: int) -> None:
    """Answer every request with 413 without reading its body, until it is ended: the peer of the API's server.

    It keeps as many connections that have not said anything whole as that does, so that a flood of them is as large.
    """
    silent: dict[asyncio.StreamWriter, None] = {}

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        silent[writer] = None
        if len(silent) > SILENT_MAX:
            oldest = next(iter(silent))
            del silent[oldest]
            oldest.transport.abort()
        try:
            while True:
                head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
                silent.pop(writer, None)
                known = head.startswith(b"GET ")
                status = b"200 OK" if known else b"413 Content Too Large"
                rest = b"" if known else b"Connection: close\r\n"
                writer.write(b"HTTP/1.1 " + status + b"\r\n" + rest + b"Content-Length: 2\r\n\r\n{}")
                await writer.drain()
                if not known:
                    break
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError, OSError):
            pass
        finally:
            silent.pop(writer, None)
            writer.close()

    async def run() -> None:
        server = await asyncio.start_server(one, "127.0.0.1", port, backlog=2048)
        print("ready", flush=True)
        async with server:
            await server.serve_forever()

    asyncio.run(run())


# ---- The scene


class Scene:
    """A lab of two hosts with a victim and a flooder on the first one, and a bare veth pair with the same beside it."""

    def __init__(self, stack: ExitStack, seconds: float) -> None:
        self.tool, self.seconds = build_tool(), seconds
        self.hold = stack.enter_context(half_a_core())
        self.lab = stack.enter_context(Lab.up(hosts=2, uplinks=0))
        spaces = stack.enter_context(Spaces())
        self._stack = stack
        self.host = self.lab.hosts[0]
        self.network = self._network("victim", "10.90.0.0/16")
        self.group = self._open_group("victim")
        client, server = (self._workload(self.host, self.network, self.group, name) for name in ("client", "server"))
        self.victim = Packets(self.tool, client, server.ip4)
        self._serve(server)
        self.flooded = self._network("flooder", "10.91.0.0/16")
        group = self._open_group("flooder")
        self.flooder, self.sink = (self._workload(self.host, self.flooded, group, name) for name in ("flooder", "sink"))
        bare = spaces.add("bare-c"), spaces.add("bare-s")
        cable(bare[0], "eth0", bare[1], "eth0")
        for n, place in enumerate(bare, 1):
            place.script([f"address add {BARE}.{n}/24 dev eth0"])
        self._serve(bare[1])
        self.bare_victim = Packets(self.tool, bare[0], f"{BARE}.2")
        self.bare = spaces.add("bare-f"), spaces.add("bare-t")
        cable(self.bare[0], "eth0", self.bare[1], "eth0")
        self.bare[1].script([f"address add {BARE}.9/24 dev eth0"])
        self.bare_macs = [p.exec("cat", "/sys/class/net/eth0/address").stdout.strip() for p in self.bare]
        self.api_victim = Requests(self.lab.url, f"{path_of('port')}/{client.id}")
        self.refusing = self._refusing()
        self.bare_api_victim = Requests(self.refusing, "/")
        self._number = 0

    def _network(self, name: str, cidr: str) -> Object:
        network = self.lab.client.create("network", name=name, project_id=f"{name:0<32}")
        self.lab.client.create("subnet", network_id=network["id"], cidr=cidr, ip_version=4, project_id=f"{name:0<32}")
        return network

    def _open_group(self, name: str) -> Object:
        group = self.lab.client.create("security_group", name=name, project_id=f"{name:0<32}")
        self.lab.client.create(
            "security_group_rule", security_group_id=group["id"], direction="ingress", ethertype="IPv4"
        )
        return group

    def _workload(self, host: Host, network: Object, group: Object, name: str) -> Workload:
        return self.lab.workload(host, network, groups=[group], name=name, project_id=network["project_id"])

    def _serve(self, place: Place) -> None:
        process = place.popen(str(self.tool), "serve", str(PORT))
        self._stack.callback(_end, process)
        if process.stdout is None or process.stdout.readline() != "ready\n":
            raise RuntimeError(f"the serving end in {place.name} did not start")

    def _refusing(self) -> str:
        port = 32000 + random.randrange(500)
        command = [sys.executable, "-m", "bench.neighbours", "refuse", str(port)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._stack.callback(_end, process)
        if process.stdout is None or process.stdout.readline() != "ready\n":
            raise RuntimeError("the server that refuses all did not start")
        return f"http://127.0.0.1:{port}"

    def new_ports(self) -> list[float]:
        """Make ports of the victim's while the flood runs; return the seconds until each was ACTIVE."""
        took = []
        for _ in range(2):
            self._number += 1
            start = time.monotonic()
            fresh = self._workload(self.host, self.network, self.group, f"new{self._number}")
            took.append(time.monotonic() - start)
            fresh.delete()
        return took

    def run(self, case: str, ours: bool) -> Window:
        """Run one flood against Crossway, or against what it is compared with."""
        if case in PACKETS:
            command = self._packets(case, ours)
        elif case == "policy":
            command = self._api("flood-policy", ours)
        else:
            command = self._api("flood-api", ours, case)
        victim: Packets | Requests
        if case in PACKETS or case == "policy":
            victim = self.victim if ours else self.bare_victim
        else:
            victim = self.api_victim if ours else self.bare_api_victim
        flooder = Flooder(command).start(self.hold)
        try:
            # Ports are made beside the peer as well: that is work for the machine, too.
            window = victim.under(flooder, self.seconds, self.new_ports)
            window.flood = ended(flooder, self.seconds + 60)
            return window
        finally:
            _end(flooder)

    def _packets(self, case: str, ours: bool) -> list[str]:
        seconds = str(self.seconds + 0.5)
        place: Place = self.flooder if ours else self.bare[0]
        if ours:
            to = (STAND_IN_MAC, self.flooder.ip4, STAND_IN_IP) if case == "names" else (
                self.sink.mac, self.flooder.ip4, self.sink.ip4)  # fmt: skip
            macs = self.flooder.mac, *to
        else:
            macs = self.bare_macs[0], self.bare_macs[1], f"{BARE}.8", f"{BARE}.9"
        return place.command(str(self.tool), "flood", case, "eth0", *macs, seconds)

    def _api(self, verb: str, ours: bool, *kind: str) -> list[str]:
        # From another host, over the underlay: the victim's own address is not the flooder's.
        url = self.lab.state.underlay_url if ours else self.refusing
        command = [sys.executable, "-m", "bench.neighbours", verb, *kind, url, str(self.flooded["id"])]
        command += [self.host.name, str(self.seconds + 0.5)]
        return self.lab.hosts[1].command(*command) if ours else command


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGKILL)
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream:
            stream.close()


# ---- Verdicts


def rows(case: str, ours: Sequence[Window], theirs: Sequence[Window]) -> list[Row]:
    """Return the rows of one flood: requests, their p99, lost connections, new ports."""
    peer = PEER if case in PACKETS or case == "policy" else PEER_SERVER

    def compared(what: str, unit: str, of: Callable[[Window], float], limit: float, at_most: bool) -> Row:
        a, b = [of(w) for w in ours], [of(w) for w in theirs]
        ratio = Spread.of([x / y for x, y in zip(a, b, strict=True)])
        met = ratio.median <= limit if at_most else ratio.median >= limit
        target = f"{'≤' if at_most else '≥'} {limit:g}"
        title = f"{TITLES[case]}: {what}"
        return Row(title, case, OURS, unit, Spread.of(a), peer, Spread.of(b), ratio, target, met)

    def counted(what: str, unit: str, samples: Sequence[float], limit: float) -> Row:
        own = Spread.of(samples)
        worst = max(samples)
        none = Spread(0, 0, 0)
        return Row(
            f"{TITLES[case]}: {what}", case, OURS, unit, own, "no peer", none, Spread(worst, worst, worst),
            f"≤ {limit:g}", worst <= limit,
        )  # fmt: skip

    active = [seconds for w in ours for seconds in w.active]
    return [
        compared("the victim's requests", "requests/s", lambda w: w.rate, RATE_TARGET, False),
        compared("p99 of a request", "µs", lambda w: w.p99, P99_TARGET, True),
        counted("connections lost", "connections", [w.lost for w in ours], 0),
        counted("a new port is ACTIVE, the slowest", "s", active, ACTIVE_TARGET),
    ]


def quiet(scene: Scene, ours: Packets | Requests, theirs: Packets | Requests) -> float:
    """Return ours / theirs without any flood: what the victim's own requests cost beside those of the peer."""
    rates = []
    for victim in (ours, theirs):
        idle = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        rates.append(victim.under(idle, scene.seconds, scene.new_ports).rate)
        _end(idle)
    return rates[0] / rates[1]


def normalised(window: Window, floor: float) -> Window:
    """Return a window of the peer as it would be had it Crossway's own cost: *floor* is ours / theirs in quiet."""
    return Window(window.rate * floor, window.p99 / floor, window.lost, window.active, window.flood)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(prog="python -m bench.neighbours", description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of one window")
    parser.add_argument("--cases", default=",".join((*PACKETS, *REQUESTS)))
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    cases = options.cases.split(",")
    unknown = [case for case in cases if case not in TITLES]
    if unknown:
        parser.error(f"no such case: {', '.join(unknown)} (there are {', '.join(TITLES)})")
    console, about = Console(width=170), machine()
    windows: dict[tuple[str, bool], list[Window]] = {}
    order = random.Random(options.seed)
    with ExitStack() as stack:
        scene = Scene(stack, options.seconds)
        floors: list[float] = []
        api_floors: list[float] = []
        for repeat in range(options.repeats):
            floors.append(quiet(scene, scene.victim, scene.bare_victim))
            api_floors.append(quiet(scene, scene.api_victim, scene.bare_api_victim))
            for case in order.sample(cases, len(cases)):
                for ours in order.sample((True, False), 2):
                    window = scene.run(case, ours)
                    windows.setdefault((case, ours), []).append(window)
                    who = OURS if ours else "compared"
                    console.print(f"{repeat + 1} {case} {who}: {window}", highlight=False)
    floor, api_floor = statistics.median(floors), statistics.median(api_floors)
    found: list[Row] = []
    for case in cases:
        of_packets = case in PACKETS or case == "policy"
        theirs = [normalised(window, floor if of_packets else api_floor) for window in windows[case, False]]
        found += rows(case, windows[case, True], theirs)
    told = {
        "machine": about, "repeats": options.repeats, "seconds": options.seconds,
        "floor": floor, "api_floor": api_floor, "rows": [asdict(row) for row in found],
    }  # fmt: skip
    keep("neighbours", told, console)
    lines = [
        (r.case, f"{number(r.ours.median)} {r.unit}", f"{number(r.theirs.median)} {r.unit}" if r.theirs.median else "·",
         f"{r.ratio.median:.2f}", r.target or "", "met" if r.met else "**missed**")
        for r in found
    ]  # fmt: skip
    head = (
        f"Commit {about['commit']}, {about['date'][:10]}: {options.repeats} repeats of {options.seconds:g} s on "
        f"{about['cores']} cores, Linux {about['kernel']}. Without a flood the victim's path does {floor:.2f} of what "
        f"a bare veth does, and the API's server {api_floor:.2f} of what {PEER_SERVER} does; the peers' figures are "
        "multiplied by that.\n\n"
    )
    put(PAGE, BEGIN, END, head + "\n".join(table(("case", "ours", "beside", "ratio", "target", ""), lines)))


def entry() -> None:
    """Be the benchmark, or one of the programs that it starts."""
    verb, rest = (sys.argv[1] if len(sys.argv) > 1 else ""), sys.argv[2:]
    if verb == "flood-api":
        flood_api(rest[0], rest[1], rest[2], rest[3], float(rest[4]))
    elif verb == "flood-policy":
        flood_policy(rest[0], rest[1], rest[2], float(rest[3]))
    elif verb == "refuse":
        refuse_all(int(rest[0]))
    else:
        main()


if __name__ == "__main__":
    entry()
