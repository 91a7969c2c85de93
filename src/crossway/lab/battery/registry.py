"""Which cases there are. A case is given a pair, and raises `Wrong` if something is not as it should be.

@case("L2", "ping", families=(4, 6))
def ping(pair: Pair, family: int) -> None:
    pair.arrives(Ping(family))
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crossway.lab.battery.scene import Scene


class Wrong(Exception):
    """A cell is not as it should be."""


class Skip(Exception):
    """A body cannot do this by its nature; the reason stands in the docs."""


class Way(enum.Enum):
    """What is between the two."""

    SWITCHED = "one network"
    ROUTED = "one router"
    FAR = "three routers"


@dataclass(frozen=True)
class Case:
    """One case, which runs for each pair by itself."""

    area: str
    name: str
    way: Way
    run: Callable[[Any], None]


@dataclass(frozen=True)
class Blow:
    """Something that befalls hosts or servers while all pairs speak: nobody must notice."""

    area: str
    name: str
    run: Callable[[Scene], None]


CASES: list[Case] = []
BLOWS: list[Blow] = []


def case(
    area: str, name: str, *, families: Sequence[int] = (), ways: Sequence[Way] = (Way.SWITCHED,)
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a case: once for each way, and for each family of addresses, which it is given then."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        for way in ways:
            for family in families or (0,):
                words = [name, *([f"over {way.value}"] if way is not Way.SWITCHED else [])]
                full = " ".join(words) + (f", IPv{family}" if family else "")

                def run(pair: Any, family: int = family) -> None:
                    if family:
                        function(pair, family)
                    else:
                        function(pair)

                CASES.append(Case(area, full, way, run))
        return function

    return register


def blow(area: str, name: str) -> Callable[[Callable[[Scene], None]], Callable[[Scene], None]]:
    """Register something that nobody must notice."""

    def register(function: Callable[[Scene], None]) -> Callable[[Scene], None]:
        BLOWS.append(Blow(area, name, function))
        return function

    return register
