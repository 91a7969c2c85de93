"""Which addresses of each subnet are taken, and which one to hand out next.

Pure. Handing out is in turn: first those never used, then the one freed
longest ago; so it costs the same in a full subnet as in an empty one, and an
address does not come back while neighbours may remember its last owner.
"""

from __future__ import annotations

import ipaddress
import socket
from collections import deque
from collections.abc import Iterable, Iterator

from crossway.model.port import Port
from crossway.model.subnet import Pool, Subnet


def number(ip: str) -> int:
    """Return an address as a number; ipaddress would take four times as long, and each port asks."""
    try:
        return int.from_bytes(socket.inet_pton(socket.AF_INET6 if ":" in ip else socket.AF_INET, ip), "big")
    except OSError:
        raise ValueError(f"'{ip}' is not an address") from None


class Space:
    """The addresses of one subnet."""

    def __init__(self, subnet: Subnet) -> None:
        self.version = subnet.ip_version
        self.taken: dict[str, str] = {}
        # How many of those are in the pools.
        self.pooled = 0
        self.pools = _ranges(subnet.allocation_pools)
        self._fresh = self._walk()
        self._freed: deque[int] = deque()
        # What was handed out and is not taken yet, as text and number: a transaction is under way.
        self.lent: dict[str, int] = {}

    def next(self) -> str | None:
        """Lend the next free address of the pools; None if there is none."""
        for found in self._fresh:
            ip = self._text(found)
            if ip not in self.taken and ip not in self.lent:
                self.lent[ip] = found
                return ip
        while self._freed:
            found = self._freed.popleft()
            ip = self._text(found)
            if ip not in self.taken and ip not in self.lent and self._in_pools(found):
                self.lent[ip] = found
                return ip
        return None

    def give_back(self, ip: str) -> None:
        """End a loan; if the address was not taken, it is free again."""
        address = self.lent.pop(ip, None)
        if address is not None and ip not in self.taken:
            self._freed.append(address)

    def take(self, ip: str, port: str) -> None:
        if ip not in self.taken:
            self.pooled += self._in_pools(number(ip))
        self.taken[ip] = port

    def free(self, ip: str) -> None:
        if self.taken.pop(ip, None) is not None:
            address = number(ip)
            if self._in_pools(address):
                self.pooled -= 1
                self._freed.append(address)

    def resize(self, subnet: Subnet) -> None:
        """Start over with other pools; what is taken and lent stays so."""
        self.pools = _ranges(subnet.allocation_pools)
        self._fresh = self._walk()
        self._freed.clear()
        self.pooled = sum(map(self._in_pools, map(number, self.taken)))

    def _walk(self) -> Iterator[int]:
        for first, last in self.pools:
            yield from range(first, last + 1)

    def _in_pools(self, address: int) -> bool:
        return any(first <= address <= last for first, last in self.pools)

    def _text(self, address: int) -> str:
        if self.version == 4:
            return socket.inet_ntop(socket.AF_INET, address.to_bytes(4, "big"))
        return str(ipaddress.IPv6Address(address))


class Addresses:
    """The spaces of all subnets, and the MACs of all networks."""

    def __init__(self) -> None:
        self.spaces: dict[str, Space] = {}
        self.macs: dict[str, dict[str, str]] = {}

    def holders(self, ips: Iterable[str]) -> Iterator[str]:
        """Yield the ports that have one of these addresses, in whatever subnet."""
        wanted = set(ips)
        for space in self.spaces.values():
            # The smaller of the two is walked.
            if len(space.taken) < len(wanted):
                yield from (port for ip, port in space.taken.items() if ip in wanted)
            else:
                yield from (port for ip in wanted if (port := space.taken.get(ip)))

    def changed(self, old: Subnet | None, new: Subnet | None, ports: Iterable[Port]) -> None:
        """Follow a subnet; *ports* are those that have addresses in it."""
        subnet = new or old
        assert subnet
        if new is None:
            self.spaces.pop(subnet.id, None)
        elif new.id not in self.spaces:
            space = self.spaces[new.id] = Space(new)
            for port in ports:
                for fixed in port.fixed_ips:
                    if fixed.subnet_id == new.id:
                        space.take(fixed.ip_address, port.id)
        elif old is None or old.allocation_pools != new.allocation_pools:
            self.spaces[new.id].resize(new)

    def moved(self, old: Port | None, new: Port | None) -> None:
        """Follow a port."""
        if old and new and old.fixed_ips == new.fixed_ips and old.mac_address == new.mac_address:
            return
        if old:
            for fixed in old.fixed_ips:
                if fixed.subnet_id in self.spaces and not (new and fixed in new.fixed_ips):
                    self.spaces[fixed.subnet_id].free(fixed.ip_address)
            macs = self.macs[old.network_id]
            macs.pop(old.mac_address, None)
            if not macs:
                del self.macs[old.network_id]
        if new:
            for fixed in new.fixed_ips:
                if fixed.subnet_id in self.spaces:
                    self.spaces[fixed.subnet_id].take(fixed.ip_address, new.id)
            self.macs.setdefault(new.network_id, {})[new.mac_address] = new.id


def default_pools(cidr: str, gateway: str | None) -> tuple[Pool, ...]:
    """Return all of a prefix that may be handed out, but the gateway."""
    network = ipaddress.ip_network(cidr)
    first, last = int(network.network_address), int(network.broadcast_address)
    if network.version == 4 and network.prefixlen < 31:
        first, last = first + 1, last - 1
    elif network.version == 6 and network.prefixlen < 127:
        first += 1
    ranges = [(first, last)]
    if gateway is not None and first <= number(gateway) <= last:
        middle = number(gateway)
        ranges = [(first, middle - 1), (middle + 1, last)]
    address = ipaddress.IPv4Address if network.version == 4 else ipaddress.IPv6Address
    return tuple(Pool(str(address(low)), str(address(high))) for low, high in ranges if low <= high)


def by_mac(cidr: str, mac: str) -> str:
    """Return the address that stateless configuration makes of a MAC (RFC 4291, modified EUI-64)."""
    octets = bytes.fromhex(mac.replace(":", ""))
    tail = bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:]
    return str(ipaddress.IPv6Address(int(ipaddress.IPv6Network(cidr).network_address) | int.from_bytes(tail, "big")))


def _ranges(pools: Iterable[Pool]) -> list[tuple[int, int]]:
    return [(number(pool.start), number(pool.end)) for pool in pools]
