"""Number, integer, money, quantity, yes/no: exact, scaled to a bigint for the index."""

from __future__ import annotations

from decimal import Decimal
from typing import ClassVar

from appliance.base import limits
from appliance.fields.base import Cell, DefinitionFault, FieldType, SlotValue, ValueFault
from appliance.fields.definition import check_common
from appliance.kernel.kind import Field, Json
from appliance.kernel.money import (
    SLOT_SCALE,
    currencies,
    currency_digits,
    fits,
    format_decimal,
    parse_decimal,
    to_slot,
)

_ORDERED = frozenset({"is_null", "eq", "ne", "gt", "gte", "lt", "lte", "between", "in", "not_in"})


class Number(FieldType):
    """A decimal number; option `scale`: fraction digits, 0 to 6 (2)."""

    name: ClassVar[str] = "number"
    slot: ClassVar[str] = "n"
    operators: ClassVar[frozenset[str]] = _ORDERED
    sortable: ClassVar[bool] = True
    options: ClassVar[frozenset[str]] = frozenset({"scale"})
    aggregates: ClassVar[frozenset[str]] = frozenset({"count", "count_distinct", "sum", "avg", "min", "max"})
    scale_default: ClassVar[int] = 2
    scale_max: ClassVar[int] = 6

    def scale(self, field: Field) -> int:
        """Fraction digits of a value."""
        found = field.options.get("scale")
        return found if isinstance(found, int) else self.scale_default

    def slot_scale(self, field: Field) -> int:
        """Fraction digits kept in the index."""
        return self.scale(field)

    def check_definition(self, field: Field) -> list[DefinitionFault]:
        scale = field.options.get("scale", 0)
        if isinstance(scale, bool) or not (isinstance(scale, int) and 0 <= scale <= self.scale_max):
            return [DefinitionFault("/options/scale", "scale_malformed", f"0 to {self.scale_max}.")]
        faults = check_common(self, field)
        for name in ("min", "max"):
            bound = getattr(field, name)
            if bound is not None and parse_decimal(bound) is None:
                faults.append(DefinitionFault(f"/{name}", "bound_malformed", "Expected a decimal text."))
        return faults

    def accept(self, field: Field, value: Json) -> Json:
        found = self._read(field, value)
        scale = self.scale(field)
        if not fits(found, scale):
            raise ValueFault("too_precise", f"At most {scale} digits after the point.")
        self._bound(field, found)
        return format_decimal(found, scale)

    def _read(self, field: Field, value: Json) -> Decimal:
        found = parse_decimal(value)
        if found is None:
            if isinstance(value, float):
                raise ValueFault(
                    "float_refused", 'Send a decimal as text, like "10.50": a binary number is not exact.'
                )
            raise ValueFault("wrong_type", 'Expected a decimal as text, like "10.50".')
        if to_slot(found, self.slot_scale(field)) is None or len(found.as_tuple().digits) > 30:
            raise ValueFault("out_of_range", f"At most {limits.NUMBER_DIGITS_MAX} digits.")
        return found

    @staticmethod
    def _bound(field: Field, value: Decimal) -> None:
        if field.min is not None and value < Decimal(field.min):
            raise ValueFault("too_small", f"At least {field.min}.")
        if field.max is not None and value > Decimal(field.max):
            raise ValueFault("too_large", f"At most {field.max}.")

    def slot_value(self, field: Field, value: Json) -> SlotValue:
        return to_slot(Decimal(str(value)), self.slot_scale(field))

    def operand(self, field: Field, value: Json) -> SlotValue:
        found = self._read(field, value)
        scale = self.slot_scale(field)
        if not fits(found, scale):
            raise ValueFault("too_precise", f"At most {scale} digits after the point.")
        return to_slot(found, scale)

    def from_slot(self, field: Field, slot: Decimal | str) -> Json:
        return format_decimal(Decimal(slot).scaleb(-self.slot_scale(field)), self.scale(field))

    def cell(self, field: Field, value: Json) -> Cell:
        return Decimal(str(value))

    def json_schema(self, field: Field) -> dict[str, object]:
        return {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?$"}


class Quantity(Number):
    """How much of something: option `unit` (a code) or `unit_field` (a sibling), `scale` (3)."""

    name: ClassVar[str] = "quantity"
    options: ClassVar[frozenset[str]] = frozenset({"scale", "unit", "unit_field"})
    scale_default: ClassVar[int] = 3

    def check_definition(self, field: Field) -> list[DefinitionFault]:
        faults = super().check_definition(field)
        for name in ("unit", "unit_field"):
            found = field.options.get(name)
            if found is not None and not (isinstance(found, str) and 0 < len(found) <= 40):
                faults.append(DefinitionFault(f"/options/{name}", "wrong_type", "Expected a short text."))
        return faults

    def text(self, field: Field, value: Json, locale: str) -> str:
        unit = field.options.get("unit")
        return f"{value} {unit}" if unit else str(value)


class Money(Number):
    """An amount: option `currency` (ISO 4217) or `currency_field` (a sibling); else the tenant's.

    The index keeps four fraction digits for every currency, so that amounts compare.
    """

    name: ClassVar[str] = "money"
    options: ClassVar[frozenset[str]] = frozenset({"currency", "currency_field"})

    def scale(self, field: Field) -> int:
        code = field.options.get("currency")
        return currency_digits(code) if isinstance(code, str) else 2

    def slot_scale(self, field: Field) -> int:
        return SLOT_SCALE

    def check_definition(self, field: Field) -> list[DefinitionFault]:
        code = field.options.get("currency")
        if code is not None and code not in currencies():
            return [
                DefinitionFault("/options/currency", "currency_unknown", "Expected an ISO 4217 code such as EUR.")
            ]
        return super().check_definition(field)

    def text(self, field: Field, value: Json, locale: str) -> str:
        code = field.options.get("currency")
        return f"{value} {code}" if code else str(value)


class Integer(Number):
    """A whole number, as JSON number."""

    name: ClassVar[str] = "integer"
    options: ClassVar[frozenset[str]] = frozenset()
    scale_default: ClassVar[int] = 0
    most: ClassVar[int] = 2**53

    def accept(self, field: Field, value: Json) -> Json:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueFault("wrong_type", "Expected a whole number.")
        if abs(value) > self.most:
            raise ValueFault("out_of_range", "Whole numbers go to 2^53.")
        self._bound(field, Decimal(value))
        return value

    def slot_value(self, field: Field, value: Json) -> SlotValue:
        return int(str(value))

    def operand(self, field: Field, value: Json) -> SlotValue:
        found = parse_decimal(value)
        if found is None or found != int(found) or abs(found) > self.most:
            raise ValueFault("wrong_type", "Expected a whole number up to 2^53.")
        return int(found)

    def from_slot(self, field: Field, slot: Decimal | str) -> Json:
        found = Decimal(slot)
        return int(found) if found == int(found) else format_decimal(found, 6)

    def cell(self, field: Field, value: Json) -> Cell:
        return int(str(value))

    def json_schema(self, field: Field) -> dict[str, object]:
        return {"type": "integer", "minimum": -self.most, "maximum": self.most}


class YesNo(FieldType):
    """True or false."""

    name: ClassVar[str] = "yes_no"
    slot: ClassVar[str] = "n"
    operators: ClassVar[frozenset[str]] = frozenset({"is_null", "eq", "ne"})
    sortable: ClassVar[bool] = True

    def check_definition(self, field: Field) -> list[DefinitionFault]:
        return check_common(self, field)

    def accept(self, field: Field, value: Json) -> Json:
        if not isinstance(value, bool):
            raise ValueFault("wrong_type", "Expected true or false.")
        return value

    def slot_value(self, field: Field, value: Json) -> SlotValue:
        return 1 if value is True else 0

    def from_slot(self, field: Field, slot: Decimal | str) -> Json:
        return int(Decimal(slot)) == 1

    def text(self, field: Field, value: Json, locale: str) -> str:
        yes, no = {"ru": ("да", "нет"), "uk": ("так", "ні")}.get(locale, ("yes", "no"))
        return yes if value is True else no

    def cell(self, field: Field, value: Json) -> Cell:
        return value is True

    def json_schema(self, field: Field) -> dict[str, object]:
        return {"type": "boolean"}
