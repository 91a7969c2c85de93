"""What neighbours and listeners say needs no rule, as long as it is that, and goes no further than the link."""

from __future__ import annotations

from typing import Any

import pytest

from bpf.packets import (
    ICMPV6,
    IPV6,
    PADDING,
    ROUTER_ALERT,
    arp,
    eth,
    icmp,
    ip,
    ipv6_fragment,
    listens,
    mld,
    na,
    ns,
    option,
    raw,
)  # fmt: skip
from bpf.world import FAR, RED, STOLEN, A, B, D, Ears, Who, World, gateway

ALL_NODES, ALL_LISTENERS = "ff02::1", "ff02::16"
QUERY = bytes(4 + 16)
QUERY_V2 = QUERY + bytes(4)
SHOUT = b"!" * 960


def test_neighbour_discovery_needs_no_rule(w: World) -> None:
    w.policy(A.identity)
    assert w.send(ns(A.mac, A.ip6, B.ip6)).drop is None
    assert w.send(na(A.mac, A.ip6, A.ip6, dst=FAR.ip6, to=FAR.mac)).drop is None
    assert w.receive(na(FAR.mac, FAR.ip6, FAR.ip6, dst=A.ip6, to=A.mac)).drop is None
    assert w.receive(ns(FAR.mac, FAR.ip6, A.ip6, dst=A.ip6, to=A.mac)).drop is None


def group_mac(group: str) -> bytes:
    return b"\x33\x33" + raw(group)[12:]


def neighbours(who: Who, to: Who) -> dict[str, bytes]:
    """Return what looks like neighbour discovery, or like listeners', and is more or less than that."""
    v6 = who.ip6, to.ip6
    own = raw(who.ip6)
    hop = bytes((ICMPV6, 0)) + ROUTER_ALERT + PADDING

    def advert(rest: bytes = b"", **options: int) -> bytes:
        return ip(*v6, ICMPV6, icmp(136, 0, bytes(4), own + rest), ttl=255)

    def query(body: bytes, src: str = who.link_local, dst: str = ALL_NODES, **options: Any) -> bytes:
        return mld(src, dst, 130, body, **options)

    return {
        "NA from afar": ip(*v6, ICMPV6, icmp(136, 0, bytes(4), own), ttl=254),
        "NA with a code": ip(*v6, ICMPV6, icmp(136, 1, bytes(4), own), ttl=255),
        "NA with a long option": advert(bytes((14, 120)) + bytes(958)),
        "NA with many options": advert(option(14, bytes(6)) * 8),
        "NA with an option beyond it": advert(bytes((14, 2)) + bytes(6)),
        "NA with something behind": advert() + SHOUT,
        "NA behind options": ip(*v6, 60, bytes((ICMPV6, 119)) + bytes(958) + icmp(136, 0, bytes(4), own), ttl=255),
        "NA in a fragment": ip(*v6, 44, ipv6_fragment(ICMPV6, 0, False, 1, icmp(136, 0, bytes(4), own)), ttl=255),
        "query from afar": query(QUERY, hops=64),
        "query with hop limit 255": query(QUERY, hops=255),
        "query to one": query(QUERY, dst=to.link_local),
        "query from a routable address": query(QUERY, src=who.ip6),
        "query from nobody": query(QUERY, src="::"),
        "query without router alert": ip(who.link_local, ALL_NODES, ICMPV6, icmp(130, 0, QUERY[:4], QUERY[4:]), ttl=1),
        "query with other options": query(QUERY, options=bytes((1, 4)) + bytes(4)),
        "query behind much more": query(QUERY, options=ROUTER_ALERT + bytes((1, 120)) + bytes(120) + bytes(2)),
        "query with anything": query(QUERY + SHOUT),
        "query for sources": query(QUERY + b"\0\0\0\2" + raw("2001:db8::1") * 2),
        "query with something behind": query(QUERY) + SHOUT,
        "query for no group": query(bytes(4) + raw("2001:db8::1")),
        "query with a code": mld(who.link_local, ALL_NODES, 130, QUERY).replace(hop + b"\x82\0", hop + b"\x82\1"),
        "report in a query's clothes": mld(who.link_local, ALL_LISTENERS, 143, listens(ALL_NODES) + SHOUT),
        "report of half a record": mld(who.link_local, ALL_LISTENERS, 143, listens(ALL_NODES)[:-8]),
        "report of more records": mld(who.link_local, ALL_LISTENERS, 143, bytes((0, 0, 0, 9)) + listens(ALL_NODES)[4:]),
        "report of no kind": mld(
            who.link_local, ALL_LISTENERS, 143, listens(ALL_NODES).replace(b"\4\0\0\0", b"\7\0\0\0")
        ),
        "report of no group": mld(who.link_local, ALL_LISTENERS, 143, listens("2001:db8::1")),
        "report to one": mld(who.link_local, to.link_local, 143, listens(ALL_NODES)),
        "old report with anything": mld(who.link_local, ALL_NODES, 131, bytes(4) + raw(ALL_NODES) + SHOUT),
        "solicitation of routers": ip(who.link_local, "ff02::2", ICMPV6, icmp(133), ttl=255),
        "packet too big": ip(*v6, ICMPV6, icmp(2)),
        "another type": ip(*v6, ICMPV6, icmp(144), ttl=255),
    }  # fmt: skip


@pytest.mark.parametrize("what", neighbours(A, B))
def test_what_only_looks_like_neighbours_is_the_rules_business(w: World, what: str) -> None:
    """Out of a port and into another, neither of which lets anything pass."""
    w.policy(A.identity)
    out_, in_ = neighbours(A, B)[what], neighbours(FAR, A)[what]
    dst = out_[24:40]
    to = b"\x33\x33" + dst[12:] if dst[0] == 0xFF else B.mac
    why = w.send(eth(to, A.mac, IPV6, out_)).drop
    assert why in {"NA": ("POLICY_OUT", "MALFORMED"), "query from nobody": ("SPOOFED_IPV6",)}.get(
        what.split(" ")[0] if what.startswith("NA") else what, ("POLICY_OUT",)
    )
    assert w.receive(eth(A.mac, FAR.mac, IPV6, in_)).drop == "POLICY_IN"


@pytest.mark.parametrize("v2", [False, True])
@pytest.mark.parametrize("group", ["::", "ff02::1:3"])
@pytest.mark.parametrize("options", [ROUTER_ALERT + PADDING, PADDING + ROUTER_ALERT, bytes(2) + ROUTER_ALERT])
def test_a_listener_query_comes_in_without_a_rule(w: World, v2: bool, group: str, options: bytes) -> None:
    w.policy(A.identity)
    packet = mld(FAR.link_local, ALL_NODES, 130, bytes(4) + raw(group) + bytes(4) * v2, options=options)
    assert w.receive(eth(A.mac, FAR.mac, IPV6, packet)).passed


@pytest.mark.parametrize("type", [131, 132, 134, 143])
def test_a_listeners_report_or_a_router_comes_in_by_rules(w: World, type: int) -> None:
    w.policy(A.identity)
    body = listens(ALL_NODES) if type == 143 else bytes(4) + raw(ALL_NODES)
    packet = mld(FAR.link_local, ALL_NODES, type, body)
    if type == 134:
        packet = ip(FAR.link_local, ALL_NODES, ICMPV6, icmp(134, data=bytes(8)), ttl=255)
    assert w.receive(eth(A.mac, FAR.mac, IPV6, packet)).drop == "POLICY_IN"


REPORTS = {
    "first version": (131, bytes(4) + raw("ff02::1:3")),
    "done": (132, bytes(4) + raw("ff02::1:3")),
    "one group": (143, listens("ff02::1:3")),
    "many groups": (143, listens(*(f"ff02::1:{n:x}" for n in range(60)))),
    "groups with sources": (143, listens("ff35::1", "ff35::2", sources=3)),
}


@pytest.mark.parametrize("src", ["own", "::"])
@pytest.mark.parametrize("what", REPORTS)
def test_listener_reports_go_out_without_a_rule(w: World, what: str, src: str) -> None:
    w.policy(A.identity)
    packet = mld(A.link_local if src == "own" else src, ALL_LISTENERS, *REPORTS[what])
    sent = eth(group_mac(ALL_LISTENERS), A.mac, IPV6, packet)
    with Ears("vxlan") as ears:
        assert w.send(sent).verdict == STOLEN
        ears.must_hear({"vxlan": [sent]})


@pytest.mark.parametrize("hops", [255, 64, 1])
@pytest.mark.parametrize("type", [130, 131, 132, 133, 134, 135, 136, 137, 143])
def test_what_is_for_neighbours_is_not_routed(w: World, type: int, hops: int) -> None:
    """Even from a port that may say anything, and where every rule lets it pass."""
    w.add(A._replace(secured=False))
    body = icmp(type, 0, bytes(4), raw(A.ip6) + SHOUT)
    for packet in (
        ip(A.ip6, D.ip6, ICMPV6, body, ttl=hops),
        ip(A.ip6, D.ip6, 60, bytes((ICMPV6, 0)) + bytes(6) + body),
    ):
        assert w.send(eth(gateway(RED).mac, A.mac, IPV6, packet)).drop == "LINK_LOCAL"


def test_arp_is_no_longer_than_arp(w: World) -> None:
    w.policy(A.identity)
    said = arp(2, FAR.mac, FAR.ip4, A.ip4, A.mac, A.mac)
    assert w.receive(said + bytes(18)).passed  # as long as the wire wants it
    assert w.receive(said + bytes(19)).drop == "MALFORMED"
    assert w.send(arp(1, A.mac, A.ip4, B.ip4) + SHOUT).drop == "MALFORMED"
