"""Several hosts on one machine: bring a lab up, use it, take it down.

For programs:

    with Lab.up(hosts=2) as lab:
        network = lab.client.create("network", name="blue")
        lab.client.create("subnet", network_id=network["id"], cidr="10.0.0.0/24", ip_version=4)
        one, two = (lab.workload(host, network) for host in lab.hosts)
        one.exec("ping", "-c1", two.ip4)

The commands of `crossway lab` rest on the same functions.
"""

from __future__ import annotations

import errno
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from crossway import settings
from crossway.client import AgentClient, Client, Object
from crossway.errors import Fault, NotFound, Unavailable
from crossway.lab import docker, process, wire
from crossway.lab import impair as impairments
from crossway.lab import state as states
from crossway.lab.impair import Impairment
from crossway.lab.place import Place
from crossway.lab.process import Process, Ready
from crossway.lab.state import HostState, State

READY_SECONDS = 60.0
# Ports below the range from which the kernel takes those of outgoing
# connections: a server that is restarted finds its own free.
API_PORTS = range(20000, 32000)


class Part:
    """A process of a lab that can be started, stopped and killed."""

    def __init__(self, state: State, label: str, log: Path, environment: Mapping[str, str] | None = None) -> None:
        self.label, self.log = label, log
        self._state = state
        self._file = state.process(label)
        self.environment = dict(environment or {})

    @property
    def process(self) -> Process | None:
        return Process.read(self._file)

    @property
    def pid(self) -> int:
        running = self.process
        if running is None:
            raise Unavailable(f"{self.label} was never started")
        return running.pid

    @property
    def alive(self) -> bool:
        running = self.process
        return running is not None and running.alive

    def begin(self) -> Ready:
        """Start the process without waiting; `wait` of what is returned waits."""
        raise NotImplementedError

    def start(self) -> None:
        """Start the process; return when it is ready."""
        self.begin().wait(READY_SECONDS)

    def stop(self) -> None:
        """End the process as an operator would, and wait until it has gone."""
        if running := self.process:
            process.stop([running])

    def kill(self) -> None:
        """End the process as a power cut would: with SIGKILL."""
        if running := self.process:
            running.signal(signal.SIGKILL)
            running.ended(5.0)

    def freeze(self) -> None:
        """Let the process do nothing any more, but stay."""
        if running := self.process:
            running.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        if running := self.process:
            running.signal(signal.SIGCONT)

    def restart(self, **environment: str) -> None:
        """Stop and start; *environment* holds from now on."""
        self.stop()
        self.environment.update(environment)
        self.start()

    def _begin(self, place: Place, command: list[str], keep: Iterable[int] = ()) -> Ready:
        ready = Ready(f"{self.label} of lab {self._state.name}", self.log)
        began = process.start(
            place.command(sys.executable, "-m", "crossway", *command, "--ready-fd", str(ready.fd)),
            log=self.log,
            keep=[ready.fd, *keep],
            environment=self.environment,
        )
        began.write(self._file)
        ready.given()
        return ready


class ServerPart(Part):
    """The server, in the control's namespace."""

    def __init__(self, state: State) -> None:
        mtu = {settings.UNDERLAY_MTU.variable: str(state.mtu)}
        super().__init__(state, "server", state.run / "server" / "server.log", mtu)

    def begin(self) -> Ready:
        port = int(self._state.url.rsplit(":", 1)[1])
        # A socket belongs to the namespace in which it was made: so this one
        # listens on the machine's loopback, whoever accepts from it.
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            _bind(listener, port)
            listener.listen(128)
            command = ["server", "--listen", self._state.underlay_url.removeprefix("http://")]
            command += ["--listen", f"fd:{listener.fileno()}"]
            command += ["--store", f"sqlite:{self._state.run / 'server' / 'cloud.db'}", "--insecure"]
            command += ["--auth", self.environment.get(settings.AUTH.variable, "none")]
            return self._begin(Place("control", self._state.control), command, keep=[listener.fileno()])


class AgentPart(Part):
    """The agent of one host."""

    def __init__(self, state: State, host: HostState) -> None:
        super().__init__(state, f"agent-{host.name}", Path(host.run) / "agent.log")
        self._host = host

    def begin(self) -> Ready:
        host = self._host
        command = ["agent", "--server", self._state.underlay_url, "--host", host.name]
        command += ["--underlay", host.underlay, "--run", host.run]
        for physnet, device in host.physnets.items():
            command += ["--physnet", f"{physnet}={device}"]
        of = {**os.environ, **self.environment}.get(settings.DOCKER_PROJECTS.variable, "")
        self.environment[settings.DOCKER_ENGINE.variable] = docker.sockets(host.netns, of.replace(",", " ").split())
        return self._begin(Place(host.name, host.netns), command)


class Host(Place):
    """One host of a lab."""

    def __init__(self, state: State, host: HostState) -> None:
        super().__init__(host.name, host.netns)
        self.underlay = host.underlay
        self.run = Path(host.run)
        self.socket = host.socket
        self.physnets = host.physnets
        self.agent = AgentPart(state, host)
        self.agent_client = AgentClient(host.socket)


class Workload(Place):
    """A workload on a host: a namespace with a plugged port, standing for a container."""

    def __init__(self, lab: Lab, host: Host, name: str, netns: str, port: Object) -> None:
        super().__init__(name, netns)
        self.lab, self.host, self.port = lab, host, port

    @property
    def id(self) -> str:
        return str(self.port["id"])

    @property
    def mac(self) -> str:
        return str(self.port["mac_address"])

    @property
    def addresses(self) -> list[str]:
        return [str(ip["ip_address"]) for ip in self.port["fixed_ips"]]

    @property
    def ip4(self) -> str:
        return next(ip for ip in self.addresses if ":" not in ip)

    @property
    def ip6(self) -> str:
        return next(ip for ip in self.addresses if ":" in ip)

    def active(self, seconds: float = 30.0) -> Self:
        """Wait until the port is ACTIVE: reachable from everywhere it should be."""
        self.port = self.lab.client.wait("port", self.id, seconds=seconds)
        return self

    def drops(self) -> list[Object]:
        """Return what was stopped from and to this workload on its host."""
        return self.host.agent_client.drops(self.id)

    def unplug(self) -> None:
        """Take the body away; the port stays."""
        self.host.agent_client.unplug(self.id)

    def delete(self) -> None:
        """Take body, port and namespace away."""
        self.unplug()
        self.lab.client.delete("port", self.id)
        wire.remove_namespace(self.netns)


class Lab:
    """A lab that is up."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.name = state.name
        self.url = state.url
        self.hosts = [Host(state, host) for host in state.hosts]
        self.outside = Place("outside", state.outside)
        self.control = Place("control", state.control)
        self.switch = Place("switch", state.switch)
        self.server = ServerPart(state)
        self.client = Client(state.url)
        self._count = 0
        self._lock = threading.Lock()

    @classmethod
    def up(
        cls,
        name: str | None = None,
        *,
        hosts: int = 3,
        uplinks: int | None = None,
        mtu: int = 1500,
        underlay: int = 4,
        engines: bool = False,
        stays: bool = False,
    ) -> Self:
        """Build a lab and wait until all of it is ready; whatever was made is removed if that fails.

        Used as a context it is torn down at the end. *engines*: each host has a
        Docker engine. *stays*: it outlives this program, and only `down` ends it.
        """
        owner = None if stays else Process.of(os.getpid())
        state = states.plan(name or f"t{secrets.token_hex(4)}", hosts, uplinks, mtu, underlay, _free_port(), owner)
        with states.locked(state.name):
            states.claim(state)
            try:
                lab = cls._build(state)
                if engines:
                    lab.give_engines()
                return lab
            except BaseException:
                _take_down(state.name)
                raise

    @classmethod
    def _build(cls, state: State) -> Self:
        wire.make(state)
        lab = cls(state)
        # All at once: starting Python takes the most time, and agents ask until the server answers.
        waits = [part.begin() for part in (lab.server, *(host.agent for host in lab.hosts))]
        for ready in waits:
            ready.wait(READY_SECONDS)
        lab.joined()
        return lab

    def give_engines(self) -> None:
        """Give each host a Docker engine."""
        with ThreadPoolExecutor(len(self.hosts)) as pool:
            for done in [pool.submit(docker.give, docker.Engine(host)) for host in self.hosts]:
                done.result()

    def joined(self, seconds: float = 30.0) -> None:
        """Wait until the server knows all hosts and takes them for alive."""
        wanted = {host.name for host in self.hosts}
        end = time.monotonic() + seconds
        while missing := wanted - {host["name"] for host in self.client.hosts() if host["alive"]}:
            if time.monotonic() > end:
                raise Unavailable(f"lab {self.name}: {', '.join(sorted(missing))} did not join in {seconds:g} s")
            time.sleep(0.01)

    @classmethod
    def open(cls, name: str) -> Self:
        """Return a lab that is up already."""
        return cls(states.load(name))

    def down(self) -> None:
        self.close()
        down(self.name)

    def close(self) -> None:
        """Let go of connections; the lab stays."""
        self.client.close()
        for host in self.hosts:
            host.agent_client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        self.down()

    def host(self, name: str) -> Host:
        self.state.host(name)
        return next(host for host in self.hosts if host.name == name)

    def place(self, name: str) -> Place:
        """Return a place of this lab by its short name: h1, outside, control, switch, or a workload's."""
        netns = states.netns_of(self.name, name)
        known = {n.removeprefix(states.netns_of(self.name, "")) for n in wire.namespaces(self.name)}
        if name not in known:
            raise NotFound("place", f"{name} of lab {self.name} (it has {', '.join(sorted(known))})")
        return Place(name, netns)

    def namespace(self, name: str) -> Place:
        """Make one more namespace, which goes with the lab."""
        return Place(name, wire.add_namespace(self.state, name))

    def workload(
        self,
        host: Host,
        network: Object | str,
        *,
        name: str | None = None,
        groups: Iterable[Object | str] | None = None,
        port: Object | None = None,
        wait: bool = True,
        **attrs: Any,
    ) -> Workload:
        """Make a namespace on a host and plug a port of the network into it as eth0.

        *groups* are security groups (None: the project's default one); *attrs*
        are further attributes of the port; *port* is one that is there already.
        """
        if name is None:
            with self._lock:
                self._count += 1
                name = f"w{self._count}"
        netns = wire.add_namespace(self.state, name)
        if port is None:
            if groups is not None:
                attrs["security_groups"] = [_id(group) for group in groups]
            port = self.client.create("port", network_id=_id(network), **{"name": name, **attrs})
        workload = Workload(self, host, name, netns, port)
        host.agent_client.plug(workload.id, netns=str(workload.path))
        return workload.active() if wait else workload

    def cut(self, what: str) -> None:
        """Pull the plug of `h1` or `h1:under0`."""
        wire.cut(self.state, what)

    def heal(self, what: str) -> None:
        wire.heal(self.state, what)

    def impair(self, what: str, how: Impairment, seed: int | None = None) -> None:
        """Lose, delay or reorder what crosses a link; `h1` is its underlay link."""
        impairments.impair(self.state, what, how, seed)

    def clear(self, what: str) -> None:
        impairments.clear(self.state, what)


def down(name: str) -> None:
    """Take a lab down, whole or half-built; nothing happens if it is not there."""
    states.check_name(name)
    with states.locked(name):
        _take_down(name)


def sweep() -> list[str]:
    """Take down the labs whose programs ended without doing so; return their names."""
    swept = []
    for name in states.names():
        try:
            state = states.load(name)
        except Fault:
            continue
        if wire.sweepable(state.owner):
            down(name)
            swept.append(name)
    return swept


def _take_down(name: str) -> None:
    with _undisturbed():
        run = states.run_of(name)
        spaces = wire.namespaces(name)
        docker.remove_all(name)
        # Those that wrote down their numbers, and whatever else runs in there.
        # The server's listening socket is the machine's, so all must go first.
        known = [Process.read(path) for path in (run / "processes").glob("*")] if run.is_dir() else []
        process.stop([p for p in known if p is not None])
        strays = [p for netns in spaces for p in process.within(Place("", netns).path, own=[os.getpid()])]
        process.stop(strays, seconds=1.0)
        wire.unmount(run)
        for netns in spaces:
            subprocess.run(["ip", "netns", "delete", netns], check=True, capture_output=True)
        if run.is_dir():
            states.forget(name)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Finish what is in hand though Ctrl-C is pressed again."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, what in before.items():
            signal.signal(number, what)


def _bind(listener: socket.socket, port: int, seconds: float = 5.0) -> None:
    """Bind to a port of the loopback; a server that was killed has it until its last thread is done writing."""
    end = time.monotonic() + seconds
    while True:
        try:
            return listener.bind(("127.0.0.1", port))
        except OSError as fault:
            if fault.errno != errno.EADDRINUSE or time.monotonic() > end:
                raise
            time.sleep(0.02)


def _free_port() -> int:
    """Return a port of the machine's loopback that nobody listens on."""
    for port in random.sample(API_PORTS, 200):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise Unavailable(f"no free port between {API_PORTS.start} and {API_PORTS.stop} on 127.0.0.1")


def _id(thing: Object | str) -> str:
    return thing if isinstance(thing, str) else str(thing["id"])


def uptime(state: State) -> float:
    """Return for how many seconds a lab has been there."""
    return time.time() - (state.run / "state.json").stat().st_mtime
