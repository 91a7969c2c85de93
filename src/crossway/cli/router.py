"""crossway router: what joins networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from crossway.cli import show
from crossway.cli.options import Json, LabName, Project, Server, client, delete_all, given
from crossway.cli.subnet import route
from crossway.errors import Invalid

if TYPE_CHECKING:
    from crossway.client import Client

app = typer.Typer(help="Routers: they join networks, on every host at once.", no_args_is_help=True)

COLUMNS: list[show.Column] = [
    ("ID", lambda r: r["id"]),
    ("NAME", lambda r: r["name"]),
    ("PROJECT", lambda r: r.get("project_id")),
    ("GATEWAY", lambda r: (r.get("external_gateway_info") or {}).get("network_id")),
    ("ROUTES", lambda r: [f"{one['destination']} via {one['nexthop']}" for one in r.get("routes", [])]),
    ("STATUS", lambda r: r["status"]),
]
Name = Annotated[str, typer.Argument(metavar="ROUTER", help="Its name or id.")]
Subnet = Annotated[str | None, typer.Argument(metavar="SUBNET", help="The subnet, by name or id.")]
Port = Annotated[str | None, typer.Option(help="A port that is, or is to be, its interface.")]


@app.command("list")
def list_routers(server: Server = None, lab: LabName = None, project: Project = None, json: Json = False) -> None:
    """List routers."""
    rows = client(server, lab).list("routers", **given(project_id=project))
    show.table(rows, COLUMNS, json, "no routers: make one with `crossway router create NAME`")


@app.command("show")
def show_router(router: Name, server: Server = None, lab: LabName = None, json: Json = False) -> None:
    """Show all of one router, with its interfaces."""
    ask = client(server, lab)
    found = ask.find("router", router)
    feet = ask.list("ports", device_id=found["id"])
    show.one({**found, "interfaces": [{"port": p["id"], "addresses": p["fixed_ips"]} for p in feet]}, json)


@app.command("create")
def create_router(
    name: Annotated[str, typer.Argument(help="What to call it.")],
    gateway: Annotated[str | None, typer.Option(help="The external network that leads outside.")] = None,
    project: Project = None,
    server: Server = None,
    lab: LabName = None,
    json: Json = False,
) -> None:
    """Create a router."""
    ask = client(server, lab)
    outside = {"network_id": ask.find("network", gateway)["id"]} if gateway else None
    show.one(ask.create("router", name=name, **given(project_id=project, external_gateway_info=outside)), json)


@app.command("set")
def set_router(
    router: Name,
    name: Annotated[str | None, typer.Option(help="Another name.")] = None,
    routes: Annotated[
        list[str] | None, typer.Option("--route", help="PREFIX=NEXTHOP; those given replace all.")
    ] = None,
    no_routes: Annotated[bool, typer.Option("--no-routes", help="Take all static routes away.")] = False,
    gateway: Annotated[str | None, typer.Option(help="The external network that leads outside, or `none`.")] = None,
    up: Annotated[bool | None, typer.Option("--up/--down", help="Whether it carries packets.")] = None,
    server: Server = None,
    lab: LabName = None,
    json: Json = False,
) -> None:
    """Change a router."""
    ask = client(server, lab)
    found = ask.find("router", router)
    attrs = given(name=name, admin_state_up=up, routes=[route(r) for r in routes] if routes else None)
    if no_routes:
        attrs["routes"] = []
    if gateway is not None:
        named = gateway != "none"
        attrs["external_gateway_info"] = {"network_id": ask.find("network", gateway)["id"]} if named else None
    show.one(ask.update("router", found["id"], **attrs), json)


@app.command("delete")
def delete_routers(
    routers: Annotated[list[str], typer.Argument(metavar="ROUTER…", help="Names or ids.")],
    server: Server = None,
    lab: LabName = None,
) -> None:
    """Delete routers, which must have no interfaces left."""
    delete_all(client(server, lab), "router", routers)


@app.command("add")
def add_interface(
    router: Name, subnet: Subnet = None, port: Port = None, server: Server = None, lab: LabName = None,
    json: Json = False,
) -> None:  # fmt: skip
    """Join a router to a subnet, with the subnet's gateway address, or by a port."""
    ask = client(server, lab)
    found = ask.find("router", router)
    show.one(ask.add_interface(found["id"], **_foot(ask, subnet, port)), json)


@app.command("remove")
def remove_interface(
    router: Name, subnet: Subnet = None, port: Port = None, server: Server = None, lab: LabName = None
) -> None:
    """Part a router from a subnet."""
    ask = client(server, lab)
    ask.remove_interface(ask.find("router", router)["id"], **_foot(ask, subnet, port))


def _foot(ask: Client, subnet: str | None, port: str | None) -> dict[str, str]:
    if (subnet is None) == (port is None):
        raise Invalid("name either a subnet or, with --port, a port")
    if subnet is not None:
        return {"subnet": ask.find("subnet", subnet)["id"]}
    return {"port": ask.find("port", port or "")["id"]}
