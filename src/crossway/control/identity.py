"""Give each distinct set of security groups a number, and take it back when no port has it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from crossway.control.cloud import Cloud
from crossway.control.decision import Decision
from crossway.errors import Conflict
from crossway.model.host import IDENTITY_MAX, Identity
from crossway.model.port import Port


def of(decision: Decision, groups: Iterable[str]) -> int:
    """Return the number of a set of groups, allocated if it has none."""
    cloud = decision.cloud
    wanted = tuple(sorted(groups))
    if not wanted:
        return 0
    for known in decision.made_in(cloud.identities):
        if known.groups == wanted:
            return int(known.id)
    for id in cloud.identities.ids("groups", wanted):
        if decision.rely(cloud.identities, id):
            return int(id)
    number = decision.number("identity", IDENTITY_MAX)
    decision.create(cloud.identities, Identity(id=str(number), groups=wanted))
    if not decision.claim(_set_key(wanted), str(number)):
        raise Conflict("a set of groups has one number only")
    for group in wanted:
        decision.rely(cloud.groups, group)
        decision.claim(f"member/{group}/{number}")
    return number


def bear(decision: Decision, port: str, old: int, new: int) -> None:
    """Note that a port goes from one identity to another; 0 is none."""
    if old == new:
        return
    if old:
        decision.release(f"bearer/{old}/{port}")
    if new:
        decision.claim(f"bearer/{new}/{port}")


def keys(identity: Identity) -> Iterator[str]:
    """Yield the keys that an identity holds."""
    yield f"claim/identity/{identity.id}"
    yield _set_key(identity.groups)
    for group in identity.groups:
        yield f"member/{group}/{identity.id}"


def free(decision: Decision, identity: Identity) -> None:
    """Give a number back, if there is still no port that has it."""
    decision.empty(f"bearer/{identity.id}/")
    decision.delete(decision.cloud.identities, identity.id)
    for key in keys(identity):
        decision.release(key)


def unused(cloud: Cloud, ports: Iterable[Port]) -> list[str]:
    """Return the identities that these ports had and that no port has now."""
    return [
        id
        for id in {str(port.identity) for port in ports if port.identity}
        if id in cloud.identities.rows and not cloud.ports.ids("identity", int(id))
    ]


def _set_key(groups: tuple[str, ...]) -> str:
    return f"claim/set/{hashlib.sha256(','.join(groups).encode()).hexdigest()[:40]}"
