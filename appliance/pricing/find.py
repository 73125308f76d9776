"""Prices for lines of documents: from what a document says to a net price in its currency.

The price type is the contract's, else the customer's, else the company's first. A price with tax
included becomes net by the line's tax rate; one in another currency is converted by the rate of
the day, and without a rate there is no price. All of it stands in the trace.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec

from appliance.db.wire import Statement
from appliance.kernel.context import Ctx
from appliance.kernel.formula import round_to
from appliance.kernel.kind import Json
from appliance.pricing.choice import DIGITS, Choice, NoPrice, Wanted, choose
from appliance.pricing.shelf import Read, Shelf, decimal, read_shelf, reference, value_of

_LAST_RATES = Statement(
    "SELECT DISTINCT ON (data->>$5::text) data FROM record WHERE tenant_id = $1 AND kind = $2 "
    "AND deleted_at IS NULL AND data->>$5::text = ANY($3::text[]) AND data->>$6::text <= $4 "
    "ORDER BY data->>$5::text, data->>$6::text DESC"
)
_decode = msgspec.json.Decoder(dict[str, Json]).decode


@dataclass(frozen=True, slots=True)
class Asked:
    """One line. None means what is usual: the product's unit and tax, the company's currency."""

    product: UUID
    quantity: Decimal = Decimal(1)
    measure: str | None = None
    variant: UUID | None = None
    customer: UUID | None = None
    contract: UUID | None = None
    unit: UUID | None = None
    currency: str | None = None
    tax_rate: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """`unit_price` net, for one `measure`, in `currency`; None where there is no price (`detail`)."""

    unit_price: Decimal | None
    currency: str
    measure: str
    tax_rate: Decimal
    name: str
    trace: dict[str, Json]
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Shelved:
    """What one general price is asked for: a product or its variant, by its base unit."""

    product: UUID
    variant: UUID | None = None


@dataclass(frozen=True, slots=True)
class Shown:
    """A price as it is shown to whoever buys, tax in it; None where there is none (`detail`)."""

    price: Decimal | None
    detail: str = ""


async def find_shown(
    read: Read,
    ctx: Ctx,
    asked: Sequence[Shelved],
    at: datetime,
    *,
    price_type: UUID,
    unit: UUID | None = None,
    currency: str,
    only: Collection[UUID] | None = None,
) -> list[Shown]:
    """The general price of each under a price type, with tax, in one currency, unrounded.

    `unit`: whose own prices go first. `only`: entries that may be looked at, all if None.
    """
    shelf = await read_shelf(read, ctx, (a.product for a in asked), (), at)
    if only is not None:
        shelf.offers = {p: [o for o in found if o.id in only] for p, found in shelf.offers.items()}
    if price_type not in shelf.types:
        return [Shown(None, "The price type is not there.")] * len(asked)
    units = tuple(_up(ctx, unit))
    choices = [_shelved(ctx, shelf, a, price_type, units) for a in asked]
    codes = {c.currency for c in choices if isinstance(c, Choice)} | {currency}
    rates = await _read_rates(read, ctx, codes, at) if len(codes) > 1 else {}
    return [_shown(ctx, shelf, a, c, currency, rates) for a, c in zip(asked, choices, strict=True)]


def _shelved(
    ctx: Ctx, shelf: Shelf, asked: Shelved, price_type: UUID, units: tuple[UUID, ...]
) -> Choice | NoPrice:
    base = _measure(ctx, shelf, asked.product)
    wanted = Wanted(
        quantity=Decimal(1), measure=base, price_type=price_type, units=units, variant=asked.variant,
        measures=_measures(ctx, shelf, asked.product), base_measure=base,
    )  # fmt: skip
    return choose(wanted, shelf.offers.get(asked.product, ()), shelf.types)


def _shown(
    ctx: Ctx, shelf: Shelf, asked: Shelved, found: Choice | NoPrice, currency: str,
    rates: dict[str, Decimal],
) -> Shown:  # fmt: skip
    if isinstance(found, NoPrice):
        return Shown(None, found.detail)
    price = found.price
    if found.currency != currency:
        factor = _exchange(found.currency, currency, rates, ctx.schema.currency)
        if factor is None:
            return Shown(None, f"There is no rate from {found.currency} to {currency} yet.")
        price *= factor
    if not found.tax_included:
        price *= 1 + _tax_rate(ctx, shelf, asked.product) / 100
    return Shown(price)


async def find_prices(read: Read, ctx: Ctx, asked: Sequence[Asked], at: datetime) -> list[Answer]:
    """An answer for each, in order. One round trip; two when currencies have to be converted."""
    others = {i for a in asked for i in (a.customer, a.contract, a.variant) if i is not None}
    shelf = await read_shelf(read, ctx, (a.product for a in asked), others, at)
    choices = [_choose(ctx, shelf, a) for a in asked]
    codes = {c.currency for c in choices if isinstance(c, Choice)}
    codes |= {_currency(ctx, a) for a in asked}
    rates = await _read_rates(read, ctx, codes, at) if len(codes) > 1 else {}
    return [_answer(ctx, shelf, a, found, rates) for a, found in zip(asked, choices, strict=True)]


def _choose(ctx: Ctx, shelf: Shelf, asked: Asked) -> Choice | NoPrice:
    type_ = _price_type(ctx, shelf, asked)
    if type_ is None:
        return NoPrice("There is no price type yet.", {"chosen": None, "steps": []})
    base = _measure(ctx, shelf, asked.product)
    wanted = Wanted(
        quantity=asked.quantity, measure=asked.measure or base, price_type=type_,
        units=tuple(_up(ctx, asked.unit)), variant=asked.variant, customer=asked.customer,
        contract=asked.contract, measures=_measures(ctx, shelf, asked.product), base_measure=base,
    )  # fmt: skip
    return choose(wanted, shelf.offers.get(asked.product, ()), shelf.types)


def _price_type(ctx: Ctx, shelf: Shelf, asked: Asked) -> UUID | None:
    for key, ident in (("contract", asked.contract), ("customer", asked.customer)):
        data = shelf.records.get(ident) if ident else None
        found = reference(value_of(ctx.schema.kind(key), data, "price_type"))
        if found in shelf.types:
            return found
    return shelf.usual


def _measure(ctx: Ctx, shelf: Shelf, product: UUID) -> str:
    found = value_of(ctx.schema.kind("product"), shelf.records.get(product), "measure")
    return str(found or "pcs")


def _measures(ctx: Ctx, shelf: Shelf, product: UUID) -> dict[str, Decimal]:
    """Conversions of the product; a pack counts as one where the product says how many are in."""
    pack = value_of(ctx.schema.kind("product"), shelf.records.get(product), "pack_quantity")
    packed = {"pack": decimal(pack)} if pack is not None and decimal(pack) > 0 else {}
    return packed | shelf.measures.get(product, {})


def _up(ctx: Ctx, unit: UUID | None) -> Iterator[UUID]:
    """A unit and all above it."""
    seen: set[UUID] = set()
    while unit is not None and unit in ctx.unit_tree and unit not in seen:
        seen.add(unit)
        yield unit
        unit = ctx.unit_tree[unit].parent


def _currency(ctx: Ctx, asked: Asked) -> str:
    return asked.currency or ctx.schema.currency


def _answer(
    ctx: Ctx, shelf: Shelf, asked: Asked, found: Choice | NoPrice, rates: dict[str, Decimal]
) -> Answer:
    product = shelf.records.get(asked.product)
    kind = ctx.schema.kind("product")
    rate = asked.tax_rate if asked.tax_rate is not None else _tax_rate(ctx, shelf, asked.product)
    currency, measure = _currency(ctx, asked), asked.measure or _measure(ctx, shelf, asked.product)
    name = str(value_of(kind, product, "name") or "")
    if isinstance(found, NoPrice):
        return Answer(None, currency, measure, rate, name, found.trace, found.detail)
    trace = {**found.trace, "currency": currency, "tax_rate": f"{rate:f}"}
    price = found.price
    if found.currency and found.currency != currency:
        factor = _exchange(found.currency, currency, rates, ctx.schema.currency)
        if factor is None:
            detail = f"The price is in {found.currency}, and there is no rate to {currency} yet."
            return Answer(None, currency, measure, rate, name, trace, detail)
        price, trace["rate"] = price * factor, f"{factor:.6f}"
    if found.tax_included:
        price = price * 100 / (100 + rate)
    price = round_to(price, DIGITS)
    trace["unit_price"] = f"{price:f}"
    return Answer(price, currency, measure, rate, name, trace)


def _tax_rate(ctx: Ctx, shelf: Shelf, product: UUID) -> Decimal:
    """The rate that the product has."""
    tax = reference(value_of(ctx.schema.kind("product"), shelf.records.get(product), "tax"))
    data = shelf.records.get(tax) if tax else None
    return decimal(value_of(ctx.schema.kind("tax"), data, "rate"))


def _exchange(of: str, to: str, rates: dict[str, Decimal], base: str) -> Decimal | None:
    """How much of `to` one of `of` is worth; rates are of the company's currency."""
    given, wanted = ({**rates, base: Decimal(1)}.get(code) for code in (of, to))
    return given / wanted if given is not None and wanted is not None else None


async def _read_rates(read: Read, ctx: Ctx, codes: set[str], at: datetime) -> dict[str, Decimal]:
    """The last rate of each currency up to the day, in the company's time zone."""
    kind = ctx.schema.kind("currency_rate")
    if kind is None or not {"currency", "day", "rate"} <= kind.by_name.keys():
        return {}
    code, day, rate = (kind.by_name[name].fid for name in ("currency", "day", "rate"))
    today = at.astimezone(ZoneInfo(ctx.tz)).date().isoformat()
    asked = (ctx.tenant, kind.key, sorted(codes), today, code, day)
    (rows,) = await read([(_LAST_RATES, asked)])
    found = (_decode(raw or b"{}") for (raw,) in rows)
    return {str(data[code]): decimal(data[rate]) for data in found}
