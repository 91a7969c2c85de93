"""The rows of one router: its feet in networks and where it sends what."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from crossway.model import rows as r
from crossway.model.router import NEXT_HOPS_MAX
from crossway.plan import view
from crossway.plan.address import MAPPED_BITS, Cidr, cidr, first_of_each, ip, link_local, mac, masked
from crossway.plan.rows import Rows

ROUTER_BITS = 32
MAPPED_IP = r.MAPPED + bytes(4)


class Foot(NamedTuple):
    """One interface: the network's number, its MAC and its addresses with their prefixes."""

    network: int
    mac: bytes
    ips: list[bytes]
    prefixes: list[Cidr]


def feet_of(router: view.Router, number_of: Callable[[str], int | None]) -> list[Foot]:
    """Return a router's interfaces in networks that are known and up."""
    feet = []
    for interface in sorted(router.interfaces, key=lambda i: i.port):
        number = number_of(interface.network)
        if number is None:
            continue
        ips = [ip(a.ip) for a in interface.addresses]
        prefixes = [
            Cidr(masked(raw, bits), bits)
            for raw, bits in zip(ips, (_bits(a) for a in interface.addresses), strict=True)
        ]
        feet.append(Foot(number, mac(interface.mac), ips, prefixes))
    return feet


def _bits(address: view.Prefixed) -> int:
    return address.prefix + (0 if ":" in address.ip else MAPPED_BITS)


def router_rows(router: view.Router, feet: list[Foot]) -> Rows:
    """Return the rows of a router that stands on *feet*."""
    place = r.Place(r.PlaceKind.ROUTER, router=router.number)
    rows: Rows = {"interfaces": {}, "macs": {}, "endpoints": {}, "routes": {}, "next_hops": {}}
    # Two interfaces in one network (two subnets) are one row: the first one's
    # MAC, and the first address of each family of all of them.
    by_network: dict[int, list[Foot]] = {}
    for foot in feet:
        by_network.setdefault(foot.network, []).append(foot)
    for number, here in by_network.items():
        ips = [address for foot in here for address in foot.ips]
        rows["interfaces"][r.InterfaceKey(number, router.number)] = r.Interface(here[0].mac, first_of_each(ips))
    for foot in feet:
        rows["macs"][r.MacKey(foot.network, foot.mac)] = place
        for address in [*foot.ips, link_local(foot.mac)]:
            rows["endpoints"][r.EndpointKey(foot.network, address)] = r.Endpoint(place, foot.mac)
    # What is written later wins: extra routes, then connected subnets, then
    # the router's own addresses.
    routes, ways = rows["routes"], _ways(router, feet)
    for key, (first, *others) in ways.items():
        routes[key] = first._replace(others=len(others))
    for foot in feet:
        for prefix in foot.prefixes:
            routes[_route_key(router.number, prefix)] = r.Route(r.RouteKind.CONNECTED, foot.network)
    for foot in feet:
        for address in foot.ips:
            routes[_route_key(router.number, Cidr(address, 128))] = r.Route(r.RouteKind.SELF, foot.network)
    for key, (_, *others) in ways.items():
        if routes[key].others:
            rows["next_hops"].update({_next_hop_key(key, n): via for n, via in enumerate(others, 1)})
    # IPv4 lies within IPv6's addresses: a default route of IPv6 must not catch it.
    if any(Cidr(key.dst, key.prefixlen - ROUTER_BITS).holds(MAPPED_IP) for key in routes if _is_wide(key)):
        routes.setdefault(_route_key(router.number, Cidr(MAPPED_IP, MAPPED_BITS)), r.Route(r.RouteKind.BLACKHOLE))
    return {table: found for table, found in rows.items() if found}


def _ways(router: view.Router, feet: list[Foot]) -> dict[r.RouteKey, list[r.Route]]:
    """Return the next hops of each extra route, in the order in which they are said."""
    ways: dict[r.RouteKey, list[r.Route]] = {}
    for hop in router.routes:
        via = _via(hop, feet)
        if via is not None:
            known = ways.setdefault(_route_key(router.number, cidr(hop.destination)), [])
            if via not in known and len(known) < NEXT_HOPS_MAX:
                known.append(via)
    return ways


def _next_hop_key(key: r.RouteKey, number: int) -> r.NextHopKey:
    return r.NextHopKey(key.prefixlen + 32, key.router, number, key.dst)


def _is_wide(key: r.RouteKey) -> bool:
    return key.prefixlen < ROUTER_BITS + MAPPED_BITS


def _route_key(router: int, prefix: Cidr) -> r.RouteKey:
    return r.RouteKey(ROUTER_BITS + prefix.bits, router, prefix.ip)


def _via(hop: view.Hop, feet: list[Foot]) -> r.Route | None:
    """Return the row of a next hop that one of the router's subnets holds; a hop to itself is none."""
    nexthop = ip(hop.nexthop)
    if any(nexthop in foot.ips for foot in feet):
        return None
    holding = [(p.bits, foot.network) for foot in feet for p in foot.prefixes if p.holds(nexthop)]
    return r.Route(r.RouteKind.VIA, max(holding)[1], nexthop) if holding else None
