"""Make, change and delete flavors and service profiles, and put them together."""

from __future__ import annotations

from typing import Any

from crossway.control.caller import Caller
from crossway.control.cloud import Cloud
from crossway.control.collection import Action, Collection, change, find, make
from crossway.control.decision import Decision
from crossway.errors import Conflict, Invalid, NotFound, Unavailable
from crossway.model.flavor import (
    DRIVER,
    FLAVOR,
    FLAVOR_PROFILE,
    SERVICE_PROFILE,
    Flavor,
    FlavorProfile,
    ServiceProfile,
)
from crossway.model.resource import Given, now
from crossway.model.router import Router
from crossway.model.who import ANYONE


def create(decision: Decision, caller: Caller, given: Given) -> Flavor:
    profiles = given.pop("service_profiles")
    flavor = make(decision, caller, Flavor, given)
    for profile in profiles:
        associate(decision, caller, {"flavor_id": flavor.id, "service_profile_id": profile})
    return flavor


def update(decision: Decision, caller: Caller, id: str, given: Given) -> Flavor:
    flavor = find(decision, Flavor, id)
    wanted = given.pop("service_profiles", None)
    if wanted is not None:
        table = decision.cloud.of(FlavorProfile)
        known = {bound.service_profile_id: bound for bound in decision.by(table, "flavor_id", id)}
        for profile, bound in known.items():
            if profile not in wanted:
                part(decision, caller, bound.id)
        for profile in wanted:
            if profile not in known:
                associate(decision, caller, {"flavor_id": id, "service_profile_id": profile})
    return change(decision, flavor, given)


def delete(decision: Decision, caller: Caller, id: str) -> None:
    """Delete a flavor that no router has."""
    cloud = decision.cloud
    find(decision, Flavor, id)
    if cloud.of(Router).ids("flavor_id", id):
        raise Conflict(f"Flavor {id} is used by some service instance.", type="FlavorInUse")
    decision.empty(f"flavored/{id}/")
    decision.quiet(f"bound/{id}/")
    for bound in decision.by(cloud.of(FlavorProfile), "flavor_id", id):
        part(decision, caller, bound.id)
    decision.delete(cloud.of(Flavor), id)


def create_profile(decision: Decision, caller: Caller, given: Given) -> ServiceProfile:
    if given["driver"]:
        _check_driver(given["driver"])
    elif not given["metainfo"]:
        raise Invalid("Service Profile needs either a driver or metainfo.", type="ServiceProfileEmpty")
    return make(decision, caller, ServiceProfile, given)


def update_profile(decision: Decision, caller: Caller, id: str, given: Given) -> ServiceProfile:
    if given.get("driver"):
        _check_driver(given["driver"])
    profile = find(decision, ServiceProfile, id)
    _check_unbound(decision, id)
    return change(decision, profile, given)


def delete_profile(decision: Decision, caller: Caller, id: str) -> None:
    find(decision, ServiceProfile, id)
    _check_unbound(decision, id)
    decision.delete(decision.cloud.of(ServiceProfile), id)


def associate(decision: Decision, caller: Caller, given: Given) -> FlavorProfile:
    """Put a service profile to a flavor."""
    cloud = decision.cloud
    flavor, profile = given["flavor_id"], given["service_profile_id"]
    if decision.rely(cloud.of(Flavor), flavor) is None:
        raise NotFound("flavor", flavor)
    if decision.rely(cloud.of(ServiceProfile), profile) is None:
        raise NotFound("service_profile", profile)
    id, time = f"{flavor}.{profile}", now()
    if decision.get(cloud.of(FlavorProfile), id):
        raise Conflict(
            f"Service Profile {profile} is already associated with flavor {flavor}.",
            type="FlavorServiceProfileBindingExists",
        )
    bound = FlavorProfile(
        flavor_id=flavor, service_profile_id=profile, id=id, project_id="", created_at=time, updated_at=time
    )
    decision.claim(f"bound/{flavor}/{profile}")
    decision.claim(f"bound/{profile}/{flavor}")
    decision.create(cloud.of(FlavorProfile), bound)
    return bound


def part(decision: Decision, caller: Caller, id: str) -> None:
    bound = find(decision, FlavorProfile, id)
    decision.release(f"bound/{bound.flavor_id}/{bound.service_profile_id}")
    decision.release(f"bound/{bound.service_profile_id}/{bound.flavor_id}")
    decision.delete(decision.cloud.of(FlavorProfile), id)


def next_providers(decision: Decision, caller: Caller, id: str, body: Any) -> dict[str, list[dict[str, str]]]:
    """Tell who does the service for the next that has a flavor, by the first of its profiles."""
    cloud = decision.cloud
    bound = next(iter(sorted(cloud.of(FlavorProfile).by("flavor_id", id), key=lambda one: one.created_at)), None)
    profile = cloud.of(ServiceProfile).get(bound.service_profile_id) if bound else None
    if profile is None:
        raise _absent(f"Flavor {id} has no service profile.", "FlavorServiceProfileBindingNotFound")
    if not profile.enabled:
        raise Unavailable("Service Profile is not enabled.", type="ServiceProfileDisabled")
    if not profile.driver:
        raise _absent(f"Service Profile {profile.id} names no driver.", "ServiceProfileDriverNotFound")
    return {"next_providers": [{"driver": profile.driver, "provider": DRIVER}]}


def _check_unbound(decision: Decision, profile: str) -> None:
    decision.quiet(f"bound/{profile}/")
    if decision.by(decision.cloud.of(FlavorProfile), "service_profile_id", profile):
        raise Conflict(f"Service Profile {profile} is used by some service instance.", type="ServiceProfileInUse")


def _check_driver(driver: str) -> None:
    if driver != DRIVER:
        raise _absent(
            f"Service Profile driver {driver} could not be found; there is {DRIVER}.", "ServiceProfileDriverNotFound"
        )


def _absent(message: str, type: str) -> NotFound:
    fault = NotFound("service_profile", "")
    fault.args, fault.type = (message,), type
    return fault


def _profiles(cloud: Cloud, flavor: Flavor) -> list[str]:
    return [bound.service_profile_id for bound in cloud.of(FlavorProfile).by("flavor_id", flavor.id)]


def _flavors(cloud: Cloud, profile: ServiceProfile) -> list[str]:
    return [bound.flavor_id for bound in cloud.of(FlavorProfile).by("service_profile_id", profile.id)]


FLAVORS = Collection(
    kind=FLAVOR,
    create=create,
    update=update,
    delete=delete,
    actions={"next_providers": Action(next_providers, who=ANYONE, method="GET")},
    children=(Collection(kind=FLAVOR_PROFILE, create=associate, delete=part, within=True),),
    derived={"service_profiles": _profiles},
    stale={"flavor_profile": lambda bound: (bound.flavor_id,)},
    aliases={"flavors": "Neutron Service Flavors"},
)
SERVICE_PROFILES = Collection(
    kind=SERVICE_PROFILE,
    create=create_profile,
    update=update_profile,
    delete=delete_profile,
    derived={"flavors": _flavors},
    stale={"flavor_profile": lambda bound: (bound.service_profile_id,)},
)
