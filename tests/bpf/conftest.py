"""The world that packet tests share: loaded once a module, fresh for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bpf.guest import guest
from bpf.world import World, world


@pytest.fixture(scope="module")
def made() -> Iterator[World]:
    with world() as w:
        yield w


@pytest.fixture
def w(made: World) -> World:
    made.reset()
    return made


@pytest.fixture
def tap(w: World) -> Iterator[int]:
    with guest(w) as fd:
        yield fd
