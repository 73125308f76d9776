"""100 000 records as XLSX and as CSV, against the bare writer of the library and COPY … TO."""

import asyncio
import tempfile
import time

import msgspec
import psycopg
import xlsxwriter

from appliance.base.memory import collect_seldom
from appliance.kernel.query import decode_query
from appliance.read import export
from tests import cluster, tenants
from tests.bench import harness
from tests.bench.over_http import firm

ROWS = 100_000


async def main():
    await harness.on_cluster(measure)


async def measure(db, dsns):
    _, ctx, _ = await firm(db, dsns, "exports", ROWS)
    fields = [f.name for f in ctx.schema.kinds["deal"].fields if f.type != "rollup"][:5]
    query = decode_query({"from": "deal", "select": ["number", *fields]})
    rows = [msgspec.json.decode(r) for r in (await whole(db, ctx, query, "ndjson")).splitlines()]
    assert len(rows) == ROWS
    with psycopg.connect(dsns.superuser, autocommit=True) as conn:
        conn.execute("VACUUM ANALYZE record")
    ours = await timed(lambda: whole(db, ctx, query, "csv"))
    floor = await timed(lambda: asyncio.to_thread(copy_out, dsns, fields))
    harness.report("100 000 records as CSV", ours, floor, "2 (floor: COPY … TO)", "ms")
    ours = await timed(lambda: whole(db, ctx, query, "xlsx"))
    floor = await timed(lambda: asyncio.to_thread(bare_workbook, rows))
    harness.report("100 000 records as XLSX", ours, floor, "1.5 (floor: XlsxWriter)", "ms")


async def whole(db, ctx, query, form):
    return b"".join([chunk async for chunk in await export(db, ctx, query, form)])


async def timed(call):
    """Milliseconds, the better of two."""
    found = []
    for _ in range(2):
        began = time.perf_counter()
        await call()
        found.append((time.perf_counter() - began) * 1e3)
    return min(found)


def copy_out(dsns, fields):
    columns = ", ".join(f"data->>'{name}'" for name in fields)
    with psycopg.connect(dsns.superuser) as conn, conn.cursor() as cursor:
        text = f"COPY (SELECT number, {columns} FROM record WHERE kind = 'deal') TO STDOUT (FORMAT csv, HEADER)"
        with cursor.copy(text) as copy:
            return b"".join(bytes(piece) for piece in copy)


def bare_workbook(rows):
    with tempfile.NamedTemporaryFile(suffix=".xlsx") as file:
        book = xlsxwriter.Workbook(file.name, {"constant_memory": True})
        sheet = book.add_worksheet()
        for line, row in enumerate(rows):
            for place, value in enumerate(row.values()):
                if isinstance(value, int | float):
                    sheet.write_number(line, place, value)
                elif value is not None:
                    sheet.write_string(line, place, str(value))
        book.close()


if __name__ == "__main__":
    asyncio.run(main())
