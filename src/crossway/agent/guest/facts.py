"""What is known of a guest: the port, its subnets, and who is its router. Each part of the view, made plain."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import NamedTuple

from crossway.plan.service import SERVICE_IP, SERVICE_MAC

SLAAC, STATEFUL, STATELESS = "slaac", "dhcpv6-stateful", "dhcpv6-stateless"


class Lease(NamedTuple):
    """An IPv4 address of the port, and what goes with its subnet."""

    ip: IPv4Address
    network: IPv4Network
    gateway: IPv4Address | None
    dns: tuple[IPv4Address, ...]
    routes: tuple[tuple[IPv4Network, IPv4Address], ...]

    @property
    def server(self) -> IPv4Address:
        """Return who the server is to the guest: the gateway, since it asks there when it renews."""
        return self.gateway or SERVICE_IP


class Prefix(NamedTuple):
    """An IPv6 subnet of the port's network; *ip* is the port's address there, if it has one."""

    ip: IPv6Address | None
    network: IPv6Network
    dns: tuple[IPv6Address, ...]
    ra_mode: str | None
    address_mode: str | None


class Guest(NamedTuple):
    """What may be told to one port.

    *router* is the MAC of its network's router with an IPv4 address there, *router6* of that with an IPv6
    address; None if there is none.
    """

    mac: bytes
    mtu: int
    leases: tuple[Lease, ...]
    prefixes: tuple[Prefix, ...]
    router: bytes | None
    router6: bytes | None

    @property
    def speaker(self) -> bytes:
        """Return the MAC that answers over IPv4 come from."""
        return self.router or SERVICE_MAC

    @property
    def speaker6(self) -> bytes:
        """Return the MAC that answers over IPv6 come from."""
        return self.router6 or SERVICE_MAC


def link_local(mac: bytes) -> bytes:
    """Return the link-local address of a MAC (RFC 4291 appendix A)."""
    return b"\xfe\x80" + bytes(6) + bytes([mac[0] ^ 2]) + mac[1:3] + b"\xff\xfe" + mac[3:]
