"""What routes an interface gets from the subnets of its port."""

from __future__ import annotations

import pytest

from crossway.plan import view
from crossway.plan.interface_config import ON_LINK, routes_of


def subnet(cidr: str, gateway: str | None = None, *routes: tuple[str, str], id: str = "s") -> view.Subnet:
    hops = tuple(view.Hop(to, by) for to, by in routes)
    return view.Subnet(id=id, network="n", cidr=cidr, gateway=gateway, routes=hops)


def given(ip: str, *args: object, **how: object) -> list[tuple[str, str]]:
    return list(routes_of([(ip, subnet(*args))], **how).given)  # type: ignore[arg-type]


ANY, ANY6 = "0.0.0.0/0", "::/0"


@pytest.mark.parametrize(
    ("ip", "cidr", "gateway", "routes", "wanted"),
    [
        ("10.0.0.5", "10.0.0.0/24", "10.0.0.1", [], [(ANY, "10.0.0.1")]),
        ("10.0.0.5", "10.0.0.0/24", None, [], []),
        ("10.0.0.1", "10.0.0.0/24", "10.0.0.1", [], []),
        # A gateway outside of the prefix is reached on the link, IPv6 link-local ones as they are.
        ("10.0.0.5", "10.0.0.0/24", "172.31.1.1", [], [("172.31.1.1/32", ON_LINK), (ANY, "172.31.1.1")]),
        ("10.0.0.5", "10.0.0.5/32", "10.0.0.1", [], [("10.0.0.1/32", ON_LINK), (ANY, "10.0.0.1")]),
        ("fd00::5", "fd00::/64", "fd01::1", [], [("fd01::1/128", ON_LINK), (ANY6, "fd01::1")]),
        ("fd00::5", "fd00::/64", "fe80::1", [], [(ANY6, "fe80::1")]),
        # Host routes.
        ("10.0.0.5", "10.0.0.0/24", None, [("10.9.0.0/16", "10.0.0.9")], [("10.9.0.0/16", "10.0.0.9")]),
        ("10.0.0.9", "10.0.0.0/24", None, [("10.9.0.0/16", "10.0.0.9")], []),
        ("10.0.0.5", "10.0.0.0/24", None, [("10.9.0.0/16", "0.0.0.0")], [("10.9.0.0/16", ON_LINK)]),
        ("fd00::5", "fd00::/64", None, [("fd09::/64", "::")], [("fd09::/64", ON_LINK)]),
        ("10.0.0.5", "10.0.0.0/24", None, [("10.9.0.9/32", "10.9.0.9")], [("10.9.0.9/32", ON_LINK)]),
        (
            "10.0.0.5", "10.0.0.0/24", None, [("10.8.0.0/16", "10.9.0.1"), ("10.9.0.0/16", "0.0.0.0")],
            [("10.9.0.0/16", ON_LINK), ("10.8.0.0/16", "10.9.0.1")],
        ),
        (
            "10.0.0.5", "10.0.0.0/24", "10.1.0.1", [("10.9.0.0/16", "10.1.0.1")],
            [("10.1.0.1/32", ON_LINK), (ANY, "10.1.0.1"), ("10.9.0.0/16", "10.1.0.1")],
        ),
        # Everywhere: the gateway first, as in Neutron's DHCP agent.
        ("10.0.0.5", "10.0.0.0/24", "10.0.0.1", [(ANY, "10.0.0.2")], [(ANY, "10.0.0.1")]),
        ("10.0.0.5", "10.0.0.0/24", None, [(ANY, "10.0.0.2")], [(ANY, "10.0.0.2")]),
        ("10.0.0.5", "10.0.0.0/24", None, [(ANY, "0.0.0.0")], [(ANY, ON_LINK)]),
        ("10.0.0.2", "10.0.0.0/24", None, [(ANY, "10.0.0.2")], []),
    ],
)  # fmt: skip
def test_every_route_can_be_set_up_behind_those_before_it(
    ip: str, cidr: str, gateway: str | None, routes: list[tuple[str, str]], wanted: list[tuple[str, str]]
) -> None:
    found = routes_of([(ip, subnet(cidr, gateway, *routes))])
    assert list(found.given) == wanted
    assert found.left_out == ()


@pytest.mark.parametrize(
    ("cidr", "gateway", "route", "why"),
    [
        ("10.0.0.0/24", None, ("10.9.0.0/16", "9.9.9.9"), "its next hop 9.9.9.9 is not on the link"),
        ("fd00::/64", None, ("fd09::/64", "fd01::1"), "its next hop fd01::1 is not on the link"),
        ("10.0.0.0/24", None, ("10.9.0.0/16", "10.0.0.255"), "no host can have the address 10.0.0.255"),
        ("10.0.0.0/24", None, ("10.9.0.0/16", "10.0.0.0"), "no host can have the address 10.0.0.0"),
        ("10.0.0.0/24", "127.0.0.1", None, "no host can have the address 127.0.0.1"),
        ("10.0.0.0/24", "224.0.0.1", None, "no host can have the address 224.0.0.1"),
        ("10.0.0.0/24", None, ("10.0.0.0/24", "10.0.0.9"), "the destination is the prefix of the port itself"),
    ],
)
def test_what_the_kernel_would_refuse_is_left_out_and_told(
    cidr: str, gateway: str | None, route: tuple[str, str] | None, why: str
) -> None:
    ip = "fd00::5" if ":" in cidr else "10.0.0.5"
    found = routes_of([(ip, subnet(cidr, gateway, *([route] if route else [])))])
    assert found.given == ()
    (told,) = found.left_out
    assert told.startswith("subnet s: the route to ")
    assert told.endswith(why)


def test_a_next_hop_behind_another_next_hop_is_not_on_the_link() -> None:
    found = routes_of(
        [("10.0.0.5", subnet("10.0.0.0/24", None, ("10.0.0.128/25", "10.0.0.9"), ("10.9.0.0/16", "10.0.0.200")))]
    )
    assert found.given == (("10.0.0.128/25", "10.0.0.9"),)
    assert "10.0.0.200 is not on the link" in found.left_out[0]


def test_of_two_subnets_the_first_gateway_leads_everywhere_and_the_first_route_counts() -> None:
    found = routes_of(
        [
            ("10.0.0.5", subnet("10.0.0.0/24", "10.0.0.1", ("10.9.0.0/16", "10.0.0.9"), ("10.8.0.0/16", "10.1.0.7"))),
            ("10.1.0.5", subnet("10.1.0.0/24", "10.1.0.1", ("10.9.0.0/16", "10.1.0.9"), id="t")),
            ("fd00::5", subnet("fd00::/64", "fd00::1", id="u")),
        ]
    )
    assert found.given == (
        (ANY, "10.0.0.1"), ("10.9.0.0/16", "10.0.0.9"), ("10.8.0.0/16", "10.1.0.7"), (ANY6, "fd00::1"),
    )  # fmt: skip
    assert found.left_out == (
        "subnet t: the route to 10.9.0.0/16 by 10.1.0.9 is left out: the destination leads by 10.0.0.9 already",
    )


def test_without_a_default_route_nothing_leads_everywhere() -> None:
    assert given("10.0.0.5", "10.0.0.0/24", "172.31.1.1", (ANY, "10.0.0.9"), everywhere={}) == []
    assert given("10.0.0.5", "10.0.0.0/24", None, (ANY, "10.0.0.9"), everywhere={}) == []
    by_gateway = {"everywhere": {}, "by_gateway": ("10.5.0.0/16", "fd05::/64")}
    assert given("10.0.0.5", "10.0.0.0/24", "172.31.1.1", **by_gateway) == [
        ("172.31.1.1/32", ON_LINK), ("10.5.0.0/16", "172.31.1.1"),
    ]  # fmt: skip
