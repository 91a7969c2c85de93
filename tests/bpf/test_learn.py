"""Addresses that are nobody's fixed ones: who says that it has one, and what a router does until it knows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from select import select
from typing import NamedTuple

import pytest

from bpf.packets import ARP, BROADCAST, IPV4, IPV6, UDP, Packet, arp, eth, ip, na, ns, udp
from bpf.world import BARE, CAUTIOUS, CLEAR, RED, STOLEN, A, B, Ears, Who, World, frame_to, gateway, world
from crossway.kernel.bpf import REDIRECT, SHOT
from crossway.kernel.ring import READ_MAX, Ring
from crossway.model import rows as r
from crossway.plan.address import link_local
from crossway.plan.service import NO_ROUTER, SERVICE_MAC

VIP = {4: "10.0.4.77", 6: "fd04::77"}
GATE = {4: "10.0.4.1", 6: "fd04::1"}
PROBER = r.unpack_ip(link_local(SERVICE_MAC))
HELD, SOUGHT, ANSWERED, WISHED = r.SightingKind
FOOT = gateway(CLEAR)
THERE = Who(CLEAR, 20, 3, None)


class Agent:
    """A world, and what its agent is told of addresses."""

    def __init__(self, made: World) -> None:
        self.world = made
        self.heard: list[r.Sighting] = []
        fd, layout = made.bpf.ring("sightings", "sighting", r.Sighting)
        self.ring = Ring(fd, lambda raw: self.heard.append(layout.unpack(raw[: layout.size])))

    def told(self) -> list[tuple[r.PortKey, int, str, bytes, int]]:
        for _ in range(4):  # it reads so many at a time
            self.ring.read()
        heard, self.heard = self.heard, []
        return [(one.port, one.network, r.unpack_ip(one.ip), one.mac, one.kind) for one in heard]

    def learned(self, who: Who, ip: str, mac: bytes | None = None) -> None:
        place = who.place._replace(flags=who.place.flags | r.PortFlag.LEARNED)
        self.world.put("endpoints", {r.EndpointKey(who.network, r.pack_ip(ip)): r.Endpoint(place, mac or who.mac)})

    def stand_in(self, network: int, *ips: str) -> None:
        place = r.Place(r.PlaceKind.ROUTER, router=NO_ROUTER)
        self.world.put("macs", {r.MacKey(network, SERVICE_MAC): place})
        at = [r.pack_ip(ip) for ip in ips]
        self.world.put("endpoints", {r.EndpointKey(network, a): r.Endpoint(place, SERVICE_MAC) for a in at})
        first = tuple(next((a for a in at if a.startswith(r.MAPPED) is four), r.NO_IP) for four in (True, False))
        self.world.put("interfaces", {r.InterfaceKey(network, NO_ROUTER): r.Interface(SERVICE_MAC, first)})


@pytest.fixture
def agent() -> Iterator[Agent]:
    with world() as made:
        pairs = {
            r.SourceKey(256, CAUTIOUS.key, CAUTIOUS.mac, r.pack_ip(ip)): 1 for ip in (*VIP.values(), *GATE.values())
        }
        made.put("sources", pairs)
        made.router(1, {RED: gateway(RED), CLEAR: FOOT})
        found = Agent(made)
        yield found
        found.ring.close()


def sayings(who: Who, v: int) -> dict[str, bytes]:
    """Return all by which a port says that it has an address."""
    ip, other = VIP[v], CAUTIOUS if who == BARE else BARE
    if v == 4:
        return {
            "announcement": arp(1, who.mac, ip, ip),
            "announcing reply": arp(2, who.mac, ip, ip, who.mac, BROADCAST),
            "request": arp(1, who.mac, ip, B.ip4),
            "reply": arp(2, who.mac, ip, other.ip4, other.mac, other.mac),
        }
    return {
        "announcement": na(who.mac, ip, ip),
        "solicitation": ns(who.mac, ip, B.ip6),
        "advertisement": na(who.mac, ip, ip, dst=other.ip6, to=other.mac),
    }


@pytest.mark.parametrize("v", [4, 6])
@pytest.mark.parametrize("who", [BARE, CAUTIOUS], ids=["without port security", "pair"])
def test_the_agent_is_told_who_says_that_it_has_an_address(agent: Agent, who: Who, v: int) -> None:
    for name, sent in sayings(who, v).items():
        assert agent.world.send(sent, who).verdict != SHOT, name
        assert agent.told() == [(who.key, CLEAR, VIP[v], who.mac, HELD)], name


@pytest.mark.parametrize("v", [4, 6])
def test_what_is_known_is_not_told_again_and_what_changed_is(agent: Agent, v: int) -> None:
    agent.learned(CAUTIOUS, VIP[v])
    for sent in sayings(CAUTIOUS, v).values():
        agent.world.send(sent, CAUTIOUS)
    assert agent.told() == []
    # Another port has taken it over, another MAC has it, or the host where it was is another.
    for holder in (BARE, THERE):
        agent.learned(holder, VIP[v])
        agent.world.send(sayings(CAUTIOUS, v)["announcement"], CAUTIOUS)
        assert agent.told() == [(CAUTIOUS.key, CLEAR, VIP[v], CAUTIOUS.mac, HELD)]
    # Which of a port's MACs has it, an announcement says, and no more than that.
    agent.learned(CAUTIOUS, VIP[v], BARE.mac)
    for name, sent in sayings(CAUTIOUS, v).items():
        agent.world.send(sent, CAUTIOUS)
        assert len(agent.told()) == name.startswith("announc"), name


@pytest.mark.parametrize("v", [4, 6])
def test_a_fixed_address_and_a_routers_are_not_learned(agent: Agent, v: int) -> None:
    for of in (CAUTIOUS.ip(v), FOOT.ip(v)):
        sent = arp(1, BARE.mac, of, of) if v == 4 else na(BARE.mac, of, of)
        agent.world.send(sent, BARE)
    agent.world.send(arp(1, BARE.mac, BARE.ip4, BARE.ip4) if v == 4 else na(BARE.mac, BARE.ip6, BARE.ip6), BARE)
    assert agent.told() == []


@pytest.mark.parametrize("v", [4, 6])
def test_who_may_not_have_an_address_is_not_heard(agent: Agent, v: int) -> None:
    other = "10.0.4.78" if v == 4 else "fd04::78"
    sent = arp(1, CAUTIOUS.mac, other, other) if v == 4 else na(CAUTIOUS.mac, other, other)
    assert agent.world.send(sent, CAUTIOUS).drop in ("SPOOFED_ARP", "SPOOFED_ND", "SPOOFED_IPV6")
    # Nor who asks whether it is free.
    sent = arp(1, CAUTIOUS.mac, "0.0.0.0", other) if v == 4 else ns(CAUTIOUS.mac, "::", other)
    agent.world.send(sent, CAUTIOUS)
    # And where all addresses are told there is nothing to learn.
    agent.world.send(arp(1, A.mac, A.ip4, "10.0.0.77") if v == 4 else ns(A.mac, A.ip6, "fd00::77"), A)
    assert agent.told() == []


@pytest.mark.parametrize("v", [4, 6])
@pytest.mark.parametrize("known", [True, False])
def test_who_asks_whether_an_address_is_free_is_told_by_its_holder_alone(agent: Agent, v: int, known: bool) -> None:
    """What was learned may be old: an answer from it would keep who takes over from having it."""
    if known:
        agent.learned(THERE, VIP[v])
    probe = arp(1, CAUTIOUS.mac, "0.0.0.0", VIP[v]) if v == 4 else ns(CAUTIOUS.mac, "::", VIP[v])
    with Ears("du") as ears:
        assert agent.world.send(probe, CAUTIOUS).verdict == STOLEN
        ears.must_hear({"du": [probe]})
    assert agent.told() == [(CAUTIOUS.key, CLEAR, VIP[v], CAUTIOUS.mac, WISHED)]


@pytest.mark.parametrize("v", [4, 6])
def test_solicitations_for_what_was_learned_reach_its_holder(agent: Agent, v: int) -> None:
    agent.learned(BARE, VIP[v])
    asked = arp(1, CAUTIOUS.mac, CAUTIOUS.ip4, VIP[4]) if v == 4 else ns(CAUTIOUS.mac, CAUTIOUS.ip6, VIP[6])
    with Ears("du") as ears:
        assert agent.world.send(asked, CAUTIOUS).verdict == STOLEN
        ears.must_hear({"du": [asked]})


@pytest.mark.parametrize("v", [4, 6])
def test_a_port_takes_the_gateways_address_from_what_stands_in(agent: Agent, v: int) -> None:
    """The stand-in answers all who ask for it, but not who may have it and says so."""
    agent.stand_in(CLEAR, *GATE.values(), "169.254.169.254")
    asked = arp(1, BARE.mac, BARE.ip4, GATE[4]) if v == 4 else ns(BARE.mac, BARE.ip6, GATE[6])
    done = agent.world.send(asked, BARE)
    assert (done.verdict, done.packet[6:12]) == (REDIRECT, SERVICE_MAC)
    own = [arp(1, CAUTIOUS.mac, "0.0.0.0", GATE[4]), arp(1, CAUTIOUS.mac, GATE[4], GATE[4])]
    if v == 6:
        own = [ns(CAUTIOUS.mac, "::", GATE[6]), na(CAUTIOUS.mac, GATE[6], GATE[6])]
    for sent, kind in zip(own, (WISHED, HELD), strict=True):
        with Ears("du") as ears:
            assert agent.world.send(sent, CAUTIOUS).verdict == STOLEN
            ears.must_hear({"du": [sent]})
        assert agent.told() == [(CAUTIOUS.key, CLEAR, GATE[v], CAUTIOUS.mac, kind)]
    # One that may not have it is told that it is taken.
    probe = arp(1, CAUTIOUS.mac, "0.0.0.0", "169.254.169.254")
    assert agent.world.send(probe, CAUTIOUS).verdict == REDIRECT


@pytest.mark.parametrize("v", [4, 6])
def test_an_answer_to_the_agents_probe_is_for_the_agent_alone(agent: Agent, v: int) -> None:
    agent.stand_in(CLEAR, "169.254.169.254", PROBER)
    agent.learned(CAUTIOUS, VIP[v])
    sent = arp(2, CAUTIOUS.mac, VIP[4], "0.0.0.0", SERVICE_MAC, SERVICE_MAC)
    if v == 6:
        sent = na(CAUTIOUS.mac, VIP[6], VIP[6], dst=PROBER, to=SERVICE_MAC)
    done = agent.world.send(sent, CAUTIOUS)
    assert (done.verdict, done.drops) == (STOLEN, {})
    assert agent.told() == [(CAUTIOUS.key, CLEAR, VIP[v], CAUTIOUS.mac, ANSWERED)]


@pytest.mark.parametrize("v", [4, 6])
def test_a_router_forwards_to_what_was_learned(agent: Agent, v: int) -> None:
    vmac = bytes.fromhex("00005e00014d")
    sent = frame_to(A, gateway(RED).mac, VIP[v], UDP, udp(1, 2))
    agent.learned(CAUTIOUS, VIP[v], vmac)
    done = agent.world.send(sent)
    assert (done.to, Packet(done.packet).dst_mac, done.drops) == ("dc", vmac, {})
    agent.learned(THERE, VIP[v])
    done = agent.world.send(sent)
    assert (done.to, Packet(done.packet).dst_mac) == ("vxlan", THERE.mac)
    assert agent.told() == []


@pytest.mark.parametrize("v", [4, 6])
def test_a_router_looks_for_what_no_row_tells(agent: Agent, v: int) -> None:
    """It waits for a second, then says that there is nobody, and looks once a second while packets come."""
    sent = frame_to(A, gateway(RED).mac, VIP[v], UDP, udp(1, 2))
    for _ in range(3):
        done = agent.world.send(sent)
        assert (done.verdict, done.drop) == (SHOT, "NO_NEIGHBOUR")
    assert agent.told() == [(A.key, CLEAR, VIP[v], A.mac, SOUGHT)]
    time.sleep(1.1)
    for _ in range(2):
        done = agent.world.send(sent)
        assert (done.verdict, done.drop) == (REDIRECT, "NO_NEIGHBOUR"), "the sender is told by ICMP"
    assert len(agent.told()) == 1
    time.sleep(3.1)
    assert agent.world.send(sent).verdict == SHOT, "from the beginning"
    assert len(agent.told()) == 1


class Search(NamedTuple):
    began: int
    last: int


@pytest.mark.parametrize("v", [4, 6])
def test_another_processors_clock_may_be_a_little_ahead_of_a_search(agent: Agent, v: int) -> None:
    sent = frame_to(A, gateway(RED).mac, VIP[v], UDP, udp(1, 2))
    agent.world.send(sent)
    assert len(agent.told()) == 1
    table = agent.world.bpf._table("sought", r.EndpointKey, Search)
    ahead = {key: Search(row.began + 10**9, row.last + 10**9) for key, row in table.read().items()}
    table.put(ahead)
    assert agent.world.send(sent).verdict == SHOT, "its sender waits"
    assert agent.told() == []
    assert table.read() == ahead


@pytest.mark.parametrize("v", [4, 6])
def test_a_router_looks_for_its_next_hop(agent: Agent, v: int) -> None:
    far = "198.51.100.0" if v == 4 else "2001:db8::"
    route = r.Route(r.RouteKind.VIA, CLEAR, r.pack_ip(VIP[v]))
    agent.world.put("routes", {r.RouteKey(32 + (120 if v == 4 else 64), 1, r.pack_ip(far)): route})
    sent = frame_to(A, gateway(RED).mac, far.replace(".0", ".9") if v == 4 else far + "9", UDP, udp(1, 2))
    assert agent.world.send(sent).drop == "NO_NEIGHBOUR"
    assert agent.told() == [(A.key, CLEAR, VIP[v], A.mac, SOUGHT)]
    agent.learned(CAUTIOUS, VIP[v])
    assert agent.world.send(sent).to == "dc"


@pytest.mark.parametrize("v", [4, 6])
def test_what_stands_in_for_a_router_looks_for_a_gateway(agent: Agent, v: int) -> None:
    agent.stand_in(CLEAR, *GATE.values())
    packet = ip(BARE.ip(v), "198.51.100.9" if v == 4 else "2001:db8::9", UDP, udp(1, 2))
    done = agent.world.send(eth(SERVICE_MAC, BARE.mac, IPV4 if v == 4 else IPV6, packet), BARE)
    assert (done.verdict, done.drop) == (SHOT, "NO_ROUTE")
    assert agent.told() == [(BARE.key, CLEAR, "::", BARE.mac, SOUGHT)]


def test_nobody_is_looked_for_where_all_addresses_are_told(agent: Agent) -> None:
    done = agent.world.send(frame_to(A, gateway(RED).mac, "10.0.0.99", UDP, udp(1, 2)))
    assert (done.verdict, done.drop) == (REDIRECT, "NO_NEIGHBOUR"), "the sender is told at once"
    agent.stand_in(RED, "10.0.0.3")
    assert agent.world.send(frame_to(A, SERVICE_MAC, "198.51.100.9", UDP, udp(1, 2))).verdict == REDIRECT
    assert agent.told() == []


def test_a_port_tells_only_so_many_addresses(agent: Agent) -> None:
    for n in range(60):
        agent.world.send(arp(1, BARE.mac, f"10.0.4.{100 + n}", "10.0.4.2"), BARE)
    assert 20 <= len(agent.told()) < 40
    # Another port is heard all the same, also as one behind a router.
    agent.world.send(sayings(CAUTIOUS, 4)["announcement"], CAUTIOUS)
    agent.world.send(frame_to(A, gateway(RED).mac, "10.0.4.250", UDP, udp(1, 2)))
    assert [kind for *_, kind in agent.told()] == [HELD, SOUGHT]


def test_however_many_tell_of_addresses_there_is_room_for_another(agent: Agent) -> None:
    """The agent reads nothing meanwhile."""
    ports = agent.world.bpf.table("ports")
    row = ports.get(BARE.key)
    for vlan in range(100, 200):
        at = r.PortKey(BARE.key.ifindex, vlan)
        ports.put({at: row})
        for number in range(16):
            said = arp(1, BARE.mac, f"10.0.4.{100 + number}", f"10.0.4.{100 + number}")
            tagged = eth(said[:6], said[6:12], ARP, said[14:], vlan=vlan)
            agent.world.bpf.run("from_workload", tagged, ifindex=BARE.key.ifindex)
        ports.delete([at])
    agent.world.send(arp(1, CAUTIOUS.mac, VIP[4], VIP[4]), CAUTIOUS)
    agent.ring.read()
    assert len(agent.heard) == READ_MAX
    assert select([agent.ring.fileno()], [], [], 0)[0], "there is more to read"
    assert agent.told()[-1] == (CAUTIOUS.key, CLEAR, VIP[4], CAUTIOUS.mac, HELD)
