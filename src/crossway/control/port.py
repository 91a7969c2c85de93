"""Make, change and delete ports: addresses, MACs, groups, binding."""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import msgspec
from msgspec import UNSET

from crossway.control import binding, group, identity, learned, link, log, outside, qos, trunk, vif
from crossway.control.address import by_mac
from crossway.control.caller import Caller, project_of, seen
from crossway.control.cloud import Cloud
from crossway.control.collection import Collection
from crossway.control.decision import Decision
from crossway.control.share import hold
from crossway.errors import Conflict, Invalid, NotFound
from crossway.model.check import network_of
from crossway.model.floatingip import FLOATING_IP
from crossway.model.group import Group
from crossway.model.network import Network
from crossway.model.port import (
    DOWN,
    IMMEDIATE,
    NONE,
    PORT,
    ROUTER_GATEWAY,
    ROUTER_INTERFACE,
    DhcpOption,
    FixedIp,
    Pair,
    Port,
    Wish,
    fixed_ips_filter,
)
from crossway.model.resource import Given, changed, new_id, now
from crossway.model.subnet import Subnet

# The first three octets of MACs that are generated.
MAC_PREFIX = "fa:16:3e"
MAC_TRIES = 64
# Under which names of ports are known, if they say no other.
DOMAIN = "openstacklocal."
ROUTER_OWNED = (ROUTER_INTERFACE, ROUTER_GATEWAY)


def create(decision: Decision, caller: Caller, given: Given) -> Port:
    cloud = decision.cloud
    network: Network = seen(
        cloud, caller, "network", given["network_id"], decision.rely(cloud.networks, given["network_id"])
    )
    check_seen(decision, caller, network.id, () if given["fixed_ips"] is UNSET else given["fixed_ips"])
    project = project_of(caller, given)
    hold(decision, project, network)
    if given["device_owner"] in ROUTER_OWNED:
        raise Invalid(f"device_owner '{given['device_owner']}' is for routers; add an interface to the router instead")
    secured = given["port_security_enabled"]
    if secured is UNSET:
        secured = network.port_security_enabled and not given["device_owner"].startswith("network:")
    profile = _profile(given["profile"], given["hardware_offload_type"], given["trusted"])
    profile = vif.known(cloud, given["vnic_type"], profile)
    groups = given["security_groups"]
    if groups is UNSET:
        groups = (group.default(decision, project),) if secured else ()
    else:
        _check_groups(decision, caller, project, groups)
    port = insert(
        decision,
        network,
        {
            **given,
            "project_id": project,
            "port_security_enabled": secured,
            "security_groups": groups,
            "tags": _tags(given["tags"]),
            "profile": profile,
            "ip_allocation": NONE if given["fixed_ips"] == () else IMMEDIATE,
            **vif.bind(cloud, network, given["host"] or "", given["vnic_type"], profile),
        },
    )
    qos.refer(decision, caller, port.id, None, port.qos_policy_id)
    return port


def check_seen(decision: Decision, caller: Caller, network: str, wishes: Iterable[Wish]) -> None:
    """Raise NotFound if an address is asked for in a subnet of elsewhere that the caller may not see."""
    for wish in wishes:
        if wish.subnet_id is not None:
            subnet = decision.get(decision.cloud.subnets, wish.subnet_id)
            if subnet is None or subnet.network_id != network:
                seen(decision.cloud, caller, "subnet", wish.subnet_id, subnet)


def insert(decision: Decision, network: Network, given: Mapping[str, Any]) -> Port:
    """Make a port whose project, groups and binding are decided: addresses and MAC are found here."""
    id, time = new_id(), now()
    mac = _mac(decision, network.id, id, given.get("mac_address", UNSET))
    fixed_ips = _addresses(decision, network, id, mac, given.get("fixed_ips", UNSET), given.get("device_owner", ""))
    secured, groups = given["port_security_enabled"], given["security_groups"]
    pairs = _pairs(given.get("allowed_address_pairs", ()), mac)
    _check_security(secured, groups, pairs)
    port = Port(
        **{
            **given,
            "mac_address": mac,
            "fixed_ips": fixed_ips,
            "allowed_address_pairs": pairs,
            "extra_dhcp_opts": _options((), given.get("extra_dhcp_opts", ())),
            "network_id": network.id,
        },
        id=id,
        identity=identity.of(decision, groups, given["project_id"]) if secured else 0,
        created_at=time,
        updated_at=time,
    )
    link.hold(decision, id, None, port.vnic_type, port.profile)
    identity.bear(decision, id, 0, port.identity)
    decision.create(decision.cloud.ports, port)
    return port


def update(decision: Decision, caller: Caller, id: str, given: Given) -> Port:
    cloud = decision.cloud
    old: Port = seen(cloud, caller, "port", id, decision.read(cloud.ports, id))
    new = dict(given)
    waiting = old.waiting
    network = decision.rely(cloud.networks, old.network_id)
    if network is None:
        raise NotFound("network", old.network_id)
    if old.device_owner in ROUTER_OWNED:
        _check_routers_own(old, given)
    if given.get("device_owner", old.device_owner) in ROUTER_OWNED and old.device_owner not in ROUTER_OWNED:
        raise Invalid(f"device_owner '{given['device_owner']}' is for routers; add an interface to the router instead")
    mac = old.mac_address
    if "mac_address" in given and given["mac_address"] != mac:
        if old.host and not caller.admin:
            raise Conflict(
                f"Unable to complete operation on port {id}, port is already bound, port type: {old.vif_type}, "
                f"old_mac {mac}, new_mac {given['mac_address']}.",
                type="PortBound",
            )
        # Null asks for another that is generated.
        mac = _mac(decision, old.network_id, id, given["mac_address"])
        decision.release(f"mac/{old.network_id}/{old.mac_address}")
    new["mac_address"] = mac
    if "fixed_ips" in given:
        check_seen(decision, caller, network.id, given["fixed_ips"])
        new["fixed_ips"] = _readdress(decision, network, old, mac, given["fixed_ips"])
    elif mac != old.mac_address:
        new["fixed_ips"] = tuple(_follow_mac(decision, old, fixed, mac) for fixed in old.fixed_ips)
    if "fixed_ips" in given and old.device_owner in ROUTER_OWNED:
        _check_feet(old, new["fixed_ips"])
    if "fixed_ips" in new:
        outside.readdress(decision, old, new["fixed_ips"])
    if "trusted" in given:
        new["profile"] = _profile(given.get("profile", old.profile), None, given["trusted"])
    if "profile" in new:
        new["profile"] = vif.known(cloud, given.get("vnic_type", old.vnic_type), new["profile"])
    bound = {"host": old.host, "vnic_type": old.vnic_type, "profile": old.profile}
    binds = {**bound, **{name: new[name] for name in bound if name in new}}
    binds["host"] = binds["host"] or ""
    if binds != bound or (old.failed and old.host):
        # One that failed is tried again with every change of the port, as Neutron does.
        new.update(vif.bind(cloud, network, edge=old.edge, **binds))
        if binds["host"] != old.host:
            waiting = binding.follow(decision, old, binds["host"])
    if old.host and given.get("numa_affinity_policy", old.numa_affinity_policy) != old.numa_affinity_policy:
        raise Conflict(
            f"Unable to complete operation on port {id}, port is bound: its NUMA affinity policy cannot change.",
            type="PortBoundNUMAAffinityPolicy",
        )
    if "qos_policy_id" in given:
        qos.refer(decision, caller, id, old.qos_policy_id, given["qos_policy_id"])
    secured = given.get("port_security_enabled", old.port_security_enabled)
    groups = given.get("security_groups", old.security_groups)
    if "security_groups" in given:
        _check_groups(decision, caller, old.project_id, groups)
    if not secured and "security_groups" not in given and "port_security_enabled" in given and groups:
        raise Conflict(
            f"Port {id} has security groups; take them away with port_security_enabled.",
            type="PortSecurityPortHasSecurityGroup",
        )
    wanted = given.get("allowed_address_pairs", None)
    pairs = old.allowed_address_pairs if wanted is None else _pairs(wanted, mac)
    new["allowed_address_pairs"] = pairs
    _check_security(secured, groups, pairs)
    if "extra_dhcp_opts" in given:
        new["extra_dhcp_opts"] = _options(old.extra_dhcp_opts, given["extra_dhcp_opts"])
    if groups != old.security_groups or secured != old.port_security_enabled:
        new["identity"] = identity.of(decision, groups, old.project_id) if secured else 0
        identity.bear(decision, id, old.identity, new["identity"])
    port = msgspec.structs.replace(changed(old, new), waiting=waiting)
    link.hold(decision, id, old.link, port.vnic_type, port.profile)
    if places(port) != places(old) and old.device_owner not in ROUTER_OWNED:
        # It is ACTIVE again when its host and all who can reach it have applied this.
        port = msgspec.structs.replace(port, status=DOWN)
    decision.put(cloud.ports, port)
    learned.keep(decision, old, port)
    return port


def _options(old: Iterable[DhcpOption], wanted: Iterable[DhcpOption]) -> tuple[DhcpOption, ...]:
    """Return DHCP options as they become: those that are not named stay, those without a value go."""
    left = {(option.opt_name, option.ip_version): option for option in (*old, *wanted)}
    return tuple(option for option in left.values() if option.opt_value is not None)


def _tags(wanted: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(wanted))


def _profile(profile: dict[str, Any], offload: str | None, trusted: bool | None) -> dict[str, Any]:
    """Return a binding's profile with what compute services look for in it."""
    if offload:
        capabilities = profile.get("capabilities") or []
        if not isinstance(capabilities, list):
            raise Invalid(f"Invalid input for binding:profile. Reason: capabilities '{capabilities}' is not a list.")
        profile = {**profile, "capabilities": [*(c for c in capabilities if c != offload), offload]}
    return profile if trusted is None else {**profile, "trusted": trusted}


def _check_routers_own(port: Port, given: Given) -> None:
    """Refuse what only the router may change: an interface takes other addresses in its subnets, no more."""
    own = {"mac_address", "device_id", "device_owner"} | (
        {"fixed_ips"} if port.device_owner == ROUTER_GATEWAY else set()
    )
    same = {"mac_address": port.mac_address, "device_id": port.device_id, "device_owner": port.device_owner}
    if any(given[name] != same.get(name) for name in given.keys() & own):
        raise _of_router(port)


def _check_feet(port: Port, fixed_ips: Iterable[FixedIp]) -> None:
    """Keep a router's port in its subnets, and to the addresses of IPv4 that its neighbours know."""
    if {fixed.subnet_id for fixed in fixed_ips} != {fixed.subnet_id for fixed in port.fixed_ips}:
        raise _of_router(port)
    if {f for f in fixed_ips if "." in f.ip_address} != {f for f in port.fixed_ips if "." in f.ip_address}:
        raise Invalid(f"Bad ports request: IP updates for port {port.id} are not allowed.", type="BadRequest")


def _of_router(port: Port) -> Conflict:
    return Conflict(
        f"Port {port.id} belongs to router {port.device_id}: change it through the router.", type="ServicePortInUse"
    )


def delete(decision: Decision, caller: Caller, id: str) -> None:
    cloud = decision.cloud
    port: Port = seen(cloud, caller, "port", id, decision.read(cloud.ports, id))
    if port.device_owner in (*ROUTER_OWNED, FLOATING_IP):
        raise Conflict(
            f"Port {id} cannot be deleted directly via the port API: has device owner {port.device_owner}.",
            type="ServicePortInUse",
        )
    outside.check_leave(decision, caller, port)
    remove(decision, port)


def remove(decision: Decision, port: Port) -> None:
    """Delete a port and give back all that it has; raise Conflict where something cannot be without it."""
    outside.check_local_ips(decision, port)
    trunk.check_free(decision, port)
    outside.leave(decision, port)
    log.drop_of_port(decision, port.id)
    binding.drop(decision, port.id)
    if port.qos_policy_id:
        decision.release(f"uses/{port.qos_policy_id}/{port.id}")
    link.release(decision, port.link)
    decision.delete(decision.cloud.ports, port.id)
    decision.release(f"mac/{port.network_id}/{port.mac_address}")
    for fixed in port.fixed_ips:
        decision.release(f"address/{fixed.subnet_id}/{fixed.ip_address}")
    identity.bear(decision, port.id, port.identity, 0)


def places(port: Port) -> tuple[object, ...]:
    """Return what hosts must have applied before the port is ACTIVE."""
    return (
        port.at,
        port.failed,
        port.fixed_ips,
        port.mac_address,
        port.identity,
        port.allowed_address_pairs,
        port.port_security_enabled,
        port.admin_state_up,
        port.link,
    )


def _mac(decision: Decision, network: str, port: str, wanted: Any) -> str:
    """Claim a MAC in the network: the wanted one, or one that is free."""
    taken = decision.cloud.addresses.macs.get(network, {})
    if wanted is not UNSET and wanted is not None:
        key = f"mac/{network}/{wanted}"
        if (wanted in taken and key not in decision.transaction.deletes) or not decision.claim(key, port):
            raise Conflict(
                f"Unable to complete operation for network {network}. The mac address {wanted} is in use.",
                type="MacAddressInUse",
            )
        return str(wanted)
    for _ in range(MAC_TRIES):
        tail = secrets.token_hex(3)
        mac = f"{MAC_PREFIX}:{tail[:2]}:{tail[2:4]}:{tail[4:]}"
        if mac not in taken and decision.claim(f"mac/{network}/{mac}", port):
            return mac
    raise Conflict(f"No free MAC address found on network {network}.", type="MacAddressGenerationFailure")


def _addresses(
    decision: Decision, network: Network, port: str, mac: str, wishes: Any, owner: str = ""
) -> tuple[FixedIp, ...]:
    """Claim the addresses that were wished for, or one of each family, and those that follow from the MAC."""
    every = _subnets(decision, network.id)
    subnets = [subnet for subnet in every if not subnet.service_types or owner in subnet.service_types]
    if every and not subnets and wishes != ():
        raise Conflict(
            f"No valid service subnet for the given device owner, network_id {network.id}, device_owner '{owner}'.",
            type="IpAddressGenerationFailureNoMatchingSubnet",
        )
    found: list[FixedIp] = []
    if wishes is UNSET or wishes is None:
        for version in (4, 6):
            candidates = [s for s in subnets if s.ip_version == version and not s.by_mac]
            fixed = next(filter(None, (_next(decision, subnet, port) for subnet in candidates)), None)
            if fixed:
                found.append(fixed)
            elif candidates:
                raise _full(network.id)
    else:
        # Addresses that are named come first, so that one by subnet alone does not take their place.
        # Two may say the same: each is an address of its own.
        places = sorted(range(len(wishes)), key=lambda place: wishes[place].ip_address is None)
        given = {place: _wished(decision, network, subnets, port, mac, wishes[place], owner) for place in places}
        found += [given[place] for place in range(len(wishes))]
    # Stateless configuration gives a workload an address whether asked or not; a router has what it is given.
    if wishes != () and not owner.startswith("network:"):
        have = {fixed.subnet_id for fixed in found}
        found += [_claim(decision, s, port, by_mac(s.cidr, mac)) for s in subnets if s.by_mac and s.id not in have]
    return tuple(found)


def _wished(
    decision: Decision, network: Network, subnets: list[Subnet], port: str, mac: str, wish: Wish, owner: str
) -> FixedIp:
    if wish.subnet_id is not None:
        subnet = next((s for s in subnets if s.id == wish.subnet_id), None)
        if subnet is None:
            known = decision.get(decision.cloud.subnets, wish.subnet_id)
            if known is None:
                raise NotFound("subnet", wish.subnet_id)
            raise Invalid(
                f"Invalid input for operation: Failed to create port on network {network.id}, because fixed_ips "
                f"included invalid subnet {wish.subnet_id}.",
                type="InvalidInput",
            )
        if wish.ip_address is not None:
            check_within(subnet, wish.ip_address)
    else:
        assert wish.ip_address is not None
        subnet = next((s for s in subnets if _within(s, str(wish.ip_address))), None)
        if subnet is None:
            raise Invalid(
                f"IP address {wish.ip_address} is not a valid IP for any of the subnets on the specified network.",
                type="InvalidIpForNetwork",
            )
    if wish.ip_address is not None:
        if subnet.by_mac and not owner.startswith("network:") and wish.ip_address != by_mac(subnet.cidr, mac):
            raise Invalid(
                f"IPv6 address {wish.ip_address} cannot be directly assigned to a port on subnet {subnet.id} as the "
                "subnet is configured for automatic addresses",
                type="AllocationOnAutoAddressSubnet",
            )
        return _claim(decision, subnet, port, wish.ip_address)
    if subnet.by_mac:
        return _claim(decision, subnet, port, by_mac(subnet.cidr, mac))
    found = _next(decision, subnet, port)
    if found is None:
        raise _full(network.id)
    return found


def _readdress(
    decision: Decision, network: Network, old: Port, mac: str, wishes: Iterable[Wish]
) -> tuple[FixedIp, ...]:
    """Keep the addresses that are wished for again, claim the others, release the rest."""
    left = list(old.fixed_ips)
    kept: list[FixedIp] = []
    new: list[Wish] = []
    # Wishes with an address first, so that one by subnet alone does not take their place.
    for wish in sorted(wishes, key=lambda w: w.ip_address is None):
        match = next(
            (
                fixed
                for fixed in left
                if wish.ip_address in (None, fixed.ip_address) and wish.subnet_id in (None, fixed.subnet_id)
            ),
            None,
        )
        if match:
            left.remove(match)
            kept.append(match)
        else:
            new.append(wish)
    for fixed in left:
        decision.release(f"address/{fixed.subnet_id}/{fixed.ip_address}")
    subnets = _subnets(decision, network.id)
    for wish in new:
        kept.append(_wished(decision, network, subnets, old.id, mac, wish, old.device_owner))
    return tuple(kept)


def move(decision: Decision, port: Port, wishes: Iterable[Wish]) -> Port:
    """Give a port that is not a workload's other addresses."""
    network = decision.rely(decision.cloud.networks, port.network_id)
    if network is None:
        raise NotFound("network", port.network_id)
    new = changed(port, {"fixed_ips": _readdress(decision, network, port, port.mac_address, wishes)})
    decision.put(decision.cloud.ports, new)
    return new


def _follow_mac(decision: Decision, port: Port, fixed: FixedIp, mac: str) -> FixedIp:
    """Return the address in its place under another MAC: itself, if it does not follow from the MAC."""
    subnet = decision.cloud.subnets.get(fixed.subnet_id)
    if subnet is None or not subnet.by_mac or fixed.ip_address != by_mac(subnet.cidr, port.mac_address):
        return fixed
    decision.release(f"address/{fixed.subnet_id}/{fixed.ip_address}")
    return _claim(decision, subnet, port.id, by_mac(subnet.cidr, mac))


def _next(decision: Decision, subnet: Subnet, port: str) -> FixedIp | None:
    space = decision.cloud.addresses.spaces.get(subnet.id)
    decision.rely(decision.cloud.subnets, subnet.id)
    while space and (ip := decision.lend(space)) is not None:
        # One that this decision, or another under way, was asked for by name is not free.
        key = f"address/{subnet.id}/{ip}"
        if key not in decision.cloud.pending and decision.claim(key, port):
            return FixedIp(subnet.id, ip)
    return None


def _claim(decision: Decision, subnet: Subnet, port: str, ip: str) -> FixedIp:
    """Claim one address, or raise Conflict."""
    space = decision.cloud.addresses.spaces.get(subnet.id)
    decision.rely(decision.cloud.subnets, subnet.id)
    key = f"address/{subnet.id}/{ip}"
    taken = space is not None and ip in space.taken and key not in decision.transaction.deletes
    if taken or not decision.claim(key, port):
        raise Conflict(f"IP address {ip} already allocated in subnet {subnet.id}", type="IpAddressAlreadyAllocated")
    return FixedIp(subnet.id, ip)


def check_within(subnet: Subnet, ip: str) -> None:
    """Refuse an address that no port of a subnet can have."""
    if not _within(subnet, ip):
        raise Invalid(f"IP address {ip} is not a valid IP for the specified subnet.", type="InvalidIpForSubnet")


def _within(subnet: Subnet, ip: str) -> bool:
    """Say whether a port may have the address: in the prefix, and not an end of it that stands for all."""
    prefix, address = network_of(subnet.cidr), ipaddress.ip_address(ip)
    if address.version != prefix.version or address not in prefix:
        return False
    if prefix.version == 6:
        return prefix.prefixlen >= 127 or address != prefix.network_address
    return prefix.prefixlen >= 31 or address not in (prefix.network_address, prefix.broadcast_address)


def _subnets(decision: Decision, network: str) -> list[Subnet]:
    return decision.by(decision.cloud.subnets, "network_id", network)


def _pairs(wanted: Iterable[Any], mac: str) -> tuple[Pair, ...]:
    pairs: dict[Pair, None] = {}
    for item in wanted:
        pair = item if isinstance(item, Pair) else Pair(item["ip_address"], item.get("mac_address", mac))
        if pair in pairs:
            raise Invalid(
                f"Request contains duplicate address pair: mac_address {pair.mac_address} ip_address {pair.ip_address}",
                type="DuplicateAddressPairInRequest",
            )
        pairs[pair] = None
    return tuple(pairs)


def _check_groups(decision: Decision, caller: Caller, project: str, groups: Iterable[str]) -> None:
    stateful = set()
    for id in groups:
        found: Group = seen(decision.cloud, caller, "security_group", id, decision.rely(decision.cloud.groups, id))
        hold(decision, project, found)
        stateful.add(found.stateful)
    if len(stateful) > 1:
        raise Conflict(
            "Cannot apply both stateful and stateless security groups on the same port at the same time.",
            type="SecurityGroupConflict",
        )


def _check_security(secured: bool, groups: Iterable[str], pairs: Iterable[Pair]) -> None:
    if secured:
        return
    if tuple(groups):
        raise Invalid(
            "Port security must be enabled in order to use security groups.",
            type="PortSecurityAndIPRequiredForSecurityGroups",
        )
    if tuple(pairs):
        raise Conflict(
            "Port Security must be enabled in order to have allowed address pairs on a port.",
            type="AddressPairAndPortSecurityRequired",
        )


def _full(network: str) -> Conflict:
    return Conflict(f"No more IP addresses available on network {network}.", type="IpAddressGenerationFailure")


def _by_fixed_ips(cloud: Cloud, caller: Caller, values: list[str]) -> Callable[[Port], bool]:
    """Judge ports by `fixed_ips=ip_address=…`, `subnet_id=…` and `ip_address_substr=…`.

    One of each is enough, on whichever of a port's addresses; other words say nothing.
    """
    asked = fixed_ips_filter(values)
    ips, subnets, parts = (asked.get(key, ()) for key in ("ip_address", "subnet_id", "ip_address_substr"))

    def test(port: Port) -> bool:
        return (
            (not ips or any(fixed.ip_address in ips for fixed in port.fixed_ips))
            and (not subnets or any(fixed.subnet_id in subnets for fixed in port.fixed_ips))
            and (not parts or any(part in fixed.ip_address for fixed in port.fixed_ips for part in parts))
        )

    return test


def dns_names(cloud: Cloud, port: Port) -> list[dict[str, str]]:
    """Return the names of a port's addresses: its own, or one made of the address."""
    return [
        {"ip_address": fixed.ip_address, "hostname": host, "fqdn": host if host.endswith(".") else f"{host}.{DOMAIN}"}
        for fixed in port.fixed_ips
        for host in [port.dns_name or "host-" + fixed.ip_address.replace(".", "-").replace(":", "-")]
    ]


def _network_policy(cloud: Cloud, port: Port) -> str | None:
    network = cloud.networks.get(port.network_id)
    return network.qos_policy_id if network else None


def _request(cloud: Cloud, port: Port) -> dict[str, Any] | None:
    """Return what a scheduler must find for a port: what its QoS policy guarantees."""
    policy = port.qos_policy_id or _network_policy(cloud, port)
    return qos.request(cloud, policy, port, cloud.networks.get(port.network_id)) if policy else None


def _of_policy(cloud: Cloud, policy: Any) -> Iterator[str]:
    """Return the ports that a QoS policy is of, themselves or through their network."""
    yield from cloud.ports.ids("qos_policy_id", policy.id)
    for network in cloud.networks.ids("qos_policy_id", policy.id):
        yield from cloud.ports.ids("network_id", network)


PORTS = Collection(
    kind=PORT,
    create=create,
    update=update,
    delete=delete,
    children=(binding.BINDINGS,),
    derived={
        "dns_assignment": dns_names,
        "qos_network_policy_id": _network_policy,
        "resource_request": _request,
        "trunk_details": trunk.details,
    },
    stale_by={"network": "network_id"},
    stale_in={"trunk": trunk.parents, "port": trunk.parents_of_port, "policy": _of_policy},
    filters={"fixed_ips": _by_fixed_ips},
    aliases={
        "aap-reject-multicast": "Allowed address pairs reject multicast extension",
        "allowed-address-pairs": "Allowed Address Pairs",
        "binding": "Port Binding",
        "extra_dhcp_opt": "Neutron Extra DHCP options",
        "ip-substring-filtering": "IP address substring filtering",
        "data-plane-status": "Port data plane status extension",
        "dns-domain-ports": "dns_domain for ports",
        "dns-integration": "DNS Integration",
        "ip_allocation": "IP Allocation",
        "port-device-profile": "Port device profile",
        "port-hardware-offload-type": "Port hardware offload",
        "port-hint-ovs-tx-steering": "Port hint: Open vSwitch Tx steering",
        "port-hints": "Port hints",
        "port-mac-override": "Neutron Port MAC address override",
        "port-numa-affinity-policy": "Port NUMA affinity policy",
        "port-numa-affinity-policy-socket": 'Port NUMA affinity policy "socket"',
        "port-resource-request": "Port Resource Request",
        "port-resource-request-groups": "Port Resource Request Groups",
        "port-trusted-vif": "Port trusted vif",
        "qos-port-network-policy": "QoS port network policy ID",
        "tag-ports-during-bulk-creation": "Tag Ports During Bulk Creation",
        "uplink-status-propagation": "Uplink status propagation extension",
        "uplink-status-propagation-updatable": "Uplink status propagation updatable extension",
        "port-mac-address-regenerate": "Neutron Port MAC address regenerate",
        "port-security": "Port Security",
        "port-security-groups-filtering": "Port filtering on security groups",
    },
)
