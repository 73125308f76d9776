"""What a price is chosen from, read in one round trip for any number of lines.

Kinds are the tenant's: a field that somebody removed reads as empty. The values in force are read
as `read/ledger` reads them, with the end of each period beside them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from uuid import UUID

import msgspec

from appliance.db.wire import Call, Rows, Statement
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Json, Kind
from appliance.pricing.choice import Offer, PriceType

Read = Callable[[Sequence[Call]], Awaitable[list[Rows]]]
Data = Mapping[str, Json]
_LIVE = "FROM record WHERE tenant_id = $1 AND deleted_at IS NULL"
_BY_ID = Statement(f"SELECT id::text, data {_LIVE} AND id = ANY($2::uuid[])")
_OF_KINDS = Statement(f"SELECT id::text, data, kind {_LIVE} AND kind = ANY($2::text[])")
_decode = msgspec.json.Decoder(dict[str, Json]).decode
_SMALL = ("price_type", "tax")


@dataclass(slots=True)
class Shelf:
    """Everything read: records by id as names and values, offers and measures by product."""

    records: dict[UUID, Data] = field(default_factory=dict)
    types: dict[UUID, PriceType] = field(default_factory=dict)
    # The type of who has none of their own: the first in order.
    usual: UUID | None = None
    offers: dict[UUID, list[Offer]] = field(default_factory=dict)
    measures: dict[UUID, dict[str, Decimal]] = field(default_factory=dict)


async def read_shelf(
    read: Read, ctx: Ctx, products: Iterable[UUID], others: Iterable[UUID], at: datetime
) -> Shelf:
    """Prices in force at `at` of products, and the records (`others`) that say for whom."""
    shelf, wanted = Shelf(), sorted(set(products))
    price, conversion = ctx.schema.kind("price"), ctx.schema.kind("unit_conversion")
    small = ctx.schema.kind("price_type")
    calls: list[Call] = [
        (_BY_ID, (ctx.tenant, sorted({*wanted, *others}))),
        (_OF_KINDS, (ctx.tenant, list(_SMALL))),
    ]
    takers: list[Callable[[Rows], None]] = [
        lambda rows: _take_records(shelf, rows),
        lambda rows: _take_small(shelf, small, rows),
    ]
    if price is not None and price.ledger is not None and _product_slot(price):
        calls.append((force_statement(price), (ctx.tenant, price.key, wanted, at)))
        takers.append(lambda rows: _take_offers(shelf, price, rows))
    if conversion is not None and (slot := _product_slot(conversion)):
        calls.append((_of_product(slot), (ctx.tenant, conversion.key, wanted)))
        takers.append(lambda rows: _take_measures(shelf, conversion, rows))
    for take, rows in zip(takers, await read(calls), strict=True):
        take(rows)
    return shelf


def value_of(kind: Kind | None, data: Data | None, name: str) -> Json:
    """A field of a record by its name; None where there is no such kind, field or value."""
    found = kind.by_name.get(name) if kind is not None and data is not None else None
    return data.get(found.fid) if found is not None and data is not None else None


def reference(value: Json) -> UUID | None:
    """A canonical reference."""
    return UUID(value) if isinstance(value, str) else None


def decimal(value: Json) -> Decimal:
    """A canonical number; nothing is 0."""
    return Decimal(str(value)) if value is not None else Decimal(0)


def _product_slot(kind: Kind) -> str | None:
    found = kind.by_name.get("product")
    return found.slot if found is not None else None


def force_statement(price: Kind) -> Statement:
    """Entries in force of products: parameters tenant, kind, product ids, moment."""
    return _in_force(str(_product_slot(price)))


@lru_cache(maxsize=8)
def _in_force(slot: str) -> Statement:
    # First the keys, then the last entry of each: probing entry by entry costs by the number of
    # dates that a product has had. A LIMIT is never made a join of whole ledgers.
    alive = (
        "{0}.tenant_id = $1 AND {0}.kind = $2 AND {0}.key = k.key AND {0}.reverses IS NULL AND "
        "(SELECT r.id FROM entry r WHERE r.tenant_id = $1 AND r.kind = $2 AND r.reverses = {0}.id "
        "LIMIT 1) IS NULL"
    )
    return Statement(
        "SELECT e.id::text, e.data, (extract(epoch FROM e.at) * 1000)::bigint, "
        f"(SELECT (extract(epoch FROM n.at) * 1000)::bigint FROM entry n WHERE {alive.format('n')} "
        "AND n.at > $4 ORDER BY n.at LIMIT 1) FROM (SELECT DISTINCT p.key FROM entry p "
        f"WHERE p.tenant_id = $1 AND p.kind = $2 AND p.{slot} = ANY($3::uuid[]) AND p.at <= $4 "
        "AND p.reverses IS NULL) k CROSS JOIN LATERAL (SELECT l.id, l.data, l.at FROM entry l "
        f"WHERE {alive.format('l')} AND l.at <= $4 ORDER BY l.at DESC, l.id DESC LIMIT 1) e"
    )


@lru_cache(maxsize=8)
def _of_product(slot: str) -> Statement:
    return Statement(f"SELECT data {_LIVE} AND kind = $2 AND {slot} = ANY($3::uuid[])")


def _take_records(shelf: Shelf, rows: Rows) -> None:
    shelf.records.update((_uuid(ident), _decode(raw or b"{}")) for ident, raw in rows)


def _take_small(shelf: Shelf, kind: Kind | None, rows: Rows) -> None:
    ranked: list[tuple[Decimal, str, UUID]] = []
    for ident, raw, of in rows:
        found, data = _uuid(ident), _decode(raw or b"{}")
        shelf.records[found] = data
        if of != b"price_type" or kind is None:
            continue
        key = str(value_of(kind, data, "key") or value_of(kind, data, "name") or "")
        shelf.types[found] = PriceType(
            found, key, str(value_of(kind, data, "currency") or ""),
            value_of(kind, data, "tax_included") is True, reference(value_of(kind, data, "base")),
            decimal(value_of(kind, data, "markup")), decimal(value_of(kind, data, "rounding")),
        )  # fmt: skip
        order = value_of(kind, data, "order")
        ranked.append((Decimal("Infinity") if order is None else decimal(order), key, found))
    shelf.usual = min(ranked)[2] if ranked else None


def _take_offers(shelf: Shelf, kind: Kind, rows: Rows) -> None:
    for ident, raw, since, until in rows:
        data = _decode(raw or b"{}")

        def of(name: str, data: Data = data) -> Json:
            return value_of(kind, data, name)

        product, type_ = reference(of("product")), reference(of("price_type"))
        price = of("price")
        # An entry without a price closes what was before: from then on there is none.
        if product is None or type_ is None or price is None or type_ not in shelf.types:
            continue
        currency, measure = of("currency"), of("measure")
        offer = Offer(
            id=_uuid(ident), price_type=type_, price=decimal(price), since=_moment(since),
            until=_moment(until) if until is not None else None,
            currency=str(currency) if currency else None,
            measure=str(measure) if measure else None,
            variant=reference(of("variant")), minimum=decimal(of("minimum_quantity")),
            unit=reference(of("unit_scope")), customer=reference(of("customer")),
            contract=reference(of("contract")),
        )  # fmt: skip
        shelf.offers.setdefault(product, []).append(offer)


def _take_measures(shelf: Shelf, kind: Kind, rows: Rows) -> None:
    for (raw,) in rows:
        data = _decode(raw or b"{}")
        product, factor = reference(value_of(kind, data, "product")), value_of(kind, data, "factor")
        if product is not None and factor is not None:
            measure = str(value_of(kind, data, "measure"))
            shelf.measures.setdefault(product, {})[measure] = decimal(factor)


def _uuid(value: bytes | None) -> UUID:
    return UUID((value or b"").decode())


def _moment(value: bytes | None) -> datetime:
    return datetime.fromtimestamp(int(value or b"0") / 1000, UTC)
