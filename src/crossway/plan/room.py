"""Rows of a table that the projects of a host share, and who has to go without when it is full."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

H = TypeVar("H", bound=Hashable)
K = TypeVar("K", bound=Hashable)
UNLIMITED = 1 << 62


class Room(Generic[H]):
    """Which holder has how many of *size* rows, by project.

    Each project is assured an equal share. What others leave of theirs it may
    have, too, until they want it: then the project with the most loses what came
    last. So nobody goes without while its project is within its share.

    Those who go without are looked through only when one of them can have what
    has been freed: a host may have thousands of them.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.total = 0
        # Holders without, each with its project and what it wants, in the order in which they are tried again.
        self.refused: dict[H, tuple[str, int]] = {}
        self._rows: dict[str, dict[H, int]] = {}  # project -> holder -> rows, in the order in which they came
        self._used: dict[str, int] = {}
        self._project: dict[H, str] = {}
        self._wanted: dict[str, Counter[int]] = {}  # project -> rows that some want who go without -> how many do
        self._sizes: Counter[int] = Counter()  # the same of all projects
        self._projects: Counter[str] = Counter()  # in how many of `_rows` and `_wanted` each one is
        # Since those without were last looked through: which projects have given rows back, and what was assured then.
        self._freed: set[str] = set()
        self._share = 0
        self._changed: set[H] = set()  # who goes without now, or no longer

    @property
    def share(self) -> int:
        """How many rows each project is assured."""
        return self.size // max(1, len(self._projects))

    def used(self, project: str) -> int:
        """Return how many rows a project has."""
        return self._used.get(project, 0)

    def want(self, holder: H, project: str, rows: int) -> set[H]:
        """Take in how many rows a holder wants, none to give up; return who goes without now, or no longer."""
        self._changed = set()
        self.withdraw(holder)
        if rows and self._project.get(holder) == project:
            self._count(holder, project, rows)
        else:
            self._drop(holder)
            if rows:
                self._count(holder, project, rows)
        self._evict()
        for _ in range(len(self.refused)):
            if not self._may_admit() or not self._admit(besides=holder):
                break
        self._freed.clear()
        self._share = self.share
        return self._changed

    def withdraw(self, holder: H) -> bool:
        """Take note that a holder wants no rows, if it goes without; return whether it did."""
        if holder not in self.refused:
            return False
        project, wanted = self.refused.pop(holder)
        _less(self._sizes, wanted)
        of = self._wanted[project]
        _less(of, wanted)
        if not of:
            del self._wanted[project]
            _less(self._projects, project)
        self._changed ^= {holder}
        return True

    def _refuse(self, holder: H, project: str, wanted: int) -> None:
        self.refused[holder] = (project, wanted)
        self._sizes[wanted] += 1
        if project not in self._wanted:
            self._wanted[project] = Counter()
            self._projects[project] += 1
        self._wanted[project][wanted] += 1
        self._changed ^= {holder}

    def _may_admit(self) -> bool:
        """Return whether anybody who goes without need not any more."""
        if not self.refused:
            return False
        if min(self._sizes) <= self.size - self.total:
            return True
        share = self.share
        freed: Iterable[str] = self._wanted if share > self._share else self._freed & self._wanted.keys()
        return any(self.used(project) + min(self._wanted[project]) <= share for project in freed)

    def _admit(self, besides: H) -> bool:
        """Give those their rows who went without and need not any more; return whether there were any."""
        admitted = False
        for holder, (project, wanted) in list(self.refused.items()):
            free = self.total + wanted <= self.size
            if holder != besides and (free or self.used(project) + wanted <= self.share):
                self.withdraw(holder)
                self._count(holder, project, wanted)
                self._evict()
                admitted = admitted or holder not in self.refused
                if not self._may_admit():
                    break
        return admitted

    def _evict(self) -> None:
        while self.total > self.size:
            most = max(self._used, key=self._used.__getitem__)
            last = next(reversed(self._rows[most]))
            wanted = self._rows[most][last]
            self._drop(last)
            self._refuse(last, most, wanted)

    def _count(self, holder: H, project: str, rows: int) -> None:
        if project not in self._rows:
            self._rows[project] = {}
            self._projects[project] += 1
        of = self._rows[project]
        more = rows - of.get(holder, 0)
        of[holder] = rows
        self._project[holder] = project
        self._used[project] = self._used.get(project, 0) + more
        self.total += more
        if more < 0:
            self._freed.add(project)

    def _drop(self, holder: H) -> None:
        project = self._project.pop(holder, None)
        if project is None:
            return
        rows = self._rows[project].pop(holder)
        self.total -= rows
        self._used[project] -= rows
        self._freed.add(project)
        if not self._rows[project]:
            del self._rows[project], self._used[project]
            _less(self._projects, project)


def _less(counts: Counter[K], key: K) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]
