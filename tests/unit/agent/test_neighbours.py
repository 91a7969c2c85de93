"""An address gets another MAC: which ports are told, and of what."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from crossway.agent.guest import neighbours
from crossway.agent.guest.frame import ICMPV6, parse
from crossway.agent.guest.neighbours import Neighbours, said
from crossway.model import rows as r
from crossway.plan import view
from crossway.plan.address import link_local, mac
from crossway.plan.plan import Document, Plan
from crossway.plan.port import Body
from crossway.plan.rows import Rows, changes, empty
from crossway.plan.service import SERVICE_MAC

STAND_IN = SERVICE_MAC.hex(":")
MINE, OLD, NEW, FOOT, OTHER_FOOT = (f"02:00:00:00:00:0{n}" for n in range(1, 6))
GATEWAY = ("10.0.0.1", "fd00::1")
HELD = ("10.0.0.5", "fd00::5")


def port(id: str, mac: str, *ips: str, host: str | None = "h2", network: str = "n", **more: Any) -> Document:
    addresses = tuple(view.Address(ip=ip, subnet=f"{network}{6 if ':' in ip else 4}") for ip in ips)
    return Document("port", id, view.Port(id=id, network=network, mac=mac, host=host, addresses=addresses, **more))


def router(mac: str | None, *ips: str, up: bool = True, id: str = "r") -> Document:
    feet = (
        (view.Interface("rp", "n", mac, tuple(view.Prefixed(ip, 64 if ":" in ip else 24) for ip in ips)),)
        if mac
        else ()
    )
    return Document("router", id, view.Router(id=id, number=7, up=up, interfaces=feet))


def gone(kind: str, id: str) -> Document:
    return Document(kind, id, None)


WORLD = [
    Document("host", "h2", view.Host(id="h2", underlay="192.0.2.2")),
    *(Document("network", n, view.Network(id=n, number=number, mtu=1450)) for n, number in (("n", 10), ("m", 11))),
    Document("subnet", "n4", view.Subnet(id="n4", network="n", cidr="10.0.0.0/24", gateway=GATEWAY[0])),
    Document("subnet", "n6", view.Subnet(id="n6", network="n", cidr="fd00::/64", gateway=GATEWAY[1])),
    # Those of this host that listen: one on the network, one on another.
    port("mine", MINE, "10.0.0.9", "fd00::9", host="h1"),
    port("other", MINE, "10.0.0.9", host="h1", network="m"),
]  # fmt: skip


class Host:
    """A host's plan and tables, and what its ports are told."""

    def __init__(self, *before: Document) -> None:
        self.sent: list[tuple[int, bytes]] = []
        self.have: Rows = empty()
        self.plan = Plan("h1")
        self.neighbours = Neighbours(self.plan, lambda key, raw: self.sent.append((key.ifindex, raw)))
        self.plan.bodies({"mine": Body(r.PortKey(1), r.Body.VETH), "other": Body(r.PortKey(2), r.Body.VETH)})
        self.take(*WORLD, *before)
        assert not self.sent

    def take(self, *documents: Document) -> None:
        self.plan.take(documents)
        self.apply()

    def apply(self) -> None:
        change = changes(self.have, self.plan.rows, self.plan.settle())
        put, deleted = change.put.get("endpoints", {}), change.delete.get("endpoints", set())
        self.neighbours.note(self.have["endpoints"], put, deleted)  # type: ignore[arg-type]
        for table, rows in change.put.items():
            self.have[table].update(rows)
        for table, keys in change.delete.items():
            for key in keys:
                del self.have[table][key]
        self.neighbours.tell()

    def heard(self) -> dict[str, str]:
        """Return what the port on the network was told since last asked: addresses and their MACs."""
        found = {}
        for ifindex, raw in self.sent:
            assert ifindex == 1, "the other network has nothing to do with it"
            assert raw[:6] == mac(MINE)
            if raw[12:14] == b"\x08\x06":
                assert raw[14:22].hex() == "0001080006040002"
                assert raw[22:32] == raw[32:42], "an announcement says the same of sender and target (RFC 5227)"
                assert raw[6:12] == raw[22:28]
                found[str(ip_address(raw[28:32]))] = raw[22:28].hex(":")
                continue
            told = parse(raw)
            assert told is not None
            if told.body[0] == 134:
                assert told.body[6:8] == bytes(2), "no router any more"
                found[str(ip_address(told.src))] = "no router"
                continue
            assert (told.proto, told.body[0], told.src) == (ICMPV6, 136, told.body[8:24])
            assert told.body[4] & 0x20, "overrides what is remembered"
            by_router = told.body[-6:].hex(":") in (STAND_IN, FOOT, OTHER_FOOT)
            assert bool(told.body[4] & 0x80) is by_router
            found[str(ip_address(told.src))] = told.body[-6:].hex(":")
        self.sent.clear()
        return found


def both(addresses: tuple[str, ...], mac: str) -> dict[str, str]:
    return dict.fromkeys(addresses, mac)


def no_router(of: str) -> dict[str, str]:
    return {r.unpack_ip(link_local(mac(of))): "no router"}


CASES: dict[str, tuple[list[Document], list[Document], dict[str, str]]] = {
    "a router joins": ([], [router(FOOT, *GATEWAY)], both(GATEWAY, FOOT)),
    "a router with one family joins": ([], [router(FOOT, GATEWAY[0])], both(GATEWAY[:1], FOOT)),
    "a router leaves": ([router(FOOT, *GATEWAY)], [router(None)], both(GATEWAY, STAND_IN) | no_router(FOOT)),
    "a router is deleted": ([router(FOOT, *GATEWAY)], [gone("router", "r")], both(GATEWAY, STAND_IN) | no_router(FOOT)),
    "a router is turned off": (
        [router(FOOT, *GATEWAY)], [router(FOOT, *GATEWAY, up=False)], both(GATEWAY, STAND_IN) | no_router(FOOT)),
    "an interface is another one": (
        [router(FOOT, *GATEWAY)], [router(OTHER_FOOT, *GATEWAY)], both(GATEWAY, OTHER_FOOT) | no_router(FOOT)),
    "another router": (
        [router(FOOT, *GATEWAY)], [gone("router", "r"), router(OTHER_FOOT, *GATEWAY, id="s")],
        both(GATEWAY, OTHER_FOOT) | no_router(FOOT)),
    "a port takes the gateway's address": ([], [port("gw", NEW, *GATEWAY)], both(GATEWAY, NEW)),
    "a port gives the gateway's address back": (
        [port("gw", NEW, *GATEWAY)], [gone("port", "gw")], both(GATEWAY, STAND_IN)),
    "a port replaces another": (
        [port("a", OLD, *HELD)], [gone("port", "a"), port("b", NEW, *HELD)], both(HELD, NEW)),
    "an address moves to another port": (
        [port("a", OLD, *HELD), port("b", NEW, "10.0.0.6")], [port("a", OLD), port("b", NEW, "10.0.0.6", *HELD)],
        both(HELD, NEW)),
    "a port's MAC changes": ([port("a", OLD, *HELD)], [port("a", NEW, *HELD)], both(HELD, NEW)),
    "a gateway changes": (
        [router(FOOT, "10.0.0.2")], [router(FOOT, "10.0.0.2", GATEWAY[0])], both(GATEWAY[:1], FOOT)),
    "a port comes": ([], [port("a", OLD, *HELD)], {}),
    "a port moves to another host": ([port("a", OLD, *HELD)], [port("a", OLD, *HELD, host="h3"),
        Document("host", "h3", view.Host(id="h3", underlay="192.0.2.3"))], {}),
    "a port of another network": ([port("a", OLD, *HELD)], [gone("port", "a"), port("b", NEW, *HELD, network="m")], {}),
    "an address that it had itself": (
        [port("a", OLD, *HELD)], [gone("port", "a"), port("mine", MINE, *HELD, host="h1")], {}),
}  # fmt: skip


@pytest.mark.parametrize(("before", "after", "told"), CASES.values(), ids=CASES)
@pytest.mark.parametrize("one_by_one", [False, True], ids=["at once", "one by one"])
def test_ports_of_the_network_are_told_of_another_mac(
    before: list[Document], after: list[Document], told: dict[str, str], one_by_one: bool
) -> None:
    host = Host(*before)
    for documents in [[one] for one in after] if one_by_one else [after]:
        host.take(*documents)
    assert host.heard() == told


def test_a_restart_tells_what_changed_meanwhile() -> None:
    before, after = Host(router(FOOT, *GATEWAY)), Host()
    after.have = before.have
    change = changes(before.have, after.plan.rows)
    after.neighbours.note(
        before.have["endpoints"], change.put["endpoints"], change.delete["endpoints"]  # type: ignore[arg-type]
    )  # fmt: skip
    after.neighbours.tell()
    assert after.heard() == both(GATEWAY, STAND_IN) | no_router(FOOT)


def test_what_comes_back_is_not_told() -> None:
    host = Host(port("a", OLD, *HELD))
    host.take(gone("port", "a"))
    host.take(port("b", OLD, *HELD))
    assert host.heard() == {}


def test_what_left_long_ago_is_forgotten(monkeypatch: Any) -> None:
    host = Host(port("a", OLD, *HELD))
    host.take(gone("port", "a"))
    later = neighbours.time.monotonic() + neighbours.MEMORY_SECONDS + 1
    monkeypatch.setattr(neighbours.time, "monotonic", lambda: later)
    host.take(port("b", NEW, *HELD))
    assert host.heard() == {}


def test_no_more_is_remembered_than_there_is_room_for() -> None:
    watch = Neighbours(Plan("h1"), lambda key, raw: None)
    row = r.Endpoint(r.Place(r.PlaceKind.REMOTE), mac(OLD))
    for n in range(0, 3 * neighbours.MEMORY_MAX, 4096):
        keys = {r.EndpointKey(10, (n + m).to_bytes(16, "big")): row for m in range(4096)}
        watch.note(keys, {}, keys)
    assert len(watch._left) <= neighbours.MEMORY_MAX


def test_what_is_said_can_be_read() -> None:
    assert parse(said(b"\2" * 6, r.pack_ip("fd00::5"), b"\4" * 6)) is not None
