"""Questions and answers of DNS, byte by byte; what is answered is read by dnspython, who knows better."""

from __future__ import annotations

import struct

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.reversename
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossway.agent.guest import dns as ours


def question(name: str = "web", type: str = "A", edns: int | None = None) -> bytes:
    message = dns.message.make_query(name, type, use_edns=edns is not None, payload=edns or 0)
    return bytes(message.to_wire())


def parsed(body: bytes) -> ours.Question:
    asked = ours.parse(body)
    assert asked is not None
    return asked


@pytest.mark.parametrize("name", ["web", "WEB.", "a.b.example.org", "x" * 63, "."])
@pytest.mark.parametrize("edns", [None, 4096])
def test_a_question_is_read_as_it_is_written(name: str, edns: int | None) -> None:
    asked = parsed(question(name, "AAAA", edns))
    assert (asked.name, asked.type, asked.kind) == (name.rstrip(".").lower(), ours.AAAA, ours.IN)
    assert (asked.extended, asked.size) == ((True, 1232) if edns else (False, 512))


@pytest.mark.parametrize("edns", [None, 4096])
def test_an_answer_is_read_by_others_as_it_is_meant(edns: int | None) -> None:
    body = question("Web", "A", edns)
    told = dns.message.from_wire(ours.answer(parsed(body), [bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2))]))
    assert told.is_response is not None
    assert dns.message.from_wire(body).is_response(told)
    assert told.rcode() == dns.rcode.NOERROR
    assert told.flags & (dns.flags.AA | dns.flags.RA | dns.flags.RD) == dns.flags.AA | dns.flags.RA | dns.flags.RD
    (records,) = told.answer
    assert records.to_text() == "Web. 5 IN A 10.0.0.1\nWeb. 5 IN A 10.0.0.2"
    assert (told.edns == 0) is bool(edns)


def test_a_name_without_an_address_of_that_kind_is_there_all_the_same() -> None:
    told = dns.message.from_wire(ours.answer(parsed(question()), []))
    assert (told.rcode(), told.answer) == (dns.rcode.NOERROR, [])


def test_a_pointer_is_answered() -> None:
    for ip in ("10.0.0.7", "fd00::7"):
        asked = parsed(question(str(dns.reversename.from_address(ip)), "PTR"))
        assert ours.address_of(asked.name) == ip
        told = dns.message.from_wire(ours.answer(asked, [ours.pointer("db.internal")]))
        assert told.answer[0][0].to_text() == "db.internal."


@pytest.mark.parametrize(
    "name",
    ["", "web", "in-addr.arpa", "1.10.in-addr.arpa", "1.2.3.400.in-addr.arpa", "x.ip6.arpa",
     ".".join("g" * 32) + ".ip6.arpa"],
)  # fmt: skip
def test_what_is_no_address_turned_round_is_none(name: str) -> None:
    assert ours.address_of(name) is None


@pytest.mark.parametrize("name", ["", "a..b", "x" * 64, ".".join(["x" * 60] * 5)])
def test_a_name_that_dns_has_no_form_for_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no name of DNS"):
        ours.pointer(name)


def test_more_addresses_than_there_is_room_for_are_left_out() -> None:
    for edns, room in ((None, 512), (700, 700), (65535, 1232)):
        raw = ours.answer(parsed(question("web", "A", edns)), [struct.pack("!I", n) for n in range(500)])
        told = dns.message.from_wire(raw)
        assert len(raw) <= room < len(raw) + 16
        assert not told.flags & dns.flags.TC
        assert len(told.answer[0]) > 20


HEAD = struct.pack("!HHHHHH", 7, 0x100, 1, 0, 0, 0)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        HEAD,
        HEAD + b"\3web",
        HEAD + b"\3web\0\0\1",
        HEAD + b"\xc0\x0c\0\1\0\1",  # points at itself
        HEAD + b"\3web\xc0\x0c\0\1\0\1",  # and round
        HEAD + b"\x40" + b"x" * 64 + b"\0\0\1\0\1",
        HEAD + (b"\x3f" + b"x" * 63) * 4 + b"\0\0\1\0\1",
        b"\0\7\x81\0" + HEAD[4:] + b"\3web\0\0\1\0\1",  # an answer
        HEAD[:4] + b"\0\2" + HEAD[6:] + b"\3web\0\0\1\0\1\3web\0\0\1\0\1",
    ],
)  # fmt: skip
def test_what_is_no_question_is_not_answered(body: bytes) -> None:
    assert ours.parse(body) is None


@given(st.binary(max_size=300))
def test_hostile_bytes_are_read_or_not_and_never_raise(body: bytes) -> None:
    asked = ours.parse(body)
    if asked is not None:
        assert len(ours.answer(asked, [bytes(4)] * 100)) <= asked.size
        ours.address_of(asked.name)
    ours.cut(body, 20)


@given(st.binary(max_size=200), st.integers(0, 0xFFFF))
def test_hostile_questions_that_begin_well_never_raise(rest: bytes, others: int) -> None:
    body = HEAD[:10] + struct.pack("!H", others) + b"\3web\0\0\1\0\1" + rest
    asked = parsed(body)
    assert asked.name == "web"
    dns.message.from_wire(ours.answer(asked, [bytes(4)]))


@given(st.binary(max_size=80), st.integers(0, 0xFFFF))
def test_only_what_answers_the_question_is_an_answer(told: bytes, id: int) -> None:
    asked = parsed(question())
    ours.is_answer(told, asked, id)
    right = ours.answer(asked, [bytes(4)])
    assert ours.is_answer(right, asked, asked.id)
    assert not ours.is_answer(right, asked, asked.id ^ 1)
    assert not ours.is_answer(right, parsed(question("other")), asked.id)
    assert not ours.is_answer(question(), asked, asked.id)


def test_an_answer_that_has_no_room_is_to_be_asked_for_by_tcp() -> None:
    asked = parsed(question("web", "A", 1232))
    long = ours.answer(asked, [struct.pack("!I", n) for n in range(60)])
    assert ours.cut(long, 1400) is long
    told = dns.message.from_wire(ours.cut(long, 600))
    assert told.flags & dns.flags.TC
    assert (told.id, told.question, told.answer) == (asked.id, dns.message.from_wire(long).question, [])
