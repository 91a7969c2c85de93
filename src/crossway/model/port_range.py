"""Ranges of ports as prefixes, as tables hold them."""

from __future__ import annotations

from collections.abc import Iterator


def port_prefixes(low: int, high: int) -> Iterator[tuple[int, int]]:
    """Yield the fewest prefixes (first port, bits of 16) that hold low … high and nothing else: at most 30."""
    if not 0 <= low <= high <= 0xFFFF:
        raise ValueError(f"{low} to {high} is no range of ports")
    while low <= high:
        size = low & -low or 0x10000
        while size > high - low + 1:
            size >>= 1
        yield low, 17 - size.bit_length()
        low += size
