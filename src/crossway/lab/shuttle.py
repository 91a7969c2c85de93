"""Carry the frames of an impaired link: the process that impair.py splices in."""

from __future__ import annotations

import argparse
import fcntl
import heapq
import os
import random
import select
import signal
import struct
import subprocess
import time
from dataclasses import dataclass, field

from crossway.lab.impair import Direction, Impairment, names, plain

# What may wait in both directions; more is lost, as in any switch.
QUEUE = 20_000

_TUNSETIFF = 0x400454CA
_IFF_TAP = 0x0002
_IFF_NO_PI = 0x1000


@dataclass(order=True)
class Waiting:
    """A packet on its way: when it goes on, and to which tap."""

    at: float
    turn: int
    to: int = field(compare=False)
    frame: bytes = field(compare=False)


def _tap(name: str) -> int:
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
    return fd


def _ip(lines: list[str]) -> None:
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)


def shuttle(near: int, far: int, how: Impairment, seed: int | None, wake: int) -> list[Direction]:
    """Carry frames between two taps until *wake* can be read; return what happened each way."""
    there, back = (Direction(how, random.Random(None if seed is None else seed + n)) for n in (0, 1))
    way = {near: (far, there), far: (near, back)}
    queue: list[Waiting] = []
    turn = 0
    while True:
        now = time.monotonic()
        while queue and queue[0].at <= now:
            due = heapq.heappop(queue)
            try:
                os.write(due.to, due.frame)
            except (BlockingIOError, OSError):
                # The bridge's port is down or full: a cable would lose it as well.
                way[near if due.to == far else far][1].lost += 1
        # Unlike poll, select takes less than a millisecond.
        readable, _, _ = select.select([near, far, wake], [], [], max(0.0, queue[0].at - now) if queue else None)
        if wake in readable:
            return [there, back]
        now = time.monotonic()
        for fd in readable:
            to, direction = way[fd]
            for _ in range(64):
                try:
                    frame = os.read(fd, 65536)
                except BlockingIOError:
                    break
                at = direction.departure(now)
                if at is None:
                    continue
                if len(queue) >= QUEUE:
                    direction.lost += 1
                    continue
                turn += 1
                heapq.heappush(queue, Waiting(at, turn, to, frame))


def main() -> None:
    """Run in the switch's namespace, between a link's end and its bridge, until told to end."""
    parser = argparse.ArgumentParser(prog="crossway.lab.shuttle")
    parser.add_argument("end")
    parser.add_argument("bridge")
    parser.add_argument("--mtu", type=int, required=True)
    for name in ("loss", "delay", "jitter", "reorder"):
        parser.add_argument(f"--{name}", type=float, default=0.0)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--ready-fd", type=int, required=True)
    args = parser.parse_args()

    awake, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGTERM, lambda _number, _frame: None)

    bridge, near_name, far_name = names(args.end)
    near, far = _tap(near_name), _tap(far_name)
    _ip([
        f"link add {bridge} mtu {args.mtu} type bridge mcast_snooping 0 stp_state 0",
        f"link set {bridge} up",
        f"link set {near_name} mtu {args.mtu} master {bridge}",
        f"link set {near_name} up",
        f"link set {far_name} mtu {args.mtu} master {args.bridge}",
        f"link set {far_name} up",
        f"link set {args.end} master {bridge}",
    ])  # fmt: skip
    try:
        os.write(args.ready_fd, b"1")
        how = Impairment(args.loss, args.delay, args.jitter, args.reorder)
        for name, way in zip(("from the host", "to the host"), shuttle(near, far, how, args.seed, awake), strict=True):
            print(f"{name}: {way.passed} passed, {way.lost} lost, {way.held} held back", flush=True)
    finally:
        _ip(plain(args.end, args.bridge))


if __name__ == "__main__":
    main()
