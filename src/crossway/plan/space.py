"""The policy of one identity, way and family as bit vectors: ports that are in port sets, remotes that may use them.

Rows of ports and rows of remotes add up: a rule with a thousand prefixes and a
range of ports makes a thousand rows of the one and at most thirty of the other.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection, Iterator
from typing import NamedTuple

from crossway.model.rows import PORT_SETS, PortSetNumber

PORT_BITS, ADDRESS_BITS = 24, 128  # of a protocol and port; of an address
STATEFUL = 1 << PortSetNumber.ANYONE
FIXED = STATEFUL | 1 << PortSetNumber.ANYONE_STATELESS


class Prefix(NamedTuple):
    """The first bits of a number whose width is known: those behind them are zero."""

    start: int
    bits: int


class PortSet(NamedTuple):
    """What a rule says of a packet, its remote aside: a protocol and ports, and whether answers pass."""

    matches: tuple[Prefix, ...]
    stateless: bool


class Vectors:
    """Prefixes, each with the numbers that it was given: what a prefix has, all prefixes within it have, too.

    A number may be given to a prefix several times, and goes when it was taken as often.
    """

    def __init__(self, width: int) -> None:
        self.own: dict[Prefix, int] = {}
        self.dirty: dict[Prefix, None] = {}  # whose vector may have changed
        self._width = width
        self._again: dict[tuple[Prefix, int], int] = {}  # how many times more than once
        self._sorted: list[Prefix] = []
        self._lengths: dict[int, int] = {}

    def give(self, prefix: Prefix, number: int) -> None:
        """Give a prefix a number, once more if it has it."""
        own = self.own.get(prefix)
        if own is None:
            insort(self._sorted, prefix)
            self._lengths[prefix.bits] = self._lengths.get(prefix.bits, 0) + 1
            own = 0
        elif own >> number & 1:
            self._again[prefix, number] = self._again.get((prefix, number), 0) + 1
            return
        self.own[prefix] = own | 1 << number
        self._mark(prefix)

    def take(self, prefix: Prefix, number: int) -> None:
        """Take a number from a prefix that has it, once."""
        again = self._again.pop((prefix, number), 0)
        if again:
            if again > 1:
                self._again[prefix, number] = again - 1
            return
        self._mark(prefix)
        own = self.own[prefix] & ~(1 << number)
        if own:
            self.own[prefix] = own
            return
        del self.own[prefix]
        del self._sorted[bisect_left(self._sorted, prefix)]
        self._lengths[prefix.bits] -= 1
        if not self._lengths[prefix.bits]:
            del self._lengths[prefix.bits]

    def vector(self, prefix: Prefix) -> int:
        """Return the numbers of a prefix and of all that hold it; 0 if it is none of those that were given any."""
        found = self.own.get(prefix, 0)
        if found:
            for bits in self._lengths:
                if bits < prefix.bits:
                    rest = self._width - bits
                    found |= self.own.get(Prefix(prefix.start >> rest << rest, bits), 0)
        return found

    def _mark(self, prefix: Prefix) -> None:
        """Note that a prefix and those within it have to be looked at."""
        self.dirty[prefix] = None
        last = prefix.start | (1 << self._width - prefix.bits) - 1
        start = bisect_left(self._sorted, prefix)
        end = bisect_left(self._sorted, Prefix(last, self._width + 1))
        if end - start > 1:
            self.dirty.update(dict.fromkeys(self._sorted[start:end]))


class Numbers:
    """Which number each port set has.

    A number that is free again rests until the kernel's rows no longer have it:
    no row may hold it in the old meaning while another does in the new.
    """

    def __init__(self) -> None:
        self.stateful = STATEFUL
        self._of: dict[PortSet, int] = {}
        self._used = FIXED
        self._resting: dict[int, PortSet | None] = {}
        self._rested: dict[PortSet, int] = {}

    def adopt(self, used: int, known: dict[PortSet, int]) -> None:
        """Begin with the numbers that the kernel's rows have, and what they are known to mean."""
        self._used |= used
        for number in _bits(used & ~FIXED):
            self._resting[number] = None
        for ports, number in known.items():
            if ports not in self._rested:
                self._resting[number] = ports
                self._rested[ports] = number

    def get(self, ports: PortSet) -> int | None:
        """Return the number of a port set that has one."""
        return self._of.get(ports)

    def take(self, ports: PortSet) -> int | None:
        """Give a port set a number: the one that it had, else the lowest that is free; None if there is none."""
        number = self._rested.pop(ports, None)
        if number is not None:
            del self._resting[number]
        else:
            number = (~self._used & self._used + 1).bit_length() - 1
            if number >= PORT_SETS:
                return None
            self._used |= 1 << number
        self._of[ports] = number
        if ports.stateless:
            self.stateful &= ~(1 << number)
        else:
            self.stateful |= 1 << number
        return number

    def rest(self, ports: PortSet) -> None:
        """Take a port set's number away; it rests."""
        number = self._of.pop(ports)
        self._resting[number] = ports
        self._rested[ports] = number

    def written(self) -> bool:
        """Take in that the kernel's rows are as they should be: what rests is free; return whether anything did."""
        for number in self._resting:
            self._used &= ~(1 << number)
        rested = bool(self._resting)
        self._resting.clear()
        self._rested.clear()
        return rested


class Space:
    """The port sets and remotes of one identity, way and family."""

    def __init__(self) -> None:
        self.numbers = Numbers()
        self.ports = Vectors(PORT_BITS)
        self.prefixes = Vectors(ADDRESS_BITS)
        self.remotes: dict[int, int] = {}  # identity -> numbers
        self.dirty: dict[int, None] = {}  # identities whose numbers may have changed
        self._again: dict[tuple[int, int], int] = {}
        self._users: dict[PortSet, int] = {}

    def allow(self, ports: PortSet) -> None:
        """Let anyone use a port set."""
        for match in ports.matches:
            self.ports.give(match, _anyone(ports))

    def disallow(self, ports: PortSet) -> None:
        """Undo `allow`, once."""
        for match in ports.matches:
            self.ports.take(match, _anyone(ports))

    def hold(self, ports: PortSet) -> int | None:
        """Have a port set numbered for a rule; None if no number is free."""
        users = self._users.get(ports, 0)
        number = self.numbers.get(ports) if users else self.numbers.take(ports)
        if number is None:
            return None
        self._users[ports] = users + 1
        if not users:
            for match in ports.matches:
                self.ports.give(match, number)
        return number

    def let_go(self, ports: PortSet) -> None:
        """Undo `hold`, once; the last lets the number rest."""
        users = self._users.pop(ports)
        if users > 1:
            self._users[ports] = users - 1
            return
        number = self.numbers.get(ports)
        assert number is not None
        for match in ports.matches:
            self.ports.take(match, number)
        self.numbers.rest(ports)

    def give(self, remote: int, number: int) -> None:
        """Let an identity use a port set, once more if it may already."""
        own = self.remotes.get(remote, 0)
        if own >> number & 1:
            self._again[remote, number] = self._again.get((remote, number), 0) + 1
            return
        self.remotes[remote] = own | 1 << number
        self.dirty[remote] = None

    def take(self, remote: int, number: int) -> None:
        """Undo `give`, once."""
        again = self._again.pop((remote, number), 0)
        if again:
            if again > 1:
                self._again[remote, number] = again - 1
            return
        self.dirty[remote] = None
        own = self.remotes[remote] & ~(1 << number)
        if own:
            self.remotes[remote] = own
        else:
            del self.remotes[remote]

    def rows(self) -> int:
        """Return how many rows it makes."""
        return len(self.ports.own) + len(self.prefixes.own) + len(self.remotes)


def known(ports: Collection[tuple[Prefix, int, int]]) -> dict[PortSet, int]:
    """Return which numbers stand for what, by rows of ports: prefix, numbers, and those of them that are stateful.

    The outermost rows that have a number are the port set that it stands for.
    """
    found: dict[int, list[Prefix]] = {}
    stateful = 0
    for match, numbers, answered in sorted(ports):
        stateful |= answered
        for number in _bits(numbers & ~FIXED):
            outer = found.setdefault(number, [])
            if not outer or not _holds(outer[-1], match):
                outer.append(match)
    return {PortSet(tuple(outer), not stateful >> number & 1): number for number, outer in found.items()}


def _holds(outer: Prefix, inner: Prefix) -> bool:
    rest = PORT_BITS - outer.bits
    return outer.bits <= inner.bits and inner.start >> rest == outer.start >> rest


def _anyone(ports: PortSet) -> int:
    return PortSetNumber.ANYONE_STATELESS if ports.stateless else PortSetNumber.ANYONE


def _bits(numbers: int) -> Iterator[int]:
    while numbers:
        low = numbers & -numbers
        yield low.bit_length() - 1
        numbers ^= low
