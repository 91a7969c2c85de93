"""How often: a bucket of tokens for each of those who ask."""

from __future__ import annotations

import math
import time
from collections import OrderedDict

from crossway.errors import Fault, Invalid

KEPT_MAX = 10_000


class TooMany(Fault):
    """More than the caller may ask at a time; *seconds* is when it may come again."""

    status = 429

    def __init__(self, message: str, seconds: int) -> None:
        super().__init__(message, "TooManyRequests")
        self.seconds = seconds


class Buckets:
    """One bucket of tokens for each of many: *rate* come in a second, *burst* fit in."""

    def __init__(self, rate: float, burst: float, kept: int = KEPT_MAX) -> None:
        self.rate, self.burst, self.kept = rate, burst, kept
        self._left: OrderedDict[object, tuple[float, float]] = OrderedDict()

    def take(self, who: object) -> int:
        """Take a token; return 0, or the seconds until there is one."""
        left, now = self._filled(who)
        if left < 1:
            self._left[who] = (left, now)
            return max(1, math.ceil((1 - left) / self.rate))
        self._keep(who, left - 1, now)
        return 0

    def charge(self, who: object, amount: float) -> float:
        """Take tokens that are used already, be they there or not; return the seconds until they are paid for."""
        left, now = self._filled(who)
        self._keep(who, left - amount, now)
        return max(0.0, (amount - left) / self.rate)

    def _filled(self, who: object) -> tuple[float, float]:
        """Return the tokens that a bucket holds now, and the time."""
        now = time.monotonic()
        left, since = self._left.get(who, (self.burst, now))
        return min(self.burst, left + (now - since) * self.rate), now

    def _keep(self, who: object, left: float, now: float) -> None:
        self._left[who] = (left, now)
        self._left.move_to_end(who)
        if len(self._left) > self.kept:
            # Who has not come for longest has a full bucket most likely, which is what one unknown has.
            self._left.popitem(last=False)

    def back(self, who: object) -> None:
        """Give back a token that was taken."""
        if who in self._left:
            left, since = self._left[who]
            self._left[who] = (min(self.burst, left + 1), since)


def rate(text: str) -> Buckets | None:
    """Read RATE or RATE:BURST; 0 is no limit."""
    number, _, burst = text.partition(":")
    try:
        each, most = float(number), float(burst or number)
    except ValueError:
        each = most = -1.0
    if not (0 <= each < math.inf and 0 <= most < math.inf):
        raise Invalid(f"rate '{text}' should be REQUESTS a second, or REQUESTS:BURST, as in 100:500; 0 is no limit")
    return Buckets(each, max(1.0, most)) if each else None
