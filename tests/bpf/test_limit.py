"""How fast a port may send and get."""

from __future__ import annotations

import time

import pytest

from bpf.packets import BROADCAST, IPV4, UDP, arp, eth, ip, udp
from bpf.test_published import AT, FROM, come, publish
from bpf.world import FAR, PORTS, RED, TAGGED, TAP, A, B, Sent, Who, World, frame, gateway
from crossway.kernel.bpf import lib
from crossway.model import rows as r

SECOND = 1_000_000_000


def limit(w: World, who: Who, way: r.Way, bits: int, seconds: float = 1.0) -> None:
    """Limit a port to so many bits a second, and at once to those of some seconds."""
    w.put("rates", {r.RateKey(who.key, way): r.Rate(bits, int(seconds * SECOND))})
    flags = who.flags | r.PortFlag.LIMITED
    table = w.bpf.table("ports")
    table.put({who.key: table.get(who.key)._replace(flags=flags)})
    w.put("macs", {r.MacKey(who.network, who.mac): who.place._replace(flags=flags)})


def sent(w: World, src: Who, dst: Who, size: int = 1000) -> Sent:
    return w.send(frame(src, dst, UDP, udp(1, 2, bytes(size - 42))), src)


@pytest.fixture(autouse=True)
def nothing_passed_yet(w: World) -> None:
    """Have each test begin with full buckets, which are no table of the world's."""
    paid(w)


@pytest.mark.parametrize("who", [A, TAP], ids=["veth", "tap"])
def test_a_port_sends_its_burst_and_then_no_more(w: World, who: Who) -> None:
    limit(w, who, r.Way.OUT, 8 * 20, 250)  # 5,000 bytes at once
    told = [sent(w, who, B).drop for _ in range(20)]
    assert told[:5] == [None] * 5
    assert told[7:] == ["RATE"] * 13


def test_a_bucket_fills_again(w: World) -> None:
    limit(w, A, r.Way.OUT, 8 * 1000, 0.001)
    assert sent(w, A, B).passed
    assert sent(w, A, B).drop == "RATE"
    time.sleep(1.1)
    assert sent(w, A, B).passed


@pytest.mark.parametrize("who", [B, TAP, TAGGED], ids=["veth", "tap", "VLAN"])
def test_a_port_gets_its_burst_and_then_no_more(w: World, who: Who) -> None:
    limit(w, who, r.Way.IN, 8 * 500)
    assert sent(w, A, who).passed
    done = sent(w, A, who)
    assert (done.drop, done.drops) == ("RATE", {(who.device, "RATE"): 1})
    assert sent(w, A, FAR).passed


def test_one_way_does_not_limit_the_other(w: World) -> None:
    limit(w, A, r.Way.OUT, 8 * 500)
    limit(w, B, r.Way.IN, 8 * 500)
    assert sent(w, A, B).passed
    assert sent(w, A, B).drop == "RATE"
    for _ in range(5):
        assert sent(w, B, A).passed


def test_what_is_larger_than_a_burst_passes_and_is_paid_for_afterwards(w: World) -> None:
    limit(w, A, r.Way.OUT, 8 * 1000, 0.001)
    assert sent(w, A, B).passed
    assert sent(w, A, B, 100).drop == "RATE"


def test_floods_and_published_ports_are_limited(w: World) -> None:
    limit(w, B, r.Way.IN, 8 * 500)
    for _ in range(2):
        done = w.send(eth(BROADCAST, A.mac, IPV4, ip(A.ip4, "255.255.255.255", UDP, udp(1, 2, bytes(1000)))))
    assert done.drops == {(B.device, "RATE"): 1}
    limit(w, A, r.Way.IN, 8 * 500)
    limited = A.place._replace(flags=A.flags | r.PortFlag.LIMITED)
    publish(w)
    for key, row in w.bpf.table("published").read().items():
        w.put("published", {key: row._replace(place=limited)})
    assert come(w, 4, UDP, udp(FROM, AT, bytes(1000))).passed
    assert come(w, 4, UDP, udp(FROM, AT, bytes(1000))).drop == "RATE"


def test_who_has_an_address_may_always_be_asked(w: World) -> None:
    limit(w, A, r.Way.OUT, 8)
    sent(w, A, B)
    assert sent(w, A, B).drop == "RATE"
    assert w.send(arp(1, A.mac, A.ip4, gateway(RED).ip4)).passed


def paid(w: World) -> None:
    """Empty the table of what has passed."""
    fd = lib.bpf_map__fd(w.bpf._map("paid"))
    for key in (r.RateKey(p.key, way) for p in PORTS if p.device for way in r.Way):
        lib.bpf_map_delete_elem(fd, w.bpf.table("rates").key.pack(key))
