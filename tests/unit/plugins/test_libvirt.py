"""What a domain's description says of ports, and the hook that libvirtd starts."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import crossway.plugins
from crossway.cli.libvirt import install_hook, remove_hook
from crossway.errors import Forbidden, Invalid
from crossway.plugins.libvirt import NAMESPACE, Card, card_of, read

ID = "3f1f3c3e-0000-4000-8000-000000000001"
PORT = {"id": ID, "mac_address": "52:54:00:00:00:01"}
ONE, TWO = "52:54:00:00:00:01", "52:54:00:00:00:02"


def domain(ports: str = "", cards: str = "", id: str = ID) -> str:
    return (
        f"<domain><name>d</name><uuid>{id}</uuid><metadata>"
        f"<other xmlns='urn:other'><port id='x'/></other><c:ports xmlns:c='{NAMESPACE}'>{ports}</c:ports>"
        f"</metadata><devices><interface type='network'/>{cards}</devices></domain>"
    )


def card(mac: str = ONE, dev: str = "tap1", more: str = "") -> str:
    return (
        f"<interface type='ethernet'><mac address='{mac}'/><target dev='{dev}' managed='no'/>{more}"
        "<driver name='qemu'/></interface>"
    )


def test_ports_and_interfaces_are_read() -> None:
    told = read(domain("<c:port name='web' mac='52:54:00:AA:00:01'/>", card(more="<driver queues='4'/>")))
    assert (told.name, told.id) == ("d", ID)
    assert [(p.name, p.mac) for p in told.ports] == [("web", "52:54:00:aa:00:01")]
    assert told.cards[1] == Card(kind="ethernet", mac=ONE, device="tap1", managed=False, queues=4)


@pytest.mark.parametrize(
    ("xml", "why"),
    [
        ("<domain>", "no XML"),
        ("", "no XML"),
        (domain(id="d"), "no UUID, but 'd'"),
        (domain("<c:port/>"), "either id or name"),
        (domain("<c:port id='x' name='y'/>"), "either id or name"),
        (domain("<c:port id='x' nic='y'/>"), "nic, which is not known"),
        (domain("<c:card id='x'/>"), "'card' where only port may be"),
    ],
)
def test_what_cannot_be_is_told(xml: str, why: str) -> None:
    with pytest.raises(Invalid, match=why):
        read(xml)


@pytest.mark.parametrize(
    ("named", "cards", "device"),
    [
        ("name='p'", card(TWO, "tap2") + card(), "tap1"),
        ("name='p' dev='tap1'", card(TWO, "tap2") + card(), "tap1"),
        (f"name='p' mac='{ONE}'", card(TWO, "tap2") + card(), "tap1"),
        ("name='p'", card() + card(ONE, "tap2"), "2 interfaces such"),
        ("name='p' dev='tap2'", card() + card(ONE, "tap2"), "tap2"),
        ("name='p'", card(TWO), f"for an interface with MAC {ONE}; there is no interface such, but no target dev"),
        (f"name='p' mac='{TWO}'", card(TWO), f"interface tap1 has MAC {TWO}, but its port p has {ONE}"),
        (f"name='p' dev='tap3' mac='{TWO}'", card(), f"with target dev tap3 and MAC {TWO}; there is no"),
        ("name='p'", card(dev=""), "<target dev='NAME' managed='no'/>"),
        ("name='p'", card().replace("ethernet", "bridge"), "of type 'bridge': it should be 'ethernet'"),
    ],
)
def test_a_port_is_an_interface_by_target_or_mac(named: str, cards: str, device: str) -> None:
    told = read(domain(f"<c:port {named}/>", cards))
    try:
        found = card_of(told, told.ports[0], PORT).device
    except Invalid as fault:
        found = str(fault)
    assert found == device or device in found


@pytest.fixture
def hook(tmp_path: Path) -> Path:
    """Return the program that the hook starts."""
    install_hook(tmp_path, run="/run/crossway")
    return tmp_path / "etc" / "libvirt" / "hooks" / "crossway-libvirt"


def test_the_hook_is_put_beside_others_and_again_changes_nothing(tmp_path: Path, hook: Path) -> None:
    beside = hook.parent / "qemu.d"
    (beside / "another").write_text("#!/bin/sh\n")
    script = beside / "crossway"
    before = [(path.stat().st_ino, path.read_bytes()) for path in (hook, script)]
    assert script.stat().st_mode & 0o777 == 0o755
    assert script.read_text().endswith(
        'exec /etc/libvirt/hooks/crossway-libvirt /run/crossway/agent.sock required "$@"\n'
    )
    install_hook(tmp_path, run="/run/crossway")
    assert [(path.stat().st_ino, path.read_bytes()) for path in (hook, script)] == before
    install_hook(tmp_path, optional=True, run="/run/other")
    assert "/run/other/agent.sock optional" in script.read_text()
    remove_hook(tmp_path)
    remove_hook(tmp_path)
    assert [path.name for path in hook.parent.rglob("*") if path.is_file()] == ["another"]


def test_where_no_hook_can_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "etc").write_text("no directory")
    with pytest.raises(Forbidden, match=r"cannot write .*/etc/libvirt/hooks/crossway-libvirt: "):
        install_hook(tmp_path)
    with pytest.raises(Invalid, match="should be a path from the root"):
        install_hook(tmp_path, run="here")


@pytest.mark.parametrize(
    ("how", "operation", "xml", "status"),
    [
        ("required", "prepare", domain(), 1),
        ("optional", "prepare", domain(), 0),
        ("required", "migrate", domain(), 1),
        ("required", "reconnect", domain(), 0),  # a domain that runs would be ended
        ("required", "release", domain(), 0),
        ("required", "started", domain(), 0),
        ("required", "prepare", "<domain/>", 0),
    ],
)
def test_without_an_agent_only_what_has_ports_is_refused(
    hook: Path, tmp_path: Path, how: str, operation: str, xml: str, status: int
) -> None:
    done = subprocess.run(
        [hook, tmp_path / "none.sock", how, "d", operation, "begin", "-"], input=xml, text=True, capture_output=True,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (status, "")
    speaks = xml != "<domain/>" and operation != "started"
    assert done.stderr == (
        f"crossway: domain d: the agent does not answer at {tmp_path}/none.sock: No such file or directory\n"
        if speaks
        else ""
    )


def test_the_program_is_carried_by_the_package() -> None:
    assert Path(crossway.plugins.__file__).with_name("crossway-libvirt").exists()
