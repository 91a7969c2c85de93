"""Tokens: what is remembered, for how long, and what happens while Keystone is silent.

Here stands a minimal stand-in for Keystone, because its answers must be counted, delayed
and stopped. That a real Keystone is understood is tried by `make tempest`.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from crossway.api.auth.keystone import Keystone, Service, caller_of
from crossway.api.bucket import TooMany
from crossway.errors import Unauthorized, Unavailable
from servers import Server

PASSWORD = "service-secret"


def token(project: str = "red", roles: tuple[str, ...] = ("member",), seconds: float = 3600.0, **more: Any) -> Any:
    """Return what Keystone tells of a token."""
    ends = (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    told = {"expires_at": ends, "user": {"id": "u1"}, "roles": [{"id": r, "name": r} for r in roles], **more}
    return {"token": {**told, "project": {"id": project}} if project else told}


class StandIn:
    """Answers as Keystone does where the server asks it."""

    def __init__(self) -> None:
        self.tokens: dict[str, Any] = {}
        self.asked: Counter[str] = Counter()
        self.delay = 0.0
        self.logins = 0
        self.own = "own-0"
        self.silent = False
        stand = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if stand.silent:
                    # What was open is closed without a word, as when a process dies.
                    self.close_connection = True
                    return
                asked = self.headers["X-Subject-Token"]
                stand.asked[asked] += 1
                time.sleep(stand.delay)
                if self.headers["X-Auth-Token"] != stand.own:
                    self._answer(401, {})
                elif asked in stand.tokens:
                    self._answer(200, stand.tokens[asked])
                else:
                    self._answer(404, {})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                user = body["auth"]["identity"]["password"]["user"]
                assert body["auth"]["scope"]["project"] == {"name": "service", "domain": {"name": "Default"}}
                if (user["name"], user["password"]) != ("crossway", PASSWORD):
                    self._answer(401, {})
                    return
                stand.logins += 1
                self._answer(201, token("service", ("service",)), {"X-Subject-Token": stand.own})

            def _answer(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
                raw = json.dumps(body).encode()
                self.send_response(status)
                for name, value in {**(headers or {}), "Content-Length": str(len(raw))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.handler = Handler
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        self.silent = False
        self.http = ThreadingHTTPServer(("127.0.0.1", self.port), self.handler)
        self.http.daemon_threads = True
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.05,))
        self.thread.start()

    def stop(self) -> None:
        self.silent = True
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture
def keystone() -> Iterator[StandIn]:
    made = StandIn()
    yield made
    if made.thread.is_alive():
        made.stop()


@pytest.fixture
def server(keystone: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("CROSSWAY_KEYSTONE_USER", "crossway")
    monkeypatch.setenv("CROSSWAY_KEYSTONE_PASSWORD", PASSWORD)
    monkeypatch.setenv("CROSSWAY_KEYSTONE_SECONDS", "2")
    made = Server.__new__(Server)
    made.path, made.listen = tmp_path, ["127.0.0.1:0"]
    made.start(f"--auth=keystone:{keystone.url}/v3")
    yield made
    made.stop()
    log = (tmp_path / "log").read_text()
    assert not [secret for secret in (PASSWORD, "token-", "own-") if secret in log], "a secret is in the log"


def ask(server: Server, token: str | None, method: str = "GET", **more: Any) -> httpx.Response:
    headers = {} if token is None else {"X-Auth-Token": token}
    with httpx.Client(transport=httpx.HTTPTransport(), timeout=30) as client:
        return client.request(method, f"{server.url}/v2.0/networks", headers=headers, **more)


def test_project_and_roles_are_those_of_the_token(server: Server, keystone: StandIn) -> None:
    keystone.tokens |= {
        "token-red": token("red"),
        "token-reader": token("red", ("reader",)),
        "token-blue": token("blue"),
        "token-admin": token("ops", ("admin",)),
    }
    body = {"network": {"name": "n"}}
    made = ask(server, "token-red", "POST", json=body)
    assert (made.status_code, made.json()["network"]["project_id"]) == (201, "red")
    assert ask(server, "token-reader", "POST", json=body).status_code == 403
    counts = {name: len(ask(server, f"token-{name}").json()["networks"]) for name in ("reader", "blue", "admin")}
    assert counts == {"reader": 1, "blue": 0, "admin": 1}
    assert keystone.logins == 1


@pytest.mark.parametrize("given", [None, "", "token-unknown", "a b", "x" * 20_000], ids=repr)
def test_who_has_no_token_is_told_where_to_get_one(server: Server, keystone: StandIn, given: str | None) -> None:
    answer = ask(server, given)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == f'Keystone uri="{keystone.url}"'


def test_a_token_is_asked_about_once_while_it_is_remembered(server: Server, keystone: StandIn) -> None:
    keystone.tokens["token-a"] = token()
    keystone.delay = 0.3
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: ask(server, "token-a").status_code, range(10)))
    assert answers == [200] * 10
    assert ask(server, "token-a").status_code == 200
    assert keystone.asked["token-a"] == 1


def test_a_revoked_token_is_good_no_longer_than_it_is_remembered(server: Server, keystone: StandIn) -> None:
    keystone.tokens["token-a"] = token()
    assert ask(server, "token-a").status_code == 200
    del keystone.tokens["token-a"]
    time.sleep(2.1)
    assert ask(server, "token-a").status_code == 401


def test_a_token_ends_when_it_expires(server: Server, keystone: StandIn) -> None:
    keystone.tokens["token-a"] = token(seconds=1)
    keystone.tokens["token-old"] = token(seconds=-1)
    assert ask(server, "token-a").status_code == 200
    assert ask(server, "token-old").status_code == 401
    keystone.tokens["token-a"] = token(seconds=-1)
    time.sleep(1.1)
    assert ask(server, "token-a").status_code == 401


def test_an_unknown_token_is_not_asked_about_again_at_once(server: Server, keystone: StandIn) -> None:
    for _ in range(5):
        assert ask(server, "token-x").status_code == 401
    assert keystone.asked["token-x"] == 1


def test_many_who_come_with_a_new_token_at_once_are_one_question(
    keystone: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crossway.api.auth.keystone.WRONG_AT_ONCE", 2)
    monkeypatch.setattr("crossway.api.auth.keystone.WRONG_RATE", 0.001)
    keystone.tokens |= {f"token-good-{n}": token() for n in range(5)}

    async def main() -> None:
        scheme = Keystone(keystone.url, Service("crossway", PASSWORD))
        await scheme.start()

        def asking(given: str) -> Any:
            return scheme.caller({"headers": [(b"x-auth-token", given.encode())], "client": ("192.0.2.1", 1)})

        for n in range(5):
            assert all(await asyncio.gather(*(asking(f"token-good-{n}") for _ in range(50))))
        found = await asyncio.gather(*(asking("token-bad") for _ in range(50)), return_exceptions=True)
        assert {type(one) for one in found} == {Unauthorized}
        with pytest.raises(Unauthorized):
            await asking("token-worse")
        with pytest.raises(TooMany):
            await asking("token-worst")
        await scheme.stop()

    asyncio.run(main())


def test_tokens_at_random_are_asked_about_at_a_rate(keystone: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crossway.api.auth.keystone.WRONG_AT_ONCE", 20)
    monkeypatch.setattr("crossway.api.auth.keystone.WRONG_RATE", 0.001)
    keystone.tokens |= {f"token-good-{n}": token() for n in range(100)}

    async def main() -> None:
        scheme = Keystone(keystone.url, Service("crossway", PASSWORD, seconds=0.5))
        await scheme.start()

        def asking(given: str, address: str = "192.0.2.1") -> Any:
            return scheme.caller({"headers": [(b"x-auth-token", given.encode())], "client": (address, 1)})

        for n in range(60):
            assert await asking(f"token-good-{n}"), "those that are good are not counted"
        for n in range(20):
            with pytest.raises(Unauthorized):
                await asking(f"token-{n}")
        for given in ("token-more", "token-good-99"):
            with pytest.raises(TooMany, match="does not know"):
                await asking(given)
        assert keystone.asked["token-more"] == 0
        assert await asking("token-good-99", "192.0.2.2"), "others are not held up"
        await asyncio.sleep(0.6)
        # One that was good is to be asked about again, and is.
        before = keystone.asked["token-good-0"]
        assert await asking("token-good-0")
        assert keystone.asked["token-good-0"] == before + 1
        await scheme.stop()

    asyncio.run(main())


def test_unknown_tokens_displace_none_that_is_good(keystone: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crossway.api.auth.keystone.REMEMBERED_MAX", 3)
    keystone.tokens |= {"token-a": token("a"), "token-b": token("b")}

    async def main() -> None:
        scheme = Keystone(keystone.url, Service("crossway", PASSWORD))
        await scheme.start()

        def asking(given: str) -> Any:
            return scheme.caller({"headers": [(b"x-auth-token", given.encode())], "client": ("192.0.2.1", 1)})

        assert (await asking("token-a")).project == "a"
        assert (await asking("token-b")).project == "b"
        for n in range(10):
            with pytest.raises(Unauthorized):
                await asking(f"token-{n}")
        assert (await asking("token-a")).project == "a"
        await scheme.stop()

    asyncio.run(main())
    assert keystone.asked["token-a"] == 1


def test_new_tokens_leave_half_of_the_questions_to_those_that_were_good(
    keystone: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    keystone.tokens["token-a"] = token("a")

    async def main() -> None:
        scheme = Keystone(keystone.url, Service("crossway", PASSWORD, seconds=0.2))
        await scheme.start()

        def asking(given: str, address: str) -> Any:
            return scheme.caller({"headers": [(b"x-auth-token", given.encode())], "client": (address, 1)})

        assert await asking("token-a", "192.0.2.1")
        await asyncio.sleep(0.3)
        keystone.delay = 1.0
        # From many addresses, so that no bucket is empty.
        random = [asyncio.create_task(asking(f"token-{n}", f"198.51.100.{n}")) for n in range(64)]
        await asyncio.sleep(0.1)
        began = time.monotonic()
        assert await asking("token-a", "192.0.2.1")
        assert time.monotonic() - began < 2.5
        for task in random:
            task.cancel()
        await asyncio.gather(*random, return_exceptions=True)
        await scheme.stop()

    asyncio.run(main())


def test_while_keystone_is_silent_the_known_go_on_and_others_may_come_again(server: Server, keystone: StandIn) -> None:
    keystone.tokens |= {"token-a": token(), "token-b": token()}
    assert ask(server, "token-a").status_code == 200
    keystone.stop()
    assert ask(server, "token-a").status_code == 200
    refused = ask(server, "token-b")
    assert refused.status_code == 503
    assert "Keystone does not answer" in refused.json()["NeutronError"]["message"]
    keystone.start()
    assert ask(server, "token-b").status_code == 200


def test_the_servers_own_token_is_renewed_when_it_is_no_longer_good(server: Server, keystone: StandIn) -> None:
    keystone.tokens |= {"token-a": token(), "token-b": token()}
    assert ask(server, "token-a").status_code == 200
    keystone.own = "own-1"
    assert ask(server, "token-b").status_code == 200
    assert keystone.logins == 2


@pytest.mark.parametrize(
    ("made", "project", "roles"),
    [
        (lambda: token("p", ("member",)), "p", {"member", "reader"}),
        (lambda: token("p", ("Admin",)), "p", {"admin", "manager", "member", "reader"}),
        (lambda: token("", ("admin",), system={"all": True}), "", {"admin", "manager", "member", "reader"}),
        (lambda: token("", ("member",), system={"all": True}), "", set()),
        (lambda: token("", ("admin",), domain={"id": "default"}), "", set()),
        (lambda: token("", ()), "", set()),
    ],
    ids=["member", "admin", "admin of the system", "member of the system", "admin of a domain", "without scope"],
)
def test_what_a_token_allows(made: Callable[[], Any], project: str, roles: set[str]) -> None:
    caller, lives = caller_of(made())
    assert (caller.project, caller.user, caller.roles) == (project, "u1", frozenset(roles))
    assert 3000 < lives <= 3600


@pytest.mark.parametrize("told", [None, [], {"token": None}, {"token": {"roles": []}}, {"token": {"expires_at": 5}}])
def test_what_is_not_keystones_answer_lets_nobody_in(told: Any) -> None:
    with pytest.raises(Unavailable, match="Identity API"):
        caller_of(told)


HOST = {"user": {"id": "u1", "name": "h1", "domain": {"id": "default", "name": "Default"}}}


@pytest.mark.parametrize(
    ("roles", "more", "host"),
    [
        (("crossway-host",), HOST, "h1"),
        (("Crossway-Host", "member"), HOST, "h1"),
        (("member",), HOST, ""),
        (("host",), HOST, ""),
        (("crossway-host", "admin"), HOST, ""),
        (("crossway-host",), {"user": {**HOST["user"], "domain": {"id": "x", "name": "tenants"}}}, ""),
        (("crossway-host",), {"user": {"id": "u1"}}, ""),
    ],
    ids=["its role", "with others", "no role", "a role of that name", "an admin", "of another domain", "no name"],
)
def test_a_user_with_the_hosts_role_is_the_host_of_its_name(roles: tuple[str, ...], more: Any, host: str) -> None:
    caller, _ = caller_of(token("red", roles, **more), "crossway-host", "Default")
    assert (caller.host, caller.serves) == (host, frozenset({"red"} if host else ()))
    assert caller.admin == ("admin" in roles)
    assert caller_of(token("red", roles, **more))[0].host == ""
    assert caller_of(token("", roles, **more), "crossway-host", "Default")[0].host == ""
