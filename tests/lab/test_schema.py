"""A build whose tables are laid out in another way takes over while traffic runs."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

from crossway.lab import Lab
from lab.stories import connections, dual, open_group, pings, stream

TOP = Path(__file__).parents[2]


def other_layout(tmp: Path) -> Path:
    """Compile the data plane with a larger `struct network`: old tables are of no use to it."""
    shutil.copytree(TOP / "bpf", tmp / "bpf")
    types = tmp / "bpf" / "include" / "types.h"
    text = types.read_text()
    assert text.count("struct network {\n") == 1
    types.write_text(text.replace("struct network {\n", "struct network {\n\t__u32 pad_before[4];\n"))
    flags = subprocess.run(
        ["make", "-s", "--no-print-directory", "cflags"], cwd=TOP, capture_output=True, text=True, check=True
    )
    path = tmp / "other.bpf.o"
    subprocess.run(["clang", *flags.stdout.split(), "-c", "bpf/crossway.bpf.c", "-o", str(path)], cwd=tmp, check=True)
    return path


def test_another_layout_loses_no_packet_and_no_connection(tmp_path: Path) -> None:
    other = other_layout(tmp_path)
    with Lab.up(hosts=2) as lab:
        network = dual(lab, "net")
        group = open_group(lab)
        near, far = (lab.workload(host, network, groups=[group]) for host in lab.hosts)
        pins = [host.run / "bpf" for host in lab.hosts]
        before = [{p.name for p in of.iterdir() if p.is_dir()} for of in pins]
        with connections(near, far, far.ip4) as tcp, stream(near, far, far.ip6) as udp:
            for host in lab.hosts:
                host.agent.kill()
                host.agent.environment["CROSSWAY_OBJECT"] = str(other)
                host.agent.start()
                time.sleep(1.5)
        after = [{p.name for p in of.iterdir() if p.is_dir()} for of in pins]
        assert all(len(names) == 1 for names in after), "tables of the old layout are gone"
        assert all(not a & b for a, b in zip(after, before, strict=True))
    assert udp["sent"] > 20_000
    assert udp["lost"] == udp["twice"] == 0, udp
    assert tcp["failures"] == 0, tcp
    assert tcp["alive"] == 100, tcp


def test_what_tc_makes_among_the_tables_does_no_harm() -> None:
    with Lab.up(hosts=1) as lab:
        host, network = lab.hosts[0], dual(lab, "net")
        (host.run / "bpf" / "tc").mkdir()
        (host.run / "bpf" / "ip").symlink_to(host.run / "bpf" / "tc")
        host.agent.kill()
        host.agent.start()
        group = open_group(lab)
        one, two = (lab.workload(host, network, groups=[group]) for _ in range(2))
        assert pings(one, two.ip4)
        assert (host.run / "bpf" / "ip").is_symlink()
