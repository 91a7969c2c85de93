"""Tell what does the services that flavors may name: Crossway itself."""

from __future__ import annotations

from crossway.control.caller import Caller
from crossway.control.cloud import Cloud
from crossway.control.collection import Collection
from crossway.model.flavor import DRIVER, ROUTER_SERVICE
from crossway.model.service_provider import SERVICE_PROVIDER, ServiceProvider


def rows(cloud: Cloud, caller: Caller) -> list[ServiceProvider]:
    return [ServiceProvider(id=DRIVER, project_id="", name=DRIVER, service_type=ROUTER_SERVICE, default=True)]


SERVICE_PROVIDERS = Collection(
    kind=SERVICE_PROVIDER,
    path="service-providers",
    rows=rows,
    aliases={"service-type": "Neutron Service Type Management"},
)
