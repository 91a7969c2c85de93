"""A port is ACTIVE when its own host has it up and every living host that can reach it has applied it."""

from __future__ import annotations

from typing import Any

import pytest

from clouds import World
from crossway.control.binding import BINDINGS
from crossway.control.status import ALIVE_SECONDS, MARK_SECONDS, STILL_SECONDS, hosts
from crossway.errors import NotFound
from crossway.model.network import Network
from crossway.model.port import Port


@pytest.fixture
def network(world: World) -> Network:
    """A network with ports on h1 and h2, while h3 lives elsewhere."""
    for number in (1, 2, 3):
        world.host(f"h{number}", f"192.0.2.{number}")
    network = world.network()
    world.subnet(network, "10.0.0.0/24")
    world.port(network, name="peer", binding__host_id="h2")
    return network


def report(world: World, host: str, ports: dict[str, bool] | None = None, **options: Any) -> bool:
    applied = options.pop("applied", world.cloud.revision)
    again = world.status.report(host, applied, ports or {}, **options)
    world.settle()
    return again


def status(world: World, port: Port) -> str:
    return world.again(port).status


def test_a_port_is_active_when_all_have_applied_it(world: World, network: Network) -> None:
    port = world.port(network, binding__host_id="h1")
    report(world, "h1", {port.id: True})
    assert status(world, port) == "DOWN", "h2 has not applied it"
    report(world, "h2", applied=world.cloud.revision - 1)
    assert status(world, port) == "DOWN", "h2 has applied what was before"
    report(world, "h2")
    assert status(world, port) == "ACTIVE"


def test_all_having_applied_it_is_not_enough(world: World, network: Network) -> None:
    port = world.port(network, binding__host_id="h1")
    report(world, "h1")
    report(world, "h2")
    assert status(world, port) == "DOWN", "nobody has plugged it"
    report(world, "h1", {port.id: True})
    assert status(world, port) == "ACTIVE"


def test_only_its_own_host_can_say_that_it_is_up(world: World, network: Network) -> None:
    port = world.port(network, binding__host_id="h1")
    report(world, "h1")
    report(world, "h2", {port.id: True})
    assert status(world, port) == "DOWN"


def test_a_host_that_cannot_reach_it_is_not_waited_for(world: World, network: Network) -> None:
    port = world.port(network, binding__host_id="h1")
    report(world, "h3", applied=0)
    report(world, "h2")
    report(world, "h1", {port.id: True})
    assert status(world, port) == "ACTIVE"


def test_a_host_that_can_reach_it_through_a_router_is_waited_for(world: World, network: Network) -> None:
    other = world.network()
    world.subnet(other, "10.1.0.0/24")
    router = world.router()
    for subnet in list(world.cloud.subnets.rows.values()):
        world.join(router, subnet_id=subnet.id)
    world.port(other, binding__host_id="h3")
    port = world.port(network, binding__host_id="h1")
    report(world, "h2")
    report(world, "h1", {port.id: True})
    assert status(world, port) == "DOWN"
    report(world, "h3")
    assert status(world, port) == "ACTIVE"


def test_a_host_that_dies_is_waited_for_no_more(world: World, network: Network) -> None:
    port = world.port(network, binding__host_id="h1")
    world.now = ALIVE_SECONDS - 1
    report(world, "h1", {port.id: True})
    world.status.tick()
    world.settle()
    assert status(world, port) == "DOWN"
    assert [h["name"] for h in hosts(world.cloud, world.status) if h["alive"]] == ["h1", "h2", "h3"]
    world.now = ALIVE_SECONDS
    world.status.tick()
    world.settle()
    assert status(world, port) == "ACTIVE"
    assert [h["name"] for h in hosts(world.cloud, world.status) if h["alive"]] == ["h1"]


def test_the_first_report_after_the_server_began_is_asked_to_be_followed_by_all(world: World, network: Network) -> None:
    assert report(world, "h1") is True
    assert report(world, "h1") is False
    assert report(world, "h2", {}, whole=True) is False


def test_a_port_of_a_dead_host_is_active_when_its_host_is_back(world: World, network: Network) -> None:
    port = active(world, network)
    world.now = ALIVE_SECONDS
    world.status.tick()
    assert not world.status.alive("h1")
    assert status(world, port) == "ACTIVE", "connectivity fails static"
    world.change(world.again(port), security_groups=[])
    assert status(world, port) == "DOWN", "its host has not applied that"
    report(world, "h2")
    assert status(world, port) == "DOWN"
    report(world, "h1")
    assert world.status.alive("h1")
    assert status(world, port) == "ACTIVE"


def test_a_port_is_not_active_because_its_own_host_died(world: World, network: Network) -> None:
    port = world.port(network, binding__host_id="h1")
    report(world, "h2")
    report(world, "h1", {port.id: True}, applied=0)
    world.now = ALIVE_SECONDS
    world.status.tick()
    world.settle()
    assert status(world, port) == "DOWN"
    report(world, "h1")
    assert status(world, port) == "ACTIVE"


def test_a_revision_of_the_future_is_no_revision(world: World, network: Network) -> None:
    port = world.port(network, binding__host_id="h1")
    report(world, "h2", applied=world.cloud.revision + 100)
    report(world, "h1", {port.id: True})
    assert status(world, port) == "DOWN"


@pytest.mark.parametrize(
    "change",
    [
        {"fixed_ips": [{"ip_address": "10.0.0.77"}]},
        {"security_groups": []},
        {"mac_address": "fa:16:3e:00:00:01"},
        {"port_security_enabled": False, "security_groups": []},
        {"allowed_address_pairs": [{"ip_address": "10.9.0.0/24"}]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_changed_port_is_active_again_when_all_have_applied_the_change(
    world: World, network: Network, change: dict[str, Any]
) -> None:
    port = active(world, network)
    world.change(world.again(port), **change)
    assert status(world, port) == "DOWN"
    report(world, "h1")
    assert status(world, port) == "DOWN"
    report(world, "h2")
    assert status(world, port) == "ACTIVE"


def active(world: World, network: Network) -> Port:
    port = world.port(network, binding__host_id="h1")
    report(world, "h2")
    report(world, "h1", {port.id: True})
    assert status(world, port) == "ACTIVE"
    return port


def test_a_change_of_its_name_leaves_it_active(world: World, network: Network) -> None:
    port = active(world, network)
    assert world.change(world.again(port), name="new").status == "ACTIVE"


def test_a_port_goes_down_with_its_body(world: World, network: Network) -> None:
    port = active(world, network)
    report(world, "h1", {port.id: False})
    assert status(world, port) == "DOWN"
    report(world, "h1", {port.id: True})
    assert status(world, port) == "ACTIVE"


def test_a_port_that_was_set_down_is_active_again_when_all_know_that_it_is_up(world: World, network: Network) -> None:
    port = active(world, network)
    world.change(world.again(port), admin_state_up=False)
    report(world, "h1", {port.id: False})
    report(world, "h2")
    assert status(world, port) == "DOWN"
    world.change(world.again(port), admin_state_up=True)
    report(world, "h1", {port.id: True})
    assert status(world, port) == "DOWN", "h2 does not know yet"
    report(world, "h2")
    assert status(world, port) == "ACTIVE"


def test_a_port_goes_down_when_a_whole_report_does_not_name_it(world: World, network: Network) -> None:
    port = active(world, network)
    report(world, "h1", {}, whole=True)
    assert status(world, port) == "DOWN"


def test_a_port_goes_down_when_it_is_unbound_and_waits_for_its_next_host(world: World, network: Network) -> None:
    port = active(world, network)
    assert world.change(world.again(port), binding__host_id="").status == "DOWN"
    world.change(world.again(port), binding__host_id="h2")
    report(world, "h1", {port.id: True})
    report(world, "h2")
    assert status(world, port) == "DOWN", "h2 has not plugged it, and h1 has no say any more"
    report(world, "h2", {port.id: True})
    assert status(world, port) == "ACTIVE"


def test_after_a_restart_of_the_server_an_active_port_stays_so(world: World, network: Network) -> None:
    port = active(world, network)
    other = World(world.runner, world.cloud.store)
    try:
        assert other.again(port).status == "ACTIVE"
        waiting = other.port(network, binding__host_id="h1")
        other.status.report("h1", other.cloud.revision, {waiting.id: True})
        other.settle()
        assert status(other, waiting) == "DOWN", "h2 is held to live until it had time to report"
        other.status.report("h2", other.cloud.revision, {})
        other.settle()
        assert status(other, waiting) == "ACTIVE"
    finally:
        other.stop()


def test_a_thousand_ports_go_up_together(world: World, network: Network) -> None:
    ports = [world.port(network, binding__host_id="h1", fixed_ips=[]) for _ in range(1000)]
    report(world, "h2")
    before = world.cloud.revision
    report(world, "h1", {port.id: True for port in ports})
    assert {status(world, port) for port in ports} == {"ACTIVE"}
    assert world.cloud.revision - before == 2, "500 are written together"


def test_an_unknown_host_cannot_report(world: World) -> None:
    with pytest.raises(NotFound):
        report(world, "stranger")


def test_what_is_no_port_of_a_host_is_not_kept_of_its_report(world: World, network: Network) -> None:
    here, there = (world.port(network, binding__host_id=host) for host in ("h1", "h2"))
    many = {f"{n}": True for n in range(1000)}
    report(world, "h1", {**many, here.id: True, there.id: True})
    assert world.status.up["h1"] == {here.id}
    world.change(here, binding__host_id="h2")
    world.delete(there)
    report(world, "h2", {here.id: True, there.id: True})
    assert (world.status.up["h1"], world.status.up["h2"]) == (set(), {here.id})


def test_a_host_may_be_first_to_say_that_a_port_which_waits_for_it_is_up(world: World, network: Network) -> None:
    port = world.port(network, binding__host_id="h1")
    waits = world.make(BINDINGS, parent=port.id, host="h2")
    report(world, "h2", {port.id: True})
    assert world.status.up["h2"] == {port.id}
    world.delete(waits)
    assert world.status.up["h2"] == set()


def pass_time(world: World, seconds: float, *reports: str, applied: int | None = None) -> None:
    """Let time go by in which hosts report every five seconds, what they have applied or always the same."""
    end = world.now + seconds
    while world.now < end:
        world.now += 5
        for host in reports:
            report(world, host, applied=world.cloud.revision if applied is None or host != reports[0] else applied)
        world.status.tick()
    world.settle()


def test_a_host_that_stands_still_is_away(world: World, network: Network) -> None:
    stuck = world.cloud.revision
    world.network()
    port = world.port(network, binding__host_id="h1")
    report(world, "h1", {port.id: True})
    pass_time(world, STILL_SECONDS, "h2", "h1", "h3", applied=stuck)
    assert status(world, port) == "DOWN"
    assert world.status.alive("h2"), "it may have much to do"
    pass_time(world, STILL_SECONDS + 10 + MARK_SECONDS, "h2", "h1", "h3", applied=stuck)
    assert not world.status.alive("h2")
    assert status(world, port) == "ACTIVE"
    # Neither silence nor registering again makes it live, nor a little that it applies.
    pass_time(world, ALIVE_SECONDS + 10, "h1", "h3")
    world.status.heard("h2")
    pass_time(world, 20, "h2", "h1", "h3", applied=stuck + 1)
    assert not world.status.alive("h2")
    assert world.port(network, binding__host_id="h2").failed
    late = world.port(network, binding__host_id="h1")
    report(world, "h1", {late.id: True})
    assert status(world, late) == "ACTIVE"
    report(world, "h2")
    assert world.status.alive("h2")
    assert all(h["alive"] for h in hosts(world.cloud, world.status))


def test_a_host_that_was_away_for_long_has_its_time_anew(world: World, network: Network) -> None:
    """Its agent began anew, and died before it had applied anything."""
    stuck = world.cloud.revision
    world.network()
    pass_time(world, STILL_SECONDS + MARK_SECONDS, "h1", "h3")
    report(world, "h2", applied=stuck)
    pass_time(world, STILL_SECONDS + MARK_SECONDS, "h1", "h3")
    world.status.heard("h2")
    assert world.status.alive("h2")
    pass_time(world, STILL_SECONDS - MARK_SECONDS, "h2", "h1", "h3", applied=stuck)
    assert world.status.alive("h2")
    pass_time(world, STILL_SECONDS, "h2", "h1", "h3", applied=stuck)
    assert not world.status.alive("h2")


def test_a_host_that_has_applied_everything_lives_however_long_nothing_happens(world: World, network: Network) -> None:
    for _ in range(3):
        pass_time(world, 2 * STILL_SECONDS + 60, "h1", "h2", "h3")
        world.network()
    assert all(h["alive"] for h in hosts(world.cloud, world.status))
    assert len(world.status._marks) <= STILL_SECONDS / MARK_SECONDS + 2


def test_a_host_that_begins_again_has_time_to_apply_it(world: World, network: Network) -> None:
    pass_time(world, 2 * STILL_SECONDS, "h2", "h1", "h3")
    pass_time(world, STILL_SECONDS - 10, "h2", "h1", "h3", applied=0)
    assert world.status.alive("h2")
    pass_time(world, STILL_SECONDS, "h2", "h1", "h3")
    assert world.status.alive("h2")
