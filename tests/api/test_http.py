"""The Networking API over raw HTTP: shapes, status codes, errors, lists."""

from __future__ import annotations

import re
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import pytest

from servers import Api, Server

RULE = {"security_group_id": "nobody", "direction": "ingress"}


@pytest.fixture
def alice(shared: Server) -> Iterator[Api]:
    """A tenant that nobody else is."""
    made = Api(shared.url, **{"X-Project-Id": f"alice-{uuid.uuid4().hex[:8]}", "X-Roles": "member"})
    yield made
    made.client.close()


def listed(api: Api, path: str) -> list[dict[str, Any]]:
    body = api("GET", f"/v2.0/{path}")
    found: list[dict[str, Any]] = next(iter(body.values()))
    return found


def test_the_root_tells_where_the_version_is(api: Api) -> None:
    (version,) = api("GET", "/")["versions"]
    assert (version["id"], version["status"]) == ("v2.0", "CURRENT")
    assert version["links"][0]["href"] == f"{api.client.base_url}/v2.0/"
    assert api("GET", "/v2.0")["version"]["id"] == "v2.0"
    assert {r["collection"] for r in api("GET", "/v2.0/")["resources"]} >= {"networks", "ports"}


def test_extensions_are_those_that_work(api: Api) -> None:
    aliases = {e["alias"] for e in api("GET", "/v2.0/extensions")["extensions"]}
    assert {"router", "security-group", "provider", "binding", "external-net", "extraroute"} <= aliases
    assert not aliases & {"bgp", "fwaas_v2", "taas", "vpnaas"}
    assert api("GET", "/v2.0/extensions/router")["extension"]["alias"] == "router"
    api.error("GET", "/v2.0/extensions/vpnaas", want=404)


def test_a_life_of_a_network(alice: Api) -> None:
    network = alice.make("network", name="n", description="d")
    assert (network["name"], network["status"], network["mtu"], network["subnets"]) == ("n", "ACTIVE", 1450, [])
    assert network["project_id"] == network["tenant_id"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", network["created_at"])
    subnet = alice.make("subnet", network_id=network["id"], ip_version=4, cidr="10.0.0.0/24")
    path = f"/v2.0/networks/{network['id']}"
    assert alice("GET", path)["network"]["subnets"] == [subnet["id"]]
    changed = alice("PUT", path, {"network": {"name": "m", "admin_state_up": False}})["network"]
    assert (changed["name"], changed["admin_state_up"], changed["revision_number"]) == ("m", False, 3)
    assert alice("GET", path)["network"] == changed
    alice("DELETE", path)
    assert alice.error("GET", path, want=404)["type"] == "NetworkNotFound"
    assert alice.error("GET", f"/v2.0/subnets/{subnet['id']}", want=404)["type"] == "SubnetNotFound"


def test_an_answer_has_a_request_id(api: Api) -> None:
    ids = {api.client.get(path).headers["x-openstack-request-id"] for path in ("/", "/v2.0/ports/x")}
    assert len(ids) == 2
    assert all(id.startswith("req-") for id in ids)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "says"),
    [
        ("POST", "networks", {"network": {"mtu": "many"}}, 400, ["mtu", "many", "integer"]),
        ("POST", "networks", {"network": {"colour": "red"}}, 400, ["colour"]),
        ("POST", "networks", {"net": {}}, 400, ["network"]),
        ("POST", "networks", {"networks": []}, 400, ["networks"]),
        ("POST", "networks", [], 400, ["network"]),
        ("POST", "subnets", {"subnet": {"cidr": "10.0.0.0"}}, 400, ["cidr", "10.0.0.0", "ADDRESS/LENGTH"]),
        ("POST", "ports", {"port": {}}, 400, ["network_id"]),
        ("GET", "ports?colour=red", None, 400, ["colour"]),
        ("GET", "ports?limit=x", None, 400, ["x"]),
        ("GET", "ports?limit=-1", None, 400, ["-1"]),
        ("GET", "ports?sort_key=colour", None, 400, ["colour"]),
        ("GET", "ports?sort_key=id&sort_dir=up", None, 400, ["up", "asc", "desc"]),
        ("GET", "ports?admin_state_up=perhaps", None, 400, ["perhaps"]),
        ("GET", "ports?fixed_ips=nonsense", None, 400, ["fixed_ips"]),
        ("GET", "ports?limit=1&marker=nobody", None, 404, ["nobody"]),
        ("GET", "ports/nobody", None, 404, ["nobody"]),
        ("PUT", "ports/nobody", {"port": {}}, 404, ["nobody"]),
        ("DELETE", "ports/nobody", None, 404, ["nobody"]),
        ("GET", "unicorns", None, 404, ["unicorns"]),
        ("PUT", "routers/nobody/fly", {}, 404, ["fly"]),
        ("PATCH", "networks", {}, 405, ["PATCH"]),
        ("POST", "networks", {"network": {"name": "two\nlines"}}, 400, ["name", "printable"]),
        ("POST", "networks", {"network": {"name": "n" * 256}}, 400, ["name", "255"]),
    ],
)
def test_errors_name_what_is_wrong(api: Api, method: str, path: str, body: Any, status: int, says: list[str]) -> None:
    told = api.error(method, f"/v2.0/{path}", body, want=status)
    for word in says:
        assert word in told["message"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "type"),
    [
        ("POST", "networks", {"network": {"admin_state_up": "perhaps"}}, 400, "InvalidInput"),
        ("POST", "networks", {"network": {"name": 5}}, 400, "HTTPBadRequest"),
        ("POST", "security-group-rules", {"security_group_rule": RULE}, 404, "SecurityGroupNotFound"),
        ("GET", "networks?limit=x", None, 400, "BadRequest"),
        ("GET", "networks?limit=1&marker=x", None, 404, "NetworkNotFound"),
        ("GET", "networks?shared=perhaps", None, 400, "InvalidInput"),
        ("GET", "networks?mtu=x", None, 400, "InvalidInput"),
        ("GET", "ports?fixed_ips=x", None, 400, "InvalidInput"),
        ("GET", "agents?limit=1&marker=x", None, 404, "AgentNotFound"),
        ("GET", "unicorns", None, 404, "HTTPNotFound"),
        ("PUT", "networks", {}, 405, "HTTPMethodNotAllowed"),
    ],
)
def test_errors_have_the_names_that_clients_know(
    api: Api, method: str, path: str, body: Any, status: int, type: str
) -> None:
    assert api.error(method, f"/v2.0/{path}", body, want=status)["type"] == type


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("application/json", 200),
        ("text/html, application/xhtml+xml, */*;q=0.8", 200),
        ("application/*", 200),
        ("", 200),
        ("application/xml", 406),
        ("text/plain", 406),
    ],
)
def test_who_takes_no_json_is_told_so(api: Api, accept: str, status: int) -> None:
    answer = api.client.get("/v2.0/networks?limit=1", headers={"accept": accept})
    assert answer.status_code == status
    if status == 406:
        assert answer.json()["NeutronError"]["type"] == "HTTPNotAcceptable"


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"network": ' + b"[" * 100_000])
def test_a_body_that_is_no_json_is_refused(api: Api, content: bytes) -> None:
    answer = api.client.post("/v2.0/networks", content=content)
    assert answer.status_code == 400
    assert "JSON" in answer.json()["NeutronError"]["message"]


@pytest.mark.parametrize(
    ("origin", "host", "status"),
    [
        ("http://{own}", "{own}", 201),
        ("http://localhost:1", "localhost:1", 201),
        ("https://evil.example", "{own}", 403),
        ("http://evil.example:1", "evil.example:1", 403),  # a name that was made to lead here
        ("null", "{own}", 403),
        ("http://[", "[", 403),
    ],
)
def test_web_pages_of_others_are_not_believed(api: Api, origin: str, host: str, status: int) -> None:
    own = api.client.base_url.netloc.decode()
    headers = {"Origin": origin.format(own=own), "Host": host.format(own=own), "Content-Type": "text/plain"}
    answer = api.client.post("/v2.0/networks", content=b'{"network": {}}', headers=headers)
    assert answer.status_code == status
    if status == 403:
        assert answer.json()["NeutronError"]["type"] == "Forbidden"
        assert origin.format(own=own) in answer.text


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("{own}", 200),
        ("127.0.0.1", 200),
        ("localhost", 200),
        ("LocalHost.:9696", 200),
        ("[::1]:9696", 200),
        ("192.0.2.7", 200),
        (socket.gethostname(), 200),
        ("evil.example", 421),
        ("evil.example:9696", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost.evil.example", 421),
        ("evil.example@127.0.0.1", 421),
        ("127.0.0.1@evil.example", 421),
        ("127.0.0.1/evil.example", 421),
        ("evil.example#127.0.0.1", 421),
        ("[evil.example]", 421),
        ("2130706433", 421),
        ("0x7f.1", 421),
        ("", 421),
    ],
)
@pytest.mark.parametrize("path", ["/", "/v2.0/networks", "/v1/hosts"])
def test_a_name_that_was_made_to_lead_here_is_not_answered(api: Api, host: str, status: int, path: str) -> None:
    own = api.client.base_url.netloc.decode()
    answer = api.client.get(path, headers={"Host": host.format(own=own)})
    assert answer.status_code == status
    if status != 200:
        assert "CROSSWAY_NAMES" in answer.text
        assert host in answer.text


def test_a_request_that_names_no_host_or_two_is_not_answered(shared: Server) -> None:
    for head, status in (
        (b"GET / HTTP/1.1\r\n", b"421"),
        (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n", b"421"),
        (b"GET / HTTP/1.0\r\nHost: evil.example\r\n", b"421"),
        (b"GET / HTTP/1.0\r\n", b"200"),  # as balancers ask whether it lives
        (b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n", b"421"),
    ):
        host, port = shared.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as one:
            one.sendall(head + b"\r\n")
            assert one.recv(65536).split(b" ")[1] == status, head


def test_the_settings_name_further_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROSSWAY_NAMES", "cloud.example, Other.example.")
    server = Server(tmp_path)
    try:
        with httpx.Client(base_url=server.url, transport=httpx.HTTPTransport()) as client:
            for host, status in (("cloud.example:9696", 200), ("OTHER.example", 200), ("evil.example", 421)):
                assert client.get("/v2.0/networks", headers={"Host": host}).status_code == status
            body, headers = b'{"network": {}}', {"Host": "cloud.example", "Origin": "http://cloud.example"}
            assert client.post("/v2.0/networks", content=body, headers=headers).status_code == 201
            headers["Origin"] = "http://evil.example"
            assert client.post("/v2.0/networks", content=body, headers=headers).status_code == 403
    finally:
        server.stop()


@pytest.mark.parametrize(
    "path",
    [
        "/v1%2fhosts",
        "/v1%2Fhosts",
        "/v1/hosts%2f",
        "/v1/%68osts",
        "/%76%31/hosts",
        "/v1%2fstatus",
        "/v1/hosts/h%2Fview",
        "/v1/hosts%2fh/view",
        "/v1/hosts/%ff",
        "/v2.0%2fnetworks",
        "/v2.0/networks%2Fx",
        "/v2.0/networks/%ff",
        "/v2%2e0/networks",
        "/v2.0/../v1/hosts",
        "/v2.0/%2e%2e/v1/hosts",
        "/v1/hosts%00",
        "/v1/hosts;x",
        "/v1\\hosts",
    ],
)
def test_an_encoded_slash_is_no_step_of_a_path(shared: Server, path: str) -> None:
    host, port = shared.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as one:
        one.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode("latin-1"))
        assert one.recv(65536).split(b" ")[1] == b"404"


def test_an_encoded_slash_is_part_of_a_name(api: Api) -> None:
    network = api.make("network")
    told = api.error("GET", f"/v2.0/networks/{network['id']}%2Ftags", want=404)
    assert f"{network['id']}/tags" in told["message"]
    api("PUT", f"/v2.0/networks%2F{network['id']}", {"network": {"name": "n"}}, 404)
    api("DELETE", f"/v2.0/networks/{network['id']}")


def test_a_host_may_have_any_name_but_a_slash(api: Api) -> None:
    body = {"underlay": "192.0.2.201", "physnets": {}, "version": "test"}
    assert api("PUT", "/v1/hosts/r%C3%A4ck%201", body)["name"] == "räck 1"
    assert api("GET", "/v1/hosts/r%C3%A4ck%201")["name"] == "räck 1"
    api("DELETE", "/v1/hosts/r%C3%A4ck%201")
    answer = api.client.put("/v1/hosts/a%2Fb", json=body)
    assert answer.status_code == 400
    assert "slash" in answer.json()["error"]["message"]


def test_tenants_do_not_see_what_admins_do(api: Api, alice: Api) -> None:
    network = alice.make("network")
    port = alice.make("port", network_id=network["id"])
    assert not {name for name in network if name.startswith("provider:")}
    assert {name for name in port if name.startswith("binding:")} == {"binding:vnic_type"}
    shown = api("GET", f"/v2.0/ports/{port['id']}")["port"]
    assert shown["binding:vif_type"] == "unbound"
    assert api("GET", f"/v2.0/networks/{network['id']}")["network"]["provider:network_type"] == "vxlan"
    body = {"port": {"binding:host_id": "h1"}}
    assert alice.error("PUT", f"/v2.0/ports/{port['id']}", body, want=403)["type"] == "PolicyNotAuthorized"
    api("PUT", f"/v2.0/ports/{port['id']}", body)
    assert [p["id"] for p in alice("GET", "/v2.0/ports?binding:host_id=h1")["ports"]] == [port["id"]]


def test_tenants_see_their_own_and_what_is_shared(api: Api, alice: Api, shared: Server) -> None:
    own, hidden = alice.make("network", name="own"), api.make("network", name="hidden")
    common = api.make("network", name="common", shared=True)
    seen = {n["id"] for n in listed(alice, "networks")}
    assert {own["id"], common["id"]} <= seen
    assert hidden["id"] not in seen
    alice.error("GET", f"/v2.0/networks/{hidden['id']}", want=404)
    alice.error("DELETE", f"/v2.0/networks/{common['id']}", want=403)
    assert {n["project_id"] for n in listed(alice, "networks?shared=false")} == {own["project_id"]}
    assert listed(alice, f"networks?id={hidden['id']}") == []


def test_hosts_are_not_the_business_of_tenants(alice: Api) -> None:
    for path in ("/v1/hosts", "/v1/status", "/v1/hosts/h1/view"):
        assert alice("GET", path, want=403)["error"]["type"] == "PolicyNotAuthorized"


def test_a_project_finds_its_default_group(alice: Api) -> None:
    (group,) = listed(alice, "security-groups")
    assert group["name"] == "default"
    assert len(group["security_group_rules"]) == 4
    assert len(listed(alice, "security-group-rules")) == 4


@pytest.fixture
def ten(alice: Api) -> list[dict[str, Any]]:
    """Ten ports of one network, p0 to p9; odd ones are down."""
    network = alice.make("network")
    alice.make("subnet", network_id=network["id"], ip_version=4, cidr="10.0.0.0/24")
    bodies = [
        {"network_id": network["id"], "name": f"p{i}", "admin_state_up": i % 2 == 0, "device_id": f"vm{i // 5}"}
        for i in range(10)
    ]
    made: list[dict[str, Any]] = alice("POST", "/v2.0/ports", {"ports": bodies})["ports"]
    return made


@pytest.mark.parametrize(
    ("query", "want"),
    [
        ("name=p3", "3"),
        ("name=p3&name=p4", "34"),
        ("admin_state_up=False&device_id=vm0", "13"),
        ("fixed_ips=ip_address%3D10.0.0.2", "0"),
        ("fixed_ips=ip_address_substr%3D.0.1", "89"),
        ("status=ACTIVE", ""),
        ("status=DOWN&limit=3&sort_key=name", "012"),
        ("sort_key=name&sort_dir=desc&limit=2", "98"),
        ("sort_key=admin_state_up&sort_key=name&sort_dir=asc&sort_dir=desc", "9753186420"),
        ("device_owner=&name=p1", "1"),
        ("tenant_id=nobody", ""),
        ("revision_number=1&name=p1", "1"),
    ],
)
def test_filters_and_order(alice: Api, ten: list[dict[str, Any]], query: str, want: str) -> None:
    found = [p["name"][1:] for p in listed(alice, f"ports?network_id={ten[0]['network_id']}&{query}")]
    assert "".join(found if "sort_key" in query else sorted(found)) == want


def test_fields(alice: Api, ten: list[dict[str, Any]]) -> None:
    (found,) = listed(alice, "ports?name=p1&fields=id&fields=name,status")
    assert found == {"id": ten[1]["id"], "name": "p1", "status": "DOWN"}
    assert alice("GET", f"/v2.0/ports/{ten[1]['id']}?fields=name") == {"port": {"name": "p1"}}


@pytest.mark.parametrize("query", ["", "&sort_key=id&sort_dir=desc", "&sort_key=name", "&name=p1&name=p2&name=p3"])
def test_pages_lead_to_each_other(alice: Api, ten: list[dict[str, Any]], query: str) -> None:
    whole = [p["id"] for p in listed(alice, f"ports?limit=1000{query}")]
    assert set(whole) <= {p["id"] for p in ten}
    forth, url = [], f"/v2.0/ports?limit=3{query}"
    pages = []
    while url:
        page = alice("GET", url)
        forth += [p["id"] for p in page["ports"]]
        links = {link["rel"]: link["href"] for link in page.get("ports_links", [])}
        pages.append(page["ports"])
        url = links.get("next")
    assert forth == whole
    back = pages[-1]
    while "previous" in links:
        page = alice("GET", links["previous"])
        links = {link["rel"]: link["href"] for link in page.get("ports_links", [])}
        back = page["ports"] + back
    assert [p["id"] for p in back] == whole


def test_after_a_last_page_that_is_full_an_empty_one_leads_back(alice: Api, ten: list[dict[str, Any]]) -> None:
    last = alice("GET", f"/v2.0/ports?limit=5&marker={sorted(p['id'] for p in ten)[4]}")
    links = {link["rel"]: link["href"] for link in last["ports_links"]}
    assert len(last["ports"]) == 5
    empty = alice("GET", links["next"])
    assert empty["ports"] == []
    assert [link["rel"] for link in empty["ports_links"]] == ["previous"]
    assert alice("GET", empty["ports_links"][0]["href"])["ports"] == last["ports"]
    assert "ports_links" not in alice("GET", "/v2.0/ports")


def test_bulk_is_all_or_nothing(alice: Api) -> None:
    network = alice.make("network")
    alice.make("subnet", network_id=network["id"], ip_version=4, cidr="10.0.0.0/29")
    bodies = [{"network_id": network["id"]} for _ in range(6)]
    told = alice.error("POST", "/v2.0/ports", {"ports": bodies}, want=409)
    assert told["type"] == "IpAddressGenerationFailure"
    assert listed(alice, "ports") == []
    made = alice("POST", "/v2.0/ports", {"ports": bodies[:5]})["ports"]
    assert sorted(p["fixed_ips"][0]["ip_address"] for p in made) == [f"10.0.0.{i}" for i in range(2, 7)]
    # Each may be in a body of its own.
    bodies = [{"network": {"name": "c"}}, {"name": "d"}]
    assert [n["name"] for n in alice("POST", "/v2.0/networks", {"networks": bodies})["networks"]] == ["c", "d"]
    bodies = [{"name": "a"}, {"name": "b", "mtu": "x"}]
    alice.error("POST", "/v2.0/networks", {"networks": bodies}, want=400)
    assert len(listed(alice, "networks?name=a")) == 0


def test_if_match(alice: Api) -> None:
    path = f"/v2.0/networks/{alice.make('network')['id']}"
    right, wrong = {"If-Match": "revision_number=1"}, {"If-Match": "revision_number=7"}
    body = {"network": {"name": "x"}}
    assert alice.error("PUT", path, body, want=412, headers=wrong)["type"] == "RevisionNumberConstraintFailed"
    alice("PUT", path, body, headers=right)
    alice.error("DELETE", path, want=412, headers=right)
    for said in ("revision_number=", "revision_number=x"):
        assert alice.error("DELETE", path, want=400, headers={"If-Match": said})["type"] == "BadRequest"
    for other in ("*", '"an-etag-of-another"', 'W/"x", "revision_number=2"'):
        assert alice("PUT", path, body, headers={"If-Match": other})["network"]["revision_number"] == 2
    alice("DELETE", path, headers={"If-Match": "revision_number=2"})


def test_a_put_that_changes_nothing_is_no_revision(alice: Api) -> None:
    path = f"/v2.0/networks/{alice.make('network', name='n')['id']}"
    made = alice("GET", path)["network"]
    for body in ({}, {"name": "n"}, {"name": "n", "admin_state_up": "true", "description": ""}):
        assert alice("PUT", path, {"network": body})["network"] == made
    assert alice("PUT", path, {"network": {"name": "m"}})["network"]["revision_number"] == 2


def test_ids_are_taken_in_upper_case_too(alice: Api) -> None:
    network = alice.make("network")
    id = network["id"].upper()
    assert alice("GET", f"/v2.0/networks/{id}")["network"] == network
    assert listed(alice, f"networks?id={id}") == [network]
    port = alice.make("port", network_id=id)
    assert port["network_id"] == network["id"]
    alice("DELETE", f"/v2.0/ports/{port['id'].upper()}")


def test_tags(alice: Api) -> None:
    one, other = alice.make("network", name="one"), alice.make("network", name="other")
    path = f"/v2.0/networks/{one['id']}/tags"
    assert alice("PUT", path, {"tags": ["red", "blue"]}) == {"tags": ["blue", "red"]}
    alice("PUT", f"{path}/green", want=201)
    alice("GET", f"{path}/green", want=204)
    alice("DELETE", f"{path}/red")
    alice.error("DELETE", f"{path}/red", want=404)
    assert alice("GET", path) == {"tags": ["blue", "green"]}
    alice("PUT", f"/v2.0/networks/{other['id']}/tags", {"tags": ["blue"]})
    for query, want in (
        ("tags=blue,green", ["one"]),
        ("tags-any=green,blue", ["one", "other"]),
        ("not-tags=blue,green", ["other"]),
        ("not-tags-any=green", ["other"]),
    ):
        assert sorted(n["name"] for n in listed(alice, f"networks?{query}&name=one&name=other")) == want
    alice("DELETE", path)
    assert alice("GET", path) == {"tags": []}
    for wrong in (["x" * 256], ["a", "a"], [1], "a", None, [str(number) for number in range(51)]):
        assert "tags" in alice.error("PUT", path, {"tags": wrong}, want=400)["message"]
    alice.error("PUT", path, {"tag": []}, want=400)
    alice("POST", path, {"tags": [str(number) for number in range(50)]})
    alice.error("PUT", f"{path}/one-more", want=400)
    alice("PUT", f"{path}/49", want=201)


@pytest.mark.parametrize("tag", ["black.or.white", "a.json", "a%2Fb", "%C3%A4 b", "tags"])
def test_a_tag_may_look_like_anything(alice: Api, tag: str) -> None:
    path = f"/v2.0/networks/{alice.make('network')['id']}/tags"
    alice("PUT", f"{path}/{tag}", want=201)
    alice("GET", f"{path}/{tag}", want=204)
    assert alice("GET", path) == {"tags": [unquote(tag)]}
    alice("DELETE", f"{path}/{tag}")
    assert alice("GET", path) == {"tags": []}


def test_status_counts(api: Api) -> None:
    before = api("GET", "/v1/status")
    api.make("network")
    after = api("GET", "/v1/status")
    assert after["revision"] > before["revision"]
    assert after["counts"]["network"] == before["counts"]["network"] + 1
