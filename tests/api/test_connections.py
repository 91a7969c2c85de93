"""Who says nothing, little or no end, and who opens many connections, keeps nobody else from being answered."""

from __future__ import annotations

import resource
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import httpx
import pytest

from crossway.api.connection import DRAIN_BURST, DRAIN_RATE, Connection, Connections
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
            assert one.recv(65536).startswith(b"HTTP/1.1 200 ")
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
        assert one.recv(65536).startswith(b"HTTP/1.1 403 ")
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
        assert one.recv(65536).startswith(b"HTTP/1.1 201 ")


def test_an_idle_connection_of_one_who_is_known_stays(hasty: Server) -> None:
    with closing(reached(hasty)) as one:
        for _ in range(2):
            one.sendall(HALF + b"\r\n")
            came = b""
            while not came.endswith(b'{"networks":[]}') and (some := one.recv(65536)):
                came += some
            assert came.startswith(b"HTTP/1.1 200 ")
            time.sleep(SECONDS * 2)


def test_a_view_stays_while_nothing_is_told(hasty: Server) -> None:
    api = Api(hasty.url)
    host = Host(api, "h").connect()
    time.sleep(SECONDS * 2)
    assert api.make("network")
    host.leave()
    api.client.close()


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
        assert left[-1].recv(65536).startswith(b"HTTP/1.1 200 ")
    host.leave()
    api.client.close()


def test_many_connections_of_those_who_are_known_are_no_strangers(small: Server) -> None:
    with ExitStack() as stack:
        many = [stack.enter_context(closing(reached(small))) for _ in range(5)]
        for _ in range(8):
            for one in many[-5:]:
                one.sendall(HALF + b"\r\n")
                assert one.recv(65536).startswith(b"HTTP/1.1 200 ")
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

    def __init__(self, each: int, most: int) -> None:
        self.held = Connections(each, most)
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
