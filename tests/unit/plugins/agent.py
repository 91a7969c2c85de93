"""An agent that faces of engines and runtimes may ask, and that has neither kernel nor server."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from crossway.client import Object
from crossway.errors import Conflict, Fault, Forbidden, Unavailable

NETWORK = "3f1f3c3e-0000-4000-8000-000000000001"
SUBNET = "3f1f3c3e-0000-4000-8000-000000000002"
MAC = "02:00:00:00:00:02"


class Agent:
    """An agent with one network at its server: it keeps ports, and knows which have a body."""

    host = "h1"
    connected = True

    def __init__(self, network: str = "blue") -> None:
        self._objects: dict[str, list[Object]] = {
            "networks": [{"id": NETWORK, "name": network, "project_id": "red", "shared": False, "mtu": 1450}],
            "subnets": [
                {
                    "id": SUBNET, "network_id": NETWORK, "project_id": "red", "cidr": "10.0.0.0/24",
                    "gateway_ip": "10.0.0.1", "ip_version": "4",
                },
            ],
            "security-groups": [],
        }  # fmt: skip
        self.ports: dict[str, Object] = {}
        self.bodies: set[str] = set()
        self.wishes: list[Mapping[str, Any]] = []  # of ports that were plugged
        self.dying = False  # whether the server dies with the next that it is asked to do
        self.asked: list[str] = []
        self.taken: set[str] = set()  # addresses that others have
        self.fault: Fault | None = None  # of plugs
        self.routes: list[tuple[str, str]] = []  # of ports that are plugged
        self._numbers = itertools.count(10)

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        url = urlsplit(path)
        self.asked.append(f"{method} {url.path}")
        kind, _, id = url.path.removeprefix("/v2.0/").partition("/")
        if method == "POST":
            return {"port": self._made(body["port"])}
        if kind == "networks" and method in ("PUT", "DELETE"):
            raise Forbidden("a host changes no network")
        if method == "PUT":
            self.ports[id].update(body["port"])
            return {"port": self.ports[id]}
        objects = list(self.ports.values()) if kind == "ports" else self._objects[kind]
        if id:
            return {kind[:-1]: next(one for one in objects if one["id"] == id)}
        asked = dict(parse_qsl(url.query))
        return {kind: [one for one in objects if all(one.get(name) == value for name, value in asked.items())]}

    def _made(self, port: Object) -> Object:
        json.dumps(port).encode()  # as a client does
        number = next(self._numbers)
        given = port.get("fixed_ips", [{}])
        if wrong := self.taken & {one.get("ip_address") for one in given}:
            raise Conflict(f"somebody has {wrong}")
        fixed = [{"subnet_id": SUBNET, "ip_address": f"10.0.0.{number}", **one} for one in given]
        made = {"id": f"p{number}", "mac_address": MAC, **port, "fixed_ips": fixed}
        self.ports[made["id"]] = made
        if self.dying:
            raise Unavailable("the server has died before it answered")
        return made

    async def plug(self, wish: Mapping[str, Any]) -> Object:
        if self.fault is not None:
            raise self.fault
        self.bodies.add(wish["port"])
        self.wishes.append(wish)
        return {
            "device": "cw1", "device_mac": "02:00:00:00:00:01", "ifname": wish["ifname"], "mac": MAC,
            "mtu": 1450, "gateways": ["10.0.0.1"], "addresses": ["10.0.0.9/24"], "routes": list(self.routes), "dns": [],
            "resolvers": [], "led_by_others": [],
        }  # fmt: skip

    async def unplug(self, port: str) -> None:
        self.bodies.discard(port)

    async def detach(self, port: str) -> None:
        self.bodies.discard(port)
        if self.dying:
            raise Unavailable("the server has died before it heard")
        self.ports.pop(port, None)

    def body(self, port: str) -> Object | None:
        return {} if port in self.bodies else None

    def published(self, port: str) -> list[Object]:
        return []

    async def publish(self, port: str, mappings: list[Object], who: str) -> None: ...
