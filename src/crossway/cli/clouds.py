"""The clouds.yaml by which OpenStack's own clients find this Crossway."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

NAME = "crossway"


def endpoint(address: str, tls: bool) -> str:
    """Return the URL of a listening address; one that stands for all addresses is this machine's own."""
    host, _, port = address.rpartition(":")
    host = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)
    return f"{'https' if tls else 'http'}://{host}:{port}"


def text(url: str, auth: Sequence[str], ca: str = "") -> str:
    """Return what clients should know; who asks is left to be said, as passwords do not belong here."""
    cloud: dict[str, object] = {"auth_type": "none", "auth": {"endpoint": url}}
    for one in auth:
        scheme, _, where = one.partition(":")
        if scheme == "basic":
            cloud = {"auth_type": "http_basic", "auth": {"endpoint": url}, "network_endpoint_override": f"{url}/v2.0"}
        elif scheme == "keystone":
            cloud = {"auth_type": "password", "auth": {"auth_url": where}, "network_endpoint_override": f"{url}/v2.0"}
            break
    if ca:
        cloud["cacert"] = ca
    lines = [f"# Written by `crossway up`: openstack --os-cloud {NAME} network list", "clouds:", f"  {NAME}:"]
    for name, value in cloud.items():
        if isinstance(value, dict):
            lines += [f"    {name}:", *(f"      {key}: {json.dumps(inner)}" for key, inner in value.items())]
        else:
            lines.append(f"    {name}: {json.dumps(value)}")
    return "\n".join(lines) + "\n"


def write(path: Path, content: str) -> None:
    """Put a file in place whole."""
    made = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        made.write_text(content, encoding="utf-8")
        os.replace(made, path)
    finally:
        with suppress(FileNotFoundError):
            made.unlink()
