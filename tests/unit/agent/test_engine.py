"""An engine's API, spoken to over a real socket: what it says is handed on, whatever it says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from crossway.agent import engine as module
from crossway.agent.engine import Engine
from crossway.errors import Unavailable


class Listener:
    """Hears of containers, and fails as often as it is told to."""

    def __init__(self, asked: bool = True, failures: int = 0) -> None:
        self.asked, self.failures = asked, failures
        self.heard: list[str] = []

    async def learn(self, container: Any) -> None:
        if self.failures:
            self.failures -= 1
            raise Unavailable("no server")
        self.heard.append(container["Name"])


class Fake:
    """The other end of the socket: answers lists and containers, and streams events until it is told to end."""

    def __init__(self, path: Path, containers: dict[str, Any], first: bytes = b"") -> None:
        self.path, self.containers, self.first = path, containers, first
        self.locked: set[str] = set()  # containers of which nothing is told
        self.streams: list[asyncio.StreamWriter] = []
        self.open: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Fake:
        self.server = await asyncio.start_unix_server(self._serve, self.path)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        for writer in self.open:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
        self.path.unlink(missing_ok=True)

    def say(self, *lines: bytes) -> None:
        for line in lines:
            self.streams[-1].write(b"%x\r\n%s\r\n" % (len(line), line))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open.append(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                target = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()
                if target.startswith("/events"):
                    self.streams.append(writer)
                    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                    if self.first:
                        self.say(self.first)
                    return
                target = target.partition("?")[0]
                of = target.removeprefix("/containers/").removesuffix("/json").removesuffix("json")
                if of in self.locked:
                    continue
                told = (
                    [{"Id": id, "State": one.get("State")} for id, one in self.containers.items()]
                    if not of
                    else self.containers.get(of)
                )
                body = json.dumps(told).encode() if told is not None else b"no such container"
                status = b"200 OK" if told is not None else b"404 Not Found"
                writer.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))


def container(id: str, name: str) -> dict[str, Any]:
    return {"Id": id, "Name": name}


def event(id: str, kind: str = "container") -> bytes:
    actor = {"ID": id} if kind == "container" else {"ID": "net", "Attributes": {"container": id}}
    return json.dumps({"Type": kind, "Action": "x", "Actor": actor}).encode() + b"\n"


def story(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: Callable[[Engine, Path], Awaitable[None]], listener: Listener
) -> None:
    monkeypatch.setattr(module, "AGAIN_SECONDS", 0.01)

    async def again(step: Callable[[], Awaitable[None]]) -> None:
        while True:
            await step()

    async def whole() -> None:
        engine = Engine(str(tmp_path / "sock"), listener)
        tasks = [asyncio.ensure_future(again(step)) for step in (engine.listen, engine.look)]
        try:
            async with asyncio.timeout(20):
                await what(engine, tmp_path / "sock")
            assert not any(task.done() for task in tasks), "it goes on, whatever was said"
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            engine.close()
            await asyncio.sleep(0)

    asyncio.run(whole())


async def until(what: Callable[[], bool]) -> None:
    while not what():
        await asyncio.sleep(0.002)


def test_what_runs_is_told_and_then_what_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listener = Listener()

    async def what(engine: Engine, path: Path) -> None:
        containers = {"a": container("a", "/one")}
        async with Fake(path, containers) as fake:
            await until(lambda: listener.heard == ["/one"])
            containers |= {"a": container("a", "/two"), "b": container("b", "/three")}
            fake.say(event("a"), event("b", "network"))
            await until(lambda: listener.heard == ["/one", "/two", "/three"])
        # It went, and comes again: everything is told anew, which is nothing new.
        async with Fake(path, containers):
            await until(lambda: listener.heard[3:] == ["/two", "/three"])

    story(tmp_path, monkeypatch, what, listener)


@pytest.mark.parametrize(
    "said",
    [b"no json\n", b"[]\n", b"7\n", b'{"Type": "container"}\n', b'{"Type": "network", "Actor": {}}\n', b"null\n",
     b"x" * ((1 << 20) + 1), event("gone"), event("../../info"), event("none", "network")],
)  # fmt: skip
def test_what_makes_no_sense_is_no_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    listener = Listener()

    async def what(engine: Engine, path: Path) -> None:
        containers = {"a": container("a", "/one")}
        async with Fake(path, containers, said) as fake:
            await until(lambda: "/one" in listener.heard)
        async with Fake(path, containers) as fake:
            await until(lambda: bool(fake.streams))
            count = len(listener.heard)
            fake.say(event("a"))
            await until(lambda: len(listener.heard) > count)

    story(tmp_path, monkeypatch, what, listener)


def test_what_could_not_be_told_is_told_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listener = Listener(failures=3)

    async def what(engine: Engine, path: Path) -> None:
        async with Fake(path, {"a": container("a", "/one")}):
            await until(lambda: listener.heard == ["/one"])

    story(tmp_path, monkeypatch, what, listener)


@pytest.mark.parametrize("asked", [True, False])
def test_an_engine_is_missed_once_and_only_if_it_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, asked: bool
) -> None:
    async def what(engine: Engine, path: Path) -> None:
        await asyncio.sleep(0.2)

    story(tmp_path, monkeypatch, what, Listener(asked=asked))
    said = [record.message for record in caplog.records if "cannot be asked" in record.message]
    assert len(said) == (1 if asked else 0)


def test_a_stopped_container_that_is_locked_is_being_started(tmp_path: Path) -> None:
    async def what() -> None:
        states = {"a": "exited", "b": "exited", "c": "running", "d": "restarting", "f": "created"}
        async with Fake(tmp_path / "sock", {id: {"State": state} for id, state in states.items()}) as fake:
            # c is just ending: its state says that it runs until all that it had has been given back.
            fake.locked = {"b", "c", "d", "f"}
            engine = Engine(str(tmp_path / "sock"), Listener())
            assert await engine.starting(["a", "b", "c", "d", "e", "f"]) == (["b", "d"], ["e"])
            engine.close()

    asyncio.run(what())


def test_an_engine_that_is_not_there_starts_nothing(tmp_path: Path) -> None:
    assert asyncio.run(Engine(str(tmp_path / "sock"), Listener()).starting(["a"])) == ([], [])
