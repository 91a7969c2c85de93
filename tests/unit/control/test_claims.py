"""Every claim is an object's, whatever was asked for and however it ended."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

from clouds import ADMIN, COLLECTIONS, World, faults
from crossway.control import claims, gateway, trunk
from crossway.control.decision import decide
from crossway.control.floatingip import FLOATINGIPS
from crossway.control.local_ip import LOCAL_IPS
from crossway.control.port import PORTS
from crossway.control.subnetpool import SUBNETPOOLS
from crossway.control.trunk import TRUNKS
from crossway.errors import Conflict, Fault
from crossway.model.network import Network
from crossway.model.subnet import Subnet
from crossway.store import Transaction


def found(world: World) -> list[str]:
    return faults(world.cloud, world.stored())


def place(world: World, cidr: str = "10.0.0.0/24") -> tuple[Network, Subnet]:
    network = world.network()
    return network, world.subnet(network, cidr)


def test_a_claim_of_nobody_a_missing_one_and_one_of_two_are_found(world: World) -> None:
    network, subnet = place(world)
    port = world.port(network)
    key = f"address/{subnet.id}/{port.fixed_ips[0].ip_address}"
    assert list(claims.faults(world.cloud, [*world.stored(), "address/gone/10.0.0.1"])) == [
        "address/gone/10.0.0.1 is held by nothing"
    ]
    without = [one for one in world.stored() if one != key]
    assert list(claims.faults(world.cloud, without)) == [f"{key} of port {port.id} is not held"]
    world.cloud.ports.rows["another"] = port
    twice = list(claims.faults(world.cloud, world.stored()))
    assert f"{key} is held by port {port.id} and by port another" in twice
    del world.cloud.ports.rows["another"]


def test_a_server_that_starts_mends_what_an_older_one_left(world: World) -> None:
    network, subnet = place(world)
    port = world.port(network)
    lost = Transaction(
        puts={f"address/{subnet.id}/10.0.0.99": b"gone", "newer/one": b""},
        deletes={f"mac/{network.id}/{port.mac_address}"},
    )
    world.runner.run(world.cloud.store.commit(lost))
    told = world.runner.run(claims.mend(world.cloud))
    assert len(told) == 3
    assert found(world) == ["newer/one is held by nothing"]
    world.port(network, fixed_ips=[{"ip_address": "10.0.0.99"}])
    world.runner.run(world.cloud.store.commit(Transaction(deletes={"newer/one"})))
    assert not world.runner.run(claims.mend(world.cloud))


@pytest.mark.parametrize("cidr", ["10.0.0.0/24", "fd00::/64"])
def test_a_subnet_that_is_named_twice_gives_two_addresses(world: World, cidr: str) -> None:
    network, subnet = place(world, cidr)
    port = world.port(network, fixed_ips=[{"subnet_id": subnet.id}, {"subnet_id": subnet.id}])
    assert len({fixed.ip_address for fixed in port.fixed_ips}) == 2
    port = world.change(port, fixed_ips=[{"subnet_id": subnet.id}] * 3)
    assert len({fixed.ip_address for fixed in port.fixed_ips}) == 3
    assert not found(world)
    world.delete(port)
    world.delete(subnet)


def test_a_gateway_whose_subnet_is_named_twice_has_two_addresses(world: World) -> None:
    network = world.network(router__external=True)
    subnet = world.subnet(network, "198.51.100.0/24")
    info = {"network_id": network.id, "external_fixed_ips": [{"subnet_id": subnet.id}, {"subnet_id": subnet.id}]}
    made = world.router(external_gateway_info=info)
    assert len({fixed.ip_address for fixed in made.gateway.external_fixed_ips}) == 2
    assert not found(world)
    other = world.router()
    told = world.do(lambda d: gateway.add(d, ADMIN, other.id, {"router": {"external_gateways": [info, info]}}))
    assert len({f.ip_address for more in (told.gateway, *told.more) for f in more.external_fixed_ips}) == 4
    assert not found(world)


def test_a_network_for_ha_routers_that_an_operator_deletes_leaves_nothing(world: World) -> None:
    made = world.router(project_id="alice", ha=True)
    (network,) = world.cloud.networks.by("name", "HA network tenant alice")
    world.delete(network)
    assert not found(world)
    world.delete(made)


def test_a_port_that_a_trunk_or_a_local_ip_is_of_is_not_deleted_by_another_way(world: World) -> None:
    network, subnet = place(world)
    routed, port = world.router(), world.port(network)
    world.make(TRUNKS, port_id=port.id)
    world.join(routed, port_id=port.id)
    with pytest.raises(Conflict) as refused:
        world.part(routed, subnet_id=subnet.id)
    assert refused.value.type == "PortInUseAsTrunkParent"
    other = world.network()
    world.subnet(other, "10.1.0.0/24")
    dhcp = world.port(other, device_owner="network:dhcp")
    local = world.make(LOCAL_IPS, local_port_id=dhcp.id)
    with pytest.raises(Conflict, match="Local IPs"):
        world.delete(other)
    world.delete(local)
    world.delete(other)


class Walk:
    """Random requests about a small cloud, most of which some other stands in the way of."""

    def __init__(self, world: World, seed: int) -> None:
        self.world, self.random = world, random.Random(seed)
        self.networks = [world.network() for _ in range(2)]
        self.outside = world.network(router__external=True)
        world.subnet(self.outside, "198.51.100.0/28")
        self.pool = world.make(SUBNETPOOLS, name="p", prefixes=["10.9.0.0/24"], default_prefixlen=28)

    def one(self, table: str) -> Any:
        rows = list(self.world.cloud.tables[table].rows.values())
        return self.random.choice(rows) if rows else None

    def ip(self) -> str:
        return f"10.0.0.{self.random.randint(1, 14)}"

    def wish(self) -> dict[str, Any]:
        subnet = self.one("subnet")
        named = {"subnet_id": subnet.id} if subnet and self.random.random() < 0.6 else {}
        return {**named, "ip_address": self.ip()} if not named or self.random.random() < 0.5 else named

    def wishes(self) -> list[dict[str, Any]]:
        return [self.wish() for _ in range(self.random.randint(0, 3))]

    def mac(self) -> str:
        return f"fa:16:3e:00:00:0{self.random.randint(0, 9)}"

    def body(self) -> dict[str, Any]:
        every = {"fixed_ips": self.wishes(), "mac_address": self.mac(), "security_groups": self.groups()}
        return {name: value for name, value in every.items() if self.random.random() < 0.6}

    def groups(self) -> list[str]:
        rows = list(self.world.cloud.groups.rows)
        return self.random.sample(rows, min(len(rows), self.random.randint(0, 2)))

    def step(self) -> Any:
        port, subnet, routed, fip = (self.one(table) for table in ("port", "subnet", "router", "floatingip"))
        network, number = self.random.choice(self.networks), self.random.randint(0, 3)
        wish = {"network_id": self.outside.id, "external_fixed_ips": [self.wish() for _ in range(number)]}
        v6 = {"ipv6_address_mode": "slaac"} if number else {}
        every: list[Callable[[], Any]] = [
            lambda: self.world.port(network, **self.body()),
            lambda: self.world.port(network, **self.body()),
            lambda: self.bulk([{"network_id": network.id, **self.body()} for _ in range(number)]),
            lambda: self.world.change(port, **self.body()),
            lambda: self.world.change(port, **self.body()),
            lambda: self.world.delete(port),
            lambda: self.world.subnet(network, "10.0.0.0/28"),
            lambda: self.world.subnet(network, f"fd00:0:0:{number}::/64", **v6),
            lambda: self.world.make(
                COLLECTIONS["subnet"], network_id=network.id, ip_version=4, subnetpool_id=self.pool.id
            ),
            lambda: self.world.delete(subnet),
            lambda: self.world.router(external_gateway_info=wish if number else None, ha=number == 1),
            lambda: self.world.change(routed, external_gateway_info=wish if number else None),
            lambda: self.world.do(lambda d: gateway.add(d, ADMIN, routed.id, self.gateways(wish, number))),
            lambda: self.world.do(lambda d: gateway.update(d, ADMIN, routed.id, self.gateways(wish, number))),
            lambda: self.world.join(routed, subnet_id=subnet.id),
            lambda: self.world.join(routed, port_id=port.id),
            lambda: self.world.part(routed, subnet_id=subnet.id),
            lambda: self.world.delete(routed),
            lambda: self.world.group(),
            lambda: self.world.delete(self.one("group")),
            lambda: self.world.make(FLOATINGIPS, floating_network_id=self.outside.id),
            lambda: self.world.change(fip, port_id=port.id, fixed_ip_address=port.fixed_ips[0].ip_address),
            lambda: self.world.change(fip),
            lambda: self.world.delete(fip),
            lambda: self.world.make(TRUNKS, port_id=port.id, sub_ports=self.sub_ports(number)),
            lambda: self.world.do(
                lambda d: trunk.add(d, ADMIN, self.one("trunk").id, {"sub_ports": self.sub_ports(number)})
            ),
            lambda: self.world.delete(self.one("trunk")),
            lambda: self.world.make(
                LOCAL_IPS, **({"local_port_id": port.id} if number else {"network_id": network.id})
            ),
            lambda: self.world.delete(self.one("local_ip")),
            lambda: self.world.port(network, device_owner="network:dhcp"),
            lambda: self.world.delete(self.world.network(**self.provider())),
            lambda: self.networks.append(self.world.network(**self.provider())),
            lambda: self.world.delete(self.one("network")),
            lambda: self.world.change(self.one("network"), provider__segmentation_id=self.random.randint(1, 5)),
            lambda: self.world.make(COLLECTIONS["segment"], **self.segment()),
            lambda: self.world.delete(self.one("segment")),
            lambda: self.world.make(COLLECTIONS["qos_policy"], name="q", is_default=number == 1),
            lambda: self.world.change(port, qos_policy_id=self.one("qos_policy").id if number else None),
            lambda: self.world.change(fip, qos_policy_id=self.one("qos_policy").id if number else None),
            lambda: self.world.delete(self.one("qos_policy")),
            lambda: self.world.rule(self.one("group"), remote_group_id=self.one("group").id),
            lambda: self.together(network),
        ]
        return self.random.choice(every)()

    def provider(self) -> dict[str, Any]:
        named = {"provider__network_type": "vlan", "provider__physical_network": "phys"}
        return {**named, "provider__segmentation_id": self.random.randint(1, 5)} if self.random.random() < 0.7 else {}

    def segment(self) -> dict[str, Any]:
        return {
            "network_id": self.random.choice(self.networks).id,
            "network_type": "vlan",
            "physical_network": "phys",
            "segmentation_id": self.random.randint(1, 5),
        }

    def gateways(self, wish: dict[str, Any], count: int) -> dict[str, Any]:
        return {"router": {"external_gateways": [wish] * count}}

    def sub_ports(self, count: int) -> list[dict[str, Any]]:
        return [
            {"port_id": self.one("port").id, "segmentation_type": "vlan", "segmentation_id": self.random.randint(1, 4)}
            for _ in range(count)
        ]

    def bulk(self, bodies: list[dict[str, Any]]) -> None:
        create = PORTS.create
        assert create is not None
        given = [PORTS.kind.given(body) for body in bodies]
        self.world.do(lambda d: [create(d, ADMIN, dict(one)) for one in given])

    def together(self, network: Network) -> None:
        """Ask for several things at once that are in each other's way."""
        create = PORTS.create
        assert create is not None
        bodies = [PORTS.kind.given({"network_id": network.id, **self.body()}) for _ in range(4)]

        async def all_of_them() -> None:
            asked = [decide(self.world.cloud, lambda d, one=one: create(d, ADMIN, dict(one))) for one in bodies]
            await asyncio.gather(*asked, return_exceptions=True)

        self.world.runner.run(all_of_them())
        self.world.settle()


@pytest.mark.parametrize("seed", range(6))
def test_nothing_that_is_asked_for_leaves_a_claim_behind(world: World, seed: int) -> None:
    walk, done = Walk(world, seed), 0
    for _ in range(250):
        try:
            walk.step()
            done += 1
        except (Fault, AttributeError, IndexError):  # nothing of the kind is there yet
            pass
        assert not found(world)
    assert done > 50
