"""Pods as a kubelet begins and ends them: by the calls of containerd's CRI, which calls CNI."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from crossway.lab import Lab
from lab.cri import Cri, Refused
from lab.stories import links, pings, pod_hosts, wait_for


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with pod_hosts() as lab:
        yield lab


@pytest.fixture(scope="module")
def hosts(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Cri]]:
    begun: list[Cri] = []
    try:
        for host in lab.hosts:
            begun.append(Cri(host, tmp_path_factory.mktemp("cri")))
        for cri in begun:
            cri.configure(network="pods", groups=["open"])
        yield begun
    finally:
        for cri in begun:
            cri.end()


def nothing_left(lab: Lab, hosts: list[Cri]) -> None:
    assert lab.client.list("port", device_owner="container:cni") == []
    for cri in hosts:
        assert cri.sandboxes() == []
        assert not {name for name in links(cri.host) if re.fullmatch("c[wv][0-9a-f]{11}", name)}
        assert not list((cri.root / "state" / "io.containerd.grpc.v1.cri" / "netns").glob("*"))


def test_pods_of_two_hosts_reach_each_other_and_leave_nothing(lab: Lab, hosts: list[Cri]) -> None:
    one, two = (cri.run(f"web-{n}", "shop") for n, cri in enumerate(hosts))
    here, ips = hosts[0].place(one)
    there, others = hosts[1].place(two)
    (port,) = lab.client.list("port", device_id=one)
    assert (port["name"], port["status"]) == ("shop/web-0", "ACTIVE")
    assert sorted(ips) == sorted(a["ip_address"] for a in port["fixed_ips"])
    assert all(pings(here, ip) for ip in others)
    assert all(pings(there, ip) for ip in ips)
    # A kubelet stops what it has stopped, and removes what it has not.
    hosts[0].stop(one)
    assert lab.client.list("port", device_id=one) == []
    hosts[0].stop(one)
    hosts[0].remove(one)
    hosts[1].stop(two)
    hosts[1].remove(two)
    hosts[1].remove(two)
    nothing_left(lab, hosts)


def test_many_pods_at_once(lab: Lab, hosts: list[Cri]) -> None:
    with ThreadPoolExecutor(6) as threads:
        ids = list(threads.map(lambda n: hosts[0].run(f"many-{n}"), range(6)))
        places = [hosts[0].place(id) for id in ids]
        assert len({ip for _, ips in places for ip in ips}) == 12
        first = places[0][0]
        assert all(pings(first, ip) for _, ips in places[1:] for ip in ips)
        list(threads.map(hosts[0].stop, ids))
        list(threads.map(hosts[0].remove, ids))
    nothing_left(lab, hosts)


def test_a_pod_that_gets_no_network_is_none(lab: Lab, hosts: list[Cri]) -> None:
    hosts[1].configure(network="nowhere")
    try:
        with pytest.raises(Refused, match="network nowhere could not be found"):
            hosts[1].run("none")
        nothing_left(lab, hosts)
    finally:
        hosts[1].configure(network="pods", groups=["open"])


def test_pods_end_after_their_agent_was_away(lab: Lab, hosts: list[Cri]) -> None:
    cri = hosts[0]
    id = cri.run("stays")
    cri.host.agent.kill()
    # A kubelet comes again until it is done.
    with pytest.raises(Refused, match="the agent does not answer"):
        cri.stop(id)
    cri.host.agent.start()
    cri.stop(id)
    cri.remove(id)
    nothing_left(lab, hosts)


def test_a_port_of_a_pod_is_published_and_its_bandwidth_limited(lab: Lab, hosts: list[Cri]) -> None:
    id = hosts[0].run("shop", annotations={"kubernetes.io/egress-bandwidth": "10M"}, tcp80=8080)
    (port,) = lab.client.list("port", device_id=id)
    body = json.loads((lab.hosts[0].run / "bodies" / f"{port['id']}.json").read_text())
    assert (body["limits"]["out_rate"], body["limits"]["in_rate"]) == (10_000_000, 0)
    place, _ = hosts[0].place(id)
    server = place.popen("busybox", "nc", "-ll", "-p", "80", "-e", "echo", "hello", stdout=subprocess.DEVNULL)
    try:
        at = lab.hosts[0].underlay
        ask = ["busybox", "nc", "-w2", at, "8080"]
        assert wait_for(lambda: "hello" in lab.hosts[1].exec(*ask, check=False).stdout)
    finally:
        server.kill()
        server.wait()
    hosts[0].stop(id)
    hosts[0].remove(id)
    nothing_left(lab, hosts)
