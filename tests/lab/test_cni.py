"""What a runtime asks of the CNI plugin, to the letter of the specification, by the executable itself."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import crossway.plugins
from crossway.lab import Lab
from crossway.lab.place import Place
from lab.stories import Object, dual, links, open_group, pings, pod_hosts, wait_for
from lab.test_published import call, refused, serving

PLUGIN = Path(crossway.plugins.__file__).with_name("crossway-cni")


class Runtime:
    """What calls the plugin: on a host, for pods."""

    def __init__(self, lab: Lab, host: int = 0) -> None:
        self.host = lab.hosts[host]
        self.conf: Object = {
            "cniVersion": "1.1.0",
            "name": "pods",
            "type": "crossway-cni",
            "agent": self.host.socket,
            "network": "pods",
        }

    def call(self, command: str, pod: Place | str = "", ifname: str = "eth0", **more: Any) -> tuple[int, Any]:
        """Call the plugin; return its exit status and what it printed."""
        variables = {"CNI_COMMAND": command, "CNI_PATH": "/usr/lib/cni", "CNI_ARGS": more.pop("args_env", "")}
        if pod:
            name = pod if isinstance(pod, str) else pod.name
            variables |= {"CNI_CONTAINERID": name, "CNI_IFNAME": ifname}
            variables |= {"CNI_NETNS": ""} if isinstance(pod, str) else {"CNI_NETNS": str(pod.path)}
        conf = {**self.conf, **more}
        done = subprocess.run(
            [str(PLUGIN)], input=json.dumps(conf), env={**variables, "PATH": os.environ["PATH"]},
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert done.stderr == ""
        return done.returncode, json.loads(done.stdout) if done.stdout else None

    def add(self, pod: Place, ifname: str = "eth0", **more: Any) -> Any:
        status, told = self.call("ADD", pod, ifname, **more)
        assert status == 0, told
        return told


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with pod_hosts() as lab:
        dual(lab, "more", 2)
        yield lab


@pytest.fixture
def runtime(lab: Lab) -> Iterator[Runtime]:
    yield Runtime(lab)
    assert lab.client.list("ports", device_owner="container:cni") == []
    assert not {name for host in lab.hosts for name in links(host) if re.fullmatch("c[wv][0-9a-f]{11}", name)}


def ports(lab: Lab, **filters: Any) -> list[Object]:
    return lab.client.list("ports", device_owner="container:cni", **filters)


@pytest.mark.parametrize("version", ["0.4.0", "1.0.0", "1.1.0"])
def test_add_answers_once_the_pod_can_send_and_del_may_come_twice(lab: Lab, runtime: Runtime, version: str) -> None:
    one, two = lab.namespace(f"one{version[0]}{version[2]}"), lab.namespace(f"two{version[0]}{version[2]}")
    more = {"cniVersion": version, "groups": "open"}
    told = runtime.add(one, **more)
    assert told["cniVersion"] == version
    assert [("sandbox" in i, i["name"] == "eth0") for i in told["interfaces"]] == [(False, False), (True, True)]
    assert {ip["interface"] for ip in told["ips"]} == {1}
    assert {ip["gateway"] for ip in told["ips"]} == {"10.1.0.1", "fd00:1::1"}
    assert [ip.get("version") for ip in told["ips"]] == (["4", "6"] if version == "0.4.0" else [None, None])
    assert {"dst": "0.0.0.0/0", "gw": "10.1.0.1"} in told["routes"]
    assert runtime.add(one, **more) == told  # asked again: the same
    far = Runtime(lab, 1)
    ips = [ip["address"].split("/")[0] for ip in far.add(two, **more)["ips"]]
    for ip in ips:
        assert pings(one, ip)
    assert runtime.call("CHECK", one, prevResult=told, **more) == (0, None)
    one.exec("ip", "addr", "del", told["ips"][0]["address"], "dev", "eth0")
    status, fault = runtime.call("CHECK", one, prevResult=told, **more)
    assert (status, fault["code"]) == (1, 101)
    assert runtime.call("DEL", one, prevResult=told, **more) == (0, None)
    assert "eth0" not in links(one)
    assert runtime.call("DEL", one.name, **more) == (0, None)  # without a namespace
    assert runtime.call("CHECK", one, prevResult=told, **more)[1]["code"] == 101
    assert far.call("DEL", two.name, **more) == (0, None)


BROKEN = {
    "its way out gone": (["ip route del default"], "lacks the route to 0.0.0.0/0 by 10.1.0.1"),
    "another way out": (["ip route replace default via 10.1.0.77"], "lacks the route to 0.0.0.0/0 by 10.1.0.1"),
    "no way out by IPv6": (["ip -6 route del default"], "lacks the route to ::/0 by fd00:1::1"),
    "down": (["sysctl -qw net.ipv6.conf.eth0.keep_addr_on_down=1", "ip link set eth0 down"], "is not up"),
    "by another name": (["ip link set eth0 down", "ip link set eth0 name net7"], "has no interface eth0"),
    "with another's MAC": (["ip link set eth0 address 02:00:00:00:00:99"], "has MAC 02:00:00:00:00:99"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_check_names_what_somebody_has_changed_in_the_pod(lab: Lab, runtime: Runtime, how: str) -> None:
    words, why = BROKEN[how]
    pod = lab.namespace(f"broken{list(BROKEN).index(how)}")
    told = runtime.add(pod)
    # Of what is more than was given, and of routes that others have told of, CHECK says nothing.
    pod.exec("ip", "address", "add", "10.1.0.200/24", "dev", "eth0")
    more = {**told, "routes": [*told["routes"], {"dst": "192.0.2.0/24"}, {"dst": "198.51.100.0/24", "gw": "10.1.0.9"}]}
    assert runtime.call("CHECK", pod, prevResult=more) == (0, None)
    for word in words:
        pod.exec(*word.split())
    status, fault = runtime.call("CHECK", pod, prevResult=told)
    assert (status, fault["code"]) == (1, 101)
    assert why in fault["msg"]
    assert runtime.call("DEL", pod) == (0, None)


def test_a_route_that_never_could_be_is_not_missed(lab: Lab, runtime: Runtime) -> None:
    network = lab.client.create("network", name="far")
    hops = [
        {"destination": "10.99.0.0/16", "nexthop": "10.3.0.77"},
        {"destination": "10.98.0.0/16", "nexthop": "9.9.9.9"},
    ]
    lab.client.create("subnet", network_id=network["id"], ip_version=4, cidr="10.3.0.0/24", host_routes=hops)
    pod = lab.namespace("far")
    told = runtime.add(pod, network="far")
    assert runtime.call("CHECK", pod, network="far", prevResult=told) == (0, None)
    pod.exec("ip", "route", "del", "10.99.0.0/16")
    fault = runtime.call("CHECK", pod, network="far", prevResult=told)[1]
    assert "lacks the route to 10.99.0.0/16 by 10.3.0.77" in fault["msg"]
    assert runtime.call("DEL", pod) == (0, None)


def test_check_is_of_the_namespace_that_it_is_asked_of(lab: Lab, runtime: Runtime) -> None:
    pod, other = lab.namespace("checked"), lab.namespace("unchecked")
    told = runtime.add(pod)
    runtime.add(other)
    for path in (str(other.path), "/run/netns/cw-nowhere-at-all"):
        status, fault = runtime.call("CHECK", Place(pod.name, path), prevResult=told)
        assert (status, fault["code"]) == (1, 101)
        assert f"is in {pod.path}, not in {path}" in fault["msg"]
    for each in (pod, other):
        assert runtime.call("DEL", each) == (0, None)


def test_a_pod_has_several_interfaces_with_what_was_asked_for(lab: Lab, runtime: Runtime) -> None:
    pod = lab.namespace("several")
    runtime.add(pod, args_env="IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0")
    told = runtime.add(
        pod,
        "net1",
        network="more",
        isDefaultGateway=False,
        runtimeConfig={"ips": ["10.2.0.77/24", "fd00:2::77/64"], "mac": "02:00:00:00:00:77"},
        args={"cni": {"groups": ["open"]}},
    )
    assert [ip["address"] for ip in told["ips"]] == ["10.2.0.77/24", "fd00:2::77/64"]
    assert told["interfaces"][1]["mac"] == "02:00:00:00:00:77"
    assert told["routes"] == []
    routes = pod.exec("ip", "route").stdout
    assert "default via 10.1.0.1 dev eth0" in routes
    assert "default via 10.2" not in routes
    first, second = sorted(ports(lab, device_id="several"), key=lambda p: p["fixed_ips"][0]["ip_address"])
    assert (first["name"], second["mac_address"]) == ("shop/web-0", "02:00:00:00:00:77")
    # Taken already: refused, and nothing of it stays.
    status, fault = runtime.call("ADD", lab.namespace("late"), network="more", args_env="IP=10.2.0.77")
    assert (status, fault["code"]) == (1, 7)
    assert ports(lab, device_id="late") == []
    for ifname in ("net1", "eth0"):
        assert runtime.call("DEL", pod, ifname) == (0, None)
        assert ifname not in links(pod)


def defaults(pod: Place, *options: str) -> list[str]:
    told = pod.exec("ip", *options, "route", "show", "default").stdout
    return [" ".join(line.split()[:5]) for line in told.splitlines()]


FIRST4, FIRST6 = "default via 10.1.0.1 dev eth0", "default via fd00:1::1 dev eth0"


def test_a_second_interface_leaves_the_first_its_default_routes(lab: Lab, runtime: Runtime) -> None:
    pod = lab.namespace("second")
    first = runtime.add(pod)
    told = runtime.add(pod, "net1", network="more", name="others")
    assert told["routes"] == []
    assert (defaults(pod), defaults(pod, "-6")) == ([FIRST4], [FIRST6])
    for ifname, result, more in (("eth0", first, {}), ("net1", told, {"network": "more", "name": "others"})):
        assert runtime.call("CHECK", pod, ifname, prevResult=result, **more) == (0, None)
    # Asked again, and when its network changes, it still leaves them.
    assert runtime.add(pod, "net1", network="more", name="others") == told
    (subnet,) = lab.client.list("subnets", name="more-4")
    lab.client.update("subnet", subnet["id"], host_routes=[{"destination": "10.97.0.0/16", "nexthop": "10.2.0.9"}])
    assert wait_for(lambda: "10.97.0.0/16 via 10.2.0.9" in pod.exec("ip", "route").stdout)
    lab.client.update("subnet", subnet["id"], host_routes=[])
    assert (defaults(pod), defaults(pod, "-6")) == ([FIRST4], [FIRST6])
    status, fault = runtime.call(
        "ADD", pod, "net2", network="more", name="third", capabilities={"portMappings": True},
        runtimeConfig={"portMappings": [{"hostPort": 8099, "containerPort": 80, "protocol": "tcp"}]},
    )  # fmt: skip
    assert (status, fault["code"]) == (1, 7)
    assert "another interface has the default route" in fault["msg"]
    assert runtime.call("DEL", pod, "net1", network="more", name="others") == (0, None)
    assert (defaults(pod), defaults(pod, "-6")) == ([FIRST4], [FIRST6])
    assert runtime.call("DEL", pod) == (0, None)


def test_a_second_interface_with_the_default_route_gives_it_back(lab: Lab, runtime: Runtime) -> None:
    pod = lab.namespace("gives")
    first = runtime.add(pod)
    more = {"network": "more", "name": "others", "isDefaultGateway": True}
    told = runtime.add(pod, "net1", **more)
    assert {route["gw"] for route in told["routes"]} == {"10.2.0.1", "fd00:2::1"}
    for ip in ("192.0.2.1", "2001:db8::1"):
        assert " dev net1 " in pod.exec("ip", "route", "get", ip).stdout
    for ifname, result, conf in (("eth0", first, {}), ("net1", told, more)):
        assert runtime.call("CHECK", pod, ifname, prevResult=result, **conf) == (0, None)
    assert runtime.add(pod, "net1", **more) == told
    assert runtime.call("DEL", pod, "net1", **more) == (0, None)
    assert (defaults(pod), defaults(pod, "-6")) == ([FIRST4], [FIRST6])
    assert runtime.call("DEL", pod) == (0, None)


def test_a_second_interface_takes_neither_a_prefix_nor_a_route_of_the_first(lab: Lab, runtime: Runtime) -> None:
    network = lab.client.create("network", name="greedy")
    hops = [{"destination": to, "nexthop": "10.4.0.9"} for to in ("10.1.0.0/24", "10.96.0.0/16")]
    lab.client.create("subnet", network_id=network["id"], ip_version=4, cidr="10.4.0.0/24", host_routes=hops)
    pod = lab.namespace("greedy")
    runtime.add(pod)
    pod.exec("ip", "route", "add", "10.96.0.0/16", "via", "10.1.0.9")
    runtime.add(pod, "net1", network="greedy", name="others")
    routes = pod.exec("ip", "route").stdout
    assert "10.1.0.0/24 dev eth0" in routes
    assert "10.96.0.0/16 via 10.1.0.9 dev eth0" in routes
    assert "10.4.0.9" not in routes
    assert runtime.call("DEL", pod, "net1", network="greedy", name="others") == (0, None)
    assert runtime.call("DEL", pod) == (0, None)


def test_a_gateway_outside_of_the_prefix_is_reached_on_the_link(lab: Lab, runtime: Runtime) -> None:
    network = lab.client.create("network", name="offlink")
    for version, cidr, gateway in ((4, "10.5.0.0/24", "172.31.1.1"), (6, "fd00:5::/64", "fd00:6::1")):
        lab.client.create("subnet", network_id=network["id"], ip_version=version, cidr=cidr, gateway_ip=gateway)
    pod = lab.namespace("offlink")
    told = runtime.add(pod, network="offlink")
    assert {"dst": "172.31.1.1/32"} in told["routes"]
    assert {"dst": "fd00:6::1/128"} in told["routes"]
    assert defaults(pod) == ["default via 172.31.1.1 dev eth0"]
    assert defaults(pod, "-6") == ["default via fd00:6::1 dev eth0"]
    assert runtime.call("CHECK", pod, network="offlink", prevResult=told) == (0, None)
    pod.exec("ip", "route", "del", "172.31.1.1")
    assert "to 172.31.1.1/32 on the link" in runtime.call("CHECK", pod, network="offlink", prevResult=told)[1]["msg"]
    assert runtime.call("DEL", pod, network="offlink") == (0, None)


def test_a_pods_interface_is_no_larger_than_said(lab: Lab, runtime: Runtime) -> None:
    pod = lab.namespace("narrow")
    told = runtime.add(pod, mtu=1300)
    assert "mtu 1300 " in pod.exec("ip", "link", "show", "eth0").stdout
    assert [i["mtu"] for i in told["interfaces"]][1] == 1300
    assert runtime.call("DEL", pod, mtu=1300) == (0, None)
    status, fault = runtime.call("ADD", pod, mtu="large")
    assert (status, fault["code"]) == (1, 7)


def test_no_pod_takes_the_gateways_address(lab: Lab, runtime: Runtime) -> None:
    for ips in (["10.1.0.1/24"], ["fd00:1::1/64"]):
        status, fault = runtime.call("ADD", lab.namespace(f"gateway{len(ips[0])}"), runtimeConfig={"ips": ips})
        assert (status, fault["code"]) == (1, 7)
        assert "is the gateway of subnet" in fault["msg"]
    assert ports(lab) == []


def test_gc_takes_away_what_no_attachment_names(lab: Lab, runtime: Runtime) -> None:
    kept, gone = lab.namespace("kept"), lab.namespace("gone")
    runtime.add(kept)
    runtime.add(gone)
    runtime.add(gone, "net1", name="others")
    valid = [{"containerID": "kept", "ifname": "eth0"}]
    # One that is not of this configuration stays.
    assert runtime.call("GC", **{"cni.dev/valid-attachments": valid}) == (0, None)
    assert sorted(p["device_id"] for p in ports(lab)) == ["gone", "kept"]
    assert runtime.call("GC", **{"cni.dev/valid-attachments": []}) == (0, None)
    assert runtime.call("DEL", gone, "net1", name="others") == (0, None)


def test_gc_of_more_than_a_host_carries(lab: Lab, runtime: Runtime) -> None:
    pod = lab.namespace("many")
    runtime.add(pod)
    others = [{"containerID": f"{n:064}", "ifname": "eth0"} for n in range(12_000)]
    assert runtime.call("GC", **{"cni.dev/valid-attachments": others}) == (0, None)
    assert ports(lab) == []
    status, told = runtime.call("ADD", pod, dns={"search": ["x" * (9 << 20)]})
    assert (status, told["code"]) == (1, 7)
    assert "too large" in told["msg"]


def test_a_namespace_of_kubernetes_has_its_project_and_network(lab: Lab, runtime: Runtime) -> None:
    networks = {}
    for project in ("shop", "bank"):
        networks[project] = dual(lab, "main", 8, project_id=project)
        open_group(lab, project_id=project)
    spaces = {"shop": {"project": "shop"}, "*": {"project": "{namespace}", "groups": ["open"]}}
    more = {"network": "main", "namespaces": spaces, "groups": None}
    pods = {}
    for project in ("shop", "bank"):
        pods[project] = lab.namespace(f"of-{project}")
        # What a pod says of itself does not bring it into another's network.
        said = f"K8S_POD_NAMESPACE={project};K8S_POD_NAME=web;CROSSWAY_PROJECT=bank;CROSSWAY_NETWORK=pods"
        runtime.add(pods[project], args_env=said, **more)
        (port,) = ports(lab, device_id=pods[project].name)
        assert (port["project_id"], port["network_id"]) == (project, networks[project]["id"])
        assert port["name"] == f"{project}/web"
    status, told = runtime.call("ADD", lab.namespace("of-none"), **{**more, "namespaces": {"shop": {}}})
    assert (status, told["code"]) == (1, 7)
    for pod in pods.values():
        assert runtime.call("DEL", pod, **more) == (0, None)


def test_reference_plugins_follow_in_a_chain(lab: Lab, runtime: Runtime) -> None:
    pod, peer = lab.namespace("chained"), lab.namespace("unchained")
    more: Object = {"cniVersion": "1.0.0", "groups": "open"}
    ip = runtime.add(peer, **more)["ips"][0]["address"].split("/")[0]
    told = runtime.add(pod, **more)
    chain: list[Object] = [
        {"type": "tuning", "sysctl": {"net.ipv4.conf.eth0.rp_filter": "2"}, "mtu": 1300},
        {"type": "firewall", "backend": "iptables"},
    ]

    def call(command: str, conf: Object, before: Any) -> Any:
        said = {"CNI_COMMAND": command, "CNI_CONTAINERID": pod.name, "CNI_IFNAME": "eth0", "CNI_PATH": "/usr/lib/cni"}
        done = subprocess.run(
            runtime.host.command(f"/usr/lib/cni/{conf['type']}"), check=False, capture_output=True, text=True,
            env={**said, "CNI_NETNS": str(pod.path), "PATH": os.environ["PATH"]},
            input=json.dumps({"cniVersion": "1.0.0", "name": "pods", **conf, "prevResult": before}),
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout) if done.stdout else None

    result = told
    for conf in chain:
        result = call("ADD", conf, result)
    assert result["ips"] == told["ips"]
    assert "mtu 1300" in pod.exec("ip", "link", "show", "eth0").stdout
    assert pings(pod, ip)
    assert runtime.call("CHECK", pod, prevResult=result, **more) == (0, None)
    for conf in reversed(chain):
        call("DEL", conf, result)
    assert runtime.call("DEL", pod, prevResult=result, **more) == (0, None)
    assert runtime.call("DEL", peer, **more) == (0, None)


def mapped(**mapping: Any) -> Object:
    return {"runtimeConfig": {"portMappings": [mapping]}}


def test_ports_of_pods_are_published(lab: Lab, runtime: Runtime) -> None:
    one, two = lab.namespace("maps"), lab.namespace("maps2")
    host, outside = runtime.host, lab.control
    more = mapped(hostPort=8080, containerPort=80, protocol="tcp")
    more["runtimeConfig"]["portMappings"].append(
        {"hostPort": 8081, "containerPort": 80, "protocol": "UDP", "hostIP": host.underlay}
    )
    told = runtime.add(one, **more)
    assert runtime.add(one, **more) == told
    with serving(one, 80):
        assert call(outside, host.underlay, 8080) == "198.18.0.1"
        assert call(outside, host.underlay, 8081, "udp") == "198.18.0.1"
        assert runtime.call("CHECK", one, prevResult=told, **more) == (0, None)
        other = mapped(hostPort=8082, containerPort=80)
        assert runtime.call("CHECK", one, prevResult=told, **other)[1]["code"] == 101
        status, said = runtime.call("ADD", two, **more)
        assert (status, said["code"]) == (1, 7)
        assert "port 8080/tcp of this host is published already, by maps" in said["msg"]
        assert ports(lab, device_id=two.name) == []
        # What was refused leaves the first one as it was; once it has gone, its numbers may be had.
        assert call(outside, host.underlay, 8080) == "198.18.0.1"
        assert runtime.call("DEL", one, **more) == (0, None)
        assert refused(outside, host.underlay, 8080)
    runtime.add(two, **more)
    # No attachment names it any more.
    assert runtime.call("GC", **{**more, "cni.dev/valid-attachments": []}) == (0, None)
    assert not [p for p in host.agent_client.status()["ports"] if p["published"]]


# Sends as fast as it can for so many seconds; says how many bytes came at the other end.
FLOW = """
import socket, sys, threading, time
kind, there, seconds = getattr(socket, sys.argv[1]), sys.argv[2], float(sys.argv[3])
s = socket.socket(socket.AF_INET, kind)
s.connect((there, 5000))
s.settimeout(seconds)
end = time.monotonic() + seconds
try:
    while time.monotonic() < end:
        s.send(bytes(1200 if kind == socket.SOCK_DGRAM else 65536))
except TimeoutError:
    pass
"""
SINK = """
import socket, sys, time
kind = getattr(socket, sys.argv[1])
s = socket.socket(socket.AF_INET, kind)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(('', 5000))
if kind == socket.SOCK_STREAM:
    s.listen()
print('ready', flush=True)
if kind == socket.SOCK_STREAM:
    s, _ = s.accept()
n = 0
s.settimeout(10)
try:
    while d := s.recv(1 << 20):
        last = time.monotonic()
        first = first if n else last
        n += len(d)
        s.settimeout(2)
except TimeoutError:
    pass
print(n, last - first)
"""


def through(src: Place, dst: Place, ip: str, kind: str, seconds: float) -> tuple[float, float]:
    """Return how many bits got through, and in how many seconds."""
    sink = dst.popen(sys.executable, "-c", SINK, kind)
    try:
        assert sink.stdout is not None
        assert sink.stdout.readline() == "ready\n"
        src.exec(sys.executable, "-c", FLOW, kind, ip, str(seconds))
        said, _ = sink.communicate(timeout=20)
        amount, took = said.split()
        return int(amount) * 8, float(took)
    finally:
        sink.kill()
        sink.communicate()


def test_bandwidth_is_limited_each_way_and_over_a_restart(lab: Lab, runtime: Runtime) -> None:
    slow, fast = lab.namespace("slow"), lab.namespace("fast")
    down, up = 20_000_000, 8_000_000
    limits = {"ingressRate": down, "ingressBurst": down // 10, "egressRate": up, "egressBurst": up // 10}
    more: Object = {"runtimeConfig": {"bandwidth": limits}, "groups": "open"}
    told = runtime.add(slow, **more)
    assert runtime.add(slow, **more) == told
    there = told["ips"][0]["address"].split("/")[0]
    here = runtime.add(fast, groups="open")["ips"][0]["address"].split("/")[0]
    assert runtime.call("CHECK", slow, prevResult=told, **more) == (0, None)
    assert runtime.call("CHECK", slow, prevResult=told, groups="open")[1]["code"] == 101
    try:
        for kind in ("SOCK_DGRAM", "SOCK_STREAM"):
            for rate, src, dst, ip in ((down, fast, slow, there), (up, slow, fast, here)):
                bits, took = through(src, dst, ip, kind, 1.5)
                print(f"{kind} {rate / 1e6:g} Mbit/s: {bits / 1e6:.1f} Mbit in {took:.2f} s")
                # At most the burst of 0.1 s and what the time allows; how much less depends on the machine.
                assert 0.3 * rate < bits < rate * (took + 0.1) * 1.1, kind
        assert {d["reason"] for d in runtime.host.agent_client.drops()} >= {"RATE"}
        runtime.host.agent.restart()
        assert wait_for(lambda: runtime.call("CHECK", slow, prevResult=told, **more) == (0, None), 5)
        bits, took = through(fast, slow, there, "SOCK_DGRAM", 1.0)
        assert bits < down * (took + 0.1) * 1.1
    finally:
        for pod in (slow, fast):
            assert runtime.call("DEL", pod) == (0, None)
    assert runtime.host.agent_client.status()["tables"]["rates"]["rows"] == 0


WRONG = {
    "namespaces that are none": ("ADD", {"namespaces": {"shop": "main"}}, 7),
    "a version that is none": ("ADD", {"cniVersion": "0.1.0"}, 1),
    "a command of a later version": ("GC", {"cniVersion": "1.0.0"}, 1),
    "no network": ("ADD", {"network": None}, 7),
    "a network that is not there": ("ADD", {"network": "nowhere"}, 7),
    "a group that is not there": ("ADD", {"groups": ["nobody"]}, 7),
    "a mapping without a number": ("ADD", mapped(hostPort=0, containerPort=80), 7),
    "a mapping at no address": ("ADD", mapped(hostPort=80, containerPort=80, hostIP="here"), 7),
    "a mapping at an address of a link": ("ADD", mapped(hostPort=80, containerPort=80, hostIP="fe80::1"), 7),
    "a mapping at a group's address": (
        "ADD",
        mapped(hostPort=80, containerPort=80, hostIP="224.0.0.1", protocol="udp"),
        7,
    ),
    "a mapping at another's address": ("ADD", mapped(hostPort=80, containerPort=80, hostIP="192.0.2.77"), 7),
    "a mapping of SCTP": ("ADD", mapped(hostPort=80, containerPort=80, protocol="sctp"), 100),
    "a mapping without a way to answer": (
        "ADD",
        {**mapped(hostPort=80, containerPort=80), "isDefaultGateway": False},
        7,
    ),
    "a rate without a burst": ("ADD", {"runtimeConfig": {"bandwidth": {"ingressRate": 1000}}}, 7),
    "a burst without a rate": ("ADD", {"runtimeConfig": {"bandwidth": {"egressBurst": 1000}}}, 7),
    "a rate that is none": ("ADD", {"runtimeConfig": {"bandwidth": {"egressRate": "1M", "egressBurst": 1}}}, 7),
    "CNI_ARGS that are none": ("ADD", {"args_env": "x"}, 4),
    "an address that is none": ("ADD", {"args_env": "IP=here"}, 7),
    "no such command": ("GIVE", {}, 4),
    "no agent": ("ADD", {"agent": "/nonexistent/agent.sock"}, 11),
    "no agent to ask how it is": ("STATUS", {"agent": "/nonexistent/agent.sock"}, 50),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_is_told_by_its_code(lab: Lab, runtime: Runtime, case: str) -> None:
    command, more, code = WRONG[case]
    pod = lab.namespace(f"wrong{sorted(WRONG).index(case)}")
    status, told = runtime.call(command, pod, **more)
    assert (status, told["code"]) == (1, code), told
    assert told["msg"]
    assert links(pod) == {"lo"}


def test_a_namespace_that_is_not_there_has_code_3(lab: Lab, runtime: Runtime) -> None:
    status, told = runtime.call("ADD", Place("nowhere", "cw-nowhere-at-all"))
    assert (status, told["code"]) == (1, 3)


@pytest.mark.parametrize("path", ["/etc/hostname", "/proc/self/ns/mnt", "/run"])
def test_what_is_no_network_namespace_is_told(lab: Lab, runtime: Runtime, path: str) -> None:
    pod = Place("file", path)
    status, told = runtime.call("ADD", pod)
    assert (status, told["code"]) == (1, 7)
    assert f"{path} is no network namespace" in told["msg"]


def test_a_host_is_no_pod(lab: Lab, runtime: Runtime) -> None:
    before = runtime.host.exec("ip", "route").stdout
    status, told = runtime.call("ADD", Place("host", str(runtime.host.path)))
    assert (status, told["code"]) == (1, 7)
    assert "own network namespace" in told["msg"]
    assert runtime.host.exec("ip", "route").stdout == before
    assert "eth0" not in links(runtime.host)


def test_the_version_is_told_without_an_agent(runtime: Runtime) -> None:
    told = {"cniVersion": "1.1.0", "supportedVersions": ["0.4.0", "1.0.0", "1.1.0"]}
    assert runtime.call("VERSION", agent="/nonexistent") == (0, told)
    assert runtime.call("STATUS") == (0, None)


def test_pods_outlive_a_killed_agent_and_nothing_leaks(lab: Lab, runtime: Runtime) -> None:
    one, two = lab.namespace("lives"), lab.namespace("lives2")
    runtime.add(one, groups="open")
    ip = runtime.add(two, groups="open")["ips"][0]["address"].split("/")[0]
    runtime.host.agent.kill()
    assert runtime.call("DEL", one)[1]["code"] == 11  # try again later
    assert pings(one, ip)
    runtime.host.agent.start()
    assert pings(one, ip)
    assert runtime.call("DEL", one) == (0, None)
    assert runtime.call("DEL", two) == (0, None)
