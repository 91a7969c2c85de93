"""Every list has a maximum length, which is looked at before its items are; and they are compared in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from crossway.api import openapi
from crossway.control.collections import every
from crossway.model import check
from crossway.model.port import dhcp_options, wishes
from crossway.model.resource import Attribute, Kind
from crossway.model.trunk import sub_ports


def lists() -> Iterator[tuple[Kind[Any], Attribute, int | None]]:
    for collection in every():
        for declared in collection.kind.attributes.values():
            schema = check.schema_of(declared.check)
            if schema.get("type") == "array" and (declared.post or declared.put):
                yield collection.kind, declared, schema.get("maxItems")


LISTS = list(lists())


class Untouchable:
    """An item that must not be looked at."""

    def __eq__(self, other: object) -> bool:
        raise AssertionError("an item was compared")

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        raise AssertionError("an item was written out")


@pytest.mark.parametrize(("kind", "declared", "most"), LISTS, ids=[f"{k.name}.{a.wire}" for k, a, _ in LISTS])
def test_a_list_that_is_too_long_is_refused_before_its_items_are_examined(
    kind: Kind[Any], declared: Attribute, most: int | None
) -> None:
    assert most is not None, "no maximum"
    with pytest.raises(check.TooMany, match=f"has {most + 1} entries; should be at most {most}"):
        declared.check([Untouchable()] * (most + 1))


def test_the_lists_of_the_issue_are_among_them() -> None:
    names = {f"{kind.name}.{declared.wire}" for kind, declared, _ in LISTS}
    assert names >= {
        "port.allowed_address_pairs", "port.fixed_ips", "port.security_groups", "port.extra_dhcp_opts", "port.tags",
        "subnet.allocation_pools", "subnet.host_routes", "subnet.dns_nameservers", "subnet.service_types",
        "subnetpool.prefixes", "address_group.addresses", "router.routes", "trunk.sub_ports", "network.segments",
    }  # fmt: skip


def arrays(schema: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(schema, dict):
        if schema.get("type") == "array":
            yield path, schema
        for name, inner in schema.items():
            yield from arrays(inner, f"{path}/{name}")
    elif isinstance(schema, list):
        for number, inner in enumerate(schema):
            yield from arrays(inner, f"{path}/{number}")


def test_the_document_tells_how_long_each_list_of_a_body_may_be() -> None:
    without = [
        path
        for url, methods in openapi.document()["paths"].items()
        for method, said in methods.items()
        if isinstance(said, dict)
        for path, schema in arrays(said.get("requestBody"), f"{method} {url}")
        if "maxItems" not in schema
    ]
    assert not without


class Counted(str):
    """Text that counts how often it is compared with other."""

    compared = 0

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


UUIDS = [f"{number:08x}-0000-4000-8000-000000000000" for number in range(256)]


@pytest.mark.parametrize(
    ("checked", "made", "count"),
    [
        (check.list_of(check.text(255), 2000), lambda n: Counted(f"tag{n}"), 2000),
        (
            check.list_of(check.mapping({"name": check.text(255)}), 2000),
            lambda n: {"name": Counted(f"tag{n}")},
            2000,
        ),
        (check.list_of(check.list_of(check.text(9), 9), 2000), lambda n: [Counted(f"tag{n}")], 2000),
    ],
    ids=["text", "objects", "lists"],
)
def test_items_are_compared_in_one_pass(checked: check.Check, made: Callable[[int], Any], count: int) -> None:
    items = [made(number) for number in range(count)]
    Counted.compared = 0
    assert len(checked(items)) == count
    # Twins of a hash are compared; a pass over all pairs would be two million.
    assert Counted.compared <= count
    with pytest.raises(ValueError, match=r"Duplicate items in the list: .*tag7"):
        checked([*items[:-1], made(7)])


@pytest.mark.parametrize(
    ("checked", "items", "says"),
    [
        (wishes, [{"ip_address": "10.0.0.1"}, {"subnet_id": UUIDS[0]}, {"ip_address": "10.0.0.1"}], "10.0.0.1"),
        (dhcp_options, [{"opt_name": "a", "opt_value": "1"}, {"opt_name": "a", "opt_value": "2"}], "'a' of IPv4"),
        (sub_ports, [{"port_id": UUIDS[0]}, {"port_id": UUIDS[1]}, {"port_id": UUIDS[0]}], UUIDS[0]),
        (
            sub_ports,
            [{"port_id": UUIDS[n], "segmentation_type": "vlan", "segmentation_id": 7} for n in range(2)],
            "segmentation ID '7' for 'vlan'",
        ),
    ],
)
def test_what_must_differ_in_a_part_is_found_in_one_pass_too(checked: check.Check, items: list[Any], says: str) -> None:
    assert checked(items[:1])
    with pytest.raises(ValueError, match=says):
        checked(items)


@pytest.mark.parametrize(
    "value",
    ["x" * 10_000_000, ["x"] * 1_000_000, {str(n): n for n in range(100_000)}, [["x" * 1_000_000]], [[[[]] * 99] * 99]],
    ids=["text", "list", "object", "text in lists", "lists in lists"],
)
def test_a_message_repeats_no_more_than_the_beginning_of_a_value(value: Any) -> None:
    for checked in (check.uuid, check.boolean, check.mac, check.cidr, check.ip, check.text(5), check.one_of("a")):
        with pytest.raises(ValueError, match=r"not|exceeds") as told:
            checked(value)
        assert len(str(told.value)) < 1500


def test_a_message_repeats_what_is_short_whole() -> None:
    assert check.brief("10.0.0.0/33") == "'10.0.0.0/33'"
    assert check.brief({"a": [1, None]}) == "'{'a': [1, None]}'"
    assert check.brief([1] * 1000) == "'a list with 1000 entries'"
