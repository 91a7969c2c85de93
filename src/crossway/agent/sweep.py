"""Delete flows that have expired, and what ports that are gone have left in the tables."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Mapping, Set
from typing import Generic, NamedTuple, TypeVar

from crossway.kernel.btf import STRUCT, Btf
from crossway.model.rows import FlowFlag, FlowKey, PortKey, Translation

TCP = 6
SECOND = 1_000_000_000
FRESH_SECONDS = 5  # a client is put down before its flow

Raw = list[tuple[bytes, bytes]]
T = TypeVar("T")


class Halved(NamedTuple, Generic[T]):
    """Something of the rows within ports' shares, and the same of those that are borrowed."""

    assured: T
    borrowed: T


class Swept(NamedTuple):
    """What of the flows is to be deleted, and what is left of them."""

    gone: Halved[list[bytes]]
    left: Set[bytes]
    counted: Mapping[PortKey, int]  # those within shares, by port


CLOSING = FlowFlag.FIN_LOCAL | FlowFlag.FIN_REMOTE


class Idle(NamedTuple):
    """For how many seconds flows may be silent: the programs' own configuration."""

    tcp: int
    new: int
    udp: int
    end: int

    @classmethod
    def of(cls, config: Mapping[str, int]) -> Idle:
        """Return what the programs were loaded with."""
        return cls(*(config[f"flow_idle_{name}"] for name in cls._fields))


def is_expired(proto: int, flags: int, silent: int, idle: Idle) -> bool:
    """Return whether a flow that was silent for that many nanoseconds is over, as the firewall judges it."""
    if flags & FlowFlag.REVOKED:
        limit = idle.udp
    elif not flags & FlowFlag.REPLIED:
        limit = idle.new
    elif proto != TCP:
        limit = idle.udp
    else:
        limit = idle.tcp
    if proto == TCP and (flags & FlowFlag.RST or flags & CLOSING == CLOSING):
        limit = min(limit, idle.end)
    return silent > limit * SECOND


class Shape(NamedTuple):
    """Where in packed rows of `flows` the sweep looks: a whole row would cost it ten times as much."""

    port: struct.Struct
    proto: int
    seen: int
    flags: int

    def told(self, key: bytes, value: bytes) -> tuple[PortKey, bool, int, bytes]:
        """Return a flow's port, whether it is revoked, when it was seen, and its key."""
        flags = struct.unpack_from("<I", value, self.flags)[0]
        seen = struct.unpack_from("<Q", value, self.seen)[0]
        return PortKey(*self.port.unpack_from(key)), bool(flags & FlowFlag.REVOKED), seen, key

    @classmethod
    def of(cls, btf: Btf) -> Shape:
        """Return the places that the object's types have."""
        key = {name: offset for name, _, offset in btf.members(btf.find("flow_key", STRUCT))}
        value = {name: offset for name, _, offset in btf.members(btf.find("flow", STRUCT))}
        if key["port"]:
            raise ValueError("flow_key does not begin with its port")
        return cls(struct.Struct("<IH"), key["proto"], value["seen"], value["flags"])


def expired(flows: Raw, shape: Shape, idle: Idle, live: Set[tuple[int, int]], now: int) -> list[bytes]:
    """Return the keys of flows that are over or whose port is gone."""
    gone = []
    for key, value in flows:
        seen, flags = struct.unpack_from("<Q", value, shape.seen)[0], struct.unpack_from("<I", value, shape.flags)[0]
        if shape.port.unpack_from(key) not in live or is_expired(key[shape.proto], flags, now - seen, idle):
            gone.append(key)
    return gone


def over(raw: Halved[Raw], shape: Shape, idle: Idle, live: Set[tuple[int, int]], now: int) -> Swept:
    """Find the flows that are over or whose port is gone."""
    gone = Halved(*(expired(half, shape, idle, live, now) for half in raw))
    assured = {key for key, _ in raw.assured} - set(gone.assured)
    borrowed = {key for key, _ in raw.borrowed} - set(gone.borrowed)
    # Two processors may have begun it at once, or the agent died between two steps.
    gone.borrowed.extend(assured & borrowed)
    counted = Counter(PortKey(*shape.port.unpack_from(key)) for key in assured)
    return Swept(gone, assured | borrowed, counted)


def clients_gone(
    translations: Mapping[FlowKey, Translation],
    pack: Callable[[FlowKey], bytes],
    flows: Set[bytes],
    live: Mapping[tuple[int, int], bool],
    idle: Idle,
    now: int,
) -> list[FlowKey]:
    """Return the clients of published ports whose flow is over, or whose port is gone.

    *live*: the ports, and whether each is secured; those that are not have no flows, and a client goes by its silence.
    """
    gone = []
    for key, row in translations.items():
        secured, silent = live.get((key.port.ifindex, key.port.vlan)), now - row.seen
        if secured is None:
            gone.append(key)
        elif secured and pack(key) not in flows:
            if silent > FRESH_SECONDS * SECOND:
                gone.append(key)
        elif not secured and silent > (idle.tcp if key.proto == TCP else idle.udp) * SECOND:
            gone.append(key)
    return gone
