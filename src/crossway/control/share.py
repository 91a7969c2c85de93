"""Share a resource with everyone, for those whose `shared` is a word for an RBAC policy."""

from __future__ import annotations

from crossway.control.decision import Decision
from crossway.model.rbac import ACCESS_AS_SHARED, EVERYONE, RbacPolicy
from crossway.model.resource import Resource, new_id, now


def share(decision: Decision, resource: Resource) -> None:
    """Let every project use a resource."""
    if _with_everyone(decision, resource.id):
        return
    time = now()
    policy = RbacPolicy(
        id=new_id(),
        project_id=resource.project_id,
        object_type=resource.kind.rbac,
        object_id=resource.id,
        action=ACCESS_AS_SHARED,
        target=EVERYONE,
        created_at=time,
        updated_at=time,
    )
    decision.create(decision.cloud.rbac, policy, limited=False)


def unshare(decision: Decision, resource: Resource) -> None:
    """Let no project use a resource but those that are named."""
    for policy in _with_everyone(decision, resource.id):
        decision.delete(decision.cloud.rbac, policy.id)


def forget(decision: Decision, id: str) -> None:
    """Drop all RBAC policies of a resource that is being deleted."""
    for policy in decision.by(decision.cloud.rbac, "object_id", id):
        decision.delete(decision.cloud.rbac, policy.id)


def _with_everyone(decision: Decision, id: str) -> list[RbacPolicy]:
    found = decision.by(decision.cloud.rbac, "object_id", id)
    return [p for p in found if p.target == EVERYONE and p.action == ACCESS_AS_SHARED]
