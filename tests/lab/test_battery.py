"""A handful of the battery's cases, over all pairs of container, guest and server."""

from __future__ import annotations

from pathlib import Path

from crossway.lab.battery.run import OK, chosen, play
from crossway.lab.battery.scene import Scene
from crossway.lab.demo.__main__ import images
from crossway.lab.lab import Lab

TOP = Path(__file__).parents[2]
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


def test_a_handful_is_the_same_for_every_pair() -> None:
    cases, blows = chosen(f"^({HANDFUL})$")
    assert len(cases) == HANDFUL.count("|") + 1
    assert not blows
    image = images()
    with Lab.up(hosts=2) as lab:
        scene = Scene(lab, image)
        try:
            scene.settle()
            cells = play(scene, cases, blows, lambda cell: None)
        finally:
            scene.close()
    assert len(cells) == len(cases) * 9 * 2
    assert [cell for cell in cells if cell.result != OK] == []
