"""Addresses that a port has been seen to have, beside its fixed ones: what routers need to reach them."""

from __future__ import annotations

from crossway.model import rows as r
from crossway.plan import view
from crossway.plan.address import cidr, ip, mac
from crossway.plan.rows import Rows

WHOLE = 128  # bits of an address


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
