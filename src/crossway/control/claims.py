"""Which claims the objects of a cloud hold, and which keys of its store are nobody's.

What must be unique, and what must not go while something refers to it, is a key of the
store beside the objects. A key that no object holds is never given back: an address that
nobody has and nobody can get, a network that cannot be deleted. A server looks when it starts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from crossway.control import (
    default_rule,
    host,
    identity,
    link,
    log,
    metering,
    outside,
    qos,
    rule,
    segmentation,
    statefulness,
)
from crossway.control.cloud import Cloud
from crossway.control.network import HELD as HA
from crossway.control.rbac import DEFAULT_NETWORK
from crossway.control.segment import own_id
from crossway.model.network import VXLAN
from crossway.model.rbac import RbacPolicy
from crossway.store import Stale, Transaction

Holds = Callable[[Any], Iterator[str]]


def _network(one: Any) -> Iterator[str]:
    yield f"claim/network/{one.number}"
    if one.type != VXLAN:
        yield segmentation.key(one.type, one.physnet, one.segment)
    if one.qos_policy_id:
        yield f"uses/{one.qos_policy_id}/{one.id}"
    if one.external and one.is_default:
        yield DEFAULT_NETWORK


def _segment(one: Any) -> Iterator[str]:
    if one.id != own_id(one.network_id):
        yield f"uses/{one.network_id}/{one.id}"
        yield segmentation.key(one.network_type, one.physical_network, one.segmentation_id)


def _subnet(one: Any) -> Iterator[str]:
    yield f"prefix/{one.network_id}/{one.id}"
    if one.subnetpool_id:
        yield f"pool/{one.subnetpool_id}/{one.id}"


def _subnetpool(one: Any) -> Iterator[str]:
    if one.address_scope_id:
        yield f"scope/{one.address_scope_id}/{one.id}"
    if one.is_default:
        yield f"default-pool/{one.ip_version}"


def _port(one: Any) -> Iterator[str]:
    yield f"mac/{one.network_id}/{one.mac_address}"
    for fixed in one.fixed_ips:
        yield f"address/{fixed.subnet_id}/{fixed.ip_address}"
    if one.identity:
        yield f"bearer/{one.identity}/{one.id}"
    if one.qos_policy_id:
        yield f"uses/{one.qos_policy_id}/{one.id}"
    if one.link is not None:
        yield link.key_of(one.link)


def _router(one: Any) -> Iterator[str]:
    yield f"claim/router/{one.number}"
    if one.qos_policy_id:
        yield f"uses/{one.qos_policy_id}/{one.id}"
    if one.flavor_id:
        yield f"flavored/{one.flavor_id}/{one.id}"


def _floatingip(one: Any) -> Iterator[str]:
    if one.qos_policy_id:
        yield f"uses/{one.qos_policy_id}/{one.id}"
    yield from outside.keys(one.id, one.port_id, one.router_id)


def _ndp_proxy(one: Any) -> Iterator[str]:
    yield f"proxied/{one.port_id}/{one.ip_address}"
    yield from outside.keys(one.id, one.port_id, one.router_id)


def _port_association(one: Any) -> Iterator[str]:
    yield f"answers/{one.local_ip_id}/{one.fixed_port_id}"
    yield from outside.keys(one.id, one.fixed_port_id, None)


def _flavor_profile(one: Any) -> Iterator[str]:
    yield f"bound/{one.flavor_id}/{one.service_profile_id}"
    yield f"bound/{one.service_profile_id}/{one.flavor_id}"


def _trunk(one: Any) -> Iterator[str]:
    yield f"trunked/{one.port_id}"
    for sub in one.sub_ports:
        yield f"trunked/{sub.port_id}"


# By table, the keys that one of its objects holds.
HOLDS: Mapping[str, Holds] = {
    "network": _network,
    "segment": _segment,
    "subnet": _subnet,
    "subnetpool": _subnetpool,
    "port": _port,
    "router": _router,
    "identity": identity.keys,
    "host": host.keys,
    "rule": rule.keys,
    "default_security_group_rule": lambda one: iter(default_rule.keys(one)),
    "floatingip": _floatingip,
    "port_forwarding": lambda one: outside.keys(one.id, one.internal_port_id, None),
    "ndp_proxy": _ndp_proxy,
    "local_ip": lambda one: outside.keys(one.id, one.local_port_id, None),
    "port_association": _port_association,
    "conntrack_helper": lambda one: outside.keys(one.id, None, one.router_id),
    "trunk": _trunk,
    "flavor_profile": _flavor_profile,
    "metering_label_rule": lambda one: iter((metering.key(one),)),
    "log": lambda one: iter(log.keys(one)),
    "qos_policy": qos.keys,
    "statefulness": lambda one: iter((statefulness.key(one),)),
}


def held(cloud: Cloud) -> Iterator[tuple[str, str]]:
    """Yield every key that an object must hold, and what holds it."""
    for table, holds in HOLDS.items():
        for id, one in cloud.tables[table].rows.items():
            for key in holds(one):
                yield key, f"{table} {id}"
    for project, group in cloud.defaults.items():
        # Whose default group it is is told by nothing but this key.
        if group in cloud.groups.rows:
            yield f"default/{project}", f"group {group}"


async def mend(cloud: Cloud) -> list[str]:
    """Give back what nothing holds, take what is not held; return what was wrong, of which two holders of one stay."""
    _, entries = await cloud.store.read("")
    keys = {entry.key: entry.modified for entry in entries}
    wanted, mending = dict(held(cloud)), Transaction()
    for key in wanted.keys() - keys.keys():
        mending.same[key], mending.puts[key] = 0, wanted[key].partition(" ")[2].encode()
    for key in keys.keys() - wanted.keys():
        # What is not known here may be a newer version's.
        if KNOWN.match(key) and not _may_be(cloud, key):
            mending.same[key] = keys[key]
            mending.deletes.add(key)
    found = list(faults(cloud, keys))
    if mending.puts or mending.deletes:
        try:
            await cloud.reached(await cloud.store.commit(mending))
        except Stale:
            found.append("another server changes the same; looked at again when a server starts")
    return found


def faults(cloud: Cloud, keys: Iterable[str]) -> Iterator[str]:
    """Yield what is wrong between the objects of a cloud and the keys of its store."""
    wanted: dict[str, str] = {}
    for key, holder in held(cloud):
        if key in wanted:
            yield f"{key} is held by {wanted[key]} and by {holder}"
        wanted[key] = holder
    found = {key for key in keys if key.partition("/")[0] not in cloud.tables}
    for key in wanted.keys() - found:
        yield f"{key} of {wanted[key]} is not held"
    for key in found - wanted.keys():
        if not _may_be(cloud, key):
            yield f"{key} is held by nothing"


def _may_be(cloud: Cloud, key: str) -> bool:
    """Say whether a key may be there, or not: what only tells others that something has changed, or counts."""
    kind, _, rest = key.partition("/")
    match kind:
        case "counter":
            return True
        case "held":
            return rest in cloud.of(RbacPolicy).rows
        case "uses":
            # A router's hold on its project's network for highly available ones.
            network, _, user = rest.partition("/")
            return network in cloud.networks.rows and user in cloud.routers.rows
        case "claim":
            return (
                rest == default_rule.WRITTEN
                or rest in cloud.resting
                or (rest.startswith(HA) and rest.removeprefix(HA) in cloud.networks.rows)
            )
    return False


# What keys that objects hold begin with.
KNOWN = re.compile(
    "(address|answers|bearer|bound|claim|default|default-outside|default-pool|flavored|ha|held|logged|mac|member|metering"
    "|named|outside|pool|prefix|proxied|qos-default|remote|routed|scope|stateful|template|trunked|unique|uses)/"
)

# By table and field, the table of what it names.
REFERS = (
    ("subnet", "network_id", "network"),
    ("subnet", "subnetpool_id", "subnetpool"),
    ("port", "network_id", "network"),
    ("port", "qos_policy_id", "qos_policy"),
    ("network", "qos_policy_id", "qos_policy"),
    ("router", "gateway_port", "port"),
    ("router", "flavor_id", "flavor"),
    ("subnetpool", "address_scope_id", "address_scope"),
    ("rule", "security_group_id", "group"),
    ("rule", "remote_group_id", "group"),
    ("rule", "remote_address_group_id", "address_group"),
    ("floatingip", "port", "port"),
    ("floatingip", "port_id", "port"),
    ("floatingip", "router_id", "router"),
    ("floatingip", "floating_network_id", "network"),
    ("port_forwarding", "floatingip_id", "floatingip"),
    ("port_forwarding", "internal_port_id", "port"),
    ("ndp_proxy", "port_id", "port"),
    ("ndp_proxy", "router_id", "router"),
    ("local_ip", "local_port_id", "port"),
    ("port_association", "local_ip_id", "local_ip"),
    ("port_association", "fixed_port_id", "port"),
    ("conntrack_helper", "router_id", "router"),
    ("trunk", "port_id", "port"),
    ("port_binding", "port_id", "port"),
    ("segment", "network_id", "network"),
    ("metering_label_rule", "metering_label_id", "metering_label"),
    ("flavor_profile", "flavor_id", "flavor"),
    ("flavor_profile", "service_profile_id", "service_profile"),
)
# The same for fields that name several.
REFER: tuple[tuple[str, Callable[[Any], Iterable[str]], str], ...] = (
    ("port", lambda port: (fixed.subnet_id for fixed in port.fixed_ips), "subnet"),
    ("port", lambda port: port.security_groups, "group"),
    ("port", lambda port: (str(port.identity),) if port.identity else (), "identity"),
    ("identity", lambda identity: identity.groups, "group"),
    ("trunk", lambda trunk: (sub.port_id for sub in trunk.sub_ports), "port"),
    ("router", lambda router: (more.port for more in router.more), "port"),
)


def astray(cloud: Cloud) -> Iterator[str]:
    """Yield what names something that is not there."""
    for table, field, named in REFERS:
        for id, one in cloud.tables[table].rows.items():
            other = getattr(one, field)
            if other and other not in cloud.tables[named].rows:
                yield f"{table} {id}: {field} names {named} {other}, which is not there"
    for id, router in cloud.routers.rows.items():
        port = cloud.ports.get(router.gateway_port or "")
        if router.gateway is not None and port and port.fixed_ips != router.gateway.external_fixed_ips:
            yield f"router {id}: its gateway's addresses are not those of port {port.id}"
    for table, fields, named in REFER:
        for id, one in cloud.tables[table].rows.items():
            for other in fields(one):
                if other not in cloud.tables[named].rows:
                    yield f"{table} {id} names {named} {other}, which is not there"


def kept(cloud: Cloud) -> Iterator[str]:
    """Yield what a cloud in which nothing is under way keeps in memory beside its tables and should not."""
    if cloud.pending:
        yield f"keys are about to be made by nobody: {sorted(cloud.pending)[:10]}"
    for (table, project), ids in cloud.usage.making().items():
        yield f"{len(ids)} of table {table} count as being made for project '{project}' by nobody"
    if cloud.identities_made:
        yield f"identities count as being made by nobody: {dict(cloud.identities_made)}"
    yield from cloud.policy_rows.faults()
    taken: dict[str, dict[str, str]] = {id: {} for id in cloud.subnets.rows}
    macs: dict[str, dict[str, str]] = {}
    for port in cloud.ports.rows.values():
        macs.setdefault(port.network_id, {})[port.mac_address] = port.id
        for fixed in port.fixed_ips:
            taken.setdefault(fixed.subnet_id, {})[fixed.ip_address] = port.id
    if macs != cloud.addresses.macs:
        yield "the MACs that count as taken are not those of the ports"
    if taken.keys() != cloud.addresses.spaces.keys():
        yield "the subnets that addresses are counted of are not those that there are"
    for id, space in cloud.addresses.spaces.items():
        if space.taken != taken.get(id):
            differ = sorted(space.taken.items() ^ taken.get(id, {}).items())
            yield f"subnet {id}: addresses that count as taken and those of ports differ: {differ[:10]}"
        if space.lent:
            yield f"subnet {id}: {sorted(space.lent)[:10]} are lent to nobody"
