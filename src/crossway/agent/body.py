"""What stands for ports on this host, and the files by which a restarted agent knows it."""

from __future__ import annotations

import logging
import os
import time
from ipaddress import ip_network
from pathlib import Path
from typing import Literal

import msgspec

from crossway.errors import Invalid
from crossway.kernel.links import Inside, Link, link_name
from crossway.model import rows as r
from crossway.plan.port import Body, Limit

log = logging.getLogger(__name__)

# What the host itself has is delivered as to a tap: the kernel passes packets on to a peer only in another namespace.
KINDS = {"veth": r.Body.VETH, "pair": r.Body.VETH, "host": r.Body.TAP, "tap": r.Body.TAP, "vlan": r.Body.VLAN}
OWN = "/proc/self/ns/net"
RATE_END = 1 << 64  # as wide as the tables have it
QUEUES_MAX = 256  # the kernel's own limit
MTU_MIN, MTU_MAX = 68, 65535  # RFC 791


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How fast a port may get and send: bits a second, and bits at once after a while of silence; 0: no limit."""

    in_rate: int = 0
    in_burst: int = 0
    out_rate: int = 0
    out_burst: int = 0


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A body that was plugged: what `RUN/bodies/PORT.json` holds."""

    port: str
    body: Literal["veth", "pair", "host", "tap", "vlan"]
    device: str  # the link of this host
    vlan: int = 0
    netns: str | None = None
    ifname: str | None = None
    default: bool = True  # whether the subnet's gateway leads the workload everywhere
    is_first: bool = False  # whether that comes before a default route by another link of the namespace
    routes: tuple[str, ...] = ()  # where it leads besides
    mtu: int = 0  # of the workload's interface, where that is less than the network's
    own: bool = False  # whether it is a tap that the agent made
    queues: int = 1  # of such a tap
    holder: str = ""  # for which machine it was plugged, if that is known
    awaits: bool = False  # whether the port is not here, but may come, or come back
    limits: Limits = Limits()
    inside: Inside | None = None  # how the link was set up inside the namespace, when last it was
    wanted: Inside | None = None  # how it was to be: with routes that other links had already

    def same(self, other: Record) -> bool:
        """Return whether it is the same body, however it is set up."""
        now, then = (
            msgspec.structs.replace(one, inside=None, wanted=None, holder="", awaits=False) for one in (self, other)
        )
        return now == then

    @property
    def made(self) -> bool:
        """Whether the link is a veth of the agent's, to be removed with the body; one that a binding names is not."""
        return self.body in ("pair", "host") or (self.body == "veth" and self.netns is not None)

    @property
    def goes(self) -> bool:
        """Whether the link is removed with the body."""
        return self.made or self.own


class Plug(msgspec.Struct, kw_only=True):
    """What a caller asks for: the body of `POST /v1/plug`."""

    port: str
    body: Literal["veth", "pair", "host", "tap", "vlan"]
    netns: str | None = None
    ifname: str | None = None
    device: str | None = None
    vlan: int | None = None
    queues: int = 1  # of a tap that is made
    holder: str = ""  # the machine that it is for
    # Whether the subnet's gateway is the way to everywhere; if not said, not for a host, and for a workload unless
    # another link has a default route already.
    default: bool | None = None
    mtu: int = 0  # the most that the workload's interface is to have; 0: the network's
    routes: tuple[str, ...] = ()  # prefixes to which it is the way
    limits: Limits = Limits()


def record_of(plug: Plug) -> Record:
    """Return the record of what is asked for; raises `Invalid` when something is missing."""
    if plug.mtu and not MTU_MIN <= plug.mtu <= MTU_MAX:
        raise Invalid(f"an MTU is from {MTU_MIN} to {MTU_MAX}, not {plug.mtu}")
    return msgspec.structs.replace(_record_of(plug), limits=_checked(plug.limits), mtu=plug.mtu)


def _checked(limits: Limits) -> Limits:
    for way in ("in", "out"):
        rate, burst = getattr(limits, f"{way}_rate"), getattr(limits, f"{way}_burst")
        if rate < 0 or burst < 0 or (rate == 0) != (burst == 0):
            raise Invalid(f"a limit of bandwidth needs a rate and a burst, not {rate} and {burst}")
        if rate >= RATE_END:
            raise Invalid(f"{rate} bits a second is more than a limit of bandwidth can be")
    return limits


def _record_of(plug: Plug) -> Record:
    if plug.body == "veth":
        if not plug.netns:
            raise Invalid("a veth body needs netns")
        ifname = _name_of(plug)
        return Record(
            port=plug.port,
            body="veth",
            device=link_name(plug.port),
            netns=os.path.abspath(plug.netns) if "/" in plug.netns else plug.netns,
            ifname=ifname,
            default=plug.default is not False,
            is_first=plug.default is True,
        )
    if plug.body == "pair":
        # Another, an engine say, takes the far end into a namespace, and gives it a name and addresses.
        return Record(port=plug.port, body="pair", device=link_name(plug.port), ifname=_name_of(plug))
    if plug.body == "host":
        return Record(
            port=plug.port,
            body="host",
            device=link_name(plug.port),
            netns=OWN,
            ifname=_name_of(plug),
            default=plug.default is True,
            routes=tuple(_prefix(route) for route in plug.routes),
        )
    if not plug.device:
        raise Invalid(f"a {plug.body} body needs device")
    if plug.body == "tap":
        if not 1 <= plug.queues <= QUEUES_MAX:
            raise Invalid(f"a tap has 1 to {QUEUES_MAX} queues, not {plug.queues}")
        return Record(port=plug.port, body="tap", device=_link(plug.device), queues=plug.queues, holder=plug.holder)
    if plug.vlan is None or not 1 <= plug.vlan <= 4094:
        raise Invalid("a vlan body needs vlan, from 1 to 4094")
    return Record(port=plug.port, body="vlan", device=plug.device, vlan=plug.vlan)


def _prefix(text: str) -> str:
    try:
        return str(ip_network(text, strict=False))
    except ValueError:
        raise Invalid(f"{text!r} is no prefix, such as 10.0.0.0/8") from None


def _name_of(plug: Plug) -> str:
    return _link(plug.ifname or "eth0")


def _link(name: str) -> str:
    # As the kernel has it (dev_valid_name); "%d" would be a number of its own choosing.
    odd = set("/:%") & set(name) or name in (".", "..", "all", "default")
    if len(name.encode()) > 15 or odd or name.split() != [name]:
        raise Invalid(f"{name!r} is no name of a link")
    return name


def body_of(record: Record, link: Link) -> Body:
    """Return what the tables need to know of a body whose link is there."""
    limits = record.limits
    ways = ((r.Way.IN, limits.in_rate, limits.in_burst), (r.Way.OUT, limits.out_rate, limits.out_burst))
    return Body(
        r.PortKey(link.ifindex, record.vlan),
        KINDS[record.body],
        tuple((way, Limit(rate, burst)) for way, rate, burst in ways if rate),
    )


def adopted(port: str, link: Link) -> Record:
    """Return the record of a link that a port's binding names."""
    return Record(port=port, body="veth" if link.kind == "veth" else "tap", device=link.name)


class Records:
    """The files in RUN/bodies."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def read(self) -> dict[str, Record]:
        """Return all records by port; a file that is none is told and left out."""
        found = {}
        for path in sorted(self._directory.glob("*.json")):
            try:
                record = msgspec.json.decode(path.read_bytes(), type=Record)
            except msgspec.DecodeError as fault:
                log.error("%s is no body: %s", path, fault)
                continue
            found[record.port] = record
        return found

    def write(self, record: Record) -> None:
        """Keep a record; a reader never sees half of it."""
        path = self._path(record.port)
        part = path.with_suffix(".part")
        part.write_bytes(msgspec.json.encode(record))
        part.replace(path)

    def age(self, port: str) -> float:
        """Return how many seconds ago a record was written; 0 if there is none."""
        try:
            return time.time() - self._path(port).stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def remove(self, port: str) -> None:
        """Forget a record."""
        self._path(port).unlink(missing_ok=True)

    def _path(self, port: str) -> Path:
        if "/" in port or port.startswith(".") or not port:
            raise Invalid(f"{port!r} is no id of a port")
        return self._directory / f"{port}.json"
