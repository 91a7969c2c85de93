"""The copy's indexes and spaces against plain models."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from crossway.control import cloud
from crossway.control.address import Space, number
from crossway.control.cloud import Bucket
from crossway.model.subnet import Pool, Subnet

MOVES = st.lists(st.tuples(st.sampled_from(["add", "remove", "look"]), st.sampled_from("abcdefgh")), max_size=60)


@given(moves=MOVES, most=st.sampled_from([0, 2, 500]))
def test_a_bucket_is_in_order_whatever_came_and_went_between_two_looks(moves: list[tuple[str, str]], most: int) -> None:
    usual, cloud.MOVED = cloud.MOVED, most
    try:
        bucket, model = Bucket("a"), {"a"}
        for what, id in moves:
            if what == "add":
                bucket.add(id)
                model.add(id)
            elif what == "remove":
                bucket.remove(id)
                model.discard(id)
            else:
                assert bucket.in_order() == sorted(model)
            assert (len(bucket), set(bucket)) == (len(model), model)
        assert bucket.in_order() == sorted(model)
    finally:
        cloud.MOVED = usual


def subnet(first: int, last: int) -> Subnet:
    pool = Pool(f"10.0.0.{first}", f"10.0.0.{last}")
    return Subnet(
        id="s", project_id="p", network_id="n", ip_version=4, cidr="10.0.0.0/28", gateway_ip=None,
        allocation_pools=(pool,),
    )  # fmt: skip


STEPS = st.lists(
    st.tuples(st.sampled_from(["take", "free", "lend", "give back", "resize"]), st.integers(1, 14)), max_size=60
)


@given(steps=STEPS)
def test_a_space_lends_each_free_address_of_its_pools_once(steps: list[tuple[str, int]]) -> None:
    first, last = 3, 10
    space = Space(subnet(first, last))
    taken: set[str] = set()
    lent: list[str] = []
    for what, n in steps:
        ip = f"10.0.0.{n}"
        if what == "take":
            space.take(ip, "port")
            taken.add(ip)
        elif what == "free":
            space.free(ip)
            taken.discard(ip)
        elif what == "lend":
            got = space.next()
            free = {f"10.0.0.{n}" for n in range(first, last + 1)} - taken - set(lent)
            if got is not None:
                assert got in free
                lent.append(got)
            else:
                assert not free
        elif what == "give back" and lent:
            space.give_back(lent.pop(n % len(lent)))
        elif what == "resize":
            first, last = sorted((first, n))
            space.resize(subnet(first, last))
        assert space.taken.keys() == taken
        assert space.pooled == sum(first <= number(ip) % 256 <= last for ip in taken)
