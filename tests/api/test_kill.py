"""The server killed at any moment: every answered write is there afterwards, none half."""

from __future__ import annotations

import ipaddress
import os
import random
import threading
import time
from collections import Counter
from typing import Any

import pytest

from crowd import PLURALS, REFUSED, Asker, Lost, Member, Record, Row, claims, clear, crowd, listed, orphans, stored
from servers import Server

CLIENTS = 10
# KILLS=200 make test ARGS='-s tests/api/test_kill.py' is the long run; SEED=… another course of it.
KILLS = int(os.environ.get("KILLS", "9"))
SEED = int(os.environ.get("SEED", "1"))
# Between two kills: so short that some come while the server has only just begun.
LEAST, MOST = 0.05, 1.2
PROJECT = "killed"
SUBNET = "192.0.2.0/26"
QUOTA = dict.fromkeys(
    ("network", "subnet", "port", "router", "floatingip", "security_group", "security_group_rule"), 90
)


class Writer(Member):
    """One of a crowd that also keeps what it was answered, to the letter, of things that it alone touches."""

    def __init__(self, url: str, record: Record, project: str, outside: str, small: Row, seed: int) -> None:
        super().__init__(url, record, project, outside, seed)
        self.small = small
        # By path: what GET must answer; where the answer to a change was lost, what it may answer instead.
        self.promised: dict[tuple[str, str], list[Row | None]] = {}
        # Bulk requests without an answer, by the name of all their ports: how many of them there may be.
        self.bulks: dict[str, int] = {}
        self.feet: dict[tuple[str, str], bool | None] = {}
        self.deeds += [
            (14, self.keep), (10, self.renew), (8, self.forget), (8, self.keep_many),
            (5, self.keep_group), (4, self.stand),
        ]  # fmt: skip

    def word(self) -> str:
        self.number += 1
        return f"{self.rng.random():.12f}.{self.number}"

    def keep(self) -> None:
        """Make a thing of one's own."""
        kind = self.rng.choice(("network", "port", "port", "router", "security_group"))
        body: Row = {"name": self.word()}
        if kind == "port":
            body["network_id"] = self.small["network_id"]
        status, told = self.ask("POST", PLURALS[kind], {kind: body})
        if status == 201:
            self.promised[kind, told[kind]["id"]] = [told[kind]]

    def keep_group(self) -> None:
        """Make a rule in a group of one's own."""
        if groups := self.own("security_group"):
            low = self.rng.randint(1, 60000)
            body = {
                "security_group_id": self.rng.choice(groups), "direction": "ingress", "protocol": "udp",
                "port_range_min": low, "port_range_max": low,
            }  # fmt: skip
            status, told = self.ask("POST", "security-group-rules", {"security_group_rule": body})
            if status == 201:
                rule = told["security_group_rule"]
                self.promised["security_group_rule", rule["id"]] = [rule]

    def keep_many(self) -> None:
        """Make several, all or none, and keep them."""
        name, many = self.word(), self.rng.randint(2, 12)
        body: Row = {"name": name, "network_id": self.small["network_id"]}
        if self.rng.random() < 0.5:
            body["network_id"] = self.pick("network")
        self.bulks[name] = many
        status, told = self.ask("POST", "ports", {"ports": [body] * many})
        if status != 201:
            self.bulks[name] = 0
            return
        del self.bulks[name]
        for port in told["ports"]:
            if body["network_id"] == self.small["network_id"]:
                self.promised["port", port["id"]] = [port]
            else:
                self.record.made("port", port)

    def own(self, *kinds: str) -> list[str]:
        """Return what one has for certain."""
        return [id for (kind, id), may in self.promised.items() if kind in kinds and len(may) == 1 and may[0]]

    def renew(self) -> None:
        """Change one's own; if no answer comes, it is as it was or as it was to be."""
        kind = self.rng.choice(("network", "port", "router", "security_group"))
        if not (own := self.own(kind)):
            return
        key = kind, self.rng.choice(own)
        (before,) = self.promised[key]
        assert before
        word = self.word()
        self.promised[key] = [before, {"description": word}]
        status, told = self.ask("PUT", f"{PLURALS[kind]}/{key[1]}", {kind: {"description": word}})
        self.promised[key] = [told[kind]] if status == 200 else [before]

    def forget(self) -> None:
        """Delete one's own; if no answer comes, it is there as it was, or gone."""
        kind = self.rng.choice(("network", "port", "port", "router", "security_group_rule"))
        if not (own := self.own(kind)):
            return
        key = kind, self.rng.choice(own)
        # Its subnets go with a network.
        going = [key, *(k for k, may in self.promised.items() if may[0] and may[0].get("network_id") == key[1])]
        before = {k: self.promised[k] for k in going}
        self.promised |= {k: [*may, None] for k, may in before.items()}
        status, _ = self.ask("DELETE", f"{PLURALS[kind]}/{key[1]}")
        self.promised |= {k: [None] for k in going} if status == 204 else before

    def stand(self) -> None:
        """Join a subnet of one's own to a router of one's own, or part them."""
        routers, networks = self.own("router"), self.own("network")
        if not routers or not networks:
            return
        router, network = self.rng.choice(routers), self.rng.choice(networks)
        part = [key for key, there in self.feet.items() if key[0] == router and there]
        if part and self.rng.random() < 0.5:
            key = self.rng.choice(part)
            verb, wanted = "remove", False
        else:
            body = {"network_id": network, "ip_version": 4, "cidr": f"10.{self.rng.randint(8, 250)}.0.0/28"}
            status, told = self.ask("POST", "subnets", {"subnet": body})
            if status != 201:
                return
            self.promised["subnet", told["subnet"]["id"]] = [told["subnet"]]
            key = router, told["subnet"]["id"]
            verb, wanted = "add", True
        before = self.feet.get(key, False)
        self.feet[key] = None
        path = f"routers/{router}/{verb}_router_interface"
        status, _ = self.ask("PUT", path, {"subnet_id": key[1]})
        self.feet[key] = wanted if status == 200 else before

    def broken(self, found: dict[str, dict[str, Row]]) -> list[str]:
        """Return what is not as it was answered."""
        faults = []
        for (kind, id), may in self.promised.items():
            now = found[kind].get(id)
            wrong = [differs(want, now) for want in may]
            if all(wrong):
                faults.append(f"{kind} {id} is not as it was answered: {'; or '.join(wrong)}")
        names = Counter(port["name"] for port in found["port"].values())
        for name, many in self.bulks.items():
            if names[name] not in {0, many}:
                faults.append(f"{names[name]} of {many} ports that were asked for at once are there: {name}")
        feet = {
            (port["device_id"], fixed["subnet_id"])
            for port in found["port"].values()
            if port["device_owner"] == "network:router_interface"
            for fixed in port["fixed_ips"]
        }
        faults += [
            f"{key} was answered to be {there}" for key, there in self.feet.items() if there == (key not in feet)
        ]
        return faults

    def settle(self, found: dict[str, dict[str, Row]]) -> None:
        """Take what is there for what must be from now on, where no answer told."""
        for (kind, id), may in self.promised.items():
            if len(may) > 1:
                self.promised[kind, id] = [found[kind].get(id)]
        self.bulks.clear()
        for key in [key for key, there in self.feet.items() if there is None]:
            del self.feet[key]


# What changes with others, or with what a thing has.
OTHERS = {
    "status", "revision_number", "updated_at", "subnets", "availability_zones", "security_group_rules",
    "external_gateway_info",
}  # fmt: skip


def differs(want: Row | None, now: Row | None) -> str:
    """Say how a thing is not what was answered; nothing if it is."""
    if want is None or now is None:
        return "" if want is now else f"is {'gone' if now is None else 'there'}"
    return ", ".join(
        f"{name} is {now[name]} and not {value}"
        for name, value in want.items()
        if name not in OTHERS and now[name] != value
    )


def patient(asker: Asker, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """Ask until there is an answer."""
    for _ in range(200):
        try:
            return asker.ask(method, path, body)
        except Lost:
            time.sleep(0.05)
    raise Lost


def free(subnet: Row, ports: dict[str, Row]) -> int:
    """Return how many addresses of a subnet's pools no port has."""
    taken = [
        ipaddress.ip_address(fixed["ip_address"])
        for port in ports.values()
        for fixed in port["fixed_ips"]
        if fixed["subnet_id"] == subnet["id"]
    ]
    pools = [(ipaddress.ip_address(p["start"]), ipaddress.ip_address(p["end"])) for p in subnet["allocation_pools"]]
    size = sum(int(last) - int(first) + 1 for first, last in pools)
    return size - sum(any(first <= ip <= last for first, last in pools) for ip in taken)


def check(admin: Asker, writers: list[Writer], record: Record) -> dict[str, dict[str, Row]]:
    """Hold what is there against what was answered, and against itself."""
    found = listed(admin)
    record.faults += orphans(found)
    for writer in writers:
        record.faults += writer.broken(found)
        writer.settle(found)
    for kind, ids in record.there.items():
        # With these their subnets, their rules go as well.
        if kind not in ("subnet", "security_group_rule"):
            record.faults += [f"{kind} {id} was made and is gone" for id in ids - found[kind].keys()]
    for kind, ids in record.deleted.items():
        record.faults += [f"{kind} {id} was deleted and is there" for id in ids & found[kind].keys()]
    for id, words in record.said.items():
        port = found["port"].get(id)
        if port and port["description"] not in words:
            record.faults.append(f"port {id} should say one of {words}: {port}")
    used = patient(admin, "GET", f"quotas/{PROJECT}/details")[1]["quota"]
    for kind in QUOTA:
        mine = sum(row["project_id"] == PROJECT for row in found[kind].values())
        if (used[kind]["used"], used[kind]["reserved"]) != (mine, 0):
            record.faults.append(f"{kind}: {used[kind]} are counted, {mine} are there")
    return found


@pytest.mark.timeout(120 + 4 * KILLS)
def test_a_server_that_is_killed_again_and_again_loses_nothing_and_leaves_nothing_half(own: Server) -> None:
    own.stop()
    fresh = stored(own.path / "db").keys()
    own.start()
    record, rng = Record(), random.Random(SEED)
    admin = Asker(own.url, record)

    def make(kind: str, **body: Any) -> Row:
        status, told = admin.ask("POST", PLURALS[kind], {kind: body})
        assert status == 201, told
        row: Row = told[kind]
        return row

    outside = make("network", name="outside", **{"router:external": True})["id"]
    make("subnet", network_id=outside, ip_version=4, cidr="198.51.100.0/26")
    small = make("subnet", network_id=make("network", project_id=PROJECT)["id"], ip_version=4, cidr=SUBNET)
    assert admin.ask("PUT", f"quotas/{PROJECT}", {"quota": QUOTA})[0] == 200

    writers = [Writer(own.url, record, PROJECT, outside, small, SEED * 1000 + number) for number in range(CLIENTS)]
    for round in range(KILLS):
        end = threading.Event()
        with crowd(writers, end, patience=0.02):
            time.sleep(rng.uniform(LEAST, MOST))
            own.kill()
            # A second blow while it reads what the first one left.
            if round % 3 == 2:
                own.start()
                time.sleep(rng.uniform(0, LEAST))
                own.kill()
            end.set()
        own.start()
        admin.close()
        check(admin, writers, record)
        assert not record.faults, record.faults[:5]

    # All addresses that no port has can still be had, and not one more.
    found = listed(admin)
    left = free(small, found["port"])
    assert admin.ask("PUT", f"quotas/{PROJECT}", {"quota": {"port": -1}})[0] == 200
    body = {"port": {"network_id": small["network_id"], "fixed_ips": [{"subnet_id": small["id"]}]}}
    got = 0
    while (answer := admin.ask("POST", "ports", body))[0] == 201:
        got += 1
    assert (answer[0], answer[1]["NeutronError"]["type"]) == (409, "IpAddressGenerationFailure")
    assert got == left

    answers = record.answers
    print(f"{KILLS} kills, {answers.total()} answers: {dict(answers)}, {record.lost} without one")
    assert record.lost > KILLS
    assert sum(n for status, n in answers.items() if status not in REFUSED) > 20 * KILLS
    kept = Counter(kind for writer in writers for (kind, _), may in writer.promised.items() if may != [None])
    assert all(kept[kind] for kind in ("network", "port", "router", "security_group", "subnet")), kept

    own.stop()
    assert claims(stored(own.path / "db")) == (set(), set())
    own.start()
    admin.close()
    clear(admin, listed(admin))
    assert admin.ask("DELETE", f"quotas/{PROJECT}")[0] == 204
    admin.close()
    assert not record.faults, record.faults[:5]
    own.stop()
    assert stored(own.path / "db").keys() == fresh
