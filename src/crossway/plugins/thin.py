#!/usr/bin/python3 -IS
# SPDX-License-Identifier: Apache-2.0
"""The CNI executable: hands what the runtime says to the agent, and the agent's answer back.

Installed as `crossway-cni`. A runtime waits for it at every start of a pod, so
it imports only what the interpreter has loaded anyway, and the C socket: the
agent reads the configuration and writes the answer.
"""

import _socket
import posix
import sys

RUN = "/run/crossway"
SECONDS = 60
VERSIONS = ("0.4.0", "1.0.0", "1.1.0")


def read() -> bytes:
    """Return the configuration on standard input."""
    parts = []
    while part := posix.read(0, 1 << 16):
        parts.append(part)
    return b"".join(parts)


def fail(conf: bytes, code: int, message: str, details: str = "") -> int:
    """Say a fault as the specification has it."""
    import json

    try:
        version = str(json.loads(conf)["cniVersion"])
    except (ValueError, KeyError, TypeError):
        version = VERSIONS[-1]
    told = {"code": code, "msg": message, "details": details, "cniVersion": version}
    posix.write(1, json.dumps(told).encode() + b"\n")
    return 1


def versions(conf: bytes) -> int:
    """Answer VERSION, for which no agent is needed."""
    import json

    try:
        version = str(json.loads(conf or b"{}").get("cniVersion", VERSIONS[-1]))
    except (ValueError, AttributeError) as fault:
        return fail(b"", 6, "cannot decode the configuration", str(fault))
    posix.write(1, json.dumps({"cniVersion": version, "supportedVersions": list(VERSIONS)}).encode() + b"\n")
    return 0


def socket_of(conf: bytes) -> str:
    """Return the path of the agent's socket: what the configuration names, or the one in CROSSWAY_RUN."""
    if b'"agent"' in conf:
        import json

        try:
            if named := json.loads(conf).get("agent"):
                return str(named)
        except (ValueError, AttributeError):
            pass  # the agent says what is wrong with it
    run = posix.environ.get(b"CROSSWAY_RUN") or RUN.encode()
    return (run + b"/agent.sock").decode()


def ask(path: str, content: bytes) -> tuple[int, bytes]:
    """Return status and body of the agent's answer."""
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    connection.settimeout(SECONDS)
    connection.connect(path)
    head = b"POST /v1/cni HTTP/1.1\r\nHost: agent\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    rest = head % len(content) + content
    while rest:
        rest = rest[connection.send(rest) :]
    answer = b""
    while part := connection.recv(1 << 16):
        answer += part
    top, _, body = answer.partition(b"\r\n\r\n")
    return int(top.split(None, 2)[1]), body


def main() -> int:
    """Answer one command of the runtime; return the exit status."""
    said = {name: value for name, value in posix.environ.items() if name.startswith(b"CNI_")}
    command = said.get(b"CNI_COMMAND", b"")
    conf = read()
    if command == b"VERSION":
        return versions(conf)
    # Relative to where the runtime stands, which the agent does not know.
    netns = said.get(b"CNI_NETNS", b"")
    if netns and not netns.startswith(b"/"):
        said[b"CNI_NETNS"] = posix.getcwdb() + b"/" + netns
    content = b"".join(name + b"=" + value + b"\0" for name, value in said.items()) + b"\0" + conf
    path = socket_of(conf)
    try:
        status, body = ask(path, content)
    except (OSError, ValueError, IndexError) as fault:
        # Of STATUS and of the rest: not available, and try again later.
        code = 50 if command == b"STATUS" else 11
        return fail(conf, code, f"the agent does not answer at {path}", str(fault))
    if status != 200:
        return fail(conf, 11, f"the agent answered {status}", body.decode("utf-8", "replace"))
    if body == b"null":  # nothing to say
        return 0
    posix.write(1, body + b"\n")
    return 1 if body.startswith(b'{"code":') else 0


if __name__ == "__main__":
    sys.exit(main())
