"""The rows of one port: as it is on its own host, or as a peer elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from crossway.model import rows as r
from crossway.plan import view
from crossway.plan.address import cidr, first_of_each, ip, link_local, mac, without_mapped
from crossway.plan.rows import Rows

PORT_AND_MAC_BITS = 128


class Limit(NamedTuple):
    """How fast a port may get, or send: bits a second, and at once after a while of silence."""

    rate: int
    burst: int


class Body(NamedTuple):
    """What stands for a port on this host: a device, the tag on it, and how it is delivered to."""

    key: r.PortKey
    kind: r.Body
    limits: tuple[tuple[r.Way, Limit], ...] = ()


class Seat(NamedTuple):
    """Where a port takes part in its network: what a flood needs to know of it."""

    network: int
    member: object  # one entry of the flood list: a port here or a host elsewhere
    place: r.Place  # what that entry says
    wide: bool  # may have addresses that no row tells


def is_wide(port: view.Port) -> bool:
    """Return whether a port may send from addresses that are not its own."""
    return bool(port.pairs) or not port.secured


def flags_of(port: view.Port) -> int:
    """Return what the data plane must know of a port besides where it is."""
    return int(r.PortFlag.SECURED) if port.secured else 0


def limited(body: Body) -> int:
    """Return what the data plane must know of limits, as flags."""
    return int(r.PortFlag.LIMITED) if body.limits else 0


def rate_rows(body: Body) -> dict[r.RateKey, r.Rate]:
    """Return how fast a port may get and send."""
    most = 1 << 61  # nanoseconds that a clock of 63 bits can go back
    return {
        r.RateKey(body.key, way): r.Rate(limit.rate, min(limit.burst * 1_000_000_000 // limit.rate, most))
        for way, limit in body.limits
    }


def place_of(port: view.Port, body: Body | None, underlay: bytes | None, moved: bool = False) -> r.Place | None:
    """Return where a port is to be reached; None if nowhere. *moved*: it was on this host, or will be."""
    if body is not None:
        flags = flags_of(port) | limited(body)
        return r.Place(r.PlaceKind.LOCAL, int(body.kind), flags, identity=port.identity, port=body.key)
    if underlay is not None:
        flags = int(r.PortFlag.MOVED) if moved else 0
        return r.Place(r.PlaceKind.REMOTE, flags=flags, identity=port.identity, underlay=underlay)
    return None


def seat_of(port: view.Port, network: view.Network, place: r.Place) -> Seat:
    """Return the part that a port has in its network's floods: one entry for each host elsewhere."""
    if place.kind == r.PlaceKind.LOCAL:
        return Seat(network.number, place.port, place, is_wide(port))
    return Seat(network.number, place.underlay, r.Place(r.PlaceKind.REMOTE, underlay=place.underlay), is_wide(port))


def served(subnets: Iterable[view.Subnet]) -> int:
    """Return what the agent answers for a port with addresses of these subnets, as flags."""
    flags = int(r.PortFlag.NAMES)
    for subnet in subnets:
        if subnet.dhcp and ":" not in subnet.cidr:
            flags |= r.PortFlag.DHCP
        elif subnet.dhcp and (subnet.ra or subnet.mode):
            flags |= r.PortFlag.ADVERTISED
    return int(flags)


def port_rows(port: view.Port, network: view.Network, place: r.Place, body: Body | None, services: int = 0) -> Rows:
    """Return the rows of a port that is at *place*; *services* are its flags of `served`."""
    own = mac(port.mac)
    ips = [ip(a.ip) for a in port.addresses]
    rows: Rows = {
        "macs": {r.MacKey(network.number, own): place},
        "endpoints": {
            r.EndpointKey(network.number, address): r.Endpoint(place, own) for address in [*ips, link_local(own)]
        },
    }
    if body is not None:
        rows["ports"] = {
            body.key: r.Port(
                network.number,
                port.identity,
                own,
                int(body.kind),
                flags_of(port) | limited(body) | services,
                network.mtu,
                first_of_each(ips),
            )
        }
        if body.limits:
            rows["rates"] = rate_rows(body)
        if port.secured:
            rows["sources"] = source_rows(port, body.key, own, ips)
    return rows


def source_rows(port: view.Port, key: r.PortKey, own: bytes, ips: list[bytes]) -> dict[r.SourceKey, int]:
    """Return what a secured port may send from: each MAC with its addresses and its link-local one."""
    full = PORT_AND_MAC_BITS + 128
    rows = {r.SourceKey(full, key, own, address): 1 for address in [*ips, link_local(own)]}
    for pair in port.pairs:
        other = mac(pair.mac) if pair.mac else own
        for prefix in without_mapped(cidr(pair.ip)):
            rows[r.SourceKey(PORT_AND_MAC_BITS + prefix.bits, key, other, prefix.ip)] = 1
        rows[r.SourceKey(full, key, other, link_local(other))] = 1
    return rows
