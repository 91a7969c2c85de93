"""Rows of a table that the projects of a host share, and who has to go without when it is full."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

H = TypeVar("H", bound=Hashable)
UNLIMITED = 1 << 62


class Room(Generic[H]):
    """Which holder has how many of *size* rows, by project.

    Each project is assured an equal share. What others leave of theirs it may
    have, too, until they want it: then the project with the most loses what came
    last. So nobody goes without while its project is within its share.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.total = 0
        # Holders without, each with its project and what it wants, in the order in which they are tried again.
        self.refused: dict[H, tuple[str, int]] = {}
        self._rows: dict[str, dict[H, int]] = {}  # project -> holder -> rows, in the order in which they came
        self._used: dict[str, int] = {}
        self._project: dict[H, str] = {}

    @property
    def share(self) -> int:
        """How many rows each project is assured."""
        return self.size // max(1, len(self._rows.keys() | {project for project, _ in self.refused.values()}))

    def used(self, project: str) -> int:
        """Return how many rows a project has."""
        return self._used.get(project, 0)

    def want(self, holder: H, project: str, rows: int) -> set[H]:
        """Take in how many rows a holder wants, none to give up; return who goes without now, or no longer."""
        before = set(self.refused)
        self.refused.pop(holder, None)
        if rows and self._project.get(holder) == project:
            self._count(holder, project, rows)
        else:
            self._drop(holder)
            if rows:
                self._count(holder, project, rows)
        self._evict()
        for _ in range(len(self.refused)):
            if not self._admit(besides=holder):
                break
        return set(self.refused) ^ before

    def _admit(self, besides: H) -> bool:
        """Give those their rows who went without and need not any more; return whether there were any."""
        admitted = False
        for holder, (project, wanted) in list(self.refused.items()):
            free = self.total + wanted <= self.size
            if holder != besides and (free or self.used(project) + wanted <= self.share):
                del self.refused[holder]
                self._count(holder, project, wanted)
                self._evict()
                admitted = admitted or holder not in self.refused
        return admitted

    def _evict(self) -> None:
        while self.total > self.size:
            most = max(self._used, key=lambda one: self._used[one])
            last = next(reversed(self._rows[most]))
            self.refused[last] = (most, self._rows[most][last])
            self._drop(last)

    def _count(self, holder: H, project: str, rows: int) -> None:
        of = self._rows.setdefault(project, {})
        more = rows - of.get(holder, 0)
        of[holder] = rows
        self._project[holder] = project
        self._used[project] = self._used.get(project, 0) + more
        self.total += more

    def _drop(self, holder: H) -> None:
        project = self._project.pop(holder, None)
        if project is None:
            return
        rows = self._rows[project].pop(holder)
        self.total -= rows
        self._used[project] -= rows
        if not self._rows[project]:
            del self._rows[project], self._used[project]
