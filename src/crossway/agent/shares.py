"""What each port has for itself of tables that all ports of a host fill.

The kernel charges a port for each row that it adds to such a table, and takes it
while the charge is below the share's `until`; what is beyond goes into a second
table, whose rows give way to each other. The charge only grows. The agent sets
`until` from a count of the rows that there are, made after it has read the charge:
rows that came meanwhile are counted twice, rows that went meanwhile are counted
still, and both are put right by the next count. So a port may have fewer rows for
a while, but never more, and nothing drifts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Protocol

from crossway.kernel.bpf import Table
from crossway.model import rows as r

MOST = 4096  # rows that a port is assured, be it alone
SETTLE_SECONDS = 0.05  # longer than a program runs: the row of a charge that was read is in its table

# Of what: the table of rows within shares, and that of rows beyond them.
HALVES: dict[r.ShareOf, tuple[str, str]] = {
    r.ShareOf.FLOWS: ("flows_assured", "flows"),
    r.ShareOf.TRANSLATIONS: ("translations_assured", "translations"),
}
# Tables in which each port has slots, whose rows replace each other: at most how many.
SLOTS: dict[r.ShareOf, tuple[str, int]] = {
    r.ShareOf.FRAGMENTS: ("fragments", 256),
    r.ShareOf.EARLY: ("early_fragments", 64),
}
NETWORKS_PART = 16  # a sixteenth of the table of fragments is for what is to all of a network, or to published ports
GROUPS = 0xFFFF  # no VLAN tag: names the slots of a network, or with number 0 those of clients of published ports


def of_network(number: int) -> r.ShareKey:
    """Return whose slots those are of fragments to all of a network; 0: of clients of published ports."""
    return r.ShareKey(r.PortKey(number, GROUPS), r.ShareOf.FRAGMENTS)


class Tabled(Protocol):
    """Who has tables: a loaded data plane."""

    def table(self, name: str) -> Table:
        """Return one of them."""


def fit(rows: int, ports: int, most: int = MOST) -> int:
    """Return the largest power of two that a table of *rows* can hold for each of *ports*; *most* at most."""
    each = rows // max(1, ports)
    return min(most, 1 << each.bit_length() - 1) if each else 0


def size(rows: int, ports: int, before: int | None = None, most: int = MOST) -> int:
    """Return how many rows each port is assured, of a table of *rows*.

    An eighth of the table stays free for those that come while others have more
    than their share by now. It shrinks when it must, and grows only when a quarter
    more ports would still have as much: *before* is what it was.
    """
    usable = rows - rows // 8
    now = fit(usable, ports, most)
    if before is None or now < before:
        return now
    return max(before, fit(usable, ports + ports // 4, most))


class Shares:
    """The shares of the ports of a host."""

    def __init__(self, plane: Tabled) -> None:
        self._plane = plane
        self._until: dict[r.ShareKey, int] = {}
        self._taken: dict[r.ShareKey, int] = {}  # rows that the agent itself has put within shares
        self._of_networks: int | None = None  # slots of each network
        self.sizes: dict[r.ShareOf, int] = {}

    def renew(self, plane: Tabled) -> None:
        """Go on with the same pinned tables, opened anew."""
        self._plane = plane

    def read(self) -> None:
        """Find out which shares there are, made by the agent that ran before."""
        self._until = {key: share.until for key, share in self._plane.table("shares").read().items()}

    def open(self, ports: Set[r.PortKey], among: int) -> None:
        """Give new ports their shares, before their first packet; *among*: so many ports there are."""
        new = {key for port in ports for of in r.ShareOf if (key := r.ShareKey(port, of)) not in self._until}
        if not new:
            return
        each = {of: self.sizes.get(of, MOST) for of in HALVES} | {of: self._slots(of, among) for of in SLOTS}
        flows = r.ShareOf.FLOWS
        each[flows] = min(each[flows], size(self._plane.table(HALVES[flows][0]).size, among))
        charges = self._plane.table("charges")
        charged = {key: charges.get(key) for key in new}
        charges.put({key: 0 for key, rows in charged.items() if rows is None})
        of = {key: r.ShareOf(key.of) for key in new}
        self._write({key: each[of[key]] + (0 if of[key] in SLOTS else charged[key] or 0) for key in new})

    def open_networks(self, numbers: Set[int], among: int) -> None:
        """Give new networks their slots for fragments, and those to clients of published ports; *among*: of so many."""
        new = [key for number in {0, *numbers} if (key := of_network(number)) not in self._until]
        if new:
            each = self._network_slots(among)
            self._write(dict.fromkeys(new, each))

    def _network_slots(self, networks: int) -> int:
        table, most = SLOTS[r.ShareOf.FRAGMENTS]
        rows = self._plane.table(table).size // NETWORKS_PART
        self._of_networks = size(rows, networks + 1, self._of_networks, most)
        return self._of_networks

    def _slots(self, of: r.ShareOf, ports: int) -> int:
        table, most = SLOTS[of]
        self.sizes[of] = size(self._plane.table(table).size, ports, self.sizes.get(of), most)
        return self.sizes[of]

    def take(self, of: r.ShareOf, port: r.PortKey, rows: int) -> int:
        """Charge a port for rows that the agent puts; return how many of them are within its share."""
        key, charges = r.ShareKey(port, of), self._plane.table("charges")
        until = self._until.get(key)
        if until is None:
            return 0
        rows = min(rows, max(0, until - (charges.get(key) or 0)))
        if rows:
            self._write({key: until - rows})
            # The kernel may have charged up to the former limit meanwhile.
            rows -= min(rows, max(0, (charges.get(key) or 0) - (until - rows)))
            self._write({key: until - rows})
            self._taken[key] = self._taken.get(key, 0) + rows
        return rows

    def charged(self) -> dict[r.ShareKey, int]:
        """Return what ports have been charged, by the kernel and by the agent: before their rows are counted."""
        charges = self._plane.table("charges").read()
        return {key: charges.get(key, 0) + self._taken.get(key, 0) for key in self._until}

    def settle(
        self,
        of: r.ShareOf,
        charged: Mapping[r.ShareKey, int],
        counted: Mapping[r.PortKey, int],
        ports: Set[r.PortKey],
        users: int,
    ) -> None:
        """Set how far each port may go: by the rows that were counted after *charged* was read.

        *ports*: those that are here; *users*: how many of them use the table.
        """
        table = self._plane.table(HALVES[of][0])
        each = self.sizes[of] = size(table.size, users, self.sizes.get(of))
        new, gone = {}, []
        for key, was in charged.items():
            if key.of != of:
                continue
            rows = counted.get(key.port, 0)
            if key.port not in ports and not rows:
                gone.append(key)
                continue
            # `until` is compared with the kernel's charge alone.
            new[key] = max(0, was - self._taken.get(key, 0) + each - rows)
        self._write({key: until for key, until in new.items() if self._until.get(key) != until})
        self._close(gone)

    def resize(self, ports: Set[r.PortKey], networks: Set[int] = frozenset()) -> None:
        """Set how many slots each port and each network has, now that so many are here."""
        each = {of: self._slots(of, len(ports)) for of in SLOTS}
        keys = [key for key in self._until if key.of in SLOTS]
        want = {key: each[r.ShareOf(key.of)] for key in keys if key.port in ports}
        own = {of_network(number) for number in {0, *networks}}
        want |= dict.fromkeys(own & set(keys), self._network_slots(len(networks)))
        self._write({key: slots for key, slots in want.items() if self._until[key] != slots})
        self._close([key for key in keys if key not in want])

    def _close(self, gone: list[r.ShareKey]) -> None:
        # The share first: without it nothing is charged.
        for name in ("shares", "charges"):
            self._plane.table(name).delete(gone)
        for key in gone:
            del self._until[key]
            self._taken.pop(key, None)

    def _write(self, until: dict[r.ShareKey, int]) -> None:
        if until:
            self._plane.table("shares").put({key: r.Share(value) for key, value in until.items()})
            self._until.update(until)


def beyond(
    counted: Mapping[r.PortKey, int], each: int, rows: Iterable[tuple[r.PortKey, bool, int, bytes]]
) -> list[bytes]:
    """Return the keys of rows that are more than their port's share, of *rows*: port, revoked, seen, key.

    Those that were silent for longest; what was revoked stays before all others.
    """
    over = {port: count - each for port, count in counted.items() if count > each}
    if not over:
        return []
    found: dict[r.PortKey, list[tuple[bool, int, bytes]]] = {port: [] for port in over}
    for port, revoked, seen, key in rows:
        if port in found:
            found[port].append((revoked, seen, key))
    return [key for port, own in found.items() for *_, key in sorted(own)[: over[port]]]
