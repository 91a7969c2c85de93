"""Make, change and delete address scopes."""

from __future__ import annotations

from crossway.control.caller import Caller
from crossway.control.collection import Collection, change, find, make
from crossway.control.decision import Decision
from crossway.control.share import forget, share, shared_with_everyone
from crossway.errors import Conflict, Invalid
from crossway.model.address_scope import ADDRESS_SCOPE, AddressScope
from crossway.model.resource import Given
from crossway.model.subnetpool import SubnetPool


def create(decision: Decision, caller: Caller, given: Given) -> AddressScope:
    shared = given.pop("shared")
    scope = make(decision, caller, AddressScope, given)
    if shared:
        share(decision, scope)
    return scope


def update(decision: Decision, caller: Caller, id: str, given: Given) -> AddressScope:
    old = find(decision, AddressScope, id)
    shared = given.pop("shared", None)
    new = change(decision, old, given)
    if shared:
        share(decision, new)
    elif shared is False and shared_with_everyone(decision, id):
        raise Invalid(
            f"Unable to update address scope {id} : Shared address scope can't be unshared.",
            type="AddressScopeUpdateError",
        )
    return new


def delete(decision: Decision, caller: Caller, id: str) -> None:
    """Delete a scope that no pool is in."""
    find(decision, AddressScope, id)
    if decision.by(decision.cloud.of(SubnetPool), "address_scope_id", id):
        raise Conflict(
            f"Unable to complete operation on address scope {id}. There are one or more subnet pools in use on the "
            "address scope.",
            type="AddressScopeInUse",
        )
    decision.empty(f"scope/{id}/")
    forget(decision, id)
    decision.delete(decision.cloud.of(AddressScope), id)


ADDRESS_SCOPES = Collection(
    kind=ADDRESS_SCOPE,
    create=create,
    update=update,
    delete=delete,
    path="address-scopes",
    aliases={"address-scope": "Address scope"},
)
