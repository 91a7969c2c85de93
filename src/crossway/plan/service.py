"""The rows by which a port finds who answers it: the agent of its own host, as the router of a network that has none.

Where a real router or a port has one of these addresses, that one has it: see
`Ledger`. What is sent there is answered by the agent, as far as it is DNS; for
the rest there is no route, which the sender is told.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address

from crossway.model import rows as r
from crossway.plan import view
from crossway.plan.address import first_of_each, ip, link_local
from crossway.plan.rows import Rows

NO_ROUTER = 0
# A locally administered MAC that no port is given.
SERVICE_MAC = bytes.fromhex("02c055000001")
# Link-local, so that no network's own addresses can be among them.
SERVICE_IP = IPv4Address("169.254.169.254")
SERVICE_IP6 = IPv6Address("fe80::a9fe:a9fe")


def service_rows(network: view.Network, subnets: Iterable[view.Subnet], resolvers: Iterable[str]) -> Rows:
    """Return the rows of a network with ports on this host; *resolvers* are whom those ask for names by default."""
    number, mac = network.number, SERVICE_MAC
    # A provider network's gateway is outside. A port that has been seen to be the gateway has it: see `Ledger`.
    gateways = [ip(s.gateway) for s in subnets if s.gateway is not None] if network.physnet is None else []
    own = [r.pack_ip(SERVICE_IP), r.pack_ip(SERVICE_IP6), link_local(mac)]
    place = r.Place(r.PlaceKind.ROUTER, router=NO_ROUTER)
    at = dict.fromkeys([*own, *map(ip, resolvers), *gateways])
    return {
        "endpoints": {r.EndpointKey(number, address): r.Endpoint(place, mac) for address in at},
        "macs": {r.MacKey(number, mac): place},
        "interfaces": {r.InterfaceKey(number, NO_ROUTER): r.Interface(mac, first_of_each([*gateways, *own]))},
    }
