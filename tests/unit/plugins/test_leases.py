"""What containers had that have stopped."""

from __future__ import annotations

from crossway.plugins import leases
from crossway.plugins.leases import Leases


def test_what_a_container_had_is_taken_once_by_network_or_subnet() -> None:
    had = Leases()
    had.keep("a", "n", {"s4": "10.0.0.5", "s6": "fd00::5"})
    had.keep("b", "n", {"s4": "10.0.0.6"})
    had.keep("a", "m", {"t4": "10.1.0.5"})
    assert had.containers("n") == had.containers("s4") == ["a", "b"]
    assert had.containers("s6") == had.containers("m") == ["a"]
    assert had.take("a", "s4") == ("10.0.0.5",)
    assert had.take("a", "s4") == ()
    assert had.take("a", "n") == ("fd00::5",)
    assert had.take("b", "n") == ("10.0.0.6",)
    assert had.containers("n") == []
    assert had.take("a", "m") == ("10.1.0.5",)


def test_what_was_released_last_counts_and_comes_last() -> None:
    had = Leases()
    for name, ip in (("a", "10.0.0.5"), ("b", "10.0.0.6"), ("a", "10.0.0.7")):
        had.keep(name, "n", {"s4": ip})
    assert had.containers("n") == ["b", "a"]
    assert had.take("a", "n") == ("10.0.0.7",)
    had.forget(["b"])
    assert had.containers("n") == []


def test_what_is_remembered_has_a_bound() -> None:
    had = Leases()
    for number in range(leases.LEASES_MAX + 5):
        had.keep(str(number), "n", {"s": "10.0.0.5"})
    assert had.containers("n")[0] == "5"
    assert len(had.containers("n")) == leases.LEASES_MAX
