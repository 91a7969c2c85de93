"""A user of `--auth basic`, and the line of the password file that is one.

    NAME:BCRYPT:PROJECT:ROLE[,ROLE…]
    NAME:BCRYPT:[PROJECT[,PROJECT…]]:[ROLE[,ROLE…]]:HOST    a host

Knows nothing of files, and of passwords only their hashes.
"""

from __future__ import annotations

import re

import msgspec

from crossway.errors import Invalid

ROLES = ("admin", "manager", "member", "reader", "service")
# What else a host may be, of one project: whoever is more than a host is no host.
ROLES_OF_HOSTS = ("manager", "member", "reader")
EVERY = "*"
# bcrypt looks at no more.
PASSWORD_BYTES = 72
# No colon parts the user from the password in HTTP's basic authentication, so a name cannot have one.
HOST_MAX = 255
_NAME = re.compile(r"[^\s:#][^\s:]{0,254}")
_HASH = re.compile(r"\$2[aby]\$\d\d\$[./A-Za-z0-9]{53}")


class User(msgspec.Struct, frozen=True):
    """Someone who may ask: for one project, with these roles; or the agent of *host*, for any number of projects."""

    name: str
    hash: str
    project: str
    roles: tuple[str, ...]
    host: str = ""

    @property
    def projects(self) -> tuple[str, ...]:
        """Return the projects for whose workloads a host makes ports; "*" is all."""
        return tuple(project for project in self.project.split(",") if project)

    @property
    def line(self) -> str:
        """Return the line of the password file that is this user."""
        line = f"{self.name}:{self.hash}:{self.project}:{','.join(self.roles)}"
        return f"{line}:{self.host}" if self.host else line


def user(name: str, hash: str, project: str, roles: tuple[str, ...], host: str = "") -> User:
    """Return a user, or raise Invalid for the first thing that cannot be."""
    projects = [("project", one) for one in project.split(",") if one] if host else [("project", project)]
    for what, value in (("user", name), *projects):
        if not _NAME.fullmatch(value):
            raise Invalid(f"{what} {value!r} should be 1 to 255 characters without spaces and colons")
    if not _HASH.fullmatch(hash):
        raise Invalid(f"the password of user {name} should be a hash of bcrypt ($2b$…)")
    if host:
        _check_host(name, host, [one for _, one in projects], roles)
    unknown = [role for role in roles if role not in ROLES]
    if unknown or not (roles or host):
        raise Invalid(f"role {', '.join(unknown) or '(none)'} of user {name} should be one of {', '.join(ROLES)}")
    return User(name, hash, project, tuple(dict.fromkeys(roles)), host)


def _check_host(name: str, host: str, projects: list[str], roles: tuple[str, ...]) -> None:
    if len(host) > HOST_MAX or not host.isprintable() or "/" in host or host != host.strip():
        raise Invalid(f"host {host!r} of user {name} should be 1 to {HOST_MAX} printable characters without a slash")
    if more := [role for role in roles if role in ROLES and role not in ROLES_OF_HOSTS]:
        raise Invalid(f"user {name} is host {host}: it cannot have the role {', '.join(more)} as well")
    if roles and (len(projects) != 1 or EVERY in projects):
        raise Invalid(f"user {name} is host {host}: with the role {', '.join(roles)} it should have one project")


def parse(line: str) -> User:
    """Read one line of the password file; what is wrong is told without the line, which may hold a secret."""
    fields = line.split(":", 4)
    if len(fields) < 4 or not all(fields[4:]):
        raise Invalid("should be NAME:BCRYPT:PROJECT:ROLE[,ROLE…], or for a host NAME:BCRYPT:PROJECT[,…]:[ROLE]:HOST")
    name, hash, project, roles, *host = fields
    return user(name, hash, project, tuple(role.strip() for role in roles.split(",") if role.strip()), *host)
