"""crossway drops: what was stopped, and why."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crossway.cli import show
from crossway.cli.options import HostName, Json, LabName, Run, Server, agent, client, lab_state
from crossway.errors import Unavailable

if TYPE_CHECKING:
    from crossway.client import Client

PROTOCOLS = {0: "arp", 1: "icmp", 6: "tcp", 17: "udp", 58: "ipv6-icmp"}

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
        rows += [{"host": name, **drop} for drop in agent(name, lab, run).drops(id)]
    names = _names(ask) if rows else {}
    for row in rows:
        row["name"] = names.get(row["port"], "")
    if json:
        show.as_json(rows)
        return
    for row in rows:
        if last := row.get("last"):
            last["why"] = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", lambda id: names.get(id[0], id[0]), last["why"])
    show.table(rows, COLUMNS, json, "nothing was dropped")


def _names(ask: Client) -> dict[str, str]:
    """Return the names of ports, groups and networks by their ids, as far as a server can be asked."""
    try:
        kinds = [ask.list(kind, fields=["id", "name"]) for kind in ("ports", "security_groups", "networks")]
    except Unavailable:
        # The hosts know what they dropped, whether or not a server lives.
        return {}
    return {one["id"]: one["name"] for kind in kinds for one in kind if one["name"]}
