"""The wire format of DNS (RFC 1035, 3596, 6891), as far as one who answers for a few names needs it.

What is asked is taken apart, what is answered put together. The answers of
others are passed on as they are, so that nobody here reads what they may hold.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

PORT = 53
A, PTR, AAAA, OPT, ANY = 1, 12, 28, 41, 255
IN = 1
NO_ERROR, FORMAT, FAILED, NO_NAME, NOT_DONE, REFUSED = range(6)
RESPONSE, AUTHORITATIVE, TRUNCATED, WANTED, RECURSES = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080
OPCODE = 0x7800
HEAD = struct.Struct("!HHHHHH")
SECONDS = 5  # for which an answer may be believed: containers come and go
SMALL, LARGE = 512, 1232  # bytes of an answer: RFC 1035 4.2.1, and what passes everywhere unfragmented
LABEL_MAX, NAME_MAX = 63, 255
NAME_AT_QUESTION = b"\xc0\x0c"


class Question(NamedTuple):
    """What somebody asks; *name* in lower case and without its last dot, *raw* as it came."""

    id: int
    flags: int
    name: str
    type: int
    kind: int
    raw: bytes  # name, type and class
    extended: bool  # whether it has an OPT record
    size: int  # bytes that an answer may have


def parse(body: bytes) -> Question | None:
    """Take a question apart; None if it is none, or not one of one name."""
    if len(body) < HEAD.size:
        return None
    id, flags, questions, answers, authorities, others = HEAD.unpack_from(body)
    if flags & RESPONSE or questions != 1 or answers or authorities:
        return None
    read = _name(body, HEAD.size)
    if read is None or read[1] + 4 > len(body):
        return None
    name, at = read
    type, kind = struct.unpack_from("!HH", body, at)
    raw = body[HEAD.size : at + 4]
    size = _extended(body, at + 4) if others else None
    return Question(id, flags, name, type, kind, raw, size is not None, min(max(size or SMALL, SMALL), LARGE))


def _name(body: bytes, at: int) -> tuple[str, int] | None:
    """Return a name and where it ends; None if it runs on, or points elsewhere, as no question does."""
    labels: list[bytes] = []
    start = at
    while at < len(body):
        size = body[at]
        if not size:
            return b".".join(labels).decode("latin-1").lower(), at + 1
        if size > LABEL_MAX or at + 1 + size - start > NAME_MAX:
            return None
        labels.append(body[at + 1 : at + 1 + size])
        at += 1 + size
    return None


def _extended(body: bytes, at: int) -> int | None:
    """Return the size that an OPT record admits, if the first record behind the question is one."""
    if at + 11 > len(body) or body[at]:
        return None
    type, size = struct.unpack_from("!HH", body, at + 1)
    return size if type == OPT else None


def answer(asked: Question, found: Iterable[bytes], code: int = NO_ERROR, type: int | None = None) -> bytes:
    """Return the answer to a question: records of its type, as many as there is room for."""
    end = b"\0" + struct.pack("!HHIH", OPT, LARGE, 0, 0) if asked.extended else b""
    room = asked.size - HEAD.size - len(asked.raw) - len(end)
    records = b""
    count = 0
    for data in found:
        record = NAME_AT_QUESTION + struct.pack("!HHIH", type or asked.type, IN, SECONDS, len(data)) + data
        if len(records) + len(record) > room:
            break
        records += record
        count += 1
    flags = RESPONSE | RECURSES | asked.flags & (OPCODE | WANTED) | code
    if code == NO_ERROR:
        flags |= AUTHORITATIVE
    return HEAD.pack(asked.id, flags, 1, count, 0, int(asked.extended)) + asked.raw + records + end


def cut(body: bytes, room: int) -> bytes:
    """Return an answer of somebody else's; one that has no room is left out, and to be asked for by TCP."""
    if len(body) <= room or len(body) < HEAD.size:
        return body
    id, flags, *_ = HEAD.unpack_from(body)
    read = _name(body, HEAD.size)
    end = min(read[1] + 4, len(body)) if read is not None else HEAD.size
    return HEAD.pack(id, flags | TRUNCATED, int(read is not None), 0, 0, 0) + body[HEAD.size : end]


def is_answer(body: bytes, asked: Question, id: int) -> bool:
    """Return whether a message answers a question that was asked under *id*."""
    if len(body) < HEAD.size + len(asked.raw):
        return False
    told, flags, questions, *_ = HEAD.unpack_from(body)
    return bool(told == id and flags & RESPONSE and questions == 1 and body[HEAD.size :].startswith(asked.raw))


def pointer(name: str) -> bytes:
    """Return a name as the data of a PTR record; raises ValueError when it has no such form."""
    labels = [label.encode("latin-1") for label in name.split(".")]
    raw = b"".join(bytes([len(label)]) + label for label in labels if 0 < len(label) <= LABEL_MAX) + b"\0"
    if len(raw) > NAME_MAX or not all(0 < len(label) <= LABEL_MAX for label in labels):
        raise ValueError(f"{name!r} is no name of DNS")
    return raw


def address_of(name: str) -> str | None:
    """Return the address that a PTR question is about (RFC 1035 3.5, RFC 3596 2.5); None if it is about none."""
    labels = name.split(".")
    if labels[-2:] != ["in-addr", "arpa"] and labels[-2:] != ["ip6", "arpa"]:
        return None
    digits = labels[-3::-1]
    try:
        if labels[-2] == "in-addr":
            return str(IPv4Address(".".join(digits))) if len(digits) == 4 else None
        if len(digits) == 32 and all(len(digit) == 1 for digit in digits):
            return str(IPv6Address(int("".join(digits), 16)))
    except ValueError:
        pass
    return None
