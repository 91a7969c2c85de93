"""Give each distinct set of security groups a number, and take it back when no port has it.

Hosts that are away go on by what they know, so a number that no port has stays
its set's until every registered host has applied that; and when the set itself
is gone with one of its groups, the number rests as long. What a project has and
what rests of it is limited, so that no project's changes use up the numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from crossway.control.cloud import Cloud
from crossway.control.decision import Decision
from crossway.errors import Conflict, OverQuota
from crossway.model.host import IDENTITY_MAX, Identity
from crossway.model.port import Port


def of(decision: Decision, groups: Iterable[str], project: str) -> int:
    """Return the number of a set of groups, allocated if it has none, at the cost of *project*."""
    cloud = decision.cloud
    wanted = tuple(sorted(groups))
    if not wanted:
        return 0
    for known in decision.by(cloud.identities, "groups", wanted):
        if decision.rely(cloud.identities, known.id):
            return int(known.id)
    _check_share(decision, project)
    cloud.identities_made[project] += 1
    decision.identities[project] += 1
    number = decision.number("identity", IDENTITY_MAX)
    decision.create(cloud.identities, Identity(id=str(number), groups=wanted, project=project))
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
    yield _key(identity)
    yield _set_key(identity.groups)
    for group in identity.groups:
        yield f"member/{group}/{identity.id}"


def free(decision: Decision, identity: Identity, *, rests: bool) -> None:
    """Give a number back, if there is still no port that has it; *rests*: hosts may still hold rows of it."""
    decision.empty(f"bearer/{identity.id}/")
    decision.delete(decision.cloud.identities, identity.id)
    for key in keys(identity):
        decision.release(key)
    if rests:
        decision.rest(_key(identity), identity.project)


def _check_share(decision: Decision, project: str) -> None:
    """Raise OverQuota if a project has as many numbers as it may, with those that rest."""
    cloud = decision.cloud
    used, resting = len(decision.by(cloud.identities, "project", project)), cloud.resting_of[project]
    # Its own are among those that it sees.
    used += cloud.identities_made[project] - decision.identities[project]
    if not project or used + resting < cloud.identities_max:
        return
    away = [host for host in cloud.hosts.rows if not cloud.alive(host)]
    why = f" Hosts that are away may still hold them: {', '.join(sorted(away)[:10])}." if away else ""
    raise OverQuota(
        f"Quota exceeded for resources: ['security_group_set']. Project {project} has {used} distinct sets of security "
        f"groups on ports or just given up, and {resting} of deleted groups, of {cloud.identities_max} that it may."
        f"{why}"
    )


def unused(cloud: Cloud, ports: Iterable[Port]) -> list[str]:
    """Return the identities that these ports had and that no port has now."""
    return [
        id
        for id in {str(port.identity) for port in ports if port.identity}
        if id in cloud.identities.rows and not cloud.ports.ids("identity", int(id))
    ]


def _key(identity: Identity) -> str:
    return f"claim/identity/{identity.id}"


def _set_key(groups: tuple[str, ...]) -> str:
    return f"claim/set/{hashlib.sha256(','.join(groups).encode()).hexdigest()[:40]}"
