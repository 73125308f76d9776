"""Computed fields of one record, worked out on the server whenever an operand changes.

The result is written to the log with its operands: a document that was right on its day does not
change when somebody changes the formula. Operands and result belong into one merge group.
"""

from __future__ import annotations

from decimal import Decimal

from appliance.fields import type_of
from appliance.fields.base import ValueFault
from appliance.kernel.context import Ctx
from appliance.kernel.formula import evaluate, operands, round_to
from appliance.kernel.kind import Field, Kind
from appliance.write.command import Op
from appliance.write.draft import Draft
from appliance.write.fit import with_currency
from appliance.write.hooks import merged
from appliance.write.shown import hides


def derive(ctx: Ctx, draft: Draft) -> None:
    """Bring the computed fields of a record up to what it will hold."""
    kind = draft.kind
    if kind is None or draft.command.op not in (Op.CREATE, Op.UPDATE):
        return
    for field in formulas_of(kind):
        _derive_one(ctx, draft, kind, field)


def formulas_of(kind: Kind) -> list[Field]:
    """The computed fields, each behind those it looks at; a circle is cut where it closes."""
    waiting = {f.name: f for f in kind.fields if "formula" in f.options}
    ordered: list[Field] = []

    def place(name: str) -> None:
        field = waiting.pop(name, None)
        if field is not None:
            for operand in sorted(operands(str(field.options["formula"]))):
                place(operand)
            ordered.append(field)

    for name in list(waiting):
        place(name)
    return ordered


def _derive_one(ctx: Ctx, draft: Draft, kind: Kind, field: Field) -> None:
    text = str(field.options["formula"])
    names = operands(text)
    held = merged(draft)
    if draft.command.op is Op.UPDATE and not any(
        (operand := kind.by_name.get(n)) and operand.fid in draft.values
        for n in (*names, str(field.options.get("currency_field")))
    ):
        return
    values = {
        name: Decimal(str(value))
        for name in names
        if (operand := kind.by_name.get(name)) is not None
        and (value := held.get(operand.fid)) is not None
        and type_of(operand.type).slot == "n"
        and not isinstance(value, bool)
    }
    found = evaluate(text, values)
    type_ = type_of(field.type)
    if found is None:
        draft.values[field.fid] = None
    else:
        field = with_currency(ctx, draft, kind, field)
        digits = type_.scale(field)  # type: ignore[attr-defined]
        rounded = round_to(found, digits, str(field.option("rounding", "half_up")))
        try:
            draft.values[field.fid] = type_.accept(field, f"{rounded:f}")
        except ValueFault as bad:
            # What the author does not see has no name in the answer.
            place = "/fields" if hides(ctx, kind, field.name) else f"/fields/{field.name}"
            draft.fault(place, bad.code, bad.detail)
            return
    before = draft.before.data.get(field.fid) if draft.before else None
    if draft.values[field.fid] == before:
        del draft.values[field.fid]
