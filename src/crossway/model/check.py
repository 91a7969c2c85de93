"""Checks of one value: each returns it in its canonical form, or says what would be right.

A check raises ValueError with a reason that names the value; whoever knows the
attribute's name adds it.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, TypeVar

Check = Callable[[Any], Any]
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
C = TypeVar("C", bound=Check)
Schema = dict[str, Any]

UUID = re.compile(r"[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}", re.IGNORECASE)
# In twos (or ones) between colons or hyphens, in fours between dots, or without anything between.
MAC = re.compile(r"[0-9a-f]{1,2}([:-][0-9a-f]{1,2}){5}|([0-9a-f]{4}\.){2}[0-9a-f]{4}|[0-9a-f]{12}", re.IGNORECASE)
LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)", re.IGNORECASE)
NAME_MAX = 255
BOOLEANS: Mapping[Any, bool] = {
    **{value: True for value in (True, 1, "true", "1", "t", "yes", "y", "on")},
    **{value: False for value in (False, 0, "false", "0", "f", "no", "n", "off")},
}


# Characters of a value that a message repeats, and how much of an object or a list is looked at for it.
TOLD_MAX, TOLD_ITEMS = 1024, 100


class Unlike(ValueError):
    """A value that is not of the kind at all; clients know it from one that is not allowed, by its *type*."""

    def __init__(self, reason: str, type: str = "InvalidInput") -> None:
        super().__init__(reason)
        self.type = type


def brief(value: Any) -> str:
    """Return a value in quotes for a message: what is long is cut, and costs no more than what is short."""
    if isinstance(value, dict | list | tuple) and not _is_small(value):
        return f"'{'an object' if isinstance(value, dict) else 'a list'} with {len(value)} entries'"
    text = value[: TOLD_MAX + 1] if isinstance(value, str) else str(value)
    return f"'{text}'" if len(text) <= TOLD_MAX else f"'{text[:TOLD_MAX]}…'"


def _is_small(value: Any) -> bool:
    waiting, left = [value], TOLD_ITEMS
    for one in waiting:
        left -= 1
        if isinstance(one, dict | list | tuple):
            left -= len(one)
        elif isinstance(one, str) and len(one) > TOLD_MAX:
            return False
        if left < 0:
            return False
        waiting += one if isinstance(one, list | tuple) else (*one, *one.values()) if isinstance(one, dict) else ()
    return True


class TooMany(Unlike):
    """A list that is longer than it may be."""

    def __init__(self, count: int, most: int, type: str = "") -> None:
        super().__init__(f"the list has {count} entries; should be at most {most}", type)
        self.count, self.most = count, most


def says(schema: Mapping[str, Any]) -> Callable[[C], C]:
    """Give a check the JSON schema of what it takes, for the OpenAPI document."""

    def give(check: C) -> C:
        check.schema = dict(schema)  # type: ignore[attr-defined]
        return check

    return give


def schema_of(check: Check) -> Schema:
    """Return the JSON schema of what a check takes; that of anything if it says nothing."""
    schema: Schema = getattr(check, "schema", {})
    return schema


def anything(value: Any) -> Any:
    return value


@says({"type": "string", "format": "uuid"})
def uuid(value: Any) -> str:
    """Return a UUID in lower case, as all are kept."""
    if not isinstance(value, str) or not UUID.fullmatch(value):
        raise ValueError(f"{brief(value)} is not a valid UUID")
    return value.lower()


@says({"type": "boolean"})
def boolean(value: Any) -> bool:
    key = value.lower() if isinstance(value, str) else value
    if not isinstance(key, str | int) or key not in BOOLEANS:
        raise Unlike(f"{brief(value)} cannot be converted to boolean; should be true or false")
    return BOOLEANS[key]


def text(longest: int) -> Check:
    @says({"type": "string", "maxLength": longest})
    def check(value: Any) -> str:
        if not isinstance(value, str):
            raise ValueError(f"{brief(value)} is not a valid string")
        if len(value) > longest:
            raise ValueError(f"{brief(value)} exceeds maximum length of {longest}")
        return value

    return check


def name(longest: int) -> Check:
    """Take text on one line that neither begins nor ends with a space."""
    words = text(longest)

    @says(schema_of(words))
    def check(value: Any) -> str:
        said: str = words(value)
        if not said.isprintable() and any(unicodedata.category(one) != "Zs" for one in said if not one.isprintable()):
            raise ValueError(f"{brief(value)} is not a valid string; should be printable")
        if said != said.strip():
            raise ValueError(f"{brief(value)} is not a valid string; should neither begin nor end with a space")
        return said

    return check


def integer(least: int, most: int) -> Check:
    @says({"type": "integer", "minimum": least, "maximum": most})
    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise Unlike(f"{brief(value)} is not an integer")
        try:
            # What is behind the point of a float goes, as it does in Neutron.
            number = int(value)
        except (ValueError, OverflowError):
            raise Unlike(f"{brief(value)} is not an integer") from None
        if not least <= number <= most:
            raise ValueError(f"{brief(value)} is not in the range {least} to {most}")
        return number

    return check


def one_of(*values: Any) -> Check:
    @says({"enum": list(values)})
    def check(value: Any) -> Any:
        if value not in values or isinstance(value, bool):
            raise ValueError(f"{brief(value)} is not in {list(values)}")
        return value

    return check


@says({"type": "integer", "enum": [4, 6]})
def ip_version(value: Any) -> int:
    number: int = integer(4, 6)(value)
    if number == 5:
        raise ValueError(f"{brief(value)} is not in [4, 6]")
    return number


def or_none(inner: Check) -> Check:
    schema = schema_of(inner)

    @says({"anyOf": [schema, {"type": "null"}]} if schema else {})
    def check(value: Any) -> Any:
        return None if value is None else inner(value)

    return check


@says({"type": "string", "maxLength": NAME_MAX, "format": "hostname"})
def domain(value: Any) -> str:
    """Return a DNS name in lower case; the empty one is none."""
    if not isinstance(value, str):
        raise ValueError(f"{brief(value)} is not a valid DNS name")
    labels = value.removesuffix(".").split(".")
    if value and (len(value) > NAME_MAX or not all(LABEL.fullmatch(label) for label in labels)):
        raise ValueError(
            f"{brief(value)} is not a valid DNS name: should be labels of 1 to 63 letters, digits and hyphens, "
            f"{NAME_MAX} characters in all"
        )
    return value.lower()


@says({"anyOf": [{"type": "string", "format": "ipv4"}, {"type": "string", "format": "ipv6"}]})
def ip(value: Any) -> str:
    """Return an address in canonical form."""
    if not isinstance(value, str):
        raise ValueError(f"{brief(value)} is not a valid IP address")
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        raise ValueError(f"{brief(value)} is not a valid IP address") from None
    if address.version == 6 and address.scope_id:
        raise ValueError(f"{brief(value)} is not a valid IP address: a zone does not belong here")
    return str(address)


@says({"type": "string", "examples": ["10.0.0.0/24", "fd00::/64"]})
def cidr(value: Any) -> str:
    """Return a prefix with its host bits cleared."""
    if not isinstance(value, str) or "/" not in value:
        raise Unlike(f"{brief(value)} is not a valid IP subnet; should be ADDRESS/LENGTH")
    try:
        return str(ipaddress.ip_network(value, strict=False))
    except ValueError:
        raise Unlike(f"{brief(value)} is not a valid IP subnet; should be ADDRESS/LENGTH") from None


@lru_cache(1 << 14)
def network_of(prefix: str) -> IPNetwork:
    """Return a prefix that is one, to compute with; those of one network are looked at again and again."""
    return ipaddress.ip_network(prefix)


@says(schema_of(cidr))
def network_cidr(value: Any) -> str:
    """Return a prefix that names no host in it."""
    prefix = cidr(value)
    if ipaddress.ip_interface(value).ip != ipaddress.ip_network(prefix).network_address:
        raise ValueError(f"{brief(value)} is not a valid CIDR; should be {prefix}")
    return prefix


@says({"type": "string", "examples": ["10.0.0.0/24", "fd00::1"]})
def ip_or_cidr(value: Any) -> str:
    """Return an address or a prefix as it was meant: a lone address stays one."""
    if isinstance(value, str) and "/" in value:
        try:
            return str(ipaddress.ip_interface(value).network)
        except ValueError:
            raise ValueError(f"{brief(value)} is neither a valid IP address, nor is it a valid IP subnet") from None
    try:
        return ip(value)
    except ValueError:
        raise ValueError(f"{brief(value)} is neither a valid IP address, nor is it a valid IP subnet") from None


@says(schema_of(cidr))
def prefix_as_said(value: Any) -> str:
    """Return a prefix with the host that it may name: a client that compares finds what it said."""
    cidr(value)
    return ipaddress.ip_interface(value).with_prefixlen


@says(schema_of(ip_or_cidr))
def as_prefix(value: Any) -> str:
    """Return a prefix as it was said; an address alone is the prefix that holds no other."""
    ip_or_cidr(value)
    return ipaddress.ip_interface(value).with_prefixlen


@says({"type": "string", "pattern": f"^({MAC.pattern.replace('a-f', 'A-Fa-f')})$"})
def mac(value: Any) -> str:
    """Return a unicast MAC address in lower case with colons."""
    if not isinstance(value, str) or not MAC.fullmatch(value):
        raise ValueError(f"{brief(value)} is not a valid MAC address")
    parts = re.split("[:-]", value.lower())
    digits = "".join(part.zfill(2) for part in parts) if len(parts) > 1 else parts[0].replace(".", "")
    canonical = ":".join(digits[at : at + 2] for at in range(0, 12, 2))
    if int(canonical[:2], 16) & 1 or canonical == "00:00:00:00:00:00":
        raise ValueError(f"{brief(value)} is not the MAC address of one station")
    return canonical


def list_of(inner: Check, most: int, unique: bool = True, type: str = "") -> Check:
    """Check a list of at most *most* items; one that is longer is a fault of *type*, whatever its items are."""

    @says({"type": "array", "items": schema_of(inner), "maxItems": most} | ({"uniqueItems": True} if unique else {}))
    def check(value: Any) -> tuple[Any, ...]:
        if value is None:
            return ()
        if not isinstance(value, list | tuple):
            raise ValueError(f"{brief(value)} is not a list")
        if len(value) > most:
            raise TooMany(len(value), most, type)
        try:
            checked = tuple(inner(item) for item in value)
        except Unlike as error:  # as one of a list it is a value that is not allowed
            raise ValueError(str(error)) from None
        if unique and (again := duplicate(checked)) is not None:
            raise ValueError(f"Duplicate items in the list: {brief(again)}")
        return checked

    return check


def duplicate(items: Iterable[Any]) -> Any:
    """Return the first item that was there before, or None; each is looked at once."""
    seen: set[Any] = set()
    for item in items:
        key = _key(item)
        if key in seen:
            return item
        seen.add(key)
    return None


def _key(item: Any) -> Any:
    """Return what stands for an item of a list in a set."""
    if isinstance(item, dict):
        return frozenset((name, _key(value)) for name, value in item.items())
    return tuple(map(_key, item)) if isinstance(item, list | tuple) else item


def mapping(required: Mapping[str, Check], optional: Mapping[str, Check] | None = None, others: bool = False) -> Check:
    """Check an object that has all *required* members and maybe *optional* ones.

    *others* beside these are refused, or left out where they may be.
    """
    optional = optional or {}
    members = {**required, **optional}

    @says(
        {
            "type": "object",
            "properties": {name: schema_of(check) for name, check in members.items()},
            "required": sorted(required),
            "additionalProperties": others,
        }
    )
    def check(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise ValueError(f"{brief(value)} is not a dictionary")
        if (unknown := value.keys() - members.keys()) and not others:
            raise ValueError(
                f"Unexpected keys supplied: {brief(', '.join(sorted(map(str, unknown))[:TOLD_ITEMS]))[1:-1]}; "
                f"may be {sorted(members)}"
            )
        if missing := required.keys() - value.keys():
            raise ValueError(f"Expected keys not found: {', '.join(sorted(missing))} in {brief(value)}")
        try:
            return {key: members[key](item) for key, item in value.items() if key in members}
        except Unlike as error:
            raise ValueError(str(error)) from None

    return check


@says({"type": ["object", "null"]})
def dictionary(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"{brief(value)} is not a dictionary")
    return value
