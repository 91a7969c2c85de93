"""From the objects of a host's view to the rows that its tables should hold.

Pure: no disk, no network, no kernel. The same objects give the same rows, in
whatever order they came; only where an entry stands in a flood list, and which
number a prefix has when two collide, depend on what was there before.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence, Set
from typing import NamedTuple, TypeVar, cast

from crossway.model import rows as r
from crossway.plan import view
from crossway.plan.address import ip
from crossway.plan.group import Policy
from crossway.plan.learned import Candidates, learned_rows, may_have
from crossway.plan.ledger import Ledger
from crossway.plan.names import Names
from crossway.plan.network import UPLINK, Floods, network_rows
from crossway.plan.port import Body, Seat, place_of, port_rows, seat_of, served
from crossway.plan.published import Door, Publication, doors, published_rows
from crossway.plan.room import Room
from crossway.plan.router import feet_of, router_rows
from crossway.plan.rows import POLICY, Rows
from crossway.plan.service import service_rows

SHARED = ("sources", "macs", "endpoints")  # tables of which a port may have many rows

T = TypeVar("T", bound=view.Object)
K = TypeVar("K", bound=Hashable)


class Document(NamedTuple):
    """One object of a view as it is now; None: it is gone."""

    kind: str
    id: str
    object: view.Object | None


class Plan:
    """What one host should carry, kept current.

    `take`, `bodies` and `uplinks` say what has changed; `settle` brings the rows up to date,
    looking at what these changes concern and at nothing else.
    """

    def __init__(self, host: str) -> None:
        self.host = host
        self.faults: dict[tuple[str, str], str] = {}  # kind and id -> why it has no rows
        self._starved: set[str] = set()  # rules that are faults of policy's
        self.objects: dict[str, dict[str, view.Object]] = {kind: {} for kind in view.KINDS}
        self.ledger = Ledger()
        self.policy = Policy(self.ledger)
        self.names = Names()
        self._floods = Floods()
        self._bodies: dict[str, Body] = {}
        self._uplinks: dict[str, int] = {}
        self._taken: set[str] = set()  # ports that are about to move here
        self._placed: dict[str, str] = {}  # port -> the host that has taken it, of which the server has not heard
        self._seats: dict[str, Seat] = {}  # port -> its part in floods
        self._joined: dict[str, int] = {}  # port with a body here -> its identity
        self._held: dict[str, int] = {}  # port that stays as it is -> the identity whose policy it waits for
        self._at_once = True
        self._without: set[int] = set()  # identities that go without policy
        self._rooms: dict[str, Room[str]] = {}  # by table: rows that ports have
        self._published: dict[str, tuple[Publication, ...]] = {}
        self._own: frozenset[str] = frozenset()  # addresses of this host, where something may be published
        self._outward: dict[str, int] = {}  # network with an uplink -> its number
        self._served: dict[int, int] = {}  # number of a network -> how many ports it has here
        self.asked_at: tuple[str, ...] = ()  # whom ports of this host ask for names
        # Who must be looked at again when one of these changes.
        self._network_ports: dict[str, set[str]] = {}
        self._network_routers: dict[str, set[str]] = {}
        self._network_subnets: dict[str, set[str]] = {}
        self._host_ports: dict[str, set[str]] = {}
        self._by_number: dict[int, set[str]] = {}
        self._port_learned: dict[str, set[str]] = {}
        self._wide: dict[int, set[str]] = {}  # number of a network -> ports that may have addresses that no row tells
        self._candidates = Candidates()
        # Who must be looked at.
        self._learned: set[str] = set()
        self._ports: set[str] = set()
        self._routers: set[str] = set()
        self._networks: set[str] = set()

    @property
    def rows(self) -> Rows:
        """The rows that the tables should hold, as of the last `settle`."""
        return self.ledger.rows

    def adopt(self, have: Rows) -> None:
        """Begin with the order and the numbers that the kernel's rows have, so that a restart changes none."""
        self._floods.adopt(have.get("members", {}))
        self.policy.adopt(have)

    def sizes(self, rows: Mapping[str, int]) -> None:
        """Take in how many rows each table can hold. A part stays free, for what comes before what goes."""
        self.policy.room.size = min(rows[table] for table in POLICY) * 15 // 16
        self._rooms = {table: Room(rows[table] * 15 // 16) for table in SHARED}

    def forget_adopted(self) -> None:
        """Let go of what was adopted and nobody has claimed; to be called when the view is whole."""
        for number in self._floods.settle():
            self._networks |= self._by_number.get(number, set())

    def take(self, documents: Iterable[Document], *, whole: bool = False) -> None:
        """Take in what has changed; with *whole*, what is not named is gone."""
        last = {(d.kind, d.id): d.object for d in documents if d.kind in view.KINDS}
        if whole:
            # Rules are named by their groups.
            for kind in view.KINDS.keys() - {"rule"}:
                for id in self.objects[kind]:
                    last.setdefault((kind, id), None)
        for kind in view.KINDS:
            for (of, id), new in last.items():
                if of == kind:
                    self.faults.pop((kind, id), None)
                    self._take(kind, id, new)

    def bodies(self, changed: Mapping[str, Body | None]) -> None:
        """Take in which ports have a body on this host; None: no more."""
        for port, body in changed.items():
            if body is None:
                self._bodies.pop(port, None)
            else:
                self._bodies[port] = body
            self._ports.add(port)

    def taken(self, port: str, there: bool) -> None:
        """Take in that a port is carried already, or no more, that waits for its move to this host."""
        (self._taken.add if there else self._taken.discard)(port)
        self._ports.add(port)

    def placed(self, port: str, host: str) -> None:
        """Take in that a port is on a host by another's word than the server's; the server's next word counts."""
        known = self.port(port)
        if known is None or known.host == host:
            self._placed.pop(port, None)
        else:
            self._placed[port] = host
        self._ports.add(port)

    def whereabouts(self, port: view.Port) -> str | None:
        """Return the host that a port is on, by whoever spoke last."""
        return self._placed.get(port.id, port.host)

    def macs(self, network: str) -> list[str]:
        """Return the MACs of all ports and routers of a network."""
        found = [port.mac for id in self._network_ports.get(network, ()) if (port := self.port(id)) is not None]
        routers = [self._one(view.Router, id) for id in self._network_routers.get(network, ())]
        return [foot.mac for router in routers if router for foot in router.interfaces if foot.network == network] + (
            found
        )

    def is_here(self, port: view.Port) -> bool:
        """Return whether a port is of this host, by the server's word or as one that was taken."""
        return self.whereabouts(port) == self.host or (port.id in self._taken and self.host in port.waiting)

    def uplinks(self, uplinks: Mapping[str, int]) -> None:
        """Take in which provider networks this host has: the name of each, and the index of its link."""
        self._uplinks = dict(uplinks)
        self._networks.update(id for id, n in self._all(view.Network).items() if n.physnet is not None)

    def publish(self, port: str, publications: Sequence[Publication]) -> None:
        """Take in what a port has published at this host's addresses."""
        if publications:
            self._published[port] = tuple(publications)
        else:
            self._published.pop(port, None)
        self._ports.add(port)

    def own(self, addresses: Set[str]) -> None:
        """Take in which addresses this host has."""
        if addresses != self._own:
            self._own = frozenset(addresses)
            self._ports |= self._published.keys()

    def doors(self, port: view.Port) -> dict[int, Door]:
        """Return by family how what a port has published may be reached and answer."""
        return doors(port, self._subnets_of(port))

    def resolvers(self, resolvers: Iterable[str]) -> None:
        """Take in whom ports of this host ask for names if nobody has told them otherwise."""
        self.asked_at = tuple(resolvers)
        self._networks.update(self._all(view.Network))

    def settle(self) -> dict[str, set[r.Key]]:
        """Bring the rows up to date; return the keys that were touched since the last call.

        They are to be written as one change.
        """
        touched = self.arrange(at_once=True)
        self.policy.settle()
        self._note_faults()
        while finished := self.policy.finished():
            for table, keys in finished[1].items():
                touched.setdefault(table, set()).update(keys)
        return touched

    def enforce(self) -> tuple[int, dict[str, set[r.Key]]] | None:
        """Bring some rows of policy up to date; return an identity whose rows are, and those that were touched.

        They are to be written, and `enforced` to be called; until then nothing of the identity is touched.
        """
        self.policy.settle(steps=1)
        self._note_faults()
        return self.policy.finished()

    def enforced(self, identity: int) -> set[str]:
        """Take in that an identity's policy is in the tables; return the ports that have waited for that."""
        before = self.policy.ready(identity)
        self.policy.written(identity)
        if before or not self.policy.ready(identity):
            return set()
        self._ports |= {port for port, of in self._held.items() if of == identity}
        return self._with_identity({identity})

    def _note_faults(self) -> None:
        """Note which rules an identity's rows lack."""
        for id in self._starved - self.policy.faults.keys():
            self.faults.pop(("rule", id), None)
        self._starved = set(self.policy.faults)
        self.faults.update((("rule", id), why) for id, why in self.policy.faults.items())
        refused = set(self.policy.room.refused)
        if changed := refused ^ self._without:
            self._without = refused
            for port in self._with_identity(changed):
                self.faults.pop(("port", port), None)
                if (why := self._without_policy(port)) is not None:
                    self.faults["port", port] = why

    def _with_identity(self, identities: Set[int]) -> set[str]:
        """Return the ports of this host that have one of these identities, or wait for it."""
        return {port for of in (self._joined, self._held) for port, identity in of.items() if identity in identities}

    def written(self) -> None:
        """Take in that the tables hold the rows as of the last `settle`."""
        self.policy.written()

    def arrange(self, *, at_once: bool = False) -> dict[str, set[r.Key]]:
        """Bring all rows but those of policy up to date; return the keys that were touched since the last call.

        A port whose policy is not in the tables yet stays as it is, but *at_once*: if both are written together.
        """
        self._at_once = at_once
        if at_once:
            self._ports |= self._held.keys()
        while self._ports:  # some may make room for others
            for id in self._emptied(self._ports):
                self._attempt("port", id, self._settle_port)
                self._learned |= self._port_learned.get(id, set())
        for id in self._emptied(self._learned):
            self._attempt("learned", id, self._settle_learned)
        for id in self._emptied(self._routers):
            self._attempt("router", id, self._settle_router)
        networks = self._emptied(self._networks)
        for id in networks:
            self._settle_uplink(id)
        slots = self._floods.taken()
        for number, slot in slots:
            place = self._floods.place(number, slot)
            if place is None:
                self.ledger.drop("members", r.MemberKey(number, slot))
            else:
                self.ledger.put("members", r.MemberKey(number, slot), place)
        for number in {number for number, _ in slots}:
            networks |= self._by_number.get(number, set())
        for id in networks:
            self._settle_network(id)
        return self.ledger.taken()

    def port(self, id: str) -> view.Port | None:
        """Return a port of the view."""
        return self._one(view.Port, id)

    def network(self, id: str) -> view.Network | None:
        """Return a network of the view."""
        return self._one(view.Network, id)

    def handover(self, id: str) -> view.Handover | None:
        """Return what one other host has told of a port's connections."""
        return self._one(view.Handover, id)

    def subnet(self, id: str) -> view.Subnet | None:
        """Return a subnet of the view."""
        return self._one(view.Subnet, id)

    def router_at(self, network: str, version: int) -> str | None:
        """Return the MAC of a network's router that has an address of that version of IP there.

        Of several, of one that is a subnet's gateway, if one is.
        """
        gateways = set(self.gateways(network))
        found = [
            (not any(ip(a.ip) in gateways for a in addresses), id, foot.mac)
            for id in self._network_routers.get(network, ())
            if (router := self._one(view.Router, id)) is not None and router.up
            for foot in router.interfaces
            if foot.network == network
            and (addresses := [a for a in foot.addresses if (6 if ":" in a.ip else 4) == version])
        ]
        return min(found)[2] if found else None

    def network_at(self, number: int) -> view.Network | None:
        """Return the network of the view that has a number."""
        ids = self._by_number.get(number)
        return self.network(min(ids)) if ids else None

    def subnets_of(self, network: str) -> list[view.Subnet]:
        """Return the subnets of a network."""
        return [s for id in self._network_subnets.get(network, ()) if (s := self.subnet(id)) is not None]

    def gateways(self, network: str) -> list[bytes]:
        """Return the gateways' addresses of a network's subnets."""
        return [ip(subnet.gateway) for subnet in self.subnets_of(network) if subnet.gateway is not None]

    def learned(self, network: str, address: str) -> view.Learned | None:
        """Return who has been seen to have an address of a network."""
        return self._one(view.Learned, f"{network}/{address}")

    def learned_by(self, port: str) -> list[view.Learned]:
        """Return what a port has been seen to have beside its fixed addresses."""
        return [one for id in self._port_learned.get(port, ()) if (one := self._one(view.Learned, id)) is not None]

    def next_hops_of_nobody(self) -> set[r.EndpointKey]:
        """Return next hops on networks whose ports may have addresses that no row tells, if no row tells of them."""
        if not self._wide:
            return set()
        hops = [*self.rows["routes"].values(), *self.rows["next_hops"].values()]
        wanted = {r.EndpointKey(hop.network, hop.via) for hop in hops if hop.kind == r.RouteKind.VIA}
        return {key for key in wanted if key.network in self._wide and key not in self.rows["endpoints"]}

    def candidates_here(self, network: view.Network, address: bytes) -> list[str]:
        """Return the ports of this host that may have an address beside their fixed ones."""
        return [
            port.id for port in self._who_may_have(network, address) if self.is_here(port) and port.id in self._bodies
        ]

    def hosts_of_candidates(self, network: view.Network, address: bytes) -> list[str]:
        """Return the other hosts with such ports."""
        at = (self.whereabouts(port) for port in self._who_may_have(network, address))
        return sorted({host for host in at if host is not None and host != self.host})

    def _who_may_have(self, network: view.Network, address: bytes) -> list[view.Port]:
        ports = (self.port(id) for id in self._candidates.find(network.number, address))
        return [port for port in ports if port is not None and may_have(port, network, address)]

    def local_bodies(self) -> dict[str, Body]:
        """Return the bodies on this host by port."""
        return self._bodies

    def network_ids(self) -> dict[int, str]:
        """Return the networks of the view by number."""
        return {number: min(ids) for number, ids in self._by_number.items()}

    def carries(self, port: str) -> bool:
        """Return whether a port has its rows as a port of this host."""
        identity = self._joined.get(port)
        known = self.port(port)
        if identity is None or known is None or port in self._held:
            return False
        if identity == 0 or not known.secured:
            return True
        return self.policy.knows(identity) and self.policy.ready(identity)

    # Objects.

    def _one(self, kind: type[T], id: str) -> T | None:
        return cast("T | None", self.objects[kind.__name__.lower()].get(id))

    def _all(self, kind: type[T]) -> dict[str, T]:
        return cast("dict[str, T]", self.objects[kind.__name__.lower()])

    def _take(self, kind: str, id: str, new: view.Object | None) -> None:
        if kind == "rule":
            try:
                self.policy.rule(id, cast("view.Rule | None", new))
            except ValueError as fault:
                self.faults["rule", id] = str(fault)
            return
        old = self.objects[kind].get(id)
        # A group names its rules as they were when it was sent: single rules may have changed since.
        if old == new and kind != "group":
            return
        if new is None:
            self.objects[kind].pop(id, None)
        else:
            self.objects[kind][id] = new
        try:
            getattr(self, f"_take_{kind}")(id, old, new)
        except ValueError as fault:
            self.faults[kind, id] = str(fault)

    def _take_host(self, id: str, old: view.Host | None, new: view.Host | None) -> None:
        self._ports |= self._host_ports.get(id, set())
        self._ports.update(port for port, host in self._placed.items() if host == id)
        self._attempt("host", id, self._settle_host)

    def _take_network(self, id: str, old: view.Network | None, new: view.Network | None) -> None:
        if old is not None:
            _unlink(self._by_number, old.number, id)
        if new is not None:
            self._by_number.setdefault(new.number, set()).add(id)
        self._networks.add(id)
        if old is None or new is None or (old.number, old.up, old.mtu) != (new.number, new.up, new.mtu):
            self._ports |= self._network_ports.get(id, set())
            self._routers |= self._network_routers.get(id, set())

    def _take_subnet(self, id: str, old: view.Subnet | None, new: view.Subnet | None) -> None:
        # Routers and ports carry the addresses; the agent reads gateways and routes from it.
        of = new or old
        if of is not None and old is not None and new is not None and old.gateway != new.gateway:
            self._ports |= self._network_ports.get(of.network, set()) & self._published.keys()
        if old is not None:
            _unlink(self._network_subnets, old.network, id)
        if new is not None:
            self._network_subnets.setdefault(new.network, set()).add(id)
        if of is not None:
            self._networks.add(of.network)
        if of is not None and served([s for s in (old,) if s]) != served([s for s in (new,) if s]):
            self._ports |= self._network_ports.get(of.network, set()) & self._bodies.keys()

    def _take_port(self, id: str, old: view.Port | None, new: view.Port | None) -> None:
        self.names.note(old, new)
        if old is not None:
            _unlink(self._network_ports, old.network, id)
            if old.host is not None:
                _unlink(self._host_ports, old.host, id)
        if new is not None:
            self._network_ports.setdefault(new.network, set()).add(id)
            if new.host is not None:
                self._host_ports.setdefault(new.host, set()).add(id)
        if new is None or old is None or new.host != old.host or self._placed.get(id) not in new.carriers:
            self._placed.pop(id, None)
        self._ports.add(id)

    def _take_handover(self, id: str, old: view.Handover | None, new: view.Handover | None) -> None:
        # The agent reads it.
        pass

    def _take_learned(self, id: str, old: view.Learned | None, new: view.Learned | None) -> None:
        if old is not None:
            _unlink(self._port_learned, old.port, id)
        if new is not None:
            self._port_learned.setdefault(new.port, set()).add(id)
        self._learned.add(id)

    def _take_router(self, id: str, old: view.Router | None, new: view.Router | None) -> None:
        for interface in old.interfaces if old is not None else ():
            _unlink(self._network_routers, interface.network, id)
        for interface in new.interfaces if new is not None else ():
            self._network_routers.setdefault(interface.network, set()).add(id)
        self._routers.add(id)

    def _take_group(self, id: str, old: view.Group | None, new: view.Group | None) -> None:
        for rule, fault in self.policy.group(id, new).items():
            self.faults["rule", rule] = fault

    def _take_identity(self, id: str, old: view.Identity | None, new: view.Identity | None) -> None:
        number = int(id)
        if not 0 < number <= 0xFFFF:
            raise ValueError(f"identity {id} is not from 1 to 65535")
        self.policy.identity(number, new.groups if new is not None else None)

    # Rows.

    def _emptied(self, marked: set[str]) -> set[str]:
        taken = set(marked)
        marked.clear()
        return taken

    def _attempt(self, kind: str, id: str, settle: Callable[[str], None]) -> None:
        """Bring one object's rows up to date; one that is wrong loses its rows, and others go on."""
        self.faults.pop((kind, id), None)
        try:
            settle(id)
        except ValueError as fault:
            self.faults[kind, id] = str(fault)
            self.ledger.claim((kind, id), {})
            if kind == "port":
                self._sit(id, None)
                self._join(id, None)
                if (held := self._held.pop(id, None)) is not None:
                    self.policy.leave(held)
        else:
            if kind == "port" and (why := self._without_policy(id)) is not None:
                self.faults[kind, id] = why

    def _without_policy(self, port: str) -> str | None:
        """Return why a port of this host goes without policy, if it does."""
        known, identity = self.port(port), self._held.get(port, self._joined.get(port))
        return self.policy.refused(identity) if known is not None and known.secured and identity else None

    def _settle_host(self, id: str) -> None:
        host = self._one(view.Host, id)
        rows: Rows = {}
        if host is not None and id != self.host:
            rows["hosts"] = {ip(host.underlay): r.Host(1)}
        self.ledger.claim(("host", id), rows)

    def _number(self, network: str) -> int | None:
        found = self._one(view.Network, network)
        return found.number if found is not None and found.up else None

    def _settle_port(self, id: str) -> None:
        port = self._one(view.Port, id)
        network = self._one(view.Network, port.network) if port is not None else None
        own = body = place = None
        if port is not None and network is not None:
            own, body, place = self._seen_at(port, network)
            if body is not None and self._hold(id, port.identity if port.secured else 0):
                return
        if port is None or network is None or place is None:
            rows: Rows = {}
            seat = None
        else:
            rows = self._rows_of(port, network, place, body)
            seat = seat_of(port, network, place)
        if (why := self._refused(id, rows)) is not None:
            raise ValueError(why)
        self.ledger.claim(("port", id), rows)
        self._sit(id, seat)
        self._join(id, port.identity if port is not None and own is not None else None)
        if (held := self._held.pop(id, None)) is not None:
            self.policy.leave(held)

    def _project(self, port: str) -> str:
        known = self.port(port)
        return known.project if known is not None else ""

    def _refused(self, id: str, rows: Rows) -> str | None:
        """Return why a port goes without rows: its project has more than its share of a table that is full."""
        for table, room in self._rooms.items():
            wanted = len(rows.get(table, ()))
            self._ports |= room.want(id, self._project(id), wanted) - {id}
            if id in room.refused:
                for other in self._rooms.values():
                    if other is not room:
                        self._ports |= other.want(id, "", 0) - {id}
                project = self._project(id)
                return (
                    f"it needs {wanted} rows of the table {table}; {room.size - room.total} of {room.size} are free on "
                    f"this host, and project {project} has {room.used(project)}, where {room.share} are assured"
                )
        return None

    def _hold(self, id: str, identity: int) -> bool:
        """Return whether a port has to wait for its policy, which is being made."""
        if self._at_once or not identity or self.policy.ready(identity):
            return False
        held = self._held.get(id)
        if held != identity:
            self._held[id] = identity
            self.policy.join(identity, self._project(id))
            if held is not None:
                self.policy.leave(held)
        return True

    def _seen_at(self, port: view.Port, network: view.Network) -> tuple[Body | None, Body | None, r.Place | None]:
        """Return a port's body here, that body if the port is here by now, and where it is to be reached."""
        if not port.up or not network.up:
            return None, None, None
        # A port that may come any moment has its policy here before it.
        own = self._bodies.get(port.id) if self.host in port.carriers else None
        body = own if self.is_here(port) else None
        return own, body, place_of(port, body, self._underlay(port), self.host in port.carriers)

    def _settle_learned(self, id: str) -> None:
        learned = self._one(view.Learned, id)
        if learned is not None and learned.port in self._held:
            return  # what leads to a port waits as the port does
        port = self.port(learned.port) if learned is not None else None
        network = self.network(port.network) if port is not None else None
        rows: Rows = {}
        if learned is not None and port is not None and network is not None and learned.network == port.network:
            *_, place = self._seen_at(port, network)
            if place is not None:
                rows = learned_rows(learned, port, network, place)
        self.ledger.claim(("learned", id), rows)

    def _rows_of(self, port: view.Port, network: view.Network, place: r.Place, body: Body | None) -> Rows:
        if body is None:
            return port_rows(port, network, place, body)
        publications = self._published.get(port.id, ())
        services = served(self._subnets_of(port)) | (r.PortFlag.PUBLISHED if publications else 0)
        rows = port_rows(port, network, place, body, services)
        if publications:
            rows |= published_rows(port, place, body, network, self.doors(port), publications, self._own)
        return rows

    def _subnets_of(self, port: view.Port) -> list[view.Subnet]:
        return [s for a in port.addresses if (s := self._one(view.Subnet, a.subnet)) is not None]

    def _underlay(self, port: view.Port) -> bytes | None:
        """Return the underlay address of the other host that a port is on."""
        at = self.whereabouts(port)
        if at is None or at == self.host:
            return None
        host = self._one(view.Host, at)
        return ip(host.underlay) if host is not None else None

    def _sit(self, port: str, seat: Seat | None) -> None:
        """Let a port take part in floods at *seat* and nowhere else."""
        self._candidates.put(port, seat.network if seat is not None and seat.wide else None, self.port(port))
        old = self._seats.get(port)
        if old == seat:
            return
        if old is not None and old.wide:
            _unlink(self._wide, old.network, port)
        # The new one first: a port that stays on its host keeps the host's entry.
        if seat is not None:
            self._floods.take(seat)
            self._seats[port] = seat
            if seat.wide:
                self._wide.setdefault(seat.network, set()).add(port)
            self._serve(seat, 1)
        else:
            self._seats.pop(port, None)
        if old is not None:
            self._floods.leave(old)
            self._serve(old, -1)
        for one in (old, seat):
            if one is not None:
                self._networks |= self._by_number.get(one.network, set())

    def _serve(self, seat: Seat, by: int) -> None:
        """Count the ports that a network has on this host."""
        if seat.place.kind == r.PlaceKind.LOCAL:
            self._served[seat.network] = self._served.get(seat.network, 0) + by
            if not self._served[seat.network]:
                del self._served[seat.network]

    def _join(self, port: str, identity: int | None) -> None:
        """Count a port of this host with its identity and no other."""
        old = self._joined.get(port)
        if old == identity:
            return
        if identity is not None:
            self._joined[port] = identity
            self.policy.join(identity, self._project(port))
        else:
            del self._joined[port]
        if old is not None:
            self.policy.leave(old)

    def _settle_router(self, id: str) -> None:
        router = self._one(view.Router, id)
        rows: Rows = {}
        if router is not None and router.up:
            rows = router_rows(router, feet_of(router, self._number))
        self.ledger.claim(("router", id), rows)

    def _uplink(self, network: view.Network | None) -> int:
        if network is None or not network.up or network.physnet is None:
            return 0
        return self._uplinks.get(network.physnet, 0)

    def _settle_uplink(self, id: str) -> None:
        network = self._one(view.Network, id)
        old = self._outward.get(id)
        new = network.number if network is not None and self._uplink(network) else None
        if old == new:
            return
        if old is not None:
            self._floods.remove(old, UPLINK)
            del self._outward[id]
        if new is not None:
            self._floods.add(new, UPLINK, r.Place(r.PlaceKind.UPLINK))
            self._outward[id] = new

    def _settle_network(self, id: str) -> None:
        network = self._one(view.Network, id)
        rows: Rows = {}
        services: Rows = {}
        if network is not None and network.up:
            number = network.number
            wide = self._floods.wide.get(number, 0)
            uplink = self._uplink(network)
            rows = network_rows(network, self._floods.count(number), wide, uplink)
            if number in self._served:
                subnets = [self._one(view.Subnet, subnet) for subnet in self._network_subnets.get(id, ())]
                services = service_rows(network, filter(None, subnets), self.asked_at)
        self.ledger.claim(("network", id), rows)
        # What ports and routers have, they keep: see `Ledger`.
        self.ledger.claim(("service", id), services)


def _unlink(index: dict[K, set[str]], at: K, id: str) -> None:
    found = index.get(at)
    if found is not None:
        found.discard(id)
        if not found:
            del index[at]
