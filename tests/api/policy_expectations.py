"""Who may do what, by Neutron's default policies (its `neutron/conf/policies`), written down by hand.

Nothing here is read off Crossway's declarations. A line is an operation and the
reasons for which a caller who is no admin may do it, one of which is enough:

    own ROLE          has the role in the project of the object, or of what is made
    parent ROLE       has the role in the project of the network, group, policy … that it belongs to
    shared            reads for a project with which the object is shared (or an external network is)
    parent shared     is a member of a project with which its parent is shared
    any               reads for any project
    service           has the role service
    integrator        has the role data_plane_integrator

    admin             nobody else

A manager is a member, and a member a reader. DIFFERENT has
those where Crossway is meant to be otherwise than Neutron, and why.
"""

from __future__ import annotations


def _read(text: str) -> dict[str, frozenset[str]]:
    expected: dict[str, frozenset[str]] = {}
    for line in text.strip().splitlines():
        operation, _, reasons = line.partition(" = ")
        assert operation.strip() not in expected, operation
        expected[operation.strip()] = frozenset(reason.strip() for reason in reasons.split(",") if reason.strip())
    return expected


EXPECTED = _read("""
create_network = own member
create_network:shared = admin
create_network:router:external = admin
create_network:is_default = admin
create_network:provider:network_type = admin
create_network:provider:physical_network = admin
create_network:provider:segmentation_id = admin
create_network:segments = admin
get_network = own reader, service, shared
get_network:provider:network_type = admin
get_network:provider:physical_network = admin
get_network:provider:segmentation_id = admin
get_network:segments = admin
get_network:dhcp-agents = admin
update_network = own member
update_network:shared = admin
update_network:router:external = admin
update_network:is_default = admin
update_network:provider:network_type = admin
update_network:provider:physical_network = admin
update_network:provider:segmentation_id = admin
update_network:segments = admin
update_network:tags = own member
delete_network = own member
create_subnet = parent member
create_subnet:segment_id = admin
get_subnet = own reader, parent reader, service, shared
get_subnet:segment_id = admin
update_subnet = own member, parent member
update_subnet:segment_id = admin
update_subnet:tags = own member, parent member
delete_subnet = own member, parent member
create_port = service, parent member, parent shared
create_port:mac_address = service, parent member
create_port:fixed_ips = service, parent member, parent shared
create_port:fixed_ips:ip_address = service, parent member
create_port:fixed_ips:subnet_id = service, parent member, parent shared
create_port:allowed_address_pairs = service, parent member
create_port:port_security_enabled = service, parent member
create_port:device_owner = service, parent member
create_port:binding:host_id = service
create_port:binding:profile = service
create_port:trusted = admin
create_port:hints = admin
get_port = own reader, parent reader, service
get_port:binding:host_id = service
get_port:binding:profile = service
get_port:binding:vif_type = service
get_port:binding:vif_details = service
get_port:trusted = admin
get_port:hints = admin
get_port:resource_request = admin
update_port = own member, service
update_port:mac_address = service, parent manager
update_port:fixed_ips = service, parent member
update_port:fixed_ips:ip_address = service, parent member
update_port:fixed_ips:subnet_id = service, parent member, parent shared
update_port:allowed_address_pairs = service, parent member
update_port:port_security_enabled = service, parent member
update_port:device_owner = service, parent member
update_port:binding:host_id = service
update_port:binding:profile = service
update_port:data_plane_status = integrator
update_port:trusted = admin
update_port:hints = admin
update_port:tags = own member
delete_port = own member, parent member, service
create_port_binding = service
get_port_binding = service
update_port_binding = service
delete_port_binding = service
activate:binding = service
create_router = own member
create_router:external_gateway_info:enable_snat = admin
create_router:external_gateway_info:external_fixed_ips = admin
create_router:distributed = admin
create_router:ha = admin
create_router:enable_default_route_ecmp = admin
create_router:enable_default_route_bfd = admin
get_router = own reader
get_router:distributed = admin
get_router:ha = admin
get_router:l3-agents = admin
update_router = own member
update_router:external_gateway_info:enable_snat = admin
update_router:external_gateway_info:external_fixed_ips = admin
update_router:distributed = admin
update_router:ha = admin
update_router:enable_default_route_ecmp = admin
update_router:enable_default_route_bfd = admin
update_router:tags = own member
delete_router = own member
add_router_interface = own member
remove_router_interface = own member
add_extraroutes:router = own member
remove_extraroutes:router = own member
add_external_gateways:router = own member
add_external_gateways:router:enable_snat = admin
add_external_gateways:router:external_fixed_ips = admin
update_external_gateways:router = own member
update_external_gateways:router:enable_snat = admin
update_external_gateways:router:external_fixed_ips = admin
remove_external_gateways:router = own member
create_router_conntrack_helper = parent member
get_router_conntrack_helper = parent reader
update_router_conntrack_helper = parent member
delete_router_conntrack_helper = parent member
create_security_group = own member
get_security_group = own reader, shared
update_security_group = own member
update_security_group:tags = own member
delete_security_group = own member
create_security_group_rule = parent member
get_security_group_rule = parent reader
update_security_group_rule = parent member
delete_security_group_rule = parent member
create_rbac_policy = own member
create_rbac_policy:target_tenant = admin
get_rbac_policy = own reader
update_rbac_policy = own member
update_rbac_policy:target_tenant = admin
delete_rbac_policy = own member
create_address_scope = own member
create_address_scope:shared = admin
get_address_scope = own reader, shared
update_address_scope = own member
update_address_scope:shared = admin
delete_address_scope = own member
create_subnetpool = own member
create_subnetpool:shared = admin
create_subnetpool:is_default = admin
get_subnetpool = own reader, shared
update_subnetpool = own member
update_subnetpool:is_default = admin
update_subnetpool:tags = own member
delete_subnetpool = own member
add_prefixes:subnetpool = own member
remove_prefixes:subnetpool = own member
onboard_network_subnets:subnetpool = own member
create_address_group = own member
get_address_group = own reader, shared
update_address_group = own member
delete_address_group = own member
add_addresses:address_group = own member
remove_addresses:address_group = own member
get_quota = own manager
get_quota:default = own reader
get_quota:details = own reader
update_quota = admin
delete_quota = admin
create_floatingip = own member
create_floatingip:floating_ip_address = own manager
get_floatingip = own reader
update_floatingip = own member
update_floatingip:tags = own member
delete_floatingip = own member
get_floatingip_pool = own reader
create_floatingip_port_forwarding = parent member
get_floatingip_port_forwarding = parent reader
update_floatingip_port_forwarding = parent member
delete_floatingip_port_forwarding = parent member
create_policy = own manager
get_policy = own reader, shared
update_policy = own manager
update_policy:tags = own manager
delete_policy = own manager
create_policy_bandwidth_limit_rule = parent manager
get_policy_bandwidth_limit_rule = parent reader
update_policy_bandwidth_limit_rule = parent manager
delete_policy_bandwidth_limit_rule = parent manager
create_policy_dscp_marking_rule = parent manager
get_policy_dscp_marking_rule = parent reader
update_policy_dscp_marking_rule = parent manager
delete_policy_dscp_marking_rule = parent manager
create_policy_minimum_bandwidth_rule = parent manager
get_policy_minimum_bandwidth_rule = parent reader
update_policy_minimum_bandwidth_rule = parent manager
delete_policy_minimum_bandwidth_rule = parent manager
create_policy_minimum_packet_rate_rule = parent manager
get_policy_minimum_packet_rate_rule = parent reader
update_policy_minimum_packet_rate_rule = parent manager
delete_policy_minimum_packet_rate_rule = parent manager
create_policy_packet_rate_limit_rule = parent manager
get_policy_packet_rate_limit_rule = parent reader
update_policy_packet_rate_limit_rule = parent manager
delete_policy_packet_rate_limit_rule = parent manager
get_alias_bandwidth_limit_rule = parent reader
update_alias_bandwidth_limit_rule = parent manager
delete_alias_bandwidth_limit_rule = parent manager
get_alias_dscp_marking_rule = parent reader
update_alias_dscp_marking_rule = parent manager
delete_alias_dscp_marking_rule = parent manager
get_alias_minimum_bandwidth_rule = parent reader
update_alias_minimum_bandwidth_rule = parent manager
delete_alias_minimum_bandwidth_rule = parent manager
get_alias_minimum_packet_rate_rule = parent reader
update_alias_minimum_packet_rate_rule = parent manager
delete_alias_minimum_packet_rate_rule = parent manager
get_rule_type = any
create_ndp_proxy = own member
get_ndp_proxy = own reader
update_ndp_proxy = own member
delete_ndp_proxy = own member
create_local_ip = own member
get_local_ip = own reader
update_local_ip = own member
delete_local_ip = own member
create_local_ip_port_association = parent member
get_local_ip_port_association = parent reader
delete_local_ip_port_association = parent member
get_network_ip_availability = service
create_flavor = admin
get_flavor = any
get_flavor:next_providers = any
update_flavor = admin
delete_flavor = admin
create_service_profile = admin
get_service_profile = admin
update_service_profile = admin
delete_service_profile = admin
create_flavor_service_profile = admin
get_flavor_service_profile = admin
delete_flavor_service_profile = admin
get_service_provider = any
get_auto_allocated_topology = own reader
delete_auto_allocated_topology = own member
create_default_security_group_rule = admin
get_default_security_group_rule = any
delete_default_security_group_rule = admin
create_log = own manager
get_log = own manager
update_log = own manager
delete_log = own manager
get_loggable_resource = own manager
create_metering_label = own manager
get_metering_label = own reader
delete_metering_label = own manager
create_metering_label_rule = own manager
get_metering_label_rule = own reader
delete_metering_label_rule = own manager
create_security_group_default_statefulness = own manager
get_security_group_default_statefulness = own reader
update_security_group_default_statefulness = own manager
delete_security_group_default_statefulness = own manager
create_trunk = own member
get_trunk = own reader
get_trunk:subports = own reader
update_trunk = own member
update_trunk:tags = own member
delete_trunk = own member
add_subports:trunk = own member
remove_subports:trunk = own member
get_agent = admin
get_agent:dhcp-networks = admin
get_agent:l3-routers = admin
update_agent = admin
delete_agent = admin
get_availability_zone = any
create_segment = admin
get_segment = admin
update_segment = admin
delete_segment = admin
create_network_segment_range = admin
get_network_segment_range = admin
update_network_segment_range = admin
update_network_segment_range:tags = admin
delete_network_segment_range = admin
""")

# Operation: what Crossway holds instead, and the reason.
DIFFERENT = {
    "get_quota": (
        "own reader",
        "a reader may know the limits of its own project: `details` tells them to readers in Neutron too",
    ),
    "create_metering_label_rule": ("parent manager", "a rule is of its label's project"),
    "update_port:tags": ("own member, service", "whoever may change a port may tag it"),
}
# What is so everywhere, and the reason.
EVERYWHERE = {
    "Whoever may change a subnet may set its service_types": (
        "Neutron has a rule for it (admin), but the attribute does not ask for it to be enforced"
    ),
    "An admin may do everything, also what Neutron keeps for the role service: port bindings and binding profiles": (
        "an operator without a compute service binds ports by hand"
    ),
    "A host's own credential sees its ports, and changes, makes and deletes what its agent and its engines need": (
        "Neutron's agents have a message queue; which values it may set, and of which ports, is in the guide on access"
    ),
    "What is shared is seen by readers, and members make ports on shared networks": (
        "Neutron asks no role there, so a caller without any could make ports"
    ),
    "Another project's quota and topology are refused (403), not hidden": (
        "there is one of every project, so it tells nothing"
    ),
}
for _operation, (_reasons, _) in DIFFERENT.items():
    assert _operation in EXPECTED
    EXPECTED[_operation] = frozenset(reason.strip() for reason in _reasons.split(","))
