"""Servers to speak to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from api.policy_stock import Stock
from crossway import settings
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
    server.check()


@pytest.fixture(scope="session")
def api(shared: Server) -> Iterator[Api]:
    made = Api(shared.url)
    yield made
    made.client.close()


@pytest.fixture(scope="session")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stock]:
    """A server of which nobody wants more than there is, and who makes things there."""
    with pytest.MonkeyPatch.context() as patch:
        for limit in settings.QUOTAS:
            patch.setenv(limit.variable, "-1")
        server = Server(tmp_path_factory.mktemp("policy"))
    made = Stock(server.url)
    yield made
    made.close()
    server.stop()
