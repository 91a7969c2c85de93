"""`crossway up --detach` and `crossway down`: all of Crossway on this machine, in the background."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from crossway.cli import show
from crossway.cli.external import LOCK
from crossway.errors import NotFound, Unavailable
from crossway.lab import process
from crossway.lab.process import Process, Ready, last_words

SECONDS = 60.0


def start(words: Sequence[str], run: Path) -> None:
    """Start `crossway up` with these options; return when it is ready, or say why it is not."""
    run.mkdir(mode=0o700, parents=True, exist_ok=True)
    log = run / "up.log"
    log.unlink(missing_ok=True)
    ready = Ready("crossway up", log)
    command = [sys.executable, "-m", "crossway", "up", *words, "--ready-fd", str(ready.fd)]
    began = process.start(command, log=log, keep=[ready.fd])
    ready.given()
    try:
        ready.wait(SECONDS)
    except Unavailable:
        process.stop([began], seconds=10.0)
        raise
    print(log.read_text(), end="", file=sys.stderr)


def stop(run: Path) -> None:
    """End it, and wait until it has; it says what stays."""
    try:
        with (run / LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        raise NotFound("crossway up", f"in {run}") from None
    except BlockingIOError:
        running = Process.of(int((run / LOCK).read_text()))
    else:
        raise NotFound("crossway up", f"in {run}")
    log = run / "up.log"
    said = log.stat().st_size if log.exists() else 0
    running.signal(signal.SIGTERM)
    end = time.monotonic() + SECONDS
    while running.alive:
        if time.monotonic() > end:
            raise Unavailable(f"it does not end; its log says: {last_words(log)}")
        time.sleep(0.02)
    if log.exists():
        with log.open() as text:
            text.seek(said, os.SEEK_SET)
            print(text.read(), end="", file=sys.stderr)
    show.said("crossway is down")
