"""Within a network: to a port here, to another host, to all, out to the provider network; and back in."""

from __future__ import annotations

import json
import subprocess

import pytest

from bpf.packets import BROADCAST, IPV4, IPV6, SCTP, TCP, UDP, eth, ip, mac, tcp, udp
from bpf.world import (
    BARE,
    BLUE,
    CAUTIOUS,
    CLEAR,
    FAR,
    GREY,
    MTU,
    PUBLIC,
    RED,
    STOLEN,
    STRANGER,
    TAGGED,
    TAP,
    A,
    B,
    Ears,
    Who,
    World,
    frame,
    frame_to,
    rule,
)  # fmt: skip
from crossway.kernel.bpf import REDIRECT, SHOT, UNSPEC
from crossway.model import rows as r

GROUP = mac("01:00:5e:01:02:03")
UNKNOWN = mac("02:00:00:00:00:99")
RELAYED = 1 << 22  # in what VXLAN carries besides the network


@pytest.mark.parametrize("v", [4, 6])
@pytest.mark.parametrize("to", [B, TAP, TAGGED], ids=["veth", "tap", "VLAN"])
def test_to_a_port_of_this_host(w: World, to: Who, v: int) -> None:
    sent = frame(A, to, UDP, udp(1, 2), v)
    done = w.send(sent)
    assert (done.verdict, done.to, done.packet) == (REDIRECT, to.device, sent)


@pytest.mark.parametrize("v", [4, 6])
def test_to_another_host(w: World, v: int) -> None:
    done = w.send(frame(A, FAR, UDP, udp(1, 2), v))
    assert (done.verdict, done.to) == (REDIRECT, "vxlan")
    assert (done.flight["network"], done.flight["identity"]) == (RED, A.identity)


@pytest.mark.parametrize("v", [4, 6])
def test_what_still_comes_for_a_port_that_has_moved_goes_on_to_it_once(w: World, v: int) -> None:
    sent = frame(B, FAR, UDP, udp(1, 2), v)
    assert w.receive(sent).drop == "LOOP"
    w.put("macs", {r.MacKey(RED, FAR.mac): FAR.place._replace(flags=r.PortFlag.MOVED)})
    done = w.receive(sent, identity=3)
    assert (done.verdict, done.to, done.packet) == (REDIRECT, "vxlan", sent)
    assert (done.flight["network"], done.flight["identity"]) == (RED, 3)
    assert w.receive(sent, identity=3 | RELAYED).drop == "LOOP"


def test_what_was_sent_on_arrives_as_whose_it_was(w: World) -> None:
    sent = frame(FAR, B, UDP, udp(1, 2), 4)
    done = w.receive(sent, identity=FAR.identity | RELAYED)
    assert (done.verdict, done.to, done.flight["identity"]) == (REDIRECT, B.device, FAR.identity)


@pytest.mark.parametrize("v", [4, 6])
@pytest.mark.parametrize("to", [B, TAP, TAGGED], ids=["veth", "tap", "VLAN"])
def test_from_another_host(w: World, to: Who, v: int) -> None:
    sent = frame(FAR, to, UDP, udp(1, 2), v)
    done = w.receive(sent)
    assert (done.verdict, done.to, done.packet) == (REDIRECT, to.device, sent)


@pytest.mark.parametrize(
    ("change", "sent", "why"),
    [
        ({}, frame(FAR, Who(RED, 99, 0, None), UDP, udp(1, 2)), "NO_MAC"),
        ({}, frame(FAR, FAR, UDP, udp(1, 2)), "LOOP"),
        ({}, frame(FAR, Who(RED, 1, 0, None), UDP, udp(1, 2)), "LOOP"),  # the router: routing is the sender's business
        ({"network": 99}, frame(FAR, A, UDP, udp(1, 2)), "NO_NETWORK"),
        ({"network": 99}, eth(BROADCAST, FAR.mac, IPV4, ip(FAR.ip4, "255.255.255.255", UDP, udp(1, 2))), "NO_NETWORK"),
        ({"network": BLUE}, frame(FAR, A, UDP, udp(1, 2)), None),
        ({"network": CLEAR}, frame(FAR, A, UDP, udp(1, 2)), None),
        ({"network": 0}, frame(FAR, A, UDP, udp(1, 2)), "NO_TUNNEL"),
        ({"host": STRANGER}, frame(FAR, A, UDP, udp(1, 2)), "UNKNOWN_HOST"),
        ({}, eth(A.mac, FAR.mac, IPV4, ip(FAR.ip4, A.ip4, UDP, udp(1, 2)), vlan=3), "SPOOFED_VLAN"),
        ({}, eth(A.mac, FAR.mac, IPV4, ip(FAR.ip4, A.ip4, UDP, udp(1, 2), length=900)), "SHORT"),
        ({}, eth(A.mac, FAR.mac, IPV4, b"\x55" * 60), "MALFORMED"),
        ({}, eth(A.mac, FAR.mac, 0x88B5, b"data" * 20), "NOT_IP"),
        ({}, b"\0" * 14, "NO_MAC"),
    ],
    ids=["nobody's MAC", "a MAC of another host", "a router's MAC", "unknown network", "flood to an unknown network",
         "another network", "unsecured network", "no tunnel", "unknown host", "tag", "short", "malformed", "not IP",
         "nothing"],
)  # fmt: skip
def test_the_overlay_takes_only_what_it_should(w: World, change: dict[str, int], sent: bytes, why: str | None) -> None:
    done = w.receive(sent, **change)
    if why is None:  # the MAC is not on that network: nobody of another network gets it
        assert done.to is None
        assert done.verdict in (SHOT, STOLEN)
    else:
        assert (done.verdict, done.drop) == (SHOT, why)


def test_a_mac_that_nobody_has_is_dropped(w: World) -> None:
    assert w.send(frame_to(A, UNKNOWN, B.ip4, UDP, udp(1, 2))).drop == "NO_MAC"


def test_to_oneself_is_a_loop(w: World) -> None:
    assert w.send(frame(A, A, UDP, udp(1, 2))).drop == "LOOP"


def test_a_port_whose_network_is_unknown(w: World) -> None:
    w.delete("networks", RED)
    assert w.send(frame_to(A, UNKNOWN, B.ip4, UDP, udp(1, 2))).drop == "NO_NETWORK"


def test_a_device_that_is_no_port(w: World) -> None:
    assert w.run("from_workload", frame(A, B, UDP, udp(1, 2)), "uplink").drops == {(None, "NO_PORT"): 1}


@pytest.mark.parametrize("v", [4, 6])
def test_larger_than_the_network_allows(w: World, v: int) -> None:
    head = (20 if v == 4 else 40) + 8
    fits = frame(A, B, UDP, udp(1, 2, bytes(MTU - head)), v)
    assert w.send(fits).passed
    assert w.send(frame(A, B, UDP, udp(1, 2, bytes(MTU - head + 1)), v)).drop == "TOO_BIG"


@pytest.mark.parametrize(("segment", "passes"), [(1410, True), (1411, False)])
def test_what_will_be_segmented_is_judged_by_its_segments(w: World, segment: int, passes: bool) -> None:
    done = w.send(frame(A, B, TCP, tcp(1, 2, data=bytes(2600))), gso_size=segment, gso_segs=2)
    assert done.drop == (None if passes else "TOO_BIG")


def test_what_is_segmented_already_is_as_large_as_its_path_allows(w: World) -> None:
    assert w.send(frame(A, B, SCTP, udp(1, 2, bytes(2600))), gso_size=0xFFFF, gso_segs=2).passed


# ---- Floods.


def everywhere(sent: bytes, *devices: str | None) -> dict[str | None, list[bytes]]:
    return {d: [sent] for d in devices}


@pytest.mark.parametrize(
    ("to", "packet"),
    [
        (BROADCAST, ip(A.ip4, "255.255.255.255", UDP, udp(1, 2))),
        (BROADCAST, ip(A.ip4, "10.0.0.255", UDP, udp(1, 2))),
        (GROUP, ip(A.ip4, "239.1.2.3", UDP, udp(1, 2))),
        (mac("33:33:00:00:00:fb"), ip(A.ip6, "ff02::fb", UDP, udp(1, 2))),
        (GROUP, ip(A.ip4, B.ip4, UDP, udp(1, 2))),
    ],
    ids=["broadcast", "subnet's broadcast", "IPv4 group", "IPv6 group", "one address, group's MAC"],
)
def test_a_group_reaches_every_member_once_and_not_its_sender(w: World, to: bytes, packet: bytes) -> None:
    sent = eth(to, A.mac, IPV6 if packet[0] >> 4 == 6 else IPV4, packet)
    tagged = sent[:12] + b"\x81\0\0\5" + sent[12:]
    with Ears("da", "db", "dt", "trunk", "vxlan", "dd", "dg", "du", "uplink") as ears:
        done = w.send(sent)
        ears.must_hear(everywhere(sent, "db", "dt", "vxlan") | {"trunk": [tagged]})
    assert (done.verdict, done.drops) == (STOLEN, {})
    assert w.flows() == {}


def test_a_group_from_another_host_stays_on_this_host(w: World) -> None:
    sent = eth(BROADCAST, FAR.mac, IPV4, ip(FAR.ip4, "255.255.255.255", UDP, udp(1, 2)))
    with Ears("da", "db", "dt", "vxlan", "dd") as ears:
        assert w.receive(sent).verdict == STOLEN
        ears.must_hear(everywhere(sent, "da", "db", "dt"))


def test_what_a_port_sent_to_a_group_elsewhere_is_not_given_back_to_it(w: World) -> None:
    """Two edge hosts may both serve a bare-metal server for a while: the wire brings both what it sends."""
    sent = eth(BROADCAST, TAGGED.mac, IPV4, ip(TAGGED.ip4, "255.255.255.255", UDP, udp(1, 2)))
    with Ears("da", "db", "dt", "trunk") as ears:
        assert w.receive(sent).verdict == STOLEN
        ears.must_hear(everywhere(sent, "da", "db", "dt"))


def test_each_receiver_of_a_group_has_its_own_policy(w: World) -> None:
    w.policy(B.identity)  # db, dt and trunk
    sent = eth(BROADCAST, A.mac, IPV4, ip(A.ip4, "255.255.255.255", UDP, udp(1, 2)))
    with Ears("db", "dt", "vxlan") as ears:
        done = w.send(sent)
        ears.must_hear(everywhere(sent, "vxlan"))
    assert done.drops == {(d, "POLICY_IN"): 1 for d in ("db", "dt", "trunk")}


def test_who_may_not_send_to_a_group_does_not(w: World) -> None:
    w.policy(A.identity)
    with Ears("db", "dt", "vxlan") as ears:
        sent = w.send(eth(BROADCAST, A.mac, IPV4, ip(A.ip4, "255.255.255.255", UDP, udp(1, 2))))
        assert sent.drop == "POLICY_OUT"
        ears.must_hear({})


def transmitted(device: str) -> int:
    told = subprocess.run(["ip", "-j", "-s", "link", "show", device], capture_output=True, check=True).stdout
    return int(json.loads(told)[0]["stats64"]["tx"]["packets"])


def test_a_flood_reaches_a_thousand_members(w: World) -> None:
    members = 1000  # more would overflow what the kernel queues between veths (net.core.netdev_max_backlog)
    w.network(RED, [B.place if i % 2 else FAR.place for i in range(members)])
    before = transmitted("db"), transmitted("vxlan")
    sent = eth(BROADCAST, A.mac, IPV4, ip(A.ip4, "255.255.255.255", UDP, udp(1, 2)))
    assert w.send(sent).verdict == STOLEN
    assert (transmitted("db") - before[0], transmitted("vxlan") - before[1]) == (members // 2, members // 2)


def test_a_member_that_is_gone_is_passed_over(w: World) -> None:
    w.delete("ports", TAP.key)
    w.delete("members", r.MemberKey(RED, 0))
    sent = eth(BROADCAST, A.mac, IPV4, ip(A.ip4, "255.255.255.255", UDP, udp(1, 2)))
    with Ears("db", "dt") as ears:
        done = w.send(sent)
        assert (done.verdict, done.drops) == (STOLEN, {})
        ears.must_hear(everywhere(sent, "db"))


def test_an_unknown_mac_is_flooded_where_addresses_may_be_unknown(w: World) -> None:
    far = Who(CLEAR, 20, 0, None)
    w.network(CLEAR, [BARE.place, CAUTIOUS.place, far.place])
    w.put("networks", {CLEAR: r.Network(MTU, 3, r.NetworkFlag.FLOOD_UNKNOWN)})
    sent = frame_to(BARE, UNKNOWN, "10.0.4.99", UDP, udp(1, 2))
    with Ears("du", "dc", "vxlan") as ears:
        assert w.send(sent, BARE).verdict == STOLEN
        ears.must_hear(everywhere(sent, "vxlan"))  # a secured port gets only what may be its own
    w.put("sources", {r.SourceKey(256, CAUTIOUS.key, UNKNOWN, r.pack_ip("10.0.4.99")): 1})
    with Ears("du", "dc", "vxlan") as ears:
        assert w.send(sent, BARE).verdict == STOLEN
        ears.must_hear(everywhere(sent, "vxlan", "dc"))
    sent = frame_to(far, UNKNOWN, "10.0.4.99", UDP, udp(1, 2))
    with Ears("du", "dc") as ears:
        assert w.receive(sent, CLEAR).verdict == STOLEN
        ears.must_hear(everywhere(sent, "du", "dc"))


def test_what_is_not_ip_passes_between_ports_without_security_only(w: World) -> None:
    sent = eth(BROADCAST, BARE.mac, 0x88B5, b"data" * 20)
    with Ears("dc") as ears:
        assert w.send(sent, BARE).drops == {("dc", "NOT_IP"): 1}
        ears.must_hear({})
    done = w.receive(eth(BARE.mac, UNKNOWN, 0x88B5, b"data" * 20), CLEAR)
    assert (done.to, done.drop) == ("du", None)


# ---- Provider networks.

OUTSIDE = Who(GREY, 99, 0, None)


def tagged(packet: bytes, vlan: int = 7) -> bytes:
    return packet[:12] + b"\x81\0" + vlan.to_bytes(2, "big") + packet[12:]


def test_an_unknown_mac_on_a_provider_network_is_outside(w: World) -> None:
    done = w.send(frame(PUBLIC, OUTSIDE, UDP, udp(1, 2)), PUBLIC)
    assert (done.verdict, done.to) == (REDIRECT, "uplink")


def test_a_group_of_a_provider_network_is_heard_outside(w: World) -> None:
    sent = eth(BROADCAST, PUBLIC.mac, IPV4, ip(PUBLIC.ip4, "255.255.255.255", UDP, udp(1, 2)))
    with Ears("uplink", "dg") as ears:
        assert w.send(sent, PUBLIC).verdict == STOLEN
        ears.must_hear({"uplink": [tagged(sent)]})


def test_a_provider_network_that_is_not_on_this_host(w: World) -> None:
    w.put("networks", {GREY: r.Network(MTU, 0, r.NetworkFlag.PROVIDER)})
    assert w.send(frame(PUBLIC, OUTSIDE, UDP, udp(1, 2)), PUBLIC).drop == "NO_UPLINK"


def test_from_outside_to_a_port(w: World) -> None:
    sent = frame(OUTSIDE, PUBLIC, UDP, udp(1, 2))
    done = w.run("from_uplink", tagged(sent), "uplink")
    assert (done.verdict, done.to, done.packet) == (REDIRECT, "dg", sent)


def test_from_outside_policy_holds(w: World) -> None:
    w.policy(PUBLIC.identity)
    done = w.run("from_uplink", tagged(frame(OUTSIDE, PUBLIC, UDP, udp(1, 2))), "uplink")
    assert (done.verdict, done.drops) == (SHOT, {("dg", "POLICY_IN"): 1})


@pytest.mark.parametrize("v", [4, 6])
def test_a_port_elsewhere_on_a_provider_network_keeps_its_identity(w: World, v: int) -> None:
    other = Who(GREY, 50, 5, None)
    w.policy(PUBLIC.identity, rule(PUBLIC.identity, r.Way.IN, other.identity, v))
    sent = tagged(frame(other, PUBLIC, UDP, udp(1, 2), v))
    assert w.run("from_uplink", sent, "uplink").drop == "POLICY_IN"
    w.put("endpoints", {r.EndpointKey(GREY, r.pack_ip(other.ip(v))): r.Endpoint(other.place, other.mac)})
    assert w.run("from_uplink", sent, "uplink").to == "dg"


@pytest.mark.parametrize("v", [4, 6])
def test_on_a_provider_network_an_address_without_its_mac_is_nobodys(w: World, v: int) -> None:
    other = Who(GREY, 50, 5, None)
    w.policy(PUBLIC.identity, rule(PUBLIC.identity, r.Way.IN, other.identity, v))
    w.put("endpoints", {r.EndpointKey(GREY, r.pack_ip(other.ip(v))): r.Endpoint(other.place, other.mac)})
    packet = frame(other, PUBLIC, UDP, udp(1, 2), v)
    forged = packet[:6] + OUTSIDE.mac + packet[12:]
    for sent in (forged, packet[:6] + PUBLIC.mac + packet[12:]):
        done = w.run("from_uplink", tagged(sent), "uplink")
        assert (done.drop, done.flight["identity"]) == ("POLICY_IN", 0)


@pytest.mark.parametrize(
    "sent",
    [
        tagged(frame(OUTSIDE, Who(GREY, 98, 0, None), UDP, udp(1, 2))),
        frame(OUTSIDE, PUBLIC, UDP, udp(1, 2)),
        tagged(frame(OUTSIDE, PUBLIC, UDP, udp(1, 2)), 8),
        eth(BROADCAST, OUTSIDE.mac, 0x0806, bytes(28)),
    ],
    ids=["another MAC", "untagged", "another tag", "another network's ARP"],
)
def test_the_rest_stays_with_the_host(w: World, sent: bytes) -> None:
    done = w.run("from_uplink", sent, "uplink")
    assert (done.verdict, done.drops) == (UNSPEC, {})
    assert done.packet == sent


def test_a_group_from_outside_reaches_ports_and_the_host(w: World) -> None:
    sent = eth(BROADCAST, OUTSIDE.mac, 0x0806, bytes(28))
    with Ears("dg", "da") as ears:
        done = w.run("from_uplink", tagged(sent), "uplink")
        ears.must_hear({"dg": [sent]})
    assert done.verdict == UNSPEC


def test_what_a_port_elsewhere_sent_to_a_group_comes_by_the_overlay_and_not_twice(w: World) -> None:
    other = Who(GREY, 50, 5, None)
    w.put("macs", {r.MacKey(GREY, other.mac): other.place})
    sent = eth(BROADCAST, other.mac, IPV4, ip(other.ip4, "255.255.255.255", UDP, udp(1, 2)))
    with Ears("dg") as ears:
        done = w.run("from_uplink", tagged(sent), "uplink")
        assert done.verdict == UNSPEC
        ears.must_hear({})
        assert w.receive(sent, GREY).verdict == STOLEN
        ears.must_hear({"dg": [sent]})
