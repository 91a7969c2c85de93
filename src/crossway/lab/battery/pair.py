"""What a case is given: who sends, who is to hear, and words to try it with."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

from crossway.client import Object
from crossway.lab.battery.bodies import Card
from crossway.lab.battery.registry import Way, Wrong
from crossway.lab.battery.scene import Scene, gate
from crossway.lab.battery.tries import Try

PATIENCE = 8.0  # seconds for what must come, on however busy a machine
IMPATIENCE = 0.3  # for what must not, and of which a drop tells besides
_numbers = itertools.count(1)


class Pair:
    """Two bodies, one of which sends to the other."""

    def __init__(self, scene: Scene, source: str, target: str, way: Way) -> None:
        self.scene, self.way = scene, way
        self.lab, self.client = scene.lab, scene.lab.client
        self.source, self.target = scene.card(source, way), scene.card(target, way)

    def turned(self) -> Pair:
        """Return the pair the other way round."""
        made = Pair.__new__(Pair)
        made.__dict__.update(self.__dict__)
        made.source, made.target = self.target, self.source
        return made

    @property
    def gateway_mac(self) -> str:
        """The MAC of the source's router."""
        (port,) = self.client.list("port", network_id=self.scene.networks[self.source.network],
                                   fixed_ips=f"ip_address={gate(self.source.network, 4)}")  # fmt: skip
        return str(port["mac_address"])

    # What arrives, and what does not.

    def arrives(self, *tries: Try) -> None:
        """Have these get through."""
        for one in tries:
            if not one.reaches(self, PATIENCE):
                raise Wrong(f"{one} does not arrive")

    def stopped(self, *tries: Try, by: str, at: Card) -> None:
        """Have these not get through, which a port's host counts under a reason."""
        for one in tries:
            with self.drop(by, at):
                if one.reaches(self, IMPATIENCE):
                    raise Wrong(f"{one} arrives")

    @contextlib.contextmanager
    def drop(self, reason: str, at: Card) -> Iterator[None]:
        """Have a port's host count a drop under this reason for what happens in the block."""
        before = at.drops().get(reason, {}).get("packets", 0)
        yield
        if not eventually(lambda: at.drops().get(reason, {}).get("packets", 0) > before):
            told = {name: drop["packets"] for name, drop in at.drops().items()}
            raise Wrong(f"no {reason} is counted for {at}, but {told}")

    # Policy.

    @contextlib.contextmanager
    def policy(self, card: Card, *rules: Object, stateful: bool = True) -> Iterator[str]:
        """Give a card a group with these rules alone, for the time of the block; what it may send is not changed.

        With a rule of direction egress, it may send what those say and nothing else.
        """
        group = self.group(*rules, stateful=stateful)
        try:
            self.give(card, group)
            yield group
        finally:
            # A container that was started elsewhere has another port.
            self.give(card.body.cards[card.network], self.scene.open)
            self.client.delete("security_group", group)

    def group(self, *rules: Object, stateful: bool = True) -> str:
        group = self.client.create("security_group", name=f"battery-{next(_numbers)}", stateful=stateful)
        if any(rule.get("direction") == "egress" for rule in rules):
            for one in group["security_group_rules"]:
                self.client.delete("security_group_rule", one["id"])
        for rule in rules:
            self.add(str(group["id"]), rule)
        return str(group["id"])

    def add(self, group: str, rule: Object) -> str:
        made = self.client.create("security_group_rule", security_group_id=group, **{"direction": "ingress", **rule})
        return str(made["id"])

    def give(self, card: Card, *groups: str) -> None:
        """Have a card be in these groups; return when all hosts know."""
        self.set(card, security_groups=list(groups))

    def set(self, card: Card, **attrs: Any) -> None:
        """Change a port; return when all hosts know."""
        self.client.update("port", card.port, **attrs)
        self.client.wait("port", card.port, seconds=30)

    @contextlib.contextmanager
    def changed(self, card: Card, **attrs: Any) -> Iterator[None]:
        """Have a port be otherwise for the time of the block."""
        before = self.client.show("port", card.port)
        self.set(card, **attrs)
        try:
            yield
        finally:
            self.set(card, **{name: before[name] for name in attrs})

    def only(self, *rules: Object, admits: list[Try], refuses: list[Try]) -> None:
        """Have rules of the target's group admit some of what came before, and refuse the rest."""
        self.arrives(*admits, *refuses)
        with self.policy(self.target, *rules):
            self.arrives(*admits)
            self.stopped(*refuses, by="POLICY_IN", at=self.target)

    def only_out(self, *rules: Object, admits: list[Try], refuses: list[Try]) -> None:
        """Have rules of the source's group let out some of what came before, and refuse the rest."""
        self.arrives(*admits, *refuses)
        with self.policy(self.source, *rules):
            self.arrives(*admits)
            self.stopped(*refuses, by="POLICY_OUT", at=self.source)


def rule(family: int, protocol: str | int | None = None, low: int | None = None, high: int | None = None,
         **attrs: Any) -> Object:  # fmt: skip
    """Return a rule as the API has it. Of ports, *high* is *low* if it is not said; of ICMP they are type and code."""
    made: Object = {"ethertype": f"IPv{family}", **attrs}
    if protocol is not None:
        made["protocol"] = str(protocol)
    if low is not None:
        made["port_range_min"] = low
    if high is None and protocol not in ("icmp", "ipv6-icmp"):
        high = low
    if high is not None:
        made["port_range_max"] = high
    return made


def echo(family: int) -> str:
    """Return the protocol of ping."""
    return "icmp" if family == 4 else "ipv6-icmp"


def eventually(what: Callable[[], bool], seconds: float = PATIENCE) -> bool:
    """Say whether something comes true in time."""
    end = time.monotonic() + seconds
    pause = 0.005
    while not what():
        if time.monotonic() > end:
            return False
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)
    return True


def must(true: object, else_wrong: str) -> None:
    if not true:
        raise Wrong(else_wrong)
