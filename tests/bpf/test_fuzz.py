"""Hostile frames, a few: `make fuzz` throws a million."""

from __future__ import annotations

import random

import pytest

from bpf.fuzz import fault, fuzz, mutate, seeds
from bpf.packets import ARP, ICMPV6, IPV4, IPV6, TCP, UDP, arp, eth, icmp, ip, na, udp
from bpf.world import A, B, frame


def test_hostile_frames_do_no_harm() -> None:
    done = fuzz(20_000, seed=20_000)
    assert done.done == 20_000
    assert min(done.verdicts.values()) > 100, "a fate that hardly a frame met shows little"


def test_a_seed_gives_the_same_frames() -> None:
    one, other = ([mutate(random.Random(7), seeds()) for _ in range(50)] for _ in range(2))
    assert one == other


@pytest.mark.parametrize(
    "sent",
    [
        eth(B.mac, B.mac, IPV4, ip(A.ip4, B.ip4, UDP, udp(1, 2))),
        eth(B.mac, A.mac, IPV4, ip(B.ip4, B.ip4, UDP, udp(1, 2))),
        eth(B.mac, A.mac, IPV6, ip(B.ip6, B.ip6, UDP, udp(1, 2))),
        eth(B.mac, A.mac, IPV6, ip(A.ip6, B.ip6, 60, bytes((ICMPV6, 0)) + bytes(6) + icmp(134))),
        frame(A, B, UDP, udp(67, 68)),
        frame(A, B, UDP, udp(547, 546), 6),
        frame(A, B, UDP, udp(1067, 68)),
        frame(A, B, TCP, bytes(16), fragment=1),
        frame(A, B, UDP, udp(1547, 546), 6),
        arp(2, A.mac, B.ip4, B.ip4),
        na(A.mac, A.ip6, B.ip6),
        eth(B.mac, A.mac, ARP + 1, bytes(46)),
    ],
)
def test_the_reading_that_frames_are_held_against_sees_lies(sent: bytes) -> None:
    assert fault(sent, A) is not None
    assert fault(frame(A, B, UDP, udp(1, 2)), A) is None
