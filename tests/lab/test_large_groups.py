"""One tenant's policy is large; others' ports come up meanwhile as ever."""

from __future__ import annotations

import threading
import time

from crossway.lab import Lab
from lab.stories import connections, dual, open_group, pings, wait_for

ADDRESSES, RULES = 8200, 12
SECONDS = 10.0  # for a port to be ACTIVE: much, as the machine may be busy; bench/neighbours.py measures


def test_a_large_address_group_holds_up_no_other_tenant() -> None:
    with Lab.up(hosts=1) as lab:
        host, ask = lab.hosts[0], lab.client
        network, other = dual(lab, "net"), dual(lab, "other", prefix=1)
        group, theirs = open_group(lab), open_group(lab, "theirs")
        quiet = [lab.workload(host, other, groups=[theirs]) for _ in range(2)]
        addresses = [f"10.{200 + (n >> 16)}.{n >> 8 & 255}.{n & 255}/32" for n in range(ADDRESSES)]
        named = ask.create("address_group", name="many", addresses=addresses[:-1])["id"]
        large = ask.create("security_group", name="large")["id"]
        for n in range(RULES):
            ask.create(
                "security_group_rule",
                security_group_id=large,
                direction="ingress",
                protocol="tcp",
                port_range_min=1 + n,
                port_range_max=65534 - n,
                remote_address_group_id=named,
            )
        port = ask.create("port", network_id=network["id"], security_groups=[large, group["id"]])
        stop, changes = threading.Event(), []

        def change() -> None:
            """Change the large group again and again."""
            while not stop.is_set():
                for verb in ("add_addresses", "remove_addresses"):
                    ask.ask("PUT", f"/v2.0/address-groups/{named}/{verb}", {"addresses": [addresses[-1]]})
                    changes.append(verb)
                time.sleep(0.2)

        busy = threading.Thread(target=change)
        with connections(*quiet, quiet[1].ip4) as tcp:
            workload = lab.workload(host, network, port=port)
            busy.start()
            try:
                took = []
                for _ in range(5):
                    began = time.monotonic()
                    came = lab.workload(host, other, groups=[theirs])
                    took.append(time.monotonic() - began)
                    assert pings(came, quiet[0].ip4)
            finally:
                stop.set()
                busy.join()
        assert max(took) < SECONDS, took
        assert len(changes) >= 2
        assert tcp["failures"] == 0, tcp
        assert tcp["alive"] == 100, tcp
        assert pings(quiet[0], came.ip4)
        assert workload.ip4

        def rows() -> int:
            tables = host.agent_client.status()["tables"]
            return sum(int(tables[name]["rows"]) for name in ("port_sets", "policies", "prefixes"))

        assert wait_for(lambda: ADDRESSES - 1 < rows() < ADDRESSES + 1000), rows()
