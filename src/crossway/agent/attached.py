"""Where an interface of the host itself may lead: nowhere that the host already goes by its own links."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_interface, ip_network

from crossway.kernel.links import Inside, Way

# All there is, in halves: they come before the host's own default route, and leave it there.
EVERYWHERE = {4: ("0.0.0.0/1", "128.0.0.0/1"), 6: ("::/1", "8000::/1")}

Network = IPv4Network | IPv6Network


def diverted(
    inside: Inside, own: Mapping[int, Sequence[str]], ways: Sequence[Way], needed: Mapping[str, str]
) -> str | None:
    """Return what of the host's own such an interface would lead elsewhere; None if nothing.

    *own* are the addresses of the host's other links, *ways* the routes by
    them, and *needed* those whom the host must go on reaching, and what each is.
    """
    for text in inside.addresses:
        net = ip_interface(text).network
        for way in ways:
            if way.to.prefixlen >= net.prefixlen and _has(net, way.to.network_address):
                return f"{net}: the host reaches {way.to} by another link"
        for ip in (ip for ips in own.values() for ip in ips):
            if ip_address(ip) in net:
                return f"{net}: {ip} is an address of the host"
        if fault := _lost(net, ways, needed):
            return fault
    for destination, hop in inside.routes:
        net = ip_network(destination)
        if not hop and (fault := _taken(net, own, ways)):
            return fault
        if any(way.to == net for way in ways):
            return f"{net}: the host has such a route by another link"
        if fault := _lost(net, ways, needed):
            return fault
    return None


def kept(inside: Inside, before: Inside) -> Inside:
    """Return what an interface may become by itself: it leads nowhere where it did not when it was attached.

    Whose network it is may change the port's addresses, but not where the host goes: nor by a gateway that would
    need a route on the link.
    """
    known = {ip_interface(text).network for text in before.addresses}
    return inside._replace(
        addresses=tuple(text for text in inside.addresses if ip_interface(text).network in known),
        routes=tuple((to, hop) for to, hop in inside.routes if hop or (to, hop) in before.routes),
    )


def _taken(net: Network, own: Mapping[int, Sequence[str]], ways: Sequence[Way]) -> str | None:
    """Return why a route on the link must not be, which whoever has the network asks for, as its gateway's."""
    for ip in (ip for ips in own.values() for ip in ips):
        if ip_address(ip) in net:
            return f"{net}: {ip} is an address of the host"
    for way in ways:
        if way.to.prefixlen and _has(way.to, net.network_address):
            return f"{net}: the host reaches it by another link, as part of {way.to}"
    return None


def _lost(net: Network, ways: Iterable[Way], needed: Mapping[str, str]) -> str | None:
    """Return who in a network would no longer be reached as now."""
    for text, what in needed.items():
        ip = ip_address(text)
        best = max((way.to.prefixlen for way in ways if _has(way.to, ip)), default=None)
        if _has(net, ip) and best is not None and best <= net.prefixlen:
            return f"{net}: {what}, {ip}, is reached by another link of the host"
    return None


def _has(net: Network, ip: IPv4Address | IPv6Address) -> bool:
    return net.version == ip.version and ip in net
