"""Every kind of resource that there is: each has a table in the cloud."""

from __future__ import annotations

from typing import Any

from crossway.model.group import GROUP
from crossway.model.network import NETWORK
from crossway.model.port import PORT
from crossway.model.rbac import RBAC_POLICY
from crossway.model.resource import Kind
from crossway.model.router import ROUTER
from crossway.model.rule import RULE
from crossway.model.subnet import SUBNET

KINDS: tuple[Kind[Any], ...] = (
    NETWORK,
    SUBNET,
    PORT,
    ROUTER,
    GROUP,
    RULE,
    RBAC_POLICY,
)
BY_TABLE = {kind.table: kind for kind in KINDS}
# Names of things as RBAC policies know them.
BY_RBAC = {kind.rbac: kind for kind in KINDS if kind.rbac}
