"""Datagrams in fragments: what follows the first one follows its fate."""

from __future__ import annotations

from crossway.lab.battery import frames
from crossway.lab.battery.pair import IMPATIENCE, PATIENCE, Pair, eventually, must, rule
from crossway.lab.battery.registry import Way, case
from crossway.lab.battery.scene import NARROW
from crossway.lab.battery.tries import Ping, Try, Udp, token

BOTH = (4, 6)
WAYS = (Way.SWITCHED, Way.ROUTED)


def _arrives(pair: Pair, one: Try) -> None:
    """Have it arrive; over IPv6 not the first one, where a narrower network's MTU is told only then."""
    if pair.way is Way.SWITCHED or one.family == 4:
        pair.arrives(one)
    else:
        must(eventually(lambda: one.reaches(pair, 1.0)), f"{one} does not arrive")


@case("fragments", "a datagram of 4,000 bytes arrives whole", families=BOTH, ways=(*WAYS, Way.FAR))
def large(pair: Pair, family: int) -> None:
    _arrives(pair, Udp(family, 5000, size=4000))


@case("fragments", "a datagram of 60,000 bytes arrives whole", families=BOTH, ways=(Way.ROUTED,))
def largest(pair: Pair, family: int) -> None:
    _arrives(pair, Udp(family, 5000, size=60000))


@case("fragments", "a router fragments what fits its sender's network and not the next", families=(4,),
      ways=(Way.ROUTED, Way.FAR))  # fmt: skip
def divided(pair: Pair, family: int) -> None:
    for size in (NARROW - 27, 1400, 1422):
        pair.arrives(Udp(family, 5000, size=size, divisible=True))


@case("fragments", "a ping of 4,000 bytes is answered", families=BOTH, ways=WAYS)
def ping(pair: Pair, family: int) -> None:
    _arrives(pair, Ping(family, 4000))


@case("fragments", "a port that is admitted, and one that is not", families=BOTH, ways=WAYS)
def policy(pair: Pair, family: int) -> None:
    _arrives(pair, Udp(family, 5000, size=4000))
    pair.only(
        rule(family, "udp", 5000),
        admits=[Udp(family, 5000, size=4000)],
        refuses=[Udp(family, 5001, size=4000)],
    )


@case("fragments", "a datagram whose fragments come in the opposite order arrives whole", families=BOTH)
def reversed_order(pair: Pair, family: int) -> None:
    source, target = pair.source, pair.target
    own, to = source.ip(family), target.ip(family)
    with (
        source.probe.socket("packet", source.device, "0x88b6") as raw,
        target.probe.socket("udp", to, 5000) as ear,
    ):
        mark = token()
        number = int.from_bytes(mark[-4:])
        for one in reversed(frames.fragments(source.mac, target.mac, own, to, mark + bytes(3000), 5000, number)):
            raw.send(one)
        must(ear.find(lambda data: mark in data, PATIENCE), "it does not arrive")


@case("fragments", "one whose first was not seen goes nowhere", families=BOTH)
def orphan(pair: Pair, family: int) -> None:
    source, target = pair.source, pair.target
    own, to = source.ip(family), target.ip(family)
    with (
        source.probe.socket("packet", source.device, "0x88b6") as raw,
        target.probe.socket("packet", target.device, "0x0003") as ear,
    ):
        mark = token()
        raw.send(frames.udp(source.mac, target.mac, own, to, mark))
        must(ear.find(lambda data: mark in data, PATIENCE), "what is in one piece does not arrive")
        mark = token()
        with pair.drop("FRAGMENT", source):
            raw.send(frames.fragment(source.mac, target.mac, own, to, mark, 1400, int.from_bytes(mark[-4:])))
            must(ear.find(lambda data: mark in data, IMPATIENCE) is None, "it arrives")
