"""Bodies of requests: how large, of how many values, and how much of one caller at once.

What is too large is refused while it comes in: by Content-Length before anything is read, else at the limit. The
number of values is counted as well, as it, and not the bytes, is what decoding costs: `[{},{},…]` makes twenty
bytes of memory of each of its own, and the decoder lets nobody have the interpreter meanwhile. So a thread would
be no help; a long list is cut into its items, still text, and they are decoded in portions.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import msgspec
from starlette.requests import Request
from starlette.types import Scope

from crossway import settings
from crossway.api.bucket import TooMany
from crossway.control.caller import Caller
from crossway.errors import Fault, Invalid, Unavailable

BODIES = "crossway.bodies"
HELD = "crossway.body"
# Requests of one list at once, in a body of their own.
BULK_MAX = 10_000
# Values that a body has at most: names, numbers, objects, lists and what is in them.
VALUES_MAX, BULK_VALUES_MAX = 50_000, 250_000
# A body that is no longer than this is looked at within the loop: another thread would cost more.
SHORT = 16 << 10
# What a value takes in memory beside its text.
VALUE_BYTES = 128
# Objects and lists within each other. What is written for JSON of any depth would run out of stack.
DEPTH_MAX = 32
# What a host may say at once: reports of its ports, connections that move with a port.
HOST_MAX = 2 << 20
# What the bodies that are being read and worked on may take: of all, of one project, of one host.
TOTAL_BYTES, PROJECT_BYTES, HOST_BYTES = 256 << 20, 40 << 20, 16 << 20
# Of all, a quarter is for hosts, and a quarter for projects that have no more than so much under way.
HOSTS_PART, ASSURED_PART, ASSURED_BYTES = 4, 4, 1 << 20
# Beyond that, a project has half of what the other projects leave, so that there is room for another.
SHARE = 2
RETRY_SECONDS = 1
Shape = dict[str, msgspec.Raw]
HOLDING = (dict, list)


class Payer(NamedTuple):
    """Who is charged for what a request takes: a project, or a host."""

    name: str
    host: bool = False


class TooLarge(Fault):
    """The body is larger than this kind of request may have."""

    status = 413

    def __init__(self, message: str) -> None:
        super().__init__(message, "RequestEntityTooLarge")


class Bodies:
    """What is read and worked on at once; *single* and *bulk* are the bytes of one body."""

    def __init__(
        self,
        single: int,
        bulk: int,
        total: int = TOTAL_BYTES,
        project: int = PROJECT_BYTES,
        host: int = HOST_BYTES,
        assured: int = ASSURED_BYTES,
    ) -> None:
        self.single, self.bulk, self.total = single, bulk, total
        self.project, self.host, self.assured = project, host, assured
        self.held: Counter[Payer] = Counter()
        self.sum = self.of_projects = 0

    def hold(self, scope: Scope, who: Payer, size: int) -> None:
        """Count what a request takes until `release`; raise a fault where its project or host, or all, take too much.

        What one project has never keeps hosts out, nor projects that have little under way.
        """
        _, before = scope.get(HELD, (who, 0))
        more = max(0, size - before)
        mine = self.held[who] + more
        most = self.host if who.host else self.project
        if mine > most:
            raise TooMany(
                f"The bodies of your requests under way take more than {most >> 20} MiB: try again in "
                f"{RETRY_SECONDS} s",
                RETRY_SECONDS,
            )
        if self._is_full(who, mine, more):
            raise Unavailable("The bodies of all requests under way take too much: try again in a moment")
        self.held[who] = mine
        self.sum += more
        self.of_projects += 0 if who.host else more
        scope[HELD] = who, before + more

    def _is_full(self, who: Payer, mine: int, more: int) -> bool:
        if self.sum + more > self.total:
            return True
        if who.host:
            return False
        for_projects = self.total - self.total // HOSTS_PART
        if self.of_projects + more > for_projects:
            return True
        others = self.of_projects + more - mine
        return mine > self.assured and mine > (for_projects - self.total // ASSURED_PART - others) // SHARE

    def release(self, scope: Scope) -> None:
        """Give back what a request has held."""
        who, size = scope.pop(HELD, (None, 0))
        if size:
            self.held[who] -= size
            self.sum -= size
            self.of_projects -= 0 if who.host else size
            if self.held[who] <= 0:
                del self.held[who]


def bodies() -> Bodies:
    """Return the limits that the settings say."""
    bulk = settings.BULK.number(1)
    # A project has room for the largest body that it may send.
    project = max(PROJECT_BYTES, bulk + BULK_VALUES_MAX * VALUE_BYTES)
    return Bodies(settings.BODY.number(1), bulk, project=project)


def payer(caller: Caller) -> Payer:
    """Return who is charged for a request's body: a host itself, or else a project."""
    return Payer(caller.host, host=True) if caller.host else Payer(caller.project)


def limits(request: Request) -> Bodies:
    """Return the limits that a request is under."""
    found: Bodies | None = request.scope.get(BODIES)
    return found or bodies()


async def read(
    request: Request, who: Payer, *, bulk: bool = False, most: int = 0, values: int = VALUES_MAX
) -> bytearray:
    """Read a body of at most *most* bytes, which *who* is charged for; the settings say how many if nothing does."""
    held = limits(request)
    if bulk:
        most, values = max(held.bulk, held.single), BULK_VALUES_MAX
    most = most or held.single
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and (len(announced) > 18 or int(announced) > most):
        raise TooLarge(f"The body has {announced[:18]} bytes; should be at most {most}")
    raw, found = bytearray(), 0
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > most:
            raise TooLarge(f"The body should have at most {most} bytes")
        found += chunk.count(b",") + chunk.count(b"{") + chunk.count(b"[")
        if found > values:
            raise TooLarge(f"The body should have at most {values} values")
        held.hold(request.scope, who, len(raw))
    # Only what is whole is decoded: commas that come slowly take no more than their text.
    held.hold(request.scope, who, len(raw) + found * VALUE_BYTES)
    return raw


async def json(request: Request, who: Payer, *, needed: bool = True, most: int = 0) -> Any:
    """Read a JSON body; one that is not *needed* may be left out."""
    raw = await read(request, who, most=most)
    return {} if not raw and not needed else decode(raw)


def decode(raw: bytes | bytearray | msgspec.Raw, type: Any = Any) -> Any:
    """Decode JSON, of one *type* if that is said; raise Invalid if it is none, or ValidationError if of another."""
    try:
        found = msgspec.json.decode(raw, type=type)
    except msgspec.ValidationError:
        raise
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"The body is not valid JSON: {error}") from None
    if type is Any and _is_deep(found):
        raise Invalid(f"The body has objects and lists more than {DEPTH_MAX} deep within each other")
    return found


def _is_deep(value: Any) -> bool:
    """Say whether objects and lists are deeper within each other than they may; level by level, so without a stack."""
    level = [value] if type(value) in HOLDING else []
    for _ in range(DEPTH_MAX):
        level = [
            inner for one in level for inner in (one.values() if type(one) is dict else one) if type(inner) in HOLDING
        ]
        if not level:
            return False
    return True
