"""Start the processes of a lab so that they outlive who starts them, and end them surely.

A process is known by its pid and its start time, so that a number that was
given to another process in the meantime is never signalled.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from crossway.errors import Unavailable

_started: set[int] = set()


@dataclass(frozen=True)
class Process:
    """A process that was started for a lab: its number and when it began, in clock ticks since boot."""

    pid: int
    start: int

    @classmethod
    def of(cls, pid: int) -> Self:
        return cls(pid, _stat(pid)[1])

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Return the process that a file tells, or None if there is no such file or it is half-written."""
        try:
            pid, start = path.read_text().split()
        except (FileNotFoundError, ValueError):
            return None
        return cls(int(pid), int(start))

    def write(self, path: Path) -> None:
        path.write_text(f"{self.pid} {self.start}\n")

    @property
    def alive(self) -> bool:
        state, start = _stat(self.pid)
        return start == self.start and state not in "ZX"

    def signal(self, number: int) -> None:
        """Send a signal, if this very process still lives."""
        try:
            fd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            # Held by the descriptor, the number can no longer become another's.
            if self.alive:
                signal.pidfd_send_signal(fd, number)
        except ProcessLookupError:
            pass
        finally:
            os.close(fd)

    def ended(self, seconds: float) -> bool:
        """Wait until the process has ended, this long at most; reap it if it is ours."""
        end = time.monotonic() + seconds
        while self.alive:
            if time.monotonic() > end:
                return False
            time.sleep(0.005)
        # Only what this module started: another's child is its parent's to reap.
        if self.pid in _started:
            _started.discard(self.pid)
            try:
                os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:
                pass
        return True


def stop(processes: Iterable[Process], seconds: float = 5.0) -> None:
    """End processes: ask all of them, wait, and kill those that have not gone."""
    left = [p for p in processes if p.alive]
    for process in left:
        process.signal(signal.SIGTERM)
        process.signal(signal.SIGCONT)  # one that a test has stopped cannot hear otherwise
    end = time.monotonic() + seconds
    left = [p for p in left if not p.ended(max(0.0, end - time.monotonic()))]
    for process in left:
        process.signal(signal.SIGKILL)
    for process in left:
        process.ended(5.0)


def start(
    command: Sequence[str],
    *,
    log: Path,
    keep: Iterable[int] = (),
    environment: Mapping[str, str] | None = None,
) -> Process:
    """Start a command in a session of its own, its output added to a log; return the process.

    *keep* are the descriptors that it inherits, under the same numbers.
    """
    kept = list(keep)
    for fd in kept:
        os.set_inheritable(fd, True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    pid = os.posix_spawnp(
        command[0],
        list(command),
        {**os.environ, **(environment or {})},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), flags, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        # What a shell or pytest has set aside must not stay set aside there.
        setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE],
        setsigmask=[],
    )
    for fd in kept:
        os.set_inheritable(fd, False)
    _started.add(pid)
    return Process.of(pid)


class Ready:
    """Wait for a process to say that it is ready, by writing to the descriptor it is given.

    It writes to `fd`; the launcher closes its own copy by `given()` after the start.
    """

    def __init__(self, what: str, log: Path) -> None:
        self.what, self.log = what, log
        self._read, self.fd = os.pipe()

    def given(self) -> None:
        os.close(self.fd)

    def wait(self, seconds: float) -> None:
        """Return when the process is ready; raise `Unavailable` with its last words when it dies or is late."""
        try:
            if not select.select([self._read], [], [], seconds)[0]:
                raise Unavailable(f"{self.what} was not ready in {seconds:g} s; its log says: {last_words(self.log)}")
            if not os.read(self._read, 1):
                raise Unavailable(f"{self.what} ended at once; its log says: {last_words(self.log)}")
        finally:
            os.close(self._read)


def last_words(log: Path, lines: int = 12) -> str:
    """Return the end of a log, to be told with a failure."""
    try:
        text = log.read_text(errors="replace").strip()
    except FileNotFoundError:
        text = ""
    return "\n".join(text.splitlines()[-lines:]) or "nothing"


def within(netns: Path, own: Iterable[int] = ()) -> list[Process]:
    """Return all processes whose network namespace this is, but for those with a pid in *own*."""
    try:
        wanted = netns.stat()
    except FileNotFoundError:
        return []
    found = []
    skip = set(own)
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) in skip:
            continue
        try:
            seen = os.stat(f"/proc/{entry}/ns/net")
        except OSError:  # gone, or a kernel thread's
            continue
        if (seen.st_dev, seen.st_ino) == (wanted.st_dev, wanted.st_ino):
            found.append(Process.of(int(entry)))
    return found


def _stat(pid: int) -> tuple[str, int]:
    """Return state and start time of a process; ("X", -1) if there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return "X", -1
    # The name, in parentheses, may hold anything.
    fields = text.rpartition(")")[2].split()
    return fields[0], int(fields[19])


def interruptible() -> None:
    """Let Ctrl-C, SIGTERM and a hang-up end this program once, by KeyboardInterrupt; what follows is cleaning up."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def interrupt(_number: int, _frame: object) -> None:
        # Some send it twice, to the process and to its group.
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in numbers:
        signal.signal(number, interrupt)
