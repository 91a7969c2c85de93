"""Write answers: tables for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

Column = tuple[str, Callable[[Any], Any]]

_COLOURS = {
    "ACTIVE": "green", "UP": "green", "up": "green", "yes": "green", "ready": "green",
    "DOWN": "yellow", "BUILD": "yellow", "down": "yellow", "cut": "yellow",
    "ERROR": "red", "no": "red", "dead": "red",
}  # fmt: skip


def console(error: bool = False) -> Console:
    from rich.console import Console

    stream = sys.stderr if error else sys.stdout
    # What is read by a program, or by grep, must not be folded.
    return Console(stderr=error, highlight=False, soft_wrap=False, width=None if stream.isatty() else 1000)


def as_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")


def table(rows: Sequence[Any], columns: Sequence[Column], json: bool, nothing: str) -> None:
    """Write one line a row; *nothing* is said to people when there is none."""
    if json:
        as_json(rows)
        return
    if not rows:
        console(error=True).print(nothing, style="dim")
        return
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    made = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for name, _ in columns:
        made.add_column(name, overflow="fold", no_wrap=name == "ID")
    for row in rows:
        made.add_row(*(cell(get(row)) for _, get in columns))
    console().print(made)


def one(thing: dict[str, Any], json: bool) -> None:
    """Write all of one thing."""
    if json:
        as_json(thing)
        return
    from rich.table import Table

    made = Table(box=None, pad_edge=False, show_header=False)
    made.add_column(style="bold")
    made.add_column(overflow="fold")
    for name in sorted(thing, key=lambda n: (n not in ("id", "name", "status"), n)):
        made.add_row(name, cell(thing[name]))
    console().print(made)


def cell(value: Any) -> Any:
    """Return a value as it stands in a table."""
    from rich.text import Text

    if value is None or value == "" or value == [] or value == {}:
        return Text("–", style="dim")
    if isinstance(value, bool):
        value = "yes" if value else "no"
    if isinstance(value, list | tuple):
        value = "\n".join(_flat(item) for item in value)
    text = _flat(value)
    return Text(text, style=_COLOURS.get(text, ""))


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k}={_flat(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_flat(v) for v in value)
    return str(value)


def said(text: str) -> None:
    """Tell people, on standard error, what has been done: programs read standard output."""
    console(error=True).print(text)


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Show on a terminal that something takes time."""
    if not sys.stderr.isatty():
        yield
        return
    with console(error=True).status(what):
        yield


def listed(values: Iterable[Any]) -> str:
    return ", ".join(str(v) for v in values)
