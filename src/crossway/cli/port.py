"""crossway port: where workloads attach, and giving them a body on a host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from crossway.cli import show
from crossway.cli.options import (
    HostName,
    Json,
    LabName,
    Project,
    Run,
    Server,
    agent,
    client,
    delete_all,
    given,
    lab_state,
)
from crossway.errors import Conflict, Fault, Invalid, NotFound, Unavailable

if TYPE_CHECKING:
    from crossway.client import Client

app = typer.Typer(help="Ports: where containers, machines and servers attach.", no_args_is_help=True)

COLUMNS: list[show.Column] = [
    ("ID", lambda p: p["id"]),
    ("NAME", lambda p: p["name"] or p.get("device_owner")),
    ("MAC", lambda p: p["mac_address"]),
    ("ADDRESSES", lambda p: [ip["ip_address"] for ip in p["fixed_ips"]]),
    ("HOST", lambda p: p.get("binding:host_id")),
    ("STATUS", lambda p: p["status"]),
]
Name = Annotated[str, typer.Argument(metavar="PORT", help="Its name or id.")]
Groups = Annotated[list[str] | None, typer.Option("--group", help="A security group; may be repeated.")]
NoGroups = Annotated[bool, typer.Option("--no-groups", help="No security group: nothing is let through.")]
Pairs = Annotated[
    list[str] | None, typer.Option("--pair", help="Another address or prefix that it may send from; may be repeated.")
]


def _groups(ask: Client, groups: list[str] | None, none: bool, project: str | None) -> list[str] | None:
    if groups and none:
        raise Invalid("--group and --no-groups contradict each other")
    if none:
        return []
    # Each project has a group named default.
    of = given(project_id=project)
    return [ask.find("security_group", group, **of)["id"] for group in groups] if groups else None


@app.command("list")
def list_ports(
    network: Annotated[str | None, typer.Option(help="Only those of this network.")] = None,
    host: Annotated[str | None, typer.Option(help="Only those on this host.")] = None,
    project: Project = None,
    server: Server = None,
    lab: LabName = None,
    json: Json = False,
) -> None:
    """List ports."""
    ask = client(server, lab)
    of = ask.find("network", network)["id"] if network else None
    rows = ask.list("ports", **given(network_id=of, binding__host_id=host, project_id=project))
    show.table(rows, COLUMNS, json, "no ports: make one with `crossway port create NAME --network N`")


@app.command("show")
def show_port(port: Name, run: Run = None, server: Server = None, lab: LabName = None, json: Json = False) -> None:
    """Show all of one port; on its own host also what is published of it there."""
    found = client(server, lab).find("port", port)
    if published := _published(found, lab, run):
        found["published"] = published
    show.one(found, json)


def _published(port: dict[str, Any], lab: str | None, run: str | None) -> list[dict[str, Any]]:
    """Return what a port has published at addresses of its host, where that can be asked from here."""
    host = port.get("binding:host_id")
    try:
        told = agent(host if lab else None, lab, run).status()
    except Fault:
        return []
    return next((p.get("published", []) for p in told["ports"] if p["id"] == port["id"]), [])


@app.command("create")
def create_port(
    name: Annotated[str, typer.Argument(help="What to call it.")],
    network: Annotated[str, typer.Option(help="The network that it is on.")],
    ips: Annotated[list[str] | None, typer.Option("--ip", help="An address of its own choosing; repeatable.")] = None,
    mac: Annotated[str | None, typer.Option(help="A MAC of its own choosing.")] = None,
    groups: Groups = None,
    no_groups: NoGroups = False,
    pairs: Pairs = None,
    security: Annotated[bool | None, typer.Option("--security/--no-security",
                                                  help="Whether guard and firewall apply to it.")] = None,
    project: Project = None,
    server: Server = None,
    lab: LabName = None,
    json: Json = False,
) -> None:  # fmt: skip
    """Create a port; without --group it is in its project's group `default`."""
    ask = client(server, lab)
    found = ask.find("network", network)
    project = project or found.get("project_id")
    attrs = given(
        mac_address=mac,
        project_id=project,
        fixed_ips=[{"ip_address": ip} for ip in ips] if ips else None,
        security_groups=_groups(ask, groups, no_groups or security is False, project),
        allowed_address_pairs=[{"ip_address": pair} for pair in pairs] if pairs else None,
        port_security_enabled=security,
    )
    show.one(ask.create("port", name=name, network_id=found["id"], **attrs), json)


@app.command("set")
def set_port(
    port: Name,
    name: Annotated[str | None, typer.Option(help="Another name.")] = None,
    groups: Groups = None,
    no_groups: NoGroups = False,
    pairs: Pairs = None,
    up: Annotated[bool | None, typer.Option("--up/--down", help="Whether it carries packets.")] = None,
    security: Annotated[bool | None, typer.Option("--security/--no-security",
                                                  help="Whether guard and firewall apply to it.")] = None,
    server: Server = None,
    lab: LabName = None,
    json: Json = False,
) -> None:  # fmt: skip
    """Change a port; the groups given replace those it has."""
    ask = client(server, lab)
    found = ask.find("port", port)
    attrs = given(
        name=name,
        security_groups=_groups(ask, groups, no_groups or security is False, found.get("project_id")),
        allowed_address_pairs=[{"ip_address": pair} for pair in pairs] if pairs else None,
        admin_state_up=up,
        port_security_enabled=security,
    )
    show.one(ask.update("port", found["id"], **attrs), json)


@app.command("delete")
def delete_ports(
    ports: Annotated[list[str], typer.Argument(metavar="PORT…", help="Names or ids.")],
    server: Server = None,
    lab: LabName = None,
) -> None:
    """Delete ports; a body that one has goes with it."""
    delete_all(client(server, lab), "port", ports)


@app.command("plug")
def plug_port(
    port: Name,
    netns: Annotated[str | None, typer.Option(help="Put a veth's end into this network namespace; in a lab it is made "
                                                   "if it is not there.")] = None,
    ifname: Annotated[str, typer.Option(help="What the veth is called in there.")] = "eth0",
    tap: Annotated[str | None, typer.Option(help="Use this tap, made if it is not there.")] = None,
    queues: Annotated[int | None, typer.Option(help="How many queues a tap that is made has; 1 if not said.")] = None,
    vlan: Annotated[str | None, typer.Option(metavar="DEVICE:ID", help="Use this VLAN of a device.")] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Whether to wait until it is ACTIVE.")] = True,
    host: HostName = None,
    run: Run = None,
    server: Server = None,
    lab: LabName = None,
    json: Json = False,
) -> None:  # fmt: skip
    """Give a port its body on this host, or on a lab's host with --lab and --host."""
    if sum(body is not None for body in (netns, tap, vlan)) != 1:
        raise Invalid("name one body: --netns NAMESPACE, --tap NAME or --vlan DEVICE:ID")
    if queues is not None and tap is None:
        raise Invalid("only a tap has --queues")
    ask = client(server, lab)
    on = agent(host, lab, run)
    found = ask.find("port", port)
    body: dict[str, Any] = {}
    if netns is not None:
        body = {"netns": _lab_namespace(lab, netns) if lab else netns, "ifname": ifname}
    elif tap is not None:
        body = {"tap": tap, "queues": 1 if queues is None else queues}
    elif vlan is not None:
        device, colon, tag = vlan.rpartition(":")
        if not colon or not tag.isdecimal():
            raise Invalid(f"{vlan!r} is no VLAN of a device: write it as eth1:5")
        body = {"vlan": (device, int(tag))}
    plugged = on.plug(found["id"], **body)
    if wait:
        with show.waiting(f"waiting until port {port} is ACTIVE"):
            plugged["status"] = _waited(ask, found)
    show.one(plugged, json)


def _waited(ask: Client, port: dict[str, Any]) -> str:
    """Return a port's status once it is ACTIVE; one that is set down, or whose network is, will not be."""
    if not port["admin_state_up"] or not ask.show("network", port["network_id"])["admin_state_up"]:
        return str(ask.show("port", port["id"])["status"])
    return str(ask.wait("port", port["id"])["status"])


@app.command("unplug")
def unplug_port(
    port: Name,
    host: HostName = None,
    run: Run = None,
    server: Server = None,
    lab: LabName = None,
) -> None:
    """Take a port's body away; the port and its addresses stay."""
    ask = client(server, lab)
    found = ask.find("port", port)
    if lab and not host:
        host = found.get("binding:host_id") or None
        if host is None:
            return
    agent(host, lab, run).unplug(found["id"])


@app.command("publish")
def publish_port(
    port: Name,
    what: Annotated[list[str] | None, typer.Argument(
        metavar="[ADDRESS:]NUMBER[-NUMBER]:PORT[/udp]",
        help="Where on the host, and which port: 8080:80, 127.0.0.1:53:53/udp, [::]:8000-8010:80.")] = None,
    host: HostName = None,
    run: Run = None,
    server: Server = None,
    lab: LabName = None,
    json: Json = False,
) -> None:  # fmt: skip
    """Publish ports of a plugged port at its host's own addresses, in place of what is published of it now."""
    ask = client(server, lab)
    found = ask.find("port", port)
    wished = [_publication(text) for text in what or ()]
    on = agent(host or (found.get("binding:host_id") if lab else None), lab, run)
    show.table(on.publish(found["id"], *wished), _PUBLISHED, json, f"nothing of port {port} is published")


_PUBLISHED: list[show.Column] = [
    ("PROTOCOL", lambda p: p["proto"]),
    ("ADDRESS", lambda p: p["address"] or "all"),
    ("NUMBER", lambda p: p["at"]),
    ("PORT", lambda p: p["port"]),
]


def _publication(text: str) -> dict[str, Any]:
    """Read what is to be published, as Docker's `-p` has it."""
    import re

    found = re.fullmatch(r"(?:(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):)?(\d+)(?:-(\d+))?:(\d+)(?:/(tcp|udp))?", text)
    if found is None:
        raise Invalid(f"{text!r} is nothing that can be published, such as 8080:80 or 127.0.0.1:53:53/udp")
    six, four, at, until, port, proto = found.groups()
    return {"proto": proto or "tcp", "port": int(port), "address": six or four or "", "at": int(at),
            "until": int(until or at)}  # fmt: skip


@app.command("move")
def move_port(
    port: Name,
    to: Annotated[str, typer.Argument(metavar="HOST", help="The host to which it goes.")],
    prepare: Annotated[bool, typer.Option("--prepare", help="Only have the host know all that the port needs there, "
                                                            "so that its body can be plugged before.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Whether to wait until it is ACTIVE there.")] = True,
    server: Server = None,
    lab: LabName = None,
    json: Json = False,
) -> None:  # fmt: skip
    """Move a port to another host, with its addresses, its groups and its connections."""
    from crossway.client import path_of

    ask = client(server, lab)
    found = ask.find("port", port)
    at, bindings = found.get("binding:host_id"), f"{path_of('port', found['id'])}/bindings"
    alive = {host["name"]: host["alive"] for host in ask.hosts()}
    if to not in alive:
        raise NotFound("host", to)
    if at != to:
        if not prepare and not alive[to]:
            raise Conflict(f"host {to} has not been heard of lately, so that the port stays on {at or 'none'}; "
                           f"--prepare has it wait there")  # fmt: skip
        if to not in {b["host"] for b in ask.ask("GET", bindings)["bindings"]}:
            ask.ask("POST", bindings, {"binding": {"host": to}})
        # Edges tell each other of a bare-metal server's connections.
        if at and alive.get(at) and found.get("binding:vnic_type") != "baremetal":
            with show.waiting(f"waiting until {at} has told of the connections of {port}"):
                _told(ask, found["id"], at)
        if not prepare:
            ask.ask("PUT", f"{bindings}/{to}/activate")
            if wait:
                plug = f"`crossway port plug {port} …` on {to} gives it a body that it lacks there"
                try:
                    with show.waiting(f"waiting until port {port} is ACTIVE on {to}; {plug}"):
                        _waited(ask, found)
                except Unavailable as fault:
                    raise Unavailable(f"{fault}: it is on {to} now, and {plug}") from None
                if at:
                    ask.ask("DELETE", f"{bindings}/{at}")
    show.one(ask.show("port", found["id"]), json)


def _told(ask: Client, port: str, by: str, seconds: float = 5.0) -> None:
    """Wait until a host has told of a port's connections; one that does not in time has its port moved all the same."""
    import time

    end = time.monotonic() + seconds
    while by not in ask.handed_over(port) and time.monotonic() < end:
        time.sleep(0.02)


def _lab_namespace(lab: str, name: str) -> str:
    """Return the path of a lab's namespace, made if it is not there."""
    from crossway.lab import state, wire
    from crossway.lab.place import NETNS

    netns = state.netns_of(lab, name)
    if not (NETNS / netns).exists() and not (NETNS / name).exists() and "/" not in name:
        wire.add_namespace(lab_state(lab), name)
    path = NETNS / netns
    return str(path) if path.exists() else name
