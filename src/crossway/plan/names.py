"""Who is called what: the names of a view's ports, by network, so that one is found without looking at the rest."""

from __future__ import annotations

from crossway.plan import view

Key = tuple[str, ...]


class Names:
    """The ports of each name and of each address, as others of their network and project may know them; and kin.

    A network may be shared: whoever has a port there could else call it as others call theirs.
    """

    def __init__(self) -> None:
        self._ports: dict[Key, set[str]] = {}

    def note(self, old: view.Port | None, new: view.Port | None) -> None:
        """Take in how a port is now."""
        before, after = _keys(old), _keys(new)
        for key in before - after:
            found = self._ports[key]
            found.discard(old.id if old else "")
            if not found:
                del self._ports[key]
        for key in after - before:
            self._ports.setdefault(key, set()).add(new.id if new else "")

    def named(self, by: view.Port, name: str) -> set[str]:
        """Return the ports with a name that a port may know."""
        return self._ports.get(("name", by.network, by.project, name), set())

    def at(self, by: view.Port, ip: str) -> set[str]:
        """Return the ports with an address, and a name, that a port may know."""
        return self._ports.get(("ip", by.network, by.project, ip), set())

    def kin(self, port: view.Port) -> set[str]:
        """Return the ports of the workload that a port is of."""
        return self._ports.get(("workload", port.workload), set()) | {port.id}


def _keys(port: view.Port | None) -> set[Key]:
    if port is None:
        return set()
    of = (port.network, port.project)
    keys: set[Key] = {("name", *of, name) for name in port.names}
    if keys:
        keys |= {("ip", *of, address.ip) for address in port.addresses}
    if port.workload:
        keys.add(("workload", port.workload))
    return keys
