"""Whether new security groups are stateful where nothing is said: of one project, or of all."""

from __future__ import annotations

from typing import Annotated

from crossway.model.check import boolean, or_none, text
from crossway.model.resource import Kind, Resource, attribute
from crossway.model.who import MANAGER, READER


class Statefulness(Resource, frozen=True, kw_only=True, gc=False):
    """*project_id* is empty for all projects."""

    project_id: Annotated[str | None, attribute(or_none(text(255)), put=False, default=None)] = None  # type: ignore[assignment]
    stateful: Annotated[bool, attribute(boolean, default=True)] = True


STATEFULNESS = Kind(
    Statefulness,
    "security_group_default_statefulness",
    "security_groups_default_statefulness",
    table="statefulness",
    create=MANAGER,
    get=READER,
    update=MANAGER,
    delete=MANAGER,
    without=("name", "description", "created_at", "updated_at", "revision_number", "tags"),
    indexes={"project_id": None, "whose": lambda one: (one.project_id or "",)},
)
