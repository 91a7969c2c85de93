"""What an engine asks for and forgets: it is killed between two calls, and nobody ever says so."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from crossway.client import Object
from crossway.errors import Unavailable
from crossway.plugins.docker import GENERIC, IDLE_SECONDS, LOOK_SECONDS, Docker, far_name, labelled
from unit.plugins.agent import MAC, NETWORK, SUBNET, Agent


class Engine:
    """What an engine says, and the clock."""

    def __init__(self, agent: Agent, directory: Path) -> None:
        self.agent = agent
        self.docker = Docker(agent, directory)
        self.loop = asyncio.Runner()
        self.later(0)

    def answer(self, method: str, **asked: Any) -> Any:
        told = self.loop.run(self.docker.route(method)(msgspec.json.encode(asked), {}))
        self.loop.run(asyncio.sleep(0))  # what was begun meanwhile
        return told

    def say(self, method: str, **asked: Any) -> Any:
        told = self.answer(method, **asked)
        assert "Err" not in told, told
        return told

    def later(self, seconds: float) -> None:
        self.loop.run(self.docker.sweep(time.monotonic() + seconds))

    def end(self) -> None:
        self.loop.run(self.docker.close())
        self.loop.close()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = Engine(Agent(), tmp_path / "docker")
    made.say("NetworkDriver.CreateNetwork", NetworkID="n", Options={GENERIC: {"network": "blue"}})
    yield made
    made.end()


def begun(engine: Engine) -> None:
    engine.say("NetworkDriver.CreateEndpoint", NetworkID="n", EndpointID="e", Interface={})


def joined(engine: Engine) -> None:
    begun(engine)
    engine.say("NetworkDriver.Join", NetworkID="n", EndpointID="e", SandboxKey="/run/docker/netns/s")


def left(engine: Engine) -> None:
    joined(engine)
    engine.say("NetworkDriver.Leave", NetworkID="n", EndpointID="e")


def unanswered(engine: Engine) -> None:
    engine.agent.dying = True
    asked = b'{"NetworkID": "n", "EndpointID": "e", "Interface": {}}'
    assert "died" in engine.loop.run(engine.docker.route("NetworkDriver.CreateEndpoint")(asked, {}))["Err"]
    engine.agent.dying = False


def undeleted(engine: Engine) -> None:
    joined(engine)
    engine.agent.dying = True
    asked = b'{"NetworkID": "n", "EndpointID": "e"}'
    assert "died" in engine.loop.run(engine.docker.route("NetworkDriver.DeleteEndpoint")(asked, {}))["Err"]
    engine.agent.dying = False


def reserved(engine: Engine) -> None:
    engine.say("IpamDriver.RequestAddress", PoolID=SUBNET)


def kept(engine: Engine) -> None:
    ip = engine.say("IpamDriver.RequestAddress", PoolID=SUBNET)["Address"].split("/")[0]
    pool = {"Pool": "10.0.0.0/24", "AuxAddresses": {"printer": ip}}
    engine.say("NetworkDriver.CreateNetwork", NetworkID="m", Options={GENERIC: {"network": "blue"}}, IPv4Data=[pool])


@pytest.mark.parametrize(
    ("story", "stays"),
    [(begun, False), (joined, True), (left, False), (reserved, False), (kept, True)],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_what_an_engine_forgot_goes_after_a_while(engine: Engine, tmp_path: Path, story: Any, stays: bool) -> None:
    story(engine)
    engine.later(IDLE_SECONDS - 5)
    assert len(engine.agent.ports) == 1
    engine.later(IDLE_SECONDS + 5)
    assert len(engine.agent.ports) == (1 if stays else 0)


@pytest.mark.parametrize(
    ("story", "stays"),
    # The body that was made for one that has begun is found by the agent: see `Ways.sweep`.
    [
        (begun, True),
        (joined, True),
        (left, False),
        (reserved, False),
        (kept, True),
        (unanswered, False),
        (undeleted, False),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_an_agent_that_was_restarted_knows_what_an_engine_forgot(
    engine: Engine, tmp_path: Path, story: Any, stays: bool
) -> None:
    story(engine)
    again = Engine(engine.agent, tmp_path / "docker")
    again.later(IDLE_SECONDS + 5)
    again.end()
    assert len(engine.agent.ports) == (1 if stays else 0)


def test_an_endpoint_is_made_by_one_request_and_its_body_stands_before_it_is_joined(engine: Engine) -> None:
    begun(engine)
    engine.agent.asked.clear()
    engine.say("NetworkDriver.CreateEndpoint", NetworkID="n", EndpointID="f", Interface={})
    assert engine.agent.asked == ["POST /v2.0/ports"]
    assert engine.agent.bodies == engine.agent.ports.keys()
    engine.agent.asked.clear()
    told = engine.say("NetworkDriver.Join", NetworkID="n", EndpointID="f", SandboxKey="/run/docker/netns/s")
    port = next(p for p in engine.agent.ports.values() if p["device_id"] == "f")
    assert told["InterfaceName"]["SrcName"] == far_name(port["id"])
    assert engine.agent.asked.count("POST /v2.0/ports") == 0


def test_a_body_that_cannot_be_is_told_of_when_it_is_joined(engine: Engine) -> None:
    engine.agent.fault = Unavailable("no rows")
    begun(engine)
    told = engine.answer("NetworkDriver.Join", NetworkID="n", EndpointID="e", SandboxKey="/run/docker/netns/s")
    assert told["Err"] == "no rows"
    # As engines do then.
    engine.say("NetworkDriver.DeleteEndpoint", NetworkID="n", EndpointID="e")
    assert engine.agent.ports == {}


def test_a_body_that_has_gone_meanwhile_is_made_again(engine: Engine) -> None:
    begun(engine)
    engine.agent.bodies.clear()
    engine.say("NetworkDriver.Join", NetworkID="n", EndpointID="e", SandboxKey="/run/docker/netns/s")
    assert engine.agent.bodies == engine.agent.ports.keys()


def test_an_endpoint_that_is_never_joined_goes_with_its_body(engine: Engine) -> None:
    begun(engine)
    engine.say("NetworkDriver.DeleteEndpoint", NetworkID="n", EndpointID="e")
    assert engine.agent.ports == {}
    assert engine.agent.bodies == set()


def test_an_endpoint_that_is_asked_for_again_is_one_port(engine: Engine) -> None:
    begun(engine)
    joined(engine)
    assert len(engine.agent.ports) == 1
    assert engine.agent.bodies == engine.agent.ports.keys()


@pytest.mark.parametrize("story", [unanswered, undeleted])
def test_what_a_server_did_not_answer_goes_though_the_agent_lives_on(engine: Engine, story: Any) -> None:
    story(engine)
    for seconds in (LOOK_SECONDS + 1, IDLE_SECONDS + LOOK_SECONDS + 2):
        assert len(engine.agent.ports) == 1
        engine.later(seconds)
    assert engine.agent.ports == {}


def test_an_address_that_is_kept_is_given_back(engine: Engine) -> None:
    kept(engine)
    (port,) = engine.agent.ports.values()
    engine.say("IpamDriver.ReleaseAddress", PoolID=SUBNET, Address=port["fixed_ips"][0]["ip_address"])
    assert engine.agent.ports == {}


def test_an_address_that_was_given_is_at_no_time_free(engine: Engine) -> None:
    address = engine.say("IpamDriver.RequestAddress", PoolID=SUBNET)["Address"]
    (held,) = engine.agent.ports
    options = {"NetworkID": "n", "EndpointID": "e", "Interface": {"Address": address}}
    told = engine.say("NetworkDriver.CreateEndpoint", **options)
    assert told["Interface"] == {"MacAddress": MAC}
    (port,) = engine.agent.ports.values()
    assert (port["id"], port["device_id"], port["binding:host_id"]) == (held, "e", "h1")
    engine.say("IpamDriver.ReleaseAddress", PoolID=SUBNET, Address=address.split("/")[0])
    assert list(engine.agent.ports) == [held], "it is the endpoint's now"


@pytest.mark.parametrize("lives", [False, True], ids=["booted", "agent restarted"])
def test_after_a_boot_addresses_are_free_for_the_containers_that_had_them(
    engine: Engine, tmp_path: Path, lives: bool
) -> None:
    joined(engine)
    kept(engine)
    engine.say("NetworkDriver.CreateEndpoint", NetworkID="n", EndpointID="f", Interface={})
    if not lives:
        engine.agent.bodies.clear()
    engine.docker = Docker(engine.agent, tmp_path / "docker")
    for endpoint in "gh":
        engine.say("NetworkDriver.CreateEndpoint", NetworkID="n", EndpointID=endpoint, Interface={})
    there = {port["device_id"] for port in engine.agent.ports.values()}
    assert there == {"kept h1", "g", "h", *("ef" if lives else "")}


MTU, PREFIX = "com.docker.network.driver.mtu", "com.docker.network.container_iface_prefix"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({MTU: "1300"}, None),
        ({MTU: "1450"}, None),
        ({MTU: "1451"}, f"-o {MTU}=1451: network blue has an MTU of 1450"),
        ({MTU: "x"}, f"-o {MTU}=x is no number"),
        ({MTU: "67"}, f"-o {MTU}=67 is no number from 68"),
        ({PREFIX: "net"}, None),
        ({PREFIX: "a" * 12}, f"-o {PREFIX}={'a' * 12} is no beginning"),
        ({PREFIX: "a/b"}, f"-o {PREFIX}=a/b is no beginning"),
        ({PREFIX: ""}, f"-o {PREFIX}= is no beginning"),
        ({"com.docker.network.advertise_addr_nmsgs": "3"}, None),
        *(
            ({name: "x"}, f"-o {name} is not known")
            for name in ("com.docker.network.bridge.name", "com.docker.network.bridge.enable_icc",
                         "com.docker.network.driver.mtuu", "com.docker.network.host_ipv4", "com.example.what", "mtu")
        ),
    ],
    ids=str,
)  # fmt: skip
def test_an_option_of_a_network_is_served_or_refused(engine: Engine, options: dict[str, str], why: str | None) -> None:
    told = engine.answer(
        "NetworkDriver.CreateNetwork", NetworkID="m", Options={GENERIC: {"network": "blue", **options}}
    )
    if why is None:
        assert told == {}
    else:
        assert told["Err"].startswith(why)


def test_a_host_that_may_not_change_networks_gives_its_containers_the_mtu(engine: Engine) -> None:
    engine.docker._fresh[SUBNET] = [("network", NETWORK)]
    options = {GENERIC: {"network": "blue", MTU: "1300"}}
    engine.say("NetworkDriver.CreateNetwork", NetworkID="m", Options=options)
    assert f"PUT /v2.0/networks/{NETWORK}" in engine.agent.asked
    engine.say("NetworkDriver.CreateEndpoint", NetworkID="m", EndpointID="e", Interface={})
    assert [wish["mtu"] for wish in engine.agent.wishes] == [1300]


def test_a_networks_options_are_its_containers(engine: Engine) -> None:
    options = {GENERIC: {"network": "blue", MTU: "1300", PREFIX: "net"}}
    engine.say("NetworkDriver.CreateNetwork", NetworkID="m", Options=options)
    engine.say("NetworkDriver.CreateEndpoint", NetworkID="m", EndpointID="e", Interface={})
    told = engine.say("NetworkDriver.Join", NetworkID="m", EndpointID="e", SandboxKey="/run/docker/netns/s")
    assert told["InterfaceName"]["DstPrefix"] == "net"
    assert [wish["mtu"] for wish in engine.agent.wishes] == [1300]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        # As an engine says by itself, of whatever container.
        ({"com.docker.network.endpoint.exposedports": [], "com.docker.network.portmap": []}, None),
        ({"com.docker.network.endpoint.macaddress": "AkKsEQAC"}, None),
        ({"com.docker.network.endpoint.sysctls": "net.ipv4.conf.IFNAME.forwarding=1"}, None),
        ({"com.docker.network.endpoint.macaddress": "02:00:00:00:00:09"}, "driver-opt=com.docker.network.endpoint.mac"),
        ({"com.docker.network.endpoint.ifname": "net0"}, "driver-opt=com.docker.network.endpoint.ifname is not known"),
        ({"com.docker.network.driver.mtu": "1300"}, "driver-opt=com.docker.network.driver.mtu is not known"),
    ],
    ids=str,
)
def test_an_option_of_an_endpoint_is_served_or_refused(
    engine: Engine, options: dict[str, Any], why: str | None
) -> None:
    told = engine.answer("NetworkDriver.CreateEndpoint", NetworkID="n", EndpointID="e", Interface={}, Options=options)
    if why is None:
        assert "Err" not in told
    else:
        assert told["Err"].startswith(why)
        assert engine.agent.ports == {}


@pytest.mark.parametrize("how", ["--ip", "--aux-address", "driver-opt=ips="])
def test_no_container_takes_the_gateways_address(engine: Engine, how: str) -> None:
    if how == "driver-opt=ips=":
        options = {"ips": "10.0.0.9,10.0.0.1"}
        told = engine.answer("NetworkDriver.CreateEndpoint", NetworkID="n", EndpointID="e", Options=options)
    else:
        told = engine.answer("IpamDriver.RequestAddress", PoolID=SUBNET, Address="10.0.0.1")
    assert told["Err"].startswith("10.0.0.1 is the gateway of subnet 10.0.0.0/24")
    assert engine.agent.ports == {}
    gateway = {"RequestAddressType": "com.docker.network.gateway"}
    assert engine.say("IpamDriver.RequestAddress", PoolID=SUBNET, Options=gateway)["Address"] == "10.0.0.1/24"


@pytest.mark.parametrize(
    "method", ["NetworkDriver.CreateNetwork", "NetworkDriver.CreateEndpoint", "IpamDriver.RequestPool"]
)
def test_what_no_engine_says_is_answered(engine: Engine, method: str) -> None:
    asked = {"NetworkID": 7, "EndpointID": 7, "Options": 7}
    told = engine.loop.run(engine.docker.route(method)(msgspec.json.encode(asked), {}))
    assert method in told["Err"]


def test_a_connection_that_was_lost_is_a_fault_that_is_told(engine: Engine) -> None:
    told = engine.loop.run(engine.docker.route("IpamDriver.RequestPool")(b"", {}))
    assert told["Err"] == told["Error"]


# What containers are called.


def container(labels: Mapping[str, str] | None = None, **network: Any) -> Object:
    """Return what an engine says of a container with the endpoint e."""
    return {
        "Id": "c" * 64,
        "Name": "/web-1",
        "Config": {"Hostname": "host", "Labels": labels},
        "NetworkSettings": {"Networks": {"blue": {"EndpointID": "e", **network}, "bridge": {"EndpointID": ""}}},
    }


@pytest.mark.parametrize(
    ("network", "names"),
    [
        ({"Aliases": None}, ["web-1", "c" * 12, "host"]),
        ({"Aliases": ["web", "c" * 12]}, ["web-1", "web", "c" * 12, "host"]),
        # Docker 26 and newer.
        ({"Aliases": ["web"], "DNSNames": ["web-1", "web", "c" * 12, "host"]}, ["web-1", "web", "c" * 12, "host"]),
    ],
)
def test_a_port_is_called_what_its_container_is(engine: Engine, network: dict[str, Any], names: list[str]) -> None:
    joined(engine)
    (port,) = engine.agent.ports.values()
    port["binding:profile"]["sandbox"] = "s"
    engine.loop.run(engine.docker.learn(container(**network)))
    assert port["name"] == "web-1"
    assert port["binding:profile"] == {"names": names, "workload": "c" * 64, "sandbox": "s"}
    # Told again, it is nothing new.
    port["revision"] = 1
    engine.loop.run(engine.docker.learn(container(**network)))
    assert port["revision"] == 1


def test_a_port_is_renamed_with_its_container_unless_it_was_given_a_name(engine: Engine) -> None:
    joined(engine)
    (port,) = engine.agent.ports.values()
    for name in ("one", "two", "n" * 300, "three"):
        asyncio.run(engine.docker.learn({**container(), "Name": f"/{name}"}))
        assert port["name"] == name[:255]
    port["name"] = "printer"
    asyncio.run(engine.docker.learn({**container(), "Name": "/four"}))
    assert port["name"] == "printer"
    assert port["binding:profile"]["names"][0] == "four"


def test_a_container_without_a_port_here_and_one_that_says_nothing_are_passed_over(engine: Engine) -> None:
    joined(engine)
    (port,) = engine.agent.ports.values()
    before = dict(port)
    engine.loop.run(engine.docker.learn(container(EndpointID="other")))
    engine.loop.run(engine.docker.learn({"Id": "x", "Name": "/x", "NetworkSettings": None}))
    assert port == before


@pytest.mark.parametrize(
    ("labels", "options", "wanted"),
    [
        ({}, None, ()),
        (None, None, ()),
        ({"crossway.groups": "web, db"}, None, ("web", "db")),
        ({"crossway.groups": "web"}, {"ips": "10.0.0.5"}, ("web",)),
        ({"crossway.groups": "web"}, {"groups": "other"}, ()),
    ],
)
def test_a_label_says_the_groups_unless_the_network_was_given_with_some(
    labels: dict[str, str] | None, options: dict[str, str] | None, wanted: tuple[str, ...]
) -> None:
    told = container(labels, DriverOpts=options)
    assert labelled(told, told["NetworkSettings"]["Networks"]["blue"]) == wanted


# The addresses of containers that are started again.


class Starter:
    """An engine that says what it is told to."""

    def __init__(self) -> None:
        self.now: list[str] = []
        self.gone: list[str] = []

    async def starting(self, containers: Sequence[str]) -> tuple[list[str], list[str]]:
        return [id for id in containers if id in self.now], [id for id in containers if id in self.gone]


def stopped(engine: Engine, *names: str) -> dict[str, str]:
    """Have containers been there and stopped; return what addresses they had."""
    had = {}
    for name in names:
        engine.say("NetworkDriver.CreateEndpoint", NetworkID="n", EndpointID=name, Interface={})
        told = container(EndpointID=name)
        engine.loop.run(engine.docker.learn({**told, "Id": name}))
        (port,) = (p for p in engine.agent.ports.values() if p["device_id"] == name)
        had[name] = port["fixed_ips"][0]["ip_address"]
    for name in names:
        engine.say("NetworkDriver.DeleteEndpoint", NetworkID="n", EndpointID=name)
    assert engine.agent.ports == {}
    return had


def requested(engine: Engine, driver: str) -> str:
    if driver == "null":
        told = engine.say("NetworkDriver.CreateEndpoint", NetworkID="n", EndpointID="new", Interface={})
        return str(told["Interface"]["Address"]).split("/")[0]
    return str(engine.say("IpamDriver.RequestAddress", PoolID=SUBNET)["Address"]).split("/")[0]


@pytest.mark.parametrize("driver", ["crossway", "null"])
def test_a_container_that_is_started_again_has_what_it_had_and_a_new_one_has_not(engine: Engine, driver: str) -> None:
    starter = engine.docker.engine = Starter()
    had = stopped(engine, "a", "b", "c")
    assert requested(engine, driver) not in had.values()
    starter.now = ["b"]
    assert requested(engine, driver) == had["b"]
    assert requested(engine, driver) not in had.values(), "it was given once"
    starter.now, starter.gone = ["c", "a"], ["c"]
    assert requested(engine, driver) == had["a"]
    starter.now, starter.gone = ["c"], []
    assert requested(engine, driver) not in had.values(), "it was removed"


@pytest.mark.parametrize("driver", ["crossway", "null"])
def test_an_address_that_somebody_else_has_is_not_waited_for(engine: Engine, driver: str) -> None:
    starter = engine.docker.engine = Starter()
    had = stopped(engine, "a")
    starter.now = ["a"]
    engine.agent.taken.add(had["a"])
    assert requested(engine, driver) != had["a"]


def test_after_a_boot_containers_have_what_they_had(engine: Engine, tmp_path: Path) -> None:
    begun(engine)
    engine.loop.run(engine.docker.learn(container()))
    (port,) = engine.agent.ports.values()
    engine.agent.bodies.clear()
    engine.docker = Docker(engine.agent, tmp_path / "docker")
    starter = engine.docker.engine = Starter()
    starter.now = ["c" * 64]
    assert requested(engine, "crossway") == port["fixed_ips"][0]["ip_address"]
