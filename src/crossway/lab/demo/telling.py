"""Tell what came of it: who reached whom, how fast, and what was refused by which rule."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

from rich.table import Table
from rich.text import Text

from crossway.lab.demo.policy import KINDS, SERVICES, Attempt, Member, Service
from crossway.lab.demo.trial import Speed
from crossway.lab.lab import Lab


def place(member: Member) -> str:
    return f"{member.name} (h{member.host + 1})"


def matrix(name: str, tried: Iterable[Attempt]) -> Table:
    """Return a tenant's table: a row a source, a column a target; each line in a cell is both families."""
    mine = [one for one in tried if one.source.tenant == name]
    table = Table(title=f"tenant {name}: who reached whom, over IPv4 and IPv6", title_justify="left",
                  title_style="bold", show_lines=True)  # fmt: skip
    table.add_column("from")
    targets = sorted({one.whose: None for one in mine}, key=lambda target: target.tenant != name)
    for target in targets:
        own = target.tenant == name
        table.add_column(f"to {place(target)}" if own else f"to {target.tenant}’s {target.name}")
    for source in dict.fromkeys(one.source for one in mine):
        cells = [Text(f"{place(source)}\n") + Text(KINDS[source.kind], style="dim")]
        for target in targets:
            lines = []
            for service in SERVICES:
                both = [one for one in mine if (one.source, one.whose, one.service) == (source, target, service)]
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
    return Text(f"{service.name} {'refused' if both[0].target else 'nobody'}", style="yellow")


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
    """Return what was refused and why, as the hosts tell it: a row for each reason, with all who met it."""
    table = Table(title="what was refused, and by which rule", title_justify="left", title_style="bold")
    for name in ("tenant", "from", "to", "what", "reason"):
        table.add_column(name)
    table.add_column("why", overflow="fold")
    met: dict[tuple[str, ...], tuple[dict[str, None], dict[str, None]]] = {}
    for one in tried:
        if one.expected or one.refusal is None:
            continue
        why = str((one.refusal.get("last") or {}).get("why", ""))
        why = re.sub(r"[0-9a-f-]{36}", lambda id: names.get(id[0], id[0]), why)
        # Who it was stands in the row, and what was tried over both families is one thing.
        for ip in one.source.ips:
            why = why.replace(f"from {ip}, a", "from a")
        why = re.sub(r" (icmp|ipv6-icmp) type \d+ code \d+", " ping", why)
        to = one.whose.name if one.target else f"{one.whose.tenant}’s {one.whose.name}"
        row = (one.source.tenant, one.service.name, str(one.refusal["reason"]), why)
        sources, targets = met.setdefault(row, ({}, {}))
        sources[one.source.name] = targets[to] = None
    for (tenant, service, reason, why), (sources, targets) in sorted(met.items(), key=lambda row: row[0][0] != "red"):
        table.add_row(tenant, " ".join(sources), " ".join(targets), service, reason, why)
    return table


def what_next(lab: Lab) -> str:
    crossway = Path(sys.executable).with_name("crossway")
    if crossway.is_relative_to(Path.cwd()):
        crossway = crossway.relative_to(Path.cwd())
    docker = f"{crossway} lab docker {lab.name}"
    return f"""The lab is still up. Try:
  export CROSSWAY_LAB={lab.name}
  {crossway} status
  {crossway} port list
  {docker} h1-red ps
  {docker} h1-red exec web1 ping -c3 10.0.1.21
  {docker} h1-red run --rm --network web busybox wget -qO- http://10.0.1.31/name
  {docker} h1-blue exec web1 wget -qO- http://10.0.2.11:5432/name
  {docker} h1-blue network ls
  {crossway} lab exec {lab.name} metal -- ping -c3 10.0.2.11
  {crossway} group list
  {crossway} drops
  {crossway} lab impair {lab.name} h1 --delay 20ms --loss 1%
  {crossway} lab cut {lab.name} h3; {crossway} host list; {crossway} lab heal {lab.name} h3
and end it with
  {crossway} lab down {lab.name}"""
