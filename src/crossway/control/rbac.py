"""Make, change and delete RBAC policies: who may use what, beside its owner.

A network's `shared` and `router:external` say that there is a policy for
everyone, or any to use it as external: they change in the same decision.
"""

from __future__ import annotations

from collections.abc import Iterator

from crossway.control.caller import Caller, named, sees, shared
from crossway.control.cloud import Cloud
from crossway.control.collection import Collection, change, find, make
from crossway.control.decision import Decision
from crossway.control.share import end, settle
from crossway.errors import Conflict, Invalid
from crossway.model.address_scope import AddressScope
from crossway.model.floatingip import FLOATING_IP
from crossway.model.kinds import BY_RBAC
from crossway.model.network import Network
from crossway.model.port import ROUTER_GATEWAY
from crossway.model.rbac import ACCESS_AS_EXTERNAL, ACCESS_AS_SHARED, EVERYONE, RBAC_POLICY, RbacPolicy
from crossway.model.resource import Given, Resource, changed
from crossway.model.subnetpool import SubnetPool

# Held by the external network that is the default.
DEFAULT_NETWORK = "default-outside/network"


def create(decision: Decision, caller: Caller, given: Given) -> RbacPolicy:
    kind, id = BY_RBAC[given["object_type"]], given["object_id"]
    if given["action"] == ACCESS_AS_EXTERNAL and kind is not Network.kind:
        raise _invalid(
            f"Invalid action '{given['action']}' for object type '{kind.rbac}'. Valid actions: {ACCESS_AS_SHARED}"
        )
    found: Resource | None = decision.read(decision.cloud.tables[kind.table], id)
    if found is None or not sees(decision.cloud, caller, found):
        raise _invalid(f"{kind.rbac} {id} could not be found")
    if not caller.admin and found.project_id != caller.project:
        raise _invalid("Only admins can manipulate policies on objects they do not own")
    _check_new(decision, given["object_id"], given["action"], given["target"])
    _check_scope(decision, found, given["target"])
    policy = make(decision, caller, RbacPolicy, given)
    _settle_object(decision, found)
    return policy


def update(decision: Decision, caller: Caller, id: str, given: Given) -> RbacPolicy:
    """Aim a policy at another project, if the one that may no more does not use the object."""
    old = find(decision, RbacPolicy, id)
    target = given.get("target", old.target)
    if target == old.target:
        return change(decision, old, given)
    _check_new(decision, old.object_id, old.action, target)
    found = _object(decision, old)
    if found is not None:
        check_end(decision, caller, found, old.action, old.target, instead=target)
    settle(decision, old)
    decision.release(f"held/{id}")
    new = change(decision, old, given)
    if found is not None:
        _settle_object(decision, found)
    return new


def delete(decision: Decision, caller: Caller, id: str) -> None:
    policy = find(decision, RbacPolicy, id)
    found = _object(decision, policy)
    if found is not None:
        check_end(decision, caller, found, policy.action, policy.target)
    end(decision, policy)
    if found is not None:
        _settle_object(decision, found)


def check_end(decision: Decision, caller: Caller, found: Resource, action: str, target: str, instead: str = "") -> None:
    """Raise Conflict if a project that uses an object may do so only because of the policy for *target*."""
    if isinstance(found, Network) and found.is_default and (action, target) == (ACCESS_AS_EXTERNAL, EVERYONE):
        raise _in_use(found, "Default external networks must be shared to everyone.")
    policies = [p for p in decision.by(decision.cloud.rbac, "object_id", found.id) if p.action == action]
    others = {policy.target for policy in policies} - {target}
    # A policy to use is first ended, then made for another; one that names the outside is moved.
    if instead == EVERYONE or (instead and action == ACCESS_AS_EXTERNAL):
        others.add(instead)
    if EVERYONE in others:
        return
    if isinstance(found, Network):
        decision.quiet(f"mac/{found.id}/")
    last = action == ACCESS_AS_EXTERNAL and not others
    for name, user, project in _users(decision.cloud, found, action):
        mine = project in ("", found.project_id) and not last
        if not mine and project not in others and (last or target in (EVERYONE, project)):
            by = named(decision.cloud, caller, name, decision.get(decision.cloud.tables[name], user))
            raise _in_use(found, f"{by} uses it.")


def _users(cloud: Cloud, found: Resource, action: str) -> Iterator[tuple[str, str, str]]:
    """Return what uses an object: kind, id and project."""
    if action == ACCESS_AS_EXTERNAL:
        for port in cloud.ports.by("network_id", found.id):
            if port.device_owner in (ROUTER_GATEWAY, FLOATING_IP):
                name = "router" if port.device_owner == ROUTER_GATEWAY else "floatingip"
                user = cloud.tables[name].get(port.device_id)
                yield name, port.device_id, user.project_id if user else ""
        return
    for table, index in _REFERENCES[found.kind.rbac]:
        if table in cloud.tables and index in cloud.tables[table].indexes:
            for user in cloud.tables[table].by(index, found.id):
                if getattr(user, "device_owner", "") not in (ROUTER_GATEWAY, FLOATING_IP):
                    yield table, user.id, user.project_id


# By object type: the tables of what uses it, and the index by which it is found there.
_REFERENCES = {
    "network": (("port", "network_id"),),
    "security_group": (("port", "security_groups"),),
    "subnetpool": (("subnet", "subnetpool_id"),),
    "address_scope": (("subnetpool", "address_scope_id"),),
    "address_group": (("rule", "remote_address_group_id"),),
    "qos_policy": tuple((table, "qos_policy_id") for table in ("network", "port", "router", "floatingip")),
}


def _object(decision: Decision, policy: RbacPolicy) -> Resource | None:
    kind = BY_RBAC.get(policy.object_type)
    return None if kind is None else decision.read(decision.cloud.tables[kind.table], policy.object_id)


def _settle_object(decision: Decision, found: Resource) -> None:
    """Have an object one revision on, as its policies now say; so two decisions about them never cross."""
    told: Given = {}
    if isinstance(found, Network):
        before = decision.cloud.rbac.by("object_id", found.id)
        after = decision.by(decision.cloud.rbac, "object_id", found.id)
        # What was set before there were policies for it stays so.
        told["shared"] = any(map(_widest, after)) or (found.shared and not any(map(_widest, before)))
        told["external"] = any(map(_outward, after)) or (found.external and not any(map(_outward, before)))
        if told["external"] != found.external and found.is_default:
            # Of external networks one is the default, and only its own PUT makes it so.
            told["is_default"] = False
            if found.external:
                decision.release(DEFAULT_NETWORK)
    decision.put(decision.cloud.tables[found.kind.table], changed(found, told))


def _widest(policy: RbacPolicy) -> bool:
    return policy.action == ACCESS_AS_SHARED and policy.target == EVERYONE


def _outward(policy: RbacPolicy) -> bool:
    return policy.action == ACCESS_AS_EXTERNAL


def _check_new(decision: Decision, id: str, action: str, target: str) -> None:
    if any(p.action == action and p.target == target for p in decision.by(decision.cloud.rbac, "object_id", id)):
        raise Conflict("An RBAC policy already exists with those values.", type="DuplicateRbacPolicy")


def _check_scope(decision: Decision, found: Resource, target: str) -> None:
    """Refuse to share a subnet pool with who may not use the scope that it is in."""
    if not isinstance(found, SubnetPool) or found.address_scope_id is None:
        return
    scope = decision.get(decision.cloud.of(AddressScope), found.address_scope_id)
    if scope is not None and scope.project_id != target and not shared(decision.cloud, target, scope):
        raise Invalid(
            f"Failed to create RBAC policy on object {found.id} because target project doesn't have access to "
            "associated address scope.",
            type="RbacPolicyInitError",
        )


def _in_use(found: Resource, why: str) -> Conflict:
    return Conflict(
        f"RBAC policy on object {found.id} cannot be removed because other objects depend on it.\nDetails: {why}",
        type="RbacPolicyInUse",
    )


def _invalid(reason: str) -> Invalid:
    return Invalid(f"Invalid input for operation: {reason}.", type="InvalidInput")


RBAC_POLICIES = Collection(
    kind=RBAC_POLICY,
    create=create,
    update=update,
    delete=delete,
    path="rbac-policies",
    aliases={
        "rbac-policies": "RBAC Policies",
        "rbac-address-group": "Add address_group type to RBAC",
        "rbac-address-scope": "Add address_scope type to RBAC",
        "rbac-security-groups": "Add security_group type to network RBAC",
        "rbac-subnetpool": "Add subnetpool type to RBAC",
    },
)
