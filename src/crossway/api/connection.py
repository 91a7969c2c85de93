"""Connections of a server: how long each may take to say what it wants, and how many there may be.

Who has not said who it is, a stranger, has little time and few connections from one address; beyond them the
oldest goes, not the newest, so that nobody shuts out whoever comes later from there. A quarter of the files
that the process may open is kept for hosts.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import ssl
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from starlette.types import Scope
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from crossway import settings
from crossway.api.auth.layer import CALLER, KNOWN, address_of
from crossway.api.bucket import Buckets
from crossway.control.caller import SERVICE, Caller

LOG = logging.getLogger("crossway.api")
HEAD_MAX = 64 << 10
# Of a connection that is not used: of one whose caller is known, and of a stranger's.
KEEP_ALIVE_SECONDS, STRANGER_SECONDS = 75, 10
# How long what was sent may stay unread without any of it being taken; and what is closed, unsent.
UNREAD_SECONDS, CLOSE_SECONDS = 60, 5
# Bytes of a body that come in the seconds of a setting at least, and that are let pass once it is refused.
BODY_LEAST, DRAIN_MAX = 64 << 10, 64 << 20
# Bytes of refused bodies that are read of one address, so that the client can read why: in a second, and at once.
DRAIN_RATE, DRAIN_BURST = 16 << 20, 64 << 20
# Files that a server opens beside connections, and the most that it asks for.
OWN_FILES, FILES_MAX = 64, 1 << 20
RETRY_SECONDS = 0.05


class Connection:
    """One connection as it is counted: a stranger's, until its caller is known."""

    __slots__ = ("address", "close", "gone", "host", "known")

    def __init__(self, address: str, close: Callable[[], None]) -> None:
        self.address, self.close = address, close
        self.known = self.host = self.gone = False


class Connections:
    """All connections of a server; of strangers *each* from one address, and *most* of all but hosts."""

    def __init__(self, each: int, most: int) -> None:
        self.each, self.most = each, most
        self.strangers: OrderedDict[Connection, None] = OrderedDict()
        self.by_address: dict[str, OrderedDict[Connection, None]] = {}
        # Of those that are known, whose request is answered: the longest so comes first.
        self.idle: OrderedDict[Connection, None] = OrderedDict()
        self.drains = Buckets(DRAIN_RATE, DRAIN_BURST)
        self.count = 0

    def enter(self, one: Connection) -> None:
        """Count a new connection; others go where there are too many."""
        self.count += 1
        self.strangers[one] = None
        here = self.by_address.setdefault(one.address, OrderedDict())
        here[one] = None
        # A unix socket's are of this machine, where permissions say who may.
        if 0 < self.each < len(here) and one.address:
            self._evict(next(iter(here)))
        if len(self.strangers) > max(1, self.most // 4):
            self._evict(next(iter(self.strangers)))
        if self.count > self.most:
            self._evict(next(iter(self.idle or self.strangers), one))

    def knows(self, one: Connection, host: bool) -> None:
        """Note that a connection's caller is known, and whether it is a host."""
        if one.gone:
            return
        if not one.known:
            one.known = True
            self._forget(one)
        if host and not one.host:
            one.host = True
            self.count -= 1
        self.idle.pop(one, None)

    def rests(self, one: Connection) -> None:
        """Note that a connection's request is answered."""
        if one.known and not one.host and not one.gone:
            self.idle[one] = None

    def leave(self, one: Connection) -> None:
        """Count a connection no more."""
        if not one.gone:
            one.gone = True
            self._forget(one)
            self.idle.pop(one, None)
            if not one.host:
                self.count -= 1

    def _evict(self, one: Connection) -> None:
        self.leave(one)
        one.close()

    def _forget(self, one: Connection) -> None:
        self.strangers.pop(one, None)
        here = self.by_address.get(one.address)
        if here is not None:
            here.pop(one, None)
            if not here:
                del self.by_address[one.address]


def connections() -> Connections:
    """Raise the limit of open files as far as may be, and return connections that leave hosts a quarter of it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, FILES_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    files = FILES_MAX if soft == resource.RLIM_INFINITY else soft
    return Connections(settings.STRANGERS.number(0), max(16, (files - OWN_FILES) * 3 // 4))


class Http(HttpToolsProtocol):
    """HTTP of one connection, with an end to each part of a request: the parser itself would wait and take in any."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        held: Connections,
        connection: Connection,
        head_seconds: float,
        body_seconds: float,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.timeout_keep_alive = STRANGER_SECONDS
        self._held, self._connection = held, connection
        self._head_seconds, self._body_seconds = head_seconds, body_seconds
        # What is waited for at present, until when; and for what is sent to be read.
        self._waits: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._in_head = self._in_body = False
        self._head = self._body = self._drained = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._connection.close = transport.abort
        self._wait(self._head_seconds, self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait(0, self._head_is_late)
        if self._unread is not None:
            self._unread.cancel()
        self._held.leave(self._connection)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._in_head:
            self._head += len(data)
            if self._head > HEAD_MAX:
                self._refuse(b"431 Request Header Fields Too Large")
        # A request that comes at once, as most do, needs no clock.
        if self._waits is None:
            if self._in_body:
                self._wait(self._body_seconds, self._body_is_late)
            elif self._in_head or self._is_idle():
                # Or empty lines, which may stand before a request.
                self._wait(self._head_seconds, self._head_is_late)

    def on_message_begin(self) -> None:
        self._in_head, self._head = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head, self._in_body, self._body, self._drained = False, True, 0, 0
        self._wait(0, self._body_is_late)
        self.scope[KNOWN] = self._knows  # type: ignore[literal-required]
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body += len(body)
        if self.cycle.response_complete:
            self._drained += len(body)
            if self._drained > DRAIN_MAX:
                self._end()
            elif wait := self._held.drains.charge(self._connection.address, len(body)):
                self.flow.pause_reading()
                self.loop.call_later(wait, self._drain_on)
        super().on_body(body)

    def _drain_on(self) -> None:
        if not self.transport.is_closing():
            self.flow.resume_reading()

    def on_message_complete(self) -> None:
        self._in_body = False
        self._wait(0, self._body_is_late)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._held.rests(self._connection)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._unread is None:
            self._watch_unread(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _knows(self, scope: Scope) -> None:
        """Hear that the caller of a request is known."""
        caller = scope.get(CALLER)
        if not isinstance(caller, Caller):
            caller = Caller()
        host = bool(caller.host) or SERVICE in caller.roles or (caller.admin and scope["path"].startswith("/v1/"))
        self.timeout_keep_alive = KEEP_ALIVE_SECONDS
        self._held.knows(self._connection, host)

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _wait(self, seconds: float, late: Callable[[], None]) -> None:
        """Wait for the next part of a request; 0: for none."""
        if self._waits is not None:
            self._waits.cancel()
        self._waits = self.loop.call_later(seconds, late) if seconds else None

    def _head_is_late(self) -> None:
        self._waits = None
        self._refuse(b"408 Request Timeout")

    def _body_is_late(self) -> None:
        self._waits = None
        if self.flow.read_paused or self._body >= BODY_LEAST:
            # It comes, or is kept waiting itself.
            self._body = 0
            self._wait(self._body_seconds, self._body_is_late)
        elif self.cycle.response_started:
            self._end()
        else:
            self._refuse(b"408 Request Timeout")

    def _watch_unread(self, size: int) -> None:
        self._unread = self.loop.call_later(UNREAD_SECONDS, self._look_at_unread, size)

    def _look_at_unread(self, before: int) -> None:
        self._unread = None
        size = self.transport.get_write_buffer_size()
        if size >= before:
            self.transport.abort()
        else:
            self._watch_unread(size)

    def _refuse(self, status: bytes) -> None:
        """Answer what has no request yet, and end."""
        if not self.transport.is_closing():
            if self._is_idle() or not self.cycle.response_started:
                self.transport.write(b"HTTP/1.1 %s\r\ncontent-length: 0\r\nconnection: close\r\n\r\n" % status)
            self._end()

    def _end(self) -> None:
        self.transport.close()
        # What is not read does not keep it.
        self.loop.call_later(CLOSE_SECONDS, self.transport.abort)


class Listener:
    """Takes in connections of one socket, and has them counted from the first moment, TLS handshake included."""

    def __init__(self, listening: socket.socket, held: Connections, tls: ssl.SSLContext | None) -> None:
        self.listening, self.held, self.tls = listening, held, tls
        self._tasks: set[asyncio.Task[None]] = set()
        self._seconds = settings.HEAD_SECONDS.number(1), settings.BODY_SECONDS.number(1)

    async def run(self, config: Config, state: ServerState, app_state: dict[str, Any]) -> None:
        """Take in connections without end."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                try:
                    taken, peer = await loop.sock_accept(self.listening)
                except ConnectionAbortedError:
                    continue
                except OSError as error:
                    # No more files, or no memory: who waits stays in the queue.
                    LOG.error("no connection can be taken in: %s", error.strerror or error)
                    await asyncio.sleep(RETRY_SECONDS)
                    continue
                task = loop.create_task(self._greet(taken, peer, config, state, app_state))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        finally:
            for task in self._tasks:
                task.cancel()

    async def _greet(
        self, taken: socket.socket, peer: Any, config: Config, state: ServerState, app_state: dict[str, Any]
    ) -> None:
        loop = asyncio.get_running_loop()
        local = taken.family == socket.AF_UNIX

        def shut() -> None:
            with suppress(OSError):
                taken.shutdown(socket.SHUT_RDWR)

        one = Connection("" if local else address_of(peer[0]), shut)
        self.held.enter(one)
        head, body = self._seconds

        def protocol() -> Http:
            return Http(
                config, state, app_state, loop, held=self.held, connection=one, head_seconds=head, body_seconds=body
            )

        try:
            if not local:
                taken.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            tls = None if local else self.tls
            await loop.connect_accepted_socket(
                protocol, taken, ssl=tls, ssl_handshake_timeout=head if tls is not None else None
            )
        except (OSError, ssl.SSLError, TimeoutError) as error:
            self.held.leave(one)
            taken.close()
            LOG.debug("connection of %s: %s", one.address or "this machine", error)
