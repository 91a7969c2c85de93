"""The password file of `--auth basic`: read whole, and changed by putting a new file in its place."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import bcrypt

from crossway.errors import Conflict, Invalid, NotFound, Unavailable
from crossway.model.user import PASSWORD_BYTES, User, parse
from crossway.model.user import user as made_user

ROUNDS = 12
HEAD = "# Who may ask, written by `crossway user`: NAME:BCRYPT:PROJECT:ROLE[,ROLE…][:HOST[/PHYSNETS[/ADDRESSES]]]\n"


def hashed(password: str) -> str:
    """Return what is kept of a password."""
    raw = password.encode()
    if not raw or len(raw) > PASSWORD_BYTES or b"\0" in raw:
        raise Invalid(f"a password should have 1 to {PASSWORD_BYTES} bytes, and no zero among them")
    return bcrypt.hashpw(raw, bcrypt.gensalt(ROUNDS)).decode()


def matches(password: bytes, hash: str) -> bool:
    """Say whether a password is the one that was hashed; takes a quarter of a second, on purpose."""
    if not password or len(password) > PASSWORD_BYTES or b"\0" in password:
        # It costs as much as any other wrong one.
        bcrypt.checkpw(b"-", hash.encode())
        return False
    return bcrypt.checkpw(password, hash.encode())


def read(path: Path) -> dict[str, User]:
    """Return the users of a password file by their names."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise Unavailable(f"password file {path}: {error.strerror}; `crossway user add` makes it") from None
    except UnicodeDecodeError:
        raise Invalid(f"password file {path} is not UTF-8") from None
    users: dict[str, User] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            one = parse(line.strip())
        except Invalid as error:
            raise Invalid(f"password file {path}, line {number}: {error}") from None
        if one.name in users:
            raise Invalid(f"password file {path}, line {number}: user {one.name} is there twice")
        users[one.name] = one
    return users


def add(path: Path, user: User) -> None:
    """Write a new user into the file, which need not be there yet."""
    with _changing(path) as users:
        if user.name in users:
            raise Conflict(f"user {user.name} is there already: change it with `crossway user set {user.name}`")
        users[user.name] = user


def change(
    path: Path,
    name: str,
    hash: str | None,
    project: str | None,
    roles: tuple[str, ...],
    host: str | None = None,
    physnets: tuple[str, ...] | None = None,
    addresses: tuple[str, ...] | None = None,
) -> None:
    """Give a user what is not None or empty; who becomes a host has only the roles and projects that are said.

    No physnets, or no addresses, are said by an empty tuple.
    """
    with _changing(path) as users:
        if name not in users:
            raise NotFound("user", name)
        old = users[name]
        if host and not old.host:
            old = User(name, old.hash, "", (), host)
        users[name] = made_user(
            name,
            hash or old.hash,
            old.project if project is None else project,
            roles or old.roles,
            host or old.host,
            old.physnets if physnets is None else physnets,
            old.addresses if addresses is None else addresses,
        )


def delete(path: Path, name: str) -> None:
    """Take a user out of the file."""
    with _changing(path) as users:
        if users.pop(name, None) is None:
            raise NotFound("user", name)


@contextmanager
def _changing(path: Path) -> Iterator[dict[str, User]]:
    """Lend the users of a file; what became of them is in the file afterwards, or, after a fault, nothing is."""
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # One change at a time; the lock is the directory's, as the file itself is replaced.
        fcntl.flock(directory, fcntl.LOCK_EX)
        users = read(path) if path.exists() else {}
        yield users
        made = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        try:
            with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
                file.write(HEAD + "".join(f"{user.line}\n" for user in users.values()))
                file.flush()
                os.fsync(file.fileno())
            os.replace(made, path)
            os.fsync(directory)
        finally:
            with suppress(FileNotFoundError):
                made.unlink()
    finally:
        os.close(directory)
