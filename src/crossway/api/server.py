"""The server: a store, the copy of it, and HTTP on any number of sockets."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import ipaddress
import logging
import os
import re
import secrets
import signal
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
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

from crossway import settings
from crossway.api import openapi
from crossway.api.answer import fault
from crossway.api.auth import Authenticated, Believing, Scheme, schemes
from crossway.api.auth.basic import Basic
from crossway.api.auth.layer import CALLER, header
from crossway.api.bucket import Buckets, rate
from crossway.api.connection import Connections, Http, Listener, connections
from crossway.api.hosts import Hosts, for_admins, for_hosts, for_itself, for_movers
from crossway.api.limits import Limited
from crossway.api.networking import Networking
from crossway.api.switches import Switches
from crossway.control import claims
from crossway.control.caller import Caller
from crossway.control.cloud import Cloud
from crossway.control.quota import defaults, identities
from crossway.control.status import Status
from crossway.control.view import Views
from crossway.errors import Fault, Invalid, NotFound, Unavailable
from crossway.settings import NAMES
from crossway.store import open_store

LOG = logging.getLogger("crossway.api")
TICK_SECONDS = 1.0
BACKLOG = 1024
# Options of glibc's mallopt, and how much of what is freed stays.
M_TRIM_THRESHOLD, M_TOP_PAD = -1, -2
KEPT_BYTES = 64 << 20
# How services of OpenStack name a request that passes through several of them.
REQUEST_ID = re.compile(r"req-[0-9a-f]{8}(-?[0-9a-f]{4}){3}-?[0-9a-f]{12}")


def application(networking: Networking, hosts: Hosts, gate: Callable[[ASGIApp], ASGIApp] = lambda app: app) -> ASGIApp:
    """Return the HTTP application; *gate* is who stands before it."""
    host = "/v1/hosts/{host}"
    routes = [
        Route("/", networking.versions),
        Route("/v2.0", networking.version),
        Route("/v2.0/", networking.version),
        Route("/v2.0/extensions", networking.extensions),
        Route("/v2.0/extensions/{alias}", networking.extensions),
        Route(openapi.PATH, networking.openapi),
        Route("/v2.0/{path:path}", networking.dispatch, methods=["GET", "POST", "PUT", "DELETE"]),
        Route("/v1/status", for_admins(hosts.status_of_all)),
        Route("/v1/hosts", for_hosts(hosts.index)),
        Route(host, for_itself(hosts.show)),
        Route(host, for_itself(hosts.register), methods=["PUT"]),
        Route(host, for_admins(hosts.forget), methods=["DELETE"]),
        Route(f"{host}/view", for_itself(hosts.view)),
        Route(f"{host}/status", for_itself(hosts.report), methods=["POST"]),
        Route(f"{host}/handover", for_itself(hosts.hand_over), methods=["POST"]),
        Route(f"{host}/learned", for_itself(hosts.learn), methods=["POST"]),
        Route(f"{host}/taken", for_itself(hosts.taken), methods=["POST"]),
        Route("/v1/handovers/{port}", for_movers(hosts.handed_over)),
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

    return _logged(gate(Starlette(routes=routes, exception_handlers={Fault: on_fault, HTTPException: on_http})))


def _logged(app: ASGIApp) -> ASGIApp:
    """Give each request an id, and log those that change something or fail."""

    async def run(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        # Routes are found by what was sent: an encoded slash is part of a name, not a step of the path.
        scope["path"] = scope["raw_path"].decode("ascii", "replace")
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
                told = {"request": id, "status": status, "ms": taken}
                caller, chain = scope.get(CALLER), header(scope, b"x-openstack-request-id")
                if isinstance(caller, Caller):
                    told |= {"project": caller.project, "user": caller.user}
                if chain and REQUEST_ID.fullmatch(chain):
                    told["global"] = chain
                LOG.log(level, "%s", request, extra=told)

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
        for name in ("request", "global", "status", "ms", "project", "user"):
            if hasattr(record, name):
                told[name] = getattr(record, name)
        if record.exc_info:
            told["error"] = self.formatException(record.exc_info)
        return msgspec.json.encode(told).decode()


class _Http(uvicorn.Server):
    """Uvicorn within a loop of ours: no signal handlers of its own, and streams end before it waits for them."""

    def __init__(self, config: uvicorn.Config, views: Views, held: Connections, tls: ssl.SSLContext | None) -> None:
        super().__init__(config)
        self._views, self._held, self._tls = views, held, tls
        self._taking: list[asyncio.Task[None]] = []

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, with TLS on all but unix sockets."""
        await super().startup([])
        for one in sockets or []:
            listener = Listener(one, self._held, self._tls)
            running = listener.run(self.config, self.server_state, self.lifespan.state)
            self._taking.append(asyncio.get_running_loop().create_task(running))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for task in self._taking:
            task.cancel()
        await asyncio.gather(*self._taking, return_exceptions=True)
        self._views.close()
        await super().shutdown(sockets)


class Tls:
    """The server's certificate and key; what is renewed on the disk serves the next connections."""

    def __init__(self, cert: str, key: str = "") -> None:
        self._files = [file for file in (cert, key) if file]
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.set_alpn_protocols(["http/1.1"])
        self._state: list[tuple[int, int]] = []
        try:
            self._load()
        except OSError as error:
            raise Invalid(f"TLS certificate {' and key '.join(self._files)}: {error.strerror or error}") from None

    def tick(self) -> None:
        """Take in a certificate that was renewed."""
        try:
            if self._now() != self._state:
                self._load()
                LOG.info("TLS certificate %s: renewed", self._files[0])
        except OSError as error:
            LOG.error("TLS certificate %s: %s; the one known so far stays", self._files[0], error.strerror or error)

    def _load(self) -> None:
        self._state = self._now()
        # A password would be asked for on the terminal.
        cert, key = self._files[0], self._files[-1]
        self.context.load_cert_chain(cert, key, password=lambda: "")

    def _now(self) -> list[tuple[int, int]]:
        found = [os.stat(file) for file in self._files]
        return [(stat.st_ino, stat.st_mtime_ns) for stat in found]


class Server:
    """A running server; *addresses* are where it listens, as HOST:PORT or unix:PATH."""

    def __init__(
        self,
        cloud: Cloud,
        views: Views,
        status: Status,
        http: _Http,
        sockets: list[socket.socket],
        tls: Tls | None = None,
    ) -> None:
        self.cloud, self.views, self.status, self.tls = cloud, views, status, tls
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
            if self.tls is not None:
                self.tls.tick()


class Access(msgspec.Struct, frozen=True):
    """Who may reach the server, and how: see `crossway server --help`.

    Whoever may open a unix socket of *trusted* is an admin there.
    """

    auth: Sequence[str] = ("none",)
    insecure: bool = False
    cert: str = ""
    key: str = ""
    rate: str = "0"
    trusted: Collection[str] = ()


OPEN = Access()


@asynccontextmanager
async def serve(listen: Sequence[str], store: str, access: Access = OPEN) -> AsyncIterator[Server]:
    """Have a server within the running loop: `async with serve(…) as server: await server.wait()`."""
    if access.key and not access.cert:
        raise Invalid("a TLS key needs its certificate")
    tls = Tls(access.cert, access.key) if access.cert else None
    known, limit = schemes(access.auth), rate(access.rate)
    async with AsyncExitStack() as stack:
        sockets = listeners(listen, open_to_all=access.insecure or bool(known))
        stack.callback(_close, sockets, listen)
        if known and tls is None and any(_beyond(s) for s in sockets):
            LOG.warning("passwords and tokens cross the network in the clear: use --tls-cert, or TLS in front")
        for scheme in known:
            await scheme.start()
            stack.push_async_callback(scheme.stop)
        opened = open_store(store)
        stack.push_async_callback(opened.close)
        cloud = Cloud(opened, defaults(unlimited=not known))
        cloud.identities_max = identities()
        cloud.switch_ports = Switches(settings.SWITCH_PORTS.value())
        for scheme in known:
            if isinstance(scheme, Basic):
                cloud.kept_for = scheme.kept_for
        stack.push_async_callback(cloud.stop)
        await cloud.start()
        for wrong in await claims.mend(cloud):
            LOG.warning("the store was not as its objects have it: %s", wrong)
        # What was loaded stays: the collector need not look at it again and again.
        gc.collect()
        gc.freeze()
        views = Views(cloud)
        status = Status(cloud, views.interest)

        networking = Networking(cloud)
        stack.callback(networking.close)

        def gate(app: ASGIApp) -> ASGIApp:
            return _gate(app, known, limit, access.trusted, listen)

        config = uvicorn.Config(
            application(networking, Hosts(cloud, views, status), gate),
            http=Http,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=3,
        )
        config.load()
        http = _Http(config, views, connections(), tls.context if tls else None)
        yield Server(cloud, views, status, http, sockets, tls)


def _names(listen: Sequence[str]) -> list[str]:
    """Return the names of a server: of the machine, of where it listens, and those of the settings."""
    of_sockets = [address.rpartition(":")[0] for address in listen if not address.startswith(("unix:", "fd:"))]
    return [socket.gethostname(), *of_sockets, *(name.strip() for name in NAMES.value().split(","))]


def _gate(
    app: ASGIApp, known: Sequence[Scheme], limit: Buckets | None, trusted: Collection[str], listen: Sequence[str]
) -> ASGIApp:
    """Put who is known, and how often, before an application."""
    app = Limited(app, limit)
    return Authenticated(app, known, trusted) if known else Believing(app, _names(listen))


def _close(sockets: Sequence[socket.socket], listen: Sequence[str]) -> None:
    for one in sockets:
        one.close()
    for address in listen:
        if address.startswith("unix:"):
            with suppress(FileNotFoundError):
                os.unlink(address.removeprefix("unix:"))


def run(listen: Sequence[str], store: str, access: Access = OPEN, ready_fd: int | None = None) -> None:
    """Serve until SIGTERM or SIGINT; tell *ready_fd* one line of JSON with the addresses when ready."""
    log()
    # The thread that waits for the disk should not wait for the interpreter as well.
    sys.setswitchinterval(0.0005)
    _keep_memory()
    # Objects of the cloud are not the collector's business; what is left is little and young.
    gc.set_threshold(20_000, 50, 50)

    async def main() -> None:
        async with serve(listen, store, access) as server:
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


def _keep_memory() -> None:
    """Have the C library keep what was freed: long lists would ask the kernel for a megabyte of zeros each."""
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
        libc.mallopt(M_TOP_PAD, KEPT_BYTES // 4)


def log() -> None:
    """Write the log to stderr as JSON, one record a line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.getLogger().handlers = [handler]
    logging.getLogger().setLevel(logging.INFO)
    for chatty in ("uvicorn", "uvicorn.error", "uvicorn.asgi", "httpx", "httpcore"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def listeners(addresses: Sequence[str], open_to_all: bool) -> list[socket.socket]:
    """Open a listening socket for each of HOST:PORT, [HOST]:PORT, unix:PATH and fd:NUMBER."""
    made: list[socket.socket] = []
    try:
        for address in addresses:
            made.append(_listener(address, open_to_all))
    except BaseException:
        for one in made:
            one.close()
        raise
    return made


def _listener(address: str, open_to_all: bool) -> socket.socket:
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
    if not open_to_all and not ipaddress.ip_address(where[0]).is_loopback:
        raise Invalid(
            f"listen '{address}': with auth none everyone who reaches that address is an admin. "
            "Say who may ask with --auth basic or keystone, listen on a loopback address or unix:PATH, "
            "or say --insecure if the network is closed to others"
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
        # From its first moment nobody else's, whatever the process makes otherwise.
        old = os.umask(0o177)
        try:
            made.bind(str(path))
        finally:
            os.umask(old)
        made.listen(BACKLOG)
    except OSError as error:
        made.close()
        raise Unavailable(f"listen 'unix:{path}': {error.strerror}") from None
    except Fault:
        made.close()
        raise
    made.setblocking(False)
    return made


def _beyond(listener: socket.socket) -> bool:
    """Say whether others than this machine reach a socket."""
    return listener.family != socket.AF_UNIX and not ipaddress.ip_address(listener.getsockname()[0]).is_loopback


def _told(listener: socket.socket) -> str:
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return f"unix:{name}"
    return f"[{name[0]}]:{name[1]}" if listener.family == socket.AF_INET6 else f"{name[0]}:{name[1]}"
