"""A collection of the Networking API: what a kind of resource can be asked, and by which verbs.

Each resource's module ends with its collection; `control/collections.py` lists
them. Routes, filters, policy, the OpenAPI document and the reference follow.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from crossway.control.caller import Caller, project_of
from crossway.control.cloud import Cloud
from crossway.control.decision import Decision
from crossway.errors import NotFound
from crossway.model.resource import Given, Kind, Resource, changed, new_id, now
from crossway.model.who import MEMBER, Who

Create = Callable[[Decision, Caller, Given], Any]
Update = Callable[[Decision, Caller, str, Given], Any]
Delete = Callable[[Decision, Caller, str], None]
# How to judge an object by a filter's values; raises Invalid for values that can't be.
Filter = Callable[[Cloud, Caller, list[str]], Callable[[Any], bool]]
R = TypeVar("R", bound=Resource)


class Action(msgspec.Struct, frozen=True):
    """Something else that can be done to one resource: `PUT /v2.0/routers/ID/add_router_interface`.

    *verb* gets the body (None for GET) and returns what is answered. With GET it
    only reads. *who* may do it; *parts* are rules for members of its body, at any depth;
    *status* answers it; *body* and *answer* are JSON schemas for the OpenAPI document. *before*
    gets ready for it outside the decision, and may find that there is nothing to be done.
    *check* looks at the body alone: of a long one it is done beside the loop, and *verb* gets it as `Checked`.
    """

    verb: Callable[[Decision, Caller, str, Any], Any]
    who: Who = MEMBER
    method: str = "PUT"
    status: int = 200
    body: Mapping[str, Any] = {}
    answer: Mapping[str, Any] = {}
    parts: Mapping[str, Who] = {}
    before: Callable[[Cloud, str], Awaitable[None]] | None = None
    check: Callable[[Any], Any] | None = None


class Checked(msgspec.Struct, frozen=True):
    """The body of an action that its check has seen: what that returned."""

    value: Any


class Collection(msgspec.Struct, frozen=True, kw_only=True):
    """One collection: its kind, its verbs (None: it can't be done), and what is particular.

    *path* below /v2.0, if not the plural. *children* stand below one resource:
    `/v2.0/floatingips/ID/port_forwardings`; the field that their kind calls its
    parent is filled from the path. *derived* is shown beside an object's own
    attributes, read from the cloud; it may change only with the rows of tables
    in *stale*, which tell the ids that a row makes stale, or in *stale_by*, which name the
    index under which the row's own id finds them, or *stale_in*, which find out in the cloud.
    One that is UNSET is not shown at all. *filters* are beside those by
    attribute. *rows* makes a collection that is computed, not kept: it has no
    table. *below* finds rows below one parent, computed. *aliases* are the extensions of
    the API that it serves, with their names.
    *prepare* returns a verb that must be done before a list is read with some filters, or None.
    *within* says that an id in the path names an object below its parent alone: its own
    id is PARENT.ID. *show* is a verb that GET of one does instead of looking it up; it
    gets the fields that were asked for and returns the JSON. *named* turns what stands in
    the path into the id that the caller means. *absent* returns what there is under an id
    of which nothing is kept. *questions* are words that stand where an id would, and what
    GET of them answers. *anew* says that the page after what the caller may not see is the
    first; else there is none. *together* refuses what may not be made in one request. *bare* says
    that even a PUT that says nothing means something to *update*.
    """

    kind: Kind[Any]
    create: Create | None = None
    update: Update | None = None
    delete: Delete | None = None
    path: str = ""
    children: tuple[Collection, ...] = ()
    actions: Mapping[str, Action] = {}
    derived: Mapping[str, Callable[[Cloud, Any], Any]] = {}
    stale: Mapping[str, Callable[[Any], Iterable[str]]] = {}
    stale_by: Mapping[str, str] = {}
    stale_in: Mapping[str, Callable[[Cloud, Any], Iterable[str]]] = {}
    filters: Mapping[str, Filter] = {}
    rows: Callable[[Cloud, Caller], Iterable[Any]] | None = None
    below: Callable[[Cloud, str], Iterable[Any]] | None = None
    aliases: Mapping[str, str] = {}
    prepare: Callable[[Cloud, Caller, Mapping[str, list[str]]], Callable[[Decision], Any] | None] | None = None
    within: bool = False
    named: Callable[[Caller, str], str] | None = None
    absent: Callable[[str], Any] | None = None
    questions: Mapping[str, Callable[[Caller], Any]] = {}
    show: Callable[[Decision, Caller, str, list[str]], Mapping[str, Any]] | None = None
    anew: bool = False
    together: Callable[[Sequence[Given]], None] | None = None
    bare: bool = False


def make(decision: Decision, caller: Caller, model: type[R], given: Given, **more: Any) -> R:
    """Make a resource of what was given, in the caller's project if none was named."""
    time = now()
    project = project_of(caller, given) if "project_id" in given else ""
    resource = model(**{**given, "project_id": project, **more}, id=new_id(), created_at=time, updated_at=time)
    decision.create(decision.cloud.of(model), resource)
    return resource


def find(decision: Decision, model: type[R], id: str) -> R:
    """Return a resource for changing, or raise NotFound."""
    found = decision.read(decision.cloud.of(model), id)
    if found is None:
        raise NotFound(model.kind.name, id)
    return found


def touch(decision: Decision, model: type[R], id: str) -> None:
    """Count a change of what belongs to a resource as one of its own: once, however much a decision changes."""
    table = decision.cloud.of(model)
    if not decision.makes(table, id) and (old := decision.read(table, id)) is not None:
        decision.put(table, changed(old, {}))


def change(decision: Decision, old: R, given: Given) -> R:
    """Put a resource with what was given, one revision on."""
    new = changed(old, given)
    decision.put(decision.cloud.of(type(old)), new)
    return new
