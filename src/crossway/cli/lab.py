"""crossway lab: several hosts on this one machine."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer

from crossway.cli import show
from crossway.cli.options import Json, lab_state
from crossway.errors import Invalid

app = typer.Typer(help="Labs: several hosts on this one machine.", no_args_is_help=True)


def _names() -> list[str]:
    from crossway.lab import state

    return state.names()


Name = Annotated[str, typer.Argument(metavar="NAME", help="The lab's name.", autocompletion=_names)]
Link = Annotated[str, typer.Argument(metavar="HOST|LINK", help="A host as h1, or one of its links as h1:under0.")]

COLUMNS: list[show.Column] = [
    ("NAME", lambda lab: lab["name"]),
    ("HOSTS", lambda lab: len(lab["hosts"])),
    ("URL", lambda lab: lab["url"]),
    ("SERVER", lambda lab: "up" if lab["server"]["alive"] else "dead"),
    ("AGENTS", lambda lab: f"{sum(h['alive'] for h in lab['hosts'])} up"),
    ("CUT", lambda lab: lab["cut"]),
    ("IMPAIRED", lambda lab: lab["impaired"]),
]
HOST_COLUMNS: list[show.Column] = [
    ("HOST", lambda h: h["name"]),
    ("NAMESPACE", lambda h: h["netns"]),
    ("UNDERLAY", lambda h: h["underlay"]),
    ("PHYSNETS", lambda h: [f"{name}={device}" for name, device in h["physnets"].items()]),
    ("AGENT", lambda h: h["socket"]),
    ("PID", lambda h: h["pid"]),
]


@app.command("up")
def up(
    name: Name,
    hosts: Annotated[int, typer.Option(help="How many hosts.")] = 3,
    uplinks: Annotated[int | None, typer.Option(help="How many of them are on the provider network; all.")] = None,
    mtu: Annotated[int, typer.Option(help="The underlay's MTU.")] = 1500,
    underlay: Annotated[int, typer.Option(help="4 or 6: the underlay's addresses.")] = 4,
    docker: Annotated[bool, typer.Option("--docker", help="Give each host a Docker engine.")] = False,
    json: Json = False,
) -> None:
    """Build a lab: hosts with agents, a server, a provider network with an outside machine."""
    from crossway.lab import Lab
    from crossway.lab.process import interruptible

    interruptible()

    with show.waiting(f"building lab {name}"):
        lab = Lab.up(name, hosts=hosts, uplinks=uplinks, mtu=mtu, underlay=underlay, engines=docker, stays=True)
    told = _told(lab)
    if json:
        show.as_json(told)
        return
    show.said(f"lab [bold]{name}[/bold] is up: API at {lab.url}")
    show.table(told["hosts"], HOST_COLUMNS, json, "")
    show.said(f"try: export CROSSWAY_LAB={name}; crossway status; crossway lab exec {name} h1 -- ip -br address")


@app.command("down")
def down(name: Name) -> None:
    """End a lab and remove all of it; a half-built one as well."""
    from crossway.lab import down as take_down

    with show.waiting(f"removing lab {name}"):
        take_down(name)


@app.command("list")
def list_labs(json: Json = False) -> None:
    """List labs."""
    from crossway.errors import NotFound
    from crossway.lab import Lab, state

    rows: list[dict[str, Any]] = []
    for name in state.names():
        try:
            lab = Lab.open(name)
        except NotFound:
            # Half-built: named, but never described.
            rows.append({"name": name, "url": None, "hosts": [], "server": {"alive": False}, "cut": [], "impaired": []})
        else:
            rows.append(_told(lab))
    show.table(rows, COLUMNS, json, "no labs: build one with `crossway lab up NAME`")


@app.command("show")
def show_lab(name: Name, json: Json = False) -> None:
    """Show a lab's API URL, and each host's namespace, underlay address and agent socket."""
    from crossway.lab import Lab

    told = _told(Lab.open(name))
    if json:
        show.as_json(told)
        return
    show.one({key: told[key] for key in ("name", "url", "cut", "impaired", "places")}, json)
    show.table(told["hosts"], HOST_COLUMNS, json, "")


@app.command("url")
def url(name: Name) -> None:
    """Say a lab's API URL and no more, for other clients."""
    print(lab_state(name).url)


@app.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def exec_in(
    name: Name,
    place: Annotated[str, typer.Argument(metavar="HOST", help="h1 …, outside, control, switch, or a workload's name.")],
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND…", help="What to run there.")],
) -> None:
    """Run a command in one of a lab's places; its exit code is passed on."""
    from crossway.lab import Lab

    found = Lab.open(name).place(place)
    argv = found.command(*(command[1:] if command[0] == "--" else command))
    os.execvp(argv[0], argv)


@app.command("docker", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def docker_on(
    name: Name,
    engine: Annotated[
        str, typer.Argument(metavar="HOST", help="h1 …; h1-red for the engine there that is project red's own.")
    ],
    words: Annotated[list[str], typer.Argument(metavar="WORDS…", help="What to say to it, as `run …` or `ps`.")],
) -> None:
    """Speak to a host's Docker engine by Docker's own client; its exit code is passed on."""
    from crossway.lab import Lab
    from crossway.lab.docker import Engine

    argv = Engine.open(Lab.open(name), engine).command(*(words[1:] if words[0] == "--" else words))
    os.execvp(argv[0], argv)


@app.command("image")
def image() -> None:
    """Write a small root file system of this machine's busybox as tar: crossway lab image | docker import - busybox."""
    from crossway.lab import docker

    sys.stdout.buffer.write(docker.image())


@app.command("cut")
def cut(name: Name, link: Link) -> None:
    """Pull the plug of a host's links, or of one."""
    from crossway.lab import Lab

    Lab.open(name).cut(link)


@app.command("heal")
def heal(name: Name, link: Link) -> None:
    """Put the plug back; returns when the link carries packets."""
    from crossway.lab import Lab

    Lab.open(name).heal(link)


@app.command("impair")
def impair(
    name: Name,
    link: Link,
    loss: Annotated[str, typer.Option(help="Share of packets that are lost, as 1%.")] = "0%",
    delay: Annotated[str, typer.Option(help="How much later each arrives, as 20ms.")] = "0ms",
    jitter: Annotated[str, typer.Option(help="By how much that varies, as 5ms.")] = "0ms",
    reorder: Annotated[str, typer.Option(help="Share of packets that others overtake, as 5%.")] = "0%",
    seed: Annotated[int | None, typer.Option(help="Draw the same lots again.")] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Make the link plain again.")] = False,
) -> None:
    """Lose, delay and reorder what crosses a link, each direction by itself; a host means its underlay link."""
    from crossway.lab import Lab
    from crossway.lab.impair import Impairment, duration, share

    lab = Lab.open(name)
    how = Impairment(share(loss), duration(delay), duration(jitter), share(reorder))
    if clear:
        lab.clear(link)
    elif how == Impairment():
        raise Invalid("say how: --loss 1%, --delay 20ms, --jitter 5ms, --reorder 5%, or --clear")
    else:
        lab.impair(link, how, seed)


def _told(lab: Any) -> dict[str, Any]:
    """Return what is to be known of a lab."""
    from crossway.lab import impair, state, wire

    prefix = state.netns_of(lab.name, "")
    places = [netns.removeprefix(prefix) for netns in wire.namespaces(lab.name)]
    return {
        "name": lab.name,
        "url": lab.url,
        "mtu": lab.state.mtu,
        "server": {"alive": lab.server.alive, "log": str(lab.server.log)},
        "hosts": [
            {
                "name": host.name,
                "netns": host.netns,
                "underlay": host.underlay,
                "socket": host.socket,
                "physnets": host.physnets,
                "alive": host.agent.alive,
                "pid": host.agent.process.pid if host.agent.process else None,
                "log": str(host.agent.log),
            }
            for host in lab.hosts
        ],
        "places": places,
        "cut": wire.cuts(lab.state) if "switch" in places else [],
        "impaired": impair.impaired(lab.state),
    }
