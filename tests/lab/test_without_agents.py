"""With all agents killed, what was never used before works as well: every stage of the data plane is there."""

from __future__ import annotations

import socket

from crossway.lab import Lab
from crossway.lab.traffic import open_in
from lab.stories import dual, open_group, pings


def test_neighbours_routes_errors_and_broadcasts_need_no_agent() -> None:
    with Lab.up(hosts=2) as lab:
        near, far = dual(lab, "near", 1), dual(lab, "far", 2)
        router = lab.client.create("router", name="r")
        for network in (near, far):
            for subnet in lab.client.list("subnets", network_id=network["id"]):
                lab.client.add_interface(router["id"], subnet=subnet["id"])
        group = open_group(lab)
        one = lab.workload(lab.hosts[0], near, groups=[group])
        two = lab.workload(lab.hosts[1], near, groups=[group])
        three = lab.workload(lab.hosts[1], far, groups=[group])
        for host in lab.hosts:
            host.agent.kill()
        lab.server.kill()
        for ip in (two.ip4, two.ip6, three.ip4, three.ip6):
            assert pings(one, ip), ip
        assert "Time to live exceeded" in one.exec("ping", "-c1", "-W2", "-t1", three.ip4, check=False).stdout
        with (
            open_in(one.path, socket.AF_INET, socket.SOCK_DGRAM) as crier,
            open_in(two.path, socket.AF_INET, socket.SOCK_DGRAM) as ear,
        ):
            crier.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            ear.bind(("", 7000))
            ear.settimeout(5)
            crier.sendto(b"hello", ("10.1.0.255", 7000))
            assert ear.recv(64) == b"hello"
