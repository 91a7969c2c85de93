"""Say whether new security groups are stateful where nothing is said."""

from __future__ import annotations

from crossway.control.caller import Caller
from crossway.control.cloud import Cloud
from crossway.control.collection import Collection, change, find
from crossway.control.decision import Decision
from crossway.errors import Conflict
from crossway.model.resource import Given, new_id, now
from crossway.model.statefulness import STATEFULNESS, Statefulness


def of_new(cloud: Cloud, project: str) -> bool:
    """Say whether a project's new group is stateful: as the project says, or all do, or it is."""
    table = cloud.of(Statefulness)
    said = table.by("whose", project) or table.by("whose", "")
    return said[0].stateful if said else True


def create(decision: Decision, caller: Caller, given: Given) -> Statefulness:
    project, time, table = given["project_id"] or None, now(), decision.cloud.of(Statefulness)
    made = Statefulness(**{**given, "project_id": project}, id=new_id(), created_at=time, updated_at=time)
    if table.by("whose", project or "") or not decision.claim(key(made), made.id):
        raise Conflict(
            f"A security group default statefulness setting already exists for project '{project or 'system-wide'}'.",
            type="SecurityGroupDefaultStatefulnessAlreadyExists",
        )
    decision.create(table, made)
    return made


def update(decision: Decision, caller: Caller, id: str, given: Given) -> Statefulness:
    return change(decision, find(decision, Statefulness, id), given)


def delete(decision: Decision, caller: Caller, id: str) -> None:
    old = find(decision, Statefulness, id)
    decision.delete(decision.cloud.of(Statefulness), id)
    decision.release(key(old))


def key(one: Statefulness) -> str:
    """Return the key that a setting holds."""
    return f"stateful/{one.project_id or ''}"


STATEFULNESSES = Collection(
    kind=STATEFULNESS,
    path="security-groups-default-statefulness",
    create=create,
    update=update,
    delete=delete,
    aliases={"security-groups-default-statefulness": "Security Groups Default Statefulness"},
)
