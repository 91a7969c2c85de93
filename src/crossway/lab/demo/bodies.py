"""Give the demo's workloads their bodies: by `docker run`, in QEMU, behind a switch. Each has a shell to be spoken to.

All have busybox, so that the same words do in each of them.
"""

from __future__ import annotations

import itertools
import os
import re
import select
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from crossway.client import Client, Object, path_of
from crossway.errors import Unavailable
from crossway.lab.demo.policy import PING, RULES, SERVICES, TIERS, Member
from crossway.lab.docker import IMAGE, Engine
from crossway.lab.guest import Machine, tap
from crossway.lab.lab import Host, Lab
from crossway.lab.server import Server, trunk

# Bytes of the file that servers hand out for measuring; sparse, so it costs no disk.
LARGE = 256 << 20
NUMBERS = 300  # lines that /cgi-bin/count gives, one each 10 ms
_COUNT = f"#!/bin/sh\\necho; i=0; while [ $i -lt {NUMBERS} ]; do echo $((i += 1)); usleep 10000; done"
RACK, VLAN = "rack", 31  # where the bare-metal server is plugged in
_marks = itertools.count(1)


def serving(member: Member, at: str) -> str:
    """Return a shell script that serves a member's name on all ports of the policy.

    Where nobody answers, it is the policy's doing.
    """
    files = (
        f"mkdir -p {at}/cgi-bin; echo {member.full} >{at}/name; busybox truncate -s {LARGE} {at}/large; "
        f"printf '{_COUNT}\\n' >{at}/cgi-bin/count; chmod +x {at}/cgi-bin/count"
    )
    servers = "; ".join(f"busybox httpd -p '[::]:{service.port}' -h {at}" for service in SERVICES if service.port)
    return f"{files}; {servers}"


class Body:
    """A workload's body: its port, and the host where that is."""

    def __init__(self, lab: Lab, member: Member, host: Host, port: str) -> None:
        self.lab, self.member, self.host, self.port = lab, member, host, port
        self._turn = threading.Lock()

    def run(self, command: str, seconds: float) -> tuple[int, str]:
        """Run a command; return its exit code and what it said."""
        with self._turn:
            return self._run(command, seconds)

    def _run(self, command: str, seconds: float) -> tuple[int, str]:
        raise NotImplementedError

    def drops(self) -> list[Object]:
        """Return what was stopped from and to this workload on its host."""
        return self.host.agent_client.drops(self.port)

    def active(self) -> None:
        """Wait until the port can be reached from everywhere it should be."""
        self.lab.client.wait("port", self.port, seconds=30)

    def settled(self) -> None:
        """Wait until it has its addresses."""

    def close(self) -> None:
        """Let go of the shell; the body stays."""


class Shelled(Body):
    """A body with a shell that a process here speaks to."""

    def __init__(self, lab: Lab, member: Member, host: Host, port: str, command: list[str]) -> None:
        super().__init__(lab, member, host, port)
        self._shell = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
        )
        self._rest = b""

    def _run(self, command: str, seconds: float) -> tuple[int, str]:
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        mark = f"end{next(_marks)}"
        self._shell.stdin.write(f"{{ {command}\n}} 2>&1 </dev/null; code=$?; echo; echo {mark} $code\n".encode())
        pattern = re.compile(rb"(?s)(.*?)\n" + mark.encode() + rb" (\d+)\n")
        end = time.monotonic() + seconds
        while not (found := pattern.search(self._rest)):
            if not select.select([self._shell.stdout], [], [], max(0.0, end - time.monotonic()))[0]:
                raise Unavailable(f"{self.member.full} did not end {command!r} in {seconds:g} s")
            heard = os.read(self._shell.stdout.fileno(), 65536)
            if not heard:
                raise Unavailable(f"the shell of {self.member.full} has ended")
            self._rest += heard
        self._rest = self._rest[found.end() :]
        return int(found[2]), found[1].decode(errors="replace")

    def close(self) -> None:
        self._shell.kill()
        self._shell.wait()
        for pipe in (self._shell.stdin, self._shell.stdout):
            if pipe is not None:
                pipe.close()


class Guest(Body):
    """A QEMU guest."""

    def __init__(self, lab: Lab, member: Member, port: str, image: Path) -> None:
        host = lab.hosts[member.host]
        super().__init__(lab, member, host, port)
        self._image = image
        device = tap(host, "tap0")
        host.agent_client.plug(port, tap=device)
        self.machine = Machine(host, image, lab.state.run, member.mac, device)

    def settled(self) -> None:
        """Wait for its addresses, by DHCP and of its own making from what the router tells; then it serves."""
        self.machine.booted()
        end = time.monotonic() + 30
        while (
            self.member.ips[1] not in (told := self._run("ip -6 address show dev eth0", 10)[1]) or "tentative" in told
        ):
            if time.monotonic() > end:
                raise Unavailable(f"{self.member.full} has no IPv6 address: {told}")
            time.sleep(0.1)
        self._run(serving(self.member, "/srv"), 10)

    def _run(self, command: str, seconds: float) -> tuple[int, str]:
        said = self.machine.run(f"{{ {command}\n}}; code=$?; echo; echo $code", seconds=seconds, check=False)
        text, _, code = said.rstrip("\n").rpartition("\n")
        return int(code), text

    def move(self, to: Host) -> float:
        """Move it live to another host, as a compute service does; return for how many ms QEMU let it stand still."""
        bindings = f"{path_of('port', self.port)}/bindings"
        self.lab.client.ask("POST", bindings, {"binding": {"host": to.name}})
        device = tap(to, "tap0")
        to.agent_client.plug(self.port, tap=device)
        where = f"{to.underlay}:4000"
        there = Machine(to, self._image, self.lab.state.run, self.member.mac, device, incoming=where)
        with self._turn:
            # Nobody else says when it is there: what the guest sends from its new host tells.
            downtime = self.machine.migrate(where)
            left, self.machine, self.host = self.machine, there, to
        left.stop()
        end = time.monotonic() + 10
        while self.lab.client.show("port", self.port)["binding:host_id"] != to.name:
            if time.monotonic() > end:
                raise Unavailable(f"the port of {self.member.full} did not follow it to {to.name}")
            time.sleep(0.02)
        self.active()
        left.host.exec("ip", "link", "delete", left.tap)
        self.lab.client.ask("DELETE", f"{bindings}/{left.host.name}")
        return downtime


class Metal(Shelled):
    """A bare-metal server behind a switch: its port says where it is plugged in, and a host trunked there serves it."""

    def __init__(self, lab: Lab, member: Member, port: str) -> None:
        host = lab.hosts[member.host]
        self.server = Server(lab, member.name, member.mac, VLAN, [host])
        link = {"port_id": "7", "switch_id": "02:00:00:00:00:fe", "physical_network": RACK, "vlan": VLAN}
        binding = {"vnic_type": "baremetal", "profile": {"local_link_information": [link]}, "host_id": host.name}
        lab.client.update("port", port, **{f"binding:{name}": value for name, value in binding.items()})
        super().__init__(lab, member, host, port, self.server.command("sh"))

    def settled(self) -> None:
        """Wait for its addresses, by DHCP and of its own making from what the router tells; then it serves."""
        self.server.boot(*self.member.ips)
        self._run(serving(self.member, str(self.lab.state.run / self.member.full)), 10)


def edge(lab: Lab, host: Host) -> None:
    """Make a host one that serves bare metal: what leads to the servers' switch is its physical network."""
    host.physnets[RACK] = trunk(lab, host)
    host.agent.restart()


class Cloud:
    """A tenant's groups, networks and router, and its Docker engines."""

    def __init__(self, lab: Lab, name: str) -> None:
        self.lab, self.name = lab, name
        self.engines: dict[int, Engine] = {}
        with Client(lab.url, project=name, roles="member") as client:
            self.groups = {tier: client.create("security_group", name=tier)["id"] for tier in TIERS}
            for rule in RULES:
                for version in (4, 6):
                    wanted: dict[str, Any] = {"protocol": rule.service.proto}
                    if rule.service is PING and version == 6:
                        wanted["protocol"] = "ipv6-icmp"
                    if rule.service.port:
                        wanted |= {"port_range_min": rule.service.port, "port_range_max": rule.service.port}
                    if rule.source:
                        wanted["remote_group_id"] = self.groups[rule.source]
                    client.create("security_group_rule", security_group_id=self.groups[rule.group],
                                  direction="ingress", ethertype=f"IPv{version}", **wanted)  # fmt: skip
            router = client.create("router", name=name)
            self.networks: dict[str, str] = {}
            for tier, cidrs in TIERS.items():
                self.networks[tier] = client.create("network", name=tier)["id"]
                for cidr in cidrs:
                    version = 6 if ":" in cidr else 4
                    modes = {"ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac"} if version == 6 else {}
                    made = client.create("subnet", name=f"{tier}-{version}", network_id=self.networks[tier], cidr=cidr,
                                         ip_version=version, **modes)  # fmt: skip
                    client.add_interface(router["id"], subnet=made["id"])

    def engine(self, host: int) -> Engine:
        """Give a host an engine of this tenant, which knows the tenant's networks."""
        made = self.engines[host] = Engine(self.lab.hosts[host], project=self.name)
        made.start()
        made.load()
        for tier in TIERS:
            made.docker(
                *("network", "create", "-d", "crossway", "--ipam-driver", "null"),
                *("-o", f"network={tier}", "-o", f"groups={tier}", tier),
            )
        return made

    def port(self, member: Member) -> str:
        """Make the port of a member that no engine makes one for."""
        with Client(self.lab.url, project=self.name, roles="member") as client:
            made = client.create(
                "port", name=member.name, network_id=self.networks[member.tier], mac_address=member.mac,
                fixed_ips=[{"ip_address": member.ips[0]}], security_groups=[self.groups[member.tier]],
            )  # fmt: skip
        return str(made["id"])

    def container(self, member: Member) -> Body:
        """Run a member as a container, on its host's engine."""
        engine = self.engines[member.host]
        engine.docker(
            *("run", "-d", "--name", member.name, "--hostname", member.name, "--mac-address", member.mac),
            *("--network", f"name={member.tier},driver-opt=ips={member.ips[0]}", IMAGE),
            *("sh", "-c", f"{serving(member, '/srv')}; exec sleep 1000000"),
        )
        (port,) = self.lab.client.list("port", network_id=self.networks[member.tier], mac_address=member.mac)
        shell = engine.command("exec", "-i", member.name, "sh")
        return Shelled(self.lab, member, self.lab.hosts[member.host], port["id"], shell)

    def other(self, member: Member, image: Path) -> Body:
        """Give a member a body that no engine makes: a guest that boots *image*, or a server."""
        port = self.port(member)
        return Guest(self.lab, member, port, image) if member.kind == "guest" else Metal(self.lab, member, port)
