"""A rule that new security groups begin with."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from crossway.model.check import boolean, one_of, or_none, says, schema_of, uuid
from crossway.model.resource import Kind, Resource, attribute
from crossway.model.rule import EGRESS, INGRESS, IPV4, Rule, ethertype, normal, port_value, protocol
from crossway.model.rule import remote as remote_prefix
from crossway.model.who import ADMIN, ANYONE

# Stands for the group that a rule comes to belong to.
PARENT = "PARENT"


@says({"anyOf": [schema_of(or_none(uuid)), {"const": PARENT}]})
def remote(value: Any) -> Any:
    return value if value == PARENT else or_none(uuid)(value)


class DefaultRule(Resource, frozen=True, kw_only=True, gc=False):
    direction: Annotated[str, attribute(one_of(INGRESS, EGRESS), put=False, default=msgspec.NODEFAULT)]
    ethertype: Annotated[str, attribute(ethertype, put=False, default=IPV4)] = IPV4
    protocol: Annotated[str | None, attribute(protocol, put=False, default=None)] = None
    port_range_min: Annotated[int | None, attribute(port_value, put=False, default=None, filter_check=port_value)] = (
        None
    )
    port_range_max: Annotated[int | None, attribute(port_value, put=False, default=None, filter_check=port_value)] = (
        None
    )
    remote_ip_prefix: Annotated[str | None, attribute(remote_prefix, put=False, default=None)] = None
    remote_group_id: Annotated[str | None, attribute(remote, put=False, default=None)] = None
    remote_address_group_id: Annotated[str | None, attribute(or_none(uuid), put=False, default=None)] = None
    used_in_default_sg: Annotated[bool, attribute(boolean, put=False, default=False)] = False
    used_in_non_default_sg: Annotated[bool, attribute(boolean, put=False, default=True)] = True

    def of(self, id: str, group: str, project: str, **more: Any) -> Rule:
        """Return the rule that a group has of it."""
        return Rule(
            id=id,
            project_id=project,
            security_group_id=group,
            direction=self.direction,
            ethertype=self.ethertype,
            protocol=self.protocol,
            port_range_min=self.port_range_min,
            port_range_max=self.port_range_max,
            remote_ip_prefix=self.remote_ip_prefix,
            normalized_cidr=normal(self.remote_ip_prefix),
            remote_group_id=group if self.remote_group_id == PARENT else self.remote_group_id,
            remote_address_group_id=self.remote_address_group_id,
            **more,
        )


DEFAULT_RULE = Kind(
    DefaultRule,
    "default_security_group_rule",
    "default_security_group_rules",
    create=ADMIN,
    get=ANYONE,
    delete=ADMIN,
    without=("project_id", "name", "tags"),
    forgets=("project_id", "tenant_id"),
    indexes=("remote_group_id",),
)
