"""In which order rows reach the kernel, and what happens when it refuses one."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from crossway.agent.tables import Tables
from crossway.model import rows as r
from crossway.plan.rows import ORDER, Change, empty


class Kernel:
    """Tables that remember what was done to them, and refuse what they are told to."""

    def __init__(self) -> None:
        self.done: list[tuple[str, str, Any]] = []
        self.refused: set[Any] = set()
        self.rows: dict[str, dict[Any, Any]] = {name: {} for name in r.TABLES}

    def table(self, name: str) -> One:
        return One(self, name)


class One:
    size = 1 << 18

    def __init__(self, kernel: Kernel, name: str) -> None:
        self.kernel, self.name = kernel, name

    def put(self, rows: Mapping[Any, Any]) -> None:
        if self.kernel.refused & rows.keys():
            raise OSError(errno.E2BIG, "the table is full")
        self.kernel.done += [("put", self.name, key) for key in rows]
        self.kernel.rows[self.name].update(rows)

    def delete(self, keys: Iterable[Any]) -> None:
        for key in keys:
            self.kernel.done.append(("delete", self.name, key))
            self.kernel.rows[self.name].pop(key, None)

    def read(self) -> dict[Any, Any]:
        return dict(self.kernel.rows[self.name])

    def get(self, key: Any) -> Any:
        return self.kernel.rows[self.name].get(key)


PORT = r.PortKey(5)
POLICY = r.PolicyKey(7, 9, 0, 0)
ROW = r.Policy(r.pack_bits(1 << 5))
MAC = r.MacKey(10, b"\1" * 6)
HERE = r.Place(r.PlaceKind.LOCAL, identity=7, port=PORT)


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


def test_policy_is_there_before_the_port_and_the_port_before_who_leads_to_it(kernel: Kernel) -> None:
    put = {"macs": {MAC: HERE}, "ports": {PORT: "port"}, "policies": {POLICY: ROW}, "sources": {1: 1}}
    Tables(kernel).apply(Change(put, {}))  # type: ignore[arg-type]
    rows = [table for _, table, _ in kernel.done]
    assert rows == ["charges"] * 4 + ["shares"] * 4 + ["policies", "sources", "ports", "macs", "generations"]


def test_deletes_go_the_other_way_and_after_puts(kernel: Kernel) -> None:
    tables = Tables(kernel)  # type: ignore[arg-type]
    tables.apply(Change({"macs": {MAC: HERE}, "ports": {PORT: "port"}, "policies": {POLICY: ROW}}, {}))
    kernel.done.clear()
    change = Change({"hosts": {b"x": 1}}, {"policies": {POLICY}, "ports": {PORT}, "macs": {MAC}})
    tables.apply(change)
    assert [(what, table) for what, table, _ in kernel.done] == [
        ("put", "hosts"),
        ("delete", "macs"),
        ("delete", "ports"),
        ("delete", "policies"),
        ("put", "generations"),
    ]
    assert tables.have == {**empty(), "hosts": {b"x": 1}}


def test_flows_are_judged_anew_after_each_change_of_their_identitys_policy(kernel: Kernel) -> None:
    tables = Tables(kernel)  # type: ignore[arg-type]
    tables.apply(Change({"policies": {POLICY: ROW}}, {}))
    tables.apply(Change({"macs": {MAC: HERE}}, {}))
    assert kernel.rows["generations"] == {7: 1}
    tables.apply(
        Change({"prefixes": {r.PrefixKey(64, 8, 0, 0, bytes(16)): r.Prefix(ROW.allowed)}}, {"policies": {POLICY}})
    )
    assert kernel.rows["generations"] == {7: 2, 8: 1}
    again = Tables(kernel)  # type: ignore[arg-type]
    again.read()
    again.judge_anew({7})
    assert kernel.rows["generations"] == {7: 3, 8: 1}


def test_a_row_that_the_kernel_refuses_keeps_no_other_out_and_is_tried_again(
    kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    tables = Tables(kernel)  # type: ignore[arg-type]
    kernel.refused = {2}
    tables.apply(Change({"sources": {1: 1, 2: 1, 3: 1}}, {}))
    assert kernel.rows["sources"].keys() == tables.have["sources"].keys() == {1, 3}
    assert tables.failed == {"sources": {2}}
    assert "the table is full" in caplog.text
    kernel.refused = set()
    tables.apply(Change({"sources": {2: 1}}, {}))
    assert not tables.failed


def test_all_tables_that_are_planned_have_their_turn() -> None:
    state = {"generations", "flows", "flows_assured", "translations", "translations_assured", "shares", "charges"}
    state |= {"fragments", "early_fragments", "drops"}
    assert sorted(ORDER) == sorted(r.TABLES.keys() - state)
