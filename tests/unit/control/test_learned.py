"""Addresses that ports have been seen to have, as their hosts say."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from clouds import ADMIN, ALICE, Listener, World
from crossway.control import learned
from crossway.control.decision import decide
from crossway.control.port import delete, update
from crossway.errors import Conflict, Fault, NotFound
from crossway.model.host import LEARNED_MAX
from crossway.model.port import Port

VIP = "10.0.0.77"


@pytest.fixture
def network(world: World) -> Any:
    world.host("h1")
    world.host("h2", "192.0.2.2")
    made = world.network(ALICE)
    world.subnet(made, cidr="10.0.0.0/24")
    return made


def holder(world: World, network: Any, host: str, *pairs: str, **attrs: Any) -> Port:
    attrs["allowed_address_pairs"] = [{"ip_address": ip} for ip in pairs]
    return world.port(network, binding__host_id=host, project_id="alice", **attrs)


def learn(world: World, host: str, port: Port, ip: str = VIP, mac: str | None = None) -> None:
    world.do(lambda d: learned.learn(d, host, port.id, ip, mac or port.mac_address))


def told(listener: Listener) -> dict[str, str]:
    """Return the port that has each address, as a host is told."""
    return {one["ip"]: one["port"] for (kind, _), one in listener.objects.items() if kind == "learned"}


def test_who_was_seen_last_has_it(world: World, network: Any) -> None:
    one, two = (holder(world, network, host, VIP) for host in ("h1", "h2"))
    listeners = [Listener(world, host) for host in ("h1", "h2")]
    for host, port in (("h1", one), ("h2", two), ("h1", one)):
        learn(world, host, port)
        assert [told(listener) for listener in listeners] == [{VIP: port.id}] * 2
    # Who says that it has it no more may be late.
    world.do(lambda d: learned.forget(d, "h2", two.id, VIP))
    assert told(listeners[0]) == {VIP: one.id}
    assert told(Listener(world, "h2")) == {VIP: one.id}, "who comes later is told, too"
    world.do(lambda d: learned.forget(d, "h1", one.id, VIP))
    assert [told(listener) for listener in listeners] == [{}, {}]
    assert not world.cloud.learned.rows


def test_what_is_known_costs_nothing(world: World, network: Any) -> None:
    one = holder(world, network, "h1", VIP)
    learn(world, "h1", one)
    before = world.cloud.revision
    learn(world, "h1", one)
    assert world.cloud.revision == before


def test_what_is_refused(world: World, network: Any) -> None:
    one = holder(world, network, "h1", "10.0.0.64/26", "192.0.2.9")
    for host, ip, mac, kind in (
        ("h2", VIP, None, Conflict),  # of another host
        ("h1", "10.0.0.5", None, Conflict),  # no pair's
        ("h1", VIP, "fa:16:3e:00:00:99", Conflict),  # nobody's MAC
        ("h1", "192.0.2.9", None, Conflict),  # in no subnet
    ):
        with pytest.raises(kind):
            learn(world, host, one, ip, mac)
    with pytest.raises(NotFound):
        world.do(lambda d: learned.learn(d, "h1", "11111111-1111-4111-8111-111111111111", VIP, one.mac_address))
    assert not world.cloud.learned.rows


def test_a_port_has_its_share(world: World, network: Any) -> None:
    one, two = holder(world, network, "h1", "10.0.0.0/24"), holder(world, network, "h2", "10.0.0.0/24")
    for n in range(LEARNED_MAX):
        learn(world, "h1", one, f"10.0.0.{100 + n}")
    with pytest.raises(Fault, match="64 addresses"):
        learn(world, "h1", one, "10.0.0.99")
    learn(world, "h1", one, "10.0.0.100")
    learn(world, "h2", two, "10.0.0.99")
    # Nor by taking what another has.
    with pytest.raises(Fault, match="64 addresses"):
        learn(world, "h1", one, "10.0.0.99")


def test_it_goes_with_what_its_port_may_have(world: World, network: Any) -> None:
    one = holder(world, network, "h1", VIP, "10.0.0.78")
    listener = Listener(world, "h1")
    for ip in (VIP, "10.0.0.78"):
        learn(world, "h1", one, ip)
    one = world.change(one, allowed_address_pairs=[{"ip_address": VIP}])
    assert told(listener) == {VIP: one.id}
    one = world.change(one, allowed_address_pairs=[])
    assert told(listener) == {}
    one = world.change(one, allowed_address_pairs=[{"ip_address": VIP}])
    learn(world, "h1", one)
    world.delete(one)
    assert told(listener) == {}
    assert not [key for key in world.stored() if key.startswith("learned/")]


def at_once(world: World, *verbs: Any) -> list[Any]:
    async def run() -> list[Any]:
        return await asyncio.gather(*(decide(world.cloud, verb) for verb in verbs), return_exceptions=True)

    return world.runner.run(run())


def test_as_many_as_come_at_once_are_no_more_than_its_share(world: World, network: Any) -> None:
    one, two = holder(world, network, "h1", "10.0.0.0/24"), holder(world, network, "h2", "10.0.0.0/24")
    for n in range(LEARNED_MAX - 3):
        learn(world, "h1", one, f"10.0.0.{100 + n}")
    learn(world, "h2", two, "10.0.0.50")

    def verb(n: int) -> Any:
        return lambda d: learned.learn(d, "h1", one.id, f"10.0.0.{n}", one.mac_address)

    # Some are nobody's yet, one is another's.
    answers = at_once(world, *(verb(50 + n) for n in range(8)))
    assert sum(isinstance(answer, Conflict) for answer in answers) == 5
    assert len(world.cloud.learned.by("port", one.id)) == LEARNED_MAX


@pytest.mark.parametrize("way", [1, -1], ids=["seen first", "lost first"])
@pytest.mark.parametrize("how", ["pairs", "gone"])
def test_what_a_port_loses_at_the_same_moment_it_does_not_have(world: World, network: Any, how: str, way: int) -> None:
    one = holder(world, network, "h1", VIP)
    lose = {
        "pairs": lambda d: update(d, ADMIN, one.id, {"allowed_address_pairs": ()}),
        "gone": lambda d: delete(d, ADMIN, one.id),
    }
    verbs = [lambda d: learned.learn(d, "h1", one.id, VIP, one.mac_address), lose[how]]
    at_once(world, *verbs[::way])
    world.settle()
    assert not world.cloud.learned.rows
