"""Remove links beside the loop: the kernel takes 20 ms for it, and no packet and no port waits for that.

A link is gone within a millisecond, and the kernel announces it. The rest of
the time it clears up behind the link (a grace period of RCU), which keeps
nobody but the thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from crossway.kernel.links import Links

log = logging.getLogger(__name__)


class Remover:
    """Links that are to go; those that come together go together."""

    def __init__(self) -> None:
        self._links = Links()  # a socket of its own: it is used in another thread
        self._going: dict[str, asyncio.Future[None]] = {}
        self._waiting: dict[str, Callable[[], None]] = {}
        self._asked: dict[str, Callable[[], None]] = {}  # those that the kernel has been asked to remove
        self._task: asyncio.Task[None] | None = None

    def remove(self, name: str, then: Callable[[], None]) -> None:
        """Remove a link soon, then call *then*."""
        self._waiting[name] = then
        if name not in self._going:
            self._going[name] = asyncio.get_running_loop().create_future()
        if self._task is None:
            self._task = asyncio.create_task(self._work())

    async def gone(self, name: str) -> None:
        """Return when a link is no longer on its way out."""
        while name in self._going:
            await asyncio.shield(self._going[name])

    def announced(self, name: str) -> None:
        """Take note that the kernel has announced that a link is no more."""
        if (then := self._asked.pop(name, None)) is not None and name not in self._waiting:
            then()
            self._going.pop(name).set_result(None)

    async def _work(self) -> None:
        while self._waiting:
            now, self._waiting = self._waiting, {}
            self._asked = dict(now)
            try:
                await asyncio.to_thread(self._links.remove, *now)
            except OSError as fault:
                log.error("cannot remove links %s: %s", ", ".join(now), fault)
            for name in now:
                self.announced(name)
        self._task = None

    async def close(self) -> None:
        """End once what was begun is done."""
        if self._task is not None:
            await self._task
        self._links.close()
