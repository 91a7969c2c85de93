"""Virtual machines on hosts of a lab: QEMU without hardware help, Debian's kernel, a root of busybox.

`scripts/guest` makes what they boot. A guest is told what to do over its second
serial line; QEMU itself over QMP.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from crossway.errors import Unavailable
from crossway.lab.lab import Host
from crossway.lab.process import last_words

BOOT_SECONDS = 60.0
MEMORY = 128  # MiB
CHANNEL = "$(echo /dev/vport*p1)"  # the number is one more than it has network cards
_numbers = itertools.count(1)


class Machine:
    """One QEMU: a guest that runs, or the place to which one is to come."""

    def __init__(
        self,
        host: Host,
        image: Path,
        run: Path,
        mac: str,
        tap: str,
        incoming: str | None = None,
        queues: int = 1,
        *,
        more: Sequence[tuple[str, str]] = (),
    ) -> None:
        """Start it on a host, with its network card on *tap* there; *incoming* (IP:PORT) waits for a guest.

        With *queues* it has as many processors, and its cards as many pairs of queues; so must the taps.
        *more* are further cards, each a MAC and a tap.
        """
        name = f"guest{next(_numbers)}"
        self.host, self.mac, self.tap = host, mac, tap
        self._log, self._line, self._channel, self._qmp_path = (
            run / f"{name}.{what}" for what in ("log", "line", "channel", "qmp")
        )
        cards = enumerate([(mac, tap), *more])
        command = [
            *("qemu-system-x86_64", "-M", "q35", "-accel", "tcg,thread=multi,tb-size=32", "-cpu", "max"),
            *("-m", str(MEMORY), "-smp", str(queues), "-display", "none", "-nodefaults", "-no-reboot"),
            *("-kernel", str(image / "vmlinuz"), "-initrd", str(image / "initrd")),
            *("-append", "console=ttyS0 quiet mitigations=off random.trust_cpu=on no_timer_check"),
            *("-serial", f"file:{self._log}", "-serial", f"unix:{self._line},server=on,wait=off"),
            *(word for n, (mac, tap) in cards for word in (
                "-netdev", f"tap,id=n{n},ifname={tap},script=no,downscript=no" + f",queues={queues}" * (queues > 1),
                "-device", f"virtio-net-pci,netdev=n{n},mac={mac},romfile="
                           + f",mq=on,vectors={2 * queues + 2}" * (queues > 1),
            )),
            *("-device", "virtio-serial-pci", "-chardev", f"socket,id=c0,path={self._channel},server=on,wait=off"),
            *("-device", "virtserialport,chardev=c0"),
            *("-qmp", f"unix:{self._qmp_path},server=on,wait=off"),
            *(("-incoming", f"tcp:{incoming}") if incoming else ()),
        ]  # fmt: skip
        self._err = run / f"{name}.err"
        with self._err.open("wb") as said:
            self._process = host.popen(*command, stdout=subprocess.DEVNULL, stderr=said)
        self._qmp = _Qmp(self._connect(self._qmp_path))
        self._shell: Shell | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """End it, as by pulling the plug."""
        if self._shell is not None:
            self._shell.close()
        self._qmp.close()
        self._process.kill()
        self._process.wait()

    def awake(self, seconds: float = BOOT_SECONDS) -> Self:
        """Wait until the guest can be told what to do."""
        end = time.monotonic() + seconds
        while "guest: ready" not in self._log.read_text(errors="replace"):  # who speaks before is not heard
            if time.monotonic() > end or self._process.poll() is not None:
                raise Unavailable(f"a guest on {self.host.name} does not boot: {last_words(self._log)}")
            time.sleep(0.05)
        return self

    def booted(self, seconds: float = BOOT_SECONDS) -> Self:
        """Wait until the guest has its address."""
        end = time.monotonic() + seconds
        self.awake(seconds)
        while "bound" not in self.run("ls /tmp"):
            if time.monotonic() > end:
                raise Unavailable(f"a guest on {self.host.name} has no address: {self.run('cat /tmp/dhcp.log')}")
            time.sleep(0.1)
        return self

    def run(self, command: str, *, seconds: float = 30.0, check: bool = True) -> str:
        """Run a command in the guest's shell; return what it said. With *check*, a failure is raised."""
        if self._shell is None:
            self._shell = Shell(self._connect(self._line), self.host.name)
        return self._shell.run(command, seconds=seconds, check=check)

    def channel(self) -> socket.socket:
        """Return this end of what is CHANNEL in the guest."""
        return self._connect(self._channel)

    def ask(self, command: str, **arguments: Any) -> Any:
        """Ask QEMU by QMP."""
        return self._qmp.ask(command, **arguments)

    def happened(self, event: str) -> float:
        """Return when QEMU last told of an event, by the machine's clock; 0 if never."""
        self.ask("query-status")
        return self._qmp.events.get(event, 0.0)

    def migrate(self, to: str, stopped: Callable[[], object] | None = None, seconds: float = 60.0) -> float:
        """Send the guest to where *to* (IP:PORT) waits for it; return QEMU's own downtime in ms.

        *stopped* is called when the guest stands still here, as soon as QEMU tells of that; it does not always.
        """
        # As libvirt does: the other side tells when the guest runs there, which the downtime then includes.
        self.ask("migrate-set-capabilities", capabilities=[{"capability": "return-path", "state": True}])
        self.ask("migrate-set-parameters", **{"max-bandwidth": 1 << 30, "downtime-limit": 100})
        self.ask("migrate", uri=f"tcp:{to}")
        end = time.monotonic() + seconds
        while (told := self.ask("query-migrate"))["status"] != "completed":
            if stopped is not None and "STOP" in self._qmp.events:
                stopped()
                stopped = None
            if told["status"] == "failed" or time.monotonic() > end:
                raise Unavailable(f"a guest did not get from {self.host.name} to {to}: {told}")
            time.sleep(0.001)
        if stopped is not None:
            stopped()
        return float(told["downtime"])

    def _connect(self, path: Path, seconds: float = 10.0) -> socket.socket:
        end = time.monotonic() + seconds
        while True:
            if self._process.poll() is not None or time.monotonic() > end:
                raise Unavailable(f"QEMU on {self.host.name} does not answer: {last_words(self._err)}")
            line = socket.socket(socket.AF_UNIX)
            try:
                line.connect(str(path))
            except OSError:
                line.close()
                time.sleep(0.02)
            else:
                return line


class Shell:
    """The shell of a guest, on its second serial line."""

    def __init__(self, line: socket.socket, host: str) -> None:
        self._line, self._host = line, host
        self._rest = b""

    def close(self) -> None:
        self._line.close()

    def run(self, command: str, *, seconds: float = 30.0, check: bool = True) -> str:
        """Run a command; return what it said. With *check*, a failure is raised."""
        mark = f"end{next(_numbers)}"
        self._line.sendall(f"{{ {command}\n}} 2>&1; code=$?; echo; echo {mark[:3]}'{mark[3:]}' $code\n".encode())
        pattern = re.compile(rb"(?s)(.*?)\r?\n" + mark.encode() + rb" (\d+)\r?\n")
        end = time.monotonic() + seconds
        while not (found := pattern.search(self._rest)):
            self._line.settimeout(max(0.01, end - time.monotonic()))
            try:
                heard = self._line.recv(65536)
            except TimeoutError:
                raise Unavailable(
                    f"a guest on {self._host} did not end {command!r} in {seconds:g} s: {self._rest[-500:]!r}"
                ) from None
            if not heard:
                raise Unavailable(f"a guest on {self._host} has ended during {command!r}")
            self._rest += heard
        said = found[1].replace(b"\r", b"").decode(errors="replace")
        self._rest = self._rest[found.end() :]
        if check and int(found[2]):
            raise Unavailable(f"a guest on {self._host}: {command!r} ended with {int(found[2])}: {said}")
        return said


class _Qmp:
    """QEMU's machine protocol over a socket."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self.events: dict[str, float] = {}  # when each last came, by the machine's clock
        line.settimeout(30)
        self._file = line.makefile("rw")
        self._file.readline()
        self.ask("qmp_capabilities")

    def ask(self, command: str, **arguments: Any) -> Any:
        self._file.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._file.flush()
        while True:
            told = json.loads(self._file.readline())
            if "event" in told:
                stamp = told["timestamp"]
                self.events[told["event"]] = stamp["seconds"] + stamp["microseconds"] / 1e6
            if "error" in told:
                raise Unavailable(f"QEMU: {command}: {told['error']['desc']}")
            if "return" in told:
                return told["return"]

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
        self._line.close()


def tap(host: Host, name: str) -> str:
    """Make a tap on a host, as an orchestrator would."""
    host.exec("ip", "tuntap", "add", name, "mode", "tap", "vnet_hdr")
    host.exec("ip", "link", "set", name, "up")
    return name
