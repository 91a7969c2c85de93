"""Whatever is said to the API, it answers what is wrong and goes on."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from crossway.api.resources import TOP
from servers import Api

SEED = 20_260_801
REQUESTS = 800


class Mind:
    """Makes up values, among them some that are nearly right."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.ids: list[str] = ["0d2f8a3e-90cc-4b0b-9e1e-0123456789ab"]

    def value(self, depth: int = 0) -> Any:
        rng = self.rng
        leaf = [
            None,
            True,
            "",
            "default",
            "x" * 300,
            "\x00",
            "\ud83d",
            0,
            -1,
            1 << 70,
            1.5,
            "10.0.0.0/24",
            "10.0.0.7",
            "fd00::/64",
            "fd00::7",
            "::ffff:10.0.0.1",
            "fe80::1%1",
            "10.0.0.0/33",
            "fa:16:3e:00:00:01",
            "tcp",
            "icmp",
            "ingress",
            "IPv6",
            4,
            6,
            80,
            "slaac",
            "flat",
            "vlan",
            "physnet1",
            "network:router_interface",
            *rng.sample(self.ids, min(3, len(self.ids))),
        ]
        kind = rng.random()
        if depth < 3 and kind < 0.12:
            return [self.value(depth + 1) for _ in range(rng.randrange(3))]
        if depth < 3 and kind < 0.3:
            keys = [
                "ip_address",
                "subnet_id",
                "mac_address",
                "start",
                "end",
                "destination",
                "nexthop",
                "network_id",
                "x",
            ]
            return {rng.choice(keys): self.value(depth + 1) for _ in range(rng.randrange(4))}
        if depth == 0 and kind < 0.45:
            return [{"ip_address": self.value(2)}, {"subnet_id": self.value(2)}][: rng.randrange(3)]
        return rng.choice(leaf)

    def body(self, kind: Any, update: bool) -> dict[str, Any]:
        names = [a.wire for a in kind.attributes.values() if (a.put if update else a.post)]
        body = {name: self.value() for name in self.rng.sample(names, self.rng.randrange(min(5, len(names))))}
        if not update:
            for name in ("network_id", "security_group_id"):
                if name in kind.attributes and self.rng.random() < 0.8:
                    body[name] = self.rng.choice(self.ids)
            if kind.name == "subnet":
                version = self.rng.choice([4, 6])
                prefix = (
                    f"10.{self.rng.randrange(256)}.0.0/24" if version == 4 else f"fd{self.rng.randrange(99):02}::/64"
                )
                body = {"ip_version": version, "cidr": prefix, **body}
            if kind.name == "security_group_rule":
                body = {"direction": "ingress", **body}
        return body


@pytest.mark.parametrize("seed", [SEED, SEED + 1])
def test_no_request_is_answered_with_a_fault_of_the_server(api: Api, seed: int) -> None:
    mind = Mind(seed)
    made: list[tuple[str, str]] = []
    statuses = set()
    for _ in range(REQUESTS):
        collection = mind.rng.choice([c for c in TOP.values() if c.create and c.update])
        kind, path = collection.kind, f"/v2.0/{collection.kind.plural}"
        what = mind.rng.random()
        if what < 0.6 or not made:
            answer = api.client.post(path, content=json.dumps({kind.name: mind.body(kind, update=False)}))
            if answer.status_code == 201:
                id = answer.json()[kind.name]["id"]
                mind.ids.append(id)
                made.append((kind.plural, id))
        else:
            plural, id = mind.rng.choice(made)
            kind = TOP[plural].kind
            if what < 0.8:
                body: Any = {kind.name: mind.body(kind, update=True)}
                answer = api.client.put(f"/v2.0/{plural}/{id}", content=json.dumps(body))
            elif what < 0.88:
                action = mind.rng.choice(["add", "remove"])
                body = {mind.rng.choice(["subnet_id", "port_id", "x"]): mind.value()}
                answer = api.client.put(f"/v2.0/routers/{id}/{action}_router_interface", content=json.dumps(body))
            elif what < 0.94:
                name = mind.rng.choice(
                    [*kind.attributes, "limit", "marker", "sort_key", "sort_dir", "fields", "tags-any"]
                )
                answer = api.client.get(f"/v2.0/{plural}", params={name: json.dumps(mind.value()).strip('"')})
            else:
                answer = api.client.delete(f"/v2.0/{plural}/{id}")
        statuses.add(answer.status_code)
        assert answer.status_code < 500, f"{answer.request.method} {answer.request.url} {answer.request.content!r}"
        if answer.status_code >= 400:
            assert answer.json()["NeutronError"]["message"]
    assert {200, 201, 204, 400, 404, 409} <= statuses
    for _ in range(2):
        for plural, id in reversed(made):
            api.client.delete(f"/v2.0/{plural}/{id}")
    assert api("GET", "/v1/status")["revision"] > 0
