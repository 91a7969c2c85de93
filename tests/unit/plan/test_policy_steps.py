"""In which order rows of policy are written: at no moment is a packet judged as neither before nor after."""

from __future__ import annotations

from itertools import chain
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from crossway.model import rows as r
from crossway.plan import view
from crossway.plan.address import ip
from crossway.plan.plan import Document, Plan
from crossway.plan.port import Body
from crossway.plan.rows import POLICY, Rows, changes, policy_steps
from unit.plan import worlds

LONGEST = ("port_sets", "prefixes")
SETS = {1: ("a", "b"), 2: ("b",), 3: ("c", "a")}
PACKETS = [
    (way, remote, identity, proto, port)
    for way in (0, 1)
    for remote, identity in (("10.0.0.5", 2), ("10.0.0.200", 3), ("fd00::5", 0))
    for proto, port in ((6, 80), (17, 22))
]


def answers(rows: Rows) -> list[bool | None]:
    return [
        worlds.judge(rows, 1, way, 0 if "." in remote else 1, identity, ip(remote), proto, port)
        for way, remote, identity, proto, port in PACKETS
    ]


def groups(found: tuple[view.Group, ...]) -> list[Document]:
    return [Document("group", g.id, g) for g in found]


three = st.tuples(*(worlds.groups(id, least=2) for id in worlds.GROUPS))


@settings(max_examples=40, deadline=None)
@given(three, three, st.booleans())
def test_every_step_leaves_what_both_allow_and_allows_nothing_that_neither_does(
    old: tuple[view.Group, ...], new: tuple[view.Group, ...], empty: bool
) -> None:
    plan = Plan("h1")
    plan.take(
        [
            *([] if empty else groups(old)),
            *(Document("identity", str(i), view.Identity(id=str(i), groups=of)) for i, of in SETS.items()),
            Document("network", "n1", view.Network(id="n1", number=10, mtu=1400)),
            Document("port", "p0", view.Port(id="p0", network="n1", mac="fa:16:3e:00:00:01", identity=1, host="h1")),
        ]
    )
    plan.bodies({"p0": Body(r.PortKey(100), r.Body.VETH)})
    plan.settle()
    plan.written()
    have: Rows = {table: dict(plan.rows[table]) for table in POLICY}
    before = answers(have)
    plan.take(groups(new))
    change = changes(have, plan.rows, plan.settle())
    after = answers(plan.rows)
    lengths = {(t, key.identity): {k.prefixlen for k in have[t]} for t in LONGEST for key in have[t]}
    for step in chain(*policy_steps(have, change, lengths)):
        if step.row is None:
            del have[step.table][step.key]
        else:
            have[step.table][step.key] = step.row
        for was, now, then in zip(before, answers(have), after, strict=True):
            assert now in ({was, then} if None not in (was, then) else {was, then, True, False}), step
            assert now is not None or None in (was, then), step
            assert now is None or (was, then) != (None, None), step
    assert have == {table: plan.rows[table] for table in POLICY}


def test_a_rule_that_moves_from_an_identity_to_a_prefix_allows_all_the_time() -> None:
    key, to = r.PolicyKey(1, 9, 0, 0), r.PrefixKey(64 + 128, 1, 0, 0, ip("10.0.0.1"))
    have: Rows = {"policies": {key: r.Policy(r.pack_bits(4))}, "prefixes": {}, "port_sets": {}}
    want: Rows = {"policies": {}, "prefixes": {to: r.Prefix(r.pack_bits(4))}, "port_sets": {}}
    change: Any = changes(have, want)
    wider, narrower = policy_steps(have, change, {})
    assert [step.key for step in list(wider)] == [to]
    assert [step.key for step in narrower] == [key]
