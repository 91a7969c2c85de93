"""What one caller may ask before others suffer; TLS; what the log tells."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from crossway.api.bucket import Buckets, rate
from crossway.errors import Invalid
from servers import Api, Server


def started(path: Path, *options: str) -> Server:
    server = Server.__new__(Server)
    server.path, server.listen = path, ["127.0.0.1:0"]
    server.start(*options)
    return server


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Server]:
    server = started(tmp_path, "--rate", "5:10")
    yield server
    server.stop()


def test_a_caller_has_so_many_requests_and_others_have_their_own(slow: Server) -> None:
    red, blue = ({"X-Project-Id": name, "X-User-Id": "u"} for name in ("red", "blue"))
    with httpx.Client(base_url=slow.url, transport=httpx.HTTPTransport()) as client:
        codes = [client.get("/v2.0/networks", headers=red).status_code for _ in range(20)]
        assert codes[:10] == [200] * 10
        refused = client.get("/v2.0/networks", headers=red)
        assert refused.status_code == 429
        assert refused.json()["NeutronError"]["type"] == "TooManyRequests"
        assert refused.headers["retry-after"] == "1"
        assert client.get("/v1/status").status_code == 200, "hosts are not held up"
        time.sleep(0.5)
        assert client.get("/v2.0/networks", headers=red).status_code == 200
        assert client.get("/v2.0/networks", headers=blue).status_code in (200, 429)


def test_tokens_come_back_with_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("crossway.api.bucket.time.monotonic", lambda: now)
    buckets = Buckets(rate=2, burst=3)
    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, 1]
    assert buckets.take("b") == 0
    now = 0.5
    assert [buckets.take("a"), buckets.take("a")] == [0, 1]
    buckets.back("a")
    assert buckets.take("a") == 0
    now = 100.0
    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, 1], "no more than fit"


def test_what_was_used_ahead_is_paid_for_with_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("crossway.api.bucket.time.monotonic", lambda: now)
    buckets = Buckets(rate=10, burst=30)
    assert [buckets.charge("a", 25) for _ in range(3)] == [0.0, 2.0, 4.5]
    assert buckets.charge("b", 1) == 0.0
    now = 3.0
    assert buckets.charge("a", 5) == 2.0
    now = 100.0
    assert buckets.charge("a", 40) == 1.0, "no more than fit"


def test_the_longest_unheard_are_forgotten_first() -> None:
    buckets = Buckets(rate=0.001, burst=1, kept=2)
    for who in ("a", "b", "c"):
        assert buckets.take(who) == 0
    assert buckets.take("c") > 0
    assert buckets.take("a") == 0


@pytest.mark.parametrize("text", ["x", "-1", "1:x", "inf", "nan", ""])
def test_a_rate_that_cannot_be(text: str) -> None:
    with pytest.raises(Invalid, match="REQUESTS"):
        rate(text)


def test_no_rate_is_no_limit() -> None:
    assert rate("0") is None


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"a":' * 100_000, b"[" * 2000 + b"]" * 2000], ids=len)
def test_nesting_has_an_end(api: Api, body: bytes) -> None:
    answer = api.client.post("/v2.0/networks", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["NeutronError"]["type"] == "HTTPBadRequest"


def test_a_head_has_an_end(shared: Server) -> None:
    with httpx.Client(base_url=shared.url, transport=httpx.HTTPTransport()) as client:
        assert client.get("/v2.0/networks", headers={"X-Long": "a" * 60_000}).status_code == 200
        assert client.get("/v2.0/networks", headers={"X-Long": "a" * 70_000}).status_code == 431


def test_a_head_without_an_end_is_not_taken_in(shared: Server) -> None:
    host, port = shared.url.removeprefix("http://").split(":")
    sent = 0
    with socket.create_connection((host, int(port)), timeout=10) as one:
        one.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: ")
        with suppress(BrokenPipeError, ConnectionResetError):
            while sent < 64 << 20:
                one.sendall(b"a" * 65536)
                sent += 65536
    assert sent < 16 << 20


def test_a_request_keeps_the_name_that_other_services_gave_it(own: Server) -> None:
    known = "req-01234567-89ab-cdef-0123-456789abcdef"
    with httpx.Client(base_url=own.url, transport=httpx.HTTPTransport()) as client:
        for chain in (known, 'req-"}\n', "req-short"):
            body = {"network": {"name": "n"}}
            answer = client.post("/v2.0/networks", json=body, headers={"X-OpenStack-Request-ID": chain.strip()})
            assert answer.headers["x-openstack-request-id"] != known
    own.stop()
    lines = [json.loads(line) for line in (own.path / "log").read_text().splitlines()]
    assert [line.get("global") for line in lines if line["message"].startswith("POST")] == [known, None, None]


def test_a_log_has_no_secrets_of_a_request(own: Server) -> None:
    with httpx.Client(base_url=own.url, transport=httpx.HTTPTransport()) as client:
        client.post("/v2.0/networks?password=SECRET1", json={"x": "SECRET2"}, headers={"X-Auth-Token": "SECRET3"})
        client.delete("/v2.0/networks/none", headers={"Authorization": "Basic SECRET4", "Cookie": "SECRET5"})
    own.stop()
    log = (own.path / "log").read_text()
    assert log.count("/v2.0/networks") == 2
    assert "SECRET" not in log


# ---- TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls")
    for name in ("one", "two"):
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-nodes", "-days", "2", "-subj", f"/CN={name}"),
                *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-addext", "subjectAltName=IP:127.0.0.1"),
                *("-keyout", path / f"{name}.key", "-out", path / f"{name}.pem"),
            ],
            check=True,
            capture_output=True,
        )
    return path


def test_tls_is_spoken_and_a_renewed_certificate_taken_in(tmp_path: Path, certificates: Path) -> None:
    cert, key = tmp_path / "cert", tmp_path / "key"

    def put(name: str) -> None:
        for suffix, path in (("pem", cert), ("key", key)):
            made = path.with_suffix(".new")
            made.write_bytes((certificates / f"{name}.{suffix}").read_bytes())
            made.replace(path)

    put("one")
    unix = f"unix:{tmp_path}/s"
    server = Server.__new__(Server)
    server.path, server.listen = tmp_path, ["127.0.0.1:0", unix]
    server.start("--tls-cert", str(cert), "--tls-key", str(key))
    url = server.url.replace("http://", "https://")
    try:
        trusts = ssl.create_default_context(cafile=str(certificates / "one.pem"))
        with httpx.Client(transport=httpx.HTTPTransport(verify=trusts)) as client:
            assert client.get(f"{url}/v2.0/networks").status_code == 200
        with httpx.Client(transport=httpx.HTTPTransport()) as client, pytest.raises(httpx.HTTPError):
            client.get(f"{server.url}/v2.0/networks")
        with httpx.Client(transport=httpx.HTTPTransport(uds=f"{tmp_path}/s")) as client:
            assert client.get("http://x/v2.0/networks").status_code == 200, "no TLS within the machine"
        command = ["-m", "crossway", "network", "list", "--json"]
        asks = {**os.environ, "CROSSWAY_SERVER": url, "CROSSWAY_CA": str(certificates / "one.pem")}
        subprocess.run([sys.executable, *command], env=asks, check=True, capture_output=True)
        put("two")
        end = time.monotonic() + 5
        while f"{cert}: renewed" not in (tmp_path / "log").read_text():
            assert time.monotonic() < end
            time.sleep(0.2)
        trusts = ssl.create_default_context(cafile=str(certificates / "two.pem"))
        with httpx.Client(transport=httpx.HTTPTransport(verify=trusts)) as client:
            assert client.get(f"{url}/v2.0/networks").status_code == 200
    finally:
        server.stop()


def test_a_certificate_that_cannot_be_used_stops_the_start(tmp_path: Path, certificates: Path) -> None:
    for options, says in (
        (["--tls-cert", str(tmp_path / "none")], "No such file"),
        (["--tls-cert", str(certificates / "one.pem")], "TLS certificate"),
        (["--tls-cert", str(certificates / "one.pem"), "--tls-key", str(certificates / "two.key")], "TLS certificate"),
        (["--tls-key", str(certificates / "two.key")], "needs its certificate"),
    ):
        command = [sys.executable, "-m", "crossway", "server", "--store", "memory:", "--listen", "127.0.0.1:0"]
        done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=20, check=False)
        assert done.returncode == 2
        assert says in " ".join(done.stderr.split())
        assert "Traceback" not in done.stderr
