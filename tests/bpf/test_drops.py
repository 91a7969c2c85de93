"""Every reason for a drop has a packet that is dropped for it, and no packet is dropped without one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bpf.packets import (
    BROADCAST,
    ICMPV6,
    IPV4,
    IPV6,
    TCP,
    UDP,
    arp,
    eth,
    icmp,
    ip,
    ipv6_fragment,
    na,
    tcp,
    udp,
)  # fmt: skip
from bpf.test_firewall import Full
from bpf.test_limit import limit, sent
from bpf.test_published import AT, FROM, come, publish
from bpf.world import (
    FAR,
    GREY,
    MTU,
    PUBLIC,
    RED,
    STRANGER,
    A,
    B,
    D,
    Sent,
    Who,
    World,
    frame,
    frame_to,
    gateway,
    world,
    wrapped,
)
from crossway.kernel.bpf import REDIRECT, SHOT, lib
from crossway.model import rows as r
from crossway.plan.service import NO_ROUTER, SERVICE_MAC

GATEWAY = gateway(RED)
OTHER_MAC = bytes.fromhex("020000000099")
STAGES = ("ANSWER", "FLOOD", "ROUTE", "REPORT", "ASK")


def from_a(packet: bytes, proto: int = IPV4, src: bytes = A.mac) -> bytes:
    return eth(B.mac, src, proto, packet)


def asks_too_often(w: World) -> Sent:
    ports = w.bpf.table("ports")
    ports.put({A.key: ports.get(A.key)._replace(flags=r.PortFlag.SECURED | r.PortFlag.DHCP)})
    discover = eth(BROADCAST, A.mac, IPV4, ip("0.0.0.0", "255.255.255.255", UDP, udp(68, 67)))
    assert not w.send(discover).drops
    for _ in range(60):  # more than the burst: on a slow machine some of it is given back meanwhile
        w.bpf.run("from_workload", discover, ifindex=A.key.ifindex)
    return w.send(discover)


def asks_more_than_its_share(w: World) -> Sent:
    ports = w.bpf.table("ports")
    ports.put({A.key: ports.get(A.key)._replace(flags=r.PortFlag.NAMES)})
    place = r.Place(r.PlaceKind.ROUTER, router=NO_ROUTER)
    w.put("endpoints", {r.EndpointKey(RED, r.pack_ip("192.0.2.53")): r.Endpoint(place, SERVICE_MAC)})
    query = frame_to(A, SERVICE_MAC, "192.0.2.53", UDP, udp(40000, 53, b"x" * 1400))
    assert not w.send(query).drops
    for _ in range(90):  # the agent reads nothing
        w.bpf.run("from_workload", query, ifindex=A.key.ifindex)
    return w.send(query)


def without_network(w: World) -> Sent:
    w.delete("networks", RED)
    return w.send(frame_to(A, OTHER_MAC, B.ip4, UDP, udp(1, 2)))


def loop(w: World) -> Sent:
    w.put("routes", {r.RouteKey(160, 1, r.pack_ip("203.0.113.1")): r.Route(r.RouteKind.VIA, RED, r.pack_ip(B.ip4))})
    w.put("endpoints", {r.EndpointKey(RED, r.pack_ip(B.ip4)): r.Endpoint(r.Place(r.PlaceKind.ROUTER, router=1), B.mac)})
    return w.send(frame_to(A, GATEWAY.mac, "203.0.113.1", UDP, udp(1, 2)))


def without_policy(w: World, identity: int) -> Sent:
    w.policy(identity)
    return w.send(frame(A, B, UDP, udp(1, 2)))


def without_uplink(w: World) -> Sent:
    w.put("networks", {GREY: r.Network(MTU, 0, r.NetworkFlag.PROVIDER)})
    return w.send(frame(PUBLIC, Who(GREY, 99, 0, None), UDP, udp(1, 2)), PUBLIC)


def to_a_link_that_is_gone(w: World) -> Sent:
    key = r.PortKey(4000)
    w.put("ports", {key: r.Port(RED, 2, B.mac, r.Body.VETH, 0, MTU, (r.NO_IP, r.NO_IP))})
    w.network(RED, [r.Place(r.PlaceKind.LOCAL, port=key)])
    return w.send(eth(BROADCAST, A.mac, IPV4, ip(A.ip4, "255.255.255.255", UDP, udp(1, 2))))


def without_a_stage(w: World) -> Sent:
    with world() as broken:
        fd = lib.bpf_map__fd(broken.bpf._map("stages"))
        assert lib.bpf_map_delete_elem(fd, STAGES.index("ROUTE").to_bytes(4, "little")) == 0
        return broken.send(frame(A, GATEWAY, UDP, udp(1, 2)))


def without_room(w: World) -> Sent:
    with world(Full, sizes={"flows": 1}) as full:
        full.share(A, r.ShareOf.FLOWS, 0)
        full.send(frame(A, FAR, UDP, udp(1, 2)))
        return full.send(frame(A, FAR, UDP, udp(3, 4)))


def unseen(w: World, later: bytes) -> Sent:
    """Send a fragment whose first one has not come, from a port that may have none wait for theirs."""
    w.delete("shares", r.ShareKey(A.key, r.ShareOf.EARLY))
    return w.send(later)


def too_fast(w: World) -> Sent:
    limit(w, A, r.Way.OUT, 8)
    sent(w, A, B)
    return sent(w, A, B)


def by_two_published_ports(w: World) -> Sent:
    publish(w)
    publish(w, at=AT + 1)
    come(w, 4, TCP, tcp(FROM, AT))
    return come(w, 4, TCP, tcp(FROM, AT + 1))


def from_nowhere(w: World) -> Sent:
    w.add(A._replace(secured=False))
    return w.send(eth(GATEWAY.mac, A.mac, IPV4, ip("198.51.100.1", D.ip4, UDP, udp(1, 2))))


def from_a_neighbour(w: World) -> Sent:
    publish(w)
    return come(w, 4, UDP, udp(FROM, AT), B.ip4)


def by_a_link_that_leads_elsewhere(w: World) -> Sent:
    asks = Path("/proc/sys/net/ipv4/conf/vxlan/forwarding")
    asks.write_text("1")
    try:
        return w.run("from_uplink", wrapped(frame(FAR, A, UDP, udp(1, 2)), device="dd"), "dd")
    finally:
        asks.write_text("0")


def shouts_too_often(w: World) -> Sent:
    w.network(RED, [A.place] * 2000)  # to look at costs, too
    sent = eth(BROADCAST, A.mac, IPV4, ip(A.ip4, "255.255.255.255", UDP, udp(1, 2)))
    done = w.send(sent)
    for _ in range(1000):
        if done.drop:
            break
        done = w.send(sent)
    return done


REASONS: dict[str, Callable[[World], Sent]] = {
    "SHORT": lambda w: w.send(frame(A, B, UDP, b"\0\1")),
    "MALFORMED": lambda w: w.send(from_a(b"\x55" * 40)),
    "NO_PORT": lambda w: w.run("from_workload", frame(A, B, UDP, udp(1, 2)), "uplink"),
    "NOT_IP": lambda w: w.send(from_a(b"data" * 20, 0x88B5)),
    "SPOOFED_MAC": lambda w: w.send(from_a(ip(A.ip4, B.ip4, UDP, udp(1, 2)), src=OTHER_MAC)),
    "SPOOFED_IPV4": lambda w: w.send(from_a(ip(B.ip4, B.ip4, UDP, udp(1, 2)))),
    "SPOOFED_IPV6": lambda w: w.send(from_a(ip(B.ip6, B.ip6, UDP, udp(1, 2)), IPV6)),
    "SPOOFED_ARP": lambda w: w.send(arp(2, A.mac, GATEWAY.ip4, B.ip4, B.mac, B.mac)),
    "SPOOFED_ND": lambda w: w.send(na(A.mac, A.ip6, GATEWAY.ip6)),
    "SPOOFED_VLAN": lambda w: w.send(eth(B.mac, A.mac, IPV4, ip(A.ip4, B.ip4, UDP, udp(1, 2)), vlan=3)),
    "ROGUE_DHCP": lambda w: w.send(frame(A, B, UDP, udp(67, 68))),
    "ROGUE_RA": lambda w: w.send(from_a(ip(A.link_local, "ff02::1", ICMPV6, icmp(134), ttl=255), IPV6)),
    "NO_NETWORK": without_network,
    "NO_MAC": lambda w: w.send(frame_to(A, OTHER_MAC, B.ip4, UDP, udp(1, 2))),
    "NO_NEIGHBOUR": lambda w: w.send(arp(1, A.mac, A.ip4, "10.0.0.99")),
    "NO_ROUTE": lambda w: w.send(frame_to(A, GATEWAY.mac, "198.51.100.1", UDP, udp(1, 2))),
    "TTL": lambda w: w.send(frame(A, D, UDP, udp(1, 2), to=GATEWAY, ttl=1)),
    "TOO_MANY_ROUTERS": loop,
    "TOO_BIG": lambda w: w.send(frame(A, B, UDP, udp(1, 2, bytes(MTU)))),
    "FRAGMENT": lambda w: unseen(w, from_a(ip(A.ip4, B.ip4, UDP, b"x" * 8, id=1, fragment=9))),
    "POLICY_OUT": lambda w: without_policy(w, A.identity),
    "POLICY_IN": lambda w: without_policy(w, B.identity),
    "UNKNOWN_HOST": lambda w: w.receive(frame(FAR, A, UDP, udp(1, 2)), host=STRANGER),
    "NO_TUNNEL": lambda w: w.receive(frame(FAR, A, UDP, udp(1, 2)), network=0),
    "ROUTER_SERVICE": lambda w: w.send(frame(A, GATEWAY, TCP, tcp(1, 22))),
    "LOOP": lambda w: w.send(frame(A, A, UDP, udp(1, 2))),
    "NO_UPLINK": without_uplink,
    "ERROR": to_a_link_that_is_gone,
    "NO_STAGE": without_a_stage,
    "NO_SERVICE": asks_too_often,
    "PUNT_SHARE": asks_more_than_its_share,
    "RATE": too_fast,
    "TAKEN": by_two_published_ports,
    "UNTRACKED": without_room,
    "REVERSE_PATH": from_nowhere,
    "SPOOFED_CLIENT": from_a_neighbour,
    "SPOOFED_HOST": by_a_link_that_leads_elsewhere,
    "FLOOD_RATE": shouts_too_often,
    "LINK_LOCAL": lambda w: w.send(eth(GATEWAY.mac, A.mac, IPV6, ip(A.ip6, D.ip6, ICMPV6, icmp(130)))),
}


def test_every_reason_has_its_packet(w: World) -> None:
    assert {f"DROP_{why}" for why in REASONS} == set(w.reasons.values()) - {"DROP_NONE", "DROP_MAX"}


@pytest.mark.parametrize("why", REASONS)
def test_a_packet_is_dropped_for_each_reason(w: World, why: str) -> None:
    done = REASONS[why](w)
    assert done.drop == why
    assert done.verdict == {"UNTRACKED": REDIRECT, "ERROR": 4}.get(why, SHOT if why not in ANSWERED else REDIRECT)


ANSWERED = {"NO_ROUTE", "TTL", "TOO_MANY_ROUTERS", "REVERSE_PATH"}  # the sender is told by ICMP


def test_drops_are_counted_one_by_one(w: World) -> None:
    sent = from_a(ip(B.ip4, B.ip4, UDP, udp(1, 2)))
    for _ in range(5):
        w.bpf.run("from_workload", sent, ifindex=A.key.ifindex)
    assert [row.packets for row in w.bpf.table("drops").read().values()] == [5]


def test_a_drop_at_the_receiver_names_both_sides(w: World) -> None:
    w.policy(B.identity)
    w.send(frame(A, B, UDP, udp(1, 2)))
    ((key, row),) = w.bpf.table("drops").read().items()
    assert (key.port, row.identity, row.remote_identity) == (B.key, B.identity, A.identity)


def test_icmp_is_told_by_type_and_code(w: World) -> None:
    w.policy(A.identity)
    w.send(frame(A, B, 1, icmp(13, 2)))
    (row,) = w.bpf.table("drops").read().values()
    assert (row.src_port, row.dst_port) == (13 << 8 | 2, 0)


def test_fragments_of_ipv6_are_told_by_their_protocol(w: World) -> None:
    unseen(w, from_a(ip(A.ip6, B.ip6, 44, ipv6_fragment(UDP, 64, False, 1, b"x" * 8)), IPV6))
    (row,) = w.bpf.table("drops").read().values()
    assert row.proto == UDP
