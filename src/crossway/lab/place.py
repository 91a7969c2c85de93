"""A network namespace in which commands run: a host, a workload, the outside.

Entered with `nsenter --net`: `ip netns exec` would mount another /sys and hide
cgroups and the bpf file system.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crossway.errors import Unavailable

NETNS = Path("/run/netns")


class Place:
    """A named network namespace."""

    def __init__(self, name: str, netns: str) -> None:
        self.name = name
        self.netns = netns

    @property
    def path(self) -> Path:
        return NETNS / self.netns

    def command(self, *command: str) -> list[str]:
        """Return the command that runs *command* here."""
        return ["nsenter", f"--net={self.path}", "--", *command]

    def exec(
        self, *command: str, check: bool = True, seconds: float = 60.0, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; with *check*, a failure is raised with what it said."""
        done = subprocess.run(
            self.command(*command), capture_output=True, text=True, timeout=seconds, input=stdin, check=False
        )
        if check and done.returncode:
            said = (done.stderr.strip() or done.stdout.strip()).replace("\n", "; ")
            raise Unavailable(f"{self.name}: {' '.join(command)} ended with {done.returncode}: {said}")
        return done

    def popen(self, *command: str, **options: Any) -> subprocess.Popen[str]:
        """Start a command; the caller ends it. Its output can be read as text."""
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **options}
        return subprocess.Popen(self.command(*command), text=True, **options)

    def script(self, lines: Sequence[str], sysctls: Sequence[str] = ()) -> None:
        """Set up this namespace: write settings (name=value), then run `ip` commands in one go.

        A setting that this kernel lacks is passed over: all of them only make
        the lab quicker or quieter.
        """
        writes = [
            f"[ ! -e /proc/sys/{s.split('=')[0]} ] || echo {s.split('=')[1]} >/proc/sys/{s.split('=')[0]}"
            for s in sysctls
        ]
        self.exec("sh", "-e", "-c", "\n".join([*writes, "exec ip -batch -"]), stdin="\n".join(lines) + "\n")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} in {self.netns}>"
