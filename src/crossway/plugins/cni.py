"""The Container Network Interface, 1.1.0 and back to 0.4.0: what a runtime asks and is told.

The executable (`cni.c`) hands on environment and configuration as they are;
all else is here. One interface of a pod is one port: `device_id` is the
container, the binding's profile names interface and configuration.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from ipaddress import ip_address, ip_interface
from typing import Any

import msgspec

from crossway.client import Object
from crossway.errors import Fault, Invalid, NotFound, Unavailable
from crossway.plugins import attach
from crossway.plugins.attach import ANY, MTU_MAX, MTU_MIN, TEXT_MAX, Host, Wish, listed

log = logging.getLogger(__name__)

OWNER = "container:cni"
VERSIONS = ("0.4.0", "1.0.0", "1.1.0")
SINCE = {"GC": "1.1.0", "STATUS": "1.1.0"}
# Codes of the specification.
VERSION, FIELD, GONE, ENVIRONMENT, IO, DECODE, CONFIG, AGAIN, UNAVAILABLE, LIMITED = 1, 2, 3, 4, 5, 6, 7, 11, 50, 51
# Codes of this plugin.
REFUSED, DIFFERS = 100, 101


class Refusal(Exception):
    """A fault with its code."""

    def __init__(self, code: int, message: str, details: str = "") -> None:
        super().__init__(message)
        self.told = {"code": code, "msg": message, "details": details}


class Dns(msgspec.Struct):
    """What a configuration or a result may say of names, as a runtime reads it."""

    nameservers: list[str] | None = None
    domain: str | None = None
    search: list[str] | None = None
    options: list[str] | None = None


def parts(raw: bytes) -> tuple[dict[str, str], dict[str, Any]]:
    """Return environment and configuration of a call."""
    head, mark, text = raw.partition(b"\0\0") if not raw.startswith(b"\0") else (b"", b"\0", raw[1:])
    if not mark:
        raise Refusal(IO, "the call has no configuration")
    try:
        pairs = (entry.partition("=") for entry in head.decode().split("\0") if entry)
    except UnicodeDecodeError as fault:
        raise Refusal(ENVIRONMENT, "the environment is not UTF-8", str(fault)) from None
    try:
        conf = msgspec.json.decode(text)
    except (ValueError, RecursionError) as fault:  # also of what is no UTF-8
        raise Refusal(DECODE, "cannot decode the configuration", str(fault)) from None
    if not isinstance(conf, dict):
        raise Refusal(DECODE, "the configuration is no object")
    return {name: value for name, _, value in pairs}, conf


def version_of(conf: Mapping[str, Any]) -> str:
    """Return the version of the specification that a configuration is written in."""
    version = conf.get("cniVersion") or ""
    if version not in VERSIONS:
        raise Refusal(VERSION, f"cniVersion {version!r} is not supported", f"supported: {', '.join(VERSIONS)}")
    return str(version)


class Call:
    """One call of the plugin: its environment and its configuration, checked."""

    def __init__(self, environment: Mapping[str, str], conf: dict[str, Any], version: str) -> None:
        self.conf, self.version = conf, version
        self.command = environment.get("CNI_COMMAND", "")
        if self.command not in COMMANDS:
            raise Refusal(ENVIRONMENT, f"CNI_COMMAND {self.command!r} is not known")
        since = SINCE.get(self.command, VERSIONS[0])
        if VERSIONS.index(self.version) < VERSIONS.index(since):
            raise Refusal(VERSION, f"{self.command} needs cniVersion {since}, not {self.version}")
        self.name = str(conf.get("name") or "")
        if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*", self.name):
            raise Refusal(CONFIG, f"name {self.name!r} of the configuration is no name")
        self.container = environment.get("CNI_CONTAINERID", "")
        self.ifname = environment.get("CNI_IFNAME", "")
        self.netns = environment.get("CNI_NETNS", "")
        self.args = self._args(environment.get("CNI_ARGS", ""))
        if self.command in ("ADD", "DEL", "CHECK"):
            self._named()

    def _named(self) -> None:
        missing = [
            name
            for name, value, commands in (
                ("CNI_CONTAINERID", self.container, ("ADD", "DEL", "CHECK")),
                ("CNI_IFNAME", self.ifname, ("ADD", "DEL", "CHECK")),
                ("CNI_NETNS", self.netns, ("ADD", "CHECK")),
            )
            if self.command in commands and not value
        ]
        if missing:
            raise Refusal(ENVIRONMENT, f"{', '.join(missing)} must be set")
        if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*", self.container) or len(self.container) > TEXT_MAX:
            raise Refusal(ENVIRONMENT, f"CNI_CONTAINERID {self.container!r} is no id")
        ifname = self.ifname
        # The kernel would put a number in place of a %.
        if len(ifname.encode()) > 15 or ifname in (".", "..") or re.search(r"[/:%\s]", ifname):
            raise Refusal(ENVIRONMENT, f"CNI_IFNAME {ifname!r} is no name of an interface")

    @staticmethod
    def _args(text: str) -> dict[str, str]:
        pairs = [entry.partition("=") for entry in text.split(";") if entry]
        if any(not mark for _, mark, _ in pairs):
            raise Refusal(ENVIRONMENT, f"CNI_ARGS {text!r} is not NAME=VALUE;NAME=VALUE…")
        return {name: value for name, _, value in pairs}

    def part(self, *path: str) -> Any:
        """Return what lies at a path of the configuration; None if nothing does."""
        found: Any = self.conf
        for step in path:
            if found is None:
                return None
            if not isinstance(found, dict):
                raise Refusal(CONFIG, f"{'.'.join(path)} of the configuration cannot be: {step} lies in no object")
            found = found.get(step)
        return found

    def said(self, name: str) -> Any:
        """Return a setting of ours: from CNI_ARGS first, then `args.cni`, the pod's namespace, the configuration.

        With `namespaces`, whoever names a pod must not choose whose network it
        joins: then CNI_ARGS and `args.cni` say nothing of that.
        """
        if (mapped := self._mapped()) is not None and name in ("network", "project"):
            return mapped.get(name)
        said = self.args.get(f"CROSSWAY_{name.upper()}") or self.part("args", "cni", name)
        return said or (mapped or {}).get(name) or self.conf.get(name)

    def _mapped(self) -> dict[str, Any] | None:
        """Return what `namespaces` says of the Kubernetes namespace that the pod is in; None without a mapping."""
        every = self.conf.get("namespaces")
        if every is None:
            return None
        if not isinstance(every, dict) or not all(isinstance(one, dict) for one in every.values()):
            raise Refusal(CONFIG, "namespaces of the configuration is no object of objects")
        space = self.args.get("K8S_POD_NAMESPACE", "")
        found = every.get(space, every.get("*"))
        if found is None:
            raise Refusal(CONFIG, f"namespaces of the configuration does not name {space!r}, nor '*'")
        # A project or a network may have the name of its namespace.
        filled = {key: value.replace("{namespace}", space) if isinstance(value, str) else value
                  for key, value in found.items()}  # fmt: skip
        return {"network": self.conf.get("network"), "project": self.conf.get("project"), **filled}

    def before(self) -> dict[str, Any]:
        """Return what earlier plugins of the chain, or the ADD that is checked, have said; of the shape that it has."""
        result = self.part("prevResult") or {}
        entries = {"interfaces": ("name",), "ips": ("address",), "routes": ("dst",)}
        fine = isinstance(result, dict) and all(
            isinstance(found := result.get(name) or [], list)
            and all(isinstance(one, dict) and all(isinstance(one.get(key), str) for key in keys) for one in found)
            for name, keys in entries.items()
        )
        if not fine or not isinstance(result.get("dns") or {}, dict):
            raise Refusal(CONFIG, "prevResult of the configuration is no result")
        return dict(result)

    def wish(self) -> Wish:
        """Return the port that this call is for."""
        runtime = self.part("runtimeConfig") or {}
        if not isinstance(runtime, dict):
            raise Refusal(CONFIG, "runtimeConfig of the configuration is no object")
        network, project = self.said("network"), self.said("project")
        if not isinstance(network, str) or not network:
            raise Refusal(CONFIG, "the configuration names no network", 'say "network": NAME or ID')
        if not isinstance(project, str | None):
            raise Refusal(CONFIG, f"project {project!r} of the configuration is no name")
        if not isinstance(self.conf.get("isDefaultGateway"), bool | None):
            raise Refusal(CONFIG, "isDefaultGateway of the configuration is not true or false")
        try:
            msgspec.convert(self.conf.get("dns"), Dns | None)
        except msgspec.ValidationError as fault:
            raise Refusal(CONFIG, f"dns of the configuration cannot be: {fault}") from None
        try:
            ips = listed(
                runtime.get("ips")
                or self.args.get("IP")
                or self.part("args", "cni", "ips")
                or self.conf.get("ips")
                or []
            )
            chosen = self.said("groups")
            groups = None if chosen is None else listed(chosen)
            addresses = tuple(str(ip_interface(ip).ip) for ip in ips)
        except (Invalid, ValueError) as fault:
            raise Refusal(CONFIG, str(fault)) from None
        mac = runtime.get("mac") or self.args.get("MAC") or self.part("args", "cni", "mac") or self.conf.get("mac")
        space, pod = self.args.get("K8S_POD_NAMESPACE"), self.args.get("K8S_POD_NAME")
        return Wish(
            network=network,
            project=project or None,
            owner=OWNER,
            id=self.container,
            name=(f"{space}/{pod}" if space and pod else f"{self.container[:12]}/{self.ifname}")[:TEXT_MAX],
            groups=groups,
            addresses=addresses,
            mac=str(mac) if mac else None,
            profile={"ifname": self.ifname, "configuration": self.name},
        )

    def mappings(self) -> list[dict[str, Any]]:
        """Return what is to be published of the pod at addresses of the host, as the agent is told."""
        runtime = self.part("runtimeConfig") or {}
        told = (runtime.get("portMappings") if isinstance(runtime, dict) else None) or []
        if not isinstance(told, list) or not all(isinstance(one, dict) for one in told):
            raise Refusal(CONFIG, "runtimeConfig.portMappings is no list of objects")
        if told and self.conf.get("isDefaultGateway") is False:
            raise Refusal(CONFIG, "portMappings need the gateway by which the pod answers: isDefaultGateway is false")
        return [_mapping(one) for one in told]

    def mtu(self) -> int:
        """Return the most that the MTU of the pod's interface may be; 0 for that of its network."""
        mtu = self.conf.get("mtu") or 0
        if type(mtu) is not int or not (mtu == 0 or MTU_MIN <= mtu <= MTU_MAX):
            raise Refusal(CONFIG, f"mtu of the configuration is {mtu!r}, no number from {MTU_MIN} to {MTU_MAX}")
        return mtu

    def limits(self) -> dict[str, int]:
        """Return how fast the pod may get and send, as the agent is told."""
        runtime = self.part("runtimeConfig") or {}
        told = (runtime.get("bandwidth") if isinstance(runtime, dict) else None) or {}
        if not isinstance(told, dict):
            raise Refusal(CONFIG, "runtimeConfig.bandwidth is no object")
        folded = _folded(told)
        limits: dict[str, int] = {}
        for way, name in (("in", "ingress"), ("out", "egress")):
            rate, burst = (folded.get(f"{name}{what}") or 0 for what in ("rate", "burst"))
            numbers = type(rate) is int and type(burst) is int
            if not numbers or min(rate, burst) < 0 or rate >= 1 << 64 or burst >> 3 >= 1 << 32:
                raise Refusal(
                    CONFIG, f"runtimeConfig.bandwidth: {name}Rate {rate!r} and {name}Burst {burst!r} cannot be"
                )
            if (rate == 0) != (burst == 0):
                raise Refusal(CONFIG, f"runtimeConfig.bandwidth: {name}Rate and {name}Burst need each other")
            limits |= {f"{way}_rate": rate, f"{way}_burst": burst}
        return limits

    @property
    def key(self) -> tuple[str, str, str]:
        """Which interface this call is about."""
        return self.container, self.ifname, self.name


def _folded(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings by names in small letters: containerd writes HostPort, as plugins in Go do not look at case."""
    return {name.lower(): value for name, value in told.items()}


def _mapping(one: Mapping[str, Any]) -> dict[str, Any]:
    folded = _folded(one)
    one = {name: folded.get(name.lower()) for name in ("hostPort", "containerPort", "protocol", "hostIP")}
    proto, address = str(one["protocol"] or "tcp").lower(), one["hostIP"] or ""
    for name in ("hostPort", "containerPort"):
        number = one[name]
        if type(number) is not int or not 0 < number < 65536:
            raise Refusal(CONFIG, f"{name} of runtimeConfig.portMappings is {number!r}, no number of a port")
    if proto not in ("tcp", "udp"):
        raise Refusal(REFUSED, f"port {one['containerPort']} of {proto} cannot be published: only tcp and udp can")
    try:
        address = str(ip_address(str(address))) if address else ""
    except ValueError:
        raise Refusal(CONFIG, f"hostIP of runtimeConfig.portMappings is {address!r}, no address") from None
    return {"proto": proto, "port": one["containerPort"], "address": address, "at": one["hostPort"]}


class _Turn:
    """Whose turn it is with an interface, and how many want it."""

    def __init__(self) -> None:
        self.lock, self.wanted = asyncio.Lock(), 0


class Cni:
    """Answers to runtimes on one host."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._turns: dict[tuple[str, str, str], _Turn] = {}
        # Interfaces that may have ports: all that has none is not looked up before its port is made.
        self._known: set[tuple[str, str, str]] | None = None
        self._asked = asyncio.Lock()

    async def answer(self, raw: bytes) -> Any:
        """Answer one call: what is printed, None for nothing; a fault begins with its code."""
        version = VERSIONS[-1]
        try:
            environment, conf = parts(raw)
            version = version_of(conf)
            call = Call(environment, conf, version)
            async with self._turn(call.key):
                return await COMMANDS[call.command](self, call)
        except Refusal as refusal:
            return {**refusal.told, "cniVersion": version}
        except Fault as fault:
            code = AGAIN if isinstance(fault, Unavailable) else CONFIG if fault.status < 500 else AGAIN
            if isinstance(fault, NotFound) and fault.__dict__.get("kind") == "network namespace":
                code = GONE
            return {"code": code, "msg": str(fault), "details": fault.type, "cniVersion": version}

    @asynccontextmanager
    async def _turn(self, key: tuple[str, str, str]) -> AsyncIterator[None]:
        """Do one thing after the other for an interface: a runtime that waited too long for ADD says DEL meanwhile."""
        turn = self._turns.setdefault(key, _Turn())
        turn.wanted += 1
        try:
            async with turn.lock:
                yield
        finally:
            turn.wanted -= 1
            if not turn.wanted:
                del self._turns[key]

    async def known(self) -> set[tuple[str, str, str]]:
        """Return the interfaces that may have ports here, also such as an agent before this one made."""
        async with self._asked:
            if self._known is None:
                ports = await attach.found(self.host, "port", device_owner=OWNER, binding__host_id=self.host.host)
                self._known = {key_of(port) for port in ports}
        return self._known

    async def ports(self, call: Call) -> list[Object]:
        """Return the ports of a call's interface: one, or none."""
        return [port for port in await attach.ports(self.host, OWNER, call.container) if key_of(port) == call.key]

    async def publish(self, call: Call, port: Object, mappings: list[dict[str, Any]]) -> None:
        """Publish what is mapped of a pod; what is published so already stays as it is."""
        id = str(port["id"])
        if mappings != [{k: p[k] for k in ("proto", "port", "address", "at")} for p in self.host.published(id)]:
            await self.host.publish(id, mappings, f"{port.get('name') or call.container} (port {id})")

    async def detach(self, port: Object) -> None:
        """Take a port away."""
        await self.host.detach(str(port["id"]))
        if self._known is not None:
            self._known.discard(key_of(port))


def key_of(port: Object) -> tuple[str, str, str]:
    """Return which interface a port is, as `Call.key` has it."""
    profile: Mapping[str, Any] = port.get("binding:profile") or {}
    return str(port["device_id"]), str(profile.get("ifname")), str(profile.get("configuration"))


async def add(cni: Cni, call: Call) -> Any:
    """Make the port, plug it, and return what the pod has got."""
    call.before()
    wish, mappings, known = call.wish(), call.mappings(), await cni.known()
    body = {
        "body": "veth",
        "netns": call.netns,
        "ifname": call.ifname,
        "default": call.conf.get("isDefaultGateway"),
        "mtu": call.mtu(),
        "limits": call.limits(),
    }
    if call.key in known and (ports := await cni.ports(call)):
        network = await attach.one(cni.host, "network", wish.network, wish.project)
        if ports[0]["network_id"] != network["id"]:
            raise Refusal(CONFIG, f"{call.ifname} of {call.container} is on network {ports[0]['network_id']} already")
        plugged = await cni.host.plug({"port": ports[0]["id"], **body})
        await cni.publish(call, ports[0], mappings)
        return result(call, plugged)
    known.add(call.key)
    port = await attach.make(cni.host, wish)
    plugged = await attach.plugged(cni.host, port, body)
    try:
        if mappings and any(to in ANY for to, _ in plugged["led_by_others"]):
            raise Refusal(
                CONFIG,
                "portMappings need the gateway by which the pod answers: another interface has the default route, "
                "say isDefaultGateway: true to come before it",
            )
        await cni.publish(call, port, mappings)
    except BaseException:
        await asyncio.shield(cni.detach(port))
        raise
    return result(call, plugged)


def result(call: Call, plugged: Object) -> Object:
    """Return the success type, behind what earlier plugins of the chain have said."""
    before = call.before()
    interfaces = list(before.get("interfaces") or [])
    host_end = {"name": plugged["device"], "mac": plugged["device_mac"]}
    pod_end = {"name": plugged["ifname"], "mac": plugged["mac"], "sandbox": call.netns}
    if call.version == "1.1.0":
        host_end["mtu"] = pod_end["mtu"] = plugged["mtu"]
    gateways = {ip_address(ip).version: ip for ip in plugged["gateways"]}
    ips = []
    for text in plugged["addresses"]:
        family = ip_interface(text).version
        ip: Object = {"address": text, "interface": len(interfaces) + 1}
        if call.version == "0.4.0":
            ip["version"] = str(family)
        if family in gateways:
            ip["gateway"] = gateways[family]
        ips.append(ip)
    return {
        "cniVersion": call.version,
        "interfaces": [*interfaces, host_end, pod_end],
        "ips": [*(before.get("ips") or []), *ips],
        "routes": [
            *(before.get("routes") or []),
            *({"dst": to, "gw": hop} if hop else {"dst": to} for to, hop in plugged["routes"]),
        ],
        "dns": before.get("dns") or call.conf.get("dns") or ({"nameservers": plugged["dns"]} if plugged["dns"] else {}),
    }


async def delete(cni: Cni, call: Call) -> None:
    """Take the port away; with the namespace gone, or the port, there is less to do."""
    for port in await cni.ports(call):
        await cni.detach(port)


async def check(cni: Cni, call: Call) -> None:
    """Find that the pod's interface is as it was given, or say what differs."""
    before = call.before()
    if not before:
        raise Refusal(CONFIG, "CHECK needs prevResult")
    ports = await cni.ports(call)
    if not ports:
        raise Refusal(DIFFERS, f"{call.ifname} of {call.container} has no port")
    body = cni.host.body(str(ports[0]["id"]))
    if body is None:
        raise Refusal(DIFFERS, f"port {ports[0]['id']} is not plugged on {cni.host.host}")
    if not _same(call.netns, body["netns"]):
        raise Refusal(DIFFERS, f"{call.ifname} of {call.container} is in {body['netns']}, not in {call.netns}")
    if not body["judged"]:
        # The agent has just begun: a runtime must not take the pod for broken.
        raise Refusal(AGAIN, f"{cni.host.host} does not know yet how port {ports[0]['id']} is")
    if not body["up"]:
        raise Refusal(DIFFERS, f"port {ports[0]['id']} is down")
    if call.limits() != body["limits"]:
        raise Refusal(DIFFERS, f"{call.ifname} has limits of bandwidth {body['limits']}, not {call.limits()}")
    published = {(p["proto"], p["port"], p["address"], p["at"]) for p in cni.host.published(str(ports[0]["id"]))}
    for one in call.mappings():
        if (one["proto"], one["port"], one["address"], one["at"]) not in published:
            raise Refusal(DIFFERS, f"port {one['at']} of the host is not published for {call.ifname}")
    if not body["mac"]:
        raise Refusal(DIFFERS, f"{call.netns} has no interface {call.ifname}")
    if not body["set_up"]:
        raise Refusal(DIFFERS, f"{call.ifname} in {call.netns} is not up")
    interfaces = before.get("interfaces") or []
    numbers = [n for n, i in enumerate(interfaces) if i.get("name") == call.ifname and i.get("sandbox")]
    if not numbers:
        raise Refusal(DIFFERS, f"prevResult has no interface {call.ifname}")
    if (mac := interfaces[numbers[0]].get("mac")) and str(mac).lower() != body["mac"]:
        raise Refusal(DIFFERS, f"{call.ifname} has MAC {body['mac']}, not {mac}")
    wanted = {i["address"] for i in before.get("ips") or [] if i.get("interface") in numbers}
    try:
        missing = {str(ip_interface(i)) for i in wanted} - {str(ip_interface(i)) for i in body["addresses"]}
    except ValueError as fault:
        raise Refusal(CONFIG, f"prevResult: {fault}") from None
    if missing:
        raise Refusal(DIFFERS, f"{call.ifname} lacks {', '.join(sorted(missing))}")
    # Of those that the pod was given: others are of other plugins, or have been changed in the API since.
    told = {(route["dst"], route.get("gw") or "") for route in before.get("routes") or []}
    for destination, hop in body["lacking"]:
        if (destination, hop) in told:
            how = f"by {hop}" if hop else "on the link"
            raise Refusal(DIFFERS, f"{call.ifname} lacks the route to {destination} {how}")


def _same(one: str, other: str) -> bool:
    """Return whether two paths are of one namespace."""
    try:
        return os.path.samefile(one, other)
    except OSError:
        return one == other


async def collect(cni: Cni, call: Call) -> None:
    """Take away all ports of this configuration that no valid attachment names."""
    names = [name for name in ("cni.dev/valid-attachments", "cni.dev/attachments") if name in call.conf]
    # A runtime in Go that has none says null.
    named = (call.conf[names[0]] or []) if names else None
    if not isinstance(named, list):
        raise Refusal(CONFIG, "GC needs cni.dev/valid-attachments")
    try:
        valid = {(str(entry["containerID"]), str(entry["ifname"])) for entry in named}
    except (TypeError, KeyError) as fault:
        raise Refusal(CONFIG, "an entry of cni.dev/valid-attachments lacks containerID or ifname") from fault
    for port in await attach.ports(cni.host, OWNER):
        container, ifname, name = key_of(port)
        if name == call.name and (container, ifname) not in valid:
            log.info("removing port %s of %s: no attachment names it", port["id"], port["device_id"])
            await cni.detach(port)


async def status(cni: Cni, _: Call) -> None:
    """Say whether ADD would be served now."""
    if not cni.host.connected:
        raise Refusal(UNAVAILABLE, "the agent has no server")


COMMANDS = {"ADD": add, "DEL": delete, "CHECK": check, "GC": collect, "STATUS": status}
