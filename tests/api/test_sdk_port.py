"""Trunks and bindings through the stock SDK."""

from __future__ import annotations

from collections.abc import Iterator

import openstack
import pytest
from openstack.network.v2._proxy import Proxy

from servers import Api, Host, Server

# The SDK warns of what it will drop itself.
pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")


@pytest.fixture(scope="module")
def sdk(shared: Server) -> Iterator[Proxy]:
    with openstack.connect(
        auth_type="none", auth={"endpoint": shared.url}, load_yaml_config=False, load_envvars=False
    ) as cloud:
        yield cloud.network


def test_trunks(sdk: Proxy, api: Api) -> None:
    network = sdk.create_network()
    parent, within = sdk.create_port(network_id=network.id), sdk.create_port(network_id=network.id)
    trunk = sdk.create_trunk(port_id=parent.id, name="t")
    sub = {"port_id": within.id, "segmentation_type": "vlan", "segmentation_id": 7}
    sdk.add_trunk_subports(trunk, [sub])
    assert sdk.get_trunk_subports(trunk)["sub_ports"] == [sub]
    assert sdk.get_port(parent).trunk_details["sub_ports"][0]["mac_address"] == within.mac_address
    sdk.delete_trunk_subports(trunk, [{"port_id": within.id}])
    assert sdk.get_trunk(trunk).sub_ports == []
    sdk.delete_trunk(trunk)
    assert "trunk_details" not in api("GET", f"/v2.0/ports/{parent.id}")["port"]
    for port in (parent, within):
        sdk.delete_port(port)
    sdk.delete_network(network)


def test_bindings(sdk: Proxy, api: Api) -> None:
    for name in ("bind1", "bind2"):
        Host(api, name)
    network = sdk.create_network()
    port = sdk.create_port(network_id=network.id, binding_host_id="bind1", device_owner="compute:x", dns_name="www")
    made = sdk.create_port_binding(port, host="bind2", vnic_type="normal")
    assert (made.host, made.status) == ("bind2", "INACTIVE")
    assert {b.host: b.status for b in sdk.port_bindings(port)} == {"bind1": "ACTIVE", "bind2": "INACTIVE"}
    path = f"/v2.0/ports/{port.id}/bindings"
    assert api("PUT", f"{path}/bind2/activate", {})["status"] == "ACTIVE"
    assert sdk.get_port(port).binding_host_id == "bind2"
    assert api("GET", f"{path}?status=INACTIVE")["bindings"][0]["host"] == "bind1"
    assert api("GET", f"{path}/bind2")["binding"]["vif_type"] == "tap"
    assert api("PUT", f"{path}/bind2", {"binding": {"profile": {"a": 1}}})["binding"]["profile"] == {"a": 1}
    api("DELETE", f"{path}/bind1", want=204)
    assert api.error("GET", f"{path}/bind1", want=404)["type"] == "PortBindingNotFound"
    assert api("GET", f"/v2.0/networks/{network.id}/dhcp-agents") == {"agents": []}
    sdk.delete_port(port)
    sdk.delete_network(network)
