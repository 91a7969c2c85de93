"""A change of policy reaches connections that are already there."""

from __future__ import annotations

import socket
import time

import pytest

from crossway.lab import Lab, Workload
from crossway.lab.traffic import open_in
from lab.stories import dual, pings, wait_for

PORT = 8080


def connected(src: Workload, dst: Workload, ip: str) -> tuple[socket.socket, socket.socket]:
    """Return both ends of a TCP connection."""
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    listener = open_in(dst.path, family, socket.SOCK_STREAM)
    listener.bind((ip, PORT))
    listener.listen()
    near = open_in(src.path, family, socket.SOCK_STREAM)
    near.settimeout(5)
    listener.settimeout(5)
    near.connect((ip, PORT))
    far, _ = listener.accept()
    far.settimeout(1)
    listener.close()
    return near, far


def talks(near: socket.socket, far: socket.socket) -> bool:
    """Return whether a byte gets across within a second."""
    near.send(b"x")
    try:
        return far.recv(1) == b"x"
    except TimeoutError:
        return False


@pytest.mark.parametrize("hosts", [1, 2], ids=["one host", "two hosts"])
def test_taking_a_rule_away_ends_the_flows_that_it_alone_allowed(hosts: int) -> None:
    with Lab.up(hosts=hosts) as lab:
        client = lab.client
        network = dual(lab, "net")
        group = client.create("security_group", name="web")
        rules = {
            version: client.create(
                "security_group_rule",
                security_group_id=group["id"],
                direction="ingress",
                ethertype=f"IPv{version}",
                protocol="tcp",
                port_range_min=PORT,
                port_range_max=PORT,
            )["id"]
            for version in (4, 6)
        }
        a = lab.workload(lab.hosts[0], network, groups=[group])
        b = lab.workload(lab.hosts[-1], network, groups=[group])
        assert not pings(a, b.ip4)
        ends = {4: connected(a, b, b.ip4), 6: connected(a, b, b.ip6)}
        try:
            assert talks(*ends[4])
            assert talks(*ends[6])
            client.delete("security_group_rule", rules[4])
            gone = time.monotonic()
            near, far = ends[4]
            far.settimeout(0.1)
            quiet = wait_for(lambda: not (near.send(b"y") and _reads(far)), 1.0, 0.01)
            assert quiet, "still talks a second after the rule went"
            assert time.monotonic() - gone <= 1.1
            # Nor does it begin anew from the side that may send what it likes.
            far.send(b"z")
            near.settimeout(0.5)
            assert not _reads(near)
            near.send(b"y")
            assert not _reads(far)
            assert talks(*ends[6]), "a flow that another rule allows was ended too"
            reasons = {drop["reason"] for drop in b.drops()}
            assert "POLICY_IN" in reasons
        finally:
            for pair in ends.values():
                for end in pair:
                    end.close()


def _reads(far: socket.socket) -> bool:
    try:
        return bool(far.recv(1))
    except TimeoutError:
        return False


def test_a_new_member_of_a_remote_group_is_admitted_and_a_former_one_is_not() -> None:
    with Lab.up(hosts=2) as lab:
        client = lab.client
        network = dual(lab, "net")
        clients = client.create("security_group", name="clients")
        servers = client.create("security_group", name="servers")
        for version in (4, 6):
            client.create(
                "security_group_rule",
                security_group_id=servers["id"],
                direction="ingress",
                ethertype=f"IPv{version}",
                remote_group_id=clients["id"],
            )
        other = client.create("security_group", name="other")
        a = lab.workload(lab.hosts[0], network, groups=[other])
        b = lab.workload(lab.hosts[1], network, groups=[servers])
        for ip in (b.ip4, b.ip6):
            assert not pings(a, ip)
        client.update("port", a.id, security_groups=[clients["id"], other["id"]])
        for ip in (b.ip4, b.ip6):
            assert wait_for(lambda ip=ip: pings(a, ip), 5)
        client.update("port", a.id, security_groups=[other["id"]])
        for ip in (b.ip4, b.ip6):
            assert wait_for(lambda ip=ip: not pings(a, ip), 5)
