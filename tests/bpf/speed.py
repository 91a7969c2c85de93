"""Tell how long the data plane needs for a packet on its main ways: nanoseconds, without the kernel around it.

PYTHONPATH=tests python -m bpf.speed
"""

from __future__ import annotations

from collections.abc import Iterator
from socket import if_nametoindex
from statistics import median

from bpf.packets import ACK, SYN, TCP, UDP, arp, tcp, udp
from bpf.world import AWAY, BARE, CLEAR, FAR, RED, THERE, A, B, D, Who, World, frame, gateway, rule, world
from crossway.model import rows as r

ROUNDS = 15
OUT = r.Way.OUT


def ways(w: World) -> Iterator[tuple[str, str, bytes, str, tuple[int, ...], int]]:
    """Yield what to measure: name, hook, frame, link, tunnel, runs with one packet: 1 if it comes out changed."""
    far = int.from_bytes(r.pack_ip(THERE)[12:], "little")
    for v in (4, 6):
        for to, where in ((B, "same host"), (FAR, "other host")):
            w.send(frame(A, to, TCP, tcp(1, 2, SYN), v))
            sent = frame(A, to, TCP, tcp(1, 2, ACK), v)
            yield f"established TCP, {where}, IPv{v}", "from_workload", sent, "da", (), 99999
        sent = frame(FAR, A, TCP, tcp(2, 1, ACK), v)
        yield f"established TCP, from the overlay, IPv{v}", "from_overlay", sent, "vxlan", (RED, 3, far), 99999
        for to, where in ((D, "same host"), (AWAY, "other host")):
            sent = frame(A, to, UDP, udp(1, 2), v, to=gateway(RED), ttl=255)
            yield f"established UDP through a router, {where}, IPv{v}", "from_workload", sent, "da", (), 1
    numbers = range(20, 120)
    w.policy(A.identity, *(rule(A.identity, OUT, proto=UDP, port=n, number=n, stateless=1) for n in numbers))
    bits = r.pack_bits(sum(1 << n for n in numbers))
    addresses = (r.pack_ip(ip) for ip in (FAR.ip4, *(f"10.5.{n >> 8}.{n & 255}" for n in range(900))))
    w.put("prefixes", {r.PrefixKey(192, A.identity, OUT, r.Family.IPV4, ip): r.Prefix(bits) for ip in addresses})
    yield "judged anew: 100 ports, 901 prefixes", "from_workload", frame(A, FAR, UDP, udp(1, 50)), "da", (), 99999
    yield "refused: no rule has its port", "from_workload", frame(A, FAR, UDP, udp(1, 5)), "da", (), 99999
    peer = Who(CLEAR, 12, 0, "dc", secured=False)
    w.add(peer)
    yield "no security, same host", "from_workload", frame(BARE, peer, TCP, tcp(1, 2, ACK)), "du", (), 99999
    yield "ARP, answered", "from_workload", arp(1, A.mac, A.ip4, B.ip4), "da", (), 1
    yield "dropped: spoofed", "from_workload", frame(B, A, UDP, udp(1, 2)), "da", (), 99999


def main() -> None:
    with world() as w:
        for name, hook, sent, link, cb, repeat in ways(w):
            index = if_nametoindex(link)
            rounds = [w.bpf.run(hook, sent, repeat=repeat, cb=cb, ifindex=index).nanoseconds for _ in range(ROUNDS)]
            print(f"{name:55} {median(rounds):6.0f} ns{'' if repeat > 1 else ', caches cold'}")


if __name__ == "__main__":
    main()
