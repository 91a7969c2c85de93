"""What hosts and servers say to each other, as docs/protocols.md has it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from crossway.api import body
from crossway.api.answer import answer, empty
from crossway.api.networking import caller_of
from crossway.api.resources import decoded
from crossway.control import binding, learned
from crossway.control import host as verbs
from crossway.control.caller import ADMIN, SERVICE, Caller
from crossway.control.cloud import Cloud
from crossway.control.decision import decide
from crossway.control.status import Status, hosts
from crossway.control.view import Views
from crossway.errors import Forbidden, Invalid, NotFound
from crossway.model.check import brief
from crossway.model.host import host as checked
from crossway.model.host import sighting

Handler = Callable[[Request], Awaitable[Response]]
HANDOVER_MAX = 1 << 20
# Ports of one host.
PORTS_MAX = 10_000


def for_admins(handler: Handler) -> Handler:
    """Refuse all but operators."""

    async def handle(request: Request) -> Response:
        if not caller_of(request).admin:
            raise Forbidden(f"{request.url.path} is for admins only", type="PolicyNotAuthorized")
        return await handler(request)

    return handle


def for_hosts(handler: Handler) -> Handler:
    """Refuse all but hosts and admins."""

    async def handle(request: Request) -> Response:
        caller = caller_of(request)
        if not (caller.admin or caller.host):
            raise _refused(f"{request.url.path} is for hosts and admins only", caller)
        return await handler(request)

    return handle


def for_itself(handler: Handler) -> Handler:
    """Refuse all but the host that the path names, and admins."""

    async def handle(request: Request) -> Response:
        caller, host = caller_of(request), _named(request, "host")
        if not (caller.admin or caller.host == host):
            raise _refused(f"{request.url.path} is for host {host} itself and admins only", caller)
        return await handler(request)

    return handle


def for_movers(handler: Handler) -> Handler:
    """Refuse all but those who move ports: cloud services and admins."""

    async def handle(request: Request) -> Response:
        if not caller_of(request).roles & {ADMIN, SERVICE}:
            raise Forbidden(f"{request.url.path} is for services and admins only", type="PolicyNotAuthorized")
        return await handler(request)

    return handle


def _refused(message: str, caller: Caller) -> Forbidden:
    if SERVICE in caller.roles:
        message += (
            f"; user {caller.user} has the role service, which is no host's any more: "
            f"`crossway user set {caller.user} --host HOST` makes it one"
        )
    return Forbidden(message, type="PolicyNotAuthorized")


def _named(request: Request, name: str) -> str:
    """Return what a step of the path stands for."""
    found = decoded(request.path_params[name])
    if found is None:
        raise NotFound("resource", request.url.path)
    return found[0]


async def _told(request: Request) -> Any:
    caller, host = caller_of(request), request.path_params.get("host")
    # What a host says as an admin is a host's all the same.
    who = body.Payer(host, host=True) if caller.admin and host else body.payer(caller)
    return await body.json(request, who, most=body.HOST_MAX)


class Hosts:
    """Answers hosts, and who asks about them."""

    def __init__(self, cloud: Cloud, views: Views, status: Status) -> None:
        self.cloud, self.views, self.status = cloud, views, status

    async def index(self, request: Request) -> Response:
        """List hosts; a host hears of others no more than that they live."""
        caller, rows = caller_of(request), hosts(self.cloud, self.status)
        if not caller.admin:
            rows = [row if row["name"] == caller.host else {k: row[k] for k in ("name", "alive")} for row in rows]
        return answer({"hosts": rows})

    async def register(self, request: Request) -> Response:
        caller, host = caller_of(request), checked(_named(request, "host"), await _told(request))
        await decide(self.cloud, lambda decision: verbs.register(decision, host, caller))
        # What is bound to it from now on is carried, though it has not reported yet.
        self.status.heard(host.id)
        return answer(self._one(host.id))

    async def show(self, request: Request) -> Response:
        return answer(self._one(_named(request, "host")))

    async def forget(self, request: Request) -> Response:
        await decide(self.cloud, lambda decision: verbs.forget(decision, _named(request, "host")))
        return empty()

    async def view(self, request: Request) -> Response:
        host, after = _named(request, "host"), request.query_params.get("after", "0")
        if not after.isdecimal():
            raise Invalid(f"after '{after}' should be a revision, or 0")
        self._check(request, host)
        lines = self.views.lines(host, int(after), own=bool(caller_of(request).host))
        return StreamingResponse(lines, media_type="application/x-ndjson")

    async def report(self, request: Request) -> Response:
        """Take in what a host has applied and which of its ports are up."""
        told = await _told(request)
        if not isinstance(told, dict) or not isinstance(told.get("applied"), int):
            raise Invalid("The body should be {'applied': REVISION, 'ports': {ID: 'up' or 'down'}}")
        ports = told.get("ports", {})
        if isinstance(ports, dict) and len(ports) > PORTS_MAX:
            raise Invalid(f"The report names {len(ports)} ports; should be at most {PORTS_MAX}")
        if not isinstance(ports, dict) or any(state not in ("up", "down") for state in ports.values()):
            raise Invalid(f"ports {brief(ports)} should map ids to 'up' or 'down'")
        states, host = {id: state == "up" for id, state in ports.items()}, _named(request, "host")
        self._check(request, host)
        again = self.status.report(host, told["applied"], states, told.get("all") is True)
        return answer({"revision": self.cloud.revision, "all": again})

    async def hand_over(self, request: Request) -> Response:
        """Take in what a host says of the connections of a port that moves."""
        told, host = await _told(request), _named(request, "host")
        port, flows = (told.get("port"), told.get("flows")) if isinstance(told, dict) else (None, None)
        if not isinstance(port, str) or not isinstance(flows, str) or len(flows) > HANDOVER_MAX:
            raise Invalid(f"The body should be {{'port': ID, 'flows': BASE64 of at most {HANDOVER_MAX} characters}}")
        await decide(self.cloud, lambda decision: binding.hand_over(decision, host, port, flows))
        return empty()

    async def learn(self, request: Request) -> Response:
        """Take in which address a host has seen a port of it have, or have no more."""
        port, ip, mac = sighting(await _told(request))
        host = _named(request, "host")
        if mac is not None:
            await decide(self.cloud, lambda decision: learned.learn(decision, host, port, ip, mac))
        else:
            await decide(self.cloud, lambda decision: learned.forget(decision, host, port, ip))
        return empty()

    async def taken(self, request: Request) -> Response:
        """Hear whether a host carries a port that is about to move there."""
        told = await _told(request)
        if not isinstance(told, dict) or not isinstance(told.get("port"), str):
            raise Invalid("The body should be {'port': ID, 'carried': BOOL}")
        self.views.taken(_named(request, "host"), told["port"], carried=told.get("carried") is not False)
        return empty()

    async def handed_over(self, request: Request) -> Response:
        """Tell which hosts have spoken of a port's connections."""
        port = _named(request, "port")
        return answer({"port": port, "by": sorted(told.by for told in self.cloud.handovers.by("port", port))})

    async def status_of_all(self, request: Request) -> Response:
        """Tell how the cloud is, in numbers."""
        cloud = self.cloud
        counts: dict[str, Any] = {table.name: len(table) for table in cloud.tables.values()}
        return answer(
            {
                "revision": cloud.revision,
                "counts": counts,
                "hosts": {"alive": sum(map(self.status.alive, cloud.hosts.rows)), "all": len(cloud.hosts)},
                "views": {
                    "streams": sum(map(len, self.views.streams.values())),
                    "encoded": self.views.encoded,
                    "delivered": self.views.delivered,
                },
            }
        )

    def _check(self, request: Request, name: str) -> None:
        """Raise NotFound if a host has not registered, Forbidden if it has what it is not given, or no longer."""
        host = self.cloud.hosts.get(name)
        if host is None:
            raise NotFound("host", name)
        verbs.check(self.cloud, caller_of(request), host)

    def _one(self, name: str) -> dict[str, Any]:
        found = next((host for host in hosts(self.cloud, self.status) if host["name"] == name), None)
        if found is None:
            raise NotFound("host", name)
        return found
