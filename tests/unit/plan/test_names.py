"""Who is called what, and who answers for it: names and the rows by which ports find who tells them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossway.model import rows as r
from crossway.plan import view
from crossway.plan.address import ip, link_local
from crossway.plan.names import Names
from crossway.plan.plan import Document, Plan
from crossway.plan.port import Body
from crossway.plan.service import NO_ROUTER, SERVICE_IP, SERVICE_IP6, SERVICE_MAC

MAC = "fa:16:3e:00:00:01"
ROUTER_MAC = "fa:16:3e:00:00:fe"
RESOLVER = "192.0.2.53"

ports = st.builds(
    view.Port,
    id=st.sampled_from("abc"),
    network=st.sampled_from("mn"),
    mac=st.just(MAC),
    addresses=st.lists(st.builds(view.Address, st.sampled_from(["10.0.0.1", "fd00::1"]), st.just("s"))).map(tuple),
    names=st.lists(st.sampled_from(["web", "db"])).map(tuple),
    workload=st.sampled_from(["", "w"]),
    project=st.sampled_from(["red", "green"]),
)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.none() | ports)))
def test_names_as_they_come_and_go_are_those_of_the_ports_that_are_there(steps: list[Any]) -> None:
    names, have = Names(), dict[str, view.Port]()
    for id, new in steps:
        id = new.id if new else id
        names.note(have.get(id), new)
        if new is None:
            have.pop(id, None)
        else:
            have[id] = new
    for by in have.values():
        near = [p for p in have.values() if (p.network, p.project) == (by.network, by.project)]
        for name in ("web", "db"):
            assert names.named(by, name) == {p.id for p in near if name in p.names}
        for at in ("10.0.0.1", "fd00::1"):
            assert names.at(by, at) == {p.id for p in near if p.names and at in {a.ip for a in p.addresses}}
    for port in have.values():
        assert names.kin(port) == {port.id} | {p.id for p in have.values() if port.workload and p.workload == "w"}


def plan(**network: Any) -> Plan:
    made = Plan("h1")
    made.resolvers([RESOLVER])
    made.take(
        [
            Document("network", "n", view.Network(id="n", number=10, mtu=1450, **network)),
            Document("subnet", "s", view.Subnet(id="s", network="n", cidr="10.0.0.0/24", gateway="10.0.0.1")),
            Document("port", "p", a_port()),
        ]
    )
    made.bodies({"p": Body(r.PortKey(5), r.Body.VETH)})
    made.settle()
    return made


def a_port(id: str = "p", ip: str = "10.0.0.5", mac: str = MAC, host: str = "h1", **more: Any) -> view.Port:
    return view.Port(id=id, network="n", mac=mac, addresses=(view.Address(ip, "s"),), host=host, **more)


def answered(made: Plan) -> set[bytes]:
    """Return the addresses for which what stands in for a router answers."""
    of = made.rows["endpoints"].items()
    return {key.ip for key, who in of if who.place == r.Place(r.PlaceKind.ROUTER, router=NO_ROUTER)}


OWN = {r.pack_ip(SERVICE_IP), r.pack_ip(SERVICE_IP6), link_local(SERVICE_MAC), ip(RESOLVER)}


def test_where_no_router_is_one_stands_in() -> None:
    made = plan()
    assert answered(made) == {*OWN, ip("10.0.0.1")}
    assert made.rows["macs"][r.MacKey(10, SERVICE_MAC)] == r.Place(r.PlaceKind.ROUTER, router=NO_ROUTER)
    assert made.rows["interfaces"][r.InterfaceKey(10, NO_ROUTER)].ip[0] == ip("10.0.0.1")
    assert made.rows["ports"][r.PortKey(5)].flags & r.PortFlag.NAMES


def test_a_router_is_its_own_gateway_and_so_is_a_workload() -> None:
    made = plan()
    foot = view.Interface("rp", "n", ROUTER_MAC, (view.Prefixed("10.0.0.1", 24),))
    made.take([Document("router", "r", view.Router(id="r", number=1, interfaces=(foot,)))])
    made.settle()
    assert answered(made) == OWN
    assert made.rows["endpoints"][r.EndpointKey(10, ip("10.0.0.1"))].mac == bytes.fromhex(ROUTER_MAC.replace(":", ""))
    made.take([Document("router", "r", None), Document("port", "q", a_port("q", "10.0.0.1", "fa:16:3e:00:00:02"))])
    made.bodies({"q": Body(r.PortKey(6), r.Body.VETH)})
    made.settle()
    assert answered(made) == OWN
    made.take([Document("port", "q", None)])
    made.settle()
    assert answered(made) == {*OWN, ip("10.0.0.1")}


def test_a_provider_networks_gateway_is_not_stood_in_for() -> None:
    assert answered(plan(type="flat", physnet="physnet1")) == OWN


@pytest.mark.parametrize(
    "more",
    [{"secured": False}, {"pairs": (view.Pair("10.0.0.0/24"),)}, {"pairs": (view.Pair("10.0.0.9/32"),)}],
    ids=["no port security", "wide pair", "pair"],
)
def test_a_port_that_may_have_other_addresses_takes_none_from_what_stands_in(more: dict[str, Any]) -> None:
    """Only one that has been seen to be the gateway does."""
    made = plan()
    made.take([Document("port", "q", a_port("q", "10.0.0.6", "fa:16:3e:00:00:02", **more))])
    made.bodies({"q": Body(r.PortKey(6), r.Body.VETH)})
    made.settle()
    assert answered(made) == {*OWN, ip("10.0.0.1")}
    seen = view.Learned(id="n/10.0.0.1", network="n", ip="10.0.0.1", port="q", mac="fa:16:3e:00:00:02")
    made.take([Document("learned", seen.id, seen)])
    made.settle()
    may = not more.get("pairs") or more["pairs"][0].ip.endswith("/24")
    assert answered(made) == ({*OWN} if may else {*OWN, ip("10.0.0.1")})
    made.take([Document("learned", seen.id, None)])
    made.settle()
    assert answered(made) == {*OWN, ip("10.0.0.1")}


def test_nobody_answers_where_this_host_has_no_port() -> None:
    made = plan()
    made.take(
        [Document("port", "p", a_port(host="h2")), Document("host", "h2", view.Host(id="h2", underlay="192.0.2.2"))]
    )
    made.bodies({"p": None})
    made.settle()
    assert answered(made) == set()
    assert made.rows["macs"].keys() == {r.MacKey(10, bytes.fromhex(MAC.replace(":", "")))}


def test_other_resolvers_and_gateways_take_the_place_of_the_old() -> None:
    made = plan()
    made.resolvers(["192.0.2.54"])
    made.take([Document("subnet", "s", view.Subnet(id="s", network="n", cidr="10.0.0.0/24", gateway="10.0.0.254"))])
    made.settle()
    assert answered(made) == OWN - {ip(RESOLVER)} | {ip("192.0.2.54"), ip("10.0.0.254")}
