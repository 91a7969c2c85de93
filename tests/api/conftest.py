"""Servers to speak to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from servers import Api, Server


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests that do not hurt it."""
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.stop()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Server]:
    """A server of the test's own, to be killed."""
    server = Server(tmp_path)
    yield server
    if server.process.poll() is None:
        server.kill()


@pytest.fixture(scope="session")
def api(shared: Server) -> Iterator[Api]:
    made = Api(shared.url)
    yield made
    made.client.close()
