"""A handful of the battery's cases, over all pairs of container, guest and server."""

from __future__ import annotations

import pytest

from crossway.lab.battery import pair
from crossway.lab.battery.pair import Pair
from crossway.lab.battery.registry import Case, Way
from crossway.lab.battery.run import OK, WRONG, chosen, play
from crossway.lab.battery.scene import Scene
from crossway.lab.battery.tries import Ping
from crossway.lab.demo.__main__ import images
from crossway.lab.lab import Lab

PING = Ping(4)
HANDFUL = "|".join(
    [
        "L2: UDP and TCP, IPv6",
        "L2: multicast, IPv4",
        "L3: ping over one router, IPv4",
        "security groups: a TCP port, IPv4",
        "spoofing: another's IPv6 address",
        "fragments: a datagram of 4,000 bytes arrives whole over one router, IPv6",
    ]
)


def test_a_handful_is_the_same_for_every_pair_and_a_false_case_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    cases, blows = chosen(f"^({HANDFUL})$")
    assert len(cases) == HANDFUL.count("|") + 1
    assert not blows
    image = images()
    with Lab.up(hosts=2) as lab:
        scene = Scene(lab, image)
        try:
            scene.settle()
            cells = play(scene, cases, blows, lambda cell: None)
            monkeypatch.setattr(pair, "PATIENCE", 0.5)
            false = play(scene, [Case("control", "nothing is admitted", Way.SWITCHED, arrives_all_the_same)], [],
                         lambda cell: None)  # fmt: skip
        finally:
            scene.close()
    assert len(cells) == len(cases) * 9 * 2
    assert [cell for cell in cells if cell.result != OK] == []
    assert [(cell.result, cell.why) for cell in false] == [(WRONG, f"{PING} does not arrive")] * 18


def arrives_all_the_same(pair: Pair) -> None:
    """Have something arrive that no rule admits: wrong, if the battery can tell."""
    with pair.policy(pair.target):
        pair.arrives(PING)
