"""Datagrams in fragments over a link that lets packets overtake each other."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

from crossway.lab import Lab
from crossway.lab.impair import Impairment
from crossway.lab.traffic import NUMBER, open_in
from lab.stories import dual, pings

PORT = 7600
COUNT = 1000
SIZE = 4000  # three fragments


def _received(receiver: socket.socket) -> Iterator[int]:
    """Yield the numbers of what has come, until nothing more does."""
    with contextlib.suppress(TimeoutError):
        while True:
            data = receiver.recv(65536)
            assert len(data) == SIZE
            yield NUMBER.unpack_from(data)[0]


def test_no_datagram_is_lost_where_fragments_overtake_their_first_one() -> None:
    with Lab.up(hosts=2) as lab:
        network = dual(lab, "net")
        group = lab.client.create("security_group", name="one port")
        for ethertype in ("IPv4", "IPv6"):
            rule = {"direction": "ingress", "ethertype": ethertype, "security_group_id": group["id"]}
            lab.client.create("security_group_rule", protocol="udp", port_range_min=PORT, port_range_max=PORT, **rule)
        near, far = (lab.workload(host, network, groups=[group["id"]]) for host in lab.hosts)
        lab.impair("h2", Impairment(reorder=0.05), seed=11)
        for ip in (far.ip4, far.ip6):
            assert not pings(near, ip), "the group admits that port alone"
            family = socket.AF_INET6 if ":" in ip else socket.AF_INET
            with (
                open_in(far.path, family, socket.SOCK_DGRAM) as receiver,
                open_in(near.path, family, socket.SOCK_DGRAM) as sender,
            ):
                receiver.setsockopt(socket.SOL_SOCKET, 33, 1 << 26)  # SO_RCVBUFFORCE
                receiver.bind((ip, PORT))
                receiver.settimeout(2)
                for i in range(COUNT):
                    sender.sendto(NUMBER.pack(i) + bytes(SIZE - NUMBER.size), (ip, PORT))
                    time.sleep(0.002)
                came = set(_received(receiver))
            # One in twenty was lost; a busy machine's own queues may lose some.
            assert len(came) >= COUNT - 5, (ip, COUNT - len(came), lab.hosts[1].agent_client.drops())
