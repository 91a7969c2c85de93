"""Write what has changed into the kernel's tables, in an order in which no packet meets half of it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from crossway.kernel.bpf import Object
from crossway.model.rows import Key, Value
from crossway.plan.rows import ORDER, Change, Rows, empty

log = logging.getLogger(__name__)


class Tables:
    """The tables that the plan fills, and what is in them."""

    def __init__(self, plane: Object) -> None:
        self._plane = plane
        self.have: Rows = empty()
        self.failed: dict[str, set[Key]] = {}  # rows that the kernel refused: tried again with each change
        self._generations: dict[int, int] = {}

    def renew(self, plane: Object) -> None:
        """Go on with the same pinned tables, opened anew."""
        self._plane = plane

    def read(self) -> None:
        """Find out what is in the tables, left by the agent that ran before."""
        for table in ORDER:
            self.have[table] = self._plane.table(table).read()
        self._generations = {k: v for k, v in self._plane.table("generations").read().items() if v}

    def apply(self, change: Change) -> None:
        """Put what leads nowhere yet, then what leads to it; delete the other way round.

        What a packet passed by is judged anew once all of the change is there.
        """
        for table in ORDER:
            if rows := change.put.get(table):
                self._put(table, rows)
        for table in reversed(ORDER):
            if keys := change.delete.get(table):
                self._plane.table(table).delete(keys)
                for key in keys:
                    del self.have[table][key]
                self._succeeded(table, keys)
        self.judge_anew(change.identities())

    def judge_anew(self, identities: set[int]) -> None:
        """Have the flows of these identities judged by the policy as it is now."""
        if identities:
            rows = {i: (self._generations.get(i, 0) + 1) & 0xFFFFFFFF for i in identities}
            self._plane.table("generations").put(rows)
            self._generations.update(rows)

    def hand_in(self, flows: Mapping[Key, Value]) -> None:
        """Add connections that a port brings along; who has seen one last knows it best."""
        table = self._plane.table("flows")
        table.put({key: flow for key, flow in flows.items() if (own := table.get(key)) is None or own.seen < flow.seen})

    def older(self, identity: int) -> int:
        """Return a generation that an identity's policy had before."""
        return (self._generations.get(identity, 0) - 1) & 0xFFFFFFFF

    def _put(self, table: str, rows: dict[Key, Value]) -> None:
        into = self._plane.table(table)
        try:
            into.put(rows)
        except OSError:
            # Which of them, and why: one refused row must not keep the others out.
            for key, value in rows.items():
                try:
                    into.put({key: value})
                except OSError as fault:
                    log.error("cannot put %s = %s into %s: %s", key, value, table, fault)
                    self.failed.setdefault(table, set()).add(key)
                else:
                    self.have[table][key] = value
                    self._succeeded(table, [key])
        else:
            self.have[table].update(rows)
            self._succeeded(table, rows)

    def _succeeded(self, table: str, keys: Iterable[Key]) -> None:
        if table in self.failed:
            self.failed[table].difference_update(keys)
            if not self.failed[table]:
                del self.failed[table]
