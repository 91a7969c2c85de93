"""All commands, joined; and what becomes of a fault."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from crossway.cli import drops, group, host, lab, libvirt, network, policy, port, router, serve, status, subnet, user
from crossway.cli.options import connections
from crossway.errors import Fault, Invalid

app = typer.Typer(
    name="crossway",
    help="One virtual network for containers, virtual machines and bare-metal servers.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="markdown",
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"crossway {version('crossway')}")
        raise typer.Exit


@app.callback()
def crossway(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which.")] = False,
) -> None:
    """One virtual network for containers, virtual machines and bare-metal servers."""


app.command()(serve.up)
app.command()(serve.down)
app.command()(serve.server)
app.command()(serve.agent)
app.command()(serve.purge)
app.add_typer(lab.app, name="lab")
app.add_typer(network.app, name="network")
app.add_typer(subnet.app, name="subnet")
app.add_typer(port.app, name="port")
app.add_typer(router.app, name="router")
app.add_typer(group.app, name="group")
app.add_typer(host.app, name="host")
app.add_typer(libvirt.app, name="libvirt")
app.add_typer(user.app, name="user")
app.command()(status.status)
app.command()(drops.drops)
app.command()(policy.policy)


def run() -> None:
    """Run the command line; a fault is one line on standard error.

    The exit code is 2 for what can never be right, 1 for what failed now.
    """
    try:
        app()
    except Fault as fault:
        from crossway.cli.show import console

        console(error=True).print("[red]crossway:[/red]", end=" ")
        sys.stderr.write(f"{fault}\n")
        sys.exit(2 if isinstance(fault, Invalid) else 1)
    except BrokenPipeError:
        # Whoever read has seen enough.
        sys.stderr.close()
        sys.exit(141)
    finally:
        connections.close()
