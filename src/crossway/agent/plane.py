"""The data plane of this host: its file system, its programs, their hooks on links."""

from __future__ import annotations

import errno
import logging
import secrets
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from crossway.agent.edge import PORT as PEER_PORT
from crossway.agent.hooks import Hooks
from crossway.errors import Invalid
from crossway.kernel import bpffs
from crossway.kernel.bpf import Object, hidden, schemas
from crossway.kernel.links import Link, Links
from crossway.kernel.ring import Ring
from crossway.model.rows import MAPPED, Asked, PortKey, Sighting, pack_ip, unpack_ip
from crossway.settings import DIRECT, FLOOD_RATE

log = logging.getLogger(__name__)

MOST_COPIES = 100_000_000
WORKLOAD, OVERLAY, UPLINK = "from_workload", "from_overlay", "from_uplink"


def _be16(port: int) -> int:
    """Return a port's number as the programs compare it, in the order of the wire."""
    return int.from_bytes(port.to_bytes(2, "big"), "little")


def flood_copies(said: str) -> int:
    """Return how many copies a second a port may cause, as the setting says it."""
    if not said.isdecimal() or int(said) > MOST_COPIES:
        raise Invalid(f"{FLOOD_RATE.variable} is {said!r}: a number of copies a second up to {MOST_COPIES}, or 0")
    return int(said)


class Plane:
    """Programs and tables as this build has them; `hook` puts the programs on links."""

    def __init__(self, run: Path, links: Links, underlay: str, vxlan_port: int) -> None:
        self._links = links
        self._hooks: dict[int, str] = {}  # link -> program of this build that is on it
        self._on = Hooks(run, links)
        self._on.forget_gone()
        self._pins = run / "bpf"
        bpffs.mount(self._pins)
        self.overlay = links.overlay(vxlan_port)
        own = pack_ip(underlay)
        # Beside the overlay's device; only over IPv4, where all of it is plain.
        self._direct = bool(DIRECT.value() != "0" and own.startswith(MAPPED))
        self._lost: set[str] = set()  # names of such links that are gone
        self._front: set[int] = set()  # links by which what is published is reached, hooked for that alone
        self._short: dict[int, str] = {}  # link from which VXLAN is taken the short way, and its name
        config = {
            "overlay": self.overlay.ifindex,
            "underlay": int.from_bytes(own, "little"),
            "vxlan_port": _be16(vxlan_port),
            "peer_port": _be16(PEER_PORT),
            "direct": self._direct,
            "flood_copies": flood_copies(FLOOD_RATE.value()),
            "hash_seed": secrets.randbits(32),
        }
        # The programs ask for routes as a packet from this device would. None ever leaves it for the host's stack.
        for family in ("ipv4", "ipv6"):
            try:
                Path(f"/proc/sys/net/{family}/conf/{self.overlay.name}/forwarding").write_text("1")
            except OSError as fault:  # then they get none
                if family == ("ipv4" if own.startswith(MAPPED) else "ipv6"):
                    log.warning("packets to other hosts go the long way, and may come by any link: %s", fault)
        if hidden():
            log.warning("the kernel is locked down: where a guest has its checksums written is not seen")
        self.object = Object(config=config, pins=self._pins)
        # Programs on the links may read tables of another schema. Those go on
        # until these tables are filled: no hook is changed before `filled`.
        self._waiting: dict[int, str] | None = {} if self._others() else None

    def _others(self) -> list[Path]:
        return [p for p in schemas(self._pins) if p != self.object.pins]

    def hook(self, program: str, ifindex: int) -> None:
        """Put a program on a link, in place of an older build's; nothing happens if it is there."""
        self._short.pop(ifindex, None)
        self._front.discard(ifindex)
        self._hook(program, ifindex)

    def _hook(self, program: str, ifindex: int) -> None:
        if self._hooks.get(ifindex) == program:
            return
        if self._waiting is not None:
            self._waiting[ifindex] = program
            return
        self._on.put(self.object, program, ifindex)
        if self._hooks.get(ifindex) is not None:
            self._on.keep(program, ifindex)
        self._hooks[ifindex] = program

    def toward(self, hosts: Iterable[bytes]) -> None:
        """Take what these hosts send where it comes in: on the links by which they are reached.

        Where a link has a hook of ours already, what comes stays with the overlay's device.
        """
        if not self._direct:
            return
        for host in hosts:
            link = self._links.toward(unpack_ip(host)) if host.startswith(MAPPED) else None
            if link is not None:
                self._shorten(link)

    def _shorten(self, link: Link) -> None:
        if link.ifindex in self._front:  # from now on for both
            self._front.discard(link.ifindex)
            self._short[link.ifindex] = link.name
        if link.ifindex in self._hooks or link.ifindex in (self._waiting or {}):
            return
        try:
            self._hook(UPLINK, link.ifindex)
        except OSError as fault:
            log.error("cannot hook %s: %s", link.name, fault)
        else:
            self._short[link.ifindex] = link.name

    def face(self, links: Mapping[int, str] | None) -> None:
        """Look at what comes to the host itself by these links, also those that have a hook already; None: by none."""
        self.object.stage("publish", called=links is not None)
        links = links or {}
        for ifindex in self._front - links.keys():
            self._front.discard(ifindex)
            self.unhook(ifindex)
        for ifindex, name in links.items():
            if ifindex in self._hooks or ifindex in (self._waiting or {}):
                continue
            try:
                self._hook(UPLINK, ifindex)
            except OSError as fault:
                log.error("cannot hook %s: what is published is not reached by it: %s", name, fault)
            else:
                self._front.add(ifindex)

    def came(self, link: Link) -> None:
        """Take note of a link: it may be one again by which hosts are reached."""
        if link.name in self._lost:
            self._lost.discard(link.name)
            self._shorten(link)

    def program(self, ifindex: int) -> str | None:
        """Return which program is on a link for its own sake, or is to be."""
        if ifindex in self._short or ifindex in self._front:
            return None
        return (self._waiting or {}).get(ifindex) or self._hooks.get(ifindex)

    def filled(self) -> None:
        """Take note that the tables hold what they should: the programs may now read them."""
        waiting, self._waiting = self._waiting, None
        for ifindex, program in (waiting or {}).items():
            try:
                self._hook(program, ifindex)
            except OSError as fault:
                if fault.errno != errno.ENODEV:
                    log.error("cannot hook link %d: %s", ifindex, fault)
        # An earlier build's would go on judging by old tables: on a link that is no longer ours, or in another place.
        for link in self._links.all():
            if link.ifindex in self._hooks:
                self._on.keep(self._hooks[link.ifindex], link.ifindex)
            elif any(hook.program == UPLINK for hook in self._links.hooks(link.ifindex)):
                self._on.take(link.ifindex)
        self.object.alone()
        for other in self._others():
            shutil.rmtree(other)
            log.info("removed tables of another schema: %s", other.name)

    def unhook(self, ifindex: int) -> None:
        """Take our program off a link, and leave what others have there."""
        waited, hooked = (self._waiting or {}).pop(ifindex, None), self._hooks.pop(ifindex, None)
        if waited or hooked:
            self._on.take(ifindex)

    def gone(self, ifindex: int) -> None:
        """Take note that a link is no more."""
        self._front.discard(ifindex)
        if name := self._short.pop(ifindex, None):
            self._lost.add(name)
        self._hooks.pop(ifindex, None)
        self._on.gone(ifindex)
        if self._waiting is not None:
            self._waiting.pop(ifindex, None)

    def start(self) -> None:
        """Take packets from the overlay."""
        self.hook(OVERLAY, self.overlay.ifindex)
        if not self.overlay.up:
            self._links.set(self.overlay.ifindex, up=True)

    def questions(self, take: Callable[[PortKey, bytes], None]) -> Ring:
        """Return what brings guests' questions: *take* gets the port that asked, and the frame."""
        fd, layout = self.object.ring("questions", "asked", Asked)

        def record(raw: bytes) -> None:
            asked = layout.unpack(raw.ljust(layout.size, b"\0")[: layout.size])  # the ring has no more than the frame
            take(asked.port, asked.frame[: asked.length])

        return Ring(fd, record)

    def sightings(self, take: Callable[[Sighting], None]) -> Ring:
        """Return what brings addresses that packets of ports have brought up."""
        fd, layout = self.object.ring("sightings", "sighting", Sighting)
        return Ring(fd, lambda raw: take(layout.unpack(raw[: layout.size])))

    def close(self) -> None:
        """Let go; links, programs and tables go on."""
        self.object.close()
