"""The addresses that stopped containers had: they are the first to be offered them again.

Nothing is held: an address that somebody else has got meanwhile is theirs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

LEASES_MAX = 4096  # of one engine; those released first are forgotten first

Addresses = Mapping[str, str]  # by subnet


class Leases:
    """What containers of one engine had, by container and network, in the order in which it was released."""

    def __init__(self) -> None:
        self._had: dict[tuple[str, str], dict[str, str]] = {}

    def keep(self, container: str, network: str, addresses: Addresses) -> None:
        """Note what a container has just given back on a network."""
        self._had.pop((container, network), None)
        self._had[container, network] = dict(addresses)
        while len(self._had) > LEASES_MAX:
            del self._had[next(iter(self._had))]

    def containers(self, place: str) -> list[str]:
        """Return the containers that had addresses on a network or in a subnet, first whose was released first."""
        return [container for (container, network), had in self._had.items() if place == network or place in had]

    def take(self, container: str, place: str) -> tuple[str, ...]:
        """Return what a container had on a network or in a subnet, and forget it."""
        for (of, network), had in list(self._had.items()):
            if of == container and place == network:
                return tuple(self._had.pop((of, network)).values())
            if of == container and place in had:
                ip = had.pop(place)
                if not had:
                    del self._had[of, network]
                return (ip,)
        return ()

    def forget(self, containers: Iterable[str]) -> None:
        """Forget containers that are there no more."""
        gone = set(containers)
        self._had = {key: had for key, had in self._had.items() if key[0] not in gone}
