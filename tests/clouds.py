"""A cloud over a store, whose verbs are called one after the other; and hosts that listen to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from crossway.control import claims, group, host, network, policy, port, router, rule, subnet
from crossway.control.caller import Caller, implied
from crossway.control.cloud import Cloud
from crossway.control.collection import Collection
from crossway.control.collections import every
from crossway.control.decision import Decision, decide
from crossway.control.status import Status
from crossway.control.view import Views
from crossway.model.group import Group
from crossway.model.host import Host
from crossway.model.network import Network
from crossway.model.port import Port
from crossway.model.router import Router
from crossway.model.rule import Rule
from crossway.model.subnet import Subnet
from crossway.store import Store
from crossway.store.sqlite import SqliteStore
from rules import take_rule

T = TypeVar("T")
COLLECTIONS = {collection.kind.table: collection for collection in every()}
ALICE, BOB, ADMIN = Caller("alice", roles=implied(["member"])), Caller("bob", roles=implied(["member"])), Caller()


def faults(cloud: Cloud, keys: list[str]) -> list[str]:
    """Return what is wrong with a cloud in which nothing is under way, whose store has these keys."""
    return [*claims.faults(cloud, keys), *claims.astray(cloud), *claims.kept(cloud)]


def faults_of(path: Path) -> list[str]:
    """Return what is wrong with what a server left in a SQLite file."""

    async def look() -> list[str]:
        store = SqliteStore(path)
        cloud = Cloud(store)
        await cloud.start()
        found = faults(cloud, [entry.key for entry in (await store.read(""))[1]])
        await cloud.stop()
        await store.close()
        return found

    return asyncio.run(look())


class World:
    """Verbs as a caller of the API has them: JSON in, a model out."""

    def __init__(self, runner: asyncio.Runner, store: Store, limits: Mapping[str, int] | None = None) -> None:
        self.runner = runner
        self.cloud = Cloud(store, limits)
        runner.run(self.cloud.start())
        self.views = Views(self.cloud)
        self.now = 0.0
        self.status = Status(self.cloud, self.views.interest, clock=lambda: self.now)
        self.writing = runner.get_loop().create_task(self.status.run())

    def do(self, verb: Callable[[Decision], T]) -> T:
        done = self.runner.run(decide(self.cloud, verb))
        self.settle()
        return done

    def settle(self) -> None:
        """Let what runs in the background come to rest."""

        async def rest() -> None:
            for _ in range(20):
                await asyncio.sleep(0)
                while isinstance(store := self.cloud.store, SqliteStore) and store._writing:
                    await asyncio.sleep(0.001)

        self.runner.run(rest())

    def stop(self) -> None:
        self.writing.cancel()
        self.settle()
        found = faults(self.cloud, self.stored())
        assert not found, "\n".join(found)
        self.runner.run(self.cloud.stop())

    def make(self, collection: Collection, caller: Caller = ADMIN, parent: str = "", **body: Any) -> Any:
        """POST: check, policy, verb."""
        create = collection.create
        assert create is not None
        body = wire(body)
        given = collection.kind.given(body)
        if parent and collection.kind.parent:
            given[collection.kind.parent[0]] = parent

        def verb(decision: Decision) -> Any:
            policy.create(decision, caller, collection, body, given)
            return create(decision, caller, dict(given))

        return self.do(verb)

    def network(self, caller: Caller = ADMIN, **body: Any) -> Network:
        made: Network = self.make(network.NETWORKS, caller, **body)
        return made

    def subnet(self, of: Network, cidr: str, caller: Caller = ADMIN, **body: Any) -> Subnet:
        body = {"network_id": of.id, "cidr": cidr, "ip_version": 6 if ":" in cidr else 4, **body}
        made: Subnet = self.make(subnet.SUBNETS, caller, **body)
        return made

    def port(self, of: Network, caller: Caller = ADMIN, **body: Any) -> Port:
        made: Port = self.make(port.PORTS, caller, **{"network_id": of.id, **body})
        return made

    def router(self, caller: Caller = ADMIN, **body: Any) -> Router:
        made: Router = self.make(router.ROUTERS, caller, **body)
        return made

    def group(self, caller: Caller = ADMIN, **body: Any) -> Group:
        made: Group = self.make(group.GROUPS, caller, **body)
        return made

    def rule(self, of: Group | str, caller: Caller = ADMIN, direction: str = "ingress", **body: Any) -> Rule:
        body = {"security_group_id": of if isinstance(of, str) else of.id, "direction": direction, **body}
        made: Rule = self.make(rule.RULES, caller, **body)
        return made

    def host(self, name: str, underlay: str = "", *physnets: str) -> Host:
        underlay = underlay or f"192.0.2.{sum(name.encode()) % 250 + 1}"
        made = Host(id=name, underlay=underlay, physnets={physnet: f"nic-{physnet}" for physnet in physnets})
        return self.do(lambda d: host.register(d, made, ADMIN))

    def change(self, what: Any, caller: Caller = ADMIN, **body: Any) -> Any:
        """PUT: check, policy, verb."""
        body, collection = wire(body), COLLECTIONS[what.kind.table]
        given, update = what.kind.given(body, update=True), collection.update
        assert update is not None

        def verb(decision: Decision) -> Any:
            policy.update(decision, caller, collection, what.id, body, given)
            return update(decision, caller, what.id, given)

        return self.do(verb)

    def delete(self, what: Any, caller: Caller = ADMIN) -> None:
        collection = COLLECTIONS[what.kind.table]
        remove = collection.delete
        assert remove is not None

        def verb(decision: Decision) -> None:
            policy.delete(decision, caller, collection, what.id)
            remove(decision, caller, what.id)

        self.do(verb)

    def join(self, to: Router, caller: Caller = ADMIN, **body: Any) -> dict[str, Any]:
        return self.do(lambda d: router.add_interface(d, caller, to.id, body))

    def part(self, from_: Router, caller: Caller = ADMIN, **body: Any) -> dict[str, Any]:
        return self.do(lambda d: router.remove_interface(d, caller, from_.id, body))

    def again(self, what: T) -> T:
        """Return what stands under its id now."""
        for table in self.cloud.tables.values():
            if table.model is type(what):
                found: T = table.rows[what.id]  # type: ignore[attr-defined]
                return found
        raise KeyError(what)

    def stored(self) -> list[str]:
        return [entry.key for entry in self.runner.run(self.cloud.store.read(""))[1]]


class Listener:
    """A host that keeps what its view tells it."""

    def __init__(self, world: World, host: str, after: int = 0) -> None:
        self.world, self.host = world, host
        self.objects: dict[tuple[str, str], Any] = {}
        self.bookmark = after
        self.resets = 0
        # Lines that were told since they were last looked at.
        self.told: list[dict[str, Any]] = []
        self._reading = world.runner.get_loop().create_task(self._read())
        world.settle()

    def close(self) -> Listener:
        """Break the connection; what is known stays."""
        self._reading.cancel()
        self.world.settle()
        return self

    def back(self) -> Listener:
        """Connect again after the last bookmark."""
        other = Listener.__new__(Listener)
        other.__dict__.update(self.__dict__)
        other._reading = self.world.runner.get_loop().create_task(other._read())
        self.world.settle()
        return other

    async def _read(self) -> None:
        async for chunk in self.world.views.lines(self.host, self.bookmark):
            for line in chunk.splitlines():
                self._take(msgspec.json.decode(line))

    def _take(self, told: dict[str, Any]) -> None:
        self.told.append(told)
        if "reset" in told:
            self.objects.clear()
            self.resets += 1
        elif "bookmark" in told:
            assert self.resets or told["bookmark"] >= self.bookmark
            self.bookmark = told["bookmark"]
        elif "take" in told:
            pass
        elif told["kind"] == "rule":
            take_rule(self.objects, told)
        elif told["object"] is None:
            self.objects.pop((told["kind"], told["id"]), None)
        else:
            self.objects[told["kind"], told["id"]] = told["object"]

    def ids(self, kind: str) -> set[str]:
        return {id for found, id in self.objects if found == kind}

    def news(self) -> list[tuple[str, str, bool]]:
        """Return what was told since this was last asked: kind, id, and whether it is there."""
        told, self.told = self.told, []
        return [(t["kind"], t["id"], t["object"] is not None) for t in told if "kind" in t]


def wire(body: dict[str, Any]) -> dict[str, Any]:
    """Turn Python names into those of the API: binding__host_id is binding:host_id."""
    return {name.replace("__", ":"): value for name, value in body.items()}
