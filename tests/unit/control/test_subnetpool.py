"""Subnet pools and address scopes."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from clouds import ADMIN, ALICE, World
from crossway.control import subnetpool
from crossway.control.address_scope import ADDRESS_SCOPES
from crossway.control.decision import Decision
from crossway.control.subnet import SUBNETS, create
from crossway.control.subnetpool import SUBNETPOOLS, scope_of
from crossway.errors import Fault
from crossway.model.subnet import SUBNET
from crossway.store import Stale


def pool(world: World, *prefixes: str, caller: Any = ALICE, **body: Any) -> Any:
    return world.make(SUBNETPOOLS, caller, name="p", prefixes=[*prefixes], **body)


def cut(world: World, network: Any = None, caller: Any = ALICE, **body: Any) -> Any:
    network = network or world.network(ALICE)
    return world.make(SUBNETS, caller, **{"network_id": network.id, "ip_version": 4, **body})


@pytest.mark.parametrize(
    ("body", "type", "status"),
    [
        ({"prefixlen": 7}, "MinPrefixSubnetAllocationError", 400),
        ({"prefixlen": 29}, "MaxPrefixSubnetAllocationError", 400),
        ({"cidr": "10.1.0.0/24"}, "SubnetAllocationError", 409),
        ({"cidr": "10.0.0.0/24", "prefixlen": 24}, "BadRequest", 400),
        ({"ip_version": 6}, "BadRequest", 400),
        ({"gateway_ip": "10.0.0.9"}, "BadRequest", 400),
        ({"use_default_subnetpool": True}, "BadRequest", 400),
        ({"prefixlen": 22}, "SubnetPoolQuotaExceeded", 409),
        ({"subnetpool_id": "prefix_delegation", "ip_version": 6}, "BadRequest", 400),
        ({"subnetpool_id": None}, "BadRequest", 400),
    ],
    ids=str,
)
def test_what_a_pool_does_not_give(world: World, body: dict[str, Any], type: str, status: int) -> None:
    given = pool(world, "10.0.0.0/16", max_prefixlen=28, default_prefixlen=26, default_quota=512)
    with pytest.raises(Fault) as raised:
        cut(world, **{"subnetpool_id": given.id, **body})
    assert (raised.value.type, raised.value.status) == (type, status)


def test_subnets_are_cut_until_nothing_is_left(world: World) -> None:
    given = pool(world, "10.0.0.0/24", "10.0.2.0/25", default_prefixlen=26)
    made = [cut(world, subnetpool_id=given.id) for _ in range(5)]
    made.append(cut(world, subnetpool_id=given.id, cidr="10.0.0.192/26"))
    prefixes = [ipaddress.ip_network(subnet.cidr) for subnet in made]
    assert not any(a.overlaps(b) for a in prefixes for b in prefixes if a is not b)
    # What is small is filled first.
    assert {subnet.cidr for subnet in made[:2]} == {"10.0.2.0/26", "10.0.2.64/26"}
    with pytest.raises(Fault, match="Insufficient prefix space"):
        cut(world, subnetpool_id=given.id)
    with pytest.raises(Fault, match="existing allocations"):
        world.delete(given, ALICE)
    for subnet in made:
        world.delete(subnet, ALICE)
    world.delete(given, ALICE)
    assert not [key for key in world.stored() if key.startswith(("pool/", "subnetpool/"))]


def test_two_never_cut_the_same(world: World) -> None:
    given = pool(world, "10.0.0.0/24", default_prefixlen=26)
    decisions = []
    for _ in range(2):
        decision = Decision(world.cloud)
        body = {"network_id": world.network(ALICE).id, "ip_version": 4, "subnetpool_id": given.id}
        decisions.append((decision, body))
    for decision, body in decisions:
        decision = decision
        create(decision, ALICE, SUBNET.given(body))
    world.runner.run(world.cloud.store.commit(decisions[0][0].transaction))
    with pytest.raises(Stale):
        world.runner.run(world.cloud.store.commit(decisions[1][0].transaction))
    for decision, _ in decisions:
        decision.close()
    world.settle()


def test_the_default_pool_is_one_of_each_family(world: World) -> None:
    pool(world, "10.0.0.0/24", caller=ADMIN, is_default=True, shared=True, default_prefixlen=26)
    with pytest.raises(Fault, match="default subnetpool"):
        pool(world, "10.9.0.0/24", caller=ADMIN, is_default=True)
    assert cut(world, use_default_subnetpool=True).cidr == "10.0.0.0/26"


def test_a_pools_prefixes_grow_and_shrink_about_its_subnets(world: World) -> None:
    given = pool(world, "10.0.0.0/25", default_prefixlen=26)
    cut(world, subnetpool_id=given.id)

    def act(verb: Any, *prefixes: str) -> Any:
        return world.do(lambda d: verb(d, ALICE, given.id, {"prefixes": [*prefixes]}))

    assert act(subnetpool.add_prefixes, "10.0.0.128/25") == {"prefixes": ["10.0.0.0/24"]}
    assert act(subnetpool.remove_prefixes, "10.0.0.64/26") == {"prefixes": ["10.0.0.0/26", "10.0.0.128/25"]}
    with pytest.raises(Fault, match="is cut of"):
        act(subnetpool.remove_prefixes, "10.0.0.0/26")
    with pytest.raises(Fault, match="subset"):
        world.change(given, ALICE, prefixes=["10.0.0.0/26"])


def test_a_pool_in_anothers_scope_is_not_its_owners_to_change(world: World) -> None:
    scope = world.make(ADDRESS_SCOPES, ip_version=4, shared=True)
    given = pool(world, "10.0.0.0/24")
    world.change(given, address_scope_id=scope.id)
    for body in ({"prefixes": ["10.0.0.0/23"]}, {"name": "x"}):
        with pytest.raises(Fault, match="not owned") as raised:
            world.change(given, ALICE, **body)
        assert raised.value.status == 400
        world.change(given, **body)


def test_a_networks_subnets_come_on_board(world: World) -> None:
    given, net = pool(world, "10.0.0.0/24"), world.network(ALICE)
    subnet = world.subnet(net, "10.1.0.0/24", ALICE)
    body = {"network_id": net.id}
    told = world.do(lambda d: subnetpool.onboard_network_subnets(d, ALICE, given.id, body))
    assert told == [{"id": subnet.id, "cidr": "10.1.0.0/24"}]
    assert world.again(subnet).subnetpool_id == given.id
    assert world.again(given).prefixes == ("10.0.0.0/23",) or "10.1.0.0/24" in world.again(given).prefixes


def test_pools_of_a_scope_do_not_overlap(world: World) -> None:
    scope = world.make(ADDRESS_SCOPES, ALICE, ip_version=4)
    given = pool(world, "10.0.0.0/24", address_scope_id=scope.id, default_prefixlen=26)
    net = world.network(ALICE)
    cut(world, net, subnetpool_id=given.id)
    assert scope_of(world.cloud, net.id, 4) == scope.id
    assert scope_of(world.cloud, net.id, 6) is None
    with pytest.raises(Fault, match="unique prefixes"):
        pool(world, "10.0.0.0/16", address_scope_id=scope.id)
    with pytest.raises(Fault, match="same address scope"):
        world.subnet(net, "10.7.0.0/24", ALICE)
    with pytest.raises(Fault) as raised:
        world.delete(scope, ALICE)
    assert raised.value.type == "AddressScopeInUse"
    world.change(given, ALICE, address_scope_id=None)
    assert scope_of(world.cloud, net.id, 4) is None
    world.delete(scope, ALICE)


def test_addresses_of_a_subnet_are_kept_for_a_service(world: World) -> None:
    net = world.network()
    world.subnet(net, "10.0.0.0/24", service_types=["compute:nova"])
    plain = world.subnet(net, "10.0.1.0/24")
    ports = [world.port(net), world.port(net, device_owner="compute:nova")]
    assert [port.fixed_ips[0].subnet_id == plain.id for port in ports] == [True, False]
    special = world.subnet(net, "10.0.2.0/24", service_types=["own:thing", "compute:"])
    for wrong in ("thing", ":thing", "", "own thing:"):
        with pytest.raises(Fault, match="not a valid service type"):
            world.subnet(net, "10.0.3.0/24", service_types=[wrong])
    world.delete(ports[0])
    world.delete(plain)
    assert world.port(net, device_owner="own:thing").fixed_ips[0].subnet_id == special.id
    with pytest.raises(Fault) as raised:
        world.port(net)
    assert raised.value.type == "IpAddressGenerationFailureNoMatchingSubnet"
