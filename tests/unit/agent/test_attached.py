"""Where an interface of the host itself must not lead."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from crossway.agent.attached import diverted
from crossway.kernel.links import Inside, Way

OWN = {2: ("198.18.0.11", "fd18::11")}
WAYS = [Way(ip_network(to), 2) for to in ("0.0.0.0/0", "198.18.0.0/16", "::/0", "fd18::/64")]
NEEDED = {"203.0.113.5": "a server"}


def inside(*routes: tuple[str, str]) -> Inside:
    return Inside("eth0", "", 1450, ("10.8.0.5/24", "fd08::5/64"), routes)


@pytest.mark.parametrize(
    ("gateway", "reason"),
    [
        ("172.31.1.1/32", None),
        ("fd31::1/128", None),
        ("198.18.0.200/32", "the host reaches it by another link, as part of 198.18.0.0/16"),
        ("fd18::200/128", "the host reaches it by another link, as part of fd18::/64"),
        ("198.18.0.11/32", "198.18.0.11 is an address of the host"),
        ("fd18::11/128", "fd18::11 is an address of the host"),
        ("203.0.113.5/32", "a server, 203.0.113.5, is reached by another link of the host"),
    ],
)
def test_a_gateway_on_the_link_is_none_of_the_hosts_own(gateway: str, reason: str | None) -> None:
    found = diverted(inside((gateway, ""), ("192.0.2.0/24", gateway.partition("/")[0])), OWN, WAYS, NEEDED)
    assert found == (None if reason is None else f"{gateway}: {reason}")


def test_an_operator_may_lead_a_part_of_what_the_host_reaches_elsewhere() -> None:
    assert diverted(inside(("198.18.5.0/24", "10.8.0.1")), OWN, WAYS, NEEDED) is None
