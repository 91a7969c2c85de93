"""Pools, scopes, address groups and what is shared, through the stock SDK."""

from __future__ import annotations

from collections.abc import Iterator

import openstack
import pytest
from openstack import exceptions
from openstack.network.v2._proxy import Proxy

from servers import Server

# The SDK warns of what it will drop itself.
pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")


@pytest.fixture(scope="module")
def sdk(shared: Server) -> Iterator[Proxy]:
    with openstack.connect(
        auth_type="none", auth={"endpoint": shared.url}, load_yaml_config=False, load_envvars=False
    ) as cloud:
        yield cloud.network


def test_a_subnet_of_a_pool_of_a_scope(sdk: Proxy) -> None:
    scope = sdk.create_address_scope(name="scope", ip_version=4, is_shared=True)
    assert sdk.get_address_scope(scope).is_shared
    pool = sdk.create_subnet_pool(
        name="pool", prefixes=["10.40.0.0/16"], default_prefix_length=26, address_scope_id=scope.id
    )
    assert (pool.minimum_prefix_length, pool.maximum_prefix_length, pool.ip_version) == (8, 32, 4)
    network = sdk.create_network(name="pooled")
    subnet = sdk.create_subnet(network_id=network.id, ip_version=4, subnet_pool_id=pool.id)
    assert (subnet.cidr, subnet.subnet_pool_id) == ("10.40.0.0/26", pool.id)
    assert sdk.get_network(network).ipv4_address_scope_id == scope.id
    sdk.update_subnet_pool(pool, address_scope_id=None)
    assert sdk.get_network(network).ipv4_address_scope_id is None
    with pytest.raises(exceptions.BadRequestException, match="existing allocations"):
        sdk.delete_subnet_pool(pool)
    sdk.delete_network(network)
    sdk.delete_subnet_pool(pool, ignore_missing=False)
    sdk.delete_address_scope(scope, ignore_missing=False)


def test_what_is_shared_is_told_as_it_is_now(sdk: Proxy) -> None:
    network = sdk.create_network(name="to share")
    subnet = sdk.create_subnet(network_id=network.id, ip_version=4, cidr="10.41.0.0/24")
    body = {"object_type": "network", "object_id": network.id, "target_tenant": "*"}
    policies = [sdk.create_rbac_policy(**body, action=action) for action in ("access_as_shared", "access_as_external")]
    told = sdk.get_network(network)
    assert (told.is_shared, told.is_router_external) == (True, True)
    assert sdk.get(f"/subnets/{subnet.id}").json()["subnet"]["router:external"] is True
    for policy in policies:
        sdk.delete_rbac_policy(policy, ignore_missing=False)
    told = sdk.get_network(network)
    assert (told.is_shared, told.is_router_external) == (False, False)
    assert sdk.get(f"/subnets/{subnet.id}").json()["subnet"]["router:external"] is False
    sdk.delete_network(network, ignore_missing=False)


def test_a_rule_of_an_address_group(sdk: Proxy) -> None:
    named = sdk.create_address_group(name="named", addresses=["10.42.0.0/24"])
    assert sdk.add_addresses_to_address_group(named, ["10.43.0.0/24"]).addresses == ["10.42.0.0/24", "10.43.0.0/24"]
    group = sdk.create_security_group(name="bearer")
    rule = sdk.create_security_group_rule(
        security_group_id=group.id, direction="ingress", remote_address_group_id=named.id
    )
    assert rule.remote_address_group_id == named.id
    with pytest.raises(exceptions.ConflictException, match="in use"):
        sdk.delete_address_group(named)
    sdk.delete_security_group(group, ignore_missing=False)
    assert sdk.remove_addresses_from_address_group(named, ["10.42.0.0/24"]).addresses == ["10.43.0.0/24"]
    sdk.delete_address_group(named, ignore_missing=False)
