"""Answer HTTP on the agent's unix socket.

h11 knows the protocol; this module moves the bytes. A server framework would
cost a millisecond a request, which a plug has not got.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import h11
import msgspec

from crossway.errors import Fault, Invalid

log = logging.getLogger(__name__)

Answer = Callable[[bytes, dict[str, str]], Awaitable[Any]]
BODY_MAX = 8 << 20  # a GC of all that a host may carry


class Api:
    """The routes of a unix socket: method and path, and who answers."""

    def __init__(self, routes: dict[tuple[str, str], Answer]) -> None:
        self._routes = routes
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, path: Path) -> None:
        """Listen; a socket that a dead agent left is replaced."""
        old = os.umask(0o177)
        try:
            with suppress(FileNotFoundError):
                os.unlink(path)
            self._server = await asyncio.start_unix_server(self._connected, path)
        finally:
            os.umask(old)

    async def stop(self) -> None:
        """Listen no more and end what is open."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._converse(reader, writer)
        except (ConnectionError, h11.RemoteProtocolError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER)
        while True:
            request, body, size = None, bytearray(), 0
            while True:
                event = connection.next_event()
                if event is h11.NEED_DATA:
                    connection.receive_data(await reader.read(65536))
                elif isinstance(event, h11.Request):
                    request = event
                elif isinstance(event, h11.Data):
                    # What is too much is read all the same, up to a point: who writes it would not hear the answer.
                    size += len(event.data)
                    if size > 8 * BODY_MAX:
                        return
                    body += event.data if size <= BODY_MAX else b""
                else:
                    break
            if request is None or isinstance(event, h11.ConnectionClosed):
                return
            if size > BODY_MAX:
                status, answer = _error(413, "TooLarge", f"{size} bytes are more than {BODY_MAX}")
            else:
                method, target = request.method.decode(), request.target.decode("latin-1")
                status, answer = await self._answer(method, target, bytes(body))
            content = msgspec.json.encode(answer)
            headers = [("Content-Type", "application/json"), ("Content-Length", str(len(content)))]
            out = connection.send(h11.Response(status_code=status, headers=headers)) or b""
            out += connection.send(h11.Data(data=content)) or b""
            out += connection.send(h11.EndOfMessage()) or b""
            writer.write(out)
            await writer.drain()
            if connection.our_state is h11.MUST_CLOSE:
                return
            connection.start_next_cycle()

    async def _answer(self, method: str, target: str, body: bytes) -> tuple[int, Any]:
        url = urlsplit(target)
        route = self._routes.get((method, url.path))
        if route is None:
            known = any(path == url.path for _, path in self._routes)
            return _error(405 if known else 404, "NotFound", f"{method} {url.path} is not known")
        try:
            return 200, await route(body, dict(parse_qsl(url.query)))
        except Fault as fault:
            return _error(fault.status, type(fault).__name__, str(fault))
        except msgspec.DecodeError as fault:
            return _error(400, Invalid.__name__, str(fault))
        except OSError as fault:
            log.exception("%s %s", method, url.path)
            return _error(500, type(fault).__name__, str(fault))


def _error(status: int, type: str, message: str) -> tuple[int, Any]:
    return status, {"error": {"type": type, "message": message}}
