"""The first story: two workloads on two hosts speak to each other, and afterwards nothing is left."""

from __future__ import annotations

import os
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from crossway.lab import Lab, state
from crossway.lab.place import NETNS
from crossway.lab.traffic import open_in
from lab.stories import dual, open_group, pings


def machine() -> dict[str, set[str]]:
    """Return what a lab could leave on the machine: links, and mounts and namespaces that belong to no other lab."""
    return {
        "links": {name for _, name in socket.if_nameindex()},
        "namespaces": {p.name for p in NETNS.iterdir()} if NETNS.is_dir() else set(),
        "mounts": {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()},
        "cgroups": {str(p) for depth in ("", "*/") for p in Path("/sys/fs/cgroup").glob(f"{depth}cw-*")},
    }


def of(name: str, seen: dict[str, set[str]]) -> set[str]:
    return {one for kind in seen.values() for one in kind if f"cw-{name}-" in one or f"/lab/{name}/" in one}


def talk(server: str, client: socket.socket, listener: socket.socket) -> bytes:
    """Send some bytes over TCP and return what came at the other end."""
    listener.settimeout(5)
    client.settimeout(5)
    listener.bind((server, 8000))
    listener.listen()
    client.connect((server, 8000))
    there, _ = listener.accept()
    with there, ThreadPoolExecutor(1) as pool:
        came = pool.submit(lambda: b"".join(iter(lambda: there.recv(1 << 16), b"")))
        client.sendall(b"crossway" * 100_000)
        client.shutdown(socket.SHUT_WR)
        return came.result(10)


def test_two_workloads_on_two_hosts_speak_and_nothing_is_left() -> None:
    links = machine()["links"]
    with Lab.up(hosts=2) as lab:
        network = dual(lab, "net")
        group = open_group(lab)
        one, two = (lab.workload(host, network, groups=[group]) for host in lab.hosts)
        assert one.port["status"] == two.port["status"] == "ACTIVE"
        for ip in (two.ip4, two.ip6):
            assert pings(one, ip)
            family = socket.AF_INET6 if ":" in ip else socket.AF_INET
            with (
                open_in(one.path, family, socket.SOCK_STREAM) as client,
                open_in(two.path, family, socket.SOCK_STREAM) as listener,
            ):
                assert talk(ip, client, listener) == b"crossway" * 100_000
        pids = [lab.server.pid, *(host.agent.pid for host in lab.hosts)]
        assert of(lab.name, machine())
        assert machine()["links"] == links
    assert of(lab.name, machine()) == set()
    assert machine()["links"] == links
    assert not state.run_of(lab.name).exists()
    assert not [pid for pid in pids if os.path.exists(f"/proc/{pid}")]


def test_labs_stand_beside_each_other_and_end_one_by_one() -> None:
    with Lab.up(hosts=1) as first:
        with Lab.up(hosts=1, underlay=6, mtu=9000) as second:
            assert first.url != second.url
            network = second.client.create("network", name="jumbo")
            assert network["mtu"] > 8000
            assert first.client.list("networks") == []
        assert [host["name"] for host in first.client.hosts()] == ["h1"]


def test_over_an_ipv6_underlay_with_large_packets() -> None:
    with Lab.up(hosts=2, underlay=6, mtu=9000) as lab:
        network = dual(lab, "net")
        group = open_group(lab)
        one, two = (lab.workload(host, network, groups=[group]) for host in lab.hosts)
        largest = network["mtu"]
        assert pings(one, two.ip4, "-Mdo", f"-s{largest - 28}")
        assert not pings(one, two.ip4, "-Mdo", f"-s{largest - 27}")
        assert pings(one, two.ip6, "-Mdo", f"-s{largest - 48}")


def test_a_server_killed_and_started_again_has_everything() -> None:
    with Lab.up(hosts=1) as lab:
        network = dual(lab, "net")
        lab.server.kill()
        lab.server.start()
        assert [n["id"] for n in lab.client.list("networks")] == [network["id"]]
