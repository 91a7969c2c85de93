"""Answers, and the faults among them, as JSON."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from starlette.responses import Response

from crossway.errors import Fault

MESSAGE_MAX = 4096
ENCODER = msgspec.json.Encoder()


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
    message = str(error)
    if len(message) > MESSAGE_MAX:
        message = message[:MESSAGE_MAX] + "…"
    kind = "HTTPBadRequest" if error.type == "Invalid" else error.type
    if path.startswith("/v1/"):
        return answer({"error": {"type": error.type, "message": message}}, error.status)
    return answer({"NeutronError": {"type": kind, "message": message, "detail": ""}}, error.status)
