"""Matching 10 000 bank lines against 50 000 open invoices, to proposals that are kept; with a floor.

The floor fetches the same invoices with their sums and the same lines by bare SQL, and copies as many
rows as there are proposals into a table with the indexes of records.
"""

import random
import time

import psycopg

from appliance.banking import propose_matches
from appliance.base.ids import uuid7
from appliance.kernel.context import Door
from tests.bench import harness
from tests.install.test_template import install
from tests.tenants import create

CUSTOMERS, INVOICES, LINES = 5_000, 50_000, 10_000
PART = 5_000
_FETCH = """SELECT i.id, i.number, i.data, sum(l.n2) FROM record i JOIN record l ON
  l.tenant_id = i.tenant_id AND l.kind = 'invoice_line' AND l.r1 = i.id
  WHERE i.kind = 'invoice' GROUP BY i.tenant_id, i.id, i.number, i.data"""


async def main():
    await harness.on_cluster(measure)


async def measure(db, dsns):
    random.seed(1)
    firm = await install(db, dsns, "multi_branch_sales")
    await fill(firm)
    ctx = await firm.ctx(unit="head")
    began = time.perf_counter()
    done = await propose_matches(db, ctx)
    ours = time.perf_counter() - began
    assert done.lines == LINES and done.invoices >= INVOICES, done
    assert done.lines_proposed > LINES * 0.6, done
    bare = floor(dsns, firm, done.proposed)
    harness.report("match 10 000 lines, 50 000 invoices", ours * 1e3, bare * 1e3, "< 60 s", "ms")
    harness.figure("proposals", done.proposed, "", "-")
    began = time.perf_counter()
    await propose_matches(db, await firm.ctx(unit="head"))
    harness.figure("again, nothing new", time.perf_counter() - began, "s", "< 60 s")


async def fill(firm):
    """Payments as they come: with a number, with a tax id, with a name, in part, for nothing."""
    head = str(firm.units["head"])
    assert head
    ctx = await firm.ctx(door=Door.INSTALL, unit="head")
    people = [uuid7() for _ in range(CUSTOMERS)]
    await written(firm, ctx, [
        create("customer", c, name=f"ТОВ Ромашка {n}", tax_id=f"{30_100_000 + n}")
        for n, c in enumerate(people)
    ])  # fmt: skip
    bills = []
    for n in range(INVOICES):
        who = random.randrange(CUSTOMERS)
        bills.append((uuid7(), who, f"{random.randrange(100, 9_000_000) / 100:.2f}", n))
    await written(firm, ctx, [
        create("invoice", i, customer=str(people[who]), state="sent", issued=f"2026-10-{n % 28 + 1:02}")
        for i, who, _, n in bills
    ])  # fmt: skip
    await written(firm, ctx, [
        create("invoice_line", invoice=str(i), text="x", quantity="1", unit_price=amount)
        for i, _, amount, _ in bills
    ])  # fmt: skip
    rows = await firm.sql("SELECT id::text, number FROM record WHERE kind = 'invoice'")
    numbers = dict(rows)
    account = uuid7()
    await written(
        firm, ctx, [create("bank_account", account, account="UA1", currency="UAH", name="A")]
    )
    lines = []
    for n in range(LINES):
        ident, who, amount, _ = bills[random.randrange(INVOICES)]
        said = [
            {"purpose": f"Оплата за рахунок {numbers[str(ident)]} від 01.10.2026, ПДВ 20% 10-00"},
            {"counterparty_tax_id": f"{30_100_000 + who}", "purpose": "Оплата за товар"},
            {"counterparty": f"РОМАШКА {who}, ТОВ", "purpose": "оплата за послуги"},
            {"purpose": f"частково за {numbers[str(ident)]}", "part": True},
            {"counterparty": "Кафе", "purpose": "Повернення", "odd": True},
        ][n % 5]  # fmt: skip
        if said.pop("part", False):
            amount = f"{max(float(amount) / 2, 0.01):.2f}"
        if said.pop("odd", False):
            amount = "0.77"
        lines.append(
            create("bank_line", account=str(account), booked="2026-11-05", amount=amount,
                   currency="UAH", fingerprint=str(n), **said)
        )  # fmt: skip
    await written(firm, ctx, lines)


async def written(firm, ctx, commands):
    for start in range(0, len(commands), PART):
        done = await firm.apply(*commands[start : start + PART], ctx=ctx)
        assert done.committed, done.outcomes[:3]


def floor(dsns, firm, rows):
    """Bare SQL of the same size, under the owner's role."""
    with psycopg.connect(dsns.pool_owner) as conn:
        conn.execute("SELECT set_config('nexus.tenant', %s, false)", (str(firm.id),))
        conn.execute("ANALYZE record")
        conn.execute("CREATE TEMP TABLE kept (LIKE record INCLUDING INDEXES)")
        like = conn.execute(
            "SELECT kind, stream, data::text, stamps, created_at, created_by, updated_at, updated_by, "
            "r1, r2 FROM record WHERE kind = 'bank_match' LIMIT 1"
        ).fetchone()
        began = time.perf_counter()
        assert len(conn.execute(_FETCH).fetchall()) >= INVOICES
        conn.execute("SELECT id, data FROM entry WHERE kind = 'bank_line'").fetchall()
        columns = (
            "tenant_id, id, kind, stream, data, stamps, created_at, created_by, updated_at, "
            "updated_by, r1, r2"
        )
        with conn.cursor().copy(f"COPY kept ({columns}) FROM STDIN") as copy:
            for _ in range(rows):
                copy.write_row((firm.id, uuid7(), *like))
        return time.perf_counter() - began
