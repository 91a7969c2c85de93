"""Links that go: who waits for one waits until it is gone, and not until the kernel has cleared up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest

from crossway.agent.remover import Remover

Story = Callable[["Slow", Remover], Awaitable[None]]


class Slow:
    """The kernel's links: a removal returns when the test lets it."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.done = threading.Semaphore(0)

    def remove(self, *names: str) -> None:
        self.asked.append(names)
        assert self.done.acquire(timeout=5)

    def close(self) -> None:
        pass


@pytest.fixture
def tell(monkeypatch: pytest.MonkeyPatch) -> Callable[[Story], None]:
    slow = Slow()
    monkeypatch.setattr("crossway.agent.remover.Links", lambda: slow)

    def told(story: Story) -> None:
        async def whole() -> None:
            remover = Remover()
            try:
                await asyncio.wait_for(story(slow, remover), 5)
            finally:
                slow.done.release(10)
                await remover.close()

        asyncio.run(whole())

    return told


async def begun(slow: Slow, many: int) -> None:
    while len(slow.asked) < many:
        await asyncio.sleep(0.001)


def test_a_link_is_gone_when_the_kernel_has_announced_it(tell: Callable[[Story], None]) -> None:
    async def story(slow: Slow, remover: Remover) -> None:
        ended: list[str] = []
        remover.remove("a", lambda: ended.append("a"))
        remover.remove("b", lambda: ended.append("b"))
        await begun(slow, 1)
        assert ended == []
        remover.announced("a")
        await remover.gone("a")
        assert ended == ["a"]
        slow.done.release()
        await remover.gone("b")
        assert ended == ["a", "b"], "each once"

    tell(story)


def test_a_link_that_came_again_meanwhile_is_removed_again(tell: Callable[[Story], None]) -> None:
    async def story(slow: Slow, remover: Remover) -> None:
        ended: list[int] = []
        remover.remove("a", lambda: ended.append(1))
        await begun(slow, 1)
        remover.announced("a")
        remover.remove("a", lambda: ended.append(2))
        waiting = asyncio.ensure_future(remover.gone("a"))
        slow.done.release()
        await begun(slow, 2)
        assert not waiting.done()
        assert ended == [1]
        slow.done.release()
        await waiting
        assert ended == [1, 2]
        assert slow.asked == [("a",), ("a",)]

    tell(story)


def test_a_link_that_came_again_and_stays_is_not_taken_for_gone(tell: Callable[[Story], None]) -> None:
    async def story(slow: Slow, remover: Remover) -> None:
        ended: list[int] = []
        remover.remove("a", lambda: ended.append(1))
        await begun(slow, 1)
        remover.announced("a")
        slow.done.release()
        await asyncio.sleep(0.05)
        remover.announced("a")  # of somebody else's removal
        assert ended == [1]

    tell(story)
