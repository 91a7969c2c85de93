"""Through one, two and four routers, and round in a loop."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from crossway.lab import Lab, Workload
from lab.stories import dual, open_group, pings

TOLD = "filtered|policy|code:? 5"  # by ping: ICMP 3/13, ICMPv6 1/5
HOPS = 4  # routers in a row: network 0 - router 1 - network 1 - … - router 4 - network 4


class Chain(NamedTuple):
    lab: Lab
    routers: list[str]
    workloads: dict[int, Workload]


@pytest.fixture(scope="module")
def chain() -> Iterator[Chain]:
    """Five networks in a row; on network n the gateway (.1) is the router to its right, .2 the one to its left."""
    with Lab.up(hosts=3) as lab:
        client = lab.client
        group = open_group(lab)
        networks = [dual(lab, f"n{n}", n + 1) for n in range(HOPS + 1)]
        routers = [client.create("router", name=f"r{n + 1}")["id"] for n in range(HOPS)]
        for n, network in enumerate(networks):
            subnets = client.list("subnets", network_id=network["id"])
            if n < HOPS:
                for subnet in subnets:
                    client.add_interface(routers[n], subnet=subnet["id"])
            if n > 0:
                last = 1 if n == HOPS else 2
                ips = [
                    {"subnet_id": s["id"], "ip_address": s["cidr"].split("/")[0].removesuffix("0") + str(last)}
                    for s in subnets
                ]
                port = client.create("port", network_id=network["id"], fixed_ips=ips)
                client.add_interface(routers[n - 1], port=port["id"])
        for n, router in enumerate(routers):
            routes = []
            for to in range(HOPS + 1):
                via = n + 2 if to > n + 1 else n + 1  # number in the address of the network with the next router
                end = 1 if to > n + 1 else 2
                if to not in (n, n + 1):
                    routes.append({"destination": f"10.{to + 1}.0.0/24", "nexthop": f"10.{via}.0.{end}"})
                    routes.append({"destination": f"fd00:{to + 1}::/64", "nexthop": f"fd00:{via}::{end}"})
            client.update("router", router, routes=routes)
        workloads = {
            n: lab.workload(lab.hosts[i], networks[n], name=f"on{n}", groups=[group])
            for i, n in ((0, 0), (1, 1), (2, 2), (1, 4))
        }
        yield Chain(lab, routers, workloads)


@pytest.mark.parametrize("to", [1, 2, 4], ids=["one router", "two routers", "four routers"])
@pytest.mark.parametrize("family", [4, 6])
def test_ping_crosses_routers(chain: Chain, to: int, family: int) -> None:
    src, dst = chain.workloads[0], chain.workloads[to]
    assert pings(src, dst.ip4 if family == 4 else dst.ip6)
    assert pings(dst, src.ip4 if family == 4 else src.ip6)


@pytest.mark.parametrize("to", [1, 2, 4], ids=["one router", "two routers", "four routers"])
@pytest.mark.parametrize("family", [4, 6])
def test_traceroute_shows_each_hop(chain: Chain, to: int, family: int) -> None:
    src, dst = chain.workloads[0], chain.workloads[to]
    ip = dst.ip4 if family == 4 else dst.ip6
    said = src.exec("traceroute", f"-{family}", "-n", "-q1", "-w2", "-m9", ip).stdout
    hops = re.findall(r"^\s*\d+\s+(\S+)", said, re.M)
    first = "10.1.0.1" if family == 4 else "fd00:1::1"
    between = [f"10.{n}.0.1" if family == 4 else f"fd00:{n}::1" for n in range(2, to + 1)]
    assert hops == [first, *between, ip], said


@pytest.mark.parametrize("family", [4, 6])
def test_gateway_answers_ping(chain: Chain, family: int) -> None:
    assert pings(chain.workloads[0], "10.1.0.1" if family == 4 else "fd00:1::1")


@pytest.mark.parametrize("family", [4, 6])
def test_loop_ends_where_the_packet_comes_back(chain: Chain, family: int) -> None:
    """Two routers that send a prefix to each other: the packet ends, and its sender is told."""
    lost = "10.99.0.0/24" if family == 4 else "fd00:99::/64"
    there, back = ("10.2.0.1", "10.2.0.2") if family == 4 else ("fd00:2::1", "fd00:2::2")
    client = chain.lab.client
    was = {r: client.show("router", r)["routes"] for r in chain.routers[:2]}
    try:
        for router, via in zip(chain.routers[:2], (there, back), strict=True):
            client.update("router", router, routes=[*was[router], {"destination": lost, "nexthop": via}])
        target = "10.99.0.5" if family == 4 else "fd00:99::5"
        said = ""
        for _ in range(20):
            said = chain.workloads[0].exec("ping", "-c1", "-W1", "-t7", target, check=False).stdout
            if re.search(TOLD, said):
                break
        assert re.search(TOLD, said), said
        assert not pings(chain.workloads[0], target)
        # The routers go on for everybody else.
        dst = chain.workloads[2]
        assert pings(chain.workloads[0], dst.ip4 if family == 4 else dst.ip6)
    finally:
        for router, routes in was.items():
            client.update("router", router, routes=routes)
