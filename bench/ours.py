"""Crossway itself, as a lab of two hosts: ports in stateful groups of so many rules."""

from __future__ import annotations

import json
from collections.abc import Callable
from http.client import HTTPConnection
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from bench.peers import CHANGED, SUBNET, Path, rule_prefix
from bench.spaces import cable
from crossway.client import Object, path_of
from crossway.lab.lab import Lab

BATCH = 1000  # rules of one request


class Crossway:
    """A lab whose two hosts are joined by one bare veth pair, as those of the peers are."""

    def __init__(self) -> None:
        self.lab = Lab.up(hosts=2, uplinks=0)
        try:
            self._join()
            self.network = self.lab.client.create("network", name="bench")
            self.lab.client.create("subnet", network_id=self.network["id"], cidr=f"{SUBNET}.0/24", ip_version=4)
        except BaseException:
            self.lab.down()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        self.lab.down()

    def _join(self) -> None:
        """Lead the underlay's packets over a veth pair instead of the lab's switch, which no peer has."""
        one, two = self.lab.hosts
        cable(one, "direct0", two, "direct0")
        for own, other in ((one, two), (two, one)):
            own.script([f"route add {other.underlay}/32 dev direct0 src {own.underlay}"])
        for host in self.lab.hosts:
            host.agent.restart()  # finds by which links it reaches the others

    def group(self, rules: int) -> Object:
        """Make a group of so many ingress rules, one of which admits all that is measured."""
        client = self.lab.client
        group = client.create("security_group", name=f"rules {rules}")
        common = {"security_group_id": group["id"], "direction": "ingress", "ethertype": "IPv4"}
        wanted: list[Object] = [{**common, "remote_ip_prefix": f"{SUBNET}.0/24"}]
        for prefix, port in map(rule_prefix, range(rules - 1)):
            wanted.append(
                {
                    **common,
                    "protocol": "tcp",
                    "port_range_min": port,
                    "port_range_max": port,
                    "remote_ip_prefix": prefix,
                }
            )
        for start in range(0, len(wanted), BATCH):
            client.create_many("security_group_rule", wanted[start : start + BATCH])
        return group

    def paths(self, rules: int) -> list[Path]:
        """Return a path on one host and one across hosts, all ends in a group of so many rules."""
        group = self.group(rules)
        one, two = self.lab.hosts
        client, same, cross = (
            self.lab.workload(host, self.network, groups=[group], name=f"{name}{rules}")
            for host, name in ((one, "c"), (one, "s"), (two, "x"))
        )
        change = self._changes(group)
        workers = {"server": [self.lab.server.pid], "agents": [host.agent.pid for host in self.lab.hosts]}
        return [
            Path("Crossway", "same", client, same, same.ip4, rules, change, workers),
            Path("Crossway", "cross", client, cross, cross.ip4, rules, change, workers),
        ]

    def _changes(self, group: Object) -> Callable[[int], float]:
        """Return what adds a rule to the measured ports' group and takes it away again, in turn.

        Over a bare connection: what a client library costs is not the network's.
        """
        made: list[str] = []
        at = urlsplit(self.lab.client.servers[0])
        rule = {
            "security_group_id": group["id"],
            "direction": "ingress",
            "ethertype": "IPv4",
            "protocol": "tcp",
            "port_range_min": 9,
            "port_range_max": 9,
            "remote_ip_prefix": f"{CHANGED}/32",
        }
        asked = json.dumps({"security_group_rule": rule})
        server = HTTPConnection(at.hostname or "", at.port, timeout=10)

        def ask(method: str, path: str, body: str | None = None) -> bytes:
            server.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            answer = server.getresponse()
            said = answer.read()
            if answer.status >= 400:
                raise RuntimeError(f"{method} {path}: {answer.status} {said.decode()}")
            return said

        def change(number: int) -> float:
            if made:
                ask("DELETE", path_of("security_group_rule", made.pop()))
            else:
                made.append(json.loads(ask("POST", path_of("security_group_rule"), asked))["security_group_rule"]["id"])
            return 0.0

        return change
