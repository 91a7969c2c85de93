"""Which flows are over."""

from __future__ import annotations

import struct

import pytest

from crossway.agent.sweep import SECOND, Idle, Shape, expired, is_expired
from crossway.model.rows import FlowFlag

IDLE = Idle(tcp=86400, new=60, udp=180, end=30)
SHAPE = Shape(struct.Struct("<IH"), proto=8, seen=0, flags=8)
TCP, UDP = 6, 17
BOTH = FlowFlag.FIN_LOCAL | FlowFlag.FIN_REMOTE


@pytest.mark.parametrize(
    ("proto", "flags", "seconds"),
    [
        (TCP, FlowFlag.OUT, 60),
        (TCP, FlowFlag.OUT | FlowFlag.REPLIED, 86400),
        (TCP, FlowFlag.REPLIED | FlowFlag.FIN_LOCAL, 86400),
        (TCP, FlowFlag.REPLIED | BOTH, 30),
        (TCP, FlowFlag.REPLIED | FlowFlag.RST, 30),
        (TCP, FlowFlag.RST, 30),
        (TCP, FlowFlag.REPLIED | FlowFlag.REVOKED, 180),
        (TCP, FlowFlag.REPLIED | FlowFlag.REVOKED | FlowFlag.RST, 30),
        (UDP, FlowFlag.OUT, 60),
        (UDP, FlowFlag.OUT | FlowFlag.REVOKED, 180),
        (UDP, FlowFlag.REPLIED, 180),
        (UDP, FlowFlag.REPLIED | BOTH, 180),
    ],
)
def test_a_flow_is_over_after_its_silence(proto: int, flags: int, seconds: int) -> None:
    assert not is_expired(proto, flags, seconds * SECOND, IDLE)
    assert is_expired(proto, flags, seconds * SECOND + 1, IDLE)


def test_a_clock_behind_that_of_the_packet_expires_nothing() -> None:
    assert not is_expired(TCP, 0, -5 * SECOND, IDLE)


def test_flows_of_ports_that_are_gone_are_over() -> None:
    def row(ifindex: int, vlan: int, seen: int) -> tuple[bytes, bytes]:
        return struct.pack("<IHHB", ifindex, vlan, 0, UDP), struct.pack("<QI", seen, FlowFlag.REPLIED)

    now = 10**6 * SECOND
    flows = [row(5, 0, now), row(5, 7, now), row(6, 0, now), row(5, 0, now - 181 * SECOND)]
    gone = expired(flows, SHAPE, IDLE, {(5, 0), (6, 0)}, now)
    assert gone == [flows[1][0], flows[3][0]]
