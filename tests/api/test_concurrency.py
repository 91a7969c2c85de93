"""Many clients at once: nothing is given twice, nothing is beyond a quota, nothing is left over."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter

import pytest

from crowd import Asker, Member, Record, claims, clear, crowd, listed, orphans, stored
from servers import Server

CLIENTS = 16
# CROWD_SECONDS=60 make test ARGS='-s tests/api/test_concurrency.py' is the long run.
SECONDS = float(os.environ.get("CROWD_SECONDS", "8"))
PROJECT = "crowd"
QUOTA = {
    "network": 4,
    "subnet": 8,
    "port": 60,
    "router": 6,
    "floatingip": 8,
    "security_group": 8,
    "security_group_rule": 40,
}
# Answers that a crowd gets in so many seconds if it gets anywhere.
ANSWERS_PER_SECOND = 50


class Watch(threading.Thread):
    """Counts what the project has, again and again, and keeps the most that there was of each."""

    def __init__(self, asker: Asker, end: threading.Event) -> None:
        super().__init__()
        self.asker, self.end = asker, end
        self.most: Counter[str] = Counter()

    def run(self) -> None:
        while not self.end.is_set():
            for kind in QUOTA:
                plural = f"{kind}s"
                rows = self.asker.ask("GET", f"{plural.replace('_', '-')}?project_id={PROJECT}&fields=id")[1][plural]
                self.most[kind] = max(self.most[kind], len(rows))
            time.sleep(0.05)


@pytest.mark.timeout(120 + 3 * SECONDS)
def test_a_crowd_leaves_nothing_twice_nothing_over_and_nothing_behind(own: Server) -> None:
    own.stop()
    fresh = stored(own.path / "db").keys()
    own.start()
    record = Record()
    admin = Asker(own.url, record)
    outside = admin.ask("POST", "networks", {"network": {"router:external": True, "name": "outside"}})[1]["network"][
        "id"
    ]
    body = {"network_id": outside, "ip_version": 4, "cidr": "198.51.100.0/27"}
    assert admin.ask("POST", "subnets", {"subnet": body})[0] == 201
    assert admin.ask("PUT", f"quotas/{PROJECT}", {"quota": QUOTA})[0] == 200

    end = threading.Event()
    watch = Watch(Asker(own.url, record), end)
    watch.start()
    with crowd([Member(own.url, record, PROJECT, outside, seed) for seed in range(CLIENTS)], end):
        time.sleep(SECONDS)
    watch.join()
    watch.asker.close()

    found = listed(admin)
    assert not record.faults
    assert not orphans(found)
    used = admin.ask("GET", f"quotas/{PROJECT}/details")[1]["quota"]
    for kind, most in QUOTA.items():
        mine = [row for row in found[kind].values() if row["project_id"] == PROJECT]
        assert used[kind]["used"] == len(mine), kind
        assert used[kind]["reserved"] == 0, kind
        assert watch.most[kind] <= most, kind
    for kind, ids in record.there.items():
        # With these their subnets, their rules go as well.
        if kind not in ("subnet", "security_group_rule"):
            assert ids <= found[kind].keys(), kind
    for kind, ids in record.deleted.items():
        assert not ids & found[kind].keys(), kind
    # The crowd did what it is there for: it was refused by quotas and by each other, and made much all the same.
    assert record.answers.total() > ANSWERS_PER_SECOND * SECONDS
    assert all(record.deleted[kind] for kind in QUOTA), record.deleted.keys()
    assert sum(watch.most[kind] == most for kind, most in QUOTA.items()) >= 3, watch.most
    print(f"{record.answers.total()} answers: {dict(record.answers)}; the most there was: {dict(watch.most)}")

    own.stop()
    assert claims(stored(own.path / "db")) == (set(), set())
    own.start()
    admin.url = own.url
    admin.close()
    clear(admin, listed(admin))
    assert admin.ask("DELETE", f"quotas/{PROJECT}")[0] == 204
    admin.close()
    assert not record.faults
    own.stop()
    assert stored(own.path / "db").keys() == fresh
