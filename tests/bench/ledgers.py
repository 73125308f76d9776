"""A million prices and a million movements: what a line costs, what was there on a day.

Database time is that of the server alone, from EXPLAIN ANALYZE under the program's own role.
"""

import asyncio
import json
import random
import re
import statistics
import time
from datetime import UTC, datetime, timedelta

import psycopg
from psycopg.types.string import TextLoader

from appliance.base.clock import now
from appliance.kernel.context import Door
from appliance.kernel.query import decode_query
from appliance.pricing import Asked, find_prices
from appliance.pricing.shelf import force_statement
from appliance.read import plan_query
from tests import cluster, tenants
from tests.bench import harness
from tests.install.test_template import install
from tests.tenants import create

PRODUCTS, DATES = 20_000, 25
MOVED, WEEKS = 2_000, 500
BUSY_MONTH = 5_000
LINES = 50
COPIES = """INSERT INTO entry SELECT tenant_id, uuidv7() AS id, kind, stream, unit_id, owner_id, number,
  data, stamps, created_at, created_by, updated_at, updated_by, deleted_at, deleted_by, search,
  t1, t2, t3, t4, t5, t6, t7, t8, t9, t10, n1, n2, n3, n4, n5, n6, n7, n8,
  d1, d2, d3, d4, d5, d6, r1, r2, r3, r4, r5, r6, r7, r8, {at}, key, reverses
  FROM entry, generate_series(1, %s) g WHERE {which}"""
CLONE = COPIES.format(at="at - g * interval '7 days'", which="kind = %s")
# All in the month of the day that is asked for, which no sum of a whole month covers.
BUSY = COPIES.format(
    at="date_trunc('month', at, 'UTC')",
    which="id = (SELECT id FROM entry WHERE kind = 'stock_move' AND r1 = %s AND at <= %s "
    "ORDER BY at DESC LIMIT 1)",
)
TURN = """INSERT INTO turnover (tenant_id, kind, key, month, unit_id, n1, r1, r2, r3)
  SELECT tenant_id, kind, key, date_trunc('month', at, 'UTC'), coalesce(unit_id, '00000000-0000-0000-0000-000000000000'),
  sum(n1), max(r1::text)::uuid, max(r2::text)::uuid, max(r3::text)::uuid FROM entry WHERE kind = 'stock_move'
  GROUP BY 1, 2, 3, 4, 5 ON CONFLICT (tenant_id, kind, key, month, unit_id) DO UPDATE SET n1 = EXCLUDED.n1"""


async def main():
    await harness.on_cluster(measure)


async def measure(db, dsns):
    firm = await install(db, dsns, "multi_branch_sales")
    products = await fill(firm, dsns)
    await prices(db, dsns, firm, products)
    await balances(db, dsns, firm, products)


async def fill(firm, dsns):
    """Both ledgers by the write path, then every entry again at earlier moments."""
    ctx = await firm.ctx(door=Door.INSTALL)
    ids = []
    types = [
        r[0]
        for r in await firm.sql(
            "SELECT id::text FROM record WHERE kind = 'price_type' ORDER BY data->>'order'"
        )
    ][:2]
    (store,) = await made(firm, ctx, [create("warehouse", name="Store")])
    for start in range(0, PRODUCTS, 5_000):
        news = range(start, min(PRODUCTS, start + 5_000))
        part = await made(firm, ctx, [create("product", name=f"Product {n}") for n in news])
        ids += part
        await made(firm, ctx, [
            create("price", product=str(i), price_type=t, price="12.5", currency="UAH")
            for i in part for t in types
        ])  # fmt: skip
    await made(firm, ctx, [
        create("stock_move", product=str(i), warehouse=str(store), quantity="3", reason="receipt")
        for i in ids[:MOVED]
    ])  # fmt: skip
    await made(firm, ctx, [
        create("reservation", product=str(i), warehouse=str(store), quantity="1") for i in ids[:MOVED]
    ])  # fmt: skip
    with psycopg.connect(dsns.superuser, autocommit=True) as conn:
        conn.execute(CLONE, [DATES - 1, "price"])
        conn.execute(CLONE, [WEEKS - 1, "stock_move"])
        conn.execute("DELETE FROM turnover WHERE kind = 'stock_move'")
        conn.execute(TURN)
        conn.execute("VACUUM ANALYZE entry, turnover, record")
    return ids


async def made(firm, ctx, commands):
    """The ids of what was written."""
    result = await firm.apply(*commands, ctx=ctx)
    assert result.committed, result.outcomes[0]
    return [o.id for o in result.outcomes]


async def prices(db, dsns, firm, products):
    """Fifty lines of a document at once, against the one statement that finds their prices: bare,
    prepared on a connection without row security, its JSON undecoded.
    """
    ctx, at = await firm.ctx(), now()
    random.seed(7)
    asked = [[Asked(product=p) for p in random.sample(products, LINES)] for _ in range(40)]

    async def read(calls):
        return await db.read(firm.id, *calls)

    async def ours(lines):
        found = await find_prices(read, ctx, lines, at)
        assert all(a.unit_price is not None for a in found)

    floor = await psycopg.AsyncConnection.connect(
        dsns.superuser, autocommit=True, prepare_threshold=0
    )
    floor.adapters.register_loader("jsonb", TextLoader)
    await floor.execute("SET plan_cache_mode = force_generic_plan")
    text = named(force_statement(ctx.schema.kind("price")).sql.decode())

    async def bare(lines):
        values = (firm.id, "price", [a.product for a in lines], at)
        cursor = await floor.execute(text, numbered(values))
        assert len(await cursor.fetchall()) == 2 * LINES

    pids = {harness.postmaster(dsns.superuser)}
    figures = {ours: [], bare: []}
    for _ in range(harness.ROUNDS):
        for call, found in figures.items():
            began = harness.cpu_of(pids) + time.process_time()
            for lines in asked:
                await call(lines)
            found.append((harness.cpu_of(pids) + time.process_time() - began) / len(asked) * 1e6)
    await floor.close()
    report = [statistics.median(f) for f in figures.values()]
    harness.report(f"prices of {LINES} lines among 1 000 000", *report, "2")


async def balances(db, dsns, firm, products):
    """What is there and what is promised of a product as of days through the years; then of one
    that thousands of movements touch in the same month, by the server's clock.
    """
    ctx = await firm.ctx()

    def cost(ledger, product, day):
        raw = {
            "from": ledger, "balance": True, "asof": day.isoformat(), "limit": 1000,
            "select": [{"sum": "quantity", "as": "n"}], "group": ["product", "variant", "warehouse"],
            "where": {"field": "product", "op": "eq", "value": str(product)},
        }  # fmt: skip
        statement, params = plan_query(ctx, decode_query(raw)).call
        return server_ms(dsns, firm.id, statement.sql.decode(), params)

    days = [datetime.now(UTC) - timedelta(days=80 * n + 3) for n in range(40)]
    there = [cost("stock_move", p, d) for p, d in zip(products, days, strict=False)]
    harness.figure(
        "balance as of a day, among 1 000 000 movements", statistics.median(there), "ms", "5"
    )
    harness.figure("its slowest of 40", max(there), "ms", "5")
    promised = [cost("reservation", p, d) for p, d in zip(products, days, strict=False)]
    both = [a + b for a, b in zip(there, promised, strict=True)]
    harness.figure("balance, reserved and available", statistics.median(both), "ms", "5")
    with psycopg.connect(dsns.superuser, autocommit=True) as conn:
        conn.execute(BUSY, [BUSY_MONTH, products[0], datetime.now(UTC)])
        conn.execute("ANALYZE entry")
    busy = [cost("stock_move", products[0], datetime.now(UTC)) for _ in range(9)]
    harness.figure(f"of {BUSY_MONTH} movements this month", statistics.median(busy), "ms", "5")


def server_ms(dsns, tenant, text, params):
    """Milliseconds of planning and running inside the server."""
    with psycopg.connect(dsns.pool_dsn) as conn:
        conn.execute("SELECT set_config('nexus.tenant', %s, true)", [str(tenant)])
        asked = "EXPLAIN (ANALYZE, FORMAT JSON) " + named(text)
        (plan,) = conn.execute(asked, numbered(params)).fetchone()
        plan = json.loads(plan) if isinstance(plan, str) else plan
        return plan[0]["Planning Time"] + plan[0]["Execution Time"]


def named(text):
    """$n placeholders as psycopg knows them."""
    return re.sub(r"\$(\d+)", lambda m: f"%(p{m[1]})s", text.replace("%", "%%"))


def numbered(params):
    """Their values."""
    return {f"p{n}": value for n, value in enumerate(params, 1)}


if __name__ == "__main__":
    asyncio.run(main())
