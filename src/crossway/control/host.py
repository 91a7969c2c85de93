"""Register and forget hosts; each has an underlay address of its own."""

from __future__ import annotations

from collections.abc import Iterator
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
    for key in keys(cloud.hosts.rows[name]):
        decision.release(key)
    decision.delete(cloud.hosts, name)


def keys(host: Host) -> Iterator[str]:
    """Yield the key that a host holds: that of its underlay address, unless it is alone there."""
    if not ip_address(host.underlay).is_loopback:
        yield f"claim/underlay/{host.underlay}"


def _claim(decision: Decision, host: Host, old: Host | None) -> None:
    """Claim a host's underlay address; raise Conflict if another has it."""
    if old is not None and old.underlay != host.underlay:
        for key in keys(old):
            decision.release(key)
    others = [other.id for other in decision.cloud.hosts.by("underlay", host.underlay) if other.id != host.id]
    for key in keys(host):
        if others:
            raise Conflict(
                f"Underlay address {host.underlay} is that of host {others[0]}: two hosts cannot share it. "
                f"If {others[0]} is gone for good: `crossway host forget {others[0]}`.",
                type="UnderlayInUse",
            )
        # One that registered before there were claims has none.
        if key.removeprefix("claim/") not in decision.cloud.claims:
            decision.claim(key)
