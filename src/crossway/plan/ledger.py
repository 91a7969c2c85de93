"""Keep who wants which rows."""

from __future__ import annotations

from collections.abc import Hashable

from crossway.model.rows import Key, Value
from crossway.plan.rows import Rows, empty

Owner = tuple[str, Hashable]
# What gives way to all others: what was seen of a port, then what stands in for a router.
RANKS = {"learned": 1, "service": 2}
# Whose rows are there only while all of them say the same: of two words one is old, and nobody knows which.
UNANIMOUS = {"learned"}


def _rank(owner: Owner) -> tuple[int, Owner]:
    return RANKS.get(owner[0], 0), owner


class Ledger:
    """The rows that are wanted, and which of them have been touched since last asked.

    Rows are claimed by owners. Where two owners claim one key (an address given
    twice), the one that sorts first has it, by rank and then by name, whatever
    came first: the same claims give the same rows in any order. Of claims by
    what was seen of ports, those that differ give none.
    """

    def __init__(self) -> None:
        self.rows: Rows = empty()
        self.touched: dict[str, set[Key]] = {}
        self._claims: dict[Owner, Rows] = {}
        self._contested: dict[tuple[str, Key], dict[Owner, Value]] = {}
        self._owner: dict[str, dict[Key, Owner]] = {table: {} for table in self.rows}

    def put(self, table: str, key: Key, value: Value) -> None:
        """Want a row that only its caller knows of."""
        self.rows[table][key] = value
        self.touched.setdefault(table, set()).add(key)

    def drop(self, table: str, key: Key) -> None:
        """Want a row no more."""
        if self.rows[table].pop(key, None) is not None:
            self.touched.setdefault(table, set()).add(key)

    def claim(self, owner: Owner, rows: Rows) -> None:
        """Want these rows for *owner*, and none of those that it claimed before."""
        before = self._claims.get(owner, {})
        for table, old in before.items():
            new = rows.get(table, {})
            for key in old:
                if key not in new:
                    self._release(owner, table, key)
        for table, new in rows.items():
            old = before.get(table, {})
            for key, value in new.items():
                if old.get(key) != value:
                    self._take(owner, table, key, value)
        if rows:
            self._claims[owner] = rows
        else:
            self._claims.pop(owner, None)

    def taken(self) -> dict[str, set[Key]]:
        """Return the keys that were touched since the last call."""
        touched, self.touched = self.touched, {}
        return touched

    def _take(self, owner: Owner, table: str, key: Key, value: Value) -> None:
        holder = self._owner[table].get(key)
        contest = self._contested.get((table, key))
        if contest is None:
            if holder is None or holder == owner:
                self._owner[table][key] = owner
                self.put(table, key, value)
                return
            contest = self._contested[table, key] = {holder: self.rows[table][key]}
        contest[owner] = value
        self._settle(table, key, contest)

    def _release(self, owner: Owner, table: str, key: Key) -> None:
        contest = self._contested.get((table, key))
        if contest is None:
            del self._owner[table][key]
            self.drop(table, key)
            return
        del contest[owner]
        self._settle(table, key, contest)
        if len(contest) == 1:
            del self._contested[table, key]

    def _settle(self, table: str, key: Key, contest: dict[Owner, Value]) -> None:
        winner = min(contest, key=_rank)
        self._owner[table][key] = winner
        if winner[0] in UNANIMOUS and any(
            value != contest[winner] for owner, value in contest.items() if owner[0] == winner[0]
        ):
            self.drop(table, key)
        else:
            self.put(table, key, contest[winner])
