"""Local IPs and the ports that answer to them; availability of addresses; flavors and providers."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from clouds import ADMIN, ALICE, BOB, World
from crossway.control.flavor import FLAVORS, SERVICE_PROFILES, next_providers
from crossway.control.local_ip import LOCAL_IPS, PORT_ASSOCIATIONS
from crossway.control.network_ip_availability import NETWORK_IP_AVAILABILITIES, rows
from crossway.control.service_provider import rows as providers
from crossway.errors import Fault
from crossway.model.network import Network

ABSENT = "0d2f8a3e-90cc-4b0b-9e1e-0123456789ab"
FLAVOR_PROFILES = FLAVORS.children[0]


def refused(by: Any, *args: Any, type: str, status: int, **options: Any) -> str:
    with pytest.raises(Fault) as caught:
        by(*args, **options)
    assert (caught.value.type, caught.value.status) == (type, status), str(caught.value)
    return str(caught.value)


@pytest.fixture
def net(world: World) -> Network:
    net = world.network(ALICE)
    world.subnet(net, "10.0.0.0/24", ALICE)
    return net


# ---- local IPs


def test_it_is_an_address_of_a_port_or_has_a_port_of_its_own(world: World, net: Network) -> None:
    port = world.port(net, ALICE)
    ip = port.fixed_ips[0].ip_address
    lent = world.make(LOCAL_IPS, ALICE, local_port_id=port.id)
    assert (lent.network_id, lent.local_ip_address, lent.ip_mode) == (net.id, ip, "translate")
    own = world.make(LOCAL_IPS, ALICE, network_id=net.id, local_ip_address="10.0.0.77", name="n")
    its = world.cloud.ports.rows[own.local_port_id]
    assert (its.device_owner, its.device_id, its.project_id) == ("network:local_ip", own.id, "alice")
    assert own.local_ip_address == its.fixed_ips[0].ip_address == "10.0.0.77"
    assert world.change(own, ALICE, name="m").name == "m"
    refused(world.delete, port, ALICE, type="ServicePortInUse", status=409)
    refused(world.delete, its, ALICE, type="ServicePortInUse", status=409)
    world.delete(own, ALICE)
    world.delete(lent, ALICE)
    assert its.id not in world.cloud.ports.rows
    world.delete(port, ALICE)


@pytest.mark.parametrize(
    ("body", "type", "status"),
    [
        ({}, "LocalIPPortOrNetworkRequired", 400),
        ({"local_port_id": ABSENT}, "PortNotFound", 404),
        ({"network_id": ABSENT}, "NetworkNotFound", 404),
        ({"ip_mode": "bridge"}, "Invalid", 400),
    ],
)
def test_what_cannot_be_made(world: World, body: dict[str, Any], type: str, status: int) -> None:
    refused(world.make, LOCAL_IPS, ALICE, type=type, status=status, **body)


def test_of_several_addresses_one_is_named(world: World, net: Network) -> None:
    port = world.port(net, ALICE, fixed_ips=[{"ip_address": "10.0.0.8"}, {"ip_address": "10.0.0.9"}])
    make = world.make
    refused(make, LOCAL_IPS, ALICE, local_port_id=port.id, type="LocalIPNoRequestedIP", status=400)
    body = {"local_port_id": port.id, "local_ip_address": "10.0.0.10"}
    refused(make, LOCAL_IPS, ALICE, type="LocalIPRequestedIPNotFound", status=400, **body)
    bare = world.port(net, ALICE, fixed_ips=[])
    refused(make, LOCAL_IPS, ALICE, local_port_id=bare.id, type="LocalIPNoIP", status=400)


def test_ports_answer_to_it(world: World, net: Network) -> None:
    local = world.make(LOCAL_IPS, ALICE, network_id=net.id)
    port = world.port(net, binding__host_id="h1", project_id="alice")

    def answer(caller: Any = ALICE, **body: Any) -> Any:
        return world.make(PORT_ASSOCIATIONS, caller, parent=local.id, **{"fixed_port_id": port.id, **body})

    made = answer()
    assert PORT_ASSOCIATIONS.kind.show(made) == {
        "local_ip_id": local.id,
        "local_ip_address": local.local_ip_address,
        "fixed_port_id": port.id,
        "fixed_ip": port.fixed_ips[0].ip_address,
    }
    assert PORT_ASSOCIATIONS.derived["host"](world.cloud, made) == "h1"
    refused(answer, type="LocalIPAssociationExists", status=409)
    refused(answer, BOB, type="LocalIPNotFound", status=404)
    refused(world.delete, local, ALICE, type="LocalIPInUse", status=409)
    world.delete(made, ALICE)
    answer()
    world.delete(port)
    world.delete(local, ALICE)
    assert not [key for key in world.stored() if key.startswith(("answers/", "outside/"))]


def test_an_address_that_goes_answers_no_more(world: World, net: Network) -> None:
    local = world.make(LOCAL_IPS, ALICE, network_id=net.id)
    port = world.port(net, ALICE, fixed_ips=[{"ip_address": "10.0.0.8"}, {"ip_address": "10.0.0.9"}])
    world.make(PORT_ASSOCIATIONS, ALICE, parent=local.id, fixed_port_id=port.id, fixed_ip="10.0.0.8")
    world.change(port, ALICE, fixed_ips=[{"ip_address": "10.0.0.9"}])
    world.delete(local, ALICE)


# ---- availability


def test_addresses_are_counted(world: World) -> None:
    net, empty = world.network(name="n"), world.network(name="empty")
    four = world.subnet(net, "10.0.0.0/24", allocation_pools=[{"start": "10.0.0.10", "end": "10.0.0.19"}])
    six = world.subnet(net, "2001:db8::/48")
    world.port(net, fixed_ips=[{"ip_address": "10.0.0.10"}, {"ip_address": "10.0.0.99"}])
    counted = {row.network_name: NETWORK_IP_AVAILABILITIES.kind.show(row) for row in rows(world.cloud, ADMIN)}
    assert counted["empty"]["subnet_ip_availability"] == ()
    assert (counted["empty"]["total_ips"], counted["empty"]["network_id"]) == (0, empty.id)
    told = counted["n"]
    assert told["used_ips"] == 2
    by_subnet = {one["subnet_id"]: one for one in told["subnet_ip_availability"]}
    assert by_subnet[four.id] == {
        "subnet_id": four.id,
        "subnet_name": "",
        "cidr": "10.0.0.0/24",
        "ip_version": 4,
        "total_ips": 10,
        "used_ips": 2,
        "ip_availability_details": {
            "total_ips_in_subnet": 254,
            "total_ips_in_allocation_pool": 10,
            "used_ips_in_subnet": 2,
            "used_ips_in_allocation_pool": 1,
        },
    }
    assert by_subnet[six.id]["total_ips"] == 2**80 - 2
    assert b"1208925819614629174706174" in msgspec.json.encode(told), "more than 64 bits hold"
    assert list(rows(world.cloud, ALICE)) == []


# ---- flavors


def test_flavors_and_their_profiles(world: World) -> None:
    profile = world.make(SERVICE_PROFILES, metainfo='{"a": 1}')
    driven = world.make(SERVICE_PROFILES, driver=providers(world.cloud, ADMIN)[0].name)
    flavor = world.make(FLAVORS, service_type="L3_ROUTER_NAT", service_profiles=[driven.id])
    bound = world.make(FLAVOR_PROFILES, parent=flavor.id, id=profile.id)
    assert FLAVOR_PROFILES.kind.show(bound) == {"id": profile.id}
    assert sorted(FLAVORS.derived["service_profiles"](world.cloud, flavor)) == sorted([driven.id, profile.id])
    assert SERVICE_PROFILES.derived["flavors"](world.cloud, profile) == [flavor.id]
    refused(
        world.make,
        FLAVOR_PROFILES,
        parent=flavor.id,
        id=profile.id,
        type="FlavorServiceProfileBindingExists",
        status=409,
    )
    refused(world.make, FLAVOR_PROFILES, parent=flavor.id, id=ABSENT, type="ServiceProfileNotFound", status=404)
    refused(world.delete, profile, type="ServiceProfileInUse", status=409)
    refused(world.change, profile, enabled=False, type="ServiceProfileInUse", status=409)
    world.change(flavor, service_profiles=[profile.id])
    assert FLAVORS.derived["service_profiles"](world.cloud, flavor) == [profile.id]
    assert world.change(flavor, enabled=False).enabled is False
    world.delete(flavor)
    world.delete(profile)
    world.delete(driven)
    assert not [key for key in world.stored() if key.startswith(("bound/", "flavor"))]


def test_a_flavor_tells_who_does_the_service_next(world: World) -> None:
    driven, plain = world.make(SERVICE_PROFILES, driver="crossway"), world.make(SERVICE_PROFILES, metainfo="{}")
    flavor = world.make(FLAVORS, service_type="L3_ROUTER_NAT")

    def told() -> Any:
        return world.do(lambda d: next_providers(d, ALICE, flavor.id, None))

    refused(told, type="FlavorServiceProfileBindingNotFound", status=404)
    world.change(flavor, service_profiles=[driven.id])
    assert told() == {"next_providers": [{"driver": "crossway", "provider": "crossway"}]}
    world.change(flavor, service_profiles=[plain.id])
    refused(told, type="ServiceProfileDriverNotFound", status=404)
    world.change(flavor, service_profiles=[])
    world.change(driven, enabled=False)
    world.change(flavor, service_profiles=[driven.id])
    refused(told, type="ServiceProfileDisabled", status=503)


def test_flavors_are_for_admins_and_seen_by_all(world: World) -> None:
    refused(world.make, FLAVORS, ALICE, service_type="L3_ROUTER_NAT", type="PolicyNotAuthorized", status=403)
    refused(world.make, FLAVORS, service_type="BREAD", type="Invalid", status=400)
    refused(world.make, SERVICE_PROFILES, type="ServiceProfileEmpty", status=400)
    refused(world.make, SERVICE_PROFILES, driver="other", type="ServiceProfileDriverNotFound", status=404)
    flavor = world.make(FLAVORS, service_type="L3_ROUTER_NAT")
    refused(world.delete, flavor, ALICE, type="PolicyNotAuthorized", status=403)
