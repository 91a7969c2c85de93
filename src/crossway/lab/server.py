"""A bare-metal server: nothing of Crossway runs on it; it is plugged into a switch, which is trunked to hosts.

    server  eth0 ═ bridge of its VLAN ─┬─ tags ═ trunk0  of each host that is to serve it
                                       └─ tags ═ trunk0
                    the lab's switch

The switch gives what leaves it for a host the VLAN's tag, and takes it off what
comes from there; what comes with another tag never gets to the server. It
learns each VLAN's MACs apart, as switches do, with a bridge for each: a server
may speak to another behind the same host, whose MAC is then seen in two VLANs.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterable

from crossway.errors import Unavailable
from crossway.lab.lab import Host, Lab
from crossway.lab.place import Place

TRUNK = "trunk0"  # what a host calls its end
MTU = 1500
_SOURCE = """
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
static long (*push)(struct __sk_buff *, __u16, __u16) = (void *)BPF_FUNC_skb_vlan_push;
static long (*pop)(struct __sk_buff *) = (void *)BPF_FUNC_skb_vlan_pop;
static long (*redirect)(__u32, __u64) = (void *)BPF_FUNC_redirect;
__attribute__((section("classifier/tag"), used)) int out(struct __sk_buff *skb)
{
	return push(skb, __builtin_bswap16(0x8100), VLAN) ? TC_ACT_SHOT : redirect(TRUNK, 0);
}
__attribute__((section("classifier/untag"), used)) int in(struct __sk_buff *skb)
{
	if (!skb->vlan_present || (skb->vlan_tci & 0xfff) != VLAN)
		return TC_ACT_UNSPEC;
	return pop(skb) ? TC_ACT_SHOT : redirect(SIDE, 0);
}
__attribute__((section("license"), used)) char license_[] = "GPL";
"""
_BOUND = """#!/bin/sh
[ "$1" = bound ] || exit 0
ip -4 address flush dev "$interface"
ip address add "$ip/$mask" dev "$interface"
[ -z "$mtu" ] || ip link set "$interface" mtu "$mtu"
[ -z "$router" ] || ip route replace default via "${router%% *}"
"""


class Server(Place):
    """A server on one VLAN of a switch that some hosts are trunked to; it ends with its lab."""

    def __init__(self, lab: Lab, name: str, mac: str, vlan: int, hosts: Iterable[Host]) -> None:
        super().__init__(name, lab.namespace(name).netns)
        self.lab, self.mac, self.vlan = lab, mac, vlan
        self._files = lab.state.run / f"server-{name}"
        self._files.mkdir()
        self._hosts = list(hosts)
        self.add_card("eth0", mac, vlan)

    def add_card(self, device: str, mac: str, vlan: int) -> None:
        """Plug a network card into one more port of the switch."""
        switch, name = self.lab.switch, self.name if device == "eth0" else f"{self.name}-{device}"
        bridge, port = f"{name}-vlan", f"{name}-port"
        sides = {host.name: (f"{name}-{host.name}", f"{name}-{host.name}-t") for host in self._hosts}
        switch.script([
            f"link add {bridge} mtu {MTU} type bridge mcast_snooping 0 stp_state 0",
            f"link add {port} mtu {MTU} type veth peer name {device} mtu {MTU} address {mac} netns {self.netns}",
            f"link set {port} master {bridge}",
            *(f"link add {side} mtu {MTU} type veth peer name {end} mtu {MTU}" for side, end in sides.values()),
            *(f"link set {side} master {bridge}" for side, _ in sides.values()),
            *(f"link set {link} addrgenmode none up" for ends in sides.values() for link in ends),
            *(f"link set {link} addrgenmode none up" for link in (bridge, port)),
        ])  # fmt: skip
        for host in self._hosts:
            trunk(self.lab, host)
            self._tag(f"{host.name}-{TRUNK}", sides[host.name][1], vlan)
        # Its kernel takes the router's word, as a machine's does.
        self.script(
            [f"link set {device} up"],
            [f"net/ipv6/conf/{device}/accept_ra=1", f"net/ipv6/conf/{device}/autoconf=1"],
        )

    def _tag(self, end: str, side: str, vlan: int) -> None:
        """Let a VLAN's bridge speak to a host: *end* is the trunk's, *side* the bridge's."""
        links = json.loads(self.lab.switch.exec("ip", "-j", "link").stdout)
        index = {link["ifname"]: link["ifindex"] for link in links}
        object = self._files / f"{side}.bpf.o"
        known = {"VLAN": vlan, "TRUNK": index[end], "SIDE": index[side]}
        headers = f"/usr/include/{os.uname().machine}-linux-gnu"
        done = subprocess.run(
            ["clang", "-target", "bpf", "-O2", "-isystem", headers, "-x", "c", "-", "-c", "-o", str(object)]
            + [f"-D{name}={value}" for name, value in known.items()],
            input=_SOURCE, text=True, capture_output=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise Unavailable(f"clang does not compile a switch port: {done.stderr.strip()}")
        self.lab.switch.exec("tc", "qdisc", "add", "dev", side, "clsact")
        for link, section in ((side, "tag"), (end, "untag")):
            # Else tc would make itself at home in the first bpf file system that it finds: a host's agent's.
            what = f"mount -t bpf bpf /sys/fs/bpf && tc filter add dev {link} ingress bpf da obj {object} sec"
            self.lab.switch.exec(
                *("unshare", "--mount", "--propagation", "private", "sh", "-c", f"{what} classifier/{section}")
            )

    def boot(self, *addresses: str, seconds: float = 30.0, device: str = "eth0") -> None:
        """Have it ask for its address, as any server does, and wait until it has all of these."""
        script = self._files / "bound"
        script.write_text(_BOUND)
        script.chmod(0o755)
        self.exec(
            *("busybox", "udhcpc", "-f", "-n", "-q", "-t", "20", "-T", "1", "-i", device, "-s", str(script)),
            seconds=seconds,
        )
        end = time.monotonic() + seconds
        while any(ip not in (has := self._addresses(device)) for ip in addresses):
            if time.monotonic() > end:
                raise Unavailable(f"{self.name} has {', '.join(has)} and not {', '.join(addresses)}")
            time.sleep(0.1)

    def _addresses(self, device: str) -> list[str]:
        told = json.loads(self.exec("ip", "-j", "address", "show", "dev", device).stdout)
        return [a["local"] for link in told for a in link.get("addr_info", []) if not a.get("tentative")]


def trunk(lab: Lab, host: Host) -> str:
    """Trunk a host to the switch, if it is not; return what the host calls its end."""
    end = f"{host.name}-{TRUNK}"
    if not _there(lab.switch, end):
        lab.switch.script([
            f"link add {end} mtu {MTU} type veth peer name {TRUNK} mtu {MTU} netns {host.netns}",
            f"link set {end} up",
        ])  # fmt: skip
        lab.switch.exec("tc", "qdisc", "add", "dev", end, "clsact")
        host.script([f"link set {TRUNK} addrgenmode none", f"link set {TRUNK} up"])
    return TRUNK


def _there(place: Place, link: str) -> bool:
    return place.exec("ip", "link", "show", link, check=False).returncode == 0
