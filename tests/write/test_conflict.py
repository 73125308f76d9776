"""Optimistic concurrency by the fields that were seen: the same rule as between nodes."""

import pytest

from appliance.write import Applied, Conflict
from tests.tenants import create, update

pytestmark = pytest.mark.anyio


@pytest.fixture
async def card(tenant):
    await tenant.add_kind(
        "card",
        [
            ("name", "text"), ("city", "text"), {"name": "seen", "type": "integer", "policy": "max"},
            {"name": "hint", "type": "text", "policy": "newest"},
            {"name": "street", "type": "text", "group": "address"},
            {"name": "house", "type": "text", "group": "address"},
            {"name": "tags", "type": "multi_choice", "options": {"choices": [{"key": k} for k in "abc"]}},
        ],
    )  # fmt: skip
    made = await tenant.apply(
        create("card", name="A", city="K", seen=5, street="s", house="1", tags=["a"])
    )
    return tenant, made.outcomes[0]


async def test_another_field_is_no_conflict(card):
    tenant, made = card
    await tenant.apply(update("card", made.id, made.version, name="B"))
    late = (await tenant.apply(update("card", made.id, made.version, city="L"))).outcomes[0]
    assert isinstance(late, Applied)


async def test_the_same_field_conflicts_with_both_values_and_the_base(card):
    tenant, made = card
    first = (await tenant.apply(update("card", made.id, made.version, name="B"))).outcomes[0]
    late = (await tenant.apply(update("card", made.id, made.version, name="C"))).outcomes[0]
    assert isinstance(late, Conflict)
    (found,) = late.fields
    assert (found.field, found.mine, found.theirs, found.base) == ("name", "C", "B", "A")
    assert found.who == tenant.people["owner"]
    assert late.version == first.version
    assert (await tenant.apply(update("card", made.id, late.version, name="C"))).committed


async def test_equal_values_collapse(card):
    tenant, made = card
    await tenant.apply(update("card", made.id, made.version, name="B"))
    assert (await tenant.apply(update("card", made.id, made.version, name="B"))).committed


async def test_a_group_conflicts_as_one(card):
    tenant, made = card
    await tenant.apply(update("card", made.id, made.version, street="t"))
    late = (await tenant.apply(update("card", made.id, made.version, house="2"))).outcomes[0]
    assert isinstance(late, Conflict)


async def test_policies_settle_without_a_person(card):
    tenant, made = card
    await tenant.apply(update("card", made.id, made.version, seen=9, hint="x", tags=["a", "b"]))
    late = await tenant.apply(
        update("card", made.id, made.version, seen=7, hint="y", tags=["a", "c"])
    )
    assert late.committed
    rows = await tenant.sql(
        "SELECT data->>'seen', data->>'hint', data->>'tags' FROM record WHERE id = $1", made.id
    )
    assert rows == [["9", "y", '["a", "b", "c"]']]
