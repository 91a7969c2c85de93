"""Our programs on links that may carry filters of others too.

Only what is ours is taken off, and a link's clsact only if it was made for us
and nobody else has put anything there since: `RUN/clsact` says for which links
it was.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from crossway.kernel.bpf import HANDLE, PRIORITIES, Object, detach, remove_clsact
from crossway.kernel.links import Hook, Links


class Hooks:
    """The hooks of one host's links."""

    def __init__(self, run: Path, links: Links) -> None:
        self._links = links
        self._made = run / "clsact"

    def forget_gone(self) -> None:
        """Take note of links that went while nobody looked."""
        there = {link.ifindex for link in self._links.all()}
        for made in self._made.glob("*"):
            if int(made.name) not in there:
                made.unlink()

    def put(self, object: Object, program: str, ifindex: int) -> None:
        """Put a program on a link, in place of the same of another build."""
        if object.attach(program, ifindex):
            self._made.mkdir(mode=0o700, exist_ok=True)
            self._mark(ifindex).touch()

    def keep(self, program: str | None, ifindex: int) -> None:
        """Leave only this program of ours on a link, where this build has it."""
        for hook in self._links.hooks(ifindex):
            if program is None or hook != Hook(program, PRIORITIES[program], HANDLE):
                detach(ifindex, hook.priority, hook.handle)

    def take(self, ifindex: int) -> None:
        """Take our programs off a link."""
        self.keep(None, ifindex)
        if self._mark(ifindex).exists() and not self._links.filtered(ifindex):
            remove_clsact(ifindex)
            self.gone(ifindex)

    def gone(self, ifindex: int) -> None:
        """Take note that a link is no more."""
        self._mark(ifindex).unlink(missing_ok=True)

    def _mark(self, ifindex: int) -> Path:
        return self._made / str(ifindex)


def purge(run: Path, links: Links) -> None:
    """Take our programs off all links."""
    hooks = Hooks(run, links)
    for link in links.all():
        hooks.take(link.ifindex)
    shutil.rmtree(run / "clsact", ignore_errors=True)
