"""A container goes to another host by CRIU, with its port, while others speak with it over TCP."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from crossway.client import path_of
from crossway.lab import Lab
from crossway.lab.place import Place
from lab.stories import Traffic, guarded

# How often it goes to the other host. Not by itself: what it needs is Debian's testing's (scripts/criu).
CHECKPOINTS = int(os.environ.get("CHECKPOINTS", "0"))
CONNECTIONS = int(os.environ.get("CONNECTIONS", "20"))
TOP = Path(__file__).parents[2]


class Runc:
    """Containers by runc, each of which joins a network namespace that is there."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def bundle(self, name: str, place: Place, *command: str) -> None:
        bundle = self.root / name
        for directory in ("bin", "proc", "dev", "tmp"):
            (bundle / "rootfs" / directory).mkdir(parents=True)
        shutil.copy2(str(shutil.which("busybox")), bundle / "rootfs" / "bin")
        subprocess.run(["runc", "spec", "-b", bundle], check=True)
        spec: dict[str, Any] = json.loads((bundle / "config.json").read_text())
        spec["process"] |= {"terminal": False, "args": ["/bin/busybox", *command], "rlimits": []}
        spec["linux"]["namespaces"] = [
            {**space, **({"path": str(place.path)} if space["type"] == "network" else {})}
            for space in spec["linux"]["namespaces"]
            if space["type"] != "cgroup"
        ]
        # CRIU needs to know all mounts, and what is not asked for need not be known.
        spec["mounts"] = [mount for mount in spec["mounts"] if mount["destination"] in ("/proc", "/dev")]
        spec["linux"]["resources"] = {}
        (bundle / "config.json").write_text(json.dumps(spec))

    def do(self, *words: str | Path) -> None:
        done = subprocess.run(
            ["runc", "--root", self.root / "state", *words], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, check=False, cwd=self.root, timeout=60,
            env={**os.environ, "PATH": f"{TOP / 'build' / 'criu'}:{os.environ['PATH']}"},
        )  # fmt: skip
        logs = "\n".join(path.read_text(errors="replace")[-2000:] for path in self.root.rglob("*.log"))
        assert done.returncode == 0, f"runc {' '.join(map(str, words))}: {logs}"


@pytest.mark.skipif(not CHECKPOINTS, reason="CHECKPOINTS=2: CRIU is Debian's testing's")
def test_connections_survive_a_checkpoint_and_restore_elsewhere(tmp_path: Path) -> None:
    subprocess.run([TOP / "scripts" / "criu"], check=True)
    with Lab.up(hosts=3) as lab:
        _, port, ip, client = guarded(lab, "box")
        bindings = f"{path_of('port', port['id'])}/bindings"
        runc = Runc(tmp_path)
        places = [lab.namespace("one"), lab.namespace("two")]
        lab.hosts[0].agent_client.plug(port["id"], netns=str(places[0].path))
        lab.client.wait("port", port["id"])
        runc.bundle("b0", places[0], "nc", "-ll", "-p", "7100", "-e", "/bin/busybox", "cat")
        at = "c0"
        try:
            runc.do("run", "--detach", "-b", tmp_path / "b0", at)
            time.sleep(0.3)
            tcp = Traffic(client, "connect", ip, 7100, count=CONNECTIONS, every=0.1)
            try:
                time.sleep(1)
                for turn in range(1, CHECKPOINTS + 1):
                    place, to = places[turn % 2], lab.hosts[turn % 2]
                    lab.client.ask("POST", bindings, {"binding": {"host": to.name}})
                    to.agent_client.plug(port["id"], netns=str(place.path))
                    runc.bundle(f"b{turn}", place, "true")
                    image, began = tmp_path / f"image{turn}", time.monotonic()
                    runc.do("checkpoint", "--image-path", image, "--tcp-established", at)
                    dumped, at = time.monotonic(), f"c{turn}"
                    # Before the port moves: a host where nobody has these connections would end them.
                    runc.do(
                        "restore", "--detach", "-b", tmp_path / f"b{turn}", "--image-path", image,
                        "--tcp-established", at,
                    )  # fmt: skip
                    restored = time.monotonic()
                    lab.client.ask("PUT", f"{bindings}/{to.name}/activate")
                    print(
                        f"dumped in {dumped - began:.2f} s, restored in {restored - dumped:.2f} s, "
                        f"moved in {time.monotonic() - restored:.3f} s"
                    )
                    lab.client.wait("port", port["id"])
                    lab.client.ask("DELETE", f"{bindings}/{lab.hosts[1 - turn % 2].name}")
                    time.sleep(1)
                kept = tcp.end()
            finally:
                tcp.kill()
        finally:
            for turn in range(CHECKPOINTS + 1):
                subprocess.run(
                    ["runc", "--root", tmp_path / "state", "delete", "--force", f"c{turn}"], check=False,
                    capture_output=True,
                )  # fmt: skip
    print(json.dumps(kept))
    assert (kept["failures"], kept["alive"]) == (0, CONNECTIONS), kept
