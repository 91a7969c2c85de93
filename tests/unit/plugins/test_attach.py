"""How things are found that somebody names."""

from __future__ import annotations

import asyncio

import pytest

from crossway.client import Object
from crossway.errors import Conflict, NotFound
from crossway.plugins import attach
from unit.plugins.agent import Agent

ONE, TWO, THREE = (f"3f1f3c3e-0000-4000-8000-00000000000{n}" for n in "123")


def network(id: str, name: str, project: str = "red", *, shared: bool = False) -> Object:
    return {"id": id, "name": name, "project_id": project, "shared": shared}


@pytest.mark.parametrize(
    ("networks", "name", "project", "wanted"),
    [
        ([network(ONE, "blue"), network(TWO, "other")], "blue", None, ONE),
        ([network(ONE, "blue")], ONE, None, ONE),
        ([network(ONE, "blue")], ONE.replace("-", "").upper(), None, ONE),
        ([network(ONE, TWO)], TWO, None, ONE),
        ([network(ONE, "deadbeef" * 4)], "deadbeef" * 4, None, ONE),
        ([network(ONE, TWO), network(TWO, "blue")], TWO, None, TWO),
        ([network(ONE, ONE)], ONE, None, ONE),
        # An id of another project is not what a project names so.
        ([network(ONE, TWO), network(TWO, "blue", "green")], TWO, "red", ONE),
        ([network(ONE, TWO), network(TWO, "blue", "green", shared=True)], TWO, "red", TWO),
        ([network(ONE, "blue", "green"), network(TWO, "blue", "red")], "blue", "red", TWO),
        ([network(ONE, "blue", "green", shared=True)], "blue", "red", ONE),
    ],
)
def test_an_id_comes_before_a_name_and_a_name_may_look_like_one(
    networks: list[Object], name: str, project: str | None, wanted: str
) -> None:
    agent = Agent()
    agent._objects["networks"] = networks
    assert asyncio.run(attach.one(agent, "network", name, project))["id"] == wanted


def test_what_has_no_one_meaning_is_a_fault_that_says_the_ids() -> None:
    agent = Agent()
    agent._objects["networks"] = [network(ONE, "blue"), network(TWO, "blue", "green"), network(THREE, "blue")]
    with pytest.raises(Conflict, match=f"3 of kind network are named blue: say its id \\({ONE}, {TWO}, {THREE}\\)"):
        asyncio.run(attach.one(agent, "network", "blue"))
    with pytest.raises(Conflict, match=f"2 of kind network are named blue: say its id \\({ONE}, {THREE}\\)"):
        asyncio.run(attach.one(agent, "network", "blue", "red"))
    for name in ("nowhere", "deadbeef" * 4):
        with pytest.raises(NotFound, match=name):
            asyncio.run(attach.one(agent, "network", name))
