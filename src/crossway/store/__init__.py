"""Keys, bytes, revisions: the state of a cloud, whatever holds it."""

from __future__ import annotations

from crossway.errors import Invalid
from crossway.store.interface import Change, Compacted, Entry, Event, Stale, Store, Transaction
from crossway.store.memory import MemoryStore
from crossway.store.sqlite import SqliteStore

__all__ = ["Change", "Compacted", "Entry", "Event", "Stale", "Store", "Transaction", "open_store"]


def open_store(address: str) -> Store:
    """Open the store at `memory:` or `sqlite:PATH`."""
    scheme, _, rest = address.partition(":")
    if scheme == "memory":
        return MemoryStore()
    if scheme == "sqlite" and rest:
        return SqliteStore(rest)
    if scheme == "etcd":
        raise Invalid(f"store {address}: etcd is not supported by this version; use sqlite:PATH")
    raise Invalid(f"store {address}: should be sqlite:PATH or memory:")
