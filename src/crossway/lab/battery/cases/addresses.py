"""What a body is told of itself: its addresses, its router, and what else its subnet says."""

from __future__ import annotations

import struct

from crossway.agent.guest.frame import BROADCAST, UDP, Frame, build, parse
from crossway.lab.battery import frames
from crossway.lab.battery.bodies import Card
from crossway.lab.battery.pair import IMPATIENCE, PATIENCE, Pair, eventually, must
from crossway.lab.battery.registry import Way, case
from crossway.lab.battery.scene import DNS, NETWORKS, cidr, gate
from crossway.lab.battery.tries import Udp

COOKIE = bytes.fromhex("63825363")
MASK, ROUTER, SERVERS, MTU, LEASE, SERVER = 1, 3, 6, 26, 51, 54
PREFIX, LINK_MTU, RECURSIVE = 3, 5, 25  # options of router advertisements


def discover(card: Card) -> bytes:
    """Return a question for an address (RFC 2131)."""
    body = struct.pack("!BBBBIHH", 1, 1, 6, 0, 0x5EED, 0, 0x8000) + bytes(16)
    body += frames.mac(card.mac).ljust(16, b"\0") + bytes(192) + COOKIE
    body += bytes([53, 1, 1, 55, 4, MASK, ROUTER, SERVERS, MTU, 255])
    return build(Frame(BROADCAST, frames.mac(card.mac), bytes(4), b"\xff" * 4, UDP, 68, 67, body))


def offered(card: Card) -> tuple[str, dict[int, bytes]]:
    """Return the address that a card is offered by DHCP, and the options."""
    with card.probe.socket("packet", card.device, "0x0800") as raw:
        raw.send(discover(card))
        told = raw.find(lambda f: f[34:38] == struct.pack("!HH", 67, 68), PATIENCE)
    must(told, f"{card} is offered no address")
    body = told[42:] if told else b""
    options: dict[int, bytes] = {}
    at = 240
    while at < len(body) and body[at] != 255:
        if not body[at]:
            at += 1
            continue
        options[body[at]] = body[at + 2 : at + 2 + body[at + 1]]
        at += 2 + body[at + 1]
    return ".".join(str(byte) for byte in body[16:20]), options


def mtu(card: Card) -> int:
    return int(card.body.lab.client.show("network", card.network_id)["mtu"])


@case("addresses", "DHCP offers its own address, with mask, MTU and DNS servers", ways=(Way.SWITCHED, Way.ROUTED))
def dhcp(pair: Pair) -> None:
    for card in (pair.source, pair.target):
        ip, options = offered(card)
        must(ip == card.ip4, f"{card} is offered {ip} and not {card.ip4}")
        must(options.get(MASK) == b"\xff\xff\xff\0", f"the mask is {options.get(MASK)!r}")
        must(options.get(SERVERS) == frames.packed(DNS[4]), f"DNS servers are {options.get(SERVERS)!r}")
        must(options.get(MTU) == struct.pack("!H", mtu(card)), f"the MTU is {options.get(MTU)!r}")
        router = None if card.network == "lan" else frames.packed(gate(card.network, 4))
        must(options.get(ROUTER) == router, f"the router is {options.get(ROUTER)!r}")


@case("addresses", "IPv6: its prefix, router, MTU and DNS servers are told", ways=(Way.SWITCHED, Way.ROUTED))
def advertised(pair: Pair) -> None:
    for card in (pair.source, pair.target):
        told = _advertised(card)
        if card.body.kind == "container":
            # Docker gives a container its addresses and routes: another's word would make them twice.
            must(told is None, "a router speaks to a container")
            routes = card.probe.run("ip -6 route show default")
            must((f"dev {card.device}" in routes) is (card.network != "lan"), f"{card} has {routes or 'no route'}")
        else:
            _as_it_should_be(card, told)


def _advertised(card: Card) -> bytes | None:
    """Ask for a router; return what it says."""
    with card.probe.socket("packet", card.device, "0x86dd") as raw:
        body = struct.pack("!BBHI", 133, 0, 0, 0) + b"\x01\x01" + frames.mac(card.mac)
        raw.send(frames.icmp6(card.mac, "33:33:00:00:00:02", card.link_local, "ff02::2", body))
        patience = IMPATIENCE if card.body.kind == "container" else PATIENCE
        return raw.find(lambda f: f[20] == 58 and f[54] == frames.ADVERTISEMENT, patience)


def _as_it_should_be(card: Card, told: bytes | None) -> None:
    must(told, f"no router speaks to {card}")
    body = told[54:] if told else b""
    options = {}
    at = 16
    while at + 1 < len(body) and body[at + 1]:
        options[body[at]] = body[at : at + 8 * body[at + 1]]
        at += 8 * body[at + 1]
    lifetime = struct.unpack_from("!H", body, 6)[0]
    must(bool(lifetime) is (card.network != "lan"), f"the router lives for {lifetime} s")
    prefix = frames.packed(cidr(card.network, 6).split("/")[0])
    must(options.get(PREFIX, b"")[16:32] == prefix, f"the prefix is {options.get(PREFIX)!r}")
    must(options.get(LINK_MTU, b"")[4:] == struct.pack("!I", mtu(card)), f"the MTU is {options.get(LINK_MTU)!r}")
    must(frames.packed(DNS[6]) in options.get(RECURSIVE, b""), f"DNS servers are {options.get(RECURSIVE)!r}")


@case("addresses", "DHCPv6 tells DNS servers", ways=(Way.ROUTED,))
def dhcpv6(pair: Pair) -> None:
    for card in (pair.source, pair.target):
        with card.probe.socket("packet", card.device, "0x86dd") as raw:
            asked = struct.pack("!I", 11 << 24 | 0x5EED) + struct.pack("!HHHH", 6, 2, 23, 0)
            asked = asked[:8] + struct.pack("!H", 23)  # the option request asks for DNS servers
            asked += struct.pack("!HHHH", 1, 10, 3, 1) + frames.mac(card.mac)
            raw.send(
                frames.udp(card.mac, "33:33:00:01:00:02", card.link_local, "ff02::1:2", asked, (546, 547))
            )  # fmt: skip
            told = raw.find(lambda f: f[20] == 17 and f[54:58] == struct.pack("!HH", 547, 546), PATIENCE)
        must(told, f"nobody answers {card}")
        heard = parse(told or b"")
        must(heard is not None and heard.body[0] == 7, "the answer is no reply")
        must(frames.packed(DNS[6]) in (told or b""), "no DNS server is told")


@case("addresses", "it has the addresses of its port, and no others")
def fixed(pair: Pair) -> None:
    for card in (pair.source, pair.target):
        told = card.probe.run(f"ip -o address show dev {card.device} scope global")
        has = {line.split()[3] for line in told.splitlines()}
        must(has == {f"{card.ip4}/24", f"{card.ip6}/64"}, f"{card} has {', '.join(sorted(has))}")
        told = card.probe.run(f"ip link show dev {card.device}")
        must(f" mtu {mtu(card)} " in told, f"the MTU of {card} is not {mtu(card)}: {told}")


@case("addresses", "a port that gets another address is reached there, and may not use the old one")
def renumbered(pair: Pair) -> None:
    target, old = pair.target, pair.target.ip4
    one = Udp(4, 5000)
    pair.arrives(one)
    new = f"10.64.{NETWORKS['lan']}.{150 + int(old.rsplit('.', 1)[1])}"
    other = {"subnet_id": pair.scene.subnets["lan", 6], "ip_address": target.ip6}

    def becomes(ip: str) -> None:
        pair.set(target, fixed_ips=[other, {"subnet_id": pair.scene.subnets["lan", 4], "ip_address": ip}])
        target.renumber(ip)

    try:
        becomes(new)
        pair.arrives(one)
        with target.probe.socket("packet", target.device, "0x88b6") as raw, pair.drop("SPOOFED_IPV4", target):
            raw.send(frames.udp(target.mac, pair.source.mac, old, pair.source.ip4, b"old"))
    finally:
        becomes(old)
    pair.arrives(one)


@case("addresses", "an allowed address pair may be used, and no other", families=(4, 6))
def allowed_pair(pair: Pair, family: int) -> None:
    source, target = pair.source, pair.target
    last = int(source.ip4.rsplit(".", 1)[1])
    ip, length = (f"10.64.1.{200 + last}", 32) if family == 4 else (f"fd64:1::{200 + last}", 128)
    source.probe.run(f"ip address add {ip}/{length} dev {source.device}")
    try:
        with pair.changed(source, allowed_address_pairs=[{"ip_address": ip}]):
            must(eventually(lambda: "tentative" not in source.probe.run(f"ip address show dev {source.device}")),
                 "the kernel does not get its address")  # fmt: skip
            told = source.probe.must("ping", ip, target.ip(family), 1, 8000)
            must(told["got"], "no answer comes to the address of the pair")
        with pair.drop(f"SPOOFED_IPV{family}", source):
            told = source.probe.must("ping", ip, target.ip(family), 1, 300)
            must(not told["got"], "an answer comes without the pair")
    finally:
        source.probe.run(f"ip address del {ip}/{length} dev {source.device}")
