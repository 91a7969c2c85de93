"""How large bodies may be, whose are read at all, and that others are answered meanwhile."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request

from crossway.api.body import (
    BODIES,
    BULK_MAX,
    BULK_VALUES_MAX,
    DEPTH_MAX,
    VALUE_BYTES,
    VALUES_MAX,
    Bodies,
    Payer,
    read,
)
from crossway.api.bucket import TooMany
from crossway.api.resources import path_of
from crossway.control.collection import Collection
from crossway.control.collections import COLLECTIONS
from crossway.errors import Unavailable
from servers import Api, Server

SOMEWHERE = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def reader(shared: Server) -> Iterator[Api]:
    made = Api(shared.url, **{"X-Project-Id": f"reader-{uuid.uuid4().hex[:8]}", "X-Roles": "reader"})
    yield made
    made.client.close()


def told(answer: httpx.Response) -> dict[str, str]:
    found: dict[str, str] = answer.json()["NeutronError"]
    return found


def spoken(url: str, sent: bytes, rest: bytes = b"", seconds: float = 10.0) -> tuple[bytes, int]:
    """Send a head, and a rest for as long as the server takes it; return its answer and how much it took."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=seconds) as one:
        one.sendall(sent)
        one.setblocking(False)
        answer, at, end = b"", 0, time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                some = one.recv(65536)
                answer += some
                if not some or b"\r\n\r\n" in answer:
                    break
            except BlockingIOError:
                pass
            except ConnectionResetError:
                break
            try:
                if at < len(rest):
                    at += one.send(rest[at : at + 65536])
                else:
                    time.sleep(0.001)
            except BlockingIOError:
                time.sleep(0.001)
            except (BrokenPipeError, ConnectionResetError):
                break
        return answer, at


HEAD = b"POST /v2.0/%s HTTP/1.1\r\nHost: 127.0.0.1\r\n%s\r\n\r\n"


def test_whom_no_role_allows_it_is_refused_without_a_byte_of_the_body(shared: Server) -> None:
    """The answer comes though not one byte of the announced body was sent."""
    for path, method in (
        (b"ports", b"POST"),
        (b"networks", b"POST"),
        (b"networks/%s" % SOMEWHERE.encode(), b"PUT"),
        (b"networks/%s/tags" % SOMEWHERE.encode(), b"PUT"),
        (b"routers/%s/add_extraroutes" % SOMEWHERE.encode(), b"PUT"),
    ):
        head = HEAD % (path, b"X-Roles: reader\r\nX-Project-Id: r\r\nContent-Length: 400000")
        answer, _ = spoken(shared.url, head.replace(b"POST", method, 1))
        assert answer.split(b" ")[1] == (b"403" if method == b"POST" else b"404"), (path, answer)


def test_hosts_endpoints_refuse_others_without_their_bodies(shared: Server) -> None:
    head = HEAD.replace(b"/v2.0/", b"/v1/") % (b"hosts/h/status", b"X-Roles: member\r\nContent-Length: 400000")
    assert spoken(shared.url, head)[0].startswith(b"HTTP/1.1 403")


def test_a_reader_who_may_see_it_is_forbidden_to_change_it(api: Api, reader: Api) -> None:
    network = api.make("network", shared=True)
    for method, path in (
        ("PUT", f"networks/{network['id']}"),
        ("PUT", f"networks/{network['id']}/tags"),
        ("DELETE", f"networks/{network['id']}/tags"),
    ):
        answer = reader.client.request(method, f"/v2.0/{path}", content=b"{nonsense")
        assert (answer.status_code, told(answer)["type"]) == (403, "PolicyNotAuthorized"), path
    api("DELETE", f"/v2.0/networks/{network['id']}")


def test_a_body_that_is_announced_too_large_is_not_read(shared: Server) -> None:
    for path, method, most in ((b"networks", b"POST", 16 << 20), (b"networks/x", b"PUT", 512 << 10)):
        head = (HEAD % (path, b"Content-Length: %d" % (most + 1))).replace(b"POST", method, 1)
        answer, _ = spoken(shared.url, head)
        assert answer.startswith(b"HTTP/1.1 413"), answer
        head = (HEAD % (path, b"Content-Length: " + b"9" * 18)).replace(b"POST", method, 1)
        assert spoken(shared.url, head)[0].startswith(b"HTTP/1.1 413")


def test_a_body_in_chunks_is_cut_at_the_limit(shared: Server) -> None:
    head = (HEAD % (b"networks/x", b"Transfer-Encoding: chunked")).replace(b"POST", b"PUT", 1)
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    answer, taken = spoken(shared.url, head, chunk * 1000)
    assert answer.startswith(b"HTTP/1.1 413"), answer
    assert taken < 32 << 20


@pytest.mark.parametrize("item", [b"{}", b"1", b"[]", b'{"a":{}}'])
def test_a_body_of_more_values_than_anyone_means_is_not_decoded(api: Api, item: bytes) -> None:
    many = b'{"ports":[' + b",".join([item] * (BULK_VALUES_MAX + 1)) + b"]}"
    answer = api.client.post("/v2.0/ports", content=many)
    assert answer.status_code == 413
    assert str(BULK_VALUES_MAX) in told(answer)["message"]
    one = b'{"port":{"binding:profile":{"a":[' + b",".join([item] * (VALUES_MAX + 1)) + b"]}}}"
    answer = api.client.put(f"/v2.0/ports/{SOMEWHERE}", content=one)
    assert answer.status_code == 413
    assert told(answer)["type"] == "RequestEntityTooLarge"


def test_one_thing_may_not_be_as_large_as_many(api: Api) -> None:
    answer = api.client.post("/v2.0/networks", json={"network": {"name": "n" * (600 << 10)}})
    assert answer.status_code == 413
    assert "network" in told(answer)["message"]


@pytest.mark.parametrize("count", [0, BULK_MAX + 1])
def test_a_bulk_has_from_one_to_so_many(api: Api, count: int) -> None:
    answer = api.client.post("/v2.0/networks", json={"networks": [{}] * count})
    assert answer.status_code == 400
    assert f"has {count} entries" in told(answer)["message"]


def test_each_of_a_bulk_is_checked_before_any_is_made(api: Api) -> None:
    name = uuid.uuid4().hex
    bodies = [{"name": name} for _ in range(80)]
    for wrong, says in (({"name": 5}, "name"), ({"colour": 1}, "colour"), (7, "dictionary")):
        answer = api.client.post("/v2.0/networks", json={"networks": [*bodies, wrong]})
        assert answer.status_code == 400
        assert says in told(answer)["message"]
        assert api("GET", f"/v2.0/networks?name={name}")["networks"] == []
    made = api("POST", "/v2.0/networks", {"networks": [*bodies, {"network": {"name": name}}]})["networks"]
    assert len(made) == len(api("GET", f"/v2.0/networks?name={name}")["networks"]) == 81
    for one in made:
        api("DELETE", f"/v2.0/networks/{one['id']}")


def test_the_settings_say_how_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROSSWAY_BODY", "1000")
    monkeypatch.setenv("CROSSWAY_BULK", "3000")
    server = Server(tmp_path)
    try:
        one = Api(server.url)
        network = one.make("network", description="d" * 200)
        assert one.client.put(f"/v2.0/networks/{network['id']}", content=b" " * 1001).status_code == 413
        assert one.client.post("/v2.0/networks", content=b" " * 3001).status_code == 413
        assert one.client.post("/v2.0/networks", json={"networks": [{"name": "n" * 200}] * 6}).status_code == 201
        one.client.close()
    finally:
        server.stop()


RED, BLUE, GREEN, HOST = Payer("red"), Payer("blue"), Payer("green"), Payer("h1", host=True)
MIB = 1 << 20


def test_one_projects_bodies_leave_room_for_others() -> None:
    held = Bodies(1, 1)
    scopes: dict[Payer, list[dict[str, Any]]] = defaultdict(list)

    def fill(who: Payer, each: int, most: int = 1000) -> int:
        """Hold bodies until no more are let in; return how much that was."""
        taken = 0
        with suppress(TooMany, Unavailable):
            for _ in range(most):
                scopes[who].append({})
                held.hold(scopes[who][-1], who, each)
                taken += each
        return taken

    filled = [fill(Payer(f"project {number}"), MIB // 4) for number in range(20)]
    assert filled[0] == held.project
    assert filled[1] > (8 << 20) + BULK_VALUES_MAX * VALUE_BYTES, "the largest of bodies"
    # However many have as much as they get, one with little under way, and a host, has room.
    assert fill(BLUE, MIB // 4) >= MIB
    assert fill(HOST, 2 * MIB) == held.host
    assert [fill(Payer(f"h{number}", host=True), 2 * MIB, 1) for number in range(2, 12)] == [2 * MIB] * 10
    with pytest.raises(TooMany):
        held.hold({}, HOST, 1)
    for scope in (scope for some in scopes.values() for scope in some):
        held.release(scope)
    assert (held.sum, held.of_projects, dict(held.held)) == (0, 0, {})


def test_a_project_has_half_of_what_the_others_leave() -> None:
    held = Bodies(1, 1, total=400, project=1000, host=100, assured=10)
    red: dict[str, Any] = {}
    held.hold(red, RED, 100)
    with pytest.raises(Unavailable):
        held.hold(red, RED, 101)
    held.hold({}, BLUE, 50)
    with pytest.raises(Unavailable):
        held.hold({}, GREEN, 26)
    held.release(red)
    held.hold({}, GREEN, 75)


def test_what_is_not_whole_counts_as_its_text() -> None:
    """Each comma is a value that is decoded, but only if the rest comes."""
    held, counts = Bodies(1 << 20, 1 << 20), []
    chunks = [b"[" + b"," * 999, b"," * 1000, b""]

    async def receive() -> Any:
        counts.append(held.held[RED])
        return {"type": "http.request", "body": chunks.pop(0), "more_body": bool(chunks)}

    async def main() -> None:
        scope = {"type": "http", "method": "POST", "headers": [], BODIES: held}
        await read(Request(scope, receive), RED)
        counts.append(held.held[RED])

    asyncio.run(main())
    assert counts == [0, 1000, 2000, 2000 + 2000 * VALUE_BYTES]


def test_a_host_reports_while_projects_send_slowly_what_never_ends(own: Server) -> None:
    """Eight projects hold as much as each gets; one with little, and a host, are answered."""
    api = Api(own.url)
    api("PUT", "/v1/hosts/h1", {"underlay": "192.0.2.1", "physnets": {}})
    host, port = own.url.removeprefix("http://").split(":")
    with ExitStack() as stack:
        for number in range(8):
            head = HEAD % (b"networks", b"X-Project-Id: p%d\r\nX-Roles: member\r\nContent-Length: 8000000" % number)
            for _ in range(8):
                one = stack.enter_context(closing(socket.create_connection((host, int(port)), timeout=10)))
                one.setblocking(False)
                one.send(head)
                with suppress(BlockingIOError, ConnectionError):
                    for _ in range(30):
                        one.send(b" " * 262_144)
                        time.sleep(0.002)
        said = {"X-User-Id": "h1", "X-Roles": "host"}
        report = {"applied": 0, "ports": {}}
        assert api.client.post("/v1/hosts/h1/status", json=report, headers=said).status_code == 200
        small = {"X-Project-Id": "small", "X-Roles": "member"}
        assert api.client.post("/v2.0/networks", json={"network": {}}, headers=small).status_code == 201
    api.client.close()


def test_one_of_a_bulk_may_not_be_larger_than_one_alone(api: Api) -> None:
    answer = api.client.post("/v2.0/networks", json={"networks": [{}, {"name": "n" * (600 << 10)}]})
    assert answer.status_code == 413
    assert "One network has" in told(answer)["message"]


def test_others_are_answered_while_a_reader_sends_much(shared: Server, api: Api) -> None:
    """30 MiB of a reader, sent as fast as it goes, keep nobody waiting."""
    body = b'{"ports":[' + b",".join([b"{}"] * (10 << 20)) + b"]}"
    head = HEAD % (b"ports", b"X-Roles: reader\r\nX-Project-Id: r\r\nContent-Length: %d" % len(body))
    answers: list[bytes] = []
    sender = threading.Thread(target=lambda: answers.extend(spoken(shared.url, head, body)[0] for _ in range(3)))
    sender.start()
    answered = 0
    while sender.is_alive():
        assert api.client.get("/v2.0/networks?limit=1").status_code == 200
        answered += 1
    sender.join()
    assert [answer[:12] for answer in answers] == [b"HTTP/1.1 403"] * 3
    assert answered


def test_a_list_of_the_issue_is_refused_at_once(api: Api) -> None:
    pairs = [{"ip_address": f"10.{n >> 8}.{n & 255}.1"} for n in range(4000)]
    body = json.dumps({"port": {"network_id": SOMEWHERE, "allowed_address_pairs": pairs}})
    answer = api.client.post("/v2.0/ports", content=body)
    assert (answer.status_code, told(answer)["type"]) == (400, "AddressPairExhausted")
    assert "allowed_address_pairs" in told(answer)["message"]
    assert "4000" in told(answer)["message"]
    assert "256" in told(answer)["message"]


# ---- What is deep


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def every(collections: tuple[Collection, ...], base: str) -> Iterator[tuple[str, str, str, str]]:
    """Return each way to send a body: method, path, and what stands around a value of it."""
    for collection in collections:
        kind, path = collection.kind, f"{base}/{path_of(collection)}"
        around = f'{{"{kind.name}": {{"name": '
        if collection.create:
            yield "POST", path, around, "}}"
            yield "POST", path, f'{{"{kind.plural}": [{{"name": ', "}]}"
            yield "POST", path, f'{{"{kind.plural}": [{{}}, {{"name": ', "}]}"
        if collection.update:
            yield "PUT", f"{path}/{SOMEWHERE}", around, "}}"
        for name, action in collection.actions.items():
            if action.method != "GET":
                yield action.method, f"{path}/{SOMEWHERE}/{name}", '{"a": ', "}"
        if "tags" in kind.attributes:
            yield "PUT", f"{path}/{SOMEWHERE}/tags", '{"tags": ', "}"
            yield "POST", f"{path}/{SOMEWHERE}/tags", '{"tags": ', "}"
        yield from every(collection.children, f"{path}/{SOMEWHERE}")


HOSTS = [
    ("PUT", "/v1/hosts/h"),
    *(("POST", f"/v1/hosts/h/{name}") for name in ("status", "handover", "learned", "taken")),
]


def test_what_is_deep_is_refused_wherever_a_body_is_taken(api: Api) -> None:
    ways = [*every(COLLECTIONS, "/v2.0"), *((method, path, '{"applied": ', "}") for method, path in HOSTS)]
    assert len(ways) > 80
    for method, path, before, after in ways:
        for depth in (DEPTH_MAX, 960, 1100, 20_000):
            answer = api.client.request(method, path, content=before + nested(depth) + after)
            assert answer.status_code == 400, (method, path, depth, answer.text)
            # The first of several may be wrong already.
            assert "[{}," in before or "deep" in answer.text or "JSON" in answer.text, (method, path, answer.text)


@pytest.mark.parametrize("depth", [DEPTH_MAX, 960, 1100])
def test_a_member_is_told_so_of_its_own(api: Api, depth: int) -> None:
    """Whose words rules are for, those of the parts of an action's body, are looked for in depth."""
    red = {"X-Project-Id": "red", "X-Roles": "member"}
    router = api("POST", "/v2.0/routers", {"router": {}}, headers=red)["router"]["id"]
    for name in ("add_external_gateways", "update_external_gateways", "add_router_interface", "add_extraroutes"):
        body = f'{{"router": {{"external_gateways": {nested(depth)}}}}}'
        answer = api.client.put(f"/v2.0/routers/{router}/{name}", content=body, headers=red)
        assert answer.status_code == 400, (name, answer.text)
    api("DELETE", f"/v2.0/routers/{router}", headers=red)


def test_what_is_not_that_deep_is_taken(api: Api) -> None:
    network = api.make("network")
    port = api.make("port", network_id=network["id"])
    deep = json.loads(f'{{"a": {nested(DEPTH_MAX - 4)}}}')
    api("PUT", f"/v2.0/ports/{port['id']}", {"port": {"binding:profile": deep}})
    assert api("GET", f"/v2.0/ports/{port['id']}")["port"]["binding:profile"] == deep
    api("DELETE", f"/v2.0/ports/{port['id']}")
    api("DELETE", f"/v2.0/networks/{network['id']}")
