"""Who needs to know what: which networks each host can reach, and what is there.

Networks that routers join, directly or through other routers, are one island.
A host that has a port on any network of an island can reach all of it. Islands
merge and split as routers' interfaces come and go; each step costs what it
touches. A gateway does not join: beyond an external network is another world.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from crossway.control.cloud import Cloud, Step
from crossway.model.address_group import AddressGroup
from crossway.model.network import Network
from crossway.model.port import ROUTER_INTERFACE, Port
from crossway.model.rule import Rule

Audience = frozenset[str]
# What a host is told about: kind and id.
Topic = tuple[str, str]
# Tells an audience of a topic; False: that it is no longer their business.
Tell = Callable[[Audience, Topic, bool], None]
NOBODY: Audience = frozenset()


class Island:
    """Networks that reach each other; how many ports each host and each identity has there."""

    __slots__ = ("_audience", "hosts", "identities", "networks", "routers")

    def __init__(self, networks: Iterable[str] = ()) -> None:
        self.networks = set(networks)
        self.routers: set[str] = set()
        self.hosts: dict[str, int] = {}
        self.identities: dict[int, int] = {}
        self._audience: Audience | None = NOBODY

    @property
    def audience(self) -> Audience:
        if self._audience is None:
            self._audience = frozenset(self.hosts)
        return self._audience

    def count(self, hosts: dict[str, int], identities: dict[int, int], by: int = 1) -> None:
        for host, number in hosts.items():
            if _count(self.hosts, host, number * by):
                self._audience = None
        for identity, number in identities.items():
            _count(self.identities, identity, number * by)


class Interest:
    """The islands of a cloud, kept by its changes; *tell* hears what each change means to whom."""

    def __init__(self, cloud: Cloud, tell: Tell) -> None:
        self.cloud = cloud
        self.islands: dict[str, Island] = {}
        self.of_host: dict[str, set[Island]] = {}
        # Group -> host -> how many of its own ports have it.
        self.group_hosts: dict[str, dict[str, int]] = {}
        # The same counts by network, to add up when islands split; and which routers have feet there.
        self._hosts: dict[str, dict[str, int]] = {}
        self._identities: dict[str, dict[int, int]] = {}
        self._routers: dict[str, dict[str, int]] = {}
        self._networks: dict[str, dict[str, int]] = {}
        self._left: set[str] = set()
        self._tell: Tell = lambda audience, topic, there: None
        for network in cloud.networks.rows:
            self.islands[network] = Island([network])
        for port in cloud.ports.rows.values():
            self._port(None, port)
        self._tell = tell

    def change(self, steps: list[Step]) -> None:
        """Follow one transaction."""
        self._left.clear()
        for kind, id, old, new in sorted(steps, key=_networks_around):
            if kind == "port":
                self._port(old, new)
            elif kind == "network":
                self._network(id, old, new)
            elif kind == "subnet":
                if old is None or new is None or _subnet_essence(old) != _subnet_essence(new):
                    self._tell_island((new or old).network_id, ("subnet", id), new is not None)
            elif kind == "router":
                if old and new and (old.routes, old.admin_state_up) != (new.routes, new.admin_state_up):
                    for network in self._networks.get(id, ()):
                        self._tell_island(network, ("router", id), True)
                        break
            elif kind == "group":
                if old and new and old.stateful != new.stateful:
                    self._tell(self._bearers(id), ("group", id), True)
            elif kind == "rule":
                rule: Rule = new or old
                if old and new:
                    continue
                if rule.remote_address_group_id:
                    # It is as many rules as the address group has prefixes: the whole group is told.
                    self._tell_group(rule.security_group_id)
                else:
                    self._tell(self._bearers(rule.security_group_id), ("rule", id), new is not None)
            elif kind == AddressGroup.kind.table:
                if old and new and old.addresses != new.addresses:
                    rules = self.cloud.rules.by("remote_address_group_id", id)
                    for group in dict.fromkeys(rule.security_group_id for rule in rules):
                        self._tell_group(group)
            elif kind == "handover":
                told = new or old
                if port := self.cloud.ports.get(told.port):
                    self._tell(frozenset(port.carriers) - {told.by, ""}, ("handover", id), new is not None)
            elif kind == "learned":
                self._tell_island((new or old).network, ("learned", id), new is not None)
            elif kind == "host" and (old is None or new is None or old.underlay != new.underlay):
                audience = {host for island in self.of_host.get(id, ()) for host in island.hosts} | {id}
                self._tell(frozenset(audience), ("host", id), new is not None)

    def audience(self, network: str) -> Audience:
        """Return the hosts that can reach a network."""
        island = self.islands.get(network)
        return island.audience if island else NOBODY

    def _bearers(self, group: str) -> Audience:
        """Return the hosts whose own ports have a group."""
        return frozenset(self.group_hosts.get(group, ()))

    def _tell_group(self, group: str) -> None:
        """Tell those who bear a group all of it; one that is gone with its rules is told as such elsewhere."""
        if group in self.cloud.groups.rows:
            self._tell(self._bearers(group), ("group", group), True)

    def topics(self, host: str) -> list[Topic]:
        """Return all that a host must know."""
        found: dict[Topic, None] = {("host", host): None}
        for island in self.of_host.get(host, ()):
            found.update(dict.fromkeys(self._topics(island)))
        for index in ("host", "waiting"):
            for port in self.cloud.ports.by(index, host):
                if port.present:
                    found.update(dict.fromkeys(("group", group) for group in _groups(port)))
                    found.update(dict.fromkeys(self._handovers(port.id, host)))
        return list(found)

    def _handovers(self, port: str, host: str) -> list[Topic]:
        """Return what others have told of a port's connections."""
        return [("handover", told.id) for told in self.cloud.handovers.by("port", port) if told.by != host]

    def _network(self, id: str, old: Network | None, new: Network | None) -> None:
        if old is None:
            self.islands[id] = Island([id])
        elif new is None:
            self._tell_island(id, ("network", id), False)
            del self.islands[id]
        elif _network_essence(old) != _network_essence(new):
            self._tell_island(id, ("network", id), True)

    def _port(self, old: Port | None, new: Port | None) -> None:
        was, now = old is not None and old.present, new is not None and new.present
        if old and old.device_owner == ROUTER_INTERFACE:
            if new is None or new.device_owner != ROUTER_INTERFACE:
                self._unlink(old.device_id, old.network_id)
            elif old.fixed_ips != new.fixed_ips:
                self._tell_island(new.network_id, ("router", new.device_id), True)
        elif new and new.device_owner == ROUTER_INTERFACE:
            self._link(new.device_id, new.network_id)
        joined = NOBODY
        moved = not (was and now and old and new and _presence(old) == _presence(new))
        if now and new and moved:
            joined = self._enter(new)
        if was and old and moved:
            self._leave(old)
        if now and new:
            if not (was and old) or _essence(old) != _essence(new):
                # Who has just joined has been told of everything.
                self._tell(self.audience(new.network_id) - joined, ("port", new.id), True)
        elif was and old:
            self._tell(self.audience(old.network_id) | self._left, ("port", old.id), False)
        if was and now and old and new:
            # What was told before a host had to do with the port is news to it.
            for host in set(old.carriers) ^ set(new.carriers):
                for topic in self._handovers(new.id, host):
                    self._tell(frozenset([host]), topic, host in new.carriers)

    def _enter(self, port: Port) -> Audience:
        """Count a port in; return those of its hosts that have joined the island with it."""
        hosts, island = port.carriers, self.islands[port.network_id]
        others = island.audience
        fresh = [host for host in hosts if host not in island.hosts]
        new_identity = port.identity and port.identity not in island.identities
        identities = {port.identity: 1} if port.identity else {}
        for host in hosts:
            _count(self._hosts.setdefault(port.network_id, {}), host, 1)
        for identity in identities:
            _count(self._identities.setdefault(port.network_id, {}), identity, 1)
        island.count(dict.fromkeys(hosts, 1), identities)
        for host in fresh:
            self.of_host.setdefault(host, set()).add(island)
            alone = frozenset([host])
            for topic in self._topics(island):
                self._tell(alone, topic, True)
            self._tell(others, ("host", host), True)
        if new_identity:
            self._tell(others, ("identity", str(port.identity)), True)
        for group in _groups(port):
            for host in hosts:
                if _count(self.group_hosts.setdefault(group, {}), host, 1):
                    self._tell(frozenset([host]), ("group", group), True)
        return frozenset(fresh)

    def _leave(self, port: Port) -> None:
        """Count a port out; each of its hosts leaves the island with its last one."""
        hosts, island = port.carriers, self.islands[port.network_id]
        identities = {port.identity: 1} if port.identity else {}
        for host in hosts:
            _count(self._hosts[port.network_id], host, -1)
        for identity in identities:
            _count(self._identities[port.network_id], identity, -1)
        island.count(dict.fromkeys(hosts, 1), identities, by=-1)
        for group in _groups(port):
            for host in hosts:
                if _count(self.group_hosts[group], host, -1):
                    self._tell(frozenset([host]), ("group", group), False)
            if not self.group_hosts[group]:
                del self.group_hosts[group]
        for host in hosts:
            if host in island.hosts:
                continue
            self._left.add(host)
            self._drop(host, island)
            alone = frozenset([host])
            for topic in self._topics(island, gone=port.identity):
                if not self._sees(host, topic):
                    self._tell(alone, topic, False)
            strangers = frozenset(h for h in island.hosts if not self._sees(h, ("host", host)))
            self._tell(strangers, ("host", host), False)
        if port.identity and port.identity not in island.identities:
            topic = ("identity", str(port.identity))
            self._tell(frozenset(h for h in island.hosts if not self._sees(h, topic)), topic, False)

    def _link(self, router: str, network: str) -> None:
        """A router has a foot in a network: what it joins becomes one island."""
        here = self.islands[network]
        feet = self._networks.setdefault(router, {})
        there = next((self.islands[n] for n in feet), here)
        _count(feet, network, 1)
        _count(self._routers.setdefault(network, {}), router, 1)
        here.routers.add(router)
        if there is not here:
            small, large = sorted((here, there), key=lambda i: len(i.networks) + len(i.hosts))
            self._show(large.audience - small.audience, small)
            self._show(small.audience - large.audience, large)
            for host in small.hosts:
                self._drop(host, small)
                self.of_host.setdefault(host, set()).add(large)
            for moved in small.networks:
                self.islands[moved] = large
            large.networks |= small.networks
            large.routers |= small.routers
            large.count(small.hosts, small.identities)
        self._tell_island(network, ("router", router), True)

    def _unlink(self, router: str, network: str) -> None:
        """A router loses a foot: if nothing else joins the two sides they are islands of their own."""
        island = self.islands[network]
        feet = self._networks[router]
        _count(feet, network, -1)
        _count(self._routers[network], router, -1)
        if not feet:
            del self._networks[router]
            island.routers.discard(router)
            self._tell(island.audience, ("router", router), False)
            return
        part = self._reachable(network)
        if len(part) < len(island.networks):
            self._split(island, part)
        self._tell_island(next(iter(feet)), ("router", router), True)

    def _split(self, island: Island, part: set[str]) -> None:
        """Cut *part* off an island."""
        new = Island(part)
        new.routers = {router for network in part for router in self._routers.get(network, ())}
        island.networks -= part
        island.routers = {router for network in island.networks for router in self._routers.get(network, ())}
        for network in part:
            self.islands[network] = new
            hosts, identities = self._hosts.get(network, {}), self._identities.get(network, {})
            new.count(hosts, identities)
            island.count(hosts, identities, by=-1)
        for host in new.hosts:
            self.of_host.setdefault(host, set()).add(new)
            if host not in island.hosts:
                self._drop(host, island)
        self._hide(new.audience - island.audience, island)
        self._hide(island.audience - new.audience, new)

    def _reachable(self, network: str) -> set[str]:
        seen, edge = {network}, [network]
        while edge:
            for router in self._routers.get(edge.pop(), ()):
                for other in self._networks[router]:
                    if other not in seen:
                        seen.add(other)
                        edge.append(other)
        return seen

    def _topics(self, island: Island, gone: int = 0) -> list[Topic]:
        """Return what is in an island; *gone* is an identity that has just left it."""
        cloud = self.cloud
        return [
            *(("host", host) for host in island.hosts),
            *(("network", network) for network in island.networks),
            *(("subnet", subnet) for network in island.networks for subnet in cloud.subnets.ids("network_id", network)),
            *(("identity", str(identity)) for identity in {*island.identities, *([gone] if gone else [])}),
            *(("router", router) for router in island.routers),
            *(
                ("port", port.id)
                for network in island.networks
                for port in cloud.ports.by("network_id", network)
                if port.present
            ),
            *(("learned", seen) for network in island.networks for seen in cloud.learned.ids("network", network)),
        ]

    def _show(self, audience: Audience, island: Island) -> None:
        if audience:
            for topic in self._topics(island):
                self._tell(audience, topic, True)

    def _hide(self, audience: Audience, island: Island) -> None:
        if audience:
            for topic in self._topics(island):
                self._tell(frozenset(h for h in audience if not self._sees(h, topic)), topic, False)

    def _sees(self, host: str, topic: Topic) -> bool:
        """Say whether a host still needs what may be in several islands: a host, an identity."""
        kind, id = topic
        islands = self.of_host.get(host, ())
        if kind == "host":
            return id == host or any(id in island.hosts for island in islands)
        if kind == "identity":
            return any(int(id) in island.identities for island in islands)
        return False

    def _drop(self, host: str, island: Island) -> None:
        islands = self.of_host[host]
        islands.discard(island)
        if not islands:
            del self.of_host[host]

    def _tell_island(self, network: str, topic: Topic, there: bool) -> None:
        audience = self.audience(network)
        self._tell(audience if there else audience | self._left, topic, there)


def _count(counts: dict[str, int] | dict[int, int], key: object, by: int) -> bool:
    """Add to a count that is kept only above zero; say whether the key came or went."""
    old = counts.get(key, 0)  # type: ignore[call-overload]
    new = old + by
    if new:
        counts[key] = new  # type: ignore[index]
    else:
        del counts[key]  # type: ignore[arg-type]
    return not old or not new


def _networks_around(step: Step) -> int:
    """Order the steps of one transaction: a network is there before its ports, and goes after them."""
    kind, _, old, new = step
    return 1 if kind != "network" else 0 if old is None else 2 if new is None else 1


def _groups(port: Port) -> tuple[str, ...]:
    """Return the groups whose rules its host needs for it."""
    return port.security_groups if port.port_security_enabled else ()


def _presence(port: Port) -> tuple[object, ...]:
    return (frozenset(port.carriers), port.identity, _groups(port))


def _essence(port: Port) -> tuple[object, ...]:
    """Return what a host is told of a port."""
    return (
        port.mac_address,
        port.fixed_ips,
        port.identity,
        port.security_groups,
        port.allowed_address_pairs,
        port.port_security_enabled,
        port.admin_state_up,
        port.at,
        port.waiting,
        port.profile,
        port.vnic_type,
        port.dns_name,
        port.device_owner,
    )


def _network_essence(network: Network) -> tuple[object, ...]:
    """Return what a host is told of a network."""
    provider = (network.type, network.physnet, network.segment)
    return (network.number, network.mtu, provider, network.admin_state_up, network.dns_domain)


def _subnet_essence(subnet: object) -> tuple[object, ...]:
    return tuple(getattr(subnet, name) for name in ("gateway_ip", "dns_nameservers", "host_routes", "enable_dhcp"))
