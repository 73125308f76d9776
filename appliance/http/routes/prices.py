"""Which price, and why: what a line would get, before there is a line."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from uuid import UUID

import msgspec
from litestar.response.base import ASGIResponse

from appliance import price_lists
from appliance.audit import audit_calls
from appliance.base.errors import FieldFault, Invalid, Refused
from appliance.db.wire import Call, Rows
from appliance.http.answers import Stream, reply
from appliance.http.ask import Ask
from appliance.http.route import API, Book
from appliance.kernel.kind import Json
from appliance.kernel.money import parse_decimal
from appliance.pricing import Asked, find_prices
from appliance.read import fetch

book = Book("prices")


class ChoiceParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """For what and whom. `at` is a moment with an offset (now); `quantity` and `tax_rate` are
    decimals; `unit` is the selling branch (yours).
    """

    product: UUID
    quantity: str = "1"
    measure: str | None = None
    variant: UUID | None = None
    customer: UUID | None = None
    contract: UUID | None = None
    unit: UUID | None = None
    currency: str | None = None
    tax_rate: str | None = None
    at: datetime | None = None


class ChosenPrice(msgspec.Struct, frozen=True):
    """`unit_price` is net, for one `measure`; null with `detail` where there is no price. `trace`
    holds the entry that was taken and every step that was looked at.
    """

    unit_price: str | None
    currency: str
    measure: str
    tax_rate: str
    trace: dict[str, Json]
    detail: str


@book.route("GET", f"{API}/prices/choice", capability="query.run", params=ChoiceParams,
            answers={200: ChosenPrice})  # fmt: skip
async def choose_price(ask: Ask) -> ASGIResponse:
    """The price that a line would get, and why this one."""
    given = ask.params(ChoiceParams)
    await _check_seen(ask, given)
    unit = given.unit or ask.ctx.unit
    if unit is not None and unit not in ask.ctx.unit_tree:
        raise Refused("There is no such unit for you.", code="unit.unknown")
    asked = Asked(
        product=given.product, quantity=_decimal(given.quantity, "quantity"),
        measure=given.measure, variant=given.variant, customer=given.customer,
        contract=given.contract, unit=unit, currency=given.currency,
        tax_rate=_decimal(given.tax_rate, "tax_rate") if given.tax_rate else None,
    )  # fmt: skip

    async def read(calls: Sequence[Call]) -> list[Rows]:
        return await ask.node.db.read(ask.ctx.tenant, *calls)

    (found,) = await find_prices(read, ask.ctx, [asked], _moment(ask, given.at))
    price = None if found.unit_price is None else f"{found.unit_price:f}"
    return reply(
        ChosenPrice(
            price, found.currency, found.measure, f"{found.tax_rate:f}", found.trace, found.detail
        )
    )


async def _check_seen(ask: Ask, given: ChoiceParams) -> None:
    """Prices are for who may read them, of products and people that they may read."""
    schema, profile = ask.ctx.schema, ask.ctx.profile
    if not profile.sees(schema.kind("price")):
        raise Refused("There are no prices for you.", code="kind.unknown")
    for kind in ("product", "variant", "customer", "contract"):
        ident: UUID | None = getattr(given, kind)
        if ident is None:
            continue
        seen = profile.sees(schema.kind(kind))
        if not seen or ident not in await fetch(ask.node.db, ask.ctx, kind, [ident], display=False):
            raise Refused(f"There is no such {kind} for you.", code="record.unknown")


def _moment(ask: Ask, at: datetime | None) -> datetime:
    if at is not None and at.tzinfo is None:
        detail = "Expected a moment with an offset, such as 2026-11-20T10:00:00+02:00."
        raise Invalid(detail, code="request.parameter",
                      faults=(FieldFault("/at", "wrong_type", detail),))  # fmt: skip
    return at or ask.ctx.at


def _decimal(text: str, name: str) -> Decimal:
    found = parse_decimal(text)
    if found is None or not 0 <= found < 10**12:
        detail = "Expected a decimal such as 2.5, not below zero."
        raise Invalid(detail, code="request.parameter",
                      faults=(FieldFault(f"/{name}", "wrong_type", detail),))  # fmt: skip
    return found


class ListParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Keys of price types with commas between (all); a branch whose own prices go first; a moment
    with an offset (now). `system`: in XML, whose ids products go by where they have one.
    """

    type: str = ""
    unit: UUID | None = None
    at: datetime | None = None
    system: str = ""


@book.route("GET", f"{API}/price-lists/export", capability="export.run", params=ListParams,
            answers={200: bytes}, media=tuple(m.partition(";")[0] for m in price_lists.MEDIA.values()),
            headers=("Accept",))  # fmt: skip
async def export_price_list(ask: Ask) -> ASGIResponse:
    """Prices in force as a file: XLSX or CSV, to be edited and imported again, or CommerceML offers
    (`Accept: application/xml`).
    """
    given, ctx = ask.params(ListParams), ask.ctx
    if given.unit is not None and given.unit not in ctx.unit_tree:
        raise Refused("There is no such unit for you.", code="unit.unknown")
    types = tuple(k.strip() for k in given.type.split(",") if k.strip())
    asked = price_lists.Asked(at=_moment(ask, given.at), types=types, unit=given.unit)
    form = _form(ask.header("accept") or "")
    chunks = await price_lists.export_list(
        ask.node.db, ctx, asked, form, system=given.system.strip(), guard=ask.gate
    )
    async with ask.node.db.transaction(ctx.tenant) as tx:
        details: dict[str, object] = {"kind": "price", "form": form}
        await tx.run(*audit_calls(ctx.tenant, "records.exported", actor=ctx.actor, subject="price",
                                  request_id=ctx.request_id, details=details))  # fmt: skip
    name = "offers.xml" if form == "xml" else f"price-list.{form}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Stream(chunks, price_lists.MEDIA[form], headers)


def _form(accept: str) -> str:
    if "text/csv" in accept:
        return "csv"
    # Browsers name XML beside HTML without meaning it.
    wanted = "application/xml" in accept or "text/xml" in accept
    return "xml" if wanted and "text/html" not in accept else "xlsx"
