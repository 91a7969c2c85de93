"""What a project may not see is not there: asked for, changed or referred to, it answers as what never was."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from api.policy_stock import ACTIONS, CHANGE, FRIEND, MAKE, NAMED, NAMES, OTHER, OWNER, SHARED, Made, Stock, make, wire
from crossway.control.collections import every

ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|h\d+")
# These all may see.
OPEN = {"flavor", "default_security_group_rule"}
HIDDEN = [
    name for name in (*MAKE, "quota", "auto_allocated_topology", "network_ip_availability", "agent") if name not in OPEN
]
# The most that a caller may be who is no admin.
ROLE = "manager"


def answers(stock: Stock, method: str, there: str, absent: str, body: Any = None) -> tuple[int, str]:
    """Ask of what is hidden and of what never was; return what both answered, but for ids."""
    hidden, never = (
        (status, ID.sub("ID", text.replace(OWNER, "ID")))
        for status, text in (stock.ask(OTHER, ROLE, method, path, body) for path in (there, absent))
    )
    assert hidden == never, f"{method} {there} {body}"
    return hidden


def _absent(path: str) -> str:
    """Return the same path with ids that never were."""
    return ID.sub(lambda _: str(uuid.uuid4()), path)


def _requests(stock: Stock, name: str, at: Made) -> list[tuple[str, str, Any]]:
    """Return all that can be asked of one object: method, what follows its path, and the body."""
    collection = NAMES[name]
    kind = collection.kind
    asked: list[tuple[str, str, Any]] = [("GET", "", None)]
    if collection.update:
        asked.append(("PUT", "", {kind.name: CHANGE.get(name) or {"description": "mine"}}))
    if collection.delete:
        asked.append(("DELETE", "", None))
    if "tags" in kind.attributes:
        asked += [("GET", "/tags", None), ("PUT", "/tags", {"tags": ["a"]}), ("DELETE", "/tags", None)]
        asked += [("POST", "/tags", {"tags": ["a"]})]
        asked += [(method, "/tags/a", None) for method in ("GET", "PUT", "DELETE")]
    for action, declared in collection.actions.items():
        rule = next((rule for rule in ACTIONS if rule.split(":")[0] == action and len(rule.split(":")) < 3), None)
        asked.append((declared.method, f"/{action}", ACTIONS[rule](stock, at) if rule else None))
    for child in collection.children:
        plural = child.path or child.kind.plural
        asked.append(("GET", f"/{plural}", None))
        if child.create:
            # Of what it is to be made is one's own.
            child_name = f"{name}_{child.kind.name}"
            asked.append(("POST", f"/{plural}", {wire(child_name): MAKE[child_name](stock, OTHER)[1]}))
    return asked


@pytest.mark.parametrize("name", HIDDEN)
def test_what_is_hidden_answers_as_what_never_was(stock: Stock, name: str) -> None:
    at = make(stock, name, OWNER)
    absent = _absent(at.path.replace(f"/{OWNER}", f"/{uuid.uuid4()}"))
    if name == "flavor_service_profile":
        # All may see the flavor.
        absent = f"{at.path.rpartition('/')[0]}/{uuid.uuid4()}"
    if name == "network_segment_range":
        stock.admin("DELETE", f"/v2.0/{at.path}")
        at = make(stock, name, "nobody")
    for method, rest, body in _requests(stock, name, at):
        status, text = answers(stock, method, at.path + rest, absent + rest, body)
        # A project's own by its name: there is one of every project, so refusing tells nothing.
        want = {403, 404} if name in NAMED or (method == "POST" and "Not" in text) else {404}
        assert status in want, f"{method} {at.path}{rest}: {status} {text}"
    if name == "network_segment_range":
        stock.admin("DELETE", f"/v2.0/{at.path}")


@pytest.mark.parametrize("name", [name for name in HIDDEN if name not in NAMED and name not in ("agent",)])
def test_what_is_hidden_is_in_no_list(stock: Stock, name: str) -> None:
    at = make(stock, name, "nobody" if name == "network_segment_range" else OWNER)
    listed, _, id = at.path.rpartition("/")
    kind = NAMES[name].kind
    asked = [f"{listed}{query}" for query in ("", "?limit=1000", "?fields=id")]
    asked += [f"{listed}?id={id}"] if "id" in kind.attributes else []
    asked += [f"{listed}?project_id={OWNER}"] if "project_id" in kind.names else []
    for path in asked:
        status, text = stock.ask(OTHER, ROLE, "GET", path)
        assert status in (200, 404), f"{path}: {text}"
        assert id not in text, path
    if kind.table in ("port", "network") and "id" in kind.attributes:
        answers(stock, "GET", f"{listed}?limit=1&marker={id}", f"{listed}?limit=1&marker={uuid.uuid4()}")
    if name == "network_segment_range":
        stock.admin("DELETE", f"/v2.0/{at.path}")


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, one in NAMES.items()
        if "_" in name and one.kind.parent and one not in (NAMES["subnet"], NAMES["port"])
    ],
)
def test_what_is_hidden_is_not_below_ones_own(stock: Stock, name: str) -> None:
    hidden, mine = make(stock, name, OWNER), make(stock, name, OTHER)
    path = f"{mine.path.rpartition('/')[0]}/{hidden.id}"
    for method, rest, body in _requests(stock, name, hidden):
        status, text = answers(stock, method, path + rest, f"{mine.path.rpartition('/')[0]}/{uuid.uuid4()}{rest}", body)
        assert status == 404, f"{method} {path}{rest}: {status} {text}"


# ---- what is hidden may not be referred to: who refers, by which attribute, to what, and how one asks


Asked = tuple[str, str, dict[str, Any]]


def _post(path: str, wire: str, **body: Any) -> Callable[[Stock, str], Asked]:
    """Make something that refers to it; of *body*, what can be called is made first."""

    def asked(stock: Stock, id: str) -> Asked:
        return "POST", path, {wire: _filled(stock, body, id)}

    return asked


def _put(name: str, **body: Any) -> Callable[[Stock, str], Asked]:
    """Have something of one's own refer to it."""

    def asked(stock: Stock, id: str) -> Asked:
        return "PUT", make(stock, name, OTHER).path, {wire(name): _filled(stock, body, id)}

    return asked


def _act(name: str, action: str, body: Callable[[str], dict[str, Any]]) -> Callable[[Stock, str], Asked]:
    return lambda stock, id: ("PUT", f"{make(stock, name, OTHER).path}/{action}", body(id))


def _filled(stock: Stock, body: Any, id: str) -> Any:
    if body == "HIDDEN":
        return id
    if isinstance(body, dict):
        return {key: _filled(stock, value, id) for key, value in body.items()}
    if isinstance(body, list):
        return [_filled(stock, value, id) for value in body]
    return body(stock) if callable(body) else body


def _network(stock: Stock) -> str:
    return stock.network(OTHER)


def _group(stock: Stock) -> str:
    return stock.group(OTHER)


def _public(stock: Stock) -> str:
    return stock.public


def _router6(stock: Stock) -> str:
    return stock.joined(OTHER, 6, enable_ndp_proxy=True)[1]


def _port(stock: Stock) -> str:
    return stock.port_with_address(OTHER)


X: Any = "HIDDEN"
SUB = {"port_id": X, "segmentation_type": "vlan", "segmentation_id": 7}
REFERENCES: list[tuple[str, str, Callable[[Stock, str], Asked]]] = [
    ("subnet.network_id", "network", _post("subnets", "subnet", network_id=X, ip_version=4, cidr="10.0.0.0/24")),
    ("port.network_id", "network", _post("ports", "port", network_id=X)),
    ("router.external_gateway_info", "network", _post("routers", "router", external_gateway_info={"network_id": X})),
    ("router.external_gateway_info", "network", _put("router", external_gateway_info={"network_id": X})),
    (
        "router.add_external_gateways",
        "network",
        _act("router", "add_external_gateways", lambda id: {"router": {"external_gateways": [{"network_id": id}]}}),
    ),
    ("floatingip.floating_network_id", "network", _post("floatingips", "floatingip", floating_network_id=X)),
    ("local_ip.network_id", "network", _post("local_ips", "local_ip", network_id=X)),
    (
        "subnetpool.onboard_network_subnets",
        "network",
        _act("subnetpool", "onboard_network_subnets", lambda id: {"network_id": id}),
    ),
    ("segment.network_id", "network", _post("segments", "segment", network_id=X, network_type="vxlan")),
    ("port.fixed_ips", "subnet", _post("ports", "port", network_id=_network, fixed_ips=[{"subnet_id": X}])),
    ("port.fixed_ips", "subnet", _put("port", fixed_ips=[{"subnet_id": X}])),
    ("router.add_router_interface", "subnet", _act("router", "add_router_interface", lambda id: {"subnet_id": id})),
    (
        "router.remove_router_interface",
        "subnet",
        _act("router", "remove_router_interface", lambda id: {"subnet_id": id}),
    ),
    (
        "floatingip.subnet_id",
        "subnet",
        _post("floatingips", "floatingip", floating_network_id=_public, subnet_id=X),
    ),
    ("router.add_router_interface", "port", _act("router", "add_router_interface", lambda id: {"port_id": id})),
    ("router.remove_router_interface", "port", _act("router", "remove_router_interface", lambda id: {"port_id": id})),
    ("floatingip.port_id", "port", _post("floatingips", "floatingip", floating_network_id=_public, port_id=X)),
    ("floatingip.port_id", "port", _put("floatingip", port_id=X)),
    (
        "port_forwarding.internal_port_id",
        "port",
        lambda stock, id: (
            "POST",
            f"floatingips/{stock.floatingip(OTHER)}/port_forwardings",
            {
                "port_forwarding": {
                    "internal_port_id": id,
                    "internal_ip_address": "10.0.0.9",
                    "internal_port": 80,
                    "external_port": 80,
                    "protocol": "tcp",
                }
            },
        ),
    ),
    ("port_forwarding.internal_port_id", "port", _put("floatingip_port_forwarding", internal_port_id=X)),
    ("trunk.port_id", "port", _post("trunks", "trunk", port_id=X)),
    ("trunk.sub_ports", "port", _post("trunks", "trunk", port_id=_port, sub_ports=[SUB])),
    ("trunk.add_subports", "port", _act("trunk", "add_subports", lambda id: {"sub_ports": [{**SUB, "port_id": id}]})),
    ("trunk.remove_subports", "port", _act("trunk", "remove_subports", lambda id: {"sub_ports": [{"port_id": id}]})),
    ("local_ip.local_port_id", "port", _post("local_ips", "local_ip", local_port_id=X)),
    (
        "port_association.fixed_port_id",
        "port",
        lambda stock, id: (
            "POST",
            f"{make(stock, 'local_ip', OTHER).path}/port_associations",
            {"port_association": {"fixed_port_id": id}},
        ),
    ),
    ("ndp_proxy.port_id", "port", _post("ndp_proxies", "ndp_proxy", router_id=_router6, port_id=X)),
    ("log.target_id", "port", _post("log/logs", "log", resource_type="security_group", target_id=X)),
    ("ndp_proxy.router_id", "router", _post("ndp_proxies", "ndp_proxy", router_id=X, port_id=_port)),
    (
        "floatingip.router_id",
        "router",
        _post("floatingips", "floatingip", floating_network_id=_public, port_id=_port, router_id=X),
    ),
    ("floatingip.router_id", "router", _put("floatingip", port_id=_port, router_id=X)),
    ("port.security_groups", "security_group", _post("ports", "port", network_id=_network, security_groups=[X])),
    ("port.security_groups", "security_group", _put("port", security_groups=[X])),
    (
        "security_group_rule.security_group_id",
        "security_group",
        _post("security-group-rules", "security_group_rule", security_group_id=X, direction="ingress"),
    ),
    (
        "security_group_rule.remote_group_id",
        "security_group",
        _post(
            "security-group-rules",
            "security_group_rule",
            security_group_id=_group,
            direction="ingress",
            remote_group_id=X,
        ),
    ),
    ("log.resource_id", "security_group", _post("log/logs", "log", resource_type="security_group", resource_id=X)),
    (
        "default_security_group_rule.remote_group_id",
        "security_group",
        _post("default-security-group-rules", "default_security_group_rule", direction="ingress", remote_group_id=X),
    ),
    (
        "default_security_group_rule.remote_address_group_id",
        "address_group",
        _post(
            "default-security-group-rules",
            "default_security_group_rule",
            direction="ingress",
            remote_address_group_id=X,
        ),
    ),
    (
        "security_group_rule.remote_address_group_id",
        "address_group",
        _post(
            "security-group-rules",
            "security_group_rule",
            security_group_id=_group,
            direction="ingress",
            remote_address_group_id=X,
        ),
    ),
    (
        "subnetpool.address_scope_id",
        "address_scope",
        _post(
            "subnetpools",
            "subnetpool",
            name="p",
            prefixes=["203.0.113.0/24"],
            default_prefixlen=28,
            address_scope_id=X,
        ),
    ),
    ("subnetpool.address_scope_id", "address_scope", _put("subnetpool", address_scope_id=X)),
    (
        "subnet.subnetpool_id",
        "subnetpool",
        _post("subnets", "subnet", network_id=_network, ip_version=4, prefixlen=28, subnetpool_id=X),
    ),
    ("network.qos_policy_id", "policy", _post("networks", "network", qos_policy_id=X)),
    ("network.qos_policy_id", "policy", _put("network", qos_policy_id=X)),
    ("port.qos_policy_id", "policy", _post("ports", "port", network_id=_network, qos_policy_id=X)),
    ("port.qos_policy_id", "policy", _put("port", qos_policy_id=X)),
    (
        "floatingip.qos_policy_id",
        "policy",
        _post("floatingips", "floatingip", floating_network_id=_public, qos_policy_id=X),
    ),
    ("floatingip.qos_policy_id", "policy", _put("floatingip", qos_policy_id=X)),
    (
        "router.external_gateway_info",
        "policy",
        _post("routers", "router", external_gateway_info={"network_id": _public, "qos_policy_id": X}),
    ),
    (
        "metering_label_rule.metering_label_id",
        "metering_label",
        _post(
            "metering/metering-label-rules",
            "metering_label_rule",
            metering_label_id=X,
            direction="ingress",
            remote_ip_prefix="10.0.0.0/8",
        ),
    ),
    *(
        (
            "rbac_policy.object_id",
            name,
            _post(
                "rbac-policies",
                "rbac_policy",
                object_type=type,
                object_id=X,
                action="access_as_shared",
                target_tenant="bob",
            ),
        )
        for name, type in (
            ("network", "network"),
            ("security_group", "security_group"),
            ("subnetpool", "subnetpool"),
            ("address_scope", "address_scope"),
            ("address_group", "address_group"),
            ("policy", "qos_policy"),
        )
    ),
]
# Ids that name what all may see, or only what admins have.
OF_ALL = {"router.flavor_id", "service_profile.service_profile_id", "subnet.segment_id"}


@pytest.mark.parametrize(
    ("name", "asked"),
    [(name, asked) for _, name, asked in REFERENCES],
    ids=[f"{attribute}-{name}-{n}" for n, (attribute, name, _) in enumerate(REFERENCES)],
)
def test_nobody_refers_to_what_is_hidden(stock: Stock, name: str, asked: Callable[[Stock, str], Asked]) -> None:
    hidden = make(stock, name, OWNER).id
    method, path, body = asked(stock, hidden)
    found = []
    for id in (hidden, str(uuid.uuid4())):
        status, text = stock.ask(OTHER, ROLE, method, path, _instead(body, hidden, id))
        found.append((status, ID.sub("ID", text)))
    assert found[0] == found[1]
    assert found[0][0] in (400, 403, 404, 409), found[0]


def _instead(body: Any, old: str, new: str) -> Any:
    if isinstance(body, dict):
        return {key: _instead(value, old, new) for key, value in body.items()}
    if isinstance(body, list):
        return [_instead(value, old, new) for value in body]
    return new if body == old else body


def test_every_attribute_that_names_another_object_is_tried() -> None:
    tried = {attribute for attribute, _, _ in REFERENCES}
    for collection in every():
        kind = collection.kind
        for name, declared in kind.attributes.items():
            refers = name.endswith("_id") and ":" not in name and name not in ("project_id", "device_id")
            if refers and (declared.post or declared.put) and kind.name != "segment":
                assert f"{kind.name}.{name}" in tried | OF_ALL


# By kind: how a project uses what is shared with it.
USE: dict[str, Callable[[Stock, str], object]] = {
    "network": lambda stock, id: stock.port(FRIEND, id),
    "security_group": lambda stock, id: stock.port(FRIEND, security_groups=[id]),
    "address_scope": lambda stock, id: stock.new(
        "subnetpools", "subnetpool", {**MAKE["subnetpool"](stock, FRIEND)[1], "address_scope_id": id}, FRIEND
    ),
    "subnetpool": lambda stock, id: stock.new(
        "subnets", "subnet", {"network_id": stock.network(FRIEND), "ip_version": 4, "subnetpool_id": id}, FRIEND
    ),
    "address_group": lambda stock, id: stock.new(
        "security-group-rules",
        "security_group_rule",
        {"security_group_id": stock.group(FRIEND), "direction": "ingress", "remote_address_group_id": id},
        FRIEND,
    ),
    "policy": lambda stock, id: stock.new("networks", "network", {"qos_policy_id": id}, FRIEND),
}


@pytest.mark.parametrize("name", SHARED)
def test_a_conflict_does_not_name_who_stands_in_the_way(stock: Stock, name: str) -> None:
    at, shared = make(stock, name, OWNER), {"object_type": SHARED[name][1], "action": "access_as_shared"}
    shared |= {"object_id": at.id, "target_tenant": FRIEND}
    policy = stock.new("rbac-policies", "rbac_policy", shared, OWNER)
    USE[name](stock, at.id)
    for path in (at.path, f"rbac-policies/{policy}"):
        status, text = stock.ask(OWNER, ROLE, "DELETE", path)
        assert status in (400, 409), text
        named = set(ID.findall(text)) - {at.id, policy}
        assert FRIEND not in text
        assert all(stock.ask(OWNER, ROLE, "GET", f"ports/{id}")[0] == 200 for id in named), text
