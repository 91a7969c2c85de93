"""Docker's engines of several hosts on networks of Crossway."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from crossway import settings
from crossway.errors import Unavailable
from crossway.lab import Lab
from crossway.lab.docker import Engine, engine
from lab.stories import dual, links, open_group, wait_for

Engines = list[Engine]
NULL = ("--ipam-driver", "null")


@pytest.fixture(scope="module")
def engines() -> Iterator[tuple[Lab, Engines]]:
    with Lab.up(hosts=2) as lab, ExitStack() as stack:
        open_group(lab)
        yield lab, [stack.enter_context(engine(host)) for host in lab.hosts]


def attached(lab: Lab) -> list[dict[str, Any]]:
    return lab.client.list("ports", device_owner="container:docker")


def address(engine: Engine, container: str, network: str, key: str = "IPAddress") -> str:
    told = json.loads(engine.docker("inspect", container))[0]
    return str(told["NetworkSettings"]["Networks"][network][key])


def endpoint(engine: Engine, container: str, network: str) -> str:
    return address(engine, container, network, "EndpointID")


def pings(engine: Engine, container: str, ip: str) -> bool:
    return "1 packets received" in engine.docker("exec", container, "ping", "-c1", "-W2", ip, check=False)


def left(lab: Lab) -> set[str]:
    """Return the links of containers that hosts still have."""
    return {name for host in lab.hosts for name in links(host) if name.startswith("cv")}


def create(engine: Engine, name: str, *options: str) -> None:
    engine.docker("network", "create", "-d", "crossway", *options, name)


def test_one_network_for_two_engines_and_its_addresses_from_crossway(engines: tuple[Lab, Engines]) -> None:
    lab, (one, two) = engines
    dual(lab, "blue", 1)
    for each in (one, two):
        create(each, "blue", "--ipam-driver", "null", "-o", "network=blue", "-o", "groups=open")
    one.run("blue", "aa")
    two.run("blue", "bb", "--mac-address", "02:00:00:00:00:0b")
    assert address(one, "aa", "blue") != address(two, "bb", "blue")
    assert address(two, "bb", "blue", "MacAddress") == "02:00:00:00:00:0b"
    for key in ("IPAddress", "GlobalIPv6Address"):
        assert pings(one, "aa", address(two, "bb", "blue", key)), key
    # A killed agent, and the one after it, leave running containers alone.
    one.host.agent.kill()
    assert pings(one, "aa", address(two, "bb", "blue"))
    one.host.agent.start()
    assert pings(one, "aa", address(two, "bb", "blue"))
    # A killed engine as well; it finds its containers again.
    one.kill()
    assert pings(
        two, "bb", next(p for p in attached(lab) if p["binding:host_id"] == "h1")["fixed_ips"][0]["ip_address"]
    )
    one.start()
    assert pings(one, "aa", address(two, "bb", "blue"))
    one.docker("restart", "-t0", "aa")
    assert wait_for(lambda: pings(one, "aa", address(two, "bb", "blue")), 10)
    for each in (one, two):
        each.clear()
        each.docker("network", "rm", "blue")
    # An engine that was killed says nothing of the endpoint that it had before.
    assert wait_for(lambda: attached(lab) == [], 10)
    assert left(lab) == set()


def test_fixed_addresses_and_networks_made_on_the_fly(engines: tuple[Lab, Engines]) -> None:
    lab, (one, two) = engines
    options = ("--ipam-driver", "crossway", "--ipam-opt", "network=fly", "-o", "network=fly", "-o", "groups=open")
    subnets = ("--subnet", "10.7.0.0/24", "--ipv6", "--subnet", "fd00:7::/64")
    for each in (one, two):
        create(each, "fly", *options, *subnets)
    assert [n["description"] for n in lab.client.list("networks", name="fly")] == ["made by Docker"]
    one.run("fly", "aa", "--ip", "10.7.0.44", "--ip6", "fd00:7::44")
    two.run("fly", "bb")
    assert pings(two, "bb", "10.7.0.44")
    assert pings(two, "bb", "fd00:7::44")
    # What another engine has given away is taken.
    with pytest.raises(Unavailable, match=r"10\.7\.0\.44"):
        two.run("fly", "cc", "--ip", "10.7.0.44")
    for each in (one, two):
        each.clear()
        each.docker("network", "rm", "fly")
    assert attached(lab) == []
    assert left(lab) == set()


def test_what_is_inspected_is_what_the_server_says(engines: tuple[Lab, Engines]) -> None:
    lab, (one, _) = engines
    dual(lab, "seen", 8)
    ipam = ("--ipam-driver", "crossway", "--ipam-opt", "network=seen")
    for name, options in (("plain", ("--ipam-driver", "null")), ("four", ipam), ("both", (*ipam, "--ipv6"))):
        create(one, name, *options, "-o", "network=seen", "-o", "groups=open")
        one.run(name, f"in-{name}")
        told = json.loads(one.docker("network", "inspect", name))[0]
        port = next(p for p in attached(lab) if p["device_id"] == endpoint(one, f"in-{name}", name))
        (seen,) = told["Containers"].values()
        ips = {i["ip_address"] for i in port["fixed_ips"]}
        assert {ip.partition("/")[0] for ip in (seen["IPv4Address"], seen["IPv6Address"]) if ip} == ips
        assert len(ips) == (1 if name == "four" else 2)
        assert seen["MacAddress"] == port["mac_address"]
        assert seen["Name"] == f"in-{name}"
        cidrs = [] if name == "plain" else ["10.8.0.0/24", "fd00:8::/64"][: len(ips)]
        shown = [c["Subnet"] for c in told["IPAM"]["Config"]]
        assert shown == (cidrs or ["0.0.0.0/0"])
        if cidrs:
            assert told["IPAM"]["Config"][0]["Gateway"] == "10.8.0.1"
    one.clear()
    one.docker("network", "rm", "plain", "four", "both")
    assert attached(lab) == []


def test_a_router_that_tells_of_itself_does_not_come_before_the_engine(engines: tuple[Lab, Engines]) -> None:
    lab, (one, _) = engines
    network = lab.client.create("network", name="told")
    lab.client.create("subnet", network_id=network["id"], ip_version=4, cidr="10.12.0.0/24")
    subnet = lab.client.create(
        "subnet", network_id=network["id"], ip_version=6, cidr="fd00:c::/64", ipv6_ra_mode="slaac",
        ipv6_address_mode="slaac",
    )  # fmt: skip
    router = lab.client.create("router", name="told")
    lab.client.add_interface(router["id"], subnet=subnet["id"])
    create(one, "told", "--ipam-driver", "null", "-o", "network=told", "-o", "groups=open")
    for name in ("aa", "bb", "cc", "dd"):
        one.run("told", name)
        assert one.docker("exec", name, "ip", "-6", "route").count("default") == 1
    assert pings(one, "aa", address(one, "dd", "told", "GlobalIPv6Address"))
    one.clear()
    one.docker("network", "rm", "told")
    lab.client.remove_interface(router["id"], subnet=subnet["id"])


def test_two_tenants_have_the_same_addresses_and_nothing_of_each_other(engines: tuple[Lab, Engines]) -> None:
    lab, (one, two) = engines
    for project in ("red", "green"):
        network = lab.client.create("network", name="app", project_id=project)
        lab.client.create(
            "subnet", network_id=network["id"], project_id=project, ip_version=4, cidr="10.9.0.0/24", name=project
        )
        open_group(lab, project_id=project)
        for each in (one, two):
            create(
                each,
                project,
                "--ipam-driver",
                "null",
                "-o",
                "network=app",
                "-o",
                f"project={project}",
                "-o",
                "groups=open",
            )
    for project in ("red", "green"):
        one.docker(
            "run",
            "-d",
            "--network",
            f"name={project},driver-opt=ips=10.9.0.5",
            "--name",
            f"{project}1",
            "lab",
            "sleep",
            "600",
        )
    two.run("red", "red2")
    assert address(one, "red1", "red") == address(one, "green1", "green") == "10.9.0.5"
    assert pings(two, "red2", "10.9.0.5")
    assert pings(one, "red1", address(two, "red2", "red"))
    assert not pings(one, "green1", address(two, "red2", "red"))
    for each in (one, two):
        each.clear()
        each.docker("network", "rm", "red", "green")
    assert attached(lab) == []


def test_what_is_not_served_is_refused_and_leaves_nothing(engines: tuple[Lab, Engines]) -> None:
    lab, (one, _) = engines
    dual(lab, "plain", 11)
    with pytest.raises(Unavailable, match="say which network"):
        create(one, "nosuch", "--ipam-driver", "null")
    with pytest.raises(Unavailable, match="nowhere could not be found"):
        create(one, "nosuch", "--ipam-driver", "null", "-o", "network=nowhere")
    create(one, "plain", "--ipam-driver", "null", "-o", "network=plain")
    with pytest.raises(Unavailable, match="SCTP cannot be published"):
        one.run("plain", "pp", "-p", "8080:80/sctp")
    one.clear()
    one.docker("network", "rm", "plain")
    assert attached(lab) == []
    assert left(lab) == set()


def published(lab: Lab) -> list[Any]:
    return [p for p in lab.hosts[0].agent_client.status()["ports"] if p["published"]]


def test_what_ends_while_no_server_answers_frees_its_numbers_at_once(engines: tuple[Lab, Engines]) -> None:
    lab, (one, _) = engines
    dual(lab, "alone", 17)
    create(one, "alone", *NULL, "-o", "network=alone")
    one.run("alone", "first", "-p", "8080:80")
    assert published(lab)
    lab.server.stop()
    try:
        one.docker("rm", "-f", "first")
        assert not published(lab)
        assert left(lab) == set()
    finally:
        lab.server.start()
        lab.joined()
    one.run("alone", "second", "-p", "8080:80")
    one.clear()
    one.docker("network", "rm", "alone")
    # The port itself goes when it has been nobody's for a minute.
    lab.client.delete("port", attached(lab)[0]["id"])


def test_what_ended_while_the_agent_was_away_goes_soon(engines: tuple[Lab, Engines]) -> None:
    lab, (one, _) = engines
    dual(lab, "away", 18)
    create(one, "away", *NULL, "-o", "network=away")
    one.run("away", "first", "-p", "8080:80")
    # It has been there for a while.
    for path in (lab.hosts[0].run / "bodies").glob("*.json"):
        os.utime(path, (0, 0))
    lab.hosts[0].agent.stop()
    try:
        # The engine gives the link back, and says so to nobody.
        one.docker("rm", "-f", "first", seconds=100)
    finally:
        lab.hosts[0].agent.start()
    assert wait_for(lambda: attached(lab) == [], 10)
    assert left(lab) == set()
    assert not published(lab)
    one.docker("network", "rm", "away")


def test_networks_and_addresses_outlive_a_boot(engines: tuple[Lab, Engines], tmp_path: Path) -> None:
    lab, (one, _) = engines
    host = lab.hosts[0]
    host.agent.restart(**{settings.DATA.variable: str(tmp_path)})
    try:
        create(one, "boots", *own("boots", "10.31.0.0/24"), "-o", "groups=open")
        one.run("boots", "aa", "--ip", "10.31.0.9", "--mac-address", "02:00:00:00:31:09")
        # The machine goes down at once: nobody says anything to anybody, and what is below RUN is lost.
        host.agent.kill()
        one.kill()
        (before,) = attached(lab)
        for lost in ("bodies", "docker"):
            shutil.rmtree(host.run / lost, ignore_errors=True)
        for name in links(host):
            if name.startswith(("cw", "cv")):
                host.exec("ip", "link", "delete", name, check=False)
        host.agent.start()
        one.start()
        one.docker("restart", "-t0", "aa")
        assert address(one, "aa", "boots") == "10.31.0.9"
        (port,) = attached(lab)
        assert port["id"] != before["id"]
    finally:
        one.clear()
        one.docker("network", "rm", "boots", check=False)
        del host.agent.environment[settings.DATA.variable]
        host.agent.restart()
    assert attached(lab) == []


def own(network: str, *subnets: str) -> tuple[str, ...]:
    """Return the options of a network whose addresses Docker knows."""
    prefixes = (word for subnet in subnets for word in ("--subnet", subnet))
    return ("--ipam-driver", "crossway", "--ipam-opt", f"network={network}", "-o", f"network={network}", *prefixes)


MADE = (*NULL, "-o", "network=made")
WRONG_NETWORKS: dict[str, tuple[tuple[str, ...], str]] = {
    "an option that is misspelt": ((*NULL, "-o", "network=known", "-o", "group=open"), "-o group is not known"),
    "one of another driver": ((*NULL, "-o", "network=known", "-o", "parent=eth0"), "-o parent is not known"),
    "one of a bridge": (
        (*NULL, "-o", "network=known", "-o", "com.docker.network.bridge.name=br7"),
        "-o com.docker.network.bridge.name is not known",
    ),
    "an MTU that the network has not": (
        (*NULL, "-o", "network=known", "-o", "com.docker.network.driver.mtu=9000"), "network known has an MTU of",
    ),
    "an MTU without IPv6": (
        (*NULL, "-o", "network=known", "-o", "com.docker.network.driver.mtu=1000"),
        "with IPv6 has an MTU of at least 1280",
    ),
    "an MTU that no underlay has": (
        (*own("made", "10.50.0.0/24"), "-o", "com.docker.network.driver.mtu=9000"), "should be at most",
    ),
    "one for addresses": ((*own("known"), "--ipam-opt", "projct=red"), "--ipam-opt projct is not known"),
    "no way out": ((*NULL, "-o", "network=known", "--internal"), "--internal is not served"),
    "a group that is not there": ((*MADE, "-o", "subnets=10.50.0.0/24", "-o", "groups=nobody"), "nobody could not"),
    "subnets that overlap": ((*MADE, "-o", "subnets=10.50.0.0/24,10.50.0.0/25"), "overlaps"),
    "a subnet that is none": ((*MADE, "-o", "subnets=10.50.0.0/24,here"), "'here' does not appear"),
    "a subnet with an address": ((*MADE, "-o", "subnets=10.50.0.0/24,10.51.0.5/24"), "10.51.0.5/24 has host bits set"),
    "a group, with addresses of Docker": ((*own("made", "10.50.0.0/24"), "-o", "groups=nobody"), "nobody could"),
    "two families and a group": (
        (*own("made", "10.50.0.0/24", "fd00:50::/64"), "--ipv6", "-o", "groups=nobody"), "nobody could",
    ),
    "an address that is kept twice": (
        (*own("made", "10.50.0.0/24"), "--aux-address", "a=10.50.0.9", "--aux-address", "b=10.50.0.9"), "10.50.0.9",
    ),
    "another gateway": ((*own("known", "10.14.0.0/24"), "--gateway", "10.14.0.254"), "has the gateway 10.14.0.1"),
    "another gateway of a new one": ((*own("made", "10.50.0.0/24"), "--gateway", "10.50.0.9"), "the gateway 10.50.0.1"),
    "a part of what is given": ((*own("known", "10.14.0.0/24"), "--ip-range", "10.14.0.128/25"), "10.14.0.254, not of"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG_NETWORKS)
def test_a_network_that_cannot_be_is_refused_and_nothing_is_made(engines: tuple[Lab, Engines], case: str) -> None:
    lab, (one, _) = engines
    if not lab.client.list("networks", name="known"):
        dual(lab, "known", 14)
    before = lab.client.list("networks")
    options, why = WRONG_NETWORKS[case]
    with pytest.raises(Unavailable, match=re.escape(why)):
        create(one, "wrong", *options)
    assert lab.client.list("networks") == before
    assert attached(lab) == []
    assert list((lab.hosts[0].run / "docker").glob("*")) == []


def test_engines_that_make_a_network_at_the_same_moment_share_it(engines: tuple[Lab, Engines]) -> None:
    lab, both = engines
    for number in range(8):
        name, subnet = f"twin{number}", f"10.30.{number}.0/24"
        options = own(name, subnet) if number % 2 else (*NULL, "-o", f"network={name}", "-o", f"subnets={subnet}")
        with ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(create, each, name, *options) for each in both]:
                done.result()
        (network,) = lab.client.list("networks", name=name)
        assert len(network["subnets"]) == 1
        for each in both:
            each.docker("network", "rm", name)


def test_a_range_and_a_gateway_that_are_as_said(engines: tuple[Lab, Engines]) -> None:
    lab, (one, two) = engines
    pools = ("--gateway", "10.15.0.1", "--ip-range", "10.15.0.128/25", "--ipv6", "-o", "groups=open")
    for each in (one, two):
        create(each, "part", *own("part", "10.15.0.0/24", "FD00:15:0::/64"), *pools)
    for number in range(2):
        one.run("part", f"in-part-{number}")
        assert int(address(one, f"in-part-{number}", "part").rpartition(".")[2]) >= 128
    two.run("part", "far")
    assert pings(two, "far", address(one, "in-part-0", "part", "GlobalIPv6Address"))
    for each in (one, two):
        each.clear()
        each.docker("network", "rm", "part")
    assert attached(lab) == []


def test_an_option_of_an_endpoint_that_would_do_nothing_is_refused(engines: tuple[Lab, Engines]) -> None:
    lab, (one, _) = engines
    create(one, "ends", *own("ends", "10.16.0.0/24"), "-o", "groups=open")
    for option, why in (("ips=10.16.0.9", "say --ip and --ip6"), ("group=open", "driver-opt=group is not known")):
        with pytest.raises(Unavailable, match=why):
            one.run(f"name=ends,driver-opt={option}", "odd")
        one.clear()
        assert attached(lab) == []
    one.docker("network", "rm", "ends")


def route_lines(engine: Engine, container: str, *options: str) -> list[str]:
    told = engine.docker("exec", container, "ip", *options, "route")
    return [" ".join(line.split()[:5]) for line in told.splitlines()]


def test_every_subnet_that_is_accepted_starts_a_container(engines: tuple[Lab, Engines]) -> None:
    lab, (one, _) = engines
    network = lab.client.create("network", name="odd")
    hops4 = [("10.91.0.0/16", "10.60.0.9"), ("10.92.0.0/16", "9.9.9.9"), ("10.93.0.0/16", "172.31.1.1"),
             ("10.94.0.0/16", "0.0.0.0"), ("10.60.0.0/24", "10.60.0.9"), ("0.0.0.0/0", "10.60.0.8"),
             ("10.95.0.0/16", "10.60.0.255"), ("10.96.0.0/16", "10.60.0.5")]  # fmt: skip
    hops6 = [("fd91::/64", "fd00:60::9"), ("fd92::/64", "fd00:99::1"), ("fd00:60::/64", "fd00:60::9")]
    for version, cidr, gateway, hops in (
        (4, "10.60.0.0/24", "172.31.1.1", hops4), (6, "fd00:60::/64", "fd00:61::1", hops6),
    ):  # fmt: skip
        routes = [{"destination": to, "nexthop": hop} for to, hop in hops]
        lab.client.create(
            "subnet", network_id=network["id"], ip_version=version, cidr=cidr, gateway_ip=gateway, host_routes=routes
        )
    ipam = ("--ipam-driver", "crossway", "--ipam-opt", "network=odd", "--ipv6")
    for name, options in (("odd-null", NULL), ("odd-ipam", ipam)):
        create(one, name, *options, "-o", "network=odd", "-o", "groups=open")
    one.run('"name=odd-null","driver-opt=ips=10.60.0.5,fd00:60::5"', "aa")
    one.run("odd-ipam", "bb")
    for container in ("aa", "bb"):
        four, six = route_lines(one, container), route_lines(one, container, "-6")
        assert "default via 172.31.1.1 dev eth0" in four
        assert "172.31.1.1 dev eth0 scope link" in four
        assert "10.91.0.0/16 via 10.60.0.9 dev eth0" in four
        assert "10.93.0.0/16 via 172.31.1.1 dev eth0" in four
        assert any(line.startswith("10.94.0.0/16 dev eth0") for line in four)
        assert not [line for line in four if "10.92." in line or "10.95." in line]
        assert ("10.96.0.0/16 via 10.60.0.5 dev eth0" in four) == (container == "bb"), "not by itself"
        assert "default via fd00:61::1 dev eth0" in six
        assert any(line.startswith("fd91::/64 via fd00:60::9 dev eth0") for line in six)
    log = lab.hosts[0].agent.log.read_text()
    assert "the route to 10.92.0.0/16 by 9.9.9.9 is left out: its next hop 9.9.9.9 is not on the link" in log
    one.clear()
    one.docker("network", "rm", "odd-null", "odd-ipam")


def test_networks_that_lead_to_the_same_place_are_both_connected(engines: tuple[Lab, Engines]) -> None:
    lab, (one, _) = engines
    for number in (62, 63, 64):
        network = lab.client.create("network", name=f"to{number}")
        to = "10.62.0.0/24" if number == 64 else "10.99.0.0/16"
        hops = [{"destination": to, "nexthop": f"10.{number}.0.9"}]
        lab.client.create(
            "subnet", network_id=network["id"], ip_version=4, cidr=f"10.{number}.0.0/24", gateway_ip="172.31.1.1",
            host_routes=hops,
        )  # fmt: skip
        create(one, f"to{number}", *NULL, "-o", f"network=to{number}", "-o", "groups=open")
    one.run("to62", "aa")
    one.docker("network", "connect", "to63", "aa")
    four = route_lines(one, "aa")
    assert "10.99.0.0/16 via 10.62.0.9 dev eth0" in four
    assert len([line for line in four if line.startswith("10.99.")]) == 1
    assert len([line for line in four if line.startswith("default")]) == 1
    # Nor does one lead to the prefix of another.
    one.docker("network", "connect", "to64", "aa")
    assert [line for line in route_lines(one, "aa") if line.startswith("10.62.0.0/24")] == [
        "10.62.0.0/24 dev eth0 scope link"
    ]
    one.docker("network", "disconnect", "to64", "aa")
    # Both at once, too, in either order.
    one.run("to63", "bb")
    one.docker("network", "connect", "to62", "bb")
    for container in ("aa", "bb", "aa", "bb"):
        one.docker("restart", "-t0", container)
        four = route_lines(one, container)
        assert len([line for line in four if line.startswith("10.99.")]) == 1
        assert len([line for line in four if line.startswith("default via 172.31.1.1")]) == 1
    one.clear()
    one.docker("network", "rm", "to62", "to63", "to64")


MTU, PREFIX = "com.docker.network.driver.mtu", "com.docker.network.container_iface_prefix"


def test_mtu_and_prefix_of_interfaces_are_as_said(engines: tuple[Lab, Engines]) -> None:
    lab, (one, two) = engines
    dual(lab, "wide", 65)
    narrow = ("-o", f"{MTU}=1300", "-o", f"{PREFIX}=net", "-o", "groups=open")
    create(one, "wide", *NULL, "-o", "network=wide", *narrow)
    create(two, "wide", *NULL, "-o", "network=wide", "-o", "groups=open")
    # A network that is made for it has that MTU itself.
    for name, options in (
        ("made4", own("made4", "10.66.0.0/24")),
        ("made0", (*NULL, "-o", "network=made0", "-o", "subnets=10.67.0.0/24")),
    ):  # fmt: skip
        create(one, name, *options, *narrow)
        assert lab.client.list("networks", name=name)[0]["mtu"] == 1300
    one.run("wide", "aa")
    two.run("wide", "bb")
    assert "mtu 1300 " in one.docker("exec", "aa", "ip", "link", "show", "net0")
    assert "mtu 1300 " not in two.docker("exec", "bb", "ip", "link", "show", "eth0")
    assert lab.client.list("networks", name="wide")[0]["mtu"] > 1300
    for key in ("IPAddress", "GlobalIPv6Address"):
        assert pings(two, "bb", address(one, "aa", "wide", key))
    one.docker("network", "connect", "made4", "aa")
    assert "mtu 1300 " in one.docker("exec", "aa", "ip", "link", "show", "net1")
    for each in (one, two):
        each.clear()
        each.docker("network", "rm", "wide")
    one.docker("network", "rm", "made4", "made0")


def test_addresses_that_are_others_are_refused(engines: tuple[Lab, Engines]) -> None:
    lab, (one, _) = engines
    network = dual(lab, "guarded", 68)
    router = lab.client.create("router", name="guarded")
    foot = lab.client.create("port", network_id=network["id"], fixed_ips=[{"ip_address": "10.68.0.50"}])
    lab.client.add_interface(router["id"], port=foot["id"])
    create(one, "guarded", *own("guarded", "10.68.0.0/24"))
    create(one, "guarded0", *NULL, "-o", "network=guarded")
    for ip, why in (
        ("10.68.0.1", "10.68.0.1 is the gateway of subnet 10.68.0.0/24"),
        ("10.68.0.50", "10.68.0.50"),
        ("10.68.0.0", "10.68.0.0"),
        ("10.68.0.255", "10.68.0.255"),
    ):
        for words in (("--network", "guarded", "--ip", ip), ("--network", f"name=guarded0,driver-opt=ips={ip}")):
            with pytest.raises(Unavailable, match=why.replace(".", "\\.")):
                one.docker("run", "-d", *words, "--name", "odd", "lab", "sleep", "600")
            one.clear()
            assert attached(lab) == []
    one.docker("network", "rm", "guarded", "guarded0")
    lab.client.remove_interface(router["id"], port=foot["id"])
    lab.client.delete("router", router["id"])


@pytest.mark.parametrize("driver", ["crossway", "null"])
def test_a_container_that_is_restarted_has_its_address_again(engines: tuple[Lab, Engines], driver: str) -> None:
    lab, (one, two) = engines
    number = 71 if driver == "null" else 70
    name = f"again{number}"
    dual(lab, name, number)
    ipam = NULL if driver == "null" else ("--ipam-driver", "crossway", "--ipam-opt", f"network={name}", "--ipv6")
    for each in (one, two):
        create(each, name, *ipam, "-o", f"network={name}", "-o", "groups=open")

    def addresses(container: str) -> list[str]:
        return [address(one, container, name, key) for key in ("IPAddress", "GlobalIPv6Address")]

    for container in ("aa", "bb", "cc"):
        one.run(name, container)
    # What its container is comes from the engine a moment later.
    assert wait_for(lambda: {p["name"] for p in attached(lab)} == {"aa", "bb", "cc"})
    before = {container: addresses(container) for container in ("aa", "bb", "cc")}
    for container in ("bb", "aa", "bb"):
        one.docker("restart", "-t0", container)
        assert addresses(container) == before[container]
        assert wait_for(lambda c=container: c in {p["name"] for p in attached(lab)})
    # One that is stopped gets it when it is started, and no new container gets it meanwhile.
    one.docker("stop", "-t0", "aa", "bb")
    one.run(name, "dd")
    assert addresses("dd") not in before.values()
    one.docker("start", "bb")
    one.docker("start", "aa")
    assert {container: addresses(container) for container in before} == before
    # One that ends by itself, and whose policy it is to be started again.
    again = ("--restart", "always", "--network", name, "--name", "ee", "lab", "sh", "-c", "sleep 4")
    one.docker("run", "-d", *again)
    assert wait_for(lambda: "ee" in {p["name"] for p in attached(lab)})
    first = addresses("ee")
    assert wait_for(lambda: one.docker("inspect", "--format", "{{.RestartCount}}", "ee").strip() != "0", 20)
    assert wait_for(lambda: addresses("ee") == first, 3)
    one.docker("rm", "-f", "ee")
    # One whose address somebody else has got.
    assert wait_for(lambda: {"aa", "bb"} <= {p["name"] for p in attached(lab)})
    one.docker("stop", "-t0", "aa")
    (network,) = lab.client.list("networks", name=name)
    taken = lab.client.create("port", network_id=network["id"], fixed_ips=[{"ip_address": before["aa"][0]}])
    one.docker("start", "aa")
    assert addresses("aa")[0] != before["aa"][0]
    lab.client.delete("port", taken["id"])
    for each in (one, two):
        each.clear()
        each.docker("network", "rm", name)
    assert attached(lab) == []
