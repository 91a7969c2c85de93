"""VXLAN that is taken off before the host's stack sees it: what is plain, and what is left to the host."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from bpf.packets import IPV4, MF, TCP, UDP, eth, tcp, udp
from bpf.world import (
    AWAY,
    FAR,
    HERE,
    NEIGHBOUR,
    RED,
    STRANGER,
    TAP,
    THERE,
    A,
    B,
    Sent,
    Who,
    World,
    direct_world,
    frame,
    gateway,
    own_mac,
    wrapped,
)
from crossway.kernel.bpf import REDIRECT, UNSPEC
from crossway.model import rows as r


@pytest.fixture(scope="module")
def one() -> Iterator[World]:
    with direct_world() as made:
        yield made


@pytest.fixture
def d(one: World) -> World:
    one.reset()
    return one


def come(d: World, sent: bytes) -> Sent:
    return d.run("from_uplink", sent, "uplink")


@pytest.mark.parametrize("v", [4, 6])
def test_a_plain_packet_is_taken_out(d: World, v: int) -> None:
    inner = frame(FAR, B, TCP, tcp(1, 2), v)
    done = come(d, wrapped(inner))
    if v == 6 and done.verdict == UNSPEC:  # left to the host: kernels before 6.3 cannot
        assert done.packet == wrapped(inner)
        return
    assert (done.verdict, done.to, done.packet) == (REDIRECT, "db", inner)
    assert [(k.port, f.remote_identity) for k, f in d.flows().items()] == [(B.key, 3)]


@pytest.mark.parametrize("identity", [0, 3])
def test_policy_is_asked_as_whom_it_comes(d: World, identity: int) -> None:
    d.policy(B.identity)
    sent = wrapped(frame(FAR, B, UDP, udp(1, 2)), identity=identity, flags=0x88 if identity else 8)
    assert come(d, sent).drops == {("db", "POLICY_IN"): 1}
    assert come(d, sent).flight["identity"] == identity


INNER = frame(FAR, B, UDP, udp(1, 2))
LEFT: dict[str, Callable[[], bytes]] = {
    "unknown host": lambda: wrapped(INNER, src=STRANGER),
    "another's address": lambda: wrapped(INNER, dst="192.0.2.9"),
    "another port": lambda: wrapped(INNER, port=4790),
    "another protocol": lambda: wrapped(INNER, kind=TCP),
    "a checksum over UDP": lambda: wrapped(INNER, sum=1),
    "a first fragment": lambda: wrapped(INNER, fragment=0x2000),
    "a later fragment": lambda: wrapped(INNER, fragment=8),
    "another version": lambda: wrapped(INNER, version=0x65),
    "options": lambda: wrapped(INNER, version=0x46),
    "two lengths": lambda: wrapped(INNER, short=1),
    "something behind": lambda: wrapped(INNER) + b"x",
    "no number": lambda: wrapped(INNER, flags=0x80),
    "a flag of an extension": lambda: wrapped(INNER, flags=0x8C),
    "policy applied": lambda: wrapped(INNER, more=8),
    "a reserved byte": lambda: wrapped(INNER, last=1),
    "a wrong checksum": lambda: wrapped(INNER)[:24] + b"xx" + wrapped(INNER)[26:],
    "another's frame": lambda: bytes((2, 1, 1, 1, 1, 1)) + wrapped(INNER)[6:],
    "for a tap": lambda: wrapped(frame(FAR, TAP, UDP, udp(1, 2))),
    "for nobody": lambda: wrapped(frame(FAR, Who(RED, 77, 0, None), UDP, udp(1, 2))),
    "for another host": lambda: wrapped(frame(A, FAR, UDP, udp(1, 2))),
    "on another network": lambda: wrapped(INNER, network=99),
    "for all": lambda: wrapped(eth(b"\xff" * 6, FAR.mac, IPV4, INNER[14:])),
    "neither IPv4 nor IPv6": lambda: wrapped(eth(B.mac, FAR.mac, 0x806, INNER[14:])),
}


@pytest.mark.parametrize("what", LEFT)
def test_what_is_not_plain_is_left_to_the_host_as_it_came(d: World, what: str) -> None:
    done = come(d, LEFT[what]())
    assert (done.verdict, done.packet, done.drops) == (UNSPEC, LEFT[what](), {})


def test_a_packet_that_ends_anywhere(d: World) -> None:
    whole = wrapped(frame(FAR, B, TCP, tcp(1, 2)))
    for size in range(34, len(whole)):
        assert come(d, whole[:size]).verdict == UNSPEC
    assert come(d, whole).to == "db"


def test_headers_that_contradict_themselves_are_dropped_within(d: World) -> None:
    inner = bytearray(INNER)
    inner[14] = 0x44
    assert come(d, wrapped(bytes(inner))).drop == "MALFORMED"
    assert come(d, wrapped(INNER[:40])).drop == "SHORT"


@pytest.mark.parametrize("v", [4, 6])
def test_what_is_sent_is_what_is_taken_out(d: World, v: int) -> None:
    d.send(frame(A, FAR, UDP, udp(1, 2)))  # the first one of a second goes the long way
    inner = frame(A, FAR, UDP, udp(1, 2), v)
    done = d.send(inner)
    assert (done.to, done.packet[:12]) == ("uplink", NEIGHBOUR + own_mac())
    sent = done.packet
    assert sent[14:] == wrapped(inner, HERE, THERE, identity=A.identity, id=sent[18:20], port_from=sent[34:36])[14:]
    ports = {d.send(frame(A, FAR, UDP, udp(n, 2))).packet[34:36] for n in range(99)}
    assert len(ports) > 90  # spread over paths below


def test_once_a_second_one_goes_the_long_way(d: World) -> None:
    ways = []
    end = time.monotonic() + 2.5
    while time.monotonic() < end:
        ways.append(d.send(frame(A, FAR, UDP, udp(1, 2))).to)
        time.sleep(0.01)
    assert 2 <= ways.count("vxlan") <= 3
    assert set(ways) == {"vxlan", "uplink"}


def test_what_is_too_large_for_the_underlay_goes_the_long_way(d: World) -> None:
    d.send(frame(A, FAR, UDP, udp(1, 2)))
    fits = frame(A, FAR, UDP, udp(1, 2, bytes(1450 - 28)))
    assert "uplink" in {d.send(fits).to for _ in range(2)}  # one of them may be the first of a second
    d.mtu(RED, 1500)
    done = d.send(frame(A, FAR, UDP, udp(1, 2, bytes(1451 - 28))))
    assert (done.to, len(done.packet)) == ("vxlan", 14 + 1451)


def test_fragments_that_have_been_routed_go_the_long_way_cut_or_not(d: World) -> None:
    def ways(fragment: int) -> set[str | None]:
        return {
            d.send(frame(A, AWAY, UDP, udp(1, 2, bytes(8)), to=gateway(RED), fragment=fragment)).to for _ in range(9)
        }

    assert "uplink" in ways(0)
    assert ways(MF) == ways(9) == {"vxlan"}


def test_without_a_neighbour_the_long_way_is_taken(d: World) -> None:
    place = FAR.place._replace(underlay=r.pack_ip("192.0.2.77"))
    d.put("macs", {r.MacKey(RED, FAR.mac): place})
    d.put("hosts", {place.underlay: r.Host(1)})
    assert {d.send(frame(A, FAR, UDP, udp(1, 2))).to for _ in range(3)} == {"vxlan"}


def test_a_neighbour_that_is_gone_is_not_sent_to(d: World) -> None:
    for _ in range(2):
        done = d.send(frame(A, FAR, UDP, udp(1, 2)))
    assert done.to == "uplink"
    subprocess.run(["ip", "neigh", "del", THERE, "dev", "uplink"], check=True)
    try:
        time.sleep(0.03)
        assert d.send(frame(A, FAR, UDP, udp(1, 2))).to == "vxlan"
    finally:
        subprocess.run(["ip", "neigh", "add", THERE, "lladdr", NEIGHBOUR.hex(":"), "dev", "uplink"], check=True)
