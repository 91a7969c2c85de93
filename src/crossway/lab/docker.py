"""A Docker engine on a host of the lab: its own containerd, data, sockets, and nothing of the machine's."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from crossway.errors import Unavailable
from crossway.lab import process
from crossway.lab.lab import Host
from crossway.lab.process import Process, last_words

READY_SECONDS = 30.0
IMAGE = "lab"


class Engine:
    """A Docker engine of a host, with one image of busybox."""

    def __init__(self, host: Host, root: Path, *, bridge: bool = False, project: str = "") -> None:
        self.host, self.root, self.bridge, self.project = host, root, bridge, project
        self.log = root / "log"
        self.process: Process | None = None

    def start(self) -> None:
        """Start the engine; return when it answers."""
        run = self.root / "run"
        (run / "plugins").mkdir(parents=True, exist_ok=True)
        plugin = run / "plugins" / "crossway.sock"
        if not plugin.is_symlink():
            plugin.symlink_to(self.host.run / (f"docker-{self.project}.sock" if self.project else "docker.sock"))
        # Engines look for plugins, and keep namespaces, at a place that cannot be set.
        script = f"mkdir -p /run/docker && mount --bind {run} /run/docker && exec dockerd " + " ".join(
            (
                f"--data-root {self.root}/data --exec-root {self.root}/exec --pidfile {self.root}/pid",
                f"-H unix://{self.root}/sock --live-restore --storage-driver vfs",
                "" if self.bridge else "--bridge=none --iptables=false --ip-forward=false --ip-masq=false",
            )
        )
        command = self.host.command("unshare", "--mount", "--propagation", "private", "sh", "-c", script)
        (self.root / "pid").unlink(missing_ok=True)
        containerd = self._containerd()
        if containerd is not None and not containerd.alive:
            # Where nobody takes leave of the dead, the engine would hold it to live.
            self._containerd_pid.unlink()
        self.process = process.start(command, log=self.log)
        end = time.monotonic() + READY_SECONDS
        while self._docker("version").returncode:
            if not self.process.alive or time.monotonic() > end:
                raise Unavailable(f"the engine of {self.host.name} did not start: {last_words(self.log)}")
            time.sleep(0.05)

    def kill(self) -> None:
        """End the engine with SIGKILL, and with it its containerd; containers go on."""
        if self.process is not None:
            containerd = self._containerd()
            self.process.signal(signal.SIGKILL)
            self.process.ended(5.0)
            if containerd is not None:
                # The next engine would wait for one that is just dying.
                containerd.signal(signal.SIGKILL)
                containerd.ended(5.0)

    def stop(self) -> None:
        """End the engine as an operator would; containers go on."""
        process.stop([one for one in (self.process, self._containerd()) if one is not None], seconds=10.0)

    @property
    def _containerd_pid(self) -> Path:
        return self.root / "exec" / "containerd" / "containerd.pid"

    def _containerd(self) -> Process | None:
        try:
            return Process.of(int(self._containerd_pid.read_text()))
        except (OSError, ValueError):
            return None

    def load(self) -> None:
        """Make the image that containers run."""
        tree = self.root / "tree"
        (tree / "bin").mkdir(parents=True)
        busybox = shutil.which("busybox")
        if busybox is None:
            raise Unavailable("containers need busybox-static: scripts/setup installs it")
        shutil.copy2(busybox, tree / "bin" / "busybox")
        for applet in ("sh", "sleep", "ping", "ip", "cat", "true", "nc", "route"):
            (tree / "bin" / applet).symlink_to("busybox")
        tar = self.root / "image.tar"
        subprocess.run(["tar", "-C", str(tree), "-cf", str(tar), "."], check=True)
        self.docker("import", str(tar), IMAGE)

    def _docker(self, *words: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(self.root)}
        command = ["docker", "-H", f"unix://{self.root}/sock", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)

    def docker(self, *words: str, check: bool = True) -> str:
        """Run a command of Docker's client; return what it said."""
        done = self._docker(*words)
        if check and done.returncode:
            raise Unavailable(f"docker {' '.join(words)} on {self.host.name}: {done.stderr.strip()}")
        return done.stdout.strip() if check else (done.stdout + done.stderr).strip()

    def run(self, network: str, name: str, *options: str) -> str:
        """Run a container that sleeps; return its id."""
        return self.docker(
            "run", "-d", "--init=false", "--network", network, "--name", name, *options, IMAGE, "sleep", "600"
        )

    def clear(self) -> None:
        """End all containers."""
        ids = self.docker("ps", "-aq", check=False).split()
        if ids:
            self.docker("rm", "-f", *ids, check=False)


@contextmanager
def engine(host: Host, *, bridge: bool = False, project: str = "") -> Iterator[Engine]:
    """Give a host an engine, which ends with the block, as do its containers.

    It may have Docker's own bridge, and may be of one project, among those of CROSSWAY_DOCKER_PROJECTS.
    """
    if shutil.which("dockerd") is None:
        raise Unavailable("engines need docker.io: scripts/setup installs it")
    # Not below the lab's own directory: an engine's sockets have short names only in a short place.
    root = Path(tempfile.mkdtemp(prefix="crossway-docker-"))
    made = Engine(host, root, bridge=bridge, project=project)
    try:
        made.start()
        made.load()
        yield made
    finally:
        if made.process is None or not made.process.alive:
            made.start()
        made.clear()
        made.stop()
        shutil.rmtree(root, ignore_errors=True)
