"""Make and delete metering labels and their rules. Nothing counts by them so far."""

from __future__ import annotations

import ipaddress

from crossway.control.caller import Caller
from crossway.control.collection import Collection, find, make
from crossway.control.decision import Decision
from crossway.errors import Conflict, Invalid, NotFound
from crossway.model.metering import METERING_LABEL, METERING_LABEL_RULE, MeteringLabel, MeteringLabelRule
from crossway.model.resource import Given


def create_label(decision: Decision, caller: Caller, given: Given) -> MeteringLabel:
    return make(decision, caller, MeteringLabel, given)


def delete_label(decision: Decision, caller: Caller, id: str) -> None:
    """Delete a label with its rules."""
    find(decision, MeteringLabel, id)
    decision.quiet(f"metering/{id}/")
    for rule in decision.cloud.of(MeteringLabelRule).by("metering_label_id", id):
        delete_rule(decision, caller, rule.id)
    decision.delete(decision.cloud.of(MeteringLabel), id)


def create_rule(decision: Decision, caller: Caller, given: Given) -> MeteringLabelRule:
    label_id = given["metering_label_id"]
    label = decision.rely(decision.cloud.of(MeteringLabel), label_id)
    if label is None:
        raise NotFound("metering_label", label_id)
    remote, ends = given["remote_ip_prefix"], (given["source_ip_prefix"], given["destination_ip_prefix"])
    if remote and any(ends):
        raise Invalid(
            "Cannot use 'remote-ip-prefix' in conjunction with 'source-ip-prefix' or 'destination-ip-prefix'."
        )
    if not remote and not any(ends):
        raise Invalid(
            "You must define at least one of the following parameters 'remote_ip_prefix', or 'source_ip_prefix' or "
            "'destination_ip_prefix'."
        )
    others = decision.by(decision.cloud.of(MeteringLabelRule), "metering_label_id", label_id)
    rule = make(decision, caller, MeteringLabelRule, {**given, "project_id": label.project_id})
    # Of two that overlap and are made at once, one is made and the other finds it.
    decision.quiet(f"metering/{label_id}/")
    for other in others:
        alike = (other.direction, other.excluded) == (rule.direction, rule.excluded)
        if alike and _overlap(other.remote_ip_prefix, remote):
            raise Conflict(
                f"Metering label rule with remote_ip_prefix '{remote}' overlaps another.",
                type="MeteringLabelRuleOverlaps",
            )
    decision.claim(key(rule))
    return rule


def delete_rule(decision: Decision, caller: Caller, id: str) -> None:
    rule = find(decision, MeteringLabelRule, id)
    decision.release(key(rule))
    decision.delete(decision.cloud.of(MeteringLabelRule), id)


def key(rule: MeteringLabelRule) -> str:
    """Return the key that a rule holds."""
    return f"metering/{rule.metering_label_id}/{rule.id}"


def _overlap(one: str | None, other: str | None) -> bool:
    if not one or not other:
        return False
    first, second = (ipaddress.ip_network(prefix, strict=False) for prefix in (one, other))
    return first.version == second.version and first.overlaps(second)


METERING_LABELS = Collection(
    kind=METERING_LABEL,
    path="metering/metering-labels",
    create=create_label,
    delete=delete_label,
    aliases={"metering": "Neutron Metering"},
)

METERING_LABEL_RULES = Collection(
    kind=METERING_LABEL_RULE,
    path="metering/metering-label-rules",
    create=create_rule,
    delete=delete_rule,
    aliases={
        "metering_source_and_destination_fields": "Neutron Metering with source and destination filtering",
    },
)
