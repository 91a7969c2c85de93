"""Addresses that a port has been seen to have, beside its fixed ones: what routers need to reach them."""

from __future__ import annotations

from crossway.model import rows as r
from crossway.plan import view
from crossway.plan.address import Cidr, cidr, ip, mac, masked
from crossway.plan.rows import Rows

WHOLE = 128  # bits of an address


class Candidates:
    """Which ports of each network may have an address beside their fixed ones, by the prefixes that they may have.

    It may name more of them than `may_have` does, never fewer.
    """

    def __init__(self) -> None:
        # Number of a network -> length of a prefix -> prefix -> ports.
        self._networks: dict[int, dict[int, dict[bytes, set[str]]]] = {}
        self._ports: dict[str, tuple[int, frozenset[Cidr]]] = {}

    def put(self, id: str, number: int | None, port: view.Port | None) -> None:
        """Take in what a port may have on the network of that number; None: it has no more part in it."""
        new = (number, _prefixes(port)) if number is not None and port is not None else None
        old = self._ports.get(id)
        if old == new:
            return
        if old is not None:
            for prefix in old[1]:
                self._drop(id, old[0], prefix)
            del self._ports[id]
        if new is not None:
            for prefix in new[1]:
                lengths = self._networks.setdefault(new[0], {})
                lengths.setdefault(prefix.bits, {}).setdefault(prefix.ip, set()).add(id)
            self._ports[id] = new

    def _drop(self, id: str, number: int, prefix: Cidr) -> None:
        lengths = self._networks[number]
        prefixes = lengths[prefix.bits]
        prefixes[prefix.ip].discard(id)
        if not prefixes[prefix.ip]:
            del prefixes[prefix.ip]
        if not prefixes:
            del lengths[prefix.bits]
        if not lengths:
            del self._networks[number]

    def find(self, number: int, address: bytes) -> list[str]:
        """Return the ports that may have an address, in order."""
        lengths = self._networks.get(number, {})
        found = (prefixes.get(masked(address, bits), set()) for bits, prefixes in lengths.items())
        return sorted(set().union(*found))


def _prefixes(port: view.Port) -> frozenset[Cidr]:
    """Return what a port may have: all, without port security."""
    if not port.secured:
        return frozenset({Cidr(bytes(16), 0)})
    return frozenset(cidr(pair.ip) for pair in port.pairs)


def may_have(port: view.Port, network: view.Network, address: bytes, at: bytes | None = None) -> bool:
    """Return whether a port may have an address beside its fixed ones, *at* a MAC.

    On a provider network others than ports have addresses: there it is the pairs alone that name one.
    """
    outside = network.physnet is not None
    if not port.secured:
        return not outside
    return any(
        prefix.holds(address)
        and (not outside or prefix.bits == WHOLE)
        and (at is None or at == mac(pair.mac or port.mac))
        for pair in port.pairs
        if (prefix := cidr(pair.ip)).mapped is address.startswith(r.MAPPED)
    )


def learned_rows(learned: view.Learned, port: view.Port, network: view.Network, place: r.Place) -> Rows:
    """Return the rows of an address that *port*, which is at *place*, has been seen to have."""
    address, at = ip(learned.ip), mac(learned.mac)
    if not may_have(port, network, address, at):
        return {}
    seen = place._replace(flags=place.flags | r.PortFlag.LEARNED)
    rows: Rows = {"endpoints": {r.EndpointKey(network.number, address): r.Endpoint(seen, at)}}
    if at != mac(port.mac):
        rows["macs"] = {r.MacKey(network.number, at): place}
    return rows
