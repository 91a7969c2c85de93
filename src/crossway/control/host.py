"""Register and forget hosts; each has an underlay address of its own, and the physical networks that it is given.

Whoever has a physical network is the edge of all projects' ports there, and whoever has an address hears what is sent
to it: a host does not say by itself what it has. The operator does, with the host's user in the password file; without
such an entry, an admin who has registered it. What an admin registers is the operator's own word.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

import msgspec

from crossway.control.caller import Caller
from crossway.control.cloud import Cloud
from crossway.control.decision import Decision
from crossway.errors import Conflict, Forbidden, InUse, NotFound
from crossway.model.host import Host
from crossway.model.resource import now

ANY = "*"


def register(decision: Decision, host: Host, caller: Caller) -> Host:
    """Note what a host says of itself; saying the same again changes nothing."""
    hosts = decision.cloud.hosts
    old = decision.read(hosts, host.id)
    granted = tuple(sorted(host.physnets)) if caller.admin else old.granted if old else ()
    host = msgspec.structs.replace(host, granted=granted)
    check(decision.cloud, caller, host)
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


def check(cloud: Cloud, caller: Caller, host: Host) -> None:
    """Raise Forbidden if a host has, or says that it has, what the operator has not given it."""
    if caller.admin:
        return
    for physnet in sorted(host.physnets):
        if caller.physnets is None and physnet not in host.granted:
            raise _refused(
                f"host {host.id} may not have the physnet '{physnet}': an admin gives it by registering the host with "
                f"it, PUT /v1/hosts/{host.id}"
            )
        if caller.physnets is not None and caller.physnets.isdisjoint((physnet, ANY)):
            given = ", ".join(sorted(caller.physnets)) or "none"
            raise _refused(
                f"host {host.id} may not have the physnet '{physnet}', of user {caller.user} it may have {given}: "
                f"`crossway user set {caller.user} --physnet {physnet}` on the server's machine gives it"
            )
    if caller.addresses and host.underlay not in caller.addresses:
        raise _refused(
            f"host {host.id} may not have the underlay address {host.underlay}: user {caller.user} has "
            f"{', '.join(sorted(caller.addresses))} (`crossway user set {caller.user} --underlay`)"
        )
    kept = cloud.kept_for(host.underlay)
    if kept and host.id not in kept:
        raise _refused(f"host {host.id} may not have the underlay address {host.underlay}: it is kept for another host")


def _refused(why: str) -> Forbidden:
    return Forbidden(why, type="PolicyNotAuthorized")


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
