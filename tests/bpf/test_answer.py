"""Who has an address: answered on the host, byte by byte."""

from __future__ import annotations

import pytest

from bpf.packets import BROADCAST, ICMPV6, IPV6, Packet, arp, eth, icmp, ip, mac, na, ns, raw
from bpf.world import (
    BARE,
    CAUTIOUS,
    CLEAR,
    FAR,
    GREY,
    PUBLIC,
    RED,
    STOLEN,
    TAGGED,
    TAP,
    A,
    B,
    Ears,
    Who,
    World,
    gateway,
)
from crossway.kernel.bpf import REDIRECT, SHOT
from crossway.model import rows as r

ALL_NODES = mac("33:33:00:00:00:01")
GATEWAY = gateway(RED)
NOBODY = Who(RED, 99, 0, None)


@pytest.mark.parametrize("whom", [B, FAR, GATEWAY, TAGGED], ids=["here", "on another host", "router", "VLAN"])
@pytest.mark.parametrize("to", ["all", "one"])
def test_arp_is_answered(w: World, whom: Who, to: str) -> None:
    done = w.send(arp(1, A.mac, A.ip4, whom.ip4, dst=BROADCAST if to == "all" else whom.mac))
    assert (done.verdict, done.to, done.drop) == (REDIRECT, A.device, None)
    assert done.packet == arp(2, whom.mac, whom.ip4, A.ip4, A.mac, A.mac)


def test_an_arp_probe_for_anothers_address_is_answered(w: World) -> None:
    done = w.send(arp(1, A.mac, "0.0.0.0", B.ip4))
    assert done.packet == arp(2, B.mac, B.ip4, "0.0.0.0", A.mac, A.mac)


def test_a_padded_request_is_answered(w: World) -> None:
    done = w.send(arp(1, A.mac, A.ip4, B.ip4) + bytes(18))
    assert done.packet == arp(2, B.mac, B.ip4, A.ip4, A.mac, A.mac) + bytes(18)


@pytest.mark.parametrize("who", [A, TAP, TAGGED], ids=["veth", "tap", "VLAN"])
def test_the_answer_goes_to_the_body_that_asked(w: World, who: Who) -> None:
    request = arp(1, who.mac, who.ip4, B.ip4)
    if who.vlan:
        request = eth(BROADCAST, who.mac, 0x0806, request[14:], vlan=who.vlan)
    done = w.send(request, who)
    assert done.to == who.device
    assert done.packet == arp(2, B.mac, B.ip4, who.ip4, who.mac, who.mac)  # a pushed tag is beside the frame


@pytest.mark.parametrize("source", [A.ip6, A.link_local])
@pytest.mark.parametrize("target", [B.ip6, FAR.ip6, FAR.link_local, GATEWAY.ip6, GATEWAY.link_local])
@pytest.mark.parametrize("to", ["group", "one"])
def test_a_solicitation_is_answered(w: World, source: str, target: str, to: str) -> None:
    whom = next(x for x in (B, FAR, GATEWAY) if target in (x.ip6, x.link_local))
    direct = {"dst": target, "to": whom.mac} if to == "one" else {}
    done = w.send(ns(A.mac, source, target, **direct))
    assert (done.verdict, done.to, done.drop) == (REDIRECT, A.device, None)
    flags = 0x60 | (0x80 if whom is GATEWAY else 0)  # solicited, override, router
    assert done.packet == na(whom.mac, target, target, flags=flags, dst=source, to=A.mac)
    assert Packet(done.packet).ttl == 255


def test_a_solicitation_with_a_nonce_is_answered(w: World) -> None:
    body = icmp(135, 0, bytes(4), raw(B.ip6) + bytes((1, 1)) + A.mac + bytes((14, 1)) + bytes(6))
    group = ns(A.mac, A.ip6, B.ip6)[:6]
    done = w.send(eth(group, A.mac, IPV6, ip(A.ip6, "ff02::1:ff00:11", ICMPV6, body, ttl=255)))
    assert done.packet == na(B.mac, B.ip6, B.ip6, flags=0x60, dst=A.ip6, to=A.mac)


def test_duplicate_address_detection_finds_the_one_who_has_it(w: World) -> None:
    done = w.send(ns(A.mac, "::", B.ip6))
    assert done.packet == na(B.mac, B.ip6, B.ip6, flags=0x20, dst="ff02::1", to=ALL_NODES)


@pytest.mark.parametrize(
    "sent",
    [
        arp(1, A.mac, "0.0.0.0", A.ip4),
        arp(1, A.mac, A.ip4, A.ip4),
        ns(A.mac, "::", A.ip6),
        ns(A.mac, "::", A.link_local),
    ],
    ids=["ARP probe", "gratuitous ARP", "DAD", "DAD, link-local"],
)
def test_what_a_port_says_of_its_own_address_is_known_already(w: World, sent: bytes) -> None:
    done = w.send(sent)
    assert (done.verdict, done.drops) == (STOLEN, {})


@pytest.mark.parametrize(
    "sent", [arp(1, A.mac, A.ip4, NOBODY.ip4), ns(A.mac, A.ip6, NOBODY.ip6), arp(1, A.mac, A.ip4, "8.8.8.8")]
)
def test_nobody_answers_for_an_address_that_nobody_has(w: World, sent: bytes) -> None:
    done = w.send(sent)
    assert (done.verdict, done.drop) == (SHOT, "NO_NEIGHBOUR")


@pytest.mark.parametrize("v", [4, 6])
def test_an_unknown_address_is_asked_for_by_flooding_where_addresses_may_be_unknown(w: World, v: int) -> None:
    nobody = Who(CLEAR, 99, 0, None)
    sent = arp(1, CAUTIOUS.mac, CAUTIOUS.ip4, nobody.ip4) if v == 4 else ns(CAUTIOUS.mac, CAUTIOUS.ip6, nobody.ip6)
    with Ears(BARE.device, CAUTIOUS.device) as ears:
        assert w.send(sent, CAUTIOUS).verdict == STOLEN
        ears.must_hear({BARE.device: [sent]})


@pytest.mark.parametrize("v", [4, 6])
def test_an_unknown_address_on_a_provider_network_is_asked_for_outside(w: World, v: int) -> None:
    outside = Who(GREY, 99, 0, None)
    sent = arp(1, PUBLIC.mac, PUBLIC.ip4, outside.ip4) if v == 4 else ns(PUBLIC.mac, PUBLIC.ip6, outside.ip6)
    done = w.send(sent, PUBLIC)
    assert (done.verdict, done.to) == (REDIRECT, "uplink")
    assert done.packet == sent


def test_gratuitous_arp_on_a_provider_network_is_heard_outside(w: World) -> None:
    assert w.send(arp(1, PUBLIC.mac, PUBLIC.ip4, PUBLIC.ip4), PUBLIC).to == "uplink"


@pytest.mark.parametrize(
    "sent", [arp(2, A.mac, A.ip4, B.ip4, B.mac, B.mac), na(A.mac, A.ip6, A.ip6, dst=B.ip6, to=B.mac)]
)
def test_answers_of_a_port_are_switched(w: World, sent: bytes) -> None:
    done = w.send(sent)
    assert (done.to, done.packet) == (B.device, sent)


def test_answers_are_of_the_senders_network_only(w: World) -> None:
    w.delete("endpoints", r.EndpointKey(RED, r.pack_ip(B.ip4)))
    w.put("endpoints", {r.EndpointKey(GREY, r.pack_ip(B.ip4)): r.Endpoint(B.place, B.mac)})
    assert w.send(arp(1, A.mac, A.ip4, B.ip4)).drop == "NO_NEIGHBOUR"
