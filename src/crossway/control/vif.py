"""Find whether a host can carry a port, and which: what Neutron calls binding it.

A port is bound to a living host that can carry its kind and has its physical
network, or the binding has failed. A bare-metal server's may be bound to what is
no host, as Ironic binds it to its node: then a host before it carries it, one
that has the physical network where it is plugged in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from crossway.control.cloud import Cloud
from crossway.errors import Invalid
from crossway.model.link import BAREMETAL, Link, link_of, plugged
from crossway.model.network import VXLAN, Network
from crossway.model.port import NORMAL, bound_as, not_bound


def bind(
    cloud: Cloud, network: Network, host: str, vnic_type: str, profile: Mapping[str, Any], edge: str = ""
) -> Mapping[str, Any]:
    """Return what a port becomes that is bound to *host*; *edge* is the one that it has, which stays if it can."""
    if not host or not can(cloud, network, host, vnic_type, profile):
        link = _link(vnic_type, profile)
        if not host or link is None or host in cloud.hosts.rows:
            return not_bound(host) if host else bound_as("")
        edges = [one.id for one in cloud.hosts.rows.values() if link.physnet in one.physnets and cloud.alive(one.id)]
        if not edges:
            return not_bound(host)
        # The same for the same server, whoever decides.
        edge = edge if edge in edges else max(edges, key=lambda one: hashlib.sha256(f"{host} {one}".encode()).digest())
        return bound_as(host, vnic_type, edge)
    return bound_as(host, vnic_type)


def can(cloud: Cloud, network: Network, host: str, vnic_type: str, profile: Mapping[str, Any]) -> bool:
    """Say whether a host lives and can carry such a port of a network."""
    there = cloud.hosts.rows.get(host)
    if there is None or not cloud.alive(host):
        return False
    if vnic_type == BAREMETAL:
        link = _link(vnic_type, profile)
        return link is None or link.physnet in there.physnets
    return vnic_type == NORMAL and (network.type == VXLAN or network.physnet in there.physnets)


def known(cloud: Cloud, vnic_type: str, profile: Mapping[str, Any]) -> dict[str, Any]:
    """Return a binding's profile, with where its server is plugged in if only the operator's table says it."""
    try:
        return dict(plugged(vnic_type, profile, cloud.switch_ports()))
    except ValueError as fault:
        raise Invalid(f"Invalid input for binding:profile. Reason: {fault}.", type="InvalidInput") from None


def _link(vnic_type: str, profile: Mapping[str, Any]) -> Link | None:
    try:
        return link_of(vnic_type, profile)
    except ValueError:  # told where it is held
        return None
