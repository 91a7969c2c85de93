"""One network: who is on it hears each other."""

from __future__ import annotations

import struct

from crossway.lab.battery import frames
from crossway.lab.battery.pair import IMPATIENCE, PATIENCE, Pair, must
from crossway.lab.battery.registry import Way, case
from crossway.lab.battery.tries import Ping, Tcp, Udp, token

BOTH = (4, 6)


@case("L2", "ping", families=BOTH)
def ping(pair: Pair, family: int) -> None:
    pair.arrives(Ping(family))


@case("L2", "UDP and TCP", families=BOTH)
def udp_and_tcp(pair: Pair, family: int) -> None:
    pair.arrives(Udp(family, 5000), Tcp(family, 5000))


@case("L2", "ping from and to link-local addresses")
def link_local(pair: Pair) -> None:
    told = pair.source.probe.must("ping", "*", f"{pair.target.link_local}%{pair.source.device}", 1, 5000)
    must(told["got"], "no answer from the link-local address")


@case("L2", "ARP is answered with the port's MAC")
def arp(pair: Pair) -> None:
    with pair.source.probe.socket("packet", pair.source.device, "0x0806") as raw:
        source = pair.source
        asked = frames.arp(source.mac, "ff:ff:ff:ff:ff:ff", frames.ASK, source.mac, source.ip4, pair.target.ip4)
        raw.send(asked)
        told = raw.find(lambda f: f[20:22] == b"\0\2" and f[28:32] == frames.packed(pair.target.ip4), PATIENCE)
        must(told, "nobody answers")
        must(told and told[22:28] == frames.mac(pair.target.mac), "another MAC is told")


@case("L2", "neighbour discovery is answered with the port's MAC")
def neighbour(pair: Pair) -> None:
    source, target = pair.source, frames.packed(pair.target.ip6)
    with source.probe.socket("packet", source.device, "0x86dd") as raw:
        group = f"ff02::1:ff{target[-3]:02x}:{target[-2]:02x}{target[-1]:02x}"
        group_mac = f"33:33:ff:{target[-3]:02x}:{target[-2]:02x}:{target[-1]:02x}"
        body = struct.pack("!BBHI", frames.NEIGHBOUR_ASKED, 0, 0, 0) + target + b"\x01\x01" + frames.mac(source.mac)
        raw.send(frames.icmp6(source.mac, group_mac, source.ip6, group, body))
        told = raw.find(lambda f: f[54:55] == bytes([frames.NEIGHBOUR]) and f[62:78] == target, PATIENCE)
        must(told, "nobody answers")
        must(told and frames.mac(pair.target.mac) in told[78:], "another MAC is told")


@case("L2", "nobody answers for an address that nobody has")
def nobody(pair: Pair) -> None:
    source = pair.source
    with source.probe.socket("packet", source.device, "0x0806") as raw, pair.drop("NO_NEIGHBOUR", source):
        raw.send(frames.arp(source.mac, "ff:ff:ff:ff:ff:ff", frames.ASK, source.mac, source.ip4, "10.64.1.199"))
        told = raw.find(lambda f: f[20:22] == b"\0\2" and f[28:32] == frames.packed("10.64.1.199"), IMPATIENCE)
        must(told is None, "somebody answers")


def _heard(pair: Pair, group: str, join: bool) -> None:
    """Send a datagram to a group, or to all, and have it heard."""
    source, target = pair.source, pair.target
    options = [f"dev={target.device}", *([f"join={group}"] if join else [])]
    with (
        target.probe.socket("udp", "::" if ":" in group else "0.0.0.0", 5001, *options) as ear,
        source.probe.socket("udp", "::" if ":" in group else source.ip4, 0, f"dev={source.device}", "broadcast=1",
                            "ttl=4") as mouth,
    ):  # fmt: skip
        mark = token()
        fault = mouth.send(mark, group, 5001)
        must(not fault, f"it cannot be sent: {fault}")
        must(ear.find(lambda data: data == mark, PATIENCE), "it is not heard")


@case("L2", "broadcast to all")
def broadcast(pair: Pair) -> None:
    _heard(pair, "255.255.255.255", False)


@case("L2", "broadcast to the subnet")
def subnet_broadcast(pair: Pair) -> None:
    _heard(pair, "10.64.1.255", False)


@case("L2", "multicast", families=BOTH)
def multicast(pair: Pair, family: int) -> None:
    _heard(pair, "239.64.1.1" if family == 4 else "ff05::64:1", True)


@case("L2", "what is for a MAC that nobody has goes nowhere")
def unknown_mac(pair: Pair) -> None:
    source, target = pair.source, pair.target
    with (
        source.probe.socket("packet", source.device, "0x88b6") as raw,
        target.probe.socket("packet", target.device, "0x0003") as ear,
    ):
        mark = token()
        raw.send(frames.udp(source.mac, target.mac, source.ip4, target.ip4, mark))
        must(ear.find(lambda data: mark in data, PATIENCE), "what is for its own MAC does not arrive")
        mark = token()
        with pair.drop("NO_MAC", source):
            raw.send(frames.udp(source.mac, frames.NOBODY_MAC, source.ip4, target.ip4, mark))
            must(ear.find(lambda data: mark in data, IMPATIENCE) is None, "it arrives")


@case("L2", "a megabyte over TCP, each way", families=BOTH, ways=(Way.SWITCHED, Way.ROUTED))
def megabyte(pair: Pair, family: int) -> None:
    size = 1 << 20
    own, to = pair.source.ip(family), pair.target.ip(family)
    with pair.target.probe.socket("tcp", to, 5002) as door:
        told = pair.source.probe.must("connect", own, to, 5002, 8000)
        near, far = told["fd"], door.accept(PATIENCE).fd
        try:
            for mouth, end, ear, begin in (
                (pair.source.probe, near, pair.target.probe, far), (pair.target.probe, far, pair.source.probe, near),
            ):  # fmt: skip
                mouth.must("pour", end, size)
                heard = ear.must("drain", begin, size, 20000, seconds=60)
                must(heard == {"bytes": size, "right": True}, f"{heard} came of {size} bytes")
        finally:
            pair.source.probe.ask("close", near)
            pair.target.probe.ask("close", far)
