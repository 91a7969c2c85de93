"""What a Docker engine says of its containers, by its own API: libnetwork's protocol never names one.

What it says is handed on as it is; `plugins.docker` makes names of it. An
engine that is not there is asked again and again: it tells everything anew
when it comes back, so nothing has to be remembered of what was missed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, Protocol
from urllib.parse import quote

import msgspec

from crossway.agent.server import Ended, Server
from crossway.client import Object
from crossway.errors import Fault, Unavailable

log = logging.getLogger(__name__)

AGAIN_SECONDS = 1.0
LINE_MAX = 1 << 20
EVENTS = {"type": ["container", "network"], "event": ["start", "rename", "connect"]}


STOPPED = ("exited", "restarting")
# How long a container that is not being started may take to be told of, at least, and in times of another answer.
LOCKED_SECONDS, LOCKED_TIMES, LOCKED_MAX_SECONDS = 0.1, 10, 1.0


class Listener(Protocol):
    """Who is told of containers."""

    asked: bool  # whether the engine has asked for anything: only then it is missed

    async def learn(self, container: Object) -> None:
        """Hear what the engine says of a container that runs, each time that this may be something new."""


class Engine:
    """One engine, and who listens to it."""

    def __init__(self, path: str, listener: Listener) -> None:
        self.path, self._listener = path, listener
        self._server = Server(f"unix:{path}", {})
        self._missed = False
        self._due: dict[str, None] = {}  # containers that are to be looked at
        self._woken = asyncio.Event()

    async def listen(self) -> None:
        """Hear of containers until the engine goes; then wait a little."""
        try:
            async with aclosing(self._events()) as events:
                await anext(events)  # it listens: what comes from now on is not lost
                for one in msgspec.json.decode(await self._get("/containers/json")):
                    self._note(one["Id"])
                self._missed = False
                async for event in events:
                    self._note(_container(event))
        except (Ended, StopAsyncIteration, Fault, msgspec.MsgspecError, KeyError, TypeError, AttributeError) as fault:
            if self._listener.asked and not self._missed:
                self._missed = True
                log.warning("the engine at %s cannot be asked what its containers are called: %s", self.path, fault)
        await asyncio.sleep(AGAIN_SECONDS)

    async def look(self) -> None:
        """Ask for what is to be looked at, and hand it on; what fails is tried again."""
        await self._woken.wait()
        self._woken.clear()
        while self._due:
            id = next(iter(self._due))
            del self._due[id]
            try:
                told = msgspec.json.decode(await self._get(f"/containers/{quote(id)}/json"))
                if isinstance(told, dict) and told.get("Id"):
                    await self._listener.learn(told)
            except Unavailable as fault:
                log.warning("container %s: %s", id[:12], fault)
                self._due[id] = None
                await asyncio.sleep(AGAIN_SECONDS)
            except Fault as fault:
                log.warning("container %s cannot be known by its names: %s", id[:12], fault)
            except (Ended, msgspec.MsgspecError, KeyError, TypeError, AttributeError, ValueError) as fault:
                # One that has just gone, or an engine that has: it tells of all when it is back.
                log.debug("container %s: %s", id[:12], fault)

    async def starting(self, containers: Sequence[str]) -> tuple[list[str], list[str]]:
        """Return which of these stopped containers the engine is just starting, and which are there no more.

        While it starts one it tells of it to nobody: `docker inspect` of it waits. It is the only sign; while it ends
        one that is so too, but then its list still says that it runs.
        """
        loop = asyncio.get_running_loop()
        begun = loop.time()
        try:
            async with asyncio.timeout(LOCKED_MAX_SECONDS):
                filters = quote(msgspec.json.encode({"id": list(containers)}).decode())
                told = msgspec.json.decode(await self._get(f"/containers/json?all=1&filters={filters}"))
                states = {one["Id"]: one["State"] for one in told}
        except (Ended, Fault, TimeoutError, msgspec.MsgspecError, KeyError, TypeError) as fault:
            log.debug("the engine at %s does not say which containers have stopped: %s", self.path, fault)
            return [], []
        seconds = min(max(LOCKED_SECONDS, LOCKED_TIMES * (loop.time() - begun)), LOCKED_MAX_SECONDS)
        stopped = [id for id in containers if states.get(id) in STOPPED]
        locked = await asyncio.gather(*(self._is_locked(id, seconds) for id in stopped))
        return [id for id, so in zip(stopped, locked, strict=True) if so], [id for id in containers if id not in states]

    async def _is_locked(self, id: str, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._server.ask("GET", f"/containers/{quote(id)}/json", None)
        except TimeoutError:
            return True
        except (Ended, Fault):
            pass
        return False

    def close(self) -> None:
        """Ask nothing any more."""
        self._server.close()

    def _note(self, id: str | None) -> None:
        if id:
            self._due[id] = None
            self._woken.set()

    async def _get(self, path: str) -> bytes:
        status, body = await self._server.ask("GET", path, None)
        if status != 200:
            raise Ended(f"{path} answers {status}")
        return body

    async def _events(self) -> AsyncGenerator[Any, None]:
        """Yield once when the engine listens, then each event; an engine may be silent for days."""
        connection = await self._server.connect()
        try:
            filters = quote(msgspec.json.encode(EVENTS).decode())
            status = await connection.ask("GET", f"/events?filters={filters}")
            if status != 200:
                raise Ended(f"/events answers {status}")
            yield None
            rest = b""
            async for part in connection.body():
                *lines, rest = (rest + part).split(b"\n")
                if len(rest) > LINE_MAX:
                    raise Ended("an event without end")
                for line in lines:
                    if line.strip():
                        yield msgspec.json.decode(line)
        finally:
            connection.close()


def _container(event: Any) -> str | None:
    actor = event["Actor"]
    return str(actor["ID"]) if event["Type"] == "container" else actor["Attributes"].get("container")
