"""How much, and how often: what one caller may ask of a server before others suffer."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from crossway.api import body
from crossway.api.answer import fault
from crossway.api.auth.layer import CALLER, address
from crossway.api.body import BODIES, Bodies
from crossway.api.bucket import Buckets, TooMany
from crossway.api.connection import HEAD_MAX
from crossway.control.caller import SERVICE, Caller
from crossway.errors import Fault


class HeadTooLarge(Fault):
    """The head of a request is larger than any that makes sense."""

    status = 431


class Limited:
    """Refuse what is too large or comes too often; cloud services and hosts are not counted."""

    def __init__(self, app: ASGIApp, rate: Buckets | None = None, bodies: Bodies | None = None) -> None:
        self.app, self.rate = app, rate
        self.bodies = bodies or body.bodies()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope[BODIES] = self.bodies
            said = sum(len(name) + len(value) for name, value in scope["headers"])
            if said + len(scope["raw_path"]) + len(scope["query_string"]) > HEAD_MAX:
                error = HeadTooLarge(
                    f"The URL and the headers should have at most {HEAD_MAX} bytes", "RequestHeaderFieldsTooLarge"
                )
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
        try:
            await self.app(scope, receive, send)
        finally:
            self.bodies.release(scope)
