"""The rows of what ports of this host have published at addresses of the host itself."""

from __future__ import annotations

from collections.abc import Iterable, Set
from ipaddress import ip_address
from typing import NamedTuple

from crossway.model import rows as r
from crossway.plan import view
from crossway.plan.address import ip, mac
from crossway.plan.port import Body
from crossway.plan.rows import Rows

EVERY = ("0.0.0.0", "::")  # all addresses of the host that are of this family


class Publication(NamedTuple):
    """What is published: a port of a protocol, by its number, at an address of the host."""

    proto: int
    address: str  # one of the host's own; "" stands for all, one of EVERY for all of its family
    at: int
    port: int


class Door(NamedTuple):
    """An address of a port by which the outside may come in, and the gateway by which it answers."""

    ip: str
    gateway: str


def doors(port: view.Port, subnets: Iterable[view.Subnet]) -> dict[int, Door]:
    """Return by family the first address of a port that has a gateway; without one there is no way to answer."""
    gateways = {subnet.id: subnet.gateway for subnet in subnets}
    found: dict[int, Door] = {}
    for address in port.addresses:
        gateway = gateways.get(address.subnet)
        if gateway is not None and gateway != address.ip:
            found.setdefault(ip_address(address.ip).version, Door(address.ip, gateway))
    return found


def hosts(publication: Publication, family: int, own: Set[str]) -> list[str]:
    """Return the addresses of the host, of those that it has, at which something is published."""
    ours = [a for a in own if ip_address(a).version == family]
    if publication.address == "" or publication.address == EVERY[family == 6]:
        return ours
    return [a for a in ours if a == publication.address]


def published_rows(
    port: view.Port,
    place: r.Place,
    body: Body,
    network: view.Network,
    ways: dict[int, Door],
    publications: Iterable[Publication],
    own: Set[str],
) -> Rows:
    """Return the rows of what a port has published at the addresses that this host has."""
    own_mac = mac(port.mac)
    rows: Rows = {"published": {}, "gateways": {}}
    for family, door in ways.items():
        for publication in publications:
            row = r.Published(place, ip(door.ip), ip(door.gateway), publication.port, own_mac)
            for host in hosts(publication, family, own):
                rows["published"][r.PublishedKey(ip(host), publication.at, publication.proto)] = row
        # A provider network has a gateway of its own.
        if network.physnet is None:
            rows["gateways"][r.GatewayKey(body.key, ip(door.gateway))] = 1
    return rows
