"""What hosts say to each other comes by the links by which they are reached, or not at all."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from socket import if_nametoindex
from typing import NamedTuple

import pytest

from bpf.packets import IPV4, IPV6, MF, TCP, UDP, eth, ip, ipv6_fragment, tcp, udp
from bpf.world import (
    FAR,
    HERE,
    NEIGHBOUR,
    PEER_PORT,
    RED,
    STRANGER,
    TAP,
    THERE,
    VXLAN_PORT,
    B,
    Sent,
    World,
    direct_world,
    frame,
    own_mac,
    wrapped,
)  # fmt: skip
from crossway.kernel.bpf import REDIRECT, SHOT, UNSPEC
from crossway.kernel.links import Links
from crossway.model import rows as r

HERE6, THERE6, STRANGER6 = "2001:db8:5::1", "2001:db8:5::2", "2001:db8:6::66"
ELSEWHERE = "dd"  # a link by which no host is reached
FRESH = 0.15  # seconds after which the kernel is asked again
INNER = frame(FAR, B, UDP, udp(1, 2))


def run(*lines: str) -> None:
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines) + "\n", text=True, check=True, capture_output=True)


@pytest.fixture(scope="module")
def one() -> Iterator[World]:
    with direct_world() as made:
        for device in ("vxlan", "uplink", ELSEWHERE):
            Path(f"/proc/sys/net/ipv6/conf/{device}/disable_ipv6").write_text("0")
        Path("/proc/sys/net/ipv6/conf/vxlan/forwarding").write_text("1")
        run(f"address add {HERE6}/64 dev uplink nodad", f"address add 192.0.3.1/24 dev {ELSEWHERE}",
            f"route add default via 192.0.3.254 dev {ELSEWHERE}")  # fmt: skip
        yield made


@pytest.fixture
def d(one: World) -> Iterator[World]:
    one.reset()
    one.put("hosts", {r.pack_ip(THERE6): r.Host(1)})
    time.sleep(FRESH)
    yield one
    subprocess.run(["ip", "route", "del", THERE], check=False, capture_output=True)


def come(d: World, sent: bytes, device: str) -> Sent:
    return d.run("from_uplink", sent, device)


def says(src: str, proto: int, body: bytes, device: str) -> bytes:
    v6 = ":" in src
    return eth(own_mac(device), NEIGHBOUR, IPV6 if v6 else IPV4, ip(src, HERE6 if v6 else HERE, proto, body))


TALK: dict[str, Callable[[str], bytes]] = {
    "plain VXLAN": lambda device: wrapped(INNER, device=device),
    "VXLAN with a checksum": lambda device: wrapped(INNER, device=device, sum=1),
    "VXLAN for a tap": lambda device: wrapped(frame(FAR, TAP, UDP, udp(1, 2)), device=device),
    "VXLAN for nobody": lambda device: wrapped(INNER, device=device, network=99),
    "VXLAN in a first fragment": lambda device: wrapped(INNER + bytes(2), device=device, fragment=MF),
    "VXLAN behind IP options": lambda device: eth(
        own_mac(device), NEIGHBOUR, IPV4, ip(THERE, HERE, UDP, udp(40000, VXLAN_PORT), options=b"\x94\4\0\0")),
    "VXLAN to all by its MAC": lambda device: b"\xff" * 6 + wrapped(INNER, device=device)[6:],
    "VXLAN over IPv6": lambda device: says(THERE6, UDP, udp(40000, VXLAN_PORT), device),
    "VXLAN over IPv6 behind options": lambda device: says(
        THERE6, 60, bytes((UDP, 0)) + bytes(6) + udp(40000, VXLAN_PORT), device),
    "VXLAN over IPv6 in a fragment": lambda device: says(
        THERE6, 44, ipv6_fragment(UDP, 0, True, 1, udp(40000, VXLAN_PORT, bytes(8))), device),
    "VXLAN over IPv6 behind more than is read": lambda device: says(
        THERE6, 60, (bytes((60, 0)) + bytes(6)) * 9 + bytes((UDP, 0)) + bytes(6) + udp(40000, VXLAN_PORT), device),
    "hosts' own talk": lambda device: says(THERE, UDP, udp(PEER_PORT, PEER_PORT), device),
    "hosts' own talk from another port": lambda device: says(THERE, UDP, udp(40000, PEER_PORT), device),
    "hosts' own talk over IPv6": lambda device: says(THERE6, UDP, udp(PEER_PORT, PEER_PORT), device),
}  # fmt: skip


@pytest.mark.parametrize("what", TALK)
def test_a_host_is_heard_by_its_own_link_alone(d: World, what: str) -> None:
    there = come(d, TALK[what]("uplink"), "uplink")
    assert (there.verdict, there.drops) == (REDIRECT if what == "plain VXLAN" else UNSPEC, {})
    done = come(d, TALK[what](ELSEWHERE), ELSEWHERE)
    assert (done.verdict, done.drops) == (SHOT, {(None, "SPOOFED_HOST"): 1})


def tagged(sent: bytes, *tags: bytes) -> bytes:
    return sent[:12] + b"".join(tags) + sent[12:]


@pytest.mark.parametrize("tags", [(b"\x81\0\xe0\0",), (b"\x88\xa8\0\0",), (b"\x81\0\0\0",) * 2])
@pytest.mark.parametrize("what", ["plain VXLAN", "VXLAN over IPv6", "hosts' own talk"])
def test_a_priority_tag_changes_nothing_of_that(d: World, what: str, tags: tuple[bytes, ...]) -> None:
    there = come(d, tagged(TALK[what]("uplink"), *tags), "uplink")
    assert (there.verdict, there.drops) == (REDIRECT if what == "plain VXLAN" else UNSPEC, {})
    done = come(d, tagged(TALK[what](ELSEWHERE), *tags), ELSEWHERE)
    assert (done.verdict, done.drops) == (SHOT, {(None, "SPOOFED_HOST"): 1})


def test_more_priority_tags_than_anybody_needs_are_dropped(d: World) -> None:
    done = come(d, tagged(TALK["plain VXLAN"](ELSEWHERE), *(b"\x81\0\0\0",) * 3), ELSEWHERE)
    assert (done.verdict, done.drops) == (SHOT, {(None, "SPOOFED_VLAN"): 1})


OTHERS: dict[str, Callable[[], bytes]] = {
    "a stranger's VXLAN": lambda: wrapped(INNER, src=STRANGER, device=ELSEWHERE),
    "a stranger's talk": lambda: says(STRANGER, UDP, udp(PEER_PORT, PEER_PORT), ELSEWHERE),
    "a stranger's VXLAN over IPv6": lambda: says(STRANGER6, UDP, udp(40000, VXLAN_PORT), ELSEWHERE),
    "a host's name server": lambda: says(THERE, UDP, udp(53, 40000), ELSEWHERE),
    "a host's TCP": lambda: says(THERE, TCP, tcp(VXLAN_PORT, VXLAN_PORT), ELSEWHERE),
    "a later fragment": lambda: wrapped(INNER, device=ELSEWHERE, fragment=8),
    "another's frame": lambda: bytes((2, 1, 1, 1, 1, 1)) + wrapped(INNER, device=ELSEWHERE)[6:],
}


@pytest.mark.parametrize("what", OTHERS)
def test_all_else_is_the_kernels_to_judge(d: World, what: str) -> None:
    done = come(d, OTHERS[what](), ELSEWHERE)
    assert (done.verdict, done.packet, done.drops) == (UNSPEC, OTHERS[what](), {})


def test_a_host_that_is_reached_another_way_is_heard_there(d: World) -> None:
    assert come(d, wrapped(INNER), "uplink").to == B.device
    run(f"route add {THERE} dev {ELSEWHERE}")
    time.sleep(FRESH)
    assert come(d, wrapped(INNER, device=ELSEWHERE), ELSEWHERE).to == B.device
    assert come(d, wrapped(INNER), "uplink").drop == "SPOOFED_HOST"


def test_a_host_that_is_reached_by_two_links_is_heard_by_both(d: World) -> None:
    for policy in ("0", "1"):
        Path("/proc/sys/net/ipv4/fib_multipath_hash_policy").write_text(policy)
        run(f"route replace {THERE} nexthop dev uplink nexthop dev {ELSEWHERE}")
        time.sleep(FRESH)
        for device in ("uplink", ELSEWHERE):
            assert come(d, wrapped(INNER, device=device), device).to == B.device
        assert come(d, wrapped(INNER, device="da"), "da").drop == "SPOOFED_HOST"


LEGS = ("uplink", ELSEWHERE, "da", "db", "dc", "dg", "dt", "du")
OTHER = "trunk"  # a link by which no host is reached


def speaks(d: World, host: str, device: str) -> bool:
    """Return whether a host is heard by a link."""
    if ":" in host:
        done = come(d, says(host, UDP, udp(40000, VXLAN_PORT), device), device)
    else:
        done = come(d, wrapped(INNER, src=host, device=device), device)
    assert done.drops in ({}, {(None, "SPOOFED_HOST"): 1})
    return not done.drops


@pytest.fixture
def legs(d: World) -> Iterator[World]:
    """Be where every link but one may lead to hosts, over IPv4 and IPv6."""
    quiet = [Path(f"/proc/sys/net/ipv6/conf/{leg}/disable_ipv6") for leg in LEGS[2:]]
    for path in quiet:
        path.write_text("0")
    yield d
    for path in quiet:
        path.write_text("1")
    for version in "46":
        subprocess.run(["ip", f"-{version}", "route", "flush", "proto", "77"], check=False, capture_output=True)


def route(host: str, *legs: str) -> None:
    via = "via fe80::99 " if ":" in host else ""  # the kernel takes no others of IPv6
    by = " ".join(f"nexthop {via}dev {leg}" for leg in legs)
    run(f"route replace {host} proto 77 {by}")


@pytest.mark.parametrize("v", [4, 6])
@pytest.mark.parametrize("policy", "01")
def test_a_host_is_heard_by_all_of_many_links_that_lead_to_it(legs: World, policy: str, v: int) -> None:
    hosts = [f"192.0.2.{n}" if v == 4 else f"2001:db8:5::{n}" for n in range(100, 108)]
    Path(f"/proc/sys/net/ipv{v}/fib_multipath_hash_policy").write_text(policy)
    legs.put("hosts", {r.pack_ip(host): r.Host(1) for host in hosts})
    for host in hosts:
        route(host, *LEGS)
    assert [(host, leg) for host in hosts for leg in LEGS if not speaks(legs, host, leg)] == []
    assert [host for host in hosts if speaks(legs, host, OTHER)] == []
    time.sleep(FRESH)  # and again, from what was found
    assert [(host, leg) for host in hosts for leg in LEGS if not speaks(legs, host, leg)] == []


class Budget(NamedTuple):
    seen: int
    nanoseconds: int


def test_all_links_of_a_route_are_looked_for_only_so_often(legs: World) -> None:
    """Who writes the addresses of many hosts costs a bounded time, of the link by which he does."""
    hosts = [f"192.0.2.{n}" for n in range(100, 120)]
    legs.put("hosts", {r.pack_ip(host): r.Host(1) for host in hosts})
    for host in hosts:
        route(host, *LEGS)
    budgets = legs.bpf._table("searches", r.PortKey, Budget)
    used_up = Budget(1 << 62, 0)
    budgets.put({r.PortKey(if_nametoindex(leg)): used_up for leg in (*LEGS, OTHER)})
    unheard = [(host, leg) for host in hosts for leg in LEGS if not speaks(legs, host, leg)]
    assert 0 < len(unheard) < len(hosts) * len(LEGS) // 2, "a few tries find most"
    assert not any(speaks(legs, host, OTHER) for host in hosts)
    assert set(budgets.read().values()) == {used_up}
    budgets.delete([r.PortKey(if_nametoindex(leg)) for leg in LEGS])
    time.sleep(FRESH)
    assert all(speaks(legs, host, leg) for host in hosts for leg in LEGS)


def test_the_agent_knows_all_links_that_lead_to_a_host(d: World) -> None:
    uplink, other = if_nametoindex("uplink"), if_nametoindex(ELSEWHERE)
    with closing(Links()) as links:
        assert links.leading(THERE) == links.leading(THERE6) == {uplink}
        assert links.leading("203.0.113.5") == {other}
        assert links.leading("2001:db8:9::9") == set()
        run(f"route add {THERE} nexthop dev uplink nexthop dev {ELSEWHERE}")
        assert links.leading(THERE) == {uplink, other}
        run(f"route del {THERE}", f"route add unreachable {THERE}")
        assert links.leading(THERE) == set()


def test_a_default_route_is_no_way_to_a_host_that_has_a_better_one(d: World) -> None:
    """The link with the default route reaches everybody, but not this host."""
    assert come(d, wrapped(INNER, device=ELSEWHERE), ELSEWHERE).drop == "SPOOFED_HOST"
    d.put("hosts", {r.pack_ip("203.0.113.5"): r.Host(1)})
    assert come(d, wrapped(INNER, src="203.0.113.5", device=ELSEWHERE), ELSEWHERE).to == B.device


def test_a_link_of_a_bridge_is_judged_as_the_bridge(d: World) -> None:
    run("link add bridge type bridge", "link set bridge up", "link set da master bridge")
    try:
        assert come(d, wrapped(INNER, device="da"), "da").to == B.device
    finally:
        run("link del bridge")
    time.sleep(FRESH)
    assert come(d, wrapped(INNER, device="da"), "da").drop == "SPOOFED_HOST"


def test_a_host_is_itself_by_no_link(d: World) -> None:
    d.put("hosts", {r.pack_ip(HERE): r.Host(1)})
    for device in ("uplink", ELSEWHERE):
        assert come(d, wrapped(INNER, src=HERE, device=device), device).drop == "SPOOFED_HOST"


def test_a_provider_networks_packets_are_judged_the_same(d: World) -> None:
    """A link of bare-metal servers and provider networks is one by which no host is reached."""
    d.put("uplinks", {r.UplinkKey(if_nametoindex(ELSEWHERE)): RED})
    assert come(d, wrapped(INNER, device=ELSEWHERE), ELSEWHERE).drop == "SPOOFED_HOST"


def test_links_of_a_host_whose_kernel_does_not_tell_routes_are_all_alike(d: World) -> None:
    path = Path("/proc/sys/net/ipv4/conf/vxlan/forwarding")
    path.write_text("0")
    try:
        assert come(d, wrapped(INNER, device=ELSEWHERE), ELSEWHERE).to == B.device
    finally:
        path.write_text("1")
