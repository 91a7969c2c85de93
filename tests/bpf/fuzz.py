"""Throw hostile frames at the three hooks and hold what passes against an independent reading of it.

    PYTHONPATH=tests python -m bpf.fuzz --frames 1000000 --seed 1

The same seed gives the same frames. A frame is a good one that has been cut,
stretched, spliced or had fields set to what programs stumble over. Asserted:

- the verdict is one that the hook may give, and every drop is counted;
- what leaves goes to a link that the sender's network has to do with;
- what passes the guard has the port's own source, read here from the bytes;
- now and then, a good packet still passes as it should.

A test run refuses frames that no driver would hand up (shorter than an
Ethernet header, or than the IP header that they announce); these are counted
apart.
"""

from __future__ import annotations

import argparse
import ctypes as c
import errno
import os
import random
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address
from socket import if_nametoindex

from bpf.packets import (
    ACK,
    ARP,
    BROADCAST,
    GRE,
    ICMP,
    ICMPV6,
    IPV4,
    IPV6,
    MF,
    SCTP,
    TCP,
    UDP,
    VLAN,
    arp,
    echo,
    eth,
    icmp,
    ip,
    ipv6_fragment,
    na,
    ns,
    raw,
    tcp,
    udp,
)  # fmt: skip
from bpf.test_published import AT, CLIENT, FROM, HOST, publish, quoted
from bpf.world import (
    AWAY,
    BARE,
    BLUE,
    CLEAR,
    DEVICES,
    FAR,
    GREY,
    NEIGHBOUR,
    PUBLIC,
    RED,
    STOLEN,
    STRANGER,
    TAGGED,
    TAP,
    THERE,
    A,
    B,
    D,
    Who,
    World,
    direct_world,
    frame,
    gateway,
    own_mac,
    wrapped,
)  # fmt: skip
from crossway.kernel.bpf import CONTEXT, CONTEXT_SIZE, REDIRECT, SHOT, UNSPEC, _TestRun, lib

GATEWAY = gateway(RED)
LARGEST = 3300  # bytes that a test run takes
EDGES = bytes((0, 1, 2, 4, 5, 0x0F, 0x3A, 0x40, 0x44, 0x45, 0x4F, 0x60, 0x7F, 0x80, 0x86, 0x87, 0x88, 0xFE, 0xFF))
FIELDS = (0, 6, 11, 12, 13, 14, 15, 16, 17, 18, 20, 21, 22, 23, 24, 26, 30, 34, 36, 38, 46, 47, 54, 55, 56, 58, 60, 62)


def seeds() -> list[bytes]:
    """Return good frames of every kind that the stages treat differently."""
    found = []
    for v in (4, 6):
        icmp_proto = ICMP if v == 4 else ICMPV6
        quoted = ip(A.ip(v), D.ip(v), UDP, udp(1, 2))
        for to in (B, TAP, TAGGED, FAR, D, AWAY, GATEWAY):
            via = to if to.network == RED else GATEWAY
            for ttl in (64, 1):
                found += [
                    frame(A, to, UDP, udp(1, 2), v, to=via, ttl=ttl),
                    frame(A, to, TCP, tcp(3, 4), v, to=via, ttl=ttl),
                    frame(A, to, icmp_proto, echo(v), v, to=via, ttl=ttl),
                ]
            found += [
                frame(A, to, TCP, tcp(3, 4, ACK, b"data" * 99), v, to=via),
                frame(A, to, GRE, b"data", v, to=via),
                frame(A, to, SCTP, udp(5, 6), v, to=via),
                frame(A, to, UDP, udp(67, 68), v, to=via),
                frame(A, to, UDP, udp(547, 546), v, to=via),
                frame(A, to, UDP, udp(1547, 68 if v == 4 else 546), v, to=via),
                frame(A, to, icmp_proto, icmp(3 if v == 4 else 1, 1, bytes(4), quoted), v, to=via),
                frame(A, to, UDP, udp(1, 2, bytes(1500)), v, to=via),
            ]
    extension = bytes((UDP, 0)) + bytes(6) + udp(1, 2)
    for to in (B, FAR, D):
        via = to if to.network == RED else GATEWAY
        found += [
            frame(A, to, UDP, udp(1, 2), to=via, options=b"\x94\4\0\0"),
            frame(A, to, UDP, udp(1, 2), to=via, id=1, fragment=MF),
            frame(A, to, UDP, b"rest" * 9, to=via, id=1, fragment=1),
            frame(A, to, TCP, b"rest" * 9, to=via, id=1, fragment=1),
            frame(A, to, UDP, udp(1, 2, b"data" * 99), to=via, fragment=0),
            frame(A, to, TCP, tcp(3, 4, ACK, b"data" * 99), to=via, fragment=0, options=b"\x07\7\4\0\0\0\0\1"),
            frame(A, to, UDP, b"rest" * 99, to=via, id=1, fragment=MF | 1),
            *(frame(A, to, kind, extension, 6, to=via) for kind in (0, 43, 44, 51, 60)),
            frame(A, to, 44, ipv6_fragment(UDP, 0, True, 1, udp(1, 2)), 6, to=via),
            frame(A, to, 44, ipv6_fragment(UDP, 8, False, 1, b"rest" * 9), 6, to=via),
            frame(A, to, 60, bytes((60, 0)) + bytes(6) + bytes((43, 1)) + bytes(14) + extension, 6, to=via),
        ]
    for target in (A, B, FAR, GATEWAY, Who(RED, 99, 0, None)):
        found += [
            arp(1, A.mac, A.ip4, target.ip4),
            arp(1, A.mac, "0.0.0.0", target.ip4),
            arp(2, A.mac, A.ip4, target.ip4, target.mac, target.mac),
            ns(A.mac, A.ip6, target.ip6),
            ns(A.mac, "::", target.ip6),
            ns(A.mac, A.link_local, target.ip6, dst=target.ip6, to=target.mac),
            na(A.mac, A.ip6, A.ip6, dst=target.ip6, to=target.mac),
        ]
    group = bytes.fromhex("333300000001")
    found += [
        eth(BROADCAST, A.mac, IPV4, ip(A.ip4, "255.255.255.255", UDP, udp(1, 2))),
        eth(BROADCAST, A.mac, IPV4, ip("0.0.0.0", "255.255.255.255", UDP, udp(68, 67, bytes(240)))),
        eth(group, A.mac, IPV6, ip(A.link_local, "ff02::1", ICMPV6, icmp(134, data=bytes(24)), ttl=255)),
        eth(group, A.mac, IPV6, ip("::", "ff02::16", ICMPV6, icmp(143, data=bytes(20)), ttl=1)),
        eth(B.mac, A.mac, 0x88B5, bytes(46)),
        eth(B.mac, A.mac, VLAN, b"\0\5\x08\0" + ip(A.ip4, B.ip4, UDP, udp(1, 2))),
    ]
    return found


Mutation = Callable[[random.Random, bytearray, list[bytes]], None]


def set_bytes(rng: random.Random, f: bytearray, _: list[bytes]) -> None:
    for _i in range(rng.randrange(1, 4)):
        f[rng.randrange(len(f))] = rng.getrandbits(8)


def set_field(rng: random.Random, f: bytearray, _: list[bytes]) -> None:
    at = rng.choice(FIELDS)
    if at < len(f):
        f[at] = rng.choice(EDGES)


def flip_bit(rng: random.Random, f: bytearray, _: list[bytes]) -> None:
    f[rng.randrange(len(f))] ^= 1 << rng.randrange(8)


def cut(rng: random.Random, f: bytearray, _: list[bytes]) -> None:
    del f[rng.randrange(12, len(f) + 1) :]


def stretch(rng: random.Random, f: bytearray, _: list[bytes]) -> None:
    f += rng.randbytes(rng.choice((1, 2, 8, 60, 500, 1500)))


def remove(rng: random.Random, f: bytearray, _: list[bytes]) -> None:
    at = rng.randrange(14, len(f) + 1)
    del f[at : at + rng.randrange(1, 24)]


def repeat(rng: random.Random, f: bytearray, _: list[bytes]) -> None:
    at, n = rng.randrange(len(f)), rng.randrange(1, 48)
    f[at:at] = f[at : at + n]


def splice(rng: random.Random, f: bytearray, corpus: list[bytes]) -> None:
    other = rng.choice(corpus)
    at = rng.choice((14, 34, 54, 54, 62))
    f[at:] = other[rng.choice((14, 34, 54, 62)) :]


def chain(rng: random.Random, f: bytearray, _: list[bytes]) -> None:
    """Put a random chain of extension headers into an IPv6 packet."""
    if len(f) < 54 or f[12:14] != b"\x86\xdd":
        return
    kinds = rng.choices((0, 43, 44, 51, 60, 59, 50), k=rng.randrange(1, 11))
    body = b""
    following = f[20]
    for kind in reversed(kinds):
        words = rng.choice((0, 0, 0, 1, 2, 255))
        size = (words + 2) * 4 if kind == 51 else 8 if kind == 44 else 8 + 8 * (words if words < 3 else 0)
        header = bytearray(rng.randbytes(size) if rng.random() < 0.3 else bytes(size))
        header[0], header[1] = following, words
        if kind == 44:
            header[2:4] = struct.pack("!H", rng.choice((0, 1, 8, 9, 0xFFF8, rng.getrandbits(16))))
        body = bytes(header) + body
        following = kind
    f[20] = following
    f[54:54] = body
    f[18:20] = struct.pack("!H", min(len(f) - 54, 65535))


def noise(rng: random.Random, f: bytearray, _: list[bytes]) -> None:
    f[rng.choice((0, 12, 14, 14)) :] = rng.randbytes(rng.randrange(14, 200))


def lengths(rng: random.Random, f: bytearray, _: list[bytes]) -> None:
    """Say the true length again, so that what else has changed is looked at."""
    if f[12:14] == b"\x08\0" and len(f) >= 34:
        f[16:18] = struct.pack("!H", min(len(f) - 14, 65535))
    elif f[12:14] == b"\x86\xdd" and len(f) >= 54:
        f[18:20] = struct.pack("!H", min(len(f) - 54, 65535))


MUTATIONS: tuple[Mutation, ...] = (
    set_bytes, set_field, set_field, flip_bit, cut, stretch, remove, repeat, splice, chain, chain, noise, lengths,
    lengths,
)  # fmt: skip


def mutate(rng: random.Random, corpus: list[bytes]) -> bytes:
    f = bytearray(rng.choice(corpus))
    for _ in range(rng.choice((0, 1, 1, 2, 2, 3, 5))):
        rng.choice(MUTATIONS)(rng, f, corpus)
        if len(f) < 15:
            break
    if rng.random() < 0.4:  # deeper in: past the comparison of MACs
        f[6:12] = A.mac
    return bytes(f[:LARGEST])


# ---- What a frame is, read without the data plane's help.


def transport(frame: bytes) -> tuple[int, bytes, bool]:
    """Return an IPv6 packet's upper protocol, what follows, and whether it is a later fragment."""
    proto, body = frame[20], frame[54:]
    while proto in (0, 43, 44, 51, 60):
        if proto == 44:
            if struct.unpack_from("!H", body, 2)[0] & 0xFFF8:
                return body[0], b"", True
            proto, body = body[0], body[8:]
        elif proto == 51:
            proto, body = body[0], body[(body[1] + 2) * 4 :]
        else:
            proto, body = body[0], body[(body[1] + 1) * 8 :]
    return proto, body, False


def fault(frame: bytes, who: Who) -> str | None:
    """Return why a secured port must not have sent this, or None."""
    if frame[6:12] != who.mac:
        return "another MAC"
    proto = struct.unpack_from("!H", frame, 12)[0]
    if proto == ARP:
        if frame[22:28] != who.mac:
            return "another MAC in ARP"
        if frame[28:32] == bytes(4):
            return None if frame[20:22] == b"\0\1" else "an ARP answer for nobody"
        return None if frame[28:32] == raw(who.ip4) else "another address in ARP"
    if proto == IPV4:
        head = 14 + (frame[14] & 15) * 4
        if frame[26:30] == bytes(4) and frame[23] == UDP and struct.unpack_from("!HH", frame, head) == (68, 67):
            return None if frame[0] & 1 else "DHCP without an address, but not to all"
        if frame[26:30] != raw(who.ip4):
            return "another IPv4 address"
        if offset := struct.unpack_from("!H", frame, 20)[0] & 0x1FFF:
            return "a fragment over TCP's header" if frame[23] == TCP and offset * 8 < 20 else None
        if frame[23] == UDP and struct.unpack_from("!H", frame, head + 2) == (68,):
            return "a DHCP server's answer"
        if frame[23] == ICMP and frame[head] in (5, 9):
            return "a router advertisement or redirect"
        return None
    if proto != IPV6:
        return f"protocol {proto:04x}"
    upper, body, later = transport(frame)
    source = frame[22:38]
    if source == bytes(16):
        if upper == ICMPV6 and not later and body[0] in (131, 132, 133, 135, 143):
            return None
        return "no IPv6 address"
    if source not in (raw(who.ip6), raw(who.link_local)):
        return "another IPv6 address"
    if later:
        return None
    if upper == UDP and struct.unpack_from("!H", body, 2) == (546,):
        return "a DHCPv6 server's answer"
    if upper == ICMPV6:
        if body[0] in (134, 137):
            return "a router advertisement or redirect"
        if body[0] == 136 and body[8:24] not in (raw(who.ip6), raw(who.link_local)):
            return f"an advertisement for {ip_address(body[8:24])}"
    return None


# ---- Runs.


def callers() -> list[bytes]:
    """Return good frames for what A has published, and ICMP errors about its answers."""
    found = []
    for v, kind, (error, type, code) in ((4, IPV4, (ICMP, 3, 4)), (6, IPV6, (ICMPV6, 2, 0))):
        told = icmp(type, code, bytes(4), quoted(v, HOST[v], CLIENT[v], TCP, AT, FROM, 200))
        bodies = [(TCP, tcp(FROM, AT)), (UDP, udp(FROM, AT)), (TCP, tcp(FROM, AT + 1)), (error, echo(v)), (error, told)]
        for proto, body in bodies:
            found.append(eth(bytes(6), NEIGHBOUR, kind, ip(CLIENT[v], HOST[v], proto, body)))
    part = ip(CLIENT[4], HOST[4], UDP, udp(FROM, AT, bytes(40)), id=7, fragment=MF)
    found.append(eth(bytes(6), NEIGHBOUR, IPV4, part))
    return found


FATES = {"from_workload": {SHOT, REDIRECT, STOLEN}, "from_overlay": {SHOT, REDIRECT, STOLEN},
         "from_uplink": {UNSPEC, SHOT, REDIRECT, STOLEN}}  # fmt: skip


@dataclass
class Fuzz:
    w: World
    seed: int
    verdicts: Counter[tuple[str, str]] = field(default_factory=Counter)
    refused: int = 0
    done: int = 0

    def __post_init__(self) -> None:
        self.context = bytearray(CONTEXT_SIZE)
        self.raw = (c.c_char * CONTEXT_SIZE).from_buffer(self.context)
        self.out = c.create_string_buffer(8192)
        self.opts = _TestRun(sz=c.sizeof(_TestRun), ctx_in=c.cast(self.raw, c.c_void_p), ctx_size_in=CONTEXT_SIZE,
                             data_out=c.cast(self.out, c.c_void_p), repeat=1)  # fmt: skip
        self.fds = {hook: self.w.bpf._program(hook) for hook in FATES}
        self.index = {name: if_nametoindex(name) for name in DEVICES}
        self.corpus = seeds()
        publish(self.w)
        self.w.mtu(BLUE, 100)  # so that the router fragments
        self.callers, self.own = callers(), own_mac()

    def run(self, hook: str, frame: bytes, device: str, cb: tuple[int, int, int] = (0, 0, 0), gso: int = 0) -> int:
        """Return the verdict, -1 if the kernel refuses to try."""
        struct.pack_into("<I", self.context, CONTEXT["ifindex"], self.index[device])
        struct.pack_into("<3I", self.context, CONTEXT["cb"], *cb)
        struct.pack_into("<I", self.context, CONTEXT["gso_size"], gso)
        struct.pack_into("<I", self.context, CONTEXT["gso_segs"], 2 if gso else 0)
        self.opts.data_in = c.cast(c.c_char_p(frame), c.c_void_p)
        self.opts.data_size_in = len(frame)
        self.opts.data_size_out = len(self.out)
        result = lib.bpf_prog_test_run_opts(self.fds[hook], c.byref(self.opts))
        if result == -errno.EINVAL:
            return -1
        assert result == 0, os.strerror(-result)
        return int(self.opts.retval)

    def one(self, rng: random.Random) -> None:
        frame = mutate(rng, self.corpus)
        dice = rng.random()
        gso = 0
        wraps = published = False
        who: Who | None = None
        cb = (0, 0, 0)
        if dice < 0.6:
            hook, who = "from_workload", rng.choice((A, A, A, A, BARE, TAGGED))
            device = who.device or ""
            if who is TAGGED and rng.random() < 0.9:
                frame = frame[:6] + TAGGED.mac + b"\x81\0\0\5" + frame[12:]
            if who is A and not frame[0] & 1:  # a clone of a flood would really be segmented
                gso = rng.choice((0, 0, 0, 0, 1, 500, 1400, 65535))
        elif dice < 0.85:
            hook, device = "from_overlay", "vxlan"
            host = STRANGER if rng.random() < 0.05 else THERE
            network = rng.choice((RED, RED, RED, CLEAR, GREY, 99, 0))
            cb = (network, rng.choice((0, 1, 3)), int.from_bytes(raw(host), "little"))
            frame = rng.choice((A.mac, B.mac, TAGGED.mac, BARE.mac, frame[:6])) + frame[6:]
        elif dice < 0.93:
            hook, device, wraps = "from_uplink", "uplink", True
            inner = rng.choice((A.mac, B.mac, TAP.mac, BARE.mac, frame[:6])) + frame[6 : LARGEST - 50]
            frame = wrapped(inner, network=rng.choice((RED, RED, RED, CLEAR, 99)), identity=rng.choice((0, 1, 3)))
            if rng.random() < 0.5:
                outer = bytearray(frame[:64])
                rng.choice((set_bytes, set_field, flip_bit))(rng, outer, self.corpus)
                frame = bytes(outer) + frame[64:]
            frame = frame[: rng.choice((len(frame), len(frame), len(frame), rng.randrange(34, 80)))]
        else:
            hook, device = "from_uplink", "uplink"
            if rng.random() < 0.3:  # in any order: some wait for the first one of their datagram
                part, id = rng.choice((MF, 2, 2 | MF, 4)), rng.randrange(1 << 16)
                frame = eth(PUBLIC.mac, frame[6:12], IPV4, ip("192.168.7.20", PUBLIC.ip4, UDP, udp(1, 2, bytes(8)),
                                                              id=id, fragment=part))  # fmt: skip
            frame = rng.choice((PUBLIC.mac, frame[:6])) + frame[6:12] + b"\x81\0\0\7" + frame[12:]
            if rng.random() < 0.4:  # for the host itself, where A has something published
                frame, published = mutate(rng, self.callers), True
                frame = self.own + frame[6:]
        verdict = self.run(hook, frame, device, cb, gso)
        self.done += 1
        if verdict < 0:
            self.refused += 1
            return
        self.verdicts[hook, NAMES.get(verdict, str(verdict))] += 1
        here = f"seed {self.seed}, frame {self.done}: {hook} {device} gso {gso} cb {cb} {frame.hex()}"
        assert verdict in FATES[hook], f"verdict {verdict}: {here}"
        if who is A and verdict != SHOT:
            # A TTL that runs out is told to the sender only if the guard let it.
            found = fault(frame, A)
            assert found is None, f"passed the guard with {found}: {here}"
        if verdict == REDIRECT:
            out = self.w.in_flight()["out"]
            allowed = LINKS[who.network if who else GREY if hook == "from_uplink" else cb[0]]
            if published:
                allowed = {"da"}
            elif wraps:
                allowed = LINKS[RED] | LINKS[CLEAR]
            if hook != "from_workload":
                allowed = allowed - {"vxlan", "uplink"}
            assert out in {self.index[d] for d in allowed}, f"went to link {out}: {here}"

    def canary(self) -> None:
        """Good packets still pass, and a bad one does not."""
        for frame_, verdict in (
            (frame(A, B, UDP, udp(1, 2)), REDIRECT),
            (frame(A, D, TCP, tcp(1, 2), 6, to=GATEWAY), REDIRECT),
            (arp(1, A.mac, A.ip4, B.ip4), REDIRECT),
            (frame(B, FAR, UDP, udp(1, 2)), SHOT),
        ):
            assert self.run("from_workload", frame_, A.device or "") == verdict, f"after {self.done} frames"
        assert self.run("from_uplink", wrapped(frame(FAR, B, UDP, udp(1, 2))), "uplink") == REDIRECT

    def counted(self) -> int:
        return sum(row.packets for row in self.w.bpf.table("drops").read().values())


NAMES = {UNSPEC: "passed on", SHOT: "dropped", REDIRECT: "redirected", STOLEN: "flooded or swallowed"}
LINKS = {
    # dd is behind the router; the short way to other hosts is by the uplink
    RED: {"da", "db", "dt", "trunk", "vxlan", "uplink", "dd"},
    CLEAR: {"du", "dc", "vxlan", "uplink"},
    GREY: {"dg", "uplink"},
}


def fuzz(frames: int, seed: int, tell: Callable[[str], None] = lambda text: None) -> Fuzz:
    """Run that many frames; raise AssertionError with what reproduces a fault."""
    with direct_world() as w:
        f = Fuzz(w, seed)
        rng = random.Random(seed)
        start = time.monotonic()
        before = f.counted()
        dropped = 0
        while f.done < frames:
            for _ in range(min(5000, frames - f.done)):
                f.one(rng)
            f.canary()
            dropped = sum(n for (_, fate), n in f.verdicts.items() if fate == "dropped")
            if not f.done % 100_000:
                tell(f"{f.done} frames, {f.done / (time.monotonic() - start):.0f} a second")
        assert f.counted() - before >= dropped, "a drop that was not counted"
        reasons = Counter[str]()
        for key, row in w.bpf.table("drops").read().items():
            reasons[w.reasons[key.why]] += row.packets
        flows = len(w.flows())
        tell(f"{f.refused} frames were refused by the test run; {flows} flows")
        for (hook, fate), n in sorted(f.verdicts.items()):
            tell(f"  {hook:14} {fate:20} {n:9}")
        for why, n in reasons.most_common():
            tell(f"  {why:35} {n:9}")
        return f


def main() -> int:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--frames", type=int, default=1_000_000)
    options.add_argument("--seed", type=int, default=1)
    chosen = options.parse_args()
    try:
        fuzz(chosen.frames, chosen.seed, lambda text: print(text, flush=True))
    except AssertionError as wrong:
        print(f"fuzz: {wrong}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
