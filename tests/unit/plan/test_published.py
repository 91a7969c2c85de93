"""What is published becomes rows for each of the host's own addresses, and for no others."""

from __future__ import annotations

import pytest

from crossway.model import rows as r
from crossway.plan import view
from crossway.plan.address import ip
from crossway.plan.plan import Document, Plan
from crossway.plan.port import Body
from crossway.plan.published import Publication

TCP, UDP = 6, 17
KEY = r.PortKey(7)
OWN = {"127.0.0.1", "192.0.2.1", "::1", "2001:db8::1"}


def world(gateways: tuple[str | None, str | None] = ("10.0.0.1", "fd00::1"), physnet: str | None = None) -> Plan:
    plan = Plan("h1")
    port = view.Port(
        id="p", network="n", mac="fa:16:3e:00:00:05", host="h1", secured=False,
        addresses=(view.Address("10.0.0.5", "s4"), view.Address("fd00::5", "s6")),
    )  # fmt: skip
    plan.take(
        [
            Document("network", "n", view.Network(id="n", number=10, mtu=1400, physnet=physnet)),
            Document("subnet", "s4", view.Subnet(id="s4", network="n", cidr="10.0.0.0/24", gateway=gateways[0])),
            Document("subnet", "s6", view.Subnet(id="s6", network="n", cidr="fd00::/64", gateway=gateways[1])),
            Document("port", "p", port),
        ]
    )
    plan.bodies({"p": Body(KEY, r.Body.VETH)})
    plan.own(OWN)
    return plan


def at(plan: Plan) -> set[tuple[str, int, int]]:
    """Return where something is published."""
    plan.settle()
    return {(r.unpack_ip(key.ip), key.port, key.proto) for key in plan.rows["published"]}


@pytest.mark.parametrize(
    ("address", "where"),
    [
        ("", OWN),
        ("0.0.0.0", {"127.0.0.1", "192.0.2.1"}),
        ("::", {"::1", "2001:db8::1"}),
        ("192.0.2.1", {"192.0.2.1"}),
        ("::1", {"::1"}),
        ("192.0.2.2", set()),
    ],
)
def test_an_address_stands_for_those_that_the_host_has(address: str, where: set[str]) -> None:
    plan = world()
    plan.publish("p", [Publication(TCP, address, 8080, 80)])
    assert at(plan) == {(ip, 8080, TCP) for ip in where}


def test_a_row_leads_to_the_port_with_its_gateway() -> None:
    plan = world()
    plan.publish("p", [Publication(UDP, "::1", 53, 5353)])
    plan.settle()
    place = r.Place(r.PlaceKind.LOCAL, r.Body.VETH, port=KEY)
    row = r.Published(place, ip("fd00::5"), ip("fd00::1"), 5353, bytes.fromhex("fa163e000005"))
    assert plan.rows["published"] == {r.PublishedKey(ip("::1"), 53, UDP): row}
    assert plan.rows["ports"][KEY].flags & r.PortFlag.PUBLISHED


def test_the_hosts_addresses_come_and_go() -> None:
    plan = world()
    plan.publish("p", [Publication(TCP, "", 80, 80)])
    plan.own({"192.0.2.7"})
    assert at(plan) == {("192.0.2.7", 80, TCP)}
    plan.own(set())
    assert at(plan) == set()


def test_a_family_without_a_gateway_is_not_published() -> None:
    plan = world(gateways=("10.0.0.1", None))
    plan.publish("p", [Publication(TCP, "", 80, 80)])
    assert {where for where, _, _ in at(plan)} == {"127.0.0.1", "192.0.2.1"}
    plan.take([Document("subnet", "s6", view.Subnet(id="s6", network="n", cidr="fd00::/64", gateway="fd00::1"))])
    assert len(at(plan)) == 4


def test_the_gateway_answers_where_the_network_has_none_of_its_own() -> None:
    for physnet, gateways in ((None, {ip("10.0.0.1"), ip("fd00::1")}), ("out", set[bytes]())):
        plan = world(physnet=physnet)
        plan.publish("p", [Publication(TCP, "", 80, 80)])
        plan.settle()
        assert {key.ip for key in plan.rows["gateways"]} == gateways


@pytest.mark.parametrize("how", ["withdrawn", "unplugged", "moved"])
def test_nothing_is_left(how: str) -> None:
    plan = world()
    plan.publish("p", [Publication(TCP, "", 80, 80)])
    assert at(plan)
    if how == "withdrawn":
        plan.publish("p", [])
    elif how == "unplugged":
        plan.bodies({"p": None})
    else:
        plan.take([Document("port", "p", None)])
    assert at(plan) == set()
    assert not plan.rows["gateways"]
    assert not any(row.flags & r.PortFlag.PUBLISHED for row in plan.rows["ports"].values())
