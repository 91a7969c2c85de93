"""NDP proxies, and topologies by asking: what rests on subnet pools and address scopes."""

from __future__ import annotations

from typing import Any

import pytest

from clouds import ADMIN, ALICE, BOB, World
from crossway.control import topology
from crossway.control.address_scope import ADDRESS_SCOPES
from crossway.control.ndp_proxy import NDP_PROXIES
from crossway.control.subnetpool import SUBNETPOOLS
from crossway.errors import Fault
from crossway.model.network import Network
from crossway.model.subnet import Subnet

ABSENT = "0d2f8a3e-90cc-4b0b-9e1e-0123456789ab"


def refused(by: Any, *args: Any, type: str, status: int, **options: Any) -> str:
    with pytest.raises(Fault) as caught:
        by(*args, **options)
    assert (caught.value.type, caught.value.status) == (type, status), str(caught.value)
    return str(caught.value)


@pytest.fixture
def scope(world: World) -> Any:
    return world.make(ADDRESS_SCOPES, name="s", ip_version=6, shared=True)


@pytest.fixture
def pool(world: World, scope: Any) -> Any:
    body = {"prefixes": ["2001:db8::/48"], "default_prefixlen": 64, "address_scope_id": scope.id, "shared": True}
    return world.make(SUBNETPOOLS, name="p", **body)


@pytest.fixture
def public(world: World, pool: Any) -> Network:
    public = world.network(**{"router:external": True})
    world.subnet(public, "2001:db8:0:1::/64", subnetpool_id=pool.id)
    return public


def inside(world: World, pool: Any, cidr: str = "2001:db8:0:2::/64") -> tuple[Network, Subnet]:
    net = world.network(ALICE)
    return net, world.subnet(net, cidr, ALICE, **({"subnetpool_id": pool.id} if pool else {}))


def test_a_life_of_a_proxy(world: World, pool: Any, public: Network) -> None:
    net, subnet = inside(world, pool)
    info = {"network_id": public.id}
    made = world.router(ALICE, external_gateway_info=info, enable_ndp_proxy=True)
    assert made.enable_ndp_proxy is True
    world.join(made, ALICE, subnet_id=subnet.id)
    port = world.port(net, ALICE)
    ip = port.fixed_ips[0].ip_address

    def proxy(**body: Any) -> Any:
        return world.make(NDP_PROXIES, ALICE, **{"router_id": made.id, "port_id": port.id, **body})

    first = proxy(name="n")
    assert (first.ip_address, first.project_id) == (ip, "alice")
    assert world.change(first, ALICE, name="m").name == "m"
    refused(proxy, type="NDPProxyExists", status=409)
    refused(proxy, ip_address="2001:db8:0:2::ffff", type="InvalidAddress", status=400)
    refused(world.part, made, subnet_id=subnet.id, type="RouterInterfaceInUseByNDPProxy", status=409)
    in_use = {"type": "RouterGatewayInUseByNDPProxy", "status": 409}
    refused(world.change, made, external_gateway_info=None, **in_use)
    world.delete(port)
    assert first.id not in world.cloud.tables["ndp_proxy"].rows
    assert world.change(made, external_gateway_info=None).enable_ndp_proxy is False
    assert not [key for key in world.stored() if key.startswith(("proxied/", "outside/", "routed/"))]


def test_what_a_router_must_have(world: World, pool: Any, public: Network) -> None:
    net, subnet = inside(world, None, "2001:db9::/64")
    info = {"network_id": public.id}
    refused(world.router, enable_ndp_proxy=True, type="RouterGatewayNotValid", status=409)
    bare = world.network(**{"router:external": True})
    world.subnet(bare, "2001:dba::/64")
    wrong = {"network_id": bare.id}
    refused(world.router, external_gateway_info=wrong, enable_ndp_proxy=True, type="RouterGatewayNotValid", status=409)
    made = world.router(external_gateway_info=info)
    port = world.port(net)
    body = {"router_id": made.id, "port_id": port.id}
    refused(world.make, NDP_PROXIES, type="PortUnreachableRouter", status=409, **body)
    world.join(made, subnet_id=subnet.id)
    refused(world.make, NDP_PROXIES, type="RouterNDPProxyNotEnable", status=409, **body)
    world.change(made, enable_ndp_proxy=True)
    refused(world.make, NDP_PROXIES, type="AddressScopeConflict", status=409, **body)
    four = world.subnet(net, "10.0.0.0/24")
    only = world.port(net, fixed_ips=[{"subnet_id": four.id}])
    refused(world.make, NDP_PROXIES, type="BadRequest", status=400, **{**body, "port_id": only.id})
    refused(
        world.change, made, external_gateway_info={}, enable_ndp_proxy=True, type="RouterGatewayNotValid", status=409
    )
    assert world.change(made, description="d").enable_ndp_proxy is True


# ---- topologies


def ask(world: World, caller: Any, project: str, *fields: str) -> Any:
    return world.do(lambda d: topology.show(d, caller, project, list(fields)))


def test_a_topology_by_asking(world: World) -> None:
    refused(ask, world, ALICE, "alice", "dry-run", type="AutoAllocationFailure", status=409)
    public = world.network(**{"router:external": True}, is_default=True)
    world.subnet(public, "198.51.100.0/24")
    refused(ask, world, ALICE, "alice", type="AutoAllocationFailure", status=409)
    for version, prefix, length in ((4, "10.0.0.0/16", 26), (6, "fd00::/48", 64)):
        body = {"prefixes": [prefix], "default_prefixlen": length, "is_default": True, "shared": True}
        world.make(SUBNETPOOLS, name=f"v{version}", **body)
    before = set(world.stored())
    assert ask(world, ALICE, "alice", "dry-run")["id"] == "dry-run=pass"
    assert set(world.stored()) == before
    told = ask(world, ALICE, "alice")
    assert told == {"id": told["id"], "tenant_id": "alice", "project_id": "alice"}
    assert ask(world, ADMIN, "alice") == told
    net = world.cloud.networks.rows[told["id"]]
    assert (net.name, net.project_id, net.admin_state_up) == ("auto_allocated_network", "alice", True)
    subnets = world.cloud.subnets.by("network_id", net.id)
    assert sorted(subnet.name for subnet in subnets) == ["auto_allocated_subnet_v4", "auto_allocated_subnet_v6"]
    (router,) = world.cloud.routers.rows.values()
    assert (router.name, router.project_id, router.gateway_networks) == ("auto_allocated_router", "alice", (public.id,))
    for subnet in subnets:
        assert [p.device_id for p in world.cloud.ports.by("joined_subnet_id", subnet.id)] == [router.id]
    refused(ask, world, BOB, "alice", type="PolicyNotAuthorized", status=403)
    refused(ask, world, ALICE, "alice", "shape", type="BadRequest", status=400)
    assert topology.project_named(ALICE, "None") == topology.project_named(ALICE, "null") == "alice"
    refused(world.do, lambda d: topology.delete(d, BOB, "alice"), type="PolicyNotAuthorized", status=403)
    for _ in range(2):
        world.do(lambda d: topology.delete(d, ALICE, "alice"))
        assert (len(world.cloud.routers), len(world.cloud.networks)) == (0, 1)
    assert not world.cloud.ports.rows
