"""The CNI executable: what it says to the agent, and what it says by itself."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import crossway.plugins

PLUGIN = Path(crossway.plugins.__file__).with_name("crossway-cni")
VERSIONS = ["0.4.0", "1.0.0", "1.1.0"]


class Agent:
    """What listens in an agent's place: keeps what is asked, answers what it is told to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnull"
        self.heard = b""
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            with connection:
                self.heard = b""
                while b"\r\n\r\n" not in self.heard:
                    part = connection.recv(65536)
                    if not part:
                        return
                    self.heard += part
                head, _, body = self.heard.partition(b"\r\n\r\n")
                size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                while len(body) < size:
                    body += connection.recv(65536)
                self.heard = head + b"\r\n\r\n" + body
                connection.sendall(self.answer)

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX) as last:
            last.connect(str(self.path))
        self._thread.join()
        self._socket.close()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    made = Agent(tmp_path / "agent.sock")
    yield made
    made.close()


def call(conf: Any, cwd: Path | None = None, **said: str) -> tuple[int, Any]:
    """Run the executable; return its exit status and what it printed."""
    done = subprocess.run(
        [PLUGIN], input=conf if isinstance(conf, bytes) else json.dumps(conf).encode(), env=dict(said),
        capture_output=True, check=False, timeout=10, cwd=cwd,
    )  # fmt: skip
    assert done.stderr == b""
    return done.returncode, json.loads(done.stdout) if done.stdout else None


def body(agent: Agent) -> tuple[dict[str, str], bytes]:
    """Return the variables and the configuration that the agent heard."""
    head, _, content = agent.heard.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/cni HTTP/1.1\r\n")
    variables, _, conf = content.partition(b"\0\0")
    return dict(v.decode().split("=", 1) for v in variables.split(b"\0")), conf


def test_it_hands_on_the_call_as_it_is(agent: Agent) -> None:
    conf = {"cniVersion": "1.0.0", "agent": str(agent.path), "prevResult": {"ips": ["ü", "\\"] * 9000}}
    assert call(conf, CNI_COMMAND="ADD", CNI_ARGS="A=b;C=d", CNI_NETNS="/run/netns/x", HOME="/nonexistent") == (0, None)
    variables, told = body(agent)
    assert variables == {"CNI_COMMAND": "ADD", "CNI_ARGS": "A=b;C=d", "CNI_NETNS": "/run/netns/x"}
    assert json.loads(told) == conf


def test_a_namespace_is_named_from_where_the_runtime_stands(agent: Agent, tmp_path: Path) -> None:
    call({"agent": str(agent.path)}, cwd=tmp_path, CNI_COMMAND="ADD", CNI_NETNS="ns/x")
    assert body(agent)[0]["CNI_NETNS"] == f"{tmp_path}/ns/x"
    call({"agent": str(agent.path)}, cwd=tmp_path, CNI_COMMAND="DEL", CNI_NETNS="")
    assert body(agent)[0]["CNI_NETNS"] == ""


def test_the_agent_is_where_the_configuration_or_the_environment_says(agent: Agent) -> None:
    call({"a": {"agent": "/nonexistent"}, "agent": str(agent.path)}, CNI_COMMAND="ADD", CROSSWAY_RUN="/nonexistent")
    assert agent.heard
    agent.heard = b""
    call({"x": '"agent": "/nonexistent"'}, CNI_COMMAND="ADD", CROSSWAY_RUN=str(agent.path.parent))
    assert agent.heard


ANSWERS: Mapping[str, tuple[bytes, int, Any]] = {
    "a result": (b'{"cniVersion":"1.0.0"}', 0, {"cniVersion": "1.0.0"}),
    "a fault": (b'{"code":7,"msg":"no"}', 1, {"code": 7, "msg": "no"}),
    "nothing": (b"null", 0, None),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_the_answer_is_printed(agent: Agent, case: str) -> None:
    content, status, told = ANSWERS[case]
    agent.answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content) + content
    assert call({"agent": str(agent.path)}, CNI_COMMAND="ADD") == (status, told)


@pytest.mark.parametrize(
    "answer", [b"", b'HTTP/1.1 500 Oh\r\n\r\n{"error": "\\""}', b"SSH-2.0-x\r\n\r\nnull"], ids=["none", "500", "ssh"]
)
def test_an_agent_that_answers_otherwise_is_to_be_tried_again(agent: Agent, answer: bytes) -> None:
    agent.answer = answer
    status, told = call({"agent": str(agent.path), "cniVersion": "0.4.0"}, CNI_COMMAND="ADD")
    assert (status, told["code"], told["cniVersion"]) == (1, 11, "0.4.0")


def test_what_is_too_large_for_the_agent_is_so_another_time(agent: Agent) -> None:
    agent.answer = b"HTTP/1.1 413 \r\n\r\n{}"
    status, told = call({"agent": str(agent.path)}, CNI_COMMAND="GC")
    assert (status, told["code"]) == (1, 7)


def test_an_agent_that_goes_while_it_is_spoken_to_is_to_be_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        threading.Thread(target=lambda: listener.accept()[0].close()).start()
        status, told = call({"agent": str(path), "x": "x" * (4 << 20)}, CNI_COMMAND="ADD")
    assert (status, told["code"]) == (1, 11)


@pytest.mark.parametrize(("command", "code"), [("ADD", 11), ("DEL", 11), ("STATUS", 50)])
def test_no_agent(command: str, code: int) -> None:
    status, told = call({"agent": "/non'existent/ü\u20ac&"}, CNI_COMMAND=command)
    assert (status, told["code"]) == (1, code)
    assert "/non'existent/ü\u20ac&" in told["msg"]
    assert call({"agent": "/" + 200 * "x"}, CNI_COMMAND=command)[1]["code"] == code


@pytest.mark.parametrize("said", [*VERSIONS, "0.3.1", None])
def test_the_version_needs_no_agent(said: str | None) -> None:
    conf = {"cniVersion": said} if said else {}
    assert call(conf, CNI_COMMAND="VERSION") == (0, {"cniVersion": said or "1.1.0", "supportedVersions": VERSIONS})


@pytest.mark.parametrize("conf", [b"[]", b"no", b'{"cniVersion"'])
def test_what_is_no_configuration_has_code_6(conf: bytes) -> None:
    status, told = call(conf, CNI_COMMAND="VERSION")
    assert (status, told["code"]) == (1, 6)


def test_it_needs_no_library_of_the_host() -> None:
    told = subprocess.run(["ldd", PLUGIN], capture_output=True, text=True, check=False)
    assert "not a dynamic executable" in told.stderr
