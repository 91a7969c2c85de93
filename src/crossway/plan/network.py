"""The rows of one network: its size, its uplink and its flood list."""

from __future__ import annotations

from crossway.model import rows as r
from crossway.plan import view
from crossway.plan.port import Seat
from crossway.plan.rows import Rows

UPLINK = "uplink"  # the flood list's entry for the provider network


def network_rows(network: view.Network, members: int, wide: int, uplink: int) -> Rows:
    """Return the rows of a network but for its flood list; *uplink* is a link's index or 0."""
    flags = r.NetworkFlag(0)
    if wide:
        flags |= r.NetworkFlag.FLOOD_UNKNOWN
    tag = (network.segment or 0) if uplink else 0
    if uplink:
        flags |= r.NetworkFlag.PROVIDER
    rows: Rows = {"networks": {network.number: r.Network(network.mtu, members, int(flags), uplink, tag)}}
    if uplink:
        rows["uplinks"] = {r.UplinkKey(uplink, tag): network.number}
    return rows


class Floods:
    """The flood lists of all networks.

    A list has no holes: what leaves is replaced by the last one, so that a
    change touches two rows however long the list is. Where entries stand
    depends on what came when; `adopt` takes over the order that the kernel
    has, so that a restart moves none.
    """

    def __init__(self) -> None:
        self._lists: dict[int, list[object]] = {}
        self._places: dict[int, dict[object, r.Place]] = {}
        self._index: dict[int, dict[object, int]] = {}
        self._uses: dict[int, dict[object, int]] = {}
        self.wide: dict[int, int] = {}
        self._unclaimed: set[tuple[int, object]] = set()
        self._touched: set[tuple[int, int]] = set()

    def adopt(self, have: dict[r.MemberKey, r.Place]) -> None:
        """Begin with the flood lists that the kernel has; `settle` takes out what nobody claims."""
        for key in sorted(have):
            place = have[key]
            member: object = UPLINK
            if place.kind == r.PlaceKind.LOCAL:
                member = place.port
            elif place.kind == r.PlaceKind.REMOTE:
                member = place.underlay
            # A list that was being changed when its writer died may name one twice.
            if member not in self._index.get(key.network, {}):
                self._append(key.network, member, place)
                self._unclaimed.add((key.network, member))

    def settle(self) -> set[int]:
        """Take out what was adopted and not claimed; return the networks that changed."""
        gone = {(n, m) for n, m in self._unclaimed if not self._uses.get(n, {}).get(m)}
        self._unclaimed.clear()
        for network, member in sorted(gone, key=lambda one: self._index[one[0]][one[1]], reverse=True):
            self._remove(network, member)
        return {network for network, _ in gone}

    def add(self, network: int, member: object, place: r.Place) -> None:
        """Count one more user of an entry."""
        uses = self._uses.setdefault(network, {})
        uses[member] = uses.get(member, 0) + 1
        if member not in self._index.get(network, {}):
            self._append(network, member, place)
        else:
            self._places[network][member] = place
            self._touched.add((network, self._index[network][member]))

    def remove(self, network: int, member: object) -> None:
        """Count one user of an entry less; the last one takes it away."""
        uses = self._uses[network]
        uses[member] -= 1
        if not uses[member]:
            del uses[member]
            if not uses:
                del self._uses[network]
            self._remove(network, member)

    def take(self, seat: Seat) -> None:
        """Let a port take part."""
        self.add(seat.network, seat.member, seat.place)
        if seat.wide:
            self.wide[seat.network] = self.wide.get(seat.network, 0) + 1

    def leave(self, seat: Seat) -> None:
        """Let a port take part no more."""
        self.remove(seat.network, seat.member)
        if seat.wide:
            self.wide[seat.network] -= 1
            if not self.wide[seat.network]:
                del self.wide[seat.network]

    def count(self, network: int) -> int:
        """Return how many entries a flood list has."""
        return len(self._lists.get(network, ()))

    def place(self, network: int, slot: int) -> r.Place | None:
        """Return an entry of a flood list; None beyond its end."""
        members = self._lists.get(network, ())
        return self._places[network][members[slot]] if slot < len(members) else None

    def taken(self) -> set[tuple[int, int]]:
        """Return the networks and slots that were touched since the last call."""
        touched, self._touched = self._touched, set()
        return touched

    def _append(self, network: int, member: object, place: r.Place) -> None:
        members = self._lists.setdefault(network, [])
        self._index.setdefault(network, {})[member] = len(members)
        self._touched.add((network, len(members)))
        self._places.setdefault(network, {})[member] = place
        members.append(member)

    def _remove(self, network: int, member: object) -> None:
        members, index = self._lists[network], self._index[network]
        at, last = index.pop(member), members.pop()
        self._touched.update(((network, at), (network, len(members))))
        del self._places[network][member]
        if last != member:
            members[at] = last
            index[last] = at
        if not members:
            del self._lists[network], self._index[network], self._places[network]
