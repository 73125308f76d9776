"""The prices that lines are chosen from equal a naive recomputation, corrections included."""

from datetime import UTC, datetime
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.pricing.shelf import force_statement
from tests.tenants import create

pytestmark = pytest.mark.anyio
PRICE = [
    {"name": "product", "type": "reference", "options": {"target": "product"}, "required": True},
    {"name": "price_type", "type": "text", "required": True},
    {"name": "valid_from", "type": "moment", "filterable": False},
    {"name": "price", "type": "number", "options": {"scale": 2}},
]
LEDGER = {"sort": "state", "at": "valid_from", "key": ["product", "price_type"],
          "values": ["price"]}  # fmt: skip
# Few moments, so that two entries of one key often fall on the same one.
MOMENTS = st.integers(1, 9).map(lambda day: datetime(2026, 3, day, tzinfo=UTC))
STEPS = st.tuples(
    st.integers(0, 2), st.sampled_from(["retail", "wholesale"]), MOMENTS,
    st.none() | st.integers(1, 9999), st.booleans(),
)  # fmt: skip


@pytest.fixture
async def shop(tenant):
    await tenant.add_kind("product", [("name", "text")], home="shared")
    await tenant.add_kind("price", PRICE, home="shared", ledger=LEDGER)
    return tenant


@given(st.lists(STEPS, max_size=16), MOMENTS)
@settings(max_examples=25)
async def test_prices_in_force_equal_a_naive_recomputation(shop, steps, asof):
    made = (await shop.apply(*(create("product", name=f"P{n}") for n in range(3)))).outcomes
    products, live = [o.id for o in made], []
    for p, type_, at, cents, is_reversed in steps:
        price = {"price": str(Decimal(cents).scaleb(-2))} if cents is not None else {}
        entry = create(
            "price", product=str(products[p]), price_type=type_, valid_from=at.isoformat(), **price
        )
        (written,) = (await shop.apply(entry)).outcomes
        if is_reversed:
            assert (await shop.apply(create("price", reverses=str(written.id)))).committed
        else:
            live.append(((products[p], type_), at, written.id, cents))
    # The last product is not asked for: its prices stay out.
    asked = products[:2]
    assert await in_force(shop, asked, asof) == naive(asked, live, asof)


def naive(asked, live, asof):
    """By key: the last live entry up to a moment, its price, when the next one begins."""
    found = {}
    for key in {entry[0] for entry in live if entry[0][0] in asked}:
        of_key = [(at, ident, cents) for k, at, ident, cents in live if k == key]
        begun = [entry for entry in of_key if entry[0] <= asof]
        if begun:
            _, ident, cents = max(begun)
            until = min((at for at, *_ in of_key if at > asof), default=None)
            price = Decimal(cents).scaleb(-2) if cents is not None else None
            found[key] = (str(ident), price, until)
    return found


async def in_force(shop, asked, asof):
    """The same from the ledger, under the program's own role."""
    kind = (await shop.ctx()).schema.kind("price")
    call = (force_statement(kind), (shop.id, "price", asked, asof))
    (rows,) = await shop.db.read(shop.id, call)
    found = {}
    for ident, raw, _, until in rows:
        data = {f.name: v for f in kind.fields if (v := msgspec.json.decode(raw).get(f.fid))}
        key = next(p for p in asked if str(p) == data["product"]), data["price_type"]
        assert key not in found, "one price at a time"
        price = Decimal(data["price"]) if "price" in data else None
        ends = datetime.fromtimestamp(int(until) / 1000, UTC) if until else None
        found[key] = (ident.decode(), price, ends)
    return found
