"""Python's names and numbers are those of the data plane."""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import NamedTuple

import pytest

from crossway.kernel.bpf import Object
from crossway.kernel.btf import STRUCT
from crossway.model import rows as r


@pytest.fixture(scope="module")
def plane() -> Object:
    return Object(sizes={"flows": 128})


ENUMS: list[tuple[type[IntEnum] | type[IntFlag], str, str]] = [
    (r.Body, "body", "BODY_"),
    (r.PortFlag, "port_flag", "PORT_"),
    (r.PlaceKind, "place_kind", "PLACE_"),
    (r.NetworkFlag, "network_flag", "NETWORK_"),
    (r.RouteKind, "route_kind", "ROUTE_"),
    (r.Way, "way", "WAY_"),
    (r.PortSetNumber, "port_set_number", "PORT_SET_"),
    (r.Family, "family", "FAMILY_"),
    (r.FlowFlag, "flow_flag", "FLOW_"),
    (r.ShareOf, "share_of", "SHARE_"),
    (r.SightingKind, "sighting_kind", "SIGHTING_"),
]


@pytest.mark.parametrize(("python", "name", "prefix"), ENUMS, ids=[name for _, name, _ in ENUMS])
def test_an_enum_has_the_numbers_of_c(
    plane: Object, python: type[IntEnum] | type[IntFlag], name: str, prefix: str
) -> None:
    there = {k.removeprefix(prefix): v for k, v in plane.btf.enum(name).items()}
    assert {member.name: int(member) for member in python} == there


def test_there_are_as_many_port_sets_as_in_c(plane: Object) -> None:
    assert plane.table("port_sets").value.size == 2 * r.PORT_SETS // 8
    assert plane.table("policies").value.size == plane.table("prefixes").value.size == r.PORT_SETS // 8


def test_every_table_has_a_layout(plane: Object) -> None:
    for name in r.TABLES:
        assert plane.table(name).key.size > 0


def test_a_name_that_differs_is_refused(plane: Object) -> None:
    class PortKey(NamedTuple):
        ifindex: int
        tag: int

    with pytest.raises(TypeError, match="struct port_key has"):
        plane.btf.layout(plane.btf.find("port_key", STRUCT), PortKey)


def test_a_row_comes_back_as_it_went_in(plane: Object) -> None:
    key = r.FlowKey(r.PortKey(7, 5), r.pack_ip("10.0.0.1"), r.pack_ip("fd00::1"), 80, 40000, 6)
    value = r.Flow(2**40, 3, 4, 5, r.FlowFlag.OUT | r.FlowFlag.REPLIED)
    flows = plane.table("flows")
    flows.put({key: value})
    assert flows.read() == {key: value}
    raw = flows.key.pack(key)
    assert raw[40:44] == bytes([0, 80, 156, 64])  # ports in network order
    flows.delete([key])
    flows.delete([key])
    assert flows.read() == {}


def test_thousands_of_rows_go_in_and_come_out(plane: Object) -> None:
    rows = {
        r.MacKey(n, n.to_bytes(6, "big")): r.Place(r.PlaceKind.REMOTE, identity=n, underlay=r.pack_ip("192.0.2.1"))
        for n in range(1, 10_000)
    }
    table = plane.table("macs")
    table.put(rows)
    assert table.read() == rows
    table.delete(rows)
    assert table.read() == {}


def test_unknown_config_is_refused() -> None:
    with pytest.raises(KeyError):
        Object(config={"colour": 3})
