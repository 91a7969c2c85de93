"""Random views of a host, and a plain reading of rows and rules to hold the plan against."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_network
from typing import Any

from hypothesis import strategies as st
from msgspec import structs

from crossway.model import rows as r
from crossway.plan import view
from crossway.plan.plan import Document
from crossway.plan.port import Body
from crossway.plan.rows import Rows

HOSTS = ["h1", "h2", "h3"]  # h1 is the plan's
NETWORKS = ["n1", "n2"]
GROUPS = ["a", "b", "c"]
PORTS = [f"p{i}" for i in range(6)]
ROUTERS = ["r1", "r2"]
PREFIXES4 = ["0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/24", "10.0.0.4/30", "10.0.0.5/32"]
PREFIXES6 = ["::/0", "fd00::/8", "fd00::/64", "fd00::5/128"]

prefixes = {
    4: st.sampled_from(PREFIXES4)
    | st.builds(
        lambda n, bits: str(ip_network((n, bits), strict=False)),
        st.integers(0x0A000000, 0x0A0000FF),
        st.integers(8, 32),
    ),
    6: st.sampled_from(PREFIXES6),
}


@st.composite
def rules(draw: Any, id: str, group: str) -> view.Rule:
    """Any rule: of a group's number of ways, families, protocols, ports and remotes."""
    proto = draw(st.sampled_from([None, 6, 6, 6, 17, 1, 58, 47]))
    family = draw(st.sampled_from([4, 4, 6]))
    low = high = None
    if proto in (6, 17):
        low = draw(st.sampled_from([None, 0, 22, 80, 80, 81, 1000]))
        high = (
            draw(st.sampled_from([v for v in (0, 22, 80, 81, 90, 1023, 65535) if v >= low]))
            if low is not None
            else None
        )
    elif proto in (1, 58):
        low = draw(st.none() | st.sampled_from([0, 3, 8, 128]))
        high = draw(st.none() | st.sampled_from([0, 1])) if low is not None else None
    remote = draw(st.sampled_from(["any", "group", "group", "prefix", "prefix", "prefix"]))
    return view.Rule(
        id=id,
        number=int(id[1:]) + 1,
        way=draw(st.sampled_from(["in", "out"])),
        family=family,
        proto=proto,
        min=low,
        max=high,
        group=draw(st.sampled_from(GROUPS)) if remote == "group" else None,
        prefix=draw(prefixes[family]) if remote == "prefix" else None,
        group_id=group,
    )


@st.composite
def named(draw: Any, id: str, group: str) -> view.Rule:
    """Any rule about an address group; of one the group may tell nothing."""
    rule = draw(rules(id, group))
    return structs.replace(rule, group=None, prefix=None, addresses=draw(st.sampled_from(["g1", "g2", "g3"])))


@st.composite
def groups(draw: Any, id: str, least: int = 0) -> view.Group:
    base = GROUPS.index(id) * 100
    numbers = draw(st.lists(st.integers(base, base + 9), unique=True, min_size=least, max_size=10))
    lists = st.lists(prefixes[4] | prefixes[6], unique=True, max_size=6).map(tuple)
    return view.Group(
        id=id,
        stateful=draw(st.booleans()),
        rules=tuple(draw(rules(f"x{n}", id)) for n in numbers),
        named=tuple(draw(named(f"y{base + n}", id)) for n in range(draw(st.integers(0, 3)))),
        addresses=draw(st.dictionaries(st.sampled_from(["g1", "g2"]), lists)),
    )


@st.composite
def ports(draw: Any, id: str) -> view.Port:
    n = PORTS.index(id)
    identity = draw(st.integers(0, 3))
    pairs = draw(
        st.lists(
            st.sampled_from([("10.9.0.0/16", None), ("::/0", None), ("10.0.0.99", "fa:16:3e:99:99:99")]), max_size=2
        )
    )
    address = draw(st.integers(0, 3)) + n
    return view.Port(
        id=id,
        network=draw(st.sampled_from(NETWORKS)),
        mac=f"fa:16:3e:00:00:{n:02x}",
        addresses=(view.Address(f"10.0.0.{address}", "s4"), view.Address(f"fd00::{address:x}", "s6"))[
            : draw(st.integers(0, 2))
        ],
        identity=identity,
        groups=(),
        pairs=tuple(view.Pair(ip, mac) for ip, mac in pairs),
        secured=draw(st.integers(0, 4)) > 0,
        up=draw(st.integers(0, 4)) > 0,
        host=draw(st.sampled_from([*HOSTS, "h1", None])),
        waiting=tuple(draw(st.lists(st.sampled_from(HOSTS), max_size=1))),
    )


@st.composite
def routers(draw: Any, id: str) -> view.Router:
    n = ROUTERS.index(id)
    interfaces = [
        view.Interface(
            f"rp{n}{i}",
            draw(st.sampled_from(NETWORKS)),
            f"fa:16:3e:01:{n:02x}:{i:02x}",
            (view.Prefixed(f"10.{i}.0.{n + 1}", 24), view.Prefixed(f"fd0{i}::{n + 1}", 64)),
        )
        for i in draw(st.lists(st.integers(0, 2), unique=True, max_size=3))
    ]
    hops = draw(
        st.lists(
            st.sampled_from([("0.0.0.0/0", "10.0.0.9"), ("::/0", "fd00::9"), ("192.0.2.0/24", "10.1.0.9")]), max_size=2
        )
    )
    return view.Router(
        id=id,
        number=n + 1,
        up=draw(st.booleans()),
        interfaces=tuple(interfaces),
        routes=tuple(view.Hop(*h) for h in hops),
    )


SEEN = [f"{network}/{ip}" for network in NETWORKS for ip in ("10.9.0.7", "10.0.0.2", "10.0.0.1", "fd00::7")]


def seen(id: str) -> st.SearchStrategy[view.Learned]:
    """Return who may have been seen to have an address: at its own MAC, a pair's or another's."""
    network, _, ip = id.partition("/")
    macs = st.sampled_from(["fa:16:3e:00:00:00", "fa:16:3e:00:00:01", "fa:16:3e:99:99:99"])
    return st.builds(
        view.Learned, id=st.just(id), network=st.just(network), ip=st.just(ip), port=st.sampled_from(PORTS), mac=macs
    )


@st.composite
def networks(draw: Any, id: str) -> view.Network:
    physnet = draw(st.sampled_from([None, "physnet1", "physnet2"]))
    return view.Network(
        id=id,
        # An operator may give a network another VNI or VLAN.
        number=NETWORKS.index(id) + draw(st.sampled_from([10, 10, 110])),
        mtu=draw(st.sampled_from([1400, 9000])),
        type="vlan" if physnet else "vxlan",
        physnet=physnet,
        segment=draw(st.sampled_from([7, 7, 8])) if physnet else None,
        up=draw(st.integers(0, 4)) > 0,
    )


def _one(kind: str, ids: list[str], made: Any) -> st.SearchStrategy[Document]:
    return st.sampled_from(ids).flatmap(
        lambda id: st.none().map(lambda _: Document(kind, id, None)) | made(id).map(lambda o: Document(kind, id, o))
    )


documents = st.one_of(
    _one("host", HOSTS, lambda id: st.just(view.Host(id=id, underlay=f"192.0.2.{HOSTS.index(id) + 1}"))),
    _one("network", NETWORKS, networks),
    _one("port", PORTS, ports),
    _one("port", PORTS, ports),
    _one("router", ROUTERS, routers),
    _one("learned", SEEN, seen),
    _one("group", GROUPS, groups),
    _one(
        "identity",
        ["1", "2", "3"],
        lambda id: st.lists(st.sampled_from(GROUPS), unique=True).map(lambda g: view.Identity(id=id, groups=tuple(g))),
    ),
    st.sampled_from(GROUPS).flatmap(
        lambda group: st.integers(0, 9).flatmap(
            lambda n: _one("rule", [f"x{GROUPS.index(group) * 100 + n}"], lambda id: rules(id, group))
        )
    ),
)
bodies = st.tuples(st.sampled_from(PORTS), st.none() | st.sampled_from([r.Body.VETH, r.Body.TAP, r.Body.VLAN])).map(
    lambda one: (
        one[0],
        one[1] and Body(r.PortKey(100 + PORTS.index(one[0]), 5 if one[1] == r.Body.VLAN else 0), one[1]),
    )
)
uplinks = st.sampled_from([{}, {"physnet1": 7}, {"physnet1": 8, "physnet2": 9}])


# A world in which most things are as they must be for rows to be: stories begin with it.
BASE = [
    *(Document("host", h, view.Host(id=h, underlay=f"192.0.2.{n + 1}")) for n, h in enumerate(HOSTS)),
    *(Document("network", n, view.Network(id=n, number=NETWORKS.index(n) + 10, mtu=1400)) for n in NETWORKS),
    *(
        Document("port", p, view.Port(id=p, network="n1", mac=f"fa:16:3e:00:00:{n:02x}", identity=n % 3 + 1, host=h))
        for n, (p, h) in enumerate(zip(PORTS, ["h1", "h1", "h2"] * 2, strict=True))
    ),
    *(
        Document("identity", str(i), view.Identity(id=str(i), groups=g))
        for i, g in ((1, ("a",)), (2, ("a", "b")), (3, ("c",)))
    ),
]
BASE_BODIES = {p: Body(r.PortKey(100 + n), r.Body.VETH) for n, p in enumerate(PORTS)}


def judge(
    rows: Rows, identity: int, way: int, family: int, remote_identity: int, remote: bytes, proto: int, port: int
) -> bool | None:
    """Return what the firewall finds: whether a stateful rule allows it, None if no rule does.

    A plain search for the longest match, and who may use what was found.
    """

    def longest(table: str, bits: int, known: int, sought: Callable[[Any], int], of: int) -> Any:
        """Return the row whose key has the most bits in common, of those that begin with what is known."""
        found = None
        for key, row in rows[table].items():
            length = key.prefixlen - known
            same = (key.identity, key.way, key.family) == (identity, way, family)
            if same and not (sought(key) ^ of) >> bits - length and (found is None or length > found[0]):
                found = (length, row)
        return found[1] if found else None

    ports = longest("port_sets", 24, 56, lambda key: key.proto << 16 | key.port, proto << 16 | port)
    if ports is None:
        return None
    every, answered = r.unpack_bits(ports.all), r.unpack_bits(ports.stateful)
    allowed = 1 << r.PortSetNumber.ANYONE | 1 << r.PortSetNumber.ANYONE_STATELESS
    if remote_identity:
        row = rows["policies"].get(r.PolicyKey(identity, remote_identity, way, family))
        allowed |= r.unpack_bits(row.allowed) if row else 0
    row = longest("prefixes", 128, 64, lambda key: int.from_bytes(key.ip, "big"), int.from_bytes(remote, "big"))
    allowed |= r.unpack_bits(row.allowed) if row else 0
    return True if answered & allowed else False if every & allowed else None


def numbers(raw: bytes) -> list[int]:
    """Return which numbers of port sets a row has."""
    bits = r.unpack_bits(raw)
    return [n for n in range(r.PORT_SETS) if bits >> n & 1]


def allowed(rows: Rows) -> dict[Any, Any]:
    """Return the rows of policy with what each number means in place of it."""
    ports: dict[Any, dict[int, list[Any]]] = {}
    for key, row in sorted(rows["port_sets"].items(), key=lambda item: (item[0].proto, item[0].port, item[0])):
        of = ports.setdefault((key.identity, key.way, key.family), {})
        stateful = numbers(row.stateful)
        for n in numbers(row.all):
            of.setdefault(n, []).append((key, n in stateful))
    meaning = {at: {n: tuple(keys) for n, keys in of.items()} for at, of in ports.items()}
    found: dict[Any, Any] = {at: sorted(of.values()) for at, of in meaning.items()}
    for table in ("policies", "prefixes"):
        for key, row in rows[table].items():
            of = meaning[key.identity, key.way, key.family]
            found[key] = sorted(of[n] for n in numbers(row.allowed))
    return found
