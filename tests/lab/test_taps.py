"""Taps that the agent makes for virtual machines: how they come and go, and that they carry large segments whole."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from crossway.client import path_of
from crossway.errors import Conflict, Invalid, NotFound
from crossway.lab import Lab
from crossway.lab.guest import Machine
from crossway.lab.place import Place
from lab.stories import dual, links, open_group, pings, wait_for

TOP = Path(__file__).parents[2]
IMAGE = TOP / "build" / "guest"
TURNS = 5  # that what is sent is repeated: 10 MB, or so
VIRTIO = {"csum": 0, "guest csum": 1, "guest TSO4": 7, "guest TSO6": 8, "host TSO4": 11, "host TSO6": 12, "queues": 22}


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab.up(hosts=2) as lab:
        dual(lab, "net")
        open_group(lab)
        yield lab


def port(lab: Lab, **attrs: Any) -> dict[str, Any]:
    network, group = lab.client.find("network", "net"), lab.client.find("security_group", "open")
    made: dict[str, Any] = lab.client.create("port", network_id=network["id"], security_groups=[group["id"]], **attrs)
    return made


def told(place: Place, link: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(place.exec("ip", "-j", "-d", "-s", "link", "show", link).stdout)[0]
    return found


@contextmanager
def large(place: Place, way: str) -> Iterator[None]:
    """Have segments of twice the link's MTU pass a guest's tap, "in" from the guest or "out" to it."""
    command = ("tcpdump", "-nni", "tapvm", "-Q", way, "--immediate-mode", "-s64", "-c1", "tcp and greater 2900")
    with place.popen(*command) as looking:
        try:
            assert looking.stdout is not None
            assert any("listening on" in line for line in looking.stdout), "tcpdump did not start"
            yield
            assert looking.wait(timeout=10) == 0
        finally:
            looking.kill()


def test_a_tap_comes_and_goes_with_its_port(lab: Lab) -> None:
    host, one, two = lab.hosts[0], port(lab), port(lab)
    plug = host.agent_client.plug
    assert plug(one["id"], tap="tap1", queues=4)["device"] == "tap1"
    made = told(host, "tap1")
    assert (made["linkinfo"]["info_data"]["multi_queue"], made["linkinfo"]["info_data"]["vnet_hdr"]) == (True, True)
    assert "UP" in made["flags"]
    assert made["mtu"] == 1450
    # The same again changes nothing, nor does an agent that is started anew.
    host.agent.kill()
    host.agent.start()
    plug(one["id"], tap="tap1", queues=4)
    assert told(host, "tap1")["ifindex"] == made["ifindex"]
    with pytest.raises(Conflict, match=f"tap1 is the body of port {one['id']}"):
        plug(two["id"], tap="tap1")
    for queues in (0, 257):
        with pytest.raises(Invalid, match=f"1 to 256 queues, not {queues}"):
            plug(two["id"], tap="tap2", queues=queues)
    for name in ("a/b", "longer-than-a-link", "a b", "a:b", "tap%d", "all"):
        with pytest.raises(Invalid, match="is no name of a link"):
            plug(two["id"], tap=name)
    # Another kind of tap is another tap.
    plug(one["id"], tap="tap1")
    assert not told(host, "tap1")["linkinfo"]["info_data"]["multi_queue"]
    host.agent_client.unplug(one["id"])
    assert "tap1" not in links(host)
    # What others made is taken as it is, and stays.
    host.exec("ip", "tuntap", "add", "tap9", "mode", "tap", "vnet_hdr")
    plug(one["id"], tap="tap9")
    with pytest.raises(Conflict, match="its queues are as they are"):
        plug(one["id"], tap="tap9", queues=2)
    host.agent_client.unplug(one["id"])
    assert "tap9" in links(host)
    host.exec("ip", "link", "delete", "tap9")
    # A port that is deleted takes its tap along.
    plug(two["id"], tap="tap2")
    lab.client.delete("port", two["id"])
    assert wait_for(lambda: "tap2" not in links(host))
    assert not [name for name in links(host) if name.startswith("tap")]


def test_what_carries_something_else_is_no_body(lab: Lab) -> None:
    host, one = lab.hosts[0], port(lab)
    for command in ("add br0 type bridge", "add member type veth peer name other", "set member master br0"):
        host.exec("ip", "link", *command.split())
    host.exec("ip", "tuntap", "add", "tun0", "mode", "tun")
    before = host.exec("ip", "-o", "link").stdout
    reasons = {
        "under0": f"under0 is this host's own, with address {host.underlay}",
        "cw-overlay": "cw-overlay is the overlay's device",
        "up0": "up0 is the device of a provider network",
        "lo": "lo is no Ethernet link",
        "tun0": "tun0 is no Ethernet link",
        "member": "member is a member of br0",
    }
    for name, reason in reasons.items():
        with pytest.raises(Conflict, match=reason):
            host.agent_client.plug(one["id"], tap=name)
    for name in ("under0", "member"):
        with pytest.raises(Conflict, match="an agent that has it by --physnet takes VLANs of it"):
            host.agent_client.plug(one["id"], vlan=(name, 5))
    # Nor where it is the port's binding that names it.
    lab.client.update("port", one["id"], **{"binding:host_id": "h1", "binding:profile": {"device": "under0"}})
    assert wait_for(lambda: reasons["under0"] in host.agent.log.read_text())
    lab.client.delete("port", one["id"])
    host.exec("ping", "-c1", "-W2", lab.hosts[1].underlay)
    assert host.exec("ip", "-o", "link").stdout == before
    host.exec("ip", "link", "delete", "member")
    host.exec("ip", "link", "delete", "br0")
    host.exec("ip", "link", "delete", "tun0")


def test_a_plug_that_cannot_be_leaves_the_body_that_there_is(lab: Lab) -> None:
    host, net = lab.hosts[0], lab.client.find("network", "net")
    one, two = (lab.workload(lab.hosts[at], net, groups=[lab.client.find("security_group", "open")]) for at in (0, 1))
    other = lab.namespace("other")
    other.exec("ip", "link", "add", "taken", "type", "veth", "peer", "name", "far")
    for options in ({"netns": str(other.path), "ifname": "taken"}, {"tap": "under0"}, {"netns": "/run/netns/none"}):
        with pytest.raises((Conflict, NotFound)):
            host.agent_client.plug(one.id, **options)
        assert pings(one, two.ip4)
    one.delete()
    two.delete()


def test_a_machine_does_not_take_a_port_that_another_workload_has(lab: Lab) -> None:
    host, net = lab.hosts[0], lab.client.find("network", "net")
    one = lab.workload(host, net, groups=[lab.client.find("security_group", "open")], name="taken")
    domain = f"""<domain type='qemu'><name>d</name><uuid>11111111-2222-3333-4444-555555555555</uuid><metadata>
        <p:ports xmlns:p='urn:crossway:domain:1'><p:port id='{one.id}'/></p:ports></metadata><devices>
        <interface type='ethernet'><mac address='{one.mac}'/><target dev='tap4' managed='no'/></interface>
        </devices></domain>"""

    def hook(operation: str) -> str:
        words = "\0".join(("d", operation, "begin", "-", "", domain))
        command = ["curl", "-s", "--unix-socket", str(host.socket), "--data-binary", "@-", "http://agent/v1/libvirt"]
        return subprocess.run(command, input=words, capture_output=True, text=True, timeout=60, check=True).stdout

    assert f"port {one.id} is plugged in already, by cw" in hook("prepare")
    hook("release")
    assert "eth0" in links(one)
    assert lab.client.show("port", one.id)["binding:host_id"] == "h1"
    one.unplug()
    assert hook("prepare") == "null"
    assert "tap4" in links(host)
    hook("release")
    assert "tap4" not in links(host)
    one.delete()


def test_who_plugs_a_port_that_is_set_down_need_not_wait(lab: Lab) -> None:
    one = port(lab, name="down", admin_state_up=False)
    command = [sys.executable, "-m", "crossway", "port", "plug", "down", "--tap", "tap3", "--host", "h1", "--json"]
    done = subprocess.run([*command, "--lab", lab.state.name], capture_output=True, text=True, timeout=20, check=True)
    assert json.loads(done.stdout)["status"] == "DOWN"
    lab.client.update("port", one["id"], admin_state_up=True)
    lab.client.wait("port", one["id"])
    lab.client.delete("port", one["id"])
    assert wait_for(lambda: "tap3" not in links(lab.hosts[0]))


def test_a_tap_stays_while_its_port_may_come_back(lab: Lab) -> None:
    one, (here, there) = port(lab), lab.hosts
    bindings = f"{path_of('port', one['id'])}/bindings"
    here.agent_client.plug(one["id"], tap="tap1")
    lab.client.ask("POST", bindings, {"binding": {"host": there.name}})
    there.agent_client.plug(one["id"], tap="tap1")
    lab.client.ask("PUT", f"{bindings}/{there.name}/activate")
    lab.client.wait("port", one["id"])
    assert "tap1" in links(here)  # its QEMU may still hold it
    # An agent that was not there when the port went knows no better.
    here.agent.restart()
    lab.client.wait("port", one["id"])
    assert "tap1" in links(here)
    lab.client.ask("PUT", f"{bindings}/{here.name}/activate")
    lab.client.wait("port", one["id"])
    lab.client.ask("DELETE", f"{bindings}/{there.name}")
    assert wait_for(lambda: "tap1" not in links(there))
    here.agent_client.unplug(one["id"])
    assert "tap1" not in links(here)


def test_large_segments_pass_whole_and_right(lab: Lab) -> None:
    subprocess.run([TOP / "scripts" / "guest"], check=True)
    host, one = lab.hosts[0], port(lab)
    host.agent_client.plug(one["id"], tap="tapvm", queues=2)
    network, group = lab.client.find("network", "net"), lab.client.find("security_group", "open")
    peers = [lab.workload(where, network, groups=[group]) for where in lab.hosts]
    ip = {":" in a["ip_address"]: a["ip_address"] for a in one["fixed_ips"]}
    with Machine(host, IMAGE, lab.state.run, one["mac_address"], "tapvm", queues=2) as guest:
        guest.booted()
        features = guest.run("cat /sys/class/net/eth0/device/features").strip()
        assert {name: features[bit] for name, bit in VIRTIO.items()} == dict.fromkeys(VIRTIO, "1")
        assert guest.run("ls -d /sys/class/net/eth0/queues/tx-*").split() == [
            f"/sys/class/net/eth0/queues/tx-{n}" for n in (0, 1)
        ]
        kept = host.exec("ethtool", "-k", "tapvm").stdout
        for feature in ("tx-checksumming", "tcp-segmentation-offload", "tx-tcp-segmentation", "tx-tcp6-segmentation"):
            assert f"{feature}: on" in kept, kept
        guest.run(f"echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad; ip -6 address add {ip[True]}/64 dev eth0")
        guest.run(f"for n in $(seq {TURNS}); do cat /bin/busybox; done >/tmp/big")
        sum = guest.run("md5sum </tmp/big").split()[0]
        big = Path(lab.state.run, "big")
        big.write_bytes(Path("/bin/busybox").read_bytes() * TURNS)
        assert hashlib.md5(big.read_bytes()).hexdigest() == sum, "the guest's busybox is this machine's"
        for peer in peers:
            for six in (False, True):
                # Who receives answers with the sum of what came.
                to, back = peer.ip6 if six else peer.ip4, ip[six]
                with large(host, "in"):
                    listening = peer.popen("busybox", "nc", "-l", "-p", "5000", "-e", "md5sum")
                    arrived = guest.run(f"sleep 0.3; nc {to} 5000 </tmp/big").split()[0]
                    listening.communicate(timeout=30)
                guest.run("nc -l -p 5000 -e md5sum >/dev/null 2>&1 & sleep 0.3")
                with large(host, "out"):
                    returned = peer.exec("busybox", "sh", "-c", f"busybox nc {back} 5000 <{big}").stdout.split()[0]
                assert (arrived, returned) == (sum, sum)
        # Beside what the guest says when it boots.
        assert [d for d in host.agent_client.drops(one["id"]) if d["last"]["proto"] == 6] == []
    host.agent_client.unplug(one["id"])
    assert "tapvm" not in links(host)
