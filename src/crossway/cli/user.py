"""crossway user: the password file of `--auth basic`. It is changed on the server's machine, not through the API."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import Annotated

import typer

from crossway import settings
from crossway.cli import show
from crossway.cli.options import Json
from crossway.errors import Invalid
from crossway.model.user import ROLES, User
from crossway.model.user import user as checked

app = typer.Typer(help="Users of a server with auth basic, in its password file.", no_args_is_help=True)

File = Annotated[str, typer.Option("--file", metavar="FILE", help=settings.USERS.what, envvar=settings.USERS.variable)]
Name = Annotated[str, typer.Argument(metavar="USER", help="The user's name.")]
Roles = Annotated[
    list[str] | None, typer.Option("--role", metavar="ROLE", help=f"One of {', '.join(ROLES)}; may be repeated.")
]

Host = Annotated[
    str | None, typer.Option("--host", metavar="HOST", help="The host whose agent asks as this user, and for it alone.")
]

Physnets = Annotated[
    list[str] | None,
    typer.Option(
        "--physnet",
        metavar="PHYSNET",
        help="A physical network that the host may have (`crossway agent --physnet`), * being any; may be repeated.",
    ),
]
Underlays = Annotated[
    list[str] | None,
    typer.Option(
        "--underlay",
        metavar="ADDRESS",
        help="The underlay address that is kept for the host, which then has no other; may be repeated.",
    ),
]

COLUMNS: list[show.Column] = [
    ("NAME", lambda u: u["name"]),
    ("PROJECT", lambda u: u["project"]),
    ("ROLES", lambda u: ", ".join(u["roles"])),
    ("HOST", lambda u: u.get("host", "")),
    ("PHYSNETS", lambda u: ", ".join(u.get("physnets", ()))),
    ("UNDERLAY", lambda u: ", ".join(u.get("underlay", ()))),
]


@app.command("add")
def add_user(
    name: Name,
    project: Annotated[
        list[str] | None,
        typer.Option("--project", help="The project (tenant) for which the user asks; several, * or none for a host."),
    ] = None,
    role: Roles = None,
    host: Host = None,
    physnet: Physnets = None,
    underlay: Underlays = None,
    file: File = settings.USERS.default,
) -> None:
    """Add a user; the password is asked for, or read from standard input.

    Without --role the user is a member of the project. With --host it is that host's agent: its projects are those
    for whose containers and machines the host may make and fetch ports by itself, * being all; without one it has
    the ports that are bound to it by others. Of physical networks it has those of --physnet, and none without.
    """
    from crossway.store import users

    if not host and len(project or ()) != 1:
        raise Invalid(f"user {name} should have one --project; only a host may have several, or none")
    hash = users.hashed(_password())
    roles = tuple(role or ([] if host else ["member"]))
    named = checked(name, hash, ",".join(project or ()), roles, host or "", tuple(physnet or ()), tuple(underlay or ()))
    users.add(Path(file), named)


@app.command("list")
def list_users(file: File = settings.USERS.default, json: Json = False) -> None:
    """List users with their projects and roles."""
    from crossway.store import users

    rows = [
        {"name": u.name, "project": u.project, "roles": list(u.roles), **(_of_host(u) if u.host else {})}
        for u in users.read(Path(file)).values()
    ]
    show.table(rows, COLUMNS, json, "no users: make one with `crossway user add USER --project PROJECT`")


@app.command("set")
def set_user(
    name: Name,
    password: Annotated[
        bool, typer.Option("--password", help="Ask for another password, or read it from standard input.")
    ] = False,
    project: Annotated[
        list[str] | None, typer.Option("--project", help="Another project; several for a host, '' for none.")
    ] = None,
    role: Roles = None,
    host: Host = None,
    physnet: Physnets = None,
    underlay: Underlays = None,
    file: File = settings.USERS.default,
) -> None:
    """Change a user's password, project, roles or host; running servers take it in within a second.

    Who becomes a host has no role and no project any more but those that are said. --physnet '' and --underlay ''
    are none.
    """
    from crossway.store import users

    if not (password or project or role or host or physnet or underlay):
        raise Invalid("what should change? Say --password, --project, --role, --host, --physnet or --underlay")
    hash = users.hashed(_password()) if password else None
    projects = None if project is None else ",".join(project)
    users.change(Path(file), name, hash, projects, tuple(role or ()), host, _said(physnet), _said(underlay))


@app.command("delete")
def delete_user(name: Name, file: File = settings.USERS.default) -> None:
    """Delete a user."""
    from crossway.store import users

    users.delete(Path(file), name)


def _said(items: list[str] | None) -> tuple[str, ...] | None:
    """Return what an option says, '' being nothing; None if it is not there."""
    return None if items is None else tuple(item for item in items if item)


def _of_host(user: User) -> dict[str, object]:
    return {"host": user.host, "physnets": list(user.physnets), "underlay": list(user.addresses)}


def _password() -> str:
    """Return a password from the terminal, said twice, or the first line of standard input."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    said = getpass.getpass("Password: ")
    if said != getpass.getpass("Again: "):
        raise Invalid("the two passwords differ")
    return said
