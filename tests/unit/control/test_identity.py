"""A number of a set of groups, or of a network, goes to nobody else while a host may still hold rows of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from clouds import ALICE, BOB, World
from crossway.control import claims, host
from crossway.control.decision import decide
from crossway.control.port import create
from crossway.errors import Conflict, OverQuota
from crossway.model.network import Network
from crossway.model.port import PORT, Port
from crossway.store.memory import MemoryStore


def reports(world: World, *hosts: str) -> None:
    """Have hosts say that they have applied all, and the server look at what that frees."""
    for name in hosts:
        world.status.report(name, world.cloud.revision, {})
    world.status.tick()
    world.settle()


def identity_of(world: World, net: Network, *groups: str) -> int:
    """Make a port with these groups and delete it; return its identity."""
    made = world.port(net, security_groups=groups)
    world.delete(made)
    world.settle()
    return made.identity


def test_a_number_goes_to_no_other_set_before_every_host_has_applied_that_it_is_free(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crossway.control.identity.IDENTITY_MAX", 3)
    net = world.network()
    for name in ("h1", "away"):
        world.host(name)
    reports(world, "h1", "away")
    a, b, c, d = (world.group(name=name).id for name in "abcd")
    assert [identity_of(world, net, a), identity_of(world, net, b), identity_of(world, net, c)] == [1, 2, 3]
    # The set itself has its own number again, whoever is away.
    reports(world, "h1")
    assert identity_of(world, net, b) == 2
    with pytest.raises(Conflict, match="all numbers"):
        identity_of(world, net, d)
    # A group that goes takes its sets with it, and not their numbers.
    world.delete(world.cloud.groups.get(b))
    reports(world, "h1")
    assert list(world.cloud.resting) == ["identity/2"]
    with pytest.raises(Conflict, match="all numbers"):
        identity_of(world, net, d)
    world.status.report("away", world.cloud.revision - 2, {})
    assert len(world.cloud.identities) == 2
    reports(world, "away")
    assert (len(world.cloud.identities), world.cloud.resting, world.cloud.resting_of) == (0, {}, {})
    assert identity_of(world, net, d) == 1
    assert not [key for key in world.stored() if key.startswith("claim/identity/") and not key.endswith("/1")]


def test_a_host_that_is_removed_is_not_waited_for(world: World) -> None:
    net, own = world.network(), world.group(name="g")
    world.host("h1")
    world.host("away")
    identity_of(world, net, own.id)
    world.delete(own)
    reports(world, "h1")
    assert list(world.cloud.resting) == ["identity/1"]
    world.do(lambda d: host.forget(d, "away"))
    reports(world, "h1")
    assert world.cloud.resting == {}


def test_a_server_that_begins_anew_waits_for_all_hosts_again(world: World, store: MemoryStore) -> None:
    net, own, other = world.network(), world.group(name="g"), world.group(name="h")
    world.host("h1")
    identity_of(world, net, own.id)
    world.delete(own)
    unused = identity_of(world, net, other.id)
    again = World(world.runner, store)
    again.settle()
    again.status.tick()
    again.settle()
    assert list(again.cloud.resting) == ["identity/1"]
    assert list(again.cloud.identities.rows) == [str(unused)]
    assert list(claims.faults(again.cloud, again.stored())) == []
    reports(again, "h1")
    assert (again.cloud.resting, len(again.cloud.identities)) == ({}, 0)
    assert list(claims.faults(again.cloud, again.stored())) == []
    again.stop()


def test_a_project_uses_up_no_more_than_its_share_of_the_numbers(world: World) -> None:
    net, hers = world.network(ALICE), world.network(BOB)
    world.cloud.identities_max = 4
    world.host("h1")
    a, b, c = (world.group(ALICE, name=name).id for name in "abc")
    held = world.port(net, ALICE, security_groups=[a])
    for groups in ([a, b], [a, c], [b]):
        world.delete(world.port(net, ALICE, security_groups=groups), ALICE)
    with pytest.raises(OverQuota, match="4 distinct sets of security groups"):
        world.port(net, ALICE, security_groups=[b, c])
    with pytest.raises(OverQuota, match="security_group_set"):
        world.change(held, ALICE, security_groups=[c])
    # What it has already it may have again; others are not concerned.
    world.port(net, ALICE, security_groups=[a, b])
    world.port(hers, BOB)
    # That hosts have forgotten the others is waited for, also when the group has gone.
    world.delete(world.cloud.groups.get(c), ALICE)
    world.change(held, ALICE, security_groups=[])
    another = world.group(ALICE, name="d").id
    with pytest.raises(OverQuota, match="1 of deleted groups"):
        world.port(net, ALICE, security_groups=[a, b, another])
    reports(world, "h1")
    world.change(held, ALICE, security_groups=[world.group(ALICE, name="e").id])


@pytest.mark.parametrize("kind", ["vxlan", "vlan"])
def test_the_number_of_a_network_rests_while_a_host_is_away(world: World, kind: str) -> None:
    said = {"provider__network_type": kind, "provider__segmentation_id": 7}
    if kind == "vlan":
        said["provider__physical_network"] = "phys"
    world.host("h1")
    world.host("away")
    reports(world, "h1", "away")
    first = world.network(**said)
    world.delete(first)
    # Living hosts hear of it first, so who names the number gets it.
    again = world.network(**said)
    assert again.segment == 7
    world.delete(again)
    for _ in range(20):
        world.now += 1
        reports(world, "h1")
    with pytest.raises(Conflict, match=r"hosts that are away may still use it .*: away"):
        world.network(**said)
    reports(world, "h1", "away")
    assert world.cloud.resting == {}
    assert world.network(**said).segment == 7


def test_a_project_has_no_more_numbers_however_many_it_asks_for_at_once(world: World) -> None:
    world.cloud.identities_max = 4
    net = world.network(shared=True)
    groups = [world.group(ALICE).id for _ in range(10)]
    given = [PORT.given({"network_id": net.id, "security_groups": [group]}) for group in groups]

    async def all_at_once() -> list[Any]:
        return await asyncio.gather(
            *(decide(world.cloud, lambda d, one=one: create(d, ALICE, one)) for one in given),  # type: ignore[misc]
            return_exceptions=True,
        )

    answers = world.runner.run(all_at_once())
    assert sum(isinstance(answer, OverQuota) for answer in answers) == 6
    assert len(world.cloud.identities) == 4
    # Others are not concerned, nor is a set that has its number.
    world.port(net, BOB)
    world.port(net, ALICE, security_groups=next(a.security_groups for a in answers if isinstance(a, Port)))
