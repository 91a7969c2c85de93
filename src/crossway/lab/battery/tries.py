"""Things that one body may send to another, and how to see whether they got there."""

from __future__ import annotations

import itertools
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from crossway.agent.guest.frame import checksum
from crossway.lab.battery.probe import SECONDS

if TYPE_CHECKING:
    from crossway.lab.battery.pair import Pair

_tokens = itertools.count(1)
FRESH = 0x5EED0000


def token() -> bytes:
    """Return bytes by which a packet is known again."""
    return struct.pack("!II", FRESH, next(_tokens))


@dataclass(frozen=True)
class Try:
    """Something to be sent over a family of addresses."""

    family: int

    def reaches(self, pair: Pair, seconds: float) -> bool:
        """Send it; say whether it gets there, and back where that belongs to it."""
        raise NotImplementedError


@dataclass(frozen=True)
class Ping(Try):
    """An echo and its answer."""

    size: int = 64
    whole: bool = False  # never in fragments

    def reaches(self, pair: Pair, seconds: float) -> bool:
        options = [f"size={self.size}", *(["df=1"] if self.whole else [])]
        told = pair.source.probe.must(
            "ping", pair.source.ip(self.family), pair.target.ip(self.family), 1, int(seconds * 1000), *options,
            seconds=seconds + SECONDS,
        )  # fmt: skip
        return bool(told["got"])


@dataclass(frozen=True)
class Tcp(Try):
    """A connection to a port, which is taken there."""

    port: int

    def reaches(self, pair: Pair, seconds: float) -> bool:
        with pair.target.probe.socket("tcp", pair.target.ip(self.family), self.port):
            told = pair.source.probe.ask(
                "connect", pair.source.ip(self.family), pair.target.ip(self.family), self.port, int(seconds * 1000),
                seconds=seconds + SECONDS,
            )  # fmt: skip
            if "fd" in told:
                pair.source.probe.ask("close", told["fd"])
            return "fd" in told


@dataclass(frozen=True)
class Udp(Try):
    """A datagram to a port."""

    port: int
    size: int = 0  # bytes, of a pattern that is looked at; 0: a few
    divisible: bool = False  # routers may fragment it, which they may not otherwise if it fits the sender's network

    def reaches(self, pair: Pair, seconds: float) -> bool:
        own, to = pair.source.ip(self.family), pair.target.ip(self.family)
        options = ["df=0"] if self.divisible else []
        with (
            pair.target.probe.socket("udp", to, self.port) as ear,
            pair.source.probe.socket("udp", own, 0, *options) as mouth,
        ):
            if self.size:
                mouth.send(self.size, to, self.port)
                told = ear.hear(seconds)
                return told is not None and told.get("right") is True and told["size"] == self.size
            mark = token()
            mouth.send(mark, to, self.port)
            return ear.find(lambda data: data == mark, seconds) is not None


@dataclass(frozen=True)
class Icmp(Try):
    """A message of ICMP, or of ICMPv6, by type and code."""

    type: int
    code: int = 0

    def reaches(self, pair: Pair, seconds: float) -> bool:
        own, to = pair.source.ip(self.family), pair.target.ip(self.family)
        proto = 1 if self.family == 4 else 58
        mark = token()
        message = struct.pack("!BBH", self.type, self.code, 0) + mark + bytes(16)
        if self.family == 4:
            message = message[:2] + struct.pack("!H", checksum(message)) + message[4:]
        with pair.target.probe.socket("raw", proto, to) as ear, pair.source.probe.socket("raw", proto, own) as mouth:
            mouth.send(message, to, 0)
            return ear.find(lambda data: mark in data and self._is(data), seconds) is not None

    def _is(self, data: bytes) -> bool:
        at = (data[0] & 15) * 4 if self.family == 4 else 0
        return data[at] == self.type


@dataclass(frozen=True)
class Proto(Try):
    """A packet of some other protocol."""

    number: int

    def reaches(self, pair: Pair, seconds: float) -> bool:
        own, to = pair.source.ip(self.family), pair.target.ip(self.family)
        mark = token()
        with (
            pair.target.probe.socket("raw", self.number, to) as ear,
            pair.source.probe.socket("raw", self.number, own) as mouth,
        ):
            mouth.send(mark + bytes(24), to, 0)
            return ear.find(lambda data: mark in data, seconds) is not None
