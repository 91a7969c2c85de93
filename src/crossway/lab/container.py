"""Run workloads as real containers: `runc`, and a root file system of busybox.

All containers of a lab share one root file system, read-only. What they do is
theirs: process ids, mounts, host name. Their network is a namespace of the lab,
as an orchestrator would prepare it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from crossway.errors import Unavailable
from crossway.lab.place import Place
from crossway.lab.process import last_words
from crossway.lab.state import State

# Bytes of the file that servers hand out for measuring; sparse, so it costs no disk.
LARGE = 256 << 20

_CAPABILITIES = ["CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_KILL"]
_MOUNTS = [
    {"destination": "/proc", "type": "proc", "source": "proc"},
    {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"]},
    {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "size=16m"]},
]


class Container(Place):
    """A running container in one of a lab's namespaces."""

    def __init__(self, state: State, place: Place) -> None:
        super().__init__(place.name, place.netns)
        self._root = _root(state)
        self.id = place.netns
        self._bundle = state.run / "bundles" / place.name

    def command(self, *command: str) -> list[str]:
        """Return the command that runs *command* in the container."""
        return [*_runc(self._root), "exec", self.id, *command]

    def run(self, script: str, files: Sequence[tuple[str, str]] = ()) -> None:
        """Start the container with a shell script as its first process; *files* lie in /srv, as name and text."""
        served = self._bundle / "srv"
        served.mkdir(parents=True)
        for name, text in files:
            (served / name).write_text(text)
        with (served / "large").open("wb") as large:
            large.truncate(LARGE)
        (self._bundle / "config.json").write_text(json.dumps(self._config(script, served)))
        log = self._bundle / "log"
        with log.open("ab") as output:
            done = subprocess.run(
                [*_runc(self._root), "run", "--detach", "--bundle", str(self._bundle), self.id],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                check=False,
            )
        if done.returncode:
            raise Unavailable(f"container {self.name} did not start: {last_words(log)}")

    def _config(self, script: str, served: Path) -> dict[str, object]:
        serving = {"destination": "/srv", "type": "bind", "source": str(served), "options": ["bind", "ro", "nosuid"]}
        return {
            "ociVersion": "1.0.2",
            "hostname": self.name,
            "root": {"path": str(self._root.parent / "rootfs"), "readonly": True},
            "mounts": [*_MOUNTS, serving],
            "process": {
                "terminal": False,
                "user": {"uid": 0, "gid": 0},
                "args": ["sh", "-c", script],
                "env": ["PATH=/bin", "HOME=/tmp"],
                "cwd": "/tmp",
                "noNewPrivileges": True,
                "capabilities": {kind: _CAPABILITIES for kind in ("bounding", "effective", "permitted")},
            },
            "linux": {
                "cgroupsPath": f"/{self.id}",
                "namespaces": [
                    *({"type": kind} for kind in ("pid", "ipc", "uts", "mount")),
                    {"type": "network", "path": str(self.path)},
                ],
                "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list"],
                "readonlyPaths": ["/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus"],
            },
        }


def prepare(state: State) -> None:
    """Make the root file system that the lab's containers share."""
    busybox = shutil.which("busybox")
    if busybox is None or shutil.which("runc") is None:
        raise Unavailable("containers need busybox-static and runc: scripts/setup installs them")
    rootfs = state.run / "rootfs"
    for directory in ("bin", "dev", "proc", "srv", "tmp", "etc"):
        (rootfs / directory).mkdir(parents=True)
    shutil.copy2(busybox, rootfs / "bin" / "busybox")
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for applet in applets:
        if applet != "busybox":
            os.symlink("busybox", rootfs / "bin" / applet)


def find(state: State, place: Place) -> Place:
    """Return the container that runs in a place; the place itself if there is none."""
    return Container(state, place) if (_root(state) / place.netns).is_dir() else place


def remove_all(run: Path) -> None:
    """End all containers of a lab, their cgroups as well."""
    root = run / "runc"
    if not root.is_dir() or shutil.which("runc") is None:
        return
    for container in sorted(root.iterdir()):
        subprocess.run([*_runc(root), "delete", "--force", container.name], capture_output=True, check=False)


def _root(state: State) -> Path:
    return state.run / "runc"


def _runc(root: Path) -> list[str]:
    return ["runc", "--root", str(root)]
