"""The rules of each verb, as tables: what is refused, under which name, and what follows from what is given."""

from __future__ import annotations

from typing import Any

import pytest

from clouds import ADMIN, ALICE, BOB, World
from crossway.control import group, host
from crossway.control.address import by_mac
from crossway.control.decision import Decision
from crossway.errors import Conflict, Fault, Forbidden, Invalid, NotFound
from crossway.model.network import Network
from crossway.model.port import FixedIp, Pair, Port
from crossway.model.subnet import Pool, Subnet
from crossway.store import Stale

ABSENT = "0d2f8a3e-90cc-4b0b-9e1e-0123456789ab"


def refused(by: Any, *args: Any, type: str, status: int, **options: Any) -> str:
    with pytest.raises(Fault) as caught:
        by(*args, **options)
    assert (caught.value.type, caught.value.status) == (type, status), str(caught.value)
    return str(caught.value)


# ---- networks


@pytest.mark.parametrize(
    ("given", "want"),
    [
        ({}, ("vxlan", None, 1, 1450)),
        ({"provider__network_type": "vxlan", "provider__segmentation_id": 77}, ("vxlan", None, 77, 1450)),
        ({"provider__network_type": "flat", "provider__physical_network": "p1"}, ("flat", "p1", None, 1500)),
        ({"provider__network_type": "vlan", "provider__physical_network": "p1"}, ("vlan", "p1", 1, 1500)),
        (
            {"provider__network_type": "vlan", "provider__physical_network": "p1", "provider__segmentation_id": 9},
            ("vlan", "p1", 9, 1500),
        ),
        ({"mtu": 1300}, ("vxlan", None, 1, 1300)),
    ],
)
def test_provider_attributes_and_mtu(world: World, given: dict[str, Any], want: tuple[Any, ...]) -> None:
    made = world.network(**given)
    assert (made.type, made.physnet, made.segment, made.mtu) == want
    assert made.number >= 1


def test_an_ipv6_underlay_costs_20_bytes_more(world: World) -> None:
    world.host("h1", "192.0.2.1")
    assert world.network().mtu == 1450
    world.host("h2", "2001:db8::2")
    assert world.network().mtu == 1430


@pytest.mark.parametrize(
    ("given", "type"),
    [
        ({"provider__network_type": "flat"}, "InvalidInput"),
        ({"provider__network_type": "vlan"}, "InvalidInput"),
        ({"provider__physical_network": "p1"}, "InvalidInput"),
        ({"provider__network_type": "vxlan", "provider__physical_network": "p1"}, "InvalidInput"),
        (
            {"provider__network_type": "flat", "provider__physical_network": "p", "provider__segmentation_id": 5},
            "InvalidInput",
        ),
        (
            {"provider__network_type": "vlan", "provider__physical_network": "p", "provider__segmentation_id": 4095},
            "InvalidInput",
        ),
        ({"mtu": 9000}, "InvalidInput"),
    ],
)
def test_networks_that_cannot_be(world: World, given: dict[str, Any], type: str) -> None:
    refused(world.network, type=type, status=400, **given)


@pytest.mark.parametrize(("cidr", "least"), [("10.0.0.0/24", 68), ("fd00::/64", 1280)])
def test_a_network_with_subnets_carries_what_ip_demands(world: World, cidr: str, least: int) -> None:
    network = world.network(mtu=least - 1)
    refused(world.subnet, network, cidr, type="NetworkMTUSubnetConflict", status=409)
    world.change(network, mtu=least)
    world.subnet(network, cidr)
    refused(world.change, network, mtu=least - 1, type="NetworkMTUSubnetConflict", status=409)
    world.change(network, mtu=0)
    assert world.again(network).mtu == 1450


def test_segments_are_used_once_until_they_are_freed(world: World) -> None:
    flat = {"provider__network_type": "flat", "provider__physical_network": "p1"}
    vlan = {"provider__network_type": "vlan", "provider__physical_network": "p1", "provider__segmentation_id": 9}
    vxlan = {"provider__network_type": "vxlan", "provider__segmentation_id": 500}
    for given, type in ((flat, "FlatNetworkInUse"), (vlan, "VlanIdInUse"), (vxlan, "TunnelIdInUse")):
        made = world.network(**given)
        refused(world.network, type=type, status=409, **given)
        world.delete(made)
        world.delete(world.network(**given))
    assert world.network(**{**vlan, "provider__physical_network": "p2"}).segment == 9


def test_deleting_a_network_takes_its_subnets_along_but_not_its_ports(world: World) -> None:
    net = world.network()
    subnet = world.subnet(net, "10.0.0.0/24")
    port = world.port(net)
    refused(world.delete, net, type="NetworkInUse", status=409)
    world.delete(port)
    world.delete(net)
    assert subnet.id not in world.cloud.subnets.rows


# ---- who sees what


def test_others_do_not_see_what_is_not_shared(world: World) -> None:
    net = world.network(ALICE)
    refused(world.change, net, BOB, name="x", type="NetworkNotFound", status=404)
    refused(world.delete, net, BOB, type="NetworkNotFound", status=404)
    refused(world.port, net, BOB, type="NetworkNotFound", status=404)
    refused(world.subnet, net, "10.0.0.0/24", BOB, type="NetworkNotFound", status=404)


def test_a_shared_network_can_be_used_by_others_but_not_changed(world: World) -> None:
    net = world.network()
    world.subnet(net, "10.0.0.0/24")
    world.change(net, shared=True)
    port = world.port(net, BOB)
    assert port.project_id == "bob"
    with pytest.raises(Forbidden):
        world.change(net, BOB, name="mine")
    with pytest.raises(Forbidden):
        world.subnet(net, "10.1.0.0/24", BOB)
    refused(world.change, world.again(net), shared=False, type="InvalidSharedSetting", status=409)
    refused(world.change, port, ALICE, name="x", type="PortNotFound", status=404)


def test_only_an_admin_makes_things_for_others(world: World) -> None:
    assert world.network(project_id="bob").project_id == "bob"
    with pytest.raises(Invalid, match="admin privileges"):
        world.network(ALICE, project_id="bob")


def test_groups_of_others_cannot_be_used(world: World) -> None:
    net, group = world.network(ALICE), world.group(BOB, name="g")
    refused(world.port, net, ALICE, security_groups=[group.id], type="SecurityGroupNotFound", status=404)
    own = world.group(ALICE, name="g")
    refused(world.rule, own, ALICE, remote_group_id=group.id, type="SecurityGroupNotFound", status=404)


# ---- subnets


@pytest.mark.parametrize(
    ("cidr", "given", "gateway", "pools"),
    [
        ("10.0.0.0/24", {}, "10.0.0.1", [("10.0.0.2", "10.0.0.254")]),
        ("10.0.0.0/24", {"gateway_ip": None}, None, [("10.0.0.1", "10.0.0.254")]),
        (
            "10.0.0.0/24",
            {"gateway_ip": "10.0.0.9"},
            "10.0.0.9",
            [("10.0.0.1", "10.0.0.8"), ("10.0.0.10", "10.0.0.254")],
        ),
        ("10.0.0.0/24", {"gateway_ip": "10.9.9.9"}, "10.9.9.9", [("10.0.0.1", "10.0.0.254")]),
        ("10.0.0.0/30", {}, "10.0.0.1", [("10.0.0.2", "10.0.0.2")]),
        ("10.0.0.0/31", {"enable_dhcp": False}, None, [("10.0.0.0", "10.0.0.1")]),
        ("10.0.0.5/32", {"enable_dhcp": False}, None, [("10.0.0.5", "10.0.0.5")]),
        ("fd00::/64", {}, "fd00::1", [("fd00::2", "fd00::ffff:ffff:ffff:ffff")]),
        (
            "10.0.0.0/24",
            {"allocation_pools": [{"start": "10.0.0.20", "end": "10.0.0.30"}]},
            "10.0.0.1",
            [("10.0.0.20", "10.0.0.30")],
        ),
    ],
)
def test_gateways_and_pools(world: World, cidr: str, given: dict[str, Any], gateway: str | None, pools: Any) -> None:
    made = world.subnet(world.network(), cidr, **given)
    assert made.gateway_ip == gateway
    assert made.allocation_pools == tuple(Pool(*pool) for pool in pools)


@pytest.mark.parametrize(
    ("cidr", "given", "type", "status"),
    [
        ("10.0.0.0/24", {"ip_version": 6}, "InvalidInput", 400),
        ("0.0.0.0/0", {}, "InvalidInput", 400),
        ("224.0.0.0/24", {}, "InvalidInput", 400),
        ("127.0.0.0/24", {}, "InvalidInput", 400),
        ("10.0.0.0/31", {}, "InvalidInput", 400),
        ("fd00::/127", {}, "InvalidInput", 400),
        ("fd00::1/128", {}, "InvalidInput", 400),
        ("0.0.0.0/8", {}, "InvalidInput", 400),
        ("10.0.0.0/24", {"dns_nameservers": ["9.9.9.9", "fd00::53"]}, "InvalidInput", 400),
        ("10.0.0.0/24", {"gateway_ip": "10.0.0.0"}, "InvalidInput", 400),
        ("10.0.0.0/24", {"gateway_ip": "10.0.0.255"}, "InvalidInput", 400),
        ("10.0.0.0/24", {"gateway_ip": "fd00::1"}, "InvalidInput", 400),
        ("10.0.0.0/24", {"allocation_pools": [{"start": "10.0.0.9", "end": "10.0.0.8"}]}, "InvalidAllocationPool", 400),
        (
            "10.0.0.0/24",
            {"allocation_pools": [{"start": "10.0.1.1", "end": "10.0.1.9"}]},
            "OutOfBoundsAllocationPool",
            400,
        ),
        (
            "10.0.0.0/24",
            {
                "allocation_pools": [
                    {"start": "10.0.0.2", "end": "10.0.0.9"},
                    {"start": "10.0.0.9", "end": "10.0.0.12"},
                ]
            },
            "OverlappingAllocationPools",
            409,
        ),
        (
            "10.0.0.0/24",
            {"gateway_ip": "10.0.0.5", "allocation_pools": [{"start": "10.0.0.2", "end": "10.0.0.9"}]},
            "GatewayConflictWithAllocationPools",
            409,
        ),
        ("10.0.0.0/24", {"ipv6_ra_mode": "slaac"}, "InvalidInput", 400),
        ("fd00::/64", {"ipv6_ra_mode": "slaac", "ipv6_address_mode": "dhcpv6-stateful"}, "InvalidInput", 400),
        ("fd00::/64", {"ipv6_ra_mode": "slaac", "enable_dhcp": False}, "InvalidInput", 400),
        ("fd00::/80", {"ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac"}, "InvalidInput", 400),
        ("10.0.0.0/24", {"host_routes": [{"destination": "fd00::/64", "nexthop": "10.0.0.9"}]}, "InvalidInput", 400),
    ],
)
def test_subnets_that_cannot_be(world: World, cidr: str, given: dict[str, Any], type: str, status: int) -> None:
    refused(world.subnet, world.network(), cidr, type=type, status=status, **given)


def test_subnets_of_a_network_do_not_overlap_but_those_of_others_may(world: World) -> None:
    net = world.network()
    world.subnet(net, "10.0.0.0/24")
    refused(world.subnet, net, "10.0.0.128/25", type="InvalidInput", status=400)
    refused(world.subnet, net, "10.0.0.0/16", type="InvalidInput", status=400)
    world.subnet(net, "10.0.1.0/24")
    world.subnet(world.network(), "10.0.0.0/24")


def test_a_subnet_with_ports_is_in_use(world: World) -> None:
    net = world.network()
    subnet = world.subnet(net, "10.0.0.0/24")
    port = world.port(net)
    refused(world.delete, subnet, type="SubnetInUse", status=409)
    world.delete(port)
    world.delete(subnet)
    world.subnet(net, "10.0.0.0/24")


def test_pools_can_be_changed_while_addresses_are_in_use(world: World) -> None:
    net = world.network()
    subnet = world.subnet(net, "10.0.0.0/24", allocation_pools=[{"start": "10.0.0.10", "end": "10.0.0.11"}])
    assert addresses(world.port(net), world.port(net)) == ["10.0.0.10", "10.0.0.11"]
    refused(world.port, net, type="IpAddressGenerationFailure", status=409)
    world.change(subnet, allocation_pools=[{"start": "10.0.0.11", "end": "10.0.0.12"}])
    assert addresses(world.port(net)) == ["10.0.0.12"]


def test_the_gateway_of_a_router_interface_stays(world: World) -> None:
    subnet = world.subnet(world.network(), "10.0.0.0/24")
    world.join(world.router(), subnet_id=subnet.id)
    refused(world.change, world.again(subnet), gateway_ip=None, type="GatewayIpInUse", status=409)


# ---- ports


@pytest.fixture
def net(world: World) -> Network:
    made = world.network()
    world.subnet(made, "10.0.0.0/24", name="v4")
    world.subnet(made, "fd00::/64", name="v6")
    return made


def of(world: World, name: str) -> Subnet:
    return next(s for s in world.cloud.subnets.rows.values() if s.name == name)


def addresses(*ports: Port) -> list[str]:
    return [fixed.ip_address for port in ports for fixed in port.fixed_ips]


def test_a_port_gets_an_address_of_each_family_a_mac_and_the_default_group(world: World, net: Network) -> None:
    port = world.port(net)
    assert addresses(port) == ["10.0.0.2", "fd00::2"]
    assert port.mac_address.startswith("fa:16:3e:")
    assert port.security_groups == (world.cloud.defaults["admin"],)
    assert (port.status, port.vif_type, port.identity) == ("DOWN", "unbound", 1)


@pytest.mark.parametrize(
    ("wishes", "want"),
    [
        ([], []),
        ([{"subnet_id": "v4"}], ["10.0.0.2"]),
        ([{"subnet_id": "v6"}], ["fd00::2"]),
        ([{"ip_address": "10.0.0.200"}], ["10.0.0.200"]),
        ([{"subnet_id": "v4", "ip_address": "10.0.0.1"}], ["10.0.0.1"]),
        (
            [{"subnet_id": "v4"}, {"ip_address": "10.0.0.9"}, {"ip_address": "fd00::9"}],
            ["10.0.0.2", "10.0.0.9", "fd00::9"],
        ),
    ],
)
def test_addresses_as_wished(world: World, net: Network, wishes: list[dict[str, str]], want: list[str]) -> None:
    named = [{k: of(world, v).id if k == "subnet_id" else v for k, v in wish.items()} for wish in wishes]
    assert addresses(world.port(net, fixed_ips=named)) == want


def test_the_same_wish_twice_is_a_mistake(world: World, net: Network) -> None:
    wish = {"ip_address": "10.0.0.9"}
    with pytest.raises(Invalid, match="Duplicate items"):
        world.port(net, fixed_ips=[wish, wish])


@pytest.mark.parametrize(
    ("wish", "type", "status"),
    [
        ({"ip_address": "192.0.2.1"}, "InvalidIpForNetwork", 400),
        ({"ip_address": "10.0.0.0"}, "InvalidIpForNetwork", 400),
        ({"ip_address": "10.0.0.255"}, "InvalidIpForNetwork", 400),
        ({"ip_address": "fd00::"}, "InvalidIpForNetwork", 400),
        ({"subnet_id": "v4", "ip_address": "10.0.1.1"}, "InvalidIpForSubnet", 400),
        ({"subnet_id": "v4", "ip_address": "fd00::9"}, "InvalidIpForSubnet", 400),
        ({"subnet_id": ABSENT}, "SubnetNotFound", 404),
        ({"subnet_id": "other"}, "InvalidInput", 400),
        ({"ip_address": "10.0.0.77"}, "IpAddressAlreadyAllocated", 409),
    ],
)
def test_addresses_that_cannot_be_had(world: World, net: Network, wish: dict[str, str], type: str, status: int) -> None:
    world.subnet(world.network(), "10.7.0.0/24", name="other")
    world.port(net, fixed_ips=[{"ip_address": "10.0.0.77"}])
    if "subnet_id" in wish and wish["subnet_id"] != ABSENT:
        wish = {**wish, "subnet_id": of(world, wish["subnet_id"]).id}
    refused(world.port, net, fixed_ips=[wish], type=type, status=status)


def test_an_address_that_was_freed_comes_back_last(world: World) -> None:
    net = world.network()
    world.subnet(net, "10.0.0.0/29")
    ports = [world.port(net) for _ in range(3)]
    assert addresses(*ports) == ["10.0.0.2", "10.0.0.3", "10.0.0.4"]
    world.delete(ports[0])
    assert addresses(world.port(net), world.port(net), world.port(net)) == ["10.0.0.5", "10.0.0.6", "10.0.0.2"]
    refused(world.port, net, type="IpAddressGenerationFailure", status=409)


def test_stateless_addresses_follow_from_the_mac(world: World) -> None:
    net = world.network()
    early = world.port(net, mac_address="fa:16:3e:00:00:07")
    slaac = world.subnet(net, "fd00::/64", ipv6_ra_mode="slaac", ipv6_address_mode="slaac")
    assert addresses(world.again(early)) == ["fd00::f816:3eff:fe00:7"]
    late = world.port(net, mac_address="fa:16:3e:00:00:08")
    assert addresses(late) == [by_mac("fd00::/64", "fa:16:3e:00:00:08")] == ["fd00::f816:3eff:fe00:8"]
    refused(world.port, net, fixed_ips=[{"ip_address": "fd00::9"}], type="AllocationOnAutoAddressSubnet", status=400)
    late = world.change(late, mac_address="fa:16:3e:00:00:09")
    assert addresses(late) == ["fd00::f816:3eff:fe00:9"]
    world.delete(slaac)
    assert world.again(late).fixed_ips == ()


def test_changed_addresses_are_freed_and_kept(world: World, net: Network) -> None:
    port = world.port(net)
    v4 = of(world, "v4").id
    changed = world.change(port, fixed_ips=[{"ip_address": "10.0.0.50"}, {"subnet_id": v4, "ip_address": "10.0.0.2"}])
    assert sorted(addresses(changed)) == ["10.0.0.2", "10.0.0.50"]
    kept = world.change(changed, fixed_ips=[{"subnet_id": v4}])
    assert len(addresses(kept)) == 1
    world.port(net, fixed_ips=[{"ip_address": ({"10.0.0.2", "10.0.0.50"} - set(addresses(kept))).pop()}])
    assert world.change(kept, fixed_ips=[]).fixed_ips == ()
    assert not [k for k in world.stored() if k.endswith(addresses(kept)[0])]


def test_macs_are_unique_in_a_network(world: World, net: Network) -> None:
    mac = "fa:16:3e:aa:bb:cc"
    port = world.port(net, mac_address=mac)
    refused(world.port, net, mac_address=mac.upper(), type="MacAddressInUse", status=409)
    other = world.port(net)
    refused(world.change, other, mac_address=mac, type="MacAddressInUse", status=409)
    world.port(world.network(), mac_address=mac)
    world.change(port, mac_address="fa:16:3e:aa:bb:cd")
    assert world.change(other, mac_address=mac).mac_address == mac


def test_port_security_groups_and_pairs_go_together(world: World, net: Network) -> None:
    group = world.group(name="g").id
    pair = {"ip_address": "10.9.0.0/16"}
    refused(
        world.port,
        net,
        port_security_enabled=False,
        security_groups=[group],
        type="PortSecurityAndIPRequiredForSecurityGroups",
        status=400,
    )
    refused(
        world.port,
        net,
        port_security_enabled=False,
        allowed_address_pairs=[pair],
        type="AddressPairAndPortSecurityRequired",
        status=409,
    )
    open_ = world.port(net, port_security_enabled=False)
    assert (open_.security_groups, open_.identity) == ((), 0)
    secured = world.change(open_, port_security_enabled=True, security_groups=[group], allowed_address_pairs=[pair])
    assert secured.allowed_address_pairs == (Pair("10.9.0.0/16", secured.mac_address),)
    assert secured.identity > 0
    refused(world.change, secured, port_security_enabled=False, type="PortSecurityPortHasSecurityGroup", status=409)
    bare = world.change(secured, port_security_enabled=False, security_groups=[], allowed_address_pairs=[])
    assert bare.identity == 0


def test_a_network_without_port_security_gives_it_to_its_ports(world: World) -> None:
    net = world.network(port_security_enabled=False)
    assert world.port(net).port_security_enabled is False
    assert world.port(net, port_security_enabled=True).port_security_enabled is True


def test_binding(world: World, net: Network) -> None:
    world.host("h1")
    port = world.port(net, binding__host_id="h1", binding__profile={"device": "tap7"})
    assert (port.host, port.vif_type, port.device) == ("h1", "tap", "tap7")
    free = world.change(port, binding__host_id="")
    assert (free.host, free.vif_type, free.vif_details) == ("", "unbound", {})


def test_dhcp_options_are_changed_one_by_one(world: World, net: Network) -> None:
    def option(name: str, value: str | None, version: int = 4) -> dict[str, Any]:
        return {"opt_name": name, "opt_value": value, "ip_version": version}

    def told(port: Port) -> list[tuple[str, str | None, int]]:
        return [(o.opt_name, o.opt_value, o.ip_version) for o in port.extra_dhcp_opts]

    port = world.port(net, extra_dhcp_opts=[{"opt_name": "mtu", "opt_value": "1400"}, option("dns", None)])
    assert told(port) == [("mtu", "1400", 4)]
    port = world.change(port, extra_dhcp_opts=[option("mtu", "1300"), option("mtu", "1280", 6), option("router", "")])
    assert told(port) == [("mtu", "1300", 4), ("mtu", "1280", 6), ("router", "", 4)]
    assert told(world.change(port, extra_dhcp_opts=None, name="n")) == told(port)
    port = world.change(port, extra_dhcp_opts=[option("mtu", None), option("gone", None)])
    assert told(port) == [("mtu", "1280", 6), ("router", "", 4)]


@pytest.mark.parametrize(
    "options",
    [
        [{"opt_name": "mtu"}],
        [{"opt_name": "", "opt_value": "x"}],
        [{"opt_name": "a\nb", "opt_value": "x"}],
        [{"opt_name": "mtu", "opt_value": ""}],
        [{"opt_name": "mtu", "opt_value": "1", "ip_version": 5}],
        [{"opt_name": "mtu", "opt_value": "1"}, {"opt_name": "mtu", "opt_value": "2", "ip_version": 4}],
        [{"opt_name": "mtu", "opt_value": "1", "more": 1}],
        {"opt_name": "mtu", "opt_value": "1"},
    ],
    ids=str,
)
def test_dhcp_options_that_cannot_be(world: World, net: Network, options: Any) -> None:
    with pytest.raises(Invalid, match="extra_dhcp_opts"):
        world.port(net, extra_dhcp_opts=options)


def test_a_port_cannot_pass_for_a_routers(world: World, net: Network) -> None:
    with pytest.raises(Invalid, match="for routers"):
        world.port(net, device_owner="network:router_interface", device_id="r")
    with pytest.raises(Invalid, match="for routers"):
        world.change(world.port(net), device_owner="network:router_interface")


# ---- routers


def test_a_router_joins_by_subnet_and_by_port(world: World) -> None:
    one, two = world.network(), world.network()
    subnet, other = world.subnet(one, "10.0.0.0/24"), world.subnet(two, "10.1.0.0/24")
    port = world.port(two, fixed_ips=[{"ip_address": "10.1.0.77"}])
    router = world.router()
    first = world.join(router, subnet_id=subnet.id)
    assert addresses(world.cloud.ports.rows[first["port_id"]]) == ["10.0.0.1"]
    second = world.join(router, port_id=port.id)
    assert second["subnet_ids"] == [other.id]
    assert world.again(port).device_owner == "network:router_interface"
    assert world.again(port).security_groups == ()
    refused(world.delete, router, type="RouterInUse", status=409)
    refused(world.delete, world.again(port), type="ServicePortInUse", status=409)
    refused(world.change, world.again(port), fixed_ips=[], type="ServicePortInUse", status=409)
    refused(world.delete, subnet, type="SubnetInUse", status=409)
    assert world.change(world.again(port), binding__host_id="h1").status == "ACTIVE", "it is everywhere"
    world.part(router, subnet_id=subnet.id)
    world.part(router, port_id=port.id)
    assert len(world.cloud.ports) == 0
    world.delete(router)


def test_a_routers_interface_keeps_its_subnets_and_what_its_neighbours_know_it_by(world: World) -> None:
    net, router = world.network(), world.router()
    subnet, other = world.subnet(net, "10.0.0.0/24"), world.subnet(net, "10.1.0.0/24")
    port = world.cloud.ports.rows[world.join(router, subnet_id=subnet.id)["port_id"]]
    assert addresses(world.change(port, fixed_ips=[{"subnet_id": subnet.id}])) == ["10.0.0.1"]
    same = [{"subnet_id": subnet.id, "ip_address": "10.0.0.1"}]
    assert addresses(world.change(port, fixed_ips=same, device_id=router.id)) == ["10.0.0.1"]
    wish = [{"subnet_id": subnet.id, "ip_address": "10.0.0.9"}]
    refused(world.change, port, fixed_ips=wish, type="BadRequest", status=400)
    refused(world.change, port, fixed_ips=[*same, *wish], type="BadRequest", status=400)
    refused(world.change, port, fixed_ips=[{"subnet_id": other.id}], type="ServicePortInUse", status=409)
    refused(world.change, port, fixed_ips=[], type="ServicePortInUse", status=409)
    refused(world.change, port, device_id="", type="ServicePortInUse", status=409)
    assert addresses(world.again(port)) == ["10.0.0.1"]


def test_a_routers_interface_takes_another_address_of_ipv6(world: World) -> None:
    net, router = world.network(), world.router()
    subnet = world.subnet(net, "fd00::/64")
    port = world.cloud.ports.rows[world.join(router, subnet_id=subnet.id)["port_id"]]
    assert addresses(world.change(port, fixed_ips=[{"ip_address": "fd00::9"}])) == ["fd00::9"]


def test_ipv6_subnets_of_a_network_share_an_interface(world: World) -> None:
    net, router = world.network(), world.router()
    subnets = [world.subnet(net, f"fd00:{i}::/64") for i in range(2)]
    ports = {world.join(router, subnet_id=subnet.id)["port_id"] for subnet in subnets}
    assert len(ports) == 1
    world.part(router, subnet_id=subnets[0].id)
    assert addresses(world.cloud.ports.rows[ports.pop()]) == ["fd00:1::1"]


def test_interfaces_that_cannot_be(world: World) -> None:
    net, router = world.network(), world.router()
    subnet = world.subnet(net, "10.0.0.0/24")
    bare = world.subnet(net, "10.1.0.0/24", gateway_ip=None)
    same = world.subnet(world.network(), "10.0.0.0/16")
    refused(world.join, router, type="BadRequest", status=400)
    refused(world.join, router, subnet_id=subnet.id, port_id=ABSENT, type="BadRequest", status=400)
    refused(world.join, router, subnet_id=ABSENT, type="SubnetNotFound", status=404)
    refused(world.join, router, port_id=ABSENT, type="PortNotFound", status=404)
    refused(world.join, router, subnet_id=bare.id, type="BadRequest", status=400)
    world.join(router, subnet_id=subnet.id)
    refused(world.join, router, subnet_id=subnet.id, type="BadRequest", status=400)
    refused(world.join, router, subnet_id=same.id, type="BadRequest", status=400)
    refused(world.join, world.router(), subnet_id=subnet.id, type="IpAddressAlreadyAllocated", status=409)
    refused(world.join, router, port_id=world.port(net, device_id="vm").id, type="PortInUse", status=409)
    refused(world.join, router, port_id=world.port(net, fixed_ips=[]).id, type="BadRequest", status=400)
    refused(world.part, router, subnet_id=bare.id, type="RouterInterfaceNotFoundForSubnet", status=404)
    refused(world.part, router, port_id=ABSENT, type="RouterInterfaceNotFound", status=404)


def test_routes_lead_to_neighbours_and_hold_their_interface(world: World) -> None:
    net, router = world.network(), world.router()
    subnet = world.subnet(net, "10.0.0.0/24")
    world.join(router, subnet_id=subnet.id)
    for nexthop, destination in (("10.5.0.1", "10.9.0.0/16"), ("10.0.0.1", "10.9.0.0/16"), ("10.0.0.9", "fd00::/64")):
        route = {"destination": destination, "nexthop": nexthop}
        refused(world.change, world.again(router), routes=[route], type="InvalidRoutes", status=400)
    world.change(world.again(router), routes=[{"destination": "10.9.0.0/16", "nexthop": "10.0.0.9"}])
    refused(world.part, router, subnet_id=subnet.id, type="RouterInterfaceInUseByRoute", status=409)
    world.change(world.again(router), routes=[])
    world.part(router, subnet_id=subnet.id)


def test_a_gateway_is_a_port_on_an_external_network(world: World) -> None:
    inner, outer = world.network(), world.network(router__external=True)
    world.subnet(outer, "203.0.113.0/24")
    world.subnet(outer, "2001:db8::/64")
    refused(world.router, external_gateway_info={"network_id": inner.id}, type="BadRequest", status=400)
    router = world.router(external_gateway_info={"network_id": outer.id})
    assert router.gateway
    assert [f.ip_address for f in router.gateway.external_fixed_ips] == ["203.0.113.2", "2001:db8::2"]
    refused(world.delete, outer, type="NetworkInUse", status=409)
    refused(world.change, outer, router__external=False, type="ExternalNetworkInUse", status=409)
    wish = {"network_id": outer.id, "external_fixed_ips": [{"ip_address": "203.0.113.99"}]}
    moved = world.change(router, external_gateway_info=wish)
    assert moved.gateway.external_fixed_ips == (FixedIp(moved.gateway.external_fixed_ips[0].subnet_id, "203.0.113.99"),)
    assert len(world.cloud.ports) == 1
    world.change(moved, external_gateway_info=None)
    assert len(world.cloud.ports) == 0


# ---- groups and rules


def test_every_project_has_a_default_group_that_stays_what_it_is(world: World) -> None:
    world.group(ALICE, name="web")
    default = world.cloud.groups.rows[world.cloud.defaults["alice"]]
    rules = world.cloud.rules.by("security_group_id", default.id)
    assert sorted((r.direction, r.ethertype, r.remote_group_id) for r in rules if r.direction == "egress") == [
        ("egress", "IPv4", None),
        ("egress", "IPv6", None),
    ]
    assert {r.remote_group_id for r in rules if r.direction == "ingress"} == {default.id}
    refused(world.group, ALICE, name="default", type="SecurityGroupDefaultAlreadyExists", status=409)
    refused(world.change, default, ALICE, name="mine", type="SecurityGroupCannotUpdateDefault", status=409)
    refused(world.delete, default, ALICE, type="SecurityGroupCannotRemoveDefault", status=409)


def test_a_group_in_use_stays(world: World) -> None:
    net, group = world.network(), world.group(name="g")
    port = world.port(net, security_groups=[group.id])
    refused(world.delete, group, type="SecurityGroupInUse", status=409)
    refused(world.change, group, stateful=False, type="SecurityGroupInUse", status=409)
    world.delete(port)
    world.delete(group)


def test_a_group_takes_rules_that_name_it_along(world: World) -> None:
    gone, stays = world.group(name="gone"), world.group(name="stays")
    rule = world.rule(stays, remote_group_id=gone.id)
    world.delete(gone)
    assert rule.id not in world.cloud.rules.rows
    assert not [key for key in world.stored() if gone.id in key]


def test_the_groups_of_a_port_are_all_stateful_or_none(world: World) -> None:
    network, stateful, stateless = world.network(), world.group(name="a"), world.group(name="b", stateful=False)
    both = [stateful.id, stateless.id]
    refused(world.port, network, type="SecurityGroupConflict", status=409, security_groups=both)
    for one in both:
        port = world.port(network, security_groups=[one])
        refused(world.change, port, type="SecurityGroupConflict", status=409, security_groups=both)
        world.change(port, security_groups=[next(id for id in both if id != one)])
        world.delete(port)
    world.change(stateless, stateful=True)
    world.port(network, security_groups=both)


@pytest.mark.parametrize("known", [True, False], ids=["a set that ports had", "a new set"])
def test_a_group_that_a_port_gets_meanwhile_stays_as_it_is(world: World, known: bool) -> None:
    network, made = world.network(), world.group(name="a")
    if known:
        world.delete(world.port(network, security_groups=[made.id]))
    changing = Decision(world.cloud)
    group.update(changing, ADMIN, made.id, {"stateful": False})
    world.port(network, security_groups=[made.id])
    with pytest.raises(Stale):
        world.runner.run(world.cloud.store.commit(changing.transaction))
    refused(world.change, made, type="SecurityGroupInUse", status=409, stateful=False)


@pytest.mark.parametrize(
    ("given", "type", "status"),
    [
        ({"protocol": "tcp", "port_range_min": 80, "port_range_max": 90}, None, 0),
        ({"protocol": "17", "port_range_min": 53, "port_range_max": 53}, None, 0),
        ({"protocol": "icmp", "port_range_min": 8}, None, 0),
        ({"protocol": "icmp", "port_range_min": 0, "port_range_max": 0}, None, 0),
        ({"protocol": "gre"}, None, 0),
        ({"protocol": "ipv6-icmp", "ethertype": "IPv6", "port_range_min": 128}, None, 0),
        ({"remote_ip_prefix": "10.0.0.0/8"}, None, 0),
        ({"remote_ip_prefix": "10.0.0.9"}, None, 0),
        ({"protocol": "tcp", "port_range_min": 80}, "SecurityGroupInvalidPortRange", 400),
        ({"protocol": "tcp", "port_range_min": 90, "port_range_max": 80}, "SecurityGroupInvalidPortRange", 400),
        ({"protocol": "tcp", "port_range_min": 0, "port_range_max": 80}, "SecurityGroupInvalidPortValue", 400),
        ({"port_range_min": 80, "port_range_max": 80}, "SecurityGroupProtocolRequiredWithPorts", 400),
        ({"protocol": "gre", "port_range_min": 8, "port_range_max": 8}, "SecurityGroupInvalidProtocolForPort", 400),
        ({"protocol": "icmp", "port_range_min": 256}, "SecurityGroupInvalidIcmpValue", 400),
        ({"protocol": "icmp", "port_range_min": 8, "port_range_max": 256}, "SecurityGroupInvalidIcmpValue", 400),
        ({"protocol": "icmp", "port_range_max": 0}, "SecurityGroupMissingIcmpType", 400),
        ({"protocol": "ipv6-icmp"}, "SecurityGroupEthertypeConflictWithProtocol", 400),
        ({"protocol": "58"}, "SecurityGroupEthertypeConflictWithProtocol", 400),
        ({"protocol": "41"}, "SecurityGroupEthertypeConflictWithProtocol", 400),
        ({"protocol": "60"}, "SecurityGroupEthertypeConflictWithProtocol", 400),
        ({"remote_ip_prefix": "fd00::/8"}, "SecurityGroupRuleParameterConflict", 400),
        ({"remote_ip_prefix": "10.0.0.0/8", "ethertype": "IPv6"}, "SecurityGroupRuleParameterConflict", 400),
        (
            {"remote_ip_prefix": "10.0.0.0/8", "remote_group_id": ABSENT},
            "SecurityGroupMultipleRemoteEntites",
            400,
        ),
        ({"remote_group_id": ABSENT}, "SecurityGroupNotFound", 404),
        ({"remote_group_id": "no-such-group"}, "SecurityGroupNotFound", 404),
        ({"remote_group_id": ""}, "SecurityGroupNotFound", 404),
    ],
)
def test_rules(world: World, given: dict[str, Any], type: str | None, status: int) -> None:
    group = world.group(name="g")
    if type:
        refused(world.rule, group, type=type, status=status, **given)
        return
    rule = world.rule(group, **given)
    assert str(rule.id) in refused(world.rule, group, type="SecurityGroupRuleExists", status=409, **given)
    world.delete(rule)
    world.rule(group, **given)


@pytest.mark.parametrize(
    ("said", "shown", "means"),
    [
        ("10.0.0.34/24", "10.0.0.34/24", "10.0.0.0/24"),
        ("10.0.0.34/255.255.255.0", "10.0.0.34/24", "10.0.0.0/24"),
        ("10.0.0.34", "10.0.0.34/32", "10.0.0.34/32"),
        ("FD00::0:1/64", "fd00::1/64", "fd00::/64"),
        ("fd00::1", "fd00::1/128", "fd00::1/128"),
    ],
)
def test_a_rules_prefix_is_shown_as_it_was_said(world: World, said: str, shown: str, means: str) -> None:
    rule = world.rule(world.group(name="g"), remote_ip_prefix=said, ethertype="IPv6" if ":" in said else "IPv4")
    assert (rule.remote_ip_prefix, rule.normalized_cidr) == (shown, means)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"protocol": "tcp"}, {"protocol": "6"}),
        ({}, {"remote_ip_prefix": "0.0.0.0/0"}),
        ({"remote_ip_prefix": "10.1.2.3/8"}, {"remote_ip_prefix": "10.0.0.0/8"}),
        ({"remote_ip_prefix": "10.0.0.9"}, {"remote_ip_prefix": "10.0.0.9/32"}),
        ({"protocol": "icmp", "ethertype": "IPv6"}, {"protocol": "icmpv6", "ethertype": "IPv6"}),
    ],
)
def test_rules_that_mean_the_same(world: World, first: dict[str, Any], second: dict[str, Any]) -> None:
    group = world.group(name="g")
    world.rule(group, **first)
    refused(world.rule, group, type="SecurityGroupRuleExists", status=409, **second)


def test_a_rule_needs_its_group(world: World) -> None:
    refused(world.rule, ABSENT, type="SecurityGroupNotFound", status=404)


# ---- hosts


def test_a_host_with_ports_is_in_use(world: World) -> None:
    world.host("h1")
    port = world.port(world.network(), binding__host_id="h1")
    with pytest.raises(Conflict, match=f"host h1 is in use by port {port.id}"):
        world.do(lambda d: host.forget(d, "h1"))
    world.delete(port)
    world.do(lambda d: host.forget(d, "h1"))
    with pytest.raises(NotFound):
        world.do(lambda d: host.forget(d, "h1"))


def test_registering_again_changes_nothing(world: World) -> None:
    world.host("h1")
    revision = world.cloud.revision
    world.host("h1")
    assert world.cloud.revision == revision
