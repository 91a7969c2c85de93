"""What a host's own credential may do: every endpoint, for itself and for all that is not its own."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from api.policy_stock import ACTIONS, MAKE, NAMES, OTHER, OWNER, THERE, Stock, make, wire
from servers import Api, Host

REFUSED = {403, 404}
numbers = itertools.count()
Ask = Callable[..., tuple[int, Any]]


CLIENTS: dict[tuple[str, ...], Api] = {}


def caller(url: str, host: str, *projects: str) -> Api:
    key = (url, host, ",".join(projects))
    if key not in CLIENTS:
        CLIENTS[key] = Api(url, **{"X-Roles": "host", "X-User-Id": host, "X-Project-Id": key[2]})
    return CLIENTS[key]


@pytest.fixture(scope="module", autouse=True)
def _closed() -> Iterator[None]:
    yield
    while CLIENTS:
        CLIENTS.popitem()[1].client.close()


@pytest.fixture
def pair(stock: Stock) -> tuple[Host, Host]:
    """Two living hosts."""
    made = [Host(stock.admin, f"cred-{next(numbers)}") for _ in range(2)]
    for one in made:
        one.report()
    return made[0], made[1]


def status(api: Api, method: str, path: str, body: Any = None) -> int:
    return int(api.client.request(method, path, json=body).status_code)


@pytest.mark.parametrize("name", [name for name in NAMES if name in MAKE or name in THERE])
@pytest.mark.parametrize("projects", [(), (OTHER,)], ids=["of no project", "of another project"])
def test_a_host_has_nothing_in_the_networking_api_that_is_of_others(
    stock: Stock, name: str, projects: tuple[str, ...]
) -> None:
    host = caller(stock.url, "stranger", *projects)
    at, collection = make(stock, name, OWNER), NAMES[name]
    path, id = at.path, at.id
    got = []
    if id and collection.show is None:
        got.append(("GET", status(host, "GET", f"/v2.0/{path}")))
    if collection.update:
        body = {"name": "mine", "description": "mine"} if "name" in collection.kind.attributes else {}
        got.append(("PUT", status(host, "PUT", f"/v2.0/{path}", {collection.kind.name: body})))
    if collection.create and name in MAKE:
        where, asked = MAKE[name](stock, OWNER)
        got.append(("POST", status(host, "POST", f"/v2.0/{where}", {wire(name): {**asked, "project_id": OWNER}})))
        got.append(("POST", status(host, "POST", f"/v2.0/{where}", {wire(name): asked})))
    if collection.delete:
        got.append(("DELETE", status(host, "DELETE", f"/v2.0/{path}")))
    for action in collection.actions:
        rule = next((rule for rule in ACTIONS if rule.split(":")[0] == action), None)
        asked = ACTIONS[rule](stock, at) if rule else None
        method = collection.actions[action].method
        got.append((action, status(host, method, f"/v2.0/{path}/{action}", asked)))
    if "tags" in collection.kind.attributes:
        got.append(("tag", status(host, "PUT", f"/v2.0/{path}/tags/mine")))
    if name == "network_segment_range":
        # Networks are numbered from ranges of their project's: leave none.
        stock.admin("DELETE", f"/v2.0/{path}")
    assert [one for one in got if one[1] not in {*REFUSED, 400}] == [], f"a host may do these to a {name} of {OWNER}"
    if id and not collection.within:
        answer = host.client.get(f"/v2.0/{path.rpartition('/')[0]}?id={id}")
        assert answer.status_code in REFUSED or id not in answer.text


V1 = [
    ("PUT", "", {"underlay": "192.0.2.77"}),
    ("GET", "", None),
    ("GET", "/view?after=0", None),
    ("POST", "/status", {"applied": 1, "ports": {}}),
    ("POST", "/handover", {"port": "p", "flows": ""}),
    ("POST", "/taken", {"port": "p"}),
    ("POST", "/learned", {"port": "p", "ip": "10.0.0.1", "mac": "02:00:00:00:00:01"}),
    ("DELETE", "", None),
]


@pytest.mark.parametrize(("method", "path", "body"), V1)
def test_a_host_speaks_for_itself_alone(
    stock: Stock, pair: tuple[Host, Host], method: str, path: str, body: Any
) -> None:
    one, other = pair
    for projects in ((), (OWNER,), ("*",)):
        host = caller(stock.url, one.name, *projects)
        assert status(host, method, f"/v1/hosts/{other.name}{path}", body) == 403
        assert status(host, method, f"/v1/hosts/nobody{path}", body) == 403
    assert stock.admin("GET", f"/v1/hosts/{other.name}")["underlay"] == other.underlay


@pytest.mark.parametrize(("method", "path", "body"), [*V1, ("GET", "s", None)])
@pytest.mark.parametrize("role", ["service", "member", "reader", "manager", "host"])
def test_who_is_no_host_has_no_part_in_what_hosts_say(
    stock: Stock, pair: tuple[Host, Host], role: str, method: str, path: str, body: Any
) -> None:
    if (role,) not in CLIENTS:
        CLIENTS[role,] = Api(stock.url, **{"X-Roles": role, "X-Project-Id": OWNER})
    who = CLIENTS[role,]
    where = "/v1/hosts" if path == "s" else f"/v1/hosts/{pair[0].name}{path}"
    answer = who.client.request(method, where, json=body)
    assert answer.status_code == 403
    assert ("crossway user set" in answer.text) == (role == "service" and method != "DELETE")


def test_a_host_registers_follows_and_reports_for_itself(stock: Stock) -> None:
    api = caller(stock.url, "cred-own")
    one = Host(api, "cred-own")
    one.report()
    assert api("GET", "/v1/hosts/cred-own")["alive"]
    rows = {row["name"]: row for row in api("GET", "/v1/hosts")["hosts"]}
    assert rows["cred-own"]["underlay"] == one.underlay
    assert rows["h1"].keys() == {"name", "alive"}, "of others it hears whether they live"
    assert status(api, "GET", "/v1/status") == 403
    assert status(api, "GET", "/v1/handovers/p") == 403


def test_two_hosts_have_not_one_underlay_address(stock: Stock, pair: tuple[Host, Host]) -> None:
    one, other = pair
    host = caller(stock.url, one.name)
    for same in (other.underlay, f"::ffff:{other.underlay}"):
        answer = host.client.put(f"/v1/hosts/{one.name}", json={"underlay": same})
        assert answer.status_code == 409
        assert answer.json()["error"]["type"] == "UnderlayInUse"
        assert other.name in answer.text
    moved = "203.0.113.77"
    assert host("PUT", f"/v1/hosts/{one.name}", {"underlay": moved})["underlay"] == moved
    assert host("PUT", f"/v1/hosts/{one.name}", {"underlay": moved})["underlay"] == moved
    # What it left is free.
    them = caller(stock.url, other.name)
    assert them("PUT", f"/v1/hosts/{other.name}", {"underlay": one.underlay})["underlay"] == one.underlay
    stock.admin("DELETE", f"/v1/hosts/{one.name}")
    assert them("PUT", f"/v1/hosts/{other.name}", {"underlay": moved})["underlay"] == moved


@pytest.mark.parametrize("underlay", ["224.0.0.1", "0.0.0.0", "::", "ff02::1", "255.255.255.255", "::ffff:224.0.0.1"])
def test_an_underlay_address_is_one_hosts(stock: Stock, underlay: str) -> None:
    assert "underlay" in stock.admin("PUT", "/v1/hosts/nowhere", {"underlay": underlay}, 400)["error"]["message"]


# ---- ports


def port(stock: Stock, **more: Any) -> str:
    """Make a port of OWNER, on a network of its own."""
    network = stock.network(OWNER)
    stock.subnet(OWNER, network)
    return stock.port(OWNER, network, **more)


def shown(stock: Stock, id: str) -> dict[str, Any]:
    found: dict[str, Any] = stock.admin("GET", f"/v2.0/ports/{id}")["port"]
    return found


CHANGES = [
    {"port_security_enabled": False, "security_groups": []},
    {"port_security_enabled": False},
    {"security_groups": []},
    {"allowed_address_pairs": [{"ip_address": "10.0.0.0/8"}]},
    {"admin_state_up": False},
    {"name": "mine"},
    {"mac_address": "02:00:00:00:00:99"},
    {"fixed_ips": []},
    {"binding:profile": {"vlan": 5}},
    {"binding:vnic_type": "baremetal"},
    {"device_owner": "container:cni"},
    {"device_owner": "network:dhcp"},
    {"device_owner": "host:attached"},
    {"extra_dhcp_opts": []},
    {"dns_name": "mine"},
    {"qos_policy_id": None},
    {"binding:host_id": "h1"},
]


@pytest.mark.parametrize("projects", [(), (OTHER,), (OWNER,), ("*",)], ids=str)
@pytest.mark.parametrize("where", ["its own", "another", "none", "waiting"])
def test_a_host_does_not_change_what_a_tenants_port_is(
    stock: Stock, pair: tuple[Host, Host], where: str, projects: tuple[str, ...]
) -> None:
    one, other = pair
    on = {"its own": one.name, "another": other.name, "none": "", "waiting": other.name}[where]
    id = port(stock, **{"binding:host_id": on, "device_owner": "compute:nova", "device_id": "guest"})
    if where == "waiting":
        stock.admin("POST", f"/v2.0/ports/{id}/bindings", {"binding": {"host": one.name}})
    before = shown(stock, id)
    for change in CHANGES:
        answer = caller(stock.url, one.name, *projects).client.put(f"/v2.0/ports/{id}", json={"port": change})
        assert answer.status_code in {*REFUSED, 409}, (change, answer.text)
    assert shown(stock, id) == before
    assert status(caller(stock.url, one.name, *projects), "DELETE", f"/v2.0/ports/{id}") in REFUSED
    assert status(caller(stock.url, one.name, *projects), "PUT", f"/v2.0/ports/{id}/tags/mine") in REFUSED


@pytest.mark.parametrize("projects", [(), (OTHER,), (OWNER,), ("*",)], ids=str)
def test_a_host_does_not_take_a_port_from_a_living_host(
    stock: Stock, pair: tuple[Host, Host], projects: tuple[str, ...]
) -> None:
    one, other = pair
    id = port(stock, **{"binding:host_id": other.name, "device_owner": "compute:nova"})
    host = caller(stock.url, one.name, *projects)
    for binding in (one.name, "", None):
        change = {"port": {"binding:host_id": binding}}
        assert status(host, "PUT", f"/v2.0/ports/{id}", change) in {*REFUSED, 409}
    for name in (one.name, other.name, "h1"):
        assert status(host, "POST", f"/v2.0/ports/{id}/bindings", {"binding": {"host": name}}) in REFUSED
        assert status(host, "PUT", f"/v2.0/ports/{id}/bindings/{name}/activate", {}) in {*REFUSED, 409}
        assert status(host, "DELETE", f"/v2.0/ports/{id}/bindings/{name}") in REFUSED
    assert shown(stock, id)["binding:host_id"] == other.name
    for path in ("handover", "taken"):
        asked = {"port": id, "flows": ""}
        assert status(host, "POST", f"/v1/hosts/{one.name}/{path}", asked) in {204, 409}
    assert stock.admin("GET", f"/v1/handovers/{id}")["by"] == []


def test_a_host_that_says_a_strangers_port_is_up_or_down_changes_nothing(stock: Stock, pair: tuple[Host, Host]) -> None:
    one, other = pair
    id = port(stock, **{"binding:host_id": other.name})
    other.connect()
    other.report(**{id: "up"})
    end = time.monotonic() + 5
    while shown(stock, id)["status"] != "ACTIVE" and time.monotonic() < end:
        other.bookmark = 1 << 40
        other.report()
        time.sleep(0.05)
    liar = caller(stock.url, one.name)
    for told in ({id: "down"}, {id: "up"}, {}):
        body = {"applied": 1, "ports": told, "all": not told}
        assert status(liar, "POST", f"/v1/hosts/{one.name}/status", body) == 200
    time.sleep(0.2)
    assert shown(stock, id)["binding:host_id"] == other.name
    other.leave()


def test_a_host_sees_its_own_ports_and_their_networks(stock: Stock, pair: tuple[Host, Host]) -> None:
    one, other = pair
    here = port(stock, **{"binding:host_id": one.name})
    there = port(stock, **{"binding:host_id": other.name})
    host = caller(stock.url, one.name)
    assert host("GET", f"/v2.0/ports/{here}")["port"]["binding:host_id"] == one.name
    assert [p["id"] for p in host("GET", f"/v2.0/ports?binding:host_id={one.name}")["ports"]] == [here]
    assert host("GET", f"/v2.0/ports?binding:host_id={other.name}")["ports"] == []
    assert [p["id"] for p in host("GET", "/v2.0/ports")["ports"]] == [here]
    host("GET", f"/v2.0/ports/{there}", want=404)
    network = shown(stock, here)["network_id"]
    assert [n["id"] for n in host("GET", "/v2.0/networks")["networks"]] == [network]
    assert len(host("GET", f"/v2.0/subnets?network_id={network}")["subnets"]) == 1
    assert "provider:network_type" not in host("GET", f"/v2.0/networks/{network}")["network"]


def test_a_machine_is_run_and_ended_by_its_host(stock: Stock, pair: tuple[Host, Host]) -> None:
    one, other = pair
    host, them = caller(stock.url, one.name, OWNER), caller(stock.url, other.name, OWNER)
    id = port(stock)
    path = f"/v2.0/ports/{id}"
    host("PUT", path, {"port": {"binding:host_id": one.name}})
    host("PUT", path, {"port": {"device_id": "domain", "device_owner": "compute:libvirt"}})
    # It migrates: the other host has the port wait there, and fetches it.
    them("POST", f"{path}/bindings", {"binding": {"host": other.name}})
    assert {b["host"] for b in them("GET", f"{path}/bindings")["bindings"]} == {one.name, other.name}
    assert status(host, "PUT", f"{path}/bindings/{other.name}/activate", {}) in REFUSED
    them("PUT", f"{path}/bindings/{other.name}/activate", {})
    host("DELETE", f"{path}/bindings/{one.name}")
    # A host of no project does the same when who moves machines has said so.
    stock.admin("POST", f"{path}/bindings", {"binding": {"host": one.name}})
    caller(stock.url, one.name)("PUT", f"{path}/bindings/{one.name}/activate", {})
    caller(stock.url, one.name)("PUT", path, {"port": {"binding:host_id": "", "device_id": "", "device_owner": ""}})
    assert shown(stock, id)["binding:host_id"] == ""


def test_a_host_of_no_project_fetches_no_port_itself(stock: Stock, pair: tuple[Host, Host]) -> None:
    id = port(stock)
    for projects in ((), (OTHER,)):
        host = caller(stock.url, pair[0].name, *projects)
        assert status(host, "GET", f"/v2.0/ports/{id}") == 404
        assert status(host, "PUT", f"/v2.0/ports/{id}", {"port": {"binding:host_id": pair[0].name}}) in REFUSED


def container(network: str, host: str, **more: Any) -> dict[str, Any]:
    return {
        "port": {
            "network_id": network,
            "project_id": OWNER,
            "device_owner": "container:docker",
            "device_id": "box",
            "binding:host_id": host,
            **more,
        }
    }


def test_a_host_makes_and_deletes_ports_of_containers_for_its_projects(stock: Stock, pair: tuple[Host, Host]) -> None:
    one, other = pair
    network, group = stock.network(OWNER), stock.group(OWNER)
    stock.subnet(OWNER, network)
    for projects in ((OWNER,), (OTHER, OWNER), ("*",)):
        host = caller(stock.url, one.name, *projects)
        assert [g["id"] for g in host("GET", f"/v2.0/security-groups?id={group}")["security_groups"]] == [group]
        asked = container(network, one.name, security_groups=[group], **{"binding:profile": {"ifname": "eth0"}})
        id = host("POST", "/v2.0/ports", asked)["port"]["id"]
        host("PUT", f"/v2.0/ports/{id}", {"port": {"name": "box", "binding:profile": {"names": ["box"]}}})
        assert status(caller(stock.url, other.name, *projects), "DELETE", f"/v2.0/ports/{id}") in REFUSED
        host("DELETE", f"/v2.0/ports/{id}")
    # An address that an engine holds becomes a container's.
    held = host("POST", "/v2.0/ports", container(network, "", device_id=f"reserved {one.name}"))["port"]["id"]
    mine = caller(stock.url, one.name)
    assert [p["id"] for p in mine("GET", f"/v2.0/ports?device_id=reserved {one.name}")["ports"]] == [held]
    change = {"device_id": "box", "binding:host_id": one.name, "security_groups": [group]}
    assert host("PUT", f"/v2.0/ports/{held}", {"port": change})["port"]["binding:host_id"] == one.name
    mine("DELETE", f"/v2.0/ports/{held}")


@pytest.mark.parametrize(
    "more",
    [
        {"binding:host_id": "h1"},
        {"device_owner": "compute:nova"},
        {"device_owner": ""},
        {"device_owner": "network:dhcp"},
        {"port_security_enabled": False},
        {"allowed_address_pairs": [{"ip_address": "10.0.0.0/8"}]},
        {"binding:vnic_type": "baremetal"},
        {"admin_state_up": False},
        {"project_id": OTHER},
        {"hints": {}},
    ],
    ids=str,
)
def test_what_a_host_may_not_make(stock: Stock, pair: tuple[Host, Host], more: dict[str, Any]) -> None:
    host, network = caller(stock.url, pair[0].name, OWNER), stock.network(OWNER)
    assert status(host, "POST", "/v2.0/ports", container(network, pair[0].name, **more)) in {*REFUSED, 400}
    assert stock.admin("GET", f"/v2.0/ports?network_id={network}")["ports"] == []


def test_a_hosts_port_is_on_a_network_of_its_own_project(stock: Stock, pair: tuple[Host, Host]) -> None:
    """A host that carries one port of a stranger's network makes no other there."""
    one, _ = pair
    id = port(stock, **{"binding:host_id": one.name})
    asked = container(shown(stock, id)["network_id"], one.name, project_id=OTHER)
    for projects in ((), (OTHER,)):
        assert status(caller(stock.url, one.name, *projects), "POST", "/v2.0/ports", asked) in {*REFUSED, 400}


def test_a_host_makes_networks_for_its_engines_alone(stock: Stock, pair: tuple[Host, Host]) -> None:
    host = caller(stock.url, pair[0].name, OWNER)
    made = {"name": "made", "description": "made by Docker", "project_id": OWNER}
    id = host("POST", "/v2.0/networks", {"network": made})["network"]["id"]
    body = {"network_id": id, "project_id": OWNER, "cidr": "10.0.0.0/24", "ip_version": 4}
    subnet = host("POST", "/v2.0/subnets", {"subnet": body})["subnet"]["id"]
    for strange in (
        {**made, "description": ""},
        {**made, "project_id": OTHER},
        {**made, "shared": True},
        {**made, "router:external": True},
        {**made, "port_security_enabled": False},
        {**made, "provider:network_type": "vxlan"},
    ):
        assert status(host, "POST", "/v2.0/networks", {"network": strange}) in {400, 403}, strange
    tenants, theirs = stock.network(OWNER), stock.network(OTHER)
    inner = stock.subnet(OWNER, tenants)
    stock.admin("PUT", f"/v2.0/networks/{theirs}", {"network": {"description": "made by Docker"}})
    rbac = {"object_type": "network", "object_id": theirs, "action": "access_as_shared", "target_tenant": OWNER}
    stock.admin("POST", "/v2.0/rbac-policies", {"rbac_policy": rbac})
    assert status(host, "GET", f"/v2.0/networks/{theirs}") == 200
    for network in (tenants, theirs):
        assert status(host, "POST", "/v2.0/subnets", {"subnet": {**body, "network_id": network}}) in {400, 403}
        assert status(host, "DELETE", f"/v2.0/networks/{network}") == 403
    assert status(host, "DELETE", f"/v2.0/subnets/{inner}") == 403
    for path, kind in ((f"networks/{id}", "network"), (f"subnets/{subnet}", "subnet")):
        assert status(host, "PUT", f"/v2.0/{path}", {kind: {"name": "mine"}}) == 403
        assert status(caller(stock.url, pair[0].name), "DELETE", f"/v2.0/{path}") == 404
    host("DELETE", f"/v2.0/subnets/{subnet}")
    host("DELETE", f"/v2.0/networks/{id}")


# ---- what a host may have


def test_a_host_has_the_physical_networks_that_an_admin_has_given_it(stock: Stock, pair: tuple[Host, Host]) -> None:
    one, other = pair
    host = caller(stock.url, one.name, "*")
    path, rack = f"/v1/hosts/{one.name}", f"rack-{one.name}"
    claim = {"underlay": one.underlay, "physnets": {rack: "eth1"}}
    answer = host.client.put(path, json=claim)
    assert (answer.status_code, answer.json()["error"]["type"]) == (403, "PolicyNotAuthorized")
    assert f"physnet '{rack}'" in answer.text
    assert f"PUT {path}" in answer.text
    assert stock.admin("GET", path)["physnets"] == {}
    # It is no edge of others' servers either.
    profile = {"physical_network": rack, "vlan": 105}
    server = {"binding:vnic_type": "baremetal", "binding:host_id": "node", "binding:profile": profile}
    assert shown(stock, port(stock, **server))["binding:vif_type"] == "binding_failed"
    stock.admin("PUT", path, claim)
    again = {**claim, "physnets": {rack: "eth2"}, "version": "2"}
    assert host("PUT", path, again)["physnets"] == {rack: "eth2"}
    more = {**claim, "physnets": {rack: "eth1", f"{rack}-2": "eth3"}}
    assert f"{rack}-2" in host("PUT", path, more, 403)["error"]["message"]
    assert status(host, "PUT", path, {"underlay": one.underlay}) == 200
    assert status(host, "PUT", path, again) == 200, "it may come back with what it was given"
    assert status(caller(stock.url, other.name, "*"), "PUT", f"/v1/hosts/{other.name}", {
        "underlay": other.underlay, "physnets": {rack: "eth1"}}) == 403  # fmt: skip
    stock.admin("PUT", path, {"underlay": one.underlay})
    assert status(host, "PUT", path, again) == 403


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"version": "x" * 256}, "version"),
        ({"version": 7}, "version"),
        ({"physnets": {"x" * 256: "eth1"}}, "physnets"),
        ({"physnets": {"rack": "x" * 256}}, "physnets"),
    ],
    ids=["long version", "no text", "long name", "long device"],
)
def test_what_a_host_says_of_itself_has_an_end(stock: Stock, said: dict[str, Any], why: str) -> None:
    told = stock.admin("PUT", "/v1/hosts/nowhere", {"underlay": "203.0.113.9", **said}, 400)["error"]["message"]
    assert why in told
    assert "255" in told


@pytest.mark.parametrize("how", ["port", "binding"])
def test_a_profile_is_as_long_as_neutron_takes_it(stock: Stock, pair: tuple[Host, Host], how: str) -> None:
    id = port(stock, **{"binding:host_id": pair[0].name})
    for size, want in ((4000, 0), (4100, 400)):
        profile = {"a": "x" * size}
        if how == "port":
            answer = stock.admin.client.put(f"/v2.0/ports/{id}", json={"port": {"binding:profile": profile}})
        else:
            body = {"binding": {"host": pair[1].name, "profile": profile}}
            answer = stock.admin.client.post(f"/v2.0/ports/{id}/bindings", json=body)
            stock.admin.client.delete(f"/v2.0/ports/{id}/bindings/{pair[1].name}")
        assert answer.status_code == want or (not want and answer.status_code < 300), answer.text
    assert "at most 4095" in answer.text


def shared_network(stock: Stock) -> tuple[str, str]:
    """Make a network of OTHER that all may use, and its subnet, of whose addresses some are never given out."""
    network = stock.new("networks", "network", {"shared": True}, OTHER)
    pool = [{"start": "10.77.0.10", "end": "10.77.0.99"}]
    body = {"network_id": network, "ip_version": 4, "cidr": "10.77.0.0/24", "allocation_pools": pool}
    return network, stock.new("subnets", "subnet", body, OTHER)


def test_on_a_network_of_another_project_a_host_has_what_it_is_given(stock: Stock, pair: tuple[Host, Host]) -> None:
    one, _ = pair
    network, subnet = shared_network(stock)
    host = caller(stock.url, one.name, OWNER)
    for refused in (
        {"fixed_ips": [{"ip_address": "10.77.0.55"}]},
        {"fixed_ips": [{"subnet_id": subnet, "ip_address": "10.77.0.55"}]},
        {"fixed_ips": [{"subnet_id": subnet}, {"ip_address": "10.77.0.200"}]},
        {"fixed_ips": [{"ip_address": "10.77.0.1"}]},
        {"mac_address": "02:00:00:00:77:01"},
    ):
        assert status(host, "POST", "/v2.0/ports", container(network, one.name, **refused)) == 403, refused
    asked = container(network, one.name, fixed_ips=[{"subnet_id": subnet}])
    made = host("POST", "/v2.0/ports", asked)["port"]
    path = f"/v2.0/ports/{made['id']}"
    for refused in (
        {"fixed_ips": [{"ip_address": "10.77.0.56"}]},
        {"fixed_ips": [*made["fixed_ips"], {"ip_address": "10.77.0.200"}]},
        {"fixed_ips": [{"ip_address": "10.77.0.1"}]},
        {"mac_address": "02:00:00:00:77:02"},
    ):
        assert status(host, "PUT", path, {"port": refused}) == 403, refused
    same = {"fixed_ips": made["fixed_ips"], "mac_address": made["mac_address"]}
    assert host("PUT", path, {"port": same})["port"]["fixed_ips"] == made["fixed_ips"]
    host("DELETE", path)


def test_an_engine_makes_one_port_of_the_addresses_that_it_holds(stock: Stock, pair: tuple[Host, Host]) -> None:
    one, _ = pair
    network, subnet = shared_network(stock)
    host = caller(stock.url, one.name, OWNER)
    held = [
        host("POST", "/v2.0/ports", container(
            network, "", device_id=f"reserved {one.name}", fixed_ips=[{"subnet_id": subnet}]))["port"]
        for _ in range(2)
    ]  # fmt: skip
    host("DELETE", f"/v2.0/ports/{held[1]['id']}")
    addresses = [{"ip_address": each["fixed_ips"][0]["ip_address"]} for each in held]
    path = f"/v2.0/ports/{held[0]['id']}"
    for strange in ("10.77.0.200", "10.77.0.1"):
        change = {"device_id": "box", "fixed_ips": [*addresses, {"ip_address": strange}]}
        assert status(host, "PUT", path, {"port": change}) == 403
    change = {"device_id": "box", "binding:host_id": one.name, "fixed_ips": addresses}
    assert len(host("PUT", path, {"port": change})["port"]["fixed_ips"]) == 2


@pytest.mark.parametrize("projects", [(OWNER,), ("*",)], ids=str)
def test_a_host_takes_no_gateways_address(stock: Stock, pair: tuple[Host, Host], projects: tuple[str, ...]) -> None:
    one, _ = pair
    network = stock.network(OWNER)
    for family, cidr, gateway in ((4, "10.78.0.0/24", "10.78.0.1"), (6, "fd00:78::/64", "fd00:78::1")):
        stock.new("subnets", "subnet", {"network_id": network, "ip_version": family, "cidr": cidr}, OWNER)
        host = caller(stock.url, one.name, *projects)
        asked = container(network, one.name, fixed_ips=[{"ip_address": gateway}])
        told = host("POST", "/v2.0/ports", asked, 403)["NeutronError"]["message"]
        assert gateway in told
        chosen = {"fixed_ips": [{"ip_address": gateway[:-1] + "55"}], "mac_address": f"02:00:00:00:78:0{family}"}
        made = host("POST", "/v2.0/ports", container(network, one.name, **chosen))["port"]["id"]
        change = {"port": {"fixed_ips": [{"ip_address": gateway}]}}
        assert status(host, "PUT", f"/v2.0/ports/{made}", change) == 403
        host("DELETE", f"/v2.0/ports/{made}")
