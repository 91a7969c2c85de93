"""What befalls a port, and what befalls hosts and servers."""

from __future__ import annotations

from crossway.lab.battery.pair import Pair, eventually, must, rule
from crossway.lab.battery.registry import blow, case
from crossway.lab.battery.scene import Scene
from crossway.lab.battery.tries import Ping, Tcp, Udp

BOTH = (4, 6)


@case("life of a port", "down and up again by its admin state")
def admin_state(pair: Pair) -> None:
    pair.arrives(Udp(4, 5000), Udp(6, 5000))
    port = pair.target.port
    pair.client.update("port", port, admin_state_up=False)
    try:
        must(eventually(lambda: pair.client.show("port", port)["status"] == "DOWN"), "its status is not DOWN")
        must(eventually(lambda: not Udp(4, 5000).reaches(pair, 0.2)), "it is still reached")
        must(not Udp(6, 5000).reaches(pair, 0.3), "it is still reached over IPv6")
    finally:
        pair.set(pair.target, admin_state_up=True)
    pair.arrives(Udp(4, 5000), Udp(6, 5000))


@case("life of a port", "detached and attached again, with the same addresses")
def attached_again(pair: Pair) -> None:
    target = pair.target
    before = (target.ip4, target.mac)
    pair.arrives(Ping(4), Tcp(6, 5000))
    target.body.detach(target.network)
    try:
        must(eventually(lambda: not Ping(4).reaches(pair, 0.3)), "it is still reached")
    finally:
        target.body.attach(target.network)
    target = pair.target = pair.target.body.cards[target.network]
    must((target.ip4, target.mac) == before, f"it was {before} and is {(target.ip4, target.mac)}")
    pair.arrives(Ping(4), Tcp(6, 5000))


@case("life of a port", "moves to another host and back, with its addresses and its groups")
def moved(pair: Pair) -> None:
    body = pair.target.body
    home = body.host
    away = next(host for host in pair.lab.hosts if host is not home)
    tries = (Udp(4, 5000), Tcp(6, 5000))
    pair.arrives(*tries, Udp(4, 5001))
    with pair.policy(pair.target, rule(4, "udp", 5000), rule(6, "tcp", 5000)):
        for host in (away, home):
            body.move(host)
            pair.target = body.cards[pair.target.network]
            at = pair.client.show("port", pair.target.port)["binding:host_id"]
            must(at == host.name, f"its port is bound to {at or 'no host'}")
            pair.arrives(*tries)
            pair.stopped(Udp(4, 5001), by="POLICY_IN", at=pair.target)


@blow("under traffic", "all agents are stopped and started again")
def agents_restart(scene: Scene) -> None:
    for host in scene.lab.hosts:
        host.agent.restart()


@blow("under traffic", "all agents are killed with -9 and started again")
def agents_killed(scene: Scene) -> None:
    for host in scene.lab.hosts:
        host.agent.kill()
    for ready in [host.agent.begin() for host in scene.lab.hosts]:
        ready.wait(30)


@blow("under traffic", "the server is stopped and started again")
def server_restart(scene: Scene) -> None:
    scene.lab.server.restart()
    scene.lab.joined()


@blow("under traffic", "the server is killed with -9 and started again")
def server_killed(scene: Scene) -> None:
    scene.lab.server.kill()
    scene.lab.server.start()
    scene.lab.joined()
