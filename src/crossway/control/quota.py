"""Set the quotas of projects, and tell what is used of them. `Decision.create` keeps to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from crossway import settings
from crossway.control.caller import Caller
from crossway.control.cloud import Cloud
from crossway.control.collection import Action, Collection
from crossway.control.decision import Decision
from crossway.errors import Forbidden, Invalid, NotFound
from crossway.model.host import IDENTITY_MAX
from crossway.model.quota import LIMITED, QUOTA, UNLIMITED, Quota, of_project
from crossway.model.resource import Given, changed, now
from crossway.model.who import READER

# Words of the request: what is neither kept nor a limit.
WORDS = ("force", "check_limit")


def defaults(unlimited: bool) -> dict[str, int]:
    """Return what each project may have where nothing else is said, from the settings.

    *unlimited*: what no setting names has no limit.
    """
    found = {}
    for setting in settings.QUOTAS:
        name, said = setting.name.removeprefix("quota_"), setting.said()
        if said is None:
            found[name] = UNLIMITED if unlimited else int(setting.default)
            continue
        try:
            found[name] = max(int(said), UNLIMITED)
        except ValueError:
            raise Invalid(f"{setting.variable} is '{said}'; should be a number, or -1 for no limit") from None
    return found


def identities() -> int:
    """Return how many distinct sets of security groups a project may have, from the settings."""
    said = settings.IDENTITIES.value()
    if not (said.isdecimal() and 0 < int(said) <= IDENTITY_MAX):
        raise Invalid(f"{settings.IDENTITIES.variable} is '{said}'; should be from 1 to {IDENTITY_MAX}")
    return int(said)


def update(decision: Decision, caller: Caller, id: str, given: Given) -> Quota:
    """Set limits; below what is used only if it is forced."""
    cloud = decision.cloud
    limits = {name: value for name, value in given.items() if name not in WORDS}
    if not given.get("force"):
        for name, value in limits.items():
            used = cloud.usage.used(name, id)
            if UNLIMITED < value < used:
                raise Invalid(
                    f"Quota limit {value} for {name} must be greater than or equal to already used {used}",
                    type="HTTPBadRequest",
                )
    table = cloud.of(Quota)
    old = decision.read(table, id)
    if old is None:
        time = now()
        new = changed(of_project(id), {**limits, "created_at": time})
        decision.create(table, new)
    else:
        new = changed(old, limits)
        decision.put(table, new)
    return new


def delete(decision: Decision, caller: Caller, id: str) -> None:
    """Have the defaults hold for a project again."""
    table = decision.cloud.of(Quota)
    if decision.read(table, id) is None:
        raise NotFound("quota", id)
    decision.delete(table, id)


def default(decision: Decision, caller: Caller, id: str, body: Any) -> Mapping[str, Any]:
    return {"quota": dict(decision.cloud.usage.limits)}


def details(decision: Decision, caller: Caller, id: str, body: Any) -> Mapping[str, Any]:
    """Tell the limits of a project, what it has, and what is being made."""
    cloud = decision.cloud
    return {
        "quota": {
            name: {
                "limit": cloud.usage.limit(name, id),
                "used": cloud.usage.used(name, id),
                "reserved": cloud.usage.reserved(name, id),
            }
            for name in LIMITED
        }
    }


def _named(caller: Caller, project: str) -> str:
    """Let a project ask for no quota but its own. There is one of any project, so nothing is given away."""
    if not caller.admin and project != caller.project:
        raise Forbidden("(get_quota) is disallowed by policy: it is for admin", type="PolicyNotAuthorized")
    return project


def _limit(name: str) -> Callable[[Cloud, Quota], int]:
    return lambda cloud, quota: cloud.usage.limit(name, quota.id)


def _managers_alone(cloud: Cloud, caller: Caller, filters: Mapping[str, Iterable[str]]) -> None:
    if not caller.admin and "manager" not in caller.roles:
        raise Forbidden(
            "(get_quota) is disallowed by policy: it is for admin or manager of its project",
            type="PolicyNotAuthorized",
        )


def _project(word: str) -> Callable[[Caller], Mapping[str, Any]]:
    return lambda caller: {word: {f"{word}_id": caller.project}}


_USE = {"type": "object", "properties": {name: {"type": "integer"} for name in ("limit", "used", "reserved")}}

QUOTAS = Collection(
    kind=QUOTA,
    update=update,
    delete=delete,
    named=_named,
    absent=of_project,
    prepare=_managers_alone,
    derived={name: _limit(name) for name in LIMITED},
    actions={
        "default": Action(default, who=READER, method="GET"),
        "details": Action(
            details,
            who=READER,
            method="GET",
            answer={
                "type": "object",
                "properties": {"quota": {"type": "object", "properties": dict.fromkeys(LIMITED, _USE)}},
            },
        ),
    },
    questions={word: _project(word) for word in ("project", "tenant")},
    aliases={
        "quotas": "Quota management support",
        "quota_details": "Quota details management support",
        "quota-check-limit": "Quota engine limit check",
        "quota-check-limit-default": "Quota engine limit check by default",
    },
)
