"""crossway status: is it well?"""

from __future__ import annotations

from collections import Counter
from typing import Any

from crossway.cli import show
from crossway.cli.options import Json, LabName, Run, Server, agent, client, lab_state
from crossway.errors import Fault, NotFound, Unavailable


def status(run: Run = None, server: Server = None, lab: LabName = None, json: Json = False) -> None:
    """Say how server, hosts and agents are; the exit code is 1 if a part is not well."""
    ask = client(server, lab)
    hosts = ask.hosts()
    ports = ask.list("ports", fields=["id", "status", "binding:host_id"])
    counts = Counter(p["status"] for p in ports if p.get("binding:host_id"))
    told: dict[str, Any] = {
        "server": ask.servers,
        "networks": len(ask.list("networks", fields=["id"])),
        "ports": {"bound": sum(counts.values()), **counts, "unbound": len(ports) - sum(counts.values())},
        "hosts": [{**host, "agent": _agent(host["name"], lab, run)} for host in hosts],
    }
    unwell = [h["name"] for h in told["hosts"] if not h["alive"]]
    if json:
        show.as_json(told)
    else:
        show.one({name: told[name] for name in ("server", "networks", "ports")}, json)
        show.table(told["hosts"], _COLUMNS, json, "no hosts: start one with `crossway agent`")
    if unwell:
        raise Unavailable(f"not alive: {', '.join(unwell)}; see the agent's log there")


_COLUMNS: list[show.Column] = [
    ("HOST", lambda h: h["name"]),
    ("UNDERLAY", lambda h: h["underlay"]),
    ("ALIVE", lambda h: h["alive"]),
    ("APPLIED", lambda h: h["applied"]),
    ("PORTS", lambda h: len(h["agent"]["ports"]) if h["agent"] else None),
    ("FULLEST TABLE", lambda h: _fullest(h["agent"])),
]


def _agent(host: str, lab: str | None, run: str | None) -> dict[str, Any] | None:
    """Return what a host's agent says of itself, where it can be asked from here."""
    if lab:
        try:
            lab_state(lab).host(host)
        except NotFound:
            return None
    try:
        told = agent(host if lab else None, lab, run).status()
    except Fault:
        return None
    return told if told.get("host") == host else None


def _fullest(agent: dict[str, Any] | None) -> str:
    # Arrays have no rows to count: they are there or not.
    tables = {name: use for name, use in agent["tables"].items() if use["rows"] is not None} if agent else {}
    if not tables:
        return ""
    name, use = max(tables.items(), key=lambda item: item[1]["rows"] / max(1, item[1]["max"]))
    return f"{name} {use['rows']} of {use['max']}"
