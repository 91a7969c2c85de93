"""crossway group: security groups and their rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from crossway.cli import show
from crossway.cli.options import Json, LabName, Project, Server, client, delete_all, given
from crossway.errors import Invalid

if TYPE_CHECKING:
    from crossway.client import Client

app = typer.Typer(help="Security groups: what may reach the ports in them.", no_args_is_help=True)

COLUMNS: list[show.Column] = [
    ("ID", lambda g: g["id"]),
    ("NAME", lambda g: g["name"]),
    ("PROJECT", lambda g: g.get("project_id")),
    ("STATEFUL", lambda g: g.get("stateful")),
    ("RULES", lambda g: len(g.get("security_group_rules", []))),
]
RULE_COLUMNS: list[show.Column] = [
    ("ID", lambda r: r["id"]),
    ("WAY", lambda r: "in" if r["direction"] == "ingress" else "out"),
    ("FAMILY", lambda r: r["ethertype"]),
    ("WHAT", lambda r: what(r)),
    ("REMOTE", lambda r: r.get("remote_ip_prefix") or r.get("remote_group") or r.get("remote_group_id") or "anyone"),
]
Name = Annotated[str, typer.Argument(metavar="GROUP", help="Its name or id.")]


def what(rule: dict[str, Any]) -> str:
    """Return what a rule is for, in one word: any, icmp, tcp/80, udp/5000-5010."""
    proto = rule.get("protocol") or "any"
    low, high = rule.get("port_range_min"), rule.get("port_range_max")
    if low is None and high is None:
        return str(proto)
    if str(proto).startswith(("icmp", "ipv6-icmp")):
        return f"{proto} type {low}" + (f" code {high}" if high is not None else "")
    return f"{proto}/{low}" if low == high else f"{proto}/{low}-{high}"


def ports(text: str) -> tuple[int, int]:
    """Read `80` or `8000-8010`."""
    low, _, high = text.partition("-")
    if not low.isdecimal() or (high and not high.isdecimal()):
        raise Invalid(f"{text!r} is neither a port nor a range: write it as 80 or 8000-8010")
    return int(low), int(high or low)


@app.command("list")
def list_groups(server: Server = None, lab: LabName = None, project: Project = None, json: Json = False) -> None:
    """List security groups."""
    rows = client(server, lab).list("security_groups", **given(project_id=project))
    show.table(rows, COLUMNS, json, "no groups: make one with `crossway group create NAME`")


@app.command("show")
def show_group(group: Name, server: Server = None, lab: LabName = None, json: Json = False) -> None:
    """Show a security group and its rules."""
    ask = client(server, lab)
    found = ask.find("security_group", group)
    if json:
        show.as_json(found)
        return
    rules = found.pop("security_group_rules", [])
    show.one(found, json)
    names = {g["id"]: g["name"] for g in ask.list("security_groups", fields=["id", "name"])}
    for rule in rules:
        rule["remote_group"] = names.get(rule.get("remote_group_id"))
    show.table(rules, RULE_COLUMNS, json, "no rules: nothing passes")


@app.command("create")
def create_group(
    name: Annotated[str, typer.Argument(help="What to call it.")],
    description: Annotated[str | None, typer.Option(help="What it is for.")] = None,
    stateful: Annotated[bool | None, typer.Option("--stateful/--stateless", help="Whether answers pass by themselves.")]
        = None,
    project: Project = None,
    server: Server = None,
    lab: LabName = None,
    json: Json = False,
) -> None:  # fmt: skip
    """Create a security group; it lets everything out and nothing in."""
    attrs = given(description=description, stateful=stateful, project_id=project)
    show.one(client(server, lab).create("security_group", name=name, **attrs), json)


@app.command("set")
def set_group(
    group: Name,
    name: Annotated[str | None, typer.Option(help="Another name.")] = None,
    description: Annotated[str | None, typer.Option(help="What it is for.")] = None,
    server: Server = None,
    lab: LabName = None,
    json: Json = False,
) -> None:
    """Change a security group's name or description; see allow and forbid for its rules."""
    ask = client(server, lab)
    found = ask.find("security_group", group)
    show.one(ask.update("security_group", found["id"], **given(name=name, description=description)), json)


@app.command("delete")
def delete_groups(
    groups: Annotated[list[str], typer.Argument(metavar="GROUP…", help="Names or ids.")],
    server: Server = None,
    lab: LabName = None,
) -> None:
    """Delete security groups, in which no port may be any more."""
    delete_all(client(server, lab), "security_group", groups)


@app.command("allow")
def allow(
    group: Name,
    protocol: Annotated[str, typer.Argument(help="tcp, udp, icmp, ipv6-icmp, a number, or any.")] = "any",
    port: Annotated[str | None, typer.Argument(help="A port or a range, as 80 or 8000-8010.")] = None,
    remote: Annotated[
        str | None, typer.Option("--from", "--to", help="A prefix or a group; without it, anyone.")
    ] = None,
    out: Annotated[bool, typer.Option("--out/--in", help="From the ports in it, or to them.")] = False,
    family: Annotated[int | None, typer.Option(help="4 or 6; without it, what the prefix says, or both.")] = None,
    server: Server = None,
    lab: LabName = None,
    json: Json = False,
) -> None:
    """Let something through: one rule, or two when it is for IPv4 and IPv6."""
    ask = client(server, lab)
    found = ask.find("security_group", group)
    attrs: dict[str, Any] = {"security_group_id": found["id"], "direction": "egress" if out else "ingress"}
    if protocol != "any":
        attrs["protocol"] = protocol
    if port is not None:
        attrs["port_range_min"], attrs["port_range_max"] = ports(port)
    families = _families(ask, attrs, remote, family, found.get("project_id"))
    show.table([ask.create("security_group_rule", ethertype=f"IPv{f}", **attrs) for f in families],
               RULE_COLUMNS, json, "")  # fmt: skip


@app.command("forbid")
def forbid(
    rules: Annotated[
        list[str], typer.Argument(metavar="RULE…", help="Ids of rules, as `crossway group show` has them.")
    ],
    server: Server = None,
    lab: LabName = None,
) -> None:
    """Take rules away; what they alone let through ends at once."""
    ask = client(server, lab)
    for rule in rules:
        ask.delete("security_group_rule", rule)


def _families(
    ask: Client, attrs: dict[str, Any], remote: str | None, family: int | None, project: str | None
) -> list[int]:
    """Write the remote into *attrs* and return the families that the rule is for."""
    if family not in (None, 4, 6):
        raise Invalid(f"the family is 4 or 6, not {family}")
    if remote and "/" in remote:
        attrs["remote_ip_prefix"] = remote
        return [6 if ":" in remote else 4]
    if remote:
        attrs["remote_group_id"] = ask.find("security_group", remote, **given(project_id=project))["id"]
    if attrs.get("protocol") == "icmp":
        return [family or 4]
    if attrs.get("protocol") in ("ipv6-icmp", "icmpv6"):
        return [6]
    return [family] if family else [4, 6]
