"""Measure the API of one server process over SQLite with 1,000, 10,000 and 100,000 ports, beside Neutron.

Prints a table, writes `bench/results/api.json` and the table of docs/performance-api.md. Who asks is plain
`http.client` and `json`, one connection a client, as a stock client would: what they take is in the figures.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from http.client import HTTPConnection
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from bench import page
from bench.judge import Spread
from bench.record import keep, machine

PAGE = Path(__file__).parents[1] / "docs" / "performance-api.md"
BEGIN, END = "<!-- from here on written by bench.api -->", page.END
NEUTRON = "Neutron 29 over MariaDB, one run of the same requests"
FEWEST = "Crossway with {:,} ports"
# How much more anything may take with more ports in the store.
SLOWER = 1.5
LISTED = 1000  # ports of the network that is listed
CROWD = 16  # clients at once
OTHERS = 5000  # ports of each other network
TOGETHER = 50  # ports of one bulk request while it is measured


@dataclass(frozen=True)
class Case:
    """One thing to measure: its unit, the target, and what Neutron took."""

    title: str
    unit: str
    target: float | None = None
    theirs: float | None = None

    @property
    def small(self) -> bool:
        """Say whether less is better."""
        return not self.unit.endswith("/s")


CREATE = Case("create port", "ms", 3, 175.61)
CROWDED = Case(f"create port, {CROWD} clients", "ports/s", 600, 6.6)
BULK = Case(f"bulk create, {TOGETHER} ports a request", "ports/s", 5000, 5.6)
SHOW = Case("show port", "ms", 1.5, 19.54)
LIST = Case(f"list of {LISTED:,} ports", "ms", 15, 771.21)
LIST_IDS = Case(f"list of {LISTED:,} ports, fields=id", "ms", None, 760.87)
LIST_PAGE = Case("list, page of 50", "ms", None, 56.85)
LIST_NEXT = Case("list, page of 50 of all networks", "ms")
LIST_IP = Case("list by fixed_ips=ip_address", "ms")
LIST_NAME = Case("list by name", "ms")
LIST_DEVICE = Case("list by device_id", "ms")
UPDATE = Case("update port", "ms", None, 118.57)
DELETE = Case("delete port", "ms", None, 129.12)
MEMORY = Case("memory", "MiB", 1024, 428.9)
START = Case("start of the server", "ms")
CASES = (
    CREATE, CROWDED, BULK, SHOW, LIST, LIST_IDS, LIST_PAGE, LIST_NEXT, LIST_IP, LIST_NAME, LIST_DEVICE,
    UPDATE, DELETE, MEMORY, START,
)  # fmt: skip
# What grows with the store, as it must; pages of all ports are those whose JSON nobody has asked for before.
GROWING = (MEMORY, START, LIST_NEXT)


@dataclass(frozen=True)
class Row:
    """Ours with so many ports in the store against a peer's; *ratio* is ours / theirs."""

    case: str
    ports: int
    unit: str
    ours: Spread
    peer: str
    theirs: Spread
    ratio: Spread
    target: str | None
    met: bool | None


class Client:
    """One connection that is kept."""

    def __init__(self, url: str) -> None:
        host, _, port = url.rpartition(":")
        self.connection = HTTPConnection(host, int(port), timeout=60)

    def __call__(self, method: str, path: str, body: Any = None) -> Any:
        sent = None if body is None else json.dumps(body)
        self.connection.request(method, f"/v2.0{path}", sent, {"Content-Type": "application/json"})
        answer = self.connection.getresponse()
        raw = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {raw[:300]!r}")
        return json.loads(raw) if raw else None

    def close(self) -> None:
        self.connection.close()


class Server:
    """A server of its own, filled to so many ports."""

    def __init__(self, folder: Path, ports: int) -> None:
        self.folder, self.ports = folder, ports
        self.start()
        self.ask = Client(self.url)
        self.listed = self._network(0, LISTED)
        self.filled = LISTED
        number = 0
        while self.filled < ports:
            number += 1
            many = min(OTHERS, ports - self.filled)
            self._network(number, many)
            self.filled += many

    def start(self) -> float:
        """Start the process; return the seconds until it listens."""
        ready, tell = os.pipe()
        began = time.perf_counter()
        command = [sys.executable, "-m", "crossway", "server", "--listen", "127.0.0.1:0", "--ready-fd", str(tell)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--store", f"sqlite:{self.folder / 'db'}"], pass_fds=[tell], stderr=log
            )
        os.close(tell)
        with open(ready, "rb") as told:
            line = told.readline() if select.select([told], [], [], 60)[0] else b""
        if not line:
            self.stop()
            raise RuntimeError((self.folder / "log").read_text()[-2000:])
        self.url = json.loads(line)["listen"][0]
        return time.perf_counter() - began

    def restart(self) -> float:
        self.ask.close()
        self.stop()
        seconds = self.start()
        self.ask = Client(self.url)
        return seconds

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def memory(self) -> float:
        """Return the resident memory in MiB."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024

    def _network(self, number: int, ports: int) -> str:
        network: str = self.ask("POST", "/networks", {"network": {"name": f"network{number}"}})["network"]["id"]
        body = {"network_id": network, "ip_version": 4, "cidr": f"10.{number}.0.0/16"}
        self.ask("POST", "/subnets", {"subnet": body})
        for first in range(0, ports, 500):
            some = range(first, min(first + 500, ports))
            names = [f"{number}-{i}" for i in some]
            bodies = [{"network_id": network, "name": name, "device_id": f"device {name}"} for name in names]
            self.ask("POST", "/ports", {"ports": bodies})
        return network


@contextmanager
def filled(ports: int) -> Iterator[Server]:
    """Have a server with so many ports, on the disk of TMPDIR."""
    with tempfile.TemporaryDirectory(prefix="crossway-bench-") as folder:
        server = Server(Path(folder), ports)
        try:
            yield server
        finally:
            server.ask.close()
            server.stop()


def timed(verb: Callable[[Any], Any], items: Sequence[Any]) -> tuple[float, list[Any]]:
    """Do it with each item; return the median in ms, and what came of each."""
    taken, done = [], []
    for item in items:
        began = time.perf_counter()
        done.append(verb(item))
        taken.append((time.perf_counter() - began) * 1000)
    return statistics.median(taken), done


def _one_of_crowd(url: str, network: str, count: int, begin: Event, told: Any) -> None:
    with closing(Client(url)) as ask:
        ask("GET", "/networks?limit=1")
        told.put(None)
        begin.wait()
        began = time.time()
        ids = [ask("POST", "/ports", {"port": {"network_id": network}})["port"]["id"] for _ in range(count)]
        told.put((ids, began, time.time()))


def crowded(server: Server, total: int = 480) -> tuple[float, list[str]]:
    """Return how many ports a second processes at once create, and the ports."""
    context = multiprocessing.get_context("fork")
    begin, told = context.Event(), context.Queue()
    arguments = (server.url, server.listed, total // CROWD, begin, told)
    clients = [context.Process(target=_one_of_crowd, args=arguments, daemon=True) for _ in range(CROWD)]
    for client in clients:
        client.start()
    for _ in clients:
        told.get(timeout=30)
    begin.set()
    found = [told.get(timeout=60) for _ in clients]
    for client in clients:
        client.join()
    ids = [id for some, _, _ in found for id in some]
    return len(ids) / (max(ended for _, _, ended in found) - min(began for _, began, _ in found)), ids


def measure(server: Server, order: random.Random) -> dict[Case, float]:
    """Measure every case once; what is made goes again."""
    ask, network = server.ask, server.listed
    found: dict[Case, float] = {}
    rows = ask("GET", f"/ports?network_id={network}")["ports"]
    ids = [row["id"] for row in rows]
    some = order.sample(rows, 50)
    found[LIST], _ = timed(lambda _: ask("GET", f"/ports?network_id={network}"), range(15))
    found[LIST_IDS], _ = timed(lambda _: ask("GET", f"/ports?network_id={network}&fields=id"), range(15))
    page_of = f"/ports?network_id={network}&limit=50&sort_key=id"
    found[LIST_PAGE], _ = timed(lambda r: ask("GET", f"{page_of}&marker={r['id']}"), some)
    found[LIST_NEXT], _ = timed(lambda r: ask("GET", f"/ports?limit=50&sort_key=id&marker={r['id']}"), some)
    found[LIST_IP], _ = timed(
        lambda r: ask("GET", f"/ports?fixed_ips=ip_address%3D{r['fixed_ips'][0]['ip_address']}"), some
    )
    found[LIST_NAME], _ = timed(lambda r: ask("GET", f"/ports?name={r['name']}"), some)
    found[LIST_DEVICE], _ = timed(lambda r: ask("GET", f"/ports?device_id={r['device_id'].replace(' ', '%20')}"), some)
    found[SHOW], _ = timed(lambda id: ask("GET", f"/ports/{id}"), order.sample(ids, 200))
    body = {"port": {"network_id": network, "name": "new"}}
    found[CREATE], told = timed(lambda _: ask("POST", "/ports", body)["port"]["id"], range(200))
    made: list[str] = list(told)
    change = {"port": {"name": "renamed", "description": "x"}}
    found[UPDATE], _ = timed(lambda id: ask("PUT", f"/ports/{id}", change), made)
    many = {"ports": [{"network_id": network, "name": f"b{i}"} for i in range(TOGETHER)]}
    median, bulk = timed(lambda _: [port["id"] for port in ask("POST", "/ports", many)["ports"]], range(8))
    found[BULK] = TOGETHER * 1000 / median
    made += [id for some_ids in bulk for id in some_ids]
    found[CROWDED], crowd = crowded(server)
    made += crowd
    found[MEMORY] = server.memory()
    found[DELETE], _ = timed(lambda id: ask("DELETE", f"/ports/{id}"), made)
    return found


def compare(
    case: Case, ports: int, ours: Sequence[float], peer: str, theirs: Sequence[float], limit: float | None, of: float
) -> Row:
    """Return one row; *limit* is what ours, divided by *of*, must not pass, repeat by repeat."""
    ratio = Spread.of([a / b for a, b in zip(ours, theirs, strict=True)])
    told = met = None
    if limit is not None:
        value = Spread.of([a / of for a in ours]).median if of else ratio.median
        met = value <= limit if case.small else value >= limit
        told = f"{'≤' if case.small else '≥'} {limit:,.4g}{'' if not of else f' {case.unit}'}"
    return Row(case.title, ports, case.unit, Spread.of(ours), peer, Spread.of(theirs), ratio, told, met)


def rows(samples: dict[int, dict[Case, list[float]]]) -> list[Row]:
    """Hold ours against Neutron's, and with more ports in the store against the fewest."""
    made, (fewest, *_) = [], sorted(samples)
    for ports, found in sorted(samples.items()):
        for case in CASES:
            ours = found[case]
            if case.theirs is not None:
                # What is promised may be half as slow again with a fuller store; memory is promised of the fullest.
                slack = 1.0 if ports == fewest or case in GROWING else SLOWER
                limit = None if case.target is None else case.target * slack if case.small else case.target / slack
                made.append(compare(case, ports, ours, NEUTRON, [case.theirs] * len(ours), limit, 1.0))
            if ports != fewest:
                limit = None if case in GROWING else SLOWER if case.small else 1 / SLOWER
                made.append(compare(case, ports, ours, FEWEST.format(fewest), samples[fewest][case], limit, 0.0))
            elif case.theirs is None:
                made.append(compare(case, ports, ours, FEWEST.format(fewest), ours, None, 0.0))
    return made


def words(told: dict[str, Any]) -> str:
    """Return what stands between the marks."""
    found, about = [msgspec.convert(row, Row) for row in told["rows"]], told["machine"]
    sizes = sorted({row.ports for row in found})
    judged = [row for row in found if row.met is not None]
    out = [
        f"Commit {about['commit']}, {about['date'][:10]}: {told['repeats']} repeats on {about['cores']} cores "
        f"({about['cpu']}), Linux {about['kernel']}; others' load before it began: {about['load']}.",
        f"{sum(bool(row.met) for row in judged)} of the {len(judged)} comparisons that have a target met it.",
        "Medians; in brackets the quartiles.",
        "",
    ]
    lines = []
    for case in CASES:
        mine = {row.ports: row for row in found if row.case == case.title}
        beside = [row for row in found if row.case == case.title and row.peer == NEUTRON and row.ports == sizes[0]]
        grown = [row for row in found if row.case == case.title and row.ports == sizes[-1] and row.peer != NEUTRON]
        first = next((row for row in beside), None)
        spreads = [mine[ports].ours for ports in sizes]
        lines.append(
            (
                f"{case.title}, {case.unit}",
                (first.target or "" if first else "").removesuffix(f" {case.unit}"),
                *(f"{page.number(s.median)} ({page.number(s.low)}–{page.number(s.high)})" for s in spreads),
                f"{grown[0].ratio.median:.2f}" if grown and len(sizes) > 1 else "",
                page.number(first.theirs.median) if first else "",
                f"{max(first.ratio.median, 1 / first.ratio.median):,.0f} ×" if first and case is not MEMORY else "",
            )
        )
    heads = ("", "target", *(f"{ports:,} ports" for ports in sizes), "most / fewest", "Neutron", "ours is quicker by")
    out += page.table(heads, lines)
    missed = [row for row in judged if not row.met]
    if missed:
        out += ["Missed:", ""]
        out += page.table(
            ("case", "ports", "ours", "beside", "ratio", "target"),
            [
                (
                    row.case, f"{row.ports:,}", f"{page.number(row.ours.median)} {row.unit}", row.peer,
                    f"{row.ratio.median:.3g}", row.target or "",
                )
                for row in missed
            ],
        )  # fmt: skip
    return "\n".join(out)


def write(file: Path) -> None:
    """Put what a file in bench/results tells into the page."""
    page.put(PAGE, BEGIN, END, words(json.loads(file.read_text())))


def show(found: Sequence[Row], console: Console) -> None:
    made = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("case", "ports", "ours", "beside", "", "ratio", "target", ""):
        made.add_column(name, justify="left" if name in ("case", "beside") else "right", no_wrap=True)
    for row in found:
        met = {True: "[green]met[/]", False: "[red]missed[/]", None: ""}[row.met]
        ours = (
            f"{page.number(row.ours.median)} {row.unit} "
            f"[dim]{page.number(row.ours.low)}–{page.number(row.ours.high)}[/]"
        )
        peer = row.peer.split(",")[0].removesuffix(" over MariaDB")
        theirs = page.number(row.theirs.median)
        made.add_row(row.case, f"{row.ports:,}", ours, peer, theirs, f"{row.ratio.median:.3g}", row.target or "", met)
    console.print(made)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.api", description=__doc__)
    parser.add_argument("--sizes", default="1000,10000,100000", help="ports in the store")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--name", help="of the file in bench/results; `api` is what docs/performance-api.md tells")
    options = parser.parse_args()
    name = options.name or ("api" if len(sys.argv) == 1 else "api-trial")
    sizes = sorted({max(LISTED, int(size)) for size in options.sizes.split(",")})
    console = Console(width=None if sys.stdout.isatty() else 150)
    about, order = {**machine(), "load": f"{os.getloadavg()[0]:.1f}"}, random.Random(options.seed)
    console.print(f"{about['cpu']}, {about['cores']} cores, Linux {about['kernel']}, commit {about['commit']}")
    samples: dict[int, dict[Case, list[float]]] = {ports: {case: [] for case in CASES} for ports in sizes}
    with ExitStack() as stack:
        servers = {}
        for ports in sizes:
            began = time.perf_counter()
            servers[ports] = stack.enter_context(filled(ports))
            console.print(f"{ports:,} ports: filled in {time.perf_counter() - began:.1f} s", highlight=False)
        for server in servers.values():
            # Once before it counts, so that the first of each kind of request is not among them.
            measure(server, order)
        for number in range(options.repeats):
            # All sizes in each repeat, in another order: what disturbs one disturbs the others.
            for ports in order.sample(sizes, len(sizes)):
                for case, value in measure(servers[ports], order).items():
                    samples[ports][case].append(value)
            console.print(f"repeat {number + 1} of {options.repeats}", highlight=False)
        for ports, server in servers.items():
            samples[ports][START] = [server.restart() * 1000 for _ in range(options.repeats)]
    found = rows(samples)
    show(found, console)
    told = {"machine": about, "repeats": options.repeats, "rows": [asdict(row) for row in found]}
    file = keep(name, told, console)
    if name == "api":
        write(file)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
