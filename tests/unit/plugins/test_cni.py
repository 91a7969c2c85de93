"""What a runtime may send that nobody should: each is answered with a code, and nothing of it stays."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Mapping
from typing import Any

import pytest

from crossway.client import Object
from crossway.plugins.cni import Call, Cni
from unit.plugins.agent import MAC, Agent

CONF = {"cniVersion": "1.1.0", "name": "pods", "type": "crossway-cni", "network": "pods"}
CALL = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0", "CNI_NETNS": "/run/netns/c1"}


class Slow(Agent):
    """An agent that takes a moment for all that it is asked."""

    def __init__(self) -> None:
        super().__init__("pods")
        self.judged = True

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        await asyncio.sleep(0)
        return await super().ask(method, path, body)

    async def plug(self, wish: Mapping[str, Any]) -> Object:
        await asyncio.sleep(0.01)
        return await super().plug(wish)

    def body(self, port: str) -> Object | None:
        if port not in self.bodies:
            return None
        return {
            "netns": CALL["CNI_NETNS"], "mac": MAC, "addresses": ["10.0.0.9/24"], "lacking": [],
            "set_up": True, "up": self.judged, "judged": self.judged,
            "limits": {"in_rate": 0, "in_burst": 0, "out_rate": 0, "out_burst": 0},
        }  # fmt: skip


def raw(conf: Any = CONF, said: Mapping[str, str | bytes | None] | None = None) -> bytes:
    """Return a call as the executable writes it."""
    environment = {**CALL, **(said or {})}
    head = b"".join(
        f"{name}=".encode() + (value if isinstance(value, bytes) else value.encode()) + b"\0"
        for name, value in environment.items()
        if value is not None
    )
    return head + b"\0" + (conf if isinstance(conf, bytes) else json.dumps(conf).encode())


def ask(agent: Agent, *calls: bytes) -> list[Any]:
    async def all_of_them() -> list[Any]:
        cni = Cni(agent)
        answers = await asyncio.gather(*(cni.answer(call) for call in calls))
        assert cni._turns == {}
        return answers

    return asyncio.run(all_of_them())


WRONG: dict[str, tuple[bytes, int]] = {
    "nothing": (b"", 5),
    "no configuration": (b"CNI_COMMAND=ADD\0", 5),
    "no environment": (b"\0" + json.dumps(CONF).encode(), 4),
    "an environment that is no text": (raw(said={"CNI_ARGS": b"K8S_POD_NAME=\xff"}), 4),
    "a configuration that is none": (raw(b"{"), 6),
    "an empty configuration": (raw(b""), 6),
    "a configuration that is no text": (raw(b'{"name": "\xff"}'), 6),
    "zero bytes": (raw(b'{"cniVersion": "1.1.0"}\0\0'), 6),
    "a list": (raw([CONF]), 6),
    "a number": (raw(b"7"), 6),
    "deep": (raw(b"[" * 100_000), 6),
    "a number that is none": (raw(b'{"mtu": NaN}'), 6),
    "no version": (raw({"name": "pods"}), 1),
    "a version of another kind": (raw({**CONF, "cniVersion": {"of": 1}}), 1),
    "no command": (raw(said={"CNI_COMMAND": None}), 4),
    "no container": (raw(said={"CNI_CONTAINERID": ""}), 4),
    "a container that leaves its place": (raw(said={"CNI_CONTAINERID": "../c1"}), 4),
    "a container whose id is too long": (raw(said={"CNI_CONTAINERID": "c" * 256}), 4),
    "a container of two lines": (raw(said={"CNI_CONTAINERID": "c1\n"}), 4),
    "no interface": (raw(said={"CNI_IFNAME": None}), 4),
    "an interface's name too long": (raw(said={"CNI_IFNAME": "e" * 16}), 4),
    "16 bytes in 8 letters": (raw(said={"CNI_IFNAME": "é" * 8}), 4),
    "an interface with a number to come": (raw(said={"CNI_IFNAME": "eth%d"}), 4),
    "an interface with a colon": (raw(said={"CNI_IFNAME": "eth0:1"}), 4),
    "an interface of two words": (raw(said={"CNI_IFNAME": "eth 0"}), 4),
    "an interface that is a place": (raw(said={"CNI_IFNAME": ".."}), 4),
    "no namespace": (raw(said={"CNI_NETNS": None}), 4),
    "no name": (raw({**CONF, "name": ""}), 7),
    "a name that leaves its place": (raw({**CONF, "name": "../pods"}), 7),
    "a network of another kind": (raw({**CONF, "network": ["pods"]}), 7),
    "a project of another kind": (raw({**CONF, "project": 7}), 7),
    "groups of another kind": (raw({**CONF, "groups": {"a": 1}}), 7),
    "addresses of another kind": (raw({**CONF, "ips": [1]}), 7),
    "a gateway of another kind": (raw({**CONF, "isDefaultGateway": "no"}), 7),
    "names of another kind": (raw({**CONF, "dns": "9.9.9.9"}), 7),
    "name servers of another kind": (raw({**CONF, "dns": {"nameservers": "9.9.9.9"}}), 7),
    "a rate that no table holds": (
        raw({**CONF, "runtimeConfig": {"bandwidth": {"egressRate": 1 << 64, "egressBurst": 8}}}), 7,
    ),
    "arguments of another kind": (raw({**CONF, "args": {"cni": [1]}}), 7),
    "capabilities of another kind": (raw({**CONF, "runtimeConfig": [1]}), 7),
    "a published port of another kind": (raw({**CONF, "runtimeConfig": {"portMappings": [{"hostPort": "80"}]}}), 7),
    "an earlier result of another kind": (raw({**CONF, "prevResult": [1]}), 7),
    "earlier interfaces of another kind": (raw({**CONF, "prevResult": {"interfaces": {"a": 1}}}), 7),
    "an earlier interface of another kind": (raw({**CONF, "prevResult": {"interfaces": ["eth0"]}}), 7),
    "an earlier address that is none": (raw({**CONF, "prevResult": {"ips": [{"version": "4"}]}}), 7),
    "CHECK of nothing": (raw(said={"CNI_COMMAND": "CHECK"}), 7),
    "CHECK of what was never added": (raw({**CONF, "prevResult": {"ips": []}}, {"CNI_COMMAND": "CHECK"}), 101),
    "GC of nobody": (raw(said={"CNI_COMMAND": "GC"}), 7),
    "GC with an entry of another kind": (raw({**CONF, "cni.dev/valid-attachments": ["c1"]}, {"CNI_COMMAND": "GC"}), 7),
    "STATUS of an older version": (raw({**CONF, "cniVersion": "1.0.0"}, {"CNI_COMMAND": "STATUS"}), 1),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_nobody_should_send_has_a_code_and_leaves_nothing(case: str) -> None:
    agent = Slow()
    call, code = WRONG[case]
    (told,) = ask(agent, call)
    assert isinstance(told, dict), told
    assert (told["code"], agent.ports) == (code, {}), told
    assert told["msg"]
    assert told["cniVersion"] in ("1.0.0", "1.1.0")


def test_a_fault_is_of_the_version_that_was_asked_in() -> None:
    for version in ("0.4.0", "1.0.0"):
        (told,) = ask(Slow(), raw({**CONF, "cniVersion": version}, {"CNI_IFNAME": ""}))
        assert told["cniVersion"] == version


def test_check_of_an_agent_that_has_just_begun_is_to_be_tried_again() -> None:
    agent = Slow()
    (result,) = ask(agent, raw())
    check = raw({**CONF, "prevResult": result}, {"CNI_COMMAND": "CHECK"})
    assert ask(agent, check) == [None]
    agent.judged = False
    assert ask(agent, check)[0]["code"] == 11


def test_del_of_a_slow_add_comes_after_it() -> None:
    agent = Slow()
    added, deleted = ask(agent, raw(), raw(said={"CNI_COMMAND": "DEL"}))
    assert (added["ips"][0]["address"], deleted) == ("10.0.0.9/24", None)
    assert (agent.ports, agent.bodies) == ({}, set())


def test_add_twice_at_once_makes_one_port() -> None:
    agent = Slow()
    one, two = ask(agent, raw(), raw())
    assert one == two
    assert len(agent.ports) == 1


def test_del_is_done_whatever_else_the_configuration_says() -> None:
    agent = Slow()
    ask(agent, raw())
    broken = {**CONF, "network": None, "prevResult": [1], "groups": 7, "namespaces": 1, "dns": "x"}
    assert ask(agent, raw(broken, {"CNI_COMMAND": "DEL", "CNI_NETNS": None})) == [None]
    assert agent.ports == {}


def test_gc_of_a_runtime_that_has_none_takes_all() -> None:
    agent = Slow()
    ask(agent, raw())
    assert ask(agent, raw({**CONF, "cni.dev/valid-attachments": None}, {"CNI_COMMAND": "GC"})) == [None]
    assert agent.ports == {}


def test_a_pods_long_name_is_cut() -> None:
    agent = Slow()
    ask(agent, raw(said={"CNI_ARGS": f"K8S_POD_NAMESPACE=shop;K8S_POD_NAME={'n' * 253}"}))
    assert [port["name"] for port in agent.ports.values()] == ["shop/" + "n" * 250]


def test_what_earlier_plugins_said_is_kept() -> None:
    before = {
        "interfaces": [{"name": "net0"}], "ips": [{"address": "192.0.2.1/24", "interface": 0}],
        "routes": [{"dst": "192.0.2.0/24"}], "dns": {"domain": "x"},
    }  # fmt: skip
    (told,) = ask(Slow(), raw({**CONF, "prevResult": before}))
    assert told["interfaces"][0] == {"name": "net0"}
    assert [ip["interface"] for ip in told["ips"]] == [0, 2]
    assert (told["routes"][0], told["dns"]) == ({"dst": "192.0.2.0/24"}, {"domain": "x"})


def test_names_of_capabilities_are_as_any_runtime_writes_them() -> None:
    for fold in (str, str.lower, lambda name: name[0].upper() + name[1:]):
        bandwidth = {fold(name): 8000 for name in ("ingressRate", "ingressBurst")}
        mapping = {fold("hostPort"): 8080, fold("containerPort"): 80, fold("protocol"): "TCP", fold("hostIP"): ""}
        conf = {**CONF, "runtimeConfig": {"bandwidth": bandwidth, "portMappings": [mapping]}}
        call = Call(CALL, conf, "1.1.0")
        assert call.limits() == {"in_rate": 8000, "in_burst": 8000, "out_rate": 0, "out_burst": 0}
        assert call.mappings() == [{"proto": "tcp", "port": 80, "address": "", "at": 8080}]


def test_garbage_is_answered() -> None:
    """Calls with bytes that were changed at random: an answer to each, and no port without its answer."""
    chance = random.Random(1)
    whole = raw(
        {**CONF, "prevResult": {"ips": [{"address": "10.0.0.1/8"}]}, "runtimeConfig": {"mac": "02:00:00:00:00:01"}},
        {"CNI_ARGS": "K8S_POD_NAME=a;K8S_POD_NAMESPACE=b"},
    )
    for _ in range(2000):
        call = bytearray(whole)
        for _ in range(chance.randrange(1, 4)):
            at = chance.randrange(len(call))
            call[at : at + chance.choice((0, 1, 1, 1, 8))] = bytes(
                chance.choices(b'\0"{}[]:,;=%/x0\xff', k=chance.randrange(3))
            )
        agent = Slow()
        (told,) = ask(agent, bytes(call))
        assert isinstance(told, dict | None), call
        assert bool(agent.ports) == bool(told and "interfaces" in told), call
