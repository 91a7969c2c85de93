"""What a store promises; memory, SQLite and (to come) etcd keep it alike.

Keys are strings with slashes, values are bytes. One revision counts the
transactions of the whole store. A transaction says what it relies on; if that
no longer holds, nothing of it happens. A watch tells every change in order.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

import msgspec


class Event(msgspec.Struct, frozen=True, gc=False):
    """One key that was put, or deleted (value None)."""

    key: str
    value: bytes | None


class Change(msgspec.Struct, frozen=True, gc=False):
    """All that one transaction did."""

    revision: int
    events: tuple[Event, ...]


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A key as it stands; *modified* is the revision that last put it."""

    key: str
    value: bytes
    modified: int


class Transaction(msgspec.Struct):
    """What is relied on, and what is to be done if all of it holds.

    *same*: each key was last put at this revision; 0 says it is absent.
    *exists*: each key is there, in whatever state.
    *quiet*: no key that begins so was put after this revision; 0 says there is none.
    """

    same: dict[str, int] = msgspec.field(default_factory=dict)
    exists: set[str] = msgspec.field(default_factory=set)
    quiet: dict[str, int] = msgspec.field(default_factory=dict)
    puts: dict[str, bytes] = msgspec.field(default_factory=dict)
    deletes: set[str] = msgspec.field(default_factory=set)

    def events(self) -> tuple[Event, ...]:
        """Return what a watch tells of this transaction: deletions first."""
        return (
            *(Event(key, None) for key in sorted(self.deletes)),
            *(Event(key, value) for key, value in self.puts.items()),
        )


class Stale(Exception):
    """Something that a transaction relied on has changed; *keys* name it, by *revision* it had."""

    def __init__(self, keys: list[str], revision: int) -> None:
        super().__init__(f"changed meanwhile: {', '.join(keys)}")
        self.keys, self.revision = keys, revision


class Compacted(Exception):
    """The history that a watch asked for is gone; read everything anew."""


class Store(Protocol):
    async def commit(self, transaction: Transaction) -> int:
        """Do it durably and return its revision, or raise Stale having done nothing."""

    async def read(self, prefix: str) -> tuple[int, list[Entry]]:
        """Return the present revision and all keys that begin with *prefix*, in order."""

    def watch(self, after: int) -> AsyncIterator[list[Change]]:
        """Yield every change after the revision *after*, in order, without end; or raise Compacted."""

    async def close(self) -> None:
        """Give back what the store holds; nothing more is asked of it."""


def after_prefix(prefix: str) -> str:
    """Return the first key beyond all that begin with *prefix* (which ends below U+10FFFF)."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)
