"""HTTP's basic authentication against a password file.

A right password is remembered for some minutes as a keyed digest, as bcrypt takes
a quarter of a second; a wrong one costs whoever guesses, not those who know.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import logging
import os
import secrets
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from msgspec.structs import replace
from starlette.types import Scope

from crossway.api.auth.layer import address, header
from crossway.api.bucket import Buckets, TooMany
from crossway.control.caller import Caller, host_caller, implied
from crossway.errors import Fault, Unauthorized
from crossway.model.user import User
from crossway.store import users

LOG = logging.getLogger("crossway.api.auth")
REMEMBERED_SECONDS = 300.0
REMEMBERED_MAX = 10_000
LOOK_SECONDS = 1.0
# Wrong passwords of one address for one user: so many at once, then one in so many seconds; and for all users.
WRONG_AT_ONCE, WRONG_EVERY = 10, 6.0
ADDRESS_AT_ONCE, ADDRESS_EVERY = 30, 2.0
WRONG = "The user or the password is not right"


class Basic:
    """Knows users by a password file, which may change at any time."""

    challenge = 'Basic realm="crossway", charset="UTF-8"'

    def __init__(self, path: Path) -> None:
        self.path = path
        self._key = secrets.token_bytes(32)
        self._known: OrderedDict[bytes, tuple[float, Caller]] = OrderedDict()
        self._asked: dict[bytes, asyncio.Task[Caller | None]] = {}
        # Others behind the same address are other users, and have their own.
        self._wrong = Buckets(1 / WRONG_EVERY, WRONG_AT_ONCE)
        self._wrong_here = Buckets(1 / ADDRESS_EVERY, ADDRESS_AT_ONCE)
        self._threads = ThreadPoolExecutor(2, "bcrypt")
        self._looked = 0.0
        self._seen: tuple[int, ...] = ()
        self._take(users.read(path))
        # Whoever is not there takes as long as one who is.
        self._nobody = users.hashed(secrets.token_urlsafe())

    async def start(self) -> None:
        self._seen = self._state()
        if os.stat(self.path).st_mode & 0o077:
            LOG.warning("password file %s may be read by others: chmod 600 it", self.path)

    async def stop(self) -> None:
        for task in self._asked.values():
            task.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def caller(self, scope: Scope) -> Caller | None:
        given = header(scope, b"authorization")
        if given is None or given[:6].lower() != "basic ":
            return None
        self._reload()
        digest = hmac.digest(self._key, given.encode("latin-1"), hashlib.sha256)
        known = self._known.get(digest)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        name, password = _read(given[6:])
        where = address(scope)
        # Those who come with the same password meanwhile wait for the same answer.
        task = self._asked.get(digest)
        if task is None:
            # Charged before the work begins, so that many guesses at once count as many; one that was right is none.
            if known is None:
                self._charge(name, where)
            task = self._asked[digest] = asyncio.create_task(self._verify(digest, name, password))
            task.add_done_callback(partial(self._verified, digest, (name, where) if known is None else None))
        caller = await asyncio.shield(task)
        if caller is None:
            LOG.warning("wrong password for a user, from %s", where)
            raise Unauthorized(WRONG)
        return caller

    def _charge(self, name: str, where: str) -> None:
        """Charge an address for a guess; raise TooMany if it has made too many."""
        if wait := self._wrong.take(self._guessed(name, where)):
            raise TooMany(f"Too many wrong passwords from {where} for this user: try again later", wait)
        if wait := self._wrong_here.take(where):
            self._wrong.back(self._guessed(name, where))
            raise TooMany(f"Too many wrong passwords from {where}: try again later", wait)

    def _guessed(self, name: str, where: str) -> tuple[str, bytes]:
        return where, hmac.digest(self._key, name.encode(), hashlib.sha256)

    def _verified(self, digest: bytes, charged: tuple[str, str] | None, task: asyncio.Task[Caller | None]) -> None:
        """Give back what was charged for a password that is not wrong."""
        self._asked.pop(digest, None)
        if charged is not None and (task.cancelled() or task.exception() or task.result() is not None):
            name, where = charged
            self._wrong.back(self._guessed(name, where))
            self._wrong_here.back(where)

    def kept_for(self, address: str) -> frozenset[str]:
        """Return the hosts for which entries keep an underlay address."""
        self._reload()
        return frozenset(self._kept.get(address, ()))

    async def _verify(self, digest: bytes, name: str, password: bytes) -> Caller | None:
        user, loop = self._users.get(name), asyncio.get_running_loop()
        hash = user.hash if user else self._nobody
        right = await loop.run_in_executor(self._threads, users.matches, password, hash)
        # Another file may have come meanwhile.
        if user is None or not right or self._users.get(name) != user:
            self._known.pop(digest, None)
            return None
        caller = Caller(project=user.project, user=user.name, roles=implied(user.roles))
        if user.host:
            caller = replace(
                host_caller(user.host, user.projects, user.roles, user.name),
                physnets=frozenset(user.physnets),
                addresses=frozenset(user.addresses),
            )
        self._known[digest] = (time.monotonic() + REMEMBERED_SECONDS, caller)
        self._known.move_to_end(digest)
        if len(self._known) > REMEMBERED_MAX:
            self._known.popitem(last=False)
        return caller

    def _reload(self) -> None:
        """Take the file in again when it has changed; one that cannot be read leaves things as they were."""
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        try:
            state = self._state()
            if state == self._seen:
                return
            self._seen = state
            self._take(users.read(self.path))
        except OSError as error:
            if self._seen:
                LOG.error("password file %s: %s; the users known so far stay", self.path, error.strerror)
            self._seen = ()
        except Fault as error:
            LOG.error("%s; the users known so far stay", error)
        else:
            # Each is verified anew, but is no guess: it was right.
            self._known = OrderedDict((digest, (0.0, caller)) for digest, (_, caller) in self._known.items())
            LOG.info("password file %s: %d users", self.path, len(self._users))

    def _take(self, users: dict[str, User]) -> None:
        self._users = users
        # Underlay addresses that entries name, and for which hosts.
        self._kept: dict[str, set[str]] = {}
        for user in users.values():
            for one in user.addresses:
                self._kept.setdefault(one, set()).add(user.host)

    def _state(self) -> tuple[int, ...]:
        found = os.stat(self.path)
        return found.st_ino, found.st_mtime_ns, found.st_size


def _read(encoded: str) -> tuple[str, bytes]:
    """Return the user and the password of the header's value."""
    try:
        name, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
        if not colon:
            raise Unauthorized(WRONG)
        return name.decode(), password
    except (binascii.Error, ValueError):
        raise Unauthorized(WRONG) from None
