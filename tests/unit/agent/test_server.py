"""What the agent says to servers, over real sockets; servers that fail in all the ways that they do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from crossway import settings
from crossway.agent import server as module
from crossway.agent.server import Servers
from crossway.errors import Conflict, Invalid, Unavailable

Reply = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def answer(body: Any, status: int = 200, *, chunked: bool = False, keep: bool = True) -> bytes:
    content = json.dumps(body).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n" + ("" if keep else "Connection: close\r\n")
    if chunked:
        half = len(content) // 2
        parts = [content[:half], content[half:], b""]
        return (head + "Transfer-Encoding: chunked\r\n\r\n").encode() + b"".join(
            b"%x\r\n%b\r\n" % (len(part), part) for part in parts if part or part == b""
        )
    return (head + f"Content-Length: {len(content)}\r\n\r\n").encode() + content


class Fake:
    """A server that gives prepared answers, one a request, and remembers requests and connections."""

    def __init__(self, path: Path, *answers: bytes | None) -> None:
        self.url, self._path = f"unix:{path}", path
        self.answers = list(answers)  # None: the connection is closed instead
        self.asked: list[str] = []
        self.connections = 0

    async def __aenter__(self) -> Fake:
        self._server = await asyncio.start_unix_server(self._serve, self._path)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while self.answers:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                for line in head.lower().split("\r\n"):
                    if line.startswith("content-length:"):
                        await reader.readexactly(int(line.split(":")[1]))
                self.asked.append(head.split(" HTTP")[0])
                reply = self.answers.pop(0)
                if reply is None:
                    return
                writer.write(reply)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def test_requests_share_a_connection(tmp_path: Path) -> None:
    async def story() -> None:
        replies = [answer({}), answer({"port": {"id": "p"}}, chunked=True), answer({"hosts": []})]
        async with Fake(tmp_path / "s", *replies) as fake:
            servers = Servers([fake.url], "h1")
            await servers.register("192.0.2.1", {"physnet1": "eth1"}, "1")
            assert await servers.port("p") == {"id": "p"}
            assert await servers.hosts() == []
            assert fake.asked == ["PUT /v1/hosts/h1", "GET /v2.0/ports/p", "GET /v1/hosts"]
            assert fake.connections == 1
            servers.close()

    asyncio.run(story())


def test_a_connection_that_was_closed_while_idle_is_made_anew(tmp_path: Path) -> None:
    async def story() -> None:
        async with Fake(tmp_path / "s", answer({}), None, answer({}), answer({}, keep=False), answer({})) as fake:
            servers = Servers([fake.url], "h1")
            for _ in range(4):
                await servers.report(1, {})
            assert fake.connections == 3
            servers.close()

    asyncio.run(story())


def test_the_next_server_is_asked_when_one_is_silent_and_stays_first(tmp_path: Path) -> None:
    async def story() -> None:
        async with Fake(tmp_path / "two", answer({}), answer({})) as two:
            servers = Servers([f"unix:{tmp_path}/nobody", two.url], "h1")
            await servers.report(1, {})
            assert servers.server == two.url
            await servers.report(2, {})
            assert len(two.asked) == 2
            servers.close()

    asyncio.run(story())


def test_when_none_answers_that_is_told(tmp_path: Path) -> None:
    async def story() -> None:
        async with Fake(tmp_path / "one", None) as one:
            servers = Servers([one.url, f"unix:{tmp_path}/nobody"], "h1")
            with pytest.raises(Unavailable, match="no answer from"):
                await servers.report(1, {})

    asyncio.run(story())


def test_a_refusal_is_a_fault(tmp_path: Path) -> None:
    async def story() -> None:
        refusal = {"NeutronError": {"type": "PortBound", "message": "port p is on host h2", "detail": ""}}
        async with Fake(tmp_path / "s", answer(refusal, 409)) as fake:
            servers = Servers([fake.url], "h1")
            with pytest.raises(Conflict, match="on host h2"):
                await servers.bind("p", host="h1")
            servers.close()

    asyncio.run(story())


@pytest.mark.parametrize("url", ["ftp://x", "192.0.2.1:9696", "http://", ""])
def test_what_is_no_server_is_told(url: str) -> None:
    with pytest.raises(Invalid):
        Servers([url], "h1")


async def listen(servers: Servers, after: int, seen: list[Any]) -> None:
    async for document in servers.view(after):
        seen.append(document)


def test_a_view_is_its_documents_whatever_the_pieces(tmp_path: Path) -> None:
    documents = [{"reset": True}, {"kind": "host", "id": "h1", "object": None}, {"bookmark": 7}]
    text = b"".join(json.dumps(d).encode() + b"\n" for d in documents)
    pieces = [text[i : i + 7] for i in range(0, len(text), 7)]
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in pieces)

    async def story() -> None:
        async with Fake(tmp_path / "s", head + body + b"0\r\n\r\n") as fake:
            servers = Servers([fake.url], "h1")
            seen: list[Any] = []
            with pytest.raises(Unavailable, match="ended the view"):
                await listen(servers, 3, seen)
            assert seen == documents
            assert fake.asked == ["GET /v1/hosts/h1/view?after=3"]

    asyncio.run(story())


def test_a_view_that_falls_silent_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "VIEW_SECONDS", 0.2)
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    line = b'{"bookmark": 1}\n'

    async def story() -> None:
        async with Fake(tmp_path / "s", head + b"%x\r\n%b\r\n" % (len(line), line), answer({})) as fake:
            servers = Servers([fake.url, f"unix:{tmp_path}/other"], "h1")
            seen: list[Any] = []
            with pytest.raises(Unavailable, match=r"nothing heard for 0\.2 s"):
                await listen(servers, 0, seen)
            assert seen == [{"bookmark": 1}]
            assert servers.server.endswith("/other"), "another one is asked first next time"

    asyncio.run(story())


def test_a_host_asks_no_more_at_once_than_a_server_takes(tmp_path: Path) -> None:
    now = most = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        while await reader.readline():
            await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(0.05)
            writer.write(answer({"port": {}}))
        now -= 1
        writer.close()

    async def main() -> None:
        async with await asyncio.start_unix_server(serve, tmp_path / "s"):
            servers = Servers([f"unix:{tmp_path / 's'}"], "h")
            assert len(await asyncio.gather(*(servers.port(str(n)) for n in range(100)))) == 100
            servers.close()
            while now:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
        assert most <= module.REQUESTS_MAX < int(settings.HOST_CONNECTIONS.default)

    asyncio.run(main())


def test_those_who_wait_for_a_server_that_hangs_go_on_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REQUESTS_MAX", 2)
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.3)
    hung: list[str] = []

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hung.append((await reader.readuntil(b"\r\n\r\n")).decode().split(" HTTP")[0])
        await reader.read()
        writer.close()

    async def main() -> None:
        answers = [answer({"port": {}}) for _ in range(16)]
        async with (
            await asyncio.start_unix_server(hang, tmp_path / "first"),
            Fake(tmp_path / "second", *answers) as second,
        ):
            servers = Servers([f"unix:{tmp_path / 'first'}", second.url], "h")
            assert await asyncio.gather(*(servers.port(str(n)) for n in range(8))) == [{}] * 8
            assert len(hung) == 2
            servers.close()
            await asyncio.sleep(0.1)

    asyncio.run(main())


def test_a_report_does_not_wait_for_other_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REQUESTS_MAX", 2)
    served = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        served += 1
        head = await reader.readuntil(b"\r\n\r\n")
        if b"/status" in head:
            writer.write(answer({}))
        await reader.read()
        writer.close()
        served -= 1

    async def main() -> None:
        async with await asyncio.start_unix_server(serve, tmp_path / "s"):
            servers = Servers([f"unix:{tmp_path / 's'}"], "h")
            waiting = [asyncio.create_task(servers.port(str(n))) for n in range(5)]
            await asyncio.sleep(0.1)
            await asyncio.wait_for(servers.report(7, {}), 10)
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            servers.close()
            while served:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)

    asyncio.run(main())
