"""A guest boots: stock clients ask, and get what their port has, from the agent of their own host."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from crossway.lab import Lab, Workload
from lab.stories import open_group, pings, wait_for

SAY = '#!/bin/sh\nenv > "{out}.$$" && mv "{out}.$$" "{out}.${{reason:-$1}}"\n'


class Scene:
    """One network with all that a subnet can say, and its router, over two hosts."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        ask = lab.client
        self.network = ask.create("network", name="boot", mtu=1400)
        self.four = ask.create(
            "subnet", network_id=self.network["id"], ip_version=4, cidr="10.5.0.0/24",
            dns_nameservers=["9.9.9.9", "149.112.112.112"],
            host_routes=[{"destination": "10.77.0.0/16", "nexthop": "10.5.0.9"}],
        )  # fmt: skip
        self.slaac = self.six("fd05::/64", "slaac")
        self.router = ask.create("router", name="boot")
        for subnet in (self.four, self.slaac):
            ask.add_interface(self.router["id"], subnet=subnet["id"])
        self.group = open_group(lab)

    def six(self, cidr: str, mode: str, **attrs: Any) -> dict[str, Any]:
        made: dict[str, Any] = self.lab.client.create(
            "subnet", network_id=self.network["id"], ip_version=6, cidr=cidr, ipv6_ra_mode=mode,
            ipv6_address_mode=mode, dns_nameservers=["2620:fe::fe"], **attrs,
        )  # fmt: skip
        return made

    def bare(self, host: int = 0, **attrs: Any) -> Workload:
        """Return a workload whose link has forgotten all that the agent set up in it."""
        workload = self.lab.workload(self.lab.hosts[host], self.network, groups=[self.group], **attrs)
        workload.exec("ip", "addr", "flush", "dev", "eth0")
        workload.exec("ip", "link", "set", "eth0", "down", "mtu", "1500")
        workload.exec("ip", "link", "set", "eth0", "up")
        return workload


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with Lab.up(hosts=2) as lab:
        yield Scene(lab)


def udhcpc(workload: Workload, tmp: Path, *options: str) -> dict[str, str]:
    """Run busybox's client once; return what its script is told."""
    script = tmp / "say"
    script.write_text(SAY.format(out=tmp / "said"))
    script.chmod(0o755)
    workload.exec(
        "busybox", "udhcpc", "-f", "-n", "-q", "-t", "3", "-T", "1", "-i", "eth0", "-s", str(script), *options
    )
    return dict(line.split("=", 1) for line in (tmp / "said.bound").read_text().splitlines() if "=" in line)


def dhclient(workload: Workload, tmp: Path, *options: str) -> dict[str, str]:
    """Run ISC's client once; return what its script is told."""
    script = tmp / "say"
    script.write_text(SAY.format(out=tmp / "said"))
    script.chmod(0o755)
    files = ["-sf", str(script), "-lf", str(tmp / "leases"), "-pf", str(tmp / "pid"), "-cf", "/dev/null"]
    try:
        workload.exec("dhclient", "-1", "-v", *options, *files, "eth0")
        name = "said.BOUND6" if "-6" in options else "said.BOUND"
        assert wait_for((tmp / name).exists)
        return dict(line.split("=", 1) for line in (tmp / name).read_text().splitlines() if "=" in line)
    finally:
        if (tmp / "pid").exists():
            workload.exec("kill", "-9", (tmp / "pid").read_text().strip(), check=False)


def test_a_guest_gets_its_ports_address_and_what_its_subnet_says(scene: Scene, tmp_path: Path) -> None:
    guest = scene.bare()
    said = udhcpc(guest, tmp_path)
    assert said["ip"] == guest.ip4
    assert (said["mask"], said["subnet"]) == ("24", "255.255.255.0")
    assert said["router"] == said["serverid"] == "10.5.0.1"
    assert said["dns"] == "9.9.9.9 149.112.112.112"
    assert said["staticroutes"] == "10.77.0.0/16 10.5.0.9 0.0.0.0/0 10.5.0.1"
    assert said["mtu"] == "1400"


def test_each_guest_gets_its_own(scene: Scene, tmp_path: Path) -> None:
    guests = [scene.bare(host) for host in (0, 1, 0)]
    for number, guest in enumerate(guests):
        (tmp_path / str(number)).mkdir()
        assert udhcpc(guest, tmp_path / str(number))["ip"] == guest.ip4


def test_another_client_gets_it_too_and_then_can_talk(scene: Scene, tmp_path: Path) -> None:
    guest, other = scene.bare(), scene.lab.workload(scene.lab.hosts[1], scene.network, groups=[scene.group])
    said = dhclient(guest, tmp_path, "-4")
    assert said["new_ip_address"] == guest.ip4
    guest.exec("ip", "addr", "add", f"{said['new_ip_address']}/24", "dev", "eth0")
    assert pings(guest, other.ip4)


def test_a_guest_makes_its_address_of_the_routers_advertisement(scene: Scene) -> None:
    guest, other = scene.bare(), scene.lab.workload(scene.lab.hosts[1], scene.network, groups=[scene.group])

    def addresses() -> list[str]:
        said = json.loads(guest.exec("ip", "-j", "-6", "addr", "show", "dev", "eth0", "scope", "global").stdout)
        return [a["local"] for one in said for a in one.get("addr_info", []) if a and not a.get("tentative")]

    for name, value in (("accept_ra", "2"), ("autoconf", "1"), ("disable_ipv6", "0"), ("addr_gen_mode", "0")):
        guest.exec("busybox", "sh", "-c", f"echo {value} > /proc/sys/net/ipv6/conf/eth0/{name}")
    guest.exec("ip", "link", "set", "eth0", "down")
    guest.exec("ip", "link", "set", "eth0", "up")
    assert wait_for(lambda: guest.ip6 in addresses(), 15)
    routes = json.loads(guest.exec("ip", "-j", "-6", "route", "show", "default").stdout)
    assert routes[0]["protocol"] == "ra"
    assert wait_for(lambda: pings(guest, other.ip6))


def test_the_default_route_of_ipv6_follows_its_router() -> None:
    """A guest has one by a router with an IPv6 address on its network, and by no other; within a second."""
    with Lab.up(hosts=1) as lab:
        scene = Scene(lab)
        ask, router = lab.client, scene.router["id"]
        guest = scene.bare()

        def default() -> list[str]:
            return [
                route["gateway"]
                for route in json.loads(guest.exec("ip", "-j", "-6", "route", "show", "default").stdout)
            ]

        for name, value in (("accept_ra", "2"), ("disable_ipv6", "0"), ("addr_gen_mode", "0")):
            guest.exec("busybox", "sh", "-c", f"echo {value} > /proc/sys/net/ipv6/conf/eth0/{name}")
        guest.exec("ip", "link", "set", "eth0", "down")
        guest.exec("ip", "link", "set", "eth0", "up")
        assert wait_for(default, 15)
        first = default()
        assert len(first) == 1
        # The network's router is left with its IPv4 interface alone.
        ask.remove_interface(router, subnet=scene.slaac["id"])
        assert wait_for(lambda: not default(), 1), default()
        other = ask.create("router", name="other")
        ask.add_interface(other["id"], subnet=scene.slaac["id"])
        assert wait_for(default, 1)
        assert len(default()) == 1
        assert default() != first
        ask.remove_interface(other["id"], subnet=scene.slaac["id"])
        assert wait_for(lambda: not default(), 1), default()


def test_addresses_are_leased_where_the_subnet_says_so(tmp_path: Path) -> None:
    with Lab.up(hosts=1) as lab:
        scene = Scene.__new__(Scene)
        scene.lab, scene.group = lab, open_group(lab)
        scene.network = lab.client.create("network", name="six")
        subnet = scene.six("fd06::/64", "dhcpv6-stateful")
        guest = scene.bare(fixed_ips=[{"subnet_id": subnet["id"], "ip_address": "fd06::1234"}])
        guest.exec("busybox", "sh", "-c", "echo 0 > /proc/sys/net/ipv6/conf/eth0/disable_ipv6", check=False)
        guest.exec("busybox", "sh", "-c", "echo 0 > /proc/sys/net/ipv6/conf/eth0/addr_gen_mode", check=False)
        guest.exec("ip", "link", "set", "eth0", "down")
        guest.exec("ip", "link", "set", "eth0", "up")
        assert wait_for(lambda: "fe80" in guest.exec("ip", "-6", "addr", "show", "dev", "eth0", "-tentative").stdout)
        said = dhclient(guest, tmp_path, "-6")
        assert said["new_ip6_address"] == "fd06::1234"
        assert said["new_dhcp6_name_servers"] == "2620:fe::fe"


def test_who_runs_dhcp_itself_is_let_alone(tmp_path: Path) -> None:
    """A network without DHCP of ours: a tenant's own server is asked, if it may speak."""
    with Lab.up(hosts=2) as lab:
        network = lab.client.create("network", name="own")
        lab.client.create(
            "subnet", network_id=network["id"], ip_version=4, cidr="10.6.0.0/24", enable_dhcp=False, gateway_ip=None
        )
        free = {"port_security_enabled": False, "security_groups": []}
        server = lab.workload(lab.hosts[1], network, **free, fixed_ips=[{"ip_address": "10.6.0.2"}])
        guest = lab.workload(lab.hosts[0], network, groups=[open_group(lab)], fixed_ips=[{"ip_address": "10.6.0.50"}])
        config = tmp_path / "udhcpd.conf"
        config.write_text(
            f"start 10.6.0.50\nend 10.6.0.50\ninterface eth0\nlease_file {tmp_path / 'leases'}\n"
            f"pidfile {tmp_path / 'pid'}\n"
        )
        daemon = server.popen("busybox", "udhcpd", "-f", str(config))
        try:
            time.sleep(0.5)
            guest.exec("ip", "addr", "flush", "dev", "eth0")
            assert udhcpc(guest, tmp_path)["serverid"] == "10.6.0.2"
        finally:
            daemon.kill()
            daemon.communicate()


def test_a_restarted_agent_answers_again(scene: Scene, tmp_path: Path) -> None:
    guest = scene.bare()
    host = scene.lab.hosts[0]
    host.agent.kill()
    host.agent.start()
    assert udhcpc(guest, tmp_path)["ip"] == guest.ip4


def test_a_flood_of_questions_does_not_stop_others(scene: Scene, tmp_path: Path) -> None:
    """One guest asks without end; another on the same host is answered all the same."""
    loud, quiet = scene.bare(), scene.bare()
    noise = loud.popen(
        "busybox", "sh", "-c", "while :; do busybox udhcpc -f -n -q -t 1 -T 0 -i eth0 -s /bin/true; done"
    )
    try:
        time.sleep(0.5)
        assert udhcpc(quiet, tmp_path)["ip"] == quiet.ip4
    finally:
        noise.kill()
        noise.communicate()
