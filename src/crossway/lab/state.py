"""What a lab is made of, as kept on disk, so that any later command finds it.

RUN/lab/NAME/
├── state.json          what does not change while the lab is up
├── processes/LABEL     pid and start time: server, agent-h1, impair-h1 …
├── server/             database and log
└── h1/ …               run directory and log of a host's agent
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import msgspec

from crossway.errors import Conflict, Invalid, NotFound
from crossway.lab.process import Process

ROOT = Path("/run/crossway/lab")
MAX_HOSTS = 999

OUTSIDE = ("203.0.113.1/24", "2001:db8:ffff::1/64")  # the outside machine on the provider network
BEYOND = ("198.51.100.1/32", "2001:db8:eeee::1/128")  # an address of it that is not on the provider network
PHYSNET = "physnet1"
PORT = 9696  # of the API, on the control's underlay address


class HostState(msgspec.Struct, frozen=True):
    """One host: where it is and how it is reached."""

    name: str
    netns: str
    underlay: str
    run: str
    socket: str
    physnets: dict[str, str]


class State(msgspec.Struct, frozen=True):
    """One lab: what was asked for, and the names and addresses that follow from it."""

    name: str
    url: str  # of the API, for this machine
    underlay_url: str  # of the API, for the hosts
    underlay: int  # 4 or 6
    mtu: int
    hosts: list[HostState]
    owner: tuple[int, int] | None  # pid and start time of the program that will tear it down; None: it stays

    @property
    def run(self) -> Path:
        return run_of(self.name)

    @property
    def outside(self) -> str:
        return netns_of(self.name, "outside")

    @property
    def control(self) -> str:
        return netns_of(self.name, "control")

    @property
    def switch(self) -> str:
        return netns_of(self.name, "switch")

    def host(self, name: str) -> HostState:
        for host in self.hosts:
            if host.name == name:
                return host
        raise NotFound("host", f"{name} of lab {self.name} (it has {', '.join(h.name for h in self.hosts)})")

    def process(self, label: str) -> Path:
        return self.run / "processes" / label

    def save(self) -> None:
        path = self.run / "state.json"
        new = path.with_suffix(".new")
        new.write_bytes(msgspec.json.format(msgspec.json.encode(self)))
        new.rename(path)


def check_name(name: str) -> str:
    # No hyphen: "a" and "a-b" would share the beginning of their namespaces' names.
    if not re.fullmatch(r"[a-z][a-z0-9]{0,23}", name):
        raise Invalid(f"a lab's name is a letter and up to 23 letters and digits, all lower case, not {name!r}")
    return name


def run_of(name: str) -> Path:
    return ROOT / name


def netns_of(name: str, place: str) -> str:
    return f"cw-{name}-{place}"


def control_address(underlay: int) -> str:
    return "198.18.0.1" if underlay == 4 else "fd18::1"


def host_address(number: int, underlay: int) -> str:
    """Return the underlay address of the n-th host: 198.18.0.11 and fd18::11 for the first."""
    if underlay == 4:
        return str(IPv4Address("198.18.0.10") + number)
    return str(IPv6Address(f"fd18::{10 + number}"))


def prefix_length(underlay: int) -> int:
    return 16 if underlay == 4 else 64


def plan(
    name: str, hosts: int, uplinks: int | None, mtu: int, underlay: int, port: int, owner: Process | None
) -> State:
    """Return the lab that these wishes make, with every name and address in it."""
    check_name(name)
    if not 1 <= hosts <= MAX_HOSTS:
        raise Invalid(f"a lab has 1 to {MAX_HOSTS} hosts, not {hosts}")
    if underlay not in (4, 6):
        raise Invalid(f"the underlay is IPv4 or IPv6: 4 or 6, not {underlay}")
    if not 1400 <= mtu <= 9216:
        raise Invalid(f"the underlay's MTU is 1400 to 9216, not {mtu}")
    with_uplink = hosts if uplinks is None else uplinks
    if not 0 <= with_uplink <= hosts:
        raise Invalid(f"of {hosts} hosts, {uplinks} cannot have an uplink")
    run = run_of(name)
    control = control_address(underlay)
    return State(
        name=name,
        url=f"http://127.0.0.1:{port}",
        underlay_url=f"http://{control if underlay == 4 else f'[{control}]'}:{PORT}",
        underlay=underlay,
        mtu=mtu,
        hosts=[
            HostState(
                name=f"h{n}",
                netns=netns_of(name, f"h{n}"),
                underlay=host_address(n, underlay),
                run=str(run / f"h{n}"),
                socket=str(run / f"h{n}" / "agent.sock"),
                physnets={PHYSNET: "up0"} if n <= with_uplink else {},
            )
            for n in range(1, hosts + 1)
        ],
        owner=(owner.pid, owner.start) if owner else None,
    )


def claim(state: State) -> None:
    """Take the name of a lab for this one, and make its directories."""
    try:
        state.run.mkdir(parents=True)
    except FileExistsError:
        raise Conflict(f"lab {state.name} is there already: end it with `crossway lab down {state.name}`") from None
    state.save()
    for directory in ("processes", "server", *(h.name for h in state.hosts)):
        (state.run / directory).mkdir()


def load(name: str) -> State:
    try:
        text = (run_of(check_name(name)) / "state.json").read_bytes()
    except FileNotFoundError:
        up = ", ".join(names()) or "none"
        raise NotFound("lab", f"{name} (up: {up})") from None
    return msgspec.json.decode(text, type=State)


def names() -> list[str]:
    """Return the names of all labs of this machine, half-built ones as well."""
    if not ROOT.is_dir():
        return []
    return sorted(entry for entry in os.listdir(ROOT) if (ROOT / entry).is_dir())


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold what is done to one lab apart from what else is done to it."""
    ROOT.mkdir(parents=True, exist_ok=True)
    path = ROOT / f".{name}.lock"
    while True:
        file = path.open("w")
        fcntl.flock(file, fcntl.LOCK_EX)
        # Whoever held it before may have removed the file: then this lock holds nobody off.
        if path.exists() and os.fstat(file.fileno()).st_ino == path.stat().st_ino:
            break
        file.close()
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()


def forget(name: str) -> None:
    """Remove a lab's files."""
    shutil.rmtree(run_of(name), ignore_errors=False)
