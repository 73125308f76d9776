"""A price list as rows: products by name, a column for each price type.

Everything comes through the read path under the right to export, block by block, so the memory of
a list does not grow with it. Prices are the general ones: those for everybody, from the first
piece on, in the base unit; with a branch its own go before them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from decimal import Decimal
from uuid import UUID

import msgspec

from appliance.base.errors import FieldFault, Invalid, Refused
from appliance.db.database import Database
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Field, Json, label_of
from appliance.kernel.query import decode_query
from appliance.read import Guard, stream, visible_fields

# Of a product, in this order; what the profile hides is left out.
FIELDS = ("sku", "barcode", "name", "category", "brand", "measure", "pack_quantity")
_NUMBER = {"en": "Nexus number", "ru": "Номер Nexus", "uk": "Номер Nexus"}
# Products whose prices are read at once: as many as a condition may list.
_BLOCK = 500
_decode = msgspec.json.Decoder(dict[str, Json]).decode
Cell = str | Decimal | None


class Asked(msgspec.Struct, frozen=True):
    """`types`: keys of price types, all if empty. `unit`: a branch whose own prices go first."""

    at: datetime
    types: tuple[str, ...] = ()
    unit: UUID | None = None


class PriceType(msgspec.Struct, frozen=True):
    """One price column. `tax_included` is None where the reader may not know."""

    id: str
    key: str
    name: str
    currency: str
    tax_included: bool | None = None


class List(msgspec.Struct, frozen=True):
    """A list about to be written."""

    header: list[str]
    blocks: AsyncIterator[list[list[Cell]]]


async def read_list(db: Database, ctx: Ctx, asked: Asked, *, guard: Guard | None = None) -> List:
    """The header, and the rows as they stream. Raises Refused, Invalid, Forbidden."""
    shown = product_fields(ctx)
    types = await read_types(db, ctx, asked.types)
    names = [n for n in FIELDS if n in shown]
    price = ctx.schema.kind("price")
    word = label_of(price.by_name["price"].labels if price else {}, ctx.locale, "Price")
    header = [
        label_of(_NUMBER, ctx.locale, "number"),
        *(label_of(shown[n].labels, ctx.locale, n) for n in names),
        *(f"{word}: {t.name} [{t.key}], {t.currency}" for t in types),
    ]
    blocks = _blocks(db, ctx, asked, types, names, guard)
    # The first block is read here, so that a refusal comes before the first byte.
    first = await anext(blocks)
    return List(header, _with_first(first, blocks))


def product_fields(ctx: Ctx) -> dict[str, Field]:
    """The fields of a product that the reader sees, by name. Raises Refused."""
    product = ctx.schema.kind("product")
    if product is None or not ctx.profile.sees(product):
        raise Refused("There are no products for you.", code="kind.unknown")
    return {f.name: f for f, _ in visible_fields(ctx, product)}


async def _with_first(
    first: list[list[Cell]], rest: AsyncIterator[list[list[Cell]]]
) -> AsyncIterator[list[list[Cell]]]:
    yield first
    async for block in rest:
        yield block


async def read_types(db: Database, ctx: Ctx, wanted: Sequence[str]) -> list[PriceType]:
    """The price types with these keys, all if none is wanted. Raises Invalid for an unknown one."""
    kind = ctx.schema.kind("price_type")
    taxed = kind is not None and "tax_included" in {f.name for f, _ in visible_fields(ctx, kind)}
    raw: Json = {"from": "price_type", "sort": ["order", "key"],
                 "select": ["id", "key", "name", "currency", *(["tax_included"] if taxed else [])]}  # fmt: skip
    found = [
        PriceType(str(r["id"]), str(r["key"]), str(r["name"]),
                  str(r["currency"] or ctx.schema.currency), _known(r.get("tax_included")))
        async for r in read_rows(db, ctx, raw)
    ]  # fmt: skip
    if unknown := sorted(set(wanted) - {t.key for t in found}):
        detail = (
            f"There is no price type {unknown[0][:60]!r}; known: {', '.join(t.key for t in found)}."
        )
        raise Invalid(detail, code="request.parameter",
                      faults=(FieldFault("/type", "unknown", detail),))  # fmt: skip
    return [t for t in found if not wanted or t.key in wanted]


def _known(value: Json) -> bool | None:
    return value if isinstance(value, bool) else None


async def read_rows(
    db: Database, ctx: Ctx, raw: Json, guard: Guard | None = None
) -> AsyncIterator[dict[str, Json]]:
    """All rows of a query that may leave. Raises Forbidden."""
    async for _, batch in stream(db, ctx, decode_query(raw), guard=guard, action="export"):
        for row in batch:
            yield _decode(row)


async def _blocks(
    db: Database, ctx: Ctx, asked: Asked, types: list[PriceType], names: list[str],
    guard: Guard | None,
) -> AsyncIterator[list[list[Cell]]]:  # fmt: skip
    async for block in read_products(db, ctx, names, guard):
        yield await _priced(db, ctx, asked, types, names, block)


async def read_products(
    db: Database, ctx: Ctx, names: Sequence[str], guard: Guard | None
) -> AsyncIterator[list[dict[str, Json]]]:
    """The products that are not archived, block by block; the last block may be empty."""
    raw: Json = {
        "from": "product", "select": ["id", "number", *names], "sort": ["name"],
        "where": {"not": {"field": "archived", "op": "eq", "value": True}},
    }  # fmt: skip
    block: list[dict[str, Json]] = []
    async for row in read_rows(db, ctx, raw, guard):
        block.append(row)
        if len(block) == _BLOCK:
            yield block
            block = []
    yield block


async def _priced(
    db: Database, ctx: Ctx, asked: Asked, types: list[PriceType], names: list[str],
    block: list[dict[str, Json]],
) -> list[list[Cell]]:  # fmt: skip
    """The rows of those products of a block that have a price."""
    prices = await read_prices(db, ctx, asked, types, [str(r["id"]) for r in block])
    found: list[list[Cell]] = []
    for row in block:
        cells = [prices.get((str(row["id"]), t.id)) for t in types]
        if any(c is not None for c in cells):
            own: list[Cell] = [_text(row.get(n)) for n in ("number", *names)]
            found.append([*own, *(_cell(c, t) for c, t in zip(cells, types, strict=True))])
    return found


async def read_prices(
    db: Database, ctx: Ctx, asked: Asked, types: list[PriceType], products: list[str]
) -> dict[tuple[str, str], tuple[Decimal, str]]:
    """Prices in force by product and type: the branch's nearest one, else the general one."""
    if not products or not types:
        return {}
    path = _path(ctx, asked.unit)
    general: list[Json] = [
        {"field": name, "op": "is_null", "value": True}
        for name in ("variant", "measure", "minimum_quantity", "customer", "contract")
    ]
    scope: list[Json] = [{"field": "unit_scope", "op": "is_null", "value": True}]
    if path:
        scope.append({"field": "unit_scope", "op": "in", "value": [*path]})
    raw: Json = {
        "from": "price", "in_force": True, "asof": asked.at.isoformat(),
        "select": ["product", "price_type", "price", "currency", "unit_scope"],
        "where": {"and": [
            {"field": "product", "op": "in", "value": [*products]},
            {"field": "price_type", "op": "in", "value": [t.id for t in types]},
            {"field": "price", "op": "is_null", "value": False},
            {"or": scope}, *general,
        ]},
    }  # fmt: skip
    depth = {unit: n for n, unit in enumerate(path)}
    best: dict[tuple[str, str], tuple[int, Decimal, str]] = {}
    async for row in read_rows(db, ctx, raw):
        place = (str(row["product"]), str(row["price_type"]))
        near = depth.get(str(row["unit_scope"]), len(depth))
        if place not in best or near < best[place][0]:
            best[place] = (near, Decimal(str(row["price"])), str(row["currency"] or ""))
    return {place: (price, currency) for place, (_, price, currency) in best.items()}


def _path(ctx: Ctx, unit: UUID | None) -> list[str]:
    """A branch and all above it."""
    found: list[str] = []
    while unit is not None and unit in ctx.unit_tree and str(unit) not in found:
        found.append(str(unit))
        unit = ctx.unit_tree[unit].parent
    return found


def _text(value: Json) -> Cell:
    return None if value is None else str(value)


def _cell(price: tuple[Decimal, str] | None, type_: PriceType) -> Cell:
    """An amount in the currency of its column; in another one it says which."""
    if price is None:
        return None
    amount, currency = price
    if currency in ("", type_.currency):
        return amount
    return f"{written(amount)} {currency}"


def written(amount: Decimal) -> str:
    """Two, four or six digits: three behind a point could be taken for thousands."""
    for digits in (2, 4):
        if amount == (short := round(amount, digits)):
            return f"{short:f}"
    return f"{amount:.6f}"
