"""What can be judged only beside what the record holds: an archived choice, an amount's digits.

A form sends back what it was given: an option that was archived meanwhile is taken as long as it
stays what it was. An amount that names its currency in a sibling field has the digits of that
currency (ISO 4217), whichever of the two was sent.
"""

from __future__ import annotations

import msgspec

from appliance.base.errors import FieldFault
from appliance.fields import type_of
from appliance.fields.base import ValueFault
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Field, Json, Kind
from appliance.kernel.money import currencies
from appliance.write.command import Op
from appliance.write.draft import Draft

_CHOICES = frozenset({"choice", "multi_choice"})
_CODES = frozenset({"text", "choice"})


def fit(ctx: Ctx, draft: Draft) -> None:
    """Refuse a new archived choice; bring amounts to the digits of their currencies."""
    kind, op = draft.kind, draft.command.op
    if kind is None or op not in (Op.CREATE, Op.UPDATE):
        return
    if op is Op.UPDATE:
        for fid in draft.values:
            if kind.by_fid[fid].type in _CHOICES:
                _refuse_archived(draft, kind.by_fid[fid])
    for field, sibling in _in_currencies(kind):
        if field.fid in draft.values or sibling.fid in draft.values:
            _fit_amount(ctx, draft, field, sibling)


def with_currency(ctx: Ctx, draft: Draft, kind: Kind, field: Field) -> Field:
    """A money field as it is for this record: in the currency that its sibling says."""
    for amount, sibling in _in_currencies(kind):
        if amount is field:
            code = _code(held(draft, sibling)) or ctx.schema.currency
            return msgspec.structs.replace(field, options={**field.options, "currency": code})
    return field


def held(draft: Draft, field: Field) -> Json:
    """A field's value as it will be."""
    if field.fid in draft.values:
        return draft.values[field.fid]
    return draft.before.data.get(field.fid) if draft.before else None


def _refuse_archived(draft: Draft, field: Field) -> None:
    value = draft.values[field.fid]
    before = draft.before.data.get(field.fid) if draft.before else None
    if isinstance(value, list):
        known = before if isinstance(before, list) else []
        value = [member for member in value if member not in known] or None
    if value is not None and value != before:
        _accept(draft, field, value)


def _fit_amount(ctx: Ctx, draft: Draft, field: Field, sibling: Field) -> None:
    said = draft.values.get(sibling.fid)
    if said is not None and _code(said) is None:
        detail = "Expected an ISO 4217 code such as EUR."
        draft.faults.append(FieldFault(f"/fields/{sibling.name}", "currency_unknown", detail))
        return
    value = held(draft, field)
    if value is None or draft.kind is None or "formula" in field.options:
        return
    if field.fid not in draft.values:
        _carry(ctx, draft, field, sibling, value)
        return
    found = _accept(draft, with_currency(ctx, draft, draft.kind, field), value)
    if found is not None and found != value:
        draft.values[field.fid] = found


def _carry(ctx: Ctx, draft: Draft, field: Field, sibling: Field, value: Json) -> None:
    """Bring an amount that was not sent into another currency's digits, or refuse the currency."""
    assert draft.kind is not None, "asked for a kind's field"
    try:
        found = type_of(field.type).accept(with_currency(ctx, draft, draft.kind, field), value)
    except ValueFault:
        # The amount itself may be hidden from the author: its name and value are not said.
        detail = "An amount of this record does not fit into that currency's digits."
        draft.faults.append(FieldFault(f"/fields/{sibling.name}", "currency_digits", detail))
        return
    if found != value:
        draft.values[field.fid] = found


def _accept(draft: Draft, field: Field, value: Json) -> Json:
    try:
        return type_of(field.type).accept(field, value)
    except ValueFault as bad:
        draft.faults.append(FieldFault(f"/fields/{field.name}", bad.code, bad.detail))
        return None


def _code(value: Json) -> str | None:
    code = str(value).upper()
    return code if code in currencies() else None


def _in_currencies(kind: Kind) -> tuple[tuple[Field, Field], ...]:
    """The amounts of a kind whose currency a sibling says, each with that sibling."""
    found: tuple[tuple[Field, Field], ...] | None = kind.__dict__.get("_in_currencies")
    if found is None:
        found = kind.__dict__["_in_currencies"] = tuple(
            (field, sibling)
            for field in kind.fields
            if field.type == "money"
            and (sibling := kind.by_name.get(str(field.options.get("currency_field")))) is not None
            and sibling.type in _CODES
        )
    return found
