"""Security groups: a rule of each kind admits what it says, and nothing else; changes of them reach what is there."""

from __future__ import annotations

from crossway.client import Object, path_of
from crossway.lab.battery.pair import PATIENCE, Pair, echo, eventually, must, rule
from crossway.lab.battery.registry import Way, case
from crossway.lab.battery.tries import Icmp, Ping, Proto, Tcp, Try, Udp

BOTH = (4, 6)
ECHO_TYPE = {4: 8, 6: 128}
OTHER_TYPE = {4: 13, 6: 200}  # a timestamp; one for experiments
NOT_THERE = {4: "10.64.9.0/24", 6: "fd64:9::/64"}


def width(family: int) -> int:
    return 32 if family == 4 else 128


@case("security groups", "no rule: nothing new", families=BOTH)
def nothing(pair: Pair, family: int) -> None:
    pair.only(admits=[], refuses=[Ping(family), Udp(family, 5000), Tcp(family, 5000)])


@case("security groups", "any: all of its family, nothing of the other", families=BOTH)
def anything(pair: Pair, family: int) -> None:
    pair.only(
        rule(family),
        admits=[Ping(family), Udp(family, 5000), Tcp(family, 5000), Proto(family, 99)],
        refuses=[Ping(10 - family), Udp(10 - family, 5000)],
    )


@case("security groups", "a protocol", families=BOTH)
def protocol(pair: Pair, family: int) -> None:
    pair.only(rule(family, "udp"), admits=[Udp(family, 5000)], refuses=[Tcp(family, 5000), Ping(family)])


@case("security groups", "a protocol by its number", families=BOTH)
def number(pair: Pair, family: int) -> None:
    pair.only(rule(family, 99), admits=[Proto(family, 99)], refuses=[Proto(family, 98), Udp(family, 5000)])


@case("security groups", "a TCP port", families=BOTH, ways=(Way.SWITCHED, Way.ROUTED))
def port(pair: Pair, family: int) -> None:
    pair.only(
        rule(family, "tcp", 5000), admits=[Tcp(family, 5000)], refuses=[Tcp(family, 5001), Udp(family, 5000)]
    )  # fmt: skip


@case("security groups", "a range of UDP ports, both ends", families=BOTH)
def ports(pair: Pair, family: int) -> None:
    pair.only(
        rule(family, "udp", 5003, 5017),
        admits=[Udp(family, 5003), Udp(family, 5011), Udp(family, 5017)],
        refuses=[Udp(family, 5002), Udp(family, 5018)],
    )


@case("security groups", "an ICMP type", families=BOTH)
def icmp_type(pair: Pair, family: int) -> None:
    pair.only(rule(family, echo(family), ECHO_TYPE[family]), admits=[Ping(family)],
              refuses=[Icmp(family, OTHER_TYPE[family])])  # fmt: skip


@case("security groups", "an ICMP type and code", families=BOTH)
def icmp_code(pair: Pair, family: int) -> None:
    type = OTHER_TYPE[family]
    pair.only(rule(family, echo(family), type, 3), admits=[Icmp(family, type, 3)],
              refuses=[Icmp(family, type, 4), Ping(family)])  # fmt: skip


@case("security groups", "a remote prefix", families=BOTH, ways=(Way.SWITCHED, Way.ROUTED))
def prefix(pair: Pair, family: int) -> None:
    one: Try = Udp(family, 5000)
    own = f"{pair.source.ip(family)}/{width(family)}"
    pair.only(rule(family, remote_ip_prefix=own), admits=[one], refuses=[])
    pair.only(rule(family, remote_ip_prefix=NOT_THERE[family]), admits=[], refuses=[one])


@case("security groups", "a remote group", families=BOTH, ways=(Way.SWITCHED, Way.ROUTED))
def remote_group(pair: Pair, family: int) -> None:
    friends = pair.group()
    try:
        with pair.policy(pair.target, rule(family, remote_group_id=friends)):
            pair.stopped(Udp(family, 5000), by="POLICY_IN", at=pair.target)
            pair.give(pair.source, pair.scene.open, friends)
            pair.arrives(Udp(family, 5000))
            pair.give(pair.source, pair.scene.open)
            pair.stopped(Udp(family, 5000), by="POLICY_IN", at=pair.target)
    finally:
        pair.client.delete("security_group", friends)


@case("security groups", "a remote address group, and its change", families=BOTH)
def address_group(pair: Pair, family: int) -> None:
    one = Udp(family, 5000)
    own, other = f"{pair.source.ip(family)}/{width(family)}", NOT_THERE[family]
    known = pair.client.create("address_group", addresses=[other, own])
    try:
        with pair.policy(pair.target, rule(family, remote_address_group_id=known["id"])):
            pair.arrives(one)
            pair.client.ask("PUT", f"{path_of('address_group', known['id'])}/remove_addresses",
                            {"address_group": {"addresses": [own]}})  # fmt: skip
            must(eventually(lambda: not one.reaches(pair, 0.2)), "it still arrives")
            pair.stopped(one, by="POLICY_IN", at=pair.target)
    finally:
        pair.client.delete("address_group", known["id"])


@case("security groups", "egress: a port", families=BOTH)
def egress_port(pair: Pair, family: int) -> None:
    out: Object = {"direction": "egress"}
    pair.only_out(rule(family, "udp", 5000, **out), admits=[Udp(family, 5000)],
                  refuses=[Udp(family, 5001), Tcp(family, 5000), Ping(family)])  # fmt: skip


@case("security groups", "egress: a remote prefix", families=BOTH)
def egress_prefix(pair: Pair, family: int) -> None:
    out: Object = {"direction": "egress"}
    to = f"{pair.target.ip(family)}/{width(family)}"
    pair.only_out(rule(family, **out, remote_ip_prefix=to), admits=[Udp(family, 5000)], refuses=[])
    pair.only_out(rule(family, **out, remote_ip_prefix=NOT_THERE[family]), admits=[], refuses=[Udp(family, 5000)])


@case("security groups", "stateful: the answer comes in, nothing new does", families=BOTH)
def stateful(pair: Pair, family: int) -> None:
    back = pair.turned()
    back.arrives(Udp(family, 5000))
    with pair.policy(pair.source):
        pair.arrives(Ping(family), Tcp(family, 5000))
        back.stopped(Udp(family, 5000), by="POLICY_IN", at=pair.source)


@case("security groups", "stateless: an answer needs a rule of its own", families=BOTH)
def stateless(pair: Pair, family: int) -> None:
    pair.arrives(Ping(family))
    with pair.policy(pair.source, stateful=False):
        pair.stopped(Ping(family), by="POLICY_IN", at=pair.source)
    with pair.policy(pair.source, rule(family, echo(family)), stateful=False):
        pair.arrives(Ping(family))


@case("security groups", "a rule that is added admits at once", families=BOTH)
def added(pair: Pair, family: int) -> None:
    one = Udp(family, 5000)
    with pair.policy(pair.target) as group:
        pair.stopped(one, by="POLICY_IN", at=pair.target)
        pair.add(group, rule(family, "udp", 5000))
        must(eventually(lambda: one.reaches(pair, 0.2)), "it does not arrive")


@case("security groups", "a rule that is taken away ends the connection that it admitted", families=BOTH)
def taken(pair: Pair, family: int) -> None:
    with pair.policy(pair.target) as group, Talk(pair, family) as talk:
        made = pair.add(group, rule(family, "tcp", 5000))
        talk.open()
        must(talk.gets_there(PATIENCE), "nothing comes over the connection")
        pair.client.delete("security_group_rule", made)
        with pair.drop("POLICY_IN", pair.target):
            must(eventually(lambda: not talk.gets_there(0.2)), "the connection goes on")
        must(not talk.gets_there(0.3), "the connection comes back")


@case("security groups", "a connection goes on when other groups admit it as well", families=BOTH)
def kept(pair: Pair, family: int) -> None:
    other = pair.group(rule(family, "tcp"))
    try:
        with pair.policy(pair.target, rule(family, "tcp", 5000)), Talk(pair, family) as talk:
            talk.open()
            must(talk.gets_there(PATIENCE), "nothing comes over the connection")
            pair.give(pair.target, other)
            must(talk.gets_there(PATIENCE), "nothing comes after the groups have changed")
    finally:
        pair.client.delete("security_group", other)


class Talk:
    """A TCP connection over which something is said now and then."""

    def __init__(self, pair: Pair, family: int) -> None:
        self._pair, self._family = pair, family
        self._near = self._far = -1

    def __enter__(self) -> Talk:
        self._door = self._pair.target.probe.must("tcp", self._pair.target.ip(self._family), 5000)["fd"]
        return self

    def open(self) -> None:
        pair = self._pair
        end = pair.source.ip(self._family), pair.target.ip(self._family)
        must(eventually(lambda: self._connected(*end)), "no connection")
        self._far = pair.target.probe.must("accept", self._door, 8000)["fd"]

    def _connected(self, own: str, to: str) -> bool:
        self._near = self._pair.source.probe.ask("connect", own, to, 5000, 1000).get("fd", -1)
        return self._near >= 0

    def gets_there(self, seconds: float) -> bool:
        """Say something; return whether anything has come in time."""
        self._pair.source.probe.ask("send", self._near, "2e")
        return "data" in self._pair.target.probe.ask("recv", self._far, int(seconds * 1000))

    def __exit__(self, *_: object) -> None:
        for probe, fd in ((self._pair.source.probe, self._near), (self._pair.target.probe, self._far),
                          (self._pair.target.probe, self._door)):  # fmt: skip
            if fd >= 0:
                probe.ask("close", fd)
