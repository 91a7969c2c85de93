"""What the agent says to its servers, and hears.

On h11 and asyncio alone: a workload waits while its port is bound, and a
host reports many times a second while much changes. httpx, which serves the
faces, took three times as long for a request and two thirds of the agent's
time.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing, nullcontext
from typing import Any
from urllib.parse import urlsplit

import h11
import msgspec

from crossway import settings
from crossway.client import ANSWER_SECONDS, CONNECT_SECONDS, VIEW_SECONDS, Object, Objects, fault_of, path_of
from crossway.errors import Fault, Invalid, Unavailable

CHUNK = 1 << 18
IDLE_MAX = 4
# Requests of this host at once, beside its view, a report and its registration: a server takes
# `CROSSWAY_HOST_CONNECTIONS` of one host.
REQUESTS_MAX = 24


class Ended(Exception):
    """A connection ended, or was never there; what was asked may or may not have been heard."""


class Connection:
    """One HTTP connection to a server, for one request after another."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, who: Mapping[str, str]
    ) -> None:
        self._reader, self._writer = reader, writer
        self._head = [("Host", host), ("Accept", "application/json"), *who.items()]
        self._http = h11.Connection(h11.CLIENT)
        self.heard = False  # whether anything came back for the last request

    @property
    def usable(self) -> bool:
        """Whether another request may be sent."""
        return self._http.our_state is h11.IDLE and not self._reader.at_eof()

    async def ask(self, method: str, path: str, content: bytes | None = None) -> int:
        """Send a request; return the status that came back."""
        headers = self._head.copy()
        if content is not None:
            headers += [("Content-Type", "application/json"), ("Content-Length", str(len(content)))]
        self.heard = False
        out = self._http.send(h11.Request(method=method, target=path, headers=headers)) or b""
        if content is not None:
            out += self._http.send(h11.Data(data=content)) or b""
        out += self._http.send(h11.EndOfMessage()) or b""
        try:
            self._writer.write(out)
            while True:
                event = await self._next()
                if isinstance(event, h11.Response):
                    return int(event.status_code)
        except OSError as fault:
            raise Ended(str(fault)) from fault

    async def body(self) -> AsyncGenerator[bytes, None]:
        """Yield what follows the status, as it comes."""
        while True:
            event = await self._next()
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
                    self._http.start_next_cycle()
                return

    async def _next(self) -> Any:
        try:
            while (event := self._http.next_event()) is h11.NEED_DATA:
                raw = await self._reader.read(CHUNK)
                self.heard = self.heard or bool(raw)
                self._http.receive_data(raw)
        except (OSError, h11.RemoteProtocolError) as fault:
            raise Ended(str(fault)) from fault
        if isinstance(event, h11.ConnectionClosed):
            raise Ended("the connection was closed")
        return event

    def close(self) -> None:
        """End the connection."""
        self._writer.close()


class Server:
    """One server and the connections to it that wait for the next request."""

    def __init__(self, url: str, who: Mapping[str, str]) -> None:
        self.url, self._who = url, who
        self._socket = url.removeprefix("unix:") if url.startswith("unix:") else None
        parts = urlsplit(url)
        if self._socket is None and (parts.scheme not in ("http", "https") or not parts.hostname):
            raise Invalid(f"server {url!r} is neither http://HOST:PORT, https://HOST:PORT nor unix:PATH")
        self._tls = ssl.create_default_context(cafile=settings.CA.value() or None) if parts.scheme == "https" else None
        self._host, self._port = parts.hostname or "localhost", parts.port or (443 if self._tls else 80)
        self._name = parts.netloc or "localhost"
        self._prefix = "" if self._socket else parts.path.rstrip("/").removesuffix("/v2.0")
        self._idle: list[Connection] = []
        self._turns = asyncio.Semaphore(REQUESTS_MAX)
        self._timeouts = 0

    async def addresses(self) -> list[str]:
        """Return the addresses of the server; none if it is on this host alone, or its name is not known."""
        if self._socket is not None:
            return []
        try:
            found = await asyncio.get_running_loop().getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except OSError:
            return []
        return [str(address[0]).partition("%")[0] for *_, address in found]

    async def connect(self) -> Connection:
        """Return a new connection; raises `Ended`."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                if self._socket is not None:
                    reader, writer = await asyncio.open_unix_connection(self._socket, limit=4 * CHUNK)
                else:
                    reader, writer = await asyncio.open_connection(
                        self._host, self._port, ssl=self._tls, limit=4 * CHUNK
                    )
        except TimeoutError:
            self._timeouts += 1
            raise Ended(f"no connection within {CONNECT_SECONDS:g} s") from None
        except OSError as fault:
            raise Ended(str(fault)) from fault
        return Connection(reader, writer, self._name, self._who)

    async def ask(
        self, method: str, path: str, content: bytes | None, *, urgent: bool = False, alone: bool = True
    ) -> tuple[int, bytes]:
        """Send a request, over a connection that is there already if there is one; raises `Ended`.

        An *urgent* one does not wait for others. Where this server is not *alone*, those that wait move on to the
        next one when it has not answered another request in time.
        """
        before = self._timeouts
        async with nullcontext() if urgent else self._turns:
            if self._timeouts != before and not alone:
                raise Ended("it has not answered another request in time")
            while self._idle:
                connection = self._idle.pop()
                if connection.usable:
                    try:
                        return await self._over(connection, method, path, content)
                    except Ended:
                        if connection.heard:
                            raise
                        continue  # it was closed meanwhile, as servers do with idle ones
                connection.close()
            return await self._over(await self.connect(), method, path, content)

    async def _over(self, connection: Connection, method: str, path: str, content: bytes | None) -> tuple[int, bytes]:
        kept = False
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                status = await connection.ask(method, self._prefix + path, content)
                body = b"".join([part async for part in connection.body()])
            if connection.usable and len(self._idle) < IDLE_MAX:
                self._idle.append(connection)
                kept = True
            return status, body
        except TimeoutError:
            self._timeouts += 1
            raise Ended(f"no answer within {ANSWER_SECONDS:g} s") from None
        finally:
            if not kept:
                connection.close()

    async def stream(self, path: str) -> AsyncGenerator[bytes, None]:
        """Yield what comes for a GET without end; raises `Ended`, also when it falls silent, or what refuses it."""
        connection = await self.connect()
        try:
            async with asyncio.timeout(VIEW_SECONDS):
                status = await connection.ask("GET", self._prefix + path)
                if status >= 400:
                    raise fault_of(status, b"".join([part async for part in connection.body()]))
            async with aclosing(connection.body()) as parts:
                while True:
                    async with asyncio.timeout(VIEW_SECONDS):
                        part = await anext(parts, None)
                    if part is None:
                        return
                    yield part
        except TimeoutError:
            raise Ended(f"nothing heard for {VIEW_SECONDS:g} s") from None
        finally:
            connection.close()

    def close(self) -> None:
        """End the connections that wait."""
        for connection in self._idle:
            connection.close()
        self._idle.clear()


class Servers:
    """The servers of a host: the one that answered last is asked first, the next one when it is silent.

    All that an agent writes may be said twice, so any failure moves on.
    """

    def __init__(self, servers: Iterable[str], host: str) -> None:
        self.host = host
        who = settings.credentials()
        self._servers = [Server(url, who) for url in servers]
        if not self._servers:
            raise Invalid("no server is named")
        self._first = 0

    @property
    def server(self) -> str:
        """The server that answered last."""
        return self._servers[self._first].url

    async def addresses(self) -> list[str]:
        """Return where the servers are, as far as that can be found out."""
        found = await asyncio.gather(*(server.addresses() for server in self._servers))
        return [address for addresses in found for address in addresses]

    def close(self) -> None:
        """End all connections that wait."""
        for server in self._servers:
            server.close()

    async def register(self, underlay: str, physnets: Mapping[str, str], version: str) -> None:
        """Say that this host is there, and where."""
        body = {"underlay": underlay, "physnets": dict(physnets), "version": version}
        await self._ask("PUT", f"/v1/hosts/{self.host}", body, urgent=True)

    async def report(self, applied: int, ports: Mapping[str, str]) -> None:
        """Say which revision is applied and which ports are up or down."""
        body = {"applied": applied, "ports": dict(ports)}
        await self._ask("POST", f"/v1/hosts/{self.host}/status", body, urgent=True)

    async def hand_over(self, port: str, flows: str) -> None:
        """Say which connections a port has that moves."""
        await self._ask("POST", f"/v1/hosts/{self.host}/handover", {"port": port, "flows": flows})

    async def learn(self, port: str, ip: str, mac: str | None) -> None:
        """Say that a port of this host has been seen to have an address; without MAC, that it has it no more."""
        await self._ask("POST", f"/v1/hosts/{self.host}/learned", {"port": port, "ip": ip, "mac": mac})

    async def taken(self, port: str, *, carried: bool) -> None:
        """Say whether a port that is about to move here is carried already."""
        await self._ask("POST", f"/v1/hosts/{self.host}/taken", {"port": port, "carried": carried})

    async def activate(self, port: str) -> None:
        """Have a port be on this host, for which a binding of it waits."""
        await self._ask("PUT", f"{path_of('port', port)}/bindings/{self.host}/activate", {})

    async def bindings(self, port: str) -> Objects:
        """Return where a port may be."""
        bindings: Objects = (await self._ask("GET", f"{path_of('port', port)}/bindings"))["bindings"]
        return bindings

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Ask for what the Networking API has; what is made may be made twice if a server dies meanwhile."""
        return await self._ask(method, path, body)

    async def port(self, id: str) -> Object:
        """Return a port as the Networking API shows it."""
        port: Object = (await self._ask("GET", path_of("port", id)))["port"]
        return port

    async def bind(self, id: str, *, host: str | None) -> None:
        """Say on which host a port lives; None: on none."""
        await self._ask("PUT", path_of("port", id), {"port": {"binding:host_id": host or ""}})

    async def hosts(self) -> Objects:
        """Return the hosts that have joined: name, alive and more."""
        hosts: Objects = (await self._ask("GET", "/v1/hosts"))["hosts"]
        return hosts

    async def view(self, after: int) -> AsyncGenerator[Object, None]:
        """Yield the documents of this host's view from a revision on, until the connection ends.

        Raises `Unavailable` when no server answers, or when the one that did
        falls silent; the caller comes again with its last bookmark.
        """
        last: Exception | None = None
        for turn in range(len(self._servers)):
            index = (self._first + turn) % len(self._servers)
            heard = False
            try:
                async with aclosing(self._servers[index].stream(f"/v1/hosts/{self.host}/view?after={after}")) as parts:
                    rest = b""
                    async for part in parts:
                        if not heard:
                            self._first, heard = index, True
                        *lines, rest = (rest + part).split(b"\n")
                        for line in lines:
                            if line:
                                yield msgspec.json.decode(line)
                raise Unavailable(f"{self._servers[index].url} ended the view")
            except Ended as fault:
                last = fault
                if heard:
                    break
        # Ask another one first when coming again.
        self._first = (self._first + 1) % len(self._servers)
        raise self._silent(last)

    async def _ask(self, method: str, path: str, body: Any = None, *, urgent: bool = False) -> Any:
        content = msgspec.json.encode(body) if body is not None else None
        last: Exception | None = None
        for turn in range(len(self._servers)):
            index = (self._first + turn) % len(self._servers)
            try:
                alone = len(self._servers) == 1
                status, answer = await self._servers[index].ask(method, path, content, urgent=urgent, alone=alone)
            except Ended as fault:
                last = fault
                continue
            self._first = index
            if status >= 400:
                raise fault_of(status, answer)
            return msgspec.json.decode(answer) if answer else None
        raise self._silent(last)

    def _silent(self, last: Exception | None) -> Fault:
        return Unavailable(f"no answer from {', '.join(s.url for s in self._servers)}: {last}")
