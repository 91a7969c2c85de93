"""Hosts follow their views over real HTTP, lose the server, come back, and make ports ACTIVE."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import pytest

from servers import Api, Host, Server

MakeHost = Callable[..., Host]
names = itertools.count()


@pytest.fixture
def host(api: Api) -> Iterator[MakeHost]:
    """Make hosts that are connected; they leave in the end."""
    made: list[Host] = []

    def make(connect: bool = True, underlay: str = "") -> Host:
        one = Host(api, f"host-{next(names)}", underlay)
        if connect:
            one.connect()
            made.append(one)
        return one

    yield make
    for one in made:
        if not one._client.is_closed:
            one.leave()


def network(api: Api, cidr: str = "10.0.0.0/24") -> tuple[str, str]:
    """Make a network with a subnet; return their ids."""
    made: str = api.make("network")["id"]
    subnet = api.make("subnet", network_id=made, ip_version=4, cidr=cidr)["id"]
    return made, subnet


def port(api: Api, network: str, on: Host | None = None, **more: Any) -> str:
    made: str = api.make("port", network_id=network, binding__host_id=on.name if on else "", **more)["id"]
    return made


def status(api: Api, port: str) -> str:
    told: str = api("GET", f"/v2.0/ports/{port}")["port"]["status"]
    return told


def becomes(api: Api, port: str, want: str, seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while status(api, port) != want:
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def test_registering(api: Api, host: MakeHost) -> None:
    one = host(connect=False, underlay="2001:db8::1")
    (told,) = [h for h in api("GET", "/v1/hosts")["hosts"] if h["name"] == one.name]
    assert (told["underlay"], told["alive"], told["applied"]) == ("2001:db8::1", True, None)
    one.report()
    told = api("GET", f"/v1/hosts/{one.name}")
    assert told["applied"] == 0
    assert told["seen_at"]
    api("DELETE", f"/v1/hosts/{one.name}")
    assert api("GET", f"/v1/hosts/{one.name}", want=404)["error"]["type"] == "HostNotFound"
    assert api("GET", f"/v1/hosts/{one.name}/view", want=404)["error"]["type"] == "HostNotFound"
    api("POST", f"/v1/hosts/{one.name}/status", {"applied": 0}, 404)


@pytest.mark.parametrize(
    ("method", "path", "body", "says"),
    [
        ("PUT", "/v1/hosts/x", {"underlay": "nowhere"}, "nowhere"),
        ("PUT", "/v1/hosts/x", {"underlay": "192.0.2.1", "physnets": ["a"]}, "physnets"),
        ("PUT", "/v1/hosts/x", [], "dictionary"),
        ("POST", "/v1/hosts/x/status", {}, "applied"),
        ("POST", "/v1/hosts/x/status", {"applied": 1, "ports": {"p": "sideways"}}, "sideways"),
        ("GET", "/v1/hosts/x/view?after=yesterday", None, "yesterday"),
    ],
)
def test_what_hosts_cannot_say(api: Api, method: str, path: str, body: Any, says: str) -> None:
    assert says in api(method, path, body, 400)["error"]["message"]


def test_a_new_host_knows_itself(host: MakeHost) -> None:
    one = host()
    assert one.resets == 1
    assert one.objects == {("host", one.name): {"id": one.name, "underlay": one.underlay}}


def test_a_host_with_a_port_knows_the_network_and_its_peers(api: Api, host: MakeHost) -> None:
    one, other = host(), host(underlay="192.0.2.2")
    net, subnet = network(api)
    group = api.make("security_group", name="web", stateful=False)["id"]
    rule = {"protocol": "tcp", "port_range_min": 80, "port_range_max": 90, "remote_ip_prefix": "10.0.0.0/8"}
    rule_id = api.make("security_group_rule", security_group_id=group, direction="ingress", **rule)["id"]
    peer = port(api, net, other)
    pairs = [{"ip_address": "10.0.0.99"}]
    profile = {"device": "tap7", "names": ["Web.", 7, "", "db", "web"], "workload": "w"}
    own = port(
        api,
        net,
        one,
        fixed_ips=[{"ip_address": "10.0.0.77"}],
        mac_address="fa:16:3e:01:02:03",
        security_groups=[group],
        allowed_address_pairs=pairs,
        binding__profile=profile,
        device_owner="compute:nova",
        dns_name="a",
    )
    assert one.until("port", own) == {
        "id": own,
        "network": net,
        "mac": "fa:16:3e:01:02:03",
        "addresses": [{"ip": "10.0.0.77", "subnet": subnet}],
        "identity": one.objects["port", own]["identity"],
        "groups": [group],
        "pairs": [{"ip": "10.0.0.99/32", "mac": "fa:16:3e:01:02:03"}],
        "secured": True,
        "up": True,
        "host": one.name,
        "waiting": [],
        "device": "tap7",
        "link": None,
        "owner": "compute:nova",
        "project": one.objects["port", own]["project"],
        "names": ["a", "web", "db"],
        "workload": "w",
    }
    assert one.ids("port") == {own, peer}
    assert one.ids("host") == {one.name, other.name}
    number = one.objects["network", net].pop("number")
    assert 1 <= number < 1 << 24
    assert one.objects["network", net] == {
        "id": net,
        "mtu": 1450 if not any(":" in h["underlay"] for h in api("GET", "/v1/hosts")["hosts"]) else 1430,
        "type": "vxlan",
        "physnet": None,
        "segment": None,
        "up": True,
        "domain": "",
    }
    assert one.objects["subnet", subnet] == {
        "id": subnet,
        "network": net,
        "cidr": "10.0.0.0/24",
        "gateway": "10.0.0.1",
        "dns": [],
        "routes": [],
        "dhcp": True,
        "ra": None,
        "mode": None,
    }
    assert one.ids("group") == {group}
    told = one.objects["group", group]
    assert told["stateful"] is False
    assert next(r for r in told["rules"] if r["id"] == rule_id) == {
        "id": rule_id,
        "number": int(rule_id[:8], 16),
        "way": "in",
        "family": 4,
        "proto": 6,
        "min": 80,
        "max": 90,
        "group": None,
        "prefix": "10.0.0.0/8",
    }
    assert one.objects["identity", str(one.objects["port", own]["identity"])]["groups"] == [group]
    assert len(one.ids("identity")) == 2, "its own and the peer's"
    other.until("port", own)
    assert group not in other.ids("group")


def test_what_goes_is_told_to_be_gone(api: Api, host: MakeHost) -> None:
    one, other = host(), host()
    net, _ = network(api)
    own, peer = port(api, net, one), port(api, net, other)
    one.until("port", peer)
    api("DELETE", f"/v2.0/ports/{peer}")
    one.until("port", peer, there=False)
    assert one.ids("host") == {one.name}
    api("PUT", f"/v2.0/ports/{own}", {"port": {"binding:host_id": ""}})
    one.until("port", own, there=False)
    assert one.objects.keys() == {("host", one.name)}


def test_routers_join_what_hosts_know(api: Api, host: MakeHost) -> None:
    hosts = [host(), host(), host()]
    nets = [network(api, f"10.{i}.0.0/24") for i in range(3)]
    ports = [port(api, net, one) for (net, _), one in zip(nets, hosts, strict=True)]
    routers = [api.make("router")["id"] for _ in range(2)]
    for router, (left, right) in zip(routers, ((0, 1), (1, 2)), strict=True):
        api("PUT", f"/v2.0/routers/{router}/add_router_interface", {"subnet_id": nets[left][1]})
        body = {"subnet_id": nets[right][1]}
        if right == 1 or left == 1:
            # The second router on a network needs an address of its own there.
            foot = port(api, nets[1][0], fixed_ips=[{"subnet_id": nets[1][1], "ip_address": f"10.1.0.{200 + right}"}])
            body = {"port_id": foot}
        if left == 1:
            api("PUT", f"/v2.0/routers/{router}/remove_router_interface", {"subnet_id": nets[1][1]})
            api("PUT", f"/v2.0/routers/{router}/add_router_interface", {"port_id": foot})
            body = {"subnet_id": nets[2][1]}
        api("PUT", f"/v2.0/routers/{router}/add_router_interface", body)
    for one in hosts:
        for peer in ports:
            one.until("port", peer)
        assert one.ids("router") == set(routers)
        assert one.ids("network") == {net for net, _ in nets}
    told = hosts[0].objects["router", routers[1]]
    assert sorted(a for i in told["interfaces"] for a in [i["addresses"][0]["ip"]]) == ["10.1.0.202", "10.2.0.1"]
    assert {a["prefix"] for i in told["interfaces"] for a in i["addresses"]} == {24}
    route = {"destination": "192.0.2.0/24", "nexthop": "10.1.0.9"}
    api("PUT", f"/v2.0/routers/{routers[1]}", {"router": {"routes": [route]}})
    while not hosts[0].objects["router", routers[1]]["routes"]:
        hosts[0].hear()
    assert hosts[0].objects["router", routers[1]]["routes"] == [route]
    api("PUT", f"/v2.0/routers/{routers[0]}/remove_router_interface", {"subnet_id": nets[0][1]})
    hosts[0].until("port", ports[2], there=False)
    assert hosts[0].ids("host") == {hosts[0].name}
    hosts[2].until("port", ports[0], there=False)
    assert hosts[2].ids("port") == {ports[1], ports[2]}


def test_who_was_away_goes_on_where_it_was(api: Api, host: MakeHost) -> None:
    one, other = host(), host()
    net, _ = network(api)
    own, gone = port(api, net, one), port(api, net, other)
    one.until("port", gone)
    one.leave()
    api("DELETE", f"/v2.0/ports/{gone}")
    peer = port(api, net, other)
    one.connect()
    assert one.resets == 1
    assert one.ids("port") == {own, peer}
    one.leave()
    one.connect(after=0)
    assert one.resets == 2
    assert one.ids("port") == {own, peer}


def test_a_quiet_view_has_bookmarks(host: MakeHost) -> None:
    one = host()
    assert one.hear(8.0) == [{"bookmark": one.bookmark}]


def test_a_change_is_told_at_once(api: Api, host: MakeHost) -> None:
    one = host()
    net, _ = network(api)
    port(api, net, one)
    late = []
    for _ in range(30):
        made = port(api, net, one)
        answered = time.monotonic()
        one.until("port", made)
        late.append(one.heard_at - answered)
    assert median(late) < 0.01


def test_active_means_reachable_from_all(api: Api, host: MakeHost) -> None:
    one, other = host(), host()
    net, _ = network(api)
    port(api, net, other)
    made = port(api, net, one)
    one.until("port", made)
    one.report(**{made: "up"})
    assert not becomes(api, made, "ACTIVE", seconds=0.2)
    other.until("port", made)
    other.report()
    assert becomes(api, made, "ACTIVE")
    one.report(**{made: "down"})
    assert becomes(api, made, "DOWN")


def test_a_server_that_is_killed_is_found_again(own: Server) -> None:
    api = Api(own.url)
    one = Host(api, "h1").connect()
    net, _ = network(api)
    before = port(api, net, one)
    one.until("port", before)
    one.report(**{before: "up"})
    assert becomes(api, before, "ACTIVE")
    own.kill()
    one.gone()
    own.start()
    assert status(api, before) == "ACTIVE"
    one.connect()
    assert one.ids("port") == {before}
    assert one.report()["all"] is True
    assert one.report()["all"] is False
    after = port(api, net, one)
    one.until("port", after)
    one.report(**{after: "up"})
    assert becomes(api, after, "ACTIVE")
    one.leave()
    api.client.close()


def test_a_silent_host_is_not_alive_and_is_not_waited_for(own: Server) -> None:
    api = Api(own.url)
    net, _ = network(api)
    one, silent = Host(api, "h1").connect(), Host(api, "h2")
    silent.report()
    port(api, net, silent)
    made = port(api, net, one)
    one.until("port", made)
    one.report(**{made: "up"})
    began = time.monotonic()
    while not becomes(api, made, "ACTIVE", seconds=0.5):
        one.report()
        assert time.monotonic() - began < 20
    assert time.monotonic() - began > 13
    alive = {h["name"]: h["alive"] for h in api("GET", "/v1/hosts")["hosts"]}
    assert alive == {"h1": True, "h2": False}
    one.leave()
    api.client.close()
