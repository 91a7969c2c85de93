"""Answers, and the faults among them, as JSON."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from crossway.errors import Fault, Invalid

ENCODER = msgspec.json.Encoder()
BODY_MAX = 32 << 20


class Answer(Response):
    """JSON that is already bytes."""

    media_type = "application/json"

    def __init__(self, content: bytes = b"", status: int = 200, headers: dict[str, str] | None = None) -> None:
        super().__init__(content, status, headers)


def encode(value: Any) -> bytes:
    """Return a value as JSON; msgspec stops at 64 bits, and an IPv6 subnet has more addresses."""
    try:
        return ENCODER.encode(value)
    except OverflowError:
        return json.dumps(value, separators=(",", ":")).encode()


def answer(body: Any, status: int = 200) -> Answer:
    return Answer(encode(body), status)


def empty(status: int = 204) -> Response:
    return Response(status_code=status)


def fault(error: Fault, path: str) -> Answer:
    """Tell a fault: as the Networking API does, or plainly."""
    kind = "HTTPBadRequest" if error.type == "Invalid" else error.type
    if path.startswith("/v1/"):
        return answer({"error": {"type": error.type, "message": str(error)}}, error.status)
    return answer({"NeutronError": {"type": kind, "message": str(error), "detail": ""}}, error.status)


async def body(request: Request, *, needed: bool = True) -> Any:
    """Read a JSON body; one that is not *needed* may be left out."""
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > BODY_MAX:
            raise Invalid(f"The body should have at most {BODY_MAX} bytes")
    if not raw and not needed:
        return {}
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"The body is not valid JSON: {error}") from None
