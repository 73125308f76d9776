"""Date and moment. A date is a day wherever you are; a moment is one instant everywhere."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import ClassVar

from appliance.base import limits
from appliance.fields.base import (
    Cell,
    DefinitionFault,
    FieldType,
    SlotValue,
    StoredCheck,
    ValueFault,
    refuse_form,
)
from appliance.fields.definition import check_common
from appliance.kernel.kind import FILLS, Field, Json

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")
_MOMENT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,9})?)?"
    r"(?:[Zz]|[+-][0-9]{2}:[0-9]{2})\Z"
)
_STORED = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z\Z")


@lru_cache(maxsize=4_096)
def _read_day(text: str) -> datetime | None:
    if not _DATE.match(text):
        return None
    year = int(text[:4])
    if not limits.YEAR_MIN <= year <= limits.YEAR_MAX:
        return None
    try:
        return datetime(year, int(text[5:7]), int(text[8:]), tzinfo=UTC)
    except ValueError:
        return None


class Date(FieldType):
    """A calendar day, `2026-11-20`; in the index midnight UTC."""

    name: ClassVar[str] = "date"
    slot: ClassVar[str] = "d"
    operators: ClassVar[frozenset[str]] = frozenset(
        {"is_null", "eq", "ne", "gt", "gte", "lt", "lte", "between", "within", "in", "not_in"}
    )
    sortable: ClassVar[bool] = True
    bounded: ClassVar[bool] = True
    form: ClassVar[re.Pattern[str]] = _DATE
    expected: ClassVar[str] = (
        f"Expected a day like 2026-11-20, {limits.YEAR_MIN} to {limits.YEAR_MAX}."
    )
    aggregates: ClassVar[frozenset[str]] = frozenset({"count", "count_distinct", "min", "max"})

    def check_definition(self, field: Field) -> list[DefinitionFault]:
        low, high = (None if b is None else self.parse(b) for b in (field.min, field.max))
        own = [
            DefinitionFault(f"/{name}", "bound_malformed", self.expected)
            for name, given, read in (("min", field.min, low), ("max", field.max, high))
            if given is not None and read is None
        ]
        if low is not None and high is not None and low > high:
            own.append(DefinitionFault("/max", "bounds_crossed", "Expected at least the minimum."))
        return check_common(self, field, own)

    def accept(self, field: Field, value: Json) -> Json:
        found = self._read(value)
        if field.min is not None and found < _bound(self.parse, field.min):
            raise ValueFault("too_early", f"Expected {field.min} or later.")
        if field.max is not None and found > _bound(self.parse, field.max):
            raise ValueFault("too_late", f"Expected {field.max} or earlier.")
        return self.format(found)

    def _read(self, value: Json) -> datetime:
        found = self.parse(value)
        if found is None:
            raise ValueFault(f"{self.name}_malformed", self.expected)
        return found

    @staticmethod
    def parse(value: Json) -> datetime | None:
        """The value as an instant; None when it is not one, or out of the years kept here."""
        return _read_day(value) if isinstance(value, str) and len(value) == 10 else None

    @staticmethod
    def format(value: datetime) -> str:
        """The canonical text of an instant in UTC."""
        return value.date().isoformat()

    def stored_check(self, field: Field) -> StoredCheck:
        form = self.form

        def check(value: Json) -> None:
            if not (isinstance(value, str) and form.match(value)):
                refuse_form()
            try:
                found = datetime.fromisoformat(value)
            except ValueError:
                found = None
            if found is None or not limits.YEAR_MIN <= found.year <= limits.YEAR_MAX:
                raise ValueFault(f"{self.name}_malformed", self.expected)

        return check

    def slot_value(self, field: Field, value: Json) -> SlotValue:
        return self.parse(value)

    def operand(self, field: Field, value: Json) -> SlotValue:
        return self._read(value)

    def from_slot(self, field: Field, slot: Decimal | str) -> Json:
        return self.format(datetime.fromisoformat(str(slot)).astimezone(UTC))

    def cell(self, field: Field, value: Json) -> Cell:
        return self.parse(value)

    def json_schema(self, field: Field) -> dict[str, object]:
        return {"type": "string", "format": "date"}


class Moment(Date):
    """An instant, RFC 3339 with an offset; kept in UTC with milliseconds."""

    name: ClassVar[str] = "moment"
    options: ClassVar[frozenset[str]] = frozenset({FILLS})
    form: ClassVar[re.Pattern[str]] = _STORED

    expected: ClassVar[str] = (
        "Expected an instant with its offset, like 2026-11-20T10:00:00+02:00, "
        f"{limits.YEAR_MIN} to {limits.YEAR_MAX}."
    )

    @staticmethod
    def parse(value: Json) -> datetime | None:
        if not (isinstance(value, str) and _MOMENT.match(value)):
            return None
        try:
            found = datetime.fromisoformat(value.upper()).astimezone(UTC)
        except (ValueError, OverflowError):
            return None
        if not limits.YEAR_MIN <= found.year <= limits.YEAR_MAX:
            return None
        return found.replace(microsecond=found.microsecond // 1000 * 1000)

    @staticmethod
    def format(value: datetime) -> str:
        return value.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"

    def json_schema(self, field: Field) -> dict[str, object]:
        return {"type": "string", "format": "date-time"}


@lru_cache(maxsize=1_024)
def _bound(parse: Callable[[Json], datetime | None], text: str) -> datetime:
    """A field's `min` or `max`; the definition was checked when it was written."""
    found = parse(text)
    assert found is not None, "check_definition has refused an unreadable bound"
    return found
