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
from crossway.model.user import ROLES
from crossway.model.user import user as checked

app = typer.Typer(help="Users of a server with auth basic, in its password file.", no_args_is_help=True)

File = Annotated[str, typer.Option("--file", metavar="FILE", help=settings.USERS.what, envvar=settings.USERS.variable)]
Name = Annotated[str, typer.Argument(metavar="USER", help="The user's name.")]
Roles = Annotated[
    list[str] | None, typer.Option("--role", metavar="ROLE", help=f"One of {', '.join(ROLES)}; may be repeated.")
]

COLUMNS: list[show.Column] = [
    ("NAME", lambda u: u["name"]),
    ("PROJECT", lambda u: u["project"]),
    ("ROLES", lambda u: ", ".join(u["roles"])),
]


@app.command("add")
def add_user(
    name: Name,
    project: Annotated[str, typer.Option("--project", help="The project (tenant) for which the user asks.")],
    role: Roles = None,
    file: File = settings.USERS.default,
) -> None:
    """Add a user; the password is asked for, or read from standard input.

    Without --role the user is a member of the project.
    """
    from crossway.store import users

    hash = users.hashed(_password())
    users.add(Path(file), checked(name, hash, project, tuple(role or ["member"])))


@app.command("list")
def list_users(file: File = settings.USERS.default, json: Json = False) -> None:
    """List users with their projects and roles."""
    from crossway.store import users

    rows = [{"name": u.name, "project": u.project, "roles": list(u.roles)} for u in users.read(Path(file)).values()]
    show.table(rows, COLUMNS, json, "no users: make one with `crossway user add USER --project PROJECT`")


@app.command("set")
def set_user(
    name: Name,
    password: Annotated[
        bool, typer.Option("--password", help="Ask for another password, or read it from standard input.")
    ] = False,
    project: Annotated[str | None, typer.Option("--project", help="Another project.")] = None,
    role: Roles = None,
    file: File = settings.USERS.default,
) -> None:
    """Change a user's password, project or roles; running servers take it in within a second."""
    from crossway.store import users

    if not (password or project or role):
        raise Invalid("what should change? Say --password, --project or --role")
    users.change(Path(file), name, users.hashed(_password()) if password else None, project, tuple(role or ()))


@app.command("delete")
def delete_user(name: Name, file: File = settings.USERS.default) -> None:
    """Delete a user."""
    from crossway.store import users

    users.delete(Path(file), name)


def _password() -> str:
    """Return a password from the terminal, said twice, or the first line of standard input."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    said = getpass.getpass("Password: ")
    if said != getpass.getpass("Again: "):
        raise Invalid("the two passwords differ")
    return said
