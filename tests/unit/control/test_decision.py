"""Those who decide at the same time do not get in each other's way, or find out."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from clouds import ADMIN, World
from crossway.control import group, network, port, router, subnet
from crossway.control.decision import Decision, decide
from crossway.errors import Conflict, Fault, NotFound
from crossway.model.network import NETWORK
from crossway.model.port import PORT
from crossway.model.subnet import SUBNET
from crossway.store import Store
from crossway.store.memory import MemoryStore
from crossway.store.sqlite import SqliteStore


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "db")


def at_once(world: World, *verbs: Any) -> list[Any]:
    """Run verbs side by side; return what each returned or raised."""

    async def run() -> list[Any]:
        return await asyncio.gather(*(decide(world.cloud, verb) for verb in verbs), return_exceptions=True)

    return world.runner.run(run())


def creates(of: Any, **body: Any) -> Any:
    return lambda d: port.create(d, ADMIN, PORT.given({"network_id": of.id, **body}))


def test_ports_made_at_once_have_addresses_of_their_own(world: World) -> None:
    net = world.network()
    world.subnet(net, "10.0.0.0/24")
    world.subnet(net, "fd00::/64")
    made = at_once(world, *[creates(net)] * 100)
    addresses = Counter(fixed.ip_address for one in made for fixed in one.fixed_ips)
    assert len(addresses) == 200
    assert set(addresses.values()) == {1}
    assert len({one.mac_address for one in made}) == 100
    assert {one.identity for one in made} == {1}, "one default group, one identity"
    assert len(world.cloud.groups) == 1


def test_as_many_ports_as_there_are_addresses(world: World) -> None:
    net = world.network()
    world.subnet(net, "10.0.0.0/28")
    made = at_once(world, *[creates(net)] * 20)
    assert sum(isinstance(one, Fault) for one in made) == 20 - 13
    assert {one.type for one in made if isinstance(one, Fault)} == {"IpAddressGenerationFailure"}
    for one in made[:3]:
        world.do(lambda d, one=one: port.delete(d, ADMIN, one.id))
    again = at_once(world, *[creates(net)] * 4)
    assert sorted(isinstance(one, Fault) for one in again) == [False, False, False, True]


def test_one_of_many_gets_the_address_that_all_want(world: World) -> None:
    net = world.network()
    world.subnet(net, "10.0.0.0/24")
    made = at_once(world, *[creates(net, fixed_ips=[{"ip_address": "10.0.0.9"}])] * 10)
    assert sum(not isinstance(one, Fault) for one in made) == 1
    assert {one.type for one in made if isinstance(one, Fault)} == {"IpAddressAlreadyAllocated"}


def test_a_network_is_not_deleted_under_a_port_that_is_being_made(world: World) -> None:
    for _ in range(10):
        net = world.network()
        world.subnet(net, "10.0.0.0/24")
        made, deleted = at_once(world, creates(net), lambda d, net=net: network.delete(d, ADMIN, net.id))
        assert isinstance(made, NotFound) != isinstance(deleted, Conflict)
        assert (net.id in world.cloud.networks.rows) == (not isinstance(made, NotFound))


def test_overlapping_subnets_made_at_once_are_refused(world: World) -> None:
    net = world.network()

    def makes(cidr: str) -> Any:
        body = {"network_id": net.id, "ip_version": 4, "cidr": cidr}
        return lambda d: subnet.create(d, ADMIN, SUBNET.given(body))

    made = at_once(world, *[makes(cidr) for cidr in ("10.0.0.0/24", "10.0.0.0/25", "10.0.0.128/25", "10.0.1.0/24")])
    prefixes = [one.cidr for one in made if not isinstance(one, Fault)]
    assert "10.0.1.0/24" in prefixes
    assert prefixes[:-1] in (["10.0.0.0/24"], ["10.0.0.0/25", "10.0.0.128/25"])


def test_networks_and_routers_made_at_once_have_numbers_of_their_own(world: World) -> None:
    made = at_once(world, *[lambda d: network.create(d, ADMIN, NETWORK.given({}))] * 50)
    assert sorted(one.number for one in made) == list(range(1, 51))


def test_interfaces_added_at_once_do_not_overlap(world: World) -> None:
    router_ = world.router()
    subnets = [world.subnet(world.network(), "10.0.0.0/24") for _ in range(5)]
    made = at_once(
        world, *[lambda d, s=s: router.add_interface(d, ADMIN, router_.id, {"subnet_id": s.id}) for s in subnets]
    )
    assert sum(not isinstance(one, Fault) for one in made) == 1


def test_a_group_is_not_deleted_under_a_port_that_is_being_made(world: World) -> None:
    net = world.network()
    for _ in range(10):
        own = world.group(name="g")
        made, deleted = at_once(
            world, creates(net, security_groups=[own.id]), lambda d, own=own: group.delete(d, ADMIN, own.id)
        )
        assert isinstance(made, NotFound) != isinstance(deleted, Conflict)


def test_updates_at_once_are_all_counted(world: World) -> None:
    net = world.network()
    at_once(
        world,
        *[lambda d, i=i: network.update(d, ADMIN, net.id, {"name": f"n{i}"}) for i in range(30)],
    )
    assert world.again(net).revision_number == 31


def test_bulk_is_all_or_nothing(world: World) -> None:
    net = world.network()
    world.subnet(net, "10.0.0.0/29")
    before = world.stored()

    def too_many(decision: Decision) -> None:
        for _ in range(6):
            port.create(decision, ADMIN, PORT.given({"network_id": net.id}))

    with pytest.raises(Conflict):
        world.do(too_many)
    assert world.stored() == before
    assert len(at_once(world, *[creates(net)] * 5)) == 5
    assert len(world.cloud.ports) == 5, "what was lent is given back"


def test_nothing_is_left_when_all_is_deleted(world: World) -> None:
    net = world.network()
    world.subnet(net, "10.0.0.0/24")
    world.subnet(net, "fd00::/64", ipv6_ra_mode="slaac", ipv6_address_mode="slaac")
    own = world.group(name="g")
    world.rule(own, remote_group_id=own.id)
    way = world.router()
    before = {key for key in world.stored() if not key.startswith("counter/")}
    for _ in range(3):
        made = at_once(world, *[creates(net, security_groups=[own.id])] * 10)
        inner = world.cloud.subnets.by("network_id", net.id)[0]
        world.join(way, subnet_id=inner.id)
        world.part(way, subnet_id=inner.id)
        at_once(world, *[lambda d, one=one: port.delete(d, ADMIN, one.id) for one in made])
        world.settle()
    after = {key for key in world.stored() if not key.startswith("counter/")}
    assert {key for key in after - before if not key.startswith("router/")} == set()
    assert not world.cloud.pending


def test_a_freed_identity_rests_before_it_is_used_again(world: World) -> None:
    net = world.network()
    numbers = []
    for i in range(5):
        own = world.group(name=f"g{i}")
        made = world.port(net, security_groups=[own.id])
        numbers.append(made.identity)
        world.delete(made)
        world.settle()
        assert len(world.cloud.identities) == 0
    assert numbers == [1, 2, 3, 4, 5]


def test_ports_with_the_same_set_of_groups_share_an_identity(world: World) -> None:
    net = world.network()
    a, b = world.group(name="a").id, world.group(name="b").id
    first, second = world.port(net, security_groups=[a, b]), world.port(net, security_groups=[b, a])
    third, none = world.port(net, security_groups=[a]), world.port(net, security_groups=[])
    assert first.identity == second.identity
    assert len({first.identity, third.identity, none.identity}) == 3
    assert none.identity == 0
    world.delete(first)
    world.settle()
    assert world.cloud.identities.get(str(second.identity)), "the other port has it still"


def test_all_is_there_after_a_restart(world: World, store: Store) -> None:
    net = world.network()
    world.subnet(net, "10.0.0.0/28")
    made = [world.port(net) for _ in range(5)]
    world.delete(made[1])
    other = World(world.runner, store)
    try:
        assert other.cloud.revision == world.cloud.revision
        assert other.cloud.ports.rows == world.cloud.ports.rows
        assert other.port(net).fixed_ips[0].ip_address not in {f.ip_address for p in made[2:] for f in p.fixed_ips}
        assert other.network().number == 2
    finally:
        other.stop()


def test_who_waits_for_others_keeps_nobody_else_waiting(world: World) -> None:
    """Many who change one thing take turns; one who is in others' way elsewhere decides meanwhile."""
    busy, other = world.network(), world.network()

    def rename(id: str, name: str) -> Any:
        return lambda d: network.update(d, ADMIN, id, {"name": name})

    ended: list[str] = []

    async def one(id: str, name: str) -> None:
        await decide(world.cloud, rename(id, name))
        ended.append(name)

    async def run() -> None:
        many = [one(busy.id, f"busy{n}") for n in range(60)]
        await asyncio.gather(*many, *(one(other.id, f"other{n}") for n in range(2)))

    world.runner.run(run())
    assert max(ended.index(f"other{n}") for n in range(2)) < 20
    assert not world.cloud.turns
