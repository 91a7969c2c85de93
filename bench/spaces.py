"""Network namespaces of a run, with names that collide with nobody's; what runs in them; their end.

All links are made inside the namespaces that they join, never in the machine's own.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from crossway.lab.place import Place

TOOL = Path(__file__).parent / "tools" / "load.c"
BUILD = Path(__file__).parents[1] / "build" / "bench"
PORT, PORTS = 5200, 19  # of the serving end; see load.c
TRIES, DISTURBED = 3, 0.1  # of a measurement; cores that others may take meanwhile


def build_tool() -> Path:
    """Compile the measuring tool, unless that has been done; return it."""
    tool = BUILD / "load"
    BUILD.mkdir(parents=True, exist_ok=True)
    if not tool.exists() or tool.stat().st_mtime < TOOL.stat().st_mtime:
        fresh = tool.with_suffix(f".{os.getpid()}")
        flags = ("-O2", "-Wall", "-Wextra", "-Werror", "-pthread", "-D_GNU_SOURCE")
        subprocess.run(["clang", *flags, "-o", str(fresh), str(TOOL)], check=True)
        fresh.rename(tool)
    return tool


class Spaces:
    """The namespaces of one run; leaving the context removes them and ends what was started in them."""

    def __init__(self) -> None:
        self.token = f"cwbench-{secrets.token_hex(3)}"
        self.tool = build_tool()
        self.measured = self.disturbed = 0  # calm measurements that were asked for, and those that no try gave
        self._names: list[str] = []
        self._serving: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        for process in self._serving:
            process.kill()
        for process in self._serving:
            process.wait()
            if process.stdout:
                process.stdout.close()
        for name in self._names:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)

    def add(self, name: str) -> Place:
        """Make a namespace with a loopback and nothing else."""
        netns = f"{self.token}-{name}"
        self._names.append(netns)
        subprocess.run(["ip", "netns", "add", netns], check=True)
        place = Place(name, netns)
        # No packet of the kernel's own while a measurement runs, and no wait
        # for an address to be found unique.
        place.script(["link set lo up"], ["net/ipv6/conf/all/disable_ipv6=1", "net/ipv6/conf/default/disable_ipv6=1"])
        return place

    def serve(self, place: Place) -> None:
        """Start the serving end in a namespace; it ends with the run."""
        process = place.popen(str(self.tool), "serve", str(PORT))
        self._serving.append(process)
        told = process.stdout.readline() if process.stdout else ""
        if told != "ready\n":
            raise RuntimeError(f"the serving end in {place.name} did not start: {told}")

    def measure(self, place: Place, case: str, ip: str, seconds: float, *, calm: bool = True) -> float:
        """Run one measurement from a namespace; return its number.

        *calm*: one during which other programs took a tenth of a core is made
        again; after so many, the least disturbed stands.
        """
        found = []
        for _ in range(TRIES if calm else 1):
            others, start = self._others(), time.monotonic()
            done = place.exec(str(self.tool), case, ip, str(PORT), str(seconds), seconds=seconds + 30)
            disturbed = (self._others() - others) / (time.monotonic() - start)
            found.append((disturbed, float(done.stdout)))
            if disturbed < DISTURBED:
                break
        if calm:
            self.measured += 1
            self.disturbed += min(found)[0] >= DISTURBED
        return min(found)[1]

    def _others(self) -> float:
        """Return the seconds that all programs but this one and the serving ends have run."""
        ticks = os.sysconf("SC_CLK_TCK")
        user, nice = (int(field) for field in Path("/proc/stat").read_text().split()[1:3])
        own = sum(os.times()[i] for i in (0, 2))
        served = 0
        for process in self._serving:
            served += int(Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()[11])
        return (user + nice - served) / ticks - own


def cable(one: Place, one_link: str, other: Place, other_link: str, mtu: int = 1500) -> None:
    """Join two namespaces by a veth pair, both ends up."""
    one.script(
        [
            f"link add {one_link} mtu {mtu} type veth peer name {other_link} mtu {mtu} netns {other.netns}",
            f"link set {one_link} up",
        ]
    )
    other.script([f"link set {other_link} up"])


def restore(place: Place, lines: Iterable[str]) -> None:
    """Give `iptables-restore` these lines, in place of what is there."""
    place.exec("iptables-restore", "--wait", stdin="\n".join(lines) + "\n", seconds=300)


def change(place: Place, lines: Iterable[str]) -> float:
    """Give `iptables-restore` these lines on top of what is there; return the CPU seconds that it took."""
    command = place.command("iptables-restore", "--wait", "--noflush")
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True) as process:
        assert process.stdin
        process.stdin.write("\n".join(lines) + "\n")
        process.stdin.close()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"iptables-restore ended with {process.returncode}")
    return used.ru_utime + used.ru_stime


def used(pid: int) -> float:
    """Return the CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_for(spaces: Spaces, place: Place, ip: str, seconds: float = 20.0) -> None:
    """Return once the path carries packets."""
    end = time.monotonic() + seconds
    while place.exec(str(spaces.tool), "tcp_rr", ip, str(PORT), "0.01", check=False).returncode:
        if time.monotonic() > end:
            raise RuntimeError(f"{ip} is not reached from {place.name} after {seconds:g} s")
        time.sleep(0.1)
