"""Who may do a thing: the words of which every rule of the policy table is made.

A rule is a set of grants; one that holds is enough. An admin may do everything,
so no rule says it. Roles include the lesser ones: a manager is a member, and a
member a reader (`Caller` sees to that).
"""

from __future__ import annotations

from enum import StrEnum


class Grant(StrEnum):
    """One reason why a caller may. Whose project is meant is the caller's own."""

    SERVICE = "service"
    INTEGRATOR = "data plane integrator"
    HOST = "host that it is on"
    HOST_OF_PORT = "host that its port is on"
    HOST_OF_PROJECT = "host of its project"
    MANAGER = "manager of its project"
    MEMBER = "member of its project"
    READER = "reader of its project"
    PARENT_MANAGER = "manager of its parent's project"
    PARENT_MEMBER = "member of its parent's project"
    PARENT_READER = "reader of its parent's project"
    PARENT_SHARED = "member of a project that its parent is shared with"
    SHARED = "reader of a project that it is shared with"
    ANYONE = "reader of any project"


class Who(frozenset[Grant]):
    """A set of grants; printed as the policy table has it."""

    def __or__(self, other: object) -> Who:
        assert isinstance(other, Who)
        return Who({*self, *other})

    def __str__(self) -> str:
        return " or ".join(["admin", *(grant.value for grant in Grant if grant in self)])


ADMIN = Who()
SERVICE = Who({Grant.SERVICE})
INTEGRATOR = Who({Grant.INTEGRATOR})
# What a host's own credential may beside this, `control/confine.py` says.
HOST = Who({Grant.HOST})
HOST_OF_PORT = Who({Grant.HOST_OF_PORT})
HOST_OF_PROJECT = Who({Grant.HOST_OF_PROJECT})
HOSTS = HOST | HOST_OF_PORT | HOST_OF_PROJECT
MANAGER = Who({Grant.MANAGER})
MEMBER = Who({Grant.MEMBER})
READER = Who({Grant.READER})
# The parent of a port or a subnet is its network; of a rule, its security group.
PARENT_MANAGER = Who({Grant.PARENT_MANAGER})
PARENT_MEMBER = Who({Grant.PARENT_MEMBER})
PARENT_READER = Who({Grant.PARENT_READER})
PARENT_SHARED = Who({Grant.PARENT_SHARED})
SHARED = Who({Grant.SHARED})
ANYONE = Who({Grant.ANYONE})
