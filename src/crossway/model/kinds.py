"""Every kind of resource that there is: each has a table in the cloud."""

from __future__ import annotations

from typing import Any

from crossway.model.address_group import ADDRESS_GROUP
from crossway.model.address_scope import ADDRESS_SCOPE
from crossway.model.agent import AGENT, AVAILABILITY_ZONE
from crossway.model.binding import BINDING
from crossway.model.conntrack_helper import CONNTRACK_HELPER
from crossway.model.default_rule import DEFAULT_RULE
from crossway.model.flavor import FLAVOR, FLAVOR_PROFILE, SERVICE_PROFILE
from crossway.model.floatingip import FLOATINGIP
from crossway.model.floatingip_pool import FLOATINGIP_POOL
from crossway.model.group import GROUP
from crossway.model.local_ip import LOCAL_IP, PORT_ASSOCIATION
from crossway.model.log import LOG, LOGGABLE_RESOURCE
from crossway.model.metering import METERING_LABEL, METERING_LABEL_RULE
from crossway.model.ndp_proxy import NDP_PROXY
from crossway.model.network import NETWORK
from crossway.model.network_ip_availability import NETWORK_IP_AVAILABILITY
from crossway.model.port import PORT
from crossway.model.port_forwarding import PORT_FORWARDING
from crossway.model.qos import POLICY, QOS_RULES, RULE_TYPE
from crossway.model.quota import QUOTA
from crossway.model.rbac import RBAC_POLICY
from crossway.model.resource import Kind
from crossway.model.router import ROUTER
from crossway.model.rule import RULE
from crossway.model.segment import SEGMENT, SEGMENT_RANGE
from crossway.model.service_provider import SERVICE_PROVIDER
from crossway.model.statefulness import STATEFULNESS
from crossway.model.subnet import SUBNET
from crossway.model.subnetpool import SUBNETPOOL
from crossway.model.topology import TOPOLOGY
from crossway.model.trunk import TRUNK

KINDS: tuple[Kind[Any], ...] = (
    NETWORK,
    SUBNET,
    PORT,
    ROUTER,
    GROUP,
    RULE,
    RBAC_POLICY,
    ADDRESS_SCOPE,
    SUBNETPOOL,
    ADDRESS_GROUP,
    QUOTA,
    FLOATINGIP,
    FLOATINGIP_POOL,
    PORT_FORWARDING,
    NDP_PROXY,
    CONNTRACK_HELPER,
    LOCAL_IP,
    PORT_ASSOCIATION,
    TOPOLOGY,
    NETWORK_IP_AVAILABILITY,
    FLAVOR,
    SERVICE_PROFILE,
    FLAVOR_PROFILE,
    SERVICE_PROVIDER,
    POLICY,
    *QOS_RULES,
    RULE_TYPE,
    DEFAULT_RULE,
    LOG,
    LOGGABLE_RESOURCE,
    METERING_LABEL,
    METERING_LABEL_RULE,
    STATEFULNESS,
    BINDING,
    TRUNK,
    AGENT,
    AVAILABILITY_ZONE,
    SEGMENT,
    SEGMENT_RANGE,
)
BY_TABLE = {kind.table: kind for kind in KINDS}
# Names of things as RBAC policies know them.
BY_RBAC = {kind.rbac: kind for kind in KINDS if kind.rbac}
