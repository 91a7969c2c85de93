"""Put tags on resources and take them off."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from crossway.control import confine
from crossway.control.caller import Caller, owned
from crossway.control.cloud import Table
from crossway.control.decision import Decision
from crossway.errors import Invalid
from crossway.model.check import TooMany, list_of, text
from crossway.model.resource import TAGS_MAX, Resource, changed

LONGEST = 255


def set_tags(
    decision: Decision,
    caller: Caller,
    table: Table[Resource],
    kind: str,
    id: str,
    turn: Callable[[tuple[str, ...]], Iterable[str]],
) -> tuple[str, ...]:
    """Replace a resource's tags by what *turn* makes of them; return them."""
    old: Resource = owned(decision.cloud, caller, kind, id, decision.read(table, id))
    if caller.host:
        confine.update(decision, caller, old.kind, old, {}, {"tags": old.tags})
    tags = tuple(sorted(set(turn(old.tags))))
    if len(tags) > TAGS_MAX:
        raise _too_many(len(tags))
    if tags != old.tags:
        decision.put(table, changed(old, {"tags": tags}))
    return tags


def checked(value: object) -> tuple[str, ...]:
    """Return tags that were asked for, each once; raise Invalid if they can't be."""
    if value is None:
        raise Invalid("Invalid input for tags. Reason: 'None' is not a list.", type="InvalidInput")
    try:
        tags: tuple[str, ...] = list_of(text(LONGEST), TAGS_MAX)(value)
    except TooMany as error:
        raise _too_many(error.count) from None
    except ValueError as error:
        raise Invalid(f"Invalid input for tags. Reason: {error}.", type="InvalidInput") from None
    return tags


def _too_many(count: int) -> Invalid:
    return Invalid(
        f"The number of tags exceed the per-resource limit of {TAGS_MAX}: there would be {count}.", type="BadRequest"
    )
