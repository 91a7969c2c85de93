"""Say in words why packets were dropped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from crossway.model.rows import DropKey, DropRecord, unpack_ip
from crossway.plan import view

PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "ipv6-icmp", 132: "sctp"}
WITH_PORTS = frozenset({6, 17, 33, 132, 136})
ICMP = frozenset({1, 58})

WORDS = {
    "SHORT": "a header runs past the end of the packet",
    "MALFORMED": "a header contradicts itself",
    "NO_PORT": "the interface it came from belongs to no port",
    "NOT_IP": "it is neither IP nor ARP",
    "SPOOFED_MAC": "its source MAC address is not the port's",
    "SPOOFED_IPV4": "its source IPv4 address is not the port's",
    "SPOOFED_IPV6": "its source IPv6 address is not the port's",
    "SPOOFED_ARP": "ARP claims an address that is not the port's",
    "SPOOFED_ND": "neighbour discovery claims an address that is not the port's",
    "SPOOFED_VLAN": "it has a VLAN tag that the port has not",
    "ROGUE_DHCP": "a port must not answer as a DHCP server",
    "ROGUE_RA": "a port must not send router advertisements or redirects",
    "NO_NETWORK": "its network is not known on this host",
    "NO_MAC": "nobody on the network has the destination MAC address",
    "NO_NEIGHBOUR": "nobody on the network has the destination address",
    "NO_ROUTE": "the router has no route to the destination",
    "TTL": "its hop limit was reached",
    "TOO_MANY_ROUTERS": "it would pass more than 8 routers",
    "TOO_BIG": "it is larger than the network's MTU",
    "FRAGMENT": "it is a fragment whose first one did not come in time, or more of them waited than the port may have",
    "UNKNOWN_HOST": "it came over the overlay from an address that is no known host's",
    "NO_TUNNEL": "it came over the overlay without tunnel metadata",
    "ROUTER_SERVICE": "it was sent to a router's own address, which serves nothing of the kind",
    "LOOP": "it would go back to where it came from",
    "NO_UPLINK": "the provider network is not on this host",
    "ERROR": "the kernel refused to pass it on",
    "NO_STAGE": "a part of the data plane is not loaded",
    "PUNT_SHARE": "its port asks for names, DHCP or router advertisements, and as much as its share waits already",
    "NO_SERVICE": "it asks for DHCP or a router advertisement too often, or faster than the agent answers",
    "RATE": "the port sends or gets more than its limit of bandwidth",
    "TAKEN": "the client's address and port have a connection to the same port of the container another way already",
    "UNTRACKED": "it passed, but the table of flows was full: answers to it may be refused",
    "LINK_LOCAL": "it is for neighbours alone (neighbour discovery, multicast listeners), and no router hands it on",
    "REVERSE_PATH": "a router has no way back to its source address by the network that it came from",
    "SPOOFED_CLIENT": "its source is no client of a published port: an address of the port's own side, or a tunnel's",
    "SPOOFED_HOST": "it says that it is from another host, which is not reached by the link that it came by",
    "FLOOD_RATE": "its sender has more copied to all of a network than CROSSWAY_FLOOD_RATE lets it",
}


def told(
    drops: Mapping[DropKey, DropRecord],
    reasons: Mapping[int, str],
    port_of: Mapping[Any, view.Port],
    network_of: Mapping[int, str],
    groups_of: Mapping[int, Iterable[str]],
    now: int,
) -> list[dict[str, Any]]:
    """Return drops as the agent's API tells them, the latest first; *now* is in ns of the monotonic clock."""
    answer = []
    for key, record in sorted(drops.items(), key=lambda item: -item[1].seen):
        reason = reasons.get(key.why, str(key.why))
        port = port_of.get(key.port)
        ports = _ports(record)
        last = {
            "src": unpack_ip(record.src),
            "dst": unpack_ip(record.dst),
            "proto": record.proto,
            **ports,
            "network": network_of.get(record.network),
            "seen_seconds_ago": round(max(0, now - record.seen) / 1e9, 3),
            "why": why(reason, port, record, groups_of),
        }
        answer.append({"port": port.id if port else None, "reason": reason, "packets": record.packets, "last": last})
    return answer


def why(reason: str, port: view.Port | None, record: DropRecord, groups_of: Mapping[int, Iterable[str]]) -> str:
    """Return the sentence that says why a packet was dropped."""
    if reason not in ("POLICY_IN", "POLICY_OUT"):
        return WORDS.get(reason, reason.lower().replace("_", " "))
    way, toward, other = ("ingress", "from", record.src) if reason == "POLICY_IN" else ("egress", "to", record.dst)
    groups = _groups(port.groups if port is not None else groups_of.get(record.identity, ()))
    text = f"no {way} rule of {groups} admits {_what(record)} {toward} {unpack_ip(other)}"
    if record.remote_identity:
        text += f", a port with {_groups(groups_of.get(record.remote_identity, ()))}"
    return text


def _groups(groups: Iterable[str]) -> str:
    named = sorted(groups)
    if not named:
        return "a port without security groups"
    return f"group {named[0]}" if len(named) == 1 else f"groups {', '.join(named)}"


def _what(record: DropRecord) -> str:
    proto = PROTOCOLS.get(record.proto, f"protocol {record.proto}")
    if record.proto in WITH_PORTS:
        return f"{proto} to port {record.dst_port}"
    if record.proto in ICMP:
        return f"{proto} type {record.src_port >> 8} code {record.src_port & 0xFF}"
    return proto


def _ports(record: DropRecord) -> dict[str, int | None]:
    known = record.proto in WITH_PORTS or record.proto in ICMP
    return {
        "src_port": record.src_port if known else None,
        "dst_port": record.dst_port if record.proto in WITH_PORTS else None,
    }
