"""Every collection of the Networking API."""

from __future__ import annotations

from collections.abc import Iterator

from crossway.control.collection import Collection
from crossway.control.floatingip import FLOATINGIPS
from crossway.control.floatingip_pool import FLOATINGIP_POOLS
from crossway.control.group import GROUPS
from crossway.control.network import NETWORKS
from crossway.control.port import PORTS
from crossway.control.qos import ALIASES, POLICIES, RULE_TYPES
from crossway.control.quota import QUOTAS
from crossway.control.router import ROUTERS
from crossway.control.rule import RULES
from crossway.control.subnet import SUBNETS

# Those that stand directly below /v2.0; their children with them.
COLLECTIONS: tuple[Collection, ...] = (
    NETWORKS,
    SUBNETS,
    PORTS,
    ROUTERS,
    GROUPS,
    RULES,
    QUOTAS,
    FLOATINGIPS,
    FLOATINGIP_POOLS,
    *ALIASES,
    POLICIES,
    RULE_TYPES,
)


def every(collections: tuple[Collection, ...] = COLLECTIONS) -> Iterator[Collection]:
    """Return all collections, children after their parents."""
    for collection in collections:
        yield collection
        yield from every(collection.children)
