"""Make, change and delete address groups; rules of security groups name them."""

from __future__ import annotations

from typing import Any

from crossway.control.caller import Caller, named
from crossway.control.collection import Action, Checked, Collection, change, find, make
from crossway.control.decision import Decision
from crossway.control.share import forget
from crossway.errors import Conflict, Fault, Invalid
from crossway.model.address_group import ADDRESS_GROUP, ADDRESSES_MAX, AddressGroup
from crossway.model.check import as_prefix, brief, list_of
from crossway.model.resource import Given

# Addresses that a message names.
TOLD = 20
# Here an address alone is the prefix that holds it and no other.
PREFIXES = list_of(as_prefix, ADDRESSES_MAX)


def create(decision: Decision, caller: Caller, given: Given) -> AddressGroup:
    return make(decision, caller, AddressGroup, given)


def update(decision: Decision, caller: Caller, id: str, given: Given) -> AddressGroup:
    return change(decision, find(decision, AddressGroup, id), given)


def delete(decision: Decision, caller: Caller, id: str) -> None:
    """Delete an address group that no rule names."""
    find(decision, AddressGroup, id)
    rules = decision.by(decision.cloud.rules, "remote_address_group_id", id)
    if rules:
        raise Conflict(
            f"Address group {id} is in use on one or more security group rules: "
            f"{named(decision.cloud, caller, 'security_group_rule', rules[0])}.",
            type="AddressGroupInUse",
        )
    decision.empty(f"named/{id}/")
    forget(decision, id)
    decision.delete(decision.cloud.of(AddressGroup), id)


def add_addresses(decision: Decision, caller: Caller, id: str, body: Any) -> dict[str, Any]:
    old, named = find(decision, AddressGroup, id), _named(body)
    known = set(old.addresses)
    if there := [address for address in named if address in known]:
        raise Invalid(
            f"Addresses {', '.join(there[:TOLD])} already exist in the address group {id}.",
            type="AddressesAlreadyExist",
        )
    if (many := len(old.addresses) + len(named)) > ADDRESSES_MAX:
        raise Invalid(f"Address group {id} would have {many} addresses; should be at most {ADDRESSES_MAX}.")
    return _told(change(decision, old, {"addresses": (*old.addresses, *named)}))


def remove_addresses(decision: Decision, caller: Caller, id: str, body: Any) -> dict[str, Any]:
    old, named = find(decision, AddressGroup, id), _named(body)
    gone, known = set(named), set(old.addresses)
    if missing := [address for address in named if address not in known]:
        raise AddressesNotFound(f"Addresses {', '.join(missing[:TOLD])} not found in the address group {id}.")
    left = tuple(address for address in old.addresses if address not in gone)
    return _told(change(decision, old, {"addresses": left}))


class AddressesNotFound(Fault):
    """What is to be taken out of an address group is not in it."""

    status = 404


def _named(body: Any) -> tuple[str, ...]:
    """Return the addresses that an action is about, each a prefix, each once."""
    if isinstance(body, Checked):
        seen_already: tuple[str, ...] = body.value
        return seen_already
    named = body.get(ADDRESS_GROUP.name, body) if isinstance(body, dict) else body
    if not isinstance(named, dict) or not isinstance(named.get("addresses"), list):
        raise Invalid(f"Invalid input for addresses. Reason: {brief(body)} should be {{'addresses': [PREFIX, …]}}.")
    try:
        checked: tuple[str, ...] = PREFIXES(named["addresses"])
    except ValueError as error:
        raise Invalid(f"Invalid input for addresses. Reason: {error}.") from None
    return checked


def _told(group: AddressGroup) -> dict[str, Any]:
    return {ADDRESS_GROUP.name: ADDRESS_GROUP.show(group)}


_BODY = {
    "type": "object",
    "required": ["addresses"],
    "properties": {"addresses": {"type": "array", "items": {"type": "string"}, "maxItems": ADDRESSES_MAX}},
}

ADDRESS_GROUPS = Collection(
    kind=ADDRESS_GROUP,
    create=create,
    update=update,
    delete=delete,
    path="address-groups",
    actions={
        "add_addresses": Action(add_addresses, check=_named, body=_BODY),
        "remove_addresses": Action(remove_addresses, check=_named, body=_BODY),
    },
    aliases={
        "address-group": "Address group",
        "security-groups-remote-address-group": "Remote address group id field for security group rules",
    },
)
