"""crossway subnet: the addresses of networks."""

from __future__ import annotations

from typing import Annotated

import typer

from crossway.cli import show
from crossway.cli.options import Json, LabName, Project, Server, client, delete_all, given
from crossway.errors import Invalid

app = typer.Typer(help="Subnets: the addresses of a network.", no_args_is_help=True)

COLUMNS: list[show.Column] = [
    ("ID", lambda s: s["id"]),
    ("NAME", lambda s: s["name"]),
    ("NETWORK", lambda s: s["network_id"]),
    ("CIDR", lambda s: s["cidr"]),
    ("GATEWAY", lambda s: s["gateway_ip"]),
    ("DNS", lambda s: s["dns_nameservers"]),
]
Name = Annotated[str, typer.Argument(metavar="SUBNET", help="Its name or id.")]
Gateway = Annotated[str | None, typer.Option(help="The gateway's address, or `none`.")]
Dns = Annotated[list[str] | None, typer.Option(help="A name server; may be repeated.")]
Routes = Annotated[list[str] | None, typer.Option("--route", help="PREFIX=NEXTHOP for its workloads; may be repeated.")]
Pools = Annotated[list[str] | None, typer.Option("--pool", help="FIRST-LAST: hand out these; may be repeated.")]


def pool(text: str) -> dict[str, str]:
    start, dash, end = text.partition("-")
    if not dash:
        raise Invalid(f"{text!r} is no pool: write it as 10.0.0.100-10.0.0.200")
    return {"start": start.strip(), "end": end.strip()}


def route(text: str) -> dict[str, str]:
    destination, equals, nexthop = text.partition("=")
    if not equals:
        raise Invalid(f"{text!r} is no route: write it as 10.9.0.0/16=10.0.0.254")
    return {"destination": destination.strip(), "nexthop": nexthop.strip()}


@app.command("list")
def list_subnets(
    network: Annotated[str | None, typer.Option(help="Only those of this network.")] = None,
    server: Server = None,
    lab: LabName = None,
    json: Json = False,
) -> None:
    """List subnets."""
    ask = client(server, lab)
    of = ask.find("network", network)["id"] if network else None
    rows = ask.list("subnets", **given(network_id=of))
    show.table(rows, COLUMNS, json, "no subnets: make one with `crossway subnet create NAME --network N --cidr PREFIX`")


@app.command("show")
def show_subnet(subnet: Name, server: Server = None, lab: LabName = None, json: Json = False) -> None:
    """Show all of one subnet."""
    show.one(client(server, lab).find("subnet", subnet), json)


@app.command("create")
def create_subnet(
    name: Annotated[str, typer.Argument(help="What to call it.")],
    network: Annotated[str, typer.Option(help="The network that it belongs to.")],
    cidr: Annotated[str, typer.Option(help="Its prefix, as 10.0.0.0/24 or 2001:db8:1::/64.")],
    gateway: Gateway = None,
    dns: Dns = None,
    routes: Routes = None,
    pools: Pools = None,
    project: Project = None,
    server: Server = None,
    lab: LabName = None,
    json: Json = False,
) -> None:
    """Create a subnet."""
    ask = client(server, lab)
    found = ask.find("network", network)
    attrs = given(
        project_id=project or found.get("project_id"),
        dns_nameservers=dns,
        host_routes=[route(r) for r in routes] if routes else None,
        allocation_pools=[pool(p) for p in pools] if pools else None,
    )
    if gateway is not None:
        attrs["gateway_ip"] = None if gateway == "none" else gateway
    attrs |= {"network_id": found["id"], "cidr": cidr, "ip_version": 6 if ":" in cidr else 4}
    show.one(ask.create("subnet", name=name, **attrs), json)


@app.command("set")
def set_subnet(
    subnet: Name,
    name: Annotated[str | None, typer.Option(help="Another name.")] = None,
    gateway: Gateway = None,
    dns: Dns = None,
    routes: Routes = None,
    pools: Pools = None,
    server: Server = None,
    lab: LabName = None,
    json: Json = False,
) -> None:
    """Change a subnet."""
    ask = client(server, lab)
    found = ask.find("subnet", subnet)
    attrs = given(
        name=name,
        dns_nameservers=dns,
        host_routes=[route(r) for r in routes] if routes else None,
        allocation_pools=[pool(p) for p in pools] if pools else None,
    )
    if gateway is not None:
        attrs["gateway_ip"] = None if gateway == "none" else gateway
    show.one(ask.update("subnet", found["id"], **attrs), json)


@app.command("delete")
def delete_subnets(
    subnets: Annotated[list[str], typer.Argument(metavar="SUBNET…", help="Names or ids.")],
    server: Server = None,
    lab: LabName = None,
) -> None:
    """Delete subnets, which no port may use any more."""
    delete_all(client(server, lab), "subnet", subnets)
