"""Register and forget hosts."""

from __future__ import annotations

import msgspec

from crossway.control.decision import Decision
from crossway.errors import InUse, NotFound
from crossway.model.host import Host
from crossway.model.resource import now


def register(decision: Decision, host: Host) -> Host:
    """Note what a host says of itself; saying the same again changes nothing."""
    hosts = decision.cloud.hosts
    old = decision.read(hosts, host.id)
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
    decision.delete(cloud.hosts, name)
