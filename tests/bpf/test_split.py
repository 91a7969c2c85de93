"""Packets that a router cuts into fragments, held against a plain model that puts fragments together."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from bpf.guest import GUEST, link, write
from bpf.packets import ACK, DF, GRE, ICMP, IPV4, MF, SCTP, TCP, UDP, checksum, echo, eth, ip, tcp, udp, with_checksum
from bpf.test_limit import limit
from bpf.test_route import transit
from bpf.world import AWAY, BLUE, GREY, RED, ROUTER, STOLEN, A, D, Ears, Sent, Who, World, frame, gateway
from crossway.kernel.bpf import REDIRECT, SHOT
from crossway.model import rows as r

OFFSET, PIECES, PIECE_MAX = 0x1FFF, 64, 2048
TAP = Who(BLUE, 12, 4, "dt", body=r.Body.TAP)
TAGGED = Who(BLUE, 13, 4, "trunk", vlan=6, body=r.Body.VLAN)
OUTSIDE = Who(GREY, 20, 0, None)
TO = {"veth": D, "tap": TAP, "VLAN": TAGGED, "another host": AWAY, "uplink": OUTSIDE}
DEVICE = {"another host": "vxlan", "uplink": "uplink"}


# ---- The model.


@dataclass(frozen=True)
class Ip:
    """An IPv4 packet, as its header says."""

    tos: int
    id: int
    flags: int
    offset: int  # bytes
    ttl: int
    proto: int
    addresses: bytes
    options: bytes
    payload: bytes
    length: int

    @classmethod
    def read(cls, frame: bytes) -> Ip:
        assert frame[12:14] == b"\x08\0", frame[:18]
        packet = frame[14:]
        size = (packet[0] & 15) * 4
        assert packet[0] >> 4 == 4
        assert checksum(packet[:size]) == 0, "header checksum"
        tos, length, id, fragment, ttl, proto = struct.unpack_from("!xBHHHBB", packet)
        assert length == len(packet)
        flags, offset = fragment & ~OFFSET, (fragment & OFFSET) * 8
        return cls(tos, id, flags, offset, ttl, proto, packet[12:20], packet[20:size], packet[size:], length)


def put_together(pieces: list[bytes]) -> Ip:
    """Return the packet that fragments are of, which may be a fragment itself; each must be one of it."""
    parts = sorted((Ip.read(p) for p in pieces), key=lambda part: part.offset)
    first, last, payload = parts[0], parts[-1], b""
    for part in parts:
        assert part.offset == first.offset + len(payload), "a hole, or what overlaps"
        assert (part.tos, part.id, part.ttl, part.proto, part.addresses) == (
            first.tos, first.id, first.ttl, first.proto, first.addresses,
        )  # fmt: skip
        assert part.flags == MF or part is last
        assert len(part.payload) % 8 == 0 or part is last
        if part is not first:
            assert part.options == copied(first.options)
        payload += part.payload
    length = first.length - len(first.payload) + len(payload)
    return Ip(
        first.tos, first.id, last.flags, first.offset, first.ttl, first.proto, first.addresses, first.options, payload,
        length,
    )  # fmt: skip


def copied(options: bytes) -> bytes:
    """Return the options that later fragments have (RFC 791 3.1), with NOPs where others are."""
    made, at = b"", 0
    while at < len(options):
        kind = options[at]
        if kind == 0:
            break
        size = 1 if kind == 1 else options[at + 1]
        made += options[at : at + size] if kind & 0x80 or kind == 1 else b"\1" * size
        at += size
    return made + options[at:]


# ---- What is sent.


def option(kind: int, size: int) -> bytes:
    return bytes((kind, size)) + bytes(range(size - 2))


some_option = st.one_of(
    st.just(b"\1"), st.builds(option, st.integers(2, 255).filter(lambda kind: kind != 1), st.integers(2, 11))
)


@st.composite
def some_options(draw: st.DrawFn) -> bytes:
    made = b"".join(draw(st.lists(some_option, max_size=4)))[:40]
    kept, at = b"", 0
    while at < len(made):  # the last one may have been cut
        size = 1 if made[at] == 1 else made[at + 1] if at + 1 < len(made) else 99
        if at + size > len(made):
            break
        kept, at = made[: at + size], at + size
    return kept + bytes(-len(kept) % 4)


FIRST = 32  # bytes of payload in the first fragment of a datagram


@dataclass(frozen=True)
class Case:
    to: str
    mtu: int
    size: int
    proto: int
    options: bytes
    fragment: int
    id: int
    linear: int
    owed: bool


@st.composite
def some_case(draw: st.DrawFn) -> Case:
    options = draw(some_options())
    mtu = draw(st.one_of(st.integers(68, 200), st.integers(576, 1500), st.integers(1280, 5000)))
    each = min(mtu - 20 - len(options) & ~7, PIECE_MAX)
    size = draw(st.integers(mtu - 20 - len(options) + 1, min(9000, PIECES * each)))
    proto = draw(st.sampled_from([UDP, TCP, ICMP, GRE]))
    owed = proto in (UDP, TCP) and each >= 24 and draw(st.booleans())
    fragment = 0
    if not owed:
        fragment = draw(st.sampled_from([0, MF, MF]))
        if fragment:
            size = size + 7 & ~7
        fragment |= draw(st.one_of(st.just(0), st.integers(FIRST // 8, (0xFFFF - size) // 8)))
    return Case(
        draw(st.sampled_from(sorted(TO))), mtu, size, proto, options, fragment, draw(st.integers(0, 0xFFFF)),
        draw(st.sampled_from([0, 14, 34, 60, 200])), owed,
    )  # fmt: skip


def pattern(size: int) -> bytes:
    return bytes(n * 7 + n // 256 & 0xFF for n in range(size))


def body(proto: int, size: int) -> bytes:
    """Return a payload of that many bytes, its checksum not made."""
    head = {UDP: udp(7, 9, b"x" * (size - 8)), TCP: tcp(7, 9, ACK), ICMP: echo(4)}.get(proto, b"")
    made = head[: 8 if proto == UDP else None]
    return made + pattern(size - len(made))


def pseudo_sum(src: Who, dst: Who, proto: int, size: int) -> bytes:
    """Return what stands in place of a checksum that a network card is to make."""
    packed = bytes(r.pack_ip(src.ip4)[12:]) + bytes(r.pack_ip(dst.ip4)[12:])
    return struct.pack("!H", ~checksum(packed + struct.pack("!HH", proto, size)) & 0xFFFF)


CHECKSUM_AT = {UDP: 6, TCP: 16}


def routed(dst: Who, case: Case) -> tuple[bytes, bytes]:
    """Return a frame as a guest writes it, and the payload that must come out."""
    whole = body(case.proto, case.size)
    made = whole if case.fragment else with_checksum(GUEST.ip4, dst.ip4, case.proto, whole)
    sent = made
    if case.owed:
        at = CHECKSUM_AT[case.proto]
        sent = made[:at] + pseudo_sum(GUEST, dst, case.proto, case.size) + made[at + 2 :]
    options = {"id": case.id, "fragment": case.fragment, "options": case.options}
    packet = ip(GUEST.ip4, dst.ip4, case.proto, made, **options)
    packet = packet[: len(packet) - len(sent)] + sent
    return eth(gateway(RED).mac, GUEST.mac, IPV4, packet), made


# ---- The world.


@pytest.fixture
def wide(w: World) -> World:
    """The guest's network is wide; there is a way to one of each kind in a narrower one."""
    for device in ("dd", "dt", "trunk", "vxlan", "uplink"):
        for end in (device, f"{device}-in"):
            link(end, "mtu", "9200")
    for port in (TAP, TAGGED):
        w.add(port)
    w.put(
        "endpoints", {r.EndpointKey(GREY, r.pack_ip(OUTSIDE.ip4)): r.Endpoint(r.Place(r.PlaceKind.UPLINK), OUTSIDE.mac)}
    )
    w.router(ROUTER, {GREY: gateway(GREY)})
    w.mtu(RED, 65535)
    return w


@pytest.fixture
def guest(wide: World, tap: int) -> int:
    wide.mtu(RED, 65535)  # of the guest's port as well
    return tap


def narrow(w: World, mtu: int) -> None:
    for network in (BLUE, GREY):
        w.mtu(network, mtu)


def drops(w: World) -> dict[str, int]:
    found: dict[str, int] = {}
    for key, row in w.bpf.table("drops").read().items():
        why = w.reasons[key.why].removeprefix("DROP_")
        found[why] = found.get(why, 0) + row.packets
    return found


def heard(w: World, device: str, count: int, ears: Ears, vlan: int = 0) -> list[bytes]:
    """Return the frames that came out of a device, without the tag that they must have."""
    came = ears.hear(lambda got: len(got.get(device, [])) >= count or bool(drops(w)), 0.5).get(device, [])
    if not vlan:
        return came
    assert {f[12:16] for f in came} <= {struct.pack("!HH", 0x8100, vlan)}
    return [f[:12] + f[16:] for f in came]


VLAN = {"VLAN": 6, "uplink": 7}


@settings(deadline=None, max_examples=int(os.environ.get("SPLITS", "300")), suppress_health_check=list(HealthCheck))
@given(case=some_case())
def test_pieces_are_the_packet(wide: World, guest: int, case: Case) -> None:
    note(repr(case))
    for name in ("drops", "fragments"):  # another example may have had the same id, a moment ago
        table = wide.bpf.table(name)
        table.delete(list(table.read()))
    dst = TO[case.to]
    narrow(wide, case.mtu)
    sent, payload = routed(dst, case)
    device = DEVICE.get(case.to) or dst.device
    assert device
    count = -(-len(payload) // min(case.mtu - 20 - len(case.options) & ~7, PIECE_MAX))
    if case.fragment & OFFSET:  # its first has passed
        first = ip(GUEST.ip4, dst.ip4, case.proto, body(case.proto, FIRST), id=case.id, fragment=MF)
        write(guest, eth(gateway(RED).mac, GUEST.mac, IPV4, first))
    with Ears(device) as ears:
        write(
            guest,
            sent,
            min(case.linear, len(sent)),
            owed=(34 + len(case.options), CHECKSUM_AT[case.proto]) if case.owed else None,
        )
        came = heard(wide, device, count, ears, VLAN.get(case.to, 0))
        assert not ears.owed
    assert not drops(wide)
    assert len(came) == count
    assert {f[:12] for f in came} == {dst.mac + gateway(dst.network).mac}
    assert max(len(f) - 14 for f in came) <= case.mtu
    whole, before = put_together(came), Ip.read(sent)
    assert whole.payload == payload
    assert (whole.ttl, whole.flags, whole.offset, whole.options, whole.id, whole.proto, whole.addresses) == (
        before.ttl - 1, before.flags, before.offset, before.options, before.id, before.proto, before.addresses,
    )  # fmt: skip


# ---- One by one.


def to(dst: Who, size: int, proto: int = UDP, fragment: int = 0, src: Who = A) -> bytes:
    return frame(src, dst, proto, body(proto, size), to=gateway(RED), fragment=fragment)


@pytest.mark.parametrize("checksum", ["made", "owed", "none", "wrong"])
@pytest.mark.parametrize("proto", [UDP, TCP])
def test_a_checksum_that_is_owed_is_made_and_no_other(wide: World, guest: int, proto: int, checksum: str) -> None:
    narrow(wide, 1300)
    case = Case("veth", 1300, 4001, proto, b"", 0, 7, 0, checksum == "owed")
    sent, payload = routed(D, case)
    at = CHECKSUM_AT[proto]
    if checksum in ("none", "wrong"):
        other = bytes(2) if checksum == "none" else bytes(x ^ 0x55 for x in payload[at : at + 2])
        payload = payload[:at] + other + payload[at + 2 :]
        sent = sent[: len(sent) - len(payload)] + payload
    with Ears("dd") as ears:
        write(guest, sent, owed=(34, at) if case.owed else None)
        came = heard(wide, "dd", 4, ears)
    assert not ears.owed
    assert put_together(came).payload == payload


def test_the_smallest_network_on_the_way_is_what_pieces_fit(wide: World) -> None:
    way = Who(RED, 100, 0, None)
    for network, mtu in ((201, 1400), (202, 700), (203, 1000)):
        wide.put("networks", {network: r.Network(mtu, 0)})
    for n, (left, right) in enumerate([(RED, 201), (201, 202), (202, 203), (203, BLUE)], 101):
        feet = {left: way if left == RED else transit(left, 100), right: transit(right, 101)}
        wide.router(n, feet)
        if right != BLUE:
            route = r.Route(r.RouteKind.VIA, right, r.pack_ip(transit(right, 100).ip4))
            wide.put("routes", {r.RouteKey(32 + 120, n, r.pack_ip(D.ip4)[:15] + b"\0"): route})
        if left != RED:
            back = r.Route(r.RouteKind.VIA, left, r.pack_ip(transit(left, 101).ip4))
            wide.put("routes", {r.RouteKey(32 + 120, n, r.pack_ip(A.ip4)[:15] + b"\0"): back})
    sent = frame(A, D, UDP, body(UDP, 1401), to=way, fragment=0)
    with Ears("dd") as ears:
        done = wide.send(sent)
        came = heard(wide, "dd", 3, ears)
    assert (done.verdict, done.drops) == (STOLEN, {})
    assert [len(f) - 14 for f in came] == [700, 700, 61]
    assert put_together(came).ttl == 60


def test_as_large_as_the_network_is_not_touched(wide: World) -> None:
    narrow(wide, 1300)
    sent = to(AWAY, 1280)
    done = wide.send(sent)
    assert (done.verdict, done.to, done.packet[34:]) == (REDIRECT, "vxlan", sent[34:])
    assert wide.send(to(AWAY, 1281)).verdict == STOLEN


def test_padding_is_not_sent_on(wide: World) -> None:
    narrow(wide, 1300)
    with Ears("vxlan") as ears:
        assert wide.send(to(AWAY, 1280) + bytes(200)).verdict == STOLEN
        (came,) = heard(wide, "vxlan", 1, ears)
    assert len(came) == 14 + 1300
    assert put_together([came]).payload == Ip.read(to(AWAY, 1280)).payload


def test_what_must_not_be_fragmented_is_not(wide: World) -> None:
    narrow(wide, 1300)
    done = wide.send(to(D, 1400, fragment=DF))
    assert (done.drop, done.flight["answer_mtu"]) == ("TOO_BIG", 1300)


@pytest.mark.parametrize(
    ("mtu", "size", "fragment", "why"),
    [
        (68, 48 * PIECES, 0, None),
        (68, 48 * PIECES + 1, 0, "TOO_BIG"),
        (27, 100, 0, "TOO_BIG"),
        (300, 1000, 0x1FFF, "MALFORMED"),
        (300, 1000, (0x10000 - 1000) // 8, "MALFORMED"),
        (300, 1000, (0x10000 - 1000) // 8 - 1, None),
    ],
    ids=["64 pieces", "65 pieces", "no room for 8 bytes", "far beyond the end", "beyond the end", "up to the end"],
)
def test_what_cannot_be_in_pieces_is_dropped(wide: World, mtu: int, size: int, fragment: int, why: str | None) -> None:
    narrow(wide, mtu)
    if fragment:
        wide.send(to(AWAY, 200, fragment=MF))
    done = wide.send(to(AWAY, size, fragment=fragment))
    assert (done.verdict, done.drop) == (SHOT if why else STOLEN, why)


def whole(done: Sent, sent: bytes, device: str) -> bool:
    return (done.verdict, done.to, len(done.packet)) == (REDIRECT, device, len(sent))


@pytest.mark.parametrize("dst", [D, AWAY], ids=["here", "another host"])
def test_what_is_many_packets_in_one_goes_on_whole(wide: World, dst: Who) -> None:
    narrow(wide, 1300)
    sent = to(dst, 3000, TCP)
    assert whole(wide.send(sent, gso_size=1380, gso_segs=3), sent, dst.device or "vxlan")


def test_sctp_whose_checksum_is_owed_goes_on_whole(wide: World) -> None:
    narrow(wide, 1300)
    head = struct.pack("!HHI", 1, 2, 3)
    owed = frame(A, D, SCTP, head + bytes(4) + pattern(1400), to=gateway(RED), fragment=0)
    assert whole(wide.send(owed), owed, "dd")
    assert wide.send(owed[:42] + b"made" + owed[46:]).verdict == STOLEN


@pytest.mark.parametrize("at", [(20, 6), (26, 0), (34, 2)], ids=["of the IP header", "the source", "the ports"])
def test_what_owes_a_checksum_elsewhere_is_not_cut(wide: World, guest: int, at: tuple[int, int]) -> None:
    narrow(wide, 1300)
    sent, _ = routed(TAP, Case("tap", 1300, 2000, UDP, b"", 0, 7, 0, False))
    with Ears("dt") as ears:
        write(guest, sent, owed=at)
        assert heard(wide, "dt", 1, ears) == []
    assert drops(wide) == {"MALFORMED": 1}


@pytest.mark.parametrize("start", [60, 150, 1000])
def test_what_owes_a_checksum_further_in_goes_on_whole(wide: World, guest: int, start: int) -> None:
    narrow(wide, 1300)
    sent, payload = routed(TAP, Case("tap", 1300, 2000, UDP, b"", 0, 7, 0, False))
    with Ears("dt") as ears:
        write(guest, sent, owed=(start, 6))
        (came,) = heard(wide, "dt", 1, ears)
    assert (len(came), ears.owed, came[34:]) == (len(sent), 1, payload)


@pytest.mark.parametrize("way", ["in", "out"])
def test_policy_is_asked_once(wide: World, way: str) -> None:
    narrow(wide, 1300)
    with Ears("dd") as ears:
        assert wide.send(to(D, 1400)).verdict == STOLEN
        assert len(heard(wide, "dd", 2, ears)) == 2
        who, why = (D, "POLICY_IN") if way == "in" else (A, "POLICY_OUT")
        wide.policy(who.identity)
        done = wide.send(to(D, 1400))
        assert (done.verdict, done.drops) == (SHOT, {(who.device, why): 1})
        assert heard(wide, "dd", 1, ears) == []


def test_all_of_a_datagram_passes_a_limit_or_nothing(wide: World) -> None:
    narrow(wide, 1300)
    limit(wide, D, r.Way.IN, 8 * 2000)
    place = D.place._replace(flags=D.flags | r.PortFlag.LIMITED)
    wide.put("endpoints", {r.EndpointKey(BLUE, r.pack_ip(D.ip4)): r.Endpoint(place, D.mac)})
    assert wide.send(to(D, 3000)).verdict == STOLEN
    assert wide.send(to(D, 3000)).drops == {("dd", "RATE"): 1}


def test_fragments_that_fit_follow_those_that_do_not(wide: World) -> None:
    narrow(wide, 1300)
    assert wide.send(to(AWAY, 1400, fragment=MF)).verdict == STOLEN
    done = wide.send(to(AWAY, 100, fragment=175))
    assert (done.verdict, done.to) == (REDIRECT, "vxlan")


def test_a_later_fragment_that_is_too_large_needs_a_first(wide: World) -> None:
    narrow(wide, 1300)
    wide.policy(A.identity)
    done = wide.send(to(AWAY, 1400, fragment=175))
    assert (done.verdict, done.drops) == (STOLEN, {})
    assert len(wide.bpf.table("early_fragments").read()) == 1
