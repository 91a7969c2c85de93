"""The extensions of the Networking API that are served; what is not there is not named."""

from __future__ import annotations

UPDATED = "2026-01-01T00:00:00-00:00"
EXTENSIONS = {
    "allowed-address-pairs": "Allowed Address Pairs",
    "binding": "Port Binding",
    "empty-string-filtering": "Empty String Filtering Extension",
    "external-net": "Neutron external network",
    "extraroute": "Neutron Extra Route",
    "filter-validation": "Filter parameters validation",
    "ip-substring-filtering": "IP address substring filtering",
    "ip_allocation": "IP Allocation",
    "l2_adjacency": "L2 Adjacency",
    "net-mtu": "Network MTU",
    "net-mtu-writable": "Network MTU (writable)",
    "pagination": "Pagination support",
    "port-mac-address-regenerate": "Neutron Port MAC address regenerate",
    "port-security": "Port Security",
    "port-security-groups-filtering": "Port filtering on security groups",
    "project-id": "project_id field enabled",
    "provider": "Provider Network",
    "revision-if-match": "If-Match constraints based on revision_number",
    "router": "Neutron L3 Router",
    "security-group": "security-group",
    "security-groups-normalized-cidr": "Normalized CIDR field for security group rules",
    "security-groups-rules-belongs-to-default-sg": "Security group rule belongs to the default group",
    "sorting": "Sorting support",
    "standard-attr-description": "standard-attr-description",
    "standard-attr-revisions": "Resource revision numbers",
    "standard-attr-tag": "Tag support for resources with standard attribute",
    "standard-attr-timestamp": "Resource timestamps",
    "stateful-security-group": "Stateful security group",
}


def listed() -> list[dict[str, object]]:
    return [
        {"alias": alias, "name": name, "description": name, "updated": UPDATED, "links": []}
        for alias, name in EXTENSIONS.items()
    ]
