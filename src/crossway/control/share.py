"""Share a resource with everyone, for those whose `shared` is a word for an RBAC policy.

Who uses what is shared with it puts the key `held/POLICY`, so that the policy
does not go while it begins to be used; and relies on the policy.
"""

from __future__ import annotations

from crossway.control.decision import Decision
from crossway.model.rbac import ACCESS_AS_SHARED, EVERYONE, RbacPolicy
from crossway.model.resource import Resource, new_id, now


def share(decision: Decision, resource: Resource, action: str = ACCESS_AS_SHARED) -> None:
    """Let every project use a resource."""
    if _with_everyone(decision, resource.id, action):
        return
    time = now()
    policy = RbacPolicy(
        id=new_id(),
        project_id=resource.project_id,
        object_type=resource.kind.rbac,
        object_id=resource.id,
        action=action,
        target=EVERYONE,
        created_at=time,
        updated_at=time,
    )
    decision.create(decision.cloud.rbac, policy, limited=False)


def unshare(decision: Decision, resource: Resource, action: str = ACCESS_AS_SHARED, everyone: bool = True) -> None:
    """Let no project use a resource but those that are named; or none at all, if not *everyone* alone is meant."""
    for policy in decision.by(decision.cloud.rbac, "object_id", resource.id):
        if policy.action == action and (policy.target == EVERYONE or not everyone):
            end(decision, policy)


def end(decision: Decision, policy: RbacPolicy) -> None:
    """Drop a policy, of which nobody begins to make use meanwhile."""
    settle(decision, policy)
    decision.release(f"held/{policy.id}")
    decision.delete(decision.cloud.rbac, policy.id)


def settle(decision: Decision, policy: RbacPolicy) -> None:
    """Rely on nobody beginning to make use of a policy."""
    decision.quiet(f"held/{policy.id}")


def hold(decision: Decision, project: str, resource: Resource, action: str = ACCESS_AS_SHARED) -> None:
    """Rely on a resource that is not the project's own staying shared with it."""
    if project in ("", resource.project_id):
        return
    for policy in decision.by(decision.cloud.rbac, "object_id", resource.id):
        if policy.action == action and policy.target in (EVERYONE, project):
            decision.rely(decision.cloud.rbac, policy.id)
            # Put without a comparison: any number may hold at once.
            decision.transaction.puts[f"held/{policy.id}"] = b""
            return


def forget(decision: Decision, id: str) -> None:
    """Drop all RBAC policies of a resource that is being deleted."""
    for policy in decision.by(decision.cloud.rbac, "object_id", id):
        end(decision, policy)


def _with_everyone(decision: Decision, id: str, action: str) -> list[RbacPolicy]:
    found = decision.by(decision.cloud.rbac, "object_id", id)
    return [p for p in found if p.target == EVERYONE and p.action == action]


def shared_with_everyone(decision: Decision, id: str) -> bool:
    return bool(_with_everyone(decision, id, ACCESS_AS_SHARED))
