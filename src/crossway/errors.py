"""Every fault that a caller can meet.

Fault
├── Invalid       400  the request can never be right
├── Unauthorized  401  who asks is not known
├── Forbidden     403
├── NotFound      404
├── Conflict      409  right in itself, but not now
│   ├── InUse          something still refers to it
│   └── OverQuota
└── Unavailable   503  a part that is needed does not answer
"""

from __future__ import annotations


class Fault(Exception):
    """Something a caller can be told; the message names the thing and the reason.

    *type* is the name by which clients of the Networking API know it, where they do.
    """

    status = 500

    def __init__(self, message: str, type: str = "") -> None:
        super().__init__(message)
        self.type = type or self.__class__.__name__


class Invalid(Fault):
    """The request can never be right."""

    status = 400


class Unauthorized(Fault):
    """Who asks is not known."""

    status = 401


class Forbidden(Fault):
    """The caller may not do this."""

    status = 403


class NotFound(Fault):
    """There is no such thing, or none that the caller may see."""

    status = 404

    def __init__(self, kind: str, id: str) -> None:
        super().__init__(f"{kind} {id} could not be found", f"{_camel(kind)}NotFound")
        self.kind, self.id = kind, id


class Conflict(Fault):
    """Right in itself, but not now."""

    status = 409


class InUse(Conflict):
    """Something still refers to it."""

    def __init__(self, kind: str, id: str, by: str) -> None:
        super().__init__(f"{kind} {id} is in use by {by}", f"{_camel(kind)}InUse")
        self.kind, self.id, self.by = kind, id, by


class OverQuota(Conflict):
    """A project has reached a limit."""


class Unavailable(Fault):
    """A part that is needed does not answer."""

    status = 503


# Kinds that clients know by another name.
_CALLED = {
    "binding": "PortBinding",
    "policy": "QosPolicy",
    "bandwidth_limit_rule": "QosRule",
    "dscp_marking_rule": "QosRule",
    "minimum_bandwidth_rule": "QosRule",
    "minimum_packet_rate_rule": "QosRule",
    "packet_rate_limit_rule": "QosRule",
    "log": "LogResource",
    "quota": "TenantQuota",
    "resource": "HTTP",
    "port_association": "LocalIPAssociation",
    "network_ip_availability": "Network",
}
# Words that clients know spelled otherwise.
_SPELLED = {"floatingip": "FloatingIP", "subnetpool": "SubnetPool", "ip": "IP", "ndp": "NDP"}


def _camel(kind: str) -> str:
    words = kind.replace("_", " ").split()
    known = _CALLED.get(kind.removeprefix("alias_"))
    return known or "".join(_SPELLED.get(word, word.capitalize()) for word in words)
