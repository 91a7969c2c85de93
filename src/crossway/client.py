"""Speak Crossway's HTTP: to servers, and to the agent of a host.

`Client` asks servers for what the Networking API knows, `AgentClient` is what
is said to an agent. A refusal comes back as the fault of errors.py that the
server named. Where there are several servers, the next one is asked when one
does not answer.

Knows nothing of what the objects mean: they stay the JSON that was sent.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import httpx
import msgspec

from crossway import settings
from crossway.errors import Conflict, Fault, Forbidden, InUse, Invalid, NotFound, OverQuota, Unauthorized, Unavailable

Object = dict[str, Any]
Objects = list[Object]

# How long to wait: for a connection, for an answer. A view tells a bookmark
# every 5 s, so one that is silent for 15 s is dead.
CONNECT_SECONDS = 3.0
ANSWER_SECONDS = 60.0
VIEW_SECONDS = 15.0

_FAULTS: dict[int, type[Fault]] = {
    400: Invalid,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    503: Unavailable,
}

# Singular names whose collection is not the name and an "s".
_COLLECTIONS = {
    "security_group": "security-groups",
    "security_group_rule": "security-group-rules",
    "address_group": "address-groups",
    "address_scope": "address-scopes",
    "network_ip_availability": "network-ip-availabilities",
    "rbac_policy": "rbac-policies",
    "quota": "quotas",
}
_KINDS = {path.replace("-", "_"): kind for kind, path in _COLLECTIONS.items()}


def kind_of(name: str) -> str:
    """Return the singular name of a kind, given it or its plural: `ports` is `port`."""
    name = name.replace("-", "_")
    if name in _COLLECTIONS:
        return name
    return _KINDS.get(name, name.removesuffix("s"))


def path_of(name: str, id: str | None = None) -> str:
    """Return the path of a collection, or of one thing in it."""
    kind = kind_of(name)
    path = f"/v2.0/{_COLLECTIONS.get(kind, kind + 's')}"
    return f"{path}/{id}" if id is not None else path


def fault_of(status: int, body: bytes) -> Fault:
    """Return the fault that an answer tells, by its status and by the type that it names."""
    kind, message = "", ""
    try:
        told = msgspec.json.decode(body)
    except msgspec.DecodeError:
        message = body[:200].decode(errors="replace").strip()
    else:
        if isinstance(told, dict):
            told = told.get("NeutronError", told.get("error", told))
        if isinstance(told, dict):
            kind, message = str(told.get("type", "")), str(told.get("message", ""))
        else:
            message = str(told)
    fault = _FAULTS.get(status, Fault)
    if fault is Conflict:
        fault = InUse if "InUse" in kind else OverQuota if kind == "OverQuota" else Conflict
    # Not by the constructor: the message is already made, elsewhere.
    made = fault.__new__(fault, message or f"the server answered {status}")
    made.status = status
    made.type = kind or fault.__name__
    return made


def _told(response: httpx.Response) -> Any:
    """Return what an answer says, or raise the fault that it tells."""
    if response.status_code >= 400:
        raise fault_of(response.status_code, response.content)
    return msgspec.json.decode(response.content) if response.content else None


def _address(server: str) -> tuple[str, str | None]:
    """Return the base URL and, for unix:PATH, the socket."""
    if server.startswith("unix:"):
        return "http://localhost", server.removeprefix("unix:")
    if not server.startswith(("http://", "https://")):
        raise Invalid(f"server {server!r} is neither http://HOST:PORT, https://HOST:PORT nor unix:PATH")
    return server.rstrip("/").removesuffix("/v2.0"), None


def _listed(servers: str | Iterable[str]) -> list[str]:
    """Return server addresses one by one; a string has commas between them."""
    listed = [s.strip() for s in servers.split(",")] if isinstance(servers, str) else list(servers)
    listed = [s for s in listed if s]
    if not listed:
        raise Invalid("no server is named")
    return listed


def _silent(servers: list[str], last: Exception | None) -> Unavailable:
    reason = str(last) or type(last).__name__
    return Unavailable(f"no answer from {', '.join(servers)} ({reason}): is it running, and is that its address?")


class _UnixTransport(httpx.HTTPTransport):
    """Knock before entering: httpcore forgets to close a unix socket that does not connect."""

    def __init__(self, path: str) -> None:
        super().__init__(uds=path)
        self._path = path

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        _knock(self._path, request)
        return super().handle_request(request)


def _knock(path: str, request: httpx.Request) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(CONNECT_SECONDS)
        try:
            probe.connect(path)
        except OSError as fault:
            raise httpx.ConnectError(str(fault), request=request) from fault


class _Servers:
    """Send each request to the server that answered last, to the next one if it does not.

    A request that may have reached a server is only sent to another one if it
    reads: a write is never made twice.
    """

    def __init__(self, servers: str | Iterable[str], headers: Mapping[str, str] | None = None) -> None:
        self.servers = _listed(servers)
        self.first = 0
        self._clients: list[httpx.Client] = []
        ca = settings.CA.value()
        verify = ssl.create_default_context(cafile=ca) if ca else True
        for server in self.servers:
            base, uds = _address(server)
            self._clients.append(
                httpx.Client(
                    base_url=base,
                    headers=dict(headers or {}),
                    timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
                    # The lab's and the operator's servers are near: a proxy for
                    # the wider net must not come between.
                    transport=_UnixTransport(uds) if uds else httpx.HTTPTransport(verify=verify),
                )
            )

    def ask(self, method: str, path: str, body: Any = None, params: Any = None) -> Any:
        content = msgspec.json.encode(body) if body is not None else None
        headers = {"Content-Type": "application/json"} if body is not None else {}
        last: Exception | None = None
        for turn in range(len(self._clients)):
            index = (self.first + turn) % len(self._clients)
            try:
                response = self._clients[index].request(method, path, content=content, headers=headers, params=params)
            except (httpx.ConnectError, httpx.ConnectTimeout) as fault:
                last = fault
            except httpx.TransportError as fault:
                last = fault
                if method != "GET":
                    break
            else:
                self.first = index
                return _told(response)
        raise _silent(self.servers, last)

    def close(self) -> None:
        for client in self._clients:
            client.close()


class Client:
    """Ask servers for what the Networking API knows.

    *project* and *roles* are who asks, for servers that take it from headers;
    *who* is headers that prove it, as `settings.credentials` has them.
    Kinds are named as in the API: `port` or `ports`, `security_group` …
    """

    def __init__(
        self,
        servers: str | Iterable[str],
        *,
        project: str | None = None,
        roles: str | None = None,
        who: Mapping[str, str] | None = None,
    ) -> None:
        headers = {"X-Project-Id": project, "X-Roles": roles}
        named = {name: value for name, value in headers.items() if value is not None}
        self._servers = _Servers(servers, {**named, **(who or {})})

    @property
    def servers(self) -> list[str]:
        return self._servers.servers

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._servers.close()

    def ask(self, method: str, path: str, body: Any = None, params: Any = None) -> Any:
        """Send one request; return the decoded answer."""
        return self._servers.ask(method, path, body, params)

    def list(self, kind: str, **filters: Any) -> Objects:
        """Return all objects of a kind that the filters admit; a list as value means any of them."""
        kind = kind_of(kind)
        body = self.ask("GET", path_of(kind), params=_query(filters))
        found: Objects = next(iter(body.values()))
        return found

    def show(self, kind: str, id: str) -> Object:
        return self._one(self.ask("GET", path_of(kind, id)))

    def create(self, kind: str, **attrs: Any) -> Object:
        return self._one(self.ask("POST", path_of(kind), {kind_of(kind): attrs}))

    def create_many(self, kind: str, all_attrs: Iterable[Mapping[str, Any]]) -> Objects:
        """Create several things of a kind in one request: all or none."""
        kind = kind_of(kind)
        plural = path_of(kind).rsplit("/", 1)[1].replace("-", "_")
        body = self.ask("POST", path_of(kind), {plural: [dict(attrs) for attrs in all_attrs]})
        made: Objects = next(iter(body.values()))
        return made

    def update(self, kind: str, id: str, **attrs: Any) -> Object:
        return self._one(self.ask("PUT", path_of(kind, id), {kind_of(kind): attrs}))

    def delete(self, kind: str, id: str) -> None:
        self.ask("DELETE", path_of(kind, id))

    def find(self, kind: str, name_or_id: str, **filters: Any) -> Object:
        """Return the one object with this id or, failing that, this name."""
        kind = kind_of(kind)
        found = self.list(kind, id=name_or_id, **filters) or self.list(kind, name=name_or_id, **filters)
        if not found:
            raise NotFound(kind, name_or_id)
        if len(found) > 1:
            ids = ", ".join(sorted(o["id"] for o in found))
            raise Conflict(f"{len(found)} of kind {kind} are named {name_or_id}: name one by its id ({ids})")
        return found[0]

    def add_interface(self, router: str, *, subnet: str | None = None, port: str | None = None) -> Object:
        """Give a router a foot in a subnet, or make a port that foot."""
        body = {"subnet_id": subnet} if port is None else {"port_id": port}
        return self._one(self.ask("PUT", f"{path_of('router', router)}/add_router_interface", body))

    def remove_interface(self, router: str, *, subnet: str | None = None, port: str | None = None) -> Object:
        body = {"subnet_id": subnet} if port is None else {"port_id": port}
        return self._one(self.ask("PUT", f"{path_of('router', router)}/remove_router_interface", body))

    def hosts(self) -> Objects:
        """Return the hosts that have joined: name, underlay, physnets, alive, applied, seen_at."""
        hosts: Objects = self.ask("GET", "/v1/hosts")["hosts"]
        return hosts

    def handed_over(self, port: str) -> tuple[str, ...]:
        """Return the hosts that have told of a port's connections."""
        return tuple(self.ask("GET", f"/v1/handovers/{port}")["by"])

    def forget_host(self, host: str) -> None:
        self.ask("DELETE", f"/v1/hosts/{host}")

    def wait(self, kind: str, id: str, *, status: str = "ACTIVE", seconds: float = 30.0) -> Object:
        """Return the object once it has this status; raise `Unavailable` when it has not in time."""
        end = time.monotonic() + seconds
        pause = 0.005
        while True:
            seen = self.show(kind, id)
            if seen.get("status") == status:
                return seen
            if time.monotonic() > end:
                raise Unavailable(f"{kind} {id} is still {seen.get('status')} after {seconds:g} s, not {status}")
            time.sleep(pause)
            pause = min(pause * 1.5, 0.2)

    @staticmethod
    def _one(body: Any) -> Object:
        """Return what is inside {"port": {…}}; an answer without an envelope as it is."""
        if isinstance(body, dict) and len(body) == 1:
            (inner,) = body.values()
            if isinstance(inner, dict):
                return inner
        return body if isinstance(body, dict) else {}


class AgentClient:
    """Speak to one host's agent, on its unix socket."""

    def __init__(self, path: str) -> None:
        self._servers = _Servers(f"unix:{path.removeprefix('unix:')}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._servers.close()

    def plug(
        self,
        port: str,
        *,
        netns: str | None = None,
        ifname: str = "eth0",
        tap: str | None = None,
        queues: int = 1,
        vlan: tuple[str, int] | None = None,
    ) -> Object:
        """Give a port its body on this host: a veth into *netns*, a tap, or a VLAN on a device."""
        body: Object
        if tap is not None:
            body = {"port": port, "body": "tap", "device": tap, **({"queues": queues} if queues != 1 else {})}
        elif vlan is not None:
            body = {"port": port, "body": "vlan", "device": vlan[0], "vlan": vlan[1]}
        elif netns is not None:
            body = {"port": port, "body": "veth", "netns": netns, "ifname": ifname}
        else:
            raise Invalid("a port needs a network namespace, a tap or a VLAN as its body")
        answer: Object = self._servers.ask("POST", "/v1/plug", body)
        return answer

    def attach(self, port: str, ifname: str, *, default: bool = False, routes: Sequence[str] = ()) -> Object:
        """Give this host itself an interface that is a port."""
        body = {"port": port, "body": "host", "ifname": ifname, "default": default, "routes": list(routes)}
        answer: Object = self._servers.ask("POST", "/v1/plug", body)
        return answer

    def unplug(self, port: str) -> None:
        self._servers.ask("POST", "/v1/unplug", {"port": port})

    def publish(self, port: str, *published: Mapping[str, Any]) -> Objects:
        """Publish these at addresses of the host instead of what the port has published there."""
        answer = self._servers.ask("POST", "/v1/publish", {"port": port, "published": published})
        return list(answer["published"])

    def status(self) -> Object:
        answer: Object = self._servers.ask("GET", "/v1/status")
        return answer

    def drops(self, port: str | None = None) -> Objects:
        answer: list[Object] = self._servers.ask("GET", "/v1/drops", params={"port": port} if port else None)
        return answer


def _query(filters: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Write filters as a query: `binding__host_id` is `binding:host_id`, a list is any of its values."""
    query: list[tuple[str, str]] = []
    for name, value in filters.items():
        for one in value if isinstance(value, list | tuple | set) else [value]:
            text = str(one).lower() if isinstance(one, bool) else str(one)
            query.append((name.replace("__", ":"), text))
    return query
