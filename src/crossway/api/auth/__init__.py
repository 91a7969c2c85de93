"""Who asks: each scheme is a way to tell, and a layer before the application puts the Caller into the scope.

none      the headers say it (`caller_of`); everyone who reaches the server is believed, but web pages of others
basic     a user and a password, of a file
keystone  a token, which a Keystone knows
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from crossway import settings
from crossway.api.auth.basic import Basic
from crossway.api.auth.keystone import Keystone, Service
from crossway.api.auth.layer import Authenticated, Believing, Scheme
from crossway.errors import Invalid

__all__ = ["Authenticated", "Believing", "Scheme", "schemes"]


def schemes(auth: Sequence[str]) -> list[Scheme]:
    """Return the schemes that are named, as in basic:FILE and keystone:URL; of none there are none."""
    if "none" in auth and len(auth) > 1:
        raise Invalid("auth none believes everyone, so no other stands beside it")
    made: list[Scheme] = []
    for one in auth:
        name, _, rest = one.partition(":")
        if name == "basic":
            made.append(Basic(Path(rest or settings.USERS.value())))
        elif name == "keystone" and rest:
            made.append(Keystone(rest, _service()))
        elif one != "none":
            raise Invalid(f"auth '{name}' should be none, basic[:FILE] or keystone:URL")
    if len({type(scheme) for scheme in made}) < len(made):
        raise Invalid("auth names a scheme twice")
    return made


def _service() -> Service:
    seconds = settings.KEYSTONE_SECONDS.value()
    try:
        remembered = float(seconds)
    except ValueError:
        raise Invalid(f"{settings.KEYSTONE_SECONDS.variable} '{seconds}' should be a number of seconds") from None
    return Service(
        user=settings.KEYSTONE_USER.value(),
        password=settings.secret(settings.KEYSTONE_PASSWORD, settings.KEYSTONE_PASSWORD_FILE),
        project=settings.KEYSTONE_PROJECT.value(),
        user_domain=settings.KEYSTONE_USER_DOMAIN.value(),
        project_domain=settings.KEYSTONE_PROJECT_DOMAIN.value(),
        ca=settings.CA.value() or None,
        host_role=settings.KEYSTONE_HOST_ROLE.value(),
        seconds=remembered,
    )
