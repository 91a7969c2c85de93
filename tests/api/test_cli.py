"""The command line against a server: what it makes, what it shows, what it says when something is wrong."""

from __future__ import annotations

import io
import json
import os
import secrets
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from crossway.cli import app as cli
from crossway.cli.drops import flow
from crossway.cli.external import interface
from crossway.cli.group import ports
from crossway.cli.serve import physnets
from crossway.errors import Invalid
from servers import Server


class Crossway:
    """The commands, asked of one server."""

    def __init__(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CROSSWAY_SERVER", url)
        monkeypatch.delenv("CROSSWAY_LAB", raising=False)
        self._monkeypatch = monkeypatch

    def run(self, *words: str) -> tuple[int, str, str]:
        """Run a command as from a shell; return exit code, output and errors."""
        out, err = io.StringIO(), io.StringIO()
        self._monkeypatch.setattr(sys, "argv", ["crossway", *words])
        code = 0
        with redirect_stdout(out), redirect_stderr(err):
            try:
                cli.run()
            except SystemExit as end:
                code = int(end.code or 0)
        return code, out.getvalue(), err.getvalue()

    def ok(self, *words: str) -> str:
        code, out, err = self.run(*words)
        assert code == 0, err
        return out

    def json(self, *words: str) -> Any:
        return json.loads(self.ok(*words, "--json"))


@pytest.fixture
def crossway(shared: Server, monkeypatch: pytest.MonkeyPatch) -> Crossway:
    return Crossway(shared.url, monkeypatch)


@pytest.fixture
def name() -> str:
    return f"n{secrets.token_hex(4)}"


def test_a_network_with_all_that_goes_with_it(crossway: Crossway, name: str) -> None:
    network = crossway.json("network", "create", name, "--mtu", "1400")
    assert (network["name"], network["mtu"]) == (name, 1400)
    subnet = crossway.json("subnet", "create", f"{name}4", "--network", name, "--cidr", "10.0.0.0/24",
                           "--dns", "192.0.2.1", "--pool", "10.0.0.100-10.0.0.200")  # fmt: skip
    assert subnet["gateway_ip"] == "10.0.0.1"
    assert subnet["allocation_pools"] == [{"start": "10.0.0.100", "end": "10.0.0.200"}]
    six = crossway.json("subnet", "create", f"{name}6", "--network", name, "--cidr", "fd00::/64", "--gateway", "none")
    assert (six["ip_version"], six["gateway_ip"]) == (6, None)
    group = crossway.json("group", "create", name)
    rules = crossway.json("group", "allow", name, "tcp", "80")
    assert [r["ethertype"] for r in rules] == ["IPv4", "IPv6"]
    port = crossway.json("port", "create", name, "--network", name, "--group", name, "--ip", "10.0.0.7")
    assert [ip["ip_address"] for ip in port["fixed_ips"]] == ["10.0.0.7"]
    assert port["security_groups"] == [group["id"]]
    router = crossway.json("router", "create", name)
    crossway.ok("router", "add", name, f"{name}4")
    shown = crossway.json("router", "show", router["id"])
    assert [foot["addresses"][0]["ip_address"] for foot in shown["interfaces"]] == ["10.0.0.1"]
    crossway.ok("router", "set", name, "--route", "10.9.0.0/16=10.0.0.7")
    assert crossway.json("router", "show", name)["routes"] == [{"destination": "10.9.0.0/16", "nexthop": "10.0.0.7"}]
    crossway.ok("router", "set", name, "--no-routes")
    crossway.ok("router", "remove", name, f"{name}4")
    for kind in ("router", "port", "network", "group"):
        crossway.ok(kind, "delete", name)
    assert crossway.run("network", "show", name)[0] == 1


def test_what_is_set_is_shown(crossway: Crossway, name: str) -> None:
    crossway.ok("network", "create", name)
    crossway.ok("network", "set", name, "--name", f"{name}x", "--down")
    assert crossway.json("network", "show", f"{name}x")["admin_state_up"] is False
    crossway.ok("subnet", "create", name, "--network", f"{name}x", "--cidr", "10.0.0.0/24")
    crossway.ok("subnet", "set", name, "--dns", "192.0.2.9")
    assert crossway.json("subnet", "show", name)["dns_nameservers"] == ["192.0.2.9"]
    crossway.ok("port", "create", name, "--network", f"{name}x")
    crossway.ok("port", "set", name, "--pair", "10.0.0.99", "--down")
    port = crossway.json("port", "show", name)
    assert port["allowed_address_pairs"][0]["ip_address"] == "10.0.0.99"
    crossway.ok("port", "set", name, "--no-groups")
    assert crossway.json("port", "show", name)["security_groups"] == []
    crossway.ok("group", "create", name, "--stateless")
    crossway.ok("group", "set", name, "--description", "ours")
    group = crossway.json("group", "show", name)
    assert (group["stateful"], group["description"]) == (False, "ours")


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("tcp", "80"), {"protocol": "tcp", "port_range_min": 80, "port_range_max": 80, "direction": "ingress"}),
        (("udp", "8000-8010", "--out"), {"port_range_max": 8010, "direction": "egress"}),
        (("any", "--from", "10.0.0.0/8"), {"remote_ip_prefix": "10.0.0.0/8", "ethertype": "IPv4", "protocol": None}),
        (("tcp", "22", "--from", "fd00::/8"), {"remote_ip_prefix": "fd00::/8", "ethertype": "IPv6"}),
        (("icmp",), {"protocol": "icmp", "ethertype": "IPv4"}),
    ],
    ids=["a port", "a range out", "a prefix", "an IPv6 prefix", "icmp"],
)
def test_allow_makes_the_rule_that_it_says(
    crossway: Crossway, name: str, words: tuple[str, ...], wanted: dict[str, Any]
) -> None:
    crossway.ok("group", "create", name)
    rule = crossway.json("group", "allow", name, *words)[0]
    assert {key: rule[key] for key in wanted} == wanted
    crossway.ok("group", "forbid", rule["id"])
    assert rule["id"] not in {r["id"] for r in crossway.json("group", "show", name)["security_group_rules"]}


def test_a_rule_may_name_a_group_of_the_same_project(crossway: Crossway, name: str) -> None:
    for project in ("a", "b"):
        crossway.ok("group", "create", name, "--project", f"{name}{project}")
    (mine,) = crossway.json("group", "list", "--project", f"{name}a")[-1:]
    rules = crossway.json("group", "allow", mine["id"], "tcp", "80", "--from", name)
    assert {r["remote_group_id"] for r in rules} == {mine["id"]}


def test_tables_have_a_line_for_each_and_fold_nothing_when_piped(crossway: Crossway, name: str) -> None:
    network = crossway.json("network", "create", name)
    (line,) = [line for line in crossway.ok("network", "list").splitlines() if network["id"] in line]
    assert line.split()[:3] == [network["id"], name, network["project_id"]]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("network", "show", "nosuch"), 1, "network nosuch could not be found"),
        (("network", "create", "x", "--mtu", "9000"), 2, "mtu"),
        (("subnet", "create", "x", "--network", "nosuch", "--cidr", "10.0.0.0/24"), 1, "nosuch"),
        (("port", "plug", "x"), 2, "name one body"),
        (("port", "plug", "x", "--netns", "a", "--tap", "b"), 2, "name one body"),
        (("port", "plug", "x", "--netns", "a", "--host", "h1"), 2, "--lab"),
        (("group", "allow", "x", "tcp", "http"), 1, "x could not be found"),
        (("router", "add", "x"), 1, "x could not be found"),
        (("lab", "show", "nosuch"), 1, "nosuch"),
        (("lab", "up", "A-b"), 2, "lower case"),
        (("agent",), 2, "--underlay"),
        (("server", "--listen", "nowhere"), 2, "HOST:PORT"),
        (("network", "list", "--server", "localhost"), 2, "http://HOST:PORT"),
        (("network", "list", "--server", "http://127.0.0.1:9"), 1, "no answer from http://127.0.0.1:9"),
        (("status", "--lab", "nosuch"), 1, "nosuch"),
        (("network", "nosuch"), 2, "No such command"),
        (("network", "create"), 2, "Missing argument"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_with_an_exit_code(
    crossway: Crossway, words: tuple[str, ...], code: int, says: str
) -> None:
    ended, out, err = crossway.run(*words)
    assert (ended, out) == (code, ""), err
    assert says in err
    assert "Traceback" not in err
    if err.startswith("crossway:"):
        assert len(err.strip().splitlines()) == 1


def test_two_of_a_name_must_be_named_by_id(crossway: Crossway, name: str) -> None:
    ids = [crossway.json("network", "create", name)["id"] for _ in range(2)]
    code, _, err = crossway.run("network", "show", name)
    assert (code, all(id in err for id in ids)) == (1, True)
    assert crossway.json("network", "show", ids[0])["id"] == ids[0]


def commands(app: typer.Typer) -> list[list[str]]:
    """Return the words of every command."""
    found = [[c.name or c.callback.__name__] for c in app.registered_commands if c.callback]
    for group in app.registered_groups:
        assert group.typer_instance is not None
        found += [[str(group.name), *rest] for rest in commands(group.typer_instance)]
    return found


@pytest.mark.parametrize("words", commands(cli.app), ids=" ".join)
def test_every_command_and_option_has_help(words: list[str]) -> None:
    done = CliRunner().invoke(cli.app, [*words, "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert done.exit_code == 0
    command = typer.main.get_command(cli.app)
    for word in words:
        command = command.commands[word]  # type: ignore[attr-defined]
    assert command.help
    bare = [p.name for p in command.params if not getattr(p, "help", None) and not getattr(p, "hidden", False)]
    assert bare == []


def test_the_skeleton_is_there() -> None:
    there = {" ".join(words) for words in commands(cli.app)}
    wanted = {f"{k} {v}" for k in ("network", "subnet", "port", "router", "group")
              for v in ("list", "show", "create", "set", "delete")}  # fmt: skip
    wanted |= {"up", "server", "agent", "status", "drops", "host list", "port plug", "port unplug"}
    wanted |= {f"lab {v}" for v in ("up", "exec", "cut", "heal", "down", "list", "impair")}
    assert wanted <= there


@pytest.mark.parametrize(("words", "limit"), [(["--help"], 0.4), (["network", "list"], 0.5)], ids=["help", "an answer"])
def test_it_starts_fast(shared: Server, words: list[str], limit: float) -> None:
    def took() -> float:
        """Return the processor's time, which others who use the machine do not lengthen."""
        with subprocess.Popen(
            [sys.executable, "-m", "crossway", *words],
            env={**os.environ, "CROSSWAY_SERVER": shared.url},
            stdout=subprocess.DEVNULL,
        ) as run:
            _, status, used = os.wait4(run.pid, 0)
            run.returncode = os.waitstatus_to_exitcode(status)
        assert run.returncode == 0
        return used.ru_utime + used.ru_stime

    assert min(took() for _ in range(5)) < limit


def test_the_version_is_said(crossway: Crossway) -> None:
    assert crossway.ok("--version").startswith("crossway ")


@pytest.mark.parametrize("text", ["http", "80:90", "-1", ""])
def test_a_port_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        ports(text)


def test_physnets_are_pairs() -> None:
    assert physnets(["a=eth1", "b=eth2"]) == {"a": "eth1", "b": "eth2"}
    with pytest.raises(Invalid):
        physnets(["eth1"])


def test_an_external_address_is_a_host_of_a_network() -> None:
    assert str(interface("172.24.4.1/24").network) == "172.24.4.0/24"


@pytest.mark.parametrize(
    ("last", "text"),
    [
        ({"src": "10.0.0.2", "dst": "10.0.0.3", "proto": 6, "src_port": 4000, "dst_port": 80},
         "tcp 10.0.0.2:4000 → 10.0.0.3:80"),
        ({"src": "fd00::2", "dst": "fd00::3", "proto": 17, "src_port": 1, "dst_port": 2},
         "udp [fd00::2]:1 → [fd00::3]:2"),
        ({"src": "10.0.0.2", "dst": "10.0.0.3", "proto": 1}, "icmp 10.0.0.2 → 10.0.0.3"),
        ({"src": "10.0.0.2", "dst": "10.0.0.3", "proto": 0}, "arp 10.0.0.2 → 10.0.0.3"),
        ({}, ""),
    ],
)  # fmt: skip
def test_a_dropped_packet_is_told_in_one_line(last: dict[str, Any], text: str) -> None:
    assert flow(last) == text


def test_policy_is_a_table_of_who_may_do_what(crossway: Crossway) -> None:
    rows = {row["operation"]: row["who"] for row in crossway.json("policy")}
    assert rows["create_network"] == "admin or host of its project or member of its project"
    assert rows["create_network:shared"] == "admin"
    assert rows["create_policy_bandwidth_limit_rule"] == "admin or manager of its parent's project"
    assert "add_router_interface" in crossway.ok("policy", "router")
    assert {row["operation"].partition(":")[0] for row in crossway.json("policy", "service-providers")} == {
        "get_service_provider"
    }
    code, _, said = crossway.run("policy", "nothing")
    assert code == 1
    assert "there are network, subnet" in said
