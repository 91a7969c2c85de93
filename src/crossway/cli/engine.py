"""Let this machine's Docker engine find its network driver: the agent's socket, where engines look for plugins."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from crossway.errors import Conflict


@contextmanager
def told(plugins: str, run: Path) -> Iterator[None]:
    """Have the plugin's socket at PLUGINS/crossway.sock while the context lasts; one that leads nowhere is replaced."""
    if not plugins:
        yield
        return
    link, socket = Path(plugins) / "crossway.sock", (run / "docker.sock").absolute()
    if os.path.lexists(link) and link.exists() and link.resolve() != socket.resolve():
        raise Conflict(f"{link} leads to {link.resolve()} already: say another directory with --docker-plugins, or ''")
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(socket)
    try:
        yield
    finally:
        link.unlink(missing_ok=True)
