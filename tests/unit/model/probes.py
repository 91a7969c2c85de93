"""Values that Neutron takes for an attribute, and values that it refuses, by the kind of its validation."""

from __future__ import annotations

from typing import Any

Fact = dict[str, Any]
Values = list[Any]

ID = "0b0d7a6e-7f5c-4d4f-9f4e-3c1f5d0f9a11"
OTHER = "5d2d3c1e-8a1b-4c55-9d1b-6e0a4f7e2c02"
NO_TEXT: Values = [5, ["x"], {"x": "y"}, True]
NO_NUMBER: Values = ["x", "", "1.5", [], {}]
NO_ADDRESS: Values = ["x", "", "10.0.0.300", "10.0.0", "fe80::1::2", 5, [], {}]
NO_LIST: Values = [5, "x"]
# What makes something of null.
NULLS = ("none_to_empty_list", "allocation_pools_to_canonical_format", "to_boolean_if_not_none", "to_mac_if_none")
BOOLEANS: tuple[Values, Values] = (
    [True, False, "true", "False", "TRUE", 1, 0, "1", "0", "t", "f", "yes", "no", "y", "n", "on", "off"],
    ["maybe", "", 2, -1, [], {}],
)


def probes(fact: Fact) -> tuple[Values, Values]:
    """Return what Neutron takes, and what it refuses with 400; nothing where it looks at nothing."""
    convert, validate = fact.get("convert", ""), fact.get("validate") or {}
    good, bad = _converted(convert)
    for kind, of in validate.items():
        taken, refused = _kind(kind, of)
        good, bad = good + taken, bad + refused
    numbers = convert in ("to_int", "to_int_if_not_none")
    if numbers:
        whole = [number for number in good if isinstance(number, int)]
        # What is behind the point goes.
        good = [*good, *map(str, whole), *(number + 0.5 for number in whole if 0 < number < 1 << 16)]
    if (
        convert in ("none_to_empty_list", "allocation_pools_to_canonical_format", "to_boolean_if_not_none")
        or convert == "to_mac_if_none"
    ):
        good = [*good, None]
    elif convert == "cidr_to_canonical_format":
        good = [value for value in good if value is not None]
    elif validate and None not in good:
        bad = [*bad, None]
    if convert == "to_string":
        # Whatever it is becomes words; only then is it looked at.
        bad = [value for value in bad if isinstance(value, str)]
    return good, [value for value in bad if value not in good or isinstance(value, bool)]


def _converted(convert: str) -> tuple[Values, Values]:
    if convert in ("to_boolean", "to_boolean_if_not_none"):
        return BOOLEANS if convert.endswith("none") else (BOOLEANS[0], [*BOOLEANS[1], None])
    if convert == "protocol":
        return (
            [
                None,
                "tcp",
                "TCP",
                "udp",
                "icmp",
                "icmpv6",
                "ipv6-icmp",
                "sctp",
                "vrrp",
                "ah",
                6,
                "6",
                0,
                "0",
                255,
                "any",
            ],
            ["frob", 256, "256", -1, "-1", "", [], {}],
        )
    if convert == "ethertype_to_case_insensitive":
        return ["IPv4", "ipv4", "IPV6", "ipv6"], ["frob", "4"]
    if convert == "validate_port_value":
        return [None, 0, 1, "80", 65535], [-1, 65536, "x", "", [], {}]
    if convert == "ip_prefix_to_cidr":
        return [None, "10.0.0.0/8", "10.0.0.1", "10.0.0.1/8", "fd00::/64", "fd00::1"], [
            "x",
            "10.0.0.0/33",
            "10.0.0.300",
        ]
    if convert == "to_protocol":
        return ["tcp", "udp"], ["frob"]
    if convert == "valid_object_type":
        return ["network", "qos_policy", "security_group", "address_scope", "address_group", "subnetpool"], [
            "frob",
            None,
        ]
    return [], []


def _kind(kind: str, of: Any) -> tuple[Values, Values]:
    if kind.endswith("_or_none") and kind not in ("range_or_none", "subnetpool_id_or_none"):
        good, bad = _kind(kind.removesuffix("_or_none"), of)
        return [*good, None], bad
    if kind in ("string", "name_string", "not_empty_name_string", "name_not_default"):
        longest = of or 255
        good = ["é", "a b", "x" * longest]
        bad = [*NO_TEXT, "x" * (longest + 1)] if of else NO_TEXT
        if kind in ("string", "name_string"):
            good = ["", *good]
        if kind == "not_empty_name_string":
            bad = [*bad, "", "  "]
        if kind == "string":
            good = [*good, " a ", "a\nb"]
        if kind == "name_not_default":
            good = [*good, " a", "a ", "a\nb", "a\u00a0", "\x7f"]
        if kind.endswith("name_string"):
            bad = [*bad, " a", "a ", "a\nb", "a\tb", "\x00"]
        return good, bad
    if kind == "uuid":
        return [ID, ID.upper(), ID.replace("-", "")], ["x", "", f"{ID}0", 5, [], {}]
    if kind == "uuid_list":
        return [[], [ID], [ID, OTHER]], [*NO_LIST, ["x"], [ID, ID], [None], {}]
    if kind == "values":
        return list(of), ["frob", "", [], {}]
    if kind == "range":
        return [of[0], of[1]], [of[0] - 1, of[1] + 1, *NO_NUMBER]
    if kind == "range_or_none":
        return [None, of[0], of[1]], [of[0] - 1, of[1] + 1, *NO_NUMBER]
    if kind == "port_range":
        return [None, "80", "80:80", "80:90", f"{of[0]}:{of[1]}"], ["90:80", "0:5", "5:65536", "x", "1:2:3", ""]
    if kind == "non_negative":
        return [0, 1, 1 << 20], [-1, *NO_NUMBER]
    if kind == "boolean":
        return [True, False, "true", "False"], ["maybe"]
    if kind == "ip_address":
        return ["10.0.0.1", "fd00::1", "0.0.0.0"], NO_ADDRESS
    if kind == "mac_address":
        return ["fa:16:3e:00:00:01", "FA:16:3E:00:00:01", "fa-16-3e-00-00-01"], [
            "x",
            "",
            "fa:16:3e:00:00",
            "00:00:00:00:00:00",
            [],
        ]
    if kind == "subnet":
        return ["10.0.0.0/8", "fd00::/64", "0.0.0.0/0", "10.0.0.1/32"], ["x", "", "10.0.0.0/33", "fd00::/129", 5, []]
    if kind == "subnet_list":
        return [[], ["10.0.0.0/8"], ["10.0.0.0/8", "fd00::/64"]], [*NO_LIST, ["x"], ["10.0.0.0/8", "10.0.0.0/8"], [5]]
    if kind == "hostroutes":
        route = {"destination": "10.1.0.0/16", "nexthop": "10.0.0.1"}
        bad = [
            {**route, "x": 1},
            {"destination": "10.1.0.0/16"},
            {**route, "nexthop": "x"},
            {**route, "destination": "x"},
            5,
        ]
        return [[], [route]], [*NO_LIST, *([one] for one in bad), [route, route]]
    if kind == "ip_pools":
        pool = {"start": "10.0.0.2", "end": "10.0.0.9"}
        bad = [{**pool, "x": 1}, {"start": "10.0.0.2"}, {**pool, "end": "x"}, 5]
        return [[], [pool], [pool, pool]], [*NO_LIST, *([one] for one in bad)]
    if kind == "nameservers":
        return [[], ["9.9.9.9", "fd00::53"]], [5, ["x"], ["9.9.9.9", "9.9.9.9"], [5]]
    if kind == "fixed_ips":
        good = [[], [{"ip_address": "10.0.0.5"}], [{"subnet_id": ID}], [{"subnet_id": ID, "ip_address": "10.0.0.5"}]]
        bad = [[{"ip_address": "x"}], [{"subnet_id": "x"}], [5], "x", 5]
        # Others than these two are not looked at, and one subnet may be named again.
        good = [*good, [{"subnet_id": ID, "subnet": None, "x": 1}], [{"subnet_id": ID}, {"subnet_id": ID}]]
        return good, [*bad, [{"ip_address": "10.0.0.5"}, {"ip_address": "10.0.0.5"}]]
    if kind == "allowed_address_pairs":
        pair = {"ip_address": "10.0.0.5", "mac_address": "fa:16:3e:00:00:01"}
        bad = [
            {"ip_address": "x"},
            {"mac_address": "fa:16:3e:00:00:01"},
            {**pair, "x": 1},
            {**pair, "mac_address": "x"},
            {},
            5,
        ]
        good = [[], [pair], [{"ip_address": "10.0.0.5/24"}], [{"ip_address": "0.0.0.0/0"}]]
        groups = ("224.0.0.0/3", "::/0", "224.0.0.1", "ff00::/16", "fe00::/7", "128.0.0.0/1")
        bad += [{"ip_address": ip} for ip in groups]
        return good, [*([one] for one in bad), [pair, pair], "x", 5]
    if kind == "list_of_any_key_specs":
        good = {"opt_name": "mtu", "opt_value": "1400"}
        bad = [
            {"opt_name": "mtu"},
            {**good, "opt_name": ""},
            {**good, "ip_version": 5},
            {**good, "opt_name": "x" * 65},
            {"x": 1},
            5,
        ]
        more = [
            [],
            [good],
            [{**good, "ip_version": 6}],
            [{**good, "opt_value": None}],
            [{"opt_name": "router", "opt_value": ""}],
        ]
        return more, [*([one] for one in bad), "x", 5]
    if kind == "availability_zone_hint_list":
        return [[], ["nova"]], [*NO_LIST, ["x" * 256], [5]]
    if kind == "list_of_unique_strings":
        return [[], ["x"], ["x", "y"]], ["x", ["x", "x"], [5], ["x" * (of + 1)]]
    if kind == "list_of_subnet_service_types":
        return [None, [], ["compute:nova"], ["network:floatingip"], ["compute:a", "network:b"]], ["x", ["frob"], [5]]
    if kind == "dns_domain_name":
        return ["", "example.org.", "a.b.example.org."], ["-x.", "a..b.", "x" * 256, "a b.", 5]
    if kind in ("dns_host_name", "fip_dns_host_name"):
        return ["", "web", "web1"], ["-x", "x" * 64, "a b", "a_b", 5]
    if kind == "dict":
        return [{}], ["x", 5, ["x"]]
    if kind == "dict_or_nodata":
        return [None, {}], ["x", 5, ["x"]]
    if kind == "subnetpool_id_or_none":
        return [ID, None, "prefix_delegation"], ["x", 5]
    if kind == "valid_target_project":
        return ["*", ID], ["", "x", None]
    if kind == "subports":
        port = {"port_id": ID, "segmentation_type": "vlan", "segmentation_id": 5}
        bad = [{"segmentation_type": "vlan", "segmentation_id": 5}, {**port, "port_id": "x"}, 5]
        bad += [
            {"port_id": ID, "segmentation_id": 5},
            {"port_id": ID, "segmentation_type": "vlan"},
            {"port_id": ID, "x": 1},
        ]
        inherited = {"port_id": ID, "segmentation_type": "inherit"}
        return [[], [port], [{**port, "x": 1}], [{"port_id": ID}], [inherited]], [*([one] for one in bad), "x", 5]
    if kind == "network_segments":
        one = {"provider:network_type": "vxlan"}
        return [[one]], [[{"x": 1}], "x", [5]]
    if kind == "service_plugin_type":
        return ["L3_ROUTER_NAT"], ["frob", None]
    raise AssertionError(f"what does Neutron take of the kind {kind}?")
