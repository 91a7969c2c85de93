"""What ports say of themselves, and who may say it; what networks say beside."""

from __future__ import annotations

from typing import Any

import pytest

from clouds import ADMIN, ALICE, BOB, Caller, World
from crossway.api.resources import Shapes
from crossway.control.caller import implied
from crossway.control.network import NETWORKS
from crossway.control.port import PORTS
from crossway.control.qos import POLICIES
from crossway.errors import Fault

INTEGRATOR = Caller("alice", roles=implied(["member", "data_plane_integrator"]))
MANAGER = Caller("alice", roles=implied(["manager"]))
SERVICE = Caller("cloud", roles=implied(["service"]))


def refused(by: Any, *args: Any, type: str, status: int, **options: Any) -> None:
    with pytest.raises(Fault) as caught:
        by(*args, **options)
    assert (caught.value.type, caught.value.status) == (type, status), str(caught.value)


def shape(world: World, what: Any, caller: Caller = ADMIN) -> dict[str, Any]:
    collection = PORTS if what.kind is PORTS.kind else NETWORKS
    return Shapes(world.cloud).shape(collection, world.again(what), caller)


@pytest.mark.parametrize(
    "body",
    [
        {"mac_address": "fa:16:3e:00:00:09"},
        {"fixed_ips": [{"ip_address": "10.0.0.9"}]},
        {"port_security_enabled": False},
        {"allowed_address_pairs": [{"ip_address": "10.9.0.1"}]},
        {"device_owner": "network:dhcp"},
    ],
    ids=str,
)
def test_what_touches_others_is_for_the_networks_owner(world: World, body: dict[str, Any]) -> None:
    net = world.network(project_id="alice", shared=True)
    subnet = world.subnet(net, "10.0.0.0/24")
    world.delete(world.port(net, ALICE, **body))
    world.delete(world.port(net, SERVICE, project_id="bob", **body))
    refused(world.port, net, BOB, type="PolicyNotAuthorized", status=403, **body)
    world.port(net, BOB, fixed_ips=[{"subnet_id": subnet.id}], device_owner="compute:x", device_id="d")
    refused(world.port, world.network(router__external=True), BOB, type="PolicyNotAuthorized", status=403)


def test_a_port_of_a_network_of_anothers_is_changed_by_its_owner(world: World) -> None:
    net = world.network(project_id="alice", shared=True)
    port = world.port(net, BOB)
    assert world.change(port, BOB, name="mine").name == "mine"
    refused(world.change, port, ALICE, name="x", type="PolicyNotAuthorized", status=403)
    refused(world.change, port, BOB, mac_address="fa:16:3e:00:00:09", type="PolicyNotAuthorized", status=403)
    own = world.port(net, ALICE)
    refused(world.change, own, ALICE, mac_address="fa:16:3e:00:00:09", type="PolicyNotAuthorized", status=403)
    assert world.change(own, MANAGER, mac_address=None).mac_address not in ("", own.mac_address)


def test_names(world: World) -> None:
    net = world.network(ALICE, dns_domain="Example.Org.")
    assert net.dns_domain == "example.org."
    world.subnet(net, "10.0.0.0/24")
    world.subnet(net, "fd00::/64")
    port = world.port(net, ALICE, dns_name="WWW")
    ips = [fixed.ip_address for fixed in port.fixed_ips]
    assert shape(world, port, ALICE)["dns_assignment"] == [
        {"ip_address": ip, "hostname": "www", "fqdn": "www.openstacklocal."} for ip in ips
    ]
    world.change(port, ALICE, dns_name="")
    hosts = [one["hostname"] for one in shape(world, port, ALICE)["dns_assignment"]]
    assert hosts == ["host-" + ip.replace(".", "-").replace(":", "-") for ip in ips]
    refused(world.port, net, ALICE, dns_name="-x", type="Invalid", status=400)


def test_tags_hints_and_what_only_admins_see(world: World) -> None:
    net = world.network(ALICE)
    steering = {"openvswitch": {"other_config": {"tx-steering": "hash"}}}
    port = world.port(net, tags=["b", "a"], hints=steering, trusted=True, hardware_offload_type="switchdev")
    assert (port.tags, port.hints) == (("a", "b"), steering)
    assert port.profile == {"capabilities": ["switchdev"], "trusted": True}
    told = shape(world, port)
    assert (told["trusted"], told["resource_request"], "trunk_details" in told) == (True, None, False)
    assert not {"hints", "trusted", "resource_request", "binding:host_id"} & shape(world, port, ALICE).keys()
    for body in ({"hints": steering}, {"trusted": True}):
        refused(world.port, net, ALICE, type="PolicyNotAuthorized", status=403, **body)
    refused(world.port, net, hints={"openvswitch": {"other_config": {"a": 1}}}, type="Invalid", status=400)
    refused(world.port, net, tags=["x"] * 2, type="Invalid", status=400)
    refused(world.change, port, hardware_offload_type="switchdev", type="Invalid", status=400)
    assert world.change(port, trusted=False).profile["trusted"] is False


def test_what_is_said_of_the_data_plane(world: World) -> None:
    net = world.network(ALICE)
    port = world.port(net, ALICE)
    assert world.change(port, INTEGRATOR, data_plane_status="DOWN").data_plane_status == "DOWN"
    refused(world.change, port, ALICE, data_plane_status="ACTIVE", type="PolicyNotAuthorized", status=403)
    refused(world.port, net, data_plane_status="ACTIVE", type="Invalid", status=400)
    assert world.change(port, data_plane_status=None).data_plane_status is None


@pytest.mark.parametrize("ip", ["224.0.0.1", "239.0.0.0/8", "ff02::1"])
def test_nobody_sends_from_a_multicast_address(world: World, ip: str) -> None:
    pairs = [{"ip_address": ip}]
    refused(world.port, world.network(), allowed_address_pairs=pairs, type="Invalid", status=400)


def test_numa_affinity_is_settled_before_binding(world: World) -> None:
    world.host("h1")
    net = world.network()
    port = world.port(net, binding__host_id="h1", numa_affinity_policy="socket")
    refused(world.change, port, numa_affinity_policy="legacy", type="PortBoundNUMAAffinityPolicy", status=409)
    world.change(port, numa_affinity_policy="socket")
    refused(world.port, net, numa_affinity_policy="x", type="Invalid", status=400)


def test_qos_policies_of_ports_and_networks(world: World) -> None:
    policy = world.make(POLICIES, name="p")
    (least,) = [c for c in POLICIES.children if c.kind.name == "minimum_packet_rate_rule"]
    world.make(least, parent=policy.id, min_kpps=5, direction="egress")
    net = world.network(qos_policy_id=policy.id)
    port = world.port(net)
    told = shape(world, port)
    assert (told["qos_policy_id"], told["qos_network_policy_id"]) == (None, policy.id)
    (group,) = told["resource_request"]["request_groups"]
    assert group["resources"] == {"NET_PACKET_RATE_EGR_KILOPACKET_PER_SEC": 5}
    assert told["resource_request"]["same_subtree"] == [group["id"]]
    refused(world.delete, policy, type="QosPolicyInUse", status=409)
    world.change(net, qos_policy_id=None)
    world.change(port, qos_policy_id=policy.id)
    refused(world.delete, policy, type="QosPolicyInUse", status=409)
    refused(world.port, world.network(BOB), BOB, qos_policy_id=policy.id, type="QosPolicyNotFound", status=404)
    world.delete(port)
    world.delete(policy)


def test_networks_of_several_segments(world: World) -> None:
    segments = [
        {"provider:network_type": "vxlan", "provider:segmentation_id": 7001},
        {"provider:network_type": "vlan", "provider:physical_network": "dc", "provider:segmentation_id": 44},
    ]
    net = world.network(segments=segments)
    told = shape(world, net)
    assert told["segments"] == [{"provider:physical_network": None, **segments[0]}, segments[1]]
    assert not [name for name in told if name.startswith("provider:")]
    assert "segments" not in shape(world, net, Caller("bob", roles=implied(["reader"])))
    taken = {"provider__network_type": "vlan", "provider__physical_network": "dc", "provider__segmentation_id": 44}
    refused(world.network, type="VlanIdInUse", status=409, **taken)
    world.delete(net)
    assert shape(world, world.network(**taken))["provider:segmentation_id"] == 44
    refused(world.network, segments=segments, type="SegmentsSetInConjunctionWithProviders", status=400, **taken)
    refused(world.network, segments=segments[:1] * 2, type="SegmentsContainDuplicateEntry", status=400)
    refused(world.network, segments=segments[1:] * 2, type="SegmentsContainDuplicateEntry", status=400)
    assert len(shape(world, world.network(segments=[{"provider:network_type": "vxlan"}] * 2))["segments"]) == 2
    refused(world.network, ALICE, segments=segments, type="PolicyNotAuthorized", status=403)


def test_zones_and_the_default_way_outside(world: World) -> None:
    net = world.network(ALICE, availability_zone_hints=["nova"])
    assert shape(world, net, ALICE)["availability_zones"] == []
    world.subnet(net, "10.0.0.0/24")
    assert shape(world, net, ALICE)["availability_zones"] == ["nova"]
    refused(world.network, ALICE, availability_zone_hints=["x"], type="AvailabilityZoneNotFound", status=404)
    first = world.network(router__external=True, is_default=True)
    outside = {"router__external": True, "is_default": True}
    refused(world.network, type="DefaultExternalNetworkExists", status=409, **outside)
    world.change(first, is_default=False)
    second = world.network(**outside)
    refused(world.change, first, is_default=True, type="DefaultExternalNetworkExists", status=409)
    world.delete(second)
    world.change(first, is_default=True)


def test_ports_of_dhcp_go_with_their_network(world: World) -> None:
    net = world.network(ALICE)
    world.port(net, device_owner="network:dhcp")
    world.delete(net, ALICE)
    assert not world.cloud.ports.rows


def test_kept_json_follows_what_is_derived(world: World) -> None:
    shapes = Shapes(world.cloud)
    policy = world.make(POLICIES, name="p")
    net = world.network()
    port = world.port(net)
    assert b'"qos_network_policy_id":null' in shapes.encode(PORTS, port, ADMIN)
    world.change(net, qos_policy_id=policy.id)
    assert policy.id.encode() in shapes.encode(PORTS, world.again(port), ADMIN)
