"""What a list was asked for: filters, fields, order, page. All follows from a resource's declaration."""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Generator, Iterable, Mapping
from datetime import UTC, datetime
from itertools import islice
from operator import attrgetter, itemgetter
from typing import Any

import msgspec

from crossway.control.caller import Caller, anywhere, may, sees, shared, visible
from crossway.control.cloud import Bucket, Cloud, Table
from crossway.control.collection import Collection
from crossway.errors import Invalid, NotFound
from crossway.model.check import UUID, Check, Unlike, boolean
from crossway.model.port import fixed_ips_filter
from crossway.model.resource import Attribute, unfit
from crossway.portions import Portions

Params = Iterable[tuple[str, str]]
Test = Callable[[Any], bool]
# What finds objects, with a pause between its steps.
Steps = Generator[None, None, list[Any]]
# Attributes by field name, and whether they go down.
Order = list[tuple[str, bool]]
# No cloud has more of anything.
LIMIT_MAX = 1 << 31
# Objects that are looked at, and put in order, in one step.
LOOKED, SORTED = 50, 2000
_FIRST = itemgetter(0)
# How much dearer it is to look at an object than to put an id in a set.
AHEAD = 10
TAGS: dict[str, Callable[[set[str], set[str]], bool]] = {
    "tags": lambda wanted, have: wanted <= have,
    "tags-any": lambda wanted, have: bool(wanted & have),
    "not-tags": lambda wanted, have: not wanted <= have,
    "not-tags-any": lambda wanted, have: not wanted & have,
}


class Query(msgspec.Struct):
    """One list, as asked for."""

    filters: dict[str, list[Any]] = msgspec.field(default_factory=dict)
    fields: list[str] = msgspec.field(default_factory=list)
    order: Order = msgspec.field(default_factory=list)
    limit: int = 0
    marker: str = ""
    reverse: bool = False


def read(collection: Collection, params: Params, caller: Caller) -> Query:
    """Read the parameters of a list, or raise Invalid naming the one that is wrong."""
    query = Query()
    keys: list[str] = []
    directions: list[str] = []
    for name, value in params:
        if name == "fields":
            query.fields += [field for field in value.split(",") if field]
        elif name == "limit":
            query.limit = _limit(value)
        elif name == "marker":
            query.marker = value
        elif name == "page_reverse":
            query.reverse = value.lower() in ("true", "1")
        elif name == "sort_key":
            keys.append(value)
        elif name == "sort_dir":
            directions.append(value)
        else:
            # Ids are kept in lower case.
            value = value.lower() if name == "id" and UUID.fullmatch(value) else value
            query.filters.setdefault(name, []).append(value)
    if directions and len(directions) != len(keys):
        raise Invalid(f"The number of sort_keys ({len(keys)}) and sort_dirs ({len(directions)}) must be same")
    for key, direction in zip(keys, directions or ["asc"] * len(keys), strict=True):
        declared = collection.kind.names.get(key)
        if declared is None or not declared.sort or _withheld(declared, caller):
            raise Invalid(f"['{key}'] is invalid attribute for sort_key")
        if direction not in ("asc", "desc"):
            raise Invalid(f"sort_dir '{direction}' should be asc or desc")
        # What one key leaves alike, the same key cannot tell apart.
        if all(declared.field != field for field, _ in query.order):
            query.order.append((declared.field, direction == "desc"))
    query.fields = list(dict.fromkeys(query.fields))
    query.filters = {name: list(dict.fromkeys(values)) for name, values in query.filters.items()}
    return query


def run(cloud: Cloud, collection: Collection, caller: Caller, query: Query, parent: str = "") -> list[Any]:
    """Find what a query asks for, below *parent*. Costs follow the smallest index that serves, and the page."""
    steps = _steps(cloud, collection, caller, query, parent)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            found: list[Any] = done.value
            return found


async def run_in_portions(
    cloud: Cloud, collection: Collection, caller: Caller, query: Query, parent: str = ""
) -> list[Any]:
    """Do as `run`, and let others have the loop in between where there is much to look at."""
    steps, portions = _steps(cloud, collection, caller, query, parent), Portions()
    while True:
        try:
            next(steps)
        except StopIteration as done:
            found: list[Any] = done.value
            return found
        if portions.due:
            await portions.turn()


def _steps(cloud: Cloud, collection: Collection, caller: Caller, query: Query, parent: str) -> Steps:
    query = msgspec.structs.replace(query, filters=_meant(collection, query.filters))
    tests = [_test(cloud, collection, caller, name, values) for name, values in query.filters.items()]
    if parent and collection.kind.parent:
        field = collection.kind.parent[0]
        tests.append(lambda resource: getattr(resource, field) == parent)
    tests.append(_arrived(cloud))
    if not anywhere(caller, collection.kind.get):
        tests.append(lambda resource: sees(cloud, caller, resource))
    if collection.below is not None or collection.rows is not None:
        computed = collection.below(cloud, parent) if collection.below else ()
        found = yield from _matching(collection.rows(cloud, caller) if collection.rows else computed, tests)
        return (yield from _page(collection, found, query))
    table: Table[Any] = cloud.tables[collection.kind.table]
    if collection.anew and query.marker in table.rows and not sees(cloud, caller, table.rows[query.marker]):
        query = msgspec.structs.replace(query, marker="")
    candidates = _candidates(cloud, table, collection, caller, query, parent)
    by_id = not query.order or query.order[0][0] == "id"
    if query.limit and by_id and isinstance(candidates, Bucket):
        descending = bool(query.order and query.order[0][1])
        if query.marker:
            _marker(cloud, collection, caller, query.marker)
        return (yield from _page_by_id(table, candidates, tests, query, descending))
    rows = table.rows
    # Of one revision: what comes to be later is not looked at.
    found = [r for id in candidates if (r := rows.get(id)) is not None]
    if tests:
        found = yield from _matching(found, tests)
    if query.marker and all(one.id != query.marker for one in found):
        # It may have ceased to be what is asked for since it was told: the page begins where it would stand.
        found.append(_marker(cloud, collection, caller, query.marker))
    return (yield from _page(collection, found, query))


def _arrived(cloud: Cloud) -> Test:
    """Return what passes all but that of which only a part has come, at any time while it is looked at."""
    coming: list[set[str]] = []

    def test(resource: Any) -> bool:
        if cloud.coming is not None and not (coming and coming[-1] is cloud.coming):
            coming.append(cloud.coming)
        return not any(resource.id in some for some in coming)

    return test


def _meant(collection: Collection, filters: Mapping[str, list[str]]) -> dict[str, list[Any]]:
    """Return filters with their words as attributes keep them: a MAC or a prefix may be said in several ways."""
    meant: dict[str, list[Any]] = {}
    for name, values in filters.items():
        declared = collection.kind.names.get(name)
        plain = declared is None or declared.filter_check is not None or name in collection.filters
        meant[name] = values if declared is None or plain else [_word(name, declared.check, value) for value in values]
    return meant


def _word(name: str, check: Check, value: str) -> Any:
    """Return one word of a filter as its attribute would keep it; as it is if that could not be one."""
    try:
        word = check(value)
    except Unlike as error:
        raise unfit(name, error) from None
    except ValueError:
        return value
    return word if word is None or isinstance(word, str) else value


def _matching(some: Iterable[Any], tests: list[Test]) -> Steps:
    """Return what passes all tests, a few looked at in each step."""
    found: list[Any] = []
    left = iter(some)
    while looked := list(islice(left, LOOKED)):
        for test in tests:
            looked = [r for r in looked if test(r)]
        found += looked
        yield
    return found


def _page(collection: Collection, found: list[Any], query: Query) -> Steps:
    if query.limit and len(found) > query.limit:
        if query.marker:
            marker = next((r for r in found if r.id == query.marker), None)
            if marker is None:
                raise NotFound(collection.kind.name, query.marker)
            found = yield from _after(found, marker, query.order, query.reverse)
            query = msgspec.structs.replace(query, marker="")
        found = yield from _soonest(found, query.limit, query.order, query.reverse)
    if query.order or query.limit or query.marker:
        found = yield from _sorted(found, lambda r: r.id, False)
        for field, descending in reversed(query.order):
            found = yield from _sorted(found, lambda r, f=field: _sortable(getattr(r, f)), descending)  # type: ignore[misc]
    return _cut(collection, found, query) if query.limit or query.marker or query.reverse else found


def _sorted(rows: list[Any], key: Callable[[Any], Any], down: bool) -> Steps:
    """Return rows in order, as `sorted` would: parts of them, which are put together two by two."""
    parts: list[list[tuple[Any, Any]]] = []
    for first in range(0, len(rows), SORTED):
        parts.append(sorted(((key(r), r) for r in rows[first : first + SORTED]), key=_FIRST, reverse=down))
        yield
    while len(parts) > 1:
        joined = []
        for first in range(0, len(parts), 2):
            # Two that are in order are put together in one pass.
            both = [one for part in parts[first : first + 2] for one in part]
            both.sort(key=_FIRST, reverse=down)
            joined.append(both)
            yield
        parts = joined
    return [row for _, row in parts[0]] if parts else []


def _after(found: list[Any], marker: Any, order: Order, reverse: bool) -> Steps:
    """Return what comes after a marker that is among what was found."""
    field, down, rest = _first_of(order)
    values = _column(found, field)
    yield
    at = values[next(i for i, r in enumerate(found) if r is marker)]
    if down == reverse:
        beyond = [r for r, value in zip(found, values, strict=True) if value > at]
    else:
        beyond = [r for r, value in zip(found, values, strict=True) if value < at]
    yield
    if field == "id":
        return beyond
    alike = [r for r, v in zip(found, values, strict=True) if v == at]
    return beyond + (yield from _after(alike, marker, rest, reverse))


def _soonest(found: list[Any], count: int, order: Order, reverse: bool) -> Steps:
    """Return the first of what was found, as many as *count*, without putting all in order."""
    if len(found) <= count:
        return found
    field, down, rest = _first_of(order)
    values = _column(found, field)
    yield
    if down == reverse:
        last = heapq.nsmallest(count, values)[-1]
        before = [r for r, value in zip(found, values, strict=True) if value < last]
    else:
        last = heapq.nlargest(count, values)[-1]
        before = [r for r, value in zip(found, values, strict=True) if value > last]
    yield
    alike = [r for r, value in zip(found, values, strict=True) if value == last]
    if field == "id":
        return before + alike
    return before + (yield from _soonest(alike, count - len(before), rest, reverse))


def _first_of(order: Order) -> tuple[str, bool, Order]:
    """Return by what an order goes first, whether it goes down, and what decides next: at last, the id."""
    (field, down), *rest = order or [("id", False)]
    return field, down, rest


def _column(found: list[Any], field: str) -> list[Any]:
    """Return what orders objects by one attribute."""
    values = list(map(attrgetter(field), found))
    try:
        return list(map(str.upper, values))
    except TypeError:
        return [_sortable(value) for value in values]


def _page_by_id(table: Table[Any], bucket: Bucket, tests: list[Test], query: Query, descending: bool) -> Steps:
    """Walk an ordered index from the marker until the page is full."""
    backwards = descending != query.reverse
    hits: list[Any] = []
    last = query.marker
    while len(hits) < query.limit:
        # Others may have changed the index since the last step: it is gone on from the last id.
        ids = bucket.in_order()
        if last:
            at = bisect_left(ids, last) if backwards else bisect_right(ids, last)
        else:
            at = len(ids) if backwards else 0
        some = ids[max(0, at - LOOKED) : at][::-1] if backwards else ids[at : at + LOOKED]
        if not some:
            break
        last = some[-1]
        # What was found before the last step may be gone.
        rows = [row for id in some if (row := table.rows.get(id)) is not None]
        for test in tests:
            rows = [r for r in rows if test(r)]
        hits += rows
        yield
    return _turned(hits[: query.limit], query)


def _cut(collection: Collection, found: list[Any], query: Query) -> list[Any]:
    if query.reverse:
        found.reverse()
    if query.marker:
        at = next((i for i, r in enumerate(found) if r.id == query.marker), None)
        if at is None:
            raise NotFound(collection.kind.name, query.marker)
        found = found[at + 1 :]
    return _turned(found[: query.limit] if query.limit else found, query)


def _turned(found: list[Any], query: Query) -> list[Any]:
    """Put what was found in walking order in the order that was asked for."""
    if query.reverse:
        found.reverse()
    return found


def _candidates(
    cloud: Cloud, table: Table[Any], collection: Collection, caller: Caller, query: Query, parent: str
) -> Bucket | list[str]:
    """Return ids among which all that is asked for are, from the smallest index at hand."""
    if (ids := query.filters.get("id")) and not collection.within:
        return list(dict.fromkeys(ids))
    best: Bucket | list[str] = table.all
    if parent and collection.kind.parent and collection.kind.parent[0] in table.indexes:
        best = _smaller(best, [table.ids(collection.kind.parent[0], parent)])
    for name, values in query.filters.items():
        declared = collection.kind.names.get(name)
        if declared and not declared.filter_check and declared.field in table.indexes and all(values):
            best = _smaller(best, [table.ids(declared.field, value) for value in values])
        elif name == "fixed_ips" and table is cloud.ports:
            asked = fixed_ips_filter(values)
            if subnets := asked.get("subnet_id"):
                best = _smaller(best, [table.ids("subnet_id", subnet) for subnet in subnets])
            if ips := asked.get("ip_address"):
                best = list(dict.fromkeys(cloud.addresses.holders(ips)))
    mine = visible(cloud, caller, table.name)
    if mine is not None:
        if len(mine) == 1 and isinstance(mine[0], Bucket):
            return _smaller(best, [mine[0]])
        most = sum(map(len, mine))
        # Where it may see most of what is left, or a page is full soon, looking at each costs less than a union.
        if most < len(best) and (not query.limit or most * most < AHEAD * query.limit * len(best)):
            best = _smaller(best, [Bucket(*(id for ids in mine for id in ids))])
    return best


def _smaller(best: Bucket | list[str], buckets: list[Bucket]) -> Bucket | list[str]:
    if sum(len(bucket) for bucket in buckets) >= len(best):
        return best
    if len(buckets) == 1:
        return buckets[0]
    return list({id: None for bucket in buckets for id in bucket})


def _test(cloud: Cloud, collection: Collection, caller: Caller, name: str, values: list[str]) -> Test:
    if name in collection.filters:
        try:
            return collection.filters[name](cloud, caller, values)
        except ValueError as error:
            raise unfit(name, error) from None
    if name in TAGS and "tags" in collection.kind.attributes:
        wanted = {tag for value in values for tag in value.split(",")}
        return lambda r: TAGS[name](wanted, set(r.tags))
    if name == "shared" and collection.kind.rbac:
        told = _checked(name, boolean, values)
        return lambda r: shared(cloud, caller.project, r) in told
    if name == "changed_since" and "updated_at" in collection.kind.attributes:
        return _since(values)
    declared = collection.kind.names.get(name)
    if declared is None or not declared.filter:
        raise Invalid(f"['{name}'] is invalid attribute for filtering")
    found = _by_attribute(name, declared, values)
    if _withheld(declared, caller):
        # Clients ask by it for what is their own; of others' it is not to be found out.
        if caller.host and (see := declared.see) is not None:
            return lambda r: may(cloud, caller, see, r) and found(r)
        return lambda r: r.project_id == caller.project and found(r)
    return found


def _by_attribute(name: str, declared: Attribute, values: list[str]) -> Test:
    field = declared.field
    if declared.filter_check:
        checked = _checked(name, declared.filter_check, values)
        return lambda r: getattr(r, field) in checked
    strings = set(values)

    def test(resource: Any) -> bool:
        value = getattr(resource, field)
        if isinstance(value, tuple):
            return not strings.isdisjoint(value)
        # An empty filter finds what is empty, not what is not set.
        return value in strings

    return test


def _checked(name: str, check: Check, values: list[str]) -> set[Any]:
    try:
        return {check(value) for value in values}
    except ValueError as error:
        raise unfit(name, error) from None


def _withheld(declared: Attribute, caller: Caller) -> bool:
    """Say whether the caller may not see an attribute of all that it may see."""
    return declared.see is not None and not anywhere(caller, declared.see)


def _limit(value: str) -> int:
    try:
        limit = int(value)
    except ValueError:
        limit = -1
    if limit < 0:
        raise Invalid(f"Bad limit request: Limit must be an integer 0 or greater and not '{value}'.", type="BadRequest")
    return min(limit, LIMIT_MAX)


def _marker(cloud: Cloud, collection: Collection, caller: Caller, id: str) -> Any:
    """Return what a page is to follow; raise NotFound if it is not there, or not for the caller's eyes."""
    found = cloud.tables[collection.kind.table].rows.get(id)
    if found is None or not sees(cloud, caller, found):
        raise NotFound(collection.kind.name, id)
    return found


def _since(values: list[str]) -> Test:
    """Return what finds what has changed at a time or later."""
    try:
        times = [datetime.fromisoformat(value.replace(" ", "+")) for value in values]
    except ValueError:
        raise Invalid(
            f"Invalid input for changed_since. Reason: '{values[0]}' must be in the following format: "
            "YYYY-MM-DDTHH:MM:SS[Z]."
        ) from None
    since = max(time if time.tzinfo else time.replace(tzinfo=UTC) for time in times)
    first = since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return lambda r: bool(r.updated_at >= first)


def _sortable(value: Any) -> tuple[bool, Any]:
    """Return what orders a value: nothing comes before something, and words as people order them."""
    return (value is not None, value.upper() if isinstance(value, str) else value)
