"""What a Neutron 29 answered to odd requests, asked of our server again.

`neutron_answers.jsonl` has one request a line: who asked ("admin" if nobody is said), what was
done, what of the answer is kept by which name for later lines, and status and type of Neutron's
answer; where ours is another, `here` says so and `why`. `tells` names members of the answer with
their values, or how many there are in a list. Those of the last story nobody was asked: Neutron's
code says so.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from servers import Server

Step = dict[str, Any]


def stories() -> dict[str, list[Step]]:
    found: dict[str, list[Step]] = {}
    for line in (Path(__file__).parent / "neutron_answers.jsonl").read_text().splitlines():
        step = json.loads(line)
        if "story" in step:
            found[step["story"]] = []
        else:
            found[next(reversed(found))].append(step)
    return found


STORIES = stories()


class Teller:
    """Asks one story's requests, each as who asked it, and keeps what later ones name."""

    def __init__(self, url: str) -> None:
        self.client = httpx.Client(base_url=url, transport=httpx.HTTPTransport(), timeout=30)
        self.kept = {"one": uuid.uuid4().hex, "two": uuid.uuid4().hex}

    def said(self, value: str) -> str:
        for name in sorted(self.kept, key=len, reverse=True):
            value = value.replace(f"${name}", self.kept[name])
        return value

    def ask(self, step: Step) -> httpx.Response:
        project, _, role = step.get("as", "admin").partition(" ")
        headers = {"X-Project-Id": self.kept.get(project, project), "X-Roles": role or "admin"}
        method, _, path = self.said(step["do"]).partition(" ")
        body = json.loads(self.said(json.dumps(step["body"]))) if "body" in step else None
        answer = self.client.request(method, f"/v2.0/{path}", json=body, headers=headers)
        if "keep" in step and answer.is_success:
            one = next(iter(answer.json().values()))
            one = one[0] if isinstance(one, list) else one
            if isinstance(one, dict) and "id" in one:
                self.kept[step["keep"]], self.kept[f"UPPER_{step['keep']}"] = one["id"], one["id"].upper()
        return answer


def told_at(answer: Any, path: str) -> Any:
    """Return what stands in an answer at a path such as port.fixed_ips.0.subnet_id; of a list, how many."""
    for name in path.split("."):
        answer = answer[int(name)] if isinstance(answer, list) else answer.get(name, "nothing")
    return len(answer) if isinstance(answer, list) else answer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of these stories' own: they leave networks that everyone sees."""
    server = Server(tmp_path_factory.mktemp("neutron"))
    yield server
    server.stop()


@pytest.fixture
def teller(server: Server) -> Iterator[Teller]:
    made = Teller(server.url)
    yield made
    made.client.close()


@pytest.mark.parametrize("story", STORIES)
def test_requests_are_answered_as_neutron_answers_them(teller: Teller, story: str) -> None:
    other = []
    for number, step in enumerate(STORIES[story]):
        answer = teller.ask(step)
        told = [answer.status_code]
        if answer.is_error:
            told.append(answer.json()["NeutronError"]["type"])
        if told != step.get("here", step["neutron"]):
            other.append(f"{number}: {step['do']} {step.get('body', '')}: {told} {answer.text[:200]}")
            continue
        for path, value in step.get("tells", {}).items():
            wanted = teller.said(value) if isinstance(value, str) else value
            if told_at(answer.json(), path) != wanted:
                other.append(f"{number}: {step['do']} {step.get('body', '')}: {path} is {told_at(answer.json(), path)}")
    assert not other, "\n".join(other)


def test_what_is_answered_otherwise_has_a_reason() -> None:
    for step in (step for story in STORIES.values() for step in story):
        assert ("here" in step) == bool(step.get("why")), step
        assert step.get("here") != step["neutron"], step
