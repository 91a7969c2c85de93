"""Ports of containers published at their host's addresses, by a real engine: `docker run -p`."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from crossway.errors import Unavailable
from crossway.lab import Lab
from crossway.lab.docker import Engine, engine
from crossway.lab.lab import Host
from crossway.lab.place import Place
from lab.stories import dual, wait_for

HOST6, CLIENT6 = "2001:db8::11", "2001:db8::1"
FAR4, FAR6 = "203.0.113.9", "2001:db8:9::9"  # behind a router: the client's other address

# Tells who calls, then gives back what it is sent. Over UDP likewise, a datagram at a time.
SERVER = """
import socket, sys, threading
def tcp(c, a):
    c.sendall(a[0].encode() + b'\\n')
    while d := c.recv(65536):
        c.sendall(d)
    c.close()
def serve(family, kind, port):
    s = socket.socket(family, kind)
    if family == socket.AF_INET6:
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(('', port))
    if kind == socket.SOCK_DGRAM:
        threading.Thread(target=answer, args=(s,)).start()
        return
    s.listen()
    threading.Thread(target=accept, args=(s,)).start()
def answer(s):
    while True:
        d, a = s.recvfrom(65536)
        s.sendto(a[0].encode() + b'\\n' + d, a)
def accept(s):
    while True:
        threading.Thread(target=tcp, args=s.accept()).start()
for port in map(int, sys.argv[1:]):
    for family in (socket.AF_INET, socket.AF_INET6):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            serve(family, kind, port)
print('ready', flush=True)
"""

# Calls, says who it is said to be, and whether so many bytes came back as they were sent.
CLIENT = """
import os, socket, sys
proto, host, port, size, source = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
kind = socket.SOCK_STREAM if proto == 'tcp' else socket.SOCK_DGRAM
s = socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET, kind)
s.settimeout(5)
if source:
    s.bind((source, 0))
s.connect((host, port))
sent = os.urandom(size)
if kind == socket.SOCK_DGRAM:
    s.send(sent)
    who, _, got = s.recv(65536).partition(b'\\n')
else:
    import threading
    threading.Thread(target=lambda: (s.sendall(sent), s.shutdown(socket.SHUT_WR))).start()
    got = b''
    while d := s.recv(65536):
        got += d
    who, _, got = got.partition(b'\\n')
print(who.decode(), got == sent)
"""

# Asks again and again over one connection; says how many answers were right when it is told to end.
CALLS = """
import signal, socket, sys, time
ended = []
signal.signal(signal.SIGTERM, lambda *_: ended.append(1))
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=5)
f = s.makefile('rb')
f.readline()
print('ready', flush=True)
n = 0
while not ended:
    s.sendall(b'%d\\n' % n)
    assert f.readline() == b'%d\\n' % n
    n += 1
    time.sleep(0.005)
print(n)
"""


def python(place: Place, program: str, *words: object, **options: Any) -> subprocess.Popen[str]:
    return place.popen(sys.executable, "-c", program, *map(str, words), **options)


@contextlib.contextmanager
def serving(place: Place, *ports: int) -> Iterator[None]:
    """Have a container answer on ports."""
    process = python(place, SERVER, *ports)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def call(place: Place, host: str, port: int, proto: str = "tcp", size: int = 10, source: str = "") -> str:
    """Return who a caller is said to be, after all that it sent has come back; "" if nobody answers."""
    done = place.exec(sys.executable, "-c", CLIENT, proto, host, str(port), str(size), source, check=False)
    if done.returncode:
        return ""
    who, _, right = done.stdout.strip().rpartition(" ")
    assert right == "True"
    return str(who)


def refused(place: Place, host: str, port: int, proto: str = "tcp") -> bool:
    """Return whether a caller is told that nobody listens."""
    done = place.exec(sys.executable, "-c", CLIENT, proto, host, str(port), "10", "", check=False)
    return "ConnectionRefusedError" in done.stderr


def crossway(lab: Lab, *words: str) -> str:
    """Run a command for the lab; return what it said."""
    command = [sys.executable, "-m", "crossway", *words, "--lab", lab.name]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def published(host: Host) -> list[dict[str, Any]]:
    return [one for port in host.agent_client.status()["ports"] for one in port["published"]]


def rows(host: Host) -> int:
    return int(host.agent_client.status()["tables"]["published"]["rows"])


def translations(host: Host) -> int:
    return int(host.agent_client.status()["tables"]["translations"]["rows"] or 0)


def loopback(host: Host) -> str:
    return host.exec("sysctl", "-n", "net.ipv4.conf.lo.accept_local", "net.ipv4.conf.lo.route_localnet").stdout


@pytest.fixture(scope="module")
def story() -> Iterator[tuple[Lab, Engine]]:
    """Give a lab with an engine on h1; who calls from outside is `control`, which has no agent."""
    with Lab.up(hosts=2) as lab:
        h1 = lab.hosts[0]
        h1.script([f"address add {HOST6}/64 dev under0 nodad"])
        lab.control.script([f"address add {CLIENT6}/64 dev under0 nodad"])
        for far, by in ((FAR4, "198.18.0.1"), (FAR6, CLIENT6)):
            lab.control.script([f"address add {far} dev lo"])
            h1.script([f"route add {far} via {by}"])
        dual(lab, "blue", 1)
        with engine(h1) as docker:
            # Nothing may come in but what is published: the default group.
            docker.docker("network", "create", "-d", "crossway", "--ipam-driver", "null", "-o", "network=blue", "blue")
            yield lab, docker


@pytest.fixture(autouse=True)
def clean(story: tuple[Lab, Engine]) -> Iterator[None]:
    """Have each story leave nothing."""
    lab, docker = story
    yield
    docker.clear()
    host = lab.hosts[0]
    assert wait_for(lambda: not published(host) and not rows(host), 10)
    assert wait_for(lambda: not translations(host), 12)
    assert "clsact" not in host.exec("tc", "qdisc", "show", "dev", "lo").stdout
    assert loopback(host) == "0\n0\n"
    assert not list((host.run / "published").glob("*"))


def test_a_published_port_is_reached_from_everywhere_and_the_client_stays_who_it_is(story: tuple[Lab, Engine]) -> None:
    lab, docker = story
    host, outside = lab.hosts[0], lab.control
    docker.run("blue", "web", "-p", "8080:80", "-p", "8080:80/udp", "-p", "9000-9002:9000-9002", "-p", "8443:80")
    with serving(docker.place("web"), 80, 9000, 9001, 9002):
        for proto in ("tcp", "udp"):
            assert call(outside, host.underlay, 8080, proto) == "198.18.0.1"
            assert call(outside, HOST6, 8080, proto) == CLIENT6
            assert call(outside, host.underlay, 8080, proto, source=FAR4) == FAR4
            assert call(outside, HOST6, 8080, proto, source=FAR6) == FAR6
            # The host itself: by its addresses as who it is, by its loopback as the container's gateway.
            assert call(host, host.underlay, 8080, proto) == host.underlay
            assert call(host, HOST6, 8080, proto) == HOST6
            assert call(host, "127.0.0.1", 8080, proto) == "10.1.0.1"
            assert call(host, "::1", 8080, proto) == "fd00:1::1"
        for port in (9000, 9001, 9002, 8443):
            assert call(outside, host.underlay, port) == "198.18.0.1"
        # Large ones, in fragments where need be, and much at once.
        for place, at4, at6 in ((outside, host.underlay, HOST6), (host, "127.0.0.1", "::1")):
            for at in (at4, at6):
                assert call(place, at, 8080, size=3_000_000)
        for at in (host.underlay, HOST6):
            assert call(outside, at, 8080, "udp", size=4000)
        # What is not published is not reached.
        assert refused(outside, host.underlay, 80)
        assert refused(host, "127.0.0.1", 9003)
    # Nobody listens there any more: the client is told.
    for at in (host.underlay, HOST6):
        assert refused(outside, at, 8080)
        assert refused(outside, at, 8080, "udp")
    for at in ("127.0.0.1", "::1"):
        assert refused(host, at, 8080)
        assert refused(host, at, 8080, "udp")


def test_a_smaller_link_on_the_way_is_told_to_the_container(story: tuple[Lab, Engine]) -> None:
    lab, docker = story
    host = lab.hosts[0]
    beyond = lab.namespace("beyond")
    lab.control.script(
        [
            f"link add thin mtu 1300 type veth peer name thin mtu 1300 netns {beyond.netns}",
            "address add 192.168.77.1/24 dev thin",
            "address add fd77::1/64 dev thin nodad",
            "link set thin up",
        ],
        ("net/ipv4/ip_forward=1", "net/ipv6/conf/all/forwarding=1"),
    )
    beyond.script(
        [
            "address add 192.168.77.2/24 dev thin",
            "address add fd77::2/64 dev thin nodad",
            "link set thin up",
            "route add default via 192.168.77.1",
            "route add ::/0 via fd77::1",
        ]
    )
    host.script(["route add 192.168.77.0/24 via 198.18.0.1", f"route add fd77::/64 via {CLIENT6}"])
    # An error that names this size is all that the container hears of it: the client offers to take more.
    beyond.script([f"route change default via {gateway} advmss 1400" for gateway in ("192.168.77.1",)])
    docker.run("blue", "web", "-p", "8080:80")
    with serving(docker.place("web"), 80):
        for at, who in ((host.underlay, "192.168.77.2"), (HOST6, "fd77::2")):
            assert call(beyond, at, 8080, size=300_000) == who
        learned = docker.place("web").exec("ip", "route", "get", "192.168.77.2").stdout
        assert "mtu 1300" in learned


@pytest.mark.parametrize("at", ["outside", "host"])
def test_an_open_connection_outlives_agent_and_engine(story: tuple[Lab, Engine], at: str) -> None:
    lab, docker = story
    host = lab.hosts[0]
    docker.run("blue", "web", "-p", "8080:80")
    place, to = (lab.control, host.underlay) if at == "outside" else (host, "127.0.0.1")
    with serving(docker.place("web"), 80):
        calls = python(place, CALLS, to, 8080)
        try:
            assert calls.stdout is not None
            assert calls.stdout.readline() == "ready\n"
            host.agent.kill()
            assert call(lab.control, host.underlay, 8080)
            host.agent.start()
            assert wait_for(lambda: published(host), 10)
            host.agent.restart()
            docker.kill()
            assert call(lab.control, host.underlay, 8080)
            docker.start()
            assert call(lab.control, host.underlay, 8080)
            calls.terminate()
            said, _ = calls.communicate(timeout=10)
            assert int(said) > 100
        finally:
            calls.kill()
            calls.communicate()
    # What was published before both were restarted is held, and goes with its container.
    with pytest.raises(Unavailable, match="8080"):
        docker.run("blue", "other", "-p", "8080:80")
    docker.docker("rm", "-f", "web", "other")
    assert wait_for(lambda: not published(host), 10)
    assert refused(lab.control, host.underlay, 8080)


def test_what_is_taken_is_refused_and_named(story: tuple[Lab, Engine]) -> None:
    lab, docker = story
    host = lab.hosts[0]
    docker.run("blue", "one", "-p", "8080:80")
    assert wait_for(lambda: lab.client.list("ports", name="one"), 5)
    before = rows(host)
    for address in ("", "127.0.0.1:", f"{host.underlay}:", "[::1]:"):
        with pytest.raises(Unavailable, match=r"8080/tcp of this host is published already, by one \(port [0-9a-f-]+"):
            docker.run("blue", "two", "-p", "8090:80", "-p", f"{address}8080:80")
        docker.docker("rm", "-f", "two")
        assert wait_for(lambda: rows(host) == before, 5), "nothing is half done"
    with serving(host, 8081):
        with pytest.raises(Unavailable, match=r"port 8081/tcp of this host is in use by process \d+ \(python"):
            docker.run("blue", "two", "-p", "8081:80")
        docker.docker("rm", "-f", "two")
    with pytest.raises(Unavailable, match=r"192\.0\.2\.77 is no address of this host"):
        docker.run("blue", "two", "-p", "192.0.2.77:8081:80")
    docker.docker("rm", "-f", "two")
    with pytest.raises(Unavailable, match="SCTP cannot be published"):
        docker.run("blue", "two", "-p", "8081:80/sctp")
    docker.docker("rm", "-f", "two")
    # Once the process has gone, its number may be had.
    docker.run("blue", "two", "-p", "8081:80")
    # The host cannot take what is published.
    done = host.exec("busybox", "timeout", "2", "busybox", "nc", "-l", "-p", "8081", check=False)
    assert "in use" in done.stderr
    with serving(docker.place("one"), 80):
        assert call(lab.control, host.underlay, 8080)


def test_any_port_and_one_of_a_range(story: tuple[Lab, Engine]) -> None:
    lab, docker = story
    host = lab.hosts[0]
    docker.run("blue", "one", "-p", "80", "-p", "20000-20001:81")
    docker.run("blue", "two", "-p", "20000-20001:81")
    with pytest.raises(Unavailable, match=r"no port from 20000 to 20001 is free: .*20001"):
        docker.run("blue", "three", "-p", "20000-20001:81")
    docker.run("blue", "all", "--expose", "80", "--expose", "81/udp", "-P")
    told = published(host)
    assert sorted(p["at"] for p in told if p["port"] == 81 and p["proto"] == "tcp") == [20000, 20001]
    every = [p["at"] for p in told]
    assert len(set(every)) == len(every) == 5
    with serving(docker.place("one"), 80):
        at = next(p["at"] for p in told if p["port"] == 80)
        assert at > 1023
        assert any(call(lab.control, host.underlay, p["at"]) for p in told if p["port"] == 80)


def test_an_address_of_the_host_may_be_named_and_may_come_and_go(story: tuple[Lab, Engine]) -> None:
    lab, docker = story
    host = lab.hosts[0]
    docker.run("blue", "web", "-p", "127.0.0.1:8080:80", "-p", "0.0.0.0:8081:80", "-p", "[::]:8082:80", "-p", "8083:80")
    with serving(docker.place("web"), 80):
        assert call(host, "127.0.0.1", 8080) == "10.1.0.1"
        assert refused(lab.control, host.underlay, 8080)
        assert call(lab.control, host.underlay, 8081)
        assert refused(lab.control, HOST6, 8081)
        assert call(lab.control, HOST6, 8082)
        assert refused(lab.control, host.underlay, 8082)
        before = rows(host)
        host.script(["address add 198.18.0.200/16 dev under0"])
        try:
            assert wait_for(lambda: rows(host) == before + 2, 5)
            assert call(lab.control, "198.18.0.200", 8081) == "198.18.0.1"
        finally:
            host.script(["address delete 198.18.0.200/16 dev under0"])
        assert wait_for(lambda: rows(host) == before, 5)


def test_stopped_started_and_restarted_by_its_policy(story: tuple[Lab, Engine]) -> None:
    lab, docker = story
    host = lab.hosts[0]
    docker.run("blue", "web", "-p", "8080:80", "--restart", "always")
    docker.docker("stop", "-t0", "web")
    assert wait_for(lambda: not published(host), 5)
    docker.docker("start", "web")
    with serving(docker.place("web"), 80):
        assert call(lab.control, host.underlay, 8080)
    pid = docker.docker("inspect", "--format", "{{.State.Pid}}", "web")
    subprocess.run(docker.inside("kill", "-9", pid), check=True)
    assert wait_for(lambda: docker.docker("inspect", "--format", "{{.RestartCount}}", "web") == "1", 10)
    time.sleep(0.5)
    with serving(docker.place("web"), 80):
        assert wait_for(lambda: call(lab.control, host.underlay, 8080), 10)


def test_a_killed_engine_whose_container_ends_leaves_nothing(story: tuple[Lab, Engine]) -> None:
    lab, docker = story
    host = lab.hosts[0]
    docker.run("blue", "web", "-p", "8080:80")
    pid = docker.docker("inspect", "--format", "{{.State.Pid}}", "web")
    docker.kill()
    subprocess.run(docker.inside("kill", "-9", pid), check=True)
    # Its namespace is the engine's to remove.
    docker.start()
    assert wait_for(lambda: not published(host) and not rows(host), 15)
    docker.run("blue", "other", "-p", "8080:80")


@pytest.mark.parametrize(("other", "prefix"), [("green", 2), ("aqua", 3)])
def test_what_is_published_is_of_the_network_that_is_the_way_out(
    story: tuple[Lab, Engine], other: str, prefix: int
) -> None:
    lab, docker = story
    host = lab.hosts[0]
    dual(lab, other, prefix)
    docker.docker("network", "create", "-d", "crossway", "--ipam-driver", "null", "-o", f"network={other}", other)
    docker.run("blue", "web", "-p", "8080:80")
    docker.docker("network", "connect", other, "web")
    with serving(docker.place("web"), 80):
        # Docker's way out is the network whose name sorts first.
        (port,) = [p for p in host.agent_client.status()["ports"] if p["published"]]
        assert port["network"] == lab.client.find("network", min("blue", other))["id"]
        assert call(lab.control, host.underlay, 8080) == "198.18.0.1"
        assert call(host, "::1", 8080)
        docker.docker("network", "disconnect", other, "web")
        assert call(lab.control, host.underlay, 8080) == "198.18.0.1"
    docker.docker("network", "rm", other)


def test_what_is_published_is_shown(story: tuple[Lab, Engine]) -> None:
    lab, docker = story
    docker.run("blue", "web", "-p", "8080:80")
    assert published(lab.hosts[0]) == [{"proto": "tcp", "address": "", "at": 8080, "port": 80}]


def test_a_port_of_any_body_is_published(story: tuple[Lab, Engine]) -> None:
    lab, _ = story
    host = lab.hosts[0]
    bare = lab.workload(host, lab.client.find("network", "blue"))
    try:
        told = crossway(lab, "port", "publish", bare.id, "8080:80", f"{host.underlay}:8100-8101:80/udp", "--json")
        assert [(p["proto"], p["address"], p["at"], p["port"]) for p in json.loads(told)] == [
            ("tcp", "", 8080, 80),
            ("udp", host.underlay, 8100, 80),
        ]
        with serving(bare, 80):
            assert call(lab.control, host.underlay, 8080) == "198.18.0.1"
            assert call(lab.control, host.underlay, 8100, "udp") == "198.18.0.1"
        with pytest.raises(subprocess.CalledProcessError):
            crossway(lab, "port", "publish", bare.id, "80")
        crossway(lab, "port", "publish", bare.id)
        assert published(host) == []
    finally:
        bare.delete()


def test_filters_of_others_stay(story: tuple[Lab, Engine]) -> None:
    lab, docker = story
    host = lab.hosts[0]
    host.exec("tc", "qdisc", "add", "dev", "lo", "clsact")
    host.exec("tc", "filter", "add", "dev", "lo", "egress", "prio", "7", "bpf", "bytecode", "1,6 0 0 4294967295")
    try:
        docker.run("blue", "web", "-p", "8080:80")
        docker.docker("rm", "-f", "web")
        assert wait_for(lambda: not rows(host), 5)
        assert "from_uplink" not in host.exec("tc", "filter", "show", "dev", "lo", "ingress").stdout
        assert "bytecode" in host.exec("tc", "filter", "show", "dev", "lo", "egress").stdout
    finally:
        host.exec("tc", "qdisc", "delete", "dev", "lo", "clsact")
