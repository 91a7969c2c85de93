"""A user of `--auth basic`, and the line of the password file that is one.

    NAME:BCRYPT:PROJECT:ROLE[,ROLE…]

Knows nothing of files, and of passwords only their hashes.
"""

from __future__ import annotations

import re

import msgspec

from crossway.errors import Invalid

ROLES = ("admin", "manager", "member", "reader", "service")
# bcrypt looks at no more.
PASSWORD_BYTES = 72
# No colon parts the user from the password in HTTP's basic authentication, so a name cannot have one.
_NAME = re.compile(r"[^\s:#][^\s:]{0,254}")
_HASH = re.compile(r"\$2[aby]\$\d\d\$[./A-Za-z0-9]{53}")


class User(msgspec.Struct, frozen=True):
    """Someone who may ask: for one project, with these roles."""

    name: str
    hash: str
    project: str
    roles: tuple[str, ...]

    @property
    def line(self) -> str:
        """Return the line of the password file that is this user."""
        return f"{self.name}:{self.hash}:{self.project}:{','.join(self.roles)}"


def user(name: str, hash: str, project: str, roles: tuple[str, ...]) -> User:
    """Return a user, or raise Invalid for the first thing that cannot be."""
    for what, value in (("user", name), ("project", project)):
        if not _NAME.fullmatch(value):
            raise Invalid(f"{what} {value!r} should be 1 to 255 characters without spaces and colons")
    if not _HASH.fullmatch(hash):
        raise Invalid(f"the password of user {name} should be a hash of bcrypt ($2b$…)")
    unknown = [role for role in roles if role not in ROLES]
    if unknown or not roles:
        raise Invalid(f"role {', '.join(unknown) or '(none)'} of user {name} should be one of {', '.join(ROLES)}")
    return User(name, hash, project, tuple(dict.fromkeys(roles)))


def parse(line: str) -> User:
    """Read one line of the password file; what is wrong is told without the line, which may hold a secret."""
    fields = line.split(":")
    if len(fields) != 4:
        raise Invalid("should be NAME:BCRYPT:PROJECT:ROLE[,ROLE…]")
    name, hash, project, roles = fields
    return user(name, hash, project, tuple(role.strip() for role in roles.split(",") if role.strip()))
