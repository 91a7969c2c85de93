"""Published ports: at the host's address, there and back, byte by byte."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from socket import if_nametoindex
from typing import Any

import pytest

from bpf.packets import (
    ACK,
    DF,
    FIN,
    ICMP,
    ICMPV6,
    IPV4,
    IPV6,
    MF,
    RST,
    SYN,
    TCP,
    UDP,
    Packet,
    arp,
    eth,
    icmp,
    ip,
    ipv6_fragment,
    ns,
    tcp,
    udp,
)
from bpf.world import (
    AWAY,
    BLUE,
    FAR,
    HERE,
    NEIGHBOUR,
    PEER_PORT,
    RED,
    TAGGED,
    TAP,
    THERE,
    VXLAN_PORT,
    A,
    B,
    D,
    Sent,
    Who,
    World,
    any_rule,
    gateway,
    own_mac,
)
from crossway.kernel.bpf import REDIRECT, SHOT, UNSPEC
from crossway.model import rows as r
from crossway.plan.service import NO_ROUTER, SERVICE_MAC

HOST = {4: HERE, 6: "2001:db8::1"}
LOCAL = {4: "127.0.0.1", 6: "::1"}
CLIENT = {4: "198.51.100.7", 6: "2001:db8:7::7"}
GATEWAY = gateway(RED)  # of the router; published ports need not know whether there is one
GATEWAY_MAC = SERVICE_MAC
AT, LISTENS, FROM = 8080, 80, 40000
LO = 1
BOTH = pytest.mark.parametrize("v", [4, 6])
PROTOCOLS = pytest.mark.parametrize("proto", [TCP, UDP], ids=["TCP", "UDP"])


def body(proto: int, src: int, dst: int, flags: int = SYN, data: bytes = b"data") -> bytes:
    return tcp(src, dst, flags, data) if proto == TCP else udp(src, dst, data)


def publish(w: World, who: Who = A, at: int = AT, hosts: tuple[dict[int, str], ...] = (HOST, LOCAL)) -> None:
    """Publish port 80 of a port at addresses of the host."""
    # As `plan.service` makes it.
    w.put("macs", {r.MacKey(who.network, GATEWAY_MAC): r.Place(r.PlaceKind.ROUTER, router=NO_ROUTER)})
    for v in (4, 6):
        row = r.Published(who.place, r.pack_ip(who.ip(v)), r.pack_ip(GATEWAY.ip(v)), LISTENS, who.mac)
        for host in hosts:
            for proto in (TCP, UDP):
                w.put("published", {r.PublishedKey(r.pack_ip(host[v]), at, proto): row})
    table = w.bpf.table("ports")
    table.put({who.key: table.get(who.key)._replace(flags=who.flags | r.PortFlag.PUBLISHED)})


def come(
    w: World, v: int, proto: int, data: bytes, src: str = "", dst: str = "", device: str = "uplink", **options: Any
) -> Sent:
    """Take a packet for the host itself from outside, or from its own loopback."""
    mac = (bytes(6), bytes(6)) if device == "lo" else (own_mac(device), NEIGHBOUR)
    packet = ip(src or CLIENT[v], dst or HOST[v], proto, data, **options)
    return w.run("from_uplink", eth(*mac, IPV4 if v == 4 else IPV6, packet), device)


def answer(w: World, v: int, proto: int, data: bytes, who: Who = A, dst: str = "", **options: Any) -> Sent:
    packet = ip(who.ip(v), dst or CLIENT[v], proto, data, **options)
    return w.send(eth(GATEWAY_MAC, who.mac, IPV4 if v == 4 else IPV6, packet), who)


def ports(packet: Packet) -> tuple[int, int]:
    src, dst = struct.unpack_from("!HH", packet.payload)
    return src, dst


@BOTH
@PROTOCOLS
@pytest.mark.parametrize("who", [A, TAP, TAGGED], ids=["veth", "tap", "VLAN"])
def test_a_client_reaches_the_port_and_is_answered(w: World, v: int, proto: int, who: Who) -> None:
    publish(w, who)
    there = come(w, v, proto, body(proto, FROM, AT))
    assert (there.verdict, there.to, there.drop) == (REDIRECT, who.device, None)
    told = Packet(there.packet)
    assert (told.src, told.dst, ports(told), told.ttl) == (CLIENT[v], who.ip(v), (FROM, LISTENS), 64)
    assert (told.dst_mac, told.src_mac) == (who.mac, GATEWAY_MAC)
    packet = ip(who.ip(v), CLIENT[v], proto, body(proto, LISTENS, FROM, SYN | ACK))
    sent = eth(GATEWAY_MAC, who.mac, IPV4 if v == 4 else IPV6, packet, vlan=who.vlan or None)
    back = w.send(sent, who)
    assert (back.verdict, back.to, back.drop) == (REDIRECT, "uplink", None)
    told = Packet(back.packet)
    assert (told.src, told.dst, ports(told)) == (HOST[v], CLIENT[v], (AT, FROM))


@BOTH
@PROTOCOLS
def test_the_host_itself_is_the_gateway_to_the_port(w: World, v: int, proto: int) -> None:
    publish(w)
    there = come(w, v, proto, body(proto, FROM, AT), LOCAL[v], LOCAL[v], "lo")
    assert (there.to, there.drop) == (A.device, None)
    told = Packet(there.packet)
    assert (told.src, told.dst, ports(told)) == (GATEWAY.ip(v), A.ip(v), (FROM, LISTENS))
    back = answer(w, v, proto, body(proto, LISTENS, FROM, SYN | ACK), dst=GATEWAY.ip(v))
    assert (back.verdict, back.flight["out"], back.drop) == (REDIRECT, LO, None)
    told = Packet(back.packet)
    assert (told.src, told.dst, ports(told)) == (LOCAL[v], LOCAL[v], (AT, FROM))
    assert told.dst_mac == bytes(6)


@BOTH
def test_the_host_by_its_address_keeps_it(w: World, v: int) -> None:
    publish(w)
    there = come(w, v, TCP, tcp(FROM, AT), HOST[v], HOST[v], "lo")
    assert (Packet(there.packet).src, there.to) == (HOST[v], A.device)
    back = answer(w, v, TCP, tcp(LISTENS, FROM, SYN | ACK), dst=HOST[v])
    assert (Packet(back.packet).dst, back.flight["out"]) == (HOST[v], LO)


@BOTH
@pytest.mark.parametrize(
    ("src", "dst", "port", "device"),
    [
        ("", "", AT + 1, "uplink"), ("", "other", AT, "uplink"), ("", "local", AT, "uplink"),
        ("local", "", AT, "uplink"), ("none", "", AT, "uplink"), ("group", "", AT, "uplink"),
    ],
    ids=["another port", "another address", "loopback from outside", "loopback's outside", "from nobody", "from all"],
)  # fmt: skip
def test_what_is_not_published_is_the_hosts(w: World, v: int, src: str, dst: str, port: int, device: str) -> None:
    publish(w)
    names = {
        4: {"other": "192.0.2.9", "local": "127.0.0.1", "none": "0.0.0.0", "group": "224.0.0.1"},
        6: {"other": "2001:db8::9", "local": "::1", "none": "::", "group": "ff02::1"},
    }[v]
    done = come(w, v, UDP, udp(FROM, port), names.get(src, ""), names.get(dst, ""), device)
    assert (done.verdict, done.drop) == (UNSPEC, None)


def test_nothing_is_looked_for_unless_something_is_published(w: World) -> None:
    publish(w)
    for called in (True, False, False, True):
        w.bpf.stage("publish", called=called)
        assert come(w, 4, UDP, udp(FROM, AT)).verdict == (REDIRECT if called else UNSPEC)


@pytest.mark.parametrize("to", [bytes((2, 1, 1, 1, 1, 1)), b"\xff" * 6], ids=["another's", "all"])
def test_a_frame_that_is_not_the_hosts_is_left_alone(w: World, to: bytes) -> None:
    publish(w)
    packet = ip(CLIENT[4], HOST[4], UDP, udp(FROM, AT))
    assert w.run("from_uplink", eth(to, NEIGHBOUR, IPV4, packet), "uplink").verdict == UNSPEC


@BOTH
@PROTOCOLS
def test_publishing_is_the_permission(w: World, v: int, proto: int) -> None:
    publish(w)
    w.policy(A.identity)
    assert come(w, v, proto, body(proto, FROM, AT)).passed
    assert answer(w, v, proto, body(proto, LISTENS, FROM, SYN | ACK)).passed
    w.changed(A.identity)
    assert answer(w, v, proto, body(proto, LISTENS, FROM, ACK)).passed
    assert answer(w, v, proto, body(proto, LISTENS, FROM + 1, ACK)).drop == "NO_ROUTE"
    ((flow, row),) = [(k, f) for k, f in w.flows().items() if k.port == A.key]
    assert (flow.remote_port, row.flags & r.FlowFlag.PUBLISHED) == (FROM, r.FlowFlag.PUBLISHED)


def test_a_published_connection_is_no_permission_for_others(w: World) -> None:
    publish(w)
    w.policy(A.identity)
    come(w, 4, UDP, udp(FROM, AT))
    packet = ip(CLIENT[4], A.ip4, UDP, udp(FROM, LISTENS))
    assert w.receive(eth(A.mac, B.mac, IPV4, packet)).drop == "POLICY_IN"


def test_an_unsecured_port_is_published(w: World) -> None:
    bare = Who(RED, 50, 0, "da", secured=False)
    publish(w)
    row = r.Published(bare.place, r.pack_ip(A.ip4), r.pack_ip(GATEWAY.ip4), LISTENS, A.mac)
    w.put("published", {r.PublishedKey(r.pack_ip(HERE), AT, UDP): row})
    assert come(w, 4, UDP, udp(FROM, AT)).passed
    assert not w.flows()


def test_another_host_port_with_the_same_client_is_refused_while_the_first_goes_on(w: World) -> None:
    publish(w)
    publish(w, at=AT + 1)
    assert come(w, 4, TCP, tcp(FROM, AT)).passed
    assert come(w, 4, TCP, tcp(FROM, AT + 1)).drop == "TAKEN"
    for flags in (FIN | ACK, RST):
        come(w, 4, TCP, tcp(FROM, AT, flags))
    answer(w, 4, TCP, tcp(LISTENS, FROM, RST))
    assert come(w, 4, TCP, tcp(FROM, AT + 1)).passed


def test_who_gave_way_in_the_table_comes_back_with_the_clients_next_packet(w: World) -> None:
    publish(w)
    come(w, 4, TCP, tcp(FROM, AT))
    table = w.bpf.table("translations_assured")
    table.delete(list(table.read()))
    assert answer(w, 4, TCP, tcp(LISTENS, FROM, ACK)).drop == "NO_ROUTE"
    come(w, 4, TCP, tcp(FROM, AT, ACK))
    assert answer(w, 4, TCP, tcp(LISTENS, FROM, ACK)).passed


@pytest.fixture
def two(w: World) -> Iterator[World]:
    """Let the host ask for routes as it does, and be able to change the way to its clients."""
    quiet = Path("/proc/sys/net/ipv6/conf/vxlan/disable_ipv6")
    lines = [f"route add {c} dev uplink" for c in ("198.51.100.0/24", "2001:db8:7::/64")]
    quiet.write_text("0")
    Path("/proc/sys/net/ipv6/conf/uplink/disable_ipv6").write_text("0")
    Path("/proc/sys/net/ipv6/conf/dd/disable_ipv6").write_text("0")
    for v in ("ipv4", "ipv6"):
        Path(f"/proc/sys/net/{v}/conf/vxlan/forwarding").write_text("1")
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines) + "\n", text=True, check=True)
    yield w
    for c in ("198.51.100.0/24", "2001:db8:7::/64"):
        for device in ("uplink", "dd"):
            subprocess.run(["ip", "route", "del", c, "dev", device], check=False, capture_output=True)
    for v in ("ipv4", "ipv6"):
        Path(f"/proc/sys/net/{v}/conf/vxlan/forwarding").write_text("0")


@BOTH
@PROTOCOLS
def test_a_client_that_has_moved_to_another_link_is_answered_there(two: World, v: int, proto: int) -> None:
    publish(two)
    assert come(two, v, proto, body(proto, FROM, AT)).passed
    assert come(two, v, proto, body(proto, FROM, AT, ACK), device="dd").drop == "TAKEN"  # a forger there
    assert answer(two, v, proto, body(proto, LISTENS, FROM, ACK)).to == "uplink"
    route = {4: "198.51.100.0/24", 6: "2001:db8:7::/64"}[v]
    subprocess.run(["ip", "route", "replace", route, "dev", "dd"], check=True)
    if v == 6:
        subprocess.run(["ip", "route", "del", route, "dev", "uplink"], check=False, capture_output=True)
    assert come(two, v, proto, body(proto, FROM, AT, ACK), device="dd").passed
    assert answer(two, v, proto, body(proto, LISTENS, FROM, ACK)).to == "dd"


@BOTH
def test_nobody_outside_takes_over_what_the_host_itself_began(w: World, v: int) -> None:
    publish(w)
    come(w, v, TCP, tcp(FROM, AT), HOST[v], HOST[v], "lo")
    assert come(w, v, TCP, tcp(FROM, AT, ACK), HOST[v]).drop == "TAKEN"
    assert answer(w, v, TCP, tcp(LISTENS, FROM, SYN | ACK), dst=HOST[v]).flight["out"] == LO


@BOTH
@PROTOCOLS
@pytest.mark.parametrize("way", ["in", "out"])
def test_a_connection_with_a_peer_is_not_taken_over(w: World, v: int, proto: int, way: str) -> None:
    """One datagram from outside says that it is the peer: answers go on to the peer, and nothing comes in."""
    publish(w)
    peer = Who(RED, 99, FAR.identity, None)  # which no table knows: not even that may help
    if way == "in":
        first = eth(A.mac, B.mac, IPV4 if v == 4 else IPV6, ip(peer.ip(v), A.ip(v), proto, body(proto, FROM, LISTENS)))
        assert w.receive(first).passed
    else:
        first = eth(B.mac, A.mac, IPV4 if v == 4 else IPV6, ip(A.ip(v), peer.ip(v), proto, body(proto, LISTENS, FROM)))
        assert w.send(first).passed
    w.delete("routes", *w.bpf.table("routes").read())
    for flags in (SYN, ACK, RST):
        assert come(w, v, proto, body(proto, FROM, AT, flags), peer.ip(v)).drop == "TAKEN"
    reply = ip(A.ip(v), peer.ip(v), proto, body(proto, LISTENS, FROM, SYN | ACK))
    assert w.send(eth(B.mac, A.mac, IPV4 if v == 4 else IPV6, reply)).to == B.device
    assert all(not f.flags & r.FlowFlag.PUBLISHED for f in w.flows().values())


@BOTH
@PROTOCOLS
def test_what_did_not_begin_as_published_is_not_translated(w: World, v: int, proto: int) -> None:
    """A client that was, and whose flow is now one of the network's."""
    publish(w)
    come(w, v, proto, body(proto, FROM, AT))
    for name in ("flows", "flows_assured"):
        table = w.bpf.table(name)
        table.delete(list(table.read()))
    kind = IPV4 if v == 4 else IPV6
    first = eth(A.mac, B.mac, kind, ip(CLIENT[v], A.ip(v), proto, body(proto, FROM, LISTENS)))
    assert w.receive(first).passed
    assert answer(w, v, proto, body(proto, LISTENS, FROM, SYN | ACK)).drop == "NO_ROUTE"
    error, type, code = UNREACHABLE[v]
    about = icmp(type, code, bytes(4), quoted(v, CLIENT[v], A.ip(v), proto, FROM, LISTENS, 200))
    assert answer(w, v, error, about).drop == "NO_ROUTE"


@BOTH
def test_a_published_flow_that_was_lost_goes_on(w: World, v: int) -> None:
    publish(w)
    come(w, v, UDP, udp(FROM, AT))
    for name in ("flows", "flows_assured"):
        table = w.bpf.table(name)
        table.delete(list(table.read()))
    assert answer(w, v, UDP, udp(LISTENS, FROM)).to == "uplink"
    assert come(w, v, UDP, udp(FROM, AT)).passed
    assert answer(w, v, UDP, udp(LISTENS, FROM)).to == "uplink"


SIDE = {
    "a neighbour": B,
    "a neighbour on another host": FAR,
    "a neighbour behind the router": AWAY,
    "nobody behind the router": Who(BLUE, 222, 0, None),
    "nobody on its own network": Who(RED, 222, 0, None),
    "its gateway": GATEWAY,
    "the router's other side": gateway(BLUE),
    "itself": A,
}


@BOTH
@pytest.mark.parametrize("secured", [True, False])
@pytest.mark.parametrize("what", SIDE)
def test_a_client_is_nobody_of_the_ports_own_side(w: World, v: int, what: str, secured: bool) -> None:
    publish(w, A._replace(secured=secured))
    for proto in (TCP, UDP):
        done = come(w, v, proto, body(proto, FROM, AT), SIDE[what].ip(v))
        assert (done.verdict, done.drop) == (SHOT, "SPOOFED_CLIENT")
    assert not w.bpf.table("translations_assured").read()


@BOTH
def test_a_client_is_nobody_to_whom_routes_of_the_ports_network_lead(w: World, v: int) -> None:
    publish(w)
    place = r.Place(r.PlaceKind.ROUTER, router=2)
    beyond = {4: ("10.9.0.0", 112), 6: ("fd09::", 64)}[v]
    prefix = r.RouteKey(32 + beyond[1], 1, r.pack_ip(beyond[0]))
    for via, leads in ((AWAY, False), (D, True)):  # by another router, which knows no such network; by a port
        if via is AWAY:
            w.put("endpoints", {r.EndpointKey(BLUE, r.pack_ip(via.ip(v))): r.Endpoint(place, via.mac)})
        w.put("routes", {prefix: r.Route(r.RouteKind.VIA, BLUE, r.pack_ip(via.ip(v)))})
        client = beyond[0].removesuffix("0") + "5"
        assert come(w, v, UDP, udp(FROM + leads, AT), client).drop == ("SPOOFED_CLIENT" if leads else None)
    # A default route is for all that nobody else is known for: clients from outside are among them.
    w.delete("routes", prefix)
    everywhere = r.RouteKey(32 + (96 if v == 4 else 0), 1, r.pack_ip("0.0.0.0") if v == 4 else bytes(16))
    w.put("routes", {everywhere: r.Route(r.RouteKind.VIA, BLUE, r.pack_ip(D.ip(v)))})
    assert come(w, v, UDP, udp(FROM + 2, AT), beyond[0].removesuffix("0") + "6").passed


@BOTH
@pytest.mark.parametrize("port", [VXLAN_PORT, PEER_PORT])
def test_no_answer_goes_to_a_hosts_tunnel(w: World, v: int, port: int) -> None:
    """Whatever address it is: of a host, another of that host's, one that this host does not know."""
    publish(w)
    for client in ({4: THERE, 6: "2001:db8::2"}[v], CLIENT[v]):
        assert come(w, v, UDP, udp(port, AT), client).drop == "SPOOFED_CLIENT"
        assert come(w, v, TCP, tcp(port, AT), client).passed
    # Nor to one that an older build took.
    (key, row), *_ = w.bpf.table("translations_assured").read().items()
    w.put("translations_assured", {key._replace(proto=UDP): row})
    assert answer(w, v, UDP, udp(LISTENS, port), dst=r.unpack_ip(key.remote)).drop == "SPOOFED_CLIENT"


@pytest.mark.parametrize("src", ["0.0.0.9", "240.0.0.1", "255.255.255.255", "239.1.1.1", "127.0.0.5"])
def test_a_client_from_where_nobody_is_is_the_hosts_to_judge(w: World, src: str) -> None:
    publish(w)
    assert come(w, 4, UDP, udp(FROM, AT), src).verdict == UNSPEC


@BOTH
def test_a_port_answers_and_sends_as_before(w: World, v: int) -> None:
    publish(w)
    come(w, v, TCP, tcp(FROM, AT))
    packet = ip(A.ip(v), B.ip(v), TCP, tcp(LISTENS, FROM, ACK))
    assert w.send(eth(B.mac, A.mac, IPV4 if v == 4 else IPV6, packet)).to == B.device


def quoted(v: int, src: str, dst: str, proto: int, src_port: int, dst_port: int, size: int) -> bytes:
    return ip(src, dst, proto, body(proto, src_port, dst_port, ACK, bytes(40)))[:size]


def inner(packet: Packet) -> tuple[str, str, tuple[int, int]]:
    """Return whom the packet that an ICMP error quotes is from and to."""
    frame = packet.payload[8:]
    v = frame[0] >> 4
    at, size = (12, 4) if v == 4 else (8, 16)
    names = [str(ip_address(frame[at + i * size : at + (i + 1) * size])) for i in (0, 1)]
    src_port, dst_port = struct.unpack_from("!HH", frame, 20 if v == 4 else 40)
    return names[0], names[1], (src_port, dst_port)


TOO_BIG = {4: (ICMP, 3, 4), 6: (ICMPV6, 2, 0)}
UNREACHABLE = {4: (ICMP, 3, 3), 6: (ICMPV6, 1, 4)}


@BOTH
@PROTOCOLS
@pytest.mark.parametrize("size", [28, 200], ids=["short", "long"])
@pytest.mark.parametrize("local", [False, True], ids=["outside", "host"])
def test_an_error_about_an_answer_reaches_the_port(w: World, v: int, proto: int, size: int, local: bool) -> None:
    publish(w)
    client, host = (LOCAL[v], LOCAL[v]) if local else (CLIENT[v], HOST[v])
    device = "lo" if local else "uplink"
    come(w, v, proto, body(proto, FROM, AT), client, host, device)
    kind, type, code = TOO_BIG[v]
    by = client if local else {4: "203.0.113.9", 6: "2001:db8:9::9"}[v]
    size += 20 * (v == 6)
    error = icmp(type, code, struct.pack("!HH", 0, 1200), quoted(v, host, client, proto, AT, FROM, size))
    done = come(w, v, kind, error, by, host, device)
    assert (done.to, done.drop) == (A.device, None)
    told = Packet(done.packet)
    seen = GATEWAY.ip(v) if local else CLIENT[v]
    assert (told.src, told.dst, told.icmp) == (GATEWAY.ip(v) if local else by, A.ip(v), (type, code))
    assert inner(told) == (A.ip(v), seen, (LISTENS, FROM))


@BOTH
@PROTOCOLS
@pytest.mark.parametrize("local", [False, True], ids=["outside", "host"])
def test_an_error_of_the_port_reaches_the_client(w: World, v: int, proto: int, local: bool) -> None:
    publish(w)
    client, host = (LOCAL[v], LOCAL[v]) if local else (CLIENT[v], HOST[v])
    come(w, v, proto, body(proto, FROM, AT), client, host, "lo" if local else "uplink")
    seen = GATEWAY.ip(v) if local else CLIENT[v]
    kind, type, code = UNREACHABLE[v]
    error = icmp(type, code, bytes(4), quoted(v, seen, A.ip(v), proto, FROM, LISTENS, 200))
    done = answer(w, v, kind, error, dst=seen)
    assert (done.flight["out"], done.drop) == (LO if local else if_nametoindex("uplink"), None)
    told = Packet(done.packet)
    assert (told.src, told.dst, told.icmp) == (host, client, (type, code))
    assert inner(told) == (client, host, (FROM, AT))


@BOTH
@pytest.mark.parametrize("about", ["no connection", "no published port", "another's"])
def test_an_error_about_nothing_published_is_the_hosts(w: World, v: int, about: str) -> None:
    publish(w)
    come(w, v, UDP, udp(FROM, AT))
    kind, type, code = TOO_BIG[v]
    port, client = AT + (about == "no published port"), FROM + (about == "no connection")
    src = CLIENT[v] if about == "another's" else HOST[v]
    error = icmp(type, code, bytes(4), quoted(v, src, CLIENT[v], UDP, port, client, 200))
    assert come(w, v, kind, error).verdict == UNSPEC


def test_fragments_go_with_their_first_one(w: World) -> None:
    publish(w)
    whole = ip(CLIENT[4], HOST[4], UDP, udp(FROM, AT, bytes(64)), fragment=DF)[20:]
    first = come(w, 4, UDP, whole[:40], id=7, fragment=MF)
    later = come(w, 4, UDP, whole[40:], id=7, fragment=5)
    assert (first.to, later.to) == (A.device, A.device)
    data = Packet(first.packet).payload + Packet(later.packet).payload
    put_together = ip(CLIENT[4], A.ip4, UDP, data)
    assert put_together[20:] == data, "the checksum of the whole holds"
    whole = ip(A.ip4, CLIENT[4], UDP, udp(LISTENS, FROM, bytes(64)), fragment=DF)[20:]
    first = answer(w, 4, UDP, whole[:40], id=8, fragment=MF)
    later = answer(w, 4, UDP, whole[40:], id=8, fragment=5)
    data = Packet(first.packet).payload + Packet(later.packet).payload
    assert ip(HOST[4], CLIENT[4], UDP, data)[20:] == data


@BOTH
def test_a_refused_first_fragment_replaces_none_that_was_let_in(w: World, v: int) -> None:
    publish(w)

    def part(at: int, data: bytes) -> Sent:
        if v == 4:
            return come(w, v, UDP, data, id=7, fragment=at // 8 or MF)
        return come(w, v, 44, ipv6_fragment(UDP, at, not at, 7, data))

    assert part(0, udp(FROM, AT, bytes(32))).to == A.device
    assert part(0, udp(PEER_PORT, AT, bytes(32))).drop == "SPOOFED_CLIENT"
    assert part(40, bytes(40)).to == A.device


def test_a_later_fragment_alone_is_the_hosts(w: World) -> None:
    publish(w)
    assert come(w, 4, UDP, bytes(40), id=9, fragment=5).verdict == UNSPEC


def test_udp_without_a_checksum_keeps_none(w: World) -> None:
    publish(w)
    packet = bytearray(ip(CLIENT[4], HOST[4], UDP, udp(FROM, AT)))
    packet[26:28] = b"\0\0"
    done = w.run("from_uplink", eth(own_mac(), NEIGHBOUR, IPV4, bytes(packet)), "uplink")
    assert done.packet[14 + 26 : 14 + 28] == b"\0\0"


def test_from_the_host_itself_only_what_fits(w: World) -> None:
    publish(w)
    assert come(w, 4, UDP, udp(FROM, AT, bytes(1500)), HOST[4], device="lo").drop == "TOO_BIG"
    assert come(w, 4, UDP, udp(FROM, AT, bytes(1500))).passed


@BOTH
def test_an_answer_that_is_too_large_for_the_clients_link_is_told(w: World, v: int) -> None:
    publish(w)
    # As each network has it, of the agent's own host.
    foot = r.Interface(GATEWAY_MAC, (r.pack_ip(GATEWAY.ip4), r.pack_ip(GATEWAY.ip6)))
    w.put("interfaces", {r.InterfaceKey(RED, 0): foot})
    come(w, v, TCP, tcp(FROM, AT))
    subprocess.run(["ip", "link", "set", "uplink", "mtu", "1300"], check=True)
    try:
        done = answer(w, v, TCP, tcp(LISTENS, FROM, ACK, bytes(1300)))
    finally:
        subprocess.run(["ip", "link", "set", "uplink", "mtu", "1500"], check=True)
    told = Packet(done.packet)
    assert (done.drop, done.to, told.src, told.dst) == ("TOO_BIG", A.device, GATEWAY.ip(v), A.ip(v))
    assert (told.icmp, struct.unpack_from("!I", told.payload, 4)[0]) == (TOO_BIG[v][1:], 1300)
    assert inner(told) == (A.ip(v), CLIENT[v], (LISTENS, FROM))


def test_a_gateway_that_no_router_is_answers(w: World) -> None:
    publish(w)
    for v, host in ((4, 77), (6, 77)):
        w.put("gateways", {r.GatewayKey(A.key, r.pack_ip(Who(RED, host, 0, None).ip(v))): 1})
    alone = Who(RED, 77, 0, None)
    assert w.send(arp(1, A.mac, A.ip4, alone.ip4)).packet == arp(2, GATEWAY_MAC, alone.ip4, A.ip4, A.mac, A.mac)
    told = Packet(w.send(ns(A.mac, A.ip6, alone.ip6)).packet)
    assert (told.src, told.payload[-6:], told.payload[4] >> 7) == (alone.ip6, GATEWAY_MAC, 1)
    assert w.send(arp(1, B.mac, B.ip4, alone.ip4), B).drop == "NO_NEIGHBOUR"
    assert w.send(eth(GATEWAY_MAC, A.mac, IPV4, ip(A.ip4, "203.0.113.1", UDP, udp(1, 2)))).drop == "NO_ROUTE"


def test_a_router_is_the_gateway_where_there_is_one(w: World) -> None:
    publish(w)
    w.put("gateways", {r.GatewayKey(A.key, r.pack_ip(GATEWAY.ip4)): 1})
    assert w.send(arp(1, A.mac, A.ip4, GATEWAY.ip4)).packet[6:12] == GATEWAY.mac


def test_egress_rules_do_not_matter_to_answers_but_to_all_else(w: World) -> None:
    publish(w)
    w.policy(A.identity, any_rule(A.identity, r.Way.IN))
    come(w, 4, TCP, tcp(FROM, AT))
    assert answer(w, 4, TCP, tcp(LISTENS, FROM, ACK)).passed
    packet = ip(A.ip4, B.ip4, TCP, tcp(LISTENS, FROM, SYN))
    done = w.send(eth(B.mac, A.mac, IPV4, packet))
    assert (done.verdict, done.drop) == (SHOT, "POLICY_OUT")
