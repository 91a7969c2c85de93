"""Values in their canonical form, or what would be right instead."""

from __future__ import annotations

from typing import Any

import pytest

from crossway.model import check
from crossway.model.rule import Rule, ethertype, port_value, protocol

UUID = "0d2f8a3e-90cc-4b0b-9e1e-0123456789ab"


@pytest.mark.parametrize(
    ("of", "value", "canonical"),
    [
        (check.uuid, UUID, UUID),
        (check.boolean, "True", True),
        (check.boolean, 0, False),
        (check.boolean, "0", False),
        (check.boolean, "Y", True),
        (check.integer(1, 9), "7", 7),
        (check.name(9), "grün 🐙", "grün 🐙"),
        (check.name(9), "a\u3000b", "a\u3000b"),
        (check.name(9), "", ""),
        (check.text(3), "abc", "abc"),
        (check.ip, "2001:DB8:0:0::1", "2001:db8::1"),
        (check.ip, "10.0.0.1", "10.0.0.1"),
        (check.cidr, "10.0.0.7/24", "10.0.0.0/24"),
        (check.cidr, "2001:db8::1/64", "2001:db8::/64"),
        (check.ip_or_cidr, "10.0.0.7", "10.0.0.7"),
        (check.ip_or_cidr, "10.0.0.7/24", "10.0.0.0/24"),
        (check.mac, "FA-16-3E-00-00-01", "fa:16:3e:00:00:01"),
        (check.mac, "fa163e000001", "fa:16:3e:00:00:01"),
        (check.mac, "fa16.3e00.0001", "fa:16:3e:00:00:01"),
        (check.mac, "fa:16:3e:0:0:1", "fa:16:3e:00:00:01"),
        (check.network_cidr, "10.0.0.0/24", "10.0.0.0/24"),
        (check.or_none(check.ip), None, None),
        (check.list_of(check.ip, 9), None, ()),
        (check.list_of(check.ip, 9), ["10.0.0.1"], ("10.0.0.1",)),
        (check.one_of("a", None), None, None),
        (check.dictionary, None, {}),
        (protocol, "TCP", "tcp"),
        (protocol, 6, "6"),
        (protocol, "any", None),
        (ethertype, "ipv6", "IPv6"),
        (check.integer(1, 9), 5.0, 5),
        (check.integer(1, 9), 5.9, 5),
        (port_value, "80", 80),
    ],
)
def test_right_values(of: check.Check, value: Any, canonical: Any) -> None:
    assert of(value) == canonical
    assert type(of(value)) is type(canonical)


@pytest.mark.parametrize(
    ("of", "value"),
    [
        (check.uuid, "no"),
        (check.mac, "fa163e00000"),
        (check.mac, "fa16.3e00.001"),
        (check.network_cidr, "10.0.0.1/24"),
        (check.uuid, 7),
        (check.uuid, UUID + "0"),
        (check.boolean, "perhaps"),
        (check.boolean, None),
        (check.boolean, []),
        (check.integer(1, 9), 10),
        (check.integer(1, 9), True),
        (check.integer(1, 9), "x"),
        (check.name(9), " a"),
        (check.name(9), "a\u3000"),
        (check.name(9), "a\nb"),
        (check.name(9), "a\x00"),
        (check.name(3), "abcd"),
        (check.integer(1, 9), "1.5"),
        (check.integer(1, 9), 0.5),
        (check.integer(1, 9), float("inf")),
        (check.integer(1, 9), float("nan")),
        (check.text(3), "abcd"),
        (check.text(3), None),
        (check.ip, "10.0.0.256"),
        (check.ip, "10.0.0"),
        (check.ip, 1),
        (check.ip, "fe80::1%eth0"),
        (check.cidr, "10.0.0.0"),
        (check.cidr, "10.0.0.0/33"),
        (check.cidr, ["10.0.0.0/8"]),
        (check.ip_or_cidr, "10.0.0.0/99"),
        (check.mac, "01:00:5e:00:00:01"),
        (check.mac, "00:00:00:00:00:00"),
        (check.mac, "fa:16:3e:00:00"),
        (check.list_of(check.ip, 9), "10.0.0.1"),
        (check.list_of(check.ip, 9), ["10.0.0.1", "10.0.0.1"]),
        (check.mapping({"a": check.ip}), {}),
        (check.mapping({"a": check.ip}), {"a": "10.0.0.1", "b": 1}),
        (check.one_of("a"), "b"),
        (check.one_of(1), True),
        (check.dictionary, "x"),
        (protocol, 256),
        (protocol, "nonsense"),
        (ethertype, "IPv5"),
        (port_value, 65536),
        (port_value, True),
        (port_value, "http"),
        (port_value, ""),
        (protocol, ""),
        (protocol, "\u0666"),
    ],
)
def test_wrong_values_are_named(of: check.Check, value: Any) -> None:
    with pytest.raises(ValueError, match=r".*") as caught:
        of(value)
    told = value[0] if isinstance(value, list) and value else value
    assert not isinstance(told, str | int) or str(told) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "family", "number"),
    [
        (None, "IPv4", None),
        ("tcp", "IPv4", 6),
        ("47", "IPv4", 47),
        ("icmp", "IPv4", 1),
        ("icmp", "IPv6", 58),
        ("1", "IPv6", 58),
        ("ipv6-icmp", "IPv6", 58),
        ("icmpv6", "IPv6", 58),
        ("0", "IPv4", 0),
    ],
)
def test_protocol_numbers(name: str | None, family: str, number: int | None) -> None:
    rule = Rule(id=UUID, project_id="", security_group_id=UUID, direction="ingress", ethertype=family, protocol=name)
    assert rule.proto == number
    assert rule.number == 0x0D2F8A3E
