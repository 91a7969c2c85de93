"""A bare-metal server: nothing of Crossway runs on it; it is plugged into a switch, which is trunked to hosts.

    server      eth0 ─ port ┐ tags ┌ up ═ bridge `trunk` ═ trunk0  of each host that is to serve it
                            └──────┘
                          the lab's switch

The switch port gives what the server sends its VLAN's tag, and takes it off
what comes for it; what comes with another tag never gets there.
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
__attribute__((section("classifier/tag"), used)) int in(struct __sk_buff *skb)
{
	return push(skb, __builtin_bswap16(0x8100), VLAN) ? TC_ACT_SHOT : redirect(UP, 0);
}
__attribute__((section("classifier/untag"), used)) int out(struct __sk_buff *skb)
{
	if (!skb->vlan_present || (skb->vlan_tci & 0xfff) != VLAN || pop(skb))
		return TC_ACT_SHOT;
	return redirect(PORT, 0);
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
        for host in hosts:
            trunk(lab, host)
        port, up = f"{name}-port", f"{name}-up"
        lab.switch.script([
            f"link add {port} mtu {MTU} type veth peer name eth0 mtu {MTU} address {mac} netns {self.netns}",
            f"link add {up} mtu {MTU} type veth peer name {name}-trunk mtu {MTU}",
            f"link set {name}-trunk master trunk",
            *(f"link set {link} addrgenmode none" for link in (port, up, f"{name}-trunk")),
            *(f"link set {link} up" for link in (port, up, f"{name}-trunk")),
        ])  # fmt: skip
        self._tag(port, up)
        # Its kernel takes the router's word, as a machine's does.
        self.script(["link set eth0 up"], ["net/ipv6/conf/eth0/accept_ra=1", "net/ipv6/conf/eth0/autoconf=1"])

    def _tag(self, port: str, up: str) -> None:
        """Let the switch port tag and untag."""
        links = json.loads(self.lab.switch.exec("ip", "-j", "link").stdout)
        index = {link["ifname"]: link["ifindex"] for link in links}
        object = self._files / "port.bpf.o"
        known = {"VLAN": self.vlan, "PORT": index[port], "UP": index[up]}
        headers = f"/usr/include/{os.uname().machine}-linux-gnu"
        done = subprocess.run(
            ["clang", "-target", "bpf", "-O2", "-isystem", headers, "-x", "c", "-", "-c", "-o", str(object)]
            + [f"-D{name}={value}" for name, value in known.items()],
            input=_SOURCE, text=True, capture_output=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise Unavailable(f"clang does not compile a switch port: {done.stderr.strip()}")
        for link, section in ((port, "tag"), (up, "untag")):
            self.lab.switch.exec("tc", "qdisc", "add", "dev", link, "clsact")
            # Else tc would make itself at home in the first bpf file system that it finds: a host's agent's.
            what = f"mount -t bpf bpf /sys/fs/bpf && tc filter add dev {link} ingress bpf da obj {object} sec"
            self.lab.switch.exec(
                *("unshare", "--mount", "--propagation", "private", "sh", "-c", f"{what} classifier/{section}")
            )

    def boot(self, *addresses: str, seconds: float = 30.0) -> None:
        """Have it ask for its address, as any server does, and wait until it has all of these."""
        script = self._files / "bound"
        script.write_text(_BOUND)
        script.chmod(0o755)
        self.exec(
            *("busybox", "udhcpc", "-f", "-n", "-q", "-t", "20", "-T", "1", "-i", "eth0", "-s", str(script)),
            seconds=seconds,
        )
        end = time.monotonic() + seconds
        while any(ip not in self._addresses() for ip in addresses):
            if time.monotonic() > end:
                raise Unavailable(f"{self.name} has {', '.join(self._addresses())} and not {', '.join(addresses)}")
            time.sleep(0.1)

    def _addresses(self) -> list[str]:
        told = json.loads(self.exec("ip", "-j", "address", "show", "dev", "eth0").stdout)
        return [a["local"] for link in told for a in link.get("addr_info", []) if not a.get("tentative")]


def trunk(lab: Lab, host: Host) -> str:
    """Trunk a host to the switch, if it is not; return what the host calls its end."""
    end = f"{host.name}-{TRUNK}"
    if not _there(lab.switch, "trunk"):
        lab.switch.script([
            f"link add trunk mtu {MTU} type bridge mcast_snooping 0 stp_state 0",
            "link set trunk up",
        ])  # fmt: skip
    if not _there(lab.switch, end):
        lab.switch.script([
            f"link add {end} mtu {MTU} type veth peer name {TRUNK} mtu {MTU} netns {host.netns}",
            f"link set {end} master trunk up",
        ])  # fmt: skip
        host.script([f"link set {TRUNK} addrgenmode none", f"link set {TRUNK} up"])
    return TRUNK


def _there(place: Place, link: str) -> bool:
    return place.exec("ip", "link", "show", link, check=False).returncode == 0
