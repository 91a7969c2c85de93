"""Segments of networks, and the ranges from which operators let segments be taken."""

from __future__ import annotations

from typing import Annotated

import msgspec

from crossway.model.check import boolean, integer, name, one_of, or_none, text, uuid
from crossway.model.network import FLAT, VLAN, VNI_MAX, VXLAN
from crossway.model.resource import Kind, Resource, attribute, told
from crossway.model.who import ADMIN


class Segment(Resource, frozen=True, kw_only=True, gc=False):
    """One of a network's segments; the network's own one has what its provider attributes say."""

    name: Annotated[str | None, attribute(or_none(name(255)), default=None)] = None  # type: ignore[assignment]
    network_id: Annotated[str, attribute(uuid, put=False, default=msgspec.NODEFAULT)]
    network_type: Annotated[str, attribute(one_of(FLAT, VLAN, VXLAN), put=False, default=msgspec.NODEFAULT)]
    physical_network: Annotated[str | None, attribute(or_none(text(64)), put=False, default=None)] = None
    segmentation_id: Annotated[
        int | None,
        attribute(or_none(integer(1, VNI_MAX)), put=False, default=None, filter_check=integer(1, VNI_MAX)),
    ] = None


SEGMENT = Kind(
    Segment,
    "segment",
    "segments",
    create=ADMIN,
    get=ADMIN,
    update=ADMIN,
    delete=ADMIN,
    without=("project_id", "tags"),
    forgets=("project_id", "tenant_id"),
    indexes=("network_id",),
)


class SegmentRange(Resource, frozen=True, kw_only=True, gc=False):
    """Numbers that networks of a type get: of all projects, or of one alone."""

    default: Annotated[bool, told(filter=False, sort=False)] = False
    shared: Annotated[bool, attribute(boolean, put=False, default=True, filter=False, sort=False)] = True
    network_type: Annotated[str, attribute(one_of(VLAN, VXLAN), put=False, default=msgspec.NODEFAULT)]
    physical_network: Annotated[str | None, attribute(or_none(text(64)), put=False, default=None)] = None
    minimum: Annotated[int, attribute(integer(1, VNI_MAX), default=msgspec.NODEFAULT, filter=False, sort=False)]
    maximum: Annotated[int, attribute(integer(1, VNI_MAX), default=msgspec.NODEFAULT, filter=False, sort=False)]


SEGMENT_RANGE = Kind(
    SegmentRange,
    "network_segment_range",
    "network_segment_ranges",
    table="segment_range",
    create=ADMIN,
    get=ADMIN,
    update=ADMIN,
    delete=ADMIN,
    indexes=("project_id", "network_type"),
)
