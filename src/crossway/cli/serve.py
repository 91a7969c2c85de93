"""crossway server, agent, up: the parts that run for long. The only face that knows them from within."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket as sockets
from contextlib import suppress
from ipaddress import IPv4Interface
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crossway import settings
from crossway.cli import clouds, engine, show
from crossway.cli.external import DEVICE, PHYSNET, alone, interface, way_out
from crossway.cli.options import Run
from crossway.errors import Forbidden, Invalid

if TYPE_CHECKING:
    from crossway.api.server import Access

# What these processes make is for nobody else: the state of a cloud, logs, bodies of ports, sockets.
PRIVATE = 0o077

Listen = Annotated[
    list[str] | None,
    typer.Option(metavar="ADDRESS", help="HOST:PORT, unix:PATH or fd:NUMBER (a socket inherited); may be repeated."),
]
Auth = Annotated[
    list[str] | None,
    typer.Option(
        metavar="AUTH",
        help="How to tell who asks: none (everyone is an admin, on loopback), basic[:FILE] (see `crossway user`) "
        "or keystone:URL; may be repeated.",
        envvar=settings.AUTH.variable,
    ),
]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Listen beyond loopback with auth none: the network is closed to others.")
]
TlsCert = Annotated[str, typer.Option(metavar="FILE", help=settings.TLS_CERT.what, envvar=settings.TLS_CERT.variable)]
TlsKey = Annotated[str, typer.Option(metavar="FILE", help=settings.TLS_KEY.what, envvar=settings.TLS_KEY.variable)]
Rate = Annotated[str, typer.Option(metavar="REQUESTS[:BURST]", help=settings.RATE.what, envvar=settings.RATE.variable)]
ReadyFd = Annotated[int | None, typer.Option(hidden=True, help="Write to this descriptor when ready.")]


def server(
    listen: Listen = None,
    store: Annotated[
        str | None,
        typer.Option(metavar="STORE", help="sqlite:PATH, or memory: for trying; sqlite in the data directory."),
    ] = None,
    auth: Auth = None,
    insecure: Insecure = False,
    tls_cert: TlsCert = "",
    tls_key: TlsKey = "",
    rate: Rate = settings.RATE.default,
    ready_fd: ReadyFd = None,
) -> None:
    """Run a server: the API for people and tools, the views for hosts."""
    from crossway.api.server import Access, run

    os.umask(PRIVATE)
    store = store or f"sqlite:{settings.DATA.value()}/cloud.db"
    access = Access(auth=auth or ["none"], insecure=insecure, cert=tls_cert, key=tls_key, rate=rate)
    run(listen or [settings.LISTEN.value()], store, access, ready_fd)


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
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help=f"{settings.DATA.what}: {settings.DATA.default}, or that of --run if one is said.",
            envvar=settings.DATA.variable,
        ),
    ] = None,
    vxlan_port: Annotated[int, typer.Option(help="UDP port of the overlay, the same on all hosts.")] = 4789,
    ready_fd: ReadyFd = None,
) -> None:
    """Run the agent of this host."""
    from crossway.agent import run as run_agent

    os.umask(PRIVATE)
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
        data_dir=Path(data or run or settings.DATA.default),
    )


def up(
    data: Annotated[
        str, typer.Option(metavar="DIR", help=settings.DATA.what, envvar=settings.DATA.variable)
    ] = settings.DATA.default,
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help=settings.LISTEN.what, envvar=settings.LISTEN.variable)
    ] = settings.LISTEN.default,
    external: Annotated[
        str, typer.Option(metavar="ADDRESS/LENGTH", help=settings.EXTERNAL.what, envvar=settings.EXTERNAL.variable)
    ] = settings.EXTERNAL.default,
    host: Annotated[str | None, typer.Option(help="This host's name; the machine's own if not said.")] = None,
    underlay: Annotated[
        str, typer.Option(metavar="ADDRESS", help="This host's address for others, should there be some.")
    ] = "127.0.0.1",
    auth: Auth = None,
    insecure: Insecure = False,
    tls_cert: TlsCert = "",
    tls_key: TlsKey = "",
    rate: Rate = settings.RATE.default,
    run: Run = None,
    docker_plugins: Annotated[
        str,
        typer.Option(
            metavar="DIR",
            help=f"{settings.DOCKER_PLUGINS.what}; '': it is not told.",
            envvar=settings.DOCKER_PLUGINS.variable,
        ),
    ] = settings.DOCKER_PLUGINS.default,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return when all is ready, and go on in the background.")
    ] = False,
    ready_fd: ReadyFd = None,
) -> None:
    """Run all of Crossway on this machine: server and agent in one process, and a network that leads outside."""
    from crossway.api.server import Access

    os.umask(PRIVATE)
    wanted = interface(external)
    if os.geteuid() != 0:
        raise Forbidden("`crossway up` loads programs and makes links: run it as root")
    directory = Path(run or settings.RUN.default)
    if detach:
        from crossway.cli import background

        said = {"data": data, "listen": listen, "external": external, "underlay": underlay, "tls-cert": tls_cert,
                "tls-key": tls_key, "rate": rate, "run": str(directory), "docker-plugins": docker_plugins}  # fmt: skip
        words = [word for name, value in said.items() for word in (f"--{name}", value)]
        words += [word for one in auth or [] for word in ("--auth", one)]
        words += [*(["--host", host] if host else []), *(["--insecure"] if insecure else [])]
        background.start(words, directory)
        return
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    Path(data).mkdir(mode=0o700, parents=True, exist_ok=True)
    within = f"{directory}/server.sock"
    access = Access(auth=auth or ["none"], insecure=insecure, cert=tls_cert, key=tls_key, rate=rate, trusted=[within])
    with alone(directory):
        with way_out(wanted, directory), engine.told(docker_plugins, directory):
            name = host or sockets.gethostname()
            plugged = asyncio.run(
                _up(data, listen, access, wanted, name, underlay, directory, bool(docker_plugins), ready_fd)
            )
        if not plugged:
            purge(run)
            return
    show.said(f"{plugged} ports stay plugged and go on speaking to each other; `crossway purge` takes them away")


def down(run: Run = None) -> None:
    """End what `crossway up` runs on this machine; ports that are plugged stay until `crossway purge`."""
    from crossway.cli import background

    background.stop(Path(run or settings.RUN.default))


def purge(run: Run = None) -> None:
    """Take away all that an agent has made on this machine: bodies of ports, programs, tables. It must have ended."""
    from crossway.agent import purge as purge_agent

    purge_agent(Path(run or settings.RUN.default))


async def _up(
    data: str,
    listen: str,
    access: Access,
    external: IPv4Interface,
    host: str,
    underlay: str,
    run: Path,
    docker: bool,
    ready_fd: int | None,
) -> int:
    """Serve until told to end; return how many ports are plugged then."""
    from crossway.agent import serve as serve_agent
    from crossway.api.server import serve as serve_api

    within = f"unix:{run}/server.sock"
    async with serve_api([listen, within], f"sqlite:{data}/cloud.db", access) as api:
        serving = asyncio.create_task(api.wait())
        url = clouds.endpoint(api.addresses[0], bool(access.cert))
        known = Path(data) / "clouds.yaml"
        clouds.write(known, clouds.text(url, access.auth, settings.CA.value()))
        await asyncio.to_thread(_first_network, within, external)
        ready, tell = os.pipe()
        agent = asyncio.create_task(
            serve_agent([within], host, underlay, {PHYSNET: DEVICE}, run, ready_fd=tell, data_dir=Path(data)),
        )
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, agent.cancel)

        def said() -> None:
            loop.remove_reader(ready)
            _ready(url, known, external, docker)
            if ready_fd is not None:
                os.write(ready_fd, b"1")
                os.close(ready_fd)

        loop.add_reader(ready, said)
        try:
            done, _ = await asyncio.wait({serving, agent}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if not task.cancelled():
                    # Neither ends by itself: one that has says why.
                    task.result()
        finally:
            loop.remove_reader(ready)
            os.close(ready)
            agent.cancel()
            with suppress(asyncio.CancelledError):
                await agent
            api.stop()
            await serving
    return len(list((run / "bodies").glob("*.json")))


def _first_network(server: str, external: IPv4Interface) -> None:
    """Make the external network `public`, unless there is one on this machine's uplink."""
    from crossway.client import Client

    with Client(server) as client:
        if client.list("networks", provider__physical_network=PHYSNET):
            return
        network = client.create(
            "network",
            name="public",
            shared=True,
            **{"router:external": True, "provider:network_type": "flat", "provider:physical_network": PHYSNET},
        )
        client.create(
            "subnet",
            name="public",
            network_id=network["id"],
            ip_version=4,
            cidr=str(external.network),
            gateway_ip=str(external.ip),
        )


def _ready(url: str, known: Path, external: IPv4Interface, docker: bool) -> None:
    show.said(f"crossway is up: API at {url}, external network [bold]public[/bold] {external.network}")
    show.said("try: ip netns add one; crossway port create one --network public; crossway port plug one --netns one")
    if docker:
        show.said("or: docker network create -d crossway --ipam-driver null -o network=public public")
        show.said(f"    docker run --rm --network public busybox ping -c1 {external.ip}")
    show.said(f"or: export OS_CLIENT_CONFIG_FILE={known}; openstack --os-cloud {clouds.NAME} network list")
    show.said("`crossway down` or Ctrl-C ends it")


def physnets(pairs: list[str]) -> dict[str, str]:
    """Read NAME=DEVICE pairs."""
    read: dict[str, str] = {}
    for pair in pairs:
        name, equals, device = pair.partition("=")
        if not (name and equals and device):
            raise Invalid(f"{pair!r} is no provider network: write it as NAME=DEVICE, as in physnet1=eth1")
        read[name] = device
    return read
