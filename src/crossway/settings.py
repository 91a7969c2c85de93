"""What an operator may set, with its default, in one place.

A setting is read from the command line first, then from the environment
(CROSSWAY_ and its name in capitals), then from here.
"""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass
from pathlib import Path

from crossway.errors import Invalid


@dataclass(frozen=True)
class Setting:
    """One thing that may be set: its name, what it is by default, and what it means."""

    name: str
    default: str
    what: str

    @property
    def variable(self) -> str:
        """Return the name of the environment variable that sets it."""
        return f"CROSSWAY_{self.name.upper()}"

    def value(self) -> str:
        """Return what the environment says, or else the default."""
        return self.said() or self.default

    def number(self, least: int) -> int:
        """Return what is set as a whole number, from *least* on."""
        text = self.value()
        if not (text.isascii() and text.isdecimal()) or len(text) > 15 or int(text) < least:
            raise Invalid(f"{self.variable} '{text}' should be a whole number from {least} on")
        return int(text)

    def said(self) -> str | None:
        """Return what the environment says, if it does."""
        return os.environ.get(self.variable) or None


SERVER = Setting("server", "http://127.0.0.1:9696", "URL of a server, or several with commas between them")
LISTEN = Setting("listen", "127.0.0.1:9696", "address on which the server listens")
DATA = Setting("data", "/var/lib/crossway", "directory of what must outlive a restart")
RUN = Setting("run", "/run/crossway", "directory of an agent's socket, bodies and pinned tables")
LAB = Setting("lab", "", "name of the lab that commands speak to")
EXTERNAL = Setting("external", "172.24.4.1/24", "address of this machine on the external network of `crossway up`")
UNDERLAY_MTU = Setting("underlay_mtu", "1500", "largest IP packet that the network between hosts carries")
DOCKER_PROJECTS = Setting(
    "docker_projects", "", "projects whose Docker engines get a socket of their own, RUN/docker-PROJECT.sock"
)
DOCKER_PLUGINS = Setting(
    "docker_plugins", "/run/docker/plugins", "directory where this machine's Docker engine looks for plugins"
)
DOCKER_ENGINE = Setting(
    "docker_engine",
    "/var/run/docker.sock",
    "socket of the engine that is asked what its containers are called; PROJECT=PATH with commas for those of projects",
)
RESOLVERS = Setting(
    "resolvers",
    "",
    "servers that the agent asks for names it does not know, in place of those of resolv.conf; `none`: it asks nobody",
)
OBJECT = Setting("object", "", "path of another build of the data plane than the one that the package carries")
DIRECT = Setting("direct", "1", "0: every packet between hosts passes the host's own stack (its IPsec, its firewall)")
FLOOD_RATE = Setting(
    "flood_rate",
    "20000",
    "copies a second that one port's broadcasts, multicasts and frames to unknown addresses may cause on its host; "
    "on another host, or from a provider network, those of a whole network, beside a 64th for each sender (a host, or "
    "a MAC outside); 25 packets a second always pass, and 5 of each such sender; 0 is no limit",
)

# Who asks, and who may.
AUTH = Setting("auth", "none", "how the server tells who asks: none, basic[:FILE], keystone:URL; several with spaces")
USERS = Setting("users", "/var/lib/crossway/users", "password file of `--auth basic` and `crossway user`")
RATE = Setting("rate", "0", "requests a second of one user, or REQUESTS:BURST; 0 is no limit")
NAMES = Setting(
    "names",
    "",
    "names, with commas, by which a server with auth none is asked, beside addresses, localhost and this machine's own",
)
STRANGERS = Setting(
    "strangers",
    "100",
    "connections of one address on which nobody has said yet who it is; 0 is no limit, as behind a balancer",
)
PROJECT_CONNECTIONS = Setting(
    "project_connections",
    "200",
    "connections that one project may have to a server, and never more than a quarter of what the limit of open files "
    "leaves to all; idle ones give way; admins and cloud services are not counted; 0 is no limit",
)
USER_CONNECTIONS = Setting("user_connections", "100", "the same for one user, in whatever projects")
HOST_CONNECTIONS = Setting("host_connections", "32", "the same for one host, whose agent uses at most 27")
HEAD_SECONDS = Setting("head_seconds", "10", "seconds for a TLS handshake, and for the head of a request")
BODY_SECONDS = Setting(
    "body_seconds",
    "30",
    "seconds in which a body, or 64 KiB more of it, should come; the whole of it in five times that",
)
BODY = Setting("body", "524288", "bytes that the body of a request may have")
BULK = Setting("bulk", "8388608", "bytes that the body of a request may have that makes several things at once")
TLS_CERT = Setting("tls_cert", "", "certificate of the server and those that vouch for it, PEM")
TLS_KEY = Setting("tls_key", "", "private key of the server, PEM; it may be in the certificate's file")
CA = Setting("ca", "", "certificates that are trusted when asking a server or Keystone, in place of the system's")
USER = Setting("user", "", "user as whom commands and the agent ask a server with auth basic")
PASSWORD = Setting("password", "", "that user's password")
PASSWORD_FILE = Setting("password_file", "", "file with that user's password, in place of saying it")
TOKEN = Setting("token", "", "token with which commands ask a server with auth keystone")
KEYSTONE_USER = Setting("keystone_user", "", "user as whom the server asks Keystone about tokens")
KEYSTONE_PASSWORD = Setting("keystone_password", "", "that user's password")
KEYSTONE_PASSWORD_FILE = Setting("keystone_password_file", "", "file with that user's password, in place of saying it")
KEYSTONE_PROJECT = Setting("keystone_project", "service", "project of that user")
KEYSTONE_USER_DOMAIN = Setting("keystone_user_domain", "Default", "domain of that user")
KEYSTONE_PROJECT_DOMAIN = Setting("keystone_project_domain", "Default", "domain of that project")
KEYSTONE_HOST_ROLE = Setting(
    "keystone_host_role",
    "",
    "role of users of that domain who are hosts, each the one of the user's name, for the project of its token",
)
KEYSTONE_SECONDS = Setting("keystone_seconds", "60", "seconds that Keystone's word on a token is believed")

ACCESS = (
    AUTH,
    USERS,
    RATE,
    NAMES,
    STRANGERS,
    PROJECT_CONNECTIONS,
    USER_CONNECTIONS,
    HOST_CONNECTIONS,
    HEAD_SECONDS,
    BODY_SECONDS,
    BODY,
    BULK,
    TLS_CERT,
    TLS_KEY,
    CA,
    USER,
    PASSWORD,
    PASSWORD_FILE,
    TOKEN,
)
KEYSTONE = (
    KEYSTONE_USER,
    KEYSTONE_PASSWORD,
    KEYSTONE_PASSWORD_FILE,
    KEYSTONE_PROJECT,
    KEYSTONE_USER_DOMAIN,
    KEYSTONE_PROJECT_DOMAIN,
    KEYSTONE_HOST_ROLE,
    KEYSTONE_SECONDS,
)

SWITCH_PORTS = Setting(
    "switch_ports",
    "",
    "file with a line SWITCH PORT PHYSNET VLAN for each port of a switch behind which Ironic has a server",
)
IDENTITIES = Setting(
    "identities",
    "4096",
    "distinct sets of security groups of one project on its ports, with those that hosts have not all forgotten",
)

QUOTAS = tuple(
    Setting(f"quota_{name}", default, f"{what} that a project may have; -1: any number, as with auth none if not set")
    for name, default, what in (
        ("network", "100", "networks"),
        ("subnet", "100", "subnets"),
        ("subnetpool", "-1", "subnet pools"),
        ("port", "500", "ports"),
        ("router", "10", "routers"),
        ("floatingip", "50", "floating IPs"),
        ("security_group", "10", "security groups"),
        ("security_group_rule", "100", "rules of security groups"),
        ("rbac_policy", "10", "RBAC policies"),
        ("address_group", "-1", "address groups"),
        ("address_scope", "-1", "address scopes"),
        ("trunk", "-1", "trunks"),
        ("router_route", "30", "routes of one router"),
        ("policy_row", "65536", "rows of policy for the sets of security groups in use (see decision 17)"),
    )
)

ALL = (
    SERVER,
    LISTEN,
    DATA,
    RUN,
    LAB,
    EXTERNAL,
    UNDERLAY_MTU,
    DOCKER_PROJECTS,
    DOCKER_PLUGINS,
    DOCKER_ENGINE,
    RESOLVERS,
    OBJECT,
    DIRECT,
    FLOOD_RATE,
    *ACCESS,
    *KEYSTONE,
    SWITCH_PORTS,
    IDENTITIES,
    *QUOTAS,
)


def secret(said: Setting, file: Setting) -> str:
    """Return a password: as the environment says it, or the first line of the file that it names."""
    path = file.value()
    if said.value() or not path:
        return said.value()
    try:
        return (Path(path).read_text(encoding="utf-8").splitlines() or [""])[0]
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise Invalid(f"{file.variable} {path}: {why}") from None


def credentials() -> dict[str, str]:
    """Return the headers that tell a server who asks, as far as the environment says it."""
    if name := USER.value():
        if ":" in name:
            raise Invalid(f"{USER.variable} '{name}' should have no colon")
        pair = f"{name}:{secret(PASSWORD, PASSWORD_FILE)}".encode()
        return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}
    if token := TOKEN.value():
        return {"X-Auth-Token": token}
    return {}
