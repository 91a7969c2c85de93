"""Stories run in labs of their own; what an earlier run left behind when it was killed goes first."""

from __future__ import annotations

import pytest

from crossway.lab import sweep


@pytest.fixture(scope="session", autouse=True)
def swept() -> None:
    sweep()
