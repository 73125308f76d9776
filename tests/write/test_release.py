"""Promises with an end: what is left of the expired ones goes, and nothing else."""

from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.base.clock import now
from appliance.base.ids import uuid7
from appliance.kernel.context import Door
from appliance.write.release import Promise, Watch, left_of, release_due
from tests.tenants import create

pytestmark = pytest.mark.anyio
LEDGER = {
    "sort": "balance", "at": "at", "key": ["thing"], "values": ["quantity"], "floor": True,
    "until": "until",
}  # fmt: skip
FIELDS = [
    {"name": "thing", "type": "text", "required": True},
    {"name": "at", "type": "moment", "filterable": False},
    {"name": "until", "type": "moment", "filterable": False},
    {"name": "quantity", "type": "number", "options": {"scale": 3}, "required": True},
]


@pytest.fixture
async def promises(tenant):
    await tenant.add_kind("promise", FIELDS, ledger=LEDGER)
    return tenant


async def left(tenant):
    rows = await tenant.sql(
        "SELECT data->>'thing', sum((data->>'quantity')::numeric)::text FROM entry "
        "WHERE kind = 'promise' GROUP BY 1 ORDER BY 1"
    )
    return {thing: Decimal(n) for thing, n in rows}


async def release(tenant):
    return await release_due(tenant.db, await tenant.ctx(door=Door.SYSTEM))


async def test_what_is_left_of_expired_ones_goes_once(promises):
    past, ahead = now() - timedelta(hours=1), now() + timedelta(hours=1)

    async def promise(thing, quantity, until=None, **more):
        fields = {"thing": thing, "quantity": quantity, **more}
        if until:
            fields["until"] = until.isoformat()
        (outcome,) = (await promises.apply(create("promise", **fields))).outcomes
        return str(outcome.id)

    watch = Watch()
    assert not await watch.has_open(promises.db, promises.id)
    await promise("whole", "5", past)
    assert await watch.has_open(promises.db, promises.id)
    await promise("part", "5", past)
    await promise("part", "4", ahead)
    await promise("part", "-3")
    await promise("used", "5", past)
    await promise("used", "-5")
    await promise("endless", "5")
    back = await promise("reversed", "5", past)
    await promises.apply(create("promise", reverses=back))
    assert await release(promises) == 2
    assert await left(promises) == {
        "whole": 0, "part": 4, "used": 0, "endless": 5, "reversed": 0
    }  # fmt: skip
    assert await release(promises) == 0, "a second time there is nothing to do"
    await promise("whole", "2", past)
    assert await release(promises) == 1
    for thing, quantity in (("part", "-4"), ("endless", "-5")):
        await promise(thing, quantity)
    assert not await watch.has_open(promises.db, promises.id)
    second = {**LEDGER, "floor": False}
    await promises.add_kind("pledge", FIELDS, ledger=second)
    await promises.apply(create("pledge", thing="new", quantity="1", until=past.isoformat()))
    assert await watch.has_open(promises.db, promises.id), "a ledger that came later is seen"


ENTRIES = st.lists(
    st.tuples(st.integers(1, 20), st.none() | st.integers(-5, 5)) | st.integers(-10, -1),
    max_size=12,
)


@given(ENTRIES)
def test_taken_is_taken_from_the_one_that_ends_first(drawn):
    moment = now()
    entries = [
        e if isinstance(e, int)
        else Promise(uuid7(), None, moment + timedelta(days=e[1]) if e[1] is not None else None, e[0], {})
        for e in drawn
    ]  # fmt: skip
    given_, taken = ([e for e in drawn if not isinstance(e, int)],
                     -sum(e for e in drawn if isinstance(e, int)))  # fmt: skip
    found = left_of(entries)
    assert sum(p.left for p in found) == max(0, sum(n for n, _ in given_) - taken)
    # A piece at a time: each piece that was taken comes off the promise that ends first.
    pieces = sorted((99 if end is None else end) for n, end in given_ for _ in range(n))[taken:]
    for end in {e for _, e in given_}:
        expected = sum(1 for p in pieces if p == (99 if end is None else end))
        until = moment + timedelta(days=end) if end is not None else None
        assert sum(p.left for p in found if p.until == until) == expected
