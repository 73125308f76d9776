"""What a run would do, row by row: new, changed, unchanged, gone, suspicious or faulty.

Nothing is written but the plan. Limits that the plan runs into hold it until somebody looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from appliance.base import limits
from appliance.db.columns import Column
from appliance.db.database import Database
from appliance.db.wire import Statement
from appliance.intake.match import Catalogue, PriceType, Product, price_types
from appliance.intake.runs import IntakeRun, Options
from appliance.intake.stage import Change, Judge, Judged
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Json
from appliance.kernel.money import currencies
from connectors.sdk.contract import StagedRow

TEXT_MAX = 255
SORTS = ("new", "changed", "unchanged", "gone", "suspicious", "faulty")
# Fields of the product that a list may set, by the connector's word for each.
PRODUCT_FIELDS = {
    "name": "name", "barcode": "barcode", "category": "category", "brand": "brand",
    "pack_quantity": "pack_quantity", "description": "description",
}  # fmt: skip
# Two plain steps each: a fresh table has no statistics, and a planner that expects one row joins
# a hundred thousand with a hundred thousand in a loop.
_REPEATED = Statement(
    "SELECT key, min(no)::text, min(data::text) = max(data::text) FROM intake_row "
    "WHERE tenant_id = $1 AND run = $2 AND sort <> 'faulty' GROUP BY key HAVING count(*) > 1"
)
_TWINS = Statement(
    "UPDATE intake_row SET sort = 'faulty', faults = faults || jsonb_build_object("
    "'code', 'duplicate-key', 'expected', 'one row for a key', 'found', key, "
    "'place', jsonb_build_object('sheet', sheet, 'row', line)) WHERE tenant_id = $1 AND run = $2 "
    "AND sort <> 'faulty' AND key = ANY($3::text[])"
)
_SAME = Statement(
    "UPDATE intake_row SET sort = 'unchanged' WHERE tenant_id = $1 AND run = $2 "
    "AND sort <> 'faulty' AND key = ANY($3::text[]) AND no <> ALL($4::bigint[])"
)
_MATCHED = Statement(
    "SELECT target::text FROM intake_row WHERE tenant_id = $1 AND run = $2 AND target IS NOT NULL"
)
_GONE = Statement(
    "INSERT INTO intake_row (tenant_id, run, no, sheet, line, key, data, sort, target) "
    "SELECT $1, $2, $3 + row_number() OVER (ORDER BY p.id), '', 0, p.data->>'source_key', "
    "jsonb_build_object('sku', p.data->>'sku', 'name', p.data->>'name'), 'gone', p.id "
    "FROM record p WHERE p.tenant_id = $1 AND p.id = ANY($4::uuid[])"
)
_COUNT = Statement(
    "SELECT sort, count(*) FROM intake_row WHERE tenant_id = $1 AND run = $2 GROUP BY sort"
)


async def make_judge(db: Database, ctx: Ctx, run: IntakeRun, asof: datetime) -> Judge:
    """What says of each block of rows what it would do. Raises Invalid when modules are missing."""
    catalogue, types = Catalogue(ctx, run.source), await price_types(db, ctx)

    async def judge_block(staged: Sequence[StagedRow]) -> list[Judged]:
        rows = [fit({**r.values}) for r in staged]
        named = {n[6:] for r in rows for n in r if n.startswith("price:")}
        asked = [types[key].id for key in sorted(named & types.keys())]
        keys = [r.key for r in staged]
        found = await catalogue.find(db, rows, keys, types=asked, asof=asof)
        return [
            Judged("faulty") if s.faults else judge(r, m, types, run.options)
            for s, r, m in zip(staged, rows, found, strict=True)
        ]

    return judge_block


async def finish_plan(db: Database, ctx: Ctx, run: IntakeRun) -> dict[str, int]:
    """What only the whole list shows: keys that stand twice, products that are gone. The counts."""
    where = (ctx.tenant, run.id)
    await _mark_repeated(db, ctx.tenant, run.id)
    (matched,) = await db.read(ctx.tenant, (_MATCHED, where), timeout_ms=limits.EXPORT_TIMEOUT_MS)
    here = {UUID((i or b"").decode()) for i in matched.column()}
    gone = sorted(await Catalogue(ctx, run.source).of_source(db) - here)
    if gone:
        async with db.transaction(ctx.tenant, timeout_ms=limits.EXPORT_TIMEOUT_MS) as tx:
            await tx.run((_GONE, (*where, 1_000_000_000, Column("uuid", gone))))
    return await count_rows(db, ctx.tenant, run.id)


async def _mark_repeated(db: Database, tenant: UUID, run: UUID) -> None:
    """Rows of one key: the same twice is once, different things under one key are faults."""
    where = (tenant, run)
    (rows,) = await db.read(tenant, (_REPEATED, where), timeout_ms=limits.EXPORT_TIMEOUT_MS)
    found = [((k or b"").decode(), int(n or 0), same == b"t") for k, n, same in rows if k]
    twins = [k for k, _, same in found if not same]
    same = [(k, n) for k, n, same in found if same]
    async with db.transaction(tenant, timeout_ms=limits.EXPORT_TIMEOUT_MS) as tx:
        await tx.run(
            (_TWINS, (*where, Column("text", twins))),
            (
                _SAME,
                (
                    *where,
                    Column("text", [k for k, _ in same]),
                    Column("bigint", [n for _, n in same]),
                ),
            ),
        )


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
        if now == wanted and (held or (known.currency if known else "")) == currency:
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
        # A list is read with single blanks between words; that alone is no difference.
        same = before == value or (isinstance(before, str) and " ".join(before.split()) == value)
        if field == "pack_quantity" and before is not None:
            same = Decimal(str(before)) == Decimal(str(value))
        if not same:
            found.append(Change(field, before, value))
    return found


def _is_near(now: Decimal, wanted: Decimal, factor: int) -> bool:
    return wanted <= now * factor and now <= wanted * factor


def _fault(code: str, expected: str, found: str) -> dict[str, Json]:
    return {"code": code, "expected": expected, "found": found}


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
