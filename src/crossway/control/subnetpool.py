"""Make, change and delete subnet pools; cut subnets of them.

A subnet of a pool holds the key `pool/POOL/SUBNET`, a pool of a scope
`scope/SCOPE/POOL`: who cuts or adds relies on nobody doing so meanwhile.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from msgspec import UNSET

from crossway.control.caller import Caller, seen
from crossway.control.cloud import Cloud
from crossway.control.collection import Action, Checked, Collection, change, find, make
from crossway.control.decision import Decision
from crossway.control.share import forget, hold, share
from crossway.errors import Conflict, Invalid, OverQuota
from crossway.model.address_scope import AddressScope
from crossway.model.check import brief, network_of
from crossway.model.resource import Given, changed
from crossway.model.subnet import Subnet
from crossway.model.subnetpool import BOUNDS, PREFIXES, PREFIXES_MAX, SUBNETPOOL, SubnetPool

Prefix = ipaddress.IPv4Network | ipaddress.IPv6Network
BITS = {4: 32, 6: 128}
# What a quota counts: addresses, or prefixes of this length.
COUNTED = {4: 32, 6: 64}


def create(decision: Decision, caller: Caller, given: Given) -> SubnetPool:
    shared = given.pop("shared")
    prefixes = _merged(given["prefixes"])
    version = prefixes[0].version
    least, most = BOUNDS[version]
    given["min_prefixlen"] = least if given["min_prefixlen"] is UNSET else given["min_prefixlen"]
    given["max_prefixlen"] = most if given["max_prefixlen"] is UNSET else given["max_prefixlen"]
    if given["default_prefixlen"] is UNSET:
        given["default_prefixlen"] = given["min_prefixlen"]
    given["prefixes"] = _texts(prefixes)
    pool = make(decision, caller, SubnetPool, given, ip_version=version)
    _check_bounds(pool)
    if pool.address_scope_id is not None:
        _enter_scope(decision, caller, pool)
    if pool.is_default:
        _make_default(decision, pool)
    if shared:
        share(decision, pool)
    return pool


def update(decision: Decision, caller: Caller, id: str, given: Given) -> SubnetPool:
    old = find(decision, SubnetPool, id)
    if "prefixes" in given:
        prefixes = _merged(given["prefixes"])
        if not all(_within(prefix, prefixes) for prefix in _prefixes(old)):
            raise Invalid(
                "Illegal update to prefixes: Existing prefixes must be a subset of the new prefixes.",
                type="IllegalSubnetPoolPrefixUpdate",
            )
        given["prefixes"] = _texts(prefixes)
    if old.address_scope_id is not None:
        _check_scopes_owner(decision, caller, old)
    new = changed(old, given)
    _check_bounds(new)
    scoped = new.address_scope_id is not None
    if old.address_scope_id != new.address_scope_id:
        _check_alone(decision, old)
        if old.address_scope_id:
            decision.release(f"scope/{old.address_scope_id}/{id}")
    if scoped and (old.address_scope_id != new.address_scope_id or old.prefixes != new.prefixes):
        _enter_scope(decision, caller, new, entered=old.address_scope_id == new.address_scope_id)
    if new.is_default and not old.is_default:
        _make_default(decision, new)
    elif old.is_default and not new.is_default:
        decision.release(f"default-pool/{old.ip_version}")
    decision.put(decision.cloud.of(SubnetPool), new)
    return new


def delete(decision: Decision, caller: Caller, id: str) -> None:
    """Delete a pool of which no subnet is."""
    pool = find(decision, SubnetPool, id)
    if decision.by(decision.cloud.subnets, "subnetpool_id", id):
        raise Invalid(
            "Unable to delete subnet pool: Subnet pool has existing allocations.", type="SubnetPoolDeleteError"
        )
    decision.empty(f"pool/{id}/")
    if pool.address_scope_id:
        decision.release(f"scope/{pool.address_scope_id}/{id}")
    if pool.is_default:
        decision.release(f"default-pool/{pool.ip_version}")
    forget(decision, id)
    decision.delete(decision.cloud.of(SubnetPool), id)


def add_prefixes(decision: Decision, caller: Caller, id: str, body: Any) -> dict[str, Any]:
    pool, named = find(decision, SubnetPool, id), _named(body)
    if (many := len(pool.prefixes) + len(named)) > PREFIXES_MAX:
        raise Invalid(f"Subnet pool {id} would have {many} prefixes; should be at most {PREFIXES_MAX}.")
    new = update(decision, caller, id, {"prefixes": (*pool.prefixes, *_texts(named))})
    return {"prefixes": list(new.prefixes)}


def remove_prefixes(decision: Decision, caller: Caller, id: str, body: Any) -> dict[str, Any]:
    """Take prefixes out of a pool, of which no subnet is cut."""
    pool, named = find(decision, SubnetPool, id), _named(body)
    left = _prefixes(pool)
    for prefix in named:
        left = [piece for one in left for piece in _without(one, prefix)]
    for subnet in decision.by(decision.cloud.subnets, "subnetpool_id", id):
        if not _within(network_of(subnet.cidr), left):
            raise Invalid(
                f"Illegal update to prefixes: subnet {subnet.id} ({subnet.cidr}) is cut of what would be removed.",
                type="IllegalSubnetPoolPrefixUpdate",
            )
    decision.quiet(f"pool/{id}/")
    new = change(decision, pool, {"prefixes": _texts(ipaddress.collapse_addresses(left))})  # type: ignore[type-var]
    return {"prefixes": list(new.prefixes)}


def onboard_network_subnets(decision: Decision, caller: Caller, id: str, body: Any) -> list[dict[str, Any]]:
    """Make a network's subnets the pool's own, whose prefixes grow by them."""
    cloud, pool = decision.cloud, find(decision, SubnetPool, id)
    asked = body.get("subnetpool", body) if isinstance(body, dict) else {}
    if not isinstance(network_id := asked.get("network_id"), str):
        raise Invalid("Invalid input for network_id. Reason: it is missing or no string.", type="BadRequest")
    network = seen(cloud, caller, "network", network_id, decision.rely(cloud.networks, network_id))
    subnets = [s for s in decision.by(cloud.subnets, "network_id", network.id) if s.ip_version == pool.ip_version]
    taken = [network_of(s.cidr) for s in decision.by(cloud.subnets, "subnetpool_id", id)]
    for subnet in subnets:
        if not caller.admin and subnet.project_id != caller.project:
            raise Invalid(f"Subnet {subnet.id} belongs to another project.", type="BadRequest")
        if subnet.subnetpool_id is not None:
            raise Invalid(
                f"Unable to onboard subnet {subnet.id}: it is of subnet pool {subnet.subnetpool_id} already.",
                type="IllegalSubnetPoolUpdate",
            )
        if any(network_of(subnet.cidr).overlaps(other) for other in taken):
            raise Invalid(
                f"Illegal subnetpool update : subnet {subnet.id} ({subnet.cidr}) overlaps with a subnet of the pool.",
                type="IllegalSubnetPoolUpdate",
            )
    decision.quiet(f"pool/{id}/")
    decision.quiet(f"prefix/{network.id}/")
    if subnets:
        update(decision, caller, id, {"prefixes": (*pool.prefixes, *(subnet.cidr for subnet in subnets))})
    for subnet in subnets:
        decision.claim(f"pool/{id}/{subnet.id}")
        current = decision.read(cloud.subnets, subnet.id)
        assert current is not None
        decision.put(cloud.subnets, changed(current, {"subnetpool_id": id}))
    return [{"id": subnet.id, "cidr": subnet.cidr} for subnet in subnets]


def default_pool(cloud: Cloud, version: int) -> SubnetPool | None:
    """Return the pool of a family of which subnets are cut if none is named."""
    return next(iter(cloud.of(SubnetPool).by("default", version)), None)


def cut(decision: Decision, pool: SubnetPool, project: str, wanted: str | None, length: int | None) -> str:
    """Return a prefix of a pool for a project's new subnet: the *wanted* one, or one that is free."""
    subnets = decision.by(decision.cloud.subnets, "subnetpool_id", pool.id)
    taken = [network_of(subnet.cidr) for subnet in subnets]
    prefix = None if wanted is None else network_of(wanted)
    if prefix is not None:
        length = prefix.prefixlen
    elif length is None:
        length = pool.default_prefixlen
    if length < pool.min_prefixlen:
        raise Invalid(
            f"Unable to allocate subnet with prefix length {length}, minimum allowed prefix is {pool.min_prefixlen}.",
            type="MinPrefixSubnetAllocationError",
        )
    if length > pool.max_prefixlen:
        raise Invalid(
            f"Unable to allocate subnet with prefix length {length}, maximum allowed prefix is {pool.max_prefixlen}.",
            type="MaxPrefixSubnetAllocationError",
        )
    _check_quota(pool, project, length, subnets)
    if prefix is None:
        prefix = _free(pool, taken, length)
        if prefix is None:
            raise Conflict(
                f"Failed to allocate subnet: Insufficient prefix space to allocate subnet size /{length}.",
                type="SubnetAllocationError",
            )
    elif not _within(prefix, _prefixes(pool)) or any(prefix.overlaps(other) for other in taken):
        raise Conflict(
            "Failed to allocate subnet: Cannot allocate requested subnet from the available set of prefixes.",
            type="SubnetAllocationError",
        )
    decision.rely(decision.cloud.of(SubnetPool), pool.id)
    decision.quiet(f"pool/{pool.id}/")
    hold(decision, project, pool)
    return str(prefix)


def enter_pool(decision: Decision, subnet: Subnet) -> None:
    """Count a new subnet among those of its pool."""
    if subnet.subnetpool_id:
        decision.claim(f"pool/{subnet.subnetpool_id}/{subnet.id}")


def leave_pool(decision: Decision, subnet: Subnet) -> None:
    if subnet.subnetpool_id:
        decision.release(f"pool/{subnet.subnetpool_id}/{subnet.id}")


def scope_of(cloud: Cloud, network: str, version: int) -> str | None:
    """Return the address scope of a network's subnets of one family."""
    for subnet in cloud.subnets.by("network_id", network):
        if subnet.ip_version == version and subnet.subnetpool_id:
            pool = cloud.of(SubnetPool).get(subnet.subnetpool_id)
            return pool.address_scope_id if pool else None
    return None


def _free(pool: SubnetPool, taken: list[Prefix], length: int) -> Prefix | None:
    """Find a free prefix, in the smallest gap that holds one; so what is large stays whole."""
    best: Prefix | None = None
    for gap in _gaps(_prefixes(pool), taken):
        if gap.prefixlen <= length and (best is None or gap.prefixlen > best.prefixlen):
            best = gap
    if best is None:
        return None
    return ipaddress.ip_network((best.network_address, length))


def _gaps(prefixes: Iterable[Prefix], taken: list[Prefix]) -> Iterator[Prefix]:
    """Return what prefixes hold beside what is taken, in order, each as large as it can be."""
    ordered = sorted(taken, key=lambda prefix: int(prefix.network_address))
    for prefix in prefixes:
        address = type(prefix.network_address)
        begin, last = int(prefix.network_address), int(prefix.broadcast_address)
        for other in ordered:
            first, end = int(other.network_address), int(other.broadcast_address)
            if end < begin or first > last:
                continue
            if first > begin:
                yield from ipaddress.summarize_address_range(address(begin), address(first - 1))
            begin = end + 1
        if begin <= last:
            yield from ipaddress.summarize_address_range(address(begin), address(last))


def _check_quota(pool: SubnetPool, project: str, length: int, subnets: Iterable[Subnet]) -> None:
    if pool.default_quota is None:
        return
    counted = COUNTED[pool.ip_version]
    used = sum(_size(network_of(s.cidr).prefixlen, counted) for s in subnets if s.project_id == project)
    if used + _size(length, counted) > pool.default_quota:
        raise OverQuota("Per-tenant subnet pool prefix quota exceeded.", type="SubnetPoolQuotaExceeded")


def _size(length: int, counted: int) -> int:
    return 1 << max(counted - length, 0)


def _enter_scope(decision: Decision, caller: Caller, pool: SubnetPool, entered: bool = False) -> None:
    """Have a pool in its scope, of which no other pool overlaps with it."""
    cloud, id = decision.cloud, str(pool.address_scope_id)
    scope: AddressScope = seen(cloud, caller, "address_scope", id, decision.rely(cloud.of(AddressScope), id))
    if scope.ip_version != pool.ip_version:
        raise Invalid(
            f"Illegal subnetpool association: subnetpool {pool.id} cannot associate with address scope {id} because "
            f"subnetpool ip_version is not {scope.ip_version}.",
            type="IllegalSubnetPoolIpVersionAssociationToAddressScope",
        )
    prefixes = _prefixes(pool)
    for other in decision.by(cloud.of(SubnetPool), "address_scope_id", id):
        if other.id != pool.id and any(a.overlaps(b) for a in prefixes for b in _prefixes(other)):
            raise Conflict(
                "Failed to associate address scope: subnetpools within an address scope must have unique prefixes.",
                type="AddressScopePrefixConflict",
            )
    decision.quiet(f"scope/{id}/")
    key = f"scope/{id}/{pool.id}"
    if entered:
        # The others' decisions must notice that this one's prefixes have changed.
        decision.transaction.puts[key] = b""
    else:
        decision.claim(key)
    hold(decision, pool.project_id, scope)


def _check_scopes_owner(decision: Decision, caller: Caller, pool: SubnetPool) -> None:
    """Let a pool that is in a scope be changed by whom the scope belongs to: what it holds is theirs to say."""
    scope = decision.rely(decision.cloud.of(AddressScope), str(pool.address_scope_id))
    if scope is not None and not caller.admin and scope.project_id != caller.project:
        raise Invalid(
            f"Illegal subnetpool update : subnetpool {pool.id} is in address scope {scope.id}, which is not owned by "
            "the project making the request.",
            type="IllegalSubnetPoolUpdate",
        )


def _check_alone(decision: Decision, pool: SubnetPool) -> None:
    """Refuse to move a pool between scopes whose networks have subnets of others too."""
    cloud = decision.cloud
    mine = decision.by(cloud.subnets, "subnetpool_id", pool.id)
    decision.quiet(f"pool/{pool.id}/")
    for network in dict.fromkeys(subnet.network_id for subnet in mine):
        decision.quiet(f"prefix/{network}/")
        for other in decision.by(cloud.subnets, "network_id", network):
            if other.ip_version == pool.ip_version and other.subnetpool_id != pool.id:
                raise Invalid(
                    f"Illegal subnetpool update : network {network} has subnets that are not of subnet pool {pool.id}.",
                    type="IllegalSubnetPoolUpdate",
                )
    for subnet in mine:
        # What their networks tell of their scope is not what it was.
        decision.put(cloud.subnets, subnet)


def _make_default(decision: Decision, pool: SubnetPool) -> None:
    other = default_pool(decision.cloud, pool.ip_version)
    if (other is not None and other.id != pool.id) or not decision.claim(f"default-pool/{pool.ip_version}", pool.id):
        raise Invalid(
            "Invalid input for operation: A default subnetpool for this IP family has already been set. Only one "
            "default may exist per IP family.",
            type="InvalidInput",
        )


def _check_bounds(pool: SubnetPool) -> None:
    bits = BITS[pool.ip_version]
    least, default, most = pool.min_prefixlen, pool.default_prefixlen, pool.max_prefixlen
    for name, length in (("min_prefixlen", least), ("max_prefixlen", most), ("default_prefixlen", default)):
        if not 1 <= length <= bits:
            raise Invalid(
                f"Prefix length '{length}' of {name} not supported in IPv{pool.ip_version} pool; should be from 1 to "
                f"{bits}.",
                type="UnsupportedMinSubnetPoolPrefix" if length < 1 else "IllegalSubnetPoolPrefixBounds",
            )
    for low, high, one, other in (
        (least, most, "min_prefixlen", "max_prefixlen"),
        (least, default, "min_prefixlen", "default_prefixlen"),
        (default, most, "default_prefixlen", "max_prefixlen"),
    ):
        if low > high:
            raise Invalid(f"Illegal prefix bounds: {one}={low}, {other}={high}.", type="IllegalSubnetPoolPrefixBounds")


def _named(body: Any) -> list[Prefix]:
    """Return the prefixes that an action is about."""
    if isinstance(body, Checked):
        seen_already: list[Prefix] = body.value
        return seen_already
    named = body.get("subnetpool", body) if isinstance(body, dict) else body
    if not isinstance(named, dict) or not isinstance(named.get("prefixes"), list):
        raise Invalid(f"Invalid input for prefixes. Reason: {brief(body)} should be {{'prefixes': [PREFIX, …]}}.")
    try:
        return _merged(PREFIXES(named["prefixes"]))
    except ValueError as error:
        raise Invalid(f"Invalid input for prefixes. Reason: {error}.") from None


def _merged(prefixes: Iterable[str]) -> list[Prefix]:
    networks = [network_of(prefix) for prefix in prefixes]
    if not networks:
        raise Invalid("Empty subnet pool prefix list.", type="EmptySubnetPoolPrefixList")
    if len({network.version for network in networks}) > 1:
        raise Invalid("Cannot mix IPv4 and IPv6 prefixes in a subnet pool.", type="PrefixVersionMismatch")
    return list(ipaddress.collapse_addresses(networks))  # type: ignore[type-var]


def _prefixes(pool: SubnetPool) -> list[Prefix]:
    return [network_of(prefix) for prefix in pool.prefixes]


def _texts(prefixes: Iterable[Prefix]) -> tuple[str, ...]:
    return tuple(map(str, prefixes))


def _within(prefix: Prefix, others: Iterable[Prefix]) -> bool:
    return any(prefix.version == other.version and prefix.subnet_of(other) for other in others)  # type: ignore[arg-type]


def _without(prefix: Prefix, other: Prefix) -> list[Prefix]:
    """Return what is left of a prefix without another."""
    if prefix.version != other.version or not prefix.overlaps(other):
        return [prefix]
    if prefix.subnet_of(other):  # type: ignore[arg-type]
        return []
    return list(prefix.address_exclude(other))  # type: ignore[arg-type]


_PREFIXES_BODY = {
    "type": "object",
    "required": ["prefixes"],
    "properties": {"prefixes": {"type": "array", "items": {"type": "string"}, "maxItems": PREFIXES_MAX}},
}
_NETWORK_BODY = {
    "type": "object",
    "required": ["network_id"],
    "properties": {"network_id": {"type": "string"}},
}


def _told(length: str) -> Callable[[Cloud, SubnetPool], str]:
    return lambda cloud, pool: str(getattr(pool, length))


SUBNETPOOLS = Collection(
    kind=SUBNETPOOL,
    create=create,
    update=update,
    delete=delete,
    actions={
        "add_prefixes": Action(add_prefixes, check=_named, body=_PREFIXES_BODY),
        "remove_prefixes": Action(remove_prefixes, check=_named, body=_PREFIXES_BODY),
        "onboard_network_subnets": Action(onboard_network_subnets, body=_NETWORK_BODY),
    },
    # Numbers that the API tells as words.
    derived={f"{name}_prefixlen": _told(f"{name}_prefixlen") for name in ("min", "max", "default")},
    aliases={
        "subnet_allocation": "Subnet Allocation",
        "default-subnetpools": "Default Subnetpools",
        "subnetpool-prefix-ops": "Subnet Pool Prefix Operations",
        "subnet_onboard": "Subnet Onboard",
    },
)
