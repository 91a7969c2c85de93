"""Make a port for a container and give it its body; take both away again.

The ways in differ in their protocols; what they ask for is the same. A port
made here carries in the server who made it (`device_owner`) and for what
(`device_id`), so that it is found again whatever has died meanwhile.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import Any, Protocol
from urllib.parse import urlencode

import msgspec

from crossway.client import Object, Objects, path_of
from crossway.errors import Conflict, Invalid, NotFound

ANY = ("0.0.0.0/0", "::/0")
MTU_MIN, MTU_MAX = 68, 65535
MTU6_MIN = 1280  # RFC 8200: with less a link has no IPv6
TEXT_MAX = 255  # letters in the name of a port, and in its device_id


class Host(Protocol):
    """What the ways in need of the agent that serves them."""

    @property
    def host(self) -> str:
        """The name of this host."""

    @property
    def connected(self) -> bool:
        """Whether a server answers."""

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Ask the server."""

    async def plug(self, wish: Mapping[str, Any]) -> Object:
        """Give a port that is bound to this host its body; return how it looks."""

    async def detach(self, port: str) -> None:
        """Take a port's body away, then delete the port; that one is not there is no fault."""

    async def unplug(self, port: str) -> None:
        """Take a port's body away; the port stays bound."""

    async def publish(self, port: str, wishes: Iterable[Mapping[str, Any]], by: str, project: str = "") -> None:
        """Publish ports at addresses of this host instead of what was published there: all of them, or none.

        *project*: the one that asks, if it may not hear of others.
        """

    def published(self, port: str) -> Objects:
        """Return what a port has published at addresses of this host: proto, address, at, port."""

    def body(self, port: str) -> Object | None:
        """Return what stands for a port here, as it is now; None if nothing does.

        Of its link inside: netns, ifname, mac, addresses, set_up, the routes that it was given and is lacking; of the
        port: up, whether that is judged yet, limits.
        """


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What a port should be like."""

    network: str
    owner: str
    id: str
    project: str | None = None
    name: str = ""
    groups: tuple[str, ...] | None = None
    addresses: tuple[str, ...] = ()
    mac: str | None = None
    profile: dict[str, Any] = {}


async def found(host: Host, kind: str, **filters: str | None) -> Objects:
    """Return the objects of a kind that filters admit."""
    query = urlencode({name.replace("__", ":"): value for name, value in filters.items() if value is not None})
    answer = await host.ask("GET", f"{path_of(kind)}?{query}")
    objects: Objects = next(iter(answer.values()))
    return objects


def id_of(text: str) -> str | None:
    """Return the id that a text is, as servers write it; None if it is none."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return None


async def named(host: Host, kind: str, name: str) -> Objects:
    """Return the objects of a kind that have an id or a name: a name may look like an id."""
    if (id := id_of(name)) is None:
        return await found(host, kind, name=name)
    by_id, by_name = await asyncio.gather(found(host, kind, id=id), found(host, kind, name=name))
    return [*by_id, *(o for o in by_name if o["id"] != id)]


def chosen(objects: Objects, kind: str, name: str, project: str | None) -> Object:
    """Return the one object of an id or, failing that, a name; of a project if one is said, or shared with it."""
    if project is not None:
        objects = [o for o in objects if o.get("project_id") == project or o.get("shared")]
    objects = [o for o in objects if o["id"] == id_of(name)] or objects
    if project is not None:
        objects = [o for o in objects if o.get("project_id") == project] or objects
    if not objects:
        raise NotFound(kind, name)
    if len(objects) > 1:
        ids = ", ".join(sorted(o["id"] for o in objects))
        raise Conflict(f"{len(objects)} of kind {kind} are named {name}: say its id ({ids}), or the project")
    return objects[0]


def check_gateways(subnets: Iterable[Object], addresses: Iterable[str]) -> None:
    """Refuse addresses that a workload would take from all others: of gateways, whether or not a router has them now.

    Such as ports have, routers' and others', the server refuses itself, and those that no host can have.
    """
    wanted = {ip_address(ip) for ip in addresses}
    for subnet in subnets:
        gateway = subnet["gateway_ip"]
        if gateway and ip_address(gateway) in wanted:
            raise Invalid(
                f"{gateway} is the gateway of subnet {subnet['cidr']}: a container that had it would take it from all "
                "others (for a router of your own, make the port by the API)"
            )


async def one(host: Host, kind: str, name: str, project: str | None = None) -> Object:
    """Return the one thing of an id or a name; within a project if one is said, or shared with it."""
    return chosen(await named(host, kind, name), kind, name, project)


async def ports(host: Host, owner: str, id: str | None = None) -> Objects:
    """Return the ports on this host that a way in has made, for one thing or for all."""
    every = await found(host, "port", device_owner=owner, device_id=id)
    return [port for port in every if port.get("binding:host_id") in (host.host, "", None)]


async def groups(host: Host, names: Iterable[str], project: str) -> list[str]:
    """Return the ids of security groups of a project."""
    return [str((await one(host, "security_group", name, project))["id"]) for name in names]


async def make(host: Host, wish: Wish, network: Object | None = None, of: Object | None = None) -> Object:
    """Make the port that is wished for, bound to this host, or *of* one of its network and project that is there."""
    # What is asked before the port is made is asked at once.
    networks, *others = await asyncio.gather(
        _just(network) if network else named(host, "network", wish.network),
        *(named(host, "security_group", name) for name in wish.groups or ()),
    )
    network = network or chosen(networks, "network", wish.network, wish.project)
    project = wish.project or str(network.get("project_id") or "")
    port: dict[str, Any] = {
        "network_id": network["id"],
        "device_owner": wish.owner,
        "device_id": wish.id,
        "name": wish.name,
        "binding:host_id": host.host,
        "binding:profile": wish.profile,
    }
    if project:
        port["project_id"] = project
    if wish.groups is not None:
        port["security_groups"] = [
            chosen(objects, "security_group", name, project)["id"]
            for name, objects in zip(wish.groups, others, strict=True)
        ]
    if wish.addresses:
        if of is None:
            check_gateways(await found(host, "subnet", network_id=network["id"]), wish.addresses)
        port["fixed_ips"] = [{"ip_address": ip} for ip in wish.addresses]
    if wish.mac:
        port["mac_address"] = wish.mac
    if of is None:
        answer = await host.ask("POST", path_of("port"), {"port": port})
    else:
        change = {name: value for name, value in port.items() if name not in ("network_id", "project_id")}
        answer = await host.ask("PUT", path_of("port", of["id"]), {"port": change})
    made: Object = answer["port"]
    return made


async def _just(network: Object) -> Objects:
    return [network]


async def plugged(host: Host, port: Object, wish: Mapping[str, Any]) -> Object:
    """Give a port that was just made its body; it goes again if that fails."""
    try:
        return await host.plug({"port": port["id"], **wish})
    except BaseException:
        # Also when who asked has gone: nobody would ever take it away.
        await asyncio.shield(host.detach(str(port["id"])))
        raise


def listed(text: Any) -> tuple[str, ...]:
    """Return names from a list, or from words with commas between them."""
    if isinstance(text, str):
        return tuple(word.strip() for word in text.split(",") if word.strip())
    if isinstance(text, list) and all(isinstance(word, str) for word in text):
        return tuple(text)
    raise Invalid(f"{text!r} is neither a list of names nor names with commas between them")
