"""What a host makes of addresses that packets bring up: whom it asks, and what it tells the server."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Coroutine
from typing import Any

import msgspec
import pytest

from bpf.packets import checksum
from crossway.agent import learned
from crossway.agent.guest.neighbours import asked
from crossway.agent.learned import Learner, Turns
from crossway.errors import Conflict, Fault, Unavailable
from crossway.model import rows as r
from crossway.model.host import LEARNED_MAX
from crossway.plan import view
from crossway.plan.address import ip, link_local, mac
from crossway.plan.plan import Document, Plan
from crossway.plan.port import Body
from crossway.plan.service import SERVICE_MAC

MAC, OTHER = "fa:16:3e:00:00:01", "fa:16:3e:00:00:02"
VIP, KEY = "10.0.0.77", r.PortKey(5)


class Host:
    """What the learner needs of an agent, and what it did.

    A port of this host, and one of another, may have what is in 10.0.0.64/26.
    """

    host = "h1"

    def __init__(self) -> None:
        self.probed: list[tuple[str, str]] = []
        self.asked: list[tuple[list[str], str, str]] = []
        self.told: list[tuple[str, str, str | None]] = []
        self.refusal: Fault | None = None
        self.servers: Any = self
        self.plan = Plan("h1")
        pairs = (view.Pair("10.0.0.64/26"),)
        ports = [
            view.Port(id=id, network="n", mac=at, addresses=(view.Address(fixed, "s"),), host=host, pairs=pairs)
            for id, at, fixed, host in (("p", MAC, "10.0.0.5", "h1"), ("q", OTHER, "10.0.0.6", "h2"))
        ]
        self.take(
            Document("host", "h2", view.Host(id="h2", underlay="192.0.2.2")),
            Document("network", "n", view.Network(id="n", number=10, mtu=1450)),
            Document("subnet", "s", view.Subnet(id="s", network="n", cidr="10.0.0.0/24", gateway="10.0.0.65")),
            *(Document("port", port.id, port) for port in ports),
        )
        self.plan.bodies({"p": Body(KEY, r.Body.VETH)})
        self.plan.settle()
        self.learner = Learner(self)

    def take(self, *documents: Document) -> None:
        self.plan.take(documents)
        self.plan.settle()

    def knows(self, port: str, mac: str, address: str = VIP) -> None:
        one = view.Learned(id=f"n/{address}", network="n", ip=address, port=port, mac=mac)
        self.take(Document("learned", one.id, one))

    def sees(
        self, address: str = VIP, kind: r.SightingKind = r.SightingKind.HELD, at: str = MAC, number: int = 10
    ) -> None:
        self.learner.take(r.Sighting(KEY, number, ip(address), mac(at), kind))

    def probe(self, port: str, address: bytes) -> None:
        self.probed.append((port, r.unpack_ip(address)))

    def seek(self, hosts: list[str], network: str, address: str) -> None:
        self.asked.append((hosts, network, address))

    async def learn(self, port: str, address: str, at: str | None) -> None:
        self.told.append((port, address, at))
        if self.refusal is not None:
            raise self.refusal


def run(what: Coroutine[Any, Any, Any]) -> None:
    asyncio.run(asyncio.wait_for(what, 10))


async def telling(host: Host, seconds: float = 0.05) -> None:
    """Let the learner tell the server for a while."""

    async def on() -> None:
        while True:
            await host.learner.tell()

    task = asyncio.create_task(on())
    await asyncio.sleep(seconds)
    task.cancel()


def test_the_server_is_told_who_has_an_address() -> None:
    host = Host()
    host.sees()
    run(telling(host))
    assert host.told == [("p", VIP, MAC)]
    # And again only if it says that another has it.
    host.knows("p", MAC)
    host.sees()
    run(telling(host))
    assert len(host.told) == 1
    host.knows("q", OTHER)
    host.sees()
    run(telling(host))
    assert host.told == [("p", VIP, MAC)] * 2


@pytest.mark.parametrize(
    "seen",
    [{"address": "10.0.0.130"}, {"at": OTHER}, {"address": "10.0.0.6"}, {"address": "fd00::77"}, {"number": 11}],
    ids=["no pair's", "another MAC", "a port's", "another family's", "another network's"],
)
def test_what_a_port_may_not_have_is_not_told(seen: dict[str, Any]) -> None:
    host = Host()
    host.sees(**seen)
    run(telling(host))
    assert host.told == []


def test_one_port_is_told_of_only_so_often() -> None:
    host = Host()
    for n in range(200):
        host.sees(f"10.0.0.{64 + n % 60}")
    assert len(host.learner._news["p"]) <= LEARNED_MAX
    run(telling(host))
    assert len(host.told) == learned.SHARE


def test_what_the_server_refuses_is_let_be_and_what_it_does_not_hear_is_told_again(monkeypatch: Any) -> None:
    monkeypatch.setattr(learned, "PAUSE_SECONDS", 0.01)
    host = Host()
    host.refusal = Conflict("no")
    host.sees()
    run(telling(host))
    assert len(host.told) == 1
    host.refusal = Unavailable("nobody there")
    host.sees()
    run(telling(host))
    host.refusal = None
    assert len(host.told) > 1
    host.learner._told = Turns(learned.SHARE, learned.SHARE_SECONDS)
    before = len(host.told)
    run(telling(host))
    assert len(host.told) == before + 1


def test_an_address_is_looked_for_at_all_who_may_have_it() -> None:
    host = Host()
    for _ in range(3):
        host.sees(VIP, r.SightingKind.SOUGHT)
    assert (host.probed, host.asked) == ([("p", VIP)], [(["h2"], "n", VIP)])
    # For another host this one asks its own.
    host.learner.sought("h2", "n", "10.0.0.78")
    host.learner.sought("h2", "n", "10.0.0.200")
    host.learner.sought("h2", "m", "10.0.0.79")
    host.learner.sought("h2", "n", "nonsense")
    assert (host.probed, len(host.asked)) == ([("p", VIP), ("p", "10.0.0.78")], 1)


def test_the_gateways_are_looked_for_where_none_is_known() -> None:
    host = Host()
    host.learner.take(r.Sighting(KEY, 10, r.NO_IP, mac(MAC), r.SightingKind.SOUGHT))
    assert host.probed == [("p", "10.0.0.65")]


def test_only_so_many_addresses_of_a_network_are_looked_for_at_once() -> None:
    host = Host()
    for n in range(64, 124):
        host.sees(f"10.0.0.{n}", r.SightingKind.SOUGHT)
    assert len(host.asked) == learned.SEEKS
    host.learner._seeks = Turns(learned.SEEKS, 1.0)
    host.sees("10.0.0.124", r.SightingKind.SOUGHT)
    assert len(host.asked) == learned.SEEKS + 1


ASSURED = learned.SEEK_RATE_ASSURED


def many_networks(host: Host, projects: int, networks: int) -> None:
    """Let each of some projects have a port here, and networks on which a port here and one on each of 40 hosts may
    have any address."""
    hosts = [f"h{n}" for n in range(2, 42)]
    documents = [Document("host", h, view.Host(id=h, underlay=f"192.0.2.{h[1:]}")) for h in hosts]
    bodies = {}
    for n in range(projects * networks):
        project, network = f"project{n // networks}", f"n{n}"
        documents.append(Document("network", network, view.Network(id=network, number=100 + n, mtu=1450)))
        for at in ("h1", *hosts):
            id = f"{network}-{at}"
            port = view.Port(id=id, network=network, mac=MAC, host=at, secured=False, project=project)
            documents.append(Document("port", id, port))
        bodies[f"{network}-h1"] = Body(r.PortKey(100 + n), r.Body.VETH)
    host.take(*documents)
    host.plan.bodies(bodies)
    host.plan.settle()


def test_however_many_networks_a_project_has_it_has_so_much_looked_for() -> None:
    host = Host()
    many_networks(host, 6, 20)

    def seeks(project: int) -> int:
        before = len(host.asked), len(host.probed)
        for n in range(20 * project, 20 * project + 20):
            for address in range(1, 30):
                host.learner.take(
                    r.Sighting(r.PortKey(100 + n), 100 + n, ip(f"10.0.0.{address}"), mac(MAC), r.SightingKind.SOUGHT)
                )
        return sum(len(hosts) for hosts, _, _ in host.asked[before[0] :]) + len(host.probed) - before[1]

    start = time.monotonic()
    first, others = seeks(0), [seeks(project) for project in range(1, 6)]
    seconds = time.monotonic() - start + 1
    once = 42  # what one costs: 40 hosts, a port here, and itself
    # Each has a little of its own beside.
    assert learned.SEEK_RATE - once <= first <= (learned.SEEK_RATE + ASSURED) * seconds + 2 * once
    assert others[0] >= learned.SEEK_RATE - once, "another project has its own"
    assert first + sum(others) <= (learned.SEEK_RATE_OF_ALL + 6 * ASSURED) * seconds + 7 * once
    assert others[-1] >= ASSURED, "and of what is its own nobody else uses anything"


def test_other_hosts_have_only_so_much_looked_for_here() -> None:
    host = Host()
    many_networks(host, 1, 151)

    def asks(by: str) -> int:
        before = len(host.probed)
        for n in range(150):
            for address in range(1, 30):
                host.learner.sought(by, f"n{n}", f"10.{by[1:]}.0.{address}")
        return len(host.probed) - before

    start = time.monotonic()
    first, second = asks("h2"), asks("h3")
    seconds = time.monotonic() - start + 1
    assert 0 < first <= learned.SEEK_RATE * seconds / 2 + 1
    assert second > 0, "another host has its own"
    host.learner.take(r.Sighting(r.PortKey(250), 250, ip("10.0.0.99"), mac(MAC), r.SightingKind.SOUGHT))
    assert len(host.asked) == 1, "this host's ports have their own"


@pytest.mark.parametrize("hosts", [1, 40], ids=["of its host's part", "of all hosts'"])
def test_who_has_wide_networks_looked_into_leaves_something_for_others(hosts: int) -> None:
    """A network with 256 ports here that may have any address, where addresses that nobody has are looked for."""
    host = Host()
    documents, bodies = [], {}
    for project, ports in (("wide", 256), *((f"wide{n}", 256) for n in range(5)), ("small", 2)):
        number = 200 + len(documents)
        documents.append(Document("network", project, view.Network(id=project, number=number, mtu=1450)))
        for n in range(ports):
            one = view.Port(id=f"{project}-{n}", network=project, mac=MAC, host="h1", secured=False, project=project)
            documents.append(Document("port", one.id, one))
            bodies[one.id] = Body(r.PortKey(number + n), r.Body.VETH)
    host.take(*documents)
    host.plan.bodies(bodies)
    host.plan.settle()

    def probes(by: str, network: str, address: str) -> int:
        before = len(host.probed)
        host.learner.sought(by, network, address)
        return len(host.probed) - before

    start = time.monotonic()
    askers = [f"h{n}" for n in range(2, 2 + hosts)]
    attackers = ["wide"] if hosts == 1 else ["wide", *(f"wide{n}" for n in range(5))]
    caused = sum(
        probes(by, network, f"10.{turn}.0.{n}") for turn, by in enumerate(askers) for n, network in enumerate(attackers)
    )
    caused += sum(probes(askers[0], "wide", f"10.99.0.{n}") for n in range(20))
    assert caused >= 256
    for n in range(5):
        assert probes(askers[0], "small", f"10.0.0.{n}") == 2, "another tenant's go on"
    seconds = time.monotonic() - start + 1
    assert caused <= (learned.SEEK_RATE_OF_ALL + len(attackers) * ASSURED) * seconds + (1 + len(attackers)) * 257


def test_a_port_that_has_its_share_is_not_told_of() -> None:
    host = Host()
    for n in range(64, 64 + LEARNED_MAX - 1):
        host.knows("p", MAC, f"10.0.0.{n}")
    host.sees("10.0.0.127")
    run(telling(host))
    assert len(host.told) == 1
    host.knows("p", MAC, "10.0.0.127")
    host.knows("q", OTHER, "10.0.0.126")
    host.knows("p", MAC, "10.0.0.125")
    host.sees("10.0.0.126")
    run(telling(host))
    assert len(host.told) == 2
    host.take(Document("learned", "n/10.0.0.126", None))
    host.knows("p", MAC, "10.0.0.126")
    host.sees("10.0.0.79")
    run(telling(host))
    assert len(host.told) == 2


def test_only_so_many_searches_are_remembered() -> None:
    host = Host()
    for n in range(3 * learned.SOUGHT_MAX):
        host.learner.sought(f"h{n}", "n", f"10.0.{n >> 8}.{n & 255}")
    assert len(host.learner._sought) <= learned.SOUGHT_MAX


def test_who_asks_whether_an_address_is_free_is_asked_whether_he_has_it(monkeypatch: Any) -> None:
    monkeypatch.setattr(learned, "WISH_SECONDS", 0.02)
    host = Host()

    async def story() -> None:
        host.sees(VIP, r.SightingKind.WISHED)
        assert host.probed == []
        await asyncio.sleep(0.05)

    run(story())
    assert host.probed == [("p", VIP)]
    assert host.told == []


def test_a_port_with_several_macs_answers_with_any() -> None:
    host = Host()
    pairs = (view.Pair(VIP), view.Pair(VIP, OTHER))
    port = host.plan.port("p")
    assert port is not None
    host.take(Document("port", "p", msgspec.structs.replace(port, pairs=pairs)))
    host.knows("p", MAC)
    host.sees(at=OTHER, kind=r.SightingKind.ANSWERED)
    run(telling(host))
    assert host.told == []
    host.sees(at=OTHER)
    run(telling(host))
    assert host.told == [("p", VIP, OTHER)]
    host.knows("q", OTHER)
    host.sees(kind=r.SightingKind.ANSWERED)
    run(telling(host))
    assert host.told[1:] == [("p", VIP, MAC)]


def test_what_is_not_answered_for_is_forgotten(monkeypatch: Any) -> None:
    monkeypatch.setattr(learned, "VERIFY_SECONDS", 0)
    host = Host()
    host.knows("p", MAC)
    host.knows("q", OTHER, "10.0.0.78")  # another host's to ask

    async def story() -> None:
        for _ in range(learned.MISSED):
            await host.learner.verify()
        host.sees(kind=r.SightingKind.ANSWERED)
        for _ in range(learned.MISSED):
            await host.learner.verify()
        assert host.probed == [("p", VIP)] * 2 * learned.MISSED
        await host.learner.verify()
        await telling(host)

    run(story())
    assert host.told == [("p", VIP, None)]


def test_next_hops_that_nobody_has_are_looked_for(monkeypatch: Any) -> None:
    monkeypatch.setattr(learned, "VERIFY_SECONDS", 0)
    host = Host()
    foot = view.Interface("rp", "n", "fa:16:3e:00:00:fe", (view.Prefixed("10.0.0.1", 24),))
    hops = tuple(view.Hop("192.0.2.0/24", hop) for hop in ("10.0.0.6", VIP, "10.0.0.200"))
    host.take(Document("router", "r", view.Router(id="r", number=3, interfaces=(foot,), routes=hops)))
    run(host.learner.verify())
    assert host.probed == [("p", VIP)]
    host.knows("p", MAC)
    host.probed.clear()
    run(host.learner.verify())
    assert host.probed == [("p", VIP)], "as one that is known"


def test_probes_are_such_as_their_holder_answers() -> None:
    four, six = asked(ip(VIP)), asked(ip("fd00::12:3456"))
    assert four.hex() == "ffffffffffff02c0550000010806000108000604000102c055000001000000000000000000000a00004d"
    assert (six[:6].hex(), six[6:12], six[22:38]) == ("3333ff123456", SERVICE_MAC, link_local(SERVICE_MAC))
    assert six[38:54].hex() == "ff0200000000000000000001ff123456"
    assert (six[21], six[54], six[62:78]) == (255, 135, ip("fd00::12:3456"))
    assert (six[78:80], six[80:86]) == (b"\1\1", SERVICE_MAC)
    assert checksum(six[22:54] + struct.pack("!II", len(six) - 54, 58) + six[54:]) == 0
