"""Make the namespaces and links of a lab; cut and heal them.

                          machine ── 127.0.0.1:PORT, a socket that the server inherits
       control     h1          h2         outside
        under0   under0 up0  under0 up0     up0
           │        │    │      │    │       │
    switch ┴─ under ┴────┼──────┴────┼───────┼──     the underlay
              provider ──┴───────────┴───────┴──     physnet1

Every link is made inside the namespaces that it joins: the machine's own never
holds one, not even for a moment.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from crossway.errors import Conflict, Invalid, Unavailable
from crossway.lab.place import NETNS, Place
from crossway.lab.process import Process, stop, within
from crossway.lab.state import BEYOND, OUTSIDE, HostState, State, control_address, netns_of, prefix_length

# Addresses are there at once, without waiting for others to contradict, and
# nothing of ours asks the lab's networks for routers.
_QUIET = ("net/ipv6/conf/default/accept_dad=0", "net/ipv6/conf/default/accept_ra=0")
# The switch is a cable with plugs: it has no addresses and filters nothing.
_SWITCH = ("net/ipv6/conf/default/disable_ipv6=1", "net/bridge/bridge-nf-call-iptables=0",
           "net/bridge/bridge-nf-call-ip6tables=0", "net/bridge/bridge-nf-call-arptables=0")  # fmt: skip


def make(state: State) -> None:
    """Make all namespaces and links."""
    spaces = [state.switch, state.control, state.outside, *(h.netns for h in state.hosts)]
    _ip("".join(f"netns add {netns}\n" for netns in spaces))
    Place("switch", state.switch).script(_switch_lines(state), _SWITCH)
    for host in state.hosts:
        Place(host.name, host.netns).script(_host_lines(state, host), _QUIET)
    length = prefix_length(state.underlay)
    Place("control", state.control).script(
        [
            "link set lo up",
            f"address add {control_address(state.underlay)}/{length} dev under0 {_nodad(state.underlay)}",
            "link set under0 up",
        ],
        _QUIET,
    )
    Place("outside", state.outside).script(
        [
            "link set lo up",
            *(f"address add {a} dev up0{' nodad' if ':' in a else ''}" for a in OUTSIDE),
            *(f"address add {a} dev lo" for a in BEYOND),
            "link set up0 up",
        ],
        (*_QUIET, "net/ipv4/ip_forward=1"),
    )


def add_namespace(state: State, place: str) -> str:
    """Make one more namespace of this lab, for a workload; return its name."""
    netns = netns_of(state.name, place)
    if (NETNS / netns).exists():
        raise Conflict(f"lab {state.name} has a place {place} already")
    _ip(f"netns add {netns}\n")
    Place(place, netns).script(["link set lo up"], _QUIET)
    return netns


def remove_namespace(netns: str) -> None:
    """End what runs in a namespace and remove it; nothing happens if it is gone."""
    stop(within(NETNS / netns), seconds=1.0)
    if (NETNS / netns).exists():
        _ip(f"netns delete {netns}\n")


def namespaces(name: str) -> list[str]:
    """Return all namespaces of a lab, also those that later commands added."""
    if not NETNS.is_dir():
        return []
    return sorted(p.name for p in NETNS.iterdir() if p.name.startswith(netns_of(name, "")))


def unmount(run: Path) -> None:
    """Unmount whatever is mounted below a directory, the innermost first."""
    prefix = f"{run}/"
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for mount in reversed([m for m in mounts if m.startswith(prefix)]):
        subprocess.run(["umount", "--lazy", mount], check=True, capture_output=True)


def ends(state: State, what: str) -> list[str]:
    """Return the switch's ends of a link (`h1:under0`), or of all links of a place (`h1`)."""
    place, _, link = what.partition(":")
    if place == "control":
        links = ["under0"]
    elif place == "outside":
        links = ["up0"]
    else:
        links = ["under0", *state.host(place).physnets.values()]
    if link and link not in links:
        raise Invalid(f"{place} has no link {link}: it has {', '.join(links)}")
    return [f"{place}-{one}" for one in links if not link or one == link]


def cut(state: State, what: str) -> None:
    """Pull the plug of a link, or of all links of a place: its carrier goes, as with a real cable."""
    Place("switch", state.switch).script([f"link set {end} down" for end in ends(state, what)])


def heal(state: State, what: str) -> None:
    """Put the plug back; return when the link carries packets again."""
    healed = ends(state, what)
    switch = Place("switch", state.switch)
    switch.script([f"link set {end} up" for end in healed])
    for end in healed:
        place, link = end.split("-")
        # The kernel looks at carriers once a second; until then it drops.
        for where, name in ((switch, end), (Place(place, netns_of(state.name, place)), link)):
            stop_at = time.monotonic() + 5.0
            while "state UP" not in where.exec("ip", "-o", "link", "show", name).stdout:
                if time.monotonic() > stop_at:
                    raise Unavailable(f"{what} has no carrier after 5 s")
                time.sleep(0.02)


def cuts(state: State) -> list[str]:
    """Return the links that are cut now, as `h1:under0`."""
    shown = Place("switch", state.switch).exec("ip", "-o", "link", "show", "type", "veth").stdout
    down = []
    for line in shown.splitlines():
        name, flags = line.split(": ")[1].partition("@")[0], line.partition("<")[2].partition(">")[0].split(",")
        if "UP" not in flags:
            down.append(name.replace("-", ":"))
    return sorted(down)


def _switch_lines(state: State) -> list[str]:
    lines = ["link set lo up"]
    for bridge, mtu in (("under", state.mtu), ("provider", 1500)):
        lines += [f"link add {bridge} mtu {mtu} type bridge mcast_snooping 0 stp_state 0", f"link set {bridge} up"]
    lines += _cable("control", state.control, "under0", "under", state.mtu, "02:00:00:12:00:01")
    lines += _cable("outside", state.outside, "up0", "provider", 1500, "02:00:00:13:00:01")
    for number, host in enumerate(state.hosts, 1):
        last = f"{number >> 8:02x}:{number & 255:02x}"
        lines += _cable(host.name, host.netns, "under0", "under", state.mtu, f"02:00:00:18:{last}")
        if host.physnets:
            lines += _cable(host.name, host.netns, "up0", "provider", 1500, f"02:00:00:19:{last}")
    return lines


def _cable(place: str, netns: str, link: str, bridge: str, mtu: int, mac: str) -> list[str]:
    end = f"{place}-{link}"
    return [
        f"link add {end} mtu {mtu} type veth peer name {link} mtu {mtu} address {mac} netns {netns}",
        f"link set {end} master {bridge} up",
    ]


def _host_lines(state: State, host: HostState) -> list[str]:
    lines = [
        "link set lo up",
        f"address add {host.underlay}/{prefix_length(state.underlay)} dev under0 {_nodad(state.underlay)}",
        "link set under0 up",
    ]
    if host.physnets:
        # The host has no address there: the device is the data plane's alone.
        lines += ["link set up0 addrgenmode none", "link set up0 up"]
    return lines


def _nodad(underlay: int) -> str:
    return "nodad" if underlay == 6 else ""


def _ip(lines: str) -> None:
    subprocess.run(["ip", "-batch", "-"], input=lines, text=True, capture_output=True, check=True)


def sweepable(owner: tuple[int, int] | None) -> bool:
    """Say whether the program that was to tear a lab down is gone."""
    return owner is not None and not Process(*owner).alive
