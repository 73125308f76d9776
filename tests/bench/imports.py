"""A price list of 100 000 rows × 8 columns: to its plan, to its effect, and again; with floors.

The floor of reading is calamine's bare read of the same columns and a COPY of the staged rows; the
floor of applying a COPY of the price entries into the ledger with its indexes.
"""

import asyncio
import tempfile
import time
from pathlib import Path
from uuid import UUID

import psycopg
import python_calamine
import xlsxwriter

from appliance.access.acting import act_as
from appliance.base.memory import collect_seldom
from appliance.intake import files, runs, steps
from appliance.kernel.context import Door
from tests import cluster, tenants
from tests.bench import harness
from tests.install.test_template import install

ROWS = 100_000
HEADER = [
    "Артикул",
    "Наименование",
    "Бренд",
    "Ед.",
    "В упаковке",
    "Остаток",
    "Цена розница, грн",
    "Цена опт, грн",
]


def make(path, step=0):
    book = xlsxwriter.Workbook(str(path), {"constant_memory": True})
    sheet = book.add_worksheet("Прайс")
    sheet.write_row(0, 0, HEADER)
    for n in range(1, ROWS + 1):
        price = n % 5_000 + 1.25 + step
        sheet.write_row(n, 0, [f"A{n:06}", f"Позиция прайса номер {n}", f"Бренд {n % 50}", "шт", n % 12 + 1,
                               n % 300, price, price * 0.8])  # fmt: skip
    book.close()


async def main():
    await harness.on_cluster(measure)


async def measure(db, dsns):
    with tempfile.TemporaryDirectory() as folder:
        await measure_in(db, dsns, Path(folder))


async def importer(db, dsns):
    """A firm, and its owner at the door of imports."""
    firm = await install(db, dsns, "multi_branch_sales")
    ((profile,),) = await firm.sql(
        "SELECT id::text FROM record WHERE kind = 'sys.profile' AND data->>'key' = 'owner'"
    )
    ctx = await act_as(
        db, firm.id, firm.people["owner"], UUID(profile), frozenset({firm.units["head"]}), origin=1,
        door=Door.INTAKE,
    )  # fmt: skip
    return firm, ctx


async def measure_in(db, dsns, folder):
    firm, ctx = await importer(db, dsns)
    path = folder / "list.xlsx"
    make(path)
    began = time.perf_counter()
    sheet = python_calamine.CalamineWorkbook.from_path(str(path)).get_sheet_by_index(0)
    read = sum(1 for _ in sheet.iter_rows())
    bare_read = time.perf_counter() - began
    assert read == ROWS + 1
    made, planned = await bring(db, ctx, folder, path)
    assert made.counts.get("new") == ROWS, (made.state, made.detail, made.counts)
    bare_copy = copy_floor(dsns, "intake_row", "no", 1)
    harness.report(
        "100 000 rows to the plan", planned * 1e3, (bare_read + bare_copy) * 1e3, "3", "ms"
    )
    began = time.perf_counter()
    await runs.move(db, firm.id, made.id, ["planned"], "applying")
    await steps.carry_out(db, firm.id, made.id, 1, quiet, suspicious=False)
    applied = time.perf_counter() - began
    done = await runs.get_run(db, firm.id, made.id)
    assert done.counts["applied"] == ROWS, done.counts
    entries = copy_floor(dsns, "entry", "id", 2)
    harness.report(
        "approve to applied (200 000 prices, 100 000 new)",
        applied * 1e3,
        entries * 1e3,
        "3 (prices alone)",
        "ms",
    )
    again, repeated = await bring(db, ctx, folder, path)
    assert again.counts["unchanged"] == ROWS, again.counts
    harness.report(
        "the same file again", repeated * 1e3, planned * 1e3, "0.5 of the first time", "ms"
    )
    edited = folder / "edited.xlsx"
    make(edited, step=1)
    second, _ = await bring(db, ctx, folder, edited)
    assert second.counts["changed"] + second.counts.get("suspicious", 0) == ROWS, second.counts
    began = time.perf_counter()
    await runs.move(db, firm.id, second.id, ["planned"], "applying")
    await steps.carry_out(db, firm.id, second.id, 1, quiet, suspicious=True)
    harness.report(
        "200 000 changed prices applied",
        (time.perf_counter() - began) * 1e3,
        entries * 1e3,
        "3",
        "ms",
    )


async def bring(db, ctx, folder, path):
    async def chunks():
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                yield chunk

    began = time.perf_counter()
    received = await files.receive(folder, ctx.tenant, chunks())
    new = runs.NewRun(connector="price_list", source="Supplier", file_name="list.xlsx",
                      sha256=received.file, size=received.size)  # fmt: skip
    ident = runs.new_id()
    async with db.transaction(ctx.tenant) as tx:
        await tx.run(runs.insert_call(ctx, ident, new))
    await steps.prepare(db, ctx.tenant, ident, folder, 1, quiet)
    return await runs.get_run(db, ctx.tenant, ident), time.perf_counter() - began


def copy_floor(dsns, table, key, places):
    """Seconds of a COPY of the table's present rows into one like it, with its indexes."""
    with psycopg.connect(dsns.superuser, autocommit=True) as conn:
        conn.execute(f"CREATE TABLE bare (LIKE {table} INCLUDING ALL)")
        data = []
        with conn.cursor().copy(f"COPY {table} TO STDOUT") as copy:
            data += [bytes(block) for block in copy]
        began = time.perf_counter()
        with conn.cursor().copy("COPY bare FROM STDIN") as copy:
            for block in data:
                copy.write(block)
        took = time.perf_counter() - began
        conn.execute("DROP TABLE bare")
    return took


async def quiet(_done, _total):
    pass


if __name__ == "__main__":
    asyncio.run(main())
