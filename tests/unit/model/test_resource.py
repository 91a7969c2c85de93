"""What follows from a resource's declaration: what may be given, by whom, and how it is shown."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import UNSET

from crossway.errors import Fault, Invalid
from crossway.model.network import NETWORK, Network
from crossway.model.port import PORT
from crossway.model.resource import Kind
from crossway.model.router import ROUTER
from crossway.model.rule import RULE
from crossway.model.subnet import SUBNET

UUID = "0d2f8a3e-90cc-4b0b-9e1e-0123456789ab"


def test_defaults_and_what_the_rules_between_resources_decide() -> None:
    given = NETWORK.given({"name": "n"})
    assert given["name"] == "n"
    assert given["admin_state_up"] is True
    assert given["type"] is UNSET
    assert NETWORK.given({"name": "m"}, update=True) == {"name": "m"}


def test_older_names_are_taken() -> None:
    assert NETWORK.given({"tenant_id": "p"})["project_id"] == "p"


@pytest.mark.parametrize(
    ("kind", "body", "update", "fault", "says"),
    [
        (NETWORK, [], False, Invalid, "not a dictionary"),
        (NETWORK, {"nmae": "x"}, False, Invalid, "Unrecognized attribute(s) 'nmae'; network has "),
        (NETWORK, {"name": 7}, False, Invalid, "Invalid input for name. Reason: '7' is not a valid string."),
        (NETWORK, {"id": UUID}, False, Invalid, "Attribute 'id' not allowed in POST"),
        (NETWORK, {"status": "DOWN"}, True, Invalid, "'status' not allowed in PUT"),
        (NETWORK, {"provider:network_type": "gre"}, False, Invalid, "'gre' is not in ['flat', 'vlan', 'vxlan']"),
        (NETWORK, {"availability_zone_hints": []}, True, Invalid, "read-only attribute availability_zone_hints"),
        (SUBNET, {}, False, Invalid, "Required attribute 'network_id' not specified"),
        (SUBNET, {"cidr": "10.0.0.0/24"}, True, Invalid, "Cannot update read-only attribute cidr"),
        (PORT, {"network_id": UUID, "fixed_ips": [{}]}, False, Invalid, "neither ip_address nor subnet_id"),
        (PORT, {"network_id": UUID, "mac_address": "x"}, False, Invalid, "'x' is not a valid MAC address"),
        (PORT, {"network_id": UUID, "binding:vnic_type": "x"}, False, Invalid, "binding:vnic_type"),
        (RULE, {"security_group_id": UUID, "direction": "in"}, False, Invalid, "['ingress', 'egress']"),
        (RULE, {"protocol": "tcp"}, True, Invalid, "Cannot update read-only attribute protocol"),
        (ROUTER, {"external_gateway_info": {"x": 1}}, False, Invalid, "external_gateway_info"),
        (ROUTER, {"routes": []}, False, Invalid, "'routes' not allowed in POST"),
    ],
)
def test_what_is_wrong_is_named(kind: Kind[Any], body: Any, update: bool, fault: type[Fault], says: str) -> None:
    with pytest.raises(fault) as caught:
        kind.given(body, update=update)
    assert says in str(caught.value)


def test_inner_fields_are_not_shown() -> None:
    shape = NETWORK.show(Network(id=UUID, project_id="p", number=7))
    assert "number" not in shape
    assert shape["tenant_id"] == shape["project_id"] == "p"
    assert shape["router:external"] is False


def test_shapes_are_json() -> None:
    json.dumps(NETWORK.show(Network(id=UUID, project_id="p", number=7, tags=("a",))))
