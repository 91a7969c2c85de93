"""Checksums that are still to be made: by whom they may be asked for, and where they are written."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, event, given, note, settings
from hypothesis import strategies as st

from bpf.guest import GUEST, guest, raw_socket, read, write
from bpf.packets import (
    ACK,
    GRE,
    ICMP,
    ICMPV6,
    IPV4,
    IPV6,
    MF,
    SCTP,
    TCP,
    UDP,
    VLAN,
    arp,
    checksum,
    echo,
    eth,
    ip,
    ipv6_fragment,
    raw,
    tcp,
    udp,
)
from bpf.test_published import AT as PUBLISHED_AT
from bpf.test_published import CLIENT, publish
from bpf.world import FAR, GREY, HERE, NEIGHBOUR, TAGGED, TAP, A, Ears, Who, World, direct_world, frame, own_mac, world
from crossway.kernel.bpf import casts, hidden
from crossway.model import rows as r

OUTSIDE = Who(GREY, 20, 0, None)
TAPPED = Who(GREY, 14, 6, "dg", body=r.Body.TAP)
DEVICES = {"vxlan": FAR, "dt": TAP, "trunk": TAGGED}
AT = 14 + 20  # where the transport header is in IPv4
DATA = b"what a workload says"


@contextmanager
def making(w: World, tap: int) -> Iterator[dict[str, int]]:
    """Let devices make no checksums, so that the kernel does; give the ways in."""
    for device in (*DEVICES, "uplink", "dg"):
        subprocess.run(["ethtool", "-K", device, "tx", "off"], check=True, capture_output=True)
    w.bpf.attach("from_workload", A.key.ifindex)
    with raw_socket(A.device or "") as veth:
        yield {"tap": tap, "veth": veth}


@pytest.fixture
def ways(w: World, tap: int) -> Iterator[dict[str, int]]:
    with making(w, tap) as ways:
        yield ways


SENDERS = {"tap": GUEST, "veth": A}


def drops(w: World) -> dict[str, int]:
    return {w.reasons[k.why].removeprefix("DROP_"): row.packets for k, row in w.bpf.table("drops").read().items()}


def aimed(frame: bytes, start: int, want: bytes) -> bytes:
    """Return the frame with a last word that makes the checksum from *start* on what is wanted."""
    body = frame[: len(frame) - 2 - (len(frame) - start) % 2]
    rest = bytes(len(frame) - len(body) - 2)
    return body + struct.pack("!H", (int.from_bytes(want) ^ 0xFFFF) + checksum(body[start:]) - 0xFFFF & 0xFFFF) + rest


# ---- What must not be.

ELSEWHERE = {
    "half of the source": (20, 8),
    "half of the destination": (20, 12),
    "the source, no sum at all": (26, 0),
    "time to live and protocol": (20, 2),
    "the port it is from": (34, 0),
    "the port it is for": (34, 2),
    "the port it is for, from before": (28, 8),
    "the length": (34, 4),
    "between the checksum and the payload": (34, 7),
    "the own, with more summed up": (32, 8),
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("at", ELSEWHERE.values(), ids=ELSEWHERE)
@pytest.mark.parametrize("way", SENDERS)
def test_nothing_is_written_over_what_was_judged(
    w: World, ways: dict[str, int], way: str, at: tuple[int, int], device: str
) -> None:
    sent = aimed(frame(SENDERS[way], DEVICES[device], UDP, udp(1, 2, DATA)), at[0], b"\0\xc8")
    with Ears(device) as ears:
        write(ways[way], sent, owed=at)
        assert ears.hear(lambda _: bool(drops(w)), 1) == {}
    assert drops(w) == {"MALFORMED": 1}


@pytest.mark.parametrize("way", SENDERS)
def test_nothing_is_written_over_it_on_the_short_way_to_another_host(way: str) -> None:
    with direct_world() as w, guest(w) as tap, making(w, tap) as ways, Ears("vxlan", "uplink") as ears:
        plain = frame(SENDERS[way], FAR, UDP, udp(1, 2, DATA))
        for _ in range(2):  # the first goes the long way
            write(ways[way], plain)
        assert set(ears.hear(lambda heard: len(heard) == 2)) == {"vxlan", "uplink"}
        write(ways[way], aimed(plain, 20, b"\0\xc8"), owed=(20, 8))
        assert ears.hear(lambda _: bool(drops(w)), 1) == {}
        assert drops(w) == {"MALFORMED": 1}


@pytest.mark.parametrize("way", SENDERS)
@pytest.mark.parametrize("at", [(20, 2), (20, 8), (28, 0), (38, 2)])
def test_arp_has_no_checksum(w: World, ways: dict[str, int], way: str, at: tuple[int, int]) -> None:
    who = SENDERS[way]
    sent = arp(1, who.mac, who.ip4, FAR.ip4)
    with Ears(A.device or "") as ears:
        write(ways[way], sent, owed=at)
        assert {f for came in ears.hear(lambda _: bool(drops(w)), 1).values() for f in came} <= {sent}
    assert drops(w) == {"MALFORMED": 1}
    assert read(ways["tap"]) == []


def test_neighbour_discovery_is_not_written_over(w: World, ways: dict[str, int]) -> None:
    told = struct.pack("!BBHI", 136, 0, 0, 0x20000000) + raw(GUEST.ip6) + b"\2\1" + GUEST.mac
    sent = eth(FAR.mac, GUEST.mac, IPV6, ip(GUEST.ip6, FAR.ip6, ICMPV6, told, ttl=255))
    for start, offset, passes in ((54, 2, True), (54, 22, False), (62, 14, False), (80, 2, False)):
        with Ears("vxlan") as ears:
            write(ways["tap"], sent, owed=(start, offset))
            came = ears.hear(lambda heard, p=passes: bool(heard) if p else bool(drops(w)), 1)
        assert bool(came) == passes, (start, offset)
    assert drops(w) == {"MALFORMED": 3}


def test_the_tag_of_a_frame_counts_for_nothing(w: World, ways: dict[str, int]) -> None:
    w.bpf.attach("from_workload", TAGGED.key.ifindex)
    plain = frame(TAGGED, FAR, UDP, udp(1, 2, DATA))
    sent = plain[:12] + struct.pack("!HH", VLAN, TAGGED.vlan) + plain[12:]
    with raw_socket(TAGGED.device or "") as trunk, Ears("vxlan") as ears:
        write(trunk, sent, owed=(AT + 4, 6))
        ears.must_hear({"vxlan": [made(plain, AT, 6)]})
        write(trunk, sent, owed=(AT, 6))
        assert ears.hear(lambda _: bool(drops(w)), 1) == {}
    assert drops(w) == {"MALFORMED": 1}


def test_a_stranger_on_the_provider_network_is_held_to_it(w: World, ways: dict[str, int]) -> None:
    w.add(TAPPED)
    w.bpf.attach("from_uplink", Who(GREY, 0, 0, "uplink").key.ifindex)
    plain = frame(OUTSIDE, TAPPED, UDP, udp(1, 2, DATA))
    sent = plain[:12] + struct.pack("!HH", VLAN, 7) + plain[12:]
    with raw_socket("uplink") as wire, Ears("dg") as ears:
        write(wire, sent, owed=(AT + 4, 6))
        ears.must_hear({"dg": [made(plain, AT, 6)]})
        write(wire, sent, owed=(AT + 4, 2))
        assert ears.hear(lambda _: bool(drops(w)), 1) == {}
    assert drops(w) == {"MALFORMED": 1}


def test_what_is_published_is_not_reached_by_it(w: World, ways: dict[str, int]) -> None:
    publish(w, TAP)
    w.bpf.attach("from_uplink", Who(GREY, 0, 0, "uplink").key.ifindex)
    sent = eth(own_mac(), NEIGHBOUR, IPV4, ip(CLIENT[4], HERE, UDP, udp(9, PUBLISHED_AT, DATA)))
    with raw_socket("uplink") as wire, Ears("dt") as ears:
        write(wire, sent, owed=(AT, 6))
        (came,) = ears.hear(lambda heard: bool(heard))["dt"]
        assert (came[:6], came[34:38]) == (TAP.mac, struct.pack("!HH", 9, 80))
        write(wire, sent, owed=(AT, 2))
        assert ears.hear(lambda heard: bool(heard), 0.2) == {}


# ---- What must go on.


def made(frame: bytes, start: int, offset: int) -> bytes:
    """Return the frame as the kernel completes it."""
    at, sum = start + offset, checksum(frame[start:])
    return frame[:at] + struct.pack("!H", sum or 0xFFFF) + frame[at + 2 :]


INNER = eth(bytes(6), bytes(6), IPV4, ip("10.9.0.1", "10.9.0.2", TCP, tcp(5, 6, ACK, DATA)))
VXLAN = udp(9, 4789, bytes((8, 0, 0, 0, 0, 0, 7, 0)) + INNER)
GRE_INNER = b"\0\0\x08\0" + INNER[14:]
LEGITIMATE = {
    "UDP": (UDP, udp(1, 2, DATA), 0, 6),
    "TCP": (TCP, tcp(1, 2, ACK, DATA), 0, 16),
    "SCTP": (SCTP, struct.pack("!HHII", 1, 2, 3, 0) + DATA, 0, 8),
    "TCP in a VXLAN of its own": (UDP, VXLAN, 8 + 8 + 14 + 20, 16),
    "TCP in GRE": (GRE, GRE_INNER, 4 + 20, 16),
    "TCP in IP": (4, INNER[14:], 20, 16),
    "ICMP": (ICMP, echo(4, data=DATA), 0, 2),
}


@pytest.mark.parametrize("way", SENDERS)
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("proto", "body", "start", "offset"), LEGITIMATE.values(), ids=LEGITIMATE)
def test_what_a_network_card_makes_is_made(
    w: World, ways: dict[str, int], way: str, device: str, proto: int, body: bytes, start: int, offset: int
) -> None:
    sent = frame(SENDERS[way], DEVICES[device], proto, body)
    want = made(sent, AT + start, offset)
    if device == "trunk":
        want = want[:12] + struct.pack("!HH", VLAN, TAGGED.vlan) + want[12:]
    with Ears(device) as ears:
        write(ways[way], sent, owed=(AT + start, offset))
        ears.must_hear({device: [want]})
    assert drops(w) == {}


@pytest.mark.parametrize("way", SENDERS)
@pytest.mark.parametrize(("proto", "body", "offset"), [(UDP, udp(1, 2, DATA), 6), (TCP, tcp(1, 2, ACK, DATA), 16)])
def test_so_it_is_behind_options(
    w: World, ways: dict[str, int], way: str, proto: int, body: bytes, offset: int
) -> None:
    who = SENDERS[way]
    four = frame(who, FAR, proto, body, options=b"\x94\4\0\0")
    six = frame(who, FAR, 60, bytes((proto, 0)) + bytes(6) + body, 6)
    with Ears("vxlan") as ears:
        for sent, start in ((four, AT + 4), (six, 14 + 40 + 8)):
            write(ways[way], sent, owed=(start, offset))
        ears.must_hear({"vxlan": [made(four, AT + 4, offset), made(six, 62, offset)]})
        write(ways[way], six, owed=(54, offset))
        assert ears.hear(lambda _: bool(drops(w)), 1) == {}
    assert drops(w) == {"MALFORMED": 1}


@pytest.mark.parametrize("way", SENDERS)
def test_large_segments_are_cut(w: World, ways: dict[str, int], way: str) -> None:
    sent = frame(SENDERS[way], FAR, TCP, tcp(1, 2, ACK, b"x" * 5000))
    pseudo = checksum(sent[26:34] + struct.pack("!HH", TCP, len(sent) - AT)) ^ 0xFFFF
    sent = sent[: AT + 16] + struct.pack("!H", pseudo) + sent[AT + 18 :]
    with Ears("vxlan") as ears:
        write(ways[way], sent, linear=54, gso=1000)
        came = ears.hear(lambda heard: len(heard.get("vxlan", [])) == 5)["vxlan"]
    assert [len(f) - 54 for f in came] == [1000] * 5
    assert {f[26:38] for f in came} == {sent[26:38]}
    assert {checksum(f[26:34] + struct.pack("!HH", TCP, len(f) - AT) + f[AT:]) for f in came} == {0}


@pytest.mark.parametrize("casts", [0, casts()], ids=["read", "as the kernel can"])
def test_both_ways_to_see_it_see_it(casts: int) -> None:
    with world(casts=casts) as w, guest(w) as tap, Ears("vxlan") as ears:
        sent = frame(GUEST, FAR, UDP, udp(1, 2, DATA))
        write(tap, sent, owed=(AT, 6))
        assert len(ears.hear(lambda heard: bool(heard))["vxlan"]) == 1
        write(tap, sent, owed=(20, 8))
        write(tap, sent, owed=(AT, 2))
        assert ears.hear(lambda _: drops(w) == {"MALFORMED": 2}, 1) == {}
        assert drops(w) == {"MALFORMED": 2}


@pytest.mark.parametrize("kernel", ["", "bpf_cast_to_kern_ctx"])
@pytest.mark.parametrize("lockdown", ["none", "integrity", "confidentiality"])
def test_what_the_kernel_shows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lockdown: str, kernel: str) -> None:
    words = (f"[{word}]" if word == lockdown else word for word in ("none", "integrity", "confidentiality"))
    (tmp_path / "lockdown").write_text(" ".join(words))
    (tmp_path / "btf").write_bytes(b"\0" + kernel.encode() + b"\0")
    monkeypatch.setattr("crossway.kernel.bpf.LOCKDOWN", tmp_path / "lockdown")
    monkeypatch.setattr("crossway.kernel.bpf.KERNEL_BTF", tmp_path / "btf")
    assert casts() == bool(kernel)
    assert hidden() == (lockdown == "confidentiality" and not kernel)


def test_where_the_kernel_shows_nothing_all_passes() -> None:
    with world(casts=0, sums_hidden=1) as w, guest(w) as tap, Ears("vxlan") as ears:
        sent = frame(GUEST, FAR, UDP, udp(1, 2, DATA))
        write(tap, sent, owed=(20, 8))
        assert len(ears.hear(lambda heard: bool(heard))["vxlan"]) == 1


@pytest.mark.parametrize("way", SENDERS)
def test_what_waits_for_a_first_fragment_has_not_its_checksum(w: World, ways: dict[str, int], way: str) -> None:
    who = SENDERS[way]
    w.bpf.attach("from_workload", GUEST.key.ifindex)
    first = frame(who, FAR, UDP, udp(1, 2, bytes(40)), id=7, fragment=MF)
    later = frame(who, FAR, UDP, b"\xff" * 64, id=7, fragment=6)
    with Ears("vxlan") as ears:
        write(ways[way], later)
        write(ways[way], first, owed=(AT, 6))
        ears.must_hear({"vxlan": [made(first, AT, 6), later]})
    assert drops(w) == {}


# ---- All there is.


LONG = bytes(64)


class Case(NamedTuple):
    way: str
    device: str
    kind: str
    start: int
    offset: int


def case_frame(case: Case) -> tuple[bytes, int]:
    """Return a frame, and how many of its first bytes are judged."""
    who, dst = SENDERS[case.way], DEVICES[case.device]
    match case.kind:
        case "udp":
            return frame(who, dst, UDP, udp(1, 2, LONG)), AT + 6
        case "tcp":
            return frame(who, dst, TCP, tcp(1, 2, ACK, LONG)), AT + 14
        case "options":
            return frame(who, dst, UDP, udp(1, 2, LONG), options=b"\x94\4\0\0" * 5), AT + 26
        case "first":
            return frame(who, dst, UDP, udp(1, 2, LONG), fragment=MF), AT + 6
        case "later":
            return frame(who, dst, UDP, LONG, fragment=64), AT
        case "echo":
            return frame(who, dst, ICMP, echo(4, data=LONG)), AT + 2
        case "six":
            return frame(who, dst, TCP, tcp(1, 2, ACK, LONG), 6), 54 + 14
        case "extensions":
            return frame(who, dst, 60, bytes((UDP, 1)) + bytes(14) + udp(1, 2, LONG), 6), 54 + 16 + 6
        case "fragment":
            return frame(who, dst, 44, ipv6_fragment(UDP, 0, True, 1, udp(1, 2, LONG)), 6), 54 + 8 + 6
    return frame(who, dst, GRE, GRE_INNER), AT


KINDS = ("udp", "tcp", "options", "first", "later", "echo", "six", "extensions", "fragment", "gre")
some_case = st.builds(
    Case, st.sampled_from(sorted(SENDERS)), st.sampled_from(sorted(DEVICES)), st.sampled_from(KINDS),
    st.one_of(st.integers(18, 100), st.sampled_from([34, 54, 62])),
    st.one_of(st.integers(0, 60), st.sampled_from([2, 6, 16])),
)  # fmt: skip


@settings(deadline=None, max_examples=400, suppress_health_check=list(HealthCheck))
@given(case=some_case)
def test_what_arrives_is_what_was_judged(w: World, ways: dict[str, int], case: Case) -> None:
    note(repr(case))
    for table in ("drops", "fragments", "early_fragments"):
        w.delete(table, *w.bpf.table(table).read())
    sent, judged = case_frame(case)
    with Ears(case.device) as ears:
        try:
            write(ways[case.way], sent, owed=(case.start, case.offset))
        except OSError:  # the kernel does not take it
            event("refused")
            return
        came = ears.hear(lambda heard: bool(heard) or bool(drops(w)), 0.02).get(case.device, [])
    event("came" if came else "dropped" if drops(w) else "gone")
    for f in came:
        if case.device == "trunk":
            f = f[:12] + f[16:]
        assert f[:judged] == sent[:judged]
