"""What one tenant's ports ask of the agent costs another's neither an answer nor an address."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from crossway import settings
from crossway.lab import Lab
from crossway.plan.service import SERVICE_IP
from lab.stories import Object, open_group

RESOLVER = "127.0.0.77"
# Answers names that begin with good, with 192.0.2.7, and no others.
ANSWERS = """
import socket
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
out.bind(("127.0.0.77", 53))
print("ready", flush=True)
while True:
    data, whence = out.recvfrom(2000)
    if data[13:17] == b"good":
        end = data.index(0, 12) + 5
        record = bytes.fromhex("c00c0001000100000005") + b"\\0\\4" + bytes((192, 0, 2, 7))
        out.sendto(data[:2] + bytes.fromhex("81800001000100000000") + data[12:end] + record, whence)
"""
# Asks for 40 names that nobody answers, and waits for no answer.
FLOODS = """
import socket, struct, sys
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for n in range(40):
    name = b"slow%d" % n
    asked = struct.pack("!HHHHHH", n, 256, 1, 0, 0, 0) + bytes([len(name)]) + name + b"\\0\\0\\1\\0\\1"
    out.sendto(asked, (sys.argv[1], 53))
"""
# Asks for a name once, and says how it was answered and how many milliseconds later.
ASKS = """
import socket, struct, sys, time
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
out.settimeout(5)
begun = time.monotonic()
out.sendto(struct.pack("!HHHHHH", 7, 256, 1, 0, 0, 0) + b"\\4good\\0\\0\\1\\0\\1", (sys.argv[1], 53))
print(out.recv(2000)[3] & 15, int((time.monotonic() - begun) * 1000))
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab.up(hosts=1) as lab:
        yield lab


def tenant(lab: Lab, project: str, ports: int) -> list[Object]:
    network = lab.client.create("network", name=project, project_id=project)
    lab.client.create(
        "subnet", network_id=network["id"], project_id=project, ip_version=4, cidr="10.0.0.0/24", gateway_ip=None
    )
    group = open_group(lab, project, project_id=project)
    made = [{"network_id": network["id"], "project_id": project, "security_groups": [group["id"]]}] * ports
    return lab.client.create_many("port", made)


def test_a_tenant_that_waits_for_a_slow_resolver_keeps_no_other_waiting(lab: Lab) -> None:
    (host,) = lab.hosts
    host.agent.restart(**{settings.RESOLVERS.variable: RESOLVER})
    resolver = host.popen(sys.executable, "-c", ANSWERS)
    try:
        assert resolver.stdout is not None
        assert resolver.stdout.readline().strip() == "ready"
        places = {}
        for project, count in (("loud", 17), ("quiet", 1)):
            for number, port in enumerate(tenant(lab, project, count)):
                place = places[project, number] = lab.namespace(f"{project}{number}")
                host.agent_client.plug(port["id"], netns=str(place.path))
                place.exec("ip", "route", "add", f"{SERVICE_IP}/32", "dev", "eth0")
        quiet = places.pop(("quiet", 0))
        assert quiet.exec(sys.executable, "-c", ASKS, str(SERVICE_IP)).stdout.split()[0] == "0"
        for turn in range(3):
            floods = [place.popen(sys.executable, "-c", FLOODS, str(SERVICE_IP)) for place in places.values()]
            for flood in floods:
                flood.communicate(timeout=30)
            code, milliseconds = map(int, quiet.exec(sys.executable, "-c", ASKS, str(SERVICE_IP)).stdout.split())
            assert (code, milliseconds < 3000) == (0, True), (turn, code, milliseconds)
        # What was beyond the shares of the loud ones is counted by name.
        dropped = {(one["port"], one["reason"]) for one in host.agent_client.drops()}
        loud = {port["id"] for port in lab.client.list("ports", project_id="loud")}
        assert {port for port, reason in dropped if reason == "PUNT_SHARE"} <= loud
        assert any(reason == "PUNT_SHARE" for _, reason in dropped)
    finally:
        resolver.kill()
        resolver.communicate()
