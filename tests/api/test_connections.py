"""Who says nothing, little or no end, and who opens many connections, keeps nobody else from being answered."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import resource
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import ExitStack, asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
import uvloop
from uvicorn.server import ServerState

from crossway.api import connection
from crossway.api.auth.layer import CALLER, KNOWN
from crossway.api.bucket import TooMany
from crossway.api.connection import (
    DRAIN_BURST,
    DRAIN_RATE,
    UNREAD_LEAST,
    WAITING_MAX,
    Connection,
    Connections,
    Http,
    Listener,
)
from crossway.control.caller import Caller, implied
from crossway.model.user import user as made_user
from crossway.store import users
from servers import Api, Host, Server
from servers import Server as _Server

HALF = b"GET /v2.0/networks HTTP/1.1\r\nHost: 127.0.0.1\r\n"
# The deadlines of the servers here, in seconds; and how late a loaded machine may be.
SECONDS, SLACK = 2, 8


def started(path: Path, *options: str) -> Server:
    server = _Server.__new__(_Server)
    server.path, server.listen = path, ["127.0.0.1:0"]
    server.start(*options)
    return server


@pytest.fixture
def hasty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server with little time for what should come."""
    monkeypatch.setenv("CROSSWAY_HEAD_SECONDS", str(SECONDS))
    monkeypatch.setenv("CROSSWAY_BODY_SECONDS", str(SECONDS))
    server = started(tmp_path)
    yield server
    server.stop()


def reached(server: Server) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=SECONDS + SLACK)


def answered(one: socket.socket) -> bytes:
    """Return the next answer of a connection, whole if its length is said."""
    came = b""
    while b"\r\n\r\n" not in came or len(came.partition(b"\r\n\r\n")[2]) < length(came):
        some = one.recv(65536)
        assert some, came
        came += some
    return came


def length(answer: bytes) -> int:
    said = re.search(rb"content-length: (\d+)", answer.partition(b"\r\n\r\n")[0])
    return int(said[1]) if said else 0


def ended(one: socket.socket) -> bytes:
    """Return what comes until the connection ends, which it must."""
    came = b""
    with suppress(ConnectionResetError):
        while some := one.recv(65536):
            came += some
    return came


def is_open(one: socket.socket) -> bool:
    one.setblocking(False)
    try:
        return one.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionError:
        return False
    finally:
        one.settimeout(SECONDS + SLACK)


@pytest.mark.parametrize("sent", [b"", b"GET", HALF, HALF + b"X-Long: aaaa", b"\r\n\r\n"], ids=range(5))
def test_a_head_must_come_in_time(hasty: Server, sent: bytes) -> None:
    with closing(reached(hasty)) as one:
        one.sendall(sent)
        assert ended(one).startswith(b"HTTP/1.1 408 ")


def test_a_head_that_comes_a_byte_at_a_time_has_no_longer(hasty: Server) -> None:
    with closing(reached(hasty)) as one:
        began = time.monotonic()
        one.sendall(HALF)
        with suppress(ConnectionError):
            while time.monotonic() < began + SECONDS + SLACK and is_open(one):
                one.sendall(b"a")
                time.sleep(0.1)
        assert time.monotonic() < began + SECONDS + SLACK


def test_the_second_head_of_a_connection_must_come_in_time_too(hasty: Server) -> None:
    for between in (b"GET", b"\r\n"):
        with closing(reached(hasty)) as one:
            one.sendall(HALF + b"\r\n")
            assert answered(one).startswith(b"HTTP/1.1 200 ")
            one.sendall(between)
            assert b"HTTP/1.1 408 " in ended(one)


@pytest.mark.parametrize("length", [b"Content-Length: 100000", b"Transfer-Encoding: chunked"])
def test_a_body_must_come_in_time(hasty: Server, length: bytes) -> None:
    with closing(reached(hasty)) as one:
        one.sendall(b"POST /v2.0/networks HTTP/1.1\r\nHost: 127.0.0.1\r\n" + length + b"\r\n\r\n")
        began = time.monotonic()
        with suppress(ConnectionError):
            while time.monotonic() < began + SECONDS + SLACK and is_open(one):
                one.sendall(b"1\r\na\r\n" if b"chunked" in length else b" ")
                time.sleep(0.1)
        assert time.monotonic() < began + SECONDS + SLACK


def test_a_refused_body_does_not_go_on_for_ever(hasty: Server) -> None:
    with closing(reached(hasty)) as one:
        one.sendall(HALF.replace(b"GET", b"POST", 1) + b"X-Roles: reader\r\nContent-Length: 1000000000\r\n\r\n")
        assert answered(one).startswith(b"HTTP/1.1 403 ")
        sent = 0
        with suppress(ConnectionError):
            while sent < 200 << 20:
                sent += one.send(b" " * 65536)
        assert sent < 150 << 20


def test_refused_bodies_of_one_address_are_read_no_faster_than_its_rate(hasty: Server) -> None:
    seconds = 2
    sizes = (DRAIN_BURST, seconds * DRAIN_RATE)
    began = time.monotonic()
    with ExitStack() as stack:
        for size in sizes:
            one = stack.enter_context(closing(reached(hasty)))
            one.sendall(HALF.replace(b"GET", b"POST", 1) + b"X-Roles: reader\r\nContent-Length: %d\r\n\r\n" % size)
            for _ in range(0, size, 1 << 20):
                one.sendall(b" " * (1 << 20))
            # What the client has sent may be in the sockets' buffers; the server answers the next request behind it.
            one.sendall(HALF + b"X-Roles: reader\r\n\r\n")
            came = b""
            while b"HTTP/1.1 200 " not in came and (some := one.recv(65536)):
                came += some
            assert came.startswith(b"HTTP/1.1 403 ")
            assert b"HTTP/1.1 200 " in came
    assert time.monotonic() > began + seconds * 0.8


def test_a_body_that_takes_its_time_but_comes_is_taken(hasty: Server) -> None:
    body = b'{"network": {"name": "slow"' + b" " * 400_000 + b"}}"
    with closing(reached(hasty)) as one:
        one.sendall(HALF.replace(b"GET", b"POST", 1) + b"Content-Length: %d\r\n\r\n" % len(body))
        for at in range(0, len(body), 100_000):
            one.sendall(body[at : at + 100_000])
            time.sleep(SECONDS * 0.6)
        assert answered(one).startswith(b"HTTP/1.1 201 ")


def test_an_idle_connection_of_one_who_is_known_stays(hasty: Server) -> None:
    with closing(reached(hasty)) as one:
        for _ in range(2):
            one.sendall(HALF + b"\r\n")
            assert answered(one).startswith(b"HTTP/1.1 200 ")
            time.sleep(SECONDS * 2)


def test_a_view_stays_while_nothing_is_told(hasty: Server) -> None:
    api = Api(hasty.url)
    host = Host(api, "h").connect()
    time.sleep(SECONDS * 2)
    assert api.make("network")
    host.leave()
    api.client.close()


def test_a_body_that_takes_its_time_has_an_end(hasty: Server) -> None:
    """More than the least that should come in the seconds of the setting, but for ever."""
    with closing(reached(hasty)) as one:
        one.sendall(HALF.replace(b"GET", b"POST", 1) + b"Content-Length: 8000000\r\n\r\n")
        began = time.monotonic()
        with suppress(ConnectionError):
            while time.monotonic() < began + SECONDS * 5 + 4 * SLACK and is_open(one):
                one.sendall(b" " * (96 << 10))
                time.sleep(SECONDS / 2)
        assert SECONDS * 4 < time.monotonic() - began < SECONDS * 5 + 4 * SLACK


# ---- Requests of one connection, one behind another


def peak(server: Server) -> int:
    """Return the most memory that a server has had, in MiB."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) >> 10


@pytest.mark.parametrize("first", ["/v2.0/networks", "/v1/hosts/h/view"], ids=["a list", "a view"])
def test_requests_that_wait_take_little_memory(own: Server, first: str) -> None:
    api = Api(own.url)
    api("PUT", "/v1/hosts/h", {"underlay": "192.0.2.1", "physnets": {}})
    api.client.close()
    before = peak(own)
    with closing(reached(own)) as one:
        one.settimeout(2)
        one.sendall(b"GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % first.encode())
        with suppress(TimeoutError, ConnectionError):
            for _ in range(32):
                one.sendall(b"GET / HTTP/1.1\r\n\r\n" * 4096)
        time.sleep(3)
        assert httpx.get(f"{own.url}/v2.0/networks").status_code == 200
        assert peak(own) - before < 8


def test_requests_that_come_at_once_are_all_answered_in_their_order(own: Server) -> None:
    names, sent = [f"n{number}" for number in range(10 * WAITING_MAX)], b""
    for number, name in enumerate(names):
        body = json.dumps({"network": {"name": name, "description": "d" * (number % 7 * 40)}}).encode()
        head = b"POST /v2.0/networks HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        if number % 3:
            sent += head + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        else:
            sent += head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    with closing(reached(own)) as one:
        one.sendall(sent)
        came = b""
        while came.count(b"HTTP/1.1 ") < len(names):
            some = one.recv(65536)
            assert some
            came += some
        while not came.endswith(b"}}"):
            came += one.recv(65536)
        assert re.findall(rb"HTTP/1.1 (\d+)", came) == [b"201"] * len(names)
        assert re.findall(rb'"name":"(n\d+)"', came) == [name.encode() for name in names]
        one.sendall(HALF + b"\r\n")
        assert answered(one).startswith(b"HTTP/1.1 200 ")


def test_a_view_with_a_request_behind_it_ends_with_its_connection(own: Server) -> None:
    api = Api(own.url)
    api("PUT", "/v1/hosts/h", {"underlay": "192.0.2.1", "physnets": {}})
    with closing(reached(own)) as one:
        one.sendall(HALF.replace(b"v2.0/networks", b"v1/hosts/h/view") + b"\r\n" + HALF + b"\r\n")
        assert b"reset" in one.recv(65536) + one.recv(65536)
        assert api("GET", "/v1/status")["views"]["streams"] == 1
    end = time.monotonic() + SLACK
    while api("GET", "/v1/status")["views"]["streams"]:
        assert time.monotonic() < end
        time.sleep(0.2)
    api.client.close()


def test_a_small_head_behind_a_large_body_is_small(own: Server) -> None:
    body = b'{"network": {"name": "n"' + b" " * 200_000 + b"}}"
    for _ in range(5):
        with closing(reached(own)) as one:
            one.sendall(HALF.replace(b"GET", b"POST", 1) + b"Content-Length: %d\r\n\r\n" % len(body) + body + HALF)
            time.sleep(0.1)
            one.sendall(b"\r\n")
            came = b""
            while came.count(b"HTTP/1.1 ") < 2:
                some = one.recv(65536)
                assert some, came
                came += some
            assert re.findall(rb"HTTP/1.1 (\d+)", came) == [b"201", b"200"]


CHUNKED = HALF.replace(b"GET", b"POST", 1) + b"Transfer-Encoding: chunked\r\n"


@pytest.mark.parametrize(
    "more", [b"X-Trailer: aaaa\r\n" * 4096, b"X: " + b"a" * 65536, b"1;" + b"a" * 65536], ids=range(3)
)
def test_what_stands_beside_chunks_has_an_end_as_a_head_has(own: Server, more: bytes) -> None:
    sent = 0
    with closing(reached(own)) as one:
        one.sendall(CHUNKED + b"\r\n" + (b"" if more.startswith(b"1;") else b"0\r\n"))
        with suppress(ConnectionError):
            while sent < 16 << 20 and is_open(one):
                one.sendall(more)
                sent += len(more)
                more = more.removeprefix(b"X: ").removeprefix(b"1;")
    assert sent < 8 << 20


def test_a_trailer_is_no_header(own: Server) -> None:
    body = b'{"network": {"name": "n"}}'
    said = b"X-Project-Id: red\r\n\r\n%x\r\n%s\r\n0\r\nX-Roles: reader\r\n\r\n" % (len(body), body)
    with closing(reached(own)) as one:
        one.sendall(CHUNKED + said)
        assert answered(one).startswith(b"HTTP/1.1 201 ")


# ---- Whose they are


@pytest.fixture
def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server with few connections for each: alice and ann of project red, bob of blue, host h1."""
    for name, number in (("PROJECT", 4), ("USER", 3), ("HOST", 3)):
        monkeypatch.setenv(f"CROSSWAY_{name}_CONNECTIONS", str(number))
    hash = users.hashed("pw")
    users.add(tmp_path / "users", made_user("h1", hash, "", (), "h1"))
    for name, project, role in (
        ("root", "ops", "admin"),
        ("alice", "red", "member"),
        ("ann", "red", "member"),
        ("bob", "blue", "member"),
    ):
        users.add(tmp_path / "users", made_user(name, hash, project, (role,)))
    server = started(tmp_path, "--auth", f"basic:{tmp_path / 'users'}")
    yield server
    server.stop()


def head(name: str, start: bytes = b"GET /v2.0/networks", more: bytes = b"") -> bytes:
    who = base64.b64encode(f"{name}:pw".encode())
    return start + b" HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Basic " + who + b"\r\n" + more + b"\r\n"


def test_an_idle_connection_of_a_user_gives_way_to_its_next(counted: Server) -> None:
    with ExitStack() as stack:
        mine: dict[str, list[socket.socket]] = {"alice": [], "bob": [], "root": []}
        for name in ("bob", "alice", "alice", "alice", "alice", "alice", *["root"] * 6):
            one = stack.enter_context(closing(reached(counted)))
            one.sendall(head(name))
            assert answered(one).startswith(b"HTTP/1.1 200 ")
            mine[name].append(one)
        assert [is_open(one) for one in mine["alice"]] == [False, False, True, True, True]
        assert all(map(is_open, mine["bob"] + mine["root"]))


def test_a_project_with_requests_under_way_has_no_more_and_others_have_theirs(counted: Server) -> None:
    with ExitStack() as stack:

        def tried(name: str, *, slow: bool = False) -> bytes:
            one = stack.enter_context(closing(reached(counted)))
            if slow:
                # A body of which nothing comes.
                one.sendall(head(name, b"POST /v2.0/networks", b"Content-Length: 100\r\nExpect: 100-continue\r\n"))
            else:
                one.sendall(head(name))
            return answered(one)

        assert [tried("alice", slow=True)[:12] for _ in range(3)] == [b"HTTP/1.1 100"] * 3
        refused = tried("alice")
        assert refused.startswith(b"HTTP/1.1 429 ")
        assert b"CROSSWAY_USER_CONNECTIONS" in refused
        assert b"retry-after: 1" in refused.lower()
        assert tried("ann", slow=True).startswith(b"HTTP/1.1 100")
        assert b"CROSSWAY_PROJECT_CONNECTIONS" in tried("ann")
        assert tried("bob").startswith(b"HTTP/1.1 200 ")
        assert tried("root").startswith(b"HTTP/1.1 200 ")


def test_a_host_has_two_streams_and_few_connections(counted: Server) -> None:
    body = b'{"underlay": "192.0.2.1", "physnets": {}}'
    with ExitStack() as stack:

        def tried(start: bytes, more: bytes = b"", body: bytes = b"") -> tuple[socket.socket, bytes]:
            one = stack.enter_context(closing(reached(counted)))
            one.sendall(head("h1", start, more) + body)
            return one, answered(one)

        made, answer = tried(b"PUT /v1/hosts/h1", b"Content-Length: %d\r\n" % len(body), body)
        assert answer.startswith(b"HTTP/1.1 200 ")
        views = [tried(b"GET /v1/hosts/h1/view")[0] for _ in range(2)]
        _, answer = tried(b"GET /v1/hosts/h1/view")
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert not is_open(made), "the idle one gave way"
        views[0].settimeout(SLACK)
        came = b""
        while not came.endswith(b"0\r\n\r\n"):
            came += views[0].recv(65536)
        assert is_open(views[1])
        # Three with requests under way: no place for a fourth.
        slow = b"Content-Length: 100\r\nExpect: 100-continue\r\n"
        assert tried(b"PUT /v1/hosts/h1", slow)[1].startswith(b"HTTP/1.1 100")
        assert b"CROSSWAY_HOST_CONNECTIONS" in tried(b"GET /v1/hosts/h1")[1]


# ---- Answers that are not read


@asynccontextmanager
async def listening(app: Any, held: Connections) -> AsyncIterator[tuple[str, int]]:
    """Serve an application by the real protocol on a real socket."""
    config = uvicorn.Config(app, http=Http, ws="none", lifespan="off", log_config=None, access_log=False)
    config.load()
    with closing(socket.create_server(("127.0.0.1", 0))) as taking:
        taking.setblocking(False)
        running = asyncio.create_task(Listener(taking, held, None).run(config, ServerState(), {}))
        yield taking.getsockname()[:2]
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        # Both ends of what was broken are closed by the loop.
        await asyncio.sleep(0.05)


def run_served(main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


LONG = 16 << 20


async def long_list(scope: Any, receive: Any, send: Any) -> None:
    """Answer whom the path names at length."""
    scope[CALLER] = Caller(scope["path"][1:], "u", implied(["member"]))
    scope[KNOWN](scope)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % LONG)]})
    await send({"type": "http.response.body", "body": b"a" * LONG})


async def asked(where: tuple[str, int], project: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection(*where, limit=1024)
    writer.write(b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n" % project.encode())
    return reader, writer


def test_an_answer_is_read_at_some_speed_or_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "UNREAD_SECONDS", 0.5)
    monkeypatch.setattr(connection, "UNREAD_LEAST", LONG // 2)

    async def main() -> None:
        async with listening(long_list, Connections(0, 100)) as where:
            reader, writer = await asked(where, "red")
            came = 0
            with suppress(ConnectionError):
                async with asyncio.timeout(20):
                    # Something each time that is looked, but too little.
                    while some := await reader.read(65536):
                        came += len(some)
                        await asyncio.sleep(0.02)
            # What the kernel had been given before is read all the same.
            assert came < LONG
            writer.transport.abort()

    run_served(main())


def test_who_reads_slowly_but_at_that_speed_gets_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "UNREAD_SECONDS", 0.5)

    async def main() -> None:
        async with listening(long_list, Connections(0, 100)) as where:
            reader, writer = await asked(where, "red")
            await reader.readuntil(b"\r\n\r\n")
            left = LONG
            while left:
                left -= len(await reader.read(min(left, 8 * UNREAD_LEAST)))
                await asyncio.sleep(0.02)
            writer.transport.abort()

    run_served(main())


def test_what_a_project_does_not_read_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "UNREAD_MAX", 2 * LONG)

    async def main() -> None:
        held = Connections(0, 100)
        async with listening(long_list, held) as where:
            mine = [await asked(where, "red") for _ in range(6)]
            other = await asked(where, "blue")
            await asyncio.sleep(1)
            assert sum(held.unread["project", "red"].values()) <= 2 * LONG
            # The oldest went; the newest, and another project's, are read to their end.
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await mine[0][0].readexactly(LONG)
            assert len(await mine[-1][0].readexactly(LONG)) == LONG
            assert len(await other[0].readexactly(LONG)) == LONG
            for _, writer in (*mine, other):
                writer.transport.abort()

    run_served(main())


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that may open few files, 10 strangers of one address, and with all the time."""
    monkeypatch.setenv("CROSSWAY_STRANGERS", "10")
    monkeypatch.setenv("CROSSWAY_HEAD_SECONDS", "600")
    server = started(tmp_path)
    yield server
    server.stop()


def test_halves_of_heads_keep_nobody_out(small: Server) -> None:
    api = Api(small.url)
    host = Host(api, "h").connect()
    with ExitStack() as stack:
        halves = [stack.enter_context(closing(reached(small))) for _ in range(60)]
        for half in halves:
            with suppress(ConnectionError):
                half.sendall(HALF)
        with httpx.Client(base_url=small.url, transport=httpx.HTTPTransport()) as other:
            assert other.get("/v2.0/networks").status_code == 200
        network = api.make("network")
        assert network["id"]
        time.sleep(0.5)
        left = [half for half in halves if is_open(half)]
        assert 0 < len(left) <= 10
        assert set(left) <= set(halves[-11:]), "the oldest go"
        # The rest of a request makes its connection one of those that are known.
        left[-1].sendall(b"\r\n")
        assert answered(left[-1]).startswith(b"HTTP/1.1 200 ")
    host.leave()
    api.client.close()


def test_many_connections_of_those_who_are_known_are_no_strangers(small: Server) -> None:
    with ExitStack() as stack:
        many = [stack.enter_context(closing(reached(small))) for _ in range(5)]
        for _ in range(8):
            for one in many[-5:]:
                one.sendall(HALF + b"\r\n")
                assert answered(one).startswith(b"HTTP/1.1 200 ")
            many += [stack.enter_context(closing(reached(small))) for _ in range(5)]
        assert all(map(is_open, many))


def test_no_limit_behind_a_balancer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROSSWAY_STRANGERS", "0")
    monkeypatch.setenv("CROSSWAY_HEAD_SECONDS", "600")
    server = started(tmp_path)
    try:
        with ExitStack() as stack:
            many = [stack.enter_context(closing(reached(server))) for _ in range(200)]
            assert httpx.get(f"{server.url}/v2.0/networks").status_code == 200
            assert all(map(is_open, many))
    finally:
        server.stop()


def test_it_may_open_as_many_files_as_the_system_lets_it(own: Server) -> None:
    limits = Path(f"/proc/{own.process.pid}/limits").read_text().splitlines()
    soft, hard = next(line.split()[3:5] for line in limits if line.startswith("Max open files"))
    assert soft == hard or int(soft) >= 1 << 20


def test_hosts_reach_a_server_whose_files_strangers_would_use_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 200 files that the process may open, strangers get some; hosts, and who is known, are still answered."""
    monkeypatch.setenv("CROSSWAY_STRANGERS", "0")
    monkeypatch.setenv("CROSSWAY_HEAD_SECONDS", "600")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as stack:
        server = _Server.__new__(_Server)
        server.path, server.listen = tmp_path, ["127.0.0.1:0"]
        stack.callback(lambda: server.stop())
        with pytest.MonkeyPatch.context() as patch:
            real = subprocess.Popen

            def few(*args: object, **options: object) -> subprocess.Popen[bytes]:
                limit = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (100, 200))  # noqa: E731
                return real(*args, preexec_fn=limit, **options)  # type: ignore[call-overload,no-any-return]

            patch.setattr("servers.subprocess.Popen", few)
            server.start()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == before
        halves = []
        for _ in range(300):
            halves.append(stack.enter_context(closing(reached(server))))
            with suppress(ConnectionError):
                halves[-1].sendall(HALF)
        api = Api(server.url)
        host = Host(api, "h").connect()
        assert api.make("network")
        host.leave()
        api.client.close()


# ---- TLS


def test_a_handshake_must_come_in_time_and_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=one"),
            *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", tmp_path / "key", "-out", tmp_path / "pem"),
        ],
        check=True,
        capture_output=True,
    )
    monkeypatch.setenv("CROSSWAY_HEAD_SECONDS", str(SECONDS))
    monkeypatch.setenv("CROSSWAY_STRANGERS", "10")
    server = started(tmp_path, "--tls-cert", str(tmp_path / "pem"), "--tls-key", str(tmp_path / "key"))
    try:
        with closing(reached(server)) as one:
            ended(one)
        with ExitStack() as stack:
            many = [stack.enter_context(closing(reached(server))) for _ in range(40)]
            trusts = ssl.create_default_context(cafile=str(tmp_path / "pem"))
            with httpx.Client(transport=httpx.HTTPTransport(verify=trusts)) as client:
                url = server.url.replace("http://", "https://")
                assert client.get(f"{url}/v2.0/networks").status_code == 200
            assert sum(map(is_open, many)) <= 10
            plain = stack.enter_context(closing(reached(server)))
            with suppress(ConnectionError):
                plain.sendall(HALF + b"\r\n")
            assert b"200" not in ended(plain)
    finally:
        server.stop()


# ---- How they are counted


class Counted:
    """Connections without sockets: which are closed is noted."""

    def __init__(self, each: int, most: int, **limits: int) -> None:
        self.held = Connections(each, most, limits)
        self.closed: list[str] = []

    def enter(self, name: str, address: str = "a") -> Connection:
        one = Connection(address, lambda: self.closed.append(name))
        self.held.enter(one)
        return one


def test_the_oldest_stranger_of_an_address_goes() -> None:
    made = Counted(2, 100)
    first, *_ = (made.enter(f"a{n}") for n in range(2))
    made.enter("b0", "b")
    made.held.knows(first, host=False)
    made.enter("a2")
    assert made.closed == []
    made.enter("a3")
    assert made.closed == ["a1"]


def test_of_all_strangers_a_quarter_of_what_there_may_be_is_let_in() -> None:
    made = Counted(0, 40)
    for number in range(15):
        made.enter(str(number), address=f"address {number}")
    assert made.closed == ["0", "1", "2", "3", "4"]
    assert made.held.count == 10


def test_who_is_known_but_idle_gives_way_and_hosts_never_do() -> None:
    made = Counted(0, 20)
    hosts = [made.enter(f"h{n}") for n in range(3)]
    for one in hosts:
        made.held.knows(one, host=True)
        made.held.rests(one)
    busy = []
    for number in range(20):
        busy.append(made.enter(f"k{number}"))
        made.held.knows(busy[-1], host=False)
    made.held.rests(busy[7])
    made.held.rests(busy[3])
    made.held.knows(busy[7], host=False)
    made.enter("new")
    assert made.closed == ["k3"]
    # Nobody else is idle: a new one finds no place.
    made.enter("newer")
    assert made.closed == ["k3", "new"]
    for one in (*hosts, *busy):
        made.held.leave(one)
        made.held.leave(one)
    assert made.held.count == 1


def test_one_that_was_closed_is_counted_no_more_whatever_it_says() -> None:
    made = Counted(1, 100)
    first = made.enter("first")
    made.enter("second")
    assert made.closed == ["first"]
    made.held.knows(first, host=True)
    made.held.rests(first)
    made.held.leave(first)
    assert (made.held.count, len(made.held.idle)) == (1, 0)


RED, BLUE = (("project", "red"), ("user", "alice")), (("project", "blue"), ("user", "alice"))


def test_a_connection_counts_for_whoever_asked_by_it_last() -> None:
    made = Counted(0, 100, project=2, user=3)
    mine = [made.enter(f"c{number}") for number in range(4)]
    for one in mine[:2]:
        made.held.knows(one, False, RED)
    with pytest.raises(TooMany, match="project red has 2 connections"):
        made.held.knows(mine[2], False, RED)
    made.held.rests(mine[1])
    made.held.knows(mine[1], False, BLUE)
    made.held.knows(mine[2], False, RED)
    with pytest.raises(TooMany, match="user alice has 3 connections"):
        made.held.knows(mine[3], False, BLUE)
    made.held.rests(mine[0])
    made.held.knows(mine[3], False, BLUE)
    assert made.closed == ["c0"]
    for one in mine:
        made.held.leave(one)
    assert (made.held.by_owner, made.held.count) == ({}, 0)


def test_a_connection_whose_next_request_comes_is_not_idle() -> None:
    """Its caller may be unknown for long, while Keystone or a password is asked about."""
    made = Counted(0, 100, project=2, user=9)
    one, two, three = (made.enter(f"c{number}") for number in range(3))
    for rested in (one, two):
        made.held.knows(rested, False, RED)
        made.held.rests(rested)
    made.held.begins(one)
    made.held.knows(three, False, RED)
    assert made.closed == ["c1"], "not the one that has been idle for longer, but is no more"
    assert one not in made.held.idle


def test_hosts_do_not_pay_for_what_all_others_have_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "UNREAD_MAX", 100)
    monkeypatch.setattr(connection, "UNREAD_TOTAL", 150)
    made = Counted(0, 100)
    hosts = [made.enter(f"h{number}") for number in range(4)]
    for number, one in enumerate(hosts):
        made.held.knows(one, True, (("host", f"host{number}"),))
        made.held.waits(one, 90)
    assert made.closed == []
    blue = made.enter("b")
    made.held.knows(blue, False, BLUE)
    made.held.waits(blue, 100)
    assert made.closed == []
    for one in hosts:
        made.held.leave(one)
    made.held.waits(blue, 0)
    assert (made.held.unread, made.held.unread_of, made.held.unread_sum) == ({}, {}, 0)


def test_of_what_is_not_read_the_project_with_the_most_loses_its_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "UNREAD_MAX", 100)
    monkeypatch.setattr(connection, "UNREAD_TOTAL", 150)
    made = Counted(0, 100)
    red = [made.enter(f"r{number}") for number in range(3)]
    blue, stranger = made.enter("b"), made.enter("s")
    for one, owners in (*((one, RED) for one in red), (blue, BLUE)):
        made.held.knows(one, False, owners)
    for one in red[:2]:
        made.held.waits(one, 50)
    made.held.waits(stranger, 1000)
    assert made.closed == []
    made.held.waits(red[0], 49)
    made.held.waits(red[2], 10)
    assert made.closed == ["r0"]
    made.held.waits(blue, 95)
    assert made.closed == ["r0", "b"], "more than all may have, and it has the most"
    made.held.waits(red[1], 0)
    assert made.held.unread == {("project", "red"): {red[2]: 10}}
