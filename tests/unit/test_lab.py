"""What a lab decides before it does anything."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest

from crossway.errors import Invalid, NotFound, Unavailable
from crossway.lab import process, state, wire
from crossway.lab.impair import HOLD_SECONDS, Direction, Impairment, duration, names, share
from crossway.lab.process import Process, Ready


def plan(**wishes: object) -> state.State:
    asked = {"name": "x", "hosts": 3, "uplinks": None, "mtu": 1500, "underlay": 4, "port": 20000, "owner": None}
    return state.plan(**{**asked, **wishes})  # type: ignore[arg-type]


def test_names_and_addresses_follow_from_the_wish() -> None:
    made = plan(uplinks=1)
    assert [h.netns for h in made.hosts] == ["cw-x-h1", "cw-x-h2", "cw-x-h3"]
    assert [h.underlay for h in made.hosts] == ["198.18.0.11", "198.18.0.12", "198.18.0.13"]
    assert [h.physnets for h in made.hosts] == [{"physnet1": "up0"}, {}, {}]
    assert (made.url, made.underlay_url) == ("http://127.0.0.1:20000", "http://198.18.0.1:9696")


def test_an_ipv6_underlay_has_ipv6_addresses_only() -> None:
    made = plan(underlay=6)
    assert [h.underlay for h in made.hosts] == ["fd18::11", "fd18::12", "fd18::13"]
    assert made.underlay_url == "http://[fd18::1]:9696"


@pytest.mark.parametrize("underlay", [4, 6])
def test_every_host_has_its_own_address_and_no_name_is_too_long(underlay: int) -> None:
    made = plan(hosts=state.MAX_HOSTS, underlay=underlay, name="x" * 24)
    assert len({h.underlay for h in made.hosts}) == state.MAX_HOSTS
    ends = [end for host in made.hosts for end in wire.ends(made, host.name)]
    links = [name for end in ends for name in (end, *names(end))]
    assert len(set(links)) == len(links)
    assert max(map(len, links)) <= 15
    assert max(len(h.socket) for h in made.hosts) <= 107


@pytest.mark.parametrize(
    ("wishes", "why"),
    [
        ({"name": "a-b"}, "letters and digits"),
        ({"name": ""}, "letters and digits"),
        ({"hosts": 0}, "1 to 999 hosts"),
        ({"uplinks": 4}, "of 3 hosts, 4 cannot"),
        ({"underlay": 5}, "4 or 6"),
        ({"mtu": 100}, "1400 to 9216"),
    ],
)
def test_a_wish_that_cannot_be_is_refused(wishes: dict[str, object], why: str) -> None:
    with pytest.raises(Invalid, match=why):
        plan(**wishes)


def test_links_are_named_by_place_or_one_by_one() -> None:
    made = plan(uplinks=1)
    assert wire.ends(made, "h1") == ["h1-under0", "h1-up0"]
    assert wire.ends(made, "h2") == ["h2-under0"]
    assert wire.ends(made, "h1:up0") == ["h1-up0"]
    with pytest.raises(Invalid, match="h2 has no link up0"):
        wire.ends(made, "h2:up0")
    with pytest.raises(NotFound, match="h9 of lab x"):
        wire.ends(made, "h9")


@pytest.mark.parametrize(("text", "value"), [("1%", 0.01), ("0.5%", 0.005), ("100 %", 1.0)])
def test_shares_are_percentages(text: str, value: float) -> None:
    assert share(text) == pytest.approx(value)


@pytest.mark.parametrize(("text", "value"), [("20ms", 0.02), ("300us", 0.0003), ("1.5s", 1.5)])
def test_times_have_units(text: str, value: float) -> None:
    assert duration(text) == pytest.approx(value)


@pytest.mark.parametrize("read", [share, duration])
def test_a_number_without_a_unit_is_refused(read: object) -> None:
    with pytest.raises(Invalid, match="write it as"):
        read("20")  # type: ignore[operator]


def fates(what: Impairment, count: int = 10_000, gap: float = 0.001) -> list[float | None]:
    way = Direction(what, random.Random(1))
    return [way.departure(n * gap) for n in range(count)]


def test_loss_takes_its_share() -> None:
    assert fates(Impairment(loss=0.01)).count(None) == pytest.approx(100, abs=30)


def test_delay_is_the_same_for_all() -> None:
    assert fates(Impairment(delay=0.02), 3) == pytest.approx([0.02, 0.021, 0.022])


def test_jitter_varies_but_does_not_reorder() -> None:
    left = [at for at in fates(Impairment(delay=0.02, jitter=0.005)) if at is not None]
    assert left == sorted(left)
    late = [at - n * 0.001 for n, at in enumerate(left)]
    assert min(late) < 0.021
    assert max(late) > 0.024


def test_reordered_packets_are_overtaken() -> None:
    left = [at for at in fates(Impairment(reorder=0.05)) if at is not None]
    held = [n for n, at in enumerate(left) if at - n * 0.001 >= HOLD_SECONDS * 0.99]
    assert len(held) == pytest.approx(500, abs=100)
    assert all(left[n + 1] < left[n] for n in held if n + 1 < len(left) and n + 1 not in held)


def test_a_process_is_known_by_number_and_start(tmp_path: Path) -> None:
    one = process.start(["sleep", "60"], log=tmp_path / "log")
    one.write(tmp_path / "one")
    assert Process.read(tmp_path / "one") == one
    other = Process(one.pid, one.start - 1)
    assert one.alive
    assert not other.alive
    process.stop([other])
    assert one.alive
    process.stop([one])
    assert not one.alive
    process.stop([one])


def test_a_process_that_dies_before_it_is_ready_is_told_with_its_last_words(tmp_path: Path) -> None:
    ready = Ready("agent-h1", tmp_path / "log")
    started = process.start(["sh", "-c", "echo no such device >&2; exit 3"], log=tmp_path / "log", keep=[ready.fd])
    ready.given()
    with pytest.raises(Unavailable, match="agent-h1 ended at once; its log says: no such device"):
        ready.wait(10)
    assert started.ended(5)


def test_a_file_that_is_no_record_names_no_process(tmp_path: Path) -> None:
    (tmp_path / "half").write_text("12")
    assert Process.read(tmp_path / "half") is None
    assert Process.read(tmp_path / "none") is None


def test_processes_of_a_namespace_are_found() -> None:
    here = process.within(Path("/proc/self/ns/net"), own=[os.getpid()])
    with subprocess.Popen(["sleep", "60"]) as child:
        now = process.within(Path("/proc/self/ns/net"), own=[os.getpid()])
        child.kill()
    assert child.pid in {p.pid for p in now} - {p.pid for p in here}
