"""Make, change and delete logs. Nothing is written by them so far: drops are told by the agents.

A log goes with the group or the port that it is of.
"""

from __future__ import annotations

from crossway.control.caller import Caller, seen
from crossway.control.collection import Collection, change, find, make
from crossway.control.decision import Decision
from crossway.errors import Fault, Invalid, NotFound
from crossway.model.log import LOG, LOGGABLE, LOGGABLE_RESOURCE, Log, LoggableResource
from crossway.model.resource import Given


def create(decision: Decision, caller: Caller, given: Given) -> Log:
    kind, resource, target = given["resource_type"], given["resource_id"], given["target_id"]
    if kind not in LOGGABLE:
        raise Invalid(f"Invalid log resource_type: {kind}.", type="InvalidLogResourceType")
    cloud = decision.cloud
    if resource:
        try:
            seen(cloud, caller, "security_group", resource, decision.rely(cloud.groups, resource))
        except NotFound:
            raise _missing(f"Resource {resource} could not be found.", "ResourceNotFound") from None
    if target:
        try:
            port = seen(cloud, caller, "port", target, decision.read(cloud.ports, target))
        except NotFound:
            raise _missing(f"Target resource {target} could not be found.", "TargetResourceNotFound") from None
        if resource and resource not in port.security_groups:
            raise Invalid(
                f"Invalid resource constraint between resource (security_group {resource}) and target resource "
                f"(port {target}).",
                type="InvalidResourceConstraint",
            )
    log = make(decision, caller, Log, given)
    for key in keys(log):
        decision.claim(key)
    return log


def update(decision: Decision, caller: Caller, id: str, given: Given) -> Log:
    return change(decision, find(decision, Log, id), given)


def delete(decision: Decision, caller: Caller, id: str) -> None:
    drop(decision, find(decision, Log, id))


def drop(decision: Decision, log: Log) -> None:
    decision.delete(decision.cloud.of(Log), log.id)
    for key in keys(log):
        decision.release(key)


def drop_of_group(decision: Decision, group: str) -> None:
    """Delete the logs of a group that goes."""
    decision.quiet(f"logged/{group}/")
    for log in decision.by(decision.cloud.of(Log), "resource_id", group):
        drop(decision, log)


def drop_of_port(decision: Decision, port: str) -> None:
    """Delete the logs of a port that goes, which relies on nothing beginning to refer to it."""
    for log in decision.by(decision.cloud.of(Log), "target_id", port):
        drop(decision, log)


def keys(log: Log) -> list[str]:
    """Return what keeps a group or a port from going while a log of it is made."""
    keys = [f"logged/{log.resource_id}/{log.id}"] if log.resource_id else []
    return [*keys, f"outside/{log.target_id}/{log.id}"] if log.target_id else keys


def _missing(message: str, type: str) -> Fault:
    fault = Fault(message, type)
    fault.status = NotFound.status
    return fault


LOGS = Collection(
    kind=LOG,
    path="log/logs",
    create=create,
    update=update,
    delete=delete,
    aliases={"logging": "Logging API Extension"},
)

LOGGABLE_RESOURCES = Collection(
    kind=LOGGABLE_RESOURCE,
    path="log/loggable-resources",
    rows=lambda cloud, caller: [LoggableResource(id=type, project_id=caller.project, type=type) for type in LOGGABLE],
)
