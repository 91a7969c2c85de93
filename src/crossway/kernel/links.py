"""Make, adopt and remove the links that bodies of ports and the overlay need.

All of it can be said again: what is there already is adopted and not touched.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import socket
import struct
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_interface, ip_network
from pathlib import Path
from typing import NamedTuple

from crossway.errors import Conflict, Invalid, NotFound
from crossway.kernel import netlink as nl
from crossway.kernel.netlink import Message, Netlink, Request, attr, attrs, nested

IFF_UP, IFF_LOWER_UP = 1, 0x10000
ETHERNET, LOOPBACK = 1, 772  # linux/if_arp.h
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER, IFLA_LINKINFO = 1, 3, 4, 5, 10, 18
IFLA_IFALIAS, IFLA_AF_SPEC, IFLA_NET_NS_FD, IFLA_LINK_NETNSID = 20, 26, 28, 37
IFLA_GROUP, DOOMED = 27, 0x63770000  # a group of links that are about to be removed
BATCH = 256
IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS = 29, 8
IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER = 1, 2, 1
IFLA_INET6_ADDR_GEN_MODE, ADDR_GEN_NONE = 8, 1
TUNSETIFF, TUNSETPERSIST = 0x400454CA, 0x400454CB  # linux/if_tun.h
IFF_TAP, IFF_MULTI_QUEUE, IFF_NO_PI, IFF_VNET_HDR, IFF_TUN_EXCL = 0x0002, 0x0100, 0x1000, 0x4000, 0x8000
IFLA_VXLAN_LEARNING, IFLA_VXLAN_PORT, IFLA_VXLAN_UDP_CSUM, IFLA_VXLAN_GBP = 7, 15, 18, 23
IFLA_VXLAN_UDP_ZERO_CSUM6_TX, IFLA_VXLAN_UDP_ZERO_CSUM6_RX, IFLA_VXLAN_COLLECT_METADATA = 19, 20, 25
IFA_ADDRESS, IFA_LOCAL, IFA_FLAGS, IFA_F_NODAD = 1, 2, 8, 2
RTM_F_FIB_MATCH = 0x2000  # linux/rtnetlink.h
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_MULTIPATH = 1, 4, 5, 6, 9
METRIC6_FIRST = 512  # before routes of IPv6 that are given no metric: those have 1024
RT_TABLE_MAIN, RTPROT_STATIC, RT_SCOPE_UNIVERSE, RT_SCOPE_LINK, RTN_UNICAST = 254, 4, 0, 253, 1

TC_INGRESS, TC_EGRESS, TCA_OPTIONS, TCA_BPF_NAME = 0xFFFFFFF2, 0xFFFFFFF3, 2, 7
PROGRAMS = frozenset({"from_workload", "from_overlay", "from_uplink"})

ALIAS = "crossway port "
OVERLAY = "cw-overlay"
OVERLAY_ALIAS = "crossway overlay"
OVERLAY_MTU = 65000  # beyond every network's: the overlay itself refuses no packet


class Hook(NamedTuple):
    """One of our programs on a link, and where it is among all that are there."""

    program: str
    priority: int
    handle: int


class Link(NamedTuple):
    """A link of this host as the kernel tells it."""

    ifindex: int
    name: str
    up: bool
    mtu: int
    mac: str
    kind: str  # "veth", "tun", "vxlan" …, "" for hardware
    alias: str
    carrier: bool = True  # whether the wire is plugged in at both ends
    type: int = ETHERNET
    master: int = 0  # the link, a bridge say, of which it is a member


class Way(NamedTuple):
    """A route of this host's main table."""

    to: IPv4Network | IPv6Network
    link: int


class Inside(NamedTuple):
    """How a link looks inside a workload's network namespace."""

    ifname: str
    mac: str  # "" if not known yet
    mtu: int  # 0 likewise
    addresses: tuple[str, ...]  # with prefix: 10.0.0.5/24
    routes: tuple[tuple[str, str], ...]  # destination, next hop; "" where the destination is on the link


def link_name(port: str) -> str:
    """Return the name of a port's link on its host: always the same for a port."""
    digits = port.replace("-", "").lower()[:11]
    if len(digits) < 11 or set(digits) - set("0123456789abcdef"):
        digits = hashlib.sha256(port.encode()).hexdigest()[:11]
    return "cw" + digits


def port_of(link: Link) -> str | None:
    """Return the port whose link this is, if this program made it."""
    return link.alias.removeprefix(ALIAS) if link.alias.startswith(ALIAS) else None


def _info(index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    """Return an ifinfomsg."""
    return struct.pack("=BxHiII", 0, 0, index, flags, change)


def decode(body: bytes) -> Link:
    """Return the link that an RTM_NEWLINK or RTM_DELLINK message is about."""
    type, index, flags = struct.unpack_from("=HiI", body, 2)
    found = attrs(body[16:])
    return Link(
        index,
        _text(found.get(IFLA_IFNAME)),
        bool(flags & IFF_UP),
        struct.unpack("=I", found[IFLA_MTU])[0] if IFLA_MTU in found else 0,
        found.get(IFLA_ADDRESS, b"").hex(":"),
        _text(attrs(found.get(IFLA_LINKINFO, b"")).get(IFLA_INFO_KIND)),
        _text(found.get(IFLA_IFALIAS)),
        bool(flags & IFF_LOWER_UP),
        type,
        struct.unpack("=I", found[IFLA_MASTER])[0] if IFLA_MASTER in found else 0,
    )


def _text(raw: bytes | None) -> str:
    return (raw or b"").rstrip(b"\0").decode(errors="replace")


class Links:
    """The links of the network namespace in which it was made."""

    def __init__(self) -> None:
        self._netlink = Netlink()

    def close(self) -> None:
        """Close the socket to the kernel."""
        self._netlink.close()

    def find(self, name: str) -> Link | None:
        """Return the link of a name, or None."""
        if not 0 < len(name.encode()) < 16:
            return None
        found = self._netlink.get(nl.RTM_GETLINK, _info() + attr(IFLA_IFNAME, name) + _no_stats())
        return decode(found.body) if found else None

    def all(self) -> list[Link]:
        """Return all links."""
        return [decode(m.body) for m in self._netlink.dump(nl.RTM_GETLINK, _info() + _no_stats())]

    def addresses(self) -> dict[int, list[str]]:
        """Return the addresses of this host, but for link-local ones of IPv6, by the link that has them."""
        found: dict[int, list[str]] = {}
        for message in self._netlink.dump(nl.RTM_GETADDR, struct.pack("=BBBBI", 0, 0, 0, 0, 0)):
            index = struct.unpack_from("=I", message.body, 4)[0]
            told = attrs(message.body[8:])
            raw = told.get(IFA_LOCAL) or told.get(IFA_ADDRESS)
            address = ip_address(raw) if raw else None
            if address is not None and not (address.version == 6 and address.is_link_local):
                found.setdefault(index, []).append(str(address))
        return found

    def ways(self) -> list[Way]:
        """Return the routes of this host's main table, but for those of link-local addresses."""
        found = []
        for family, none in ((socket.AF_INET, bytes(4)), (socket.AF_INET6, bytes(16))):
            body = struct.pack("=BBBBBBBBI", family, 0, 0, 0, 0, 0, 0, 0, 0)
            for message in self._netlink.dump(nl.RTM_GETROUTE, body):
                of, bits, table, kind = struct.unpack_from("=BB2xB2xB", message.body)
                told = attrs(message.body[12:])
                if (of, table, kind) != (family, RT_TABLE_MAIN, RTN_UNICAST):
                    continue
                to = ip_network((told.get(RTA_DST, none), bits))
                # A route over several links: the first of them.
                link = told.get(RTA_OIF) or told.get(RTA_MULTIPATH, bytes(8))[4:8]
                if not to.is_link_local:
                    found.append(Way(to, struct.unpack("=i", link)[0]))
        return found

    def toward(self, address: str) -> Link | None:
        """Return the link by which an address is reached now; None if it is not, or is this host's own."""
        ip = ip_address(address)
        family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
        body = struct.pack("=BBBBBBBBI", family, ip.max_prefixlen, 0, 0, 0, 0, 0, 0, 0) + attr(RTA_DST, ip.packed)
        try:
            found = self._netlink.get(nl.RTM_GETROUTE, body)
        except OSError as fault:
            if fault.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL):
                return None
            raise
        told = attrs(found.body[12:]) if found else {}
        if RTA_OIF not in told:
            return None
        there = self._netlink.get(nl.RTM_GETLINK, _info(struct.unpack("=i", told[RTA_OIF])[0]) + _no_stats())
        link = decode(there.body) if there else None
        return link if link is not None and link.name != "lo" else None

    def leading(self, address: str) -> set[int]:
        """Return the links by which an address is reached: all of a route over several; none if it is not."""
        ip = ip_address(address)
        family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
        body = struct.pack("=BBBBBBBBI", family, ip.max_prefixlen, 0, 0, 0, 0, 0, 0, RTM_F_FIB_MATCH)
        try:
            found = self._netlink.get(nl.RTM_GETROUTE, body + attr(RTA_DST, ip.packed))
        except OSError as fault:
            if fault.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL):
                return set()
            raise
        told = attrs(found.body[12:]) if found else {}
        links = {struct.unpack("=i", told[RTA_OIF])[0]} if RTA_OIF in told else set()
        legs, at = told.get(RTA_MULTIPATH, b""), 0
        while at + 8 <= len(legs):  # struct rtnexthop, linux/rtnetlink.h
            size, _, _, index = struct.unpack_from("=HBBi", legs, at)
            links.add(index)
            at += max(8, size + 3 & ~3)
        return links

    def hooks(self, ifindex: int) -> list[Hook]:
        """Return our programs on a link's clsact hook, by their names."""
        found = []
        for filter in self._filters(ifindex, TC_INGRESS):
            handle, _, info = struct.unpack_from("=III", filter.body, 8)
            options = attrs(attrs(filter.body[20:]).get(TCA_OPTIONS, b""))
            program = _text(options.get(TCA_BPF_NAME)).split(":")[0]
            if program in PROGRAMS:
                found.append(Hook(program, info >> 16, handle))
        return found

    def filtered(self, ifindex: int) -> bool:
        """Return whether a link has any filter on its clsact hook, ours or another's."""
        return any(self._filters(ifindex, parent) for parent in (TC_INGRESS, TC_EGRESS))

    def _filters(self, ifindex: int, parent: int) -> list[Message]:
        return self._netlink.dump(nl.RTM_GETTFILTER, struct.pack("=BxxxiIII", 0, ifindex, 0, parent, 0))

    def remove(self, *names: str) -> None:
        """Remove links; that one is not there is no error.

        All at once: taking one link away costs the kernel a grace period of
        20 ms, and taking a group of links away costs it one for them all.
        """
        gone = (errno.ENODEV, errno.EOPNOTSUPP)
        if len(names) == 1:
            self._netlink.ask(Request(nl.RTM_DELLINK, 0, _info() + attr(IFLA_IFNAME, names[0]), gone))
            return
        for start in range(0, len(names), BATCH):
            part = names[start : start + BATCH]
            marks = [_info() + attr(IFLA_IFNAME, name) + attr(IFLA_GROUP, DOOMED) for name in part]
            self._netlink.ask(
                *(Request(nl.RTM_SETLINK, 0, mark, gone) for mark in marks),
                Request(nl.RTM_DELLINK, 0, _info() + attr(IFLA_GROUP, DOOMED), gone),
            )

    def set(self, index: int, *, mtu: int | None = None, up: bool | None = None, alias: str | None = None) -> None:
        """Change a link."""
        changed = b""
        if mtu is not None:
            changed += attr(IFLA_MTU, mtu)
        if alias is not None:
            changed += attr(IFLA_IFALIAS, alias)
        flags, change = (IFF_UP if up else 0, IFF_UP) if up is not None else (0, 0)
        self._netlink.ask(Request(nl.RTM_SETLINK, 0, _info(index, flags, change) + changed))

    def veth(self, port: str, netns: int, inside: Inside) -> Link:
        """Make a port's veth pair, down, with its far end in *netns*; adopt it when it is there.

        An older pair of the port whose far end is elsewhere is replaced. The
        caller puts the hook on the link that is returned, then sets it up.
        """
        name = link_name(port)
        found = self.find(name)
        if found is not None:
            if found.alias not in ("", ALIAS + port):
                raise Conflict(f"link {name} is there and is not of port {port}: {found.alias}")
            if self._reaches(found, netns, inside.ifname):
                return found
            self.remove(name)
        mtu = attr(IFLA_MTU, inside.mtu) if inside.mtu else b""
        peer = (
            _info()
            + attr(IFLA_IFNAME, inside.ifname)
            + (attr(IFLA_ADDRESS, bytes.fromhex(inside.mac.replace(":", ""))) if inside.mac else b"")
            + mtu
            + attr(IFLA_NET_NS_FD, netns)
        )
        made = (
            _info()
            + attr(IFLA_IFNAME, name)
            + mtu
            + nested(IFLA_LINKINFO, attr(IFLA_INFO_KIND, "veth"), nested(IFLA_INFO_DATA, attr(VETH_INFO_PEER, peer)))
        )
        try:
            self._netlink.ask(
                Request(nl.RTM_NEWLINK, nl.NLM_F_CREATE | nl.NLM_F_EXCL, made),
                # The host itself must not speak on it: no link-local address.
                Request(
                    nl.RTM_SETLINK,
                    0,
                    _info() + attr(IFLA_IFNAME, name) + attr(IFLA_IFALIAS, ALIAS + port) + _no_link_local(),
                ),
            )
        except FileExistsError:
            raise Conflict(f"network namespace has a link {inside.ifname} already") from None
        link = self.find(name)
        if link is None:
            raise NotFound("link", name)
        return link

    def free(self, port: str, netns: int, ifname: str) -> None:
        """Raise `Conflict` when a namespace has another link by the name that the far end of a port's is to have."""
        with nl.inside(netns):
            far = Netlink()
        with far:
            if far.get(nl.RTM_GETLINK, _info() + attr(IFLA_IFNAME, ifname) + _no_stats()) is None:
                return
        own = self.find(link_name(port))
        if own is None or not self._reaches(own, netns, ifname):
            raise Conflict(f"network namespace has a link {ifname} already")

    def tap(self, port: str, name: str, queues: int) -> Link:
        """Make a port's tap, down, for a QEMU to open; adopt it when it is there.

        Packets keep what is still to be done to them, segmentation and
        checksums, in a header of virtio's. With more than one queue a QEMU must
        open it as such, and cannot otherwise.
        """
        if self.find(name) is None:
            flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_TUN_EXCL | (IFF_MULTI_QUEUE if queues > 1 else 0)
            tun = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
                fcntl.ioctl(tun, TUNSETPERSIST, 1)
            finally:
                os.close(tun)
            # The host itself must not speak on it: no link-local address.
            marked = _info() + attr(IFLA_IFNAME, name) + attr(IFLA_IFALIAS, ALIAS + port) + _no_link_local()
            self._netlink.ask(Request(nl.RTM_SETLINK, 0, marked))
        link = self.find(name)
        if link is None:
            raise NotFound("link", name)
        return link

    def _reaches(self, link: Link, netns: int, ifname: str) -> bool:
        """Return whether a veth's far end is *ifname* in *netns*."""
        found = self._netlink.get(nl.RTM_GETLINK, _info(link.ifindex) + _no_stats())
        peer = attrs(found.body[16:]).get(IFLA_LINK) if found else None
        if peer is None:
            return False
        with nl.inside(netns):
            far = Netlink()
        with far:
            there = far.get(nl.RTM_GETLINK, _info() + attr(IFLA_IFNAME, ifname) + _no_stats())
        if there is None:
            return False
        told = attrs(there.body[16:])
        return (
            struct.unpack_from("=i", there.body, 4) == struct.unpack("=i", peer)
            and IFLA_LINK in told
            and struct.unpack("=i", told[IFLA_LINK])[0] == link.ifindex
        )

    def overlay(self, port: int) -> Link:
        """Make the overlay's VXLAN device, which takes VNI, identity and far end from each packet."""
        found = self.find(OVERLAY)
        if found is not None and (found.kind != "vxlan" or found.alias != f"{OVERLAY_ALIAS} {port}"):
            self.remove(OVERLAY)
            found = None
        if found is None:
            data = (
                attr(IFLA_VXLAN_COLLECT_METADATA, b"\1")
                + attr(IFLA_VXLAN_LEARNING, b"\0")
                + attr(IFLA_VXLAN_PORT, struct.pack("!H", port))
                + attr(IFLA_VXLAN_GBP, b"")
                # Inner packets have checksums of their own; over IPv6, too,
                # an outer one would be computed for nothing (RFC 6935).
                + attr(IFLA_VXLAN_UDP_CSUM, b"\0")
                + attr(IFLA_VXLAN_UDP_ZERO_CSUM6_TX, b"\1")
                + attr(IFLA_VXLAN_UDP_ZERO_CSUM6_RX, b"\1")
            )
            made = (
                _info()
                + attr(IFLA_IFNAME, OVERLAY)
                + attr(IFLA_MTU, OVERLAY_MTU)
                + nested(IFLA_LINKINFO, attr(IFLA_INFO_KIND, "vxlan"), nested(IFLA_INFO_DATA, data))
            )
            self._netlink.ask(
                Request(nl.RTM_NEWLINK, nl.NLM_F_CREATE | nl.NLM_F_EXCL, made),
                Request(
                    nl.RTM_SETLINK,
                    0,
                    _info()
                    + attr(IFLA_IFNAME, OVERLAY)
                    + attr(IFLA_IFALIAS, f"{OVERLAY_ALIAS} {port}")
                    + _no_link_local(),
                ),
            )
        found = self.find(OVERLAY)
        if found is None:
            raise NotFound("link", OVERLAY)
        return found


def _no_stats() -> bytes:
    return attr(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)


def _no_link_local() -> bytes:
    return nested(
        IFLA_AF_SPEC, nested(socket.AF_INET6, attr(IFLA_INET6_ADDR_GEN_MODE, struct.pack("=B", ADDR_GEN_NONE)))
    )


def furnish(netns: int, inside: Inside, *, is_first: bool = False) -> Inside:
    """Set up the far end of a port's link inside a workload's namespace: addresses, up, routes.

    There is no duplicate address detection and no router advertisement to wait
    for: the server gave the addresses, and it tells the routes. A route to where
    another link of the namespace leads is left out; *is_first*: a default route
    is not, but comes before the other's, which is in force again once this link
    has gone. Returns what was set up.
    """
    with nl.inside(netns):
        far = Netlink()
        try:
            _quiet_ipv6(inside.ifname, wanted=any(":" in a for a in inside.addresses))
        except BaseException:
            far.close()
            raise
    with far:
        found = far.get(nl.RTM_GETLINK, _info() + attr(IFLA_IFNAME, inside.ifname) + _no_stats())
        if found is None:
            raise NotFound("link", inside.ifname)
        index = decode(found.body).ifindex
        mac = bytes.fromhex(inside.mac.replace(":", ""))
        led = _led_by_others(far, index)
        before = {to for to, _ in inside.routes if to in led and is_first and not ip_network(to).prefixlen}
        inside = inside._replace(
            routes=tuple(route for route in inside.routes if route[0] in before or route[0] not in led)
        )
        requests = [
            Request(
                nl.RTM_SETLINK,
                0,
                _info(index) + attr(IFLA_MTU, inside.mtu) + attr(IFLA_ADDRESS, mac) + _no_link_local(),
                (errno.EAFNOSUPPORT, errno.EOPNOTSUPP),
            ),
            *(_address(index, text) for text in inside.addresses),
            _address(index, _link_local(mac), fine=(errno.EACCES, errno.EOPNOTSUPP, errno.EAFNOSUPPORT)),
            Request(nl.RTM_SETLINK, 0, _info(index, IFF_UP, IFF_UP)),
            *(_route(index, to, nexthop, before_others=to in before) for to, nexthop in inside.routes),
        ]
        far.ask(*requests)
    return inside


def refurnish(netns: int, old: Inside, new: Inside, *, is_first: bool = False) -> Inside:
    """Make the far end of a port's link what it should be now: what stays is not touched. Returns what was set up."""
    gone = [text for text in old.addresses if text not in new.addresses]
    if old.mac != new.mac:
        gone.append(_link_local(bytes.fromhex(old.mac.replace(":", ""))))
    with nl.inside(netns):
        far = Netlink()
    with far:
        found = far.get(nl.RTM_GETLINK, _info() + attr(IFLA_IFNAME, new.ifname) + _no_stats())
        if found is not None:
            index = decode(found.body).ifindex
            # A workload may have changed them itself: whatever is not there is gone.
            fine = (errno.EADDRNOTAVAIL, errno.ESRCH, errno.ENOENT, errno.ENODEV)
            far.ask(
                *(
                    Request(nl.RTM_DELROUTE, 0, _route(index, *route).body, fine)
                    for route in old.routes
                    if route not in new.routes
                ),
                *(Request(nl.RTM_DELADDR, 0, _address(index, text).body, fine) for text in gone),
            )
    return furnish(netns, new, is_first=is_first)


def _led_by_others(far: Netlink, index: int) -> set[str]:
    """Return where a namespace's main table leads by other links than one."""
    found = set()
    for family, none in ((socket.AF_INET, bytes(4)), (socket.AF_INET6, bytes(16))):
        for message in far.dump(nl.RTM_GETROUTE, struct.pack("=BBBBBBBBI", family, 0, 0, 0, 0, 0, 0, 0, 0)):
            of, bits, table, kind = struct.unpack_from("=BB2xB2xB", message.body)
            told = attrs(message.body[12:])
            if (of, table, kind) == (family, RT_TABLE_MAIN, RTN_UNICAST) and told.get(RTA_OIF) != struct.pack(
                "=i", index
            ):
                found.add(str(ip_network((told.get(RTA_DST, none), bits))))
    return found


def _quiet_ipv6(ifname: str, *, wanted: bool) -> None:
    conf = Path("/proc/sys/net/ipv6/conf") / ifname
    if not conf.is_dir():
        return
    settings = {"accept_ra": "0", "autoconf": "0"}
    if wanted:
        settings["disable_ipv6"] = "0"
    for name, value in settings.items():
        path = conf / name
        if path.read_text().strip() != value:
            path.write_text(value)


def _link_local(mac: bytes) -> str:
    raw = b"\xfe\x80" + bytes(6) + bytes([mac[0] ^ 2]) + mac[1:3] + b"\xff\xfe" + mac[3:]
    return socket.inet_ntop(socket.AF_INET6, raw) + "/64"


def _address(index: int, text: str, fine: tuple[int, ...] = ()) -> Request:
    address = ip_interface(text)
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    scope = RT_SCOPE_LINK if address.is_link_local else RT_SCOPE_UNIVERSE
    body = struct.pack("=BBBBI", family, address.network.prefixlen, 0, scope, index)
    body += attr(IFA_LOCAL, address.packed) + attr(IFA_ADDRESS, address.packed) + attr(IFA_FLAGS, IFA_F_NODAD)
    return Request(nl.RTM_NEWADDR, nl.NLM_F_CREATE | nl.NLM_F_REPLACE, body, fine)


def _route(index: int, destination: str, nexthop: str, *, before_others: bool = False) -> Request:
    """Return the request for a route; *before_others*: before those of other links to the same destination."""
    net = ip_network(destination, strict=False)
    family = socket.AF_INET if net.version == 4 else socket.AF_INET6
    body = struct.pack(
        "=BBBBBBBBI",
        family,
        net.prefixlen,
        0,
        0,
        RT_TABLE_MAIN,
        RTPROT_STATIC,
        RT_SCOPE_UNIVERSE if nexthop or net.version == 6 else RT_SCOPE_LINK,
        RTN_UNICAST,
        0,
    )
    if net.prefixlen:
        body += attr(RTA_DST, net.network_address.packed)
    if nexthop:
        body += attr(RTA_GATEWAY, socket.inet_pton(family, nexthop))
    body += attr(RTA_OIF, index)
    # A next hop that no address of the port reaches is the subnet's fault, not the plug's.
    fine = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EINVAL)
    if not before_others:
        return Request(nl.RTM_NEWROUTE, nl.NLM_F_CREATE | nl.NLM_F_REPLACE, body, fine)
    # Of equal metric, IPv4 puts the younger first; IPv6 would use both.
    if net.version == 6:
        body += attr(RTA_PRIORITY, METRIC6_FIRST)
        return Request(nl.RTM_NEWROUTE, nl.NLM_F_CREATE | nl.NLM_F_REPLACE, body, fine)
    return Request(nl.RTM_NEWROUTE, nl.NLM_F_CREATE, body, (*fine, errno.EEXIST))


def netns_of(text: str) -> int:
    """Return an open network namespace; raise what a caller can be told when there is none."""
    try:
        return nl.open_netns(text)
    except FileNotFoundError:
        raise NotFound("network namespace", text) from None
    except OSError as fault:
        if fault.errno in (errno.ENOTTY, errno.EINVAL):
            raise Invalid(f"{text} is no network namespace, as this host's agent sees it") from None
        raise Invalid(f"cannot open network namespace {text}: {os.strerror(fault.errno or 0)}") from fault
