"""Ledgers: facts that add up. Values in force and balances equal a naive recomputation."""

import asyncio
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import msgspec
import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.base.ids import uuid7
from appliance.kernel.ledger import reversal_id
from appliance.kernel.query import decode_query
from appliance.read import Cursors, run
from appliance.write import Applied, Rejected, rebuild, undo
from tests.tenants import create, delete, update

pytestmark = pytest.mark.anyio
CURSORS = Cursors(b"c" * 32)

PRICE = [
    {"name": "product", "type": "reference", "options": {"target": "product"}, "required": True},
    {"name": "price_type", "type": "text", "required": True},
    {"name": "valid_from", "type": "moment", "filterable": False},
    {"name": "price", "type": "number", "options": {"scale": 2}},
    {"name": "note", "type": "text", "filterable": False},
]
MOVE = [
    {"name": "product", "type": "reference", "options": {"target": "product"}, "required": True},
    {"name": "warehouse", "type": "reference", "options": {"target": "warehouse"}},
    {"name": "moved_at", "type": "moment", "filterable": False},
    {"name": "quantity", "type": "number", "options": {"scale": 3}, "required": True},
]


@pytest.fixture
async def shop(tenant):
    await tenant.add_kind("product", [("name", "text")], home="shared")
    await tenant.add_kind("warehouse", [("name", "text"), ("allow_negative", "yes_no")])
    price = {
        "sort": "state",
        "at": "valid_from",
        "key": ["product", "price_type"],
        "values": ["price"],
    }
    await tenant.add_kind("price", PRICE, home="shared", ledger=price)
    move = {
        "sort": "balance", "at": "moved_at", "key": ["product", "warehouse"],
        "values": ["quantity"], "floor": True, "unless": "warehouse.allow_negative",
    }  # fmt: skip
    await tenant.add_kind("stock_move", MOVE, ledger=move)
    return tenant


async def one(tenant, command):
    (outcome,) = (await tenant.apply(command)).outcomes
    return outcome


async def product(tenant, name="Bolt"):
    return str((await one(tenant, create("product", name=name))).id)


async def warehouse(tenant, **fields):
    return str((await one(tenant, create("warehouse", name="Main", **fields))).id)


async def answer(tenant, raw, **ctx):
    page = await run(tenant.db, await tenant.ctx(**ctx), decode_query(raw), CURSORS)
    return [msgspec.json.decode(r) for r in page.rows]


async def in_force(tenant, at):
    raw = {
        "from": "price",
        "select": ["product", "price_type", "price"],
        "in_force": True,
        "asof": at,
        "limit": 1000,
    }
    rows = await answer(tenant, raw)
    assert len({(r["product"], r["price_type"]) for r in rows}) == len(rows)
    return {(r["product"], r["price_type"]): r["price"] for r in rows}


async def balance(tenant, at=None, **ctx):
    raw = {
        "from": "stock_move", "balance": True, "limit": 1000, "group": ["product", "warehouse"],
        "select": [{"sum": "quantity", "as": "left"}], **({"asof": at} if at else {}),
    }  # fmt: skip
    return {(r["product"], r["warehouse"]): r["left"] for r in await answer(tenant, raw, **ctx)}


async def test_a_price_holds_until_the_next_one(shop):
    p = await product(shop)
    for day, price in (("2026-01-01", "10.00"), ("2026-03-01", "12.00"), ("2026-05-01", None)):
        fields = {
            "product": p,
            "price_type": "retail",
            "valid_from": f"{day}T00:00:00Z",
            "price": price,
        }
        assert isinstance(await one(shop, create("price", **fields)), Applied)
    assert await in_force(shop, "2025-12-31T23:59:59Z") == {}
    assert await in_force(shop, "2026-01-01T00:00:00Z") == {(p, "retail"): "10.00"}
    assert await in_force(shop, "2026-04-01T00:00:00Z") == {(p, "retail"): "12.00"}
    assert await in_force(shop, "2026-06-01T00:00:00Z") == {(p, "retail"): None}


async def test_facts_are_neither_changed_nor_deleted_by_anybody(shop, dsns):
    p = await product(shop)
    made = await one(shop, create("price", product=p, price_type="retail", price="1.00"))
    for command in (update("price", made.id, price="2.00"), delete("price", made.id)):
        refused = await one(shop, command)
        assert [f.code for f in refused.faults] == ["entry_fixed"]
    async with await psycopg.AsyncConnection.connect(dsns.pool_dsn) as conn:
        for text in (
            "UPDATE entry SET data = '{}'", "UPDATE entry SET at = now()",
            "UPDATE entry SET key = id", "DELETE FROM entry", "TRUNCATE entry",
        ):  # fmt: skip
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await conn.execute(text)
            await conn.rollback()


async def test_a_reversal_says_only_what_it_reverses_and_once(shop):
    p, w = await product(shop), await warehouse(shop)
    came = await one(shop, create("stock_move", product=p, warehouse=w, quantity="5.000"))
    wrong = await one(shop, create("stock_move", product=p, warehouse=w, quantity="7.000"))
    spoken = create("stock_move", reverses=str(wrong.id), quantity="1.000")
    assert [f.code for f in (await one(shop, spoken)).faults] == ["reversal_fixed"]
    undone = await one(shop, create("stock_move", reverses=str(wrong.id)))
    assert undone.id == reversal_id(wrong.id)
    assert await balance(shop) == {(p, w): "5.000"}
    again = await one(shop, create("stock_move", reverses=str(wrong.id)))
    assert [f.code for f in again.faults] == ["id_taken"]
    back = await one(shop, create("stock_move", reverses=str(undone.id)))
    assert [f.code for f in back.faults] == ["reversal_fixed"]
    nobody = await one(shop, create("stock_move", reverses=str(uuid7())))
    assert [f.code for f in nobody.faults] == ["reference_unknown"]
    assert came.number is None


async def test_undo_of_a_set_of_prices_brings_the_old_ones_back(shop):
    p, q = await product(shop, "A"), await product(shop, "B")
    await shop.apply(create("price", product=p, price_type="retail", price="1.00"))
    moment = datetime.now(UTC).isoformat()
    made = await shop.apply(
        create("price", product=p, price_type="retail", price="2.00", valid_from=moment),
        create("price", product=q, price_type="retail", price="3.00", valid_from=moment),
    )
    later = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    assert await in_force(shop, later) == {(p, "retail"): "2.00", (q, "retail"): "3.00"}
    assert (await undo(shop.db, await shop.ctx(), made.change_set)).committed
    assert await in_force(shop, later) == {(p, "retail"): "1.00"}


async def test_nobody_takes_what_is_not_there(shop):
    p, w = await product(shop), await warehouse(shop)
    loose = await warehouse(shop, allow_negative=True)
    await shop.apply(create("stock_move", product=p, warehouse=w, quantity="10.000"))

    def take(amount, where=w):
        return create("stock_move", product=p, warehouse=where, quantity=f"-{amount}")

    refused = await one(shop, take("10.001"))
    assert [f.code for f in refused.faults] == ["below_zero"]
    assert "10 are there" in refused.faults[0].detail
    both = await shop.apply(take("6.000"), take("6.000"), atomic=False)
    assert [type(o) for o in both.outcomes] == [Applied, Rejected]
    raced = await asyncio.gather(*(shop.apply(take("1.000")) for _ in range(8)))
    assert sum(r.committed for r in raced) == 4
    assert isinstance(await one(shop, take("3.000", loose)), Applied)
    assert await balance(shop) == {(p, w): "0.000", (p, loose): "-3.000"}


async def test_balances_lie_within_the_scope_of_units(shop):
    p, w = await product(shop), await warehouse(shop)
    for unit in ("north", "south"):
        move = create("stock_move", product=p, warehouse=w, quantity="2.000", unit=shop.units[unit])
        await shop.apply(move)
    assert await balance(shop) == {(p, w): "4.000"}
    from tests.tenants import only

    ctx = await shop.ctx()
    scoped = only(
        ctx.schema, "stock_move", {"read": "unit"},
        {f: "read" for f in ("product", "warehouse", "quantity", "moved_at", "reverses")},
    )  # fmt: skip
    raw = {"from": "stock_move", "balance": True, "select": [{"sum": "quantity", "as": "left"}]}
    assert await answer(shop, raw, profile=scoped) == [{"left": "2.000"}]


MOMENTS = st.datetimes(datetime(2025, 11, 1), datetime(2026, 3, 1)).map(
    lambda d: d.replace(microsecond=0, tzinfo=UTC)
)


STEPS = st.tuples(
    st.integers(0, 2), st.integers(0, 1), MOMENTS, st.integers(-999, 9999), st.booleans()
)


@given(st.lists(STEPS, max_size=12), MOMENTS)
@settings(max_examples=25)
async def test_in_force_and_balance_equal_a_naive_recomputation(shop, steps, asof):
    products = [await product(shop, f"P{n}") for n in range(3)]
    stores = [await warehouse(shop, allow_negative=True) for _ in range(2)]
    held, moves = defaultdict(list), defaultdict(Decimal)
    for p, s, at, cents, is_reversed in steps:
        amount, moment = str(Decimal(cents).scaleb(-2)), at.isoformat()
        price = create(
            "price", product=products[p], price_type=f"s{s}", valid_from=moment, price=amount
        )
        move = create(
            "stock_move", product=products[p], warehouse=stores[s], moved_at=moment, quantity=amount
        )
        first, second = (await shop.apply(price, move)).outcomes
        if is_reversed:
            undone = create("stock_move", reverses=str(second.id), moved_at=moment)
            await shop.apply(create("price", reverses=str(first.id)), undone)
        elif at <= asof:
            held[products[p], f"s{s}"].append((at, first.id, amount))
        if at <= asof:
            moves[products[p], stores[s]] += 0 if is_reversed else Decimal(amount)

    def ours(found):
        return {k: Decimal(v) for k, v in found.items() if k[0] in products}

    prices = {key: Decimal(max(found)[2]) for key, found in held.items()}
    assert ours(await in_force(shop, asof.isoformat())) == prices
    assert ours(await balance(shop, asof.isoformat())) == dict(moves)
    assert [d async for d in rebuild(shop.db, await shop.ctx())] == []
