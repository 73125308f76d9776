"""50 000 offers of a channel: computed, noted, written as a feed; each beside a bare COPY of as much.

The floor copies out what an offer is made of by one SQL statement (product, its reference, the price
in force, the balance) and joins nothing twice. Memory is what the process grows by.
"""

import gc
import tempfile
import time
from pathlib import Path

import psycopg

from appliance.base.ids import uuid7
from appliance.channels.channel import read_channel
from appliance.channels.feeds import write
from appliance.channels.groups import read_groups
from appliance.channels.offers import Scan, read_offers
from appliance.kernel.context import Door
from tests.bench import harness
from tests.channels.firm import Seller, UUID
from tests.install.firm import make_firm
from tests.tenants import create

OFFERS = 50_000
PART = 5_000
_COPY = """COPY (SELECT p.id, p.data, x.data->>'external_id', e.data->>'price', s.n
  FROM record p JOIN record x ON x.kind = 'external_ref' AND x.data->>'record' = p.id::text
  JOIN entry e ON e.kind = 'price' AND e.r1 = p.id
  JOIN (SELECT r1, sum(n1) AS n FROM turnover WHERE kind = 'stock_move' GROUP BY r1) s ON s.r1 = p.id
  WHERE p.kind = 'product') TO STDOUT"""


async def main():
    await harness.on_cluster(measure)


async def measure(db, dsns):
    seller = await Seller(db, await make_firm(db, dsns, "multi_branch_sales")).start(
        buffer_units="1"
    )
    await fill(seller)
    with psycopg.connect(dsns.superuser, autocommit=True) as conn:
        conn.execute("VACUUM ANALYZE")
    ctx = await seller.ctx()
    channel = await read_channel(db, ctx, UUID(seller.channel))
    scan = Scan(channel, await read_groups(db, ctx, channel), note=True)
    floor = min(copy_out(dsns), copy_out(dsns))
    first = await timed(lambda: count(db, ctx, scan))
    harness.report("50 000 offers, noted for the first time", first, floor, "- (floor: COPY)", "ms")
    before = resident()
    again = await timed(lambda: count(db, ctx, scan))
    harness.report("50 000 offers, nothing new", again, floor, "- (floor: COPY)", "ms")
    harness.figure("memory that a whole look grows by", resident() - before, "MB", "< 20")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "feed.xml"
        feed = await timed(lambda: write(db, ctx, channel, "yml", path))
        harness.report("the same as a YML feed", feed, floor, "- (floor: COPY)", "ms")
        harness.figure("its size", path.stat().st_size / 1e6, "MB", "-")


async def count(db, ctx, scan):
    found = 0
    async for block in read_offers(db, ctx, scan):
        found += len(block)
    assert found == OFFERS, found


async def fill(seller):
    ctx = await seller.firm.ctx(unit="head", door=Door.INSTALL)
    unit = seller.firm.units["head"]
    for start in range(0, OFFERS, PART):
        ids = [(n, uuid7()) for n in range(start, start + PART)]
        for made in (
            [create("product", i, name=f"Чайник {n}", sku=f"T{n}", brand="Leaf", category=f"C{n % 50}",
                    description="Електричний, 1.7 л") for n, i in ids],
            [create("price", product=str(i), price_type=seller.types["retail"], price=f"{n % 900 + 10}",
                    currency="UAH") for n, i in ids],
            [create("stock_move", product=str(i), warehouse=seller.north, quantity="9", reason="count",
                    unit=unit) for _, i in ids],
            [create("external_ref", system="shop", local_kind="product", external_id=f"m-{n}",
                    record=str(i)) for n, i in ids],
        ):  # fmt: skip
            result = await seller.firm.apply(*made, ctx=ctx)
            assert result.committed, result


def copy_out(dsns):
    began = time.perf_counter()
    size = 0
    with (
        psycopg.connect(dsns.superuser) as conn,
        conn.cursor() as cursor,
        cursor.copy(_COPY) as copy,
    ):
        for piece in copy:
            size += len(piece)
    assert size
    return (time.perf_counter() - began) * 1e3


async def timed(call):
    began = time.perf_counter()
    await call()
    return (time.perf_counter() - began) * 1e3


def resident():
    gc.collect()
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1e3
