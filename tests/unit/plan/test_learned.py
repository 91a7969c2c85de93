"""Addresses that a port has been seen to have: whose rows they are, and what comes before them."""

from __future__ import annotations

from typing import Any

import pytest

from crossway.model import rows as r
from crossway.plan import view
from crossway.plan.address import ip, mac
from crossway.plan.plan import Document, Plan
from crossway.plan.port import Body

MAC, OTHER, VMAC = "fa:16:3e:00:00:01", "fa:16:3e:00:00:02", "00:00:5e:00:01:4d"
VIP, VIP6 = "10.0.0.77", "fd00::77"
BOTH = (view.Pair(VIP + "/32"), view.Pair(VIP6 + "/128"))


def port(id: str = "p", mac: str = MAC, ip: str = "10.0.0.5", host: str | None = "h1", **more: Any) -> Document:
    return Document(
        "port", id, view.Port(id=id, network="n", mac=mac, addresses=(view.Address(ip, "s"),), host=host, **more)
    )


def seen(ip: str = VIP, port: str = "p", mac: str = MAC, network: str = "n") -> Document:
    id = f"{network}/{ip}"
    return Document("learned", id, view.Learned(id=id, network=network, ip=ip, port=port, mac=mac))


def plan(*documents: Document, **network: Any) -> Plan:
    made = Plan("h1")
    made.take([
        *(Document("host", f"h{n}", view.Host(id=f"h{n}", underlay=f"192.0.2.{n}")) for n in (1, 2)),
        Document("network", "n", view.Network(id="n", number=10, mtu=1450, **network)),
        Document("subnet", "s", view.Subnet(id="s", network="n", cidr="10.0.0.0/24", gateway="10.0.0.1")),
        *documents,
    ])  # fmt: skip
    made.bodies({"p": Body(r.PortKey(5), r.Body.VETH)})
    made.settle()
    return made


def row(made: Plan, address: str = VIP) -> r.Endpoint | None:
    return made.rows["endpoints"].get(r.EndpointKey(10, ip(address)))


@pytest.mark.parametrize("address", [VIP, VIP6])
def test_routers_find_it_where_its_holder_is(address: str) -> None:
    made = plan(port(pairs=BOTH), seen(address))
    flags = r.PortFlag.SECURED | r.PortFlag.LEARNED
    there = r.Endpoint(r.Place(r.PlaceKind.LOCAL, r.Body.VETH, flags, port=r.PortKey(5)), mac(MAC))
    assert row(made, address) == there
    assert made.rows["macs"][r.MacKey(10, mac(MAC))].flags == r.PortFlag.SECURED
    # It goes where its holder goes, and to who holds it next.
    made.take([port(pairs=BOTH, host="h2")])
    made.settle()
    away = r.Place(r.PlaceKind.REMOTE, flags=r.PortFlag.LEARNED, underlay=ip("192.0.2.2"))
    assert row(made, address) == r.Endpoint(away, mac(MAC))
    made.take([port(pairs=BOTH), port("q", OTHER, "10.0.0.6", host="h2", pairs=BOTH), seen(address, "q", OTHER)])
    made.settle()
    assert row(made, address) == r.Endpoint(away, mac(OTHER))
    made.take([Document("port", "q", None)])
    made.settle()
    assert row(made, address) is None


def test_a_mac_of_its_own_is_found_too() -> None:
    made = plan(port(pairs=(view.Pair(VIP, VMAC),)), seen(mac=VMAC))
    assert made.rows["macs"][r.MacKey(10, mac(VMAC))] == made.rows["macs"][r.MacKey(10, mac(MAC))]
    assert (found := row(made)) is not None
    assert found.mac == mac(VMAC)
    # But not one that another port has.
    made.take([port("q", VMAC, "10.0.0.6", host="h2")])
    made.settle()
    assert made.rows["macs"][r.MacKey(10, mac(VMAC))].kind == r.PlaceKind.REMOTE


def test_a_mac_of_which_two_ports_are_told_is_nobodys_until_one_is() -> None:
    """A virtual MAC has several addresses, which go over one after the other: nobody says which word is the old one."""
    both = tuple(view.Pair(address, VMAC) for address in (VIP, VIP6))
    key = r.MacKey(10, mac(VMAC))
    made = plan(
        port(pairs=both), port("q", OTHER, "10.0.0.6", host="h2", pairs=both), seen(VIP, mac=VMAC), seen(VIP6, mac=VMAC)
    )
    here, there = (made.rows["macs"][r.MacKey(10, mac(of))] for of in (MAC, OTHER))
    assert made.rows["macs"][key] == here
    for order, to in (((VIP, VIP6), "q"), ((VIP6, VIP), "p"), ((VIP6, VIP), "q"), ((VIP, VIP6), "p")):
        for n, address in enumerate(order):
            made.take([seen(address, to, VMAC)])
            made.settle()
            assert made.rows["macs"].get(key) == (None if n == 0 else there if to == "q" else here), (order, n)
            assert (found := row(made, address)) is not None
            assert (found.mac, found.place.kind) == (mac(VMAC), (there if to == "q" else here).kind)
    # Who has it for its own has it, whatever was seen; and what is not true any more counts no more.
    made.take([seen(VIP, "q", VMAC), port("x", VMAC, "10.0.0.7", host="h2", identity=9)])
    made.settle()
    assert made.rows["macs"][key] == there._replace(identity=9)
    made.take([Document("port", "x", None)])
    made.settle()
    assert key not in made.rows["macs"]
    made.take([Document("learned", f"n/{VIP}", None)])
    made.settle()
    assert made.rows["macs"][key] == here


FLAT = {"type": "flat", "physnet": "one"}
MAY: dict[str, tuple[dict[str, Any], str, dict[str, Any], bool]] = {
    "pair": ({"pairs": (view.Pair(VIP),)}, MAC, {}, True),
    "prefix": ({"pairs": (view.Pair("10.0.0.64/26"),)}, MAC, {}, True),
    "no port security": ({"secured": False}, OTHER, {}, True),
    "another pair": ({"pairs": (view.Pair("10.0.0.78"),)}, MAC, {}, False),
    "a pair of the other family": ({"pairs": (view.Pair("::/1"),)}, MAC, {}, False),
    "no pair": ({}, MAC, {}, False),
    "a MAC that is not the pair's": ({"pairs": (view.Pair(VIP, VMAC),)}, MAC, {}, False),
    "a MAC that is nobody's": ({"pairs": (view.Pair(VIP),)}, OTHER, {}, False),
    "pair, provider network": ({"pairs": (view.Pair(VIP),)}, MAC, FLAT, True),
    "prefix, provider network": ({"pairs": (view.Pair("10.0.0.64/26"),)}, MAC, FLAT, False),
    "no port security, provider network": ({"secured": False}, MAC, FLAT, False),
    "a port that is turned off": ({"secured": False, "up": False}, MAC, {}, False),
}  # fmt: skip


@pytest.mark.parametrize(("more", "at", "network", "may"), MAY.values(), ids=MAY)
def test_only_who_may_have_it_has_it(more: dict[str, Any], at: str, network: dict[str, Any], may: bool) -> None:
    made = plan(port(**more), seen(mac=at), **network)
    assert (row(made) is not None) is may
    # And only as long: the server may hear of it later.
    made.take([port()])
    made.settle()
    assert row(made) is None


def test_fixed_addresses_and_routers_come_first() -> None:
    made = plan(port(secured=False), seen("10.0.0.6"), seen("10.0.0.1"))
    assert (found := row(made, "10.0.0.6")) is not None
    assert found.place.flags & r.PortFlag.LEARNED
    made.take([port("q", OTHER, "10.0.0.6", host="h2")])
    foot = view.Interface("rp", "n", VMAC, (view.Prefixed("10.0.0.1", 24),))
    made.take([Document("router", "r", view.Router(id="r", number=7, interfaces=(foot,)))])
    made.settle()
    for address, of in (("10.0.0.6", OTHER), ("10.0.0.1", VMAC)):
        assert (found := row(made, address)) is not None
        assert (found.mac, found.place.flags & r.PortFlag.LEARNED) == (mac(of), 0)
    # One that waits for its port, reserved, is nobody's yet.
    made.take([port("q", OTHER, "10.0.0.6", host=None)])
    made.settle()
    assert (found := row(made, "10.0.0.6")) is not None
    assert found.place.flags & r.PortFlag.LEARNED


def test_who_may_have_an_address_is_asked_for_it() -> None:
    made = plan(
        port(pairs=BOTH),
        port("q", OTHER, "10.0.0.6", host="h2", secured=False),
        port("x", VMAC, "10.0.0.7", host="h2"),
    )
    network = made.network("n")
    assert network is not None
    assert (made.candidates_here(network, ip(VIP)), made.hosts_of_candidates(network, ip(VIP))) == (["p"], ["h2"])
    assert (made.candidates_here(network, ip("10.0.0.78")), made.hosts_of_candidates(network, ip(VIP))) == ([], ["h2"])
    made.take([port("q", OTHER, "10.0.0.6", host="h2")])
    made.settle()
    assert made.hosts_of_candidates(network, ip(VIP)) == []
    # What a port may have changes.
    made.take([port(pairs=(view.Pair("10.0.0.64/26"), view.Pair("fd00::/64")))])
    made.settle()
    for address, there in (("10.0.0.78", True), ("fd00::1:1", True), ("10.0.0.128", False), ("fd00:1::1", False)):
        assert made.candidates_here(network, ip(address)) == ["p"] * there
    made.take([port(pairs=(view.Pair("::/0"),))])
    made.settle()
    assert (made.candidates_here(network, ip(VIP)), made.candidates_here(network, ip(VIP6))) == ([], ["p"])
    made.take([Document("port", "p", None)])
    made.settle()
    assert made.candidates_here(network, ip(VIP6)) == []
    assert not made._candidates._networks, "nothing is left of it"


def test_only_those_who_may_have_an_address_are_looked_at(monkeypatch: Any) -> None:
    """A network has a thousand ports with pairs; looking for one address costs what those cost that may have it."""
    made = plan(
        *(
            port(f"q{n}", f"fa:16:3e:00:{1 + (n >> 8):02x}:{n & 255:02x}", f"10.0.{4 + (n >> 8)}.{n & 255}", host="h2",
                 pairs=(view.Pair(f"10.0.{8 + (n >> 8)}.{n & 255}"),))
            for n in range(1000)
        )
    )  # fmt: skip
    network, asked = made.network("n"), []
    assert network is not None
    monkeypatch.setattr("crossway.plan.plan.may_have", lambda port, *rest: not asked.append(port.id))
    assert made.hosts_of_candidates(network, ip("10.0.8.7")) == ["h2"]
    assert asked == ["q7"]
