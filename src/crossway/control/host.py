"""Register and forget hosts; each has an underlay address of its own."""

from __future__ import annotations

from ipaddress import ip_address

import msgspec

from crossway.control.decision import Decision
from crossway.errors import Conflict, InUse, NotFound
from crossway.model.host import Host
from crossway.model.resource import now


def register(decision: Decision, host: Host) -> Host:
    """Note what a host says of itself; saying the same again changes nothing."""
    hosts = decision.cloud.hosts
    old = decision.read(hosts, host.id)
    _claim(decision, host, old)
    if old is None:
        host = msgspec.structs.replace(host, registered=now())
        decision.create(hosts, host)
        return host
    kept = {"registered": old.registered, "description": old.description, "admin_state_up": old.admin_state_up}
    host = msgspec.structs.replace(host, **kept)
    if old != host:
        decision.put(hosts, host)
    return host


def forget(decision: Decision, name: str) -> None:
    cloud = decision.cloud
    if decision.read(cloud.hosts, name) is None:
        raise NotFound("host", name)
    for id in cloud.ports.ids("host", name):
        raise InUse("host", name, by=f"port {id}")
    decision.release(_key(cloud.hosts.rows[name].underlay))
    decision.delete(cloud.hosts, name)


def _claim(decision: Decision, host: Host, old: Host | None) -> None:
    """Claim a host's underlay address; raise Conflict if another has it."""
    if old is not None and old.underlay != host.underlay:
        decision.release(_key(old.underlay))
    if ip_address(host.underlay).is_loopback:
        return  # of a host that is alone
    key = _key(host.underlay)
    # Those that registered before there were claims have none until they say it again.
    holders = [decision.cloud.claims.get(key.removeprefix("claim/"), "")]
    holders += [other.id for other in decision.cloud.hosts.by("underlay", host.underlay)]
    if other := next((name for name in holders if name not in ("", host.id)), None):
        raise Conflict(
            f"Underlay address {host.underlay} is that of host {other}: two hosts cannot share it. "
            f"If {other} is gone for good: `crossway host forget {other}`.",
            type="UnderlayInUse",
        )
    if not holders[0]:
        decision.claim(key, host.id)


def _key(underlay: str) -> str:
    return f"claim/underlay/{underlay}"
