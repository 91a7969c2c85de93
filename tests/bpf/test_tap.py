"""What a virtual machine writes to its tap: headers that do not lie in one piece, segments still to be made."""

from __future__ import annotations

import pytest

from bpf.guest import GUEST, link, read, write
from bpf.packets import ACK, IPV4, TCP, UDP, Packet, arp, eth, ip, ipv6_fragment, tcp, udp
from bpf.world import FAR, RED, TAP, A, D, Ears, Rule, World, any_rule, frame, gateway
from crossway.model import rows as r


def large(w: World) -> None:
    """Let large packets go from the guest to TAP."""
    w.mtu(RED, 9000)
    for device in ("dt", "dt-in"):
        link(device, "mtu", "9000")


BIG = b"x" * 5000  # beyond a page: the kernel puts the rest in pieces


@pytest.mark.parametrize("linear", [14, 20, 34, 54])
@pytest.mark.parametrize("v", [4, 6])
def test_headers_in_pieces_are_read(w: World, tap: int, v: int, linear: int) -> None:
    large(w)
    w.policy(GUEST.identity, only(UDP, 4), only(UDP, 6))
    with Ears("dt") as ears:
        write(tap, frame(GUEST, TAP, UDP, udp(1, 2, BIG), v), linear)
        write(tap, frame(GUEST, TAP, TCP, tcp(1, 2, ACK, BIG), v), linear)
        write(tap, frame(A, TAP, UDP, udp(1, 2, BIG), v), linear)
        ears.must_hear({"dt": [frame(GUEST, TAP, UDP, udp(1, 2, BIG), v)]})
    counted = {w.reasons[k.why]: row for k, row in w.bpf.table("drops").read().items()}
    assert set(counted) == {"DROP_POLICY_OUT", "DROP_SPOOFED_MAC"}
    assert (counted["DROP_POLICY_OUT"].proto, counted["DROP_POLICY_OUT"].dst_port) == (TCP, 2)


def only(proto: int, v: int) -> Rule:
    return any_rule(GUEST.identity, r.Way.OUT, v, proto=proto)


def test_extension_headers_in_pieces_are_walked(w: World, tap: int) -> None:
    large(w)
    sent = frame(GUEST, TAP, 44, ipv6_fragment(UDP, 0, True, 1, udp(1, 2, BIG)), 6)
    with Ears("dt") as ears:
        write(tap, sent, 14)
        ears.must_hear({"dt": [sent]})
    assert [(k.proto, k.local_port, k.remote_port) for k in w.flows() if k.port == GUEST.key] == [(UDP, 1, 2)]


@pytest.mark.parametrize("mtu", [1450, 1300])
def test_a_large_segment_is_told_the_mtu_behind_the_router(w: World, tap: int, mtu: int) -> None:
    w.mtu(D.network, mtu)
    sent = frame(GUEST, D, TCP, tcp(1, 2, ACK, BIG), to=gateway(RED))
    write(tap, sent, linear=54, gso=1400)
    answers = read(tap)
    if mtu == 1450:
        assert answers == []
        return
    (answer,) = answers
    told = Packet(answer)  # its checksums hold, though the segment's own was still to be made
    assert (told.icmp, told.payload[4:8]) == ((3, 4), (1300).to_bytes(4, "big"))
    assert (told.dst, told.src) == (GUEST.ip4, gateway(RED).ip4)
    assert told.payload[8:28] == sent[14:34]


def test_a_guest_that_asks_gets_the_answer(w: World, tap: int) -> None:
    write(tap, arp(1, GUEST.mac, GUEST.ip4, FAR.ip4))
    assert read(tap) == [arp(2, FAR.mac, FAR.ip4, GUEST.ip4, GUEST.mac, GUEST.mac)]
    write(tap, eth(gateway(RED).mac, GUEST.mac, IPV4, ip(GUEST.ip4, "198.51.100.1", UDP, udp(1, 2))))
    (answer,) = read(tap)
    assert Packet(answer).icmp == (3, 0)
