"""crossway policy: who may do what, as the declarations of all resources say it."""

from __future__ import annotations

from typing import Annotated

import typer

from crossway.cli import show
from crossway.cli.options import Json
from crossway.errors import NotFound

COLUMNS: list[show.Column] = [("OPERATION", lambda r: r["operation"]), ("WHO", lambda r: r["who"])]


def policy(
    resource: Annotated[
        str | None, typer.Argument(metavar="RESOURCE", help="Only of this resource, as network or security_group.")
    ] = None,
    json: Json = False,
) -> None:
    """Print who may do what: a row for each operation, and for each attribute that has a rule of its own.

    No server is asked. An attribute without a row is for whoever may do the operation.
    """
    from crossway.control.collections import COLLECTIONS
    from crossway.control.policy import table

    wanted = None if resource is None else resource.replace("-", "_")
    kept = [c for c in COLLECTIONS if wanted in (None, c.kind.name, c.kind.plural)]
    if not kept:
        raise NotFound("resource", f"{resource}; there are {show.listed(c.kind.name for c in COLLECTIONS)}")
    rows = [{"operation": operation, "who": str(who)} for operation, who in table(kept)]
    show.table(rows, COLUMNS, json, "no operations")
