"""What a caller may plug, and what a restarted agent finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from crossway.agent.body import Limits, Plug, Record, Records, adopted, body_of, record_of
from crossway.errors import Invalid
from crossway.kernel.links import Link, link_name
from crossway.model import rows as r
from crossway.plan.port import Body

PORT = "0f3c9a77-1f6e-4c5b-9f3e-0a1b2c3d4e5f"


def test_a_veths_link_is_named_after_its_port() -> None:
    record = record_of(Plug(port=PORT, body="veth", netns="red"))
    assert record == Record(port=PORT, body="veth", device="cw0f3c9a771f6", netns="red", ifname="eth0")
    assert record.made
    assert len(link_name("not a uuid")) == len(link_name(PORT)) == 13


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"body": "veth"}, "needs netns"),
        ({"body": "veth", "netns": "red", "ifname": "a" * 16}, "no name of a link"),
        ({"body": "veth", "netns": "red", "ifname": "a/b"}, "no name of a link"),
        ({"body": "veth", "netns": "red", "ifname": "a b"}, "no name of a link"),
        ({"body": "tap"}, "needs device"),
        ({"body": "vlan", "device": "eth1"}, "needs vlan"),
        ({"body": "vlan", "device": "eth1", "vlan": 0}, "needs vlan"),
        ({"body": "vlan", "device": "eth1", "vlan": 4095}, "needs vlan"),
        ({"body": "veth", "netns": "red", "limits": Limits(in_rate=1)}, "needs a rate and a burst"),
        ({"body": "veth", "netns": "red", "limits": Limits(out_rate=1 << 64, out_burst=8)}, "more than a limit"),
    ],
)
def test_what_cannot_be_plugged_is_told(asked: dict[str, Any], why: str) -> None:
    with pytest.raises(Invalid, match=why):
        record_of(Plug(port=PORT, **asked))


def test_records_outlive_the_agent_and_a_spoilt_one_harms_no_other(tmp_path: Path) -> None:
    kept = Records(tmp_path / "bodies")
    record = Record(port=PORT, body="vlan", device="eth1", vlan=5)
    kept.write(record)
    (tmp_path / "bodies" / "spoilt.json").write_text("{")
    assert Records(tmp_path / "bodies").read() == {PORT: record}
    kept.remove(PORT)
    kept.remove(PORT)
    assert Records(tmp_path / "bodies").read() == {}


@pytest.mark.parametrize("id", ["../x", "a/b", "", ".hidden"])
def test_a_record_stays_in_its_directory(tmp_path: Path, id: str) -> None:
    with pytest.raises(Invalid):
        Records(tmp_path).write(Record(port=id, body="tap", device="tap0"))


def test_a_link_that_a_binding_names_is_delivered_to_by_its_kind() -> None:
    veth = Link(4, "lxc1", True, 1500, "", "veth", "")
    assert body_of(adopted(PORT, veth), veth) == Body(r.PortKey(4), r.Body.VETH)
    assert not adopted(PORT, veth).made  # it is somebody else's to remove
    tap = Link(5, "tap1", True, 1500, "", "tun", "")
    assert body_of(adopted(PORT, tap), tap) == Body(r.PortKey(5), r.Body.TAP)
    trunk = Link(6, "eth1", True, 1500, "", "", "")
    assert body_of(Record(port=PORT, body="vlan", device="eth1", vlan=9), trunk) == Body(r.PortKey(6, 9), r.Body.VLAN)
