"""Make, change and delete security groups; every project has one called default."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec import UNSET

from crossway.control import default_rule, identity, log, statefulness
from crossway.control.caller import Caller, named, project_of, seen
from crossway.control.cloud import Cloud
from crossway.control.collection import Collection
from crossway.control.decision import Decision
from crossway.control.rule import insert, remove
from crossway.control.share import forget
from crossway.errors import Conflict
from crossway.model.group import DEFAULT, GROUP, Group
from crossway.model.resource import Given, changed, new_id, now
from crossway.model.rule import RULE


def create(decision: Decision, caller: Caller, given: Given) -> Group:
    project = project_of(caller, given)
    if given["name"].lower() == DEFAULT:
        raise Conflict("Default security group already exists.", type="SecurityGroupDefaultAlreadyExists")
    default(decision, project)
    return _create(decision, {**given, "project_id": project})


def default(decision: Decision, project: str) -> str:
    """Return the id of a project's default group, made if it has none."""
    key = f"default/{project}"
    known = decision.transaction.puts.get(key)
    if known is not None:
        return known.decode()
    if project in decision.cloud.defaults:
        return decision.cloud.defaults[project]
    given = {"name": DEFAULT, "description": "Default security group", "project_id": project}
    group = _create(decision, given)
    decision.claim(key, group.id)
    return group.id


def update(decision: Decision, caller: Caller, id: str, given: Given) -> Group:
    cloud = decision.cloud
    old: Group = seen(cloud, caller, "security_group", id, decision.read(cloud.groups, id))
    if given.get("name", old.name) != old.name:
        if given["name"].lower() == DEFAULT:
            raise Conflict("Default security group already exists.", type="SecurityGroupDefaultAlreadyExists")
        if old.name == DEFAULT:
            raise Conflict("Default security group cannot be renamed.", type="SecurityGroupCannotUpdateDefault")
    if "stateful" in given and given["stateful"] != old.stateful and cloud.ports.ids("security_groups", id):
        raise Conflict(
            f"Security Group {id} in use by ports: its statefulness cannot change.", type="SecurityGroupInUse"
        )
    if given.get("stateful", old.stateful) != old.stateful:
        # No port begins to have it meanwhile.
        decision.quiet(f"member/{id}/")
        for unused in cloud.identities.by("group", id):
            decision.quiet(f"bearer/{unused.id}/")
    new = changed(old, given)
    decision.put(cloud.groups, new)
    return new


def delete(decision: Decision, caller: Caller, id: str) -> None:
    """Delete a group that no port has, its rules, and the rules that name it as remote."""
    cloud = decision.cloud
    group: Group = seen(cloud, caller, "security_group", id, decision.read(cloud.groups, id))
    if cloud.defaults.get(group.project_id) == id and not caller.admin:
        raise Conflict(
            "Insufficient rights for removing default security group.", type="SecurityGroupCannotRemoveDefault"
        )
    ports = cloud.ports.by("security_groups", id)
    if ports:
        raise Conflict(
            f"Security Group {id} in use by {named(cloud, caller, 'port', ports[0])}.", type="SecurityGroupInUse"
        )
    for kind in ("member", "unique", "remote"):
        decision.quiet(f"{kind}/{id}/")
    for unused in cloud.identities.by("group", id):
        identity.free(decision, unused, rests=True)
    log.drop_of_group(decision, id)
    rules = {r.id: r for r in cloud.rules.by("security_group_id", id) + cloud.rules.by("remote_group_id", id)}
    for rule in rules.values():
        remove(decision, rule)
    forget(decision, id)
    decision.delete(cloud.groups, id)
    if cloud.defaults.get(group.project_id) == id:
        decision.release(f"default/{group.project_id}")


def _create(decision: Decision, given: Given) -> Group:
    cloud, time = decision.cloud, now()
    if given.get("stateful", UNSET) is UNSET:
        given = {**given, "stateful": statefulness.of_new(cloud, given["project_id"])}
    group = Group(**given, id=new_id(), created_at=time, updated_at=time)
    # Every project must be able to have its default group: no quota stops it.
    limited = group.name != DEFAULT
    decision.create(cloud.groups, group, limited)
    for template in default_rule.of_new(cloud, group.name == DEFAULT):
        rule = template.of(
            new_id(),
            group.id,
            group.project_id,
            belongs_to_default_sg=group.name == DEFAULT,
            created_at=time,
            updated_at=time,
        )
        # What a template names may be gone by now.
        if rule.remote_group_id in (None, group.id) or decision.rely(cloud.groups, str(rule.remote_group_id)):
            insert(decision, rule, limited)
    return group


def _default_first(cloud: Cloud, caller: Caller, filters: Mapping[str, list[str]]) -> Callable[[Decision], str] | None:
    """Return what gives a project its default group if it has none: the one that an admin asks for, or the caller's."""
    asked = filters.get("project_id") or filters.get("tenant_id")
    project = asked[0] if asked and caller.admin else caller.project
    if project in cloud.defaults or not project:
        return None
    return lambda decision: default(decision, project)


GROUPS = Collection(
    kind=GROUP,
    create=create,
    update=update,
    delete=delete,
    derived={
        "security_group_rules": lambda cloud, group: [
            # No rule has tags; a client that was written for Neutron's answers looks for them here.
            {**RULE.show(rule), "tags": []}
            for rule in cloud.rules.by("security_group_id", group.id)
        ]
    },
    stale={"rule": lambda rule: (rule.security_group_id,)},
    prepare=_default_first,
    aliases={
        "security-group": "security-group",
        "security-groups-shared-filtering": "Security group filtering on the shared field",
        "stateful-security-group": "Stateful security group",
    },
)
