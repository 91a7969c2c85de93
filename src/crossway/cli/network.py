"""crossway network: make, see and change networks."""

from __future__ import annotations

from typing import Annotated

import typer

from crossway.cli import show
from crossway.cli.options import Json, LabName, Project, Server, client, delete_all, given

app = typer.Typer(help="Networks: each one a broadcast domain of its own.", no_args_is_help=True)

COLUMNS: list[show.Column] = [
    ("ID", lambda n: n["id"]),
    ("NAME", lambda n: n["name"]),
    ("PROJECT", lambda n: n.get("project_id")),
    ("TYPE", lambda n: n.get("provider:network_type")),
    ("MTU", lambda n: n.get("mtu")),
    ("SUBNETS", lambda n: len(n.get("subnets", []))),
    ("STATUS", lambda n: n["status"]),
]
Name = Annotated[str, typer.Argument(metavar="NETWORK", help="Its name or id.")]


@app.command("list")
def list_networks(server: Server = None, lab: LabName = None, project: Project = None, json: Json = False) -> None:
    """List networks."""
    rows = client(server, lab).list("networks", **given(project_id=project))
    show.table(rows, COLUMNS, json, "no networks: make one with `crossway network create NAME`")


@app.command("show")
def show_network(network: Name, server: Server = None, lab: LabName = None, json: Json = False) -> None:
    """Show all of one network."""
    show.one(client(server, lab).find("network", network), json)


@app.command("create")
def create_network(
    name: Annotated[str, typer.Argument(help="What to call it.")],
    mtu: Annotated[int | None, typer.Option(help="Bytes of its largest IP packet.")] = None,
    external: Annotated[bool | None, typer.Option("--external", help="Routers may have their gateway on it.")] = None,
    shared: Annotated[bool | None, typer.Option("--shared", help="All projects may use it.")] = None,
    kind: Annotated[str | None, typer.Option("--type", help="vxlan, flat or vlan.")] = None,
    physnet: Annotated[str | None, typer.Option(help="The provider network that it is, for flat and vlan.")] = None,
    segment: Annotated[int | None, typer.Option(help="Its VLAN id, or its VNI.")] = None,
    port_security: Annotated[bool | None, typer.Option("--port-security/--no-port-security",
                                                       help="Whether its ports are guarded.")] = None,
    project: Project = None,
    server: Server = None,
    lab: LabName = None,
    json: Json = False,
) -> None:  # fmt: skip
    """Create a network."""
    attrs = given(
        mtu=mtu, shared=shared, port_security_enabled=port_security, project_id=project,
        **{"router:external": external, "provider:network_type": kind,
           "provider:physical_network": physnet, "provider:segmentation_id": segment},
    )  # fmt: skip
    show.one(client(server, lab).create("network", name=name, **attrs), json)


@app.command("set")
def set_network(
    network: Name,
    name: Annotated[str | None, typer.Option(help="Another name.")] = None,
    mtu: Annotated[int | None, typer.Option(help="Bytes of its largest IP packet.")] = None,
    up: Annotated[bool | None, typer.Option("--up/--down", help="Whether it carries packets.")] = None,
    shared: Annotated[bool | None, typer.Option("--shared/--no-shared", help="All projects may use it.")] = None,
    server: Server = None,
    lab: LabName = None,
    json: Json = False,
) -> None:
    """Change a network."""
    ask = client(server, lab)
    found = ask.find("network", network)
    attrs = given(name=name, mtu=mtu, admin_state_up=up, shared=shared)
    show.one(ask.update("network", found["id"], **attrs), json)


@app.command("delete")
def delete_networks(
    networks: Annotated[list[str], typer.Argument(metavar="NETWORK…", help="Names or ids.")],
    server: Server = None,
    lab: LabName = None,
) -> None:
    """Delete networks, which must have no ports left."""
    delete_all(client(server, lab), "network", networks)
