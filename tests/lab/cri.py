"""A containerd as a kubelet speaks to it: the calls of its CRI that begin and end a pod's sandbox, by gRPC.

A kubelet's client would be a Go program, or 40 MB of Python; what is needed of
gRPC is a POST over HTTP/2, which curl can, and of protobuf two kinds of field.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
import struct
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import crossway.plugins
from crossway.lab import process
from crossway.lab.lab import Host
from crossway.lab.place import Place
from lab.stories import wait_for

PAUSE = "int pause(void);int main(void){for(;;)pause();}"
IMAGE = "docker.io/library/pause:1"
Message = dict[int, Any]  # by number of the field: a number, a text, another message, or a list of them


def packed(message: Message) -> bytes:
    """Return a protobuf message: field numbers, and numbers, texts, messages, or several of them."""
    out = b""
    for number, value in message.items():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, int):
                out += _varint(number << 3) + _varint(one)
            else:
                raw = one.encode() if isinstance(one, str) else packed(one)
                out += _varint(number << 3 | 2) + _varint(len(raw)) + raw
    return out


def fields(raw: bytes) -> dict[int, list[Any]]:
    """Return the fields of a protobuf message: numbers, and bytes of the rest."""
    found: dict[int, list[Any]] = {}
    at = 0
    while at < len(raw):
        key, at = _unvarint(raw, at)
        value, at = _unvarint(raw, at)
        if key & 7 == 2:
            value, at = raw[at : at + value], at + value
        found.setdefault(key >> 3, []).append(value)
    return found


def _varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def _unvarint(raw: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        number |= (raw[at] & 127) << shift
        shift, at = shift + 7, at + 1
        if raw[at - 1] < 128:
            return number, at


def pause(root: Path) -> Path:
    """Make the image that holds a sandbox: one static program that waits."""
    program, saved = root / "pause", root / "pause.tar"
    subprocess.run(["clang", "-x", "c", "-static", "-Os", "-s", "-o", program, "-"], input=PAUSE, text=True, check=True)
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        tar.add(program, "pause")
    config = json.dumps({
        "architecture": "amd64", "os": "linux", "config": {"Entrypoint": ["/pause"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer.getvalue()).hexdigest()}"]},
    }).encode()  # fmt: skip
    manifest = json.dumps([{"Config": "config.json", "RepoTags": ["pause:1"], "Layers": ["layer.tar"]}]).encode()
    with tarfile.open(saved, mode="w") as tar:
        for name, content in (("config.json", config), ("layer.tar", layer.getvalue()), ("manifest.json", manifest)):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return saved


class Cri:
    """A containerd of a host, with its CRI; what it cannot be told to keep elsewhere is its own by mounts."""

    def __init__(self, host: Host, root: Path) -> None:
        self.host, self.root = host, root
        for name in ("plugins", "configurations", "state", "run", "cni"):
            (root / name).mkdir()
        shutil.copy2(Path(crossway.plugins.__file__).with_name("crossway-cni"), root / "plugins")
        shutil.copy2("/usr/lib/cni/loopback", root / "plugins")  # which it calls by itself
        (root / "config.toml").write_text(f"""
version = 2
root = "{root}/data"
state = "{root}/state"
[grpc]
address = "{root}/sock"
[plugins."io.containerd.grpc.v1.cri"]
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
sandbox_image = "{IMAGE}"
cni = {{ bin_dir = "{root}/plugins", conf_dir = "{root}/configurations" }}
containerd = {{ snapshotter = "native" }}
""")
        # The agent is to see the namespaces that are mounted there; all else is seen by this containerd alone.
        subprocess.run(["mount", "--bind", root / "state", root / "state"], check=True)
        subprocess.run(["mount", "--make-shared", root / "state"], check=True)
        script = "\n".join([
            "for place in /run /var; do mount --make-private $(findmnt -no TARGET --target $place); done",
            f"mkdir -p /var/lib/cni && mount --bind {root}/cni /var/lib/cni",
            f"mkdir -p /run/containerd && mount --bind {root}/run /run/containerd",
            f"exec containerd -c {root}/config.toml",
        ])  # fmt: skip
        command = host.command("unshare", "--mount", "--propagation", "unchanged", "sh", "-e", "-c", script)
        self.process = process.start(command, log=root / "log")
        try:
            assert wait_for((root / "sock").exists, 20), process.last_words(root / "log")
            self._import()
        except BaseException:
            self.end()
            raise

    def _import(self) -> None:
        """Give it the image that holds sandboxes."""
        root = self.root
        words = ["ctr", "-a", root / "sock", "-n", "k8s.io", "images", "import", "--snapshotter", "native", pause(root)]
        subprocess.run(words, check=True, capture_output=True)

    def configure(self, *others: dict[str, Any], **more: Any) -> None:
        plugin = {
            "type": "crossway-cni",
            "agent": self.host.socket,
            "capabilities": {"portMappings": True, "bandwidth": True},
            **more,
        }
        conf = {"cniVersion": "1.0.0", "name": "pods", "plugins": [plugin, *others]}
        (self.root / "configurations" / "10-crossway.conflist").write_text(json.dumps(conf))
        assert wait_for(self._ready), process.last_words(self.root / "log")

    def _ready(self) -> bool:
        """Return whether it has taken in what its directory says."""
        conditions = fields(self.ask("Status", {})[1][0])[1]
        return {1: [b"NetworkReady"], 2: [1]} in [{n: fields(one).get(n) for n in (1, 2)} for one in conditions]

    def ask(self, call: str, message: Message) -> dict[int, list[Any]]:
        """Make a call and return the answer; raises `Refused`."""
        raw = packed(message)
        with tempfile.NamedTemporaryFile("r", dir=self.root) as heads:
            done = subprocess.run(
                ["curl", "-s", "--http2-prior-knowledge", "--unix-socket", self.root / "sock", "-m", "60",
                 "-D", heads.name, "-H", "content-type: application/grpc", "-H", "te: trailers",
                 "--data-binary", "@-", f"http://localhost/runtime.v1.RuntimeService/{call}"],
                input=struct.pack(">BI", 0, len(raw)) + raw, capture_output=True, check=True,
            )  # fmt: skip
            said = heads.read()
        if "grpc-status: 0" not in said:
            raise Refused(said)
        return fields(done.stdout[5:])

    def run(
        self, pod: str, space: str = "default", annotations: Mapping[str, str] | None = None, **published: int
    ) -> str:
        """Begin a pod's sandbox as a kubelet does; return its id. *published*: ports of the pod, tcp80=8080."""
        config: Message = {
            1: {1: pod, 2: f"uid-{pod}", 3: space},
            2: pod,
            5: [{2: int(name.removeprefix("tcp")), 3: at} for name, at in published.items()],
            7: [{1: name, 2: value} for name, value in (annotations or {}).items()],
            8: {2: {1: {2: 1}}},  # a network of its own, as processes and all else
        }
        return str(self.ask("RunPodSandbox", {1: config})[1][0].decode())

    def stop(self, id: str) -> None:
        self.ask("StopPodSandbox", {1: id})

    def remove(self, id: str) -> None:
        self.ask("RemovePodSandbox", {1: id})

    def sandboxes(self) -> list[str]:
        return [fields(one)[1][0].decode() for one in self.ask("ListPodSandbox", {}).get(1, [])]

    def place(self, id: str) -> tuple[Place, list[str]]:
        """Return a sandbox's network namespace, and the addresses that a kubelet is told."""
        told = self.ask("PodSandboxStatus", {1: id, 2: 1})
        network = fields(fields(told[1][0])[5][0])
        ips = [network[1][0].decode(), *(fields(one)[1][0].decode() for one in network.get(2, []))]
        info = {entry[1][0]: entry[2][0] for entry in map(fields, told[2])}
        spec = json.loads(info[b"info"])["runtimeSpec"]
        path = next(space["path"] for space in spec["linux"]["namespaces"] if space["type"] == "network")
        return Place(id[:12], path), ips

    def end(self) -> None:
        """End it, with what it has mounted."""
        with contextlib.suppress(Refused, subprocess.CalledProcessError):
            for id in self.sandboxes():
                self.stop(id)
                self.remove(id)
        process.stop([self.process], seconds=10.0)
        subprocess.run(["umount", "--recursive", "--lazy", self.root / "state"], check=True)


class Refused(Exception):
    """What containerd said no to."""
