"""Drops are told in words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from crossway.agent import drops
from crossway.model import rows as r
from crossway.plan import view

TYPES = Path(__file__).parents[3] / "bpf" / "include" / "types.h"


def record(**more: int | bytes) -> r.DropRecord:
    plain = r.DropRecord(3, 10**9, r.pack_ip("10.0.0.5"), r.pack_ip("10.0.0.6"), 10, 7, 0, 40000, 80, 0x800, 6)
    return plain._replace(**more)


PORT = view.Port(id="p", network="n", mac="fa:16:3e:00:00:01", groups=("web", "all"))


def test_every_reason_has_words() -> None:
    (enum,) = re.findall(r"enum drop \{(.*?)\n\}", TYPES.read_text(), re.S)
    reasons = set(re.findall(r"^\tDROP_(\w+)", enum, re.M)) - {"NONE", "MAX"}
    assert reasons == drops.WORDS.keys() | {"POLICY_IN", "POLICY_OUT"}


@pytest.mark.parametrize(
    ("reason", "seen", "why"),
    [
        ("POLICY_IN", record(), "no ingress rule of groups all, web admits tcp to port 80 from 10.0.0.5"),
        (
            "POLICY_OUT",
            record(proto=17, dst_port=53),
            "no egress rule of groups all, web admits udp to port 53 to 10.0.0.6",
        ),
        (
            "POLICY_IN",
            record(remote_identity=9, proto=1, src_port=8 << 8),
            "no ingress rule of groups all, web admits icmp type 8 code 0 from 10.0.0.5, a port with group db",
        ),
        ("POLICY_IN", record(proto=47), "no ingress rule of groups all, web admits protocol 47 from 10.0.0.5"),
        ("TTL", record(), "its hop limit was reached"),
    ],
)
def test_why_names_what_was_refused(reason: str, seen: r.DropRecord, why: str) -> None:
    assert drops.why(reason, PORT, seen, {9: ("db",)}) == why


def test_a_port_without_groups_is_told_as_such() -> None:
    bare = view.Port(id="p", network="n", mac="fa:16:3e:00:00:01")
    assert "a port without security groups" in drops.why("POLICY_IN", bare, record(), {})


def test_drops_are_told_latest_first_and_by_port() -> None:
    rows = {
        r.DropKey(r.PortKey(5), 1): record(seen=10**9),
        r.DropKey(r.PortKey(0), 2): record(seen=2 * 10**9, network=99),
    }
    told = drops.told(rows, {1: "TTL", 2: "NO_PORT"}, {r.PortKey(5): PORT}, {10: "n"}, {}, 3 * 10**9)
    assert [(d["port"], d["reason"], d["packets"]) for d in told] == [(None, "NO_PORT", 3), ("p", "TTL", 3)]
    assert told[1]["last"] == {
        "src": "10.0.0.5",
        "dst": "10.0.0.6",
        "proto": 6,
        "src_port": 40000,
        "dst_port": 80,
        "network": "n",
        "seen_seconds_ago": 2.0,
        "why": "its hop limit was reached",
    }
    assert told[0]["last"]["network"] is None
