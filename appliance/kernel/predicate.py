"""What a row rule may look at: a record's own columns, and the system fields of every kind."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

import msgspec

from appliance.base.errors import Invalid
from appliance.kernel.kind import Field, Json
from appliance.kernel.query import Cond, decode_condition

SYSTEM_FIELDS: Mapping[str, Field] = {
    name: Field(fid=f"@{name}", name=name, type=type_, slot=slot, filterable=True, system=True,
                options={"target": target} if target else {})
    for name, type_, slot, target in (
        ("id", "reference", "id", ""),
        ("number", "text", "number", ""),
        ("unit", "reference", "unit_id", "sys.unit"),
        ("owner", "reference", "owner_id", "sys.person"),
        ("created_at", "moment", "created_at", ""),
        ("created_by", "reference", "created_by", "sys.person"),
        ("updated_at", "moment", "updated_at", ""),
        ("updated_by", "reference", "updated_by", "sys.person"),
    )
}  # fmt: skip


class RecordView(msgspec.Struct, frozen=True, kw_only=True):
    """The columns a rule may look at; `data` by field id."""

    kind: str
    id: UUID
    data: Mapping[str, Json]
    unit: UUID | None
    owner: UUID | None
    number: str | None
    created_at: datetime
    created_by: UUID
    updated_at: datetime
    updated_by: UUID


def parse_row_rule(rule: Json) -> Cond | None:
    """The tree of a row rule; None when it cannot be read (which then grants nothing)."""
    try:
        return decode_condition(rule)
    except Invalid:
        return None


def system_value(view: RecordView, name: str) -> Json:
    """A system column in its canonical form."""
    value = getattr(view, name)
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%dT%H:%M:%S}.{value.microsecond // 1000:03d}Z"
    return str(value) if value is not None else None
