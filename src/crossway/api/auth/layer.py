"""What the schemes have in common: credentials of a request, the refusal, and schemes side by side."""

from __future__ import annotations

import ipaddress
import re
import time
from collections.abc import Collection, Sequence
from typing import Protocol
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from crossway.api.answer import fault
from crossway.api.bucket import TooMany
from crossway.control.caller import Caller
from crossway.errors import Fault, Forbidden, Unauthorized
from crossway.settings import NAMES

# A name or an address, and maybe a port.
HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::\d{1,5})?", re.ASCII)
CALLER = "crossway.caller"
# How a connection hears that who asks by it is known.
KNOWN = "crossway.known"
# What may be known without a word on who asks: which versions there are.
OPEN = frozenset({"/"})


# So long after it was last known who asks, it is looked again.
AGAIN_SECONDS = 30.0


class Revoked(Exception):
    """Who asked may not ask any more, while the answer goes on."""


class Scheme(Protocol):
    """One way to say who asks."""

    challenge: str

    async def caller(self, scope: Scope) -> Caller | None:
        """Return who asks; None if the request says nothing in this scheme's words. Raises Unauthorized and others."""

    async def start(self) -> None:
        """Begin; what can never work is told now."""

    async def stop(self) -> None:
        """Let go of what is held."""


class Authenticated:
    """Let in whom one of the schemes knows; a unix socket of *trusted* is open to those who may open the socket."""

    def __init__(self, app: ASGIApp, schemes: Sequence[Scheme], trusted: Collection[str] = ()) -> None:
        self.app, self.schemes, self.trusted = app, schemes, frozenset(trusted)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"]
        try:
            found = await self._caller(scope)
            if found is None and path not in OPEN:
                raise Unauthorized("The request you have made requires authentication.")
            # What nobody vouched for never counts: a caller without roles may do nothing.
            scope[CALLER] = found or NOBODY
            if found is not None:
                known(scope)
        except Unauthorized as error:
            refused = fault(error, path)
            for scheme in self.schemes:
                refused.headers.append("WWW-Authenticate", scheme.challenge)
            await refused(scope, receive, send)
            return
        except Fault as error:
            refused = fault(error, path)
            if isinstance(error, TooMany):
                refused.headers["Retry-After"] = str(error.seconds)
            await refused(scope, receive, send)
            return
        try:
            await self.app(scope, receive, self._while_known(scope, send, found))
        except Revoked:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _while_known(self, scope: Scope, send: Send, found: Caller | None) -> Send:
        """Send an answer; one without end stops when its caller may not ask any more."""
        known_at = time.monotonic()

        async def checked(message: Message) -> None:
            nonlocal known_at
            if time.monotonic() - known_at > AGAIN_SECONDS and message.get("more_body"):
                try:
                    again = await self._caller(scope)
                except Unauthorized:
                    raise Revoked from None
                except Fault:
                    again = found  # nobody can tell now
                if again != found:
                    raise Revoked
                known_at = time.monotonic()
            await send(message)

        return checked

    async def _caller(self, scope: Scope) -> Caller | None:
        for scheme in self.schemes:
            found = await scheme.caller(scope)
            if found is not None:
                return found
        server = scope.get("server")
        return Caller() if server and server[1] is None and server[0] in self.trusted else None


class Believing:
    """Where everyone is believed, believe no web page of another site: its visitor's browser would ask for it.

    Nor one whose name was made to lead here: such a request says that name as its Host, of which only the
    server's own *names* are known beside addresses, which nobody can make lead elsewhere.
    """

    def __init__(self, app: ASGIApp, names: Collection[str] = ()) -> None:
        self.app = app
        self.names = frozenset(name.lower().removesuffix(".") for name in ("localhost", *names) if name)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            refused = self._refused(scope)
            if refused is not None:
                await fault(refused, scope["path"])(scope, receive, send)
                return
        known(scope)
        await self.app(scope, receive, send)

    def _refused(self, scope: Scope) -> Fault | None:
        origin, host = header(scope, b"origin"), header(scope, b"host")
        own = host is not None and is_own(host, self.names)
        asked = any(key == b"origin" for key, _ in scope["headers"])
        if asked and (not own or origin is None or netloc_of(origin) != host):
            return Forbidden(f"Web pages of {origin} may not ask this server")
        # No browser speaks to a unix socket, nor HTTP/1.0 without a Host.
        local = scope.get("server") and scope["server"][1] is None
        if own or local or (scope["http_version"] == "1.0" and all(key != b"host" for key, _ in scope["headers"])):
            return None
        return Misdirected(
            f"Host '{host}' is no name of this server: with auth none it answers to addresses, to localhost and to "
            f"the names of {NAMES.variable}"
        )


class Misdirected(Fault):
    """The request is for another server, by the name that it says."""

    status = 421


def is_own(host: str, names: Collection[str]) -> bool:
    """Return whether a Host is an address, or one of the server's own names."""
    found = HOST.fullmatch(host)
    if found is None:
        return False
    name = found[1].lower().removesuffix(".")
    if name in names:
        return True
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def netloc_of(origin: str) -> str | None:
    """Return the host and port of an origin; None if it has none that can be read."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def known(scope: Scope) -> None:
    """Tell the connection that its caller is known; raise TooMany if there are too many of that caller's."""
    if (hears := scope.get(KNOWN)) is not None:
        hears(scope)


NOBODY = Caller(project="", roles=frozenset())


def header(scope: Scope, name: bytes) -> str | None:
    """Return a header of a request, if it is there once."""
    found = [value for key, value in scope["headers"] if key == name]
    return found[0].decode("latin-1") if len(found) == 1 else None


def address(scope: Scope) -> str:
    """Return where a request comes from, as far as one sender can be told from another: a /64 of IPv6 is one."""
    client = scope.get("client")
    return address_of(client[0]) if client else "local"


def address_of(text: str) -> str:
    """Return as whose an address counts."""
    try:
        ip = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return text
    if ip.version == 6:
        if ip.ipv4_mapped:
            return str(ip.ipv4_mapped)
        return str(ipaddress.ip_network((int(ip) >> 64 << 64, 64)))
    return str(ip)
