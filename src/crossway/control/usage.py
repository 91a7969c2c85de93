"""How much of each resource a project has, is about to have, and may have.

What decisions under way are making counts as made, so that no number of them at
once takes a project beyond its quota. That holds within one process.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from crossway.control.policy_rows import QUOTA as POLICY_ROWS
from crossway.control.policy_rows import PolicyRows
from crossway.errors import OverQuota
from crossway.model.kinds import KINDS
from crossway.model.quota import LIMITED, UNLIMITED, Quota

if TYPE_CHECKING:
    from crossway.control.cloud import Table

# By table: the name of the resource that a quota limits.
NAMES = {kind.table: kind.name for kind in KINDS if kind.name in LIMITED and "project_id" in kind.indexes}
TABLES = {name: table for table, name in NAMES.items()}


class Usage:
    """*limits* are those of every project of which no quota says otherwise; what they don't name has none."""

    def __init__(self, tables: Mapping[str, Table[Any]], limits: Mapping[str, int]) -> None:
        self.limits = {name: limits.get(name, UNLIMITED) for name in LIMITED}
        self._tables = tables
        self._quotas: Mapping[str, Quota] = tables["quota"].rows
        self.policy_rows = PolicyRows(tables, self)
        # Ids of what is being made, by table and project, until the copy has them or they are given up.
        self._making: dict[tuple[str, str], set[str]] = {}

    def limit(self, name: str, project: str) -> int:
        """Return how many a project may have; UNLIMITED is -1."""
        quota = self._quotas.get(project)
        said = None if quota is None else getattr(quota, name)
        return self.limits[name] if said is None else int(said)

    def used(self, name: str, project: str) -> int:
        """Return how many a project has."""
        table = TABLES.get(name)
        if name == POLICY_ROWS:
            return self.policy_rows.used(project)
        return 0 if table is None else len(self._tables[table].ids("project_id", project))

    def reserved(self, name: str, project: str) -> int:
        """Return how many of a project are being made."""
        if name == POLICY_ROWS:
            return self.policy_rows.reserved(project)
        return len(self._making.get((TABLES.get(name, ""), project), ()))

    def take(self, table: str, project: str, id: str, limited: bool) -> None:
        """Count a new object; raise OverQuota if it is *limited* and one too many."""
        name = NAMES[table]
        if limited and project:
            limit = self.limit(name, project)
            if limit != UNLIMITED and self.used(name, project) + self.reserved(name, project) >= limit:
                raise OverQuota(f"Quota exceeded for resources: ['{name}'].")
        self._making.setdefault((table, project), set()).add(id)

    def making(self) -> Mapping[tuple[str, str], set[str]]:
        """Return the ids of what is being made, by table and project."""
        return self._making

    def settle(self, table: str, project: str, id: str) -> None:
        """Count an object no longer among those that are being made: it is there, or never will be."""
        making = self._making.get((table, project))
        if making is not None:
            making.discard(id)
            if not making:
                del self._making[table, project]
