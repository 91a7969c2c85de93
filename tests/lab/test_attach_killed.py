"""Ways in under `kill -9`: whatever dies while containers come and go, nothing stays behind."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from crossway.lab import Lab
from crossway.lab.docker import engine
from lab.stories import dual, links, open_group, pings, wait_for
from lab.test_cni import Runtime, ports
from lab.test_docker import address, attached, create, left
from lab.test_docker import pings as container_pings


def bodies(lab: Lab) -> set[str]:
    """Return the links of ports that the host has."""
    return {name for name in links(lab.hosts[0]) if name.startswith("cw") and name != "cw-overlay"}


@pytest.mark.parametrize("victim", ["agent", "server"])
def test_pods_that_come_and_go_while_it_is_killed(victim: str) -> None:
    with Lab.up(hosts=1) as lab, ThreadPoolExecutor(4) as threads:
        open_group(lab)
        dual(lab, "pods", 1)
        runtime = Runtime(lab)
        pods = [lab.namespace(f"k{n}") for n in range(24)]
        part = lab.hosts[0].agent if victim == "agent" else lab.server
        added = [threads.submit(runtime.call, "ADD", pod, groups="open") for pod in pods]
        for _ in range(3):
            time.sleep(random.uniform(0.02, 0.1))
            part.kill()
            part.start()
        for pod, future in zip(pods, added, strict=True):
            status, told = future.result()
            if status:
                assert told["code"] == 11, told  # try again later
                # As runtimes do: what failed is taken away, then asked for again.
                assert wait_for(lambda pod=pod: runtime.call("DEL", pod)[0] == 0, 10)
                assert wait_for(lambda pod=pod: runtime.call("ADD", pod, groups="open")[0] == 0, 10)
        assert len(ports(lab)) == len(pods)
        assert len(bodies(lab)) == len(pods)
        ip = next(i["ip_address"] for i in ports(lab)[-1]["fixed_ips"] if "." in i["ip_address"])
        assert all(pings(pod, ip) for pod in pods)
        gone = [threads.submit(runtime.call, "DEL", pod) for pod in pods]
        time.sleep(0.05)
        part.kill()
        part.start()
        for pod, future in zip(pods, gone, strict=True):
            if future.result()[0]:
                assert wait_for(lambda pod=pod: runtime.call("DEL", pod)[0] == 0, 10)
        assert ports(lab) == []
        assert bodies(lab) == set()


def test_containers_of_docker_that_come_and_go_while_agent_and_engine_are_killed() -> None:
    with Lab.up(hosts=1) as lab, engine(lab.hosts[0]) as docker, ThreadPoolExecutor(3) as threads:
        open_group(lab)
        dual(lab, "blue", 1)
        create(docker, "blue", "--ipam-driver", "null", "-o", "network=blue", "-o", "groups=open")
        docker.run("blue", "stays")
        ip = address(docker, "stays", "blue")
        options = ("run", "-d", "--init=false", "--network", "blue")
        started = [
            threads.submit(docker.docker, *options, "--name", f"c{n}", "lab", "sleep", "600", check=False)
            for n in range(8)
        ]
        for _ in range(2):
            time.sleep(random.uniform(0.1, 0.4))
            lab.hosts[0].agent.kill()
            lab.hosts[0].agent.start()
        docker.kill()
        docker.start()
        for future in started:
            future.result()
        docker.run("blue", "late")
        # An engine that was killed has forgotten the names of what it finds alive.
        assert wait_for(lambda: container_pings(docker, "late", ip), 10)
        docker.clear()
        docker.docker("network", "rm", "blue")
        # What a killed engine asked for and forgot goes after a minute.
        assert wait_for(lambda: attached(lab) == [], 90), attached(lab)
        assert left(lab) == set()
        assert bodies(lab) == set()


@pytest.mark.parametrize("joined", [True, False], ids=["joined", "given up"])
def test_an_agent_that_is_killed_before_an_endpoint_is_joined_goes_on_with_its_body(joined: bool) -> None:
    with Lab.up(hosts=1) as lab:
        dual(lab, "blue", 1)
        host = lab.hosts[0]

        def say(method: str, **asked: Any) -> Any:
            """Play the engine."""
            with httpx.Client(transport=httpx.HTTPTransport(uds=f"{host.run}/docker.sock"), timeout=10) as engine:
                told = engine.post(f"http://engine/NetworkDriver.{method}", json={"NetworkID": "n", **asked}).json()
            assert "Err" not in told, told
            return told

        say("CreateNetwork", Options={"com.docker.network.generic": {"network": "blue"}})
        endpoint = {"EndpointID": "e" * 64}
        say("CreateEndpoint", **endpoint, Interface={})
        host.agent.kill()
        host.agent.start()
        (port,) = attached(lab)
        if joined:
            taken = say("Join", **endpoint, SandboxKey="/var/run/docker/netns/e")["InterfaceName"]["SrcName"]
            assert taken in links(host)
            assert wait_for(lambda: lab.client.show("port", port["id"])["status"] == "ACTIVE")
            assert len(bodies(lab)) == 1
            say("Leave", **endpoint)
            assert bodies(lab) == set()
            assert taken not in links(host)
        say("DeleteEndpoint", **endpoint)
        assert attached(lab) == []
        assert bodies(lab) == set()
