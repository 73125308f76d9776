"""Date and moment. A date is a day wherever you are; a moment is one instant everywhere."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import ClassVar

from appliance.base import limits
from appliance.fields.base import Cell, DefinitionFault, FieldType, SlotValue, ValueFault
from appliance.fields.definition import check_common
from appliance.kernel.kind import Field, Json

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z", re.ASCII)
_MOMENT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?([Zz]|[+-][0-9]{2}:[0-9]{2})\Z",
    re.ASCII,
)


class Date(FieldType):
    """A calendar day, `2026-11-20`; in the index midnight UTC."""

    name: ClassVar[str] = "date"
    slot: ClassVar[str] = "d"
    operators: ClassVar[frozenset[str]] = frozenset(
        {"is_null", "eq", "ne", "gt", "gte", "lt", "lte", "between", "within", "in", "not_in"}
    )
    sortable: ClassVar[bool] = True
    aggregates: ClassVar[frozenset[str]] = frozenset({"count", "count_distinct", "min", "max"})

    def check_definition(self, field: Field) -> list[DefinitionFault]:
        faults = check_common(self, field)
        for name in ("min", "max"):
            bound = getattr(field, name)
            if bound is not None and self._parse(bound) is None:
                faults.append(DefinitionFault(f"/{name}", "bound_malformed", "Expected a value of this type."))
        return faults

    def accept(self, field: Field, value: Json) -> Json:
        found = self._parse(value)
        if found is None:
            raise ValueFault("date_malformed", self._expected())
        self._bound(field, found)
        return self._format(found)

    def _expected(self) -> str:
        return f"Expected a day like 2026-11-20, {limits.YEAR_MIN} to {limits.YEAR_MAX}."

    def _parse(self, value: Json) -> datetime | None:
        if not (isinstance(value, str) and _DATE.match(value)):
            return None
        try:
            found = date.fromisoformat(value)
        except ValueError:
            return None
        if not limits.YEAR_MIN <= found.year <= limits.YEAR_MAX:
            return None
        return datetime(found.year, found.month, found.day, tzinfo=UTC)

    def _format(self, value: datetime) -> str:
        return f"{value:%Y-%m-%d}" if value.year >= 1000 else value.date().isoformat()

    def _bound(self, field: Field, value: datetime) -> None:
        low = self._parse(field.min) if field.min else None
        high = self._parse(field.max) if field.max else None
        if (low is not None and value < low) or (high is not None and value > high):
            raise ValueFault("out_of_range", f"Expected {field.min or '…'} to {field.max or '…'}.")

    def slot_value(self, field: Field, value: Json) -> SlotValue:
        return self._parse(value)

    def operand(self, field: Field, value: Json) -> SlotValue:
        found = self._parse(value)
        if found is None:
            raise ValueFault("date_malformed", self._expected())
        return found

    def from_slot(self, field: Field, slot: Decimal | str) -> Json:
        return self._format(datetime.fromisoformat(str(slot)).astimezone(UTC))

    def cell(self, field: Field, value: Json) -> Cell:
        return self._parse(value)

    def json_schema(self, field: Field) -> dict[str, object]:
        return {"type": "string", "format": "date"}


class Moment(Date):
    """An instant, RFC 3339 with an offset; kept in UTC with milliseconds."""

    name: ClassVar[str] = "moment"

    def _expected(self) -> str:
        return "Expected an instant with its offset, like 2026-11-20T10:00:00+02:00."

    def _parse(self, value: Json) -> datetime | None:
        if not (isinstance(value, str) and _MOMENT.match(value)):
            return None
        try:
            found = datetime.fromisoformat(value.upper().replace(" ", "T")).astimezone(UTC)
        except (ValueError, OverflowError):
            return None
        if not limits.YEAR_MIN <= found.year <= limits.YEAR_MAX:
            return None
        return found - timedelta(microseconds=found.microsecond % 1000)

    def _format(self, value: datetime) -> str:
        return f"{value:%Y-%m-%dT%H:%M:%S}.{value.microsecond // 1000:03d}Z"

    def json_schema(self, field: Field) -> dict[str, object]:
        return {"type": "string", "format": "date-time"}
