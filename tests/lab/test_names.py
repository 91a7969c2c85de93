"""Names of containers: known on every host of their network, and to nobody else."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from crossway.lab import Lab
from crossway.lab.docker import Engine, engine
from lab.stories import dual, open_group, wait_for
from lab.test_docker import Engines, address, attached, create

NULL = ("--ipam-driver", "null")


@pytest.fixture(scope="module")
def engines() -> Iterator[tuple[Lab, Engines]]:
    with Lab.up(hosts=2) as lab, ExitStack() as stack:
        open_group(lab)
        for prefix, name in enumerate(("blue", "red"), 1):
            dual(lab, name, prefix)
        made = [stack.enter_context(engine(host)) for host in lab.hosts]
        for each in made:
            for name in ("blue", "red"):
                create(each, name, *NULL, "-o", f"network={name}", "-o", "groups=open")
        yield lab, made


@pytest.fixture(autouse=True)
def _cleared(engines: tuple[Lab, Engines]) -> Iterator[None]:
    yield
    for each in engines[1]:
        each.clear()
    assert wait_for(lambda: attached(engines[0]) == [])


def resolved(each: Engine, container: str, name: str) -> set[str]:
    """Return what a name is resolved to in a container."""
    said = each.docker("exec", container, "timeout", "5", "nslookup", name, check=False)
    answers = said.partition("Name:")[2].splitlines()
    return {line.partition(" ")[2] for line in answers if line.startswith("Address:")}


def knows(each: Engine, container: str, name: str, *of: tuple[Engine, str], network: str = "blue") -> bool:
    """Return whether a name is, soon, that of these containers and of no others."""
    wanted = {address(at, who, network, key) for at, who in of for key in ("IPAddress", "GlobalIPv6Address")}
    return bool(wait_for(lambda: resolved(each, container, name) == wanted, 5))


def test_names_across_hosts_both_ways(engines: tuple[Lab, Engines]) -> None:
    _, (one, two) = engines
    one.run("blue", "aa")
    two.run("blue", "bb", "--hostname", "bravo", "--network-alias", "db.internal")
    assert knows(one, "aa", "bb", (two, "bb"))
    assert knows(two, "bb", "aa", (one, "aa"))
    short = two.docker("inspect", "--format", "{{.Id}}", "bb")[:12]
    for name in ("BB", "bravo", "db.internal", short):
        assert knows(one, "aa", name, (two, "bb")), name
    assert "1 packets received" in one.docker("exec", "aa", "ping", "-c1", "-W2", "bb")
    back = one.docker("exec", "aa", "nslookup", address(two, "bb", "blue"))
    assert "name = bb" in back
    # Where the host's name server is one that only the host can ask, an engine is told of this one.
    one.run("blue", "told", "--dns", "169.254.169.254")
    assert knows(one, "told", "bb", (two, "bb"))
    # A name that nobody has is soon known to be none.
    assert resolved(one, "aa", "nobody") == set()


def test_a_container_of_another_network_is_told_nothing(engines: tuple[Lab, Engines]) -> None:
    _, (one, two) = engines
    one.run("red", "stranger")
    one.run("blue", "aa")
    two.run("blue", "bb")
    two.run("red", "rr")
    assert knows(one, "aa", "bb", (two, "bb"))
    assert knows(one, "stranger", "rr", (two, "rr"), network="red")
    for name in ("bb", "aa", address(two, "bb", "blue")):
        assert resolved(one, "stranger", name) == set()
        assert "name = " not in one.docker("exec", "stranger", "nslookup", name, check=False)
    assert resolved(one, "aa", "rr") == set()


def test_services_have_the_addresses_of_all_their_containers(engines: tuple[Lab, Engines]) -> None:
    """As compose calls them: each container by its own name, all by that of their service."""
    _, (one, two) = engines
    one.run("blue", "client")
    for n in (1, 2):
        two.run("blue", f"app-web-{n}", "--network-alias", "web", "--label", "com.docker.compose.service=web")
    assert knows(one, "client", "web", (two, "app-web-1"), (two, "app-web-2"))
    assert knows(one, "client", "app-web-2", (two, "app-web-2"))
    first = {one.docker("exec", "client", "nslookup", "-type=a", "web").split("Address: ")[1].split()[0]
             for _ in range(20)}  # fmt: skip
    assert len(first) == 2, "they take turns"
    two.docker("stop", "-t0", "app-web-1")
    assert knows(one, "client", "web", (two, "app-web-2"))


def test_names_follow_their_containers(engines: tuple[Lab, Engines]) -> None:
    _, (one, two) = engines
    one.run("blue", "aa")
    two.run("blue", "bb")
    assert knows(one, "aa", "bb", (two, "bb"))
    two.docker("rename", "bb", "new")
    assert knows(one, "aa", "new", (two, "new"))
    assert resolved(one, "aa", "bb") == set()
    # Started again it has another endpoint, and perhaps another address.
    two.docker("restart", "-t0", "new")
    assert knows(one, "aa", "new", (two, "new"))
    two.docker("rm", "-f", "new")
    assert wait_for(lambda: resolved(one, "aa", "new") == set(), 5)


def test_who_is_on_two_networks_knows_the_names_of_both(engines: tuple[Lab, Engines]) -> None:
    _, (one, two) = engines
    one.run("blue", "both")
    two.run("blue", "bb")
    two.run("red", "rr")
    assert knows(one, "both", "bb", (two, "bb"))
    assert resolved(one, "both", "rr") == set()
    one.docker("network", "connect", "--alias", "middle", "red", "both")
    assert knows(one, "both", "rr", (two, "rr"), network="red")
    assert knows(one, "both", "bb", (two, "bb"))
    # Each network knows it by its address there, and by what it is called there.
    assert knows(two, "rr", "both", (one, "both"), network="red")
    assert knows(two, "rr", "middle", (one, "both"), network="red")
    assert knows(two, "bb", "both", (one, "both"))
    assert resolved(two, "bb", "middle") == set()
    one.docker("network", "disconnect", "red", "both")
    assert wait_for(lambda: resolved(one, "both", "rr") == set(), 5)
    assert wait_for(lambda: resolved(two, "rr", "both") == set(), 5)
    assert knows(one, "both", "bb", (two, "bb"))
    # Its first network may be left as well, and joined again.
    one.docker("network", "disconnect", "blue", "both")
    assert wait_for(lambda: resolved(two, "bb", "both") == set(), 5)
    one.docker("network", "connect", "blue", "both")
    assert knows(two, "bb", "both", (one, "both"))
    assert knows(one, "both", "bb", (two, "bb"))


def test_groups_by_label(engines: tuple[Lab, Engines]) -> None:
    lab, (one, _) = engines
    closed = lab.client.create("security_group", name="closed")
    one.run("blue", "aa")
    one.run("blue", "bb", "--label", "crossway.groups=closed")
    one.docker(
        *("run", "-d", "--label", "crossway.groups=closed", "--network", "name=blue,driver-opt=groups=open"),
        *("--name", "cc", "lab", "sleep", "600"),
    )
    one.run("blue", "dd", "--label", "crossway.groups=nowhere")
    groups = {p["name"]: p["security_groups"] for p in attached(lab)}

    def of(name: str) -> list[str]:
        return next(p["security_groups"] for p in attached(lab) if p["name"] == name)

    assert wait_for(lambda: {p["name"] for p in attached(lab)} == {"aa", "bb", "cc", "dd"}, 5), groups
    assert wait_for(lambda: of("bb") == [closed["id"]], 5)
    assert of("cc") == of("dd") == of("aa") != [closed["id"]]


def test_without_a_gateway_names_are_found_all_the_same(engines: tuple[Lab, Engines]) -> None:
    lab, (one, two) = engines
    for n in (1, 2):
        network = lab.client.create("network", name=f"alone{n}")
        lab.client.create("subnet", network_id=network["id"], ip_version=4, cidr=f"10.3{n}.0.0/24", gateway_ip=None)
        for each in (one, two):
            create(each, f"alone{n}", *NULL, "-o", f"network=alone{n}", "-o", "groups=open")
    one.run("alone1", "aa")
    two.run("alone1", "bb")
    two.run("alone2", "cc")
    assert wait_for(lambda: resolved(one, "aa", "bb") == {address(two, "bb", "alone1")}, 5)
    # An engine fails at a route that the container has already, which also a restarted agent must know.
    one.host.agent.restart()
    one.docker("network", "connect", "alone2", "aa")
    assert wait_for(lambda: resolved(one, "aa", "cc") == {address(two, "cc", "alone2")}, 5)
    one.docker("restart", "-t0", "aa")
    for name, network in (("bb", "alone1"), ("cc", "alone2")):
        wanted = {address(two, name, network)}
        assert wait_for(lambda name=name, wanted=wanted: resolved(one, "aa", name) == wanted, 5), name
    for each in (one, two):
        each.clear()
        each.docker("network", "rm", "alone1", "alone2")


def test_what_is_killed_loses_no_name(engines: tuple[Lab, Engines]) -> None:
    """Engine, agent and server: those who live go on, and know all when it is back."""
    lab, (one, two) = engines
    one.run("blue", "aa")
    two.run("blue", "bb", "--network-alias", "db")
    place = one.place("aa")
    assert knows(one, "aa", "db", (two, "bb"))
    wanted = resolved(one, "aa", "db")

    # Where no server is, what is known is told.
    lab.server.kill()
    assert resolved(one, "aa", "db") == wanted
    one.host.agent.kill()
    assert resolved(one, "aa", "db") == set()
    # An agent that begins without a server knows nothing; with one, all.
    one.host.agent.start()
    lab.server.start()
    assert wait_for(lambda: resolved(one, "aa", "db") == wanted, 15)

    # What happened while the agent was away it hears from the engine.
    two.host.agent.kill()
    two.docker("rename", "bb", "new")
    two.host.agent.start()
    assert wait_for(lambda: resolved(one, "aa", "new") == wanted, 10)

    # The engine with which it runs ends: its container stays, with its names.
    two.kill()
    assert resolved(one, "aa", "new") == wanted
    two.host.agent.kill()
    two.host.agent.start()
    assert wait_for(lambda: resolved(one, "aa", "new") == wanted, 10)
    two.start()
    assert resolved(one, "aa", "new") == wanted
    two.run("blue", "later")
    assert knows(one, "aa", "later", (two, "later"))
    assert resolved(one, "aa", "new") == wanted
    # An engine that was killed does not know the names of what it finds alive: the agent does.
    assert wait_for(lambda: resolved(two, "later", "new") == wanted, 5)
    assert wait_for(lambda: resolved(two, "later", "db") == wanted, 5)
    assert place.path.exists()


def test_an_engine_that_cannot_be_asked_is_missed_and_no_more(engines: tuple[Lab, Engines]) -> None:
    _, (one, two) = engines
    agent = one.host.agent
    agent.restart()
    one.run("blue", "aa")
    two.run("blue", "bb")
    assert knows(two, "bb", "aa", (one, "aa"))
    agent.stop()
    away = one.socket.with_suffix(".away")
    one.socket.rename(away)
    try:
        agent.start()
        # It is not missed before it wants something.
        log = agent.log.read_text()
        assert not log.rpartition("connected to")[2].count("cannot be asked")
        asked = [
            "docker",
            "-H",
            f"unix://{away}",
            "run",
            "-d",
            "--network",
            "blue",
            "--name",
            "cc",
            "lab",
            "sleep",
            "600",
        ]
        subprocess.run(asked, check=True, capture_output=True)
        assert wait_for(lambda: "cannot be asked what its containers are called" in agent.log.read_text(), 5)
        assert "1 packets received" in two.docker("exec", "bb", "ping", "-c1", "-W2", "aa")
    finally:
        away.rename(one.socket)
    assert knows(two, "bb", "cc", (one, "cc"))
