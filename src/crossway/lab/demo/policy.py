"""The declared policy: what is built follows from it, and is judged by it."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network
from typing import Literal

from crossway.client import Object

TENANTS = ("red", "blue")

# Tier -> its prefixes, the same for both tenants. A tier is a network and a group.
TIERS = {"web": ("10.0.1.0/24", "fd00:1::/64"), "db": ("10.0.2.0/24", "fd00:2::/64")}


@dataclass(frozen=True)
class Service:
    """Something to try: a name, a protocol, and for TCP a port."""

    name: str
    proto: str
    port: int | None = None


PING = Service("ping", "icmp")
HTTP = Service("http", "tcp", 80)
SQL = Service("sql", "tcp", 5432)
SERVICES = (PING, HTTP, SQL)


@dataclass(frozen=True)
class Admit:
    """A rule: ports in *group* take *service* from *source*, a group or (None) anyone."""

    group: str
    service: Service
    source: str | None


RULES = (
    Admit("web", HTTP, None),
    Admit("web", PING, "web"),
    Admit("db", SQL, "web"),
    Admit("db", PING, "web"),
)

Kind = Literal["container", "guest", "server"]
KINDS = {"container": "Docker", "guest": "QEMU guest", "server": "bare-metal server"}


@dataclass(frozen=True)
class Member:
    """A workload of a tenant: its tier is also its group; *last* ends its addresses."""

    tenant: str
    name: str
    kind: Kind
    tier: str
    host: int
    last: int

    @property
    def full(self) -> str:
        return f"{self.tenant}.{self.name}"

    @property
    def mac(self) -> str:
        """The same for both tenants: an Ethernet of theirs is their own."""
        return f"02:00:00:00:{int(TIERS[self.tier][0].split('.')[2]):02x}:{self.last:02x}"

    @property
    def ips(self) -> tuple[str, str]:
        """The address that it is given, and the one that it makes itself of its MAC (RFC 4291, appendix A)."""
        four, six = TIERS[self.tier]
        octets = bytes.fromhex(self.mac.replace(":", ""))
        own = bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:]
        return (
            f"{four.rpartition('.')[0]}.{self.last}",
            str(IPv6Address(int(IPv6Network(six).network_address) + int.from_bytes(own))),
        )


# Both tenants have the same containers at the same addresses; each has something that the other has not.
MEMBERS = (
    Member("red", "web1", "container", "web", 0, 11),
    Member("red", "web2", "container", "web", 1, 12),
    Member("red", "web3", "container", "web", 2, 13),
    Member("red", "vm", "guest", "web", 0, 21),
    Member("red", "metal", "server", "web", 1, 31),
    Member("red", "db1", "container", "db", 2, 11),
    Member("blue", "web1", "container", "web", 0, 11),
    Member("blue", "web2", "container", "web", 1, 12),
    Member("blue", "db1", "container", "db", 2, 11),
    Member("blue", "vault", "container", "db", 2, 66),
)
# Whom the other tenant's members try to reach at its addresses, where they have nobody themselves; who tries nothing.
ALONE = ("vm", "metal", "vault")
SILENT = ("vault",)


def admitted(source: Member, target: Member, service: Service) -> bool:
    """Say whether the policy lets *source* reach *target*: the same tenant, and a rule that admits it."""
    return source.tenant == target.tenant and any(
        rule.group == target.tier and rule.service == service and rule.source in (None, source.tier) for rule in RULES
    )


@dataclass
class Attempt:
    """One try: by whom, at whose address, who should answer, and what came of it.

    *target* is whom the source's tenant has at that address; None if nobody.
    """

    source: Member
    target: Member | None
    whose: Member
    ip: str
    service: Service
    expected: bool
    reached: bool | None = None
    answered_by: str = ""
    seconds: float = 0.0
    refusal: Object | None = None

    @property
    def right(self) -> bool:
        if not self.expected:
            return self.reached is False
        return self.reached is True and self.answered_by in ("", self.target.full if self.target else "")


def attempts() -> list[Attempt]:
    """Return everything to be tried, with what the policy says of it."""
    made = []
    for source in MEMBERS:
        if source.name in SILENT:
            continue
        for target in MEMBERS:
            other = target.tenant != source.tenant
            if target == source or (other and target.name not in ALONE):
                # The other tenant's addresses are this tenant's own: who answers there tells them apart.
                continue
            own = None if other else target
            for service in SERVICES:
                for ip in target.ips:
                    made.append(Attempt(source, own, target, ip, service, admitted(source, target, service)))
    return made
