"""Netlink messages are put together and taken apart; the kernel's part is tried in tests/lab."""

from __future__ import annotations

import struct

from crossway.kernel import netlink as nl
from crossway.kernel.links import (
    IFLA_ADDRESS,
    IFLA_IFALIAS,
    IFLA_IFNAME,
    IFLA_INFO_KIND,
    IFLA_LINKINFO,
    IFLA_MASTER,
    IFLA_MTU,
    decode,
)


def test_attributes_are_padded_to_four_bytes_and_found_again() -> None:
    raw = nl.attr(1, b"abcde") + nl.attr(2, 7) + nl.nested(3, nl.attr(4, "name"))
    assert len(raw) % 4 == 0
    found = nl.attrs(raw)
    assert found[1] == b"abcde"
    assert found[2] == struct.pack("=I", 7)
    assert nl.attrs(found[3]) == {4: b"name\0"}


def test_a_truncated_attribute_ends_the_reading() -> None:
    assert nl.attrs(nl.attr(1, b"abcd") + b"\2\0\1\0") == {1: b"abcd"}
    assert nl.attrs(b"\0\0\0\0" * 3) == {}


def test_a_link_is_read_from_its_message() -> None:
    body = struct.pack("=BxHiII", 0, 1, 42, 1, 0)
    body += (
        nl.attr(IFLA_IFNAME, "tap0")
        + nl.attr(IFLA_MTU, 1400)
        + nl.attr(IFLA_ADDRESS, bytes(range(6)))
        + nl.attr(IFLA_MASTER, 7)
    )
    body += nl.nested(IFLA_LINKINFO, nl.attr(IFLA_INFO_KIND, "tun")) + nl.attr(IFLA_IFALIAS, "crossway port x")
    assert decode(body) == (42, "tap0", True, 1400, "00:01:02:03:04:05", "tun", "crossway port x", False, 1, 7)


def test_a_loopback_answers_in_this_namespace() -> None:
    from crossway.kernel.links import Links

    links = Links()
    try:
        lo = links.find("lo")
        assert lo is not None
        assert lo in links.all()
        assert links.find("no-such-link") is None
        assert links.find("a name that is far too long") is None
    finally:
        links.close()
