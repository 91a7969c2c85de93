"""Addresses that come back under another MAC: who is told, and of what."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from crossway.agent.guest import neighbours
from crossway.agent.guest.frame import ICMPV6, parse
from crossway.agent.guest.neighbours import Neighbours, said
from crossway.plan import view

OLD, NEW, MINE = "02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:00:09"


def a_port(id: str, mac: str, *ips: str, network: str = "n") -> view.Port:
    return view.Port(
        id=id, network=network, mac=mac, identity=0, host="h1",
        addresses=tuple(view.Address(ip=ip, subnet="s") for ip in ips),
    )  # fmt: skip


class Plan:
    """What a plan tells of this host's ports."""

    def __init__(self, *ports: view.Port) -> None:
        self.ports = {port.id: port for port in ports}

    def local_bodies(self) -> dict[str, Any]:
        return {id: SimpleNamespace(key=id) for id in self.ports}

    def port(self, id: str) -> view.Port | None:
        return self.ports.get(id)

    def is_here(self, port: view.Port) -> bool:
        return port.host == "h1"


def told(*changes: tuple[list[view.Port | None], list[view.Port | None]]) -> list[tuple[str, bytes]]:
    """Return what is sent while ports change; two of this host listen, on two networks."""
    sent: list[tuple[str, bytes]] = []
    here = Plan(a_port("mine", MINE, "10.0.0.9"), a_port("other", MINE, "10.0.0.9", network="m"))
    watch = Neighbours(here, lambda key, raw: sent.append((str(key), raw)))  # type: ignore[arg-type]
    for before, after in changes:
        watch.changed(before, after)
    return sent


def test_those_of_the_network_are_told_of_another_mac() -> None:
    old, new = a_port("a", OLD, "10.0.0.5", "fd00::5"), a_port("b", NEW, "10.0.0.5", "fd00::5")
    for changes in (
        [([old], [None]), ([None], [new])],  # gone, then come
        [([old, None], [None, new])],  # both at once
        [([old], [a_port("a", NEW, "10.0.0.5", "fd00::5")])],  # the port has another MAC
    ):
        four, six = told(*changes)  # type: ignore[arg-type]
        assert (four[0], six[0]) == ("mine", "mine")
        assert four[1].hex() == ("020000000009020000000002080600010800060400020200000000020a0000050200000000020a000005")
        seen = parse(six[1])
        assert seen is not None
        assert (seen.proto, seen.body[0], seen.body[4] >> 5, seen.body[-6:].hex()) == (ICMPV6, 136, 1, "020000000002")


def test_what_is_as_it_was_is_not_told() -> None:
    old, same = a_port("a", OLD, "10.0.0.5"), a_port("b", OLD, "10.0.0.5")
    assert told(([None], [old])) == []
    assert told(([old], [old])) == []
    assert told(([old], [None]), ([None], [same])) == []
    assert told(([old], [None]), ([None], [a_port("b", NEW, "10.0.0.5", network="k")])) == []
    assert told(([old], [None]), ([None], [a_port("b", NEW, "10.0.0.6")])) == []


def test_what_left_long_ago_is_forgotten(monkeypatch: Any) -> None:
    clock = iter((0.0, neighbours.MEMORY_SECONDS + 1))
    monkeypatch.setattr(neighbours.time, "monotonic", lambda: next(clock))
    old, new = a_port("a", OLD, "10.0.0.5"), a_port("b", NEW, "10.0.0.5")
    assert told(([old], [None]), ([None], [new])) == []


def test_no_more_is_remembered_than_there_is_room_for() -> None:
    watch = Neighbours(Plan(), lambda key, raw: None)  # type: ignore[arg-type]
    for n in range(0, 3 * neighbours.MEMORY_MAX, 4096):
        watch.changed([a_port(str(n + m), OLD, f"fd00::{n + m:x}") for m in range(4096)], [None] * 4096)
    assert len(watch._left) <= neighbours.MEMORY_MAX


def test_what_is_said_can_be_read() -> None:
    assert parse(said(b"\2" * 6, "fd00::5", b"\4" * 6)) is not None
