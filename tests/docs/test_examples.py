"""What the pages tell a reader to type exists, and what is marked `<!-- run -->` runs."""

from __future__ import annotations

import re
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from crossway.cli.app import app
from crossway.lab import down

TOP = Path(__file__).parents[2]
PAGES = [TOP / "README.md", TOP / "CONTRIBUTING.md", *sorted((TOP / "docs" / "guides").glob("*.md"))]
RUN = re.compile(r"<!-- run -->\n```\n(.*?)```", re.DOTALL)


def known() -> set[str]:
    """Return all commands, as `network create`."""
    found = {c.name or (c.callback.__name__ if c.callback else "") for c in app.registered_commands}
    for group in app.registered_groups:
        assert group.typer_instance is not None
        found.add(str(group.name))
        found |= {f"{group.name} {command.name}" for command in group.typer_instance.registered_commands}
    return found


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(TOP)) for page in PAGES])
def test_every_command_on_a_page_exists(page: Path) -> None:
    groups = {group.name for group in app.registered_groups}
    unknown = []
    for first, second in re.findall(r"(?:^|[`(]|; )crossway ([a-z]+)(?: ([a-z]+))?", page.read_text(), re.MULTILINE):
        words = f"{first} {second}" if first in groups and second else first
        if words not in known():
            unknown.append(words)
    assert unknown == []


@pytest.mark.parametrize("page", [p for p in PAGES if RUN.search(p.read_text())], ids=lambda page: page.stem)
def test_what_is_marked_to_run_runs(page: Path) -> None:
    lines = "".join(RUN.findall(page.read_text()))
    told = re.search(r"crossway lab up (\w+)", lines)
    assert told
    name = f"t{secrets.token_hex(4)}"
    script = re.sub(rf"\b(lab (?:up|exec|docker|down|url|show) |CROSSWAY_LAB=){told[1]}\b", rf"\g<1>{name}", lines)
    try:
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail"], input=script, text=True, capture_output=True, cwd=TOP, check=False,
            env={"PATH": f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/nonexistent"},
        )  # fmt: skip
    finally:
        down(name)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0% packet loss" in done.stdout
