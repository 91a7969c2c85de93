"""A world to decide in."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from clouds import World
from crossway.store.memory import MemoryStore


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def world(store: MemoryStore) -> Iterator[World]:
    with asyncio.Runner() as runner:
        made = World(runner, store)
        yield made
        made.stop()
        runner.run(store.close())
