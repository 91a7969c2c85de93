"""What one host tells another of a port's connections when the port moves.

A connection is 48 bytes in network order: local and remote address (IPv4 mapped), their ports, the
protocol, three zero bytes, flags as in `struct flow`, and for how many milliseconds it was silent.
It says nothing of policy: the host that takes it over judges it anew by its own rows.
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Mapping

from crossway.model import rows as r

ROW = struct.Struct("!16s16sHHB3xII")
NAME = 40  # bytes at its beginning that say which one it is
MOST = 8192  # connections that are told, the latest first
MILLISECOND = 1_000_000
LONGEST = 0xFFFFFFFF


def packed(flows: Mapping[r.FlowKey, r.Flow], now: int) -> str:
    """Return the connections of one port as text; *now* is in nanoseconds of the clock that `seen` has."""
    return base64.b64encode(b"".join(rows(flows, now))).decode()


def rows(flows: Mapping[r.FlowKey, r.Flow], now: int) -> list[bytes]:
    """Return the connections of one port, the latest first."""
    latest = sorted(flows.items(), key=lambda row: -row[1].seen)[:MOST]
    return [
        ROW.pack(
            key.local,
            key.remote,
            key.local_port,
            key.remote_port,
            key.proto,
            flow.flags,
            min(max(0, now - flow.seen) // MILLISECOND, LONGEST),
        )
        for key, flow in latest
    ]


def split(raw: bytes) -> list[bytes]:
    """Return connections one by one; what is left over at the end is none."""
    return [raw[at : at + ROW.size] for at in range(0, len(raw) - ROW.size + 1, ROW.size)]


def unpacked(text: str) -> bytes:
    """Return the connections of one port, one after the other; raises ValueError for what is none."""
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as fault:
        raise ValueError(f"the connections of a port are not base64: {fault}") from fault


def read(raw: bytes, port: r.PortKey, identity: int, generation: int, now: int) -> dict[r.FlowKey, r.Flow]:
    """Return the rows of a port's connections on this host; raises ValueError for what is none.

    *generation* is one that the identity's policy no longer has: each connection
    is judged with its next packet.
    """
    if len(raw) % ROW.size:
        raise ValueError(f"{len(raw)} bytes are no connections of {ROW.size} bytes each")
    rows = {}
    for local, remote, local_port, remote_port, proto, flags, silent in ROW.iter_unpack(raw):
        key = r.FlowKey(port, local, remote, local_port, remote_port, proto)
        rows[key] = r.Flow(max(1, now - silent * MILLISECOND), generation, identity, 0, flags)
    return rows
