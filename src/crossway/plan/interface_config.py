"""Turn a port's addresses and their subnets into the routes of its interface inside a workload.

Pure: the agent sets them up in a namespace, engines and runtimes are told them,
and DHCP tells them to guests. All get what a DHCP client would set up, so that
every subnet that the API takes gives a working interface:

- the gateway gives the default route; a host route to everywhere counts only
  where the subnet has no gateway, as in Neutron's DHCP agent;
- a gateway outside of the port's prefixes is reached by a route on the link;
- a next hop of 0.0.0.0 or :: means that the destination is on the link (RFC 3442);
- what the kernel would refuse, or what would take the port's own prefix away,
  is left out, and the reason is returned.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple

from crossway.plan import view

ON_LINK = ""  # the next hop of a route that has none: its destination is on the link
DEFAULT = {4: "0.0.0.0/0", 6: "::/0"}
EVERYWHERE: Mapping[int, Sequence[str]] = {version: (to,) for version, to in DEFAULT.items()}

Ip = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class Routes(NamedTuple):
    """The routes of an interface, each behind those that it needs, and sentences about what was left out."""

    given: tuple[tuple[str, str], ...]  # destination, next hop or ON_LINK
    left_out: tuple[str, ...]


def routes_of(
    addresses: Iterable[tuple[str, view.Subnet]],
    *,
    everywhere: Mapping[int, Sequence[str]] = EVERYWHERE,
    by_gateway: Sequence[str] = (),
    host_routes: bool = True,
) -> Routes:
    """Return the routes of an interface that has these addresses, each with its subnet.

    *everywhere* are the destinations of the default route by IP version, none
    where the interface is to have no default route; *by_gateway* are other
    prefixes that the gateway leads to; without *host_routes* those of the
    subnets are passed over.
    """
    known = [(ip_address(ip), ip_network(subnet.cidr, strict=False), subnet) for ip, subnet in addresses]
    table = _Table([ip for ip, _, _ in known], [net for _, net, _ in known])
    hops = {
        subnet.id: [(ip_network(hop.destination, strict=False), hop.nexthop) for hop in subnet.routes if host_routes]
        for _, _, subnet in known
    }
    for _, _, subnet in known:  # what is on the link comes first: next hops may be there
        for to, hop in hops[subnet.id]:
            if ip_address(hop).is_unspecified and to.prefixlen:
                table.add(to, ON_LINK, subnet)
    defaults: set[int] = set()
    for _, net, subnet in known:
        gateway = subnet.gateway
        if gateway is None:
            gateway = next((hop for to, hop in hops[subnet.id] if not to.prefixlen), None)
        led = [ip_network(to) for to in by_gateway if ip_network(to).version == net.version]
        if net.version not in defaults:
            led += [ip_network(to) for to in everywhere.get(net.version, ())]
        if gateway is not None and led and table.lead(led, gateway, subnet, is_gateway=True):
            defaults.add(net.version)
        for to, hop in hops[subnet.id]:
            if to.prefixlen and not ip_address(hop).is_unspecified:
                table.lead([to], hop, subnet, is_gateway=hop == gateway)
    return Routes((*table.on_link.items(), *table.by_hop.items()), tuple(table.left_out))


class _Table:
    """The routes found so far, and what their next hops are held against."""

    def __init__(self, own: Sequence[Ip], nets: Sequence[Network]) -> None:
        self._own, self._nets = own, nets
        self.on_link: dict[str, str] = {}
        self.by_hop: dict[str, str] = {}
        self.left_out: list[str] = []

    def lead(self, destinations: Iterable[Network], nexthop: str, subnet: view.Subnet, *, is_gateway: bool) -> bool:
        """Add routes by a next hop, and one to it where it needs one; return whether it can be a next hop."""
        hop = ip_address(nexthop)
        if hop in self._own:
            return False  # the port itself is the router
        if hop.is_unspecified:
            for to in destinations:
                self.add(to, ON_LINK, subnet)
            return True
        for to in destinations:
            if to.prefixlen == to.max_prefixlen and to.network_address == hop:
                self.add(to, ON_LINK, subnet)
            elif reason := self._unfit(hop, is_gateway):
                self._leave_out(to, nexthop, subnet, reason)
                return False
            else:
                if not self._reaches(hop):
                    self.add(ip_network(hop), ON_LINK, subnet)
                self.add(to, nexthop, subnet)
        return True

    def add(self, to: Network, nexthop: str, subnet: view.Subnet) -> None:
        """Add a route, unless its destination is the port's own prefix or has another next hop."""
        table = self.by_hop if nexthop else self.on_link
        if to in self._nets:
            if nexthop:
                self._leave_out(to, nexthop, subnet, "the destination is the prefix of the port itself")
        elif (other := {**self.on_link, **self.by_hop}.get(str(to))) is None:
            table[str(to)] = nexthop
        elif other != nexthop:
            how = f"leads by {other}" if other else "is on the link"
            self._leave_out(to, nexthop, subnet, f"the destination {how} already")

    def _leave_out(self, to: Network, nexthop: str, subnet: view.Subnet, reason: str) -> None:
        how = f"by {nexthop}" if nexthop else "on the link"
        self.left_out.append(f"subnet {subnet.id}: the route to {to} {how} is left out: {reason}")

    def _unfit(self, hop: Ip, is_gateway: bool) -> str:
        """Return why the kernel would refuse a next hop; nothing if it would not."""
        edges = {ip for net in self._nets if net.version == 4 and net.prefixlen < 31 for ip in (net[0], net[-1])}
        if hop in edges or hop.is_multicast or hop.is_loopback or str(hop) == "255.255.255.255":
            return f"no host can have the address {hop}"
        if not is_gateway and not self._reaches(hop):
            return f"its next hop {hop} is not on the link"
        return ""

    def _reaches(self, hop: Ip) -> bool:
        """Return whether a next hop is on the link, by the longest prefix that it is in."""
        if hop.version == 6 and hop.is_link_local:
            return True
        best, on_link = -1, False
        links = [*self._nets, *map(ip_network, self.on_link)]
        for net, direct in (*((net, True) for net in links), *((ip_network(to), False) for to in self.by_hop)):
            if net.version == hop.version and net.prefixlen and hop in net and net.prefixlen > best:
                best, on_link = net.prefixlen, direct
        return on_link
