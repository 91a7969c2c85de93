"""Docker's network and IPAM driver: what an engine asks over libnetwork's remote protocol.

An engine tells much only once: a restarted plugin hears of no network again,
and a restarted engine of no endpoint. So a network is kept in DATA/docker, and
an endpoint is a port whose `device_id` is the endpoint. Addresses that IPAM
has given are ports too, until an endpoint takes them over.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any, Protocol

import msgspec

from crossway.client import Object, Objects, path_of
from crossway.errors import Conflict, Fault, Forbidden, Invalid, NotFound
from crossway.model.network import MADE
from crossway.plugins import attach
from crossway.plugins.attach import ANY, MTU6_MIN, MTU_MAX, MTU_MIN, TEXT_MAX, Host, Wish, listed
from crossway.plugins.leases import Leases

log = logging.getLogger(__name__)

OWNER = "container:docker"
GENERIC = "com.docker.network.generic"
PORTS = "com.docker.network.portmap"
INTERNAL = "com.docker.network.internal"
GATEWAY = "com.docker.network.gateway"
PROTOCOLS = {"tcp": 6, "udp": 17}
NAMES = {6: "tcp", 17: "udp", 132: "SCTP"}
# In the profile of a port: in which sandbox it is, and where it leads that by routes of its own.
SANDBOX, LEADS = "sandbox", "leads"
NEXT_HOP, CONNECTED = 0, 1  # types of a static route: by a next hop, or on the link
GROUPS_LABEL = "crossway.groups"
UNNAMED = "docker "  # how the name of a port begins whose container is not known yet

GATEWAY_BITS = 3  # by how much a route to a gateway may be wider than its address: of one container's networks
STOPPED_MAX = 32  # stopped containers of one network of which an engine is asked whether it starts them
IDLE_SECONDS = 60.0  # an address or an endpoint that has nothing to stand for it for so long is nobody's
LOOK_SECONDS = 20.0  # between two looks at which these are

# Of Docker's own words, which have dots, those that are served.
MTU = "com.docker.network.driver.mtu"
IFACE_PREFIX = "com.docker.network.container_iface_prefix"
# And those that newer engines do themselves, whatever the driver.
ADVERTISED = ("com.docker.network.advertise_addr_nmsgs", "com.docker.network.advertise_addr_ms")
SYSCTLS = "com.docker.network.endpoint.sysctls"
MAC_ADDRESS = "com.docker.network.endpoint.macaddress"

# What may be said.
POOL_OPTIONS = ("network", "project")
NETWORK_OPTIONS = ("network", "project", "groups", "subnets", MTU, IFACE_PREFIX)
ENDPOINT_OPTIONS = ("groups", "ips", "mac", "name")
PREFIX_MAX = 11  # letters before the number of an interface, of 15 that its name may have

Made = list[tuple[str, str]]  # kind and id of what was made for a call, in order
Method = Callable[["Docker", dict[str, Any]], Awaitable[Any]]


class Net(msgspec.Struct, frozen=True, kw_only=True):
    """One of an engine's networks, as kept in DATA/docker."""

    network: str
    owner: str = ""  # project of the network; not there if an earlier build kept it
    project: str | None = None
    groups: tuple[str, ...] | None = None
    mtu: int = 0  # the most that its containers' interfaces have; 0: the network's
    prefix: str = "eth"  # how the names of those begin


class Starter(Protocol):
    """Who knows which containers an engine is starting."""

    async def starting(self, containers: Sequence[str]) -> tuple[list[str], list[str]]:
        """Return which of these stopped containers are just being started, and which are there no more."""


class Docker:
    """Answers to an engine."""

    def __init__(self, host: Host, directory: Path, project: str | None = None) -> None:
        """*project*: the one whose engine this is, which gets no other's networks and hears of none."""
        self._host, self._directory, self._only = host, directory, project
        self.asked = False  # whether the engine has ever wanted anything of us
        # Ports that nothing stands for yet, or any more, and since when. An engine that is killed between two
        # calls never says what became of them.
        self._idle: dict[str, float] = {}
        self._looked: float | None = None
        self._begun = False  # whether it is known that nothing of the host's last life is left
        self._beginning = asyncio.Lock()
        self._fresh: dict[str, Made] = {}  # by pool, what was made for it, until there is a network that it is for
        self._endpoints: dict[str, Object] = {}  # the port of an endpoint, as it was made
        self._ahead: dict[str, asyncio.Task[Object]] = {}  # bodies in the making, by the endpoint that is to be joined
        self._sandboxes: dict[str, str] = {}  # by endpoint
        self._workloads: dict[str, str] = {}  # containers by endpoint, as far as the engine has said
        self._leases = Leases()
        self.engine: Starter | None = None
        self._cidrs: dict[str, str] = {}  # of subnets: a subnet never gets another

    @property
    def project(self) -> str | None:
        """The project whose engine this is."""
        return self._only

    @property
    def methods(self) -> list[str]:
        """What an engine may ask."""
        return list(METHODS)

    def route(self, method: str) -> Callable[[bytes, Mapping[str, str]], Awaitable[Any]]:
        """Return what answers one method; a fault is told in the engine's way."""

        async def answer(body: bytes, _: Mapping[str, str]) -> Any:
            try:
                # A connection that was lost is tried again with nothing in it.
                asked = msgspec.json.decode(body) if body.strip() else {}
                if not isinstance(asked, dict):
                    raise Invalid("the request is no object")
                return await METHODS[method](self, asked)
            except KeyError as fault:
                return _refused(f"{method}: the request has no {fault}")
            except (Fault, msgspec.MsgspecError, ValueError, OSError) as fault:
                log.warning("%s: %s", method, fault)
                return _refused(str(fault))
            except (TypeError, AttributeError) as fault:
                log.exception("%s", method)
                return _refused(f"{method}: the request cannot be: {fault}")

        return answer

    # What the plugin is.

    async def activate(self, _: dict[str, Any]) -> Any:
        return {"Implements": ["NetworkDriver", "IpamDriver"]}

    async def capabilities(self, _: dict[str, Any]) -> Any:
        return {"Scope": "local", "ConnectivityScope": "global"}

    async def ipam_capabilities(self, _: dict[str, Any]) -> Any:
        return {"RequiresMACAddress": False, "RequiresRequestReplay": False}

    async def spaces(self, _: dict[str, Any]) -> Any:
        return {"LocalDefaultAddressSpace": "crossway", "GlobalDefaultAddressSpace": "crossway"}

    async def nothing(self, _: dict[str, Any]) -> Any:
        return {}

    async def sweep(self, now: float) -> None:
        """Take away what an engine has asked for and forgotten.

        Again and again it is looked which ports have nothing to stand for them: of one that a server made, or did not
        delete, when it was killed before it answered, nobody here knows.
        """
        if self._looked is None or now - self._looked > LOOK_SECONDS:
            ports = await self._here()
            ids = [p["id"] for p in ports if not self._stands(p)]
            found = [*ids, *(p["id"] for p in await self._reservations())]
            self._idle, self._looked = {id: self._idle.get(id, now) for id in found}, now
        for id in [id for id, since in self._idle.items() if now - since > IDLE_SECONDS]:
            for port in await attach.found(self._host, "port", id=id):
                if not self._stands(port) and port["device_id"] != self._kept:
                    log.info("removing port %s: no engine has taken it", id)
                    await self._detach(port)
            self._taken(id)

    async def _here(self) -> Objects:
        """Return the ports of this engine's endpoints on this host."""
        return await attach.found(
            self._host, "port", device_owner=OWNER, binding__host_id=self._host.host, project_id=self._only
        )

    def _stands(self, port: Object) -> bool:
        """Return whether something stands for a port: a body, unless that still waits for its endpoint to be joined."""
        return self._host.body(port["id"]) is not None and port["device_id"] not in self._ahead

    async def close(self) -> None:
        """End what is in the making."""
        for endpoint in list(self._ahead):
            await self._give_up(endpoint)

    async def _begin(self) -> None:
        """Take away the ports of containers that the host had before it was booted: theirs again are the addresses.

        None of them has its body any more; where the agent alone began anew, they have.
        """
        async with self._beginning:
            if self._begun:
                return
            ports = await self._here()
            if all(self._host.body(port["id"]) is None for port in ports):
                for port in (*ports, *await self._reservations()):
                    self._remember(port)
                    log.info("removing port %s: its container was there before this host was booted", port["id"])
                    await self._detach(port)
            self._begun = True

    def _left(self, port: str) -> None:
        """Take note that nothing stands for a port."""
        self._idle[port] = time.monotonic()

    def _taken(self, port: str) -> None:
        """Take note that a port has its container, or is gone."""
        self._idle.pop(port, None)

    # Addresses.

    async def request_pool(self, asked: dict[str, Any]) -> Any:
        options = asked.get("Options") or {}
        name, version = options.get("network"), 6 if asked.get("V6") else 4
        pool, part = (str(ip_network(text)) if (text := asked.get(key)) else "" for key in ("Pool", "SubPool"))
        _check_known(options, POOL_OPTIONS, "--ipam-opt ")
        if not name:
            raise Invalid("say of which network the addresses are: --ipam-opt network=NAME or ID")
        made: Made = []
        async with self._undoing(made):
            network = await self._network(name, self._project(options), made, pool)
            subnets = await attach.found(self._host, "subnet", network_id=network["id"], ip_version=str(version))
            fitting = [s for s in subnets if not pool or s["cidr"] == pool]
            if not fitting and pool and network.get("description") == MADE:
                fitting = [await self._make_subnet(network, pool, made, part)]
            if not fitting:
                of = f"no subnet {pool}" if pool else f"no subnet of IPv{version}"
                raise Invalid(f"network {name} has {of}")
            if len(fitting) > 1:
                raise Invalid(f"network {name} has {len(fitting)} subnets of IPv{version}: say which with --subnet")
            subnet = fitting[0]
            _check_range(subnet, part)
        self._fresh.pop(subnet["id"], None)  # what another call has made is of use now
        if made:
            self._fresh[subnet["id"]] = made
        net = ip_network(subnet["cidr"])
        gateway = subnet["gateway_ip"] or str(net.network_address)
        return {"PoolID": subnet["id"], "Pool": str(net), "Data": {GATEWAY: f"{gateway}/{net.prefixlen}"}}

    async def release_pool(self, asked: dict[str, Any]) -> Any:
        """Take away what was made for a network that did not come to be."""
        if made := self._fresh.pop(asked["PoolID"], None):
            for port in await self._reservations():
                if any(i["subnet_id"] == asked["PoolID"] for i in port["fixed_ips"]):
                    await self._detach(port)
            await self._unmake(made)
        return {}

    async def request_address(self, asked: dict[str, Any]) -> Any:
        await self._begin()
        subnet = (await self._host.ask("GET", path_of("subnet", asked["PoolID"])))["subnet"]
        if self._only is not None:
            await attach.one(self._host, "network", subnet["network_id"], self._only)  # not found if it is another's
        length = ip_network(subnet["cidr"]).prefixlen
        wanted, options = asked.get("Address") or "", asked.get("Options") or {}
        if options.get("RequestAddressType") == GATEWAY:
            gateway = subnet["gateway_ip"]
            if wanted and wanted != gateway:
                has = f"the gateway {gateway}" if gateway else "no gateway"
                raise Invalid(f"subnet {subnet['cidr']} has {has}, not {wanted}: leave --gateway out")
            return {"Address": f"{gateway or ip_network(subnet['cidr']).network_address}/{length}"}
        attach.check_gateways([subnet], [wanted] if wanted else ())
        made = None
        for had in () if wanted else await self._had(subnet["id"]):
            # Somebody else has it, the subnet is another now, or it is not this host's to choose.
            with suppress(Conflict, Invalid, Forbidden):
                attach.check_gateways([subnet], [had])
                made = await self._reserve(subnet, had)
        made = made or await self._reserve(subnet, wanted)
        return {"Address": f"{made['fixed_ips'][0]['ip_address']}/{length}"}

    async def _reserve(self, subnet: Object, ip: str) -> Object:
        """Make the port that holds an address of a subnet, any if none is said, until an endpoint takes it."""
        port = {
            "network_id": subnet["network_id"],
            "project_id": self._only or subnet["project_id"],
            "device_owner": OWNER,
            "device_id": self._reserved,
            "fixed_ips": [{"subnet_id": subnet["id"], **({"ip_address": ip} if ip else {})}],
        }
        made: Object = (await self._host.ask("POST", path_of("port"), {"port": port}))["port"]
        self._left(made["id"])
        return made

    async def _had(self, place: str) -> tuple[str, ...]:
        """Return what the container that is being started had on a network or in a subnet; nothing of a new one."""
        containers = self._leases.containers(place)[-STOPPED_MAX:]
        if not containers or self.engine is None:
            return ()
        starting, gone = await self.engine.starting(containers)
        self._leases.forget(gone)
        # Of several that are started at once, the one that stopped first.
        return next((had for id in starting if (had := self._leases.take(id, place))), ())

    def _remember(self, port: Object) -> None:
        """Note what a container has that gives its port back."""
        container = self._workloads.get(port["device_id"]) or (port.get("binding:profile") or {}).get("workload")
        if container:
            had = {ip["subnet_id"]: ip["ip_address"] for ip in port["fixed_ips"]}
            self._leases.keep(container, port["network_id"], had)

    async def release_address(self, asked: dict[str, Any]) -> Any:
        reserved = await self._reservation(asked["PoolID"], asked.get("Address") or "")
        if reserved is not None:
            await self._detach(reserved)
        return {}

    async def _detach(self, port: Object) -> None:
        await self._give_up(port["device_id"])
        await self._host.detach(port["id"])
        self._taken(port["id"])

    @property
    def _reserved(self) -> str:
        return f"reserved {self._host.host}"

    @property
    def _kept(self) -> str:
        """As what an address is held that no endpoint is to have (--aux-address)."""
        return f"kept {self._host.host}"

    async def _reservations(self) -> Objects:
        return await attach.found(
            self._host, "port", device_owner=OWNER, device_id=self._reserved, project_id=self._only
        )

    async def _reservation(self, subnet: str, address: str) -> Object | None:
        """Return the port that holds an address until an endpoint takes it."""
        kept = await attach.found(self._host, "port", device_owner=OWNER, device_id=self._kept, project_id=self._only)
        for port in [*await self._reservations(), *kept]:
            if any(i["ip_address"] == address and i["subnet_id"] == subnet for i in port["fixed_ips"]):
                return port
        return None

    # Networks.

    async def create_network(self, asked: dict[str, Any]) -> Any:
        every = asked.get("Options") or {}
        options = every.get(GENERIC) or {}
        _check_known(options, NETWORK_OPTIONS, "-o ", also=ADVERTISED)
        mtu, prefix = _mtu(options.get(MTU)), _prefix(options.get(IFACE_PREFIX))
        if every.get(INTERNAL):
            raise Invalid("--internal is not served: a network of Crossway without router and gateway has no way out")
        name, project = options.get("network"), self._project(options)
        if not name:
            raise Invalid("say which network: -o network=NAME or ID")
        subnets = [str(ip_network(cidr)) for cidr in listed(options.get("subnets", ""))]
        groups = listed(options["groups"]) if "groups" in options else None
        made: Made = []
        async with self._undoing(made):
            network = await self._network(name, project, made, *subnets)
            known = await self._subnets(network, name, subnets, made)
            _check_pools(asked, known, name)
            await self._check_mtu(network, mtu, known, made)
            if groups is not None:
                await attach.groups(self._host, groups, project or network["project_id"])
            await self._keep(asked, network)
            net = Net(
                network=network["id"],
                owner=network["project_id"],
                project=project,
                groups=groups,
                mtu=mtu,
                prefix=prefix,
            )
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            part = self._path(asked["NetworkID"]).with_suffix(".part")
            part.write_bytes(msgspec.json.encode(net))
            part.replace(self._path(asked["NetworkID"]))
        for subnet in known.values():
            self._fresh.pop(subnet, None)
        return {}

    async def _check_mtu(self, network: Object, mtu: int, cidrs: Iterable[str], made: Made) -> None:
        """Give a network that is made for this call the MTU that is wished for; find that others have as much."""
        if not mtu:
            return
        if mtu < MTU6_MIN and any(":" in cidr for cidr in cidrs):
            raise Invalid(f"-o {MTU}={mtu}: a network with IPv6 has an MTU of at least {MTU6_MIN}")
        fresh = [*made, *(one for pool in self._fresh.values() for one in pool)]
        if ("network", network["id"]) in fresh:
            with suppress(Forbidden):  # a host's own credential changes no network: then its containers' MTU alone
                path = path_of("network", network["id"])
                network = (await self._host.ask("PUT", path, {"network": {"mtu": mtu}}))["network"]
        if mtu > network["mtu"]:
            raise Invalid(f"-o {MTU}={mtu}: network {network['name'] or network['id']} has an MTU of {network['mtu']}")

    async def _subnets(self, network: Object, name: str, wanted: Iterable[str], made: Made) -> dict[str, str]:
        """Return the ids of a network's subnets by prefix, with such as are wanted and may be made."""
        known = {s["cidr"]: s["id"] for s in await attach.found(self._host, "subnet", network_id=network["id"])}
        for cidr in wanted:
            if cidr not in known:
                if network.get("description") != MADE:
                    raise Invalid(f"network {name} has no subnet {cidr}")
                known[cidr] = (await self._make_subnet(network, cidr, made))["id"]
        return known

    async def _keep(self, asked: Mapping[str, Any], network: Object) -> None:
        """Hold the addresses that no endpoint is to have."""
        kept = {str(ip_interface(ip).ip) for _, pool in _pools(asked)
                for ip in (pool.get("AuxAddresses") or {}).values()}  # fmt: skip
        for port in await self._reservations() if kept else ():
            if port["network_id"] == network["id"] and kept & {i["ip_address"] for i in port["fixed_ips"]}:
                await self._host.ask("PUT", path_of("port", port["id"]), {"port": {"device_id": self._kept}})
                self._taken(port["id"])

    async def delete_network(self, asked: dict[str, Any]) -> Any:
        self._path(asked["NetworkID"]).unlink(missing_ok=True)
        return {}

    def _project(self, options: Mapping[str, Any]) -> str | None:
        """Return the project that is meant; on an engine of one project, no other may be."""
        said: str | None = options.get("project")
        if self._only is not None and said not in (None, self._only):
            raise Forbidden(f"this engine is of project {self._only}: it has nothing in project {said}")
        return said or self._only

    async def _network(self, name: str, project: str | None, made: Made, *cidrs: str) -> Object:
        """Return a network; when there is none and it is said which addresses it has, make it."""
        try:
            return attach.chosen(await self._named(name), "network", name, project)
        except NotFound:
            if not any(cidrs):
                raise
        wished = {"name": name, "description": MADE, **({"project_id": project} if project else {})}
        network: Object = (await self._host.ask("POST", path_of("network"), {"network": wished}))["network"]
        made.append(("network", network["id"]))
        first = attach.chosen(await self._named(name), "network", name, network["project_id"])
        if first["id"] != network["id"]:  # another engine was a moment earlier
            await self._unmake([made.pop()])
        return first

    async def _named(self, name: str) -> Objects:
        """Return the networks of a name; of such as engines have made at the same moment, the oldest alone."""
        kept: dict[tuple[str, str], Object] = {}
        for network in sorted(await attach.named(self._host, "network", name), key=lambda n: n.get("created_at") or ""):
            made = network.get("description") == MADE and network["id"] != attach.id_of(name)
            kept.setdefault(("project", network["project_id"]) if made else ("id", network["id"]), network)
        return list(kept.values())

    async def _make_subnet(self, network: Object, cidr: str, made: Made, part: str = "") -> Object:
        """Make a subnet, which gives addresses from all of its prefix or from *part* of it."""
        net = ip_network(cidr)
        wished: Object = {
            "network_id": network["id"],
            "project_id": network["project_id"],
            "cidr": str(net),
            "ip_version": net.version,
        }
        if part:
            # Neither the subnet's own address nor its gateway's, which come first, nor its broadcast address.
            inner = ip_network(part)
            first, last = max(inner[0], net[2]), min(inner[-1], net[-2] if net.version == 4 else net[-1])
            wished["allocation_pools"] = [{"start": str(first), "end": str(last)}]
        try:
            subnet: Object = (await self._host.ask("POST", path_of("subnet"), {"subnet": wished}))["subnet"]
        except Fault:
            for other in await attach.found(self._host, "subnet", network_id=network["id"]):
                if other["cidr"] == str(net):  # another engine was a moment earlier
                    return other
            raise
        made.append(("subnet", subnet["id"]))
        return subnet

    @asynccontextmanager
    async def _undoing(self, made: Made) -> AsyncIterator[None]:
        """Take away what was made if the rest fails."""
        try:
            yield
        except BaseException:
            await asyncio.shield(self._unmake(made))
            raise

    async def _unmake(self, made: Made) -> None:
        for kind, id in reversed(made):
            try:
                await self._host.ask("DELETE", path_of(kind, id))
            except Fault as fault:
                log.warning("%s %s stays, though nothing came of the network that it was made for: %s", kind, id, fault)

    def _path(self, network: str) -> Path:
        if not network.isalnum():
            raise Invalid(f"{network!r} is no id of a network")
        return self._directory / f"{network}.json"

    def _net(self, id: str) -> Net:
        try:
            return msgspec.json.decode(self._path(id).read_bytes(), type=Net)
        except FileNotFoundError:
            raise NotFound("network", id) from None

    # Endpoints.

    async def create_endpoint(self, asked: dict[str, Any]) -> Any:
        net, endpoint = self._net(asked["NetworkID"]), asked["EndpointID"]
        options, wanted = asked.get("Options") or {}, asked.get("Interface") or {}
        options = {**options, **(options.get(GENERIC) or {})}
        _check_known(_said_by_users(options), ENDPOINT_OPTIONS, "driver-opt=", also=(SYSCTLS,))
        wishes(options.get(PORTS) or ())  # what cannot be is told before anything is made
        await self._begin()
        given = [str(ip_interface(a).ip) for key in ("Address", "AddressIPv6") if (a := wanted.get(key))]
        if given and "ips" in options:
            raise Invalid("this network's addresses come from its IPAM driver: say --ip and --ip6, not driver-opt=ips=")
        mac = wanted.get("MacAddress") or options.get("mac") or None
        network = {"id": net.network, "project_id": net.owner} if net.owner else None
        # Asked again, as the last answer was lost; an agent that has been killed meanwhile finds it in its sweep.
        for old in await self._ports(endpoint) if endpoint in self._endpoints else ():
            await self._detach(old)
        # Addresses that were held for this endpoint.
        held = [old for old in (await self._reservations() if given else ()) if old["network_id"] == net.network
                and {i["ip_address"] for i in old["fixed_ips"]} & set(given)]  # fmt: skip
        # One of them becomes the endpoint's: else somebody might get its address meanwhile.
        kept = next((old for old in held if old["project_id"] == (net.project or net.owner)), None)
        for old in held:
            if old is not kept:
                await self._detach(old)
        wish = Wish(
            network=net.network,
            project=net.project,
            owner=OWNER,
            id=endpoint,
            name=str(options.get("name") or f"{UNNAMED}{endpoint[:12]}"),
            groups=listed(options["groups"]) if "groups" in options else net.groups,
            addresses=tuple(given) or listed(options.get("ips", "")),
            mac=mac,
            profile={},
        )
        port = None
        if not wish.addresses and (had := await self._had(net.network)):
            # Somebody else has one of them, the subnets are others now, or they are not this host's to choose.
            with suppress(Conflict, Invalid, Forbidden):
                port = await attach.make(self._host, msgspec.structs.replace(wish, addresses=had), network)
        port = port or await attach.make(self._host, wish, network, kept)
        self._left(port["id"])
        self._endpoints[endpoint] = port
        # The engine writes to its disk before it joins: meanwhile the body is made.
        self._ahead[endpoint] = asyncio.create_task(self._plug(port["id"], net.mtu))
        self._ahead[endpoint].add_done_callback(_told_when_joined)
        answer = {} if wanted.get("MacAddress") else {"MacAddress": port["mac_address"]}
        for ip in port["fixed_ips"]:
            key = "AddressIPv6" if ":" in ip["ip_address"] else "Address"
            if not wanted.get(key) and key not in answer:
                length = ip_network(await self._cidr(net.network, ip["subnet_id"])).prefixlen
                answer[key] = f"{ip['ip_address']}/{length}"
        return {"Interface": answer}

    async def _cidr(self, network: str, subnet: str) -> str:
        if subnet not in self._cidrs:
            subnets = await attach.found(self._host, "subnet", network_id=network)
            self._cidrs.update({one["id"]: one["cidr"] for one in subnets})
        return self._cidrs[subnet]

    async def _plug(self, port: str, mtu: int) -> Object:
        return await self._host.plug({"port": port, "body": "pair", "ifname": far_name(port), "mtu": mtu})

    async def _plugged(self, endpoint: str, port: str, mtu: int) -> Object:
        """Return how the body of a port looks, as it was made ahead or is made now; raise what kept it from that."""
        ahead = self._ahead.pop(endpoint, None)
        plugged = await ahead if ahead is not None else None
        if plugged is None or self._host.body(port) is None:
            plugged = await self._plug(port, mtu)
        return plugged

    async def _give_up(self, endpoint: str) -> None:
        """End the making of a body that is not wanted any more."""
        if (ahead := self._ahead.pop(endpoint, None)) is not None:
            ahead.cancel()
            await asyncio.gather(ahead, return_exceptions=True)

    async def delete_endpoint(self, asked: dict[str, Any]) -> Any:
        ports = await self._seen(asked["EndpointID"])
        self._endpoints.pop(asked["EndpointID"], None)
        self._sandboxes.pop(asked["EndpointID"], None)
        for port in ports:
            self._remember(port)
            await self._detach(port)
        self._workloads.pop(asked["EndpointID"], None)
        return {}

    async def info(self, asked: dict[str, Any]) -> Any:
        port = await self._port(asked)
        told: dict[str, Any] = {"crossway.port": port["id"], "crossway.network": port["network_id"]}
        if published := self._host.published(port["id"]):
            told[PORTS] = [
                {
                    "Proto": PROTOCOLS[one["proto"]],
                    "Port": one["port"],
                    "HostIP": one["address"],
                    "HostPort": one["at"],
                    "HostPortEnd": one["at"],
                }
                for one in published
            ]
        return {"Value": told}

    async def join(self, asked: dict[str, Any]) -> Any:
        port = await self._port(asked)
        net = self._net(asked["NetworkID"])
        plugged = await self._plugged(asked["EndpointID"], port["id"], net.mtu)
        self._taken(port["id"])
        self._sandboxes[asked["EndpointID"]] = asked["SandboxKey"]
        routes = [(to, hop) for to, hop in plugged["routes"] if to not in ANY or not hop]
        gateways = {"GatewayIPv6" if ":" in gateway else "Gateway": gateway for gateway in plugged["gateways"]}
        if "Gateway" not in gateways:
            # By which a container without a gateway finds whom the engine asks for names: by IPv4 where it can.
            routes += [(f"{ip}/32", "") for ip in plugged["resolvers"] if ":" not in ip]
        if routes:
            routes = await self._not_led(routes, port, asked["SandboxKey"], {hop for _, hop in plugged["routes"]})
        return {
            "InterfaceName": {"SrcName": plugged["ifname"], "DstPrefix": net.prefix},
            # Else the engine would give the container a bridge of its own as a way out.
            "DisableGatewayService": True,
            "StaticRoutes": [
                {"Destination": to, "RouteType": NEXT_HOP, "NextHop": hop}
                if hop
                else {"Destination": to, "RouteType": CONNECTED}
                for to, hop in routes
            ],
            **gateways,
        }

    async def _not_led(
        self, routes: Sequence[tuple[str, str]], port: Object, sandbox: str, hops: Container[str]
    ) -> list[tuple[str, str]]:
        """Return the routes to where no other network leads a sandbox: an engine fails at a route that is there."""
        ports = await attach.found(self._host, "port", device_owner=OWNER, binding__host_id=self._host.host)
        led = set()
        for one in ports:
            profile = one["binding:profile"]
            if one["id"] != port["id"] and sandbox in (profile.get(SANDBOX), self._sandboxes.get(one["device_id"])):
                led |= {await self._cidr(one["network_id"], ip["subnet_id"]) for ip in one["fixed_ips"]}
                # An earlier build kept no more than that it leads to those who are asked for names.
                led |= set(profile.get(LEADS, [to for to, hop in routes if not hop] if SANDBOX in profile else ()))
        routes = [(_beside(to, led) if to.partition("/")[0] in hops else to, hop) for to, hop in routes]
        for to in led & {to for to, _ in routes}:
            log.info(
                "port %s: the route to %s is left out: another network of the container leads there", port["id"], to
            )
        routes = [route for route in routes if route[0] not in led]
        profile = {**port["binding:profile"], SANDBOX: sandbox, LEADS: [to for to, _ in routes]}
        await self._host.ask("PUT", path_of("port", port["id"]), {"port": {"binding:profile": profile}})
        return routes

    async def leave(self, asked: dict[str, Any]) -> Any:
        for port in await self._seen(asked["EndpointID"]):
            await self._host.unplug(port["id"])
            self._left(port["id"])
        return {}

    async def publish(self, asked: dict[str, Any]) -> Any:
        if wished := wishes((asked.get("Options") or {}).get(PORTS) or ()):
            port = await self._port(asked)
            await self._host.publish(port["id"], wished, f"{port['name']} (port {port['id']})", self._only or "")
        return {}

    async def revoke(self, asked: dict[str, Any]) -> Any:
        for port in await self._seen(asked["EndpointID"]):
            await self._host.publish(port["id"], (), "")
        return {}

    async def learn(self, container: Object) -> None:
        """Have the ports of a container known by its names, and in the groups that its labels say."""
        for name, told in (container.get("NetworkSettings") or {}).get("Networks", {}).items():
            for port in await self._ports(told["EndpointID"]) if told.get("EndpointID") else ():
                self._workloads[told["EndpointID"]] = container["Id"]
                profile = {**port["binding:profile"], **known(container, told)}
                change: dict[str, Any] = {"binding:profile": profile} if profile != port["binding:profile"] else {}
                # A name that somebody has given it in the API stays.
                before = next(iter(port["binding:profile"].get("names") or ()), "")[:TEXT_MAX]
                name = profile["names"][0][:TEXT_MAX]
                if port["name"].startswith(UNNAMED) or port["name"] == before != name:
                    change["name"] = name
                if wanted := labelled(container, told):
                    try:
                        groups = await attach.groups(self._host, wanted, port["project_id"])
                    except (NotFound, Conflict) as fault:
                        log.warning("container %s on %s: %s", container["Name"], name, fault)
                    else:
                        if sorted(groups) != sorted(port["security_groups"]):
                            change["security_groups"] = groups
                if change:
                    with suppress(NotFound):  # it has gone meanwhile
                        await self._host.ask("PUT", path_of("port", port["id"]), {"port": change})

    async def _ports(self, endpoint: str) -> Objects:
        """Return the ports of an endpoint: one, or none."""
        ports = await attach.ports(self._host, OWNER, endpoint)
        return [port for port in ports if self._only in (None, port["project_id"])]

    async def _seen(self, endpoint: str) -> Objects:
        """Return the ports of an endpoint as they were: for what is done while no server answers as well."""
        return [self._endpoints[endpoint]] if endpoint in self._endpoints else await self._ports(endpoint)

    async def _port(self, asked: dict[str, Any]) -> Object:
        self.asked, endpoint = True, asked["EndpointID"]
        ports = await self._seen(endpoint)
        if not ports:
            raise NotFound("endpoint", endpoint)
        self._endpoints[endpoint] = ports[0]
        return ports[0]


def wishes(portmap: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what an engine wants to be published, as the agent is told."""
    wished = []
    for one in portmap:
        proto, first = NAMES.get(one["Proto"], f"protocol {one['Proto']}"), one.get("HostPort") or 0
        if proto not in PROTOCOLS:
            raise Invalid(f"port {one['Port']} of {proto} cannot be published: only TCP and UDP can")
        wished.append(
            {
                "proto": proto,
                "port": one["Port"],
                "address": one.get("HostIP") or "",
                "at": first,
                "until": one.get("HostPortEnd") or first,
            }
        )
    return wished


def _check_known(options: Iterable[str], known: Sequence[str], how: str, also: Sequence[str] = ()) -> None:
    """Refuse words that nobody heeds: one that is misspelt, or another driver's, would go unnoticed."""
    if strange := [name for name in options if name not in (*known, *also)]:
        raise Invalid(f"{how}{strange[0]} is not known; what may be said is {', '.join(known)}")


def _said_by_users(options: Mapping[str, Any]) -> Iterator[str]:
    """Yield the options of an endpoint that a user has said: an engine's own are no texts, but for a MAC in base64."""
    for name, value in options.items():
        if (isinstance(value, str) and not (name == MAC_ADDRESS and ":" not in value)) or "." not in name:
            yield name


def _mtu(said: str | None) -> int:
    if said is None:
        return 0
    if not said.isdecimal() or not MTU_MIN <= int(said) <= MTU_MAX:
        raise Invalid(f"-o {MTU}={said} is no number from {MTU_MIN} to {MTU_MAX}")
    return int(said)


def _prefix(said: str | None) -> str:
    if said is None:
        return "eth"
    if not re.fullmatch(r"[^/:%\s.]{1,11}", said) or len(said.encode()) > PREFIX_MAX or said == "lo":
        raise Invalid(f"-o {IFACE_PREFIX}={said} is no beginning of an interface's name, of up to {PREFIX_MAX} letters")
    return said


def _check_range(subnet: Object, part: str) -> None:
    """Find that all addresses that a subnet gives are within what --ip-range says."""
    if not part:
        return
    inner = ip_network(part)
    for pool in subnet["allocation_pools"]:
        if any(ip_address(pool[end]) not in inner for end in ("start", "end")):
            raise Invalid(
                f"subnet {subnet['cidr']} gives addresses from {pool['start']} to {pool['end']}, not of {part} alone: "
                "leave --ip-range out, or set the subnet's allocation pools"
            )


def _pools(asked: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the prefixes that an engine says a network has, and what it says of each."""
    for data in ("IPv4Data", "IPv6Data"):
        for pool in asked.get(data) or ():
            yield pool.get("Pool") or "", pool


def _check_pools(asked: Mapping[str, Any], known: Iterable[str], name: str) -> None:
    """Find that the prefixes an engine gives addresses from are the network's."""
    if strange := {pool for pool, _ in _pools(asked)} - {*known, *ANY, ""}:
        raise Invalid(
            f"network {name} has no subnet {', '.join(sorted(strange))}: say --ipam-driver null, "
            f"or --ipam-driver crossway --ipam-opt network={name}"
        )


def known(container: Object, told: Object) -> dict[str, Any]:
    """Return how a port of a container is to be known, by what an engine says of it and of its network."""
    config = container.get("Config") or {}
    names = [container["Name"].removeprefix("/"), *(told.get("Aliases") or ()), *(told.get("DNSNames") or ())]
    names += [container["Id"][:12], config.get("Hostname") or ""]
    every = dict.fromkeys(name for name in names if name)
    return {"names": list(every), "workload": container["Id"]}


def labelled(container: Object, told: Object) -> tuple[str, ...]:
    """Return the groups that a container's label says; none if its network was given with groups of its own."""
    label = ((container.get("Config") or {}).get("Labels") or {}).get(GROUPS_LABEL)
    return listed(label) if label and "groups" not in (told.get("DriverOpts") or {}) else ()


def _beside(to: str, led: Container[str]) -> str:
    """Return the narrowest prefix around that of a next hop to which no other network leads.

    An engine sets a gateway as soon as the gateway's own network is there: each needs its route to the same gateway.
    """
    net = ip_network(to)
    narrow = (str(net.supernet(wider)) for wider in range(GATEWAY_BITS + 1))
    return next((around for around in narrow if around not in led), to)


def _told_when_joined(ahead: asyncio.Task[Object]) -> None:
    """Take note of a fault: an endpoint that is never joined is told of none."""
    if not ahead.cancelled():
        ahead.exception()


def _refused(message: str) -> dict[str, str]:
    """Return a fault: as network drivers tell it, and as IPAM drivers do."""
    return {"Err": message, "Error": message}


def far_name(port: str) -> str:
    """Return the name that a container's interface has until the engine takes it."""
    return "cv" + port.replace("-", "")[:11]


METHODS: dict[str, Method] = {
    "Plugin.Activate": Docker.activate,
    "NetworkDriver.GetCapabilities": Docker.capabilities,
    "NetworkDriver.CreateNetwork": Docker.create_network,
    "NetworkDriver.AllocateNetwork": Docker.nothing,
    "NetworkDriver.FreeNetwork": Docker.nothing,
    "NetworkDriver.DeleteNetwork": Docker.delete_network,
    "NetworkDriver.CreateEndpoint": Docker.create_endpoint,
    "NetworkDriver.EndpointOperInfo": Docker.info,
    "NetworkDriver.DeleteEndpoint": Docker.delete_endpoint,
    "NetworkDriver.Join": Docker.join,
    "NetworkDriver.Leave": Docker.leave,
    "NetworkDriver.DiscoverNew": Docker.nothing,
    "NetworkDriver.DiscoverDelete": Docker.nothing,
    "NetworkDriver.ProgramExternalConnectivity": Docker.publish,
    "NetworkDriver.RevokeExternalConnectivity": Docker.revoke,
    "IpamDriver.GetCapabilities": Docker.ipam_capabilities,
    "IpamDriver.GetDefaultAddressSpaces": Docker.spaces,
    "IpamDriver.RequestPool": Docker.request_pool,
    "IpamDriver.ReleasePool": Docker.release_pool,
    "IpamDriver.RequestAddress": Docker.request_address,
    "IpamDriver.ReleaseAddress": Docker.release_address,
}
