"""The rules that new security groups begin with: Neutron's four, until an admin changes them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

from crossway.control.caller import Caller
from crossway.control.cloud import Cloud
from crossway.control.collection import Collection, find, make
from crossway.control.decision import Decision
from crossway.control.rule import check
from crossway.errors import Conflict, NotFound
from crossway.model.default_rule import DEFAULT_RULE, PARENT, DefaultRule
from crossway.model.resource import Given, new_id, now
from crossway.model.rule import EGRESS, INGRESS, IPV4, IPV6, of_family

# Says that the first four have been written down, where they can be shown, changed and deleted.
WRITTEN = "default-rules"


def first() -> list[DefaultRule]:
    """Return the rules that there are as long as none were written down."""
    time = now()
    made = []
    for ethertype in (IPV4, IPV6):
        for way, remote, everywhere in ((EGRESS, None, True), (INGRESS, PARENT, False)):
            made.append(
                DefaultRule(
                    id=new_id(),
                    project_id="",
                    description=f"Legacy default SG rule for {way} traffic",
                    direction=way,
                    ethertype=ethertype,
                    remote_group_id=remote,
                    used_in_default_sg=True,
                    used_in_non_default_sg=everywhere,
                    created_at=time,
                    updated_at=time,
                )
            )
    return made


def of_new(cloud: Cloud, default: bool) -> list[DefaultRule]:
    """Return the rules that a new group begins with, which may be its project's *default*."""
    all_of_them = cloud.of(DefaultRule).rows.values() if WRITTEN in cloud.claims else first()
    return [rule for rule in all_of_them if (rule.used_in_default_sg if default else rule.used_in_non_default_sg)]


def create(decision: Decision, caller: Caller, given: Given) -> DefaultRule:
    if WRITTEN not in decision.cloud.claims and f"claim/{WRITTEN}" not in decision.transaction.puts:
        write(decision)
    given["protocol"] = of_family(given["protocol"], given["ethertype"])
    rule = make(decision, caller, DefaultRule, given)
    check(rule.of("", "", ""))
    if rule.remote_group_id not in (None, PARENT):
        group = decision.rely(decision.cloud.groups, str(rule.remote_group_id))
        if group is None:
            raise NotFound("security_group", str(rule.remote_group_id))
    if rule.remote_address_group_id:
        table = decision.cloud.tables.get("address_group")
        if table is None or decision.rely(table, rule.remote_address_group_id) is None:
            raise NotFound("address_group", rule.remote_address_group_id)
    _claim(decision, rule)
    return rule


def delete(decision: Decision, caller: Caller, id: str) -> None:
    rule = find(decision, DefaultRule, id)
    decision.delete(decision.cloud.of(DefaultRule), id)
    for key in keys(rule):
        decision.release(key)


def write(decision: Decision) -> None:
    """Write the first rules down."""
    decision.claim(f"claim/{WRITTEN}")
    for rule in first():
        decision.create(decision.cloud.of(DefaultRule), rule)
        _claim(decision, rule)


def _claim(decision: Decision, rule: DefaultRule) -> None:
    """Take a rule's place among those of either kind of group, or raise Conflict."""
    cloud = decision.cloud
    for key in keys(rule):
        for other in cloud.of(DefaultRule).rows.values():
            if key in keys(other):
                raise _exists(other.id)
        if not decision.claim(key, rule.id):
            raise _exists(decision.transaction.puts[key].decode())


def keys(rule: DefaultRule) -> list[str]:
    """Return the keys that a rule holds: its place among those of either kind of group."""
    meaning = repr((*rule.of("", "", "").meaning, rule.remote_group_id, rule.remote_address_group_id))
    digest = hashlib.sha256(meaning.encode()).hexdigest()[:32]
    uses = (("default", rule.used_in_default_sg), ("other", rule.used_in_non_default_sg))
    return [f"template/{use}/{digest}" for use, used in uses if used]


def _exists(id: str) -> Conflict:
    return Conflict(
        f"Default Security group rule already exists. Rule id is {id}.", type="DefaultSecurityGroupRuleExists"
    )


def _written_first(cloud: Cloud, caller: Caller, filters: Mapping[str, list[str]]) -> Callable[[Decision], None] | None:
    return None if WRITTEN in cloud.claims else write


DEFAULT_RULES = Collection(
    kind=DEFAULT_RULE,
    path="default-security-group-rules",
    create=create,
    delete=delete,
    prepare=_written_first,
    aliases={"security-groups-default-rules": "Default rules for security groups"},
)
