"""The agent's socket speaks HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest

from crossway.agent.api import BODY_MAX, Api
from crossway.errors import Conflict, NotFound


async def echo(body: bytes, query: dict[str, str]) -> Any:
    return {"body": body.decode(), "query": query}


async def number(body: bytes, _: dict[str, str]) -> Any:
    return msgspec.json.decode(body, type=int)


def failing(fault: Exception) -> Any:
    async def fail(_: bytes, __: dict[str, str]) -> Any:
        raise fault

    return fail


ROUTES = {
    ("POST", "/echo"): echo,
    ("GET", "/echo"): echo,
    ("POST", "/number"): number,
    ("GET", "/missing"): failing(NotFound("port", "x")),
    ("GET", "/busy"): failing(Conflict("port x is on host h2")),
    ("GET", "/broken"): failing(OSError(5, "the disk is on fire")),
}


@pytest.fixture
def ask(tmp_path: Path) -> Callable[..., list[bytes]]:
    """Return a function that sends raw texts over one connection and returns what came for each."""

    def run(*texts: bytes) -> list[bytes]:
        async def converse() -> list[bytes]:
            api = Api(ROUTES)
            await api.start(tmp_path / "sock")
            assert (tmp_path / "sock").stat().st_mode & 0o777 == 0o600
            answers = []
            reader, writer = await asyncio.open_unix_connection(tmp_path / "sock")
            for text in texts:
                writer.write(text)
                head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
                size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                answers.append(head.split(b"\r\n")[0] + b" " + await reader.readexactly(size))
            writer.close()
            await api.stop()
            return answers

        return asyncio.run(converse())

    return run


def get(path: bytes) -> bytes:
    return b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n"


def post(path: bytes, body: bytes) -> bytes:
    return b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (path, len(body), body)


def test_what_is_too_large_is_told_and_the_connection_goes_on(ask: Callable[..., list[bytes]]) -> None:
    too_large, next_one = ask(post(b"/echo", b"x" * (BODY_MAX + 1)), post(b"/echo", b"y"))
    assert too_large.startswith(b"HTTP/1.1 413")
    assert next_one == b'HTTP/1.1 200  {"body":"y","query":{}}'


def test_one_connection_serves_many_requests(ask: Callable[..., list[bytes]]) -> None:
    chunked = b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    assert ask(get(b"/echo?port=5"), post(b"/echo", b"hello"), chunked) == [
        b'HTTP/1.1 200  {"body":"","query":{"port":"5"}}',
        b'HTTP/1.1 200  {"body":"hello","query":{}}',
        b'HTTP/1.1 200  {"body":"abc","query":{}}',
    ]


@pytest.mark.parametrize(
    ("request_", "status", "type"),
    [
        (get(b"/missing"), 404, "NotFound"),
        (get(b"/busy"), 409, "Conflict"),
        (get(b"/broken"), 500, "OSError"),
        (get(b"/nothing"), 404, "NotFound"),
        (post(b"/busy", b""), 405, "NotFound"),
        (post(b"/number", b'"five"'), 400, "Invalid"),
        (post(b"/number", b"{"), 400, "Invalid"),
    ],
)
def test_faults_are_told(ask: Callable[..., list[bytes]], request_: bytes, status: int, type: str) -> None:
    (answer,) = ask(request_)
    assert answer.startswith(b"HTTP/1.1 %d" % status)
    assert msgspec.json.decode(answer[answer.index(b"{") :])["error"]["type"] == type


@pytest.mark.parametrize(
    "text", [b"garbage\r\n\r\n", post(b"/echo", b"x" * (8 * BODY_MAX + 1))], ids=["garbage", "endless"]
)
def test_what_is_no_request_ends_the_connection_and_nothing_else(tmp_path: Path, text: bytes) -> None:
    async def converse() -> None:
        api = Api(ROUTES)
        await api.start(tmp_path / "sock")
        for attempt in (text, text):
            reader, writer = await asyncio.open_unix_connection(tmp_path / "sock")
            writer.write(attempt)
            try:
                assert await asyncio.wait_for(reader.read(), 5) == b""
            except ConnectionError:
                pass
            writer.close()
        reader, writer = await asyncio.open_unix_connection(tmp_path / "sock")
        writer.write(get(b"/echo"))
        assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.1 200")
        writer.close()
        await api.stop()

    run: Coroutine[Any, Any, None] = converse()
    asyncio.run(run)
