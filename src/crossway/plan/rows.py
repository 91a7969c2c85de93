"""Rows, and what turns one set of them into another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from typing import NamedTuple

from crossway.model.rows import TABLES, Key, Value, pack_bits, unpack_bits

# Table -> key -> value. By table, since keys of different tables may be equal.
Rows = dict[str, dict[Key, Value]]

# What policy is made of; keys have the identity whose policy it is.
POLICY = ("port_sets", "policies", "prefixes")
PORTS_AT, ADDRESS_AT = 56, 64  # bits of port_set_key and prefix_key up to what is matched

# In which order rows are put, so that a packet that finds a row finds all that
# the row leads to: policy before the port that it guards, the port before the
# address that leads to it, the flood list before its length. They are deleted in
# the opposite order.
ORDER = (
    *POLICY,
    "sources",
    "rates",
    "hosts",
    "ports",
    "interfaces",
    "next_hops",
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
        for table in POLICY:
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


class Step(NamedTuple):
    """One row to put; None: to delete."""

    table: str
    key: Key
    row: Value | None


# Table of policy and identity -> the lengths of the prefixes that its rows have.
Lengths = Mapping[tuple[str, int], Iterable[int]]


def policy_steps(have: Rows, change: Change, lengths: Lengths) -> tuple[Iterator[Step], list[Step]]:
    """Return how a change of policy is written so that no packet is judged worse on the way.

    First each row gets what it is to have, besides what it has; then it loses the
    rest. One that comes begins with what the row has that holds it now, one that
    goes has got what the row has that will. So whatever the old and the new rows
    both allow passes at each moment, by whichever rule; and no step allows what
    neither do, since a number means one thing in both.

    The second list is there when the first steps have been taken; *have* may
    follow them.
    """
    narrower: list[Step] = []
    return _wider(have, change, lengths, narrower), narrower


def _wider(have: Rows, change: Change, lengths: Lengths, narrower: list[Step]) -> Iterator[Step]:
    for table in POLICY:
        old, put, delete = have.get(table, {}), change.put.get(table, {}), change.delete.get(table, set())
        # By identity: which lengths there are now, and which there are with what comes.
        before: dict[int, list[int]] = {}
        after: dict[int, set[int]] = {}
        for key in (*put, *delete):
            if key.identity not in before:
                known = set(lengths.get((table, key.identity), ()))
                before[key.identity], after[key.identity] = sorted(known, reverse=True), known
        for key in put if table != "policies" else ():
            after[key.identity].add(key.prefixlen)
        then = {identity: sorted(known, reverse=True) for identity, known in after.items()}
        for key, row in put.items():
            was = old.get(key) or _outer(table, key, before[key.identity], old)
            both = _both(was, row) if was is not None else row
            if both != row:
                narrower.append(Step(table, key, row))
            if both != old.get(key):
                yield Step(table, key, both)
        for key in delete:
            narrower.append(Step(table, key, None))
            will = _outer(table, key, then[key.identity], put, old, delete)
            both = _both(old[key], will) if will is not None else old[key]
            if both != old[key]:
                yield Step(table, key, both)


def _both(one: Value, other: Value) -> Value:
    """Return a row that has the numbers of both."""
    return type(one)(*(pack_bits(unpack_bits(a) | unpack_bits(b)) for a, b in zip(one, other, strict=True)))


def _outer(
    table: str,
    key: Key,
    lengths: Iterable[int],
    rows: Mapping[Key, Value],
    more: Mapping[Key, Value] | None = None,
    but: Set[Key] = frozenset(),
) -> Value | None:
    """Return the row with the longest prefix that holds a key's, itself aside: of *rows*, else of *more* but some."""
    for length in lengths:
        if length < key.prefixlen:
            outer = _shorter(table, key, length)
            if (row := rows.get(outer)) is not None:
                return row
            if more is not None and outer not in but and (row := more.get(outer)) is not None:
                return row
    return None


def _shorter(table: str, key: Key, length: int) -> Key:
    """Return the key of a shorter prefix that holds a key's."""
    if table == "prefixes":
        rest = ADDRESS_AT + 128 - length
        ip = int.from_bytes(key.ip, "big") >> rest << rest
        return key._replace(prefixlen=length, ip=ip.to_bytes(16, "big"))
    rest = PORTS_AT + 24 - length
    match = (key.proto << 16 | key.port) >> rest << rest
    return key._replace(prefixlen=length, proto=match >> 16, port=match & 0xFFFF)
