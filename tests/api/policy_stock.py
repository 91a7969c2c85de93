"""Everything of which there can be one, how it is made and what is done to it; and who asks."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from crossway.control.collection import Collection
from crossway.control.collections import COLLECTIONS
from servers import Api, Host

# Callers: a name, and the roles that are said. Of "auditor" nobody knows anything.
ROLES = {
    "manager": "manager",
    "member": "member",
    "reader": "reader",
    "service": "service",
    "integrator": "member,data_plane_integrator",
    "nobody": "auditor",
    # The last: it leaves nothing.
    "admin": "admin",
}
OWNER, OTHER, FRIEND, GUEST = "alice", "bob", "carol", "dave"


class Made(NamedTuple):
    """An object: where it is, and in which projects it and its parent are."""

    path: str
    id: str
    project: str


class Stock:
    """Makes what is needed, as the admin; asks as anyone."""

    def __init__(self, url: str) -> None:
        self.url, self.admin = url, Api(url)
        self._clients: dict[tuple[str, str], Api] = {}
        self._numbers = itertools.count()
        self.public = self.new("networks", "network", {"router:external": True, "is_default": True})
        body = {"network_id": self.public, "ip_version": 4, "cidr": "198.18.0.0/15", "enable_dhcp": False}
        self.new("subnets", "subnet", body)
        # A router answers for addresses inside only if they are of the scope of the outside.
        scope = self.new("address-scopes", "address_scope", {"name": "six", "ip_version": 6, "shared": True})
        six = {"name": "six", "prefixes": ["2001:db8::/40"], "address_scope_id": scope, "shared": True}
        self.six = self.new("subnetpools", "subnetpool", {**six, "default_prefixlen": 64})
        body = {"network_id": self.public, "ip_version": 6, "subnetpool_id": self.six, "enable_dhcp": False}
        self.new("subnets", "subnet", body)
        pool = {
            "name": "default",
            "prefixes": ["10.128.0.0/9"],
            "default_prefixlen": 26,
            "is_default": True,
            "shared": True,
        }
        self.new("subnetpools", "subnetpool", pool)
        Host(self.admin, "h1")

    def close(self) -> None:
        for one in (self.admin, *self._clients.values()):
            one.client.close()

    def ask(self, project: str, role: str, method: str, path: str, body: Any = None) -> tuple[int, str]:
        key = ("elsewhere" if role == "admin" else project, ROLES[role])
        if key not in self._clients:
            self._clients[key] = Api(self.url, **{"X-Project-Id": key[0], "X-Roles": key[1]})
        answer = self._clients[key].client.request(method, f"/v2.0/{path}", json=body)
        return answer.status_code, answer.text

    def number(self) -> int:
        return next(self._numbers)

    def new(self, path: str, wire: str, body: Mapping[str, Any], project: str = "") -> str:
        whole = {**body, "project_id": project} if project else body
        made: dict[str, Any] = self.admin("POST", f"/v2.0/{path}", {wire: whole})[wire]
        return str(next((made[key] for key in ("id", "fixed_port_id", "host") if key in made), ""))

    # ---- what others rest on

    def network(self, project: str) -> str:
        return self.new("networks", "network", {}, project)

    def subnet(self, project: str, network: str = "", version: int = 4) -> str:
        n = self.number()
        whence = {"cidr": f"10.{n // 250 % 120}.{n % 250}.0/24"} if version == 4 else {"subnetpool_id": self.six}
        body = {"network_id": network or self.network(project), "ip_version": version, **whence}
        return self.new("subnets", "subnet", body, project)

    def port(self, project: str, network: str = "", **more: Any) -> str:
        return self.new("ports", "port", {"network_id": network or self.network(project), **more}, project)

    def port_with_address(self, project: str) -> str:
        network = self.network(project)
        self.subnet(project, network)
        return self.port(project, network)

    def router(self, project: str, **more: Any) -> str:
        return self.new("routers", "router", more, project)

    def gateway(self, project: str, **more: Any) -> str:
        return self.router(project, external_gateway_info={"network_id": self.public}, **more)

    def joined(self, project: str, version: int = 4, **more: Any) -> tuple[str, str]:
        """Return a port, and the router by which it reaches the outside."""
        network = self.network(project)
        subnet = self.subnet(project, network, version)
        if version == 6:
            gateway = {"network_id": self.public}
            router = self.router(project, external_gateway_info=gateway, **more)
        else:
            router = self.gateway(project, **more)
        self.admin("PUT", f"/v2.0/routers/{router}/add_router_interface", {"subnet_id": subnet}, 200)
        return self.port(project, network), router

    def floatingip(self, project: str) -> str:
        return self.new("floatingips", "floatingip", {"floating_network_id": self.public}, project)

    def group(self, project: str) -> str:
        return self.new("security-groups", "security_group", {"name": "g"}, project)

    def policy(self, project: str) -> str:
        return self.new("qos/policies", "policy", {"name": "p"}, project)


# ---- how each thing is made: where, and of what. All that it rests on is of *project*.

Body = tuple[str, dict[str, Any]]


def _port_forwarding(stock: Stock, project: str) -> Body:
    port, _ = stock.joined(project)
    body = {"protocol": "tcp", "internal_port_id": port, "internal_port": 80, "external_port": 8000 + stock.number()}
    shown = stock.admin("GET", f"/v2.0/ports/{port}")["port"]
    body["internal_ip_address"] = shown["fixed_ips"][0]["ip_address"]
    return f"floatingips/{stock.floatingip(project)}/port_forwardings", body


def _rbac(stock: Stock, project: str) -> Body:
    body = {"object_type": "network", "object_id": stock.network(project), "action": "access_as_shared"}
    return "rbac-policies", {**body, "target_tenant": "zoe"}


def _ndp_proxy(stock: Stock, project: str) -> Body:
    port, router = stock.joined(project, 6, enable_ndp_proxy=True)
    return "ndp_proxies", {"router_id": router, "port_id": port}


def _local_ip(stock: Stock, project: str) -> Body:
    network = stock.network(project)
    stock.subnet(project, network)
    return "local_ips", {"network_id": network}


def _association(stock: Stock, project: str) -> Body:
    path, body = _local_ip(stock, project)
    local = stock.new(path, "local_ip", body, project)
    return f"local_ips/{local}/port_associations", {"fixed_port_id": stock.port_with_address(project)}


def _binding(stock: Stock, project: str) -> Body:
    port = stock.port(project, device_owner="compute:nova", **{"binding:host_id": "h1"})
    host = Host(stock.admin, f"h{stock.number() + 2}").name
    return f"ports/{port}/bindings", {"host": host}


def _flavor(stock: Stock, project: str) -> Body:
    path, body = _profile(stock, project)
    profile = stock.new(path, "service_profile", body)
    return "flavors", {"name": "f", "service_type": "L3_ROUTER_NAT", "service_profiles": [profile]}


def _profile(stock: Stock, project: str) -> Body:
    return "service_profiles", {"metainfo": "m", "driver": "crossway"}


def _flavor_profile(stock: Stock, project: str) -> Body:
    path, body = _profile(stock, project)
    profile = stock.new(path, "service_profile", body)
    path, body = _flavor(stock, project)
    return f"flavors/{stock.new(path, 'flavor', body)}/service_profiles", {"id": profile}


def _pool(stock: Stock, project: str) -> Body:
    prefix = f"100.{64 + stock.number() % 60}.0.0/16"
    return "subnetpools", {"name": "p", "prefixes": [prefix], "default_prefixlen": 26}


def _segment(stock: Stock, project: str) -> Body:
    body = {"network_id": stock.network(project), "network_type": "vlan", "physical_network": "p"}
    return "segments", {**body, "segmentation_id": 2 + stock.number() % 4000}


def _range(stock: Stock, project: str) -> Body:
    first = 100000 + 10 * stock.number()
    body = {"name": "r", "network_type": "vxlan", "minimum": first, "maximum": first + 5, "shared": False}
    return "network_segment_ranges", body


def _statefulness(stock: Stock, project: str) -> Body:
    for one in stock.admin("GET", "/v2.0/security-groups-default-statefulness")["security_groups_default_statefulness"]:
        stock.admin("DELETE", f"/v2.0/security-groups-default-statefulness/{one['id']}")
    return "security-groups-default-statefulness", {"stateful": False, "project_id": project}


def _metering_rule(stock: Stock, project: str) -> Body:
    label = stock.new("metering/metering-labels", "metering_label", {"name": "l"}, project)
    body = {"metering_label_id": label, "direction": "ingress", "remote_ip_prefix": "10.0.0.0/8"}
    return "metering/metering-label-rules", body


def _helper(stock: Stock, project: str) -> Body:
    return f"routers/{stock.router(project)}/conntrack_helpers", {"protocol": "tcp", "port": 21, "helper": "ftp"}


def _default_rule(stock: Stock, project: str) -> Body:
    body = {"direction": "ingress", "protocol": "tcp", "port_range_min": 2000 + stock.number()}
    return "default-security-group-rules", {**body, "port_range_max": body["port_range_min"]}


def _group_rule(stock: Stock, project: str) -> Body:
    return "security-group-rules", {"security_group_id": stock.group(project), "direction": "ingress"}


def _qos(plural: str, **body: Any) -> Callable[[Stock, str], Body]:
    return lambda stock, project: (f"qos/policies/{stock.policy(project)}/{plural}", body)


MAKE: dict[str, Callable[[Stock, str], Body]] = {
    "network": lambda stock, project: ("networks", {"name": "n"}),
    "subnet": lambda s, p: (
        "subnets",
        {"network_id": s.network(p), "ip_version": 4, "cidr": f"10.121.{s.number() % 250}.0/24"},
    ),
    "port": lambda s, p: ("ports", {"network_id": s.network(p)}),
    "port_binding": _binding,
    "router": lambda stock, project: ("routers", {"name": "r"}),
    "router_conntrack_helper": _helper,
    "security_group": lambda stock, project: ("security-groups", {"name": "g"}),
    "security_group_rule": _group_rule,
    "rbac_policy": _rbac,
    "address_scope": lambda stock, project: ("address-scopes", {"name": "a", "ip_version": 4}),
    "subnetpool": _pool,
    "address_group": lambda stock, project: ("address-groups", {"name": "a", "addresses": ["192.0.2.0/24"]}),
    "floatingip": lambda stock, project: ("floatingips", {"floating_network_id": stock.public}),
    "floatingip_port_forwarding": _port_forwarding,
    "policy": lambda stock, project: ("qos/policies", {"name": "p"}),
    "policy_bandwidth_limit_rule": _qos("bandwidth_limit_rules", max_kbps=1000),
    "policy_dscp_marking_rule": _qos("dscp_marking_rules", dscp_mark=10),
    "policy_minimum_bandwidth_rule": _qos("minimum_bandwidth_rules", min_kbps=1000),
    "policy_minimum_packet_rate_rule": _qos("minimum_packet_rate_rules", min_kpps=1000),
    "policy_packet_rate_limit_rule": _qos("packet_rate_limit_rules", max_kpps=1000),
    "alias_bandwidth_limit_rule": _qos("bandwidth_limit_rules", max_kbps=1000),
    "alias_dscp_marking_rule": _qos("dscp_marking_rules", dscp_mark=10),
    "alias_minimum_bandwidth_rule": _qos("minimum_bandwidth_rules", min_kbps=1000),
    "alias_minimum_packet_rate_rule": _qos("minimum_packet_rate_rules", min_kpps=1000),
    "ndp_proxy": _ndp_proxy,
    "local_ip": _local_ip,
    "local_ip_port_association": _association,
    "flavor": _flavor,
    "service_profile": _profile,
    "flavor_service_profile": _flavor_profile,
    "default_security_group_rule": _default_rule,
    "log": lambda s, p: ("log/logs", {"resource_type": "security_group", "resource_id": s.group(p)}),
    "metering_label": lambda stock, project: ("metering/metering-labels", {"name": "l"}),
    "metering_label_rule": _metering_rule,
    "security_group_default_statefulness": _statefulness,
    "trunk": lambda stock, project: ("trunks", {"port_id": stock.port(project)}),
    "segment": _segment,
    "network_segment_range": _range,
}
# What nobody makes: it is there, and this is where and under which id. "": it is only listed.
THERE: dict[str, Callable[[Stock, str], tuple[str, str]]] = {
    "quota": lambda stock, project: ("quotas", project),
    "floatingip_pool": lambda stock, project: ("floatingip_pools", ""),
    "rule_type": lambda stock, project: ("qos/rule-types", ""),
    "network_ip_availability": lambda stock, project: ("network-ip-availabilities", stock.network(project)),
    "service_provider": lambda stock, project: ("service-providers", ""),
    "loggable_resource": lambda stock, project: ("log/loggable-resources", ""),
    "availability_zone": lambda stock, project: ("availability_zones", ""),
    "agent": lambda stock, project: ("agents", stock.admin("GET", "/v2.0/agents")["agents"][0]["id"]),
    "auto_allocated_topology": lambda stock, project: ("auto-allocated-topology", project),
}
# What is nobody's: every caller stands to it as every other does.
NOBODYS = {
    "flavor", "service_profile", "flavor_service_profile", "default_security_group_rule", "agent", "segment",
}  # fmt: skip
# A project's own by its very name: another's is refused, since that gives nothing away.
NAMED = {"quota", "auto_allocated_topology"}
# Those whose parent may be another project's than they are themselves.
LODGERS = {"subnet", "port"}
SHARED = {
    "network": ("networks", "network"),
    "security_group": ("security-groups", "security_group"),
    "address_scope": ("address-scopes", "address_scope"),
    "subnetpool": ("subnetpools", "subnetpool"),
    "address_group": ("address-groups", "address_group"),
    "policy": ("qos/policies", "qos_policy"),
}
# Those whose parent can be shared, and the word of their own that names it.
PARENT_SHARED = {
    "subnet": ("network", "network_id"),
    "port": ("network", "network_id"),
    "security_group_rule": ("security_group", "security_group_id"),
    **{
        f"policy_{rule}_rule": ("qos_policy", "")
        for rule in (
            "bandwidth_limit",
            "dscp_marking",
            "minimum_bandwidth",
            "minimum_packet_rate",
            "packet_rate_limit",
        )
    },
}  # fmt: skip
CHANGE: dict[str, dict[str, Any]] = {
    "port_binding": {"vnic_type": "normal"},
    "router_conntrack_helper": {"port": 2121},
    "rbac_policy": {"target_tenant": "yan"},
    "address_scope": {"name": "other"},
    "quota": {"network": -1},
    "security_group_default_statefulness": {"stateful": False},
    "policy_bandwidth_limit_rule": {"max_kbps": 1001},
    "policy_dscp_marking_rule": {"dscp_mark": 12},
    "policy_minimum_bandwidth_rule": {"min_kbps": 1001},
    "policy_minimum_packet_rate_rule": {"min_kpps": 1001},
    "policy_packet_rate_limit_rule": {"max_kpps": 1001},
    "alias_bandwidth_limit_rule": {"max_kbps": 1001},
    "alias_dscp_marking_rule": {"dscp_mark": 12},
    "alias_minimum_bandwidth_rule": {"min_kbps": 1001},
    "alias_minimum_packet_rate_rule": {"min_kpps": 1001},
}


# ---- what else is done to things: the last word of the path, and the body


def _interface(stock: Stock, at: Made) -> dict[str, Any]:
    return {"subnet_id": stock.subnet(at.project)}


def _joined(stock: Stock, at: Made) -> dict[str, Any]:
    body = _interface(stock, at)
    stock.admin("PUT", f"/v2.0/{at.path}/add_router_interface", body, 200)
    return body


def _routes(stock: Stock, at: Made) -> dict[str, Any]:
    subnet = stock.admin("GET", f"/v2.0/subnets/{_joined(stock, at)['subnet_id']}")["subnet"]
    hop = subnet["cidr"].replace(".0/24", ".9")
    return {"router": {"routes": [{"destination": f"192.0.2.{stock.number() % 250}/32", "nexthop": hop}]}}


def _gateways(stock: Stock, at: Made, **parts: Any) -> dict[str, Any]:
    return {"router": {"external_gateways": [{"network_id": stock.public, **parts}]}}


def _gateways_before(stock: Stock, at: Made, **parts: Any) -> dict[str, Any]:
    body = _gateways(stock, at)
    while len(stock.admin("GET", f"/v2.0/{at.path}")["router"]["external_gateways"]) < 1:
        stock.admin("PUT", f"/v2.0/{at.path}/add_external_gateways", body, 200)
    return _gateways(stock, at, **parts)


def _prefixes(stock: Stock, at: Made) -> dict[str, Any]:
    return {"prefixes": [f"11.{stock.number() % 250}.0.0/16"]}


def _addresses(stock: Stock, at: Made) -> dict[str, Any]:
    return {"addresses": [f"10.9.{stock.number() % 250}.0/24"]}


def _sub_ports(stock: Stock, at: Made) -> dict[str, Any]:
    n = stock.number() % 4000 + 2
    return {"sub_ports": [{"port_id": stock.port(at.project), "segmentation_type": "vlan", "segmentation_id": n}]}


def _after(action: str, body: Callable[[Stock, Made], dict[str, Any]]) -> Callable[[Stock, Made], dict[str, Any]]:
    """Have the opposite done first."""

    def prepared(stock: Stock, at: Made) -> dict[str, Any]:
        made = body(stock, at)
        stock.admin("PUT", f"/v2.0/{at.path}/{action}", made, 200)
        return made

    return prepared


def _free(stock: Stock) -> list[dict[str, Any]]:
    n = stock.number()
    return [{"ip_address": f"198.19.{n // 250}.{n % 250 + 1}"}]


ACTIONS: dict[str, Callable[[Stock, Made], Any]] = {
    "activate:binding": lambda stock, at: {},
    "add_router_interface": _interface,
    "remove_router_interface": _joined,
    "add_extraroutes:router": _routes,
    "remove_extraroutes:router": _routes,
    "add_external_gateways:router": _gateways,
    "add_external_gateways:router:enable_snat": lambda s, at: _gateways(s, at, enable_snat=True),
    "add_external_gateways:router:external_fixed_ips": lambda s, at: _gateways(s, at, external_fixed_ips=_free(s)),
    "update_external_gateways:router": _gateways_before,
    "update_external_gateways:router:enable_snat": lambda s, at: _gateways_before(s, at, enable_snat=True),
    "update_external_gateways:router:external_fixed_ips": lambda s, at: _gateways_before(
        s, at, external_fixed_ips=_free(s)
    ),
    "remove_external_gateways:router": _gateways_before,
    "add_prefixes:subnetpool": _prefixes,
    "remove_prefixes:subnetpool": _after("add_prefixes", _prefixes),
    "onboard_network_subnets:subnetpool": lambda stock, at: {
        "network_id": stock.admin("GET", f"/v2.0/subnets/{stock.subnet(at.project)}")["subnet"]["network_id"]
    },
    "add_addresses:address_group": _addresses,
    "remove_addresses:address_group": _after("add_addresses", _addresses),
    "add_subports:trunk": _sub_ports,
    "remove_subports:trunk": _after("add_subports", _sub_ports),
}
# Attributes that have a rule of their own, as POST or PUT says them.
SAY: dict[str, Callable[[Stock], dict[str, Any]]] = {
    "network:shared": lambda stock: {"shared": True},
    "network:router:external": lambda stock: {"router:external": True},
    "network:is_default": lambda stock: {"is_default": True},
    "network:provider:network_type": lambda stock: {"provider:network_type": "vxlan"},
    "network:provider:physical_network": lambda stock: {"provider:physical_network": "p"},
    "network:provider:segmentation_id": lambda stock: {"provider:segmentation_id": 70000 + stock.number()},
    "network:segments": lambda stock: {
        "segments": [
            {"provider:network_type": "vxlan"},
            {"provider:network_type": "vlan", "provider:physical_network": "q", "provider:segmentation_id": 7},
        ]
    },
    "subnet:segment_id": lambda stock: {"segment_id": str(uuid.uuid4())},
    "port:mac_address": lambda stock: {"mac_address": f"02:00:00:00:{stock.number() % 250:02x}:01"},
    "port:fixed_ips": lambda stock: {"fixed_ips": [{"subnet_id": str(uuid.uuid4())}]},
    "port:fixed_ips:ip_address": lambda stock: {"fixed_ips": [{"ip_address": "10.250.0.9"}]},
    "port:fixed_ips:subnet_id": lambda stock: {"fixed_ips": [{"subnet_id": str(uuid.uuid4())}]},
    "port:allowed_address_pairs": lambda stock: {"allowed_address_pairs": [{"ip_address": "10.0.0.9"}]},
    "port:port_security_enabled": lambda stock: {"port_security_enabled": False},
    "port:device_owner": lambda stock: {"device_owner": "network:dhcp"},
    "port:binding:host_id": lambda stock: {"binding:host_id": "h1"},
    "port:binding:profile": lambda stock: {"binding:profile": {"a": "b"}},
    "port:data_plane_status": lambda stock: {"data_plane_status": "ACTIVE"},
    "port:trusted": lambda stock: {"trusted": True},
    "port:hints": lambda stock: {"hints": {"openvswitch": {"other_config": {"tx-steering": "hash"}}}},
    "router:external_gateway_info:enable_snat": lambda stock: {
        "external_gateway_info": {"network_id": stock.public, "enable_snat": False}
    },
    "router:external_gateway_info:external_fixed_ips": lambda stock: {
        "external_gateway_info": {"network_id": stock.public, "external_fixed_ips": _free(stock)}
    },
    "router:distributed": lambda stock: {"distributed": True},
    "router:ha": lambda stock: {"ha": True},
    "router:enable_default_route_ecmp": lambda stock: {"enable_default_route_ecmp": True},
    "router:enable_default_route_bfd": lambda stock: {"enable_default_route_bfd": True},
    "rbac_policy:target_tenant": lambda stock: {"target_tenant": "*"},
    "address_scope:shared": lambda stock: {"shared": True},
    "subnetpool:shared": lambda stock: {"shared": True},
    "subnetpool:is_default": lambda stock: {"is_default": True},
    "floatingip:floating_ip_address": lambda stock: {"floating_ip_address": _free(stock)[0]["ip_address"]},
}
# What may be said and is wrong for another reason: only "forbidden" and "not forbidden" are told apart.
WRONG = {
    "network:is_default",
    "network:provider:physical_network",
    "network:provider:segmentation_id",
    "network:segments",
    "subnet:segment_id",
    "port:fixed_ips",
    "port:fixed_ips:ip_address",
    "port:fixed_ips:subnet_id",
    "port:port_security_enabled",
    "subnetpool:is_default",
    "router:ha",
    "router:distributed",
}


def _named(collections: tuple[Collection, ...] = COLLECTIONS, below: str = "") -> Iterator[tuple[str, Collection]]:
    for collection in collections:
        name = f"{below}_{collection.kind.name}" if below else collection.kind.name
        yield name, collection
        yield from _named(collection.children, name)


NAMES = dict(_named())


def owned(name: str) -> bool:
    """Say whether its project is said when it is made."""
    declared = NAMES[name].kind.attributes.get("project_id")
    nested = "/" in name or NAMES[name].kind.table in ("port_binding",)
    return declared is not None and declared.post and not nested and name not in NOBODYS


def wire(name: str) -> str:
    return NAMES[name].kind.name.removeprefix("alias_")


def make(stock: Stock, name: str, project: str, parent: str = "") -> Made:
    """Make one as the admin; its parent may be another project's."""
    if name in THERE:
        path, id = THERE[name](stock, project)
        if name == "quota":
            stock.admin("PUT", f"/v2.0/quotas/{project}", {"quota": {"network": -1}})
        return Made(f"{path}/{id}" if id else path, id, project)
    path, body = MAKE[name](stock, parent or project)
    id = stock.new(path, wire(name), body, project if owned(name) else "")
    if name.startswith("alias_"):
        path = f"qos/{NAMES[name].kind.plural}"
    return Made(f"{path}/{id}", id, project)


def share(stock: Stock, type: str, id: str, target: str, action: str = "access_as_shared") -> None:
    body = {"object_type": type, "object_id": id, "action": action, "target_tenant": target}
    stock.new("rbac-policies", "rbac_policy", body)


def share_parent(stock: Stock, name: str, path: str, body: Mapping[str, Any], action: str = "access_as_shared") -> None:
    """Share what something is to be made below."""
    type, field = PARENT_SHARED[name]
    share(stock, type, str(body[field]) if field else path.split("/")[2], FRIEND, action)
