"""crossway host: the machines that carry the network."""

from __future__ import annotations

from typing import Annotated

import typer

from crossway.cli import show
from crossway.cli.options import Json, LabName, Server, client

app = typer.Typer(help="Hosts: the machines that carry the network.", no_args_is_help=True)

COLUMNS: list[show.Column] = [
    ("NAME", lambda h: h["name"]),
    ("UNDERLAY", lambda h: h["underlay"]),
    ("PHYSNETS", lambda h: [f"{name}={device}" for name, device in h["physnets"].items()]),
    ("ALIVE", lambda h: h["alive"]),
    ("APPLIED", lambda h: h["applied"]),
    ("SEEN", lambda h: h["seen_at"]),
]


@app.command("list")
def list_hosts(server: Server = None, lab: LabName = None, json: Json = False) -> None:
    """List hosts, and whether they live."""
    rows = client(server, lab).hosts()
    show.table(rows, COLUMNS, json, "no hosts: start one with `crossway agent`")


@app.command("forget")
def forget_host(
    host: Annotated[str, typer.Argument(metavar="HOST", help="Its name.")], server: Server = None, lab: LabName = None
) -> None:
    """Forget a host that is gone for good and has no ports."""
    client(server, lab).forget_host(host)
