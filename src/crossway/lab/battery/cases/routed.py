"""Networks that routers join: the way there, each router's word of it, and back."""

from __future__ import annotations

from crossway.lab.battery.pair import PATIENCE, Pair, must
from crossway.lab.battery.registry import Way, case
from crossway.lab.battery.scene import NARROW, gate
from crossway.lab.battery.tries import Ping, Tcp, Udp

BOTH = (4, 6)
OVER = (Way.ROUTED, Way.FAR)
UNREACHABLE = {4: (3, 3), 6: (1, 4)}
EXCEEDED = {4: (11, 0), 6: (3, 0)}
TOO_BIG = {4: (3, 4), 6: (2, 0)}


def hops(way: Way, family: int) -> list[str]:
    """Return the addresses by which the routers on the way are known to who sends."""
    if way is Way.ROUTED:
        return [gate("left", family)]
    return [gate("left", family), gate("t1", family, 2), gate("t2", family, 2)]


@case("L3", "ping", families=BOTH, ways=OVER)
def ping(pair: Pair, family: int) -> None:
    pair.arrives(Ping(family))


@case("L3", "UDP and TCP", families=BOTH, ways=OVER)
def udp_and_tcp(pair: Pair, family: int) -> None:
    pair.arrives(Udp(family, 5000), Tcp(family, 5000))


@case("L3", "the router answers a ping", families=BOTH, ways=(Way.ROUTED,))
def router(pair: Pair, family: int) -> None:
    told = pair.source.probe.must("ping", pair.source.ip(family), gate("left", family), 1, 5000)
    must(told["got"], "the router does not answer")


@case("L3", "each router is known by a TTL that ends there", families=BOTH, ways=OVER)
def traced(pair: Pair, family: int) -> None:
    own, to = pair.source.ip(family), pair.target.ip(family)
    for hop, router in enumerate(hops(pair.way, family), 1):
        with pair.source.probe.socket("udp", own, 0, f"ttl={hop}") as mouth:
            mouth.send(b"lost", to, 33434)
            told = mouth.error(PATIENCE)
        must(told, f"nobody says that a TTL of {hop} is too little")
        assert told is not None
        must((told["type"], told["code"]) == EXCEEDED[family], f"ICMP says {told}")
        must(told["by"] == router, f"hop {hop} is {told['by']} and not {router}")
    with pair.source.probe.socket("udp", own, 0, f"ttl={len(hops(pair.way, family)) + 1}") as mouth:
        mouth.send(b"there", to, 33434)
        told = mouth.error(PATIENCE)
    must(told and (told["type"], told["code"], told["by"]) == (*UNREACHABLE[family], to), f"at the end: {told}")


@case("ICMP errors", "port unreachable comes back to who admits nothing new", families=BOTH,
      ways=(Way.SWITCHED, Way.ROUTED))  # fmt: skip
def unreachable(pair: Pair, family: int) -> None:
    with pair.policy(pair.source), pair.source.probe.socket("udp", pair.source.ip(family), 0) as mouth:
        mouth.send(b"anybody?", pair.target.ip(family), 5999)
        told = mouth.error(PATIENCE)
        must(told and (told["type"], told["code"], told["by"]) == (*UNREACHABLE[family], pair.target.ip(family)),
             f"ICMP says {told}")  # fmt: skip


@case("ICMP errors", "TTL exceeded comes back to who admits nothing new", families=BOTH, ways=(Way.ROUTED,))
def exceeded(pair: Pair, family: int) -> None:
    with pair.policy(pair.source), pair.source.probe.socket("udp", pair.source.ip(family), 0, "ttl=1") as mouth:
        mouth.send(b"lost", pair.target.ip(family), 5999)
        told = mouth.error(PATIENCE)
        must(told and (told["type"], told["code"]) == EXCEEDED[family], f"ICMP says {told}")


@case("ICMP errors", "a closed TCP port refuses at once", families=BOTH)
def closed(pair: Pair, family: int) -> None:
    told = pair.source.probe.ask("connect", pair.source.ip(family), pair.target.ip(family), 5999, 8000)
    must(told.get("error") == "ECONNREFUSED", f"the connection ends with {told}")


@case("MTU", "too big for the next network is told with its MTU", families=BOTH, ways=(Way.ROUTED,))
def too_big(pair: Pair, family: int) -> None:
    with pair.source.probe.socket("udp", pair.source.ip(family), 0, "df=1") as mouth:
        fault = mouth.send(1400 - (28 if family == 4 else 48), pair.target.ip(family), 5999)
        must(not fault, f"it cannot be sent: {fault}")
        told = mouth.error(PATIENCE)
        must(told and (told["type"], told["code"], told["info"]) == (*TOO_BIG[family], NARROW), f"ICMP says {told}")


@case("MTU", "as large as the narrowest network passes whole", families=BOTH, ways=(Way.ROUTED,))
def narrow(pair: Pair, family: int) -> None:
    pair.arrives(Ping(family, NARROW - (20 if family == 4 else 40), whole=True))


@case("MTU", "as large as the network passes whole", families=BOTH)
def full(pair: Pair, family: int) -> None:
    pair.arrives(Ping(family, 1450 - (20 if family == 4 else 40), whole=True))


@case("MTU", "larger than the network does not pass whole", families=BOTH)
def larger(pair: Pair, family: int) -> None:
    size = 1450 - (20 if family == 4 else 40)
    source = pair.source
    pair.arrives(Ping(family, size, whole=True))
    source.probe.run(f"ip link set {source.device} mtu 1500")
    try:
        must(not Ping(family, size + 50, whole=True).reaches(pair, 0.4), "it arrives")
    finally:
        source.probe.run(f"ip link set {source.device} mtu 1450")
