"""Write what has changed into the kernel's tables, in an order in which no packet meets half of it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby, islice

from crossway.agent.shares import HALVES, Shares
from crossway.kernel.bpf import Object
from crossway.model import rows as r
from crossway.model.rows import Key, Value
from crossway.plan.rows import ORDER, POLICY, Change, Rows, Step, empty, policy_steps

STEPS = 256  # rows that are written at a time
LONGEST = ("port_sets", "prefixes")  # of policy, where the longest prefix counts

log = logging.getLogger(__name__)


class Tables:
    """The tables that the plan fills, and what is in them."""

    def __init__(self, plane: Object) -> None:
        self._plane = plane
        self.shares = Shares(plane)
        self.have: Rows = empty()
        self.failed: dict[str, set[Key]] = {}  # rows that the kernel refused: tried again with each change
        self._generations: dict[int, int] = {}
        self._lengths: dict[tuple[str, int], dict[int, int]] = {}  # of policy, by table and identity: how many of each

    def renew(self, plane: Object) -> None:
        """Go on with the same pinned tables, opened anew."""
        self._plane = plane
        self.shares.renew(plane)

    def read(self) -> None:
        """Find out what is in the tables, left by the agent that ran before."""
        self._lengths.clear()
        for table in ORDER:
            self.have[table] = self._plane.table(table).read()
            self._measure(table, self.have[table], 1)
        self._generations = {k: v for k, v in self._plane.table("generations").read().items() if v}
        self.shares.read()
        self.shares.open(self.have["ports"].keys(), len(self.have["ports"]))
        self.shares.open_networks(self.have["networks"].keys(), len(self.have["networks"]))

    def apply(self, change: Change) -> None:
        """Put what leads nowhere yet, then what leads to it; delete the other way round.

        What a packet passed by is judged anew once all of the change is there.
        """
        if ports := change.put.get("ports"):
            self.shares.open(ports.keys(), len(ports.keys() | self.have["ports"].keys()))
        if networks := change.put.get("networks"):
            self.shares.open_networks(networks.keys(), len(networks.keys() | self.have["networks"].keys()))
        wider, narrower = policy_steps(self.have, change, self._lengths)
        self.write(list(wider))
        for table in ORDER:
            if table not in POLICY and (rows := change.put.get(table)):
                self._put(table, rows)
        for table in reversed(ORDER):
            if table not in POLICY and (keys := change.delete.get(table)):
                self._delete(table, keys)
        self.write(narrower)
        self.judge_anew(change.identities())

    def enforce(self, identity: int, change: Change) -> Iterator[None]:
        """Take the steps of a change of one identity's policy, some at a time; what passed by it is judged anew."""
        wider, narrower = policy_steps(self.have, change, self._lengths)
        for steps in (wider, iter(narrower)):
            while some := list(islice(steps, STEPS)):
                self.write(some)
                yield
        if change:
            self.judge_anew({identity})

    def write(self, steps: Iterable[Step]) -> None:
        """Take some steps of a change, in their order."""
        for (table, puts), some in groupby(steps, key=lambda step: (step.table, step.row is not None)):
            if puts:
                self._put(table, {step.key: step.row for step in some})
            else:
                self._delete(table, [step.key for step in some])

    def _delete(self, table: str, keys: Iterable[Key]) -> None:
        self._plane.table(table).delete(keys)
        self._measure(table, [key for key in keys if self.have[table].pop(key, None) is not None], -1)
        self._succeeded(table, keys)

    def _measure(self, table: str, keys: Iterable[Key], by: int) -> None:
        """Count how long the prefixes of policy are."""
        if table in LONGEST:
            for key in keys:
                lengths = self._lengths.setdefault((table, key.identity), {})
                lengths[key.prefixlen] = lengths.get(key.prefixlen, 0) + by
                if not lengths[key.prefixlen]:
                    del lengths[key.prefixlen]
                if not lengths:
                    del self._lengths[table, key.identity]

    def judge_anew(self, identities: set[int]) -> None:
        """Have the flows of these identities judged by the policy as it is now."""
        if identities:
            rows = {i: (self._generations.get(i, 0) + 1) & 0xFFFFFFFF for i in identities}
            self._plane.table("generations").put(rows)
            self._generations.update(rows)

    def hand_in(self, flows: Mapping[Key, Value]) -> None:
        """Add connections that a port brings along; who has seen one last knows it best."""
        assured, borrowed = (self._plane.table(name) for name in HALVES[r.ShareOf.FLOWS])
        known: dict[Key, Value] = {}
        new: dict[r.PortKey, list[Key]] = {}
        for key, flow in flows.items():
            if (own := assured.get(key)) is not None:
                if own.seen < flow.seen:
                    known[key] = flow
            elif (own := borrowed.get(key)) is None or own.seen < flow.seen:
                new.setdefault(key.port, []).append(key)
        assured.put(known)
        for port, keys in new.items():
            keys.sort(key=lambda key: (not flows[key].flags & r.FlowFlag.REVOKED, -flows[key].seen))
            within = self.shares.take(r.ShareOf.FLOWS, port, len(keys))
            assured.put({key: flows[key] for key in keys[:within]})
            borrowed.delete(keys[:within])
            borrowed.put({key: flows[key] for key in keys[within:]})

    def older(self, identity: int) -> int:
        """Return a generation that an identity's policy had before."""
        return (self._generations.get(identity, 0) - 1) & 0xFFFFFFFF

    def _put(self, table: str, rows: dict[Key, Value]) -> None:
        into = self._plane.table(table)
        try:
            into.put(rows)
        except OSError:
            # Which of them, and why: one refused row must not keep the others out.
            refused: list[tuple[Key, OSError]] = []
            for key, value in rows.items():
                try:
                    into.put({key: value})
                except OSError as fault:
                    refused.append((key, fault))
                    self.failed.setdefault(table, set()).add(key)
                else:
                    self._measure(table, [key] if key not in self.have[table] else (), 1)
                    self.have[table][key] = value
                    self._succeeded(table, [key])
            if refused:
                key, why = refused[0]
                log.error("cannot put %s into %s: %s; %d rows are refused", key, table, why, len(refused))
        else:
            self._measure(table, rows.keys() - self.have[table].keys(), 1)
            self.have[table].update(rows)
            self._succeeded(table, rows)

    def _succeeded(self, table: str, keys: Iterable[Key]) -> None:
        if table in self.failed:
            self.failed[table].difference_update(keys)
            if not self.failed[table]:
                del self.failed[table]
