"""What counts as a change of a resource beside its own attributes: its revision goes on with what belongs to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from clouds import ADMIN, World
from crossway.control.conntrack_helper import CONNTRACK_HELPERS
from crossway.control.floatingip import FLOATINGIPS
from crossway.control.port_forwarding import PORT_FORWARDINGS
from crossway.control.rule import RULES

Of = tuple[list[Any], Callable[[], Any], dict[str, Any]]


def rule_of_group(world: World) -> Of:
    group = world.group(name="web")
    return [group], lambda: world.rule(group, protocol="tcp"), {"description": "d"}


def subnet_of_network(world: World) -> Of:
    network = world.network()
    return [network], lambda: world.subnet(network, "10.0.0.0/24"), {"name": "s"}


def helper_of_router(world: World) -> Of:
    router = world.router()
    body = {"protocol": "udp", "port": 69, "helper": "tftp"}
    return [router], lambda: world.make(CONNTRACK_HELPERS, parent=router.id, **body), {"port": 70}


def forwarding_of_floatingip_and_port(world: World) -> Of:
    outside, inside = world.network(router__external=True), world.network()
    world.subnet(outside, "203.0.113.0/24")
    subnet = world.subnet(inside, "10.0.0.0/24")
    world.join(world.router(external_gateway_info={"network_id": outside.id}), subnet_id=subnet.id)
    port, fip = world.port(inside), world.make(FLOATINGIPS, floating_network_id=outside.id)
    body = {"internal_port_id": port.id, "protocol": "tcp", "internal_port": 80, "external_port": 8080}
    return [fip, port], lambda: world.make(PORT_FORWARDINGS, parent=fip.id, **body), {"external_port": 81}


@pytest.mark.parametrize("of", [rule_of_group, subnet_of_network, helper_of_router, forwarding_of_floatingip_and_port])
def test_a_resources_revision_goes_on_with_what_belongs_to_it(world: World, of: Callable[[World], Of]) -> None:
    owners, make, change = of(world)

    def revisions() -> list[int]:
        return [world.again(owner).revision_number for owner in owners]

    first = revisions()
    made = make()
    assert revisions() == [number + 1 for number in first], "made"
    world.change(made, **change)
    assert revisions() == [number + 2 for number in first], "changed"
    world.delete(made)
    assert revisions() == [number + 3 for number in first], "deleted"


def test_many_rules_of_one_request_are_one_change_of_their_group(world: World) -> None:
    group = world.group(name="web")
    bodies = [{"security_group_id": group.id, "direction": "ingress", "protocol": p} for p in ("tcp", "udp")]
    create = RULES.create
    assert create
    world.do(lambda d: [create(d, ADMIN, RULES.kind.given(body)) for body in bodies])
    assert world.again(group).revision_number == group.revision_number + 1
