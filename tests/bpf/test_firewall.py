"""Security groups in the data plane: who may begin, what follows from it, and how it ends."""

from __future__ import annotations

import pytest

from bpf.packets import (
    ACK,
    FIN,
    GRE,
    ICMP,
    ICMPV6,
    IPV4,
    IPV6,
    MF,
    RST,
    SCTP,
    SYN,
    TCP,
    UDP,
    echo,
    eth,
    icmp,
    ip,
    ipv6_fragment,
    tcp,
    udp,
)  # fmt: skip
from bpf.world import (
    AWAY,
    FAR,
    RED,
    STOLEN,
    A,
    B,
    D,
    Who,
    World,
    any_rule,
    frame,
    gateway,
    prefix_rule,
    rule,
    world,
)  # fmt: skip
from crossway.kernel.bpf import REDIRECT, Object, lib
from crossway.model import rows as r

IN, OUT = r.Way.IN, r.Way.OUT
ECHO = {4: 8, 6: 128}
SECOND = 10**9
HASH = 1  # BPF_MAP_TYPE_HASH


def proto_of_icmp(v: int) -> int:
    return ICMP if v == 4 else ICMPV6


def out(w: World, proto: int, body: bytes, v: int = 4, to: Who = FAR, **options: int) -> str | None:
    """Send from A to a port on another host; return why it did not pass."""
    return w.send(frame(A, to, proto, body, v, **options)).drop


def back(w: World, proto: int, body: bytes, v: int = 4, identity: int = FAR.identity, **options: int) -> str | None:
    """Send from the other host to A; return why it did not pass."""
    return w.receive(frame(FAR, A, proto, body, v, **options), identity=identity).drop


def only_out(w: World) -> None:
    w.policy(A.identity, any_rule(A.identity, OUT), any_rule(A.identity, OUT, 6))


def only_in(w: World) -> None:
    w.policy(A.identity, any_rule(A.identity, IN), any_rule(A.identity, IN, 6))


CONVERSATIONS = {
    "UDP": (UDP, udp(1000, 53), udp(53, 1000)),
    "TCP": (TCP, tcp(1000, 80), tcp(80, 1000, SYN | ACK)),
    "SCTP": (SCTP, udp(1000, 80), udp(80, 1000)),
    "another protocol": (GRE, b"there", b"back"),
    "echo": (0, b"request", b"reply"),
}


def conversation(name: str, v: int) -> tuple[int, bytes, bytes]:
    if name == "echo":
        return proto_of_icmp(v), echo(v, 7), echo(v, 7, reply=True)
    return CONVERSATIONS[name]


@pytest.mark.parametrize("v", [4, 6])
@pytest.mark.parametrize("name", CONVERSATIONS)
def test_an_answer_passes_and_nothing_else_does(w: World, name: str, v: int) -> None:
    only_out(w)
    proto, there, answer = conversation(name, v)
    assert back(w, proto, answer, v) == "POLICY_IN"
    assert out(w, proto, there, v) is None
    assert back(w, proto, answer, v) is None
    other = D  # another address
    assert w.receive(frame(other, A, proto, answer, v), identity=FAR.identity).drop == "POLICY_IN"


@pytest.mark.parametrize("v", [4, 6])
@pytest.mark.parametrize("name", CONVERSATIONS)
def test_what_came_in_may_be_answered(w: World, name: str, v: int) -> None:
    only_in(w)
    proto, there, answer = conversation(name, v)
    assert out(w, proto, answer, v) == "POLICY_OUT"
    assert back(w, proto, there, v) is None
    assert out(w, proto, answer, v) is None


@pytest.mark.parametrize(
    "answer", [udp(53, 1001), udp(54, 1000), udp(1000, 53)], ids=["other port", "other server", "ports the wrong way"]
)
def test_an_answer_has_the_ports_of_what_it_answers(w: World, answer: bytes) -> None:
    only_out(w)
    assert out(w, UDP, udp(1000, 53)) is None
    assert back(w, UDP, answer) == "POLICY_IN"


def test_both_sides_of_one_host_judge(w: World) -> None:
    w.policy(B.identity)
    assert w.send(frame(A, B, UDP, udp(1, 2))).drops == {(B.device, "POLICY_IN"): 1}
    w.policy(A.identity)
    assert w.send(frame(A, B, UDP, udp(1, 2))).drops == {(A.device, "POLICY_OUT"): 1}
    assert {k.port for k in w.flows()} == {A.key}


def test_both_sides_of_one_host_remember(w: World) -> None:
    only_out(w)
    w.policy(B.identity, any_rule(B.identity, IN))
    assert w.send(frame(A, B, UDP, udp(1, 2))).passed
    assert w.send(frame(B, A, UDP, udp(2, 1)), B).passed
    flags = {k.port: row.flags for k, row in w.flows().items()}
    assert flags == {A.key: r.FlowFlag.OUT | r.FlowFlag.REPLIED, B.key: r.FlowFlag.REPLIED}


@pytest.mark.parametrize("v", [4, 6])
def test_both_may_ping_under_one_identifier(w: World, v: int) -> None:
    only_out(w)
    proto = proto_of_icmp(v)
    assert out(w, proto, echo(v, 7), v) is None
    assert back(w, proto, echo(v, 7), v) == "POLICY_IN"
    w.policy(A.identity, any_rule(A.identity, OUT, v), any_rule(A.identity, IN, v))
    assert back(w, proto, echo(v, 7), v) is None
    assert len(w.flows()) == 2


@pytest.mark.parametrize("v", [4, 6])
def test_an_echo_reply_begins_nothing(w: World, v: int) -> None:
    w.policy(A.identity, any_rule(A.identity, IN, v))
    assert back(w, proto_of_icmp(v), echo(v, 7, reply=True), v) is None
    assert out(w, proto_of_icmp(v), echo(v, 7), v) == "POLICY_OUT"
    assert w.flows() == {}


# ---- Time.


def ago(seen: int, seconds: float) -> int:
    """Return an earlier time; the machine may be younger than that."""
    return (seen - int(seconds * SECOND)) % 2**64


def age(w: World, seconds: float) -> None:
    """Let all flows have been silent for longer."""
    w.put_flows({k: row._replace(seen=ago(row.seen, seconds)) for k, row in w.flows().items()})


@pytest.mark.parametrize(
    ("proto", "packets", "idle"),
    [
        (UDP, [("out", udp(1, 2))], 60),
        (UDP, [("out", udp(1, 2)), ("back", udp(2, 1))], 180),
        (TCP, [("out", tcp(1, 2))], 60),
        (TCP, [("out", tcp(1, 2)), ("back", tcp(2, 1, SYN | ACK))], 86400),
        (TCP, [("out", tcp(1, 2)), ("back", tcp(2, 1, ACK)), ("out", tcp(1, 2, FIN | ACK))], 86400),
        (TCP, [("out", tcp(1, 2)), ("back", tcp(2, 1, FIN | ACK)), ("out", tcp(1, 2, FIN | ACK))], 30),
        (TCP, [("out", tcp(1, 2)), ("back", tcp(2, 1, RST))], 30),
        (GRE, [("out", b"x"), ("back", b"x")], 180),
    ],
    ids=["UDP alone", "UDP answered", "SYN alone", "TCP", "TCP half closed", "TCP closed", "TCP reset", "GRE"],
)
def test_a_flow_lives_for_as_long_as_it_may_be_silent(
    w: World, proto: int, packets: list[tuple[str, bytes]], idle: int
) -> None:
    only_out(w)
    for way, body in packets:
        assert (out if way == "out" else back)(w, proto, body) is None
    probe = {UDP: udp(2, 1), TCP: tcp(2, 1, ACK), GRE: b"x"}[proto]
    age(w, idle - 2)
    assert back(w, proto, probe) is None
    w.reset()
    only_out(w)
    for way, body in packets:
        (out if way == "out" else back)(w, proto, body)
    age(w, idle + 2)
    assert back(w, proto, probe) == "POLICY_IN"


def test_a_packet_renews_a_flow(w: World) -> None:
    only_out(w)
    for _ in range(5):
        assert out(w, UDP, udp(1, 2)) is None
        age(w, 40)
    assert back(w, UDP, udp(2, 1)) is None


def test_a_syn_on_a_closing_flow_is_a_new_one(w: World) -> None:
    only_out(w)
    out(w, TCP, tcp(1, 2))
    back(w, TCP, tcp(2, 1, RST))
    assert back(w, TCP, tcp(2, 1, SYN)) == "POLICY_IN"
    assert back(w, TCP, tcp(2, 1, ACK)) is None
    assert out(w, TCP, tcp(1, 2, SYN)) is None
    assert [row.flags for row in w.flows().values()] == [r.FlowFlag.OUT]


# ---- Changes of policy.


def test_a_flow_outlives_a_change_that_still_allows_it(w: World) -> None:
    only_out(w)
    out(w, UDP, udp(1, 2))
    w.changed(A.identity)
    assert back(w, UDP, udp(2, 1)) is None
    assert [row.generation for row in w.flows().values()] == [w.bpf.table("generations").get(A.identity)]


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_taking_the_rule_away_ends_the_flow_both_ways(w: World, name: str) -> None:
    only_out(w)
    proto, there, answer = conversation(name, 4)
    out(w, proto, there)
    assert back(w, proto, answer) is None
    w.policy(A.identity)
    assert back(w, proto, answer) in ("POLICY_IN", "POLICY_OUT")
    assert out(w, proto, there) == "POLICY_OUT"


def test_a_rule_that_is_given_back_revives_the_flow(w: World) -> None:
    only_out(w)
    out(w, UDP, udp(1, 2))
    w.policy(A.identity)
    assert out(w, UDP, udp(1, 2)) == "POLICY_OUT"
    only_out(w)
    assert out(w, UDP, udp(1, 2)) is None
    assert back(w, UDP, udp(2, 1)) is None


def test_what_others_rules_change_does_not_matter(w: World) -> None:
    only_out(w)
    out(w, UDP, udp(1, 2))
    w.policy(B.identity)
    assert back(w, UDP, udp(2, 1)) is None


def test_a_flow_is_judged_anew_when_the_other_side_becomes_somebody_else(w: World) -> None:
    w.policy(A.identity, rule(A.identity, OUT, FAR.identity))
    assert out(w, UDP, udp(1, 2)) is None
    assert back(w, UDP, udp(2, 1)) is None
    assert back(w, UDP, udp(2, 1), identity=5) is not None


def test_a_flow_is_judged_anew_when_the_port_becomes_somebody_else(w: World) -> None:
    only_out(w)
    out(w, UDP, udp(1, 2))
    w.policy(6)
    w.add(A._replace(identity=6))
    assert back(w, UDP, udp(2, 1)) is not None


def test_a_port_without_groups_says_and_hears_nothing(w: World) -> None:
    w.add(A._replace(identity=0))
    assert out(w, UDP, udp(1, 2)) == "POLICY_OUT"
    assert back(w, UDP, udp(2, 1)) == "POLICY_IN"


# ---- Rules.


@pytest.mark.parametrize("v", [4, 6])
def test_a_stateless_rule_allows_no_answer(w: World, v: int) -> None:
    w.policy(A.identity, any_rule(A.identity, OUT, v, stateless=1))
    assert out(w, UDP, udp(1, 2), v) is None
    assert w.flows() == {}
    assert back(w, UDP, udp(2, 1), v) == "POLICY_IN"
    w.policy(A.identity, any_rule(A.identity, OUT, v, stateless=1), any_rule(A.identity, IN, v, stateless=1))
    assert back(w, UDP, udp(2, 1), v) is None
    assert w.flows() == {}


@pytest.mark.parametrize("stateful", ["identity", "prefix"])
def test_one_stateful_rule_that_allows_it_is_enough_for_an_answer(w: World, stateful: str) -> None:
    w.policy(
        A.identity,
        any_rule(A.identity, OUT, stateless=1),
        rule(A.identity, OUT, FAR.identity, stateless=int(stateful != "identity")),
        rule(A.identity, OUT, number=9, stateless=int(stateful != "prefix")),
    )
    w.put("prefixes", prefix_rule(A.identity, OUT, r.pack_ip("10.0.0.0"), 120, 9))
    assert out(w, UDP, udp(1, 2)) is None
    assert back(w, UDP, udp(2, 1)) is None


def test_a_flow_whose_rule_becomes_stateless_is_no_more(w: World) -> None:
    only_out(w)
    out(w, UDP, udp(1, 2))
    w.policy(A.identity, any_rule(A.identity, OUT, stateless=1))
    assert out(w, UDP, udp(1, 2)) is None
    assert back(w, UDP, udp(2, 1)) == "POLICY_IN"


def packet_of(v: int, proto: int, port: int) -> tuple[int, bytes]:
    if proto == ICMP:
        return proto_of_icmp(v), icmp(port >> 8, port & 255)
    return proto, {TCP: tcp, UDP: udp, SCTP: udp}.get(proto, lambda *_: b"data")(999, port)


ANY = (None, None, 16)
RULES = {
    "any": (ANY, [(TCP, 1), (UDP, 65535), (GRE, 0), (ICMP, 8 << 8)], []),
    "protocol": ((TCP, None, 16), [(TCP, 1), (TCP, 65535)], [(UDP, 1), (GRE, 0), (ICMP, 8 << 8), (SCTP, 1)]),
    "port": ((TCP, 80, 16), [(TCP, 80)], [(TCP, 81), (TCP, 79), (UDP, 80), (SCTP, 80)]),
    "port 0": ((UDP, 0, 16), [(UDP, 0)], [(UDP, 1)]),
    "8 ports": ((TCP, 80, 13), [(TCP, p) for p in (80, 87)], [(TCP, 79), (TCP, 88)]),
    "half of the ports": ((UDP, 32768, 1), [(UDP, 32768), (UDP, 65535)], [(UDP, 32767)]),
    "SCTP": ((SCTP, 80, 16), [(SCTP, 80)], [(SCTP, 81)]),
    "another protocol": ((GRE, None, 16), [(GRE, 0)], [(TCP, 1), (89, 0)]),
}
V4_ICMP = {
    "ICMP type": ((ICMP, 13 << 8, 8), [(ICMP, 13 << 8), (ICMP, 13 << 8 | 3)], [(ICMP, 14 << 8)]),
    "ICMP type and code": ((ICMP, 3 << 8 | 1, 16), [(ICMP, 3 << 8 | 1)], [(ICMP, 3 << 8), (ICMP, 3 << 8 | 2)]),
}


@pytest.mark.parametrize(("match", "fits", "others"), [*RULES.values(), *V4_ICMP.values()], ids=[*RULES, *V4_ICMP])
@pytest.mark.parametrize("way", [IN, OUT])
@pytest.mark.parametrize("v", [4, 6])
def test_a_rule_allows_what_it_says(
    w: World, way: r.Way, v: int, match: tuple[int | None, int | None, int], fits: list[tuple[int, int]],
    others: list[tuple[int, int]],
) -> None:  # fmt: skip
    proto, port, bits = match
    if v == 6 and proto == ICMP:
        proto = ICMPV6
    if v == 6:  # not the types that neighbours need
        fits = [x for x in fits if x[0] != ICMP or x[1] >> 8 not in (8,)]
    w.policy(A.identity, any_rule(A.identity, way, v, proto=proto, port=port, bits=bits))
    pass_out, pass_in = (None, "POLICY_IN") if way == OUT else ("POLICY_OUT", None)
    for p in fits:
        clear(w)
        assert out(w, *packet_of(v, *p), v) == pass_out, p
        clear(w)
        assert back(w, *packet_of(v, *p), v) == pass_in, p
    for p in others:
        clear(w)
        assert out(w, *packet_of(v, *p), v) == "POLICY_OUT", p
        assert back(w, *packet_of(v, *p), v) == "POLICY_IN", p


def clear(w: World) -> None:
    w.forget()


@pytest.mark.parametrize("v", [4, 6])
def test_a_rule_is_of_one_family(w: World, v: int) -> None:
    w.policy(A.identity, any_rule(A.identity, OUT, v))
    assert out(w, UDP, udp(1, 2), v) is None
    assert out(w, UDP, udp(1, 2), 10 - v) == "POLICY_OUT"


@pytest.mark.parametrize("way", [IN, OUT])
def test_a_rule_for_an_identity(w: World, way: r.Way) -> None:
    w.policy(A.identity, rule(A.identity, way, FAR.identity, proto=TCP, port=80))
    if way == OUT:
        assert out(w, TCP, tcp(1, 80)) is None
        assert out(w, TCP, tcp(1, 81)) == "POLICY_OUT"
        assert w.send(frame(A, B, TCP, tcp(1, 80))).drop == "POLICY_OUT"
    else:
        assert back(w, TCP, tcp(1, 80)) is None
        assert back(w, TCP, tcp(2, 80), identity=4) == "POLICY_IN"
        assert back(w, TCP, tcp(3, 80), identity=0) == "POLICY_IN"


def test_an_identity_of_another_host_holds_behind_routers(w: World) -> None:
    w.policy(A.identity, rule(A.identity, OUT, AWAY.identity))
    assert w.send(frame(A, AWAY, UDP, udp(1, 2), to=gateway(RED))).passed
    assert w.send(frame(A, D, UDP, udp(1, 2), to=gateway(RED))).drop == "POLICY_OUT"


@pytest.mark.parametrize("v", [4, 6])
def test_the_longest_prefix_has_the_rules(w: World, v: int) -> None:
    """A narrower prefix is a class of its own; who writes the rows gives it the wider one's rules too."""
    wide, narrow = r.pack_ip("10.0.0.0" if v == 4 else "fd00::"), r.pack_ip(FAR.ip(v))
    w.policy(
        A.identity,
        rule(A.identity, OUT, family=v, number=11, proto=UDP, port=53),
        rule(A.identity, OUT, family=v, number=12, proto=UDP, port=80),
    )
    w.put("prefixes", prefix_rule(A.identity, OUT, wide, 120 if v == 4 else 64, 11))
    assert out(w, UDP, udp(1, 53), v) is None
    w.put("prefixes", prefix_rule(A.identity, OUT, narrow, 128, 12))
    assert out(w, UDP, udp(2, 53), v) == "POLICY_OUT"
    assert out(w, UDP, udp(1, 80), v) is None
    assert w.send(frame(A, B, UDP, udp(1, 53), v)).passed


def test_a_prefix_is_of_one_identity_and_way(w: World) -> None:
    w.policy(A.identity, rule(A.identity, OUT, number=11), rule(A.identity, IN, number=11))
    w.put("prefixes", prefix_rule(A.identity, IN, r.pack_ip("10.0.0.0"), 120, 11))
    assert out(w, UDP, udp(1, 2)) == "POLICY_OUT"
    assert back(w, UDP, udp(1, 2)) is None


# ---- ICMP errors.

ERRORS = {4: [(3, 1), (3, 4), (11, 0), (12, 0)], 6: [(1, 0), (2, 0), (3, 0), (4, 1)]}


def about(v: int, src: Who, dst: Who, proto: int, body: bytes, type: int, code: int) -> bytes:
    packet = ip(src.ip(v), dst.ip(v), proto, body)
    return icmp(type, code, bytes(4), packet[:96])


@pytest.mark.parametrize("name", CONVERSATIONS)
@pytest.mark.parametrize(("v", "error"), [(v, e) for v in (4, 6) for e in ERRORS[v]])
def test_an_error_about_a_flow_passes(w: World, v: int, error: tuple[int, int], name: str) -> None:
    only_out(w)
    proto, there, _ = conversation(name, v)
    body = about(v, A, FAR, proto, there, *error)
    assert back(w, proto_of_icmp(v), body, v) == "POLICY_IN"
    assert out(w, proto, there, v) is None
    assert back(w, proto_of_icmp(v), body, v) is None


@pytest.mark.parametrize("v", [4, 6])
def test_an_error_of_ones_own_about_a_flow_passes(w: World, v: int) -> None:
    only_in(w)
    error = ERRORS[v][0]
    assert back(w, UDP, udp(5, 6), v) is None
    assert out(w, proto_of_icmp(v), about(v, FAR, A, UDP, udp(5, 6), *error), v) is None
    assert out(w, proto_of_icmp(v), about(v, FAR, A, UDP, udp(5, 7), *error), v) == "POLICY_OUT"


@pytest.mark.parametrize("v", [4, 6])
@pytest.mark.parametrize(
    "what",
    ["another port", "somebody else's packet", "no error", "redirect", "short", "another version", "later fragment"],
)
def test_an_error_about_nothing_that_is_known_does_not(w: World, v: int, what: str) -> None:
    only_out(w)
    out(w, UDP, udp(1, 2), v)
    type, code = ERRORS[v][0]
    body = about(v, A, FAR, UDP, udp(1, 2), type, code)
    if what == "another port":
        body = about(v, A, FAR, UDP, udp(1, 3), type, code)
    elif what == "somebody else's packet":
        body = about(v, B, FAR, UDP, udp(1, 2), type, code)
    elif what == "no error":
        body = about(v, A, FAR, UDP, udp(1, 2), 13 if v == 4 else 200, 0)
    elif what == "redirect":
        body = about(v, A, FAR, UDP, udp(1, 2), 5 if v == 4 else 137, 0)
    elif what == "short":
        body = body[: 8 + (20 if v == 4 else 40) + 2]
    elif what == "another version":
        body = body[:8] + b"\x55" + body[9:]
    elif what == "later fragment":
        if v == 4:
            body = body[:14] + b"\0\7" + body[16:]
        else:
            packet = ip(A.ip6, FAR.ip6, 44, ipv6_fragment(UDP, 64, False, 1, udp(1, 2)))
            body = icmp(type, code, bytes(4), packet)
    assert back(w, proto_of_icmp(v), body, v) == "POLICY_IN"


def test_an_error_about_a_revoked_flow_does_not_pass(w: World) -> None:
    only_out(w)
    out(w, UDP, udp(1, 2))
    w.policy(A.identity)
    out(w, UDP, udp(1, 2))
    assert back(w, ICMP, about(4, A, FAR, UDP, udp(1, 2), 3, 1)) == "POLICY_IN"


def test_an_error_about_a_fragmented_ipv6_packet_passes(w: World) -> None:
    only_out(w)
    assert out(w, UDP, udp(1, 2), 6) is None
    packet = ip(A.ip6, FAR.ip6, 44, ipv6_fragment(UDP, 0, True, 1, udp(1, 2)))
    assert back(w, ICMPV6, icmp(2, 0, bytes(4), packet), 6) is None


# ---- Fragments.


def parts(v: int, id: int, port: int = 2, src: Who = A, dst: Who = FAR) -> list[bytes]:
    """Return a datagram as two fragments."""
    body = udp(1, port, b"x" * 56)
    cut = 32
    if v == 4:
        packets = [
            ip(src.ip4, dst.ip4, UDP, body[:cut], id=id, fragment=MF),
            ip(src.ip4, dst.ip4, UDP, body[cut:], id=id, fragment=cut // 8),
        ]
    else:
        packets = [
            ip(src.ip6, dst.ip6, 44, ipv6_fragment(UDP, 0, True, id, body[:cut])),
            ip(src.ip6, dst.ip6, 44, ipv6_fragment(UDP, cut, False, id, body[cut:])),
        ]
    return [eth(dst.mac, src.mac, IPV4 if v == 4 else IPV6, p) for p in packets]


@pytest.mark.parametrize("v", [4, 6])
def test_later_fragments_follow_the_first(w: World, v: int) -> None:
    w.policy(A.identity, any_rule(A.identity, OUT, v, proto=UDP, port=2))
    first, later = parts(v, 7)
    assert w.send(first).passed
    assert w.send(later).passed
    assert w.send(parts(v, 8)[1]).verdict == STOLEN  # it waits: see test_hold.py


@pytest.mark.parametrize("v", [4, 6])
def test_later_fragments_are_refused_as_the_first(w: World, v: int) -> None:
    w.policy(A.identity, any_rule(A.identity, OUT, v, proto=UDP, port=2))
    assert [w.send(p).drop for p in parts(v, 7, port=3)] == ["POLICY_OUT", "POLICY_OUT"]


@pytest.mark.parametrize("v", [4, 6])
def test_fragments_of_an_answer_pass(w: World, v: int) -> None:
    only_out(w)
    assert out(w, UDP, udp(2, 1), v) is None
    assert [w.receive(p).drop for p in parts(v, 9, src=FAR, dst=A)] == [None, None]
    assert [w.receive(p).drop for p in parts(v, 10, port=3, src=FAR, dst=A)] == ["POLICY_IN", "POLICY_IN"]


@pytest.mark.parametrize("v", [4, 6])
def test_nobody_speaks_for_anothers_fragments(w: World, v: int) -> None:
    first, later = parts(v, 7, src=B)
    assert w.send(first, A).drop == "SPOOFED_MAC"
    assert w.send(first[:6] + A.mac + first[12:], A).drop == f"SPOOFED_IPV{v}"
    assert w.send(later, B).verdict == STOLEN


def test_a_first_fragment_is_forgotten(w: World) -> None:
    first, later = parts(4, 7)
    w.send(first)
    table = w.bpf.table("fragments")
    w.put("fragments", {k: row._replace(seen=ago(row.seen, 31)) for k, row in table.read().items()})
    assert w.send(later).verdict == STOLEN


def test_fragments_of_another_network_are_others(w: World) -> None:
    first, later = parts(4, 7)
    w.send(first)
    rows = w.bpf.table("fragments").read()
    w.put("fragments", {k: row._replace(of=row.of._replace(network=99)) for k, row in rows.items()})
    assert w.send(later).verdict == STOLEN


# ---- When the table of flows is full.


class Full(Object):
    """A data plane whose table of borrowed flows takes one row and refuses the next."""

    def _configure(self, config: object) -> None:
        super()._configure(config)  # type: ignore[arg-type]
        assert lib.bpf_map__set_type(self._map("flows"), HASH) == 0


def test_a_flow_that_the_table_refuses_passes_and_is_counted() -> None:
    with world(Full, sizes={"flows": 1}) as w:
        w.share(A, r.ShareOf.FLOWS, 0)
        assert w.send(frame(A, FAR, UDP, udp(1, 2))).drops == {}
        done = w.send(frame(A, FAR, UDP, udp(3, 4)))
        assert done.verdict == REDIRECT
        assert done.drops == {(A.device, "UNTRACKED"): 1}


def test_addresses_of_the_two_families_never_meet(w: World) -> None:
    only_out(w)
    out(w, UDP, udp(1, 2), 4)
    assert back(w, UDP, udp(2, 1), 6) == "POLICY_IN"
