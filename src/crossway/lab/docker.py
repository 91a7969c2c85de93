"""Docker engines on hosts of a lab: their own containerd, data, sockets, and nothing of the machine's.

An engine and its containers are in a process namespace that a small first
process holds: when that is killed the kernel ends all of them, so that none is
left however the engine came to its end. What a lab's engines keep is below
ROOT, since /run may be a place from which nothing can be run.
"""

from __future__ import annotations

import io
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from crossway.errors import NotFound, Unavailable
from crossway.lab import process
from crossway.lab.place import Place
from crossway.lab.process import Process, last_words
from crossway.lab.state import netns_of, run_of
from crossway.plan.service import SERVICE_IP

if TYPE_CHECKING:
    from crossway.lab.lab import Host, Lab

ROOT = Path("/var/lib/crossway/lab")
READY_SECONDS = 30.0
IMAGE = "lab"
STOCK = "busybox"  # as guides call such an image

# The first process takes leave of the dead, as an init does: an engine would hold its old containerd to live.
_HOLD = "while :; do sleep 3600 & wait; done"


class Engine:
    """A Docker engine of a host, with one image of busybox."""

    def __init__(self, host: Host, *, bridge: bool = False, project: str = "") -> None:
        self.host, self.bridge, self.project = host, bridge, project
        self.name = f"{host.name}-{project}" if project else host.name
        self._label = f"{host.netns}-{project}" if project else host.netns
        self.root = ROOT / self._label
        self.socket = self.root / "sock"
        self.log = self.root / "log"
        self._file = host.run.parent / "processes" / f"docker-{self.name}"
        self._engine: Process | None = None

    @classmethod
    def open(cls, lab: Lab, name: str) -> Self:
        """Return an engine that a lab has, by its name: h1, or h1-red for that of project red."""
        host, _, project = name.partition("-")
        found = cls(lab.host(host), project=project)
        if not found._file.exists():
            raise NotFound("engine", f"{name} of lab {lab.name}: `crossway lab up --docker` gives each host one")
        return found

    def start(self) -> None:
        """Start the engine; return when it answers."""
        # All of the agent comes with it, which takes long.
        from crossway.agent.guest.names import is_asked_outside

        run = self.root / "run"
        (run / "plugins").mkdir(parents=True, exist_ok=True)
        plugin = run / "plugins" / "crossway.sock"
        if not plugin.is_symlink():
            plugin.symlink_to(self.host.run / (f"docker-{self.project}.sock" if self.project else "docker.sock"))
        if self._first() is None:
            self._hold(run)
        (self.root / "pid").unlink(missing_ok=True)
        command = self.inside(
            "dockerd",
            *("--data-root", f"{self.root}/data", "--exec-root", f"{self.root}/exec", "--pidfile", f"{self.root}/pid"),
            *("-H", f"unix://{self.socket}", "--live-restore", "--storage-driver", "vfs"),
            *("--cgroup-parent", f"/{self._label}", "--exec-opt", "native.cgroupdriver=cgroupfs"),
            *(["--dns", str(SERVICE_IP)] if is_asked_outside() else []),
            *([] if self.bridge else ["--bridge=none", "--iptables=false", "--ip-forward=false", "--ip-masq=false"]),
        )
        self._engine = process.start(command, log=self.log)
        end = time.monotonic() + READY_SECONDS
        while self._docker("version").returncode:
            if not self._engine.alive or time.monotonic() > end:
                raise Unavailable(f"the engine of {self.host.name} did not start: {last_words(self.log)}")
            time.sleep(0.05)

    @property
    def alive(self) -> bool:
        return self._engine is not None and self._engine.alive

    def kill(self) -> None:
        """End the engine with SIGKILL, and with it its containerd; containers go on."""
        # The next engine would wait for a containerd that is just dying.
        self._signal("KILL", 5.0)

    def stop(self) -> None:
        """End the engine as an operator would; containers go on."""
        self._signal("TERM", 10.0)

    def remove(self) -> None:
        """End the engine and all its containers, and remove what it has written; nothing happens if there is none."""
        holder = Process.read(self._file)
        if holder is not None:
            _end([holder])
        if self._engine is not None:
            self._engine.ended(5.0)
        _clean(self._label, self.root)
        self._file.unlink(missing_ok=True)

    def _hold(self, run: Path) -> None:
        """Make the engine's namespaces: engines look for plugins, and keep namespaces, at places that cannot be set."""
        mounted = self.root / "ready"
        mounted.unlink(missing_ok=True)
        script = (
            f"mkdir -p /run/docker /run/containerd && mount --bind {run} /run/docker && "
            f"mount -t tmpfs none /run/containerd && touch {mounted} && {_HOLD}"
        )
        spaces = ("--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc")
        holder = process.start(self.host.command("unshare", *spaces, "sh", "-c", script), log=self.log)
        holder.write(self._file)
        end = time.monotonic() + READY_SECONDS
        while not mounted.exists():
            if not holder.alive or time.monotonic() > end:
                raise Unavailable(f"the engine of {self.host.name} has no place to run: {last_words(self.log)}")
            time.sleep(0.005)

    def _first(self) -> Process | None:
        """Return the first process of the engine's namespace."""
        holder = Process.read(self._file)
        return _child(holder) if holder is not None and holder.alive else None

    def inside(self, *command: str, net: bool = True) -> list[str]:
        """Return the command that runs *command* beside the engine; without *net*, in the machine's own network."""
        return ["nsenter", "-t", str(self._pid()), "--mount", "--pid", *(["--net"] if net else []), "--", *command]

    def place(self, container: str) -> Place:
        """Return a container's network namespace, for tools that the container has not."""
        key = self.docker("inspect", "--format", "{{.NetworkSettings.SandboxKey}}", container)
        # Below its --exec-root, as an engine of this lab has one.
        return Sandbox(container, f"/proc/{self._pid()}/root{self.root}/exec/netns/{Path(key).name}")

    def _pid(self) -> int:
        first = self._first()
        if first is None:
            raise Unavailable(f"the engine of {self.host.name} was never started: {last_words(self.log)}")
        return first.pid

    def _signal(self, name: str, seconds: float) -> None:
        """End engine and containerd by a signal, and wait until both have gone."""
        if self._first() is None:
            return
        script = (
            f"for file in {self.root}/pid {self.root}/exec/containerd/containerd.pid; do "
            'pid=$(cat $file 2>/dev/null) && kill -$0 $pid 2>/dev/null && all="$all $pid"; done; '
            "for pid in $all; do while kill -0 $pid 2>/dev/null; do sleep 0.02; done; done"
        )
        try:
            subprocess.run(self.inside("sh", "-c", script, name), check=False, capture_output=True, timeout=seconds)
        except subprocess.TimeoutExpired:
            raise Unavailable(f"the engine of {self.host.name} did not end: {last_words(self.log)}") from None
        if self._engine is not None:
            self._engine.ended(seconds)

    def load(self) -> None:
        """Make the image that containers run."""
        tar = self.root / "image.tar"
        tar.write_bytes(image())
        self.docker("import", str(tar), IMAGE)
        self.docker("tag", IMAGE, STOCK)
        tar.unlink()

    def command(self, *words: str) -> list[str]:
        """Return the command that says *words* to the engine by Docker's client."""
        return ["docker", "-H", f"unix://{self.socket}", *words]

    def _docker(self, *words: str, seconds: float = 60.0) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(self.root)}
        return subprocess.run(
            self.command(*words), capture_output=True, text=True, check=False, timeout=seconds, env=environment
        )

    def docker(self, *words: str, check: bool = True, seconds: float = 60.0) -> str:
        """Run a command of Docker's client; return what it said."""
        done = self._docker(*words, seconds=seconds)
        if check and done.returncode:
            raise Unavailable(f"docker {' '.join(words)} on {self.host.name}: {done.stderr.strip()}")
        return done.stdout.strip() if check else (done.stdout + done.stderr).strip()

    def popen(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        """Start a command of Docker's client; the caller ends it. Its output can be read as text."""
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **options}
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(self.root)}
        return subprocess.Popen(self.command(*words), text=True, env=environment, **options)

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


class Sandbox(Place):
    """A container's network namespace, which has no name."""

    @property
    def path(self) -> Path:
        return Path(self.netns)


@contextmanager
def engine(host: Host, *, bridge: bool = False, project: str = "") -> Iterator[Engine]:
    """Give a host an engine, which ends with the block, as do its containers.

    It may have Docker's own bridge, and may be of one project, among those of CROSSWAY_DOCKER_PROJECTS.
    """
    made = Engine(host, bridge=bridge, project=project)
    try:
        give(made)
        yield made
    finally:
        try:
            # Their ports go with them.
            if not made.alive:
                made.start()
            made.clear()
        finally:
            made.remove()


def give(made: Engine) -> Engine:
    """Start an engine that goes with its lab, and make its image."""
    if shutil.which("dockerd") is None:
        raise Unavailable("engines need docker.io: scripts/setup installs it")
    made.start()
    made.load()
    return made


def sockets(netns: str, projects: Iterable[str]) -> str:
    """Return where the engines of a host are spoken to, as its agent is told."""
    own = [f"{ROOT / netns}/sock"]
    return ",".join([*own, *(f"{project}={ROOT / netns}-{project}/sock" for project in projects)])


def image() -> bytes:
    """Return a root file system of busybox, as tar."""
    busybox = shutil.which("busybox")
    if busybox is None:
        raise Unavailable("containers need busybox-static: scripts/setup installs it")
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name in ("bin", "tmp"):
            directory = tarfile.TarInfo(name)
            directory.type, directory.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(directory)
        tar.add(Path(busybox).resolve(), "bin/busybox")
        for applet in applets:
            if applet != "busybox":
                link = tarfile.TarInfo(f"bin/{applet}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(link)
    return made.getvalue()


def remove_all(lab: str) -> None:
    """End all engines of a lab, with their containers, and remove what they have written."""
    prefix = netns_of(lab, "")
    holders = [Process.read(path) for path in sorted((run_of(lab) / "processes").glob("docker-*"))]
    _end([one for one in holders if one is not None])
    if ROOT.is_dir():
        for root in sorted(ROOT.glob(f"{prefix}*")):
            _clean(root.name, root)


def _end(holders: list[Process]) -> None:
    """End all that is in engines' namespaces."""
    for holder in holders:
        first = _child(holder)
        # Who holds it ends with it, having taken leave of it; only where it was just being made there is none.
        (first or holder).signal(signal.SIGKILL)
    for holder in holders:
        if not holder.ended(10.0):
            holder.signal(signal.SIGKILL)


def _child(holder: Process) -> Process | None:
    """Return the only child of a process."""
    try:
        children = Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text().split()
    except OSError:
        return None
    return Process.of(int(children[0])) if children else None


def _clean(label: str, root: Path) -> None:
    """Remove the files and cgroups of an engine that has ended."""
    end = time.monotonic() + 10.0
    for top in [*Path("/sys/fs/cgroup").glob(label), *Path("/sys/fs/cgroup").glob(f"*/{label}")]:
        for group in [*sorted((p for p in top.rglob("*") if p.is_dir()), reverse=True), top]:
            # The last of its processes may be about to go.
            while group.exists():
                try:
                    group.rmdir()
                except OSError as fault:
                    if time.monotonic() > end:
                        raise Unavailable(f"cgroup {group} is still in use: {fault}") from None
                    time.sleep(0.02)
    shutil.rmtree(root, ignore_errors=True)
