"""What a run would do, row by row: new, changed, unchanged, gone, suspicious or faulty.

Nothing is written but the plan. Limits that the plan runs into hold it until somebody looks.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from uuid import UUID

import msgspec

from appliance.db.columns import Column
from appliance.db.database import Database
from appliance.db.wire import Statement
from appliance.intake.match import Catalogue, PriceType, Product, price_types
from appliance.intake.runs import IntakeRun, Options
from appliance.intake.stage import Report
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Json
from appliance.kernel.money import currencies

BLOCK = 1_000
TEXT_MAX = 255
SORTS = ("new", "changed", "unchanged", "gone", "suspicious", "faulty")
# Fields of the product that a list may set, by the connector's word for each.
PRODUCT_FIELDS = {
    "name": "name", "barcode": "barcode", "category": "category", "brand": "brand",
    "pack_quantity": "pack_quantity", "description": "description",
}  # fmt: skip
_NEXT = Statement(
    "SELECT no::text, key, data FROM intake_row WHERE tenant_id = $1 AND run = $2 "
    "AND sort = 'staged' AND no > $3 ORDER BY intake_row.no LIMIT $4"
)
_UPDATE = Statement(
    "UPDATE intake_row r SET sort = u.s, target = u.t, changes = u.c::jsonb, faults = u.f::jsonb "
    "FROM unnest($3::bigint[], $4::text[], $5::uuid[], $6::text[], $7::text[]) AS u(n, s, t, c, f) "
    "WHERE r.tenant_id = $1 AND r.run = $2 AND r.no = u.n"
)
_TWINS = Statement(
    "UPDATE intake_row r SET sort = 'faulty', faults = r.faults || jsonb_build_object("
    "'code', 'duplicate-key', 'expected', 'one row for a key', 'found', r.key, "
    "'place', jsonb_build_object('sheet', r.sheet, 'row', r.line)) FROM ("
    "SELECT key FROM intake_row WHERE tenant_id = $1 AND run = $2 AND sort = 'staged' AND key <> '' "
    "GROUP BY key HAVING count(DISTINCT data) > 1) d "
    "WHERE r.tenant_id = $1 AND r.run = $2 AND r.sort = 'staged' AND r.key = d.key"
)
_SAME = Statement(
    "UPDATE intake_row r SET sort = 'unchanged' FROM (SELECT key, min(no) AS first FROM intake_row "
    "WHERE tenant_id = $1 AND run = $2 AND sort = 'staged' GROUP BY key HAVING count(*) > 1) d "
    "WHERE r.tenant_id = $1 AND r.run = $2 AND r.sort = 'staged' AND r.key = d.key AND r.no > d.first"
)
_GONE = Statement(
    "INSERT INTO intake_row (tenant_id, run, no, sheet, line, key, data, sort, target) "
    "SELECT $1, $2, $3 + row_number() OVER (ORDER BY p.id), '', 0, p.data->>'source_key', "
    "jsonb_build_object('sku', p.data->>'sku', 'name', p.data->>'name'), 'gone', p.id "
    "FROM record p WHERE p.tenant_id = $1 AND p.kind = 'product' AND p.deleted_at IS NULL "
    "AND p.data->>'supplier' = $4 AND NOT EXISTS (SELECT 1 FROM intake_row r "
    "WHERE r.tenant_id = $1 AND r.run = $2 AND r.target = p.id)"
)
_COUNT = Statement(
    "SELECT sort, count(*) FROM intake_row WHERE tenant_id = $1 AND run = $2 GROUP BY sort"
)
_decode = msgspec.json.Decoder(dict[str, Json]).decode
_encode = msgspec.json.encode


class Change(msgspec.Struct, frozen=True, rename={"before": "from", "after": "to"}):
    """One field's step; a price is named `price:<type>` and carries its currency."""

    field: str
    before: Json
    after: Json
    currency: str = ""


class Judged(msgspec.Struct, frozen=True):
    """What the plan says of a row."""

    sort: str
    target: UUID | None = None
    changes: tuple[Change, ...] = ()
    faults: tuple[dict[str, Json], ...] = ()


async def make_plan(
    db: Database, ctx: Ctx, run: IntakeRun, asof: datetime, report: Report
) -> dict[str, int]:
    """Judge every staged row; the counts by class."""
    catalogue, types = Catalogue(ctx, run.source), await price_types(db, ctx)
    where = (ctx.tenant, run.id)
    async with db.transaction(ctx.tenant) as tx:
        await tx.run((_TWINS, where), (_SAME, where))
    last, done, total = -1, 0, sum((await count_rows(db, ctx.tenant, run.id)).values())
    while True:
        (page,) = await db.read(ctx.tenant, (_NEXT, (*where, last, BLOCK)))
        numbers = [int(n or 0) for n, _, _ in page]
        if not numbers:
            break
        keys = [(k or b"").decode() for _, k, _ in page]
        rows = [fit(_decode(d or b"{}")) for _, _, d in page]
        found = await catalogue.find(db, rows, keys, asof)
        judged = [judge(r, m, types, run.options) for r, m in zip(rows, found, strict=True)]
        await _keep(db, ctx.tenant, run.id, numbers, judged)
        last, done = numbers[-1], done + len(numbers)
        await report(done, total)
    async with db.transaction(ctx.tenant) as tx:
        await tx.run((_GONE, (*where, 1_000_000_000, run.source)))
    return await count_rows(db, ctx.tenant, run.id)


def fit(row: dict[str, Json]) -> dict[str, Json]:
    """Suppliers write whole specifications into a name: the start of it is the name, all of it the
    description.
    """
    name = row.get("name")
    if isinstance(name, str) and len(name) > TEXT_MAX:
        row = {**row, "description": row.get("description") or name, "name": _cut(name)}
    return {k: _cut(v) if k in ("category", "brand") else v for k, v in row.items()}


def _cut(value: Json) -> Json:
    if not isinstance(value, str) or len(value) <= TEXT_MAX:
        return value
    return value[: TEXT_MAX - 1].rstrip() + "…"


def judge(
    row: dict[str, Json], found: list[Product], types: dict[str, PriceType], options: Options
) -> Judged:
    """One row against what is here. `types` that are not there yet will be made."""
    if len(found) > 1:
        listed = ", ".join(str(p.data.get("sku") or p.id) for p in found[:3])
        return Judged("faulty", faults=(_fault("several-matches", "one product", listed),))
    product = found[0] if found else None
    steps, faults, jumps = list(_product_steps(row, product)), [], False
    for name, value in row.items():
        if not name.startswith("price:") or value is None:
            continue
        key = name[6:]
        known = types.get(key)
        currency = str(row.get(f"currency:{key}") or (known.currency if known else "") or "UAH")
        if currency not in currencies():
            faults.append(_fault("currency-unknown", "an ISO 4217 code", currency))
            continue
        now, held = product.prices.get(known.id, (None, "")) if product and known else (None, "")
        wanted = Decimal(str(value))
        if now == wanted and held == currency:
            continue
        if now and held == currency and not _is_near(now, wanted, options.price_factor_max):
            jumps = True
        steps.append(Change(name, f"{now:f}" if now is not None else None, str(value), currency))
    if faults:
        return Judged("faulty", product.id if product else None, tuple(steps), tuple(faults))
    if product is None:
        return Judged("new", None, tuple(steps))
    sort = "suspicious" if jumps else "changed" if steps else "unchanged"
    return Judged(sort, product.id, tuple(steps))


def _product_steps(row: dict[str, Json], product: Product | None) -> list[Change]:
    found = []
    for word, field in PRODUCT_FIELDS.items():
        value = row.get(word)
        if value in (None, ""):
            continue
        before = product.data.get(field) if product else None
        same = before == value
        if field == "pack_quantity" and before is not None:
            same = Decimal(str(before)) == Decimal(str(value))
        if not same:
            found.append(Change(field, before, value))
    return found


def _is_near(now: Decimal, wanted: Decimal, factor: int) -> bool:
    return wanted <= now * factor and now <= wanted * factor


def _fault(code: str, expected: str, found: str) -> dict[str, Json]:
    return {"code": code, "expected": expected, "found": found}


async def _keep(
    db: Database, tenant: UUID, run: UUID, numbers: list[int], judged: list[Judged]
) -> None:
    columns = (
        Column("bigint", numbers), Column("text", [j.sort for j in judged]),
        Column("uuid", [j.target for j in judged]),
        Column("text", [_encode(j.changes).decode() for j in judged]),
        Column("text", [_encode(j.faults).decode() for j in judged]),
    )  # fmt: skip
    async with db.transaction(tenant) as tx:
        await tx.run((_UPDATE, (tenant, run, *columns)), commit=True)


async def count_rows(db: Database, tenant: UUID, run: UUID) -> dict[str, int]:
    """Rows of a run by class."""
    (rows,) = await db.read(tenant, (_COUNT, (tenant, run)))
    return {(s or b"").decode(): int(n or 0) for s, n in rows}


def limits_hit(counts: dict[str, int], options: Options) -> list[str]:
    """The limits a plan runs into, in words; whoever approves must name them."""
    rows = sum(n for s, n in counts.items() if s != "gone")
    known = counts.get("changed", 0) + counts.get("unchanged", 0) + counts.get("suspicious", 0)
    found = []
    for sort, of, most in (
        ("gone", known + counts.get("gone", 0), options.gone_share_max),
        ("changed", known, options.changed_share_max),
        ("faulty", rows, options.faulty_share_max),
    ):
        share = counts.get(sort, 0) * 100 // of if of else 0
        if share > most:
            found.append(f"{sort}: {share} % (limit {most} %)")
    if counts.get("suspicious"):
        found.append(
            f"suspicious: {counts['suspicious']} prices beyond factor {options.price_factor_max}"
        )
    return found
