"""Speak to the probe in a body: one line there, one line back."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from crossway.errors import Unavailable

PROGRAM = Path(__file__).with_name("probe")
SECONDS = 30.0

Told = dict[str, Any]


class Channel:
    """What leads to a probe and back, as file descriptors, and what closes it."""

    def __init__(self, read: int, write: int, close: Callable[[], object]) -> None:
        self.read, self.write, self.close = read, write, close

    @classmethod
    def of(cls, command: list[str]) -> Channel:
        """Start a probe by a command, which ends with the channel."""
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
        )
        assert process.stdin is not None
        assert process.stdout is not None
        pipes = (process.stdin, process.stdout)

        def close() -> None:
            process.kill()
            process.wait()
            for pipe in pipes:
                pipe.close()

        return cls(process.stdout.fileno(), process.stdin.fileno(), close)


class Probe:
    """A probe that runs in some body."""

    def __init__(self, name: str, channel: Channel) -> None:
        self.name = name
        self._channel = channel
        self._rest = b""
        self._turn = threading.Lock()

    def ask(self, *words: object, seconds: float = SECONDS) -> Told:
        """Have it do one thing; return what it says of it."""
        line = " ".join(str(word) for word in words)
        with self._turn:
            os.write(self._channel.write, line.encode() + b"\n")
            told: Told = json.loads(self._line(line, time.monotonic() + seconds))
        return told

    def must(self, *words: object, seconds: float = SECONDS) -> Told:
        """Have it do one thing that must go well."""
        told = self.ask(*words, seconds=seconds)
        if "error" in told and isinstance(told["error"], str):
            raise Unavailable(f"{self.name} could not {' '.join(str(word) for word in words)[:200]}: {told['error']}")
        return told

    def run(self, command: str, *, check: bool = True, seconds: float = SECONDS) -> str:
        """Run a command by the body's shell; return what it said."""
        told = self.must("run", f"{{ {command}; }} 2>&1", seconds=seconds)
        if check and told["code"]:
            raise Unavailable(f"{self.name}: {command!r} ended with {told['code']}: {told['said'].strip()}")
        return str(told["said"])

    def _line(self, asked: str, end: float) -> bytes:
        while b"\n" not in self._rest:
            if not select.select([self._channel.read], [], [], max(0.0, end - time.monotonic()))[0]:
                raise Unavailable(f"the probe in {self.name} does not answer {asked[:200]!r}")
            heard = os.read(self._channel.read, 65536)
            if not heard:
                raise Unavailable(f"the probe in {self.name} has ended during {asked[:200]!r}")
            self._rest += heard
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def close(self) -> None:
        self._channel.close()

    @contextlib.contextmanager
    def socket(self, *words: object) -> Iterator[Socket]:
        """Open a socket in the body, as the words say; it is closed with the block."""
        made = Socket(self, self.must(*words))
        try:
            yield made
        finally:
            made.close()


class Socket:
    """A socket in a body."""

    def __init__(self, probe: Probe, told: Told) -> None:
        self.probe, self.fd = probe, int(told["fd"])
        self.port = int(told.get("port", 0))

    def send(self, data: bytes | int, ip: str = "", port: int = 0) -> str:
        """Send bytes, or so many; return the name of what the kernel has against it, or nothing."""
        words = [ip, port] if ip else []
        told = self.probe.ask("send", self.fd, f"@{data}" if isinstance(data, int) else data.hex(), *words)
        return str(told.get("error", ""))

    def hear(self, seconds: float) -> Told | None:
        """Return the next that comes, or None if nothing does in time."""
        told = self.probe.ask("recv", self.fd, int(seconds * 1000), seconds=seconds + SECONDS)
        if told.get("error") == "ETIMEDOUT":
            return None
        if "data" in told:
            told["data"] = bytes.fromhex(told["data"])
        return told

    def find(self, wanted: Callable[[bytes], bool], seconds: float) -> bytes | None:
        """Return the first that comes and is wanted, or None if nothing does in time."""
        end = time.monotonic() + seconds
        while True:
            told = self.hear(max(0.0, end - time.monotonic()))
            if told is None:
                return None
            if "data" in told and wanted(told["data"]):
                return bytes(told["data"])

    def error(self, seconds: float) -> Told | None:
        """Return what ICMP said of what was sent, or None if it says nothing in time."""
        told = self.probe.ask("error", self.fd, int(seconds * 1000), seconds=seconds + SECONDS)
        return None if "type" not in told else told

    def accept(self, seconds: float) -> Socket:
        return Socket(self.probe, self.probe.must("accept", self.fd, int(seconds * 1000), seconds=seconds + SECONDS))

    def close(self) -> None:
        self.probe.ask("close", self.fd)
