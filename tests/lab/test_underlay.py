"""The lab itself: links that carry, that are cut, that are impaired; and nothing left behind."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from crossway.errors import Conflict, NotFound
from crossway.lab import Lab, down, state, wire
from crossway.lab.impair import Impairment
from crossway.lab.place import NETNS
from crossway.lab.traffic import SO_RCVBUFFORCE, family_of, open_in


def of_machine() -> tuple[set[str], set[str], set[str]]:
    """Return the machine's own links, and the names of all namespaces and mounts of labs."""
    links = {name for _, name in socket.if_nameindex()}
    spaces = {p.name for p in NETNS.iterdir()} if NETNS.is_dir() else set()
    mounts = {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    return links, spaces, mounts


def left_of(name: str) -> list[str]:
    _, spaces, mounts = of_machine()
    spaces = {n for n in spaces if n.startswith(f"cw-{name}-")}
    mounts = {m for m in mounts if m.startswith(str(state.run_of(name)))}
    files = [str(state.run_of(name))] if state.run_of(name).exists() else []
    processes = [
        pid for pid in os.listdir("/proc") if pid.isdigit() and f"/lab/{name}/" in _command(pid) and pid != os.getpid()
    ]
    return sorted(spaces) + sorted(mounts) + files + processes


def _command(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


@pytest.fixture(params=[4, 6], ids=["ipv4", "ipv6"])
def cables(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A lab of namespaces and links alone: no server, no agents."""
    name = f"t{secrets.token_hex(4)}"
    made = state.plan(name, 2, 1, 9000, request.param, 20000, None)
    state.claim(made)
    try:
        wire.make(made)
        lab = Lab(made)
        yield lab
        lab.close()
    finally:
        down(name)
    assert left_of(name) == []


def ping(lab: Lab, *options: str) -> str:
    one, two = lab.hosts
    return one.exec("ping", "-q", *options, two.underlay, check=False, seconds=30).stdout


def received(said: str) -> int:
    return int(re.findall(r"(\d+) received", said)[0])


def average(said: str) -> float:
    return float(re.findall(r"= [\d.]+/([\d.]+)/", said)[0])


def test_hosts_reach_each_other_with_whole_packets_of_the_mtu(cables: Lab) -> None:
    header = 28 if cables.state.underlay == 4 else 48
    assert received(ping(cables, "-c1", "-W1", "-Mdo", f"-s{9000 - header}")) == 1
    assert received(ping(cables, "-c1", "-W1", "-Mdo", f"-s{9001 - header}")) == 0


def test_a_cut_link_carries_nothing_until_it_is_healed(cables: Lab) -> None:
    cables.cut("h1:under0")
    assert wire.cuts(cables.state) == ["h1:under0"]
    assert received(ping(cables, "-c2", "-i0.1", "-W1")) == 0
    cables.heal("h1")
    assert wire.cuts(cables.state) == []
    assert received(ping(cables, "-c2", "-i0.1", "-W1")) == 2


def test_an_impaired_link_delays_each_way(cables: Lab) -> None:
    cables.impair("h1", Impairment(delay=0.02))
    ping(cables, "-c1")
    assert 40 <= average(ping(cables, "-c10", "-i0.01")) < 60
    cables.clear("h1")
    assert average(ping(cables, "-c10", "-i0.01")) < 5


def numbered(lab: Lab, count: int) -> list[int]:
    """Send numbered datagrams from the first host to the second, one a millisecond; return what came, as it came."""
    one, two = lab.hosts
    family = family_of(two.underlay)
    came = []
    with open_in(one.path, family, socket.SOCK_DGRAM) as sender, open_in(two.path, family, socket.SOCK_DGRAM) as taker:
        taker.bind((two.underlay, 7000))
        taker.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 22)
        taker.settimeout(1.0)
        for number in range(count):
            sender.sendto(number.to_bytes(4, "big"), (two.underlay, 7000))
            time.sleep(0.001)
        with contextlib.suppress(TimeoutError):
            while len(came) < count:
                came.append(int.from_bytes(taker.recv(64), "big"))
    return came


def test_an_impaired_link_loses_its_share_and_keeps_the_order_of_the_rest(cables: Lab) -> None:
    # Known beforehand, the neighbour need not be asked for through a link that loses the question.
    assert received(ping(cables, "-c1")) == 1
    cables.impair("h2", Impairment(loss=0.3, delay=0.001, jitter=0.001), seed=1)
    came = numbered(cables, 500)
    assert 300 < len(came) < 400
    assert came == sorted(came)
    cables.clear("h2")
    assert len(numbered(cables, 100)) == 100


def test_an_impaired_link_reorders_and_loses_nothing(cables: Lab) -> None:
    cables.impair("h1", Impairment(reorder=0.1), seed=1)
    came = numbered(cables, 500)
    assert sorted(came) == list(range(500))
    assert sum(later < earlier for earlier, later in pairwise(came)) >= 20


def test_an_impairment_that_was_killed_can_be_cleared(cables: Lab) -> None:
    cables.impair("h1", Impairment(delay=0.01))
    record = cables.state.process("impair-h1-under0").read_text().split()
    os.kill(int(record[0]), signal.SIGKILL)
    cables.clear("h1")
    assert received(ping(cables, "-c2", "-i0.1", "-W1")) == 2


def test_the_outside_is_on_the_provider_network(cables: Lab) -> None:
    one = cables.hosts[0]
    one.exec("ip", "address", "add", "203.0.113.11/24", "dev", "up0")
    assert "1 received" in one.exec("ping", "-c1", "-W2", "203.0.113.1").stdout


def test_a_workloads_namespace_goes_with_the_lab_and_what_runs_in_it_too(cables: Lab) -> None:
    place = cables.namespace("w1")
    with pytest.raises(Conflict, match="has a place w1 already"):
        cables.namespace("w1")
    with place.popen("sleep", "60") as sleeper:
        down(cables.name)
        assert sleeper.wait(5) < 0
    assert left_of(cables.name) == []


def test_down_twice_and_of_nothing_is_no_fault(cables: Lab) -> None:
    down(cables.name)
    down(cables.name)
    down("nosuchlab")
    with pytest.raises(NotFound):
        Lab.open(cables.name)


def test_a_half_built_lab_goes_as_well() -> None:
    name = f"t{secrets.token_hex(4)}"
    made = state.plan(name, 2, 1, 1500, 4, 20000, None)
    state.claim(made)
    subprocess.run(["ip", "netns", "add", made.switch], check=True)
    (made.run / "state.json").unlink()
    down(name)
    assert left_of(name) == []


def test_a_name_is_given_once(cables: Lab) -> None:
    with pytest.raises(Conflict, match=f"crossway lab down {cables.name}"):
        Lab.up(cables.name, hosts=1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=["Ctrl-C", "term", "hang-up"])
@pytest.mark.parametrize("after", [0.25, 0.6])
def test_a_signal_during_up_leaves_nothing(number: int, after: float) -> None:
    name = f"t{secrets.token_hex(4)}"
    before = of_machine()[0]
    with subprocess.Popen(
        [sys.executable, "-m", "crossway", "lab", "up", name, "--hosts", "2"], stderr=subprocess.DEVNULL
    ) as run:
        try:
            run.wait(after)
        except subprocess.TimeoutExpired:
            run.send_signal(number)
        ended = run.wait(30)
    if ended == 0:
        # It was quicker than the signal.
        down(name)
    assert left_of(name) == []
    assert of_machine()[0] == before
