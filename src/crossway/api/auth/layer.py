"""What the schemes have in common: credentials of a request, the refusal, and schemes side by side."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Collection, Sequence
from typing import Protocol
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from crossway.api.answer import fault
from crossway.api.bucket import TooMany
from crossway.control.caller import Caller
from crossway.errors import Fault, Forbidden, Unauthorized

CALLER = "crossway.caller"
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
        # What nobody vouched for never counts: a caller without roles may do nothing.
        scope[CALLER] = found or NOBODY
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
    """Where everyone is believed, believe no web page of another site: its visitor's browser would ask for it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and any(key == b"origin" for key, _ in scope["headers"]):
            origin, host = header(scope, b"origin"), header(scope, b"host")
            if origin is None or host is None or not is_own(origin, host):
                await fault(Forbidden(f"Web pages of {origin} may not ask this server"), scope["path"])(
                    scope, receive, send
                )
                return
        await self.app(scope, receive, send)


def is_own(origin: str, host: str) -> bool:
    """Return whether a page is the server's own; names may be made to lead anywhere, addresses not."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        if name != "localhost":
            ipaddress.ip_address(name)
        return urlsplit(origin).netloc == host
    except ValueError:
        return False


NOBODY = Caller(project="", roles=frozenset())


def header(scope: Scope, name: bytes) -> str | None:
    """Return a header of a request, if it is there once."""
    found = [value for key, value in scope["headers"] if key == name]
    return found[0].decode("latin-1") if len(found) == 1 else None


def address(scope: Scope) -> str:
    """Return where a request comes from, as far as one sender can be told from another: a /64 of IPv6 is one."""
    client = scope.get("client")
    if not client:
        return "local"
    try:
        ip = ipaddress.ip_address(client[0])
    except ValueError:
        return str(client[0])
    if ip.version == 6:
        if ip.ipv4_mapped:
            return str(ip.ipv4_mapped)
        return str(ipaddress.ip_network((int(ip) >> 64 << 64, 64)))
    return str(ip)
