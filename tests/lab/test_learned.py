"""Addresses of address pairs and of ports without port security are reached over a router, wherever they are."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from crossway.agent.learned import SHARE_SECONDS
from crossway.lab import Lab, Workload
from lab.stories import dual, open_group, pings, wait_for

VIP = ("10.1.0.200", "fd00:1::200")
# What keepalived and its like send when they take an address over: requests and advertisements to all.
ANNOUNCE = """
import socket, struct, sys
from ipaddress import ip_address
from crossway.agent.guest.frame import ICMPV6, Frame, build
mac = bytes.fromhex(sys.argv[1].replace(":", ""))
out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
for text in sys.argv[2:]:
    ip = ip_address(text).packed
    if len(ip) == 4:
        body = struct.pack("!HHHBBH", 0x806, 1, 0x800, 6, 4, 1) + mac + ip + bytes(6) + ip
        frame = b"\\xff" * 6 + mac + body
    else:
        body = struct.pack("!BBHI", 136, 0, 0, 1 << 29) + ip + bytes((2, 1)) + mac
        frame = build(Frame(bytes.fromhex("333300000001"), mac, ip, ip_address("ff02::1").packed, ICMPV6, 0, 0, body))
    out.sendto(frame, ("eth0", 0))
"""


class Scene(NamedTuple):
    lab: Lab
    group: Any
    left: Any
    clients: list[Workload]  # on `left`, one on each host
    right: Any
    router: Any


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with Lab.up(hosts=2) as lab:
        group = open_group(lab)
        left, right = dual(lab, "left", 2), dual(lab, "right", 1)
        router = lab.client.create("router", name="r")
        for subnet in lab.client.list("subnets"):
            lab.client.add_interface(router["id"], subnet=subnet["id"])
        clients = [lab.workload(host, left, groups=[group]) for host in lab.hosts]
        yield Scene(lab, group, left, clients, right, router)


def holder(scene: Scene, host: int, *ips: str, **attrs: Any) -> Workload:
    """Return a port on the right that may have these addresses besides its own."""
    if ips:
        attrs["allowed_address_pairs"] = [{"ip_address": ip} for ip in ips]
    return scene.lab.workload(scene.lab.hosts[host], scene.right, groups=[scene.group] if ips else [], **attrs)


def take(place: Workload, *ips: str, announced: bool = True) -> None:
    """Have addresses, as keepalived has them; say so to all."""
    for ip in ips:
        place.exec(
            "ip", "addr", "add", f"{ip}/{64 if ':' in ip else 24}", "dev", "eth0", *(("nodad",) if ":" in ip else ())
        )
    if announced:
        place.exec(sys.executable, "-c", ANNOUNCE, place.mac, *ips)


def give_up(place: Workload, *ips: str) -> None:
    for ip in ips:
        place.exec("ip", "addr", "del", f"{ip}/{64 if ':' in ip else 24}", "dev", "eth0")


def reached(scene: Scene, *ips: str, seconds: float = 1.0) -> None:
    for client in scene.clients:
        for ip in ips:
            assert wait_for(lambda client=client, ip=ip: pings(client, ip, "-W", "0.3"), seconds), (client, ip)


def test_an_address_fails_over_between_hosts(scene: Scene) -> None:
    """Each holder announces it; within a second all reach it there, over the router and beside it."""
    first, second = holder(scene, 0, *VIP), holder(scene, 1, *VIP)
    beside = scene.lab.workload(scene.lab.hosts[1], scene.right, groups=[scene.group])
    old: Workload | None = None
    for now in (first, second, first):
        if old is not None:
            give_up(old, *VIP)
        take(now, *VIP)
        reached(scene, *VIP)
        assert all(wait_for(lambda ip=ip: pings(beside, ip, "-W", "0.3"), 1) for ip in VIP)
        old = now
    # Agents that start again know it still, and lose nothing on the way.
    for host in scene.lab.hosts:
        host.agent.restart()
    scene.lab.joined()
    reached(scene, *VIP, seconds=0.3)
    first.delete()
    second.delete()
    beside.delete()


VMAC = "00:00:5e:00:01:4d"
# As keepalived's use_vmac: a device of its own with the virtual MAC has the addresses, and alone answers for them.
VRRP = """
echo 1 > /proc/sys/net/ipv4/conf/eth0/arp_ignore
echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter
ip link add vrrp link eth0 address $0 type macvlan mode private
echo 0 > /proc/sys/net/ipv4/conf/vrrp/rp_filter
ip link set vrrp up
"""


def test_addresses_of_one_virtual_mac_fail_over_one_after_the_other(scene: Scene) -> None:
    """All reach each of them where it is, beside it and over the router, also while two ports have the MAC."""
    groups = [("10.1.0.205", "fd00:1::205"), ("10.1.0.206", "fd00:1::206")]
    ips = [ip for group in groups for ip in group]
    pairs = [{"ip_address": ip, **at} for ip in ips for at in ({}, {"mac_address": VMAC})]
    holders = [
        scene.lab.workload(host, scene.right, groups=[scene.group], allowed_address_pairs=pairs)
        for host in scene.lab.hosts
    ]
    beside = [scene.lab.workload(host, scene.right, groups=[scene.group]) for host in scene.lab.hosts]

    def take_over(place: Workload, old: Workload | None, group: tuple[str, str]) -> None:
        for ip in group:
            one = f"{ip}/{128 if ':' in ip else 32}"
            if old is not None:
                old.exec("ip", "addr", "del", one, "dev", "vrrp")
            place.exec("ip", "addr", "add", one, "dev", "vrrp", *(("nodad",) if ":" in ip else ()))
        place.exec(sys.executable, "-c", ANNOUNCE, VMAC, *group)

    def all_reach() -> None:
        reached(scene, *ips, seconds=SHARE_SECONDS + 1)  # in which the last of them is told
        for one in beside:
            for ip in ips:
                assert wait_for(lambda one=one, ip=ip: pings(one, ip, "-W", "0.3"), SHARE_SECONDS), (one, ip)
                assert VMAC in one.exec("ip", "neigh", "show", "to", ip).stdout

    for holder in holders:
        holder.exec("sh", "-c", VRRP, VMAC)
    first, second = holders
    for group in groups:
        take_over(first, None, group)
    all_reach()
    for to, old, order in ((second, first, groups), (first, second, groups), (second, first, groups[::-1])):
        time.sleep(SHARE_SECONDS)  # in which the server is told five times of a port: all of a holder's addresses, once
        for group in order:
            take_over(to, old, group)
            all_reach()
    for place in (*holders, *beside):
        place.delete()


@pytest.mark.parametrize("host", [0, 1])
def test_an_address_that_nobody_announced_is_looked_for(scene: Scene, host: int) -> None:
    one = holder(scene, host, "10.1.0.192/28", "fd00:1::/80")
    take(one, "10.1.0.201", "fd00:1::201", announced=False)
    reached(scene, "10.1.0.201", "fd00:1::201")
    one.delete()


def test_an_address_that_moves_unannounced_is_found_again(scene: Scene) -> None:
    """Its first holder leaves, and what it was seen to have goes with it."""
    first, second = (holder(scene, host, "10.1.0.202", "fd00:1::202") for host in (0, 1))
    take(first, "10.1.0.202", "fd00:1::202")
    reached(scene, "10.1.0.202", "fd00:1::202")
    first.delete()
    take(second, "10.1.0.202", "fd00:1::202", announced=False)
    reached(scene, "10.1.0.202", "fd00:1::202", seconds=4)
    second.delete()


def test_a_second_address_of_a_port_without_port_security(scene: Scene) -> None:
    one = holder(scene, 1, port_security_enabled=False)
    take(one, "10.1.0.203", "fd00:1::203", announced=False)
    reached(scene, "10.1.0.203", "fd00:1::203")
    one.delete()


def test_a_next_hop_that_is_such_an_address(scene: Scene) -> None:
    behind = ("10.9.0.1", "fd00:9::1")
    one = holder(scene, 1, "10.1.0.204", "fd00:1::204", "10.9.0.0/24", "fd00:9::/64")
    take(one, "10.1.0.204", "fd00:1::204", announced=False)
    for ip in behind:
        one.exec("ip", "addr", "add", f"{ip}/{128 if ':' in ip else 32}", "dev", "lo")
    routes = [
        {"destination": "10.9.0.0/24", "nexthop": "10.1.0.204"},
        {"destination": "fd00:9::/64", "nexthop": "fd00:1::204"},
    ]
    scene.lab.client.update("router", scene.router["id"], routes=routes)
    try:
        assert wait_for(lambda: all(pings(scene.clients[0], ip, "-W", "0.3") for ip in behind), 5)
        reached(scene, *behind)
    finally:
        scene.lab.client.update("router", scene.router["id"], routes=[])
    one.delete()


def test_a_port_is_the_gateway_of_a_network_without_a_router(scene: Scene) -> None:
    """One with the gateway's address, which it may have: others go by it, and to the stand-in when it has gone."""
    lab = scene.lab
    lone = dual(lab, "lone", 3)
    others = [lab.workload(host, lone, groups=[scene.group]) for host in lab.hosts]
    gateway = lab.workload(lab.hosts[1], lone, port_security_enabled=False, groups=[])
    for one in others:
        for ip in ("10.3.0.1", "fd00:3::1"):
            pings(one, ip, "-W", "0.1")
            assert "02:c0:55:00:00:01" in one.exec("ip", "neigh", "show", "to", ip).stdout
    for ip in ("10.3.0.1/24", "fd00:3::1/64", "198.51.100.1/32", "2001:db8::1/128"):
        gateway.exec("ip", "addr", "add", ip, "dev", "eth0")
    for one in others:
        for ip in ("10.3.0.1", "fd00:3::1", "198.51.100.1", "2001:db8::1"):
            assert wait_for(lambda one=one, ip=ip: pings(one, ip, "-W", "0.3"), 3), (one, ip)
    gateway.delete()
    for one in others:
        assert wait_for(
            lambda one=one: "02:c0:55:00:00:01" in one.exec("ip", "neigh", "show", "to", "10.3.0.1").stdout, 1
        )


def test_names_are_answered_where_a_port_has_pairs_or_no_security() -> None:
    """169.254.169.254 is asked by the gateway; where no router is, what stands in for one takes it."""
    with Lab.up(hosts=1) as lab:
        group, net = open_group(lab), dual(lab, "net")
        one = lab.workload(lab.hosts[0], net, groups=[group], name="alpha", dns_name="alpha")

        def resolved() -> bool:
            return one.exec("busybox", "nslookup", "alpha", "169.254.169.254", check=False).returncode == 0

        assert wait_for(resolved, 5)
        for attrs in (
            {"groups": [group], "allowed_address_pairs": [{"ip_address": "10.0.0.250"}]},
            {"groups": [group], "allowed_address_pairs": [{"ip_address": "10.0.0.0/24"}]},
            {"groups": [], "port_security_enabled": False},
        ):
            other = lab.workload(lab.hosts[0], net, **attrs)
            one.exec("ip", "neigh", "flush", "dev", "eth0")
            assert wait_for(resolved, 5), attrs
            other.delete()
