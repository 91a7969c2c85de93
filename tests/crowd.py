"""Many clients at once who make, change and delete; and whether what is there afterwards is whole."""

from __future__ import annotations

import http.client
import json
import random
import sqlite3
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

Row = dict[str, Any]

# By what a request's body calls them, and the path: deleted in this order, whatever refers to a thing goes first.
PLURALS = {
    "floatingip": "floatingips",
    "router": "routers",
    "port": "ports",
    "subnet": "subnets",
    "network": "networks",
    "security_group_rule": "security-group-rules",
    "security_group": "security-groups",
}
OF_ROUTERS = ("network:router_interface", "network:router_gateway")
FLOATING = "network:floatingip"
# What a client is answered that asked for something that cannot be now, or that another took away.
REFUSED = (400, 404, 409)


class Lost(Exception):
    """The connection ended before an answer: nobody knows what came of the request."""


class Record:
    """What all clients together were answered."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.there: dict[str, set[str]] = defaultdict(set)
        self.deleted: dict[str, set[str]] = defaultdict(set)
        # What somebody asked to delete, whatever came of it.
        self.doomed: set[str] = set()
        # The descriptions that may stand on a thing: the last that was answered, and what was asked for since.
        self.said: dict[str, set[str]] = {}
        self.answers: Counter[int] = Counter()
        self.lost = 0
        self.faults: list[str] = []

    def made(self, kind: str, row: Row) -> None:
        with self.lock:
            self.there[kind].add(row["id"])

    def pick(self, kind: str, rng: random.Random) -> str:
        """Return the id of a thing that somebody made; of one that never was if there is none."""
        with self.lock:
            some = self.there[kind]
            return rng.choice(sorted(some)) if some else "00000000-0000-4000-8000-000000000000"

    def doom(self, kind: str, id: str) -> None:
        with self.lock:
            self.doomed.add(id)
            self.there[kind].discard(id)

    def gone(self, kind: str, id: str) -> None:
        with self.lock:
            self.deleted[kind].add(id)

    def spared(self, kind: str, id: str) -> None:
        """Note that a thing that was to be deleted stays, if no other client was told that it went."""
        with self.lock:
            if id not in self.deleted[kind]:
                self.there[kind].add(id)


class Asker:
    """One connection to a server; every answer is counted, and what no answer may be is a fault."""

    def __init__(self, url: str, record: Record, project: str = "") -> None:
        self.record = record
        self.url = url
        self.headers = {"Content-Type": "application/json"}
        if project:
            self.headers |= {"X-Project-Id": project, "X-Roles": "member"}
        self.connection: http.client.HTTPConnection | None = None

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        if self.connection is None:
            at = urlsplit(self.url)
            self.connection = http.client.HTTPConnection(at.hostname or "", at.port, timeout=30)
        try:
            self.connection.request(method, f"/v2.0/{path}", json.dumps(body) if body else None, self.headers)
            answer = self.connection.getresponse()
            raw = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise Lost from error
        with self.record.lock:
            self.record.answers[answer.status] += 1
            if answer.status not in (200, 201, 204, *REFUSED):
                self.record.faults.append(f"{method} {path} {body}: {answer.status} {raw.decode()}")
        return answer.status, json.loads(raw) if raw else None

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None


class Member(Asker):
    """One of a crowd: it does at random what a member of a project can do, also to what others made."""

    def __init__(self, url: str, record: Record, project: str, outside: str, seed: int) -> None:
        super().__init__(url, record, project)
        self.project, self.outside = project, outside
        self.rng = random.Random(seed)
        self.mine: list[str] = []
        self.number = 0
        self.deeds: list[tuple[int, Callable[[], None]]] = [
            (20, self.make_port), (3, self.make_ports), (10, self.describe_port), (8, self.move_port),
            (6, self.regroup_port), (16, lambda: self.drop("port")),
            (4, self.make_router), (8, self.join), (6, self.part), (5, self.turn_gateway),
            (3, lambda: self.drop("router")),
            (6, self.make_floating), (5, self.point_floating), (4, lambda: self.drop("floatingip")),
            (5, self.make_group), (4, lambda: self.drop("security_group")),
            (8, self.make_rule), (5, lambda: self.drop("security_group_rule")),
            (4, self.make_network), (2, lambda: self.drop("network")),
            (3, self.make_subnet), (2, lambda: self.drop("subnet")),
            (3, self.look),
        ]  # fmt: skip

    def act(self) -> None:
        """Do one thing."""
        weights, deeds = zip(*self.deeds, strict=True)
        (deed,) = self.rng.choices(deeds, weights)
        deed()

    def pick(self, kind: str) -> str:
        return self.record.pick(kind, self.rng)

    def some(self, kind: str, most: int) -> list[str]:
        return list({self.pick(kind) for _ in range(self.rng.randint(1, most))})

    def make(self, kind: str, body: Row) -> Row | None:
        status, told = self.ask("POST", PLURALS[kind], {kind: body})
        if status != 201:
            return None
        made: Row = told[kind]
        self.record.made(kind, made)
        return made

    def change(self, kind: str, id: str, body: Row) -> bool:
        return self.ask("PUT", f"{PLURALS[kind]}/{id}", {kind: body})[0] == 200

    def drop(self, kind: str, id: str = "") -> None:
        id = id or self.pick(kind)
        self.record.doom(kind, id)
        status, _ = self.ask("DELETE", f"{PLURALS[kind]}/{id}")
        if status == 204:
            self.record.gone(kind, id)
        elif status == 409:
            self.record.spared(kind, id)

    def address(self) -> Row:
        """Return an address out of so few that others want it too."""
        return {
            "subnet_id": self.pick("subnet"),
            "ip_address": f"10.0.{self.rng.randint(0, 3)}.{self.rng.randint(2, 30)}",
        }

    def port(self) -> Row:
        body: Row = {"network_id": self.pick("network"), "description": "new"}
        if self.rng.random() < 0.3:
            body["fixed_ips"] = [{"ip_address": self.address()["ip_address"]}]
        if self.rng.random() < 0.2:
            body["mac_address"] = f"02:00:00:00:00:{self.rng.randrange(40):02x}"
        if self.rng.random() < 0.4:
            body["security_groups"] = self.some("security_group", 2)
        return body

    def make_port(self) -> None:
        if port := self.make("port", self.port()):
            self.record.said[port["id"]] = {"new"}
            self.mine.append(port["id"])

    def make_ports(self) -> None:
        """Make several, all or none."""
        status, told = self.ask("POST", "ports", {"ports": [self.port() for _ in range(4)]})
        for port in told["ports"] if status == 201 else ():
            self.record.made("port", port)

    def describe_port(self) -> None:
        """Change a port that no other client changes in this way, so that it is known what must stand there."""
        if not self.mine:
            return
        id = self.rng.choice(self.mine)
        self.number += 1
        word = f"{self.number}"
        self.record.said[id].add(word)
        if self.change("port", id, {"description": word}):
            self.record.said[id] = {word}
        else:
            self.record.said[id].discard(word)
            self.mine.remove(id)

    def move_port(self) -> None:
        self.change("port", self.pick("port"), {"fixed_ips": [self.address()]})

    def regroup_port(self) -> None:
        self.change("port", self.pick("port"), {"security_groups": self.some("security_group", 3)})

    def make_router(self) -> None:
        gateway = {"network_id": self.outside} if self.rng.random() < 0.6 else None
        self.make("router", {"external_gateway_info": gateway})

    def join(self) -> None:
        self.interface("add")

    def part(self) -> None:
        self.interface("remove")

    def interface(self, verb: str) -> None:
        self.ask("PUT", f"routers/{self.pick('router')}/{verb}_router_interface", {"subnet_id": self.pick("subnet")})

    def turn_gateway(self) -> None:
        gateway = {"network_id": self.outside} if self.rng.random() < 0.6 else {}
        self.change("router", self.pick("router"), {"external_gateway_info": gateway})

    def make_floating(self) -> None:
        port = self.pick("port") if self.rng.random() < 0.6 else None
        self.make("floatingip", {"floating_network_id": self.outside, "port_id": port})

    def point_floating(self) -> None:
        port = self.pick("port") if self.rng.random() < 0.6 else None
        self.change("floatingip", self.pick("floatingip"), {"port_id": port})

    def make_group(self) -> None:
        self.make("security_group", {"name": "g"})

    def make_rule(self) -> None:
        body: Row = {"security_group_id": self.pick("security_group"), "direction": "ingress"}
        if self.rng.random() < 0.5:
            body["remote_group_id"] = self.pick("security_group")
        else:
            # So few that others ask for the same.
            low = self.rng.randint(1, 8)
            body |= {"protocol": "tcp", "port_range_min": low, "port_range_max": low}
        self.make("security_group_rule", body)

    def make_network(self) -> None:
        """Make a network, which others use at once; take it away at once now and then, if they leave it."""
        network = self.make("network", {"name": "n"})
        if network and self.rng.random() < 0.7:
            self.drop("network", network["id"])

    def make_subnet(self) -> None:
        third = self.rng.randint(0, 3)
        body = {"network_id": self.pick("network"), "ip_version": 4, "cidr": f"10.0.{third}.0/27"}
        self.make("subnet", body)

    def look(self) -> None:
        """List all ports or routers, in one answer or in pages: each that was there all the time is there once."""
        kind = self.rng.choice(("port", "router"))
        with self.record.lock:
            before = set(self.record.there[kind])
        found: list[Row] = []
        limit, marker = self.rng.choice((0, 7, 25)), ""
        while True:
            query = f"?sort_key=id&limit={limit}" + (f"&marker={marker}" if marker else "") if limit else ""
            status, told = self.ask("GET", PLURALS[kind] + query)
            if status != 200:
                # The page's marker went meanwhile.
                return
            found += told[PLURALS[kind]]
            if not limit or len(told[PLURALS[kind]]) < limit:
                break
            marker = found[-1]["id"]
        faults = [f"listed {n} times: {kind} {id}" for id, n in Counter(row["id"] for row in found).items() if n > 1]
        with self.record.lock:
            missed = before - {row["id"] for row in found} - self.record.doomed
        faults += [f"not listed: {kind} {id}" for id in missed]
        if kind == "port" and not limit:
            faults += twice(found)
        with self.record.lock:
            self.record.faults += faults


@contextmanager
def crowd(members: Sequence[Member], end: threading.Event, patience: float = 0.0) -> Iterator[None]:
    """Let all act in threads until the end; *patience*: seconds after which one who lost the server comes again."""

    def work(member: Member) -> None:
        with closing(member):
            while not end.is_set():
                try:
                    member.act()
                except Lost:
                    with member.record.lock:
                        member.record.lost += 1
                        if not patience:
                            member.record.faults.append("a connection ended without an answer")
                    time.sleep(patience)

    threads = [threading.Thread(target=work, args=(member,)) for member in members]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        end.set()
        for thread in threads:
            thread.join()


def twice(ports: Sequence[Row]) -> list[str]:
    """Return the addresses and MACs that more than one port has."""
    addresses = Counter((f["subnet_id"], f["ip_address"]) for port in ports for f in port["fixed_ips"])
    macs = Counter((port["network_id"], port["mac_address"]) for port in ports)
    return [f"given {n} times: {key}" for key, n in (*addresses.items(), *macs.items()) if n > 1]


def listed(asker: Asker) -> dict[str, dict[str, Row]]:
    """Return all that there is by kind and id; whatever is listed twice is a fault."""
    found = {}
    for kind, plural in PLURALS.items():
        rows = asker.ask("GET", plural)[1][plural.replace("-", "_")]
        found[kind] = {row["id"]: row for row in rows}
        if len(rows) != len(found[kind]):
            asker.record.faults.append(f"{plural}: {len(rows)} are listed, {len(found[kind])} are different")
    return found


def orphans(found: dict[str, dict[str, Row]]) -> list[str]:
    """Return what refers to a thing that is not there, or is there without what it stands for."""
    faults: list[str] = []

    def refer(row: Row, to: str, id: str | None) -> None:
        if id and id not in found[to]:
            faults.append(f"refers to {to} {id}, which is gone: {row}")

    ports, fips, routers = found["port"], found["floatingip"], found["router"]
    of_device: dict[str, list[Row]] = defaultdict(list)
    for port in ports.values():
        of_device[port["device_id"]].append(port)
        refer(port, "network", port["network_id"])
        for fixed in port["fixed_ips"]:
            refer(port, "subnet", fixed["subnet_id"])
            subnet = found["subnet"].get(fixed["subnet_id"])
            if subnet and subnet["network_id"] != port["network_id"]:
                faults.append(f"has an address of another network: {port}")
        for group in port["security_groups"]:
            refer(port, "security_group", group)
        if port["device_owner"] in OF_ROUTERS:
            refer(port, "router", port["device_id"])
        if port["device_owner"] == FLOATING:
            refer(port, "floatingip", port["device_id"])
        if port["device_owner"] in (*OF_ROUTERS, FLOATING) and not port["fixed_ips"]:
            faults.append(f"has no address: {port}")
    for router in routers.values():
        own = [port for port in of_device[router["id"]] if port["device_owner"] == "network:router_gateway"]
        said = router["external_gateway_info"]
        if [port["fixed_ips"] for port in own] != ([said["external_fixed_ips"]] if said else []):
            faults.append(f"has another gateway than its ports {own}: {router}")
        feet = [f["subnet_id"] for port in of_device[router["id"]] for f in port["fixed_ips"]]
        if len(feet) != len(set(feet)):
            faults.append(f"joins a subnet twice: {router}")
    stands: Counter[tuple[str, str]] = Counter()
    for fip in fips.values():
        own = [port for port in of_device[fip["id"]] if port["device_owner"] == FLOATING]
        if [[f["ip_address"] for f in port["fixed_ips"]] for port in own] != [[fip["floating_ip_address"]]]:
            faults.append(f"has not one port with its address, but {own}: {fip}")
        refer(fip, "port", fip["port_id"])
        refer(fip, "router", fip["router_id"])
        if fip["port_id"] and fip["port_id"] in ports:
            stands[fip["port_id"], fip["fixed_ip_address"]] += 1
            if fip["fixed_ip_address"] not in [f["ip_address"] for f in ports[fip["port_id"]]["fixed_ips"]]:
                faults.append(f"stands for an address that its port has not: {fip}")
            gateway = routers.get(fip["router_id"], {}).get("external_gateway_info")
            if not gateway or gateway["network_id"] != fip["floating_network_id"]:
                faults.append(f"has a router without a gateway there: {fip}")
    faults += [f"{n} floating IPs stand for {key}" for key, n in stands.items() if n > 1]
    meanings: Counter[tuple[Any, ...]] = Counter()
    for rule in found["security_group_rule"].values():
        refer(rule, "security_group", rule["security_group_id"])
        refer(rule, "security_group", rule["remote_group_id"])
        names = ("security_group_id", "direction", "ethertype", "protocol", "port_range_min", "remote_group_id")
        meanings[tuple(rule[name] for name in names)] += 1
    faults += [f"{n} rules mean {key}" for key, n in meanings.items() if n > 1]
    for subnet in found["subnet"].values():
        refer(subnet, "network", subnet["network_id"])
    return faults + twice(list(ports.values()))


def stored(file: Path) -> dict[str, bytes | None]:
    """Return all that a store holds whose server has ended, but for the counters, which only ever rise."""
    with closing(sqlite3.connect(file)) as db:
        return dict(db.execute("SELECT key, value FROM entries WHERE key NOT LIKE 'counter/%'"))


def claims(entries: dict[str, bytes | None]) -> tuple[set[str], set[str]]:
    """Return the claims that nothing in the store explains, and those that should be there and are not."""
    tables: dict[str, list[Row]] = defaultdict(list)
    tables_of = ("port", "router", "floatingip", "subnet", "network", "rule", "group", "identity", "rbac", "quota")
    held, wanted = Counter[str](), Counter[str]()
    for key, value in entries.items():
        kind, _, rest = key.partition("/")
        if kind in tables_of:
            tables[kind].append(json.loads(value or b"null"))
        elif kind == "unique":
            # The rest of the key is a digest of what the rule means: its value names the rule.
            held[f"unique/{rest.split('/')[0]}/{(value or b'').decode()}"] += 1
        elif key.startswith("claim/set/"):
            held[f"claim/set/{(value or b'').decode()}"] += 1
        else:
            held[key] += 1
    for port in tables["port"]:
        wanted.update(f"address/{f['subnet_id']}/{f['ip_address']}" for f in port.get("fixed_ips", ()))
        wanted[f"mac/{port['network_id']}/{port['mac_address']}"] += 1
        if port.get("identity"):
            wanted[f"bearer/{port['identity']}/{port['id']}"] += 1
    for fip in tables["floatingip"]:
        for kind, name in (("outside", "port_id"), ("routed", "router_id")):
            if fip.get(name):
                wanted[f"{kind}/{fip[name]}/{fip['id']}"] += 1
    for rule in tables["rule"]:
        wanted[f"unique/{rule['security_group_id']}/{rule['id']}"] += 1
        if rule.get("remote_group_id"):
            wanted[f"remote/{rule['remote_group_id']}/{rule['id']}"] += 1
    for identity in tables["identity"]:
        wanted[f"claim/identity/{identity['id']}"] += 1
        wanted[f"claim/set/{identity['id']}"] += 1
        wanted.update(f"member/{group}/{identity['id']}" for group in identity["groups"])
    wanted.update(f"prefix/{subnet['network_id']}/{subnet['id']}" for subnet in tables["subnet"])
    wanted.update(f"claim/{kind}/{row['number']}" for kind in ("router", "network") for row in tables[kind])
    wanted.update(f"default/{group['project_id']}" for group in tables["group"] if group["name"] == "default")
    # What tells that a policy was used to see something may be there as long as the policy is.
    may = {f"held/{policy['id']}" for policy in tables["rbac"]}
    return set(held - wanted) - may, set(wanted - held)


def clear(asker: Asker, found: dict[str, dict[str, Row]]) -> None:
    """Delete all that was found, as the admin; what refuses is a fault."""

    def ask(method: str, path: str, body: Any = None) -> None:
        status, told = asker.ask(method, path, body)
        if status not in (200, 204):
            asker.record.faults.append(f"{method} {path}: {status} {told}")

    for kind, plural in PLURALS.items():
        if kind == "router":
            for port in found["port"].values():
                if port["device_owner"] == "network:router_interface":
                    ask("PUT", f"routers/{port['device_id']}/remove_router_interface", {"port_id": port["id"]})
        for id, row in found[kind].items():
            if row.get("device_owner") not in (*OF_ROUTERS, FLOATING):
                ask("DELETE", f"{plural}/{id}")
