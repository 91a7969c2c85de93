"""Names of ports, as the agent of who asks tells them."""

from __future__ import annotations

import itertools
import struct

from crossway.lab.battery import frames
from crossway.lab.battery.pair import IMPATIENCE, Pair, eventually, must
from crossway.lab.battery.registry import case

SERVICE = "fe80::a9fe:a9fe"  # answers on every network
TYPE = {4: 1, 6: 28}
_numbers = itertools.count(1)


def asked(pair: Pair, name: str, family: int) -> bytes:
    """Ask for the addresses of a name (RFC 1035); return what is answered."""
    question = struct.pack("!HHHHHH", 0x5EED, 0x0100, 1, 0, 0, 0)
    question += bytes([len(name)]) + name.encode() + b"\0" + struct.pack("!HH", TYPE[family], 1)
    with pair.source.probe.socket("udp", "::", 0) as mouth:
        mouth.send(question, f"{SERVICE}%{pair.source.device}", 53)
        return mouth.find(lambda data: data[:2] == b"\x5e\xed", IMPATIENCE) or b""


@case("names", "a port is found by its name, and by another when it is renamed", families=(4, 6))
def found(pair: Pair, family: int) -> None:
    first, second = (f"n{next(_numbers)}-{pair.target.body.name}" for _ in range(2))
    ip = frames.packed(pair.target.ip(family))
    with pair.changed(pair.target, dns_name=first):
        must(eventually(lambda: ip in asked(pair, first, family)), "its name is not known")
        pair.set(pair.target, dns_name=second)
        must(eventually(lambda: ip in asked(pair, second, family)), "its new name is not known")
        must(ip not in asked(pair, first, family), "its old name is still known")
