"""Who wants without end, and who is served all the same."""

from __future__ import annotations

from collections import Counter

import pytest

from crossway.agent.guest.fair_queue import FairQueue


@pytest.mark.parametrize(("groups", "members"), [(1, 1), (1, 17), (1, 400), (17, 1), (50, 40), (300, 1)])
@pytest.mark.parametrize("at_once", [True, False], ids=["one after the other", "in turn"])
def test_whoever_wants_without_end_leaves_room_for_one_who_comes(groups: int, members: int, at_once: bool) -> None:
    queue: FairQueue[str] = FairQueue(512, 32)
    everyone = [(f"g{group}", f"m{member}") for group in range(groups) for member in range(members)]
    for group, member in everyone * 40 if not at_once else [one for one in everyone for _ in range(40)]:
        queue.put(group, member, f"{group} {member}")
    assert len(queue) <= 512
    # Its share is what it would have if all who want had the same.
    share = min(32, 512 // (groups + 1))
    for _ in range(share):
        assert queue.put("quiet", "port", "quiet") != "quiet"
    served = Counter(queue.get() for _ in range(len(queue)))
    assert served["quiet"] == share


def test_in_a_group_a_member_with_little_is_served_too() -> None:
    queue: FairQueue[str] = FairQueue(64, 32)
    for member in "ab":
        for _ in range(40):
            queue.put("g", member, member)
    assert [queue.put("g", "c", "c") for _ in range(4)] == ["a", "b", "a", "b"]
    assert queue.put("g", "a", "new") == "new"
    served = Counter(queue.get() for _ in range(len(queue)))
    assert served == {"a": 30, "b": 30, "c": 4}


def test_the_newest_gives_way_and_the_rest_comes_in_order() -> None:
    queue: FairQueue[int] = FairQueue(4, 64)
    assert [queue.put("g", "m", n) for n in range(6)] == [None] * 4 + [4, 5]
    assert queue.put("h", "m", 100) == 3
    assert [queue.get() for _ in range(4)] == [0, 100, 1, 2]
    assert not queue


def test_groups_are_served_in_turn_and_in_each_its_members() -> None:
    queue: FairQueue[str] = FairQueue(512, 32)
    for n in range(3):
        for group, member in (("a", "1"), ("a", "1"), ("a", "2"), ("b", "1")):
            assert queue.put(group, member, f"{group}{member}.{n}") is None
    served = [queue.get()[:2] for _ in range(len(queue))]
    assert served == ["a1", "b1", "a2", "b1", "a1", "b1", "a2", "a1", "a2", "a1", "a1", "a1"]
    assert not queue


def test_a_quiet_port_is_served_next_but_one_however_long_the_others_queue() -> None:
    queue: FairQueue[str] = FairQueue(4096, 64)
    for n in range(100):
        for member in range(17):
            queue.put("loud", str(member), f"loud {n}")
    assert queue.put("quiet", "port", "quiet") is None
    assert "quiet" in (queue.get(), queue.get())


def test_a_member_has_its_bound_though_there_is_room() -> None:
    queue: FairQueue[int] = FairQueue(4096, 64)
    assert [queue.put("g", "m", n) for n in range(70)] == [None] * 64 + list(range(64, 70))
    queue.remove("g", "m", 10)
    queue.remove("g", "m", 10)
    assert queue.put("g", "m", 70) is None
    assert [queue.get() for _ in range(64)] == [n for n in range(64) if n != 10] + [70]
    queue.remove("g", "m", 70)
    assert not queue
