"""The client's promises, held against a small HTTP server on a unix socket."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from crossway.client import AgentClient, Client, fault_of, kind_of, path_of
from crossway.errors import Conflict, Fault, Forbidden, InUse, Invalid, NotFound, OverQuota, Unavailable


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Answers what it was told to, and remembers what it was asked."""

    daemon_threads = True

    def __init__(self, path: Path) -> None:
        self.address = f"unix:{path}"
        self.asked: list[tuple[str, str, Any]] = []
        self.answers: list[tuple[int, Any]] = []
        super().__init__(str(path), Answering)


class Answering(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = json.loads(self.rfile.read(length)) if length else None
        self.server.asked.append((self.command, self.path, body))
        status, answer = self.server.answers.pop(0)
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_PUT = do_DELETE = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "s.sock") as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("port", "/v2.0/ports"),
        ("ports", "/v2.0/ports"),
        ("security_group", "/v2.0/security-groups"),
        ("security-groups", "/v2.0/security-groups"),
        ("security_group_rules", "/v2.0/security-group-rules"),
        ("rbac_policies", "/v2.0/rbac-policies"),
    ],
)
def test_a_kind_has_one_path_by_either_name(name: str, path: str) -> None:
    assert path_of(name) == path
    assert path_of(kind_of(name), "x") == f"{path}/x"


@pytest.mark.parametrize(
    ("status", "kind", "fault"),
    [
        (400, "HTTPBadRequest", Invalid),
        (403, "PolicyNotAuthorized", Forbidden),
        (404, "PortNotFound", NotFound),
        (409, "NetworkInUse", InUse),
        (409, "OverQuota", OverQuota),
        (409, "Conflict", Conflict),
        (503, "ServiceUnavailable", Unavailable),
        (500, "InternalError", Fault),
    ],
)
def test_an_error_is_the_fault_that_it_names(status: int, kind: str, fault: type[Fault]) -> None:
    body = {"NeutronError": {"type": kind, "message": "the reason", "detail": ""}}
    told = fault_of(status, json.dumps(body).encode())
    assert type(told) is fault
    assert str(told) == "the reason"
    assert told.status == status


def test_an_error_that_is_no_json_is_told_as_it_is() -> None:
    assert str(fault_of(502, b"Bad Gateway")) == "Bad Gateway"
    assert str(fault_of(502, b"")) == "the server answered 502"


def test_crud_sends_and_opens_envelopes(server: Server) -> None:
    server.answers = [(201, {"port": {"id": "p"}}), (200, {"port": {"id": "p"}}), (204, b"")]
    with Client(server.address) as client:
        assert client.create("port", name="web", network_id="n") == {"id": "p"}
        client.update("ports", "p", name="db")
        client.delete("port", "p")
    assert server.asked == [
        ("POST", "/v2.0/ports", {"port": {"name": "web", "network_id": "n"}}),
        ("PUT", "/v2.0/ports/p", {"port": {"name": "db"}}),
        ("DELETE", "/v2.0/ports/p", None),
    ]


def test_filters_become_a_query(server: Server) -> None:
    server.answers = [(200, {"ports": []})]
    with Client(server.address) as client:
        assert client.list("ports", binding__host_id="h1", admin_state_up=True, id=["a", "b"]) == []
    assert server.asked[0][1] == "/v2.0/ports?binding%3Ahost_id=h1&admin_state_up=true&id=a&id=b"


def test_find_takes_a_name_and_refuses_two_of_it(server: Server) -> None:
    server.answers = [(200, {"ports": []}), (200, {"ports": [{"id": "1"}, {"id": "2"}]})]
    with Client(server.address) as client, pytest.raises(Conflict, match="2 of kind port are named web"):
        client.find("port", "web")


def test_find_takes_a_name_that_looks_like_an_id(server: Server) -> None:
    name = "0b0d7a6e-7f5c-4d4f-9f4e-3c1f5d0f9a11"
    server.answers = [(200, {"networks": []}), (200, {"networks": [{"id": "1", "name": name}]})]
    with Client(server.address) as client:
        assert client.find("network", name)["id"] == "1"
        server.answers = [(200, {"networks": [{"id": name}]})]
        assert client.find("network", name)["id"] == name
    assert [path for _, path, _ in server.asked] == [f"/v2.0/networks?{by}={name}" for by in ("id", "name", "id")]


def test_the_next_server_is_asked_when_one_does_not_answer(server: Server, tmp_path: Path) -> None:
    server.answers = [(201, {"port": {"id": "p"}}), (200, {"ports": []})]
    with Client([f"unix:{tmp_path}/nobody.sock", server.address]) as client:
        assert client.create("port")["id"] == "p"
        assert client.list("ports") == []


def test_no_server_at_all_is_unavailable(tmp_path: Path) -> None:
    with (
        Client(f"unix:{tmp_path}/a.sock,unix:{tmp_path}/b.sock") as client,
        pytest.raises(Unavailable, match=r"b\.sock"),
    ):
        client.list("ports")


def test_an_address_that_is_none_is_invalid() -> None:
    with pytest.raises(Invalid, match="neither http://"):
        Client("localhost:9696")


def test_wait_tells_what_it_still_is(server: Server) -> None:
    server.answers = [(200, {"port": {"id": "p", "status": "DOWN"}})] * 100
    with Client(server.address) as client, pytest.raises(Unavailable, match="still DOWN after"):
        client.wait("port", "p", seconds=0.05)


@pytest.mark.parametrize(
    ("how", "body"),
    [
        ({"netns": "x"}, {"port": "p", "body": "veth", "netns": "x", "ifname": "eth0"}),
        ({"tap": "t0"}, {"port": "p", "body": "tap", "device": "t0"}),
        ({"vlan": ("eth1", 5)}, {"port": "p", "body": "vlan", "device": "eth1", "vlan": 5}),
    ],
    ids=["veth", "tap", "vlan"],
)
def test_plug_names_the_body(server: Server, how: dict[str, Any], body: dict[str, Any]) -> None:
    server.answers = [(200, {"port": "p"})]
    with AgentClient(server.address) as agent:
        agent.plug("p", **how)
    assert server.asked == [("POST", "/v1/plug", body)]


def test_an_agents_error_is_a_fault(server: Server) -> None:
    server.answers = [(404, {"error": {"type": "NotFound", "message": "netns x could not be found"}})]
    with AgentClient(server.address) as agent, pytest.raises(NotFound, match="netns x"):
        agent.plug("p", netns="x")
