"""Orders that a 1C base has not been told of yet, as they are now.

What was told is known by version, not by time: an order of a branch may come to the hub long after
it was written. Until a base confirms, the same orders are told again, under the same ids, so an
answer that was lost loses nothing. 1C's own exchange confirms what it was told last (`success`);
a connector worker, which writes one order after the other, confirms each in the version it wrote.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from uuid import UUID

import msgspec

from appliance.db.columns import Column
from appliance.db.database import Database
from appliance.db.values import text_of
from appliance.db.wire import Call, Statement
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Json
from appliance.price_lists.offers import (
    Measure,
    find_measure,
    may_leave,
    outer_ids,
    read_measures,
)
from appliance.price_lists.rows import read_rows

ORDERS_MAX = 500
_ORDER = ("state", "currency", "gross_total", "due", "delivery", "customer")
_COLUMNS = ("id", "number", "created_at")
_LINE = ("product", "variant", "text", "quantity", "measure", "unit_price", "gross", "tax_rate")
_CUSTOMER = ("name", "legal_name", "tax_id", "address", "phone", "email")
_LABEL = Statement("SELECT label FROM session WHERE tenant_id = $1 AND id = $2")
_DUE = (
    "SELECT o.id::text, o.version FROM (SELECT r.id, md5(concat_ws(',', r.stamps, (SELECT "
    "string_agg(l.stamps, ',' ORDER BY l.id) FROM record l WHERE l.tenant_id = $1 "
    "AND l.kind = 'order_line' AND l.{slot} = r.id AND l.deleted_at IS NULL))) AS version "
    "FROM record r WHERE r.tenant_id = $1 AND r.kind = 'order' AND r.deleted_at IS NULL "
    "AND (r.unit_id IS NULL OR r.unit_id = ANY($3::uuid[]))) AS o "
    "LEFT JOIN exchange_order x ON x.tenant_id = $1 AND x.session_id = $2 AND x.record_id = o.id "
    "WHERE x.told IS DISTINCT FROM o.version AND o.id > $5::uuid ORDER BY o.id LIMIT $4"
)
_TELL = Statement(
    "INSERT INTO exchange_order (tenant_id, session_id, record_id, telling) "
    "SELECT $1, $2, o, v FROM unnest($3::uuid[], $4::text[]) AS u(o, v) "
    "ON CONFLICT (tenant_id, session_id, record_id) DO UPDATE SET telling = EXCLUDED.telling"
)
_CONFIRM = Statement(
    "UPDATE exchange_order SET told = telling, telling = NULL "
    "WHERE tenant_id = $1 AND session_id = $2 AND telling IS NOT NULL"
)
# What a key may note is of orders that there are.
_CONFIRM_EACH = Statement(
    "INSERT INTO exchange_order (tenant_id, session_id, record_id, told) "
    "SELECT $1, $2, r.id, u.v FROM unnest($3::uuid[], $4::text[]) AS u(o, v) "
    "JOIN record r ON r.tenant_id = $1 AND r.id = u.o AND r.kind = 'order' "
    "ON CONFLICT (tenant_id, session_id, record_id) DO UPDATE SET told = EXCLUDED.told, "
    "telling = NULL"
)


class Line(msgspec.Struct, frozen=True):
    """One line: `product_id` as the base knows the product, else our own id."""

    product_id: str
    name: str
    sku: str
    measure: Measure
    quantity: Decimal
    price: Decimal
    amount: Decimal
    tax_rate: Decimal | None
    is_known: bool


class Buyer(msgspec.Struct, frozen=True):
    """Who ordered: what the reader of the key may take away of them. `id`, `is_known`: see Line."""

    id: str
    fields: Mapping[str, str]
    is_known: bool


class Order(msgspec.Struct, frozen=True):
    """One order as it is told. `external_id`: its id in the base, where that has brought it."""

    id: str
    number: str
    at: datetime
    state: str
    currency: str
    amount: Decimal
    due: str
    delivery: str
    buyer: Buyer | None
    lines: tuple[Line, ...]
    external_id: str | None


class Due(msgspec.Struct, frozen=True):
    """An order, and the version that it is told in."""

    order: Order
    version: str


async def due_orders(db: Database, ctx: Ctx) -> tuple[list[Order], Call]:
    """At most ORDERS_MAX orders that were not told in their present version, and the call that
    notes that they are told now. Raises Forbidden where orders may not leave.
    """
    label = (await db.read(ctx.tenant, (_LABEL, (ctx.tenant, ctx.session))))[0].first()
    source = text_of((label or (None,))[0]).strip() or "1C"
    due, _ = await due_page(db, ctx, source)
    versions = {d.order.id: d.version for d in due}
    orders = [d.order for d in due]
    return orders, _tell(ctx, orders, versions)


async def due_page(
    db: Database, ctx: Ctx, source: str, *, after: UUID | None = None, most: int = ORDERS_MAX
) -> tuple[list[Due], UUID | None]:
    """Orders behind an id that the key's base has not confirmed in their present version, by id;
    and behind which there may be more. `source`: whose ids their products and buyers have.
    Raises Forbidden.
    """
    kind = ctx.schema.kind("order_line")
    via = kind.by_name.get("order") if kind is not None else None
    if via is None or not via.slot or not may_leave(ctx, "order", *_ORDER):
        return [], None
    args = (ctx.tenant, ctx.session, sorted(ctx.subtree), most, after or UUID(int=0))
    (rows,) = await db.read(ctx.tenant, (Statement(_DUE.format(slot=via.slot)), args))
    versions = {text_of(ident): text_of(version) for ident, version in rows}
    orders = await _read(db, ctx, source, list(versions)) if versions else []
    last = UUID([*versions][-1]) if len(versions) == most else None
    return [Due(o, versions[o.id]) for o in orders], last


def confirm_each_call(ctx: Ctx, told: Mapping[UUID, str]) -> Call:
    """The base has these orders in these versions."""
    columns = Column("uuid", list(told)), Column("text", list(told.values()))
    return _CONFIRM_EACH, (ctx.tenant, ctx.session, *columns)


def confirm_call(ctx: Ctx) -> Call:
    """The base has what it was told last."""
    return _CONFIRM, (ctx.tenant, ctx.session)


def _tell(ctx: Ctx, orders: Sequence[Order], versions: Mapping[str, str]) -> Call:
    ids = [UUID(o.id) for o in orders]
    told = [versions[o.id] for o in orders]
    return _TELL, (ctx.tenant, ctx.session, Column("uuid", ids), Column("text", told))


async def _read(db: Database, ctx: Ctx, source: str, ids: list[str]) -> list[Order]:
    """The orders among these that the key may take away, with their lines."""
    rows = await _rows(db, ctx, "order", ("id", "number", "created_at", *_ORDER), "id", ids)
    lines = await _rows(db, ctx, "order_line", ("order", *_LINE), "order", ids)
    buyers = await _buyers(db, ctx, source, [str(r["customer"]) for r in rows if r["customer"]])
    brought = await outer_ids(db, ctx, source, [str(r["id"]) for r in rows], "order")
    of: dict[str, list[Line]] = {}
    for order, line in await _lines(db, ctx, source, lines):
        of.setdefault(order, []).append(line)
    return [
        Order(
            str(r["id"]), str(r["number"] or ""), datetime.fromisoformat(str(r["created_at"])),
            str(r["state"] or ""), str(r["currency"] or ""), _decimal(r["gross_total"]),
            str(r["due"] or ""), str(r["delivery"] or ""), buyers.get(str(r["customer"])),
            tuple(of.get(str(r["id"]), ())), brought.get(str(r["id"])),
        )
        for r in rows
    ]  # fmt: skip


async def _lines(
    db: Database, ctx: Ctx, source: str, rows: list[dict[str, Json]]
) -> list[tuple[str, Line]]:
    ids = sorted({str(r["product"]) for r in rows if r["product"]})
    products = {
        str(p["id"]): p for p in await _rows(db, ctx, "product", ("id", "name", "sku"), "id", ids)
    }
    outer = await outer_ids(db, ctx, source, ids)
    variants = sorted({str(r["variant"]) for r in rows if r["variant"]})
    outer |= await outer_ids(db, ctx, source, variants, "variant")
    measures = await read_measures(db, ctx)
    found = []
    for row in rows:
        product = products.get(str(row["product"]), {})
        # A variant is `product#variant` to 1C; a product without one keeps its plain id.
        own = str(row["variant"] or row["product"] or row["order"])
        line = Line(
            outer.get(own, own), str(row["text"] or product.get("name") or ""),
            str(product.get("sku") or ""), find_measure(measures, str(row["measure"] or "")),
            _decimal(row["quantity"]), _decimal(row["unit_price"]), _decimal(row["gross"]),
            _decimal(row["tax_rate"]) if row["tax_rate"] is not None else None, own in outer,
        )  # fmt: skip
        found.append((str(row["order"]), line))
    return found


async def _buyers(db: Database, ctx: Ctx, source: str, ids: Sequence[str]) -> dict[str, Buyer]:
    names = [n for n in _CUSTOMER if may_leave(ctx, "customer", n)]
    unique = sorted(set(ids))
    rows = await _rows(db, ctx, "customer", ("id", *names), "id", unique)
    outer = await outer_ids(db, ctx, source, unique, "customer")
    return {
        str(r["id"]): Buyer(
            outer.get(str(r["id"]), str(r["id"])),
            {n: str(r[n]) for n in names if r[n]},
            str(r["id"]) in outer,
        )
        for r in rows
    }


async def _rows(
    db: Database, ctx: Ctx, kind: str, names: Sequence[str], by: str, ids: Sequence[str]
) -> list[dict[str, Json]]:
    if not ids or not may_leave(ctx, kind, *(n for n in names if n not in _COLUMNS)):
        return []
    raw: Json = {
        "from": kind, "select": [*names], "sort": ["id"],
        "where": {"field": by, "op": "in", "value": [*ids]},
    }  # fmt: skip
    return [row async for row in read_rows(db, ctx, raw)]


def _decimal(value: Json) -> Decimal:
    return Decimal(str(value)) if value is not None else Decimal(0)
