"""A price list as offers: products with their prices, units and stock, for the systems of others.

Read like the list that people edit (rows), in blocks, under the same rights. What another system
needs beside it: an id that stays, the code of the unit, what can be sold in which warehouse.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from decimal import Decimal
from uuid import UUID

import msgspec
from msgspec.structs import replace

from appliance.base import limits
from appliance.base.errors import Refused
from appliance.db.database import Database
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Json
from appliance.kernel.profile import ScopeKind
from appliance.price_lists.rows import (
    Asked,
    PriceType,
    product_fields,
    read_prices,
    read_products,
    read_rows,
    read_types,
)
from appliance.read import Guard, visible_fields

_FIELDS = ("sku", "barcode", "name", "measure")
_WHOLE = frozenset({ScopeKind.ALL, ScopeKind.UNIT, ScopeKind.SUBTREE})
_Stock = dict[tuple[str, str], Decimal]


class Measure(msgspec.Struct, frozen=True):
    """A unit: its name, and its code in OKEI (UN/ECE numeric) where it is known."""

    name: str
    code: str = ""


class Warehouse(msgspec.Struct, frozen=True):
    """A place whose stock is told."""

    id: str
    name: str


class Offer(msgspec.Struct, frozen=True):
    """A product with at least one price; `prices` stand by the place of their type. `stock` is
    what can be sold, by warehouse; None where stock is not for the reader. `barcodes`: those beside
    `barcode`.
    """

    id: str
    name: str
    sku: str
    barcode: str
    measure: Measure
    prices: tuple[tuple[Decimal, str] | None, ...]
    stock: dict[str, Decimal] | None
    barcodes: tuple[str, ...] = ()


class Offers(msgspec.Struct, frozen=True):
    """A package about to be written: its head, and the offers as they stream."""

    types: list[PriceType]
    warehouses: list[Warehouse]
    blocks: AsyncIterator[list[Offer]]


async def read_offers(
    db: Database, ctx: Ctx, asked: Asked, system: str = "", *, guard: Guard | None = None
) -> Offers:
    """The offers of a list; products, price types and warehouses that are known to `system` go by
    their id there.

    Raises Refused (also where nothing has a price: a package of nothing is none), Invalid,
    Forbidden.
    """
    shown = product_fields(ctx)
    types = await read_types(db, ctx, asked.types)
    places = await _warehouses(db, ctx, asked.unit)
    names = [n for n in _FIELDS if n in shown]
    blocks = _blocks(db, ctx, asked, (types, places, names, system), guard)
    # Up to the first offer it is read here, so that a refusal comes before the first byte.
    async for block in blocks:
        if block:
            theirs = await outer_ids(db, ctx, system, [t.id for t in types], "price_type")
            own = [p.id for p in places or ()]
            theirs |= await outer_ids(db, ctx, system, own, "warehouse")
            return Offers(
                [replace(t, id=theirs.get(t.id, t.id)) for t in types],
                [replace(p, id=theirs.get(p.id, p.id)) for p in places or ()],
                _with_first(block, blocks, theirs),
            )
    raise Refused("No product has a price in these price types.", code="price_list.empty")


async def _with_first(
    first: list[Offer], rest: AsyncIterator[list[Offer]], theirs: dict[str, str]
) -> AsyncIterator[list[Offer]]:
    yield [_placed(offer, theirs) for offer in first]
    async for block in rest:
        yield [_placed(offer, theirs) for offer in block]


def _placed(offer: Offer, theirs: dict[str, str]) -> Offer:
    """Its stock under the ids that warehouses have there."""
    if not (offer.stock and theirs):
        return offer
    return replace(offer, stock={theirs.get(p, p): n for p, n in offer.stock.items()})


async def _blocks(
    db: Database, ctx: Ctx, asked: Asked,
    head: tuple[list[PriceType], list[Warehouse] | None, list[str], str], guard: Guard | None,
) -> AsyncIterator[list[Offer]]:  # fmt: skip
    types, places, names, system = head
    measures = await read_measures(db, ctx)
    async for block in read_products(db, ctx, names, guard):
        prices = await read_prices(db, ctx, asked, types, [str(r["id"]) for r in block])
        priced = {product for product, _ in prices}
        offered = [r for r in block if str(r["id"]) in priced]
        ids = [str(r["id"]) for r in offered]
        outer = await outer_ids(db, ctx, system, ids)
        stock = None if places is None else await _stock(db, ctx, asked, places, ids)
        codes = await _codes(db, ctx, ids) if "barcode" in names else {}
        yield [
            Offer(
                id=outer.get(i, i), name=str(row.get("name") or row.get("number") or i),
                sku=str(row.get("sku") or ""), barcode=str(row.get("barcode") or ""),
                measure=find_measure(measures, str(row.get("measure") or "")),
                prices=tuple(prices.get((i, t.id)) for t in types),
                stock=_by_place(stock, places, i), barcodes=tuple(codes.get(i, ())),
            )
            for i, row in zip(ids, offered, strict=True)
        ]  # fmt: skip


def _by_place(
    stock: _Stock | None, places: list[Warehouse] | None, product: str
) -> dict[str, Decimal] | None:
    if stock is None or places is None:
        return None
    return {p.id: stock.get((product, p.id), Decimal(0)) for p in places}


async def read_measures(db: Database, ctx: Ctx) -> dict[str, Measure]:
    """Units by key and by name."""
    if not may_leave(ctx, "unit_of_measure", "key", "name", "code"):
        return {}
    raw: Json = {"from": "unit_of_measure", "select": ["key", "name", "code"]}
    found: dict[str, Measure] = {}
    async for row in read_rows(db, ctx, raw):
        measure = Measure(str(row["name"]), str(row["code"] or "").strip())
        found[str(row["key"])] = measure
        found.setdefault(measure.name.casefold(), measure)
    return found


def find_measure(known: dict[str, Measure], text: str) -> Measure:
    """The unit that a record names by key or by name."""
    return known.get(text) or known.get(text.casefold().rstrip(".")) or Measure(text)


async def outer_ids(
    db: Database, ctx: Ctx, system: str, records: Sequence[str], kind: str = "product"
) -> dict[str, str]:
    """Ids in another system by record, the oldest where it has several."""
    names = ("system", "local_kind", "external_id", "record")
    if not (system and records and may_leave(ctx, "external_ref", *names)):
        return {}
    raw: Json = {
        "from": "external_ref", "select": ["record", "external_id"], "sort": ["id"],
        "where": {"and": [
            {"field": "system", "op": "eq", "value": system},
            {"field": "local_kind", "op": "eq", "value": kind},
            {"field": "record", "op": "in", "value": [*records]},
        ]},
    }  # fmt: skip
    found: dict[str, str] = {}
    async for row in read_rows(db, ctx, raw):
        found.setdefault(str(row["record"]), str(row["external_id"]))
    return found


async def _codes(db: Database, ctx: Ctx, products: Sequence[str]) -> dict[str, list[str]]:
    """Barcodes of products beside their first; those of variants are not among them."""
    if not products or not may_leave(ctx, "barcode", "code", "product", "variant"):
        return {}
    raw: Json = {
        "from": "barcode", "select": ["code", "product"], "sort": ["code"],
        "where": {"and": [
            {"field": "product", "op": "in", "value": [*products]},
            {"field": "variant", "op": "is_null", "value": True},
        ]},
    }  # fmt: skip
    found: dict[str, list[str]] = {}
    async for row in read_rows(db, ctx, raw):
        found.setdefault(str(row["product"]), []).append(str(row["code"]))
    return found


async def _warehouses(db: Database, ctx: Ctx, unit: UUID | None) -> list[Warehouse] | None:
    """Those whose stock is told, of a branch if one is asked for; None if none is for the reader."""
    whole = all(
        ctx.profile.scope("stock_move", action).kind in _WHOLE for action in ("read", "export")
    )
    if not (whole and may_leave(ctx, "stock_move", "product", "warehouse", "quantity")
            and may_leave(ctx, "warehouse", "name", "branch", "active")):  # fmt: skip
        return None
    raw: dict[str, Json] = {
        "from": "warehouse", "select": ["id", "name", "branch"], "sort": ["name"],
        "where": {"not": {"field": "active", "op": "eq", "value": False}},
    }  # fmt: skip
    return [
        Warehouse(str(row["id"]), str(row["name"]))
        async for row in read_rows(db, ctx, raw)
        if unit is None or _lies_in(ctx, row["branch"], unit)
    ]


def _lies_in(ctx: Ctx, branch: Json, unit: UUID) -> bool:
    at = UUID(str(branch)) if branch else None
    while at is not None and at in ctx.unit_tree:
        if at == unit:
            return True
        at = ctx.unit_tree[at].parent
    return False


async def _stock(
    db: Database, ctx: Ctx, asked: Asked, places: list[Warehouse], products: Sequence[str]
) -> _Stock:
    """What is there, less what is promised, as far as the reader may see promises."""
    found: _Stock = {}
    for ledger, sign in (("stock_move", 1), ("reservation", -1)):
        if sign < 0 and not may_leave(ctx, ledger, "product", "warehouse", "quantity"):
            continue
        if ctx.profile.scope(ledger, "export").kind not in _WHOLE:
            continue
        for inside, listed in _tiles(places, products):
            raw: Json = {
                "from": ledger, "balance": True, "asof": asked.at.isoformat(),
                "group": ["product", "warehouse"], "limit": limits.PAGE_ROWS_MAX,
                "select": [{"sum": "quantity", "as": "n"}],
                "where": {"and": [
                    {"field": "product", "op": "in", "value": listed},
                    {"field": "warehouse", "op": "in", "value": inside},
                ]},
            }  # fmt: skip
            async for row in read_rows(db, ctx, raw):
                place = (str(row["product"]), str(row["warehouse"]))
                amount = found.get(place, Decimal(0))
                found[place] = amount + sign * Decimal(str(row["n"] or 0))
    return found


def _tiles(
    places: list[Warehouse], products: Sequence[str]
) -> Iterator[tuple[list[Json], list[Json]]]:
    """Parts whose sums fit in one answer: of groups there is no second page."""
    for start in range(0, len(places), limits.IN_LIST_MAX):
        inside: list[Json] = [p.id for p in places[start : start + limits.IN_LIST_MAX]]
        step = min(limits.IN_LIST_MAX, limits.PAGE_ROWS_MAX // len(inside))
        for first in range(0, len(products), step):
            yield inside, [*products[first : first + step]]


def may_leave(ctx: Ctx, kind: str, *names: str) -> bool:
    """Whether the reader may take these fields of a kind away."""
    found = ctx.schema.kind(kind)
    if found is None or not ctx.profile.sees(found):
        return False
    if ctx.profile.scope(kind, "export").kind is ScopeKind.NONE:
        return False
    return set(names) <= {f.name for f, _ in visible_fields(ctx, found)}
