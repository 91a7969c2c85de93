"""The way outside, through the stock SDK: routers, floating IPs, forwardings, and what is counted and offered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

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


@pytest.fixture(scope="module")
def public(sdk: Proxy) -> Iterator[Any]:
    network = sdk.create_network(name="sdk-public", is_router_external=True)
    sdk.create_subnet(network_id=network.id, ip_version=4, cidr="198.51.100.0/24", name="sdk-outer")
    yield network
    sdk.delete_network(network, ignore_missing=False)


@pytest.fixture
def inside(sdk: Proxy, public: Any) -> Iterator[tuple[Any, Any, Any]]:
    """A network behind a router to the outside: router, subnet, port."""
    network = sdk.create_network()
    subnet = sdk.create_subnet(network_id=network.id, ip_version=4, cidr="10.0.0.0/24")
    router = sdk.create_router(external_gateway_info={"network_id": public.id})
    sdk.add_interface_to_router(router, subnet_id=subnet.id)
    port = sdk.create_port(network_id=network.id)
    yield router, subnet, port
    sdk.delete_port(port)
    sdk.remove_interface_from_router(router, subnet_id=subnet.id)
    sdk.delete_router(router, ignore_missing=False)
    sdk.delete_network(network)


def test_floating_ips(sdk: Proxy, public: Any, inside: tuple[Any, Any, Any]) -> None:
    router, _, port = inside
    fip = sdk.create_ip(floating_network_id=public.id, port_id=port.id, description="d", dns_name="Web")
    assert (fip.router_id, fip.fixed_ip_address, fip.status) == (router.id, port.fixed_ips[0]["ip_address"], "DOWN")
    assert (fip.port_details["mac_address"], fip.dns_name, fip.description) == (port.mac_address, "web", "d")
    sdk.update_port(port, name="renamed")
    assert sdk.get_ip(fip).port_details["name"] == "renamed"
    with pytest.raises(exceptions.ConflictException, match="already has a floating IP"):
        sdk.create_ip(floating_network_id=public.id, port_id=port.id)
    assert [one.id for one in sdk.ips(floating_ip_address=fip.floating_ip_address)] == [fip.id]
    assert [one.id for one in sdk.ips(port_id=port.id)] == [fip.id]
    assert sdk.set_tags(fip, ["blue"]).tags == ["blue"]
    assert [one.id for one in sdk.ips(tags="blue")] == [fip.id]
    assert sdk.update_ip(fip, port_id=None).port_id is None
    free = sdk.find_available_ip()
    assert free is not None
    sdk.delete_ip(fip, ignore_missing=False)
    with pytest.raises(exceptions.NotFoundException):
        sdk.get_ip(fip.id)


def test_port_forwardings(sdk: Proxy, public: Any, inside: tuple[Any, Any, Any]) -> None:
    _, _, port = inside
    fip = sdk.create_ip(floating_network_id=public.id)
    made = sdk.create_floating_ip_port_forwarding(
        fip,
        internal_port_id=port.id,
        internal_ip_address=port.fixed_ips[0]["ip_address"],
        internal_port=22,
        external_port=2222,
        protocol="tcp",
    )
    assert (made.internal_port, made.external_port, made.protocol) == (22, 2222, "tcp")
    assert [one.id for one in sdk.floating_ip_port_forwardings(fip)] == [made.id]
    assert [one.id for one in sdk.floating_ip_port_forwardings(fip, external_port=2222)] == [made.id]
    assert sdk.update_floating_ip_port_forwarding(fip, made, internal_port=23).internal_port == 23
    with pytest.raises(exceptions.ConflictException, match="Port Forwarding"):
        sdk.delete_ip(fip)
    sdk.delete_floating_ip_port_forwarding(fip, made, ignore_missing=False)
    sdk.delete_ip(fip, ignore_missing=False)


def test_several_gateways_and_routes(sdk: Proxy, public: Any, inside: tuple[Any, Any, Any]) -> None:
    router, _, _ = inside
    body = {"router": {"external_gateways": [{"network_id": public.id}]}}
    added = sdk.add_external_gateways(router, body)
    feet = added.external_gateways
    assert [foot["network_id"] for foot in feet] == [public.id] * 2
    assert added.external_gateway_info["external_fixed_ips"] == feet[0]["external_fixed_ips"]
    left = sdk.remove_external_gateways(router, {"router": {"external_gateways": feet[1:]}})
    assert left.external_gateways == feet[:1]
    assert sdk.update_external_gateways(router, {"router": {"external_gateways": feet}}).external_gateways == feet
    route = {"destination": "192.0.2.0/24", "nexthop": "10.0.0.9"}
    assert sdk.add_extra_routes_to_router(router, {"router": {"routes": [route]}}).routes == [route]
    assert sdk.remove_extra_routes_from_router(router, {"router": {"routes": [route]}}).routes == []
    assert sdk.get_router(router).availability_zones == ["nova"]


def test_conntrack_helpers(sdk: Proxy, inside: tuple[Any, Any, Any]) -> None:
    router, _, _ = inside
    helper = sdk.create_conntrack_helper(router, protocol="udp", port=69, helper="tftp")
    assert [(one.protocol, one.port, one.helper) for one in sdk.conntrack_helpers(router)] == [("udp", 69, "tftp")]
    assert sdk.update_conntrack_helper(helper, router, port=6969).port == 6969
    assert sdk.get_conntrack_helper(helper, router).port == 6969
    sdk.delete_conntrack_helper(helper, router, ignore_missing=False)
    assert list(sdk.conntrack_helpers(router)) == []


def test_local_ips(sdk: Proxy, inside: tuple[Any, Any, Any]) -> None:
    _, _, port = inside
    local = sdk.create_local_ip(network_id=port.network_id, name="sdk-local")
    assert local.network_id == port.network_id
    association = sdk.create_local_ip_association(local, fixed_port_id=port.id)
    assert (association.local_ip_id, association.fixed_port_id, association.host) == (local.id, port.id, "")
    assert [one.fixed_port_id for one in sdk.local_ip_associations(local)] == [port.id]
    assert sdk.get_local_ip_association(port.id, local).fixed_ip == port.fixed_ips[0]["ip_address"]
    with pytest.raises(exceptions.ConflictException):
        sdk.delete_local_ip(local)
    sdk.delete_local_ip_association(local, port.id, ignore_missing=False)
    assert list(sdk.local_ip_associations(local)) == []
    assert sdk.update_local_ip(local, name="renamed").name == "renamed"
    sdk.delete_local_ip(local, ignore_missing=False)


def test_what_is_counted_and_offered(sdk: Proxy, public: Any, inside: tuple[Any, Any, Any]) -> None:
    _, _, port = inside
    counted = sdk.get_network_ip_availability(port.network_id)
    assert (counted.total_ips, counted.used_ips) == (253, 2)
    assert counted.subnet_ip_availability[0]["used_ips"] == 2
    assert [one.network_id for one in sdk.network_ip_availabilities(network_name="sdk-public")] == [public.id]
    assert len(list(sdk.network_ip_availabilities(ip_version=6, network_name="sdk-public"))) == 0
    (provider,) = sdk.service_providers()
    assert (provider.name, provider.service_type, provider.is_default) == ("crossway", "L3_ROUTER_NAT", True)
    answer = sdk.get("/floatingip_pools").json()["floatingip_pools"]
    assert [pool["subnet_name"] for pool in answer if pool["network_id"] == public.id] == ["sdk-outer"]


def test_flavors(sdk: Proxy) -> None:
    flavor = sdk.create_flavor(name="sdk-flavor", service_type="L3_ROUTER_NAT", description="d")
    profile = sdk.create_service_profile(metainfo="{}", description="p")
    sdk.associate_flavor_with_service_profile(flavor, profile)
    assert sdk.get_flavor(flavor).service_profile_ids == [profile.id]
    assert sdk.get(f"/service_profiles/{profile.id}").json()["service_profile"]["flavors"] == [flavor.id]
    router = sdk.create_router(flavor_id=flavor.id)
    with pytest.raises(exceptions.ConflictException):
        sdk.delete_flavor(flavor)
    sdk.delete_router(router)
    sdk.disassociate_flavor_from_service_profile(flavor, profile)
    assert sdk.get_flavor(flavor).service_profile_ids == []
    assert sdk.update_flavor(flavor, is_enabled=False).is_enabled is False
    assert [one.id for one in sdk.flavors(name="sdk-flavor")] == [flavor.id]
    sdk.delete_flavor(flavor, ignore_missing=False)
    sdk.delete_service_profile(profile, ignore_missing=False)
