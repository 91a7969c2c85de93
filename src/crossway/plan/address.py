"""Addresses as the tables hold them: 16 bytes, and prefixes of those 128 bits."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import ip_network
from typing import NamedTuple

from crossway.model.rows import MAPPED, pack_ip, pack_mac

MAPPED_BITS = 96


class Cidr(NamedTuple):
    """A prefix: its first address and its length within 128 bits (IPv4: 96 more)."""

    ip: bytes
    bits: int

    @property
    def mapped(self) -> bool:
        """Whether it lies within the mapped IPv4 addresses."""
        return self.bits >= MAPPED_BITS and self.ip[:12] == MAPPED

    def holds(self, ip: bytes) -> bool:
        """Return whether an address is in it."""
        return masked(ip, self.bits) == self.ip


def masked(ip: bytes, bits: int) -> bytes:
    """Return an address with all but its first *bits* cleared."""
    rest = 128 - bits
    return (int.from_bytes(ip, "big") >> rest << rest).to_bytes(16, "big")


def without_mapped(prefix: Cidr) -> list[Cidr]:
    """Return prefixes that hold what *prefix* holds but for the mapped IPv4 addresses.

    A wide IPv6 prefix such as ::/0 holds ::ffff:0:0/96, which stands for IPv4.
    """
    whole = MAPPED + bytes(4)
    if prefix.bits >= MAPPED_BITS or not prefix.holds(whole):
        return [prefix]
    number = int.from_bytes(whole, "big")
    return [
        Cidr(masked((number ^ 1 << 127 - at).to_bytes(16, "big"), at + 1), at + 1)
        for at in range(prefix.bits, MAPPED_BITS)
    ]


@lru_cache(65536)
def ip(text: str) -> bytes:
    """Return the 16 bytes of an address."""
    return pack_ip(text)


@lru_cache(65536)
def cidr(text: str) -> Cidr:
    """Return a prefix; an address alone is one of full length, and host bits are cleared."""
    net = ip_network(text, strict=False)
    return Cidr(pack_ip(net.network_address), net.prefixlen + (MAPPED_BITS if net.version == 4 else 0))


@lru_cache(65536)
def mac(text: str) -> bytes:
    """Return the 6 bytes of a MAC address."""
    raw = pack_mac(text)
    if len(raw) != 6:
        raise ValueError(f"{text!r} is no MAC address")
    return raw


@lru_cache(65536)
def link_local(raw: bytes) -> bytes:
    """Return the link-local address that a station makes of its MAC address (RFC 4291 appendix A)."""
    return b"\xfe\x80" + bytes(6) + bytes([raw[0] ^ 2]) + raw[1:3] + b"\xff\xfe" + raw[3:]


def first_of_each(ips: list[bytes]) -> tuple[bytes, bytes]:
    """Return the first IPv4 and the first IPv6 address, all-zero where there is none."""
    none = bytes(16)
    return (
        next((a for a in ips if a[:12] == MAPPED), none),
        next((a for a in ips if a[:12] != MAPPED), none),
    )
