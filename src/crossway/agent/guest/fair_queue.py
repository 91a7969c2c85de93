"""What many ports of many projects want done: all that there is room for, and in turn.

Where there is no room left, the longest queue gives way: the newest of the
port with the most in the project with the most. So whoever comes with less
than others have is served, however many of them want without end.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """A queue of *most* items in all and *most_of_one* of a member (port), by groups (projects) of members."""

    def __init__(self, most: int, most_of_one: int) -> None:
        self._most, self._most_of_one = most, most_of_one
        self._of_group: Counter[str] = Counter()
        self._turns: OrderedDict[str, OrderedDict[str, deque[T]]] = OrderedDict()

    def __len__(self) -> int:
        return self._of_group.total()

    def put(self, group: str, one: str, item: T) -> T | None:
        """Have something wait; return what gives way to it: nothing, the newest of another, or *item* itself."""
        mine = self._items(group, one)
        if len(mine) >= self._most_of_one:
            return item
        given_way = None
        if len(self) >= self._most:
            largest, most = self._of_group.most_common(1)[0]
            if self._of_group[group] + 1 >= most:
                largest = group
            members = self._turns.get(largest) or (one,)
            member = max(members, key=lambda name: len(self._items(largest, name)))
            items = self._items(largest, member)
            if largest == group and len(mine) + 1 >= len(items):
                return item
            given_way = items[-1]
            self.remove(largest, member, given_way)
        self._turns.setdefault(group, OrderedDict()).setdefault(one, deque()).append(item)
        self._of_group[group] += 1
        return given_way

    def get(self) -> T:
        """Return what is next, one of each group in turn and of each of its members; there must be something."""
        group = next(iter(self._turns))
        one = next(iter(self._turns[group]))
        item = self._turns[group][one][0]
        self._turns.move_to_end(group)
        self._turns[group].move_to_end(one)
        self.remove(group, one, item)
        return item

    def remove(self, group: str, one: str, item: T) -> None:
        """Have something wait no longer; that it does not is no fault."""
        items = self._items(group, one)
        if item not in items:
            return
        if items[-1] is item:
            items.pop()
        else:
            items.remove(item)
        self._of_group[group] -= 1
        if not items:
            del self._turns[group][one]
        if not self._turns[group]:
            del self._turns[group], self._of_group[group]

    def _items(self, group: str, one: str) -> deque[T]:
        return self._turns.get(group, OrderedDict[str, deque[T]]()).get(one) or deque()
