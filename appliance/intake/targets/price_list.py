"""Price lists of any layout: products by key, and base prices of them.

Its writing half: the document of the run, price types that the list has and the tenant has not,
products and price entries.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from uuid import UUID

from appliance.base import limits
from appliance.db.columns import Column
from appliance.db.database import Database
from appliance.db.wire import Statement
from appliance.intake.ids import derived_id
from appliance.intake.match import Catalogue, PriceType, Product, price_types
from appliance.intake.plan import count_rows, limits_hit
from appliance.intake.runs import IntakeRun, Options
from appliance.intake.stage import Change, Judged
from appliance.intake.target import Finished, Phase, Row, Step, create, fault
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Json
from appliance.kernel.money import currencies
from appliance.write import Command, Op
from connectors.sdk.contract import StagedRow, Summary

TEXT_MAX = 255
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


class PriceLists:
    """The target of one run; see target.Target."""

    phases = (Phase(),)
    written = ("new", "changed")

    def __init__(self, db: Database, ctx: Ctx, run: IntakeRun, types: dict[str, PriceType]) -> None:
        self._db, self._ctx, self._run, self._types = db, ctx, run, types
        self._catalogue = Catalogue(ctx, run.source)

    @classmethod
    async def open(cls, db: Database, ctx: Ctx, run: IntakeRun) -> PriceLists:
        """Raises Invalid when modules are missing."""
        return cls(db, ctx, run, await price_types(db, ctx))

    async def judge(self, rows: Sequence[StagedRow]) -> list[Judged]:
        """See Target."""
        types, run = self._types, self._run
        read = [fit({**r.values}) for r in rows]
        named = {n[6:] for r in read for n in r if n.startswith("price:")}
        asked = [types[key].id for key in sorted(named & types.keys())]
        keys = [r.key for r in rows]
        found = await self._catalogue.find(self._db, read, keys, types=asked, asof=run.created_at)
        return [
            Judged("faulty") if s.faults else judge(r, m, types, run.options)
            for s, r, m in zip(rows, read, found, strict=True)
        ]

    async def finish(self, summary: Summary) -> Finished:
        """Keys that stand twice, products that are gone."""
        db, ctx, run = self._db, self._ctx, self._run
        where = (ctx.tenant, run.id)
        await _mark_repeated(db, ctx.tenant, run.id)
        (matched,) = await db.read(
            ctx.tenant, (_MATCHED, where), timeout_ms=limits.EXPORT_TIMEOUT_MS
        )
        here = {UUID((i or b"").decode()) for i in matched.column()}
        gone = sorted(await self._catalogue.of_source(db) - here)
        if gone:
            async with db.transaction(ctx.tenant, timeout_ms=limits.EXPORT_TIMEOUT_MS) as tx:
                await tx.run((_GONE, (*where, 1_000_000_000, Column("uuid", gone))))
        counts = await count_rows(db, ctx.tenant, run.id)
        return Finished(counts, tuple(limits_hit(counts, run.options)))

    async def prologue(self) -> list[Command]:
        """The document of the run, and price types that the list has and the tenant has not."""
        run, known = self._run, self._types
        wanted: dict[str, tuple[str, str]] = {}
        for table in run.mapping.tables if run.mapping else ():
            for column in table.columns:
                key = column.options.get("price_type", "retail")
                if column.target == "price" and key not in known:
                    wanted.setdefault(
                        key, (column.header or key, column.options.get("currency", "UAH"))
                    )
        document: dict[str, Json] = {
            "title": run.file_name, "supplier": run.source, "state": "active",
            "file_hash": run.sha256,
        }  # fmt: skip
        commands = [create("price_list", derived_id(run.id, "document"), document)]
        for key, (name, currency) in wanted.items():
            ident = derived_id(run.id, f"type:{key}")
            known[key] = PriceType(ident, key, currency)
            values: dict[str, Json] = {
                "key": key, "name": " ".join(name.split()), "currency": currency,
            }  # fmt: skip
            commands.append(create("price_type", ident, values))
        return commands

    async def compose(self, rows: Sequence[Row], phase: Phase) -> list[Step]:
        """See Target."""
        return [self._step(row) for row in rows]

    def _step(self, row: Row) -> Step:
        run, data = self._run, fit(row.data)
        steps = {c.field: c.after for c in row.changes if c.field in PRODUCT_FIELDS.values()}
        found: list[Command] = []
        product = _product_id(run, row)
        if row.sort == "new":
            own: dict[str, Json] = {
                "supplier": run.source, "source_key": self._catalogue.own_key(row.key),
                "sku": data.get("sku"),
            }  # fmt: skip
            name = steps.get("name") or data.get("sku") or data.get("barcode")
            values = {**own, **steps, "name": name, "measure": data.get("unit") or "pcs"}
            found.append(create("product", product, values))
        elif steps:
            found.append(Command(op=Op.UPDATE, kind="product", id=product, fields=steps))
        moment = data.get("valid_from") or run.options.valid_from or run.created_at.isoformat()
        document = str(derived_id(run.id, "document"))
        for change in row.changes:
            if change.field.startswith("price:"):
                values = {
                    "product": str(product), "price_type": str(self._types[change.field[6:]].id),
                    "price": change.after, "currency": change.currency, "valid_from": moment,
                    "price_list": document,
                }  # fmt: skip
                ident = derived_id(run.id, f"{row.no}:{change.field}")
                # What has no price says so: the field is there and empty.
                found.append(Command(op=Op.CREATE, kind="price", id=ident, fields=values))
        return Step(row, tuple(found), product if row.sort == "new" else None)


def _product_id(run: IntakeRun, row: Row) -> UUID:
    if row.target is not None and row.sort != "new":
        return row.target
    return derived_id(run.id, row.key or str(row.no))


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
        return Judged("faulty", faults=(fault("several-matches", "one product", listed),))
    product = found[0] if found else None
    steps, faults, jumps = list(_product_steps(row, product)), [], False
    for name, value in row.items():
        if not name.startswith("price:") or value is None:
            continue
        key = name[6:]
        known = types.get(key)
        currency = str(row.get(f"currency:{key}") or (known.currency if known else "") or "UAH")
        if currency not in currencies():
            faults.append(fault("currency-unknown", "an ISO 4217 code", currency))
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
