"""Users of a password file: by stock clients, the command line and hosts."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openstack
import pytest
from openstack import exceptions
from openstack.connection import Connection

from crossway.agent.server import Servers
from crossway.api.auth.basic import ADDRESS_AT_ONCE, WRONG_AT_ONCE, Basic
from crossway.api.auth.layer import CALLER, Authenticated
from crossway.api.bucket import TooMany
from crossway.control.caller import Caller
from crossway.errors import Forbidden, Unauthorized
from crossway.model.user import user as made_user
from crossway.store import users
from servers import Api, Server

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")

PASSWORD = "correct horse"


def crossway(*words: str, says: str = "", ok: bool = True, **environment: str) -> str:
    """Run a command with *says* on its standard input; return what it answers or complains of."""
    done = subprocess.run(
        [sys.executable, "-m", "crossway", *words],
        input=says,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**os.environ, **environment},
    )
    assert (done.returncode == 0) == ok, done.stderr
    return done.stdout if ok else done.stderr


def add(file: Path, name: str, project: str, *roles: str, password: str = PASSWORD) -> None:
    words = [f"--role={role}" for role in roles]
    crossway("user", "add", name, "--project", project, "--file", str(file), *words, says=f"{password}\n")


class Guarded(Server):
    """A server that knows users by a password file."""

    def __init__(self, path: Path, *options: str) -> None:
        self.users, self.options = path / "users", options
        super().__init__(path)

    def start(self, *options: str, **more: Any) -> None:
        super().start(f"--auth=basic:{self.users}", *self.options, *options, **more)

    def log(self) -> str:
        return (self.path / "log").read_text()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    path = tmp_path_factory.mktemp("guarded")
    # A line each, as the command would write it, but hashed together: hashing takes long.
    hash = users.hashed(PASSWORD)
    users.add(path / "users", made_user("host", hash, "", (), "h1"))
    for name, project, *roles in (
        ("root", "ops", "admin"),
        ("alice", "red", "member"),
        ("ann", "red", "reader"),
        ("bob", "blue", "member"),
        ("nova", "ops", "service"),
    ):
        users.add(path / "users", made_user(name, hash, project, tuple(roles)))
    server = Guarded(path)
    yield server
    server.stop()
    log = server.log()
    pairs = [base64.b64encode(f"{name}:{PASSWORD}".encode()).decode() for name in ("root", "alice", "bob", "host")]
    assert "req-" in log
    assert not [secret for secret in (PASSWORD, hash, *pairs) if secret in log], "a secret is in the log"


def sdk(server: Server, name: str, password: str = PASSWORD) -> Connection:
    return openstack.connect(
        auth_type="http_basic",
        auth={"endpoint": server.url, "username": name, "password": password},
        network_endpoint_override=f"{server.url}/v2.0",
        load_yaml_config=False,
        load_envvars=False,
    )


def ask(server: Server, name: str = "", password: str = PASSWORD, path: str = "/v2.0/networks", **more: Any) -> Any:
    auth = (name, password) if name else None
    with httpx.Client(transport=httpx.HTTPTransport(), timeout=30) as client:
        return client.get(server.url + path, auth=auth, **more)


def test_the_sdk_works_for_its_user_and_sees_no_other_projects_things(guarded: Guarded) -> None:
    with sdk(guarded, "alice") as alice, sdk(guarded, "bob") as bob, sdk(guarded, "root") as root:
        network = alice.network.create_network(name="red-net")
        assert network.project_id == "red"
        assert [n.name for n in alice.network.networks()] == ["red-net"]
        assert list(bob.network.networks()) == []
        with pytest.raises(exceptions.NotFoundException):
            bob.network.get_network(network.id)
        with pytest.raises(exceptions.NotFoundException):
            bob.network.delete_network(network.id, ignore_missing=False)
        with sdk(guarded, "ann") as ann:
            assert ann.network.get_network(network.id).name == "red-net"
            with pytest.raises(exceptions.ForbiddenException):
                ann.network.create_network(name="no")
        assert network.id in {n.id for n in root.network.networks()}
        root.network.delete_network(network.id, ignore_missing=False)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Basic"},
        {"Authorization": "Basic !!"},
        {"Authorization": "Basic " + base64.b64encode(b"alice").decode()},
        {"Authorization": "Basic " + base64.b64encode(b"\xff\xfe:x").decode()},
        {"Authorization": "Bearer " + base64.b64encode(f"alice:{PASSWORD}".encode()).decode()},
        {"X-Auth-Token": "any"},
        {"X-Roles": "admin", "X-Project-Id": "admin"},
    ],
    ids=lambda headers: json.dumps(headers)[:40],
)
def test_who_is_not_known_is_told_how_to_become_so(guarded: Guarded, headers: dict[str, str]) -> None:
    answer = ask(guarded, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith('Basic realm="crossway"')
    assert answer.json()["NeutronError"]["type"] == "Unauthorized"
    assert answer.headers["x-openstack-request-id"].startswith("req-")


def test_two_users_in_one_request_are_none(guarded: Guarded) -> None:
    pairs = [base64.b64encode(f"{name}:{PASSWORD}".encode()).decode() for name in ("alice", "root")]
    assert ask(guarded, headers=[("Authorization", f"Basic {pair}") for pair in pairs]).status_code == 401


def test_what_the_headers_say_of_roles_counts_for_nothing(guarded: Guarded) -> None:
    headers = {"X-Roles": "admin", "X-Project-Id": "ops"}
    made = ask(guarded, "alice", path="/v1/status", headers=headers)
    assert (made.status_code, made.json()["error"]["type"]) == (403, "PolicyNotAuthorized")


def test_versions_are_told_to_everyone_and_nothing_else_is(guarded: Guarded) -> None:
    assert ask(guarded, path="/").json()["versions"][0]["id"] == "v2.0"
    for path in ("/v2.0", "/v2.0/extensions", "/v2.0/networks", "/v1/hosts", "/v1/status", "/nowhere"):
        assert ask(guarded, path=path).status_code == 401, path


def test_a_password_is_hashed_once_and_then_remembered(guarded: Guarded) -> None:
    assert ask(guarded, "alice").status_code == 200
    began = time.monotonic()
    for _ in range(20):
        assert ask(guarded, "alice").status_code == 200
    assert (time.monotonic() - began) / 20 < 0.1


def test_the_same_user_at_once_is_hashed_once(tmp_path: Path) -> None:
    users.add(tmp_path / "users", made_user("alice", users.hashed(PASSWORD), "red", ("member",)))
    server = Guarded(tmp_path)
    try:
        with ThreadPoolExecutor(16) as pool:
            # More at once than wrong passwords would be let through.
            answers = list(pool.map(lambda _: ask(server, "alice").status_code, range(8)))
        assert answers == [200] * 8
    finally:
        server.stop()


def test_guessing_is_stopped_for_who_guesses_and_not_for_who_is_known(tmp_path: Path) -> None:
    users.add(tmp_path / "users", made_user("alice", users.hashed(PASSWORD), "red", ("member",)))
    server = Guarded(tmp_path)
    try:
        assert ask(server, "alice").status_code == 200
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda i: ask(server, "alice", f"guess{i}"), range(24)))
        codes = [answer.status_code for answer in answers]
        assert set(codes) == {401, 429}
        assert codes.count(429) >= 8
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert refused.json()["NeutronError"]["type"] == "TooManyRequests"
        assert ask(server, "alice").status_code == 200
    finally:
        server.stop()
    assert "guess1" not in server.log()


def asked_as(basic: Basic, name: str, password: str = PASSWORD, address: str = "192.0.2.1") -> Any:
    pair = base64.b64encode(f"{name}:{password}".encode())
    return basic.caller({"headers": [(b"authorization", b"Basic " + pair)], "client": (address, 1)})


@pytest.fixture
def no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no guess be given back by time, however long hashing takes."""
    for name in ("WRONG_EVERY", "ADDRESS_EVERY"):
        monkeypatch.setattr(f"crossway.api.auth.basic.{name}", 1e6)


@pytest.mark.usefixtures("no_time")
def test_guesses_at_one_user_lock_no_other_of_the_same_address_out(tmp_path: Path) -> None:
    hash = users.hashed(PASSWORD)
    for name in ("alice", "bob", "carol"):
        users.add(tmp_path / "users", made_user(name, hash, "red", ("member",)))

    async def main() -> None:
        basic = Basic(tmp_path / "users")
        for guess in range(WRONG_AT_ONCE):
            with pytest.raises(Unauthorized):
                await asked_as(basic, "alice", f"guess {guess}")
        for password in ("guess", PASSWORD):
            with pytest.raises(TooMany, match="for this user"):
                await asked_as(basic, "alice", password)
        assert (await asked_as(basic, "bob")).user == "bob"
        assert (await asked_as(basic, "alice", address="192.0.2.2")).user == "alice"
        # Guesses at many users count together in the end.
        for guess in range(ADDRESS_AT_ONCE - WRONG_AT_ONCE):
            with pytest.raises(Unauthorized):
                await asked_as(basic, f"user {guess}", "guess")
        with pytest.raises(TooMany):
            await asked_as(basic, "carol")
        assert (await asked_as(basic, "bob")).user == "bob", "it is known already"
        assert (await asked_as(basic, "carol", address="192.0.2.2")).user == "carol"
        await basic.stop()

    asyncio.run(main())


@pytest.mark.usefixtures("no_time")
def test_a_password_that_was_right_before_is_no_guess(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crossway.api.auth.basic.REMEMBERED_SECONDS", 0.0)
    users.add(tmp_path / "users", made_user("alice", users.hashed(PASSWORD), "red", ("member",)))

    async def main() -> None:
        basic = Basic(tmp_path / "users")
        assert await asked_as(basic, "alice")
        for guess in range(WRONG_AT_ONCE):
            with pytest.raises(Unauthorized):
                await asked_as(basic, "alice", f"guess {guess}")
        with pytest.raises(TooMany, match="for this user"):
            await asked_as(basic, "alice", "guess")
        assert await asked_as(basic, "alice")
        await basic.stop()

    asyncio.run(main())


def test_many_who_come_with_a_password_at_once_are_one_guess_and_a_new_file_makes_none(tmp_path: Path) -> None:
    users.add(tmp_path / "users", made_user("alice", users.hashed(PASSWORD), "red", ("member",)))

    async def main() -> None:
        basic = Basic(tmp_path / "users")
        assert all(await asyncio.gather(*(asked_as(basic, "alice") for _ in range(3 * WRONG_AT_ONCE))))
        for guess in range(WRONG_AT_ONCE):
            with pytest.raises(Unauthorized):
                await asked_as(basic, "alice", f"guess {guess}")
        users.add(tmp_path / "users", made_user("bob", users.hashed("other"), "red", ("member",)))
        basic._looked = 0.0
        assert await asked_as(basic, "alice")
        await basic.stop()

    asyncio.run(main())


def test_a_changed_file_counts_at_once_and_a_broken_one_changes_nothing(tmp_path: Path) -> None:
    add(tmp_path / "users", "alice", "red")
    server = Guarded(tmp_path)
    file = ["--file", str(tmp_path / "users")]
    try:
        assert ask(server, "alice").status_code == 200
        crossway("user", "set", "alice", "--password", *file, says="another\n")
        wait(lambda: ask(server, "alice").status_code == 401)
        assert ask(server, "alice", "another").status_code == 200
        whole = (tmp_path / "users").read_text()
        (tmp_path / "users").write_text("alice:secret-in-the-clear:red:member\n")
        # It is looked at when someone asks.
        wait(lambda: ask(server, "alice", "another").status_code == 200 and "stay" in server.log())
        assert ask(server, "alice", "another").status_code == 200
        assert "secret-in-the-clear" not in server.log()
        (tmp_path / "users").write_text(whole)
        crossway("user", "delete", "alice", *file)
        wait(lambda: ask(server, "alice", "another").status_code == 401)
    finally:
        server.stop()


def wait(seen: Any) -> None:
    end = time.monotonic() + 15
    while not seen():
        assert time.monotonic() < end
        time.sleep(0.3)


def test_the_command_keeps_the_password_file(tmp_path: Path) -> None:
    file = tmp_path / "users"
    add(file, "alice", "red")
    add(file, "root", "ops", "admin", "member")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert PASSWORD not in file.read_text()
    where = ("--file", str(file))
    told = json.loads(crossway("user", "list", "--json", *where))
    assert told == [
        {"name": "alice", "project": "red", "roles": ["member"]},
        {"name": "root", "project": "ops", "roles": ["admin", "member"]},
    ]
    crossway("user", "set", "alice", "--project", "blue", "--role", "reader", *where)
    assert users.read(file)["alice"].project == "blue"
    assert users.matches(PASSWORD.encode(), users.read(file)["alice"].hash)
    assert "there already" in crossway("user", "add", "alice", "--project", "p", *where, says="x\n", ok=False)
    assert "alic" in crossway("user", "delete", "alic", *where, ok=False)
    assert "one of admin" in crossway("user", "set", "alice", "--role", "king", *where, ok=False)
    assert "colons" in crossway("user", "add", "a:b", "--project", "p", *where, says="x\n", ok=False)
    assert "password" in crossway("user", "add", "eve", "--project", "p", *where, says="\n", ok=False)
    crossway("user", "delete", "alice", *where)
    assert list(users.read(file)) == ["root"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["users"], "nothing is left beside it"


def test_the_command_makes_a_user_a_host(tmp_path: Path) -> None:
    file, where = tmp_path / "users", ("--file", str(tmp_path / "users"))
    crossway("user", "add", "one", "--host", "host.one", *where, says="x\n")
    words = ("--host", "h2", "--project", "red", "--project", "blue")
    crossway("user", "add", "two", *words, *where, says="x\n")
    add(file, "old", "service", "service")
    crossway("user", "set", "old", "--host", "h3", *where)
    found = users.read(file)
    assert [(u.host, u.projects, u.roles) for u in found.values()] == [
        ("host.one", (), ()),
        ("h2", ("red", "blue"), ()),
        ("h3", (), ()),
    ]
    crossway("user", "set", "two", "--project", "*", *where)
    crossway("user", "set", "one", "--project", "red", "--role", "member", *where)
    found = users.read(file)
    assert (found["two"].projects, found["one"].projects, found["one"].roles) == (("*",), ("red",), ("member",))
    crossway("user", "set", "two", "--project", "", *where)
    assert users.read(file)["two"].projects == ()
    assert json.loads(crossway("user", "list", "--json", *where))[0]["host"] == "host.one"
    assert "as well" in crossway("user", "set", "two", "--role", "admin", *where, ok=False)
    assert "one --project" in crossway("user", "add", "eve", *where, says="x\n", ok=False)


def test_the_command_says_what_a_host_may_have(tmp_path: Path) -> None:
    file, where = tmp_path / "users", ("--file", str(tmp_path / "users"))
    given = ("--physnet", "rack1", "--physnet", "dc", "--underlay", "::ffff:192.0.2.1", "--underlay", "FD00::1")
    crossway("user", "add", "one", "--host", "h1", *given, *where, says="x\n")
    assert file.read_text().splitlines()[-1].endswith(":::h1/rack1,dc/192.0.2.1,fd00::1")
    one = users.read(file)["one"]
    assert (one.host, one.physnets, one.addresses) == ("h1", ("rack1", "dc"), ("192.0.2.1", "fd00::1"))
    told = json.loads(crossway("user", "list", "--json", *where))[0]
    assert (told["physnets"], told["underlay"]) == (["rack1", "dc"], ["192.0.2.1", "fd00::1"])
    crossway("user", "set", "one", "--project", "red", *where)
    assert users.read(file)["one"].physnets == ("rack1", "dc")
    crossway("user", "set", "one", "--physnet", "", *where)
    assert file.read_text().splitlines()[-1].endswith(":red::h1//192.0.2.1,fd00::1")
    crossway("user", "set", "one", "--underlay", "", "--physnet", "*", *where)
    assert file.read_text().splitlines()[-1].endswith(":red::h1/*")
    crossway("user", "set", "one", "--physnet", "", *where)
    assert file.read_text().splitlines()[-1].endswith(":red::h1")
    assert "without a slash" in crossway("user", "set", "one", "--physnet", "a/b", *where, ok=False)
    assert "not-one" in crossway("user", "set", "one", "--underlay", "not-one", *where, ok=False)
    add(file, "alice", "red")
    assert "is no host" in crossway("user", "set", "alice", "--physnet", "rack1", *where, ok=False)


def test_a_host_has_what_its_entry_says_and_no_other_takes_it(guarded: Guarded) -> None:
    hash, file = users.hashed(PASSWORD), guarded.users
    users.add(file, made_user("edge", hash, "", (), "e1", ("rack1",), ("192.0.2.91",)))
    users.add(file, made_user("plain", hash, "", (), "e2"))
    users.add(file, made_user("wide", hash, "*", (), "e3", ("*",)))
    wait(lambda: ask(guarded, "wide").status_code == 200)

    def register(who: str, host: str, underlay: str, *physnets: str) -> httpx.Response:
        body = {"underlay": underlay, "physnets": {physnet: "eth1" for physnet in physnets}}
        with httpx.Client(transport=httpx.HTTPTransport(), timeout=30) as client:
            return client.put(f"{guarded.url}/v1/hosts/{host}", auth=(who, PASSWORD), json=body)

    # Who comes first does not have what is kept for another.
    for spelling in ("192.0.2.91", "::ffff:192.0.2.91"):
        early = register("plain", "e2", spelling)
        assert early.status_code == 403
        assert "kept for another host" in early.text
    assert register("edge", "e1", "192.0.2.92").status_code == 403
    refused = register("edge", "e1", "192.0.2.91", "rack1", "rack2")
    assert refused.status_code == 403
    assert "physnet 'rack2'" in refused.text
    assert "`crossway user set edge --physnet rack2`" in refused.text
    assert register("edge", "e1", "192.0.2.91", "rack1").status_code == 200
    assert register("plain", "e2", "192.0.2.93", "rack1").status_code == 403
    assert register("plain", "e2", "192.0.2.93").status_code == 200
    assert register("wide", "e3", "192.0.2.94", "rack1", "any").status_code == 200
    assert register("root", "e4", "192.0.2.95", "rack1").status_code == 200, "an admin says what there is"

    def said(path: str, body: Any = None) -> int:
        url = f"{guarded.url}/v1/hosts/e1{path}"
        with httpx.Client(transport=httpx.HTTPTransport(), timeout=30, auth=("edge", PASSWORD)) as client:
            if body is not None:
                return client.post(url, json=body).status_code
            with client.stream("GET", url) as opened:
                return opened.status_code

    assert (said("/view?after=0"), said("/status", {"applied": 1})) == (200, 200)
    # What is taken from it, it has no longer: it neither hears nor counts until it has registered without.
    users.change(file, "edge", None, None, (), physnets=())
    wait(lambda: said("/status", {"applied": 1}) == 403)
    assert said("/view?after=0") == 403
    assert register("edge", "e1", "192.0.2.91").status_code == 200
    assert (said("/view?after=0"), said("/status", {"applied": 1})) == (200, 200)
    api = Api(guarded.url)
    api.client.auth = ("root", PASSWORD)
    with api.client:
        for host in ("e1", "e2", "e3", "e4"):
            api("DELETE", f"/v1/hosts/{host}")


def test_commands_ask_as_the_user_of_the_environment(guarded: Guarded, tmp_path: Path) -> None:
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    who = {"CROSSWAY_SERVER": guarded.url, "CROSSWAY_USER": "bob", "CROSSWAY_PASSWORD_FILE": str(tmp_path / "password")}
    made = json.loads(crossway("network", "create", "blue-net", "--json", **who))
    assert made["project_id"] == "blue"
    assert "requires authentication" in crossway("network", "list", ok=False, CROSSWAY_SERVER=guarded.url)
    crossway("network", "delete", "blue-net", **who)


async def register(server: Server, name: str, monkeypatch: pytest.MonkeyPatch, host: str = "h1") -> None:
    monkeypatch.setenv("CROSSWAY_USER", name)
    monkeypatch.setenv("CROSSWAY_PASSWORD", PASSWORD)
    servers = Servers([server.url], host)
    try:
        await servers.register("192.0.2.1", {}, "test")
        views = servers.view(0)
        assert await anext(views) == {"reset": True}
        await views.aclose()
    finally:
        servers.close()


def test_an_agent_is_its_host_or_an_admin(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    asyncio.run(register(guarded, "host", monkeypatch))
    asyncio.run(register(guarded, "root", monkeypatch))
    with pytest.raises(Forbidden, match="h1 itself"):
        asyncio.run(register(guarded, "alice", monkeypatch))
    with pytest.raises(Forbidden, match="crossway user set nova --host"):
        asyncio.run(register(guarded, "nova", monkeypatch))
    with pytest.raises(Forbidden, match="h2 itself"):
        asyncio.run(register(guarded, "host", monkeypatch, "h2"))
    with pytest.raises(Unauthorized):
        asyncio.run(register(guarded, "nobody", monkeypatch))
    api = Api(guarded.url)
    api.client.auth = ("host", PASSWORD)
    with api.client:
        assert api("GET", "/v1/hosts")["hosts"][0]["name"] == "h1"
        assert api("GET", "/v1/status", want=403)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("alice:secret:red:member", "line 1: the password of user alice should be a hash"),
        ("alice", "line 1: should be NAME:BCRYPT:PROJECT:ROLE"),
        ("# words\nalice:{hash}:red:king", "line 2: role king of user alice should be one of"),
        ("alice:{hash}:red:member\nalice:{hash}:red:member", "line 2: user alice is there twice"),
        ("alice:{hash}::member", "project ''"),
        ("h:{hash}::member:", "line 1: should be NAME:BCRYPT"),
        ("h:{hash}:p:admin:h1", "cannot have the role admin"),
        ("h:{hash}:p:service:h1", "cannot have the role service"),
        ("h:{hash}:p,q:member:h1", "should have one project"),
        ("h:{hash}:*:member:h1", "should have one project"),
        ("h:{hash}:p::/b", "user h is no host"),
        ("h:{hash}:p::a/b/c", "underlay address of user h: 'c'"),
        ("h:{hash}:p::a/b/192.0.2.1/c", "underlay address of user h"),
        ("h:{hash}:p::a//224.0.0.1", "is not the address of a host"),
    ],
)
def test_a_file_that_cannot_be_right_stops_the_start(tmp_path: Path, line: str, says: str) -> None:
    file = tmp_path / "users"
    file.write_text(line.replace("{hash}", "$2b$12$" + "a" * 53))
    told = crossway("server", "--store", "memory:", "--listen", "127.0.0.1:0", "--auth", f"basic:{file}", ok=False)
    assert says in " ".join(told.split())
    assert "secret" not in told


def test_a_view_ends_when_its_reader_is_deleted_or_becomes_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crossway.api.auth.layer.AGAIN_SECONDS", 0.0)
    known: list[Caller | None] = [Caller("a"), Caller("a"), Caller("b")]
    sent: list[Any] = []

    class Scheme:
        challenge = "Basic"

        async def caller(self, scope: Any) -> Caller | None:
            if not known:
                raise Unauthorized("deleted")
            return known.pop(0)

        async def start(self) -> None: ...
        async def stop(self) -> None: ...

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for n in itertools.count():
            await send({"type": "http.response.body", "body": b"%d" % n, "more_body": True})

    async def send(message: Any) -> None:
        sent.append((message["body"], message["more_body"]))

    async def view() -> None:
        scope = {"type": "http", "path": "/v1/hosts/h/view", "headers": []}
        await Authenticated(app, [Scheme()])(scope, send, send)

    asyncio.run(view())
    assert sent == [(b"0", True), (b"", False)]
    known[:] = [Caller("a")]
    sent.clear()
    asyncio.run(view())
    assert sent == [(b"", False)]


@pytest.mark.parametrize(
    ("listener", "admin"),
    [(("/run/own.sock", None), True), (("/run/other.sock", None), False), (("127.0.0.1", 9696), False), (None, False)],
    ids=["its own socket", "another socket", "loopback", "unknown"],
)
def test_only_a_trusted_socket_makes_an_admin(listener: Any, admin: bool) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope[CALLER])

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            seen.append(message["status"])

    async def receive() -> Any:
        raise AssertionError("nothing is read of a request")

    scope = {"type": "http", "path": "/v2.0/networks", "headers": [], "server": listener}
    asyncio.run(Authenticated(app, [], trusted=["/run/own.sock"])(scope, receive, send))
    assert seen == [Caller()] if admin else seen == [401]
