"""Lists against a plain model: the same filters, order and pages, found by looking at everything."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clouds import ADMIN, ALICE
from crossway.api import query
from crossway.control.caller import Caller
from crossway.control.cloud import Cloud
from crossway.control.collection import Collection
from crossway.control.group import GROUPS
from crossway.control.log import LOGS
from crossway.control.network import NETWORKS
from crossway.control.port import PORTS
from crossway.control.qos import POLICIES
from crossway.control.subnet import SUBNETS
from crossway.errors import Fault, Invalid, NotFound
from crossway.model.group import Group
from crossway.model.log import Log
from crossway.model.network import Network
from crossway.model.qos import Policy
from crossway.model.subnet import Subnet
from crossway.store.memory import MemoryStore

# Few values, so that many are the same.
IDS = [f"{digit}0000000-0000-4000-8000-000000000000" for digit in "0123456789"]
WORDS = st.sampled_from(["", "a", "b", "B", "default", "ä"])
PROJECTS = st.sampled_from(["alice", "bob"])
TIMES = st.sampled_from(["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"])
TAGS = st.lists(st.sampled_from("xyz"), unique=True).map(lambda tags: tuple(sorted(tags)))

groups = st.builds(
    Group,
    id=st.sampled_from(IDS),
    project_id=PROJECTS,
    name=WORDS,
    description=WORDS,
    stateful=st.booleans(),
    revision_number=st.integers(1, 3),
    tags=TAGS,
    updated_at=TIMES,
)
logs = st.builds(
    Log,
    id=st.sampled_from(IDS),
    project_id=PROJECTS,
    name=WORDS,
    resource_type=st.just("security_group"),
    resource_id=st.sampled_from([None, *IDS[:2]]),
    enabled=st.booleans(),
    updated_at=TIMES,
)


@pytest.fixture(autouse=True, params=[(50, 2000), (2, 2)], ids=["", "in small steps"], scope="module")
def steps(request: pytest.FixtureRequest) -> Iterator[None]:
    """Find all in the steps of every day, and in such that the few objects here are many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(query, "LOOKED", request.param[0])
        patch.setattr(query, "SORTED", request.param[1])
        yield


ORDERS = st.lists(st.tuples(st.sampled_from(["id", "name", "project_id"]), st.booleans()), max_size=3)


def cloud_of(rows: list[Any]) -> Cloud:
    cloud = Cloud(MemoryStore())
    for row in rows:
        cloud.of(type(row)).put(row.id, msgspec.json.encode(row), 1)
    return cloud


def ask(cloud: Cloud, collection: Collection, params: list[tuple[str, str]], caller: Caller = ADMIN) -> list[Any]:
    return query.run(cloud, collection, caller, query.read(collection, params, caller))


def ids(page: list[Any]) -> list[str]:
    return [found.id for found in page]


def params_of(order: list[tuple[str, bool]]) -> list[tuple[str, str]]:
    keys = [("sort_key", key) for key, _ in order]
    return keys + [("sort_dir", "desc" if descending else "asc") for _, descending in order]


def rank(value: Any) -> tuple[bool, Any]:
    return value is not None, value.upper() if isinstance(value, str) else value


def in_order(rows: list[Any], order: list[tuple[str, bool]]) -> list[str]:
    """Order by the first key that tells two apart, at last by id; nothing comes first, case does not matter."""
    rows = sorted(rows, key=lambda row: row.id)
    for key, descending in reversed(order):
        rows.sort(key=lambda row: rank(getattr(row, key)), reverse=descending)
    return [row.id for row in rows]


@settings(max_examples=150, deadline=None)
@given(rows=st.lists(groups, unique_by=lambda row: row.id), data=st.data())
def test_filters_find_what_looking_at_everything_finds(rows: list[Group], data: st.DataObject) -> None:
    cloud = cloud_of(rows)
    params: list[tuple[str, str]] = []
    wanted = rows
    if data.draw(st.booleans()):
        names = data.draw(st.lists(WORDS, min_size=1, max_size=2))
        params += [("name", name) for name in names]
        wanted = [row for row in wanted if row.name in names]
    if data.draw(st.booleans()):
        project = data.draw(PROJECTS)
        params.append((data.draw(st.sampled_from(["project_id", "tenant_id"])), project))
        wanted = [row for row in wanted if row.project_id == project]
    if data.draw(st.booleans()):
        stateful = data.draw(st.booleans())
        said = data.draw(st.sampled_from(["True", "true", "1", "yes"] if stateful else ["False", "false", "0", "no"]))
        params.append(("stateful", said))
        wanted = [row for row in wanted if row.stateful == stateful]
    if data.draw(st.booleans()):
        revision = data.draw(st.integers(1, 4))
        params.append(("revision_number", str(revision)))
        wanted = [row for row in wanted if row.revision_number == revision]
    if data.draw(st.booleans()):
        some = data.draw(st.lists(st.sampled_from(IDS), min_size=1, max_size=4))
        params += [("id", id) for id in some]
        wanted = [row for row in wanted if row.id in some]
    if data.draw(st.booleans()):
        since = data.draw(TIMES)
        params.append(("changed_since", since))
        wanted = [row for row in wanted if row.updated_at >= since]
    tags = set(data.draw(st.lists(st.sampled_from("xyz"), min_size=1, unique=True)))
    match how := data.draw(st.sampled_from(["", "tags", "tags-any", "not-tags", "not-tags-any"])):
        case "tags":
            wanted = [row for row in wanted if tags <= set(row.tags)]
        case "tags-any":
            wanted = [row for row in wanted if tags & set(row.tags)]
        case "not-tags":
            wanted = [row for row in wanted if not tags <= set(row.tags)]
        case "not-tags-any":
            wanted = [row for row in wanted if not tags & set(row.tags)]
    if how:
        params.append((how, ",".join(tags)))
    order = data.draw(ORDERS)
    found = ids(ask(cloud, GROUPS, params + params_of(order)))
    assert sorted(found) == sorted(row.id for row in wanted)
    if order:
        assert found == in_order(wanted, order)
    mine = ids(ask(cloud, GROUPS, params, ALICE))
    assert sorted(mine) == sorted(row.id for row in wanted if row.project_id == "alice")


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(logs, unique_by=lambda row: row.id),
    order=st.lists(st.tuples(st.sampled_from(["id", "name", "resource_id", "enabled"]), st.booleans()), max_size=3),
    limit=st.integers(1, 4),
    enabled=st.none() | st.booleans(),
)
def test_pages_lead_through_everything_forth_and_back(
    rows: list[Log], order: list[tuple[str, bool]], limit: int, enabled: bool | None
) -> None:
    cloud = cloud_of(rows)
    params = [("limit", str(limit)), *params_of(order)]
    if enabled is not None:
        params.append(("enabled", str(enabled)))
    whole = in_order([row for row in rows if enabled is None or row.enabled is enabled], order)

    forth: list[str] = []
    while page := ask(cloud, LOGS, [*params, *([("marker", forth[-1])] if forth else [])]):
        assert len(page) == min(limit, len(whole) - len(forth))
        forth += ids(page)
    assert forth == whole

    back: list[str] = []
    params.append(("page_reverse", "True"))
    while page := ask(cloud, LOGS, [*params, *([("marker", back[0])] if back else [])]):
        assert len(page) == min(limit, len(whole) - len(back))
        back = ids(page) + back
    assert back == whole


def test_a_page_follows_what_is_no_longer_asked_for() -> None:
    rows = [Group(id=id, project_id="alice", name="a" if id != IDS[1] else "b") for id in IDS[:4]]
    cloud = cloud_of(rows)
    asked = [("name", "a"), ("marker", IDS[1]), ("limit", "9")]
    assert ids(ask(cloud, GROUPS, asked)) == IDS[2:4]
    assert ids(ask(cloud, GROUPS, [*asked, ("sort_key", "description")])) == IDS[2:4]
    assert ids(ask(cloud, GROUPS, [*asked, ("sort_key", "name")])) == []
    assert ids(ask(cloud, GROUPS, [*asked, ("page_reverse", "True")])) == IDS[:1]


@pytest.mark.parametrize("order", [[], [("sort_key", "name")]], ids=["by id", "by name"])
def test_a_page_does_not_follow_what_the_caller_may_not_see(order: list[tuple[str, str]]) -> None:
    cloud = cloud_of([Group(id=IDS[0], project_id="bob"), Group(id=IDS[1], project_id="alice")])
    for caller, marker in ((ALICE, IDS[0]), (ALICE, IDS[5]), (ADMIN, "")):
        params = [("limit", "1"), ("marker", marker), *order]
        if marker:
            with pytest.raises(NotFound, match=marker):
                ask(cloud, GROUPS, params, caller)
        else:
            assert ids(ask(cloud, GROUPS, params, caller)) == IDS[:1]


@pytest.mark.parametrize("order", [[], [("sort_key", "name")]], ids=["by id", "by name"])
def test_after_a_policy_that_the_caller_may_not_see_comes_the_first_page(order: list[tuple[str, str]]) -> None:
    cloud = cloud_of([Policy(id=IDS[i], project_id=p) for i, p in enumerate(["alice", "bob", "alice"])])
    asked = [("limit", "1"), ("marker", IDS[1]), *order]
    assert ids(ask(cloud, POLICIES, asked, ALICE)) == IDS[:1]
    assert ids(ask(cloud, POLICIES, asked, ADMIN)) == IDS[2:3]
    with pytest.raises(NotFound):
        ask(cloud, POLICIES, [("limit", "1"), ("marker", IDS[5]), *order], ALICE)


@pytest.mark.parametrize(
    ("collection", "params", "said"),
    [
        (GROUPS, "colour=red", r"\['colour'\] is invalid attribute for filtering"),
        (GROUPS, "stateful=maybe", "'maybe' cannot be converted to boolean"),
        (GROUPS, "revision_number=x", "revision_number.*'x' is not an integer"),
        (GROUPS, "changed_since=yesterday", "YYYY-MM-DDTHH:MM:SS"),
        (GROUPS, "limit=-1", "Limit must be an integer 0 or greater and not '-1'"),
        (GROUPS, "limit=x", "Limit must be an integer 0 or greater and not 'x'"),
        (GROUPS, "sort_key=colour", r"\['colour'\] is invalid attribute for sort_key"),
        (GROUPS, "sort_key=name&sort_dir=up", "sort_dir 'up' should be asc or desc"),
        (GROUPS, "sort_key=name&sort_dir=asc&sort_dir=asc", r"sort_keys \(1\) and sort_dirs \(2\)"),
        (GROUPS, "sort_dir=asc", r"sort_keys \(0\) and sort_dirs \(1\)"),
        (GROUPS, "sort_key=tags", "invalid attribute for sort_key"),
        (PORTS, "sort_key=fixed_ips", "invalid attribute for sort_key"),
        (PORTS, "sort_key=binding:profile", "invalid attribute for sort_key"),
    ],
)
def test_what_cannot_be_asked_is_said(collection: Collection, params: str, said: str) -> None:
    pairs = [(name, value) for name, _, value in (param.partition("=") for param in params.split("&"))]
    with pytest.raises(Invalid, match=said):
        ask(cloud_of([]), collection, pairs)


def test_by_what_one_may_not_see_one_finds_only_what_is_ones_own() -> None:
    kinds = {"type": "vlan", "physnet": "dc", "shared": True}
    cloud = cloud_of([Network(id=IDS[i], project_id=p, number=i, **kinds) for i, p in enumerate(["alice", "bob"])])
    asked = [("provider:physical_network", "dc"), ("provider:network_type", "vlan")]
    assert ids(ask(cloud, NETWORKS, asked, ALICE)) == IDS[:1]
    assert ids(ask(cloud, NETWORKS, asked, ADMIN)) == IDS[:2]
    with pytest.raises(Fault) as refused:
        ask(cloud, NETWORKS, [("sort_key", "provider:segmentation_id")], ALICE)
    assert refused.value.status == 400


def test_subnets_are_found_by_whether_their_network_is_shared() -> None:
    shared = {"alice": False, "bob": True}
    networks = [Network(id=IDS[i], project_id=p, number=i, shared=s) for i, (p, s) in enumerate(shared.items())]
    subnets = [
        Subnet(
            id=IDS[i + 5],
            project_id="bob",
            network_id=network.id,
            ip_version=4,
            cidr="10.0.0.0/24",
            gateway_ip=None,
            allocation_pools=(),
        )
        for i, network in enumerate(networks)
    ]
    cloud = cloud_of([*networks, *subnets])
    for caller in (ADMIN, ALICE):
        assert ids(ask(cloud, SUBNETS, [("shared", "True")], caller)) == [IDS[6]]
        assert ids(ask(cloud, SUBNETS, [("shared", "False")], caller)) == [IDS[5]]
    with pytest.raises(Invalid, match=r"shared.*cannot be converted to boolean"):
        ask(cloud, SUBNETS, [("shared", "perhaps")])


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(groups, unique_by=lambda row: row.id), key=st.sampled_from(sorted(GROUPS.kind.attributes)))
def test_every_sort_key_sorts_or_is_refused(rows: list[Group], key: str) -> None:
    cloud = cloud_of(rows)
    if GROUPS.kind.attributes[key].sort:
        assert ids(ask(cloud, GROUPS, [("sort_key", key)])) == in_order(rows, [(key, False)])
    else:
        with pytest.raises(Invalid):
            ask(cloud, GROUPS, [("sort_key", key)])


MANY = [Group(id=f"{n:08x}-0000-4000-8000-000000000000", project_id="alice", name=f"n{-n % 7}") for n in range(300)]


@pytest.mark.parametrize(
    "params",
    [
        [],
        [("sort_key", "name"), ("sort_dir", "desc")],
        [("sort_key", "name"), ("limit", "100")],
        [("limit", "100"), ("marker", MANY[50].id)],
        [("limit", "100"), ("page_reverse", "True")],
        [("sort_key", "name"), ("limit", "40"), ("marker", MANY[50].id)],
        [("description", "nobody")],
        [("name", "n3"), ("limit", "200")],
    ],
    ids=str,
)
def test_others_have_their_turn_while_many_are_looked_at(
    params: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud, now, turns = cloud_of(MANY), 0.0, 0
    wanted = ids(ask(cloud, GROUPS, params))

    def clock() -> float:
        nonlocal now
        now += 1
        return now

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async def run() -> list[Any]:
        task = asyncio.create_task(others())
        found = await query.run_in_portions(cloud, GROUPS, ADMIN, query.read(GROUPS, params, ADMIN))
        task.cancel()
        return found

    monkeypatch.setattr("crossway.portions.time.perf_counter", clock)
    assert ids(asyncio.run(run())) == wanted
    if params:
        # Those that are looked at, or put in order, are so few in each step.
        assert turns >= min(100 // query.LOOKED, 300 // query.SORTED) or turns > 1


def test_a_page_goes_on_where_it_was_though_the_index_has_changed() -> None:
    cloud = cloud_of(MANY)
    table = cloud.of(Group)
    asked = query.read(GROUPS, [("limit", "250"), ("sort_key", "id")], ADMIN)
    steps = query._steps(cloud, GROUPS, ADMIN, asked, "")
    next(steps)
    for gone in MANY[::3]:
        table.delete(gone.id)
    for late in MANY[::6]:
        table.put(late.id, msgspec.json.encode(late), 2)
    found: list[Any] = []
    while True:
        try:
            next(steps)
        except StopIteration as done:
            found = done.value
            break
    first = ids(MANY[: query.LOOKED])
    assert ids(found) == first + [id for id in sorted(table.rows) if id > first[-1]][: 250 - len(first)]


def test_what_is_said_again_and_again_is_done_once() -> None:
    params = [("sort_key", "name"), ("sort_key", "id")] * 1000 + [("fields", "id"), ("name", "a")] * 1000
    asked = query.read(GROUPS, params, ADMIN)
    assert asked.order == [("name", False), ("id", False)]
    assert asked.fields == ["id"]
    assert asked.filters == {"name": ["a"]}


def test_what_is_gone_before_its_turn_is_not_in_a_page() -> None:
    """The ids that a caller may see are put together once, from several sets of them."""
    some = [
        Network(id=one.id, project_id="alice" if n % 3 else "bob", shared=n == 3, number=n)
        for n, one in enumerate(MANY)
    ]
    cloud = cloud_of(some)
    asked = query.read(NETWORKS, [("limit", "150")], ALICE)
    steps = query._steps(cloud, NETWORKS, ALICE, asked, "")
    next(steps)
    for gone in some[100:]:
        cloud.networks.delete(gone.id)
    assert ids(finish(steps)) == [one.id for one in some[:100] if one.project_id == "alice" or one.shared]


def test_of_what_comes_while_a_page_is_looked_for_nothing_is_in_it() -> None:
    cloud = cloud_of(MANY[::2])
    steps = query._steps(cloud, GROUPS, ADMIN, query.read(GROUPS, [("limit", "300")], ADMIN), "")
    next(steps)
    cloud.coming = set()
    for late in MANY[1::2]:
        cloud.of(Group).put(late.id, msgspec.json.encode(late), 2)
        cloud.coming.add(late.id)
    next(steps)
    cloud.coming = None
    assert ids(finish(steps)) == ids(MANY[::2])


def finish(steps: query.Steps) -> list[Any]:
    while True:
        try:
            next(steps)
        except StopIteration as done:
            found: list[Any] = done.value
            return found
