"""Prices of lines: what nobody typed is chosen by the server, and stands with its reason.

A field with the option `price_for` holds a price for the customer of the document that the named
field refers to. A line without a price gets the right one (appliance/pricing); changing what the
price follows from chooses again; a price that a person typed stays and says so. The fields that
take part have the names that the shipped modules give them.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from uuid import UUID

from appliance.db.wire import Statement
from appliance.fields import type_of
from appliance.fields.base import ValueFault
from appliance.kernel.context import Ctx, Door
from appliance.kernel.kind import FILLS, PRICE_FOR, Field, Json, Kind
from appliance.pricing import Answer, Asked, find_prices
from appliance.pricing.shelf import Data, Read, decimal, reference, value_of
from appliance.write.command import Op
from appliance.write.draft import Draft
from appliance.write.load import COLUMNS, Loaded, read_state
from appliance.write.shown import hides

MANUAL = "manual"
# What the price of a line follows from.
_GROUNDS = ("product", "variant", "quantity", "measure", "tax_rate")
_DOCUMENTS = Statement(
    f"SELECT {COLUMNS} FROM record WHERE tenant_id = $1 AND id = ANY($2::uuid[])"
)


async def find_for(
    read: Read, ctx: Ctx, drafts: Sequence[Draft], loaded: Loaded
) -> dict[int, Answer]:
    """Prices for the lines of a batch that ask for one, by their place in it."""
    asking = [d for d in drafts if not d.faults and _asks(ctx, d)]
    if not asking:
        return {}
    documents = await _read_documents(read, ctx, asking, drafts, loaded)
    asked = [_asked(ctx, d, documents) for d in asking]
    answers = await find_prices(read, ctx, asked, ctx.at)
    return {d.place: answer for d, answer in zip(asking, answers, strict=True)}


def fill(ctx: Ctx, draft: Draft, answers: dict[int, Answer]) -> None:
    """Put the price and its trace into a line, or refuse one that has none."""
    kind, price = draft.kind, draft.kind.priced if draft.kind else None
    if kind is None or price is None or not _is_edited(ctx, draft):
        return
    answer = answers.get(draft.place)
    if answer is None:
        if draft.values.get(price.fid) is not None:
            _put_trace(draft, kind, price, {"chosen": MANUAL})
        elif draft.command.op is Op.CREATE and price.required:
            draft.fault(f"/fields/{price.name}", "required", "This field cannot be empty.")
        return
    if answer.unit_price is None:
        place = "/fields" if hides(ctx, kind, price.name) else f"/fields/{price.name}"
        draft.fault(place, "no_price", f"{answer.detail} Enter a price, or set one in the list.")
        return
    _put(draft, price, f"{answer.unit_price:f}")
    _put_trace(draft, kind, price, answer.trace)
    if draft.command.op is Op.CREATE:
        for name, value in (("measure", answer.measure), ("tax_rate", f"{answer.tax_rate:f}"),
                            ("text", answer.name)):  # fmt: skip
            field = kind.by_name.get(name)
            if field is not None and value and draft.command.fields.get(name) is None:
                _put(draft, field, value)


def _is_edited(ctx: Ctx, draft: Draft) -> bool:
    """Whether somebody writes the line here and now: not a replica, not an undo."""
    command = draft.command
    written = command.op in (Op.CREATE, Op.UPDATE)
    return written and not command.restoring and ctx.door is not Door.SYNC


def _asks(ctx: Ctx, draft: Draft) -> bool:
    kind = draft.kind
    if kind is None or (price := kind.priced) is None or not _is_edited(ctx, draft):
        return False
    if reference(_held(draft, kind, "product")) is None:
        return False
    if price.fid in draft.values:
        return draft.values[price.fid] is None
    if draft.command.op is Op.CREATE:
        return True
    return _was_chosen(draft, kind, price) and any(
        (ground := kind.by_name.get(name)) is not None
        and ground.fid in draft.values
        and draft.values[ground.fid]
        != (draft.before.data.get(ground.fid) if draft.before else None)
        for name in _GROUNDS
    )


def _was_chosen(draft: Draft, kind: Kind, price: Field) -> bool:
    trace = _trace_of(kind, price)
    held = draft.before.data.get(trace.fid) if trace and draft.before else None
    return isinstance(held, dict) and held.get("chosen") not in (None, MANUAL)


def _trace_of(kind: Kind, price: Field) -> Field | None:
    return next((f for f in kind.fields if f.options.get(FILLS) == price.name), None)


def _held(draft: Draft, kind: Kind, name: str) -> Json:
    """A field's value as it will be, by name."""
    before = draft.before.data if draft.before else {}
    return value_of(kind, {**before, **draft.values}, name)


async def _read_documents(
    read: Read, ctx: Ctx, asking: Sequence[Draft], drafts: Sequence[Draft], loaded: Loaded
) -> dict[UUID, tuple[Data, UUID | None]]:
    """Values and unit of the documents of lines: of this batch, referred to, or read now."""
    wanted = {found for d in asking if (found := _document(d)) is not None}
    known: dict[UUID, tuple[Data, UUID | None]] = {
        i: (s.data, s.unit) for i, s in loaded.targets.items() if i in wanted
    }
    if missing := sorted(wanted - known.keys() - {d.id for d in drafts}):
        (rows,) = await read([(_DOCUMENTS, (ctx.tenant, missing))])
        known |= {s.id: (s.data, s.unit) for s in map(read_state, rows)}
    for draft in drafts:
        if draft.id in wanted:
            before = draft.before.data if draft.before else {}
            unit = draft.before.unit if draft.before else draft.unit
            known[draft.id] = ({**before, **draft.values}, unit)
    return known


def _document(draft: Draft) -> UUID | None:
    assert draft.kind is not None and draft.kind.priced is not None, "asked of lines only"
    return reference(_held(draft, draft.kind, str(draft.kind.priced.options[PRICE_FOR])))


def _asked(ctx: Ctx, draft: Draft, documents: dict[UUID, tuple[Data, UUID | None]]) -> Asked:
    kind = draft.kind
    assert kind is not None and kind.priced is not None, "asked of lines only"
    place = _document(draft)
    data, unit = documents.get(place, ({}, None)) if place else ({}, None)
    field = kind.by_name.get(str(kind.priced.options[PRICE_FOR]))
    of = ctx.schema.kind(str(field.option("target"))) if field else None
    product = reference(_held(draft, kind, "product"))
    assert product is not None, "only lines with a product ask"

    def said(name: str) -> Json:
        """What was typed, now or before; a default is nobody's word."""
        if draft.command.op is Op.CREATE and draft.command.fields.get(name) is None:
            return None
        return _held(draft, kind, name)

    measure, rate, currency = said("measure"), said("tax_rate"), value_of(of, data, "currency")
    return Asked(
        product=product, quantity=decimal(_held(draft, kind, "quantity")),
        measure=str(measure) if measure else None,
        variant=reference(_held(draft, kind, "variant")),
        customer=reference(value_of(of, data, "customer")),
        contract=reference(value_of(of, data, "contract")),
        unit=unit or draft.unit or (draft.before.unit if draft.before else None),
        currency=str(currency) if currency else None,
        tax_rate=Decimal(str(rate)) if rate is not None else None,
    )  # fmt: skip


def _put(draft: Draft, field: Field, value: Json) -> None:
    try:
        draft.values[field.fid] = type_of(field.type).accept(field, value)
    except ValueFault as bad:
        draft.fault(f"/fields/{field.name}", bad.code, bad.detail)


def _put_trace(draft: Draft, kind: Kind, price: Field, trace: dict[str, Json]) -> None:
    field = _trace_of(kind, price)
    if field is not None:
        draft.values[field.fid] = trace
