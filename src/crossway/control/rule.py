"""Make and delete rules of security groups."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterator, Sequence

from msgspec import UNSET

from crossway.control.caller import Caller, owned, seen
from crossway.control.collection import Collection, touch
from crossway.control.decision import Decision
from crossway.control.share import hold
from crossway.errors import Conflict, Invalid
from crossway.model.address_group import AddressGroup
from crossway.model.group import DEFAULT, Group
from crossway.model.resource import Given, changed, new_id, now
from crossway.model.rule import ICMP, ICMPV6, IPV4, IPV6, IPV6_ONLY, RULE, WITH_PORTS, Rule, normal, of_family


def create(decision: Decision, caller: Caller, given: Given) -> Rule:
    cloud = decision.cloud
    group: Group = owned(
        cloud,
        caller,
        "security_group",
        given["security_group_id"],
        decision.rely(cloud.groups, given["security_group_id"]),
    )
    time = now()
    rule = Rule(
        **{**given, "project_id": group.project_id, "protocol": of_family(given["protocol"], given["ethertype"])},
        id=new_id(),
        normalized_cidr=normal(given["remote_ip_prefix"]),
        belongs_to_default_sg=group.name == DEFAULT,
        created_at=time,
        updated_at=time,
    )
    check(rule)
    if rule.remote_group_id is not None:
        seen(cloud, caller, "security_group", rule.remote_group_id, decision.rely(cloud.groups, rule.remote_group_id))
    if rule.remote_address_group_id is not None:
        id = rule.remote_address_group_id
        addresses: AddressGroup = seen(cloud, caller, "address_group", id, decision.rely(cloud.of(AddressGroup), id))
        hold(decision, rule.project_id, addresses)
    for other in cloud.rules.ids("meaning", rule.meaning):
        raise _exists(other)
    if _unique_key(rule) in decision.transaction.puts:
        raise Conflict(
            f"Duplicate Security Group Rule in POST: as {decision.transaction.puts[_unique_key(rule)].decode()}.",
            type="DuplicateSecurityGroupRuleInPost",
        )
    insert(decision, rule)
    touch(decision, Group, group.id)
    return rule


def together(all_given: Sequence[Given]) -> None:
    """Refuse rules of several groups, or for several projects, in one request."""
    if len({given["security_group_id"].lower() for given in all_given}) > 1:
        raise Invalid(
            "Only allowed to update rules for one security group at a time", "SecurityGroupNotSingleGroupRules"
        )
    if len({given["project_id"] for given in all_given} - {UNSET}) > 1:
        raise Invalid(
            "Only allowed to update rules for one security profile at a time", "SecurityGroupRulesNotSingleProject"
        )


def update(decision: Decision, caller: Caller, id: str, given: Given) -> Rule:
    """Change a rule's description; the rest of a rule stays as it is."""
    cloud = decision.cloud
    old: Rule = seen(cloud, caller, "security_group_rule", id, decision.read(cloud.rules, id))
    new = changed(old, given)
    decision.put(cloud.rules, new)
    touch(decision, Group, new.security_group_id)
    return new


def delete(decision: Decision, caller: Caller, id: str) -> None:
    cloud = decision.cloud
    rule: Rule = seen(cloud, caller, "security_group_rule", id, decision.read(cloud.rules, id))
    remove(decision, rule)
    touch(decision, Group, rule.security_group_id)


def insert(decision: Decision, rule: Rule, limited: bool = True) -> None:
    decision.create(decision.cloud.rules, rule, limited)
    for key in keys(rule):
        decision.claim(key, rule.id)


def remove(decision: Decision, rule: Rule) -> None:
    decision.delete(decision.cloud.rules, rule.id)
    for key in keys(rule):
        decision.release(key)


def keys(rule: Rule) -> Iterator[str]:
    """Yield the keys that a rule holds: its place in its group, and what it names."""
    yield _unique_key(rule)
    if rule.remote_group_id:
        yield f"remote/{rule.remote_group_id}/{rule.id}"
    if rule.remote_address_group_id:
        yield f"named/{rule.remote_address_group_id}/{rule.id}"


def check(rule: Rule) -> None:
    """Raise Invalid where the parts of a rule do not go together."""
    if sum(map(bool, (rule.remote_group_id, rule.remote_ip_prefix, rule.remote_address_group_id))) > 1:
        raise Invalid(
            "Only one of remote_ip_prefix, remote_group_id or remote_address_group_id may be provided.",
            type="SecurityGroupMultipleRemoteEntites",
        )
    prefix = rule.normalized_cidr
    if prefix and ipaddress.ip_network(prefix).version != (4 if rule.ethertype == IPV4 else 6):
        raise Invalid(
            f"Conflicting value ethertype {rule.ethertype} for CIDR {rule.remote_ip_prefix}",
            type="SecurityGroupRuleParameterConflict",
        )
    if rule.ethertype == IPV4 and rule.proto in IPV6_ONLY:
        raise Invalid(
            f"Invalid ethertype {rule.ethertype} for protocol {rule.protocol}; should be {IPV6}.",
            type="SecurityGroupEthertypeConflictWithProtocol",
        )
    _check_ports(rule)


def _check_ports(rule: Rule) -> None:
    low, high, proto = rule.port_range_min, rule.port_range_max, rule.proto
    if low is None and high is None:
        return
    if proto is None:
        raise Invalid(
            "Must also specify protocol if port range is given.", type="SecurityGroupProtocolRequiredWithPorts"
        )
    if proto in (ICMP, ICMPV6):
        for name, value in (("ICMP type (port_range_min)", low), ("ICMP code (port_range_max)", high)):
            if value is not None and value > 255:
                raise Invalid(
                    f"Invalid value for {name}: '{value}' should be from 0 to 255.",
                    type="SecurityGroupInvalidIcmpValue",
                )
        if low is None:
            raise Invalid(
                f"ICMP code (port-range-max) {high} is provided but ICMP type (port-range-min) is missing.",
                type="SecurityGroupMissingIcmpType",
            )
    elif proto not in WITH_PORTS:
        raise Invalid(
            f"Invalid protocol {rule.protocol} for port range: only TCP, UDP, UDPLITE, SCTP and DCCP have ports.",
            type="SecurityGroupInvalidProtocolForPort",
        )
    elif low == 0 or high == 0:
        raise Invalid("Invalid value for port 0: should be from 1 to 65535.", type="SecurityGroupInvalidPortValue")
    elif low is None or high is None or low > high:
        raise Invalid(
            f"For TCP/UDP protocols, port_range_min must be <= port_range_max, and both given; not {low} and {high}.",
            type="SecurityGroupInvalidPortRange",
        )


def _unique_key(rule: Rule) -> str:
    digest = hashlib.sha256(repr(rule.meaning).encode()).hexdigest()[:32]
    return f"unique/{rule.security_group_id}/{digest}"


def _exists(id: str) -> Conflict:
    return Conflict(f"Security group rule already exists. Rule id is {id}.", type="SecurityGroupRuleExists")


RULES = Collection(
    kind=RULE,
    create=create,
    update=update,
    delete=delete,
    together=together,
    aliases={
        "security-groups-normalized-cidr": "Normalized CIDR field for security group rules",
        "security-groups-rules-belongs-to-default-sg": "Security group rule belongs to the default group",
    },
)
