"""Others have filters on the devices of a host too: they go on working beside our programs, and after them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from crossway.errors import Conflict
from crossway.kernel.links import PROGRAMS
from crossway.lab import Lab, Workload
from crossway.lab.lab import Host
from lab.stories import dual, open_group, pings, wait_for

# Instructions of classic BPF, as `tc` takes them.
EVERYTHING = "1,6 0 0 4294967295"
NO_ICMP = "4,48 0 0 23,21 0 1 1,6 0 0 2,6 0 0 4294967295"  # direct action: TC_ACT_SHOT, else TC_ACT_UNSPEC
# Our program where a build before this one put it, and where others may have theirs.
EARLIER = """
import sys
from socket import if_nametoindex
from crossway.kernel import bpf
program, link = sys.argv[1:]
bpf.HANDLE, bpf.PRIORITIES = 1, {program: 1}
bpf.Object().attach(program, if_nametoindex(link))
"""


class Scene(NamedTuple):
    lab: Lab
    host: Host
    here: Workload
    there: Workload


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with Lab.up(hosts=2, uplinks=1) as lab:
        network, group = dual(lab, "net"), open_group(lab)
        here, there = (lab.workload(host, network, groups=[group]) for host in lab.hosts)
        host = lab.hosts[0]
        for name in ("mirror", "guest"):
            host.exec("ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}-far")
            host.exec("ip", "link", "set", name, "up")
            host.exec("ip", "link", "set", f"{name}-far", "up")
        yield Scene(lab, host, here, there)


def qdiscs(host: Host, link: str) -> list[str]:
    shown = json.loads(host.exec("tc", "-j", "qdisc", "show", "dev", link).stdout)
    return [qdisc["kind"] for qdisc in shown if qdisc["kind"] in ("clsact", "ingress")]


def filters(host: Host, link: str, way: str) -> list[dict[str, Any]]:
    """Return the filters on a link, ours as well, those of the lowest priority first."""
    shown = json.loads(host.exec("tc", "-j", "-s", "filter", "show", "dev", link, way).stdout)
    return [filter for filter in shown if filter.get("options", {}).keys() & {"handle", "actions"}]


def add(host: Host, link: str, way: str, *words: str) -> None:
    host.exec("tc", "filter", "add", "dev", link, way, *words)


def count(host: Host, link: str, way: str, *place: str) -> None:
    """Have somebody's filter count what it sees, by a mirror."""
    action = ("action", "mirred", "egress", "mirror", "dev", "mirror", "continue")
    add(host, link, way, "protocol", "all", *place, "u32", "match", "u32", "0", "0", *action)


def counted(host: Host, link: str, at: int) -> int:
    """Return how many packets have come in by a link, as the first filter that counts says, or another."""
    found = [filter for filter in filters(host, link, "ingress") if "actions" in filter["options"]]
    return int(found[at]["options"]["actions"][0]["stats"]["packets"])


def program(filter: dict[str, Any]) -> str:
    return str(filter["options"].get("bpf_name", "")).split(":")[0]


def ours(host: Host, link: str) -> list[tuple[str, int]]:
    """Return our programs on a link, and their priorities."""
    found = filters(host, link, "ingress")
    return [(program(filter), int(filter["pref"])) for filter in found if program(filter) in PROGRAMS]


def crossway(host: Host, *words: str) -> None:
    host.exec(sys.executable, "-m", "crossway", *words, "--run", str(host.run))


def others(host: Host, link: str) -> list[tuple[str, int, str]]:
    """Return others' filters on a link: way, priority and kind."""
    return [
        (way, int(found["pref"]), found["kind"])
        for way in ("ingress", "egress")
        for found in filters(host, link, way)
        if program(found) not in PROGRAMS
    ]


def plug(scene: Scene) -> None:
    scene.host.agent_client.plug(scene.here.id, netns=str(scene.here.path))
    scene.here.active()


def theirs(host: Host) -> list[tuple[str, int, str]]:
    """Put filters of somebody else's on the device that leads to other hosts."""
    host.exec("tc", "qdisc", "add", "dev", "under0", "clsact", check=False)
    count(host, "under0", "ingress", "pref", "1")
    add(host, "under0", "ingress", "pref", "9697", "bpf", "direct-action", "bytecode", EVERYTHING)
    count(host, "under0", "ingress")
    add(host, "under0", "egress", "bpf", "direct-action", "bytecode", NO_ICMP)
    return others(host, "under0")


@pytest.mark.parametrize("first", ["theirs", "ours"])
def test_on_devices_of_the_host_others_come_first_or_get_what_is_left_to_it(scene: Scene, first: str) -> None:
    lab, host, here, there = scene
    if first == "theirs":
        host.agent.stop()
        crossway(host, "purge")
        put = theirs(host)
        host.agent.start()
        plug(scene)
    else:
        put = theirs(host)
    assert [kind for _, _, kind in put] == ["u32", "bpf", "u32", "bpf"]
    assert wait_for(lambda: ours(host, "under0") == [("from_uplink", 9697)])
    began = [counted(host, "under0", at) for at in (0, 1)]
    assert pings(here, there.ip4)
    assert pings(there, here.ip6)
    assert not pings(host, lab.hosts[1].underlay), "the filter at the egress lets it pass"
    # What is for the host itself, the server's answers say, is seen by both.
    assert wait_for(lambda: all(counted(host, "under0", at) > began[at] for at in (0, 1)))
    host.agent.restart()
    assert wait_for(lambda: pings(here, there.ip4))
    assert ours(host, "under0") == [("from_uplink", 9697)]
    assert others(host, "under0") == put
    host.agent.stop()
    crossway(host, "purge")
    assert (ours(host, "under0"), others(host, "under0")) == ([], put)
    assert not pings(host, lab.hosts[1].underlay)
    assert (qdiscs(host, "under0"), qdiscs(host, "up0")) == (["clsact"], [])
    host.exec("tc", "qdisc", "delete", "dev", "under0", "clsact")
    host.agent.start()
    plug(scene)
    assert pings(here, there.ip4)


def test_a_program_that_an_earlier_build_put_elsewhere_gives_way(scene: Scene) -> None:
    _, host, here, there = scene
    device = next(p["device"] for p in host.agent_client.status()["ports"] if p["id"] == here.id)
    host.agent.stop()
    host.exec("tc", "filter", "delete", "dev", "under0", "ingress", "pref", "9697")
    for name, link in (("from_uplink", "under0"), ("from_workload", device)):
        host.exec(sys.executable, "-c", EARLIER, name, link)
    assert len(ours(host, device)) == 2
    host.agent.start()
    assert wait_for(lambda: ours(host, "under0") == [("from_uplink", 9697)])
    assert ours(host, device) == [("from_workload", 1)]
    assert pings(here, there.ip4)


@pytest.mark.parametrize("restarted", [False, True], ids=["", "restarted"])
@pytest.mark.parametrize("theirs", ["nothing", "a clsact", "filters, later", "an ingress qdisc"])
def test_a_device_that_was_a_ports_is_left_as_it_was(scene: Scene, theirs: str, restarted: bool) -> None:
    lab, host, _, _ = scene
    network, group = lab.client.find("network", "net"), lab.client.find("security_group", "open")
    port = lab.client.create("port", network_id=network["id"], security_groups=[group["id"]])
    if theirs == "a clsact":
        host.exec("tc", "qdisc", "add", "dev", "guest", "clsact")
    elif theirs == "an ingress qdisc":
        host.exec("tc", "qdisc", "add", "dev", "guest", "ingress")
    host.agent_client.plug(port["id"], tap="guest")
    lab.client.wait("port", port["id"])
    # What a workload sends is judged before anybody else can let it in.
    assert ours(host, "guest") == [("from_workload", 1)]
    if theirs == "filters, later":
        count(host, "guest", "ingress")
        add(host, "guest", "egress", "bpf", "direct-action", "bytecode", NO_ICMP)
    elif theirs == "an ingress qdisc":
        count(host, "guest", "ingress", "pref", "7")
    put = others(host, "guest")
    if restarted:
        host.agent.restart()
    host.agent_client.unplug(port["id"])
    lab.client.delete("port", port["id"])
    assert (ours(host, "guest"), others(host, "guest")) == ([], put)
    left = {"nothing": [], "an ingress qdisc": ["ingress"]}.get(theirs, ["clsact"])
    assert qdiscs(host, "guest") == left
    for kind in left:
        host.exec("tc", "qdisc", "delete", "dev", "guest", kind)


def test_a_filter_in_the_way_is_told_of(scene: Scene) -> None:
    lab, host, _, _ = scene
    network = lab.client.find("network", "net")
    port = lab.client.create("port", network_id=network["id"])
    host.exec("tc", "qdisc", "add", "dev", "guest", "clsact")
    count(host, "guest", "ingress", "pref", "1")
    put = others(host, "guest")
    try:
        with pytest.raises(Conflict, match="guest has a filter where ours is to be, of priority 1"):
            host.agent_client.plug(port["id"], tap="guest")
        assert (ours(host, "guest"), others(host, "guest")) == ([], put)
        assert not [p for p in host.agent_client.status()["ports"] if p["id"] == port["id"]]
    finally:
        host.exec("tc", "qdisc", "delete", "dev", "guest", "clsact")
        lab.client.delete("port", port["id"])
