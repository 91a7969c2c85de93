"""Keep the network that a project's `ha` routers have in Neutron: clients look it up by its name.

Neutron's routers watch over each other on it. Here every host routes, so nothing is
on it; it comes with a project's first such router and goes with the last.
"""

from __future__ import annotations

from crossway.control import network
from crossway.control.caller import Caller
from crossway.control.decision import Decision
from crossway.control.network import HELD
from crossway.model.network import NETWORK, Network
from crossway.model.router import Router

NAME = "HA network tenant {}"


def follow(decision: Decision, old: Router | None, new: Router | None) -> None:
    """Have a router that was, or was not, and is to be, use its project's network if it is highly available."""
    was, becomes = (router is not None and router.ha for router in (old, new))
    if new is not None and becomes and not was:
        theirs = _find(decision, new.project_id) or _make(decision, new.project_id)
        decision.rely(decision.cloud.networks, theirs.id)
        decision.claim(f"uses/{theirs.id}/{new.id}")
    elif old is not None and was and not becomes:
        found = _find(decision, old.project_id)
        if found is None:
            return  # It was made before there were such networks, or an operator has deleted it.
        decision.release(f"uses/{found.id}/{old.id}")
        routers = decision.by(decision.cloud.routers, "project_id", old.project_id)
        others = any(router.ha for router in routers if router.id != old.id)
        if not others and not decision.by(decision.cloud.ports, "network_id", found.id):
            network.delete(decision, Caller(), found.id)


def _find(decision: Decision, project: str) -> Network | None:
    # By its name and as nobody's: projects may call their own networks so.
    named = decision.by(decision.cloud.networks, "name", NAME.format(project))
    return next((one for one in named if not one.project_id), None)


def _make(decision: Decision, project: str) -> Network:
    # Of two routers that come first at the same time, one decides anew.
    decision.quiet(f"claim/{HELD}")
    given = {**NETWORK.given({"name": NAME.format(project)}), "project_id": None}
    made = network.create(decision, Caller(), given)
    decision.claim(f"claim/{HELD}{made.id}", project)
    return made
