"""The external network of `crossway up`: a way outside through this machine's own routing.

    port on `public` ─ data plane ─ cw-uplink ══ cw-host 172.24.4.1/24 ─ this machine's routing ─ masquerade ─ outside

A veth pair stands for the cable to a provider: the data plane has one end, the
machine has the other and is the gateway.
"""

from __future__ import annotations

import fcntl
import ipaddress
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from crossway.errors import Conflict, Invalid, Unavailable

PHYSNET = "host"
DEVICE = "cw-uplink"
HOST_END = "cw-host"
TABLE = "crossway"
LOCK = "up.lock"  # held by the process whose number is in it
FORWARD = Path("/proc/sys/net/ipv4/ip_forward")


def interface(text: str) -> ipaddress.IPv4Interface:
    """Read the machine's address on the external network, with its prefix."""
    try:
        read = ipaddress.IPv4Interface(text)
    except ValueError:
        raise Invalid(f"{text!r} is no IPv4 address with a prefix: write it as 172.24.4.1/24") from None
    if read.network.num_addresses < 8 or read.ip in (read.network.network_address, read.network.broadcast_address):
        raise Invalid(f"{text} leaves no room for others: take a host's address in a /29 or larger")
    return read


def rules(external: ipaddress.IPv4Interface) -> str:
    """Return the nftables rules, in place of earlier ones: the external network goes out as the machine itself."""
    return f"""
table ip {TABLE}
delete table ip {TABLE}
table ip {TABLE} {{
    chain out {{
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr {external.network} oifname != "{HOST_END}" masquerade
    }}
    chain through {{
        type filter hook forward priority filter; policy accept;
        iifname "{HOST_END}" accept
        oifname "{HOST_END}" ct state established,related accept
        oifname "{HOST_END}" drop
    }}
}}
"""


@contextmanager
def alone(run: Path) -> Iterator[None]:
    """Hold a run directory for this process alone; the lock goes with the process, however it ends."""
    run.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (run / LOCK).open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(f"`crossway up` runs here already (it holds {run / LOCK})") from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


@contextmanager
def way_out(external: ipaddress.IPv4Interface, run: Path) -> Iterator[None]:
    """Have links, rules and forwarding while the context lasts; what a killed one left is taken over as it is."""
    note = run / "external.json"
    if note.exists() and json.loads(note.read_text())["external"] != str(external):
        _remove(note)
    if not note.exists():
        # Written before the change: whoever cleans up knows what it was.
        note.write_text(json.dumps({"ip_forward": FORWARD.read_text().strip(), "external": str(external)}))
    try:
        if subprocess.run(["ip", "link", "show", HOST_END], capture_output=True, check=False).returncode:
            _run(["ip", "-batch", "-"], "\n".join(links(external)))
        _run(["nft", "-f", "-"], rules(external))
        FORWARD.write_text("1")
        yield
    finally:
        _remove(note)


def links(external: ipaddress.IPv4Interface) -> list[str]:
    """Return the `ip` commands that make the cable; the gateway's MAC follows from its address, so that it stays."""
    mac = ":".join(f"{byte:02x}" for byte in b"\x02\xcc" + external.packed)
    return [
        f"link add {HOST_END} address {mac} type veth peer name {DEVICE}",
        f"link set {DEVICE} addrgenmode none",
        f"address add {external} dev {HOST_END}",
        f"link set {HOST_END} up",
        f"link set {DEVICE} up",
    ]


def _remove(note: Path) -> None:
    if not note.exists():
        return
    subprocess.run(["nft", "delete", "table", "ip", TABLE], capture_output=True, check=False)
    subprocess.run(["ip", "link", "delete", HOST_END], capture_output=True, check=False)
    FORWARD.write_text(json.loads(note.read_text())["ip_forward"])
    note.unlink()


def _run(command: list[str], stdin: str) -> None:
    try:
        done = subprocess.run(command, input=stdin, text=True, capture_output=True, check=False)
    except FileNotFoundError:
        raise Unavailable(f"{command[0]} is not installed: `crossway up` needs iproute2 and nftables") from None
    if done.returncode:
        raise Unavailable(f"{command[0]}: {' '.join(done.stderr.split())}")
