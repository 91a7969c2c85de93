"""Connections of a server: how long each may take to say what it wants, and how many there may be.

Who has not said who it is, a stranger, has little time and few connections from one address; beyond them the
oldest goes, not the newest, so that nobody shuts out whoever comes later from there. A quarter of the files
that the process may open is kept for hosts. Of those who are known each project, user and host has a number of
connections, and of bytes of answers that it has not read: what it has beyond costs itself.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import ssl
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Any

from starlette.types import Scope
from uvicorn import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from crossway import settings
from crossway.api.auth.layer import CALLER, KNOWN, address_of
from crossway.api.bucket import Buckets, TooMany
from crossway.control.caller import SERVICE, Caller

LOG = logging.getLogger("crossway.api")
HEAD_MAX = 64 << 10
# Of a connection that is not used: of one whose caller is known, and of a stranger's.
KEEP_ALIVE_SECONDS, STRANGER_SECONDS = 75, 10
# Of an answer so many bytes are read in so many seconds at least; what is closed may stay unsent for so long.
UNREAD_LEAST, UNREAD_SECONDS, CLOSE_SECONDS = 64 << 10, 60, 5
# Bytes of answers that one project or host has not read, and those of all.
UNREAD_MAX, UNREAD_TOTAL = 64 << 20, 256 << 20
# Bytes of a body that come in the seconds of a setting at least, and that are let pass once it is refused.
BODY_LEAST, DRAIN_MAX = 64 << 10, 64 << 20
# Bytes of refused bodies that are read of one address, so that the client can read why: in a second, and at once.
DRAIN_RATE, DRAIN_BURST = 16 << 20, 64 << 20
# A whole body comes in so many times those seconds.
BODY_WHOLE = 5
# Requests of one connection that wait for the one before them (RFC 9112, 9.3.2); no more are read meanwhile.
WAITING_MAX = 8
# Bytes that are parsed at a time, so that no more requests wait: of a head, and of one behind another.
HEAD_STEP, WAITING_STEP = 1024, 128
# Files that a server opens beside connections, and the most that it asks for.
OWN_FILES, FILES_MAX = 64, 1 << 20
RETRY_SECONDS = 0.05
# Whose connections: "project", "user" or "host", and the name or id.
Owner = tuple[str, str]
LIMITS = {
    "project": settings.PROJECT_CONNECTIONS,
    "user": settings.USER_CONNECTIONS,
    "host": settings.HOST_CONNECTIONS,
}


class Connection:
    """One connection as it is counted: a stranger's, until its caller is known."""

    __slots__ = ("address", "close", "finish", "gone", "host", "known", "owners", "rests", "unread")

    def __init__(self, address: str, close: Callable[[], None], finish: Callable[[], None] | None = None) -> None:
        # *close* ends it at once; *finish* lets what is sent go out first.
        self.address, self.close, self.finish = address, close, finish or close
        self.known = self.host = self.gone = self.rests = False
        self.owners: tuple[Owner, ...] = ()
        self.unread = 0


class Connections:
    """All connections of a server; of strangers *each* from one address, and *most* of all but hosts.

    *limits* are for one project, one user and one host; 0 is no limit.
    """

    def __init__(self, each: int, most: int, limits: Mapping[str, int] | None = None) -> None:
        self.each, self.most, self.limits = each, most, limits or {}
        self.strangers: OrderedDict[Connection, None] = OrderedDict()
        self.by_address: dict[str, OrderedDict[Connection, None]] = {}
        # Of those that are known, whose request is answered: the longest so comes first.
        self.idle: OrderedDict[Connection, None] = OrderedDict()
        self.drains = Buckets(DRAIN_RATE, DRAIN_BURST)
        self.count = 0
        # Of each owner, the one whose last request was answered longest ago comes first.
        self.by_owner: dict[Owner, OrderedDict[Connection, None]] = {}
        # Bytes that are not read, by whose connection: the one that has waited longest comes first; and their sums,
        # of each owner and of all but hosts, whose views have bounds of their own.
        self.unread: dict[Owner, OrderedDict[Connection, int]] = {}
        self.unread_of: Counter[Owner] = Counter()
        self.unread_sum = 0

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

    def knows(self, one: Connection, host: bool, owners: tuple[Owner, ...] = ()) -> None:
        """Note that a connection's caller is known, whose it is and whether it is a host.

        Where an owner has as many as it may, its longest idle one goes; if none is idle, raise TooMany.
        """
        if one.gone:
            return
        if owners != one.owners:
            self._own(one, owners)
        one.rests = False
        if not one.known:
            one.known = True
            self._forget(one)
        if host and not one.host:
            one.host = True
            self.count -= 1
        self.idle.pop(one, None)

    def begins(self, one: Connection) -> None:
        """Note that a request comes on a connection: it is idle no more, whoever it turns out to be from."""
        one.rests = False
        self.idle.pop(one, None)

    def rests(self, one: Connection) -> None:
        """Note that a connection's request is answered."""
        if not one.known or one.gone:
            return
        one.rests = True
        for owner in one.owners:
            self.by_owner[owner].move_to_end(one)
        if not one.host:
            self.idle[one] = None

    def waits(self, one: Connection, size: int) -> None:
        """Note how many bytes of answers a connection has not read; others go where an owner, or all, have too many."""
        if one.gone or not one.owners or not size:
            self._reads(one)
            return
        owner = one.owners[0]
        theirs = self.unread.setdefault(owner, OrderedDict())
        self._count_unread(owner, size - one.unread)
        theirs[one] = one.unread = size
        while self.unread_of[owner] > UNREAD_MAX and len(theirs) > 1:
            self._unsent(owner)
        while self.unread_sum > UNREAD_TOTAL:
            self._unsent(max((who for who in self.unread_of if who[0] != "host"), key=self.unread_of.__getitem__))

    def _count_unread(self, owner: Owner, more: int) -> None:
        self.unread_of[owner] += more
        if not self.unread_of[owner]:
            del self.unread_of[owner]
        if owner[0] != "host":
            self.unread_sum += more

    def _unsent(self, owner: Owner) -> None:
        LOG.warning("%s %s does not read its answers: the connection that waits longest is closed", *owner)
        self._evict(next(iter(self.unread[owner])))

    def _reads(self, one: Connection) -> None:
        """Count no bytes of a connection."""
        for owner in one.owners[:1]:
            if (theirs := self.unread.get(owner)) is not None:
                self._count_unread(owner, -theirs.pop(one, 0))
                if not theirs:
                    del self.unread[owner]
        one.unread = 0

    def _own(self, one: Connection, owners: tuple[Owner, ...]) -> None:
        for owner in owners:
            most = self.limits.get(owner[0], 0)
            theirs: Collection[Connection] = self.by_owner.get(owner, ())
            if owner in one.owners or not 0 < most <= len(theirs):
                continue
            idle = next((other for other in theirs if other.rests and not other.unread), None)
            if idle is None:
                kind, name = owner
                raise TooMany(
                    f"The {kind} {name} has {most} connections with requests under way, the most that one {kind} may "
                    f"have ({LIMITS[kind].variable}): wait for their answers",
                    1,
                )
            self.leave(idle)
            idle.finish()
        self._disown(one)
        one.owners = owners
        for owner in owners:
            self.by_owner.setdefault(owner, OrderedDict())[one] = None

    def _disown(self, one: Connection) -> None:
        self._reads(one)
        for owner in one.owners:
            theirs = self.by_owner[owner]
            theirs.pop(one, None)
            if not theirs:
                del self.by_owner[owner]
        one.owners = ()

    def leave(self, one: Connection) -> None:
        """Count a connection no more."""
        if not one.gone:
            one.gone = True
            self._forget(one)
            self._disown(one)
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
    most = max(16, (files - OWN_FILES) * 3 // 4)
    # Where files are few, nobody has more than a quarter of them.
    limits = {kind: min(setting.number(0), max(16, most // 4)) for kind, setting in LIMITS.items()}
    return Connections(settings.STRANGERS.number(0), most, limits)


def owners_of(caller: Caller) -> tuple[Owner, ...]:
    """Return to whose number of connections one counts; those of admins and cloud services are not limited."""
    if caller.host:
        return (("host", caller.host),)
    if caller.admin or SERVICE in caller.roles:
        return ()
    whose = ("project", caller.project), ("user", caller.user)
    return tuple((kind, name) for kind, name in whose if name)


class Flow(FlowControl):
    """Reading and writing of a connection; while it is *held*, nothing is read, whoever waits for more."""

    held = False

    def hold(self) -> None:
        self.held = True
        self.pause_reading()

    def resume_reading(self) -> None:
        if not self.held:
            super().resume_reading()


class Http(HttpToolsProtocol):
    """HTTP of one connection, with an end to each part of a request: the parser itself would wait and take in any."""

    flow: Flow

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
        # When the whole body is late; what is left of it, if that was said; and what came since the last of it.
        self._body_until = 0.0
        self._left = self._between = 0
        # The request that is answered: `cycle` is the last one that was read. And what is not parsed yet.
        self._running: RequestResponseCycle | None = None
        self._rest = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = Flow(transport)
        self._connection.close, self._connection.finish = transport.abort, self._end
        self._wait(self._head_seconds, self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait(0, self._head_is_late)
        if self._unread is not None:
            self._unread.cancel()
        self._held.leave(self._connection)
        # Uvicorn tells the last request alone, which may still wait for this one.
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()
        self.pipeline.clear()
        self._rest = b""
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.flow.held:
            # TLS may hand on what it has taken in before.
            self._rest += data
        else:
            self._parse(data)

    def _parse(self, data: bytes) -> None:
        """Parse what has come, up to as many requests as may wait."""
        at = 0
        while at < len(data) and not self.transport.is_closing():
            if len(self.pipeline) >= WAITING_MAX:
                self._rest = data[at:]
                self._wait(0, self._head_is_late)
                self.flow.hold()
                return
            step = WAITING_STEP if self.pipeline else HEAD_STEP
            if self._in_body:
                step = self._left or HEAD_STEP
            part = data[at : at + step] if at or len(data) > step else data
            at += len(part)
            self._between += len(part)
            super().data_received(part)
            if self._in_head:
                self._head += len(part)
            # Beside its body, a request in chunks has their sizes and extensions, and trailers.
            if (self._in_head and self._head > HEAD_MAX) or (self._in_body and self._between > HEAD_MAX):
                self._refuse(b"431 Request Header Fields Too Large")
        if self.transport.is_closing():
            return
        # A request that comes at once, as most do, needs no clock.
        if self._waits is None:
            if self._in_body:
                self._body_until = self.loop.time() + self._body_seconds * BODY_WHOLE
                self._wait(self._body_seconds, self._body_is_late)
            elif self._in_head or self._is_idle():
                # Or empty lines, which may stand before a request.
                self._wait(self._head_seconds, self._head_is_late)

    def on_message_begin(self) -> None:
        self._in_head, self._head = True, 0
        self._held.begins(self._connection)
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        # Trailers are no headers: by those it is known who asks.
        if not self._in_body:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head, self._in_body, self._body, self._drained = False, True, 0, 0
        self._between = 0
        said = [value for name, value in self.headers if name == b"content-length"]
        self._left = int(said[0]) if said and said[0].isdigit() else 0
        self._wait(0, self._body_is_late)
        self.scope[KNOWN] = self._knows  # type: ignore[literal-required]
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body += len(body)
        self._left = max(0, self._left - len(body))
        self._between = 0
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
        waiting = bool(self.pipeline)
        super().on_response_complete()
        if self.transport.is_closing():
            self._close_unread()
            return
        if not waiting:
            self._held.rests(self._connection)
        if self.flow.held and not self.pipeline:
            # The last one may want its body yet.
            rest, self._rest = self._rest, b""
            self.flow.held = False
            self._parse(rest)
            if not self.flow.held and not self.transport.is_closing():
                self.flow.resume_reading()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def send_400_response(self, msg: str) -> None:
        if self._is_answering():
            self._end()
        else:
            super().send_400_response(msg)

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._close_unread()

    def pause_writing(self) -> None:
        super().pause_writing()
        # What the kernel takes at once is no matter.
        self.loop.call_soon(self._look_at_unread, None)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._held.waits(self._connection, 0)
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
        if self.transport.is_closing():
            self._close_unread()

    def _knows(self, scope: Scope) -> None:
        """Hear that the caller of a request is known; raise TooMany if its connections are too many."""
        caller = scope.get(CALLER)
        if not isinstance(caller, Caller):
            caller = Caller()
        host = bool(caller.host) or SERVICE in caller.roles or (caller.admin and scope["path"].startswith("/v1/"))
        self._held.knows(self._connection, host, owners_of(caller))
        self.timeout_keep_alive = KEEP_ALIVE_SECONDS

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _is_answering(self) -> bool:
        """Say whether an answer has begun, so that no other may be sent."""
        running = self._running
        return running is not None and running.response_started and not running.response_complete

    def _wait(self, seconds: float, late: Callable[[], None]) -> None:
        """Wait for the next part of a request; 0: for none."""
        if self._waits is not None:
            self._waits.cancel()
        self._waits = self.loop.call_later(seconds, late) if seconds else None

    def _head_is_late(self) -> None:
        self._waits = None
        if self.flow.read_paused:
            # It is kept waiting itself.
            self._wait(self._head_seconds, self._head_is_late)
        else:
            self._refuse(b"408 Request Timeout")

    def _body_is_late(self) -> None:
        self._waits = None
        paused = self.flow.read_paused
        if paused or (self._body >= BODY_LEAST and self.loop.time() < self._body_until):
            # It comes, or is kept waiting itself.
            self._body = 0
            if paused:
                self._body_until += self._body_seconds
            self._wait(self._body_seconds, self._body_is_late)
        elif self.cycle.response_started:
            self._end()
        else:
            self._refuse(b"408 Request Timeout")

    def _look_at_unread(self, before: int | None) -> None:
        """Have what is sent be read in time."""
        if self.transport is None or self._connection.gone or not self.flow.write_paused:
            return
        size = self.transport.get_write_buffer_size()
        if before is not None and size > before - UNREAD_LEAST:
            self.transport.abort()
            return
        self._held.waits(self._connection, size)
        if self._unread is not None:
            self._unread.cancel()
        self._unread = self.loop.call_later(UNREAD_SECONDS, self._look_at_unread, size)

    def _close_unread(self) -> None:
        """Have a connection that is closing end, though the rest of its answer is not read."""
        if self._unread is None and not self._connection.gone:
            self._unread = self.loop.call_later(UNREAD_SECONDS, self.transport.abort)

    def _refuse(self, status: bytes) -> None:
        """Answer what has no request yet, and end."""
        if not self.transport.is_closing():
            if not self._is_answering():
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
