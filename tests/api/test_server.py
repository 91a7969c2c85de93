"""The server as a process: where it listens, how it ends, what survives it."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from crossway.api.server import serve
from servers import Api, Host, Server


def test_it_listens_on_many_sockets_at_once(tmp_path: Path) -> None:
    with socket.socket() as inherited:
        inherited.bind(("127.0.0.1", 0))
        inherited.listen()
        server = Server.__new__(Server)
        server.path = tmp_path
        server.listen = ["127.0.0.1:0", "[::1]:0", f"unix:{tmp_path}/s", f"fd:{inherited.fileno()}"]
        server.start(keep=[inherited.fileno()])
        port = inherited.getsockname()[1]
    try:
        assert server.listen[2:] == [f"unix:{tmp_path}/s", f"127.0.0.1:{port}"]
        for url in (f"http://{server.listen[0]}", f"http://{server.listen[1]}", f"http://127.0.0.1:{port}"):
            assert httpx.get(url).status_code == 200
        transport = httpx.HTTPTransport(uds=f"{tmp_path}/s")
        with httpx.Client(transport=transport) as client:
            assert client.get("http://x/v2.0/networks").json() == {"networks": []}
    finally:
        server.stop()
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--listen", "0.0.0.0:0"], "--insecure"),
        (["--listen", "[::]:0"], "--insecure"),
        (["--listen", "nowhere"], "HOST:PORT"),
        (["--listen", "127.0.0.1:70000"], "HOST:PORT"),
        (["--listen", "127.0.0.1:0", "--auth", "keystone:http://x"], "auth"),
        (["--listen", "127.0.0.1:0", "--store", "etcd:127.0.0.1:2379"], "etcd"),
        (["--listen", "127.0.0.1:0", "--store", "sqlite:/proc/none/db"], "/proc/none"),
    ],
)
def test_what_it_refuses_it_says_in_a_line(options: list[str], says: str) -> None:
    command = [sys.executable, "-m", "crossway", "server", "--store", "memory:", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode != 0
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_what_a_server_makes_is_for_nobody_else(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        server = Server.__new__(Server)
        server.path, server.listen = tmp_path, ["127.0.0.1:0", f"unix:{tmp_path}/s"]
        server.start("--store", f"sqlite:{tmp_path}/data/within/cloud.db")
        try:
            assert httpx.post(f"{server.url}/v2.0/networks", json={"network": {}}).status_code == 201
            made = [tmp_path / "data", *(tmp_path / "data").rglob("*"), tmp_path / "s"]
            assert {path.name for path in made} >= {"within", "cloud.db", "cloud.db-wal", "s"}
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) & 0o077 for path in made}
        finally:
            server.stop()
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(modes, 0)


def test_what_an_older_server_made_for_all_to_read_is_closed(own: Server) -> None:
    own.kill()
    files = [own.path / name for name in ("db", "db-wal", "db-shm")]
    there = [file for file in files if file.exists()]
    assert there[:2] == files[:2]
    for file in there:
        file.chmod(0o644)
    own.start()
    assert {stat.S_IMODE(file.stat().st_mode) for file in files if file.exists()} == {0o600}


def test_insecure_listens_where_others_reach_it(tmp_path: Path) -> None:
    server = Server.__new__(Server)
    server.path, server.listen = tmp_path, ["0.0.0.0:0"]
    server.start("--insecure")
    assert httpx.get(server.url.replace("0.0.0.0", "127.0.0.1")).status_code == 200
    server.stop()


def test_a_second_server_on_the_store_says_who_has_it(own: Server) -> None:
    command = [sys.executable, "-m", "crossway", "server", "--listen", "127.0.0.1:0"]
    command += ["--store", f"sqlite:{own.path / 'db'}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert "another server uses it" in done.stderr


def test_it_frees_what_an_older_one_lost(own: Server) -> None:
    api = Api(own.url)
    network = api.make("network")["id"]
    subnet = api.make("subnet", network_id=network, ip_version=4, cidr="10.0.0.0/24")["id"]
    api.client.close()
    own.stop()
    with closing(sqlite3.connect(own.path / "db")) as db, db:
        db.execute("INSERT INTO entries (key, value, modified) VALUES (?, '', 1)", (f"address/{subnet}/10.0.0.9",))
    with pytest.raises(AssertionError, match=r"10\.0\.0\.9 is held by nothing"):
        own.check()
    own.start()
    assert f"address/{subnet}/10.0.0.9 is held by nothing" in (own.path / "log").read_text()
    api = Api(own.url)
    api.make("port", network_id=network, fixed_ips=[{"ip_address": "10.0.0.9"}])
    api.client.close()
    (own.path / "log").write_text("")


def test_it_ends_quickly_with_views_and_idle_connections_open(own: Server) -> None:
    api = Api(own.url)
    hosts = [Host(api, f"h{i}").connect() for i in range(5)]
    assert own.stop() < 1.5
    for host in hosts:
        host.gone()
    api.client.close()


def test_every_answered_write_survives_kill_9(own: Server) -> None:
    api = Api(own.url)
    network = api.make("network")["id"]
    api.make("subnet", network_id=network, ip_version=4, cidr="10.0.0.0/16")
    made: dict[str, str] = {}
    deleted: set[str] = set()
    doubtful: set[str] = set()
    stop = threading.Event()

    def client(seed: int) -> None:
        rng = random.Random(seed)
        mine: list[str] = []
        one = Api(own.url)
        try:
            while not stop.is_set():
                try:
                    if mine and rng.random() < 0.3:
                        gone = mine.pop(rng.randrange(len(mine)))
                        doubtful.add(gone)
                        one("DELETE", f"/v2.0/ports/{gone}")
                        deleted.add(gone)
                    else:
                        port = one.make("port", network_id=network)
                        made[port["id"]] = port["fixed_ips"][0]["ip_address"]
                        mine.append(port["id"])
                except httpx.HTTPError:
                    # Killed with a request under way: its outcome is not known.
                    mine.clear()
                    time.sleep(0.05)
        finally:
            one.client.close()

    threads = [threading.Thread(target=client, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        time.sleep(0.7)
        own.kill()
        own.start()
    time.sleep(0.5)
    own.kill()
    stop.set()
    for thread in threads:
        thread.join()
    own.start()
    ports = {p["id"]: p["fixed_ips"][0]["ip_address"] for p in api("GET", "/v2.0/ports")["ports"]}
    assert len(made) > 100
    assert {id for id in made if ports.get(id) != made[id]} <= doubtful
    assert not deleted & ports.keys()
    assert max(Counter(ports.values()).values()) == 1
    for id in ports:
        api("DELETE", f"/v2.0/ports/{id}")
    api("DELETE", f"/v2.0/networks/{network}")
    left = {k: v for k, v in api("GET", "/v1/status")["counts"].items() if v}
    assert left.keys() <= {"group", "rule"}
    api.client.close()


def test_it_runs_within_a_loop_that_is_there(tmp_path: Path) -> None:
    async def story() -> None:
        async with serve(["127.0.0.1:0"], f"sqlite:{tmp_path}/db") as server:
            serving = asyncio.create_task(server.wait())
            async with httpx.AsyncClient(base_url=f"http://{server.addresses[0]}") as client:
                answer = await client.post("/v2.0/networks", json={"network": {"name": "n"}})
                assert answer.status_code == 201
            server.stop()
            await serving

    asyncio.run(story())


def test_the_log_is_json_with_the_request_id(own: Server) -> None:
    api = Api(own.url)
    answer = api.client.post("/v2.0/networks", json={"network": {}})
    own.stop()
    assert f'"request":"{answer.headers["x-openstack-request-id"]}","status":201' in (own.path / "log").read_text()
    api.client.close()
