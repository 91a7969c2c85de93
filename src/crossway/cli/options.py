"""What commands have in common: whom they ask, and how they are told to answer."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crossway import settings
from crossway.errors import Invalid, NotFound

if TYPE_CHECKING:
    from crossway.client import AgentClient, Client
    from crossway.lab.state import State

# Connections of this run; whoever runs a command closes it.
connections = ExitStack()


def _labs() -> list[str]:
    from crossway.lab import state

    return state.names()


# Its variable is read in `client`: a lab that is named goes before it.
Server = Annotated[
    str | None, typer.Option("--server", help=f"{settings.SERVER.what} ({settings.SERVER.variable})", metavar="URL")
]
LabName = Annotated[
    str | None,
    typer.Option(
        "--lab", help=settings.LAB.what, envvar=settings.LAB.variable, metavar="NAME", autocompletion=lambda: _labs()
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Answer in JSON, for programs.")]
Project = Annotated[str | None, typer.Option("--project", help="The project (tenant) that it belongs to.")]
HostName = Annotated[str | None, typer.Option("--host", help="The host of the lab that is meant.")]
Run = Annotated[
    str | None, typer.Option("--run", help=settings.RUN.what, envvar=settings.RUN.variable, metavar="DIRECTORY")
]


def client(server: str | None, lab: str | None) -> Client:
    """Return the client of the server that is meant: by --server, by a lab, by the environment, or the default one."""
    from crossway.client import Client

    if server is None and lab:
        server = lab_state(lab).url
    return connections.enter_context(Client(server or settings.SERVER.value(), who=settings.credentials()))


def lab_state(lab: str) -> State:
    from crossway.lab import state

    return state.load(lab)


def agent(host: str | None, lab: str | None, run: str | None) -> AgentClient:
    """Return the client of the agent that is meant: of a lab's host, or this machine's own."""
    from crossway.client import AgentClient

    if lab and host:
        return connections.enter_context(AgentClient(lab_state(lab).host(host).socket))
    if lab:
        hosts = ", ".join(h.name for h in lab_state(lab).hosts)
        raise Invalid(f"which host of lab {lab}? Name it with --host ({hosts})")
    if host:
        raise Invalid(f"the agent of {host} is asked on {host} itself; for a lab's host add --lab NAME")
    socket = f"{run or settings.RUN.default}/agent.sock"
    if not os.path.exists(socket):
        raise NotFound("agent", f"at {socket}; start it with `crossway up` or `crossway agent`, or name --lab or --run")
    return connections.enter_context(AgentClient(socket))


def given(**attrs: Any) -> dict[str, Any]:
    """Return the attributes about which something was said."""
    return {name: value for name, value in attrs.items() if value is not None}


def delete_all(ask: Client, kind: str, names: list[str]) -> None:
    """Delete all that are named, in turn, by names or ids."""
    for name in names:
        ask.delete(kind, ask.find(kind, name)["id"])
