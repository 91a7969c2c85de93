"""Floating IPs and port forwardings: what they stand for, what is refused, and what becomes of them."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import msgspec
import pytest

from clouds import ADMIN, ALICE, BOB, COLLECTIONS, World
from crossway.control import floatingip, network, port_forwarding
from crossway.control import port as control_port
from crossway.control import router as control_router
from crossway.control.caller import Caller, implied
from crossway.control.decision import Decision, decide
from crossway.control.floatingip import FLOATINGIPS
from crossway.control.floatingip_pool import rows as pools
from crossway.control.port_forwarding import PORT_FORWARDINGS
from crossway.errors import Fault
from crossway.model.floatingip import FLOATING_IP, FloatingIp
from crossway.model.network import Network
from crossway.model.port import Port
from crossway.model.router import Router
from crossway.model.subnet import Subnet

ABSENT = "0d2f8a3e-90cc-4b0b-9e1e-0123456789ab"
MANAGER = Caller("alice", roles=implied(["manager"]))


def refused(by: Any, *args: Any, type: str, status: int, **options: Any) -> str:
    with pytest.raises(Fault) as caught:
        by(*args, **options)
    assert (caught.value.type, caught.value.status) == (type, status), str(caught.value)
    return str(caught.value)


class Place(msgspec.Struct):
    """A project's network behind a router to the outside."""

    world: World
    public: Network
    outer: Subnet
    net: Network
    subnet: Subnet
    router: Router

    def fip(self, caller: Caller = ALICE, **body: Any) -> FloatingIp:
        made: FloatingIp = self.world.make(FLOATINGIPS, caller, floating_network_id=self.public.id, **body)
        return made

    def port(self, caller: Caller = ALICE, **body: Any) -> Port:
        return self.world.port(self.net, caller, **body)

    def forward(self, fip: FloatingIp, port: Port, caller: Caller = ALICE, **body: Any) -> Any:
        body = {"internal_port_id": port.id, "protocol": "tcp", **body}
        return self.world.make(PORT_FORWARDINGS, caller, parent=fip.id, **body)

    def told(self, fip: FloatingIp) -> dict[str, Any]:
        fip = self.world.again(fip)
        return {name: of(self.world.cloud, fip) for name, of in FLOATINGIPS.derived.items()}


@pytest.fixture
def place(world: World) -> Place:
    public = world.network(**{"router:external": True})
    outer = world.subnet(public, "198.51.100.0/24")
    net = world.network(ALICE)
    subnet = world.subnet(net, "10.0.0.0/24", ALICE)
    router = world.router(ALICE, external_gateway_info={"network_id": public.id})
    world.join(router, ALICE, subnet_id=subnet.id)
    return Place(world, public, outer, net, subnet, world.again(router))


def test_it_has_an_address_and_a_port_of_nobody_outside(place: Place) -> None:
    fip = place.fip(description="d")
    port = place.world.cloud.ports.rows[fip.port]
    assert (port.device_owner, port.device_id, port.project_id, port.status) == (FLOATING_IP, fip.id, "", "N/A")
    assert fip.floating_ip_address == port.fixed_ips[0].ip_address
    assert (fip.project_id, fip.status, fip.port_id, fip.router_id, fip.description) == (
        "alice",
        "DOWN",
        None,
        None,
        "d",
    )
    assert place.told(fip) == {"port_details": None, "port_forwardings": []}
    refused(place.world.delete, port, type="ServicePortInUse", status=409)


def test_it_gives_all_back(place: Place) -> None:
    before = place.world.stored()
    port = place.port()
    after = place.world.stored()
    fip = place.fip(port_id=port.id)
    forwarded = place.fip()
    forwarding = place.forward(forwarded, place.port(), internal_port=80, external_port=8080)
    place.world.delete(forwarding, ALICE)
    place.world.delete(forwarded, ALICE)
    place.world.delete(fip, ALICE)
    assert {
        key for key in place.world.stored() if "outside/" in key or "routed/" in key or "floatingip/" in key
    } == set()
    assert len(before) < len(after)


@pytest.mark.parametrize(
    ("body", "type", "status"),
    [
        ({"fixed_ip_address": "10.0.0.9"}, "BadRequest", 400),
        ({"port_id": ABSENT}, "PortNotFound", 404),
        ({"floating_network_id": ABSENT}, "NetworkNotFound", 404),
        ({"floating_ip_address": "198.51.100.9"}, "PolicyNotAuthorized", 403),
        ({"subnet_id": ABSENT}, "SubnetNotFound", 404),
        ({"qos_policy_id": ABSENT}, "QosPolicyNotFound", 404),
        ({"router_id": ABSENT}, "BadRequest", 400),
        ({"dns_name": "not a name"}, "Invalid", 400),
        ({"port": "x"}, "Invalid", 400),
    ],
)
def test_what_cannot_be_made(place: Place, body: dict[str, Any], type: str, status: int) -> None:
    refused(
        place.world.make,
        FLOATINGIPS,
        ALICE,
        type=type,
        status=status,
        **{"floating_network_id": place.public.id, **body},
    )


def test_only_outside_and_with_ipv4(place: Place) -> None:
    inner = "is not a valid external network"
    make, world = place.world.make, place.world
    assert inner in refused(make, FLOATINGIPS, ALICE, floating_network_id=place.net.id, type="BadRequest", status=400)
    six = world.network(**{"router:external": True})
    world.subnet(six, "2001:db8::/64")
    refused(make, FLOATINGIPS, ALICE, floating_network_id=six.id, type="BadRequest", status=400)


def test_a_manager_names_the_address(place: Place) -> None:
    assert place.fip(MANAGER, floating_ip_address="198.51.100.77").floating_ip_address == "198.51.100.77"
    refused(place.fip, MANAGER, floating_ip_address="198.51.100.77", type="IpAddressAlreadyAllocated", status=409)
    refused(place.fip, MANAGER, floating_ip_address="192.0.2.1", type="InvalidIpForNetwork", status=400)
    other = place.world.subnet(place.public, "203.0.113.0/24")
    assert place.fip(subnet_id=other.id).floating_ip_address.startswith("203.0.113.")
    refused(
        place.fip,
        MANAGER,
        subnet_id=other.id,
        floating_ip_address="198.51.100.78",
        type="InvalidIpForSubnet",
        status=400,
    )


def test_it_stands_for_a_port_and_moves(place: Place) -> None:
    one, two = place.port(name="one"), place.port()
    fip = place.fip(port_id=one.id)
    assert (fip.port_id, fip.fixed_ip_address, fip.router_id) == (one.id, one.fixed_ips[0].ip_address, place.router.id)
    assert place.told(fip)["port_details"] == {
        "name": "one",
        "network_id": place.net.id,
        "mac_address": one.mac_address,
        "admin_state_up": True,
        "status": "DOWN",
        "device_id": "",
        "device_owner": "",
    }
    change = place.world.change
    moved = change(fip, ALICE, port_id=two.id)
    assert (moved.port_id, moved.fixed_ip_address) == (two.id, two.fixed_ips[0].ip_address)
    assert change(fip, ALICE, description="kept").port_id == two.id
    assert change(fip, ALICE, port_id=two.id).port_id == two.id
    away = change(fip, ALICE, port_id=None)
    assert (away.port_id, away.fixed_ip_address, away.router_id, away.status) == (None, None, None, "DOWN")
    assert change(fip, ALICE, port_id=one.id).port_id == one.id
    assert change(fip, ALICE).port_id is None, "an empty request takes it away"


def test_one_address_has_one_outside(place: Place) -> None:
    port = place.port()
    place.fip(port_id=port.id)
    assert "already has a floating IP" in refused(
        place.fip, port_id=port.id, type="FloatingIPPortAlreadyAssociated", status=409
    )
    free = place.fip()
    refused(place.world.change, free, ALICE, port_id=port.id, type="FloatingIPPortAlreadyAssociated", status=409)


def test_of_several_addresses_one_is_named(place: Place) -> None:
    port = place.port(fixed_ips=[{"ip_address": "10.0.0.20"}, {"subnet_id": place.subnet.id}])
    assert "multiple fixed IPv4" in refused(place.fip, port_id=port.id, type="BadRequest", status=400)
    first, second = (fixed.ip_address for fixed in port.fixed_ips)
    fips = [place.fip(port_id=port.id, fixed_ip_address=ip) for ip in (first, second)]
    assert [fip.fixed_ip_address for fip in fips] == [first, second]
    refused(place.fip, port_id=port.id, fixed_ip_address="10.0.0.250", type="BadRequest", status=400)
    refused(place.fip, port_id=port.id, fixed_ip_address="2001:db8::1", type="BadRequest", status=400)
    keep = [{"ip_address": first}]
    message = refused(place.world.change, port, ALICE, fixed_ips=keep, type="BadRequest", status=400)
    assert "associated to a floating ip" in message


def test_there_must_be_a_way(place: Place) -> None:
    world = place.world
    lonely = world.network(ALICE)
    world.subnet(lonely, "10.9.0.0/24", ALICE)
    port = world.port(lonely, ALICE)
    refused(place.fip, port_id=port.id, type="ExternalGatewayForFloatingIPNotFound", status=404)
    elsewhere = world.network(**{"router:external": True})
    world.subnet(elsewhere, "192.0.2.0/24")
    body = {"floating_network_id": elsewhere.id, "port_id": place.port().id}
    refused(world.make, FLOATINGIPS, ALICE, type="ExternalGatewayForFloatingIPNotFound", status=404, **body)


def test_of_several_ways_the_gateway_or_the_one_that_is_named(place: Place) -> None:
    world = place.world
    other = world.router(ALICE, external_gateway_info={"network_id": place.public.id})
    world.join(other, ALICE, port_id=place.port(fixed_ips=[{"ip_address": "10.0.0.2"}]).id)
    port = place.port()
    fip = place.fip(port_id=port.id)
    assert fip.router_id == place.router.id
    assert world.change(fip, ALICE, router_id=other.id).router_id == other.id
    assert world.change(fip, ALICE, router_id=None).router_id == place.router.id
    assert world.change(fip, ALICE, router_id=other.id).router_id == other.id
    assert world.change(fip, ALICE, port_id=port.id).router_id == other.id, "what was named stays"
    refused(world.change, fip, ALICE, router_id=ABSENT, type="RouterNotFound", status=404)
    bare = world.router(ALICE)
    refused(world.change, fip, ALICE, router_id=bare.id, type="RouterGatewayNotOnFloatingNetwork", status=409)
    apart = world.router(ALICE, external_gateway_info={"network_id": place.public.id})
    refused(world.change, fip, ALICE, router_id=apart.id, type="ExternalGatewayForFloatingIPNotFound", status=404)


def test_a_router_behind_another_is_named(place: Place) -> None:
    world = place.world
    far = world.network(ALICE)
    behind, inner = world.subnet(far, "10.7.0.0/24", ALICE), world.router(ALICE)
    world.join(inner, ALICE, subnet_id=behind.id)
    world.join(inner, ALICE, port_id=place.port(fixed_ips=[{"ip_address": "10.0.0.2"}]).id)
    port = world.port(far, ALICE)
    refused(place.fip, port_id=port.id, type="ExternalGatewayForFloatingIPNotFound", status=404)
    assert place.fip(port_id=port.id, router_id=place.router.id).router_id == place.router.id


def test_others_ports_are_not_to_be_had(place: Place) -> None:
    fip = place.fip()
    refused(place.world.change, fip, BOB, port_id=None, type="FloatingIPNotFound", status=404)
    mine = place.world.make(FLOATINGIPS, BOB, floating_network_id=place.public.id)
    port = place.port()
    refused(place.world.change, mine, BOB, port_id=port.id, type="PortNotFound", status=404)
    assert place.world.change(mine, ADMIN, port_id=port.id).port_id == port.id
    refused(place.world.delete, port, ALICE, type="FipAssociated", status=409)
    place.world.delete(port, ADMIN)
    assert place.world.again(mine).port_id is None


def test_a_port_that_goes_leaves_it_free(place: Place) -> None:
    port = place.port()
    fip = place.fip(port_id=port.id)
    place.world.delete(port, ALICE)
    left = place.world.again(fip)
    assert (left.port_id, left.fixed_ip_address, left.router_id) == (None, None, None)


def test_what_it_needs_stays(place: Place) -> None:
    world = place.world
    fip = place.fip(port_id=place.port().id)
    part, change = world.part, world.change
    refused(part, place.router, ALICE, subnet_id=place.subnet.id, type="RouterInterfaceInUseByFloatingIP", status=409)
    in_use = {"type": "RouterExternalGatewayInUseByFloatingIp", "status": 409}
    refused(change, place.router, ALICE, external_gateway_info=None, **in_use)
    world.delete(fip, ALICE)
    part(place.router, ALICE, subnet_id=place.subnet.id)
    assert change(place.router, ALICE, external_gateway_info=None).gateway is None


def test_a_network_that_goes_takes_idle_ones_along(place: Place) -> None:
    world = place.world
    fip = place.fip()
    busy = place.fip(port_id=place.port().id)
    refused(world.delete, place.public, type="NetworkInUse", status=409)
    world.delete(busy)
    world.part(place.router, subnet_id=place.subnet.id)
    world.delete(place.router)
    refused(world.change, place.public, router__external=False, type="ExternalNetworkInUse", status=409)
    world.delete(place.public)
    assert fip.id not in world.cloud.of(FloatingIp).rows
    assert not world.cloud.ports.by("network_id", place.public.id)


def test_pools_are_the_subnets_outside(place: Place) -> None:
    (pool,) = pools(place.world.cloud, BOB)
    assert (pool.subnet_id, pool.cidr, pool.project_id) == (place.outer.id, "198.51.100.0/24", "bob")


# ---- port forwardings


def test_a_life_of_a_forwarding(place: Place) -> None:
    world, port, fip = place.world, place.port(), place.fip()
    ip = port.fixed_ips[0].ip_address
    made = place.forward(fip, port, internal_port=22, external_port=2222, description="ssh")
    shape = PORT_FORWARDINGS.kind.show(made)
    assert shape == {
        "id": made.id,
        "protocol": "tcp",
        "internal_port_id": port.id,
        "internal_ip_address": ip,
        "internal_port": 22,
        "internal_port_range": "22:22",
        "external_port": 2222,
        "external_port_range": "2222:2222",
        "description": "ssh",
    }
    short = ("id", "protocol", "internal_port_id", "internal_ip_address", "internal_port", "external_port")
    assert place.told(fip)["port_forwardings"] == [{name: shape[name] for name in short}]
    assert world.again(fip).router_id == place.router.id
    changed = world.change(made, ALICE, internal_port=23)
    assert (changed.internal_port, changed.internal_port_range, changed.external_port) == (23, "23:23", 2222)
    moved = world.change(made, ALICE, internal_port_id=place.port().id)
    assert moved.internal_ip_address != ip
    refused(world.delete, fip, ALICE, type="FipInUseByPortForwarding", status=409)
    refused(world.change, fip, ALICE, port_id=port.id, type="FipInUseByPortForwarding", status=409)
    world.delete(made, ALICE)
    assert world.again(fip).router_id is None
    world.delete(fip, ALICE)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"external_port": 2222, "internal_port": 80}, "external_port_range"),
        ({"external_port": 2223, "internal_port": 22}, "internal_port_range"),
        ({"external_port_range": "2220:2230", "internal_port_range": "80:90"}, "external_port_range"),
        ({"external_port_range": "3000:3005", "internal_port_range": "20:22"}, "N-N or 1-N"),
        ({"external_port": 3000}, "internal_port"),
        ({"external_port": 70000, "internal_port": 1}, "not in the range"),
        ({"external_port_range": "9:8", "internal_port": 1}, "greater"),
        ({"external_port": 1, "internal_port": 1, "protocol": "gre"}, "not in"),
        ({"external_port": 1, "internal_port": 1, "internal_ip_address": "10.0.0.250"}, "not suitable"),
    ],
)
def test_forwardings_that_cannot_be(place: Place, body: dict[str, Any], reason: str) -> None:
    fip, port = place.fip(), place.port()
    place.forward(fip, port, internal_port=22, external_port=2222)
    with pytest.raises(Fault, match=reason) as caught:
        place.forward(fip, port, **body)
    assert caught.value.status == 400


def test_forwardings_that_go_together(place: Place) -> None:
    fip, port = place.fip(), place.port()
    place.forward(fip, port, internal_port=22, external_port=2222)
    place.forward(fip, port, internal_port=22, external_port=2222, protocol="udp")
    ranges = place.forward(fip, port, internal_port_range="80:89", external_port_range="8080:8089")
    assert (ranges.internal_port, ranges.external_port_range) == (None, "8080:8089")
    many_to_one = place.forward(fip, port, internal_port=443, external_port_range="9000:9009")
    assert (many_to_one.internal_port, many_to_one.external_port) == (443, None)
    assert place.told(fip)["port_forwardings"][2]["external_port_range"] == "8080:8089"


def test_a_forwarding_wants_a_free_floating_ip_and_a_free_port(place: Place) -> None:
    port = place.port()
    bound = place.fip(port_id=port.id)
    ports = {"internal_port": 1, "external_port": 1}
    refused(place.forward, place.fip(), port, type="PortHasBindingFloatingIP", status=409, **ports)
    refused(place.forward, bound, place.port(), type="FloatingIPPortAlreadyAssociated", status=409, **ports)


def test_forwardings_go_with_their_port_and_its_addresses(place: Place) -> None:
    world = place.world
    port = place.port(fixed_ips=[{"ip_address": "10.0.0.20"}, {"subnet_id": place.subnet.id}])
    first, second = (fixed.ip_address for fixed in port.fixed_ips)
    fip = place.fip()
    place.forward(fip, port, internal_port=1, external_port=1, internal_ip_address=first)
    kept = place.forward(fip, port, internal_port=1, external_port=2, internal_ip_address=second)
    world.change(port, ALICE, fixed_ips=[{"ip_address": second}])
    assert [one["id"] for one in place.told(fip)["port_forwardings"]] == [kept.id]
    refused(world.part, place.router, subnet_id=place.subnet.id, type="RouterInterfaceInUseByFloatingIP", status=409)
    world.delete(port, ALICE)
    assert place.told(fip)["port_forwardings"] == []
    assert world.again(fip).router_id is None


# ---- at once


def at_once(world: World, *verbs: Any) -> list[str]:
    """Run verbs side by side; return the faults' types, "" for what was done."""

    async def run() -> list[Any]:
        return await asyncio.gather(*(decide(world.cloud, verb) for verb in verbs), return_exceptions=True)

    return [one.type if isinstance(one, Fault) else "" for one in world.runner.run(run())]


def test_one_address_at_once_has_one_outside(place: Place) -> None:
    port, fips = place.port(), [place.fip() for _ in range(8)]
    done = at_once(place.world, *(partial(bind, fip.id, port.id) for fip in fips))
    assert sorted(done) == [""] + ["FloatingIPPortAlreadyAssociated"] * 7


def bind(fip: str, port: str | None, decision: Decision) -> None:
    floatingip.update(decision, ADMIN, fip, {"port_id": port})


@pytest.mark.parametrize("first", [True, False])
def test_a_port_that_goes_at_once(place: Place, first: bool) -> None:
    """Whoever comes first: nothing stands for a port that is gone."""
    port, fip = place.port(), place.fip()
    verbs = [partial(bind, fip.id, port.id), lambda d: control_port.delete(d, ADMIN, port.id)]
    at_once(place.world, *(verbs if first else verbs[::-1]))
    assert port.id not in place.world.cloud.ports.rows
    assert place.world.again(fip).port_id is None


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("what", ["gateway", "interface", "network"])
def test_a_way_that_goes_at_once(place: Place, first: bool, what: str) -> None:
    """Whoever comes first: what stands for a port has a way."""
    world, port, fip = place.world, place.port(), place.fip()
    away = {
        "gateway": lambda d: control_router.update(d, ADMIN, place.router.id, {"gateway": None}),
        "interface": lambda d: control_router.remove_interface(
            d, ADMIN, place.router.id, {"subnet_id": place.subnet.id}
        ),
        "network": lambda d: network.delete(d, ADMIN, place.public.id),
    }[what]
    verbs = [partial(bind, fip.id, port.id), away]
    done = at_once(world, *(verbs if first else verbs[::-1]))
    left = world.cloud.of(FloatingIp).rows.get(fip.id)
    bound = left is not None and left.port_id == port.id
    assert bound == (done[0 if first else 1] == "")
    if bound:
        assert world.again(place.router).gateway is not None
        assert world.cloud.ports.by("joined_subnet_id", place.subnet.id)


def test_ports_are_forwarded_once_at_once(place: Place) -> None:
    fip, given = place.fip(), []
    for number in range(8):
        body = {
            "internal_port_id": place.port().id,
            "protocol": "tcp",
            "internal_port": number + 1,
            "external_port": 80,
        }
        given.append({**PORT_FORWARDINGS.kind.given(body), "floatingip_id": fip.id})
    done = at_once(place.world, *(partial(forward, one) for one in given))
    assert sorted(done) == [""] + ["BadRequest"] * 7


def forward(given: dict[str, Any], decision: Decision) -> None:
    port_forwarding.create(decision, ADMIN, dict(given))


def test_every_kind_below_another_is_found_there() -> None:
    assert {"port_forwarding", "conntrack_helper", "port_association", "flavor_profile"} <= COLLECTIONS.keys()
