"""Make, change and delete QoS policies and their rules; keep count of what uses them.

Ports, networks, floating IPs and gateways refer to a policy by `qos_policy_id`
and say so with `refer`, so that none is deleted under them.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from crossway.control.caller import Caller, named, seen, sees
from crossway.control.cloud import Cloud
from crossway.control.collection import Collection, Filter, change, find, make
from crossway.control.decision import Decision
from crossway.control.share import forget, share, unshare
from crossway.errors import Conflict, Forbidden, NotFound
from crossway.model.check import boolean
from crossway.model.network import Network
from crossway.model.port import Port
from crossway.model.qos import (
    ANY,
    DSCP,
    EGRESS,
    INGRESS,
    MOST,
    POLICY,
    QOS_ALIASES,
    QOS_RULES,
    RULE_TYPE,
    BandwidthLimitRule,
    MinimumBandwidthRule,
    MinimumPacketRateRule,
    Policy,
    QosRule,
    RuleType,
)
from crossway.model.rbac import ACCESS_AS_SHARED, EVERYONE
from crossway.model.resource import Given, Kind, Resource, changed, new_id, now


def create(decision: Decision, caller: Caller, given: Given) -> Policy:
    wide = given.pop("shared")
    policy = make(decision, caller, Policy, given)
    if policy.is_default:
        _make_default(decision, policy)
    if wide:
        share(decision, policy)
    return policy


def update(decision: Decision, caller: Caller, id: str, given: Given) -> Policy:
    old = find(decision, Policy, id)
    wide = given.pop("shared", None)
    new = change(decision, old, given)
    if new.is_default and not old.is_default:
        _make_default(decision, new)
    elif old.is_default and not new.is_default:
        decision.release(_default_key(old))
    if wide:
        share(decision, new)
    elif wide is False:
        check_unshare(decision, caller, id, EVERYONE)
        unshare(decision, new)
    return new


def delete(decision: Decision, caller: Caller, id: str) -> None:
    """Delete a policy that nothing uses, and its rules."""
    policy = find(decision, Policy, id)
    for kind, user in users(decision.cloud, id):
        by = named(decision.cloud, caller, kind, user)
        raise Conflict(f"QoS Policy {id} is used by {by}.", type="QosPolicyInUse")
    decision.empty(f"uses/{id}/")
    for rule in rules(decision.cloud, id):
        decision.delete(decision.cloud.of(type(rule)), rule.id)
    forget(decision, id)
    if policy.is_default:
        decision.release(_default_key(policy))
    decision.delete(decision.cloud.of(Policy), id)


def refer(decision: Decision, caller: Caller, by: str, old: str | None, new: str | None) -> None:
    """Have what has the id *by* use the policy *new* and no more *old*; raise NotFound if the caller may not see it.

    What a caller does not see it may not stop using either: an admin wants it used.
    """
    if old == new:
        return
    if old:
        was = decision.get(decision.cloud.of(Policy), old)
        if was is not None and not sees(decision.cloud, caller, was):
            raise Forbidden(
                f"Failed to remove provided policy {old} because you are not authorized.",
                type="PolicyRemoveAuthorizationError",
            )
        decision.release(f"uses/{old}/{by}")
    if new:
        found = decision.rely(decision.cloud.of(Policy), new)
        seen(decision.cloud, caller, POLICY.name, new, found)
        decision.claim(f"uses/{new}/{by}")


def drop(decision: Decision, by: str, old: str | None) -> None:
    """Have what has the id *by* and goes use its policy no more, whoever wanted it used."""
    if old:
        decision.release(f"uses/{old}/{by}")


def check_unshare(decision: Decision, caller: Caller, id: str, target: str) -> None:
    """Raise Conflict if a project that uses a policy may do so only because it is shared with *target*."""
    cloud = decision.cloud
    entries = [p for p in decision.by(cloud.rbac, "object_id", id) if p.action == ACCESS_AS_SHARED]
    others = {entry.target for entry in entries} - {target}
    if len([entry for entry in entries if entry.target == target]) == 0 or EVERYONE in others:
        return
    decision.quiet(f"uses/{id}/")
    for kind, user in users(cloud, id):
        if target in (EVERYONE, user.project_id) and user.project_id not in others:
            raise Conflict(
                f"RBAC policy on object {id} cannot be removed because other objects depend on it: "
                f"{named(cloud, caller, kind, user)} uses it.",
                type="RbacPolicyInUse",
            )


def default_of(cloud: Cloud, project: str) -> str | None:
    """Return the id of the policy that a project's new networks have if none is named."""
    return next(iter(cloud.of(Policy).ids("default", project)), None)


def request(cloud: Cloud, id: str, port: Port, network: Network | None) -> dict[str, Any] | None:
    """Return the resources that a scheduler must find for a port whose policy guarantees it some."""
    vnic = f"CUSTOM_VNIC_TYPE_{port.vnic_type.upper().replace('-', '_')}"
    physnet = network.physnet if network else None
    groups = []
    for kind, names in _RESOURCES.items():
        found = [rule for rule in rules(cloud, id) if isinstance(rule, kind)]
        traits = [vnic]
        if kind is MinimumBandwidthRule:
            # Bandwidth is that of the way to a physical network.
            if not physnet:
                continue
            traits.insert(0, "CUSTOM_PHYSNET_" + re.sub(r"[^A-Z0-9_]", "_", physnet.upper()))
        if found:
            resources = {names[rule.way]: getattr(rule, _MEASURE[kind]) for rule in found}
            own = str(uuid.uuid5(uuid.UUID(port.id), ",".join(sorted(rule.id for rule in found))))
            groups.append({"id": own, "required": traits, "resources": resources})
    return {"request_groups": groups, "same_subtree": [group["id"] for group in groups]} if groups else None


def users(cloud: Cloud, id: str) -> Iterator[tuple[str, Resource]]:
    """Return what uses a policy, each with its kind."""
    for name, table in cloud.tables.items():
        if "qos_policy_id" in table.indexes and name not in _TABLES:
            for user in table.by("qos_policy_id", id):
                yield name, user


def rules(cloud: Cloud, id: str) -> list[QosRule]:
    """Return the rules of a policy."""
    return [rule for kind in QOS_RULES for rule in cloud.tables[kind.table].by("qos_policy_id", id)]


def create_rule(kind: Kind[Any]) -> Any:
    def create(decision: Decision, caller: Caller, given: Given) -> QosRule:
        policy = find(decision, Policy, given["qos_policy_id"])
        time = now()
        made = {**given, "project_id": policy.project_id, "id": new_id(), "created_at": time, "updated_at": time}
        rule: QosRule = kind.model(**made)
        _check(decision, policy, rule)
        decision.create(decision.cloud.tables[kind.table], rule)
        change(decision, policy, {})
        return rule

    return create


def update_rule(kind: Kind[Any]) -> Any:
    def update(decision: Decision, caller: Caller, id: str, given: Given) -> QosRule:
        old, policy = _rule(decision, kind, id)
        new = changed(old, given)
        _check(decision, policy, new)
        decision.put(decision.cloud.tables[kind.table], new)
        change(decision, policy, {})
        return new

    return update


def delete_rule(kind: Kind[Any]) -> Any:
    def delete(decision: Decision, caller: Caller, id: str) -> None:
        _, policy = _rule(decision, kind, id)
        decision.delete(decision.cloud.tables[kind.table], id)
        change(decision, policy, {})

    return delete


def _rule(decision: Decision, kind: Kind[Any], id: str) -> tuple[QosRule, Policy]:
    rule: QosRule | None = decision.read(decision.cloud.tables[kind.table], id)
    if rule is None:
        raise NotFound(kind.name, id)
    # The policy changes with each of its rules, so that two that are made at once are checked against each other.
    return rule, find(decision, Policy, rule.qos_policy_id)


def _check(decision: Decision, policy: Policy, rule: QosRule) -> None:
    """Raise Conflict if a rule does not go together with the others of its policy."""
    for kind in QOS_RULES:
        for other in decision.by(decision.cloud.tables[kind.table], "qos_policy_id", policy.id):
            if other.id == rule.id:
                continue
            if other.type == rule.type and other.way == rule.way:
                raise Conflict(
                    f"Rule {rule.type} conflicts with rule {other.id} which already exists in QoS Policy {policy.id}.",
                    type="QoSRulesConflict",
                )
            _check_values(policy, rule, other)


def _check_values(policy: Policy, rule: QosRule, other: QosRule) -> None:
    """Raise Conflict if one rule guarantees more than another admits."""
    match rule, other:
        case BandwidthLimitRule(), MinimumBandwidthRule() if rule.way == other.way and other.min_kbps > rule.max_kbps:
            refused: tuple[object, object] = rule.max_kbps, other.min_kbps
        case MinimumBandwidthRule(), BandwidthLimitRule() if rule.way == other.way and other.max_kbps < rule.min_kbps:
            refused = rule.min_kbps, other.max_kbps
        case MinimumPacketRateRule(), MinimumPacketRateRule() if (rule.way == ANY) != (other.way == ANY):
            refused = rule.way, other.way
        case _:
            return
    raise Conflict(
        f"Unable to add the rule with value {refused[0]} to the policy {policy.id} as the existing rule of type "
        f"{other.type} has value {refused[1]}.",
        type="QoSRuleParameterConflict",
    )


def _make_default(decision: Decision, policy: Policy) -> None:
    known = default_of(decision.cloud, policy.project_id)
    if (known is not None and known != policy.id) or not decision.claim(_default_key(policy), policy.id):
        raise Conflict(
            f"A default QoS policy exists for project {policy.project_id}.", type="QoSPolicyDefaultAlreadyExists"
        )


def keys(policy: Policy) -> Iterator[str]:
    """Yield the keys that a policy holds."""
    if policy.is_default:
        yield _default_key(policy)


def _default_key(policy: Policy) -> str:
    return f"qos-default/{policy.project_id}"


def _shown(cloud: Cloud, policy: Policy) -> list[dict[str, Any]]:
    return [{**rule.kind.show(rule), "type": rule.type, "qos_policy_id": policy.id} for rule in rules(cloud, policy.id)]


def _children() -> Iterator[Collection]:
    for kind in QOS_RULES:
        yield Collection(kind=kind, create=create_rule(kind), update=update_rule(kind), delete=delete_rule(kind))


_RESOURCES: Mapping[type[QosRule], Mapping[str, str]] = {
    MinimumPacketRateRule: {
        EGRESS: "NET_PACKET_RATE_EGR_KILOPACKET_PER_SEC",
        INGRESS: "NET_PACKET_RATE_IGR_KILOPACKET_PER_SEC",
        ANY: "NET_PACKET_RATE_KILOPACKET_PER_SEC",
    },
    MinimumBandwidthRule: {
        EGRESS: "NET_BW_EGR_KILOBIT_PER_SEC",
        INGRESS: "NET_BW_IGR_KILOBIT_PER_SEC",
    },
}
_MEASURE: Mapping[type[QosRule], str] = {MinimumPacketRateRule: "min_kpps", MinimumBandwidthRule: "min_kbps"}
_TABLES = frozenset(kind.table for kind in QOS_RULES)
_BY_TABLE = {kind.table: kind for kind in QOS_RULES}

POLICIES = Collection(
    kind=POLICY,
    path="qos/policies",
    anew=True,
    create=create,
    update=update,
    delete=delete,
    children=tuple(_children()),
    derived={"rules": _shown},
    aliases={
        "qos": "Quality of Service",
        "qos-bw-limit-direction": "Direction for QoS bandwidth limit rule",
        "qos-bw-minimum-ingress": "Ingress direction for QoS minimum bandwidth rule",
        "qos-default": "QoS default policy",
        "qos-pps": "QoS Rule Type Packet per Second Extension",
        "qos-pps-minimum": "QoS minimum packet rate rule",
    },
)

ALIASES = tuple(
    Collection(
        kind=kind,
        path=f"qos/{kind.plural}",
        update=update_rule(_BY_TABLE[kind.table]),
        delete=delete_rule(_BY_TABLE[kind.table]),
        aliases={"qos-pps-minimum-rule-alias": "QoS minimum packet rate rule alias"}
        if kind.table == "minimum_packet_rate_rule"
        else {"qos-rules-alias": "Quality of Service rules alias API"},
    )
    for kind in QOS_ALIASES
)

_KBPS = {"parameter_type": "range", "parameter_values": {"start": 0, "end": MOST}}
_PARAMETERS: Mapping[str, tuple[str, ...]] = {
    "bandwidth_limit": ("max_kbps", "max_burst_kbps", "direction"),
    "dscp_marking": ("dscp_mark",),
    "minimum_bandwidth": ("min_kbps", "direction"),
    "minimum_packet_rate": ("min_kpps", "direction"),
    "packet_rate_limit": ("max_kpps", "max_burst_kpps", "direction"),
}


def _parameter(type: str, name: str) -> dict[str, Any]:
    if name == "direction":
        ways = [EGRESS, INGRESS, *([ANY] if type == "minimum_packet_rate" else [])]
        return {"parameter_name": name, "parameter_type": "choices", "parameter_values": ways}
    if name == "dscp_mark":
        return {"parameter_name": name, "parameter_type": "choices", "parameter_values": list(DSCP)}
    return {"parameter_name": name, **_KBPS}


def _details(decision: Decision, caller: Caller, type: str, fields: list[str]) -> Mapping[str, Any]:
    """Tell an admin what rules of a type may say."""
    if not caller.admin:
        raise Forbidden("Not authorized: details of a rule type are for admins.", type="NotAuthorized")
    if type not in _PARAMETERS:
        raise NotFound("rule_type", type)
    said = [_parameter(type, name) for name in _PARAMETERS[type]]
    told = {"type": type, "drivers": [{"name": "crossway", "supported_parameters": said}]}
    return {name: value for name, value in told.items() if not fields or name in fields}


def _whatever(name: str) -> Filter:
    """Return a filter that asks for nothing: every type is supported wherever a port is."""

    def whatever(cloud: Cloud, caller: Caller, values: list[str]) -> Any:
        for value in values:
            boolean(value)
        return lambda rule_type: True

    return whatever


RULE_TYPES = Collection(
    kind=RULE_TYPE,
    path="qos/rule-types",
    rows=lambda cloud, caller: [RuleType(id=type, project_id="", type=type) for type in _PARAMETERS],
    show=_details,
    filters={name: _whatever(name) for name in ("all_supported", "all_rules")},
    aliases={
        "qos-rule-type-details": "Details of QoS rule types",
        "qos-rule-type-filter": "Allow to filter the list of QoS rule types",
    },
)
