"""Each host asks as itself: what its agent and its engine need works, and nothing beyond its own is had."""

from __future__ import annotations

import base64

import httpx

from crossway import settings
from crossway.client import Client
from crossway.lab import Lab
from crossway.lab.docker import engine
from crossway.model.user import user
from crossway.store import users
from lab.stories import dual, open_group, pings, wait_for

PASSWORD = "correct horse"


def who(name: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{PASSWORD}".encode()).decode()}


def test_hosts_with_credentials_of_their_own() -> None:
    with Lab.up(hosts=2) as lab:
        one, two = lab.hosts
        file, hash = lab.state.run / "users", users.hashed(PASSWORD)
        users.add(file, user("root", hash, "red", ("admin",)))
        for host in lab.hosts:
            given = tuple(host.physnets)
            users.add(file, user(f"agent-{host.name}", hash, "red", (), host.name, given, (host.underlay,)))
        lab.client.close()
        lab.client = Client(lab.url, who=who("root"))
        lab.server.restart(**{settings.AUTH.variable: f"basic:{file}"})
        for host in lab.hosts:
            said = {settings.USER.variable: f"agent-{host.name}", settings.PASSWORD.variable: PASSWORD}
            host.agent.restart(**said)
        lab.joined()
        # A workload that is plugged by hand, and one that moves.
        group = open_group(lab)["id"]
        network = dual(lab, "blue", 1)
        near, far = (lab.workload(host, network, groups=[group]).active() for host in lab.hosts)
        assert pings(near, far.ip4)
        assert pings(near, far.ip6)
        # A container of each host's engine.
        with engine(one) as first, engine(two) as second:
            for each in (first, second):
                each.docker("network", "create", "-d", "crossway", "--ipam-driver", "null", "-o", "network=blue",
                            "-o", "groups=open", "blue")  # fmt: skip
            first.run("blue", "aa")
            second.run("blue", "bb")
            ports = {p["binding:host_id"]: p for p in lab.client.list("ports", device_owner="container:docker")}
            assert ports.keys() == {"h1", "h2"}
            ip = next(i["ip_address"] for i in ports["h2"]["fixed_ips"] if "." in i["ip_address"])
            assert wait_for(
                lambda: "1 packets received" in first.docker("exec", "aa", "ping", "-c1", "-W2", ip, check=False)
            )
            for each in (first, second):
                each.clear()
                each.docker("network", "rm", "blue")
        assert wait_for(lambda: lab.client.list("ports", device_owner="container:docker") == [])
        # Who has the first host's credential has nothing of the second's.
        with httpx.Client(base_url=lab.url, headers=who("agent-h1"), transport=httpx.HTTPTransport()) as thief:
            port = f"/v2.0/ports/{far.id}"
            for method, path, body in (
                ("GET", "/v1/hosts/h2/view?after=0", None),
                ("PUT", "/v1/hosts/h2", {"underlay": one.underlay}),
                ("PUT", "/v1/hosts/h1", {"underlay": two.underlay}),
                ("PUT", "/v1/hosts/h1", {"underlay": one.underlay, "physnets": {"rack": "up0"}}),
                ("POST", "/v1/hosts/h2/status", {"applied": 1, "ports": {far.id: "down"}}),
                ("PUT", port, {"port": {"port_security_enabled": False, "security_groups": []}}),
                ("PUT", port, {"port": {"binding:host_id": "h1"}}),
                ("POST", f"{port}/bindings", {"binding": {"host": "h1"}}),
                ("DELETE", port, None),
            ):
                assert thief.request(method, path, json=body).status_code in (403, 404, 409), (method, path)
        assert pings(near, far.ip4)
        # An agent that comes back, with its server's memory gone, finds what it had.
        lab.server.restart()
        one.agent.restart()
        lab.joined()
        assert pings(near, far.ip6)
        far.delete()
