"""How much, and how often: what one caller may ask of a server before others suffer."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from crossway.api.answer import fault
from crossway.api.auth.layer import CALLER, address
from crossway.api.bucket import Buckets, TooMany
from crossway.control.caller import SERVICE, Caller
from crossway.errors import Fault

HEAD_MAX = 64 << 10


class HeadTooLarge(Fault):
    """The head of a request is larger than any that makes sense."""

    status = 431


class Http(HttpToolsProtocol):
    """HTTP of one connection, with an end to the head of a request: the parser itself would take in any."""

    _in_head = False
    _head = 0

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_head:
            self._head += len(data)
            if self._head > HEAD_MAX and not self.transport.is_closing():
                self.transport.write(
                    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
                )
                self.transport.close()

    def on_message_begin(self) -> None:
        self._in_head, self._head = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()


class Limited:
    """Refuse what is too large or comes too often; cloud services and hosts are not counted."""

    def __init__(self, app: ASGIApp, rate: Buckets | None = None) -> None:
        self.app, self.rate = app, rate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            if sum(len(name) + len(value) for name, value in scope["headers"]) > HEAD_MAX:
                error = HeadTooLarge(f"The headers should have at most {HEAD_MAX} bytes", "RequestHeaderFieldsTooLarge")
                await fault(error, scope["path"])(scope, receive, send)
                return
            if self.rate is not None and not scope["path"].startswith("/v1/"):
                caller = scope.get(CALLER)
                if not isinstance(caller, Caller):
                    wait = self.rate.take(address(scope))
                elif SERVICE in caller.roles or caller.host:
                    wait = 0
                else:
                    wait = self.rate.take((caller.project, caller.user))
                if wait:
                    often = TooMany(f"More than {self.rate.rate:g} requests a second: try again in {wait} s", wait)
                    refused = fault(often, scope["path"])
                    refused.headers["Retry-After"] = str(wait)
                    await refused(scope, receive, send)
                    return
        await self.app(scope, receive, send)
