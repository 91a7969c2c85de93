"""The demo: it ends well, and leaves nothing when it is interrupted, wherever it is."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from crossway.errors import NotFound
from crossway.lab import demo, down, state, wire
from crossway.lab.demo import HTTP, MEMBERS, PING, SQL, Attempt, admitted, attempts

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
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [
        *wire.namespaces(name),
        *(m for m in mounts if f"/lab/{name}/" in m),
        *(str(p) for depth in ("", "*/") for p in Path("/sys/fs/cgroup").glob(f"{depth}cw-{name}-*")),
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
        ("blue.web1", "blue.vault", SQL, True),
    ],
)
def test_what_is_expected_follows_from_the_policy(
    source: str, target: str, service: demo.Service, expected: bool
) -> None:
    assert admitted(BY_NAME[source], BY_NAME[target], service) is expected


def test_the_tenants_have_the_same_addresses() -> None:
    assert BY_NAME["red.web1"].ips == BY_NAME["blue.web1"].ips == ("10.0.1.11", "fd00:1::11")
    assert {one.target for one in attempts() if one.source.tenant == "red"} == {
        None, BY_NAME["red.web1"], BY_NAME["red.web2"], BY_NAME["red.db1"]
    }  # fmt: skip


def test_an_answer_from_the_other_tenant_is_wrong() -> None:
    one = Attempt(
        BY_NAME["red.web1"], BY_NAME["red.web2"], "10.0.1.12", HTTP, True, reached=True, answered_by="red.web2"
    )
    assert one.right
    one.answered_by = "blue.web2"
    assert not one.right


def test_the_demo_ends_well_and_leaves_nothing() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "crossway.lab.demo"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as run:
        made: set[str] = set()
        watching = threading.Event()

        def watch() -> None:
            while not watching.wait(0.2):
                made.update(labs_of(run.pid))

        thread = threading.Thread(target=watch)
        thread.start()
        said, _ = run.communicate(timeout=240)
        watching.set()
        thread.join()
    assert run.returncode == 0, said
    assert "attempts ended as the policy says" in said
    assert "no ingress rule of group db admits tcp" in said
    assert len(made) == 1
    assert [r for name in made for r in remains(name)] == []


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
    finally:
        down(name)
    assert remains(name) == []


@pytest.mark.parametrize("seconds", [0.5, 1.0, 2.5, 4.0, 6.0, 8.0, 11.0])
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
