"""What guests are told when they boot, byte by byte; real clients ask in tests/lab/test_boot.py."""

from __future__ import annotations

import struct
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpf.packets import checksum
from crossway.agent.guest import advert, dhcp, dhcpv6
from crossway.agent.guest.desk import guest_of
from crossway.agent.guest.facts import SLAAC, STATEFUL, STATELESS, Guest, Lease, Prefix, link_local
from crossway.agent.guest.frame import BROADCAST, ICMPV6, UDP, Frame, build, parse
from crossway.plan import view
from crossway.plan.plan import Document, Plan
from crossway.plan.service import SERVICE_IP, SERVICE_MAC

MAC, ROUTER = bytes.fromhex("fa163e000001"), bytes.fromhex("fa163e0000fe")
LEASE = Lease(
    IPv4Address("10.0.0.5"), IPv4Network("10.0.0.0/24"), IPv4Address("10.0.0.1"), (IPv4Address("9.9.9.9"),), ()
)
OTHER = Lease(IPv4Address("10.9.0.5"), IPv4Network("10.9.0.0/16"), None, (), ())


def prefix(ra: str | None, mode: str | None, ip: str | None = "fd00::5", dns: str = "fd00::53") -> Prefix:
    return Prefix((ip and IPv6Address(ip)) or None, IPv6Network("fd00::/64"), (IPv6Address(dns),), ra, mode)


def guest(
    *leases: Lease, prefixes: tuple[Prefix, ...] = (), router: bytes | None = ROUTER, router6: bytes | None = ROUTER
) -> Guest:
    return Guest(MAC, 1450, leases, prefixes, router, router6)


def ask(
    kind: int,
    *options: tuple[int, bytes],
    mac: bytes = MAC,
    flags: int = 0,
    ciaddr: str = "0.0.0.0",
    giaddr: str = "0.0.0.0",
    op: int = 1,
) -> Frame:
    body = dhcp.HEAD.pack(
        op, 1, 6, 0, 0xABCD, 0, flags, IPv4Address(ciaddr).packed, bytes(4), bytes(4), IPv4Address(giaddr).packed,
        mac + bytes(10), dhcp.COOKIE,
    )  # fmt: skip
    body += b"".join(bytes([code, len(value)]) + value for code, value in ((dhcp.TYPE, bytes([kind])), *options))
    return Frame(BROADCAST, mac, IPv4Address(ciaddr).packed, BROADCAST[:4], UDP, 68, 67, body + b"\xff")


def told(frame: Frame | None) -> dict[int, bytes]:
    assert frame is not None
    return dhcp.options(frame.body[dhcp.HEAD.size :])


def test_a_discovery_is_offered_what_the_port_has() -> None:
    frame = dhcp.answer(ask(dhcp.DISCOVER), guest(LEASE))
    assert frame is not None
    assert (frame.src, frame.dst, frame.dst_mac) == (LEASE.server.packed, LEASE.ip.packed, MAC)
    assert frame.body[16:20] == LEASE.ip.packed
    options = told(frame)
    assert options[dhcp.TYPE] == bytes([dhcp.OFFER])
    assert options[dhcp.MASK] == bytes((255, 255, 255, 0))
    assert options[dhcp.ROUTER] == options[dhcp.SERVER_ID] == LEASE.server.packed
    assert options[dhcp.DNS] == bytes((9, 9, 9, 9))
    assert options[dhcp.MTU] == struct.pack("!H", 1450)
    assert len(frame.body) >= 300


@pytest.mark.parametrize(
    ("asked", "kind"),
    [
        (ask(dhcp.REQUEST, (50, LEASE.ip.packed), (54, LEASE.server.packed)), dhcp.ACK),
        (ask(dhcp.REQUEST, (50, LEASE.ip.packed)), dhcp.ACK),
        (ask(dhcp.REQUEST, ciaddr="10.0.0.5"), dhcp.ACK),
        (ask(dhcp.DISCOVER, (80, b"")), dhcp.ACK),
        (ask(dhcp.REQUEST, (50, bytes((10, 0, 0, 77)))), dhcp.NAK),
        (ask(dhcp.REQUEST, ciaddr="192.0.2.1"), dhcp.NAK),
        (ask(dhcp.INFORM, ciaddr="10.0.0.5"), dhcp.ACK),
        (ask(dhcp.REQUEST, (50, LEASE.ip.packed), (54, bytes((10, 0, 0, 2)))), None),
        (ask(dhcp.RELEASE, ciaddr="10.0.0.5"), None),
        (ask(dhcp.DECLINE, (50, LEASE.ip.packed)), None),
        (ask(dhcp.DISCOVER, mac=ROUTER), None),
        (ask(dhcp.DISCOVER, giaddr="10.0.0.3"), None),
        (ask(dhcp.DISCOVER, op=2), None),
        (ask(0), None),
    ],
    ids=lambda value: str(value) if isinstance(value, int | None) else "",
)
def test_each_message_of_dhcp(asked: Frame, kind: int | None) -> None:
    frame = dhcp.answer(asked, guest(LEASE))
    assert (told(frame)[dhcp.TYPE][0] if frame else None) == kind


@pytest.mark.parametrize("kind", [dhcp.DISCOVER, dhcp.REQUEST, dhcp.INFORM])
def test_a_client_is_answered_by_the_name_that_it_gives_itself(kind: int) -> None:
    name = b"\xff" + bytes(range(18))
    for ip in (LEASE.ip.packed, bytes((10, 0, 0, 77))):
        assert told(dhcp.answer(ask(kind, (61, name), (50, ip)), guest(LEASE)))[61] == name
    assert 61 not in told(dhcp.answer(ask(kind), guest(LEASE)))


def test_a_refusal_reaches_a_guest_that_has_no_address() -> None:
    frame = dhcp.answer(ask(dhcp.REQUEST, (50, bytes((10, 0, 0, 77)))), guest(LEASE))
    assert frame is not None
    assert (frame.dst_mac, frame.dst) == (BROADCAST, BROADCAST[:4])


def test_who_can_hear_only_broadcasts_gets_one() -> None:
    frame = dhcp.answer(ask(dhcp.DISCOVER, flags=0x8000), guest(LEASE))
    assert frame is not None
    assert (frame.dst_mac, frame.dst) == (BROADCAST, BROADCAST[:4])


def test_a_guest_with_two_addresses_gets_the_one_that_it_asks_for() -> None:
    both = guest(LEASE, OTHER)
    asked = dhcp.answer(ask(dhcp.DISCOVER, (50, OTHER.ip.packed)), both)
    assert asked is not None
    assert asked.body[16:20] == OTHER.ip.packed
    assert told(asked)[dhcp.SERVER_ID] == SERVICE_IP.packed
    assert dhcp.ROUTER not in told(asked)


def test_routes_bring_the_default_route_with_them() -> None:
    routes = ((IPv4Network("192.168.0.0/20"), IPv4Address("10.0.0.9")),)
    options = told(dhcp.answer(ask(dhcp.DISCOVER), guest(LEASE._replace(routes=routes))))
    assert options[dhcp.ROUTES] == bytes((20, 192, 168, 0, 10, 0, 0, 9, 0, 10, 0, 0, 1))


def six(kind: int, *options: tuple[int, bytes]) -> Frame:
    body = bytes([kind]) + b"xid" + b"".join(struct.pack("!HH", c, len(v)) + v for c, v in options)
    return Frame(bytes.fromhex("333300010002"), MAC, bytes(15) + b"\1", bytes(16), UDP, 546, 547, body)


CLIENT = (dhcpv6.CLIENT_ID, b"\0\3\0\1" + MAC)
SERVER = (dhcpv6.SERVER_ID, dhcpv6.DUID)
IA = (dhcpv6.IA_NA, b"iaid" + bytes(8))


def held(ip: str) -> tuple[int, bytes]:
    address = struct.pack("!HH", 5, 24) + IPv6Address(ip).packed + bytes(8)
    return (dhcpv6.IA_NA, b"iaid" + bytes(8) + address)


@pytest.mark.parametrize(
    ("asked", "kind", "has"),
    [
        (six(dhcpv6.SOLICIT, CLIENT, IA), dhcpv6.ADVERTISE, True),
        (six(dhcpv6.SOLICIT, CLIENT, IA, (dhcpv6.RAPID, b"")), dhcpv6.REPLY, True),
        (six(dhcpv6.REQUEST, CLIENT, SERVER, IA), dhcpv6.REPLY, True),
        (six(dhcpv6.RENEW, CLIENT, SERVER, held("fd00::5")), dhcpv6.REPLY, True),
        (six(dhcpv6.REBIND, CLIENT, held("fd00::5")), dhcpv6.REPLY, True),
        (six(dhcpv6.CONFIRM, CLIENT, held("fd00::5")), dhcpv6.REPLY, False),
        (six(dhcpv6.RELEASE, CLIENT, SERVER, held("fd00::5")), dhcpv6.REPLY, False),
        (six(dhcpv6.INFORMATION), dhcpv6.REPLY, False),
        (six(dhcpv6.REQUEST, CLIENT, IA), None, False),
        (six(dhcpv6.REQUEST, CLIENT, (dhcpv6.SERVER_ID, b"other"), IA), None, False),
        (six(dhcpv6.SOLICIT, IA), None, False),
        (six(dhcpv6.CONFIRM, CLIENT, IA), None, False),
        (six(99, CLIENT), None, False),
    ],
)
def test_each_message_of_dhcpv6(asked: Frame, kind: int | None, has: bool) -> None:
    frame = dhcpv6.answer(asked, guest(prefixes=(prefix(STATEFUL, STATEFUL),)))
    assert (frame.body[0] if frame else None) == kind
    if frame:
        assert frame.body[1:4] == b"xid"
        options = dict(dhcpv6.options(frame.body[4:]))
        assert options[dhcpv6.DNS] == IPv6Address("fd00::53").packed
        assert (IPv6Address("fd00::5").packed in options.get(dhcpv6.IA_NA, b"")) == has


def test_an_address_that_the_port_lost_is_over_at_once() -> None:
    frame = dhcpv6.answer(
        six(dhcpv6.RENEW, CLIENT, SERVER, held("fd00::99")), guest(prefixes=(prefix(None, STATEFUL),))
    )
    assert frame is not None
    inside = dhcpv6.options(dict(dhcpv6.options(frame.body[4:]))[dhcpv6.IA_NA][12:])
    lifetimes = {value[:16]: value[16:24] for code, value in inside if code == dhcpv6.IA_ADDRESS}
    assert lifetimes[IPv6Address("fd00::99").packed] == bytes(8)
    assert lifetimes[IPv6Address("fd00::5").packed] != bytes(8)


@pytest.mark.parametrize("mode", [SLAAC, STATELESS])
def test_no_address_is_leased_where_guests_make_their_own(mode: str) -> None:
    frame = dhcpv6.answer(six(dhcpv6.SOLICIT, CLIENT, IA), guest(prefixes=(prefix(mode, mode),)))
    assert frame is not None
    options = dict(dhcpv6.options(frame.body[4:]))
    assert struct.pack("!HHH", dhcpv6.STATUS, 2, dhcpv6.NO_ADDRESSES) in options[dhcpv6.IA_NA]


@pytest.mark.parametrize(("mode", "flags", "own"), [(SLAAC, 0, 0xC0), (STATELESS, 0x40, 0xC0), (STATEFUL, 0xC0, 0x80)])
@pytest.mark.parametrize("router", [ROUTER, None])
def test_an_advertisement_says_how_addresses_are_had(mode: str, flags: int, own: int, router: bytes | None) -> None:
    asked = Frame(advert.ALL_NODES_MAC, MAC, bytes(16), advert.ALL_NODES, ICMPV6, 0, 0, bytes((133, 0, *bytes(6))))
    frame = advert.answer(asked, guest(prefixes=(prefix(mode, mode),), router6=router))
    assert frame is not None
    assert frame.body[5] == flags
    assert struct.unpack_from("!H", frame.body, 6) == ((9000,) if router else (0,))
    at = frame.body.index(bytes((3, 4, 64)), 16)
    assert frame.body[at + 3] == own
    assert frame.src_mac == (router or SERVICE_MAC)


NEXT = bytes.fromhex("fa163e0000fd")
GREEN = Prefix(IPv6Address("fd01::5"), IPv6Network("fd01::/64"), (IPv6Address("fd01::53"),), SLAAC, SLAAC)
BLUE = prefix(SLAAC, SLAAC)


def withdrawn(old: Guest, new: Guest | None) -> tuple[bytes, int, list[str], list[str]] | None:
    """Return what a guest is told to be over: whose word it is, for how long that is a router, prefixes and servers."""
    frame = advert.withdrawal(old, new)
    if frame is None:
        return None
    again = parse(build(frame))
    assert again is not None
    assert again.src == link_local(again.src_mac)
    prefixes, servers, at = [], [], 16
    while at < len(again.body):
        kind, size = again.body[at], 8 * again.body[at + 1]
        option = again.body[at : at + size]
        if kind == advert.PREFIX:
            assert option[4:12] == bytes(8), "neither valid nor preferred"
            prefixes.append(f"{IPv6Address(option[16:32])}/{option[2]}")
        elif kind == advert.DNS:
            assert option[4:8] == bytes(4)
            servers += [str(IPv6Address(option[n : n + 16])) for n in range(8, size, 16)]
        at += size
    (lifetime,) = struct.unpack_from("!H", again.body, 6)
    return again.src_mac, lifetime, prefixes, servers


@pytest.mark.parametrize(
    ("old", "new", "over"),
    [
        (guest(prefixes=(BLUE,)), guest(prefixes=(BLUE,), router6=None), (ROUTER, 0, [], [])),
        (guest(prefixes=(BLUE,)), guest(prefixes=(BLUE,), router6=NEXT), (ROUTER, 0, [], [])),
        (guest(prefixes=(BLUE,), router6=None), guest(prefixes=(BLUE,)), (SERVICE_MAC, 0, [], [])),
        (guest(prefixes=(BLUE,)), guest(prefixes=(BLUE,), router=None), None),
        (guest(prefixes=(BLUE,)), guest(prefixes=(BLUE,)), None),
        (guest(prefixes=(BLUE,)), None, (ROUTER, 0, ["fd00::/64"], ["fd00::53"])),
        (guest(prefixes=(BLUE,)), guest(), (ROUTER, 0, ["fd00::/64"], ["fd00::53"])),
        (guest(prefixes=(BLUE, GREEN)), guest(prefixes=(GREEN,)), (ROUTER, 9000, ["fd00::/64"], ["fd00::53"])),
        (guest(prefixes=(BLUE,)), guest(prefixes=(prefix(SLAAC, SLAAC, dns="fd00::54"),)),
         (ROUTER, 9000, [], ["fd00::53"])),
        (guest(prefixes=(prefix(None, SLAAC),)), None, None),
    ],
    ids=["router removed", "another router", "router joins", "IPv4 router removed", "no change", "port gone",
         "no advertised subnet", "subnet gone", "server of names gone", "nothing was advertised"],
)  # fmt: skip
def test_what_was_advertised_and_is_no_more_is_withdrawn(old: Guest, new: Guest | None, over: Any) -> None:
    assert withdrawn(old, new) == over


@pytest.mark.parametrize(
    ("addresses", "router", "router6"),
    [
        (("10.0.0.1",), True, False),
        (("fd00::1",), False, True),
        (("10.0.0.1", "fd00::1"), True, True),
        ((), False, False),
    ],
    ids=["IPv4 alone", "IPv6 alone", "both", "none"],
)
def test_a_router_is_one_of_the_families_that_it_has_addresses_of(
    addresses: tuple[str, ...], router: bool, router6: bool
) -> None:
    plan = Plan("h1")
    subnet = view.Subnet(id="s", network="n", cidr="fd00::/64", dhcp=True, ra=SLAAC, mode=SLAAC)
    port = view.Port(id="p", network="n", mac="fa:16:3e:00:00:01", addresses=(view.Address("fd00::5", "s"),), host="h1")
    foot = view.Interface("rp", "n", "fa:16:3e:00:00:fe", tuple(view.Prefixed(a, 64) for a in addresses))
    plan.take([
        Document("network", "n", view.Network(id="n", number=1, mtu=1450)),
        Document("subnet", "s", subnet),
        Document("port", "p", port),
        Document("router", "r", view.Router(id="r", number=7, interfaces=(foot,))),
    ])  # fmt: skip
    told = guest_of(plan, port)
    assert told is not None
    assert (told.router is not None, told.router6 is not None) == (router, router6)
    frame = advert.advertisement(told)
    assert frame is not None
    assert struct.unpack_from("!H", frame.body, 6) == ((9000,) if router6 else (0,))


def test_of_two_routers_that_with_the_gateways_address_is_advertised() -> None:
    plan = Plan("h1")
    feet = {"a": ("fa:16:3e:00:00:0a", "fd00::9"), "b": ("fa:16:3e:00:00:0b", "fd00::1")}
    plan.take([
        Document("network", "n", view.Network(id="n", number=1, mtu=1450)),
        Document("subnet", "s", view.Subnet(id="s", network="n", cidr="fd00::/64", gateway="fd00::1")),
        *(
            Document("router", id, view.Router(
                id=id, number=n, interfaces=(view.Interface(f"rp{n}", "n", mac, (view.Prefixed(ip, 64),)),)
            ))
            for n, (id, (mac, ip)) in enumerate(feet.items(), 1)
        ),
    ])  # fmt: skip
    assert plan.router_at("n", 6) == "fa:16:3e:00:00:0b"
    assert plan.router_at("n", 4) is None


def test_a_network_without_advertised_prefixes_is_silent() -> None:
    assert advert.advertisement(guest(LEASE, prefixes=(prefix(None, None),))) is None
    assert dhcpv6.answer(six(dhcpv6.SOLICIT, CLIENT, IA), guest(LEASE, prefixes=(prefix(None, None),))) is None
    assert dhcp.answer(ask(dhcp.DISCOVER), guest()) is None


@pytest.mark.parametrize(
    "frame",
    [
        dhcp.answer(ask(dhcp.DISCOVER), guest(LEASE)),
        dhcpv6.answer(six(dhcpv6.SOLICIT, CLIENT, IA), guest(prefixes=(prefix(STATEFUL, STATEFUL),))),
        advert.advertisement(guest(prefixes=(prefix(SLAAC, SLAAC),))),
    ],
    ids=["dhcp", "dhcpv6", "ra"],
)
def test_what_is_built_can_be_taken_apart_and_adds_up(frame: Frame | None) -> None:
    assert frame is not None
    raw = build(frame)
    again = parse(raw)
    assert again is not None
    if frame.proto == UDP:
        assert again == frame
    if len(frame.src) == 4:
        assert checksum(raw[14:34]) == 0
    l4 = raw[34:] if len(frame.src) == 4 else raw[54:]
    assert checksum(frame.src + frame.dst + struct.pack("!II", len(l4), frame.proto) + l4) == 0


VERBS: list[Callable[[Frame, Guest], Frame | None]] = [dhcp.answer, dhcpv6.answer, advert.answer]
EVERYTHING = guest(LEASE, OTHER, prefixes=(prefix(SLAAC, STATEFUL), prefix(STATELESS, STATELESS, None)))


@given(st.binary(max_size=700), st.sampled_from([ask(1), ask(3), six(1, CLIENT, IA), six(5, CLIENT, SERVER, IA)]))
def test_no_question_breaks_who_answers(noise: bytes, honest: Frame) -> None:
    for head in (b"", honest.body[:240], honest.body):
        asked = honest._replace(body=head + noise)
        for verb in VERBS:
            if asked.body or verb is not advert.answer:
                frame = verb(asked, EVERYTHING)
                assert frame is None or parse(build(frame)) is not None
    parse(noise)
    parse(build(honest)[: len(noise)])


@pytest.mark.parametrize(
    ("version", "dns", "told"),
    [
        (4, (), ["169.254.169.254"]),
        (4, ("9.9.9.9",), ["9.9.9.9"]),
        (4, ("0.0.0.0",), []),
        (6, (), ["fe80::a9fe:a9fe"]),
        (6, ("fd00::53",), ["fd00::53"]),
        (6, ("::",), []),
    ],
)
def test_whom_a_guest_is_told_to_ask_for_names(version: int, dns: tuple[str, ...], told: list[str]) -> None:
    net, ip = ("10.0.0.0/24", "10.0.0.5") if version == 4 else ("fd00::/64", "fd00::5")
    plan = Plan("h1")
    subnet = view.Subnet(id="s", network="n", cidr=net, dns=dns, dhcp=True, ra=SLAAC, mode=SLAAC)
    port = view.Port(id="p", network="n", mac="fa:16:3e:00:00:01", addresses=(view.Address(ip, "s"),), host="h1")
    plan.take([
        Document("network", "n", view.Network(id="n", number=1, mtu=1450)),
        Document("subnet", "s", subnet),
        Document("port", "p", port),
    ])  # fmt: skip
    guest = guest_of(plan, port)
    assert guest is not None
    of = guest.leases[0] if version == 4 else guest.prefixes[0]
    assert [str(ip) for ip in of.dns] == told
    # Where no gateway leads there, a route on the link does.
    if version == 4:
        assert [(str(to), str(via)) for to, via in guest.leases[0].routes] == (
            [] if dns else [("169.254.169.254/32", "0.0.0.0")]
        )


@pytest.mark.parametrize(
    ("gateway", "hops", "told"),
    [
        ("172.31.1.1", [], "172.31.1.1/32 0.0.0.0 0.0.0.0/0 172.31.1.1"),
        (
            "10.0.0.1",
            [("0.0.0.0/0", "10.0.0.9"), ("10.9.0.0/16", "10.0.0.9")],
            "10.9.0.0/16 10.0.0.9 0.0.0.0/0 10.0.0.1",
        ),
        ("10.0.0.1", [("10.9.0.0/16", "9.9.9.9")], ""),
        (None, [("0.0.0.0/0", "10.0.0.9")], "0.0.0.0/0 10.0.0.9 169.254.169.254/32 0.0.0.0"),
    ],
    ids=["gateway on the link", "a default route beside the gateway", "next hop elsewhere", "a default route alone"],
)
def test_a_guest_is_told_of_routes_that_it_can_set_up(
    gateway: str | None, hops: list[tuple[str, str]], told: str
) -> None:
    plan = Plan("h1")
    routes = tuple(view.Hop(to, hop) for to, hop in hops)
    subnet = view.Subnet(id="s", network="n", cidr="10.0.0.0/24", gateway=gateway, routes=routes, dhcp=True)
    port = view.Port(
        id="p", network="n", mac="fa:16:3e:00:00:01", addresses=(view.Address("10.0.0.5", "s"),), host="h1"
    )
    plan.take([
        Document("network", "n", view.Network(id="n", number=1, mtu=1450)),
        Document("subnet", "s", subnet),
        Document("port", "p", port),
    ])  # fmt: skip
    guest = guest_of(plan, port)
    assert guest is not None
    (lease,) = guest.leases
    packed = dhcp._facts(lease, guest).get(dhcp.ROUTES, b"")
    seen = []
    while packed:
        size = (packed[0] + 7) // 8
        to = IPv4Network((packed[1 : 1 + size].ljust(4, b"\0"), packed[0]))
        seen += [str(to), str(IPv4Address(packed[1 + size : 5 + size]))]
        packed = packed[5 + size :]
    assert " ".join(seen) == told
