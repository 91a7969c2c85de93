"""All ways in at once, over and over, while agents, server and engine are killed: nothing stays behind.

`CYCLES=10000` says how many (`make cycles`), `SEED` which ones, `SECONDS=900` for how long at most. What a runtime, an
orchestrator or an engine does when an answer is lost is done here as well: it asks again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import socket
import struct
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from typing import Any

import pytest

from crossway.agent.guest.frame import checksum
from crossway.client import AgentClient, Client, Object, path_of
from crossway.errors import Fault, Unavailable
from crossway.lab import Lab, Workload, wire
from crossway.lab.docker import Engine, engine
from crossway.lab.lab import Host
from crossway.lab.server import TRUNK, trunk
from crossway.lab.traffic import inside
from lab.stories import dual, links, open_group, wait_for
from lab.test_cni import Runtime
from lab.test_cycles import host_links, insist, rows
from lab.test_docker import create

CYCLES = int(os.environ.get("CYCLES", "80"))
SEED = int(os.environ.get("SEED", "1"))
SECONDS = float(os.environ.get("SECONDS", "7000"))
# Docker takes ten times as long as the others.
SHARES = {"docker": 0.1, "cni": 0.3, "tap": 0.3, "edge": 0.2, "attach": 0.1}
FORGOTTEN_SECONDS = 120.0  # within which what an engine asked for and forgot has gone
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 2, 0x1000


class Scene:
    """What the ways need."""

    def __init__(self, lab: Lab, docker: Engine) -> None:
        self.lab, self.docker = lab, docker
        self.network, self.group = dual(lab, "pods", 1), open_group(lab)
        self.peer = lab.workload(lab.hosts[2], self.network, groups=[self.group])

    def only_networks(self) -> bool:
        """Return whether no port and no address is left."""
        used = [n["used_ips"] for n in self.lab.client.list("network_ip_availabilities")]
        return not self.lab.client.list("ports") and not any(used)


class Way:
    """One worker's way in; each cycle is one port that comes and goes."""

    def __init__(self, scene: Scene, number: int) -> None:
        self.scene, self.number = scene, number
        self.dice = random.Random(SEED * 1000 + number)
        self.client = Client(scene.lab.url)
        self.agents = [AgentClient(host.socket) for host in scene.lab.hosts]
        self.turn = 0

    def close(self) -> None:
        for one in (self.client, *self.agents):
            one.close()

    def cycle(self, way: str) -> None:
        self.turn += 1
        getattr(self, way)(f"{way}{self.number}-{self.turn}")

    def docker(self, name: str) -> None:
        engine, peer = self.scene.docker, self.scene.peer
        words = ("run", "--rm", "--init=false", "--network", "blue", "--name", name, "lab")
        with contextlib.suppress(Unavailable, subprocess.TimeoutExpired):
            engine.docker(*words, "ping", "-c1", "-W1", peer.ip4, check=False)

        def gone() -> bool:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return "No such container" in engine.docker("rm", "-f", name, check=False)
            return False

        assert wait_for(gone, 60, 0.1), engine.docker("rm", "-f", name, check=False)

    def cni(self, name: str) -> None:
        lab = self.scene.lab
        runtime = Runtime(lab, self.dice.randrange(len(lab.hosts)))
        pod = lab.namespace(name)
        try:
            for _ in range(100):
                if runtime.call("ADD", pod, groups="open")[0] == 0:
                    break
                # As runtimes do: what failed is taken away, then asked for again.
                assert wait_for(lambda: runtime.call("DEL", pod)[0] == 0, 30, 0.1)
                time.sleep(0.1)
            else:
                raise AssertionError(f"{name} was never added")
            if self.dice.random() < 0.3:
                pod.exec("ping", "-c1", "-W0.1", self.scene.peer.ip4, check=False)
            if dead := self.dice.random() < 0.3:
                wire.remove_namespace(pod.netns)
            assert wait_for(lambda: runtime.call("DEL", name if dead else pod)[0] == 0, 30, 0.1)
            assert dead or "eth0" not in links(pod)
        finally:
            wire.remove_namespace(pod.netns)

    def _port(self, name: str, **attrs: Any) -> Object:
        """Make a port as an orchestrator does: when an answer is lost, it looks whether the port is there."""

        def made() -> Object:
            found = self.client.list("ports", name=name)
            wish = {"network_id": self.scene.network["id"], "security_groups": [self.scene.group["id"]], **attrs}
            return found[0] if found else self.client.create("port", name=name, **wish)

        port: Object = insist(made)
        return port

    def tap(self, name: str) -> None:
        host, device = self.scene.lab.hosts[self.number % 2], f"tap{self.number}"
        agent, port = self.agents[self.number % 2], self._port(name)
        with taken(host, device) as guest:
            insist(agent.plug, port["id"], tap=device)
            if self.dice.random() < 0.5:
                os.write(guest, ping(port, self.scene.peer))
            if self.dice.random() < 0.5:
                insist(agent.unplug, port["id"])
        # Else its guest was killed.
        if self.dice.random() < 0.3:
            insist(agent.unplug, port["id"])
        insist(self.client.delete, "port", port["id"])

    def edge(self, name: str) -> None:
        hosts = self.dice.sample(["h1", "h2"], 2)
        profile = {"physical_network": "rack", "vlan": 100 * (1 + self.number) + self.turn % 100}
        binding = {"vnic_type": "baremetal", "profile": profile, "host_id": hosts[0]}
        port = self._port(name, **{f"binding:{key}": value for key, value in binding.items()})
        bindings = f"{path_of('port', port['id'])}/bindings"
        if self.dice.random() < 0.5:
            with contextlib.suppress(Fault):  # asked twice, it is there already
                self.client.ask("POST", bindings, {"binding": {"host": hosts[1]}})
            if self.dice.random() < 0.5:
                with contextlib.suppress(Fault):
                    self.client.ask("PUT", f"{bindings}/{hosts[1]}/activate")
        if self.dice.random() < 0.3:
            with contextlib.suppress(Fault):
                self.client.wait("port", port["id"], seconds=20)
        insist(self.client.delete, "port", port["id"])

    def attach(self, name: str) -> None:
        at = self.dice.randrange(2)
        port = self._port(name, device_owner="host:attached", device_id=self.scene.lab.hosts[at].name)
        insist(self.agents[at].attach, port["id"], f"at{self.number}")
        if self.dice.random() < 0.5:
            insist(self.agents[at].unplug, port["id"])
        insist(self.client.delete, "port", port["id"])


@contextlib.contextmanager
def taken(host: Host, device: str) -> Iterator[int]:
    """Make a tap as a hypervisor does: it goes with who holds it."""
    with inside(host.path):
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    try:
        end = time.monotonic() + 5.0
        while True:  # the one of this name before may be just going
            try:
                fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", device.encode(), IFF_TAP | IFF_NO_PI))
                break
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.01)
        host.exec("ip", "link", "set", device, "up")
        yield fd
    finally:
        os.close(fd)


def ping(port: Object, peer: Workload) -> bytes:
    """Return a frame with an echo request from a port."""
    own = next(a["ip_address"] for a in port["fixed_ips"] if "." in a["ip_address"])
    macs = bytes.fromhex((peer.mac + port["mac_address"]).replace(":", ""))
    echo = struct.pack("!BBHHH", 8, 0, 0, 7, 1)
    echo = echo[:2] + struct.pack("!H", checksum(echo)) + echo[4:]
    ends = ip_address(own).packed + ip_address(peer.ip4).packed
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(echo), 1, 0, 64, socket.IPPROTO_ICMP, 0) + ends
    head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    return macs + b"\x08\x00" + head + echo


class Havoc:
    """Kills one part after the other, by chance, and starts it again."""

    def __init__(self, lab: Lab, docker: Engine) -> None:
        self._parts = {"server": lab.server, "engine": docker, **{host.name: host.agent for host in lab.hosts}}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.kills: Counter[str] = Counter()

    def _run(self) -> None:
        dice = random.Random(SEED)
        while not self._ended.wait(dice.uniform(0.3, 3.0)):
            name = dice.choice(list(self._parts))
            self._parts[name].kill()
            self._ended.wait(dice.uniform(0, 0.5))
            self._parts[name].start()
            self.kills[name] += 1

    def __enter__(self) -> Havoc:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def standing(lab: Lab, docker: Engine) -> dict[str, Any]:
    """Return all that there is: links, namespaces, rows, ports, addresses in use, and what agents keep on disk."""
    keeps = ("bodies/*.json", "docker/**/*.json")
    return {
        "links": host_links(lab),
        "namespaces": [*wire.namespaces(lab.name), *sorted(p.name for p in (docker.root / "run/netns").glob("*"))],
        "rows": rows(lab),
        "ports": sorted((p["name"], p["device_owner"], p["device_id"]) for p in lab.client.list("ports")),
        "addresses": {n["network_name"]: n["used_ips"] for n in lab.client.list("network_ip_availabilities")},
        "kept": sorted(str(p) for host in lab.hosts for keep in keeps for p in host.run.glob(keep)),
    }


def remaining(before: Any, now: Any) -> Any:
    """Return what is not as it was, as (before, now)."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = sorted(before.keys() | now.keys())
        return {k: remaining(before.get(k), now.get(k)) for k in keys if before.get(k) != now.get(k)}
    if isinstance(before, list | set) and isinstance(now, list | set):
        return [one for one in before if one not in now], [one for one in now if one not in before]
    return before, now


def words_of(lab: Lab, now: Any, docker: Engine) -> str:
    """Return which ports are left, and what agents and engine had to say of them."""
    ports = lab.client.list("ports")
    marks = {word for path in now["kept"] for word in [path.rpartition("/")[2].removesuffix(".json")]}
    marks |= {mark for port in ports for mark in (port["id"], port["device_id"][:12]) if mark}
    said = [json.dumps(port) for port in ports]
    for log in (*(host.agent.log for host in lab.hosts), docker.log):
        lines = log.read_text(errors="replace").splitlines()
        said += [f"{log.parent.name}: {line}" for line in lines if any(mark in line for mark in marks)][-40:]
        said += [f"{log.parent.name}: at last: {line}" for line in lines[-10:]]
    return "\n".join(said)


@pytest.mark.timeout(7200)
def test_nothing_remains_of_all_that_came_by_four_ways() -> None:
    with Lab.up(hosts=3) as lab:
        for host in lab.hosts[:2]:
            trunk(lab, host)
            host.physnets["rack"] = TRUNK
            host.agent.restart()
        lab.joined()
        with engine(lab.hosts[0]) as docker:
            docker.docker("run", "--rm", "--init=false", "--network", "none", "lab", "true")
            before = standing(lab, docker)
            scene = Scene(lab, docker)
            create(docker, "blue", "--ipam-driver", "null", "-o", "network=pods", "-o", "groups=open")
            ways = [way for way, share in SHARES.items() for _ in range(round(share * CYCLES))]
            random.Random(SEED).shuffle(ways)
            # One worker has Docker's cycles to itself; three share the rest.
            plans = [[way for way in ways if way == "docker"], *([] for _ in range(3))]
            for number, way in enumerate(way for way in ways if way != "docker"):
                plans[1 + number % 3].append(way)

            cycles: Counter[str] = Counter()
            began = time.monotonic()

            def work(number: int) -> None:
                mine = Way(scene, number)
                try:
                    for way in plans[number]:
                        if time.monotonic() - began > SECONDS:
                            break
                        mine.cycle(way)
                        cycles[way] += 1
                finally:
                    mine.close()

            with Havoc(lab, docker) as havoc, ThreadPoolExecutor(len(plans)) as pool:
                done = [pool.submit(work, number) for number in range(len(plans))]
                for one in done:
                    one.result()
            took = time.monotonic() - began
            lab.joined()
            docker.docker("network", "rm", "blue")
            scene.peer.delete()
            left = wait_for(lambda: scene.only_networks(), FORGOTTEN_SECONDS, 1.0)
            assert left, words_of(lab, standing(lab, docker), docker)
            for subnet in lab.client.list("subnets"):
                lab.client.delete("subnet", subnet["id"])  # in use, if an address were
            lab.client.delete("network", scene.network["id"])
            lab.client.delete("security_group", scene.group["id"])
            wait_for(lambda: standing(lab, docker) == before, 30, 1.0)
            print(json.dumps({"cycles": cycles, "kills": havoc.kills, "seconds": round(took)}))
            now = standing(lab, docker)
            assert remaining(before, now) == {}, words_of(lab, now, docker)
