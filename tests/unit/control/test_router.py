"""Routers: gateways, interfaces, routes and flags; and what stands below them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from clouds import ADMIN, ALICE, World
from crossway.control import gateway, policy, router
from crossway.control.caller import Caller
from crossway.control.conntrack_helper import CONNTRACK_HELPERS
from crossway.control.decision import Decision
from crossway.control.flavor import FLAVORS
from crossway.control.router import ROUTERS
from crossway.errors import Fault
from crossway.model.network import Network
from crossway.model.quota import of_project
from crossway.model.rbac import ACCESS_AS_SHARED, RbacPolicy
from crossway.model.router import Router
from crossway.model.subnet import Subnet

ABSENT = "0d2f8a3e-90cc-4b0b-9e1e-0123456789ab"


def refused(by: Any, *args: Any, type: str, status: int, **options: Any) -> str:
    with pytest.raises(Fault) as caught:
        by(*args, **options)
    assert (caught.value.type, caught.value.status) == (type, status), str(caught.value)
    return str(caught.value)


class Place(msgspec.Struct):
    world: World
    public: Network
    outer: Subnet

    def router(self, caller: Caller = ADMIN, **info: Any) -> Router:
        return self.world.router(caller, external_gateway_info={"network_id": self.public.id, **info})

    def act(self, verb: Any, on: Router, *gateways: dict[str, Any], caller: Caller = ADMIN) -> Router:
        body = {"router": {"external_gateways": [{"network_id": self.public.id, **more} for more in gateways]}}
        name, action = next((name, a) for name, a in router.ROUTERS.actions.items() if a.verb is verb)

        def asked(decision: Decision) -> Any:
            policy.act(decision, caller, router.ROUTERS, on.id, name, action, body)
            return verb(decision, caller, on.id, body)

        done: Router = self.world.do(asked)
        return done

    def feet(self, on: Router) -> list[str]:
        """Return the addresses of all gateways, the first one first."""
        told = gateway.every(self.world.cloud, self.world.again(on))
        return [foot["external_fixed_ips"][0]["ip_address"] for foot in told]


@pytest.fixture
def place(world: World) -> Place:
    public = world.network(**{"router:external": True})
    return Place(world, public, world.subnet(public, "198.51.100.0/24"))


# ---- flags


def test_flags_are_for_admins_and_change_while_it_is_down(world: World) -> None:
    made = world.router(ALICE)
    assert (made.distributed, made.ha, made.enable_ndp_proxy, made.flavor_id) == (False, False, False, None)
    refused(world.router, ALICE, distributed=True, type="PolicyNotAuthorized", status=403)
    refused(world.change, made, ALICE, ha=True, type="PolicyNotAuthorized", status=403)
    refused(world.change, made, distributed=True, type="BadRequest", status=400)
    refused(world.change, made, ha=True, type="BadRequest", status=400)
    refused(world.change, made, distributed=True, admin_state_up=False, type="BadRequest", status=400)
    assert world.change(made, ha=True, admin_state_up=False).ha is True
    assert world.change(made, distributed=True).distributed is True
    assert world.router(distributed=True, ha=None).distributed is True
    assert world.change(made, ALICE, name="other").ha is True


def test_a_flavor_of_routers_can_be_had(world: World) -> None:
    right = world.make(FLAVORS, service_type="L3_ROUTER_NAT", name="f")
    wrong = world.make(FLAVORS, service_type="FLAVORS")
    off = world.make(FLAVORS, service_type="L3_ROUTER_NAT", enabled=False)
    made = world.router(ALICE, flavor_id=right.id)
    refused(world.router, flavor_id=ABSENT, type="FlavorNotFound", status=404)
    refused(world.router, flavor_id=wrong.id, type="InvalidServiceType", status=400)
    refused(world.router, flavor_id=off.id, type="FlavorDisabled", status=503)
    refused(world.delete, right, type="FlavorInUse", status=409)
    world.delete(made)
    world.delete(right)


def test_hints_name_the_zone_that_there_is(world: World) -> None:
    made = world.router(availability_zone_hints=["nova"])
    assert made.availability_zone_hints == ("nova",)
    assert ROUTERS.derived["availability_zones"](world.cloud, made) == ["nova"]
    refused(world.router, availability_zone_hints=["moon"], type="AvailabilityZoneNotFound", status=404)


# ---- the gateway


def test_a_gateway_keeps_its_port_while_its_network_stays(place: Place) -> None:
    world, made = place.world, place.router()
    assert made.gateway is not None
    port = world.cloud.ports.rows[made.gateway_port or ""]
    assert (port.device_owner, port.device_id, port.project_id) == ("network:router_gateway", made.id, "")
    info = {"network_id": place.public.id}
    off = world.change(made, external_gateway_info={**info, "enable_snat": False})
    assert (off.gateway_port, off.gateway.enable_snat) == (port.id, False)
    assert off.gateway.external_fixed_ips == made.gateway.external_fixed_ips
    assert world.change(made, external_gateway_info=info).gateway.enable_snat is True
    moved = world.change(made, external_gateway_info={**info, "external_fixed_ips": [{"ip_address": "198.51.100.9"}]})
    assert moved.gateway_port == port.id
    assert [fixed.ip_address for fixed in moved.gateway.external_fixed_ips] == ["198.51.100.9"]
    assert world.cloud.ports.rows[port.id].fixed_ips == moved.gateway.external_fixed_ips
    gone = world.change(made, external_gateway_info={})
    assert (gone.gateway, gone.gateway_port) == (None, None)
    assert port.id not in world.cloud.ports.rows


@pytest.mark.parametrize(
    ("info", "type", "status"),
    [
        ({"enable_snat": True}, "PolicyNotAuthorized", 403),
        ({"external_fixed_ips": [{"ip_address": "198.51.100.9"}]}, "PolicyNotAuthorized", 403),
        ({"network_id": ABSENT}, "NetworkNotFound", 404),
        ({"qos_policy_id": ABSENT}, "QosPolicyNotFound", 404),
    ],
)
def test_what_members_may_say_of_a_gateway(place: Place, info: dict[str, Any], type: str, status: int) -> None:
    refused(place.router, ALICE, type=type, status=status, **info)
    mine = place.router(ALICE)
    body = {"external_gateway_info": {"network_id": place.public.id, **info}}
    refused(place.world.change, mine, ALICE, type=type, status=status, **body)


def test_gateways_that_cannot_be(place: Place) -> None:
    world = place.world
    inner = world.network()
    refused(place.router, network_id=inner.id, type="BadRequest", status=400)
    own = [{"ip_address": "198.51.100.1"}]
    assert "same as the gateway IP" in refused(place.router, external_fixed_ips=own, type="BadRequest", status=400)
    overlapping = world.subnet(inner, "198.51.100.128/25")
    made = world.router()
    world.join(made, subnet_id=overlapping.id)
    info = {"network_id": place.public.id}
    assert "overlaps" in refused(world.change, made, external_gateway_info=info, type="BadRequest", status=400)
    refused(world.join, place.router(), subnet_id=overlapping.id, type="BadRequest", status=400)


def test_several_gateways(place: Place) -> None:
    world, made = place.world, place.world.router(ALICE)
    three = place.act(gateway.add, made, {"enable_snat": False}, {}, {})
    feet = place.feet(made)
    assert len(set(feet)) == 3
    assert three.gateway is not None
    assert (three.gateway.external_fixed_ips[0].ip_address, three.gateway.enable_snat) == (feet[0], False)
    assert "several are on network" in refused(
        place.act, gateway.remove, made, {}, type="UnableToMatchGateways", status=400
    )
    place.act(gateway.remove, made, {"external_fixed_ips": [{"ip_address": feet[2]}]}, caller=ALICE)
    assert place.feet(made) == feet[:2]
    told = gateway.every(world.cloud, world.again(made))
    told[1]["external_fixed_ips"] = [{"ip_address": feet[2]}]
    place.act(gateway.update, made, *told)
    assert place.feet(made) == [feet[0], feet[2]]
    place.act(gateway.remove, made, {"external_fixed_ips": [{"ip_address": feet[0]}]})
    assert place.feet(made) == [feet[2]], "the next one takes the place of the first"
    assert world.again(made).gateway_port in world.cloud.ports.rows
    place.act(gateway.update, made)
    assert place.feet(made) == []
    refused(place.act, gateway.remove, made, {}, type="UnableToRemoveGateways", status=400)
    part = {"external_fixed_ips": [{"ip_address": feet[0]}]}
    refused(place.act, gateway.add, made, part, caller=ALICE, type="PolicyNotAuthorized", status=403)
    place.act(gateway.add, made, {}, {}, caller=ALICE)
    world.delete(made)
    assert not world.cloud.ports.by("network_id", place.public.id)


# ---- interfaces


@pytest.mark.parametrize(
    "body",
    [
        {},
        None,
        [],
        {"subnet_id": "x"},
        {"subnet_id": None},
        {"subnet_id": ABSENT, "port_id": ABSENT},
        {"other": ABSENT},
    ],
)
def test_an_interface_is_named_by_one_thing(world: World, body: Any) -> None:
    made = world.router()
    refused(world.do, lambda d: router.add_interface(d, ADMIN, made.id, body), type="BadRequest", status=400)


def test_ports_that_cannot_be_interfaces(world: World) -> None:
    net, made = world.network(), world.router()
    world.subnet(net, "10.0.0.0/24")
    six, more = world.subnet(net, "2001:db8:1::/64"), world.subnet(net, "2001:db8:2::/64")
    taken = world.port(net, device_id="vm")
    refused(world.join, made, port_id=taken.id, type="PortInUse", status=409)
    bare = world.port(net, fixed_ips=[])
    refused(world.join, made, port_id=bare.id, type="BadRequest", status=400)
    world.join(made, port_id=world.port(net, fixed_ips=[{"subnet_id": six.id}]).id)
    second = world.port(net, fixed_ips=[{"subnet_id": more.id}])
    assert "Only one IPv6 port" in refused(world.join, made, port_id=second.id, type="BadRequest", status=400)
    joined = world.join(made, subnet_id=more.id)
    assert len(world.cloud.ports.rows[joined["port_id"]].fixed_ips) == 2, "a subnet joins by the port that is there"
    auto = world.subnet(net, "2001:db8:3::/64", ipv6_address_mode="slaac")
    refused(world.join, made, subnet_id=auto.id, type="BadRequest", status=400)


@pytest.mark.parametrize("first", [True, False], ids=["by a port of its own", "by the port that is there"])
def test_a_router_is_no_gateway_outside_of_its_subnet(world: World, first: bool) -> None:
    """Its interface would be in the gateway's prefix instead of the subnet's."""
    net, made = world.network(), world.router()
    if not first:
        world.join(made, subnet_id=world.subnet(net, "2001:db8:1::/64").id)
    beyond = world.subnet(net, "2001:db8:2::/64", gateway_ip="2001:db8:9::1")
    refused(world.join, made, subnet_id=beyond.id, type="InvalidIpForSubnet", status=400)


def test_what_is_shared_by_name_can_be_joined(world: World) -> None:
    wide, named, mine = world.network(shared=True), world.network(), world.router(ALICE)
    everyones, ours = world.subnet(wide, "10.0.0.0/24"), world.subnet(named, "10.1.0.0/24")
    refused(world.join, mine, ALICE, subnet_id=everyones.id, type="BadRequest", status=400)
    policy = RbacPolicy(
        id="p", project_id="admin", object_type="network", object_id=named.id, action=ACCESS_AS_SHARED, target="alice"
    )
    world.do(lambda d: d.create(world.cloud.rbac, policy))
    world.join(mine, ALICE, subnet_id=ours.id)


def test_an_interface_that_routes_need_stays(world: World) -> None:
    net, made = world.network(), world.router()
    subnet = world.subnet(net, "10.0.0.0/24")
    joined = world.join(made, subnet_id=subnet.id)
    world.change(made, routes=[{"destination": "192.0.2.0/24", "nexthop": "10.0.0.9"}])
    refused(world.part, made, subnet_id=subnet.id, type="RouterInterfaceInUseByRoute", status=409)
    other = world.subnet(world.network(), "10.1.0.0/24")
    refused(world.part, made, port_id=joined["port_id"], subnet_id=other.id, type="SubnetMismatchForPort", status=400)
    refused(world.part, made, subnet_id=other.id, type="RouterInterfaceNotFoundForSubnet", status=404)
    refused(world.delete, made, type="RouterInUse", status=409)


# ---- routes


def test_routes_are_added_and_taken_one_by_one(world: World) -> None:
    net, made = world.network(), world.router()
    world.join(made, subnet_id=world.subnet(net, "10.0.0.0/24").id)

    def act(verb: Any, *routes: tuple[int, int]) -> list[tuple[str, str]]:
        asked = [{"destination": f"192.0.{d}.0/24", "nexthop": f"10.0.0.{hop}"} for d, hop in routes]
        done = world.do(lambda d: verb(d, ADMIN, made.id, {"router": {"routes": asked}}))
        return [(one.destination, one.nexthop) for one in done.routes]

    assert act(router.add_extraroutes, (2, 2)) == [("192.0.2.0/24", "10.0.0.2")]
    assert len(act(router.add_extraroutes, (2, 2), (3, 3))) == 2
    assert act(router.remove_extraroutes, (3, 3), (4, 4)) == [("192.0.2.0/24", "10.0.0.2")]
    assert len(act(router.add_extraroutes, (2, 5))) == 2, "one destination by several hops"
    assert act(router.remove_extraroutes, (2, 2), (2, 5)) == []
    assert len(act(router.add_extraroutes, *((7, 10 + hop) for hop in range(16)))) == 16
    assert "at most 16" in refused(act, router.add_extraroutes, (7, 30), type="InvalidRoutes", status=400)
    assert act(router.remove_extraroutes, *((7, 10 + hop) for hop in range(16))) == []
    refused(act, router.add_extraroutes, (2, 1), type="InvalidRoutes", status=400)
    world.change(of_project(made.project_id), router_route=2)
    assert len(act(router.add_extraroutes, (2, 2), (3, 2))) == 2
    assert "router_route" in refused(act, router.add_extraroutes, (4, 2), type="OverQuota", status=409)
    world.change(of_project(made.project_id), router_route=-1)
    assert len(act(router.add_extraroutes, *((n, 2) for n in range(40)))) == 40
    for body in (None, {}, {"routes": []}, {"router": {}}, {"router": {"routes": [{"nexthop": "10.0.0.2"}]}}):
        with pytest.raises(Fault) as caught:
            world.do(lambda d, body=body: router.add_extraroutes(d, ADMIN, made.id, body))  # type: ignore[misc]
        assert caught.value.status == 400


# ---- conntrack helpers


def test_helpers_stand_below_their_router(world: World) -> None:
    made = world.router(ALICE)

    def helper(**body: Any) -> Any:
        return world.make(CONNTRACK_HELPERS, ALICE, parent=made.id, **{"protocol": "tcp", "helper": "ftp", **body})

    first = helper(port=21)
    told = {"protocol": "tcp", "port": 21, "helper": "ftp"}
    assert CONNTRACK_HELPERS.kind.show(first) == {"id": first.id, **told}
    assert ROUTERS.derived["conntrack_helpers"](world.cloud, made) == [told]
    refused(helper, port=21, type="BadRequest", status=400)
    refused(helper, port=21, helper="quake", type="ConntrackHelperNotAllowed", status=400)
    refused(helper, port=21, protocol="udp", type="InvalidProtocolForHelper", status=400)
    refused(helper, port=70000, type="Invalid", status=400)
    second = helper(port=2121)
    refused(world.change, second, ALICE, port=21, type="BadRequest", status=400)
    assert world.change(second, ALICE, port=2222).port == 2222
    world.delete(first, ALICE)
    world.delete(made, ALICE)
    assert second.id not in world.cloud.tables["conntrack_helper"].rows
    assert not [key for key in world.stored() if key.startswith("routed/")]
