"""Who may tell a port by ICMP that its packets go no further: nobody else can break its connections."""

from __future__ import annotations

import struct

import pytest

from bpf.packets import ACK, ICMP, ICMPV6, SYN, TCP, UDP, echo, icmp, ip, tcp, udp
from bpf.test_published import AT, CLIENT, FROM, HOST, LISTENS, answer, come, publish
from bpf.test_published import TOO_BIG as TOO_BIG_AT
from bpf.test_published import quoted as answer_quoted
from bpf.test_switch import OUTSIDE, tagged
from bpf.world import AWAY, FAR, GREY, PUBLIC, RED, A, B, D, Sent, Who, World, any_rule, frame, gateway
from crossway.kernel.bpf import UNSPEC
from crossway.model import rows as r

BOTH = pytest.mark.parametrize("v", [4, 6])
TOO_BIG, UNREACHABLE, EXCEEDED = {4: (3, 4), 6: (2, 0)}, {4: (3, 3), 6: (1, 4)}, {4: (11, 0), 6: (3, 0)}
ERRORS = pytest.mark.parametrize("kind", [TOO_BIG, UNREACHABLE, EXCEEDED], ids=["too big", "unreachable", "exceeded"])
HOP = Who(GREY, 201, 0, None)  # a router of somebody else's


def proto_of(v: int) -> int:
    return ICMP if v == 4 else ICMPV6


def only_out(w: World, *ports: Who) -> None:
    for port in ports:
        w.policy(port.identity, any_rule(port.identity, r.Way.OUT), any_rule(port.identity, r.Way.OUT, 6))


def stream(sequence: int, flags: int = ACK) -> bytes:
    body = tcp(1, 2, flags)
    return body[:4] + struct.pack("!I", sequence & 0xFFFFFFFF) + body[8:]


def about(v: int, src: Who, dst: Who, kind: dict[int, tuple[int, int]], body: bytes, proto: int = UDP) -> bytes:
    return icmp(*kind[v], struct.pack("!HH", 0, 600), ip(src.ip(v), dst.ip(v), proto, body)[:96])


# ---- Between ports.


@BOTH
@ERRORS
@pytest.mark.parametrize("other", [B, FAR], ids=["here", "another host"])
def test_the_other_end_of_a_connection_may_tell(w: World, v: int, kind: dict[int, tuple[int, int]], other: Who) -> None:
    only_out(w, A)
    assert w.send(frame(A, other, UDP, udp(1, 2), v)).passed
    error = frame(other, A, proto_of(v), about(v, A, other, kind, udp(1, 2)), v)
    done = w.send(error, B) if other is B else w.receive(error)
    assert done.to == A.device


@BOTH
@ERRORS
def test_a_neighbour_may_not(w: World, v: int, kind: dict[int, tuple[int, int]]) -> None:
    """Whoever it is: on the same host, on another, behind the router, without port security."""
    only_out(w, A)
    assert w.send(frame(A, FAR, UDP, udp(1, 2), v)).passed
    assert w.send(frame(A, AWAY, UDP, udp(3, 4), v, to=gateway(RED))).passed
    body = about(v, A, FAR, kind, udp(1, 2))
    assert w.send(frame(B, A, proto_of(v), body, v), B).drops == {("da", "POLICY_IN"): 1}
    assert w.send(frame(D, A, proto_of(v), body, v, to=gateway(D.network)), D).drops == {("da", "POLICY_IN"): 1}
    for said in (body, about(v, A, AWAY, kind, udp(3, 4))):
        for src, identity in ((D, 4), (AWAY, 4), (gateway(RED), 0), (Who(RED, 99, 0, None), 0)):
            assert w.receive(frame(src, A, proto_of(v), said, v), identity=identity).drop == "POLICY_IN"
    w.add(B._replace(secured=False, identity=0))  # says that it is the other end
    assert w.send(frame(FAR, A, proto_of(v), body, v), B).drops == {("da", "POLICY_IN"): 1}
    assert w.receive(frame(FAR, A, proto_of(v), body, v), identity=0).drop == "POLICY_IN"


@BOTH
def test_the_kernel_on_the_way_may_tell_as_whom_it_was_sent(w: World, v: int) -> None:
    """A tunnel that is too narrow answers for the other end, with the metadata that the packet had."""
    only_out(w, A)
    assert w.send(frame(A, FAR, UDP, udp(1, 2), v)).passed
    error = frame(FAR, A, proto_of(v), about(v, A, FAR, TOO_BIG, udp(1, 2)), v)
    assert w.receive(error, identity=A.identity).passed


@BOTH
def test_a_router_of_ours_tells_past_the_firewall(w: World, v: int) -> None:
    w.policy(A.identity, any_rule(A.identity, r.Way.OUT, v))
    done = w.send(frame(A, D, UDP, udp(1, 33434), v, to=gateway(RED), ttl=1))
    assert (done.drop, done.to) == ("TTL", A.device)


# ---- From outside.


def from_outside(w: World, v: int, body: bytes, src: Who = HOP) -> Sent:
    return w.run("from_uplink", tagged(frame(src, PUBLIC, proto_of(v), body, v)), "uplink")


@BOTH
@ERRORS
@pytest.mark.parametrize("src", [HOP, OUTSIDE], ids=["a router on the way", "the other end"])
def test_whoever_is_no_port_may_tell_what_fits(w: World, v: int, kind: dict[int, tuple[int, int]], src: Who) -> None:
    only_out(w, PUBLIC)
    assert w.send(frame(PUBLIC, OUTSIDE, UDP, udp(1, 2), v), PUBLIC).passed
    assert w.send(frame(PUBLIC, OUTSIDE, proto_of(v), echo(v, 7), v), PUBLIC).passed
    for body in (
        about(v, PUBLIC, OUTSIDE, kind, udp(1, 2)),
        about(v, PUBLIC, OUTSIDE, kind, echo(v, 7), proto_of(v)),
    ):
        assert from_outside(w, v, body, src).to == PUBLIC.device
    for body in (
        about(v, PUBLIC, OUTSIDE, kind, udp(1, 3)),
        about(v, OUTSIDE, PUBLIC, kind, udp(2, 1)),
        about(v, PUBLIC, HOP, kind, udp(1, 2)),
        about(v, PUBLIC, OUTSIDE, kind, echo(v, 8), proto_of(v)),
    ):
        assert from_outside(w, v, body, src).drop == "POLICY_IN"


@BOTH
def test_an_address_that_a_port_has_is_not_outside(w: World, v: int) -> None:
    other = Who(GREY, 50, 5, None)
    w.put("endpoints", {r.EndpointKey(GREY, r.pack_ip(other.ip(v))): r.Endpoint(other.place, other.mac)})
    only_out(w, PUBLIC)
    w.send(frame(PUBLIC, OUTSIDE, UDP, udp(1, 2), v), PUBLIC)
    assert from_outside(w, v, about(v, PUBLIC, OUTSIDE, TOO_BIG, udp(1, 2)), other).drop == "POLICY_IN"
    assert from_outside(w, v, about(v, PUBLIC, OUTSIDE, TOO_BIG, udp(1, 2)), HOP).passed


@BOTH
@ERRORS
@pytest.mark.parametrize("src", [HOP, OUTSIDE], ids=["a router on the way", "the other end"])
@pytest.mark.parametrize("start", [0, 1, 0x7FFF0000, 0xFFFFF000])
def test_of_tcp_only_what_the_port_has_sent_of_late(
    w: World, v: int, kind: dict[int, tuple[int, int]], src: Who, start: int
) -> None:
    only_out(w, PUBLIC)
    for sequence in (start, start + 1, start + 5_000_000):
        flags = SYN if sequence == start else ACK
        assert w.send(frame(PUBLIC, OUTSIDE, TCP, stream(sequence, flags), v), PUBLIC).passed
    last = start + 5_000_000
    for away, fits in ((0, True), (-1_000_000, True), (1000, True), (-8_000_000, False), (8_000_000, False),
                       (1 << 31, False), (0x5A5A5A5A, False)):  # fmt: skip
        told = from_outside(w, v, about(v, PUBLIC, OUTSIDE, kind, stream(last + away), TCP), src)
        assert told.drop == (None if fits else "POLICY_IN"), away


def test_the_sequence_is_written_seldom(w: World) -> None:
    w.send(frame(PUBLIC, OUTSIDE, TCP, stream(70_000, SYN)), PUBLIC)
    (first,) = [f.flags for f in w.flows().values()]
    w.send(frame(PUBLIC, OUTSIDE, TCP, stream(120_000)), PUBLIC)
    assert [f.flags for f in w.flows().values()] == [first]
    w.send(frame(PUBLIC, OUTSIDE, TCP, stream(140_000)), PUBLIC)
    assert [f.flags >> 16 for f in w.flows().values()] == [2]
    assert first & r.FlowFlag.SEQUENCED


def test_between_ports_no_sequence_is_kept(w: World) -> None:
    w.send(frame(A, FAR, TCP, stream(0x12345678, SYN)))
    w.send(frame(A, FAR, TCP, stream(0x22345678)))
    assert {f.flags >> 16 for f in w.flows().values()} == {0}


@BOTH
def test_an_error_about_a_published_ports_answer_fits_it(w: World, v: int) -> None:
    publish(w)
    come(w, v, TCP, tcp(FROM, AT))
    answer(w, v, TCP, tcp(LISTENS, FROM, SYN | ACK))
    kind, type, code = TOO_BIG_AT[v]
    quote = answer_quoted(v, HOST[v], CLIENT[v], TCP, AT, FROM, 200)
    at = (20 if v == 4 else 40) + 4
    for sequence, there in ((1, A.device), (0x70000000, None)):
        forged = quote[:at] + struct.pack("!I", sequence) + quote[at + 4 :]
        done = come(w, v, kind, icmp(type, code, struct.pack("!HH", 0, 1200), forged))
        assert done.to == there
        assert there or done.verdict == UNSPEC
