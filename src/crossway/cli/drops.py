"""crossway drops: what was stopped, and why."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from crossway.cli import show
from crossway.cli.options import HostName, Json, LabName, Run, Server, agent, client, lab_state
from crossway.errors import Unavailable

PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "ipv6-icmp"}

COLUMNS: list[show.Column] = [
    ("HOST", lambda d: d.get("host")),
    ("PORT", lambda d: d.get("name") or d["port"]),
    ("REASON", lambda d: d["reason"]),
    ("PACKETS", lambda d: d["packets"]),
    ("LAST", lambda d: flow(d.get("last") or {})),
    ("AGO", lambda d: ago((d.get("last") or {}).get("seen_seconds_ago"))),
    ("WHY", lambda d: (d.get("last") or {}).get("why")),
]


def flow(last: dict[str, Any]) -> str:
    """Return a packet in one line: tcp 10.0.0.5:40000 → 10.0.0.6:80."""
    if not last.get("src"):
        return ""
    number = last.get("proto")
    proto = PROTOCOLS.get(number, str(number)) if isinstance(number, int) else str(number or "")
    src, dst = last["src"], last["dst"]
    if proto in ("tcp", "udp"):
        return f"{proto} {_with_port(src, last.get('src_port'))} → {_with_port(dst, last.get('dst_port'))}"
    return f"{proto} {src} → {dst}".strip()


def _with_port(ip: str, port: int | None) -> str:
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def ago(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds:.1f} s" if seconds < 60 else f"{seconds / 60:.0f} min"


def drops(
    port: Annotated[str | None, typer.Argument(help="Only of this port, by name or id.")] = None,
    host: HostName = None,
    run: Run = None,
    server: Server = None,
    lab: LabName = None,
    json: Json = False,
) -> None:
    """Tell what was stopped: how many packets, the last one, and by which rule's absence."""
    ask = client(server, lab)
    id = ask.find("port", port)["id"] if port else None
    hosts: list[str | None] = [host]
    if lab and not host:
        hosts = [h.name for h in lab_state(lab).hosts]
    rows: list[dict[str, Any]] = []
    for name in hosts:
        with agent(name, lab, run) as on:
            rows += [{"host": name, **drop} for drop in on.drops(id)]
    try:
        names = {p["id"]: p["name"] for p in ask.list("ports", fields=["id", "name"])} if rows else {}
    except Unavailable:
        # The hosts know what they dropped, whether or not a server lives.
        names = {}
    for row in rows:
        row["name"] = names.get(row["port"], "")
    show.table(rows, COLUMNS, json, "nothing was dropped")
