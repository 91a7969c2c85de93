"""VXLAN that is taken off before the host's stack sees it: what is plain, and what is left to the host."""

from __future__ import annotations

import fcntl
import socket
import struct
from collections.abc import Callable, Iterator

import pytest

from bpf.packets import IPV4, TCP, UDP, checksum, eth, tcp, udp
from bpf.world import FAR, HERE, RED, STRANGER, TAP, THERE, A, B, Sent, Who, World, frame, world
from crossway.kernel.bpf import OK, REDIRECT
from crossway.model import rows as r

PORT = 4789
SIOCGIFHWADDR = 0x8927


@pytest.fixture(scope="module")
def one() -> Iterator[World]:
    port = int.from_bytes(PORT.to_bytes(2, "big"), "little")
    with world(direct=1, vxlan_port=port, underlay=int.from_bytes(r.pack_ip(HERE), "little")) as made:
        yield made


@pytest.fixture
def d(one: World) -> World:
    one.reset()
    return one


def own_mac() -> bytes:
    with socket.socket() as s:
        return fcntl.ioctl(s, SIOCGIFHWADDR, struct.pack("256s", b"uplink"))[18:24]


def wrapped(
    inner: bytes, src: str = THERE, dst: str = HERE, port: int = PORT, flags: int = 0x88, identity: int = 3,
    network: int = RED, sum: int = 0, fragment: int = 0, version: int = 0x45, short: int = 0, kind: int = UDP,
    more: int = 0, last: int = 0,
) -> bytes:  # fmt: skip
    """Return a frame in VXLAN as another host sends it."""
    vxlan = struct.pack("!BBHI", flags, more, identity, network << 8 | last) + inner
    packet = struct.pack("!HHHH", 40000, port, 8 + len(vxlan) - short, sum) + vxlan
    head = struct.pack("!BBHHHBBH", version, 0, 20 + len(packet), 7, fragment, 64, kind, 0)
    head += socket.inet_aton(src) + socket.inet_aton(dst)
    head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    return eth(own_mac(), bytes((2, 9, 9, 9, 9, 9)), IPV4, head + packet)


def come(d: World, sent: bytes) -> Sent:
    return d.run("from_uplink", sent, "uplink")


@pytest.mark.parametrize("v", [4, 6])
def test_a_plain_packet_is_taken_out(d: World, v: int) -> None:
    inner = frame(FAR, B, TCP, tcp(1, 2), v)
    done = come(d, wrapped(inner))
    if v == 6 and done.verdict == OK:  # left to the host: kernels before 6.3 cannot
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
    assert (done.verdict, done.packet, done.drops) == (OK, LEFT[what](), {})


def test_a_packet_that_ends_anywhere(d: World) -> None:
    whole = wrapped(frame(FAR, B, TCP, tcp(1, 2)))
    for size in range(34, len(whole)):
        assert come(d, whole[:size]).verdict == OK
    assert come(d, whole).to == "db"


def test_headers_that_contradict_themselves_are_dropped_within(d: World) -> None:
    inner = bytearray(INNER)
    inner[14] = 0x44
    assert come(d, wrapped(bytes(inner))).drop == "MALFORMED"
    assert come(d, wrapped(INNER[:40])).drop == "SHORT"


def test_without_a_route_the_long_way_is_taken(d: World) -> None:
    done = d.send(frame(A, FAR, UDP, udp(1, 2)))
    assert (done.to, len(done.packet)) == ("vxlan", len(INNER))
