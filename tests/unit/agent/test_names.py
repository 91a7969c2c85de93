"""What a port is told of names: those of its own networks, and of others what the host's resolvers say."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import dns.message
import dns.rcode
import pytest

from crossway.agent.guest import dns as wire
from crossway.agent.guest import names
from crossway.agent.guest.frame import UDP, Frame
from crossway.agent.guest.names import Names, lookup
from crossway.errors import Invalid
from crossway.model import rows as r
from crossway.plan import view
from crossway.plan.plan import Document, Plan
from crossway.plan.port import Body


def a_port(id: str, n: int, network: str = "n", host: str = "h2", **more: Any) -> view.Port:
    addresses = (view.Address(f"10.0.0.{n}", "4"), view.Address(f"fd00::{n}", "6"))
    return view.Port(id=id, network=network, mac=f"fa:16:3e:00:00:{n:02x}", addresses=addresses, host=host, **more)


PORTS = [
    a_port("me", 1, host="h1", names=("me",)),
    a_port("web1", 2, names=("web1", "web")),
    a_port("web2", 3, names=("web2", "web")),
    a_port("theirs", 2, "m", names=("secret", "web")),
    a_port("off", 4, names=("off",), up=False),
    a_port("both-n", 5, host="h1", names=("both",), workload="w"),
    a_port("both-m", 6, "m", host="h1", names=("both",), workload="w"),
    a_port("guest", 8, names=("guest", "web"), project="other"),
    a_port("liar", 7, "o", host="h2", names=("liar",), workload="w"),
]


@pytest.fixture
def plan() -> Plan:
    made = Plan("h1")
    made.take(Document("network", id, view.Network(id=id, number=n, mtu=1450, domain="example.org.")) for n, id in
              enumerate("nm", 1))  # fmt: skip
    made.take(Document("port", port.id, port) for port in PORTS)
    made.bodies({port.id: Body(r.PortKey(n), r.Body.VETH) for n, port in enumerate(PORTS) if port.host == "h1"})
    return made


def told(plan: Plan, name: str, type: str = "A", by: str = "me") -> list[str] | None:
    """Return the records that a port is answered; None if it is for others to answer."""
    port, asked = plan.port(by), wire.parse(dns.message.make_query(name, type).to_wire())
    assert port is not None
    assert asked is not None
    raw = lookup(plan, port, asked)
    if raw is None:
        return None
    return sorted(str(data) for records in dns.message.from_wire(raw).answer for data in records)


@pytest.mark.parametrize(
    ("name", "type", "records"),
    [
        ("web1", "A", ["10.0.0.2"]),
        ("WEB1.", "AAAA", ["fd00::2"]),
        ("web", "A", ["10.0.0.2", "10.0.0.3"]),
        ("web.example.org", "A", ["10.0.0.2", "10.0.0.3"]),
        ("web.example.com", "A", None),
        ("example.org", "A", None),
        ("web", "MX", []),
        ("off", "A", []),
        ("me", "A", ["10.0.0.1"]),
        ("secret", "A", None),
        ("guest", "A", None),
        ("8.0.0.10.in-addr.arpa", "PTR", None),
        ("nobody", "A", None),
        ("2.0.0.10.in-addr.arpa", "PTR", ["web1."]),
        ("9.0.0.10.in-addr.arpa", "PTR", None),
        ("6.0.0.10.in-addr.arpa", "PTR", None),
    ],
)
def test_a_port_is_told_what_its_network_has(plan: Plan, name: str, type: str, records: list[str] | None) -> None:
    assert told(plan, name, type) == records


def test_who_has_two_networks_is_told_of_both_and_of_no_third(plan: Plan) -> None:
    assert told(plan, "secret", by="both-n") == ["10.0.0.2"]
    assert told(plan, "web", by="both-m") == ["10.0.0.2", "10.0.0.3"]
    # That a port elsewhere is said to be of the same workload makes its network nobody's here.
    assert told(plan, "liar", by="both-n") is None


def test_names_that_have_gone_are_told_no_more(plan: Plan) -> None:
    plan.take([Document("port", "web1", None), Document("port", "web2", a_port("web2", 3, names=("new",)))])
    assert told(plan, "web") is None
    assert told(plan, "new") == ["10.0.0.3"]
    assert told(plan, "2.0.0.10.in-addr.arpa", "PTR") is None


# Others.


class Elsewhere(asyncio.DatagramProtocol):
    """A server of names on the loopback, which answers as it is told to."""

    def __init__(self, say: Callable[[bytes], list[bytes]]) -> None:
        self.say, self.asked = say, list[bytes]()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, whence: Any) -> None:
        self.asked.append(data)
        for answer in self.say(data):
            self.transport.sendto(answer, whence)


def right(data: bytes) -> list[bytes]:
    asked = wire.parse(data)
    assert asked is not None
    return [wire.answer(asked, [bytes((192, 0, 2, 7))])]


def asking(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, servers: list[Callable[[bytes], list[bytes]] | None],
    what: Callable[[Names], Awaitable[None]],
) -> tuple[list[Elsewhere], list[Frame]]:  # fmt: skip
    """Run *what* with Names that asks servers; None is one where nobody listens."""
    heard: list[Frame] = []
    elsewhere: list[Elsewhere] = []

    async def whole() -> None:
        with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as free:
            free.bind(("127.0.0.9", 0))
            monkeypatch.setattr(wire, "PORT", free.getsockname()[1])
        addresses = [f"127.0.0.{10 + n}" for n in range(len(servers))]
        loop, open = asyncio.get_running_loop(), []
        for address, say in zip(addresses, servers, strict=True):
            if say is not None:
                transport, protocol = await loop.create_datagram_endpoint(
                    lambda say=say: Elsewhere(say),
                    local_addr=(address, wire.PORT),  # type: ignore[misc]
                )
                open.append(transport)
                elsewhere.append(protocol)
        asked = Names(plan, lambda _, frame: heard.append(frame), lambda: addresses)
        try:
            await what(asked)
            while asked._tasks:
                await asyncio.sleep(0.001)
        finally:
            asked.close()
            for transport in open:
                transport.close()

    asyncio.run(whole())
    return elsewhere, heard


def frame(name: str = "crossway.example", id: int = 77, type: str = "A") -> Frame:
    body = dns.message.make_query(name, type, id=id).to_wire()
    return Frame(b"\2" * 6, b"\4" * 6, bytes((10, 0, 0, 1)), bytes((192, 0, 2, 53)), UDP, 40000, 53, bytes(body))


def me(plan: Plan) -> view.Port:
    port = plan.port("me")
    assert port is not None
    return port


def test_what_others_answer_is_handed_on_from_whom_was_asked(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    async def what(asked: Names) -> None:
        asked.ask(me(plan), frame())

    (elsewhere,), (back,) = asking(plan, monkeypatch, [right], what)
    assert back[:7] == (b"\4" * 6, b"\2" * 6, bytes((192, 0, 2, 53)), bytes((10, 0, 0, 1)), UDP, 53, 40000)
    message = dns.message.from_wire(back.body)
    assert (message.id, message.answer[0].to_text()) == (77, "crossway.example. 5 IN A 192.0.2.7")
    # What is asked of others cannot be guessed by who asks.
    assert elsewhere.asked[0][2:] == frame().body[2:]


def test_the_next_server_is_asked_when_one_is_silent_or_lies(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "PATIENCE_SECONDS", 0.1)

    def wrong(data: bytes) -> list[bytes]:
        (answer,) = right(data)
        other = dns.message.make_query("another.example", "A").to_wire()
        return [b"", b"\0", data, answer[:1] + bytes([answer[1] ^ 1]) + answer[2:], bytes(other)]

    async def what(asked: Names) -> None:
        asked.ask(me(plan), frame())

    _, (back,) = asking(plan, monkeypatch, [None, wrong, lambda _: [], right], what)
    assert dns.message.from_wire(back.body).rcode() == dns.rcode.NOERROR


@pytest.mark.parametrize(("servers", "code"), [([], dns.rcode.REFUSED), ([None], dns.rcode.SERVFAIL)])
def test_where_nobody_answers_that_is_said(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, servers: list[None], code: int
) -> None:
    async def what(asked: Names) -> None:
        asked.ask(me(plan), frame())

    _, (back,) = asking(plan, monkeypatch, [*servers], what)
    assert dns.message.from_wire(back.body).rcode() == code


def test_one_ports_questions_to_others_are_bounded_and_leave_room_for_the_next(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "PATIENCE_SECONDS", 0.3)
    other = plan.port("both-n")
    assert other is not None

    async def what(asked: Names) -> None:
        for n in range(100):
            asked.ask(me(plan), frame(id=n))
        asked.ask(other, frame(id=500))
        # What is known here is told all the same.
        asked.ask(me(plan), frame("web1", id=600))

    (elsewhere,), heard = asking(plan, monkeypatch, [lambda _: []], what)
    codes = {(m := dns.message.from_wire(back.body)).id: m.rcode() for back in heard}
    assert len(heard) == len(codes) == 102
    assert len(elsewhere.asked) == names.WAITING_OF_PORT_MAX + 1
    assert [id for id, code in codes.items() if code == dns.rcode.NOERROR] == [600]
    # Those that were too much are told so before the others have been waited for.
    assert [dns.message.from_wire(back.body).id for back in heard][:68] == list(range(32, 100))


def test_an_answer_longer_than_a_frame_is_cut(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    def long(data: bytes) -> list[bytes]:
        (answer,) = right(data)
        return [answer + bytes(2000)]

    async def what(asked: Names) -> None:
        asked.ask(me(plan), frame())

    _, (back,) = asking(plan, monkeypatch, [long], what)
    assert len(back.body) < 1400
    assert dns.message.from_wire(back.body).flags & 0x0200


# Whom the host asks, and where its workloads ask.


@pytest.mark.parametrize(
    ("conf", "behind", "wanted", "asks", "at"),
    [
        ("nameserver 192.0.2.53\n", "", None, ["192.0.2.53"], ["192.0.2.53"]),
        ("# nameserver 1.1.1.1\nnameserver\nnameserver x\nnameserver 2001:db8::1 # y\n", "", None,
         ["2001:db8::1"], ["2001:db8::1"]),
        ("".join(f"nameserver 192.0.2.{n}\n" for n in range(1, 9)), "", None,
         ["192.0.2.1", "192.0.2.2", "192.0.2.3"], ["192.0.2.1", "192.0.2.2", "192.0.2.3"]),
        ("nameserver 127.0.0.53\n", "nameserver 192.0.2.9\n", None, ["127.0.0.53"], ["192.0.2.9"]),
        ("nameserver 127.0.0.1\n", "", None, ["127.0.0.1"], list(names.LAST_RESORT)),
        ("", "", None, [], list(names.LAST_RESORT)),
        ("nameserver 192.0.2.53\n", "", "192.0.2.7, 2001:db8::7", ["192.0.2.7", "2001:db8::7"],
         ["192.0.2.53", "192.0.2.7", "2001:db8::7"]),
        ("nameserver 192.0.2.53\n", "", "none", [], ["192.0.2.53"]),
    ],
)  # fmt: skip
def test_whom_the_host_asks_and_where_workloads_ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, conf: str, behind: str, wanted: str | None, asks: list[str],
    at: list[str],
) -> None:  # fmt: skip
    (tmp_path / "conf").write_text(conf)
    (tmp_path / "behind").write_text(behind)
    monkeypatch.setattr(names, "RESOLV_CONF", tmp_path / "conf")
    monkeypatch.setattr(names, "BEHIND_STUB", tmp_path / "behind")
    monkeypatch.delenv("CROSSWAY_RESOLVERS", raising=False)
    if wanted is not None:
        monkeypatch.setenv("CROSSWAY_RESOLVERS", wanted)
    assert (names.own(), names.asked_at()) == (asks, at)


def test_a_server_that_is_no_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROSSWAY_RESOLVERS", "resolver.example")
    with pytest.raises(Invalid, match=r"'resolver\.example' is no address"):
        names.own()


@pytest.mark.parametrize(
    ("conf", "outside"),
    [("", True), ("nameserver 192.0.2.53\n", False), ("nameserver 127.0.0.53\n", False),
     ("nameserver 127.0.0.1\n", True), ("nameserver 127.0.0.1\nnameserver 192.0.2.53\n", False)],
)  # fmt: skip
def test_whether_engines_ask_from_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, conf: str, outside: bool
) -> None:
    (tmp_path / "conf").write_text(conf)
    monkeypatch.setattr(names, "RESOLV_CONF", tmp_path / "conf")
    assert names.is_asked_outside() is outside


def test_many_ports_that_wait_for_a_slow_server_leave_room_for_another_project(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """17 ports of one project ask 40 questions each of a server that answers none; then another's port asks."""
    loud = [a_port(f"loud{n}", 20 + n, host="h1", project="loud") for n in range(17)]
    plan.take(Document("port", port.id, port) for port in loud)
    monkeypatch.setattr(names, "PATIENCE_SECONDS", 3.0)
    refused: list[str] = []

    def only_good(data: bytes) -> list[bytes]:
        return right(data) if b"good" in data else []

    async def what(asked: Names) -> None:
        asked._refused = lambda port, _: refused.append(port.project)
        for n in range(40):
            for port in loud:
                asked.ask(port, frame(f"slow{n}.example", id=n))
        assert len(asked._waiting) == names.WAITING_MAX
        await asyncio.sleep(0.2)  # the server's socket holds no more than a few hundred at once
        asked.ask(me(plan), frame("good.example", id=999))

    _, heard = asking(plan, monkeypatch, [only_good], what)
    codes = [(m.id, m.rcode()) for m in (dns.message.from_wire(back.body) for back in heard)]
    assert [code for id, code in codes if id == 999] == [dns.rcode.NOERROR]
    assert set(refused) == {"loud"}
    assert len(codes) == 17 * 40 + 1
    # Each of the loud ones had its share, too.
    assert len(refused) == 17 * 40 - names.WAITING_MAX + 1
