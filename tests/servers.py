"""A server in a process of its own on loopback, and who speaks to it: clients and hosts without a kernel."""

from __future__ import annotations

import itertools
import json
import os
import queue
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from clouds import faults_of
from rules import take_rule

READY_SECONDS = 20.0


class Server:
    """A server in a process of its own; it can be killed and started again on the same file and port."""

    def __init__(self, path: Path, listen: Sequence[str] = ("127.0.0.1:0",)) -> None:
        self.path, self.listen = path, list(listen)
        self.start()

    def start(self, *options: str, keep: Sequence[int] = ()) -> None:
        ready, tell = os.pipe()
        command = [sys.executable, "-m", "crossway", "server", "--store", f"sqlite:{self.path / 'db'}"]
        command += [f"--listen={address}" for address in self.listen]
        with (self.path / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--ready-fd", str(tell), *options], pass_fds=(tell, *keep), stderr=log
            )
        os.close(tell)
        try:
            assert select.select([ready], [], [], READY_SECONDS)[0], "the server is not ready in time"
            told = os.read(ready, 4096)
            assert told, (self.path / "log").read_text()
        finally:
            os.close(ready)
        self.listen = json.loads(told)["listen"]
        self.url = f"http://{next(a for a in self.listen if not a.startswith(('unix:', 'fd:')))}"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> float:
        """End it as an operator does; return the seconds that it took."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(10) == 0
        seconds = time.monotonic() - began
        self.check()
        return seconds

    def check(self) -> None:
        """Hold the claims of a server that has ended against its objects: now, and whenever it started."""
        mended = [line for line in (self.path / "log").read_text().splitlines() if "not as its objects" in line]
        assert not mended, "\n".join(mended)
        found = faults_of(self.path / "db")
        assert not found, "\n".join(found)


class Api:
    """Raw HTTP, as a project or (by default) as the admin."""

    def __init__(self, url: str, **headers: str) -> None:
        self.client = httpx.Client(base_url=url, headers=headers, transport=httpx.HTTPTransport(), timeout=30)

    def __call__(self, method: str, path: str, body: Any = None, want: int | None = None, **options: Any) -> Any:
        answer = self.client.request(method, path, json=body, **options)
        expected = want or {"POST": 201, "DELETE": 204}.get(method, 200)
        assert answer.status_code == expected, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def make(self, kind: str, **body: Any) -> dict[str, Any]:
        """Create one thing; Python names stand for those of the API as in binding__host_id."""
        plural = {"security_group": "security-groups", "security_group_rule": "security-group-rules"}
        named = {name.replace("__", ":"): value for name, value in body.items()}
        path = f"/v2.0/{plural.get(kind, kind + 's')}"
        made: dict[str, Any] = self("POST", path, {kind: named})[kind]
        return made

    def error(self, method: str, path: str, body: Any = None, *, want: int, **options: Any) -> dict[str, str]:
        told: dict[str, str] = self(method, path, body, want, **options)["NeutronError"]
        assert told.keys() == {"type", "message", "detail"}
        return told


class Host:
    """A host without a kernel: it registers, follows its view and reports."""

    numbers = itertools.count(1)

    def __init__(self, api: Api, name: str, underlay: str = "") -> None:
        self.api, self.name = api, name
        n = next(Host.numbers)
        self.underlay = underlay or f"198.51.{100 + n // 250}.{1 + n % 250}"
        self.objects: dict[tuple[str, str], Any] = {}
        self.bookmark = 0
        self.resets = 0
        self.told: queue.Queue[tuple[float, dict[str, Any]] | None] = queue.Queue()
        api("PUT", f"/v1/hosts/{name}", {"underlay": self.underlay, "physnets": {}, "version": "test"})

    def connect(self, after: int | None = None) -> Host:
        """Follow the view; return when the first bookmark has come."""
        self._client = httpx.Client(
            base_url=self.api.client.base_url, transport=httpx.HTTPTransport(), timeout=httpx.Timeout(10)
        )
        path = f"/v1/hosts/{self.name}/view?after={self.bookmark if after is None else after}"
        opened = self._client.send(self._client.build_request("GET", path), stream=True)
        assert opened.headers["content-type"] == "application/x-ndjson"
        self._socket = opened.extensions["network_stream"].get_extra_info("socket")
        self._thread = threading.Thread(target=self._read, args=(opened,))
        self._thread.start()
        self.hear()
        return self

    def _read(self, opened: httpx.Response) -> None:
        try:
            for line in opened.iter_lines():
                self.told.put((time.monotonic(), json.loads(line)))
        except httpx.HTTPError:
            pass
        finally:
            opened.close()
            self.told.put(None)

    def hear(self, seconds: float = 10.0) -> list[dict[str, Any]]:
        """Take in what is told up to the next bookmark; return it."""
        heard = []
        while True:
            item = self.told.get(timeout=seconds)
            if item is None:
                raise ConnectionError("the view has ended")
            self.heard_at, told = item
            heard.append(told)
            if "reset" in told:
                self.resets += 1
                self.objects.clear()
            elif "bookmark" in told:
                self.bookmark = told["bookmark"]
                return heard
            elif told["kind"] == "rule":
                take_rule(self.objects, told)
            elif told["object"] is None:
                self.objects.pop((told["kind"], told["id"]), None)
            else:
                self.objects[told["kind"], told["id"]] = told["object"]

    def until(self, kind: str, id: str, there: bool = True) -> Any:
        """Listen until an object is there, or gone."""
        while ((kind, id) in self.objects) != there:
            self.hear()
        return self.objects.get((kind, id))

    def report(self, **ports: str) -> dict[str, Any]:
        body = {"applied": self.bookmark, "ports": {id.replace("_", "-"): state for id, state in ports.items()}}
        answer: dict[str, Any] = self.api("POST", f"/v1/hosts/{self.name}/status", body, 200)
        return answer

    def ids(self, kind: str) -> set[str]:
        return {id for found, id in self.objects if found == kind}

    def leave(self) -> None:
        """Break the connection from this side."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self.gone()

    def gone(self) -> None:
        """Wait until the connection has ended."""
        while True:
            try:
                self.hear()
            except ConnectionError:
                break
        self._thread.join()
        self._client.close()
