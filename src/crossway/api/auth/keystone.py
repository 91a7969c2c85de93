"""Tokens of OpenStack: a Keystone says who has one, by its Identity API v3.

Each token is asked about once and remembered for a while, so a token that was
revoked is good for at most that long. While Keystone is silent those that are
remembered go on, and others are told to come again. Whoever sends tokens that
Keystone does not know is soon asked to wait; a token that was good is asked
about all the same.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import secrets
import ssl
import time
from collections import OrderedDict
from datetime import datetime
from functools import partial
from typing import Any

import httpx
import msgspec
from starlette.types import Scope

from crossway.api.auth.layer import address, header
from crossway.api.bucket import Buckets, TooMany
from crossway.control.caller import ADMIN, Caller, host_caller, implied
from crossway.errors import Invalid, Unauthorized, Unavailable

LOG = logging.getLogger("crossway.api.auth")
REMEMBERED_MAX = 10_000
# A token that Keystone does not know is not asked about again at once.
UNKNOWN_SECONDS = 5.0
# Tokens of one address that Keystone does not know: so many at once, then so many in a second.
WRONG_AT_ONCE, WRONG_RATE = 100, 5.0
ANSWER_SECONDS = 10.0
# Questions at once; those about tokens that were never good leave half of them to others.
AT_ONCE = 16
# The server's own token is renewed so long before it ends.
RENEW_SECONDS = 120.0
# Fernet tokens have some 200 bytes, those of JWS up to a few thousand.
TOKEN_BYTES = 16 << 10
UNKNOWN = "The token is not valid, or no longer"


class Service(msgspec.Struct, frozen=True):
    """As whom the server asks Keystone, and how long it believes the answers."""

    user: str
    password: str
    project: str = "service"
    user_domain: str = "Default"
    project_domain: str = "Default"
    ca: str | None = None
    host_role: str = ""
    seconds: float = 60.0


class Keystone:
    """Knows callers by tokens of a Keystone."""

    def __init__(self, url: str, service: Service) -> None:
        parsed = httpx.URL(url)
        if parsed.scheme not in ("http", "https") or not parsed.host or parsed.userinfo:
            raise Invalid(
                f"auth 'keystone:{parsed.copy_with(userinfo=b'')}' should be keystone:http://HOST[:PORT][/PATH]"
            )
        if not service.user or not service.password:
            raise Invalid(
                "auth keystone asks Keystone as a user of its own: name it with CROSSWAY_KEYSTONE_USER "
                "and CROSSWAY_KEYSTONE_PASSWORD or CROSSWAY_KEYSTONE_PASSWORD_FILE"
            )
        self.url = str(parsed).rstrip("/").removesuffix("/v3")
        self.challenge = f'Keystone uri="{self.url}"'
        self.service = service
        self._key = secrets.token_bytes(32)
        # Until when a token is good; and until when one is not asked about again that Keystone does not know.
        self._known: OrderedDict[bytes, tuple[float, Caller]] = OrderedDict()
        self._unknown: OrderedDict[bytes, float] = OrderedDict()
        self._wrong = Buckets(WRONG_RATE, WRONG_AT_ONCE)
        self._new = asyncio.Semaphore(AT_ONCE // 2)
        self._asked: dict[bytes, asyncio.Task[Caller | None]] = {}
        self._token, self._until = "", 0.0
        self._login = asyncio.Lock()
        self._client: httpx.AsyncClient | None = None

    async def start(self) -> None:
        self._client = httpx.AsyncClient(
            base_url=f"{self.url}/v3",
            verify=ssl.create_default_context(cafile=self.service.ca or None),
            timeout=ANSWER_SECONDS,
            limits=httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE),
            # Keystone is near: a proxy for the wider net must not come between.
            trust_env=False,
        )

    async def stop(self) -> None:
        for task in self._asked.values():
            task.cancel()
        if self._client is not None:
            await self._client.aclose()

    async def caller(self, scope: Scope) -> Caller | None:
        token = header(scope, b"x-auth-token")
        if token is None:
            return None
        if not token or len(token) > TOKEN_BYTES or not token.isprintable():
            raise Unauthorized(UNKNOWN)
        digest = hmac.digest(self._key, token.encode("latin-1"), hashlib.sha256)
        known, now = self._known.get(digest), time.monotonic()
        if known is not None and known[0] > now:
            return known[1]
        if self._unknown.get(digest, 0.0) > now:
            raise Unauthorized(UNKNOWN)
        # Those who come with the same token meanwhile wait for the same answer.
        task = self._asked.get(digest)
        if task is None:
            where = address(scope)
            # Charged before Keystone is asked, so that many at once count as many.
            if known is None and (wait := self._wrong.take(where)):
                raise TooMany(f"Too many tokens from {where} that Keystone does not know: try again later", wait)
            task = self._asked[digest] = asyncio.create_task(self._ask(digest, token, new=known is None))
            task.add_done_callback(partial(self._answered, digest, where if known is None else None))
        found = await asyncio.shield(task)
        if found is None:
            raise Unauthorized(UNKNOWN)
        return found

    def _answered(self, digest: bytes, charged: str | None, task: asyncio.Task[Caller | None]) -> None:
        """Give an address back what it was charged for a token, unless Keystone has said that it is not good."""
        self._asked.pop(digest, None)
        if charged is not None and (task.cancelled() or task.exception() or task.result() is not None):
            self._wrong.back(charged)

    async def _ask(self, digest: bytes, token: str, *, new: bool) -> Caller | None:
        """Ask Keystone about a token, and remember what it says."""
        if new:
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    await self._new.acquire()
            except TimeoutError:
                raise Unavailable("Keystone is asked about too many tokens now: try again later") from None
        try:
            status, told = await self._validate(token)
        finally:
            if new:
                self._new.release()
        found, seconds = None, UNKNOWN_SECONDS
        if status == 200:
            found, lives = caller_of(told, self.service.host_role, self.service.user_domain)
            seconds = min(lives, self.service.seconds)
            if seconds <= 0:
                found, seconds = None, UNKNOWN_SECONDS
        until = time.monotonic() + seconds
        if found is None:
            self._known.pop(digest, None)
            self._unknown[digest] = until
            if len(self._unknown) > REMEMBERED_MAX:
                self._unknown.popitem(last=False)
            return None
        self._known[digest] = (until, found)
        self._known.move_to_end(digest)
        if len(self._known) > REMEMBERED_MAX:
            self._known.popitem(last=False)
        return found

    async def _validate(self, token: str) -> tuple[int, Any]:
        for last in (False, True):
            mine = await self._own()
            headers = {"X-Auth-Token": mine, "X-Subject-Token": token}
            answer = await self._send("GET", "/auth/tokens?nocatalog", headers=headers)
            if answer.status_code == 200:
                return 200, _decoded(answer)
            if answer.status_code in (400, 404):
                return 404, None
            if answer.status_code == 401 and not last:
                # The server's own token is no longer good: Keystone's keys may have changed.
                if self._token == mine:
                    self._token = ""
                continue
            LOG.error("keystone answers %d when asked about a token", answer.status_code)
            break
        raise Unavailable("Keystone cannot tell now whether the token is valid: try again later")

    async def _own(self) -> str:
        """Return the server's own token, a new one if need be."""
        async with self._login:
            if self._token and time.monotonic() < self._until:
                return self._token
            service = self.service
            user = {"name": service.user, "password": service.password, "domain": {"name": service.user_domain}}
            scope = {"project": {"name": service.project, "domain": {"name": service.project_domain}}}
            identity = {"methods": ["password"], "password": {"user": user}}
            body = {"auth": {"identity": identity, "scope": scope}}
            answer = await self._send("POST", "/auth/tokens?nocatalog", json=body)
            token = answer.headers.get("x-subject-token")
            if answer.status_code != 201 or not token:
                LOG.error(
                    "keystone answers %d to the server's own user %s of project %s",
                    answer.status_code,
                    service.user,
                    service.project,
                )
                raise Unavailable("Keystone does not know this server's own user: tell its operator")
            lives = _left(_decoded(answer))
            self._token, self._until = token, time.monotonic() + max(lives / 2, lives - RENEW_SECONDS)
            return self._token

    async def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        assert self._client is not None
        for again in (True, False):
            try:
                return await self._client.request(method, path, **options)
            except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError) as error:
                # A connection that waited may have been closed just now: all that is asked may be asked twice.
                last: httpx.HTTPError = error
                if again:
                    continue
            except httpx.HTTPError as error:
                last = error
            break
        # What went wrong is logged without the request, which has tokens.
        LOG.error("keystone at %s does not answer: %s", self.url, type(last).__name__)
        raise Unavailable("Keystone does not answer, so nobody can be told from others: try again later")


def caller_of(told: Any, host_role: str = "", hosts_domain: str = "Default") -> tuple[Caller, float]:
    """Return who has a token, and the seconds that it is still good, from what Keystone tells of it.

    Roles on a project count there; admin on the system is admin of all projects. Roles on a
    domain or without any scope count nowhere. A user of the hosts' domain with the hosts' role
    is the host of its name and nobody else; users of other domains may be called the same.
    """
    token = told.get("token") if isinstance(told, dict) else None
    if not isinstance(token, dict):
        raise Unavailable("Keystone's answer is not that of the Identity API v3")
    roles = implied(role["name"] for role in token.get("roles", ()))
    project = token.get("project", {}).get("id", "")
    if not project:
        roles = roles if token.get("system", {}).get("all") and ADMIN in roles else frozenset()
    user = token.get("user", {})
    domain = user.get("domain", {})
    if project and host_role and host_role.lower() in roles:
        if ADMIN not in roles and hosts_domain in (domain.get("name"), domain.get("id")) and user.get("name"):
            return host_caller(user["name"], [project], (), user.get("id", "")), _left(told)
        roles -= {host_role.lower()}
    return Caller(project=project, user=user.get("id", ""), roles=roles), _left(told)


def _left(told: Any) -> float:
    try:
        ends = datetime.fromisoformat(told["token"]["expires_at"])
    except (KeyError, TypeError, ValueError):
        raise Unavailable("Keystone's answer is not that of the Identity API v3") from None
    return ends.timestamp() - time.time()


def _decoded(answer: httpx.Response) -> Any:
    try:
        return msgspec.json.decode(answer.content)
    except msgspec.DecodeError:
        raise Unavailable("Keystone's answer is not JSON") from None
