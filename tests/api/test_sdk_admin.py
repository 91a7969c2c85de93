"""What operators set for others, through the stock SDK: quotas, QoS, metering, what groups begin with."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import openstack
import pytest
from openstack import exceptions
from openstack.network.v2._proxy import Proxy

from servers import Api, Server

# The SDK warns of what it will drop itself.
pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")


@pytest.fixture(scope="module")
def sdk(shared: Server) -> Iterator[Proxy]:
    with openstack.connect(
        auth_type="none", auth={"endpoint": shared.url}, load_yaml_config=False, load_envvars=False
    ) as cloud:
        yield cloud.network


@pytest.fixture
def project() -> str:
    return f"project-{uuid.uuid4().hex[:8]}"


def test_quotas(sdk: Proxy, project: str) -> None:
    assert sdk.get_quota(project).networks == -1
    assert sdk.update_quota(project, networks=1, ports=7).ports == 7
    assert sdk.get_quota(project).networks == 1
    assert sdk.get_quota_default(project).networks == -1
    assert [quota.project_id for quota in sdk.quotas() if quota.project_id == project] == [project]
    network = sdk.create_network(project_id=project)
    assert sdk.get_quota(project, details=True).networks == {"limit": 1, "used": 1, "reserved": 0}
    with pytest.raises(exceptions.ConflictException, match="Quota exceeded for resources"):
        sdk.create_network(project_id=project)
    with pytest.raises(exceptions.BadRequestException, match="greater than or equal to already used 1"):
        sdk.update_quota(project, networks=0)
    sdk.delete_network(network)
    sdk.delete_quota(project)
    assert sdk.get_quota(project).networks == -1


def test_quotas_beside_the_sdk(api: Api, project: str) -> None:
    told = api("GET", f"/v2.0/quotas/{project}/details.json")["quota"]
    assert told["port"] == {"limit": -1, "used": 0, "reserved": 0}
    assert api("GET", "/v2.0/quotas/tenant") == {"tenant": {"tenant_id": "admin"}}
    assert api("GET", "/v2.0/quotas/project") == {"project": {"project_id": "admin"}}
    assert api("GET", f"/v2.0/quotas/{project}?fields=port") == {"quota": {"port": -1}}
    assert "networks" in api.error("PUT", f"/v2.0/quotas/{project}", {"quota": {"networks": 1}}, want=400)["message"]
    assert api.error("DELETE", f"/v2.0/quotas/{project}", want=404)["type"] == "TenantQuotaNotFound"
    mine = {"X-Project-Id": project, "X-Roles": "member"}
    assert api("GET", f"/v2.0/quotas/{project}", headers=mine)["quota"]["port"] == -1
    body = {"quota": {"port": 1}}
    for method, path, sent in (
        ("GET", "/v2.0/quotas", None),
        ("GET", "/v2.0/quotas/other", None),
        ("GET", "/v2.0/quotas/other/default", None),
        ("PUT", f"/v2.0/quotas/{project}", body),
        ("DELETE", f"/v2.0/quotas/{project}", None),
    ):
        assert api.error(method, path, sent, want=403, headers=mine)["type"] == "PolicyNotAuthorized"


def test_qos_policies(sdk: Proxy, project: str) -> None:
    policy = sdk.create_qos_policy(name="gold", is_shared=True, project_id=project, description="d")
    assert (policy.is_shared, policy.is_default, policy.rules) == (True, False, [])
    limit = sdk.create_qos_bandwidth_limit_rule(policy, max_kbps=1000, max_burst_kbps=100, direction="ingress")
    mark = sdk.create_qos_dscp_marking_rule(policy, dscp_mark=26)
    sdk.create_qos_minimum_bandwidth_rule(policy, min_kbps=500)
    sdk.create_qos_minimum_packet_rate_rule(policy, min_kpps=5, direction="any")
    sdk.create_qos_packet_rate_limit_rule(policy, max_kpps=50)
    assert sdk.update_qos_bandwidth_limit_rule(limit, policy, max_kbps=2000).max_kbps == 2000
    assert sdk.get_qos_bandwidth_limit_rule(limit, policy).direction == "ingress"
    assert [rule.id for rule in sdk.qos_dscp_marking_rules(policy)] == [mark.id]
    with pytest.raises(exceptions.ConflictException, match="already exists in QoS Policy"):
        sdk.create_qos_dscp_marking_rule(policy, dscp_mark=0)
    sdk.delete_qos_dscp_marking_rule(mark, policy)
    assert {rule["type"] for rule in sdk.get_qos_policy(policy).rules} == {
        "bandwidth_limit",
        "minimum_bandwidth",
        "minimum_packet_rate",
        "packet_rate_limit",
    }
    sdk.set_tags(policy, ["a"])
    assert sdk.get_qos_policy(policy).tags == ["a"]
    assert [found.id for found in sdk.qos_policies(tags="a", project_id=project)] == [policy.id]
    found = sdk.find_qos_policy("gold", project_id=project)
    assert found
    assert found.id == policy.id
    assert sdk.update_qos_policy(policy, is_shared=False, name="lead").is_shared is False
    sdk.delete_qos_policy(policy)
    assert not list(sdk.qos_policies(project_id=project))


def test_qos_rules_by_their_own_ids(api: Api) -> None:
    policy = api("POST", "/v2.0/qos/policies", {"policy": {}})["policy"]["id"]
    body: dict[str, Any] = {"bandwidth_limit_rule": {"max_kbps": 10}}
    rule = api("POST", f"/v2.0/qos/policies/{policy}/bandwidth_limit_rules", body)["bandwidth_limit_rule"]
    assert rule == {"id": rule["id"], "max_kbps": 10, "max_burst_kbps": 0, "direction": "egress"}
    path = f"/v2.0/qos/alias_bandwidth_limit_rules/{rule['id']}"
    assert api("GET", path.replace("_", "-", 3))["alias_bandwidth_limit_rule"] == rule
    changed = api("PUT", path, {"alias_bandwidth_limit_rule": {"max_kbps": 11}})["alias_bandwidth_limit_rule"]
    assert changed == {**rule, "max_kbps": 11}
    assert api("GET", f"/v2.0/qos/policies/{policy}")["policy"]["rules"][0]["max_kbps"] == 11
    api("DELETE", path)
    assert api.error("GET", path, want=404)["type"] == "QosRuleNotFound"
    other = api("POST", "/v2.0/qos/policies", {"policy": {}})["policy"]["id"]
    rule = api("POST", f"/v2.0/qos/policies/{policy}/bandwidth_limit_rules", body)["bandwidth_limit_rule"]
    wrong = f"/v2.0/qos/policies/{other}/bandwidth_limit_rules/{rule['id']}"
    assert api.error("GET", wrong, want=404)["type"] == "QosRuleNotFound"
    for one in (policy, other):
        api("DELETE", f"/v2.0/qos/policies/{one}")


def test_qos_rule_types(sdk: Proxy, api: Api) -> None:
    types = {"bandwidth_limit", "dscp_marking", "minimum_bandwidth", "minimum_packet_rate", "packet_rate_limit"}
    assert {found.type for found in sdk.qos_rule_types()} == types
    assert api("GET", "/v2.0/qos/rule-types?all_supported=true")["rule_types"] == [{"type": t} for t in sorted(types)]
    (driver,) = sdk.get_qos_rule_type("dscp_marking").drivers
    assert driver["name"] == "crossway"
    assert driver["supported_parameters"][0]["parameter_values"][1] == 8
    assert api.error("GET", "/v2.0/qos/rule-types/none", want=404)["type"] == "RuleTypeNotFound"
    reader = {"X-Project-Id": "x", "X-Roles": "reader"}
    assert len(api("GET", "/v2.0/qos/rule-types", headers=reader)["rule_types"]) == len(types)
    api.error("GET", "/v2.0/qos/rule-types/dscp_marking", want=403, headers=reader)


@pytest.mark.filterwarnings("ignore:The field 'remote_ip_prefix'")
def test_metering(sdk: Proxy, project: str) -> None:
    label = sdk.create_metering_label(name="m", description="d", project_id=project)
    assert (label.is_shared, label.project_id) == (False, project)
    rule = sdk.create_metering_label_rule(
        metering_label_id=label.id, direction="ingress", remote_ip_prefix="10.0.0.0/24"
    )
    assert (rule.is_excluded, rule.remote_ip_prefix) == (False, "10.0.0.0/24")
    with pytest.raises(exceptions.ConflictException, match="overlaps another"):
        sdk.create_metering_label_rule(metering_label_id=label.id, direction="ingress", remote_ip_prefix="10.0.0.0/25")
    assert [found.id for found in sdk.metering_label_rules(metering_label_id=label.id)] == [rule.id]
    assert not list(sdk.metering_labels(id="33"))
    sdk.delete_metering_label_rule(rule)
    sdk.delete_metering_label(label)
    assert sdk.find_metering_label("m", project_id=project) is None


def test_rules_that_groups_begin_with(sdk: Proxy, project: str) -> None:
    first = [rule for rule in sdk.default_security_group_rules() if rule.remote_group_id == "PARENT"]
    assert {rule.ether_type for rule in first} == {"IPv4", "IPv6"}
    made = sdk.create_default_security_group_rule(
        direction="ingress", protocol="tcp", port_range_min=22, port_range_max=22, description="ssh"
    )
    assert (made.used_in_default_sg, made.used_in_non_default_sg) == (False, True)
    assert sdk.get_default_security_group_rule(made).description == "ssh"
    assert [r.id for r in sdk.default_security_group_rules(protocol="tcp", used_in_non_default_sg=True)] == [made.id]
    group = sdk.create_security_group(name="g", project_id=project)
    assert ("ingress", 22) in {(rule["direction"], rule["port_range_min"]) for rule in group.security_group_rules}
    (default,) = sdk.security_groups(project_id=project, name="default")
    assert len(default.security_group_rules) == 4
    sdk.delete_default_security_group_rule(made)
    sdk.delete_security_group(group)


def test_asking_for_a_projects_groups_makes_its_default_one(sdk: Proxy, project: str) -> None:
    assert [group.name for group in sdk.security_groups(project_id=project)] == ["default"]


def test_logs(api: Api) -> None:
    assert api("GET", "/v2.0/log/loggable-resources") == {"loggable_resources": [{"type": "security_group"}]}
    group = api.make("security_group", name="logged")["id"]
    body = {"log": {"resource_type": "security_group", "resource_id": group, "name": "l"}}
    log = api("POST", "/v2.0/log/logs", body)["log"]
    assert (log["event"], log["enabled"], log["target_id"]) == ("ALL", True, None)
    assert [one["id"] for one in api("GET", f"/v2.0/log/logs?resource_id={group}")["logs"]] == [log["id"]]
    assert api("PUT", f"/v2.0/log/logs/{log['id']}", {"log": {"enabled": False}})["log"]["enabled"] is False
    assert "event" in api.error("PUT", f"/v2.0/log/logs/{log['id']}", {"log": {"event": "DROP"}}, want=400)["message"]
    api("DELETE", f"/v2.0/security-groups/{group}")
    assert api.error("GET", f"/v2.0/log/logs/{log['id']}", want=404)["type"] == "LogResourceNotFound"


def test_what_groups_are_by_default(api: Api, project: str) -> None:
    name = "security_group_default_statefulness"
    path, plural = "/v2.0/security-groups-default-statefulness", "security_groups_default_statefulness"
    made = api("POST", path, {name: {"project_id": project, "stateful": False}})[name]
    assert made == {"id": made["id"], "project_id": project, "tenant_id": project, "stateful": False}
    assert api("GET", f"{path}?project_id={project}")[plural] == [made]
    body = {"security_group": {"name": "g", "project_id": project}}
    assert api("POST", "/v2.0/security-groups", body)["security_group"]["stateful"] is False
    assert api("PUT", f"{path}/{made['id']}", {name: {"stateful": True}})[name]["stateful"] is True
    api("DELETE", f"{path}/{made['id']}")
