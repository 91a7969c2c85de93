"""The stock `openstack` command line does every network command that applies."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
from collections.abc import Iterator
from importlib.metadata import entry_points

import httpx
import pytest

from api.openstack_commands import NOT_DONE, STORY
from servers import Server

pytestmark = pytest.mark.filterwarnings("ignore")
LINE = re.compile(r"(?:(\w+)= )?(.*)")


class Client:
    """The client in this process: starting one for each command would take minutes."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.kept: dict[str, str] = {}

    def run(self, *words: str) -> tuple[int, str]:
        from openstackclient.shell import OpenStackShell

        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            shell = OpenStackShell()
            try:
                code = shell.run(["--os-auth-type", "none", "--os-endpoint", self.url, *words])
            except SystemExit as end:  # the client's parser, of words that it does not know
                code = int(end.code or 2)
        return code, out.getvalue()

    def line(self, line: str) -> str | None:
        """Do a line of the story; return what went wrong."""
        found = LINE.fullmatch(line)
        assert found
        name, command = found.groups()
        try:
            words = shlex.split(command.format_map(self.kept))
        except KeyError as error:
            return f"there is no {error}"
        if name or words[-1] == "list" or " show " in f" {command} " or " list " in f" {command} ":
            words += ["-f", "json"]
        code, said = self.run(*words)
        if code:
            return said
        if name:
            told = json.loads(said[min(at for at in (said.find("{"), said.find("[")) if at >= 0) :])
            self.kept[name] = (told[0] if isinstance(told, list) else told).get("id") or told[0]["ID"]
        return None


@pytest.fixture(scope="module")
def client(shared: Server) -> Iterator[Client]:
    kept = dict(os.environ)
    for name in [name for name in os.environ if name.startswith("OS_")]:
        del os.environ[name]
    httpx.put(f"{shared.url}/v1/hosts/h1", json={"underlay": "192.0.2.1"}).raise_for_status()
    yield Client(shared.url)
    os.environ.clear()
    os.environ.update(kept)


def commands() -> dict[str, str]:
    """Return the client's network commands: as they are typed, by their names in its package."""
    return {e.name: e.name.replace("_", " ") for e in entry_points(group="openstack.network.v2")}


def lines() -> list[str]:
    return [line for line in STORY.strip().splitlines() if not line.startswith("#")]


def typed(line: str) -> str:
    found = LINE.fullmatch(line)
    assert found
    return found.group(2)


def test_every_command_is_done_or_explained() -> None:
    done = {c for c in commands().values() for line in lines() if f"{typed(line)} ".startswith(f"{c} ")}
    assert set(commands().values()) - done - NOT_DONE.keys() == set()
    assert not NOT_DONE.keys() & done


def test_every_command_of_the_story_works(client: Client) -> None:
    failed = [f"{line}\n    {said.strip()}" for line in lines() if (said := client.line(line)) is not None]
    assert not failed, "\n".join(failed)
