"""Stock that a full file of rests leaves out: it is nothing there any more.

A position is a product or variant at a warehouse, of those that the source itself has brought or a
setting names. Of a file that speaks of warehouses, every warehouse of the source is asked; of one
that tells totals only, the one that totals lie at. A row at fault says that its position is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from uuid import UUID

from appliance.base import limits
from appliance.db.columns import Column
from appliance.db.database import Database
from appliance.db.wire import Param, Statement
from appliance.intake.refs import Refs, kind_of, slot_of
from appliance.intake.runs import IntakeRun
from appliance.intake.targets.goods.fields import KINDS
from appliance.intake.targets.goods.words import Words
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Kind

# Rows of what a plan adds stand behind all that a file can hold.
FIRST = 2_000_000_000
_SAID = Statement(
    "SELECT bool_or(coalesce(data->>'warehouse_id', '') <> '')::text, "
    "bool_or(coalesce(data->>'warehouse_id', '') = '')::text FROM intake_row "
    "WHERE tenant_id = $1 AND run = $2 AND entity = 'stock' AND sort <> 'faulty'"
)
_LISTS = (
    "p AS (SELECT * FROM unnest($3::text[], $4::uuid[]) AS u(ext, id)), "
    "v AS (SELECT * FROM unnest($5::text[], $6::uuid[]) AS u(ext, id)), "
    "w AS (SELECT * FROM unnest($7::text[], $8::uuid[]) AS u(ext, id))"
)


class Rests:
    """Looks for the positions of one run."""

    def __init__(self, db: Database, ctx: Ctx, run: IntakeRun, refs: Refs, words: Words) -> None:
        self._db, self._ctx, self._run = db, ctx, run
        self._refs, self._words = refs, words

    async def find_unsaid(self) -> tuple[int, int]:
        """Add a row for each position that is not told of, to become 0: how many, and of how many
        that are not 0 now.
        """
        warehouses = await self._warehouses()
        if not warehouses:
            return 0, 0
        products = await self._refs.all_of(KINDS["product"])
        variants = await self._refs.all_of(KINDS["variant"])
        lists = [c for found in (products, variants, warehouses) for c in _columns(found)]
        kind = kind_of(self._ctx, "stock_move")
        scale = kind.by_name["quantity"].option("scale", 3)
        step = Decimal(1).scaleb(-scale if isinstance(scale, int) else -3)
        args: tuple[Param, ...] = (
            self._ctx.tenant,
            self._run.id,
            *lists,
            self._run.created_at,
            f"{step:f}",
            FIRST,
        )
        async with self._db.transaction(
            self._ctx.tenant, timeout_ms=limits.EXPORT_TIMEOUT_MS
        ) as tx:
            (answer,) = await tx.run((_unsaid(kind), args))
        row = answer.first()
        return (int(row[0] or 0), int(row[1] or 0)) if row else (0, 0)

    async def _warehouses(self) -> Mapping[str, UUID]:
        """Those that the file speaks for: external id to record, the one of totals under ''."""
        (rows,) = await self._db.read(self._ctx.tenant, (_SAID, (self._ctx.tenant, self._run.id)))
        row = rows.first()
        by_warehouse, total = (row[0] == b"true", row[1] == b"true") if row else (False, False)
        found: dict[str, UUID] = {}
        if by_warehouse:
            found = await self._refs.all_of(KINDS["warehouse"]) | self._words.warehouses()
        return found | ({"": self._words.default_warehouse()} if total else {})


def _columns(found: Mapping[str, UUID]) -> tuple[Column, Column]:
    return Column("text", list(found)), Column("uuid", list(found.values()))


def _unsaid(kind: Kind) -> Statement:
    """Positions of the source that are not 0 and stand in no row of the run, put into it."""
    product, variant, warehouse, quantity = (
        slot_of(kind, n) for n in ("product", "variant", "warehouse", "quantity")
    )
    # A product may have several ids at the source, and what one of them says is said of it.
    return Statement(
        f"WITH {_LISTS}, told AS (SELECT DISTINCT p.id AS p, v.id AS v, w.id AS w "
        "FROM intake_row r JOIN p ON p.ext = r.data->>'product_id' "
        "LEFT JOIN v ON v.ext = r.data->>'variant_id' "
        "LEFT JOIN w ON w.ext = coalesce(r.data->>'warehouse_id', '') "
        "WHERE r.tenant_id = $1 AND r.run = $2 AND r.entity = 'stock'), "
        f"sums AS (SELECT t.key, t.{product} AS p, t.{variant} AS v, t.{warehouse} AS w, "
        f"sum(t.{quantity}) - coalesce((SELECT sum(e.{quantity}) FROM entry e "
        "WHERE e.tenant_id = $1 AND e.kind = 'stock_move' AND e.key = t.key AND e.at > $9), 0) AS n "
        "FROM turnover t WHERE t.tenant_id = $1 AND t.kind = 'stock_move' "
        f"AND t.{warehouse} IN (SELECT id FROM w) AND t.{product} IN (SELECT id FROM p) "
        f"AND (t.{variant} IS NULL OR t.{variant} IN (SELECT id FROM v)) GROUP BY 1, 2, 3, 4), "
        "there AS (SELECT * FROM sums WHERE n <> 0), "
        # A row at fault without a warehouse speaks of all of them.
        "gone AS (SELECT * FROM there s WHERE NOT EXISTS (SELECT 1 FROM told WHERE told.p = s.p "
        "AND told.v IS NOT DISTINCT FROM s.v AND (told.w = s.w OR told.w IS NULL))), "
        "named AS (SELECT g.key, g.p, g.n, (SELECT min(ext) FROM p WHERE id = g.p) AS pe, "
        "(SELECT min(ext) FROM v WHERE id = g.v) AS ve, "
        "(SELECT min(ext) FROM w WHERE id = g.w) AS we FROM gone g), "
        "kept AS (INSERT INTO intake_row (tenant_id, run, no, sheet, line, entity, key, data, sort, "
        "target, changes) SELECT $1, $2, $11::int + row_number() OVER (ORDER BY pe, ve, we), '', 0, "
        "'stock', coalesce(ve, pe) || CASE WHEN we = '' THEN '' ELSE '|' || we END, "
        "jsonb_strip_nulls(jsonb_build_object('product_id', pe, 'variant_id', ve, "
        "'warehouse_id', nullif(we, ''), 'quantity', '0')), 'gone', p, "
        "jsonb_build_array(jsonb_build_object('field', 'quantity', "
        "'from', (n * $10::numeric)::text, 'to', '0')) FROM named RETURNING 1) "
        "SELECT (SELECT count(*) FROM kept)::text, (SELECT count(*) FROM there)::text"
    )
