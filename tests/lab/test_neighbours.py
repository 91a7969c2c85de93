"""An address comes back under another MAC: who spoke with it before goes on, at once."""

from __future__ import annotations

from crossway.lab import Lab
from lab.stories import dual, open_group, pings


def test_neighbours_are_told_of_another_mac() -> None:
    with Lab.up(hosts=2) as lab:
        group, network = open_group(lab), dual(lab, "net")
        near, far = (lab.workload(host, network, groups=[group]) for host in lab.hosts)
        fixed = [{"ip_address": ip} for ip in ("10.0.0.77", "fd00::77")]
        macs = set()
        for turn in range(4):
            came = lab.workload(lab.hosts[turn % 2], network, groups=[group], fixed_ips=fixed)
            macs.add(came.mac)
            for peer in (near, far):
                for ip in (came.ip4, came.ip6):
                    assert pings(peer, ip), (turn, peer, ip, peer.exec("ip", "neigh").stdout)
                assert came.mac in peer.exec("ip", "-4", "neigh", "show", came.ip4).stdout
            came.delete()
        assert len(macs) == 4
