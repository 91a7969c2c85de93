"""A port: where a workload attaches to a network."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Annotated, Any

import msgspec

from crossway.model.check import (
    Check,
    Unlike,
    boolean,
    brief,
    dictionary,
    domain,
    duplicate,
    integer,
    ip,
    ip_or_cidr,
    list_of,
    mac,
    mapping,
    one_of,
    or_none,
    says,
    schema_of,
    text,
    uuid,
)
from crossway.model.link import BAREMETAL, Link, link_of
from crossway.model.resource import TAGS_MAX, Kind, Resource, attribute, told
from crossway.model.who import (
    ADMIN,
    HOST,
    HOST_OF_PROJECT,
    INTEGRATOR,
    MEMBER,
    PARENT_MANAGER,
    PARENT_MEMBER,
    PARENT_READER,
    PARENT_SHARED,
    READER,
    SERVICE,
)

ACTIVE, DOWN = "ACTIVE", "DOWN"
ROUTER_INTERFACE = "network:router_interface"
ATTACHED = "host:attached"  # an interface of a host itself
GUEST = "compute:libvirt"  # of a domain that a host's libvirt runs
ROUTER_GATEWAY = "network:router_gateway"
# What a port is to be plugged into, and what it is plugged into: what the Networking API calls a VIF.
NORMAL = "normal"
UNBOUND, BINDING_FAILED, TAP, OTHER = "unbound", "binding_failed", "tap", "other"
# How a port came by its addresses: it has some, or asked for none.
IMMEDIATE, NONE = "immediate", "none"
# Options that say "none" by being empty.
MAY_BE_EMPTY = ("router", "classless-static-route")
VNIC_TYPES = (
    "normal",
    "direct",
    "macvtap",
    "baremetal",
    "direct-physical",
    "virtio-forwarder",
    "smart-nic",
    "vdpa",
    "accelerator-direct",
    "accelerator-direct-physical",
    "remote-managed",
)
# What a port may have at most: each is a row or several on its host, and its lists are compared when it changes.
FIXED_IPS_MAX, PAIRS_MAX, GROUPS_MAX = 256, 256, 128
OPTIONS_MAX = 128  # more would not fit into an answer of DHCP
PROFILE_MAX = 4095  # bytes of a binding's profile, as JSON
NAMES_MAX = 64  # of one port, beside its dns_name
NAME_MAX = 253  # characters (RFC 1035 2.3.4)
# Who may say what touches others on the network.
OF_NETWORK = SERVICE | PARENT_MEMBER
# Agents say it of ports on their own hosts, and of such as they make for containers.
OF_HOSTS = SERVICE | HOST | HOST_OF_PROJECT


NOTHING: Any = msgspec.field(default_factory=dict)


class FixedIp(msgspec.Struct, frozen=True, gc=False):
    subnet_id: str
    ip_address: str


class Pair(msgspec.Struct, frozen=True, gc=False):
    """Another source that a port may use: an address or prefix, with its MAC or another."""

    ip_address: str
    mac_address: str


class Wish(msgspec.Struct, frozen=True, gc=False):
    """A fixed address that was asked for, by address, by subnet or by both."""

    subnet_id: str | None = None
    ip_address: str | None = None


class DhcpOption(msgspec.Struct, frozen=True, gc=False):
    """One more thing that DHCP tells the port; a request takes one away by giving it no value."""

    opt_name: str
    opt_value: str | None
    ip_version: int = 4


# As in Neutron, other members of it are nobody's business; Octavia says some.
WISH = mapping({}, {"subnet_id": or_none(uuid), "ip_address": or_none(ip)}, others=True)


@says(schema_of(WISH))
def wish(value: object) -> Wish:
    given = WISH(value)
    if not any(given.values()):
        raise ValueError(f"{brief(value)} names neither ip_address nor subnet_id")
    return Wish(**given)


WISHES = list_of(wish, FIXED_IPS_MAX, unique=False)


@says(schema_of(WISHES))
def wishes(value: object) -> tuple[Wish, ...]:
    """Check what addresses are asked for: several of one subnet, but none twice."""
    asked: tuple[Wish, ...] = WISHES(value)
    if again := duplicate(one.ip_address for one in asked if one.ip_address):
        raise ValueError(f"Duplicate items in the list: '{again}'")
    return asked


def fixed_ips_filter(values: Iterable[str]) -> dict[str, list[str]]:
    """Return what filters `fixed_ips=KEY=VALUE` ask for, by key; keys that a port does not have say nothing."""
    asked: dict[str, list[str]] = {}
    for said in values:
        key, equals, value = (part.strip() for part in said.partition("="))
        if not key or not equals:
            raise Unlike(f"'{said}' is not of the form <key>=[value]")
        with suppress(ValueError):
            value = ip(value) if key == "ip_address" else uuid(value) if key == "subnet_id" else value
        asked.setdefault(key, []).append(value)
    return asked


def line(longest: int) -> Check:
    """Take one line of text that says something."""
    words = text(longest)

    @says({**schema_of(words), "minLength": 1})
    def check(value: object) -> str:
        said: str = words(value)
        if not said.strip() or not said.isprintable():
            raise ValueError(f"{brief(value)} should be one line, and not empty")
        return said

    return check


OPTION = mapping({"opt_name": line(64), "opt_value": or_none(text(255))}, {"ip_version": integer(4, 6)})
DHCP_OPTIONS = list_of(OPTION, OPTIONS_MAX)


@says(schema_of(DHCP_OPTIONS))
def dhcp_options(value: object) -> tuple[DhcpOption, ...]:
    """Check DHCP options: each has another name, or is for the other version of IP."""
    options = tuple(DhcpOption(**option) for option in DHCP_OPTIONS(value))
    for option in options:
        if option.ip_version not in (4, 6):
            raise ValueError(f"'{option.ip_version}' is not in [4, 6]")
        if option.opt_value is not None and option.opt_name not in MAY_BE_EMPTY:
            line(255)(option.opt_value)
    if again := duplicate((option.opt_name, option.ip_version) for option in options):
        raise ValueError(f"Duplicate items in the list: '{again[0]}' of IPv{again[1]}")
    return options


MULTICAST = (ipaddress.ip_network("224.0.0.0/4"), ipaddress.ip_network("ff00::/8"))


@says(schema_of(ip_or_cidr))
def source(value: object) -> str:
    """Return an address or a prefix that a port may send from, as it was said: with the host in it."""
    ip_or_cidr(value)
    said = ipaddress.ip_interface(str(value))
    # All of IPv4 is what clients say for any; all of IPv6 they must say otherwise.
    for group in MULTICAST:
        if said.network.version == group.version and said.network.overlaps(group) and str(said.network) != "0.0.0.0/0":
            raise ValueError(f"'{value}' overlaps with multicast range {group}: nobody sends from it")
    return said.with_prefixlen if "/" in str(value) else str(said.ip)


PAIR = mapping({"ip_address": source}, {"mac_address": or_none(mac)})


@says(schema_of(PAIR))
def pair(value: object) -> dict[str, str]:
    """Check a pair; a MAC that is not given is the port's own, which is known later."""
    given = PAIR(value)
    return {key: item for key, item in given.items() if item is not None}


HINTS = or_none(
    mapping({}, {"openvswitch": mapping({"other_config": mapping({"tx-steering": one_of("thread", "hash")})})})
)


@says(schema_of(HINTS))
def hints(value: object) -> dict[str, Any] | None:
    """Check what is meant for one kind of virtual switch; an empty hint is none."""
    return HINTS(value) or None


@says(schema_of(dictionary))
def binding_profile(value: object) -> dict[str, Any]:
    """Check a binding's profile: as long as Neutron takes it."""
    given: dict[str, Any] = dictionary(value)
    if (size := len(msgspec.json.encode(given))) > PROFILE_MAX:
        raise ValueError(f"it has {size} bytes as JSON; should be at most {PROFILE_MAX}")
    return given


def of_network(device_owner: object) -> bool:
    """Say whether a device owner is one of the network's own."""
    return isinstance(device_owner, str) and device_owner.startswith("network:")


class Port(
    Resource,
    frozen=True,
    kw_only=True,
    gc=False,
    rename={
        "host": "binding:host_id",
        "profile": "binding:profile",
        "vnic_type": "binding:vnic_type",
        "vif_type": "binding:vif_type",
        "vif_details": "binding:vif_details",
    },
):
    """*identity* is the number of its set of security groups; 0 if it has none.

    *waiting* are the hosts of its bindings that wait. *edge* is the host before its bare-metal server, where *host*
    is no host but what Ironic calls the server.

    *resource_request* is derived; it stands here so that it can be hidden.
    """

    identity: int = 0
    waiting: tuple[str, ...] = ()
    edge: str = ""
    network_id: Annotated[str, attribute(uuid, put=False, default=msgspec.NODEFAULT)]
    mac_address: Annotated[
        str, attribute(or_none(mac), create=OF_NETWORK | HOST_OF_PROJECT, update=SERVICE | PARENT_MANAGER | HOST)
    ]
    fixed_ips: Annotated[
        tuple[FixedIp, ...],
        attribute(
            wishes,
            sort=False,
            create=OF_NETWORK | PARENT_SHARED | HOST_OF_PROJECT,
            update=OF_NETWORK | HOST,
            parts={
                "ip_address": OF_NETWORK | HOST | HOST_OF_PROJECT,
                "subnet_id": OF_NETWORK | PARENT_SHARED | HOST | HOST_OF_PROJECT,
            },
        ),
    ]
    security_groups: Annotated[tuple[str, ...], attribute(list_of(uuid, GROUPS_MAX), sort=False)]
    allowed_address_pairs: Annotated[
        tuple[Pair, ...],
        attribute(
            list_of(pair, PAIRS_MAX, type="AddressPairExhausted"),
            default=(),
            filter=False,
            sort=False,
            set_by=OF_NETWORK,
        ),
    ] = ()
    extra_dhcp_opts: Annotated[
        tuple[DhcpOption, ...], attribute(dhcp_options, default=(), filter=False, sort=False)
    ] = ()
    port_security_enabled: Annotated[bool, attribute(boolean, set_by=OF_NETWORK)] = True
    admin_state_up: Annotated[bool, attribute(boolean, default=True)] = True
    status: Annotated[str, told()] = DOWN
    device_id: Annotated[str, attribute(text(255), default="")] = ""
    device_owner: Annotated[str, attribute(text(255), default="", set_by=OF_NETWORK, guards=of_network)] = ""
    ip_allocation: Annotated[str, told()] = IMMEDIATE
    host: Annotated[str, attribute(or_none(text(255)), default="", set_by=OF_HOSTS, see=OF_HOSTS)] = ""
    profile: Annotated[
        dict[str, Any], attribute(binding_profile, default={}, set_by=OF_HOSTS, see=OF_HOSTS, filter=False, sort=False)
    ] = msgspec.field(default_factory=dict)
    vnic_type: Annotated[str, attribute(one_of(*VNIC_TYPES), default="normal")] = "normal"
    vif_type: Annotated[str, told(see=OF_HOSTS)] = "unbound"
    vif_details: Annotated[dict[str, Any], told(see=OF_HOSTS, filter=False, sort=False)] = NOTHING
    tags: Annotated[
        tuple[str, ...],
        attribute(list_of(text(255), TAGS_MAX, type="BadRequest"), default=(), put=False, filter=False, sort=False),
    ] = ()
    dns_name: Annotated[str, attribute(domain, default="")] = ""
    dns_domain: Annotated[str, attribute(domain, default="")] = ""
    qos_policy_id: Annotated[str | None, attribute(or_none(uuid), default=None)] = None
    propagate_uplink_status: Annotated[bool, attribute(boolean, default=True)] = True
    data_plane_status: Annotated[
        str | None, attribute(one_of(None, ACTIVE, DOWN), post=False, update=INTEGRATOR, sort=False)
    ] = None
    device_profile: Annotated[str | None, attribute(or_none(text(255)), put=False, default=None)] = None
    numa_affinity_policy: Annotated[
        str | None, attribute(one_of("required", "preferred", "legacy", "socket", None), default=None)
    ] = None
    hardware_offload_type: Annotated[str | None, attribute(one_of("switchdev", None), put=False, default=None)] = None
    trusted: Annotated[bool | None, attribute(boolean, default=None, set_by=ADMIN, see=ADMIN)] = None
    hints: Annotated[
        dict[str, Any] | None, attribute(hints, default=None, set_by=ADMIN, see=ADMIN, filter=False, sort=False)
    ] = None
    resource_request: Annotated[None, told(see=ADMIN, filter=False, sort=False)] = None

    @property
    def device(self) -> str | None:
        """Return the name of the link that is to be its body, if one was named."""
        name = self.profile.get("device")
        return name if isinstance(name, str) and name else None

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names that its network knows it by: its dns_name, and what a way in knows of its workload."""
        told = self.profile.get("names")
        every = [self.dns_name, *(told[:NAMES_MAX] if isinstance(told, list) else ())]
        names = (name.rstrip(".").lower() for name in every if isinstance(name, str))
        return tuple(dict.fromkeys(name for name in names if 0 < len(name) <= NAME_MAX))

    @property
    def workload(self) -> str:
        """Return what a way in calls the workload of several ports; empty if none has said it."""
        told = self.profile.get("workload")
        return told if isinstance(told, str) else ""

    @property
    def link(self) -> Link | None:
        """Return where its bare-metal server is plugged in, if it is of one."""
        try:
            return link_of(self.vnic_type, self.profile)
        except ValueError:  # of an older version, which did not look
            return None

    @property
    def at(self) -> str:
        """Return the host that carries it, or is to."""
        return self.edge or self.host

    @property
    def failed(self) -> bool:
        """Say whether no host could carry it when it was bound."""
        return self.vif_type == BINDING_FAILED

    @property
    def present(self) -> bool:
        """Say whether a host carries it; a router's own ports are carried by all."""
        return bool(self.at) and not self.failed and self.device_owner not in (ROUTER_INTERFACE, ROUTER_GATEWAY)

    @property
    def carriers(self) -> tuple[str, ...]:
        """Return the hosts that must know it as their own: where it is, may go, or was."""
        return (self.at, *self.waiting)


PORT = Kind(
    Port,
    "port",
    "ports",
    create=SERVICE | PARENT_MEMBER | PARENT_SHARED | HOST_OF_PROJECT,
    get=READER | PARENT_READER | SERVICE | HOST | HOST_OF_PROJECT,
    update=MEMBER | SERVICE | HOST | HOST_OF_PROJECT,
    delete=MEMBER | PARENT_MEMBER | SERVICE | HOST,
    parent=("network_id", "network"),
    indexes={
        "project_id": None,
        "network_id": None,
        "device_id": None,
        "device_owner": None,
        "host": lambda port: dict.fromkeys(host for host in (port.host, port.edge) if host),
        "failed": lambda port: (True,) if port.failed else (),
        "waiting": None,
        "subnet_id": lambda port: {fixed.subnet_id: None for fixed in port.fixed_ips},
        "joined_subnet_id": lambda port: (
            {fixed.subnet_id: None for fixed in port.fixed_ips} if port.device_owner == ROUTER_INTERFACE else ()
        ),
        "mac_address": None,
        "security_groups": None,
        "identity": None,
        "qos_policy_id": None,
    },
)


def bound_as(host: str, vnic_type: str = NORMAL, edge: str = "") -> Mapping[str, Any]:
    """Return what follows from being bound to *host*, by *edge* if it is no host itself; or to none."""
    if not host:
        return {"host": "", "edge": "", "vif_type": UNBOUND, "vif_details": {}}
    vif_type = OTHER if vnic_type == BAREMETAL else TAP
    return {
        "host": host,
        "edge": edge,
        "vif_type": vif_type,
        "vif_details": {"port_filter": True, "connectivity": "l2"},
    }


def not_bound(host: str) -> Mapping[str, Any]:
    """Return what follows from being bound to *host* when no host can carry the port."""
    return {"host": host, "edge": "", "vif_type": BINDING_FAILED, "vif_details": {}}
