"""An address comes back under another MAC: who spoke with it before goes on, at once."""

from __future__ import annotations

import time

from crossway.lab import Lab
from lab.stories import dual, open_group, pings, wait_for


def test_neighbours_are_told_of_another_mac() -> None:
    with Lab.up(hosts=2) as lab:
        group, network = open_group(lab), dual(lab, "net")
        near, far = (lab.workload(host, network, groups=[group]) for host in lab.hosts)
        fixed = [{"ip_address": ip} for ip in ("10.0.0.77", "fd00::77")]
        macs = set()
        for turn in range(4):
            came = lab.workload(lab.hosts[turn % 2], network, groups=[group], fixed_ips=fixed)
            macs.add(came.mac)
            for peer in (near, far):
                for ip in (came.ip4, came.ip6):
                    assert pings(peer, ip), (turn, peer, ip, peer.exec("ip", "neigh").stdout)
                assert came.mac in peer.exec("ip", "-4", "neigh", "show", came.ip4).stdout
            came.delete()
        assert len(macs) == 4


def test_who_has_spoken_with_a_gateway_goes_on_within_a_second_when_another_has_it() -> None:
    """Two networks without a router: their ports have asked their gateways; then routers come, change and go."""
    with Lab.up(hosts=2) as lab:
        ask, group = lab.client, open_group(lab)
        nets = [dual(lab, name, prefix) for prefix, name in enumerate(("left", "right"), 1)]
        one, two = (lab.workload(host, net, groups=[group]) for host, net in zip(lab.hosts, nets, strict=True))
        gateways = [("10.1.0.1", "fd00:1::1"), ("10.2.0.1", "fd00:2::1")]
        subnets = ask.list("subnets")

        def speak() -> None:
            """Have all remember whom they believe to be their gateway."""
            for place, ips in zip((one, two), gateways, strict=True):
                for ip in ips:
                    place.exec("ping", "-c1", "-W1", ip, check=False)
                    assert f"{ip} dev" in place.exec("ip", "neigh", "show", "to", ip).stdout

        def reached(what: str) -> None:
            began = time.monotonic()
            for src, dst in ((one, two), (two, one)):
                for ip in (dst.ip4, dst.ip6):
                    assert wait_for(lambda src=src, ip=ip: pings(src, ip, "-W", "0.2"), 1), (
                        what, ip, time.monotonic() - began, src.exec("ip", "neigh").stdout
                    )  # fmt: skip

        def join(router: str) -> None:
            for subnet in subnets:
                ask.add_interface(router, subnet=subnet["id"])

        def leave(router: str) -> None:
            for subnet in subnets:
                ask.remove_interface(router, subnet=subnet["id"])

        speak()
        first = ask.create("router", name="first")
        join(first["id"])
        reached("a router joins")
        leave(first["id"])
        join(first["id"])
        reached("its interfaces are removed and added")
        leave(first["id"])
        speak()
        second = ask.create("router", name="second")
        join(second["id"])
        reached("another router")
        ask.update("router", second["id"], admin_state_up=False)
        speak()
        ask.update("router", second["id"], admin_state_up=True)
        reached("the router is turned on again")
        leave(second["id"])
        speak()
        # A port takes the gateway's address, and gives it back.
        fixed = [{"ip_address": ip} for ip in gateways[0]]
        gateway = lab.workload(lab.hosts[1], nets[0], groups=[group], fixed_ips=fixed)
        for ip in gateways[0]:
            assert wait_for(lambda ip=ip: pings(one, ip, "-W", "0.2"), 1), one.exec("ip", "neigh").stdout
        gateway.delete()
        join(first["id"])
        reached("a port had the gateway's address")
