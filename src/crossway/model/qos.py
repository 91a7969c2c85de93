"""A QoS policy and its rules: how much of a link a port may use, and how its packets are marked."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from crossway.model.check import boolean, brief, integer, one_of, says
from crossway.model.resource import Attribute, Kind, Resource, attribute, told
from crossway.model.who import ANYONE, MANAGER, PARENT_MANAGER, PARENT_READER, READER, SHARED

INGRESS, EGRESS, ANY = "ingress", "egress", "any"
# The classes of DSCP that have a name (RFC 2474, 2597, 3246) and no ECN bits in them.
DSCP = (0, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32, 34, 36, 38, 40, 44, 46, 48, 56)
MOST = (1 << 31) - 1
STANDARD = ("project_id", "name", "description", "created_at", "updated_at", "revision_number", "tags")


@says({"type": "integer", "minimum": 0, "maximum": 56})
def dscp(value: Any) -> int:
    number: int = integer(0, MOST)(value)
    if number not in DSCP:
        raise ValueError(f"{brief(value)} is not in {list(DSCP)}")
    return number


def rate(default: Any = msgspec.NODEFAULT) -> Attribute:
    return attribute(integer(0, MOST), default=default)


def way(*more: str) -> Attribute:
    return attribute(one_of(*more, INGRESS, EGRESS), default=EGRESS)


class Policy(Resource, frozen=True, kw_only=True, gc=False):
    is_default: Annotated[bool, attribute(boolean, default=False)] = False
    # A word of the request: whether it is shared stands among the RBAC policies.
    shared: Annotated[bool, attribute(boolean, default=False, shown=False)] = False


POLICY = Kind(
    Policy,
    "policy",
    "policies",
    table="qos_policy",
    create=MANAGER,
    get=READER | SHARED,
    update=MANAGER,
    delete=MANAGER,
    indexes={"project_id": None, "default": lambda policy: (policy.project_id,) if policy.is_default else ()},
    rbac="qos_policy",
)


class QosRule(Resource, frozen=True, kw_only=True, gc=False):
    """What all rules have: the policy that they belong to, which stands in their path."""

    qos_policy_id: str = ""

    @property
    def type(self) -> str:
        return self.kind.name.removesuffix("_rule")

    @property
    def way(self) -> str:
        """Return the direction; rules without one have none."""
        return str(getattr(self, "direction", ""))


class BandwidthLimitRule(QosRule, frozen=True, kw_only=True, gc=False):
    max_kbps: Annotated[int, rate()]
    max_burst_kbps: Annotated[int, rate(0)] = 0
    direction: Annotated[str, way()] = EGRESS


class DscpMarkingRule(QosRule, frozen=True, kw_only=True, gc=False):
    dscp_mark: Annotated[int, attribute(dscp, default=msgspec.NODEFAULT, filter_check=dscp)]


class MinimumBandwidthRule(QosRule, frozen=True, kw_only=True, gc=False):
    min_kbps: Annotated[int, rate()]
    direction: Annotated[str, way()] = EGRESS


class MinimumPacketRateRule(QosRule, frozen=True, kw_only=True, gc=False):
    min_kpps: Annotated[int, rate()]
    direction: Annotated[str, way(ANY)] = EGRESS


class PacketRateLimitRule(QosRule, frozen=True, kw_only=True, gc=False):
    max_kpps: Annotated[int, rate()]
    max_burst_kpps: Annotated[int, rate(0)] = 0
    direction: Annotated[str, way()] = EGRESS


def _kind(model: type[QosRule], name: str, table: str = "") -> Kind[Any]:
    return Kind(
        model,
        name,
        f"{name}s",
        table=table,
        create=PARENT_MANAGER,
        get=PARENT_READER,
        update=PARENT_MANAGER,
        delete=PARENT_MANAGER,
        without=STANDARD,
        parent=("qos_policy_id", "qos_policy"),
        indexes=("qos_policy_id",),
    )


QOS_RULES: tuple[Kind[Any], ...] = (
    _kind(BandwidthLimitRule, "bandwidth_limit_rule"),
    _kind(DscpMarkingRule, "dscp_marking_rule"),
    _kind(MinimumBandwidthRule, "minimum_bandwidth_rule"),
    _kind(MinimumPacketRateRule, "minimum_packet_rate_rule"),
    _kind(PacketRateLimitRule, "packet_rate_limit_rule"),
)


# The same rules by their own ids alone. They are no tables of their own.
class AliasBandwidthLimitRule(BandwidthLimitRule, frozen=True, kw_only=True, gc=False):
    pass


class AliasDscpMarkingRule(DscpMarkingRule, frozen=True, kw_only=True, gc=False):
    pass


class AliasMinimumBandwidthRule(MinimumBandwidthRule, frozen=True, kw_only=True, gc=False):
    pass


class AliasMinimumPacketRateRule(MinimumPacketRateRule, frozen=True, kw_only=True, gc=False):
    pass


QOS_ALIASES: tuple[Kind[Any], ...] = tuple(
    _kind(model, f"alias_{of}", of)
    for model, of in (
        (AliasBandwidthLimitRule, "bandwidth_limit_rule"),
        (AliasDscpMarkingRule, "dscp_marking_rule"),
        (AliasMinimumBandwidthRule, "minimum_bandwidth_rule"),
        (AliasMinimumPacketRateRule, "minimum_packet_rate_rule"),
    )
)


class RuleType(Resource, frozen=True, kw_only=True, gc=False):
    """*id* is the type."""

    type: Annotated[str, told()]


RULE_TYPE = Kind(RuleType, "rule_type", "rule_types", get=ANYONE, without=("id", *STANDARD))
