"""Which flows are over."""

from __future__ import annotations

import struct

import pytest

from crossway.agent.sweep import FRESH_SECONDS, SECOND, Idle, Shape, clients_gone, expired, is_expired
from crossway.model.rows import NO_IP, FlowFlag, FlowKey, PortKey, Translation

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


@pytest.mark.parametrize(
    ("port", "proto", "flow", "silent", "over"),
    [
        (1, TCP, True, 10_000, False),
        (1, TCP, False, FRESH_SECONDS, False),  # its flow may be a moment behind
        (1, TCP, False, FRESH_SECONDS + 1, True),
        (2, TCP, False, IDLE.tcp, False),  # not secured: it has no flows
        (2, UDP, False, IDLE.udp, False),
        (2, UDP, False, IDLE.udp + 1, True),
        (3, TCP, True, 0, True),
    ],
)
def test_a_client_of_a_published_port_goes_with_its_flow(
    port: int, proto: int, flow: bool, silent: int, over: bool
) -> None:
    key = FlowKey(PortKey(port), NO_IP, NO_IP, 80, 4000, proto)
    rows = {key: Translation(0, NO_IP, NO_IP, 1, 8080)}
    flows = {b"flow"} if flow else set[bytes]()
    gone = clients_gone(rows, lambda _: b"flow", flows, {(1, 0): True, (2, 0): False}, IDLE, silent * SECOND)
    assert gone == ([key] if over else [])
