"""Run the demo. The exit code is 0 only if every attempt ended as the policy says."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console

from crossway import settings
from crossway.errors import Fault, Unavailable
from crossway.lab import demo
from crossway.lab.demo import telling, trial
from crossway.lab.demo.bodies import NUMBERS, Cloud, Guest, edge
from crossway.lab.demo.policy import MEMBERS, TENANTS, Attempt, Member, attempts
from crossway.lab.demo.trial import Scene, together
from crossway.lab.lab import Lab, down, sweep
from crossway.lab.process import interruptible, last_words

TOP = Path(__file__).parents[4]
PAIRS = (("red.web1", "red.web2"), ("red.web1", "red.db1"), ("blue.web2", "blue.vault"))


def images() -> Path:
    """Make what the guest boots, if it is not there; return where it is."""
    script = TOP / "scripts" / "guest"
    done = subprocess.run([script], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"scripts/guest ended with {done.returncode}: {done.stderr.strip()}")
    return TOP / "build" / "guest"


def settle(scene: Scene, image: Path) -> None:
    """Give all members their bodies, and wait until each can be reached."""
    for host in sorted({member.host for member in MEMBERS if member.kind == "server"}):
        edge(scene.lab, scene.lab.hosts[host])
    engines = sorted({(member.tenant, member.host) for member in MEMBERS})
    together(scene, lambda one: scene.clouds[one[0]].engine(one[1]), engines, len(engines))

    def body(member: Member) -> None:
        cloud = scene.clouds[member.tenant]
        made = cloud.container(member) if member.kind == "container" else cloud.other(member, image)
        scene.bodies[member] = made
        made.settled()
        made.active()

    # The guest takes longest: it begins first.
    together(scene, body, sorted(MEMBERS, key=lambda member: member.kind == "container"), 4)


def play(lab: Lab, console: Console) -> bool:
    """Build the tenants, try everything, tell it; return whether all was as the policy says."""
    scene = Scene(lab)
    try:
        return _play(scene, console)
    finally:
        for body in scene.bodies.values():
            body.close()


def _play(scene: Scene, console: Console) -> bool:
    lab = scene.lab
    began = time.monotonic()
    with console.status("what the guest boots: Debian's kernel, busybox"):
        image = images()
    with console.status("two tenants with the same addresses: networks, routers, groups"):
        scene.clouds = {name: Cloud(lab, name) for name in TENANTS}
    count = len({(member.tenant, member.host) for member in MEMBERS})
    with console.status(f"{count} Docker engines; containers, a guest, a server"):
        settle(scene, image)
    kinds = [member.kind for member in MEMBERS]
    console.print(
        f"{count} Docker engines of two tenants, {kinds.count('container')} containers, a QEMU guest and "
        f"a bare-metal server: up in {time.monotonic() - began:.1f} s"
    )
    tried = attempts()
    done = 0
    with console.status("everybody tries to reach everybody") as status:

        def note() -> None:
            nonlocal done
            done += 1
            status.update(f"everybody tries to reach everybody: {done} of {len(tried)}")

        trial.try_all(scene, tried, note)
    for name in TENANTS:
        console.print(telling.matrix(name, tried))
    with console.status("how fast is it?"):
        measured = [trial.measure(scene, scene.body(a), scene.body(b)) for a, b in PAIRS]
    console.print(telling.speeds(measured))
    names = {group["id"]: group["name"] for group in lab.client.list("security_groups")}
    console.print(telling.refusals(tried, names))
    return _judged(console, tried) & _unbroken(scene, console)


def _judged(console: Console, tried: list[Attempt]) -> bool:
    """Tell what did not end as the policy says; return whether nothing did."""
    wrong = [one for one in tried if not one.right]
    untold = [one for one in tried if one.right and not one.expected and one.refusal is None]
    for one in wrong:
        said = f"answered by {one.answered_by}" if one.answered_by else "reached" if one.reached else "not reached"
        wanted = f"answered by {one.target.full}" if one.expected and one.target else "not reached"
        console.print(f"[red]{one.source.full} → {one.ip} {one.service.name}: {said}, should be {wanted}[/red]")
    for one in untold:
        console.print(f"[red]{one.source.full} → {one.ip} {one.service.name}: refused, but no host says why[/red]")
    if wrong or untold:
        console.print(f"[bold red]{len(wrong) + len(untold)} of {len(tried)} attempts did not end as the policy says")
        return False
    console.print(f"[green]all {len(tried)} attempts ended as the policy says[/green]")
    return True


def _unbroken(scene: Scene, console: Console) -> bool:
    """Let the guest move, and server and agents die, under traffic; return whether nothing was lost."""
    guest, reader = scene.body("red.vm"), scene.body("red.web2").member
    assert isinstance(guest, Guest)
    before = guest.host.name
    with console.status("the guest moves to another host while it is read from"):
        moved = trial.move(scene, guest, 2, reader)
    console.print(
        f"red.vm moved live from {before} to {guest.host.name} while red.web2 read numbered lines from it over one "
        f"connection: {moved.read} of {NUMBERS} came, {'' if moved.in_order else 'not '}in order; "
        f"it stood still for {moved.downtime_ms:.0f} ms, the longest gap was {moved.gap_ms:.0f} ms",
        style="green" if moved.right else "red",
    )
    with console.status("server and agents die, and come back"):
        bill = trial.hitless(scene, scene.body("red.web1"), scene.body("red.metal"))
    console.print(
        f"server and all agents killed and started again while red.web1 pinged red.metal: "
        f"{bill.received} of {bill.sent} answered",
        style="green" if bill.received == bill.sent else "red",
    )
    return moved.right and bill.received == bill.sent


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(prog="make demo", description=demo.__doc__)
    parser.add_argument("--keep", action="store_true", help="leave the lab up and say what to try next")
    parser.add_argument("--name", default="demo", help="what the lab is called that stays")
    args = parser.parse_args()

    interruptible()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    if os.geteuid() != 0:
        console.print("the demo makes network namespaces: run it as root")
        sys.exit(1)
    # Each tenant's engines have a socket of their own on each host's agent.
    os.environ[settings.DOCKER_PROJECTS.variable] = ",".join(TENANTS)
    name = None
    try:
        # What an earlier one left when it was killed.
        sweep()
        began = time.monotonic()
        with console.status("three hosts, a server, an outside"):
            lab = Lab.up(args.name if args.keep else None, hosts=3, stays=args.keep)
        name = lab.name
        console.print(f"three hosts with their agents and a server: up in {time.monotonic() - began:.1f} s")
        good = play(lab, console)
        lab.close()
        console.print(f"all of it took {time.monotonic() - began:.0f} s")
        if good and args.keep:
            console.print(telling.what_next(lab))
            name = None
        sys.exit(0 if good else 1)
    except KeyboardInterrupt:
        console.print("interrupted: taking everything down")
        sys.exit(130)
    except Fault as fault:
        console.print(f"[bold red]the demo failed:[/bold red] {fault}", markup=True)
        if name:
            for log in sorted(Path(f"/run/crossway/lab/{name}").glob("*/*.log")):
                console.print(f"{log.name} of {log.parent.name}: {last_words(log, 3)}", markup=False)
        sys.exit(1)
    finally:
        if name:
            down(name)


if __name__ == "__main__":
    main()
