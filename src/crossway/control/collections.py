"""Every collection of the Networking API."""

from __future__ import annotations

from collections.abc import Iterator

from crossway.control.address_group import ADDRESS_GROUPS
from crossway.control.address_scope import ADDRESS_SCOPES
from crossway.control.agent import AGENTS, AVAILABILITY_ZONES
from crossway.control.collection import Collection
from crossway.control.default_rule import DEFAULT_RULES
from crossway.control.flavor import FLAVORS, SERVICE_PROFILES
from crossway.control.floatingip import FLOATINGIPS
from crossway.control.floatingip_pool import FLOATINGIP_POOLS
from crossway.control.group import GROUPS
from crossway.control.local_ip import LOCAL_IPS
from crossway.control.log import LOGGABLE_RESOURCES, LOGS
from crossway.control.metering import METERING_LABEL_RULES, METERING_LABELS
from crossway.control.ndp_proxy import NDP_PROXIES
from crossway.control.network import NETWORKS
from crossway.control.network_ip_availability import NETWORK_IP_AVAILABILITIES
from crossway.control.port import PORTS
from crossway.control.qos import ALIASES, POLICIES, RULE_TYPES
from crossway.control.quota import QUOTAS
from crossway.control.rbac import RBAC_POLICIES
from crossway.control.router import ROUTERS
from crossway.control.rule import RULES
from crossway.control.segment import SEGMENTS
from crossway.control.segment_range import SEGMENT_RANGES
from crossway.control.service_provider import SERVICE_PROVIDERS
from crossway.control.statefulness import STATEFULNESSES
from crossway.control.subnet import SUBNETS
from crossway.control.subnetpool import SUBNETPOOLS
from crossway.control.topology import TOPOLOGIES
from crossway.control.trunk import TRUNKS

# Those that stand directly below /v2.0; their children with them.
COLLECTIONS: tuple[Collection, ...] = (
    NETWORKS,
    SUBNETS,
    PORTS,
    ROUTERS,
    GROUPS,
    RULES,
    RBAC_POLICIES,
    ADDRESS_SCOPES,
    SUBNETPOOLS,
    ADDRESS_GROUPS,
    QUOTAS,
    FLOATINGIPS,
    FLOATINGIP_POOLS,
    *ALIASES,
    POLICIES,
    RULE_TYPES,
    NDP_PROXIES,
    LOCAL_IPS,
    NETWORK_IP_AVAILABILITIES,
    FLAVORS,
    SERVICE_PROFILES,
    SERVICE_PROVIDERS,
    TOPOLOGIES,
    DEFAULT_RULES,
    LOGS,
    LOGGABLE_RESOURCES,
    METERING_LABELS,
    METERING_LABEL_RULES,
    STATEFULNESSES,
    TRUNKS,
    AGENTS,
    AVAILABILITY_ZONES,
    SEGMENTS,
    SEGMENT_RANGES,
)


def every(collections: tuple[Collection, ...] = COLLECTIONS) -> Iterator[Collection]:
    """Return all collections, children after their parents."""
    for collection in collections:
        yield collection
        yield from every(collection.children)
