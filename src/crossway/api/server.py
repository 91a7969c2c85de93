"""The server: a store, the copy of it, and HTTP on any number of sockets."""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import logging
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from crossway.api.answer import fault
from crossway.api.hosts import Hosts, for_admins
from crossway.api.networking import Networking
from crossway.control.cloud import Cloud
from crossway.control.status import Status
from crossway.control.view import Views
from crossway.errors import Fault, Invalid, NotFound, Unavailable
from crossway.store import open_store

LOG = logging.getLogger("crossway.api")
TICK_SECONDS = 1.0
KEEP_ALIVE_SECONDS = 75
BACKLOG = 1024


def application(networking: Networking, hosts: Hosts) -> ASGIApp:
    """Return the HTTP application."""
    host = "/v1/hosts/{host}"
    routes = [
        Route("/", networking.versions),
        Route("/v2.0", networking.version),
        Route("/v2.0/", networking.version),
        Route("/v2.0/extensions", networking.extensions),
        Route("/v2.0/extensions/{alias}", networking.extensions),
        Route("/v2.0/{path:path}", networking.dispatch, methods=["GET", "POST", "PUT", "DELETE"]),
        Route("/v1/status", for_admins(hosts.status_of_all)),
        Route("/v1/hosts", for_admins(hosts.index)),
        Route(host, for_admins(hosts.show)),
        Route(host, for_admins(hosts.register), methods=["PUT"]),
        Route(host, for_admins(hosts.forget), methods=["DELETE"]),
        Route(f"{host}/view", for_admins(hosts.view)),
        Route(f"{host}/status", for_admins(hosts.report), methods=["POST"]),
    ]

    async def on_fault(request: Request, error: Exception) -> Response:
        assert isinstance(error, Fault)
        return fault(error, request.url.path)

    async def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == 404:
            return fault(NotFound("resource", request.url.path), request.url.path)
        made = Fault(f"{request.method} is not possible on {request.url.path}", type="HTTPMethodNotAllowed")
        made.status = error.status_code
        return fault(made, request.url.path)

    return _logged(Starlette(routes=routes, exception_handlers={Fault: on_fault, HTTPException: on_http}))


def _logged(app: ASGIApp) -> ASGIApp:
    """Give each request an id, and log those that change something or fail."""

    async def run(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        id, began, status = f"req-{secrets.token_hex(16)}", time.perf_counter(), 500

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"].append((b"x-openstack-request-id", id.encode()))
            await send(message)

        try:
            await app(scope, receive, sent)
        finally:
            level = _level(scope["method"], scope["path"], status)
            if LOG.isEnabledFor(level):
                taken = round((time.perf_counter() - began) * 1000, 2)
                request = f"{scope['method']} {scope['path']}"
                LOG.log(level, "%s", request, extra={"request": id, "status": status, "ms": taken})

    return run


def _level(method: str, path: str, status: int) -> int:
    if status >= 500:
        return logging.ERROR
    return logging.INFO if method != "GET" and not path.endswith("/status") else logging.DEBUG


class JsonLines(logging.Formatter):
    """One log record, one JSON document a line."""

    def format(self, record: logging.LogRecord) -> str:
        told: dict[str, Any] = {
            "time": f"{self.formatTime(record, '%Y-%m-%dT%H:%M:%S')}.{int(record.msecs):03d}",
            "level": record.levelname.lower(),
            "from": record.name,
            "message": record.getMessage(),
        }
        for name in ("request", "status", "ms"):
            if hasattr(record, name):
                told[name] = getattr(record, name)
        if record.exc_info:
            told["error"] = self.formatException(record.exc_info)
        return msgspec.json.encode(told).decode()


class _Http(uvicorn.Server):
    """Uvicorn within a loop of ours: no signal handlers of its own, and streams end before it waits for them."""

    def __init__(self, config: uvicorn.Config, views: Views) -> None:
        super().__init__(config)
        self._views = views

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._views.close()
        await super().shutdown(sockets)


class Server:
    """A running server; *addresses* are where it listens, as HOST:PORT or unix:PATH."""

    def __init__(self, cloud: Cloud, views: Views, status: Status, http: _Http, sockets: list[socket.socket]) -> None:
        self.cloud, self.views, self.status = cloud, views, status
        self.addresses = [_told(s) for s in sockets]
        self._http, self._sockets = http, sockets

    def stop(self) -> None:
        """Make it end soon; what was begun is answered."""
        self._http.should_exit = True

    async def wait(self) -> None:
        """Serve until stopped."""
        ticking, writing = asyncio.create_task(self._tick()), asyncio.create_task(self.status.run())
        try:
            serving = asyncio.create_task(self._http.serve(self._sockets))
            done, _ = await asyncio.wait({serving, ticking, writing}, return_when=asyncio.FIRST_COMPLETED)
            if serving not in done:
                # A part has failed: it is said, and the rest ends.
                self.stop()
                await serving
            for task in done:
                task.result()
        finally:
            ticking.cancel()
            writing.cancel()
            await asyncio.gather(ticking, writing, return_exceptions=True)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self.views.tick()
            self.status.tick()


@asynccontextmanager
async def serve(listen: Sequence[str], store: str, auth: str = "none", insecure: bool = False) -> AsyncIterator[Server]:
    """Have a server within the running loop: `async with serve(…) as server: await server.wait()`."""
    sockets = listeners(listen, auth, insecure)
    try:
        opened = open_store(store)
    except BaseException:
        for one in sockets:
            one.close()
        raise
    cloud = Cloud(opened)
    try:
        await cloud.start()
        # What was loaded stays: the collector need not look at it again and again.
        gc.collect()
        gc.freeze()
        views = Views(cloud)
        status = Status(cloud, views.interest)
        config = uvicorn.Config(
            application(Networking(cloud), Hosts(cloud, views, status)),
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=3,
            backlog=BACKLOG,
        )
        yield Server(cloud, views, status, _Http(config, views), sockets)
    finally:
        await cloud.stop()
        await opened.close()
        for one in sockets:
            one.close()
        for address in listen:
            if address.startswith("unix:"):
                with suppress(FileNotFoundError):
                    os.unlink(address.removeprefix("unix:"))


def run(
    listen: Sequence[str], store: str, auth: str = "none", ready_fd: int | None = None, insecure: bool = False
) -> None:
    """Serve until SIGTERM or SIGINT; tell *ready_fd* one line of JSON with the addresses when ready."""
    log()
    # The thread that waits for the disk should not wait for the interpreter as well.
    sys.setswitchinterval(0.0005)
    # Objects of the cloud are not the collector's business; what is left is little and young.
    gc.set_threshold(20_000, 50, 50)

    async def main() -> None:
        async with serve(listen, store, auth, insecure) as server:
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, server.stop)
            LOG.info("listening on %s, store %s", ", ".join(server.addresses), store)
            if ready_fd is not None:
                os.write(ready_fd, msgspec.json.encode({"listen": server.addresses}) + b"\n")
                os.close(ready_fd)
            await server.wait()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def log() -> None:
    """Write the log to stderr as JSON, one record a line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.getLogger().handlers = [handler]
    logging.getLogger().setLevel(logging.INFO)
    for chatty in ("uvicorn", "uvicorn.error", "uvicorn.asgi"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def listeners(addresses: Sequence[str], auth: str, insecure: bool) -> list[socket.socket]:
    """Open a listening socket for each of HOST:PORT, [HOST]:PORT, unix:PATH and fd:NUMBER."""
    if auth != "none":
        raise Invalid(f"auth '{auth}' is not supported by this version: should be none")
    made: list[socket.socket] = []
    try:
        for address in addresses:
            made.append(_listener(address, insecure))
    except BaseException:
        for one in made:
            one.close()
        raise
    return made


def _listener(address: str, insecure: bool) -> socket.socket:
    scheme, _, rest = address.partition(":")
    if scheme == "fd" and rest.isdecimal():
        inherited = socket.socket(fileno=int(rest))
        inherited.setblocking(False)
        return inherited
    if scheme == "unix" and rest:
        return _unix_listener(Path(rest))
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise Invalid(f"listen '{address}' should be HOST:PORT, [IPV6]:PORT, unix:PATH or fd:NUMBER")
    try:
        found = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise Invalid(f"listen '{address}': {error.strerror}") from None
    family, kind, protocol, _, where = found[0]
    if not insecure and not ipaddress.ip_address(where[0]).is_loopback:
        raise Invalid(
            f"listen '{address}': with auth none everyone who reaches that address is an admin. "
            "Listen on a loopback address or unix:PATH, or say --insecure if the network is closed to others"
        )
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind(where)
        made.listen(BACKLOG)
    except OSError as error:
        made.close()
        raise Unavailable(f"listen '{address}': {error.strerror}") from None
    made.setblocking(False)
    return made


def _unix_listener(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.is_socket():
            # Left by one that was killed, or in use by one that lives?
            probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                probe.connect(str(path))
                raise Unavailable(f"listen 'unix:{path}': a server listens there already")
            except ConnectionRefusedError:
                path.unlink()
            finally:
                probe.close()
        made.bind(str(path))
        path.chmod(0o600)
        made.listen(BACKLOG)
    except OSError as error:
        made.close()
        raise Unavailable(f"listen 'unix:{path}': {error.strerror}") from None
    except Fault:
        made.close()
        raise
    made.setblocking(False)
    return made


def _told(listener: socket.socket) -> str:
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return f"unix:{name}"
    return f"[{name[0]}]:{name[1]}" if listener.family == socket.AF_INET6 else f"{name[0]}:{name[1]}"
