"""Number, integer, money, quantity, yes/no: exact, scaled to a bigint for the index."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import ClassVar, NoReturn

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
from appliance.fields.definition import check_common, check_named
from appliance.kernel.formula import ROUNDINGS, FormulaError, operands
from appliance.kernel.kind import PRICE_FOR, Field, Json, Policy
from appliance.kernel.money import (
    SCALED_MAX,
    SLOT_SCALE,
    currencies,
    currency_digits,
    format_decimal,
    format_scaled,
    parse_decimal,
    scale_bound,
    split_decimal,
    to_slot,
    unscale,
)

# Options of a number that the server computes (kernel/formula).
_COMPUTED = frozenset({"formula", "rounding"})
# A stored decimal under any definition.
_STORED = re.compile(r"-?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{1,6})?\Z")
_ORDERED = frozenset({"is_null", "eq", "ne", "gt", "gte", "lt", "lte", "between", "in", "not_in"})


class Number(FieldType):
    """A decimal number; option `scale`: fraction digits, 0 to 6 (2)."""

    name: ClassVar[str] = "number"
    slot: ClassVar[str] = "n"
    operators: ClassVar[frozenset[str]] = _ORDERED
    sortable: ClassVar[bool] = True
    options: ClassVar[frozenset[str]] = frozenset({"scale", PRICE_FOR, *_COMPUTED})
    bounded: ClassVar[bool] = True
    aggregates: ClassVar[frozenset[str]] = frozenset(
        {"count", "count_distinct", "sum", "avg", "min", "max"}
    )
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
        return check_common(self, field, [*self._check_options(field), *check_bounds(field)])

    def _check_options(self, field: Field) -> list[DefinitionFault]:
        """Faults of the type's own options."""
        if faults := check_formula(field) or check_named(field, PRICE_FOR):
            return faults
        scale = field.options.get("scale", 0)
        if "scale" in self.options and (type(scale) is not int or not 0 <= scale <= self.scale_max):
            detail = f"Expected a whole number from 0 to {self.scale_max}."
            return [DefinitionFault("/options/scale", "scale_malformed", detail)]
        return []

    def accept(self, field: Field, value: Json) -> Json:
        scale = self.scale(field)
        scaled = self._read(field, value, scale)
        check_inside(field, scaled, scale)
        return format_scaled(scaled, scale)

    def _read(self, field: Field, value: Json, scale: int) -> int:
        """The scaled value: nothing is rounded, what does not fit is refused."""
        if type(value) is int:
            scaled: int = value * 10**scale
        else:
            parts = split_decimal(value) if isinstance(value, str) else None
            if parts is None:
                refuse_decimal(value)
            whole, fraction = parts
            if len(fraction) > scale:
                raise ValueFault("too_precise", f"At most {scale} digits after the point.")
            scaled = int(whole + fraction.ljust(scale, "0"))
        spare = self.slot_scale(field) - scale
        if not -SCALED_MAX <= scaled * 10**spare <= SCALED_MAX:
            digits = limits.NUMBER_DIGITS_MAX - scale - spare
            raise ValueFault("out_of_range", f"At most {digits} digits before the point.")
        return scaled

    def stored_check(self, field: Field) -> StoredCheck:
        is_sum = field.policy is Policy.COUNTER

        def check(value: Json) -> None:
            if type(value) is not str:
                refuse_decimal(value)
            # The sum of what several nodes have counted may have more digits.
            if not _STORED.match(value) and not (is_sum and split_decimal(value)):
                refuse_form()

        return check

    def slot_value(self, field: Field, value: Json) -> SlotValue:
        return to_slot(Decimal(str(value)), self.slot_scale(field))

    def operand(self, field: Field, value: Json) -> SlotValue:
        return self._read(field, value, self.slot_scale(field))

    def from_slot(self, field: Field, slot: Decimal | str) -> Json:
        return format_decimal(unscale(Decimal(slot), self.slot_scale(field)), self.scale(field))

    def cell(self, field: Field, value: Json) -> Cell:
        return Decimal(str(value))

    def json_schema(self, field: Field) -> dict[str, object]:
        return {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?$"}


class Quantity(Number):
    """How much of something: option `unit` (a code) or `unit_field` (a sibling), `scale` (3)."""

    name: ClassVar[str] = "quantity"
    options: ClassVar[frozenset[str]] = frozenset({"scale", "unit", "unit_field", *_COMPUTED})
    scale_default: ClassVar[int] = 3

    def _check_options(self, field: Field) -> list[DefinitionFault]:
        return [*super()._check_options(field), *check_either(field, "unit", "unit_field")]

    def text(self, field: Field, value: Json, locale: str) -> str:
        unit = field.options.get("unit")
        return f"{value} {unit}" if unit else str(value)


class Money(Number):
    """An amount: option `currency` (ISO 4217) or `currency_field` (a sibling); else the tenant's.

    The index keeps four fraction digits for every currency, so that amounts compare. Where a
    sibling says the currency, the digits are those of the record's own (write/fit).
    """

    name: ClassVar[str] = "money"
    options: ClassVar[frozenset[str]] = frozenset({"currency", "currency_field", *_COMPUTED})

    def scale(self, field: Field) -> int:
        code = field.options.get("currency")
        if isinstance(code, str):
            return currency_digits(code)
        return SLOT_SCALE if _is_open(field) else 2

    def accept(self, field: Field, value: Json) -> Json:
        found = super().accept(field, value)
        return _shorten(str(found)) if _is_open(field) else found

    def from_slot(self, field: Field, slot: Decimal | str) -> Json:
        found = super().from_slot(field, slot)
        return _shorten(str(found)) if _is_open(field) else found

    def slot_scale(self, field: Field) -> int:
        return SLOT_SCALE

    def _check_options(self, field: Field) -> list[DefinitionFault]:
        code = field.options.get("currency")
        if code is not None and not (isinstance(code, str) and code in currencies()):
            detail = "Expected an ISO 4217 code such as EUR."
            return [DefinitionFault("/options/currency", "currency_unknown", detail)]
        if faults := check_formula(field):
            return faults
        return check_either(field, "currency", "currency_field")

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
        check_inside(field, value, 0)
        return value

    def stored_check(self, field: Field) -> StoredCheck:
        counted = super().stored_check(field) if field.policy is Policy.COUNTER else None

        def check(value: Json) -> None:
            if counted is not None and isinstance(value, str):
                counted(value)
            else:
                self.accept(free, value)

        free = self._unbounded(field)
        return check

    def slot_value(self, field: Field, value: Json) -> SlotValue:
        return int(str(value))

    def operand(self, field: Field, value: Json) -> SlotValue:
        if value is None or isinstance(value, bool | float):
            raise ValueFault("wrong_type", "Expected a whole number.")
        found = self._read(field, value, 0)
        if abs(found) > self.most:
            raise ValueFault("out_of_range", "Whole numbers go to 2^53.")
        return found

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


def _is_open(field: Field) -> bool:
    """Whether the currency is said by each record."""
    return "currency_field" in field.options and "currency" not in field.options


def _shorten(text: str) -> str:
    """An amount of a currency not known here: two fraction digits, more where they say more."""
    whole, _, fraction = text.partition(".")
    return f"{whole}.{fraction.rstrip('0').ljust(2, '0')}"


def check_formula(field: Field) -> list[DefinitionFault]:
    """Faults of the options `formula` and `rounding` of a computed number."""
    text, rounding = field.options.get("formula"), field.options.get("rounding", "half_up")
    if not isinstance(rounding, str) or rounding not in ROUNDINGS:
        detail = f"Expected one of {', '.join(ROUNDINGS)}."
        return [DefinitionFault("/options/rounding", "rounding_unknown", detail)]
    if text is None:
        return []
    try:
        looked_at = operands(text) if isinstance(text, str) else frozenset({field.name})
    except FormulaError as bad:
        return [DefinitionFault("/options/formula", "formula_malformed", str(bad))]
    if field.name in looked_at:
        detail = "A formula is a text over other fields of the record."
        return [DefinitionFault("/options/formula", "formula_malformed", detail)]
    return []


def check_bounds(field: Field) -> list[DefinitionFault]:
    """Faults of `min` and `max` as decimal texts."""
    low, high = (None if b is None else parse_decimal(b) for b in (field.min, field.max))
    faults = [
        DefinitionFault(f"/{name}", "bound_malformed", "Expected a decimal text.")
        for name, given, read in (("min", field.min, low), ("max", field.max, high))
        if given is not None and read is None
    ]
    if low is not None and high is not None and low > high:
        faults.append(DefinitionFault("/max", "bounds_crossed", "Expected at least the minimum."))
    return faults


def check_inside(field: Field, scaled: int, scale: int) -> None:
    """Refuse a scaled value outside the field's bounds."""
    if field.min is not None and scaled < scale_bound(field.min, scale, upper=False):
        raise ValueFault("too_small", f"At least {field.min}.")
    if field.max is not None and scaled > scale_bound(field.max, scale, upper=True):
        raise ValueFault("too_large", f"At most {field.max}.")


def check_either(field: Field, fixed: str, sibling: str) -> list[DefinitionFault]:
    """Faults of an option that is either fixed or said by a sibling field."""
    faults = [
        DefinitionFault(f"/options/{name}", "wrong_type", "Expected a text of 1 to 40 characters.")
        for name in (fixed, sibling)
        if (found := field.options.get(name)) is not None
        and not (isinstance(found, str) and 0 < len(found) <= 40)
    ]
    if fixed in field.options and sibling in field.options:
        detail = f"Give {fixed} or {sibling}, not both."
        faults.append(DefinitionFault(f"/options/{sibling}", "not_possible", detail))
    return faults


def refuse_decimal(value: Json) -> NoReturn:
    """Say why a value is no decimal."""
    if isinstance(value, float):
        raise ValueFault(
            "float_refused",
            'Send a decimal string, like "10.50": a binary number is not exact.',
        )
    raise ValueFault("wrong_type", 'Expected a decimal string, like "10.50".')
