"""Rows as cells: columns with their headers in the reader's language, values with their type.

A reference shows the text of its record and a choice its label, as far as the reader may read
them; numbers, days and moments keep their type.
"""

from __future__ import annotations

from decimal import Decimal

import msgspec

from appliance.fields import type_of
from appliance.fields.base import Cell
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Field, Json, label_of
from appliance.kernel.predicate import SYSTEM_FIELDS
from appliance.read.cells import BEHIND
from appliance.read.plan import Plan

_NUMBERS = frozenset({"number", "integer", "money", "quantity"})
_LABELS: dict[str, dict[str, str]] = {
    "id": {"en": "Id"},
    "version": {"en": "Version", "ru": "Версия", "uk": "Версія"},
    "number": {"en": "Number", "ru": "Номер", "uk": "Номер"},
    "unit": {"en": "Unit", "ru": "Подразделение", "uk": "Підрозділ"},
    "owner": {"en": "Owner", "ru": "Ответственный", "uk": "Відповідальний"},
    "created_at": {"en": "Created", "ru": "Создано", "uk": "Створено"},
    "created_by": {"en": "Created by", "ru": "Создал", "uk": "Створив"},
    "updated_at": {"en": "Changed", "ru": "Изменено", "uk": "Змінено"},
    "updated_by": {"en": "Changed by", "ru": "Изменил", "uk": "Змінив"},
}


class Column(msgspec.Struct, frozen=True):
    """One column: where its value stands in a row, and how it is shown."""

    key: str
    field: Field
    header: str
    inside: bool
    masked: bool


def columns_of(ctx: Ctx, plan: Plan) -> list[Column]:
    """The columns of a plan's rows; of whole records the number first, system fields last."""
    masked = {m.key for m in plan.projection.masks}
    whole = plan.projection.whole
    found = [
        Column(key, field, header_of(ctx, key, field), whole, key in masked)
        for key, field in plan.projection.keys
    ]
    if not whole:
        return found

    def system(name: str) -> Column:
        field = SYSTEM_FIELDS[name]
        return Column(name, field, header_of(ctx, name, field), inside=False, masked=False)

    return [system("number"), *found, *map(system, BEHIND)]


def header_of(ctx: Ctx, key: str, field: Field) -> str:
    """The label of a field in the reader's language; a chosen name as it was chosen."""
    prefix, dot, last = key.rpartition(".")
    if last != field.name:
        return key
    labels = _LABELS.get(last, {}) if field.is_column else field.labels
    return prefix + dot + label_of(labels, ctx.locale, last)


def cells_of(ctx: Ctx, columns: list[Column], row: bytes) -> list[Cell]:
    """The cells of a row; None where there is no value."""
    record = msgspec.json.decode(row)
    fields, texts = record.get("fields", {}), record.get("display", {})
    return [
        _cell(ctx, c, (fields if c.inside else record).get(c.key), texts.get(c.key))
        for c in columns
    ]


def _cell(ctx: Ctx, column: Column, value: Json, text: Json) -> Cell:
    field = column.field
    if value is None:
        return None
    if column.masked or field.type == "rollup":
        return value if isinstance(value, int) else str(value)
    if field.type == "reference":
        return str(text or value)
    if field.type in _NUMBERS:
        # Averages of whole numbers have fraction digits, so the type's own cell is too narrow.
        return Decimal(str(value))
    type_ = type_of(field.type)
    if field.type in ("choice", "multi_choice"):
        return type_.text(field, value, ctx.locale)
    return type_.cell(field, value)
