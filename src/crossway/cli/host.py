"""crossway host: the machines that carry the network."""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import ip_address
from typing import TYPE_CHECKING, Annotated

import typer

from crossway.cli import show
from crossway.cli.options import HostName, Json, LabName, Run, Server, agent, client, given
from crossway.errors import Conflict, Invalid, NotFound
from crossway.model.port import ATTACHED

if TYPE_CHECKING:
    from crossway.client import Client, Object, Objects

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


NetworkName = Annotated[str, typer.Argument(metavar="NETWORK", help="Its name or id.")]


@app.command("attach")
def attach_host(
    network: NetworkName,
    ifname: Annotated[str | None, typer.Option(help="What the interface is called; cw-NETWORK if not said.")] = None,
    groups: Annotated[list[str] | None, typer.Option("--group", help="A security group; may be repeated.")] = None,
    ips: Annotated[list[str] | None, typer.Option("--ip", help="An address of its own choosing; repeatable.")] = None,
    routes: Annotated[list[str] | None, typer.Option("--route", metavar="PREFIX", help="Where the network's gateway "
                                                     "leads the host; repeatable.")] = None,
    default: Annotated[bool, typer.Option("--default-route", help="Have the network's gateway lead the host "
                                          "everywhere, in place of its own default route.")] = False,
    host: HostName = None,
    run: Run = None,
    server: Server = None,
    lab: LabName = None,
    json: Json = False,
) -> None:  # fmt: skip
    """Give this host itself an interface on a network; the same again changes nothing."""
    ask, on = client(server, lab), agent(host, lab, run)
    found = ask.find("network", network)
    name = str(on.status()["host"])
    there = _attached(ask, name, found)
    project = found.get("project_id") or None
    chosen = [ask.find("security_group", group, **given(project_id=project))["id"] for group in groups or ()]
    if there:
        port = there[0]
        _same(port, name, network, chosen, ips or ())
    else:
        attrs = given(
            project_id=project,
            security_groups=chosen or None,
            fixed_ips=[{"ip_address": ip} for ip in ips] if ips else None,
        )
        port = ask.create("port", name=name, network_id=found["id"], device_owner=ATTACHED, device_id=name, **attrs)
    try:
        told = on.attach(port["id"], ifname or _ifname(found), default=default, routes=routes or ())
        with show.waiting(f"waiting until {name} is reachable on {network}"):
            told["status"] = ask.wait("port", port["id"])["status"]
    except BaseException:
        if not there:
            ask.delete("port", port["id"])
        raise
    show.one(told, json)


@app.command("detach")
def detach_host(
    network: NetworkName,
    host: HostName = None,
    run: Run = None,
    server: Server = None,
    lab: LabName = None,
) -> None:
    """Take away the interface that this host has on a network, and its port."""
    ask, on = client(server, lab), agent(host, lab, run)
    name = str(on.status()["host"])
    there = _attached(ask, name, ask.find("network", network))
    if not there:
        raise NotFound("interface", f"of {name} on network {network}")
    for port in there:
        on.unplug(port["id"])
        ask.delete("port", port["id"])


def _attached(ask: Client, host: str, network: Object) -> Objects:
    return ask.list("ports", device_owner=ATTACHED, device_id=host, network_id=network["id"])


def _same(port: Object, host: str, network: str, groups: Sequence[str], ips: Sequence[str]) -> None:
    """Raise Conflict if what is asked for is not what is there."""
    own = {ip["ip_address"] for ip in port["fixed_ips"]}
    if other := {_plain(ip) for ip in ips} - own:
        raise Conflict(f"{host} is on network {network} already, with {' '.join(sorted(own))}, not {' '.join(other)}; "
                       f"`crossway host detach {network}` first")  # fmt: skip
    if groups and set(groups) != set(port["security_groups"]):
        raise Conflict(f"{host} is on network {network} already, with other groups; "
                       f"`crossway port set {port['id']} --group …` gives it these")  # fmt: skip


def _plain(ip: str) -> str:
    try:
        return str(ip_address(ip))
    except ValueError:
        raise Invalid(f"{ip!r} is no IP address") from None


def _ifname(network: Object) -> str:
    """Return what an interface on a network is called: as a link may be, of at most 15 characters."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", str(network["name"] or network["id"]))
    return f"cw-{name}"[:15]
