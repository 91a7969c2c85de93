"""A trunk: a port over which frames of other ports travel, each behind a tag of its own."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from crossway.model.check import boolean, brief, duplicate, list_of, mapping, says, schema_of, text, uuid
from crossway.model.resource import REQUIRED, Kind, Resource, attribute, told

VLAN, INHERIT = "vlan", "inherit"


class SubPort(msgspec.Struct, frozen=True, gc=False):
    """A port that travels behind a tag."""

    segmentation_id: int
    segmentation_type: str
    port_id: str


# Of one request; a trunk has as many as there are VLANs. Each is looked at with its network.
SUB_PORTS_MAX = 512


@says({"type": "integer", "minimum": 1, "maximum": 4094})
def _number(value: Any) -> Any:
    if not isinstance(value, int | str) or isinstance(value, bool):
        raise ValueError(f"segmentation_id {brief(value)} is not an integer")
    return value


SUB_PORT = mapping({"port_id": uuid}, {"segmentation_type": text(255), "segmentation_id": _number}, others=True)


@says(schema_of(SUB_PORT))
def sub_port(value: Any) -> dict[str, Any]:
    """Check one by itself; of which kind its tag is, and whether that will do, is decided with its network."""
    given: dict[str, Any] = SUB_PORT(value)
    return given


@says(schema_of(list_of(sub_port, SUB_PORTS_MAX)))
def sub_ports(value: Any) -> tuple[dict[str, Any], ...]:
    """Check several: no port twice, no tag twice."""
    given: tuple[dict[str, Any], ...] = list_of(sub_port, SUB_PORTS_MAX, unique=False)(value)
    for said, one in zip(value, given, strict=True) if value else ():
        missing = not one.get("segmentation_type") or one.get("segmentation_id") is None
        # Who says more than the port must say all of the tag.
        if missing and len(said) > 1 and one.get("segmentation_type") != INHERIT:
            raise ValueError(
                f"Invalid subport details {brief(said)}: missing segmentation information. Must specify both "
                "segmentation_id and segmentation_type"
            )
    if again := duplicate(one["port_id"] for one in given):
        raise ValueError(f"Duplicate items in the list: port_id '{again}'")
    tags = ((one.get("segmentation_type"), one.get("segmentation_id")) for one in given if "segmentation_id" in one)
    if same := duplicate(tags):
        raise ValueError(f"segmentation ID '{same[1]}' for '{same[0]}' is not unique")
    return given


class Trunk(Resource, frozen=True, kw_only=True, gc=False):
    port_id: Annotated[str, attribute(uuid, put=False, default=REQUIRED)]
    admin_state_up: Annotated[bool, attribute(boolean, default=True)] = True
    status: Annotated[str, told()] = "DOWN"
    sub_ports: Annotated[
        tuple[SubPort, ...], attribute(sub_ports, put=False, default=(), filter=False, sort=False)
    ] = ()


TRUNK = Kind(
    Trunk,
    "trunk",
    "trunks",
    indexes={
        "project_id": None,
        "port_id": None,
        "sub_port": lambda trunk: tuple(sub.port_id for sub in trunk.sub_ports),
    },
)
