"""How much one port may have copied to all of its network: nobody fills the queues of others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from bpf.packets import BROADCAST, IPV4, IPV6, UDP, arp, eth, ip, udp
from bpf.test_switch import OUTSIDE, tagged
from bpf.world import BARE, CLEAR, FAR, GREY, PUBLIC, RED, STOLEN, A, B, D, Sent, Who, World, frame, gateway, world
from crossway.agent.plane import flood_copies
from crossway.errors import Invalid
from crossway.kernel.bpf import UNSPEC

COPIES = 1000  # a second
SHOUT = ip(A.ip4, "255.255.255.255", UDP, udp(1, 2))
# B, TAP, TAGGED and one other host; a member that gets none costs an eighth.
EACH = 4 + 5 / 8
MANY = 5000


@pytest.fixture(scope="module")
def slow() -> Iterator[World]:
    with world(flood_copies=COPIES) as made:
        yield made


@pytest.fixture
def s(slow: World) -> World:
    slow.reset()
    time.sleep(2.1)  # who has been quiet so long has all of the burst again
    return slow


def passed(send: Callable[[], Sent], most: int = MANY, by: str | None = "da") -> int:
    """Return how many went before one did not, and why it did not."""
    for n in range(most):
        done = send()
        if done.drops:
            assert done.drops == {(by, "FLOOD_RATE"): 1}
            return n
    return most


def shout(w: World, who: Who = A, packet: bytes = SHOUT, to: bytes = BROADCAST, kind: int = IPV4) -> Sent:
    return w.send(eth(to, who.mac, kind, packet), who)


KINDS: dict[str, tuple[bytes, int, bytes]] = {
    "broadcast": (BROADCAST, IPV4, SHOUT),
    "multicast": (bytes.fromhex("01005e000012"), IPV4, ip(A.ip4, "224.0.0.18", 112, bytes(20))),
    "multicast of IPv6": (bytes.fromhex("3333000000fb"), IPV6, ip(A.ip6, "ff02::fb", UDP, udp(5353, 5353))),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_port_has_so_many_copies_made(s: World, kind: str) -> None:
    to, proto, packet = KINDS[kind]
    start = time.monotonic()
    went = passed(lambda: shout(s, A, packet, to, proto))
    seconds = time.monotonic() - start + 2  # the burst
    assert 0.8 * 2 * COPIES <= went * EACH <= 1.1 * COPIES * seconds + EACH
    time.sleep(0.1)
    assert 5 <= passed(lambda: shout(s, A, packet, to, proto)) <= 100


def test_others_do_not_pay(s: World) -> None:
    assert passed(lambda: shout(s)) < MANY
    assert shout(s, B, ip(B.ip4, "255.255.255.255", UDP, udp(1, 2))).verdict == STOLEN
    assert s.send(frame(A, B, UDP, udp(1, 2))).passed  # nor does what is for one
    assert s.send(arp(1, A.mac, A.ip4, B.ip4)).passed  # or is answered here
    assert s.send(frame(A, D, UDP, udp(1, 2), to=gateway(RED))).passed


def test_what_is_for_nobody_known_is_copied_as_often(s: World) -> None:
    sent = eth(bytes((2, 7, 7, 7, 7, 7)), BARE.mac, IPV4, ip(BARE.ip4, "10.0.4.99", UDP, udp(1, 2)))
    s.network(CLEAR, [BARE.place, *[FAR.place] * 9])
    assert 150 <= passed(lambda: s.send(sent, BARE), by="du") <= 400
    assert passed(lambda: s.send(arp(1, BARE.mac, BARE.ip4, "10.0.4.98"), BARE), by="du") <= 50


def test_of_a_large_network_a_few_packets_always_pass(s: World) -> None:
    s.network(RED, [FAR.place] * 900)
    went = passed(lambda: shout(s))
    assert 45 <= went <= 80  # two seconds' worth of 25
    time.sleep(0.5)
    assert 5 <= passed(lambda: shout(s)) <= 25


def test_from_another_host_a_network_has_so_many(s: World) -> None:
    def hear(network: int) -> Sent:
        return s.receive(eth(BROADCAST, FAR.mac, IPV4, ip(FAR.ip4, "255.255.255.255", UDP, udp(1, 2))), network)

    assert 300 <= passed(lambda: hear(RED), by=None) < MANY
    assert hear(CLEAR).verdict == STOLEN
    assert shout(s).verdict == STOLEN


def test_from_outside_ports_have_so_many_and_the_host_has_all(s: World) -> None:
    s.network(GREY, [PUBLIC.place] * 20)
    sent = tagged(eth(BROADCAST, OUTSIDE.mac, 0x0806, bytes(28)))

    def hear() -> Sent:
        done = s.run("from_uplink", sent, "uplink")
        assert done.verdict == UNSPEC  # the host's stack has it in any case
        return done

    assert 80 <= passed(hear, by=None) < MANY
    assert shout(s, PUBLIC, ip(PUBLIC.ip4, "255.255.255.255", UDP, udp(1, 2))).verdict == STOLEN


def test_by_default_what_networks_are_made_of_passes(w: World) -> None:
    """A hundred neighbours that all speak VRRP, mDNS and ARP at once, and a limit of none."""
    w.network(RED, [FAR.place] * 100)
    assert passed(lambda: shout(w), 200) == 200
    with world(flood_copies=0) as free:
        assert passed(lambda: shout(free), 20_000) == 20_000


@pytest.mark.parametrize("said", ["-1", "many", "1e3", "100000001", "²"])
def test_a_rate_that_is_none_is_refused(said: str) -> None:
    with pytest.raises(Invalid, match="CROSSWAY_FLOOD_RATE"):
        flood_copies(said)
    assert (flood_copies("0"), flood_copies("20000")) == (0, 20_000)
