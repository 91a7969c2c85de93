"""A user of `--auth basic`, and the line of the password file that is one.

    NAME:BCRYPT:PROJECT:ROLE[,ROLE…]
    NAME:BCRYPT:[PROJECT[,PROJECT…]]:[ROLE[,ROLE…]]:HOST[/[PHYSNET[,…]][/ADDRESS[,…]]]    a host

PHYSNETs are the physical networks that the host may have, * any; ADDRESSes those of which one is its underlay address.

Knows nothing of files, and of passwords only their hashes.
"""

from __future__ import annotations

import re

import msgspec

from crossway.errors import Invalid
from crossway.model.host import WORD_MAX, underlay

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
    """Someone who may ask: for one project, with these roles; or the agent of *host*, for any number of projects.

    A host may register the *physnets*, "*" being any, and one of the *addresses*, or any if there are none.
    """

    name: str
    hash: str
    project: str
    roles: tuple[str, ...]
    host: str = ""
    physnets: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()

    @property
    def projects(self) -> tuple[str, ...]:
        """Return the projects for whose workloads a host makes ports; "*" is all."""
        return tuple(project for project in self.project.split(",") if project)

    @property
    def line(self) -> str:
        """Return the line of the password file that is this user."""
        line = f"{self.name}:{self.hash}:{self.project}:{','.join(self.roles)}"
        if not self.host:
            return line
        # No host's name has a slash.
        return f"{line}:{self.host}/{','.join(self.physnets)}/{','.join(self.addresses)}".rstrip("/")


def user(
    name: str,
    hash: str,
    project: str,
    roles: tuple[str, ...],
    host: str = "",
    physnets: tuple[str, ...] = (),
    addresses: tuple[str, ...] = (),
) -> User:
    """Return a user, or raise Invalid for the first thing that cannot be."""
    projects = [("project", one) for one in project.split(",") if one] if host else [("project", project)]
    for what, value in (("user", name), *projects):
        if not _NAME.fullmatch(value):
            raise Invalid(f"{what} {value!r} should be 1 to 255 characters without spaces and colons")
    if not _HASH.fullmatch(hash):
        raise Invalid(f"the password of user {name} should be a hash of bcrypt ($2b$…)")
    if not host and (physnets or addresses):
        raise Invalid(f"user {name} is no host: only a host has physnets and underlay addresses")
    if host:
        _check_host(name, host, [one for _, one in projects], roles)
    unknown = [role for role in roles if role not in ROLES]
    if unknown or not (roles or host):
        raise Invalid(f"role {', '.join(unknown) or '(none)'} of user {name} should be one of {', '.join(ROLES)}")
    for physnet in physnets:
        fits = 0 < len(physnet) <= WORD_MAX and physnet.isprintable() and physnet == physnet.strip()
        if not fits or {"/", ","} & set(physnet):
            raise Invalid(
                f"physnet {physnet!r} of user {name} should be 1 to {WORD_MAX} printable characters "
                "without a slash and a comma"
            )
    try:
        known = tuple(dict.fromkeys(underlay(address) for address in addresses))
    except ValueError as error:
        raise Invalid(f"underlay address of user {name}: {error}") from None
    return User(name, hash, project, tuple(dict.fromkeys(roles)), host, tuple(dict.fromkeys(physnets)), known)


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
        raise Invalid(
            "should be NAME:BCRYPT:PROJECT:ROLE[,ROLE…], or for a host "
            "NAME:BCRYPT:PROJECT[,…]:[ROLE]:HOST[/PHYSNETS[/ADDRESSES]]"
        )
    name, hash, project, roles, *rest = fields
    host, *lists = rest[0].split("/", 2) if rest else ("",)
    physnets, addresses, *_ = (*map(_items, lists), (), ())
    return user(name, hash, project, _items(roles), host, physnets, addresses)


def _items(text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split(",") if item.strip())
