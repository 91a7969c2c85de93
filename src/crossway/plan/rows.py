"""Rows, and what turns one set of them into another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from crossway.model.rows import TABLES, Key, Value

# Table -> key -> value. By table, since keys of different tables may be equal.
Rows = dict[str, dict[Key, Value]]

# In which order rows are put, so that a packet that finds a row finds all that
# the row leads to: policy before the port that it guards, the port before the
# address that leads to it, the flood list before its length. They are deleted in
# the opposite order.
ORDER = (
    "policies",
    "prefixes",
    "sources",
    "rates",
    "hosts",
    "ports",
    "interfaces",
    "routes",
    "macs",
    "endpoints",
    "members",
    "networks",
    "uplinks",
    "gateways",
    "published",
)


class Change(NamedTuple):
    """Rows to put and keys to delete, by table."""

    put: Rows
    delete: dict[str, set[Key]]

    def __bool__(self) -> bool:
        return bool(self.put or self.delete)

    def identities(self) -> set[int]:
        """Return the identities whose policy it changes."""
        found: set[int] = set()
        for table in ("policies", "prefixes"):
            found.update(key.identity for key in self.put.get(table, ()))
            found.update(key.identity for key in self.delete.get(table, ()))
        return found


def empty() -> Rows:
    """Return all tables that are planned, without rows."""
    return {table: {} for table in TABLES if table in ORDER}


def changes(have: Rows, want: Rows, touched: Mapping[str, Iterable[Key]] | None = None) -> Change:
    """Return what makes *have* into *want*; with *touched*, looking at those keys only."""
    put: Rows = {}
    delete: dict[str, set[Key]] = {}
    for table in ORDER:
        old, new = have.get(table, {}), want.get(table, {})
        keys = old.keys() | new.keys() if touched is None else touched.get(table, ())
        for key in keys:
            value = new.get(key)
            if value is None:
                if key in old:
                    delete.setdefault(table, set()).add(key)
            elif old.get(key) != value:
                put.setdefault(table, {})[key] = value
    return Change(put, delete)
