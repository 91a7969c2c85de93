"""Long work in portions, so that others have the event loop now and then."""

from __future__ import annotations

import asyncio
import time

# What one portion takes: others wait for so long, and little of the whole goes into changing over.
PORTION_SECONDS = 0.005


class Portions:
    """The portions of one piece of work: `if portions.due: await portions.turn()` between its steps."""

    def __init__(self) -> None:
        self._began = time.perf_counter()

    @property
    def due(self) -> bool:
        """Say whether others should have their turn."""
        return time.perf_counter() - self._began >= PORTION_SECONDS

    async def turn(self) -> None:
        """Let others have the loop."""
        await asyncio.sleep(0)
        self._began = time.perf_counter()
