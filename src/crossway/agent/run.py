"""Start the agent, and take away all that it has made."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import shutil
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from crossway.agent import hooks, published
from crossway.agent.agent import Agent
from crossway.kernel import bpffs
from crossway.kernel.links import OVERLAY, Links, port_of

VXLAN_PORT = 4789
FILES = 8192  # that it may have open
NICE = -10  # what workloads do with the processors is not to keep their network waiting


def run(
    servers: Sequence[str],
    host: str,
    underlay: str,
    physnets: Mapping[str, str] | None = None,
    run_dir: Path = Path("/run/crossway"),
    vxlan_port: int = VXLAN_PORT,
    ready_fd: int | None = None,
    data_dir: Path | None = None,
) -> None:
    """Run this host's agent until SIGTERM or SIGINT; the data plane goes on forwarding without it.

    A byte is written to *ready_fd*, and it is closed, once the programs are on
    their links and the agent's socket answers.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")

    with suppress(OSError):  # not permitted everywhere; who has said otherwise is obeyed
        os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0) or NICE)
    # Each name that waits for a resolver has a socket: they must not be what namespaces and links lack.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        if 0 <= soft < FILES:
            resource.setrlimit(resource.RLIMIT_NOFILE, (FILES if hard < 0 else min(FILES, hard), hard))

    async def until_told() -> None:
        task = asyncio.ensure_future(serve(servers, host, underlay, physnets, run_dir, vxlan_port, ready_fd, data_dir))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, task.cancel)
        with suppress(asyncio.CancelledError):
            await task

    asyncio.run(until_told())


async def serve(
    servers: Sequence[str],
    host: str,
    underlay: str,
    physnets: Mapping[str, str] | None = None,
    run_dir: Path = Path("/run/crossway"),
    vxlan_port: int = VXLAN_PORT,
    ready_fd: int | None = None,
    data_dir: Path | None = None,
) -> None:
    """Run this host's agent in the present loop until cancelled."""
    await Agent(list(servers), host, underlay, physnets or {}, run_dir, vxlan_port, data_dir).main(ready_fd)


def purge(run_dir: Path = Path("/run/crossway")) -> None:
    """Remove all that agents have made in this network namespace: links, hooks, tables, files.

    The agent itself must have ended. Other devices stay, without our hooks but
    with those of others.
    """
    links = Links()
    try:
        for link in links.all():
            if port_of(link) is not None or link.name == OVERLAY:
                links.remove(link.name)
        hooks.purge(run_dir, links)
    finally:
        links.close()
    bpffs.unmount(run_dir / "bpf")
    shutil.rmtree(run_dir / "bodies", ignore_errors=True)
    published.purge(run_dir)
    for name in ("agent.sock", "lock"):
        with suppress(FileNotFoundError):
            (run_dir / name).unlink()
