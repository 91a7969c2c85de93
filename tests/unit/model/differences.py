# ruff: noqa: E501
"""Where the API is not as Neutron 29 has it, and why; `scripts/reference` makes docs/reference/neutron.md of it.

`test_facts.py` compares every declaration with the facts: what differs and does not stand here
fails, and what stands here and does not differ fails too.
"""

from __future__ import annotations

from typing import Any

PAGE = """
# Where it is not as Neutron has it

Every resource, attribute, flag, default, kind of validation and extension of Neutron 29 is held against the declarations by `tests/unit/model/test_facts.py`; what differs stands here, and nothing else does.
Who may do what is on [a page of its own](policy.md), with its differences.

In general:

- Lists are filtered and sorted by every attribute that is text, a number, true or false; Neutron refuses some.
- `null` stands for nothing wherever an empty list does.
- `project_id` and `tenant_id` are both taken and told wherever one is.
- Names may have any printable characters, also those beyond the basic plane of Unicode; those of security groups may be any text, as in Neutron.
- Who says of an attribute what it is anyway needs no right to change it; of one that the caller may not see only null and what else is nothing may be said so.
- What can never be right is refused at once, before it is looked whether what it refers to is there.
- The gateway of an IPv6 subnet is its first address after the one that is all routers' (`fd00::1` of `fd00::/64`, where Neutron takes `fd00::`), unless `gateway_ip` says so.
- A port of a router, and what it is of, is changed through the router alone: `device_id`, `device_owner` and DELETE are refused with 409 where Neutron lets them be changed.
- Bindings to several hosts are for every port, not only for those of virtual machines.
- Lists of anything with times take `changed_since`.
- What groups are by default is a `security_group_default_statefulness`, as the SDK has it; Neutron fails on that body, and on its own.
- `marker` without `limit` is the place where the list begins; Neutron takes no notice of it.
- `sort_dir` may be left out for each of several `sort_key`s.
- A gateway outside of its subnet's prefix is taken, and hosts reach it by a route on the link, as DHCP clients do; a host route whose next hop is not on the link is taken too, and workloads do without it.
- A host route to everywhere counts where the subnet has no gateway: the gateway wins, as in Neutron's DHCP agent. DHCP tells clients so in the option of classless routes (121) too, since clients that take it look at no other (RFC 3442).
- Several extra routes of a router to one destination are used all, by source and destination, up to 16 of them; a next hop that no port has is passed over.
- HEAD answers as GET does; what is not possible on a collection is 405, where Neutron says 404 of some.
"""

SAID = {
    ("there", True): "there",
    ("there", False): "not there",
    ("post", False): "POST does not take it",
    ("put", False): "PUT does not take it",
    ("visible", True): "told",
    ("required", True): "must be said",
    ("required", False): "need not be said",
    ("sort", False): "no sort key",
    ("takes", None): "takes",
    ("refuses", None): "refuses",
}

# RESOURCE, ATTRIBUTE, WHAT: how it is here, and why. WHAT is "there" (whether there is such an
# attribute), "post", "put", "visible", "filter", "sort", "required", "default", or "takes" and
# "refuses" with values that Neutron does not take, or does.
Different = dict[tuple[str, str, str], tuple[Any, str]]

PREFIX_LENGTH = "No prefix is longer than 128; Neutron refuses it too, one step later."
NULL = "null says what leaving it out says."
TYPES = (
    "There are flat, vlan and vxlan: what tenants see of gre, geneve and local is the same network, and of any other "
    "name Neutron says 400 too, one step later."
)
WORDS: list[Any] = ["", "é", "a b"]
PAIR: list[Any] = [" a ", "a\nb"]
ALIAS = "Neutron's server answers without it too."
MULTIHOMING = "Of the extensions for several gateways, which are served besides."
PLURAL = "`fields`, POST and PUT say nothing of it: it is a word of GET alone."

DIFFERENT: Different = {
    ("alias_bandwidth_limit_rules", "tenant_id", "there"): (False, ALIAS),
    ("alias_dscp_marking_rules", "tenant_id", "there"): (False, ALIAS),
    ("alias_minimum_bandwidth_rules", "tenant_id", "there"): (False, ALIAS),
    ("auto_allocated_topologies", "network_id", "there"): (True, "The id says the same."),
    ("default_security_group_rules", "description", "put"): (
        False,
        "There is no PUT; Neutron's has nothing that it takes.",
    ),
    ("default_security_group_rules", "used_in_default_sg", "required"): (False, "It is false where nothing is said."),
    ("default_security_group_rules", "used_in_non_default_sg", "required"): (
        False,
        "It is true where nothing is said, as the API reference has it.",
    ),
    ("floatingips/port_forwardings", "internal_ip_address", "required"): (
        False,
        "A port with one IPv4 address needs no word of it.",
    ),
    ("local_ips/port_associations", "host", "sort"): (False, "It is the port's, and changes with it."),
    ("metering_label_rules", "source_ip_prefix", "put"): (False, "There is no PUT; Neutron answers 501."),
    ("metering_label_rules", "destination_ip_prefix", "put"): (False, "There is no PUT; Neutron answers 501."),
    ("network_segment_ranges", "minimum", "refuses"): (
        [4294967295, "4294967295"],
        "No VLAN or VNI is so large; Neutron answers 500.",
    ),
    ("network_segment_ranges", "maximum", "refuses"): (
        [4294967295, "4294967295"],
        "No VLAN or VNI is so large; Neutron answers 500.",
    ),
    ("network_segment_ranges", "network_type", "refuses"): (["gre", "geneve"], TYPES),
    ("network_segment_ranges", "network_type", "required"): (
        True,
        "A range is of a type; without one Neutron says 400.",
    ),
    ("network_segment_ranges", "physical_network", "takes"): ([None], NULL),
    ("networks", "mtu", "refuses"): ([1048576, "1048576"], "No link carries it; Neutron says 400 too, one step later."),
    ("networks", "provider:network_type", "refuses"): ([*WORDS, "x" * 32, *PAIR], TYPES),
    ("networks", "provider:physical_network", "takes"): ([None], NULL),
    ("ports/bindings", "host", "put"): (False, "The host stands in the path: another host is another binding."),
    ("rbac_policies", "action", "refuses"): (
        [*WORDS, "x" * 255, *PAIR],
        "There are access_as_shared and access_as_external; of others Neutron says 400 too, one step later.",
    ),
    ("rbac_policies", "object_type", "required"): (True, "Without one Neutron answers 500."),
    ("rbac_policies", "target_tenant", "takes"): (["", "x"], "Projects of a password file have names, not UUIDs."),
    ("routers", "enable_default_route_bfd", "there"): (True, MULTIHOMING),
    ("routers", "enable_default_route_ecmp", "there"): (True, MULTIHOMING),
    ("routers", "external_gateways", "there"): (True, MULTIHOMING),
    ("rule_types", "all_rules", "post"): (False, PLURAL),
    ("rule_types", "all_rules", "put"): (False, PLURAL),
    ("rule_types", "all_supported", "post"): (False, PLURAL),
    ("rule_types", "all_supported", "put"): (False, PLURAL),
    ("rule_types", "drivers", "there"): (False, "GET of one type tells them, to admins, as Neutron does."),
    ("segments", "network_type", "refuses"): ([*WORDS, "x" * 32, *PAIR], TYPES),
    ("segments", "physical_network", "takes"): ([None], NULL),
    ("service_profiles", "flavors", "there"): (True, "Which flavors use it is told."),
    ("subnetpools", "default_prefixlen", "refuses"): ([1048576, "1048576"], PREFIX_LENGTH),
    ("subnetpools", "min_prefixlen", "refuses"): ([1048576, "1048576"], PREFIX_LENGTH),
    ("subnetpools", "max_prefixlen", "refuses"): ([1048576, "1048576"], PREFIX_LENGTH),
    ("subnetpools", "default_quota", "takes"): ([None], "null takes the quota away."),
    ("subnets", "prefixlen", "refuses"): ([1048576, "1048576"], PREFIX_LENGTH),
    ("quotas", "address_group", "there"): (True, "Address groups have a quota too."),
    ("quotas", "address_scope", "there"): (True, "Address scopes have a quota too."),
    ("quotas", "policy_row", "there"): (True, "What a project's rules take of the tables of a host has a quota."),
    ("quotas", "project_id", "there"): (True, "Whose quota it is is told, which a list needs."),
    ("quotas", "tenant_id", "there"): (True, "Whose quota it is is told, which a list needs."),
}

# Collections: whether Neutron has it and not we, and why.
NOT_SERVED: dict[str, tuple[bool, str]] = {}

# Extensions that Neutron 29 reports and we do not announce.
NOT_ANNOUNCED = {
    "agent-resources-synced": "Nothing is told to Placement.",
    "dhcp_agent_scheduler": "There is no DHCP agent to schedule: each host answers its own ports.",
    "l3_agent_scheduler": "There is no L3 agent to schedule: each host routes for its own ports.",
    "segments-peer-subnet-host-routes": (
        "Hosts carry the first segment of a network, so no subnet has peers on other segments to route to."
    ),
}

# Extensions that we announce and this Neutron, with its Open vSwitch driver, does not report.
ANNOUNCED_BESIDES = {
    "enable-default-route-bfd": "A flag of routers with several gateways.",
    "enable-default-route-ecmp": "A flag of routers with several gateways.",
    "external-gateway-multihoming": "Routers may have several gateways.",
    "sort-key-validation": "A sort_key that there is not is refused.",
}

SERVICE = "Another service of OpenStack, not Neutron's own server"
CORE = "What every server has; Neutron does not report it either"
DRIVER = "Of other drivers of Neutron, not of its reference"
# Extensions that neutron-lib 5 knows and neither this Neutron reports nor we announce, and of what they are.
NOT_ANNOUNCED_THERE = {
    **dict.fromkeys(("network", "port", "subnet", "subnetpool"), CORE),
    **dict.fromkeys(("bgp", "bgp_4byte_asn", "bgp_dragent_scheduler"), f"{SERVICE}: dynamic routing"),
    **dict.fromkeys(
        (
            "bgpvpn",
            "bgpvpn-routes-control",
            "bgpvpn-vni",
            "rbac-bgpvpn",
            "standard-attr-bgpvpn",
            "standard-attr-bgpvpn-network-association",
            "standard-attr-bgpvpn-port-association",
            "standard-attr-bgpvpn-router-association",
        ),
        f"{SERVICE}: BGP VPN",
    ),
    **dict.fromkeys(("fwaas_v2", "standard-attr-fwaas-v2"), f"{SERVICE}: firewalls"),
    **dict.fromkeys(("flow_classifier", "sfc"), f"{SERVICE}: service function chaining"),
    **dict.fromkeys(
        ("taas", "taas-vlan-filter", "tap-mirror", "tap-mirror-both-direction"), f"{SERVICE}: tap as a service"
    ),
    **dict.fromkeys(
        (
            "vpn-aes-ccm-gcm",
            "vpn-aes-ctr",
            "vpn-endpoint-groups",
            "vpn-flavors",
            "vpn-no-sha1-3des",
            "vpnaas",
        ),
        f"{SERVICE}: VPN",
    ),
    **dict.fromkeys(
        (
            "dns-integration-domain-keywords",
            "ecmp_routes",
            "evpn",
            "floating-ip-distributed",
            "floatingip-autodelete-internal",
            "l3-agent-scheduler-ha-chassis-priority",
            "network-cascade-delete",
            "ovn-bgp",
            "project-default-networks",
            "pvlan",
            "qinq",
            "qos-fip-network-policy",
            "router-enable-snat",
            "router-service-type",
            "security-groups-name-restrictions",
            "subnet-segmentid-enforce",
            "vlan-transparent",
        ),
        DRIVER,
    ),
}
