"""The main job on real input: two tenants with the same addresses on three hosts.

Each tenant has a web and a db tier behind a router; every workload is a
container with real servers. Everybody tries to reach everybody, over IPv4 and
IPv6, and what comes of it is held against the declared policy. The exit code is
0 only if every attempt ended as the policy says.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from crossway.client import Client, Object
from crossway.errors import Fault, Unavailable
from crossway.lab import container
from crossway.lab.container import Container
from crossway.lab.lab import Lab, Workload, down, sweep
from crossway.lab.process import interruptible, last_words

# ---- The declared policy: what follows is built from it, and judged by it.

TENANTS = ("red", "blue")

# Tier -> its prefixes, the same for both tenants.
TIERS = {"web": ("10.0.1.0/24", "fd00:1::/64"), "db": ("10.0.2.0/24", "fd00:2::/64")}


@dataclass(frozen=True)
class Service:
    """Something to try: a name, a protocol, and for TCP a port."""

    name: str
    proto: str
    port: int | None = None


PING = Service("ping", "icmp")
HTTP = Service("http", "tcp", 80)
SQL = Service("sql", "tcp", 5432)
SERVICES = (PING, HTTP, SQL)


@dataclass(frozen=True)
class Admit:
    """A rule: ports in *group* take *service* from *source*, a group or (None) anyone."""

    group: str
    service: Service
    source: str | None


RULES = (
    Admit("web", HTTP, None),
    Admit("web", PING, "web"),
    Admit("db", SQL, "web"),
    Admit("db", PING, "web"),
)


@dataclass(frozen=True)
class Member:
    """A workload of a tenant: its tier is also its group; *last* ends its addresses."""

    tenant: str
    name: str
    tier: str
    host: int
    last: int

    @property
    def full(self) -> str:
        return f"{self.tenant}.{self.name}"

    @property
    def ips(self) -> tuple[str, str]:
        return tuple(f"{prefix.rsplit('0/', 1)[0] if '.' in prefix else prefix.split('/')[0]}{self.last}"
                     for prefix in TIERS[self.tier])  # type: ignore[return-value]  # fmt: skip


# Both tenants have the same workloads at the same addresses; one has a vault as well.
MEMBERS = (
    *(
        Member(tenant, name, tier, host, last)
        for tenant in TENANTS
        for name, tier, host, last in (("web1", "web", 0, 11), ("web2", "web", 1, 12), ("db1", "db", 2, 11))
    ),
    Member("blue", "vault", "db", 2, 66),
)


def admitted(source: Member, target: Member, service: Service) -> bool:
    """Say whether the policy lets *source* reach *target*: the same tenant, and a rule that admits it."""
    return source.tenant == target.tenant and any(
        rule.group == target.tier and rule.service == service and rule.source in (None, source.tier) for rule in RULES
    )


# ---- What is tried, and what is seen.

# Seconds to wait for an answer: long where one must come, on however busy a
# machine, short where a drop tells that none will.
PATIENCE = 10
IMPATIENCE = 1
TRIES = 3


@dataclass
class Attempt:
    """One try: by whom, at which address, who should answer, and what came of it.

    *target* is whom the source's tenant has at that address; None if nobody.
    """

    source: Member
    target: Member | None
    ip: str
    service: Service
    expected: bool
    reached: bool | None = None
    answered_by: str = ""
    seconds: float = 0.0
    refusal: Object | None = None

    @property
    def right(self) -> bool:
        if not self.expected:
            return self.reached is False
        return self.reached is True and self.answered_by in ("", self.target.full if self.target else "")


@dataclass
class Scene:
    """The lab with what runs in it."""

    lab: Lab
    workloads: dict[Member, Workload] = field(default_factory=dict)
    containers: dict[Member, Container] = field(default_factory=dict)
    stopped: threading.Event = field(default_factory=threading.Event)


def attempts() -> list[Attempt]:
    """Return everything to be tried, with what the policy says of it."""
    made = []
    for source in MEMBERS:
        if source.name == "vault":
            continue
        for target in MEMBERS:
            if target == source or (target.tenant != source.tenant and target.name != "vault"):
                # The other tenant's addresses are this tenant's own: who answers there tells them apart.
                continue
            own = target if target.tenant == source.tenant else None
            for service in SERVICES:
                for ip in target.ips:
                    made.append(Attempt(source, own, ip, service, admitted(source, target, service)))
    return made


def tenant(lab: Lab, name: str) -> Callable[[Member, Client], Object]:
    """Make a tenant's groups, networks and router; return what makes a port of it."""
    with Client(lab.url, project=name, roles="member") as client:
        groups = {tier: client.create("security_group", name=tier)["id"] for tier in TIERS}
        for rule in RULES:
            for version in (4, 6):
                wanted: dict[str, Any] = {"protocol": rule.service.proto}
                if rule.service is PING and version == 6:
                    wanted["protocol"] = "ipv6-icmp"
                if rule.service.port:
                    wanted |= {"port_range_min": rule.service.port, "port_range_max": rule.service.port}
                if rule.source:
                    wanted["remote_group_id"] = groups[rule.source]
                client.create("security_group_rule", security_group_id=groups[rule.group], direction="ingress",
                              ethertype=f"IPv{version}", **wanted)  # fmt: skip
        router = client.create("router", name=name)
        networks: dict[str, str] = {}
        subnets: dict[str, list[str]] = {}
        for tier, cidrs in TIERS.items():
            networks[tier] = client.create("network", name=tier)["id"]
            for cidr in cidrs:
                version = 6 if ":" in cidr else 4
                made = client.create("subnet", name=f"{tier}-{version}", network_id=networks[tier], cidr=cidr,
                                     ip_version=version)  # fmt: skip
                subnets.setdefault(tier, []).append(made["id"])
                client.add_interface(router["id"], subnet=made["id"])

    def port(member: Member, client: Client) -> Object:
        fixed = [
            {"subnet_id": subnet, "ip_address": ip} for subnet, ip in zip(subnets[member.tier], member.ips, strict=True)
        ]
        return client.create("port", name=member.full, network_id=networks[member.tier], fixed_ips=fixed,
                             security_groups=[groups[member.tier]])  # fmt: skip

    return port


def settle(scene: Scene, member: Member, port: Callable[[Member, Client], Object]) -> None:
    """Give a member its port, its namespace and its container, and wait until it can be reached."""
    lab = scene.lab
    with Client(lab.url, project=member.tenant, roles="member") as client:
        made = port(member, client)
    workload = lab.workload(lab.hosts[member.host], made["network_id"], name=member.full, port=made, wait=False)
    box = Container(lab.state, workload)
    # Both ports are served everywhere: where nobody answers, it is the policy's doing.
    servers = " ".join(f"httpd -f -p '[::]:{s.port}' -h /srv &" for s in SERVICES if s.port)
    box.run(f"{servers} wait", [("name", member.full)])
    scene.workloads[member], scene.containers[member] = workload.active(), box


def attempt(scene: Scene, one: Attempt) -> None:
    """Try one thing from inside the source's container, and note what came of it.

    Where nothing is to come of it, the hosts are asked meanwhile what they
    dropped: they tell the last packet for each reason, and another may follow.
    """
    for _ in range(TRIES):
        _try(scene, one)
        if one.reached or one.refusal or one.expected:
            return


def _try(scene: Scene, one: Attempt) -> None:
    patience = str(PATIENCE if one.expected else IMPATIENCE)
    if one.service is PING:
        command = ["ping", "-c1", f"-W{patience}", one.ip]
    else:
        at = f"[{one.ip}]" if ":" in one.ip else one.ip
        command = ["timeout", patience, "wget", "-q", "-O-", f"http://{at}:{one.service.port}/name"]
    began = time.monotonic()
    with scene.containers[one.source].popen(*command) as trying:
        while not one.expected and one.refusal is None and trying.poll() is None:
            one.refusal = refusal(scene, one, time.monotonic() - began)
            time.sleep(0.02)
        said, _ = trying.communicate()
    if trying.returncode and not one.expected and one.refusal is None:
        # It may have ended between two looks.
        one.refusal = refusal(scene, one, time.monotonic() - began)
    if trying.returncode not in (0, 1, 143):
        raise Unavailable(f"{' '.join(command)} in {one.source.full} ended with {trying.returncode}: {said.strip()}")
    one.reached = trying.returncode == 0
    if one.service is not PING:
        one.answered_by = said.strip() if one.reached else ""
    elif found := re.search(r"time=([\d.]+) ms", said):
        one.seconds = float(found[1]) / 1000


def refusal(scene: Scene, one: Attempt, since: float) -> Object | None:
    """Return the drop that the attempt met in these last seconds, as the hosts of its target and source tell it."""
    for member in (one.target, one.source):
        if member is None:
            continue
        for drop in scene.workloads[member].drops():
            last = drop.get("last") or {}
            # Where nobody has the address, it is the question for it that is dropped; that has no port.
            if (
                last.get("dst") == one.ip
                and last.get("src") in one.source.ips
                and last.get("dst_port") in (one.service.port, None)
                and last.get("seen_seconds_ago", since) <= since
            ):
                return drop
    return None


def together(scene: Scene, work: Callable[[Any], None], items: Iterable[Any], threads: int) -> None:
    """Do *work* on all items, several at once; the first fault stops it.

    The main thread only sleeps meanwhile: were it to wait for a future, Ctrl-C
    could reach it while it holds the lock that the future's thread needs.
    """
    wanted = list(items)
    ended: list[Any] = []
    faults: list[BaseException] = []

    def one(item: Any) -> None:
        try:
            if not scene.stopped.is_set():
                work(item)
        except BaseException as fault:  # the main thread raises it
            faults.append(fault)
        ended.append(item)

    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in wanted:
                pool.submit(one, item)
            while len(ended) < len(wanted) and not faults:
                time.sleep(0.02)
        except BaseException:
            scene.stopped.set()
            raise
        if faults:
            scene.stopped.set()
    if faults:
        raise faults[0]


def try_all(scene: Scene, all_attempts: list[Attempt], note: Callable[[], None]) -> None:
    """Try everything: different targets at once, the same one in turn, so that its last drop is the attempt's."""
    by_target: dict[str, list[Attempt]] = {}
    for one in all_attempts:
        by_target.setdefault(one.target.full if one.target else f"{one.source.full}?", []).append(one)

    def in_turn(turn: list[Attempt]) -> None:
        for one in turn:
            if not scene.stopped.is_set():
                attempt(scene, one)
                note()

    together(scene, in_turn, by_target.values(), len(by_target))


@dataclass(frozen=True)
class Speed:
    """How fast one workload reaches another."""

    source: Member
    target: Member
    way: str
    milliseconds: float
    gigabits: float


def measure(scene: Scene, source: Member, target: Member) -> Speed:
    box, ip = scene.containers[source], target.ips[0]
    said = box.exec("ping", "-q", "-c20", "-i0.02", ip).stdout
    found = re.search(r"= [\d.]+/([\d.]+)/", said)
    port = next(s.port for s in SERVICES if s.port and admitted(source, target, s))
    began = time.monotonic()
    box.exec("wget", "-q", "-O/dev/null", f"http://{ip}:{port}/large")
    took = time.monotonic() - began
    where = "same host" if source.host == target.host else "across hosts"
    how = "switched" if source.tier == target.tier else "routed"
    return Speed(source, target, f"{how}, {where}", float(found[1]) if found else 0.0, container.LARGE * 8 / took / 1e9)


# ---- Telling.


def matrix(name: str, tried: Iterable[Attempt]) -> Table:
    """Return a tenant's table: a row a source, a column a target; each line in a cell is both families."""
    mine = [one for one in tried if one.source.tenant == name]
    table = Table(title=f"tenant {name}: who reached whom, over IPv4 and IPv6", title_justify="left",
                  title_style="bold", show_lines=True)  # fmt: skip
    table.add_column("from")
    targets = {one.target: one for one in mine}
    for target in targets:
        table.add_column(f"to {target.name} (h{target.host + 1})" if target else "to the other’s vault")
    for source in dict.fromkeys(one.source for one in mine):
        cells = [Text(f"{source.name} (h{source.host + 1})")]
        for target in targets:
            lines = []
            for service in SERVICES:
                both = [one for one in mine if (one.source, one.target, one.service) == (source, target, service)]
                if both:
                    lines.append(outcome(service, both))
            cells.append(Text("\n").join(lines) if lines else Text("·", style="dim"))
        table.add_row(*cells)
    return table


def outcome(service: Service, both: list[Attempt]) -> Text:
    """Return one line: what came of trying a service over both families."""
    if not all(one.right for one in both):
        return Text(f"{service.name} WRONG", style="bold red")
    if both[0].expected:
        quickest = min(one.seconds for one in both) * 1000
        return Text(f"{service.name} ✓" + (f" {quickest:.2f} ms" if quickest else ""), style="green")
    return Text(f"{service.name} {'refused' if both[0].target else 'nobody there'}", style="yellow")


def speeds(measured: Iterable[Speed]) -> Table:
    table = Table(title="how fast", title_justify="left", title_style="bold")
    for name in ("from", "to", "way"):
        table.add_column(name)
    table.add_column("round trip", justify="right")
    table.add_column("HTTP download", justify="right")
    for one in measured:
        table.add_row(
            one.source.full, one.target.full, one.way, f"{one.milliseconds:.3f} ms", f"{one.gigabits:.1f} Gbit/s"
        )
    return table


def refusals(tried: Iterable[Attempt], names: dict[str, str]) -> Table:
    """Return what was refused and why, as the hosts tell it; IPv4 and IPv6 in one row."""
    table = Table(title="what was refused, and by which rule", title_justify="left", title_style="bold")
    for name in ("tenant", "from", "to", "what", "reason"):
        table.add_column(name, no_wrap=True)
    table.add_column("why", overflow="fold")
    seen: set[tuple[str, ...]] = set()
    for one in tried:
        to = one.target.name if one.target else "other’s vault"
        row = (one.source.tenant, one.source.name, to, one.service.name)
        if one.expected or one.refusal is None or row in seen:
            continue
        seen.add(row)
        why = str((one.refusal.get("last") or {}).get("why", ""))
        table.add_row(
            *row, str(one.refusal["reason"]), re.sub(r"[0-9a-f-]{36}", lambda id: names.get(id[0], id[0]), why)
        )
    return table


def what_next(lab: Lab) -> str:
    crossway = Path(sys.executable).with_name("crossway")
    if crossway.is_relative_to(Path.cwd()):
        crossway = crossway.relative_to(Path.cwd())
    return f"""The lab is still up. Try:
  export CROSSWAY_LAB={lab.name}
  {crossway} status
  {crossway} port list
  {crossway} lab exec {lab.name} red.web1 -- ping -c3 10.0.2.11
  {crossway} lab exec {lab.name} blue.web1 -- wget -qO- http://10.0.2.11:5432/name
  {crossway} group list
  {crossway} drops
  {crossway} lab impair {lab.name} h1 --delay 20ms --loss 1%
  {crossway} lab cut {lab.name} h3; {crossway} host list; {crossway} lab heal {lab.name} h3
and end it with
  {crossway} lab down {lab.name}"""


def play(lab: Lab, console: Console) -> bool:
    """Build the tenants, try everything, tell it; return whether all was as the policy says."""
    scene = Scene(lab)
    container.prepare(lab.state)
    with console.status("two tenants with the same addresses: networks, routers, groups"):
        ports = {name: tenant(lab, name) for name in TENANTS}
    with console.status(f"{len(MEMBERS)} containers"):
        together(scene, lambda member: settle(scene, member, ports[member.tenant]), MEMBERS, 4)
    tried = attempts()
    done = 0

    with console.status("everybody tries to reach everybody") as status:

        def note() -> None:
            nonlocal done
            done += 1
            status.update(f"everybody tries to reach everybody: {done} of {len(tried)}")

        try_all(scene, tried, note)
    by_name = {m.full: m for m in MEMBERS}
    pairs = [("red.web1", "red.web2"), ("red.web1", "red.db1"), ("blue.web2", "blue.vault")]
    with console.status("how fast is it?"):
        measured = [measure(scene, by_name[a], by_name[b]) for a, b in pairs]
    for name in TENANTS:
        console.print(matrix(name, tried))
    console.print(speeds(measured))
    names = {group["id"]: group["name"] for group in lab.client.list("security_groups")}
    console.print(refusals(tried, names))
    wrong = [one for one in tried if not one.right]
    untold = [one for one in tried if one.right and not one.expected and one.refusal is None]
    for one in wrong:
        said = f"answered by {one.answered_by}" if one.answered_by else "reached" if one.reached else "not reached"
        wanted = f"answered by {one.target.full}" if one.expected and one.target else "not reached"
        console.print(f"[red]{one.source.full} → {one.ip} {one.service.name}: {said}, should be {wanted}[/red]")
    for one in untold:
        console.print(f"[red]{one.source.full} → {one.ip} {one.service.name}: refused, but no host says why[/red]")
    if wrong or untold:
        console.print(f"[bold red]{len(wrong) + len(untold)} of {len(tried)} attempts did not end as the policy says")
        return False
    console.print(f"[green]all {len(tried)} attempts ended as the policy says[/green]")
    return True


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave the lab up and say what to try next")
    parser.add_argument("--name", default="demo", help="what the lab is called that stays")
    args = parser.parse_args()

    interruptible()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    if os.geteuid() != 0:
        console.print("the demo makes network namespaces: run it as root")
        sys.exit(1)
    name = None
    try:
        # What an earlier one left when it was killed.
        sweep()
        began = time.monotonic()
        with console.status("three hosts, a server, an outside"):
            lab = Lab.up(args.name if args.keep else None, hosts=3, stays=args.keep)
        name = lab.name
        console.print(f"three hosts with their agents and a server: up in {time.monotonic() - began:.1f} s")
        good = play(lab, console)
        lab.close()
        if good and args.keep:
            console.print(what_next(lab))
            name = None
        sys.exit(0 if good else 1)
    except KeyboardInterrupt:
        console.print("interrupted: taking everything down")
        sys.exit(130)
    except Fault as fault:
        console.print(f"[bold red]the demo failed:[/bold red] {fault}", markup=True)
        if name:
            for log in sorted(Path(f"/run/crossway/lab/{name}").glob("*/*.log")):
                console.print(f"{log.name} of {log.parent.name}: {last_words(log, 3)}", markup=False)
        sys.exit(1)
    finally:
        if name:
            down(name)


if __name__ == "__main__":
    main()
