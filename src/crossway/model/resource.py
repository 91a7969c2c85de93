"""What is common to all resources: how one is declared, and what follows from that.

A resource is a frozen class. Each attribute of the API stands in it once, with
what it takes: its check, whether POST and PUT may set it, its default, who may
see it. Validation, filters, sorting and the JSON shape follow.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, ClassVar, Generic, TypeVar, get_args, get_type_hints

import msgspec
from msgspec import UNSET

from crossway.errors import Invalid
from crossway.model.check import Check, Unlike, anything, boolean, brief, integer, text
from crossway.model.check import name as name_of
from crossway.model.who import MEMBER, READER, Who

# Tags of one resource, as Neutron has it, and hints of where one should be.
TAGS_MAX, HINTS_MAX = 50, 16
REQUIRED: Any = msgspec.NODEFAULT
# What was asked for: attributes by field name, checked; UNSET where nothing was said.
Given = dict[str, Any]
# How to find the values under which an object stands in an index.
Index = Callable[[Any], Iterable[Any]]


class Attribute(msgspec.Struct, frozen=True, kw_only=True):
    """How one attribute behaves in the API.

    *default* is what POST takes if nothing is said: a value, REQUIRED, or UNSET
    where the rules between resources decide. *create* and *update* say who may
    set it, *see* who may see it; None: who may make, change and see the
    resource. *parts* are rules for members of an object, or of each object of a list.
    What is not *shown* is a word of the request alone. *guards* says of which values
    *create* and *update* are rules; None: of all.
    """

    check: Check = anything
    post: bool = True
    put: bool = True
    default: Any = UNSET
    filter: bool = True
    sort: bool = True
    create: Who | None = None
    update: Who | None = None
    see: Who | None = None
    parts: Mapping[str, Who] = {}
    shown: bool = True
    guards: Callable[[Any], bool] | None = None
    wire: str = ""
    field: str = ""
    # How to read a filter's string; None compares strings.
    filter_check: Check | None = None


def attribute(check: Check = anything, *, set_by: Who | None = None, **options: Any) -> Attribute:
    """Declare an attribute that callers may set, or those of *set_by* alone."""
    if set_by is not None:
        options = {"create": set_by, "update": set_by, **options}
    if check is boolean or getattr(check, "__qualname__", "").startswith("integer."):
        options.setdefault("filter_check", check)
    return Attribute(check=check, **options)


def told(**options: Any) -> Attribute:
    """Declare an attribute that callers may only read."""
    return Attribute(post=False, put=False, **options)


class Resource(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What every resource of the API has. Fields without an Attribute stay inside."""

    kind: ClassVar[Kind[Any]]

    id: Annotated[str, told()]
    project_id: Annotated[str, attribute(text(255), put=False)]
    name: Annotated[str, attribute(name_of(255), default="")] = ""
    description: Annotated[str, attribute(text(255), default="")] = ""
    created_at: Annotated[str, told()] = ""
    updated_at: Annotated[str, told()] = ""
    revision_number: Annotated[int, told(filter_check=integer(0, 1 << 62))] = 1
    tags: Annotated[tuple[str, ...], told(filter=False, sort=False)] = ()


R = TypeVar("R", bound=Resource)


class Kind(Generic[R]):
    """A resource's names, attributes, indexes and who may what, read off its class.

    *table* is its table in the cloud and the beginning of its keys in the store.
    *without* are attributes of every resource that this one lacks. *parent* is
    the field that names what it belongs to, and the table where that is.
    *indexes* are fields by which it is found, or names with how to find their
    values. *rbac* is its name as the object type of RBAC policies; *tells_shared* says
    whether the API tells who asks that one is shared. One that may be seen by whom it
    does not belong to is, to them, *absent* where it should be changed. *forgets* are words
    that POST takes and nobody keeps.
    """

    def __init__(
        self,
        model: type[R],
        name: str,
        plural: str,
        *,
        table: str = "",
        create: Who = MEMBER,
        get: Who = READER,
        update: Who = MEMBER,
        delete: Who = MEMBER,
        without: Iterable[str] = (),
        parent: tuple[str, str] | None = None,
        indexes: Iterable[str] | Mapping[str, Index | None] = ("project_id",),
        rbac: str = "",
        tells_shared: bool = True,
        absent: bool = False,
        forgets: Iterable[str] = (),
    ) -> None:
        self.model, self.name, self.plural, self.table = model, name, plural, table or name
        self.create, self.get, self.update, self.delete = create, get, update, delete
        self.parent, self.rbac = parent, rbac
        self.tells_shared, self.absent = bool(rbac) and tells_shared, absent
        self.forgets = frozenset(forgets)
        self.attributes: dict[str, Attribute] = {}
        hidden, without = [], set(without)
        hints = get_type_hints(model, include_extras=True)
        for field in msgspec.structs.fields(model):
            declared = [a for a in getattr(hints[field.name], "__metadata__", ()) if isinstance(a, Attribute)]
            if not declared or field.name in without:
                hidden.append(field.encode_name)
                continue
            check = declared[0].filter_check or _filter_check(hints[field.name])
            whole = msgspec.structs.replace(declared[0], wire=field.encode_name, field=field.name, filter_check=check)
            self.attributes[whole.wire] = whole
            if not whole.shown:
                hidden.append(field.encode_name)
        self.hidden = tuple(hidden)
        self.guarded = tuple(a for a in self.attributes.values() if a.see is not None)
        # Attributes that not all may see, by who may.
        self.seen_by: dict[Who, frozenset[str]] = {
            who: frozenset(a.wire for a in self.guarded if a.see == who)
            for who in {a.see for a in self.guarded if a.see is not None}
        }
        self.names = dict(self.attributes)
        if "project_id" in self.attributes:
            # Older clients say tenant where newer ones say project.
            self.names["tenant_id"] = self.attributes["project_id"]
        named = dict(indexes) if isinstance(indexes, Mapping) else dict.fromkeys(indexes)
        if "name" in self.attributes:
            # Commands say names and ask for ids.
            named.setdefault("name", None)
        self.indexes: dict[str, Index] = {name: of or _value_of(name) for name, of in named.items()}
        self._defaults = {a.field: a.default for a in self.attributes.values() if a.post and a.default is not REQUIRED}
        self._required = [a.wire for a in self.attributes.values() if a.post and a.default is REQUIRED]
        model.kind = self

    def given(self, body: Any, update: bool = False) -> Given:
        """Check what POST, or PUT if *update*, was given; raise Invalid naming the attribute."""
        if not isinstance(body, dict):
            raise Invalid(f"Invalid input for {self.name}. Reason: {brief(body)} is not a dictionary.")
        if body.get("tenant_id", body.get("project_id")) != body.get("project_id", body.get("tenant_id")):
            raise Invalid("'project_id' and 'tenant_id' do not match")
        given: Given = {} if update else dict(self._defaults)
        for wire, value in body.items():
            declared = self.names.get(wire)
            if wire in self.forgets and not update:
                continue
            if declared is None:
                raise Invalid(
                    f"Unrecognized attribute(s) {brief(wire)}; {self.name} has {', '.join(sorted(self.attributes))}"
                )
            if not (declared.put if update else declared.post):
                if update and (declared.post or declared.field in ("id", "tags")):
                    raise Invalid(f"Cannot update read-only attribute {wire}")
                raise Invalid(f"Attribute '{wire}' not allowed in {'PUT' if update else 'POST'}")
            try:
                given[declared.field] = declared.check(value)
            except ValueError as error:
                raise unfit(wire, error) from None
        if not update:
            for wire in self._required:
                if wire not in body:
                    raise Invalid(f"Failed to parse request. Required attribute '{wire}' not specified")
        return given

    def show(self, resource: R) -> dict[str, Any]:
        """Return the JSON shape of a resource, as an admin sees it."""
        shape: dict[str, Any] = msgspec.to_builtins(resource)
        for wire in self.hidden:
            del shape[wire]
        if "project_id" in shape:
            shape["tenant_id"] = shape["project_id"]
        return shape


def unfit(name: str, error: ValueError) -> Invalid:
    """Return the fault of a value that an attribute or a filter cannot have."""
    return Invalid(f"Invalid input for {name}. Reason: {error}.", type=error.type if isinstance(error, Unlike) else "")


def _filter_check(type: Any) -> Check | None:
    """Return how a filter's string becomes a value of an attribute's type; None where it is one."""
    types = get_args(type.__origin__) or (type.__origin__,)
    if bool in types:
        return boolean
    return integer(-(1 << 63), (1 << 63) - 1) if int in types else None


def _value_of(field: str) -> Index:
    def values(resource: Any) -> tuple[Any, ...]:
        value = getattr(resource, field)
        if isinstance(value, tuple):
            return value
        return (value,) if value else ()

    return values


def new_id() -> str:
    return str(uuid.uuid4())


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def changed(resource: R, given: Mapping[str, Any]) -> R:
    """Return the resource with what is *given*, one revision on; itself if that is nothing new."""
    if given and all(getattr(resource, name) == value for name, value in given.items()):
        return resource
    return msgspec.structs.replace(resource, **given, updated_at=now(), revision_number=resource.revision_number + 1)
