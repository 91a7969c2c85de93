"""Make, change and delete conntrack helpers of routers."""

from __future__ import annotations

import msgspec

from crossway.control import outside
from crossway.control.caller import Caller
from crossway.control.collection import Collection, change, find, touch
from crossway.control.decision import Decision
from crossway.errors import Invalid, NotFound
from crossway.model.conntrack_helper import CONNTRACK_HELPER, HELPERS, ConntrackHelper
from crossway.model.resource import Given, new_id, now
from crossway.model.router import Router


def create(decision: Decision, caller: Caller, given: Given) -> ConntrackHelper:
    cloud = decision.cloud
    router = decision.rely(cloud.routers, given["router_id"])
    if router is None:
        raise NotFound("router", given["router_id"])
    time = now()
    helper = ConntrackHelper(**given, id=new_id(), project_id=router.project_id, created_at=time, updated_at=time)
    _check(decision, helper)
    outside.bear(decision, helper.id, (None, None), (None, router.id))
    decision.create(cloud.of(ConntrackHelper), helper)
    touch(decision, Router, router.id)
    return helper


def update(decision: Decision, caller: Caller, id: str, given: Given) -> ConntrackHelper:
    old = find(decision, ConntrackHelper, id)
    _check(decision, msgspec.structs.replace(old, **given))
    # Claimed anew, so that those who make the same at the same time find out.
    key = f"routed/{old.router_id}/{id}"
    decision.release(key)
    decision.claim(key)
    touch(decision, Router, old.router_id)
    return change(decision, old, given)


def delete(decision: Decision, caller: Caller, id: str) -> None:
    helper = find(decision, ConntrackHelper, id)
    outside.bear(decision, id, (None, None), (helper.router_id, None))
    decision.delete(decision.cloud.of(ConntrackHelper), id)
    touch(decision, Router, helper.router_id)


def _check(decision: Decision, new: ConntrackHelper) -> None:
    if new.helper not in HELPERS:
        raise Invalid(
            f"Conntrack Helper {new.helper} is not allowed; should be one of {sorted(HELPERS)}.",
            type="ConntrackHelperNotAllowed",
        )
    if new.protocol not in HELPERS[new.helper]:
        raise Invalid(
            f"Conntrack Helper {new.helper} does not support: {new.protocol}. Supported protocols are: "
            f"{', '.join(HELPERS[new.helper])}",
            type="InvalidProtocolForHelper",
        )
    outside.settle_router(decision, new.router_id)
    for other in decision.by(decision.cloud.of(ConntrackHelper), "router_id", new.router_id):
        if other.id != new.id and (other.protocol, other.port, other.helper) == (new.protocol, new.port, new.helper):
            raise Invalid(
                "Bad conntrack_helper request: A duplicate conntrack helper entry with same attributes already "
                f"exists: {other.id}.",
                type="BadRequest",
            )


CONNTRACK_HELPERS = Collection(
    kind=CONNTRACK_HELPER,
    create=create,
    update=update,
    delete=delete,
    aliases={
        "expose-l3-conntrack-helper": "Expose CT target rules for conntrack helper",
        "l3-conntrack-helper": "L3 Conntrack helper",
    },
)
