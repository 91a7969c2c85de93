"""crossway server, agent, up: the parts that run for long. The only face that knows them from within."""

from __future__ import annotations

import socket as sockets
from pathlib import Path
from typing import Annotated

import typer

from crossway import settings
from crossway.cli.options import Run
from crossway.errors import Invalid

Listen = Annotated[
    list[str] | None,
    typer.Option(metavar="ADDRESS", help="HOST:PORT, unix:PATH or fd:NUMBER (a socket inherited); may be repeated."),
]
ReadyFd = Annotated[int | None, typer.Option(hidden=True, help="Write to this descriptor when ready.")]


def server(
    listen: Listen = None,
    store: Annotated[str, typer.Option(metavar="STORE", help="sqlite:PATH, or memory: for trying.")] = (
        f"sqlite:{settings.DATA.default}/cloud.db"
    ),
    auth: Annotated[str, typer.Option(metavar="AUTH", help="Who may ask: none takes everyone for an admin.")] = "none",
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Listen beyond loopback with auth none: the network is closed to others.")
    ] = False,
    ready_fd: ReadyFd = None,
) -> None:
    """Run a server: the API for people and tools, the views for hosts."""
    from crossway.api.server import run

    run(listen=listen or [settings.LISTEN.value()], store=store, auth=auth, ready_fd=ready_fd, insecure=insecure)


def agent(
    server: Annotated[
        str, typer.Option(help=settings.SERVER.what, envvar=settings.SERVER.variable, metavar="URL[,URL…]")
    ] = settings.SERVER.default,
    host: Annotated[str | None, typer.Option(help="This host's name; the machine's own if not said.")] = None,
    underlay: Annotated[str | None, typer.Option(metavar="ADDRESS", help="This host's address for the others.")] = None,
    physnet: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=DEVICE", help="A provider network and the device that leads to it; repeatable."),
    ] = None,
    run: Run = None,
    vxlan_port: Annotated[int, typer.Option(help="UDP port of the overlay, the same on all hosts.")] = 4789,
    ready_fd: ReadyFd = None,
) -> None:
    """Run the agent of this host."""
    from crossway.agent import run as run_agent

    if underlay is None:
        raise Invalid("which address do other hosts reach this one at? Name it with --underlay ADDRESS")
    run_agent(
        servers=[one.strip() for one in server.split(",")],
        host=host or sockets.gethostname(),
        underlay=underlay,
        physnets=physnets(physnet or []),
        run_dir=Path(run or settings.RUN.default),
        vxlan_port=vxlan_port,
        ready_fd=ready_fd,
    )


def physnets(pairs: list[str]) -> dict[str, str]:
    """Read NAME=DEVICE pairs."""
    read: dict[str, str] = {}
    for pair in pairs:
        name, equals, device = pair.partition("=")
        if not (name and equals and device):
            raise Invalid(f"{pair!r} is no provider network: write it as NAME=DEVICE, as in physnet1=eth1")
        read[name] = device
    return read
