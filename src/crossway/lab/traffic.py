"""Numbered traffic between workloads, so that a story can say what was lost.

`python -m crossway.lab.traffic ROLE …` runs one end, in whatever namespace it is
started in, until SIGTERM or SIGINT, and then prints one JSON object.
`open_in` opens a socket in another namespace from within this process.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import json
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from crossway.agent.guest.frame import checksum

CLONE_NEWNET = 0x40000000
SO_RCVBUFFORCE = 33
SO_SNDBUFFORCE = 32
NUMBER = struct.Struct("!Q")
_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def inside(netns: Path | str) -> Iterator[None]:
    """Put this thread into a network namespace for a while."""
    with open("/proc/thread-self/ns/net") as own, open(netns) as other:
        if _libc.setns(other.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter {netns}")
        try:
            yield
        finally:
            if _libc.setns(own.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "cannot return to the own network namespace")


def open_in(netns: Path | str, family: int, kind: int, proto: int = 0) -> socket.socket:
    """Open a socket that belongs to another namespace."""
    with inside(netns):
        return socket.socket(family, kind, proto)


def family_of(ip: str) -> socket.AddressFamily:
    """Return the address family of an address in text."""
    return socket.AF_INET6 if ":" in ip else socket.AF_INET


class Stop(Exception):
    """The process was asked to end."""


def _stop(*_: object) -> None:
    raise Stop


def _asked_to_end() -> list[int]:
    """Return a list that is empty until the process is asked to end."""
    ended: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.append(1))
    return ended


def send(ip: str, port: int, rate: int, size: int, source: int = 0) -> dict[str, Any]:
    """Send numbered datagrams at *rate* a second until stopped, from port *source*; return how many."""
    sock = socket.socket(family_of(ip), socket.SOCK_DGRAM)
    sock.bind(("", source))
    # Room enough that a wire which stands still costs packets, not time.
    sock.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 1 << 27)
    sock.connect((ip, port))
    fill = bytes(max(0, size - NUMBER.size))
    sent = refused = 0
    start = time.monotonic()
    ended = _asked_to_end()
    while not ended:
        due = int((time.monotonic() - start) * rate)
        for _ in range(min(due - sent, 64)):
            try:
                sock.send(NUMBER.pack(sent) + fill)
            except ConnectionRefusedError:
                refused += 1
            sent += 1
        time.sleep(0.0005)
    return {"sent": sent, "refused": refused, "seconds": time.monotonic() - start}


def receive(ip: str, port: int, knock: str = "") -> dict[str, Any]:
    """Count numbered datagrams until stopped; return how many, the longest silence in ms, and runs of lost ones.

    *knock* is IP/PORT of the sender: a datagram to it makes all of it one connection that began here.
    """
    sock = socket.socket(family_of(ip), socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 26)
    sock.bind((ip, port))
    if knock:
        there, _, door = knock.rpartition("/")
        sock.sendto(b"knock", (there, int(door)))
    print("ready", flush=True)
    seen = bytearray()
    received = twice = late = 0
    highest = -1
    last: float | None = None
    gap = 0.0
    with contextlib.suppress(Stop):
        while True:
            number = NUMBER.unpack_from(sock.recv(65536))[0]
            now = time.monotonic()
            if last is not None:
                gap = max(gap, now - last)
            last = now
            if number >= len(seen):
                seen.extend(bytes(number + 65536 - len(seen)))
            if seen[number]:
                twice += 1
                continue
            seen[number] = 1
            received += 1
            late += number < highest
            highest = max(highest, number)
    missing = [i for i in range(highest + 1) if not seen[i]]
    return {
        "received": received,
        "twice": twice,
        "late": late,
        "highest": highest,
        "missing": len(missing),
        "first_missing": missing[:10],
        "gap_ms": gap * 1000,
        "runs": _runs(missing),
    }


def echoes(ip: str, rate: int) -> dict[str, Any]:
    """Ask for numbered echoes (RFC 792, RFC 4443) at *rate* a second until stopped; tell of the answers.

    The gap is the longest time without an answer, in ms.
    """
    v6 = ":" in ip
    sock = socket.socket(family_of(ip), socket.SOCK_RAW, socket.IPPROTO_ICMPV6 if v6 else socket.IPPROTO_ICMP)
    sock.connect((ip, 0))
    sock.setblocking(False)
    asked = 0
    answered: set[int] = set()
    last: float | None = None
    gap = 0.0
    ended = _asked_to_end()
    print("ready", flush=True)
    identifier = os.getpid() & 0xFFFF
    start = time.monotonic()
    while not ended:
        now = time.monotonic()
        if now - start >= asked / rate:
            body = NUMBER.pack(asked)
            head = struct.pack("!BBHHH", 128 if v6 else 8, 0, 0, identifier, asked & 0xFFFF)
            if not v6:
                head = head[:2] + struct.pack("!H", checksum(head + body)) + head[4:]
            with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
                sock.send(head + body)
            asked += 1
        with contextlib.suppress(BlockingIOError):
            while True:
                packet = sock.recv(2048)
                icmp = packet if v6 else packet[(packet[0] & 15) * 4 :]
                if icmp[0] == (129 if v6 else 0) and struct.unpack_from("!H", icmp, 4)[0] == identifier:
                    answered.add(NUMBER.unpack_from(icmp, 8)[0])
                    now = time.monotonic()
                    gap, last = max(gap, now - (last or now)), now
        time.sleep(0.0002)
    order = sorted(answered)
    missing = [n for n in range(order[0], order[-1] + 1) if n not in answered] if order else []
    return {"asked": asked, "answered": len(answered), "gap_ms": gap * 1000, "runs": _runs(missing)}


def _runs(missing: list[int]) -> list[int]:
    """Return how many numbers in a row were missing each time, the longest first; 100 at most."""
    runs: list[int] = []
    last = None
    for number in missing:
        if last is not None and number == last + 1:
            runs[-1] += 1
        else:
            runs.append(1)
        last = number
    return sorted(runs, reverse=True)[:100]


async def _ended() -> None:
    end = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, end.set)
    await end.wait()


async def echo(ip: str, port: int) -> dict[str, Any]:
    """Echo 8-byte numbers on every connection until stopped."""
    served = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        served += 1
        try:
            while True:
                writer.write(await reader.readexactly(NUMBER.size))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, ip, port, backlog=4096)
    print("ready", flush=True)
    await _ended()
    server.close()
    return {"served": served}


async def connect(ip: str, port: int, count: int, every: float, fresh: float) -> dict[str, Any]:
    """Keep *count* connections busy and open a new one each *fresh* seconds (0: none).

    Every connection sends a number each *every* seconds and waits up to 20 s
    for it to come back. Return how many exchanges there were and what failed.
    """
    result: dict[str, Any] = {"exchanges": 0, "opened": 0, "fresh": 0, "failed": [], "slowest_ms": 0.0}
    ready = asyncio.Event()

    async def keep(name: str) -> None:
        try:
            async with asyncio.timeout(20):
                reader, writer = await asyncio.open_connection(ip, port)
            result["opened"] += 1
            if result["opened"] == count:
                ready.set()
            number = 0
            while True:
                start = time.monotonic()
                writer.write(NUMBER.pack(number))
                async with asyncio.timeout(20):
                    back = NUMBER.unpack(await reader.readexactly(NUMBER.size))[0]
                if back != number:
                    raise ConnectionError(f"sent {number}, got {back}")
                result["slowest_ms"] = max(result["slowest_ms"], (time.monotonic() - start) * 1000)
                result["exchanges"] += 1
                number += 1
                await asyncio.sleep(every)
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as fault:
            result["failed"].append(f"{name}: {fault!r}")

    async def renew() -> None:
        while fresh:
            await asyncio.sleep(fresh)
            try:
                async with asyncio.timeout(5):
                    reader, writer = await asyncio.open_connection(ip, port)
                    writer.write(NUMBER.pack(7))
                    await reader.readexactly(NUMBER.size)
                writer.close()
                result["fresh"] += 1
            except (OSError, asyncio.IncompleteReadError, TimeoutError) as fault:
                result["failed"].append(f"new connection: {fault!r}")

    tasks = [asyncio.create_task(keep(f"connection {i}")) for i in range(count)]
    if count:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ready.wait(), 30)
    print("ready", flush=True)
    tasks.append(asyncio.create_task(renew()))
    await _ended()
    result["alive"] = sum(not task.done() for task in tasks[:count])
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    result["failures"] = len(result["failed"])
    result["failed"] = result["failed"][:10]
    return result


def main() -> None:
    """Run one end of some traffic."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=["send", "receive", "echo", "connect", "echoes"])
    parser.add_argument("ip")
    parser.add_argument("port", type=int)
    parser.add_argument("--rate", type=int, default=1000, help="datagrams a second")
    parser.add_argument("--source", type=int, default=0, help="port to send datagrams from; 0: any")
    parser.add_argument("--knock", default="", help="IP/PORT of the sender, told first that there is a receiver")
    parser.add_argument("--size", type=int, default=64, help="bytes of a datagram")
    parser.add_argument("--count", type=int, default=1, help="connections to keep")
    parser.add_argument("--every", type=float, default=0.05, help="seconds between two numbers of a connection")
    parser.add_argument("--fresh", type=float, default=0.0, help="seconds between two new connections; 0: none")
    o = parser.parse_args()
    if o.role == "send":
        result = send(o.ip, o.port, o.rate, o.size, o.source)
    elif o.role == "echoes":
        result = echoes(o.ip, o.rate)
    elif o.role == "receive":
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _stop)
        result = receive(o.ip, o.port, o.knock)
    elif o.role == "echo":
        result = asyncio.run(echo(o.ip, o.port))
    else:
        result = asyncio.run(connect(o.ip, o.port, o.count, o.every, o.fresh))
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)
