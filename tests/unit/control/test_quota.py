"""How many of each resource a project may have."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from clouds import ADMIN, ALICE, BOB, World
from crossway.control import network, port
from crossway.control.collection import Collection
from crossway.control.decision import decide
from crossway.control.quota import QUOTAS, defaults, details
from crossway.errors import Fault, Invalid, NotFound, OverQuota
from crossway.model.network import Network
from crossway.model.quota import LIMITED, Quota, of_project
from crossway.settings import QUOTAS as SETTINGS
from crossway.store.memory import MemoryStore


@pytest.fixture
def limited() -> Iterator[World]:
    """A world whose projects may have two of each thing, but any number of rules."""
    with asyncio.Runner() as runner:
        limits = {**dict.fromkeys(LIMITED, 2), "security_group_rule": -1, "policy_row": -1}
        made = World(runner, MemoryStore(), limits)
        yield made
        made.stop()


def quota(world: World, project: str, **limits: int) -> Quota:
    changed: Quota = world.change(of_project(project), **limits)
    return changed


def used(world: World, name: str, project: str = "alice") -> dict[str, int]:
    told: dict[str, int] = world.do(lambda d: details(d, ADMIN, project, None))["quota"][name]
    return told


def test_a_project_has_no_more_than_it_may(limited: World) -> None:
    for _ in range(2):
        limited.network(ALICE)
    with pytest.raises(OverQuota, match=r"Quota exceeded for resources: \['network'\]\."):
        limited.network(ALICE)
    limited.network(BOB)
    assert used(limited, "network") == {"limit": 2, "used": 2, "reserved": 0}


def test_what_is_deleted_makes_room(limited: World) -> None:
    networks = [limited.network(ALICE) for _ in range(2)]
    limited.delete(networks[0], ALICE)
    limited.network(ALICE)


def test_an_admin_is_held_to_the_quota_of_the_project_it_makes_things_for(limited: World) -> None:
    for _ in range(2):
        limited.network(ADMIN, project_id="alice")
    with pytest.raises(OverQuota):
        limited.network(ADMIN, project_id="alice")


def test_a_quota_is_raised_lowered_and_given_back(limited: World) -> None:
    assert quota(limited, "alice", network=3).network == 3
    for _ in range(3):
        limited.network(ALICE)
    assert used(limited, "network")["limit"] == 3
    with pytest.raises(Invalid, match="must be greater than or equal to already used 3"):
        quota(limited, "alice", network=1)
    quota(limited, "alice", network=1, force=True)
    assert used(limited, "network") == {"limit": 1, "used": 3, "reserved": 0}
    quota(limited, "alice", network=-1, port=7)
    limited.network(ALICE)
    limited.delete(of_project("alice"))
    assert used(limited, "network")["limit"] == 2
    with pytest.raises(NotFound, match="alice") as refused:
        limited.delete(of_project("alice"))
    assert refused.value.type == "TenantQuotaNotFound"


@pytest.mark.parametrize("limit", [-2, "many", 1 << 31, None, "1.5"], ids=str)
def test_a_limit_is_a_number(limited: World, limit: object) -> None:
    with pytest.raises(Invalid, match="network"):
        limited.change(of_project("alice"), network=limit)


def test_many_at_once_never_overrun_and_none_is_refused_in_vain(limited: World) -> None:
    quota(limited, "alice", network=10)

    async def all_at_once() -> list[object]:
        given = Network.kind.given({})
        makes = (decide(limited.cloud, lambda d: network.create(d, ALICE, dict(given))) for _ in range(40))
        return list(await asyncio.gather(*makes, return_exceptions=True))

    answers = limited.runner.run(all_at_once())
    assert sum(isinstance(answer, Network) for answer in answers) == 10
    assert sum(isinstance(answer, OverQuota) for answer in answers) == 30
    assert used(limited, "network") == {"limit": 10, "used": 10, "reserved": 0}


def test_one_bulk_is_all_or_nothing(limited: World) -> None:
    on = limited.network(ALICE)
    given = port.PORTS.kind.given({"network_id": on.id})

    def three(decision: object) -> None:
        for _ in range(3):
            port.create(decision, ALICE, dict(given))  # type: ignore[arg-type]

    with pytest.raises(OverQuota):
        limited.do(three)
    assert used(limited, "port") == {"limit": 2, "used": 0, "reserved": 0}
    limited.port(on, ALICE)


def test_what_was_refused_counts_no_more(limited: World) -> None:
    on = limited.network(ALICE)
    for _ in range(3):
        with pytest.raises(Fault):
            limited.port(on, ALICE, security_groups=["00000000-0000-4000-8000-000000000000"])
    for _ in range(2):
        limited.port(on, ALICE)


def test_a_project_gets_its_default_group_whatever_its_quota(limited: World) -> None:
    quota(limited, "alice", security_group=0, security_group_rule=0)
    on = limited.network(ALICE)
    limited.port(on, ALICE)
    assert used(limited, "security_group")["used"] == 1
    assert used(limited, "security_group_rule")["used"] == 4
    with pytest.raises(OverQuota, match="security_group"):
        limited.group(ALICE, name="g")


def test_the_first_rules_of_a_group_count_but_for_those_of_the_default_one(limited: World) -> None:
    quota(limited, "alice", security_group_rule=0)
    limited.port(limited.network(ALICE), ALICE)
    (default,) = limited.cloud.groups.by("project_id", "alice")
    assert len(limited.cloud.rules.by("security_group_id", default.id)) == 4
    with pytest.raises(OverQuota, match="security_group_rule"):
        limited.group(ALICE, name="g")
    quota(limited, "alice", security_group_rule=6)
    made = limited.group(ALICE, name="g")
    with pytest.raises(OverQuota, match="security_group_rule"):
        limited.rule(made, ALICE)


def test_without_settings_only_those_who_say_who_they_are_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(defaults(unlimited=True).values()) == {-1}
    assert defaults(unlimited=False) == {
        "network": 100,
        "subnet": 100,
        "subnetpool": -1,
        "port": 500,
        "router": 10,
        "floatingip": 50,
        "security_group": 10,
        "security_group_rule": 100,
        "rbac_policy": 10,
        "address_group": -1,
        "address_scope": -1,
        "trunk": -1,
        "router_route": 30,
        "policy_row": 65536,
    }
    monkeypatch.setenv("CROSSWAY_QUOTA_PORT", "7")
    assert defaults(unlimited=True)["port"] == defaults(unlimited=False)["port"] == 7
    monkeypatch.setenv("CROSSWAY_QUOTA_PORT", "some")
    with pytest.raises(Invalid, match="CROSSWAY_QUOTA_PORT is 'some'"):
        defaults(unlimited=True)


def test_each_limit_has_a_setting() -> None:
    assert {setting.name for setting in SETTINGS} == {f"quota_{name}" for name in LIMITED}


def test_every_limit_is_declared() -> None:
    collection: Collection = QUOTAS
    assert set(LIMITED) <= collection.kind.attributes.keys()
