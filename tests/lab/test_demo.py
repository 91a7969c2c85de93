"""The demo: it ends well, and leaves nothing when it is interrupted, wherever it is."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from crossway.errors import NotFound
from crossway.lab import docker, down, state, sweep, wire
from crossway.lab.demo.policy import HTTP, MEMBERS, PING, SQL, Attempt, Service, admitted, attempts

BY_NAME = {member.full: member for member in MEMBERS}


def labs_of(pid: int) -> set[str]:
    """Return the labs that a program has made."""
    found = set()
    for name in state.names():
        try:
            owner = state.load(name).owner
        except NotFound:
            continue
        if owner and owner[0] == pid:
            found.add(name)
    return found


def remains(name: str) -> list[str]:
    """Return all that a lab has left on the machine."""
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    marks = (f"/lab/{name}/", f"cw-{name}-")
    processes = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            command = (entry / "cmdline").read_bytes().decode(errors="replace") if entry.name.isdigit() else ""
            if any(mark in command for mark in marks):
                processes.append(command.replace("\0", " "))
    return [
        *wire.namespaces(name),
        *processes,
        *(m for m in mounts if any(mark in m for mark in marks)),
        *(str(p) for depth in ("", "*/") for p in Path("/sys/fs/cgroup").glob(f"{depth}cw-{name}-*")),
        *(str(p) for p in docker.ROOT.glob(f"cw-{name}-*")),
        *([str(state.run_of(name))] if state.run_of(name).exists() else []),
    ]


@pytest.mark.parametrize(
    ("source", "target", "service", "expected"),
    [
        ("red.web1", "red.db1", SQL, True),
        ("red.web1", "red.db1", HTTP, False),
        ("red.db1", "red.web1", HTTP, True),
        ("red.db1", "red.web1", PING, False),
        ("red.web1", "red.web2", PING, True),
        ("red.web1", "blue.vault", SQL, False),
        ("red.vm", "red.metal", HTTP, True),
        ("red.metal", "red.vm", SQL, False),
        ("blue.web1", "blue.vault", SQL, True),
    ],
)
def test_what_is_expected_follows_from_the_policy(source: str, target: str, service: Service, expected: bool) -> None:
    assert admitted(BY_NAME[source], BY_NAME[target], service) is expected


def test_the_tenants_have_the_same_addresses() -> None:
    assert BY_NAME["red.web1"].ips == BY_NAME["blue.web1"].ips == ("10.0.1.11", "fd00:1::ff:fe00:10b")
    assert {one.whose.full for one in attempts() if one.source.tenant == "blue"} == {
        "blue.web1", "blue.web2", "blue.db1", "blue.vault", "red.vm", "red.metal"
    }  # fmt: skip
    assert {one.target for one in attempts() if one.whose.tenant != one.source.tenant} == {None}


def test_one_network_of_a_tenant_has_all_three_bodies_and_an_engine_of_each_host() -> None:
    members = [member for member in MEMBERS if (member.tenant, member.tier) == ("red", "web")]
    assert {member.kind for member in members} == {"container", "guest", "server"}
    assert {member.host for member in members if member.kind == "container"} == {0, 1, 2}


def test_an_answer_from_the_other_tenant_is_wrong() -> None:
    web2 = BY_NAME["red.web2"]
    one = Attempt(BY_NAME["red.web1"], web2, web2, "10.0.1.12", HTTP, True, reached=True, answered_by="red.web2")
    assert one.right
    one.answered_by = "blue.web2"
    assert not one.right


def test_two_demos_side_by_side_end_well_do_not_meet_and_leave_nothing() -> None:
    command = [sys.executable, "-m", "crossway.lab.demo"]
    links = {name for _, name in socket.if_nameindex()}
    runs = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)
    ]  # fmt: skip
    made: list[set[str]] = [set(), set()]
    watching = threading.Event()

    def watch() -> None:
        while not watching.wait(0.2):
            for labs, run in zip(made, runs, strict=True):
                labs.update(labs_of(run.pid))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        with ThreadPoolExecutor(2) as pool:
            all_said = [said for said, _ in pool.map(lambda run: run.communicate(timeout=400), runs)]
    finally:
        watching.set()
        thread.join()
        for run in runs:
            run.terminate()  # nothing happens to one that has ended
            run.wait(60)
    for run, said in zip(runs, all_said, strict=True):
        assert run.returncode == 0, said
        assert "attempts ended as the policy says" in said
        assert "no ingress rule of group db admits tcp" in said
        assert "300 of 300 came, in order" in said
        assert "300 of 300 answered" in said
    assert [len(labs) for labs in made] == [1, 1]
    assert [r for labs in made for name in labs for r in remains(name)] == []
    assert {name for _, name in socket.if_nameindex()} == links


def test_what_the_kept_demo_says_to_try_next_works() -> None:
    name = f"t{secrets.token_hex(4)}"
    try:
        done = subprocess.run(
            [sys.executable, "-m", "crossway.lab.demo", "--keep", "--name", name],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        lines = [line.strip() for line in done.stdout.partition("Try:")[2].splitlines() if line.startswith("  ")]
        assert len(lines) > 5
        assert lines[-1].endswith(f"lab down {name}")
        tried = subprocess.run(["bash", "-e"], input="\n".join(lines), capture_output=True, text=True, check=False)
        assert tried.returncode == 0, tried.stdout + tried.stderr
        assert "0% packet loss" in tried.stdout
        assert "blue.db1" in tried.stdout
        assert "red.metal" in tried.stdout
    finally:
        down(name)
    assert remains(name) == []


@pytest.mark.parametrize("seconds", [0.5, 1.5, 3.0, 5.0, 8.0, 16.0])
def test_the_demo_interrupted_leaves_nothing(seconds: float) -> None:
    made: set[str] = set()
    with subprocess.Popen(
        [sys.executable, "-m", "crossway.lab.demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as run:
        try:
            run.wait(seconds)
        except subprocess.TimeoutExpired:
            made = labs_of(run.pid)
            # As the terminal does: to all in the foreground, what it has started as well.
            # Twice, as from an impatient hand.
            os.killpg(run.pid, signal.SIGINT)
            os.killpg(run.pid, signal.SIGINT)
        said, _ = run.communicate(timeout=60)
    assert run.returncode == 130, said
    assert [r for name in made for r in remains(name)] == []


def test_what_a_killed_demo_left_goes_with_the_next_lab() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "crossway.lab.demo"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as run:
        time.sleep(10)  # engines, containers and the guest are there
        made = labs_of(run.pid)
        run.kill()
    assert made
    assert [r for name in made for r in remains(name)]
    assert made <= set(sweep())
    assert [r for name in made for r in remains(name)] == []
